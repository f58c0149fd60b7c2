//! How are HTTP/1.1 messages read off a socket without judging them?
//!
//! Both ends of the harness use this reader: the client for responses, the backends for requests. It keeps the exact
//! bytes of a head, splits it into lines, and follows the framing that the head announces. It is lenient on purpose: it
//! must be able to show whatever a proxy really sent. Text is Latin-1, one `char` for each byte, so nothing is lost.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest message that the harness takes, in bytes; more is an error instead of memory growth.
const MESSAGE_LIMIT: usize = 64 << 20;

/// The first line and the header lines of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line, without its line end.
    pub start: String,
    /// Header lines in order: name as sent, value without surrounding blanks.
    pub fields: Vec<(String, String)>,
    /// All bytes including the empty line.
    pub raw: Vec<u8>,
}

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `content-length`, in bytes.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The connection's end (responses only).
    UntilClose,
}

/// A body as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Content without chunk framing.
    pub bytes: Vec<u8>,
    /// Trailer lines after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// Why the body ended early, if it did.
    pub cut: Option<String>,
}

/// A buffered reader that remembers every byte it took from the socket.
#[derive(Debug)]
pub struct WireReader<R> {
    stream: R,
    buffer: Vec<u8>,
    raw: Vec<u8>,
    ended: Option<String>,
}

impl<R: AsyncRead + Unpin> WireReader<R> {
    /// A reader with an empty buffer.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), raw: Vec::new(), ended: None }
    }

    /// Every byte received so far.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Bytes received but not yet part of a message.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// The socket.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// How the connection ended (`closed`, `reset`), if the end was seen.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Waits until at least one unread byte is there; false when the connection ended first.
    pub async fn wait_for_byte(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill().await
    }

    /// Waits until the connection ends; true once it has.
    pub async fn wait_for_end(&mut self) -> bool {
        while self.fill().await {}
        true
    }

    /// Reads up to and including the empty line. `Ok(None)`: the connection ended before the first byte.
    /// An error holds what was received of an unfinished head.
    pub async fn read_head(&mut self) -> Result<Option<Head>, Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(Some(parse_head(raw)));
            }
            if !self.fill().await {
                return if self.buffer.is_empty() { Ok(None) } else { Err(std::mem::take(&mut self.buffer)) };
            }
        }
    }

    /// Takes bytes without framing until there are this many, or the connection ends.
    pub async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.fill().await {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Reads a body with this framing to its end, or to the connection's end.
    pub async fn read_body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::None => Body::default(),
            Framing::Length(length) => self.read_length(length).await,
            Framing::Chunked => self.read_chunks().await,
            Framing::UntilClose => {
                self.wait_for_end().await;
                Body { bytes: std::mem::take(&mut self.buffer), ..Body::default() }
            }
        }
    }

    async fn read_length(&mut self, length: u64) -> Body {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut body = Body::default();
        while self.buffer.len() < length {
            if !self.fill().await {
                body.cut = Some(format!("{} of {length} bytes, then {}", self.buffer.len(), self.end_word()));
                break;
            }
        }
        let taken = length.min(self.buffer.len());
        body.bytes = self.buffer.drain(..taken).collect();
        body
    }

    async fn read_chunks(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            let Some(line) = self.read_line().await else {
                body.cut = Some(format!("{} bytes of chunks, then {}", body.bytes.len(), self.end_word()));
                return body;
            };
            let digits = line.split(';').next().unwrap_or("").trim().to_owned();
            let Ok(size) = usize::from_str_radix(&digits, 16) else {
                body.cut = Some(format!("chunk size line `{}`", line.escape_debug()));
                return body;
            };
            if size == 0 {
                break;
            }
            while self.buffer.len() < size.saturating_add(2) {
                if !self.fill().await {
                    body.bytes.append(&mut self.buffer);
                    body.cut = Some(format!("inside a chunk, then {}", self.end_word()));
                    return body;
                }
            }
            body.bytes.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        loop {
            match self.read_line().await {
                None => {
                    body.cut = Some(format!("inside the trailers, then {}", self.end_word()));
                    return body;
                }
                Some(line) if line.is_empty() => return body,
                Some(line) => body.trailers.push(split_field(&line)),
            }
        }
    }

    async fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(latin1(&line[..end]));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Takes what the socket has; false at the connection's end.
    async fn fill(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if self.raw.len() > MESSAGE_LIMIT {
            self.ended = Some("more bytes than the harness takes".to_owned());
            return false;
        }
        let before = self.buffer.len();
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => {
                self.ended = Some("closed".to_owned());
                false
            }
            Ok(_) => {
                self.raw.extend_from_slice(&self.buffer[before..]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.ended = Some("reset".to_owned());
                false
            }
            Err(error) => {
                self.ended = Some(error.to_string());
                false
            }
        }
    }

    fn end_word(&self) -> &str {
        self.ended.as_deref().unwrap_or("open")
    }
}

