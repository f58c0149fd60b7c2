//! Which rules of Istio are easily got wrong? One test for each that is a matter of compilation and that no other file
//! asks for.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::collections::BTreeSet;

use lateen_compile::{Scope, compile};
use lateen_xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use lateen_xds::envoy::config::route::v3::route_action::hash_policy;
use lateen_xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_xds::{XdsSet, any};
use mesh::listeners::*;
use mesh::*;

/// Any object of Istio's networking API, with its spec in flow style.
fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn virtual_service(name: &str, spec: &str) -> String {
    object("VirtualService", name, "default", spec)
}

fn destination_rule(name: &str, spec: &str) -> String {
    object("DestinationRule", name, "default", spec)
}

fn gateway_object(name: &str, hosts: &str) -> String {
    let server = format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}");
    object("Gateway", name, "default", &format!("servers: [{server}]"))
}

const A: &str = "a.default.svc.cluster.local:80";

/// Routes of service `a` under a VirtualService with rules in flow style.
fn routes_of_a(http: &str) -> Vec<String> {
    let set = sidecar(&[service("a", 80), virtual_service("a", &format!("hosts: [a], http: [{http}]"))].concat());
    routes(virtual_host(&set, "80", A))
}

#[test]
fn short_names_are_completed_in_the_namespace_of_the_object_that_writes_them() {
    let rule = object(
        "VirtualService",
        "a",
        "team",
        "hosts: [a.default.svc.cluster.local], http: [{route: [{destination: {host: b}}], mirror: {host: c.prod}}]",
    );
    let set = sidecar(&[service("a", 80), rule].concat());
    let route = &virtual_host(&set, "80", A).routes[0];
    assert_eq!(describe(route), "/* -> 80||b.team.svc.cluster.local");
    let mirror = &forwarding(route).request_mirror_policies[0];
    assert_eq!(mirror.cluster, "outbound|80||c.prod", "a name with a dot is whole");
}

#[test]
fn a_match_that_takes_everything_ends_the_rules() {
    let never = "{match: [{uri: {prefix: /never}}], route: [{destination: {host: never}}]}";
    for everything in
        ["{uri: {prefix: /}}", "{uri: {regex: '.*'}}", "{name: all}", "{uri: {prefix: /}, ignoreUriCase: true}"]
    {
        let routes = routes_of_a(&format!(
            "{{match: [{everything}, {{uri: {{prefix: /x}}}}], route: [{{destination: {{host: b}}}}]}}, {never}"
        ));
        assert_eq!(routes.len(), 1, "{everything}: {routes:?}");
    }
    for something in
        ["{method: {exact: GET}}", "{uri: {regex: '/.*'}}", "{queryParams: {q: {exact: one}}}", "{uri: {exact: /}}"]
    {
        let routes = routes_of_a(&format!("{{match: [{something}], route: [{{destination: {{host: b}}}}]}}, {never}"));
        assert_eq!(routes.len(), 2, "{something}: {routes:?}");
    }
}

#[test]
fn a_match_that_is_for_others_ends_nothing() {
    let rules = "{match: [{port: 81}, {sourceLabels: {app: other}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: c}}]}";
    assert_eq!(routes_of_a(rules), ["/* -> 80||c"]);
}

#[test]
fn a_virtual_service_without_a_rule_for_a_port_leaves_the_service_its_default() {
    assert_eq!(routes_of_a("{match: [{port: 81}], route: [{destination: {host: b}}]}"), ["/* -> 80||a"]);
}

#[test]
fn a_destination_at_a_gateway_without_port_is_that_of_the_server_unless_its_service_has_one_alone() {
    let two = "---\napiVersion: v1\nkind: Service\nmetadata: {name: two, namespace: default}\nspec: {ports: [{name: http, port: 8080}, {name: http-b, port: 8081}]}\n";
    let rules = "{match: [{uri: {prefix: /one}}], route: [{destination: {host: one}}]}, {match: [{uri: {prefix: /two}}], route: [{destination: {host: two}}]}, {route: [{destination: {host: none}}]}";
    let yaml = [
        gateway_object("gw", "\"*\""),
        service("one", 9080),
        two.to_owned(),
        virtual_service("vs", &format!("hosts: [\"*\"], gateways: [gw], http: [{rules}]")),
    ]
    .concat();
    let set = gateway(&yaml);
    assert_eq!(
        routes(virtual_host(&set, "http.80", "*:80")),
        ["/one* -> 9080||one", "/two* -> 80||two", "/* -> 80||none"]
    );
}

