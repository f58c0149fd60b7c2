//! Where does a redirect point to?

use std::io::Write as _;

use crate::http::head::Head;
use crate::http::router::rewrite::push_prefix_rewritten;
use crate::snapshot::matcher::{PathMatcher, without_query};
use crate::snapshot::route::{Redirect, RedirectPath, RedirectScheme, forwarded_scheme};

/// Appends the location: `scheme://host[:port]path[?query]`.
pub fn location(redirect: &Redirect, matcher: &PathMatcher, request: &Head, out: &mut Vec<u8>) {
    let scheme = match &redirect.scheme {
        RedirectScheme::Keep => request.scheme(),
        RedirectScheme::Set(scheme) => scheme,
    };
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"://");
    if redirect.host.is_empty() {
        out.extend_from_slice(kept_host(request, scheme, redirect.port.is_some()));
    } else {
        out.extend_from_slice(&redirect.host);
    }
    if let Some(port) = redirect.port {
        // Writing to a vector does not fail.
        let _ = write!(out, ":{port}");
    }
    push_path(redirect, matcher, request.path(), out);
}

/// The location of a request that has to come again over TLS: host and path stay as they are.
#[must_use]
pub fn to_tls(request: &Head) -> Vec<u8> {
    [b"https://", request.authority().unwrap_or_default(), request.path()].concat()
}

/// The request's host; without its port if another one follows, or if it was the default one of another scheme.
fn kept_host<'a>(request: &'a Head, scheme: &[u8], other_port: bool) -> &'a [u8] {
    let host = request.authority().unwrap_or_default();
    let colon = if host.first() == Some(&b'[') {
        host.windows(2).rposition(|pair| pair == b"]:").map(|bracket| bracket + 1)
    } else {
        host.iter().rposition(|byte| *byte == b':')
    };
    let Some(colon) = colon else { return host };
    let old_scheme = forwarded_scheme(request);
    let default = match &host[colon..] {
        b":443" => old_scheme.eq_ignore_ascii_case(b"https"),
        b":80" => old_scheme.eq_ignore_ascii_case(b"http"),
        _ => false,
    };
    if other_port || (default && scheme != old_scheme) { &host[..colon] } else { host }
}

fn push_path(redirect: &Redirect, matcher: &PathMatcher, path: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let query = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    let mut strip_query = redirect.strip_query;
    match &redirect.path {
        RedirectPath::Keep => out.extend_from_slice(path),
        RedirectPath::Replace(new) => {
            out.extend_from_slice(new);
            if new.contains(&b'?') {
                strip_query = false;
            } else {
                out.extend_from_slice(&path[query..]);
            }
        }
        RedirectPath::Prefix(prefix) => push_prefix_rewritten(matcher, path, prefix, out),
        RedirectPath::Regex(substitution) => {
            let bare = without_query(path);
            substitution.replace_all(bare, out);
            out.extend_from_slice(&path[bare.len()..]);
        }
    }
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
    if strip_query && let Some(mark) = out[start..].iter().position(|byte| *byte == b'?') {
        out.truncate(start + mark);
    }
}

#[cfg(test)]
mod tests;
