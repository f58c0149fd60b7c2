//! What does a gateway get?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Listen, PortMapping, Scope, compile};
use lateen_xds::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
use lateen_xds::envoy::config::listener::v3::Listener;
use lateen_xds::envoy::config::route::v3::{redirect_action, route, virtual_host::TlsRequirementType};
use lateen_xds::{Part, XdsSet};
use mesh::*;

const BOOKINFO: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bookinfo-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bookinfo, namespace: default}
spec:
  hosts: ["*"]
  gateways: [bookinfo-gateway]
  http:
  - match: [{uri: {exact: /productpage}}, {uri: {prefix: /static}}]
    route: [{destination: {host: productpage, port: {number: 9080}}}]
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports: [{name: http2, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
"#;

/// A Gateway on port 80 for some hosts.
fn gateway_object(name: &str, hosts: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: {hosts}}}]\n"
    )
}

/// A VirtualService on Gateway `gw` with rules in flow style.
fn virtual_service(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  hosts: {hosts}\n  gateways: [gw]\n  http: {http}\n"
    )
}

/// `[{route: [{destination: {host: NAME}}]}]`.
fn to(service: &str) -> String {
    format!("[{{route: [{{destination: {{host: {service}}}}}]}}]")
}

/// Address and port of a listener.
fn socket(set: &XdsSet, name: &str) -> (String, u32) {
    let known: Vec<_> = set.listeners.keys().collect();
    let listener: &Listener =
        &set.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} among {known:?}")).message;
    let Some(Address::SocketAddress(socket)) = listener.address.as_ref().unwrap().address.clone() else {
        panic!("no socket address")
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("no port") };
    (socket.address, port)
}

#[test]
fn the_port_of_a_gateway_is_a_port_of_its_service() {
    let mut scope = Scope::gateway("istio-system");
    scope.labels = Some([("istio".to_owned(), "ingressgateway".to_owned())].into());
    let set = compile(&world(BOOKINFO), &scope);
    assert_eq!(socket(&set, "0.0.0.0_8080"), ("0.0.0.0".to_owned(), 8080));
    assert_eq!(virtual_hosts(&set, "http.8080"), ["*:80"]);
    let host = virtual_host(&set, "http.8080", "*:80");
    assert_eq!(routes(host), ["/productpage -> 9080||productpage", "/static* -> 9080||productpage"]);
    let operations: Vec<_> =
        host.routes.iter().map(|route| route.decorator.as_ref().unwrap().operation.as_str()).collect();
    assert_eq!(
        operations,
        [
            "productpage.default.svc.cluster.local:9080/productpage",
            "productpage.default.svc.cluster.local:9080/static*"
        ]
    );
    assert!(host.include_request_attempt_count);
}

#[test]
fn a_gateway_without_labels_serves_every_gateway_on_its_own_numbers() {
    let set = gateway(BOOKINFO);
    assert_eq!(socket(&set, "0.0.0.0_80"), ("0.0.0.0".to_owned(), 80));
    assert!(set.routes.contains_key("http.80"));
}

#[test]
fn another_workload_is_not_selected() {
    let mut scope = Scope::gateway("istio-system");
    scope.labels = Some([("istio".to_owned(), "egressgateway".to_owned())].into());
    let set = compile(&world(BOOKINFO), &scope);
    assert!(set.listeners.is_empty() && set.routes.is_empty());
}

#[test]
fn moving_ports_changes_sockets_and_no_names() {
    let mut scope = Scope::gateway("istio-system");
    scope.listen = Listen { bind: Some("127.0.0.1".parse().unwrap()), ports: PortMapping::Offset(8000) };
    let set = compile(&world(BOOKINFO), &scope);
    assert_eq!(socket(&set, "0.0.0.0_80"), ("127.0.0.1".to_owned(), 8080));
    scope.listen.ports = PortMapping::Ephemeral;
    let set = compile(&world(BOOKINFO), &scope);
    assert_eq!(socket(&set, "0.0.0.0_80"), ("127.0.0.1".to_owned(), 0));
    assert!(set.routes.contains_key("http.80"));
}

#[test]
fn virtual_services_of_one_host_are_merged_with_catch_alls_last() {
    let set = gateway(&format!(
        "{}{}{}{}{}",
        gateway_object("gw", "[a.com]"),
        virtual_service("first", "[a.com]", &to("one")),
        virtual_service(
            "second",
            "[a.com]",
            "[{match: [{uri: {prefix: /two}}], route: [{destination: {host: two}}]}, {route: [{destination: {host: three}}]}]"
        ),
        service("one", 80),
        service("two", 80),
    ));
    assert_eq!(
        routes(virtual_host(&set, "http.80", "a.com:80")),
        ["/two* -> 80||two", "/* -> 80||one", "/* -> 80||three"]
    );
}

#[test]
fn the_narrower_of_two_host_names_becomes_the_domain() {
    let set = gateway(&format!(
        "{}{}{}",
        gateway_object("gw", "[\"*.foo.com\", b.com]"),
        virtual_service("wide", "[\"*.com\"]", &to("one")),
        virtual_service("exact", "[a.foo.com]", &to("two")),
    ));
    // The wide VirtualService has the same routes for two hosts, which then share one virtual host.
    assert_eq!(virtual_hosts(&set, "http.80"), ["a.foo.com:80", "b.com:80"]);
    assert_eq!(virtual_host(&set, "http.80", "b.com:80").domains, ["b.com", "*.foo.com"]);
    assert_eq!(routes(virtual_host(&set, "http.80", "a.foo.com:80")), ["/* -> 80||two"]);
}