#[test]
fn routes_are_named_by_their_rule_and_match() {
    let rules = "{name: rule, match: [{uri: {prefix: /a}, name: match, statPrefix: stat}, {uri: {prefix: /b}}], route: [{destination: {host: b}}]}, {match: [{name: match}], route: [{destination: {host: b}}]}";
    let set = sidecar(&[service("a", 80), virtual_service("a", &format!("hosts: [a], http: [{rules}]"))].concat());
    let routes = &virtual_host(&set, "80", A).routes;
    let names: Vec<_> = routes.iter().map(|route| (route.name.as_str(), route.stat_prefix.as_str())).collect();
    assert_eq!(names, [("rule.match", "stat"), ("rule", ""), (".match", "")]);
    let metadata = lateen_xds::json::render(routes[0].metadata.as_ref().unwrap()).unwrap();
    assert_eq!(
        metadata["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/default/virtual-service/a"
    );
}

#[test]
fn gateways_are_named_from_the_namespace_of_the_rule_in_every_form() {
    let bound = |reference: &str, namespace: &str| {
        let rule = object(
            "VirtualService",
            "vs",
            namespace,
            &format!(
                "hosts: [a.com], gateways: [{reference}], http: [{{match: [{{gateways: [{reference}]}}], route: [{{destination: {{host: b.com}}}}]}}]"
            ),
        );
        let set = compile(&unchecked(&[gateway_object("gw", "\"*\""), rule].concat()), &Scope::gateway("istio-system"));
        virtual_hosts(&set, "http.80") == ["a.com:80"]
    };
    assert!(bound("gw", "default") && !bound("gw", "other"));
    assert!(bound("./gw", "default") && !bound("./gw", "other"));
    assert!(bound("default/gw", "default") && bound("default/gw", "other"));
    assert!(bound("gw.default", "other") && bound("gw.default.svc.cluster.local", "other"));
    assert!(!bound("mesh", "default"));
}

#[test]
fn objects_of_one_age_are_sorted_by_name_then_namespace() {
    let rule = |name: &str, namespace: &str| {
        object(
            "VirtualService",
            name,
            namespace,
            &format!(
                "hosts: [a.default.svc.cluster.local], http: [{{route: [{{destination: {{host: {name}.{namespace}.com}}}}]}}]"
            ),
        )
    };
    let first = |rules: &[String]| {
        let set = sidecar(&[service("a", 80), rules.concat()].concat());
        routes(virtual_host(&set, "80", A))
    };
    assert_eq!(first(&[rule("b", "a"), rule("a", "z")]), ["/* -> 80||a.z.com"]);
    assert_eq!(first(&[rule("a", "z"), rule("a", "b")]), ["/* -> 80||a.b.com"]);
}

#[test]
fn a_destination_that_names_no_host_leads_to_no_cluster() {
    let rule = virtual_service("a", "hosts: [a], http: [{route: [{weight: 1}]}]");
    let set = compile(&unchecked(&[service("a", 80), rule].concat()), &sidecar_scope("default", &[]));
    assert_eq!(routes(virtual_host(&set, "80", A)), ["/* -> UnknownService"]);
}

#[test]
fn hosts_are_compared_in_lower_case_and_authorities_as_they_are() {
    let rule = virtual_service(
        "vs",
        "hosts: [Shop.Example.com], gateways: [gw], http: [{match: [{authority: {exact: \"Shop.example.com:8080\"}}], route: [{destination: {host: b.com}}]}]",
    );
    let set = gateway(&[gateway_object("gw", "shop.EXAMPLE.com"), rule].concat());
    let host = virtual_host(&set, "http.80", "shop.example.com:80");
    assert_eq!(host.domains, ["shop.example.com"]);
    assert_eq!(routes(host), ["/* :authority=Shop.example.com:8080 -> 80||b.com"]);
}

#[test]
fn shares_are_cut_off_as_binary_fractions_are() {
    for (share, numerator) in [("0.57", 5699), ("0.0001", 1), ("33.3333", 333_333), ("100", 1_000_000)] {
        let rules = format!(
            "hosts: [a], http: [{{route: [{{destination: {{host: a}}}}], fault: {{abort: {{httpStatus: 500, percentage: {{value: {share}}}}}}}}}]"
        );
        let set = sidecar(&[service("a", 80), virtual_service("a", &rules)].concat());
        let config = &virtual_host(&set, "80", A).routes[0].typed_per_filter_config["envoy.filters.http.fault"];
        let fault: HttpFault = any::unpack(config).unwrap();
        assert_eq!(fault.abort.unwrap().percentage.unwrap().numerator, numerator, "{share}");
    }
}

#[test]
fn a_wildcard_rule_of_the_clients_namespace_hides_an_exact_one_of_the_owners() {
    let yaml = [
        service("a", 80),
        destination_rule("a", "host: a, subsets: [{name: v1, labels: {version: v1}}]"),
        object(
            "DestinationRule",
            "all",
            "client",
            "host: \"*.svc.cluster.local\", trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}",
        ),
    ]
    .concat();
    let world = world(&yaml);
    let clusters = |namespace: &str| {
        let set = compile(&world, &sidecar_scope(namespace, &[]));
        set.clusters
            .keys()
            .filter(|name| name.ends_with("|a.default.svc.cluster.local"))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(clusters("default").len(), 2);
    assert_eq!(clusters("client"), ["outbound|80||a.default.svc.cluster.local"], "with the subset");
}

#[test]
fn subsets_have_clusters_whoever_stands_behind_them() {
    let rule = destination_rule("a", "host: a, subsets: [{name: none, labels: {version: none}}, {name: all}]");
    let set = sidecar(&[service("a", 80), workload("a", "v1", 8080), rule].concat());
    assert!(endpoints(&set, "outbound|80|none|a.default.svc.cluster.local").is_empty());
    assert_eq!(
        endpoints(&set, "outbound|80|all|a.default.svc.cluster.local"),
        ["127.0.0.1:8080"],
        "no labels choose all"
    );
}

#[test]
fn zero_limits_are_no_limits() {
    let rule = destination_rule(
        "a",
        "host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 0}, http: {http1MaxPendingRequests: 0, http2MaxRequests: 0, maxRetries: 0, maxRequestsPerConnection: 0}}, outlierDetection: {maxEjectionPercent: 0, consecutive5xxErrors: 3}}",
    );
    let set = compile(&unchecked(&[service("a", 80), rule].concat()), &sidecar_scope("default", &[]));
    let cluster = cluster(&set, "outbound|80||a.default.svc.cluster.local");
    let limits = &cluster.circuit_breakers.as_ref().unwrap().thresholds[0];
    for limit in [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries] {
        assert_eq!(limit, Some(u32::MAX));
    }
    assert_eq!(cluster.outlier_detection.as_ref().unwrap().max_ejection_percent, None);
    assert!(cluster.typed_extension_protocol_options.is_empty());
}

#[test]
fn a_cookie_without_a_time_to_live_is_never_made_up() {
    let ttl = |cookie: &str| {
        let rule = destination_rule(
            "a",
            &format!(
                "host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {{name: c{cookie}}}}}}}}}"
            ),
        );
        let set = sidecar(&[service("a", 80), rule].concat());
        let action = forwarding(&virtual_host(&set, "80", A).routes[0]).clone();
        match action.hash_policy[0].policy_specifier.clone().unwrap() {
            hash_policy::PolicySpecifier::Cookie(cookie) => cookie.ttl.map(|ttl| ttl.seconds),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ttl(""), None);
    assert_eq!(ttl(", ttl: 0s"), Some(0), "a session cookie");
    assert_eq!(ttl(", ttl: 60s"), Some(60));
}

#[test]
fn bytes_are_hashed_by_the_address_of_their_client_alone() {
    let db = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: {clusterIP: 10.1.0.1, ports: [{name: tcp, port: 80}]}\n";
    let policies = |key: &str| {
        let rule =
            destination_rule("a", &format!("host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{{key}}}}}}}"));
        let set = redirected(&[db.to_owned(), rule].concat());
        tcp_proxy(&listener(&set, "10.1.0.1_80").filter_chains[0]).hash_policy.len()
    };
    assert_eq!(policies("useSourceIp: true"), 1);
    assert_eq!(policies("httpHeaderName: x"), 0);
}

#[test]
fn an_endpoint_that_is_not_ready_and_does_not_say_why_is_going_away() {
    let slice = |conditions: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a-x, namespace: default, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.0.0.9]{conditions}}}]\n"
        )
    };
    let sent = |conditions: &str| {
        let set = sidecar(&[service("a", 80), slice(conditions)].concat());
        endpoints(&set, "outbound|80||a.default.svc.cluster.local").len()
    };
    assert_eq!(sent(""), 1);
    assert_eq!(sent(", conditions: {ready: true}"), 1);
    assert_eq!(sent(", conditions: {ready: false}"), 0);
    assert_eq!(sent(", conditions: {ready: false, terminating: true}"), 0);
    assert_eq!(sent(", conditions: {ready: false, terminating: false}"), 1, "sent as unhealthy");
}

