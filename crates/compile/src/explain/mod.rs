//! Why does a call go where it goes? Answered from the compiled configuration, by Envoy's own rules, without a proxy.
//!
//! One walk, in the order in which a proxy decides: listener, listener filters, filter chain, transport socket,
//! network filter, virtual host, route, cluster, endpoints. What did not decide is noted on the way with its reason;
//! [`lost`] adds what never became part of the configuration of this proxy.

mod action;
mod call;
mod explanation;
mod filter_chain;
mod json;
mod listener;
mod lost;
mod matcher;
mod path;
mod policies;
mod route;
mod transport;
mod upstream;
mod virtual_host;

pub use call::{Call, CallProtocol, CallTls, Direction};
pub use explanation::{
    ClusterShare, DirectResponse, Discovery, Explanation, Policies, Redirect, Refusal, RefusalKind, Retries, Tried,
    Upstream, UpstreamEndpoint, UpstreamTls,
};

use lateen_xds::envoy::config::listener::v3::FilterChain;
use lateen_xds::envoy::config::listener::v3::filter::ConfigType;
use lateen_xds::envoy::config::route::v3::virtual_host::TlsRequirementType;
use lateen_xds::envoy::config::route::v3::{RouteConfiguration, VirtualHost, route::Action, route_action};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, StripPortMode,
};
use lateen_xds::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use lateen_xds::{Part, Resource, XdsSet, any};

use self::call::CallTls as Tls;
use self::listener::Connection;
use self::policies::Levels;
use self::transport::Codec;
use crate::names;
use crate::scope::Scope;
use crate::world::World;

/// Most routes that are spoken of, of those that were passed over.
const MAX_ROUTES: usize = 50;

/// Most later routes that are spoken of because they would have matched too.
const MAX_HIDDEN: usize = 3;

/// Follows a call through the configuration of one proxy. `set` is what `world` means for `scope`; the world is
/// asked for the rules that did not get into the set.
pub fn explain(set: &XdsSet, world: &World, scope: &Scope, call: &Call) -> Explanation {
    let mut explanation = Explanation::default();
    let walk = Walk { set, scope, call };
    walk.listener(&mut explanation);
    lost::add(set, world, scope, call, &mut explanation);
    explanation
}

/// One call on its way.
struct Walk<'a> {
    set: &'a XdsSet,
    scope: &'a Scope,
    call: &'a Call,
}

