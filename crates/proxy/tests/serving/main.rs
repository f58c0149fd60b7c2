//! A whole data plane on loopback: configurations in, requests through, configurations changed under them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod circuit_breaking;
mod health_checks;
mod names;
mod outliers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lateen_proxy::{Options, Proxy};
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::envoy::config::listener::v3::Listener;
use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A backend that answers each request of a connection by what its path says: `/status/503`, `/delay/200`, `/close`.
async fn backend(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, name, counted.clone()));
        }
    });
    (address, requests)
}

async fn answer(mut stream: TcpStream, name: &'static str, requests: Arc<AtomicUsize>) {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        requests.fetch_add(1, Ordering::SeqCst);
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let (action, value) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let mut status = 200;
        match action {
            "status" => status = value.parse().unwrap_or(200),
            "delay" => tokio::time::sleep(Duration::from_millis(value.parse().unwrap_or(0))).await,
            "close" => return,
            _ => {}
        }
        let body = format!("{name} {path}");
        let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A port that refuses connections, and that nobody else gets while the socket is kept: it is bound, but does not listen.
fn dead_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn listener(name: &str, port: u16) -> Listener {
    lateen_xds::json::parse(json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "test",
                "rds": {"route_config_name": "routes", "config_source": {"ads": {}}},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
                    {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
            }
        }]}]
    }))
    .unwrap()
}

fn routes(route: Value) -> RouteConfiguration {
    lateen_xds::json::parse(json!({
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]
    }))
    .unwrap()
}

fn cluster(name: &str) -> Cluster {
    lateen_xds::json::parse(json!({
        "name": name, "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"ads": {}}}
    }))
    .unwrap()
}

fn endpoints(name: &str, addresses: &[SocketAddr]) -> ClusterLoadAssignment {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| {
            json!({"endpoint": {"address": {"socket_address":
                {"address": address.ip().to_string(), "port_value": address.port()}}}})
        })
        .collect();
    lateen_xds::json::parse(json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})).unwrap()
}

fn set(route: Value, clusters: &[(&str, &[SocketAddr])]) -> XdsSet {
    let mut set = XdsSet::default();
    set.insert(listener("in", 0), vec![]);
    set.insert(routes(route), vec![]);
    for (name, addresses) in clusters {
        set.insert(cluster(name), vec![]);
        set.insert(endpoints(name, addresses), vec![]);
    }
    set
}

/// A set with one cluster `a` of these settings.
fn set_of(route: Value, settings: Value, addresses: &[SocketAddr]) -> XdsSet {
    let mut set = set(route, &[("a", addresses)]);
    let mut cluster = json!({
        "name": "a", "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": {"ads": {}}}
    });
    cluster.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    set.insert(lateen_xds::json::parse::<Cluster>(cluster).unwrap(), vec![]);
    set
}

struct Running {
    proxy: Proxy,
    address: SocketAddr,
}

impl Running {
    async fn start(set: XdsSet) -> Self {
        Self::start_with(set, 2).await
    }

    async fn start_with(set: XdsSet, workers: usize) -> Self {
        let admin = "127.0.0.1:0".parse().ok();
        let proxy = Proxy::start(&Options { workers, admin }).unwrap();
        let applied = proxy.apply(set).await;
        assert!(applied.rejections.is_empty(), "{:?}", applied.rejections);
        let address = applied.listeners["in"];
        Self { proxy, address }
    }

    async fn get(&self, path: &str) -> Reply {
        Client::connect(self.address).await.get(path).await.unwrap()
    }

    /// What the admin interface answers.
    async fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.proxy.admin_address().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// A statistic of a cluster as the admin interface shows it; 0 when it shows none.
    async fn stat(&self, cluster: &str, name: &str) -> u64 {
        let line = format!("cluster.{cluster}.{name}: ");
        let stats = self.admin("/stats").await;
        stats.lines().find_map(|shown| shown.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Waits until a statistic of a cluster has a value.
    async fn await_stat(&self, cluster: &str, name: &str, value: u64) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = self.stat(cluster, name).await;
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {now}, not {value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing of a cluster is in flight any more.
    async fn assert_idle(&self, cluster: &str) {
        let stats = self.proxy.status().stats.cluster(cluster);
        eventually(|| stats.level(|counters| &counters.upstream_rq_active) == 0, "requests are still in flight").await;
    }
}

async fn eventually(condition: impl Fn() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "{otherwise}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, path: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await
    }

    /// A whole response with `content-length`; `None` when the connection ended before it.
    async fn receive(&mut self) -> Option<Reply> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if self.received.len() >= end + 4 + length {
                    let body = String::from_utf8_lossy(&self.received[end + 4..end + 4 + length]).into_owned();
                    self.received.drain(..end + 4 + length);
                    let status = head.split(' ').nth(1)?.parse().ok()?;
                    return Some(Reply { status, head, body });
                }
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return None;
            }
        }
    }

    async fn get(&mut self, path: &str) -> Option<Reply> {
        self.send(path).await.ok()?;
        self.receive().await
    }
}

