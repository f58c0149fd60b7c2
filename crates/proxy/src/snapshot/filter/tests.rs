use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{build, refusal, request, selected};
use crate::snapshot::route::RouteConfig;

const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";

fn fault(status: u32) -> Value {
    json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": status, "percentage": {"numerator": 100}}})
}

fn cors(mut policy: Value) -> Value {
    policy["@type"] = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy".into();
    policy
}

/// Levels from the route configuration down to the weighted cluster, each with its `typed_per_filter_config`.
fn levels([config, host, route, weighted]: [Value; 4]) -> RouteConfig {
    build(json!({
        "typed_per_filter_config": config,
        "virtual_hosts": [{"name": "v", "domains": ["*"], "typed_per_filter_config": host, "routes": [{
            "match": {"prefix": "/"}, "typed_per_filter_config": route,
            "route": {"weighted_clusters": {"clusters": [
                {"name": "b", "weight": 1, "typed_per_filter_config": weighted}]}}}]}],
    }))
    .unwrap()
}

fn chain(names: &mut ClusterNames) -> FilterChain {
    FilterChain::new(vec![
        ChainFilter { id: names.filter(FAULT), kind: FilterKind::Fault, settings: None },
        ChainFilter { id: names.filter(CORS), kind: FilterKind::Cors, settings: None },
    ])
}

/// The status with which a request is aborted.
fn abort_status(config: &RouteConfig, chain: &FilterChain) -> Option<AbortStatus> {
    let routed = selected(config, &request("/", &[]));
    let overrides = routed.weighted.map(|weighted| &weighted.filters);
    chain.settings(overrides).find_map(|settings| match settings {
        FilterSettings::Fault(fault) => fault.abort.as_ref().map(|abort| abort.status),
        FilterSettings::Cors(_) => None,
    })
}

#[test]
fn the_most_specific_level_of_a_fault_counts_alone() {
    // The numbers of names depend on the order in which they come, which is the same here and in the chain.
    let chain = chain(&mut ClusterNames::default());
    let none = || json!({});
    let with = |status| json!({FAULT: fault(status)});
    for (levels_of, expected) in [
        ([none(), none(), none(), none()], None),
        ([with(501), none(), none(), none()], Some(AbortStatus::Http(501))),
        ([with(501), with(502), none(), none()], Some(AbortStatus::Http(502))),
        ([with(501), with(502), with(503), none()], Some(AbortStatus::Http(503))),
        ([with(501), with(502), with(503), with(504)], Some(AbortStatus::Http(504))),
    ] {
        assert_eq!(abort_status(&levels(levels_of), &chain), expected);
    }
}

#[test]
fn a_level_can_turn_a_filter_off_and_a_wrapper_changes_nothing_else() {
    let chain = chain(&mut ClusterNames::default());
    let wrapper = |mut fields: Value| {
        fields["@type"] = "type.googleapis.com/envoy.config.route.v3.FilterConfig".into();
        json!({FAULT: fields})
    };
    let off = levels([json!({FAULT: fault(501)}), wrapper(json!({"disabled": true})), json!({}), json!({})]);
    assert_eq!(abort_status(&off, &chain), None);
    let wrapped = levels([json!({}), json!({}), wrapper(json!({"config": fault(503)})), json!({})]);
    assert_eq!(abort_status(&wrapped, &chain), Some(AbortStatus::Http(503)));
}

#[test]
fn settings_for_a_name_of_another_kind_or_of_no_filter_are_ignored() {
    let chain = FilterChain::new(vec![
        ChainFilter { id: FilterId(7), kind: FilterKind::Fault, settings: None },
        ChainFilter { id: ClusterNames::default().filter(FAULT), kind: FilterKind::Cors, settings: None },
    ]);
    let config = levels([json!({FAULT: fault(501), "other": fault(502)}), json!({}), json!({}), json!({})]);
    assert_eq!(abort_status(&config, &chain), None);
}

#[test]
fn a_cors_policy_takes_what_it_leaves_out_from_the_levels_above() {
    let chain = chain_of_cors_alone();
    let config = levels([
        json!({CORS: cors(json!({"allow_origin_string_match": [{"exact": "a"}], "max_age": "1", "allow_methods": "GET"}))}),
        json!({CORS: cors(json!({"allow_credentials": true, "filter_enabled": {"default_value": {"numerator": 7}}}))}),
        json!({CORS: cors(json!({"allow_methods": "PUT"}))}),
        json!({}),
    ]);
    let routed = selected(&config, &request("/", &[]));
    let mut found = chain.settings(routed.weighted.map(|weighted| &weighted.filters));
    let Some(FilterSettings::Cors(policy)) = found.next() else { panic!("no policy") };
    assert!(policy.allows(b"a") && !policy.allows(b"b"));
    assert_eq!((&*policy.max_age, &*policy.allow_methods), (&b"1"[..], &b"PUT"[..]));
    assert_eq!((policy.allow_credentials, policy.forward_not_matching_preflights), (Some(true), None));
    assert_eq!(policy.enabled.numerator, 100, "the most specific policy says which requests are meant");
}

