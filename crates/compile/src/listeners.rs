//! Where are connections accepted, and what happens to them? Listeners of gateways and sidecars.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3::TrafficDirection;
use lateen_xds::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use lateen_xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use lateen_xds::{Origin, Part, Resource};

use crate::access_log;
use crate::context::Context;
use crate::gateway_ports;
use crate::hcm::{self, ConnectionManager};
use crate::mesh::OutboundTrafficPolicy;
use crate::message;
use crate::names;
use crate::scope::{Interception, Listen, PortMapping, Role};

/// Address of listeners that nothing binds elsewhere.
const EVERY_ADDRESS: &str = "0.0.0.0";

/// Address of listeners that clients on the same host address.
const LOOPBACK: &str = "127.0.0.1";

/// Bytes that a gateway's connection buffers before it stops reading.
const GATEWAY_BUFFER: u32 = 32 * 1024;

/// The listeners of a proxy by name.
pub(crate) fn compile(cx: &Context<'_>) -> BTreeMap<Arc<str>, Resource<Listener>> {
    let listeners = match (cx.scope.role, cx.scope.interception) {
        (Role::Gateway, _) => gateway(cx),
        (Role::Sidecar, Interception::None) => addressed(cx),
        (Role::Sidecar, _) => redirected(cx),
    };
    listeners.into_iter().map(|listener| (listener.message.name.as_str().into(), listener)).collect()
}

/// One listener for each port on which Gateways serve plain HTTP.
fn gateway(cx: &Context<'_>) -> Vec<Resource<Listener>> {
    let mut listeners = Vec::new();
    for port in gateway_ports::merge(cx) {
        let bind = port.bind.as_deref().unwrap_or(EVERY_ADDRESS);
        let name = names::listener(bind, port.port);
        let routes = names::gateway_http_routes(port.port, port.bind.as_deref());
        let chain = http_chain(cx, &name, routes, false);
        let message = Listener {
            filter_chains: vec![chain],
            per_connection_buffer_limit_bytes: Some(GATEWAY_BUFFER),
            ..outbound(cx, &name, bind, port.port)
        };
        let origins = port.servers.iter().map(|(_, server)| (Part::Whole, (*server.origin).clone())).collect();
        listeners.push(Resource::new(message, origins));
    }
    listeners
}

/// Sidecar whose clients address it: every HTTP service port is bound on loopback, and the HTTP proxy port.
fn addressed(cx: &Context<'_>) -> Vec<Resource<Listener>> {
    let mut listeners: Vec<Resource<Listener>> = cx
        .http_ports()
        .iter()
        .map(|port| {
            let name = names::listener(LOOPBACK, *port);
            let message = Listener {
                filter_chains: vec![http_chain(cx, &name, names::sidecar_routes(*port), false)],
                ..outbound(cx, &name, LOOPBACK, *port)
            };
            Resource::new(message, origins_of_port(cx, *port))
        })
        .collect();
    listeners.extend(http_proxy(cx));
    listeners
}

/// Sidecar whose connections are redirected to it: `virtualOutbound` takes them all and hands each to the listener
/// of its original destination, which does not bind.
fn redirected(cx: &Context<'_>) -> Vec<Resource<Listener>> {
    let mut listeners: Vec<Resource<Listener>> = cx
        .http_ports()
        .iter()
        .map(|port| {
            let name = names::listener(EVERY_ADDRESS, *port);
            let mut chain = http_chain(cx, &name, names::sidecar_routes(*port), false);
            chain.filter_chain_match = Some(FilterChainMatch {
                transport_protocol: "raw_buffer".to_owned(),
                application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
                ..Default::default()
            });
            let message = Listener {
                filter_chains: vec![chain],
                default_filter_chain: Some(passthrough_chain(cx, names::PASSTHROUGH_FILTER_CHAIN)),
                listener_filters: vec![http_inspector()],
                listener_filters_timeout: Some(message::duration(cx.world.mesh().protocol_detection_timeout)),
                continue_on_listener_filters_timeout: true,
                bind_to_port: Some(false),
                ..outbound(cx, &name, EVERY_ADDRESS, *port)
            };
            Resource::new(message, origins_of_port(cx, *port))
        })
        .collect();
    listeners.extend(http_proxy(cx));
    listeners.push(virtual_outbound(cx));
    listeners
}

/// Accepts what `HTTP_PROXY` clients send: absolute URLs, routed by host and port.
fn http_proxy(cx: &Context<'_>) -> Option<Resource<Listener>> {
    let port = u32::from(cx.scope.http_proxy_port?);
    let name = names::listener(LOOPBACK, port);
    let mut message = Listener {
        filter_chains: vec![http_chain(cx, &name, names::HTTP_PROXY_ROUTES.to_owned(), true)],
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
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch { destination_port: Some(port), ..Default::default() }),
        filters: vec![tcp_filter(cx, names::BLACK_HOLE_CLUSTER)],
        ..Default::default()
    };
    let message = Listener {
        use_original_dst: Some(true),
        filter_chains: vec![blackhole, passthrough_chain(cx, "virtualOutbound-catchall-tcp")],
        ..outbound(cx, names::VIRTUAL_OUTBOUND, EVERY_ADDRESS, port)
    };
    Resource::new(message, Vec::new())
}

/// What all listeners for requests that leave have in common.
fn outbound(cx: &Context<'_>, name: &str, bind: &str, port: u32) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(cx.scope.listen.address(bind, port)),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::refused_connections(cx.world.mesh()),
        max_connections_to_accept_per_socket_event: Some(1),
        ..Default::default()
    }
}

fn http_chain(cx: &Context<'_>, listener: &str, routes: String, absolute_urls: bool) -> FilterChain {
    FilterChain {
        filters: vec![hcm::compile(ConnectionManager {
            role: cx.scope.role,
            stat_prefix: names::outbound_stat_prefix(listener),
            routes,
            absolute_urls,
            mesh: cx.world.mesh(),
        })],
        ..Default::default()
    }
}

fn passthrough_chain(cx: &Context<'_>, name: &str) -> FilterChain {
    let cluster = match cx.world.mesh().outbound_traffic_policy {
        OutboundTrafficPolicy::AllowAny | OutboundTrafficPolicy::AllowAnyDynamicDns => names::PASSTHROUGH_CLUSTER,
        OutboundTrafficPolicy::RegistryOnly => names::BLACK_HOLE_CLUSTER,
    };
    FilterChain { name: name.to_owned(), filters: vec![tcp_filter(cx, cluster)], ..Default::default() }
}

fn tcp_filter(cx: &Context<'_>, cluster: &str) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        access_log: access_log::requests(cx.world.mesh()),
        ..Default::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(message::typed(&proxy))),
    }
}

fn http_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.http_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(message::typed(&HttpInspector::default()))),
        ..Default::default()
    }
}

/// The services that made the listener of a port, oldest first.
fn origins_of_port(cx: &Context<'_>, port: u32) -> Vec<(Part, Origin)> {
    let mut services: Vec<_> = cx
        .services()
        .filter(|service| service.port(port).is_some_and(|port| port.protocol.is_routed_as_http()))
        .collect();
    services.sort_by_key(|service| service.age());
    services.into_iter().map(|service| (Part::Whole, (*service.origin).clone())).collect()
}
