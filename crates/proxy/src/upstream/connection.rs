//! One connection to an upstream host.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::cluster::WorkerCluster;
use crate::http::h1::ReadBuffer;
use crate::http::stream_info::AddressText;
use crate::snapshot::cluster::{Endpoint, HostState};
use crate::stats::ClusterStats;

/// Why no connection could be made.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Within `connect_timeout` there was no answer.
    Timeout,
    /// The connection was refused, or the network failed.
    Failed(io::Error),
}

/// An open connection to an upstream host.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// Bytes read and not yet used.
    pub(crate) buffer: ReadBuffer,
    /// The local address, as access logs print it.
    pub(crate) local: AddressText,
    opened: Instant,
    idle_since: Instant,
    /// What the statistics know of the connection.
    pub(crate) count: ConnectionCount,
}

impl UpstreamConnection {
    /// Connects to a host within the cluster's `connect_timeout`.
    pub(crate) async fn connect(
        cluster: &WorkerCluster,
        endpoint: &Arc<Endpoint>,
        deadline: Option<Instant>,
    ) -> Result<Self, ConnectError> {
        let counters = cluster.counters();
        let begun = Instant::now();
        let mut count = ConnectionCount::begin(cluster, endpoint.state.clone(), begun);
        let timeout = cluster.cluster.config.connect_timeout;
        let limit = deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(begun)));
        let outcome = match tokio::time::timeout(limit, TcpStream::connect(endpoint.address.socket)).await {
            Ok(Ok(stream)) => prepare(stream),
            Ok(Err(error)) => Err(ConnectError::Failed(error)),
            Err(_) => Err(ConnectError::Timeout),
        };
        match outcome {
            Ok((stream, local)) => {
                let now = Instant::now();
                counters.upstream_cx_connect_ms.record_ms(now - begun);
                Ok(Self { stream, buffer: ReadBuffer::default(), local, opened: now, idle_since: now, count })
            }
            Err(error) => {
                counters.upstream_cx_connect_fail.inc();
                if matches!(error, ConnectError::Timeout) {
                    counters.upstream_cx_connect_timeout.inc();
                } else {
                    count.closed_by_peer();
                }
                endpoint.state.connect_failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Whether nothing came from the peer since the last exchange: neither bytes nor the end of the stream. Costs no
    /// system call unless the reactor saw something.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.stream.poll_read_ready(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                let mut byte = [0];
                let silent =
                    matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
                self.count.remote = !silent;
                silent
            }
        }
    }

    /// Gives the buffer back while the connection is idle.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
        self.buffer.release();
    }

    /// How long the connection has been idle.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }

    /// How long the connection has been open.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// Notes that the peer closed the connection, for the statistics.
    pub(crate) fn closed_by_peer(&mut self) {
        self.count.closed_by_peer();
    }
}

fn prepare(stream: TcpStream) -> Result<(TcpStream, AddressText), ConnectError> {
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    let local = stream.local_addr().map_err(ConnectError::Failed)?;
    Ok((stream, AddressText::new(local)))
}

/// Counts a connection in the statistics from its first attempt until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    stats: Arc<ClusterStats>,
    worker: usize,
    state: Arc<HostState>,
    begun: Instant,
    /// Requests sent on the connection so far.
    pub(crate) requests: u32,
    /// Bytes received and not yet in the statistics.
    pub(crate) received: u64,
    /// Bytes sent and not yet in the statistics.
    pub(crate) sent: u64,
    active: bool,
    remote: bool,
}

impl ConnectionCount {
    fn begin(cluster: &WorkerCluster, state: Arc<HostState>, begun: Instant) -> Self {
        let counters = cluster.counters();
        counters.upstream_cx_total.inc();
        counters.upstream_cx_http1_total.inc();
        counters.upstream_cx_active.inc();
        state.connections.fetch_add(1, Ordering::Relaxed);
        state.active_connections.fetch_add(1, Ordering::Relaxed);
        Self {
            stats: cluster.cluster.stats.clone(),
            worker: cluster.worker,
            state,
            begun,
            requests: 0,
            received: 0,
            sent: 0,
            active: false,
            remote: false,
        }
    }

    /// A request goes out on the connection.
    pub(crate) fn begin_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.active = true;
        self.stats.worker(self.worker).upstream_rq_total.inc();
        self.state.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Its response is complete.
    pub(crate) fn end_request(&mut self) {
        self.active = false;
        self.flush();
    }

    /// The peer closed the connection, or refused it.
    fn closed_by_peer(&mut self) {
        self.remote = true;
    }

    fn flush(&mut self) {
        let counters = self.stats.worker(self.worker);
        counters.upstream_cx_rx_bytes_total.add(std::mem::take(&mut self.received));
        counters.upstream_cx_tx_bytes_total.add(std::mem::take(&mut self.sent));
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.flush();
        let counters = self.stats.worker(self.worker);
        counters.upstream_cx_active.dec();
        counters.upstream_cx_destroy.inc();
        if self.active {
            counters.upstream_cx_destroy_with_active_rq.inc();
        }
        if self.remote {
            counters.upstream_cx_destroy_remote.inc();
            if self.active {
                counters.upstream_cx_destroy_remote_with_active_rq.inc();
            }
        } else {
            counters.upstream_cx_destroy_local.inc();
            if self.active {
                counters.upstream_cx_destroy_local_with_active_rq.inc();
            }
        }
        counters.upstream_cx_length_ms.record_ms(self.begun.elapsed());
        if self.requests > 0 {
            counters.upstream_rq_per_cx.record(self.requests.into());
        }
        self.state.active_connections.fetch_sub(1, Ordering::Relaxed);
    }
}
