//! Forwarding a request: attempts at hosts of a cluster until a response comes or the policy gives up, then the
//! response on its way to the client.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use lateen_telemetry::Gauge;

use crate::http::connection::Downstream;
use crate::http::exchange::{self, Cx, Scratch};
use crate::http::h1::{self, BodyLength, Limits, ResponseFraming};
use crate::http::head::Known;
use crate::http::reply::LocalReply;
use crate::http::router::retry::{self, Reset, Retries};
use crate::http::router::select::Routed;
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::{Event, Output, RequestBody, ResponseBody, Transfer};
use crate::snapshot::route::Forward;
use crate::upstream::{ActiveRequest, ConnectError, PickContext, UpstreamConnection, WorkerCluster, WorkerHost};

/// Request body bytes kept for retries, when the route says nothing else; Envoy's connection buffer limit.
const REPLAY_LIMIT: usize = 1024 * 1024;
/// More interim responses (1xx) than this before the response proper are refused.
const MAX_INTERIM: u32 = 64;
/// Heads larger than this from an upstream break the protocol; Envoy's default for responses.
const RESPONSE_LIMITS: Limits =
    Limits { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: true, allow_absolute_url: true };

/// How forwarding ended.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// The response was sent; the client's connection can go on unless it says so.
    Sent {
        /// The connection has to be closed.
        close: bool,
    },
    /// Nothing was sent yet and this is the answer.
    Reply(LocalReply),
    /// The client is gone, or the response broke off in the middle: only closing is left.
    Broken,
}

/// The times of one request.
#[derive(Debug, Default)]
struct Deadlines {
    /// The route timeout as a span.
    timeout: Option<Duration>,
    /// Route timeout; runs from the end of the request.
    route: Option<Instant>,
    /// Per-try timeout.
    attempt: Option<Instant>,
    /// Stream idle timeout and the moment from which it counts.
    idle: Option<(Duration, Instant)>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        let idle = self.idle.map(|(timeout, since)| since + timeout);
        [self.route, self.attempt, idle].into_iter().flatten().min()
    }

    fn touch(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.idle {
            *since = now;
        }
    }
}

/// How one attempt ended.
enum Attempt {
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
}

