//! Is an EnvoyFilter right? Whether each patch says what it changes and how, and whether its match fits. What Envoy
//! makes of the values is not known here, but for what holds for all of its messages.

use serde_json::Value;

use super::{At, Rules, values};
use crate::istio::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, FilterMatch, ListenerMatch, ObjectTypes,
    Operation, Patch, PatchContext,
};

/// Longest pattern for versions that is looked at, in characters.
const MAX_VERSION_PATTERN: usize = 1024;
/// The network filter that has HTTP filters in it, by its name and by the one that it had before.
const CONNECTION_MANAGER: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &EnvoyFilter) {
    if let Some(selector) = &spec.workload_selector {
        if !values::selector(rules, at.key("workloadSelector").key("labels"), &selector.labels) {
            return;
        }
        if !spec.target_refs.is_empty() {
            let message = "the EnvoyFilter has both `workloadSelector` and `targetRefs`";
            rules.error(at.key("targetRefs"), message, "remove one of the two");
        }
    }
    for (index, patch) in spec.config_patches.iter().enumerate() {
        check_patch(rules, at.key("configPatches").index(index), patch);
    }
}

fn check_patch(rules: &mut Rules<'_>, at: At<'_>, patch: &EnvoyConfigObjectPatch) {
    if let Some(condition) = &patch.r#match {
        ports(rules, at.key("match"), condition);
        let is_for_waypoint = condition.context == PatchContext::Waypoint;
        match &condition.object {
            Some(ObjectTypes::Waypoint(_)) if !is_for_waypoint => {
                let message = format!("`{at}.match.waypoint` needs `context: WAYPOINT`");
                rules.error(at.key("match").key("waypoint"), message, "");
            }
            Some(ObjectTypes::Waypoint(_)) | None => {}
            Some(_) if is_for_waypoint => {
                let message = format!("`{at}.match` with context WAYPOINT takes `waypoint` alone");
                rules.error(at.key("match"), message, "");
            }
            Some(_) => {}
        }
        if is_for_waypoint {
            return;
        }
    }
    if patch.apply_to == ApplyTo::Invalid {
        rules.error(at, format!("`{at}` has no `applyTo`"), "say what is changed, for example HTTP_FILTER or CLUSTER");
        return;
    }
    let Some(change) = &patch.patch else {
        rules.error(at, format!("`{at}` has no `patch`"), "give `operation` and `value`");
        return;
    };
    let at_change = at.key("patch");
    if change.operation == Operation::Invalid {
        let help = "give one of MERGE, ADD, REMOVE, INSERT_BEFORE, INSERT_AFTER, INSERT_FIRST and REPLACE";
        rules.error(at_change, format!("`{at_change}` has no `operation`"), help);
        return;
    }
    if change.value.is_none() && change.operation != Operation::Remove {
        rules.error(at_change, format!("`{at_change}` has no `value`"), "only REMOVE needs none");
        return;
    }
    if let Some(condition) = &patch.r#match
        && !condition_fits(rules, at.key("match"), condition, patch.apply_to)
    {
        return;
    }
    value(rules, at_change.key("value"), change, patch.apply_to);
}

