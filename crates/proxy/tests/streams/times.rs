//! The times that end a stream from the client's side.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::{Manner, Running, Scene, backend, read_until};

async fn start(manner: Manner) -> Running {
    let (address, _) = backend(manner).await;
    let scene = Scene {
        manager: json!({
            "request_timeout": "0.3s", "stream_idle_timeout": "0.5s",
            "common_http_protocol_options": {"max_stream_duration": "2s"}}),
        host: json!({"include_attempt_count_in_response": true, "routes": [
            {"match": {"prefix": "/brief"}, "route": {"cluster": "b", "max_stream_duration": {"max_stream_duration": "0.2s"}}},
            {"match": {"prefix": "/patient"}, "route": {"cluster": "b", "idle_timeout": "0s"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}),
        clusters: vec![("b", vec![address])],
        ..Scene::default()
    };
    scene.start().await
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_in_time_gets_408() {
    let running = start(Manner::Silent).await;
    let mut stream = running.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    let answer = read_until(&mut stream, "request timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(!answer.contains("x-envoy-attempt-count"), "the router has no part in it: {answer}");
    running.until("timeouts", |stats| stats.total(|counters| &counters.downstream_rq_timeout), 1).await;
}

#[tokio::test]
async fn a_silent_stream_ends_and_a_route_may_wait_longer() {
    let running = start(Manner::Silent).await;
    let begun = Instant::now();
    let (status, text) = running.get("/", &[]).await;
    assert_eq!(status, 504);
    assert!(text.ends_with("stream timeout") && begun.elapsed() >= Duration::from_millis(500), "{text}");
    let (status, text) = running.get("/patient", &[]).await;
    assert_eq!(status, 504);
    assert!(text.ends_with("downstream duration timeout") && begun.elapsed() >= Duration::from_millis(2500), "{text}");
    running.until("idle", |stats| stats.total(|counters| &counters.downstream_rq_idle_timeout), 1).await;
    running.until("durations", |stats| stats.total(|counters| &counters.downstream_rq_max_duration_reached), 1).await;
}

#[tokio::test]
async fn a_stream_ends_after_its_duration_even_in_the_middle_of_a_response() {
    let running = start(Manner::Answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")).await;
    let (status, text) = running.get("/brief", &[]).await;
    assert_eq!(status, 200);
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
    running.until("durations", |stats| stats.total(|counters| &counters.downstream_rq_max_duration_reached), 1).await;
}
