//! How is traffic shared between priorities, localities and hosts?

use super::*;

/// Holds the counts of each side against what the rule says, in parts of all.
async fn shares(scene: &Scene, name: &str, times: u32, expected: &[(&str, f64)]) {
    for (side, counts) in scene.counts(&format!("GET h/{name}/"), times).await {
        let total = f64::from(times);
        for (backend, share) in expected {
            let count = f64::from(counts.get(*backend).copied().unwrap_or(0));
            let tolerance = STRAY * (total * share * (1.0 - share)).sqrt();
            assert!((count - total * share).abs() <= tolerance, "{name} on {}: {backend} of {counts:?}", side.name);
        }
        let known: u32 = expected.iter().filter_map(|(backend, _)| counts.get(*backend)).sum();
        assert_eq!(known, times, "{name} on {}: {counts:?}", side.name);
    }
}

#[tokio::test]
async fn priorities_localities_and_health_share_traffic_by_envoys_rules() {
    let scene = Scene::start(&["a", "b", "c", "d", "e", "f", "g"], |ports| {
        let at = |name: &str, health: &str| endpoint(ports[name], &json!({"health_status": health}));
        let well = |name: &str| at(name, "HEALTHY");
        let level = |priority: u32, hosts: Vec<Value>| json!({"priority": priority, "lb_endpoints": hosts});
        let zone = |name: &str, weight: u32, hosts: Vec<Value>| json!({"locality": {"zone": name}, "load_balancing_weight": weight, "lb_endpoints": hosts});
        let panic = |percent: u32| json!({"common_lb_config": {"healthy_panic_threshold": {"value": percent}}});
        let weighted = json!({"common_lb_config": {"locality_weighted_lb_config": {}}});
        let clusters = vec![
            cluster(
                "half",
                &json!([level(0, vec![well("a"), at("b", "UNHEALTHY")]), level(1, vec![well("c")])]),
                &panic(0),
            ),
            cluster(
                "most",
                &json!([
                    level(0, vec![well("a"), well("b"), well("d"), at("dead", "UNHEALTHY")]),
                    level(1, vec![well("c")])
                ]),
                &panic(0),
            ),
            cluster("dead", &json!([level(0, vec![at("a", "UNHEALTHY")]), level(1, vec![well("c")])]), &panic(50)),
            cluster(
                "scaled",
                &json!([
                    level(0, vec![well("a"), at("dead", "UNHEALTHY"), at("b", "UNHEALTHY"), at("d", "DRAINING")]),
                    level(1, vec![well("c"), at("e", "UNHEALTHY"), at("f", "UNHEALTHY"), at("g", "UNHEALTHY")])
                ]),
                &panic(0),
            ),
            cluster(
                "panic",
                &json!([
                    level(0, vec![well("a"), at("b", "UNHEALTHY"), at("c", "UNHEALTHY")]),
                    level(1, vec![at("d", "UNHEALTHY")])
                ]),
                &panic(50),
            ),
            cluster("degraded", &json!([level(0, vec![well("a"), at("b", "DEGRADED")])]), &panic(0)),
            cluster(
                "overprovisioned",
                &json!([level(0, vec![well("a"), at("b", "UNHEALTHY")]), level(1, vec![well("c")])]),
                &panic(0),
            ),
            cluster(
                "zones",
                &json!([zone("x", 1, vec![well("a")]), zone("y", 3, vec![well("b"), well("c")])]),
                &weighted,
            ),
            cluster(
                "lame-zone",
                &json!([zone("x", 1, vec![well("a"), at("b", "UNHEALTHY")]), zone("y", 1, vec![well("c"), well("d")])]),
                &weighted,
            ),
            cluster(
                "draining",
                &json!([
                    level(0, vec![at("a", "UNHEALTHY"), at("b", "DRAINING")]),
                    level(1, vec![at("c", "UNHEALTHY")])
                ]),
                &panic(50),
            ),
            cluster("no-weights", &json!([zone("x", 1, vec![well("a")]), zone("y", 9, vec![well("b")])]), &json!({})),
        ];
        let routes: Vec<_> =
            clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap(), &json!({}))).collect();
        let mut clusters = clusters;
        clusters[6]["load_assignment"]["policy"] = json!({"overprovisioning_factor": 100});
        (clusters, routes.into())
    });
    let scene = scene.await;
    shares(&scene, "half", 800, &[("a", 0.7), ("c", 0.3)]).await;
    shares(&scene, "most", 300, &[("a", 0.333), ("b", 0.333), ("d", 0.333)]).await;
    shares(&scene, "dead", 100, &[("c", 1.0)]).await;
    // 46 and 35 percent are scaled to 57 and 43.
    shares(&scene, "scaled", 800, &[("a", 0.57), ("c", 0.43)]).await;
    shares(&scene, "panic", 800, &[("a", 0.25), ("b", 0.25), ("c", 0.25), ("d", 0.25)]).await;
    shares(&scene, "degraded", 800, &[("a", 0.7), ("b", 0.3)]).await;
    shares(&scene, "overprovisioned", 800, &[("a", 0.5), ("c", 0.5)]).await;
    shares(&scene, "zones", 800, &[("a", 0.25), ("b", 0.375), ("c", 0.375)]).await;
    // One of two healthy: 1.4 / 2 of the weight.
    shares(&scene, "lame-zone", 800, &[("a", 0.7 / 1.7), ("c", 0.5 / 1.7), ("d", 0.5 / 1.7)]).await;
    // Two thirds and one third by the count of hosts, and in panic mode no host is left out.
    shares(&scene, "draining", 400, &[("a", 0.335), ("b", 0.335), ("c", 0.33)]).await;
    shares(&scene, "no-weights", 200, &[("a", 0.5), ("b", 0.5)]).await;
    for side in &scene.sides {
        assert_eq!(side.stat("cluster.panic.lb_healthy_panic").await, 800, "{}", side.name);
        assert_eq!(side.stat("cluster.half.lb_healthy_panic").await, 0, "{}", side.name);
    }
    scene.end().await;
}

