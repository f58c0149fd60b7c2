//! How are services reached? Clusters, their policies, and the endpoints behind them.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Interception, Mesh, Scope, compile};
use lateen_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy};
use lateen_xds::envoy::config::cluster::v3::{Cluster, circuit_breakers::Thresholds};
use lateen_xds::envoy::config::core::v3::HealthStatus;
use lateen_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use lateen_xds::{Part, any, json};
use mesh::*;
use serde_json::json;

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const REVIEWS_V1: &str = "outbound|9080|v1|reviews.default.svc.cluster.local";
const REVIEWS_V2: &str = "outbound|9080|v2|reviews.default.svc.cluster.local";

/// A DestinationRule for `reviews` with the fields of its spec in flow style.
fn rule(fields: &str) -> String {
    rule_named("reviews", "default", fields)
}

fn rule_named(name: &str, namespace: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{fields}}}\n"
    )
}

fn reviews_with(fields: &str) -> Cluster {
    let set = sidecar(&format!("{}{}", service("reviews", 9080), rule(&format!("host: reviews, {fields}"))));
    cluster(&set, REVIEWS).clone()
}

fn thresholds(cluster: &Cluster) -> Thresholds {
    cluster.circuit_breakers.as_ref().unwrap().thresholds[0]
}

fn discovery(cluster: &Cluster) -> DiscoveryType {
    match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).unwrap(),
        ref other => panic!("{other:?}"),
    }
}

fn http_options(cluster: &Cluster) -> Option<HttpProtocolOptions> {
    let options =
        cluster.typed_extension_protocol_options.get("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")?;
    Some(any::unpack(options).unwrap())
}

#[test]
fn a_service_without_rule_has_istios_defaults() {
    let set = sidecar(&service("reviews", 9080));
    let mut rendered = json::render(cluster(&set, REVIEWS)).unwrap();
    let matches = rendered.as_object_mut().unwrap().remove("transport_socket_matches").unwrap();
    let names: Vec<_> = matches.as_array().unwrap().iter().map(|each| &each["name"]).collect();
    assert_eq!(names, ["tlsMode-istio", "tlsMode-disabled"], "mutual TLS wherever both sides can");
    assert_eq!(
        rendered,
        json!({
            "name": REVIEWS,
            "alt_stat_name": format!("{REVIEWS};"),
            "type": "EDS",
            "eds_cluster_config": {
                "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "service_name": REVIEWS,
            },
            "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST",
            "common_lb_config": {"healthy_panic_threshold": {}},
            "circuit_breakers": {"thresholds": [{
                "max_connections": 4_294_967_295_u32,
                "max_pending_requests": 4_294_967_295_u32,
                "max_requests": 4_294_967_295_u32,
                "max_retries": 4_294_967_295_u32,
            }]},
            "metadata": {"filter_metadata": {"istio": {"services": [
                {"host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default"}
            ]}}},
        })
    );
}

#[test]
fn blocks_of_a_subset_replace_those_of_the_rule_whole() {
    let set = sidecar(&format!(
        "{}{}",
        service("reviews", 9080),
        rule(
            "host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {http: {http1MaxPendingRequests: 7}}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}]"
        )
    ));
    let row = |name: &str| {
        let cluster = cluster(&set, name);
        let thresholds = thresholds(cluster);
        (cluster.lb_policy, thresholds.max_pending_requests.unwrap(), thresholds.max_connections.unwrap())
    };
    let round_robin = i32::from(LbPolicy::RoundRobin);
    assert_eq!(row(REVIEWS), (round_robin, 7, u32::MAX));
    assert_eq!(row(REVIEWS_V1), (round_robin, 7, u32::MAX));
    assert_eq!(row(REVIEWS_V2), (round_robin, u32::MAX, 3));
    assert_eq!(set.clusters[REVIEWS_V2].origin(Part::Whole).unwrap().rule, "subsets[1]");
}

#[test]
fn settings_of_a_port_inherit_nothing() {
    let cluster = reviews_with(
        "trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 5}}, portLevelSettings: [{port: {number: 9080}, connectionPool: {http: {maxRetries: 2}}}]}",
    );
    assert_eq!(cluster.lb_policy, i32::from(LbPolicy::LeastRequest));
    let thresholds = thresholds(&cluster);
    assert_eq!((thresholds.max_connections, thresholds.max_retries), (Some(u32::MAX), Some(2)));
}

