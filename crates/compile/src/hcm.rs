//! How does a listener speak HTTP? The connection manager of gateways and sidecars, and its HTTP filters in
//! Istio's order.

use std::time::Duration;

use lateen_xds::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions};
use lateen_xds::envoy::config::listener::v3::{Filter, filter};
use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::envoy::extensions::filters::http::cors::v3::Cors;
use lateen_xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use lateen_xds::envoy::extensions::filters::http::grpc_stats::v3::{FilterConfig as GrpcStats, filter_config};
use lateen_xds::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use prost::Name;

use crate::access_log;
use crate::context::Context;
use crate::istio_proxy;
use crate::mesh::PathNormalization;
use crate::message;
use crate::protocol::Protocol;
use crate::scope::Capability;

/// Name of the connection manager among a chain's network filters.
pub(crate) const FILTER: &str = "envoy.filters.network.http_connection_manager";

/// Name of the fault filter, and of its per-route configuration.
pub(crate) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// Name of the CORS filter, and of its per-route configuration.
pub(crate) const CORS_FILTER: &str = "envoy.filters.http.cors";

/// What differs between one connection manager and another.
pub(crate) struct ConnectionManager {
    pub(crate) direction: Direction,
    pub(crate) stat_prefix: String,
    pub(crate) routes: Routes,
    /// Protocol of the port.
    pub(crate) protocol: Protocol,
    /// Requests may name an absolute URL, as clients of an HTTP proxy do.
    pub(crate) absolute_urls: bool,
}

/// Whose requests a connection manager takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Those that the workload of a sidecar sends.
    Outbound,
    /// Those that are sent to it.
    Inbound,
    /// Those that come to a gateway.
    Gateway,
}

/// Where its routes are.
pub(crate) enum Routes {
    /// In the route configuration with this name.
    Named(String),
    /// Here.
    Inline(Box<RouteConfiguration>),
}

/// The connection manager as a network filter.
pub(crate) fn compile(cx: &Context<'_>, parts: ConnectionManager) -> Filter {
    Filter {
        name: FILTER.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(message::typed(&connection_manager(cx, parts)))),
    }
}

fn connection_manager(cx: &Context<'_>, parts: ConnectionManager) -> HttpConnectionManager {
    let mesh = cx.world.mesh();
    let (gateway, inbound) = (parts.direction == Direction::Gateway, parts.direction == Direction::Inbound);
    HttpConnectionManager {
        stat_prefix: parts.stat_prefix,
        route_specifier: Some(match parts.routes {
            Routes::Named(name) => http_connection_manager::RouteSpecifier::Rds(Rds {
                config_source: Some(message::ads()),
                route_config_name: name,
            }),
            Routes::Inline(routes) => http_connection_manager::RouteSpecifier::RouteConfig(*routes),
        }),
        http_filters: filters(cx, parts.direction, parts.protocol),
        access_log: access_log::requests(mesh),
        // Envoy trusts the peer's address at the edge alone; inside the mesh the caller's headers tell it.
        use_remote_address: Some(gateway),
        xff_num_trusted_hops: if gateway { mesh.trusted_proxies } else { 0 },
        forward_client_cert_details: match parts.direction {
            Direction::Gateway => http_connection_manager::ForwardClientCertDetails::SanitizeSet,
            Direction::Inbound => http_connection_manager::ForwardClientCertDetails::AppendForward,
            Direction::Outbound => http_connection_manager::ForwardClientCertDetails::Sanitize,
        }
        .into(),
        set_current_client_cert_details: (gateway || inbound).then(|| {
            http_connection_manager::SetCurrentClientCertDetails {
                subject: Some(true),
                cert: gateway,
                dns: true,
                uri: true,
                ..Default::default()
            }
        }),
        server_name: if gateway || inbound { "istio-envoy".to_owned() } else { String::new() },
        upgrade_configs: vec![http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        // Long-lived streams (server-sent events, WebSocket, gRPC) must not be cut: route timeouts decide.
        stream_idle_timeout: Some(message::duration(Duration::ZERO)),
        proxy_100_continue: true,
        normalize_path: Some(mesh.path_normalization != PathNormalization::None),
        merge_slashes: matches!(
            mesh.path_normalization,
            PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
        ),
        path_with_escaped_slashes_action: match mesh.path_normalization {
            PathNormalization::DecodeAndMergeSlashes => {
                http_connection_manager::PathWithEscapedSlashesAction::UnescapeAndForward.into()
            }
            _ => http_connection_manager::PathWithEscapedSlashesAction::KeepUnchanged.into(),
        },
        http_protocol_options: parts
            .absolute_urls
            .then(|| Http1ProtocolOptions { allow_absolute_url: Some(true), ..Default::default() }),
        http2_protocol_options: (inbound && parts.protocol.is_http2()).then(Http2ProtocolOptions::default),
        ..Default::default()
    }
}

/// Fault and CORS stand in every chain without configuration: a route's own configuration of a filter is
/// refused when the chain lacks the filter. Filters of Istio's build of Envoy stand where only it is served.
fn filters(cx: &Context<'_>, direction: Direction, protocol: Protocol) -> Vec<HttpFilter> {
    let istio = cx.scope.capability == Capability::IstioProxy;
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(filter_config::PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    let mut filters = Vec::new();
    if istio {
        filters.push(istio_proxy::metadata_exchange(direction));
    }
    if protocol == Protocol::GrpcWeb {
        filters.push(http_filter("envoy.filters.http.grpc_web", &GrpcWeb::default()));
    }
    filters.push(http_filter("envoy.filters.http.grpc_stats", &grpc_stats));
    if istio && direction != Direction::Inbound {
        filters.push(istio_proxy::alpn());
    }
    filters.push(http_filter(FAULT_FILTER, &HttpFault::default()));
    filters.push(http_filter(CORS_FILTER, &Cors::default()));
    if istio {
        filters.push(istio_proxy::stats());
    }
    filters.push(http_filter("envoy.filters.http.router", &Router::default()));
    filters
}

/// A filter of a connection manager.
pub(crate) fn http_filter<M: Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(message::typed(config))),
        ..Default::default()
    }
}
