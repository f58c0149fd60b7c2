//! What does a sidecar take for its workload? The listener of all redirected inbound connections: chains for each port of
//! the workload, with mutual TLS and without as the policy says, and for ports that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};

use lateen_xds::envoy::config::core::v3::TrafficDirection;
use lateen_xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use lateen_xds::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use lateen_xds::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, route, route_action,
};
use lateen_xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use lateen_xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use lateen_xds::envoy::r#type::v3::Int32Range;
use lateen_xds::{Origin, Part, Resource};

use super::chains::Bytes;
use super::{EVERY_ADDRESS, inspectors};
use crate::access_log::{self, Subject};
use crate::context::Context;
use crate::hcm::{self, ConnectionManager, Direction, Routes};
use crate::inbound::{InboundTarget, inbound_targets};
use crate::istio_proxy;
use crate::message;
use crate::names;
use crate::protocol::Protocol;
use crate::routes;
use crate::scope::{Capability, Interception};
use crate::tls::{self, ChainProtocol};
use crate::world::authentication::PeerMode;
use crate::world::telemetry::Side;

/// Time that a client has for its TLS handshake.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(15);

/// Mark of packets of the proxy itself under transparent interception, as Istio's rules for the network expect it.
const TRANSPARENT_MARK: u32 = 1337;

/// `virtualInbound`, and the listeners of a Sidecar object that are bound.
pub(crate) fn compile(cx: &Context<'_>) -> Vec<Resource<Listener>> {
    let mesh = cx.world.mesh();
    let own_port = u32::from(mesh.inbound_port);
    let no_labels = BTreeMap::new();
    let policy = cx.world.peer_policy(&cx.scope.namespace, cx.scope.labels.as_ref().unwrap_or(&no_labels));
    let targets = inbound_targets(cx);

    let mut made = Made::default();
    made.add(
        FilterChain {
            name: names::INBOUND_BLACK_HOLE_CHAIN.to_owned(),
            filter_chain_match: Some(FilterChainMatch { destination_port: Some(own_port), ..Default::default() }),
            filters: Bytes { is_inbound: true, ..Bytes::to(names::BLACK_HOLE_CLUSTER) }.filters(cx),
            ..Default::default()
        },
        &[],
    );
    let served: BTreeSet<u32> = targets.iter().map(|target| target.port).collect();
    passthrough(cx, &mut made, None, policy.mode);
    for (port, mode) in policy.ports.iter().filter(|(port, _)| !served.contains(port)) {
        passthrough(cx, &mut made, Some(*port), *mode);
    }
    let (bound, redirected): (Vec<_>, Vec<_>) = targets.iter().partition(|target| target.binds_to_port());
    for target in redirected {
        serve(cx, &mut made, target, policy.at(target.port));
    }

    let mut origins = made.origins;
    origins.extend(policy.origin.iter().map(|origin| (Part::Whole, (**origin).clone())));
    let listener_filters = listener_filters(cx, &made.chains);
    let message = Listener {
        listener_filters_timeout: Some(message::duration(mesh.protocol_detection_timeout)),
        continue_on_listener_filters_timeout: true,
        transparent: (cx.scope.interception == Interception::TransparentProxy).then_some(true),
        filter_chains: made.chains,
        listener_filters,
        ..inbound(cx, names::VIRTUAL_INBOUND, EVERY_ADDRESS, own_port)
    };
    let bound = bound.into_iter().map(|target| bound_listener(cx, target, policy.at(target.port)));
    std::iter::once(Resource::new(message, origins)).chain(bound).collect()
}

/// A listener to which clients connect by themselves.
fn bound_listener(cx: &Context<'_>, target: &InboundTarget<'_>, mode: PeerMode) -> Resource<Listener> {
    let mut made = Made::default();
    serve(cx, &mut made, target, mode);
    let bind = address(cx, target);
    let name = names::listener(&bind, target.port);
    let mut message = Listener { filter_chains: made.chains, ..inbound(cx, &name, &bind, target.port) };
    inspectors::add(&mut message, cx);
    made.origins.extend(target.origins.iter().map(|origin| (Part::Whole, (**origin).clone())));
    Resource::new(message, made.origins)
}