#[test]
fn limits_and_timeouts_of_a_connection_pool() {
    let cluster = reviews_with(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms, tcpKeepalive: {time: 7200s, interval: 75s}}, http: {http1MaxPendingRequests: 100, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 3, idleTimeout: 300s}}}",
    );
    assert_eq!(cluster.connect_timeout.unwrap().nanos, 30_000_000);
    let keepalive = cluster.upstream_connection_options.unwrap().tcp_keepalive.unwrap();
    assert_eq!((keepalive.keepalive_time, keepalive.keepalive_interval), (Some(7200), Some(75)));
    assert_eq!(keepalive.keepalive_probes, None);
    let limits = thresholds(&cluster);
    assert_eq!(
        (limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries),
        (Some(100), Some(100), Some(1000), Some(3))
    );
    let options = http_options(&cluster).unwrap();
    let common = options.common_http_protocol_options.unwrap();
    assert_eq!(common.max_requests_per_connection, Some(10));
    assert_eq!(common.idle_timeout.unwrap().seconds, 300);
    let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) = options.upstream_protocol_options else {
        panic!("Envoy asks for a choice of protocol with any option")
    };
    assert!(matches!(explicit.protocol_config, Some(ProtocolConfig::HttpProtocolOptions(_))));
}

#[test]
fn settings_of_the_mesh_hold_where_rules_say_nothing() {
    let config = "
connectTimeout: 3s
tcpKeepalive: {time: 60s, probes: 3}
defaultHttpRetryPolicy: {attempts: 5, retryOn: 5xx}
defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}, outlierDetection: {consecutive5xxErrors: 2}}
";
    let (config, problems) = lateen_config::parse_mesh(&lateen_config::SourceFile::new("mesh.yaml", config));
    assert!(problems.is_empty());
    let yaml = format!(
        "{}{}",
        service("reviews", 9080),
        rule(
            "host: reviews, subsets: [{name: v1, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s, tcpKeepalive: {time: 5s}}}}}]"
        )
    );
    let world = world_with(&yaml, Mesh::from_config(&config.unwrap()));
    let set = compile(&world, &sidecar_scope("default", &[]));
    let whole = cluster(&set, REVIEWS);
    assert_eq!(whole.connect_timeout.unwrap().seconds, 3);
    assert_eq!(thresholds(whole).max_connections, Some(9));
    assert_eq!(whole.outlier_detection.clone().unwrap().consecutive_5xx, Some(2));
    let subset = cluster(&set, REVIEWS_V1);
    assert_eq!(subset.connect_timeout.unwrap().seconds, 1);
    assert_eq!(thresholds(subset).max_connections, Some(u32::MAX), "a block of the subset's own replaces the mesh's");
    let keepalive = subset.upstream_connection_options.unwrap().tcp_keepalive.unwrap();
    assert_eq!((keepalive.keepalive_time, keepalive.keepalive_probes), (Some(5), Some(3)), "field by field");
    let default_route = &virtual_host(&set, "9080", "reviews.default.svc.cluster.local:9080").routes[0];
    let retries = forwarding(default_route).retry_policy.clone().unwrap();
    assert_eq!((retries.num_retries, retries.retry_on.as_str()), (Some(5), "5xx"));
}

#[test]
fn outlier_detection_keeps_success_rate_ejection_off() {
    let cluster = reviews_with(
        "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5, consecutiveGatewayErrors: 0, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50, minHealthPercent: 30, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}}",
    );
    let outlier = cluster.outlier_detection.unwrap();
    assert_eq!(outlier.enforcing_success_rate, Some(0));
    assert_eq!((outlier.consecutive_5xx, outlier.enforcing_consecutive_5xx), (Some(5), Some(100)));
    assert_eq!(
        (outlier.consecutive_gateway_failure, outlier.enforcing_consecutive_gateway_failure),
        (Some(0), Some(0))
    );
    assert_eq!(outlier.max_ejection_percent, Some(50));
    assert!(outlier.split_external_local_origin_errors);
    assert_eq!(
        (outlier.consecutive_local_origin_failure, outlier.enforcing_consecutive_local_origin_failure),
        (Some(4), Some(100))
    );
    assert_eq!(outlier.enforcing_local_origin_success_rate, Some(0));
    assert_eq!(cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 30.0);
    assert_eq!(reviews_with("trafficPolicy: {loadBalancer: {simple: RANDOM}}").outlier_detection, None);
}

