//! Do both proxies ask hosts alike whether they are well, and stop sending them traffic alike?

use super::*;

#[tokio::test]
async fn checks_ask_the_same_and_mean_the_same() {
    let check = |path: &str, settings: Value| {
        let mut check = json!({"timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 2, "healthy_threshold": 2,
            "http_health_check": {"path": path, "host": "", "request_headers_to_add":
                [{"header": {"key": "x-check", "value": "1"}}]}});
        for (key, value) in settings.as_object().unwrap() {
            check["http_health_check"][key] = value.clone();
        }
        json!({"health_checks": [check], "common_lb_config": {"healthy_panic_threshold": {"value": 0}}})
    };
    let cases = [
        ("good", check("/?status=200", json!({})), 200),
        ("bad", check("/?status=503", json!({})), 503),
        ("unexpected", check("/?status=204&bare", json!({})), 503),
        ("expected", check("/?status=204&bare", json!({"expected_statuses": [{"start": 200, "end": 205}]})), 200),
        ("retriable", check("/?status=429", json!({"retriable_statuses": [{"start": 429, "end": 430}]})), 503),
        ("silent", check("/?fail=close", json!({})), 503),
        ("closing", check("/?close", json!({})), 200),
        ("long", check("/?size=5000", json!({})), 200),
        ("head", check("/?length=7", json!({"method": "HEAD"})), 200),
        ("matching", check("/?size=50", json!({"receive": [{"text": "616263"}]})), 200),
        ("not-matching", check("/", json!({"receive": [{"text": "00ff"}]})), 503),
    ];
    let mut scene = Scene::start(&["b"], |ports| {
        let groups = json!([{"lb_endpoints": [endpoint(ports["b"], &json!({}))]}]);
        let clusters = cases.iter().map(|(name, settings, _)| cluster(name, &groups, settings)).collect();
        (clusters, cases.iter().map(|(name, ..)| route(name, &json!({}))).collect::<Vec<_>>().into())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    for (name, _, status) in &cases {
        for side in &scene.sides {
            let answer = side.ask(&[format!("GET h/{name}/")]).await.remove(0);
            assert_eq!(answer.status, *status, "{name} on {}", side.name);
            let failed = side.stat(&format!("cluster.{name}.health_check.network_failure")).await > 0;
            assert_eq!(failed, *name == "silent", "{name} on {}", side.name);
        }
    }
    // Every check as the backend saw it: the same from both.
    let (_, stopped) = (scene.lateen.shutdown(Duration::from_secs(1)).await, scene.envoy.take());
    drop(stopped);
    let received = scene.backends.take().await.unwrap();
    for (name, ..) in &cases {
        let heads: std::collections::BTreeSet<String> = received
            .iter()
            .filter(|received| received.head.values("host").any(|host| host == *name))
            .map(|received| latin1(&received.head.raw))
            .collect();
        assert_eq!(heads.len(), 1, "{heads:?}");
    }
}

#[tokio::test]
async fn connections_to_an_ejected_host_are_closed_at_once() {
    let settings = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}, "outlier_detection": {
        "consecutive_5xx": 1, "base_ejection_time": "0.3s", "interval": "0.1s", "max_ejection_percent": 100}});
    let scene = Scene::start(&["b"], |ports| {
        let groups = json!([{"lb_endpoints": [endpoint(ports["b"], &json!({}))]}]);
        (vec![cluster("out", &groups, &settings)], json!([route("out", &json!({}))]))
    })
    .await;
    for side in &scene.sides {
        let statuses = |answers: Vec<Answer>| answers.iter().map(|answer| answer.status).collect::<Vec<_>>();
        let asked = side.ask(&["GET h/out/".to_owned(), "GET h/out/?status=500".to_owned()]).await;
        assert_eq!(statuses(asked), [200, 500], "{}", side.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(statuses(side.ask(&["GET h/out/".to_owned()]).await), [503], "{}", side.name);
        // The second request may have come before the first one's connection was free again.
        let closed = side.stat("cluster.out.upstream_cx_destroy_local").await;
        assert!((1..=2).contains(&closed), "{closed} on {}", side.name);
        assert_eq!(side.stat("cluster.out.upstream_cx_active").await, 0, "{}", side.name);
        // The second change of health within a second takes effect when the second is over.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(statuses(side.ask(&["GET h/out/".to_owned()]).await), [200], "{}", side.name);
        assert_eq!(side.stat("cluster.out.upstream_cx_total").await, closed + 1, "{}", side.name);
    }
    scene.end().await;
}
