//! Which HTTP filters does a rule configure for its own requests? Injected faults and CORS.

use std::collections::BTreeMap;

use lateen_config::{CorsPolicy, HttpFaultInjection, HttpRoute, UnmatchedPreflights};
use lateen_xds::envoy::config::core::v3::RuntimeFractionalPercent;
use lateen_xds::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use lateen_xds::envoy::extensions::filters::http::cors::v3::CorsPolicy as EnvoyCors;
use lateen_xds::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use lateen_xds::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use prost_types::Any;

use super::matches;
use crate::hcm::{CORS_FILTER, FAULT_FILTER};
use crate::message;

/// `typed_per_filter_config` of a route.
pub(crate) fn compile(http: &HttpRoute) -> BTreeMap<String, Any> {
    let mut filters = BTreeMap::new();
    if let Some(fault) = http.fault.as_ref() {
        filters.insert(FAULT_FILTER.to_owned(), message::typed(&fault_filter(fault)));
    }
    if let Some(cors) = http.cors_policy.as_ref() {
        filters.insert(CORS_FILTER.to_owned(), message::typed(&cors_filter(cors)));
    }
    filters
}

/// A share of requests as Istio computes it: millionths, cut off, so 0.57 % may become 5699 of them.
pub(crate) fn percent(value: f64) -> FractionalPercent {
    FractionalPercent { numerator: (value * 10_000.0) as u32, denominator: DenominatorType::Million.into() }
}

/// A share in whole percent.
pub(crate) fn whole_percent(value: u32) -> FractionalPercent {
    FractionalPercent { numerator: value, denominator: DenominatorType::Hundred.into() }
}

/// A delay without a percentage never happens, neither does an abort: Istio's rule, and Envoy's.
fn fault_filter(fault: &HttpFaultInjection) -> HttpFault {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let percentage = match (delay.percentage.as_ref(), delay.percent) {
            (Some(percentage), _) => percent(percentage.value),
            (None, share) => whole_percent(u32::try_from(share.unwrap_or(0)).unwrap_or(0)),
        };
        Some(FaultDelay {
            fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay(message::duration(
                delay.fixed_delay?,
            ))),
            percentage: Some(percentage),
        })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let error = match (abort.http_status, abort.grpc_status.as_deref()) {
            (Some(status), _) => fault_abort::ErrorType::HttpStatus(u32::try_from(status).ok()?),
            (None, Some(status)) => fault_abort::ErrorType::GrpcStatus(lateen_config::grpc_status(status)?),
            (None, None) => return None,
        };
        Some(FaultAbort {
            error_type: Some(error),
            percentage: abort.percentage.as_ref().map(|percentage| percent(percentage.value)),
            ..Default::default()
        })
    });
    HttpFault { delay, abort, ..Default::default() }
}

fn cors_filter(cors: &CorsPolicy) -> EnvoyCors {
    let origins = if cors.allow_origins.is_empty() {
        cors.allow_origin.iter().map(|origin| message::exact(origin)).collect()
    } else {
        cors.allow_origins.iter().filter_map(matches::string).collect()
    };
    EnvoyCors {
        allow_origin_string_match: origins,
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials,
        forward_not_matching_preflights: Some(cors.unmatched_preflights != Some(UnmatchedPreflights::Ignore)),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(whole_percent(100)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
