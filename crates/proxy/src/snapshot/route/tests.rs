use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{build, refusal, routes};

/// The settings of a route to the cluster `b`.
fn forward(action: Value) -> Forward {
    forward_in(action, json!({}), json!({}))
}

/// The same with fields of the virtual host and of the configuration.
fn forward_in(mut action: Value, mut host: Value, mut config: Value) -> Forward {
    if action.get("cluster_header").is_none() && action.get("weighted_clusters").is_none() {
        action["cluster"] = "b".into();
    }
    host["name"] = "v".into();
    host["domains"] = json!(["*"]);
    host["routes"] = json!([{"match": {"prefix": "/"}, "route": action}]);
    config["virtual_hosts"] = json!([host]);
    let mut config = build(config).unwrap();
    match config.virtual_hosts.remove(0).routes.remove(0).action {
        Action::Forward(forward) => *forward,
        other => panic!("{other:?}"),
    }
}

fn retry(policy: Value) -> Arc<RetryPolicy> {
    forward(json!({"retry_policy": policy})).retry.unwrap()
}

/// Path of the field for which a route to a cluster is refused.
fn refused(mut action: Value) -> String {
    if action.get("weighted_clusters").is_none() {
        action["cluster"] = "b".into();
    }
    refusal(json!({"match": {"prefix": "/"}, "route": action})).0
}

#[test]
fn an_absent_timeout_is_15_seconds_and_zero_is_none() {
    assert_eq!(forward(json!({})).timeout, Some(Duration::from_secs(15)));
    assert_eq!(forward(json!({"timeout": "0s"})).timeout, None);
    assert_eq!(forward(json!({"timeout": "2.5s"})).timeout, Some(Duration::from_millis(2500)));
    assert_eq!(forward(json!({})).idle_timeout, None);
    assert_eq!(forward(json!({"idle_timeout": "0s"})).idle_timeout, Some(Duration::ZERO));
    assert_eq!(refused(json!({"timeout": "-1s"})), "route.timeout");
}

#[test]
fn a_grpc_timeout_counts_if_a_maximum_is_set_and_zero_is_no_maximum() {
    assert_eq!(forward(json!({})).grpc_timeout, None);
    let none = GrpcTimeout { max: None, offset: Duration::ZERO };
    assert_eq!(forward(json!({"max_grpc_timeout": "0s"})).grpc_timeout, Some(none));
    let both = forward(json!({
        "max_grpc_timeout": "9s",
        "max_stream_duration": {"grpc_timeout_header_max": "5s", "grpc_timeout_header_offset": "1s"},
    }));
    let expected = GrpcTimeout { max: Some(Duration::from_secs(5)), offset: Duration::from_secs(1) };
    assert_eq!(both.grpc_timeout, Some(expected));
    let duration = forward(json!({"max_stream_duration": {"max_stream_duration": "3s"}})).max_stream_duration;
    assert_eq!(duration, Some(Duration::from_secs(3)));
}

#[test]
fn the_policy_that_istio_sends_by_default_is_understood() {
    let policy = retry(json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
        "host_selection_retry_max_attempts": "5",
    }));
    for reason in [
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Unavailable,
        RetryOn::Cancelled,
        RetryOn::RetriableStatusCodes,
    ] {
        assert!(policy.on(reason), "{reason:?}");
    }
    assert!(!policy.on(RetryOn::FiveXx) && !policy.on(RetryOn::Reset));
    assert_eq!((policy.num_retries, policy.host_selection_attempts, policy.previous_hosts), (2, 5, true));
    assert_eq!((policy.back_off_base, policy.back_off_max), (Duration::from_millis(25), Duration::from_millis(250)));
    assert!(policy.retriable_status_codes.is_empty() && policy.per_try_timeout.is_none());
}

