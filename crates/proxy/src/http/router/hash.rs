//! By which number does a load balancer that hashes pick the host of a request?

use std::io::Write as _;

use xxhash_rust::xxh64::xxh64;

use crate::http::head::{Head, HeaderName};
use crate::http::stream_info::StreamInfo;
use crate::snapshot::matcher::{cookie, query_parameter};
use crate::snapshot::regex::Substitution;
use crate::snapshot::route::{CookieAttribute, HashPolicy, HashSource};

/// The hash of a request, of the values of all policies; `None` if there is no value at all, so that chance decides.
///
/// The request is meant as it is sent, after mutations and rewrites. A cookie that had to be made up is appended to
/// `cookies` as the value of a `set-cookie` line for the upstream's response.
pub fn hash(
    policies: &[HashPolicy],
    request: &Head,
    stream: &StreamInfo<'_>,
    cookies: &mut Vec<Vec<u8>>,
) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        if let Some(value) = policy.source.hash(request, stream, cookies) {
            // Turning the hash so far keeps two equal values from cancelling each other out.
            hash = Some(hash.map_or(0, |hash| hash.rotate_left(1)) ^ value);
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

impl HashSource {
    fn hash(&self, request: &Head, stream: &StreamInfo<'_>, cookies: &mut Vec<Vec<u8>>) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => hash_header(request, name, rewrite.as_ref()),
            Self::Cookie { name, ttl, path, attributes } => {
                match (cookie(request, name).filter(|value| !value.is_empty()), ttl) {
                    (Some(value), _) => Some(xxh64(value, 0)),
                    (None, Some(ttl)) => {
                        let value = connection_value(stream);
                        cookies.push(set_cookie(name, &value, ttl.as_secs(), path, attributes));
                        Some(xxh64(&value, 0))
                    }
                    (None, None) => None,
                }
            }
            Self::SourceIp => {
                let client = stream.client.as_ref().unwrap_or(&stream.downstream.remote);
                let mut text = [0; 64];
                Some(xxh64(written(&mut text, |out| write!(out, "{}", client.socket.ip())), 0))
            }
            Self::QueryParameter(name) => query_parameter(request.path(), name).map(|value| xxh64(value, 0)),
        }
    }
}

