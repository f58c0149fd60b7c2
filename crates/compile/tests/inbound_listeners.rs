//! How does a sidecar take what is sent to its workload? The chains of `virtualInbound` by protocol and policy, what is
//! looked at before one is chosen, and the listeners of a Sidecar object in place of those of services.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Capability, Mesh, Scope, compile};
use lateen_config::SourceFile;
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::listener::v3::FilterChain;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier,
};
use lateen_xds::json;
use mesh::listeners::*;
use mesh::*;
use serde_json::{Value, json};

/// A Service in front of the workload `app: web` with one port.
fn web(port: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec: {{selector: {{app: web}}, ports: [{port}]}}\n"
    )
}

fn policy(fields: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: web, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

fn sidecar_object(ingress: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: web, namespace: default}}\nspec: {{workloadSelector: {{labels: {{app: web}}}}, ingress: [{ingress}]}}\n"
    )
}

fn inbound(yaml: &str) -> XdsSet {
    compile(&world(yaml), &redirected_scope(&[("app", "web")]))
}

/// The chains for one port of the workload, without it; those for ports that nobody asked for have port 0.
fn chains_of(set: &XdsSet, port: u32) -> Vec<String> {
    let of_port = |line: &String| match line.strip_prefix(&format!(":{port} ")) {
        Some(rest) => Some(rest.to_owned()),
        None if port == 0 && !line.starts_with(':') => Some(line.clone()),
        None => None,
    };
    chains(set, "virtualInbound").iter().filter_map(of_port).collect()
}

fn messages(set: &XdsSet, port: u32) -> Vec<&FilterChain> {
    let is_of = |chain: &&FilterChain| {
        let matched = chain.filter_chain_match.as_ref();
        matched.is_some_and(|matched| matched.destination_port.unwrap_or(0) == port)
    };
    listener(set, "virtualInbound").filter_chains.iter().filter(is_of).collect()
}

fn alpn(chain: &FilterChain) -> Value {
    let socket = json::render(chain.transport_socket.as_ref().unwrap()).unwrap();
    socket["typed_config"]["common_tls_context"]["alpn_protocols"].clone()
}

const MESH: &str = "tls alpn=istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2";
const MESH_HTTP: &str = "tls alpn=istio-http/1.0,istio-http/1.1,istio-h2";
const MESH_TCP: &str = "tls alpn=istio-peer-exchange,istio";
const PLAIN_HTTP: &str = "raw alpn=http/1.1,h2c";

#[test]
fn each_protocol_has_its_chains_under_each_mode() {
    let http = "own routes inbound|8080||";
    let tcp = "inbound|8080||";
    let rows: [(&str, &str, Vec<String>); 9] = [
        ("PERMISSIVE", "http", vec![format!("{MESH} -> ends TLS, {http}"), format!("raw -> {http}")]),
        (
            "PERMISSIVE",
            "tcp",
            vec![format!("{MESH} -> ends TLS, {tcp}"), format!("tls -> {tcp}"), format!("raw -> {tcp}")],
        ),
        (
            "PERMISSIVE",
            "any",
            vec![
                format!("{MESH_HTTP} -> ends TLS, {http}"),
                format!("{PLAIN_HTTP} -> {http}"),
                format!("{MESH_TCP} -> ends TLS, {tcp}"),
                format!("raw -> {tcp}"),
                format!("tls -> {tcp}"),
            ],
        ),
        ("STRICT", "http", vec![format!("tls -> ends TLS, {http}")]),
        ("STRICT", "tcp", vec![format!("tls -> ends TLS, {tcp}")]),
        ("STRICT", "any", vec![format!("{MESH_HTTP} -> ends TLS, {http}"), format!("tls -> ends TLS, {tcp}")]),
        ("DISABLE", "http", vec![format!("raw -> {http}")]),
        ("DISABLE", "tcp", vec![format!("raw -> {tcp}")]),
        ("DISABLE", "any", vec![format!("{PLAIN_HTTP} -> {http}"), format!("raw -> {tcp}")]),
    ];
    for (mode, protocol, expected) in rows {
        let yaml = [
            web(&format!("{{name: {protocol}, port: 80, targetPort: 8080}}")),
            policy(&format!("mtls: {{mode: {mode}}}")),
        ]
        .concat();
        let set = inbound(&yaml);
        assert_eq!(chains_of(&set, 8080), expected, "{protocol} under {mode}");
        envoy_accepts(&format!("inbound-{mode}-{protocol}"), &set);
    }
}

