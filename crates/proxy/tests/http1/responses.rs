//! Response heads: what an upstream may say, and what Envoy calls a protocol error.

use lateen_proxy::http::h1::{BodyLength, Limits, ProtocolError, ReadBuffer, ResponseFraming, parse_response};
use lateen_proxy::http::head::{Head, HeaderName, Known, Version};

use super::lines;

fn read_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    method: &[u8],
) -> Result<Option<(Head, ResponseFraming)>, ProtocolError> {
    let mut buffer = ReadBuffer::new();
    let mut head = Head::new();
    for piece in pieces {
        buffer.fill().extend_from_slice(piece);
        if let Some(framing) = parse_response(&mut buffer, &Limits::default(), method, &mut head)? {
            return Ok(Some((head, framing)));
        }
    }
    Ok(None)
}

fn accepted(bytes: &[u8], method: &[u8]) -> (Head, ResponseFraming) {
    match read_pieces([bytes], method) {
        Ok(Some(read)) => read,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

const REFUSED: &[&[u8]] = &[
    b"HTTP/1.1\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 \r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1  200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 000 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200\tOK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 O\x01K\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"http/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HELLO\r\n\r\n",
    b"garbage",
    b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\nx: y\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: a\r\n b\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: a\0b\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: a\rb\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx : a\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nxa\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\ncontent-length: 3\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\ntransfer-encoding: chunked\r\n\r\n",
];

#[test]
fn a_wrong_response_is_a_protocol_error_wherever_it_is_cut() {
    for bytes in REFUSED {
        let whole = read_pieces([*bytes], b"GET").map(|read| read.is_some());
        assert!(whole.is_err(), "{}: {whole:?}", bytes.escape_ascii());
        for cut in 1..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let cut = read_pieces([front, back], b"GET").map(|read| read.is_some());
            assert_eq!(cut, whole, "{} | {}", front.escape_ascii(), back.escape_ascii());
        }
    }
}

#[test]
fn a_head_request_does_not_excuse_two_lengths() {
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(read_pieces([&bytes[..]], b"HEAD").is_err());
}

#[test]
fn the_body_of_a_response_follows_from_method_status_and_length() {
    const LENGTH: &str = "content-length: 5";
    const CHUNKED: &str = "transfer-encoding: chunked";
    const NEITHER: &str = "x: y";
    for (method, status, line, body) in [
        ("GET", 200, LENGTH, BodyLength::Fixed(5)),
        ("GET", 200, CHUNKED, BodyLength::Chunked),
        ("GET", 200, "Transfer-Encoding: Chunked", BodyLength::Chunked),
        ("GET", 200, NEITHER, BodyLength::UntilClose),
        ("GET", 200, "content-length: 0", BodyLength::Empty),
        ("GET", 205, NEITHER, BodyLength::UntilClose),
        ("GET", 204, NEITHER, BodyLength::Empty),
        ("GET", 204, "content-length: 0", BodyLength::Empty),
        ("GET", 304, NEITHER, BodyLength::Empty),
        ("GET", 304, LENGTH, BodyLength::Empty),
        ("GET", 304, CHUNKED, BodyLength::Empty),
        ("GET", 100, NEITHER, BodyLength::Empty),
        ("GET", 101, NEITHER, BodyLength::UntilClose),
        ("HEAD", 200, LENGTH, BodyLength::Empty),
        ("HEAD", 200, CHUNKED, BodyLength::Empty),
        ("HEAD", 200, NEITHER, BodyLength::Empty),
        ("CONNECT", 200, NEITHER, BodyLength::UntilClose),
        ("CONNECT", 200, LENGTH, BodyLength::UntilClose),
        ("CONNECT", 403, LENGTH, BodyLength::Fixed(5)),
        ("GET", 999, LENGTH, BodyLength::Fixed(5)),
    ] {
        let bytes = format!("HTTP/1.1 {status} Reason\r\n{line}\r\n\r\n");
        let (head, framing) = accepted(bytes.as_bytes(), method.as_bytes());
        assert_eq!(framing.body, body, "{method} {status} {line}");
        assert_eq!(head.status(), status);
        let expected = status == 100;
        assert_eq!(framing.interim, expected, "{status}");
        assert_eq!(framing.keep_alive, body != BodyLength::UntilClose, "{method} {status} {line}");
    }
}

#[test]
fn interim_responses_are_told_apart_from_the_final_one() {
    let mut buffer = ReadBuffer::new();
    buffer.fill().extend_from_slice(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let mut head = Head::new();
    let mut seen = Vec::new();
    while let Some(framing) = parse_response(&mut buffer, &Limits::default(), b"GET", &mut head).unwrap() {
        seen.push((head.status(), framing.interim));
        if !framing.interim {
            break;
        }
    }
    assert_eq!(seen, [(100, true), (103, true), (200, false)]);
    assert_eq!(buffer.unread(), b"ok");
}

#[test]
fn whether_the_connection_serves_again_depends_on_version_and_connection() {
    for (version, line, keep_alive) in [
        ("HTTP/1.1", "x: y", true),
        ("HTTP/1.1", "connection: close", false),
        ("HTTP/1.1", "connection: x, Close", false),
        ("HTTP/1.1", "proxy-connection: close", false),
        ("HTTP/1.0", "x: y", false),
        ("HTTP/1.0", "connection: keep-alive", true),
    ] {
        let bytes = format!("{version} 200 OK\r\ncontent-length: 2\r\n{line}\r\n\r\nok");
        let (head, framing) = accepted(bytes.as_bytes(), b"GET");
        assert_eq!(framing.keep_alive, keep_alive, "{version} {line}");
        let http10 = version == "HTTP/1.0";
        assert_eq!(framing.version, if http10 { Version::Http10 } else { Version::Http11 });
        assert_eq!(head.version(), Version::Http11, "what is sent on is HTTP/1.1");
    }
    let chunked = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(!accepted(chunked, b"GET").1.keep_alive);
}

#[test]
fn a_missing_reason_is_fine() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 \u{e9}"] {
        let (head, _) = accepted(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes(), b"GET");
        assert_eq!(head.status(), 200, "{line}");
        assert_eq!(head.value(&HeaderName::parse(":status").unwrap()), Some(&b"200"[..]));
    }
}

