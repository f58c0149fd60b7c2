//! What does a sidecar get?
#![allow(clippy::unwrap_used)]

mod mesh;

use std::collections::BTreeSet;

use lateen_compile::{Interception, Mesh, OutboundTrafficPolicy, compile};
use lateen_xds::Part;
use lateen_xds::envoy::config::route::v3::route;
use mesh::*;

/// A VirtualService of the mesh with rules in flow style.
fn virtual_service(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  hosts: {hosts}\n  http: {http}\n"
    )
}

fn to(service: &str) -> String {
    format!("[{{route: [{{destination: {{host: {service}}}}}]}}]")
}

const REVIEWS: &str = "reviews.default.svc.cluster.local:9080";

#[test]
fn a_service_without_virtual_service_gets_the_default_route() {
    let set = sidecar(&service("reviews", 9080));
    let host = virtual_host(&set, "9080", REVIEWS);
    assert_eq!(
        host.domains,
        [
            "reviews.default.svc.cluster.local",
            "reviews.default.svc.cluster.local.",
            "reviews",
            "reviews.default.svc",
            "reviews.default"
        ]
    );
    assert_eq!(routes(host), ["/* -> 9080||reviews"]);
    let route = &host.routes[0];
    assert_eq!(route.name, "default");
    let action = forwarding(route);
    assert_eq!(action.timeout, Some(prost_types::Duration::default()));
    assert_eq!(action.max_grpc_timeout, Some(prost_types::Duration::default()));
    let retries = action.retry_policy.as_ref().unwrap();
    assert_eq!(retries.retry_on, "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes");
    assert_eq!(retries.num_retries, Some(2));
    assert_eq!(retries.retry_host_predicate.len(), 1);
    assert_eq!(retries.host_selection_retry_max_attempts, 5);
    let table = table(&set, "9080");
    assert_eq!(table.validate_clusters, Some(false));
    assert!(table.ignore_port_in_host_matching);
}

#[test]
fn clients_of_other_namespaces_know_no_bare_names() {
    let world = world(&service("reviews", 9080));
    let set = compile(&world, &sidecar_scope("other", &[]));
    assert_eq!(
        virtual_host(&set, "9080", REVIEWS).domains,
        [
            "reviews.default.svc.cluster.local",
            "reviews.default.svc.cluster.local.",
            "reviews.default",
            "reviews.default.svc"
        ]
    );
}

#[test]
fn the_virtual_address_of_a_service_is_one_of_its_domains() {
    let yaml = service("reviews", 9080).replace("spec:", "spec:\n  clusterIP: 10.0.0.7");
    let set = sidecar(&yaml);
    assert_eq!(virtual_host(&set, "9080", REVIEWS).domains.last().unwrap(), "10.0.0.7");
}

#[test]
fn rules_are_tried_in_order_up_to_the_first_that_takes_everything() {
    let rules = "
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}}
    route: [{destination: {host: ratings, subset: v1}}]
  - route: [{destination: {host: ratings, subset: v1}, weight: 90}, {destination: {host: ratings, subset: v2}, weight: 10}]
  - match: [{uri: {prefix: /never}}]
    route: [{destination: {host: ratings}}]
";
    let set = sidecar(&format!("{}{}", service("ratings", 9080), virtual_service("ratings", "[ratings]", rules)));
    let host = virtual_host(&set, "9080", "ratings.default.svc.cluster.local:9080");
    assert_eq!(routes(host), ["/* end-user=jason -> 9080|v1|ratings", "/* -> 9080|v1|ratings=90 9080|v2|ratings=10"]);
    assert!(host.routes[0].typed_per_filter_config.contains_key("envoy.filters.http.fault"));
    let operations: Vec<_> =
        host.routes.iter().map(|route| route.decorator.as_ref().unwrap().operation.as_str()).collect();
    assert_eq!(operations, ["ratings.default.svc.cluster.local:9080/*", "ratings:9080/*"]);
    assert_eq!(set.routes["9080"].origin(Part::Route { virtual_host: 0, route: 1 }).unwrap().rule, "http[1]");
}

