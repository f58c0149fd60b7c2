//! What do EnvoyFilters change? Every type and operation, positions and orders, on small resources written by hand.
#![allow(clippy::unwrap_used)]

mod clusters;
mod compiled;
mod http_filters;
mod listeners;
#[path = "../mesh/mod.rs"]
mod mesh;
mod problems;
mod routes;
mod selection;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_compile::Role;
use lateen_compile::patches::{Lookup, Patches, ProxyFacts, Report, Selected};
use lateen_config::{PatchContext, SourceFile, Spec};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::listener::v3::{FilterChain, Listener, filter};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::{Origin, Part, Resource, any, json};
use serde_json::{Value, json};

pub(crate) const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub(crate) const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
pub(crate) const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
pub(crate) const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

/// The root namespace of all tests.
pub(crate) const ROOT: &str = "istio-system";

/// An EnvoyFilter with one patch for each item; the items are indented as a list of YAML.
pub(crate) fn filter(name: &str, namespace: &str, spec: &str, patches: &str) -> String {
    let patches: String = patches.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}  configPatches:\n{patches}"
    )
}

pub(crate) fn patches(yaml: &str) -> Patches {
    build(&objects(yaml))
}

pub(crate) fn objects(yaml: &str) -> Vec<Arc<lateen_config::Object>> {
    let loaded = lateen_config::load(&[SourceFile::new("filters.yaml", yaml)]);
    // What skipped Istio's rules must not harm either.
    let counts = |found: &&lateen_config::Diagnostic| found.is_error() && found.code != lateen_config::code::INVALID;
    let errors: Vec<_> = loaded.diagnostics.iter().filter(counts).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    loaded.objects.into_iter().map(Into::into).collect()
}

pub(crate) fn build(objects: &[Arc<lateen_config::Object>]) -> Patches {
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
pub(crate) fn root(items: &str) -> Patches {
    patches(&filter("test", ROOT, "", items))
}

pub(crate) fn for_role(patches: &Patches, role: Role) -> Selected {
    patches.for_proxy(&ProxyFacts {
        role,
        namespace: "default",
        labels: Some(&BTreeMap::new()),
        istio_version: "1.27.3",
        metadata: &BTreeMap::new(),
    })
}

pub(crate) fn messages(patches: &Patches) -> Vec<String> {
    patches.diagnostics().iter().map(ToString::to_string).collect()
}

/// What a test looks at besides the resources: servers 80 and 81 share `http.8080`; two services stand behind 9080.
pub(crate) fn with_lookup<T>(run: impl FnOnce(&Lookup<'_>) -> T) -> T {
    run(&Lookup {
        server_ports: &|name| if name == "http.8080" { vec![80, 81] } else { Vec::new() },
        inbound_hosts: &|port| {
            if port == 9080 { vec!["a.example.com".into(), "b.example.com".into()] } else { Vec::new() }
        },
    })
}

pub(crate) fn http_filter(name: &str) -> Value {
    match name {
        "envoy.filters.http.router" => json!({"name": name, "typed_config": {"@type": ROUTER}}),
        _ => json!({"name": name, "typed_config": {"@type": LUA}}),
    }
}

pub(crate) fn http_chain(extra: Value) -> Value {
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

pub(crate) fn tcp_filter(cluster: &str) -> Value {
    json!({"name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": TCP_PROXY, "stat_prefix": "s", "cluster": cluster}})
}

pub(crate) fn origin(name: &str) -> Origin {
    Origin { kind: "Test".into(), name: name.into(), ..Origin::default() }
}

/// A listener with the origin `listener`, and `chain-N` for each chain but the first.
pub(crate) fn listener(name: &str, chains: Value) -> Resource<Listener> {
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

pub(crate) fn gateway_listener() -> Resource<Listener> {
    listener("0.0.0.0_8080", json!([http_chain(json!({}))]))
}

/// A listener as the patches leave it, with what is said about it.
pub(crate) fn patched(
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

pub(crate) fn manager(chain: &FilterChain) -> HttpConnectionManager {
    let config = chain.filters.iter().find_map(|filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => any::unpack::<HttpConnectionManager>(config).ok(),
        _ => None,
    });
    config.unwrap()
}

pub(crate) fn http_filters(listener: &Resource<Listener>) -> Vec<String> {
    let names = manager(&listener.message.filter_chains[0]).http_filters.into_iter();
    names.map(|filter| filter.name.replace("envoy.filters.http.", "")).collect()
}

pub(crate) fn origins<M>(resource: &Resource<M>, part: Part) -> Vec<String> {
    resource.origins_of(part).map(|origin| format!("{} {}", origin.name, origin.rule).trim().to_owned()).collect()
}

pub(crate) fn lua(name: &str) -> String {
    format!("{{name: {name}, typed_config: {{'@type': {LUA}}}}}")
}

/// A patch of HTTP filters; without a `sub_filter` the match ends with the connection manager.
pub(crate) fn http_patch(operation: &str, sub_filter: Option<&str>, value: &str) -> String {
    let sub_filter = sub_filter.map(|name| format!(", subFilter: {{name: {name}}}")).unwrap_or_default();
    format!(
        "- applyTo: HTTP_FILTER\n  match: {{context: GATEWAY, listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager{sub_filter}}}}}}}}}\n  patch: {{operation: {operation}, value: {value}}}\n"
    )
}

pub(crate) fn cluster(name: &str, extra: Value) -> Resource<Cluster> {
    let mut message = json!({"name": name, "type": "EDS", "connect_timeout": "10s"});
    message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Resource::new(json::parse(message).unwrap(), vec![(Part::Whole, origin("service"))])
}
