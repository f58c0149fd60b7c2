//! Does a request satisfy a condition of the configuration: on a text, a header, a query parameter, a cookie, the path?

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::route::v3 as route_v3;
use lateen_xds::envoy::r#type::matcher::v3 as matcher_v3;
use lateen_xds::envoy::r#type::v3 as type_v3;

use super::Invalid;
use super::regex::FullMatch;
use crate::http::head::{Head, HeaderName, Known};

/// Envoy's `StringMatcher`.
#[derive(Debug)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(FullMatch),
}

impl StringMatcher {
    /// Reads the message. `ignore_case` concerns ASCII letters.
    ///
    /// # Errors
    /// No pattern, an empty prefix, suffix or part, a regular expression that does not compile or is to ignore the case,
    /// a custom matcher.
    pub fn build(message: &matcher_v3::StringMatcher) -> Result<Self, Invalid> {
        use matcher_v3::string_matcher::MatchPattern;
        let not_empty = |text: &str, field: &str| {
            if text.is_empty() { Err(Invalid::at(field, "must not be empty".into())) } else { Ok(bytes(text)) }
        };
        let pattern = match &message.match_pattern {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(bytes(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(not_empty(text, "prefix")?),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(not_empty(text, "suffix")?),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(not_empty(text, "contains")?),
            Some(MatchPattern::SafeRegex(regex)) => Pattern::Regex(build_regex(regex, "safe_regex")?),
            Some(MatchPattern::Custom(_)) => return Err(unsupported("custom", "custom string matchers")),
            None => return Err(Invalid::at("match_pattern", "a string matcher needs a pattern".into())),
        };
        if message.ignore_case && matches!(pattern, Pattern::Regex(_)) {
            return Err(Invalid::at("ignore_case", "ignore_case has no effect for safe_regex.".into()));
        }
        Ok(Self { pattern, ignore_case: message.ignore_case })
    }

    fn exact(text: &str) -> Self {
        Self { pattern: Pattern::Exact(bytes(text)), ignore_case: false }
    }

    /// Whether the text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.ignore_case {
            return self.matches_ignoring_case(text);
        }
        match &self.pattern {
            Pattern::Exact(pattern) => text == &**pattern,
            Pattern::Prefix(pattern) => text.starts_with(pattern),
            Pattern::Suffix(pattern) => text.ends_with(pattern),
            Pattern::Contains(pattern) => text.windows(pattern.len()).any(|part| part == &**pattern),
            Pattern::Regex(regex) => regex.matches(text),
        }
    }

    fn matches_ignoring_case(&self, text: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(pattern) => text.eq_ignore_ascii_case(pattern),
            Pattern::Prefix(pattern) => starts_with_ignoring_case(text, pattern),
            Pattern::Suffix(pattern) => {
                text.len() >= pattern.len() && text[text.len() - pattern.len()..].eq_ignore_ascii_case(pattern)
            }
            Pattern::Contains(pattern) => text.windows(pattern.len()).any(|part| part.eq_ignore_ascii_case(pattern)),
            Pattern::Regex(regex) => regex.matches(text),
        }
    }
}

/// Envoy's `HeaderMatcher`: a condition on one header of a request or a response.
///
/// Several lines of one name are tested one by one, and one hit suffices; then `invert_match` turns the result round.
/// A missing header satisfies no condition on its value, inverted or not, unless it is to be treated as empty.
#[derive(Debug)]
pub struct HeaderMatcher {
    name: HeaderName,
    condition: HeaderCondition,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug)]
enum HeaderCondition {
    Present(bool),
    Range { start: i64, end: i64 },
    Text(StringMatcher),
}

