//! What happens to a request on its way? Time limits, retries, faults, mirrors, rewrites, headers, and the filters of
//! the connection manager that may answer by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use lateen_xds::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use lateen_xds::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use lateen_xds::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, WeightedCluster,
};
use lateen_xds::envoy::extensions::filters::common::fault::v3::fault_delay;
use lateen_xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use lateen_xds::envoy::extensions::filters::http::fault::v3::{HttpFault, fault_abort};
use lateen_xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use lateen_xds::envoy::extensions::filters::http::ratelimit::v3::RateLimit;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use lateen_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use lateen_xds::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use prost::Name;
use prost_types::Any;

use super::call::Call;
use super::explanation::{Policies, Retries};
use super::json::seconds;
use super::{action, matcher};

/// Envoy's limit for routes that name none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Filters that stand in every chain and do nothing that is worth a word.
const SILENT: [&str; 8] = [
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "stats.PluginConfig",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
];

/// The levels at which a request can be configured, the most specific last.
#[derive(Clone, Copy)]
pub(crate) struct Levels<'a> {
    pub(crate) routes: &'a RouteConfiguration,
    pub(crate) virtual_host: &'a VirtualHost,
    pub(crate) route: &'a Route,
}

impl Levels<'_> {
    /// Configuration of a filter at the most specific level that has one.
    fn filter<M: Name + Default>(&self, name: &str) -> Option<M> {
        let levels: [&BTreeMap<String, Any>; 3] = [
            &self.route.typed_per_filter_config,
            &self.virtual_host.typed_per_filter_config,
            &self.routes.typed_per_filter_config,
        ];
        levels.into_iter().find_map(|level| level.get(name)).and_then(|config| any::unpack(config).ok())
    }
}

/// What concerns every route, whatever its action.
pub(crate) fn common(levels: Levels<'_>, manager: &HttpConnectionManager, call: &Call, policies: &mut Policies) {
    let Levels { routes, virtual_host, route } = levels;
    for (add, remove) in [
        (&route.request_headers_to_add, &route.request_headers_to_remove),
        (&virtual_host.request_headers_to_add, &virtual_host.request_headers_to_remove),
        (&routes.request_headers_to_add, &routes.request_headers_to_remove),
    ] {
        policies.request_headers.extend(operations(add, remove));
    }
    for (add, remove) in [
        (&route.response_headers_to_add, &route.response_headers_to_remove),
        (&virtual_host.response_headers_to_add, &virtual_host.response_headers_to_remove),
        (&routes.response_headers_to_add, &routes.response_headers_to_remove),
    ] {
        policies.response_headers.extend(operations(add, remove));
    }
    for filter in &manager.http_filters {
        let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
            policies.filters.push(filter.name.clone());
            continue;
        };
        if any::is::<HttpFault>(config) {
            if let Some(fault) = levels.filter(&filter.name).or_else(|| any::unpack(config).ok()) {
                self::fault(&fault, call, policies);
            }
        } else if any::type_name(&config.type_url).ends_with("cors.v3.Cors") {
            if let Some(policy) = levels.filter(&filter.name) {
                policies.cors = cors(&policy, call);
            }
        } else {
            policies.filters.extend(other_filter(filter, config, levels));
        }
    }
}

/// What concerns routes that forward.
pub(crate) fn forward(levels: Levels<'_>, action: &RouteAction, call: &Call, path: &str, policies: &mut Policies) {
    policies.timeout = match &action.timeout {
        Some(timeout) => Some(duration(timeout)).filter(|timeout| !timeout.is_zero()),
        None => Some(DEFAULT_TIMEOUT),
    };
    policies.retries = action.retry_policy.as_ref().or(levels.virtual_host.retry_policy.as_ref()).map(retries);
    policies.mirrors = mirrors(levels, action);
    let new_path = action::rewritten_path(levels.route, action, path);
    policies.path = (new_path != path).then_some(new_path);
    policies.host = action::rewritten_host(action, call, path).filter(|host| *host != call.authority);
    policies.hash = action.hash_policy.iter().filter_map(|policy| hash(policy.policy_specifier.as_ref()?)).collect();
}

