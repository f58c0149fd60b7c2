//! How is an RE2 expression written in the syntax of the `regex` crates?
//!
//! Envoy runs RE2 on bytes (its Latin-1 mode): a character is a byte, be it in a pattern or in a text, and only ASCII letters
//! have a case. Further differences: the Perl classes and word boundaries of RE2 are ASCII; inside `[…]` RE2 knows no nested
//! classes and no set operations; `\Q…\E`, `\C`, octal escapes and a literal `{` exist in RE2 only; repetitions are limited;
//! back references and look-around exist in neither.

use std::fmt::Write as _;

use regex_syntax::hir::{Class, HirKind};

/// Writes an expression anew; what is wrong with it otherwise is left to the parser of the crates.
///
/// # Errors
/// An escape or group that RE2 does not know, an unclosed class, a repetition of a repetition or more than 1000 of them.
pub fn translate(pattern: &str) -> Result<String, String> {
    let latin: String = pattern.bytes().map(char::from).collect();
    let mut translator = Translator { rest: &latin, out: String::with_capacity(pattern.len() + 16) };
    translator.out.push_str("(?-u)");
    let mut repeated = false;
    while let Some(next) = translator.take() {
        let repetition = match next {
            '\\' => translator.escape().map(|()| false)?,
            '[' => translator.class().map(|()| false)?,
            '(' => translator.group().map(|()| false)?,
            '{' => translator.brace()?,
            '*' | '+' | '?' => {
                translator.out.push(next);
                true
            }
            '^' | '$' | '.' | '|' | ')' => {
                translator.out.push(next);
                false
            }
            other => {
                translator.literal(other);
                false
            }
        };
        if repetition && repeated {
            return Err("a repetition repeats nothing".into());
        }
        if repetition && translator.take_if("?") {
            translator.out.push('?');
        }
        repeated = repetition;
    }
    Ok(translator.out)
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
}

/// RE2 counts no further.
const MAX_REPETITION: u32 = 1000;
const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0C\r ";
const WORD: &str = "0-9A-Za-z_";

