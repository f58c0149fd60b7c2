//! Which workloads stand behind a cluster? Endpoint assignments (EDS), and the same lists inside clusters whose
//! endpoints are DNS names.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3::{HealthStatus, Locality as EnvoyLocality};
use lateen_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use lateen_xds::{Origin, Part, Resource};

use crate::message;
use crate::policy::Policy;
use crate::world::services::{Address, Endpoint, Health, Locality};

/// The assignment of one cluster: the endpoints that carry `labels`, grouped by locality.
pub(crate) fn compile(
    cluster: &str,
    endpoints: &[Endpoint],
    labels: Option<&BTreeMap<String, String>>,
    policy: &Policy<'_>,
) -> Resource<ClusterLoadAssignment> {
    let chosen = select(endpoints, labels, policy);
    let mut origins: Vec<(Part, Origin)> = Vec::new();
    for endpoint in &chosen {
        let origin = (Part::Whole, (*endpoint.origin).clone());
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    Resource::new(assignment(cluster, &chosen), origins)
}

/// The endpoints that belong to a cluster. Unhealthy ones are sent along, for arithmetic of localities, unless
/// the policy asks for a share of healthy ones: panic mode could then use them.
pub(crate) fn select<'a>(
    endpoints: &'a [Endpoint],
    labels: Option<&BTreeMap<String, String>>,
    policy: &Policy<'_>,
) -> Vec<&'a Endpoint> {
    let healthy_only = policy.min_health_percent() > 0;
    endpoints
        .iter()
        .filter(|endpoint| labels.is_none_or(|labels| endpoint.has_labels(labels)))
        .filter(|endpoint| !healthy_only || endpoint.health != Health::Unhealthy)
        .collect()
}

/// The message for a list of endpoints.
pub(crate) fn assignment(cluster: &str, endpoints: &[&Endpoint]) -> ClusterLoadAssignment {
    let mut by_locality: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        by_locality.entry(&endpoint.locality).or_default().push(endpoint);
    }
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: by_locality
            .into_iter()
            .map(|(locality, endpoints)| LocalityLbEndpoints {
                locality: (!locality.is_unknown()).then(|| EnvoyLocality {
                    region: locality.region.clone(),
                    zone: locality.zone.clone(),
                    sub_zone: locality.sub_zone.clone(),
                }),
                load_balancing_weight: Some(
                    endpoints.iter().fold(0u32, |sum, endpoint| sum.saturating_add(endpoint.weight)),
                ),
                lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    let workload = &endpoint.workload;
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(endpoint.weight),
        metadata: Some(message::istio_metadata([("workload", message::text(workload.to_string()))])),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(match &endpoint.address {
                Address::Socket { host, port } => message::socket_address(host, *port),
                Address::Pipe(path) => message::pipe(path),
            }),
            ..Default::default()
        })),
    }
}

/// An assignment of a host that its own name resolves to: what a DNS service without endpoints has.
pub(crate) fn of_host(host: &str, port: u32, origin: &Arc<Origin>) -> Endpoint {
    Endpoint {
        address: Address::Socket { host: host.into(), port },
        labels: Arc::default(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        has_mesh_tls: false,
        workload: Arc::default(),
        origin: origin.clone(),
    }
}
