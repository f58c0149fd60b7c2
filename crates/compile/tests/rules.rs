//! What does one rule of a VirtualService become?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::compile;
use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use lateen_xds::envoy::config::core::v3::{HeaderValueOption, data_source};
use lateen_xds::envoy::config::route::v3::route_action::{HostRewriteSpecifier, hash_policy};
use lateen_xds::envoy::config::route::v3::{Route, route, route_action, weighted_cluster};
use lateen_xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use lateen_xds::envoy::extensions::filters::http::fault::v3::{HttpFault, fault_abort};
use lateen_xds::envoy::r#type::v3::fractional_percent::DenominatorType;
use mesh::*;

/// The routes of one rule, written as the fields of an `http` entry in flow style.
fn rule_with(fields: &str, more: &str) -> Vec<Route> {
    let yaml = format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a, namespace: default}}\nspec:\n  hosts: [a]\n  http: [{{{fields}}}]\n{more}",
        service("a", 80)
    );
    let set = compile(&unchecked(&yaml), &sidecar_scope("default", &[]));
    virtual_host(&set, "80", "a.default.svc.cluster.local:80").routes.clone()
}

/// The one route of a rule that goes to `a`.
fn rule(fields: &str) -> Route {
    let mut routes = rule_with(&format!("route: [{{destination: {{host: a}}}}], {fields}"), "");
    assert_eq!(routes.len(), 1);
    routes.remove(0)
}

fn matching(conditions: &str) -> String {
    describe(&rule(&format!("match: [{{{conditions}}}]")))
}

/// `(name, value, appended)` of header operations.
fn headers(options: &[HeaderValueOption]) -> Vec<(&str, &str, bool)> {
    options
        .iter()
        .map(|option| {
            let header = option.header.as_ref().unwrap();
            let append = option.append_action == i32::from(HeaderAppendAction::AppendIfExistsOrAdd);
            (header.key.as_str(), header.value.as_str(), append)
        })
        .collect()
}