/// Forwards a request to the cluster of its route.
pub(crate) async fn forward<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    route: &'v Forward,
    body: BodyLength,
) -> Forwarded {
    let cluster = match (routed.cluster, routed.cluster_header) {
        (Some(reference), _) => cx.view.cluster(reference.id),
        (None, Some(header)) => scratch.request.value(header).and_then(|name| cx.view.cluster_named(name)),
        (None, None) => None,
    };
    let Some(cluster) = cluster else {
        cx.http.no_cluster.inc();
        let status = route.cluster_not_found_status;
        return Forwarded::Reply(LocalReply::empty(status, "cluster_not_found").flagged(Flag::NoClusterFound));
    };
    info.cluster = Some(&cluster.cluster.config.name);
    let counters = cluster.counters();
    let policy = route.retry.as_deref();
    let mut retries = Retries::new(policy);
    let mut body = RequestBody::new(body, policy.map(|_| REPLAY_LIMIT));
    let timeout = exchange::route_timeout(&scratch.request, route);
    let mut deadlines = Deadlines { timeout, ..Deadlines::default() };
    let idle = route.idle_timeout.or(cx.manager.stream_idle_timeout).filter(|timeout| !timeout.is_zero());
    deadlines.idle = idle.map(|timeout| (timeout, info.started));
    if body.finished {
        info.request_duration = Some(Duration::ZERO);
        deadlines.route = timeout.map(|timeout| info.started + timeout);
    }
    exchange::prepare_upstream_head(cx, scratch, info, routed, route, timeout);
    let mut tried: Vec<u32> = Vec::new();
    loop {
        info.attempts += 1;
        attempt_headers(scratch, info, routed, route, &deadlines, cx.manager.suppress_envoy_headers);
        let context = PickContext { tried: &tried, reselections: retries.reselections(info.attempts) };
        let picked = cluster.pick(&context, &mut cx.worker.rng.borrow_mut());
        let Some(index) = picked else {
            counters.upstream_cx_none_healthy.inc();
            let text = "no healthy upstream";
            let reply = LocalReply::text(503, text, "no_healthy_upstream").flagged(Flag::NoHealthyUpstream);
            return answered_locally(cx, cluster, reply);
        };
        let host: &'v WorkerHost = &cluster.hosts[index as usize];
        info.upstream_host = Some(&host.endpoint.address.text);
        deadlines.attempt = per_try_deadline(route, &body);
        let active = host.begin_request();
        let mut up = None;
        let outcome = match connect(cx, down, cluster, host, &body, &deadlines).await {
            Ok(connection) => {
                let up = up.insert(connection);
                attempt(cx, down, scratch, info, cluster, host, up, &mut body, &mut deadlines, route).await
            }
            Err(failed) => failed,
        };
        let wants_retry = match &outcome {
            Attempt::Response(_) => retries.wants_response(&scratch.response),
            Attempt::Reset(reset) => {
                host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
                retries.wants_reset(*reset)
            }
            _ => false,
        };
        if wants_retry {
            if body.replay().is_none() {
                counters.retry_or_shadow_abandoned.inc();
            } else if retries.is_exhausted() {
                counters.upstream_rq_retry_limit_exceeded.inc();
                info.flags.raise(Flag::UpstreamRetryLimitExceeded);
            } else {
                if let Attempt::Response(_) = &outcome {
                    if scratch.response.status() >= 500 {
                        host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
                    }
                    counters.count_retried(scratch.response.status());
                }
                drop(up);
                drop(active);
                tried.push(index);
                counters.upstream_rq_retry.inc();
                counters.upstream_rq_retry_backoff_exponential.inc();
                let wait = retries.back_off(&mut cx.worker.rng.borrow_mut());
                match pause(down, &deadlines, &body, wait).await {
                    Paused::Over => continue,
                    Paused::Timeout => {
                        counters.upstream_rq_timeout.inc();
                        return answered_locally(cx, cluster, route_timeout());
                    }
                    Paused::DownstreamGone => {
                        downstream_gone(info);
                        return Forwarded::Broken;
                    }
                }
            }
        } else if info.attempts > 1 && matches!(outcome, Attempt::Response(_)) {
            counters.upstream_rq_retry_success.inc();
        }
        return match (outcome, up) {
            (Attempt::Response(framing), Some(up)) => {
                respond(cx, down, scratch, info, routed, cluster, host, body, deadlines, framing, up, active).await
            }
            (Attempt::Reset(reset), _) => {
                let reply = reset_reply(reset, info);
                take_rest(down, scratch, info, &mut body).await;
                answered_locally(cx, cluster, reply)
            }
            (Attempt::Timeout(reply), _) => answered_locally(cx, cluster, reply),
            (Attempt::DownstreamGone | Attempt::Response(_), _) => {
                downstream_gone(info);
                Forwarded::Broken
            }
            (Attempt::BadRequestBody(reply), _) => Forwarded::Reply(reply),
        };
    }
}

/// Reads what has already come of a request body that no upstream will get: a request that is complete can be answered
/// without closing the connection.
async fn take_rest(down: &mut Downstream, scratch: &mut Scratch, info: &mut StreamInfo<'_>, body: &mut RequestBody) {
    std::future::poll_fn(|cx| {
        scratch.to_upstream.clear();
        while !body.finished && body.received < REPLAY_LIMIT as u64 {
            match body.advance(&mut down.buffer, &mut scratch.to_upstream) {
                Err(_) => break,
                Ok(true) => scratch.to_upstream.clear(),
                Ok(false) => match down.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) | Poll::Pending => break,
                },
            }
        }
        Poll::Ready(())
    })
    .await;
    scratch.to_upstream.clear();
    info.bytes_received = body.received;
    if body.is_complete() && info.request_duration.is_none() {
        info.request_duration = Some(info.started.elapsed());
    }
}

