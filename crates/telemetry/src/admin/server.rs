//! How is the table of commands served without anybody being able to hold it up? HTTP/1.1 with small limits.
//!
//! Invariant: what a client sends is bounded in size and time, what is kept for it is one answer, and a client that
//! does not read its answer is cut off, so that neither memory nor tasks pile up.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SERVER, X_CONTENT_TYPE_OPTIONS};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};

use super::{Answer, Commands, Query, Request};

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the socket's backlog.
    pub connections: usize,
    /// Bytes of a request head; a longer one is answered 431.
    pub head_bytes: usize,
    /// From the first byte expected to the end of a request head, and so also how long a connection may be idle.
    pub head: Duration,
    /// How long a client may take none of its answer.
    pub stall: Duration,
}

impl Default for Limits {
    /// 64 connections, heads of 32 KiB within 60 s, stalls of 10 s.
    fn default() -> Self {
        Self { connections: 64, head_bytes: 32 << 10, head: Duration::from_secs(60), stall: Duration::from_secs(10) }
    }
}

/// Serves until the future is dropped. Must run inside a `LocalSet` or a `LocalRuntime`: handlers need not be `Send`.
///
/// `server` is the value of the `server` header.
pub async fn serve<C: 'static>(listener: TcpListener, commands: Commands<C>, server: &'static str, limits: Limits) {
    let commands = Rc::new(commands);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!(%error, "admin interface cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let commands = commands.clone();
        connections.spawn_local(async move {
            let _permit = permit;
            if let Err(error) = connection(stream, &commands, server, limits).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

async fn connection<C>(
    stream: TcpStream,
    commands: &Commands<C>,
    server: &'static str,
    limits: Limits,
) -> hyper::Result<()> {
    let service = service_fn(async |request: http::Request<Incoming>| {
        Ok::<_, Infallible>(respond(commands.answer(&understand(&request)), server))
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // hyper wants room for at least 8 KiB.
        .max_buf_size(limits.head_bytes.max(8192))
        .serve_connection(TokioIo::new(Impatient::new(stream, limits.stall)), service)
        .await
}

fn understand(request: &http::Request<Incoming>) -> Request {
    let mut path = request.uri().path().to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    Request { method: request.method().clone(), path, query }
}

fn respond(answer: Answer, server: &'static str) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(SERVER, HeaderValue::from_static(server));
    response
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    limit: Duration,
    stalled: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Impatient {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, limit, stalled: Box::pin(sleep(limit)), waiting: false }
    }

    fn limited<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = false;
            return outcome;
        }
        if !self.waiting {
            self.waiting = true;
            self.stalled.as_mut().reset(Instant::now() + self.limit);
        }
        match self.stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limited(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limited(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.limited(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limited(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::LocalSet;

    use super::*;
    use crate::admin::{Command, Effect};

    const LARGE: usize = 64 << 20;

    /// Runs a test against a server with these limits.
    fn served<F: Future<Output = ()>>(limits: Limits, test: impl FnOnce(SocketAddr) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let command = |path, handler| Command { path, help: "", effect: Effect::Reads, parameters: &[], handler };
            let ready = command("/ready", |_: &(), _: &Request| Answer::text("LIVE\n"));
            let large = command("/large", |_: &(), _: &Request| Answer::text("x".repeat(LARGE)));
            let commands = Commands::new("Admin", (), vec![ready, large]);
            let server = tokio::task::spawn_local(serve(listener, commands, "envoy", limits));
            tokio::time::timeout(Duration::from_secs(30), test(address)).await.unwrap();
            server.abort();
        });
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // The server may reset a connection whose request it did not read to its end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn an_answer_has_the_headers_of_envoys_admin_interface() {
        served(Limits::default(), async |address| {
            let answer = exchange(address, b"GET //ready?a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            for header in [
                "content-type: text/plain; charset=UTF-8",
                "cache-control: no-cache, max-age=0",
                "x-content-type-options: nosniff",
                "server: envoy",
                "content-length: 5",
            ] {
                assert!(head.lines().any(|line| line == header), "{header} in {head}");
            }
            assert_eq!(body, "LIVE\n");
        });
    }

    #[test]
    fn a_head_request_has_no_body() {
        served(Limits::default(), async |address| {
            let answer = exchange(address, b"HEAD /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        });
    }

    #[test]
    fn what_is_no_http_is_refused_and_the_connection_closed() {
        served(Limits::default(), async |address| {
            for request in ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\na b: c\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n"] {
                let answer = exchange(address, request.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer:?}");
            }
        });
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        served(Limits::default(), async |address| {
            let request = format!("GET /ready HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
            let answer = exchange(address, request.as_bytes()).await;
            assert!(!answer.contains(" 200 "), "{answer}");
        });
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_off() {
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        served(limits, async |address| {
            let answer = exchange(address, b"GET /ready HTTP/1.1\r\nhost: ").await;
            assert!(!answer.contains(" 200 "), "{answer}");
        });
    }

    #[test]
    fn an_idle_connection_is_closed() {
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        served(limits, async |address| {
            let answer = exchange(address, b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nLIVE\n"), "{answer}");
        });
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off_and_others_are_served() {
        let limits = Limits { connections: 1, stall: Duration::from_millis(50), ..Limits::default() };
        served(limits, async |address| {
            let mut lazy = TcpStream::connect(address).await.unwrap();
            lazy.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            // There is one place, so this answer proves that the lazy client lost its own.
            let answer = exchange(address, b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(answer.ends_with("LIVE\n"));
            let mut rest = Vec::new();
            let _ = lazy.read_to_end(&mut rest).await;
            assert!(rest.len() < LARGE, "{}", rest.len());
        });
    }

    #[test]
    fn connections_beyond_the_limit_wait_for_their_turn() {
        let limits = Limits { connections: 2, head: Duration::from_millis(200), ..Limits::default() };
        served(limits, async |address| {
            let idle = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
            let answer = exchange(address, b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            assert!(answer.ends_with("LIVE\n"));
            drop(idle);
        });
    }
}
