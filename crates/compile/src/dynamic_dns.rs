//! How are hosts reached whose names only the requests tell? Clusters that resolve the host of each request. They need no
//! filter before them: Envoy looks up what its cache lacks when it picks the endpoint.

use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use lateen_xds::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;

use crate::mesh::Mesh;
use crate::message;

/// Name of the cluster extension.
const CLUSTER: &str = "envoy.clusters.dynamic_forward_proxy";

/// Name of the cache, which all such clusters share.
const CACHE: &str = "dynamic_dns";

/// Makes a cluster resolve the host of each request.
pub(crate) fn apply(cluster: &mut Cluster, mesh: &Mesh) {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache(
            mesh,
        ))),
        ..Default::default()
    };
    cluster.lb_policy = cluster::LbPolicy::ClusterProvided.into();
    cluster.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::ClusterType(cluster::CustomClusterType {
        name: CLUSTER.to_owned(),
        typed_config: Some(message::typed(&config)),
    }));
}

/// Envoy refuses clusters that share a cache and configure it differently.
fn cache(mesh: &Mesh) -> DnsCacheConfig {
    DnsCacheConfig {
        name: CACHE.to_owned(),
        dns_lookup_family: cluster::DnsLookupFamily::V4Only.into(),
        dns_refresh_rate: Some(message::duration(mesh.dns_refresh_rate)),
        ..Default::default()
    }
}
