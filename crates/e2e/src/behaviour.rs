//! How should a backend answer this request? The request's query string says so.
//!
//! ```text
//! status=418            this status code                     delay=300ms      wait before the head
//! header=Name:Value     one more header line (repeatable)    pause=300ms      wait between head and body
//! size=5000             a body of that many pattern bytes    interim=103      an interim response first (repeatable)
//! chunks=3x1000         chunked body, three of 1000 bytes    trailer=Name:Value  after a chunked body
//! until-close           no length: the body ends with the connection
//! length=12             `content-length: 12` and no body (for HEAD and 304)
//! empty                 `content-length: 0`                  bare             no body and no length header at all
//! close                 `connection: close`, then close      old              the status line says HTTP/1.0
//! early                 answer before the request's body was read
//! echo                  the JSON body carries every byte that was received
//! upgrade=name          101 with that protocol; then every byte comes back, and a full stop is the end
//! fail=close|reset|garbage|head|body|chunk|chunk-size       break off in that way
//! ```
//!
//! Keys that are not listed belong to the page and are ignored. Values are percent-decoded.

use std::time::Duration;

/// One answer of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Status code; 0 stands for 200.
    pub status: u16,
    /// Wait before the head.
    pub delay: Duration,
    /// Wait between head and body.
    pub pause: Duration,
    /// Interim responses to send first.
    pub interim: Vec<u16>,
    /// Header lines to add, in order.
    pub headers: Vec<(String, String)>,
    /// What the body is.
    pub content: Content,
    /// Trailer lines after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Say `connection: close` and close.
    pub close: bool,
    /// Answer as HTTP/1.0.
    pub old: bool,
    /// Answer before the request's body was read.
    pub early: bool,
    /// The protocol to which it changes.
    pub upgrade: Option<String>,
    /// How to break off instead of, or in the middle of, answering.
    pub fail: Option<Failure>,
}

/// The body of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// JSON that names the backend and the request line.
    #[default]
    Name,
    /// JSON that also holds the received head and body.
    Echo,
    /// That many pattern bytes with a length.
    Size(usize),
    /// Chunked: so many chunks of that many bytes.
    Chunks(usize, usize),
    /// The named JSON, ended by the connection's end.
    UntilClose,
    /// A length header and no body.
    Length(u64),
    /// Neither length nor body.
    Bare,
}

/// Where an answer breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Close without a byte.
    Close,
    /// TCP reset without a byte.
    Reset,
    /// Bytes that are not HTTP, then close.
    Garbage,
    /// Close within the head.
    Head,
    /// Close within a body that has a length.
    Body,
    /// Close within a chunk.
    Chunk,
    /// A chunk size that is no number, then close.
    ChunkSize,
}

/// Reads the behaviour from a request target. Unknown keys are ignored; a known key with a value that makes no sense is
/// an error, which the backend answers with 500 so that the page's row fails visibly.
pub fn parse(target: &str) -> Result<Behaviour, String> {
    let mut behaviour = Behaviour::default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&') {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(raw);
        let wrong = || format!("behaviour `{key}` does not take `{value}`");
        match key {
            "status" => behaviour.status = value.parse().map_err(|_| wrong())?,
            "delay" => behaviour.delay = parse_duration(&value).ok_or_else(wrong)?,
            "pause" => behaviour.pause = parse_duration(&value).ok_or_else(wrong)?,
            "interim" => behaviour.interim.push(value.parse().map_err(|_| wrong())?),
            "header" => behaviour.headers.push(parse_field(&value).ok_or_else(wrong)?),
            "trailer" => behaviour.trailers.push(parse_field(&value).ok_or_else(wrong)?),
            "size" => behaviour.content = Content::Size(value.parse().map_err(|_| wrong())?),
            "chunks" => {
                let (count, size) = value.split_once('x').ok_or_else(wrong)?;
                let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
                behaviour.content = Content::Chunks(number(count)?, number(size)?);
            }
            "length" => behaviour.content = Content::Length(value.parse().map_err(|_| wrong())?),
            "until-close" => behaviour.content = Content::UntilClose,
            "empty" => behaviour.content = Content::Length(0),
            "bare" => behaviour.content = Content::Bare,
            "echo" => behaviour.content = Content::Echo,
            "close" => behaviour.close = true,
            "old" => behaviour.old = true,
            "early" => behaviour.early = true,
            "upgrade" => behaviour.upgrade = Some(value),
            "fail" => behaviour.fail = Some(parse_failure(&value).ok_or_else(wrong)?),
            _ => {}
        }
    }
    Ok(behaviour)
}

/// A duration such as `300ms` or `1.5s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn parse_failure(value: &str) -> Option<Failure> {
    Some(match value {
        "close" => Failure::Close,
        "reset" => Failure::Reset,
        "garbage" => Failure::Garbage,
        "head" => Failure::Head,
        "body" => Failure::Body,
        "chunk" => Failure::Chunk,
        "chunk-size" => Failure::ChunkSize,
        _ => return None,
    })
}

fn parse_field(value: &str) -> Option<(String, String)> {
    value.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    crate::wire::latin1(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_page_are_left_alone_and_known_keys_are_read() {
        let behaviour = parse("/x?user=7&status=418&header=X-A:b%20c&chunks=2x10&fail=chunk&delay=1.5s").unwrap();
        assert_eq!(behaviour.status, 418);
        assert_eq!(behaviour.headers, [("X-A".to_owned(), "b c".to_owned())]);
        assert_eq!(behaviour.content, Content::Chunks(2, 10));
        assert_eq!(behaviour.fail, Some(Failure::Chunk));
        assert_eq!(behaviour.delay, Duration::from_millis(1500));
        assert_eq!(parse("/plain"), Ok(Behaviour::default()));
    }

    #[test]
    fn a_senseless_value_is_named() {
        assert!(parse("/?status=many").unwrap_err().contains("`many`"));
        assert!(parse("/?fail=sometimes").is_err());
    }
}