#[test]
fn every_token_of_retry_on_names_its_reason() {
    let tokens = [
        ("5xx", RetryOn::FiveXx),
        ("gateway-error", RetryOn::GatewayError),
        ("reset", RetryOn::Reset),
        ("reset-before-request", RetryOn::ResetBeforeRequest),
        ("connect-failure", RetryOn::ConnectFailure),
        ("refused-stream", RetryOn::RefusedStream),
        ("retriable-4xx", RetryOn::Retriable4xx),
        ("retriable-status-codes", RetryOn::RetriableStatusCodes),
        ("retriable-headers", RetryOn::RetriableHeaders),
        ("envoy-ratelimited", RetryOn::EnvoyRatelimited),
        ("http3-post-connect-failure", RetryOn::Http3PostConnectFailure),
        ("cancelled", RetryOn::Cancelled),
        ("deadline-exceeded", RetryOn::DeadlineExceeded),
        ("resource-exhausted", RetryOn::ResourceExhausted),
        ("internal", RetryOn::Internal),
        ("unavailable", RetryOn::Unavailable),
    ];
    for (token, reason) in tokens {
        let policy = retry(json!({"retry_on": token}));
        for (other, another) in tokens {
            assert_eq!(policy.on(another), reason == another, "{token} {other}");
        }
    }
}

#[test]
fn unknown_tokens_and_blanks_in_retry_on_are_ignored() {
    let policy = retry(json!({"retry_on": ", 5xx ,nonsense,503,reset"}));
    assert!(policy.on(RetryOn::FiveXx) && policy.on(RetryOn::Reset) && !policy.on(RetryOn::GatewayError));
    assert_eq!((policy.num_retries, policy.host_selection_attempts, policy.previous_hosts), (1, 1, false));
}

