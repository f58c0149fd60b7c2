//! Is found what the schema of a kind bounds, what only Istio may write, and what has no effect?

use crate::support::{check, lines, load, problems};

#[test]
fn lists_are_as_long_as_the_schema_allows() {
    let ports: String = (1..=257).map(|n| format!("- {{number: {n}, name: p{n}, protocol: HTTP}}\n")).collect();
    let found = problems("ServiceEntry", &format!("hosts: [a.com]\nresolution: DNS\nports:\n{ports}"));
    assert_eq!(found, ["264:5 `spec.ports` has 257 entries; 256 are allowed"]);
    let server = "{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialNames: [a, b, c]}}";
    let found = problems("Gateway", &format!("servers:\n- {server}\n"));
    assert_eq!(found, ["6:113 `spec.servers[0].tls.credentialNames` has 3 entries; 2 are allowed"]);
}

#[test]
fn annotations_of_istio_itself_are_refused() {
    let object = |annotation: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, annotations: {{{annotation}}}}}\nspec: {{host: a_}}\n"
        );
        lines(&load(&text).diagnostics)
    };
    assert_eq!(object("mine: x"), ["IST0106 4:14 `a_` is no host"]);
    for name in ["istio.io/dry-run", "internal.istio.io/parents", "internal.istio.io/webhook-always-reject"] {
        let found = object(&format!("{name}: \"true\""));
        assert_eq!(found.len(), 1, "it ends the checks: {found:?}");
        assert!(found[0].starts_with("IST0106 3:") && found[0].contains(name), "{found:?}");
    }
}

#[test]
fn budgets_of_retries_are_shares() {
    check(
        "DestinationRule",
        &[
            ("host: a\ntrafficPolicy: {retryBudget: {percent: 20, minRetryConcurrency: 0, budgetInterval: 1s}}\n", &[]),
            (
                "host: a\ntrafficPolicy: {retryBudget: {percent: 101, budgetInterval: 0s}}\n",
                &[
                    "6:42 `spec.trafficPolicy.retryBudget.percent` is no share: 101",
                    "6:63 `spec.trafficPolicy.retryBudget.budgetInterval` must be at least 1ms",
                ],
            ),
        ],
    );
}

#[test]
fn fields_that_istio_does_not_look_at_are_warned_of() {
    let route = "route: [{destination: {host: a}}]";
    assert_eq!(
        problems("VirtualService", &format!("hosts: [a]\ntcp: [{{match: [{{sourceSubnet: 10.0.0.0/8}}], {route}}}]\n")),
        ["6:33 `spec.tcp[0].match[0].sourceSubnet` has no effect: Istio does not look at it"]
    );
    assert_eq!(
        problems("VirtualService", &format!("hosts: [a]\nhttp: [{{websocketUpgrade: true, {route}}}]\n")),
        ["6:29 `spec.http[0].websocketUpgrade` has no effect: connections can always be upgraded"]
    );
    let server = "{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.com], defaultEndpoint: 127.0.0.1:80}";
    assert_eq!(
        problems("Gateway", &format!("servers:\n- {server}\n")),
        ["6:84 `spec.servers[0].defaultEndpoint` has no effect: Istio does not look at it"]
    );
}
