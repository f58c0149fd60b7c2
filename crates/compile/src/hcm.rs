//! How does a listener speak HTTP? The connection manager of gateways and sidecars, and its HTTP filters in
//! Istio's order.

use std::time::Duration;

use lateen_config::{EnabledHeader, ForwardClientCertDetails, ProxyHeader};
use lateen_xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, TypedExtensionConfig, http1_protocol_options,
};
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
use lateen_xds::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use prost::Name;

use crate::access_log::{self, Subject};
use crate::context::Context;
use crate::istio_proxy;
use crate::mesh::{Mesh, PathNormalization};
use crate::message;
use crate::protocol::Protocol;
use crate::scope::{Capability, Role};
use crate::tracing;
use crate::world::telemetry::Side;

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

impl Direction {
    /// The direction in which connections come that are not for the workload itself.
    pub(crate) fn outward(cx: &Context<'_>) -> Direction {
        match cx.scope.role {
            Role::Gateway => Direction::Gateway,
            Role::Sidecar => Direction::Outbound,
        }
    }

    /// The side that the workload is on.
    pub(crate) fn side(self) -> Side {
        match self {
            Direction::Inbound => Side::Server,
            Direction::Outbound | Direction::Gateway => Side::Client,
        }
    }
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
    let headers = &mesh.proxy_headers;
    let side = parts.direction.side();
    let (gateway, inbound) = (parts.direction == Direction::Gateway, parts.direction == Direction::Inbound);
    let keeps_server = headers.server.as_ref().is_some_and(|server| server.disabled == Some(true));
    let has_no_request_id = is_disabled(headers.request_id.as_ref());
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
        access_log: access_log::compile(cx, side, Subject::Requests),
        tracing: tracing::compile(cx, side),
        request_id_extension: tracing::request_id(cx, side),
        // Envoy makes one unless it is told not to.
        generate_request_id: has_no_request_id.then_some(false),
        // Envoy trusts the peer's address at the edge alone; inside the mesh the caller's headers tell it.
        use_remote_address: Some(gateway),
        xff_num_trusted_hops: if gateway { mesh.gateway_topology.num_trusted_proxies } else { 0 },
        append_x_forwarded_port: is_enabled(headers.x_forwarded_port.as_ref()),
        forward_client_cert_details: forward_client_cert(mesh, parts.direction).into(),
        set_current_client_cert_details: client_cert_details(mesh, parts.direction),
        server_name: if keeps_server { String::new() } else { server_name(mesh, parts.direction) },
        server_header_transformation: if keeps_server {
            http_connection_manager::ServerHeaderTransformation::PassThrough.into()
        } else {
            http_connection_manager::ServerHeaderTransformation::Overwrite.into()
        },
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
        http_protocol_options: (parts.absolute_urls || preserves_case(mesh)).then(|| Http1ProtocolOptions {
            allow_absolute_url: parts.absolute_urls.then_some(true),
            header_key_format: preserves_case(mesh).then(preserve_case),
            ..Default::default()
        }),
        http2_protocol_options: (inbound && parts.protocol.is_http2()).then(Http2ProtocolOptions::default),
        ..Default::default()
    }
}

/// What the header `server` says to clients; empty is Envoy's own name.
fn server_name(mesh: &Mesh, direction: Direction) -> String {
    match mesh.proxy_headers.server.as_ref().map(|server| server.value.as_str()) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ if direction == Direction::Outbound => String::new(),
        _ => "istio-envoy".to_owned(),
    }
}

/// What happens to `x-forwarded-client-cert`. Gateways go by what stands in front of them.
fn forward_client_cert(mesh: &Mesh, direction: Direction) -> http_connection_manager::ForwardClientCertDetails {
    use http_connection_manager::ForwardClientCertDetails as Details;
    let (asked, default) = match direction {
        Direction::Gateway => (mesh.gateway_topology.forward_client_cert_details, Details::SanitizeSet),
        Direction::Inbound => (mesh.proxy_headers.forwarded_client_cert, Details::AppendForward),
        Direction::Outbound => return Details::Sanitize,
    };
    match asked {
        ForwardClientCertDetails::Undefined => default,
        ForwardClientCertDetails::Sanitize => Details::Sanitize,
        ForwardClientCertDetails::ForwardOnly => Details::ForwardOnly,
        ForwardClientCertDetails::AppendForward => Details::AppendForward,
        ForwardClientCertDetails::SanitizeSet => Details::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => Details::AlwaysForwardOnly,
    }
}

/// What of a client's certificate is told in that header.
fn client_cert_details(
    mesh: &Mesh,
    direction: Direction,
) -> Option<http_connection_manager::SetCurrentClientCertDetails> {
    let default = |cert| http_connection_manager::SetCurrentClientCertDetails {
        subject: Some(true),
        cert,
        dns: true,
        uri: true,
        ..Default::default()
    };
    match (direction, &mesh.proxy_headers.set_current_client_cert_details) {
        (Direction::Outbound, _) => None,
        (Direction::Gateway, _) => Some(default(true)),
        (Direction::Inbound, None) => Some(default(false)),
        (Direction::Inbound, Some(asked)) => Some(http_connection_manager::SetCurrentClientCertDetails {
            subject: Some(asked.subject.unwrap_or(true)),
            cert: asked.cert.unwrap_or(false),
            chain: asked.chain.unwrap_or(false),
            dns: asked.dns.unwrap_or(true),
            uri: asked.uri.unwrap_or(true),
            ..Default::default()
        }),
    }
}

/// True for a header that is turned off.
pub(crate) fn is_disabled(header: Option<&ProxyHeader>) -> bool {
    header.is_some_and(|header| header.disabled == Some(true))
}

/// True for a header that is turned on.
pub(crate) fn is_enabled(header: Option<&EnabledHeader>) -> bool {
    header.is_some_and(|header| header.enabled == Some(true))
}

/// True when header names of HTTP/1.1 are passed on as they are written.
fn preserves_case(mesh: &Mesh) -> bool {
    mesh.proxy_headers.preserve_http1_header_case == Some(true)
}

fn preserve_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::HeaderFormat;
    http1_protocol_options::HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".to_owned(),
            typed_config: Some(message::typed(&PreserveCaseFormatterConfig::default())),
        })),
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
        filters.push(istio_proxy::metadata_exchange(cx.world.mesh(), direction));
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
        filters.extend(istio_proxy::stats(cx, direction));
    }
    let router = Router {
        suppress_envoy_headers: is_disabled(cx.world.mesh().proxy_headers.envoy_debug_headers.as_ref()),
        ..Default::default()
    };
    filters.push(http_filter("envoy.filters.http.router", &router));
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
