//! Which routes does one VirtualService make on one listener? Its rules in order, each match a route of its own,
//! up to the first that matches everything.

use lateen_config::{HttpMatchRequest, HttpRoute};
use lateen_xds::envoy::config::route::v3::{Decorator, Route, RouteMatch, route, route_action, route_match};

use super::table::CompiledRoute;
use super::{actions, filters, headers, is_claim, matches};
use crate::context::Context;
use crate::host::MESH;
use crate::message;
use crate::names;
use crate::scope::Role;
use crate::world::virtual_services::{Rule, VirtualService};

/// The listener for which routes are compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listener<'a> {
    /// Port of a sidecar.
    Sidecar {
        /// Service port.
        port: u32,
    },
    /// Server of a Gateway.
    Gateway {
        /// Number in the Gateway, not the port that is bound.
        port: u32,
        /// `namespace/name` of the Gateway.
        name: &'a str,
        /// Requests come over TLS.
        is_tls: bool,
    },
}

impl Listener<'_> {
    pub(crate) fn port(&self) -> u32 {
        match self {
            Listener::Sidecar { port } | Listener::Gateway { port, .. } => *port,
        }
    }

    /// The name by which VirtualServices are bound to it.
    fn gateway(&self) -> &str {
        match self {
            Listener::Sidecar { .. } => MESH,
            Listener::Gateway { name, .. } => name,
        }
    }

    /// True when requests come over TLS that ends here.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Listener::Gateway { is_tls: true, .. })
    }

    pub(crate) fn role(&self) -> Role {
        match self {
            Listener::Sidecar { .. } => Role::Sidecar,
            Listener::Gateway { .. } => Role::Gateway,
        }
    }
}

/// The routes in order. Empty when no rule applies here.
pub(crate) fn compile(
    cx: &Context<'_>,
    virtual_service: &VirtualService,
    listener: Listener<'_>,
) -> Vec<CompiledRoute> {
    let mut routes = Vec::new();
    for rule in &virtual_service.http {
        if rule.route.r#match.is_empty() {
            routes.extend(compile_rule(cx, virtual_service, rule, None, listener));
            // A rule without a match takes every request.
            break;
        }
        for (index, request) in rule.route.r#match.iter().enumerate() {
            if !applies(cx, request, listener) {
                continue;
            }
            let Some(compiled) = compile_rule(cx, virtual_service, rule, Some((index, request)), listener) else {
                continue;
            };
            let catch_all = compiled.catch_all;
            routes.push(compiled);
            if catch_all {
                return routes;
            }
        }
    }
    routes
}

/// The conditions that are decided here and never reach the data plane. A match that names gateways is not
/// asked for its source any more: an old peculiarity of HTTP matches that configurations rely on.
fn applies(cx: &Context<'_>, request: &HttpMatchRequest, listener: Listener<'_>) -> bool {
    // Claims are no headers: what a token says is known at gateways alone.
    let mut names = request.headers.keys().chain(request.without_headers.keys());
    let has_place = |name: &String| listener.role() == Role::Gateway && matches::claim_path(name).is_some();
    if names.any(|name| is_claim(name) && !has_place(name)) {
        return false;
    }
    if request.port.is_some_and(|port| port != 0 && port != listener.port()) {
        return false;
    }
    if !request.gateways.is_empty() {
        return request.gateways.iter().any(|gateway| gateway == listener.gateway());
    }
    let labels = request.source_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let namespace = &request.source_namespace;
    cx.scope.selected_by(labels)
        && namespace.as_deref().is_none_or(|name| name.is_empty() || *name == *cx.scope.namespace)
}

fn compile_rule(
    cx: &Context<'_>,
    virtual_service: &VirtualService,
    rule: &Rule<HttpRoute>,
    request: Option<(usize, &HttpMatchRequest)>,
    listener: Listener<'_>,
) -> Option<CompiledRoute> {
    let http: &HttpRoute = &rule.route;
    let matcher = matches::compile(request.map(|(_, request)| request), virtual_service.separates_paths);
    let action = actions::compile(cx, http, listener)?;
    let operation = operation(virtual_service, &action, &matcher, listener);
    let operations = headers::of_route(http);
    let mut origin = (*rule.origin).clone();
    if let Some((index, request)) = request {
        origin.rule = format!("{}.match[{index}]", origin.rule);
        if request.at.line != 0 {
            origin.line = request.at.line;
        }
    }
    Some(CompiledRoute {
        catch_all: is_catch_all(&matcher),
        route: Route {
            name: route_name(http, request.map(|(_, request)| request)),
            r#match: Some(matcher),
            action: Some(action),
            metadata: Some(message::istio_metadata([(
                "config",
                message::text(names::config_path("virtual-service", &virtual_service.namespace, &virtual_service.name)),
            )])),
            decorator: Some(Decorator { operation, ..Default::default() }),
            typed_per_filter_config: filters::compile(http),
            request_headers_to_add: operations.request_add,
            request_headers_to_remove: operations.request_remove,
            response_headers_to_add: operations.response_add,
            response_headers_to_remove: operations.response_remove,
            stat_prefix: request.and_then(|(_, request)| request.stat_prefix.clone()).unwrap_or_default(),
            ..Default::default()
        },
        origin,
    })
}

/// `<rule>` or `<rule>.<match>`.
fn route_name(http: &HttpRoute, request: Option<&HttpMatchRequest>) -> String {
    let name = http.name.as_deref().unwrap_or_default();
    match request.and_then(|request| request.name.as_deref()).filter(|name| !name.is_empty()) {
        Some(of_match) => format!("{name}.{of_match}"),
        None => name.to_owned(),
    }
}

/// True when nothing but the path is looked at, and every path matches.
fn is_catch_all(matcher: &RouteMatch) -> bool {
    let every_path = match &matcher.path_specifier {
        Some(route_match::PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(route_match::PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        Some(route_match::PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    every_path
        && matcher.headers.is_empty()
        && matcher.query_parameters.is_empty()
        && matcher.dynamic_metadata.is_empty()
}

/// What traces call the route: the destination, if it is one, and the path.
fn operation(
    virtual_service: &VirtualService,
    action: &route::Action,
    matcher: &RouteMatch,
    listener: Listener<'_>,
) -> String {
    let path = match &matcher.path_specifier {
        Some(route_match::PathSpecifier::Prefix(prefix) | route_match::PathSpecifier::PathSeparatedPrefix(prefix)) => {
            format!("{prefix}*")
        }
        Some(route_match::PathSpecifier::Path(path)) => path.clone(),
        Some(route_match::PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    if let route::Action::Route(action) = action
        && let Some(route_action::ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier
        && let Some(parts) = names::parse_outbound_cluster(cluster)
    {
        return format!("{}:{}{path}", parts.host, parts.port);
    }
    format!("{}:{}{path}", virtual_service.name, listener.port())
}