#[test]
fn declared_tls_and_databases_are_bytes() {
    for name in ["https", "tls", "redis"] {
        let set = inbound(&web(&format!("{{name: {name}, port: 8080}}")));
        assert_eq!(chains_of(&set, 8080).len(), 3, "{name}");
        assert_eq!(chains_of(&set, 8080)[1], "tls -> inbound|8080||", "{name}: TLS of the application is left alone");
    }
    let set = inbound(&web("{name: mongo, port: 8080}"));
    assert_eq!(chains_of(&set, 8080)[2], "raw -> mongo, inbound|8080||");
}

#[test]
fn ports_that_nobody_asked_for_are_passed_on_as_they_are_detected() {
    let set = inbound("");
    let (http, tcp) = ("own routes InboundPassthroughCluster", "InboundPassthroughCluster");
    assert_eq!(
        chains_of(&set, 0),
        [
            format!("{MESH_HTTP} -> ends TLS, {http}"),
            format!("{PLAIN_HTTP} -> {http}"),
            format!("{MESH_TCP} -> ends TLS, {tcp}"),
            format!("raw -> {tcp}"),
            format!("tls -> {tcp}"),
        ]
    );
    assert_eq!(
        chains(&set, "virtualInbound")[0],
        ":15006 -> BlackHoleCluster",
        "the listener's own port leads nowhere"
    );
    let message = listener(&set, "virtualInbound");
    let names: Vec<_> = message.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "virtualInbound-blackhole",
            "virtualInbound-catchall-http",
            "virtualInbound-catchall-http",
            "virtualInbound",
            "virtualInbound",
            "virtualInbound"
        ]
    );
    let manager = connection_manager(messages(&set, 0)[0]).unwrap();
    assert_eq!(manager.stat_prefix, "InboundPassthroughCluster;");
}

#[test]
fn a_policy_for_a_port_that_nobody_asked_for_makes_chains_for_it() {
    let yaml = [
        web("{name: http, port: 8080}"),
        policy("selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, 9999: {mode: DISABLE}}"),
    ]
    .concat();
    let set = inbound(&yaml);
    assert_eq!(chains_of(&set, 8080), ["raw -> own routes inbound|8080||"]);
    assert_eq!(
        chains_of(&set, 9999),
        [
            format!("{PLAIN_HTTP} -> own routes InboundPassthroughCluster"),
            "raw -> InboundPassthroughCluster".to_owned()
        ]
    );
    assert_eq!(chains_of(&set, 0).len(), 2, "all other ports are strict");
    envoy_accepts("inbound-port-policies", &set);
}

#[test]
fn policies_of_workloads_go_before_those_of_namespaces_and_the_mesh() {
    let of = |namespace: &str, name: &str, fields: &str| {
        policy(fields).replace("name: web, namespace: default", &format!("name: {name}, namespace: {namespace}"))
    };
    let base = [web("{name: http, port: 8080}"), of("istio-system", "mesh", "mtls: {mode: STRICT}")].concat();
    assert_eq!(chains_of(&inbound(&base), 8080), ["tls -> ends TLS, own routes inbound|8080||"]);
    let base = [base, of("default", "all", "mtls: {mode: DISABLE}")].concat();
    assert_eq!(chains_of(&inbound(&base), 8080), ["raw -> own routes inbound|8080||"]);
    let unset =
        [base.clone(), of("default", "own", "selector: {matchLabels: {app: web}}, mtls: {mode: UNSET}")].concat();
    assert_eq!(chains_of(&inbound(&unset), 8080), ["raw -> own routes inbound|8080||"], "unset is inherited");
    let base = [base, of("default", "own", "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}")].concat();
    assert_eq!(chains_of(&inbound(&base), 8080), ["tls -> ends TLS, own routes inbound|8080||"]);
}

