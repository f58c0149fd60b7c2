//! Does an explanation follow Envoy's rules, resource by resource? The resources are written by hand, as bootstraps.

#![allow(clippy::unwrap_used)]

use lateen_compile::explain::{Call, CallProtocol, CallTls, Direction, Explanation, explain};
use lateen_compile::{Interception, Mesh, Scope, World};
use lateen_xds::{XdsSet, bootstrap};
use serde_json::{Value, json};

fn set(yaml: &str) -> XdsSet {
    bootstrap::parse(yaml, None).unwrap().set
}

/// A sidecar to which connections are redirected.
fn sidecar() -> Scope {
    Scope { interception: Interception::Redirect, ..Scope::sidecar("default", Default::default()) }
}

fn gateway() -> Scope {
    Scope::gateway("istio-system")
}

fn ask(set: &XdsSet, scope: &Scope, call: &Call) -> Explanation {
    explain(set, &World::build(Vec::new(), Mesh::default()), scope, call)
}

/// Chain and cluster of a call, or why there is none.
fn outcome(explanation: &Explanation) -> String {
    if let Some(refusal) = &explanation.error {
        return refusal.kind.as_str().to_owned();
    }
    let clusters: Vec<&str> = explanation.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    format!("{} -> {}", explanation.filter_chain.as_deref().unwrap_or_default(), clusters.join(" "))
}

fn reasons(explanation: &Explanation) -> Vec<&str> {
    explanation.tried.iter().map(|tried| tried.reason.as_str()).collect()
}

const TCP: &str = "{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: CLUSTER}}";

const HTTP: &str = "{name: http, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, route_config: {name: r, virtual_hosts: [{name: all, domains: ['*'], routes: [{name: default, match: {prefix: /}, route: {cluster: CLUSTER}}]}]}}}";

const MUTUAL: &str = "transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, common_tls_context: {tls_certificate_sds_secret_configs: [{name: default}]}}}";

const SIMPLE: &str = "transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificate_sds_secret_configs: [{name: web}]}}}";

/// A listener with filter chains, each `name | match | transport socket | kind of filter`.
fn listener(name: &str, address: (&str, u16), rest: &str, chains: &[(&str, &str, &str, &str)]) -> String {
    let mut text = format!(
        "  - name: {name}\n    address: {{socket_address: {{address: '{}', port_value: {}}}}}\n{rest}    filter_chains:\n",
        address.0, address.1
    );
    for (chain, criteria, socket, filter) in chains {
        let filter = filter.replace("CLUSTER", chain);
        let comma = if socket.is_empty() { "" } else { ", " };
        text.push_str(&format!(
            "    - {{name: '{chain}', filter_chain_match: {{{criteria}}}, filters: [{filter}]{comma}{socket}}}\n"
        ));
    }
    text
}

fn inspectors(tls_disabled: &str, http_disabled: &str) -> String {
    let filter = |name: &str, message: &str, disabled: &str| {
        let disabled = if disabled.is_empty() { String::new() } else { format!(", filter_disabled: {{{disabled}}}") };
        format!(
            "    - {{name: envoy.filters.listener.{name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}}}{disabled}}}\n"
        )
    };
    format!(
        "    listener_filters:\n{}{}",
        filter("tls_inspector", "TlsInspector", tls_disabled),
        filter("http_inspector", "HttpInspector", http_disabled)
    )
}

fn statics(listeners: &[String]) -> XdsSet {
    set(&format!("static_resources:\n  listeners:\n{}", listeners.concat()))
}

fn inbound(port: u16, protocol: CallProtocol, tls: CallTls) -> Call {
    let mutual = tls == CallTls::Mutual;
    Call {
        direction: Direction::Inbound,
        port,
        protocol,
        tls,
        alpn: if mutual { Call::mesh_alpn(protocol) } else { Vec::new() },
        client_certificate: mutual.then(|| "default".to_owned()),
        ..Call::default()
    }
}

