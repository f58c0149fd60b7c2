//! What is limited, who waits, and does everything come back to nothing?

use super::*;

fn breaking(limits: Value) -> Value {
    json!({"circuit_breakers": {"thresholds": [limits]}})
}

/// Sends requests at once, each on a connection of its own, and gives the statuses in order.
async fn statuses(running: &Running, paths: &[&str]) -> Vec<u16> {
    let mut replies = Vec::new();
    for path in paths {
        let address = running.address;
        let path = (*path).to_owned();
        replies.push(tokio::spawn(async move { Client::connect(address).await.get(&path).await.unwrap() }));
    }
    let mut statuses = Vec::new();
    for reply in replies {
        statuses.push(reply.await.unwrap().status);
    }
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn more_requests_than_allowed_get_503_with_the_header_that_says_so() {
    let (address, requests) = backend("a").await;
    let set =
        set_of(json!({"cluster": "a"}), breaking(json!({"max_requests": 1, "track_remaining": true})), &[address]);
    let running = Running::start(set).await;
    let mut busy = Client::connect(running.address).await;
    busy.send("/delay/300").await.unwrap();
    running.await_stat("a", "circuit_breakers.default.rq_open", 1).await;
    assert_eq!(running.stat("a", "circuit_breakers.default.remaining_rq").await, 0);
    let refused = running.get("/x").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.body, "upstream connect error or disconnect/reset before headers. reset reason: overflow");
    assert!(refused.head.contains("x-envoy-overloaded: true"), "{}", refused.head);
    assert_eq!(busy.receive().await.unwrap().status, 200);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    running.await_stat("a", "circuit_breakers.default.rq_open", 0).await;
    assert_eq!(running.stat("a", "circuit_breakers.default.remaining_rq").await, 1);
    assert_eq!(running.stat("a", "upstream_rq_active_overflow").await, 1);
    assert_eq!(running.stat("a", "upstream_rq_pending_overflow").await, 0);
}

#[tokio::test]
async fn requests_wait_for_the_only_connection_and_only_so_many() {
    let (address, requests) = backend("a").await;
    let limits = json!({"max_connections": 1, "max_pending_requests": 2});
    let running = Running::start_with(set_of(json!({"cluster": "a"}), breaking(limits), &[address]), 1).await;
    let mut busy = Client::connect(running.address).await;
    busy.send("/delay/400").await.unwrap();
    running.await_stat("a", "circuit_breakers.default.cx_open", 1).await;
    running.await_stat("a", "upstream_rq_active", 1).await;
    assert_eq!(statuses(&running, &["/x"; 5]).await, [200, 200, 503, 503, 503]);
    assert_eq!(busy.receive().await.unwrap().status, 200);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(running.stat("a", "upstream_cx_total").await, 1);
    // Two that came, and the second once more when the connection went to the first.
    assert_eq!(running.stat("a", "upstream_cx_overflow").await, 3);
    assert_eq!(running.stat("a", "upstream_rq_pending_overflow").await, 3);
    assert_eq!(running.stat("a", "upstream_rq_pending_total").await, 3);
    assert_eq!(running.stat("a", "upstream_rq_pending_active").await, 0);
    assert_eq!(running.stat("a", "circuit_breakers.default.rq_pending_open").await, 0);
}

#[tokio::test]
async fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let (address, _) = backend("a").await;
    let limits = breaking(json!({"max_connections": 1}));
    let running = Running::start_with(set_of(json!({"cluster": "a"}), limits, &[address]), 1).await;
    let mut busy = Client::connect(running.address).await;
    busy.send("/delay/300").await.unwrap();
    running.await_stat("a", "upstream_rq_active", 1).await;
    let ended = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for place in 0..4_u64 {
        let mut client = Client::connect(running.address).await;
        client.send("/delay/20").await.unwrap();
        running.await_stat("a", "upstream_rq_pending_active", place + 1).await;
        let ended = ended.clone();
        waiting.push(tokio::spawn(async move {
            assert_eq!(client.receive().await.unwrap().status, 200);
            ended.fetch_add(1, Ordering::SeqCst)
        }));
    }
    assert_eq!(busy.receive().await.unwrap().status, 200);
    for (place, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.await.unwrap(), place);
    }
}

