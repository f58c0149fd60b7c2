//! A route configuration as the data plane uses it: which virtual host a host name has, and what its routes do.
//!
//! Everything is decided here once: texts are parsed, expressions compiled, defaults and levels merged. What Envoy knows
//! and this data plane does not is refused with its field path, never skipped.

mod action;
mod cluster;
mod domains;
mod forward;
mod retry;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::route::v3 as route_v3;
use lateen_xds::envoy::r#type::matcher::v3::MetadataMatcher;
use lateen_xds::{Origin, Part};
use prost_types::Any;

pub use action::{DirectResponse, Redirect, RedirectPath, RedirectScheme};
pub use cluster::{ClusterName, ClusterSpecifier, WeightedCluster, WeightedClusters};
pub use forward::{
    CookieAttribute, Forward, GrpcTimeout, HashPolicy, HashSource, HostRewrite, InternalRedirect, Mirror, PathRewrite,
    Priority, Upgrade,
};
pub use retry::{
    DEFAULT_BASE as DEFAULT_BACK_OFF, RateLimitedBackOff, ResetHeader, ResetHeaderFormat, RetryOn, RetryPolicy,
    RetryReasons,
};

use self::domains::Domains;
use self::forward::VirtualHostDefaults;
use super::filter::Overrides;
use super::header_mutation::HeaderMutations;
use super::matcher::{CookieMatcher, Fraction, HeaderMatcher, PathMatcher, QueryMatcher, header_name, unsupported};
use super::{ClusterNames, Invalid};
use crate::http::head::{Head, HeaderName, Known};

/// Bytes of a direct response's body when the configuration sets no other maximum.
const MAX_DIRECT_RESPONSE_BODY: usize = 4096;

/// Configurations of HTTP filters by filter name, as received; the most specific level that has one counts.
pub type PerFilterConfigs = BTreeMap<String, Any>;

/// Envoy's `RouteConfiguration`.
#[derive(Debug)]
pub struct RouteConfig {
    /// Its name.
    pub name: Arc<str>,
    /// The virtual hosts in the order of the message.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Changes of requests on all routes.
    pub request_headers: HeaderMutations,
    /// Changes of responses on all routes.
    pub response_headers: HeaderMutations,
    /// `most_specific_header_mutations_wins`: the level of the route comes last.
    pub most_specific_header_mutations_wins: bool,
    /// `internal_only_headers`: to be removed from requests that are not internal.
    pub internal_only_headers: Vec<HeaderName>,
    /// `typed_per_filter_config`.
    pub per_filter_configs: PerFilterConfigs,
    domains: Domains,
    ignore_port: bool,
    ignore_path_parameters: bool,
}

/// Envoy's `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// The routes; the first one that matches counts.
    pub routes: Vec<Route>,
    /// `require_tls`.
    pub require_tls: RequireTls,
    /// Changes of requests.
    pub request_headers: HeaderMutations,
    /// Changes of responses.
    pub response_headers: HeaderMutations,
    /// The upstream is told the number of the attempt (`x-envoy-attempt-count`).
    pub include_request_attempt_count: bool,
    /// The client is told the number of attempts.
    pub include_attempt_count_in_response: bool,
    /// The upstream is told that the attempt before ran into a timeout (`x-envoy-is-timeout-retry`).
    pub include_is_timeout_retry_header: bool,
    /// `rate_limits`, for the rate limit filters.
    pub rate_limits: Vec<route_v3::RateLimit>,
    /// `typed_per_filter_config`.
    pub per_filter_configs: PerFilterConfigs,
    /// Where it comes from.
    pub origin: Option<Origin>,
}

/// Who must come over TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// Nobody.
    #[default]
    None,
    /// All requests that are not internal.
    ExternalOnly,
    /// All requests.
    All,
}

/// Envoy's `Route`.
#[derive(Debug)]
pub struct Route {
    /// `%ROUTE_NAME%`; empty when unnamed.
    pub name: Arc<str>,
    /// Its path condition, which rewrites refer to.
    pub matcher: PathMatcher,
    /// What it does.
    pub action: Action,
    /// Changes of requests.
    pub request_headers: HeaderMutations,
    /// Changes of responses.
    pub response_headers: HeaderMutations,
    /// `stat_prefix` of its own statistics.
    pub stat_prefix: Option<Arc<str>>,
    /// `typed_per_filter_config`.
    pub per_filter_configs: PerFilterConfigs,
    /// What the route and the levels above it say of filters.
    pub filters: Overrides,
    /// Where it comes from.
    pub origin: Option<Origin>,
    conditions: Vec<Condition>,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Sends the request to a cluster.
    Forward(Box<Forward>),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers itself.
    Direct(DirectResponse),
}

