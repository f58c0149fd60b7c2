//! Does the admin interface of a running proxy tell what the proxy does?

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lateen_proxy::{Options, Proxy};
use lateen_xds::XdsSet;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(20);

/// A backend that answers each request by its path, `/<status>`, and never ends by itself.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
                    while let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&request[..end]).into_owned();
                        request.drain(..end + 4);
                        let status = head.split(['/', ' ']).nth(2).unwrap_or("200").to_owned();
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nhello");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn cluster(name: &str, hosts: &[SocketAddr]) -> Value {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| {
            json!({"endpoint": {"address": {"socket_address": {
                "address": host.ip().to_string(), "port_value": host.port()}}}})
        })
        .collect();
    json!({"name": name, "alt_stat_name": format!("{name};"), "connect_timeout": "1s",
           "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}})
}

fn set(backend: SocketAddr, dead: SocketAddr) -> XdsSet {
    let mut set = XdsSet::default();
    for cluster in [cluster("outbound|80||a.b", &[backend]), cluster("dead", &[dead]), cluster("empty", &[])] {
        set.insert::<lateen_xds::envoy::config::cluster::v3::Cluster>(
            lateen_xds::json::parse(cluster).unwrap(),
            vec![],
        );
    }
    let route = |prefix: &str, cluster: &str| {
        let retry = json!({"retry_on": "5xx,connect-failure", "num_retries": 2,
                           "retry_back_off": {"base_interval": "0.001s"}});
        json!({"match": {"prefix": prefix}, "route": {
            "cluster": cluster, "prefix_rewrite": "/", "retry_policy": retry}})
    };
    let direct =
        |prefix: &str, status: u16| json!({"match": {"prefix": prefix}, "direct_response": {"status": status}});
    let routes = json!([
        direct("/direct", 204),
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/x"}},
        route("/a/", "outbound|80||a.b"),
        route("/dead/", "dead"),
        route("/empty/", "empty"),
    ]);
    let listener = json!({
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "outbound_0.0.0.0_80;",
            "route_config": {"name": "local", "virtual_hosts": [{"name": "vh", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
        }}]}]
    });
    set.insert::<lateen_xds::envoy::config::listener::v3::Listener>(lateen_xds::json::parse(listener).unwrap(), vec![]);
    set
}

/// Sends one request on its own connection; returns the status and the body.
async fn request(address: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    };
    tokio::time::timeout(LIMIT, exchange).await.unwrap()
}

async fn get(address: SocketAddr, target: &str) -> String {
    let (status, body) = request(address, "GET", target).await;
    assert_eq!(status, 200, "{target}: {body}");
    body
}

