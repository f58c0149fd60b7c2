//! What do the usual EnvoyFilters make of a compiled mesh? Rate limits and scripts as the guides to Istio write them.

use lateen_compile::{Compiler, Interception, Listen, LocalScope, Mesh, PortMapping, Scope, World};
use lateen_compile::{compile, compile_and_report, compile_local};
use lateen_xds::XdsSet;

use super::mesh::{self, service, sidecar_scope, workload};
use super::*;

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop.example.com]
  gateways: [shop]
  http: [{name: all, route: [{destination: {host: reviews}}]}]
";

/// A token bucket of the gateway, in the root namespace, for the pods of the gateway.
fn rate_limit() -> String {
    let bucket = "{name: envoy.filters.http.local_ratelimit, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
        stat_prefix: gateway, token_bucket: {max_tokens: 9, tokens_per_fill: 9, fill_interval: 1s},
        filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}},
        filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}},
        status: {code: TooManyRequests}}}"
        .replace('\n', " ");
    let patch = http_patch("INSERT_BEFORE", Some("envoy.filters.http.router"), &bucket);
    filter("limit", ROOT, "  workloadSelector: {labels: {istio: edge}}\n", &patch)
}

fn shop(filters: &str) -> World {
    mesh::world(&[GATEWAY, &service("reviews", 9080), &workload("reviews", "v1", 9081), filters].concat())
}

/// What a proxy gets, and what is said about it.
struct Compiled {
    set: XdsSet,
    said: Vec<String>,
}

fn run(world: &World, scope: &Scope) -> Compiled {
    let (set, said) = compile_and_report(world, scope);
    Compiled { set, said: said.iter().map(ToString::to_string).collect() }
}

fn filters_of(set: &XdsSet, listener: &str) -> Vec<String> {
    http_filters(&set.listeners[listener])
}

#[test]
fn a_gateway_gets_its_rate_limit_before_the_router() {
    let world = shop(&rate_limit());
    assert_eq!(world.diagnostics(), []);
    let compiled = run(&world, &Scope::gateway(ROOT));
    let filters = filters_of(&compiled.set, "0.0.0.0_80");
    assert_eq!(filters[filters.len() - 2..], ["local_ratelimit", "router"]);
    assert_eq!(compiled.said, Vec::<String>::new());
    let origins: Vec<String> =
        compiled.set.listeners["0.0.0.0_80"].origins_of(Part::FilterChain(0)).map(ToString::to_string).collect();
    assert_eq!(origins.len(), 2, "{origins:?}");
    assert!(origins[1].starts_with("EnvoyFilter istio-system/limit configPatches[0] (mesh.yaml:"), "{origins:?}");
    // Another gateway and a sidecar get none, and nothing is said about it.
    let mut other = Scope::gateway(ROOT);
    other.labels = Some(BTreeMap::from([("istio".to_owned(), "other".to_owned())]));
    for scope in [other, sidecar_scope("default", &[])] {
        let compiled = run(&world, &scope);
        assert_eq!(compiled.said, Vec::<String>::new());
        let all = compiled.set.listeners.keys().flat_map(|name| filters_of(&compiled.set, name));
        assert!(!all.collect::<Vec<_>>().contains(&"local_ratelimit".to_owned()));
    }
}

#[test]
fn the_guides_own_rate_limit_is_applied() {
    let folder = std::env::var_os("LATEEN_CASES").map_or_else(
        || std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases")),
        std::path::PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("../guide/21-local-rate-limit.yaml")) else {
        return;
    };
    let world = shop(&format!("---\n{text}"));
    assert_eq!(world.diagnostics(), []);
    let compiled = run(&world, &Scope::gateway(ROOT));
    let filters = filters_of(&compiled.set, "0.0.0.0_80");
    assert_eq!(filters[filters.len() - 2..], ["local_ratelimit", "router"]);
    assert_eq!(compiled.said, Vec::<String>::new());
}

#[test]
fn a_global_rate_limit_is_a_filter_a_cluster_and_actions_of_a_host() {
    let items = "
- applyTo: HTTP_FILTER
  match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
  patch:
    operation: INSERT_BEFORE
    value:
      name: envoy.filters.http.ratelimit
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
        domain: shop
        timeout: 10s
        rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: limits}}}
- applyTo: CLUSTER
  match: {context: GATEWAY}
  patch:
    operation: ADD
    value:
      name: limits
      type: STRICT_DNS
      connect_timeout: 10s
      load_assignment: {cluster_name: limits, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8081}}}}]}]}
- applyTo: VIRTUAL_HOST
  match: {context: GATEWAY, routeConfiguration: {portNumber: 80, vhost: {name: 'shop.example.com:80', route: {action: ANY}}}}
  patch:
    operation: MERGE
    value: {rate_limits: [{actions: [{request_headers: {header_name: ':path', descriptor_key: PATH}}]}]}
