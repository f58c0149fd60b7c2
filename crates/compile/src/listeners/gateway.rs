//! Which ports does a gateway listen on, and which chains are there for its servers?

use std::collections::BTreeSet;

use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use lateen_xds::{Origin, Part, Resource};

use super::chains::{self, Bytes, Chain};
use super::{EVERY_ADDRESS, inspectors, outbound};
use crate::auto_passthrough;
use crate::context::Context;
use crate::gateway_ports::{Class, GatewayPort, ends_https, https_routes};
use crate::hcm::{self, ConnectionManager, Direction, Routes};
use crate::host;
use crate::l4::{self, Place, TcpMatch};
use crate::message;
use crate::names;
use crate::protocol::Protocol;
use crate::tls::{self, ChainProtocol};
use crate::world::gateways::{Gateway, Server, Termination};

/// Bytes that a gateway's connection buffers before it stops reading.
const GATEWAY_BUFFER: u32 = 32 * 1024;

/// Time that a client has for its TLS handshake.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(15);

/// One listener for each port, except for ports on which no chain is left.
pub(crate) fn compile(cx: &Context<'_>, ports: &[GatewayPort<'_>]) -> Vec<Resource<Listener>> {
    ports.iter().filter_map(|port| listener(cx, port)).collect()
}

fn listener(cx: &Context<'_>, port: &GatewayPort<'_>) -> Option<Resource<Listener>> {
    let bind = port.bind.as_deref().unwrap_or(EVERY_ADDRESS);
    let name = names::listener(bind, port.port);
    let mut chains: Vec<Chain> = Vec::new();
    match port.class {
        Class::Http => {
            let routes = names::gateway_http_routes(port.port, port.bind.as_deref());
            let protocol = port.servers.first().map_or(Protocol::Http, |(_, server)| server.protocol);
            let message = http_chain(cx, names::outbound_stat_prefix(&name), routes, protocol);
            chains.push(Chain { message, origins: Vec::new() });
        }
        Class::Tcp => {
            for (gateway, server) in &port.servers {
                chains.extend(tcp_chain(cx, gateway, server));
            }
        }
        Class::Tls => {
            let mut passed = BTreeSet::new();
            for (gateway, server) in &port.servers {
                let made = match server.termination() {
                    Termination::Passthrough => passthrough_chains(cx, gateway, server),
                    Termination::AutoPassthrough => {
                        // There may be very many, which only their names tell apart.
                        chains.extend(auto_passthrough_chains(cx, server, &mut passed));
                        continue;
                    }
                    Termination::Terminate if ends_https(server) => https_chain(cx, &name, gateway, server),
                    Termination::Terminate => tls_chain(cx, gateway, server),
                    Termination::Plain => Vec::new(),
                };
                for chain in made {
                    chains.extend(chain.besides(&chains));
                }
            }
        }
    }
    if chains.is_empty() {
        return None;
    }
    let mut origins: Vec<(Part, Origin)> =
        port.servers.iter().map(|(_, server)| (Part::Whole, (*server.origin).clone())).collect();
    for (index, chain) in chains.iter().enumerate() {
        origins.extend(chain.origins.iter().map(|origin| (Part::FilterChain(index), origin.clone())));
    }
    let mut message = Listener {
        filter_chains: chains.into_iter().map(|chain| chain.message).collect(),
        per_connection_buffer_limit_bytes: Some(GATEWAY_BUFFER),
        ..outbound(cx, &name, bind, port.port)
    };
    inspectors::add(&mut message, cx);
    if cx.world.mesh().gateway_topology.proxy_protocol.is_some() {
        // Before all others: what they look at comes behind its header.
        message.listener_filters.insert(0, inspectors::proxy_protocol());
    }
    Some(Resource::new(message, origins))
}

fn http_chain(cx: &Context<'_>, stat_prefix: String, routes: String, protocol: Protocol) -> FilterChain {
    let manager = ConnectionManager {
        direction: Direction::Gateway,
        stat_prefix,
        routes: Routes::Named(routes),
        protocol,
        absolute_urls: false,
    };
    FilterChain { filters: vec![hcm::compile(cx, manager)], ..Default::default() }
}

/// HTTP inside of TLS that ends here.
fn https_chain(cx: &Context<'_>, listener: &str, gateway: &Gateway, server: &Server) -> Vec<Chain> {
    let stat_prefix = match &server.name {
        Some(name) => name.to_string(),
        None => names::outbound_stat_prefix(listener),
    };
    let chain = http_chain(cx, stat_prefix, https_routes(gateway, server), server.protocol);
    terminated(cx, server, chain, ChainProtocol::Http).into_iter().collect()
}

/// Bytes inside of TLS that ends here.
fn tls_chain(cx: &Context<'_>, gateway: &Gateway, server: &Server) -> Vec<Chain> {
    let Some(chain) = tcp_chain(cx, gateway, server) else {
        return Vec::new();
    };
    let ended = terminated(cx, server, chain.message, ChainProtocol::Tcp);
    ended.map(|ended| Chain { origins: chain.origins, ..ended }).into_iter().collect()
}

