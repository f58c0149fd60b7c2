//! Is a rule for HTTP right? Conditions, actions and changes of one entry of a VirtualService's `http`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::{is_header_name, is_jwt_claim, is_label};
use super::values::{self, EmptyPrefix};
use super::virtual_service::{Binding, destination, gateways, weights};
use super::{At, Rules};
use crate::istio::virtual_service::{
    CorsPolicy, HeaderOperations, Headers, HttpBody, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest,
    HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, RedirectPort, StringMatch, grpc_status,
};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, route: &HttpRoute, binding: Binding) {
    action(rules, at, route, binding);
    for (index, request) in route.r#match.iter().enumerate() {
        condition(rules, at.key("match").index(index), request, binding);
    }
    let mut authorities = usize::from(authority(route.rewrite.as_ref()));
    authorities += headers(rules, at.key("headers"), route.headers.as_ref());
    if authorities > 1 {
        rules.error(at, format!("`{at}` sets the authority more than once"), "keep one of the places");
    }
    destinations(rules, at.key("route"), route);
    mirrors(rules, at, route);
    if let Some(redirect) = &route.redirect {
        check_redirect(rules, at.key("redirect"), redirect, &route.r#match);
    }
    if let Some(response) = &route.direct_response {
        direct_response(rules, at.key("directResponse"), response);
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(rules, at.key("rewrite"), rewrite);
    }
    if let Some(policy) = &route.retries {
        retries(rules, at.key("retries"), policy);
    }
    if let Some(injection) = &route.fault {
        fault(rules, at.key("fault"), injection);
    }
    if let Some(policy) = &route.cors_policy {
        cors(rules, at.key("corsPolicy"), policy);
    }
    values::duration(rules, at.key("timeout"), route.timeout);
    if route.websocket_upgrade.is_some() {
        let message = format!("`{at}.websocketUpgrade` has no effect: connections can always be upgraded");
        rules.warning(at.key("websocketUpgrade"), message, "remove it");
    }
}

