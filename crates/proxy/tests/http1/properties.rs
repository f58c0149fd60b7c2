//! Properties that hold for any bytes: no panic, no dependence on where they are cut, and stable writing.

use lateen_proxy::http::h1::{
    BodyLength, BodyReader, Limits, ReadBuffer, parse_request, parse_response, write_response_head,
};
use lateen_proxy::http::head::Head;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Outcome, read, read_pieces};

/// Pieces of which heads and their mistakes are made.
const WORDS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"OPTIONS",
    b"CONNECT",
    b" ",
    b"/",
    b"*",
    b"/a?b",
    b"http://b.com",
    b"b.com:80",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.2",
    b" HTTP/1.1\r\n",
    b"\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"host: a",
    b"Host: b\r\n",
    b"content-length: 3\r\n",
    b"content-length: 3",
    b"transfer-encoding: chunked\r\n",
    b"connection: close, x-foo\r\n",
    b"upgrade: h2c\r\n",
    b"x-foo: bar\r\n",
    b"x-foo:bar \r\n",
    b"accept: a\r\n",
    b"accept:\r\n",
    b"cookie: c\r\n",
    b"te: trailers\r\n",
    b": ",
    b":",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b"x",
    b"200",
    b"HTTP/1.1 200 OK\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n",
    b"a",
    b";x",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        20 => select(WORDS).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    let soup = vec(word.clone(), 0..30).prop_map(|words| words.concat());
    // Most of these are requests with a mistake or two.
    let request = vec(word, 0..12)
        .prop_map(|words| [b"GET /shop HTTP/1.1\r\nhost: a.com\r\n", &words.concat()[..], b"\r\n\r\n"].concat());
    prop_oneof![soup, request]
}

fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = later;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_understood_alike_however_it_is_cut(bytes in bytes(), sizes in vec(1usize..20, 1..5)) {
        let pieces = cut(&bytes, &sizes);
        let limits = Limits { max_head_bytes: 200, max_headers: 8, accept_http_10: true, ..Limits::default() };
        let whole = read_pieces([&bytes[..]], &limits);
        let cut = read_pieces(pieces.iter().map(Vec::as_slice), &limits);
        match (&whole, &cut) {
            // A head that is complete at once leaves the later pieces; the bytes are the same.
            (Outcome::Read { framing: a, written: b, rest: c }, Outcome::Read { framing: d, written: e, rest: f }) => {
                prop_assert_eq!((a, b, c), (d, e, f));
            }
            _ => prop_assert_eq!(&whole, &cut),
        }
    }

    #[test]
    fn what_was_understood_is_written_so_that_it_is_understood_alike(bytes in bytes()) {
        if let Outcome::Read { framing, written, .. } = read(&bytes) {
            // A target like `http://a?b` has no path; such a request is answered, never forwarded.
            prop_assume!(!written.splitn(3, |byte| *byte == b' ').nth(1).unwrap_or_default().starts_with(b"?"));
            let again = read(&written);
            let Outcome::Read { framing: framing_again, written: written_again, rest } = again else {
                return Err(TestCaseError::fail(format!("{} is not understood: {again:?}", written.escape_ascii())));
            };
            prop_assert_eq!(framing.body, framing_again.body);
            prop_assert_eq!(framing.keep_alive, framing_again.keep_alive);
            prop_assert_eq!(written, written_again);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_forwarded_request_has_one_framing_and_no_wrong_line(bytes in bytes()) {
        if let Outcome::Read { written, .. } = read(&bytes) {
            let text = String::from_utf8_lossy(&written).to_ascii_lowercase();
            let lengths = text.matches("\r\ncontent-length:").count();
            let codings = text.matches("\r\ntransfer-encoding:").count();
            prop_assert!(lengths + codings <= 1, "{}", written.escape_ascii());
            prop_assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), text.matches("\r\n").count());
            prop_assert!(!written.contains(&0) && written.ends_with(b"\r\n\r\n"));
            prop_assert!(!text.contains("\r\n ") && !text.contains("\r\n\t"));
        }
    }

    #[test]
    fn a_response_is_understood_alike_however_it_is_cut(
        bytes in bytes(),
        sizes in vec(1usize..20, 1..5),
        status in select(vec!["200 OK", "204", "304 x", "101 y", "100", "99"]),
        method in select(vec!["GET", "HEAD", "CONNECT"]),
    ) {
        let bytes = [b"HTTP/1.1 ", status.as_bytes(), b"\r\n", &bytes].concat();
        let read = |pieces: Vec<Vec<u8>>| {
            let mut buffer = ReadBuffer::new();
            let mut head = Head::new();
            for piece in pieces {
                buffer.fill().extend_from_slice(&piece);
                match parse_response(&mut buffer, &Limits::default(), method.as_bytes(), &mut head) {
                    Ok(None) => {}
                    Ok(Some(framing)) => {
                        let mut written = Vec::new();
                        write_response_head(&head, framing.body, !framing.keep_alive, &mut written);
                        return Ok(Some((framing, written)));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        };
        prop_assert_eq!(read(vec![bytes.clone()]), read(cut(&bytes, &sizes)));
    }

    #[test]
    fn a_body_is_understood_alike_however_it_is_cut(
        words in vec(select(vec![&b"3\r\nabc\r\n"[..], b"0\r\n", b"\r\n", b"a", b"5", b";x=\"y\"", b"\n", b"x: y\r\n", b" ", b"1\r\n\0\r\n", b"00"]), 0..20),
        sizes in vec(1usize..9, 1..5),
        length in select(vec![BodyLength::Chunked, BodyLength::Chunked, BodyLength::Fixed(7), BodyLength::UntilClose, BodyLength::Empty]),
    ) {
        let bytes = words.concat();
        let read = |pieces: Vec<Vec<u8>>| {
            let mut reader = BodyReader::new(length);
            let mut unread: Vec<u8> = Vec::new();
            let mut content: Vec<u8> = Vec::new();
            for piece in pieces {
                unread.extend_from_slice(&piece);
                loop {
                    let step = match reader.next(&unread) {
                        Ok(step) => step,
                        Err(error) => return (Err(error), Vec::new(), 0),
                    };
                    content.extend_from_slice(&unread[step.data]);
                    unread.drain(..step.consumed);
                    if step.finished || step.consumed == 0 {
                        break;
                    }
                }
            }
            (Ok(reader.is_finished()), content, unread.len())
        };
        prop_assert_eq!(read(vec![bytes.clone()]), read(cut(&bytes, &sizes)));
    }

    #[test]
    fn no_bytes_at_all_make_the_codec_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut head = Head::new();
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(&bytes);
        let _ = parse_request(&mut buffer, &Limits::default(), &mut head);
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(&bytes);
        let _ = parse_response(&mut buffer, &Limits::default(), b"GET", &mut head);
        let _ = BodyReader::new(BodyLength::Chunked).next(&bytes);
    }
}