impl Head {
    /// The values of all lines with this name (any case), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The framing of a request with this head (RFC 9112 section 6.3, requests).
    pub fn request_framing(&self) -> Framing {
        if self.is_chunked() {
            return Framing::Chunked;
        }
        self.length().map_or(Framing::None, Framing::Length)
    }

    /// The framing of a response with this head to a request with this method (RFC 9112 section 6.3, responses).
    pub fn response_framing(&self, method: &str) -> Framing {
        let status = self.status().unwrap_or(0);
        if method == "HEAD" || status == 204 || status == 304 || (100..200).contains(&status) {
            return Framing::None;
        }
        if self.is_chunked() {
            return Framing::Chunked;
        }
        self.length().map_or(Framing::UntilClose, Framing::Length)
    }

    /// The status code of a status line.
    pub fn status(&self) -> Option<u16> {
        self.start.split(' ').nth(1)?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.values("transfer-encoding").any(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.values("content-length").next().and_then(|value| value.parse().ok())
    }
}

/// Bytes as text, one `char` for each byte.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// `length` bytes of a repeating alphabet: the content of generated bodies on both ends.
pub fn pattern(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

fn parse_head(raw: Vec<u8>) -> Head {
    let text = latin1(&raw);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or("").to_owned();
    let fields = lines.filter(|line| !line.is_empty()).map(split_field).collect();
    Head { start, fields, raw }
}

fn split_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], framing: Framing) -> Body {
        WireReader::new(bytes).read_body(framing).await
    }

    #[tokio::test]
    async fn a_head_keeps_order_case_and_duplicates() {
        let bytes: &[u8] = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:2\r\nempty:\r\n\r\nrest";
        let mut reader = WireReader::new(bytes);
        let head = reader.read_head().await.unwrap().unwrap();
        assert_eq!(head.start, "HTTP/1.1 200 OK");
        assert_eq!(head.status(), Some(200));
        assert_eq!(head.values("X-a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.fields[2], ("empty".to_owned(), String::new()));
        assert_eq!(reader.unread(), b"rest");
    }

    #[tokio::test]
    async fn chunks_are_joined_and_trailers_kept() {
        let body = read(b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nx-t: 1\r\n\r\n", Framing::Chunked).await;
        assert_eq!(body.bytes, b"abcd");
        assert_eq!(body.trailers, [("x-t".to_owned(), "1".to_owned())]);
        assert_eq!(body.cut, None);
    }

    #[tokio::test]
    async fn an_early_end_is_told_apart_from_a_complete_body() {
        assert_eq!(read(b"abc", Framing::Length(3)).await.cut, None);
        assert!(read(b"abc", Framing::Length(4)).await.cut.unwrap().contains("3 of 4"));
        assert!(read(b"5\r\nab", Framing::Chunked).await.cut.is_some());
        assert!(read(b"zz\r\n", Framing::Chunked).await.cut.unwrap().contains("zz"));
    }

    #[tokio::test]
    async fn framing_follows_method_and_status() {
        let head = |text: &str| parse_head(text.as_bytes().to_vec());
        let response = head("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n");
        assert_eq!(response.response_framing("GET"), Framing::Length(4));
        assert_eq!(response.response_framing("HEAD"), Framing::None);
        assert_eq!(head("HTTP/1.1 304 x\r\ncontent-length: 4\r\n\r\n").response_framing("GET"), Framing::None);
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").response_framing("GET"), Framing::UntilClose);
        assert_eq!(head("GET / HTTP/1.1\r\n\r\n").request_framing(), Framing::None);
    }
}
