//! Which workloads stand behind a cluster? Endpoint assignments (EDS), and the same lists inside clusters whose
//! endpoints are DNS names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_config::ClientTlsMode;
use lateen_xds::envoy::config::core::v3::{HealthStatus, Locality as EnvoyLocality};
use lateen_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use lateen_xds::{Origin, Part, Resource};

use crate::context::Context;
use crate::locality::Preference;
use crate::message;
use crate::policy::Policy;
use crate::world::authentication::PeerMode;
use crate::world::services::{Address, Endpoint, Health, Locality, Service};

/// Metadata by which a cluster chooses the transport socket of an endpoint.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// What decides which endpoints a cluster has, and how they are used.
pub(crate) struct Selection<'a, 'b> {
    pub(crate) cx: &'b Context<'a>,
    pub(crate) service: &'a Service,
    pub(crate) policy: &'b Policy<'a>,
    pub(crate) preference: &'b Preference<'a>,
    /// Labels of the subset.
    pub(crate) labels: Option<&'b BTreeMap<String, String>>,
    /// Only those that take mutual TLS of the mesh.
    pub(crate) only_mesh_tls: bool,
}

impl<'a> Selection<'a, '_> {
    /// The endpoints that belong to the cluster. Unhealthy ones are sent along, for arithmetic of localities, unless
    /// the policy asks for a share of healthy ones: panic mode could then use them.
    pub(crate) fn select(&self, endpoints: &'a [Endpoint]) -> Vec<&'a Endpoint> {
        let healthy_only = self.policy.min_health_percent() > 0 && !self.preference.is_of_service;
        let node = &self.cx.scope.node;
        // A proxy that does not know its node cannot tell which endpoints share it.
        let own_node_only = self.service.is_node_local && !node.is_empty();
        endpoints
            .iter()
            .filter(|endpoint| self.labels.is_none_or(|labels| endpoint.has_labels(labels)))
            .filter(|endpoint| !healthy_only || endpoint.health != Health::Unhealthy)
            .filter(|endpoint| !own_node_only || endpoint.workload.node == *node)
            .filter(|endpoint| !self.only_mesh_tls || self.takes_mesh_tls(endpoint))
            .collect()
    }

    /// The message for endpoints that were selected.
    pub(crate) fn assignment(&self, cluster: &str, endpoints: &[&'a Endpoint]) -> ClusterLoadAssignment {
        let groups = self.preference.group(self.cx.scope, endpoints);
        let endpoints = groups.into_iter().map(|group| LocalityLbEndpoints {
            locality: envoy_locality(group.locality),
            priority: group.priority,
            load_balancing_weight: Some(group.weight),
            lb_endpoints: group.endpoints.into_iter().map(|endpoint| self.lb_endpoint(endpoint)).collect(),
            ..Default::default()
        });
        ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints: endpoints.collect(), ..Default::default() }
    }

    /// The assignment of the cluster among endpoints of its port, with the objects that name them.
    pub(crate) fn compile(&self, cluster: &str, endpoints: &'a [Endpoint]) -> Resource<ClusterLoadAssignment> {
        let chosen = self.select(endpoints);
        let mut known: BTreeSet<&Origin> = BTreeSet::new();
        let origins = chosen.iter().map(|endpoint| &*endpoint.origin).filter(|origin| known.insert(origin));
        let origins = origins.map(|origin| (Part::Whole, origin.clone())).collect();
        Resource::new(self.assignment(cluster, &chosen), origins)
    }

    /// True when an endpoint is reached with mutual TLS of the mesh: a rule that says anything about TLS decides, else
    /// the workload itself and the policy for its port.
    pub(crate) fn takes_mesh_tls(&self, endpoint: &Endpoint) -> bool {
        if let Some(tls) = self.policy.tls {
            return tls.mode == ClientTlsMode::IstioMutual;
        }
        let port = match &endpoint.address {
            Address::Socket { port, .. } => *port,
            Address::Pipe(_) => 0,
        };
        endpoint.has_mesh_tls
            && self.cx.world.peer_policy(&endpoint.workload.namespace, &endpoint.labels).at(port) != PeerMode::Disable
    }

    fn lb_endpoint(&self, endpoint: &Endpoint) -> LbEndpoint {
        let health = match endpoint.health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Unhealthy => HealthStatus::Unhealthy,
            Health::Draining => HealthStatus::Draining,
        };
        let mut sections =
            vec![("istio", message::object([("workload", message::text(endpoint.workload.to_string()))]))];
        if self.takes_mesh_tls(endpoint) {
            sections.push((TRANSPORT_SOCKET_MATCH, message::object([(TLS_MODE, message::text(MESH_TLS))])));
        }
        LbEndpoint {
            health_status: health.into(),
            load_balancing_weight: Some(endpoint.weight),
            metadata: Some(message::metadata(sections)),
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(EnvoyEndpoint {
                address: Some(envoy_address(&endpoint.address)),
                ..Default::default()
            })),
        }
    }
}

/// Key by which endpoints say how they are reached.
pub(crate) const TLS_MODE: &str = "tlsMode";

/// Its value for mutual TLS of the mesh.
pub(crate) const MESH_TLS: &str = "istio";

/// The message for an address.
pub(crate) fn envoy_address(address: &Address) -> lateen_xds::envoy::config::core::v3::Address {
    match address {
        Address::Socket { host, port } => message::socket_address(host, *port),
        Address::Pipe(path) => message::pipe(path),
    }
}

fn envoy_locality(locality: &Locality) -> Option<EnvoyLocality> {
    (!locality.is_unknown()).then(|| EnvoyLocality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    })
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
