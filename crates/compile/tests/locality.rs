//! Which endpoints of a service are used first? Localities, nodes and health, as clusters and assignments carry them.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::world::services::Locality;
use lateen_compile::{Mesh, Scope, compile};
use lateen_xds::{XdsSet, json};
use mesh::*;
use serde_json::{Value, json};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// A sidecar at a place.
fn at(place: &str) -> Scope {
    Scope { locality: Locality::parse(place), ..sidecar_scope("default", &[]) }
}

fn reviews(fields: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: default}}\nspec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 9080}}]{fields}}}\n"
    )
}

fn rule(fields: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\nspec: {{host: reviews, trafficPolicy: {{{fields}}}}}\n"
    )
}

/// A workload behind `reviews` for each (address, place).
fn workloads(places: &[(&str, &str)]) -> String {
    let entry = |(address, place): &(&str, &str)| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w-{}, namespace: default}}\nspec: {{address: {address}, labels: {{app: reviews}}, locality: {place}}}\n",
            address.replace('.', "-")
        )
    };
    places.iter().map(entry).collect()
}

/// `address: priority/weight of its group`, in order of address.
fn shares(assignment: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for group in assignment["endpoints"].as_array().into_iter().flatten() {
        let number = |field: &str| group.get(field).and_then(Value::as_u64).unwrap_or_default();
        for endpoint in group["lb_endpoints"].as_array().unwrap() {
            let address = endpoint["endpoint"]["address"]["socket_address"]["address"].as_str().unwrap();
            found.push(format!("{address}: {}/{}", number("priority"), number("load_balancing_weight")));
        }
    }
    found.sort();
    found
}

fn assigned(set: &XdsSet) -> Vec<String> {
    shares(&json::render(&*set.endpoints[REVIEWS].message).unwrap())
}

fn common(set: &XdsSet, name: &str) -> Value {
    json::render(cluster(set, name)).unwrap()["common_lb_config"].clone()
}

const FIVE: [(&str, &str); 5] = [
    ("10.0.0.1", "us-west/a/1"),
    ("10.0.0.2", "us-west/a/2"),
    ("10.0.0.3", "us-west/b/1"),
    ("10.0.0.4", "us-east/c/1"),
    ("10.0.0.5", "eu/x/1"),
];

#[test]
fn farther_localities_take_over_when_something_tells_which_are_healthy() {
    let base = format!("{}{}", reviews(""), workloads(&FIVE));
    let failover = "loadBalancer: {localityLbSetting: {failover: [{from: us-west, to: us-east}]}}";
    let with = format!("{base}{}", rule(&format!("{failover}, outlierDetection: {{consecutive5xxErrors: 1}}")));
    let set = compile(&world(&with), &at("us-west/a/1"));
    assert_eq!(assigned(&set), ["10.0.0.1: 0/1", "10.0.0.2: 1/1", "10.0.0.3: 2/1", "10.0.0.4: 3/1", "10.0.0.5: 4/1"]);
    assert_eq!(common(&set, REVIEWS)["locality_weighted_lb_config"], json!({}));
    let without = compile(&world(&format!("{base}{}", rule(failover))), &at("us-west/a/1"));
    assert!(assigned(&without).iter().all(|share| share.ends_with(": 0/1")));
    assert_eq!(common(&without, REVIEWS).get("locality_weighted_lb_config"), None);
}

#[test]
fn outlier_detection_alone_prefers_near_localities_unless_the_mesh_says_otherwise() {
    let yaml = format!("{}{}{}", reviews(""), workloads(&FIVE), rule("outlierDetection: {consecutive5xxErrors: 1}"));
    let set = compile(&world(&yaml), &at("us-west/b/1"));
    assert_eq!(assigned(&set), ["10.0.0.1: 1/1", "10.0.0.2: 1/1", "10.0.0.3: 0/1", "10.0.0.4: 2/1", "10.0.0.5: 2/1"]);
    let mut off = Mesh::default();
    off.locality_lb_setting.enabled = Some(false);
    let set = compile(&world_with(&yaml, off), &at("us-west/b/1"));
    assert!(assigned(&set).iter().all(|share| share.ends_with(": 0/1")));
}

#[test]
fn shares_of_localities_need_nothing_else() {
    let yaml = format!(
        "{}{}{}",
        reviews(""),
        workloads(&FIVE),
        rule("loadBalancer: {localityLbSetting: {distribute: [{from: us-west/a/*, to: {us-west/*: 90, eu/*: 10}}]}}")
    );
    let set = compile(&world(&yaml), &at("us-west/a/1"));
    assert_eq!(assigned(&set), ["10.0.0.1: 0/30", "10.0.0.2: 0/30", "10.0.0.3: 0/30", "10.0.0.5: 0/10"]);
    assert_eq!(common(&set, REVIEWS)["locality_weighted_lb_config"], json!({}));
}