/// Asks again until the statistics have all the lines; counters of a request may follow its answer.
async fn await_lines(admin: SocketAddr, filter: &str, lines: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = get(admin, &format!("/stats?filter={filter}")).await;
        let missing: Vec<_> = lines.iter().filter(|line| !text.lines().any(|found| found == **line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{missing:#?} missing in\n{text}");
        tokio::task::yield_now().await;
    }
}

fn with_proxy<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, SocketAddr, SocketAddr) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let proxy = Proxy::start(&Options { workers: 1, admin: Some("127.0.0.1:0".parse().unwrap()) }).unwrap();
        let admin = proxy.admin_address().unwrap();
        assert_eq!(request(admin, "GET", "/ready").await, (503, "PRE_INITIALIZING\n".into()));
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = unused.local_addr().unwrap();
        drop(unused);
        let applied = proxy.apply(set(backend().await, dead)).await;
        assert!(applied.rejections.is_empty(), "{:?}", applied.rejections);
        test(admin, applied.listeners["ingress"], dead).await;
        proxy.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn requests_are_counted_where_envoy_counts_them() {
    with_proxy(async |admin, ingress, _| {
        for (target, status) in [
            ("/direct", 204),
            ("/redirect", 301),
            ("/nowhere", 404),
            ("/a/200", 200),
            ("/a/200", 200),
            ("/a/503", 503),
            ("/dead/200", 503),
            ("/empty/200", 503),
        ] {
            assert_eq!(request(ingress, "GET", target).await.0, status, "{target}");
        }
        let cluster = [
            "external.upstream_rq_200: 2",
            "external.upstream_rq_2xx: 2",
            "external.upstream_rq_503: 1",
            "external.upstream_rq_completed: 3",
            "membership_change: 1",
            "membership_healthy: 1",
            "membership_total: 1",
            "retry.upstream_rq_503: 2",
            "retry.upstream_rq_5xx: 2",
            "retry.upstream_rq_completed: 2",
            // A retried answer is not read to its end: its connection is closed.
            "upstream_cx_destroy: 2",
            "upstream_cx_destroy_local: 2",
            "upstream_cx_destroy_local_with_active_rq: 2",
            "upstream_cx_destroy_with_active_rq: 2",
            "upstream_cx_http1_total: 3",
            "upstream_cx_total: 3",
            "upstream_rq_200: 2",
            "upstream_rq_503: 1",
            "upstream_rq_5xx: 1",
            "upstream_rq_active: 0",
            "upstream_rq_completed: 3",
            "upstream_rq_pending_active: 0",
            "upstream_rq_pending_total: 3",
            "upstream_rq_retry: 2",
            "upstream_rq_retry_backoff_exponential: 2",
            "upstream_rq_retry_limit_exceeded: 1",
            "upstream_rq_retry_success: 0",
            "upstream_rq_total: 5",
        ]
        .map(|line| format!("cluster.outbound|80||a.b;.{line}"));
        await_lines(admin, "outbound|80", &cluster.each_ref().map(String::as_str)).await;
        let others = [
            "cluster.dead;.external.upstream_rq_503: 1",
            "cluster.dead;.upstream_cx_connect_fail: 3",
            "cluster.dead;.upstream_cx_destroy: 3",
            "cluster.dead;.upstream_cx_destroy_remote: 3",
            "cluster.dead;.upstream_cx_total: 3",
            "cluster.dead;.upstream_rq_503: 1",
            "cluster.dead;.upstream_rq_pending_failure_eject: 3",
            "cluster.dead;.upstream_rq_pending_total: 3",
            "cluster.dead;.upstream_rq_retry: 2",
            "cluster.dead;.upstream_rq_retry_limit_exceeded: 1",
            "cluster.dead;.upstream_rq_total: 0",
            "cluster.empty;.external.upstream_rq_503: 1",
            "cluster.empty;.upstream_cx_none_healthy: 1",
            "cluster.empty;.upstream_rq_503: 1",
            "cluster.empty;.upstream_rq_total: 0",
            "http.outbound_0.0.0.0_80;.downstream_cx_active: 0",
            "http.outbound_0.0.0.0_80;.downstream_cx_destroy: 8",
            "http.outbound_0.0.0.0_80;.downstream_cx_http1_total: 8",
            "http.outbound_0.0.0.0_80;.downstream_cx_total: 8",
            "http.outbound_0.0.0.0_80;.downstream_rq_2xx: 3",
            "http.outbound_0.0.0.0_80;.downstream_rq_3xx: 1",
            "http.outbound_0.0.0.0_80;.downstream_rq_4xx: 1",
            "http.outbound_0.0.0.0_80;.downstream_rq_5xx: 3",
            "http.outbound_0.0.0.0_80;.downstream_rq_active: 0",
            "http.outbound_0.0.0.0_80;.downstream_rq_completed: 8",
            "http.outbound_0.0.0.0_80;.downstream_rq_http1_total: 8",
            "http.outbound_0.0.0.0_80;.downstream_rq_total: 8",
            "http.outbound_0.0.0.0_80;.no_cluster: 0",
            "http.outbound_0.0.0.0_80;.no_route: 1",
            "http.outbound_0.0.0.0_80;.rq_direct_response: 2",
            "http.outbound_0.0.0.0_80;.rq_redirect: 0",
            "http.outbound_0.0.0.0_80;.rq_total: 8",
        ];
        await_lines(admin, "dead|empty|http", &others).await;
        let listener = ingress.to_string().replace(':', "_");
        let lines = [
            "downstream_cx_active: 0".to_owned(),
            "downstream_cx_total: 8".to_owned(),
            "http.outbound_0.0.0.0_80;.downstream_rq_completed: 8".to_owned(),
            "worker_0.downstream_cx_total: 8".to_owned(),
        ]
        .map(|line| format!("listener.{listener}.{line}"));
        await_lines(admin, "^listener", &lines.each_ref().map(String::as_str)).await;
    });
}

#[test]
fn a_running_proxy_shows_its_configuration_and_hosts() {
    with_proxy(async |admin, ingress, dead| {
        assert_eq!(get(admin, "/ready").await, "LIVE\n");
        assert_eq!(get(admin, "/listeners").await, format!("ingress::{ingress}\n"));
        assert_eq!(request(ingress, "GET", "/dead/200").await.0, 503);
        let clusters = get(admin, "/clusters?filter=dead").await;
        for line in [
            format!("dead::{dead}::cx_connect_fail::3"),
            format!("dead::{dead}::cx_total::3"),
            format!("dead::{dead}::rq_total::0"),
            format!("dead::{dead}::health_flags::healthy"),
        ] {
            assert!(clusters.lines().any(|found| found == line), "{line} in\n{clusters}");
        }
        let dump: Value = serde_json::from_str(&get(admin, "/config_dump?include_eds").await).unwrap();
        assert_eq!(dump["configs"].as_array().unwrap().len(), 7);
        assert_eq!(dump["configs"][1]["dynamic_active_clusters"].as_array().unwrap().len(), 3);
        let info: Value = serde_json::from_str(&get(admin, "/server_info").await).unwrap();
        assert_eq!(info["state"], "LIVE");
        await_lines(
            admin,
            "manager|^server.(state|live|concurrency)",
            &[
                "cluster_manager.active_clusters: 3",
                "cluster_manager.cds.update_success: 1",
                "cluster_manager.cluster_added: 3",
                "listener_manager.lds.update_success: 1",
                "listener_manager.listener_added: 1",
                "listener_manager.listener_create_success: 1",
                "listener_manager.total_listeners_active: 1",
                "listener_manager.workers_started: 1",
                "server.concurrency: 1",
                "server.live: 1",
                "server.state: 0",
            ],
        )
        .await;
    });
}

#[test]
fn health_checks_can_be_failed_and_passed_again() {
    with_proxy(async |admin, _, _| {
        assert_eq!(request(admin, "GET", "/healthcheck/fail").await.0, 405);
        for (order, ready) in [("fail", (503, "DRAINING\n")), ("ok", (200, "LIVE\n"))] {
            assert_eq!(request(admin, "POST", &format!("/healthcheck/{order}")).await, (200, "OK\n".into()));
            let deadline = Instant::now() + LIMIT;
            loop {
                let (status, body) = request(admin, "GET", "/ready").await;
                if (status, body.as_str()) == ready {
                    break;
                }
                assert!(Instant::now() < deadline, "{order}: {body}");
            }
        }
    });
}
