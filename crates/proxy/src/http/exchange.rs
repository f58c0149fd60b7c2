//! One exchange: a request from its first byte to the log line of its response.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::connection::Downstream;
use super::h1::{self, BodyLength, RequestFraming};
use super::head::{Head, Known, Version};
use super::ingress;
use super::reply::{LocalReply, is_grpc};
use super::router::forward::{self, Forwarded, number};
use super::router::select::{self, Routed, Selection};
use super::router::{redirect, rewrite};
use super::stream_info::{DownstreamConnection, Flag, Protocol, StreamInfo};
use super::transfer::Output;
use crate::snapshot::format::{Empty, FormatContext};
use crate::snapshot::hcm::{HttpConnectionManager, LogFormat, ServerHeader};
use crate::snapshot::route::{Action, Forward};
use crate::stats::HttpCounters;
use crate::view::{View, WorkerListener};
use crate::worker::Worker;

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    KeepAlive,
    /// The connection is to be closed.
    Close,
}

/// Buffers of an exchange, used again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The request.
    pub(crate) request: Head,
    /// The response.
    pub(crate) response: Head,
    /// Output to the client.
    pub(crate) to_client: Output,
    /// Output to the upstream.
    pub(crate) to_upstream: Output,
    /// Space for formatted values.
    pub(crate) text: Vec<u8>,
    /// Cookies that were made up for the hash of the request, for the response.
    pub(crate) cookies: Vec<Vec<u8>>,
}

/// Buffers larger than this are not kept.
const KEPT_BYTES: usize = 64 * 1024;

impl Scratch {
    /// Empties everything and gives large buffers back.
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.text.clear();
        self.cookies.clear();
        for output in [&mut self.to_client, &mut self.to_upstream] {
            output.clear();
            output.bytes.shrink_to(KEPT_BYTES);
        }
    }
}

/// What stays the same throughout an exchange.
pub(crate) struct Cx<'v> {
    pub(crate) worker: &'v Rc<Worker>,
    pub(crate) view: &'v Rc<View>,
    pub(crate) bound: &'v WorkerListener,
    pub(crate) manager: &'v HttpConnectionManager,
    pub(crate) http: &'v HttpCounters,
    /// The request came from an internal address.
    pub(crate) internal: bool,
    /// The connection ends with this exchange whatever happens.
    last: bool,
}

impl Cx<'_> {
    /// Whether the response has to say that the connection closes.
    pub(crate) fn closing(&self) -> bool {
        self.last || self.worker.is_draining()
    }
}

