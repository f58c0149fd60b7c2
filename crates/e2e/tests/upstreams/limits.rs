//! Do circuit breakers refuse as many requests, in the same way, and forget them alike?

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;

/// Limits, requests at once, and how many of them are answered with 200.
struct Case {
    name: &'static str,
    limits: Value,
    burst: usize,
    served: usize,
}

/// Sends a burst, each request on a connection of its own, so that one has reached its host before the next one comes.
async fn burst(side: &Side, request: &str, count: usize) -> Vec<Answer> {
    let side = Arc::new(side.clone());
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (side, request) = (side.clone(), request.to_owned());
        asked.spawn(async move { side.ask(&[request]).await.remove(0) });
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    asked.join_all().await
}

#[tokio::test]
async fn bursts_are_cut_at_the_same_limits() {
    let case = |name, limits: Value, burst, served| Case { name, limits, burst, served };
    let cases = [
        case("connections", json!({"max_connections": 1, "max_pending_requests": 2}), 5, 3),
        case("two-connections", json!({"max_connections": 2, "max_pending_requests": 1}), 5, 3),
        case("line", json!({"max_connections": 1, "max_pending_requests": 1}), 4, 2),
        case("no-line", json!({"max_pending_requests": 0}), 3, 0),
        case("requests", json!({"max_requests": 2}), 5, 2),
        case("requests-and-line", json!({"max_requests": 2, "max_connections": 1, "max_pending_requests": 2}), 5, 3),
        case("nothing", json!({"max_requests": 0}), 2, 0),
        case("plenty", json!({"track_remaining": true}), 6, 6),
    ];
    let scene = Scene::start(&["b"], |ports| {
        let groups = json!([{"lb_endpoints": [endpoint(ports["b"], &json!({}))]}]);
        let breakers = |limits: &Value| json!({"circuit_breakers": {"thresholds": [limits]}});
        let clusters = cases.iter().map(|case| cluster(case.name, &groups, &breakers(&case.limits))).collect();
        (clusters, cases.iter().map(|case| route(case.name, &json!({}))).collect::<Vec<_>>().into())
    })
    .await;
    for Case { name, burst: count, served, .. } in &cases {
        let mut shown = Vec::new();
        for side in &scene.sides {
            let answers = burst(side, &format!("GET h/{name}/?delay=700ms"), *count).await;
            let good = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!(good, *served, "{name} on {}", side.name);
            for refused in answers.iter().filter(|answer| answer.status != 200) {
                assert_eq!(refused.values("x-envoy-overloaded"), ["true"], "{name} on {}", side.name);
            }
            let mut numbers = Vec::new();
            for statistic in [
                "upstream_cx_total",
                "upstream_cx_overflow",
                "upstream_rq_total",
                "upstream_rq_503",
                "upstream_rq_pending_total",
                "upstream_rq_pending_overflow",
                "upstream_rq_active_overflow",
                "upstream_rq_pending_active",
                "upstream_rq_active",
                "circuit_breakers.default.rq_open",
                "circuit_breakers.default.rq_pending_open",
                "circuit_breakers.default.cx_open",
                "circuit_breakers.default.remaining_rq",
                "circuit_breakers.default.remaining_pending",
                "circuit_breakers.default.remaining_cx",
                "circuit_breakers.default.remaining_retries",
            ] {
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

#[tokio::test]
async fn retries_are_cut_at_the_same_limits() {
    let limits = [
        ("one", json!({"max_retries": 1})),
        ("none", json!({"max_retries": 0})),
        ("budget", json!({"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 0}})),
        ("least", json!({"retry_budget": {"budget_percent": {"value": 0}, "min_retry_concurrency": 2}})),
    ];
    let policy = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1,
        "retry_back_off": {"base_interval": "0.001s"}}});
    let scene = Scene::start(&["b"], |ports| {
        let groups = json!([{"lb_endpoints": [endpoint(ports["b"], &json!({}))]}]);
        let breakers = |limits: &Value| json!({"circuit_breakers": {"thresholds": [limits]}});
        let clusters = limits.iter().map(|(name, limits)| cluster(name, &groups, &breakers(limits))).collect();
        (clusters, limits.iter().map(|(name, _)| route(name, &policy)).collect::<Vec<_>>().into())
    })
    .await;
    // Six fail one after the other, 60 ms apart, while those before are being tried again for 700 ms.
    for (name, retried) in [("one", 1), ("none", 0), ("budget", 3), ("least", 2)] {
        for side in &scene.sides {
            let answers = burst(side, &format!("GET h/{name}/?status=503&delay=700ms"), 6).await;
            assert!(answers.iter().all(|answer| answer.values("x-envoy-overloaded").is_empty()), "{name}");
            let stat = async |statistic: &str| side.stat(&format!("cluster.{name}.{statistic}")).await;
            let (tried, refused) = (stat("upstream_rq_retry").await, stat("upstream_rq_retry_overflow").await);
            assert_eq!((tried, refused), (retried, 6 - retried), "{name} on {}", side.name);
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn a_retry_budget_may_count_what_began_lately() {
    let budget = json!({"budget_percent": {"value": 50}, "min_retry_concurrency": 0, "budget_interval": "1s"});
    let policy = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 1,
        "retry_back_off": {"base_interval": "0.001s"}}});
    let scene = Scene::start(&["b"], |ports| {
        let groups = json!([{"lb_endpoints": [endpoint(ports["b"], &json!({}))]}]);
        let breakers = json!({"circuit_breakers": {"thresholds": [{"retry_budget": budget}]}});
        (vec![cluster("lately", &groups, &breakers)], json!([route("lately", &policy)]))
    })
    .await;
    let (good, bad) = ("GET h/lately/".to_owned(), "GET h/lately/?status=503".to_owned());
    for side in &scene.sides {
        let stat = async |statistic: &str| side.stat(&format!("cluster.lately.{statistic}")).await;
        // Half of one is none, and half of two is one.
        side.ask(std::slice::from_ref(&bad)).await;
        assert_eq!((stat("upstream_rq_retry").await, stat("upstream_rq_retry_overflow").await), (0, 1));
        side.ask(&[good.clone(), bad.clone()]).await;
        assert_eq!((stat("upstream_rq_retry").await, stat("upstream_rq_retry_overflow").await), (1, 1));
        side.ask(&[good.clone(), good.clone(), good.clone()]).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        side.ask(std::slice::from_ref(&bad)).await;
        assert_eq!((stat("upstream_rq_retry").await, stat("upstream_rq_retry_overflow").await), (1, 2));
    }
    scene.end().await;
}
