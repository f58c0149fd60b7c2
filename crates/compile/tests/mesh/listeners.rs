//! What do the listeners of a proxy take, and where does each connection go? Filter chains as short lines.

use lateen_compile::{Interception, Scope, compile};
use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener, filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use lateen_xds::{XdsSet, any};
use prost_types::Any;

use super::{short, sidecar_scope, world};

/// The scope of a sidecar in `default` to which connections are redirected; its workload has the address 10.0.0.1.
pub(crate) fn redirected_scope(labels: &[(&str, &str)]) -> Scope {
    Scope {
        interception: Interception::Redirect,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ..sidecar_scope("default", labels)
    }
}

/// What such a sidecar gets.
pub(crate) fn redirected(yaml: &str) -> XdsSet {
    compile(&world(yaml), &redirected_scope(&[]))
}

/// Names of all listeners, in order.
pub(crate) fn listeners(set: &XdsSet) -> Vec<&str> {
    set.listeners.keys().map(|name| &**name).collect()
}

/// Names of the listeners that service ports ask for.
pub(crate) fn port_listeners(set: &XdsSet) -> Vec<&str> {
    listeners(set).into_iter().filter(|name| !name.starts_with("virtual")).collect()
}

/// A listener by name.
pub(crate) fn listener<'a>(set: &'a XdsSet, name: &str) -> &'a Listener {
    let known = listeners(set);
    &set.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} among {known:?}")).message
}

/// The chains of a listener as lines `match -> way`; the default chain comes last and begins with `else`.
pub(crate) fn chains(set: &XdsSet, name: &str) -> Vec<String> {
    let listener = listener(set, name);
    let default = listener.default_filter_chain.iter().map(|chain| format!("else -> {}", way(chain)));
    let others = listener.filter_chains.iter();
    others.map(|chain| format!("{} -> {}", matched(chain), way(chain))).chain(default).collect()
}

/// The names of its listener filters, in order, without what they have in common.
pub(crate) fn listener_filters(set: &XdsSet, name: &str) -> Vec<String> {
    let filters = listener(set, name).listener_filters.iter();
    filters.map(|filter| filter.name.replace("envoy.filters.listener.", "")).collect()
}

/// The connections that a chain takes: `*` for all.
pub(crate) fn matched(chain: &FilterChain) -> String {
    let empty = FilterChainMatch::default();
    let matched = chain.filter_chain_match.as_ref().unwrap_or(&empty);
    let mut parts: Vec<String> = Vec::new();
    parts.extend(matched.destination_port.map(|port| format!(":{port}")));
    let range = |range: &lateen_xds::envoy::config::core::v3::CidrRange| {
        format!("{}/{}", range.address_prefix, range.prefix_len.unwrap())
    };
    parts.extend(matched.prefix_ranges.iter().map(range));
    parts.extend(matched.server_names.iter().map(|name| format!("sni={name}")));
    match matched.transport_protocol.as_str() {
        "" => {}
        "raw_buffer" => parts.push("raw".to_owned()),
        other => parts.push(other.to_owned()),
    }
    if !matched.application_protocols.is_empty() {
        parts.push(format!("alpn={}", matched.application_protocols.join(",")));
    }
    if parts.is_empty() { "*".to_owned() } else { parts.join(" ") }
}

/// Where a chain leads: `routes <name>`, or clusters, with what stands in front.
pub(crate) fn way(chain: &FilterChain) -> String {
    let mut text = String::new();
    if chain.transport_socket.is_some() {
        text.push_str("ends TLS, ");
    }
    for filter in &chain.filters {
        if filter.name == "envoy.filters.network.mongo_proxy" {
            text.push_str("mongo, ");
        }
    }
    if let Some(manager) = connection_manager(chain) {
        match manager.route_specifier.unwrap() {
            RouteSpecifier::Rds(rds) => text.push_str(&format!("routes {}", rds.route_config_name)),
            RouteSpecifier::RouteConfig(routes) => text.push_str(&format!("own routes {}", routes.name)),
            other => panic!("unexpected routes {other:?}"),
        }
        return text;
    }
    match tcp_proxy(chain).cluster_specifier.unwrap() {
        tcp_proxy::ClusterSpecifier::Cluster(name) => text.push_str(&short(&name)),
        tcp_proxy::ClusterSpecifier::WeightedClusters(clusters) => {
            let parts: Vec<String> = clusters
                .clusters
                .iter()
                .map(|cluster| format!("{}={}", short(&cluster.name), cluster.weight))
                .collect();
            text.push_str(&parts.join(" "));
        }
    }
    text
}

/// The connection manager of a chain, if it has one.
pub(crate) fn connection_manager(chain: &FilterChain) -> Option<HttpConnectionManager> {
    Some(any::unpack(config(chain, "envoy.filters.network.http_connection_manager")?).unwrap())
}

/// The TCP proxy of a chain.
pub(crate) fn tcp_proxy(chain: &FilterChain) -> TcpProxy {
    any::unpack(config(chain, "envoy.filters.network.tcp_proxy").expect("a TCP proxy")).unwrap()
}

fn config<'a>(chain: &'a FilterChain, name: &str) -> Option<&'a Any> {
    let filter = chain.filters.iter().find(|filter| filter.name == name)?;
    match filter.config_type.as_ref()? {
        filter::ConfigType::TypedConfig(config) => Some(config),
        other => panic!("unexpected configuration {other:?}"),
    }
}