#[test]
fn the_end_of_mutual_tls_speaks_what_its_chain_speaks() {
    let set = inbound(&web("{name: any, port: 8080}"));
    let chains = messages(&set, 8080);
    assert_eq!(alpn(chains[0]), json!(["h2", "http/1.1"]));
    assert_eq!(alpn(chains[2]), json!(["istio-peer-exchange", "h2", "http/1.1"]));
    let socket = json::render(chains[0].transport_socket.as_ref().unwrap()).unwrap();
    let context = &socket["typed_config"];
    assert_eq!(context["require_client_certificate"], true);
    let common = &context["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
    let validation = &common["combined_validation_context"];
    assert_eq!(validation["validation_context_sds_secret_config"]["name"], "ROOTCA");
    assert_eq!(
        validation["default_validation_context"]["match_subject_alt_names"],
        json!([{"prefix": "spiffe://cluster.local/"}])
    );
    assert_eq!(common["tls_params"]["tls_maximum_protocol_version"], "TLSv1_3");
}

#[test]
fn what_is_looked_at_first_spares_ports_whose_chains_do_not_depend_on_it() {
    let filters = |yaml: &str| -> Value {
        let set = inbound(yaml);
        let filters = &listener(&set, "virtualInbound").listener_filters;
        let rendered = filters.iter().map(|filter| {
            let filter = json::render(filter).unwrap();
            (filter["name"].as_str().unwrap().replace("envoy.filters.listener.", ""), filter["filter_disabled"].clone())
        });
        Value::Object(rendered.collect())
    };
    let range = |port: u32| json!({"destination_port_range": {"start": port, "end": port + 1}});
    // Under the default policy TLS is looked for everywhere but on the listener's own port, HTTP where it is not declared.
    assert_eq!(
        filters(&web("{name: http, port: 8080}")),
        json!({
            "original_dst": null,
            "tls_inspector": range(15006),
            "http_inspector": {"or_match": {"rules": [range(8080), range(15006)]}},
        })
    );
    // Nobody speaks TLS: it is looked for nowhere.
    let plain = [web("{name: tcp, port: 8080}"), policy("mtls: {mode: DISABLE}")].concat();
    assert_eq!(
        filters(&plain),
        json!({"original_dst": null, "http_inspector": {"or_match": {"rules": [range(8080), range(15006)]}}})
    );
    // All others speak TLS alone: plain HTTP is looked for on the one port.
    let one = [
        web("{name: any, port: 8080}"),
        policy("selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}"),
    ]
    .concat();
    assert_eq!(
        filters(&one),
        json!({
            "original_dst": null,
            "tls_inspector": {"or_match": {"rules": [range(8080), range(15006)]}},
            "http_inspector": {"not_match": range(8080)},
        })
    );
}

#[test]
fn requests_are_routed_to_the_workload_by_routes_of_the_chain_itself() {
    let set = inbound(&web("{name: http, port: 80, targetPort: 8080}"));
    let chain = messages(&set, 8080)[0];
    assert_eq!(chain.name, "0.0.0.0_8080");
    let manager = connection_manager(chain).unwrap();
    assert_eq!(manager.stat_prefix, "inbound_0.0.0.0_8080;");
    assert_eq!(manager.server_name, "istio-envoy");
    assert_eq!(manager.use_remote_address, Some(false));
    assert_eq!(manager.forward_client_cert_details, i32::from(ForwardClientCertDetails::AppendForward));
    let details = manager.set_current_client_cert_details.unwrap();
    assert_eq!((details.subject, details.uri, details.dns, details.cert), (Some(true), true, true, false));
    assert_eq!(manager.http2_protocol_options, None);
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!("routes of its own") };
    assert_eq!(
        json::render(&routes).unwrap(),
        json!({
            "name": "inbound|8080||",
            "validate_clusters": false,
            "virtual_hosts": [{
                "name": "inbound|http|80",
                "domains": ["*"],
                "routes": [{
                    "name": "default",
                    "match": {"prefix": "/"},
                    "decorator": {"operation": "web.default.svc.cluster.local:80/*"},
                    "route": {
                        "cluster": "inbound|8080||",
                        "timeout": "0s",
                        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
                        "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
                    },
                }],
            }],
        })
    );
}

#[test]
fn a_grpc_client_retries_by_itself() {
    for (name, retries, http2) in
        [("grpc", false, true), ("grpc-web", false, true), ("http2", true, true), ("http", true, false)]
    {
        let set = inbound(&web(&format!("{{name: {name}, port: 8080}}")));
        let manager = connection_manager(messages(&set, 8080)[0]).unwrap();
        assert_eq!(manager.http2_protocol_options.is_some(), http2, "{name}");
        let has_filter = manager.http_filters.iter().any(|filter| filter.name == "envoy.filters.http.grpc_web");
        assert_eq!(has_filter, name == "grpc-web", "{name}");
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!("routes of its own") };
        let route = forwarding(&routes.virtual_hosts[0].routes[0]);
        assert_eq!(route.retry_policy.is_some(), retries, "{name}");
    }
}

