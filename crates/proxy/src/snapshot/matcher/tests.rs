//! The tables were observed on Envoy 1.40.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{refusal, request, request_to, routes};

/// Whether a request satisfies a match.
fn hits(rule: &Value, request: &Head) -> bool {
    let config = routes(json!([{"match": rule, "direct_response": {"status": 200}}]));
    let route = &config.virtual_hosts[0].routes[0];
    route.matches(request, without_query(request.path()), 0)
}

fn header_rule(mut matcher: Value) -> Value {
    matcher["name"] = "x".into();
    json!({"prefix": "/", "headers": [matcher]})
}

/// Whether a condition on the header `x` holds for these lines of it.
fn header_hits(matcher: &Value, lines: &[&str]) -> bool {
    let lines: Vec<_> = lines.iter().map(|line| ("x", *line)).collect();
    hits(&header_rule(matcher.clone()), &request("/", &lines))
}

fn query_hits(matcher: Value, path: &str) -> bool {
    let mut matcher = matcher;
    matcher["name"] = "a".into();
    hits(&json!({"prefix": "/", "query_parameters": [matcher]}), &request(path, &[]))
}

#[test]
fn a_presence_condition_holds_for_empty_values_too() {
    let present = json!({"present_match": true});
    assert!(header_hits(&present, &[""]));
    assert!(header_hits(&present, &["v"]));
    assert!(!header_hits(&present, &[]));
    assert!(header_hits(&json!({}), &["v"]));
    assert!(!header_hits(&json!({}), &[]));
}

#[test]
fn absence_can_be_asked_for_in_two_ways() {
    for absent in [json!({"present_match": false}), json!({"present_match": true, "invert_match": true})] {
        assert!(header_hits(&absent, &[]), "{absent}");
        assert!(!header_hits(&absent, &[""]), "{absent}");
    }
    let present = json!({"present_match": false, "invert_match": true});
    assert!(!header_hits(&present, &[]));
    assert!(header_hits(&present, &[""]));
}

#[test]
fn a_missing_header_that_counts_as_empty_is_present() {
    let present = json!({"present_match": true, "treat_missing_header_as_empty": true});
    assert!(header_hits(&present, &[]));
    assert!(header_hits(&present, &[""]));
}

#[test]
fn an_istio_header_without_a_value_follows_the_truth_table() {
    let other_than_v =
        json!({"string_match": {"exact": "v"}, "invert_match": true, "treat_missing_header_as_empty": true});
    assert!(header_hits(&other_than_v, &[]));
    assert!(!header_hits(&other_than_v, &["v"]));
    assert!(header_hits(&other_than_v, &["w"]));
    let absent = json!({"present_match": true, "invert_match": true});
    assert!(header_hits(&absent, &[]));
    assert!(!header_hits(&absent, &["v"]));
    let not_empty = json!({"string_match": {"exact": ""}, "invert_match": true, "treat_missing_header_as_empty": true});
    assert!(!header_hits(&not_empty, &[]));
    assert!(header_hits(&not_empty, &["v"]));
}

#[test]
fn several_lines_are_tested_one_by_one_and_then_inverted() {
    let exact = |text: &str| json!({"string_match": {"exact": text}});
    assert!(header_hits(&exact("v"), &["v", "w"]));
    assert!(header_hits(&exact("w"), &["v", "w"]));
    assert!(!header_hits(&exact("v,w"), &["v", "w"]));
    assert!(header_hits(&exact("v,w"), &["v,w"]));
    assert!(!header_hits(&exact("v"), &["v,w"]));
    assert!(!header_hits(&json!({"string_match": {"exact": "v"}, "invert_match": true}), &["v", "w"]));
    assert!(!header_hits(&json!({"string_match": {"safe_regex": {"regex": "v,w"}}}), &["v", "w"]));
}

#[test]
fn a_condition_on_the_value_of_a_missing_header_fails_even_inverted() {
    assert!(!header_hits(&json!({"string_match": {"exact": "v"}, "invert_match": true}), &[]));
    assert!(!header_hits(&json!({"string_match": {"exact": ""}}), &[]));
    assert!(header_hits(&json!({"string_match": {"exact": ""}}), &[""]));
    assert!(header_hits(&json!({"string_match": {"exact": ""}, "treat_missing_header_as_empty": true}), &[]));
    assert!(!header_hits(&json!({"range_match": {"start": 0, "end": 10}, "invert_match": true}), &[]));
}

