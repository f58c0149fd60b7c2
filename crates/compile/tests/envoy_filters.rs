//! What do EnvoyFilters change? Every type and operation, positions and orders, on small resources written by hand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_compile::Role;
use lateen_compile::patches::{Lookup, Patches, ProxyFacts, Report, Selected};
use lateen_config::{PatchContext, SourceFile, Spec};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::listener::v3::{FilterChain, Listener, filter};
use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::{Origin, Part, Resource, any, json};
use serde_json::{Value, json};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

/// The root namespace of all tests.
const ROOT: &str = "istio-system";

/// An EnvoyFilter with one patch for each item; the items are indented as a list of YAML.
fn filter(name: &str, namespace: &str, spec: &str, patches: &str) -> String {
    let patches: String = patches.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}  configPatches:\n{patches}"
    )
}

fn patches(yaml: &str) -> Patches {
    let loaded = lateen_config::load(&[SourceFile::new("filters.yaml", yaml)]);
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let objects: Vec<Arc<lateen_config::Object>> = loaded.objects.into_iter().map(Into::into).collect();
    let filters: Vec<_> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::EnvoyFilter(spec) => Some((object, spec)),
            _ => None,
        })
        .collect();
    Patches::build(&filters, ROOT)
}

/// The patches of one EnvoyFilter in the root namespace.
fn root(items: &str) -> Patches {
    patches(&filter("test", ROOT, "", items))
}

fn for_role(patches: &Patches, role: Role) -> Selected {
    patches.for_proxy(&ProxyFacts {
        role,
        namespace: "default",
        labels: Some(&BTreeMap::new()),
        istio_version: "1.27.3",
        metadata: &BTreeMap::new(),
    })
}

fn messages(patches: &Patches) -> Vec<String> {
    patches.diagnostics().iter().map(ToString::to_string).collect()
}

/// What a test looks at besides the resources: servers 80 and 81 share `http.8080`; two services stand behind 9080.
fn with_lookup<T>(run: impl FnOnce(&Lookup<'_>) -> T) -> T {
    run(&Lookup {
        server_ports: &|name| if name == "http.8080" { vec![80, 81] } else { Vec::new() },
        inbound_hosts: &|port| {
            if port == 9080 { vec!["a.example.com".into(), "b.example.com".into()] } else { Vec::new() }
        },
    })
}

fn http_filter(name: &str) -> Value {
    match name {
        "envoy.filters.http.router" => json!({"name": name, "typed_config": {"@type": ROUTER}}),
        _ => json!({"name": name, "typed_config": {"@type": LUA}}),
    }
}

fn http_chain(extra: Value) -> Value {
    let http_filters = ["one", "two", "envoy.filters.http.router"].map(http_filter);
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": HCM, "stat_prefix": "s", "rds": {"route_config_name": "r"},
            "http_filters": http_filters,
        },
    }]});
    chain.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    chain
}

fn tcp_filter(cluster: &str) -> Value {
    json!({"name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": TCP_PROXY, "stat_prefix": "s", "cluster": cluster}})
}

fn origin(name: &str) -> Origin {
    Origin { kind: "Test".into(), name: name.into(), ..Origin::default() }
}