#[tokio::test]
async fn hosts_share_traffic_as_their_policy_says() {
    let scene = Scene::start(&["a", "b", "c"], |ports| {
        let weighted = |weights: [u32; 3]| {
            let hosts = ["a", "b", "c"].iter().zip(weights);
            let hosts = hosts.map(|(name, weight)| endpoint(ports[*name], &json!({"load_balancing_weight": weight})));
            json!([{"lb_endpoints": hosts.collect::<Vec<_>>()}])
        };
        let clusters = vec![
            cluster("turns", &weighted([1, 1, 1]), &json!({"lb_policy": "ROUND_ROBIN"})),
            cluster("weights", &weighted([1, 3, 2]), &json!({"lb_policy": "ROUND_ROBIN"})),
            cluster("random", &weighted([1, 3, 2]), &json!({"lb_policy": "RANDOM"})),
            cluster("least", &weighted([1, 1, 1]), &json!({"lb_policy": "LEAST_REQUEST"})),
            cluster("least-weighted", &weighted([1, 3, 2]), &json!({"lb_policy": "LEAST_REQUEST"})),
        ];
        let routes: Vec<_> =
            clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap(), &json!({}))).collect();
        (clusters, routes.into())
    });
    let scene = scene.await;
    let third = 1.0 / 3.0;
    for name in ["turns", "random", "least"] {
        shares(&scene, name, 300, &[("a", third), ("b", third), ("c", third)]).await;
    }
    for name in ["weights", "least-weighted"] {
        for (side, counts) in scene.counts(&format!("GET h/{name}/"), 120).await {
            // No chance here but the start.
            for (backend, expected) in [("a", 20_u32), ("b", 60), ("c", 40)] {
                let count = counts.get(backend).copied().unwrap_or(0);
                assert!(count.abs_diff(expected) <= 2, "{name} on {}: {counts:?}", side.name);
            }
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn retries_may_leave_out_priorities_that_were_tried() {
    let priority = json!({"name": "envoy.retry_priorities.previous_priorities", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": 1}});
    let policy = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 4, "retry_priority": priority,
        "retry_back_off": {"base_interval": "0.001s"}}});
    let mut scene = Scene::start(&["a", "b", "c"], |ports| {
        let levels = ["a", "b", "c"].iter().enumerate().map(
            |(priority, name)| json!({"priority": priority, "lb_endpoints": [endpoint(ports[*name], &json!({}))]}),
        );
        (vec![cluster("levels", &levels.collect::<Vec<_>>().into(), &json!({}))], json!([route("levels", &policy)]))
    })
    .await;
    for side in scene.sides.clone() {
        side.ask(&["GET h/levels/?status=503".to_owned()]).await;
        let received = scene.backends.take().await.unwrap();
        let tried: Vec<_> = received.iter().map(|received| received.backend.as_str()).collect();
        assert_eq!(tried, ["a", "b", "c", "a", "b"], "{}", side.name);
    }
    scene.end().await;
}