/// A condition of a route besides its path.
#[derive(Debug)]
enum Condition {
    Header(HeaderMatcher),
    Query(QueryMatcher),
    Cookie(CookieMatcher),
    Grpc,
    Fraction(Fraction),
    /// Asks for a claim of a token: tokens are not read here, so no request has one.
    Claim,
}

impl RouteConfig {
    /// Reads the message. `origins` say where its parts come from.
    ///
    /// # Errors
    /// The first field that Envoy would refuse too, or that this data plane does not honour.
    pub fn build(
        message: &route_v3::RouteConfiguration,
        origins: &[(Part, Origin)],
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        refuse(message.vhds.is_some(), "vhds", "virtual hosts on demand (VHDS)")?;
        refuse(
            !message.cluster_specifier_plugins.is_empty(),
            "cluster_specifier_plugins",
            "cluster specifier plugins",
        )?;
        refuse(!message.vhost_header.is_empty(), "vhost_header", "virtual hosts by another header")?;
        refuse(!message.route_specifiers.is_empty(), "route_specifiers", "route specifiers")?;
        let domains = Domains::build(&message.virtual_hosts, &message.name)?;
        let origins: HashMap<Part, &Origin> = origins.iter().map(|(part, origin)| (*part, origin)).collect();
        let max_body = message.max_direct_response_body_size_bytes;
        let max_body = max_body.map_or(MAX_DIRECT_RESPONSE_BODY, |bytes| bytes as usize);
        let filters = Overrides::build(&message.typed_per_filter_config, None, names)?;
        let virtual_hosts = message
            .virtual_hosts
            .iter()
            .enumerate()
            .map(|(index, host)| {
                let mut builder =
                    HostBuilder { config: message, max_body, origins: &origins, filters: &filters, index, names };
                builder.build(host).map_err(|invalid| invalid.under(&format!("virtual_hosts[{index}]")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: message.name.as_str().into(),
            virtual_hosts,
            request_headers: HeaderMutations::build(
                &message.request_headers_to_add,
                &message.request_headers_to_remove,
                "request_headers",
            )?,
            response_headers: HeaderMutations::build(
                &message.response_headers_to_add,
                &message.response_headers_to_remove,
                "response_headers",
            )?,
            most_specific_header_mutations_wins: message.most_specific_header_mutations_wins,
            internal_only_headers: header_names(&message.internal_only_headers, "internal_only_headers")?,
            per_filter_configs: message.typed_per_filter_config.clone(),
            domains,
            ignore_port: message.ignore_port_in_host_matching,
            ignore_path_parameters: message.ignore_path_parameters_in_path_matching,
        })
    }

    /// The virtual host for an authority: by its exact name, else by the longest `*.suffix`, else by the longest
    /// `prefix.*`, else the one for `*`. The port is a part of the name unless the configuration ignores it.
    #[must_use]
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&VirtualHost> {
        let name = if self.ignore_port { without_port(authority) } else { authority };
        self.virtual_hosts.get(self.domains.find(name)?)
    }

    /// The part of a path that routes are compared with: without query, fragment and, if wished, the `;` parameters of
    /// its segments.
    #[inline]
    #[must_use]
    pub fn matched_path<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let path = super::matcher::without_query(path);
        if self.ignore_path_parameters && path.contains(&b';') {
            let names = path.split(|byte| *byte == b'/').map(|part| part.split(|byte| *byte == b';').next());
            return Cow::Owned(names.map(Option::unwrap_or_default).collect::<Vec<_>>().join(&b'/'));
        }
        Cow::Borrowed(path)
    }
}

impl VirtualHost {
    /// Whether this request has to come again over TLS; the scheme is the one of `x-forwarded-proto`.
    #[must_use]
    pub fn demands_tls(&self, request: &Head) -> bool {
        let external = match self.require_tls {
            RequireTls::None => return false,
            RequireTls::ExternalOnly => !request.contains(Known::XEnvoyInternal),
            RequireTls::All => true,
        };
        external && forwarded_scheme(request) != b"https"
    }
}

impl Route {
    /// Whether a request is this route's. `path` is the part of its path that counts, see
    /// [`RouteConfig::matched_path`]; `random` decides about a fraction of the requests.
    #[inline]
    #[must_use]
    pub fn matches(&self, request: &Head, path: &[u8], random: u64) -> bool {
        self.matcher.matches(request, path)
            && self.conditions.iter().all(|condition| match condition {
                Condition::Header(matcher) => matcher.matches(request),
                Condition::Query(matcher) => matcher.matches(request.path()),
                Condition::Cookie(matcher) => matcher.matches(request),
                Condition::Grpc => is_grpc(request),
                Condition::Fraction(fraction) => fraction.includes(random),
                Condition::Claim => false,
            })
    }
}

/// The scheme that the request had where it entered the mesh.
pub(crate) fn forwarded_scheme(request: &Head) -> &[u8] {
    request.get(Known::XForwardedProto).unwrap_or_else(|| request.scheme())
}

/// Builds one virtual host.
struct HostBuilder<'a> {
    config: &'a route_v3::RouteConfiguration,
    max_body: usize,
    origins: &'a HashMap<Part, &'a Origin>,
    filters: &'a Overrides,
    index: usize,
    names: &'a mut ClusterNames,
}

