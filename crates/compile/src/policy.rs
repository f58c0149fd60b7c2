//! Which traffic policy holds for a cluster? The blocks of a DestinationRule, composed for one port and subset.
//!
//! Whole blocks replace each other, never single fields: a subset's `connectionPool` wipes the rule's. Settings of
//! a port inherit nothing from the level around them.

use lateen_config::{
    ClientTlsSettings, ConnectionPoolSettings, ConsistentHash, LoadBalancerPolicy, LoadBalancerSettings,
    OutlierDetection, PortTrafficPolicy, ProxyProtocol, RetryBudget, SimpleLb, TrafficPolicy, TunnelSettings,
};

use crate::mesh::Mesh;
use crate::world::destination_rules::{DestinationRule, Subset};

/// The blocks that hold for one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy<'a> {
    pub(crate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(crate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(crate) outlier_detection: Option<&'a OutlierDetection>,
    pub(crate) tls: Option<&'a ClientTlsSettings>,
    /// As the next two, it does not exist for single ports.
    pub(crate) tunnel: Option<&'a TunnelSettings>,
    pub(crate) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(crate) retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Policy<'a> {
    /// Composes the policy of a rule for `port` (service port) and, if it is for one, a subset. Connection pool and
    /// outlier detection that nothing sets are the mesh's.
    pub(crate) fn compose(
        mesh: &'a Mesh,
        rule: Option<&'a DestinationRule>,
        subset: Option<&'a Subset>,
        port: u32,
    ) -> Policy<'a> {
        let mut policy = Policy::of_rule(rule, subset, port);
        if let Some(default) = &mesh.default_traffic_policy {
            policy.connection_pool = policy.connection_pool.or(default.connection_pool.as_ref());
            policy.outlier_detection = policy.outlier_detection.or(default.outlier_detection.as_ref());
        }
        policy
    }

    fn of_rule(rule: Option<&'a DestinationRule>, subset: Option<&'a Subset>, port: u32) -> Policy<'a> {
        let base = rule.and_then(|rule| rule.traffic_policy.as_ref()).map(|policy| Policy::at(policy, port));
        let base = base.unwrap_or_default();
        let Some(own) = subset.and_then(|subset| subset.traffic_policy.as_ref()) else {
            return base;
        };
        if let Some(of_port) = of_port(own, port) {
            return Policy {
                tunnel: base.tunnel,
                proxy_protocol: base.proxy_protocol,
                retry_budget: base.retry_budget,
                ..Policy::of_port_settings(of_port)
            };
        }
        let own = Policy::of_all_ports(own);
        Policy {
            load_balancer: own.load_balancer.or(base.load_balancer),
            connection_pool: own.connection_pool.or(base.connection_pool),
            outlier_detection: own.outlier_detection.or(base.outlier_detection),
            tls: own.tls.or(base.tls),
            tunnel: own.tunnel.or(base.tunnel),
            proxy_protocol: own.proxy_protocol.or(base.proxy_protocol),
            retry_budget: own.retry_budget.or(base.retry_budget),
        }
    }

    fn at(policy: &'a TrafficPolicy, port: u32) -> Policy<'a> {
        match of_port(policy, port) {
            Some(of_port) => Policy::of_port_settings(of_port),
            None => Policy::of_all_ports(policy),
        }
    }

    fn of_all_ports(policy: &'a TrafficPolicy) -> Policy<'a> {
        Policy {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
            tunnel: policy.tunnel.as_ref(),
            proxy_protocol: policy.proxy_protocol.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
        }
    }

    fn of_port_settings(policy: &'a PortTrafficPolicy) -> Policy<'a> {
        Policy {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
            tunnel: None,
            proxy_protocol: None,
            retry_budget: None,
        }
    }

    /// The algorithm that is asked for by name.
    pub(crate) fn simple(&self) -> Option<SimpleLb> {
        match self.load_balancer?.policy.as_ref()? {
            LoadBalancerPolicy::Simple(simple) => Some(*simple),
            LoadBalancerPolicy::ConsistentHash(_) => None,
        }
    }

    /// Share of healthy endpoints below which all are used; 0 when the policy asks for none.
    pub(crate) fn min_health_percent(&self) -> i32 {
        self.outlier_detection.and_then(|outlier| outlier.min_health_percent).unwrap_or(0)
    }
}

/// The consistent-hash settings of a policy: those of `port` where one is named, else those of all ports.
pub(crate) fn consistent_hash(policy: Option<&TrafficPolicy>, port: Option<u32>) -> Option<&ConsistentHash> {
    let policy = policy?;
    port.and_then(|port| of_port(policy, port))
        .and_then(|settings| hash_of(settings.load_balancer.as_ref()))
        .or_else(|| hash_of(policy.load_balancer.as_ref()))
}

fn hash_of(settings: Option<&LoadBalancerSettings>) -> Option<&ConsistentHash> {
    match settings?.policy.as_ref()? {
        LoadBalancerPolicy::ConsistentHash(hash) => Some(hash),
        LoadBalancerPolicy::Simple(_) => None,
    }
}

fn of_port(policy: &TrafficPolicy, port: u32) -> Option<&PortTrafficPolicy> {
    policy.port_level_settings.iter().find(|settings| settings.port.as_ref().is_some_and(|of| of.number == port))
}
