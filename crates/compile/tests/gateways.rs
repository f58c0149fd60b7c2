//! Which listeners do Gateways make on one workload? Ports and their translation, TLS of servers, what is passed through,
//! and who gives way when several want the same.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Mesh, Scope, compile};
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::route::v3::virtual_host::TlsRequirementType;
use lateen_xds::json;
use mesh::listeners::*;
use mesh::*;
use serde_json::{Value, json};

/// A Gateway in `default` for every gateway workload, with servers in flow style.
fn gateway_object(name: &str, servers: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\nspec: {{servers: [{servers}]}}\n"
    )
}

fn virtual_service(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

/// The Service of the gateway workload, `istio: ingressgateway`, in the root namespace.
fn gateway_service(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: istio-system}}\nspec: {{selector: {{istio: ingressgateway}}, ports: [{ports}]}}\n"
    )
}

fn workload_scope() -> Scope {
    Scope { labels: Some([("istio".to_owned(), "ingressgateway".to_owned())].into()), ..Scope::gateway("istio-system") }
}

fn tables(set: &XdsSet) -> Vec<&str> {
    set.routes.keys().map(|name| &**name).collect()
}

const HTTP_80: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}";

fn https(number: u32, name: &str, hosts: &str, credential: &str) -> String {
    format!(
        "{{port: {{number: {number}, name: {name}, protocol: HTTPS}}, hosts: [{hosts}], tls: {{mode: SIMPLE, credentialName: {credential}}}}}"
    )
}

// Ports.

#[test]
fn numbers_of_a_gateway_are_ports_of_its_service() {
    let yaml = [
        gateway_service("ingress", "{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}"),
        gateway_object("gw", &[HTTP_80, &https(443, "https", "a.com", "cert")].join(", ")),
        virtual_service(
            "vs",
            "hosts: [a.com], gateways: [gw], http: [{match: [{port: 443}], route: [{destination: {host: tls}}]}, {match: [{port: 8443}], route: [{destination: {host: never}}]}, {route: [{destination: {host: all}}]}]",
        ),
    ]
    .concat();
    let set = compile(&world(&yaml), &workload_scope());
    assert_eq!(listeners(&set), ["0.0.0.0_8080", "0.0.0.0_8443"]);
    // Plain HTTP is named by the port that is bound, HTTPS by the Gateway's; rules go by the Gateway's.
    assert_eq!(tables(&set), ["http.8080", "https.443.https.gw.default"]);
    assert_eq!(virtual_hosts(&set, "http.8080"), ["a.com:80"]);
    assert_eq!(routes(virtual_host(&set, "http.8080", "a.com:80")), ["/* -> 80||all"]);
    assert_eq!(
        routes(virtual_host(&set, "https.443.https.gw.default", "a.com:443")),
        ["/* -> 443||tls", "/* -> 443||all"][..1]
    );
}

#[test]
fn of_several_services_the_oldest_with_the_number_translates() {
    let yaml = [
        gateway_service("a", "{name: https, port: 443, targetPort: 9443}"),
        gateway_service("b", "{name: http, port: 80, targetPort: 9080}"),
        gateway_service("c", "{name: http, port: 80, targetPort: 9999}"),
        gateway_object("gw", HTTP_80),
    ]
    .concat();
    assert_eq!(listeners(&compile(&world(&yaml), &workload_scope())), ["0.0.0.0_9080"]);
}

#[test]
fn a_service_may_stay_out_of_the_translation() {
    let label = "labels: {experimental.istio.io/disable-gateway-port-translation: \"true\"}";
    let service = gateway_service("a", "{name: http, port: 80, targetPort: 9080}")
        .replace("namespace: istio-system", &format!("namespace: istio-system, {label}"));
    let set = compile(&world(&[service, gateway_object("gw", HTTP_80)].concat()), &workload_scope());
    assert_eq!(listeners(&set), ["0.0.0.0_80"]);
}