#[test]
fn names_of_other_registries_have_no_short_forms() {
    let entry = |name: &str, fields: &str| {
        let fields = format!("{fields}, ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: NONE");
        object("ServiceEntry", name, "default", &fields)
    };
    let yaml = [
        entry("x", "hosts: [x.com], addresses: [10.1.0.9, 10.2.0.0/16, \"fd00::9\"]"),
        entry("wide", "hosts: [\"*.y.com\"]"),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(virtual_host(&set, "80", "x.com:80").domains, ["x.com", "x.com.", "10.1.0.9", "[fd00::9]"]);
    assert_eq!(virtual_host(&set, "80", "*.y.com:80").domains, ["*.y.com"]);
}

#[test]
fn a_service_outside_of_kubernetes_is_reached_where_its_clients_wanted_to() {
    let entry = object(
        "ServiceEntry",
        "x",
        "default",
        "hosts: [x.com], ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]",
    );
    let set = redirected(&entry);
    let cluster = cluster(&set, "outbound|443||x.com");
    let kind = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into());
    assert_eq!(cluster.cluster_discovery_type, Some(kind), "without `resolution` nothing is resolved");
    let rendered = lateen_xds::json::render(cluster).unwrap();
    assert_eq!(rendered["original_dst_lb_config"]["upstream_port_override"], 8443);
    assert_eq!(rendered["metadata"]["filter_metadata"]["istio"]["external"], true, "without `location` it is outside");
}

