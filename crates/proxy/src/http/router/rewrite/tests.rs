//! The results were observed on Envoy 1.40.

use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{connection, lines, request, routes, selected, stream};
use crate::snapshot::route::Action;

/// Path, host and lines that the upstream sees.
fn upstream(rule: Value, action: Value, path: &str, headers: &[(&str, &str)]) -> (String, String, String) {
    rewritten(json!({"match": rule, "route": action}), path, headers, false)
}

fn rewritten(route: Value, path: &str, headers: &[(&str, &str)], suppress: bool) -> (String, String, String) {
    let config = routes(json!([route]));
    let mut head = request(path, headers);
    let routed = selected(&config, &head);
    let Action::Forward(forward) = &routed.route.action else { panic!("no cluster") };
    let connection = connection();
    routed.mutate_request(&mut head, &stream(&connection), &mut Vec::new());
    apply(&routed, forward, &mut head, suppress);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(head.path()), text(head.authority().unwrap()), lines(&head))
}

/// The path that the upstream sees.
fn path_after(rule: Value, rewrite: Value, path: &str) -> String {
    let mut action = rewrite;
    action["cluster"] = "b".into();
    upstream(rule, action, path, &[]).0
}

fn regex(pattern: &str, substitution: &str) -> Value {
    json!({"pattern": {"regex": pattern}, "substitution": substitution})
}

#[test]
fn a_prefix_rewrite_replaces_the_matched_prefix_and_nothing_else() {
    let after = |path: &str| path_after(json!({"prefix": "/pfx"}), json!({"prefix_rewrite": "/"}), path);
    assert_eq!(after("/pfx"), "/");
    assert_eq!(after("/pfx?q=1"), "/?q=1");
    assert_eq!(after("/pfx/b"), "//b");
    assert_eq!(after("/pfxb"), "/b");
    let after = |path: &str| path_after(json!({"prefix": "/p2/"}), json!({"prefix_rewrite": "/"}), path);
    assert_eq!(after("/p2/b"), "/b");
    assert_eq!(after("/p2/"), "/");
    let any_case = json!({"prefix": "/pfx", "case_sensitive": false});
    assert_eq!(path_after(any_case, json!({"prefix_rewrite": "/n"}), "/PfX/b"), "/n/b");
}

#[test]
fn a_prefix_rewrite_of_a_path_separated_prefix_keeps_the_slash() {
    let rule = |prefix: &str| json!({"path_separated_prefix": prefix});
    assert_eq!(path_after(rule("/p3"), json!({"prefix_rewrite": "/"}), "/p3/b"), "//b");
    assert_eq!(path_after(rule("/p4"), json!({"prefix_rewrite": "/z"}), "/p4/b"), "/z/b");
    assert_eq!(path_after(rule("/p4"), json!({"prefix_rewrite": "/z"}), "/p4?x=1"), "/z?x=1");
}

#[test]
fn a_prefix_rewrite_of_an_exact_path_or_an_expression_replaces_the_whole_path() {
    let exact = json!({"path": "/exact"});
    assert_eq!(path_after(exact, json!({"prefix_rewrite": "/new"}), "/exact?x=1"), "/new?x=1");
    let expression = json!({"safe_regex": {"regex": "/re.*"}});
    assert_eq!(path_after(expression, json!({"prefix_rewrite": "/newre"}), "/re/a?x=1"), "/newre?x=1");
}

#[test]
fn a_regex_rewrite_replaces_all_matches_in_the_path_but_not_in_the_query() {
    let after = |pattern: &str, substitution: &str, path: &str| {
        path_after(json!({"prefix": "/"}), json!({"regex_rewrite": regex(pattern, substitution)}), path)
    };
    assert_eq!(after("a", "b", "/aXaa?a=a"), "/bXbb?a=a");
    let instance = after("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api?q");
    assert_eq!(instance, "/v1/api/instance/foo?q");
    assert_eq!(after("x*", "-", "/abc"), "-/-a-b-c-");
    assert_eq!(after("x*", "-", "/axxb"), "-/-a-b-");
    assert_eq!(after("/a", "", "/abc"), "bc");
}

#[test]
fn a_rewrite_keeps_the_old_path_even_if_nothing_changed() {
    let rewrite = json!({"cluster": "b", "regex_rewrite": regex("a", "b")});
    let (path, _, lines) = upstream(json!({"prefix": "/"}), rewrite, "/zzz?q", &[("z", "1")]);
    assert_eq!((path.as_str(), lines.as_str()), ("/zzz?q", "z: 1 | x-envoy-original-path: /zzz?q"));
}

#[test]
fn a_rewrite_to_nothing_at_all_is_none() {
    let rewrite = json!({"cluster": "b", "regex_rewrite": regex("/a", "")});
    let (path, _, lines) = upstream(json!({"prefix": "/"}), rewrite, "/a", &[]);
    assert_eq!((path.as_str(), lines.as_str()), ("/a", ""));
}

