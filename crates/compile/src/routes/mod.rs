//! Which cluster does a request go to, and how is it changed on the way? Route configurations of sidecars and
//! gateways.

mod actions;
mod filters;
pub(crate) mod gateway;
mod hash;
mod headers;
mod matches;
mod memory;
mod retries;
pub(crate) mod sidecar;
mod table;
mod virtual_service;

use lateen_xds::envoy::config::route::v3::{Decorator, Route, RouteAction, route, route_action};

pub(crate) use self::matches::is_claim;
pub(crate) use self::memory::Memory;
pub(crate) use self::retries::inbound as inbound_retries;
pub(crate) use self::table::every_path;
use self::table::{CompiledRoute, no_timeout};
use crate::context::Context;
use crate::names;
use crate::world::services::Service;

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
