//! The results were observed on Envoy 1.40.

use proptest::prelude::*;

use super::*;
use crate::snapshot::fixture::request;

fn outcome(path: &str, normalize_path: bool, merge_slashes: bool, escaped: EscapedSlashes) -> (Normalized, String) {
    let mut head = request(path, &[]);
    let normalized = normalize(&mut head, normalize_path, merge_slashes, escaped);
    (normalized, String::from_utf8_lossy(head.path()).into_owned())
}

fn done(path: &str, normalize_path: bool, merge_slashes: bool) -> String {
    let (normalized, path) = outcome(path, normalize_path, merge_slashes, EscapedSlashes::Keep);
    assert_eq!(normalized, Normalized::Done);
    path
}

#[track_caller]
fn normalizes(pairs: &[(&str, &str)]) {
    for (path, expected) in pairs {
        assert_eq!(done(path, true, false), *expected, "{path}");
        assert_eq!(done(path, false, false), *path, "{path} as it is");
    }
}

#[test]
fn dot_segments_are_resolved_and_never_leave_the_root() {
    normalizes(&[
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/../..", "/"),
        ("/./", "/"),
        ("/.", "/"),
        ("/a/b/..", "/a/"),
        ("/a//../b", "/a/b"),
        ("/a/../..//b", "//b"),
        ("/a/...", "/a/..."),
        ("/a/..b", "/a/..b"),
        ("/a/b..", "/a/b.."),
        ("/.../a", "/.../a"),
    ]);
}

#[test]
fn escaped_dots_are_dots() {
    normalizes(&[
        ("/%2e%2e/x", "/x"),
        ("/a/%2E%2e", "/"),
        ("/a/%2e", "/a/"),
        ("/a/.%2e/b", "/b"),
        ("/.%2e%2e/", "/.../"),
        ("/a/%2e%2e%2fb", "/a/..%2fb"),
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
    ]);
}

#[test]
fn parameters_of_dot_segments_do_not_hide_them() {
    normalizes(&[
        ("/a/..;/b", "/b"),
        ("/a/..;x=1/b", "/b"),
        ("/a/.;x/b", "/a/b"),
        ("/a/..;", "/"),
        ("/a/..;..;/b", "/b"),
        ("/a/b/..;/..;/c", "/c"),
        (r"/..;x\y/c", "/c"),
        ("/a/..;%2fb/c", "/c"),
        ("/a/...;/b", "/a/...;/b"),
        ("/a/%2e%2e;x/y", "/a/..;x/y"),
        (r"/a\..;x/b", "/a/..;x/b"),
        ("/a/..%3b/b", "/a/..%3b/b"),
        ("/a;x=1/b;y", "/a;x=1/b;y"),
        ("/a/;../b", "/a/;../b"),
        ("/a/b;/../c", "/a/c"),
    ]);
}

