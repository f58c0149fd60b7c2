//! What does a route do with a request? It sends it to clusters, redirects, or answers; and what do path and host
//! become on the way?

use lateen_xds::envoy::config::core::v3::{DataSource, data_source};
use lateen_xds::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use lateen_xds::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use lateen_xds::envoy::config::route::v3::route_match::PathSpecifier;
use lateen_xds::envoy::config::route::v3::{DirectResponseAction, RedirectAction, Route, RouteAction};

use super::call::Call;
use super::explanation::{DirectResponse, Redirect};
use super::matcher;
use super::route::without_query;
use super::virtual_host::without_port;

/// Names and weights of the clusters of an action, or why there are none.
pub(crate) fn clusters(action: &RouteAction, call: &Call) -> Result<Vec<(String, u32)>, String> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![(name.clone(), 1)]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => Ok(weighted
            .clusters
            .iter()
            .map(|cluster| {
                let name = match cluster.name.as_str() {
                    "" => call.header(&cluster.cluster_header.to_ascii_lowercase()).concat(),
                    name => name.to_owned(),
                };
                (name, cluster.weight.unwrap_or(0))
            })
            .collect()),
        Some(ClusterSpecifier::ClusterHeader(header)) => {
            match call.header(&header.to_ascii_lowercase()).first().filter(|name| !name.is_empty()) {
                Some(name) => Ok(vec![((*name).to_owned(), 1)]),
                None => Err(format!("503: header `{header}` names the cluster, and it is missing")),
            }
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err("an extension chooses the cluster, which is not judged here".to_owned())
        }
        None => Err("503: the route names no cluster".to_owned()),
    }
}

/// The path that the endpoint sees.
pub(crate) fn rewritten_path(route: &Route, action: &RouteAction, path: &str) -> String {
    let bare = without_query(path);
    let query = &path[bare.len()..];
    if let Some(rewrite) = &action.regex_rewrite {
        let pattern = rewrite.pattern.as_ref().map_or("", |pattern| &pattern.regex);
        return match matcher::replace_all(pattern, bare, &rewrite.substitution) {
            Some(new) => format!("{new}{query}"),
            None => path.to_owned(),
        };
    }
    if action.prefix_rewrite.is_empty() { path.to_owned() } else { with_prefix(route, path, &action.prefix_rewrite) }
}

/// The matched prefix replaced; after a match of the whole path, the whole path. The query stays.
fn with_prefix(route: &Route, path: &str, new: &str) -> String {
    let matched = match route.r#match.as_ref().and_then(|criteria| criteria.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix.len(),
        _ => without_query(path).len(),
    };
    format!("{new}{}", path.get(matched..).unwrap_or_default())
}

/// The host that the endpoint sees, if the route changes it; the error says what it will be when it is not known yet.
pub(crate) fn rewritten_host(action: &RouteAction, call: &Call, path: &str) -> Option<String> {
    match action.host_rewrite_specifier.as_ref()? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => Some(host.clone()),
        HostRewriteSpecifier::AutoHostRewrite(true) => Some("the host name of the endpoint".to_owned()),
        HostRewriteSpecifier::AutoHostRewrite(false) => None,
        HostRewriteSpecifier::HostRewriteHeader(header) => {
            call.header(&header.to_ascii_lowercase()).first().map(|host| (*host).to_owned())
        }
        HostRewriteSpecifier::HostRewritePathRegex(rewrite) => {
            let pattern = rewrite.pattern.as_ref().map_or("", |pattern| &pattern.regex);
            matcher::replace_all(pattern, without_query(path), &rewrite.substitution)
        }
        _ => None,
    }
}