/// What all listeners for the workload have in common.
fn inbound(cx: &Context<'_>, name: &str, bind: &str, port: u32) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(cx.scope.listen.address(bind, port)),
        traffic_direction: TrafficDirection::Inbound.into(),
        access_log: access_log::compile(cx, Side::Server, Subject::Refused),
        max_connections_to_accept_per_socket_event: Some(1),
        ..Default::default()
    }
}

/// The address by which a port of the workload is called, and bound if it is.
fn address(cx: &Context<'_>, target: &InboundTarget<'_>) -> String {
    let Some(ingress) = target.ingress else { return EVERY_ADDRESS.to_owned() };
    match ingress.bind.as_deref().filter(|bind| !bind.is_empty()) {
        Some(bind) => bind.to_owned(),
        None => cx.scope.addresses.first().map_or_else(|| EVERY_ADDRESS.to_owned(), ToString::to_string),
    }
}

/// Chains and where they come from.
#[derive(Default)]
struct Made {
    chains: Vec<FilterChain>,
    origins: Vec<(Part, Origin)>,
}

impl Made {
    fn add(&mut self, chain: FilterChain, origins: &[std::sync::Arc<Origin>]) {
        let part = Part::FilterChain(self.chains.len());
        self.origins.extend(origins.iter().map(|origin| (part, (**origin).clone())));
        self.chains.push(chain);
    }
}

/// One way in which connections to a port are taken.
struct Way {
    transport: &'static str,
    protocols: &'static [&'static str],
    /// Mutual TLS of the mesh ends here.
    ends_tls: bool,
    is_http: bool,
}

/// Plain HTTP as it is detected.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

const TLS: &str = "tls";
const RAW: &str = "raw_buffer";

/// What a port speaks, as far as chains go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Http,
    Bytes,
    /// It is found out for each connection.
    Detected,
}

impl Class {
    fn of(protocol: Protocol) -> Class {
        match protocol {
            Protocol::Auto => Class::Detected,
            protocol if protocol.is_http() => Class::Http,
            _ => Class::Bytes,
        }
    }
}

/// The ways in which connections are taken. Envoy chooses a chain by the port first and does not turn back, so each port
/// has all that its policy lets in.
fn ways(class: Class, mode: PeerMode) -> Vec<Way> {
    let way = |transport, protocols, ends_tls, is_http| Way { transport, protocols, ends_tls, is_http };
    match (mode, class) {
        (PeerMode::Permissive, Class::Http) => {
            vec![way(TLS, &tls::MESH_ALPN, true, true), way(RAW, &[], false, true)]
        }
        (PeerMode::Permissive, Class::Bytes) => vec![
            way(TLS, &tls::MESH_ALPN, true, false),
            // TLS of the application itself.
            way(TLS, &[], false, false),
            way(RAW, &[], false, false),
        ],
        (PeerMode::Permissive, Class::Detected) => vec![
            way(TLS, &tls::MESH_HTTP_ALPN, true, true),
            way(RAW, &PLAIN_HTTP, false, true),
            way(TLS, &tls::MESH_TCP_ALPN, true, false),
            way(RAW, &[], false, false),
            way(TLS, &[], false, false),
        ],
        (PeerMode::Strict, Class::Http) => vec![way(TLS, &[], true, true)],
        (PeerMode::Strict, Class::Bytes) => vec![way(TLS, &[], true, false)],
        (PeerMode::Strict, Class::Detected) => {
            vec![way(TLS, &tls::MESH_HTTP_ALPN, true, true), way(TLS, &[], true, false)]
        }
        (PeerMode::Disable, Class::Http) => vec![way(RAW, &[], false, true)],
        (PeerMode::Disable, Class::Bytes) => vec![way(RAW, &[], false, false)],
        (PeerMode::Disable, Class::Detected) => vec![way(RAW, &PLAIN_HTTP, false, true), way(RAW, &[], false, false)],
    }
}

impl Way {
    fn matched(&self, port: Option<u32>) -> FilterChainMatch {
        FilterChainMatch {
            destination_port: port,
            transport_protocol: self.transport.to_owned(),
            application_protocols: self.protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..Default::default()
        }
    }
}

