//! When is a host taken out for what it answers? Envoy's `OutlierDetection`.

use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;

use crate::snapshot::Invalid;
use crate::snapshot::fields::duration;

/// Envoy's default `interval`.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Envoy's default `base_ejection_time`.
const DEFAULT_BASE_EJECTION: Duration = Duration::from_secs(30);
/// Envoy's default `max_ejection_time`.
const DEFAULT_MAX_EJECTION: Duration = Duration::from_secs(300);

/// The settings; percentages are whole numbers of 0 to 100.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// `consecutive_5xx`.
    pub consecutive_5xx: u32,
    /// `consecutive_gateway_failure`.
    pub consecutive_gateway_failure: u32,
    /// `consecutive_local_origin_failure`.
    pub consecutive_local_origin_failure: u32,
    /// `split_external_local_origin_errors`: what went wrong before an answer is counted apart.
    pub split: bool,
    /// `interval` between sweeps.
    pub interval: Duration,
    /// `base_ejection_time`.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, at least the base.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`.
    pub max_jitter: Duration,
    /// `max_ejection_percent`.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`.
    pub always_eject_one: bool,
    /// `success_rate_minimum_hosts`.
    pub success_rate_minimum_hosts: usize,
    /// `success_rate_request_volume`.
    pub success_rate_request_volume: u64,
    /// `success_rate_stdev_factor`, in thousandths.
    pub success_rate_stdev_factor: u32,
    /// `failure_percentage_threshold`.
    pub failure_percentage_threshold: u32,
    /// `failure_percentage_minimum_hosts`.
    pub failure_percentage_minimum_hosts: usize,
    /// `failure_percentage_request_volume`.
    pub failure_percentage_request_volume: u64,
    /// `enforcing_*`: how often a detection ejects.
    pub enforcing: Enforcing,
}

/// How often a detection ejects, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcing {
    /// `enforcing_consecutive_5xx`.
    pub consecutive_5xx: u32,
    /// `enforcing_consecutive_gateway_failure`.
    pub consecutive_gateway_failure: u32,
    /// `enforcing_consecutive_local_origin_failure`.
    pub consecutive_local_origin_failure: u32,
    /// `enforcing_success_rate`.
    pub success_rate: u32,
    /// `enforcing_local_origin_success_rate`.
    pub local_origin_success_rate: u32,
    /// `enforcing_failure_percentage`.
    pub failure_percentage: u32,
    /// `enforcing_failure_percentage_local_origin`.
    pub local_origin_failure_percentage: u32,
}

