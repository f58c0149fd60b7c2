//! How are the clusters and their hosts? `/clusters`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lateen_telemetry::admin::{Answer, Request, StatusCode};
use lateen_xds::envoy::admin::v3 as admin_v3;
use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::r#type::v3::Percent;

use super::{Source, is_json, json, regex, unwritable};
use crate::snapshot::Cluster;
use crate::snapshot::cluster::Thresholds;
use crate::snapshot::endpoints::{Endpoint, Health};
use crate::snapshot::host::HealthFlag;

pub(super) fn answer(source: &Source, request: &Request) -> Answer {
    let mut clusters = source.clusters();
    if let Some(filter) = request.query.get("filter") {
        let Ok(filter) = regex(filter) else {
            return Answer::error(StatusCode::BAD_REQUEST, "Invalid re2 regex");
        };
        clusters.retain(|cluster| filter.is_match(&cluster.config.name));
    }
    clusters.sort_by(|one, other| one.config.name.cmp(&other.config.name));
    let set = source.config().set;
    // Only the message tells a service name that equals the cluster's name from none.
    let service_name = |cluster: &Cluster| {
        let message = &set.clusters.get(&cluster.config.name)?.message;
        message.eds_cluster_config.as_ref().map(|eds| eds.service_name.clone()).filter(|name| !name.is_empty())
    };
    if is_json(request) {
        let statuses = clusters.iter().map(|cluster| status(cluster, service_name(cluster)));
        return match lateen_xds::json::render(&admin_v3::Clusters { cluster_statuses: statuses.collect() }) {
            Ok(value) => Answer::json(json::pretty(&value)),
            Err(error) => unwritable(&error),
        };
    }
    let mut out = String::new();
    for cluster in &clusters {
        text(cluster, service_name(cluster), &mut out);
    }
    Answer::text(out)
}

/// An address as Envoy messages have it.
pub(super) fn address(address: SocketAddr) -> core_v3::Address {
    use core_v3::address::Address;
    use core_v3::socket_address::PortSpecifier;
    let socket = core_v3::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
        ..core_v3::SocketAddress::default()
    };
    core_v3::Address { address: Some(Address::SocketAddress(socket)) }
}

/// The numbers of a host, in the order of the text form; gauges first and last, as there.
struct HostNumbers {
    cx_active: u32,
    cx_connect_fail: u32,
    cx_total: u32,
    rq_active: u32,
    rq_error: u32,
    rq_pending_active: u32,
    rq_success: u32,
    rq_timeout: u32,
    rq_total: u32,
}

impl HostNumbers {
    fn of(endpoint: &Endpoint) -> Self {
        let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
        let state = &endpoint.state;
        Self {
            cx_active: read(&state.active_connections),
            cx_connect_fail: read(&state.connect_failures),
            cx_total: read(&state.connections),
            rq_active: read(&state.active_requests),
            rq_error: read(&state.errors),
            rq_pending_active: read(&state.pending_requests),
            rq_success: read(&state.successes),
            rq_timeout: read(&state.timeouts),
            rq_total: read(&state.requests),
        }
    }
}

fn text(cluster: &Cluster, service_name: Option<String>, out: &mut String) {
    let name = &cluster.config.name;
    let mut line = |rest: std::fmt::Arguments<'_>| {
        // Writing to a `String` is infallible.
        let _ = writeln!(out, "{name}::{rest}");
    };
    line(format_args!("observability_name::{}", cluster.config.stat_name));
    if cluster.config.outlier_detection.is_some() {
        let [[mean, limit], [local_mean, local_limit]] = cluster.stats.averages.get().map(|pair| pair.map(shown_rate));
        line(format_args!("outlier::success_rate_average::{mean}"));
        line(format_args!("outlier::success_rate_ejection_threshold::{limit}"));
        line(format_args!("outlier::local_origin_success_rate_average::{local_mean}"));
        line(format_args!("outlier::local_origin_success_rate_ejection_threshold::{local_limit}"));
    }
    for (priority, thresholds) in ["default", "high"].into_iter().zip(&cluster.config.thresholds) {
        let Thresholds { max_connections, max_pending_requests, max_requests, max_retries, .. } = thresholds;
        line(format_args!("{priority}_priority::max_connections::{max_connections}"));
        line(format_args!("{priority}_priority::max_pending_requests::{max_pending_requests}"));
        line(format_args!("{priority}_priority::max_requests::{max_requests}"));
        line(format_args!("{priority}_priority::max_retries::{max_retries}"));
    }
    line(format_args!("added_via_api::true"));
    if let Some(service_name) = service_name {
        line(format_args!("eds_service_name::{service_name}"));
    }
    for endpoint in &cluster.endpoints.hosts {
        let address = &endpoint.address.text;
        let numbers = HostNumbers::of(endpoint);
        let [region, zone, sub_zone] = &endpoint.locality;
        let flags = health_flags(endpoint);
        line(format_args!("{address}::cx_active::{}", numbers.cx_active));
        line(format_args!("{address}::cx_connect_fail::{}", numbers.cx_connect_fail));
        line(format_args!("{address}::cx_total::{}", numbers.cx_total));
        line(format_args!("{address}::rq_active::{}", numbers.rq_active));
        line(format_args!("{address}::rq_error::{}", numbers.rq_error));
        line(format_args!("{address}::rq_pending_active::{}", numbers.rq_pending_active));
        line(format_args!("{address}::rq_success::{}", numbers.rq_success));
        line(format_args!("{address}::rq_timeout::{}", numbers.rq_timeout));
        line(format_args!("{address}::rq_total::{}", numbers.rq_total));
        line(format_args!("{address}::hostname::{}", endpoint.hostname));
        line(format_args!("{address}::health_flags::{flags}"));
        line(format_args!("{address}::weight::{}", endpoint.weight));
        line(format_args!("{address}::region::{region}"));
        line(format_args!("{address}::zone::{zone}"));
        line(format_args!("{address}::sub_zone::{sub_zone}"));
        line(format_args!("{address}::canary::false"));
        line(format_args!("{address}::priority::{}", endpoint.priority));
        let [success_rate, local_origin] = endpoint.state.rates.get();
        line(format_args!("{address}::success_rate::{}", shown_rate(success_rate)));
        line(format_args!("{address}::local_origin_success_rate::{}", shown_rate(local_origin)));
    }
}