/// False when the match is refused, which ends the checks of the patch.
fn condition_fits(rules: &mut Rules<'_>, at: At<'_>, condition: &EnvoyConfigObjectMatch, apply_to: ApplyTo) -> bool {
    if let Some(pattern) = condition.proxy.as_ref().and_then(|proxy| proxy.proxy_version.as_deref())
        && !pattern.is_empty()
    {
        let at = at.key("proxy");
        let at = at.key("proxyVersion");
        if pattern.chars().count() > MAX_VERSION_PATTERN {
            let message = format!("`{at}` is longer than {MAX_VERSION_PATTERN} characters, and is not looked at");
            rules.warning(at, message, "");
        } else {
            let before = rules.findings.len();
            values::pattern(rules, at, pattern);
            if rules.findings.len() > before {
                return false;
            }
        }
    }
    let (given, fits) = match (&condition.object, apply_to) {
        (None, _) => return true,
        (Some(ObjectTypes::Listener(listener)), _) if is_in_listener(apply_to) => {
            return listener_fits(rules, at.key("listener"), listener, apply_to);
        }
        (Some(ObjectTypes::Listener(_)), _) => ("listener", !is_in_route(apply_to) && apply_to != ApplyTo::Cluster),
        (Some(ObjectTypes::RouteConfiguration(_)), _) => {
            ("routeConfiguration", !is_in_listener(apply_to) && apply_to != ApplyTo::Cluster)
        }
        (Some(ObjectTypes::Cluster(_)), _) => ("cluster", !is_in_listener(apply_to) && !is_in_route(apply_to)),
        (Some(ObjectTypes::Waypoint(_)), _) => ("waypoint", false),
    };
    if !fits {
        let wanted = match apply_to {
            ApplyTo::Cluster => "cluster",
            _ if is_in_route(apply_to) => "routeConfiguration",
            _ => "listener",
        };
        let message = format!("`{at}.{given}` does not go with `applyTo: {apply_to}`");
        rules.error(at.key(given), message, &format!("write `{wanted}` instead"));
    }
    fits
}

fn is_in_listener(apply_to: ApplyTo) -> bool {
    matches!(
        apply_to,
        ApplyTo::Listener
            | ApplyTo::FilterChain
            | ApplyTo::NetworkFilter
            | ApplyTo::HttpFilter
            | ApplyTo::ListenerFilter
    )
}

fn is_in_route(apply_to: ApplyTo) -> bool {
    matches!(apply_to, ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute)
}

fn listener_fits(rules: &mut Rules<'_>, at: At<'_>, listener: &ListenerMatch, apply_to: ApplyTo) -> bool {
    let Some(filter) = listener.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref()) else {
        return true;
    };
    let at = at.key("filterChain");
    filter_fits(rules, at.key("filter"), filter, apply_to)
}

fn filter_fits(rules: &mut Rules<'_>, at: At<'_>, filter: &FilterMatch, apply_to: ApplyTo) -> bool {
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        let message = format!("`{at}` is not looked at with `applyTo: {apply_to}`");
        rules.warning(at, message, "remove it");
    }
    let name = filter.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        rules.error(at, format!("`{at}` has no `name`"), "give the name of the network filter");
        return false;
    }
    old_name(rules, at.key("name"), name);
    let Some(inner) = &filter.sub_filter else {
        return true;
    };
    let at_inner = at.key("subFilter");
    if apply_to != ApplyTo::HttpFilter {
        let message = format!("`{at_inner}` does not go with `applyTo: {apply_to}`");
        rules.error(at_inner, message, "it names an HTTP filter: write `applyTo: HTTP_FILTER`, or remove it");
        return false;
    }
    if !CONNECTION_MANAGER.contains(&name) {
        let message = format!("the network filter `{name}` has no HTTP filters in it");
        rules.error(at.key("name"), message, &format!("write `name: {}`", CONNECTION_MANAGER[0]));
        return false;
    }
    let inner_name = inner.name.as_deref().unwrap_or_default();
    if inner_name.is_empty() {
        rules.error(at_inner, format!("`{at_inner}` has no `name`"), "give the name of the HTTP filter");
        return false;
    }
    old_name(rules, at_inner.key("name"), inner_name);
    true
}

