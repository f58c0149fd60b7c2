//! What do patches change in listeners, their filter chains and filters?

use super::*;

fn network_filters(chain: &FilterChain) -> Vec<String> {
    chain.filters.iter().map(|filter| filter.name.replace("envoy.filters.network.", "")).collect()
}

#[test]
fn network_filters_are_listed_and_merged() {
    let chain = || {
        let mut first = tcp_filter("a");
        first["name"] = "first".into();
        first["typed_config"] =
            json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config"});
        json!([{"filters": [first, tcp_filter("a")]}])
    };
    let value = "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit, stat_prefix: x}}";
    let patch = |operation: &str, name: Option<&str>, value: &str| {
        let name = name.map(|name| format!("filterChain: {{filter: {{name: {name}}}}}")).unwrap_or_default();
        format!(
            "- applyTo: NETWORK_FILTER\n  match: {{listener: {{{name}}}}}\n  patch: {{operation: {operation}, value: {value}}}\n"
        )
    };
    let tcp_proxy = Some("envoy.filters.network.tcp_proxy");
    let cases: [(&str, Option<&str>, &[&str]); 9] = [
        ("INSERT_FIRST", None, &["x", "first", "tcp_proxy"]),
        ("INSERT_FIRST", tcp_proxy, &["x", "first", "tcp_proxy"]),
        ("INSERT_BEFORE", None, &["x", "first", "tcp_proxy"]),
        ("INSERT_BEFORE", tcp_proxy, &["first", "x", "tcp_proxy"]),
        ("INSERT_AFTER", Some("first"), &["first", "x", "tcp_proxy"]),
        ("INSERT_AFTER", Some("absent"), &["first", "tcp_proxy"]),
        ("REPLACE", Some("first"), &["x", "tcp_proxy"]),
        ("REMOVE", Some("first"), &["tcp_proxy"]),
        ("REMOVE", tcp_proxy, &["first"]),
    ];
    for (operation, name, expected) in cases {
        let (resource, _) = patched(
            &root(&patch(operation, name, value)),
            PatchContext::SidecarOutbound,
            &listener("0.0.0.0_90", chain()),
        );
        assert_eq!(network_filters(&resource.message.filter_chains[0]), expected, "{operation} {name:?}");
    }
    for operation in ["ADD", "INSERT_AFTER"] {
        let (resource, said) = patched(
            &root(&patch(operation, None, value)),
            PatchContext::SidecarOutbound,
            &listener("0.0.0.0_90", chain()),
        );
        assert_eq!(network_filters(&resource.message.filter_chains[0]), ["first", "tcp_proxy"], "{operation}");
        assert!(said[0].contains("LTN0126"), "{said:?}");
    }
    let value = format!("{{typed_config: {{'@type': {TCP_PROXY}, idle_timeout: 5s}}}}");
    let (resource, _) = patched(
        &root(&patch("MERGE", tcp_proxy, &value)),
        PatchContext::SidecarOutbound,
        &listener("0.0.0.0_90", chain()),
    );
    let rendered = json::render(&*resource.message).unwrap();
    let expected = json!({"@type": TCP_PROXY, "stat_prefix": "s", "cluster": "a", "idle_timeout": "5s"});
    assert_eq!(rendered["filter_chains"][0]["filters"][1]["typed_config"], expected);
}