#[test]
fn of_two_virtual_services_for_one_host_the_oldest_wins_entirely() {
    let newer = virtual_service("a", "[reviews]", &to("newer"))
        .replace("namespace: default}", "namespace: default, creationTimestamp: \"2026-02-01T00:00:00Z\"}");
    let older =
        virtual_service("b", "[reviews]", "[{match: [{uri: {prefix: /x}}], route: [{destination: {host: older}}]}]")
            .replace("namespace: default}", "namespace: default, creationTimestamp: \"2026-01-01T00:00:00Z\"}");
    let set = sidecar(&format!("{}{newer}{older}", service("reviews", 9080)));
    assert_eq!(routes(virtual_host(&set, "9080", REVIEWS)), ["/x* -> 9080||older"]);
}

#[test]
fn hosts_of_no_registry_are_routed_on_port_80_only() {
    let yaml = format!(
        "{}{}{}",
        service("web", 80),
        service("api", 8080),
        virtual_service("google", "[google.com]", &to("web"))
    );
    let set = sidecar(&yaml);
    assert_eq!(virtual_host(&set, "80", "google.com:80").domains, ["google.com"]);
    assert!(!virtual_hosts(&set, "8080").contains(&"google.com:8080".to_owned()));
}

#[test]
fn a_wildcard_routes_for_services_that_no_closer_virtual_service_names() {
    let yaml = format!(
        "{}{}{}{}",
        service("reviews", 9080),
        service("ratings", 9080),
        virtual_service("wide", "[\"*.default.svc.cluster.local\"]", &to("wide")),
        virtual_service("close", "[ratings]", &to("close"))
    );
    let set = sidecar(&yaml);
    assert_eq!(routes(virtual_host(&set, "9080", REVIEWS)), ["/* -> 9080||wide"]);
    assert_eq!(routes(virtual_host(&set, "9080", "ratings.default.svc.cluster.local:9080")), ["/* -> 9080||close"]);
}

#[test]
fn a_wildcard_above_no_service_is_a_host_of_its_own() {
    let yaml = format!("{}{}", service("web", 80), virtual_service("wide", "[\"*.example.com\"]", &to("web")));
    let set = sidecar(&yaml);
    assert_eq!(virtual_host(&set, "80", "*.example.com:80").domains, ["*.example.com"]);
}

#[test]
fn conditions_on_the_client_are_decided_when_routes_are_compiled() {
    let rules = "
  - match: [{sourceLabels: {app: web}}]
    route: [{destination: {host: for-web}}]
  - match: [{sourceNamespace: other}]
    route: [{destination: {host: for-other}}]
  - match: [{port: 1234}]
    route: [{destination: {host: for-port}}]
  - match: [{gateways: [edge], uri: {prefix: /edge}}]
    route: [{destination: {host: for-edge}}]
  - match: [{gateways: [mesh], sourceLabels: {app: nobody}, uri: {prefix: /mesh}}]
    route: [{destination: {host: for-mesh}}]
  - route: [{destination: {host: for-all}}]
";
    let world = world(&format!("{}{}", service("reviews", 9080), virtual_service("reviews", "[reviews]", rules)));
    let of = |namespace, labels: &[(&str, &str)]| {
        let set = compile(&world, &sidecar_scope(namespace, labels));
        routes(virtual_host(&set, "9080", REVIEWS))
    };
    assert_eq!(of("default", &[("app", "web"), ("version", "v1")]), ["/* -> 9080||for-web"]);
    assert_eq!(of("other", &[]), ["/* -> 9080||for-other"]);
    // A match that names gateways is not asked for its source.
    assert_eq!(of("default", &[]), ["/mesh* -> 9080||for-mesh", "/* -> 9080||for-all"]);
}