/// What happens to a request: exactly one thing.
fn action(rules: &mut Rules<'_>, at: At<'_>, route: &HttpRoute, binding: Binding) {
    let has_route = !route.route.is_empty();
    if let Some(delegate) = &route.delegate {
        if binding.is_delegate {
            let message = "a VirtualService that is delegated to cannot delegate itself";
            rules.error(at.key("delegate"), message, "delegation goes one level deep");
        }
        if has_route || route.redirect.is_some() {
            let other = if has_route { "route" } else { "redirect" };
            let message = format!("`{at}` has both `delegate` and `{other}`");
            rules.error(at.key(other), message, "the VirtualService that is delegated to decides: remove this");
        }
        if delegate.name.as_deref().is_none_or(str::is_empty) {
            rules.error(at.key("delegate"), format!("`{at}.delegate` has no `name`"), "");
        }
        return;
    }
    let answer = match (&route.redirect, &route.direct_response) {
        (Some(_), Some(_)) => {
            let message = format!("`{at}` has both `redirect` and `directResponse`");
            rules.error(at.key("directResponse"), message, "remove one of the two");
            return;
        }
        (Some(_), None) => "redirect",
        (None, Some(_)) => "directResponse",
        (None, None) => {
            if !has_route {
                let message = format!("`{at}` does nothing with requests");
                rules.error(at, message, "give one of `route`, `redirect`, `directResponse` and `delegate`");
            }
            return;
        }
    };
    let useless = [("route", has_route), ("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())];
    for (field, _) in useless.into_iter().filter(|(_, is_given)| *is_given) {
        let message = format!("`{at}` has both `{answer}` and `{field}`");
        rules.error(at.key(field), message, "requests are answered here: remove one of the two");
    }
}

fn condition(rules: &mut Rules<'_>, at: At<'_>, request: &HttpMatchRequest, binding: Binding) {
    if let Some(uri) = &request.uri {
        values::string_match(rules, at.key("uri"), uri, EmptyPrefix::Allowed);
    }
    let pseudo = [("scheme", &request.scheme), ("method", &request.method), ("authority", &request.authority)];
    for (field, value) in pseudo {
        if let Some(value) = value {
            values::string_match(rules, at.key(field), value, EmptyPrefix::Refused);
        }
    }
    header_conditions(rules, at.key("headers"), &request.headers, binding, false);
    header_conditions(rules, at.key("withoutHeaders"), &request.without_headers, binding, true);
    for (name, value) in &request.query_params {
        if let Some(value) = value {
            values::string_match(rules, at.key("queryParams").key(name), value, EmptyPrefix::Refused);
        }
    }
    if let Some(port) = request.port.filter(|port| *port != 0) {
        values::port(rules, at.key("port"), port);
    }
    values::labels(rules, at.key("sourceLabels"), &request.source_labels);
    gateways(rules, at.key("gateways"), &request.gateways, false);
    let namespace = request.source_namespace.as_ref().filter(|name| !name.is_empty() && !is_label(name));
    if let Some(namespace) = namespace {
        rules.error(at.key("sourceNamespace"), format!("`{namespace}` is no name of a namespace"), "");
    }
}

fn header_conditions(
    rules: &mut Rules<'_>,
    at: At<'_>,
    headers: &BTreeMap<String, Option<StringMatch>>,
    binding: Binding,
    inverted: bool,
) {
    const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];
    for (name, value) in headers {
        let at = at.key(name);
        if is_jwt_claim(name) {
            if binding.is_in_mesh {
                let message = format!("`{name}` is a claim of a token, which only gateways can match");
                rules.error_at_key(at, message, "bind the VirtualService to gateways alone");
            }
        } else if !is_header_name(name) && !PSEUDO.contains(&name.as_str()) {
            rules.error_at_key(at, format!("`{name}` is no name of a header"), "");
        }
        match value {
            None => rules.error_at_key(at, format!("`{at}` is null"), "write `{}` to ask for presence"),
            // Not a pattern here, but a way to ask for presence.
            Some(StringMatch::Regex(pattern)) if inverted && pattern == "*" => {}
            Some(value) => values::string_match(rules, at, value, EmptyPrefix::Refused),
        }
    }
}

fn destinations(rules: &mut Rules<'_>, at: At<'_>, route: &HttpRoute) {
    for (index, entry) in route.route.iter().enumerate() {
        let at = at.index(index);
        match &entry.destination {
            Some(to) => destination(rules, at.key("destination"), to),
            None => rules.error(at, format!("`{at}` has no `destination`"), ""),
        }
        headers(rules, at.key("headers"), entry.headers.as_ref());
    }
    let shares: Vec<i32> = route.route.iter().map(|entry| entry.weight).collect();
    weights(rules, at, &shares);
}

fn mirrors(rules: &mut Rules<'_>, at: At<'_>, route: &HttpRoute) {
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        let message = format!("`{at}` has both `mirror` and `mirrors`");
        rules.error(at.key("mirror"), message, "move it into `mirrors`");
    }
    if let Some(mirror) = &route.mirror {
        destination(rules, at.key("mirror"), mirror);
    }
    if let Some(percent) = route.mirror_percent {
        let at = at.key("mirrorPercent");
        if percent > 100 {
            rules.error(at, format!("`{at}` is no share: {percent}"), "give a number from 0 to 100");
        }
        let message = format!("`{at}` is deprecated");
        rules.warning(at, message, "write `mirrorPercentage: {value: …}`");
    }
    share(rules, at.key("mirrorPercentage"), route.mirror_percentage.as_ref().map(|percent| percent.value));
    for (index, mirror) in route.mirrors.iter().enumerate() {
        let at = at.key("mirrors");
        let at = at.index(index);
        match &mirror.destination {
            Some(to) => destination(rules, at.key("destination"), to),
            None => rules.error(at, format!("`{at}` has no `destination`"), ""),
        }
        share(rules, at.key("percentage"), mirror.percentage.as_ref().map(|percent| percent.value));
    }
}

/// 0 to 100; unlike faults, mirrors have no smallest share.
fn share(rules: &mut Rules<'_>, at: At<'_>, value: Option<f64>) {
    if let Some(value) = value.filter(|value| !(0.0..=100.0).contains(value)) {
        let at = at.key("value");
        rules.error(at, format!("`{at}` is no share: {value}"), "give a number from 0 to 100");
    }
}

fn authority(rewrite: Option<&HttpRewrite>) -> bool {
    rewrite.and_then(|rewrite| rewrite.authority.as_deref()).is_some_and(|authority| !authority.is_empty())
}

