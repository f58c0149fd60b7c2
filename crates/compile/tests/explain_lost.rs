//! Does an explanation name the rules that never reached the proxy, with the reason?

#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::explain::{Call, CallProtocol, Explanation, explain};
use lateen_compile::{Interception, Scope, compile};

use mesh::{service, sidecar_scope, workload, world};

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{spec}}}\n"
    )
}

fn to(host: &str) -> String {
    format!("{{route: [{{destination: {{host: {host}}}}}]}}")
}

fn ask(yaml: &str, scope: &Scope, call: &Call) -> Explanation {
    let world = world(yaml);
    explain(&compile(&world, scope), &world, scope, call)
}

fn sidecar(namespace: &str) -> Scope {
    Scope { interception: Interception::Redirect, ..sidecar_scope(namespace, &[("app", "client")]) }
}

/// A request of a sidecar in namespace `default` to port 80.
fn from_sidecar(yaml: &str, host: &str, path: &str) -> Explanation {
    let call = Call { authority: host.into(), path: path.into(), ..Call::default() };
    ask(yaml, &sidecar("default"), &call)
}

/// `name rule: reason` of each rule that did not decide.
fn tried(explanation: &Explanation) -> Vec<String> {
    let line = |tried: &lateen_compile::explain::Tried| match &tried.origin {
        Some(origin) if origin.rule.is_empty() => format!("{}: {}", origin.name, tried.reason),
        Some(origin) => format!("{} {}: {}", origin.name, origin.rule, tried.reason),
        None => tried.reason.clone(),
    };
    explanation.tried.iter().map(line).collect()
}

fn shop() -> String {
    format!("{}{}{}", service("shop", 80), service("other", 80), workload("shop", "v1", 8080))
}

#[test]
fn of_two_virtual_services_for_one_host_the_later_one_is_lost() {
    let yaml = shop()
        + &virtual_service("a", &format!("hosts: [shop], http: [{}]", to("shop")))
        + &virtual_service("b", &format!("hosts: [shop], http: [{}]", to("other")));
    let explanation = from_sidecar(&yaml, "shop", "/");
    assert_eq!(explanation.clusters[0].name, "outbound|80||shop.default.svc.cluster.local");
    assert_eq!(explanation.origin.as_ref().map(|origin| &*origin.name), Some("a"));
    assert_eq!(
        tried(&explanation),
        ["b: VirtualService default/a has this host too, and comes first: a sidecar uses one alone"]
    );
}

#[test]
fn a_virtual_service_that_is_bound_or_exported_elsewhere_is_named() {
    let yaml = shop()
        + &virtual_service("edge", &format!("hosts: [shop], gateways: [web], http: [{}]", to("other")))
        + &virtual_service("private", &format!("hosts: [shop], exportTo: [apart], http: [{}]", to("other")));
    assert_eq!(
        tried(&from_sidecar(&yaml, "shop.default", "/")),
        [
            "edge: it is bound to gateway `default/web`, which does not exist",
            "private: it is not exported to namespace `default`",
        ]
    );
}

#[test]
fn matches_for_other_clients_ports_and_gateways_are_named() {
    let rule = |condition: &str| format!("{{match: [{{{condition}}}], route: [{{destination: {{host: other}}}}]}}");
    let rules = [
        rule("sourceLabels: {app: admin}"),
        rule("sourceNamespace: prod"),
        rule("port: 8080"),
        rule("gateways: [web]"),
        to("shop"),
        to("other"),
    ];
    let yaml = shop() + &virtual_service("v", &format!("hosts: [shop], http: [{}]", rules.join(", ")));
    assert_eq!(
        tried(&from_sidecar(&yaml, "shop", "/")),
        [
            "v http[0].match[0]: it is for clients with the label `app=admin`, which this one does not have",
            "v http[1].match[0]: it is for clients in namespace `prod`, not `default`",
            "v http[2].match[0]: it is for port 8080, not 80",
            "v http[3].match[0]: it is for gateway `default/web` alone",
            "v http[5]: it is never reached: `http[4]` before it takes every request",
        ]
    );
}

#[test]
fn a_service_without_the_port_is_named() {
    let yaml = service("shop", 8080) + &service("other", 80);
    let explanation = from_sidecar(&yaml, "shop", "/");
    assert_eq!(explanation.virtual_host.as_deref(), Some("allow_any"));
    assert_eq!(explanation.clusters[0].name, "PassthroughCluster");
    assert_eq!(tried(&explanation), ["shop: it has port 8080, not 80"]);
}

