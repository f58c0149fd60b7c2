//! What do EnvoyFilters change in what was compiled? Their patches, parsed once for the world, chosen for a proxy, and
//! applied to its listeners, route configurations and clusters in Istio's order.
//!
//! The way of a patch: [`Patches::build`] reads it and says what is wrong with it whatever the proxy;
//! [`Patches::for_proxy`] chooses those that are for one proxy; [`Selected`] applies them to one resource after the
//! other. Each application is a function of the resource, the selected patches and what [`Lookup`] answers, so its result
//! can be kept as long as these stay the same ([`Selected`] can be compared); what happened on the way is in its
//! [`Report`].
//!
//! Invariants: a patch that would break a resource leaves it as it was, and is told; an unchanged resource keeps its
//! identity and version; origins follow the parts that they speak of when patches insert and remove.

mod clusters;
mod extensions;
mod filter_chains;
mod filters;
mod listeners;
mod matching;
mod merging;
mod origins;
mod parse;
mod positions;
mod report;
mod routes;
mod select;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{
    ApplyTo, ClusterMatch, Diagnostic, EnvoyFilter, ListenerMatch, Object, PatchContext, Position,
    RouteConfigurationMatch,
};
use lateen_xds::Origin;
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3::TypedExtensionConfig;
use lateen_xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use lateen_xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_xds::merge::Lists;
use regex::bytes::Regex;

pub use self::report::Report;
pub use self::select::{ProxyFacts, Selected};

/// The codes of what is said about patches.
pub mod code {
    /// A value that is no message of its type: the patch is left out.
    pub const VALUE: &str = "LTN0120";
    /// A field of a value that its type does not have: the field is left out.
    pub const FIELD: &str = "LTN0121";
    /// An operation that the type does not know: the patch is left out.
    pub const OPERATION: &str = "LTN0122";
    /// A match that cannot be used: the patch is left out.
    pub const MATCH: &str = "LTN0123";
    /// A filter that would stand behind the one that ends its chain: it is left out.
    pub const POSITION: &str = "LTN0124";
    /// A patch that changes nothing of a proxy that it is for.
    pub const UNMATCHED: &str = "LTN0125";
    /// A patch that would make a resource unusable: the resource stays as it was.
    pub const REFUSED: &str = "LTN0126";
    /// A part of a patch that is not applied, as in Istio.
    pub const PARTLY: &str = "LTN0127";
}

/// Every patch of the mesh, in the order in which they are applied.
#[derive(Clone, Debug, Default)]
pub struct Patches {
    table: Table,
    diagnostics: Vec<Diagnostic>,
}

impl Patches {
    /// Reads EnvoyFilters. Their order does not matter; those of `root_namespace` are for all namespaces.
    pub fn build(filters: &[(&Arc<Object>, &EnvoyFilter)], root_namespace: &str) -> Patches {
        let mut parser = parse::Parser::new(root_namespace);
        for (object, spec) in select::in_order(filters, root_namespace) {
            parser.filter(object, spec);
        }
        parser.finish()
    }

    /// What is wrong with patches, whatever the proxy. In the order in which they are applied.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// True when there is no patch.
    pub fn is_empty(&self) -> bool {
        self.table.abouts().next().is_none()
    }
}

/// What has to be known of the mesh beside a resource, to tell which patches match it.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// The numbers of the Gateway servers that share a gateway's route configuration, by its name. None: the port in
    /// the name counts.
    pub server_ports: &'a dyn Fn(&str) -> Vec<u32>,
    /// The hosts of the services that lead to a port of the workload: those of its cluster `inbound|<port>||`.
    pub inbound_hosts: &'a dyn Fn(u32) -> Vec<Arc<str>>,
}