/// A listener with the origin `listener`, and `chain-N` for each chain but the first.
fn listener(name: &str, chains: Value) -> Resource<Listener> {
    let port: u32 = name.rsplit('_').next().unwrap().parse().unwrap_or(15006);
    let message: Listener = json::parse(json!({
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [{"name": "inspector", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
        "filter_chains": chains,
    }))
    .unwrap();
    let mut origins = vec![(Part::Whole, origin("listener"))];
    for index in 1..message.filter_chains.len() {
        origins.push((Part::FilterChain(index), origin(&format!("chain-{index}"))));
    }
    Resource::new(message, origins)
}

fn gateway_listener() -> Resource<Listener> {
    listener("0.0.0.0_8080", json!([http_chain(json!({}))]))
}

/// A listener as the patches leave it, with what is said about it.
fn patched(
    patches: &Patches,
    context: PatchContext,
    resource: &Resource<Listener>,
) -> (Resource<Listener>, Vec<String>) {
    let role = if context == PatchContext::Gateway { Role::Gateway } else { Role::Sidecar };
    let selected = for_role(patches, role);
    let mut report = Report::default();
    let patched = with_lookup(|lookup| selected.listener(context, resource, lookup, &mut report)).unwrap();
    (patched, selected.diagnostics(&report).iter().map(ToString::to_string).collect())
}

fn manager(chain: &FilterChain) -> HttpConnectionManager {
    let config = chain.filters.iter().find_map(|filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => any::unpack::<HttpConnectionManager>(config).ok(),
        _ => None,
    });
    config.unwrap()
}

fn http_filters(listener: &Resource<Listener>) -> Vec<String> {
    let names = manager(&listener.message.filter_chains[0]).http_filters.into_iter();
    names.map(|filter| filter.name.replace("envoy.filters.http.", "")).collect()
}

fn network_filters(chain: &FilterChain) -> Vec<String> {
    chain.filters.iter().map(|filter| filter.name.replace("envoy.filters.network.", "")).collect()
}

fn origins<M>(resource: &Resource<M>, part: Part) -> Vec<String> {
    resource.origins_of(part).map(|origin| format!("{} {}", origin.name, origin.rule).trim().to_owned()).collect()
}

fn lua(name: &str) -> String {
    format!("{{name: {name}, typed_config: {{'@type': {LUA}}}}}")
}

/// A patch of HTTP filters; without a `sub_filter` the match ends with the connection manager.
fn http_patch(operation: &str, sub_filter: Option<&str>, value: &str) -> String {
    let sub_filter = sub_filter.map(|name| format!(", subFilter: {{name: {name}}}")).unwrap_or_default();
    format!(
        "- applyTo: HTTP_FILTER\n  match: {{context: GATEWAY, listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager{sub_filter}}}}}}}}}\n  patch: {{operation: {operation}, value: {value}}}\n"
    )
}

#[test]
fn http_filters_go_where_their_operation_says() {
    let cases: [(&str, Option<&str>, &[&str]); 12] = [
        ("INSERT_FIRST", None, &["x", "one", "two", "router"]),
        ("INSERT_FIRST", Some("two"), &["x", "one", "two", "router"]),
        ("INSERT_FIRST", Some("absent"), &["x", "one", "two", "router"]),
        ("INSERT_BEFORE", None, &["x", "one", "two", "router"]),
        ("INSERT_BEFORE", Some("two"), &["one", "x", "two", "router"]),
        ("INSERT_BEFORE", Some("envoy.filters.http.router"), &["one", "two", "x", "router"]),
        ("INSERT_BEFORE", Some("absent"), &["one", "two", "router"]),
        ("INSERT_AFTER", Some("one"), &["one", "x", "two", "router"]),
        ("INSERT_AFTER", Some("absent"), &["one", "two", "router"]),
        ("REPLACE", Some("one"), &["x", "two", "router"]),
        ("REPLACE", Some("absent"), &["one", "two", "router"]),
        ("REMOVE", Some("two"), &["one", "router"]),
    ];
    for (operation, sub_filter, expected) in cases {
        let patches = root(&http_patch(operation, sub_filter, &lua("x")));
        let base = gateway_listener();
        let (resource, said) = patched(&patches, PatchContext::Gateway, &base);
        let what = format!("{operation} {sub_filter:?}");
        assert_eq!(http_filters(&resource), expected, "{what}");
        let changes = expected != ["one", "two", "router"];
        assert_eq!(said.is_empty(), changes, "{what}: {said:?}");
        assert_eq!(Arc::ptr_eq(&resource.message, &base.message), !changes, "{what}");
        // The chain had the origins of the listener; it keeps them.
        let expected: &[&str] = if changes { &["listener", "test configPatches[0]"] } else { &[] };
        assert_eq!(origins(&resource, Part::FilterChain(0)), expected, "{what}");
    }
}

#[test]
fn a_filter_behind_the_router_is_left_out_and_told() {
    for (operation, sub_filter) in
        [("ADD", None), ("INSERT_AFTER", None), ("INSERT_AFTER", Some("envoy.filters.http.router"))]
    {
        let patches = root(&http_patch(operation, sub_filter, &lua("x")));
        let said = messages(&patches);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("filters.yaml:9:24: warning[LTN0124]: the HTTP filter would stand"), "{said:?}");
        let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
        assert_eq!(http_filters(&resource), ["one", "two", "router"]);
        assert!(said.is_empty(), "told once: {said:?}");
    }
    // Without its router a chain is refused as well.
    let patches = root(&http_patch("REMOVE", Some("envoy.filters.http.router"), "{}"));
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "router"]);
    assert!(said[0].contains("LTN0124") && said[0].contains("would not end with the router"), "{said:?}");
}

#[test]
fn what_all_patches_together_make_counts() {
    // Neither would do alone: a router of one's own at the end, in the place of the other.
    let router = format!("{{name: own, typed_config: {{'@type': {ROUTER}, suppress_envoy_headers: true}}}}");
    let items = http_patch("ADD", None, &router) + &http_patch("REMOVE", Some("envoy.filters.http.router"), "{}");
    let patches = root(&items);
    assert_eq!(messages(&patches), Vec::<String>::new());
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "own"]);
    assert_eq!(said, Vec::<String>::new());
    // Of several patches only the one that breaks the chain is left out.
    let items = http_patch("INSERT_FIRST", None, &lua("first")) + &http_patch("ADD", None, &router);
    let (resource, said) = patched(&root(&items), PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["first", "one", "two", "router"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("filters.yaml:10:5: warning[LTN0124]"), "{said:?}");
}