/// Status and location of a redirect.
pub(crate) fn redirect(route: &Route, action: &RedirectAction, call: &Call, path: &str) -> Redirect {
    let status = match action.response_code() {
        RedirectResponseCode::MovedPermanently => 301,
        RedirectResponseCode::Found => 302,
        RedirectResponseCode::SeeOther => 303,
        RedirectResponseCode::TemporaryRedirect => 307,
        RedirectResponseCode::PermanentRedirect => 308,
    };
    let scheme = match &action.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https",
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => scheme,
        _ => call.scheme(),
    };
    let mut host = match action.host_redirect.as_str() {
        "" => kept_host(call, scheme, action.port_redirect != 0).to_owned(),
        host => host.to_owned(),
    };
    if action.port_redirect != 0 {
        host = format!("{host}:{}", action.port_redirect);
    }
    let query = &path[without_query(path).len()..];
    let mut strip_query = action.strip_query;
    let mut new_path = match &action.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(new)) if !new.is_empty() => {
            if new.contains('?') {
                strip_query = false;
                new.clone()
            } else {
                format!("{new}{query}")
            }
        }
        Some(PathRewriteSpecifier::PrefixRewrite(new)) if !new.is_empty() => with_prefix(route, path, new),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            let pattern = rewrite.pattern.as_ref().map_or("", |pattern| &pattern.regex);
            let new = matcher::replace_all(pattern, without_query(path), &rewrite.substitution);
            new.map_or_else(|| path.to_owned(), |new| format!("{new}{query}"))
        }
        _ => path.to_owned(),
    };
    if !new_path.starts_with('/') {
        new_path.insert(0, '/');
    }
    if strip_query {
        new_path.truncate(without_query(&new_path).len());
    }
    Redirect { status, location: format!("{scheme}://{host}{new_path}") }
}

/// The host of the request, without a port that another one replaces or that was the default of another scheme.
fn kept_host<'a>(call: &'a Call, scheme: &str, other_port: bool) -> &'a str {
    let bare = without_port(&call.authority);
    let default = match (&call.authority[bare.len()..], call.scheme()) {
        (":443", "https") | (":80", "http") => scheme != call.scheme(),
        _ => false,
    };
    if other_port || default { bare } else { &call.authority }
}

/// Status and size of an answer.
pub(crate) fn direct_response(action: &DirectResponseAction) -> DirectResponse {
    let size = |source: &DataSource| match &source.specifier {
        Some(data_source::Specifier::InlineString(text)) => Some(text.len()),
        Some(data_source::Specifier::InlineBytes(bytes)) => Some(bytes.len()),
        Some(_) => None,
        None => Some(0),
    };
    let body = action.body.as_ref().map_or(Some(0), size);
    DirectResponse { status: action.status, body: if action.body_format.is_some() { None } else { body } }
}

#[cfg(test)]
mod tests {
    use lateen_xds::envoy::config::route::v3::RouteMatch;

    use super::*;

    fn route(prefix: &str) -> Route {
        let criteria = RouteMatch { path_specifier: Some(PathSpecifier::Prefix(prefix.into())), ..Default::default() };
        Route { r#match: Some(criteria), ..Default::default() }
    }

    fn call(authority: &str, path: &str) -> Call {
        Call { authority: authority.into(), path: path.into(), ..Call::default() }
    }

    #[test]
    fn a_prefix_rewrite_replaces_the_matched_part() {
        let action = RouteAction { prefix_rewrite: "/new".into(), ..Default::default() };
        assert_eq!(rewritten_path(&route("/old"), &action, "/old/a?q"), "/new/a?q");
        let exact = Route {
            r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Path("/x".into())), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(rewritten_path(&exact, &action, "/x?q"), "/new?q");
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let location = |action: &RedirectAction, authority, path| {
            redirect(&route("/"), action, &call(authority, path), path).location
        };
        let to_https = RedirectAction {
            scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::SchemeRedirect("https".into())),
            ..Default::default()
        };
        assert_eq!(location(&to_https, "a.com:80", "/x?q"), "https://a.com/x?q");
        assert_eq!(location(&to_https, "a.com:8080", "/x"), "https://a.com:8080/x");
        let elsewhere = RedirectAction {
            host_redirect: "b.com".into(),
            port_redirect: 8080,
            path_rewrite_specifier: Some(PathRewriteSpecifier::PathRedirect("/new".into())),
            ..Default::default()
        };
        assert_eq!(location(&elsewhere, "a.com", "/x?q"), "http://b.com:8080/new?q");
    }
}
