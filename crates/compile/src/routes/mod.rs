//! Which cluster does a request go to, and how is it changed on the way? Route configurations of sidecars and
//! gateways.

mod actions;
mod filters;
mod gateway;
mod hash;
mod headers;
mod matches;
mod retries;
mod sidecar;
mod table;
mod virtual_service;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_xds::Resource;
use lateen_xds::envoy::config::route::v3::{Decorator, Route, RouteAction, RouteConfiguration, route, route_action};

use self::table::{CompiledRoute, every_path, no_timeout};
use crate::context::Context;
use crate::names;
use crate::scope::Role;
use crate::world::services::Service;

/// The route configurations of a proxy by name.
pub(crate) fn compile(cx: &Context<'_>) -> BTreeMap<Arc<str>, Resource<RouteConfiguration>> {
    match cx.scope.role {
        Role::Gateway => gateway::compile(cx),
        Role::Sidecar => sidecar::compile(cx),
    }
}

/// True for a header of a match that stands for a claim of a JWT: `@request.auth.claims.groups`, in any case.
pub(crate) fn is_claim(header: &str) -> bool {
    const PREFIX: &str = "@request.auth.claims";
    header.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The route of a service that no VirtualService names: all requests to the whole service.
fn default_route(cx: &Context<'_>, service: &Service, port: u32) -> CompiledRoute {
    let hash_policy: Vec<_> = hash::of_service(cx, service, port).into_iter().collect();
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(names::outbound_cluster(
            port,
            "",
            &service.host,
        ))),
        timeout: Some(no_timeout()),
        max_grpc_timeout: Some(no_timeout()),
        retry_policy: retries::compile(cx.world.mesh(), None, !hash_policy.is_empty()),
        hash_policy,
        ..Default::default()
    };
    CompiledRoute {
        route: Route {
            name: names::DEFAULT_ROUTE.to_owned(),
            r#match: Some(every_path()),
            action: Some(route::Action::Route(action)),
            decorator: Some(Decorator { operation: format!("{}:{port}/*", service.host), ..Default::default() }),
            ..Default::default()
        },
        origin: (*service.origin).clone(),
        catch_all: true,
    }
}
