//! How many connections and requests may be on the way to a cluster? Circuit breakers, connect timeout and keep-alive
//! probes.

use std::time::Duration;

use lateen_config::{ConnectionPoolSettings, RetryBudget, TcpKeepalive as Keepalive};
use lateen_xds::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions, circuit_breakers};
use lateen_xds::envoy::config::core::v3::TcpKeepalive;
use lateen_xds::envoy::r#type::v3::Percent;

use crate::mesh::Mesh;
use crate::message;

/// Sets the limits of a cluster.
pub(super) fn apply(
    cluster: &mut Cluster,
    mesh: &Mesh,
    pool: Option<&ConnectionPoolSettings>,
    retry_budget: Option<&RetryBudget>,
) {
    let mut thresholds = unlimited();
    let own_keepalive = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.tcp_keepalive.as_ref());
    cluster.upstream_connection_options = tcp_keepalive(mesh.tcp_keepalive.as_ref(), own_keepalive);
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        thresholds.max_connections = positive(tcp.max_connections).or(thresholds.max_connections);
        if let Some(timeout) = tcp.connect_timeout.filter(|timeout| !timeout.is_zero()) {
            cluster.connect_timeout = Some(message::duration(timeout));
        }
    }
    if let Some(http) = pool.and_then(|pool| pool.http.as_ref()) {
        thresholds.max_pending_requests = positive(http.http1_max_pending_requests).or(thresholds.max_pending_requests);
        thresholds.max_requests = positive(http.http2_max_requests).or(thresholds.max_requests);
        thresholds.max_retries = positive(http.max_retries).or(thresholds.max_retries);
    }
    thresholds.retry_budget = retry_budget.map(|budget| circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
        min_retry_concurrency: Some(budget.min_retry_concurrency.unwrap_or(3)),
        budget_interval: budget.budget_interval.map(message::duration),
    });
    cluster.circuit_breakers = Some(breakers(thresholds));
}

/// Probes on idle connections: of each setting the rule's own, else the mesh's.
fn tcp_keepalive(mesh: Option<&Keepalive>, own: Option<&Keepalive>) -> Option<UpstreamConnectionOptions> {
    if mesh.is_none() && own.is_none() {
        return None;
    }
    let seconds = |time: fn(&Keepalive) -> Option<Duration>| {
        let time = own.and_then(time).or_else(|| mesh.and_then(time))?;
        u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds != 0)
    };
    let probes = |keepalive: Option<&Keepalive>| keepalive?.probes.filter(|probes| *probes != 0);
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: probes(own).or_else(|| probes(mesh)),
            keepalive_time: seconds(|keepalive| keepalive.time),
            keepalive_interval: seconds(|keepalive| keepalive.interval),
        }),
        ..Default::default()
    })
}

/// No limits, where Envoy's own would be 1024 of each and 3 retries.
pub(super) fn unlimited_breakers() -> CircuitBreakers {
    breakers(unlimited())
}

fn breakers(thresholds: circuit_breakers::Thresholds) -> CircuitBreakers {
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

fn unlimited() -> circuit_breakers::Thresholds {
    circuit_breakers::Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Default::default()
    }
}

/// Zero means that a limit is not set.
pub(super) fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value != 0)
}
