//! Is this a host, a label, an address? The grammars of names, as Istio checks them.

use std::net::IpAddr;

/// Longest DNS name.
const MAX_NAME: usize = 255;

/// One label of a DNS name. Upper case is allowed: Istio is not as strict as Kubernetes here.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS name without wildcards; a dot at its end is fine.
pub(super) fn is_fqdn(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_NAME {
        return false;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A DNS name of which the first label may be `*`, or begin with it.
pub(super) fn is_wildcard_domain(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_NAME {
        return false;
    }
    let (first, rest) = match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let first_is_right = match first.strip_prefix('*') {
        Some("") => true,
        Some(rest) => is_label(rest.strip_prefix('-').unwrap_or(rest)),
        None => is_label(first),
    };
    first_is_right && rest.is_none_or(is_fqdn)
}

/// An IP address.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An IP address, or a range of them as `address/bits`.
pub(super) fn is_subnet(text: &str) -> bool {
    match text.split_once('/') {
        None => is_ip(text),
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            _ => false,
        },
    }
}

/// True when every name that `b` stands for is also one of `a`.
pub(super) fn covers(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(suffix), None) => b.ends_with(suffix),
        (Some(suffix), Some(other)) => other.ends_with(suffix),
        (None, Some(_)) => false,
    }
}

/// True when there are names that both stand for.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// A name of an HTTP header: a token (RFC 9110, section 5.6.2).
pub(super) fn is_header_name(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// `@request.auth.claims` with the path of a claim: `.a.b` or `[a][b]`.
pub(super) fn is_jwt_claim(text: &str) -> bool {
    const PREFIX: &str = "@request.auth.claims";
    let Some(rest) = text.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)) else {
        return false;
    };
    let path = &text[rest.len()..];
    if let Some(path) = path.strip_prefix('.') {
        return !path.is_empty();
    }
    let inner = path.strip_prefix('[').and_then(|path| path.strip_suffix(']'));
    inner.is_some_and(|inner| inner.split("][").all(|part| !part.is_empty() && !part.contains(['[', ']'])))
}

/// A protocol by the name that Istio has for it; upper and lower case are equal.
pub(super) fn is_protocol(text: &str) -> bool {
    const PROTOCOLS: [&str; 12] =
        ["tcp", "udp", "grpc", "grpc-web", "http", "http_proxy", "http2", "https", "tls", "mongo", "redis", "mysql"];
    PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(text))
}

/// A protocol that is HTTP in plain text.
pub(super) fn is_http(protocol: &str) -> bool {
    ["http", "http2", "grpc", "grpc-web", "http_proxy"].iter().any(|http| http.eq_ignore_ascii_case(protocol))
}

/// A protocol that is TLS.
pub(super) fn is_tls(protocol: &str) -> bool {
    ["https", "tls"].iter().any(|tls| tls.eq_ignore_ascii_case(protocol))
}

/// A key of a Kubernetes label: `name` or `prefix/name`.
pub(super) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label)) && is_qualified(name)
}

/// A value of a Kubernetes label.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

fn is_qualified(text: &str) -> bool {
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for host in ["a", "reviews", "a.b.c", "a.b.", "*", "*.foo.com", "*foo.com", "*-x.com", "A.B", "1.2.3.com", "12"]
        {
            assert!(is_wildcard_domain(host), "{host}");
        }
        for host in ["", ".", "a..b", "-a", "a-", "foo.*.com", "a_b", "**.com", "a.12", "*-.com", "a b", "a/b"] {
            assert!(!is_wildcard_domain(host), "{host}");
        }
        assert!(is_fqdn("a.b") && !is_fqdn("*.b") && !is_fqdn("1.2.3.4"));
        assert!(!is_label(&"x".repeat(64)) && is_label(&"x".repeat(63)));
    }

    #[test]
    fn wildcards_cover_what_ends_like_them() {
        assert!(covers("*.foo.com", "a.foo.com") && covers("*", "*.com") && covers("*.com", "*.foo.com"));
        assert!(!covers("*.foo.com", "foo.com") && !covers("a.foo.com", "*.foo.com"));
        assert!(overlaps("a.foo.com", "*.foo.com") && !overlaps("a.com", "b.com"));
    }

    #[test]
    fn claims_have_a_path() {
        for claim in ["@request.auth.claims.sub", "@request.auth.claims[a][b]", "@REQUEST.auth.claims.a.b"] {
            assert!(is_jwt_claim(claim), "{claim}");
        }
        for other in
            ["@request.auth.claims", "@request.auth.claims.", "@request.auth.claims[]", "x", "@request.auth.claims[a"]
        {
            assert!(!is_jwt_claim(other), "{other}");
        }
    }

    #[test]
    fn subnets_have_as_many_bits_as_their_family() {
        assert!(is_subnet("10.0.0.0/8") && is_subnet("::1/128") && is_subnet("10.1.2.3"));
        assert!(!is_subnet("10.0.0.0/33") && !is_subnet("10.0.0/8") && !is_subnet("::/129") && !is_subnet("x/8"));
    }
}