#[test]
fn backslashes_are_slashes() {
    normalizes(&[(r"/a\b", "/a/b"), (r"/a\..\b", "/b"), (r"/\", "//"), (r"/a\?b\c", r"/a/?b\c")]);
}

#[test]
fn unreserved_characters_are_decoded_and_others_keep_their_escape() {
    for byte in 0x01..=0xff_u8 {
        let path = format!("/x%{byte:02x}y");
        let expected = if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            format!("/x{}y", char::from(byte))
        } else {
            path.clone()
        };
        assert_eq!(done(&path, true, false), expected);
    }
    normalizes(&[("/%c3%A4", "/%c3%A4"), ("/a?%41", "/a?%41"), ("/%", "/%"), ("/%4", "/%4"), ("/%zz", "/%zz")]);
}

#[test]
fn some_characters_are_escaped() {
    normalizes(&[("/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"), ("/!$&'()*+,-.:;=@[]_~", "/!$&'()*+,-.:;=@[]_~")]);
}

#[test]
fn decoding_makes_no_new_escapes() {
    normalizes(&[
        ("/%%34%31", "/%2541"),
        ("/%2%65", "/%252e"),
        ("/%2%30%31", "/%25201"),
        ("/%%32e%%32e/x", "/%252e%252e/x"),
        ("/%%30%41", "/%250A"),
        ("/%%41", "/%A"),
        ("/%%2541", "/%%2541"),
        ("/%%61%2e%62", "/%a.b"),
        ("/a/%%2e%2e/b", "/a/%../b"),
        ("/%/../%41", "/A"),
    ]);
}

#[test]
fn the_query_is_never_touched() {
    normalizes(&[
        ("/a/b/../../c?x=/../y", "/c?x=/../y"),
        ("/a/..?x", "/?x"),
        ("/a/.?", "/a/?"),
        ("/a?x=%00", "/a?x=%00"),
    ]);
    assert_eq!(done("//a//?x//y", true, true), "/a/?x//y");
}

#[test]
fn an_escaped_nul_is_refused_if_paths_are_normalized() {
    assert_eq!(outcome("/x%00", true, false, EscapedSlashes::Keep).0, Normalized::Refused);
    assert_eq!(outcome("/x%00", false, true, EscapedSlashes::Keep).0, Normalized::Done);
}

#[test]
fn a_fragment_is_always_refused() {
    for path in ["/a#b", "/a?b#c"] {
        assert_eq!(outcome(path, true, false, EscapedSlashes::Keep).0, Normalized::Refused);
        assert_eq!(outcome(path, false, false, EscapedSlashes::Keep).0, Normalized::Refused);
    }
    assert_eq!(done("/a%23", true, false), "/a%23");
}

#[test]
fn slashes_are_merged_after_normalization() {
    for (path, expected) in [
        ("//a", "/a"),
        ("///a//b", "/a/b"),
        ("/a//", "/a/"),
        ("/a//?x", "/a/?x"),
        ("//", "//"),
        ("///", "//"),
        ("/a", "/a"),
    ] {
        assert_eq!(done(path, false, true), expected, "{path}");
        assert_eq!(done(path, true, true), expected, "{path}");
    }
    assert_eq!(done(r"/a/\", true, true), "/a/");
    assert_eq!(done("/a/../..//b", true, true), "/b");
    assert_eq!(done("/a//../b", false, true), "/a/../b");
}

#[test]
fn escaped_slashes_are_kept_refused_redirected_or_unescaped() {
    use EscapedSlashes::{Reject, UnescapeAndForward, UnescapeAndRedirect};
    let after = |path: &str, action| {
        let (normalized, path) = outcome(path, true, false, action);
        (normalized, path)
    };
    assert_eq!(outcome("/a%2fb", false, false, Reject).0, Normalized::Refused);
    assert_eq!(outcome("/a%5Cb", false, false, Reject).0, Normalized::Refused);
    assert_eq!(outcome("/a%2eb", false, false, Reject).0, Normalized::Done);
    assert_eq!(outcome("/a?b%2fc", false, false, Reject).0, Normalized::Done);
    assert_eq!(after("/a%2Fb?c%2Fd", UnescapeAndRedirect), (Normalized::Redirect, "/a/b?c%2Fd".into()));
    assert_eq!(after("/a%2f..%2fb", UnescapeAndRedirect), (Normalized::Redirect, "/b".into()));
    assert_eq!(after("/a/../b", UnescapeAndRedirect), (Normalized::Done, "/b".into()));
    assert_eq!(after("/%2f%5C", UnescapeAndForward), (Normalized::Done, "///".into()));
    assert_eq!(after("/a%5c..%5cb/..", UnescapeAndForward), (Normalized::Done, "/".into()));
    assert_eq!(outcome("/%5c..", false, false, UnescapeAndForward).1, r"/\..");
    assert_eq!(outcome("/%2f%5C", false, true, UnescapeAndForward).1, r"/\");
}

proptest! {
    // Without `;`: parameters of a segment that only normalization made a dot segment stay, so as in Envoy a second
    // time would resolve it.
    #[test]
    fn normalization_is_idempotent(path in r#"/([ab./\\%]|%2[eEfF5]|%4|%00|[<{]|\.\./|//){0,12}(\?[a%/.]{0,4})?"#) {
        for (normalize_path, merge_slashes) in [(true, false), (true, true), (false, true)] {
            let (first, once) = outcome(&path, normalize_path, merge_slashes, EscapedSlashes::Keep);
            prop_assume!(first == Normalized::Done);
            let (second, twice) = outcome(&once, normalize_path, merge_slashes, EscapedSlashes::Keep);
            prop_assert_eq!(second, Normalized::Done);
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn a_normalized_path_has_no_dot_segments(path in r"/([ab./\\]|%2[eE]){0,16}") {
        let path = done(&path, true, true);
        prop_assert!(path.starts_with('/'));
        prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{}", path);
    }

    #[test]
    fn no_path_panics(path in "\\PC{0,30}", escaped in 0..4) {
        let escaped = [
            EscapedSlashes::Keep,
            EscapedSlashes::Reject,
            EscapedSlashes::UnescapeAndRedirect,
            EscapedSlashes::UnescapeAndForward,
        ][escaped as usize];
        let _ = outcome(&path, true, true, escaped);
    }
}