#[test]
fn destination_rules_that_do_not_hold_are_named() {
    let rule = |namespace: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    };
    let host = "host: shop.default.svc.cluster.local";
    let yaml = shop()
        + &rule("default", "of-service", host)
        + &rule("front", "of-client", "host: '*.default.svc.cluster.local'")
        + &rule("apart", "of-nobody", host)
        + &rule("default", "for-admins", &format!("{host}, workloadSelector: {{matchLabels: {{app: admin}}}}"));
    let call = Call { authority: "shop.default".into(), ..Call::default() };
    let mut found = tried(&ask(&yaml, &sidecar("front"), &call));
    found.sort();
    assert_eq!(
        found,
        [
            "for-admins: it is for other workloads",
            "of-nobody: its namespace is neither the client's (`front`), nor the service's (`default`), nor `istio-system`",
            "of-service: DestinationRule front/of-client holds: the namespace of the client is asked first, then that of the service",
        ]
    );
}

#[test]
fn gateways_that_do_not_serve_the_port_or_host_are_named() {
    let gateway = |name: &str, selector: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\nspec: {{selector: {{istio: {selector}}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['{host}']}}]}}\n"
        )
    };
    let yaml = shop()
        + &gateway("web", "ingress", "shop.com")
        + &gateway("egress", "egress", "*")
        + &virtual_service("here", &format!("hosts: [shop.com], gateways: [web], http: [{}]", to("shop")))
        + &virtual_service("mesh", &format!("hosts: [other.com], http: [{}]", to("shop")))
        + &virtual_service("there", &format!("hosts: [other.com], gateways: [egress], http: [{}]", to("shop")))
        + &virtual_service("narrow", &format!("hosts: [other.com], gateways: [web], http: [{}]", to("shop")));
    let labels = [("istio".to_owned(), "ingress".to_owned())].into_iter().collect();
    let scope = Scope { labels: Some(labels), ..Scope::gateway("istio-system") };
    let ask = |host: &str, port| ask(&yaml, &scope, &Call { authority: host.into(), port, ..Call::default() });
    assert_eq!(ask("shop.com", 80).clusters[0].name, "outbound|80||shop.default.svc.cluster.local");
    assert_eq!(
        tried(&ask("other.com", 80)),
        [
            "mesh: it is bound to the mesh, not to a gateway",
            "narrow: no server of gateway `default/web` offers this host to namespace `default`",
            "there: it is bound to gateway `default/egress`; port 80 is served by `default/web`",
            "egress: it selects workloads with the label `istio=egress`, which this gateway does not have",
            "web servers[0]: it offers host `shop.com`",
        ]
    );
    assert_eq!(
        tried(&ask("shop.com", 81)),
        [
            "here: it is bound to gateway `default/web`, which does not serve port 81",
            "egress: it selects workloads with the label `istio=egress`, which this gateway does not have",
            "web servers[0]: it is for port 80",
        ]
    );
}

#[test]
fn a_cluster_that_is_not_there_or_empty_has_a_note_with_the_reason() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop, namespace: default}\nspec: {host: shop, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n";
    let notes = |destination: &str, rule: &str| {
        let http = format!("{{route: [{{destination: {{{destination}}}}}]}}");
        let yaml = shop() + rule + &virtual_service("v", &format!("hosts: [shop], http: [{http}]"));
        from_sidecar(&yaml, "shop", "/").policies.notes.join("; ")
    };
    assert_eq!(notes("host: shop, subset: v1", rule), "");
    assert_eq!(
        notes("host: shop, subset: v2", rule),
        "cluster `outbound|80|v2|shop.default.svc.cluster.local` has no endpoint: 503 (flag UH); no endpoint carries the labels of subset `v2`: version=v2"
    );
    let reason = |destination: &str, rule: &str| notes(destination, rule).split("; ").last().unwrap().to_owned();
    assert_eq!(
        reason("host: shop, subset: v3", rule),
        "DestinationRule default/shop has no subset `v3`, but `v1`, `v2`"
    );
    assert_eq!(
        reason("host: shop, subset: v1", ""),
        "no DestinationRule that holds here makes subsets of `shop.default.svc.cluster.local`"
    );
    assert_eq!(reason("host: shop, port: {number: 81}", ""), "Service default/shop has port 80, not 81");
    assert_eq!(reason("host: gone", ""), "no Service or ServiceEntry has host `gone.default.svc.cluster.local`");
}