/// Changes to headers. Gives how often they set the authority.
fn headers(rules: &mut Rules<'_>, at: At<'_>, headers: Option<&Headers>) -> usize {
    let Some(headers) = headers else {
        return 0;
    };
    let mut authorities = 0;
    if let Some(operations) = &headers.request {
        let at = at.key("request");
        for (field, values) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, value) in values {
                let at = at.key(field);
                let at = at.key(name);
                if is_authority(name) {
                    authorities += 1;
                } else {
                    header_name(rules, at, name);
                }
                header_value(rules, at, value);
            }
        }
        removed(rules, at.key("remove"), operations);
    }
    if let Some(operations) = &headers.response {
        let at = at.key("response");
        for (field, values) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, value) in values {
                let at = at.key(field);
                let at = at.key(name);
                header_name(rules, at, name);
                header_value(rules, at, value);
            }
        }
        removed(rules, at.key("remove"), operations);
    }
    authorities
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn removed(rules: &mut Rules<'_>, at: At<'_>, operations: &HeaderOperations) {
    for (index, name) in operations.remove.iter().enumerate() {
        let at = at.index(index);
        if let Some(problem) = name_problem(name) {
            rules.error(at, problem, "");
        }
    }
}

fn header_name(rules: &mut Rules<'_>, at: At<'_>, name: &str) {
    if let Some(problem) = name_problem(name) {
        rules.error_at_key(at, problem, "");
    }
}

fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name of a header is empty".to_owned());
    }
    (name.starts_with(':') || name.eq_ignore_ascii_case("host"))
        .then(|| format!("the header `{name}` cannot be changed here"))
}

/// Text with Envoy's command operators: `%NAME%` or `%NAME(argument)%`, and `%%` for a percent sign.
fn header_value(rules: &mut Rules<'_>, at: At<'_>, value: &str) {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        rules.error(at, format!("`{at}` holds a control character"), "");
    }
    if let Err(reason) = check_format(value) {
        rules.error(at, format!("`{at}`: {reason}"), "write `%%` for a percent sign, `%NAME%` for an operator");
    }
}

fn check_format(value: &str) -> Result<(), &'static str> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        if name == 0 {
            return Err("a `%` stands alone");
        }
        let mut after = &after[name..];
        if let Some(argument) = after.strip_prefix('(') {
            let end = argument_end(argument).ok_or("the `(` of an operator has no `)`")?;
            after = argument[end + 1..].trim_start();
        }
        rest = after.strip_prefix('%').ok_or("an operator has no second `%`")?;
    }
    Ok(())
}

