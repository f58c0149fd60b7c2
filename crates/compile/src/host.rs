//! When do two host names mean the same host, and which of two is the narrower one?
//!
//! A host is a wildcard when its first character is `*`: `*` is every host, `*.example.com` every name
//! that ends with `.example.com` (not `example.com` itself). All comparisons are byte-wise; whoever builds
//! an index lower-cases first (see [`lower`]).

use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;
use std::sync::Arc;

/// True for `*` and `*.suffix`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// True when every name that `narrow` stands for is also one that `wide` stands for.
pub fn covers(wide: &str, narrow: &str) -> bool {
    match (wide.strip_prefix('*'), narrow.strip_prefix('*')) {
        (Some(wide), Some(narrow)) => narrow.ends_with(wide),
        (Some(wide), None) => narrow.ends_with(wide),
        (None, Some(_)) => false,
        (None, None) => wide == narrow,
    }
}

/// True when one of the two covers the other.
pub fn overlaps(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// Orders hosts from the most specific to the least: exact names before wildcards, longer before
/// shorter, then by text.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    (is_wildcard(a), Reverse(a.len()), a).cmp(&(is_wildcard(b), Reverse(b.len()), b))
}

/// The hosts that two lists have in common; of two overlapping names the narrower one. Each host once,
/// in the order of `left`, then `right`.
pub fn intersect<'a>(left: &[&'a str], right: &[&'a str]) -> Vec<&'a str> {
    let mut common: Vec<&'a str> = Vec::new();
    for a in left {
        for b in right {
            let narrower = if covers(b, a) {
                *a
            } else if covers(a, b) {
                *b
            } else {
                continue;
            };
            if !common.contains(&narrower) {
                common.push(narrower);
            }
        }
    }
    common
}

/// Expands a short name with the namespace of the object that contains it: `reviews` in namespace
/// `shop` becomes `reviews.shop.svc.<domain>`. Names with a dot, `*`, IP literals and the empty
/// name stay as they are (so `reviews.shop` is *not* expanded). The result is lower-case.
pub fn resolve(name: &str, namespace: &str, domain: &str) -> Arc<str> {
    if name.is_empty() || name.contains('.') || is_wildcard(name) || is_ip(name) {
        return lower(name);
    }
    lower(&format!("{name}.{namespace}.svc.{domain}"))
}

/// The reference form of a gateway in a VirtualService, as `namespace/name`, or `mesh` unchanged:
/// `name` and `./name` are in the VirtualService's own namespace, the old form `name.namespace[.svc…]`
/// is split at the dots.
pub fn resolve_gateway(reference: &str, namespace: &str) -> Arc<str> {
    if reference == MESH {
        return MESH.into();
    }
    match reference.split_once('/') {
        Some((".", name)) => format!("{namespace}/{name}").into(),
        Some(_) => reference.into(),
        None => {
            let mut labels = reference.split('.');
            let name = labels.next().unwrap_or_default();
            let namespace = labels.next().unwrap_or(namespace);
            format!("{namespace}/{name}").into()
        }
    }
}

/// The reserved gateway name that stands for every sidecar.
pub const MESH: &str = "mesh";

/// Lower-case form of a host as it is used in indexes and virtual hosts.
pub fn lower(host: &str) -> Arc<str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// True for an IPv4 or IPv6 literal without brackets.
pub fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// The candidate that looks most like `name`, if one is close enough to be what somebody meant.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate, limit), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != name)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (insert, delete, replace, swap of neighbours), at most `limit + 1`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            current[j] = replace.min(previous[j] + 1).min(current[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                current[j] = current[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()].min(limit + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_names_below_it_and_not_the_bare_domain() {
        assert!(covers("*", "a.com"));
        assert!(covers("*", "*.com"));
        assert!(covers("*.foo.com", "a.foo.com"));
        assert!(covers("*.foo.com", "a.b.foo.com"));
        assert!(covers("*.com", "*.foo.com"));
        assert!(!covers("*.foo.com", "foo.com"));
        assert!(!covers("*.foo.com", "*.com"));
        assert!(!covers("a.foo.com", "*.foo.com"));
        assert!(!covers("a.foo.com", "b.foo.com"));
        assert!(overlaps("a.foo.com", "*.foo.com"));
    }

    #[test]
    fn the_intersection_keeps_the_narrower_name_once() {
        assert_eq!(
            intersect(&["*.foo.com", "bar.com"], &["a.foo.com", "*", "bar.com"]),
            ["a.foo.com", "*.foo.com", "bar.com"]
        );
        assert!(intersect(&["a.com"], &["b.com"]).is_empty());
    }

    #[test]
    fn exact_names_come_before_longer_wildcards() {
        let mut hosts = ["*", "*.foo.com", "b.com", "a.com", "*.com", "a.foo.com"];
        hosts.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(hosts, ["a.foo.com", "a.com", "b.com", "*.foo.com", "*.com", "*"]);
    }

    #[test]
    fn only_names_without_a_dot_are_expanded() {
        let resolve = |name| resolve(name, "shop", "cluster.local").to_string();
        assert_eq!(resolve("reviews"), "reviews.shop.svc.cluster.local");
        assert_eq!(resolve("Reviews"), "reviews.shop.svc.cluster.local");
        assert_eq!(resolve("reviews.prod"), "reviews.prod");
        assert_eq!(resolve("*"), "*");
        assert_eq!(resolve("::1"), "::1");
        assert_eq!(resolve(""), "");
    }

    #[test]
    fn gateway_references_get_a_namespace() {
        let resolve = |name| resolve_gateway(name, "shop").to_string();
        assert_eq!(resolve("mesh"), "mesh");
        assert_eq!(resolve("main"), "shop/main");
        assert_eq!(resolve("./main"), "shop/main");
        assert_eq!(resolve("edge/main"), "edge/main");
        assert_eq!(resolve("main.edge.svc.cluster.local"), "edge/main");
    }

    #[test]
    fn the_closest_name_is_offered_only_when_it_is_close() {
        let known = ["reviews", "ratings", "details"];
        assert_eq!(closest("reviws", known), Some("reviews"));
        assert_eq!(closest("raitngs", known), Some("ratings"));
        assert_eq!(closest("productpage", known), None);
        assert_eq!(closest("details", known), None);
    }
}