";
    let world = shop(&filter("limits", ROOT, "", items));
    assert_eq!(world.diagnostics(), []);
    let compiled = run(&world, &Scope::gateway(ROOT));
    assert_eq!(compiled.said, Vec::<String>::new());
    assert!(filters_of(&compiled.set, "0.0.0.0_80").contains(&"ratelimit".to_owned()));
    assert!(compiled.set.clusters["limits"].message.load_assignment.is_some());
    let host = mesh::virtual_host(&compiled.set, "http.80", "shop.example.com:80");
    assert_eq!(host.rate_limits.len(), 1);
    assert_eq!(host.routes.len(), 1);
}

#[test]
fn both_directions_of_a_sidecar_are_patched_apart() {
    let script = |context: &str| {
        format!(
            "
- applyTo: HTTP_FILTER
  match: {{context: {context}, listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager, subFilter: {{name: envoy.filters.http.router}}}}}}}}}}
  patch: {{operation: INSERT_BEFORE, value: {}}}
- applyTo: VIRTUAL_HOST
  match: {{context: {context}}}
  patch: {{operation: MERGE, value: {{request_headers_to_add: [{{header: {{key: x-{context}, value: host}}}}]}}}}
",
            lua(&format!("script.{context}"))
        )
    };
    let cluster = |context: &str| {
        format!(
            "- applyTo: CLUSTER\n  match: {{context: {context}, cluster: {{service: reviews.default.svc.cluster.local}}}}\n  patch: {{operation: MERGE, value: {{alt_stat_name: {context}}}}}\n"
        )
    };
    let items = ["SIDECAR_INBOUND", "SIDECAR_OUTBOUND"].map(|context| script(context) + &cluster(context)).concat();
    let filters = filter("scripts", "default", "", &items);
    let world = shop(&filters);
    assert_eq!(world.diagnostics(), []);
    let mut scope = sidecar_scope("default", &[("app", "reviews"), ("version", "v1")]);
    scope.interception = Interception::Redirect;
    scope.addresses = vec!["127.0.0.1".parse().unwrap()];
    let compiled = run(&world, &scope);
    assert_eq!(compiled.said, Vec::<String>::new());
    let set = &compiled.set;
    let outbound = &set.clusters["outbound|9080||reviews.default.svc.cluster.local"];
    assert_eq!(outbound.message.alt_stat_name, "SIDECAR_OUTBOUND");
    assert_eq!(set.clusters["inbound|9081||"].message.alt_stat_name, "SIDECAR_INBOUND");
    let hosts = &set.routes["9080"].message.virtual_hosts;
    assert!(hosts.iter().all(|host| host.request_headers_to_add.len() == 1), "{hosts:#?}");
    let listener = |name: &str| json::render(&*set.listeners[name].message).unwrap().to_string();
    let inbound = listener("virtualInbound");
    assert!(inbound.contains("script.SIDECAR_INBOUND") && inbound.contains("x-SIDECAR_INBOUND"));
    assert!(!inbound.contains("SIDECAR_OUTBOUND"));
    let outbound = listener("0.0.0.0_9080");
    assert!(outbound.contains("script.SIDECAR_OUTBOUND") && !outbound.contains("SIDECAR_INBOUND"));
}

#[test]
fn the_number_of_a_gateways_server_finds_what_is_bound_elsewhere() {
    let items = "
- applyTo: ROUTE_CONFIGURATION
  match: {context: GATEWAY, routeConfiguration: {portNumber: 80}}
  patch: {operation: MERGE, value: {validate_clusters: false}}
";
    let edge = "---\napiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: istio-system}\nspec: {selector: {istio: edge}, ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: edge-1, namespace: istio-system, labels: {istio: edge}}\nstatus: {podIP: 10.0.0.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}\n";
    let world = shop(&[&filter("a", ROOT, "", items), edge, pod].concat());
    let mut scope = Scope::gateway(ROOT);
    scope.labels = Some(BTreeMap::from([("istio".to_owned(), "edge".to_owned())]));
    scope.addresses = vec!["10.0.0.9".parse().unwrap()];
    let compiled = run(&world, &scope);
    assert_eq!(compiled.said, Vec::<String>::new());
    assert_eq!(compiled.set.routes["http.8080"].message.validate_clusters, Some(false));
}

#[test]
fn a_version_that_a_proxy_tells_counts() {
    let items = "
- applyTo: CLUSTER
  match: {proxy: {proxyVersion: '^1\\.9\\.', metadata: {TEAM: shop}}}
  patch: {operation: ADD, value: {name: old, type: STATIC}}
";
    let world = shop(&filter("a", ROOT, "", items));
    let mut scope = Scope::gateway(ROOT);
    assert!(!compile(&world, &scope).clusters.contains_key("old"));
    scope.metadata = BTreeMap::from([("ISTIO_VERSION".into(), "1.9.4".into()), ("TEAM".into(), "shop".into())]);
    assert!(compile(&world, &scope).clusters.contains_key("old"));
}

