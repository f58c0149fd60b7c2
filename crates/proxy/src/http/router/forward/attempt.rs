//! One attempt at one host: a connection, the request on it, the head of the response.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use super::tunnel;
use crate::http::connection::Downstream;
use crate::http::deadlines::{Deadlines, Late};
use crate::http::exchange::{self, Cx, Scratch};
use crate::http::h1::{self, BodyLength, ResponseFraming};
use crate::http::reply::LocalReply;
use crate::http::router::retry::{self, Reset};
use crate::http::router::upgrade::Upgraded;
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::{Event, HEAD_READ, RequestBody, Transfer};
use crate::snapshot::route::Priority;
use crate::stats::InFlight;
use crate::upstream::{
    ActiveRequest, ConnectError, RESPONSE_LIMITS, Refused, UpstreamConnection, WorkerCluster, WorkerHost,
};

/// More interim responses (1xx) than this before the response proper are refused.
const MAX_INTERIM: u32 = 64;

/// How one attempt ended.
pub(super) enum Attempt {
    /// The head of a response is in `scratch.response`; its body comes on the attempt's connection.
    Response(ResponseFraming),
    /// The attempt failed before a response.
    Reset(Reset),
    /// The route's timeout passed.
    Timeout(LocalReply),
    /// Another time passed; the answer does not count as one of the cluster.
    Ended(LocalReply),
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
        None => await_connection(cx, down, info, cluster, host, priority, body, deadlines).await?,
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
#[expect(
    clippy::too_many_arguments,
    reason = "one attempt touches the whole of the request; a struct would only hide it"
)]
async fn await_connection(
    cx: &Cx<'_>,
    down: &mut Downstream,
    info: &mut StreamInfo<'_>,
    cluster: &Rc<WorkerCluster>,
    host: &WorkerHost,
    priority: Priority,
    body: &RequestBody,
    deadlines: &Deadlines,
) -> Result<Box<UpstreamConnection>, Attempt> {
    let counters = cluster.counters();
    let mut pending = match host.pool(priority).wait() {
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
            Err(match deadlines.late(Instant::now()) {
                Some(late) => timed_out(cx, counters, host, body, deadlines, late),
                None => Attempt::Reset(Reset::plain(retry::ResetKind::ConnectTimeout)),
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
) -> Attempt {
    let counters = cluster.counters();
    up.count.begin_request();
    info.upstream_local = Some(up.local);
    if cx.upgraded == Some(Upgraded::Tunnel) {
        // The upstream is not asked: being there is its agreement.
        scratch.to_upstream.clear();
        return Attempt::Response(tunnel::agree(scratch));
    }
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
                deadlines.request_complete(now);
                counters.retry_or_shadow_abandoned.add(std::mem::take(&mut body.given_up));
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
            Event::Deadline => match deadlines.late(Instant::now()) {
                Some(late) => return timed_out(cx, counters, host, body, deadlines, late),
                None => continue,
            },
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

fn timed_out(
    cx: &Cx<'_>,
    counters: &crate::stats::ClusterCounters,
    host: &WorkerHost,
    body: &RequestBody,
    deadlines: &Deadlines,
    late: Late,
) -> Attempt {
    host.endpoint.state.timeouts.fetch_add(1, Ordering::Relaxed);
    match late {
        Late::Route => {
            host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
            counters.upstream_rq_timeout.inc();
            Attempt::Timeout(route_timeout(deadlines.timeouts.alternative_response))
        }
        Late::Attempt => {
            counters.upstream_rq_per_try_timeout.inc();
            Attempt::Reset(Reset::plain(retry::ResetKind::PerTryTimeout))
        }
        Late::AttemptIdle => {
            counters.upstream_rq_per_try_idle_timeout.inc();
            Attempt::Reset(Reset::plain(retry::ResetKind::PerTryIdleTimeout))
        }
        Late::UpstreamStream => {
            counters.upstream_rq_max_duration_reached.inc();
            let text = "upstream max stream duration reached";
            let reply = LocalReply::text(504, text, "upstream_max_stream_duration_reached");
            Attempt::Ended(reply.flagged(Flag::UpstreamMaxStreamDurationReached))
        }
        Late::Idle | Late::Request | Late::Stream => Attempt::Ended(exchange::late_reply(cx, late, body.finished)),
    }
}

/// The reply when the route timeout passed: 504, or 204 without a body if the client wished so.
pub(crate) fn route_timeout(alternative: bool) -> LocalReply {
    let (status, text) = if alternative { (204, "") } else { (504, "upstream request timeout") };
    LocalReply::text(status, text, "response_timeout").flagged(Flag::UpstreamRequestTimeout)
}
