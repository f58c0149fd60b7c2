//! How does a sidecar reach its own workload? Clusters of the ports that it serves.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Interception, Mesh, Scope, compile};
use lateen_xds::{Part, XdsSet, json};
use mesh::*;
use serde_json::{Value, json};

/// A sidecar of `app: a` whose connections are redirected to it.
fn scope() -> Scope {
    Scope { interception: Interception::Redirect, ..sidecar_scope("default", &[("app", "a")]) }
}

fn redirected(yaml: &str) -> XdsSet {
    compile(&world(yaml), &scope())
}

fn inbound(set: &XdsSet) -> Vec<&str> {
    set.clusters.keys().map(|name| &**name).filter(|name| name.starts_with("inbound|")).collect()
}

fn rendered(set: &XdsSet, name: &str) -> Value {
    json::render(cluster(set, name)).unwrap()
}

/// A Service for `app: a` with ports in flow style.
fn ports(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{selector: {{app: a}}, ports: [{ports}]}}\n"
    )
}

fn object(kind: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

const LIMITS: &str = r#"{"max_connections": 4294967295, "max_pending_requests": 4294967295, "max_requests": 4294967295, "max_retries": 4294967295}"#;

#[test]
fn a_port_of_the_workload_is_reached_where_its_client_sent_the_connection() {
    let set = redirected(&ports("a", "{name: http, port: 80, targetPort: 8080}"));
    let limits: Value = serde_json::from_str(LIMITS).unwrap();
    assert_eq!(
        rendered(&set, "inbound|8080||"),
        json!({
            "name": "inbound|8080||",
            "alt_stat_name": "inbound|8080||;",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "10s",
            "cleanup_interval": "9223372035s",
            "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}},
            "circuit_breakers": {"thresholds": [limits]},
            "metadata": {"filter_metadata": {"istio": {"services": [
                {"host": "a.default.svc.cluster.local", "name": "a", "namespace": "default"}
            ]}}},
        })
    );
    let passthrough = rendered(&set, "InboundPassthroughCluster");
    assert_eq!(passthrough["type"], "ORIGINAL_DST");
    assert_eq!(passthrough["upstream_bind_config"]["source_address"]["address"], "127.0.0.6");
    assert!(set.clusters["inbound|8080||"].origin(Part::Whole).unwrap().to_string().starts_with("Service default/a"));
}

#[test]
fn other_proxies_have_no_workload_of_their_own_to_reach() {
    let world = world(&ports("a", "{name: http, port: 80}"));
    for scope in [Scope::gateway("default"), sidecar_scope("default", &[("app", "a")])] {
        let set = compile(&world, &scope);
        assert!(inbound(&set).is_empty());
        assert!(!set.clusters.contains_key("InboundPassthroughCluster"));
    }
    let elsewhere = Scope { namespace: "other".into(), ..scope() };
    assert!(inbound(&compile(&world, &elsewhere)).is_empty());
}

#[test]
fn the_oldest_service_on_a_port_decides_and_all_are_named() {
    let young = ports("young", "{name: grpc, port: 81, targetPort: 8080}, {name: http-b, port: 82}")
        .replace("namespace: default", "namespace: default, creationTimestamp: '2024-01-02T00:00:00Z'");
    let old = ports("old", "{name: http, port: 80, targetPort: 8080}")
        .replace("namespace: default", "namespace: default, creationTimestamp: '2023-01-02T00:00:00Z'");
    let set = redirected(&format!("{young}{old}"));
    assert_eq!(inbound(&set), ["inbound|8080||", "inbound|82||"]);
    let cluster = rendered(&set, "inbound|8080||");
    let services = cluster["metadata"]["filter_metadata"]["istio"]["services"].as_array().unwrap();
    assert_eq!(services.iter().map(|each| &each["name"]).collect::<Vec<_>>(), ["old", "young"]);
    assert_eq!(cluster.get("typed_extension_protocol_options"), None, "the young one would have made it HTTP/2");
}

#[test]
fn what_is_spoken_follows_the_port() {
    let set = redirected(&ports("a", "{name: grpc, port: 1}, {name: any, port: 2}, {name: tcp, port: 3}"));
    let options = |name: &str| {
        rendered(&set, name)["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
            .clone()
    };
    assert_eq!(options("inbound|1||")["explicit_http_config"], json!({"http2_protocol_options": {}}));
    assert_eq!(
        options("inbound|2||")["use_downstream_protocol_config"],
        json!({"http_protocol_options": {}, "http2_protocol_options": {}})
    );
    assert_eq!(options("inbound|3||"), Value::Null);
}

#[test]
fn ports_of_the_proxy_itself_and_datagrams_are_not_served() {
    let names = "{name: http-a, port: 15001}, {name: http-b, port: 15006}, {name: http-c, port: 15020}, {name: http-d, port: 15090}, {name: dns, port: 53, protocol: UDP}, {name: http, port: 80}";
    assert_eq!(inbound(&redirected(&ports("a", names))), ["inbound|80||"]);
}

#[test]
fn a_named_port_is_found_at_the_workload() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a-1, namespace: default, labels: {app: a}}\nspec: {containers: [{name: c, ports: [{name: web, containerPort: 9000}]}]}\nstatus: {podIP: 10.0.0.1, phase: Running}\n";
    let other = pod
        .replace("a-1", "b-1")
        .replace("app: a", "app: a, version: v2")
        .replace("9000", "9001")
        .replace(".1,", ".2,");
    let yaml = format!("{}{pod}{other}", ports("a", "{name: http, port: 80, targetPort: web}"));
    assert_eq!(inbound(&redirected(&yaml)), ["inbound|9000||"], "the workload with these very labels");
    let by_address = Scope { addresses: vec!["10.0.0.2".parse().unwrap()], ..scope() };
    assert_eq!(inbound(&compile(&world(&yaml), &by_address)), ["inbound|9001||"]);
}