#[test]
fn listener_filters_are_listed_and_merged() {
    let value = "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}";
    let merge = "{typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, initial_read_buffer_size: 512}}";
    let patch = |operation: &str, name: Option<&str>, value: &str| {
        let name = name.map(|name| format!("listenerFilter: {name}, ")).unwrap_or_default();
        format!(
            "- applyTo: LISTENER_FILTER\n  match: {{listener: {{{name}name: 0.0.0.0_8080}}}}\n  patch: {{operation: {operation}, value: {value}}}\n"
        )
    };
    let cases: [(&str, Option<&str>, &[&str]); 9] = [
        ("ADD", None, &["inspector", "x"]),
        ("INSERT_FIRST", None, &["x", "inspector"]),
        ("INSERT_BEFORE", None, &["x", "inspector"]),
        ("INSERT_BEFORE", Some("inspector"), &["x", "inspector"]),
        ("INSERT_AFTER", None, &["inspector", "x"]),
        ("INSERT_AFTER", Some("absent"), &["inspector"]),
        ("REPLACE", Some("inspector"), &["x"]),
        ("REMOVE", Some("inspector"), &[]),
        ("MERGE", Some("inspector"), &["inspector"]),
    ];
    for (operation, name, expected) in cases {
        let value = if operation == "MERGE" { merge } else { value };
        let patches = root(&patch(operation, name, value));
        let (resource, _) = patched(&patches, PatchContext::Gateway, &gateway_listener());
        let names: Vec<_> = resource.message.listener_filters.iter().map(|filter| filter.name.as_str()).collect();
        assert_eq!(names, expected, "{operation} {name:?}");
        if operation == "MERGE" {
            let rendered = json::render(&*resource.message).unwrap();
            assert_eq!(rendered["listener_filters"][0]["typed_config"]["initial_read_buffer_size"], 512);
        }
    }
}

#[test]
fn filter_chains_are_removed_merged_and_added_and_origins_stay_with_them() {
    let chains = json!([
        {"name": "plain", "filters": [tcp_filter("plain")], "filter_chain_match": {"transport_protocol": "raw_buffer"}},
        {"name": "gone", "filters": [tcp_filter("gone")], "filter_chain_match": {"server_names": ["a.example.com"]}},
        {"name": "tls", "filters": [tcp_filter("tls")], "filter_chain_match": {
            "transport_protocol": "tls", "application_protocols": ["h2", "http/1.1"], "destination_port": 443}},
    ]);
    let items = format!(
        "
- applyTo: FILTER_CHAIN
  match: {{listener: {{filterChain: {{sni: a.example.com}}}}}}
  patch: {{operation: REMOVE}}
- applyTo: FILTER_CHAIN
  match: {{listener: {{filterChain: {{transportProtocol: tls, applicationProtocols: 'http/1.1,h2', destinationPort: 443}}}}}}
  patch: {{operation: MERGE, value: {{transport_socket_connect_timeout: 5s}}}}
- applyTo: FILTER_CHAIN
  patch: {{operation: ADD, value: {{name: new, filters: [{}], filter_chain_match: {{destination_port: 444}}}}}}
- applyTo: FILTER_CHAIN
  patch: {{operation: ADD, value: {{name: twice, filter_chain_match: {{transport_protocol: raw_buffer}}}}}}
- applyTo: FILTER_CHAIN
  match: {{listener: {{filterChain: {{applicationProtocols: 'h2,h3'}}}}}}
  patch: {{operation: REMOVE}}
- applyTo: FILTER_CHAIN
  match: {{listener: {{filterChain: {{name: plain}}}}}}
  patch: {{operation: MERGE, value: {{filter_chain_match: {{server_names: [b.example.com]}}}}}}
",
        tcp_filter("new")
    );
    let patches = root(&items);
    assert_eq!(messages(&patches), Vec::<String>::new());
    let base = listener("0.0.0.0_443", chains);
    let (resource, said) = patched(&patches, PatchContext::Gateway, &base);
    let names: Vec<_> = resource.message.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["plain", "tls", "new", "twice"]);
    assert!(resource.message.filter_chains[1].transport_socket_connect_timeout.is_some());
    // The chain `plain` is merged before `twice` is added, so the two are for different connections.
    assert_eq!(resource.message.filter_chains[0].filter_chain_match.as_ref().unwrap().server_names, ["b.example.com"]);
    assert_eq!(origins(&resource, Part::Whole), ["listener", "test configPatches[0]"]);
    assert_eq!(origins(&resource, Part::FilterChain(0)), ["listener", "test configPatches[5]"]);
    assert_eq!(origins(&resource, Part::FilterChain(1)), ["chain-2", "test configPatches[1]"]);
    assert_eq!(origins(&resource, Part::FilterChain(2)), ["test configPatches[2]"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("filters.yaml:17:5: warning[LTN0125]"), "no chain has `h2` and `h3`: {said:?}");
}