/// Where the argument of an operator ends: at `)`, but not in the strings of a list.
fn argument_end(argument: &str) -> Option<usize> {
    let is_list = argument.starts_with('[');
    let mut quoted = false;
    for (index, c) in argument.char_indices() {
        match c {
            '"' if is_list => quoted = !quoted,
            ')' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

fn check_redirect(rules: &mut Rules<'_>, at: At<'_>, redirect: &HttpRedirect, conditions: &[HttpMatchRequest]) {
    let is_given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if is_given(&redirect.uri) && is_given(&redirect.prefix_rewrite) {
        let message = format!("`{at}` has both `uri` and `prefixRewrite`");
        rules.error(at.key("prefixRewrite"), message, "remove one of the two");
        return;
    }
    let others = conditions.iter().filter_map(|condition| condition.uri.as_ref());
    if is_given(&redirect.prefix_rewrite) && others.into_iter().any(|uri| !matches!(uri, StringMatch::Prefix(_))) {
        let message = format!("`{at}.prefixRewrite` needs matches of `uri` by `prefix`");
        rules.error(at.key("prefixRewrite"), message, "match by `prefix`, or give the whole path as `uri`");
        return;
    }
    let goes_elsewhere = is_given(&redirect.uri)
        || is_given(&redirect.prefix_rewrite)
        || is_given(&redirect.authority)
        || is_given(&redirect.scheme)
        || redirect.redirect_port.is_some();
    if !goes_elsewhere {
        let help = "give one of `uri`, `prefixRewrite`, `authority`, `scheme`, `port` and `derivePort`";
        rules.error(at, format!("`{at}` leads to where the request came from"), help);
        return;
    }
    if let Some(code) = redirect.redirect_code.filter(|code| *code != 0 && !(300..=399).contains(code)) {
        let at = at.key("redirectCode");
        rules.error(at, format!("`{at}` is no redirect: {code}"), "301, 302, 303, 307 and 308 are");
        return;
    }
    let scheme = redirect.scheme.as_deref().filter(|scheme| !matches!(*scheme, "" | "http" | "https"));
    if let Some(scheme) = scheme {
        rules.error(at.key("scheme"), format!("`{scheme}` is no scheme"), "give `http` or `https`");
        return;
    }
    if let Some(RedirectPort::Number(port)) = redirect.redirect_port {
        values::port(rules, at.key("port"), port);
    }
}

fn direct_response(rules: &mut Rules<'_>, at: At<'_>, response: &HttpDirectResponse) {
    const LARGEST: usize = 1 << 20;
    const LARGE: usize = 100 << 10;
    if !(200..=600).contains(&response.status) {
        let at = at.key("status");
        rules.error(at, format!("`{at}` is no status: {}", response.status), "give a number from 200 to 599");
    }
    let length = match &response.body {
        Some(HttpBody::String(text)) => text.len(),
        Some(HttpBody::Bytes(bytes)) => bytes.len(),
        None => 0,
    };
    let at = at.key("body");
    if length > LARGEST {
        rules.error(at, format!("`{at}` is larger than 1 MiB: {length} bytes"), "serve it from a backend");
    } else if length > LARGE {
        let message = format!("`{at}` is large: {length} bytes are kept in every proxy");
        rules.warning(at, message, "serve it from a backend");
    }
}

fn check_rewrite(rules: &mut Rules<'_>, at: At<'_>, rewrite: &HttpRewrite) {
    let has_uri = rewrite.uri.as_deref().is_some_and(|uri| !uri.is_empty());
    if has_uri && rewrite.uri_regex_rewrite.is_some() {
        let message = format!("`{at}` has both `uri` and `uriRegexRewrite`");
        rules.error(at.key("uri"), message, "remove one of the two");
    }
    if !has_uri && rewrite.uri_regex_rewrite.is_none() && !authority(Some(rewrite)) {
        let help = "give one of `uri`, `uriRegexRewrite` and `authority`";
        rules.error(at, format!("`{at}` changes nothing"), help);
    }
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        let at = at.key("uriRegexRewrite");
        match regex.r#match.as_deref() {
            None | Some("") => rules.error(at, format!("`{at}` has no `match`"), ""),
            Some(pattern) => values::pattern(rules, at.key("match"), pattern),
        }
        if regex.rewrite.as_deref().is_none_or(str::is_empty) {
            rules.error(at, format!("`{at}` has no `rewrite`"), "");
        }
    }
}

pub(super) fn retries(rules: &mut Rules<'_>, at: At<'_>, policy: &HttpRetry) {
    if policy.attempts < 0 {
        let message = format!("`{at}.attempts` must not be below zero");
        rules.error(at.key("attempts"), message, "0 turns retries off");
    }
    let retry_on = policy.retry_on.as_deref().unwrap_or_default();
    if policy.attempts == 0 {
        let useless = [
            ("perTryTimeout", policy.per_try_timeout.is_some()),
            ("retryOn", !retry_on.is_empty()),
            ("retryRemoteLocalities", policy.retry_remote_localities.is_some()),
        ];
        for (field, _) in useless.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("`{at}.{field}` is given, but `attempts` is 0: there are no retries");
            rules.error(at.key(field), message, "give `attempts` too");
        }
    }
    values::duration(rules, at.key("perTryTimeout"), policy.per_try_timeout);
    values::duration(rules, at.key("backoff"), policy.backoff);
    for condition in retry_on.split(',').filter(|_| !retry_on.is_empty()) {
        if !is_retry_condition(condition) {
            let help = match is_retry_condition(condition.trim()) {
                true => "write the list without blanks",
                false => {
                    "known are 5xx, gateway-error, reset, connect-failure, refused-stream, unavailable, \
                          cancelled, … and HTTP statuses"
                }
            };
            rules.error(at.key("retryOn"), format!("`{condition}` is no condition for retries"), help);
        }
    }
}

