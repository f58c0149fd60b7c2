//! Is a host that fails taken out for all workers, shown, and let in again?

use super::*;

/// A cluster that takes hosts out at once and for so long.
fn ejecting(base: &str, mut detection: Value) -> Value {
    let defaults = json!({"consecutive_5xx": 1, "interval": "0.05s", "base_ejection_time": base,
        "max_ejection_percent": 100});
    for (name, value) in defaults.as_object().unwrap() {
        detection.as_object_mut().unwrap().entry(name).or_insert(value.clone());
    }
    json!({"outlier_detection": detection, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}})
}

impl Running {
    /// Waits until the next request gets a status.
    async fn await_status(&self, path: &str, status: u16) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let reply = self.get(path).await;
            if reply.status == status {
                return reply;
            }
            assert!(Instant::now() < deadline, "{path} goes on with {}", reply.status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn without_panic_mode_nobody_is_left_when_the_only_host_is_out() {
    let (address, requests) = backend("a").await;
    let running = Running::start(set_of(json!({"cluster": "a"}), ejecting("30s", json!({})), &[address])).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    running.await_stat("a", "outlier_detection.ejections_active", 1).await;
    // On every worker: each new connection may come to another one.
    for _ in 0..20 {
        let reply = running.await_status("/x", 503).await;
        assert_eq!(reply.body, "no healthy upstream");
    }
    assert!(requests.load(Ordering::SeqCst) <= 3);
    let clusters = running.admin("/clusters").await;
    assert!(clusters.contains(&format!("a::{address}::health_flags::/failed_outlier_check\n")), "{clusters}");
    assert!(clusters.contains("a::outlier::success_rate_average::-1\n"), "{clusters}");
    let clusters: Value = serde_json::from_str(&running.admin("/clusters?format=json").await).unwrap();
    assert_eq!(clusters["cluster_statuses"][0]["host_statuses"][0]["health_status"]["failed_outlier_check"], true);
    assert_eq!(running.stat("a", "membership_healthy").await, 0);
    assert_eq!(running.stat("a", "outlier_detection.ejections_enforced_consecutive_5xx").await, 1);
}

#[tokio::test]
async fn a_host_comes_back_when_its_time_is_over() {
    let (address, _) = backend("a").await;
    let running = Running::start(set_of(json!({"cluster": "a"}), ejecting("0.3s", json!({})), &[address])).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    running.await_stat("a", "outlier_detection.ejections_active", 1).await;
    let begun = Instant::now();
    running.await_status("/x", 200).await;
    assert!(begun.elapsed() > Duration::from_millis(150), "{:?}", begun.elapsed());
    assert_eq!(running.stat("a", "outlier_detection.ejections_active").await, 0);
    assert_eq!(running.stat("a", "membership_healthy").await, 1);
}

#[tokio::test]
async fn connections_to_a_host_that_is_out_are_not_used_again() {
    let (address, _) = backend("a").await;
    let mut settings = ejecting("0.1s", json!({}));
    settings["common_lb_config"]["update_merge_window"] = "0s".into();
    let running = Running::start_with(set_of(json!({"cluster": "a"}), settings, &[address]), 1).await;
    let mut busy = Client::connect(running.address).await;
    busy.send("/delay/500").await.unwrap();
    running.await_stat("a", "upstream_rq_active", 1).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    // The idle one goes at once, and the one in use when its request is served.
    running.await_stat("a", "upstream_cx_active", 1).await;
    assert_eq!(busy.receive().await.unwrap().status, 200);
    running.await_stat("a", "upstream_cx_active", 0).await;
    running.await_status("/x", 200).await;
    assert_eq!(running.stat("a", "upstream_cx_total").await, 3);
}

#[tokio::test]
async fn the_other_host_takes_all_requests() {
    let (good, served) = backend("good").await;
    let (_held, dead) = dead_port();
    let running = Running::start(set_of(json!({"cluster": "a"}), ejecting("30s", json!({})), &[good, dead])).await;
    while running.stat("a", "outlier_detection.ejections_active").await == 0 {
        running.get("/x").await;
    }
    running.await_status("/x", 200).await;
    let before = served.load(Ordering::SeqCst);
    for _ in 0..30 {
        running.await_status("/x", 200).await;
    }
    assert!(served.load(Ordering::SeqCst) >= before + 30);
    assert_eq!(running.stat("a", "outlier_detection.ejections_active").await, 1);
}

#[tokio::test]
async fn in_panic_mode_hosts_that_are_out_are_used_all_the_same() {
    let (address, _) = backend("a").await;
    let mut settings = ejecting("30s", json!({}));
    settings["common_lb_config"] = json!({});
    let running = Running::start(set_of(json!({"cluster": "a"}), settings, &[address])).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    running.await_stat("a", "outlier_detection.ejections_active", 1).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while running.stat("a", "lb_healthy_panic").await == 0 {
        assert_eq!(running.get("/x").await.status, 200);
        assert!(Instant::now() < deadline, "panic mode never came");
    }
}

#[tokio::test]
async fn a_host_stays_out_when_its_cluster_changes_and_comes_back_when_nobody_watches_it() {
    let (address, _) = backend("a").await;
    let settings = ejecting("30s", json!({}));
    let running = Running::start(set_of(json!({"cluster": "a"}), settings.clone(), &[address])).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    running.await_stat("a", "outlier_detection.ejections_active", 1).await;
    let mut changed = settings;
    changed["connect_timeout"] = "2s".into();
    running.proxy.apply(set_of(json!({"cluster": "a"}), changed, &[address])).await;
    assert_eq!(running.get("/x").await.status, 503);
    let unwatched = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}});
    running.proxy.apply(set_of(json!({"cluster": "a"}), unwatched, &[address])).await;
    running.await_status("/x", 200).await;
}

