//! Does a value, header or query parameter fit Envoy's matcher, and if it does not, how is that said?

use std::borrow::Cow;

use lateen_xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use lateen_xds::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use lateen_xds::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use lateen_xds::envoy::r#type::matcher::v3::metadata_matcher::path_segment;
use lateen_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use lateen_xds::envoy::r#type::matcher::v3::{
    MetadataMatcher, StringMatcher, ValueMatcher, list_matcher, value_matcher,
};

use super::call::Call;

/// Longest value that is quoted in full.
const MAX_QUOTED: usize = 80;

/// Nested matchers beyond this depth match nothing.
const MAX_DEPTH: usize = 16;

/// The filter that checks tokens, under whose name their claims are found.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// Largest program of an expression in bytes.
const MAX_PROGRAM: usize = 4 << 20;

/// Whether an RE2 expression matches all of a text; an expression that cannot be compiled matches nothing.
pub(crate) fn full_match(pattern: &str, text: &str) -> bool {
    compile(pattern, true).is_some_and(|regex| regex.is_match(text.as_bytes()))
}

/// Replaces every match of an RE2 expression; `\1` in the substitution is the first group, `\0` the whole match.
pub(crate) fn replace_all(pattern: &str, text: &str, substitution: &str) -> Option<String> {
    let regex = compile(pattern, false)?;
    let replaced = regex.replace_all(text.as_bytes(), |captures: &regex::bytes::Captures<'_>| {
        let mut out = Vec::new();
        let mut characters = substitution.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some(digit) if digit.is_ascii_digit() => {
                        let group = digit.to_digit(10).and_then(|digit| captures.get(digit as usize));
                        out.extend_from_slice(group.map(|group| group.as_bytes()).unwrap_or_default());
                    }
                    Some(other) => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => {}
                },
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out
    });
    Some(String::from_utf8_lossy(&replaced).into_owned())
}

fn compile(pattern: &str, full: bool) -> Option<regex::bytes::Regex> {
    let translated = lateen_xds::re2::translate(pattern).ok()?;
    let text = if full { format!(r"\A(?:{translated})\z") } else { translated };
    regex::bytes::RegexBuilder::new(&text).size_limit(MAX_PROGRAM).build().ok()
}

/// A value in backquotes, cut when it is long.
pub(crate) fn quote(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("`{}…`", &value[..end]),
        None => format!("`{value}`"),
    }
}

/// One condition on a text, in the form that all matchers are brought into.
enum Condition<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Contains(&'a str),
    Regex(&'a str),
    Range(i64, i64),
    /// A kind of matcher that needs more than the text.
    Unknown,
}

impl Condition<'_> {
    fn of(matcher: &StringMatcher) -> Condition<'_> {
        match &matcher.match_pattern {
            Some(MatchPattern::Exact(text)) => Condition::Exact(text),
            Some(MatchPattern::Prefix(text)) => Condition::Prefix(text),
            Some(MatchPattern::Suffix(text)) => Condition::Suffix(text),
            Some(MatchPattern::Contains(text)) => Condition::Contains(text),
            Some(MatchPattern::SafeRegex(regex)) => Condition::Regex(&regex.regex),
            _ => Condition::Unknown,
        }
    }

    fn holds(&self, value: &str, ignore_case: bool) -> bool {
        let fold = |text: &'_ str| -> String { text.to_ascii_lowercase() };
        let test = |wanted: &str, test: fn(&str, &str) -> bool| {
            if ignore_case { test(&fold(value), &fold(wanted)) } else { test(value, wanted) }
        };
        match self {
            Condition::Exact(wanted) => test(wanted, |value, wanted| value == wanted),
            Condition::Prefix(wanted) => test(wanted, |value, wanted| value.starts_with(wanted)),
            Condition::Suffix(wanted) => test(wanted, |value, wanted| value.ends_with(wanted)),
            Condition::Contains(wanted) => test(wanted, |value, wanted| value.contains(wanted)),
            // Letter case is the expression's own affair.
            Condition::Regex(pattern) => full_match(pattern, value),
            Condition::Range(start, end) => value.parse::<i64>().is_ok_and(|number| (*start..*end).contains(&number)),
            Condition::Unknown => false,
        }
    }

    /// What the value does not do.
    fn negation(&self) -> String {
        match self {
            Condition::Exact(wanted) => format!("is not exactly {}", quote(wanted)),
            Condition::Prefix(wanted) => format!("does not begin with {}", quote(wanted)),
            Condition::Suffix(wanted) => format!("does not end with {}", quote(wanted)),
            Condition::Contains(wanted) => format!("does not contain {}", quote(wanted)),
            Condition::Regex(pattern) => format!("does not match the expression {}", quote(pattern)),
            Condition::Range(start, end) => format!("is not a number from {start} to below {end}"),
            Condition::Unknown => "is compared in a way that cannot be judged here".to_owned(),
        }
    }

    /// What the value does, and should not.
    fn affirmation(&self) -> String {
        match self {
            Condition::Exact(wanted) => format!("is exactly {}", quote(wanted)),
            Condition::Prefix(wanted) => format!("begins with {}", quote(wanted)),
            Condition::Suffix(wanted) => format!("ends with {}", quote(wanted)),
            Condition::Contains(wanted) => format!("contains {}", quote(wanted)),
            Condition::Regex(pattern) => format!("matches the expression {}", quote(pattern)),
            Condition::Range(start, end) => format!("is a number from {start} to below {end}"),
            Condition::Unknown => "is compared in a way that cannot be judged here".to_owned(),
        }
    }
}

