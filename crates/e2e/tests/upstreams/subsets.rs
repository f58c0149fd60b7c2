//! Do routes reach the same part of a cluster, and fall back alike?

use super::*;

#[tokio::test]
async fn routes_choose_among_subsets_by_metadata() {
    let meta = |fields: Value| json!({"metadata": {"filter_metadata": {"envoy.lb": fields}}});
    let hosts = [
        ("a", json!({"version": "1", "stage": "prod"})),
        ("b", json!({"version": "2", "stage": "prod"})),
        ("c", json!({"version": "2", "stage": "test", "weight": 3})),
        ("d", json!({"stage": "dev"})),
    ];
    let subsets = |fallback: &str, selector: Value| {
        json!({"lb_subset_config": {"fallback_policy": fallback, "default_subset": {"stage": "prod"},
            "subset_selectors": [{"keys": ["version"]}, {"keys": ["stage", "version"]}, {"keys": ["weight"]}, selector]}})
    };
    let keys =
        json!({"keys": ["version", "zone"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]});
    let any = json!({"keys": ["zone"], "fallback_policy": "ANY_ENDPOINT"});
    // Cluster, what the route asks for, and who may answer; nobody is 503.
    let cases: Vec<(&str, &str, Value, &[&str])> = vec![
        ("none", "v1", json!({"version": "1"}), &["a"]),
        ("none", "v2", json!({"version": "2"}), &["b", "c"]),
        ("none", "both", json!({"version": "2", "stage": "test"}), &["c"]),
        ("none", "number", json!({"weight": 3}), &["c"]),
        ("none", "text", json!({"weight": "3"}), &[]),
        ("none", "unknown", json!({"version": "9"}), &[]),
        ("none", "other", json!({"stage": "prod"}), &[]),
        ("none", "nothing", json!({}), &[]),
        ("any", "unknown", json!({"version": "9"}), &["a", "b", "c", "d"]),
        ("any", "nothing", json!({}), &["a", "b", "c", "d"]),
        ("default", "unknown", json!({"version": "9"}), &["a", "b"]),
        ("default", "nothing", json!({}), &["a", "b"]),
        ("keys", "fewer", json!({"version": "2", "zone": "z"}), &["b", "c"]),
        ("keys", "neither", json!({"version": "7", "zone": "z"}), &[]),
        ("own", "unknown", json!({"zone": "z"}), &["a", "b", "c", "d"]),
        ("own", "cluster", json!({"version": "9"}), &[]),
    ];
    let scene = Scene::start(&["a", "b", "c", "d"], |ports| {
        let endpoints: Vec<_> =
            hosts.iter().map(|(name, fields)| endpoint(ports[*name], &meta(fields.clone()))).collect();
        let groups = json!([{"lb_endpoints": endpoints}]);
        let clusters = vec![
            cluster("none", &groups, &subsets("NO_FALLBACK", keys.clone())),
            cluster("any", &groups, &subsets("ANY_ENDPOINT", keys.clone())),
            cluster("default", &groups, &subsets("DEFAULT_SUBSET", keys.clone())),
            cluster("keys", &groups, &subsets("NO_FALLBACK", keys.clone())),
            cluster("own", &groups, &subsets("NO_FALLBACK", any.clone())),
        ];
        let mut routes: Vec<_> = cases
            .iter()
            .map(|(cluster, case, fields, _)| {
                let mut route = route(cluster, &json!({}));
                route["match"] = json!({"prefix": format!("/{cluster}/{case}")});
                route["route"]["metadata_match"] = json!({"filter_metadata": {"envoy.lb": fields}});
                route
            })
            .collect();
        // A weighted cluster adds to what the route says, and wins.
        routes.push(json!({"match": {"prefix": "/weighted"}, "route": {
            "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "1", "stage": "test"}}},
            "weighted_clusters": {"clusters": [{"name": "none", "weight": 1,
                "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "2"}}}}]}}}));
        (clusters, routes.into())
    })
    .await;
    for side in &scene.sides {
        for (cluster, case, _, expected) in &cases {
            let answers = side.ask(&vec![format!("GET h/{cluster}/{case}"); 8]).await;
            let seen: std::collections::BTreeSet<_> = answers.iter().map(|answer| answer.backend.as_str()).collect();
            let wanted = match expected.is_empty() {
                true => std::collections::BTreeSet::from([""]),
                false => expected.iter().copied().collect(),
            };
            assert_eq!(seen, wanted, "{cluster}/{case} on {}", side.name);
        }
        assert_eq!(side.ask(&["GET h/weighted".to_owned()]).await[0].backend, "c", "{}", side.name);
    }
    for name in ["none", "any", "default", "keys", "own"] {
        let mut shown = Vec::new();
        for side in &scene.sides {
            let mut numbers = Vec::new();
            // Envoy counts how many subsets there are once for each of its threads.
            for statistic in ["lb_subsets_selected", "lb_subsets_fallback"] {
                numbers.push((statistic, side.stat(&format!("cluster.{name}.{statistic}")).await));
            }
            shown.push(numbers);
        }
        if let [lateen, envoy] = shown.as_slice() {
            assert_eq!(lateen, envoy, "{name}");
        }
    }
    scene.end().await;
}