impl Walk<'_> {
    fn listener(&self, explanation: &mut Explanation) {
        let Some(listener) = listener::select(self.set, self.scope, self.call) else {
            let wanted = explanation::socket(self.call.address, self.call.port);
            explanation.refuse(RefusalKind::NoListener, format!("nothing listens on {wanted}"));
            return;
        };
        explanation.listener = Some(listener.message.name.clone());
        explanation.origin = listener.origin(Part::Whole).cloned();
        let connection = listener::inspect(&listener.message, self.call);
        match filter_chain::select(listener, self.call, &connection, &mut explanation.tried) {
            filter_chain::Selection::Chain(chain, origin) => {
                explanation.filter_chain = Some(chain.name.clone());
                if let Some(origin) = origin {
                    explanation.origin = Some(origin.clone());
                }
                self.filter_chain(chain, &connection, explanation);
            }
            filter_chain::Selection::Nothing => explanation.refuse(
                RefusalKind::NoFilterChain,
                "no filter chain takes such a connection: it is closed at once (flag NR)",
            ),
            filter_chain::Selection::Several(names) => explanation.refuse(
                RefusalKind::MultipleFilterChains,
                format!(
                    "several filter chains take such a connection alike ({}): Envoy refuses the listener",
                    names.join(", ")
                ),
            ),
        }
    }

    fn filter_chain(&self, chain: &FilterChain, connection: &Connection, explanation: &mut Explanation) {
        let payload = match transport::accept(chain, self.call) {
            Ok(payload) => payload,
            Err((kind, reason)) => {
                explanation.refuse(kind, reason);
                return;
            }
        };
        let mut cluster_by_name = false;
        for filter in &chain.filters {
            let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
                explanation.policies.filters.push(filter.name.clone());
                continue;
            };
            if any::is::<HttpConnectionManager>(config) {
                match any::unpack::<HttpConnectionManager>(config) {
                    Ok(manager) => self.http(&manager, payload, explanation),
                    Err(error) => explanation.refuse(RefusalKind::NoFilterChain, error.to_string()),
                }
                return;
            }
            if any::is::<TcpProxy>(config) {
                match any::unpack::<TcpProxy>(config) {
                    Ok(proxy) => self.tcp(&proxy, cluster_by_name.then_some(&*connection.server_name), explanation),
                    Err(error) => explanation.refuse(RefusalKind::NoFilterChain, error.to_string()),
                }
                return;
            }
            if any::is::<SniCluster>(config) {
                cluster_by_name = true;
            } else if !is_silent(&filter.name) {
                explanation.policies.filters.push(filter.name.clone());
            }
        }
        explanation.refuse(RefusalKind::NoFilterChain, "the filter chain forwards nothing");
    }

    fn tcp(&self, proxy: &TcpProxy, server_name: Option<&str>, explanation: &mut Explanation) {
        let chosen = match (server_name, &proxy.cluster_specifier) {
            (Some(name), _) => vec![(name.to_owned(), 1)],
            (None, Some(tcp_proxy::ClusterSpecifier::Cluster(name))) => vec![(name.clone(), 1)],
            (None, Some(tcp_proxy::ClusterSpecifier::WeightedClusters(weighted))) => {
                weighted.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.weight)).collect()
            }
            (None, None) => Vec::new(),
        };
        explanation.policies.timeout = proxy.max_downstream_connection_duration.as_ref().map(policies::duration);
        self.clusters(chosen, explanation);
    }

    fn http(&self, manager: &HttpConnectionManager, payload: transport::Payload, explanation: &mut Explanation) {
        let codec = match manager.codec_type() {
            CodecType::Http1 => Codec::Http1,
            CodecType::Http2 => Codec::Http2,
            CodecType::Auto | CodecType::Http3 => Codec::Any,
        };
        if let Err(reason) = transport::speaks_http(payload, self.call, codec) {
            explanation.refuse(RefusalKind::Protocol, reason);
            return;
        }
        match &manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => {
                explanation.route_config = Some(rds.route_config_name.clone());
                match self.set.routes.get(rds.route_config_name.as_str()) {
                    Some(routes) => self.routes(manager, routes, explanation),
                    None => explanation.refuse(
                        RefusalKind::NoRoute,
                        format!("404: route configuration `{}` is not there", rds.route_config_name),
                    ),
                }
            }
            Some(RouteSpecifier::RouteConfig(routes)) => {
                explanation.route_config = Some(routes.name.clone());
                self.routes(manager, &Resource::new(routes.clone(), Vec::new()), explanation);
            }
            _ => explanation.refuse(RefusalKind::NoRoute, "404: the connection manager has no routes"),
        }
    }

    fn routes(
        &self,
        manager: &HttpConnectionManager,
        routes: &Resource<RouteConfiguration>,
        explanation: &mut Explanation,
    ) {
        let authority = match manager.strip_port_mode {
            Some(StripPortMode::StripAnyHostPort(true)) => virtual_host::without_port(&self.call.authority),
            _ if manager.strip_matching_host_port => {
                let bare = virtual_host::without_port(&self.call.authority);
                let port = format!(":{}", self.call.port);
                if self.call.authority[bare.len()..] == port { bare } else { &self.call.authority }
            }
            _ => &self.call.authority,
        };
        let Some((index, virtual_host, domain)) = virtual_host::select(&routes.message, authority) else {
            explanation.tried.extend(virtual_host::near_misses(routes, authority, None));
            let host = matcher::quote(authority);
            explanation.refuse(RefusalKind::NoVirtualHost, format!("404: nothing is configured for host {host}"));
            return;
        };
        if domain.contains('*') {
            explanation.tried.extend(virtual_host::near_misses(routes, authority, Some(index)));
        }
        explanation.virtual_host = Some(virtual_host.name.clone());
        if let Some(origin) = routes.origin(Part::VirtualHost(index)) {
            explanation.origin = Some(origin.clone());
        }
        let path = path::normalize(manager, &self.call.path);
        if virtual_host.require_tls() != TlsRequirementType::None && self.call.tls == Tls::Plaintext {
            let location = format!("https://{}{path}", self.call.authority);
            explanation.policies.redirect = Some(Redirect { status: 301, location });
            explanation.refuse(RefusalKind::TlsRedirect, "301: the host is for TLS alone");
            return;
        }
        self.virtual_host(manager, routes, (index, virtual_host), &path, explanation);
    }

    fn virtual_host(
        &self,
        manager: &HttpConnectionManager,
        routes: &Resource<RouteConfiguration>,
        (index, virtual_host): (usize, &VirtualHost),
        path: &str,
        explanation: &mut Explanation,
    ) {
        let mut passed_over = 0;
        let mut all = virtual_host.routes.iter().enumerate();
        let found = all.find(|(position, candidate)| {
            let Err(reason) = route::matches(candidate, self.call, path) else { return true };
            passed_over += 1;
            if passed_over <= MAX_ROUTES {
                let origin = routes.origin(Part::Route { virtual_host: index, route: *position });
                explanation.try_failed(origin, titled(origin.is_some(), candidate, reason));
            }
            false
        });
        if passed_over > MAX_ROUTES {
            let more = passed_over - MAX_ROUTES;
            explanation.try_failed(None, format!("{more} further routes do not match either"));
        }
        let Some((position, chosen)) = found else {
            let reason = match virtual_host.routes.len() {
                0 => "404: the virtual host has no routes".to_owned(),
                _ => "404: no route matches".to_owned(),
            };
            explanation.refuse(RefusalKind::NoRoute, reason);
            return;
        };
        for (later, hidden) in
            all.filter(|(_, candidate)| route::matches(candidate, self.call, path).is_ok()).take(MAX_HIDDEN)
        {
            let origin = routes.origin(Part::Route { virtual_host: index, route: later });
            explanation
                .try_failed(origin, titled(origin.is_some(), hidden, "it matches too, but comes later".to_owned()));
        }
        explanation.route = Some(chosen.name.clone());
        if let Some(origin) = routes.origin(Part::Route { virtual_host: index, route: position }) {
            explanation.origin = Some(origin.clone());
        }
        let levels = Levels { routes: &routes.message, virtual_host, route: chosen };
        policies::common(levels, manager, self.call, &mut explanation.policies);
        match &chosen.action {
            Some(Action::Route(action)) => {
                policies::forward(levels, action, self.call, path, &mut explanation.policies);
                if let Some(route_action::ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier {
                    policies::weighted(weighted, &mut explanation.policies);
                }
                match action::clusters(action, self.call) {
                    Ok(chosen) => self.clusters(chosen, explanation),
                    Err(note) => explanation.policies.notes.push(note),
                }
            }
            Some(Action::Redirect(action)) => {
                explanation.policies.redirect = Some(action::redirect(chosen, action, self.call, path));
            }
            Some(Action::DirectResponse(action)) => {
                explanation.policies.direct_response = Some(action::direct_response(action));
            }
            Some(Action::FilterAction(_) | Action::NonForwardingAction(_)) => {
                explanation.policies.notes.push("a filter answers".to_owned());
            }
            None => explanation.policies.notes.push("the route does nothing".to_owned()),
        }
    }

    fn clusters(&self, chosen: Vec<(String, u32)>, explanation: &mut Explanation) {
        let is_catch_all =
            |(name, _): &(String, u32)| matches!(&**name, names::PASSTHROUGH_CLUSTER | names::BLACK_HOLE_CLUSTER);
        if explanation.route.is_none() && chosen.iter().all(is_catch_all) {
            // What made the listener did not ask for this: it is where a connection ends up that nothing is for.
            explanation.origin = None;
        }
        let total_weight = chosen.iter().map(|(_, weight)| *weight).fold(0, u32::saturating_add);
        explanation.clusters = chosen
            .into_iter()
            .map(|(name, weight)| ClusterShare {
                upstream: upstream::build(self.set, &name),
                name,
                weight,
                total_weight,
            })
            .collect();
        for cluster in explanation.clusters.iter().filter(|cluster| cluster.weight > 0) {
            let note = match &cluster.upstream {
                None => format!("cluster `{}` does not exist: 503 (flag NC)", cluster.name),
                Some(upstream)
                    if upstream.discovery == Discovery::Listed
                        && !upstream.endpoints.iter().any(UpstreamEndpoint::is_usable) =>
                {
                    let which = if upstream.endpoints.is_empty() { "no endpoint" } else { "no healthy endpoint" };
                    format!("cluster `{}` has {which}: 503 (flag UH)", cluster.name)
                }
                Some(_) => continue,
            };
            explanation.policies.notes.push(note);
        }
    }
}

/// A reason, beginning with the route that it concerns if nothing else names it.
fn titled(has_origin: bool, route: &lateen_xds::envoy::config::route::v3::Route, reason: String) -> String {
    if has_origin { reason } else { format!("{}: {reason}", route::title(route)) }
}

/// Network filters that change nothing about where a connection goes.
fn is_silent(name: &str) -> bool {
    name.starts_with("istio.") || name.contains("metadata_exchange") || name.contains("stats")
}