/// Chains for ports that no service has, or for one of them that a policy names.
fn passthrough(cx: &Context<'_>, made: &mut Made, port: Option<u32>, mode: PeerMode) {
    for way in ways(Class::Detected, mode) {
        let filters = if way.is_http {
            let retries = routes::inbound_retries(cx.world.mesh());
            let routes = route_configuration(names::INBOUND_PASSTHROUGH_CLUSTER, 0, ":0/*".to_owned(), retries);
            let prefix = names::stat_name(names::INBOUND_PASSTHROUGH_CLUSTER);
            http_filters(cx, prefix, routes, Protocol::Auto)
        } else {
            byte_filters(cx, names::INBOUND_PASSTHROUGH_CLUSTER, Protocol::Tcp)
        };
        let name = if way.is_http { names::INBOUND_CATCH_ALL_HTTP_CHAIN } else { names::VIRTUAL_INBOUND };
        let chain = FilterChain {
            name: name.to_owned(),
            filter_chain_match: Some(way.matched(port)),
            filters,
            ..Default::default()
        };
        made.add(ended(cx, &way, chain), &[]);
    }
}

/// Chains for a port of the workload.
fn serve(cx: &Context<'_>, made: &mut Made, target: &InboundTarget<'_>, mode: PeerMode) {
    let name = names::listener(&address(cx, target), target.port);
    // Every connection to a bound listener is to its port.
    let port = (!target.binds_to_port()).then_some(target.port);
    // TLS of the Sidecar's own takes the place of the mesh's where the policy turned that off.
    let settings = target.ingress.and_then(|ingress| ingress.tls.as_ref()).filter(|_| mode == PeerMode::Disable);
    let own_tls = settings.and_then(|settings| {
        let protocol = chain_protocol(target.protocol.is_http());
        tls::downstream_gateway(cx.world.mesh(), cx.scope.capability, settings, protocol)
    });
    let ways = match &own_tls {
        Some(_) => vec![Way { transport: TLS, protocols: &[], ends_tls: false, is_http: target.protocol.is_http() }],
        None => ways(Class::of(target.protocol), mode),
    };
    let cluster = names::inbound_cluster(target.port);
    for way in ways {
        let filters = if way.is_http {
            let operation = format!("{}:{}/*", target.host, target.service_port);
            let is_grpc = matches!(target.protocol, Protocol::Grpc | Protocol::GrpcWeb);
            let retries = routes::inbound_retries(cx.world.mesh()).filter(|_| !is_grpc);
            let routes = route_configuration(&cluster, target.service_port, operation, retries);
            let prefix = names::inbound_stat_prefix(&names::listener(EVERY_ADDRESS, target.port));
            http_filters(cx, prefix, routes, target.protocol)
        } else {
            byte_filters(cx, &cluster, target.protocol)
        };
        let mut chain = FilterChain {
            name: name.clone(),
            filter_chain_match: Some(way.matched(port)),
            filters,
            ..Default::default()
        };
        if let Some(context) = &own_tls {
            chain.transport_socket = Some(tls::downstream_socket(context));
            chain.transport_socket_connect_timeout = Some(message::duration(HANDSHAKE));
        }
        made.add(ended(cx, &way, chain), &target.origins);
    }
}

fn chain_protocol(is_http: bool) -> ChainProtocol {
    if is_http { ChainProtocol::Http } else { ChainProtocol::Tcp }
}

/// The chain, with the end of mutual TLS if its way has one.
fn ended(cx: &Context<'_>, way: &Way, chain: FilterChain) -> FilterChain {
    if !way.ends_tls {
        return chain;
    }
    let context = tls::downstream_mesh(cx.world.mesh(), cx.scope.capability, chain_protocol(way.is_http));
    FilterChain {
        transport_socket: Some(tls::downstream_socket(&context)),
        transport_socket_connect_timeout: Some(message::duration(HANDSHAKE)),
        ..chain
    }
}

fn http_filters(
    cx: &Context<'_>,
    stat_prefix: String,
    routes: RouteConfiguration,
    protocol: Protocol,
) -> Vec<lateen_xds::envoy::config::listener::v3::Filter> {
    let manager = ConnectionManager {
        direction: Direction::Inbound,
        stat_prefix,
        routes: Routes::Inline(Box::new(routes)),
        protocol,
        absolute_urls: false,
    };
    let mut filters = Vec::new();
    if cx.scope.capability == Capability::IstioProxy {
        filters.push(istio_proxy::network_metadata_exchange());
    }
    filters.push(hcm::compile(cx, manager));
    filters
}