#[test]
fn hashing_uses_a_ring_of_1024_unless_told_otherwise() {
    let of = |hash: &str| {
        let cluster = reviews_with(&format!(
            "trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x, {hash}}}}}}}"
        ));
        (LbPolicy::try_from(cluster.lb_policy).unwrap(), cluster.lb_config)
    };
    let ring = |config: Option<LbConfig>| match config {
        Some(LbConfig::RingHashLbConfig(ring)) => ring.minimum_ring_size,
        None => None,
        other => panic!("{other:?}"),
    };
    let (policy, config) = of("");
    assert_eq!((policy, ring(config)), (LbPolicy::RingHash, Some(1024)));
    let (policy, config) = of("ringHash: {minimumRingSize: 64}");
    assert_eq!((policy, ring(config)), (LbPolicy::RingHash, Some(64)));
    let (policy, config) = of("ringHash: {}");
    assert_eq!((policy, ring(config)), (LbPolicy::RingHash, None));
    let (policy, config) = of("maglev: {tableSize: 101}");
    assert_eq!(policy, LbPolicy::Maglev);
    assert!(matches!(config, Some(LbConfig::MaglevLbConfig(table)) if table.table_size == Some(101)));
}

#[test]
fn warm_up_belongs_to_round_robin_and_least_request() {
    let warmup = "warmup: {duration: 30s, minimumPercent: 20}";
    let of = |simple: &str| {
        reviews_with(&format!("trafficPolicy: {{loadBalancer: {{simple: {simple}, {warmup}}}}}")).lb_config
    };
    let Some(LbConfig::RoundRobinLbConfig(config)) = of("ROUND_ROBIN") else { panic!() };
    let slow_start = config.slow_start_config.unwrap();
    assert_eq!(slow_start.slow_start_window.unwrap().seconds, 30);
    assert_eq!(slow_start.min_weight_percent.unwrap().value, 20.0);
    assert!(matches!(of("LEAST_REQUEST"), Some(LbConfig::LeastRequestLbConfig(_))));
    assert_eq!(of("RANDOM"), None);
}

#[test]
fn a_rule_of_the_clients_namespace_hides_that_of_the_services_owner() {
    let yaml = format!(
        "{}{}{}",
        service("reviews", 9080),
        rule("host: reviews, subsets: [{name: v1, labels: {version: v1}}]"),
        rule_named(
            "all",
            "client",
            "host: \"*.default.svc.cluster.local\", trafficPolicy: {loadBalancer: {simple: RANDOM}}"
        )
    );
    let world = world(&yaml);
    let theirs = compile(&world, &sidecar_scope("client", &[]));
    assert_eq!(cluster(&theirs, REVIEWS).lb_policy, i32::from(LbPolicy::Random));
    assert!(!theirs.clusters.contains_key(REVIEWS_V1), "layers are not merged");
    let others = compile(&world, &sidecar_scope("other", &[]));
    assert!(others.clusters.contains_key(REVIEWS_V1));
    assert_eq!(cluster(&others, REVIEWS).lb_policy, i32::from(LbPolicy::LeastRequest));
}

