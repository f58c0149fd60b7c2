//! Is a patch found wrong that changes nothing, or not what it says?

use crate::support::problems;

/// Problems of one patch, without their places.
fn of(patch: &str) -> Vec<String> {
    let found = problems("EnvoyFilter", &format!("configPatches:\n- {{{patch}}}\n"));
    found.iter().map(|line| line.split_once(' ').expect("a place").1.to_owned()).collect()
}

const REMOVE: &str = "patch: {operation: REMOVE}";

#[test]
fn a_patch_says_what_it_changes_and_how() {
    assert_eq!(of("patch: {operation: REMOVE}"), ["`spec.configPatches[0]` has no `applyTo`"]);
    assert_eq!(of("applyTo: CLUSTER"), ["`spec.configPatches[0]` has no `patch`"]);
    assert_eq!(of("applyTo: CLUSTER, patch: {value: {}}"), ["`spec.configPatches[0].patch` has no `operation`"]);
    assert_eq!(of("applyTo: CLUSTER, patch: {operation: ADD}"), ["`spec.configPatches[0].patch` has no `value`"]);
    assert_eq!(of(&format!("applyTo: CLUSTER, {REMOVE}")), Vec::<String>::new());
}

#[test]
fn the_match_is_of_the_type_that_is_changed() {
    let fits = |apply_to: &str, object: &str| of(&format!("applyTo: {apply_to}, match: {{{object}: {{}}}}, {REMOVE}"));
    for (apply_to, object) in [
        ("LISTENER", "listener"),
        ("LISTENER_FILTER", "listener"),
        ("HTTP_FILTER", "listener"),
        ("VIRTUAL_HOST", "routeConfiguration"),
        ("HTTP_ROUTE", "routeConfiguration"),
        ("CLUSTER", "cluster"),
        ("EXTENSION_CONFIG", "listener"),
    ] {
        assert_eq!(fits(apply_to, object), Vec::<String>::new(), "{apply_to} {object}");
    }
    assert_eq!(
        fits("LISTENER", "cluster"),
        ["`spec.configPatches[0].match.cluster` does not go with `applyTo: LISTENER`"]
    );
    assert_eq!(
        fits("VIRTUAL_HOST", "listener"),
        ["`spec.configPatches[0].match.listener` does not go with `applyTo: VIRTUAL_HOST`"]
    );
    assert_eq!(
        fits("CLUSTER", "routeConfiguration"),
        ["`spec.configPatches[0].match.routeConfiguration` does not go with `applyTo: CLUSTER`"]
    );
}

#[test]
fn filters_in_filters_are_those_of_the_connection_manager() {
    let case = |apply_to: &str, filter: &str| {
        of(&format!("applyTo: {apply_to}, match: {{listener: {{filterChain: {{filter: {filter}}}}}}}, {REMOVE}"))
    };
    let path = "spec.configPatches[0].match.listener.filterChain.filter";
    let manager = "envoy.filters.network.http_connection_manager";
    assert_eq!(case("NETWORK_FILTER", "{}"), [format!("`{path}` has no `name`")]);
    assert_eq!(
        case("NETWORK_FILTER", &format!("{{name: {manager}, subFilter: {{name: x}}}}")),
        [format!("`{path}.subFilter` does not go with `applyTo: NETWORK_FILTER`")]
    );
    assert_eq!(
        case("HTTP_FILTER", "{name: random, subFilter: {name: x}}"),
        ["the network filter `random` has no HTTP filters in it"]
    );
    assert_eq!(
        case("HTTP_FILTER", &format!("{{name: {manager}, subFilter: {{}}}}")),
        [format!("`{path}.subFilter` has no `name`")]
    );
    assert_eq!(
        case("HTTP_FILTER", "{name: envoy.http_connection_manager, subFilter: {name: envoy.router}}"),
        ["`envoy.http_connection_manager` is the old name of a filter", "`envoy.router` is the old name of a filter"]
    );
    assert_eq!(
        case("LISTENER", &format!("{{name: {manager}}}")),
        [format!("`{path}` is not looked at with `applyTo: LISTENER`")]
    );
}

#[test]
fn values_are_messages_of_the_present_envoy() {
    let case = |value: &str| of(&format!("applyTo: HTTP_FILTER, patch: {{operation: INSERT_FIRST, value: {value}}}"));
    let path = "spec.configPatches[0].patch.value";
    let lua = "{name: lua, typed_config: {\"@type\": t/envoy.extensions.filters.http.lua.v3.Lua}}";
    assert_eq!(case(lua), Vec::<String>::new());
    assert_eq!(
        case("{name: lua}"),
        [format!("`{path}` has no `typed_config`, so Envoy cannot tell which filter is meant")]
    );
    assert_eq!(case("{name: false, typed_config: {}}"), [format!("`{path}.name` must be a string, and is false")]);
    assert_eq!(
        case("{name: lua, typed_config: {inner: [{\"@type\": t/envoy.config.filter.http.lua.v2.Lua}]}}"),
        ["`t/envoy.config.filter.http.lua.v2.Lua` belongs to Envoy's API v2, which Envoy no longer has"]
    );
}

#[test]
fn selectors_ports_versions_and_waypoints() {
    let empty = problems("EnvoyFilter", "workloadSelector: {labels: {app: \"*\"}}\nconfigPatches: [{}]\n");
    assert_eq!(empty.len(), 1, "a selector that selects nothing ends the checks: {empty:?}");
    let both =
        problems("EnvoyFilter", "workloadSelector: {labels: {app: b}}\ntargetRefs: [{kind: Gateway, name: g}]\n");
    assert_eq!(both, ["6:15 the EnvoyFilter has both `workloadSelector` and `targetRefs`"]);
    let condition = |text: &str| of(&format!("applyTo: HTTP_FILTER, match: {{{text}}}, {REMOVE}"));
    assert_eq!(
        condition("listener: {portNumber: 65536}"),
        ["`spec.configPatches[0].match.listener.portNumber` is no port: 65536"]
    );
    assert!(condition("proxy: {proxyVersion: \"(\"}")[0].contains("no regular expression"));
    assert!(condition(&format!("proxy: {{proxyVersion: {}}}", "a".repeat(1025)))[0].contains("not looked at"));
    assert_eq!(
        condition("context: WAYPOINT, waypoint: {portNumber: 70000}"),
        ["`spec.configPatches[0].match.waypoint.portNumber` is no port: 70000"]
    );
    assert_eq!(
        condition("context: WAYPOINT, cluster: {}"),
        ["`spec.configPatches[0].match` with context WAYPOINT takes `waypoint` alone"]
    );
    assert_eq!(
        condition("waypoint: {}"),
        [
            "`spec.configPatches[0].match.waypoint` needs `context: WAYPOINT`",
            "`spec.configPatches[0].match.waypoint` does not go with `applyTo: HTTP_FILTER`"
        ]
    );
}