fn byte_filters(
    cx: &Context<'_>,
    cluster: &str,
    protocol: Protocol,
) -> Vec<lateen_xds::envoy::config::listener::v3::Filter> {
    let bytes = Bytes { protocol, is_inbound: true, ..Bytes::to(cluster) };
    let mut filters = Vec::new();
    if cx.scope.capability == Capability::IstioProxy {
        filters.push(istio_proxy::network_metadata_exchange());
    }
    filters.extend(bytes.filters(cx));
    filters
}

/// All requests go to the workload, again where the proxy may retry them: a gRPC client decides that by itself.
fn route_configuration(
    cluster: &str,
    service_port: u32,
    operation: String,
    retries: Option<RetryPolicy>,
) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(message::duration(std::time::Duration::ZERO)),
        max_stream_duration: Some(route_action::MaxStreamDuration {
            max_stream_duration: Some(message::duration(std::time::Duration::ZERO)),
            grpc_timeout_header_max: Some(message::duration(std::time::Duration::ZERO)),
            ..Default::default()
        }),
        retry_policy: retries,
        ..Default::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: names::inbound_virtual_host(service_port),
            domains: vec!["*".to_owned()],
            routes: vec![Route {
                name: names::DEFAULT_ROUTE.to_owned(),
                r#match: Some(routes::every_path()),
                action: Some(route::Action::Route(action)),
                decorator: Some(Decorator { operation, ..Default::default() }),
                ..Default::default()
            }],
            ..Default::default()
        }],
        validate_clusters: Some(false),
        ..Default::default()
    }
}

/// What is looked at before a chain is chosen. Protocols in which the server speaks first would wait for ever for bytes
/// of the client, so ports whose chains do not depend on them are left alone.
fn listener_filters(cx: &Context<'_>, chains: &[FilterChain]) -> Vec<ListenerFilter> {
    // By port, 0 for those that nobody asked for: (TLS is looked for, HTTP is looked for).
    let mut needs: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for chain in chains {
        let port = chain.filter_chain_match.as_ref().and_then(|matched| matched.destination_port).unwrap_or(0);
        let need = needs.entry(port).or_default();
        need.0 |= inspectors::needs_tls(chain);
        need.1 |= inspectors::needs_http(chain);
    }
    let (other_tls, other_http) = needs.get(&0).copied().unwrap_or_default();
    let ports = |wanted: &dyn Fn((bool, bool)) -> bool| -> Vec<u32> {
        needs.iter().filter(|(port, need)| **port != 0 && wanted(**need)).map(|(port, _)| *port).collect()
    };
    let inspector = |filter: ListenerFilter, other: bool, with: Vec<u32>, without: Vec<u32>| {
        if !other && with.is_empty() {
            return None;
        }
        let disabled = if other { any_of(&without) } else { any_of(&with).map(not) };
        Some(ListenerFilter { filter_disabled: disabled, ..filter })
    };
    let mut filters = vec![inspectors::filter("envoy.filters.listener.original_dst", &OriginalDst {})];
    if cx.scope.interception == Interception::TransparentProxy {
        let source = OriginalSrc { mark: TRANSPARENT_MARK, ..Default::default() };
        filters.push(inspectors::filter("envoy.filters.listener.original_src", &source));
    }
    let (with_tls, without_tls) = (ports(&|need| need.0), ports(&|need| !need.0));
    filters.extend(inspector(inspectors::tls_inspector(), other_tls, with_tls, without_tls));
    let (with_http, without_http) = (ports(&|need| need.1), ports(&|need| !need.1));
    filters.extend(inspector(inspectors::http_inspector(), other_http, with_http, without_http));
    filters
}

/// Connections to one of some ports; `None` for no port.
fn any_of(ports: &[u32]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u32| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: i32::try_from(*port).unwrap_or(0),
            end: i32::try_from(*port + 1).unwrap_or(0),
        })),
    };
    match ports {
        [] => None,
        [only] => Some(one(only)),
        several => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: several.iter().map(one).collect() })),
        }),
    }
}

fn not(predicate: ListenerFilterChainMatchPredicate) -> ListenerFilterChainMatchPredicate {
    ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(predicate))) }
}
