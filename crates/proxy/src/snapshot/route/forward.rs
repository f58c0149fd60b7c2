//! What does a route say about requests that it sends to a cluster: which cluster, how long, with which rewrites?

use std::sync::Arc;
use std::time::Duration;

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::route::v3 as route_v3;
use lateen_xds::envoy::r#type::matcher::v3 as matcher_v3;

use super::super::fields::{duration, limit};
use super::super::filter::Overrides;
use super::super::matcher::{Fraction, header_name, unsupported};
use super::super::regex::Substitution;
use super::super::subset::Criteria;
use super::super::{ClusterNames, Invalid};
use super::cluster::{ClusterName, ClusterSpecifier, named};
use super::{RetryPolicy, refuse};
use crate::http::head::HeaderName;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Envoy's `RouteAction`, with what the virtual host and the route configuration say where it says nothing.
#[derive(Debug)]
pub struct Forward {
    /// The cluster, or how it is found.
    pub cluster: ClusterSpecifier,
    /// Status when the cluster does not exist: 503, 404 or 500.
    pub cluster_not_found_status: u16,
    /// From the end of the request to the end of the response, all tries together; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Replaces the stream idle timeout of the connection manager; zero is no limit.
    pub idle_timeout: Option<Duration>,
    /// Limit of the whole stream in place of the connection manager's; zero is no limit.
    pub max_stream_duration: Option<Duration>,
    /// The route has `max_stream_duration`: then it has no timeout, and `grpc-timeout` limits the stream.
    pub limits_streams: bool,
    /// How `grpc-timeout` counts; `None` is not at all.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// The policy of the route, or else of the virtual host.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Which path the upstream sees.
    pub path_rewrite: Option<PathRewrite>,
    /// Which host the upstream sees.
    pub host_rewrite: Option<HostRewrite>,
    /// A host rewrite appends the old host to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Of what a hash for the load balancer is made.
    pub hash_policy: Vec<HashPolicy>,
    /// `metadata_match`: which hosts of the cluster are meant.
    pub criteria: Criteria,
    /// Clusters that get a copy: those of the route, or else of the virtual host, or else of the configuration.
    pub mirrors: Vec<Arc<Mirror>>,
    /// Which circuit breaker thresholds count.
    pub priority: Priority,
    /// Redirect responses that the proxy follows itself.
    pub internal_redirect: Option<InternalRedirect>,
    /// Upgrades that the route allows or forbids, in place of the connection manager's.
    pub upgrades: Vec<Upgrade>,
    /// Bytes of the request that are kept for a retry.
    pub request_buffer_limit: Option<u64>,
    /// `rate_limits`, for the rate limit filters.
    pub rate_limits: Vec<route_v3::RateLimit>,
}

/// How the client's `grpc-timeout` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// It counts at most so much; `None` is no limit.
    pub max: Option<Duration>,
    /// It is shortened by so much.
    pub offset: Duration,
}

/// What becomes of the path.
#[derive(Debug)]
pub enum PathRewrite {
    /// The matched prefix, or the whole path if an exact path or an expression matched, is replaced.
    Prefix(Box<[u8]>),
    /// All matches in the path are replaced.
    Regex(Substitution),
}

/// What becomes of the host.
#[derive(Debug)]
pub enum HostRewrite {
    /// It is this one.
    Literal(Box<[u8]>),
    /// It is the host name of the endpoint that was picked.
    Auto,
    /// It is the value of a request header, if there is one.
    Header(HeaderName),
    /// It is the path, with all matches replaced.
    PathRegex(Substitution),
}