/// A mesh with something of everything.
fn everything() -> String {
    let entry = |name: &str, fields: &str| object("ServiceEntry", name, "default", fields);
    [
        service("a", 80),
        service("b", 9080),
        workload("a", "v1", 8080),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: default}\nspec: {clusterIP: 10.1.0.3, selector: {app: c}, ports: [{name: any, port: 9000}, {name: grpc, port: 9001}, {name: https, port: 443}]}\n".to_owned(),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: d, namespace: default}\nspec: {clusterIP: None, selector: {app: a}, ports: [{name: http, port: 7000}, {name: tcp, port: 7001}]}\n".to_owned(),
        entry("x", "hosts: [x.com, \"*.x.com\"], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}], resolution: NONE"),
        entry("z", "hosts: [z.com], ports: [{number: 7002, name: any}], resolution: DNS"),
        gateway_object("gw", "\"*.com\""),
        object("Gateway", "tls", "default", "servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.com], tls: {mode: SIMPLE, credentialName: cert}}, {port: {number: 443, name: pass, protocol: TLS}, hosts: [\"*.org\"], tls: {mode: PASSTHROUGH}}]"),
        virtual_service("shop", "hosts: [shop.com], gateways: [gw, tls, mesh], http: [{match: [{uri: {prefix: /b}}], rewrite: {uri: /}, route: [{destination: {host: b}, weight: 1}, {destination: {host: a, subset: v1}, weight: 3}]}, {route: [{destination: {host: nowhere}}]}]"),
        virtual_service("pass", "hosts: [\"*.org\"], gateways: [tls], tls: [{match: [{sniHosts: [\"*.org\"]}], route: [{destination: {host: c, port: {number: 443}}}]}]"),
        destination_rule("a", "host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}, subsets: [{name: v1, labels: {version: v1}}]"),
    ]
    .concat()
}

/// The route configurations that the listeners of a set ask for.
fn asked_routes(set: &XdsSet) -> BTreeSet<String> {
    let chains = set.listeners.values().flat_map(|listener| {
        listener.message.filter_chains.iter().chain(&listener.message.default_filter_chain).collect::<Vec<_>>()
    });
    let specifiers = chains.filter_map(|chain| connection_manager(chain)?.route_specifier);
    specifiers
        .filter_map(|specifier| match specifier {
            RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
            _ => None,
        })
        .collect()
}

#[test]
fn nothing_that_is_asked_for_by_name_is_left_unanswered_and_envoy_takes_it() {
    let world = world(&everything());
    let redirected = Scope { http_proxy_port: Some(15080), ..redirected_scope(&[("app", "a")]) };
    let scopes = [
        ("gateway", Scope::gateway("istio-system")),
        ("sidecar", redirected),
        ("addressed", sidecar_scope("default", &[])),
    ];
    for (name, scope) in scopes {
        let set = compile(&world, &scope);
        let known: BTreeSet<String> = set.routes.keys().map(ToString::to_string).collect();
        assert_eq!(asked_routes(&set), known, "{name}");
        for (cluster, resource) in &set.clusters {
            if resource.message.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
                assert!(set.endpoints.contains_key(cluster), "{name}: no endpoints of {cluster}");
            }
        }
        for table in set.routes.values() {
            let mut domains = BTreeSet::new();
            for domain in table.message.virtual_hosts.iter().flat_map(|host| &host.domains) {
                assert!(domains.insert(domain.to_lowercase()), "{name}: {domain} twice in {}", table.message.name);
            }
        }
        envoy_accepts(&format!("traps-{name}"), &set);
    }
}