#[test]
fn services_of_other_namespaces_translate_nothing() {
    let service = gateway_service("a", "{name: http, port: 80, targetPort: 9080}").replace("istio-system", "default");
    let set = compile(&world(&[service, gateway_object("gw", HTTP_80)].concat()), &workload_scope());
    assert_eq!(listeners(&set), ["0.0.0.0_80"]);
}

#[test]
fn a_workload_without_privileges_skips_low_ports() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}, {port: {number: 443, name: tcp, protocol: HTTP}, hosts: [\"*\"]}, {port: {number: 8080, name: high, protocol: HTTP}, hosts: [\"*\"]}";
    let yaml =
        [gateway_service("a", "{name: http, port: 80, targetPort: 9080}"), gateway_object("gw", servers)].concat();
    let scope = Scope { is_unprivileged: true, ..workload_scope() };
    // 443 has no translation, so the number itself would be bound.
    assert_eq!(listeners(&compile(&world(&yaml), &scope)), ["0.0.0.0_8080", "0.0.0.0_9080"]);
    assert_eq!(listeners(&compile(&world(&yaml), &workload_scope())), ["0.0.0.0_443", "0.0.0.0_8080", "0.0.0.0_9080"]);
}

#[test]
fn a_gateway_may_name_services_in_place_of_labels() {
    let named = gateway_object("gw", HTTP_80).replace(
        "namespace: default}",
        "namespace: istio-system, annotations: {internal.istio.io/gateway-service: a.istio-system.svc.cluster.local}}",
    );
    let service = gateway_service("a", "{name: http, port: 80, targetPort: 9080}");
    let set = compile(&world(&[service.clone(), named.clone()].concat()), &workload_scope());
    assert_eq!(listeners(&set), ["0.0.0.0_9080"]);
    let other = Scope { labels: Some([("istio".to_owned(), "egressgateway".to_owned())].into()), ..workload_scope() };
    assert!(compile(&world(&[service, named].concat()), &other).listeners.is_empty());
}

#[test]
fn selectors_look_at_labels_and_not_at_namespaces() {
    let selecting = gateway_object("gw", HTTP_80).replace("spec: {", "spec: {selector: {istio: ingressgateway}, ");
    let world = world(&selecting);
    assert_eq!(listeners(&compile(&world, &workload_scope())), ["0.0.0.0_80"]);
    let other = Scope { labels: Some([("istio".to_owned(), "other".to_owned())].into()), ..workload_scope() };
    assert!(compile(&world, &other).listeners.is_empty());
    let sidecar = compile(&world, &redirected_scope(&[("istio", "ingressgateway")]));
    assert_eq!(listeners(&sidecar), ["virtualInbound", "virtualOutbound"], "sidecars serve no Gateway");
}

#[test]
fn a_server_may_listen_on_a_unix_domain_socket() {
    let set = gateway(&gateway_object(
        "gw",
        "{port: {number: 0, name: http, protocol: HTTP}, bind: \"unix:///run/gw.sock\", hosts: [\"*\"]}",
    ));
    assert_eq!(listeners(&set), ["unix:///run/gw.sock_0"]);
    let address = json::render(listener(&set, "unix:///run/gw.sock_0")).unwrap()["address"].clone();
    assert_eq!(address, json!({"pipe": {"path": "/run/gw.sock"}}));
    envoy_accepts("gateways-unix", &set);
}

// TLS.

fn context(set: &XdsSet, name: &str, chain: usize) -> Value {
    let socket = listener(set, name).filter_chains[chain].transport_socket.as_ref().unwrap();
    json::render(socket).unwrap()["typed_config"].clone()
}

#[test]
fn each_mode_ends_tls_its_own_way() {
    let server = |mode: &str, fields: &str| {
        let set = gateway(&gateway_object(
            "gw",
            &format!(
                "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.com], tls: {{mode: {mode}{fields}}}}}"
            ),
        ));
        assert_eq!(chains(&set, "0.0.0.0_443"), ["sni=a.com -> ends TLS, routes https.443.https.gw.default"]);
        assert_eq!(listener_filters(&set, "0.0.0.0_443"), ["tls_inspector"]);
        context(&set, "0.0.0.0_443", 0)
    };
    let simple = server("SIMPLE", ", credentialName: cert");
    assert_eq!(simple["require_client_certificate"], false);
    let common = &simple["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "kubernetes://cert");
    assert_eq!(common.get("combined_validation_context"), None);
    let mutual = server("MUTUAL", ", credentialName: cert, subjectAltNames: [client.com]");
    assert_eq!(mutual["require_client_certificate"], true);
    let validation = &mutual["common_tls_context"]["combined_validation_context"];
    assert_eq!(validation["validation_context_sds_secret_config"]["name"], "kubernetes://cert-cacert");
    assert_eq!(validation["default_validation_context"]["match_subject_alt_names"], json!([{"exact": "client.com"}]));
    let optional = server("OPTIONAL_MUTUAL", ", credentialName: cert");
    assert_eq!(optional["require_client_certificate"], false);
    assert_eq!(
        optional["common_tls_context"]["combined_validation_context"]["validation_context_sds_secret_config"]["name"],
        "kubernetes://cert-cacert"
    );
    let files = server("SIMPLE", ", serverCertificate: /etc/cert.pem, privateKey: /etc/key.pem");
    assert!(files["common_tls_context"].to_string().contains("/etc/cert.pem"), "{files:#}");
    let mesh = server("ISTIO_MUTUAL", "");
    assert_eq!(mesh["require_client_certificate"], true);
    assert_eq!(mesh["common_tls_context"]["tls_certificate_sds_secret_configs"][0]["name"], "default");
}

#[test]
fn a_server_for_every_host_takes_clients_that_name_none() {
    let set = gateway(&gateway_object("gw", &https(443, "https", "a.com, \"*\"", "cert")));
    assert_eq!(chains(&set, "0.0.0.0_443"), ["* -> ends TLS, routes https.443.https.gw.default"]);
    let chain = &listener(&set, "0.0.0.0_443").filter_chains[0];
    assert_eq!(chain.transport_socket_connect_timeout.unwrap().seconds, 15);
    assert_eq!(listener(&set, "0.0.0.0_443").per_connection_buffer_limit_bytes, Some(32768));
}

#[test]
fn https_servers_are_called_in_statistics_what_they_are_called() {
    let server = https(443, "https", "a.com", "cert").replace("{port", "{name: shop, port");
    let set = gateway(&gateway_object("gw", &[&server, HTTP_80].join(", ")));
    let prefix = |name: &str| connection_manager(&listener(&set, name).filter_chains[0]).unwrap().stat_prefix;
    assert_eq!(prefix("0.0.0.0_443"), "shop");
    assert_eq!(prefix("0.0.0.0_80"), "outbound_0.0.0.0_80;");
}

#[test]
fn servers_are_told_apart_by_the_name_that_clients_ask_for() {
    let servers = [https(443, "a", "a.com, ns/b.com", "one"), https(443, "b", "\"*.c.com\"", "two")].join(", ");
    let set = gateway(&gateway_object("gw", &servers));
    assert_eq!(
        chains(&set, "0.0.0.0_443"),
        [
            "sni=a.com sni=b.com -> ends TLS, routes https.443.a.gw.default",
            "sni=*.c.com -> ends TLS, routes https.443.b.gw.default"
        ]
    );
    assert!(listener(&set, "0.0.0.0_443").default_filter_chain.is_none(), "other names are refused");
}

#[test]
fn a_server_without_mode_passes_tls_through() {
    let yaml = [
        gateway_object(
            "gw",
            "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*.com\"], tls: {credentialName: cert}}",
        ),
        virtual_service(
            "vs",
            "hosts: [a.com, b.com, c.org], gateways: [gw, mesh], tls: [{match: [{port: 443, sniHosts: [a.com]}, {gateways: [mesh], sniHosts: [b.com]}, {sniHosts: [c.org]}, {port: 444, sniHosts: [b.com]}], route: [{destination: {host: one, port: {number: 8443}}}]}]",
        ),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(chains(&set, "0.0.0.0_443"), ["sni=a.com -> 8443||one"]);
    assert!(tables(&set).is_empty());
    assert_eq!(listener_filters(&set, "0.0.0.0_443"), ["tls_inspector"]);
    envoy_accepts("gateways-passthrough", &set);
}

#[test]
fn a_name_that_is_passed_through_twice_stays_with_the_oldest_rule() {
    let rule = |name: &str, sni: &str, to: &str| {
        virtual_service(
            name,
            &format!(
                "hosts: [\"*.com\"], gateways: [gw], tls: [{{match: [{{sniHosts: [{sni}]}}], route: [{{destination: {{host: {to}}}}}]}}]"
            ),
        )
    };
    let yaml = [
        gateway_object(
            "gw",
            "{port: {number: 443, name: tls, protocol: TLS}, hosts: [\"*\"], tls: {mode: PASSTHROUGH}}",
        ),
        rule("a", "a.com, b.com", "one"),
        rule("b", "b.com, c.com", "two"),
        rule("c", "a.com", "three"),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(chains(&set, "0.0.0.0_443"), ["sni=a.com sni=b.com -> 443||one", "sni=c.com -> 443||two"]);
    envoy_accepts("gateways-passthrough-twice", &set);
}

#[test]
fn a_name_that_one_server_ends_is_not_passed_through_by_another() {
    let rule = virtual_service(
        "vs",
        "hosts: [a.com, b.com], gateways: [gw], tls: [{match: [{sniHosts: [a.com, b.com]}], route: [{destination: {host: one}}]}]",
    );
    let passing = "{port: {number: 443, name: tls, protocol: TLS}, hosts: [\"*.com\"], tls: {mode: PASSTHROUGH}}";
    let ending = https(443, "https", "a.com", "cert");
    let ended = "ends TLS, routes https.443.https.gw.default";
    let set = gateway(&[gateway_object("gw", &[&ending, passing].join(", ")), rule.clone()].concat());
    assert_eq!(chains(&set, "0.0.0.0_443"), [format!("sni=a.com -> {ended}"), "sni=b.com -> 443||one".to_owned()]);
    envoy_accepts("gateways-ended-and-passed", &set);
    let set = gateway(&[gateway_object("gw", &[passing, &ending].join(", ")), rule].concat());
    assert_eq!(chains(&set, "0.0.0.0_443"), ["sni=a.com sni=b.com -> 443||one"], "the first server has the name");
}

#[test]
fn bytes_inside_of_tls_go_by_tcp_rules() {
    let yaml = [
        gateway_object(
            "gw",
            "{port: {number: 5671, name: tls, protocol: TLS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: cert}}, {port: {number: 5672, name: mesh, protocol: TLS}, hosts: [a.com], tls: {mode: ISTIO_MUTUAL}}",
        ),
        virtual_service(
            "vs",
            "hosts: [a.com], gateways: [gw], tcp: [{match: [{port: 5671}], route: [{destination: {host: one}}]}, {route: [{destination: {host: two}}]}]",
        ),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(chains(&set, "0.0.0.0_5671"), ["sni=a.com -> ends TLS, 5671||one"]);
    assert_eq!(chains(&set, "0.0.0.0_5672"), ["sni=a.com -> ends TLS, 5672||two"]);
    let alpn = |name: &str| context(&set, name, 0)["common_tls_context"]["alpn_protocols"].clone();
    assert_eq!(alpn("0.0.0.0_5671"), json!(["h2", "http/1.1"]));
    assert_eq!(alpn("0.0.0.0_5672"), json!(["istio-peer-exchange", "h2", "http/1.1"]));
}

#[test]
fn a_port_for_bytes_goes_by_the_first_tcp_rule_for_its_hosts() {
    let rule = |name: &str, fields: &str| virtual_service(name, &format!("gateways: [gw], {fields}"));
    let base = gateway_object("gw", "{port: {number: 5672, name: tcp, protocol: TCP}, hosts: [a.com, ns/b.com]}");
    assert!(gateway(&base).listeners.is_empty(), "without a rule there is nothing to listen for");
    let yaml = [
        base,
        rule("a", "hosts: [other.com], tcp: [{route: [{destination: {host: other}}]}]"),
        rule("b", "hosts: [b.com], tcp: [{route: [{destination: {host: of-ns}}]}]"),
        rule("c", "hosts: [a.com], tcp: [{match: [{port: 1}], route: [{destination: {host: never}}]}, {match: [{gateways: [mesh]}], route: [{destination: {host: mesh}}]}, {match: [{port: 5672, sourceLabels: {app: nobody}}], route: [{destination: {host: one}, weight: 3}, {destination: {host: two}, weight: 1}]}]"),
        rule("d", "hosts: [a.com], tcp: [{route: [{destination: {host: later}}]}]"),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(chains(&set, "0.0.0.0_5672"), ["* -> 5672||one=3 5672||two=1"]);
    assert!(listener_filters(&set, "0.0.0.0_5672").is_empty());
}

#[test]
fn names_of_clusters_are_passed_through_as_they_are() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: default}\nspec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}\n";
    let server = |hosts: &str, name: &str| {
        format!(
            "{{port: {{number: 15443, name: {name}, protocol: TLS}}, hosts: [{hosts}], tls: {{mode: AUTO_PASSTHROUGH}}}}"
        )
    };
    let servers = [server("\"*.local\"", "one"), server("\"*.cluster.local\"", "two")].join(", ");
    let set = gateway(&[gateway_object("gw", &servers), service("a", 80), rule.to_owned()].concat());
    let name = |subset: &str| format!("outbound_.80_.{subset}_.a.default.svc.cluster.local");
    let alpn = "tls alpn=istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2".replace("tls ", "");
    let short = |subset: &str| format!("outbound_.80_.{subset}_.a");
    assert_eq!(
        chains(&set, "0.0.0.0_15443"),
        [format!("sni={} {alpn} -> {}", name(""), short("")), format!("sni={} {alpn} -> {}", name("v1"), short("v1"))]
    );
    let rendered = json::render(cluster(&set, &name("v1"))).unwrap();
    assert_eq!(rendered.get("transport_socket"), None, "the TLS of clients goes through");
    assert_eq!(rendered.get("transport_socket_matches"), None);
    envoy_accepts("gateways-auto-passthrough", &set);
}

// Who gives way.

#[test]
fn plain_servers_of_several_gateways_share_one_table() {
    let server = |host: &str| format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{host}]}}");
    let rule = |name: &str, host: &str, gw: &str| {
        virtual_service(
            name,
            &format!("hosts: [{host}], gateways: [{gw}], http: [{{route: [{{destination: {{host: {name}}}}}]}}]"),
        )
    };
    let yaml = [
        gateway_object("one", &server("a.com")),
        gateway_object("two", &server("b.com")),
        rule("a", "a.com", "one"),
        rule("b", "b.com", "two"),
        // Bound to a Gateway that has no such host.
        rule("c", "a.com", "two"),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(chains(&set, "0.0.0.0_80"), ["* -> routes http.80"]);
    assert_eq!(virtual_hosts(&set, "http.80"), ["a.com:80", "b.com:80"]);
    assert_eq!(routes(virtual_host(&set, "http.80", "a.com:80")), ["/* -> 80||a"]);
}

#[test]
fn the_first_server_of_a_port_decides_what_is_spoken_on_it() {
    let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: [\"*\"]}";
    let tls = https(80, "https", "a.com", "cert");
    let rule =
        virtual_service("vs", "hosts: [a.com], gateways: [one, two], tcp: [{route: [{destination: {host: db}}]}]");
    let of = |first: &str, second: &str| {
        let set = gateway(&[gateway_object("one", first), gateway_object("two", second), rule.clone()].concat());
        chains(&set, "0.0.0.0_80")
    };
    assert_eq!(of(HTTP_80, tcp), ["* -> routes http.80"]);
    assert_eq!(of(HTTP_80, &tls), ["* -> routes http.80"]);
    assert_eq!(of(tcp, HTTP_80), ["* -> 80||db"]);
    assert_eq!(of(tcp, &tls), ["* -> 80||db"]);
    assert_eq!(of(tcp, tcp), ["* -> 80||db"]);
    assert_eq!(of(&tls, HTTP_80), ["sni=a.com -> ends TLS, routes https.80.https.one.default"]);
}

#[test]
fn a_tls_server_that_shares_one_host_with_an_older_one_is_left_out_whole() {
    let yaml = [
        gateway_object("one", &https(443, "https", "a.com, b.com", "cert")),
        gateway_object("two", &https(443, "https", "b.com, c.com", "cert")),
        gateway_object("three", &https(443, "https", "ns/a.com", "cert")),
        gateway_object("four", &https(443, "https", "d.com", "cert")),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(tables(&set), ["https.443.https.four.default", "https.443.https.one.default"]);
    envoy_accepts("gateways-shared-host", &set);
}

#[test]
fn servers_on_other_addresses_do_not_meet() {
    let at = |bind: &str| https(443, "https", "a.com", "cert").replace("hosts:", &format!("bind: {bind}, hosts:"));
    let yaml = [gateway_object("one", &at("10.0.0.1")), gateway_object("two", &at("10.0.0.2"))].concat();
    let set = gateway(&yaml);
    assert_eq!(listeners(&set), ["10.0.0.1_443", "10.0.0.2_443"]);
    assert_eq!(tables(&set), ["https.443.https.one.default.10.0.0.1", "https.443.https.two.default.10.0.0.2"]);
}

#[test]
fn the_oldest_gateway_is_the_one_created_first() {
    let at = |name: &str, time: &str| {
        gateway_object(name, &https(443, "https", "a.com", "cert"))
            .replace("namespace: default}", &format!("namespace: default, creationTimestamp: \"{time}\"}}"))
    };
    let set = gateway(&[at("a", "2026-02-01T00:00:00Z"), at("b", "2026-01-01T00:00:00Z")].concat());
    assert_eq!(tables(&set), ["https.443.https.b.default"]);
}

// Hosts.

#[test]
fn redirection_to_https_keeps_routes_and_makes_hosts_that_have_none() {
    let yaml = [
        gateway_object(
            "gw",
            "{port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: [a.com, ns/b.com, \"*.c.com\"]}, {port: {number: 80, name: plain, protocol: HTTP}, hosts: [d.com]}",
        ),
        virtual_service(
            "vs",
            "hosts: [a.com, x.c.com, d.com], gateways: [gw], http: [{route: [{destination: {host: one}}]}]",
        ),
    ]
    .concat();
    let set = gateway(&yaml);
    let all = i32::from(TlsRequirementType::All);
    let hosts = &table(&set, "http.80").virtual_hosts;
    let found: Vec<_> =
        hosts.iter().map(|host| (host.domains.join(" "), host.require_tls == all, host.routes.len())).collect();
    assert_eq!(
        found,
        [
            ("*.c.com".to_owned(), true, 0),
            ("b.com".to_owned(), true, 0),
            ("d.com".to_owned(), false, 1),
            // Named by the longer one.
            ("x.c.com a.com".to_owned(), true, 1),
        ]
    );
    envoy_accepts("gateways-redirect", &set);
}

#[test]
fn a_port_of_the_gateway_without_virtual_services_answers_404_by_its_own_number() {
    let yaml = [
        gateway_service("a", "{name: http, port: 80, targetPort: 8080}"),
        gateway_object("gw", &[HTTP_80, &https(443, "https", "a.com", "cert")].join(", ")),
    ]
    .concat();
    let set = compile(&world(&yaml), &workload_scope());
    assert_eq!(virtual_hosts(&set, "http.8080"), ["blackhole:80"]);
    assert_eq!(virtual_hosts(&set, "https.443.https.gw.default"), ["blackhole:443"]);
}

#[test]
fn hosts_of_a_namespace_are_for_its_virtual_services_and_dots_for_the_gateways_own() {
    let rule = |name: &str, namespace: &str| {
        virtual_service(
            name,
            &format!(
                "hosts: [\"*.com\"], gateways: [default/gw], http: [{{route: [{{destination: {{host: {name}}}}}]}}]"
            ),
        )
        .replace("namespace: default", &format!("namespace: {namespace}"))
    };
    let yaml = [
        gateway_object(
            "gw",
            "{port: {number: 80, name: http, protocol: HTTP}, hosts: [team/t.com, ./own.com, \"*/any.com\"]}",
        ),
        rule("own", "default"),
        rule("team", "team"),
    ]
    .concat();
    let set = gateway(&yaml);
    let leads = |host: &str| {
        let host = virtual_host(&set, "http.80", &format!("{host}:80"));
        host.routes.iter().map(|route| describe(route).replace(".team.svc.cluster.local", "")).collect::<Vec<_>>()
    };
    assert_eq!(leads("t.com"), ["/* -> 80||team"]);
    assert_eq!(leads("own.com"), ["/* -> 80||own"]);
    assert_eq!(leads("any.com"), ["/* -> 80||own", "/* -> 80||team"]);
}

#[test]
fn every_namespace_and_every_host_leave_nothing_to_the_others() {
    let yaml = [
        gateway_object("gw", "{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com, \"*/*\"]}"),
        virtual_service("vs", "hosts: [\"*\"], gateways: [gw], http: [{route: [{destination: {host: one}}]}]"),
    ]
    .concat();
    assert_eq!(virtual_hosts(&gateway(&yaml), "http.80"), ["*:80"]);
}

#[test]
fn gateways_know_services_of_all_namespaces_and_no_passthrough() {
    let other = service("b", 80).replace("namespace: default", "namespace: other");
    let set = gateway(&[gateway_object("gw", HTTP_80), service("a", 8080), other].concat());
    for name in
        ["outbound|8080||a.default.svc.cluster.local", "outbound|80||b.other.svc.cluster.local", "BlackHoleCluster"]
    {
        assert!(set.clusters.contains_key(name), "{name}");
    }
    assert!(!set.clusters.contains_key("PassthroughCluster"));
}

#[test]
fn what_stands_in_front_of_a_gateway_is_asked_for_first() {
    let config = lateen_config::SourceFile::new(
        "mesh.yaml",
        "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}}",
    );
    let mesh = Mesh::from_config(&lateen_config::parse_mesh(&config).0.unwrap());
    let yaml = gateway_object("gw", &[HTTP_80, &https(443, "https", "a.com", "cert")].join(", "));
    let set = compile(&world_with(&yaml, mesh), &Scope::gateway("istio-system"));
    assert_eq!(listener_filters(&set, "0.0.0.0_443"), ["proxy_protocol", "tls_inspector"]);
    assert_eq!(listener_filters(&set, "0.0.0.0_80"), ["proxy_protocol"]);
    let manager = connection_manager(&listener(&set, "0.0.0.0_80").filter_chains[0]).unwrap();
    assert_eq!((manager.use_remote_address, manager.xff_num_trusted_hops), (Some(true), 2));
}