#[test]
fn the_mesh_may_say_which_requests_to_workloads_are_sent_again() {
    let retries = |policy: &str| {
        let file = SourceFile::new("mesh.yaml", format!("defaultInboundHttpRetryPolicy: {{{policy}}}"));
        let mesh = Mesh::from_config(&lateen_config::parse_mesh(&file).0.unwrap());
        let set = compile(&world_with(&web("{name: http, port: 8080}"), mesh), &redirected_scope(&[("app", "web")]));
        let manager = connection_manager(messages(&set, 8080)[0]).unwrap();
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!("routes of its own") };
        let route = &routes.virtual_hosts[0].routes[0];
        forwarding(route).retry_policy.as_ref().map(|policy| json::render(policy).unwrap())
    };
    assert_eq!(retries("attempts: 0"), None);
    assert_eq!(retries("attempts: 3"), Some(json!({"retry_on": "reset-before-request", "num_retries": 3})));
    assert_eq!(
        retries("attempts: 1, retryOn: 'connect-failure,503', backoff: 50ms, perTryTimeout: 2s"),
        Some(json!({
            "retry_on": "connect-failure,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 1,
            "retry_back_off": {"base_interval": "0.050s"},
        }))
    );
}

#[test]
fn ports_of_the_proxy_itself_are_not_served() {
    let ports = [15000, 15001, 15006, 15020, 15021, 15090];
    let ports: Vec<String> = ports.iter().map(|port| format!("{{name: http-{port}, port: {port}}}")).collect();
    let set = inbound(&web(&ports.join(", ")));
    assert!(!set.clusters.keys().any(|name| name.starts_with("inbound|")));
}

#[test]
fn of_services_on_one_port_of_the_workload_the_oldest_decides() {
    let other = web("{name: tcp, port: 81, targetPort: 8080}").replace("name: web,", "name: zoo,");
    let set = inbound(&[web("{name: http, port: 80, targetPort: 8080}"), other].concat());
    assert_eq!(chains_of(&set, 8080).len(), 2, "HTTP, as the first says");
}

#[test]
fn extensions_of_istios_build_stand_only_where_it_is_served() {
    let world = world(&web("{name: any, port: 8080}"));
    let filters = |capability| {
        let scope = Scope { capability, ..redirected_scope(&[("app", "web")]) };
        let set = compile(&world, &scope);
        let mut names: Vec<String> = Vec::new();
        for chain in messages(&set, 8080) {
            names.extend(chain.filters.iter().map(|filter| filter.name.clone()));
            let http = connection_manager(chain).into_iter().flat_map(|manager| manager.http_filters);
            names.extend(http.map(|filter| filter.name));
        }
        names
    };
    let is_istios = |name: &String| name.starts_with("istio.");
    for capability in [Capability::Native, Capability::UpstreamEnvoy] {
        assert!(!filters(capability).iter().any(is_istios), "{capability:?}");
    }
    let istio = filters(Capability::IstioProxy);
    assert_eq!(istio[0], "istio.metadata_exchange", "before everything else");
    assert!(!istio.contains(&"istio.alpn".to_owned()), "protocols are chosen by the client's side");
    assert!(istio.contains(&"istio.stats".to_owned()));
}

// Listeners of a Sidecar object.

#[test]
fn listeners_of_a_sidecar_object_take_the_place_of_service_ports() {
    let yaml = [
        web("{name: http, port: 80, targetPort: 8080}, {name: other, port: 81, targetPort: 8081}"),
        sidecar_object(
            "{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: \"127.0.0.1:3000\"}, {port: {number: 9090, name: tcp, protocol: TCP}, bind: 10.0.0.9, defaultEndpoint: \"unix:///run/web.sock\"}",
        ),
    ]
    .concat();
    let set = inbound(&yaml);
    assert!(chains_of(&set, 8081).is_empty(), "the service's port is not served");
    assert_eq!(chains_of(&set, 8080)[1], "raw -> own routes inbound|8080||");
    assert_eq!(messages(&set, 9090)[0].name, "10.0.0.9_9090", "chains are named by the address");
    assert_eq!(chains_of(&set, 9090)[2], "raw -> inbound|9090||");
    let endpoint = |name: &str| {
        let rendered = json::render(cluster(&set, name)).unwrap();
        assert_eq!(rendered["type"], "STATIC");
        rendered["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"].clone()
    };
    assert_eq!(endpoint("inbound|8080||"), json!({"socket_address": {"address": "127.0.0.1", "port_value": 3000}}));
    assert_eq!(endpoint("inbound|9090||"), json!({"pipe": {"path": "/run/web.sock"}}));
    envoy_accepts("inbound-sidecar", &set);
}

