//! The results were observed on Envoy 1.40.

use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{build, connection, lines, request, response, selected, stream};

const OVERWRITE: &str = "OVERWRITE_IF_EXISTS_OR_ADD";
const IF_ABSENT: &str = "ADD_IF_ABSENT";
const IF_EXISTS: &str = "OVERWRITE_IF_EXISTS";

fn add(name: &str, value: &str) -> Value {
    json!({"header": {"key": name, "value": value}})
}

fn act(name: &str, value: &str, action: &str) -> Value {
    json!({"header": {"key": name, "value": value}, "append_action": action})
}

fn parse(option: Value) -> core_v3::HeaderValueOption {
    lateen_xds::json::parse(option).unwrap()
}

fn mutations(to_add: &[Value], to_remove: &[&str]) -> Result<HeaderMutations, Invalid> {
    let to_add: Vec<_> = to_add.iter().map(|option| parse(option.clone())).collect();
    let to_remove: Vec<_> = to_remove.iter().map(|name| (*name).to_owned()).collect();
    HeaderMutations::build(&to_add, &to_remove, "request_headers")
}

/// The lines of a request after the changes.
fn changed(to_add: &[Value], to_remove: &[&str], headers: &[(&str, &str)]) -> String {
    let mut head = request("/", headers);
    let connection = connection();
    mutations(to_add, to_remove).unwrap().apply_to_request(&mut head, &stream(&connection), &mut Vec::new());
    lines(&head)
}

#[test]
fn appending_makes_a_new_line_at_the_end() {
    assert_eq!(changed(&[add("x", "2")], &[], &[("x", "1"), ("z", "z")]), "x: 1 | z: z | x: 2");
    assert_eq!(
        changed(&[add("cookie", "b=2")], &[], &[("cookie", "a=1"), ("z", "z")]),
        "cookie: a=1 | z: z | cookie: b=2"
    );
    assert_eq!(changed(&[add("X-CaSe", "2")], &[], &[]), "x-case: 2");
}

#[test]
fn appending_to_a_header_of_one_line_joins_with_a_comma() {
    for name in ["accept", "user-agent", "x-forwarded-for", "x-request-id", "via", "content-type", "authorization"] {
        let after = changed(&[add(name, "b")], &[], &[(name, "a"), ("z", "z")]);
        assert_eq!(after, format!("{name}: a,b | z: z"));
    }
    assert_eq!(changed(&[add("accept", "b")], &[], &[("z", "z")]), "z: z | accept: b");
}

#[test]
fn overwriting_removes_all_lines_and_appends_one() {
    assert_eq!(changed(&[act("x", "2", OVERWRITE)], &[], &[("x", "1"), ("x", "0"), ("z", "z")]), "z: z | x: 2");
    assert_eq!(changed(&[act("accept", "2", OVERWRITE)], &[], &[("accept", "1"), ("z", "z")]), "z: z | accept: 2");
    assert_eq!(changed(&[act("x", "2", OVERWRITE)], &[], &[("z", "z")]), "z: z | x: 2");
}

#[test]
fn what_depends_on_presence_is_decided_before_anything_is_added() {
    assert_eq!(changed(&[act("x", "2", IF_ABSENT)], &[], &[("x", "1")]), "x: 1");
    assert_eq!(changed(&[act("x", "2", IF_ABSENT), act("x", "3", IF_ABSENT)], &[], &[]), "x: 2 | x: 3");
    assert_eq!(changed(&[act("x", "2", IF_ABSENT), add("x", "3")], &[], &[]), "x: 2 | x: 3");
    assert_eq!(changed(&[act("x", "2", IF_EXISTS)], &[], &[("x", "1"), ("z", "z")]), "z: z | x: 2");
    assert_eq!(changed(&[act("x", "2", IF_EXISTS)], &[], &[("z", "z")]), "z: z");
    assert_eq!(changed(&[act("x", "2", IF_EXISTS), act("x", "3", OVERWRITE)], &[], &[]), "x: 3");
}

#[test]
fn overwriting_precedes_appending_whatever_the_order_of_the_list() {
    assert_eq!(changed(&[add("x", "a"), act("x", "o", OVERWRITE)], &[], &[("x", "1")]), "x: o | x: a");
    assert_eq!(
        changed(&[act("x", "o", OVERWRITE), add("y", "b"), add("x", "a")], &[], &[("x", "1")]),
        "x: o | y: b | x: a"
    );
    assert_eq!(changed(&[act("x", "o", OVERWRITE), act("x", "p", OVERWRITE)], &[], &[("x", "1")]), "x: p");
}

#[test]
fn values_are_formatted_before_anything_is_overwritten_but_after_the_removals() {
    let swap = [act("x", "%REQ(X)%-%REQ(Y)%", OVERWRITE), act("y", "%REQ(X)%", OVERWRITE)];
    assert_eq!(changed(&swap, &[], &[("x", "1"), ("y", "2")]), "x: 1-2 | y: 1");
    assert_eq!(changed(&[add("q", "%REQ(X)%|z")], &["x"], &[("x", "1")]), "q: |z");
    assert_eq!(changed(&[act("x", "o", IF_EXISTS)], &["x"], &[("x", "1"), ("z", "z")]), "z: z");
}

#[test]
fn removing_precedes_adding() {
    assert_eq!(changed(&[add("x", "n")], &["x", "Y"], &[("x", "1"), ("y", "2"), ("x", "3")]), "x: n");
}

