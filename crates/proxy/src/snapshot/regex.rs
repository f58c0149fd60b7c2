//! Which byte strings does a regular expression of an Envoy message match, and what does a substitution make of them?
//!
//! Envoy's expressions are RE2's; `lateen_xds::re2` writes them in the syntax of the `regex` crates. Matching always
//! concerns the whole text (`RE2::FullMatch`), so most expressions become one table-driven automaton behind a test of
//! their literal beginning.

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::Invalid;

/// Longest expression in bytes that is compiled.
const MAX_PATTERN: usize = 16 * 1024;
/// Most memory of one compiled program.
const MAX_PROGRAM: usize = 4 << 20;
/// An automaton above this size stays a lazily built one.
const MAX_AUTOMATON: usize = 64 << 10;

/// An expression that must match a whole text.
#[derive(Debug)]
pub struct FullMatch {
    pattern: Box<str>,
    /// Every match begins with these bytes.
    prefix: Box<[u8]>,
    /// Every match has at least this many bytes.
    min_length: usize,
    rest: Rest,
}

/// What is left to find out once the beginning matched.
#[derive(Debug)]
enum Rest {
    /// Nothing may follow.
    Nothing,
    /// Anything may follow but a line feed: `.*`.
    Anything,
    /// The automaton decides about the whole text.
    Automaton(Box<dense::DFA<Vec<u32>>>),
    /// The expression is too large for a table.
    Lazy(Box<regex::bytes::Regex>),
}

impl FullMatch {
    /// Compiles an expression in RE2 syntax.
    ///
    /// # Errors
    /// An empty or overlong expression, a syntax error, or a program of more than a few megabytes.
    pub fn build(pattern: &str) -> Result<Self, Invalid> {
        let translated = checked(pattern)?;
        let hir = parse(pattern, &translated)?;
        let min_length = hir.properties().minimum_len().unwrap_or(0);
        let (prefix, simple) = literal_prefix(&hir);
        let rest = match simple {
            Some(rest) => rest,
            None => general(pattern, &translated)?,
        };
        Ok(Self { pattern: pattern.into(), prefix: prefix.into(), min_length, rest })
    }

    /// Whether the whole text matches.
    #[inline]
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if text.len() < self.min_length || !text.starts_with(&self.prefix) {
            return false;
        }
        match &self.rest {
            Rest::Nothing => text.len() == self.prefix.len(),
            Rest::Anything => !text[self.prefix.len()..].contains(&b'\n'),
            Rest::Automaton(automaton) => {
                let input = Input::new(text).anchored(Anchored::Yes);
                // The automaton gives up on no byte, so an error cannot occur; it would be a mismatch.
                automaton.try_search_fwd(&input).is_ok_and(|found| found.is_some())
            }
            Rest::Lazy(regex) => regex.is_match(text),
        }
    }

    /// The expression as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pattern
    }
}

/// `RegexMatchAndSubstitute`: every match in a text is replaced.
#[derive(Debug)]
pub struct Substitution {
    regex: regex::bytes::Regex,
    /// `None` if the replacement names a group that does not exist: then nothing is replaced.
    parts: Option<Vec<Part>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    /// Compiles the expression and its replacement, in which `\0` … `\9` are groups and `\\` is a backslash. As in Envoy
    /// a replacement ends before a `\` that means neither, and one that names a group too many replaces nothing.
    ///
    /// # Errors
    /// As [`FullMatch::build`].
    pub fn build(pattern: &str, replacement: &str) -> Result<Self, Invalid> {
        let translated = checked(pattern).map_err(|invalid| invalid.under("pattern"))?;
        let regex = compile(pattern, &translated).map_err(|invalid| invalid.under("pattern"))?;
        let parts = parse_replacement(replacement, regex.captures_len());
        Ok(Self { regex, parts })
    }