/// Ports: 80 is declared HTTP, 81 is detected, both permissive; 70 is TCP and strict; 9000 is HTTP without mutual TLS.
/// Everything else passes through, permissive.
fn virtual_inbound() -> XdsSet {
    const ISTIO: &str = "transport_protocol: tls, application_protocols: [istio, istio-peer-exchange, istio-http/1.0, istio-http/1.1, istio-h2]";
    const MTLS_HTTP: &str =
        "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1, istio-h2]";
    const MTLS_TCP: &str = "transport_protocol: tls, application_protocols: [istio-peer-exchange, istio]";
    const PLAIN_HTTP: &str = "transport_protocol: raw_buffer, application_protocols: [http/1.1, h2c]";
    let on = |port: u16, criteria: &str| format!("destination_port: {port}, {criteria}");
    let chains = [
        ("blackhole", "destination_port: 15006".to_owned(), "", TCP),
        ("pass-mtls-http", MTLS_HTTP.to_owned(), MUTUAL, HTTP),
        ("pass-http", PLAIN_HTTP.to_owned(), "", HTTP),
        ("pass-mtls-tcp", MTLS_TCP.to_owned(), MUTUAL, TCP),
        ("pass-tcp", "transport_protocol: raw_buffer".to_owned(), "", TCP),
        ("pass-tls", "transport_protocol: tls".to_owned(), "", TCP),
        ("70-mtls", on(70, "transport_protocol: tls"), MUTUAL, TCP),
        ("80-mtls", on(80, ISTIO), MUTUAL, HTTP),
        ("80-plain", on(80, "transport_protocol: raw_buffer"), "", HTTP),
        ("81-mtls-http", on(81, MTLS_HTTP), MUTUAL, HTTP),
        ("81-http", on(81, PLAIN_HTTP), "", HTTP),
        ("81-mtls-tcp", on(81, MTLS_TCP), MUTUAL, TCP),
        ("81-tcp", on(81, "transport_protocol: raw_buffer"), "", TCP),
        ("81-tls", on(81, "transport_protocol: tls"), "", TCP),
        ("9000-plain", on(9000, "transport_protocol: raw_buffer"), "", HTTP),
    ];
    let chains: Vec<_> =
        chains.iter().map(|(name, criteria, socket, filter)| (*name, criteria.as_str(), *socket, *filter)).collect();
    let range = |port: u16| format!("destination_port_range: {{start: {port}, end: {}}}", port + 1);
    let filters = inspectors(
        &range(9000),
        &format!("or_match: {{rules: [{{{}}}, {{{}}}, {{{}}}]}}", range(70), range(80), range(9000)),
    );
    statics(&[listener("virtualInbound", ("0.0.0.0", 15006), &filters, &chains)])
}