impl Translator<'_> {
    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn take_if(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A character that means itself, inside or outside a class.
    fn literal(&mut self, character: char) {
        if character.is_ascii_alphanumeric() || matches!(character, '/' | '_') {
            self.out.push(character);
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.out, "\\x{:02X}", u32::from(character));
        }
    }

    /// After a `\` outside a class.
    fn escape(&mut self) -> Result<(), String> {
        let Some(next) = self.take() else { return Err("a trailing `\\`".into()) };
        match next {
            'd' | 's' | 'w' => self.perl_class(next, false),
            'D' | 'S' | 'W' => self.perl_class(next.to_ascii_lowercase(), true),
            'b' => self.out.push_str(r"\b"),
            'B' => self.out.push_str(r"\B"),
            'A' => self.out.push_str(r"\A"),
            'z' => self.out.push_str(r"\z"),
            'C' => self.out.push_str("(?s:.)"),
            'Q' => self.quoted(),
            'p' | 'P' => {
                self.out.push('[');
                self.property(next)?;
                self.out.push(']');
            }
            other => {
                let character = self.character(other)?;
                self.literal(character);
            }
        }
        Ok(())
    }

    fn perl_class(&mut self, name: char, negated: bool) {
        let negation = if negated { "^" } else { "" };
        let _ = write!(self.out, "[{negation}{}]", perl_ranges(name));
    }

    /// `\Q…\E`; without `\E` up to the end.
    fn quoted(&mut self) {
        let (quoted, rest) = match self.rest.split_once(r"\E") {
            Some((quoted, rest)) => (quoted, rest),
            None => (self.rest, ""),
        };
        self.rest = rest;
        for character in quoted.chars() {
            self.literal(character);
        }
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`: the ranges of those of their characters that are bytes.
    fn property(&mut self, letter: char) -> Result<(), String> {
        let mut negated = letter == 'P';
        let name = if self.take_if("{") {
            let Some((name, rest)) = self.rest.split_once('}') else {
                return Err(format!("`\\{letter}{{` without `}}`"));
            };
            self.rest = rest;
            match name.strip_prefix('^') {
                Some(name) => {
                    negated = !negated;
                    name
                }
                None => name,
            }
            .to_owned()
        } else {
            match self.take() {
                Some(name) => name.to_string(),
                None => return Err(format!("a trailing `\\{letter}`")),
            }
        };
        let ranges = latin_ranges(&name, negated)?;
        if ranges.is_empty() {
            // A class without bytes still is one.
            self.out.push_str(r"[^\x00-\xFF]");
        }
        for (low, high) in ranges {
            let _ = write!(self.out, "\\x{low:02X}-\\x{high:02X}");
        }
        Ok(())
    }

    /// The character that an escape stands for; `first` followed the `\`.
    fn character(&mut self, first: char) -> Result<char, String> {
        let unknown = || Err(format!("the escape `\\{first}` does not exist"));
        match first {
            'a' => Ok('\x07'),
            'f' => Ok('\x0C'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0B'),
            'x' => self.hexadecimal(),
            '1'..='7' if !self.rest.starts_with(|next: char| next.is_digit(8)) => unknown(),
            '0'..='7' => {
                let mut code = first.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|next| next.to_digit(8)) else { break };
                    self.rest = &self.rest[1..];
                    code = code * 8 + digit;
                }
                u8::try_from(code).map_or_else(|_| unknown(), |code| Ok(char::from(code)))
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Ok(other),
            _ => unknown(),
        }
    }

    /// `\x7F` or `\x{10FFFF}`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits = if self.take_if("{") {
            let Some((digits, rest)) = self.rest.split_once('}') else { return Err("`\\x{` without `}`".into()) };
            self.rest = rest;
            digits
        } else {
            let Some((digits, rest)) = self.rest.split_at_checked(2) else { return Err("an incomplete `\\x`".into()) };
            self.rest = rest;
            digits
        };
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let code = if plain { u32::from_str_radix(digits, 16).ok() } else { None };
        let byte = code.and_then(|code| u8::try_from(code).ok());
        byte.map(char::from).ok_or_else(|| format!("`{digits}` is not the number of a byte"))
    }

    /// After a `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.take_if("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.take_if("]") {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if self.class_in_class()? {
                continue;
            }
            let low = self.class_character()?;
            self.literal(low);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
                self.rest = &self.rest[1..];
                let high = self.class_character()?;
                if high < low {
                    return Err(format!("the range `{low}-{high}` is empty"));
                }
                self.out.push('-');
                self.literal(high);
            }
        }
    }

    /// `[:alpha:]`, `\d` or `\pL` inside a class.
    fn class_in_class(&mut self) -> Result<bool, String> {
        if self.rest.starts_with("[:")
            && let Some(end) = self.rest.find(":]")
        {
            let (name, rest) = self.rest.split_at(end + 2);
            let letters = name.trim_start_matches("[:").trim_start_matches('^').trim_end_matches(":]");
            if !letters.chars().all(|letter| letter.is_ascii_lowercase()) {
                return Err(format!("`{name}` is no character class"));
            }
            self.out.push_str(name);
            self.rest = rest;
            return Ok(true);
        }
        let mut characters = self.rest.chars();
        if characters.next() != Some('\\') {
            return Ok(false);
        }
        let Some(letter) = characters.next() else { return Ok(false) };
        match letter {
            'd' | 's' | 'w' => self.out.push_str(perl_ranges(letter)),
            'D' | 'S' | 'W' => {
                let _ = write!(self.out, "[^{}]", perl_ranges(letter.to_ascii_lowercase()));
            }
            'p' | 'P' => {
                self.rest = &self.rest[2..];
                self.property(letter)?;
                return Ok(true);
            }
            _ => return Ok(false),
        }
        self.rest = &self.rest[2..];
        Ok(true)
    }

    fn class_character(&mut self) -> Result<char, String> {
        match self.take() {
            None => Err("a `[` without `]`".into()),
            Some('\\') => match self.take() {
                None => Err("a trailing `\\`".into()),
                Some(next) => self.character(next),
            },
            Some(other) => Ok(other),
        }
    }

    /// After a `(`: of the extensions RE2 knows names and the flags `i`, `m`, `s` and `U`.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if !self.take_if("?") {
            return Ok(());
        }
        self.out.push('?');
        let named = self.rest.starts_with("P<") || self.rest.starts_with('<');
        let end = self.rest.find(if named { &['>'][..] } else { &[':', ')'][..] });
        let Some(end) = end else { return Err("an unfinished group".into()) };
        let (head, rest) = self.rest.split_at(end + 1);
        let known = if named {
            let name = head.trim_start_matches('P').trim_matches(['<', '>']);
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        } else {
            head[..end].chars().all(|flag| matches!(flag, 'i' | 'm' | 's' | 'U' | '-'))
        };
        if !known {
            return Err(format!("the group `(?{head}` does not exist"));
        }
        self.out.push_str(head);
        self.rest = rest;
        Ok(())
    }

    /// After a `{`, which is literal unless it is a repetition. Tells whether it is one.
    fn brace(&mut self) -> Result<bool, String> {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let repetition = self.rest.split_once('}').filter(|(inside, _)| match inside.split_once(',') {
            Some((low, high)) => number(low) && (high.is_empty() || number(high)),
            None => number(inside),
        });
        let Some((inside, rest)) = repetition else {
            self.literal('{');
            return Ok(false);
        };
        let mut counts = inside.split(',').filter(|count| !count.is_empty());
        if !counts.all(|count| count.parse::<u32>().is_ok_and(|count| count <= MAX_REPETITION)) {
            return Err(format!("invalid repetition size: {{{inside}}}"));
        }
        let _ = write!(self.out, "{{{inside}}}");
        self.rest = rest;
        Ok(true)
    }
}

