//! What is said about patches that cannot be applied?

use super::*;

#[test]
fn what_is_wrong_with_a_patch_is_told_at_its_place() {
    let cases = [
        (
            "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {name: a, connect_timeout: soon}}",
            "8:65: warning[LTN0120]: the value is no envoy.config.cluster.v3.Cluster: connect_timeout",
        ),
        (
            "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {nam: a}}",
            "8:44: warning[LTN0121]: unknown field `nam`",
        ),
        ("- applyTo: CLUSTER\n  patch: {operation: ADD, value: {type: STATIC}}", "LTN0120]: a CLUSTER without `name`"),
        ("- applyTo: CLUSTER\n  patch: {operation: ADD}", "LTN0120]: ADD needs a `value`"),
        (
            "- applyTo: CLUSTER\n  patch: {operation: REPLACE, value: {name: a}}",
            "LTN0122]: CLUSTER does not know the operation REPLACE",
        ),
        (
            "- applyTo: ROUTE_CONFIGURATION\n  patch: {operation: ADD, value: {name: a}}",
            "LTN0122]: ROUTE_CONFIGURATION does not know",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: MERGE_AND_REPLACE_LIST, value: {name: a}}",
            "LTN0122]: HTTP_FILTER does not know",
        ),
        ("- applyTo: EXTENSION_CONFIG\n  patch: {operation: REMOVE}", "LTN0122]: EXTENSION_CONFIG does not know"),
        ("- applyTo: HTTP_FILTER\n  patch: {operation: REMOVE}", "LTN0123]: REMOVE needs the name of a filter"),
        (
            "- applyTo: CLUSTER\n  match: {listener: {name: a}}\n  patch: {operation: REMOVE}",
            "8:23: warning[LTN0123]: a match of a listener cannot tell which CLUSTER",
        ),
        (
            "- applyTo: LISTENER\n  match: {cluster: {name: a}}\n  patch: {operation: REMOVE}",
            "LTN0123]: a match of a cluster",
        ),
        (
            "- applyTo: HTTP_FILTER\n  match: {listener: {filterChain: {filter: {name: h, subFilter: {}}}}}\n  patch: {operation: REMOVE}",
            "LTN0123]: the match of an HTTP filter has no `name`",
        ),
        (
            "- applyTo: CLUSTER\n  match: {proxy: {proxyVersion: '1.(2'}}\n  patch: {operation: REMOVE}",
            "8:35: warning[LTN0123]: `proxyVersion` is no regular expression: unclosed group",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: INSERT_FIRST, value: {name: a, typed_config: {'@type': t/istio.alpn}}}",
            "LTN0120]: the value is no envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter: typed_config: Envoy has no extension with the type t/istio.alpn",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: INSERT_FIRST, value: {name: a}}",
            "LTN0120]: a HTTP_FILTER without `typed_config`",
        ),
        ("- applyTo: BOOTSTRAP\n  patch: {operation: MERGE, value: {}}", "LTN0101]: patches of the bootstrap"),
        (
            "- applyTo: CLUSTER\n  match: {context: WAYPOINT, waypoint: {}}\n  patch: {operation: REMOVE}",
            "LTN0101]: patches for waypoints",
        ),
    ];
    for (items, expected) in cases {
        let patches = root(items);
        let said = messages(&patches);
        assert_eq!(said.len(), 1, "{items}: {said:?}");
        assert!(said[0].contains(expected), "{items}: {said:?}");
        assert_eq!(patches.is_empty(), !expected.contains("LTN0121"), "{items}");
    }
    let targeted = "  targetRefs: [{kind: Gateway, name: a}]\n";
    let patches = patches(&filter("a", ROOT, targeted, "- applyTo: CLUSTER\n  patch: {operation: REMOVE}"));
    assert!(messages(&patches)[0].contains("LTN0101]: `targetRefs`"));
    assert!(patches.is_empty());
}

#[test]
fn a_patch_that_fails_everywhere_is_told_once() {
    let items = "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {name: other}}\n";
    let selected = for_role(&root(items), Role::Sidecar);
    let mut reports = Vec::new();
    for name in ["a", "b"] {
        let mut report = Report::default();
        let base = cluster(name, json!({}));
        let patched =
            with_lookup(|lookup| selected.cluster(PatchContext::SidecarOutbound, &base, lookup, &mut report)).unwrap();
        assert!(Arc::ptr_eq(&patched.message, &base.message));
        reports.push(report);
    }
    let mut joined = Report::default();
    reports.iter().for_each(|report| joined.join(report));
    let said = selected.diagnostics(&joined);
    assert_eq!(said.len(), 1);
    assert!(said[0].message.contains("left out of cluster `a`"), "{}", said[0].message);
    assert_eq!(said[0].path, "spec.configPatches[0]");
}
