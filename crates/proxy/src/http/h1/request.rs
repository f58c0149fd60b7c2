//! What does a client ask for? Request heads (RFC 9112 sections 3 and 6) with the checks and answers of Envoy.

use httparse::{ParserConfig, Status};

use super::buffer::ReadBuffer;
use super::fields::{adopt_bytes, collect_lines, span_in, with_room};
use super::lines::{check_characters, check_lines};
use super::{BodyLength, Limits, Refusal};
use crate::http::head::{Head, JOINED_IN_REQUESTS, Known, Span, Version, is_token, tokens};

/// What a request head says about the bytes that follow it and about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// The body that follows.
    pub body: BodyLength,
    /// The client will use the connection for another request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// `upgrade` is there and `connection` confirms it; an upgrade to `h2c` has been dropped and does not count.
    pub upgrade: bool,
    /// The scheme of a target in absolute form: `http` or `https`.
    pub absolute_form: Option<&'static str>,
}

/// Takes a complete request head from the front of the buffer.
///
/// `None` means that more bytes are needed. On success the head owns the memory in which it was received, and the buffer
/// keeps what follows it: the body, or further requests.
///
/// # Errors
/// The answer to a head that is wrong, ambiguous or too large; the connection must close after it.
pub fn parse_request(
    buffer: &mut ReadBuffer,
    limits: &Limits,
    head: &mut Head,
) -> Result<Option<RequestFraming>, Refusal> {
    skip_empty_lines(buffer)?;
    let Some(&first) = buffer.unread().first() else {
        return Ok(None);
    };
    if first == b'\r' {
        // The beginning of an empty line.
        return Ok(None);
    }
    if !is_token(first) {
        return Err(Refusal::CODEC_ERROR);
    }
    let mut complete = !buffer.progress.tried;
    loop {
        if complete && let Some(size) = tokenise(buffer.unread(), limits, head) {
            let repeated = adopt_bytes(buffer, size, head, true);
            return check_head(head, repeated, limits).map(Some);
        }
        if complete && buffer.progress.tried {
            // Every line passed the check and the tokeniser still refuses.
            return Err(Refusal::CODEC_ERROR);
        }
        buffer.progress.tried = true;
        complete = check_lines(buffer, limits, check_request_line)?;
        if !complete {
            return Ok(None);
        }
    }
}

/// Empty lines before a request are ignored (RFC 9112 section 2.2), whole ones only.
fn skip_empty_lines(buffer: &mut ReadBuffer) -> Result<(), Refusal> {
    while let [b'\r' | b'\n', rest @ ..] = buffer.unread() {
        match (buffer.unread()[0], rest.first()) {
            (b'\r', Some(b'\n')) => buffer.consume(2),
            (b'\r', None) => return Ok(()),
            _ => return Err(Refusal::CODEC_ERROR),
        }
    }
    Ok(())
}

/// Splits a complete head into method, target and lines; `None` when it is incomplete or the tokeniser refuses it.
fn tokenise(bytes: &[u8], limits: &Limits, head: &mut Head) -> Option<usize> {
    head.clear();
    let window = &bytes[..bytes.len().min(limits.max_head_bytes)];
    with_room(window, limits.max_headers, |window, room| {
        let mut request = httparse::Request::new(&mut []);
        let mut config = ParserConfig::default();
        config.allow_multiple_spaces_in_request_line_delimiters(true);
        let Ok(Status::Complete(size)) = config.parse_request_with_uninit_headers(&mut request, window, room) else {
            return None;
        };
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return None;
        };
        head.method = span_in(window, method.as_bytes());
        head.path = span_in(window, target.as_bytes());
        head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let strict = collect_lines(window, size, request.headers, &mut head.fields);
        strict.then_some(size)
    })
}