    /// Appends the text with all non-overlapping matches replaced (`RE2::GlobalReplace`).
    pub fn replace_all(&self, text: &[u8], out: &mut Vec<u8>) {
        let Some(parts) = &self.parts else { return out.extend_from_slice(text) };
        let mut copied = 0;
        for captures in self.regex.captures_iter(text) {
            let Some(whole) = captures.get(0) else { continue };
            out.extend_from_slice(&text[copied..whole.start()]);
            for part in parts {
                match part {
                    Part::Literal(literal) => out.extend_from_slice(literal),
                    Part::Group(group) => {
                        out.extend_from_slice(captures.get(*group).map_or(b"", |found| found.as_bytes()));
                    }
                }
            }
            copied = whole.end();
        }
        out.extend_from_slice(&text[copied..]);
    }
}

fn checked(pattern: &str) -> Result<String, Invalid> {
    if pattern.is_empty() {
        return Err(Invalid::at("regex", "an expression must not be empty".into()));
    }
    if pattern.len() > MAX_PATTERN {
        return Err(Invalid::at("regex", format!("an expression has at most {MAX_PATTERN} bytes")));
    }
    lateen_xds::re2::translate(pattern)
        .map_err(|message| Invalid::at("regex", format!("`{pattern}` is not an RE2 expression: {message}")))
}

fn parse(pattern: &str, translated: &str) -> Result<Hir, Invalid> {
    regex_syntax::ParserBuilder::new().utf8(false).build().parse(translated).map_err(|error| {
        Invalid::at("regex", format!("`{pattern}` is not an RE2 expression: {}", last_line(&error.to_string())))
    })
}

fn compile(pattern: &str, translated: &str) -> Result<regex::bytes::Regex, Invalid> {
    regex::bytes::RegexBuilder::new(translated)
        .size_limit(MAX_PROGRAM)
        .build()
        .map_err(|error| Invalid::at("regex", format!("`{pattern}` was refused: {}", last_line(&error.to_string()))))
}

/// The crates draw the place of an error over several lines; the last one says what it is.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

fn general(pattern: &str, translated: &str) -> Result<Rest, Invalid> {
    let whole = format!(r"\A(?:{translated})\z");
    let regex = compile(pattern, &whole)?;
    Ok(automaton(&whole).map_or_else(|| Rest::Lazy(Box::new(regex)), |table| Rest::Automaton(Box::new(table))))
}

fn automaton(whole: &str) -> Option<dense::DFA<Vec<u32>>> {
    dense::Builder::new()
        .syntax(regex_automata::util::syntax::Config::new().utf8(false))
        .thompson(
            thompson::Config::new()
                .utf8(false)
                .nfa_size_limit(Some(MAX_PROGRAM))
                .which_captures(thompson::WhichCaptures::None),
        )
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(MAX_AUTOMATON))
                .determinize_size_limit(Some(4 * MAX_AUTOMATON)),
        )
        .build(whole)
        .ok()
}

/// The bytes with which every match begins, and what follows them if that is simple.
fn literal_prefix(hir: &Hir) -> (Vec<u8>, Option<Rest>) {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let mut prefix = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part.kind() {
            HirKind::Literal(literal) => prefix.extend_from_slice(&literal.0),
            HirKind::Empty => {}
            // What is anchored at the very beginning loses nothing by it.
            HirKind::Look(Look::Start) if prefix.is_empty() => {}
            HirKind::Look(Look::End) if index + 1 == parts.len() => {}
            HirKind::Repetition(repetition)
                if repetition.min == 0
                    && repetition.max.is_none()
                    && index + 1 == parts.len()
                    && is_dot(&repetition.sub) =>
            {
                return (prefix, Some(Rest::Anything));
            }
            _ => return (prefix, None),
        }
    }
    (prefix, Some(Rest::Nothing))
}

/// Whether an expression is `.`: any byte but a line feed.
fn is_dot(hir: &Hir) -> bool {
    let HirKind::Class(Class::Bytes(class)) = hir.kind() else { return false };
    let ranges: Vec<_> = class.iter().map(|range| (range.start(), range.end())).collect();
    ranges == [(0, b'\t'), (0xB, 0xFF)]
}