#[tokio::test]
async fn a_slow_upstream_gives_504_when_the_route_timeout_passes_and_nothing_stays_in_flight() {
    let (address, _) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a", "timeout": "0.05s"}), &[("a", &[address])])).await;
    let reply = running.get("/delay/2000").await;
    assert_eq!((reply.status, reply.body.as_str()), (504, "upstream request timeout"));
    running.assert_idle("a").await;
    assert_eq!(running.get("/quick").await.status, 200);
}

#[tokio::test]
async fn a_per_try_timeout_is_retried_and_the_last_try_answers_504() {
    let (address, requests) = backend("a").await;
    let policy = json!({"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.05s",
        "retry_back_off": {"base_interval": "0.001s"}});
    let running = Running::start(set(json!({"cluster": "a", "retry_policy": policy}), &[("a", &[address])])).await;
    let reply = running.get("/delay/2000").await;
    assert_eq!((reply.status, reply.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    running.assert_idle("a").await;
}

#[tokio::test]
async fn a_status_that_the_policy_names_is_retried_as_often_as_it_says() {
    let (address, requests) = backend("a").await;
    let policy = json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [418], "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s"}});
    let running = Running::start(set(json!({"cluster": "a", "retry_policy": policy}), &[("a", &[address])])).await;
    assert_eq!(running.get("/status/418").await.status, 418);
    assert_eq!(requests.load(Ordering::SeqCst), 4);
    assert_eq!(running.get("/status/503").await.status, 503);
    assert_eq!(requests.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_dead_host_is_avoided_by_the_retry_when_another_one_lives() {
    let (address, _) = backend("a").await;
    let (_held, dead) = dead_port();
    let policy = json!({"retry_on": "connect-failure", "num_retries": 2, "host_selection_retry_max_attempts": "5",
        "retry_back_off": {"base_interval": "0.001s"},
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]});
    let route = json!({"cluster": "a", "retry_policy": policy});
    let running = Running::start(set(route, &[("a", &[address, dead])])).await;
    for _ in 0..20 {
        assert_eq!(running.get("/x").await.status, 200);
    }
}

#[tokio::test]
async fn a_new_route_serves_the_next_request_of_the_same_connection() {
    let (one, _) = backend("one").await;
    let (two, _) = backend("two").await;
    let clusters: &[(&str, &[SocketAddr])] = &[("one", &[one]), ("two", &[two])];
    let running = Running::start(set(json!({"cluster": "one"}), clusters)).await;
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.get("/x").await.unwrap().body, "one /x");
    running.proxy.apply(set(json!({"cluster": "two"}), clusters)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let reply = client.get("/x").await.unwrap();
        assert_eq!(reply.status, 200);
        if reply.body == "two /x" {
            break;
        }
        assert!(Instant::now() < deadline, "the new route never came into effect");
    }
}

