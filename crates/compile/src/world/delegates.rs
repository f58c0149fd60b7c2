//! What do rules mean that hand their requests to another VirtualService? The delegate's rules stand in their place,
//! each narrowed by the conditions of the rule that delegates.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Delegate, HttpMatchRequest, HttpRoute, StringMatch};

use super::virtual_services::{Rule, VirtualService};

/// Puts the rules of delegates in the places that name them. A rule whose delegate does not exist, or is not visible,
/// makes no route; delegates delegate no further. What equals its form in `previous` is the very same value.
pub(crate) fn merge<'a>(
    all: impl Iterator<Item = &'a Arc<VirtualService>> + Clone,
    previous: Option<&[Arc<VirtualService>]>,
) -> Vec<Arc<VirtualService>> {
    let delegates: BTreeMap<(&str, &str), &VirtualService> = all
        .clone()
        .filter(|virtual_service| virtual_service.is_delegate())
        .map(|delegate| ((&*delegate.namespace, &*delegate.name), &**delegate))
        .collect();
    let previous: BTreeMap<(&str, &str), &Arc<VirtualService>> = previous
        .into_iter()
        .flatten()
        .filter(|_| !delegates.is_empty())
        .map(|merged| ((&*merged.namespace, &*merged.name), merged))
        .collect();
    all.map(|root| {
        if root.is_delegate() || root.http.iter().all(|rule| rule.route.delegate.is_none()) {
            return root.clone();
        }
        let http = root.http.iter().flat_map(|rule| match &rule.route.delegate {
            None => vec![rule.clone()],
            Some(reference) => delegated(rule, find(&delegates, root, reference)),
        });
        let merged = VirtualService { http: http.collect(), ..(**root).clone() };
        let known = previous.get(&(&*root.namespace, &*root.name)).copied();
        known.filter(|known| ***known == merged).cloned().unwrap_or_else(|| Arc::new(merged))
    })
    .collect()
}

/// The delegate that a reference of `root` names, if `root` sees it.
fn find<'a>(
    delegates: &BTreeMap<(&str, &str), &'a VirtualService>,
    root: &VirtualService,
    reference: &Delegate,
) -> Option<&'a VirtualService> {
    let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let key = (namespace.unwrap_or(&root.namespace), reference.name.as_deref().unwrap_or_default());
    delegates.get(&key).copied().filter(|delegate| delegate.visibility.includes(&root.namespace))
}

fn delegated(rule: &Rule<HttpRoute>, delegate: Option<&VirtualService>) -> Vec<Rule<HttpRoute>> {
    let Some(delegate) = delegate else {
        return Vec::new();
    };
    // One level only: a delegate that delegates is not followed.
    let own = delegate.http.iter().filter(|own| own.route.delegate.is_none());
    own.filter_map(|own| {
        let route = merge_route(&rule.route, &own.route)?;
        Some(Rule { route, origin: own.origin.clone() })
    })
    .collect()
}

/// The rule that stands for both. `None` when a condition of the delegate contradicts the root's.
fn merge_route(root: &HttpRoute, own: &HttpRoute) -> Option<HttpRoute> {
    let matches = merge_matches(&root.r#match, &own.r#match)?;
    Some(HttpRoute {
        at: own.at,
        name: join(&root.name, &own.name),
        r#match: matches,
        route: own.route.clone(),
        redirect: own.redirect.clone(),
        direct_response: own.direct_response.clone().or_else(|| root.direct_response.clone()),
        delegate: None,
        rewrite: own.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: own.timeout.or(root.timeout),
        retries: own.retries.clone().or_else(|| root.retries.clone()),
        fault: own.fault.clone().or_else(|| root.fault.clone()),
        mirror: own.mirror.clone().or_else(|| root.mirror.clone()),
        mirrors: if own.mirrors.is_empty() { root.mirrors.clone() } else { own.mirrors.clone() },
        mirror_percent: own.mirror_percent.or(root.mirror_percent),
        mirror_percentage: own.mirror_percentage.clone().or_else(|| root.mirror_percentage.clone()),
        cors_policy: own.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: own.headers.clone().or_else(|| root.headers.clone()),
        websocket_upgrade: None,
    })
}

/// Names of both, joined; that of one where the other has none.
fn join(root: &Option<String>, own: &Option<String>) -> Option<String> {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    match (given(root), given(own)) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => root.or(own),
    }
}