#[test]
fn lines_are_joined_as_envoy_joins_them_in_responses() {
    let (head, _) = accepted(
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nSet-Cookie: a\r\nvary: x\r\nset-cookie: b\r\nVary: y\r\naccept: 1\r\naccept: 2\r\nhost: z\r\n\r\n",
        b"GET",
    );
    assert_eq!(
        lines(&head),
        ["content-length: 0", "set-cookie: a", "vary: x,y", "set-cookie: b", "accept: 1", "accept: 2", "host: z"]
    );
    assert_eq!(head.authority(), None, "a response has no host");
}

#[test]
fn the_connection_headers_of_an_upstream_are_removed() {
    let (mut head, _) = accepted(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-foo: a\r\nconnection: x-foo, close\r\nkeep-alive: a\r\nproxy-connection: close\r\nte: x\r\ntrailer: x\r\nupgrade: y\r\n\r\n",
        b"GET",
    );
    head.remove_response_connection_headers(false);
    assert_eq!(lines(&head), ["content-length: 2", "x-foo: a", "te: x", "trailer: x"]);

    let (mut head, _) =
        accepted(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nkeep-alive: a\r\nupgrade: y\r\n\r\n", b"GET");
    head.remove_response_connection_headers(true);
    assert_eq!(lines(&head), ["connection: upgrade", "upgrade: y"]);
    assert!(head.contains(Known::Upgrade));
}

#[test]
fn a_response_head_has_limits() {
    let limits = Limits::default();
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert!(read_pieces([many.as_bytes()], b"GET").is_err());
    let fitting = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert!(read_pieces([fitting.as_bytes()], b"GET").unwrap().is_some());
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(limits.max_head_bytes));
    assert!(read_pieces([large.as_bytes()], b"GET").is_err());
}
