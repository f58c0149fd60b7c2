//! What leaves the proxy: order, framing lines, reasons, chunks.

use lateen_proxy::http::h1::{
    BodyLength, BodyReader, reason_phrase, write_chunk, write_last_chunk, write_request_head, write_response_head,
};
use lateen_proxy::http::head::{Head, HeaderName, Known, Version};

use super::accepted;

fn request(head: &Head, body: BodyLength) -> String {
    let mut out = Vec::new();
    write_request_head(head, body, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn response(head: &Head, body: BodyLength, close: bool) -> String {
    let mut out = Vec::new();
    write_response_head(head, body, close, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn a_request_keeps_its_order_with_the_host_first() {
    let (mut head, _) = accepted(
        b"GET /a HTTP/1.1\r\nX-One: 1\r\nHost: b.com\r\nx-two:2\r\nx-three:\t3  \r\nx-four: 4\r\naccept: a\r\naccept: b\r\nx-five:\r\n\r\n",
    );
    head.set_known(Known::XForwardedProto, b"http");
    head.append(&HeaderName::parse("x-six").unwrap(), b"6");
    assert_eq!(
        request(&head, BodyLength::Empty),
        "GET /a HTTP/1.1\r\nhost: b.com\r\nx-one: 1\r\nx-two: 2\r\nx-three: 3\r\nx-four: 4\r\naccept: a,b\r\nx-five: \r\n\
         x-forwarded-proto: http\r\nx-six: 6\r\n\r\n"
    );
}

#[test]
fn an_overwritten_header_moves_to_the_end_and_one_replaced_in_place_stays() {
    let (mut head, _) = accepted(b"GET / HTTP/1.1\r\nhost: a\r\nx-a: 1\r\nx-request-id: 2\r\nvia: 3\r\nx-a: 4\r\n\r\n");
    head.set(&HeaderName::parse("x-a").unwrap(), b"5");
    head.set_in_place(Known::XRequestId, b"longer");
    head.set_in_place(Known::Via, b"6");
    assert_eq!(
        request(&head, BodyLength::Empty),
        "GET / HTTP/1.1\r\nhost: a\r\nx-request-id: longer\r\nvia: 6\r\nx-a: 5\r\n\r\n"
    );
}

#[test]
fn the_length_keeps_its_place_and_chunks_are_announced_last() {
    let (head, framing) = accepted(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nx: y\r\n\r\nabc");
    assert_eq!(request(&head, framing.body), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nx: y\r\n\r\n");

    let (head, framing) = accepted(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n");
    assert_eq!(
        request(&head, framing.body),
        "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn the_framing_line_always_agrees_with_the_body() {
    let (head, _) = accepted(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(request(&head, BodyLength::Chunked), "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(request(&head, BodyLength::Fixed(4)), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(request(&head, BodyLength::Empty), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    let (head, _) = accepted(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(request(&head, BodyLength::Empty), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[test]
fn a_request_without_a_body_says_so_where_envoy_does() {
    for (method, says) in [
        ("GET", false),
        ("HEAD", false),
        ("DELETE", false),
        ("TRACE", false),
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("OPTIONS", true),
        ("PURGE", true),
    ] {
        let (head, framing) = accepted(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
        assert_eq!(request(&head, framing.body).contains("content-length: 0"), says, "{method}");
    }
    let (head, framing) = accepted(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    assert!(request(&head, framing.body).contains("content-length: 0"), "what the client said is kept");
}

#[test]
fn connect_is_written_in_authority_form() {
    let (head, _) = accepted(b"CONNECT b.com:80 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(request(&head, BodyLength::UntilClose), "CONNECT b.com:80 HTTP/1.1\r\nhost: b.com:80\r\n\r\n");
}

#[test]
fn connection_headers_go_with_everything_they_name() {
    let (mut head, _) = accepted(
        b"POST / HTTP/1.1\r\nhost: a\r\nx-foo: y\r\nkeep-alive: 3\r\nproxy-connection: x\r\nhttp2-settings: z\r\nupgrade: u\r\n\
          cookie: b\r\nconnection: close, X-Foo, cookie, content-length\r\ncontent-length: 2\r\n\r\nab",
    );
    head.remove_connection_headers(false);
    assert_eq!(super::lines(&head), ["content-length: 2"]);
    assert!(!head.contains(Known::Cookie) && !head.contains(Known::Connection) && head.contains(Known::ContentLength));
}

#[test]
fn an_upgrade_keeps_connection_and_upgrade() {
    let (mut head, _) = accepted(
        b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nkeep-alive: 1\r\nconnection: keep-alive, Upgrade\r\n\r\n",
    );
    head.remove_connection_headers(true);
    assert_eq!(super::lines(&head), ["upgrade: websocket", "connection: keep-alive, Upgrade"]);
}

#[test]
fn of_te_only_trailers_travels_on() {
    for (value, kept) in [
        ("trailers", Some("trailers")),
        ("gzip, trailers", Some("trailers")),
        ("gzip, trailers;q=0.5", None),
        ("Trailers", None),
        ("gzip", None),
    ] {
        for connection in ["", "connection: te\r\n"] {
            let bytes = format!("GET / HTTP/1.1\r\nhost: a\r\nte: {value}\r\n{connection}\r\n");
            let (mut head, _) = accepted(bytes.as_bytes());
            head.remove_connection_headers(false);
            assert_eq!(head.get(Known::Te), kept.map(str::as_bytes), "{value} {connection}");
        }
    }
}

#[test]
fn a_response_has_connection_and_framing_last() {
    let mut head = Head::new();
    head.set_status(200);
    head.append_known(Known::ContentLength, b"2");
    head.append_known(Known::Server, b"envoy");
    assert_eq!(
        response(&head, BodyLength::Fixed(2), true),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: envoy\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        response(&head, BodyLength::Chunked, true),
        "HTTP/1.1 200 OK\r\nserver: envoy\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    head.remove_known(Known::ContentLength);
    assert_eq!(
        response(&head, BodyLength::Empty, true),
        "HTTP/1.1 200 OK\r\nserver: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        response(&head, BodyLength::Fixed(12), false),
        "HTTP/1.1 200 OK\r\nserver: envoy\r\ncontent-length: 12\r\n\r\n"
    );
    assert_eq!(response(&head, BodyLength::UntilClose, false), "HTTP/1.1 200 OK\r\nserver: envoy\r\n\r\n");
}

#[test]
fn a_status_without_a_body_announces_none() {
    for (status, expected) in [
        (204, "HTTP/1.1 204 No Content\r\n\r\n"),
        (100, "HTTP/1.1 100 Continue\r\n\r\n"),
        (101, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (304, "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ] {
        let mut head = Head::new();
        head.set_status(status);
        assert_eq!(response(&head, BodyLength::Empty, false), expected);
    }
    let mut head = Head::new();
    head.append_known(Known::ContentLength, b"5");
    head.set_status(304);
    assert_eq!(response(&head, BodyLength::Empty, false), "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
    head.set_status(200);
    assert_eq!(
        response(&head, BodyLength::Empty, false),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "the answer to HEAD keeps the length"
    );
    head.set_status(204);
    assert_eq!(response(&head, BodyLength::Empty, false), "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn an_http_10_client_is_answered_in_its_version() {
    let mut head = Head::new();
    head.set_status(200);
    head.set_version(Version::Http10);
    assert_eq!(response(&head, BodyLength::UntilClose, true), "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n");
    assert_eq!(
        response(&head, BodyLength::Fixed(2), false),
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n"
    );
}

#[test]
fn an_edited_value_cannot_end_its_line() {
    let (mut head, _) = accepted(b"GET / HTTP/1.1\r\nhost: a\r\nvia: 0123456789\r\n\r\n");
    head.append_known(Known::XRequestId, b"a\r\nb: c\0");
    head.set_in_place(Known::Via, b"01234\r\n789");
    head.set_path(b"/a\r\nb");
    assert_eq!(
        request(&head, BodyLength::Empty),
        "GET /a  b HTTP/1.1\r\nhost: a\r\nvia: 01234  789\r\nx-request-id: a  b: c \r\n\r\n"
    );
}

#[test]
fn chunks_are_written_so_that_they_can_be_read() {
    let mut out = Vec::new();
    let data: Vec<u8> = (0..70_000u32).map(|index| index as u8).collect();
    for part in [&data[..1], b"", &data[1..17], &data[17..]] {
        write_chunk(part, &mut out);
    }
    write_last_chunk(&mut out);
    assert!(out.starts_with(b"1\r\n\0\r\n10\r\n"));
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let mut content = Vec::new();
    let mut unread = &out[..];
    while !reader.is_finished() {
        let step = reader.next(unread).unwrap();
        content.extend_from_slice(&unread[step.data]);
        unread = &unread[step.consumed..];
    }
    assert!(unread.is_empty() && content == data);
}

#[test]
fn reasons_are_those_of_envoy() {
    for (status, reason) in [
        (200, "OK"),
        (418, "Unknown"),
        (425, "Too Early"),
        (431, "Request Header Fields Too Large"),
        (599, "Last Unassigned Server Error Code"),
        (306, "Unknown"),
    ] {
        assert_eq!(reason_phrase(status), reason);
    }
}
