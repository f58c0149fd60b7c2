//! When is a failed request tried again, how often, and after which wait? The policy; the decision is the router's.

use std::time::Duration;

use lateen_xds::envoy::config::route::v3 as route_v3;
use lateen_xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::super::Invalid;
use super::super::fields::{duration, limit, unpack};
use super::super::matcher::{HeaderMatcher, header_name, unsupported};
use super::{header_matchers, refuse};
use crate::http::head::HeaderName;

const PREVIOUS_HOSTS: &str = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// The first wait's upper bound without a policy.
pub const DEFAULT_BASE: Duration = Duration::from_millis(25);
const LEAST_BASE: Duration = Duration::from_millis(1);
const DEFAULT_RESET_MAX: Duration = Duration::from_secs(300);

/// A reason to try again; the tokens of `retry_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetryOn {
    /// `5xx`.
    FiveXx,
    /// `gateway-error`.
    GatewayError,
    /// `reset`.
    Reset,
    /// `reset-before-request`.
    ResetBeforeRequest,
    /// `connect-failure`.
    ConnectFailure,
    /// `refused-stream`.
    RefusedStream,
    /// `retriable-4xx`.
    Retriable4xx,
    /// `retriable-status-codes`.
    RetriableStatusCodes,
    /// `retriable-headers`.
    RetriableHeaders,
    /// `envoy-ratelimited`.
    EnvoyRatelimited,
    /// `http3-post-connect-failure`.
    Http3PostConnectFailure,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 13.
    Internal,
    /// gRPC status 14.
    Unavailable,
}

impl RetryOn {
    /// The reason that a token names; `None` for one that Envoy ignores.
    #[must_use]
    pub fn parse(token: &[u8]) -> Option<Self> {
        Some(match token {
            b"5xx" => Self::FiveXx,
            b"gateway-error" => Self::GatewayError,
            b"reset" => Self::Reset,
            b"reset-before-request" => Self::ResetBeforeRequest,
            b"connect-failure" => Self::ConnectFailure,
            b"refused-stream" => Self::RefusedStream,
            b"retriable-4xx" => Self::Retriable4xx,
            b"retriable-status-codes" => Self::RetriableStatusCodes,
            b"retriable-headers" => Self::RetriableHeaders,
            b"envoy-ratelimited" => Self::EnvoyRatelimited,
            b"http3-post-connect-failure" => Self::Http3PostConnectFailure,
            b"cancelled" => Self::Cancelled,
            b"deadline-exceeded" => Self::DeadlineExceeded,
            b"resource-exhausted" => Self::ResourceExhausted,
            b"internal" => Self::Internal,
            b"unavailable" => Self::Unavailable,
            _ => return None,
        })
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Whether it is about gRPC: Envoy reads such tokens from a header of their own.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(
            self,
            Self::Cancelled | Self::DeadlineExceeded | Self::ResourceExhausted | Self::Internal | Self::Unavailable
        )
    }
}

/// A set of reasons to try again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryReasons(u32);

impl RetryReasons {
    /// The reasons of a comma-separated list; unknown tokens are ignored, as in Envoy.
    #[must_use]
    pub fn parse(list: &[u8], wanted: impl Fn(RetryOn) -> bool) -> Self {
        let tokens = list.split(|byte| *byte == b',').filter_map(|token| RetryOn::parse(token.trim_ascii()));
        Self(tokens.filter(|reason| wanted(*reason)).fold(0, |set, reason| set | reason.bit()))
    }

    /// Whether the set holds a reason.
    #[inline]
    #[must_use]
    pub fn contains(self, reason: RetryOn) -> bool {
        self.0 & reason.bit() != 0
    }

    /// Whether the set holds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reasons of both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Envoy's `RetryPolicy`.
#[derive(Debug)]
pub struct RetryPolicy {
    /// Most retries after the first try.
    pub num_retries: u32,
    /// Limit of one try.
    pub per_try_timeout: Option<Duration>,
    /// Limit of the time without a byte in one try.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses that are retried by `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers of which one must match for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// If there are any, a request is only retried when one of them matches it.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// A retry prefers hosts that were not tried (`previous_hosts`).
    pub previous_hosts: bool,
    /// How often a host is picked anew that was tried already.
    pub host_selection_attempts: u32,
    /// `previous_priorities`: after so many tries their priorities are excluded.
    pub previous_priorities: Option<u32>,
    /// Upper bound of the first wait; it doubles with each retry.
    pub back_off_base: Duration,
    /// Upper bound of all waits.
    pub back_off_max: Duration,
    /// Waits that the upstream asks for.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// What is retried.
    pub reasons: RetryReasons,
}

/// Envoy's `RateLimitedRetryBackOff`.
#[derive(Debug)]
pub struct RateLimitedBackOff {
    /// Response headers that may name a wait; the first one that does counts.
    pub reset_headers: Vec<ResetHeader>,
    /// A longer wait than this is not obeyed.
    pub max_interval: Duration,
}

/// A response header that names a wait.
#[derive(Debug)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// What its value means.
    pub format: ResetHeaderFormat,
}

/// What the number in a reset header means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetHeaderFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

