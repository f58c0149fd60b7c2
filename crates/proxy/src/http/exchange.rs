//! One exchange: a request from its first byte to the log line of its response.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::connection::Downstream;
use super::deadlines::{Deadlines, Late};
use super::filters::{self, Passage, Passed};
use super::h1::{self, BodyLength, RequestFraming};
use super::head::{Head, Known, Version};
use super::ingress;
use super::reply::{self, LocalReply};
use super::router::forward::{self, Forwarded};
use super::router::select::{self, Routed, Selection};
use super::router::timeouts::{self, Timeouts};
use super::router::upgrade::{self, Permission, Upgraded};
use super::router::{redirect, rewrite};
use super::stream_info::{DownstreamConnection, Flag, Protocol, StreamInfo};
use super::transfer::Output;
use crate::snapshot::format::{Empty, FormatContext};
use crate::snapshot::hcm::{HttpConnectionManager, LogFormat, ServerHeader};
use crate::snapshot::route::{Action, Forward};
use crate::stats::{HttpCounters, InFlight};
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
    /// The filters that the request passed and that have something to do with its response.
    pub(crate) filters: Passed<'v>,
    /// The protocol that the request may change to.
    pub(crate) upgraded: Option<Upgraded>,
    /// The connection ends with this exchange whatever happens.
    last: bool,
}

