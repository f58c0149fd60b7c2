//! How do compiled routes become a route configuration? Virtual hosts with unique names and domains in a fixed
//! order, and the origin of each.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use lateen_xds::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
    route_match, virtual_host::TlsRequirementType,
};
use lateen_xds::{Origin, Part, Resource};

use crate::context::Context;
use crate::hcm;
use crate::message;
use crate::names;

/// Bytes that the body of a direct response may have.
const MAX_DIRECT_RESPONSE_BODY: u32 = 1024 * 1024;

/// One Envoy route with what made it.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRoute {
    pub(crate) route: Route,
    pub(crate) origin: Origin,
    /// Matches every request, so nothing behind it in its virtual host is ever reached.
    pub(crate) catch_all: bool,
}

/// A virtual host before names and domains are made unique.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) domains: Arc<Vec<String>>,
    pub(crate) routes: Arc<[CompiledRoute]>,
    pub(crate) require_tls: bool,
    pub(crate) origins: Vec<Arc<Origin>>,
}

/// What happens to requests that no virtual host names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CatchAll {
    /// 404.
    None,
    /// Forwarded by a cluster: to the original destination, or to another proxy.
    Forward(String),
    /// Forwarded to the addresses of the name that the request gives.
    DynamicDns,
    /// 502.
    BlockAll,
}

/// Builds a route configuration. Of two virtual hosts with one name the first wins entirely; a domain stays with
/// the first virtual host that has it (Envoy refuses duplicates), and one that is left without any is dropped.
pub(crate) fn build(
    cx: &Context<'_>,
    name: &str,
    drafts: Vec<Draft>,
    catch_all: CatchAll,
    ignore_port: bool,
    whole: Vec<Origin>,
) -> Resource<RouteConfiguration> {
    let mut names_taken = HashSet::with_capacity(drafts.len());
    let mut domains_taken: HashSet<Cow<'_, str>> = HashSet::with_capacity(drafts.len() * 6);
    let mut kept: Vec<(&Draft, Vec<String>)> = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        if !names_taken.insert(draft.name.as_str()) {
            continue;
        }
        let own = draft.domains.iter().filter(|domain| domains_taken.insert(lower(domain)));
        let domains: Vec<String> = own.cloned().collect();
        if !domains.is_empty() {
            kept.push((draft, domains));
        }
    }
    kept.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let others = (!domains_taken.contains("*")).then(|| catch_all.draft()).flatten();
    kept.extend(others.iter().map(|draft| (draft, draft.domains.to_vec())));

    let mut origins: Vec<(Part, Origin)> = whole.into_iter().map(|origin| (Part::Whole, origin)).collect();
    let counts_attempts = !hcm::is_disabled(cx.world.mesh().proxy_headers.attempt_count.as_ref());
    let mut virtual_hosts = Vec::with_capacity(kept.len());
    for (index, (draft, domains)) in kept.into_iter().enumerate() {
        origins.extend(draft.origins.iter().map(|origin| (Part::VirtualHost(index), (**origin).clone())));
        for (route, compiled) in draft.routes.iter().enumerate() {
            if !compiled.origin.kind.is_empty() {
                origins.push((Part::Route { virtual_host: index, route }, compiled.origin.clone()));
            }
        }
        virtual_hosts.push(VirtualHost {
            name: draft.name.clone(),
            domains,
            routes: draft.routes.iter().map(|compiled| compiled.route.clone()).collect(),
            require_tls: if draft.require_tls { TlsRequirementType::All } else { TlsRequirementType::None }.into(),
            include_request_attempt_count: counts_attempts,
            ..Default::default()
        });
    }
    let message = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        // A route to a cluster that does not exist answers 503 and leaves all other routes alone.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE_BODY),
        ignore_port_in_host_matching: ignore_port,
        ..Default::default()
    };
    Resource::new(message, origins)
}

fn lower(domain: &str) -> Cow<'_, str> {
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(domain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(domain)
    }
}

/// A match for every path.
pub(crate) fn every_path() -> RouteMatch {
    RouteMatch { path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

impl CatchAll {
    fn draft(self) -> Option<Draft> {
        let forward = |cluster: String| {
            route::Action::Route(RouteAction {
                cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster)),
                timeout: Some(prost_types::Duration::default()),
                max_grpc_timeout: Some(prost_types::Duration::default()),
                ..Default::default()
            })
        };
        let (name, action) = match self {
            CatchAll::None => return None,
            CatchAll::Forward(cluster) => (names::ALLOW_ANY, forward(cluster)),
            CatchAll::DynamicDns => {
                (names::ALLOW_ANY_DYNAMIC_DNS, forward(names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER.to_owned()))
            }
            CatchAll::BlockAll => (
                names::BLOCK_ALL,
                route::Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() }),
            ),
        };
        let route = CompiledRoute {
            route: Route {
                name: name.to_owned(),
                r#match: Some(every_path()),
                action: Some(action),
                ..Default::default()
            },
            origin: Origin::default(),
            catch_all: true,
        };
        Some(Draft {
            name: name.to_owned(),
            domains: Arc::new(vec!["*".to_owned()]),
            routes: Arc::new([route]),
            require_tls: false,
            origins: Vec::new(),
        })
    }
}

/// The zero duration of a route means that it has no timeout: not Envoy's fifteen seconds.
pub(crate) fn no_timeout() -> prost_types::Duration {
    message::duration(std::time::Duration::ZERO)
}