impl HeaderMatcher {
    /// Reads the message; a message without a condition asks for presence.
    ///
    /// # Errors
    /// A text that is no header name, and what [`StringMatcher::build`] refuses.
    pub fn build(message: &route_v3::HeaderMatcher) -> Result<Self, Invalid> {
        use route_v3::header_matcher::HeaderMatchSpecifier as Specifier;
        let text = |pattern, field| -> Result<HeaderCondition, Invalid> {
            let message = matcher_v3::StringMatcher { match_pattern: Some(pattern), ignore_case: false };
            Ok(HeaderCondition::Text(
                StringMatcher::build(&message).map_err(|invalid| Invalid::at(field, invalid.message))?,
            ))
        };
        let condition = match &message.header_match_specifier {
            None => HeaderCondition::Present(true),
            Some(Specifier::PresentMatch(present)) => HeaderCondition::Present(*present),
            Some(Specifier::RangeMatch(range)) => HeaderCondition::Range { start: range.start, end: range.end },
            Some(Specifier::StringMatch(matcher)) => {
                HeaderCondition::Text(StringMatcher::build(matcher).map_err(|invalid| invalid.under("string_match"))?)
            }
            Some(Specifier::ExactMatch(exact)) => HeaderCondition::Text(StringMatcher::exact(exact)),
            Some(Specifier::SafeRegexMatch(regex)) => {
                text(matcher_v3::string_matcher::MatchPattern::SafeRegex(regex.clone()), "safe_regex_match")?
            }
            Some(Specifier::PrefixMatch(prefix)) => {
                text(matcher_v3::string_matcher::MatchPattern::Prefix(prefix.clone()), "prefix_match")?
            }
            Some(Specifier::SuffixMatch(suffix)) => {
                text(matcher_v3::string_matcher::MatchPattern::Suffix(suffix.clone()), "suffix_match")?
            }
            Some(Specifier::ContainsMatch(part)) => {
                text(matcher_v3::string_matcher::MatchPattern::Contains(part.clone()), "contains_match")?
            }
        };
        Ok(Self {
            name: header_name(&message.name, "name")?,
            condition,
            invert: message.invert_match,
            missing_is_empty: message.treat_missing_header_as_empty,
        })
    }

    /// Whether the head satisfies the condition.
    #[must_use]
    pub fn matches(&self, head: &Head) -> bool {
        if let HeaderCondition::Present(wanted) = self.condition {
            let present = self.missing_is_empty || head.has(&self.name);
            return (present == wanted) != self.invert;
        }
        let mut present = false;
        let hit = head.values(&self.name).any(|value| {
            present = true;
            self.condition.matches(value)
        });
        match (present, self.missing_is_empty) {
            (true, _) => hit != self.invert,
            (false, true) => self.condition.matches(b"") != self.invert,
            (false, false) => false,
        }
    }
}

impl HeaderCondition {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(wanted) => *wanted,
            Self::Text(matcher) => matcher.matches(value),
            Self::Range { start, end } => integer(value).is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

/// Envoy's `QueryParameterMatcher`: a condition on the first parameter of a name, as it stands in the path.
#[derive(Debug)]
pub struct QueryMatcher {
    name: Box<[u8]>,
    condition: QueryCondition,
}

#[derive(Debug)]
enum QueryCondition {
    Present(bool),
    Text(StringMatcher),
}

impl QueryMatcher {
    /// Reads the message; a message without a condition asks for presence.
    ///
    /// # Errors
    /// An empty name, and what [`StringMatcher::build`] refuses.
    pub fn build(message: &route_v3::QueryParameterMatcher) -> Result<Self, Invalid> {
        use route_v3::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
        if message.name.is_empty() {
            return Err(Invalid::at("name", "must not be empty".into()));
        }
        let condition = match &message.query_parameter_match_specifier {
            None => QueryCondition::Present(true),
            Some(Specifier::PresentMatch(present)) => QueryCondition::Present(*present),
            Some(Specifier::StringMatch(matcher)) => {
                QueryCondition::Text(StringMatcher::build(matcher).map_err(|invalid| invalid.under("string_match"))?)
            }
        };
        Ok(Self { name: bytes(&message.name), condition })
    }

    /// Whether the query of this path satisfies the condition.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let value = query_parameter(path, &self.name);
        match &self.condition {
            QueryCondition::Present(wanted) => value.is_some() == *wanted,
            QueryCondition::Text(matcher) => value.is_some_and(|value| matcher.matches(value)),
        }
    }
}

