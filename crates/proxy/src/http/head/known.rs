//! Which header names are known by number, so that a request never compares their text twice?
//!
//! A name is recognised once, when its line is parsed: by a hash of its length and three of its bytes, and one comparison.

macro_rules! known_names {
    ($($variant:ident $text:literal $joined:ident,)*) => {
        /// A header name that the proxy knows by number; the number is the name's bit in a head's presence mask.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`.")] $variant,)*
        }

        const ALL: &[Known] = &[$(Known::$variant,)*];
        const NAMES: &[&str] = &[$($text,)*];
        const JOINED: &[Joined] = &[$(Joined::$joined,)*];
    };
}

/// In which heads several lines of a name become one line, joined by a bare comma (Envoy's inline headers).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Request,
    Response,
    Both,
    Never,
}

known_names! {
    Accept "accept" Request,
    AcceptEncoding "accept-encoding" Request,
    AccessControlAllowCredentials "access-control-allow-credentials" Response,
    AccessControlAllowHeaders "access-control-allow-headers" Response,
    AccessControlAllowMethods "access-control-allow-methods" Response,
    AccessControlAllowOrigin "access-control-allow-origin" Response,
    AccessControlAllowPrivateNetwork "access-control-allow-private-network" Response,
    AccessControlExposeHeaders "access-control-expose-headers" Response,
    AccessControlMaxAge "access-control-max-age" Response,
    AccessControlRequestHeaders "access-control-request-headers" Request,
    AccessControlRequestMethod "access-control-request-method" Request,
    AccessControlRequestPrivateNetwork "access-control-request-private-network" Request,
    Age "age" Response,
    Authorization "authorization" Request,
    CacheControl "cache-control" Both,
    Connection "connection" Both,
    ContentEncoding "content-encoding" Both,
    ContentLength "content-length" Never,
    ContentType "content-type" Both,
    Cookie "cookie" Never,
    Date "date" Response,
    Etag "etag" Response,
    Expect "expect" Request,
    Expires "expires" Response,
    GrpcAcceptEncoding "grpc-accept-encoding" Request,
    GrpcMessage "grpc-message" Response,
    GrpcStatus "grpc-status" Response,
    GrpcTimeout "grpc-timeout" Request,
    Host "host" Never,
    Http2Settings "http2-settings" Never,
    IfMatch "if-match" Request,
    IfModifiedSince "if-modified-since" Request,
    IfNoneMatch "if-none-match" Request,
    IfRange "if-range" Request,
    IfUnmodifiedSince "if-unmodified-since" Request,
    KeepAlive "keep-alive" Both,
    LastModified "last-modified" Response,
    Location "location" Response,
    Origin "origin" Request,
    Pragma "pragma" Request,
    ProxyConnection "proxy-connection" Both,
    ProxyStatus "proxy-status" Both,
    Referer "referer" Request,
    Server "server" Response,
    SetCookie "set-cookie" Never,
    Te "te" Request,
    Traceparent "traceparent" Never,
    Tracestate "tracestate" Never,
    Trailer "trailer" Never,
    TransferEncoding "transfer-encoding" Both,
    Upgrade "upgrade" Both,
    UserAgent "user-agent" Request,
    Vary "vary" Response,
    Via "via" Both,
    XClientTraceId "x-client-trace-id" Request,
    XEnvoyAttemptCount "x-envoy-attempt-count" Both,
    XEnvoyDecoratorOperation "x-envoy-decorator-operation" Both,
    XEnvoyDegraded "x-envoy-degraded" Response,
    XEnvoyDownstreamServiceCluster "x-envoy-downstream-service-cluster" Request,
    XEnvoyDownstreamServiceNode "x-envoy-downstream-service-node" Request,
    XEnvoyExpectedRqTimeoutMs "x-envoy-expected-rq-timeout-ms" Request,
    XEnvoyExternalAddress "x-envoy-external-address" Request,
    XEnvoyForceTrace "x-envoy-force-trace" Request,
    XEnvoyHedgeOnPerTryTimeout "x-envoy-hedge-on-per-try-timeout" Request,
    XEnvoyImmediateHealthCheckFail "x-envoy-immediate-health-check-fail" Response,
    XEnvoyInternal "x-envoy-internal" Request,
    XEnvoyIpTags "x-envoy-ip-tags" Request,
    XEnvoyIsTimeoutRetry "x-envoy-is-timeout-retry" Request,
    XEnvoyMaxRetries "x-envoy-max-retries" Request,
    XEnvoyOriginalHost "x-envoy-original-host" Request,
    XEnvoyOriginalPath "x-envoy-original-path" Request,
    XEnvoyOverloaded "x-envoy-overloaded" Never,
    XEnvoyRatelimited "x-envoy-ratelimited" Response,
    XEnvoyRetriableHeaderNames "x-envoy-retriable-header-names" Request,
    XEnvoyRetriableStatusCodes "x-envoy-retriable-status-codes" Request,
    XEnvoyRetryGrpcOn "x-envoy-retry-grpc-on" Request,
    XEnvoyRetryOn "x-envoy-retry-on" Request,
    XEnvoyUpstreamAltStatName "x-envoy-upstream-alt-stat-name" Request,
    XEnvoyUpstreamCanary "x-envoy-upstream-canary" Response,
    XEnvoyUpstreamRqPerTryTimeoutMs "x-envoy-upstream-rq-per-try-timeout-ms" Request,
    XEnvoyUpstreamRqTimeoutAltResponse "x-envoy-upstream-rq-timeout-alt-response" Request,
    XEnvoyUpstreamRqTimeoutMs "x-envoy-upstream-rq-timeout-ms" Request,
    XEnvoyUpstreamServiceTime "x-envoy-upstream-service-time" Response,
    XEnvoyUpstreamStreamDurationMs "x-envoy-upstream-stream-duration-ms" Request,
    XForwardedClientCert "x-forwarded-client-cert" Request,
    XForwardedFor "x-forwarded-for" Request,
    XForwardedHost "x-forwarded-host" Request,
    XForwardedPort "x-forwarded-port" Request,
    XForwardedProto "x-forwarded-proto" Request,
    XRequestId "x-request-id" Both,
}