#[test]
fn a_merge_sees_what_later_patches_insert() {
    let code = |text: &str| format!("{{name: x, typed_config: {{'@type': {LUA}, inline_code: '{text}'}}}}");
    let early = filter("early", ROOT, "  priority: -1\n", &http_patch("MERGE", Some("x"), &code("merged")));
    let late = filter("late", "default", "", &http_patch("INSERT_FIRST", None, &code("inserted")));
    let patches = patches(&[late, early].concat());
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(said, Vec::<String>::new());
    let rendered = json::render(&*resource.message).unwrap();
    let first = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0];
    assert_eq!(first["typed_config"]["inline_code"], "merged");
}

#[test]
fn a_merge_without_a_filter_is_for_filters_of_its_type() {
    let value = format!("{{typed_config: {{'@type': {LUA}, inline_code: all}}}}");
    let patches = root(&http_patch("MERGE", None, &value));
    let (resource, _) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource), ["one", "two", "router"]);
    let rendered = json::render(&*resource.message).unwrap();
    let filters = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    assert_eq!(filters[0]["typed_config"]["inline_code"], "all");
    assert_eq!(filters[1]["typed_config"]["inline_code"], "all");
    assert_eq!(filters[2]["typed_config"], json!({"@type": ROUTER}));
}

#[test]
fn order_is_priority_then_root_namespace_then_name() {
    let insert = |name: &str, namespace: &str, priority: i32| {
        let spec = if priority == 0 { String::new() } else { format!("  priority: {priority}\n") };
        filter(name, namespace, &spec, &http_patch("INSERT_FIRST", None, &lua(name)))
    };
    let all = [
        insert("a", "default", 0),
        insert("b", ROOT, 10),
        insert("c", "default", -5),
        insert("z", ROOT, 0),
        insert("x", ROOT, 0),
    ];
    let (resource, _) = patched(&patches(&all.concat()), PatchContext::Gateway, &gateway_listener());
    // The last one applied stands first.
    assert_eq!(http_filters(&resource)[..5], ["b", "a", "z", "x", "c"]);
    let rules = origins(&resource, Part::FilterChain(0));
    let names: Vec<_> = rules.iter().map(|rule| rule.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["listener", "c", "x", "z", "a", "b"]);
}

#[test]
fn an_older_filter_is_applied_first() {
    let insert = |name: &str, time: &str| {
        filter(name, ROOT, "", &http_patch("INSERT_FIRST", None, &lua(name)))
            .replace("namespace: istio-system}", &format!("namespace: istio-system, creationTimestamp: '{time}'}}"))
    };
    let all = insert("a", "2026-02-01T00:00:00Z") + &insert("b", "2026-01-01T00:00:00Z");
    let (resource, _) = patched(&patches(&all), PatchContext::Gateway, &gateway_listener());
    assert_eq!(http_filters(&resource)[..2], ["a", "b"]);
}

#[test]
fn a_proxy_has_the_patches_that_are_for_it() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("v".to_owned(), "1".to_owned())]);
    let metadata = BTreeMap::from([("CLUSTER".to_owned(), "east".to_owned())]);
    let chosen = |name: &str, namespace: &str, spec: &str, proxy: &str| {
        let patch =
            http_patch("INSERT_FIRST", None, &lua(name)).replace("context: GATEWAY", &format!("context: ANY{proxy}"));
        let patches = patches(&filter(name, namespace, spec, &patch));
        assert_eq!(messages(&patches), Vec::<String>::new());
        !patches
            .for_proxy(&ProxyFacts {
                role: Role::Sidecar,
                namespace: "default",
                labels: Some(&labels),
                istio_version: "1.27.3",
                metadata: &metadata,
            })
            .is_empty()
    };
    assert!(chosen("a", ROOT, "", ""));
    assert!(chosen("a", "default", "", ""));
    assert!(!chosen("a", "other", "", ""));
    assert!(chosen("a", "default", "  workloadSelector: {labels: {app: web}}\n", ""));
    assert!(!chosen("a", "default", "  workloadSelector: {labels: {app: web, v: '2'}}\n", ""));
    assert!(chosen("a", ROOT, "", ", proxy: {proxyVersion: '^1\\.2[0-9]'}"));
    // It is searched for, not matched from end to end.
    assert!(chosen("a", ROOT, "", ", proxy: {proxyVersion: '27'}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {proxyVersion: '^1\\.1'}"));
    assert!(chosen("a", ROOT, "", ", proxy: {metadata: {CLUSTER: east}}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {metadata: {CLUSTER: west}}"));
    assert!(!chosen("a", ROOT, "", ", proxy: {metadata: {OTHER: east}}"));
}

