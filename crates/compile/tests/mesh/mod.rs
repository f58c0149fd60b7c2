//! What do the tests of this crate share? Worlds from YAML text, and short texts that say what was compiled.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

pub(crate) mod listeners;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use lateen_compile::{Mesh, Scope, World, compile};
use lateen_config::SourceFile;
use lateen_xds::XdsSet;
use lateen_xds::bootstrap::{BootstrapOptions, static_bootstrap};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, header_matcher, query_parameter_matcher, route, route_action, route_match,
};
use lateen_xds::envoy::r#type::matcher::v3::StringMatcher;
use lateen_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

/// A world of the objects in a text. The text must be without errors.
pub(crate) fn world(yaml: &str) -> World {
    world_with(yaml, Mesh::default())
}

/// The same, with settings of the mesh.
pub(crate) fn world_with(yaml: &str, mesh: Mesh) -> World {
    build(yaml, mesh, |_| true)
}

/// A world of objects that Istio's own rules may refuse: what skipped validation is compiled all the same.
pub(crate) fn unchecked(yaml: &str) -> World {
    build(yaml, Mesh::default(), |code| code != lateen_config::code::INVALID)
}

fn build(yaml: &str, mesh: Mesh, counts: fn(&str) -> bool) -> World {
    let parsed = lateen_config::load(&[SourceFile::new("mesh.yaml", yaml)]);
    let errors: Vec<String> = parsed
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error() && counts(diagnostic.code))
        .map(ToString::to_string)
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    World::build(parsed.objects.into_iter().map(Into::into).collect(), mesh)
}

/// What a gateway that answers for every selector gets.
pub(crate) fn gateway(yaml: &str) -> XdsSet {
    compile(&world(yaml), &Scope::gateway("istio-system"))
}

/// What a sidecar in namespace `default` gets.
pub(crate) fn sidecar(yaml: &str) -> XdsSet {
    compile(&world(yaml), &sidecar_scope("default", &[]))
}

/// The scope of a sidecar.
pub(crate) fn sidecar_scope(namespace: &str, labels: &[(&str, &str)]) -> Scope {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Scope::sidecar(namespace, labels)
}

/// A Service with one HTTP port, selecting `app: <name>`.
pub(crate) fn service(name: &str, port: u32) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{name: http, port: {port}}}]\n"
    )
}

/// A WorkloadEntry on loopback.
pub(crate) fn workload(app: &str, version: &str, port: u32) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {app}-{version}, namespace: default}}\nspec:\n  address: 127.0.0.1\n  ports: {{http: {port}}}\n  labels: {{app: {app}, version: {version}}}\n"
    )
}

/// A route configuration by name.
pub(crate) fn table<'a>(set: &'a XdsSet, name: &str) -> &'a RouteConfiguration {
    let known: Vec<_> = set.routes.keys().collect();
    &set.routes.get(name).unwrap_or_else(|| panic!("no route configuration {name} among {known:?}")).message
}

/// A virtual host by name.
pub(crate) fn virtual_host<'a>(set: &'a XdsSet, table_name: &str, name: &str) -> &'a VirtualHost {
    let table = table(set, table_name);
    let known: Vec<_> = table.virtual_hosts.iter().map(|host| &host.name).collect();
    table
        .virtual_hosts
        .iter()
        .find(|host| host.name == name)
        .unwrap_or_else(|| panic!("no virtual host {name} among {known:?}"))
}

/// Names of the virtual hosts of a route configuration, in order.
pub(crate) fn virtual_hosts(set: &XdsSet, table_name: &str) -> Vec<String> {
    table(set, table_name).virtual_hosts.iter().map(|host| host.name.clone()).collect()
}

/// A cluster by name.
pub(crate) fn cluster<'a>(set: &'a XdsSet, name: &str) -> &'a Cluster {
    let known: Vec<_> = set.clusters.keys().collect();
    &set.clusters.get(name).unwrap_or_else(|| panic!("no cluster {name} among {known:?}")).message
}

/// `address:port` of the endpoints of a cluster, in order.
pub(crate) fn endpoints(set: &XdsSet, name: &str) -> Vec<String> {
    use lateen_xds::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    use lateen_xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let known: Vec<_> = set.endpoints.keys().collect();
    let assignment = set.endpoints.get(name).unwrap_or_else(|| panic!("no endpoints of {name} among {known:?}"));
    let mut found = Vec::new();
    for endpoint in assignment.message.endpoints.iter().flat_map(|locality| &locality.lb_endpoints) {
        let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
            panic!("an endpoint without address")
        };
        match endpoint.address.as_ref().unwrap().address.as_ref().unwrap() {
            Address::SocketAddress(socket) => {
                let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("no port") };
                found.push(format!("{}:{port}", socket.address));
            }
            Address::Pipe(pipe) => found.push(pipe.path.clone()),
            other => panic!("unexpected address {other:?}"),
        }
    }
    found
}

