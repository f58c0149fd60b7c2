//! What does a workload see? Which Sidecar object holds for it, which services and VirtualServices that lets in, and to
//! whom objects are exported.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Mesh, OutboundTrafficPolicy, Scope, World, compile};
use lateen_xds::XdsSet;
use mesh::listeners::*;
use mesh::*;

/// A Sidecar object, with the fields of its spec in flow style. The oldest has the earliest name.
fn sidecar_object(name: &str, namespace: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{fields}}}\n"
    )
}

fn egress(hosts: &str) -> String {
    sidecar_object("default", "default", &format!("egress: [{{hosts: [{hosts}]}}]"))
}

/// A Service with an HTTP port 80.
fn service_in(name: &str, namespace: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn service_entry(name: &str, namespace: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: DNS, {fields}}}\n"
    )
}

fn virtual_service(name: &str, namespace: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{fields}}}\n"
    )
}

/// The hosts of the services that clusters lead to, in order, without the common suffix.
fn reached(set: &XdsSet) -> Vec<String> {
    let hosts = set.clusters.keys().filter_map(|name| name.strip_prefix("outbound|80||"));
    hosts.map(|host| host.replace(".svc.cluster.local", "")).collect()
}

fn hosts_on_80(set: &XdsSet) -> Vec<String> {
    let hosts = virtual_hosts(set, "80").into_iter();
    hosts.map(|host| host.replace(".svc.cluster.local:80", "").replace(":80", "")).collect()
}

fn of(world: &World, namespace: &str, labels: &[(&str, &str)]) -> XdsSet {
    compile(world, &Scope { namespace: namespace.into(), ..redirected_scope(labels) })
}

// Which object holds.

#[test]
fn the_object_that_chooses_a_workload_goes_before_those_for_all() {
    let only = |name: &str, namespace: &str, selector: &str, host: &str| {
        sidecar_object(
            name,
            namespace,
            &format!("{selector}egress: [{{hosts: [\"*/{host}.default.svc.cluster.local\"]}}]"),
        )
    };
    let select = |label: &str| format!("workloadSelector: {{labels: {{{label}}}}}, ");
    let services: String = ["a", "b", "c", "d", "e", "f"].iter().map(|name| service(name, 80)).collect();
    let world = world(
        &[
            services,
            only("m-all", "default", "", "c"),
            only("n-all", "default", "", "d"),
            only("x-web", "default", &select("app: web"), "a"),
            only("y-web", "default", &select("app: web, version: v1"), "b"),
            only("root", "istio-system", "", "e"),
            only("root-web", "istio-system", &select("app: web"), "f"),
        ]
        .concat(),
    );
    assert_eq!(
        reached(&of(&world, "default", &[("app", "web"), ("version", "v1")])),
        ["a.default"],
        "the oldest that fits"
    );
    assert_eq!(reached(&of(&world, "default", &[("app", "api")])), ["c.default"], "the oldest for all");
    // Elsewhere the root namespace's, of which one that chooses workloads is for its own namespace alone.
    assert_eq!(reached(&of(&world, "other", &[("app", "web")])), ["e.default"]);
}

#[test]
fn gateways_see_everything_whatever_sidecars_say() {
    let yaml = [service("a", 80), sidecar_object("root", "istio-system", "egress: [{hosts: [\"~/*\"]}]")].concat();
    assert_eq!(reached(&gateway(&yaml)), ["a.default"]);
}

// What an object lets in.

#[test]
fn hosts_are_imported_by_namespace_and_name() {
    let services = [
        service_in("a", "default", ""),
        service_in("b", "default", ""),
        service_in("a", "team", ""),
        service_entry("api", "team", "hosts: [api.com, x.api.com]"),
    ]
    .concat();
    let reach = |hosts: &str| reached(&redirected(&[services.clone(), egress(hosts)].concat()));
    assert_eq!(reach("\"*/*\""), ["a.default", "a.team", "api.com", "b.default", "x.api.com"]);
    assert_eq!(reach("\"./*\""), ["a.default", "b.default"]);
    assert_eq!(reach("default/*"), ["a.default", "b.default"]);
    assert_eq!(reach("team/*"), ["a.team", "api.com", "x.api.com"]);
    assert_eq!(reach("\"*/*.api.com\""), ["x.api.com"]);
    assert_eq!(reach("\"*/a.team.svc.cluster.local\", \"./b.default.svc.cluster.local\""), ["a.team", "b.default"]);
    assert_eq!(reach("team/a.default.svc.cluster.local"), [""; 0], "no such service in that namespace");
    assert_eq!(reach("\"~/*\""), [""; 0]);
    assert_eq!(reach("\"*/*\", \"~team/*\""), ["a.default", "b.default"], "a namespace may be left out");
    assert_eq!(reach("\"*/*\", \"~team/*.api.com\""), ["a.default", "a.team", "api.com", "b.default"]);
}

#[test]
fn routes_and_listeners_are_there_for_what_is_imported_alone() {
    let set = redirected(
        &[service("a", 80), service("b", 80), service("c", 9080), egress("\"*/a.default.svc.cluster.local\"")].concat(),
    );
    assert_eq!(port_listeners(&set), ["0.0.0.0_80"]);
    assert_eq!(hosts_on_80(&set), ["a.default", "allow_any"]);
}

