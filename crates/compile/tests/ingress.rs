//! What do Ingress objects of Kubernetes mean? Which are served, and the hosts, paths and certificates of those.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Mesh, Scope, compile};
use lateen_config::IngressControllerMode;
use lateen_xds::envoy::config::route::v3::route_match;
use lateen_xds::json;
use lateen_xds::{Part, XdsSet};
use mesh::listeners::*;
use mesh::*;

/// An Ingress in `default`; class and spec in flow style.
fn ingress(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: default{metadata}}}\nspec: {{{spec}}}\n"
    )
}

fn class(name: &str, controller: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {name}}}\nspec: {{controller: {controller}}}\n"
    )
}

fn to(service: &str) -> String {
    format!("backend: {{service: {{name: {service}, port: {{number: 80}}}}}}")
}

fn path(path: &str, kind: &str, service: &str) -> String {
    format!("{{path: \"{path}\", pathType: {kind}, {}}}", to(service))
}

fn rule(host: &str, paths: &[String]) -> String {
    let host = if host.is_empty() { String::new() } else { format!("host: \"{host}\", ") };
    format!("{{{host}http: {{paths: [{}]}}}}", paths.join(", "))
}

/// An Ingress of Istio's class with rules.
fn served(name: &str, fields: &str) -> String {
    ingress(name, "", &format!("ingressClassName: istio, {fields}"))
}

/// What the gateway in the root namespace that serves Ingress objects gets.
fn set(yaml: &str) -> XdsSet {
    set_with(yaml, Mesh::default())
}

fn set_with(yaml: &str, mesh: Mesh) -> XdsSet {
    let labels = Some([("istio".to_owned(), "ingressgateway".to_owned())].into());
    compile(&world_with(yaml, mesh), &Scope { labels, ..Scope::gateway("istio-system") })
}

/// Routes of a host on port 80, with `/x/` for a prefix that ends at slashes.
fn paths(set: &XdsSet, host: &str) -> Vec<String> {
    let host = virtual_host(set, "http.80", &format!("{host}:80"));
    let line = |route: &lateen_xds::envoy::config::route::v3::Route| {
        let path = match route.r#match.as_ref().unwrap().path_specifier.as_ref().unwrap() {
            route_match::PathSpecifier::PathSeparatedPrefix(prefix) => format!("{prefix}/"),
            route_match::PathSpecifier::Prefix(prefix) => format!("{prefix}*"),
            route_match::PathSpecifier::Path(path) => path.clone(),
            other => panic!("unexpected path {other:?}"),
        };
        let action = format!("{:?}", forwarding(route).cluster_specifier);
        let cluster = action.split("||").nth(1).unwrap().split('.').next().unwrap().to_owned();
        format!("{path} -> {cluster}")
    };
    host.routes.iter().map(line).collect()
}

#[test]
fn ingresses_of_istios_class_are_served() {
    let rules = format!("rules: [{}]", rule("a.com", &[path("/", "Prefix", "a")]));
    let by_annotation =
        |class: &str| ingress("x", &format!(", annotations: {{kubernetes.io/ingress.class: {class}}}"), &rules);
    let by_field = |class: &str| ingress("x", "", &format!("ingressClassName: {class}, {rules}"));
    let none = ingress("x", "", &rules);
    let is_served = |yaml: String| !set(&yaml).listeners.is_empty();
    assert!(is_served(by_annotation("istio")));
    assert!(!is_served(by_annotation("nginx")));
    assert!(is_served(by_field("istio")));
    assert!(!is_served(by_field("nginx")));
    assert!(!is_served(none.clone()), "one without class is nobody's");
    assert!(is_served([by_field("own"), class("own", "istio.io/ingress-controller")].concat()));
    assert!(
        !is_served([by_field("istio"), class("istio", "example.com/other")].concat()),
        "the class says whose it is"
    );

    let mode = |mode| Mesh { ingress_controller_mode: mode, ..Mesh::default() };
    let is_served = |yaml: &str, mesh| !set_with(yaml, mesh).listeners.is_empty();
    assert!(is_served(&none, mode(IngressControllerMode::Default)));
    assert!(!is_served(&by_field("nginx"), mode(IngressControllerMode::Default)));
    assert!(!is_served(&by_field("istio"), mode(IngressControllerMode::Off)));
    let named = Mesh { ingress_class: "edge".to_owned(), ..Mesh::default() };
    assert!(is_served(&by_field("edge"), named.clone()));
    assert!(!is_served(&by_field("istio"), named));
}

