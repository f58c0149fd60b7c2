//! Bodies: content and end are found alike however the bytes are cut, and bad chunks are refused.

use lateen_proxy::http::h1::{BodyLength, BodyReader, FramingError};

/// Content, count of bytes used, and whether the body ended.
type Read = Result<(Vec<u8>, usize, bool), FramingError>;

fn read_pieces<'a>(length: BodyLength, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut reader = BodyReader::new(length);
    let mut unread = Vec::new();
    let mut content = Vec::new();
    let mut used = 0;
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            let step = reader.next(&unread)?;
            assert!(step.data.end <= step.consumed && step.consumed <= unread.len());
            content.extend_from_slice(&unread[step.data]);
            unread.drain(..step.consumed);
            used += step.consumed;
            assert_eq!(step.finished, reader.is_finished());
            if step.finished || step.consumed == 0 {
                break;
            }
        }
    }
    assert!(reader.is_finished() || unread.is_empty(), "bytes of an unfinished body are left");
    Ok((content, used, reader.is_finished()))
}

const CHUNKED: &[(&[u8], &[u8])] = &[
    (b"0\r\n\r\n", b""),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    (b"0003\r\nabc\r\n000\r\n\r\n", b"abc"),
    (b"00000000000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
    (b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"abc"),
    (b"3;a=\"b;\\\"c\"\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3 ;a=b\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3 \t\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"3\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r"),
    (b"3\r\nabc\r\n0\r\nx: y\r\n\r\n", b"abc"),
    (b"3\r\nabc\r\n0\r\nx:\r\ncontent-length: 3\r\n\r\n", b"abc"),
];

#[test]
fn chunks_yield_their_content_however_they_are_cut() {
    for (bytes, content) in CHUNKED {
        let name = bytes.escape_ascii();
        // The third chunk of this one is wrong on purpose and has its own test.
        if bytes.starts_with(b"3\r\n\r\n\r\n\r\n") {
            assert_eq!(read_pieces(BodyLength::Chunked, [*bytes]), Err(FramingError::Malformed));
            continue;
        }
        let followed = [bytes, &b"GET / HTTP/1.1\r\n"[..]].concat();
        let expected = Ok((content.to_vec(), bytes.len(), true));
        assert_eq!(read_pieces(BodyLength::Chunked, [&followed[..]]), expected, "{name}");
        for cut in 1..bytes.len() {
            let (front, back) = followed.split_at(cut);
            assert_eq!(read_pieces(BodyLength::Chunked, [front, back]), expected, "{name} cut at {cut}");
        }
        assert_eq!(read_pieces(BodyLength::Chunked, bytes.chunks(1)), expected, "{name}");
    }
}

#[test]
fn bad_chunks_and_trailers_are_refused_however_they_are_cut() {
    for bytes in [
        &b" 3\r\nabc\r\n0\r\n\r\n"[..],
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b";a\r\nabc\r\n0\r\n\r\n",
        b"3 3\r\nabc\r\n0\r\n\r\n",
        b"3g\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\rxabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a\0b\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\n",
        b"3\r\nabc\r\n0\r\n\n",
        b"3\r\nabc\r\n0\r\nx y: z\r\n\r\n",
        b"3\r\nabc\r\n0\r\nx : z\r\n\r\n",
        b"3\r\nabc\r\n0\r\nxy\r\n\r\n",
        b"3\r\nabc\r\n0\r\n: z\r\n\r\n",
        b"3\r\nabc\r\n0\r\nx: y\r\n z\r\n\r\n",
        b"3\r\nabc\r\n0\r\nx: y\n\r\n",
        b"3\r\nabc\r\n0\r\nx: \0\r\n\r\n",
    ] {
        for size in [1, 2, 3, 100] {
            assert_eq!(
                read_pieces(BodyLength::Chunked, bytes.chunks(size)),
                Err(FramingError::Malformed),
                "{} in pieces of {size}",
                bytes.escape_ascii()
            );
        }
        assert_eq!(FramingError::Malformed.refusal().details, "http1.codec_error");
    }
}

#[test]
fn a_chunk_size_fits_64_bits_and_its_line_4_kib() {
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let step = reader.next(b"ffffffffffffffff\r\nabc").unwrap();
    assert_eq!((step.consumed, step.data, step.finished), (21, 18..21, false));

    for bytes in [&b"10000000000000000\r\n"[..], b"fffffffffffffffff\r\n"] {
        assert_eq!(read_pieces(BodyLength::Chunked, [bytes]), Err(FramingError::ChunkTooLarge));
    }
    let extended = |length: usize| [b"3;", &vec![b'a'; length][..], b"\r\nabc\r\n0\r\n\r\n"].concat();
    assert!(read_pieces(BodyLength::Chunked, [&extended(4000)[..]]).is_ok());
    let long = extended(5000);
    assert_eq!(read_pieces(BodyLength::Chunked, [&long[..]]), Err(FramingError::ChunkTooLarge));
    let zeros = [&vec![b'0'; 5000][..], b"3\r\nabc\r\n"].concat();
    assert_eq!(read_pieces(BodyLength::Chunked, [&zeros[..]]), Err(FramingError::ChunkTooLarge));
}

#[test]
fn trailers_are_dropped_up_to_60_kib() {
    let with_trailers = |size: usize| {
        let trailer = format!("x: {}\r\n", "y".repeat(995));
        format!("3\r\nabc\r\n0\r\n{}\r\n", trailer.repeat(size / trailer.len()))
    };
    let fitting = with_trailers(61_000);
    assert_eq!(
        read_pieces(BodyLength::Chunked, fitting.as_bytes().chunks(999)),
        Ok((b"abc".to_vec(), fitting.len(), true))
    );
    let excessive = with_trailers(62_000);
    let error = read_pieces(BodyLength::Chunked, [excessive.as_bytes()]).unwrap_err();
    assert_eq!(error, FramingError::TrailersTooLarge);
    assert_eq!((error.refusal().status, error.refusal().details), (431, "http1.headers_too_large"));
}

#[test]
fn a_body_of_fixed_length_ends_there() {
    let bytes = b"abcdefGET";
    for size in [1, 2, 4, 100] {
        assert_eq!(
            read_pieces(BodyLength::Fixed(6), bytes.chunks(size)).map(|(content, _, ended)| (content, ended)),
            Ok((b"abcdef".to_vec(), true))
        );
    }
    assert_eq!(read_pieces(BodyLength::Fixed(6), [&bytes[..]]), Ok((b"abcdef".to_vec(), 6, true)));
    assert_eq!(read_pieces(BodyLength::Empty, [&bytes[..]]), Ok((Vec::new(), 0, true)));
    assert_eq!(read_pieces(BodyLength::Fixed(0), [&bytes[..]]), Ok((Vec::new(), 0, true)));
    let (_, _, ended) = read_pieces(BodyLength::Fixed(u64::MAX), [&bytes[..]]).unwrap();
    assert!(!ended);
}

#[test]
fn the_end_of_the_connection_ends_only_a_body_that_may_end_so() {
    let after = |length, bytes: &[u8]| {
        let mut reader = BodyReader::new(length);
        reader.next(bytes).unwrap();
        reader.end_of_stream()
    };
    assert_eq!(after(BodyLength::UntilClose, b"abc"), Ok(()));
    assert_eq!(after(BodyLength::Empty, b""), Ok(()));
    assert_eq!(after(BodyLength::Fixed(3), b"abc"), Ok(()));
    assert_eq!(after(BodyLength::Fixed(4), b"abc"), Err(FramingError::Truncated));
    assert_eq!(after(BodyLength::Chunked, b"3\r\nab"), Err(FramingError::Truncated));
    assert_eq!(after(BodyLength::Chunked, b"3\r\nabc\r\n0\r\n"), Err(FramingError::Truncated));
    assert_eq!(after(BodyLength::Chunked, b"0\r\n\r\n"), Ok(()));
}