#[test]
fn a_destination_without_port_means_the_port_of_the_listener() {
    let yaml = format!("{}{}{}", service("a", 80), service("b", 8080), virtual_service("a", "[a]", &to("b")));
    let set = sidecar(&yaml);
    // A sidecar knows of `b` only what listens on port 80, which is nothing.
    assert_eq!(routes(virtual_host(&set, "80", "a.default.svc.cluster.local:80")), ["/* -> 80||b"]);
}

#[test]
fn private_virtual_services_are_seen_in_their_namespace_only() {
    let private =
        virtual_service("reviews", "[reviews]", &to("private")).replace("spec:", "spec:\n  exportTo: [\".\"]");
    let world = world(&format!("{}{private}", service("reviews", 9080)));
    let of = |namespace| routes(virtual_host(&compile(&world, &sidecar_scope(namespace, &[])), "9080", REVIEWS));
    assert_eq!(of("default"), ["/* -> 9080||private"]);
    assert_eq!(of("other"), ["/* -> 9080||reviews"]);
}

#[test]
fn no_domain_is_there_twice() {
    // The ServiceEntry's host is what clients in `default` would call the Service by.
    let entry = "
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: default}
spec: {hosts: [reviews.default], ports: [{number: 9080, name: http, protocol: HTTP}], resolution: DNS}
";
    let set = sidecar(&format!("{}{entry}", service("reviews", 9080)));
    let mut seen = BTreeSet::new();
    for host in &table(&set, "9080").virtual_hosts {
        for domain in &host.domains {
            assert!(seen.insert(domain.clone()), "{domain} is in two virtual hosts");
        }
    }
    assert_eq!(virtual_host(&set, "9080", "reviews.default:9080").domains, ["reviews.default", "reviews.default."]);
}

#[test]
fn listeners_without_redirection_bind_service_ports_on_loopback() {
    let set = sidecar(&format!("{}{}", service("reviews", 9080), service("web", 80)));
    let names: Vec<_> = set.listeners.keys().map(|name| name.to_string()).collect();
    assert_eq!(names, ["127.0.0.1_80", "127.0.0.1_9080"]);
    let listener = &set.listeners["127.0.0.1_9080"].message;
    assert_eq!(listener.bind_to_port, None);
    assert_eq!(listener.filter_chains.len(), 1);
    assert_eq!(
        set.listeners["127.0.0.1_9080"].origin(Part::Whole).unwrap().to_string(),
        "Service default/reviews (mesh.yaml:2)"
    );
    assert!(!set.clusters.contains_key("PassthroughCluster"));
}

#[test]
fn unknown_hosts_are_refused_where_there_is_no_original_destination() {
    let set = sidecar(&service("reviews", 9080));
    let last = table(&set, "9080").virtual_hosts.last().unwrap();
    assert_eq!((last.name.as_str(), last.domains.as_slice()), ("block_all", &["*".to_owned()][..]));
    assert_eq!(routes(last), ["/* -> 502"]);
}

#[test]
fn with_redirection_unknown_hosts_go_where_they_wanted_to() {
    let scope = || {
        let mut scope = sidecar_scope("default", &[]);
        scope.interception = Interception::Redirect;
        scope
    };
    let set = compile(&world(&service("reviews", 9080)), &scope());
    let last = table(&set, "9080").virtual_hosts.last().unwrap();
    assert_eq!(last.name, "allow_any");
    assert_eq!(routes(last), ["/* -> PassthroughCluster"]);
    assert!(set.clusters.contains_key("PassthroughCluster"));
    let names: Vec<_> = set.listeners.keys().map(|name| name.to_string()).collect();
    assert_eq!(names, ["0.0.0.0_9080", "virtualInbound", "virtualOutbound"]);
    let listener = &set.listeners["0.0.0.0_9080"].message;
    assert_eq!(listener.bind_to_port, Some(false));
    assert_eq!(listener.default_filter_chain.as_ref().unwrap().name, "PassthroughFilterChain");

    let closed = Mesh { outbound_traffic_policy: OutboundTrafficPolicy::RegistryOnly, ..Mesh::default() };
    let set = compile(&world_with(&service("reviews", 9080), closed), &scope());
    assert_eq!(table(&set, "9080").virtual_hosts.last().unwrap().name, "block_all");
}