impl Known {
    /// Every known name, in the order of their numbers.
    pub const ALL: &[Self] = ALL;

    /// The name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The name's bit in a presence mask.
    #[inline]
    pub(in crate::http) const fn bit(self) -> u128 {
        1 << self as u8
    }

    /// The known name with this lower-case text.
    #[inline]
    #[must_use]
    pub fn lookup(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let index = usize::from(INDEX.slots[slot(name, INDEX.factors)]);
        (NAMES.get(index)?.as_bytes() == name).then_some(ALL[index])
    }
}

/// Names of which several request lines are joined.
pub(in crate::http) const JOINED_IN_REQUESTS: u128 = joined_in(Joined::Request);
/// Names of which several response lines are joined.
pub(in crate::http) const JOINED_IN_RESPONSES: u128 = joined_in(Joined::Response);
/// Names that begin with `x-envoy-`.
pub(in crate::http) const ENVOY_NAMES: u128 = envoy_names();

const fn joined_in(direction: Joined) -> u128 {
    let mut mask = 0;
    let mut index = 0;
    while index < ALL.len() {
        // Enums compare by number here: `==` is not a constant function.
        let joined = JOINED[index] as u8;
        if joined == direction as u8 || joined == Joined::Both as u8 {
            mask |= ALL[index].bit();
        }
        index += 1;
    }
    mask
}

const fn envoy_names() -> u128 {
    let mut mask = 0;
    let mut index = 0;
    while index < ALL.len() {
        if let [b'x', b'-', b'e', b'n', b'v', b'o', b'y', b'-', ..] = NAMES[index].as_bytes() {
            mask |= ALL[index].bit();
        }
        index += 1;
    }
    mask
}

const SLOTS: usize = 1024;
const FREE: u8 = u8::MAX;

/// A hash table without collisions, found by the compiler.
struct Index {
    factors: [usize; 4],
    slots: [u8; SLOTS],
}

static INDEX: Index = find_index();

#[inline]
const fn slot(name: &[u8], factors: [usize; 4]) -> usize {
    let length = name.len();
    let middle = name[length / 2] as usize;
    let last = name[length - 1] as usize;
    let fourth_last = name[length.saturating_sub(4)] as usize;
    length
        .wrapping_mul(factors[0])
        .wrapping_add(middle.wrapping_mul(factors[1]))
        .wrapping_add(last.wrapping_mul(factors[2]))
        .wrapping_add(fourth_last.wrapping_mul(factors[3]))
        % SLOTS
}

const fn find_index() -> Index {
    assert!(ALL.len() < 128, "a presence mask has 128 bits");
    let mut seed: usize = 1;
    loop {
        let mut factors = [0; 4];
        let mut position = 0;
        while position < factors.len() {
            seed = (seed * 1_103_515_245 + 12_345) % (1 << 31);
            factors[position] = (seed >> 8) | 1;
            position += 1;
        }
        let mut slots = [FREE; SLOTS];
        let mut index = 0;
        while index < NAMES.len() {
            let slot = slot(NAMES[index].as_bytes(), factors);
            if slots[slot] != FREE {
                break;
            }
            slots[slot] = index as u8;
            index += 1;
        }
        if index == NAMES.len() {
            return Index { factors, slots };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_by_its_text_and_nothing_else_is() {
        for known in Known::ALL {
            assert_eq!(Known::lookup(known.as_str().as_bytes()), Some(*known));
            let longer = format!("{}x", known.as_str());
            assert_eq!(Known::lookup(longer.as_bytes()), None);
        }
        for other in ["", "x", "x-foo", "hosts", "x-forwarded-forx", "accept-charset"] {
            assert_eq!(Known::lookup(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn names_are_lower_case_and_in_order() {
        assert!(NAMES.is_sorted());
        assert!(NAMES.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase())));
    }

    #[test]
    fn joined_names_differ_by_direction() {
        assert_ne!(JOINED_IN_REQUESTS & Known::Accept.bit(), 0);
        assert_eq!(JOINED_IN_RESPONSES & Known::Accept.bit(), 0);
        assert_ne!(JOINED_IN_RESPONSES & Known::Vary.bit(), 0);
        assert_eq!((JOINED_IN_REQUESTS | JOINED_IN_RESPONSES) & (Known::Cookie.bit() | Known::SetCookie.bit()), 0);
        assert_ne!(ENVOY_NAMES & Known::XEnvoyRetryOn.bit(), 0);
        assert_eq!(ENVOY_NAMES & Known::XRequestId.bit(), 0);
    }
}
