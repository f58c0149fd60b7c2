//! Where does a gateway send a request? One route configuration for each plain HTTP port, and for each server that ends
//! TLS: the VirtualServices bound to the Gateways on it, merged by host.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::{Origin, Resource};

use super::Memory;
use super::table::{self, CatchAll, CompiledRoute, Draft, Frame};
use super::virtual_service::Listener;
use crate::context::Context;
use crate::gateway_ports::{GatewayPort, RouteGroup};
use crate::host;
use crate::identity::address;
use crate::names;

/// The route configurations of a gateway by name.
pub(crate) fn compile(
    cx: &Context<'_>,
    ports: &[GatewayPort<'_>],
    memory: &mut Memory,
) -> BTreeMap<Arc<str>, Resource<RouteConfiguration>> {
    let mut routes = BTreeMap::new();
    for group in ports.iter().flat_map(GatewayPort::route_groups) {
        let name: Arc<str> = group.name.as_str().into();
        let table = memory.table(&name, key(cx, &group), |memory, spare| compile_group(cx, &group, memory, spare));
        routes.insert(name, table);
    }
    routes
}

/// What may differ between two compilations with the same services.
fn key(cx: &Context<'_>, group: &RouteGroup<'_>) -> Vec<usize> {
    let mut key = Vec::new();
    for (gateway, server) in &group.servers {
        key.push(address(*server));
        let name = gateway.full_name();
        let bound = cx.world.virtual_services(&name, &cx.scope.namespace);
        key.extend(bound.map(|virtual_service| address(&**virtual_service)));
    }
    key
}

/// The routes of one host while VirtualServices add to them.
struct Gathered {
    /// Number of the first server that has the host; part of the virtual host's name.
    port: u32,
    /// The VirtualServices whose routes these are, in order: equal lists are equal routes.
    sources: Vec<Source>,
    require_tls: bool,
    routes: Vec<Arc<[CompiledRoute]>>,
    origins: Vec<Arc<Origin>>,
}

/// A VirtualService as it is used by one Gateway: (name of the Gateway, address of the VirtualService).
type Source = (Arc<str>, usize);

fn compile_group(
    cx: &Context<'_>,
    group: &RouteGroup<'_>,
    memory: &mut Memory,
    spare: Option<table::Table>,
) -> table::Table {
    let mut hosts: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut compiled: BTreeMap<Source, Arc<[CompiledRoute]>> = BTreeMap::new();
    for (gateway, server) in &group.servers {
        let gateway_name: Arc<str> = gateway.full_name().into();
        for virtual_service in cx.world.virtual_services(&gateway_name, &cx.scope.namespace) {
            let offered = server.hosts_for(&virtual_service.namespace);
            let asked: Vec<&str> = virtual_service.hosts.iter().map(|host| &**host).collect();
            let common = host::intersect(&offered, &asked);
            if common.is_empty() {
                continue;
            }
            let source: Source = (gateway_name.clone(), address(&**virtual_service));
            let routes = compiled.entry(source.clone()).or_insert_with(|| {
                let listener = Listener::Gateway { port: server.number, name: &gateway_name, is_tls: group.is_tls };
                memory.routes(cx, virtual_service, listener)
            });
            for host in common {
                let gathered = hosts.entry(host.to_ascii_lowercase()).or_insert_with(|| Gathered {
                    port: server.number,
                    sources: Vec::new(),
                    require_tls: false,
                    routes: Vec::new(),
                    origins: Vec::new(),
                });
                gathered.require_tls |= server.redirects_to_https();
                gathered.sources.push(source.clone());
                gathered.routes.push(routes.clone());
                if !gathered.origins.contains(&virtual_service.origin) {
                    gathered.origins.push(virtual_service.origin.clone());
                }
            }
        }
        if server.redirects_to_https() {
            // Hosts of the server that no VirtualService takes redirect too.
            for host in &server.hosts {
                hosts.entry(host.host.to_ascii_lowercase()).or_insert_with(|| Gathered {
                    port: server.number,
                    sources: Vec::new(),
                    require_tls: true,
                    routes: Vec::new(),
                    origins: vec![server.origin.clone()],
                });
            }
        }
    }

    let whole = group.servers.iter().map(|(_, server)| (*server.origin).clone()).collect();
    let mut drafts = collapse(hosts);
    if drafts.is_empty() {
        let number = group.servers.first().map_or(group.port, |(_, server)| server.number);
        drafts.push(Draft {
            name: names::blackhole_virtual_host(number).into(),
            domains: Arc::new(vec!["*".to_owned()]),
            routes: Arc::new([]),
            require_tls: false,
            origins: Vec::new(),
        });
    }
    let frame = Frame { name: &group.name, catch_all: CatchAll::None, ignore_port: true, origins: whole };
    table::build(cx, frame, &drafts, spare)
}

/// Hosts with the same routes share a virtual host, which bears the name of the most specific of them. Routes
/// that match everything go behind all others, so that one VirtualService's do not hide those of the next.
fn collapse(hosts: BTreeMap<String, Gathered>) -> Vec<Draft> {
    let mut hosts: Vec<(String, Gathered)> = hosts.into_iter().collect();
    hosts.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
    let mut drafts: Vec<Draft> = Vec::new();
    let mut known: BTreeMap<(Vec<Source>, bool), usize> = BTreeMap::new();
    for (host, gathered) in hosts {
        let key = (gathered.sources, gathered.require_tls);
        if !key.0.is_empty() {
            if let Some(draft) = known.get(&key) {
                Arc::make_mut(&mut drafts[*draft].domains).push(host);
                continue;
            }
            known.insert(key, drafts.len());
        }
        let routes = match gathered.routes.as_slice() {
            // What matches everything is the last route of a VirtualService already.
            [only] => only.clone(),
            several => {
                let mut routes: Vec<CompiledRoute> = several.iter().flat_map(|routes| routes.iter()).cloned().collect();
                // A stable sort: the order of the others stays.
                routes.sort_by_key(|route| route.catch_all);
                routes.into()
            }
        };
        drafts.push(Draft {
            name: names::virtual_host(&host, gathered.port).into(),
            domains: Arc::new(vec![host]),
            routes,
            require_tls: gathered.require_tls,
            origins: gathered.origins,
        });
    }
    drafts
}
