//! How much may be under way to a cluster at once? Envoy's `CircuitBreakers`, for each routing priority.

use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget as BudgetMessage;

use crate::snapshot::Invalid;
use crate::snapshot::fields::duration;

/// Envoy's default of `budget_percent`.
const DEFAULT_BUDGET_PERCENT: f64 = 20.0;
/// Envoy's default of `min_retry_concurrency`.
const DEFAULT_MIN_RETRY_CONCURRENCY: u32 = 3;

/// Circuit breaker thresholds of one routing priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_pending_requests`.
    pub max_pending_requests: u32,
    /// `max_requests`.
    pub max_requests: u32,
    /// `max_retries`; without effect when there is a budget.
    pub max_retries: u32,
    /// `max_connection_pools`; `None` is unlimited.
    pub max_connection_pools: Option<u32>,
    /// `max_connections` of `per_host_thresholds`; `None` is unlimited.
    pub max_connections_per_host: Option<u32>,
    /// `retry_budget`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: what is left up to the limits is a statistic.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: None,
            max_connections_per_host: None,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// Retries in relation to what is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// `budget_percent`: of the requests that are active or wait for a connection.
    pub percent: f64,
    /// `min_retry_concurrency`: so many are allowed however little is under way.
    pub min_concurrency: u32,
    /// `budget_interval`: in place of what is under way the requests count that began so lately.
    pub interval: Option<Duration>,
}

impl RetryBudget {
    fn build(message: &BudgetMessage, path: &str) -> Result<Self, Invalid> {
        let interval = message.budget_interval.as_ref();
        let interval = interval.map(|span| duration(span, &format!("{path}.budget_interval"))).transpose()?;
        Ok(Self {
            percent: message.budget_percent.map_or(DEFAULT_BUDGET_PERCENT, |percent| percent.value),
            min_concurrency: message.min_retry_concurrency.unwrap_or(DEFAULT_MIN_RETRY_CONCURRENCY),
            interval: interval.filter(|span| !span.is_zero()),
        })
    }
}

/// The thresholds of the default and the high priority. Of several messages for one priority the first counts.
pub(super) fn build(message: &cluster_v3::Cluster) -> Result<[Thresholds; 2], Invalid> {
    let breakers = message.circuit_breakers.as_ref();
    let priority = |priority: i32| {
        let given = breakers.and_then(|given| given.thresholds.iter().find(|given| given.priority == priority));
        let per_host =
            breakers.and_then(|given| given.per_host_thresholds.iter().find(|given| given.priority == priority));
        let mut built = Thresholds {
            max_connections_per_host: per_host.and_then(|given| given.max_connections),
            ..Thresholds::default()
        };
        if let Some(given) = given {
            built.max_connections = given.max_connections.unwrap_or(built.max_connections);
            built.max_pending_requests = given.max_pending_requests.unwrap_or(built.max_pending_requests);
            built.max_requests = given.max_requests.unwrap_or(built.max_requests);
            built.max_retries = given.max_retries.unwrap_or(built.max_retries);
            built.max_connection_pools = given.max_connection_pools;
            let budget = given.retry_budget.as_ref();
            built.retry_budget = budget
                .map(|budget| RetryBudget::build(budget, "circuit_breakers.thresholds.retry_budget"))
                .transpose()?;
            built.track_remaining = given.track_remaining;
        }
        Ok(built)
    };
    Ok([priority(0)?, priority(1)?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn thresholds(breakers: serde_json::Value) -> [Thresholds; 2] {
        build(&lateen_xds::json::parse(json!({"name": "c", "circuit_breakers": breakers})).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_said_is_envoys_default() {
        assert_eq!(thresholds(json!({})), [Thresholds::default(); 2]);
        let [default, high] = thresholds(json!({"thresholds": [{"priority": "HIGH", "max_requests": 7}]}));
        assert_eq!(default, Thresholds::default());
        assert_eq!(high, Thresholds { max_requests: 7, ..Thresholds::default() });
    }

    #[test]
    fn of_two_thresholds_for_a_priority_the_first_counts() {
        let [default, _] = thresholds(json!({
            "thresholds": [{"max_connections": 5, "track_remaining": true}, {"max_connections": 9, "max_retries": 1}],
            "per_host_thresholds": [{"max_connections": 2}]
        }));
        assert_eq!((default.max_connections, default.max_retries), (5, 3));
        assert_eq!((default.track_remaining, default.max_connections_per_host), (true, Some(2)));
    }

    #[test]
    fn a_retry_budget_has_defaults_of_its_own() {
        let [default, _] = thresholds(json!({"thresholds": [{"retry_budget": {}}]}));
        assert_eq!(default.retry_budget, Some(RetryBudget { percent: 20.0, min_concurrency: 3, interval: None }));
        let [default, _] = thresholds(json!({"thresholds": [{"retry_budget":
            {"budget_percent": {"value": 50}, "min_retry_concurrency": 0, "budget_interval": "2s"}}]}));
        let interval = Some(Duration::from_secs(2));
        assert_eq!(default.retry_budget, Some(RetryBudget { percent: 50.0, min_concurrency: 0, interval }));
    }
}