/// Every pair of conditions that can hold together. `None` when some condition of the delegate fits none of the
/// root's: then the delegate's rule is left out as a whole.
fn merge_matches(root: &[HttpMatchRequest], own: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for own in own {
        let before = merged.len();
        merged.extend(root.iter().filter(|root| !conflict(root, own)).map(|root| merge_match(root, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, own: &HttpMatchRequest) -> HttpMatchRequest {
    fn union<V: Clone>(root: &BTreeMap<String, V>, own: &BTreeMap<String, V>) -> BTreeMap<String, V> {
        let mut union = root.clone();
        union.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        union
    }
    HttpMatchRequest {
        at: own.at,
        name: join(&root.name, &own.name),
        uri: own.uri.clone().or_else(|| root.uri.clone()),
        scheme: own.scheme.clone().or_else(|| root.scheme.clone()),
        method: own.method.clone().or_else(|| root.method.clone()),
        authority: own.authority.clone().or_else(|| root.authority.clone()),
        headers: union(&root.headers, &own.headers),
        port: own.port.filter(|port| *port != 0).or(root.port),
        source_labels: union(&root.source_labels, &own.source_labels),
        gateways: if own.gateways.is_empty() { root.gateways.clone() } else { own.gateways.clone() },
        query_params: union(&root.query_params, &own.query_params),
        ignore_uri_case: own.ignore_uri_case || root.ignore_uri_case,
        without_headers: union(&root.without_headers, &own.without_headers),
        source_namespace: own.source_namespace.clone().or_else(|| root.source_namespace.clone()),
        stat_prefix: own.stat_prefix.clone().or_else(|| root.stat_prefix.clone()),
    }
}

/// True when no request fulfils both, or when that cannot be told (regular expressions).
fn conflict(root: &HttpMatchRequest, own: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    if texts.into_iter().any(|(root, own)| texts_conflict(root.as_ref(), own.as_ref())) {
        return true;
    }
    let maps = [
        (&root.headers, &own.headers),
        (&root.without_headers, &own.without_headers),
        (&root.query_params, &own.query_params),
    ];
    let maps_conflict = maps.into_iter().any(|(root, own)| {
        root.iter().any(|(key, root)| own.get(key).is_some_and(|own| texts_conflict(root.as_ref(), own.as_ref())))
    });
    let ports_conflict = match (root.port.unwrap_or(0), own.port.unwrap_or(0)) {
        (0, _) | (_, 0) => false,
        (root, own) => root != own,
    };
    let labels_conflict =
        root.source_labels.iter().any(|(key, root)| own.source_labels.get(key).is_some_and(|own| own != root));
    let namespace = |request: &HttpMatchRequest| request.source_namespace.clone().unwrap_or_default();
    let namespaces_conflict = !namespace(root).is_empty() && namespace(root) != namespace(own);
    let gateways_conflict =
        !root.gateways.is_empty() && own.gateways.iter().any(|gateway| !root.gateways.contains(gateway));
    maps_conflict
        || ports_conflict
        || labels_conflict
        || namespaces_conflict
        || gateways_conflict
        || (root.ignore_uri_case != own.ignore_uri_case && root.uri.is_some() && own.uri.is_some())
}

fn texts_conflict(root: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let (Some(root), Some(own)) = (root, own) else {
        return false;
    };
    match (root, own) {
        (StringMatch::Unset, _) | (_, StringMatch::Unset) => false,
        (StringMatch::Regex(_), _) | (_, StringMatch::Regex(_)) => true,
        (StringMatch::Exact(root), StringMatch::Exact(own)) => root != own,
        (StringMatch::Exact(_), StringMatch::Prefix(_)) => true,
        (StringMatch::Prefix(root), StringMatch::Exact(own) | StringMatch::Prefix(own)) => !own.starts_with(root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(uri: StringMatch) -> HttpMatchRequest {
        HttpMatchRequest { uri: Some(uri), ..Default::default() }
    }

    fn prefix(text: &str) -> HttpMatchRequest {
        uri(StringMatch::Prefix(text.to_owned()))
    }

    fn exact(text: &str) -> HttpMatchRequest {
        uri(StringMatch::Exact(text.to_owned()))
    }

    #[test]
    fn a_narrower_condition_of_the_delegate_takes_the_place_of_the_roots() {
        let merged = merge_matches(&[prefix("/cart")], &[prefix("/cart/v2"), exact("/cart")]).unwrap();
        assert_eq!(
            merged.iter().map(|request| request.uri.clone()).collect::<Vec<_>>(),
            [Some(StringMatch::Prefix("/cart/v2".to_owned())), Some(StringMatch::Exact("/cart".to_owned())),]
        );
    }

    #[test]
    fn one_condition_that_fits_nowhere_drops_the_whole_rule() {
        assert_eq!(merge_matches(&[prefix("/cart")], &[prefix("/cart/v2"), prefix("/other")]), None);
        assert_eq!(merge_matches(&[exact("/cart")], &[prefix("/cart")]), None);
        assert_eq!(merge_matches(&[uri(StringMatch::Regex(".*".into()))], &[exact("/cart")]), None);
    }

    #[test]
    fn gateways_of_the_delegate_have_to_be_among_the_roots() {
        let on = |gateways: &[&str]| HttpMatchRequest {
            gateways: gateways.iter().map(|gateway| (*gateway).to_owned()).collect(),
            ..Default::default()
        };
        assert!(!conflict(&on(&["a/edge", "mesh"]), &on(&["a/edge"])));
        assert!(conflict(&on(&["a/edge"]), &on(&["mesh"])));
        assert!(!conflict(&on(&[]), &on(&["mesh"])));
    }

    #[test]
    fn names_are_joined_where_both_have_one() {
        assert_eq!(join(&Some("root".into()), &Some("own".into())).as_deref(), Some("root-own"));
        assert_eq!(join(&None, &Some("own".into())).as_deref(), Some("own"));
        assert_eq!(join(&Some("root".into()), &Some(String::new())).as_deref(), Some("root"));
    }
}