/// Whether a text fits; the error says why not, in a sentence about `subject`.
pub(crate) fn string(matcher: &StringMatcher, subject: &str, value: &str) -> Result<(), String> {
    let condition = Condition::of(matcher);
    if condition.holds(value, matcher.ignore_case) { Ok(()) } else { Err(mismatch(subject, value, &condition)) }
}

fn mismatch(subject: &str, shown: &str, condition: &Condition<'_>) -> String {
    let shown = quote(shown);
    match condition {
        // The commonest case deserves the shortest sentence.
        Condition::Exact(wanted) => format!("{subject} is {shown}, not exactly {}", quote(wanted)),
        other => format!("{subject} is {shown}: it {}", other.negation()),
    }
}

/// Whether the headers of a call fit. Each line of a header is looked at on its own; one that fits is enough.
pub(crate) fn header(matcher: &HeaderMatcher, call: &Call) -> Result<(), String> {
    let name = matcher.name.to_ascii_lowercase();
    let subject = subject(&name);
    let values = call.header(&name);
    if let Some(HeaderMatchSpecifier::PresentMatch(wanted)) = &matcher.header_match_specifier {
        return match (!values.is_empty(), *wanted != matcher.invert_match) {
            (true, false) => Err(format!("{subject} is there, and must not be")),
            (false, true) => Err(format!("{subject} is missing")),
            _ => Ok(()),
        };
    }
    let Some(specifier) = &matcher.header_match_specifier else {
        let present = !values.is_empty();
        return if present != matcher.invert_match { Ok(()) } else { Err(format!("{subject} is missing")) };
    };
    let values = match values.as_slice() {
        // A matcher for a value never fits a header that is not there, not even inverted.
        [] if !matcher.treat_missing_header_as_empty => return Err(format!("{subject} is missing")),
        [] => Cow::Borrowed(&[""][..]),
        values => Cow::Borrowed(values),
    };
    let (condition, ignore_case) = condition_of(specifier);
    let fits = values.iter().any(|value| condition.holds(value, ignore_case));
    if fits != matcher.invert_match {
        return Ok(());
    }
    let shown = values.join("`, `");
    Err(if matcher.invert_match {
        format!("{subject} is {}: it {}, and must not", quote(&shown), condition.affirmation())
    } else {
        mismatch(&subject, &shown, &condition)
    })
}

fn condition_of(specifier: &HeaderMatchSpecifier) -> (Condition<'_>, bool) {
    match specifier {
        HeaderMatchSpecifier::StringMatch(matcher) => (Condition::of(matcher), matcher.ignore_case),
        HeaderMatchSpecifier::ExactMatch(text) => (Condition::Exact(text), false),
        HeaderMatchSpecifier::PrefixMatch(text) => (Condition::Prefix(text), false),
        HeaderMatchSpecifier::SuffixMatch(text) => (Condition::Suffix(text), false),
        HeaderMatchSpecifier::ContainsMatch(text) => (Condition::Contains(text), false),
        HeaderMatchSpecifier::SafeRegexMatch(regex) => (Condition::Regex(&regex.regex), false),
        HeaderMatchSpecifier::RangeMatch(range) => (Condition::Range(range.start, range.end), false),
        HeaderMatchSpecifier::PresentMatch(_) => (Condition::Unknown, false),
    }
}

/// How a sentence about a header begins.
fn subject(name: &str) -> String {
    match name {
        ":method" => "the method".to_owned(),
        ":authority" | "host" => "the host".to_owned(),
        ":scheme" => "the scheme".to_owned(),
        ":path" => "the path with its query".to_owned(),
        _ => format!("header `{name}`"),
    }
}

/// Whether the claims of a call fit, which another filter takes out of a token. Other metadata is not known.
pub(crate) fn claim(matcher: &MetadataMatcher, call: &Call) -> Result<(), String> {
    let mut keys = matcher
        .path
        .iter()
        .filter_map(|segment| segment.segment.as_ref().map(|path_segment::Segment::Key(key)| key.as_str()));
    if matcher.filter != JWT_FILTER || keys.next() != Some("payload") {
        return Err(format!("it asks for metadata of `{}`, which is not known here", matcher.filter));
    }
    let name = keys.collect::<Vec<_>>().join(".");
    let values: Vec<&str> =
        call.claims.iter().filter(|(claim, _)| *claim == name).map(|(_, value)| value.as_str()).collect();
    let fits = matcher.value.as_ref().is_some_and(|wanted| fits_any(wanted, &values, 0));
    match (fits, matcher.invert, values.is_empty()) {
        (true, false, _) | (false, true, _) => Ok(()),
        (false, false, true) => Err(format!("the token has no claim `{name}`")),
        (false, false, false) => {
            Err(format!("claim `{name}` is {}, which is not asked for", quote(&values.join("`, `"))))
        }
        (true, true, _) => Err(format!("claim `{name}` is {}, and must not be", quote(&values.join("`, `")))),
    }
}