/// Envoy's `CookieMatcher`: a condition on the first cookie of a name.
#[derive(Debug)]
pub struct CookieMatcher {
    name: Box<[u8]>,
    matcher: StringMatcher,
    invert: bool,
}

impl CookieMatcher {
    /// Reads the message.
    ///
    /// # Errors
    /// An empty name, no condition, and what [`StringMatcher::build`] refuses.
    pub fn build(message: &route_v3::CookieMatcher) -> Result<Self, Invalid> {
        if message.name.is_empty() {
            return Err(Invalid::at("name", "must not be empty".into()));
        }
        let Some(matcher) = &message.string_match else {
            return Err(Invalid::at("string_match", "a cookie matcher needs a condition".into()));
        };
        let matcher = StringMatcher::build(matcher).map_err(|invalid| invalid.under("string_match"))?;
        Ok(Self { name: bytes(&message.name), matcher, invert: message.invert_match })
    }

    /// Whether the cookies of a request satisfy the condition.
    #[must_use]
    pub fn matches(&self, request: &Head) -> bool {
        cookie(request, &self.name).is_some_and(|value| self.matcher.matches(value)) != self.invert
    }
}

/// The path condition of a route; Envoy's `path_specifier` with `case_sensitive`.
#[derive(Debug)]
pub struct PathMatcher {
    rule: PathRule,
    ignore_case: bool,
}

/// The kind of a path condition and its text.
#[derive(Debug)]
pub enum PathRule {
    /// The path without its query begins with these bytes, whatever follows.
    Prefix(Box<[u8]>),
    /// The path without its query is this.
    Exact(Box<[u8]>),
    /// As a prefix, but a `/`, or the end of the path, must follow.
    SeparatedPrefix(Box<[u8]>),
    /// The path without its query matches as a whole.
    Regex(FullMatch),
    /// The request is a `CONNECT`.
    Connect,
}

impl PathMatcher {
    /// Reads `path_specifier` and `case_sensitive`, which no regular expression heeds.
    ///
    /// # Errors
    /// No path specifier, a path-separated prefix that ends in `/` or has a query, a regular expression that does not
    /// compile, a URI template.
    pub fn build(message: &route_v3::RouteMatch) -> Result<Self, Invalid> {
        use route_v3::route_match::PathSpecifier;
        let rule = match &message.path_specifier {
            Some(PathSpecifier::Prefix(prefix)) => PathRule::Prefix(bytes(prefix)),
            Some(PathSpecifier::Path(path)) => PathRule::Exact(bytes(path)),
            Some(PathSpecifier::SafeRegex(regex)) => PathRule::Regex(build_regex(regex, "safe_regex")?),
            Some(PathSpecifier::ConnectMatcher(_)) => PathRule::Connect,
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
                if prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                    let message = format!("`{prefix}` must not be empty, end in `/` or have a query; use prefix");
                    return Err(Invalid::at("path_separated_prefix", message));
                }
                PathRule::SeparatedPrefix(bytes(prefix))
            }
            Some(PathSpecifier::PathMatchPolicy(_)) => return Err(unsupported("path_match_policy", "URI templates")),
            None => return Err(Invalid::at("path_specifier", "a route needs a path condition".into())),
        };
        Ok(Self { rule, ignore_case: message.case_sensitive == Some(false) })
    }

    /// Whether a request with this path, its query and fragment cut off, is meant.
    #[inline]
    #[must_use]
    pub fn matches(&self, request: &Head, path: &[u8]) -> bool {
        let starts_with = |prefix: &[u8]| {
            if self.ignore_case { starts_with_ignoring_case(path, prefix) } else { path.starts_with(prefix) }
        };
        match &self.rule {
            // A CONNECT has no path, which only a connect matcher accepts.
            PathRule::Connect => request.method() == b"CONNECT",
            _ if path.is_empty() => false,
            PathRule::Prefix(prefix) => starts_with(prefix),
            PathRule::Exact(exact) => path.len() == exact.len() && starts_with(exact),
            PathRule::SeparatedPrefix(prefix) => {
                starts_with(prefix) && (path.len() == prefix.len() || path[prefix.len()] == b'/')
            }
            PathRule::Regex(regex) => regex.matches(path),
        }
    }

    /// The condition.
    #[must_use]
    pub fn rule(&self) -> &PathRule {
        &self.rule
    }

    /// How many bytes of a matching path, query cut off, a `prefix_rewrite` replaces: the prefix, or all of it.
    #[must_use]
    pub fn matched_length(&self, path: &[u8]) -> usize {
        match &self.rule {
            PathRule::Prefix(prefix) | PathRule::SeparatedPrefix(prefix) => prefix.len().min(path.len()),
            PathRule::Exact(_) | PathRule::Regex(_) | PathRule::Connect => path.len(),
        }
    }
}