/// Routes of a virtual host as lines `match -> destination`.
pub(crate) fn routes(host: &VirtualHost) -> Vec<String> {
    host.routes.iter().map(describe).collect()
}

/// One route: its path, its conditions, and where it leads to. Hosts lose the suffix of namespace `default`.
pub(crate) fn describe(route: &Route) -> String {
    let matcher = route.r#match.as_ref().unwrap();
    let mut text = match matcher.path_specifier.as_ref().unwrap() {
        route_match::PathSpecifier::Prefix(path) => format!("{path}*"),
        route_match::PathSpecifier::Path(path) => path.clone(),
        route_match::PathSpecifier::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("unexpected path {other:?}"),
    };
    for header in &matcher.headers {
        let not = if header.invert_match { "!" } else { "" };
        let empty = if header.treat_missing_header_as_empty { "?" } else { "" };
        let condition = match header.header_match_specifier.as_ref().unwrap() {
            header_matcher::HeaderMatchSpecifier::StringMatch(matcher) => string(matcher),
            header_matcher::HeaderMatchSpecifier::PresentMatch(true) => "*".to_owned(),
            other => panic!("unexpected condition {other:?}"),
        };
        let _ = write!(text, " {not}{}{empty}{condition}", header.name);
    }
    for parameter in &matcher.query_parameters {
        let condition = match parameter.query_parameter_match_specifier.as_ref().unwrap() {
            query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(matcher) => string(matcher),
            query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(_) => "*".to_owned(),
        };
        let _ = write!(text, " ?{}{condition}", parameter.name);
    }
    text.push_str(" -> ");
    match route.action.as_ref().unwrap() {
        route::Action::Route(action) => match action.cluster_specifier.as_ref().unwrap() {
            route_action::ClusterSpecifier::Cluster(name) => text.push_str(&short(name)),
            route_action::ClusterSpecifier::WeightedClusters(clusters) => {
                let parts: Vec<String> = clusters
                    .clusters
                    .iter()
                    .map(|cluster| format!("{}={}", short(&cluster.name), cluster.weight.unwrap()))
                    .collect();
                text.push_str(&parts.join(" "));
            }
            other => panic!("unexpected destination {other:?}"),
        },
        route::Action::Redirect(_) => text.push_str("redirect"),
        route::Action::DirectResponse(response) => {
            let _ = write!(text, "{}", response.status);
        }
        other => panic!("unexpected action {other:?}"),
    }
    text
}

/// The action of a route that forwards.
pub(crate) fn forwarding(route: &Route) -> &lateen_xds::envoy::config::route::v3::RouteAction {
    match route.action.as_ref().unwrap() {
        route::Action::Route(action) => action,
        other => panic!("not a forwarding route: {other:?}"),
    }
}

fn string(matcher: &StringMatcher) -> String {
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => format!("={text}"),
        MatchPattern::Prefix(text) => format!("={text}*"),
        MatchPattern::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("unexpected pattern {other:?}"),
    }
}

fn short(cluster: &str) -> String {
    cluster.replace(".default.svc.cluster.local", "").replace("outbound|", "")
}

/// Path of an Envoy binary, if there is one.
fn envoy() -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/install-envoy");
    let output = Command::new(script).arg("--if-present").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !path.is_empty()).then_some(path)
}

/// Has real Envoy, if there is one, look at a configuration as a whole.
pub(crate) fn envoy_accepts(name: &str, set: &XdsSet) {
    if let Some(refusal) = envoy_refuses(name, set) {
        panic!("{refusal}");
    }
}

/// Why real Envoy refuses a configuration; `None` when it does not, or is not here.
pub(crate) fn envoy_refuses(name: &str, set: &XdsSet) -> Option<String> {
    let bootstrap = static_bootstrap(set, &BootstrapOptions::default()).unwrap();
    let Some(envoy) = envoy() else {
        eprintln!("no Envoy here: run scripts/install-envoy to have `{name}` checked by it");
        return None;
    };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(&bootstrap).unwrap()).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "error", "--concurrency", "1", "--disable-hot-restart", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    (!output.status.success()).then(|| {
        format!(
            "Envoy refuses {}:\n{}{}",
            file.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
