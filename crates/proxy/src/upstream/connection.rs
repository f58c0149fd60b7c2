//! One connection to an upstream host.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::pool::Pool;
use crate::http::h1::ReadBuffer;
use crate::http::stream_info::AddressText;
use crate::snapshot::cluster::TcpKeepalive;

/// Why no connection could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Within `connect_timeout` there was no answer.
    Timeout,
    /// The connection was refused, or the network failed.
    Failed(io::ErrorKind),
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
    pub(super) opened: Instant,
    idle_since: Instant,
    /// What the statistics know of the connection.
    pub(crate) count: ConnectionCount,
}

impl UpstreamConnection {
    /// Begins a connection for a pool, within the cluster's `connect_timeout`. The future hands it over.
    pub(super) fn connect(pool: &Rc<Pool>) -> impl Future<Output = ()> + use<> {
        let begun = Instant::now();
        let mut count = ConnectionCount::begin(pool.clone(), begun);
        let pool = pool.clone();
        async move {
            let target = &pool.target;
            let connecting = TcpStream::connect(target.address);
            let outcome = match tokio::time::timeout(target.config.connect_timeout, connecting).await {
                Ok(connected) => connected
                    .and_then(|stream| prepare(stream, target.config.tcp_keepalive.as_ref()))
                    .map_err(|error| ConnectError::Failed(error.kind())),
                Err(_) => Err(ConnectError::Timeout),
            };
            let counters = target.counters();
            let outcome = match outcome {
                Ok((stream, local)) => {
                    let now = Instant::now();
                    counters.upstream_cx_connect_ms.record_ms(now - begun);
                    let buffer = ReadBuffer::default();
                    Ok(Box::new(Self { stream, buffer, local, opened: now, idle_since: now, count }))
                }
                Err(error) => {
                    counters.upstream_cx_connect_fail.inc();
                    if error == ConnectError::Timeout {
                        counters.upstream_cx_connect_timeout.inc();
                    } else {
                        count.closed_by_peer();
                    }
                    target.state.connect_failures.fetch_add(1, Ordering::Relaxed);
                    Err(error)
                }
            };
            pool.connected(outcome);
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

fn prepare(stream: TcpStream, keepalive: Option<&TcpKeepalive>) -> io::Result<(TcpStream, AddressText)> {
    stream.set_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive.settings())?;
    }
    let local = stream.local_addr()?;
    Ok((stream, AddressText::new(local)))
}

/// Counts a connection in the statistics from its first attempt until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    pool: Rc<Pool>,
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
    fn begin(pool: Rc<Pool>, begun: Instant) -> Self {
        let target = &pool.target;
        let counters = target.counters();
        counters.upstream_cx_total.inc();
        counters.upstream_cx_http1_total.inc();
        counters.upstream_cx_active.inc();
        target.state.connections.fetch_add(1, Ordering::Relaxed);
        target.state.active_connections.fetch_add(1, Ordering::Relaxed);
        target.breaker().open_connection(pool.opened());
        Self { pool, begun, requests: 0, received: 0, sent: 0, active: false, remote: false }
    }

    /// A request goes out on the connection.
    pub(crate) fn begin_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.active = true;
        self.pool.target.counters().upstream_rq_total.inc();
        self.pool.target.state.requests.fetch_add(1, Ordering::Relaxed);
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
        let counters = self.pool.target.counters();
        counters.upstream_cx_rx_bytes_total.add(std::mem::take(&mut self.received));
        counters.upstream_cx_tx_bytes_total.add(std::mem::take(&mut self.sent));
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.flush();
        let target = &self.pool.target;
        let counters = target.counters();
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
        target.state.active_connections.fetch_sub(1, Ordering::Relaxed);
        target.breaker().close_connection(self.pool.closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_probed_as_the_cluster_says() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keepalive = TcpKeepalive {
            time: Some(Duration::from_secs(77)),
            interval: Some(Duration::from_secs(7)),
            probes: Some(4),
        };
        let (stream, local) = prepare(TcpStream::connect(address).await.unwrap(), Some(&keepalive)).unwrap();
        assert_eq!(local.as_str(), stream.local_addr().unwrap().to_string());
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        let (plain, _) = prepare(TcpStream::connect(address).await.unwrap(), None).unwrap();
        assert!(!socket2::SockRef::from(&plain).keepalive().unwrap());
    }
}