/// Envoy's `FractionalPercent`: how many requests of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// So many …
    pub numerator: u32,
    /// … of 100, 10 000 or 1 000 000.
    pub denominator: u32,
}

impl Fraction {
    /// All requests.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };
    /// No request.
    pub const NONE: Self = Self { numerator: 0, denominator: 100 };

    /// Reads the message.
    ///
    /// # Errors
    /// An unknown denominator.
    pub fn build(message: &type_v3::FractionalPercent) -> Result<Self, Invalid> {
        use type_v3::fractional_percent::DenominatorType;
        let denominator = match DenominatorType::try_from(message.denominator) {
            Ok(DenominatorType::Hundred) => 100,
            Ok(DenominatorType::TenThousand) => 10_000,
            Ok(DenominatorType::Million) => 1_000_000,
            Err(_) => return Err(Invalid::at("denominator", format!("{} is no denominator", message.denominator))),
        };
        Ok(Self { numerator: message.numerator, denominator })
    }

    /// Reads a fraction that Envoy could override by a runtime key; this data plane has no runtime, so that the
    /// default counts.
    ///
    /// # Errors
    /// A missing default, or an unknown denominator.
    pub fn build_default(message: &core_v3::RuntimeFractionalPercent) -> Result<Self, Invalid> {
        let Some(default) = &message.default_value else {
            return Err(Invalid::at("default_value", "a fraction is required".into()));
        };
        Self::build(default).map_err(|invalid| invalid.under("default_value"))
    }

    /// Whether the request with this random number is one of them.
    #[must_use]
    pub fn includes(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

/// A path up to its query or fragment.
#[inline]
#[must_use]
pub fn without_query(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    &path[..end]
}

/// The first value of a query parameter as it stands in a path, not decoded; `Some("")` for `?name`.
#[must_use]
pub fn query_parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = path.iter().position(|byte| *byte == b'?')? + 1;
    let query = path[start..].split(|byte| *byte == b'#').next()?;
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let rest = pair.strip_prefix(name)?;
        match rest.first() {
            None => Some(rest),
            Some(b'=') => Some(&rest[1..]),
            Some(_) => None,
        }
    })
}

/// The value of the first cookie of a name, without quotes. Blanks count except before the name.
#[must_use]
pub fn cookie<'a>(request: &'a Head, name: &[u8]) -> Option<&'a [u8]> {
    request.get_all(Known::Cookie).flat_map(|line| line.split(|byte| *byte == b';')).find_map(|pair| {
        let start = pair.iter().position(|byte| *byte != b' ')?;
        let value = pair[start..].strip_prefix(name)?.strip_prefix(b"=")?;
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// A header name of the configuration.
///
/// # Errors
/// A text that cannot be one.
pub(super) fn header_name(text: &str, field: &str) -> Result<HeaderName, Invalid> {
    HeaderName::parse(text).map_err(|error| Invalid::at(field, format!("`{text}`: {error}")))
}

/// A finding about something that Envoy knows and this data plane does not.
pub(super) fn unsupported(path: &str, what: &str) -> Invalid {
    Invalid::at(path, format!("{what} are not supported"))
}

fn build_regex(message: &matcher_v3::RegexMatcher, field: &str) -> Result<FullMatch, Invalid> {
    FullMatch::build(&message.regex).map_err(|invalid| invalid.under(field))
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn starts_with_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix)
}

/// A decimal number that is the whole value but for blanks round it.
fn integer(value: &[u8]) -> Option<i64> {
    str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