fn is_retry_condition(condition: &str) -> bool {
    const CONDITIONS: [&str; 16] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    CONDITIONS.contains(&condition)
        || matches!(
            condition.parse(),
            Ok(
                100..=103
                | 200..=208
                | 226
                | 300..=305
                | 307
                | 308
                | 400..=418
                | 421..=426
                | 428
                | 429
                | 431
                | 451
                | 500..=508
                | 510
                | 511,
            )
        )
}

fn fault(rules: &mut Rules<'_>, at: At<'_>, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        rules.error(at, format!("`{at}` injects nothing"), "give `delay` or `abort`");
    }
    if let Some(delay) = &fault.delay {
        let at = at.key("delay");
        values::percentage(rules, at.key("percentage"), delay.percentage.as_ref());
        values::whole_percent(rules, at.key("percent"), delay.percent);
        values::duration(rules, at.key("fixedDelay"), delay.fixed_delay);
        if delay.exponential_delay.is_some() {
            let message = format!("`{at}.exponentialDelay` is not supported");
            rules.error(at.key("exponentialDelay"), message, "give `fixedDelay`");
        } else if delay.fixed_delay.is_none() {
            rules.error(at, format!("`{at}` has no `fixedDelay`"), "");
        }
    }
    if let Some(abort) = &fault.abort {
        let at = at.key("abort");
        values::percentage(rules, at.key("percentage"), abort.percentage.as_ref());
        if abort.http2_error.is_some() {
            let message = format!("`{at}.http2Error` is not supported");
            rules.error(at.key("http2Error"), message, "give `httpStatus` or `grpcStatus`");
        } else if abort.http_status.is_none() && abort.grpc_status.is_none() {
            let message = format!("`{at}` says no error");
            rules.warning(at, message, "give `httpStatus` or `grpcStatus`");
        }
        if let Some(status) = abort.http_status.filter(|status| !(200..=600).contains(status)) {
            let at = at.key("httpStatus");
            rules.error(at, format!("`{at}` is no status: {status}"), "give a number from 200 to 599");
        }
        if let Some(status) = abort.grpc_status.as_ref().filter(|status| grpc_status(status).is_none()) {
            let help = "a gRPC status is a name such as UNAVAILABLE or DEADLINE_EXCEEDED";
            rules.error(at.key("grpcStatus"), format!("`{status}` is no gRPC status"), help);
        }
        if abort.http_status.is_some() && abort.grpc_status.is_some() {
            let message = format!("`{at}` has both `httpStatus` and `grpcStatus`");
            rules.error(at.key("grpcStatus"), message, "remove one of the two");
        }
    }
}

fn cors(rules: &mut Rules<'_>, at: At<'_>, policy: &CorsPolicy) {
    const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let at = at.key("allowOrigins");
        let at = at.index(index);
        match origin {
            StringMatch::Exact(text) | StringMatch::Prefix(text) if text.is_empty() => {
                rules.error(at, format!("`{at}` is empty"), "");
            }
            StringMatch::Unset => rules.error(at, format!("`{at}` is empty"), "give `exact`, `prefix` or `regex`"),
            origin => values::string_match(rules, at, origin, EmptyPrefix::Refused),
        }
    }
    for (index, method) in policy.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            let help = "methods are written in capital letters";
            rules.error(at.key("allowMethods").index(index), format!("`{method}` is no method"), help);
        }
    }
    for (field, names) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            if !is_header_name(name) {
                rules.error(at.key(field).index(index), format!("`{name}` is no name of a header"), "");
            }
        }
    }
    let at = at.key("maxAge");
    values::duration(rules, at, policy.max_age);
    if policy.max_age.is_some_and(|age| age > Duration::from_millis(1) && age.subsec_nanos() != 0) {
        rules.error(at, format!("`{at}` must be a whole number of seconds"), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_in_header_values_are_complete() {
        for value in [
            "",
            "plain",
            "100%%",
            "%HOSTNAME%",
            "a %REQ(x-y)% b",
            "%START_TIME(%s.%3f)%",
            "%DYNAMIC_METADATA([\"a)b\",\"c\"])%",
            "%REQ(x) %",
        ] {
            assert_eq!(check_format(value), Ok(()), "{value}");
        }
        for value in ["100%", "% done", "%A", "%REQ(x%", "%REQ(x):10%", "%START_TIME%%", "%-%"] {
            assert!(check_format(value).is_err(), "{value}");
        }
    }
}
