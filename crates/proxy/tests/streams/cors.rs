//! CORS where several levels speak, where it is for a share of the requests, and where no upstream is asked.

use serde_json::{Value, json};

use super::support::{OK, Running, Scene, backend};

const CORS: &str = "envoy.filters.http.cors";

fn policy(mut fields: Value) -> Value {
    fields["@type"] = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy".into();
    json!({CORS: fields})
}

fn share(numerator: u32) -> Value {
    json!({"default_value": {"numerator": numerator}})
}

async fn start() -> Running {
    let (address, _) = backend(OK).await;
    let route = |prefix: &str, fields: Value| json!({"match": {"prefix": prefix}, "route": {"cluster": "b"}, "typed_per_filter_config": policy(fields)});
    let scene = Scene {
        filters: vec![(CORS, json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}))],
        host: json!({
            "typed_per_filter_config": policy(json!({
                "allow_origin_string_match": [{"exact": "http://o"}], "allow_methods": "GET", "max_age": "9",
                "allow_credentials": true})),
            "routes": [
                route("/methods", json!({"allow_methods": "PUT"})),
                route("/nobody", json!({"filter_enabled": share(0)})),
                route("/shadow", json!({"filter_enabled": share(0), "shadow_enabled": share(100)})),
                route("/private", json!({"allow_private_network_access": true, "allow_credentials": false})),
                {"match": {"prefix": "/here"}, "direct_response": {"status": 200}},
                {"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}),
        clusters: vec![("b", vec![address])],
        ..Scene::default()
    };
    scene.start().await
}

/// The CORS headers of the answer to a preflight, in order.
async fn preflight(running: &Running, path: &str, origin: &str) -> Vec<String> {
    let request = format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\norigin: {origin}\r\n\
         access-control-request-method: GET\r\naccess-control-request-private-network: true\r\n\r\n"
    );
    let (_, answer) = running.ask(&request).await;
    let lines = answer.lines().filter_map(|line| line.strip_prefix("access-control-allow-"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_route_overlays_the_policy_of_its_host_field_by_field() {
    let running = start().await;
    assert_eq!(preflight(&running, "/", "http://o").await, ["origin: http://o", "credentials: true", "methods: GET"]);
    assert_eq!(
        preflight(&running, "/methods", "http://o").await,
        ["origin: http://o", "credentials: true", "methods: PUT"]
    );
    assert_eq!(
        preflight(&running, "/private", "http://o").await,
        ["origin: http://o", "methods: GET", "private-network: true"]
    );
    assert!(preflight(&running, "/", "http://x").await.is_empty());
    running.until("valid", |stats| stats.total(|counters| &counters.cors.touch().origin_valid), 3).await;
    running.until("invalid", |stats| stats.total(|counters| &counters.cors.touch().origin_invalid), 1).await;
}

#[tokio::test]
async fn a_policy_that_is_off_does_nothing_and_a_shadow_only_counts() {
    let running = start().await;
    assert!(preflight(&running, "/nobody", "http://o").await.is_empty());
    running.until("valid", |stats| stats.total(|counters| &counters.cors.touch().origin_valid), 0).await;
    assert!(preflight(&running, "/shadow", "http://o").await.is_empty());
    running.until("valid", |stats| stats.total(|counters| &counters.cors.touch().origin_valid), 1).await;
}

#[tokio::test]
async fn a_route_that_answers_itself_has_no_cors() {
    let running = start().await;
    assert!(preflight(&running, "/here", "http://o").await.is_empty());
}