#[test]
fn where_rules_lead_is_reached_though_its_host_is_not_imported() {
    let yaml = [
        service("a", 80),
        service("b", 80),
        service("c", 80),
        service("d", 80),
        virtual_service("a", "default", "hosts: [a], http: [{route: [{destination: {host: b}}], mirror: {host: c}}]"),
        egress("\"*/a.default.svc.cluster.local\""),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(reached(&set), ["a.default", "b.default", "c.default"]);
    assert_eq!(hosts_on_80(&set), ["a.default", "allow_any"], "by the rules, and not by name");
}

#[test]
fn virtual_services_are_imported_with_hosts_that_overlap_in_either_direction() {
    let routed = |hosts: &str, host: &str, namespace: &str| {
        let yaml = [
            service_entry("x", "team", "hosts: [x.api.com]"),
            service("a", 80),
            virtual_service(
                "vs",
                namespace,
                &format!("hosts: [\"{host}\"], http: [{{route: [{{destination: {{host: to.com}}}}]}}]"),
            ),
            egress(&format!("{hosts}, \"./a.default.svc.cluster.local\"")),
        ]
        .concat();
        table(&redirected(&yaml), "80")
            .virtual_hosts
            .iter()
            .flat_map(mesh::routes)
            .any(|route| route.ends_with("to.com"))
    };
    assert!(routed("team/x.api.com", "x.api.com", "team"));
    assert!(routed("team/x.api.com", "*.api.com", "team"), "a wider rule for a narrower import");
    assert!(routed("team/*.api.com", "x.api.com", "team"));
    assert!(!routed("team/y.api.com", "x.api.com", "team"));
    assert!(!routed("team/x.api.com", "x.api.com", "other"), "the rule's namespace counts, not the service's");
    assert!(routed("\"*/x.api.com\"", "x.api.com", "other"));
    assert!(!routed("\"*/*.api.com\", \"~other/x.api.com\"", "x.api.com", "other"));
}

#[test]
fn of_services_with_one_host_the_own_namespace_then_kubernetes_then_the_oldest_counts() {
    let entry = |name: &str, namespace: &str, address: &str| {
        service_entry(
            name,
            namespace,
            &format!("hosts: [a.team.svc.cluster.local], endpoints: [{{address: {address}}}]"),
        )
    };
    let kubernetes = service_in("a", "team", "");
    let base = [entry("e1", "one", "1.1.1.1"), entry("e2", "two", "2.2.2.2")].concat();
    let found = |yaml: &str, namespace: &str| {
        let set = of(&world(yaml), namespace, &[]);
        let rendered = lateen_xds::json::render(cluster(&set, "outbound|80||a.team.svc.cluster.local")).unwrap();
        let text = rendered.to_string();
        ["1.1.1.1", "2.2.2.2"].into_iter().find(|address| text.contains(address)).unwrap_or("kubernetes")
    };
    assert_eq!(found(&base, "two"), "2.2.2.2");
    assert_eq!(found(&base, "other"), "1.1.1.1");
    let with = [base, kubernetes].concat();
    assert_eq!(found(&with, "other"), "kubernetes");
    assert_eq!(found(&with, "two"), "2.2.2.2");
    // The one that would count is not imported: the next in the same order.
    let import = |hosts: &str| sidecar_object("default", "other", &format!("egress: [{{hosts: [{hosts}]}}]"));
    let three = [with, entry("e3", "a", "3.3.3.3")].concat();
    assert_eq!(found(&[three.clone(), import("\"team/*\", \"two/*\"")].concat(), "other"), "kubernetes");
    assert_eq!(found(&[three, import("\"one/*\", \"two/*\"")].concat(), "other"), "1.1.1.1");
}

#[test]
fn without_egress_listeners_everything_is_seen() {
    let yaml =
        [service("a", 80), sidecar_object("default", "default", "outboundTrafficPolicy: {mode: ALLOW_ANY}")].concat();
    assert_eq!(reached(&redirected(&yaml)), ["a.default"]);
}

// What happens to all others.

#[test]
fn a_policy_that_says_nothing_closes_the_registry() {
    let last = |fields: &str| {
        let set = redirected(&[service("a", 80), sidecar_object("default", "default", fields)].concat());
        let last = table(&set, "80").virtual_hosts.last().unwrap().clone();
        (last.name.clone(), routes(&last), chains(&set, "virtualOutbound")[1].clone())
    };
    let closed = ("block_all".to_owned(), vec!["/* -> 502".to_owned()], "* -> BlackHoleCluster".to_owned());
    let open =
        ("allow_any".to_owned(), vec!["/* -> PassthroughCluster".to_owned()], "* -> PassthroughCluster".to_owned());
    let hosts = "egress: [{hosts: [\"*/*\"]}]";
    assert_eq!(last(&format!("{hosts}, outboundTrafficPolicy: {{}}")), closed);
    assert_eq!(last(&format!("{hosts}, outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}")), closed);
    assert_eq!(last(&format!("{hosts}, outboundTrafficPolicy: {{mode: ALLOW_ANY}}")), open);
    assert_eq!(last(hosts), open, "none at all leaves it to the mesh");
}

#[test]
fn the_policy_of_the_mesh_holds_where_the_sidecar_has_none() {
    let mesh = Mesh { outbound_traffic_policy: OutboundTrafficPolicy::RegistryOnly, ..Mesh::default() };
    let yaml = [service("a", 80), egress("\"*/*\"")].concat();
    let set = compile(&world_with(&yaml, mesh.clone()), &redirected_scope(&[]));
    assert_eq!(hosts_on_80(&set), ["a.default", "block_all"]);
    let own = sidecar_object("default", "default", "outboundTrafficPolicy: {mode: ALLOW_ANY}");
    let set = compile(&world_with(&[service("a", 80), own].concat(), mesh), &redirected_scope(&[]));
    assert_eq!(hosts_on_80(&set), ["a.default", "allow_any"]);
}

// To whom objects are exported.

#[test]
fn services_are_seen_by_those_they_are_exported_to() {
    let note = |value: &str| format!("networking.istio.io/exportTo: \"{value}\"");
    let world = world(
        &[
            service_in("all", "team", ""),
            service_in("own", "team", &note(".")),
            service_in("some", "team", &note("default, third")),
            service_in("star", "team", &note("*")),
            service_in("none", "team", &note("~")),
            service_entry("nobody", "team", "hosts: [nobody.com], exportTo: [\"~\"]"),
            service_entry("private", "team", "hosts: [private.com], exportTo: [\".\"]"),
        ]
        .concat(),
    );
    let seen = |namespace: &str| reached(&of(&world, namespace, &[]));
    assert_eq!(seen("team"), ["all.team", "own.team", "private.com", "star.team"]);
    assert_eq!(seen("default"), ["all.team", "some.team", "star.team"]);
    assert_eq!(seen("other"), ["all.team", "star.team"]);
}

#[test]
fn what_names_nobody_is_seen_by_those_that_the_mesh_names() {
    let own = vec![".".to_owned()];
    let mesh =
        Mesh { default_service_export_to: own.clone(), default_virtual_service_export_to: own, ..Mesh::default() };
    let yaml = [
        service_in("a", "team", ""),
        service_in("b", "default", "networking.istio.io/exportTo: \"*\""),
        virtual_service("b", "default", "hosts: [b], http: [{route: [{destination: {host: to.com}}]}]"),
    ]
    .concat();
    let world = world_with(&yaml, mesh);
    assert_eq!(reached(&of(&world, "default", &[])), ["b.default"]);
    let set = of(&world, "team", &[]);
    assert_eq!(reached(&set), ["a.team", "b.default"]);
    assert_eq!(routes(virtual_host(&set, "80", "b.default.svc.cluster.local:80")), ["/* -> 80||b"]);
}

#[test]
fn private_virtual_services_go_before_exported_ones_and_those_before_public_ones() {
    let rule = |name: &str, namespace: &str, export: &str| {
        virtual_service(
            name,
            namespace,
            &format!(
                "hosts: [a.default.svc.cluster.local], exportTo: [{export}], http: [{{route: [{{destination: {{host: {name}.com}}}}]}}]"
            ),
        )
    };
    let public = [service("a", 80), rule("a-public", "default", "\"*\"")].concat();
    let exported = [public.clone(), rule("b-exported", "team", "default, other")].concat();
    let private = [exported.clone(), rule("c-private", "default", "\".\"")].concat();
    let leads = |yaml: &str, namespace: &str| {
        let set = of(&world(yaml), namespace, &[]);
        routes(virtual_host(&set, "80", "a.default.svc.cluster.local:80"))
    };
    assert_eq!(leads(&public, "default"), ["/* -> 80||a-public.com"]);
    assert_eq!(leads(&exported, "default"), ["/* -> 80||b-exported.com"]);
    assert_eq!(leads(&private, "default"), ["/* -> 80||c-private.com"]);
    assert_eq!(leads(&private, "other"), ["/* -> 80||b-exported.com"]);
    assert_eq!(leads(&private, "team"), ["/* -> 80||a-public.com"], "exported to others, not to itself");
}

#[test]
fn of_destination_rules_for_one_host_those_count_that_the_client_sees() {
    let rule = |name: &str, export: &str, connections: u32| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: default}}\nspec: {{host: a, exportTo: [{export}], trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}}}\n"
        )
    };
    let world = world(&[service("a", 80), rule("r1", "one", 1), rule("r2", "two", 2)].concat());
    let limit = |namespace: &str| {
        let set = of(&world, namespace, &[]);
        let thresholds = cluster(&set, "outbound|80||a.default.svc.cluster.local").circuit_breakers.clone().unwrap();
        thresholds.thresholds[0].max_connections.unwrap()
    };
    assert_eq!([limit("one"), limit("two"), limit("three"), limit("default")], [1, 2, u32::MAX, u32::MAX]);
}
