//! What do patches make of a filter chain? Its own patches, then the list of its network filters, then each of these
//! filters; in a connection manager the list of HTTP filters and each of those. A merge sees what was inserted.

use std::sync::Arc;

use lateen_config::Diagnostic;
use lateen_xds::Resource;
use lateen_xds::any;
use lateen_xds::envoy::config::listener::v3::{Filter, FilterChain, filter};
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, HttpFilter};
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

use super::filters::{self, AnyFilter as _};
use super::listeners::Pass;
use super::matching::{self, ListenerKey};
use super::merging::{self, Outcome as Merged};
use super::positions::Filters;
use super::{About, Change, Patch, Table, code, routes};

/// What became of a filter chain.
pub(super) enum Outcome<'t> {
    /// It is there, changed by these patches.
    Kept(Vec<&'t About>),
    /// A patch removed it.
    Removed(&'t About),
}

/// Applies everything that is for a chain of the listener with this key.
pub(super) fn patch<'t>(pass: &mut Pass<'t, '_>, key: &ListenerKey, chain: &mut FilterChain) -> Outcome<'t> {
    let mut applied = Vec::new();
    let table: &'t Table = pass.table;
    let resource = format!("listener `{}`", key.name);
    for patch in &table.filter_chains {
        if !is_for(pass, &patch.about, key, chain) {
            continue;
        }
        match &patch.change {
            Change::Remove => {
                pass.report.matched(&patch.about);
                return Outcome::Removed(&patch.about);
            }
            Change::Merge(value, lists) => {
                pass.report.matched(&patch.about);
                match merging::filter_chain(chain, value, *lists) {
                    Ok(Merged::Whole(merged)) => *chain = merged,
                    Ok(Merged::SocketOnly(merged)) => {
                        socket_only(pass, &patch.about);
                        *chain = merged;
                    }
                    Err(error) => {
                        pass.report.refused(&patch.about, &resource, &error);
                        continue;
                    }
                }
                applied.push(&patch.about);
            }
            Change::Insert(..) | Change::Replace(_) => {}
        }
    }
    network_filters(pass, key, chain, &resource, &mut applied);
    Outcome::Kept(applied)
}

/// Tells that only the transport socket of a value counted.
pub(super) fn socket_only(pass: &mut Pass<'_, '_>, about: &About) {
    let message = "of a value with a `transport_socket` only that is merged: its other fields are left out";
    pass.report.finding(
        about,
        Diagnostic::warning(code::PARTLY, message).help("put the other fields into a patch of their own"),
    );
}

/// Applies patches of route configurations to those that stand in the chain's connection managers.
pub(super) fn patch_inline_routes<'t>(pass: &mut Pass<'t, '_>, chain: &mut FilterChain) -> Vec<&'t About> {
    let mut applied = Vec::new();
    for filter in &mut chain.filters {
        let Some(mut manager) = connection_manager(filter) else {
            continue;
        };
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier.take() else {
            continue;
        };
        let resource = Resource::new(routes, Vec::new());
        let (patched, patches) = routes::patch(pass, &resource);
        if patches.is_empty() {
            continue;
        }
        manager.route_specifier = Some(RouteSpecifier::RouteConfig((*patched.message).clone()));
        filter.config_type = Some(filter::ConfigType::TypedConfig(any::pack(&manager)));
        applied.extend(patches);
    }
    applied
}

/// The connection manager that a network filter is.
pub(super) fn connection_manager(filter: &Filter) -> Option<HttpConnectionManager> {
    any::unpack(filter.config()?).ok()
}

fn is_for(pass: &Pass<'_, '_>, about: &About, key: &ListenerKey, chain: &FilterChain) -> bool {
    matching::in_context(about, pass.context)
        && matching::listener(about, key)
        && matching::filter_chain(about, key, chain)
}

fn network_filters<'t>(
    pass: &mut Pass<'t, '_>,
    key: &ListenerKey,
    chain: &mut FilterChain,
    resource: &str,
    applied: &mut Vec<&'t About>,
) {
    let table: &'t Table = pass.table;
    let patches: Vec<&'t Arc<Patch<Filter>>> =
        table.network_filters.iter().filter(|patch| is_for(pass, &patch.about, key, chain)).collect();
    let lists: Vec<_> = patches.iter().copied().filter(|patch| !matches!(patch.change, Change::Merge(..))).collect();
    if !lists.is_empty() {
        let mut filters =
            Filters { list: &mut chain.filters, name: |filter: &Filter| &filter.name, sound: network_filters_end };
        applied.extend(filters.edit(&lists, pass.report, |report, about, filter| {
            let why = format!("with `{}` a filter would stand behind the one that ends its chain", filter.name);
            report.refused(about, resource, &why);
        }));
    }
    let mut http: Vec<&'t Arc<Patch<HttpFilter>>> = table.http_filters.iter().collect();
    http.retain(|patch| is_for(pass, &patch.about, key, chain));
    for filter in &mut chain.filters {
        for patch in &patches {
            if filters::merge(patch, filter, resource, pass.report) {
                applied.push(&patch.about);
            }
        }
        let http: Vec<_> =
            http.iter().copied().filter(|patch| matching::network_filter(&patch.about, &filter.name)).collect();
        if http.is_empty() {
            continue;
        }
        let Some(mut manager) = connection_manager(filter) else {
            continue;
        };
        let before = applied.len();
        http_filters(pass, &http, &mut manager.http_filters, resource, applied);
        if applied.len() > before {
            filter.config_type = Some(filter::ConfigType::TypedConfig(any::pack(&manager)));
        }
    }
}

fn http_filters<'t>(
    pass: &mut Pass<'t, '_>,
    patches: &[&'t Arc<Patch<HttpFilter>>],
    list: &mut Vec<HttpFilter>,
    resource: &str,
    applied: &mut Vec<&'t About>,
) {
    let lists: Vec<_> = patches.iter().copied().filter(|patch| !matches!(patch.change, Change::Merge(..))).collect();
    if !lists.is_empty() {
        let mut filters = Filters { list, name: |filter: &HttpFilter| &filter.name, sound: http_filters_end };
        applied.extend(filters.edit(&lists, pass.report, |report, about, filter| {
            report.matched(about);
            if about.lands_behind_router {
                return;
            }
            let message = format!(
                "the patch is left out of {resource}: with `{}` the chain of HTTP filters would not end with the router",
                filter.name
            );
            let help = "use INSERT_BEFORE with `subFilter: {name: envoy.filters.http.router}`, or INSERT_FIRST";
            report.finding(about, Diagnostic::warning(code::POSITION, message).help(help));
        }));
    }
    for patch in patches {
        for filter in list.iter_mut() {
            if filters::merge(patch, filter, resource, pass.report) {
                applied.push(&patch.about);
            }
        }
    }
}

/// Filters that end a chain stand at its end.
fn network_filters_end(filters: &[Filter]) -> bool {
    let ends = |filter: &Filter| {
        filter.config().is_some_and(|config| any::is::<HttpConnectionManager>(config) || any::is::<TcpProxy>(config))
    };
    filters.iter().rev().skip(1).all(|filter| !ends(filter))
}

/// There is one router, at the end.
fn http_filters_end(filters: &[HttpFilter]) -> bool {
    let is_router = |filter: &HttpFilter| filter.config().is_some_and(any::is::<Router>);
    filters.iter().position(is_router).is_some_and(|index| index + 1 == filters.len())
}
