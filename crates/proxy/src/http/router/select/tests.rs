//! The rules were observed on Envoy 1.40.

use serde_json::{Value, json};

use super::*;
use crate::http::router::redirect;
use crate::snapshot::fixture::{build, request, request_to, routes, selected};

fn direct(rule: Value, name: &str) -> Value {
    json!({"name": name, "match": rule, "direct_response": {"status": 200}})
}

/// One virtual host per list of domains, each with a route for everything; its name is the list's index.
fn hosts(domains: &[&[&str]], ignore_port: bool) -> RouteConfig {
    let hosts: Vec<_> = domains
        .iter()
        .enumerate()
        .map(|(index, domains)| {
            json!({"name": index.to_string(), "domains": domains, "routes": [direct(json!({"prefix": "/"}), "")]})
        })
        .collect();
    build(json!({"virtual_hosts": hosts, "ignore_port_in_host_matching": ignore_port})).unwrap()
}

fn host_of(config: &RouteConfig, host: &str) -> Option<String> {
    match select(config, &request_to(host, "/", &[]), 0) {
        Selection::Route(routed) => Some(routed.virtual_host.name.to_string()),
        Selection::NoRoute => None,
        Selection::RedirectToTls(_) => panic!("no TLS is required"),
    }
}

#[test]
fn the_most_specific_domain_has_the_request() {
    let config = hosts(&[&["*"], &["pre.*"], &["*.b.com"], &["a.b.com", "C.com"]], false);
    for (host, expected) in [
        ("a.b.com", "3"),
        ("A.B.com", "3"),
        ("c.COM", "3"),
        ("x.y.b.com", "2"),
        ("b.com", "0"),
        ("pre.x", "1"),
        ("pre.b.com", "2"),
        ("a.b.com:80", "0"),
        ("", "0"),
    ] {
        assert_eq!(host_of(&config, host).as_deref(), Some(expected), "{host}");
    }
}

#[test]
fn no_domain_is_no_route() {
    let config = hosts(&[&["a.com", "*a"]], false);
    assert_eq!(host_of(&config, "b.com"), None);
    assert_eq!(host_of(&config, ""), None);
}

#[test]
fn the_port_can_be_ignored() {
    let config = hosts(&[&["a.com"], &["[::1]"]], true);
    for host in ["a.com", "a.com:80", "a.com:", "a.com:x"] {
        assert_eq!(host_of(&config, host).as_deref(), Some("0"), "{host}");
    }
    for host in ["[::1]", "[::1]:80"] {
        assert_eq!(host_of(&config, host).as_deref(), Some("1"), "{host}");
    }
}

#[test]
fn the_first_matching_route_counts_and_no_other_virtual_host_is_asked() {
    let config = build(json!({"virtual_hosts": [
        {"name": "any", "domains": ["*"], "routes": [direct(json!({"prefix": "/"}), "any")]},
        {"name": "a", "domains": ["a.com"], "routes": [
            direct(json!({"prefix": "/x/"}), "first"),
            direct(json!({"prefix": "/x"}), "second"),
            direct(json!({"prefix": "/x/y"}), "never"),
        ]},
    ]}))
    .unwrap();
    let name = |path: &str| match select(&config, &request(path, &[]), 0) {
        Selection::Route(routed) => routed.route.name.to_string(),
        _ => "none".to_owned(),
    };
    assert_eq!(name("/x/y"), "first");
    assert_eq!(name("/xy"), "second");
    assert_eq!(name("/z"), "none");
}

#[test]
fn all_conditions_of_a_route_must_hold() {
    let rule = json!({
        "prefix": "/", "headers": [{"name": "x", "present_match": true}, {"name": "y", "present_match": true}],
        "query_parameters": [{"name": "q", "present_match": true}],
    });
    let config = routes(json!([direct(rule, "")]));
    let found = |path: &str, headers: &[(&str, &str)]| {
        matches!(select(&config, &request(path, headers), 0), Selection::Route(_))
    };
    assert!(found("/?q", &[("x", "1"), ("y", "1")]));
    assert!(!found("/", &[("x", "1"), ("y", "1")]));
    assert!(!found("/?q", &[("x", "1")]));
}

#[test]
fn no_request_has_a_claim_where_tokens_are_not_read() {
    let claim = |invert: bool| {
        json!({
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "payload"}, {"key": "group"}],
            "value": {"string_match": {"exact": "admin"}},
            "invert": invert,
        })
    };
    let config = routes(json!([
        direct(json!({"prefix": "/", "dynamic_metadata": [claim(true), claim(false)]}), "has"),
        direct(json!({"prefix": "/", "dynamic_metadata": [claim(true)]}), "has not"),
    ]));
    assert_eq!(&*selected(&config, &request("/", &[])).route.name, "has not");
}