#[test]
fn a_range_wants_a_whole_number_and_excludes_its_end() {
    let range = json!({"range_match": {"start": -5, "end": 10}});
    for hit in ["9", "-5", "+3", " 3 ", "03"] {
        assert!(header_hits(&range, &[hit]), "{hit}");
    }
    for miss in ["10", "-6", "3.0", "", "1,2", "0x1", "99999999999999999999"] {
        assert!(!header_hits(&range, &[miss]), "{miss}");
    }
    assert!(header_hits(&range, &["99", "1"]));
    let inverted = json!({"range_match": {"start": 0, "end": 10}, "invert_match": true});
    assert!(header_hits(&inverted, &["z"]));
    assert!(header_hits(
        &json!({"range_match": {"start": 0, "end": 10}, "invert_match": true, "treat_missing_header_as_empty": true}),
        &[]
    ));
}

#[test]
fn the_kinds_of_text_conditions_do_what_they_say() {
    let text = |matcher: Value, value: &str| header_hits(&json!({"string_match": matcher}), &[value]);
    assert!(text(json!({"prefix": "ab"}), "abc") && !text(json!({"prefix": "ab"}), "xab"));
    assert!(text(json!({"suffix": "bc"}), "abc") && !text(json!({"suffix": "bc"}), "bcx"));
    assert!(text(json!({"contains": "b"}), "abc") && !text(json!({"contains": "x"}), "abc"));
    assert!(text(json!({"safe_regex": {"regex": "a.c"}}), "abc"));
    assert!(!text(json!({"safe_regex": {"regex": "a.c"}}), "abcd"));
}

#[test]
fn ignoring_the_case_concerns_ascii_letters() {
    let text = |matcher: Value, value: &str| header_hits(&json!({"string_match": matcher}), &[value]);
    assert!(text(json!({"exact": "AbC", "ignore_case": true}), "aBc"));
    assert!(!text(json!({"exact": "AbC", "ignore_case": true}), "aBcd"));
    assert!(text(json!({"prefix": "AB", "ignore_case": true}), "abc"));
    assert!(text(json!({"suffix": "BC", "ignore_case": true}), "abc"));
    assert!(text(json!({"contains": "AbC", "ignore_case": true}), "zzaBcz"));
    assert!(!text(json!({"exact": "ä", "ignore_case": true}), "Ä"));
    assert!(text(json!({"exact": "ä", "ignore_case": true}), "ä"));
}

#[test]
fn the_older_fields_mean_the_same() {
    assert!(header_hits(&json!({"exact_match": "v"}), &["v"]));
    assert!(header_hits(&json!({"prefix_match": "v"}), &["vw"]));
    assert!(header_hits(&json!({"suffix_match": "w"}), &["vw"]));
    assert!(header_hits(&json!({"contains_match": "v"}), &["uvw"]));
    assert!(header_hits(&json!({"safe_regex_match": {"regex": "v+"}}), &["vv"]));
}

#[test]
fn pseudo_headers_and_host_can_be_conditions() {
    let rule =
        |name: &str, value: &str| json!({"prefix": "/", "headers": [{"name": name, "string_match": {"exact": value}}]});
    for (name, value) in [(":method", "GET"), (":path", "/p?q"), (":scheme", "http"), (":authority", "b.com:1")] {
        assert!(hits(&rule(name, value), &request_to("b.com:1", "/p?q", &[])), "{name}");
    }
    assert!(hits(&rule("Host", "b.com"), &request_to("b.com", "/", &[])));
    assert!(!hits(&rule("host", "b.com"), &request_to("B.com", "/", &[])));
}

