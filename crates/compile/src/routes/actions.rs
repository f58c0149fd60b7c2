//! What happens to the requests that a rule takes? They are sent to one destination or several, redirected, or
//! answered on the spot.

use std::time::Duration;

use lateen_config::{Destination, HttpBody, HttpDirectResponse, HttpRedirect, HttpRoute, RedirectPort};
use lateen_xds::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use lateen_xds::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster, redirect_action, route, route_action,
    weighted_cluster,
};
use lateen_xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::virtual_service::Listener;
use super::{filters, hash, headers, retries};
use crate::context::Context;
use crate::hcm;
use crate::message;
use crate::names;
use crate::scope::Role;

/// The action of a rule; `None` for a rule that has none (a delegate).
pub(crate) fn compile(cx: &Context<'_>, http: &HttpRoute, listener: Listener<'_>) -> Option<route::Action> {
    if let Some(redirect) = &http.redirect {
        return Some(route::Action::Redirect(redirect_action(redirect, listener)));
    }
    if let Some(response) = &http.direct_response {
        return Some(route::Action::DirectResponse(direct_response(response)));
    }
    forward(cx, http, listener).map(route::Action::Route)
}

/// Cluster of a destination. A destination without a port means the service's only port, else the port of the
/// listener; a sidecar sees of each service just the port that it listens on.
pub(crate) fn cluster(cx: &Context<'_>, destination: Option<&Destination>, listener: Listener<'_>) -> String {
    let Some(destination) = destination else {
        return names::UNKNOWN_SERVICE.to_owned();
    };
    let service = cx.destination(&destination.host);
    let host = service.map_or(destination.host.as_str(), |service| &service.host);
    let port = port(cx, destination, listener);
    names::outbound_cluster(port, destination.subset.as_deref().unwrap_or_default(), host)
}

/// Service port of a destination.
pub(crate) fn port(cx: &Context<'_>, destination: &Destination, listener: Listener<'_>) -> u32 {
    if let Some(port) = destination.port.as_ref().map(|port| port.number).filter(|port| *port != 0) {
        return port;
    }
    if listener.role() == Role::Gateway
        && let Some([only]) = cx.destination(&destination.host).map(|service| service.ports.as_slice())
    {
        return only.number;
    }
    listener.port()
}

fn forward(cx: &Context<'_>, http: &HttpRoute, listener: Listener<'_>) -> Option<RouteAction> {
    let mut hash_policy = Vec::new();
    let cluster_specifier;
    let emitted: Vec<_> = match http.route.as_slice() {
        [only] => vec![only],
        several => several.iter().filter(|entry| entry.weight > 0).collect(),
    };
    // Envoy refuses a whole route configuration for one choice without weights.
    if emitted.is_empty() {
        return None;
    }
    for entry in &emitted {
        hash_policy.extend(entry.destination.as_ref().and_then(|to| hash::of_destination(cx, to, listener)));
    }
    let mut host_rewrite = http
        .rewrite
        .as_ref()
        .and_then(|rewrite| rewrite.authority.as_deref())
        .filter(|authority| !authority.is_empty())
        .or_else(|| headers::host_rewrite(http.headers.as_ref()));
    match http.route.as_slice() {
        [only] => {
            // What an only destination asks for is the route's own business, after the rule's.
            host_rewrite = host_rewrite.or_else(|| headers::host_rewrite(only.headers.as_ref()));
            let name = cluster(cx, only.destination.as_ref(), listener);
            cluster_specifier = route_action::ClusterSpecifier::Cluster(name);
        }
        _ => {
            let clusters = emitted.iter().map(|entry| {
                let operations = headers::of(entry.headers.as_ref());
                weighted_cluster::ClusterWeight {
                    name: cluster(cx, entry.destination.as_ref(), listener),
                    weight: Some(u32::try_from(entry.weight).unwrap_or(0)),
                    request_headers_to_add: operations.request_add,
                    request_headers_to_remove: operations.request_remove,
                    response_headers_to_add: operations.response_add,
                    response_headers_to_remove: operations.response_remove,
                    host_rewrite_specifier: headers::host_rewrite(entry.headers.as_ref()).map(|host| {
                        weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned())
                    }),
                    ..Default::default()
                }
            });
            cluster_specifier = route_action::ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
                ..Default::default()
            });
        }
    }
    let hashed = http.route.len() == 1 && !hash_policy.is_empty();
    // Without a timeout a request may take for ever: not Envoy's fifteen seconds.
    let timeout = message::duration(http.timeout.unwrap_or(Duration::ZERO));
    let rewrite = http.rewrite.as_ref();
    let rewrites_host =
        host_rewrite.is_some() || emitted.iter().any(|entry| headers::host_rewrite(entry.headers.as_ref()).is_some());
    Some(RouteAction {
        cluster_specifier: Some(cluster_specifier),
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        retry_policy: retries::compile(cx.world.mesh(), http.retries.as_ref(), hashed),
        hash_policy,
        prefix_rewrite: rewrite.and_then(|rewrite| rewrite.uri.clone()).unwrap_or_default(),
        regex_rewrite: rewrite.and_then(|rewrite| rewrite.uri_regex_rewrite.as_ref()).map(|regex| {
            RegexMatchAndSubstitute {
                pattern: Some(message::regex(regex.r#match.as_deref().unwrap_or_default())),
                substitution: regex.rewrite.clone().unwrap_or_default(),
            }
        }),
        host_rewrite_specifier: host_rewrite
            .map(|host| route_action::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned())),
        append_x_forwarded_host: rewrites_host
            && hcm::is_enabled(cx.world.mesh().proxy_headers.x_forwarded_host.as_ref()),
        request_mirror_policies: mirrors(cx, http, listener),
        ..Default::default()
    })
}