#[test]
fn a_context_is_the_one_that_a_resource_was_made_for() {
    for (written, gateway, outbound, inbound) in [
        ("ANY", true, true, true),
        ("GATEWAY", true, false, false),
        ("SIDECAR_OUTBOUND", false, true, false),
        ("SIDECAR_INBOUND", false, false, true),
    ] {
        let patch = http_patch("INSERT_FIRST", None, &lua("x")).replace("GATEWAY", written);
        let patches = root(&patch);
        let contexts = [
            (PatchContext::Gateway, gateway),
            (PatchContext::SidecarOutbound, outbound),
            (PatchContext::SidecarInbound, inbound),
        ];
        for (context, expected) in contexts {
            let (resource, _) = patched(&patches, context, &gateway_listener());
            assert_eq!(http_filters(&resource)[0] == "x", expected, "{written} in {context}");
        }
    }
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

#[test]
fn discovered_configurations_are_put_where_they_are_named() {
    let items = format!(
        "
- applyTo: EXTENSION_CONFIG
  match: {{context: GATEWAY}}
  patch: {{operation: ADD, value: {{name: script, typed_config: {{'@type': {LUA}, inline_code: found}}}}}}
- applyTo: EXTENSION_CONFIG
  patch: {{operation: ADD, value: {{name: unused, typed_config: {{'@type': {LUA}}}}}}}
{}{}",
        http_patch(
            "INSERT_FIRST",
            None,
            &format!("{{name: script, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{LUA}']}}}}")
        ),
        http_patch(
            "INSERT_FIRST",
            None,
            &format!("{{name: nowhere, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: ['{LUA}']}}}}")
        )
    );
    let patches = root(&items);
    let said = messages(&patches);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("no EXTENSION_CONFIG patch has the configuration of the filter `nowhere`"), "{said:?}");
    let (resource, said) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    let rendered = json::render(&*resource.message).unwrap();
    let filters = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    assert_eq!(filters[1]["typed_config"]["inline_code"], "found");
    assert_eq!(
        origins(&resource, Part::FilterChain(0)),
        ["listener", "test configPatches[2]", "test configPatches[3]", "test configPatches[0]"]
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("filters.yaml:10:5: warning[LTN0125]: the patch matches nothing"), "{said:?}");
}

fn routes(name: &str) -> Resource<RouteConfiguration> {
    let route = |name: &str, action: Value| {
        let mut route = json!({"name": name, "match": {"prefix": format!("/{name}")}});
        route.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
        route
    };
    let message = json::parse(json!({
        "name": name,
        "virtual_hosts": [
            {"name": "a.example.com:80", "domains": ["a.example.com", "a"], "routes": [
                route("one", json!({"route": {"cluster": "c"}})),
                route("two", json!({"redirect": {"host_redirect": "b"}})),
                route("three", json!({"direct_response": {"status": 200}})),
            ]},
            {"name": "b.example.com:80", "domains": ["b.example.com"], "routes": [
                route("one", json!({"route": {"cluster": "c"}})),
            ]},
        ],
    }))
    .unwrap();
    let part = |virtual_host, route| Part::Route { virtual_host, route };
    let origins = vec![
        (Part::Whole, origin("whole")),
        (Part::VirtualHost(1), origin("b")),
        (part(0, 0), origin("a-one")),
        (part(0, 1), origin("a-two")),
        (part(0, 2), origin("a-three")),
        (part(1, 0), origin("b-one")),
    ];
    Resource::new(message, origins)
}

fn patched_routes(
    patches: &Patches,
    context: PatchContext,
    resource: &Resource<RouteConfiguration>,
) -> (Resource<RouteConfiguration>, Vec<String>) {
    let role = if context == PatchContext::Gateway { Role::Gateway } else { Role::Sidecar };
    let selected = for_role(patches, role);
    let mut report = Report::default();
    let patched = with_lookup(|lookup| selected.route_configuration(context, resource, lookup, &mut report));
    (patched, selected.diagnostics(&report).iter().map(ToString::to_string).collect())
}

fn hosts(resource: &Resource<RouteConfiguration>) -> Vec<String> {
    let hosts = &resource.message.virtual_hosts;
    hosts
        .iter()
        .map(|host| {
            let routes: Vec<&str> = host.routes.iter().map(|route| route.name.as_str()).collect();
            format!("{}: {}", host.name, routes.join(" "))
        })
        .collect()
}

const NEW_ROUTE: &str = "{name: new, match: {path: /new}, route: {cluster: own}}";

