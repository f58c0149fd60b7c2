//! What is there only in Istio's own build of Envoy? Its filters, which any other Envoy refuses with the whole resource
//! that they are in. They are emitted for [`Capability::IstioProxy`](crate::Capability::IstioProxy) alone.
//!
//! Their messages are not part of Envoy's API, so they are written as typed structures, which name the message and hold
//! its content as JSON.

use lateen_xds::envoy::config::listener::v3::{Filter, filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use lateen_xds::udpa::r#type::v1::TypedStruct;
use prost_types::{Any, Struct};

use crate::hcm::Direction;
use crate::message;

/// Exchanges labels of the two workloads with the peer's proxy, in headers of HTTP requests.
pub(crate) fn metadata_exchange(direction: Direction) -> HttpFilter {
    // Who calls is told by the request to the side that receives it, and the other way round.
    let exchange = || {
        message::list(vec![message::structure(message::object([(
            "istio_headers",
            message::structure(Struct::default()),
        )]))])
    };
    let fields = match direction {
        Direction::Inbound => [("downstream_discovery", exchange()), ("downstream_propagation", exchange())],
        Direction::Outbound | Direction::Gateway => {
            [("upstream_discovery", exchange()), ("upstream_propagation", exchange())]
        }
    };
    http("istio.metadata_exchange", typed("io.istio.http.peer_metadata.Config", message::object(fields)))
}

/// Names the HTTP version of each request in the protocols that are offered to mesh workloads.
pub(crate) fn alpn() -> HttpFilter {
    let rule = |upstream: &str, offered: [&str; 3]| {
        message::structure(message::object([
            ("upstreamProtocol", message::text(upstream)),
            ("alpnOverride", message::list(offered.map(message::text).to_vec())),
        ]))
    };
    let rules = message::list(vec![
        rule("HTTP10", ["istio-http/1.0", "istio", "http/1.0"]),
        rule("HTTP11", ["istio-http/1.1", "istio", "http/1.1"]),
        rule("HTTP2", ["istio-h2", "istio", "h2"]),
    ]);
    http(
        "istio.alpn",
        typed("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", message::object([("alpnOverride", rules)])),
    )
}

/// Counts requests in Istio's standard metrics.
pub(crate) fn stats() -> HttpFilter {
    http("istio.stats", typed("stats.PluginConfig", Struct::default()))
}

/// Name of the filter of chains and clusters that exchanges labels on connections.
pub(crate) const NETWORK_METADATA_EXCHANGE: &str = "istio.metadata_exchange";

/// Exchanges labels of the two workloads at the beginning of a connection.
pub(crate) fn network_metadata_exchange() -> Filter {
    network(NETWORK_METADATA_EXCHANGE, metadata_exchange_config(false))
}

/// Counts connections in Istio's standard metrics.
pub(crate) fn network_stats() -> Filter {
    network("istio.stats", typed("stats.PluginConfig", Struct::default()))
}

/// Configuration of the filter that exchanges labels on connections. `discovers` looks for the peer's workload where the
/// peer does not tell it: on the client's side.
pub(crate) fn metadata_exchange_config(discovers: bool) -> Any {
    let mut fields = vec![("protocol", message::text("istio-peer-exchange"))];
    if discovers {
        fields.push(("enable_discovery", message::boolean(true)));
    }
    typed("envoy.tcp.metadataexchange.config.MetadataExchange", message::object(fields))
}

fn typed(message_name: &str, value: Struct) -> Any {
    message::typed(&TypedStruct { type_url: format!("type.googleapis.com/{message_name}"), value: Some(value) })
}

fn http(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn network(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}
