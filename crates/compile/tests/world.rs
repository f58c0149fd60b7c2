//! What is said about objects that refer to nothing, or ask for what is not compiled?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{AccessLog, AccessLogEncoding, Mesh};
use lateen_config::Severity;
use mesh::*;

/// The findings about a text, as `line:column code message (help)`.
fn findings(yaml: &str) -> Vec<String> {
    world(yaml)
        .diagnostics()
        .iter()
        .map(|finding| {
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.object.is_some());
            let at = finding.location.as_ref().unwrap();
            let help = finding.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}:{} {} {}{help}", at.line, at.column, finding.code, finding.message)
        })
        .collect()
}

#[test]
fn an_unknown_host_is_shown_with_what_was_probably_meant() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviws
"
    .to_owned()
        + &service("reviews", 9080);
    assert_eq!(
        findings(&yaml),
        ["9:15 IST0101 host `reviws.default.svc.cluster.local` is not a known service (did you mean `reviews`?)"]
    );
}

#[test]
fn a_name_with_a_dot_is_no_short_name() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews.default}
"
    .to_owned()
        + &service("reviews", 9080);
    assert_eq!(
        findings(&yaml),
        [
            "4:14 IST0101 host `reviews.default` is not a known service (names with a dot are not expanded: write `reviews.default.svc.cluster.local`)"
        ]
    );
}

#[test]
fn subsets_ports_and_gateways_have_to_exist() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  gateways: [mesh, shop]
  http:
  - route:
    - {destination: {host: reviews, subset: v9}, weight: 1}
    - {destination: {host: reviews, port: {number: 80}}, weight: 1}
    - {destination: {host: ratings, subset: v1}, weight: 1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shops}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
"
    .to_owned()
        + &service("reviews", 9080)
        + &service("ratings", 9080);
    assert_eq!(
        findings(&yaml),
        [
            "6:20 IST0101 gateway `default/shop` does not exist (did you mean `default/shops`?)",
            "9:45 IST0101 subset `v9` of `reviews.default.svc.cluster.local` is not defined (did you mean `v1`?)",
            "10:52 IST0101 service `reviews.default.svc.cluster.local` has no port 80 (its ports are 9080)",
            "11:45 IST0101 subset `v1` of `ratings.default.svc.cluster.local` is not defined (define it in a DestinationRule for `ratings.default.svc.cluster.local`)",
        ]
    );
}

#[test]
fn nothing_that_is_asked_for_is_passed_over_in_silence() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  gateways: [edge]
  http: [{match: [{headers: {'@request.auth.claims.group': {exact: a}}}], route: [{destination: {host: a}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: v1
kind: Service
metadata: {name: east, labels: {topology.istio.io/network: east}}
spec: {ports: [{name: tls, port: 15443}]}
"
    .to_owned()
        + &service("a", 80);
    let messages: Vec<String> = world(&yaml).diagnostics().iter().map(|finding| finding.message.clone()).collect();
    assert_eq!(
        messages,
        [
            "no request matches a claim: tokens are not read, for RequestAuthentication is not carried out",
            "`PASSTHROUGH` without redirected connections is not compiled yet",
            "gateways between networks are not compiled yet",
        ]
    );
}

#[test]
fn settings_of_the_mesh_without_effect_are_named() {
    let file = lateen_config::SourceFile::new(
        "mesh.yaml",
        "{inboundClusterStatName: in, outboundClusterStatName: '%SERVICE%', defaultHttpRetryPolicy: {attempts: 1}}",
    );
    let mesh = lateen_compile::Mesh::from_config(&lateen_config::parse_mesh(&file).0.unwrap());
    let world = world_with(&service("a", 80), mesh);
    let messages: Vec<&str> = world.diagnostics().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`inboundClusterStatName` of the mesh is not carried out",
            "`outboundClusterStatName` of the mesh is not carried out"
        ]
    );
}

#[test]
fn delegates_and_destinations_of_connections_have_to_exist() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root}
spec:
  hosts: [a]
  http:
  - delegate: {name: part}
  - delegate: {name: parts}
  tcp:
  - route: [{destination: {host: backend}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part}
spec: {http: [{route: [{destination: {host: a}}]}]}
"
    .to_owned()
        + &service("a", 80);
    assert_eq!(
        findings(&yaml),
        [
            "8:15 IST0101 VirtualService `default/parts` does not exist: the rule is left out (did you mean `default/part`?)",
            "10:34 IST0101 host `backend.default.svc.cluster.local` is not a known service",
        ]
    );
}

#[test]
fn what_a_rule_says_of_tls_and_localities_is_compiled() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    tls: {mode: SIMPLE}
    tunnel: {targetHost: b.com, targetPort: 443}
    loadBalancer: {localityLbSetting: {failover: [{from: us, to: eu}]}}
    outlierDetection: {consecutive5xxErrors: 1}
    portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}, loadBalancer: {zoneAwareLbSetting: {}}}]
"
    .to_owned()
        + &service("a", 80);
    assert!(findings(&yaml).is_empty());
}

#[test]
fn a_sound_mesh_has_no_findings() {
    let yaml = format!("{}{}", service("reviews", 9080), workload("reviews", "v1", 9081));
    assert!(findings(&yaml).is_empty());
}

#[test]
fn a_log_format_that_is_no_json_is_said_and_replaced() {
    let log = AccessLog {
        file: "/dev/stdout".into(),
        format: Some("[%START_TIME%]".into()),
        encoding: AccessLogEncoding::Json,
    };
    let world = world_with("", Mesh { access_log: Some(log), ..Mesh::default() });
    assert_eq!(world.diagnostics().len(), 1);
}