/// Runs one exchange. `last` closes the connection after it.
pub(crate) async fn run(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    bound: &WorkerListener,
    facts: &DownstreamConnection,
    down: &mut Downstream,
    scratch: &mut Scratch,
    last: bool,
) -> After {
    let manager = &*bound.listener.manager;
    let http = bound.http.worker(worker.index);
    let mut cx = Cx { worker, view, bound, manager, http, internal: false, last };
    let mut info = StreamInfo::begin(facts, SystemTime::now(), Instant::now());
    let framing = match receive_head(&cx, down, scratch, &mut info).await {
        Received::Request(framing) => framing,
        Received::Refused(reply) => {
            info.protocol = Some(Protocol::Http11);
            down.count.begin_request();
            cx.http.downstream_rq_response_before_rq_complete.inc();
            cx.http.downstream_rq_rx_reset.inc();
            let after = reply_locally(&cx, down, scratch, &mut info, None, reply, false).await;
            finish(&cx, down, scratch, &mut info);
            return after;
        }
        Received::Closed => {
            if !down.buffer.is_empty() {
                // A part of a head: Envoy counts it as a request that was broken off.
                down.count.begin_request();
                cx.http.downstream_rq_rx_reset.inc();
                down.count.end_request(true);
            }
            return After::Close;
        }
    };
    down.count.begin_request();
    cx.last |= !framing.keep_alive;
    info.protocol = Some(match scratch.request.version() {
        Version::Http10 => Protocol::Http10,
        Version::Http11 => Protocol::Http11,
        Version::Http2 => Protocol::Http2,
    });
    let prepared = {
        let mut rng = worker.rng.borrow_mut();
        ingress::prepare(manager, &worker.common.machine, &mut scratch.request, &mut info, &mut rng)
    };
    let mut routed = None;
    let outcome = match prepared {
        Err(reply) => {
            if reply.details == "path_normalization_failed" {
                cx.http.downstream_rq_failed_path_normalization.inc();
            }
            Forwarded::Reply(reply)
        }
        Ok(ingress) => {
            cx.internal = ingress.internal;
            cx.http.rq_total.inc();
            let random = worker.rng.borrow_mut().u64(..);
            match select::select(&bound.routes, &scratch.request, random) {
                Selection::NoRoute => {
                    cx.http.no_route.inc();
                    Forwarded::Reply(LocalReply::empty(404, "route_not_found").flagged(Flag::NoRouteFound))
                }
                Selection::RedirectToTls(virtual_host) => {
                    info.virtual_host = Some(&virtual_host.name);
                    cx.http.rq_direct_response.inc();
                    let location = redirect::to_tls(&scratch.request);
                    Forwarded::Reply(LocalReply::empty(301, "direct_response").with_header(Known::Location, location))
                }
                Selection::Route(selected) => {
                    info.virtual_host = Some(&selected.virtual_host.name);
                    info.route_name = &selected.route.name;
                    let selected = routed.insert(selected);
                    act(&cx, down, scratch, &mut info, selected, &framing).await
                }
            }
        }
    };
    let after = match outcome {
        Forwarded::Reply(reply) => {
            let complete =
                info.request_duration.is_some() || matches!(framing.body, BodyLength::Empty | BodyLength::Fixed(0));
            if !complete {
                cx.http.downstream_rq_response_before_rq_complete.inc();
                cx.http.downstream_rq_rx_reset.inc();
            }
            reply_locally(&cx, down, scratch, &mut info, routed.as_ref(), reply, complete).await
        }
        Forwarded::Sent { close } if close || cx.last => After::Close,
        Forwarded::Sent { .. } => After::KeepAlive,
        Forwarded::Broken => {
            down.at_end = true;
            if info.flags.contains(Flag::DownstreamConnectionTermination) {
                cx.http.downstream_rq_rx_reset.inc();
            }
            After::Close
        }
    };
    finish(&cx, down, scratch, &mut info);
    after
}

/// Does what the selected route says.
async fn act<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    framing: &RequestFraming,
) -> Forwarded {
    match &routed.route.action {
        Action::Direct(direct) => {
            cx.http.rq_direct_response.inc();
            let mut reply = LocalReply::empty(direct.status, "direct_response");
            reply.body = Cow::Owned(direct.body.to_vec());
            Forwarded::Reply(reply)
        }
        Action::Redirect(redirect) => {
            // Envoy keeps `rq_redirect` for redirects that it follows itself.
            cx.http.rq_direct_response.inc();
            let mut location = Vec::new();
            redirect::location(redirect, &routed.route.matcher, &scratch.request, &mut location);
            Forwarded::Reply(
                LocalReply::empty(redirect.status, "direct_response").with_header(Known::Location, location),
            )
        }
        Action::Forward(route) => {
            if framing.expect_continue && !cx.manager.proxy_100_continue {
                scratch.request.remove_known(Known::Expect);
                scratch.to_client.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            forward::forward(cx, down, scratch, info, routed, route, framing.body).await
        }
    }
}

enum Received {
    Request(RequestFraming),
    Refused(LocalReply),
    Closed,
}

/// Reads until the request's head is complete.
async fn receive_head(
    cx: &Cx<'_>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'_>,
) -> Received {
    let deadline = cx.manager.request_headers_timeout.map(|timeout| info.started + timeout);
    let idle = cx.manager.stream_idle_timeout.map(|timeout| info.started + timeout);
    loop {
        match h1::parse_request(&mut down.buffer, &cx.manager.limits, &mut scratch.request) {
            Ok(Some(framing)) => return Received::Request(framing),
            Ok(None) => {}
            Err(refusal) => {
                cx.http.downstream_cx_protocol_error.inc();
                scratch.request.clear();
                let reply = LocalReply::text(refusal.status, refusal.body, refusal.details)
                    .flagged(Flag::DownstreamProtocolError)
                    .closing();
                return Received::Refused(reply);
            }
        }
        let next = [deadline, idle].into_iter().flatten().min();
        let read = std::future::poll_fn(|poll| match down.poll_read(poll) {
            std::task::Poll::Ready(read) => std::task::Poll::Ready(Some(read)),
            std::task::Poll::Pending => down.alarm.poll(next, poll).map(|()| None),
        });
        match read.await {
            Some(Ok(0) | Err(_)) => return Received::Closed,
            Some(Ok(_)) => {}
            None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                cx.http.downstream_rq_header_timeout.inc();
                let reply = LocalReply::text(408, "request header timeout", "request_header_timeout").closing();
                return Received::Refused(reply);
            }
            None => {
                cx.http.downstream_rq_idle_timeout.inc();
                let reply = LocalReply::text(408, "stream timeout", "stream_idle_timeout")
                    .flagged(Flag::StreamIdleTimeout)
                    .closing();
                return Received::Refused(reply);
            }
        }
    }
}