impl HostBuilder<'_> {
    fn build(&mut self, message: &route_v3::VirtualHost) -> Result<VirtualHost, Invalid> {
        refuse(message.matcher.is_some(), "matcher", "matching trees")?;
        refuse(!message.virtual_clusters.is_empty(), "virtual_clusters", "virtual clusters")?;
        refuse(!message.route_specifiers.is_empty(), "route_specifiers", "route specifiers")?;
        refuse(message.cors.is_some(), "cors", "CORS policies outside typed_per_filter_config")?;
        let defaults = VirtualHostDefaults::build(self.config, message, self.names)?;
        let filters = Overrides::build(&message.typed_per_filter_config, Some(self.filters), self.names)?;
        let routes = message
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                self.route(route, index, &defaults, &filters)
                    .map_err(|invalid| invalid.under(&format!("routes[{index}]")))
            })
            .collect::<Result<_, _>>()?;
        Ok(VirtualHost {
            name: message.name.as_str().into(),
            routes,
            require_tls: require_tls(message.require_tls)?,
            request_headers: HeaderMutations::build(
                &message.request_headers_to_add,
                &message.request_headers_to_remove,
                "request_headers",
            )?,
            response_headers: HeaderMutations::build(
                &message.response_headers_to_add,
                &message.response_headers_to_remove,
                "response_headers",
            )?,
            include_request_attempt_count: message.include_request_attempt_count,
            include_attempt_count_in_response: message.include_attempt_count_in_response,
            include_is_timeout_retry_header: message.include_is_timeout_retry_header,
            rate_limits: message.rate_limits.clone(),
            per_filter_configs: message.typed_per_filter_config.clone(),
            origin: self.origin(Part::VirtualHost(self.index)),
        })
    }

    fn route(
        &mut self,
        message: &route_v3::Route,
        index: usize,
        defaults: &VirtualHostDefaults,
        filters: &Overrides,
    ) -> Result<Route, Invalid> {
        refuse(!message.route_specifiers.is_empty(), "route_specifiers", "route specifiers")?;
        let Some(rule) = &message.r#match else {
            return Err(Invalid::at("match", "a route needs a match".into()));
        };
        let filters = Overrides::build(&message.typed_per_filter_config, Some(filters), self.names)?;
        let action = match &message.action {
            Some(route_v3::route::Action::Route(action)) => Action::Forward(Box::new(
                Forward::build(action, message, defaults, &filters, self.names)
                    .map_err(|invalid| invalid.under("route"))?,
            )),
            Some(route_v3::route::Action::Redirect(redirect)) => {
                Action::Redirect(Redirect::build(redirect).map_err(|invalid| invalid.under("redirect"))?)
            }
            Some(route_v3::route::Action::DirectResponse(direct)) => Action::Direct(
                DirectResponse::build(direct, self.max_body).map_err(|invalid| invalid.under("direct_response"))?,
            ),
            Some(route_v3::route::Action::FilterAction(_)) => {
                return Err(unsupported("filter_action", "filter actions"));
            }
            Some(route_v3::route::Action::NonForwardingAction(_)) => {
                return Err(unsupported("non_forwarding_action", "routes that do not forward"));
            }
            None => {
                return Err(Invalid::at("action", "one of route, redirect and direct_response is required".into()));
            }
        };
        Ok(Route {
            name: message.name.as_str().into(),
            matcher: PathMatcher::build(rule).map_err(|invalid| invalid.under("match"))?,
            action,
            request_headers: HeaderMutations::build(
                &message.request_headers_to_add,
                &message.request_headers_to_remove,
                "request_headers",
            )?,
            response_headers: HeaderMutations::build(
                &message.response_headers_to_add,
                &message.response_headers_to_remove,
                "response_headers",
            )?,
            stat_prefix: (!message.stat_prefix.is_empty()).then(|| message.stat_prefix.as_str().into()),
            per_filter_configs: message.typed_per_filter_config.clone(),
            filters,
            origin: self.origin(Part::Route { virtual_host: self.index, route: index }),
            conditions: conditions(rule).map_err(|invalid| invalid.under("match"))?,
        })
    }

    /// The origin of a part, or else of the next larger part that has one.
    fn origin(&self, part: Part) -> Option<Origin> {
        std::iter::successors(Some(part), |part| part.parent())
            .find_map(|part| self.origins.get(&part))
            .map(|origin| Origin::clone(origin))
    }
}

