//! Where do connections go that are not routed as HTTP? The `tcp` and `tls` rules of VirtualServices in a sidecar, and
//! the limits of such connections.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Scope, compile};
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

fn virtual_service(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

const DB: &str = "{name: tcp, port: 5432}";

#[test]
fn weights_of_a_tcp_rule_become_those_of_clusters() {
    let rule = "hosts: [db], tcp: [{route: [{destination: {host: db, subset: v1}, weight: 80}, {destination: {host: db, subset: v2}, weight: 20}, {destination: {host: other}}]}]";
    let set = redirected(&[cluster_ip("db", "10.1.0.1", DB), virtual_service("db", rule)].concat());
    assert_eq!(chains(&set, "10.1.0.1_5432"), ["* -> 5432|v1|db=80 5432|v2|db=20"]);
    let proxy = tcp_proxy(&listener(&set, "10.1.0.1_5432").filter_chains[0]);
    assert_eq!(proxy.stat_prefix, "db.default", "statistics of several clusters bear the name of the rule's object");
    envoy_accepts("listeners-weights", &set);
}

#[test]
fn one_destination_of_a_tcp_rule_gets_all_whatever_its_weight() {
    let rule = "hosts: [db], tcp: [{route: [{destination: {host: other}, weight: 0}]}]";
    let yaml = [cluster_ip("db", "10.1.0.1", DB), service("other", 9999), virtual_service("db", rule)].concat();
    let set = redirected(&yaml);
    // The only port of the destination, though nothing on this listener has it.
    assert_eq!(chains(&set, "10.1.0.1_5432"), ["* -> 9999||other"]);
    assert_eq!(
        tcp_proxy(&listener(&set, "10.1.0.1_5432").filter_chains[0]).stat_prefix,
        "outbound|9999||other.default.svc.cluster.local"
    );
}

#[test]
fn subnets_of_a_tcp_rule_narrow_it_and_the_service_takes_the_rest() {
    let rule = "hosts: [net.com], tcp: [{match: [{destinationSubnets: [10.9.1.0/24]}, {destinationSubnets: [10.9.2.7]}], route: [{destination: {host: one}}]}, {match: [{port: 1}], route: [{destination: {host: never}}]}]";
    let entry = service_entry(
        "net",
        "hosts: [net.com], addresses: [10.9.0.0/16], ports: [{number: 7000, name: tcp, protocol: TCP}], resolution: NONE",
    );
    let set = redirected(&[entry, virtual_service("net", rule)].concat());
    assert_eq!(
        chains(&set, "0.0.0.0_7000"),
        ["10.9.1.0/24 10.9.2.7/32 -> 7000||one", "10.9.0.0/16 -> 7000||net.com", "else -> PassthroughCluster"]
    );
    envoy_accepts("listeners-subnets", &set);
}

#[test]
fn the_first_tcp_rule_that_takes_everything_ends_the_list() {
    let rule = "hosts: [db], tcp: [{match: [{port: 5432}], route: [{destination: {host: one}}]}, {route: [{destination: {host: two}}]}]";
    let set = redirected(&[cluster_ip("db", "10.1.0.1", DB), virtual_service("db", rule)].concat());
    assert_eq!(chains(&set, "10.1.0.1_5432"), ["* -> 5432||one"]);
}

#[test]
fn conditions_of_a_tcp_match_hold_together() {
    let rule = "hosts: [db], tcp: [{match: [{sourceLabels: {app: web}, gateways: [mesh], sourceNamespace: default, port: 5432}], route: [{destination: {host: one}}]}]";
    let world = world(&[cluster_ip("db", "10.1.0.1", DB), virtual_service("db", rule)].concat());
    let of = |scope: Scope| chains(&compile(&world, &scope), "10.1.0.1_5432");
    assert_eq!(of(redirected_scope(&[("app", "web")])), ["* -> 5432||one"]);
    // Matches for bytes do not forget the source where gateways are named, as those for HTTP do.
    assert_eq!(of(redirected_scope(&[("app", "api")])), ["* -> 5432||db"]);
    let elsewhere = Scope { namespace: "other".into(), ..redirected_scope(&[("app", "web")]) };
    assert_eq!(of(elsewhere), ["* -> 5432||db"]);
}

#[test]
fn tcp_rules_are_not_for_tls_nor_tls_rules_for_bytes() {
    let tcp = "hosts: [db], tcp: [{route: [{destination: {host: one}}]}]";
    let set =
        redirected(&[cluster_ip("db", "10.1.0.1", "{name: tls, port: 5432}"), virtual_service("db", tcp)].concat());
    assert_eq!(chains(&set, "10.1.0.1_5432"), ["* -> 5432||db"]);
    let tls = "hosts: [db.com], tls: [{match: [{sniHosts: [db.com]}], route: [{destination: {host: one}}]}]";
    let entry =
        service_entry("db", "hosts: [db.com], ports: [{number: 5432, name: tcp, protocol: TCP}], resolution: DNS");
    let set = redirected(&[entry, virtual_service("db", tls)].concat());
    assert_eq!(chains(&set, "0.0.0.0_5432"), ["* -> 5432||db.com"]);
}

#[test]
fn each_match_of_a_tls_rule_is_a_chain_and_the_service_has_none_then() {
    let rule = "hosts: [\"*.web.com\"], tls: [{match: [{sniHosts: [a.web.com, B.web.com]}, {port: 444, sniHosts: [c.web.com]}, {sniHosts: [\"*.web.com\"], destinationSubnets: [10.9.0.0/16]}], route: [{destination: {host: one}}]}, {match: [{sniHosts: [b.web.com, a.web.com]}], route: [{destination: {host: two}}]}]";
    let entry = service_entry(
        "web",
        "hosts: [\"*.web.com\"], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE",
    );
    let set = redirected(&[entry, virtual_service("web", rule)].concat());
    assert_eq!(
        chains(&set, "0.0.0.0_443"),
        [
            "sni=a.web.com sni=b.web.com -> 443||one",
            "10.9.0.0/16 sni=*.web.com -> 443||one",
            "else -> PassthroughCluster"
        ]
    );
    envoy_accepts("listeners-tls-rules", &set);
}

#[test]
fn no_two_chains_of_a_listener_take_the_same_connections() {
    let rule = "hosts: [\"*.web.com\"], tls: [{match: [{sniHosts: [a.web.com, b.web.com]}], route: [{destination: {host: one}}]}, {match: [{sniHosts: [b.web.com, c.web.com]}], route: [{destination: {host: two}}]}]";
    let entry = |name: &str, hosts: &str| {
        service_entry(
            name,
            &format!(
                "hosts: [{hosts}], ports: [{{number: 443, name: tls, protocol: TLS}}], resolution: DNS, endpoints: [{{address: 1.2.3.4}}]"
            ),
        )
    };
    let yaml = [entry("a", "\"*.web.com\""), entry("b", "c.web.com"), virtual_service("web", rule)].concat();
    let set = redirected(&yaml);
    assert_eq!(
        chains(&set, "0.0.0.0_443"),
        ["sni=a.web.com sni=b.web.com -> 443||one", "sni=c.web.com -> 443||two", "else -> PassthroughCluster"]
    );
    envoy_accepts("listeners-distinct", &set);
    let rule = "hosts: [net.com], tcp: [{match: [{destinationSubnets: [10.9.1.0/24]}], route: [{destination: {host: one}}]}, {match: [{destinationSubnets: [10.9.1.0/24, 10.9.2.0/24]}], route: [{destination: {host: two}}]}]";
    let entry = service_entry(
        "net",
        "hosts: [net.com], addresses: [10.9.0.0/16], ports: [{number: 7000, name: tcp, protocol: TCP}], resolution: NONE",
    );
    let set = redirected(&[entry, virtual_service("net", rule)].concat());
    assert_eq!(
        chains(&set, "0.0.0.0_7000"),
        [
            "10.9.1.0/24 -> 7000||one",
            "10.9.2.0/24 -> 7000||two",
            "10.9.0.0/16 -> 7000||net.com",
            "else -> PassthroughCluster"
        ]
    );
    envoy_accepts("listeners-distinct-subnets", &set);
}

#[test]
fn limits_of_the_rule_for_a_service_hold_for_its_connections() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db, namespace: default}\nspec: {host: db, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}, connectionPool: {tcp: {idleTimeout: 30s, maxConnectionDuration: 1h}}, portLevelSettings: [{port: {number: 5432}, connectionPool: {tcp: {idleTimeout: 5s}}}]}}\n";
    let set = redirected(&[cluster_ip("db", "10.1.0.1", DB), rule.to_owned()].concat());
    let proxy = tcp_proxy(&listener(&set, "10.1.0.1_5432").filter_chains[0]);
    assert_eq!(proxy.idle_timeout.unwrap().seconds, 30, "settings of the whole host, not of the port");
    assert_eq!(proxy.max_downstream_connection_duration.unwrap().seconds, 3600);
    assert_eq!(proxy.hash_policy.len(), 1);
}

#[test]
fn the_idle_time_that_a_proxy_tells_of_itself_holds_where_no_rule_says_one() {
    let mut scope = redirected_scope(&[]);
    scope.metadata.insert("IDLE_TIMEOUT".to_owned(), "90s".to_owned());
    let set = compile(&world(&cluster_ip("db", "10.1.0.1", DB)), &scope);
    for (name, chain) in [("10.1.0.1_5432", 0), ("virtualOutbound", 1)] {
        let proxy = tcp_proxy(&listener(&set, name).filter_chains[chain]);
        assert_eq!(proxy.idle_timeout.map(|time| time.seconds), Some(90), "{name}");
    }
}