#[test]
fn rules_of_the_root_namespace_come_last() {
    let mesh_wide =
        rule_named("mesh", "istio-system", "host: \"*.local\", trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    let set = sidecar(&format!("{}{}{mesh_wide}", service("reviews", 9080), service("ratings", 9080)));
    assert_eq!(cluster(&set, REVIEWS).lb_policy, i32::from(LbPolicy::Random));
    let own = rule("host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}");
    let set = sidecar(&format!("{}{mesh_wide}{own}", service("reviews", 9080)));
    assert_eq!(cluster(&set, REVIEWS).lb_policy, i32::from(LbPolicy::RoundRobin));
}

#[test]
fn private_rules_stay_in_their_namespace() {
    let yaml = format!(
        "{}{}",
        service("reviews", 9080),
        rule("host: reviews, exportTo: [\".\"], trafficPolicy: {loadBalancer: {simple: RANDOM}}")
    );
    let world = world(&yaml);
    let lb_policy = |namespace| cluster(&compile(&world, &sidecar_scope(namespace, &[])), REVIEWS).lb_policy;
    assert_eq!(lb_policy("default"), i32::from(LbPolicy::Random));
    assert_eq!(lb_policy("other"), i32::from(LbPolicy::LeastRequest));
}

#[test]
fn rules_for_one_host_are_merged_by_subset_and_the_first_policy_stays() {
    let yaml = format!(
        "{}{}{}",
        service("reviews", 9080),
        rule_named(
            "a",
            "default",
            "host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}]"
        ),
        rule_named(
            "b",
            "default",
            "host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}, subsets: [{name: v2, labels: {version: v2}}]"
        )
    );
    let set = sidecar(&yaml);
    assert_eq!(cluster(&set, REVIEWS_V2).lb_policy, i32::from(LbPolicy::Random));
    assert!(set.clusters.contains_key(REVIEWS_V1));
}

#[test]
fn a_rule_for_chosen_workloads_comes_before_that_for_all() {
    let yaml = format!(
        "{}{}{}",
        service("reviews", 9080),
        rule_named("a", "default", "host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}"),
        rule_named(
            "b",
            "default",
            "host: reviews, workloadSelector: {matchLabels: {app: web}}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}"
        )
    );
    let world = world(&yaml);
    let lb_policy =
        |labels: &[(&str, &str)]| cluster(&compile(&world, &sidecar_scope("default", labels)), REVIEWS).lb_policy;
    assert_eq!(lb_policy(&[("app", "web")]), i32::from(LbPolicy::RoundRobin));
    assert_eq!(lb_policy(&[("app", "other")]), i32::from(LbPolicy::Random));
}

#[test]
fn workload_entries_stand_behind_services_that_select_them() {
    let yaml = format!(
        "{}{}{}{}",
        service("reviews", 9080),
        workload("reviews", "v1", 9081),
        workload("reviews", "v2", 9082),
        rule(
            "host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]"
        )
    );
    let set = sidecar(&yaml);
    assert_eq!(endpoints(&set, REVIEWS), ["127.0.0.1:9081", "127.0.0.1:9082"]);
    assert_eq!(endpoints(&set, REVIEWS_V1), ["127.0.0.1:9081"]);
    assert_eq!(endpoints(&set, REVIEWS_V2), ["127.0.0.1:9082"]);
    let none = "outbound|9080|v3|reviews.default.svc.cluster.local";
    assert!(endpoints(&set, none).is_empty(), "a subset without workloads is empty, not missing");
    assert_eq!(
        set.endpoints[REVIEWS_V2].origin(Part::Whole).unwrap().to_string(),
        "WorkloadEntry default/reviews-v2 (mesh.yaml:17)"
    );
}

#[test]
fn a_workload_entry_without_named_port_uses_the_target_port() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  selector: {app: a}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-plain, port: 81}, {name: http-named, port: 82, targetPort: web}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a, namespace: default}
spec: {address: 10.0.0.1, labels: {app: a}, ports: {web: 9000}}
";
    let set = sidecar(yaml);
    let of = |port: u32| endpoints(&set, &format!("outbound|{port}||a.default.svc.cluster.local"));
    assert_eq!(of(80), ["10.0.0.1:8080"]);
    assert_eq!(of(81), ["10.0.0.1:81"]);
    assert_eq!(of(82), ["10.0.0.1:9000"]);
}

#[test]
fn pods_answer_on_target_ports_by_number_and_by_name() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  selector: {app: a}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-named, port: 81, targetPort: web}]
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: default, labels: {app: a, version: v1}}
spec: {containers: [{name: c, ports: [{name: web, containerPort: 9000}]}]}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, namespace: default, labels: {app: a, version: v1}}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.0.2, phase: Running, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-3, namespace: default, labels: {app: a}}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.0.3, phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: a-4, namespace: other, labels: {app: a}}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.0.4, phase: Running}
";
    let set = sidecar(yaml);
    let of = |port: u32| endpoints(&set, &format!("outbound|{port}||a.default.svc.cluster.local"));
    assert_eq!(of(80), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(of(81), ["10.0.0.1:9000"], "a container without the named port is no endpoint of it");
    let assignment = &set.endpoints["outbound|80||a.default.svc.cluster.local"].message;
    let health: Vec<i32> =
        assignment.endpoints.iter().flat_map(|of| &of.lb_endpoints).map(|of| of.health_status).collect();
    assert_eq!(health, [i32::from(HealthStatus::Healthy), i32::from(HealthStatus::Unhealthy)]);
}