#[test]
fn a_default_endpoint_of_every_address_keeps_the_destination() {
    let set = inbound(&sidecar_object(
        "{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: \"0.0.0.0:3000\"}, {port: {number: 8081, name: http, protocol: HTTP}}",
    ));
    let rendered = json::render(cluster(&set, "inbound|8080||")).unwrap();
    assert_eq!(rendered["type"], "ORIGINAL_DST");
    assert_eq!(rendered["original_dst_lb_config"]["upstream_port_override"], 3000);
    let rendered = json::render(cluster(&set, "inbound|8081||")).unwrap();
    assert_eq!(rendered["type"], "ORIGINAL_DST");
    assert_eq!(rendered.get("original_dst_lb_config"), None);
}

#[test]
fn a_listener_without_capture_is_bound_and_has_its_port_alone() {
    let listener_of = |port: &str| {
        sidecar_object(&format!("{{port: {port}, captureMode: NONE, defaultEndpoint: \"127.0.0.1:3000\"}}"))
    };
    let set = inbound(&listener_of("{number: 8080, name: http, protocol: HTTP}"));
    assert!(chains_of(&set, 8080).is_empty(), "nothing is redirected to it");
    assert_eq!(
        chains(&set, "10.0.0.1_8080"),
        [format!("{MESH} -> ends TLS, own routes inbound|8080||"), "raw -> own routes inbound|8080||".to_owned()]
    );
    let message = listener(&set, "10.0.0.1_8080");
    assert_eq!(message.bind_to_port, None);
    assert_eq!(listener_filters(&set, "10.0.0.1_8080"), ["tls_inspector"]);
    envoy_accepts("inbound-bound", &set);
    let world = world(&listener_of("{number: 80, name: http, protocol: HTTP}"));
    let scope = Scope { is_unprivileged: true, ..redirected_scope(&[("app", "web")]) };
    let set = compile(&world, &scope);
    assert_eq!(listeners(&set), ["virtualInbound", "virtualOutbound"], "low ports cannot be bound");
}

#[test]
fn a_bound_listener_without_endpoint_leads_to_loopback() {
    let set =
        inbound(&sidecar_object("{port: {number: 8080, name: tcp, protocol: TCP}, bind: 10.0.0.1, captureMode: NONE}"));
    let rendered = json::render(cluster(&set, "inbound|8080||")).unwrap();
    assert_eq!(rendered["type"], "STATIC", "there is no destination that clients wanted to reach");
}

#[test]
fn a_listener_ends_tls_of_its_own_where_the_mesh_has_none() {
    let listener = sidecar_object(
        "{port: {number: 8443, name: https, protocol: HTTPS}, defaultEndpoint: \"127.0.0.1:8080\", tls: {mode: SIMPLE, serverCertificate: /etc/cert.pem, privateKey: /etc/key.pem}}",
    );
    let strict = inbound(&listener);
    assert!(!chains_of(&strict, 8443).iter().any(|chain| chain == "tls -> ends TLS, inbound|8443||"));
    let disabled =
        policy("selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8443: {mode: DISABLE}}");
    let set = inbound(&[listener, disabled].concat());
    assert_eq!(chains_of(&set, 8443).len(), 1, "nothing but TLS is taken");
    let chain = messages(&set, 8443)[0];
    assert!(chain.transport_socket.is_some());
    let socket = json::render(chain.transport_socket.as_ref().unwrap()).unwrap();
    assert!(!socket.to_string().contains("ROOTCA"), "the certificate is its own: {socket:#}");
    assert_eq!(chain.transport_socket_connect_timeout.unwrap().seconds, 15);
}

#[test]
fn gateways_and_sidecars_without_redirection_take_nothing_for_a_workload() {
    let world = world(&web("{name: http, port: 8080}"));
    for scope in [Scope::gateway("default"), sidecar_scope("default", &[("app", "web")])] {
        let set = compile(&world, &scope);
        assert!(!set.listeners.contains_key("virtualInbound"));
        assert!(!set.clusters.keys().any(|name| name.starts_with("inbound|")));
    }
}
