//! What does an upstream answer? Response heads (RFC 9112 sections 4 and 6).

use httparse::{ParserConfig, Status};
use std::fmt;

use super::buffer::ReadBuffer;
use super::fields::{adopt_bytes, collect_lines, with_room};
use super::lines::{check_characters, check_lines};
use super::{BodyLength, Limits, Refusal};
use crate::http::head::{Head, JOINED_IN_RESPONSES, Known, Version, tokens};

/// What a response head says about the bytes that follow it and about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// The body that follows.
    pub body: BodyLength,
    /// The connection can carry another request after this response.
    pub keep_alive: bool,
    /// Status 100 to 199 but not 101: the response proper is still to come.
    pub interim: bool,
    /// The version of the upstream; the head's own version is the one in which it will be sent.
    pub version: Version,
}

/// A response that could not be understood: Envoy's `protocol_error` (502, flag `UPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// What is wrong, for logs.
    pub reason: &'static str,
}

impl ProtocolError {
    const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for ProtocolError {}

/// Takes a complete response head from the front of the buffer; `request_method` is that of the request it answers.
///
/// `None` means that more bytes are needed. On success the head owns the memory in which it was received, and the buffer
/// keeps what follows it.
///
/// # Errors
/// The head is wrong, ambiguous or too large; the connection is of no further use.
pub fn parse_response(
    buffer: &mut ReadBuffer,
    limits: &Limits,
    request_method: &[u8],
    head: &mut Head,
) -> Result<Option<ResponseFraming>, ProtocolError> {
    match buffer.unread().first() {
        None => return Ok(None),
        Some(b'H') => {}
        Some(_) => return Err(ProtocolError::new("a response does not begin with HTTP/")),
    }
    let mut complete = !buffer.progress.tried;
    loop {
        if complete && let Some((size, version)) = tokenise(buffer.unread(), limits, head) {
            let repeated = adopt_bytes(buffer, size, head, false);
            return check_head(head, repeated, version, request_method).map(Some);
        }
        if complete && buffer.progress.tried {
            return Err(ProtocolError::new("malformed response head"));
        }
        buffer.progress.tried = true;
        complete = check_lines(buffer, limits, check_status_line).map_err(from_refusal)?;
        if !complete {
            return Ok(None);
        }
    }
}

fn tokenise(bytes: &[u8], limits: &Limits, head: &mut Head) -> Option<(usize, Version)> {
    head.clear();
    let window = &bytes[..bytes.len().min(limits.max_head_bytes)];
    with_room(window, limits.max_headers, |window, room| {
        let mut response = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, window, room);
        let Ok(Status::Complete(size)) = parsed else {
            return None;
        };
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return None;
        };
        head.set_status(status);
        let strict = collect_lines(window, size, response.headers, &mut head.fields);
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        strict.then_some((size, version))
    })
}

fn check_head(
    head: &mut Head,
    repeated: u128,
    version: Version,
    request_method: &[u8],
) -> Result<ResponseFraming, ProtocolError> {
    if head.status() < 100 {
        return Err(ProtocolError::new("status below 100"));
    }
    if repeated & Known::ContentLength.bit() != 0 {
        return Err(ProtocolError::new("several content-length lines in a response"));
    }
    if repeated & JOINED_IN_RESPONSES != 0 {
        head.join_lines(repeated & JOINED_IN_RESPONSES);
    }
    let body = body_length(head, request_method)?;
    let mut close = false;
    let mut keep_alive = false;
    for token in head.get(Known::Connection).into_iter().flat_map(tokens) {
        close |= token.eq_ignore_ascii_case(b"close");
        keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
    }
    close |= head.get(Known::ProxyConnection).is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let reusable = match version {
        // A chunked HTTP/1.0 message cannot be trusted to end where it says (RFC 9112 section 6.1).
        Version::Http10 => keep_alive && !close && body != BodyLength::Chunked,
        _ => !close,
    };
    Ok(ResponseFraming {
        body,
        keep_alive: reusable && body != BodyLength::UntilClose,
        interim: head.status() < 200 && head.status() != 101,
        version,
    })
}

fn body_length(head: &Head, request_method: &[u8]) -> Result<BodyLength, ProtocolError> {
    let length = match head.get(Known::ContentLength) {
        None => None,
        Some(text) => Some(super::parse_length(text).ok_or(ProtocolError::new("content-length is not a number"))?),
    };
    let coding = head.get(Known::TransferEncoding);
    if coding.is_some() && length.is_some() {
        return Err(ProtocolError::new("content-length and transfer-encoding in one response"));
    }
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(ProtocolError::new("a transfer-encoding other than chunked in a response"));
    }
    let status = head.status();
    if status < 200 || status == 204 {
        if coding.is_some() || length.is_some_and(|length| length > 0) {
            return Err(ProtocolError::new("a body announced where the status allows none"));
        }
        return Ok(if status == 101 { BodyLength::UntilClose } else { BodyLength::Empty });
    }
    if request_method == b"CONNECT" && status < 300 {
        return Ok(BodyLength::UntilClose);
    }
    if request_method == b"HEAD" || status == 304 {
        return Ok(BodyLength::Empty);
    }
    Ok(match (coding, length) {
        (Some(_), _) => BodyLength::Chunked,
        (None, Some(0)) => BodyLength::Empty,
        (None, Some(length)) => BodyLength::Fixed(length),
        (None, None) => BodyLength::UntilClose,
    })
}

/// A status line (RFC 9112 section 4): version, three digits, and a reason that nobody needs.
fn check_status_line(line: &[u8]) -> Result<(), Refusal> {
    check_characters(line)?;
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', a, b, c, rest @ ..]
            if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) && (rest.is_empty() || rest[0] == b' ') =>
        {
            Ok(())
        }
        _ => Err(Refusal::CODEC_ERROR),
    }
}

fn from_refusal(refusal: Refusal) -> ProtocolError {
    ProtocolError::new(match refusal {
        Refusal::TOO_MANY_HEADERS => "too many header lines in a response",
        Refusal::HEADERS_TOO_LARGE => "a response head is too large",
        Refusal::INVALID_CHARACTERS => "a control character in a response head",
        _ => "malformed response head",
    })
}