#[test]
fn paths_match_exactly_by_prefix_or_as_a_whole() {
    assert_eq!(matching("uri: {exact: /a}"), "/a -> 80||a");
    assert_eq!(matching("uri: {prefix: /a}"), "/a* -> 80||a");
    assert_eq!(matching("uri: {regex: '/a.*'}"), "~/a.* -> 80||a");
    let route = rule("match: [{uri: {prefix: /a}, ignoreUriCase: true}]");
    assert_eq!(route.r#match.unwrap().case_sensitive, Some(false));
    assert_eq!(rule("match: [{uri: {prefix: /a}}]").r#match.unwrap().case_sensitive, Some(true));
    assert_eq!(rule("name: x").r#match.unwrap().case_sensitive, None);
}

#[test]
fn headers_come_by_name_and_pseudo_headers_behind_them() {
    assert_eq!(
        matching(
            "scheme: {exact: http}, authority: {prefix: a}, method: {regex: 'GET|HEAD'}, headers: {x-b: {exact: '1'}, x-a: {prefix: '2'}}"
        ),
        "/* x-a=2* x-b=1 :method~GET|HEAD :authority=a* :scheme=http -> 80||a"
    );
}

#[test]
fn nothing_asked_of_a_header_asks_for_the_header() {
    assert_eq!(matching("headers: {x-a: {}}"), "/* x-a* -> 80||a");
}

#[test]
fn a_header_that_must_not_match_counts_as_empty_when_it_is_missing() {
    assert_eq!(matching("withoutHeaders: {x-a: {exact: v}}"), "/* !x-a?=v -> 80||a");
    assert_eq!(matching("withoutHeaders: {x-a: {}}"), "/* !x-a* -> 80||a");
    assert_eq!(matching("withoutHeaders: {x-a: {regex: '*'}}"), "/* !x-a* -> 80||a");
}

#[test]
fn query_parameters_are_matched_by_value_or_presence() {
    assert_eq!(
        matching("queryParams: {b: {exact: '1'}, a: {regex: '[0-9]+'}, c: {}}"),
        "/* ?a~[0-9]+ ?b=1 ?c* -> 80||a"
    );
}

#[test]
fn each_match_of_a_rule_is_a_route_of_its_own() {
    let routes = rule_with(
        "name: r, match: [{name: one, uri: {prefix: /1}, statPrefix: first}, {uri: {prefix: /2}}], route: [{destination: {host: a}}]",
        "",
    );
    let names: Vec<_> = routes.iter().map(|route| (route.name.as_str(), route.stat_prefix.as_str())).collect();
    assert_eq!(names, [("r.one", "first"), ("r", "")]);
}

#[test]
fn weights_are_copied_and_zero_is_left_out() {
    let routes = rule_with(
        "route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 3}, {destination: {host: c}}]",
        "",
    );
    assert_eq!(describe(&routes[0]), "/* -> 80||a=1 80||b=3");
}

#[test]
fn operations_of_an_only_destination_follow_those_of_the_rule() {
    let routes = rule_with(
        "headers: {request: {set: {x-b: rule, x-a: rule}, add: {x-c: rule}, remove: [x-d, host]}}, route: [{destination: {host: a}, headers: {request: {set: {x-a: destination}}, response: {remove: [server]}}}]",
        "",
    );
    assert_eq!(
        headers(&routes[0].request_headers_to_add),
        [("x-a", "rule", false), ("x-b", "rule", false), ("x-c", "rule", true), ("x-a", "destination", false)]
    );
    assert_eq!(routes[0].request_headers_to_remove, ["x-d"], "the host cannot be removed");
    assert_eq!(routes[0].response_headers_to_remove, ["server"]);
}

#[test]
fn several_destinations_keep_their_operations() {
    let routes = rule_with(
        "route: [{destination: {host: a}, weight: 1, headers: {request: {set: {x: '1', host: one.com}}}}, {destination: {host: b}, weight: 1}]",
        "",
    );
    assert!(routes[0].request_headers_to_add.is_empty());
    let Some(route_action::ClusterSpecifier::WeightedClusters(clusters)) =
        forwarding(&routes[0]).cluster_specifier.clone()
    else {
        panic!("not weighted")
    };
    assert_eq!(headers(&clusters.clusters[0].request_headers_to_add), [("x", "1", false)]);
    assert_eq!(
        clusters.clusters[0].host_rewrite_specifier,
        Some(weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("one.com".into()))
    );
}

#[test]
fn a_set_host_is_a_rewrite_unless_the_rule_rewrites_the_authority() {
    let literal = |text: &str| Some(HostRewriteSpecifier::HostRewriteLiteral(text.into()));
    let route = rule("headers: {request: {set: {Host: b.com}}}");
    assert_eq!(forwarding(&route).host_rewrite_specifier, literal("b.com"));
    assert!(route.request_headers_to_add.is_empty());
    let route = rule("headers: {request: {add: {':authority': c.com}}}, rewrite: {authority: d.com}");
    assert_eq!(forwarding(&route).host_rewrite_specifier, literal("d.com"));
}

#[test]
fn paths_are_rewritten_by_prefix_or_by_search() {
    let route = rule("match: [{uri: {prefix: /a}}], rewrite: {uri: /b}");
    assert_eq!(forwarding(&route).prefix_rewrite, "/b");
    let route = rule(r"rewrite: {uriRegexRewrite: {match: '/v(\d)', rewrite: '/\1'}}");
    let regex = forwarding(&route).regex_rewrite.clone().unwrap();
    assert_eq!((regex.pattern.unwrap().regex.as_str(), regex.substitution.as_str()), (r"/v(\d)", r"/\1"));
}

#[test]
fn a_direct_response_has_status_and_body() {
    let routes = rule_with("directResponse: {status: 503, body: {string: busy}}", "");
    let Some(route::Action::DirectResponse(response)) = routes[0].action.clone() else { panic!() };
    assert_eq!(response.status, 503);
    assert_eq!(response.body.unwrap().specifier, Some(data_source::Specifier::InlineString("busy".into())));
}

#[test]
fn a_timeout_bounds_grpc_timeouts_too() {
    let route = rule("timeout: 1.5s");
    let expected = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    assert_eq!(forwarding(&route).timeout, expected);
    assert_eq!(forwarding(&route).max_grpc_timeout, expected);
}

#[test]
fn retries_of_a_rule_replace_the_default_and_zero_attempts_turn_them_off() {
    let route = rule(
        "retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,503', retryRemoteLocalities: true, backoff: 10ms}",
    );
    let policy = forwarding(&route).retry_policy.clone().unwrap();
    assert_eq!(policy.num_retries, Some(3));
    assert_eq!(policy.retry_on, "gateway-error,retriable-status-codes");
    assert_eq!(policy.retriable_status_codes, [503]);
    assert_eq!(policy.per_try_timeout.unwrap().seconds, 2);
    assert_eq!(policy.retry_priority.unwrap().name, "envoy.retry_priorities.previous_priorities");
    assert_eq!(policy.retry_back_off.unwrap().base_interval.unwrap().nanos, 10_000_000);
    assert_eq!(forwarding(&rule("retries: {attempts: 0}")).retry_policy, None);
    let kept = forwarding(&rule("retries: {attempts: 1}")).retry_policy.clone().unwrap();
    assert!(kept.retry_on.starts_with("connect-failure,"), "{}", kept.retry_on);
    let same_hosts = rule("retries: {attempts: 1, retryIgnorePreviousHosts: false}");
    assert!(forwarding(&same_hosts).retry_policy.clone().unwrap().retry_host_predicate.is_empty());
}

#[test]
fn faults_without_a_share_never_happen() {
    let fault = |fields: &str| -> HttpFault {
        let route = rule(&format!("fault: {{{fields}}}"));
        any::unpack(&route.typed_per_filter_config["envoy.filters.http.fault"]).unwrap()
    };
    let share = fault("delay: {fixedDelay: 1s}").delay.unwrap().percentage.unwrap();
    assert_eq!((share.numerator, share.denominator), (0, i32::from(DenominatorType::Hundred)));
    assert_eq!(fault("abort: {httpStatus: 500}").abort.unwrap().percentage, None);
    let abort = fault("abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.5}}").abort.unwrap();
    assert_eq!(abort.error_type, Some(fault_abort::ErrorType::GrpcStatus(14)));
    assert_eq!(abort.percentage.unwrap().numerator, 5000);
    // Cut off as Istio does, from the nearest binary fraction.
    let odd = fault("abort: {httpStatus: 500, percentage: {value: 0.57}}").abort.unwrap();
    assert_eq!(odd.percentage.unwrap().numerator, (0.57_f64 * 10_000.0) as u32);
}

#[test]
fn a_mirror_without_a_share_copies_everything_and_a_share_of_zero_nothing() {
    let mirrors = |fields: &str| {
        forwarding(&rule(fields))
            .request_mirror_policies
            .iter()
            .map(|policy| {
                let share = policy.runtime_fraction.clone().unwrap().default_value.unwrap();
                assert!(policy.disable_shadow_host_suffix_append);
                (policy.cluster.clone(), share.numerator)
            })
            .collect::<Vec<_>>()
    };
    let name = |service: &str| format!("outbound|80||{service}.default.svc.cluster.local");
    assert_eq!(mirrors("mirror: {host: b}"), [(name("b"), 100)]);
    assert_eq!(mirrors("mirror: {host: b}, mirrorPercentage: {value: 10.0}"), [(name("b"), 100_000)]);
    assert_eq!(mirrors("mirror: {host: b}, mirrorPercentage: {value: 0.0}"), []);
    assert_eq!(
        mirrors("mirrors: [{destination: {host: b}}, {destination: {host: c}, percentage: {value: 1}}]"),
        [(name("b"), 100), (name("c"), 10_000)]
    );
}

#[test]
fn cors_lists_are_joined_and_preflights_of_others_forwarded() {
    let route = rule(
        "corsPolicy: {allowOrigins: [{exact: 'https://a.com'}, {regex: '.*b'}], allowMethods: [GET, POST], allowHeaders: [x-a, x-b], maxAge: 24h, allowCredentials: false}",
    );
    let cors: CorsPolicy = any::unpack(&route.typed_per_filter_config["envoy.filters.http.cors"]).unwrap();
    assert_eq!(cors.allow_origin_string_match.len(), 2);
    assert_eq!((cors.allow_methods.as_str(), cors.allow_headers.as_str()), ("GET,POST", "x-a,x-b"));
    assert_eq!(cors.max_age, "86400");
    assert_eq!(cors.allow_credentials, Some(false));
    assert_eq!(cors.forward_not_matching_preflights, Some(true));
}

#[test]
fn a_hashed_destination_puts_its_key_on_the_route_and_may_be_retried_on_the_same_host() {
    let rule_for = |hash: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, namespace: default}}\nspec: {{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{{hash}}}}}}}}}\n"
        )
    };
    let of = |hash: &str| {
        let routes = rule_with("route: [{destination: {host: a}}]", &rule_for(hash));
        forwarding(&routes[0]).clone()
    };
    let action = of("httpHeaderName: x-user");
    let Some(hash_policy::PolicySpecifier::Header(header)) = &action.hash_policy[0].policy_specifier else { panic!() };
    assert_eq!(header.header_name, "x-user");
    assert!(action.retry_policy.unwrap().retry_host_predicate.is_empty());
    let action = of("httpCookie: {name: session, ttl: 0s}");
    let Some(hash_policy::PolicySpecifier::Cookie(cookie)) = &action.hash_policy[0].policy_specifier else { panic!() };
    assert_eq!((cookie.name.as_str(), cookie.ttl), ("session", Some(prost_types::Duration::default())));
    assert!(matches!(
        of("useSourceIp: true").hash_policy[0].policy_specifier,
        Some(hash_policy::PolicySpecifier::ConnectionProperties(_))
    ));
    assert!(matches!(
        of("httpQueryParameterName: user").hash_policy[0].policy_specifier,
        Some(hash_policy::PolicySpecifier::QueryParameter(_))
    ));
}

#[test]
fn a_match_of_token_claims_makes_no_route() {
    let yaml = "match: [{headers: {'@request.auth.claims.group': {exact: admin}}}], route: [{destination: {host: a}}]";
    let routes = rule_with(yaml, "");
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].name, "default", "nothing of the rule is left, so the service has its default route");
}
