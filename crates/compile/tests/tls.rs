//! When and how are connections to services encrypted? TLS of DestinationRules, and mutual TLS of the mesh.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Capability, Interception, Mesh, Scope, compile};
use lateen_xds::XdsSet;
use lateen_xds::json;
use mesh::*;
use serde_json::{Value, json};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// A DestinationRule for `reviews` with the fields of its spec in flow style.
fn rule(fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\nspec: {{host: reviews, {fields}}}\n"
    )
}

fn tls(fields: &str) -> String {
    rule(&format!("trafficPolicy: {{tls: {{{fields}}}}}"))
}

/// A Pod behind a Service that `service` makes.
fn pod(app: &str, index: u8, labels: &str, account: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {app}-{index}, namespace: default, labels: {{app: {app}, {labels}}}}}\nspec: {{serviceAccountName: {account}, containers: []}}\nstatus: {{podIP: 10.0.0.{index}, phase: Running}}\n"
    )
}

fn policy(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

const IN_MESH: &str = "security.istio.io/tlsMode: istio";

fn rendered(set: &XdsSet, name: &str) -> Value {
    json::render(cluster(set, name)).unwrap()
}

/// `reviews` as a sidecar has it under further objects.
fn reviews(yaml: &str) -> Value {
    rendered(&sidecar(&format!("{}{yaml}", service("reviews", 9080))), REVIEWS)
}

/// The TLS context of a cluster that has one for all endpoints.
fn context(cluster: &Value) -> &Value {
    assert_eq!(cluster["transport_socket"]["name"], "envoy.transport_sockets.tls", "{cluster:#}");
    &cluster["transport_socket"]["typed_config"]
}

fn is_plain(cluster: &Value) -> bool {
    cluster.get("transport_socket").is_none() && cluster.get("transport_socket_matches").is_none()
}

/// Which endpoints of a cluster are reached with mutual TLS of the mesh, in order of address.
fn mesh_tls(set: &XdsSet, name: &str) -> Vec<bool> {
    let assignment = json::render(&*set.endpoints[name].message).unwrap();
    let mut found = Vec::new();
    for locality in assignment["endpoints"].as_array().unwrap() {
        for endpoint in locality["lb_endpoints"].as_array().unwrap() {
            let metadata = &endpoint["metadata"]["filter_metadata"];
            found.push(metadata["envoy.transport_socket_match"] == json!({"tlsMode": "istio"}));
        }
    }
    found
}

#[test]
fn every_endpoint_says_whether_it_takes_mutual_tls() {
    let yaml =
        [service("reviews", 9080), pod("reviews", 1, IN_MESH, "bookinfo"), pod("reviews", 2, "version: v1", "other")]
            .concat();
    let set = sidecar(&yaml);
    let cluster = rendered(&set, REVIEWS);
    let matches = cluster["transport_socket_matches"].as_array().unwrap();
    assert_eq!(matches[0]["match"], json!({"tlsMode": "istio"}));
    let context = &matches[0]["transport_socket"]["typed_config"];
    assert_eq!(context["sni"], "outbound_.9080_._.reviews.default.svc.cluster.local");
    let common = &context["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["istio-peer-exchange", "istio"]));
    assert_eq!(
        common["combined_validation_context"]["default_validation_context"],
        json!({"match_subject_alt_names": [
            {"exact": "spiffe://cluster.local/ns/default/sa/bookinfo"},
            {"exact": "spiffe://cluster.local/ns/default/sa/other"},
        ]})
    );
    assert_eq!(matches[1]["name"], "tlsMode-disabled");
    assert_eq!(matches[1]["match"], json!({}));
    assert_eq!(matches[1]["transport_socket"]["name"], "envoy.transport_sockets.raw_buffer");
    assert_eq!(mesh_tls(&set, REVIEWS), [true, false]);
}

#[test]
fn policies_of_namespaces_decide_for_clusters_and_those_of_workloads_for_endpoints() {
    let base = [
        service("reviews", 9080),
        pod("reviews", 1, &format!("{IN_MESH}, version: v1"), "a"),
        pod("reviews", 2, &format!("{IN_MESH}, version: v2"), "a"),
    ]
    .concat();
    let of = |policies: String| {
        let set = sidecar(&format!("{base}{policies}"));
        (is_plain(&rendered(&set, REVIEWS)), mesh_tls(&set, REVIEWS))
    };
    assert_eq!(of(policy("all", "mtls: {mode: STRICT}")), (false, vec![true, true]));
    assert!(of(policy("all", "mtls: {mode: DISABLE}")).0);
    let workload = "selector: {matchLabels: {version: v1}}";
    assert_eq!(of(policy("one", &format!("{workload}, mtls: {{mode: DISABLE}}"))), (false, vec![false, true]));
    let of_port = format!("{workload}, portLevelMtls: {{9080: {{mode: DISABLE}}}}");
    assert_eq!(of(policy("port", &of_port)), (false, vec![false, true]));
    let of_other_port = format!("{workload}, portLevelMtls: {{9081: {{mode: DISABLE}}}}");
    assert_eq!(of(policy("port", &of_other_port)), (false, vec![true, true]));
}

#[test]
fn a_rule_without_tls_leaves_mutual_tls_on_and_the_mesh_can_turn_it_off() {
    assert!(!is_plain(&reviews(&rule("trafficPolicy: {loadBalancer: {simple: RANDOM}}"))));
    assert!(is_plain(&reviews(&tls("mode: DISABLE"))));
    let off = Mesh { auto_mtls: false, ..Mesh::default() };
    let world = world_with(&service("reviews", 9080), off);
    assert!(is_plain(&rendered(&compile(&world, &sidecar_scope("default", &[])), REVIEWS)));
}

#[test]
fn mutual_tls_by_rule_holds_for_every_endpoint() {
    let yaml = [
        service("reviews", 9080),
        pod("reviews", 1, "version: v1", "a"),
        rule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}, subsets: [{name: v1, labels: {version: v1}}, {name: plain, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}}]"),
    ]
    .concat();
    let set = sidecar(&yaml);
    assert_eq!(mesh_tls(&set, REVIEWS), [true]);
    let v1 = rendered(&set, "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert_eq!(context(&v1)["sni"], "outbound_.9080_.v1_.reviews.default.svc.cluster.local");
    let plain = "outbound|9080|plain|reviews.default.svc.cluster.local";
    assert!(is_plain(&rendered(&set, plain)));
    assert_eq!(mesh_tls(&set, plain), [false]);
    let named = reviews(&tls("mode: ISTIO_MUTUAL, sni: a.com, subjectAltNames: [spiffe://a]"));
    assert_eq!(context(&named)["sni"], "a.com");
    let validation = &context(&named)["common_tls_context"]["combined_validation_context"];
    assert_eq!(validation["default_validation_context"], json!({"match_subject_alt_names": [{"exact": "spiffe://a"}]}));
}

#[test]
fn settings_of_a_port_do_not_inherit_tls() {
    let yaml = rule(
        "trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]}",
    );
    assert!(reviews(&yaml).get("transport_socket_matches").is_some(), "back to what the mesh does by itself");
}

#[test]
fn simple_tls_checks_the_server_by_the_requests_host_unless_names_are_given() {
    let bare = reviews(&tls("mode: SIMPLE"));
    let common = &context(&bare)["common_tls_context"];
    assert_eq!(common.get("tls_certificate_sds_secret_configs"), None);
    assert_eq!(common.get("alpn_protocols"), None);
    let authorities = &common["combined_validation_context"]["validation_context_sds_secret_config"];
    assert_eq!(authorities["name"], "file-root:system");
    let http = &bare["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(http["upstream_http_protocol_options"], json!({"auto_sni": true, "auto_san_validation": true}));
    assert_eq!(http["explicit_http_config"], json!({"http_protocol_options": {}}));
    assert_eq!(bare["metadata"]["filter_metadata"]["istio"]["alpn_override"], "false");

    let named = reviews(&tls("mode: SIMPLE, sni: a.com, subjectAltNames: [b.com], caCertificates: /ca.pem"));
    assert_eq!(context(&named)["sni"], "a.com");
    let validation = &context(&named)["common_tls_context"]["combined_validation_context"];
    assert_eq!(validation["default_validation_context"], json!({"match_subject_alt_names": [{"exact": "b.com"}]}));
    assert_eq!(validation["validation_context_sds_secret_config"]["name"], "file-root:/ca.pem");
    assert_eq!(named.get("typed_extension_protocol_options"), None);

    let unchecked = reviews(&tls("mode: SIMPLE, insecureSkipVerify: true"));
    assert_eq!(context(&unchecked)["common_tls_context"]["validation_context"], json!({}));
    let http = &unchecked["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(http["upstream_http_protocol_options"], json!({"auto_sni": true}));
}

#[test]
fn mutual_tls_with_files_shows_a_certificate_and_http2_is_offered_where_it_is_spoken() {
    let yaml = rule(
        "trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem}, connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
    );
    let cluster = reviews(&yaml);
    let common = &context(&cluster)["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "file-cert:/c.pem~/k.pem");
    assert_eq!(common["alpn_protocols"], json!(["h2"]));
    let mesh = reviews(&rule(
        "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
    ));
    assert_eq!(context(&mesh)["common_tls_context"]["alpn_protocols"], json!(["istio-peer-exchange", "istio", "h2"]));
}

#[test]
fn secrets_are_for_gateways_and_for_workloads_that_a_rule_names() {
    let text = |selector: &str| {
        format!(
            "{}{}",
            service("reviews", 9080),
            rule(&format!("{selector}trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: shop}}}}"))
        )
    };
    let names = |cluster: &Value| {
        let common = &context(cluster)["common_tls_context"];
        let certificate = &common["tls_certificate_sds_secret_configs"][0];
        let authorities = &common["combined_validation_context"]["validation_context_sds_secret_config"];
        (certificate["name"].clone(), authorities["name"].clone())
    };
    let both = (json!("kubernetes://shop"), json!("kubernetes://shop-cacert"));
    assert_eq!(names(&rendered(&gateway(&text("")), REVIEWS)), both);
    assert!(is_plain(&rendered(&sidecar(&text("")), REVIEWS)), "no TLS at all");
    let world = world(&text("workloadSelector: {matchLabels: {app: web}}, "));
    let chosen = compile(&world, &sidecar_scope("default", &[("app", "web")]));
    assert_eq!(names(&rendered(&chosen, REVIEWS)), both);
}

/// A ServiceEntry for `ext.com` with further fields in flow style.
fn entry(fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: ext, namespace: default}}\nspec: {{hosts: [ext.com], ports: [{{number: 80, name: http, protocol: HTTP}}], {fields}}}\n"
    )
}

const EXT: &str = "outbound|80||ext.com";

#[test]
fn servers_outside_of_the_mesh_never_get_its_certificates() {
    assert!(is_plain(&rendered(&sidecar(&entry("resolution: DNS")), EXT)));
    let inside =
        rendered(&sidecar(&entry("resolution: DNS, location: MESH_INTERNAL, subjectAltNames: [spiffe://b]")), EXT);
    let context = &inside["transport_socket_matches"][0]["transport_socket"]["typed_config"];
    let validation = &context["common_tls_context"]["combined_validation_context"]["default_validation_context"];
    assert_eq!(validation["match_subject_alt_names"], json!([{"exact": "spiffe://b"}]));
}

#[test]
fn names_that_a_service_entry_declares_are_those_of_its_certificates() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ext, namespace: default}\nspec: {host: ext.com, trafficPolicy: {tls: {mode: SIMPLE}}}\n";
    let cluster = rendered(&sidecar(&format!("{}{rule}", entry("resolution: DNS, subjectAltNames: [c.com]"))), EXT);
    let validation = &context(&cluster)["common_tls_context"]["combined_validation_context"];
    assert_eq!(validation["default_validation_context"]["match_subject_alt_names"], json!([{"exact": "c.com"}]));
    let http = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(http["upstream_http_protocol_options"], json!({"auto_sni": true}));
}

