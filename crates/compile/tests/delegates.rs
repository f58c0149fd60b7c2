//! What does a rule make that hands its requests to another VirtualService?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Scope, compile};
use lateen_xds::{Part, XdsSet};
use mesh::listeners::redirected_scope;
use mesh::*;

const GATEWAY: &str = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: edge}\nspec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]}\n";

/// The root in namespace `edge`, with rules in flow style.
fn root(http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: edge}}\nspec: {{hosts: [shop.com], gateways: [gw], http: [{http}]}}\n"
    )
}

/// A delegate in namespace `default`, with fields of its spec in flow style.
fn delegate(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{fields}}}\n"
    )
}

fn compiled(objects: &[String]) -> XdsSet {
    gateway(&[GATEWAY.to_owned(), objects.concat()].concat())
}

fn shop(objects: &[String]) -> Vec<String> {
    routes(virtual_host(&compiled(objects), "http.80", "shop.com:80"))
}

const TO_CART: &str = "{match: [{uri: {prefix: /cart}}], delegate: {name: cart, namespace: default}}";

#[test]
fn rules_of_the_delegate_stand_in_the_place_of_the_one_that_delegates() {
    let rules = "http: [{match: [{uri: {prefix: /cart/v2}}], route: [{destination: {host: cart, subset: v2}}]}, {route: [{destination: {host: cart}}]}]";
    let objects = [
        root(&format!(
            "{{match: [{{uri: {{prefix: /first}}}}], route: [{{destination: {{host: first.com}}}}]}}, {TO_CART}, {{route: [{{destination: {{host: last.com}}}}]}}"
        )),
        delegate("cart", rules),
    ];
    // Short names are those of the delegate's namespace.
    assert_eq!(
        shop(&objects),
        ["/first* -> 80||first.com", "/cart/v2* -> 80|v2|cart", "/cart* -> 80||cart", "/* -> 80||last.com"]
    );
    let set = compiled(&objects);
    let origin = set.routes["http.80"].origin(Part::Route { virtual_host: 0, route: 1 }).unwrap();
    assert_eq!((&*origin.name, &*origin.rule), ("cart", "http[0].match[0]"), "it comes from the delegate");
    assert_eq!(virtual_hosts(&set, "http.80"), ["shop.com:80"], "a delegate has no host of its own");
}

#[test]
fn without_a_namespace_the_delegate_is_the_roots_neighbour() {
    let rule = "{match: [{uri: {prefix: /cart}}], delegate: {name: cart}}";
    let own = delegate("cart", "http: [{route: [{destination: {host: here}}]}]").replace("default", "edge");
    assert_eq!(shop(&[root(rule), own]), ["/cart* -> 80||here.edge.svc.cluster.local"]);
}

#[test]
fn a_delegate_that_is_not_there_or_not_seen_leaves_the_other_rules_alone() {
    let rules = root(&format!("{TO_CART}, {{route: [{{destination: {{host: last.com}}}}]}}"));
    assert_eq!(shop(std::slice::from_ref(&rules)), ["/* -> 80||last.com"]);
    let delegate_for = |export: &str| {
        delegate("cart", &format!("exportTo: [{export}], http: [{{route: [{{destination: {{host: cart}}}}]}}]"))
    };
    assert_eq!(shop(&[rules.clone(), delegate_for("\".\"")]), ["/* -> 80||last.com"]);
    assert_eq!(shop(&[rules, delegate_for("edge")]), ["/cart* -> 80||cart", "/* -> 80||last.com"]);
    let world = world(&[GATEWAY.to_owned(), root(TO_CART)].concat());
    let found: Vec<_> = world.diagnostics().iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(found, ["spec.http[0].delegate"], "and it is said");
}

#[test]
fn a_virtual_service_with_hosts_is_no_delegate() {
    let with_hosts = delegate("cart", "hosts: [cart.com], http: [{route: [{destination: {host: cart}}]}]");
    let rules = root(&format!("{TO_CART}, {{route: [{{destination: {{host: last.com}}}}]}}"));
    assert_eq!(shop(&[rules, with_hosts]), ["/* -> 80||last.com"]);
}

#[test]
fn delegates_delegate_no_further() {
    let objects = [
        root(TO_CART),
        delegate("cart", "http: [{delegate: {name: deeper}}, {route: [{destination: {host: cart}}]}]"),
        delegate("deeper", "http: [{route: [{destination: {host: deeper}}]}]"),
    ];
    let set = compile(&unchecked(&[GATEWAY.to_owned(), objects.concat()].concat()), &Scope::gateway("istio-system"));
    assert_eq!(routes(virtual_host(&set, "http.80", "shop.com:80")), ["/cart* -> 80||cart"]);
}

