//! Do hosts that fail their checks get no traffic, and do they come back?

use std::sync::atomic::AtomicU16;

use super::*;

/// A backend whose health is a status that a test may change; everything else it answers with 200.
async fn checked_backend(health: Arc<AtomicU16>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = checks.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (health, counted) = (health.clone(), counted.clone());
            tokio::spawn(async move {
                let mut received = Vec::new();
                while matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&received[..end]).into_owned();
                    received.drain(..end + 4);
                    let mut status = 200;
                    if head.starts_with("GET /healthz HTTP/1.1\r\nhost: a\r\nuser-agent: Envoy/HC") {
                        status = health.load(Ordering::SeqCst);
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    if status == 0 {
                        return;
                    }
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, checks)
}

fn checking(check: Value) -> Value {
    let mut settings = json!({"timeout": "1s", "interval": "0.05s", "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 2, "healthy_threshold": 2});
    settings.as_object_mut().unwrap().extend(check.as_object().unwrap().clone());
    json!({"health_checks": [settings], "common_lb_config": {
        "healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}})
}

fn http() -> Value {
    json!({"http_health_check": {"path": "/healthz"}})
}

async fn await_status(running: &Running, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while running.get("/x").await.status != status {
        assert!(Instant::now() < deadline, "never {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_host_serves_from_its_first_good_check_to_its_first_bad_one_and_again_after_several() {
    let health = Arc::new(AtomicU16::new(200));
    let (address, checks) = checked_backend(health.clone()).await;
    let running = Running::start(set_of(json!({"cluster": "a"}), checking(http()), &[address])).await;
    await_status(&running, 200).await;
    assert_eq!(running.stat("a", "health_check.healthy").await, 1);
    health.store(503, Ordering::SeqCst);
    await_status(&running, 503).await;
    let clusters = running.admin("/clusters").await;
    assert!(clusters.contains(&format!("a::{address}::health_flags::/failed_active_hc\n")), "{clusters}");
    let failed_at = checks.load(Ordering::SeqCst);
    health.store(200, Ordering::SeqCst);
    await_status(&running, 200).await;
    assert!(checks.load(Ordering::SeqCst) >= failed_at + 2);
    assert!(running.stat("a", "health_check.success").await >= 3);
    assert!(running.stat("a", "health_check.failure").await >= 1);
    assert_eq!(running.stat("a", "health_check.network_failure").await, 0);
    // The checks go over one connection, which is none of the pool's.
    assert!(running.stat("a", "upstream_cx_total").await <= 4);
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_failed_after_several_checks() {
    let health = Arc::new(AtomicU16::new(200));
    let (address, _) = checked_backend(health.clone()).await;
    let running = Running::start(set_of(json!({"cluster": "a"}), checking(http()), &[address])).await;
    await_status(&running, 200).await;
    health.store(0, Ordering::SeqCst);
    await_status(&running, 503).await;
    assert!(running.stat("a", "health_check.network_failure").await >= 2);
}

#[tokio::test]
async fn a_tcp_check_is_a_connection_or_what_comes_over_it() {
    let health = Arc::new(AtomicU16::new(200));
    let (address, _) = checked_backend(health).await;
    let connects = set_of(json!({"cluster": "a"}), checking(json!({"tcp_health_check": {}})), &[address]);
    let running = Running::start(connects).await;
    await_status(&running, 200).await;
    let (_held, dead) = dead_port();
    let refused = set_of(json!({"cluster": "a"}), checking(json!({"tcp_health_check": {}})), &[dead]);
    running.proxy.apply(refused).await;
    await_status(&running, 503).await;
    // "GET /ping HTTP/1.1\r\n\r\n" is answered by "HTTP/1.1 200".
    let speaks = json!({"tcp_health_check": {
        "send": {"text": "474554202f70696e6720485454502f312e310d0a0d0a"},
        "receive": [{"text": "485454502f312e31"}, {"text": "323030"}]}});
    running.proxy.apply(set_of(json!({"cluster": "a"}), checking(speaks), &[address])).await;
    await_status(&running, 200).await;
}

#[tokio::test]
async fn hosts_that_are_no_longer_checked_are_no_longer_failed() {
    let health = Arc::new(AtomicU16::new(500));
    let (address, checks) = checked_backend(health).await;
    let running = Running::start(set_of(json!({"cluster": "a"}), checking(http()), &[address])).await;
    eventually(|| checks.load(Ordering::SeqCst) >= 2, "nobody checks").await;
    assert_eq!(running.get("/x").await.status, 503);
    let unchecked = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}});
    running.proxy.apply(set_of(json!({"cluster": "a"}), unchecked, &[address])).await;
    await_status(&running, 200).await;
    let so_far = checks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(checks.load(Ordering::SeqCst) <= so_far + 1);
}

#[tokio::test]
async fn a_good_check_lets_an_ejected_host_in_again() {
    let health = Arc::new(AtomicU16::new(200));
    let (address, _) = checked_backend(health).await;
    let (_held, dead) = dead_port();
    let mut settings = checking(http());
    settings["outlier_detection"] = json!({"consecutive_5xx": 1, "base_ejection_time": "300s",
        "max_ejection_percent": 100});
    // Requests go to a port that refuses, checks to one that answers.
    settings["health_checks"][0]["alt_port"] = address.port().into();
    let running = Running::start(set_of(json!({"cluster": "a"}), settings, &[dead])).await;
    running.await_stat("a", "health_check.healthy", 1).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while running.stat("a", "outlier_detection.ejections_enforced_total").await < 3 {
        running.get("/x").await;
        assert!(Instant::now() < deadline, "the host was never let in again");
    }
}
