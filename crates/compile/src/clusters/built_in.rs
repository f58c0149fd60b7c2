//! Which clusters are there whatever the objects say? Where requests to unknown destinations go.

use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};

use super::{base, discovery_type, http_options, original_destination};
use crate::context::Context;
use crate::dynamic_dns;
use crate::mesh::OutboundTrafficPolicy;
use crate::message;
use crate::names;
use crate::scope::Role;
use crate::tls::Verification;

/// Idle time after which a connection to an original destination is closed.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// The clusters for requests that leave.
pub(super) fn compile(cx: &Context<'_>) -> Vec<Cluster> {
    let mut clusters = vec![black_hole(cx)];
    if cx.is_redirected() {
        clusters.push(passthrough(cx, names::PASSTHROUGH_CLUSTER));
    }
    if cx.scope.role == Role::Sidecar && cx.outbound_traffic_policy() == OutboundTrafficPolicy::AllowAnyDynamicDns {
        clusters.push(any_name(cx));
    }
    clusters
}

/// Forwards to the original destination with the protocol of the client.
pub(super) fn passthrough(cx: &Context<'_>, name: &str) -> Cluster {
    let mut cluster = base(cx, name);
    original_destination(&mut cluster, None);
    http_options::follow_client(&mut cluster, PASSTHROUGH_IDLE);
    cluster
}

/// Where requests to unknown destinations end: no endpoint is in it.
fn black_hole(cx: &Context<'_>) -> Cluster {
    Cluster {
        name: names::BLACK_HOLE_CLUSTER.to_owned(),
        cluster_discovery_type: discovery_type(cluster::DiscoveryType::Static),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        lb_policy: cluster::LbPolicy::RoundRobin.into(),
        ..Default::default()
    }
}

/// Resolves the host of each request.
fn any_name(cx: &Context<'_>) -> Cluster {
    let mut cluster = base(cx, names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER);
    dynamic_dns::apply(&mut cluster, cx.world.mesh());
    let options = http_options::Options {
        version: http_options::Version::Client,
        pool: None,
        verification: Verification { auto_sni: true, auto_san_validation: true },
        error_matcher: None,
    };
    http_options::apply(&mut cluster, options);
    cluster
}
