//! Deciding whether to try again: which failures the policy names, how often, after which wait.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::http::head::{Head, HeaderName, Known};
use crate::http::stream_info::Flag;
use crate::snapshot::route::{
    DEFAULT_BACK_OFF, RateLimitedBackOff, ResetHeaderFormat, RetryOn, RetryPolicy, RetryReasons,
};

/// How an attempt failed without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetKind {
    /// No connection: refused, unreachable.
    ConnectFailure,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The upstream closed the connection.
    Termination,
    /// The upstream sent what is no HTTP.
    ProtocolError,
    /// The try took too long.
    PerTryTimeout,
    /// A circuit breaker was open.
    Overflow,
    /// The try was silent for too long.
    PerTryIdleTimeout,
}

impl ResetKind {
    /// As the reply's body names it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Termination => "connection termination",
            Self::ProtocolError => "protocol error",
            Self::PerTryTimeout | Self::PerTryIdleTimeout => "per try timeout",
            Self::Overflow => "overflow",
        }
    }

    /// The flag it raises.
    pub(crate) const fn flag(self) -> Flag {
        match self {
            Self::ConnectFailure | Self::ConnectTimeout => Flag::UpstreamConnectionFailure,
            Self::Termination => Flag::UpstreamConnectionTermination,
            Self::ProtocolError => Flag::UpstreamProtocolError,
            Self::PerTryTimeout | Self::PerTryIdleTimeout => Flag::UpstreamRequestTimeout,
            Self::Overflow => Flag::UpstreamOverflow,
        }
    }

    /// Whether the try was given up because it took too long.
    pub(crate) const fn is_late(self) -> bool {
        matches!(self, Self::PerTryTimeout | Self::PerTryIdleTimeout)
    }

    /// The status of the reply.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::ProtocolError => 502,
            Self::PerTryTimeout | Self::PerTryIdleTimeout => 504,
            _ => 503,
        }
    }
}

/// A failure with its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    /// What happened.
    pub(crate) kind: ResetKind,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(crate) transport_failure: Option<&'static str>,
}

impl Reset {
    /// A failure without a cause in the transport.
    pub(crate) const fn plain(kind: ResetKind) -> Self {
        Self { kind, transport_failure: None }
    }

    /// A connection that could not be made.
    pub(crate) fn connect_failure(error: std::io::ErrorKind) -> Self {
        let reason = match error {
            std::io::ErrorKind::ConnectionRefused => "delayed connect error: Connection refused",
            std::io::ErrorKind::HostUnreachable => "delayed connect error: No route to host",
            std::io::ErrorKind::NetworkUnreachable => "immediate connect error: Network is unreachable",
            std::io::ErrorKind::AddrNotAvailable => "immediate connect error: Cannot assign requested address",
            std::io::ErrorKind::TimedOut => "delayed connect error: Connection timed out",
            _ => "delayed connect error",
        };
        Self { kind: ResetKind::ConnectFailure, transport_failure: Some(reason) }
    }

    /// `%RESPONSE_CODE_DETAILS%`; blanks become underscores.
    pub(crate) fn details(self) -> Cow<'static, str> {
        let reason = self.kind.text();
        let text = match self.transport_failure {
            Some(failure) => format!("upstream_reset_before_response_started{{{reason}|{failure}}}"),
            None => format!("upstream_reset_before_response_started{{{reason}}}"),
        };
        text.replace(' ', "_").into()
    }
}

/// The retries of one request.
#[derive(Debug, Default)]
pub(crate) struct Retries<'v> {
    policy: Option<&'v RetryPolicy>,
    reasons: RetryReasons,
    left: u32,
    waits: u32,
    /// What an internal client added.
    wishes: Option<Box<Wishes>>,
    /// The wait that the last response asked for.
    asked: Option<Duration>,
}

/// Statuses and headers that an internal client wants retried.
#[derive(Debug, Default)]
struct Wishes {
    statuses: Vec<u16>,
    headers: Vec<HeaderName>,
}

impl<'v> Retries<'v> {
    /// By the policy of the route, and by the headers of an internal client, which are taken out of the request.
    pub(crate) fn new(policy: Option<&'v RetryPolicy>, request: &mut Head) -> Self {
        let mut retries = Self {
            policy,
            reasons: policy.map(|policy| policy.reasons).unwrap_or_default(),
            left: policy.map_or(1, |policy| policy.num_retries),
            ..Self::default()
        };
        if request.has_envoy_headers() {
            retries.take_wishes(request);
        }
        if let Some(policy) = policy
            && !policy.retriable_request_headers.is_empty()
            && !policy.retriable_request_headers.iter().any(|matcher| matcher.matches(request))
        {
            retries.reasons = RetryReasons::default();
        }
        retries
    }

