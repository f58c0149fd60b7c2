//! Which route of a virtual host takes a request, and why do the others not?

use lateen_xds::envoy::config::route::v3::route_match::PathSpecifier;
use lateen_xds::envoy::config::route::v3::{Route, RouteMatch};

use super::call::{Call, CallTls};
use super::matcher::{self, quote};

/// Whether a route takes a request; the error says what stands against it. `path` is the path with query after
/// normalisation.
pub(crate) fn matches(route: &Route, call: &Call, path: &str) -> Result<(), String> {
    let Some(criteria) = &route.r#match else { return Err("it matches nothing".to_owned()) };
    self::path(criteria, call, path)?;
    for header in &criteria.headers {
        matcher::header(header, call)?;
    }
    for parameter in &criteria.query_parameters {
        matcher::query_parameter(parameter, path)?;
    }
    if criteria.grpc.is_some() && !call.is_grpc() {
        return Err("it is for gRPC, and the content type is not".to_owned());
    }
    if let Some(tls) = &criteria.tls_context {
        let presented = call.tls == CallTls::Mutual;
        if tls.presented.is_some_and(|wanted| wanted != presented) {
            let reason = if presented { "without a certificate" } else { "with a certificate" };
            return Err(format!("it is for clients {reason}"));
        }
    }
    if let Some(fraction) = criteria.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value.as_ref())
        && fraction.numerator == 0
    {
        return Err("it takes 0 % of the requests".to_owned());
    }
    for metadata in &criteria.dynamic_metadata {
        matcher::claim(metadata, call)?;
    }
    if !criteria.filter_state.is_empty() {
        return Err("it asks for the state of a filter, which is not known here".to_owned());
    }
    Ok(())
}

fn path(criteria: &RouteMatch, call: &Call, path: &str) -> Result<(), String> {
    let path = without_query(path);
    let fold = |text: &str| match criteria.case_sensitive {
        Some(false) => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    };
    let lost = |how: &str, wanted: &str| Err(format!("path {} {how} {}", quote(path), quote(wanted)));
    match &criteria.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) if fold(path).starts_with(&fold(prefix)) => Ok(()),
        Some(PathSpecifier::Prefix(prefix)) => lost("does not begin with", prefix),
        Some(PathSpecifier::Path(wanted)) if fold(path) == fold(wanted) => Ok(()),
        Some(PathSpecifier::Path(wanted)) => lost("is not exactly", wanted),
        Some(PathSpecifier::SafeRegex(regex)) if matcher::full_match(&regex.regex, path) => Ok(()),
        Some(PathSpecifier::SafeRegex(regex)) => lost("does not match all of the expression", &regex.regex),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let below =
                fold(path).strip_prefix(&fold(prefix)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if below { Ok(()) } else { lost("is neither at nor below", prefix) }
        }
        Some(PathSpecifier::ConnectMatcher(_)) if call.method == "CONNECT" => Ok(()),
        Some(PathSpecifier::ConnectMatcher(_)) => Err(format!("it is for CONNECT, not {}", call.method)),
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            Err("it matches by a path template, which is not judged here".to_owned())
        }
        None => Err("it matches no path".to_owned()),
    }
}

/// A path up to its query.
pub(crate) fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// What a route is for, in a few words: `path prefix `/api``.
pub(crate) fn title(route: &Route) -> String {
    let criteria = route.r#match.as_ref();
    let path = match criteria.and_then(|criteria| criteria.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => {
            format!("prefix {}", quote(prefix))
        }
        Some(PathSpecifier::Path(path)) => format!("path {}", quote(path)),
        Some(PathSpecifier::SafeRegex(regex)) => format!("expression {}", quote(&regex.regex)),
        Some(PathSpecifier::ConnectMatcher(_)) => "CONNECT".to_owned(),
        Some(PathSpecifier::PathMatchPolicy(_)) => "path template".to_owned(),
        None => "nothing".to_owned(),
    };
    match route.name.as_str() {
        "" => path,
        name => format!("route `{name}` ({path})"),
    }
}
