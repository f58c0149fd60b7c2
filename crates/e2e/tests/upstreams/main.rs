//! Do Lateen's data plane and Envoy send the same requests to the same hosts, on the same Envoy resources?
//!
//! Each scene is one bootstrap. Envoy runs it as it is; the data plane gets the resources that are in it. Both have the
//! same backends. Where chance decides, the counts of each side must lie within [`STRAY`] standard deviations of what the
//! rule says, which a correct proxy misses about once in two million times.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod destinations;
mod hashing;
mod health;
mod limits;
mod sharing;
mod subsets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lateen_e2e::backend::Backends;
use lateen_e2e::client;
use lateen_e2e::envoy;
use lateen_e2e::process::Proxy as Process;
use lateen_e2e::row::{Cells, parse};
use lateen_e2e::wire::latin1;
use lateen_proxy::{Options, Proxy};
use serde_json::{Value, json};

/// A count may stray so many standard deviations.
const STRAY: f64 = 5.0;

/// Two proxies on one configuration.
struct Scene {
    backends: Backends,
    lateen: Proxy,
    envoy: Option<Process>,
    sides: Vec<Side>,
    _folder: tempfile::TempDir,
}

/// One of them.
#[derive(Clone, Debug)]
struct Side {
    name: &'static str,
    address: SocketAddr,
    admin: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// The backend that says it answered.
    backend: String,
    /// Header lines in order.
    fields: Vec<(String, String)>,
}

impl Scene {
    /// Starts backends of these names and both proxies; `resources` makes clusters and routes of the backends' ports.
    async fn start(names: &[&str], resources: impl FnOnce(&BTreeMap<String, u16>) -> (Vec<Value>, Value)) -> Self {
        let backends = Backends::start(names.iter().map(|name| (*name).to_owned())).await.unwrap();
        let (clusters, routes) = resources(backends.ports());
        let bootstrap = bootstrap(&clusters, &routes);
        let folder = tempfile::tempdir().unwrap();
        let parsed = lateen_xds::bootstrap::parse(&bootstrap.to_string(), None).unwrap();
        let lateen = Proxy::start(&Options { workers: 1, admin: "127.0.0.1:0".parse().ok() }).unwrap();
        let applied = lateen.apply(parsed.set).await;
        assert!(applied.rejections.is_empty(), "{:?}", applied.rejections);
        let mut sides =
            vec![Side { name: "lateen", address: applied.listeners["in"], admin: lateen.admin_address().unwrap() }];
        let mut envoy = None;
        // Without Envoy the rules are still held against the data plane alone.
        if let Some(binary) = envoy::binary().unwrap() {
            let file = folder.path().join("bootstrap.json");
            std::fs::write(&file, bootstrap.to_string()).unwrap();
            let log = folder.path().join("access.log");
            let process = envoy::start(&binary, &file, &log, folder.path()).await.unwrap();
            let address = process.listeners.iter().find(|(name, _)| name == "in").unwrap().1;
            sides.push(Side { name: "envoy", address, admin: process.admin });
            envoy = Some(process);
        }
        Self { backends, lateen, envoy, sides, _folder: folder }
    }

    /// How often each backend answers, on each side.
    async fn counts(&self, request: &str, times: u32) -> Vec<(Side, BTreeMap<String, u32>)> {
        let mut sides = Vec::new();
        for side in &self.sides {
            let mut counts = BTreeMap::new();
            for answer in side.ask(&vec![request.to_owned(); times as usize]).await {
                *counts.entry(answer.backend).or_insert(0) += 1;
            }
            sides.push((side.clone(), counts));
        }
        sides
    }

    async fn end(mut self) {
        if let Some(envoy) = &mut self.envoy {
            envoy.check_alive().unwrap();
        }
        self.lateen.shutdown(Duration::from_secs(1)).await;
    }
}

impl Side {
    /// Asks on one connection, one request after the other. A request is written as in the books.
    async fn ask(&self, requests: &[String]) -> Vec<Answer> {
        let cell: Vec<_> = requests.iter().map(|request| format!("`{}`", request.replace(" + ", "` `"))).collect();
        let row = parse(1, Cells { request: &cell.join(" `@then` "), ..Cells::default() }).unwrap();
        let (transcript, _) = client::play(self.address, &row.exchanges).await.unwrap();
        let answer = |response: &Option<client::Response>| {
            let response = response.as_ref().unwrap_or_else(|| panic!("{} leaves a request unanswered", self.name));
            let body = latin1(&response.body.bytes);
            let backend = body.split("\"backend\":\"").nth(1).and_then(|rest| rest.split('"').next());
            Answer {
                status: response.status(),
                backend: backend.unwrap_or_default().to_owned(),
                fields: response.head.fields.clone(),
            }
        };
        transcript.responses.iter().map(answer).collect()
    }

    /// A statistic; 0 when there is none.
    async fn stat(&self, name: &str) -> u64 {
        let (_, stats) = client::get(self.admin, "/stats").await.unwrap();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok();
        stats.lines().find_map(value).unwrap_or(0)
    }
}

impl Answer {
    fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    }
}

fn bootstrap(clusters: &[Value], routes: &Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    });
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    json!({
        "admin": {"address": address},
        "static_resources": {
            "clusters": clusters,
            "listeners": [{"name": "in", "address": address, "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}]
        }
    })
}

/// A static cluster with these groups of endpoints and further settings.
fn cluster(name: &str, groups: &Value, settings: &Value) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": groups}
    });
    for (key, value) in settings.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    cluster
}

/// An endpoint on a port; `settings` are those of `LbEndpoint`.
fn endpoint(port: u16, settings: &Value) -> Value {
    let mut endpoint = json!({
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    });
    for (key, value) in settings.as_object().unwrap() {
        endpoint[key] = value.clone();
    }
    endpoint
}

/// A route for paths below `/name/`.
fn route(name: &str, action: &Value) -> Value {
    let mut route = json!({"cluster": name});
    for (key, value) in action.as_object().unwrap() {
        route[key] = value.clone();
    }
    json!({"match": {"prefix": format!("/{name}/")}, "route": route})
}