fn check_head(head: &mut Head, repeated: u128, limits: &Limits) -> Result<RequestFraming, Refusal> {
    if repeated & Known::ContentLength.bit() != 0 {
        return Err(Refusal::CODEC_ERROR);
    }
    if repeated & JOINED_IN_REQUESTS != 0 {
        head.join_lines(repeated & JOINED_IN_REQUESTS);
    }
    let connect = check_method(head.method())?;
    let absolute_form = take_target(head, connect, limits)?;
    if head.authority().is_some_and(|authority| !authority.iter().all(|byte| is_authority(*byte))) {
        return Err(Refusal::INVALID_AUTHORITY);
    }
    let body = body_length(head, connect)?;
    let connection = take_connection(head)?;
    if head.version == Version::Http10 && !limits.accept_http_10 {
        return Err(Refusal::LOW_VERSION);
    }
    let http11 = head.version == Version::Http11;
    Ok(RequestFraming {
        body,
        keep_alive: if http11 { !connection.close } else { connection.keep_alive && body != BodyLength::Chunked },
        expect_continue: http11
            && head.get(Known::Expect).is_some_and(|expect| expect.eq_ignore_ascii_case(b"100-continue")),
        upgrade: connection.upgrade,
        absolute_form,
    })
}

/// The methods that Envoy knows; tells whether it is `CONNECT`.
fn check_method(method: &[u8]) -> Result<bool, Refusal> {
    match method {
        b"GET" | b"POST" | b"PUT" | b"DELETE" | b"HEAD" | b"OPTIONS" | b"PATCH" => Ok(false),
        b"CONNECT" => Ok(true),
        b"ACL" | b"BIND" | b"CHECKOUT" | b"COPY" | b"LINK" | b"LOCK" | b"MERGE" | b"MKACTIVITY" | b"MKCALENDAR"
        | b"MKCOL" | b"MOVE" | b"MSEARCH" | b"NOTIFY" | b"PROPFIND" | b"PROPPATCH" | b"PURGE" | b"QUERY"
        | b"REBIND" | b"REPORT" | b"SEARCH" | b"SOURCE" | b"SUBSCRIBE" | b"TRACE" | b"UNBIND" | b"UNLINK"
        | b"UNLOCK" | b"UNSUBSCRIBE" => Ok(false),
        _ => Err(Refusal::CODEC_ERROR),
    }
}

/// Reads the request target (RFC 9112 section 3.2): authority and path. Returns the scheme of an absolute form.
fn take_target(head: &mut Head, connect: bool, limits: &Limits) -> Result<Option<&'static str>, Refusal> {
    let target = head.path();
    if !target.is_ascii() {
        return Err(Refusal::CODEC_ERROR);
    }
    if connect {
        let (_, port) = split_authority(target).ok_or(Refusal::INVALID_URL)?;
        if port.is_none() {
            return Err(Refusal::INVALID_URL);
        }
        head.authority = Some(head.path);
        head.path = Span::default();
        return Ok(None);
    }
    match target {
        [b'/', ..] => Ok(None),
        b"*" if head.method() == b"OPTIONS" => Ok(None),
        [b'*', ..] => Err(Refusal::INVALID_URL),
        _ => take_absolute_form(head, limits),
    }
}

fn take_absolute_form(head: &mut Head, limits: &Limits) -> Result<Option<&'static str>, Refusal> {
    let target = head.path();
    let Some(scheme_length) = target.windows(3).position(|window| window == b"://") else {
        return Err(Refusal::CODEC_ERROR);
    };
    let scheme = &target[..scheme_length];
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !scheme.iter().all(is_scheme) {
        return Err(Refusal::CODEC_ERROR);
    }
    let rest = &target[scheme_length + 3..];
    let authority_length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..authority_length];
    if !authority.iter().all(|byte| is_authority(*byte)) || authority.windows(2).any(|window| window == b"@@") {
        return Err(Refusal::CODEC_ERROR);
    }
    if !limits.allow_absolute_url {
        return Ok(None);
    }
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case(b"http") => "http",
        _ if scheme.eq_ignore_ascii_case(b"https") => "https",
        _ => return Err(Refusal::INVALID_SCHEME),
    };
    // User information does not travel on.
    let user_length = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let host = &authority[user_length..];
    split_authority(host).ok_or(Refusal::INVALID_URL)?;
    let authority_start = head.path.start as usize + scheme_length + 3;
    let path_length = rest.len() - authority_length;
    head.authority = Some(Span::new(authority_start + user_length, host.len()));
    if path_length == 0 {
        head.set_path(b"/");
    } else {
        head.path = Span::new(authority_start + authority_length, path_length);
    }
    Ok(Some(scheme))
}

