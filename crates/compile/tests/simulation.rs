//! Do calls go where Istio's own simulation of its configuration says they go? Each scenario is a mesh and a proxy with
//! calls and their expected ways, or with the clusters behind the hosts of one port.
//!
//! The scenarios are a file beside the checkout (`../shared/cases/simulation.json`, or below the folder that
//! `LATEEN_CASES` names). Without it there is nothing to check.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lateen_compile::explain::{Call, CallProtocol, CallTls, Direction, Explanation, explain};
use lateen_compile::{Interception, Mesh, Scope, World, compile};
use lateen_config::{MeshConfig, SourceFile};
use lateen_xds::envoy::config::core::v3::address;
use lateen_xds::envoy::config::listener::v3::AdditionalAddress;
use lateen_xds::envoy::config::route::v3::{Route, route, route_action};
use lateen_xds::{Resource, XdsSet};
use serde_json::Value;

/// Scenarios that the compiler does not serve yet: routes of the Gateway API. One that passes must leave the list.
const NOT_YET: &[&str] = &[
    "TestSidecarRoutes/httproute/producer rule port 80",
    "TestSidecarRoutes/httproute/consumer rule port 8080",
    "TestSidecarRoutes/httproute/multiple rules 8080",
    "TestSidecarRoutes/httproute/multi-host import single",
];

/// Calls for which Lateen means to differ: scenario, call, and the answer instead.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    // Istio makes two chains for the same connections, for which Envoy refuses the listener; here the older has them.
    ("TestGatewayConflicts/duplicate tls gateway", "call", "is `no-route`"),
];

#[test]
fn calls_go_where_istio_sends_them() {
    let Some(scenarios) = scenarios() else { return };
    let mut failures = Vec::new();
    let mut met = BTreeSet::new();
    let mut calls = 0;
    for scenario in &scenarios {
        let name = scenario["name"].as_str().unwrap();
        calls += scenario["calls"].as_array().map_or(0, Vec::len);
        let wrong: Vec<String> = judge(scenario)
            .into_iter()
            .filter(|(call, difference)| {
                let exception = EXCEPTIONS.iter().find(|(of, which, _)| *of == name && which == call);
                if let Some(exception) = exception {
                    met.insert((exception.0, exception.1));
                }
                exception.is_none_or(|(_, _, instead)| !difference.ends_with(instead))
            })
            .map(|(call, difference)| format!("  {call}: {difference}"))
            .collect();
        match (wrong.is_empty(), NOT_YET.contains(&name)) {
            (true, true) => failures.push(format!("{name} passes now: take it off the list")),
            (false, false) => failures.push(format!("{name}\n{}", wrong.join("\n"))),
            (false, true) if std::env::var_os("LATEEN_CASES_ALL").is_some() => {
                eprintln!("not yet: {name}\n{}", wrong.join("\n"));
            }
            _ => {}
        }
    }
    for (scenario, call, _) in EXCEPTIONS {
        if !met.contains(&(*scenario, *call)) {
            failures.push(format!("{scenario}, {call}: no exception any more"));
        }
    }
    let known: BTreeSet<&str> = scenarios.iter().filter_map(|scenario| scenario["name"].as_str()).collect();
    for name in NOT_YET.iter().filter(|name| !known.contains(*name)) {
        failures.push(format!("{name} is no scenario"));
    }
    eprintln!("{} scenarios, {calls} calls, {} not yet", scenarios.len(), NOT_YET.len());
    assert!(failures.is_empty(), "{} scenarios:\n{}", failures.len(), failures.join("\n"));
}

