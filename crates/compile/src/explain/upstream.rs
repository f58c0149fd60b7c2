//! How is a cluster reached? Its endpoints, how one of them is picked, limits, and TLS.

use lateen_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use lateen_xds::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use lateen_xds::envoy::config::core::v3::transport_socket::ConfigType;
use lateen_xds::envoy::config::core::v3::{Address, Locality, TransportSocket, address, socket_address};
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use lateen_xds::{Part, XdsSet, any};

use super::explanation::{Discovery, Upstream, UpstreamEndpoint, UpstreamTls};
use super::policies::duration;

/// What is known of a cluster; `None` when it does not exist.
pub(crate) fn build(set: &XdsSet, name: &str) -> Option<Upstream> {
    let resource = set.clusters.get(name)?;
    let cluster = &resource.message;
    let kind = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).unwrap_or(DiscoveryType::Static),
        Some(ClusterDiscoveryType::ClusterType(_)) => DiscoveryType::Static,
        None => DiscoveryType::Static,
    };
    let discovery = match (&cluster.cluster_discovery_type, kind) {
        (Some(ClusterDiscoveryType::ClusterType(custom)), _) if custom.name.contains("dynamic_forward_proxy") => {
            Discovery::DynamicForwardProxy
        }
        (Some(ClusterDiscoveryType::ClusterType(custom)), _) if custom.name.contains("dns") => Discovery::Dns,
        (_, DiscoveryType::StrictDns | DiscoveryType::LogicalDns) => Discovery::Dns,
        (_, DiscoveryType::OriginalDst) => Discovery::OriginalDestination,
        _ => Discovery::Listed,
    };
    Some(Upstream {
        endpoints: assignment(set, cluster, kind).map(endpoints).unwrap_or_default(),
        discovery,
        load_balancing: load_balancing(cluster),
        limits: limits(cluster),
        outlier_detection: cluster.outlier_detection.as_ref().map(outlier_detection).unwrap_or_default(),
        connect_timeout: cluster.connect_timeout.as_ref().map(duration),
        tls: tls(cluster),
        origins: resource.origins_of(Part::Whole).cloned().collect(),
    })
}

fn assignment<'a>(set: &'a XdsSet, cluster: &'a Cluster, kind: DiscoveryType) -> Option<&'a ClusterLoadAssignment> {
    if kind != DiscoveryType::Eds {
        return cluster.load_assignment.as_ref();
    }
    let name = match &cluster.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => &config.service_name,
        _ => &cluster.name,
    };
    set.endpoints.get(name.as_str()).map(|resource| &*resource.message)
}

fn endpoints(assignment: &ClusterLoadAssignment) -> Vec<UpstreamEndpoint> {
    let mut all: Vec<UpstreamEndpoint> = Vec::new();
    for group in &assignment.endpoints {
        let locality = group.locality.as_ref().map(locality).unwrap_or_default();
        for endpoint in &group.lb_endpoints {
            let address = match &endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref().map(address_text),
                Some(HostIdentifier::EndpointName(name)) => {
                    assignment.named_endpoints.get(name).and_then(|named| named.address.as_ref()).map(address_text)
                }
                None => None,
            };
            all.push(UpstreamEndpoint {
                address: address.unwrap_or_else(|| "?".to_owned()),
                health: endpoint.health_status().as_str_name().to_ascii_lowercase(),
                locality: locality.clone(),
                priority: group.priority,
                weight: endpoint.load_balancing_weight.unwrap_or(1),
            });
        }
    }
    all.sort_by_key(|endpoint| endpoint.priority);
    all
}

fn locality(locality: &Locality) -> String {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let known: Vec<&str> = parts.into_iter().map(String::as_str).take_while(|part| !part.is_empty()).collect();
    known.join("/")
}

fn address_text(address: &Address) -> String {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => {
            let port = match &socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => port.to_string(),
                Some(socket_address::PortSpecifier::NamedPort(name)) => name.clone(),
                None => "0".to_owned(),
            };
            if socket.address.contains(':') {
                format!("[{}]:{port}", socket.address)
            } else {
                format!("{}:{port}", socket.address)
            }
        }
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        _ => "?".to_owned(),
    }
}

fn load_balancing(cluster: &Cluster) -> String {
    match &cluster.load_balancing_policy {
        Some(policy) => {
            let names = policy.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref());
            names.map(|config| config.name.as_str()).next().unwrap_or("?").to_owned()
        }
        None => match cluster.lb_policy() {
            LbPolicy::ClusterProvided => String::new(),
            policy => policy.as_str_name().to_owned(),
        },
    }
}

/// Istio writes the largest number for "no limit", so only smaller ones say something.
fn limits(cluster: &Cluster) -> Vec<(String, u64)> {
    let mut limits = Vec::new();
    if let Some(thresholds) = cluster.circuit_breakers.as_ref().and_then(|breakers| breakers.thresholds.first()) {
        for (name, limit) in [
            ("max_connections", thresholds.max_connections),
            ("max_pending_requests", thresholds.max_pending_requests),
            ("max_requests", thresholds.max_requests),
            ("max_retries", thresholds.max_retries),
        ] {
            limits.extend(limit.filter(|limit| *limit != u32::MAX).map(|limit| (name.to_owned(), u64::from(limit))));
        }
    }
    let per_connection = cluster.max_requests_per_connection.filter(|limit| *limit > 0);
    limits.extend(per_connection.map(|limit| ("max_requests_per_connection".to_owned(), u64::from(limit))));
    limits
}

fn outlier_detection(outlier: &OutlierDetection) -> Vec<(String, String)> {
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let length =
        |value: &Option<prost_types::Duration>| value.as_ref().map(|value| super::json::seconds(duration(value)));
    [
        ("consecutive_5xx", number(outlier.consecutive_5xx.filter(|_| outlier.enforcing_consecutive_5xx != Some(0)))),
        (
            "consecutive_gateway_failure",
            number(
                outlier
                    .consecutive_gateway_failure
                    .filter(|_| outlier.enforcing_consecutive_gateway_failure.unwrap_or(0) > 0),
            ),
        ),
        ("interval", length(&outlier.interval)),
        ("base_ejection_time", length(&outlier.base_ejection_time)),
        ("max_ejection_percent", number(outlier.max_ejection_percent)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// A choice by the endpoint's metadata is the mesh's automatic TLS.
fn tls(cluster: &Cluster) -> UpstreamTls {
    if let Some(context) = cluster.transport_socket.as_ref().and_then(tls_context) {
        return always(&context);
    }
    let matched: Vec<_> = cluster
        .transport_socket_matches
        .iter()
        .map(|choice| choice.transport_socket.as_ref().and_then(tls_context))
        .collect();
    match matched.as_slice() {
        [] => UpstreamTls::None,
        all if all.iter().all(Option::is_none) => UpstreamTls::None,
        [Some(only)] => always(only),
        _ => UpstreamTls::Automatic,
    }
}

fn always(context: &UpstreamTlsContext) -> UpstreamTls {
    let mutual = context.common_tls_context.as_ref().is_some_and(|common| {
        !common.tls_certificates.is_empty() || !common.tls_certificate_sds_secret_configs.is_empty()
    });
    UpstreamTls::Always { mutual, sni: context.sni.clone() }
}

fn tls_context(socket: &TransportSocket) -> Option<UpstreamTlsContext> {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(config)) => any::unpack(config).ok(),
        None => None,
    }
}