#[test]
fn endpoint_slices_are_joined_by_port_name_and_take_the_place_of_pods() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  selector: {app: a}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: default, labels: {app: a, version: v1}}
spec: {containers: []}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-x, namespace: default, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: other, port: 1}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: a-1, namespace: default}}
- {addresses: [10.0.0.7], conditions: {ready: false}}
- {addresses: [10.0.0.8], conditions: {ready: false, terminating: false}, zone: b}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}
";
    let set = sidecar(yaml);
    assert_eq!(
        endpoints(&set, "outbound|80||a.default.svc.cluster.local"),
        ["10.0.0.1:8080", "10.0.0.8:8080"],
        "one that is not ready and not said to stay is on its way out"
    );
    assert_eq!(
        endpoints(&set, "outbound|80|v1|a.default.svc.cluster.local"),
        ["10.0.0.1:8080"],
        "labels come from the Pod"
    );
    let localities = &set.endpoints["outbound|80||a.default.svc.cluster.local"].message.endpoints;
    let zones: Vec<_> =
        localities.iter().map(|of| of.locality.as_ref().map(|locality| locality.zone.as_str())).collect();
    assert_eq!(zones, [None, Some("b")]);
}

#[test]
fn unhealthy_endpoints_are_withheld_when_a_share_of_healthy_ones_is_asked_for() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: reviews, namespace: default}
subsets:
- addresses: [{ip: 10.0.0.1}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{name: http, port: 8080}]
";
    assert_eq!(endpoints(&sidecar(yaml), REVIEWS), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let asked = rule("host: reviews, trafficPolicy: {outlierDetection: {minHealthPercent: 10}}");
    assert_eq!(endpoints(&sidecar(&format!("{yaml}{asked}")), REVIEWS), ["10.0.0.1:8080"]);
}

#[test]
fn a_service_without_selector_and_endpoints_has_an_empty_assignment() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {ports: [{name: http, port: 9080}]}
";
    assert!(endpoints(&sidecar(&format!("{yaml}{}", workload("reviews", "v1", 1))), REVIEWS).is_empty());
}

/// A ServiceEntry for `ext.com` with further fields in flow style.
fn entry(fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: ext, namespace: default}}\nspec: {{hosts: [ext.com], ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}], {fields}}}\n"
    )
}

const EXT: &str = "outbound|80||ext.com";

#[test]
fn names_are_resolved_where_a_service_entry_says_so() {
    let set = sidecar(&entry("resolution: DNS"));
    let ext = cluster(&set, EXT);
    assert_eq!(discovery(ext), DiscoveryType::StrictDns);
    let rendered = json::render(ext.load_assignment.as_ref().unwrap()).unwrap();
    assert_eq!(
        rendered["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"],
        json!({"socket_address": {"address": "ext.com", "port_value": 8080}})
    );
    assert!(ext.respect_dns_ttl);
    assert!(!set.endpoints.contains_key(EXT));
    let rendered = json::render(ext).unwrap();
    assert_eq!(rendered["metadata"]["filter_metadata"]["istio"]["external"], json!(true));
    assert_eq!(virtual_host(&set, "80", "ext.com:80").domains, ["ext.com", "ext.com."]);
    assert_eq!(discovery(cluster(&sidecar(&entry("resolution: DNS_ROUND_ROBIN")), EXT)), DiscoveryType::LogicalDns);
}

#[test]
fn fixed_endpoints_of_a_service_entry_are_assigned() {
    let fields = "resolution: STATIC, location: MESH_INTERNAL, endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2, ports: {http: 9000}, weight: 3, locality: us/east}, {address: 'unix:///run/ext.sock'}]";
    let set = sidecar(&entry(fields));
    assert_eq!(discovery(cluster(&set, EXT)), DiscoveryType::Eds);
    assert_eq!(endpoints(&set, EXT), ["10.0.0.1:8080", "/run/ext.sock", "10.0.0.2:9000"]);
    let weights: Vec<_> =
        set.endpoints[EXT].message.endpoints.iter().map(|locality| locality.load_balancing_weight.unwrap()).collect();
    assert_eq!(weights, [2, 3]);
}

