//! Which services does the mesh know, and which workloads stand behind them? One model for Kubernetes Services
//! and ServiceEntries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lateen_config::Object;
use lateen_xds::Origin;

use super::visibility::Visibility;
use crate::protocol::Protocol;

/// A host that requests can be sent to. Who answers for it is told by [`World::endpoints`](super::World::endpoints).
#[derive(Clone, Debug)]
pub struct Service {
    /// Fully qualified host, lower-case; may be a wildcard (ServiceEntry).
    pub host: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Which kind of object declares it.
    pub registry: Registry,
    /// Virtual addresses, without the unspecified one.
    pub addresses: Vec<Arc<str>>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Outside of the mesh (`MESH_EXTERNAL`).
    pub external: bool,
    /// Host that this one is another name for (`ExternalName`), in lower case.
    pub alias_of: Option<Arc<str>>,
    /// Its ports, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Labels that select its workloads; empty when it selects none.
    pub selector: BTreeMap<String, String>,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Creation time of the object in seconds since 1970; `None` for objects from files, which count as oldest.
    pub created: Option<i64>,
    /// Names of which the certificates of its workloads have to have one (`subjectAltNames` of a ServiceEntry).
    pub subject_alt_names: Vec<String>,
    /// Preference for near workloads that the service itself asks for.
    pub distribution: Option<TrafficDistribution>,
    /// Only workloads of the client's own node are used (`internalTrafficPolicy: Local`).
    pub is_node_local: bool,
    /// The object that declares it.
    pub origin: Arc<Origin>,
    /// The objects that declare it, the first of which is `origin`: several ServiceEntries may share a host.
    pub(crate) sources: Vec<Arc<Object>>,
    /// Place in the list of all services.
    pub(crate) index: usize,
}

/// Preference for near workloads that a Service asks for (`trafficDistribution`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// Of the same network, region and zone, in this order.
    PreferClose,
    /// Of the same node, then as `PreferClose`.
    PreferSameNode,
}

/// Which kind of object declares a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// A Kubernetes Service. Beats a ServiceEntry with the same host.
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

/// Where the endpoints of a service come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// A list of addresses.
    Endpoints,
    /// A list of addresses; a redirected client's own choice among them counts (headless Kubernetes Service).
    Headless,
    /// Names, each of which stands for all the addresses it resolves to.
    Dns,
    /// One name, of which the first address counts.
    DnsRoundRobin,
    /// The name that each request asks for, resolved for it.
    DynamicDns,
    /// Wherever the client wanted to go.
    OriginalDestination,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// Number that clients use.
    pub number: u32,
    /// Name, by which it is joined with ports of workloads.
    pub name: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Port of the workloads, when it is one number for all of them.
    pub target: Option<u32>,
    /// Place among the ports of its service.
    pub(crate) index: usize,
}

/// One workload behind a port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Labels of the workload, which subsets select by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it runs.
    pub locality: Locality,
    /// Share of the requests, relative to its neighbours; at least 1.
    pub weight: u32,
    /// Whether requests may be sent to it.
    pub health: Health,
    /// It takes mutual TLS of the mesh, unless a policy turns that off.
    pub has_mesh_tls: bool,
    /// What telemetry calls it.
    pub workload: Arc<Workload>,
    /// The object that names it.
    pub origin: Arc<Origin>,
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// IP address or DNS name, with a port.
    Socket {
        /// IP address or DNS name.
        host: Arc<str>,
        /// TCP port.
        port: u32,
    },
    /// Path of a unix domain socket.
    Pipe(Arc<str>),
}

/// Whether requests may be sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Going away: no new sessions.
    Draining,
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// For example a cloud region.
    pub region: String,
    /// Part of the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

impl Locality {
    /// Reads `region/zone/sub-zone`; `.` separates where a label's value cannot hold `/`.
    pub fn parse(text: &str) -> Locality {
        let separator = if text.contains('/') { '/' } else { '.' };
        let mut parts = text.splitn(3, separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), sub_zone: next() }
    }

    /// True when not even the region is known.
    pub fn is_unknown(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }
}

/// A workload as telemetry names it. Displays as
/// `<workload>;<namespace>;<canonical name>;<canonical revision>;<cluster>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Name of the Deployment (or WorkloadEntry) that it belongs to.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Canonical service name.
    pub canonical_name: Arc<str>,
    /// Canonical revision; empty for `latest`.
    pub canonical_revision: Arc<str>,
    /// Service account that its certificate names; empty when it has none.
    pub service_account: Arc<str>,
    /// Kubernetes node that it runs on; empty when unknown.
    pub node: Arc<str>,
    /// Network of its address; empty for the default one.
    pub network: Arc<str>,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{};{};{};{CLUSTER_ID}", self.name, self.namespace, self.canonical_name, self.canonical_revision)
    }
}

/// Name that Istio gives to the one cluster of a mesh when it is not configured.
pub(crate) const CLUSTER_ID: &str = "Kubernetes";

impl Workload {
    /// A workload whose canonical name and revision come from its labels, by Istio's order of preference.
    pub(crate) fn build(name: &str, namespace: &Arc<str>, labels: &BTreeMap<String, String>) -> Workload {
        let first = |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(*key)).map(String::as_str);
        let canonical_name =
            first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]).unwrap_or(name);
        let canonical_revision =
            first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]).unwrap_or_default();
        Workload {
            name: name.into(),
            namespace: namespace.clone(),
            canonical_name: canonical_name.into(),
            canonical_revision: canonical_revision.into(),
            network: labels.get(NETWORK).map(String::as_str).unwrap_or_default().into(),
            ..Workload::default()
        }
    }
}

/// Label that names the network of a workload.
pub(crate) const NETWORK: &str = "topology.istio.io/network";

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port with this name.
    pub(crate) fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.ports.iter().find(|port| &*port.name == name)
    }

    /// True for a Kubernetes Service without a virtual address, whose workloads have names of their own.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.discovery == Discovery::Headless
    }

    /// Oldest first; names decide among objects of one second and those without a time.
    pub(crate) fn age(&self) -> (Option<i64>, &str, &str) {
        (self.created, &self.name, &self.namespace)
    }
}

impl Endpoint {
    /// True when the endpoint carries all of `labels`.
    pub fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        includes(&self.labels, labels)
    }
}

/// True when `labels` holds every entry of `selector`.
pub(crate) fn includes(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_is_read_from_a_path_or_a_label() {
        let expected = Locality { region: "us".into(), zone: "east".into(), sub_zone: "rack1".into() };
        assert_eq!(Locality::parse("us/east/rack1"), expected);
        assert_eq!(Locality::parse("us.east.rack1"), expected);
        assert_eq!(Locality::parse("us").zone, "");
        assert!(Locality::parse("").is_unknown());
    }

    #[test]
    fn the_canonical_name_falls_back_to_the_workload() {
        let namespace: Arc<str> = "shop".into();
        let labels = BTreeMap::from([("version".to_owned(), "v2".to_owned())]);
        assert_eq!(
            Workload::build("reviews-v2", &namespace, &labels).to_string(),
            "reviews-v2;shop;reviews-v2;v2;Kubernetes"
        );
    }
}