/// The filter that reads tokens, under whose name routes look for claims.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// The conditions of a match besides the path, cheap ones first.
fn conditions(message: &route_v3::RouteMatch) -> Result<Vec<Condition>, Invalid> {
    refuse(message.tls_context.is_some(), "tls_context", "conditions on client certificates")?;
    let is_of_token = |matcher: &MetadataMatcher| matcher.filter == JWT_FILTER;
    let all_of_tokens = message.dynamic_metadata.iter().all(is_of_token);
    refuse(!all_of_tokens, "dynamic_metadata", "conditions on dynamic metadata")?;
    refuse(!message.filter_state.is_empty(), "filter_state", "conditions on filter state")?;
    let mut conditions = Vec::new();
    // Without the JWT filter, which is refused, its metadata are absent: what is inverted always holds.
    if message.dynamic_metadata.iter().any(|matcher| !matcher.invert) {
        conditions.push(Condition::Claim);
    }
    if message.grpc.is_some() {
        conditions.push(Condition::Grpc);
    }
    for (index, header) in message.headers.iter().enumerate() {
        let matcher = HeaderMatcher::build(header).map_err(|invalid| invalid.under(&format!("headers[{index}]")))?;
        conditions.push(Condition::Header(matcher));
    }
    for (index, parameter) in message.query_parameters.iter().enumerate() {
        let field = format!("query_parameters[{index}]");
        conditions.push(Condition::Query(QueryMatcher::build(parameter).map_err(|invalid| invalid.under(&field))?));
    }
    for (index, cookie) in message.cookies.iter().enumerate() {
        let matcher = CookieMatcher::build(cookie).map_err(|invalid| invalid.under(&format!("cookies[{index}]")))?;
        conditions.push(Condition::Cookie(matcher));
    }
    if let Some(fraction) = &message.runtime_fraction {
        let fraction = Fraction::build_default(fraction).map_err(|invalid| invalid.under("runtime_fraction"))?;
        conditions.push(Condition::Fraction(fraction));
    }
    Ok(conditions)
}

/// Refuses a field that is set although nothing here honours it.
fn refuse(set: bool, path: &str, what: &str) -> Result<(), Invalid> {
    if set { Err(unsupported(path, what)) } else { Ok(()) }
}

fn header_names(texts: &[String], field: &str) -> Result<Vec<HeaderName>, Invalid> {
    texts.iter().enumerate().map(|(index, text)| header_name(text, &format!("{field}[{index}]"))).collect()
}

fn header_matchers(messages: &[route_v3::HeaderMatcher], field: &str) -> Result<Vec<HeaderMatcher>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            HeaderMatcher::build(message).map_err(|invalid| invalid.under(&format!("{field}[{index}]")))
        })
        .collect()
}

fn require_tls(value: i32) -> Result<RequireTls, Invalid> {
    use route_v3::virtual_host::TlsRequirementType;
    match TlsRequirementType::try_from(value) {
        Ok(TlsRequirementType::None) => Ok(RequireTls::None),
        Ok(TlsRequirementType::ExternalOnly) => Ok(RequireTls::ExternalOnly),
        Ok(TlsRequirementType::All) => Ok(RequireTls::All),
        Err(_) => Err(Invalid::at("require_tls", format!("{value} is no TLS requirement"))),
    }
}

/// A text of a data source that lies in the message itself.
pub(super) fn inline_bytes(source: &core_v3::DataSource) -> Result<&[u8], Invalid> {
    use core_v3::data_source::Specifier;
    match &source.specifier {
        None => Ok(b""),
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::Filename(_)) => Err(unsupported("filename", "bodies from files")),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(unsupported("environment_variable", "bodies from environment variables"))
        }
    }
}

/// A host without what follows its last colon, which in `[…]` is a part of the address.
fn without_port(host: &[u8]) -> &[u8] {
    let Some(colon) = host.iter().rposition(|byte| *byte == b':') else { return host };
    if host[colon..].contains(&b']') { host } else { &host[..colon] }
}

fn is_grpc(request: &Head) -> bool {
    crate::http::reply::is_grpc(request)
}

#[cfg(test)]
mod tests;