/// The hash of a header's lines in whatever order they came.
fn hash_header(request: &Head, name: &HeaderName, rewrite: Option<&Substitution>) -> Option<u64> {
    let mut lines = request.values(name);
    let first = lines.next()?;
    let second = lines.next();
    if rewrite.is_none() && second.is_none() {
        return Some(xxh64(first, 0));
    }
    let lines = [first].into_iter().chain(second).chain(lines);
    let mut values: Vec<_> = lines
        .map(|line| match rewrite {
            Some(rewrite) => {
                let mut rewritten = Vec::with_capacity(line.len());
                rewrite.replace_all(line, &mut rewritten);
                rewritten
            }
            None => line.to_vec(),
        })
        .collect();
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

/// The value of a made-up cookie: 16 hexadecimal digits that are the same for all requests of a connection.
fn connection_value(stream: &StreamInfo<'_>) -> [u8; 16] {
    let client = stream.client.as_ref().unwrap_or(&stream.downstream.remote);
    let addresses = [client.text.as_bytes(), stream.downstream.local.text.as_bytes()].concat();
    let mut digits = [b'0'; 16];
    written(&mut digits, |out| write!(out, "{:016x}", xxh64(&addresses, 0)));
    digits
}

fn set_cookie(name: &[u8], value: &[u8], max_age: u64, path: &[u8], attributes: &[CookieAttribute]) -> Vec<u8> {
    let mut cookie = [name, b"=\"", value, b"\""].concat();
    if max_age > 0 {
        // Writing to a vector does not fail.
        let _ = write!(cookie, "; Max-Age={max_age}");
    }
    if !path.is_empty() {
        cookie.extend_from_slice(b"; Path=");
        cookie.extend_from_slice(path);
    }
    for attribute in attributes {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(&attribute.name);
        if !attribute.value.is_empty() {
            cookie.push(b'=');
            cookie.extend_from_slice(&attribute.value);
        }
    }
    cookie.extend_from_slice(b"; HttpOnly");
    cookie
}

/// What was written into a buffer, as far as it has room.
fn written(buffer: &mut [u8], write: impl FnOnce(&mut &mut [u8]) -> std::io::Result<()>) -> &[u8] {
    let size = buffer.len();
    let mut rest = &mut *buffer;
    // An IP address and 16 digits always fit.
    let _ = write(&mut rest);
    let length = size - rest.len();
    &buffer[..length]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::stream_info::{Address, DownstreamConnection};
    use crate::snapshot::fixture::{connection, request, routes, stream};
    use crate::snapshot::route::Action;

    /// The hash by these policies, and the cookies that were made up.
    fn hashed(policies: Value, request: &Head, connection: &DownstreamConnection) -> (Option<u64>, Vec<String>) {
        let config = routes(json!([{"match": {"prefix": "/"}, "route": {"cluster": "b", "hash_policy": policies}}]));
        let Action::Forward(forward) = &config.virtual_hosts[0].routes[0].action else { panic!("no cluster") };
        let mut cookies = Vec::new();
        let hash = hash(&forward.hash_policy, request, &stream(connection), &mut cookies);
        (hash, cookies.into_iter().map(|cookie| String::from_utf8(cookie).unwrap()).collect())
    }

    fn hash_of(policies: Value, path: &str, headers: &[(&str, &str)]) -> Option<u64> {
        hashed(policies, &request(path, headers), &connection()).0
    }

    fn header(name: &str) -> Value {
        json!({"header": {"header_name": name}})
    }

    #[test]
    fn a_header_is_hashed_by_its_value() {
        assert_eq!(hash_of(json!([header("x")]), "/", &[("x", "abc")]), Some(xxh64(b"abc", 0)));
        assert_eq!(hash_of(json!([header("x")]), "/", &[("x", "")]), Some(xxh64(b"", 0)));
        assert_eq!(hash_of(json!([header("x")]), "/", &[]), None);
        assert_eq!(hash_of(json!([]), "/", &[]), None);
    }

    #[test]
    fn several_lines_are_hashed_in_sorted_order() {
        let expected = Some(xxh64(b"b", xxh64(b"a", 0)));
        assert_eq!(hash_of(json!([header("x")]), "/", &[("x", "a"), ("x", "b")]), expected);
        assert_eq!(hash_of(json!([header("x")]), "/", &[("x", "b"), ("x", "a")]), expected);
    }

    #[test]
    fn a_header_can_be_rewritten_before() {
        let policy = json!([{"header": {"header_name": "x", "regex_rewrite": {
            "pattern": {"regex": "^(.*?)-.*$"}, "substitution": r"\1"}}}]);
        assert_eq!(hash_of(policy, "/", &[("x", "user-17")]), Some(xxh64(b"user", 0)));
    }

    #[test]
    fn values_are_combined_by_rotation_and_exclusive_or() {
        let policies = json!([header("x"), header("missing"), header("y")]);
        let expected = xxh64(b"1", 0).rotate_left(1) ^ xxh64(b"1", 0);
        assert_eq!(hash_of(policies, "/", &[("x", "1"), ("y", "1")]), Some(expected));
    }

    #[test]
    fn a_terminal_policy_ends_the_search_once_there_is_a_value() {
        let mut first = header("x");
        first["terminal"] = true.into();
        let policies = json!([first, header("y")]);
        assert_eq!(hash_of(policies.clone(), "/", &[("x", "1"), ("y", "2")]), Some(xxh64(b"1", 0)));
        assert_eq!(hash_of(policies, "/", &[("y", "2")]), Some(xxh64(b"2", 0)));
    }

    #[test]
    fn query_parameters_are_hashed_as_they_stand() {
        let policy = json!([{"query_parameter": {"name": "q"}}]);
        assert_eq!(hash_of(policy.clone(), "/?q=%41&q=b", &[]), Some(xxh64(b"%41", 0)));
        assert_eq!(hash_of(policy, "/?p=1", &[]), None);
    }

    #[test]
    fn the_client_is_hashed_without_its_port() {
        let policy = json!([{"connection_properties": {"source_ip": true}}]);
        assert_eq!(hash_of(policy, "/", &[]), Some(xxh64(b"10.0.0.1", 0)));
    }

    #[test]
    fn a_cookie_is_hashed_or_made_up_if_it_has_a_time_to_live() {
        let policy = |cookie: Value| json!([{"cookie": cookie}]);
        let with = request("/", &[("cookie", "ck=zz")]);
        let without = request("/", &[("cookie", "ck=")]);
        let session = policy(json!({"name": "ck", "ttl": "0s"}));
        assert_eq!(hashed(session.clone(), &with, &connection()), (Some(xxh64(b"zz", 0)), vec![]));
        let (hash, cookies) = hashed(session, &without, &connection());
        let value = cookies[0].split('"').nth(1).unwrap();
        assert_eq!((value.len(), hash), (16, Some(xxh64(value.as_bytes(), 0))));
        assert_eq!(cookies, [format!("ck=\"{value}\"; HttpOnly")]);
        assert_eq!(hashed(policy(json!({"name": "ck"})), &without, &connection()), (None, vec![]));
    }

    /// As Envoy made it up on a connection with these addresses.
    #[test]
    fn a_made_up_cookie_is_envoys() {
        let mut connection = connection();
        let address = |text: &str| Address::from(text.parse::<std::net::SocketAddr>().unwrap());
        connection.remote = address("127.0.0.1:42056");
        connection.local = address("127.0.0.1:36745");
        let policy = json!([{"cookie": {
            "name": "ck", "ttl": "60.5s", "path": "/p",
            "attributes": [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]}}]);
        let (_, cookies) = hashed(policy, &request("/", &[]), &connection);
        let expected = "ck=\"043cc846547c36be\"; Max-Age=60; Path=/p; SameSite=Strict; Secure; HttpOnly";
        assert_eq!(cookies, [expected]);
    }
}