/// Host and port of `host`, `host:port`, `[ipv6]` or `[ipv6]:port` (RFC 3986 section 3.2).
fn split_authority(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    if !authority.iter().all(|byte| is_authority(*byte)) {
        return None;
    }
    let host_length = match authority {
        [b'[', ..] => authority.iter().position(|byte| *byte == b']')? + 1,
        _ => authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_length);
    if host.is_empty() || host == b"[]" {
        return None;
    }
    match port {
        [] => Some((host, None)),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some((host, Some(str::from_utf8(digits).ok()?.parse().ok()?)))
        }
        _ => None,
    }
}

/// Whether a byte is a character of an authority (RFC 3986 section 3.2).
#[inline]
fn is_authority(byte: u8) -> bool {
    AUTHORITY[usize::from(byte)]
}

static AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!$%&'()*+,-.:;=@[]_~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

/// The length of the body (RFC 9112 section 6.3), from one source only.
fn body_length(head: &Head, connect: bool) -> Result<BodyLength, Refusal> {
    let coding = head.get(Known::TransferEncoding);
    let Some(length) = head.get(Known::ContentLength) else {
        return match coding {
            None => Ok(BodyLength::Empty),
            Some(coding) if !connect && coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyLength::Chunked),
            Some(_) => Err(Refusal::TRANSFER_ENCODING),
        };
    };
    if coding.is_some() {
        return Err(Refusal::LENGTH_AND_CHUNKED);
    }
    match super::parse_length(length).ok_or(Refusal::CODEC_ERROR)? {
        0 => Ok(BodyLength::Empty),
        _ if connect => Err(Refusal::BODY_DISALLOWED),
        length => Ok(BodyLength::Fixed(length)),
    }
}

#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// Reads `connection` with Envoy's limits for the headers that it may name, and drops an upgrade to `h2c`.
fn take_connection(head: &mut Head) -> Result<Connection, Refusal> {
    const NAMES: u128 = Known::Connection.bit() | Known::ProxyConnection.bit() | Known::Upgrade.bit();
    /// Envoy refuses ten names.
    const MOST_NAMES: usize = 9;
    let mut connection = Connection::default();
    if head.present & NAMES == 0 {
        return Ok(connection);
    }
    let mut count = 0;
    let mut forbidden = false;
    for token in head.get(Known::Connection).into_iter().flat_map(tokens) {
        count += 1;
        match token {
            _ if token.eq_ignore_ascii_case(b"close") => connection.close = true,
            _ if token.eq_ignore_ascii_case(b"keep-alive") => connection.keep_alive = true,
            _ if token.eq_ignore_ascii_case(b"upgrade") => connection.upgrade = true,
            _ => forbidden |= must_not_be_named(token),
        }
    }
    if head.get(Known::ProxyConnection).is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
        connection.close = true;
    }
    connection.upgrade &= head.version == Version::Http11 && head.contains(Known::Upgrade);
    if connection.upgrade && head.get(Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"h2c")) {
        connection.upgrade = false;
        head.remove_known(Known::Upgrade);
        head.remove_known(Known::Http2Settings);
    }
    if forbidden || count > MOST_NAMES {
        return Err(Refusal::CONNECTION_HEADER);
    }
    Ok(connection)
}

/// Removing these headers would hide where a request comes from or for whom it is.
fn must_not_be_named(token: &[u8]) -> bool {
    token.starts_with(b":")
        || ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
            .iter()
            .any(|name| token.eq_ignore_ascii_case(name.as_bytes()))
}

/// What the tokeniser refuses in a request line, or what it would refuse once it sees its end.
fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    check_characters(line)?;
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(Refusal::CODEC_ERROR);
    };
    check_method(method)?;
    match (words.next(), words.next()) {
        // HTTP/0.9 had neither a version nor headers.
        (None, None) if target.starts_with(b"/") => Err(Refusal::LOW_VERSION),
        (Some(b"HTTP/1.0" | b"HTTP/1.1"), None) if !line.ends_with(b" ") => Ok(()),
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() && !line.ends_with(b" ") =>
        {
            Err(Refusal::LOW_VERSION)
        }
        _ => Err(Refusal::CODEC_ERROR),
    }
}
