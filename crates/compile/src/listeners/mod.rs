//! Where are connections accepted, and what happens to them? Listeners of gateways and sidecars.

pub(crate) mod chains;
mod gateway;
mod inbound;
mod inspectors;
pub(crate) mod outbound;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3::TrafficDirection;
use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use lateen_xds::{Origin, Part, Resource};

use self::chains::{Bytes, Chain, detected_http};
use self::outbound::{Outbound, Plan};
use crate::access_log::{self, Subject};
use crate::context::Context;
use crate::gateway_ports::GatewayPort;
use crate::hcm::{self, ConnectionManager, Direction, Routes};
use crate::mesh::OutboundTrafficPolicy;
use crate::names;
use crate::protocol::Protocol;
use crate::routes;
use crate::scope::{Interception, Listen, PortMapping};
use crate::world::telemetry::Side;

/// Address of listeners that nothing binds elsewhere.
pub(crate) const EVERY_ADDRESS: &str = "0.0.0.0";

/// Address of listeners that clients on the same host address.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

/// The listeners of a gateway by name.
pub(crate) fn of_gateway(cx: &Context<'_>, ports: &[GatewayPort<'_>]) -> BTreeMap<Arc<str>, Resource<Listener>> {
    by_name(gateway::compile(cx, ports))
}

/// The listeners of a sidecar by name: for what its workload sends, and what is sent to it.
pub(crate) fn of_sidecar(cx: &Context<'_>, plan: &Plan) -> BTreeMap<Arc<str>, Resource<Listener>> {
    let mut listeners: Vec<Resource<Listener>> =
        plan.listeners.values().map(|listener| outbound_listener(cx, listener)).collect();
    listeners.extend(http_proxy(cx));
    if cx.is_redirected() {
        listeners.push(virtual_outbound(cx));
        listeners.extend(inbound::compile(cx));
    }
    by_name(listeners)
}

fn by_name(listeners: Vec<Resource<Listener>>) -> BTreeMap<Arc<str>, Resource<Listener>> {
    listeners.into_iter().map(|listener| (listener.message.name.as_str().into(), listener)).collect()
}

/// A listener for service ports. Connections that no chain takes go where their client wanted, as those to unknown
/// addresses do.
fn outbound_listener(cx: &Context<'_>, planned: &Outbound) -> Resource<Listener> {
    let name = names::listener(&planned.bind, planned.port);
    let mut chains: Vec<Chain> = planned.tcp.clone();
    if let Some(table) = &planned.http {
        let mut chain = http_chain(cx, &name, table.name(), planned.protocol, false);
        // A port on which nothing else is spoken needs no detection, unless others may reach it unasked.
        if (cx.is_redirected() && planned.bind == EVERY_ADDRESS) || !chains.is_empty() {
            chain.filter_chain_match = Some(detected_http());
        }
        chains.push(Chain { message: chain, origins: Vec::new() });
    }
    let mut default = None;
    if chains.len() > 1
        && let Some(index) = chains.iter().position(Chain::takes_everything)
    {
        default = Some(chains.remove(index));
    }
    if default.is_none() && chains.iter().all(|chain| !chain.takes_everything()) {
        let chain = passthrough_chain(cx, names::PASSTHROUGH_FILTER_CHAIN);
        default = Some(Chain { message: chain, origins: Vec::new() });
    }
    let mut origins: Vec<(Part, Origin)> =
        planned.origins.iter().map(|origin| (Part::Whole, (**origin).clone())).collect();
    for (index, chain) in chains.iter().enumerate() {
        origins.extend(chain.origins.iter().map(|origin| (Part::FilterChain(index), origin.clone())));
    }
    // The default chain stands behind the others.
    if let Some(chain) = &default {
        origins.extend(chain.origins.iter().map(|origin| (Part::FilterChain(chains.len()), origin.clone())));
    }
    let mut message = Listener {
        filter_chains: chains.into_iter().map(|chain| chain.message).collect(),
        default_filter_chain: default.map(|chain| chain.message),
        bind_to_port: (!planned.binds_to_port).then_some(false),
        ..outbound(cx, &name, &planned.bind, planned.port)
    };
    inspectors::add(&mut message, cx);
    Resource::new(message, origins)
}