#[test]
fn a_host_rewrite_keeps_the_old_host() {
    let action = json!({"cluster": "b", "host_rewrite_literal": "h.com"});
    let (_, host, lines) = upstream(json!({"prefix": "/"}), action, "/", &[]);
    assert_eq!((host.as_str(), lines.as_str()), ("h.com", "x-envoy-original-host: a.com"));
}

#[test]
fn old_values_replace_those_of_the_client_in_their_place() {
    let action = json!({"cluster": "b", "host_rewrite_literal": "h.com", "prefix_rewrite": "/n/"});
    let client = [("x-envoy-original-path", "/old"), ("x-envoy-original-host", "old"), ("z", "1")];
    let (path, _, lines) = upstream(json!({"prefix": "/"}), action, "/a", &client);
    assert_eq!(path, "/n/a");
    assert_eq!(lines, "x-envoy-original-path: /a | x-envoy-original-host: a.com | z: 1");
}

#[test]
fn the_old_host_joins_x_forwarded_host_unless_it_is_its_last_entry() {
    let after = |forwarded: &[(&str, &str)]| {
        let action = json!({"cluster": "b", "host_rewrite_literal": "h.com", "append_x_forwarded_host": true});
        upstream(json!({"prefix": "/"}), action, "/a", forwarded).2
    };
    assert_eq!(after(&[]), "x-envoy-original-host: a.com | x-forwarded-host: a.com");
    assert_eq!(after(&[("x-forwarded-host", "z")]), "x-forwarded-host: z,a.com | x-envoy-original-host: a.com");
    for kept in ["a.com", "z,a.com"] {
        assert_eq!(
            after(&[("x-forwarded-host", kept)]),
            format!("x-forwarded-host: {kept} | x-envoy-original-host: a.com")
        );
    }
    let blank = after(&[("x-forwarded-host", "z, a.com")]);
    assert_eq!(blank, "x-forwarded-host: z, a.com,a.com | x-envoy-original-host: a.com");
}

#[test]
fn rewrites_come_after_header_mutations_host_first() {
    let route = json!({
        "match": {"prefix": "/"},
        "route": {"cluster": "b", "host_rewrite_literal": "h.com", "prefix_rewrite": "/n/"},
        "request_headers_to_add": [{"header": {"key": "x-p", "value": "%REQ(:PATH)%|%REQ(:AUTHORITY)%"}}],
    });
    let (path, host, lines) = rewritten(route, "/a", &[], false);
    assert_eq!((path.as_str(), host.as_str()), ("/n/a", "h.com"));
    assert_eq!(lines, "x-p: /a|a.com | x-envoy-original-host: a.com | x-envoy-original-path: /a");
}

#[test]
fn suppressed_envoy_headers_are_not_set() {
    let action = json!({"cluster": "b", "host_rewrite_literal": "h.com", "prefix_rewrite": "/n/"});
    let (_, _, lines) = rewritten(json!({"match": {"prefix": "/"}, "route": action}), "/a", &[], true);
    assert_eq!(lines, "");
}

#[test]
fn a_host_can_come_from_a_header() {
    let after = |headers: &[(&str, &str)]| {
        upstream(json!({"prefix": "/"}), json!({"cluster": "b", "host_rewrite_header": "x-h"}), "/a", headers).1
    };
    assert_eq!(after(&[("x-h", "n.com"), ("x-h", "m.com")]), "n.com");
    assert_eq!(after(&[]), "a.com");
    assert_eq!(after(&[("x-h", "")]), "a.com");
}

#[test]
fn a_host_can_come_from_the_path() {
    let after = |path: &str| {
        let action = json!({"cluster": "b", "host_rewrite_path_regex": regex("^/(.+)/.+$", r"\1")});
        upstream(json!({"prefix": "/"}), action, path, &[]).1
    };
    assert_eq!(after("/h2/x?q"), "h2");
    assert_eq!(after("/z"), "/z");
}

#[test]
fn the_host_of_a_weighted_cluster_is_the_old_host_of_the_route() {
    let route = |host: Value| {
        let mut action = json!({"weighted_clusters": {"clusters": [{
            "name": "b", "weight": 1, "host_rewrite_literal": "w.com",
            "request_headers_to_add": [{"header": {"key": "x-w", "value": "%REQ(:AUTHORITY)%"}}],
        }]}});
        action["host_rewrite_literal"] = host;
        action["append_x_forwarded_host"] = true.into();
        json!({
            "match": {"prefix": "/"}, "route": action,
            "request_headers_to_add": [{"header": {"key": "x-r", "value": "%REQ(:AUTHORITY)%"}}],
        })
    };
    let (_, host, lines) = rewritten(route("".into()), "/a", &[], false);
    assert_eq!((host.as_str(), lines.as_str()), ("w.com", "x-w: a.com | x-r: w.com"));
    let (_, host, lines) = rewritten(route("h.com".into()), "/a", &[], false);
    assert_eq!(host, "h.com");
    assert_eq!(lines, "x-w: a.com | x-r: w.com | x-envoy-original-host: w.com | x-forwarded-host: w.com");
}