impl OutlierDetection {
    pub(super) fn build(message: &cluster_v3::OutlierDetection) -> Result<Self, Invalid> {
        let time = |value: Option<&prost_types::Duration>, field: &str, default: Duration| {
            let path = format!("outlier_detection.{field}");
            match value.map(|value| duration(value, &path)).transpose()? {
                Some(zero) if zero.is_zero() => Err(Invalid::at(path, "must be greater than 0s".into())),
                value => Ok(value.unwrap_or(default)),
            }
        };
        let percent = |value: Option<u32>, field: &str, default: u32| match value {
            Some(value) if value > 100 => {
                Err(Invalid::at(format!("outlier_detection.{field}"), format!("{value} is more than 100 percent")))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let count = |value: Option<u32>, default: usize| value.map_or(default, |value| value as usize);
        let base_ejection_time =
            time(message.base_ejection_time.as_ref(), "base_ejection_time", DEFAULT_BASE_EJECTION)?;
        let max_ejection_time = time(
            message.max_ejection_time.as_ref(),
            "max_ejection_time",
            DEFAULT_MAX_EJECTION.max(base_ejection_time),
        )?;
        if max_ejection_time < base_ejection_time {
            let text = "must not be smaller than base_ejection_time".to_owned();
            return Err(Invalid::at("outlier_detection.max_ejection_time", text));
        }
        let jitter = message.max_ejection_time_jitter.as_ref();
        Ok(Self {
            consecutive_5xx: message.consecutive_5xx.unwrap_or(5),
            consecutive_gateway_failure: message.consecutive_gateway_failure.unwrap_or(5),
            consecutive_local_origin_failure: message.consecutive_local_origin_failure.unwrap_or(5),
            split: message.split_external_local_origin_errors,
            interval: time(message.interval.as_ref(), "interval", DEFAULT_INTERVAL)?,
            base_ejection_time,
            max_ejection_time,
            max_jitter: jitter
                .map(|jitter| duration(jitter, "outlier_detection.max_ejection_time_jitter"))
                .transpose()?
                .unwrap_or_default(),
            max_ejection_percent: percent(message.max_ejection_percent, "max_ejection_percent", 10)?,
            always_eject_one: message.always_eject_one_host.unwrap_or(false),
            success_rate_minimum_hosts: count(message.success_rate_minimum_hosts, 5),
            success_rate_request_volume: message.success_rate_request_volume.unwrap_or(100).into(),
            success_rate_stdev_factor: message.success_rate_stdev_factor.unwrap_or(1900),
            failure_percentage_threshold: percent(
                message.failure_percentage_threshold,
                "failure_percentage_threshold",
                85,
            )?,
            failure_percentage_minimum_hosts: count(message.failure_percentage_minimum_hosts, 5),
            failure_percentage_request_volume: message.failure_percentage_request_volume.unwrap_or(50).into(),
            enforcing: Enforcing {
                consecutive_5xx: percent(message.enforcing_consecutive_5xx, "enforcing_consecutive_5xx", 100)?,
                consecutive_gateway_failure: percent(
                    message.enforcing_consecutive_gateway_failure,
                    "enforcing_consecutive_gateway_failure",
                    0,
                )?,
                consecutive_local_origin_failure: percent(
                    message.enforcing_consecutive_local_origin_failure,
                    "enforcing_consecutive_local_origin_failure",
                    100,
                )?,
                success_rate: percent(message.enforcing_success_rate, "enforcing_success_rate", 100)?,
                local_origin_success_rate: percent(
                    message.enforcing_local_origin_success_rate,
                    "enforcing_local_origin_success_rate",
                    100,
                )?,
                failure_percentage: percent(message.enforcing_failure_percentage, "enforcing_failure_percentage", 0)?,
                local_origin_failure_percentage: percent(
                    message.enforcing_failure_percentage_local_origin,
                    "enforcing_failure_percentage_local_origin",
                    0,
                )?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(json: Value) -> Result<OutlierDetection, Invalid> {
        OutlierDetection::build(&lateen_xds::json::parse(json).unwrap())
    }

    #[test]
    fn what_is_not_said_is_envoys_default() {
        let built = build(json!({})).unwrap();
        assert_eq!((built.consecutive_5xx, built.consecutive_gateway_failure), (5, 5));
        assert_eq!((built.interval, built.base_ejection_time), (Duration::from_secs(10), Duration::from_secs(30)));
        assert_eq!((built.max_ejection_time, built.max_ejection_percent), (Duration::from_secs(300), 10));
        assert_eq!((built.enforcing.consecutive_5xx, built.enforcing.consecutive_gateway_failure), (100, 0));
        assert!(!built.always_eject_one && !built.split);
    }

    #[test]
    fn the_longest_ejection_is_never_shorter_than_the_base() {
        let built = build(json!({"base_ejection_time": "400s"})).unwrap();
        assert_eq!(built.max_ejection_time, Duration::from_secs(400));
        let invalid = build(json!({"base_ejection_time": "40s", "max_ejection_time": "4s"})).unwrap_err();
        assert_eq!(invalid.path, "outlier_detection.max_ejection_time");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_path() {
        assert_eq!(build(json!({"interval": "0s"})).unwrap_err().path, "outlier_detection.interval");
        let invalid = build(json!({"max_ejection_percent": 101})).unwrap_err();
        assert_eq!(invalid.path, "outlier_detection.max_ejection_percent");
    }
}
