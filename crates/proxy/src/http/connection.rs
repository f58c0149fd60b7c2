//! One downstream connection: request after request until somebody has had enough.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::exchange::{self, After};
use super::h1::ReadBuffer;
use super::stream_info::DownstreamConnection;
use super::transfer::HEAD_READ;
use crate::alarm::Alarm;
use crate::view::WorkerListener;
use crate::worker::{ConnectionHandle, Worker};

/// How long a connection that the proxy closes waits for the client to close too; Envoy's `delayed_close_timeout`.
const DELAYED_CLOSE: Duration = Duration::from_secs(1);
/// Bytes that are still read and thrown away while waiting for that.
const DELAYED_CLOSE_BYTES: usize = 1024 * 1024;

/// The client's side of an exchange.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// Bytes read and not yet used.
    pub(crate) buffer: ReadBuffer,
    /// The connection's timer.
    pub(crate) alarm: Alarm,
    /// The client closed its side.
    pub(crate) at_end: bool,
    /// What the statistics know of the connection.
    pub(crate) count: ConnectionCount,
    handle: Rc<ConnectionHandle>,
}

impl Downstream {
    /// Reads more bytes into the buffer; 0 is the end of the stream.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.poll_read_sized(cx, HEAD_READ)
    }

    /// The same with room for at least so many bytes.
    pub(crate) fn poll_read_sized(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<std::io::Result<usize>> {
        let buffer = self.buffer.fill_at_least(size);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, buffer);
        match read {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.at_end = true;
                self.count.closed_by_client();
            }
            Poll::Ready(Ok(count)) => self.count.received += count as u64,
            Poll::Pending => {}
        }
        read
    }
}

/// The facts of a connection for logs and formats.
pub(crate) fn facts(id: u64, local: SocketAddr, remote: SocketAddr) -> DownstreamConnection {
    DownstreamConnection { id, local: local.into(), remote: remote.into(), server_name: None, tls: false }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    stream: TcpStream,
    facts: DownstreamConnection,
    listener: Rc<WorkerListener>,
) {
    let opened = Instant::now();
    let accepted = listener.clone();
    let http = accepted.http.worker(worker.index);
    let manager = listener.listener.manager.clone();
    let mut bound = listener;
    let mut generation = worker.generation();
    let mut stale = false;
    let mut requests = 0_u32;
    let mut down = Downstream {
        stream,
        buffer: ReadBuffer::default(),
        alarm: Alarm::default(),
        at_end: false,
        count: ConnectionCount::begin(worker, &accepted, opened),
        handle: worker.register(),
    };
    loop {
        if !wait_for_request(worker, &mut down, manager.idle_timeout, http).await {
            break;
        }
        let view = worker.view();
        if view.generation != generation {
            generation = view.generation;
            (bound, stale) = view.rebind(&bound);
        }
        requests = requests.saturating_add(1);
        let outlived = manager.max_connection_duration.is_some_and(|limit| opened.elapsed() >= limit);
        let full = manager.max_requests_per_connection.is_some_and(|limit| requests >= limit);
        let last = stale || outlived || full;
        let mut scratch = worker.take_scratch();
        let after = exchange::run(worker, &view, &bound, &facts, &mut down, &mut scratch, last).await;
        worker.give_scratch(scratch);
        if after == After::Close {
            if full {
                http.downstream_cx_max_requests_reached.inc();
            }
            if outlived {
                http.downstream_cx_max_duration_reached.inc();
            }
            down.count.closed_by_proxy();
            if !close(&mut down).await {
                http.downstream_cx_delayed_close_timeout.inc();
            }
            break;
        }
        if down.buffer.is_empty() {
            down.buffer.release();
        }
    }
}

/// Waits for the first bytes of the next request; `false` when the connection is over.
async fn wait_for_request(
    worker: &Worker,
    down: &mut Downstream,
    idle_timeout: Option<Duration>,
    http: &crate::stats::HttpCounters,
) -> bool {
    if !down.buffer.is_empty() {
        return true;
    }
    if down.at_end {
        return false;
    }
    let idle_by = idle_timeout.map(|timeout| Instant::now() + timeout);
    std::future::poll_fn(|cx| {
        down.handle.register(cx.waker());
        match down.stream.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(true),
            Poll::Ready(Err(_)) => {
                down.count.closed_by_client();
                return Poll::Ready(false);
            }
            Poll::Pending => {}
        }
        let deadline = [idle_by, worker.drain_by()].into_iter().flatten().min();
        if down.alarm.poll(deadline, cx).is_ready() {
            if !worker.is_draining() {
                http.downstream_cx_idle_timeout.inc();
            }
            return Poll::Ready(false);
        }
        Poll::Pending
    })
    .await
}