fn downstream_gone(info: &mut StreamInfo<'_>) {
    info.flags.raise(Flag::DownstreamConnectionTermination);
    info.details = Some(Cow::Borrowed("downstream_remote_disconnect"));
}

/// A reply of the router's own counts as a response of the cluster.
fn answered_locally(cx: &Cx<'_>, cluster: &WorkerCluster, reply: LocalReply) -> Forwarded {
    cluster.counters().count_response(reply.status, cx.internal);
    Forwarded::Reply(reply)
}

fn route_timeout() -> LocalReply {
    LocalReply::text(504, "upstream request timeout", "response_timeout").flagged(Flag::UpstreamRequestTimeout)
}

fn idle_timeout(request_complete: bool) -> LocalReply {
    let status = if request_complete { 504 } else { 408 };
    let reply = LocalReply::text(status, "stream timeout", "stream_idle_timeout").flagged(Flag::StreamIdleTimeout);
    if request_complete { reply } else { reply.closing() }
}

fn reset_reply(reset: Reset, info: &mut StreamInfo<'_>) -> LocalReply {
    if let Some(reason) = reset.transport_failure {
        info.transport_failure = Some(Cow::Borrowed(reason));
    }
    if reset.kind == retry::ResetKind::PerTryTimeout {
        return LocalReply::text(504, "upstream request timeout", "upstream_per_try_timeout")
            .flagged(Flag::UpstreamRequestTimeout);
    }
    let retried = if info.attempts > 1 { "retried and the latest " } else { "" };
    let reason = reset.kind.text();
    let body = format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}");
    let details = reset.details();
    LocalReply::text(reset.kind.status(), body, details).flagged(reset.kind.flag())
}

fn per_try_deadline(route: &Forward, body: &RequestBody) -> Option<Instant> {
    let timeout = route.retry.as_ref()?.per_try_timeout?;
    body.finished.then(|| Instant::now() + timeout)
}

/// The headers that differ between attempts.
fn attempt_headers(
    scratch: &mut Scratch,
    info: &StreamInfo<'_>,
    routed: &Routed<'_>,
    route: &Forward,
    deadlines: &Deadlines,
    suppress: bool,
) {
    if routed.virtual_host.include_request_attempt_count {
        scratch.request.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut [0; 20]));
    }
    if !suppress && info.attempts > 1 {
        let left = deadlines.route.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        exchange::set_expected_timeout(&mut scratch.request, route, left.or(deadlines.timeout));
    }
}

/// Decimal digits of a number.
pub(crate) fn number(value: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut position = space.len();
    let mut rest = value;
    loop {
        position -= 1;
        space[position] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return &space[position..];
        }
    }
}

/// A connection to the host: an idle one of the pool, or a new one.
async fn connect(
    cx: &Cx<'_>,
    down: &mut Downstream,
    cluster: &Rc<WorkerCluster>,
    host: &WorkerHost,
    body: &RequestBody,
    deadlines: &Deadlines,
) -> Result<UpstreamConnection, Attempt> {
    if let Some(connection) = host.checkout() {
        return Ok(connection);
    }
    let counters = cluster.counters();
    counters.upstream_rq_pending_total.inc();
    let _pending = InFlight::begin(&counters.upstream_rq_pending_active);
    let connecting = UpstreamConnection::connect(cluster, &host.endpoint, deadlines.next());
    tokio::pin!(connecting);
    let connected = std::future::poll_fn(|task| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(task) {
            return Poll::Ready(Some(connected));
        }
        client_left(down, body, task).map(|()| None)
    });
    let error = match connected.await {
        Some(Ok(connection)) => return Ok(connection),
        Some(Err(error)) => error,
        None => return Err(Attempt::DownstreamGone),
    };
    counters.upstream_rq_pending_failure_eject.inc();
    let now = Instant::now();
    if deadlines.route.is_some_and(|deadline| now >= deadline) {
        counters.upstream_rq_timeout.inc();
        return Err(Attempt::Timeout(route_timeout()));
    }
    if deadlines.idle.is_some_and(|(timeout, since)| now >= since + timeout) {
        cx.http.downstream_rq_idle_timeout.inc();
        return Err(Attempt::Timeout(idle_timeout(body.finished)));
    }
    Err(Attempt::Reset(match error {
        ConnectError::Timeout => Reset::plain(retry::ResetKind::ConnectTimeout),
        ConnectError::Failed(error) => Reset::connect_failure(&error),
    }))
}