/// Whether one of the values of a claim fits.
fn fits_any(wanted: &ValueMatcher, values: &[&str], depth: usize) -> bool {
    match &wanted.match_pattern {
        _ if depth > MAX_DEPTH => false,
        Some(value_matcher::MatchPattern::StringMatch(matcher)) => {
            values.iter().any(|value| Condition::of(matcher).holds(value, matcher.ignore_case))
        }
        Some(value_matcher::MatchPattern::BoolMatch(wanted)) => values.contains(&wanted.to_string().as_str()),
        Some(value_matcher::MatchPattern::PresentMatch(wanted)) => *wanted != values.is_empty(),
        Some(value_matcher::MatchPattern::NullMatch(_)) => values.is_empty(),
        Some(value_matcher::MatchPattern::OrMatch(or)) => {
            or.value_matchers.iter().any(|wanted| fits_any(wanted, values, depth + 1))
        }
        Some(value_matcher::MatchPattern::ListMatch(list)) => match &list.match_pattern {
            Some(list_matcher::MatchPattern::OneOf(wanted)) => fits_any(wanted, values, depth + 1),
            None => false,
        },
        Some(value_matcher::MatchPattern::DoubleMatch(_)) | None => false,
    }
}

/// Whether the query of a path fits. The first parameter of the name counts, as it was sent.
pub(crate) fn query_parameter(matcher: &QueryParameterMatcher, path: &str) -> Result<(), String> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let value = query.split('&').find_map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name == matcher.name).then_some(value)
    });
    let subject = format!("query parameter `{}`", matcher.name);
    match (&matcher.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::StringMatch(matcher)), Some(value)) => string(matcher, &subject, value),
        (Some(QueryParameterMatchSpecifier::PresentMatch(false)), Some(_)) => {
            Err(format!("{subject} is there, and must not be"))
        }
        (Some(QueryParameterMatchSpecifier::PresentMatch(false)), None) | (_, Some(_)) => Ok(()),
        (_, None) => Err(format!("{subject} is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> HeaderMatcher {
        let matcher = StringMatcher { match_pattern: Some(MatchPattern::Exact(text.into())), ..Default::default() };
        HeaderMatcher {
            name: "x".into(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
            ..Default::default()
        }
    }

    fn call(lines: &[&str]) -> Call {
        Call { headers: lines.iter().map(|line| ("X".to_owned(), line.to_string())).collect(), ..Call::default() }
    }

    #[test]
    fn every_line_of_a_header_is_matched_on_its_own() {
        assert_eq!(header(&exact("b"), &call(&["a", "b"])), Ok(()));
        assert_eq!(header(&exact("a,b"), &call(&["a", "b"])), Err("header `x` is `a`, `b`, not exactly `a,b`".into()));
        assert_eq!(header(&exact("a,b"), &call(&["a,b"])), Ok(()));
    }

    #[test]
    fn a_missing_header_fits_no_value_unless_it_counts_as_empty() {
        let inverted = HeaderMatcher { invert_match: true, ..exact("a") };
        assert_eq!(header(&inverted, &call(&[])), Err("header `x` is missing".into()));
        let lenient = HeaderMatcher { treat_missing_header_as_empty: true, ..inverted };
        assert_eq!(header(&lenient, &call(&[])), Ok(()));
        assert_eq!(header(&lenient, &call(&["a"])), Err("header `x` is `a`: it is exactly `a`, and must not".into()));
    }

    #[test]
    fn expressions_match_all_of_a_text_in_re2_syntax() {
        assert!(full_match(r"/\d+", "/42"));
        assert!(!full_match(r"/\d+", "/42/x"));
        assert!(!full_match(r"\d", "٣"));
        assert!(!full_match("(", "("));
    }

    #[test]
    fn substitutions_use_groups_by_number() {
        assert_eq!(replace_all("^/([a-z]+)/(.*)$", "/a/b", r"/\2/\1"), Some("/b/a".into()));
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts() {
        let matcher =
            |specifier| QueryParameterMatcher { name: "q".into(), query_parameter_match_specifier: Some(specifier) };
        let value = StringMatcher { match_pattern: Some(MatchPattern::Exact("1".into())), ..Default::default() };
        let value = matcher(QueryParameterMatchSpecifier::StringMatch(value));
        assert_eq!(query_parameter(&value, "/?q=1&q=2"), Ok(()));
        assert_eq!(query_parameter(&value, "/?q=2&q=1"), Err("query parameter `q` is `2`, not exactly `1`".into()));
        let present = matcher(QueryParameterMatchSpecifier::PresentMatch(true));
        assert_eq!(query_parameter(&present, "/?a&q"), Ok(()));
        assert_eq!(query_parameter(&present, "/?a"), Err("query parameter `q` is missing".into()));
    }
}
