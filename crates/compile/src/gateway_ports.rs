//! Which servers of which Gateways share a listener? All Gateways that select one gateway workload are merged by
//! bound address and resolved port; what cannot share is left out, the oldest Gateway first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::context::Context;
use crate::names;
use crate::protocol::Protocol;
use crate::world::gateways::{Gateway, Server, ServerHost, Termination};
use crate::world::services::{Address, Endpoint, Service, ServicePort, includes};

/// Label of a Service whose ports are not translated for gateways.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// Where a listener binds: (address of the server if it names one, port of the workload).
pub(crate) type BoundPort = (Option<Arc<str>>, u32);

/// Servers with their Gateways, oldest Gateway first.
pub(crate) type Servers<'a> = Vec<(&'a Gateway, &'a Server)>;

/// What shares one listener of a gateway.
pub(crate) struct GatewayPort<'a> {
    pub(crate) bind: Option<Arc<str>>,
    pub(crate) port: u32,
    /// What its servers speak.
    pub(crate) class: Class,
    pub(crate) servers: Servers<'a>,
}

/// What the first server of a port makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// HTTP without TLS: servers share one connection manager.
    Http,
    /// TLS: servers are told apart by the name that clients ask for.
    Tls,
    /// Bytes: the port is the first server's alone.
    Tcp,
}

/// The servers that share one route configuration.
pub(crate) struct RouteGroup<'a> {
    /// Name of the route configuration.
    pub(crate) name: String,
    /// Requests come over TLS.
    pub(crate) is_tls: bool,
    pub(crate) servers: Servers<'a>,
    /// Port that is bound.
    pub(crate) port: u32,
}

impl<'a> GatewayPort<'a> {
    /// The route configurations that the port's connection managers ask for: one for all plain HTTP servers, one for
    /// each server that ends TLS.
    pub(crate) fn route_groups(&self) -> Vec<RouteGroup<'a>> {
        match self.class {
            Class::Http => vec![RouteGroup {
                name: names::gateway_http_routes(self.port, self.bind.as_deref()),
                is_tls: false,
                servers: self.servers.clone(),
                port: self.port,
            }],
            Class::Tls => self
                .servers
                .iter()
                .filter(|(_, server)| ends_https(server))
                .map(|(gateway, server)| RouteGroup {
                    name: https_routes(gateway, server),
                    is_tls: true,
                    servers: vec![(gateway, server)],
                    port: self.port,
                })
                .collect(),
            Class::Tcp => Vec::new(),
        }
    }
}

/// True for a server whose requests are HTTP inside of TLS that ends at the gateway.
pub(crate) fn ends_https(server: &Server) -> bool {
    server.protocol == Protocol::Https && server.termination() == Termination::Terminate
}

/// Route configuration of a server that ends TLS.
pub(crate) fn https_routes(gateway: &Gateway, server: &Server) -> String {
    names::gateway_https_routes(
        server.number,
        &server.port_name,
        &gateway.name,
        &gateway.namespace,
        server.bind.as_deref(),
    )
}