    fn take_wishes(&mut self, request: &mut Head) {
        if let Some(list) = request.get(Known::XEnvoyRetryOn) {
            self.reasons = self.reasons.with(RetryReasons::parse(list, |reason| !reason.is_grpc()));
        }
        if let Some(list) = request.get(Known::XEnvoyRetryGrpcOn) {
            self.reasons = self.reasons.with(RetryReasons::parse(list, RetryOn::is_grpc));
        }
        if let Some(count) = request.get(Known::XEnvoyMaxRetries).and_then(number) {
            self.left = count;
        }
        let list = |name| request.get(name).into_iter().flat_map(|list: &[u8]| list.split(|byte| *byte == b','));
        let statuses: Vec<u16> = list(Known::XEnvoyRetriableStatusCodes).filter_map(number).collect();
        let headers: Vec<HeaderName> = list(Known::XEnvoyRetriableHeaderNames)
            .filter_map(|name| HeaderName::parse(str::from_utf8(name.trim_ascii()).ok()?).ok())
            .collect();
        if !statuses.is_empty() || !headers.is_empty() {
            self.wishes = Some(Box::new(Wishes { statuses, headers }));
        }
        for name in [
            Known::XEnvoyRetryOn,
            Known::XEnvoyRetryGrpcOn,
            Known::XEnvoyMaxRetries,
            Known::XEnvoyHedgeOnPerTryTimeout,
            Known::XEnvoyRetriableHeaderNames,
            Known::XEnvoyRetriableStatusCodes,
        ] {
            request.remove_known(name);
        }
    }

    /// Whether there is anything for which the request would be tried again.
    pub(crate) fn may_retry(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Whether no further attempt is allowed.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// How often a pick that was tried already is to be picked again.
    pub(crate) fn reselections(&self, attempt: u32) -> u32 {
        match self.policy {
            Some(policy) if attempt > 1 && policy.previous_hosts => policy.host_selection_attempts,
            _ => 0,
        }
    }

    /// Whether this response is retried; if so, the wait that it asks for counts.
    pub(crate) fn wants_response(&mut self, response: &Head, now: SystemTime) -> bool {
        let wanted = self.may_retry() && self.matches_response(response);
        self.asked = None;
        if wanted && let Some(back_off) = self.policy.and_then(|policy| policy.rate_limited_back_off.as_ref()) {
            self.asked = asked_wait(back_off, response, now);
        }
        wanted
    }

    fn matches_response(&self, response: &Head) -> bool {
        let on = |reason| self.reasons.contains(reason);
        let status = response.status();
        if response.contains(Known::XEnvoyRatelimited) {
            return on(RetryOn::EnvoyRatelimited);
        }
        if on(RetryOn::FiveXx) && status >= 500 {
            return true;
        }
        if on(RetryOn::GatewayError) && (502..=504).contains(&status) {
            return true;
        }
        if on(RetryOn::Retriable4xx) && status == 409 {
            return true;
        }
        let wishes = self.wishes.as_deref();
        if on(RetryOn::RetriableStatusCodes)
            && (self.policy.is_some_and(|policy| policy.retriable_status_codes.contains(&status))
                || wishes.is_some_and(|wishes| wishes.statuses.contains(&status)))
        {
            return true;
        }
        if on(RetryOn::RetriableHeaders) {
            let matched = |policy: &RetryPolicy| policy.retriable_headers.iter().any(|one| one.matches(response));
            let wished = |wishes: &Wishes| wishes.headers.iter().any(|name| response.has(name));
            if self.policy.is_some_and(matched) || wishes.is_some_and(wished) {
                return true;
            }
        }
        match response.get(Known::GrpcStatus) {
            Some(b"1") => on(RetryOn::Cancelled),
            Some(b"4") => on(RetryOn::DeadlineExceeded),
            Some(b"8") => on(RetryOn::ResourceExhausted),
            Some(b"13") => on(RetryOn::Internal),
            Some(b"14") => on(RetryOn::Unavailable),
            _ => false,
        }
    }

    /// Whether this failure is retried.
    pub(crate) fn wants_reset(&mut self, reset: Reset) -> bool {
        self.asked = None;
        let on = |reason| self.reasons.contains(reason);
        if on(RetryOn::FiveXx) || on(RetryOn::GatewayError) || on(RetryOn::Reset) {
            return true;
        }
        let connect = matches!(reset.kind, ResetKind::ConnectFailure | ResetKind::ConnectTimeout);
        connect && (on(RetryOn::ConnectFailure) || on(RetryOn::ResetBeforeRequest))
    }

    /// Uses up one retry and gives the wait before it, and whether the last response asked for that wait: then it is
    /// that long and up to half as long again. Else it is uniform below base × 2ⁿ, at most the maximum (as measured on
    /// Envoy; its documentation has another formula).
    pub(crate) fn back_off(&mut self, rng: &mut Rng) -> (Duration, bool) {
        self.left = self.left.saturating_sub(1);
        if let Some(asked) = self.asked.take() {
            return (asked + below(asked / 2, rng), true);
        }
        let (base, most) = match self.policy {
            Some(policy) => (policy.back_off_base, policy.back_off_max),
            None => (DEFAULT_BACK_OFF, DEFAULT_BACK_OFF * 10),
        };
        let bound = base.saturating_mul(1_u32.checked_shl(self.waits).unwrap_or(u32::MAX));
        self.waits += 1;
        (below(bound.min(most), rng), false)
    }
}

/// The wait that the first header that names a sensible one asks for.
fn asked_wait(back_off: &RateLimitedBackOff, response: &Head, now: SystemTime) -> Option<Duration> {
    back_off.reset_headers.iter().find_map(|header| {
        let seconds = Duration::from_secs(number(response.value(&header.name)?)?);
        let wait = match header.format {
            ResetHeaderFormat::Seconds => seconds,
            ResetHeaderFormat::UnixTimestamp => UNIX_EPOCH.checked_add(seconds)?.duration_since(now).ok()?,
        };
        (wait > Duration::from_millis(1) && wait <= back_off.max_interval).then_some(wait)
    })
}

fn below(bound: Duration, rng: &mut Rng) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.u64(0..nanos.max(1)))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