/// What single ones of several clusters do to headers.
pub(crate) fn weighted(clusters: &WeightedCluster, policies: &mut Policies) {
    for cluster in &clusters.clusters {
        let named = |operation| format!("{operation} (to `{}`)", cluster.name);
        let of_request = operations(&cluster.request_headers_to_add, &cluster.request_headers_to_remove);
        policies.request_headers.extend(of_request.into_iter().map(named));
        let of_response = operations(&cluster.response_headers_to_add, &cluster.response_headers_to_remove);
        policies.response_headers.extend(of_response.into_iter().map(named));
    }
}

/// Length of a protobuf duration; negative ones are zero.
pub(crate) fn duration(duration: &prost_types::Duration) -> Duration {
    Duration::new(u64::try_from(duration.seconds).unwrap_or(0), u32::try_from(duration.nanos).unwrap_or(0))
}

/// `set x to y`, `add x: y`, `remove x`.
fn operations(add: &[HeaderValueOption], remove: &[String]) -> Vec<String> {
    let removals = remove.iter().map(|name| format!("remove {name}"));
    let additions = add.iter().filter_map(|option| {
        let header = option.header.as_ref()?;
        let value = matcher::quote(&header.value);
        let appends = option.append.unwrap_or(option.append_action() == HeaderAppendAction::AppendIfExistsOrAdd);
        Some(match (appends, option.append_action()) {
            (true, _) => format!("add {} {value}", header.key),
            (_, HeaderAppendAction::AddIfAbsent) => format!("add {} {value} if it is missing", header.key),
            (_, HeaderAppendAction::OverwriteIfExists) => format!("replace {} by {value}", header.key),
            _ => format!("set {} to {value}", header.key),
        })
    });
    removals.chain(additions).collect()
}

fn fault(fault: &HttpFault, call: &Call, policies: &mut Policies) {
    if fault.headers.iter().any(|header| matcher::header(header, call).is_err()) {
        return;
    }
    if let Some(delay) = &fault.delay
        && let Some(fault_delay::FaultDelaySecifier::FixedDelay(length)) = &delay.fault_delay_secifier
    {
        let share = delay.percentage.as_ref().map_or(0.0, percent);
        policies.fault_delay = (share > 0.0).then(|| (duration(length), share));
    }
    if let Some(abort) = &fault.abort {
        let share = abort.percentage.as_ref().map_or(0.0, percent);
        let answer = match &abort.error_type {
            Some(fault_abort::ErrorType::HttpStatus(status)) => Some(format!("HTTP {status}")),
            Some(fault_abort::ErrorType::GrpcStatus(status)) => Some(format!("gRPC {status}")),
            _ => None,
        };
        policies.fault_abort = answer.filter(|_| share > 0.0).map(|answer| (answer, share));
    }
}

fn retries(policy: &RetryPolicy) -> Retries {
    Retries {
        attempts: policy.num_retries.unwrap_or(1),
        on: policy.retry_on.clone(),
        codes: policy.retriable_status_codes.clone(),
        per_try_timeout: policy.per_try_timeout.as_ref().map(duration).filter(|limit| !limit.is_zero()),
    }
}

/// The route's own mirrors, else those of the levels above it.
fn mirrors(levels: Levels<'_>, action: &RouteAction) -> Vec<(String, f64)> {
    let policies = [
        &action.request_mirror_policies,
        &levels.virtual_host.request_mirror_policies,
        &levels.routes.request_mirror_policies,
    ];
    let chosen = policies.into_iter().find(|policies| !policies.is_empty());
    let mirror = |policy: &lateen_xds::envoy::config::route::v3::route_action::RequestMirrorPolicy| {
        (policy.cluster.clone(), policy.runtime_fraction.as_ref().map_or(100.0, runtime_percent))
    };
    chosen.into_iter().flatten().map(mirror).filter(|(_, share)| *share > 0.0).collect()
}

