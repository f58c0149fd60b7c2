//! Moving bytes both ways between a client and an upstream at once, within bounded memory.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncWrite as _;

use super::connection::Downstream;
use super::h1::{self, BodyLength, BodyReader, FramingError, ReadBuffer};
use super::router::mirror::Copies;
use crate::upstream::UpstreamConnection;

/// Output that waits for a slow receiver is not added to beyond this many bytes.
const HIGH_WATER: usize = 64 * 1024;

/// Room for a response head, and for a small response whole.
pub(crate) const HEAD_READ: usize = 4 * 1024;

/// How much of a body one read should have room for: large bodies cost fewer system calls that way.
pub(crate) fn body_read_size(body: BodyLength) -> usize {
    match body {
        BodyLength::Fixed(length) => usize::try_from(length).unwrap_or(HIGH_WATER).clamp(HEAD_READ, HIGH_WATER),
        _ => HIGH_WATER / 4,
    }
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The bytes; those before `sent` are gone already.
    pub(crate) bytes: Vec<u8>,
    sent: usize,
    /// Bytes written and not yet counted.
    written: u64,
}

impl Output {
    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    /// How many bytes were written since the last call.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Whether more may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() - self.sent < HIGH_WATER
    }

    /// Writes what the receiver takes now. Ready when everything is written.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut tokio::net::TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !self.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.written += count as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }
}

/// The request body on its way from the client to the upstream, with a copy for retries.
#[derive(Debug)]
pub(crate) struct RequestBody {
    reader: BodyReader,
    framing: BodyLength,
    /// All of it was received and handed to the upstream's output.
    pub(crate) finished: bool,
    /// Body bytes received.
    pub(crate) received: u64,
    /// The upstream does not take the rest.
    refused: bool,
    replay: Replay,
    /// Mirrors that get the same.
    copies: Option<Copies>,
    /// Copies for retries and mirrors that were given up because they became too large, and are not counted yet.
    pub(crate) given_up: u64,
}

/// What a further attempt would send again.
#[derive(Debug)]
enum Replay {
    /// Nothing is kept: no retry is possible once something was sent.
    Off,
    /// The encoded body so far, up to a limit.
    Kept { bytes: Vec<u8>, limit: usize },
    /// More than the limit was sent.
    Overflown,
}

impl RequestBody {
    /// A body of this framing; with `replay_limit` bytes kept for retries.
    pub(crate) fn new(framing: BodyLength, replay_limit: Option<usize>) -> Self {
        let reader = BodyReader::new(framing);
        Self {
            reader,
            framing,
            finished: reader.is_finished(),
            received: 0,
            refused: false,
            copies: None,
            given_up: 0,
            replay: match replay_limit {
                Some(limit) => Replay::Kept { bytes: Vec::new(), limit },
                None => Replay::Off,
            },
        }
    }

    /// The bytes behind a request for an upgrade: they wait in the client's buffer until the upstream has agreed, and are
    /// no body of the request.
    pub(crate) fn held() -> Self {
        Self { framing: BodyLength::UntilClose, ..Self::new(BodyLength::Empty, None) }
    }

    /// Copies what is sent from now on.
    pub(crate) fn copy_to(&mut self, copies: Copies) {
        self.copies = Some(copies);
    }

    /// The framing towards the upstream.
    pub(crate) fn framing(&self) -> BodyLength {
        self.framing
    }

    /// The bytes that a new attempt has to send first, or `None` when they are not all there.
    pub(crate) fn replay(&self) -> Option<&[u8]> {
        match &self.replay {
            _ if self.refused => None,
            Replay::Kept { bytes, .. } => Some(bytes),
            Replay::Off if self.received == 0 => Some(&[]),
            Replay::Off | Replay::Overflown => None,
        }
    }

