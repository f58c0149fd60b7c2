//! Request heads: the corpus of wrong ones with Envoy's answers, and the meaning of right ones.

use lateen_proxy::http::h1::{BodyLength, Limits, ReadBuffer, parse_request};
use lateen_proxy::http::head::{Head, HeaderName, Known, Version};

use super::{Outcome, accepted, lines, read, read_pieces};

const CODEC: (u16, &str) = (400, "http1.codec_error");
const CHARACTERS: (u16, &str) = (400, "http1.invalid_characters");
const LENGTHS: (u16, &str) = (400, "http1.content_length_and_chunked_not_allowed");
const CODING: (u16, &str) = (501, "http1.invalid_transfer_encoding");
const URL: (u16, &str) = (400, "http1.invalid_url");
const AUTHORITY: (u16, &str) = (400, "http.invalid_authority");
const CONNECTION: (u16, &str) = (400, "http1.connection_header_rejected");
const VERSION: (u16, &str) = (426, "low_version");

/// Bytes, and the status and details with which they are refused.
const REFUSED: &[(&[u8], (u16, &str))] = &[
    // The request line.
    (b"GET / HTTP/1.1x\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.11\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / http/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTQ/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n", CODEC),
    (b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET /a\tb HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET /a\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET  HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET\r\n\r\n", CODEC),
    (b" GET / HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"FOO / HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"get / HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CODEC),
    (b"GET /a\0b HTTP/1.1\r\nhost: a\r\n\r\n", CHARACTERS),
    (b"GET /a\x01b HTTP/1.1\r\nhost: a\r\n\r\n", CHARACTERS),
    (b"GET /a\x7fb HTTP/1.1\r\nhost: a\r\n\r\n", CHARACTERS),
    (b"GET / HTTP/1.1\0\r\nhost: a\r\n\r\n", CHARACTERS),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", CODEC),
    // The version.
    (b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", VERSION),
    (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", VERSION),
    (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", VERSION),
    (b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", VERSION),
    (b"GET /\r\n", VERSION),
    (b"GET / HTTP/1.0\r\na b: c\r\n\r\n", CODEC),
    (b"GET / HTTP/1.0\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", LENGTHS),
    // The target.
    (b"GET foo HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET ?a HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET b.com:80 HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"OPTIONS *a HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"GET http://b.com:99999/ HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"GET http://b.com:a/ HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"GET http://b.com: HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"GET http://u@@b.com/ HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET http://b.com#a HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET ftp://b.com/ HTTP/1.1\r\nhost: a\r\n\r\n", (400, "http1.invalid_scheme")),
    (b"CONNECT b.com HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"CONNECT /a HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"CONNECT http://b.com/ HTTP/1.1\r\nhost: a\r\n\r\n", URL),
    (b"CONNECT b.com:80 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", CODING),
    (b"CONNECT b.com:80 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", (400, "http1.body_disallowed")),
    // The host.
    (b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", AUTHORITY),
    (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", AUTHORITY),
    (b"GET / HTTP/1.1\r\nhost: a?b\r\n\r\n", AUTHORITY),
    (b"GET / HTTP/1.1\r\nhost: a\xff\r\n\r\n", AUTHORITY),
    // Line ends and folding.
    (b"GET / HTTP/1.1\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\nb: c\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\n\n", CODEC),
    (b"GET / HTTP/1.1\nhost: a\n\n", CODEC),
    (b"GET / HTTP/1.1\n\n", CODEC),
    (b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"\r\rGET / HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\rd\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb\r: c\r\n\r\n", CODEC),
    (b"GET /a\rb HTTP/1.1\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n d\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n\td\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\n b: c\r\nhost: a\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n \r\n\r\n", CODEC),
    // Names and values.
    (b"GET / HTTP/1.1\r\nhost: a\r\nb : c\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb\t: c\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb c: d\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\n:path: /b\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb\xff: c\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb(c): d\r\n\r\n", CODEC),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\0d\r\n\r\n", CHARACTERS),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb\0: c\r\n\r\n", CHARACTERS),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\x01d\r\n\r\n", CHARACTERS),
    (b"GET / HTTP/1.1\r\nhost: a\r\nb: c\x7fd\r\n\r\n", CHARACTERS),
    // The length of the body.
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", LENGTHS),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n", LENGTHS),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: gzip\r\n\r\nabc", LENGTHS),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nContent-Length: 3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3 3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nabc", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n", CODEC),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", CODING),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n", CHARACTERS),
    // What `connection` must not name.
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: X-Forwarded-For\r\n\r\n", CONNECTION),
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close, x-forwarded-proto\r\n\r\n", CONNECTION),
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-host\r\n\r\n", CONNECTION),
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: :path\r\n\r\n", CONNECTION),
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n", CONNECTION),
    (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: a,b,c,d,e,f,g,h,i,j\r\n\r\n", CONNECTION),
];

#[test]
fn a_wrong_head_gets_the_status_and_details_of_envoy() {
    for (bytes, (status, details)) in REFUSED {
        match read(bytes) {
            Outcome::Refused(refusal) => {
                assert_eq!((refusal.status, refusal.details), (*status, *details), "{}", bytes.escape_ascii())
            }
            other => panic!("{}: {other:?}", bytes.escape_ascii()),
        }
    }
}

#[test]
fn a_refusal_has_the_body_that_belongs_to_its_status() {
    for (bytes, _) in REFUSED {
        let Outcome::Refused(refusal) = read(bytes) else { panic!("{}", bytes.escape_ascii()) };
        let body = match refusal.status {
            400 => "Bad Request",
            426 => "Upgrade Required",
            501 => "Not Implemented",
            other => panic!("status {other}"),
        };
        assert_eq!(refusal.body, body);
    }
}

#[test]
fn a_wrong_head_is_refused_alike_wherever_it_is_cut() {
    for (bytes, _) in REFUSED {
        let whole = read(bytes);
        for cut in 1..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(
                read_pieces([front, back], &Limits::default()),
                whole,
                "{} | {}",
                front.escape_ascii(),
                back.escape_ascii()
            );
        }
        assert_eq!(read_pieces(bytes.chunks(1), &Limits::default()), whole, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_wrong_line_is_refused_before_the_head_is_complete() {
    for bytes in [&b"GET / HTTP/1.1\r\nhost: a\r\nb c: d\r\n"[..], b"GET nothing HTTP/1.1\r\nhost: a\r\n\r\n"] {
        assert!(matches!(read(bytes), Outcome::Refused(_)), "{}", bytes.escape_ascii());
    }
    let pieces = [&b"GET / HTTP/1.1\r\nhost: a"[..], b"\r\nb c", b": d\r\n"];
    assert!(matches!(read_pieces(pieces, &Limits::default()), Outcome::Refused(_)));
}

#[test]
fn the_parts_of_a_request_are_found() {
    let (head, framing) = accepted(
        b"GET /shop?page=2 HTTP/1.1\r\nHost: A.com\r\nUser-Agent:curl\r\nX-Foo:  Bar \t\r\nx-empty:\r\nx-foo: 2\r\n\r\n",
    );
    assert_eq!(head.method(), b"GET");
    assert_eq!(head.path(), b"/shop?page=2");
    assert_eq!(head.authority(), Some(&b"A.com"[..]));
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(lines(&head), ["user-agent: curl", "x-foo: Bar", "x-empty: ", "x-foo: 2"]);
    assert_eq!(head.get(Known::UserAgent), Some(&b"curl"[..]));
    assert_eq!(head.get(Known::Host), Some(&b"A.com"[..]));
    let foo = HeaderName::parse("X-Foo").unwrap();
    assert_eq!(head.values(&foo).collect::<Vec<_>>(), [b"Bar", &b"2"[..]]);
    assert_eq!((framing.body, framing.keep_alive), (BodyLength::Empty, true));
}

#[test]
fn lines_of_envoys_inline_headers_are_joined_and_others_stay_apart() {
    let (head, _) = accepted(
        b"GET / HTTP/1.1\r\nhost: a\r\naccept: x\r\nx-foo: 1\r\ncookie: a=1\r\nAccept: y\r\nx-foo: 2\r\ncookie: b=2\r\naccept:\r\n\r\n",
    );
    assert_eq!(lines(&head), ["accept: x,y,", "x-foo: 1", "cookie: a=1", "x-foo: 2", "cookie: b=2"]);
    assert_eq!(head.get_all(Known::Cookie).count(), 2);
}

#[test]
fn several_hosts_are_joined_and_none_is_none() {
    assert_eq!(accepted(b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\nhost: b\r\n\r\n").0.authority(), Some(&b"a,b"[..]));
    assert_eq!(accepted(b"GET / HTTP/1.1\r\nhost:\r\n\r\n").0.authority(), Some(&b""[..]));
    assert_eq!(accepted(b"GET / HTTP/1.1\r\nx: y\r\n\r\n").0.authority(), None);
}

#[test]
fn the_four_forms_of_a_target_are_read() {
    /// Target line, authority, path, scheme.
    type Case = (&'static [u8], Option<&'static [u8]>, &'static [u8], Option<&'static str>);
    let cases: [Case; 9] = [
        (b"GET //a?b", Some(b"h"), b"//a?b", None),
        (b"OPTIONS *", Some(b"h"), b"*", None),
        (b"GET http://b.com/a?b", Some(b"b.com"), b"/a?b", Some("http")),
        (b"GET HTTPS://B.com:81/", Some(b"B.com:81"), b"/", Some("https")),
        (b"GET http://b.com", Some(b"b.com"), b"/", Some("http")),
        (b"GET http://b.com?a", Some(b"b.com"), b"?a", Some("http")),
        (b"GET http://user:word@b.com/", Some(b"b.com"), b"/", Some("http")),
        (b"GET http://[::1]:80/a", Some(b"[::1]:80"), b"/a", Some("http")),
        (b"CONNECT b.com:443", Some(b"b.com:443"), b"", None),
    ];
    for (target, authority, path, scheme) in cases {
        let (head, framing) = accepted(&[target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        let name = target.escape_ascii();
        assert_eq!(head.authority(), authority, "{name}");
        assert_eq!(head.path(), path, "{name}");
        assert_eq!(framing.absolute_form, scheme, "{name}");
    }
}

#[test]
fn an_absolute_target_stays_the_path_when_it_is_not_allowed() {
    let limits = Limits { allow_absolute_url: false, ..Limits::default() };
    let Outcome::Read { framing, written, .. } =
        read_pieces([&b"GET http://b.com/a HTTP/1.1\r\nhost: h\r\n\r\n"[..]], &limits)
    else {
        panic!("refused")
    };
    assert_eq!(framing.absolute_form, None);
    assert_eq!(written, b"GET http://b.com/a HTTP/1.1\r\nhost: h\r\n\r\n");
}

#[test]
fn spaces_between_the_words_of_a_request_line_and_empty_lines_before_it_are_tolerated() {
    let (head, _) = accepted(b"\r\n\r\nGET  /a  HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((head.method(), head.path()), (&b"GET"[..], &b"/a"[..]));
    let cut = [&b"\r\n\r"[..], b"\nGET / HTTP/1.1\r\n\r\n"];
    assert!(matches!(read_pieces(cut, &Limits::default()), Outcome::Read { .. }));
}

#[test]
fn every_method_of_envoy_is_known() {
    for method in "ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE \
        MSEARCH NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE \
        TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE"
        .split_whitespace()
    {
        let target = if method == "CONNECT" { "a:80" } else { "/" };
        let (head, _) = accepted(format!("{method} {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
        assert_eq!(head.method(), method.as_bytes());
    }
}

#[test]
fn the_length_of_the_body_is_read() {
    for (line, body) in [
        ("content-length: 3", BodyLength::Fixed(3)),
        ("Content-Length:   03  ", BodyLength::Fixed(3)),
        ("content-length: 0", BodyLength::Empty),
        ("content-length: 18446744073709551615", BodyLength::Fixed(u64::MAX)),
        ("transfer-encoding: chunked", BodyLength::Chunked),
        ("Transfer-Encoding: Chunked", BodyLength::Chunked),
        ("x: y", BodyLength::Empty),
    ] {
        let (_, framing) = accepted(format!("POST / HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n").as_bytes());
        assert_eq!(framing.body, body, "{line}");
    }
}

#[test]
fn the_connection_header_says_whether_the_connection_stays() {
    for (line, keep_alive) in [
        ("x: y", true),
        ("connection: keep-alive", true),
        ("connection: CLOSE", false),
        ("connection: foo, close", false),
        ("connection: foo\r\nconnection: close", false),
        ("proxy-connection: close", false),
        ("connection: closed", true),
    ] {
        let (_, framing) = accepted(format!("GET / HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n").as_bytes());
        assert_eq!(framing.keep_alive, keep_alive, "{line}");
    }
}

#[test]
fn http_10_closes_unless_it_asks_otherwise_and_knows_neither_expect_nor_upgrade() {
    let limits = Limits { accept_http_10: true, ..Limits::default() };
    for (line, keep_alive) in [
        ("x: y", false),
        ("connection: keep-alive", true),
        ("connection: keep-alive\r\ntransfer-encoding: chunked", false),
        ("connection: keep-alive, upgrade\r\nupgrade: websocket\r\nexpect: 100-continue", true),
    ] {
        let bytes = format!("GET / HTTP/1.0\r\nhost: a\r\n{line}\r\n\r\n");
        let Outcome::Read { framing, .. } = read_pieces([bytes.as_bytes()], &limits) else { panic!("{line}") };
        assert_eq!(framing.keep_alive, keep_alive, "{line}");
        assert!(!framing.expect_continue && !framing.upgrade, "{line}");
    }
}

#[test]
fn an_upgrade_counts_when_connection_confirms_it_and_h2c_never_does() {
    for (lines, upgrade) in [
        ("upgrade: websocket\r\nconnection: upgrade", true),
        ("upgrade: WebSocket\r\nconnection: keep-alive, Upgrade", true),
        ("upgrade: websocket", false),
        ("connection: upgrade", false),
        ("upgrade: h2c, websocket\r\nconnection: upgrade", true),
        ("upgrade: h2c\r\nhttp2-settings: AA\r\nconnection: upgrade, http2-settings", false),
    ] {
        let (head, framing) = accepted(format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n").as_bytes());
        assert_eq!(framing.upgrade, upgrade, "{lines}");
        assert!(!head.contains(Known::Http2Settings), "{lines}");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_noticed() {
    for (value, waits) in [("100-continue", true), ("100-Continue", true), ("foo", false)] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: {value}\r\ncontent-length: 2\r\n\r\n");
        assert_eq!(accepted(bytes.as_bytes()).1.expect_continue, waits, "{value}");
    }
}

#[test]
fn the_limit_of_lines_counts_the_host_and_is_exact() {
    let request = |lines: usize| {
        let mut text = String::from("GET / HTTP/1.1\r\nhost: a\r\n");
        for index in 1..lines {
            text.push_str(&format!("x{index}: y\r\n"));
        }
        text + "\r\n"
    };
    for (max_headers, lines) in [(100, 100), (500, 500), (1, 1)] {
        let limits = Limits { max_headers, ..Limits::default() };
        let fitting = request(lines);
        assert!(matches!(read_pieces([fitting.as_bytes()], &limits), Outcome::Read { .. }));
        let excessive = request(lines + 1);
        let Outcome::Refused(refusal) = read_pieces([excessive.as_bytes()], &limits) else { panic!("accepted") };
        assert_eq!((refusal.status, refusal.details), (431, "http1.too_many_headers"));
        assert_eq!(refusal.body, "Request Header Fields Too Large");
        assert_eq!(read_pieces(excessive.as_bytes().chunks(7), &limits), Outcome::Refused(refusal));
    }
}

#[test]
fn the_limit_of_bytes_is_exact_for_lines_and_targets_and_heads_without_end() {
    let limits = Limits::default();
    let sized =
        |front: &str, back: &str, size: usize| format!("{front}{}{back}", "y".repeat(size - front.len() - back.len()));
    for (front, back) in [("GET / HTTP/1.1\r\nhost: a\r\nx: ", "\r\n\r\n"), ("GET /", " HTTP/1.1\r\nhost: a\r\n\r\n")] {
        let fitting = sized(front, back, limits.max_head_bytes);
        assert!(matches!(read(fitting.as_bytes()), Outcome::Read { .. }));
        let excessive = sized(front, back, limits.max_head_bytes + 1);
        for pieces in [1, 1000, 100_000] {
            let Outcome::Refused(refusal) = read_pieces(excessive.as_bytes().chunks(pieces), &limits) else {
                panic!("accepted")
            };
            assert_eq!((refusal.status, refusal.details), (431, "http1.headers_too_large"));
        }
    }
    let endless = sized("GET / HTTP/1.1\r\nx: ", "", limits.max_head_bytes + 1);
    assert!(matches!(read(endless.as_bytes()), Outcome::Refused(refusal) if refusal.status == 431));
    assert_eq!(read(&endless.as_bytes()[..limits.max_head_bytes]), Outcome::Incomplete);
}

#[test]
fn a_head_that_trickles_in_costs_time_in_proportion_to_its_size() {
    // One byte at a time: a reader that starts again with every byte would look at 3 × 10¹⁰ of them.
    let size = 1 << 18;
    let limits = Limits { max_head_bytes: size, max_headers: usize::MAX, ..Limits::default() };
    let began = std::time::Instant::now();
    for line in ["x: y\r\n".to_owned(), format!("x: {}\r\n", "y".repeat(50_000))] {
        let text = format!("GET / HTTP/1.1\r\n{}", line.repeat((size - 100) / line.len()));
        assert_eq!(read_pieces(text.as_bytes().chunks(1), &limits), Outcome::Incomplete);
    }
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[test]
fn requests_in_one_read_are_taken_one_by_one() {
    let mut buffer = ReadBuffer::new();
    let mut head = Head::new();
    let count = 1000;
    for index in 0..count {
        buffer.fill().extend_from_slice(format!("GET /{index} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    }
    for index in 0..count {
        parse_request(&mut buffer, &Limits::default(), &mut head).unwrap().unwrap();
        assert_eq!(head.path(), format!("/{index}").as_bytes());
        assert_eq!(head.authority(), Some(&b"a"[..]));
    }
    assert!(buffer.is_empty());
    assert_eq!(parse_request(&mut buffer, &Limits::default(), &mut head), Ok(None));
}

#[test]
fn what_follows_the_head_stays_in_the_buffer() {
    let long = "z".repeat(5000);
    for body in ["", "abc", &long] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let Outcome::Read { rest, .. } = read(bytes.as_bytes()) else { panic!("refused") };
        assert_eq!(rest, body.as_bytes());
    }
}