#[test]
fn a_missed_fraction_leaves_the_request_to_the_next_route() {
    let fraction = json!({"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 30}, "runtime_key": "k"}});
    let config = routes(json!([direct(fraction, "some"), direct(json!({"prefix": "/"}), "others")]));
    let name = |random| match select(&config, &request("/", &[]), random) {
        Selection::Route(routed) => routed.route.name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(29), "some");
    assert_eq!(name(30), "others");
}

#[test]
fn parameters_of_path_segments_can_be_ignored() {
    let config = |rule: Value| {
        build(json!({
            "ignore_path_parameters_in_path_matching": true,
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [direct(rule, "")]}],
        }))
        .unwrap()
    };
    let found =
        |config: &RouteConfig, path: &str| matches!(select(config, &request(path, &[]), 0), Selection::Route(_));
    let exact = config(json!({"path": "/a"}));
    assert!(found(&exact, "/a;x=1") && found(&exact, "/a?y;z") && !found(&exact, "/a;x/b"));
    assert!(found(&config(json!({"prefix": "/a/b"})), "/a;x/b"));
}

#[test]
fn tls_can_be_demanded() {
    let config = |demand: &str| {
        build(json!({"virtual_hosts": [
            {"name": "v", "domains": ["*"], "require_tls": demand, "routes": [direct(json!({"prefix": "/"}), "")]}]}))
        .unwrap()
    };
    let redirected = |config: &RouteConfig, headers: &[(&str, &str)]| {
        matches!(select(config, &request("/p?q", headers), 0), Selection::RedirectToTls(_))
    };
    let all = config("ALL");
    assert!(redirected(&all, &[]));
    assert!(redirected(&all, &[("x-envoy-internal", "true")]));
    assert!(!redirected(&all, &[("x-forwarded-proto", "https")]));
    assert!(redirected(&all, &[("x-forwarded-proto", "HTTPS")]));
    let external = config("EXTERNAL_ONLY");
    assert!(redirected(&external, &[]));
    assert!(!redirected(&external, &[("x-envoy-internal", "true")]));
    assert!(!redirected(&config("NONE"), &[]));
    assert_eq!(redirect::to_tls(&request("/p?q", &[])), b"https://a.com/p?q");
}

fn weighted(extra: Value, weights: &[(&str, u32)]) -> Value {
    let clusters: Vec<_> = weights.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect();
    let mut clusters = json!({"clusters": clusters});
    if let (Some(all), Some(more)) = (clusters.as_object_mut(), extra.as_object()) {
        all.extend(more.clone());
    }
    json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": clusters}}])
}

fn cluster(config: &RouteConfig, request: &Head, random: u64) -> String {
    match select(config, request, random) {
        Selection::Route(routed) => routed.cluster.unwrap().name.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_random_number_walks_the_weights() {
    let config = routes(weighted(json!({}), &[("a", 70), ("never", 0), ("b", 20), ("c", 10)]));
    for (random, expected) in
        [(0, "a"), (69, "a"), (70, "b"), (89, "b"), (90, "c"), (99, "c"), (100, "a"), (u64::MAX, "a")]
    {
        assert_eq!(cluster(&config, &request("/", &[]), random), expected, "{random}");
    }
    let mut counts = std::collections::BTreeMap::new();
    for random in 0..1000 {
        *counts.entry(cluster(&config, &request("/", &[]), random)).or_insert(0) += 1;
    }
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a".into(), 700), ("b".into(), 200), ("c".into(), 100)]);
}

#[test]
fn weights_need_no_sum_of_a_hundred() {
    let config = routes(weighted(json!({}), &[("a", 1), ("b", 3)]));
    let chosen: String = (0..4).map(|random| cluster(&config, &request("/", &[]), random)).collect();
    assert_eq!(chosen, "abbb");
}

#[test]
fn a_header_can_take_the_place_of_chance() {
    let config = routes(weighted(json!({"header_name": "x-random"}), &[("a", 1), ("b", 1)]));
    assert_eq!(cluster(&config, &request("/", &[("x-random", "7")]), 0), "b");
    assert_eq!(cluster(&config, &request("/", &[("x-random", "8")]), 1), "a");
    for invalid in ["", "x", "-1", "1.0"] {
        assert_eq!(cluster(&config, &request("/", &[("x-random", invalid)]), 1), "b", "{invalid}");
    }
}

#[test]
fn a_header_can_name_the_cluster() {
    let config = routes(json!([{"match": {"prefix": "/"}, "route": {"cluster_header": "X-Cluster"}}]));
    let head = request("/", &[("x-cluster", "b")]);
    let routed = selected(&config, &head);
    assert!(routed.cluster.is_none());
    assert_eq!(routed.cluster_header.and_then(|name| head.value(name)), Some(&b"b"[..]));
}

#[test]
fn a_route_without_a_cluster_has_none() {
    let config = routes(json!([direct(json!({"prefix": "/"}), "")]));
    let routed = selected(&config, &request("/", &[]));
    assert!(routed.cluster.is_none() && routed.cluster_header.is_none() && routed.weighted.is_none());
}
