//! Which virtual host has a host name, and which ones look as if they should have?

use lateen_xds::Part;
use lateen_xds::Resource;
use lateen_xds::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::explanation::Tried;
use super::matcher::quote;
use crate::host;

/// Most near misses that are spoken of.
const MAX_NEAR: usize = 3;

/// The virtual host of a host name: an exact domain, else the longest suffix wildcard (`*.example.com`), else the
/// longest prefix wildcard (`www.*`), else `*`.
pub(crate) fn select<'a>(routes: &'a RouteConfiguration, authority: &str) -> Option<(usize, &'a VirtualHost, &'a str)> {
    let name = searched(routes, authority);
    let mut best: Option<((u8, usize), usize, &VirtualHost, &str)> = None;
    for (index, virtual_host) in routes.virtual_hosts.iter().enumerate() {
        for domain in &virtual_host.domains {
            let Some(rank) = rank(domain, &name) else { continue };
            if best.is_none_or(|(known, ..)| rank > known) {
                best = Some((rank, index, virtual_host, domain));
            }
        }
    }
    best.map(|(_, index, virtual_host, domain)| (index, virtual_host, domain))
}

/// Virtual hosts whose names are close to the one asked for.
pub(crate) fn near_misses(routes: &Resource<RouteConfiguration>, authority: &str, chosen: Option<usize>) -> Vec<Tried> {
    let name = searched(&routes.message, authority);
    let mut near = Vec::new();
    for (index, virtual_host) in routes.message.virtual_hosts.iter().enumerate() {
        if Some(index) == chosen || near.len() == MAX_NEAR {
            continue;
        }
        if let Some(domain) = virtual_host.domains.iter().find(|domain| is_near(domain, &name)) {
            near.push(Tried {
                origin: routes.origin(Part::VirtualHost(index)).cloned(),
                reason: format!("host {} is not {}", quote(&name), quote(domain)),
            });
        }
    }
    near
}

/// What is compared with domains.
fn searched(routes: &RouteConfiguration, authority: &str) -> String {
    let name = if routes.ignore_port_in_host_matching { without_port(authority) } else { authority };
    name.to_ascii_lowercase()
}

/// `a.com` of `a.com:80`, `[::1]` of `[::1]:80`.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // A bare IPv6 address is full of colons.
            if name.contains(':') && !name.ends_with(']') { authority } else { name }
        }
        _ => authority,
    }
}

/// How well a domain fits: kind first, then length.
fn rank(domain: &str, name: &str) -> Option<(u8, usize)> {
    let domain = domain.to_ascii_lowercase();
    if domain == "*" {
        return Some((0, 0));
    }
    if domain == *name {
        return Some((3, domain.len()));
    }
    // A wildcard stands for one character at least.
    if name.len() < domain.len() {
        return None;
    }
    if let Some(suffix) = domain.strip_prefix('*') {
        return name.ends_with(suffix).then_some((2, suffix.len()));
    }
    if let Some(prefix) = domain.strip_suffix('*') {
        return name.starts_with(prefix).then_some((1, prefix.len()));
    }
    None
}

/// One name is the beginning of the other up to a dot, or a mistyped form of it.
fn is_near(domain: &str, name: &str) -> bool {
    let domain = domain.trim_start_matches("*.").to_ascii_lowercase();
    if domain.is_empty() || domain == "*" || name.is_empty() {
        return false;
    }
    let begins = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
    begins(&domain, name)
        || begins(name, &domain)
        || domain == *name
        || host::closest(name, [domain.as_str()]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_of<'a>(domains: &[&'a str], authority: &str, ignore_port: bool) -> Option<&'a str> {
        let routes = RouteConfiguration {
            virtual_hosts: domains
                .iter()
                .map(|domain| VirtualHost {
                    name: domain.to_string(),
                    domains: vec![domain.to_string()],
                    ..Default::default()
                })
                .collect(),
            ignore_port_in_host_matching: ignore_port,
            ..Default::default()
        };
        select(&routes, authority).map(|(index, ..)| domains[index])
    }

    #[test]
    fn domains_are_searched_exact_then_suffix_then_prefix_then_all() {
        let domains = ["*", "www.*", "*.example.com", "*.a.example.com", "www.example.com"];
        for (host, domain) in [
            ("WWW.example.com", "www.example.com"),
            ("x.example.com", "*.example.com"),
            ("x.a.example.com", "*.a.example.com"),
            ("www.example.org", "www.*"),
            ("example.com", "*"),
        ] {
            assert_eq!(select_of(&domains, host, false), Some(domain), "{host}");
        }
        assert_eq!(select_of(&["*.example.com"], "example.com", false), None);
    }

    #[test]
    fn a_port_counts_unless_it_is_ignored() {
        assert_eq!(select_of(&["a.com"], "a.com:80", false), None);
        assert_eq!(select_of(&["a.com"], "a.com:80", true), Some("a.com"));
        assert_eq!(select_of(&["[::1]"], "[::1]:80", true), Some("[::1]"));
        assert_eq!(without_port("::1"), "::1");
    }
}
