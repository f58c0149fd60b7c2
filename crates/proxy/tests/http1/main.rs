//! Does the HTTP/1.1 codec understand what it must, refuse what it must, and write what Envoy writes?

mod bodies;
mod properties;
mod requests;
mod responses;
mod writing;

use lateen_proxy::http::h1::{Limits, ReadBuffer, Refusal, RequestFraming, parse_request, write_request_head};
use lateen_proxy::http::head::Head;

/// What became of some bytes that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Incomplete,
    Refused(Refusal),
    Read {
        framing: RequestFraming,
        /// The head as it would be sent to an upstream.
        written: Vec<u8>,
        /// The bytes after the head.
        rest: Vec<u8>,
    },
}

/// Reads one request head from bytes that come in these pieces.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut buffer = ReadBuffer::new();
    let mut head = Head::new();
    let mut pieces = pieces.into_iter();
    for piece in pieces.by_ref() {
        buffer.fill().extend_from_slice(piece);
        match parse_request(&mut buffer, limits, &mut head) {
            Ok(None) => {}
            Err(refusal) => return Outcome::Refused(refusal),
            Ok(Some(framing)) => {
                let mut written = Vec::new();
                write_request_head(&head, framing.body, &mut written);
                let mut rest = buffer.unread().to_vec();
                pieces.for_each(|piece| rest.extend_from_slice(piece));
                return Outcome::Read { framing, written, rest };
            }
        }
    }
    Outcome::Incomplete
}

/// Reads one request head that comes at once.
fn read(bytes: &[u8]) -> Outcome {
    read_pieces([bytes], &Limits::default())
}

/// The head of a request that must be understood, with its framing.
fn accepted(bytes: &[u8]) -> (Head, RequestFraming) {
    let mut buffer = ReadBuffer::new();
    buffer.fill().extend_from_slice(bytes);
    let mut head = Head::new();
    match parse_request(&mut buffer, &Limits::default(), &mut head) {
        Ok(Some(framing)) => (head, framing),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A head as text, one line a field.
fn lines(head: &Head) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    head.fields().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
}
