//! Which requests does a rule take? One `HTTPMatchRequest` as an Envoy route match.

use lateen_config::{HttpMatchRequest, StringMatch};
use lateen_xds::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher, query_parameter_matcher, route_match,
};
use lateen_xds::envoy::r#type::matcher::v3::StringMatcher;

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
    let mut headers: Vec<HeaderMatcher> =
        request.headers.iter().map(|(name, value)| header(name, value.as_ref())).collect();
    headers.extend(request.without_headers.iter().map(|(name, value)| without_header(name, value.as_ref())));
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
        ..Default::default()
    }
}

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