/// Merges the Gateways that select this workload. The first server of a port decides what is spoken on it: later ones
/// that do not fit are left out, as are servers with TLS of which an older one has a host.
pub(crate) fn merge<'a>(cx: &Context<'a>) -> Vec<GatewayPort<'a>> {
    let mut ports: BTreeMap<BoundPort, (Class, Servers<'_>)> = BTreeMap::new();
    let mut hosts_with_tls: BTreeMap<BoundPort, BTreeSet<String>> = BTreeMap::new();
    let mut route_names: BTreeSet<String> = BTreeSet::new();
    for gateway in cx.world.gateways() {
        if !configures(cx, gateway) {
            continue;
        }
        for server in &gateway.servers {
            let class = match server.termination() {
                _ if server.protocol.is_http() => Class::Http,
                Termination::Plain => Class::Tcp,
                Termination::Terminate | Termination::Passthrough | Termination::AutoPassthrough => Class::Tls,
            };
            let Some(port) = resolve(cx, gateway, server.number) else {
                continue;
            };
            let bound: BoundPort = (server.bind.clone(), port);
            // A server with a `tls` block, be it only for the redirect, owns its hosts on the port.
            if server.tls.is_some() {
                let taken = hosts_with_tls.entry(bound.clone()).or_default();
                let name = |host: &ServerHost| match class {
                    // The name that clients ask for tells nothing of namespaces.
                    Class::Tls => host.host.to_string(),
                    Class::Http | Class::Tcp => host.to_string(),
                };
                let hosts: Vec<String> = server.hosts.iter().map(name).collect();
                if hosts.iter().any(|host| taken.contains(host)) {
                    continue;
                }
                taken.extend(hosts);
            }
            if ends_https(server) && !route_names.insert(https_routes(gateway, server)) {
                continue;
            }
            match ports.get_mut(&bound) {
                None => {
                    ports.insert(bound, (class, vec![(gateway, server)]));
                }
                Some((first, servers)) if *first == class && class != Class::Tcp => servers.push((gateway, server)),
                Some(_) => {}
            }
        }
    }
    ports.into_iter().map(|((bind, port), (class, servers))| GatewayPort { bind, port, class, servers }).collect()
}

/// True when a Gateway is for this workload: by its labels, or by a service of the Gateway's namespace that it stands
/// behind.
pub(crate) fn configures(cx: &Context<'_>, gateway: &Gateway) -> bool {
    let (Some(services), Some(labels)) = (&gateway.services, &cx.scope.labels) else {
        return cx.scope.selected_by(gateway.selector.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    };
    services.iter().flat_map(|host| cx.world.services_of(host)).any(|service| {
        service.namespace == gateway.namespace
            && service.namespace == cx.scope.namespace
            && service.ports.iter().any(|port| target(cx, service, port, labels).is_some())
    })
}

/// The number in a Gateway is a port of the gateway's Service: the workload listens on what that Service
/// calls its target. Without such a Service the number itself is bound. `None` for a port that the proxy may not bind,
/// and for one that none of the services has which the Gateway names.
fn resolve(cx: &Context<'_>, gateway: &Gateway, number: u32) -> Option<u32> {
    let target = cx.scope.labels.as_ref().and_then(|labels| {
        let own = cx.world.services().iter().filter(|service| service.namespace == cx.scope.namespace);
        own.filter(|service| match &gateway.services {
            Some(named) => named.contains(&service.host),
            None => !service.labels.contains_key(NO_TRANSLATION),
        })
        .filter_map(|service| Some((service, service.port(number)?)))
        .find_map(|(service, port)| target(cx, service, port, labels))
    });
    let port = match target {
        None if gateway.services.is_some() && cx.scope.labels.is_some() => return None,
        None => number,
        Some(target) => target,
    };
    // A unix domain socket has no port.
    (port == 0 || port >= 1024 || !cx.scope.is_unprivileged).then_some(port)
}

/// The port of the gateway's workload behind a port of a service, if the workload stands behind it: the service selects
/// its labels, or names its address.
fn target(cx: &Context<'_>, service: &Service, port: &ServicePort, labels: &BTreeMap<String, String>) -> Option<u32> {
    let selects = !service.selector.is_empty() && includes(labels, &service.selector);
    if selects && let Some(target) = port.target {
        return Some(target);
    }
    let of_workload = |endpoint: &&Endpoint| match &endpoint.address {
        Address::Socket { host, .. } => {
            host.parse().is_ok_and(|address: std::net::IpAddr| cx.scope.addresses.contains(&address))
        }
        Address::Pipe(_) => false,
    };
    let endpoints = cx.world.endpoints(service, port);
    match &endpoints.iter().find(|endpoint| of_workload(endpoint) || (selects && endpoint.has_labels(labels)))?.address
    {
        Address::Socket { port, .. } => Some(*port),
        Address::Pipe(_) => None,
    }
}