/// The bytes in a Unicode class, or those that are not in it.
fn latin_ranges(name: &str, negated: bool) -> Result<Vec<(u32, u32)>, String> {
    let unknown = || format!("`{name}` is no Unicode class");
    if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err(unknown());
    }
    let letter = if negated { 'P' } else { 'p' };
    let hir = regex_syntax::parse(&format!("[\\{letter}{{{name}}}]")).map_err(|_| unknown())?;
    let ranges: Vec<_> = match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()
        }
        HirKind::Literal(literal) => {
            String::from_utf8_lossy(&literal.0).chars().map(|one| (u32::from(one), u32::from(one))).collect()
        }
        _ => return Err(unknown()),
    };
    Ok(ranges.into_iter().filter(|(low, _)| *low < 0x100).map(|(low, high)| (low, high.min(0xFF))).collect())
}

fn perl_ranges(name: char) -> &'static str {
    match name {
        'd' => DIGIT,
        's' => SPACE,
        _ => WORD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &[u8]) -> bool {
        let translated = translate(pattern).unwrap();
        regex::bytes::Regex::new(&format!(r"\A(?:{translated})\z")).unwrap().is_match(text)
    }

    #[test]
    fn perl_classes_are_ascii() {
        assert!(matches(r"\d+", b"42"));
        assert!(!matches(r"\d", "٣".as_bytes()));
        assert!(!matches(r"\w+", "ä".as_bytes()));
        assert!(matches(r"[\w-]+", b"a-b_c"));
        assert!(matches(r"[^\d]", b"x"));
        assert!(matches(r"[\D]", b"x"));
        assert!(!matches(r"\s", b"\x0B"));
        assert!(matches(r"\S\W", b"a-"));
        assert!(matches(r"a\b-\Ba?", b"a-"));
    }

    #[test]
    fn classes_know_no_nesting_and_no_set_operations() {
        assert!(matches(r"[[]", b"["));
        assert!(matches(r"[a&&b]+", b"a&b"));
        assert!(matches(r"[a~~b]+", b"~"));
        assert!(matches(r"[a-c--]+", b"b-"));
        assert!(matches(r"[]a]+", b"]a"));
        assert!(matches(r"[^]a]", b"b"));
        assert!(matches(r"[a-]+", b"-a"));
        assert!(matches(r"[-a]+", b"-a"));
        assert!(matches(r"[[:alpha:]_]+", b"a_"));
        assert!(matches(r"[\]\\]+", br"]\"));
    }

    #[test]
    fn quoting_octal_and_any_byte_exist() {
        assert!(matches(r"\Qa.b\E.", b"a.bx"));
        assert!(matches(r"\Q*", b"*"));
        assert!(matches(r"\101\x42\x{43}\012", b"ABC\n"));
        assert!(matches(r"a\Cb", b"a\xffb"));
        assert!(matches(r"\<\>\-\/\_", b"<>-/_"));
    }

    #[test]
    fn a_character_is_a_byte() {
        assert!(matches("^.$", b"\xe4"));
        assert!(!matches("^.$", "ä".as_bytes()));
        assert!(matches("..", "ä".as_bytes()));
        assert!(matches("ä", "ä".as_bytes()));
        assert!(matches("[ä]", b"\xc3"));
        assert!(matches("[^a]", b"\xff"));
        assert!(matches(r"\x{e4}", b"\xe4"));
        assert!(matches(r"\pL+", b"a\xe4"));
        assert!(!matches(r"\pL+", "ä".as_bytes()));
        assert!(!matches(r"\p{Greek}", "α".as_bytes()));
        assert!(matches(r"[\P{L}_]", b"1"));
    }

    #[test]
    fn only_ascii_letters_have_a_case() {
        assert!(matches("(?i)k", b"K"));
        assert!(!matches("(?i)k", "\u{212a}".as_bytes()));
        assert!(!matches(r"(?i)\xe4", b"\xc4"));
        assert!(!matches("(?i)ä", "Ä".as_bytes()));
    }

    #[test]
    fn repetitions_are_limited_and_repeat_no_repetition() {
        assert!(matches("a{1000}", &b"a".repeat(1000)));
        assert!(translate("a{1001}").is_err());
        assert!(translate("a**").is_err());
        assert!(translate("a{2}+").is_err());
        assert!(matches("a+?b??", b"a"));
        assert!(matches("(a*)*", b"aa"));
    }

    #[test]
    fn a_brace_that_repeats_nothing_is_literal() {
        assert!(matches(r"/a/{id}", b"/a/{id}"));
        assert!(matches(r"a{2}", b"aa"));
        assert!(matches(r"a{1,}", b"aaa"));
        assert!(matches(r"a{,2}", b"a{,2}"));
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for pattern in [
            r"\1",
            r"\y",
            r"\E",
            r"\Z",
            r"(?=a)",
            r"(?<!a)",
            r"(?x)a",
            r"[a",
            r"[z-a]",
            r"[a-\d]",
            "\\",
            r"\x{100}",
            r"\xZZ",
            r"\p{Nope}",
        ] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn flags_and_names_are_kept() {
        assert!(matches(r"(?i)abc", b"AbC"));
        assert!(matches(r"(?P<x>a)(?<y>b)(?s:.)", b"ab\n"));
    }

    proptest! {
        #[test]
        fn translation_never_panics(pattern in "\\PC{0,40}") {
            let _ = translate(&pattern);
        }

        #[test]
        fn translation_of_nearly_valid_expressions_never_panics(pattern in r"[\\\[\](){}^$*+?.|a-dQEpx0-9:,-]{0,24}") {
            if let Ok(translated) = translate(&pattern) {
                let _ = regex_syntax::ParserBuilder::new().utf8(false).build().parse(&translated);
            }
        }
    }
}
