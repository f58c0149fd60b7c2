//! The response of an upstream on its way to the client.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use super::deadlines::Deadlines;
use super::{Forwarded, downstream_gone, number};
use crate::http::connection::Downstream;
use crate::http::exchange::{self, Cx, Scratch};
use crate::http::h1::{self, BodyLength, ResponseFraming};
use crate::http::head::Known;
use crate::http::router::select::Routed;
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
    for cookie in scratch.cookies.drain(..) {
        scratch.response.append_known(Known::SetCookie, &cookie);
    }
    routed.mutate_response(&scratch.request, &mut scratch.response, info, &mut scratch.text);
    exchange::finish_response_head(cx, scratch);
    let mut response = ResponseBody::new(framing.body, to);
    h1::write_response_head(&scratch.response, to, close, &mut scratch.to_client.bytes);
    loop {
        if response.advance(&mut up.buffer, &mut scratch.to_client).is_err() {
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
                info.bytes_sent = response.sent;
                return late(cluster, info, &deadlines);
            }
        }
    }
    info.bytes_received = body.received;
    info.bytes_sent = response.sent;
    counters.record_response_time(
        info.started.elapsed().saturating_sub(info.request_duration.unwrap_or_default()),
        cx.internal,
    );
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
