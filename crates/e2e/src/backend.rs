//! What did the backends receive, and how do they answer?
//!
//! A backend is a raw HTTP/1.1 server on a loopback port of its own. It records every request byte for byte before it
//! answers, so that a row can assert what reached it, or that nothing did. [`crate::behaviour`] chooses the answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::behaviour::{self, Behaviour, Content, Failure};
use crate::wire::{Body, Framing, Head, WireReader, latin1, pattern};

/// The placeholder name of a port that refuses connections.
pub const DEAD: &str = "dead";

/// One request as a backend received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The backend's name in the page.
    pub backend: String,
    /// Which connection of this backend carried it, from 1.
    pub connection: u64,
    /// Request line and header lines. For an unfinished head only `raw` is filled.
    pub head: Head,
    /// How the body was framed.
    pub framing: Framing,
    /// The body, without chunk framing.
    pub body: Body,
}

/// A running set of backends. They stop when this value is dropped.
#[derive(Debug)]
pub struct Backends {
    ports: BTreeMap<String, u16>,
    records: Arc<Records>,
    activity: watch::Receiver<usize>,
    _refusing: TcpSocket,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Records {
    received: Mutex<Vec<Received>>,
    activity: watch::Sender<usize>,
}

impl Backends {
    /// Starts one backend for each name. [`DEAD`] gets a port that is taken but not listened on.
    pub async fn start(names: impl IntoIterator<Item = String>) -> Result<Self> {
        let (activity, watcher) = watch::channel(0);
        let records = Arc::new(Records { received: Mutex::new(Vec::new()), activity });
        // Bound without `listen`: connecting is refused, and nobody else can take the port meanwhile.
        let refusing = TcpSocket::new_v4().context("cannot open a socket")?;
        refusing.bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("cannot bind the refusing port")?;
        let mut ports = BTreeMap::from([(DEAD.to_owned(), refusing.local_addr()?.port())]);
        let mut tasks = JoinSet::new();
        for name in names {
            if name == DEAD {
                continue;
            }
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot bind a backend")?;
            ports.insert(name.clone(), listener.local_addr()?.port());
            tasks.spawn(accept(listener, name, Arc::clone(&records)));
        }
        Ok(Self { ports, records, activity: watcher, _refusing: refusing, _tasks: tasks })
    }

    /// The port of each backend by name.
    pub fn ports(&self) -> &BTreeMap<String, u16> {
        &self.ports
    }

    /// Takes what was received since the last call, once it is at least so many requests, or three seconds are over, and
    /// no backend is busy any more.
    ///
    /// # Errors
    /// When a backend is still busy after three seconds.
    pub async fn take_at_least(&mut self, count: usize) -> Result<Vec<Received>> {
        let records = Arc::clone(&self.records);
        let enough = || records.received.lock().unwrap_or_else(PoisonError::into_inner).len() >= count;
        let all = self.activity.wait_for(|busy| *busy == 0 && enough());
        // What is missing is the judge's business.
        let _ = tokio::time::timeout(Duration::from_secs(3), all).await;
        self.take().await
    }