impl RetryPolicy {
    /// Reads the message. Unknown tokens in `retry_on` are ignored, as in Envoy.
    ///
    /// # Errors
    /// A back-off whose maximum is below its base, host predicates and priorities other than `previous_hosts` and
    /// `previous_priorities`, malformed header matchers.
    pub(super) fn build(message: &route_v3::RetryPolicy) -> Result<Self, Invalid> {
        refuse(!message.retry_options_predicates.is_empty(), "retry_options_predicates", "retry options predicates")?;
        refuse(message.refresh_cluster_on_retry, "refresh_cluster_on_retry", "choosing the cluster anew on a retry")?;
        let (back_off_base, back_off_max) = back_off(message)?;
        let attempts = message.host_selection_retry_max_attempts;
        Ok(Self {
            num_retries: message.num_retries.unwrap_or(1),
            per_try_timeout: limit(message.per_try_timeout.as_ref(), "per_try_timeout")?,
            per_try_idle_timeout: limit(message.per_try_idle_timeout.as_ref(), "per_try_idle_timeout")?,
            retriable_status_codes: message
                .retriable_status_codes
                .iter()
                .filter_map(|code| u16::try_from(*code).ok())
                .collect(),
            retriable_headers: header_matchers(&message.retriable_headers, "retriable_headers")?,
            retriable_request_headers: header_matchers(
                &message.retriable_request_headers,
                "retriable_request_headers",
            )?,
            previous_hosts: previous_hosts(message)?,
            host_selection_attempts: u32::try_from(attempts).unwrap_or(1).max(1),
            previous_priorities: previous_priorities(message)?,
            back_off_base,
            back_off_max,
            rate_limited_back_off: message.rate_limited_retry_back_off.as_ref().map(rate_limited).transpose()?,
            reasons: RetryReasons::parse(message.retry_on.as_bytes(), |_| true),
        })
    }

    /// Whether the policy names a reason.
    #[inline]
    #[must_use]
    pub fn on(&self, reason: RetryOn) -> bool {
        self.reasons.contains(reason)
    }
}

fn back_off(message: &route_v3::RetryPolicy) -> Result<(Duration, Duration), Invalid> {
    let Some(back_off) = &message.retry_back_off else { return Ok((DEFAULT_BASE, DEFAULT_BASE * 10)) };
    let Some(base) = &back_off.base_interval else {
        return Err(Invalid::at("retry_back_off.base_interval", "a base interval is required".into()));
    };
    let base = duration(base, "retry_back_off.base_interval")?;
    if base.is_zero() {
        return Err(Invalid::at("retry_back_off.base_interval", "must be greater than 0s".into()));
    }
    let base = base.max(LEAST_BASE);
    let max = match &back_off.max_interval {
        Some(max) => duration(max, "retry_back_off.max_interval")?.max(LEAST_BASE),
        None => base.saturating_mul(10),
    };
    if max < base {
        let message = "must be greater than or equal to the base_interval".to_owned();
        return Err(Invalid::at("retry_back_off.max_interval", message));
    }
    Ok((base, max))
}

fn previous_hosts(message: &route_v3::RetryPolicy) -> Result<bool, Invalid> {
    use route_v3::retry_policy::retry_host_predicate::ConfigType;
    let mut previous_hosts = false;
    for (index, predicate) in message.retry_host_predicate.iter().enumerate() {
        let known = match &predicate.config_type {
            Some(ConfigType::TypedConfig(config)) => config.type_url == PREVIOUS_HOSTS,
            None => predicate.name == "envoy.retry_host_predicates.previous_hosts",
        };
        if !known {
            let path = format!("retry_host_predicate[{index}]");
            return Err(unsupported(&path, &format!("host predicates `{}`", predicate.name)));
        }
        previous_hosts = true;
    }
    Ok(previous_hosts)
}

fn previous_priorities(message: &route_v3::RetryPolicy) -> Result<Option<u32>, Invalid> {
    use route_v3::retry_policy::retry_priority::ConfigType;
    let Some(priority) = &message.retry_priority else { return Ok(None) };
    let Some(ConfigType::TypedConfig(config)) = &priority.config_type else {
        return Err(Invalid::at("retry_priority.typed_config", "a configuration is required".into()));
    };
    let config: PreviousPrioritiesConfig = unpack(config, "retry_priority.typed_config")?;
    match u32::try_from(config.update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(Some(frequency)),
        _ => Err(Invalid::at("retry_priority.typed_config.update_frequency", "must be greater than 0".into())),
    }
}

fn rate_limited(message: &route_v3::retry_policy::RateLimitedRetryBackOff) -> Result<RateLimitedBackOff, Invalid> {
    use route_v3::retry_policy::ResetHeaderFormat as Format;
    let path = "rate_limited_retry_back_off";
    if message.reset_headers.is_empty() {
        return Err(Invalid::at(format!("{path}.reset_headers"), "at least one header is required".into()));
    }
    let reset_headers = message
        .reset_headers
        .iter()
        .enumerate()
        .map(|(index, header)| {
            let path = format!("{path}.reset_headers[{index}]");
            let name = header_name(&header.name, &format!("{path}.name"))?;
            let format = match Format::try_from(header.format) {
                Ok(Format::Seconds) => ResetHeaderFormat::Seconds,
                Ok(Format::UnixTimestamp) => ResetHeaderFormat::UnixTimestamp,
                Err(_) => return Err(Invalid::at(format!("{path}.format"), format!("{} is no format", header.format))),
            };
            Ok(ResetHeader { name, format })
        })
        .collect::<Result<_, _>>()?;
    let max_interval = match &message.max_interval {
        Some(max) => duration(max, &format!("{path}.max_interval"))?,
        None => DEFAULT_RESET_MAX,
    };
    Ok(RateLimitedBackOff { reset_headers, max_interval })
}
