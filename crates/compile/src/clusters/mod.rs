//! Which clusters does a proxy have? One for each port of each service that it imports, one more for each subset, those
//! of its own workload, and a few that are always there; and the endpoints behind them.

mod built_in;
mod connection_pool;
mod http_options;
mod inbound;
mod load_balancer;
mod outbound;
mod outlier_detection;
mod transport;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::{Origin, Part, Resource};

use self::outbound::{Purpose, Upstream};
use crate::auto_passthrough;
use crate::context::Context;
use crate::identity::address;
use crate::message;
use crate::names;
use crate::scope::Role;
use crate::world::gateways::ServerHost;
use crate::world::services::{Registry, Service};

/// The clusters of a proxy by name, and the assignments of those that get their endpoints by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) clusters: BTreeMap<Arc<str>, Resource<Cluster>>,
    pub(crate) endpoints: BTreeMap<Arc<str>, Resource<ClusterLoadAssignment>>,
}

/// What is remembered between compilations for one proxy: the clusters of each service, by its address.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    of_services: HashMap<usize, Remembered>,
}

/// The clusters of a service, and what they were made from.
#[derive(Debug)]
struct Remembered {
    /// Addresses of the DestinationRule and of the endpoints of each port, and whether a gateway passes through to it.
    key: (Option<usize>, Vec<usize>, bool),
    clusters: Compiled,
}

/// Compiles all clusters. Of two with one name the first stays. `passed_through`: the hosts to whose services a gateway
/// passes connections through. The memory has to be new unless the settings of the mesh
/// are those of the last compilation, whose world still lives.
pub(crate) fn compile(cx: &Context<'_>, passed_through: &[ServerHost], memory: &mut Memory) -> Compiled {
    let mut compiled = Compiled::default();
    let mut earlier = std::mem::take(&mut memory.of_services);
    for service in cx.services() {
        let endpoints = service.ports.iter().map(|port| cx.world.endpoints_address(service, port));
        let rule = cx.rule(service).map(|rule| address(&**rule));
        let key = (rule, endpoints.collect(), auto_passthrough::covers(passed_through, service));
        let remembered = match earlier.remove(&address(&**service)) {
            Some(remembered) if remembered.key == key => remembered,
            _ => {
                let mut clusters = Compiled::default();
                let identities = identities(cx, service);
                clusters.add_service(cx, service, &identities, Purpose::Requests);
                if key.2 {
                    clusters.add_service(cx, service, &identities, Purpose::PassThrough);
                }
                Remembered { key, clusters }
            }
        };
        compiled.extend(&remembered.clusters);
        memory.of_services.insert(address(&**service), remembered);
    }
    for cluster in built_in::compile(cx) {
        compiled.add(cluster, Vec::new());
    }
    if cx.scope.role == Role::Sidecar && cx.is_redirected() {
        for target in crate::inbound::inbound_targets(cx) {
            let origins = target.origins.iter().map(|origin| (Part::Whole, (**origin).clone())).collect();
            compiled.add(inbound::compile(cx, &target), origins);
        }
        compiled.add(inbound::passthrough(cx), Vec::new());
    }
    compiled
}

impl Compiled {
    fn add_service(&mut self, cx: &Context<'_>, service: &Service, identities: &[String], purpose: Purpose) {
        let rule = cx.rule(service).map(|rule| &**rule);
        for port in service.ports.iter().filter(|port| port.protocol.has_clusters()) {
            let whole = std::iter::once(None);
            let subsets = rule.map(|rule| rule.subsets.as_slice()).unwrap_or_default().iter().map(Some);
            for subset in whole.chain(subsets) {
                let upstream = Upstream { cx, service, port, rule, subset, identities, purpose };
                let Some((cluster, assignment)) = upstream.compile() else {
                    continue;
                };
                if let Some(assignment) = assignment {
                    self.endpoints.entry(cluster.name.as_str().into()).or_insert(assignment);
                }
                self.add(cluster, upstream.origins());
            }
        }
    }

    fn extend(&mut self, other: &Compiled) {
        for (name, cluster) in &other.clusters {
            self.clusters.entry(name.clone()).or_insert_with(|| cluster.clone());
        }
        for (name, assignment) in &other.endpoints {
            self.endpoints.entry(name.clone()).or_insert_with(|| assignment.clone());
        }
    }

    fn add(&mut self, cluster: Cluster, origins: Vec<(Part, Origin)>) {
        self.clusters.entry(cluster.name.as_str().into()).or_insert_with(|| Resource::new(cluster, origins));
    }
}

/// The names of which certificates of a service's workloads have one: those that it declares, else those of their
/// service accounts in every trust domain. None when nothing is known of them.
fn identities(cx: &Context<'_>, service: &Service) -> Vec<String> {
    if !service.subject_alt_names.is_empty() {
        return service.subject_alt_names.clone();
    }
    let endpoints = service.ports.iter().flat_map(|port| cx.endpoints(service, port));
    let of_workloads = endpoints
        .map(|endpoint| (&*endpoint.workload.namespace, &*endpoint.workload.service_account))
        .filter(|(_, account)| !account.is_empty());
    let of_service = annotated(service, ACCOUNTS).map(|account| (&*service.namespace, account));
    let accounts: BTreeSet<(&str, &str)> = of_workloads.chain(of_service).collect();
    let mut names: BTreeSet<String> = annotated(service, IDENTITIES).map(str::to_owned).collect();
    for (namespace, account) in accounts {
        let domains = cx.world.mesh().trust_domains.iter();
        names.extend(domains.map(|domain| format!("spiffe://{domain}/ns/{namespace}/sa/{account}")));
    }
    names.into_iter().collect()
}

/// Annotation of a Service with service accounts of its workloads that Kubernetes does not know.
const ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";

/// Annotation of a Service with names of its workloads in full.
const IDENTITIES: &str = "alpha.istio.io/canonical-serviceaccounts";

/// What an annotation of a Service lists.
fn annotated<'a>(service: &'a Service, annotation: &str) -> impl Iterator<Item = &'a str> {
    let of_kubernetes = service.registry == Registry::Kubernetes;
    let object = service.sources.first().filter(|_| of_kubernetes);
    let list = object.and_then(|object| object.metadata.annotations.get(annotation));
    list.map(String::as_str).unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// What all clusters start from.
fn base(cx: &Context<'_>, name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat_name(name),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        circuit_breakers: Some(connection_pool::unlimited_breakers()),
        ..Default::default()
    }
}

/// The endpoint of each connection is the address that its client sent it to, perhaps on another port.
fn original_destination(cluster: &mut Cluster, port: Option<u32>) {
    cluster.cluster_discovery_type = discovery_type(cluster::DiscoveryType::OriginalDst);
    cluster.lb_policy = cluster::LbPolicy::ClusterProvided.into();
    cluster.lb_config = port.map(|port| {
        cluster::LbConfig::OriginalDstLbConfig(cluster::OriginalDstLbConfig {
            upstream_port_override: Some(port),
            ..Default::default()
        })
    });
}

fn discovery_type(kind: cluster::DiscoveryType) -> Option<cluster::ClusterDiscoveryType> {
    Some(cluster::ClusterDiscoveryType::Type(kind.into()))
}