#[test]
fn the_first_query_parameter_counts_as_it_stands() {
    let exact = |text: &str| json!({"string_match": {"exact": text}});
    assert!(query_hits(exact("1"), "/?a=1"));
    assert!(query_hits(exact("1"), "/?b=2&a=1"));
    assert!(query_hits(exact("1"), "/?a=1&a=2"));
    assert!(!query_hits(exact("1"), "/?a=2&a=1"));
    assert!(!query_hits(exact("1"), "/?a=%31"));
    assert!(!query_hits(exact("1"), "/?a=1;b"));
    assert!(query_hits(exact("1=2"), "/?a=1=2"));
    assert!(query_hits(exact("x%20y"), "/?a=x%20y"));
    assert!(!query_hits(exact("x y"), "/?a=x%20y"));
    assert!(!query_hits(exact("x y"), "/?a=x+y"));
    assert!(query_hits(exact(""), "/?a="));
    assert!(query_hits(exact(""), "/?a"));
    assert!(!query_hits(exact(""), "/"));
}

#[test]
fn a_query_parameter_is_present_with_and_without_a_value() {
    for present in [json!({"present_match": true}), json!({})] {
        assert!(query_hits(present.clone(), "/?a"));
        assert!(query_hits(present.clone(), "/?a="));
        assert!(query_hits(present.clone(), "/?b&a"));
        for path in ["/", "/?b", "/?ab=1", "/?a%3D1", "/?%61=1"] {
            assert!(!query_hits(present.clone(), path), "{path}");
        }
    }
    let absent = json!({"present_match": false});
    assert!(query_hits(absent.clone(), "/?b=1"));
    assert!(!query_hits(absent, "/?a"));
}

#[test]
fn the_first_cookie_of_a_name_counts_without_its_quotes() {
    let rule = json!({"prefix": "/", "cookies": [{"name": "s", "string_match": {"exact": "v"}}]});
    for hit in ["s=v", "a=b; s=v", "s=\"v\"", "s=v; s=x"] {
        assert!(hits(&rule, &request("/", &[("cookie", hit)])), "{hit}");
    }
    for miss in ["s=x; s=v", "s = v", "s", "xs=v"] {
        assert!(!hits(&rule, &request("/", &[("cookie", miss)])), "{miss}");
    }
    assert!(hits(&rule, &request("/", &[("cookie", "a=b"), ("cookie", "s=v")])));
    let inverted =
        json!({"prefix": "/", "cookies": [{"name": "s", "string_match": {"exact": "v"}, "invert_match": true}]});
    assert!(hits(&inverted, &request("/", &[])));
    assert!(!hits(&inverted, &request("/", &[("cookie", "s=v")])));
}

#[test]
fn paths_are_compared_without_their_query() {
    let path_hits = |rule: Value, path: &str| hits(&rule, &request(path, &[]));
    assert!(path_hits(json!({"path": "/a"}), "/a?x"));
    assert!(!path_hits(json!({"path": "/a"}), "/a/"));
    assert!(!path_hits(json!({"path": "/a?x"}), "/a?x"));
    assert!(path_hits(json!({"prefix": "/rw2"}), "/rw2a"));
    assert!(!path_hits(json!({"prefix": "/a?x"}), "/a?x=1"));
    assert!(path_hits(json!({"prefix": ""}), "/a"));
    assert!(path_hits(json!({"safe_regex": {"regex": "/a[0-9]+"}}), "/a12?x"));
    assert!(!path_hits(json!({"safe_regex": {"regex": "/a"}}), "/ab"));
}

#[test]
fn a_path_separated_prefix_ends_where_a_segment_ends() {
    let rule = json!({"path_separated_prefix": "/psp"});
    for hit in ["/psp", "/psp/", "/psp/x", "/psp?x"] {
        assert!(hits(&rule, &request(hit, &[])), "{hit}");
    }
    for miss in ["/pspx", "/PSP", "/ps"] {
        assert!(!hits(&rule, &request(miss, &[])), "{miss}");
    }
}

