//! The proxy's own replies in the shape that the connection manager gives them.

use serde_json::json;

use super::support::{OK, Running, Scene, backend};

async fn start() -> Running {
    let (address, _) = backend(OK).await;
    let is = |name: &str| json!({"header_filter": {"header": {"name": "x-map", "string_match": {"exact": name}}}});
    let scene = Scene {
        manager: json!({"local_reply_config": {
            "mappers": [
                {"filter": is("status"), "status_code": 401},
                {"filter": is("body"), "body": {"inline_string": "not here"}, "headers_to_add": [
                    {"header": {"key": "x-code", "value": "%RESPONSE_CODE%"}}]},
                {"filter": is("json"), "body_format_override": {"json_format": {
                    "text": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%"}}},
                {"filter": {"response_flag_filter": {"flags": ["NC"]}}, "body": {"inline_string": "no such cluster"}},
            ],
            "body_format": {"text_format": "[%LOCAL_REPLY_BODY%]", "content_type": "text/x"}}}),
        host: json!({"routes": [
            {"match": {"prefix": "/teapot"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
            {"match": {"prefix": "/none"}, "direct_response": {"status": 204}},
            {"match": {"prefix": "/missing"}, "route": {"cluster": "missing"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}),
        clusters: vec![("b", vec![address])],
        ..Scene::default()
    };
    scene.start().await
}

/// Status, `content-type` and body.
async fn ask(running: &Running, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>, String) {
    let (status, text) = running.get(path, headers).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).map(str::to_owned);
    (status, kind, body.to_owned())
}

#[tokio::test]
async fn the_first_mapper_that_fits_changes_a_reply_and_the_format_comes_last() {
    let running = start().await;
    let text = |kind: &str| Some(kind.to_owned());
    for (path, map, expected) in [
        ("/teapot", "", (418, text("text/x"), "[tea]")),
        ("/teapot", "status", (401, text("text/x"), "[tea]")),
        ("/teapot", "body", (418, text("text/x"), "[not here]")),
        ("/teapot", "json", (418, text("application/json"), "{\"code\":418,\"text\":\"tea\"}\n")),
        ("/missing", "", (503, text("text/x"), "[no such cluster]")),
        ("/none", "", (204, None, "")),
    ] {
        let headers = [("x-map", map)];
        let headers = if map.is_empty() { &[][..] } else { &headers[..] };
        let (status, kind, body) = ask(&running, path, headers).await;
        assert_eq!((status, kind, body.as_str()), expected, "{path} {map}");
    }
    let (_, answer) = running.get("/teapot", &[("x-map", "body")]).await;
    assert!(answer.contains("x-code: 418\r\n"), "{answer}");
}

#[tokio::test]
async fn answers_of_upstreams_are_left_alone() {
    let running = start().await;
    assert_eq!(ask(&running, "/", &[("x-map", "status")]).await, (200, None, "hi".to_owned()));
}

#[tokio::test]
async fn a_grpc_client_gets_the_status_that_stands_for_the_mapped_one() {
    let running = start().await;
    let (status, answer) = running.get("/teapot", &[("x-map", "status"), ("content-type", "application/grpc")]).await;
    assert_eq!(status, 200);
    assert!(answer.contains("grpc-status: 16\r\ngrpc-message: [tea]\r\n"), "{answer}");
}