#[test]
fn endpoints_go_with_their_cluster_and_what_is_added_binds_like_the_rest() {
    let items = "
- applyTo: CLUSTER
  match: {cluster: {service: reviews.default.svc.cluster.local}}
  patch: {operation: REMOVE}
- applyTo: LISTENER
  patch: {operation: ADD, value: {name: extra, address: {socket_address: {address: 0.0.0.0, port_value: 90, ipv4_compat: true}}}}
";
    let world = shop(&filter("a", ROOT, "", items));
    let mut scope = Scope::gateway(ROOT);
    scope.listen = Listen { bind: Some("127.0.0.1".parse().unwrap()), ports: PortMapping::Offset(8000) };
    let set = compile(&world, &scope);
    let name = "outbound|9080||reviews.default.svc.cluster.local";
    assert!(!set.clusters.contains_key(name) && !set.endpoints.contains_key(name));
    let address = json::render(&*set.listeners["extra"].message).unwrap()["address"].clone();
    assert_eq!(address, json!({"socket_address": {"address": "127.0.0.1", "port_value": 8090, "ipv4_compat": true}}));
}

#[test]
fn of_two_proxies_in_one_a_patch_has_to_match_either() {
    let on_port = |port: u32| {
        http_patch("INSERT_FIRST", None, &lua(&format!("on-{port}")))
            .replace("context: GATEWAY, listener: {", &format!("listener: {{portNumber: {port}, "))
    };
    let world = shop(&filter("a", ROOT, "", &(on_port(80) + &on_port(9080) + &on_port(7))));
    let scope = LocalScope { gateway: Scope::gateway(ROOT), sidecar: sidecar_scope("default", &[]) };
    let local = compile_local(&world, &scope);
    let said: Vec<String> = local.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("LTN0125"), "{said:?}");
    assert_eq!(local.diagnostics[0].path, "spec.configPatches[2]");
    assert_eq!(filters_of(&local.set, "0.0.0.0_80")[0], "on-80");
    assert_eq!(filters_of(&local.set, "127.0.0.1_9080")[0], "on-9080");
}

#[test]
fn patches_stay_the_same_when_other_objects_change() {
    let load = |yaml: &str| objects(yaml);
    let filters = load(&rate_limit());
    let before = [filters.clone(), load(&service("a", 80))].concat();
    let after = [filters, load(&service("b", 80))].concat();
    let world = World::build(before, Mesh::default());
    let updated = world.update(&after, Mesh::default());
    assert!(std::ptr::eq(world.patches(), updated.patches()));
    assert!(!std::ptr::eq(world.patches(), world.update(&[], Mesh::default()).patches()));
}

#[test]
fn a_compiler_that_remembers_makes_what_a_fresh_one_makes() {
    let limit = objects(&rate_limit());
    let fixed = objects(&[GATEWAY, &service("reviews", 9080), &workload("reviews", "v1", 9081)].concat());
    let other = objects(&filter(
        "other",
        ROOT,
        "",
        "- applyTo: CLUSTER\n  patch: {operation: MERGE, value: {lb_policy: RANDOM}}",
    ));
    let nothing = objects(&filter(
        "nothing",
        ROOT,
        "",
        "- applyTo: CLUSTER\n  match: {cluster: {name: absent}}\n  patch: {operation: REMOVE}",
    ));
    let worlds = [
        fixed.clone(),
        [fixed.clone(), limit.clone()].concat(),
        [fixed.clone(), limit.clone(), objects(&service("more", 9090))].concat(),
        [fixed.clone(), limit.clone(), other.clone()].concat(),
        [fixed.clone(), other, nothing].concat(),
        fixed,
    ];
    for scope in [Scope::gateway(ROOT), sidecar_scope("default", &[])] {
        let mut compiler = Compiler::new(scope.clone());
        let mut world = World::build(Vec::new(), Mesh::default());
        let mut before: Option<XdsSet> = None;
        for (index, objects) in worlds.iter().enumerate() {
            world = world.update(objects, Mesh::default());
            let set = compiler.compile(&world);
            let (fresh, said) = compile_and_report(&world, &scope);
            assert_eq!(set, fresh, "world {index}");
            assert_eq!(compiler.diagnostics(), said, "world {index}");
            assert_eq!(said.len(), usize::from(index == 4), "world {index}: {said:?}");
            // A service more leaves the patched listener of the gateway what it was.
            if let (2, Some(before)) = (index, &before) {
                for (name, listener) in &before.listeners {
                    assert_eq!(set.listeners[name].version, listener.version);
                }
            }
            before = Some(set);
        }
    }
}