#[test]
fn the_case_can_be_ignored_but_not_by_expressions() {
    let path_hits = |mut rule: Value, path: &str| {
        rule["case_sensitive"] = false.into();
        hits(&rule, &request(path, &[]))
    };
    assert!(path_hits(json!({"path": "/a"}), "/A"));
    assert!(!path_hits(json!({"path": "/a"}), "/A/"));
    assert!(path_hits(json!({"prefix": "/Ab"}), "/aBc"));
    assert!(path_hits(json!({"path_separated_prefix": "/psp"}), "/PSP/x"));
    assert!(!path_hits(json!({"safe_regex": {"regex": "/ab"}}), "/AB"));
    assert!(!hits(&json!({"prefix": "/a"}), &request("/A", &[])));
}

#[test]
fn a_connect_is_matched_by_a_connect_matcher_alone() {
    let mut connect = request("", &[]);
    connect.set_method(b"CONNECT");
    assert!(hits(&json!({"connect_matcher": {}}), &connect));
    assert!(!hits(&json!({"prefix": "/"}), &connect));
    assert!(!hits(&json!({"prefix": ""}), &connect));
    assert!(!hits(&json!({"connect_matcher": {}}), &request("/", &[])));
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let rule = json!({"prefix": "/", "grpc": {}});
    for (kind, hit) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("application/grpc;x", false),
        ("application/GRPC", false),
        ("text/plain", false),
    ] {
        assert_eq!(hits(&rule, &request("/", &[("content-type", kind)])), hit, "{kind}");
    }
}

#[test]
fn a_fraction_includes_the_random_numbers_below_it() {
    let fraction =
        |numerator, denominator| Fraction::build(&type_v3::FractionalPercent { numerator, denominator }).unwrap();
    assert!(fraction(30, 0).includes(29) && !fraction(30, 0).includes(30) && fraction(30, 0).includes(100));
    assert!(fraction(1, 1).includes(10_000) && !fraction(1, 1).includes(1));
    assert!(fraction(1, 2).includes(1_000_000) && !fraction(1, 2).includes(999_999));
    assert!(!fraction(0, 0).includes(0));
    assert!(Fraction::ALL.includes(u64::MAX));
    assert!(Fraction::build(&type_v3::FractionalPercent { numerator: 1, denominator: 9 }).is_err());
}

#[test]
fn malformed_conditions_are_refused_with_their_place() {
    let refused = |rule: Value| refusal(json!({"match": rule, "direct_response": {"status": 200}})).0;
    assert_eq!(refused(header_rule(json!({"string_match": {"prefix": ""}}))), "match.headers[0].string_match.prefix");
    assert_eq!(refused(header_rule(json!({"string_match": {}}))), "match.headers[0].string_match.match_pattern");
    assert_eq!(
        refused(header_rule(json!({"string_match": {"safe_regex": {"regex": "("}}}))),
        "match.headers[0].string_match.safe_regex.regex"
    );
    assert_eq!(
        refused(header_rule(json!({"string_match": {"safe_regex": {"regex": "a"}, "ignore_case": true}}))),
        "match.headers[0].string_match.ignore_case"
    );
    assert_eq!(refused(json!({"prefix": "/", "headers": [{"name": "a b"}]})), "match.headers[0].name");
    assert_eq!(refused(json!({"prefix": "/", "query_parameters": [{"name": ""}]})), "match.query_parameters[0].name");
    assert_eq!(refused(json!({"path_separated_prefix": "/a/"})), "match.path_separated_prefix");
    assert_eq!(refused(json!({"path_separated_prefix": "/"})), "match.path_separated_prefix");
    assert_eq!(refused(json!({"safe_regex": {"regex": "*"}})), "match.safe_regex.regex");
    assert_eq!(refused(json!({})), "match.path_specifier");
    assert_eq!(refused(json!({"prefix": "/", "tls_context": {}})), "match.tls_context");
    assert_eq!(
        refused(json!({"prefix": "/", "runtime_fraction": {"runtime_key": "k"}})),
        "match.runtime_fraction.default_value"
    );
}

proptest! {
    #[test]
    fn query_parameters_and_cookies_of_any_bytes_are_searched_without_panic(text in "[ab=&;#?\" %]{0,20}") {
        let head = request(&text, &[("cookie", &text)]);
        let _ = query_parameter(text.as_bytes(), b"a");
        let _ = cookie(&head, b"a");
        let _ = without_query(text.as_bytes());
    }
}