    /// Whether the client's body was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.finished && !self.refused
    }

    /// The upstream does not take the rest of the body; its response may still come.
    fn refuse(&mut self) {
        self.refused |= !self.finished;
        self.finished = true;
    }

    /// Moves what is in the client's buffer to the output; `false` when more must be read first.
    pub(crate) fn advance(&mut self, buffer: &mut ReadBuffer, output: &mut Output) -> Result<bool, FramingError> {
        let before = output.bytes.len();
        let mut moved = false;
        while !self.finished && output.has_room() {
            let step = self.reader.next(buffer.unread())?;
            if step.consumed == 0 && !step.finished {
                break;
            }
            let data = &buffer.unread()[step.data.clone()];
            self.received += data.len() as u64;
            append_data(data, self.framing, &mut output.bytes);
            buffer.consume(step.consumed);
            moved = true;
            if step.finished {
                if self.framing == BodyLength::Chunked {
                    h1::write_last_chunk(&mut output.bytes);
                }
                self.finished = true;
            }
        }
        if let Some(copies) = &mut self.copies
            && moved
        {
            self.given_up += copies.push(&output.bytes[before..], self.finished);
        }
        if let Replay::Kept { bytes, limit } = &mut self.replay {
            let new = &output.bytes[before..];
            if bytes.len() + new.len() > *limit {
                self.replay = Replay::Overflown;
                self.given_up += 1;
            } else {
                bytes.extend_from_slice(new);
            }
        }
        Ok(moved)
    }
}

/// The response body on its way from the upstream to the client.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    reader: BodyReader,
    from: BodyLength,
    to: BodyLength,
    /// All of it is in the client's output.
    pub(crate) finished: bool,
    /// Body bytes forwarded.
    pub(crate) sent: u64,
}

impl ResponseBody {
    /// A body that comes framed one way and goes framed another.
    pub(crate) fn new(from: BodyLength, to: BodyLength) -> Self {
        let reader = BodyReader::new(from);
        Self { reader, from, to, finished: reader.is_finished(), sent: 0 }
    }

    /// Moves what is in the upstream's buffer to the output, at most so many bytes of the body.
    pub(crate) fn advance(
        &mut self,
        buffer: &mut ReadBuffer,
        output: &mut Output,
        allowance: u64,
    ) -> Result<(), FramingError> {
        let end = self.sent.saturating_add(allowance);
        while !self.finished && output.has_room() {
            let left = usize::try_from(end - self.sent).unwrap_or(usize::MAX);
            let step = self.reader.next(&buffer.unread()[..left.min(buffer.len())])?;
            if step.consumed == 0 && !step.finished {
                break;
            }
            let length = step.data.len();
            self.sent += length as u64;
            let whole = step.data == (0..buffer.unread().len()) && step.consumed == length;
            if whole && output.is_empty() && self.to != BodyLength::Chunked && length >= 4096 {
                // All that was read is body, and it goes out as it is: the buffers change places.
                output.sent = buffer.swap(&mut output.bytes);
            } else {
                append_data(&buffer.unread()[step.data], self.to, &mut output.bytes);
                buffer.consume(step.consumed);
            }
            if step.finished {
                self.end(output);
            }
        }
        Ok(())
    }

    /// The upstream closed the connection.
    pub(crate) fn end_of_stream(&mut self, output: &mut Output) -> Result<(), FramingError> {
        if self.finished {
            return Ok(());
        }
        self.reader.end_of_stream()?;
        self.end(output);
        Ok(())
    }

    /// The framing in which the upstream sends it.
    pub(crate) fn from(&self) -> BodyLength {
        self.from
    }

    fn end(&mut self, output: &mut Output) {
        if self.to == BodyLength::Chunked {
            h1::write_last_chunk(&mut output.bytes);
        }
        self.finished = true;
    }
}

fn append_data(data: &[u8], framing: BodyLength, output: &mut Vec<u8>) {
    match framing {
        BodyLength::Chunked if data.is_empty() => {}
        BodyLength::Chunked => h1::write_chunk(data, output),
        _ => output.extend_from_slice(data),
    }
}

