//! A cluster as the data plane uses it: connection settings, balancing policy and the endpoints by priority.

mod thresholds;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::endpoint::v3 as endpoint_v3;
use lateen_xds::envoy::extensions::upstreams::http::v3 as http_v3;

pub use self::thresholds::{RetryBudget, Thresholds};
use super::Invalid;
use super::fields::{duration, unpack};
use crate::http::stream_info::Address;

/// Envoy's default `connect_timeout`.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default upstream HTTP connection `idle_timeout`.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Envoy's default `healthy_panic_threshold`, in percent.
const DEFAULT_PANIC_THRESHOLD: f64 = 50.0;
/// Envoy's default `dns_refresh_rate`.
const DEFAULT_DNS_REFRESH: Duration = Duration::from_secs(5);
/// Envoy's default overprovisioning factor, in percent.
const DEFAULT_OVERPROVISIONING: u32 = 140;

/// How hosts are chosen; Envoy's `lb_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `LEAST_REQUEST`, by comparing this many random hosts.
    LeastRequest {
        /// `choice_count`, at least 2.
        choices: u32,
    },
    /// `RANDOM`.
    Random,
}

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
    /// `lb_policy`.
    pub policy: Policy,
    /// `healthy_panic_threshold` in percent; 0 turns panic mode off.
    pub panic_threshold: f64,
    /// `max_requests_per_connection`; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Idle timeout of a pooled connection; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `dns_refresh_rate`, for the DNS types.
    pub dns_refresh_rate: Duration,
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

/// What all workers share of one upstream address: the load that this process puts on it.
#[derive(Debug, Default)]
pub struct HostState {
    /// Requests in flight to this host from all workers.
    pub active_requests: AtomicU32,
    /// Open connections to this host from all workers.
    pub active_connections: AtomicU32,
    /// Connections ever opened.
    pub connections: AtomicU32,
    /// Connections that could not be opened.
    pub connect_failures: AtomicU32,
    /// Requests ever sent.
    pub requests: AtomicU32,
    /// Answers below 500.
    pub successes: AtomicU32,
    /// Answers of 500 and above, and resets.
    pub errors: AtomicU32,
    /// Requests that timed out.
    pub timeouts: AtomicU32,
}

impl HostState {
    /// Requests in flight.
    #[must_use]
    pub fn active_requests(&self) -> u32 {
        self.active_requests.load(Ordering::Relaxed)
    }
}

/// Health as the load assignment states it; Envoy's `health_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// `UNKNOWN` or `HEALTHY`.
    Healthy,
    /// `UNHEALTHY` or `TIMEOUT`: used in panic mode only.
    Unhealthy,
    /// `DRAINING`: never used.
    Draining,
    /// `DEGRADED`: used after the healthy ones.
    Degraded,
}

/// One upstream host.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: Address,
    /// `hostname`, or the DNS name it was resolved from.
    pub hostname: Box<str>,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// Health by the load assignment.
    pub health: Health,
    /// Region, zone and sub-zone.
    pub locality: [Box<str>; 3],
    /// Priority level.
    pub priority: u32,
    /// Load and counts, kept while the address stays in the cluster.
    pub state: Arc<HostState>,
}

/// One priority level of a cluster.
#[derive(Debug, Default)]
pub struct Priority {
    /// Hosts that may be picked, as indices into `Endpoints::hosts`: the healthy ones, or all of them in panic.
    pub eligible: Vec<u32>,
    /// Whether the level is in panic mode: health is ignored.
    pub panic: bool,
    /// Upper bound (exclusive, of 100) of the share of picks that go to this level, cumulative.
    pub load_below: u32,
}

/// The endpoints of a cluster.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// All hosts, in the order of the load assignment.
    pub hosts: Vec<Arc<Endpoint>>,
    /// The priority levels, from 0.
    pub priorities: Vec<Priority>,
}

/// An address book of a cluster: where a worker finds the state of a host again after an update.
pub type HostStates = HashMap<SocketAddr, Arc<HostState>>;

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
        let panic_threshold = message
            .common_lb_config
            .as_ref()
            .and_then(|config| config.healthy_panic_threshold)
            .map_or(DEFAULT_PANIC_THRESHOLD, |percent| percent.value);
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
            policy: policy(message)?,
            panic_threshold,
            max_requests_per_connection: max_requests,
            idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
            max_connection_duration: max_connection_duration.filter(|limit| !limit.is_zero()),
            dns_refresh_rate: match &message.dns_refresh_rate {
                Some(rate) => duration(rate, "dns_refresh_rate")?,
                None => DEFAULT_DNS_REFRESH,
            },
            thresholds: thresholds::build(message),
            tcp_keepalive: message
                .upstream_connection_options
                .as_ref()
                .and_then(|options| options.tcp_keepalive.as_ref())
                .map(TcpKeepalive::build),
        })
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
        DiscoveryType::OriginalDst => Err(Invalid::at(
            "type",
            "ORIGINAL_DST needs connections that were redirected to the proxy, which this release does not take".into(),
        )),
    }
}

