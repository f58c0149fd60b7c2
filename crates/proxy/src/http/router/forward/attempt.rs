//! One attempt at one host: a connection, the request on it, the head of the response.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use lateen_telemetry::Gauge;

use super::deadlines::Deadlines;
use crate::http::connection::Downstream;
use crate::http::exchange::{Cx, Scratch};
use crate::http::h1::{self, BodyLength, Limits, ResponseFraming};
use crate::http::reply::LocalReply;
use crate::http::router::retry::{self, Reset};
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::{Event, HEAD_READ, RequestBody, Transfer};
use crate::snapshot::route::{Forward, Priority};
use crate::upstream::{ActiveRequest, ConnectError, Pool, Refused, UpstreamConnection, WorkerCluster, WorkerHost};

/// More interim responses (1xx) than this before the response proper are refused.
const MAX_INTERIM: u32 = 64;
/// Heads larger than this from an upstream break the protocol; Envoy's default for responses.
const RESPONSE_LIMITS: Limits =
    Limits { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: true, allow_absolute_url: true };

/// How one attempt ended.
pub(super) enum Attempt {
    /// The head of a response is in `scratch.response`; its body comes on the attempt's connection.
    Response(ResponseFraming),
    /// The attempt failed before a response.
    Reset(Reset),
    /// A timeout of the whole request passed.
    Timeout(LocalReply),
    /// The client went away.
    DownstreamGone,
    /// The client's body is malformed.
    BadRequestBody(LocalReply),
    /// There may be no pool for the host.
    NoPool,
}

/// A connection to the host, an idle one of the pool or the next that is ready, and the leave to use it.
#[expect(
    clippy::too_many_arguments,
    reason = "one attempt touches the whole of the request; a struct would only hide it"
)]
pub(super) async fn connect<'h>(
    cx: &Cx<'_>,
    down: &mut Downstream,
    info: &mut StreamInfo<'_>,
    cluster: &Rc<WorkerCluster>,
    host: &'h WorkerHost,
    priority: Priority,
    body: &RequestBody,
    deadlines: &Deadlines,
) -> Result<(Box<UpstreamConnection>, ActiveRequest<'h>), Attempt> {
    let pool = host.pool(priority);
    let now = info.started;
    let connection = match pool.checkout(now) {
        Some(connection) => connection,
        None => await_connection(cx, down, info, cluster, pool, body, deadlines).await?,
    };
    match host.begin_request(priority) {
        Some(active) => Ok((connection, active)),
        None => {
            pool.give_back(connection, now);
            cluster.counters().upstream_rq_active_overflow.inc();
            Err(Attempt::Reset(Reset::plain(retry::ResetKind::Overflow)))
        }
    }
}

/// Waits in line for a connection, unless the line is full, the client leaves or the time is up.
async fn await_connection(
    cx: &Cx<'_>,
    down: &mut Downstream,
    info: &mut StreamInfo<'_>,
    cluster: &Rc<WorkerCluster>,
    pool: &Rc<Pool>,
    body: &RequestBody,
    deadlines: &Deadlines,
) -> Result<Box<UpstreamConnection>, Attempt> {
    let counters = cluster.counters();
    let mut pending = match pool.wait() {
        Ok(pending) => pending,
        Err(Refused::Pending) => {
            // As in Envoy the request never got as far as a host then.
            info.upstream_host = None;
            return Err(Attempt::Reset(Reset::plain(retry::ResetKind::Overflow)));
        }
        Err(Refused::Pools) => return Err(Attempt::NoPool),
    };
    let connected = std::future::poll_fn(|task| {
        if let Poll::Ready(connected) = pending.poll(task) {
            return Poll::Ready(Ok(connected));
        }
        if client_left(down, body, task).is_ready() {
            return Poll::Ready(Err(Waited::ClientLeft));
        }
        down.alarm.poll(deadlines.next(), task).map(|()| Err(Waited::TooLong))
    });
    match connected.await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(ConnectError::Timeout)) => Err(Attempt::Reset(Reset::plain(retry::ResetKind::ConnectTimeout))),
        Ok(Err(ConnectError::Failed(error))) => Err(Attempt::Reset(Reset::connect_failure(error))),
        Err(Waited::ClientLeft) => {
            counters.upstream_rq_cancelled.inc();
            Err(Attempt::DownstreamGone)
        }
        Err(Waited::TooLong) => {
            counters.upstream_rq_cancelled.inc();
            let now = Instant::now();
            let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
            Err(if passed(deadlines.route) {
                counters.upstream_rq_timeout.inc();
                Attempt::Timeout(route_timeout())
            } else if passed(deadlines.attempt) {
                counters.upstream_rq_per_try_timeout.inc();
                Attempt::Reset(Reset::plain(retry::ResetKind::PerTryTimeout))
            } else {
                cx.http.downstream_rq_idle_timeout.inc();
                Attempt::Timeout(idle_timeout(body.finished))
            })
        }
    }
}

/// Why waiting for a connection ended without one.
enum Waited {
    ClientLeft,
    TooLong,
}

/// Ready when the client of a complete request closes its connection. Requests that it sends ahead are left waiting.
pub(super) fn client_left(down: &mut Downstream, body: &RequestBody, task: &mut std::task::Context<'_>) -> Poll<()> {
    if !body.finished || !down.buffer.is_empty() || down.at_end {
        return Poll::Pending;
    }
    match down.poll_read(task) {
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        _ => Poll::Pending,
    }
}