    /// Takes what was received since the last call, once no backend is busy any more.
    ///
    /// # Errors
    /// When a backend is still busy after three seconds.
    pub async fn take(&mut self) -> Result<Vec<Received>> {
        let idle = self.activity.wait_for(|busy| *busy == 0);
        let _ = tokio::time::timeout(Duration::from_secs(3), idle)
            .await
            .context("a backend is still busy with a request three seconds after the client was served")?;
        Ok(std::mem::take(&mut *self.records.received.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Records {
    /// Stores a request and returns its place, for [`Records::complete`].
    fn push(&self, received: Received) -> usize {
        let mut list = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(received);
        list.len() - 1
    }

    fn complete(&self, place: usize, body: Body) {
        let mut list = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(received) = list.get_mut(place) {
            received.body = body;
        }
    }
}

/// Counts a connection as busy from the first byte of a request to the end of its answer.
struct Busy(Arc<Records>);

impl Busy {
    fn new(records: &Arc<Records>) -> Self {
        records.activity.send_modify(|busy| *busy += 1);
        Self(Arc::clone(records))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.activity.send_modify(|busy| *busy -= 1);
    }
}

async fn accept(listener: TcpListener, name: String, records: Arc<Records>) {
    let connections = AtomicU64::new(0);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                tasks.spawn(serve(stream, name.clone(), number, Arc::clone(&records)));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, backend: String, connection: u64, records: Arc<Records>) {
    // Answers are written in several pieces on purpose; without this the pieces would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let mut reader = WireReader::new(read);
    while reader.wait_for_byte().await {
        let _busy = Busy::new(&records);
        let head = match reader.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(raw) => {
                let head = Head { raw, ..Head::default() };
                let body = Body { cut: Some("inside the head".to_owned()), ..Body::default() };
                let framing = Framing::None;
                records.push(Received { backend, connection, head, framing, body });
                return;
            }
        };
        let behaviour = match behaviour::parse(target_of(&head)) {
            Ok(behaviour) => behaviour,
            Err(reason) => {
                Behaviour { status: 500, headers: vec![("x-behaviour".to_owned(), reason)], ..Behaviour::default() }
            }
        };
        if head.values("expect").any(|value| value.eq_ignore_ascii_case("100-continue"))
            && write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err()
        {
            return;
        }
        if let Some(protocol) = &behaviour.upgrade {
            let received = Received { backend, connection, head, framing: Framing::None, body: Body::default() };
            return change_protocol(&mut reader, &mut write, protocol, received, &records).await;
        }
        let framing = head.request_framing();
        let mut received = Received { backend: backend.clone(), connection, head, framing, body: Body::default() };
        let reusable = if behaviour.early {
            let place = records.push(received.clone());
            let reusable = answer(&mut reader, &mut write, &received, &behaviour).await;
            let body = reader.read_body(framing).await;
            records.complete(place, body);
            reusable
        } else {
            received.body = reader.read_body(framing).await;
            let cut = received.body.cut.is_some();
            records.push(received.clone());
            !cut && answer(&mut reader, &mut write, &received, &behaviour).await
        };
        if !reusable {
            let _ = write.shutdown().await;
            return;
        }
    }
}

/// Agrees to another protocol, in which every byte comes back and a full stop is the end.
async fn change_protocol(
    reader: &mut WireReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    protocol: &str,
    received: Received,
    records: &Records,
) {
    let place = records.push(received);
    let head = format!("HTTP/1.1 101 Answer\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n");
    let mut open = write.write_all(head.as_bytes()).await.is_ok();
    let mut body = Body::default();
    while open {
        let byte = reader.read_bytes(1).await;
        open = !byte.is_empty() && write.write_all(&byte).await.is_ok() && byte != b".";
        body.bytes.extend_from_slice(&byte);
    }
    records.complete(place, body);
    let _ = write.shutdown().await;
}

fn target_of(head: &Head) -> &str {
    head.start.split(' ').nth(1).unwrap_or("")
}

/// Answers one request; true when the connection may carry another one.
async fn answer(
    reader: &mut WireReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    received: &Received,
    behaviour: &Behaviour,
) -> bool {
    if !wait(behaviour.delay, reader).await {
        return false;
    }
    match behaviour.fail {
        Some(Failure::Close) => return false,
        Some(Failure::Reset) => {
            let _ = reader.stream().as_ref().set_zero_linger();
            return false;
        }
        Some(Failure::Garbage) => {
            let _ = write.write_all(b"220 mail.example ready\r\n\r\n").await;
            return false;
        }
        _ => {}
    }
    for status in &behaviour.interim {
        let interim = format!("HTTP/1.1 {status} Interim\r\nlink: </style.css>; rel=preload\r\n\r\n");
        if write.write_all(interim.as_bytes()).await.is_err() {
            return false;
        }
    }
    let (head, body) = render(received, behaviour);
    if behaviour.fail == Some(Failure::Head) {
        let _ = write.write_all(&head[..head.len() / 2]).await;
        return false;
    }
    if behaviour.pause.is_zero() {
        // One write, as most servers do; a proxy must cope with either.
        let mut message = head;
        message.extend_from_slice(&body);
        if write.write_all(&message).await.is_err() {
            return false;
        }
    } else {
        if write.write_all(&head).await.is_err() || !wait(behaviour.pause, reader).await {
            return false;
        }
        if write.write_all(&body).await.is_err() {
            return false;
        }
    }
    let ends = behaviour.close || behaviour.old || behaviour.fail.is_some();
    !(ends || behaviour.content == Content::UntilClose)
}

/// Waits, but no longer than the peer stays connected; false when it left.
async fn wait(duration: Duration, reader: &mut WireReader<OwnedReadHalf>) -> bool {
    if duration.is_zero() {
        return true;
    }
    tokio::select! {
        () = tokio::time::sleep(duration) => true,
        _ = reader.wait_for_end() => false,
    }
}

/// The bytes of the head and of the body that an answer puts on the wire.
fn render(received: &Received, behaviour: &Behaviour) -> (Vec<u8>, Vec<u8>) {
    let version = if behaviour.old { "HTTP/1.0" } else { "HTTP/1.1" };
    let status = if behaviour.status == 0 { 200 } else { behaviour.status };
    let mut head = format!("{version} {status} Answer\r\n");
    for (name, value) in &behaviour.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if behaviour.close {
        head.push_str("connection: close\r\n");
    }
    let named = |echo: bool| json_body(received, echo).into_bytes();
    let mut body = match behaviour.content {
        Content::Name | Content::UntilClose => named(false),
        Content::Echo => named(true),
        Content::Size(size) => pattern(size),
        Content::Chunks(count, size) => render_chunks(count, size, &behaviour.trailers),
        Content::Length(_) | Content::Bare => Vec::new(),
    };
    match behaviour.content {
        Content::Chunks(..) => head.push_str("transfer-encoding: chunked\r\n"),
        Content::Length(length) => head.push_str(&format!("content-length: {length}\r\n")),
        Content::Bare | Content::UntilClose => {}
        Content::Name | Content::Echo => {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        Content::Size(_) => head.push_str(&format!("content-length: {}\r\n", body.len())),
    }
    head.push_str("\r\n");
    match behaviour.fail {
        Some(Failure::Body | Failure::Chunk) => body.truncate(body.len() / 2),
        Some(Failure::ChunkSize) => body = b"3\r\nabc\r\nnot-a-size\r\n".to_vec(),
        _ => {}
    }
    let method = received.head.start.split(' ').next().unwrap_or("");
    if method == "HEAD" || status == 204 || status == 304 {
        body.clear();
    }
    (head.chars().map(|character| character as u8).collect(), body)
}

fn render_chunks(count: usize, size: usize, trailers: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        bytes.extend_from_slice(&pattern(size));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn json_body(received: &Received, echo: bool) -> String {
    let mut value = json!({ "backend": received.backend, "request": received.head.start });
    if echo {
        value["head"] = json!(latin1(&received.head.raw));
        value["body"] = json!(latin1(&received.body.bytes));
    }
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(port: u16, request: &[u8]) -> (Head, Body) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut reader = WireReader::new(stream);
        let head = reader.read_head().await.unwrap().unwrap();
        let body = reader.read_body(head.response_framing("GET")).await;
        (head, body)
    }

    #[tokio::test]
    async fn a_request_is_recorded_before_it_is_answered() {
        let mut backends = Backends::start(["v1".to_owned(), "v2".to_owned()]).await.unwrap();
        let port = backends.ports()["v2"];
        let request = b"POST /a?status=201 HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\nhi";
        let (head, body) = exchange(port, request).await;
        assert_eq!(head.status(), Some(201));
        assert!(latin1(&body.bytes).contains("\"backend\":\"v2\""));
        let received = backends.take().await.unwrap();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].head.raw, request[..request.len() - 2]);
        assert_eq!(received[0].body.bytes, b"hi");
        assert!(backends.take().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_dead_port_refuses() {
        let backends = Backends::start([]).await.unwrap();
        let error = TcpStream::connect(("127.0.0.1", backends.ports()[DEAD])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn failures_break_off_where_they_say() {
        let backends = Backends::start(["b".to_owned()]).await.unwrap();
        let port = backends.ports()["b"];
        let (_, body) = exchange(port, b"GET /?size=100&fail=body HTTP/1.1\r\n\r\n").await;
        assert!(body.cut.unwrap().contains("50 of 100"));
        let (_, body) = exchange(port, b"GET /?chunks=2x10&fail=chunk HTTP/1.1\r\n\r\n").await;
        assert!(body.cut.is_some());
    }
}