#[test]
fn an_empty_value_is_not_added_unless_it_is_to_be_kept() {
    let keep = |name: &str, value: &str| json!({"header": {"key": name, "value": value}, "keep_empty_value": true});
    let all = [add("x", ""), add("y", "%REQ(NO)%"), keep("w", ""), keep("v", "%REQ(NO)%")];
    assert_eq!(changed(&all, &[], &[]), "w:  | v: ");
    assert_eq!(changed(&[act("x", "", OVERWRITE)], &[], &[("x", "1")]), "x: 1");
    let mut overwrite = keep("x", "");
    overwrite["append_action"] = OVERWRITE.into();
    assert_eq!(changed(&[overwrite], &[], &[("x", "1")]), "x: ");
}

#[test]
fn the_older_append_field_means_appending_or_overwriting() {
    let append = |append: bool| json!({"header": {"key": "x", "value": "2"}, "append": append});
    assert_eq!(changed(&[append(false)], &[], &[("x", "1")]), "x: 2");
    assert_eq!(changed(&[append(true)], &[], &[("x", "1")]), "x: 1 | x: 2");
    let mut both = append(false);
    both["append_action"] = OVERWRITE.into();
    assert_eq!(mutations(&[both], &[]).unwrap_err().path, "request_headers_to_add[0].append");
}

#[test]
fn more_additions_than_usual_are_all_made() {
    let all: Vec<_> = (0..40).map(|index| act(&format!("x-{index}"), "%PROTOCOL%v", IF_ABSENT)).collect();
    assert_eq!(changed(&all, &[], &[]).split(" | ").count(), 40);
}

#[test]
fn a_percent_sign_is_doubled() {
    assert_eq!(changed(&[add("x", "100%%")], &[], &[]), "x: 100%");
    for value in ["100% done", "100%", "%NOPE%"] {
        let invalid = mutations(&[add("x", value)], &[]).unwrap_err();
        assert_eq!(invalid.path, "request_headers_to_add[0].header.value", "{value}");
    }
}

#[test]
fn pseudo_headers_and_host_are_not_changed_by_mutations() {
    for name in ["host", "Host", ":path", ":authority"] {
        assert_eq!(mutations(&[add(name, "x")], &[]).unwrap_err().path, "request_headers_to_add[0].header.key");
        assert_eq!(mutations(&[], &["a", name]).unwrap_err().path, "request_headers_to_remove[1]");
    }
    assert!(mutations(&[add("a b", "x")], &[]).is_err());
    assert!(mutations(&[json!({"append_action": OVERWRITE})], &[]).is_err());
}

#[test]
fn responses_quote_the_request_and_themselves() {
    let to_add = [
        add("x-up", "3"),
        add("cache-control", "d"),
        add("x-q", "%REQ(Z)%,%RESP(X-UP)%,%RESPONSE_CODE%,%UPSTREAM_HOST%,%RESPONSE_FLAGS%"),
    ];
    let connection = connection();
    let mut stream = stream(&connection);
    stream.response_code = 200;
    stream.upstream_host = Some("10.0.0.3:80".into());
    let mut head = response(200, &[("x-up", "u1"), ("x-up", "u2"), ("cache-control", "cc")]);
    let mutations = mutations(&to_add, &[]).unwrap();
    mutations.apply_to_response(&request("/", &[("z", "z")]), &mut head, &stream, &mut Vec::new());
    assert_eq!(lines(&head), "x-up: u1 | x-up: u2 | cache-control: cc,d | x-up: 3 | x-q: z,u1,200,10.0.0.3:80,-");
}

/// A configuration that changes the header `x` at all four levels.
fn four_levels(action: &str, most_specific_wins: bool) -> String {
    let at = |level: &str| json!([act("x", level, action)]);
    let config = build(json!({
        "request_headers_to_add": at("config"),
        "most_specific_header_mutations_wins": most_specific_wins,
        "virtual_hosts": [{
            "name": "v", "domains": ["*"], "request_headers_to_add": at("host"),
            "routes": [{
                "match": {"prefix": "/"}, "request_headers_to_add": at("route"),
                "route": {"weighted_clusters": {"clusters": [
                    {"name": "b", "weight": 1, "request_headers_to_add": at("cluster")}]}},
            }],
        }],
    }))
    .unwrap();
    let mut head = request("/", &[("x", "0")]);
    let connection = connection();
    selected(&config, &head.clone()).mutate_request(&mut head, &stream(&connection), &mut Vec::new());
    lines(&head)
}

#[test]
fn the_least_specific_level_comes_last() {
    let append = "APPEND_IF_EXISTS_OR_ADD";
    assert_eq!(four_levels(append, false), "x: 0 | x: cluster | x: route | x: host | x: config");
    assert_eq!(four_levels(OVERWRITE, false), "x: config");
}

#[test]
fn the_most_specific_level_comes_last_if_wished_but_the_cluster_stays_first() {
    let append = "APPEND_IF_EXISTS_OR_ADD";
    assert_eq!(four_levels(append, true), "x: 0 | x: cluster | x: config | x: host | x: route");
    assert_eq!(four_levels(OVERWRITE, true), "x: route");
}

#[test]
fn a_later_level_removes_what_an_earlier_one_added() {
    let config = build(json!({"virtual_hosts": [{
        "name": "v", "domains": ["*"], "request_headers_to_remove": ["x"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "b"}, "request_headers_to_add": [add("x", "r")]}],
    }]}))
    .unwrap();
    let mut head = request("/", &[("x", "0")]);
    let connection = connection();
    selected(&config, &head.clone()).mutate_request(&mut head, &stream(&connection), &mut Vec::new());
    assert_eq!(lines(&head), "");
}