#[test]
fn a_policy_may_set_codes_headers_and_waits() {
    let policy = retry(json!({
        "retry_on": "retriable-status-codes", "retriable_status_codes": [503, 429], "num_retries": 0,
        "per_try_timeout": "2s", "per_try_idle_timeout": "1s",
        "retry_back_off": {"base_interval": "0.1s"},
        "retriable_headers": [{"name": "x"}], "retriable_request_headers": [{"name": "y"}],
        "rate_limited_retry_back_off": {"reset_headers": [
            {"name": "Retry-After", "format": "SECONDS"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]},
        "retry_priority": {"name": "p", "typed_config": {
            "@type":
                "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 2}},
    }));
    assert_eq!((policy.num_retries, policy.retriable_status_codes.as_slice()), (0, &[503, 429][..]));
    assert_eq!(policy.per_try_timeout, Some(Duration::from_secs(2)));
    assert_eq!(policy.per_try_idle_timeout, Some(Duration::from_secs(1)));
    assert_eq!((policy.back_off_base, policy.back_off_max), (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!((policy.retriable_headers.len(), policy.retriable_request_headers.len()), (1, 1));
    assert_eq!(policy.previous_priorities, Some(2));
    let limited = policy.rate_limited_back_off.as_ref().unwrap();
    assert_eq!(limited.max_interval, Duration::from_secs(300));
    assert_eq!(limited.reset_headers[0].format, ResetHeaderFormat::Seconds);
    assert_eq!(limited.reset_headers[1].format, ResetHeaderFormat::UnixTimestamp);
}

#[test]
fn malformed_retry_policies_are_refused() {
    let refused = |policy: Value| refused(json!({"retry_policy": policy}));
    let back_off = |base: &str, max: &str| json!({"retry_back_off": {"base_interval": base, "max_interval": max}});
    assert_eq!(refused(back_off("1s", "0.5s")), "route.retry_policy.retry_back_off.max_interval");
    assert_eq!(refused(back_off("0s", "1s")), "route.retry_policy.retry_back_off.base_interval");
    assert_eq!(refused(json!({"retry_back_off": {}})), "route.retry_policy.retry_back_off.base_interval");
    assert_eq!(
        refused(json!({"retry_host_predicate": [{"name": "envoy.retry_host_predicates.omit_canary_hosts"}]})),
        "route.retry_policy.retry_host_predicate[0]"
    );
    assert_eq!(refused(json!({"refresh_cluster_on_retry": true})), "route.retry_policy.refresh_cluster_on_retry");
}

#[test]
fn the_retry_policy_of_a_route_replaces_that_of_its_virtual_host() {
    let host = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 7}});
    let inherited = forward_in(json!({}), host.clone(), json!({}));
    assert_eq!(inherited.retry.unwrap().num_retries, 7);
    let own = forward_in(json!({"retry_policy": {"retry_on": "reset"}}), host, json!({})).retry.unwrap();
    assert!(own.num_retries == 1 && own.on(RetryOn::Reset) && !own.on(RetryOn::FiveXx));
    assert!(forward(json!({})).retry.is_none());
}

#[test]
fn mirrors_come_from_the_most_specific_level_that_has_some() {
    let mirrors = |name: &str| json!({"request_mirror_policies": [{"cluster": name}]});
    let name = |forward: &Forward| match &forward.mirrors[0].cluster {
        ClusterName::Fixed(cluster) => cluster.name.to_string(),
        ClusterName::Header(_) => panic!("a header"),
    };
    assert_eq!(name(&forward_in(mirrors("route"), mirrors("host"), mirrors("config"))), "route");
    assert_eq!(name(&forward_in(json!({}), mirrors("host"), mirrors("config"))), "host");
    assert_eq!(name(&forward_in(json!({}), json!({}), mirrors("config"))), "config");
}

#[test]
fn a_mirror_takes_all_requests_unless_it_has_a_fraction() {
    let istio = forward(json!({"request_mirror_policies": [
        {"cluster": "m", "trace_sampled": false, "disable_shadow_host_suffix_append": true,
         "runtime_fraction": {"default_value": {"numerator": 500_000, "denominator": "MILLION"}}},
        {"cluster": "n"},
    ]}));
    assert_eq!(istio.mirrors[0].fraction, Fraction { numerator: 500_000, denominator: 1_000_000 });
    assert!(istio.mirrors[0].keep_host && istio.mirrors[0].trace_sampled == Some(false));
    assert_eq!(istio.mirrors[1].fraction, Fraction::ALL);
    assert!(!istio.mirrors[1].keep_host);
}

#[test]
fn the_settings_of_a_route_are_read() {
    let settings = forward(json!({
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR", "priority": "HIGH",
        "append_x_forwarded_host": true, "auto_host_rewrite": true,
        "internal_redirect_policy": {"redirect_response_codes": [301, 200], "allow_cross_scheme_redirect": true},
        "upgrade_configs": [{"upgrade_type": "WebSocket", "enabled": false}, {"upgrade_type": "CONNECT", "connect_config": {}}],
    }));
    assert_eq!((settings.cluster_not_found_status, settings.priority), (500, Priority::High));
    assert!(settings.append_x_forwarded_host && matches!(settings.host_rewrite, Some(HostRewrite::Auto)));
    let redirect = settings.internal_redirect.unwrap();
    assert_eq!((redirect.max, redirect.statuses.as_slice(), redirect.allow_cross_scheme), (1, &[301][..], true));
    assert_eq!((&*settings.upgrades[0].kind, settings.upgrades[0].enabled), ("websocket", false));
    assert_eq!((&*settings.upgrades[1].kind, settings.upgrades[1].connect), ("connect", true));
    assert_eq!(forward(json!({})).cluster_not_found_status, 503);
}

#[test]
fn hash_policies_are_read_in_order() {
    let policies = forward(json!({"hash_policy": [
        {"header": {"header_name": "x-user"}, "terminal": true},
        {"cookie": {"name": "ck", "ttl": "60s", "path": "/p", "attributes": [{"name": "HttpOnly"}]}},
        {"connection_properties": {"source_ip": true}},
        {"query_parameter": {"name": "q"}},
    ]}))
    .hash_policy;
    assert!(policies[0].terminal && !policies[1].terminal);
    assert!(matches!(&policies[0].source, HashSource::Header { name, rewrite: None } if name.as_str() == "x-user"));
    assert!(matches!(
        &policies[1].source,
        HashSource::Cookie { name, ttl: Some(ttl), path, attributes }
            if &**name == b"ck" && ttl.as_secs() == 60 && &**path == b"/p" && attributes.len() == 1
    ));
    assert!(matches!(policies[2].source, HashSource::SourceIp));
    assert!(matches!(&policies[3].source, HashSource::QueryParameter(name) if &**name == b"q"));
    assert_eq!(refused(json!({"hash_policy": [{"filter_state": {"key": "k"}}]})), "route.hash_policy[0].filter_state");
}

#[test]
fn weighted_clusters_need_a_weight() {
    let clusters = |value: Value| refused(json!({"weighted_clusters": value}));
    assert_eq!(clusters(json!({"clusters": []})), "route.weighted_clusters.clusters");
    assert_eq!(clusters(json!({"clusters": [{"name": "a", "weight": 0}]})), "route.weighted_clusters.clusters");
    assert_eq!(clusters(json!({"clusters": [{"weight": 1}]})), "route.weighted_clusters.clusters[0].name");
    let total = json!({"clusters": [{"name": "a", "weight": 1}], "total_weight": 100});
    assert_eq!(clusters(total), "route.weighted_clusters.total_weight");
    let most = u32::MAX;
    let sum = json!({"clusters": [{"name": "a", "weight": most}, {"name": "b", "weight": most}]});
    assert_eq!(clusters(sum), "route.weighted_clusters.clusters");
}

#[test]
fn direct_responses_and_redirects_are_checked() {
    let direct = |value: Value| refusal(json!({"match": {"prefix": "/"}, "direct_response": value}));
    assert_eq!(direct(json!({"status": 199})).0, "direct_response.status");
    assert_eq!(direct(json!({"status": 600})).0, "direct_response.status");
    let body = "x".repeat(4097);
    let (path, message) = direct(json!({"status": 200, "body": {"inline_string": body}}));
    assert_eq!(path, "direct_response.body");
    assert_eq!(message, "response body size is 4097 bytes; maximum is 4096");
    assert_eq!(direct(json!({"status": 200, "body": {"filename": "/x"}})).0, "direct_response.body.filename");
    let redirect = |value: Value| refusal(json!({"match": {"prefix": "/"}, "redirect": value})).0;
    assert_eq!(redirect(json!({"port_redirect": 65536})), "redirect.port_redirect");
    assert_eq!(redirect(json!({"regex_rewrite": {"pattern": {"regex": "("}}})), "redirect.regex_rewrite.pattern.regex");
}

#[test]
fn the_largest_body_of_a_direct_response_can_be_set() {
    let config = build(json!({
        "max_direct_response_body_size_bytes": 5000,
        "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x".repeat(5000)}}}]}],
    }))
    .unwrap();
    assert!(matches!(&config.virtual_hosts[0].routes[0].action, Action::Direct(direct) if direct.body.len() == 5000));
}