/// One part of the hash; Envoy's `HashPolicy`.
#[derive(Debug)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// If it is there, later policies do not count.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Debug)]
pub enum HashSource {
    /// A request header.
    Header {
        /// Its name.
        name: HeaderName,
        /// What is done to each value before.
        rewrite: Option<Substitution>,
    },
    /// A cookie.
    Cookie {
        /// Its name.
        name: Box<[u8]>,
        /// A missing cookie is made up and lasts so long; zero is until the client forgets it. `None`: no cookie.
        ttl: Option<Duration>,
        /// `Path` of a made-up cookie.
        path: Box<[u8]>,
        /// Further attributes of a made-up cookie.
        attributes: Vec<CookieAttribute>,
    },
    /// The client's address without its port.
    SourceIp,
    /// The first value of a query parameter.
    QueryParameter(Box<[u8]>),
}

/// An attribute of a cookie that is made up: `name=value`, or `name` if the value is empty.
#[derive(Debug)]
pub struct CookieAttribute {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
}

/// A cluster that gets a copy of the request; Envoy's `RequestMirrorPolicy`.
#[derive(Debug)]
pub struct Mirror {
    /// The cluster.
    pub cluster: ClusterName,
    /// How many requests are copied.
    pub fraction: Fraction,
    /// The host keeps its name instead of getting `-shadow`.
    pub keep_host: bool,
    /// The host of the copy.
    pub host_rewrite: Option<Box<[u8]>>,
    /// Whether the copy is traced; `None` is as the request.
    pub trace_sampled: Option<bool>,
}

/// Which circuit breaker thresholds count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Those of the default priority.
    #[default]
    Default,
    /// Those of the high priority.
    High,
}

/// Envoy's `InternalRedirectPolicy`.
#[derive(Debug)]
pub struct InternalRedirect {
    /// Most redirects that are followed for one request.
    pub max: u32,
    /// Statuses that are followed.
    pub statuses: Vec<u16>,
    /// From `http` to `https` and back too.
    pub allow_cross_scheme: bool,
    /// Headers of the redirect response that the next request gets.
    pub headers_to_copy: Vec<HeaderName>,
}

/// An upgrade that a route allows or forbids.
#[derive(Debug)]
pub struct Upgrade {
    /// `websocket`, `CONNECT`, … in lower case.
    pub kind: Box<str>,
    /// Whether it is allowed.
    pub enabled: bool,
    /// The proxy ends a `CONNECT` itself and carries its bytes.
    pub connect: bool,
}

/// What the levels above a route say for routes that say nothing.
#[derive(Debug)]
pub(super) struct VirtualHostDefaults {
    retry: Option<Arc<RetryPolicy>>,
    mirrors: Vec<Arc<Mirror>>,
    buffer_limit: Option<u64>,
}

impl VirtualHostDefaults {
    pub(super) fn build(
        config: &route_v3::RouteConfiguration,
        host: &route_v3::VirtualHost,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        refuse(host.retry_policy_typed_config.is_some(), "retry_policy_typed_config", "retry policy extensions")?;
        refuse(host.hedge_policy.is_some(), "hedge_policy", "hedged requests")?;
        let retry = host.retry_policy.as_ref().map(RetryPolicy::build).transpose();
        let mirrors = if host.request_mirror_policies.is_empty() {
            &config.request_mirror_policies
        } else {
            &host.request_mirror_policies
        };
        let buffer_limit = host.request_body_buffer_limit.or(host.per_request_buffer_limit_bytes.map(u64::from));
        Ok(Self {
            retry: retry.map_err(|invalid| invalid.under("retry_policy"))?.map(Arc::new),
            mirrors: build_mirrors(mirrors, names)?,
            buffer_limit,
        })
    }
}

