//! Answers that the proxy gives itself.

use std::borrow::Cow;

use super::head::{Head, Known};
use super::stream_info::Flag;

/// An answer of the proxy's own: status, body, flag and details as Envoy gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalReply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body; empty means that there is none and no `content-type` either.
    pub(crate) body: Cow<'static, [u8]>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
    /// Response flag.
    pub(crate) flag: Option<Flag>,
    /// Headers besides `content-length`, `content-type`, `date` and `server`.
    pub(crate) headers: Vec<(Known, Vec<u8>)>,
    /// The connection closes after it.
    pub(crate) close: bool,
}

impl LocalReply {
    /// A reply without a body.
    pub(crate) fn empty(status: u16, details: &'static str) -> Self {
        Self::text(status, "", details)
    }

    /// A reply with a text.
    pub(crate) fn text(status: u16, body: impl Into<Cow<'static, str>>, details: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { status, body, details: details.into(), flag: None, headers: Vec::new(), close: false }
    }

    /// With a response flag.
    pub(crate) fn flagged(mut self, flag: Flag) -> Self {
        self.flag = Some(flag);
        self
    }

    /// With another header.
    pub(crate) fn with_header(mut self, name: Known, value: Vec<u8>) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Closing the connection.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Begins the head of this reply: status and its own headers. The route's header mutations come after this, and
    /// [`LocalReply::complete_head`] after them.
    pub(crate) fn begin_head(&self, request: &Head, response: &mut Head) {
        response.clear();
        response.set_status(if is_grpc(request) { 200 } else { self.status });
        self.append_headers(response);
    }

    /// Adds the headers that describe the body, and gives the body.
    ///
    /// A gRPC request gets a trailers-only gRPC response instead: then there is no body.
    pub(crate) fn complete_head(&self, request: &Head, response: &mut Head) -> &[u8] {
        if is_grpc(request) {
            response.set_in_place(Known::ContentType, b"application/grpc");
            response.append_known(Known::GrpcStatus, grpc_status(self.status).to_string().as_bytes());
            if !self.body.is_empty() {
                response.append_known(Known::GrpcMessage, &percent_encode(&self.body));
            }
            return &[];
        }
        if !self.body.is_empty() {
            response.set_in_place(Known::ContentLength, self.body.len().to_string().as_bytes());
            if !response.contains(Known::ContentType) {
                response.append_known(Known::ContentType, b"text/plain");
            }
        }
        &self.body
    }

    fn append_headers(&self, response: &mut Head) {
        for (name, value) in &self.headers {
            response.append_known(*name, value);
        }
    }
}

/// Whether a request speaks gRPC: `application/grpc` or `application/grpc+…`.
pub(crate) fn is_grpc(request: &Head) -> bool {
    request.get(Known::ContentType).is_some_and(|kind| {
        kind.strip_prefix(b"application/grpc").is_some_and(|rest| rest.is_empty() || rest[0] == b'+')
    })
}

/// The gRPC status that stands for an HTTP status of a local reply.
fn grpc_status(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that stands for the `grpc-status` of an upstream.
pub(crate) fn grpc_as_http(status: &[u8]) -> u16 {
    match status {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    }
}

/// Percent-encoding of `grpc-message`: all but printable ASCII, and `%`.
fn percent_encode(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
    encoded
}
