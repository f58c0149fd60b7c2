//! Where do HTTP filters go, and what is merged into them?

use super::*;

#[test]
fn http_filters_go_where_their_operation_says() {
    let cases: [(&str, Option<&str>, &[&str]); 12] = [
        ("INSERT_FIRST", None, &["x", "one", "two", "router"]),
        ("INSERT_FIRST", Some("two"), &["x", "one", "two", "router"]),
        ("INSERT_FIRST", Some("absent"), &["x", "one", "two", "router"]),
        ("INSERT_BEFORE", None, &["x", "one", "two", "router"]),
        ("INSERT_BEFORE", Some("two"), &["one", "x", "two", "router"]),
        ("INSERT_BEFORE", Some("envoy.filters.http.router"), &["one", "two", "x", "router"]),
        ("INSERT_BEFORE", Some("absent"), &["one", "two", "router"]),
        ("INSERT_AFTER", Some("one"), &["one", "x", "two", "router"]),
        ("INSERT_AFTER", Some("absent"), &["one", "two", "router"]),
        ("REPLACE", Some("one"), &["x", "two", "router"]),
        ("REPLACE", Some("absent"), &["one", "two", "router"]),
        ("REMOVE", Some("two"), &["one", "router"]),
    ];
    for (operation, sub_filter, expected) in cases {
        let patches = root(&http_patch(operation, sub_filter, &lua("x")));
        let base = gateway_listener();
        let (resource, said) = patched(&patches, PatchContext::Gateway, &base);
        let what = format!("{operation} {sub_filter:?}");
        assert_eq!(http_filters(&resource), expected, "{what}");
        let changes = expected != ["one", "two", "router"];
        assert_eq!(said.is_empty(), changes, "{what}: {said:?}");
        assert_eq!(Arc::ptr_eq(&resource.message, &base.message), !changes, "{what}");
        // The chain had the origins of the listener; it keeps them.
        let expected: &[&str] = if changes { &["listener", "test configPatches[0]"] } else { &[] };
        assert_eq!(origins(&resource, Part::FilterChain(0)), expected, "{what}");
    }
}

#[test]
fn a_filter_behind_the_router_is_left_out_and_told() {
    for (operation, sub_filter) in
        [("ADD", None), ("INSERT_AFTER", None), ("INSERT_AFTER", Some("envoy.filters.http.router"))]
    {
        let patches = root(&http_patch(operation, sub_filter, &lua("x")));
        let said = messages(&patches);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("filters.yaml:9:24: warning[LTN0124]: the HTTP filter would stand"), "{said:?}");
        let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
        assert_eq!(http_filters(&resource), ["one", "two", "router"]);
        assert!(said.is_empty(), "told once: {said:?}");
    }
    // Without its router a chain is refused as well.
    let patches = root(&http_patch("REMOVE", Some("envoy.filters.http.router"), "{}"));
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "router"]);
    assert!(said[0].contains("LTN0124") && said[0].contains("would not end with the router"), "{said:?}");
}

#[test]
fn what_all_patches_together_make_counts() {
    // Neither would do alone: a router of one's own at the end, in the place of the other.
    let router = format!("{{name: own, typed_config: {{'@type': {ROUTER}, suppress_envoy_headers: true}}}}");
    let items = http_patch("ADD", None, &router) + &http_patch("REMOVE", Some("envoy.filters.http.router"), "{}");
    let patches = root(&items);
    assert_eq!(messages(&patches), Vec::<String>::new());
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "own"]);
    assert_eq!(said, Vec::<String>::new());
    // Of several patches only the one that breaks the chain is left out.
    let items = http_patch("INSERT_FIRST", None, &lua("first")) + &http_patch("ADD", None, &router);
    let (resource, said) = patched(&root(&items), PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["first", "one", "two", "router"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("filters.yaml:10:5: warning[LTN0124]"), "{said:?}");
}

#[test]
fn a_merge_sees_what_later_patches_insert() {
    let code = |text: &str| format!("{{name: x, typed_config: {{'@type': {LUA}, inline_code: '{text}'}}}}");
    let early = filter("early", ROOT, "  priority: -1\n", &http_patch("MERGE", Some("x"), &code("merged")));
    let late = filter("late", "default", "", &http_patch("INSERT_FIRST", None, &code("inserted")));
    let patches = patches(&[late, early].concat());
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(said, Vec::<String>::new());
    let rendered = json::render(&*resource.message).unwrap();
    let first = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0];
    assert_eq!(first["typed_config"]["inline_code"], "merged");
}

#[test]
fn a_merge_without_a_filter_is_for_filters_of_its_type() {
    let value = format!("{{typed_config: {{'@type': {LUA}, inline_code: all}}}}");
    let patches = root(&http_patch("MERGE", None, &value));
    let (resource, _) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "router"]);
    let rendered = json::render(&*resource.message).unwrap();
    let filters = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    assert_eq!(filters[0]["typed_config"]["inline_code"], "all");
    assert_eq!(filters[1]["typed_config"]["inline_code"], "all");
    assert_eq!(filters[2]["typed_config"], json!({"@type": ROUTER}));
}

#[test]
fn discovered_configurations_are_put_where_they_are_named() {
    let items = format!(
        "
- applyTo: EXTENSION_CONFIG
  match: {{context: GATEWAY}}
  patch: {{operation: ADD, value: {{name: script, typed_config: {{'@type': {LUA}, inline_code: found}}}}}}
- applyTo: EXTENSION_CONFIG
  patch: {{operation: ADD, value: {{name: unused, typed_config: {{'@type': {LUA}}}}}}}
{}{}",
        http_patch(
            "INSERT_FIRST",
            None,
            &format!("{{name: script, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{LUA}']}}}}")
        ),
        http_patch(
            "INSERT_FIRST",
            None,
            &format!("{{name: nowhere, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{LUA}']}}}}")
        )
    );
    let patches = root(&items);
    let said = messages(&patches);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("no EXTENSION_CONFIG patch has the configuration of the filter `nowhere`"), "{said:?}");
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    let rendered = json::render(&*resource.message).unwrap();
    let filters = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    assert_eq!(filters[1]["typed_config"]["inline_code"], "found");
    assert_eq!(
        origins(&resource, Part::FilterChain(0)),
        ["listener", "test configPatches[2]", "test configPatches[3]", "test configPatches[0]"]
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("filters.yaml:10:5: warning[LTN0125]: the patch matches nothing"), "{said:?}");
}

#[test]
fn a_typed_struct_is_the_message_that_it_stands_for() {
    let value = format!(
        "{{name: x, typed_config: {{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: {LUA}, value: {{inline_code: folded}}}}}}"
    );
    let patches = root(&http_patch("INSERT_FIRST", None, &value));
    assert_eq!(messages(&patches), Vec::<String>::new());
    let (resource, _) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    let rendered = json::render(&*resource.message).unwrap();
    let filter = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0];
    assert_eq!(filter["typed_config"], json!({"@type": LUA, "inline_code": "folded"}));
}
