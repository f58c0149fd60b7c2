//! Answers that the proxy gives itself.

mod send;

use std::borrow::Cow;

pub(crate) use self::send::send;
use super::exchange::Scratch;
use super::head::{Head, Known};
use super::stream_info::{Flag, StreamInfo};
use crate::snapshot::format::FormatContext;
use crate::snapshot::local_reply::LocalReplies;

/// An answer of the proxy's own: status, body, flag and details as Envoy gives them.
#[derive(Clone, Debug)]
pub(crate) struct LocalReply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body; empty means that there is none and no `content-type` either.
    pub(crate) body: Cow<'static, [u8]>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
    /// The gRPC status, when it is not the one that stands for the HTTP status.
    pub(crate) grpc_status: Option<u32>,
    /// A response that a filter made itself: a gRPC request gets it as it is, and the route's header mutations and the
    /// local reply configuration leave it alone.
    pub(crate) bare: bool,
    /// The router made it, and tells how often it tried.
    pub(crate) by_router: bool,
    /// Response flag.
    pub(crate) flag: Option<Flag>,
    /// Headers besides `content-length`, `content-type`, `date` and `server`.
    pub(crate) headers: Vec<(Known, Vec<u8>)>,
    /// The type of a body that the configuration made.
    pub(crate) content_type: Option<Box<[u8]>>,
    /// The response of an upstream of which it keeps the lines.
    pub(crate) upstream: Option<Box<Head>>,
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
        Self {
            status,
            body,
            details: details.into(),
            grpc_status: None,
            bare: false,
            by_router: true,
            flag: None,
            headers: Vec::new(),
            content_type: None,
            upstream: None,
            close: false,
        }
    }

    /// A response without a body that a filter made itself.
    pub(crate) fn bare(status: u16, details: &'static str) -> Self {
        Self { bare: true, ..Self::empty(status, details) }
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
        response.set_status(if self.speaks_grpc(request) { 200 } else { self.status });
        self.append_headers(response);
    }

    /// Changes the reply as the connection manager says. `random` decides about shares.
    pub(crate) fn rewrite(
        &mut self,
        config: &LocalReplies,
        scratch: &mut Scratch,
        info: &mut StreamInfo<'_>,
        random: u64,
    ) {
        let Scratch { request, response, text, .. } = scratch;
        let mut format = config.body.as_ref();
        let original = self.body.clone();
        let mut keeps_type = false;
        response.set_status(self.status);
        for mapper in &config.mappers {
            let cx = FormatContext { request, response: Some(response), stream: info, local_reply: &self.body };
            if !mapper.filter.includes(&cx, random) {
                continue;
            }
            if let Some(body) = &mapper.body {
                self.body = Cow::Owned(body.to_vec());
            }
            let before = response.get(Known::ContentType).map(<[u8]>::to_vec);
            mapper.headers.apply_to_response(request, response, info, text);
            keeps_type = response.get(Known::ContentType) != before.as_deref();
            if let Some(status) = mapper.status {
                self.status = status;
                response.set_status(status);
                info.response_code = status;
            }
            format = mapper.format.as_ref().or(format);
            break;
        }
        if let Some(format) = format {
            let cx = FormatContext { request, response: Some(response), stream: info, local_reply: &self.body };
            let mut body = Vec::new();
            format.render(&cx, &mut body);
            if format.is_json() && self.speaks_grpc(request) {
                // The line feed of a line of JSON is no part of a message.
                body.pop();
            }
            self.body = Cow::Owned(body);
        }
        // A new body has the type of its format, unless the mapper named one.
        if self.body != original && !keeps_type {
            let content_type = format.map_or(&b"text/plain"[..], |format| &format.content_type);
            self.content_type = Some(content_type.into());
        }
    }

    /// Adds the headers that describe the body, and gives the body.
    ///
    /// A gRPC request gets a trailers-only gRPC response instead: then there is no body.
    pub(crate) fn complete_head(&self, request: &Head, response: &mut Head) -> &[u8] {
        if self.speaks_grpc(request) {
            response.set_status(200);
            response.set_in_place(Known::ContentType, b"application/grpc");
            if !response.contains(Known::GrpcStatus) {
                let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
                response.append_known(Known::GrpcStatus, status.to_string().as_bytes());
            }
            if !self.body.is_empty() {
                response.append_known(Known::GrpcMessage, &percent_encode(&self.body));
            }
            response.remove_known(Known::ContentLength);
            return &[];
        }
        let bodiless = matches!(response.status(), 100..200 | 204 | 304);
        if self.body.is_empty() || bodiless {
            // A client would take a body for the beginning of the next response (RFC 9112 section 6.3).
            response.remove_known(Known::ContentType);
            return &[];
        }
        response.set_in_place(Known::ContentLength, self.body.len().to_string().as_bytes());
        match &self.content_type {
            Some(content_type) => response.set_in_place(Known::ContentType, content_type),
            None if !response.contains(Known::ContentType) => {
                response.append_known(Known::ContentType, b"text/plain");
            }
            None => {}
        }
        &self.body
    }

    fn speaks_grpc(&self, request: &Head) -> bool {
        !self.bare && is_grpc(request)
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
pub(crate) fn grpc_status(status: u16) -> u32 {
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
