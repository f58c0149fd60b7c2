//! How does a listener speak HTTP? The connection manager of gateways and sidecars, and its HTTP filters in
//! Istio's order.

use std::time::Duration;

use lateen_xds::envoy::config::core::v3::Http1ProtocolOptions;
use lateen_xds::envoy::config::listener::v3::{Filter, filter};
use lateen_xds::envoy::extensions::filters::http::cors::v3::Cors;
use lateen_xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use lateen_xds::envoy::extensions::filters::http::grpc_stats::v3::{FilterConfig as GrpcStats, filter_config};
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use prost::Name;

use crate::access_log;
use crate::mesh::{Mesh, PathNormalization};
use crate::message;
use crate::scope::Role;

/// Name of the connection manager among a chain's network filters.
pub(crate) const FILTER: &str = "envoy.filters.network.http_connection_manager";

/// Name of the fault filter, and of its per-route configuration.
pub(crate) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// Name of the CORS filter, and of its per-route configuration.
pub(crate) const CORS_FILTER: &str = "envoy.filters.http.cors";

/// What differs between one connection manager and another.
pub(crate) struct ConnectionManager<'a> {
    pub(crate) role: Role,
    pub(crate) stat_prefix: String,
    /// Name of the route configuration.
    pub(crate) routes: String,
    /// Requests may name an absolute URL, as clients of an HTTP proxy do.
    pub(crate) absolute_urls: bool,
    pub(crate) mesh: &'a Mesh,
}

/// The connection manager as a network filter.
pub(crate) fn compile(parts: ConnectionManager<'_>) -> Filter {
    Filter {
        name: FILTER.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(message::typed(&connection_manager(parts)))),
    }
}

fn connection_manager(parts: ConnectionManager<'_>) -> HttpConnectionManager {
    let gateway = parts.role == Role::Gateway;
    let mesh = parts.mesh;
    HttpConnectionManager {
        stat_prefix: parts.stat_prefix,
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: Some(message::ads()),
            route_config_name: parts.routes,
        })),
        http_filters: filters(),
        access_log: access_log::requests(mesh),
        // Envoy trusts the peer's address at the edge alone; inside the mesh the caller's headers tell it.
        use_remote_address: Some(gateway),
        xff_num_trusted_hops: if gateway { mesh.trusted_proxies } else { 0 },
        forward_client_cert_details: if gateway {
            http_connection_manager::ForwardClientCertDetails::SanitizeSet.into()
        } else {
            http_connection_manager::ForwardClientCertDetails::Sanitize.into()
        },
        set_current_client_cert_details: gateway.then(|| http_connection_manager::SetCurrentClientCertDetails {
            subject: Some(true),
            cert: true,
            dns: true,
            uri: true,
            ..Default::default()
        }),
        server_name: if gateway { "istio-envoy".to_owned() } else { String::new() },
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
        ..Default::default()
    }
}

/// Fault and CORS stand in every chain without configuration: a route's own configuration of a filter is
/// refused when the chain lacks the filter.
fn filters() -> Vec<HttpFilter> {
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(filter_config::PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    vec![
        http_filter("envoy.filters.http.grpc_stats", &grpc_stats),
        http_filter(FAULT_FILTER, &HttpFault::default()),
        http_filter(CORS_FILTER, &Cors::default()),
        http_filter("envoy.filters.http.router", &Router::default()),
    ]
}

fn http_filter<M: Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(message::typed(config))),
        ..Default::default()
    }
}