impl Forward {
    pub(super) fn build(
        message: &route_v3::RouteAction,
        route: &route_v3::Route,
        defaults: &VirtualHostDefaults,
        filters: &Overrides,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        refuse_unsupported(message)?;
        let retry = match &message.retry_policy {
            Some(policy) => {
                Some(Arc::new(RetryPolicy::build(policy).map_err(|invalid| invalid.under("retry_policy"))?))
            }
            None => defaults.retry.clone(),
        };
        let mirrors = if message.request_mirror_policies.is_empty() {
            defaults.mirrors.clone()
        } else {
            build_mirrors(&message.request_mirror_policies, names)?
        };
        let stream = message.max_stream_duration.as_ref();
        let max_stream_duration = stream.and_then(|stream| stream.max_stream_duration.as_ref());
        let buffer_limit = route.request_body_buffer_limit.or(route.per_request_buffer_limit_bytes.map(u64::from));
        Ok(Self {
            cluster: ClusterSpecifier::build(message, filters, names)?,
            cluster_not_found_status: cluster_not_found_status(message.cluster_not_found_response_code)?,
            timeout: match &message.timeout {
                _ if stream.is_some() => None,
                Some(timeout) => limit(Some(timeout), "timeout")?,
                None => Some(DEFAULT_TIMEOUT),
            },
            idle_timeout: message.idle_timeout.as_ref().map(|idle| duration(idle, "idle_timeout")).transpose()?,
            max_stream_duration: max_stream_duration
                .map(|limit| duration(limit, "max_stream_duration.max_stream_duration"))
                .transpose()?,
            limits_streams: stream.is_some(),
            grpc_timeout: grpc_timeout(message)?,
            retry,
            path_rewrite: path_rewrite(message)?,
            host_rewrite: host_rewrite(message)?,
            append_x_forwarded_host: message.append_x_forwarded_host,
            hash_policy: message
                .hash_policy
                .iter()
                .enumerate()
                .map(|(index, policy)| hash_policy(policy).map_err(|i| i.under(&format!("hash_policy[{index}]"))))
                .collect::<Result<_, _>>()?,
            criteria: Criteria::of(message.metadata_match.as_ref()),
            mirrors,
            priority: match core_v3::RoutingPriority::try_from(message.priority) {
                Ok(core_v3::RoutingPriority::Default) => Priority::Default,
                Ok(core_v3::RoutingPriority::High) => Priority::High,
                Err(_) => return Err(Invalid::at("priority", format!("{} is no priority", message.priority))),
            },
            internal_redirect: internal_redirect(message)?,
            upgrades: upgrades(message)?,
            request_buffer_limit: buffer_limit.or(defaults.buffer_limit),
            rate_limits: message.rate_limits.clone(),
        })
    }
}

/// Compiles `RegexMatchAndSubstitute`.
pub(super) fn substitution(
    message: &matcher_v3::RegexMatchAndSubstitute,
    field: &str,
) -> Result<Substitution, Invalid> {
    let pattern = message.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
    Substitution::build(pattern, &message.substitution).map_err(|invalid| invalid.under(field))
}

fn refuse_unsupported(message: &route_v3::RouteAction) -> Result<(), Invalid> {
    refuse(message.path_rewrite_policy.is_some(), "path_rewrite_policy", "URI templates")?;
    refuse(!message.path_rewrite.is_empty(), "path_rewrite", "formatted paths")?;
    refuse(message.flush_timeout.is_some(), "flush_timeout", "flush timeouts")?;
    refuse(message.retry_policy_typed_config.is_some(), "retry_policy_typed_config", "retry policy extensions")?;
    refuse(message.hedge_policy.is_some(), "hedge_policy", "hedged requests")?;
    {
        refuse(message.cors.is_some(), "cors", "CORS policies outside typed_per_filter_config")?;
        refuse(
            message.internal_redirect_action != 0 || message.max_internal_redirects.is_some(),
            "internal_redirect_action",
            "internal redirects outside internal_redirect_policy",
        )?;
    }
    Ok(())
}

fn cluster_not_found_status(value: i32) -> Result<u16, Invalid> {
    use route_v3::route_action::ClusterNotFoundResponseCode as Code;
    match Code::try_from(value) {
        Ok(Code::ServiceUnavailable) => Ok(503),
        Ok(Code::NotFound) => Ok(404),
        Ok(Code::InternalServerError) => Ok(500),
        Err(_) => Err(Invalid::at("cluster_not_found_response_code", format!("{value} is no response code"))),
    }
}