#[test]
fn the_http_proxy_port_tells_services_by_host_and_port() {
    let yaml = format!(
        "{}{}{}",
        service("reviews", 9080),
        service("web", 80),
        virtual_service("google", "[google.com]", &to("web"))
    );
    let mut scope = sidecar_scope("default", &[]);
    scope.http_proxy_port = Some(15080);
    let set = compile(&world(&yaml), &scope);
    assert!(set.listeners.contains_key("127.0.0.1_15080"));
    let table = table(&set, "http_proxy");
    assert!(!table.ignore_port_in_host_matching, "the port takes part in the comparison");
    let reviews = virtual_host(&set, "http_proxy", REVIEWS);
    assert!(reviews.domains.contains(&"reviews:9080".to_owned()), "{:?}", reviews.domains);
    assert!(!reviews.domains.contains(&"reviews".to_owned()), "{:?}", reviews.domains);
    let web = virtual_host(&set, "http_proxy", "web.default.svc.cluster.local:80");
    assert!(web.domains.contains(&"web:80".to_owned()) && web.domains.contains(&"web".to_owned()));
    assert_eq!(virtual_host(&set, "http_proxy", "google.com:80").domains, ["google.com:80", "google.com"]);
    assert_eq!(table.virtual_hosts.last().unwrap().name, "block_all");
}

#[test]
fn hosts_outside_of_every_registry_are_proxied_although_no_service_has_port_80() {
    let yaml = format!("{}{}", service("reviews", 9080), virtual_service("google", "[google.com]", &to("reviews")));
    let mut scope = sidecar_scope("default", &[]);
    scope.http_proxy_port = Some(15080);
    let set = compile(&world(&yaml), &scope);
    assert!(!set.routes.contains_key("80"));
    assert_eq!(virtual_host(&set, "http_proxy", "google.com:80").domains, ["google.com:80", "google.com"]);
}

#[test]
fn an_external_name_leads_to_the_service_that_it_names() {
    let alias = "
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: reviews.default.svc.cluster.local}
";
    let set = sidecar(&format!(
        "{}{alias}{}{}",
        service("reviews", 9080),
        service("front", 9080),
        virtual_service("front", "[front]", &to("alias"))
    ));
    let domains = &virtual_host(&set, "9080", REVIEWS).domains;
    assert!(domains.contains(&"alias".to_owned()), "{domains:?}");
    assert_eq!(routes(virtual_host(&set, "9080", "front.default.svc.cluster.local:9080")), ["/* -> 9080||reviews"]);
}

#[test]
fn a_rule_whose_destinations_have_no_weight_is_left_out() {
    let rules = "[{match: [{uri: {prefix: /x}}], route: [{destination: {host: a}}, {destination: {host: b}}]}, {route: [{destination: {host: a}, weight: 0}]}]";
    let yaml = format!("{}{}", service("a", 80), virtual_service("a", "[a]", rules));
    let set = compile(&unchecked(&yaml), &sidecar_scope("default", &[]));
    // One destination gets everything, whatever its weight.
    assert_eq!(routes(virtual_host(&set, "80", "a.default.svc.cluster.local:80")), ["/* -> 80||a"]);
}

#[test]
fn equal_scopes_and_worlds_give_equal_bytes_whatever_the_order_of_objects() {
    let parts = [
        service("reviews", 9080),
        service("ratings", 9080),
        workload("reviews", "v1", 9081),
        workload("reviews", "v2", 9082),
        virtual_service("reviews", "[reviews]", &to("ratings")),
    ];
    let forward = sidecar(&parts.concat());
    let backward = sidecar(&parts.iter().rev().cloned().collect::<String>());
    assert!(forward.diff(&backward).is_empty());
    assert!(matches!(table(&forward, "9080").virtual_hosts[0].routes[0].action, Some(route::Action::Route(_))));
}