#[test]
fn conditions_of_both_hold_together() {
    let objects = [
        root(
            "{match: [{uri: {prefix: /a}, headers: {x: {exact: one}}}, {uri: {prefix: /b}}], delegate: {name: cart, namespace: default}}",
        ),
        delegate(
            "cart",
            "http: [{match: [{uri: {exact: /a/1}, headers: {z: {exact: two}}}, {method: {exact: GET}}], route: [{destination: {host: cart}}]}]",
        ),
    ];
    assert_eq!(
        shop(&objects),
        ["/a/1 x=one z=two -> 80||cart", "/a* x=one :method=GET -> 80||cart", "/b* :method=GET -> 80||cart",]
    );
}

#[test]
fn a_rule_of_the_delegate_that_contradicts_the_root_is_left_out_whole() {
    let rule = |own: &str| {
        let rules = format!(
            "http: [{{match: [{own}], route: [{{destination: {{host: cart}}}}]}}, {{route: [{{destination: {{host: rest}}}}]}}]"
        );
        let root = root(
            "{match: [{uri: {prefix: /cart}, method: {exact: GET}, port: 80}], delegate: {name: cart, namespace: default}}",
        );
        shop(&[root, delegate("cart", &rules)]).len() == 2
    };
    assert!(rule("{uri: {prefix: /cart/}}"));
    assert!(rule("{port: 80}"));
    assert!(!rule("{uri: {prefix: /other}}"));
    assert!(!rule("{uri: {regex: /cart/.*}}"), "of regular expressions it cannot be told");
    assert!(!rule("{method: {exact: POST}}"));
    assert!(!rule("{port: 81}"));
    assert!(!rule("{uri: {prefix: /cart/}, ignoreUriCase: true}"));
    assert!(!rule("{uri: {prefix: /cart/}}, {uri: {prefix: /other}}"), "one that fits nowhere is enough");
}

#[test]
fn settings_of_the_root_hold_where_the_delegate_has_none() {
    let rule = "{name: root, match: [{uri: {prefix: /cart}}], delegate: {name: cart, namespace: default}, timeout: 5s, retries: {attempts: 7}, rewrite: {uri: /root}, headers: {request: {set: {x: root}}}}";
    let rules = "http: [{name: own, route: [{destination: {host: cart}}], timeout: 2s, headers: {response: {set: {z: own}}}}, {route: [{destination: {host: cart}}]}]";
    let set = compiled(&[root(rule), delegate("cart", rules)]);
    let host = virtual_host(&set, "http.80", "shop.com:80");
    let row = |index: usize| {
        let route = &host.routes[index];
        let action = forwarding(route);
        (
            route.name.as_str(),
            action.timeout.unwrap().seconds,
            action.retry_policy.as_ref().unwrap().num_retries.unwrap(),
            action.prefix_rewrite.as_str(),
            route.request_headers_to_add.len(),
            route.response_headers_to_add.len(),
        )
    };
    // Blocks are taken whole: the delegate's `headers` say nothing of requests.
    assert_eq!(row(0), ("root-own", 2, 7, "/root", 0, 1));
    assert_eq!(row(1), ("root", 5, 7, "/root", 1, 0));
}

#[test]
fn one_delegate_may_stand_in_for_many_rules() {
    let rules = root(
        "{match: [{uri: {prefix: /x}}], delegate: {name: cart, namespace: default}}, {match: [{uri: {prefix: /y}}], delegate: {name: cart, namespace: default}}",
    );
    let cart = delegate("cart", "http: [{route: [{destination: {host: cart}}]}]");
    assert_eq!(shop(&[rules, cart]), ["/x* -> 80||cart", "/y* -> 80||cart"]);
}

#[test]
fn gateways_that_a_delegate_names_are_those_of_its_own_namespace() {
    let rules = "http: [{match: [{gateways: [gw], uri: {prefix: /cart/a}}], route: [{destination: {host: one}}]}, {match: [{gateways: [edge/gw], uri: {prefix: /cart/b}}], route: [{destination: {host: two}}]}]";
    // `gw` of the delegate is `default/gw`, which is not the one that the root is bound to.
    assert_eq!(shop(&[root(TO_CART), delegate("cart", rules)]), ["/cart/b* -> 80||two"]);
}

#[test]
fn sidecars_follow_delegates_too() {
    let yaml = [
        service("shop", 80),
        root(TO_CART).replace("hosts: [shop.com], gateways: [gw]", "hosts: [shop.default.svc.cluster.local]"),
        delegate("cart", "http: [{route: [{destination: {host: cart}}]}]"),
    ]
    .concat();
    let set = compile(&world(&yaml), &redirected_scope(&[]));
    assert_eq!(routes(virtual_host(&set, "80", "shop.default.svc.cluster.local:80")), ["/cart* -> 80||cart"]);
}