#[test]
fn one_workload_without_certificate_turns_mutual_tls_off_where_clients_choose_the_endpoint() {
    let headless = service("reviews", 9080).replace("spec:", "spec:\n  clusterIP: None");
    let of = |pods: &[String]| {
        let world = world(&format!("{headless}{}", pods.concat()));
        let mut scope = sidecar_scope("default", &[]);
        scope.interception = Interception::Redirect;
        rendered(&compile(&world, &scope), REVIEWS)
    };
    let with = pod("reviews", 1, IN_MESH, "a");
    let without = pod("reviews", 2, "version: v1", "a");
    assert!(is_plain(&of(&[])));
    assert!(is_plain(&of(&[with.clone(), without])));
    let all = of(&[with]);
    assert_eq!(all["type"], "ORIGINAL_DST");
    assert_eq!(context(&all)["sni"], "outbound_.9080_._.reviews.default.svc.cluster.local");
}

#[test]
fn the_proxy_protocol_goes_around_every_socket() {
    let cluster = reviews(&rule("trafficPolicy: {proxyProtocol: {version: V2}}"));
    for each in cluster["transport_socket_matches"].as_array().unwrap() {
        let socket = &each["transport_socket"];
        assert_eq!(socket["name"], "envoy.transport_sockets.upstream_proxy_protocol");
        assert_eq!(socket["typed_config"]["config"], json!({"version": "V2"}));
    }
    let cluster = reviews(&rule("trafficPolicy: {proxyProtocol: {}, tls: {mode: DISABLE}}"));
    let inner = &cluster["transport_socket"]["typed_config"]["transport_socket"];
    assert_eq!(inner["name"], "envoy.transport_sockets.raw_buffer");
}

