//! What runs when gateway and sidecar are one process?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{HiddenListener, Listen, LocalScope, PortMapping, Scope, compile_local};
use lateen_xds::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
use mesh::*;

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
";

fn scope() -> LocalScope {
    let mut sidecar = sidecar_scope("default", &[]);
    sidecar.http_proxy_port = Some(15080);
    LocalScope { gateway: Scope::gateway("default"), sidecar }
}

fn mesh_of_two() -> String {
    format!("{GATEWAY}{}{}", service("web", 80), service("reviews", 9080))
}

#[test]
fn both_halves_are_in_one_set() {
    let mut scope = scope();
    scope.gateway.listen.ports = PortMapping::Offset(8000);
    scope.sidecar.listen.ports = PortMapping::Offset(1000);
    let local = compile_local(&world(&mesh_of_two()), &scope);
    let listeners: Vec<_> = local.set.listeners.keys().map(|name| name.to_string()).collect();
    assert_eq!(listeners, ["0.0.0.0_80", "127.0.0.1_15080", "127.0.0.1_80", "127.0.0.1_9080"]);
    let routes: Vec<_> = local.set.routes.keys().map(|name| name.to_string()).collect();
    assert_eq!(routes, ["80", "9080", "http.80", "http_proxy"]);
    assert!(local.hidden.is_empty());
    let port = |name: &str| match &local.set.listeners[name].message.address.as_ref().unwrap().address {
        Some(Address::SocketAddress(socket)) => socket.port_specifier.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(port("127.0.0.1_80"), Some(PortSpecifier::PortValue(1080)));
    assert_eq!(port("127.0.0.1_15080"), Some(PortSpecifier::PortValue(15080)), "chosen for the proxy, not moved");
}

#[test]
fn a_socket_that_both_want_is_the_gateways() {
    let local = compile_local(&world(&mesh_of_two()), &scope());
    assert_eq!(
        local.hidden,
        [HiddenListener {
            name: "127.0.0.1_80".into(),
            by: "0.0.0.0_80".into(),
            address: "127.0.0.1:80".parse().unwrap()
        }]
    );
    assert!(!local.set.listeners.contains_key("127.0.0.1_80"));
    // The service stays within reach of the HTTP proxy port.
    assert!(virtual_hosts(&local.set, "http_proxy").contains(&"web.default.svc.cluster.local:80".to_owned()));
}

#[test]
fn free_ports_never_collide() {
    let mut scope = scope();
    let listen = Listen { bind: Some("127.0.0.1".parse().unwrap()), ports: PortMapping::Ephemeral };
    scope.gateway.listen = listen;
    scope.sidecar.listen = listen;
    let local = compile_local(&world(&mesh_of_two()), &scope);
    assert!(local.hidden.is_empty());
    assert_eq!(local.set.listeners.len(), 4);
}

#[test]
fn the_gateways_cluster_is_kept_where_both_have_one() {
    // A sidecar would let the client decide between HTTP/1.1 and HTTP/2 on a port that declares nothing.
    let undeclared = service("reviews", 9080).replace("name: http", "name: web");
    let local = compile_local(&world(&format!("{GATEWAY}{undeclared}")), &scope());
    let reviews = cluster(&local.set, "outbound|9080||reviews.default.svc.cluster.local");
    assert!(reviews.typed_extension_protocol_options.is_empty());
}