/// Patches by the type of what they change.
#[derive(Clone, Debug, Default)]
struct Table {
    listeners: Vec<Arc<Patch<Listener>>>,
    listener_filters: Vec<Arc<Patch<ListenerFilter>>>,
    filter_chains: Vec<Arc<Patch<FilterChain>>>,
    network_filters: Vec<Arc<Patch<Filter>>>,
    http_filters: Vec<Arc<Patch<HttpFilter>>>,
    route_configurations: Vec<Arc<Patch<RouteConfiguration>>>,
    virtual_hosts: Vec<Arc<Patch<VirtualHost>>>,
    http_routes: Vec<Arc<Patch<Route>>>,
    clusters: Vec<Arc<Patch<Cluster>>>,
    extensions: Vec<Arc<Patch<TypedExtensionConfig>>>,
}

impl Table {
    fn select(&self, keep: impl Fn(&About) -> bool) -> Table {
        fn kept<M>(patches: &[Arc<Patch<M>>], keep: &impl Fn(&About) -> bool) -> Vec<Arc<Patch<M>>> {
            patches.iter().filter(|patch| keep(&patch.about)).cloned().collect()
        }
        Table {
            listeners: kept(&self.listeners, &keep),
            listener_filters: kept(&self.listener_filters, &keep),
            filter_chains: kept(&self.filter_chains, &keep),
            network_filters: kept(&self.network_filters, &keep),
            http_filters: kept(&self.http_filters, &keep),
            route_configurations: kept(&self.route_configurations, &keep),
            virtual_hosts: kept(&self.virtual_hosts, &keep),
            http_routes: kept(&self.http_routes, &keep),
            clusters: kept(&self.clusters, &keep),
            extensions: kept(&self.extensions, &keep),
        }
    }

    fn abouts(&self) -> impl Iterator<Item = &About> {
        fn of<M>(patches: &[Arc<Patch<M>>]) -> impl Iterator<Item = &About> {
            patches.iter().map(|patch| &patch.about)
        }
        of(&self.listeners)
            .chain(of(&self.listener_filters))
            .chain(of(&self.filter_chains))
            .chain(of(&self.network_filters))
            .chain(of(&self.http_filters))
            .chain(of(&self.route_configurations))
            .chain(of(&self.virtual_hosts))
            .chain(of(&self.http_routes))
            .chain(of(&self.clusters))
            .chain(of(&self.extensions))
    }
}

/// One patch that can be applied.
#[derive(Debug)]
struct Patch<M> {
    about: About,
    change: Change<M>,
}

/// What a patch does with its value.
#[derive(Debug)]
enum Change<M> {
    Merge(Value<M>, Lists),
    Insert(M, Place),
    Replace(M),
    Remove,
}

/// A message and its encoded form, which merging works on.
#[derive(Debug)]
struct Value<M> {
    message: M,
    encoded: Vec<u8>,
}

/// Where in a list a value is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Before,
    After,
    Last,
}

/// Everything about a patch but its change.
#[derive(Debug)]
struct About {
    /// Its place in the order of application; no two patches of a world have the same.
    id: usize,
    apply_to: ApplyTo,
    object: Arc<Object>,
    at: Position,
    /// Path of the patch in its object.
    path: String,
    origin: Origin,
    /// The namespace whose proxies it is for; `None` for all.
    namespace: Option<Arc<str>>,
    /// Labels that the workload has to have.
    selector: Arc<BTreeMap<String, String>>,
    proxy: ProxyCondition,
    context: PatchContext,
    target: Target,
    /// Name of the element of a list of filters that is meant.
    element: Option<String>,
    /// It was already said that its filter lands behind the router.
    lands_behind_router: bool,
}

/// Which proxies a patch is for, beyond the selector of its EnvoyFilter.
#[derive(Debug, Default)]
struct ProxyCondition {
    version: Option<Regex>,
    metadata: BTreeMap<String, String>,
}

/// Which resources a patch is for.
#[derive(Debug)]
enum Target {
    Everything,
    Listener(ListenerMatch),
    Routes(RouteConfigurationMatch),
    Cluster(ClusterMatch),
}
