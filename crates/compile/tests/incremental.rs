//! Does a compiler that remembers make what one makes that starts afresh? And does an edit touch only what it concerns?

#![allow(clippy::unwrap_used)]

mod mesh;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_compile::{Compiler, Interception, Mesh, Scope, World, compile};
use lateen_config::{Object, SourceFile};
use lateen_xds::{ResourceType, XdsSet};
use mesh::*;
use proptest::prelude::*;

/// A mesh whose objects are edited one at a time. Objects that are not edited stay the very same values.
struct Edited {
    objects: BTreeMap<String, Arc<Object>>,
    world: World,
    compilers: Vec<Compiler>,
}

impl Edited {
    fn new() -> Edited {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let sidecar = Scope::sidecar("default", labels.clone());
        let scopes = vec![
            Scope::gateway("default"),
            Scope { labels: Some(labels), ..Scope::gateway("default") },
            Scope { http_proxy_port: Some(15080), ..sidecar.clone() },
            Scope { interception: Interception::Redirect, addresses: vec!["10.1.0.1".parse().unwrap()], ..sidecar },
            Scope { interception: Interception::Redirect, ..Scope::sidecar("other", BTreeMap::new()) },
        ];
        Edited {
            objects: BTreeMap::new(),
            world: World::build(Vec::new(), Mesh::default()),
            compilers: scopes.into_iter().map(Compiler::new).collect(),
        }
    }

    fn edit(&mut self, key: &str, text: Option<&str>) -> Vec<XdsSet> {
        match text {
            None => {
                self.objects.remove(key);
            }
            Some(text) => {
                let parsed = lateen_config::load(&[SourceFile::new("edit.yaml", text)]);
                let problems: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
                assert_eq!(parsed.objects.len(), 1, "{text}\n{problems:?}");
                self.objects.insert(key.to_owned(), Arc::new(parsed.objects.into_iter().next().unwrap()));
            }
        }
        let objects: Vec<Arc<Object>> = self.objects.values().cloned().collect();
        self.world = self.world.update(&objects, Mesh::default());
        self.compilers.iter_mut().map(|compiler| compiler.compile(&self.world)).collect()
    }

    /// What a compiler makes that remembers nothing, of a world that shares nothing.
    fn afresh(&self) -> (World, Vec<XdsSet>) {
        let world = World::build(self.objects.values().cloned().collect(), Mesh::default());
        let sets = self.compilers.iter().map(|compiler| compile(&world, compiler.scope())).collect();
        (world, sets)
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMES.to_vec())
}

fn head(api: &str, kind: &str, name: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec:\n")
}

const ISTIO: &str = "networking.istio.io/v1";

