//! A cluster as the data plane uses it, without its endpoints: how to connect, what is allowed, how hosts are chosen.

mod balancing;
mod dns;
mod health_check;
mod outlier;
mod thresholds;

use std::sync::Arc;
use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::extensions::upstreams::http::v3 as http_v3;

pub use self::balancing::{Balancing, HashFunction, Policy, SlowStart};
pub use self::dns::{Dns, Family, Refresh};
pub use self::health_check::{Checker, HealthCheck, HttpCheck};
pub use self::outlier::{Enforcing, OutlierDetection};
pub use self::thresholds::{RetryBudget, Thresholds};
use super::Invalid;
use super::fields::{duration, unpack};
use super::matcher::header_name;
use crate::http::head::HeaderName;

/// Envoy's default `connect_timeout`.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default upstream HTTP connection `idle_timeout`.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Envoy's default header that names a destination.
const DEFAULT_DESTINATION_HEADER: &str = "x-envoy-original-dst-host";
/// Envoy's default `cleanup_interval`.
const DEFAULT_CLEANUP: Duration = Duration::from_secs(5);

/// Where the endpoints come from; Envoy's discovery type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// `STATIC`: in the cluster itself.
    Static,
    /// `EDS`: in a `ClusterLoadAssignment` of the set.
    Eds,
    /// `STRICT_DNS`: every address of every name.
    StrictDns,
    /// `LOGICAL_DNS`: the first address of the one name.
    LogicalDns,
    /// `ORIGINAL_DST`: wherever the client wanted to go.
    OriginalDst,
}

/// Where a request of an `ORIGINAL_DST` cluster goes; Envoy's `OriginalDstLbConfig`.
#[derive(Debug)]
pub struct OriginalDst {
    /// `use_http_header`: the header that names the destination.
    pub header: Option<HeaderName>,
    /// `upstream_port_override`.
    pub port: Option<u16>,
    /// `cleanup_interval`: a destination that nobody asked for so long is forgotten.
    pub cleanup_interval: Duration,
}

/// The settings of a cluster, without its endpoints.
#[derive(Debug)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub name: Arc<str>,
    /// The name in statistics: `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// Discovery type.
    pub discovery: Discovery,
    /// Name of the load assignment: `eds_cluster_config.service_name`, else the cluster's name.
    pub assignment: Arc<str>,
    /// `connect_timeout`.
    pub connect_timeout: Duration,
    /// How hosts are chosen.
    pub balancing: Balancing,
    /// How hosts are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// When hosts are taken out for what they answer.
    pub outlier_detection: Option<OutlierDetection>,
    /// `max_requests_per_connection`; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Idle timeout of a pooled connection; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// How names are resolved, for the DNS types.
    pub dns: Dns,
    /// Where requests go, for `ORIGINAL_DST`.
    pub original_dst: Option<OriginalDst>,
    /// The circuit breaker thresholds of the default and the high priority.
    pub thresholds: [Thresholds; 2],
    /// `upstream_connection_options.tcp_keepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// Probes on upstream connections that are quiet; Envoy's `TcpKeepalive`. What is not said is the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `keepalive_time`: quiet time before the first probe.
    pub time: Option<Duration>,
    /// `keepalive_interval`: time between probes.
    pub interval: Option<Duration>,
    /// `keepalive_probes`: unanswered probes before the connection counts as dead.
    pub probes: Option<u32>,
}

impl TcpKeepalive {
    fn build(message: &core_v3::TcpKeepalive) -> Self {
        let seconds =
            |value: Option<u32>| value.filter(|value| *value > 0).map(|value| Duration::from_secs(value.into()));
        Self {
            time: seconds(message.keepalive_time),
            interval: seconds(message.keepalive_interval),
            probes: message.keepalive_probes.filter(|probes| *probes > 0),
        }
    }

    /// As the socket takes them.
    #[must_use]
    pub fn settings(&self) -> socket2::TcpKeepalive {
        let mut settings = socket2::TcpKeepalive::new();
        if let Some(time) = self.time {
            settings = settings.with_time(time);
        }
        if let Some(interval) = self.interval {
            settings = settings.with_interval(interval);
        }
        if let Some(probes) = self.probes {
            settings = settings.with_retries(probes);
        }
        settings
    }
}