#[test]
fn what_is_not_supported_is_refused_with_its_place() {
    let plugin = json!({"match": {"prefix": "/"}, "route": {"cluster_specifier_plugin": "p"}});
    let (path, message) = refusal(plugin);
    assert_eq!(
        (path.as_str(), message.as_str()),
        ("route.cluster_specifier_plugin", "cluster specifier plugins are not supported")
    );
    assert_eq!(refused(json!({"hedge_policy": {"hedge_on_per_try_timeout": true}})), "route.hedge_policy");
    assert_eq!(
        refused(json!({"prefix_rewrite": "/a", "regex_rewrite": {"pattern": {"regex": "a"}}})),
        "route.regex_rewrite"
    );
    assert_eq!(
        refused(json!({"upgrade_configs": [{"upgrade_type": "a"}, {"upgrade_type": "A"}]})),
        "route.upgrade_configs[1].upgrade_type"
    );
    assert_eq!(refusal(json!({"match": {"prefix": "/"}})).0, "action");
    assert_eq!(refusal(json!({"direct_response": {"status": 200}})).0, "match");
    assert_eq!(refusal(json!({"match": {"prefix": "/"}, "non_forwarding_action": {}})).0, "non_forwarding_action");
    assert_eq!(
        refusal(json!({"match": {"prefix": "/", "dynamic_metadata": [{"filter": "f"}]}, "route": {"cluster": "b"}})).0,
        "match.dynamic_metadata"
    );
    assert_eq!(build(json!({"vhds": {}})).unwrap_err().path, "vhds");
    let host = json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "virtual_clusters": [{"name": "c"}]}]});
    assert_eq!(build(host).unwrap_err().path, "virtual_hosts[0].virtual_clusters");
    let host = json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "request_headers_to_add": [{"header": {"key": ":x"}}]}]});
    assert_eq!(build(host).unwrap_err().path, "virtual_hosts[0].request_headers_to_add[0].header.key");
}