fn chain_of_cors_alone() -> FilterChain {
    let id = ClusterNames::default().filter(CORS);
    FilterChain::new(vec![ChainFilter { id, kind: FilterKind::Cors, settings: None }])
}

#[test]
fn a_chain_without_settings_is_idle_until_a_route_has_some() {
    let mut names = ClusterNames::default();
    let mut chain = chain(&mut names);
    assert!(chain.is_idle(None) && chain.is_idle(Some(&Overrides::default())));
    let config = levels([json!({}), json!({}), json!({FAULT: fault(500)}), json!({})]);
    assert!(!chain.is_idle(Some(&config.virtual_hosts[0].routes[0].filters)));
    let any = Any { type_url: "x/envoy.extensions.filters.http.fault.v3.HTTPFault".into(), value: Vec::new() };
    assert!(chain_settings(FilterKind::Fault, &any).unwrap().is_none(), "a fault filter without a fault does nothing");
    let settings = Some(FilterSettings::Fault(Arc::new(Fault::build(&message(fault(500))).unwrap())));
    chain = FilterChain::new(vec![ChainFilter { id: names.filter(FAULT), kind: FilterKind::Fault, settings }]);
    assert!(!chain.is_idle(None));
}

fn message(mut fault: Value) -> fault_v3::HttpFault {
    if let Some(fields) = fault.as_object_mut() {
        fields.remove("@type");
    }
    lateen_xds::json::parse(fault).unwrap()
}

#[test]
fn a_fault_is_read_with_all_its_conditions() {
    let fault = Fault::build(&message(json!({
        "delay": {"fixed_delay": "0.0205s", "percentage": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
        "abort": {"grpc_status": 14},
        "response_rate_limit": {"fixed_limit": {"limit_kbps": 8}, "percentage": {"numerator": 1, "denominator": "MILLION"}},
        "upstream_cluster": "b", "downstream_nodes": ["n"], "max_active_faults": 2,
        "headers": [{"name": "x", "string_match": {"exact": "1"}}], "disable_downstream_cluster_stats": true,
        "delay_percent_runtime": "ignored",
    })))
    .unwrap();
    let delay = fault.delay.unwrap();
    assert_eq!(delay.time, DelayTime::Fixed(Duration::from_millis(20)), "whole milliseconds");
    assert_eq!((delay.share.numerator, delay.share.denominator), (5, 10_000));
    let abort = fault.abort.unwrap();
    assert_eq!((abort.status, abort.share.numerator), (AbortStatus::Grpc(14), 0));
    let limit = fault.rate_limit.unwrap();
    assert_eq!((limit.throughput, limit.share.denominator), (Throughput::Fixed(8), 1_000_000));
    assert_eq!((fault.max_active_faults, fault.count_callers), (Some(2), false));
}

#[test]
fn faults_that_envoy_refuses_are_refused_with_their_place() {
    let refused = |fields: Value| Fault::build(&message(fields)).unwrap_err().path;
    assert_eq!(refused(json!({"abort": {"http_status": 199}})), "abort.http_status");
    assert_eq!(refused(json!({"abort": {"http_status": 600}})), "abort.http_status");
    assert_eq!(refused(json!({"abort": {}})), "abort.error_type");
    assert_eq!(refused(json!({"delay": {"fixed_delay": "0s"}})), "delay.fixed_delay");
    assert_eq!(refused(json!({"delay": {}})), "delay.fault_delay_secifier");
    assert_eq!(
        refused(json!({"response_rate_limit": {"fixed_limit": {}}})),
        "response_rate_limit.fixed_limit.limit_kbps"
    );
    assert_eq!(refused(json!({"filter_metadata": {}})), "filter_metadata");
    let (path, _) = refusal(json!({"match": {"prefix": "/"}, "direct_response": {"status": 200},
        "typed_per_filter_config": {FAULT: fault(999)}}));
    assert_eq!(path, "typed_per_filter_config[envoy.filters.http.fault].abort.http_status");
}

#[test]
fn settings_of_other_filters_are_told_apart() {
    let any = |name: &str| Any { type_url: format!("type.googleapis.com/{name}"), value: Vec::new() };
    assert!(is_supported(&any("envoy.extensions.filters.http.fault.v3.HTTPFault")));
    assert!(is_supported(&any("envoy.extensions.filters.http.cors.v3.CorsPolicy")));
    assert!(!is_supported(&any("envoy.extensions.filters.http.lua.v3.LuaPerRoute")));
    let wrapped = FilterConfig { config: Some(any("x.Lua")), ..FilterConfig::default() };
    assert!(!is_supported(&lateen_xds::any::pack(&wrapped)));
    assert!(is_supported(&lateen_xds::any::pack(&FilterConfig { disabled: true, ..FilterConfig::default() })));
}
