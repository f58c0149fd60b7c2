//! What is there only in Istio's own build of Envoy? Its filters, which any other Envoy refuses with the whole resource
//! that they are in. They are emitted for [`Capability::IstioProxy`](crate::Capability::IstioProxy) alone.
//!
//! Their messages are not part of Envoy's API, so they are written as typed structures, which name the message and hold
//! its content as JSON.

use lateen_config::MetadataExchangeMode;
use lateen_xds::envoy::config::listener::v3::{Filter, filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use lateen_xds::udpa::r#type::v1::TypedStruct;
use prost_types::{Any, Struct, Value};

use crate::context::Context;
use crate::hcm::Direction;
use crate::mesh::Mesh;
use crate::message;
use crate::world::telemetry::{self, MetricOverride, Metrics};

/// Exchanges labels of the two workloads with the peer's proxy, in headers of HTTP requests; a peer that does not tell
/// its own is looked up by its address.
pub(crate) fn metadata_exchange(mesh: &Mesh, direction: Direction) -> HttpFilter {
    let is_kept_in_mesh = mesh
        .proxy_headers
        .metadata_exchange_headers
        .as_ref()
        .is_some_and(|headers| headers.mode == MetadataExchangeMode::InMesh);
    let method = |name, fields: Struct| message::structure(message::object([(name, message::structure(fields))]));
    let discovery = || {
        message::list(vec![method("istio_headers", Struct::default()), method("workload_discovery", Struct::default())])
    };
    let propagation = |fields| message::list(vec![method("istio_headers", fields)]);
    // Who calls is told by the request to the side that receives it, and the other way round.
    let fields = match direction {
        Direction::Inbound => {
            [("downstream_discovery", discovery()), ("downstream_propagation", propagation(Struct::default()))]
        }
        Direction::Outbound | Direction::Gateway => {
            let skip = is_kept_in_mesh.then_some(("skip_external_clusters", message::boolean(true)));
            [("upstream_discovery", discovery()), ("upstream_propagation", propagation(message::object(skip)))]
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

/// Count requests in Istio's metrics: one filter for each provider of metrics.
pub(crate) fn stats(cx: &Context<'_>, direction: Direction) -> Vec<HttpFilter> {
    stats_configs(cx, direction).into_iter().map(|config| http("istio.stats", config)).collect()
}

/// Name of the filter of chains and clusters that exchanges labels on connections.
pub(crate) const NETWORK_METADATA_EXCHANGE: &str = "istio.metadata_exchange";

/// Exchanges labels of the two workloads at the beginning of a connection.
pub(crate) fn network_metadata_exchange() -> Filter {
    network(NETWORK_METADATA_EXCHANGE, metadata_exchange_config(false))
}

/// Count connections in Istio's metrics: one filter for each provider of metrics.
pub(crate) fn network_stats(cx: &Context<'_>, direction: Direction) -> Vec<Filter> {
    stats_configs(cx, direction).into_iter().map(|config| network("istio.stats", config)).collect()
}

fn stats_configs(cx: &Context<'_>, direction: Direction) -> Vec<Any> {
    let metrics = cx.world.telemetry(cx.scope).metrics(direction.side());
    metrics.iter().map(|metrics| typed("stats.PluginConfig", stats_config(metrics, direction))).collect()
}

fn stats_config(metrics: &Metrics<'_>, direction: Direction) -> Struct {
    let mut fields = Vec::new();
    // Hosts that clients of all kinds make up would be counted apart for ever.
    if direction != Direction::Outbound {
        fields.push(("disable_host_header_fallback", message::boolean(true)));
    }
    if let Some(interval) = metrics.reporting_interval {
        fields.push(("tcp_reporting_duration", message::text(format!("{}s", interval.as_secs_f64()))));
    }
    if !metrics.overrides.is_empty() {
        let overrides = metrics.overrides.iter().map(|(name, change)| metric(name, change));
        fields.push(("metrics", message::list(overrides.collect())));
    }
    message::object(fields)
}

fn metric(name: &str, change: &MetricOverride<'_>) -> Value {
    let mut fields = vec![("name", message::text(telemetry::prometheus_name(name)))];
    if change.is_disabled {
        fields.push(("drop", message::boolean(true)));
    }
    let set = change.tags.iter().filter_map(|(tag, value)| Some(((*tag).to_owned(), message::text((*value)?))));
    let dimensions = Struct { fields: set.collect() };
    if !dimensions.fields.is_empty() {
        fields.push(("dimensions", message::structure(dimensions)));
    }
    let removed: Vec<Value> =
        change.tags.iter().filter(|(_, value)| value.is_none()).map(|(tag, _)| message::text(*tag)).collect();
    if !removed.is_empty() {
        fields.push(("tags_to_remove", message::list(removed)));
    }
    message::structure(message::object(fields))
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
