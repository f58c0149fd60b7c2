//! How do compiled routes become a route configuration? Virtual hosts with unique names and domains in a fixed
//! order, and the origin of each.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use lateen_xds::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
    route_match, virtual_host::TlsRequirementType,
};
use lateen_xds::{Origin, Part, Resource, Version};

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
    pub(crate) name: Arc<str>,
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

/// A route configuration, with what its virtual hosts were made from.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) resource: Resource<RouteConfiguration>,
    /// In the order of the virtual hosts.
    sources: Vec<Source>,
    /// Names and domains of the drafts that it was made of, in their order.
    drafted: Vec<(Arc<str>, Arc<Vec<String>>)>,
}

/// What a virtual host was made from, beyond its name and domains.
#[derive(Clone, Debug)]
struct Source {
    /// Place of its draft; `None` for the one for all other hosts.
    draft: Option<usize>,
    routes: Arc<[CompiledRoute]>,
    require_tls: bool,
    /// Of the virtual host's content.
    version: Version,
}

/// What a route configuration is besides its virtual hosts.
pub(crate) struct Frame<'a> {
    pub(crate) name: &'a str,
    pub(crate) catch_all: CatchAll,
    /// Ports of hosts do not take part in the comparison with domains.
    pub(crate) ignore_port: bool,
    /// Who asks for the whole.
    pub(crate) origins: Vec<Origin>,
}

/// Builds a route configuration. Of two virtual hosts with one name the first wins entirely; a domain stays with
/// the first virtual host that has it (Envoy refuses duplicates), and one that is left without any is dropped.
///
/// `spare` is an older form of the same route configuration: if nobody else holds it, its virtual hosts are used again
/// where they are still right, for a large table is not copied because of one edit.
pub(crate) fn build(cx: &Context<'_>, frame: Frame<'_>, drafts: &[Draft], spare: Option<Table>) -> Table {
    let others = frame.catch_all.draft();
    let counts_attempts = !hcm::is_disabled(cx.world.mesh().proxy_headers.attempt_count.as_ref());
    let mut origins: Vec<(Part, Origin)> = frame.origins.into_iter().map(|origin| (Part::Whole, origin)).collect();
    let slots = match spare.and_then(|spare| spare.reuse(drafts, counts_attempts)) {
        Some(slots) => slots,
        None => unique(drafts, others.as_ref()),
    };
    let mut virtual_hosts = Vec::with_capacity(slots.len());
    let mut sources = Vec::with_capacity(slots.len());
    for slot in slots {
        let Some(draft) = slot.draft.map_or(others.as_ref(), |draft| drafts.get(draft)) else {
            continue;
        };
        let index = virtual_hosts.len();
        origins.extend(draft.origins.iter().map(|origin| (Part::VirtualHost(index), (**origin).clone())));
        for (route, compiled) in draft.routes.iter().enumerate() {
            if !compiled.origin.kind.is_empty() {
                origins.push((Part::Route { virtual_host: index, route }, compiled.origin.clone()));
            }
        }
        let (virtual_host, source) = slot.known.unwrap_or_else(|| {
            let virtual_host = VirtualHost {
                name: draft.name.to_string(),
                domains: slot.domains,
                routes: draft.routes.iter().map(|compiled| compiled.route.clone()).collect(),
                require_tls: if draft.require_tls { TlsRequirementType::All } else { TlsRequirementType::None }.into(),
                include_request_attempt_count: counts_attempts,
                ..Default::default()
            };
            let version = Version::of(&virtual_host);
            let (routes, require_tls) = (draft.routes.clone(), draft.require_tls);
            (virtual_host, Source { draft: slot.draft, routes, require_tls, version })
        });
        virtual_hosts.push(virtual_host);
        sources.push(source);
    }
    let mut message = RouteConfiguration {
        name: frame.name.to_owned(),
        // A route to a cluster that does not exist answers 503 and leaves all other routes alone.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE_BODY),
        ignore_port_in_host_matching: frame.ignore_port,
        ..Default::default()
    };
    let version = Version::of_parts(&message, sources.iter().map(|source| source.version));
    message.virtual_hosts = virtual_hosts;
    let drafted = drafts.iter().map(|draft| (draft.name.clone(), draft.domains.clone())).collect();
    Table { resource: Resource::with_version(message, version, origins), sources, drafted }
}

/// A virtual host to be.
struct Slot {
    /// Place of its draft; `None` for the one for all other hosts.
    draft: Option<usize>,
    /// Its form in an older table, with the right name and domains.
    known: Option<(VirtualHost, Source)>,
    /// Its domains.
    domains: Vec<String>,
}

impl Table {
    /// The virtual hosts, if nobody else holds them, and if drafts with the same names and domains made them.
    fn reuse(self, drafts: &[Draft], counts_attempts: bool) -> Option<Vec<Slot>> {
        let same = |((name, domains), draft): (&(Arc<str>, Arc<Vec<String>>), &Draft)| {
            Arc::ptr_eq(name, &draft.name) && Arc::ptr_eq(domains, &draft.domains)
        };
        if self.drafted.len() != drafts.len() || !self.drafted.iter().zip(drafts).all(same) {
            return None;
        }
        let message = Arc::try_unwrap(self.resource.message).ok()?;
        let hosts = message.virtual_hosts.into_iter().zip(self.sources);
        let slot = |(mut host, source): (VirtualHost, Source)| {
            let is_right = source.draft.and_then(|draft| drafts.get(draft)).is_some_and(|draft| {
                Arc::ptr_eq(&source.routes, &draft.routes)
                    && source.require_tls == draft.require_tls
                    && host.include_request_attempt_count == counts_attempts
            });
            if is_right {
                Slot { draft: source.draft, known: Some((host, source)), domains: Vec::new() }
            } else {
                Slot { draft: source.draft, known: None, domains: std::mem::take(&mut host.domains) }
            }
        };
        Some(hosts.map(slot).collect())
    }
}

/// The virtual hosts that stay, each with the domains that are its own, sorted by name; the one for all other hosts comes
/// last, unless another has taken `*`.
fn unique(drafts: &[Draft], others: Option<&Draft>) -> Vec<Slot> {
    let mut names_taken = HashSet::with_capacity(drafts.len());
    let mut domains_taken: HashSet<Cow<'_, str>> = HashSet::with_capacity(drafts.len() * 6);
    let mut kept: Vec<(&Draft, Slot)> = Vec::with_capacity(drafts.len() + 1);
    for (index, draft) in drafts.iter().enumerate() {
        if !names_taken.insert(&*draft.name) {
            continue;
        }
        let own = draft.domains.iter().filter(|domain| domains_taken.insert(lower(domain)));
        let domains: Vec<String> = own.cloned().collect();
        if !domains.is_empty() {
            kept.push((draft, Slot { draft: Some(index), known: None, domains }));
        }
    }
    kept.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let mut slots: Vec<Slot> = kept.into_iter().map(|(_, slot)| slot).collect();
    if !domains_taken.contains("*") {
        slots.extend(others.map(|draft| Slot { draft: None, known: None, domains: draft.domains.to_vec() }));
    }
    slots
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
            name: name.into(),
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