/// Copies of requests: `mirror` first, then `mirrors`. A share of zero mirrors nothing, no share everything.
fn mirrors(cx: &Context<'_>, http: &HttpRoute, listener: Listener<'_>) -> Vec<route_action::RequestMirrorPolicy> {
    let one = http.mirror.as_ref().map(|destination| {
        let share = match (http.mirror_percentage.as_ref(), http.mirror_percent) {
            (Some(share), _) => filters::percent(share.value),
            (None, Some(share)) => filters::whole_percent(share),
            (None, None) => filters::whole_percent(100),
        };
        (Some(destination), share)
    });
    let several = http.mirrors.iter().map(|mirror| {
        let share = match mirror.percentage.as_ref() {
            Some(share) => filters::percent(share.value),
            None => filters::whole_percent(100),
        };
        (mirror.destination.as_ref(), share)
    });
    one.into_iter()
        .chain(several)
        .filter(|(_, share)| share.numerator > 0)
        .map(|(destination, share)| route_action::RequestMirrorPolicy {
            cluster: cluster(cx, destination, listener),
            runtime_fraction: Some(RuntimeFractionalPercent { default_value: Some(share), ..Default::default() }),
            trace_sampled: Some(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect()
}

fn redirect_action(redirect: &HttpRedirect, listener: Listener<'_>) -> RedirectAction {
    let scheme = redirect.scheme.as_deref().unwrap_or_default();
    let port = match redirect.redirect_port {
        Some(RedirectPort::Number(number)) => number,
        Some(RedirectPort::FromRequestPort) => listener.port(),
        Some(RedirectPort::FromProtocolDefault) | None => 0,
    };
    // The default port of a scheme is never written out; without a scheme that of the listener counts.
    let default_port = match scheme {
        "https" => 443,
        "" if listener.is_tls() => 443,
        _ => 80,
    };
    let path = match (redirect.prefix_rewrite.as_deref(), redirect.uri.as_deref()) {
        (Some(prefix), _) if !prefix.is_empty() => {
            redirect_action::PathRewriteSpecifier::PrefixRewrite(prefix.to_owned())
        }
        (_, uri) => redirect_action::PathRewriteSpecifier::PathRedirect(uri.unwrap_or_default().to_owned()),
    };
    let code = match redirect.redirect_code.unwrap_or(0) {
        302 => redirect_action::RedirectResponseCode::Found,
        303 => redirect_action::RedirectResponseCode::SeeOther,
        307 => redirect_action::RedirectResponseCode::TemporaryRedirect,
        308 => redirect_action::RedirectResponseCode::PermanentRedirect,
        _ => redirect_action::RedirectResponseCode::MovedPermanently,
    };
    RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: if port == default_port { 0 } else { port },
        response_code: code.into(),
        path_rewrite_specifier: Some(path),
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| redirect_action::SchemeRewriteSpecifier::SchemeRedirect(scheme.to_owned())),
        ..Default::default()
    }
}

fn direct_response(response: &HttpDirectResponse) -> DirectResponseAction {
    DirectResponseAction {
        status: response.status,
        body: response.body.as_ref().map(|body| DataSource {
            specifier: Some(match body {
                HttpBody::String(text) => data_source::Specifier::InlineString(text.clone()),
                HttpBody::Bytes(bytes) => data_source::Specifier::InlineBytes(bytes.clone()),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}