/// Ready when the client of a complete request closes its connection. Requests that it sends ahead are left waiting.
fn client_left(down: &mut Downstream, body: &RequestBody, task: &mut std::task::Context<'_>) -> Poll<()> {
    if !body.finished || !down.buffer.is_empty() || down.at_end {
        return Poll::Pending;
    }
    match down.poll_read(task) {
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        _ => Poll::Pending,
    }
}

#[expect(clippy::too_many_arguments, reason = "one attempt touches the whole of the request; a struct would only hide it")]
async fn attempt<'v>(
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

enum Paused {
    Over,
    Timeout,
    DownstreamGone,
}

/// Waits before the next attempt, unless the request ends meanwhile.
async fn pause(down: &mut Downstream, deadlines: &Deadlines, body: &RequestBody, wait: Duration) -> Paused {
    let until = Instant::now() + wait;
    let timeout = deadlines.route.filter(|deadline| *deadline < until);
    std::future::poll_fn(|cx| {
        if client_left(down, body, cx).is_ready() {
            return Poll::Ready(Paused::DownstreamGone);
        }
        let over = if timeout.is_some() { Paused::Timeout } else { Paused::Over };
        down.alarm.poll(Some(timeout.unwrap_or(until)), cx).map(|()| over)
    })
    .await
}