fn policy(message: &cluster_v3::Cluster) -> Result<Policy, Invalid> {
    use cluster_v3::cluster::{LbConfig, LbPolicy};
    let policy = LbPolicy::try_from(message.lb_policy)
        .map_err(|_| Invalid::at("lb_policy", format!("{} is no policy", message.lb_policy)))?;
    match policy {
        LbPolicy::RoundRobin => Ok(Policy::RoundRobin),
        LbPolicy::LeastRequest => {
            let choices = match &message.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config.choice_count.unwrap_or(2),
                _ => 2,
            };
            Ok(Policy::LeastRequest { choices: choices.max(2) })
        }
        // Without the hash of a request both pick at random; see `limitation`.
        LbPolicy::Random | LbPolicy::RingHash | LbPolicy::Maglev => Ok(Policy::Random),
        other => Err(Invalid::at("lb_policy", format!("{} is not supported yet", other.as_str_name()))),
    }
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

/// A DNS name of a cluster and the port that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName {
    /// The name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is known of names: the addresses of the last successful lookup.
pub type Resolved = HashMap<DnsName, Vec<IpAddr>>;

/// The DNS names that a load assignment holds.
#[must_use]
pub fn dns_names(assignment: &endpoint_v3::ClusterLoadAssignment) -> Vec<DnsName> {
    let mut names: Vec<_> = assignment
        .endpoints
        .iter()
        .flat_map(|locality| &locality.lb_endpoints)
        .filter_map(lb_endpoint_socket)
        .filter(|(host, _)| host.parse::<IpAddr>().is_err())
        .map(|(host, port)| DnsName { host: host.to_owned(), port })
        .collect();
    names.sort();
    names.dedup();
    names
}

impl Endpoints {
    /// Reads `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    ///
    /// `known` are the states of the cluster's hosts so far: a host whose address stays keeps its own. `resolved` are
    /// the addresses of DNS names; a name without any contributes no host.
    ///
    /// # Errors
    /// An address that is no IP address in a cluster without DNS, or of an unsupported kind.
    pub fn build(
        config: &ClusterConfig,
        assignment: &endpoint_v3::ClusterLoadAssignment,
        resolved: &Resolved,
        known: &mut HostStates,
    ) -> Result<Self, Invalid> {
        let mut hosts = Vec::new();
        let mut present = HashMap::new();
        for (group, locality) in assignment.endpoints.iter().enumerate() {
            for (index, lb_endpoint) in locality.lb_endpoints.iter().enumerate() {
                let path = || format!("endpoints[{group}].lb_endpoints[{index}].endpoint.address");
                let (host, port) = lb_endpoint_socket(lb_endpoint).ok_or_else(|| {
                    Invalid::at(path(), "only socket addresses are supported (no pipe, no internal listener)".into())
                })?;
                let addresses = match host.parse::<IpAddr>() {
                    Ok(address) => vec![address],
                    Err(_) if matches!(config.discovery, Discovery::StrictDns | Discovery::LogicalDns) => {
                        let name = DnsName { host: host.to_owned(), port };
                        let mut addresses = resolved.get(&name).cloned().unwrap_or_default();
                        if config.discovery == Discovery::LogicalDns {
                            addresses.truncate(1);
                        }
                        addresses
                    }
                    Err(_) => return Err(Invalid::at(path(), format!("malformed IP address: {host}"))),
                };
                for address in addresses {
                    let socket = SocketAddr::new(address, port);
                    if present.contains_key(&socket) {
                        continue;
                    }
                    let state = known.entry(socket).or_default().clone();
                    present.insert(socket, state.clone());
                    hosts.push(Arc::new(endpoint(lb_endpoint, locality, host, socket, state)));
                }
            }
        }
        *known = present;
        let priorities = priorities(&hosts, config.panic_threshold, overprovisioning(assignment));
        Ok(Self { hosts, priorities })
    }
}

fn overprovisioning(assignment: &endpoint_v3::ClusterLoadAssignment) -> u32 {
    assignment.policy.as_ref().and_then(|policy| policy.overprovisioning_factor).unwrap_or(DEFAULT_OVERPROVISIONING)
}

fn lb_endpoint_socket(lb_endpoint: &endpoint_v3::LbEndpoint) -> Option<(&str, u16)> {
    use core_v3::address::Address as Kind;
    use core_v3::socket_address::PortSpecifier;
    use endpoint_v3::lb_endpoint::HostIdentifier;
    let Some(HostIdentifier::Endpoint(endpoint)) = &lb_endpoint.host_identifier else { return None };
    let Some(Kind::SocketAddress(socket)) = endpoint.address.as_ref()?.address.as_ref() else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some((&socket.address, u16::try_from(port).ok()?))
}