/// Closes so that the client can still read what was sent: unread input would make the kernel answer with a reset,
/// which destroys bytes on their way. `false` when the client had not closed its side in time.
async fn close(down: &mut Downstream) -> bool {
    if down.at_end || down.stream.shutdown().await.is_err() {
        return true;
    }
    let deadline = Instant::now() + DELAYED_CLOSE;
    let mut discarded = 0;
    let drained = std::future::poll_fn(|cx| {
        loop {
            down.buffer.clear();
            match down.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(true),
                Poll::Ready(Ok(count)) => {
                    discarded += count;
                    if discarded > DELAYED_CLOSE_BYTES {
                        return Poll::Ready(true);
                    }
                }
                Poll::Pending => return down.alarm.poll(Some(deadline), cx).map(|()| false),
            }
        }
    });
    drained.await
}

/// Who closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closer {
    Client,
    Proxy,
}

/// Counts a connection in the statistics until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    listener: Rc<WorkerListener>,
    worker: usize,
    opened: Instant,
    /// Bytes received and not yet in the statistics.
    pub(crate) received: u64,
    /// Bytes sent and not yet in the statistics.
    pub(crate) sent: u64,
    /// Something was received, so that the protocol is known.
    spoken: bool,
    /// A request has begun and has not ended.
    active: bool,
    closer: Option<Closer>,
}

impl ConnectionCount {
    fn begin(worker: &Worker, listener: &Rc<WorkerListener>, opened: Instant) -> Self {
        let count = Self {
            listener: listener.clone(),
            worker: worker.index,
            opened,
            received: 0,
            sent: 0,
            spoken: false,
            active: false,
            closer: None,
        };
        let http = count.http();
        http.downstream_cx_total.inc();
        http.downstream_cx_active.inc();
        let listener = listener.stats.worker(worker.index);
        listener.downstream_cx_total.inc();
        listener.downstream_cx_active.inc();
        count
    }

    fn http(&self) -> &crate::stats::HttpCounters {
        self.listener.http.worker(self.worker)
    }

    /// A request has begun.
    pub(crate) fn begin_request(&mut self) {
        self.active = true;
        let http = self.listener.http.worker(self.worker);
        if !self.spoken {
            self.spoken = true;
            http.downstream_cx_http1_total.inc();
            http.downstream_cx_http1_active.inc();
        }
        http.downstream_rq_total.inc();
        http.downstream_rq_http1_total.inc();
        http.downstream_rq_active.inc();
    }

    /// The request has ended. `broken` when the client has not got its whole response, and the connection goes down
    /// with the request.
    pub(crate) fn end_request(&mut self, broken: bool) {
        self.active = broken;
        self.http().downstream_rq_active.dec();
        self.flush();
    }

    /// The client closed its side or cannot be reached; the first of both sides to close counts.
    pub(crate) fn closed_by_client(&mut self) {
        self.closer.get_or_insert(Closer::Client);
    }

    fn closed_by_proxy(&mut self) {
        self.closer.get_or_insert(Closer::Proxy);
    }

    fn flush(&mut self) {
        let http = self.listener.http.worker(self.worker);
        http.downstream_cx_rx_bytes_total.add(std::mem::take(&mut self.received));
        http.downstream_cx_tx_bytes_total.add(std::mem::take(&mut self.sent));
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.flush();
        let http = self.http();
        http.downstream_cx_active.dec();
        if self.spoken {
            http.downstream_cx_http1_active.dec();
        }
        http.downstream_cx_destroy.inc();
        if self.active {
            http.downstream_cx_destroy_active_rq.inc();
        }
        if self.closer == Some(Closer::Client) {
            http.downstream_cx_destroy_remote.inc();
            if self.active {
                http.downstream_cx_destroy_remote_active_rq.inc();
            }
        } else {
            http.downstream_cx_destroy_local.inc();
            if self.active {
                http.downstream_cx_destroy_local_active_rq.inc();
            }
        }
        http.downstream_cx_length_ms.record_ms(self.opened.elapsed());
        let listener = self.listener.stats.worker(self.worker);
        listener.downstream_cx_active.dec();
        listener.downstream_cx_destroy.inc();
        listener.downstream_cx_length_ms.record_ms(self.opened.elapsed());
    }
}
