//! The response of an upstream on its way to the client.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use super::tunnel::tunnel;
use super::{Forwarded, downstream_gone, number};
use crate::http::connection::Downstream;
use crate::http::deadlines::{Deadlines, Late};
use crate::http::exchange::{self, Cx, Scratch};
use crate::http::filters::Pace;
use crate::http::h1::{self, BodyLength, ResponseFraming};
use crate::http::head::Known;
use crate::http::reply::LocalReply;
use crate::http::router::select::Routed;
use crate::http::router::upgrade::Upgraded;
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::{Event, Output, RequestBody, ResponseBody, Transfer, body_read_size};
use crate::snapshot::route::Forward;
use crate::upstream::outlier::Outcome;
use crate::upstream::{ActiveRequest, UpstreamConnection, WorkerCluster, WorkerHost};

/// Sends the response to the client.
#[expect(
    clippy::too_many_arguments,
    reason = "the end of an exchange touches the whole of it; a struct would only hide it"
)]
pub(super) async fn respond<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    route: &Forward,
    cluster: &Rc<WorkerCluster>,
    host: &WorkerHost,
    mut body: RequestBody,
    mut deadlines: Deadlines,
    framing: ResponseFraming,
    mut up: Box<UpstreamConnection>,
    active: ActiveRequest<'_>,
) -> Forwarded {
    let counters = cluster.counters();
    let now = Instant::now();
    let since_start = now - info.started;
    info.response_duration = Some(since_start);
    let requested = deadlines.requested.unwrap_or(now);
    let since_request = now.saturating_duration_since(requested);
    let status = scratch.response.status();
    let outcome = if status >= 500 { &host.endpoint.state.errors } else { &host.endpoint.state.successes };
    outcome.fetch_add(1, Ordering::Relaxed);
    if cx.upgraded == Some(Upgraded::WebSocket) && status != 101 && status < 400 {
        // Neither an agreement nor an error: what follows is no answer to the handshake.
        let mut head = Box::new(std::mem::take(&mut scratch.response));
        head.remove_known(Known::ContentLength);
        head.remove_response_connection_headers(false);
        let reply = LocalReply::empty(status, "websocket_handshake_unsuccessful").closing();
        return Forwarded::Reply(LocalReply { upstream: Some(head), ..reply });
    }
    let agreed = cx.upgraded.is_some_and(|upgraded| upgraded.is_agreed(status));
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
    let close = cx.closing() || cx.upgraded.is_some();
    if !cx.manager.suppress_envoy_headers && cx.upgraded.is_none() {
        let elapsed = u64::try_from(since_request.as_millis()).unwrap_or(u64::MAX);
        let mut space = [0; 20];
        scratch.response.set_in_place(Known::XEnvoyUpstreamServiceTime, number(elapsed, &mut space));
    }
    for cookie in scratch.cookies.drain(..) {
        scratch.response.append_known(Known::SetCookie, &cookie);
    }
    routed.mutate_response(&scratch.request, &mut scratch.response, info, &mut scratch.text);
    if routed.virtual_host.include_attempt_count_in_response {
        let mut space = [0; 20];
        scratch.response.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut space));
    }
    exchange::finish_response_head(cx, scratch);
    if agreed {
        h1::write_response_head(&scratch.response, BodyLength::UntilClose, false, &mut scratch.to_client.bytes);
        (deadlines.request, deadlines.route) = (None, None);
        let ends_clean = cx.upgraded == Some(Upgraded::Tunnel);
        return tunnel(cx, down, scratch, info, cluster, up, deadlines, ends_clean).await;
    }
    let mut response = ResponseBody::new(framing.body, to);
    let mut pace = cx.filters.pace();
    h1::write_response_head(&scratch.response, to, close, &mut scratch.to_client.bytes);
    loop {
        let allowance = pace.as_mut().map_or(u64::MAX, |pace| pace.allowance(Instant::now()));
        let before = response.sent;
        let advanced = response.advance(&mut up.buffer, &mut scratch.to_client, allowance);
        if let Some(pace) = &mut pace {
            pace.spend(response.sent - before);
        }
        if advanced.is_err() {
            counters.upstream_cx_protocol_error.inc();
            cx.worker.report(cluster, host, Outcome::ConnectionFailed);
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
            read_size: body_read_size(framing.body),
        };
        let resume_at = pace.as_ref().and_then(Pace::resume_at).filter(|_| !response.finished);
        let deadline = [deadlines.next(), resume_at].into_iter().flatten().min();
        let event = transfer.next(deadline, !response.finished && resume_at.is_none()).await;
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
                cx.worker.report(cluster, host, Outcome::ConnectionFailed);
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
                if let Some(late) = deadlines.late(Instant::now()) {
                    info.bytes_sent = response.sent;
                    return broken_off_late(cx, cluster, info, late);
                }
            }
        }
    }
    info.bytes_received = body.received;
    info.bytes_sent = response.sent;
    counters.retry_or_shadow_abandoned.add(body.given_up);
    counters.record_response_time(deadlines.requested.unwrap_or(now).elapsed(), cx.internal);
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
        host.pool(route.priority).give_back(up, now);
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
pub(super) fn broken_off_late(
    cx: &Cx<'_>,
    cluster: &WorkerCluster,
    info: &mut StreamInfo<'_>,
    late: Late,
) -> Forwarded {
    let counters = cluster.counters();
    let reply = exchange::late_reply(cx, late, true);
    let (flag, details) = match late {
        Late::Route => {
            counters.upstream_rq_timeout.inc();
            (reply.flag, reply.details)
        }
        Late::AttemptIdle => {
            counters.upstream_rq_per_try_idle_timeout.inc();
            (reply.flag, "upstream_per_try_idle_timeout".into())
        }
        Late::UpstreamStream => {
            counters.upstream_rq_max_duration_reached.inc();
            (Some(Flag::UpstreamMaxStreamDurationReached), "upstream_max_stream_duration_reached".into())
        }
        _ => (reply.flag, reply.details),
    };
    if let Some(flag) = flag {
        info.flags.raise(flag);
    }
    info.details = Some(details);
    Forwarded::Broken
}