#[tokio::test]
async fn each_host_gets_a_connection_whatever_the_limit_says() {
    let (one, _) = backend("one").await;
    let (two, _) = backend("two").await;
    let mut settings = breaking(json!({"max_connections": 1}));
    settings["lb_policy"] = "ROUND_ROBIN".into();
    let running = Running::start_with(set_of(json!({"cluster": "a"}), settings, &[one, two]), 1).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(running.address).await;
        client.send("/delay/200").await.unwrap();
        clients.push(client);
    }
    running.await_stat("a", "upstream_cx_active", 2).await;
    assert_eq!(running.stat("a", "upstream_cx_overflow").await, 1);
    for client in &mut clients {
        assert_eq!(client.receive().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn without_any_place_to_wait_not_even_the_first_request_passes() {
    let (address, requests) = backend("a").await;
    let limits = breaking(json!({"max_pending_requests": 0}));
    let policy = json!({"retry_on": "5xx", "num_retries": 3});
    let route = json!({"cluster": "a", "retry_policy": policy});
    let running = Running::start(set_of(route, limits, &[address])).await;
    assert_eq!(running.get("/x").await.status, 503);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(running.stat("a", "upstream_rq_retry").await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_leaves_the_line() {
    let (address, _) = backend("a").await;
    let limits = breaking(json!({"max_connections": 1, "max_pending_requests": 1}));
    let running = Running::start_with(set_of(json!({"cluster": "a"}), limits, &[address]), 1).await;
    let mut busy = Client::connect(running.address).await;
    busy.send("/delay/400").await.unwrap();
    running.await_stat("a", "upstream_rq_active", 1).await;
    let mut leaving = Client::connect(running.address).await;
    leaving.send("/x").await.unwrap();
    running.await_stat("a", "circuit_breakers.default.rq_pending_open", 1).await;
    drop(leaving);
    running.await_stat("a", "circuit_breakers.default.rq_pending_open", 0).await;
    assert_eq!(running.stat("a", "upstream_rq_cancelled").await, 1);
    assert_eq!(running.get("/x").await.status, 200);
    assert_eq!(busy.receive().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_refused_connection_fails_everybody_who_waits_for_it() {
    let (_held, dead) = dead_port();
    let running = Running::start(set_of(json!({"cluster": "a"}), json!({}), &[dead])).await;
    assert_eq!(statuses(&running, &["/x"; 6]).await, [503; 6]);
    assert_eq!(running.stat("a", "upstream_rq_pending_failure_eject").await, 6);
    running.await_stat("a", "upstream_cx_active", 0).await;
    assert_eq!(running.stat("a", "upstream_rq_pending_active").await, 0);
}

#[tokio::test]
async fn more_retries_than_allowed_pass_the_answer_on() {
    let (address, requests) = backend("a").await;
    let limits = breaking(json!({"max_retries": 0}));
    let route = json!({"cluster": "a", "retry_policy": {"retry_on": "5xx", "num_retries": 3}});
    let running = Running::start(set_of(route, limits, &[address])).await;
    let reply = running.get("/status/503").await;
    assert_eq!(reply.body, "a /status/503");
    assert!(!reply.head.contains("x-envoy-overloaded"), "{}", reply.head);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    assert_eq!(running.stat("a", "upstream_rq_retry_overflow").await, 1);
}

#[tokio::test]
async fn a_retry_holds_its_place_while_it_waits_and_gives_it_back() {
    let (address, _) = backend("a").await;
    let limits = breaking(json!({"max_retries": 1, "track_remaining": true}));
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let running = Running::start(set_of(json!({"cluster": "a", "retry_policy": policy}), limits, &[address])).await;
    for _ in 0..3 {
        assert_eq!(running.get("/status/503").await.status, 503);
    }
    assert_eq!(running.stat("a", "upstream_rq_retry").await, 3);
    assert_eq!(running.stat("a", "upstream_rq_retry_overflow").await, 0);
    assert_eq!(running.stat("a", "circuit_breakers.default.remaining_retries").await, 1);
}

#[tokio::test]
async fn the_high_priority_has_connections_and_limits_of_its_own() {
    let (address, _) = backend("a").await;
    let limits = json!({"circuit_breakers": {"thresholds": [
        {"max_requests": 0}, {"priority": "HIGH", "max_requests": 1}]}});
    let set = set_of(json!({"cluster": "a", "priority": "HIGH"}), limits.clone(), &[address]);
    let running = Running::start(set).await;
    assert_eq!(running.get("/x").await.status, 200);
    running.proxy.apply(set_of(json!({"cluster": "a"}), limits, &[address])).await;
    assert_eq!(running.get("/x").await.status, 503);
}

#[tokio::test]
async fn more_pools_than_allowed_have_no_host_for_the_request() {
    let (one, _) = backend("one").await;
    let (two, _) = backend("two").await;
    let mut settings = breaking(json!({"max_connection_pools": 1}));
    settings["lb_policy"] = "ROUND_ROBIN".into();
    let running = Running::start_with(set_of(json!({"cluster": "a"}), settings, &[one, two]), 1).await;
    assert_eq!(running.get("/x").await.status, 200);
    let refused = running.get("/x").await;
    assert_eq!((refused.status, refused.body.as_str()), (503, "no healthy upstream"));
    assert_eq!(running.stat("a", "upstream_cx_pool_overflow").await, 1);
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_allowed() {
    let (address, _) = backend("a").await;
    let settings = json!({"max_requests_per_connection": 2});
    let running = Running::start_with(set_of(json!({"cluster": "a"}), settings, &[address]), 1).await;
    for _ in 0..5 {
        assert_eq!(running.get("/x").await.status, 200);
    }
    assert_eq!(running.stat("a", "upstream_cx_total").await, 3);
    assert_eq!(running.stat("a", "upstream_cx_max_requests").await, 2);
}

#[tokio::test]
async fn connections_end_by_idle_time_and_by_age() {
    let (address, _) = backend("a").await;
    for (limit, statistic) in
        [("idle_timeout", "upstream_cx_idle_timeout"), ("max_connection_duration", "upstream_cx_max_duration_reached")]
    {
        let options = json!({"typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {limit: "0.05s"},
                "explicit_http_config": {"http_protocol_options": {}}}}});
        let running = Running::start_with(set_of(json!({"cluster": "a"}), options, &[address]), 1).await;
        assert_eq!(running.get("/x").await.status, 200);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(running.get("/x").await.status, 200);
        assert_eq!(running.stat("a", "upstream_cx_total").await, 2, "{limit}");
        running.await_stat("a", statistic, 2).await;
        running.await_stat("a", "upstream_cx_active", 0).await;
    }
}
