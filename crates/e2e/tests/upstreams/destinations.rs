//! Does a request get to the destination that it names itself?

use super::*;

#[tokio::test]
async fn a_header_names_the_host_where_the_cluster_lets_it() {
    let settings = |config: Value| json!({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "original_dst_lb_config": config});
    let mut port_of_b = 0;
    let scene = Scene::start(&["a", "b"], |ports| {
        port_of_b = ports["b"];
        let bare = |name: &str, config: Value| {
            let mut cluster = cluster(name, &json!([]), &settings(config));
            cluster.as_object_mut().unwrap().remove("load_assignment");
            cluster
        };
        let clusters = vec![
            bare("header", json!({"use_http_header": true})),
            bare("own", json!({"use_http_header": true, "http_header_name": "x-to"})),
            bare("port", json!({"use_http_header": true, "upstream_port_override": ports["a"]})),
            bare("none", json!({})),
        ];
        let routes: Vec<_> =
            clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap(), &json!({}))).collect();
        (clusters, routes.into())
    })
    .await;
    let to = |name: &str, header: &str, value: &str| format!("GET h/{name}/ + {header}: {value}");
    let b = format!("127.0.0.1:{port_of_b}");
    let cases = [
        (to("header", "x-envoy-original-dst-host", &b), (200, "b")),
        (to("header", "x-envoy-original-dst-host", &b), (200, "b")),
        (to("header", "x-envoy-original-dst-host", "somewhere"), (503, "")),
        (to("header", "x-envoy-original-dst-host", "127.0.0.1"), (503, "")),
        (to("header", "x-other", &b), (503, "")),
        (to("own", "x-to", &b), (200, "b")),
        (to("port", "x-envoy-original-dst-host", &b), (200, "a")),
        (to("none", "x-envoy-original-dst-host", &b), (503, "")),
    ];
    for side in &scene.sides {
        for (request, (status, backend)) in &cases {
            let answer = side.ask(std::slice::from_ref(request)).await.remove(0);
            assert_eq!((answer.status, answer.backend.as_str()), (*status, *backend), "{request} on {}", side.name);
        }
        // Usually one; the second request may come before the first one's connection is free again.
        assert!((1..=2).contains(&side.stat("cluster.header.upstream_cx_total").await), "{}", side.name);
        assert_eq!(side.stat("cluster.header.original_dst_host_invalid").await, 2, "{}", side.name);
        assert_eq!(side.stat("cluster.header.upstream_cx_none_healthy").await, 3, "{}", side.name);
        assert_eq!(side.stat("cluster.none.upstream_cx_none_healthy").await, 1, "{}", side.name);
    }
    scene.end().await;
}
