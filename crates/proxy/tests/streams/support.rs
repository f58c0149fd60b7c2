//! A data plane before backends that keep what they receive, and clients that send exactly what a test says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lateen_proxy::{Options, Proxy};
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::listener::v3::Listener;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a backend received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The beginning of each connection, in the order of their first bytes.
    texts: Arc<Mutex<Vec<String>>>,
    /// All bytes of all connections.
    bytes: Arc<AtomicUsize>,
}

/// So much of a connection is kept as text.
const KEPT: usize = 16 * 1024;

impl Seen {
    pub(crate) fn all(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }

    /// Waits until so many bytes have come.
    pub(crate) async fn until_bytes(&self, count: usize) {
        let begun = Instant::now();
        while self.bytes.load(Ordering::SeqCst) < count {
            assert!(begun.elapsed() < PATIENCE, "{} of {count} bytes", self.bytes.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until something satisfies the condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let all = self.all();
            if condition(&all) {
                return all;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {all:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What a backend does with a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Answers each request head with these bytes, the body unread.
    Answer(&'static str),
    /// Reads and says nothing.
    Silent,
    /// Neither reads nor says anything.
    Deaf,
    /// Answers the first head with 101, then sends every byte back, until a `.`.
    Echo,
}

pub(crate) const OK: Manner = Manner::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");

pub(crate) async fn backend(manner: Manner) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, manner, kept.clone()));
        }
    });
    (address, seen)
}

async fn serve(mut stream: TcpStream, manner: Manner, seen: Seen) {
    if matches!(manner, Manner::Deaf) {
        return std::future::pending().await;
    }
    let place = {
        let mut all = seen.texts.lock().unwrap();
        all.push(String::new());
        all.len() - 1
    };
    let (mut answered, mut upgraded) = (0, false);
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        let text = String::from_utf8_lossy(&piece[..count]).into_owned();
        let heads = {
            let mut all = seen.texts.lock().unwrap();
            seen.bytes.fetch_add(count, Ordering::SeqCst);
            if all[place].len() < KEPT {
                all[place].push_str(&text);
            }
            all[place].matches("\r\n\r\n").count()
        };
        match manner {
            Manner::Answer(answer) => {
                while answered < heads {
                    answered += 1;
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            Manner::Echo if !upgraded => {
                upgraded = true;
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                let _ = stream.write_all(agreed.as_bytes()).await;
            }
            Manner::Echo => {
                let _ = stream.write_all(text.as_bytes()).await;
                if text.ends_with('.') {
                    return;
                }
            }
            Manner::Silent | Manner::Deaf => {}
        }
    }
}

/// What the data plane of a test is made of.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    /// Filters before the router, by name.
    pub(crate) filters: Vec<(&'static str, Value)>,
    /// Further fields of the connection manager.
    pub(crate) manager: Value,
    /// Fields of the virtual host, its routes included.
    pub(crate) host: Value,
    /// Clusters with their hosts.
    pub(crate) clusters: Vec<(&'static str, Vec<SocketAddr>)>,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
}

impl Scene {
    pub(crate) async fn start(self) -> Running {
        let mut set = XdsSet::default();
        let mut filters: Vec<Value> =
            self.filters.iter().map(|(name, config)| json!({"name": name, "typed_config": config})).collect();
        filters.push(json!({"name": "envoy.filters.http.router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}));
        let mut host = json!({"name": "all", "domains": ["*"]});
        merge(&mut host, self.host);
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "test", "route_config": {"name": "routes", "virtual_hosts": [host]}, "http_filters": filters,
        });
        merge(&mut manager, self.manager);
        let listener = json!({
            "name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]
        });
        set.insert(lateen_xds::json::parse::<Listener>(listener).unwrap(), vec![]);
        for (name, hosts) in self.clusters {
            let hosts = hosts.iter().map(|host| {
                json!({"endpoint": {"address": {"socket_address":
                    {"address": host.ip().to_string(), "port_value": host.port()}}}})
            });
            let cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment":
                {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts.collect::<Vec<_>>()}]}});
            set.insert(lateen_xds::json::parse::<Cluster>(cluster).unwrap(), vec![]);
        }
        let proxy = Proxy::start(&Options { workers: 1, admin: None }).unwrap();
        let applied = proxy.apply(set).await;
        assert!(applied.rejections.is_empty(), "{:?}", applied.rejections);
        assert!(applied.limitations.is_empty(), "{:?}", applied.limitations);
        let address = applied.listeners["in"];
        Running { proxy, address }
    }
}

fn merge(into: &mut Value, fields: Value) {
    if let Value::Object(fields) = fields {
        for (name, value) in fields {
            into[name] = value;
        }
    }
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a GET and gives status and everything that came back, as text, once the connection is closed.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{lines}\r\n")).await
    }

    pub(crate) async fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "no end of the answer: {}", String::from_utf8_lossy(&answer));
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, text)
    }

    /// Waits until the connection manager's counter or gauge is so high.
    pub(crate) async fn until(&self, what: &str, read: impl Fn(&lateen_proxy::stats::HttpStats) -> u64, expected: u64) {
        let stats = self.proxy.status().stats.http("test");
        self.settled(what, || read(&stats), expected).await;
    }

    /// The same for a cluster.
    pub(crate) async fn until_cluster(
        &self,
        cluster: &str,
        what: &str,
        read: impl Fn(&lateen_proxy::stats::ClusterStats) -> u64,
        expected: u64,
    ) {
        let stats = self.proxy.status().stats.cluster(cluster);
        self.settled(what, || read(&stats), expected).await;
    }

    async fn settled(&self, what: &str, read: impl Fn() -> u64, expected: u64) {
        let begun = Instant::now();
        while read() != expected {
            assert!(begun.elapsed() < PATIENCE, "{what}: {} instead of {expected}", read());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads until the text holds something.
pub(crate) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(count @ 1..) => text.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, read).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains(wanted), "{wanted:?} did not come: {text:?}");
    text
}