#[test]
fn filter_configurations_are_kept_at_every_level() {
    let cors = json!({"cors": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}});
    let config = build(json!({
        "typed_per_filter_config": cors,
        "virtual_hosts": [{"name": "v", "domains": ["*"], "typed_per_filter_config": cors, "routes": [{
            "match": {"prefix": "/"}, "typed_per_filter_config": cors,
            "route": {"weighted_clusters": {"clusters": [{"name": "b", "weight": 1, "typed_per_filter_config": cors}]}},
        }]}],
    }))
    .unwrap();
    let host = &config.virtual_hosts[0];
    let Action::Forward(forward) = &host.routes[0].action else { panic!("no cluster") };
    let ClusterSpecifier::Weighted(clusters) = &forward.cluster else { panic!("no weights") };
    for configs in [
        &config.per_filter_configs,
        &host.per_filter_configs,
        &host.routes[0].per_filter_configs,
        &clusters.clusters()[0].per_filter_configs,
    ] {
        assert_eq!(configs["cors"].type_url, "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors");
    }
}

#[test]
fn a_part_has_its_origin_or_that_of_the_larger_part() {
    let origin = |rule: &str| Origin { kind: "VirtualService".into(), rule: rule.to_owned(), ..Origin::default() };
    let origins = [
        (Part::Whole, origin("whole")),
        (Part::VirtualHost(0), origin("host")),
        (Part::Route { virtual_host: 0, route: 1 }, origin("http[1]")),
    ];
    let direct = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}});
    let message = lateen_xds::json::parse(json!({"virtual_hosts": [
        {"name": "v", "domains": ["a"], "routes": [direct, direct]}, {"name": "w", "domains": ["b"], "routes": [direct]}]}))
    .unwrap();
    let config = RouteConfig::build(&message, &origins, &mut ClusterNames::default()).unwrap();
    let rules: Vec<_> = config
        .virtual_hosts
        .iter()
        .flat_map(|host| host.routes.iter().map(|route| route.origin.as_ref().unwrap().rule.clone()))
        .collect();
    assert_eq!(rules, ["host", "http[1]", "whole"]);
    assert!(routes(json!([direct])).virtual_hosts[0].routes[0].origin.is_none());
}

#[test]
fn clusters_are_numbered_by_name() {
    let mut names = ClusterNames::default();
    let message = lateen_xds::json::parse(json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "a", "weight": 1}, {"name": "b", "weight": 1}]}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]}]}))
    .unwrap();
    let config = RouteConfig::build(&message, &[], &mut names).unwrap();
    assert_eq!(names.len(), 2);
    let Action::Forward(forward) = &config.virtual_hosts[0].routes[1].action else { panic!("no cluster") };
    let ClusterSpecifier::One(ClusterName::Fixed(cluster)) = &forward.cluster else { panic!("no name") };
    assert_eq!(*cluster, names.intern("a"));
}