/// A chain for the server's hosts, with its certificate.
fn terminated(cx: &Context<'_>, server: &Server, chain: FilterChain, protocol: ChainProtocol) -> Option<Chain> {
    let settings = server.tls.as_ref()?;
    let context = tls::downstream_gateway(cx.world.mesh(), cx.scope.capability, settings, protocol)?;
    let message = FilterChain {
        filter_chain_match: named(server.hosts.iter().map(|host| host.host.to_string())),
        transport_socket: Some(tls::downstream_socket(&context)),
        transport_socket_connect_timeout: Some(message::duration(HANDSHAKE)),
        ..chain
    };
    Some(Chain { message, origins: vec![(*server.origin).clone()] })
}

/// Connections whose clients ask for one of some names; for all connections if one of them is `*`.
fn named(names: impl Iterator<Item = String>) -> Option<FilterChainMatch> {
    let mut server_names: Vec<String> = names.collect();
    if server_names.iter().any(|name| name == "*") {
        return None;
    }
    server_names.sort();
    server_names.dedup();
    Some(FilterChainMatch { server_names, ..Default::default() })
}

/// The first `tcp` rule for a server's port, of the oldest VirtualService that has one.
fn tcp_chain(cx: &Context<'_>, gateway: &Gateway, server: &Server) -> Option<Chain> {
    let gateway_name = gateway.full_name();
    let place = Place { port: server.number, gateway: Some(&gateway_name) };
    for virtual_service in cx.world.virtual_services(&gateway_name, &cx.scope.namespace) {
        let offered = server.hosts_for(&virtual_service.namespace);
        let asked: Vec<&str> = virtual_service.hosts.iter().map(|host| &**host).collect();
        if host::intersect(&offered, &asked).is_empty() {
            continue;
        }
        for rule in &virtual_service.tcp {
            if l4::tcp_match(cx, virtual_service, &rule.route, place) == TcpMatch::Nothing {
                continue;
            }
            let Some(bytes) = l4::forward(cx, virtual_service, &rule.route.route, server.number, server.protocol)
            else {
                continue;
            };
            let message = FilterChain {
                filters: bytes.filters(cx),
                metadata: Some(chains::made_by("virtual-service", &virtual_service.namespace, &virtual_service.name)),
                ..Default::default()
            };
            return Some(Chain { message, origins: vec![(*rule.origin).clone()] });
        }
    }
    None
}

/// TLS that is passed through: one chain for each match of each `tls` rule.
fn passthrough_chains(cx: &Context<'_>, gateway: &Gateway, server: &Server) -> Vec<Chain> {
    let gateway_name = gateway.full_name();
    let place = Place { port: server.number, gateway: Some(&gateway_name) };
    let mut chains = Vec::new();
    for virtual_service in cx.world.virtual_services(&gateway_name, &cx.scope.namespace) {
        let offered = server.hosts_for(&virtual_service.namespace);
        for rule in &virtual_service.tls {
            for attributes in &rule.route.r#match {
                let asked: Vec<&str> = attributes.sni_hosts.iter().map(String::as_str).collect();
                if !l4::tls_applies(cx, virtual_service, attributes, place)
                    || host::intersect(&offered, &asked).is_empty()
                {
                    continue;
                }
                let Some(bytes) = l4::forward(cx, virtual_service, &rule.route.route, server.number, server.protocol)
                else {
                    continue;
                };
                let message = FilterChain {
                    filter_chain_match: named(attributes.sni_hosts.iter().map(|name| name.to_ascii_lowercase())),
                    filters: bytes.filters(cx),
                    metadata: Some(chains::made_by(
                        "virtual-service",
                        &virtual_service.namespace,
                        &virtual_service.name,
                    )),
                    ..Default::default()
                };
                chains.push(Chain { message, origins: vec![(*rule.origin).clone()] });
            }
        }
    }
    chains
}

/// TLS between workloads of different networks: the name that is asked for is that of a cluster.
fn auto_passthrough_chains(cx: &Context<'_>, server: &Server, passed: &mut BTreeSet<String>) -> Vec<Chain> {
    let mut chains = Vec::new();
    for service in cx.services() {
        if !auto_passthrough::covers(&server.hosts, service) {
            continue;
        }
        let rule = cx.rule(service);
        for port in service.ports.iter().filter(|port| port.protocol.has_clusters()) {
            let subsets = rule.map(|rule| rule.subsets.as_slice()).unwrap_or_default();
            for subset in std::iter::once("").chain(subsets.iter().map(|subset| &*subset.name)) {
                let cluster = names::server_name(port.number, subset, &service.host);
                if !passed.insert(cluster.clone()) {
                    continue;
                }
                let message = FilterChain {
                    filter_chain_match: Some(FilterChainMatch {
                        server_names: vec![cluster.clone()],
                        application_protocols: tls::MESH_ALPN.map(str::to_owned).to_vec(),
                        ..Default::default()
                    }),
                    filters: Bytes::to(&cluster).filters(cx),
                    ..Default::default()
                };
                chains.push(Chain { message, origins: vec![(*server.origin).clone(), (*service.origin).clone()] });
            }
        }
    }
    chains
}
