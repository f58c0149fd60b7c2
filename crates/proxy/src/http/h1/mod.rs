//! HTTP/1.1 without IO: from bytes to heads and bodies, and back (RFC 9112).
//!
//! What two readers could understand differently is refused, never repaired: both length fields, several lengths, any
//! transfer coding but `chunked`, line folding, bare CR or LF, NUL, a space before the colon. The answers are Envoy's.

mod body;
mod buffer;
mod fields;
mod lines;
mod request;
mod response;
mod write;

pub use body::{BodyReader, FramingError, Step};
pub use buffer::ReadBuffer;
pub use request::{RequestFraming, parse_request};
pub use response::{ProtocolError, ResponseFraming, parse_response};
pub use write::{reason_phrase, write_chunk, write_last_chunk, write_request_head, write_response_head};

/// What the codec accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a head, from its first byte to the end of the empty line; Envoy's `max_request_headers_kb`.
    pub max_head_bytes: usize,
    /// Most header lines, `host` included; Envoy's `max_headers_count`.
    pub max_headers: usize,
    /// Accept HTTP/1.0 requests; Envoy's `accept_http_10`.
    pub accept_http_10: bool,
    /// Take the host from a target in absolute form; Envoy's `allow_absolute_url`. Without it such a target stays the
    /// path, which no route serves.
    pub allow_absolute_url: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: false, allow_absolute_url: true }
    }
}

/// How long a body is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    Empty,
    /// This many bytes.
    Fixed(u64),
    /// Chunks.
    Chunked,
    /// Everything up to the end of the connection; also the bytes that follow an upgrade.
    UntilClose,
}

/// The answer to a request that could not be understood; the connection closes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Body of the reply, `text/plain`.
    pub body: &'static str,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

impl Refusal {
    pub(crate) const CODEC_ERROR: Self = Self::bad_request("http1.codec_error");
    pub(crate) const INVALID_CHARACTERS: Self = Self::bad_request("http1.invalid_characters");
    pub(crate) const INVALID_URL: Self = Self::bad_request("http1.invalid_url");
    pub(crate) const INVALID_SCHEME: Self = Self::bad_request("http1.invalid_scheme");
    pub(crate) const INVALID_AUTHORITY: Self = Self::bad_request("http.invalid_authority");
    pub(crate) const CONNECTION_HEADER: Self = Self::bad_request("http1.connection_header_rejected");
    pub(crate) const LENGTH_AND_CHUNKED: Self = Self::bad_request("http1.content_length_and_chunked_not_allowed");
    pub(crate) const BODY_DISALLOWED: Self = Self::bad_request("http1.body_disallowed");
    pub(crate) const TRANSFER_ENCODING: Self =
        Self { status: 501, body: "Not Implemented", details: "http1.invalid_transfer_encoding" };
    pub(crate) const LOW_VERSION: Self = Self { status: 426, body: "Upgrade Required", details: "low_version" };
    pub(crate) const HEADERS_TOO_LARGE: Self = Self::too_large("http1.headers_too_large");
    pub(crate) const TOO_MANY_HEADERS: Self = Self::too_large("http1.too_many_headers");

    const fn bad_request(details: &'static str) -> Self {
        Self { status: 400, body: "Bad Request", details }
    }

    const fn too_large(details: &'static str) -> Self {
        Self { status: 431, body: "Request Header Fields Too Large", details }
    }
}

/// The value of `content-length` (RFC 9110 section 8.6): digits alone, within 64 bits.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
