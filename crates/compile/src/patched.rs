//! What becomes of what was compiled when the patches of EnvoyFilters are applied to it? A [`Memory`] keeps what they
//! made of each resource, for as long as the resource, the patches and what they match by are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Diagnostic, PatchContext};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3::{Address, SocketAddress, TrafficDirection, address, socket_address};
use lateen_xds::envoy::config::listener::v3::Listener;
use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::{Resource, XdsSet};

use crate::context::Context;
use crate::gateway_ports::GatewayPort;
use crate::inbound;
use crate::names;
use crate::patches::{Lookup, ProxyFacts, Report, Selected};
use crate::scope::{Role, Scope};

/// The version of Istio whose proxies are like ours, for patches that are meant for versions.
const ISTIO_VERSION: &str = "1.32.0";

/// Metadata in which a proxy tells another version.
const VERSION_KEY: &str = "ISTIO_VERSION";

/// What patches made of the configuration of one proxy.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    selected: Selected,
    matched_by: MatchedBy,
    report: Report,
    clusters: Kept<Cluster>,
    routes: Kept<RouteConfiguration>,
    listeners: Kept<Listener>,
}

/// What patches match by besides the resources.
#[derive(Debug, Default, PartialEq)]
struct MatchedBy {
    /// The numbers of the servers that share each route configuration of a gateway.
    server_ports: BTreeMap<String, Vec<u32>>,
    /// The hosts of the services behind each port of a sidecar's workload.
    inbound_hosts: BTreeMap<u32, Vec<Arc<str>>>,
}

/// Resources of one type as they were before and after.
type Kept<M> = BTreeMap<Arc<str>, Entry<M>>;

#[derive(Debug)]
struct Entry<M> {
    before: Resource<M>,
    /// `None`: removed.
    after: Option<Resource<M>>,
    report: Report,
}

impl Memory {
    /// Applies the patches that are for a proxy to everything that was compiled for it.
    pub(crate) fn apply(&mut self, cx: &Context<'_>, ports: &[GatewayPort<'_>], mut set: XdsSet) -> XdsSet {
        let selected = select(cx);
        if selected.is_empty() {
            *self = Memory::default();
            return set;
        }
        let matched_by = MatchedBy::of(cx, ports);
        let previous = std::mem::take(self);
        let same = previous.selected == selected && previous.matched_by == matched_by;
        let (clusters, routes, listeners) = match same {
            true => (previous.clusters, previous.routes, previous.listeners),
            false => Default::default(),
        };
        let lookup = Lookup {
            server_ports: &|name| matched_by.server_ports.get(name).cloned().unwrap_or_default(),
            inbound_hosts: &|port| matched_by.inbound_hosts.get(&port).cloned().unwrap_or_default(),
        };
        let role = cx.scope.role;
        let contexts: &[PatchContext] = match role {
            Role::Gateway => &[PatchContext::Gateway],
            Role::Sidecar => &[PatchContext::SidecarOutbound, PatchContext::SidecarInbound],
        };
        let mut report = Report::default();

        let clusters = each(clusters, &set.clusters, &mut report, |resource, report| {
            selected.cluster(context(role, is_inbound(&resource.message.name)), resource, &lookup, report)
        });
        set.endpoints.retain(|name, _| clusters.get(name).is_none_or(|cluster| cluster.after.is_some()));
        set.clusters = afterwards(&clusters);
        selected.add_clusters(contexts, &mut set.clusters, &mut report);

        let routes = each(routes, &set.routes, &mut report, |resource, report| {
            Some(selected.route_configuration(context(role, false), resource, &lookup, report))
        });
        set.routes = afterwards(&routes);

        let listeners = each(listeners, &set.listeners, &mut report, |resource, report| {
            let inbound = resource.message.traffic_direction() == TrafficDirection::Inbound;
            selected.listener(context(role, inbound), resource, &lookup, report)
        });
        let mut all = afterwards(&listeners);
        selected.add_listeners(contexts, &mut all, &mut report);
        for (name, listener) in &mut all {
            if listeners.get(name).is_none_or(|entry| entry.after.is_none()) {
                *listener = bound(cx.scope, listener);
            }
        }
        set.listeners = all;

        *self = Memory { selected, matched_by, report, clusters, routes, listeners };
        set
    }

    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        self.selected.diagnostics(&self.report)
    }

    /// What is to be said of two proxies that run as one: a patch for either is no patch for nothing.
    pub(crate) fn joint_diagnostics(&self, other: &Memory) -> Vec<Diagnostic> {
        let mut report = self.report.clone();
        report.join(&other.report);
        let mut all = self.selected.diagnostics(&report);
        for diagnostic in other.selected.diagnostics(&report) {
            if !all.contains(&diagnostic) {
                all.push(diagnostic);
            }
        }
        all
    }
}

