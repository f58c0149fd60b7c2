//! Faults that the connection manager's own filter injects, that clients ask for, and that are limited.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::support::{Manner, OK, Running, Scene, backend, read_until};

fn fault(mut fields: Value) -> (&'static str, Value) {
    fields["@type"] = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault".into();
    ("envoy.filters.http.fault", fields)
}

async fn start(filter: Value, manner: Manner) -> Running {
    let (address, _) = backend(manner).await;
    let routes = json!([
        {"match": {"prefix": "/own"}, "route": {"cluster": "b"}, "typed_per_filter_config": {
            "envoy.filters.http.fault": fault(json!({"abort": {"http_status": 410, "percentage": {"numerator": 100}}})).1}},
        {"match": {"prefix": "/off"}, "route": {"cluster": "b"}, "typed_per_filter_config": {
            "envoy.filters.http.fault": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}}},
        {"match": {"prefix": "/here"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/b"}, "route": {"cluster": "b"}},
        {"match": {"prefix": "/c"}, "route": {"cluster": "c"}},
    ]);
    let scene = Scene {
        filters: vec![fault(filter)],
        host: json!({"routes": routes}),
        clusters: vec![("b", vec![address]), ("c", vec![address])],
        ..Scene::default()
    };
    scene.start().await
}

const ALL: u32 = 100;

#[tokio::test]
async fn the_filters_own_fault_hits_every_route_that_says_nothing_else() {
    let running = start(json!({"abort": {"http_status": 418, "percentage": {"numerator": ALL}}}), OK).await;
    assert_eq!(running.get("/b", &[]).await.0, 418);
    assert_eq!(running.get("/here", &[]).await.0, 418, "direct responses come after the filters");
    assert_eq!(running.get("/nowhere", &[]).await.0, 418, "and so does the missing route");
    assert_eq!(running.get("/own", &[]).await.0, 410);
    assert_eq!(running.get("/off", &[]).await.0, 200);
    running.until("aborts", |stats| stats.total(|counters| &counters.fault.touch().aborts_injected), 4).await;
    running.until("active faults", |stats| stats.level(|counters| &counters.fault.touch().active_faults), 0).await;
}

#[tokio::test]
async fn a_fault_may_be_for_one_cluster_and_counts_by_the_caller() {
    let abort = json!({"abort": {"http_status": 503, "percentage": {"numerator": ALL}}, "upstream_cluster": "c"});
    let running = start(abort, OK).await;
    assert_eq!(running.get("/b", &[]).await.0, 200);
    assert_eq!(running.get("/c", &[("x-envoy-downstream-service-cluster", "shop")]).await.0, 503);
    assert_eq!(running.get("/c", &[]).await.0, 503);
    let samples = running.proxy.status().stats.samples();
    let names: Vec<String> = samples
        .iter()
        .map(|sample| format!("{}{}", sample.scope.prefix, sample.name))
        .filter(|name| name.contains(".fault.shop."))
        .collect();
    assert_eq!(names, ["http.test.fault.shop.aborts_injected"]);
}

#[tokio::test]
async fn a_client_asks_for_its_fault() {
    let by_header = json!({
        "abort": {"header_abort": {}, "percentage": {"numerator": ALL}},
        "delay": {"header_delay": {}, "percentage": {"numerator": ALL}},
    });
    let running = start(by_header, OK).await;
    assert_eq!(running.get("/b", &[]).await.0, 200);
    assert_eq!(running.get("/b", &[("x-envoy-fault-abort-request", "451")]).await.0, 451);
    let begun = Instant::now();
    let asked = [("x-envoy-fault-delay-request", "120"), ("x-envoy-fault-abort-request", "502")];
    assert_eq!(running.get("/b", &asked).await.0, 502);
    assert!(begun.elapsed() >= Duration::from_millis(120));
    let (status, text) =
        running.get("/b", &[("x-envoy-fault-abort-grpc-request", "9"), ("content-type", "application/grpc")]).await;
    assert_eq!(status, 200);
    assert!(text.contains("grpc-status: 9\r\n"), "{text}");
}

#[tokio::test]
async fn only_so_many_requests_have_a_fault_at_once_and_the_others_go_on() {
    let slow = json!({"delay": {"fixed_delay": "10s", "percentage": {"numerator": ALL}}, "max_active_faults": 1});
    let running = start(slow, OK).await;
    let mut waiting = running.connect().await;
    waiting.write_all(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let active = |stats: &lateen_proxy::stats::HttpStats| stats.level(|counters| &counters.fault.touch().active_faults);
    running.until("active faults", active, 1).await;
    assert_eq!(running.get("/b", &[]).await.0, 200);
    running.until("overflow", |stats| stats.total(|counters| &counters.fault.touch().faults_overflow), 1).await;
    drop(waiting);
    running.until("active faults", active, 0).await;
}

#[tokio::test]
async fn a_response_comes_no_faster_than_its_limit() {
    const BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................................................................................................................\
        ................";
    let limit = json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 2}, "percentage": {"numerator": ALL}}});
    let running = start(limit, Manner::Answer(BODY)).await;
    let mut stream = running.connect().await;
    let begun = Instant::now();
    stream.write_all(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let first = read_until(&mut stream, "\r\n\r\n").await;
    assert!(first.contains("content-length: 1024\r\n") && begun.elapsed() < Duration::from_millis(400));
    let mut received = first.len() - first.find("\r\n\r\n").unwrap() - 4;
    while received < 1024 {
        received += read_until(&mut stream, ".").await.len();
    }
    // Eight portions of 128 bytes, the first one at once.
    assert!(begun.elapsed() >= Duration::from_micros(7 * 62_500), "{:?}", begun.elapsed());
    running.until("limits", |stats| stats.total(|counters| &counters.fault.touch().response_rl_injected), 1).await;
}
