//! Where does a sidecar take what its workload sends? Outbound listeners: which there are, which chains they have, and
//! who gets an address that several services ask for.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Interception, Mesh, OutboundTrafficPolicy, Scope, compile};
use lateen_xds::envoy::config::core::v3::TrafficDirection;
use mesh::listeners::*;
use mesh::*;

/// A Service in `default`, in flow style. Services are as old as their names are early in the alphabet.
fn cluster_ip(name: &str, address: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{clusterIP: \"{address}\", selector: {{app: {name}}}, ports: [{ports}]}}\n"
    )
}

fn service_entry(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

fn sidecar_object(fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

fn pod(app: &str, index: u8) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {app}-{index}, namespace: default, labels: {{app: {app}}}}}\nspec: {{containers: []}}\nstatus: {{podIP: 10.0.0.{index}, phase: Running}}\n"
    )
}

const HTTP: &str = "raw alpn=http/1.1,h2c";

#[test]
fn http_services_share_the_listener_of_their_port_whatever_their_addresses() {
    let set = redirected(
        &[cluster_ip("a", "10.1.0.1", "{name: http, port: 80}"), cluster_ip("b", "10.1.0.2", "{name: grpc, port: 80}")]
            .concat(),
    );
    assert_eq!(port_listeners(&set), ["0.0.0.0_80"]);
    assert_eq!(chains(&set, "0.0.0.0_80"), [format!("{HTTP} -> routes 80"), "else -> PassthroughCluster".to_owned()]);
    assert_eq!(listener_filters(&set, "0.0.0.0_80"), ["http_inspector"]);
    let message = listener(&set, "0.0.0.0_80");
    assert_eq!(message.bind_to_port, Some(false));
    assert_eq!(message.traffic_direction, i32::from(TrafficDirection::Outbound));
    assert_eq!(message.listener_filters_timeout, Some(prost_types::Duration::default()));
    assert!(message.continue_on_listener_filters_timeout);
    assert_eq!(message.default_filter_chain.as_ref().unwrap().name, "PassthroughFilterChain");
    envoy_accepts("listeners-http", &set);
}

#[test]
fn bytes_have_a_listener_for_each_virtual_address() {
    let two = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: default}\nspec: {clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1, \"fd00::1\"], ports: [{name: tcp, port: 5432}]}\n";
    let set = redirected(two);
    assert_eq!(port_listeners(&set), ["10.1.0.1_5432", "fd00::1_5432"]);
    for name in ["10.1.0.1_5432", "fd00::1_5432"] {
        assert_eq!(chains(&set, name), ["* -> 5432||db"]);
        assert!(listener_filters(&set, name).is_empty(), "the server may speak first");
        assert!(listener(&set, name).default_filter_chain.is_none());
    }
    envoy_accepts("listeners-two-addresses", &set);
}

#[test]
fn bytes_without_an_address_take_the_whole_port() {
    let set = redirected(&service_entry(
        "mail",
        "hosts: [mail.com], ports: [{number: 2525, name: tcp, protocol: TCP}], resolution: DNS",
    ));
    assert_eq!(chains(&set, "0.0.0.0_2525"), ["* -> 2525||mail.com"]);
}

#[test]
fn a_range_of_addresses_is_a_match_within_the_whole_port() {
    let set = redirected(&service_entry(
        "net",
        "hosts: [net.com], addresses: [10.9.0.0/16, 10.8.0.1, 10.7.0.0/32], ports: [{number: 7000, name: tcp, protocol: TCP}], resolution: NONE",
    ));
    assert_eq!(port_listeners(&set), ["0.0.0.0_7000", "10.7.0.0_7000", "10.8.0.1_7000"]);
    assert_eq!(chains(&set, "0.0.0.0_7000"), ["10.9.0.0/16 -> 7000||net.com", "else -> PassthroughCluster"]);
    assert_eq!(chains(&set, "10.8.0.1_7000"), ["* -> 7000||net.com"]);
    envoy_accepts("listeners-range", &set);
}