/// One edit: key of the object, and its text; no text removes it.
fn edit() -> impl Strategy<Value = (String, Option<String>)> {
    let service = (name(), prop::sample::select(vec!["http", "tcp", "grpc", "tls", "auto-x"]), 0..3u32, any::<bool>()).prop_map(
        |(name, protocol, port, headless)| {
            let address = if headless { "None".to_owned() } else { format!("10.0.0.{}", name.as_bytes()[0]) };
            format!(
                "{}  clusterIP: {address}\n  selector: {{app: {name}}}\n  ports: [{{name: {protocol}, port: {}}}, {{name: http-other, port: 90}}]\n",
                head("v1", "Service", name),
                80 + port
            )
        },
    );
    let workload = (name(), 1..3u32, prop::sample::select(vec!["v1", "v2"]), any::<bool>()).prop_map(
        |(name, host, version, account)| {
            let account = if account { "\n  serviceAccount: x" } else { "" };
            format!(
                "{}  address: 10.1.0.{host}\n  labels: {{app: {name}, version: {version}}}{account}\n",
                head(ISTIO, "WorkloadEntry", &format!("{name}-{host}"))
            )
        },
    );
    let rule = (name(), name(), prop::sample::select(vec![
        "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}\n",
        "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}\n",
        "  trafficPolicy: {tls: {mode: SIMPLE, sni: x.example.com}}\n",
        "  trafficPolicy: {outlierDetection: {interval: 1s}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}\n",
        "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n",
    ]))
        .prop_map(|(name, host, policy)| format!("{}  host: {host}\n{policy}", head(ISTIO, "DestinationRule", name)));
    let route = (
        name(),
        prop::sample::select(vec!["a", "b", "'*.example.com'", "x.example.com", "'*.default.svc.cluster.local'"]),
        prop::sample::select(vec!["", "  gateways: [g]\n", "  gateways: [mesh, g]\n"]),
        prop::sample::select(vec![
            "  http: [{route: [{destination: {host: b}}]}]\n",
            "  http: [{timeout: 3s, route: [{destination: {host: a, subset: v1}, weight: 1}, {destination: {host: c}, weight: 2}]}]\n",
            "  http: [{match: [{uri: {prefix: /x}}], redirect: {uri: /y}}, {route: [{destination: {host: d, port: {number: 90}}}]}]\n",
            "  tcp: [{route: [{destination: {host: d}}]}]\n",
            "  http: [{delegate: {name: delegate}}]\n",
        ]),
    )
        .prop_map(|(name, host, gateways, rules)| {
            format!("{}  hosts: [{host}]\n{gateways}{rules}", head(ISTIO, "VirtualService", name))
        });
    let delegate = (1..9u32).prop_map(|timeout| {
        format!(
            "{}  http: [{{timeout: {timeout}s, route: [{{destination: {{host: c}}}}]}}]\n",
            head(ISTIO, "VirtualService", "delegate")
        )
    });
    let gateway = prop::sample::select(vec![
        "  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n",
        "  selector: {app: a}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}, {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*']}]\n",
        "  servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: ['*']}, {port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]\n",
    ])
    .prop_map(|servers| format!("{}{servers}", head(ISTIO, "Gateway", "g")));
    let sidecar = prop::sample::select(vec![
        "  egress: [{hosts: ['./*']}]\n",
        "  egress: [{hosts: ['*/a.default.svc.cluster.local']}]\n  outboundTrafficPolicy: {}\n",
        "  egress: [{port: {number: 90, protocol: HTTP, name: x}, hosts: ['*/*']}, {hosts: ['./b.default.svc.cluster.local']}]\n",
    ])
    .prop_map(|egress| format!("{}{egress}", head(ISTIO, "Sidecar", "s")));
    let policy = prop::sample::select(vec!["STRICT", "DISABLE", "PERMISSIVE"]).prop_map(|mode| {
        format!("{}  mtls: {{mode: {mode}}}\n", head("security.istio.io/v1", "PeerAuthentication", "p"))
    });
    let filter = prop::sample::select(vec![1, 2, 3]).prop_map(|seconds| {
        format!(
            "{}  configPatches:\n  - applyTo: CLUSTER\n    match: {{cluster: {{service: a.default.svc.cluster.local}}}}\n    patch: {{operation: MERGE, value: {{connect_timeout: {seconds}s}}}}\n",
            head("networking.istio.io/v1alpha3", "EnvoyFilter", "f")
        )
    });
    let telemetry = prop::sample::select(vec![
        "  accessLogging: [{providers: [{name: envoy}]}]\n",
        "  accessLogging: [{providers: [{name: envoy}], match: {mode: SERVER}}]\n",
    ])
    .prop_map(|logging| format!("{}{logging}", head("telemetry.istio.io/v1", "Telemetry", "t")));
    let ingress = name().prop_map(|backend| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i, namespace: default, annotations: {{kubernetes.io/ingress.class: istio}}}}\nspec:\n  rules: [{{host: x.example.com, http: {{paths: [{{path: /i, pathType: Prefix, backend: {{service: {{name: {backend}, port: {{number: 90}}}}}}}}]}}}}]\n"
        )
    });
    let text = prop_oneof![
        3 => service,
        4 => workload,
        3 => rule,
        4 => route,
        1 => delegate,
        2 => gateway,
        1 => sidecar,
        1 => policy,
        1 => filter,
        1 => telemetry,
        1 => ingress,
    ];
    (text, prop::bool::weighted(0.2)).prop_map(|(text, removes)| {
        let mut lines = text.lines();
        let key = format!("{} {}", lines.nth(1).unwrap(), lines.next().unwrap());
        (key, (!removes).then_some(text))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn edits_one_after_the_other_make_what_a_fresh_compilation_makes(edits in prop::collection::vec(edit(), 1..24)) {
        let mut edited = Edited::new();
        for (key, text) in edits {
            let remembered = edited.edit(&key, text.as_deref());
            let (world, afresh) = edited.afresh();
            for (index, (remembered, afresh)) in remembered.iter().zip(&afresh).enumerate() {
                prop_assert!(remembered == afresh, "scope {index}, after {key} {text:?}: {:#?}", remembered.diff(afresh));
            }
            prop_assert_eq!(edited.world.diagnostics(), world.diagnostics());
        }
    }
}

/// A mesh of three services on two ports, with rules and workloads.
fn shop() -> Edited {
    let mut edited = Edited::new();
    for (name, port) in [("a", 80), ("b", 80), ("c", 90)] {
        let service = format!(
            "{}  clusterIP: 10.0.0.{port}\n  selector: {{app: {name}}}\n  ports: [{{name: http, port: {port}}}]\n",
            head("v1", "Service", name)
        );
        edited.edit(&format!("service {name}"), Some(&service));
        edited.edit(&format!("workload {name}"), Some(&workload_at(name, 5)));
        edited.edit(&format!("route {name}"), Some(&route_with_timeout(name, 1)));
    }
    edited
}

fn workload_at(name: &str, host: u32) -> String {
    format!("{}  address: 10.1.0.{host}\n  labels: {{app: {name}}}\n", head(ISTIO, "WorkloadEntry", name))
}

fn route_with_timeout(name: &str, timeout: u32) -> String {
    format!(
        "{}  hosts: [{name}]\n  http: [{{timeout: {timeout}s, route: [{{destination: {{host: {name}}}}}]}}]\n",
        head(ISTIO, "VirtualService", name)
    )
}

/// Names of the resources by which two configurations differ.
fn differences(new: &XdsSet, old: &XdsSet) -> Vec<String> {
    let mut found = Vec::new();
    for resource_type in ResourceType::ALL {
        let before: BTreeMap<_, _> = old.versions(resource_type).into_iter().collect();
        for (name, version) in new.versions(resource_type) {
            if before.get(name) != Some(&version) {
                found.push(format!("{resource_type} {name}"));
            }
        }
    }
    found
}

#[test]
fn a_workload_that_moves_touches_endpoints_alone() {
    let mut edited = shop();
    let before = edited.edit("nothing", None);
    let after = edited.edit("workload c", Some(&workload_at("c", 9)));
    let redirected = 3;
    assert_eq!(
        differences(&after[redirected], &before[redirected]),
        ["endpoints outbound|90||c.default.svc.cluster.local"]
    );
}

#[test]
fn a_route_that_changes_touches_the_tables_of_its_port_alone() {
    let mut edited = shop();
    let before = edited.edit("nothing", None);
    let after = edited.edit("route a", Some(&route_with_timeout("a", 2)));
    let redirected = 3;
    assert_eq!(differences(&after[redirected], &before[redirected]), ["route configuration 80"]);
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let edited = shop();
    let objects: Vec<Arc<Object>> = edited.objects.values().cloned().collect();
    let reversed: Vec<Arc<Object>> = objects.iter().rev().cloned().collect();
    let scope = sidecar_scope("default", &[]);
    let compile = |objects| compile(&World::build(objects, Mesh::default()), &scope);
    assert_eq!(compile(objects), compile(reversed));
}