fn grpc_timeout(message: &route_v3::RouteAction) -> Result<Option<GrpcTimeout>, Invalid> {
    let stream = message.max_stream_duration.as_ref();
    let (max, offset) = match stream.and_then(|stream| stream.grpc_timeout_header_max.as_ref()) {
        Some(max) => (Some(max), stream.and_then(|stream| stream.grpc_timeout_header_offset.as_ref())),
        None => (message.max_grpc_timeout.as_ref(), message.grpc_timeout_offset.as_ref()),
    };
    let Some(max) = max else { return Ok(None) };
    let offset = offset.map(|offset| duration(offset, "grpc_timeout_offset")).transpose()?.unwrap_or_default();
    Ok(Some(GrpcTimeout { max: limit(Some(max), "max_grpc_timeout")?, offset }))
}

fn path_rewrite(message: &route_v3::RouteAction) -> Result<Option<PathRewrite>, Invalid> {
    match (&message.prefix_rewrite, &message.regex_rewrite) {
        (prefix, None) if prefix.is_empty() => Ok(None),
        (prefix, None) => Ok(Some(PathRewrite::Prefix(prefix.as_bytes().into()))),
        (prefix, Some(regex)) if prefix.is_empty() => {
            Ok(Some(PathRewrite::Regex(substitution(regex, "regex_rewrite")?)))
        }
        _ => Err(Invalid::at("regex_rewrite", "prefix_rewrite and regex_rewrite exclude each other".into())),
    }
}

fn host_rewrite(message: &route_v3::RouteAction) -> Result<Option<HostRewrite>, Invalid> {
    use route_v3::route_action::HostRewriteSpecifier as Specifier;
    Ok(match &message.host_rewrite_specifier {
        None | Some(Specifier::AutoHostRewrite(false)) => None,
        Some(Specifier::HostRewriteLiteral(host)) if host.is_empty() => None,
        Some(Specifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host.as_bytes().into())),
        Some(Specifier::AutoHostRewrite(true)) => Some(HostRewrite::Auto),
        Some(Specifier::HostRewriteHeader(name)) if name.is_empty() => None,
        Some(Specifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(header_name(name, "host_rewrite_header")?))
        }
        Some(Specifier::HostRewritePathRegex(regex)) => {
            Some(HostRewrite::PathRegex(substitution(regex, "host_rewrite_path_regex")?))
        }
        Some(Specifier::HostRewrite(_)) => return Err(unsupported("host_rewrite", "formatted hosts")),
    })
}

fn hash_policy(message: &route_v3::route_action::HashPolicy) -> Result<HashPolicy, Invalid> {
    use route_v3::route_action::hash_policy::PolicySpecifier;
    let source = match &message.policy_specifier {
        Some(PolicySpecifier::Header(header)) => HashSource::Header {
            name: header_name(&header.header_name, "header.header_name")?,
            rewrite: header
                .regex_rewrite
                .as_ref()
                .map(|rewrite| substitution(rewrite, "header.regex_rewrite"))
                .transpose()?,
        },
        Some(PolicySpecifier::Cookie(cookie)) => HashSource::Cookie {
            name: required(&cookie.name, "cookie.name")?,
            ttl: cookie.ttl.as_ref().map(|ttl| duration(ttl, "cookie.ttl")).transpose()?,
            path: cookie.path.as_bytes().into(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute {
                    name: attribute.name.as_bytes().into(),
                    value: attribute.value.as_bytes().into(),
                })
                .collect(),
        },
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => HashSource::SourceIp,
        Some(PolicySpecifier::ConnectionProperties(_)) => {
            return Err(Invalid::at("connection_properties.source_ip", "must be true; nothing else is hashed".into()));
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            HashSource::QueryParameter(required(&parameter.name, "query_parameter.name")?)
        }
        Some(PolicySpecifier::FilterState(_)) => return Err(unsupported("filter_state", "hashes of filter state")),
        None => return Err(Invalid::at("policy_specifier", "one of header, cookie, … is required".into())),
    };
    Ok(HashPolicy { source, terminal: message.terminal })
}