/// What a transfer came upon.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes of the upstream are in its buffer.
    Upstream,
    /// The upstream closed the connection.
    UpstreamClosed,
    /// Reading from the upstream failed.
    UpstreamFailed,
    /// All of the request body was read.
    RequestComplete,
    /// The client closed the connection or cannot be written to.
    DownstreamGone,
    /// The client broke the framing of its body.
    BadRequestBody(FramingError),
    /// Everything for the client is written.
    Flushed,
    /// The deadline passed.
    Deadline,
}

/// Both sides of an exchange and what is on its way between them.
pub(crate) struct Transfer<'a> {
    pub(crate) down: &'a mut Downstream,
    pub(crate) up: &'a mut UpstreamConnection,
    pub(crate) body: &'a mut RequestBody,
    pub(crate) to_upstream: &'a mut Output,
    pub(crate) to_client: &'a mut Output,
    /// Bytes that one read of the upstream should at least have room for.
    pub(crate) read_size: usize,
}

impl Transfer<'_> {
    /// Moves bytes until something happens that the caller has to look at. The upstream is read only when asked for,
    /// and only while the client keeps up.
    pub(crate) async fn next(&mut self, deadline: Option<Instant>, read_upstream: bool) -> Event {
        std::future::poll_fn(|cx| self.poll(cx, deadline, read_upstream)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>, read_upstream: bool) -> Poll<Event> {
        let mut again = true;
        while again {
            again = false;
            if !self.to_upstream.is_empty()
                && let Poll::Ready(written) = self.to_upstream.poll_write(&mut self.up.stream, cx)
            {
                self.up.count.sent += self.to_upstream.take_written();
                if written.is_err() {
                    // The upstream may have answered before it closed; what it said is still read.
                    self.to_upstream.clear();
                    self.body.refuse();
                }
                again = !self.body.finished;
            }
            if !self.to_client.is_empty()
                && let Poll::Ready(written) = self.to_client.poll_write(&mut self.down.stream, cx)
            {
                self.down.count.sent += self.to_client.take_written();
                if written.is_err() {
                    self.down.count.closed_by_client();
                    return Poll::Ready(Event::DownstreamGone);
                }
                return Poll::Ready(Event::Flushed);
            }
            if read_upstream && self.to_client.has_room() {
                let read = tokio_util::io::poll_read_buf(
                    Pin::new(&mut self.up.stream),
                    cx,
                    self.up.buffer.fill_at_least(self.read_size),
                );
                match read {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Event::UpstreamClosed),
                    Poll::Ready(Ok(count)) => {
                        self.up.count.received += count as u64;
                        return Poll::Ready(Event::Upstream);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::UpstreamFailed),
                    Poll::Pending => {}
                }
            }
            match self.poll_downstream(cx) {
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) => again = true,
                Poll::Pending => {}
            }
        }
        self.down.alarm.poll(deadline, cx).map(|()| Event::Deadline)
    }

    /// Takes in the request body, or watches whether the client goes away once it is complete. Ready without an event
    /// when there is something to write now.
    fn poll_downstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.down.at_end {
            return if self.body.finished { Poll::Pending } else { Poll::Ready(Some(Event::DownstreamGone)) };
        }
        if self.body.finished {
            // One read of pipelined requests is taken in at most; they wait for their turn.
            if !self.down.buffer.is_empty() {
                return Poll::Pending;
            }
        } else {
            if !self.to_upstream.is_empty() {
                return Poll::Pending;
            }
            match self.body.advance(&mut self.down.buffer, self.to_upstream) {
                Err(error) => return Poll::Ready(Some(Event::BadRequestBody(error))),
                Ok(_) if self.body.finished => return Poll::Ready(Some(Event::RequestComplete)),
                Ok(true) => return Poll::Ready(None),
                Ok(false) => {}
            }
        }
        let size = if self.body.finished { HEAD_READ } else { body_read_size(self.body.framing()) };
        match self.down.poll_read_sized(cx, size) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Some(Event::DownstreamGone)),
            Poll::Ready(Ok(_)) if self.body.finished => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
