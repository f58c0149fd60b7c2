//! Which path and host does the upstream see?

use crate::http::head::{Head, Known};
use crate::http::router::select::Routed;
use crate::snapshot::matcher::{PathMatcher, without_query};
use crate::snapshot::route::{Forward, HostRewrite, PathRewrite};

/// Rewrites host and path of a request, after its headers were changed. The old ones stay in `x-envoy-original-host` and
/// `x-envoy-original-path`, unless Envoy's headers are suppressed.
pub fn apply(routed: &Routed<'_>, route: &Forward, request: &mut Head, suppress_envoy_headers: bool) {
    let keep_old = !suppress_envoy_headers;
    rewrite_host(route, request, keep_old);
    rewrite_path(route, &routed.route.matcher, request, keep_old);
}

/// Replaces the host. The old one is appended to `x-forwarded-host` if wished, unless it is its last entry already.
pub fn set_host(request: &mut Head, host: &[u8], append_x_forwarded_host: bool, keep_old: bool) {
    let old = request.authority().unwrap_or_default().to_vec();
    if keep_old {
        request.set_in_place(Known::XEnvoyOriginalHost, &old);
    }
    if append_x_forwarded_host && !old.is_empty() {
        let mut list = request.get(Known::XForwardedHost).map(<[u8]>::to_vec).unwrap_or_default();
        let last = list.rsplit(|byte| *byte == b',').find(|entry| !entry.is_empty());
        if last != Some(&old) {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(&old);
            request.set_in_place(Known::XForwardedHost, &list);
        }
    }
    request.set_authority(host);
}

fn rewrite_host(route: &Forward, request: &mut Head, keep_old: bool) {
    let mut text;
    let host: &[u8] = match &route.host_rewrite {
        // The endpoint is not known yet.
        None | Some(HostRewrite::Auto) => return,
        Some(HostRewrite::Literal(host)) => host,
        Some(HostRewrite::Header(name)) => {
            text = request.value(name).map(<[u8]>::to_vec).unwrap_or_default();
            &text
        }
        Some(HostRewrite::PathRegex(substitution)) => {
            text = Vec::new();
            substitution.replace_all(without_query(request.path()), &mut text);
            &text
        }
    };
    if !host.is_empty() {
        set_host(request, host, route.append_x_forwarded_host, keep_old);
    }
}

fn rewrite_path(route: &Forward, matcher: &PathMatcher, request: &mut Head, keep_old: bool) {
    let Some(rewrite) = &route.path_rewrite else { return };
    let old = request.path();
    let mut new = Vec::with_capacity(old.len() + 32);
    match rewrite {
        PathRewrite::Prefix(prefix) => push_prefix_rewritten(matcher, old, prefix, &mut new),
        PathRewrite::Regex(substitution) => {
            let path = without_query(old);
            substitution.replace_all(path, &mut new);
            new.extend_from_slice(&old[path.len()..]);
        }
    }
    if new.is_empty() {
        return;
    }
    if keep_old {
        let old = old.to_vec();
        request.set_in_place(Known::XEnvoyOriginalPath, &old);
    }
    request.set_path(&new);
}

/// Appends a path whose matched part is replaced.
pub(super) fn push_prefix_rewritten(matcher: &PathMatcher, path: &[u8], prefix: &[u8], out: &mut Vec<u8>) {
    let matched = matcher.matched_length(without_query(path));
    out.extend_from_slice(prefix);
    out.extend_from_slice(&path[matched..]);
}

#[cfg(test)]
mod tests;