fn build_mirrors(
    messages: &[route_v3::route_action::RequestMirrorPolicy],
    names: &mut ClusterNames,
) -> Result<Vec<Arc<Mirror>>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let field = format!("request_mirror_policies[{index}]");
            mirror(message, names).map(Arc::new).map_err(|invalid| invalid.under(&field))
        })
        .collect()
}

fn mirror(message: &route_v3::route_action::RequestMirrorPolicy, names: &mut ClusterNames) -> Result<Mirror, Invalid> {
    refuse(
        !message.request_headers_mutations.is_empty(),
        "request_headers_mutations",
        "header changes of mirrored requests",
    )?;
    let fraction = match &message.runtime_fraction {
        Some(fraction) => Fraction::build_default(fraction).map_err(|invalid| invalid.under("runtime_fraction"))?,
        None => Fraction::ALL,
    };
    let host_rewrite = &message.host_rewrite_literal;
    Ok(Mirror {
        cluster: named(&message.cluster, &message.cluster_header, "cluster", names)?,
        fraction,
        keep_host: message.disable_shadow_host_suffix_append,
        host_rewrite: (!host_rewrite.is_empty()).then(|| host_rewrite.as_bytes().into()),
        trace_sampled: message.trace_sampled,
    })
}

fn internal_redirect(message: &route_v3::RouteAction) -> Result<Option<InternalRedirect>, Invalid> {
    let Some(policy) = &message.internal_redirect_policy else { return Ok(None) };
    let path = "internal_redirect_policy";
    refuse(!policy.predicates.is_empty(), &format!("{path}.predicates"), "predicates of internal redirects")?;
    // Of what is listed Envoy heeds the redirect codes only; nothing listed means 302.
    let mut statuses: Vec<u16> = policy
        .redirect_response_codes
        .iter()
        .filter_map(|code| u16::try_from(*code).ok())
        .filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308))
        .collect();
    if policy.redirect_response_codes.is_empty() {
        statuses.push(302);
    }
    Ok(Some(InternalRedirect {
        max: policy.max_internal_redirects.unwrap_or(1),
        statuses,
        allow_cross_scheme: policy.allow_cross_scheme_redirect,
        headers_to_copy: super::header_names(
            &policy.response_headers_to_copy,
            &format!("{path}.response_headers_to_copy"),
        )?,
    }))
}

fn upgrades(message: &route_v3::RouteAction) -> Result<Vec<Upgrade>, Invalid> {
    let mut upgrades: Vec<Upgrade> = Vec::new();
    for (index, upgrade) in message.upgrade_configs.iter().enumerate() {
        let path = format!("upgrade_configs[{index}]");
        let kind = upgrade.upgrade_type.to_ascii_lowercase();
        if upgrades.iter().any(|known| *known.kind == kind) {
            return Err(Invalid::at(
                format!("{path}.upgrade_type"),
                format!("Duplicate upgrade {}", upgrade.upgrade_type),
            ));
        }
        if let Some(connect) = &upgrade.connect_config {
            if kind != "connect" {
                let message = format!("Non-CONNECT upgrade type {} has ConnectConfig", upgrade.upgrade_type);
                return Err(Invalid::at(format!("{path}.connect_config"), message));
            }
            let plain = connect.proxy_protocol_config.is_none() && !connect.allow_post;
            refuse(!plain, &format!("{path}.connect_config"), "settings of CONNECT")?;
        }
        let connect = upgrade.connect_config.is_some();
        upgrades.push(Upgrade { kind: kind.into(), enabled: upgrade.enabled.unwrap_or(true), connect });
    }
    Ok(upgrades)
}

fn required(text: &str, path: &str) -> Result<Box<[u8]>, Invalid> {
    if text.is_empty() { Err(Invalid::at(path, "must not be empty".into())) } else { Ok(text.as_bytes().into()) }
}
