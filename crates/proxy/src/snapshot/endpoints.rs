//! The hosts of a cluster: what its load assignment says of each, and where the addresses of names go.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::endpoint::v3 as endpoint_v3;

use super::Invalid;
use super::cluster::{ClusterConfig, Discovery};
use super::host::{HealthFlag, HostState};
use super::subset::Criteria;
use crate::http::stream_info::Address;

/// Envoy's default overprovisioning factor, in percent.
const DEFAULT_OVERPROVISIONING: u32 = 140;
/// Envoy's greatest priority.
const MAX_PRIORITY: u32 = 128;

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
    /// Metadata `envoy.lb` `hash_key`: what stands for the host where hosts are hashed.
    pub hash_key: Option<Box<str>>,
    /// Metadata `envoy.lb`: which subsets the host belongs to.
    pub criteria: Criteria,
    /// `health_check_config`: how this host is checked, where that differs.
    pub health_check: HealthCheckTarget,
    /// What all workers share; kept while the address stays in the cluster.
    pub state: Arc<HostState>,
}

/// How a host is checked; Envoy's `HealthCheckConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheckTarget {
    /// Another port than that of the traffic.
    pub port: Option<u16>,
    /// The host that the checks ask for.
    pub hostname: Box<str>,
    /// It is not checked at all.
    pub disabled: bool,
}

impl Endpoint {
    /// A host that is known by nothing but its address.
    #[must_use]
    pub fn of_destination(address: SocketAddr, state: Arc<HostState>) -> Self {
        Self {
            address: address.into(),
            hostname: "".into(),
            weight: 1,
            health: Health::Healthy,
            locality: Default::default(),
            priority: 0,
            hash_key: None,
            criteria: Criteria::default(),
            health_check: HealthCheckTarget::default(),
            state,
        }
    }

    /// Health as the load assignment and the proxy's own observation have it.
    #[must_use]
    pub fn health_now(&self) -> Health {
        match self.health {
            Health::Healthy | Health::Degraded if self.state.has_failed() => Health::Unhealthy,
            Health::Healthy if self.state.has(HealthFlag::DegradedActiveHealthCheck) => Health::Degraded,
            health => health,
        }
    }
}

/// The share of a locality among those of its priority.
#[derive(Debug)]
pub struct LocalityWeight {
    /// Priority level.
    pub priority: u32,
    /// Region, zone and sub-zone.
    pub locality: [Box<str>; 3],
    /// `load_balancing_weight`; without one nobody is sent there.
    pub weight: u32,
}

/// The endpoints of a cluster.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// All hosts, in the order of the load assignment.
    pub hosts: Vec<Arc<Endpoint>>,
    /// The localities, sorted.
    pub localities: Vec<LocalityWeight>,
    /// `overprovisioning_factor` in percent.
    pub overprovisioning: u32,
}