/// Names that filters had before Envoy put them all below `envoy.filters`.
fn old_name(rules: &mut Rules<'_>, at: At<'_>, name: &str) {
    const NETWORK: [&str; 8] = [
        "client_ssl_auth",
        "echo",
        "ext_authz",
        "http_connection_manager",
        "mongo_proxy",
        "ratelimit",
        "redis_proxy",
        "tcp_proxy",
    ];
    const HTTP: [(&str, &str); 13] = [
        ("buffer", "buffer"),
        ("cors", "cors"),
        ("csrf", "csrf"),
        ("fault", "fault"),
        ("grpc_http1_bridge", "grpc_http1_bridge"),
        ("grpc_json_transcoder", "grpc_json_transcoder"),
        ("grpc_web", "grpc_web"),
        ("gzip", "compressor"),
        ("health_check", "health_check"),
        ("ip_tagging", "ip_tagging"),
        ("lua", "lua"),
        ("rate_limit", "ratelimit"),
        ("router", "router"),
    ];
    let Some(short) = name.strip_prefix("envoy.") else {
        return;
    };
    let now = if let Some((_, now)) = HTTP.iter().find(|(old, _)| *old == short) {
        format!("envoy.filters.http.{now}")
    } else if NETWORK.contains(&short) {
        format!("envoy.filters.network.{short}")
    } else {
        return;
    };
    rules.warning(at, format!("`{name}` is the old name of a filter"), &format!("write `{now}`"));
}

fn ports(rules: &mut Rules<'_>, at: At<'_>, condition: &EnvoyConfigObjectMatch) {
    let (field, number) = match &condition.object {
        Some(ObjectTypes::Listener(listener)) => ("listener", listener.port_number),
        Some(ObjectTypes::RouteConfiguration(route)) => ("routeConfiguration", route.port_number),
        Some(ObjectTypes::Cluster(cluster)) => ("cluster", cluster.port_number),
        Some(ObjectTypes::Waypoint(fields)) => {
            let number = fields.get("portNumber").or_else(|| fields.get("port_number"));
            let number = number.and_then(Value::as_i64).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
            ("waypoint", number)
        }
        None => return,
    };
    // 0 is the same as none, but for waypoints, where the schema of the kind has bounds.
    let is_waypoint = field == "waypoint";
    if let Some(number) = number.filter(|number| is_waypoint || *number != 0) {
        values::port(rules, at.key(field).key("portNumber"), number);
    }
}

/// What holds for the values of all patches.
fn value(rules: &mut Rules<'_>, at: At<'_>, change: &Patch, apply_to: ApplyTo) {
    let Some(given) = &change.value else {
        return;
    };
    if apply_to != ApplyTo::Bootstrap
        && let Some(name) = given.fields.get("name").filter(|name| !name.is_string() && !name.is_null())
    {
        let at = at.key("name");
        rules.error(at, format!("`{at}` must be a string, and is {name}"), "");
    }
    for (field, inner) in &given.fields {
        old_types(rules, at.key(field), inner, 0);
    }
    let is_filter = matches!(apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::ListenerFilter);
    let has_config = ["typed_config", "typedConfig", "config_discovery", "configDiscovery", "disabled"]
        .iter()
        .any(|field| given.fields.contains_key(*field));
    if is_filter && !has_config && !matches!(change.operation, Operation::Remove | Operation::Merge) {
        let message = format!("`{at}` has no `typed_config`, so Envoy cannot tell which filter is meant");
        rules.warning(at, message, "give `typed_config` with the `@type` of the filter's configuration");
    }
}

/// Messages of the API that Envoy had before v3, wherever they are.
fn old_types(rules: &mut Rules<'_>, at: At<'_>, value: &Value, depth: usize) {
    /// As deep as text is read.
    const MAX_DEPTH: usize = 200;
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(url)) = fields.get("@type")
                && is_old_type(url)
            {
                let message = format!("`{url}` belongs to Envoy's API v2, which Envoy no longer has");
                rules.error(at.key("@type"), message, "write the type of the API v3");
            }
            for (field, inner) in fields {
                old_types(rules, at.key(field), inner, depth + 1);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                old_types(rules, at.index(index), inner, depth + 1);
            }
        }
        _ => {}
    }
}

fn is_old_type(url: &str) -> bool {
    let name = url.rsplit('/').next().unwrap_or(url);
    name.starts_with("envoy.") && name.split('.').any(|part| part == "v2" || part.starts_with("v2alpha"))
}
