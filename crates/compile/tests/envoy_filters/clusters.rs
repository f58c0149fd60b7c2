//! What do patches change in clusters?

use super::*;

fn patched_cluster(
    patches: &Patches,
    context: PatchContext,
    resource: &Resource<Cluster>,
) -> (Option<Resource<Cluster>>, Vec<String>) {
    let selected = for_role(patches, Role::Sidecar);
    let mut report = Report::default();
    let patched = with_lookup(|lookup| selected.cluster(context, resource, lookup, &mut report));
    (patched, selected.diagnostics(&report).iter().map(ToString::to_string).collect())
}

#[test]
fn a_cluster_is_found_by_its_name_or_its_parts() {
    let matches = |name: &str, context: PatchContext, wanted: &str| {
        let items = format!("- applyTo: CLUSTER\n  match: {{cluster: {{{wanted}}}}}\n  patch: {{operation: REMOVE}}\n");
        patched_cluster(&root(&items), context, &cluster(name, json!({}))).0.is_none()
    };
    let (outbound, inbound) = (PatchContext::SidecarOutbound, PatchContext::SidecarInbound);
    let name = "outbound|80|v1|a.example.com";
    assert!(matches(name, outbound, ""));
    assert!(matches(name, outbound, "service: a.example.com, subset: v1, portNumber: 80"));
    for wrong in ["service: b.example.com", "subset: v2", "portNumber: 81"] {
        assert!(!matches(name, outbound, wrong), "{wrong}");
    }
    assert!(matches(name, outbound, "name: 'outbound|80|v1|a.example.com', portNumber: 1"), "the name alone decides");
    assert!(!matches(name, outbound, "name: 'outbound|80||a.example.com'"));
    assert!(matches("inbound|9080||", inbound, "service: b.example.com, portNumber: 9080"));
    assert!(!matches("inbound|9080||", inbound, "service: c.example.com"));
    assert!(!matches("BlackHoleCluster", outbound, "portNumber: 80"));
}

#[test]
fn clusters_are_merged_removed_and_added() {
    let items = "
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {name: a}}
  patch: {operation: MERGE, value: {connect_timeout: 0.250s, type: STRICT_DNS, per_connection_buffer_limit_bytes: 7}}
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {name: b}}
  patch: {operation: REMOVE}
- applyTo: CLUSTER
  patch: {operation: ADD, value: {name: limits, type: STATIC}}
- applyTo: CLUSTER
  patch: {operation: INSERT_FIRST, value: {name: a, type: STATIC}}
- applyTo: CLUSTER
  match: {context: GATEWAY}
  patch: {operation: ADD, value: {name: edge, type: STATIC}}
";
    let patches = root(items);
    let selected = for_role(&patches, Role::Sidecar);
    let group = |names: &[&str]| names.iter().map(|name| (Arc::from(*name), cluster(name, json!({})))).collect();
    let groups =
        vec![(PatchContext::SidecarOutbound, group(&["a", "b", "c"])), (PatchContext::SidecarInbound, group(&["in"]))];
    let mut report = Report::default();
    let all = with_lookup(|lookup| selected.clusters(groups, lookup, &mut report));
    assert_eq!(all.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "c", "in", "limits"]);
    let merged = json::render(&*all["a"].message).unwrap();
    let expected =
        json!({"name": "a", "type": "STRICT_DNS", "connect_timeout": "0.250s", "per_connection_buffer_limit_bytes": 7});
    assert_eq!(merged, expected);
    assert_eq!(origins(&all["a"], Part::Whole), ["service", "test configPatches[0]"]);
    assert_eq!(origins(&all["limits"], Part::Whole), ["test configPatches[2]"]);
    assert_eq!(all["c"], cluster("c", json!({})));
    let said: Vec<_> = selected.diagnostics(&report).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("there is a cluster `a` already"), "{said:?}");
}

#[test]
fn a_transport_socket_of_a_cluster_is_merged_where_it_stands() {
    let context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let socket =
        |name: &str| json!({"name": name, "typed_config": {"@type": context, "sni": "own", "max_session_keys": 3}});
    let patch = root(&format!(
        "- applyTo: CLUSTER\n  patch: {{operation: MERGE, value: {{lb_policy: RANDOM, transport_socket: {{name: tls, typed_config: {{'@type': {context}, sni: patched}}}}}}}}\n"
    ));
    let render = |base: Value| {
        let (patched, said) = patched_cluster(&patch, PatchContext::SidecarOutbound, &cluster("a", base));
        (json::render(&*patched.unwrap().message).unwrap(), said)
    };
    let merged = json!({"@type": context, "sni": "patched", "max_session_keys": 3});
    let (same, said) = render(json!({"transport_socket": socket("tls")}));
    assert_eq!(same["transport_socket"]["typed_config"], merged);
    assert_eq!(same.get("lb_policy"), None);
    assert!(said[0].contains("LTN0127"), "{said:?}");
    let patched = json!({"@type": context, "sni": "patched"});
    for base in [json!({"transport_socket": socket("other")}), json!({})] {
        assert_eq!(render(base).0["transport_socket"]["typed_config"], patched);
    }
    let entry = |name: &str| json!({"name": name, "transport_socket": socket(name)});
    let (among, _) = render(json!({"transport_socket_matches": [entry("raw"), entry("tls")]}));
    assert_eq!(among["transport_socket_matches"][0]["transport_socket"], socket("raw"));
    assert_eq!(among["transport_socket_matches"][1]["transport_socket"]["typed_config"], merged);
    assert_eq!(among.get("transport_socket"), None);
    let (none, said) = render(json!({"transport_socket_matches": [entry("raw")]}));
    assert_eq!(none.get("transport_socket"), None);
    assert!(said[0].contains("none of its `transport_socket_matches`"), "{said:?}");
}