#[test]
fn rules_for_connections_that_are_not_read_are_named_too() {
    let database = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: default}\nspec:\n  clusterIP: 10.0.0.7\n  selector: {app: db}\n  ports: [{name: tcp, port: 3306}]\n";
    let yaml = format!("{database}{}", service("other", 80))
        + &virtual_service(
            "admins",
            "hosts: [db], tcp: [{match: [{port: 3307}, {sourceLabels: {app: admin}}], route: [{destination: {host: other}}]}]",
        )
        + &virtual_service("http", &format!("hosts: [db], http: [{}]", to("other")));
    let call = Call {
        protocol: CallProtocol::Tcp,
        address: Some("10.0.0.7".parse().unwrap()),
        port: 3306,
        authority: "db:3306".into(),
        ..Call::default()
    };
    let explanation = ask(&yaml, &sidecar("default"), &call);
    assert_eq!(explanation.clusters[0].name, "outbound|3306||db.default.svc.cluster.local");
    assert_eq!(
        tried(&explanation),
        [
            "admins tcp[0].match[0]: it is for port 3307, not 3306",
            "admins tcp[0].match[1]: it is for clients with the label `app=admin`, which this one does not have",
            "http: its rules are for HTTP, and this connection is not read as HTTP",
        ]
    );
}

#[test]
fn what_a_sidecar_object_does_not_import_is_named() {
    let yaml = shop()
        + &virtual_service("v", &format!("hosts: [shop], http: [{}]", to("other")))
        + "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: few, namespace: default}\nspec: {egress: [{hosts: [./other.default.svc.cluster.local]}]}\n";
    assert_eq!(
        tried(&from_sidecar(&yaml, "shop", "/")),
        ["v: Sidecar default/few does not import it", "shop: Sidecar default/few does not import it"]
    );
}

#[test]
fn a_service_that_selects_nothing_says_what_would_be_its_endpoints() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: bare, namespace: default}\nspec: {clusterIP: 10.0.0.9, selector: {app: bare}, ports: [{port: 80, name: http}]}\n";
    assert_eq!(
        from_sidecar(yaml, "bare", "/").policies.notes,
        [
            "cluster `outbound|80||bare.default.svc.cluster.local` has no endpoint: 503 (flag UH)",
            "Service default/bare selects app=bare, and no Pod, EndpointSlice or WorkloadEntry in the files is an endpoint of it; a Deployment has no addresses"
        ]
    );
}

#[test]
fn a_redirect_of_a_gateway_has_its_server_as_the_reason() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: front, namespace: default}\nspec:\n  servers:\n  - {port: {number: 81, name: open, protocol: HTTP}, hosts: ['*.shop.test']}\n  - {port: {number: 80, name: plain, protocol: HTTP}, hosts: ['*.shop.test'], tls: {httpsRedirect: true}}\n---\n".to_owned()
        + &virtual_service("v", "hosts: [a.shop.test], gateways: [front], http: [{directResponse: {status: 200}}]");
    let call = Call { authority: "a.shop.test".into(), ..Call::default() };
    let explanation = ask(&yaml, &Scope::gateway("default"), &call);
    let origin = explanation.origin.as_ref().unwrap();
    assert_eq!((&*origin.kind, &*origin.name, &*origin.rule), ("Gateway", "front", "servers[1]"));
}

#[test]
fn an_object_with_several_chains_is_not_passed_over_when_one_is_chosen() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: nets, namespace: default}\nspec:\n  hosts: [nets.test]\n  addresses: [10.1.0.0/16, 10.2.0.0/16]\n  ports: [{number: 5000, name: tcp, protocol: TCP}]\n  resolution: NONE\n";
    let call = Call { protocol: CallProtocol::Tcp, address: "10.2.3.4".parse().ok(), port: 5000, ..Call::default() };
    let explanation = ask(yaml, &sidecar("default"), &call);
    assert_eq!(explanation.clusters[0].name, "outbound|5000||nets.test");
    assert_eq!(tried(&explanation), Vec::<String>::new());
}
