//! Which requests does the fault filter delay, abort or slow down, and how?

use std::time::Duration;

use lateen_xds::envoy::extensions::filters::common::fault::v3 as common_v3;
use lateen_xds::envoy::extensions::filters::http::fault::v3 as fault_v3;
use lateen_xds::envoy::r#type::v3 as type_v3;

use super::super::Invalid;
use super::super::fields::duration;
use super::super::matcher::{Fraction, HeaderMatcher, unsupported};

/// Envoy's `HTTPFault`.
#[derive(Debug)]
pub struct Fault {
    /// The wait before the request goes on.
    pub delay: Option<Delay>,
    /// The answer in place of the upstream's.
    pub abort: Option<Abort>,
    /// The speed of the response's body.
    pub rate_limit: Option<RateLimit>,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Box<str>>,
    /// Only requests with all of these.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests of one of these nodes (`x-envoy-downstream-service-node`); empty is all.
    pub downstream_nodes: Vec<Box<[u8]>>,
    /// Requests that may have a fault at the same time.
    pub max_active_faults: Option<u32>,
    /// Faults are also counted by the caller's cluster (`x-envoy-downstream-service-cluster`).
    pub count_callers: bool,
}

/// A delay.
#[derive(Debug)]
pub struct Delay {
    /// How long.
    pub time: DelayTime,
    /// How many requests.
    pub share: Fraction,
}

/// How long a delay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayTime {
    /// Always so long.
    Fixed(Duration),
    /// So many milliseconds as `x-envoy-fault-delay-request` says, for a share of requests that
    /// `x-envoy-fault-delay-request-percentage` may lower.
    Header,
}

/// An abort.
#[derive(Debug)]
pub struct Abort {
    /// With which status.
    pub status: AbortStatus,
    /// How many requests.
    pub share: Fraction,
}

/// The status of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// This HTTP status.
    Http(u16),
    /// HTTP 200 with this gRPC status.
    Grpc(u32),
    /// The one of `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request`, for a share of requests that
    /// `x-envoy-fault-abort-request-percentage` may lower.
    Header,
}

/// A limit of the response's speed.
#[derive(Debug)]
pub struct RateLimit {
    /// How fast.
    pub throughput: Throughput,
    /// How many requests.
    pub share: Fraction,
}

/// How fast a response's body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throughput {
    /// So many KiB a second.
    Fixed(u64),
    /// As `x-envoy-fault-throughput-response` says.
    Header,
}

impl Fault {
    /// Reads the message. Runtime keys are ignored, for there is no runtime here.
    ///
    /// # Errors
    /// A status outside 200–599, an unknown denominator, a delay of nothing, `filter_metadata`.
    pub(super) fn build(message: &fault_v3::HttpFault) -> Result<Self, Invalid> {
        if message.filter_metadata.is_some() {
            return Err(unsupported("filter_metadata", "dynamic metadata of faults"));
        }
        let headers = message.headers.iter().enumerate().map(|(index, header)| {
            HeaderMatcher::build(header).map_err(|invalid| invalid.under(&format!("headers[{index}]")))
        });
        Ok(Self {
            delay: message.delay.as_ref().map(delay).transpose().map_err(|invalid| invalid.under("delay"))?,
            abort: message.abort.as_ref().map(abort).transpose().map_err(|invalid| invalid.under("abort"))?,
            rate_limit: message
                .response_rate_limit
                .as_ref()
                .map(rate_limit)
                .transpose()
                .map_err(|invalid| invalid.under("response_rate_limit"))?,
            upstream_cluster: (!message.upstream_cluster.is_empty()).then(|| message.upstream_cluster.as_str().into()),
            headers: headers.collect::<Result<_, _>>()?,
            downstream_nodes: message.downstream_nodes.iter().map(|node| node.as_bytes().into()).collect(),
            max_active_faults: message.max_active_faults,
            count_callers: !message.disable_downstream_cluster_stats,
        })
    }

    /// Whether there is any fault to inject.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.delay.is_some() || self.abort.is_some() || self.rate_limit.is_some()
    }
}

fn delay(message: &common_v3::FaultDelay) -> Result<Delay, Invalid> {
    use common_v3::fault_delay::FaultDelaySecifier;
    let time = match &message.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(time)) => {
            let time = duration(time, "fixed_delay")?;
            if time.is_zero() {
                return Err(Invalid::at("fixed_delay", "must be greater than 0s".into()));
            }
            // Envoy counts whole milliseconds.
            DelayTime::Fixed(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
        }
        Some(FaultDelaySecifier::HeaderDelay(_)) => DelayTime::Header,
        None => return Err(Invalid::at("fault_delay_secifier", "fixed_delay or header_delay is required".into())),
    };
    Ok(Delay { time, share: share(message.percentage.as_ref())? })
}

fn abort(message: &fault_v3::FaultAbort) -> Result<Abort, Invalid> {
    use fault_v3::fault_abort::ErrorType;
    let status = match &message.error_type {
        Some(ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
            Ok(status @ 200..600) => AbortStatus::Http(status),
            _ => return Err(Invalid::at("http_status", format!("{status} is not between 200 and 599"))),
        },
        Some(ErrorType::GrpcStatus(status)) => AbortStatus::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => AbortStatus::Header,
        None => {
            let message = "one of http_status, grpc_status and header_abort is required".to_owned();
            return Err(Invalid::at("error_type", message));
        }
    };
    Ok(Abort { status, share: share(message.percentage.as_ref())? })
}

fn rate_limit(message: &common_v3::FaultRateLimit) -> Result<RateLimit, Invalid> {
    use common_v3::fault_rate_limit::LimitType;
    let throughput = match &message.limit_type {
        Some(LimitType::FixedLimit(limit)) if limit.limit_kbps == 0 => {
            return Err(Invalid::at("fixed_limit.limit_kbps", "must be greater than or equal to 1".into()));
        }
        Some(LimitType::FixedLimit(limit)) => Throughput::Fixed(limit.limit_kbps),
        Some(LimitType::HeaderLimit(_)) => Throughput::Header,
        None => return Err(Invalid::at("limit_type", "fixed_limit or header_limit is required".into())),
    };
    Ok(RateLimit { throughput, share: share(message.percentage.as_ref())? })
}

/// A fault without a percentage never happens.
fn share(message: Option<&type_v3::FractionalPercent>) -> Result<Fraction, Invalid> {
    match message {
        Some(share) => Fraction::build(share).map_err(|invalid| invalid.under("percentage")),
        None => Ok(Fraction::NONE),
    }
}