#[test]
fn only_istios_build_gets_certificates_from_an_agent_and_exchanges_metadata() {
    let world = world(&service("reviews", 9080));
    let of = |capability| {
        let scope = Scope { capability, ..sidecar_scope("default", &[]) };
        rendered(&compile(&world, &scope), REVIEWS)
    };
    let source = |cluster: &Value| {
        let context = &cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"];
        context["common_tls_context"]["tls_certificate_sds_secret_configs"][0]["sds_config"].clone()
    };
    let istio = of(Capability::IstioProxy);
    assert_eq!(
        source(&istio)["api_config_source"]["grpc_services"],
        json!([{"envoy_grpc": {"cluster_name": "sds-grpc"}}])
    );
    assert_eq!(istio["filters"][0]["name"], "istio.metadata_exchange");
    for capability in [Capability::Native, Capability::UpstreamEnvoy] {
        let other = of(capability);
        assert_eq!(source(&other), json!({"ads": {}, "resource_api_version": "V3"}));
        assert_eq!(other.get("filters"), None);
    }
}

#[test]
fn gateways_pass_mutual_tls_through_to_workloads_that_take_it() {
    let servers = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: cross, namespace: istio-system}\nspec: {servers: [{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*.local']}]}\n";
    let yaml = [
        service("reviews", 9080),
        pod("reviews", 1, &format!("{IN_MESH}, version: v1"), "a"),
        pod("reviews", 2, "version: v1", "a"),
        rule("subsets: [{name: v1, labels: {version: v1}}]"),
        entry("resolution: DNS"),
        servers.to_owned(),
    ]
    .concat();
    let set = gateway(&yaml);
    for name in
        ["outbound_.9080_._.reviews.default.svc.cluster.local", "outbound_.9080_.v1_.reviews.default.svc.cluster.local"]
    {
        assert!(is_plain(&rendered(&set, name)), "what is inside stays as it is");
        assert_eq!(endpoints(&set, name), ["10.0.0.1:9080"]);
    }
    assert!(!set.clusters.contains_key("outbound_.80_._.ext.com"));
    assert!(set.clusters.contains_key(EXT));
    assert!(!sidecar(&yaml).clusters.keys().any(|name| name.starts_with("outbound_")));
}

/// Nearly every form of TLS that a cluster may have.
fn everything() -> String {
    let mut yaml = String::new();
    let forms = [
        ("a", "tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://a]}"),
        ("b", "tls: {mode: SIMPLE}, outlierDetection: {outlierDetectionHttpErrorCodes: [500, 503]}"),
        ("c", "tls: {mode: SIMPLE, sni: a.com, subjectAltNames: [b.com], caCertificates: /ca.pem}"),
        ("d", "tls: {mode: SIMPLE, insecureSkipVerify: true}, proxyProtocol: {version: V2}"),
        ("e", "tls: {mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem}"),
        ("f", "tls: {mode: MUTUAL, credentialName: shop}, outlierDetection: {outlierDetectionHttpErrorCodes: [429]}"),
        ("g", "proxyProtocol: {}, retryBudget: {percent: 10, budgetInterval: 2s}"),
        ("h", "loadBalancer: {localityLbSetting: {distribute: [{from: us/*, to: {us/*: 70, eu/*: 30}}]}}"),
        ("i", "loadBalancer: {localityLbSetting: {failover: [{from: us, to: eu}]}}, outlierDetection: {interval: 1s}"),
        ("j", "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 3}}"),
        ("k", "loadBalancer: {zoneAwareLbSetting: {enabled: false}}"),
    ];
    for (name, fields) in forms {
        yaml += &service(name, 80);
        yaml += &pod(name, 1, &format!("{IN_MESH}, topology.istio.io/locality: us.a"), "one");
        yaml += &pod(name, 2, "topology.istio.io/locality: eu.a", "two");
        yaml += &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: default}}\nspec: {{host: {name}, trafficPolicy: {{{fields}}}}}\n"
        );
    }
    yaml += &entry("resolution: DNS, endpoints: [{address: a.com, locality: us/a}, {address: b.com, locality: eu/b}]");
    yaml += "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ext, namespace: default}\nspec: {host: ext.com, trafficPolicy: {tls: {mode: SIMPLE}, outlierDetection: {consecutive5xxErrors: 1}}}\n";
    yaml += "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: any, namespace: default}\nspec: {hosts: ['*.any.com'], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}], resolution: DYNAMIC_DNS}\n";
    yaml += "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: race, namespace: default, annotations: {istio.io/connect-strategy: RACE_FIRST_TCP_CONNECT}}\nspec: {hosts: [race.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n";
    yaml += "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: cross, namespace: istio-system}\nspec: {servers: [{port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*']}]}\n";
    yaml
}

#[test]
fn envoy_accepts_every_form_of_tls() {
    let mesh =
        Mesh { outbound_traffic_policy: lateen_compile::OutboundTrafficPolicy::AllowAnyDynamicDns, ..Mesh::default() };
    let world = world_with(&everything(), mesh);
    let near = lateen_compile::world::services::Locality::parse("us/a/1");
    envoy_accepts("tls-gateway", &compile(&world, &Scope { locality: near.clone(), ..Scope::gateway("istio-system") }));
    for (name, capability) in [("upstream", Capability::UpstreamEnvoy), ("native", Capability::Native)] {
        let scope = Scope {
            capability,
            interception: Interception::Redirect,
            locality: near.clone(),
            ..sidecar_scope("default", &[("app", "a")])
        };
        envoy_accepts(&format!("tls-sidecar-{name}"), &compile(&world, &scope));
    }
}