/// Sends the request on a connection and waits for the head of its response.
#[expect(
    clippy::too_many_arguments,
    reason = "one attempt touches the whole of the request; a struct would only hide it"
)]
pub(super) async fn attempt<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    cluster: &Rc<WorkerCluster>,
    host: &WorkerHost,
    up: &mut UpstreamConnection,
    body: &mut RequestBody,
    deadlines: &mut Deadlines,
    route: &Forward,
) -> Attempt {
    let counters = cluster.counters();
    up.count.begin_request();
    info.upstream_local = Some(up.local);
    let Some(replay) = body.replay() else {
        return Attempt::Reset(Reset::plain(retry::ResetKind::Termination));
    };
    scratch.to_upstream.clear();
    h1::write_request_head(&scratch.request, body.framing(), &mut scratch.to_upstream.bytes);
    scratch.to_upstream.bytes.extend_from_slice(replay);
    let _in_flight = InFlight::begin(&counters.upstream_rq_active);
    let mut interim = 0;
    loop {
        let mut transfer = Transfer {
            down: &mut *down,
            up: &mut *up,
            body: &mut *body,
            to_upstream: &mut scratch.to_upstream,
            to_client: &mut scratch.to_client,
            read_size: HEAD_READ,
        };
        match transfer.next(deadlines.next(), true).await {
            Event::Upstream | Event::Flushed => {}
            Event::RequestComplete => {
                let now = Instant::now();
                info.request_duration = Some(now - info.started);
                deadlines.route = deadlines.timeout.map(|timeout| now + timeout);
                deadlines.attempt = per_try_deadline(route, body);
                deadlines.touch(now);
                continue;
            }
            Event::UpstreamClosed | Event::UpstreamFailed => {
                up.closed_by_peer();
                if up.buffer.is_empty() {
                    return Attempt::Reset(Reset::plain(retry::ResetKind::Termination));
                }
                counters.upstream_cx_protocol_error.inc();
                return Attempt::Reset(Reset::plain(retry::ResetKind::ProtocolError));
            }
            Event::DownstreamGone => return Attempt::DownstreamGone,
            Event::BadRequestBody(error) => {
                cx.http.downstream_cx_protocol_error.inc();
                let refusal = error.refusal();
                let reply = LocalReply::text(refusal.status, refusal.body, refusal.details);
                return Attempt::BadRequestBody(reply.flagged(Flag::DownstreamProtocolError).closing());
            }
            Event::Deadline => return timed_out(counters, host, body, deadlines),
        }
        loop {
            let method = scratch.request.method();
            match h1::parse_response(&mut up.buffer, &RESPONSE_LIMITS, method, &mut scratch.response) {
                Ok(None) => break,
                Ok(Some(framing)) if framing.interim => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        counters.upstream_cx_protocol_error.inc();
                        return Attempt::Reset(Reset::plain(retry::ResetKind::ProtocolError));
                    }
                    // The first one is passed on where expectations are; further ones are dropped.
                    if interim == 1 && cx.manager.proxy_100_continue {
                        counters.count_response(scratch.response.status(), cx.internal);
                        cx.http.count_response(scratch.response.status());
                        scratch.response.remove_response_connection_headers(false);
                        let out = &mut scratch.to_client.bytes;
                        h1::write_response_head(&scratch.response, BodyLength::Empty, false, out);
                    }
                }
                Ok(Some(framing)) => {
                    if !framing.keep_alive && framing.body != BodyLength::UntilClose {
                        counters.upstream_cx_close_notify.inc();
                    }
                    return Attempt::Response(framing);
                }
                Err(_) => {
                    counters.upstream_cx_protocol_error.inc();
                    return Attempt::Reset(Reset::plain(retry::ResetKind::ProtocolError));
                }
            }
        }
    }
}

/// Raises a gauge until it is dropped.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn begin(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn timed_out(
    counters: &crate::stats::ClusterCounters,
    host: &WorkerHost,
    body: &RequestBody,
    deadlines: &Deadlines,
) -> Attempt {
    let now = Instant::now();
    let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
    host.endpoint.state.timeouts.fetch_add(1, Ordering::Relaxed);
    if passed(deadlines.route) {
        host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
        counters.upstream_rq_timeout.inc();
        Attempt::Timeout(route_timeout())
    } else if passed(deadlines.attempt) {
        counters.upstream_rq_per_try_timeout.inc();
        Attempt::Reset(Reset::plain(retry::ResetKind::PerTryTimeout))
    } else {
        Attempt::Timeout(idle_timeout(body.finished))
    }
}

/// The reply when the route timeout passed.
pub(super) fn route_timeout() -> LocalReply {
    LocalReply::text(504, "upstream request timeout", "response_timeout").flagged(Flag::UpstreamRequestTimeout)
}

fn idle_timeout(request_complete: bool) -> LocalReply {
    let status = if request_complete { 504 } else { 408 };
    let reply = LocalReply::text(status, "stream timeout", "stream_idle_timeout").flagged(Flag::StreamIdleTimeout);
    if request_complete { reply } else { reply.closing() }
}

/// The per-try timeout runs once the request is complete.
pub(super) fn per_try_deadline(route: &Forward, body: &RequestBody) -> Option<Instant> {
    let timeout = route.retry.as_ref()?.per_try_timeout?;
    body.finished.then(|| Instant::now() + timeout)
}
