//! HTTP/1.1 without IO: from bytes to heads and bodies, and back (RFC 9112).
//!
//! What two readers could understand differently is refused, never repaired: both length fields, several lengths, any
//! transfer coding but `chunked`, line folding, bare CR or LF, NUL, a space before the colon. The answers are Envoy's.

mod body;
mod fields;
mod request;
mod response;
mod write;

pub use body::{BodyReader, FramingError, Step};
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

/// The bytes that were read from one connection and not yet used.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    /// How many unread bytes the last attempt to parse a head saw; no empty line lies completely within them.
    attempted: usize,
    /// That attempt met an error in a line whose end it did not see.
    doubtful: bool,
}

impl ReadBuffer {
    /// Bytes that are free for one read unless more are asked for.
    const READ: usize = 4096;

    /// An empty buffer without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The unread bytes.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Count of unread bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is unread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks bytes at the front as used; more than there are counts as all of them.
    pub fn consume(&mut self, count: usize) {
        self.attempted = 0;
        self.doubtful = false;
        if count >= self.len() {
            self.bytes.clear();
            self.start = 0;
        } else {
            self.start += count;
        }
    }

    /// The vector to append the next read to, with free space for at least 4 KiB.
    pub fn fill(&mut self) -> &mut Vec<u8> {
        self.fill_at_least(Self::READ)
    }

    /// The vector to append the next read to, with free space for at least `count` bytes. The caller appends only.
    pub fn fill_at_least(&mut self, count: usize) -> &mut Vec<u8> {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < count {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(count);
        &mut self.bytes
    }

    /// Frees the memory when nothing is unread, for a connection that will be idle.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether a new attempt to parse a head can tell more than the last one. Attempts cost time in proportion to the
    /// head, so that a head in small pieces gets one when its size has doubled, when its last line has come, or when
    /// the end of a line shows whether that line is wrong: the sum stays in proportion to the head.
    fn is_worth_an_attempt(&self) -> bool {
        let unread = self.unread();
        if unread.len() >= self.attempted * 2 {
            return true;
        }
        // An empty line may have begun in the bytes that were seen.
        let from = self.attempted.saturating_sub(2);
        let mut rest = &unread[from..];
        let mut previous_ended = false;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            if self.doubtful || (previous_ended && (line.is_empty() || line == b"\r")) {
                return true;
            }
            previous_ended = true;
            rest = &rest[end + 1..];
        }
        false
    }

    /// Notes that the unread bytes hold no complete head.
    fn attempted(&mut self, doubtful: bool) {
        self.attempted = self.len();
        self.doubtful = doubtful;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumed_buffer_starts_again_at_its_front() {
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(b"abcdef");
        buffer.consume(2);
        assert_eq!(buffer.unread(), b"cdef");
        buffer.fill_at_least(1 << 20).extend_from_slice(b"gh");
        assert_eq!((buffer.unread(), buffer.start), (&b"cdefgh"[..], 0));
        buffer.consume(100);
        assert!(buffer.is_empty());
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn bytes_that_are_unread_survive_a_release() {
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(b"abc");
        buffer.release();
        assert_eq!(buffer.unread(), b"abc");
    }

    #[test]
    fn small_pieces_get_few_attempts() {
        let mut buffer = ReadBuffer::new();
        let mut attempts = 0;
        for index in 0..40_000 {
            buffer.fill().push(if index % 10 == 9 { b'\n' } else { b'x' });
            if buffer.is_worth_an_attempt() {
                attempts += 1;
                buffer.attempted(false);
            }
        }
        assert!(attempts < 20, "{attempts}");
    }

    #[test]
    fn the_empty_line_gets_an_attempt_however_it_is_cut() {
        for cut in 1..4 {
            let mut buffer = ReadBuffer::new();
            let head = [&vec![b'x'; 100][..], b"\r\n\r\n"].concat();
            buffer.fill().extend_from_slice(&head[..100 + cut]);
            buffer.attempted(false);
            buffer.fill().extend_from_slice(&head[100 + cut..]);
            assert!(buffer.is_worth_an_attempt(), "cut after {cut}");
        }
    }
}
