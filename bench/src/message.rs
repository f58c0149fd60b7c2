//! Where does an HTTP/1.1 message end?
//!
//! Just enough of RFC 9112 to follow well-formed peers on a kept-alive connection: the head's
//! first line and fields, and the three framings of a body. It trusts its peers more than a proxy
//! may; what it cannot follow is [`Malformed`], never a guess.

use std::fmt;

/// Longest head in bytes that is accepted, first line included.
pub const HEAD_LIMIT: usize = 32 * 1024;

/// A message that breaks the grammar, or a head longer than [`HEAD_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("malformed HTTP/1.1 message")
    }
}

impl std::error::Error for Malformed {}

/// First line and fields of a message, borrowed from the buffer that it was read into.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Request line or status line without its line end.
    pub first_line: &'a [u8],
    fields: &'a [u8],
    /// Bytes from the start of the buffer to the start of the body.
    pub length: usize,
}

impl<'a> Head<'a> {
    /// Parses the head at the start of `input`; `None` when it is not complete yet.
    ///
    /// # Errors
    /// [`Malformed`] when `input` holds [`HEAD_LIMIT`] bytes and no end of a head.
    pub fn parse(input: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let searched = &input[..input.len().min(HEAD_LIMIT)];
        let mut line_start = 0;
        let mut first_line_end = None;
        while let Some(offset) = searched[line_start..].iter().position(|&b| b == b'\n') {
            let line_end = line_start + offset;
            let line = without_carriage_return(&searched[line_start..line_end]);
            match first_line_end {
                None => first_line_end = Some((line.len(), line_end + 1)),
                Some((first_line, fields)) if line.is_empty() => {
                    return Ok(Some(Self {
                        first_line: &input[..first_line],
                        fields: &input[fields..line_start],
                        length: line_end + 1,
                    }));
                }
                Some(_) => {}
            }
            line_start = line_end + 1;
        }
        if searched.len() == HEAD_LIMIT { Err(Malformed) } else { Ok(None) }
    }

    /// Value of the first field called `name` (compared without case), trimmed.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.split(|&b| b == b'\n').find_map(|line| {
            let (key, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            key.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }

    /// Whether the sender ends the connection after this message.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self.field("connection") {
            Some(value) if value.eq_ignore_ascii_case(b"close") => true,
            Some(value) if value.eq_ignore_ascii_case(b"keep-alive") => false,
            _ => contains(self.first_line, b"HTTP/1.0"),
        }
    }

    /// The body that follows a request's head (RFC 9112, section 6.3).
    ///
    /// # Errors
    /// [`Malformed`] when the length is no decimal number.
    pub fn request_body(&self) -> Result<Body, Malformed> {
        Ok(self.declared_body()?.unwrap_or(Body(State::Length(0))))
    }

    /// The body that follows a response's head to a request that was not `HEAD`.
    ///
    /// # Errors
    /// [`Malformed`] when the length is no decimal number.
    pub fn response_body(&self) -> Result<Body, Malformed> {
        let without_body = matches!(self.status()?, 100..=199 | 204 | 304);
        Ok(if without_body { Body(State::Length(0)) } else { self.declared_body()?.unwrap_or(Body(State::UntilClose)) })
    }

    /// Status code of a response's head.
    ///
    /// # Errors
    /// [`Malformed`] when the first line is no status line.
    pub fn status(&self) -> Result<u16, Malformed> {
        let code = self.first_line.split(|&b| b == b' ').nth(1);
        let code = code.and_then(decimal).ok_or(Malformed)?;
        u16::try_from(code).map_err(|_| Malformed)
    }

    fn declared_body(&self) -> Result<Option<Body>, Malformed> {
        let chunked = self.field("transfer-encoding");
        if chunked.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
            return Ok(Some(Body(State::ChunkSize(0))));
        }
        match self.field("content-length") {
            None => Ok(None),
            Some(length) => Ok(Some(Body(State::Length(decimal(length).ok_or(Malformed)?)))),
        }
    }
}

/// The body of one message, consumed piece by piece; remembers how far it has got.
#[derive(Debug, Clone, Copy)]
pub struct Body(State);

#[derive(Debug, Clone, Copy)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize(u64),
    ChunkExtension(u64),
    ChunkBytes(u64),
    ChunkEnd,
    TrailerStart,
    TrailerLine,
    TrailerEnd,
}