fn parse_replacement(text: &str, groups: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            literal.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => literal.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    return None;
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Group(group));
            }
            _ => break,
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        FullMatch::build(pattern).unwrap().matches(text.as_bytes())
    }

    fn replace(pattern: &str, replacement: &str, text: &str) -> String {
        let mut out = Vec::new();
        Substitution::build(pattern, replacement).unwrap().replace_all(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_whole_text_must_match() {
        assert!(matches("/a", "/a"));
        assert!(!matches("/a", "/ab"));
        assert!(!matches("a", "/a"));
        assert!(matches("a|ab", "ab"));
        assert!(matches("/api/v[0-9]+/.*", "/api/v12/users"));
        assert!(!matches("/api/v[0-9]+/.*", "/api/v/users"));
        assert!(matches("^/a$", "/a"));
    }

    #[test]
    fn literal_beginnings_are_tested_before_the_automaton() {
        let regex = FullMatch::build("/api/v[0-9]/x").unwrap();
        assert_eq!(&*regex.prefix, b"/api/v");
        assert_eq!(regex.min_length, 9);
        assert!(matches!(regex.rest, Rest::Automaton(_)));
        assert!(matches!(FullMatch::build("/plain").unwrap().rest, Rest::Nothing));
        assert!(matches!(FullMatch::build("/plain/.*").unwrap().rest, Rest::Anything));
        assert!(matches!(FullMatch::build("a|b").unwrap().rest, Rest::Automaton(_)));
    }

    #[test]
    fn a_dot_matches_every_byte_but_a_line_feed() {
        for pattern in ["/.*", "/(.*)", "/.+"] {
            let regex = FullMatch::build(pattern).unwrap();
            assert!(regex.matches("/ü".as_bytes()), "{pattern}");
            assert!(regex.matches(b"/\xff"), "{pattern}");
            assert!(!regex.matches(b"/a\nb"), "{pattern}");
        }
    }

    #[test]
    fn an_expression_too_large_for_a_table_is_built_lazily() {
        let regex = FullMatch::build("([a-z]+[0-9]+){1,60}x.{0,90}[aeiou].{20}").unwrap();
        assert!(matches!(regex.rest, Rest::Lazy(_)));
        assert!(regex.matches(b"a1b2xyzabcdefghijklmnopqrstu"));
    }

    #[test]
    fn huge_expressions_are_refused() {
        assert!(FullMatch::build(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(FullMatch::build("((a{1000}){1000}){1000}").is_err());
        assert!(FullMatch::build("").is_err());
    }

    #[test]
    fn all_matches_are_replaced_and_groups_are_inserted() {
        assert_eq!(replace("a", "b", "aXaa"), "bXbb");
        assert_eq!(
            replace("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api"),
            "/v1/api/instance/foo"
        );
        assert_eq!(replace("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(replace("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
        assert_eq!(replace("x*", "-", "abc"), "-a-b-c-");
        assert_eq!(replace("b", r"[\0\\]", "abc"), r"a[b\]c");
    }

    #[test]
    fn a_replacement_with_a_group_too_many_replaces_nothing() {
        assert_eq!(replace("a", r"\1", "/a"), "/a");
    }

    #[test]
    fn a_replacement_ends_before_an_unknown_escape() {
        assert_eq!(replace("a", r"\n", "/a"), "/");
        assert_eq!(replace("a", "b\\", "/a/a"), "/b/b");
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(Substitution::build("(", "").unwrap_err().path, "pattern.regex");
        assert_eq!(FullMatch::build("a**").unwrap_err().path, "regex");
    }

    proptest! {
        #[test]
        fn the_shortcuts_agree_with_the_plain_engine(
            pattern in r"/?[ab]{0,3}(\.\*|\.\+|\[ab\]|b\?|\(a\|b\))?[ab]{0,2}(\.\*)?",
            text in "/?[abc]{0,6}",
        ) {
            prop_assume!(!pattern.is_empty());
            let plain = regex::bytes::Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap();
            prop_assert_eq!(FullMatch::build(&pattern).unwrap().matches(text.as_bytes()), plain.is_match(text.as_bytes()));
        }
    }
}
