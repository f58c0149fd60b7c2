//! Deciding whether to try again: which failures the policy names, how often, after which wait.

use std::borrow::Cow;
use std::time::Duration;

use fastrand::Rng;

use crate::http::head::{Head, Known};
use crate::http::stream_info::Flag;
use crate::snapshot::route::{RetryOn, RetryPolicy};

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
}

impl ResetKind {
    /// As the reply's body names it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Termination => "connection termination",
            Self::ProtocolError => "protocol error",
            Self::PerTryTimeout => "per try timeout",
            Self::Overflow => "overflow",
        }
    }

    /// The flag it raises.
    pub(crate) const fn flag(self) -> Flag {
        match self {
            Self::ConnectFailure | Self::ConnectTimeout => Flag::UpstreamConnectionFailure,
            Self::Termination => Flag::UpstreamConnectionTermination,
            Self::ProtocolError => Flag::UpstreamProtocolError,
            Self::PerTryTimeout => Flag::UpstreamRequestTimeout,
            Self::Overflow => Flag::UpstreamOverflow,
        }
    }

    /// The status of the reply.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::ProtocolError => 502,
            Self::PerTryTimeout => 504,
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
#[derive(Debug)]
pub(crate) struct Retries<'v> {
    policy: Option<&'v RetryPolicy>,
    left: u32,
    waits: u32,
}

impl<'v> Retries<'v> {
    /// By the policy of the route.
    pub(crate) fn new(policy: Option<&'v RetryPolicy>) -> Self {
        Self { policy, left: policy.map_or(0, |policy| policy.num_retries), waits: 0 }
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

    /// Whether the policy retries this response.
    pub(crate) fn wants_response(&self, response: &Head) -> bool {
        let Some(policy) = self.policy else { return false };
        let status = response.status();
        if response.contains(Known::XEnvoyRatelimited) {
            return policy.on(RetryOn::EnvoyRatelimited);
        }
        if policy.on(RetryOn::FiveXx) && status >= 500 {
            return true;
        }
        if policy.on(RetryOn::GatewayError) && (502..=504).contains(&status) {
            return true;
        }
        if policy.on(RetryOn::Retriable4xx) && status == 409 {
            return true;
        }
        if policy.on(RetryOn::RetriableStatusCodes) && policy.retriable_status_codes.contains(&status) {
            return true;
        }
        if policy.on(RetryOn::RetriableHeaders)
            && policy.retriable_headers.iter().any(|matcher| matcher.matches(response))
        {
            return true;
        }
        let grpc = response.get(Known::GrpcStatus);
        match grpc {
            Some(b"1") => policy.on(RetryOn::Cancelled),
            Some(b"4") => policy.on(RetryOn::DeadlineExceeded),
            Some(b"8") => policy.on(RetryOn::ResourceExhausted),
            Some(b"13") => policy.on(RetryOn::Internal),
            Some(b"14") => policy.on(RetryOn::Unavailable),
            _ => false,
        }
    }

    /// Whether the policy retries this failure.
    pub(crate) fn wants_reset(&self, reset: Reset) -> bool {
        let Some(policy) = self.policy.filter(|_| reset.kind != ResetKind::Overflow) else { return false };
        if policy.on(RetryOn::FiveXx) || policy.on(RetryOn::GatewayError) || policy.on(RetryOn::Reset) {
            return true;
        }
        let connect = matches!(reset.kind, ResetKind::ConnectFailure | ResetKind::ConnectTimeout);
        connect && (policy.on(RetryOn::ConnectFailure) || policy.on(RetryOn::ResetBeforeRequest))
    }

    /// Uses up one retry and gives the wait before it: uniform below base × 2ⁿ, at most the maximum (as measured on
    /// Envoy; its documentation has another formula).
    pub(crate) fn back_off(&mut self, rng: &mut Rng) -> Duration {
        self.left = self.left.saturating_sub(1);
        let Some(policy) = self.policy else { return Duration::ZERO };
        let bound = policy.back_off_base.saturating_mul(1_u32.checked_shl(self.waits).unwrap_or(u32::MAX));
        self.waits += 1;
        let bound = bound.min(policy.back_off_max);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.u64(0..nanos.max(1)))
    }
}
