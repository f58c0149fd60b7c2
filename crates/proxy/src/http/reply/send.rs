//! How does a reply of the proxy's own go out?

use std::time::Instant;

use super::LocalReply;
use crate::http::connection::Downstream;
use crate::http::exchange::{After, Cx, Scratch, finish_response_head};
use crate::http::h1::{self, BodyLength};
use crate::http::head::Known;
use crate::http::router::forward::number;
use crate::http::router::select::Routed;
use crate::http::stream_info::StreamInfo;

/// Sends a reply of the proxy's own.
pub(crate) async fn send<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: Option<&Routed<'v>>,
    mut reply: LocalReply,
    keep_alive: bool,
) -> After {
    if let Some(flag) = reply.flag {
        info.flags.raise(flag);
    }
    info.details = Some(reply.details.clone());
    reply.begin_head(&scratch.request, &mut scratch.response);
    let routed = routed.filter(|_| !reply.bare);
    if let Some(routed) = routed {
        routed.mutate_response(&scratch.request, &mut scratch.response, info, &mut scratch.text);
    }
    if info.attempts > 0
        && reply.by_router
        && let Some(routed) = routed
        && routed.virtual_host.include_attempt_count_in_response
    {
        scratch.response.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut [0; 20]));
    }
    if let Some(upstream) = &reply.upstream {
        for (name, value) in upstream.fields() {
            scratch.response.append_text(name, value);
        }
    }
    // Envoy's header mutations do not see the code of its own replies.
    if let Some(config) = cx.manager.local_replies.as_deref().filter(|_| !reply.bare) {
        let random = cx.worker.rng.borrow_mut().u64(..);
        info.response_code = reply.status;
        reply.rewrite(config, scratch, info, random);
    }
    let body_length = reply.complete_head(&scratch.request, &mut scratch.response).len();
    info.response_code = scratch.response.status();
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