impl ClusterConfig {
    /// Reads `envoy.config.cluster.v3.Cluster`.
    ///
    /// # Errors
    /// A field that this data plane cannot honour, with its path.
    pub fn build(message: &cluster_v3::Cluster) -> Result<Self, Invalid> {
        let discovery = discovery(message)?;
        let options = http_options(message)?;
        let common = options.as_ref().and_then(|options| options.common_http_protocol_options.as_ref());
        let idle_timeout = match common.and_then(|common| common.idle_timeout.as_ref()) {
            Some(timeout) => duration(timeout, "common_http_protocol_options.idle_timeout")?,
            None => DEFAULT_IDLE_TIMEOUT,
        };
        let max_connection_duration = common
            .and_then(|common| common.max_connection_duration.as_ref())
            .map(|limit| duration(limit, "common_http_protocol_options.max_connection_duration"))
            .transpose()?;
        let max_requests = common
            .and_then(|common| common.max_requests_per_connection)
            .or(deprecated_max_requests(message))
            .filter(|count| *count > 0);
        let service_name =
            message.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str()).filter(|name| !name.is_empty());
        let stat_name = if message.alt_stat_name.is_empty() { &message.name } else { &message.alt_stat_name };
        Ok(Self {
            name: message.name.as_str().into(),
            stat_name: stat_name.as_str().into(),
            discovery,
            assignment: service_name.unwrap_or(&message.name).into(),
            connect_timeout: match &message.connect_timeout {
                Some(timeout) => duration(timeout, "connect_timeout")?,
                None => DEFAULT_CONNECT_TIMEOUT,
            },
            balancing: Balancing::build(message)?,
            health_check: health_check(message)?,
            outlier_detection: message.outlier_detection.as_ref().map(OutlierDetection::build).transpose()?,
            max_requests_per_connection: max_requests,
            idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
            max_connection_duration: max_connection_duration.filter(|limit| !limit.is_zero()),
            dns: Dns::build(message)?,
            original_dst: original_dst(message, discovery)?,
            thresholds: thresholds::build(message)?,
            tcp_keepalive: message
                .upstream_connection_options
                .as_ref()
                .and_then(|options| options.tcp_keepalive.as_ref())
                .map(TcpKeepalive::build),
        })
    }
}

fn health_check(message: &cluster_v3::Cluster) -> Result<Option<HealthCheck>, Invalid> {
    match message.health_checks.as_slice() {
        [] => Ok(None),
        [check] => {
            HealthCheck::build(check, &message.name).map(Some).map_err(|invalid| invalid.under("health_checks[0]"))
        }
        _ => Err(Invalid::at("health_checks[1]", "only one health check is supported".into())),
    }
}

fn deprecated_max_requests(message: &cluster_v3::Cluster) -> Option<u32> {
    message.max_requests_per_connection
}

fn discovery(message: &cluster_v3::Cluster) -> Result<Discovery, Invalid> {
    use cluster_v3::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => DiscoveryType::try_from(*number)
            .map_err(|_| Invalid::at("type", format!("{number} is no discovery type")))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(Invalid::at("cluster_type", format!("cluster type `{}` is not supported", custom.name)));
        }
    };
    match kind {
        DiscoveryType::Static => Ok(Discovery::Static),
        DiscoveryType::Eds => Ok(Discovery::Eds),
        DiscoveryType::StrictDns => Ok(Discovery::StrictDns),
        DiscoveryType::LogicalDns => Ok(Discovery::LogicalDns),
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDst),
    }
}

fn original_dst(message: &cluster_v3::Cluster, discovery: Discovery) -> Result<Option<OriginalDst>, Invalid> {
    use cluster_v3::cluster::{LbConfig, LbPolicy};
    let provided = message.lb_policy == i32::from(LbPolicy::ClusterProvided);
    match (discovery, provided) {
        (Discovery::OriginalDst, true) => {}
        (_, false) if discovery != Discovery::OriginalDst => return Ok(None),
        _ => {
            let text = "ORIGINAL_DST and CLUSTER_PROVIDED belong together".to_owned();
            return Err(Invalid::at("lb_policy", text));
        }
    }
    let config = match &message.lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => config.clone(),
        _ => cluster_v3::cluster::OriginalDstLbConfig::default(),
    };
    if config.metadata_key.is_some() {
        let text = "destinations from metadata are not supported".to_owned();
        return Err(Invalid::at("original_dst_lb_config.metadata_key", text));
    }
    let header = match config.http_header_name.as_str() {
        "" => DEFAULT_DESTINATION_HEADER,
        name => name,
    };
    let header = header_name(header, "original_dst_lb_config.http_header_name")?;
    let port = config.upstream_port_override.map(u16::try_from).transpose();
    Ok(Some(OriginalDst {
        header: config.use_http_header.then_some(header),
        port: port.map_err(|_| Invalid::at("original_dst_lb_config.upstream_port_override", "is no port".into()))?,
        cleanup_interval: match &message.cleanup_interval {
            Some(interval) => duration(interval, "cleanup_interval")?,
            None => DEFAULT_CLEANUP,
        },
    }))
}

fn http_options(message: &cluster_v3::Cluster) -> Result<Option<http_v3::HttpProtocolOptions>, Invalid> {
    const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let Some(any) = message.typed_extension_protocol_options.get(KEY) else { return Ok(None) };
    let options: http_v3::HttpProtocolOptions = unpack(any, "typed_extension_protocol_options")?;
    use http_v3::http_protocol_options::UpstreamProtocolOptions;
    use http_v3::http_protocol_options::explicit_http_config::ProtocolConfig;
    if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) = &options.upstream_protocol_options
        && let Some(ProtocolConfig::Http2ProtocolOptions(_) | ProtocolConfig::Http3ProtocolOptions(_)) =
            &explicit.protocol_config
    {
        return Err(Invalid::at(
            "typed_extension_protocol_options.explicit_http_config",
            "HTTP/2 to upstreams is not supported yet".into(),
        ));
    }
    Ok(Some(options))
}