/// Why a host is not healthy, as Envoy joins the reasons.
fn health_flags(endpoint: &Endpoint) -> String {
    let mut flags = String::new();
    if endpoint.state.has(HealthFlag::FailedActiveHealthCheck) {
        flags.push_str("/failed_active_hc");
    }
    if endpoint.state.has(HealthFlag::FailedOutlierCheck) {
        flags.push_str("/failed_outlier_check");
    }
    if endpoint.state.has(HealthFlag::DegradedActiveHealthCheck) {
        flags.push_str("/degraded_active_hc");
    }
    flags.push_str(match endpoint.health {
        Health::Healthy => "",
        Health::Unhealthy => "/failed_eds_health",
        Health::Draining => "/eds_status_draining",
        Health::Degraded => "/degraded_eds_health",
    });
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// A rate with the six significant digits that Envoy prints.
fn shown_rate(rate: f64) -> String {
    // A rate is at most 100, so the digits before the point are known.
    let before = if rate >= 100.0 {
        3
    } else if rate >= 10.0 {
        2
    } else {
        1
    };
    let digits = format!("{rate:.*}", 6 - before);
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}

/// A rate as messages have it, where it is known.
fn percent(value: f64) -> Option<Percent> {
    (value >= 0.0).then_some(Percent { value })
}

fn status(cluster: &Cluster, service_name: Option<String>) -> admin_v3::ClusterStatus {
    let thresholds = cluster.config.thresholds.iter().zip([0, 1]).map(|(thresholds, priority)| {
        cluster_v3::circuit_breakers::Thresholds {
            priority,
            max_connections: Some(thresholds.max_connections),
            max_pending_requests: Some(thresholds.max_pending_requests),
            max_requests: Some(thresholds.max_requests),
            max_retries: Some(thresholds.max_retries),
            ..cluster_v3::circuit_breakers::Thresholds::default()
        }
    });
    let [[_, limit], [_, local_limit]] = cluster.stats.averages.get();
    admin_v3::ClusterStatus {
        success_rate_ejection_threshold: percent(limit),
        local_origin_success_rate_ejection_threshold: percent(local_limit),
        name: cluster.config.name.to_string(),
        added_via_api: true,
        host_statuses: cluster.endpoints.hosts.iter().map(host_status).collect(),
        circuit_breakers: Some(cluster_v3::CircuitBreakers {
            thresholds: thresholds.collect(),
            ..cluster_v3::CircuitBreakers::default()
        }),
        observability_name: cluster.config.stat_name.to_string(),
        eds_service_name: service_name.unwrap_or_default(),
    }
}

fn host_status(endpoint: &Arc<Endpoint>) -> admin_v3::HostStatus {
    use admin_v3::simple_metric::Type;
    use core_v3::HealthStatus;
    let numbers = HostNumbers::of(endpoint);
    let metric = |kind: Type, name: &str, value: u32| admin_v3::SimpleMetric {
        r#type: kind.into(),
        value: u64::from(value),
        name: name.into(),
    };
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
        Health::Degraded => HealthStatus::Degraded,
    };
    let [region, zone, sub_zone] = endpoint.locality.each_ref().map(ToString::to_string);
    let rates = endpoint.state.rates.get();
    admin_v3::HostStatus {
        success_rate: percent(rates[0]),
        local_origin_success_rate: percent(rates[1]),
        address: Some(address(endpoint.address.socket)),
        stats: vec![
            metric(Type::Counter, "cx_connect_fail", numbers.cx_connect_fail),
            metric(Type::Counter, "cx_total", numbers.cx_total),
            metric(Type::Counter, "rq_error", numbers.rq_error),
            metric(Type::Counter, "rq_success", numbers.rq_success),
            metric(Type::Counter, "rq_timeout", numbers.rq_timeout),
            metric(Type::Counter, "rq_total", numbers.rq_total),
            metric(Type::Gauge, "cx_active", numbers.cx_active),
            metric(Type::Gauge, "rq_active", numbers.rq_active),
            metric(Type::Gauge, "rq_pending_active", numbers.rq_pending_active),
        ],
        health_status: Some(admin_v3::HostHealthStatus {
            eds_health_status: health.into(),
            failed_active_health_check: endpoint.state.has(HealthFlag::FailedActiveHealthCheck),
            failed_active_degraded_check: endpoint.state.has(HealthFlag::DegradedActiveHealthCheck),
            failed_outlier_check: endpoint.state.has(HealthFlag::FailedOutlierCheck),
            ..admin_v3::HostHealthStatus::default()
        }),
        weight: endpoint.weight,
        hostname: endpoint.hostname.to_string(),
        priority: endpoint.priority,
        locality: Some(core_v3::Locality { region, zone, sub_zone }),
    }
}