#[test]
fn the_gateway_of_the_mesh_serves_them_and_no_other() {
    let yaml = served("x", &format!("rules: [{}]", rule("a.com", &[path("/", "Prefix", "a")])));
    let other = Scope {
        labels: Some([("istio".to_owned(), "egressgateway".to_owned())].into()),
        ..Scope::gateway("istio-system")
    };
    assert!(compile(&world(&yaml), &other).listeners.is_empty());
    let sidecar = compile(&world(&[yaml.clone(), service("web", 80)].concat()), &redirected_scope(&[]));
    assert!(!virtual_hosts(&sidecar, "80").contains(&"a.com:80".to_owned()), "sidecars do not route by them");
    let set = set(&yaml);
    assert_eq!(listeners(&set), ["0.0.0.0_80"]);
    let origin = set.routes["http.80"].origin(Part::Route { virtual_host: 0, route: 0 }).unwrap();
    assert_eq!((&*origin.kind, &*origin.name, &*origin.rule), ("Ingress", "x", "rules[0].http.paths[0].match[0]"));
    envoy_accepts("ingress", &set);
}

#[test]
fn exact_paths_come_first_then_longer_prefixes_which_end_at_slashes() {
    let paths_of = [
        path("/", "Prefix", "root"),
        path("/a", "Prefix", "short"),
        path("/a/b/", "Prefix", "long"),
        path("/a", "Exact", "exact"),
        path("/c/*", "ImplementationSpecific", "c"),
        path("/d.*", "ImplementationSpecific", "d"),
        path("/e", "ImplementationSpecific", "e"),
    ];
    let set = set(&served("x", &format!("rules: [{}]", rule("a.com", &paths_of))));
    assert_eq!(
        paths(&set, "a.com"),
        ["/a -> exact", "/e -> e", "/a/b/ -> long", "/a/ -> short", "/c/ -> c", "/d/ -> d", "/* -> root"]
    );
    envoy_accepts("ingress-paths", &set);
}

#[test]
fn a_rule_without_host_and_the_default_backend_are_for_every_host() {
    let fields = format!(
        "default{}, rules: [{}, {}]",
        to("fallback").replacen('b', "B", 1),
        rule("", &[path("/x", "Prefix", "every")]),
        rule("a.com", &[path("/", "Prefix", "a")])
    );
    let set = set(&served("x", &fields));
    assert_eq!(virtual_hosts(&set, "http.80"), ["*:80", "a.com:80"]);
    assert_eq!(paths(&set, "*"), ["/x/ -> every", "/* -> fallback"]);
    assert_eq!(paths(&set, "a.com"), ["/* -> a"]);
}

#[test]
fn ingresses_for_one_host_add_up() {
    let of = |name: &str, at: &str, service: &str| {
        served(name, &format!("rules: [{}]", rule("a.com", &[path(at, "Prefix", service)])))
    };
    let set = set(&[of("one", "/", "one"), of("two", "/long/path", "two"), of("three", "/long", "three")].concat());
    assert_eq!(paths(&set, "a.com"), ["/long/path/ -> two", "/long/ -> three", "/* -> one"]);
}

#[test]
fn hosts_may_be_wildcards() {
    let set = set(&served("x", &format!("rules: [{}]", rule("*.a.com", &[path("/", "Prefix", "a")]))));
    assert_eq!(virtual_host(&set, "http.80", "*.a.com:80").domains, ["*.a.com"]);
}

#[test]
fn backends_name_ports_by_number_or_name() {
    let by_name = "{path: /, pathType: Prefix, backend: {service: {name: a, port: {name: http}}}}".to_owned();
    let yaml = |backend: String| served("x", &format!("rules: [{}]", rule("a.com", &[backend])));
    let set_of = set(&[service("a", 8080), yaml(by_name.clone())].concat());
    assert_eq!(routes(virtual_host(&set_of, "http.80", "a.com:80")), ["/* -> 8080||a"]);
    let unknown = set(&yaml(by_name));
    assert!(virtual_host(&unknown, "http.80", "a.com:80").routes.is_empty(), "a port of no service leads nowhere");
}

#[test]
fn certificates_make_https_servers_for_their_hosts() {
    let fields = format!(
        "tls: [{{hosts: [a.com], secretName: one}}, {{hosts: [b.com]}}, {{secretName: every}}], rules: [{}]",
        rule("a.com", &[path("/", "Prefix", "a")])
    );
    let set = set(&served("x", &fields));
    assert_eq!(listeners(&set), ["0.0.0.0_443", "0.0.0.0_80"]);
    let table = |index: u32| {
        format!("https.443.https-443-ingress-x-default-{index}.x-istio-autogenerated-k8s-ingress-default.istio-system")
    };
    assert_eq!(
        chains(&set, "0.0.0.0_443"),
        [format!("sni=a.com -> ends TLS, routes {}", table(0)), format!("* -> ends TLS, routes {}", table(2))]
    );
    let socket = json::render(&listener(&set, "0.0.0.0_443").filter_chains[0]).unwrap().to_string();
    assert!(socket.contains("kubernetes://one"), "{socket}");
    assert_eq!(virtual_hosts(&set, &table(0)), ["a.com:443"]);
    assert_eq!(routes(virtual_host(&set, &table(2), "a.com:443")), ["/* -> 80||a"]);
}