#[test]
fn routes_go_where_their_operation_says() {
    let patch = |operation: &str, route: Option<&str>| {
        let route = route.map(|route| format!(", route: {{{route}}}")).unwrap_or_default();
        root(&format!(
            "- applyTo: HTTP_ROUTE\n  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'{route}}}}}}}\n  patch: {{operation: {operation}, value: {NEW_ROUTE}}}\n"
        ))
    };
    let cases = [
        ("ADD", None, "one two three new"),
        ("ADD", Some("name: one"), "one two three new"),
        ("INSERT_FIRST", None, "new one two three"),
        ("INSERT_FIRST", Some("name: three"), "new one two three"),
        ("INSERT_FIRST", Some("name: absent"), "one two three"),
        ("INSERT_BEFORE", None, "new one two three"),
        ("INSERT_BEFORE", Some("name: two"), "one new two three"),
        ("INSERT_AFTER", None, "one two three new"),
        ("INSERT_AFTER", Some("name: two"), "one two new three"),
        ("INSERT_AFTER", Some("action: REDIRECT"), "one two new three"),
        ("INSERT_AFTER", Some("name: absent"), "one two three"),
        ("REMOVE", Some("action: DIRECT_RESPONSE"), "one two"),
        ("REMOVE", Some("name: two, action: ROUTE"), "one two three"),
        ("REMOVE", None, ""),
    ];
    for (operation, route, expected) in cases {
        let base = routes("80");
        assert_eq!(messages(&patch(operation, route)), Vec::<String>::new());
        let (resource, said) = patched_routes(&patch(operation, route), PatchContext::SidecarOutbound, &base);
        let what = format!("{operation} {route:?}");
        assert_eq!(hosts(&resource), [&format!("a.example.com:80: {expected}"), "b.example.com:80: one"], "{what}");
        assert_eq!(said.is_empty(), expected != "one two three", "{what}: {said:?}");
        // Each route still knows where it came from.
        for (index, route) in resource.message.virtual_hosts[0].routes.iter().enumerate() {
            let own = origins(&resource, Part::Route { virtual_host: 0, route: index });
            let expected =
                if route.name == "new" { "test configPatches[0]".into() } else { format!("a-{}", route.name) };
            assert_eq!(own, [expected], "{what}");
        }
        assert_eq!(origins(&resource, Part::Route { virtual_host: 1, route: 0 }), ["b-one"]);
    }
}