fn endpoint(
    lb_endpoint: &endpoint_v3::LbEndpoint,
    locality: &endpoint_v3::LocalityLbEndpoints,
    host: &str,
    socket: SocketAddr,
    state: Arc<HostState>,
) -> Endpoint {
    use endpoint_v3::lb_endpoint::HostIdentifier;
    let named = match &lb_endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint.hostname.as_str(),
        _ => "",
    };
    let hostname = if named.is_empty() && host.parse::<IpAddr>().is_err() { host } else { named };
    let place = locality.locality.as_ref();
    Endpoint {
        address: socket.into(),
        hostname: hostname.into(),
        weight: lb_endpoint.load_balancing_weight.unwrap_or(1).max(1),
        health: health(lb_endpoint.health_status),
        locality: [
            place.map_or("", |place| &place.region).into(),
            place.map_or("", |place| &place.zone).into(),
            place.map_or("", |place| &place.sub_zone).into(),
        ],
        priority: locality.priority,
        state,
    }
}

fn health(status: i32) -> Health {
    match core_v3::HealthStatus::try_from(status) {
        Ok(core_v3::HealthStatus::Unhealthy | core_v3::HealthStatus::Timeout) => Health::Unhealthy,
        Ok(core_v3::HealthStatus::Draining) => Health::Draining,
        Ok(core_v3::HealthStatus::Degraded) => Health::Degraded,
        _ => Health::Healthy,
    }
}

/// The share of each priority level, by Envoy's rule: a level with `overprovisioning × healthy / total ≥ 100` takes
/// all, else the rest spills to the next; a level below the panic threshold ignores health when the levels together
/// cannot take everything.
fn priorities(hosts: &[Arc<Endpoint>], panic_threshold: f64, overprovisioning: u32) -> Vec<Priority> {
    let count = hosts.iter().map(|host| host.priority + 1).max().unwrap_or(0);
    let mut levels = Vec::new();
    for level in 0..count {
        let all: Vec<u32> = indices(hosts, level, |health| health != Health::Draining);
        let healthy = indices(hosts, level, |health| health == Health::Healthy);
        let degraded = indices(hosts, level, |health| health == Health::Degraded);
        let total = indices(hosts, level, |_| true).len();
        levels.push((all, healthy, degraded, total));
    }
    let share = |available: usize, total: usize| -> u32 {
        if total == 0 {
            return 0;
        }
        let percent = u64::from(overprovisioning) * available as u64 / total as u64;
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    let healthy: Vec<u32> = levels.iter().map(|(_, healthy, _, total)| share(healthy.len(), *total)).collect();
    let degraded: Vec<u32> = levels.iter().map(|(_, _, degraded, total)| share(degraded.len(), *total)).collect();
    let sum = (healthy.iter().sum::<u32>() + degraded.iter().sum::<u32>()).min(100);
    let panics: Vec<bool> = levels
        .iter()
        .map(|(_, healthy, degraded, total)| {
            let available = (healthy.len() + degraded.len()) as f64;
            sum < 100 && *total > 0 && available * 100.0 / (*total as f64) < panic_threshold
        })
        .collect();
    let loads = if panics.iter().any(|panic| *panic) {
        let all: usize = levels.iter().map(|(all, ..)| all.len()).sum();
        levels.iter().map(|(hosts, ..)| share_of(hosts.len(), all)).collect()
    } else {
        spread(&healthy, &degraded, sum)
    };
    let mut below = 0;
    let mut built: Vec<Priority> = Vec::with_capacity(levels.len());
    for (((all, healthy, degraded, _), panic), load) in levels.into_iter().zip(panics).zip(loads) {
        below += load;
        let eligible = if panic {
            all
        } else if healthy.is_empty() {
            degraded
        } else {
            healthy
        };
        built.push(Priority { eligible, panic, load_below: below });
    }
    // What rounding left over goes to the first level that takes any load.
    if below > 0 && below < 100 {
        let first = built.iter().position(|level| level.load_below > 0).unwrap_or(0);
        for level in &mut built[first..] {
            level.load_below += 100 - below;
        }
    }
    built
}

fn share_of(part: usize, all: usize) -> u32 {
    (part * 100).checked_div(all).map_or(0, |percent| u32::try_from(percent).unwrap_or(100))
}

fn spread(healthy: &[u32], degraded: &[u32], sum: u32) -> Vec<u32> {
    if sum == 0 {
        return vec![0; healthy.len()];
    }
    let mut left = 100;
    let mut loads = vec![0; healthy.len()];
    for availability in [healthy, degraded] {
        for (load, share) in loads.iter_mut().zip(availability) {
            let take = (share * 100 / sum).min(left);
            *load += take;
            left -= take;
        }
    }
    loads
}

fn indices(hosts: &[Arc<Endpoint>], level: u32, wanted: impl Fn(Health) -> bool) -> Vec<u32> {
    hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| host.priority == level && wanted(host.health))
        .filter_map(|(index, _)| u32::try_from(index).ok())
        .collect()
}