/// An address book of a cluster: where a worker finds the state of a host again after an update.
pub type HostStates = HashMap<SocketAddr, Arc<HostState>>;

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
    /// An address that is no IP address in a cluster without DNS, or of an unsupported kind; a priority out of range.
    pub fn build(
        config: &ClusterConfig,
        assignment: &endpoint_v3::ClusterLoadAssignment,
        resolved: &Resolved,
        known: &mut HostStates,
        now: Instant,
    ) -> Result<Self, Invalid> {
        let mut hosts = Vec::new();
        let mut present = HashMap::new();
        for (group, locality) in assignment.endpoints.iter().enumerate() {
            if locality.priority > MAX_PRIORITY {
                let text = format!("{} is more than {MAX_PRIORITY}", locality.priority);
                return Err(Invalid::at(format!("endpoints[{group}].priority"), text));
            }
            for (index, lb_endpoint) in locality.lb_endpoints.iter().enumerate() {
                let path = || format!("endpoints[{group}].lb_endpoints[{index}].endpoint.address");
                let (host, port) = lb_endpoint_socket(lb_endpoint).ok_or_else(|| {
                    Invalid::at(path(), "only socket addresses are supported (no pipe, no internal listener)".into())
                })?;
                let addresses = match host.parse::<IpAddr>() {
                    Ok(address) => vec![address],
                    Err(_) if matches!(config.discovery, Discovery::StrictDns | Discovery::LogicalDns) => {
                        let name = DnsName { host: host.to_owned(), port };
                        let known = resolved.get(&name).map(Vec::as_slice).unwrap_or_default();
                        let mut addresses = config.dns.family.select(known);
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
                    let target = health_check_target(lb_endpoint);
                    let state = known.entry(socket).or_insert_with(|| {
                        let state = HostState::new(now);
                        // Until its first check passed a host is not used.
                        let checked = config.health_check.is_some() && !target.disabled;
                        state.set(HealthFlag::FailedActiveHealthCheck, checked);
                        Arc::new(state)
                    });
                    let state = state.clone();
                    present.insert(socket, state.clone());
                    hosts.push(Arc::new(endpoint(lb_endpoint, locality, host, socket, state)));
                }
            }
        }
        *known = present;
        let overprovisioning = assignment.policy.as_ref().and_then(|policy| policy.overprovisioning_factor);
        Ok(Self {
            hosts,
            localities: localities(assignment),
            overprovisioning: overprovisioning.unwrap_or(DEFAULT_OVERPROVISIONING),
        })
    }
}

/// The localities of each priority in Envoy's order; of several entries for one the first weight counts.
fn localities(assignment: &endpoint_v3::ClusterLoadAssignment) -> Vec<LocalityWeight> {
    let mut localities: Vec<LocalityWeight> = Vec::new();
    for group in assignment.endpoints.iter().filter(|group| !group.lb_endpoints.is_empty()) {
        let locality = place(group);
        if !localities.iter().any(|known| known.priority == group.priority && known.locality == locality) {
            let weight = group.load_balancing_weight.unwrap_or(0);
            localities.push(LocalityWeight { priority: group.priority, locality, weight });
        }
    }
    localities.sort_by(|one, other| (one.priority, &one.locality).cmp(&(other.priority, &other.locality)));
    localities
}

fn place(group: &endpoint_v3::LocalityLbEndpoints) -> [Box<str>; 3] {
    let place = group.locality.as_ref();
    [
        place.map_or("", |place| &place.region).into(),
        place.map_or("", |place| &place.zone).into(),
        place.map_or("", |place| &place.sub_zone).into(),
    ]
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
    Endpoint {
        address: socket.into(),
        hostname: hostname.into(),
        weight: lb_endpoint.load_balancing_weight.unwrap_or(1).max(1),
        health: health(lb_endpoint.health_status),
        locality: place(locality),
        priority: locality.priority,
        hash_key: hash_key(lb_endpoint),
        criteria: Criteria::of(lb_endpoint.metadata.as_ref()),
        health_check: health_check_target(lb_endpoint),
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

fn health_check_target(lb_endpoint: &endpoint_v3::LbEndpoint) -> HealthCheckTarget {
    use endpoint_v3::lb_endpoint::HostIdentifier;
    let Some(HostIdentifier::Endpoint(endpoint)) = &lb_endpoint.host_identifier else {
        return HealthCheckTarget::default();
    };
    endpoint.health_check_config.as_ref().map_or_else(HealthCheckTarget::default, |config| HealthCheckTarget {
        port: u16::try_from(config.port_value).ok().filter(|port| *port > 0),
        hostname: config.hostname.as_str().into(),
        disabled: config.disable_active_health_check,
    })
}

fn hash_key(lb_endpoint: &endpoint_v3::LbEndpoint) -> Option<Box<str>> {
    use prost_types::value::Kind;
    let key = lb_endpoint.metadata.as_ref()?.filter_metadata.get("envoy.lb")?.fields.get("hash_key")?;
    match &key.kind {
        Some(Kind::StringValue(key)) if !key.is_empty() => Some(key.as_str().into()),
        _ => None,
    }
}
