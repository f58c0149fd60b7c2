//! The results were observed on Envoy 1.40.

use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{request, request_to, routes, selected};
use crate::snapshot::route::Action;

/// Where a redirect of a path leads to.
fn target(rule: Value, redirect: Value, path: &str) -> String {
    target_of(rule, redirect, &request(path, &[]))
}

fn target_of(rule: Value, redirect: Value, request: &Head) -> String {
    let config = routes(json!([{"match": rule, "redirect": redirect}]));
    let routed = selected(&config, request);
    let Action::Redirect(redirect) = &routed.route.action else { panic!("no redirect") };
    let mut out = Vec::new();
    location(redirect, &routed.route.matcher, request, &mut out);
    String::from_utf8(out).unwrap()
}

/// Where a request to a host is redirected to that came over a scheme.
fn from_host(redirect: Value, host: &str, scheme: &str) -> String {
    let mut head = request_to(host, "/p?q=1", &[("x-forwarded-proto", scheme)]);
    head.set_scheme(scheme.as_bytes());
    target_of(json!({"prefix": "/"}), redirect, &head)
}

#[test]
fn a_new_scheme_takes_the_default_port_of_the_old_one_away() {
    let https = json!({"https_redirect": true});
    assert_eq!(from_host(https.clone(), "a.com", "http"), "https://a.com/p?q=1");
    assert_eq!(from_host(https.clone(), "a.com:80", "http"), "https://a.com/p?q=1");
    assert_eq!(from_host(https.clone(), "a.com:443", "http"), "https://a.com:443/p?q=1");
    assert_eq!(from_host(https.clone(), "a.com:8080", "http"), "https://a.com:8080/p?q=1");
    assert_eq!(from_host(https.clone(), "[::1]:80", "http"), "https://[::1]/p?q=1");
    assert_eq!(from_host(https.clone(), "[::1]", "http"), "https://[::1]/p?q=1");
    assert_eq!(from_host(https, "a.com:443", "https"), "https://a.com:443/p?q=1");
    let http = json!({"scheme_redirect": "http"});
    assert_eq!(from_host(http.clone(), "a.com:80", "http"), "http://a.com:80/p?q=1");
    assert_eq!(from_host(http.clone(), "a.com:443", "https"), "http://a.com/p?q=1");
    assert_eq!(from_host(http, "a.com:80", "https"), "http://a.com:80/p?q=1");
}

#[test]
fn a_new_host_takes_the_old_port_away() {
    for old in ["a.com", "a.com:80", "a.com:8080"] {
        assert_eq!(from_host(json!({"host_redirect": "n.com"}), old, "http"), "http://n.com/p?q=1");
    }
    assert_eq!(from_host(json!({"host_redirect": "n.com:81"}), "a.com", "https"), "https://n.com:81/p?q=1");
    let twice = json!({"host_redirect": "n.com:81", "port_redirect": 82});
    assert_eq!(from_host(twice, "a.com", "http"), "http://n.com:81:82/p?q=1");
}

#[test]
fn a_new_port_replaces_the_old_one() {
    for (old, new) in
        [("a.com", "a.com:8443"), ("a.com:80", "a.com:8443"), ("[::1]:80", "[::1]:8443"), ("[::1]", "[::1]:8443")]
    {
        assert_eq!(from_host(json!({"port_redirect": 8443}), old, "http"), format!("http://{new}/p?q=1"));
    }
    let default = json!({"port_redirect": 443, "https_redirect": true});
    assert_eq!(from_host(default, "a.com:8080", "http"), "https://a.com:443/p?q=1");
}

#[test]
fn a_new_path_keeps_the_query_unless_it_has_one_or_it_is_stripped() {
    let any = || json!({"prefix": "/"});
    assert_eq!(target(any(), json!({"path_redirect": "/n"}), "/p?q=1"), "http://a.com/n?q=1");
    assert_eq!(target(any(), json!({"path_redirect": "/n"}), "/p"), "http://a.com/n");
    assert_eq!(target(any(), json!({"path_redirect": "/n?z=1"}), "/p?q=1"), "http://a.com/n?z=1");
    assert_eq!(target(any(), json!({"path_redirect": "/n?z=1", "strip_query": true}), "/p?q=1"), "http://a.com/n?z=1");
    assert_eq!(target(any(), json!({"path_redirect": "/n", "strip_query": true}), "/p?q=1"), "http://a.com/n");
    assert_eq!(target(any(), json!({"path_redirect": "n"}), "/p?q=1"), "http://a.com/n?q=1");
    assert_eq!(target(any(), json!({"path_redirect": ""}), "/p?q=1"), "http://a.com/p?q=1");
    assert_eq!(target(any(), json!({"strip_query": true}), "/p?q=1"), "http://a.com/p");
    assert_eq!(target(any(), json!({}), "/p?q"), "http://a.com/p?q");
}

#[test]
fn a_new_prefix_keeps_the_rest_of_the_path_and_the_query() {
    let prefix = || json!({"prefix": "/p"});
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "/n"}), "/p?q=1"), "http://a.com/n?q=1");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "/n"}), "/p/x?y"), "http://a.com/n/x?y");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "/n"}), "/px"), "http://a.com/nx");
    assert_eq!(target(json!({"path": "/p"}), json!({"prefix_rewrite": "/n"}), "/p?q=1"), "http://a.com/n?q=1");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "n"}), "/p?q=1"), "http://a.com/n?q=1");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "/n?a=b"}), "/p/x?q=1"), "http://a.com/n?a=b/x?q=1");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": "/n", "strip_query": true}), "/p/x?q=1"), "http://a.com/n/x");
    assert_eq!(target(prefix(), json!({"prefix_rewrite": ""}), "/p/x?q=1"), "http://a.com/p/x?q=1");
}

#[test]
fn an_expression_replaces_all_its_matches_in_the_path() {
    let redirect = json!({"regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b"}});
    assert_eq!(target(json!({"prefix": "/"}), redirect, "/aa?a=1"), "http://a.com/bb?a=1");
}

#[test]
fn the_response_code_is_301_unless_another_one_is_wished() {
    for (code, status) in [
        ("MOVED_PERMANENTLY", 301),
        ("FOUND", 302),
        ("SEE_OTHER", 303),
        ("TEMPORARY_REDIRECT", 307),
        ("PERMANENT_REDIRECT", 308),
    ] {
        let config = routes(json!([{"match": {"prefix": "/"}, "redirect": {"response_code": code}}]));
        let Action::Redirect(redirect) = &config.virtual_hosts[0].routes[0].action else { panic!("no redirect") };
        assert_eq!(redirect.status, status);
    }
}

#[test]
fn a_request_that_needs_tls_keeps_host_port_and_path() {
    assert_eq!(to_tls(&request_to("h:80", "/p?q", &[])), b"https://h:80/p?q");
}