impl Cx<'_> {
    /// Whether the response has to say that the connection closes.
    pub(crate) fn closing(&self) -> bool {
        self.last || self.worker.is_draining()
    }

    /// The times of a request by its connection manager.
    fn deadlines(&self, info: &StreamInfo<'_>) -> Deadlines {
        Deadlines {
            idle: self.manager.stream_idle_timeout.map(|timeout| (timeout, info.started)),
            request: self.manager.request_timeout.map(|timeout| info.started + timeout),
            stream: self.manager.max_stream_duration.map(|limit| info.started + limit),
            ..Deadlines::default()
        }
    }

    /// What the route says in place of the connection manager.
    fn replace_deadlines(&self, deadlines: &mut Deadlines, route: &Forward, request: &Head, info: &StreamInfo<'_>) {
        if let Some(timeout) = route.idle_timeout {
            deadlines.idle = Some((timeout, info.started)).filter(|_| !timeout.is_zero());
        }
        let limit = timeouts::stream_limit(request, route, self.manager.max_stream_duration);
        deadlines.stream = limit.map(|limit| info.started + limit);
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
    let mut cx =
        Cx { worker, view, bound, manager, http, internal: false, filters: Passed::default(), upgraded: None, last };
    let mut info = StreamInfo::begin(facts, SystemTime::now(), Instant::now());
    let framing = match receive_head(&cx, down, scratch, &mut info).await {
        Received::Request(framing) => framing,
        Received::Refused(reply) => {
            info.protocol = Some(Protocol::Http11);
            down.count.begin_request();
            cx.http.downstream_rq_response_before_rq_complete.inc();
            cx.http.downstream_rq_rx_reset.inc();
            let after = reply::send(&cx, down, scratch, &mut info, None, reply, false).await;
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
            answer(&mut cx, down, scratch, &mut info, &framing, ingress.upgrade, &mut routed).await
        }
    };
    let after = match outcome {
        Forwarded::Reply(reply) => {
            let complete = info.request_duration.is_some() || (is_empty(framing.body) && cx.upgraded.is_none());
            if !complete {
                cx.http.downstream_rq_response_before_rq_complete.inc();
                cx.http.downstream_rq_rx_reset.inc();
            }
            reply::send(&cx, down, scratch, &mut info, routed.as_ref(), reply, complete).await
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

/// Finds the route, leads the request through the filters, and does what the route says.
async fn answer<'v>(
    cx: &mut Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    framing: &RequestFraming,
    asks_for_upgrade: bool,
    routed: &mut Option<Routed<'v>>,
) -> Forwarded {
    let random = cx.worker.rng.borrow_mut().u64(..);
    let mut deadlines = cx.deadlines(info);
    let bound = cx.bound;
    let mut secure = None;
    let mut forward = None;
    match select::select(&bound.routes, &scratch.request, random) {
        Selection::NoRoute => {}
        Selection::RedirectToTls(virtual_host) => {
            info.virtual_host = Some(&virtual_host.name);
            secure = Some(virtual_host);
        }
        Selection::Route(selected) => {
            info.virtual_host = Some(&selected.virtual_host.name);
            info.route_name = &selected.route.name;
            if let Action::Forward(route) = &selected.route.action {
                cx.replace_deadlines(&mut deadlines, route, &scratch.request, info);
                forward = Some(&**route);
            }
            *routed = Some(selected);
        }
    }
    let routed = routed.as_ref();
    let mut body = framing.body;
    let mut _upgrade = None;
    match upgrade::permit(cx.manager, forward, &scratch.request, asks_for_upgrade) {
        Permission::NotAsked if is_empty(framing.body) => {
            info.request_duration = Some(Duration::ZERO);
            deadlines.request = None;
        }
        Permission::NotAsked => {}
        Permission::Granted(upgraded) => {
            cx.http.downstream_cx_upgrades_total.inc();
            _upgrade = Some(InFlight::begin(&cx.http.downstream_cx_upgrades_active));
            cx.upgraded = Some(upgraded);
            body = BodyLength::UntilClose;
        }
        Permission::Refused if routed.is_none() && secure.is_none() => {
            cx.http.rq_total.inc();
            return Forwarded::Reply(no_route(cx).closing());
        }
        Permission::Refused => {
            cx.http.downstream_rq_ws_on_non_ws_route.inc();
            name_cluster(cx, scratch, info, routed);
            return Forwarded::Reply(LocalReply::empty(403, "upgrade_failed").closing());
        }
    }
    if !cx.manager.filters.is_idle(routed.map(filters::overrides)) {
        let mut passed = Passed::default();
        let passage = filters::pass(cx, down, scratch, info, routed, body, &mut deadlines, &mut passed).await;
        cx.filters = passed;
        if !matches!(passage, Passage::Continue) {
            name_cluster(cx, scratch, info, routed);
        }
        match passage {
            Passage::Continue => {}
            Passage::Reply(reply) => return Forwarded::Reply(reply),
            Passage::Late(late) => return Forwarded::Reply(late_reply(cx, late, info.request_duration.is_some())),
            Passage::DownstreamGone => {
                forward::downstream_gone(info);
                return Forwarded::Broken;
            }
        }
    }
    cx.http.rq_total.inc();
    match (routed, secure) {
        (Some(routed), _) => act(cx, down, scratch, info, routed, framing, body, deadlines).await,
        (None, Some(_)) => {
            cx.http.rq_direct_response.inc();
            let location = redirect::to_tls(&scratch.request);
            Forwarded::Reply(LocalReply::empty(301, "direct_response").with_header(Known::Location, location))
        }
        (None, None) => Forwarded::Reply(no_route(cx)),
    }
}

fn no_route(cx: &Cx<'_>) -> LocalReply {
    cx.http.no_route.inc();
    LocalReply::empty(404, "route_not_found").flagged(Flag::NoRouteFound)
}

/// The log names the cluster that a request would have gone to.
fn name_cluster<'v>(cx: &Cx<'v>, scratch: &Scratch, info: &mut StreamInfo<'v>, routed: Option<&Routed<'v>>) {
    if let Some(cluster) = routed.and_then(|routed| forward::cluster_of(cx, routed, &scratch.request)) {
        info.cluster = Some(&cluster.cluster.config.name);
    }
}

fn is_empty(body: BodyLength) -> bool {
    matches!(body, BodyLength::Empty | BodyLength::Fixed(0))
}

/// The reply when a time of the stream was over before a response.
pub(crate) fn late_reply(cx: &Cx<'_>, late: Late, request_complete: bool) -> LocalReply {
    let status = if request_complete { 504 } else { 408 };
    let reply = match late {
        Late::Route | Late::Attempt | Late::AttemptIdle | Late::UpstreamStream => {
            return forward::route_timeout(false);
        }
        Late::Idle => {
            cx.http.downstream_rq_idle_timeout.inc();
            LocalReply::text(status, "stream timeout", "stream_idle_timeout").flagged(Flag::StreamIdleTimeout)
        }
        Late::Request => {
            cx.http.downstream_rq_timeout.inc();
            LocalReply::text(408, "request timeout", "request_overall_timeout")
        }
        Late::Stream => {
            cx.http.downstream_rq_max_duration_reached.inc();
            let reply = LocalReply::text(status, "downstream duration timeout", "max_duration_timeout");
            LocalReply { grpc_status: Some(4), ..reply }
        }
    };
    let reply = LocalReply { by_router: false, ..reply };
    if request_complete { reply } else { reply.closing() }
}

/// Does what the selected route says.
#[expect(clippy::too_many_arguments, reason = "it touches the whole of the exchange; a struct would only hide it")]
async fn act<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    framing: &RequestFraming,
    body: BodyLength,
    deadlines: Deadlines,
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
            forward::forward(cx, down, scratch, info, routed, route, body, deadlines).await
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
    timeouts: &Timeouts,
) {
    if !cx.manager.suppress_envoy_headers {
        timeouts.tell_upstream(&mut scratch.request, route, timeouts.all);
    }
    if routed.virtual_host.include_request_attempt_count {
        scratch.request.set_in_place(Known::XEnvoyAttemptCount, b"1");
    }
    routed.mutate_request(&mut scratch.request, info, &mut scratch.text);
    rewrite::apply(routed, route, &mut scratch.request, cx.manager.suppress_envoy_headers);
}

/// The door by which every response leaves, after the header mutations of its route: the filters that the request
/// passed, hop-by-hop headers, date, server, via, request id.
pub(crate) fn finish_response_head(cx: &Cx<'_>, scratch: &mut Scratch) {
    let response = &mut scratch.response;
    cx.filters.change_response(response);
    response.set_version(scratch.request.version());
    response.remove_response_connection_headers(response.status() == 101);
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
        let context = FormatContext {
            request: &scratch.request,
            response: Some(&scratch.response),
            stream: &*info,
            local_reply: b"",
        };
        if let Some(filter) = &log.filter
            && !filter.includes(&context, cx.worker.rng.borrow_mut().u64(..))
        {
            continue;
        }
        cx.worker.logs.append(&log.path, |line| match &log.format {
            LogFormat::Text(format) => format.render(&context, Empty::Dash, line),
            LogFormat::Json(format) => format.render(&context, line),
        });
    }
}