#[test]
fn a_workload_stands_behind_services_that_list_its_address() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: other}
spec: {hosts: [ext.com], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: STATIC, endpoints: [{address: 10.0.0.7}]}
";
    let scope = Scope { addresses: vec!["10.0.0.7".parse().unwrap()], ..scope() };
    assert_eq!(inbound(&compile(&world(yaml), &scope)), ["inbound|8080||"]);
    assert!(inbound(&redirected(yaml)).is_empty());
}

#[test]
fn the_mesh_may_send_connections_on_by_loopback() {
    let mesh = Mesh { inbound_to_loopback: true, ..Mesh::default() };
    let set = compile(&world_with(&ports("a", "{name: http, port: 80}"), mesh), &scope());
    let cluster = rendered(&set, "inbound|80||");
    assert_eq!(cluster["type"], "STATIC");
    assert_eq!(
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"],
        json!({"socket_address": {"address": "127.0.0.1", "port_value": 80}})
    );
    assert_eq!(cluster.get("upstream_bind_config"), None);
}

#[test]
fn listeners_of_a_sidecar_object_take_the_place_of_services() {
    let yaml = [
        ports("a", "{name: http, port: 80, targetPort: 8080}, {name: http-b, port: 81}"),
        object(
            "Sidecar",
            "ingress: [{port: {number: 8080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:9999'}, {port: {number: 7000, protocol: GRPC, name: grpc}, defaultEndpoint: 'unix:///run/a.sock'}, {port: {number: 7001, protocol: HTTP, name: c}, defaultEndpoint: '0.0.0.0:7002'}, {port: {number: 7003, protocol: TCP, name: d}}]",
        ),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(inbound(&set), ["inbound|7000||", "inbound|7001||", "inbound|7003||", "inbound|8080||"]);
    let address = |name: &str| {
        rendered(&set, name)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"].clone()
    };
    assert_eq!(address("inbound|8080||"), json!({"socket_address": {"address": "127.0.0.1", "port_value": 9999}}));
    assert_eq!(address("inbound|7000||"), json!({"pipe": {"path": "/run/a.sock"}}));
    let other_port = rendered(&set, "inbound|7001||");
    assert_eq!(other_port["original_dst_lb_config"], json!({"upstream_port_override": 7002}));
    assert_eq!(rendered(&set, "inbound|7003||")["type"], "ORIGINAL_DST");
    let services = &rendered(&set, "inbound|8080||")["metadata"]["filter_metadata"]["istio"]["services"];
    assert_eq!(services[0]["name"], "a");
    assert_eq!(set.clusters["inbound|8080||"].origin(Part::Whole).unwrap().rule, "ingress[0]");
}

#[test]
fn limits_come_from_the_listener_the_sidecar_object_or_the_rule_in_this_order() {
    let service = ports("a", "{name: http, port: 80}");
    let rule = object(
        "DestinationRule",
        "host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}, outlierDetection: {interval: 1s}, connectionPool: {tcp: {maxConnections: 1}, http: {h2UpgradePolicy: UPGRADE}}}",
    );
    let sidecar = object("Sidecar", "inboundConnectionPool: {tcp: {maxConnections: 2}}");
    let listener = object(
        "Sidecar",
        "inboundConnectionPool: {tcp: {maxConnections: 2}}, ingress: [{port: {number: 80, protocol: HTTP, name: http}, connectionPool: {tcp: {maxConnections: 3}}}]",
    );
    let of = |yaml: String| rendered(&redirected(&yaml), "inbound|80||");
    let limit = |cluster: &Value| cluster["circuit_breakers"]["thresholds"][0]["max_connections"].clone();
    let by_rule = of(format!("{service}{rule}"));
    assert_eq!(limit(&by_rule), 1);
    for field in ["outlier_detection", "typed_extension_protocol_options"] {
        assert_eq!(by_rule.get(field), None, "limits alone are the workload's own");
    }
    assert_eq!(limit(&of(format!("{service}{rule}{sidecar}"))), 2);
    assert_eq!(limit(&of(format!("{service}{rule}{listener}"))), 3);
}

#[test]
fn envoy_accepts_inbound_clusters() {
    let yaml = [
        ports("a", "{name: http, port: 80}, {name: grpc, port: 81}, {name: any, port: 82}"),
        object(
            "DestinationRule",
            "host: a, trafficPolicy: {connectionPool: {http: {idleTimeout: 5s, maxRequestsPerConnection: 1}}}",
        ),
    ]
    .concat();
    envoy_accepts("inbound-services", &redirected(&yaml));
    let v6 = Scope { addresses: vec!["2001:db8::1".parse().unwrap()], ..scope() };
    envoy_accepts("inbound-v6", &compile(&world(&yaml), &v6));
    let sidecar = object(
        "Sidecar",
        "ingress: [{port: {number: 8080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:9999'}, {port: {number: 7000, protocol: GRPC, name: grpc}, defaultEndpoint: 'unix:///run/a.sock'}, {port: {number: 7001, protocol: HTTP, name: c}, defaultEndpoint: '0.0.0.0:7002'}]",
    );
    envoy_accepts("inbound-sidecar", &redirected(&format!("{yaml}{sidecar}")));
}