#[tokio::test]
async fn failures_before_an_answer_count_apart_where_that_is_asked_for() {
    let (_held, dead) = dead_port();
    let split = json!({"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 2});
    let running = Running::start(set_of(json!({"cluster": "a"}), ejecting("30s", split), &[dead])).await;
    for _ in 0..2 {
        assert_eq!(running.get("/x").await.status, 503);
    }
    let name = "outlier_detection.ejections_enforced_consecutive_local_origin_failure";
    running.await_stat("a", name, 1).await;
    assert_eq!(running.stat("a", "outlier_detection.ejections_detected_consecutive_5xx").await, 0);
}

#[tokio::test]
async fn each_try_counts_for_the_host_that_it_went_to() {
    let (address, requests) = backend("a").await;
    let route = json!({"cluster": "a", "retry_policy": {"retry_on": "5xx", "num_retries": 2,
        "retry_back_off": {"base_interval": "0.001s"}}});
    let settings = ejecting("30s", json!({"consecutive_5xx": 3}));
    let running = Running::start(set_of(route, settings, &[address])).await;
    assert_eq!(running.get("/status/500").await.status, 500);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    running.await_stat("a", "outlier_detection.ejections_active", 1).await;
}

#[tokio::test]
async fn changes_that_follow_closely_are_told_together() {
    let mut addresses = Vec::new();
    for name in ["one", "two", "three"] {
        addresses.push(backend(name).await.0);
    }
    let settings = ejecting("30s", json!({}));
    let running = Running::start(set_of(json!({"cluster": "a"}), settings, &addresses)).await;
    // All three are out soon, and the last is told at the end of the window of a second.
    let begun = Instant::now();
    while running.stat("a", "outlier_detection.ejections_active").await < 3 {
        running.get("/status/500").await;
    }
    let flagged = begun.elapsed();
    running.await_status("/status/500", 503).await;
    // On a machine so busy that they were not out within the window there is nothing to see.
    let told = begun.elapsed();
    assert!(flagged > Duration::from_millis(900) || told > Duration::from_millis(900), "{flagged:?} {told:?}");
}