impl MatchedBy {
    fn of(cx: &Context<'_>, ports: &[GatewayPort<'_>]) -> MatchedBy {
        let groups = ports.iter().flat_map(GatewayPort::route_groups);
        let hosts = |target: &inbound::InboundTarget<'_>| -> Vec<Arc<str>> {
            target.services.iter().map(|(service, _)| service.host.clone()).collect()
        };
        MatchedBy {
            server_ports: groups
                .map(|group| (group.name, group.servers.iter().map(|(_, server)| server.number).collect()))
                .collect(),
            inbound_hosts: inbound::inbound_targets(cx).iter().map(|target| (target.port, hosts(target))).collect(),
        }
    }
}

fn select(cx: &Context<'_>) -> Selected {
    let scope = cx.scope;
    cx.world.patches().for_proxy(&ProxyFacts {
        role: scope.role,
        namespace: &scope.namespace,
        labels: scope.labels.as_ref(),
        istio_version: scope.metadata.get(VERSION_KEY).map_or(ISTIO_VERSION, String::as_str),
        metadata: &scope.metadata,
    })
}

fn context(role: Role, inbound: bool) -> PatchContext {
    match (role, inbound) {
        (Role::Gateway, _) => PatchContext::Gateway,
        (Role::Sidecar, true) => PatchContext::SidecarInbound,
        (Role::Sidecar, false) => PatchContext::SidecarOutbound,
    }
}

fn is_inbound(cluster: &str) -> bool {
    names::parse_inbound_cluster(cluster).is_some() || cluster == names::INBOUND_PASSTHROUGH_CLUSTER
}

/// Patches each resource, but for those that were met before.
fn each<M>(
    mut previous: Kept<M>,
    resources: &BTreeMap<Arc<str>, Resource<M>>,
    report: &mut Report,
    mut patch: impl FnMut(&Resource<M>, &mut Report) -> Option<Resource<M>>,
) -> Kept<M>
where
    Resource<M>: Clone,
{
    let mut kept = Kept::new();
    for (name, resource) in resources {
        let same = |entry: &Entry<M>| {
            Arc::ptr_eq(&entry.before.message, &resource.message)
                && Arc::ptr_eq(&entry.before.origins, &resource.origins)
        };
        let entry = previous.remove(name).filter(same).unwrap_or_else(|| {
            let mut report = Report::default();
            let after = patch(resource, &mut report);
            Entry { before: resource.clone(), after, report }
        });
        report.join(&entry.report);
        kept.insert(name.clone(), entry);
    }
    kept
}

fn afterwards<M>(kept: &Kept<M>) -> BTreeMap<Arc<str>, Resource<M>>
where
    Resource<M>: Clone,
{
    kept.iter().filter_map(|(name, entry)| Some((name.clone(), entry.after.clone()?))).collect()
}

/// A listener that a patch added, where listeners of this proxy bind: of the address that the patch gives, all but
/// host and port stays.
fn bound(scope: &Scope, resource: &Resource<Listener>) -> Resource<Listener> {
    let Some(Address { address: Some(address::Address::SocketAddress(socket)) }) = &resource.message.address else {
        return resource.clone();
    };
    let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return resource.clone();
    };
    let Some(address::Address::SocketAddress(moved)) = scope.listen.address(&socket.address, port).address else {
        return resource.clone();
    };
    let socket = SocketAddress { address: moved.address, port_specifier: moved.port_specifier, ..socket.clone() };
    let mut message = (*resource.message).clone();
    message.address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    Resource::new(message, resource.origins.to_vec())
}