#[test]
fn routes_are_merged_before_others_are_inserted() {
    let items = format!(
        "
- applyTo: HTTP_ROUTE
  patch: {{operation: INSERT_FIRST, value: {NEW_ROUTE}}}
- applyTo: HTTP_ROUTE
  match: {{routeConfiguration: {{vhost: {{route: {{action: ROUTE}}}}}}}}
  patch: {{operation: MERGE, value: {{route: {{timeout: 3s}}, request_headers_to_remove: [x]}}}}
- applyTo: HTTP_ROUTE
  match: {{routeConfiguration: {{vhost: {{route: {{name: one}}}}}}}}
  patch: {{operation: MERGE_AND_REPLACE_LIST, value: {{request_headers_to_remove: [z]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["a.example.com:80: new one two three", "b.example.com:80: new one"]);
    let rendered = json::render(&*resource.message).unwrap();
    let routes = &rendered["virtual_hosts"][0]["routes"];
    assert_eq!(routes[0]["route"], json!({"cluster": "own"}));
    assert_eq!(routes[1]["route"], json!({"cluster": "c", "timeout": "3s"}));
    assert_eq!(routes[1]["request_headers_to_remove"], json!(["z"]));
    let expected = ["a-one", "test configPatches[1]", "test configPatches[2]"];
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 1 }), expected);
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn virtual_hosts_are_removed_merged_replaced_and_added() {
    let items = format!(
        "
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'}}}}}}
  patch: {{operation: REMOVE}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{domainName: b.example.com}}}}}}
  patch: {{operation: MERGE, value: {{request_headers_to_remove: [x], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  patch: {{operation: ADD, value: {{name: 'c.example.com:80', domains: [c.example.com], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  patch: {{operation: INSERT_FIRST, value: {{name: late, domains: [B.example.com]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["b.example.com:80: one new", "c.example.com:80: new"]);
    assert_eq!(origins(&resource, Part::Whole), ["whole", "test configPatches[0]"]);
    assert_eq!(origins(&resource, Part::VirtualHost(0)), ["b", "test configPatches[1]"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 0 }), ["b-one"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 1 }), ["test configPatches[1]"]);
    assert_eq!(origins(&resource, Part::VirtualHost(1)), ["test configPatches[2]"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("`b.example.com:80` has the domain `B.example.com` as well"), "{said:?}");

    let items = format!(
        "
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'}}}}}}
  patch: {{operation: REPLACE, value: {{name: own, domains: [a], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'b.example.com:80'}}}}}}
  patch: {{operation: MERGE_AND_REPLACE_LIST, value: {{domains: [d], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'b.example.com:80'}}}}}}
  patch: {{operation: MERGE, value: {{domains: [A]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["own: new", "b.example.com:80: new"]);
    assert_eq!(resource.message.virtual_hosts[1].domains, ["d"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 0 }), ["test configPatches[0]"]);
    assert!(said[0].contains("has the domain `A` as well"), "{said:?}");
}

#[test]
fn a_route_configuration_is_merged() {
    let items = "
- applyTo: ROUTE_CONFIGURATION
  match: {routeConfiguration: {name: '80'}}
  patch: {operation: MERGE, value: {validate_clusters: false, virtual_hosts: [{name: c, domains: [c]}]}}
- applyTo: ROUTE_CONFIGURATION
  patch: {operation: MERGE, value: {virtual_hosts: [{name: twice, domains: [c]}]}}
- applyTo: ROUTE_CONFIGURATION
  patch: {operation: MERGE, value: {name: other}}
";
    let (resource, said) = patched_routes(&root(items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(resource.message.validate_clusters, Some(false));
    assert_eq!(hosts(&resource)[2], "c: ");
    assert_eq!(origins(&resource, Part::VirtualHost(1)), ["b"]);
    assert_eq!(origins(&resource, Part::VirtualHost(2)), ["test configPatches[0]"]);
    assert_eq!(said.len(), 2, "{said:?}");
    let items = "- applyTo: ROUTE_CONFIGURATION\n  patch: {operation: MERGE_AND_REPLACE_LIST, value: {virtual_hosts: [{name: c, domains: [c]}]}}\n";
    let (resource, _) = patched_routes(&root(items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["c: "]);
    assert_eq!(origins(&resource, Part::VirtualHost(0)), ["test configPatches[0]"]);
}

#[test]
fn a_route_configuration_is_found_by_name_port_and_gateway() {
    let matches = |name: &str, context: PatchContext, wanted: &str| {
        let items = format!(
            "- applyTo: ROUTE_CONFIGURATION\n  match: {{routeConfiguration: {{{wanted}}}}}\n  patch: {{operation: MERGE, value: {{validate_clusters: true}}}}\n"
        );
        let (resource, _) = patched_routes(&root(&items), context, &routes(name));
        resource.message.validate_clusters.is_some()
    };
    let sidecar = PatchContext::SidecarOutbound;
    assert!(matches("9080", sidecar, "name: '9080'"));
    assert!(matches("9080", sidecar, "portNumber: 9080"));
    assert!(!matches("9080", sidecar, "portNumber: 9081"));
    assert!(matches("inbound|8080||", PatchContext::SidecarInbound, "portNumber: 8080"));
    assert!(!matches("a.example.com:9080", sidecar, "portNumber: 9080"));
    // On a gateway the number is that of the servers, where it is known.
    let gateway = PatchContext::Gateway;
    assert!(matches("http.8080", gateway, "portNumber: 80"));
    assert!(matches("http.8080", gateway, "portNumber: 81"));
    assert!(!matches("http.8080", gateway, "portNumber: 8080"));
    assert!(matches("http.9090", gateway, "portNumber: 9090"));
    let https = "https.443.web.main.shop";
    assert!(matches(https, gateway, "portNumber: 443, portName: web, gateway: shop/main"));
    assert!(!matches(https, gateway, "portName: other"));
    assert!(!matches(https, gateway, "gateway: shop/other"));
    assert!(!matches("http.8080", gateway, "gateway: shop/main"));
}

#[test]
fn routes_inside_an_inbound_listener_are_patched() {
    let mut chain = http_chain(json!({}));
    let config = chain["filters"][0]["typed_config"].as_object_mut().unwrap();
    config.remove("rds");
    config.insert("route_config".into(), json::render(&*routes("inbound|9080||").message).unwrap());
    let base = listener("virtualInbound", json!([chain]));
    let items = "- applyTo: VIRTUAL_HOST\n  match: {context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 9080, vhost: {name: 'b.example.com:80'}}}\n  patch: {operation: REMOVE}\n";
    let (resource, said) = patched(&root(items), PatchContext::SidecarInbound, &base);
    let rendered = json::render(&*resource.message).unwrap();
    let hosts = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"];
    assert_eq!(hosts.as_array().unwrap().len(), 1);
    assert_eq!(origins(&resource, Part::FilterChain(0)), ["listener", "test configPatches[0]"]);
    assert_eq!(said, Vec::<String>::new());
}

fn cluster(name: &str, extra: Value) -> Resource<Cluster> {
    let mut message = json!({"name": name, "type": "EDS", "connect_timeout": "10s"});
    message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Resource::new(json::parse(message).unwrap(), vec![(Part::Whole, origin("service"))])
}

fn patched_cluster(
    patches: &Patches,
    context: PatchContext,
    resource: &Resource<Cluster>,
) -> (Option<Resource<Cluster>>, Vec<String>) {
    let selected = for_role(patches, Role::Sidecar);
    let mut report = Report::default();
    let patched = with_lookup(|lookup| selected.cluster(context, resource, lookup, &mut report));
    (patched, selected.diagnostics(&report).iter().map(ToString::to_string).collect())
}

#[test]
fn a_cluster_is_found_by_its_name_or_its_parts() {
    let matches = |name: &str, context: PatchContext, wanted: &str| {
        let items = format!("- applyTo: CLUSTER\n  match: {{cluster: {{{wanted}}}}}\n  patch: {{operation: REMOVE}}\n");
        patched_cluster(&root(&items), context, &cluster(name, json!({}))).0.is_none()
    };
    let (outbound, inbound) = (PatchContext::SidecarOutbound, PatchContext::SidecarInbound);
    let name = "outbound|80|v1|a.example.com";
    assert!(matches(name, outbound, ""));
    assert!(matches(name, outbound, "service: a.example.com, subset: v1, portNumber: 80"));
    for wrong in ["service: b.example.com", "subset: v2", "portNumber: 81"] {
        assert!(!matches(name, outbound, wrong), "{wrong}");
    }
    assert!(matches(name, outbound, "name: 'outbound|80|v1|a.example.com', portNumber: 1"), "the name alone decides");
    assert!(!matches(name, outbound, "name: 'outbound|80||a.example.com'"));
    assert!(matches("inbound|9080||", inbound, "service: b.example.com, portNumber: 9080"));
    assert!(!matches("inbound|9080||", inbound, "service: c.example.com"));
    assert!(!matches("BlackHoleCluster", outbound, "portNumber: 80"));
}

#[test]
fn clusters_are_merged_removed_and_added() {
    let items = "
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {name: a}}
  patch: {operation: MERGE, value: {connect_timeout: 0.250s, type: STRICT_DNS, per_connection_buffer_limit_bytes: 7}}
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {name: b}}
  patch: {operation: REMOVE}
- applyTo: CLUSTER
  patch: {operation: ADD, value: {name: limits, type: STATIC}}
- applyTo: CLUSTER
  patch: {operation: INSERT_FIRST, value: {name: a, type: STATIC}}
- applyTo: CLUSTER
  match: {context: GATEWAY}
  patch: {operation: ADD, value: {name: edge, type: STATIC}}
";
    let patches = root(items);
    let selected = for_role(&patches, Role::Sidecar);
    let group = |names: &[&str]| names.iter().map(|name| (Arc::from(*name), cluster(name, json!({})))).collect();
    let groups =
        vec![(PatchContext::SidecarOutbound, group(&["a", "b", "c"])), (PatchContext::SidecarInbound, group(&["in"]))];
    let mut report = Report::default();
    let all = with_lookup(|lookup| selected.clusters(groups, lookup, &mut report));
    assert_eq!(all.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "c", "in", "limits"]);
    let merged = json::render(&*all["a"].message).unwrap();
    let expected =
        json!({"name": "a", "type": "STRICT_DNS", "connect_timeout": "0.250s", "per_connection_buffer_limit_bytes": 7});
    assert_eq!(merged, expected);
    assert_eq!(origins(&all["a"], Part::Whole), ["service", "test configPatches[0]"]);
    assert_eq!(origins(&all["limits"], Part::Whole), ["test configPatches[2]"]);
    assert_eq!(all["c"], cluster("c", json!({})));
    let said: Vec<_> = selected.diagnostics(&report).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("there is a cluster `a` already"), "{said:?}");
}

#[test]
fn a_transport_socket_of_a_cluster_is_merged_where_it_stands() {
    let context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let socket =
        |name: &str| json!({"name": name, "typed_config": {"@type": context, "sni": "own", "max_session_keys": 3}});
    let patch = root(&format!(
        "- applyTo: CLUSTER\n  patch: {{operation: MERGE, value: {{lb_policy: RANDOM, transport_socket: {{name: tls, typed_config: {{'@type': {context}, sni: patched}}}}}}}}\n"
    ));
    let render = |base: Value| {
        let (patched, said) = patched_cluster(&patch, PatchContext::SidecarOutbound, &cluster("a", base));
        (json::render(&*patched.unwrap().message).unwrap(), said)
    };
    let merged = json!({"@type": context, "sni": "patched", "max_session_keys": 3});
    let (same, said) = render(json!({"transport_socket": socket("tls")}));
    assert_eq!(same["transport_socket"]["typed_config"], merged);
    assert_eq!(same.get("lb_policy"), None);
    assert!(said[0].contains("LTN0127"), "{said:?}");
    let patched = json!({"@type": context, "sni": "patched"});
    for base in [json!({"transport_socket": socket("other")}), json!({})] {
        assert_eq!(render(base).0["transport_socket"]["typed_config"], patched);
    }
    let entry = |name: &str| json!({"name": name, "transport_socket": socket(name)});
    let (among, _) = render(json!({"transport_socket_matches": [entry("raw"), entry("tls")]}));
    assert_eq!(among["transport_socket_matches"][0]["transport_socket"], socket("raw"));
    assert_eq!(among["transport_socket_matches"][1]["transport_socket"]["typed_config"], merged);
    assert_eq!(among.get("transport_socket"), None);
    let (none, said) = render(json!({"transport_socket_matches": [entry("raw")]}));
    assert_eq!(none.get("transport_socket"), None);
    assert!(said[0].contains("none of its `transport_socket_matches`"), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_patch_is_told_at_its_place() {
    let cases = [
        (
            "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {name: a, connect_timeout: soon}}",
            "8:65: warning[LTN0120]: the value is no envoy.config.cluster.v3.Cluster: connect_timeout",
        ),
        (
            "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {nam: a}}",
            "8:44: warning[LTN0121]: unknown field: nam",
        ),
        ("- applyTo: CLUSTER\n  patch: {operation: ADD, value: {type: STATIC}}", "LTN0120]: a CLUSTER without `name`"),
        ("- applyTo: CLUSTER\n  patch: {operation: ADD}", "LTN0120]: ADD needs a `value`"),
        (
            "- applyTo: CLUSTER\n  patch: {operation: REPLACE, value: {name: a}}",
            "LTN0122]: CLUSTER does not know the operation REPLACE",
        ),
        (
            "- applyTo: ROUTE_CONFIGURATION\n  patch: {operation: ADD, value: {name: a}}",
            "LTN0122]: ROUTE_CONFIGURATION does not know",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: MERGE_AND_REPLACE_LIST, value: {name: a}}",
            "LTN0122]: HTTP_FILTER does not know",
        ),
        ("- applyTo: EXTENSION_CONFIG\n  patch: {operation: REMOVE}", "LTN0122]: EXTENSION_CONFIG does not know"),
        ("- applyTo: HTTP_FILTER\n  patch: {operation: REMOVE}", "LTN0123]: REMOVE needs the name of a filter"),
        (
            "- applyTo: CLUSTER\n  match: {listener: {name: a}}\n  patch: {operation: REMOVE}",
            "8:23: warning[LTN0123]: a match of a listener cannot tell which CLUSTER",
        ),
        (
            "- applyTo: LISTENER\n  match: {cluster: {name: a}}\n  patch: {operation: REMOVE}",
            "LTN0123]: a match of a cluster",
        ),
        (
            "- applyTo: HTTP_FILTER\n  match: {listener: {filterChain: {filter: {name: h, subFilter: {}}}}}\n  patch: {operation: REMOVE}",
            "LTN0123]: the match of an HTTP filter has no `name`",
        ),
        (
            "- applyTo: CLUSTER\n  match: {proxy: {proxyVersion: '1.(2'}}\n  patch: {operation: REMOVE}",
            "8:35: warning[LTN0123]: `proxyVersion` is no regular expression: unclosed group",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: INSERT_FIRST, value: {name: a, typed_config: {'@type': t/istio.alpn}}}",
            "LTN0120]: the value is no envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter: typed_config: Envoy has no extension with the type t/istio.alpn",
        ),
        (
            "- applyTo: HTTP_FILTER\n  patch: {operation: INSERT_FIRST, value: {name: a}}",
            "LTN0120]: a HTTP_FILTER without `typed_config`",
        ),
        ("- applyTo: BOOTSTRAP\n  patch: {operation: MERGE, value: {}}", "LTN0101]: patches of the bootstrap"),
        (
            "- applyTo: CLUSTER\n  match: {context: WAYPOINT, waypoint: {}}\n  patch: {operation: REMOVE}",
            "LTN0101]: patches for waypoints",
        ),
    ];
    for (items, expected) in cases {
        let patches = root(items);
        let said = messages(&patches);
        assert_eq!(said.len(), 1, "{items}: {said:?}");
        assert!(said[0].contains(expected), "{items}: {said:?}");
        assert_eq!(patches.is_empty(), !expected.contains("LTN0121"), "{items}");
    }
    let targeted = "  targetRefs: [{kind: Gateway, name: a}]\n";
    let patches = patches(&filter("a", ROOT, targeted, "- applyTo: CLUSTER\n  patch: {operation: REMOVE}"));
    assert!(messages(&patches)[0].contains("LTN0101]: `targetRefs`"));
    assert!(patches.is_empty());
}

#[test]
fn a_patch_that_fails_everywhere_is_told_once() {
    let items = "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {name: other}}\n";
    let selected = for_role(&root(items), Role::Sidecar);
    let mut reports = Vec::new();
    for name in ["a", "b"] {
        let mut report = Report::default();
        let base = cluster(name, json!({}));
        let patched =
            with_lookup(|lookup| selected.cluster(PatchContext::SidecarOutbound, &base, lookup, &mut report)).unwrap();
        assert!(Arc::ptr_eq(&patched.message, &base.message));
        reports.push(report);
    }
    let mut joined = Report::default();
    reports.iter().for_each(|report| joined.join(report));
    let said = selected.diagnostics(&joined);
    assert_eq!(said.len(), 1);
    assert!(said[0].message.contains("left out of cluster `a`"), "{}", said[0].message);
    assert_eq!(said[0].path, "spec.configPatches[0]");
}

#[test]
fn a_typed_struct_is_the_message_that_it_stands_for() {
    let value = format!(
        "{{name: x, typed_config: {{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: {LUA}, value: {{inline_code: folded}}}}}}"
    );
    let patches = root(&http_patch("INSERT_FIRST", None, &value));
    assert_eq!(messages(&patches), Vec::<String>::new());
    let (resource, _) = patched(&patches, PatchContext::Gateway, &gateway_listener());
    let rendered = json::render(&*resource.message).unwrap();
    let filter = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0];
    assert_eq!(filter["typed_config"], json!({"@type": LUA, "inline_code": "folded"}));
}
