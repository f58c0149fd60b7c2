//! How is a head written to the wire? Order and placement of lines are Envoy's.

use super::BodyLength;
use crate::http::head::{Head, Known, Version};

/// Writes a request head for an upstream: request line, `host`, the fields in their order, the framing header.
///
/// `content-length` keeps its place among the fields; when it is missing or contradicts `body` it is written last.
/// `transfer-encoding` is always written last, and only for [`BodyLength::Chunked`].
pub fn write_request_head(head: &Head, body: BodyLength, out: &mut Vec<u8>) {
    out.reserve(head.bytes.len() + 64);
    out.extend_from_slice(head.method());
    out.push(b' ');
    let target = match head.path() {
        b"" => head.authority().unwrap_or(b"/"),
        path => path,
    };
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = head.authority() {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(authority);
        out.extend_from_slice(b"\r\n");
    }
    let length = head.get(Known::ContentLength);
    let announced = length.and_then(super::parse_length);
    let (keep, framing) = match body {
        BodyLength::Chunked => (false, Framing::Chunked),
        BodyLength::UntilClose => (false, Framing::Nothing),
        BodyLength::Fixed(length) if announced == Some(length) => (true, Framing::Nothing),
        BodyLength::Fixed(length) => (false, Framing::Length(length)),
        BodyLength::Empty if announced == Some(0) => (true, Framing::Nothing),
        BodyLength::Empty if usually_has_body(head.method()) => (false, Framing::Length(0)),
        BodyLength::Empty => (false, Framing::Nothing),
    };
    let left_out = if keep { 0 } else { Known::ContentLength.bit() };
    write_fields(head, left_out | Known::TransferEncoding.bit(), out);
    framing.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response head for the client: status line in the head's version, the fields in their order, `connection`,
/// the framing header.
///
/// `body` says what to announce. A response to `HEAD` without `content-length` announces chunks as Envoy does, so the
/// caller passes [`BodyLength::Chunked`] and sends none. [`BodyLength::UntilClose`] announces nothing; the caller closes
/// the connection or has switched protocols.
pub fn write_response_head(head: &Head, body: BodyLength, close: bool, out: &mut Vec<u8>) {
    out.reserve(head.bytes.len() + 128);
    write_status_line(head, out);
    let length = head.get(Known::ContentLength);
    let announced = length.and_then(super::parse_length);
    let status = head.status();
    let bodiless = status < 200 || status == 204;
    let (keep, framing) = match body {
        _ if bodiless => (false, Framing::Nothing),
        BodyLength::Chunked => (false, Framing::Chunked),
        BodyLength::UntilClose => (false, Framing::Nothing),
        BodyLength::Fixed(length) if announced == Some(length) => (true, Framing::Nothing),
        BodyLength::Fixed(length) => (false, Framing::Length(length)),
        // The length that an answer to HEAD or a 304 announces is that of the body which is not sent.
        BodyLength::Empty if announced.is_some() || status == 304 => (true, Framing::Nothing),
        BodyLength::Empty => (false, Framing::Length(0)),
    };
    let left_out = if keep { 0 } else { Known::ContentLength.bit() };
    write_fields(head, left_out | Known::TransferEncoding.bit(), out);
    if status != 101 {
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if head.version() == Version::Http10 && status >= 200 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    framing.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes one chunk (RFC 9112 section 7.1); nothing for empty data, which would end the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 20);
    write_hex(data.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a chunked body, without trailers.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Envoy's reason phrase of a status.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        599 => "Last Unassigned Server Error Code",
        _ => "Unknown",
    }
}

enum Framing {
    Nothing,
    Length(u64),
    Chunked,
}

impl Framing {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Self::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                write_decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// The methods for which a request without a body says so. RFC 9110 section 8.6 asks for it where the method gives a
/// body a meaning; Envoy does it for all but these.
fn usually_has_body(method: &[u8]) -> bool {
    !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"CONNECT" | b"TRACE")
}

fn write_status_line(head: &Head, out: &mut Vec<u8>) {
    let status = head.status();
    if status == 200 && head.version() != Version::Http10 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if head.version() == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    write_decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields except the known ones in `left_out`; lines that lie one behind the other as they are to be sent
/// are written at once.
fn write_fields(head: &Head, left_out: u128, out: &mut Vec<u8>) {
    let bytes = &head.bytes[..];
    let mut run = 0..0;
    for field in &head.fields {
        if field.known.is_some_and(|known| known.bit() & left_out != 0) {
            continue;
        }
        let start = field.name_start as usize;
        let end = field.value_start as usize + field.value_length as usize + 2;
        if field.canonical && start == run.end {
            run.end = end;
            continue;
        }
        out.extend_from_slice(&bytes[run]);
        if field.canonical {
            run = start..end;
        } else {
            run = 0..0;
            out.extend_from_slice(field.name(bytes));
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value(bytes));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(&bytes[run]);
}

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

fn write_hex(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 16];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}