/// Accepts what `HTTP_PROXY` clients send: absolute URLs, routed by host and port.
fn http_proxy(cx: &Context<'_>) -> Option<Resource<Listener>> {
    let port = u32::from(cx.http_proxy_port()?);
    let name = names::listener(LOOPBACK, port);
    let mut message = Listener {
        filter_chains: vec![http_chain(cx, &name, names::HTTP_PROXY_ROUTES.to_owned(), Protocol::Http, true)],
        ..outbound(cx, &name, LOOPBACK, port)
    };
    // The port was chosen for this proxy; an offset is for those that objects name.
    if let PortMapping::Offset(_) = cx.scope.listen.ports {
        let listen = Listen { ports: PortMapping::AsIs, ..cx.scope.listen };
        message.address = Some(listen.address(LOOPBACK, port));
    }
    Some(Resource::new(message, Vec::new()))
}

/// The first chain catches connections to the listener's own port, which would otherwise go round in circles.
fn virtual_outbound(cx: &Context<'_>) -> Resource<Listener> {
    let port = u32::from(cx.world.mesh().outbound_port);
    let blackhole = FilterChain {
        name: names::OUTBOUND_BLACK_HOLE_CHAIN.to_owned(),
        filter_chain_match: Some(FilterChainMatch { destination_port: Some(port), ..Default::default() }),
        filters: Bytes::to(names::BLACK_HOLE_CLUSTER).filters(cx),
        ..Default::default()
    };
    let mut filter_chains = vec![blackhole];
    if cx.outbound_traffic_policy() == OutboundTrafficPolicy::AllowAnyDynamicDns {
        // The host of a request tells the way, so requests have to be read.
        let manager = ConnectionManager {
            direction: Direction::Outbound,
            stat_prefix: names::outbound_stat_prefix(names::VIRTUAL_OUTBOUND),
            routes: Routes::Inline(Box::new(routes::sidecar::unknown_hosts(cx, names::ALLOW_ANY_DYNAMIC_DNS))),
            protocol: Protocol::Auto,
            absolute_urls: false,
        };
        filter_chains.push(FilterChain {
            name: names::OUTBOUND_CATCH_ALL_HTTP_CHAIN.to_owned(),
            filter_chain_match: Some(detected_http()),
            filters: vec![hcm::compile(cx, manager)],
            ..Default::default()
        });
    }
    let catch_all = passthrough_chain(cx, names::OUTBOUND_CATCH_ALL_CHAIN);
    let mut default_filter_chain = None;
    if filter_chains.len() > 1 {
        // Among chains that are chosen by protocol, one for everything would be passed over.
        default_filter_chain = Some(catch_all);
    } else {
        filter_chains.push(catch_all);
    }
    let mut message = Listener {
        use_original_dst: Some(true),
        transparent: (cx.scope.interception == Interception::TransparentProxy).then_some(true),
        filter_chains,
        default_filter_chain,
        ..outbound(cx, names::VIRTUAL_OUTBOUND, EVERY_ADDRESS, port)
    };
    inspectors::add(&mut message, cx);
    Resource::new(message, Vec::new())
}

/// What all listeners for requests that leave have in common.
fn outbound(cx: &Context<'_>, name: &str, bind: &str, port: u32) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(cx.scope.listen.address(bind, port)),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::compile(cx, Side::Client, Subject::Refused),
        max_connections_to_accept_per_socket_event: Some(1),
        ..Default::default()
    }
}

fn http_chain(
    cx: &Context<'_>,
    listener: &str,
    routes: String,
    protocol: Protocol,
    absolute_urls: bool,
) -> FilterChain {
    let manager = ConnectionManager {
        direction: Direction::Outbound,
        stat_prefix: names::outbound_stat_prefix(listener),
        routes: Routes::Named(routes),
        protocol,
        absolute_urls,
    };
    FilterChain { filters: vec![hcm::compile(cx, manager)], ..Default::default() }
}

/// The chain for connections to unknown destinations.
fn passthrough_chain(cx: &Context<'_>, name: &str) -> FilterChain {
    let cluster = unknown_destination(cx);
    FilterChain { name: name.to_owned(), filters: Bytes::to(&cluster).filters(cx), ..Default::default() }
}

/// Cluster of connections to unknown destinations.
fn unknown_destination(cx: &Context<'_>) -> String {
    match cx.outbound_traffic_policy() {
        OutboundTrafficPolicy::RegistryOnly => names::BLACK_HOLE_CLUSTER.to_owned(),
        OutboundTrafficPolicy::AllowAny | OutboundTrafficPolicy::AllowAnyDynamicDns => match cx.egress_proxy() {
            Some(proxy) => names::egress_proxy_cluster(proxy),
            None => names::PASSTHROUGH_CLUSTER.to_owned(),
        },
    }
}
