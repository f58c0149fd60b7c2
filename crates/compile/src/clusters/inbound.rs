//! How does a sidecar reach its own workload? One cluster for each port that it serves, and one for all other ports.

use lateen_config::ConnectionPoolSettings;
use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::config::core::v3::{BindConfig, SocketAddress, socket_address};
use lateen_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use prost_types::Duration;

use super::{base, built_in, connection_pool, discovery_type, http_options, original_destination, outbound};
use crate::context::Context;
use crate::endpoints::envoy_address;
use crate::inbound::{InboundEndpoint, InboundTarget};
use crate::message;
use crate::names;
use crate::policy::Policy;
use crate::tls::Verification;
use crate::world::destination_rules::Client;

/// Time after which Envoy forgets an original destination that is not used: as good as never, and the longest that it
/// takes.
const CLEANUP_INTERVAL: Duration = Duration { seconds: 9_223_372_035, nanos: 0 };

/// Addresses from which connections to the workload come, by which the redirection knows not to take them again.
const SOURCES: [&str; 2] = ["127.0.0.6", "::6"];

/// The cluster of a port of the workload.
pub(super) fn compile(cx: &Context<'_>, target: &InboundTarget<'_>) -> Cluster {
    let name = names::inbound_cluster(target.port);
    let mut cluster = base(cx, &name);
    match &target.endpoint {
        InboundEndpoint::OriginalDestination { port } => {
            original_destination(&mut cluster, *port);
            cluster.cleanup_interval = Some(CLEANUP_INTERVAL);
            cluster.upstream_bind_config = Some(source(cx));
        }
        InboundEndpoint::Address(address) => {
            let endpoint = Endpoint { address: Some(envoy_address(address)), ..Default::default() };
            let endpoint = LbEndpoint {
                host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
                ..Default::default()
            };
            cluster.cluster_discovery_type = discovery_type(cluster::DiscoveryType::Static);
            cluster.load_assignment = Some(ClusterLoadAssignment {
                cluster_name: name,
                endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
                ..Default::default()
            });
        }
    }
    let pool = pool(cx, target);
    connection_pool::apply(&mut cluster, cx.world.mesh(), pool, None);
    let options = http_options::Options {
        version: http_options::inbound_version(cx, pool, target.protocol),
        pool,
        verification: Verification::default(),
        error_matcher: None,
    };
    http_options::apply(&mut cluster, options);
    if !target.services.is_empty() {
        let services = target.services.iter().map(|(service, _)| outbound::description(service)).collect();
        cluster.metadata = Some(message::istio_metadata([("services", message::list(services))]));
    }
    cluster
}

/// The cluster of all ports that nothing names.
pub(super) fn passthrough(cx: &Context<'_>) -> Cluster {
    Cluster { upstream_bind_config: Some(source(cx)), ..built_in::passthrough(cx, names::INBOUND_PASSTHROUGH_CLUSTER) }
}

/// The limits of connections to a port: of its listener in the Sidecar object, else of the object, else of the rule for
/// the service, without regard to whom that rule is for.
fn pool<'a>(cx: &Context<'a>, target: &InboundTarget<'a>) -> Option<&'a ConnectionPoolSettings> {
    let of_listener = target.ingress.and_then(|listener| listener.connection_pool.as_ref());
    let of_sidecar = || cx.sidecar.and_then(|sidecar| sidecar.spec.inbound_connection_pool.as_ref());
    let of_service = || {
        let (service, port) = target.services.first()?;
        let client = Client { namespace: &cx.scope.namespace, labels: None };
        let rule = cx.world.destination_rule(service, &client).map(|rule| &**rule);
        Policy::compose(cx.world.mesh(), rule, None, port.number).connection_pool
    };
    let of_mesh = || cx.world.mesh().default_traffic_policy.as_ref()?.connection_pool.as_ref();
    of_listener.or_else(of_sidecar).or_else(of_service).or_else(of_mesh)
}

/// The address that connections to the workload come from, of the family that the workload has.
fn source(cx: &Context<'_>) -> BindConfig {
    let addresses = &cx.scope.addresses;
    let only_v6 = !addresses.is_empty() && addresses.iter().all(|address| address.is_ipv6());
    let [v4, v6] = SOURCES;
    BindConfig {
        source_address: Some(SocketAddress {
            address: (if only_v6 { v6 } else { v4 }).to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