fn hash(policy: &PolicySpecifier) -> Option<String> {
    Some(match policy {
        PolicySpecifier::Header(header) => format!("header `{}`", header.header_name),
        PolicySpecifier::Cookie(cookie) => format!("cookie `{}`", cookie.name),
        PolicySpecifier::ConnectionProperties(properties) if properties.source_ip => "address of the client".to_owned(),
        PolicySpecifier::ConnectionProperties(_) => return None,
        PolicySpecifier::QueryParameter(parameter) => format!("query parameter `{}`", parameter.name),
        PolicySpecifier::FilterState(state) => format!("filter state `{}`", state.key),
    })
}

fn cors(policy: &CorsPolicy, call: &Call) -> Vec<String> {
    let origins: Vec<String> = policy
        .allow_origin_string_match
        .iter()
        .filter_map(|origin| match &origin.match_pattern {
            Some(MatchPattern::Exact(text)) => Some(format!("`{text}`")),
            Some(MatchPattern::Prefix(text)) => Some(format!("`{text}…`")),
            Some(MatchPattern::SafeRegex(regex)) => Some(format!("expression `{}`", regex.regex)),
            _ => None,
        })
        .collect();
    let mut words = vec![format!("origins {}", origins.join(", "))];
    if !policy.allow_methods.is_empty() {
        words.push(format!("methods {}", policy.allow_methods));
    }
    if let Some(origin) = call.header("origin").first() {
        let allowed =
            policy.allow_origin_string_match.iter().any(|matcher| matcher::string(matcher, "origin", origin).is_ok());
        words.push(
            match (allowed, call.method == "OPTIONS" && !call.header("access-control-request-method").is_empty()) {
                (true, true) => "this preflight is answered by the proxy".to_owned(),
                (true, false) => "this origin is allowed".to_owned(),
                (false, _) => "this origin is not among them".to_owned(),
            },
        );
    }
    words
}

/// A filter that may answer by itself.
fn other_filter(filter: &HttpFilter, config: &Any, levels: Levels<'_>) -> Option<String> {
    if SILENT.contains(&any::type_name(&config.type_url)) || filter.disabled {
        return None;
    }
    if any::is::<LocalRateLimit>(config) {
        let limit: LocalRateLimit = levels.filter(&filter.name).or_else(|| any::unpack(config).ok())?;
        let enforced = [&limit.filter_enabled, &limit.filter_enforced]
            .into_iter()
            .all(|share| share.as_ref().is_some_and(|share| runtime_percent(share) > 0.0));
        let bucket = limit.token_bucket.filter(|_| enforced)?;
        let status = limit.status.map(|status| status.code).filter(|code| *code >= 400).unwrap_or(429);
        let every = bucket.fill_interval.as_ref().map(duration).unwrap_or_default();
        let fill = bucket.tokens_per_fill.unwrap_or(1);
        let burst = bucket.max_tokens;
        return Some(format!(
            "local rate limit: {fill} requests every {}, {burst} at once; {status} beyond",
            seconds(every)
        ));
    }
    if any::is::<RateLimit>(config) {
        let limit: RateLimit = any::unpack(config).ok()?;
        return Some(format!("rate limit service, domain `{}`", limit.domain));
    }
    Some(filter.name.clone())
}

fn runtime_percent(share: &RuntimeFractionalPercent) -> f64 {
    share.default_value.as_ref().map_or(100.0, percent)
}

fn percent(share: &FractionalPercent) -> f64 {
    let whole = match share.denominator() {
        DenominatorType::Hundred => 100.0,
        DenominatorType::TenThousand => 10_000.0,
        DenominatorType::Million => 1_000_000.0,
    };
    f64::from(share.numerator) * 100.0 / whole
}
