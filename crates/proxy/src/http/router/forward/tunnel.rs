//! Bytes both ways between a client and an upstream that agreed on another protocol than HTTP.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Forwarded, downstream_gone};
use crate::http::connection::Downstream;
use crate::http::deadlines::{Deadlines, Late};
use crate::http::exchange::{Cx, Scratch};
use crate::http::h1::{BodyLength, ResponseFraming};
use crate::http::head::Version;
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::{Output, body_read_size};
use crate::upstream::{UpstreamConnection, WorkerCluster};

/// How a tunnel ended.
enum End {
    /// The client closed its side, or cannot be reached.
    Client,
    /// The upstream closed its side, or cannot be reached.
    Upstream,
    /// A time of the stream was over.
    Late(Late),
}

/// Carries bytes until one side closes. What the head of the response said is in the client's output already.
/// With `ends_clean` the upstream's end is the regular end of the stream.
#[expect(clippy::too_many_arguments, reason = "it touches the whole of the exchange; a struct would only hide it")]
pub(super) async fn tunnel(
    cx: &Cx<'_>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'_>,
    cluster: &Rc<WorkerCluster>,
    mut up: Box<UpstreamConnection>,
    mut deadlines: Deadlines,
    ends_clean: bool,
) -> Forwarded {
    let (mut received, mut sent) = (0, 0);
    let end = {
        let mut carrier = Carrier {
            down,
            up: &mut up,
            to_upstream: &mut scratch.to_upstream,
            to_client: &mut scratch.to_client,
            received: &mut received,
            sent: &mut sent,
        };
        std::future::poll_fn(|task| carrier.poll(&mut deadlines, task)).await
    };
    down.count.sent += scratch.to_client.take_written();
    up.count.sent += scratch.to_upstream.take_written();
    info.bytes_received = received;
    info.bytes_sent = sent;
    match end {
        End::Client => {
            down.count.closed_by_client();
            downstream_gone(info);
            Forwarded::Broken
        }
        End::Upstream => {
            up.closed_by_peer();
            if ends_clean {
                up.count.end_request();
            } else {
                info.flags.raise(Flag::UpstreamConnectionTermination);
                info.details = Some(Cow::Borrowed("upstream_reset_after_response_started{connection_termination}"));
            }
            Forwarded::Sent { close: true }
        }
        End::Late(late) => super::respond::broken_off_late(cx, cluster, info, late),
    }
}

struct Carrier<'a> {
    down: &'a mut Downstream,
    up: &'a mut UpstreamConnection,
    to_upstream: &'a mut Output,
    to_client: &'a mut Output,
    received: &'a mut u64,
    sent: &'a mut u64,
}

impl Carrier<'_> {
    fn poll(&mut self, deadlines: &mut Deadlines, task: &mut Context<'_>) -> Poll<End> {
        let mut moved = false;
        loop {
            let mut again = false;
            // From the client.
            if !self.down.buffer.is_empty() && self.to_upstream.has_room() {
                *self.received += self.down.buffer.len() as u64;
                self.to_upstream.bytes.extend_from_slice(self.down.buffer.unread());
                self.down.buffer.clear();
            }
            if !self.to_upstream.is_empty() {
                match self.to_upstream.poll_write(&mut self.up.stream, task) {
                    Poll::Ready(Ok(())) => again = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Upstream),
                    Poll::Pending => {}
                }
            }
            if self.down.buffer.is_empty() && self.to_upstream.has_room() {
                match self.down.poll_read_sized(task, body_read_size(BodyLength::UntilClose)) {
                    Poll::Ready(Ok(1..)) => again = true,
                    Poll::Ready(_) => return Poll::Ready(End::Client),
                    Poll::Pending => {}
                }
            }
            // From the upstream.
            if !self.up.buffer.is_empty() && self.to_client.has_room() {
                *self.sent += self.up.buffer.len() as u64;
                self.to_client.bytes.extend_from_slice(self.up.buffer.unread());
                self.up.buffer.clear();
            }
            if !self.to_client.is_empty() {
                match self.to_client.poll_write(&mut self.down.stream, task) {
                    Poll::Ready(Ok(())) => again = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Client),
                    Poll::Pending => {}
                }
            }
            if self.up.buffer.is_empty() && self.to_client.has_room() {
                let buffer = self.up.buffer.fill_at_least(body_read_size(BodyLength::UntilClose));
                match tokio_util::io::poll_read_buf(Pin::new(&mut self.up.stream), task, buffer) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.up.count.received += count as u64;
                        again = true;
                    }
                    // What came before the end still goes out.
                    Poll::Ready(_) if self.to_client.is_empty() => return Poll::Ready(End::Upstream),
                    Poll::Ready(_) | Poll::Pending => {}
                }
            }
            moved |= again;
            if !again {
                break;
            }
        }
        let now = Instant::now();
        if moved {
            deadlines.touch(now);
        }
        self.down
            .alarm
            .poll(deadlines.next(), task)
            .map(|()| End::Late(deadlines.late(Instant::now()).unwrap_or(Late::Idle)))
    }
}

/// Makes up the response of an upstream that gets the bytes of a `CONNECT` alone.
pub(super) fn agree(scratch: &mut Scratch) -> ResponseFraming {
    scratch.response.clear();
    scratch.response.set_status(200);
    ResponseFraming { body: BodyLength::UntilClose, keep_alive: false, interim: false, version: Version::Http11 }
}
