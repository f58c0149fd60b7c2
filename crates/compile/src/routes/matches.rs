//! Which requests does a rule take? One `HTTPMatchRequest` as an Envoy route match.

use lateen_config::{HttpMatchRequest, StringMatch};
use lateen_xds::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher, query_parameter_matcher, route_match,
};
use lateen_xds::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher, metadata_matcher, value_matcher,
};

use super::table::every_path;
use crate::message;

/// The route match; without a request match it takes every path. `separates_paths`: a prefix ends where a slash is, or
/// the path does.
pub(crate) fn compile(request: Option<&HttpMatchRequest>, separates_paths: bool) -> RouteMatch {
    let Some(request) = request else {
        return every_path();
    };
    let path = match request.uri.as_ref() {
        Some(StringMatch::Exact(path)) => route_match::PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) if separates_paths && prefix != "/" => {
            route_match::PathSpecifier::PathSeparatedPrefix(prefix.trim_end_matches('/').to_owned())
        }
        Some(StringMatch::Prefix(prefix)) => route_match::PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(pattern)) => route_match::PathSpecifier::SafeRegex(message::regex(pattern)),
        Some(StringMatch::Unset) | None => route_match::PathSpecifier::Prefix("/".to_owned()),
    };
    // Sorted by name; the pseudo headers follow in a fixed order.
    let is_header = |(name, _): &(&String, &Option<StringMatch>)| !is_claim(name);
    let mut headers: Vec<HeaderMatcher> =
        request.headers.iter().filter(is_header).map(|(name, value)| header(name, value.as_ref())).collect();
    let without = request.without_headers.iter().filter(is_header);
    headers.extend(without.map(|(name, value)| without_header(name, value.as_ref())));
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let pseudo = [(":method", &request.method), (":authority", &request.authority), (":scheme", &request.scheme)];
    headers.extend(pseudo.into_iter().filter_map(|(name, value)| Some(header(name, Some(value.as_ref()?)))));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: Some(!request.ignore_uri_case),
        headers,
        query_parameters: request
            .query_params
            .iter()
            .map(|(name, value)| QueryParameterMatcher {
                name: name.clone(),
                query_parameter_match_specifier: Some(match value.as_ref().and_then(string) {
                    Some(matcher) => query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(matcher),
                    None => query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(true),
                }),
            })
            .collect(),
        dynamic_metadata: [(&request.headers, false), (&request.without_headers, true)]
            .into_iter()
            .flat_map(|(entries, invert)| entries.iter().map(move |(name, value)| (name, value.as_ref(), invert)))
            .filter_map(|(name, value, invert)| Some(claim(&claim_path(name)?, value, invert)))
            .collect(),
        ..Default::default()
    }
}

/// How a match names a claim of a JWT, in any case: in the place of a header.
const CLAIMS: &str = "@request.auth.claims";

/// True for a header of a match that stands for a claim of a JWT.
pub(crate) fn is_claim(header: &str) -> bool {
    header.get(..CLAIMS.len()).is_some_and(|start| start.eq_ignore_ascii_case(CLAIMS))
}

/// The keys that lead to a claim: `@request.auth.claims.a.b`, or `@request.auth.claims[a][b]` for keys with dots.
/// `None` when the header names no claim.
pub(crate) fn claim_path(header: &str) -> Option<Vec<&str>> {
    if !is_claim(header) {
        return None;
    }
    let rest = header.get(CLAIMS.len()..)?;
    let keys: Vec<&str> = match rest.strip_prefix('.') {
        Some(keys) => keys.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    keys.iter().all(|key| !key.is_empty()).then_some(keys)
}

/// A condition on what the JWT filter found in a request's token: the claim is the value, or a list that has it.
fn claim(path: &[&str], value: Option<&StringMatch>, invert: bool) -> MetadataMatcher {
    let segment = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    let is = |pattern| ValueMatcher { match_pattern: Some(pattern) };
    let pattern = match value.and_then(string) {
        None => value_matcher::MatchPattern::PresentMatch(true),
        Some(text) => {
            let own = is(value_matcher::MatchPattern::StringMatch(text));
            let one_of = list_matcher::MatchPattern::OneOf(Box::new(own.clone()));
            let list = Box::new(ListMatcher { match_pattern: Some(one_of) });
            value_matcher::MatchPattern::OrMatch(OrMatcher {
                value_matchers: vec![own, is(value_matcher::MatchPattern::ListMatch(list))],
            })
        }
    };
    MetadataMatcher {
        filter: JWT_FILTER.to_owned(),
        path: std::iter::once(&"payload").chain(path).map(|key| segment(key)).collect(),
        value: Some(is(pattern)),
        invert,
    }
}

/// Name of the JWT filter, under which it leaves what it found.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// A matcher for a value; `None` where only presence is asked for: no kind given, or Istio's `regex: "*"`.
pub(crate) fn string(value: &StringMatch) -> Option<StringMatcher> {
    match value {
        StringMatch::Exact(text) => Some(message::exact(text)),
        StringMatch::Prefix(text) => Some(message::prefix(text)),
        StringMatch::Regex(pattern) if pattern == "*" => None,
        StringMatch::Regex(pattern) => Some(message::safe_regex(pattern)),
        StringMatch::Unset => None,
    }
}

fn header(name: &str, value: Option<&StringMatch>) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(match value.and_then(string) {
            Some(matcher) => header_matcher::HeaderMatchSpecifier::StringMatch(matcher),
            None => header_matcher::HeaderMatchSpecifier::PresentMatch(true),
        }),
        ..Default::default()
    }
}

/// The opposite of [`header`]. A header that is not there counts as empty, so that "not `v`" holds for it.
fn without_header(name: &str, value: Option<&StringMatch>) -> HeaderMatcher {
    let matcher = header(name, value);
    let presence =
        matches!(matcher.header_match_specifier, Some(header_matcher::HeaderMatchSpecifier::PresentMatch(_)));
    HeaderMatcher { invert_match: true, treat_missing_header_as_empty: !presence, ..matcher }
}
