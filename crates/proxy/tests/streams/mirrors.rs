//! A mirror never gets in the way: not by being slow, nor deaf, nor by holding what was sent to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::{Manner, OK, Running, Scene, Seen, backend, read_until};

async fn start(mirror: SocketAddr, main: Manner) -> (Running, Seen) {
    let (address, seen) = backend(main).await;
    let scene = Scene {
        host: json!({"routes": [
            {"match": {"prefix": "/shadow"}, "route": {"cluster": "main", "request_mirror_policies": [{"cluster": "mirror"}]}},
            {"match": {"prefix": "/named"}, "route": {"cluster": "main", "request_mirror_policies": [
                {"cluster_header": "x-mirror", "host_rewrite_literal": "copy.example"}]}},
            {"match": {"prefix": "/"}, "route": {"cluster": "main", "timeout": "30s", "request_mirror_policies": [
                {"cluster": "mirror", "disable_shadow_host_suffix_append": true}]}}]}),
        clusters: vec![("main", vec![address]), ("mirror", vec![mirror])],
        ..Scene::default()
    };
    (scene.start().await, seen)
}

#[tokio::test]
async fn the_copy_bears_the_name_of_a_shadow_unless_told_otherwise() {
    let (mirror, copies) = backend(OK).await;
    let (running, _) = start(mirror, OK).await;
    let mut stream = running.connect().await;
    for path in ["/shadow", "/named", "/kept"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.com:81\r\nx-mirror: mirror\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut stream, "hi").await;
    }
    let copies = copies.until("three copies", |all| all.concat().matches("GET ").count() == 3).await.concat();
    for (path, host) in [("/shadow", "a.com-shadow:81"), ("/named", "copy.example"), ("/kept", "a.com:81")] {
        assert!(copies.contains(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n")), "{copies}");
    }
    assert_eq!(copies.matches("x-envoy-internal: true\r\n").count(), 3);
    let answers = |stats: &lateen_proxy::stats::ClusterStats| stats.total(|counters| &counters.upstream_rq_total);
    running.until_cluster("mirror", "requests", answers, 3).await;
    running.until_cluster("main", "requests", answers, 3).await;
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_mirror_that_says_nothing() {
    let (mirror, copies) = backend(Manner::Silent).await;
    let (running, _) = start(mirror, OK).await;
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(running.get("/", &[]).await.0, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    copies.until("five copies", |all| all.len() == 5).await;
    let active = |stats: &lateen_proxy::stats::ClusterStats| stats.level(|counters| &counters.upstream_rq_active);
    running.until_cluster("mirror", "copies under way", active, 5).await;
}

#[tokio::test]
async fn a_mirror_that_does_not_read_is_given_up_and_the_body_arrives() {
    const LARGE: usize = 24 * 1024 * 1024;
    let (mirror, _) = backend(Manner::Deaf).await;
    let (running, seen) = start(mirror, Manner::Silent).await;
    let mut stream = running.connect().await;
    stream
        .write_all(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..LARGE / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
    seen.until_bytes(LARGE).await;
    let abandoned =
        |stats: &lateen_proxy::stats::ClusterStats| stats.total(|counters| &counters.retry_or_shadow_abandoned);
    running.until_cluster("main", "abandoned", abandoned, 1).await;
    let active = |stats: &lateen_proxy::stats::ClusterStats| stats.level(|counters| &counters.upstream_rq_active);
    running.until_cluster("mirror", "copies under way", active, 0).await;
}

#[tokio::test]
async fn a_request_that_breaks_off_takes_its_copy_with_it() {
    let (mirror, copies) = backend(Manner::Silent).await;
    let (running, _) = start(mirror, Manner::Silent).await;
    let mut stream = running.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    copies.until("the beginning", |all| all.iter().any(|text| text.ends_with("\r\n\r\nabc"))).await;
    drop(stream);
    let active = |stats: &lateen_proxy::stats::ClusterStats| stats.level(|counters| &counters.upstream_cx_active);
    running.until_cluster("mirror", "connections", active, 0).await;
}

#[tokio::test]
async fn a_mirror_that_is_not_there_is_counted_and_nothing_else() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (running, _) = start(gone, OK).await;
    assert_eq!(running.get("/", &[]).await.0, 200);
    let failed = |stats: &lateen_proxy::stats::ClusterStats| stats.total(|counters| &counters.upstream_cx_connect_fail);
    running.until_cluster("mirror", "failures", failed, 1).await;
}