#[test]
fn a_chain_for_the_same_connections_is_refused() {
    let items = "- applyTo: FILTER_CHAIN\n  patch: {operation: ADD, value: {name: twice}}\n";
    let (resource, said) = patched(&root(items), PatchContext::Gateway, &gateway_listener());
    assert_eq!(resource.message.filter_chains.len(), 1);
    assert!(said[0].contains("LTN0126") && said[0].contains("is for the same connections"), "{said:?}");
}

#[test]
fn a_transport_socket_of_the_same_name_is_merged_alone() {
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let chain = json!([http_chain(json!({"transport_socket": {"name": "tls", "typed_config": {
        "@type": tls, "common_tls_context": {"alpn_protocols": ["h2"]}, "require_client_certificate": true}}}))]);
    let base = listener("0.0.0.0_8443", chain);
    let patch = |socket: &str| {
        root(&format!(
            "- applyTo: FILTER_CHAIN\n  patch: {{operation: MERGE, value: {{name: renamed, transport_socket: {{name: {socket}, typed_config: {{'@type': {tls}, common_tls_context: {{alpn_protocols: [http/1.1]}}}}}}}}}}\n"
        ))
    };
    let (resource, said) = patched(&patch("tls"), PatchContext::Gateway, &base);
    let chain = &json::render(&*resource.message).unwrap()["filter_chains"][0];
    assert_eq!(chain.get("name"), None);
    assert_eq!(
        chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"],
        json!(["h2", "http/1.1"])
    );
    assert!(said[0].contains("LTN0127"), "{said:?}");
    let (resource, said) = patched(&patch("other"), PatchContext::Gateway, &base);
    let chain = &json::render(&*resource.message).unwrap()["filter_chains"][0];
    assert_eq!(chain["name"], "renamed");
    let expected = json!({"name": "other", "typed_config": {"@type": tls, "common_tls_context": {"alpn_protocols": ["http/1.1"]}}});
    assert_eq!(chain["transport_socket"], expected);
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn on_virtual_inbound_a_port_is_that_of_the_chain() {
    let chains = json!([
        http_chain(json!({"name": "all"})),
        http_chain(json!({"name": "9080", "filter_chain_match": {"destination_port": 9080}})),
        http_chain(json!({"name": "9090", "filter_chain_match": {"destination_port": 9090}})),
    ]);
    let base = listener("virtualInbound", chains);
    for wanted in ["portNumber: 9080", "name: virtualInbound, portNumber: 9080", "filterChain: {destinationPort: 9080}"]
    {
        let items = format!(
            "- applyTo: HTTP_FILTER\n  match: {{context: SIDECAR_INBOUND, listener: {{{wanted}}}}}\n  patch: {{operation: INSERT_FIRST, value: {}}}\n",
            lua("x")
        );
        let (resource, said) = patched(&root(&items), PatchContext::SidecarInbound, &base);
        let first: Vec<_> =
            resource.message.filter_chains.iter().map(|chain| manager(chain).http_filters[0].name.clone()).collect();
        assert_eq!(first, ["one", "x", "one"], "{wanted}");
        assert_eq!(origins(&resource, Part::FilterChain(1)), ["chain-1", "test configPatches[0]"]);
        assert_eq!(origins(&resource, Part::FilterChain(2)), ["chain-2"]);
        assert_eq!(said, Vec::<String>::new());
    }
    // The listener itself is found by its socket.
    let remove = |port: u32| {
        let items = format!(
            "- applyTo: LISTENER\n  match: {{listener: {{portNumber: {port}}}}}\n  patch: {{operation: REMOVE}}\n"
        );
        let selected = for_role(&root(&items), Role::Sidecar);
        with_lookup(|lookup| selected.listener(PatchContext::SidecarInbound, &base, lookup, &mut Report::default()))
    };
    assert!(remove(9080).is_some());
    assert!(remove(15006).is_none());
}

#[test]
fn a_port_is_the_configured_one_wherever_the_listener_binds() {
    let mut message = (*gateway_listener().message).clone();
    message.address =
        Some(json::parse(json!({"socket_address": {"address": "127.0.0.1", "port_value": 18080}})).unwrap());
    let base = Resource::new(message, vec![]);
    let items = |port: u32| {
        http_patch("INSERT_FIRST", None, &lua("x")).replace("listener: {", &format!("listener: {{portNumber: {port}, "))
    };
    assert_eq!(http_filters(&patched(&root(&items(8080)), PatchContext::Gateway, &base).0)[0], "x");
    assert_eq!(http_filters(&patched(&root(&items(18080)), PatchContext::Gateway, &base).0)[0], "one");
}

#[test]
fn listeners_are_merged_removed_and_added() {
    let address = "address: {socket_address: {address: 127.0.0.1, port_value: 9999}}";
    let items = format!(
        "
- applyTo: LISTENER
  match: {{context: SIDECAR_OUTBOUND, listener: {{name: 0.0.0.0_90}}}}
  patch: {{operation: REMOVE}}
- applyTo: LISTENER
  match: {{listener: {{portNumber: 91}}}}
  patch: {{operation: MERGE, value: {{per_connection_buffer_limit_bytes: 0, filter_chains: [{{name: more}}]}}}}
- applyTo: LISTENER
  patch: {{operation: ADD, value: {{name: new, {address}}}}}
- applyTo: LISTENER
  match: {{context: SIDECAR_INBOUND}}
  patch: {{operation: INSERT_FIRST, value: {{name: in, {address}}}}}
- applyTo: LISTENER
  match: {{context: SIDECAR_OUTBOUND}}
  patch: {{operation: ADD, value: {{name: 0.0.0.0_91, {address}}}}}
- applyTo: LISTENER
  match: {{context: SIDECAR_OUTBOUND, listener: {{name: 0.0.0.0_91}}}}
  patch: {{operation: MERGE, value: {{name: other}}}}
"
    );
    let patches = root(&items);
    assert_eq!(messages(&patches), Vec::<String>::new());
    let selected = for_role(&patches, Role::Sidecar);
    let group = |ports: &[u32]| {
        let all =
            ports.iter().map(|port| listener(&format!("0.0.0.0_{port}"), json!([{"filters": [tcp_filter("a")]}])));
        all.map(|resource| (resource.message.name.as_str().into(), resource)).collect()
    };
    let mut report = Report::default();
    let groups =
        vec![(PatchContext::SidecarOutbound, group(&[90, 91])), (PatchContext::SidecarInbound, group(&[15006]))];
    let all = with_lookup(|lookup| selected.listeners(groups, lookup, &mut report));
    let names: Vec<_> = all.keys().map(|name| &**name).collect();
    assert_eq!(names, ["0.0.0.0_15006", "0.0.0.0_91", "in", "new"]);
    let merged = &all["0.0.0.0_91"];
    assert_eq!(merged.message.per_connection_buffer_limit_bytes, Some(0));
    assert_eq!(origins(merged, Part::Whole), ["listener", "test configPatches[1]"]);
    assert_eq!(origins(merged, Part::FilterChain(0)), Vec::<String>::new());
    assert_eq!(origins(merged, Part::FilterChain(1)), ["test configPatches[1]"]);
    assert_eq!(origins(&all["new"], Part::Whole), ["test configPatches[2]"]);
    let said: Vec<_> = selected.diagnostics(&report).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("there is a listener `0.0.0.0_91` already"), "{said:?}");
    assert!(said[1].contains("cannot give it another name"), "{said:?}");
}