#[test]
fn inbound_connections_find_the_chain_of_their_port_protocol_and_handshake() {
    use CallProtocol::{Http1, Http2, Tcp};
    use CallTls::{Mutual, Plaintext, Tls};
    let set = virtual_inbound();
    for (port, protocol, tls, expected) in [
        (15006, Tcp, Plaintext, "blackhole -> blackhole"),
        (70, Tcp, Mutual, "70-mtls -> 70-mtls"),
        (70, Tcp, Plaintext, "no-filter-chain"),
        (70, Http1, Tls, "mtls-error"),
        (80, Http1, Plaintext, "80-plain -> 80-plain"),
        (80, Http1, Mutual, "80-mtls -> 80-mtls"),
        (80, Http2, Mutual, "80-mtls -> 80-mtls"),
        // The chains without a port would take it, but there is no way back to them.
        (80, Http1, Tls, "no-filter-chain"),
        (80, Tcp, Plaintext, "protocol-error"),
        (81, Http1, Plaintext, "81-http -> 81-http"),
        (81, Http2, Plaintext, "81-http -> 81-http"),
        (81, Tcp, Plaintext, "81-tcp -> 81-tcp"),
        (81, Http1, Tls, "81-tls -> 81-tls"),
        (81, Tcp, Mutual, "81-mtls-tcp -> 81-mtls-tcp"),
        (81, Http1, Mutual, "81-mtls-http -> 81-mtls-http"),
        // No inspector looks at this port, so TLS is taken for plaintext.
        (9000, Http1, Mutual, "protocol-error"),
        (9000, Http1, Plaintext, "9000-plain -> 9000-plain"),
        (82, Http1, Plaintext, "pass-http -> pass-http"),
        (82, Tcp, Plaintext, "pass-tcp -> pass-tcp"),
        (82, Tcp, Tls, "pass-tls -> pass-tls"),
    ] {
        let explanation = ask(&set, &sidecar(), &inbound(port, protocol, tls));
        assert_eq!(outcome(&explanation), expected, "{protocol:?} {tls:?} to {port}: {:?}", reasons(&explanation));
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let stranger = Call { client_certificate: Some("other".into()), ..inbound(70, CallProtocol::Tcp, CallTls::Mutual) };
    assert_eq!(outcome(&ask(&virtual_inbound(), &sidecar(), &stranger)), "mtls-error");
}

#[test]
fn predicates_switch_inspectors_off_for_ports() {
    let range = |start: u16, end: u16| format!("destination_port_range: {{start: {start}, end: {end}}}");
    let decide = |predicate: &str, port: u16| {
        let filters = inspectors("", predicate);
        let chains = [("http", "application_protocols: [http/1.1]", "", TCP), ("other", "", "", TCP)];
        let set = statics(&[listener("virtualInbound", ("0.0.0.0", 15006), &filters, &chains)]);
        outcome(&ask(&set, &sidecar(), &inbound(port, CallProtocol::Http1, CallTls::Plaintext)))
    };
    assert_eq!(decide("", 80), "http -> http");
    assert_eq!(decide("any_match: true", 80), "other -> other");
    assert_eq!(decide(&range(80, 81), 80), "other -> other");
    assert_eq!(decide(&range(80, 81), 81), "http -> http");
    assert_eq!(decide(&format!("not_match: {{{}}}", range(80, 81)), 80), "http -> http");
    assert_eq!(decide(&format!("not_match: {{{}}}", range(80, 81)), 81), "other -> other");
    let both = format!("and_match: {{rules: [{{{}}}, {{{}}}]}}", range(1, 100), range(50, 200));
    assert_eq!(decide(&both, 80), "other -> other");
    assert_eq!(decide(&both, 20), "http -> http");
}

#[test]
fn redirected_connections_go_to_the_listener_of_their_destination() {
    let bind = "    bind_to_port: false\n";
    let all = [("x", "", "", TCP)];
    let named = |name: &'static str| [(name, "", "", TCP)];
    let set = statics(&[
        listener("virtualOutbound", ("0.0.0.0", 15001), "    use_original_dst: true\n", &named("virtual")),
        listener("10.0.0.1_80", ("10.0.0.1", 80), bind, &named("exact")),
        listener("0.0.0.0_80", ("0.0.0.0", 80), bind, &named("any")),
        listener("10.0.0.2_81", ("10.0.0.2", 81), bind, &all),
    ]);
    let to = |address: Option<&str>, port| {
        let call = Call {
            address: address.map(|address| address.parse().unwrap()),
            port,
            protocol: CallProtocol::Tcp,
            ..Call::default()
        };
        ask(&set, &sidecar(), &call).listener.unwrap_or_default()
    };
    assert_eq!(to(Some("10.0.0.1"), 80), "10.0.0.1_80");
    assert_eq!(to(Some("10.0.0.9"), 80), "0.0.0.0_80");
    assert_eq!(to(Some("10.0.0.9"), 81), "virtualOutbound");
    assert_eq!(to(Some("1234::1"), 80), "virtualOutbound", "0.0.0.0 is every address of IPv4");
    assert_eq!(to(None, 80), "0.0.0.0_80");
    assert_eq!(to(None, 81), "virtualOutbound");
    assert_eq!(to(None, 15001), "virtualOutbound");
}

#[test]
fn the_longest_range_of_addresses_is_chosen_before_the_server_name_and_for_good() {
    let chains = [
        ("wide", "prefix_ranges: [{address_prefix: '1234::', prefix_len: 16}], server_names: [a.com]", "", TCP),
        ("narrow", "prefix_ranges: [{address_prefix: '1234::1', prefix_len: 128}], server_names: [b.com]", "", TCP),
    ];
    let fallback = format!(
        "    default_filter_chain: {{name: default, filters: [{}]}}\n{}",
        TCP.replace("CLUSTER", "default"),
        inspectors("", "")
    );
    let set = statics(&[listener("l", ("::", 9999), &fallback, &chains)]);
    let to = |address: &str, sni: &str| {
        let call = Call {
            address: Some(address.parse().unwrap()),
            port: 9999,
            protocol: CallProtocol::Tcp,
            tls: CallTls::Tls,
            sni: Some(sni.into()),
            ..Call::default()
        };
        outcome(&ask(&set, &sidecar(), &call))
    };
    assert_eq!(to("1234::1", "b.com"), "narrow -> narrow");
    assert_eq!(to("1234::2", "A.com"), "wide -> wide");
    assert_eq!(to("1234::1", "a.com"), "default -> default");
    assert_eq!(to("1234::2", "b.com"), "default -> default");
}

#[test]
fn two_chains_that_match_alike_are_an_error() {
    let chains = [("a", "server_names: [x.com]", SIMPLE, HTTP), ("b", "server_names: [x.com]", SIMPLE, HTTP)];
    let set = statics(&[listener("0.0.0.0_443", ("0.0.0.0", 443), &inspectors("", ""), &chains)]);
    let call = Call { port: 443, tls: CallTls::Tls, sni: Some("x.com".into()), ..Call::default() };
    assert_eq!(outcome(&ask(&set, &gateway(), &call)), "multiple-filter-chains");
}

#[test]
fn a_gateway_serves_the_ports_that_it_binds() {
    let chains = [("web", "", SIMPLE, HTTP)];
    let set = statics(&[listener("0.0.0.0_443", ("0.0.0.0", 443), "", &chains)]);
    let call = |port, tls| Call { port, tls, ..Call::default() };
    assert_eq!(outcome(&ask(&set, &gateway(), &call(443, CallTls::Tls))), "web -> web");
    assert_eq!(outcome(&ask(&set, &gateway(), &call(443, CallTls::Mutual))), "web -> web");
    assert_eq!(outcome(&ask(&set, &gateway(), &call(443, CallTls::Plaintext))), "tls-error");
    assert_eq!(outcome(&ask(&set, &gateway(), &call(80, CallTls::Plaintext))), "no-listener");
}

/// One HTTP listener on port 80 with virtual hosts, and a few clusters.
fn routed(virtual_hosts: &str) -> XdsSet {
    let manager = "{name: http, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, normalize_path: true, rds: {route_config_name: r, config_source: {ads: {}}}, http_filters: [{name: envoy.filters.http.fault, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}, {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}";
    let endpoint = |port: u16, rest: &str| {
        format!("{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: {port}}}}}}}{rest}}}")
    };
    let cluster = |name: &str, endpoints: &str, rest: &str| {
        format!(
            "  - {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{locality: {{region: eu, zone: a}}, priority: 1, lb_endpoints: [{endpoints}]}}]}}{rest}}}\n"
        )
    };
    let mut resources = set(&format!(
        "static_resources:\n  listeners:\n{}  clusters:\n{}{}",
        listener("l", ("0.0.0.0", 80), "", &[("", "", "", manager)]),
        cluster(
            "a",
            &format!(
                "{}, {}",
                endpoint(1, ", health_status: HEALTHY, load_balancing_weight: 3"),
                endpoint(2, ", health_status: UNHEALTHY")
            ),
            ", lb_policy: RING_HASH, circuit_breakers: {thresholds: [{max_connections: 7, max_requests: 4294967295}]}"
        ),
        cluster("sick", &endpoint(1, ", health_status: UNHEALTHY"), "")
    ));
    let routes: lateen_xds::envoy::config::route::v3::RouteConfiguration =
        lateen_xds::json::parse(lateen_xds::yaml::parse(&format!("name: r\nvirtual_hosts:\n{virtual_hosts}")).unwrap())
            .unwrap();
    resources.insert(routes, Vec::new());
    resources
}

fn get(set: &XdsSet, authority: &str, path: &str, headers: &[(&str, &str)]) -> Explanation {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let call = Call { authority: authority.into(), path: path.into(), headers, ..Call::default() };
    ask(set, &gateway(), &call)
}

#[test]
fn the_first_route_that_matches_wins_and_the_others_have_reasons() {
    let set = routed(
        "- name: shop
  domains: [shop.com]
  routes:
  - {name: api, match: {prefix: /api}, route: {cluster: a}}
  - {name: jason, match: {prefix: /, headers: [{name: end-user, string_match: {exact: jason}}]}, route: {cluster: a}}
  - {name: query, match: {path: /x, query_parameters: [{name: q, present_match: true}]}, route: {cluster: a}}
  - {name: regex, match: {safe_regex: {regex: '/[0-9]+'}}, route: {cluster: a}}
  - {name: rest, match: {prefix: /}, route: {cluster: a}}
  - {name: hidden, match: {path_separated_prefix: /x}, route: {cluster: a}}
",
    );
    let explanation = get(&set, "shop.com", "/x", &[("End-User", "bob")]);
    assert_eq!(explanation.route.as_deref(), Some("rest"));
    assert_eq!(
        reasons(&explanation),
        [
            "route `api` (prefix `/api`): path `/x` does not begin with `/api`",
            "route `jason` (prefix `/`): header `end-user` is `bob`, not exactly `jason`",
            "route `query` (path `/x`): query parameter `q` is missing",
            "route `regex` (expression `/[0-9]+`): path `/x` does not match all of the expression `/[0-9]+`",
            "route `hidden` (prefix `/x`): it matches too, but comes later",
        ]
    );
    assert_eq!(get(&set, "shop.com", "/api/../42?q", &[]).route.as_deref(), Some("regex"));
    assert_eq!(
        reasons(&get(&set, "shop.com", "/", &[]))[1],
        "route `jason` (prefix `/`): header `end-user` is missing"
    );
}

#[test]
fn claims_of_a_token_count_when_they_are_given() {
    let set = routed(
        "- name: shop
  domains: ['*']
  routes:
  - name: admins
    match:
      prefix: /
      dynamic_metadata:
      - filter: envoy.filters.http.jwt_authn
        path: [{key: payload}, {key: realm}, {key: groups}]
        value: {or_match: {value_matchers: [{string_match: {exact: admin}}, {list_match: {one_of: {string_match: {exact: admin}}}}]}}
    route: {cluster: a}
  - {name: rest, match: {prefix: /}, route: {cluster: a}}
",
    );
    let with = |claims: &[(&str, &str)]| {
        let claims = claims.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        ask(&set, &gateway(), &Call { claims, ..Call::default() })
    };
    assert_eq!(with(&[("realm.groups", "user"), ("realm.groups", "admin")]).route.as_deref(), Some("admins"));
    assert_eq!(reasons(&with(&[])), ["route `admins` (prefix `/`): the token has no claim `realm.groups`"]);
    assert_eq!(
        reasons(&with(&[("realm.groups", "user")])),
        ["route `admins` (prefix `/`): claim `realm.groups` is `user`, which is not asked for"]
    );
}

#[test]
fn unknown_hosts_have_no_virtual_host_and_near_ones_are_named() {
    let set = routed("- {name: shop, domains: [shop.com], routes: []}\n- {name: other, domains: [other.org]}\n");
    let explanation = get(&set, "shpo.com", "/", &[]);
    assert_eq!(outcome(&explanation), "no-virtual-host");
    assert_eq!(reasons(&explanation), ["host `shpo.com` is not `shop.com`"]);
    assert_eq!(outcome(&get(&set, "shop.com", "/", &[])), "no-route");
}

#[test]
fn clusters_have_weights_endpoints_and_notes() {
    let set = routed(
        "- name: shop
  domains: ['*']
  routes:
  - match: {prefix: /}
    route: {weighted_clusters: {clusters: [{name: a, weight: 3}, {name: sick, weight: 1}, {name: gone, weight: 0}]}}
",
    );
    let explanation = get(&set, "x", "/", &[]);
    let json = explanation.to_json();
    assert_eq!(
        json["clusters"],
        json!([
            {"name": "a", "weight": 3, "endpoints": [
                {"address": "10.0.0.1:1", "health": "healthy", "locality": "eu/a", "priority": 1, "weight": 3},
                {"address": "10.0.0.1:2", "health": "unhealthy", "locality": "eu/a", "priority": 1, "weight": 1},
            ]},
            {"name": "sick", "weight": 1, "endpoints": [
                {"address": "10.0.0.1:1", "health": "unhealthy", "locality": "eu/a", "priority": 1, "weight": 1},
            ]},
            {"name": "gone", "weight": 0, "endpoints": null},
        ])
    );
    assert_eq!(json["policies"]["notes"], json!(["cluster `sick` has no healthy endpoint: 503 (flag UH)"]));
    assert_eq!(json["policies"]["clusters"]["a"]["load_balancing"], "RING_HASH");
    assert_eq!(json["policies"]["clusters"]["a"]["limits"], json!({"max_connections": 7}));
    assert_eq!(explanation.clusters[0].percent(), 75.0);
    let set = routed("- {name: shop, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: gone}}]}\n");
    let notes = get(&set, "x", "/", &[]).policies.notes;
    assert_eq!(notes, ["cluster `gone` does not exist: 503 (flag NC)"]);
}

#[test]
fn what_happens_on_the_way_is_told() {
    let set = routed(
        "- name: shop
  domains: ['*']
  routes:
  - match: {prefix: /old}
    route:
      cluster: a
      timeout: 2s
      retry_policy: {retry_on: 5xx, num_retries: 3, per_try_timeout: 0.5s, retriable_status_codes: [503]}
      prefix_rewrite: /new
      host_rewrite_literal: b.com
      hash_policy: [{header: {header_name: x-user}}]
      request_mirror_policies: [{cluster: sick, runtime_fraction: {default_value: {numerator: 25}}}]
    request_headers_to_add: [{header: {key: x-a, value: '1'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
    response_headers_to_remove: [server]
    typed_per_filter_config:
      envoy.filters.http.fault:
        '@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
        delay: {fixed_delay: 5s, percentage: {numerator: 100}}
        abort: {http_status: 503, percentage: {numerator: 1, denominator: TEN_THOUSAND}}
  - {match: {path: /moved}, redirect: {host_redirect: b.com, response_code: FOUND}}
  - {match: {path: /no}, direct_response: {status: 403, body: {inline_string: hello}}}
  - {match: {prefix: /}, route: {cluster: a, timeout: 0s}}
",
    );
    let policies = |path: &str| get(&set, "shop.com", path, &[]).to_json()["policies"].take();
    let old = policies("/old/x?q");
    for (key, expected) in [
        ("timeout", json!("2s")),
        ("retries", json!({"attempts": 3, "on": "5xx", "codes": [503], "per_try_timeout": "0.5s"})),
        ("path", json!("/new/x?q")),
        ("host", json!("b.com")),
        ("hash", json!(["header `x-user`"])),
        ("mirrors", json!([{"cluster": "sick", "percent": 25.0}])),
        ("request_headers", json!(["set x-a to `1`"])),
        ("response_headers", json!(["remove server"])),
        ("fault_delay", json!({"length": "5s", "percent": 100.0})),
        ("fault_abort", json!({"answer": "HTTP 503", "percent": 0.01})),
    ] {
        assert_eq!(old[key], expected, "{key}");
    }
    assert_eq!(policies("/moved")["redirect"], json!({"status": 302, "location": "http://b.com/moved"}));
    assert_eq!(policies("/no")["direct_response"], json!({"status": 403, "body_bytes": 5}));
    let plain = policies("/");
    assert_eq!((&plain["timeout"], &plain["fault_delay"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_host_for_tls_alone_redirects_plaintext() {
    let set = routed("- {name: shop, domains: ['*'], require_tls: ALL}\n");
    let explanation = get(&set, "shop.com:8080", "/x?q", &[]);
    assert_eq!(outcome(&explanation), "tls-redirect");
    assert!(explanation.is_answered());
    assert_eq!(explanation.policies.redirect.unwrap().location, "https://shop.com:8080/x?q");
}

#[test]
fn the_keys_of_the_json_are_always_the_same() {
    let keys = |explanation: &Explanation| {
        explanation.to_json().as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let set = routed("- {name: shop, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}\n");
    let answered = keys(&get(&set, "x", "/", &[]));
    let refused = keys(&ask(&set, &gateway(), &Call { port: 1, ..Call::default() }));
    assert_eq!(answered, refused);
    let mut words: Vec<&str> = answered.split(' ').collect();
    words.sort_unstable();
    assert_eq!(
        words,
        [
            "clusters",
            "error",
            "filter_chain",
            "listener",
            "origin",
            "policies",
            "route",
            "route_config",
            "tried",
            "virtual_host"
        ]
    );
}