#[test]
fn a_headless_service_has_a_listener_for_each_workload_but_the_own_one() {
    let yaml = [
        cluster_ip("db", "None", "{name: tcp, port: 5432}, {name: http, port: 80}, {name: any, port: 9000}"),
        pod("db", 1),
        pod("db", 2),
        pod("db", 3),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(
        port_listeners(&set),
        ["0.0.0.0_80", "10.0.0.2_5432", "10.0.0.2_9000", "10.0.0.3_5432", "10.0.0.3_9000"]
    );
    assert_eq!(chains(&set, "10.0.0.3_5432"), ["* -> 5432||db"]);
    assert_eq!(
        chains(&set, "10.0.0.3_9000"),
        [format!("{HTTP} -> routes db.default.svc.cluster.local:9000"), "else -> 9000||db".to_owned()]
    );
    assert!(virtual_host(&set, "80", "db.default.svc.cluster.local:80").domains.contains(&"*.db".to_owned()));
}

#[test]
fn an_undeclared_port_with_an_address_detects_http_for_its_one_service() {
    let set = redirected(&cluster_ip("a", "10.1.0.1", "{name: any, port: 9000}"));
    assert_eq!(
        chains(&set, "10.1.0.1_9000"),
        [format!("{HTTP} -> routes a.default.svc.cluster.local:9000"), "else -> 9000||a".to_owned()]
    );
    let own = table(&set, "a.default.svc.cluster.local:9000");
    assert_eq!(own.virtual_hosts.len(), 1, "the address told the service: no catch-all");
    assert_eq!(own.virtual_hosts[0].domains, ["*"]);
    assert_eq!(listener_filters(&set, "10.1.0.1_9000"), ["http_inspector"]);
}

#[test]
fn an_undeclared_port_without_an_address_shares_the_routes_of_the_port() {
    let set = redirected(&service_entry("a", "hosts: [a.com], ports: [{number: 9000, name: any}], resolution: DNS"));
    assert_eq!(chains(&set, "0.0.0.0_9000"), [format!("{HTTP} -> routes 9000"), "else -> 9000||a.com".to_owned()]);
    assert_eq!(virtual_hosts(&set, "9000"), ["a.com:9000", "allow_any"]);
}

#[test]
fn tls_with_an_address_of_its_own_needs_no_name() {
    let set = redirected(&cluster_ip("a", "10.1.0.1", "{name: https, port: 443}"));
    assert_eq!(chains(&set, "10.1.0.1_443"), ["* -> 443||a"]);
    assert!(listener_filters(&set, "10.1.0.1_443").is_empty());
}

#[test]
fn tls_without_an_address_is_told_apart_by_name() {
    let entry = |host: &str, port_protocol: &str| {
        service_entry(
            host,
            &format!(
                "hosts: [{host}], ports: [{{number: 443, name: tls, protocol: {port_protocol}}}], resolution: DNS"
            ),
        )
    };
    let set = redirected(&[entry("a.com", "TLS"), entry("b.com", "HTTPS")].concat());
    assert_eq!(
        chains(&set, "0.0.0.0_443"),
        ["sni=a.com -> 443||a.com", "sni=b.com -> 443||b.com", "else -> PassthroughCluster"]
    );
    assert_eq!(listener_filters(&set, "0.0.0.0_443"), ["tls_inspector"]);
    envoy_accepts("listeners-tls", &set);
}

// Services that ask for one address: each row of the table of conflicts.

#[test]
fn bytes_first_then_http_share_by_detection() {
    let set = redirected(
        &[
            service_entry("a", "hosts: [a.com], ports: [{number: 80, name: tcp, protocol: TCP}], resolution: DNS"),
            service("b", 80),
        ]
        .concat(),
    );
    assert_eq!(chains(&set, "0.0.0.0_80"), [format!("{HTTP} -> routes 80"), "else -> 80||a.com".to_owned()]);
}

#[test]
fn bytes_take_the_default_chain_of_an_older_http_port() {
    let set = redirected(
        &[
            service("a", 80),
            service_entry("b", "hosts: [b.com], ports: [{number: 80, name: tcp, protocol: TCP}], resolution: DNS"),
        ]
        .concat(),
    );
    assert_eq!(chains(&set, "0.0.0.0_80"), [format!("{HTTP} -> routes 80"), "else -> 80||b.com".to_owned()]);
    envoy_accepts("listeners-http-then-tcp", &set);
}

#[test]
fn of_two_that_want_the_same_bytes_the_oldest_has_them() {
    let entry = |host: &str, addresses: &str| {
        service_entry(
            host,
            &format!(
                "hosts: [{host}], addresses: [{addresses}], ports: [{{number: 7000, name: tcp, protocol: TCP}}], resolution: STATIC"
            ),
        )
    };
    let set = redirected(&[entry("a.com", "10.8.0.1"), entry("b.com", "10.8.0.1, 10.9.0.0/16")].concat());
    assert_eq!(chains(&set, "10.8.0.1_7000"), ["* -> 7000||a.com"]);
    assert_eq!(chains(&set, "0.0.0.0_7000"), ["10.9.0.0/16 -> 7000||b.com", "else -> PassthroughCluster"]);
}

#[test]
fn undeclared_and_bytes_on_one_address_share() {
    let tcp = |host: &str| {
        service_entry(
            host,
            &format!("hosts: [{host}], ports: [{{number: 7000, name: tcp, protocol: TCP}}], resolution: DNS"),
        )
    };
    let auto = |host: &str| {
        service_entry(host, &format!("hosts: [{host}], ports: [{{number: 7000, name: any}}], resolution: DNS"))
    };
    let set = redirected(&[auto("a.com"), tcp("b.com")].concat());
    assert_eq!(chains(&set, "0.0.0.0_7000"), [format!("{HTTP} -> routes 7000"), "else -> 7000||a.com".to_owned()]);
    let set = redirected(&[tcp("a.com"), auto("b.com")].concat());
    assert_eq!(chains(&set, "0.0.0.0_7000"), [format!("{HTTP} -> routes 7000"), "else -> 7000||a.com".to_owned()]);
}

#[test]
fn undeclared_ports_keep_the_http_chain_of_the_whole_port() {
    let set = redirected(
        &[
            service("a", 7000),
            service_entry("b", "hosts: [b.com], ports: [{number: 7000, name: any}], resolution: DNS"),
        ]
        .concat(),
    );
    assert_eq!(chains(&set, "0.0.0.0_7000"), [format!("{HTTP} -> routes 7000"), "else -> 7000||b.com".to_owned()]);
}

#[test]
fn an_undeclared_port_replaces_http_on_one_address() {
    let yaml = [
        service("a", 7000),
        cluster_ip("b", "10.1.0.2", "{name: any, port: 7000}"),
        sidecar_object("egress: [{bind: 10.5.0.5, hosts: [\"*/*\"]}]"),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(
        chains(&set, "10.5.0.5_7000"),
        [format!("{HTTP} -> routes b.default.svc.cluster.local:7000"), "else -> 7000||b".to_owned()]
    );
}

#[test]
fn protocols_in_which_the_server_speaks_first_share_with_no_other() {
    let port = |host: &str, protocol: &str| {
        service_entry(
            host,
            &format!("hosts: [{host}], ports: [{{number: 27018, name: db, protocol: {protocol}}}], resolution: DNS"),
        )
    };
    for (first, second) in [("MONGO", "HTTP"), ("MYSQL", "TCP")] {
        let set = redirected(&[port("a.com", first), port("b.com", second)].concat());
        let expected = if first == "MONGO" { "* -> mongo, 27018||a.com" } else { "* -> 27018||a.com" };
        assert_eq!(chains(&set, "0.0.0.0_27018"), [expected], "{first} then {second}");
    }
    let set = redirected(&[port("a.com", "HTTP"), port("b.com", "MONGO")].concat());
    assert_eq!(
        chains(&set, "0.0.0.0_27018"),
        [format!("{HTTP} -> routes 27018"), "else -> PassthroughCluster".to_owned()]
    );
}

#[test]
fn ports_of_the_proxy_itself_are_no_service_ports_on_every_address() {
    let ports = [15001, 15006, 15021, 15090];
    let yaml: String = ports.iter().map(|port| service(&format!("s{port}"), *port)).collect();
    assert!(port_listeners(&redirected(&yaml)).is_empty());
    let set = redirected(&cluster_ip("a", "10.1.0.1", "{name: tcp, port: 15021}"));
    assert_eq!(port_listeners(&set), ["10.1.0.1_15021"], "another address is another socket");
}

#[test]
fn datagrams_have_no_listener() {
    let set = redirected(&cluster_ip("dns", "10.1.0.1", "{name: dns, port: 53, protocol: UDP}"));
    assert!(port_listeners(&set).is_empty());
    assert!(!set.clusters.keys().any(|name| name.contains("|53|")));
}

// What reaches no service.

#[test]
fn connections_to_unknown_addresses_go_where_they_wanted_to() {
    let set = redirected("");
    assert_eq!(listeners(&set), ["virtualInbound", "virtualOutbound"]);
    assert_eq!(chains(&set, "virtualOutbound"), [":15001 -> BlackHoleCluster", "* -> PassthroughCluster"]);
    let message = listener(&set, "virtualOutbound");
    assert_eq!(message.use_original_dst, Some(true));
    assert!(message.listener_filters.is_empty());
    let names: Vec<_> = message.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["virtualOutbound-blackhole", "virtualOutbound-catchall-tcp"]);
    envoy_accepts("listeners-none", &set);
}

#[test]
fn a_closed_registry_leaves_unknown_connections_no_way() {
    let closed = Mesh { outbound_traffic_policy: OutboundTrafficPolicy::RegistryOnly, ..Mesh::default() };
    let set = compile(&world_with(&service("a", 80), closed), &redirected_scope(&[]));
    assert_eq!(chains(&set, "virtualOutbound"), [":15001 -> BlackHoleCluster", "* -> BlackHoleCluster"]);
    assert_eq!(chains(&set, "0.0.0.0_80"), [format!("{HTTP} -> routes 80"), "else -> BlackHoleCluster".to_owned()]);
    assert_eq!(routes(table(&set, "80").virtual_hosts.last().unwrap()), ["/* -> 502"]);
}

#[test]
fn an_egress_proxy_gets_what_is_for_nobody() {
    let yaml = [
        service("a", 80),
        service("way-out", 8443),
        sidecar_object(
            "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: way-out, subset: v1, port: {number: 8443}}}",
        ),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(chains(&set, "virtualOutbound"), [":15001 -> BlackHoleCluster", "* -> 8443|v1|way-out"]);
    assert_eq!(chains(&set, "0.0.0.0_80").last().unwrap(), "else -> 8443|v1|way-out");
    assert_eq!(routes(table(&set, "80").virtual_hosts.last().unwrap()), ["/* -> 8443|v1|way-out"]);
}

#[test]
fn transparent_interception_keeps_the_source_of_connections() {
    let scope = Scope { interception: Interception::TransparentProxy, ..redirected_scope(&[]) };
    let set = compile(&world(""), &scope);
    assert_eq!(listener(&set, "virtualOutbound").transparent, Some(true));
    assert_eq!(listener(&set, "virtualInbound").transparent, Some(true));
    assert!(listener_filters(&set, "virtualInbound").contains(&"original_src".to_owned()));
}

#[test]
fn the_http_proxy_port_is_bound_and_takes_absolute_urls() {
    let scope = Scope { http_proxy_port: Some(15080), ..redirected_scope(&[]) };
    let set = compile(&world(&service("a", 80)), &scope);
    assert_eq!(chains(&set, "127.0.0.1_15080"), ["* -> routes http_proxy"]);
    let message = listener(&set, "127.0.0.1_15080");
    assert_eq!(message.bind_to_port, None);
    let manager = connection_manager(&message.filter_chains[0]).unwrap();
    assert_eq!(manager.http_protocol_options.unwrap().allow_absolute_url, Some(true));
}

#[test]
fn the_mesh_may_make_every_redirected_sidecar_an_http_proxy() {
    let mesh = Mesh { http_proxy_port: Some(15002), ..Mesh::default() };
    let world = world_with(&[service("a", 80), service("b", 9080)].concat(), mesh);
    let set = compile(&world, &redirected_scope(&[]));
    assert_eq!(chains(&set, "127.0.0.1_15002"), ["* -> routes http_proxy"]);
    assert_eq!(
        virtual_hosts(&set, "http_proxy"),
        ["a.default.svc.cluster.local:80", "b.default.svc.cluster.local:9080", "allow_any"]
    );
    let set = compile(&world, &sidecar_scope("default", &[]));
    assert!(!set.listeners.contains_key("127.0.0.1_15002"), "that is for whoever starts it to say");
}

// Egress listeners of a Sidecar object.

#[test]
fn an_egress_listener_with_a_port_has_it_alone() {
    let yaml = [
        service("a", 80),
        service("b", 80),
        service("c", 9080),
        sidecar_object(
            "egress: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"./a.default.svc.cluster.local\"]}, {hosts: [\"./b.default.svc.cluster.local\", \"./c.default.svc.cluster.local\"]}]",
        ),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(port_listeners(&set), ["0.0.0.0_80", "0.0.0.0_9080"]);
    assert_eq!(virtual_hosts(&set, "80"), ["a.default.svc.cluster.local:80", "allow_any"]);
    assert_eq!(virtual_hosts(&set, "9080"), ["c.default.svc.cluster.local:9080", "allow_any"]);
    assert!(set.clusters.contains_key("outbound|80||b.default.svc.cluster.local"), "imported, if only by the other");
}

#[test]
fn the_protocol_of_an_egress_listener_counts_for_all_of_its_services() {
    let yaml = [
        cluster_ip("a", "10.1.0.1", "{name: http, port: 9000}"),
        sidecar_object("egress: [{port: {number: 9000, name: tcp, protocol: TCP}, hosts: [\"*/*\"]}]"),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(port_listeners(&set), ["10.1.0.1_9000"]);
    assert_eq!(chains(&set, "10.1.0.1_9000"), ["* -> 9000||a"]);
}

#[test]
fn an_egress_listener_without_capture_binds_loopback_and_passes_nothing_through() {
    let yaml = [
        service("a", 9000),
        sidecar_object(
            "egress: [{port: {number: 9000, name: http, protocol: HTTP}, captureMode: NONE, hosts: [\"*/*\"]}]",
        ),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(port_listeners(&set), ["127.0.0.1_9000"]);
    assert_eq!(listener(&set, "127.0.0.1_9000").bind_to_port, None);
    // The client addressed the listener itself: there is no other place that it wanted to reach.
    assert_eq!(chains(&set, "127.0.0.1_9000"), ["* -> routes 9000"]);
}

#[test]
fn an_egress_listener_binds_the_address_that_it_names() {
    let yaml = [
        cluster_ip("a", "10.1.0.1", "{name: tcp, port: 9000}"),
        sidecar_object(
            "egress: [{port: {number: 9000, name: tcp, protocol: TCP}, bind: 127.0.0.2, captureMode: NONE, hosts: [\"*/*\"]}]",
        ),
    ]
    .concat();
    let set = redirected(&yaml);
    assert_eq!(port_listeners(&set), ["127.0.0.2_9000"]);
    assert_eq!(chains(&set, "127.0.0.2_9000"), ["* -> 9000||a"]);
}

#[test]
fn egress_listeners_that_are_not_compiled_are_named() {
    let yaml = [
        service("a", 9000),
        sidecar_object(
            "egress: [{port: {number: 0, name: http, protocol: HTTP}, bind: \"unix:///run/a.sock\", hosts: [\"*/*\"]}, {port: {number: 3128, name: proxy, protocol: HTTP_PROXY}, hosts: [\"*/*\"]}]",
        ),
    ]
    .concat();
    let world = world(&yaml);
    assert!(port_listeners(&compile(&world, &redirected_scope(&[]))).is_empty());
    let found: Vec<_> = world.diagnostics().iter().map(|finding| (finding.code, finding.path.as_str())).collect();
    assert_eq!(found, [("LTN0101", "spec.egress[0].bind"), ("LTN0101", "spec.egress[1].port.protocol")]);
}

#[test]
fn what_may_not_bind_low_ports_has_no_bound_listener_there() {
    let yaml =
        [service("a", 80), service("b", 8080), sidecar_object("egress: [{captureMode: NONE, hosts: [\"*/*\"]}]")]
            .concat();
    let scope = Scope { is_unprivileged: true, ..redirected_scope(&[]) };
    assert_eq!(port_listeners(&compile(&world(&yaml), &scope)), ["127.0.0.1_8080"]);
    assert_eq!(port_listeners(&redirected(&yaml)), ["127.0.0.1_80", "127.0.0.1_8080"]);
}