#[test]
fn zones_are_left_to_the_data_plane_where_a_rule_asks_for_it() {
    let of = |setting: &str| {
        let yaml = format!("{}{}", reviews(""), rule(&format!("loadBalancer: {{zoneAwareLbSetting: {setting}}}")));
        common(&compile(&world(&yaml), &at("us")), REVIEWS)["zone_aware_lb_config"].clone()
    };
    assert_eq!(of("{minClusterSize: 3}"), json!({"min_cluster_size": "3"}));
    assert_eq!(of("{enabled: false}"), json!({"routing_enabled": {}}));
}

#[test]
fn names_have_localities_too() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: default}
spec: {hosts: [ext.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, endpoints: [{address: far.com, locality: eu/b}, {address: near.com, locality: us/a}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ext, namespace: default}
spec: {host: ext.com, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}}
";
    let set = compile(&world(yaml), &at("us/a"));
    let cluster = json::render(cluster(&set, "outbound|80||ext.com")).unwrap();
    assert_eq!(shares(&cluster["load_assignment"]), ["far.com: 1/1", "near.com: 0/1"]);
}

#[test]
fn a_service_may_ask_for_workloads_close_by_itself() {
    let yaml = format!("{}{}", reviews(", trafficDistribution: PreferClose"), workloads(&FIVE));
    let set = compile(&world(&yaml), &at("us-west/a/1"));
    assert_eq!(assigned(&set), ["10.0.0.1: 0/1", "10.0.0.2: 0/1", "10.0.0.3: 1/1", "10.0.0.4: 2/1", "10.0.0.5: 2/1"]);
    let off = rule("loadBalancer: {localityLbSetting: {enabled: false}}");
    let set = compile(&world(&format!("{yaml}{off}")), &at("us-west/a/1"));
    assert!(assigned(&set).iter().all(|share| share.ends_with(": 0/1")), "a rule comes before the service");
}

/// A Pod behind `reviews` on a node, ready or not.
fn pod(index: u8, node: &str, ready: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p-{index}, namespace: default, labels: {{app: reviews}}}}\nspec: {{nodeName: {node}, containers: []}}\nstatus: {{podIP: 10.0.0.{index}, phase: Running, conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
    )
}

#[test]
fn an_internal_policy_keeps_requests_on_their_node() {
    let yaml =
        format!("{}{}{}", reviews(", internalTrafficPolicy: Local"), pod(1, "one", "True"), pod(2, "two", "True"));
    let on = |node: &str| endpoints(&compile(&world(&yaml), &Scope { node: node.into(), ..at("") }), REVIEWS);
    assert_eq!(on("one"), ["10.0.0.1:9080"]);
    assert_eq!(on("two"), ["10.0.0.2:9080"]);
    assert!(on("three").is_empty());
    assert_eq!(on("").len(), 2, "who does not know its node cannot choose");
}

#[test]
fn unhealthy_workloads_count_where_a_service_asks_for_those_close_by() {
    let pods = format!("{}{}", pod(1, "one", "True"), pod(2, "two", "False"));
    let asked = rule("outlierDetection: {minHealthPercent: 10}");
    let plain = format!("{}{pods}{asked}", reviews(""));
    assert_eq!(endpoints(&compile(&world(&plain), &at("")), REVIEWS), ["10.0.0.1:9080"]);
    let close = format!("{}{pods}{asked}", reviews(", trafficDistribution: PreferClose"));
    assert_eq!(endpoints(&compile(&world(&close), &at("")), REVIEWS).len(), 2);
}

#[test]
fn workloads_that_go_away_keep_their_sessions() {
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: reviews-x, namespace: default, labels: {kubernetes.io/service-name: reviews}}\naddressType: IPv4\nports: [{name: http, port: 9080}]\nendpoints:\n- {addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}\n- {addresses: [10.0.0.2], conditions: {ready: false, serving: false, terminating: true}}\n";
    let plain = format!("{}{slice}", reviews(""));
    assert!(endpoints(&compile(&world(&plain), &at("")), REVIEWS).is_empty());
    let sessions =
        plain.replacen("namespace: default}", "namespace: default, labels: {istio.io/persistent-session: cookie}}", 1);
    let set = compile(&world(&sessions), &at(""));
    assert_eq!(endpoints(&set, REVIEWS), ["10.0.0.1:9080"]);
    let assignment = json::render(&*set.endpoints[REVIEWS].message).unwrap();
    assert_eq!(assignment["endpoints"][0]["lb_endpoints"][0]["health_status"], "DRAINING");
}