#[tokio::test]
async fn changes_under_load_cost_no_request() {
    let (one, _) = backend("one").await;
    let (two, _) = backend("two").await;
    let clusters: &[(&str, &[SocketAddr])] = &[("one", &[one]), ("two", &[two])];
    let running = Running::start(set(json!({"cluster": "one"}), clusters)).await;
    let address = running.address;
    let stop = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut served = 0;
                while stop.load(Ordering::SeqCst) == 0 {
                    let reply = client.get("/x").await.expect("a response");
                    assert_eq!(reply.status, 200, "{reply:?}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for change in 0..60 {
        let (cluster, hosts) = if change % 2 == 0 { ("two", [two, one]) } else { ("one", [one, two]) };
        // Routes and endpoints change together, in every other order of hosts.
        let clusters: &[(&str, &[SocketAddr])] = &[("one", &hosts), ("two", &hosts[..1])];
        running.proxy.apply(set(json!({"cluster": cluster}), clusters)).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stop.store(1, Ordering::SeqCst);
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(served > 100, "only {served} requests");
}

#[tokio::test]
async fn an_invalid_resource_is_reported_and_its_last_good_form_goes_on_serving() {
    let (address, _) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a"}), &[("a", &[address])])).await;
    let mut broken = set(json!({"cluster": "a"}), &[("a", &[address])]);
    let regex = json!({
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "a"}}]}]
    });
    broken.insert(lateen_xds::json::parse::<RouteConfiguration>(regex).unwrap(), vec![]);
    let applied = running.proxy.apply(broken).await;
    assert_eq!(applied.rejections.len(), 1);
    let text = applied.rejections[0].to_string();
    assert!(text.contains("route configuration `routes`") && text.contains("virtual_hosts[0].routes[0]"), "{text}");
    assert_eq!(running.get("/x").await.status, 200);
}

#[tokio::test]
async fn a_removed_listener_refuses_connections_and_an_open_one_ends_with_its_response() {
    let (address, _) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a"}), &[("a", &[address])])).await;
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.get("/x").await.unwrap().status, 200);
    let mut without = set(json!({"cluster": "a"}), &[("a", &[address])]);
    without.listeners.clear();
    running.proxy.apply(without).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(running.address).await.is_ok() {
        assert!(Instant::now() < deadline, "the listener is still open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let last = client.get("/y").await.unwrap();
    assert_eq!(last.status, 200);
    assert!(last.head.contains("connection: close"), "{}", last.head);
    assert!(client.get("/z").await.is_none());
}

#[tokio::test]
async fn a_shutdown_lets_the_running_request_end() {
    let (address, requests) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a"}), &[("a", &[address])])).await;
    let mut client = Client::connect(running.address).await;
    client.send("/delay/200").await.unwrap();
    eventually(|| requests.load(Ordering::SeqCst) == 1, "the request never reached the backend").await;
    let address = running.address;
    let (reply, ()) = tokio::join!(client.receive(), running.proxy.shutdown(Duration::from_secs(5)));
    let reply = reply.expect("the response of the running request");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("connection: close"), "{}", reply.head);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream() {
    let (address, requests) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a"}), &[("a", &[address])])).await;
    let mut client = Client::connect(running.address).await;
    client.send("/delay/3000").await.unwrap();
    eventually(|| requests.load(Ordering::SeqCst) == 1, "the request never reached the backend").await;
    drop(client);
    running.assert_idle("a").await;
    let stats = running.proxy.status().stats.cluster("a");
    eventually(|| stats.level(|counters| &counters.upstream_cx_active) == 0, "the connection is still open").await;
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_idle_is_not_used_again() {
    let (address, _) = backend("a").await;
    let running = Running::start(set(json!({"cluster": "a"}), &[("a", &[address])])).await;
    assert_eq!(running.get("/x").await.status, 200);
    // The backend closes this connection instead of answering: a failure, and an end of the pooled connection.
    assert_eq!(running.get("/close").await.status, 503);
    for _ in 0..5 {
        assert_eq!(running.get("/x").await.status, 200);
    }
}

#[tokio::test]
async fn what_a_configuration_asks_for_and_does_not_get_is_said() {
    let mut asking =
        set(json!({"cluster": "a", "internal_redirect_policy": {}}), &[("a", &["127.0.0.1:9".parse().unwrap()])]);
    let eager = json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}},
        "transport_socket": {"name": "envoy.transport_sockets.tls"},
        "preconnect_policy": {"per_upstream_preconnect_ratio": 1.5}});
    asking.insert(lateen_xds::json::parse::<Cluster>(eager).unwrap(), vec![]);
    let proxy = Proxy::start(&Options { workers: 1, admin: None }).unwrap();
    let applied = proxy.apply(asking).await;
    let said: Vec<String> = applied.limitations.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "cluster `a`: TLS to endpoints is not carried out yet; plain bytes are sent",
            "cluster `a`: connecting ahead of requests is not carried out yet",
            "route configuration `routes`: following redirects inside the proxy is not carried out yet",
        ]
    );
}