/// Header mutations and rewrites of the route, evaluated once for all attempts.
pub(crate) fn prepare_upstream_head<'v>(
    cx: &Cx<'v>,
    scratch: &mut Scratch,
    info: &StreamInfo<'v>,
    routed: &Routed<'v>,
    route: &'v Forward,
    timeout: Option<Duration>,
) {
    if !cx.manager.suppress_envoy_headers {
        set_expected_timeout(&mut scratch.request, route, timeout);
    }
    if routed.virtual_host.include_request_attempt_count {
        scratch.request.set_in_place(Known::XEnvoyAttemptCount, b"1");
    }
    routed.mutate_request(&mut scratch.request, info, &mut scratch.text);
    rewrite::apply(routed, route, &mut scratch.request, cx.manager.suppress_envoy_headers);
}

/// The route timeout of a request: a gRPC request brings its own, which the route may cap.
pub(crate) fn route_timeout(request: &Head, route: &Forward) -> Option<Duration> {
    let Some(grpc) = route.grpc_timeout.as_ref().filter(|_| is_grpc(request)) else { return route.timeout };
    let asked = request.get(Known::GrpcTimeout).and_then(parse_grpc_timeout).filter(|timeout| !timeout.is_zero());
    let asked = asked.map(|timeout| timeout.checked_sub(grpc.offset).filter(|left| !left.is_zero()).unwrap_or(timeout));
    match (asked, grpc.max.filter(|max| !max.is_zero())) {
        (Some(asked), Some(max)) => Some(asked.min(max)),
        (asked, max) => asked.or(max),
    }
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse_grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(value * 3600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Tells the upstream how long an answer is waited for: what is left of the route timeout, or the per-try timeout if
/// that is less. gRPC requests carry it in their own header too.
pub(crate) fn set_expected_timeout(request: &mut Head, route: &Forward, left: Option<Duration>) {
    let Some(left) = left else { return };
    let per_try = route.retry.as_ref().and_then(|policy| policy.per_try_timeout);
    let shown = per_try.map_or(left, |per_try| per_try.min(left));
    // The clock moved on since the deadline was set, by less than what is shown.
    let millis = u64::try_from((shown + Duration::from_micros(999)).as_millis()).unwrap_or(u64::MAX);
    let mut space = [0; 20];
    let digits = number(millis, &mut space);
    request.set_in_place(Known::XEnvoyExpectedRqTimeoutMs, digits);
    if route.grpc_timeout.is_some() && is_grpc(request) {
        let mut value = [0; 21];
        value[..digits.len()].copy_from_slice(digits);
        value[digits.len()] = b'm';
        request.set_in_place(Known::GrpcTimeout, &value[..=digits.len()]);
    }
}

/// The door by which every response leaves, after the header mutations of its route: hop-by-hop headers, date, server,
/// via, request id.
pub(crate) fn finish_response_head(cx: &Cx<'_>, scratch: &mut Scratch) {
    let response = &mut scratch.response;
    response.set_version(scratch.request.version());
    response.remove_response_connection_headers(false);
    if !response.contains(Known::Date) {
        cx.worker.with_date(|date| response.append_known(Known::Date, date));
    }
    match cx.manager.server_header {
        ServerHeader::Overwrite => response.set_in_place(Known::Server, &cx.manager.server_name),
        ServerHeader::AppendIfAbsent if !response.contains(Known::Server) => {
            response.append_known(Known::Server, &cx.manager.server_name);
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    if let Some(via) = &cx.manager.via {
        let mut value = response.get(Known::Via).map(<[u8]>::to_vec).unwrap_or_default();
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(via);
        response.set_in_place(Known::Via, &value);
    }
    if cx.manager.request_id_in_response
        && let Some(id) = scratch.request.get(Known::XRequestId)
    {
        response.set_in_place(Known::XRequestId, id);
    }
}

/// Sends a reply of the proxy's own.
async fn reply_locally<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: Option<&Routed<'v>>,
    reply: LocalReply,
    keep_alive: bool,
) -> After {
    if let Some(flag) = reply.flag {
        info.flags.raise(flag);
    }
    info.details = Some(reply.details.clone());
    reply.begin_head(&scratch.request, &mut scratch.response);
    if info.attempts > 0
        && let Some(routed) = routed
        && routed.virtual_host.include_attempt_count_in_response
    {
        scratch.response.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut [0; 20]));
    }
    if let Some(routed) = routed {
        routed.mutate_response(&scratch.request, &mut scratch.response, info, &mut scratch.text);
    }
    // Envoy's header mutations do not see the code of its own replies.
    info.response_code = scratch.response.status();
    let body_length = reply.complete_head(&scratch.request, &mut scratch.response).len();
    finish_response_head(cx, scratch);
    let close = reply.close || !keep_alive || cx.closing();
    let head_request = scratch.request.method() == b"HEAD";
    let framing = match (body_length, head_request) {
        // Envoy announces chunks in an answer to HEAD that has no length of its own.
        (0, true) if scratch.response.status() >= 200 => BodyLength::Chunked,
        (_, true) | (0, false) => BodyLength::Empty,
        (length, false) => BodyLength::Fixed(length as u64),
    };
    h1::write_response_head(&scratch.response, framing, close, &mut scratch.to_client.bytes);
    if body_length > 0 && !head_request {
        scratch.to_client.bytes.extend_from_slice(&reply.body);
        info.bytes_sent = body_length as u64;
    }
    let deadline = cx.manager.stream_idle_timeout.map(|timeout| Instant::now() + timeout);
    let written = std::future::poll_fn(|poll| match scratch.to_client.poll_write(&mut down.stream, poll) {
        std::task::Poll::Ready(written) => std::task::Poll::Ready(written.is_ok()),
        std::task::Poll::Pending => down.alarm.poll(deadline, poll).map(|()| false),
    });
    let written = written.await;
    down.count.sent += scratch.to_client.take_written();
    if !written {
        down.at_end = true;
        down.count.closed_by_client();
        return After::Close;
    }
    if close { After::Close } else { After::KeepAlive }
}

/// Counts and logs.
fn finish(cx: &Cx<'_>, down: &mut Downstream, scratch: &mut Scratch, info: &mut StreamInfo<'_>) {
    let duration = info.started.elapsed();
    info.duration = Some(duration);
    if info.response_code > 0 {
        cx.http.count_response(info.response_code);
        cx.bound.classes.worker(cx.worker.index).count(info.response_code);
    }
    cx.http.downstream_rq_time.record_ms(duration);
    down.count.end_request(info.flags.contains(Flag::DownstreamConnectionTermination));
    for log in &cx.manager.access_logs {
        let context = FormatContext { request: &scratch.request, response: Some(&scratch.response), stream: &*info };
        cx.worker.logs.append(&log.path, |line| match &log.format {
            LogFormat::Text(format) => format.render(&context, Empty::Dash, line),
            LogFormat::Json(format) => format.render(&context, line),
        });
    }
}