/// Sends the response to the client.
#[expect(clippy::too_many_arguments, reason = "the end of an exchange touches the whole of it; a struct would only hide it")]
async fn respond<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    cluster: &Rc<WorkerCluster>,
    host: &WorkerHost,
    mut body: RequestBody,
    mut deadlines: Deadlines,
    framing: ResponseFraming,
    mut up: UpstreamConnection,
    active: ActiveRequest,
) -> Forwarded {
    let counters = cluster.counters();
    let now = Instant::now();
    let since_start = now - info.started;
    info.response_duration = Some(since_start);
    let since_request = since_start.saturating_sub(info.request_duration.unwrap_or(since_start));
    let status = scratch.response.status();
    let outcome = if status >= 500 { &host.endpoint.state.errors } else { &host.endpoint.state.successes };
    outcome.fetch_add(1, Ordering::Relaxed);
    counters.count_response(status, cx.internal);
    info.details = Some(Cow::Borrowed("via_upstream"));
    info.response_code = status;
    deadlines.attempt = None;
    deadlines.touch(now);
    let head_request = scratch.request.method() == b"HEAD";
    let to = match framing.body {
        BodyLength::UntilClose => BodyLength::Chunked,
        BodyLength::Empty if head_request && !scratch.response.contains(Known::ContentLength) => BodyLength::Chunked,
        other => other,
    };
    let close = cx.closing();
    if !cx.manager.suppress_envoy_headers {
        let elapsed = u64::try_from(since_request.as_millis()).unwrap_or(u64::MAX);
        let mut space = [0; 20];
        scratch.response.set_in_place(Known::XEnvoyUpstreamServiceTime, number(elapsed, &mut space));
    }
    if routed.virtual_host.include_attempt_count_in_response {
        let mut space = [0; 20];
        scratch.response.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut space));
    }
    routed.mutate_response(&scratch.request, &mut scratch.response, info, &mut scratch.text);
    exchange::finish_response_head(cx, scratch);
    let mut response = ResponseBody::new(framing.body, to);
    h1::write_response_head(&scratch.response, to, close, &mut scratch.to_client.bytes);
    loop {
        if response.advance(&mut up.buffer, &mut scratch.to_client).is_err() {
            counters.upstream_cx_protocol_error.inc();
            flush(down, &mut scratch.to_client, &deadlines).await;
            return broken_off(info, response.sent, true);
        }
        if response.finished && scratch.to_client.is_empty() {
            break;
        }
        let mut transfer = Transfer {
            down: &mut *down,
            up: &mut up,
            body: &mut body,
            to_upstream: &mut scratch.to_upstream,
            to_client: &mut scratch.to_client,
        };
        let event = transfer.next(deadlines.next(), !response.finished).await;
        if deadlines.idle.is_some() && !matches!(event, Event::Deadline) {
            deadlines.touch(Instant::now());
        }
        match event {
            Event::Upstream | Event::Flushed | Event::RequestComplete => {}
            Event::UpstreamClosed if response.end_of_stream(&mut scratch.to_client).is_ok() => up.closed_by_peer(),
            Event::UpstreamClosed | Event::UpstreamFailed => {
                up.closed_by_peer();
                // A stream that ends too early breaks the protocol; one that is cut off is a lost connection.
                let protocol = matches!(event, Event::UpstreamClosed);
                if protocol {
                    counters.upstream_cx_protocol_error.inc();
                }
                flush(down, &mut scratch.to_client, &deadlines).await;
                return broken_off(info, response.sent, protocol);
            }
            Event::DownstreamGone => {
                info.bytes_sent = response.sent;
                downstream_gone(info);
                return Forwarded::Broken;
            }
            Event::BadRequestBody(_) => {
                info.bytes_sent = response.sent;
                info.flags.raise(Flag::DownstreamProtocolError);
                return Forwarded::Broken;
            }
            Event::Deadline => {
                info.bytes_sent = response.sent;
                return late(cluster, info, &deadlines);
            }
        }
    }
    info.bytes_received = body.received;
    info.bytes_sent = response.sent;
    counters.record_response_time(info.started.elapsed().saturating_sub(info.request_duration.unwrap_or_default()), cx.internal);
    drop(active);
    if framing.keep_alive {
        // Envoy counts a connection that the upstream wants closed as one that goes down with its request.
        up.count.end_request();
    }
    let complete = body.is_complete();
    let reusable = framing.keep_alive
        && complete
        && up.buffer.is_empty()
        && scratch.to_upstream.is_empty()
        && response.from() != BodyLength::UntilClose;
    if reusable {
        match cluster.cluster.config.max_requests_per_connection {
            Some(limit) if up.count.requests >= limit => counters.upstream_cx_max_requests.inc(),
            _ => host.give_back(up, now),
        }
    }
    if !complete {
        cx.http.downstream_rq_response_before_rq_complete.inc();
        cx.http.downstream_rq_rx_reset.inc();
    }
    Forwarded::Sent { close: close || !complete }
}

/// Sends what was received before the upstream broke off, as far as the client takes it in time.
async fn flush(down: &mut Downstream, to_client: &mut Output, deadlines: &Deadlines) {
    let deadline = deadlines.next();
    std::future::poll_fn(|cx| match to_client.poll_write(&mut down.stream, cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => down.alarm.poll(deadline, cx),
    })
    .await;
}

/// The upstream broke off after the response had begun: the client must see that it is incomplete.
fn broken_off(info: &mut StreamInfo<'_>, sent: u64, protocol: bool) -> Forwarded {
    let (flag, reason) = if protocol {
        (Flag::UpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}")
    } else {
        (Flag::UpstreamConnectionTermination, "upstream_reset_after_response_started{connection_termination}")
    };
    info.bytes_sent = sent;
    info.flags.raise(flag);
    info.details = Some(Cow::Borrowed(reason));
    Forwarded::Broken
}

/// A timeout passed after the response had begun.
fn late(cluster: &WorkerCluster, info: &mut StreamInfo<'_>, deadlines: &Deadlines) -> Forwarded {
    if deadlines.route.is_some_and(|deadline| Instant::now() >= deadline) {
        cluster.counters().upstream_rq_timeout.inc();
        info.flags.raise(Flag::UpstreamRequestTimeout);
        info.details = Some(Cow::Borrowed("response_timeout"));
    } else {
        info.flags.raise(Flag::StreamIdleTimeout);
        info.details = Some(Cow::Borrowed("stream_idle_timeout"));
    }
    Forwarded::Broken
}
