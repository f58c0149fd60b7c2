//! Which patches are for a proxy, and in which order are they applied?

use super::*;

#[test]
fn order_is_priority_then_root_namespace_then_name() {
    let insert = |name: &str, namespace: &str, priority: i32| {
        let spec = if priority == 0 { String::new() } else { format!("  priority: {priority}\n") };
        filter(name, namespace, &spec, &http_patch("INSERT_FIRST", None, &lua(name)))
    };
    let all = [
        insert("a", "default", 0),
        insert("b", ROOT, 10),
        insert("c", "default", -5),
        insert("z", ROOT, 0),
        insert("x", ROOT, 0),
    ];
    let (resource, _) = patched(&patches(&all.concat()), PatchContext::Gateway, &gateway_listener());
    // The last one applied stands first.
    assert_eq!(http_filters(&resource)[..5], ["b", "a", "z", "x", "c"]);
    let rules = origins(&resource, Part::FilterChain(0));
    let names: Vec<_> = rules.iter().map(|rule| rule.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["listener", "c", "x", "z", "a", "b"]);
}

#[test]
fn an_older_filter_is_applied_first() {
    let insert = |name: &str, time: &str| {
        filter(name, ROOT, "", &http_patch("INSERT_FIRST", None, &lua(name)))
            .replace("namespace: istio-system}", &format!("namespace: istio-system, creationTimestamp: '{time}'}}"))
    };
    let all = insert("a", "2026-02-01T00:00:00Z") + &insert("b", "2026-01-01T00:00:00Z");
    let (resource, _) = patched(&patches(&all), PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource)[..2], ["a", "b"]);
}

#[test]
fn a_proxy_has_the_patches_that_are_for_it() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("v".to_owned(), "1".to_owned())]);
    let metadata = BTreeMap::from([("CLUSTER".to_owned(), "east".to_owned())]);
    let chosen = |name: &str, namespace: &str, spec: &str, proxy: &str| {
        let patch =
            http_patch("INSERT_FIRST", None, &lua(name)).replace("context: GATEWAY", &format!("context: ANY{proxy}"));
        let patches = patches(&filter(name, namespace, spec, &patch));
        assert_eq!(messages(&patches), Vec::<String>::new());
        !patches
            .for_proxy(&ProxyFacts {
                role: Role::Sidecar,
                namespace: "default",
                labels: Some(&labels),
                istio_version: "1.27.3",
                metadata: &metadata,
            })
            .is_empty()
    };
    assert!(chosen("a", ROOT, "", ""));
    assert!(chosen("a", "default", "", ""));
    assert!(!chosen("a", "other", "", ""));
    assert!(chosen("a", "default", "  workloadSelector: {labels: {app: web}}\n", ""));
    assert!(!chosen("a", "default", "  workloadSelector: {labels: {app: web, v: '2'}}\n", ""));
    assert!(chosen("a", ROOT, "", ", proxy: {proxyVersion: '^1\\.2[0-9]'}"));
    // It is searched for, not matched from end to end.
    assert!(chosen("a", ROOT, "", ", proxy: {proxyVersion: '27'}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {proxyVersion: '^1\\.1'}"));
    assert!(chosen("a", ROOT, "", ", proxy: {metadata: {CLUSTER: east}}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {metadata: {CLUSTER: west}}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {metadata: {OTHER: east}}"));
}

#[test]
fn a_context_is_the_one_that_a_resource_was_made_for() {
    for (written, gateway, outbound, inbound) in [
        ("ANY", true, true, true),
        ("GATEWAY", true, false, false),
        ("SIDECAR_OUTBOUND", false, true, false),
        ("SIDECAR_INBOUND", false, false, true),
    ] {
        let patch = http_patch("INSERT_FIRST", None, &lua("x")).replace("GATEWAY", written);
        let patches = root(&patch);
        let contexts = [
            (PatchContext::Gateway, gateway),
            (PatchContext::SidecarOutbound, outbound),
            (PatchContext::SidecarInbound, inbound),
        ];
        for (context, expected) in contexts {
            let (resource, _) = patched(&patches, context, &gateway_listener());
            assert_eq!(http_filters(&resource)[0] == "x", expected, "{written} in {context}");
        }
    }
}

#[test]
fn selections_of_the_same_patches_are_equal() {
    let yaml = filter("a", ROOT, "", &http_patch("INSERT_FIRST", None, &lua("x")));
    let objects = objects(&yaml);
    let select = |objects: &[Arc<lateen_config::Object>]| for_role(&build(objects), Role::Gateway);
    assert!(!select(&objects).is_empty());
    assert!(select(&objects) == select(&objects), "built again of the same objects");
    assert!(select(&objects) != select(&[]));
    assert!(select(&[]) != select(&objects));
    assert!(select(&objects) != for_role(&build(&objects), Role::Sidecar));
    // A patch before it moves it, and what was said about it with it.
    let more = self::objects(&filter("b", ROOT, "  priority: -1\n", &http_patch("INSERT_FIRST", None, &lua("y"))));
    assert!(select(&objects) != select(&[more, objects.clone()].concat()));
}
