//! From a resource set to a snapshot: what is unchanged keeps its identity, what is invalid keeps its last good form.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::{Origin, Part, Resource, Version, XdsSet};

use super::cluster::{ClusterConfig, Discovery, Refresh};
use super::endpoints::{DnsName, Endpoints, HostStates, Resolved, dns_names};
use super::hcm::Routes;
use super::host_sets::HostSets;
use super::limitation::{self, Limitation};
use super::listener::Listener;
use super::route::RouteConfig;
use super::{Cluster, ClusterId, ClusterNames, Invalid, Snapshot};
use crate::stats::Registry;
use crate::upstream::Breakers;

/// A resource that the data plane did not take, as a NACK would say it.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// `listener`, `route configuration`, `cluster` or `endpoints`.
    pub kind: &'static str,
    /// The resource's name.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub invalid: Invalid,
    /// The configuration object that it was compiled from.
    pub origin: Option<Origin>,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}` was rejected: {}", self.kind, self.name, self.invalid)?;
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        Ok(())
    }
}

/// A built resource and the version that it was built from.
#[derive(Debug)]
struct Built<T> {
    version: Version,
    value: Arc<T>,
}

#[derive(Debug)]
struct BuiltCluster {
    version: Version,
    assignment: Version,
    resolution: u64,
    states: HostStates,
    cluster: Arc<Cluster>,
}

/// Builds one snapshot after the other.
#[derive(Debug)]
pub struct Builder {
    names: ClusterNames,
    listeners: HashMap<Arc<str>, Built<Listener>>,
    routes: HashMap<Arc<str>, Built<RouteConfig>>,
    clusters: HashMap<Arc<str>, BuiltCluster>,
    resolved: Resolved,
    resolution: u64,
    generation: u64,
    stats: Arc<Registry>,
}

impl Builder {
    /// A builder without history.
    #[must_use]
    pub fn new(stats: Arc<Registry>) -> Self {
        Self {
            names: ClusterNames::default(),
            listeners: HashMap::new(),
            routes: HashMap::new(),
            clusters: HashMap::new(),
            resolved: Resolved::new(),
            resolution: 0,
            generation: 0,
            stats,
        }
    }

    /// Takes in the addresses of a DNS name; returns whether they are news.
    pub fn resolve(&mut self, name: DnsName, mut addresses: Vec<std::net::IpAddr>) -> bool {
        addresses.dedup();
        if self.resolved.get(&name) == Some(&addresses) {
            return false;
        }
        self.resolved.insert(name, addresses);
        self.resolution += 1;
        true
    }

    /// Builds the snapshot of a set, with the resources that were rejected.
    ///
    /// A rejected resource keeps its last good form; a listener without its routes, or a cluster without its
    /// endpoints, stays as it was (or absent) until they arrive.
    pub fn build(&mut self, set: &XdsSet) -> (Arc<Snapshot>, Vec<Rejection>) {
        self.collect_names(set);
        let mut rejections = Vec::new();
        self.build_clusters(set, &mut rejections);
        self.build_routes(set, &mut rejections);
        self.build_listeners(set, &mut rejections);
        self.generation += 1;
        let mut clusters = vec![None; self.names.len()];
        for name in set.clusters.keys() {
            if let Some(built) = self.clusters.get(name)
                && let Some(slot) = clusters.get_mut(built.cluster.id.0 as usize)
            {
                *slot = Some(built.cluster.clone());
            }
        }
        let mut listeners: Vec<_> = self.listeners.values().map(|built| built.value.clone()).collect();
        listeners.sort_by(|one, other| one.name.cmp(&other.name));
        let routes: HashMap<_, _> =
            self.routes.iter().map(|(name, built)| (name.clone(), built.value.clone())).collect();
        listeners.retain(|listener| match &listener.manager.routes {
            Routes::Named(name) => routes.contains_key(name),
            Routes::Inline(_) => true,
        });
        (Arc::new(Snapshot { generation: self.generation, listeners, routes, clusters }), rejections)
    }

    /// What the configuration in use asks for and does not get; once for each object and feature.
    #[must_use]
    pub fn limitations(&self, set: &XdsSet) -> Vec<Limitation> {
        let mut found = BTreeSet::new();
        for name in set.routes.keys() {
            if let Some(built) = self.routes.get(name) {
                found.extend(limitation::of_routes(&built.value));
            }
        }
        for resource in set.listeners.values() {
            found.extend(limitation::of_listener(&resource.message, resource.origin(Part::Whole)));
        }
        for resource in set.clusters.values() {
            // The last origin is the object that was laid over the others, which is the one that asks.
            let origin = resource.origins_of(Part::Whole).last();
            found.extend(limitation::of_cluster(&resource.message, origin));
        }
        let mut told = BTreeSet::new();
        found.retain(|limitation| match &limitation.origin {
            Some(origin) => told.insert((limitation.text.clone(), origin.clone())),
            None => true,
        });
        found.into_iter().collect()
    }

    /// Counts a lookup of a name for the clusters that use it.
    pub fn record_lookup(&self, set: &XdsSet, name: &DnsName, succeeded: bool, news: bool) {
        for (cluster, resource) in &set.clusters {
            let Some(built) = self.clusters.get(cluster) else { continue };
            let by_name = matches!(built.cluster.config.discovery, Discovery::StrictDns | Discovery::LogicalDns);
            if by_name && resource.message.load_assignment.iter().flat_map(dns_names).any(|used| used == *name) {
                let state = &built.cluster.stats.state;
                state.update_attempt.inc();
                match (succeeded, news) {
                    (false, _) => state.update_failure.inc(),
                    (true, true) => state.update_success.inc(),
                    (true, false) => {
                        state.update_success.inc();
                        state.update_no_rebuild.inc();
                    }
                }
            }
        }
    }

    /// The DNS names that the clusters of a set need, and when each is looked up again: as often as the most eager
    /// of its clusters says.
    #[must_use]
    pub fn dns_names(&self, set: &XdsSet) -> HashMap<DnsName, Refresh> {
        let mut names = HashMap::new();
        for (name, resource) in &set.clusters {
            let Some(built) = self.clusters.get(name) else { continue };
            let config = &built.cluster.config;
            if !matches!(config.discovery, Discovery::StrictDns | Discovery::LogicalDns) {
                continue;
            }
            for dns_name in resource.message.load_assignment.iter().flat_map(dns_names) {
                let refresh = names.entry(dns_name).or_insert(config.dns.refresh);
                *refresh = (*refresh).min(config.dns.refresh);
            }
        }
        names
    }

    /// Numbers are given to names for ever, so a history of many renames is dropped now and then: everything is
    /// built anew, and identity is lost once.
    fn collect_names(&mut self, set: &XdsSet) {
        if self.names.len() > 4096 + 4 * set.clusters.len() {
            *self = Self {
                resolved: std::mem::take(&mut self.resolved),
                resolution: self.resolution,
                generation: self.generation,
                ..Self::new(self.stats.clone())
            };
        }
    }

    /// The number of a cluster.
    #[must_use]
    pub fn cluster_id(&self, name: &str) -> Option<ClusterId> {
        self.clusters.get(name).map(|built| built.cluster.id)
    }

    /// How long changes of health in a cluster are gathered.
    #[must_use]
    pub fn merge_window(&self, name: &str) -> Option<Duration> {
        self.clusters.get(name).map(|built| built.cluster.config.balancing.merge_window)
    }

    /// Looks again at the health of a cluster's hosts: the cluster with what may be chosen now.
    pub fn look_again(&mut self, name: &str) -> Option<Arc<Cluster>> {
        let built = self.clusters.get_mut(name)?;
        let Cluster { id, config, endpoints, host_sets: _, stats, breakers } = &*built.cluster;
        built.cluster = Arc::new(Cluster {
            id: *id,
            host_sets: Arc::new(HostSets::build(&config.balancing, endpoints)),
            config: config.clone(),
            endpoints: endpoints.clone(),
            stats: stats.clone(),
            breakers: breakers.clone(),
        });
        built.cluster.stats.set_tables(&built.cluster.host_sets);
        Some(built.cluster.clone())
    }

    fn build_clusters(&mut self, set: &XdsSet, rejections: &mut Vec<Rejection>) {
        let now = Instant::now();
        self.clusters.retain(|name, _| set.clusters.contains_key(name));
        for (name, resource) in &set.clusters {
            let assignment = Assignment::of(&resource.message, set);
            let Some(assignment) = assignment else { continue };
            let previous = self.clusters.get(name);
            if previous.is_some_and(|built| {
                let by_name = matches!(built.cluster.config.discovery, Discovery::StrictDns | Discovery::LogicalDns);
                built.version == resource.version
                    && built.assignment == assignment.version()
                    && (!by_name || built.resolution == self.resolution)
            }) {
                continue;
            }
            let mut states = previous.map(|built| built.states.clone()).unwrap_or_default();
            let config = match previous {
                Some(built) if built.version == resource.version => Ok(built.cluster.config.clone()),
                _ => ClusterConfig::build(&resource.message).map(Arc::new),
            };
            let built = config.and_then(|config| {
                let endpoints = Endpoints::build(&config, assignment.message(), &self.resolved, &mut states, now)?;
                Ok((config, endpoints))
            });
            match built {
                Ok((config, endpoints)) => {
                    let id = self.names.intern(name).id;
                    let stats = self.stats.cluster(&config.stat_name);
                    let breakers = match self.clusters.get(name).map(|built| &built.cluster) {
                        Some(previous) if Arc::ptr_eq(&previous.config, &config) => previous.breakers.clone(),
                        _ => Arc::new(Breakers::new(&config.thresholds)),
                    };
                    let host_sets = Arc::new(HostSets::build(&config.balancing, &endpoints));
                    stats.set_tables(&host_sets);
                    let endpoints = Arc::new(endpoints);
                    let cluster = Arc::new(Cluster { id, config, endpoints, host_sets, stats, breakers });
                    let built = BuiltCluster {
                        version: resource.version,
                        assignment: assignment.version(),
                        resolution: self.resolution,
                        states,
                        cluster,
                    };
                    self.clusters.insert(name.clone(), built);
                }
                Err(invalid) => rejections.push(reject("cluster", name, resource, invalid)),
            }
        }
    }

    fn build_routes(&mut self, set: &XdsSet, rejections: &mut Vec<Rejection>) {
        self.routes.retain(|name, _| set.routes.contains_key(name));
        for (name, resource) in &set.routes {
            if self.routes.get(name).is_some_and(|built| built.version == resource.version) {
                continue;
            }
            match RouteConfig::build(&resource.message, &resource.origins, &mut self.names) {
                Ok(value) => {
                    self.routes.insert(name.clone(), Built { version: resource.version, value: Arc::new(value) });
                }
                Err(invalid) => rejections.push(reject("route configuration", name, resource, invalid)),
            }
        }
    }

    fn build_listeners(&mut self, set: &XdsSet, rejections: &mut Vec<Rejection>) {
        self.listeners.retain(|name, _| set.listeners.contains_key(name));
        let mut addresses = BTreeSet::new();
        for (name, resource) in &set.listeners {
            if self.listeners.get(name).is_none_or(|built| built.version != resource.version) {
                match Listener::build(&resource.message, &mut self.names) {
                    Ok(value) => {
                        let built = Built { version: resource.version, value: Arc::new(value) };
                        self.listeners.insert(name.clone(), built);
                    }
                    Err(invalid) => rejections.push(reject("listener", name, resource, invalid)),
                }
            }
            let Some(address) = self.listeners.get(name).map(|built| built.value.address) else { continue };
            if address.port() != 0 && !addresses.insert(address) {
                let invalid = Invalid::at("address", format!("{address} is the address of another listener too"));
                rejections.push(reject("listener", name, resource, invalid));
                self.listeners.remove(name);
            }
        }
    }
}

/// The load assignment of a cluster: its own or one of the set.
enum Assignment<'a> {
    Inline(Option<&'a ClusterLoadAssignment>),
    Eds(&'a Resource<ClusterLoadAssignment>),
}

impl<'a> Assignment<'a> {
    fn of(message: &'a cluster_v3::Cluster, set: &'a XdsSet) -> Option<Self> {
        use cluster_v3::cluster::{ClusterDiscoveryType, DiscoveryType};
        let eds = message.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
        if !eds {
            return Some(Self::Inline(message.load_assignment.as_ref()));
        }
        let service = message.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str()).unwrap_or_default();
        let name = if service.is_empty() { message.name.as_str() } else { service };
        set.endpoints.get(name).map(Self::Eds)
    }

    fn version(&self) -> Version {
        match self {
            Self::Inline(_) => Version::default(),
            Self::Eds(resource) => resource.version,
        }
    }

    fn message(&self) -> &ClusterLoadAssignment {
        static EMPTY: std::sync::LazyLock<ClusterLoadAssignment> =
            std::sync::LazyLock::new(ClusterLoadAssignment::default);
        match self {
            Self::Inline(message) => message.unwrap_or(&EMPTY),
            Self::Eds(resource) => &resource.message,
        }
    }
}

fn reject<M>(kind: &'static str, name: &Arc<str>, resource: &Resource<M>, invalid: Invalid) -> Rejection {
    let origin = part_of(&invalid.path).and_then(|part| resource.origin(part)).or_else(|| resource.origin(Part::Whole));
    Rejection { kind, name: name.clone(), origin: origin.cloned(), invalid }
}

/// The part of a route configuration that a field path lies in: `virtual_hosts[1].routes[0].match` → route 0 of host 1.
fn part_of(path: &str) -> Option<Part> {
    let (virtual_host, rest) = index_after(path, "virtual_hosts[")?;
    match index_after(rest, ".routes[") {
        Some((route, _)) => Some(Part::Route { virtual_host, route }),
        None => Some(Part::VirtualHost(virtual_host)),
    }
}

fn index_after<'a>(path: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let rest = path.strip_prefix(prefix)?;
    let (digits, rest) = rest.split_once(']')?;
    Some((digits.parse().ok()?, rest))
}