#[test]
fn hosts_of_a_server_may_be_kept_for_one_namespace() {
    let yaml = format!(
        "{}{}",
        gateway_object("gw", "[\"other/a.com\", \"./b.com\"]"),
        virtual_service("vs", "[a.com, b.com]", &to("one"))
    );
    let set = gateway(&yaml);
    assert_eq!(virtual_hosts(&set, "http.80"), ["b.com:80"]);
}

#[test]
fn a_port_without_virtual_services_answers_404() {
    let set = gateway(&gateway_object("gw", "[a.com]"));
    let host = virtual_host(&set, "http.80", "blackhole:80");
    assert_eq!(host.domains, ["*"]);
    assert!(host.routes.is_empty());
}

#[test]
fn redirecting_servers_ask_for_tls_also_on_hosts_without_virtual_service() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  servers: [{port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: [a.com, b.com]}]
";
    let set = gateway(&format!("{yaml}{}", virtual_service("vs", "[a.com]", &to("one"))));
    for (name, count) in [("a.com:80", 1), ("b.com:80", 0)] {
        let host = virtual_host(&set, "http.80", name);
        assert_eq!(host.require_tls, i32::from(TlsRequirementType::All), "{name}");
        assert_eq!(host.routes.len(), count, "{name}");
    }
}

#[test]
fn two_servers_that_redirect_one_host_are_one() {
    let server = |name: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, tls: {{httpsRedirect: true}}, hosts: [{host}]}}]\n"
        )
    };
    let set = gateway(&format!("{}{}", server("a", "\"*\""), server("b", "\"*\"")));
    assert_eq!(virtual_hosts(&set, "http.80"), ["*:80"]);
    let listener = &set.listeners["0.0.0.0_80"];
    let names: Vec<_> = listener.origins_of(Part::Whole).map(|origin| origin.name.to_string()).collect();
    assert_eq!(names, ["a"], "the second server is left out as a whole");
}

#[test]
fn plain_http_behind_a_server_of_another_protocol_is_left_out() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: default}
spec:
  servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: [\"*\"]}]
";
    let set = gateway(&format!("{yaml}{}", gateway_object("b", "[\"*\"]")));
    assert!(set.listeners.is_empty());
}

#[test]
fn servers_with_an_address_of_their_own_have_their_own_listener() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, bind: 10.0.0.1, hosts: [\"*\"]}
  - {port: {number: 80, name: http-all, protocol: HTTP}, hosts: [\"*\"]}
";
    let set = gateway(yaml);
    assert_eq!(set.listeners.keys().map(|name| &**name).collect::<Vec<_>>(), ["0.0.0.0_80", "10.0.0.1_80"]);
    assert_eq!(set.routes.keys().map(|name| &**name).collect::<Vec<_>>(), ["http.80", "http.80.10.0.0.1"]);
}

#[test]
fn a_destination_without_port_means_the_only_port_of_its_service() {
    let set = gateway(&format!(
        "{}{}{}",
        gateway_object("gw", "[\"*\"]"),
        virtual_service("vs", "[\"*\"]", &to("reviews")),
        service("reviews", 9080)
    ));
    assert_eq!(routes(virtual_host(&set, "http.80", "*:80")), ["/* -> 9080||reviews"]);
}

#[test]
fn redirects_write_ports_only_where_they_are_not_the_default() {
    let redirect = |fields: &str| {
        let rule = format!("[{{redirect: {{{fields}}}}}]");
        let set = gateway(&format!("{}{}", gateway_object("gw", "[a.com]"), virtual_service("vs", "[a.com]", &rule)));
        let host = virtual_host(&set, "http.80", "a.com:80");
        match host.routes[0].action.clone().unwrap() {
            route::Action::Redirect(redirect) => redirect,
            other => panic!("{other:?}"),
        }
    };
    let plain = redirect("uri: /new, redirectCode: 302");
    assert_eq!(plain.response_code, i32::from(redirect_action::RedirectResponseCode::Found));
    assert_eq!(plain.path_rewrite_specifier, Some(redirect_action::PathRewriteSpecifier::PathRedirect("/new".into())));
    assert_eq!(redirect("authority: b.com, derivePort: FROM_REQUEST_PORT").port_redirect, 0, "80 is http's own");
    assert_eq!(redirect("scheme: https, port: 443").port_redirect, 0);
    assert_eq!(redirect("scheme: https, port: 8443").port_redirect, 8443);
    assert_eq!(
        redirect("prefixRewrite: /v2").path_rewrite_specifier,
        Some(redirect_action::PathRewriteSpecifier::PrefixRewrite("/v2".into()))
    );
}

#[test]
fn every_part_knows_the_line_that_made_it() {
    let set = gateway(BOOKINFO);
    let table = &set.routes["http.80"];
    let part = Part::Route { virtual_host: 0, route: 1 };
    assert_eq!(
        table.origin(part).unwrap().to_string(),
        "VirtualService default/bookinfo http[0].match[1] (mesh.yaml:16)"
    );
    assert_eq!(
        table.origin(Part::VirtualHost(0)).unwrap().to_string(),
        "VirtualService default/bookinfo (mesh.yaml:9)"
    );
    assert_eq!(
        set.listeners["0.0.0.0_80"].origin(Part::Whole).unwrap().to_string(),
        "Gateway default/bookinfo-gateway servers[0] (mesh.yaml:7)"
    );
}