fn scenarios() -> Option<Vec<Value>> {
    let folder = std::env::var_os("LATEEN_CASES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases"), PathBuf::from);
    let path = folder.join("simulation.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("no scenarios at {}", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// The differences of a scenario: call, and what is different.
fn judge(scenario: &Value) -> Vec<(String, String)> {
    let world = world(scenario);
    let scope = scope(&scenario["proxy"]);
    let set = for_both_families(compile(&world, &scope));
    let mut differences = Vec::new();
    for case in scenario["calls"].as_array().into_iter().flatten() {
        let explanation = explain(&set, &world, &scope, &call(&case["call"]));
        let name = case["name"].as_str().unwrap_or_default();
        differences
            .extend(compare(&case["expect"], &explanation).into_iter().map(|difference| (name.to_owned(), difference)));
    }
    if let Some(table) = scenario.get("route_table") {
        differences.extend(compare_table(table, &set).into_iter().map(|difference| ("routes".to_owned(), difference)));
    }
    differences
}

/// Istio's simulation looks for addresses of both families at 0.0.0.0; Envoy looks for those of IPv6 at `::` alone.
fn for_both_families(mut set: XdsSet) -> XdsSet {
    for listener in set.listeners.values_mut() {
        let every_address = |ip: &str| {
            let mut address = listener.message.address.clone()?;
            match address.address.as_mut()? {
                address::Address::SocketAddress(socket) if socket.address == "0.0.0.0" => {
                    socket.address = ip.to_owned()
                }
                _ => return None,
            }
            Some(AdditionalAddress { address: Some(address), ..Default::default() })
        };
        if let Some(additional) = every_address("::") {
            let mut message = (*listener.message).clone();
            message.additional_addresses.push(additional);
            *listener = Resource::new(message, listener.origins.to_vec());
        }
    }
    set
}

/// Objects that validation would refuse are compiled all the same, as Istio's simulation does.
fn world(scenario: &Value) -> World {
    let text = |key: &str| scenario[key].as_str().unwrap_or_default().to_owned();
    let sources = [SourceFile::new("config.yaml", text("config")), SourceFile::new("kube.yaml", text("kube_config"))];
    let parsed = lateen_config::load(&sources);
    let mesh = match scenario.get("mesh_config") {
        Some(config) => {
            let file = SourceFile::new("mesh.yaml", config.to_string());
            let (config, problems) = lateen_config::parse_mesh(&file);
            assert!(problems.is_empty(), "{problems:?}");
            config.unwrap_or_default()
        }
        None => MeshConfig::default(),
    };
    World::build(parsed.objects.into_iter().map(Into::into).collect(), Mesh::from_config(&mesh))
}

/// The proxy of all scenarios has the address 1.1.1.1.
fn scope(proxy: &Value) -> Scope {
    let labels: BTreeMap<String, String> = proxy["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let namespace = proxy["namespace"].as_str().unwrap();
    let addresses = vec!["1.1.1.1".parse().unwrap()];
    match proxy["type"].as_str().unwrap() {
        "router" => Scope { labels: Some(labels), addresses, ..Scope::gateway(namespace) },
        _ => Scope { interception: Interception::Redirect, addresses, ..Scope::sidecar(namespace, labels) },
    }
}

/// A client that speaks of a server name begins with TLS, one that begins with TLS names its host, and one that has
/// a certificate of the mesh offers the protocols of the mesh. Without an address it wants to go anywhere.
fn call(case: &Value) -> Call {
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let protocol = match case["protocol"].as_str() {
        Some("http") => CallProtocol::Http1,
        Some("http2") => CallProtocol::Http2,
        _ => CallProtocol::Tcp,
    };
    let tls = match (case["tls"].as_str(), case.get("sni")) {
        (Some("mtls"), _) => CallTls::Mutual,
        (Some("tls"), _) | (None, Some(_)) => CallTls::Tls,
        _ => CallTls::Plaintext,
    };
    let mutual = tls == CallTls::Mutual;
    Call {
        direction: if case["mode"] == "inbound" { Direction::Inbound } else { Direction::Outbound },
        address: Some(case["address"].as_str().unwrap_or("1.3.3.7").parse().unwrap()),
        port: u16::try_from(case["port"].as_u64().unwrap()).unwrap(),
        protocol,
        tls,
        sni: text("sni").or_else(|| text("host").filter(|_| tls == CallTls::Tls)),
        alpn: text("alpn")
            .map_or_else(|| if mutual { Call::mesh_alpn(protocol) } else { Vec::new() }, |alpn| vec![alpn]),
        client_certificate: mutual.then(|| text("mtls_secret").unwrap_or_else(|| "default".to_owned())),
        authority: text("host").unwrap_or_default(),
        path: text("path").unwrap_or_else(|| "/".to_owned()),
        ..Call::default()
    }
}

/// What is not as expected. A strict case is silent about nothing: what it does not name must not be there.
fn compare(expect: &Value, explanation: &Explanation) -> Vec<String> {
    let strict = expect["strict"] == true;
    let mut differences = Vec::new();
    let mut check = |what: &str, always: bool, found: String| {
        let expected = expect[what].as_str();
        if expected.is_none() && !strict && !always {
            return;
        }
        let expected = with_domain(expected.unwrap_or_default());
        if with_domain(&found) != expected {
            differences.push(format!("{what} should be `{expected}`, is `{found}`"));
        }
    };
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    let refusal = explanation.error.as_ref();
    check("error", true, refusal.map(|refusal| refusal.kind.as_str().to_owned()).unwrap_or_default());
    check("listener", false, named(&explanation.listener));
    check("filter_chain", false, named(&explanation.filter_chain));
    check("route_config", false, named(&explanation.route_config));
    check("virtual_host", false, named(&explanation.virtual_host));
    check("route", false, named(&explanation.route));
    let clusters: Vec<&str> = explanation.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    check("cluster", false, clusters.join(", "));
    differences
}

/// Istio's simulation has no cluster domain: short names end with the namespace.
fn with_domain(name: &str) -> String {
    match name {
        "<allow-any-dynamic-dns cluster>" => "AllowAnyDynamicDNSCluster".to_owned(),
        _ if name.starts_with("outbound|") && name.ends_with(".default") => format!("{name}.svc.cluster.local"),
        _ => name.to_owned(),
    }
}

/// The clusters behind each host of a port; null for a host that must not be there.
fn compare_table(table: &Value, set: &XdsSet) -> Vec<String> {
    let routes = set.routes.get(table["port"].as_str().unwrap());
    let hosts = routes.iter().flat_map(|routes| &routes.message.virtual_hosts);
    let by_domain: BTreeMap<&str, Vec<String>> = hosts
        .flat_map(|host| host.domains.iter().map(move |domain| (domain.as_str(), &host.routes)))
        .map(|(domain, routes)| (domain, routes.iter().map(cluster).collect()))
        .collect();
    let expected = table["virtual_hosts"].as_object().unwrap();
    expected
        .iter()
        .filter_map(|(host, clusters)| {
            let found = by_domain.get(host.as_str());
            let expected: Option<Vec<String>> =
                clusters.as_array().map(|all| all.iter().map(|cluster| cluster.as_str().unwrap().to_owned()).collect());
            (found != expected.as_ref()).then(|| format!("{host} should lead to {expected:?}, leads to {found:?}"))
        })
        .collect()
}

fn cluster(route: &Route) -> String {
    match &route.action {
        Some(route::Action::Route(action)) => match &action.cluster_specifier {
            Some(route_action::ClusterSpecifier::Cluster(name)) => name.clone(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}