impl Body {
    /// Whether the message is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.0, State::Length(0))
    }

    /// Whether only the end of the connection completes the message.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Takes the bytes of `input` that belong to this body and returns how many these were.
    ///
    /// # Errors
    /// [`Malformed`] on a wrong chunk.
    pub fn consume(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < input.len() && !self.is_complete() {
            let rest = &input[used..];
            used += match &mut self.0 {
                State::Length(left) => skip(rest, left),
                State::UntilClose => rest.len(),
                State::ChunkBytes(left) => {
                    let skipped = skip(rest, left);
                    if *left == 0 {
                        self.0 = State::ChunkEnd;
                    }
                    skipped
                }
                _ => {
                    self.0 = self.0.after_framing_byte(rest[0])?;
                    1
                }
            };
        }
        Ok(used)
    }
}

impl State {
    fn after_framing_byte(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::ChunkSize(0) | Self::ChunkExtension(0), b'\n') => Self::TrailerStart,
            (Self::ChunkSize(size) | Self::ChunkExtension(size), b'\n') => Self::ChunkBytes(size),
            (Self::ChunkSize(size), b'\r' | b';' | b' ') => Self::ChunkExtension(size),
            (Self::ChunkSize(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                let shifted = size.checked_mul(16).ok_or(Malformed)?;
                Self::ChunkSize(shifted | u64::from(digit))
            }
            (Self::ChunkExtension(size), _) => Self::ChunkExtension(size),
            (Self::ChunkEnd, b'\r') => Self::ChunkEnd,
            (Self::ChunkEnd, b'\n') => Self::ChunkSize(0),
            (Self::TrailerStart, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::TrailerEnd, b'\n') => Self::Length(0),
            (Self::TrailerLine, b'\n') => Self::TrailerStart,
            (Self::TrailerStart | Self::TrailerLine, _) => Self::TrailerLine,
            _ => return Err(Malformed),
        })
    }
}

/// Parses a number of ASCII digits; `None` on anything else and on overflow.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn skip(input: &[u8], left: &mut u64) -> usize {
    let skipped = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= skipped as u64;
    skipped
}

fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_found_only_when_complete() {
        let text = b"GET /1k HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\n\r\nbody";
        for end in 0..text.len() - "body".len() {
            assert!(Head::parse(&text[..end]).unwrap().is_none(), "{end} bytes");
        }
        let head = Head::parse(text).unwrap().unwrap();
        assert_eq!(head.first_line, b"GET /1k HTTP/1.1");
        assert_eq!(head.field("x-y"), Some(&b"z"[..]));
        assert_eq!(head.field("x"), None);
        assert_eq!(&text[head.length..], b"body");
    }

    #[test]
    fn head_beyond_the_limit_is_malformed() {
        let mut text = b"GET / HTTP/1.1\r\nx: ".to_vec();
        text.resize(HEAD_LIMIT, b'x');
        assert!(Head::parse(&text).is_err());
    }

    #[test]
    fn body_length_counts_down_over_pieces() {
        let head = Head::parse(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n");
        let mut body = head.unwrap().unwrap().request_body().unwrap();
        assert_eq!(body.consume(b"abc"), Ok(3));
        assert!(!body.is_complete());
        assert_eq!(body.consume(b"deGET"), Ok(2));
        assert!(body.is_complete());
    }

    #[test]
    fn chunked_body_ends_at_the_same_byte_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = Head::parse(text).unwrap().unwrap();
        let chunks = b"a;name=value\r\n0123456789\r\n1\r\nx\r\n0\r\ntrailer: 1\r\n\r\nrest";
        for cut in 0..chunks.len() {
            let mut body = head.response_body().unwrap();
            let mut used = body.consume(&chunks[..cut]).unwrap();
            if used == cut {
                used += body.consume(&chunks[cut..]).unwrap();
            }
            assert!(body.is_complete(), "cut at {cut}");
            assert_eq!(&chunks[used..], b"rest", "cut at {cut}");
        }
    }

    #[test]
    fn wrong_chunk_is_malformed() {
        let head = Head::parse(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
        let head = head.unwrap().unwrap();
        for wrong in [&b"g\r\n"[..], b"1\r\nxy", b"11111111111111111\r\n", b"0\r\n\rx"] {
            let mut body = head.request_body().unwrap();
            assert_eq!(body.consume(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn response_without_length_lasts_until_the_connection_ends() {
        let ends = |text: &[u8]| {
            let head = Head::parse(text).unwrap().unwrap();
            head.response_body().unwrap().ends_with_connection()
        };
        assert!(ends(b"HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!ends(b"HTTP/1.1 204 No Content\r\n\r\n"));
        assert!(!ends(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    }

    #[test]
    fn connection_end_follows_version_and_field() {
        let closes = |text: &[u8]| Head::parse(text).unwrap().unwrap().closes();
        assert!(!closes(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(closes(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(closes(b"GET / HTTP/1.0\r\n\r\n"));
        assert!(!closes(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
    }
}
