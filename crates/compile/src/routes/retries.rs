//! When is a request tried again? The rule's `retries`, else those of the mesh, else Istio's built-in policy. The one
//! that is found holds whole: nothing is inherited field by field.

use std::time::Duration;

use lateen_config::HttpRetry;
use lateen_xds::envoy::config::route::v3::{RetryPolicy, retry_policy};
use lateen_xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use lateen_xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::mesh::Mesh;
use crate::message;

/// Conditions under which Istio retries when a policy names none.
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Attempts after the first one when a policy names none.
const DEFAULT_ATTEMPTS: u32 = 2;

/// How often a host that failed already is passed over before it is taken after all.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The condition that makes the list of status codes count.
const STATUS_CODES: &str = "retriable-status-codes";

/// The policy of a route; `None` when `attempts: 0` turns retries off. `hashed` says that the route has one
/// destination and picks it by hash: then a retry may go to the same host again, unless asked otherwise.
pub(crate) fn compile(mesh: &Mesh, retries: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let Some(retries) = retries.or(mesh.default_http_retry_policy.as_ref()) else {
        return Some(policy(DEFAULT_ATTEMPTS, DEFAULT_RETRY_ON.to_owned(), Vec::new(), !hashed));
    };
    let attempts = u32::try_from(retries.attempts).ok().filter(|attempts| *attempts > 0)?;
    let (conditions, codes) = match retries.retry_on.as_deref() {
        None | Some("") => (DEFAULT_RETRY_ON.to_owned(), Vec::new()),
        Some(text) => parse_retry_on(text),
    };
    let avoid_previous_hosts = retries.retry_ignore_previous_hosts.unwrap_or(!hashed);
    let mut policy = policy(attempts, conditions, codes, avoid_previous_hosts);
    policy.per_try_timeout = retries.per_try_timeout.map(message::duration);
    policy.retry_back_off = retries.backoff.map(back_off);
    if retries.retry_remote_localities == Some(true) {
        policy.retry_priority = Some(retry_policy::RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(message::typed(
                &PreviousPrioritiesConfig { update_frequency: 2 },
            ))),
        });
    }
    Some(policy)
}

/// The policy of requests that come to a workload: the mesh's, else for those that it refused before it read them.
pub(crate) fn inbound(mesh: &Mesh) -> Option<RetryPolicy> {
    let retries = mesh.default_inbound_http_retry_policy.as_ref();
    let attempts = retries.map_or(DEFAULT_ATTEMPTS, |retries| u32::try_from(retries.attempts).unwrap_or(0));
    let conditions = retries.and_then(|retries| retries.retry_on.as_deref()).filter(|text| !text.is_empty());
    let (retry_on, retriable_status_codes) = parse_retry_on(conditions.unwrap_or(REFUSED_UNREAD));
    (attempts > 0).then(|| RetryPolicy {
        retry_on,
        num_retries: Some(attempts),
        retriable_status_codes,
        retry_back_off: retries.and_then(|retries| retries.backoff).map(back_off),
        ..Default::default()
    })
}

/// The condition under which requests to a workload are sent again.
const REFUSED_UNREAD: &str = "reset-before-request";

fn back_off(base: Duration) -> retry_policy::RetryBackOff {
    retry_policy::RetryBackOff { base_interval: Some(message::duration(base)), ..Default::default() }
}

/// Splits `retryOn` into Envoy's conditions and status codes: `5xx,503` is the condition `5xx` and the code 503,
/// which needs a condition of its own.
fn parse_retry_on(text: &str) -> (String, Vec<u32>) {
    let mut conditions: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match token.parse::<u32>() {
            Ok(code) if is_known_status(code) => codes.push(code),
            _ => conditions.push(token),
        }
    }
    if !codes.is_empty() && !conditions.contains(&STATUS_CODES) {
        conditions.push(STATUS_CODES);
    }
    (conditions.join(","), codes)
}

/// Status codes that HTTP has a name for.
fn is_known_status(code: u32) -> bool {
    matches!(
        code,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
            | 500..=508 | 510 | 511
    )
}

fn policy(attempts: u32, retry_on: String, codes: Vec<u32>, avoid_previous_hosts: bool) -> RetryPolicy {
    let predicate = retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(message::typed(
            &PreviousHostsPredicate {},
        ))),
    };
    RetryPolicy {
        retry_on,
        num_retries: Some(attempts),
        retriable_status_codes: codes,
        retry_host_predicate: if avoid_previous_hosts { vec![predicate] } else { Vec::new() },
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_the_conditions_become_status_codes() {
        let parse = |text| parse_retry_on(text);
        assert_eq!(parse("5xx,503"), ("5xx,retriable-status-codes".to_owned(), vec![503]));
        assert_eq!(parse("503, 429"), ("retriable-status-codes".to_owned(), vec![503, 429]));
        assert_eq!(parse("gateway-error"), ("gateway-error".to_owned(), vec![]));
        assert_eq!(parse("retriable-status-codes,502"), ("retriable-status-codes".to_owned(), vec![502]));
        assert_eq!(parse("599"), ("599".to_owned(), vec![]));
    }
}