#[test]
fn a_service_entry_selects_workloads_of_its_namespace() {
    let yaml = format!(
        "{}{}",
        entry("resolution: STATIC, workloadSelector: {labels: {app: reviews}}"),
        workload("reviews", "v1", 9081)
    );
    assert_eq!(endpoints(&sidecar(&yaml), EXT), ["127.0.0.1:9081"]);
}

#[test]
fn without_redirection_the_name_takes_the_place_of_the_original_destination() {
    let world = world(&entry("resolution: NONE"));
    let addressed = compile(&world, &sidecar_scope("default", &[]));
    assert_eq!(discovery(cluster(&addressed, EXT)), DiscoveryType::StrictDns);
    let mut scope = sidecar_scope("default", &[]);
    scope.interception = Interception::Redirect;
    let redirected = compile(&world, &scope);
    let ext = cluster(&redirected, EXT);
    assert_eq!(discovery(ext), DiscoveryType::OriginalDst);
    assert_eq!(ext.lb_policy, i32::from(LbPolicy::ClusterProvided));
    let Some(LbConfig::OriginalDstLbConfig(config)) = &ext.lb_config else { panic!() };
    assert_eq!(config.upstream_port_override, Some(8080));
}

#[test]
fn a_kubernetes_service_beats_a_service_entry_for_its_host() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a-copy, namespace: other}
spec: {hosts: [reviews.default.svc.cluster.local], ports: [{number: 9080, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.9.9.9}]}
";
    let set = sidecar(&format!("{yaml}{}{}", service("reviews", 9080), workload("reviews", "v1", 9081)));
    assert_eq!(endpoints(&set, REVIEWS), ["127.0.0.1:9081"]);
}

#[test]
fn http2_is_spoken_where_the_port_declares_it_or_a_rule_asks_for_it() {
    let is_http2 = |cluster: &Cluster| {
        matches!(
            http_options(cluster).and_then(|options| options.upstream_protocol_options),
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit))
                if matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)))
        )
    };
    let grpc = service("reviews", 9080).replace("name: http", "name: grpc");
    assert!(is_http2(cluster(&sidecar(&grpc), REVIEWS)));
    assert_eq!(http_options(cluster(&sidecar(&service("reviews", 9080)), REVIEWS)), None);
    assert!(is_http2(&reviews_with("trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}")));
    let kept = reviews_with("trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}");
    assert!(matches!(
        http_options(&kept).unwrap().upstream_protocol_options,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_))
    ));
}

#[test]
fn undeclared_ports_follow_the_client_in_sidecars_and_not_in_gateways() {
    let undeclared = service("reviews", 9080).replace("name: http", "name: web");
    let world = world(&undeclared);
    let set = compile(&world, &sidecar_scope("default", &[]));
    assert!(matches!(
        http_options(cluster(&set, REVIEWS)).unwrap().upstream_protocol_options,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_))
    ));
    let set = compile(&world, &Scope::gateway("default"));
    assert_eq!(http_options(cluster(&set, REVIEWS)), None);
}

#[test]
fn headless_services_are_balanced_where_no_original_destination_is_known() {
    let headless = service("reviews", 9080).replace("spec:", "spec:\n  clusterIP: None");
    let world = world(&format!("{headless}{}", workload("reviews", "v1", 9081)));
    let set = compile(&world, &sidecar_scope("default", &[]));
    assert_eq!(discovery(cluster(&set, REVIEWS)), DiscoveryType::Eds);
    let domains = &virtual_host(&set, "9080", "reviews.default.svc.cluster.local:9080").domains;
    assert!(domains.contains(&"*.reviews.default.svc.cluster.local".to_owned()), "{domains:?}");
    let mut scope = sidecar_scope("default", &[]);
    scope.interception = Interception::Redirect;
    assert_eq!(discovery(cluster(&compile(&world, &scope), REVIEWS)), DiscoveryType::OriginalDst);
}

#[test]
fn datagram_ports_have_no_clusters() {
    let yaml = service("reviews", 9080).replace("port: 9080", "port: 9080, protocol: UDP");
    let set = sidecar(&yaml);
    assert_eq!(set.clusters.keys().map(|name| &**name).collect::<Vec<_>>(), ["BlackHoleCluster"]);
}
