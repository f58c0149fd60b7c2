//! Are rules of a VirtualService found that can never apply?

use crate::support::{lines, load, virtual_service};
use lateen_config::Severity;

const TO: &str = "route: [{destination: {host: a}}]";

/// `code severity path` of each problem of these rules for HTTP.
fn found(rules: &[&str]) -> Vec<String> {
    let rules: String = rules.iter().map(|rule| format!("- {{{rule}{TO}}}\n")).collect();
    let parsed = load(&virtual_service("a", &format!("hosts: [a]\nhttp:\n{rules}")));
    let told = |found: &lateen_config::Diagnostic| format!("{} {} {}", found.code, found.severity, found.path);
    assert!(parsed.diagnostics.iter().all(|found| found.severity < Severity::Error), "{:?}", parsed.diagnostics);
    parsed.diagnostics.iter().map(told).collect()
}

#[test]
fn nothing_comes_after_a_rule_without_conditions() {
    assert_eq!(found(&["match: [{uri: {prefix: /a}}], ", ""]), Vec::<String>::new());
    assert_eq!(found(&["", ""]), ["IST0130 warning spec.http[1]"]);
    assert_eq!(
        found(&["", "match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], ", ""]),
        ["IST0130 warning spec.http[1]", "IST0130 warning spec.http[2]"]
    );
}

#[test]
fn conditions_that_were_there_before_are_found_whatever_their_names() {
    let twice = "match: [{name: first, uri: {prefix: /a}, headers: {h: {exact: v}}}], ";
    let again = "match: [{name: second, headers: {h: {exact: v}}, uri: {prefix: /a}}], ";
    let both = "match: [{uri: {prefix: /a}, headers: {h: {exact: v}}}, {uri: {prefix: /b}}], ";
    assert_eq!(found(&[twice, again]), ["IST0130 warning spec.http[1]", "IST0131 info spec.http[1].match[0]"]);
    assert_eq!(found(&[twice, both]), ["IST0131 info spec.http[1].match[0]"]);
}

#[test]
fn a_longer_prefix_after_a_shorter_one_is_found_unless_conditions_tell_them_apart() {
    let rules =
        |first: &str, second: &str| found(&[&format!("match: [{{{first}}}], "), &format!("match: [{{{second}}}], ")]);
    let covered = ["IST0131 info spec.http[1].match[0]"];
    assert_eq!(rules("uri: {prefix: /a}", "uri: {prefix: /ab}"), covered);
    assert_eq!(rules("uri: {prefix: /a}", "uri: {prefix: /ab}, method: {exact: GET}"), covered);
    assert_eq!(
        rules("uri: {prefix: /a}, method: {exact: GET}", "uri: {prefix: /ab}, method: {exact: GET}, headers: {h: {}}"),
        covered
    );
    for (first, second) in [
        ("uri: {prefix: /ab}", "uri: {prefix: /a}"),
        ("uri: {prefix: /a}", "uri: {exact: /ab}"),
        ("uri: {prefix: /a}, method: {exact: GET}", "uri: {prefix: /ab}, method: {exact: POST}"),
        ("uri: {prefix: /a}, headers: {h: {}}", "uri: {prefix: /ab}"),
        ("uri: {prefix: /a}, port: 80", "uri: {prefix: /ab}, port: 81"),
        ("uri: {prefix: /a}, sourceLabels: {app: b}", "uri: {prefix: /ab}"),
        ("uri: {prefix: /a}, gateways: [mesh]", "uri: {prefix: /ab}"),
    ] {
        assert_eq!(rules(first, second), Vec::<String>::new(), "{first} / {second}");
    }
}

#[test]
fn rules_for_tls_and_tcp_are_looked_at_too() {
    let tls = "- {match: [{sniHosts: [a.com]}], route: [{destination: {host: a}}]}\n";
    let tcp = "- {match: [{port: 1}], route: [{destination: {host: a}}]}\n- {route: [{destination: {host: a}}]}\n";
    let parsed = load(&virtual_service("a", &format!("hosts: [a.com]\ntls:\n{tls}{tls}tcp:\n{tcp}{tcp}")));
    assert_eq!(
        lines(&parsed.diagnostics),
        [
            "IST0130 8:5 `spec.tls[1]` is never reached: earlier rules take all that it matches",
            "IST0131 8:14 `spec.tls[1].match[0]` says the same as `spec.tls[0].match[0]`, which comes first",
            "IST0130 12:5 `spec.tcp[2]` is never reached: `spec.tcp[1]` has no `match` and takes everything",
            "IST0131 12:14 `spec.tcp[2].match[0]` says the same as `spec.tcp[0].match[0]`, which comes first",
            "IST0130 13:5 `spec.tcp[3]` is never reached: `spec.tcp[1]` has no `match` and takes everything",
        ]
    );
}

#[test]
fn thousands_of_rules_are_compared_in_passing() {
    let rules: Vec<String> = (0..5000).map(|number| format!("match: [{{uri: {{prefix: /{number}/}}}}], ")).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let began = std::time::Instant::now();
    assert_eq!(found(&rules), Vec::<String>::new());
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
