//! Streams that leave HTTP behind.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Manner, Running, Scene, backend, read_until};

async fn start(manner: Manner) -> Running {
    let (address, _) = backend(manner).await;
    let scene = Scene {
        manager: json!({"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "never", "enabled": false}]}),
        host: json!({"routes": [
            {"match": {"connect_matcher": {}}, "route": {"cluster": "b", "upgrade_configs": [
                {"upgrade_type": "CONNECT", "connect_config": {}}]}},
            {"match": {"prefix": "/idle"}, "route": {"cluster": "b", "idle_timeout": "0.3s"}},
            {"match": {"prefix": "/other"}, "route": {"cluster": "b", "upgrade_configs": [{"upgrade_type": "Never"}]}},
            {"match": {"prefix": "/off"}, "route": {"cluster": "b", "upgrade_configs": [
                {"upgrade_type": "websocket", "enabled": false}]}},
            {"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}),
        clusters: vec![("b", vec![address])],
        ..Scene::default()
    };
    scene.start().await
}

fn upgrade(path: &str, protocol: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n")
}

#[tokio::test]
async fn bytes_go_both_ways_and_are_counted_as_one_upgrade() {
    let running = start(Manner::Echo).await;
    let mut stream = running.connect().await;
    stream.write_all(upgrade("/", "websocket").as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    running.until("upgrades", |stats| stats.level(|counters| &counters.downstream_cx_upgrades_active), 1).await;
    let large = "0123456789".repeat(100_000);
    let (mut read, mut write) = stream.into_split();
    let sent = large.clone();
    let sending = tokio::spawn(async move {
        write.write_all(sent.as_bytes()).await.unwrap();
        write.write_all(b".").await.unwrap();
        write
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    assert_eq!(back.len(), large.len() + 1);
    assert!(back.starts_with(large.as_bytes()));
    drop(sending.await);
    running.until("upgrades", |stats| stats.level(|counters| &counters.downstream_cx_upgrades_active), 0).await;
    running.until("upgrades", |stats| stats.total(|counters| &counters.downstream_cx_upgrades_total), 1).await;
}

#[tokio::test]
async fn a_route_may_allow_what_the_manager_forbids_and_forbid_what_it_allows() {
    let running = start(Manner::Echo).await;
    for (path, protocol, expected) in
        [("/", "never", 403), ("/off", "websocket", 403), ("/", "unheard-of", 403), ("/other", "NEVER", 101)]
    {
        let mut stream = running.connect().await;
        stream.write_all(upgrade(path, protocol).as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{path} {protocol}: {answer}");
    }
    running.until("refused", |stats| stats.total(|counters| &counters.downstream_rq_ws_on_non_ws_route), 3).await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_after_the_idle_time() {
    let running = start(Manner::Echo).await;
    let mut stream = running.connect().await;
    stream.write_all(upgrade("/idle", "websocket").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 101 "));
    running.until("idle", |stats| stats.total(|counters| &counters.downstream_rq_idle_timeout), 1).await;
}

#[tokio::test]
async fn a_connect_that_ends_here_carries_bytes_alone() {
    let running = start(Manner::Answer("220 ready\r\n")).await;
    let mut stream = running.connect().await;
    stream.write_all(b"CONNECT x:25 HTTP/1.1\r\nhost: x:25\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("content-length"), "{answer}");
    stream.write_all(b"hello\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "ready\r\n").await, "220 ready\r\n");
}
