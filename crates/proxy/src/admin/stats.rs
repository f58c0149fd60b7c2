//! What do the statistics read? `/stats` in its forms, and `/stats/prometheus`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lateen_telemetry::admin::{Answer, HTML, Parameter, Request, StatusCode};
use lateen_telemetry::render::{self, Buckets, HistogramForm};
use lateen_telemetry::sample::retain_matching;
use lateen_telemetry::{Sample, Scope, Value};

use super::memory::Memory;
use super::{AdminSource, Source, State, regex, server_info};
use crate::snapshot::endpoints::Health;
use crate::snapshot::host::HealthFlag;
use crate::snapshot::route::Priority;
use crate::stats::BreakerGauges;
use crate::upstream::Breaker;

const USEDONLY: Parameter =
    Parameter { name: "usedonly", help: "Only include stats that have been written by system since restart" };
const FILTER: Parameter = Parameter { name: "filter", help: "Regular expression for filtering stats" };
const INVERT: Parameter = Parameter { name: "invert_filter", help: "Invert the filter regex" };

/// The parameters of `/stats`.
pub(super) const PARAMETERS: &[Parameter] = &[
    USEDONLY,
    FILTER,
    INVERT,
    Parameter { name: "format", help: "Format to use; One of (html, text, json, prometheus)" },
    Parameter {
        name: "type",
        help: "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
    },
    Parameter {
        name: "histogram_buckets",
        help: "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)",
    },
];

/// The parameters of `/stats/prometheus`.
pub(super) const PROMETHEUS_PARAMETERS: &[Parameter] = &[
    USEDONLY,
    Parameter { name: "text_readouts", help: "Render text_readouts as new gauges with value 0" },
    FILTER,
    INVERT,
    Parameter { name: "histogram_buckets", help: "Histogram bucket display mode; One of (cumulative, summary)" },
];

pub(super) fn answer(source: &Source, request: &Request) -> Answer {
    match request.query.get("format") {
        None | Some("" | "text") => {}
        Some("prometheus") => return answer_prometheus(source, request),
        Some("json" | "html" | "active-html") => {}
        Some(_) => return bad("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
    }
    let form = match request.query.get("histogram_buckets") {
        None | Some("" | "none" | "summary") => HistogramForm::Summary,
        Some("cumulative") => HistogramForm::Cumulative,
        Some("disjoint") => HistogramForm::Disjoint,
        Some("detailed") => HistogramForm::Detailed,
        Some("prometheusnative") => return bad("Invalid histogram_buckets type for non prometheus stats type"),
        Some(_) => return bad(BUCKETS_USAGE),
    };
    let wanted: fn(&Value) -> bool = match request.query.get("type") {
        None | Some("" | "All") => |_| true,
        Some("Counters") => |value| matches!(value, Value::Counter(_)),
        Some("Gauges") => |value| matches!(value, Value::Gauge(_)),
        Some("Histograms") => |value| matches!(value, Value::Histogram(_)),
        Some("TextReadouts") => |value| matches!(value, Value::Text(_)),
        Some(_) => return bad("invalid &type= param"),
    };
    let mut samples = match samples(source, request) {
        Ok(samples) => samples,
        Err(answer) => return answer,
    };
    samples.retain(|sample| wanted(&sample.value));
    render::sort(&mut samples);
    match request.query.get("format") {
        Some("json") => Answer::json(render::json(&samples, form)),
        Some("html" | "active-html") => {
            let text = render::text(&samples, form);
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let page = format!(
                "<!DOCTYPE html>\n<html lang='en'>\n<head><meta charset='utf-8'><title>stats</title></head>\n<body>\n\
                 <form><label>filter <input name='filter'></label> <input type='hidden' name='format' value='html'>\
                 <button>show</button></form>\n<pre>\n{text}</pre>\n</body>\n</html>\n"
            );
            Answer { content_type: HTML, ..Answer::text(page) }
        }
        _ => Answer::text(render::text(&samples, form)),
    }
}

pub(super) fn answer_prometheus(source: &Source, request: &Request) -> Answer {
    let buckets = match request.query.get("histogram_buckets") {
        None | Some("" | "none" | "cumulative") => Buckets::Cumulative,
        Some("summary") => Buckets::Summary,
        Some("disjoint" | "detailed" | "prometheusnative") => {
            return bad("unsupported prometheus histogram bucket mode");
        }
        Some(_) => return bad(BUCKETS_USAGE),
    };
    match samples(source, request) {
        Ok(samples) => Answer::text(render::prometheus(samples, buckets, request.query.has("text_readouts"))),
        Err(answer) => answer,
    }
}

const BUCKETS_USAGE: &str = "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n";

fn bad(text: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, text)
}

/// The statistics that the request asks for, unsorted.
fn samples(source: &Source, request: &Request) -> Result<Vec<Sample>, Answer> {
    let filter = match request.query.get("filter").filter(|filter| !filter.is_empty()) {
        Some(pattern) => match regex(pattern) {
            Ok(filter) => Some(filter),
            Err(error) => {
                // The last line says what is wrong; those before it draw the expression.
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return Err(bad(&format!("Invalid re2 regex: {reason}")));
            }
        },
        None => None,
    };
    observe(source.as_ref());
    let mut samples = source.stats().samples();
    collect_server(source.as_ref(), &mut samples);
    if request.query.has("usedonly") {
        samples.retain(|sample| sample.used);
    }
    if let Some(filter) = filter {
        retain_matching(&mut samples, &filter, request.query.has("invert_filter"));
    }
    Ok(samples)
}

/// Brings the gauges up to date that follow from the configuration in use.
fn observe(source: &dyn AdminSource) {
    let server = &source.stats().server;
    let clusters = source.clusters();
    server.cluster_manager.active_clusters.set(clusters.len() as u64);
    server.listener_manager.total_listeners_active.set(source.listeners().len() as u64);
    let live = matches!(source.state(), State::Live | State::Draining);
    server.listener_manager.workers_started.set(u64::from(live));
    for cluster in clusters {
        let state = &cluster.stats.state;
        observe_breakers(&state.breakers_default, cluster.breakers.of(Priority::Default));
        observe_breakers(&state.breakers_high, cluster.breakers.of(Priority::High));
        let hosts = &cluster.endpoints.hosts;
        let count = |health: Health| hosts.iter().filter(|host| host.health_now() == health).count() as u64;
        if let Some(checks) = state.health_check.get() {
            let checked = hosts.iter().filter(|host| !host.health_check.disabled);
            let healthy = checked.filter(|host| !host.state.has(HealthFlag::FailedActiveHealthCheck)).count();
            checks.healthy.set(healthy as u64);
            let degraded = hosts.iter().filter(|host| host.state.has(HealthFlag::DegradedActiveHealthCheck)).count();
            checks.degraded.set(degraded as u64);
        }
        state.membership_total.set(hosts.len() as u64);
        state.membership_healthy.set(count(Health::Healthy));
        state.membership_degraded.set(count(Health::Degraded));
        state.membership_excluded.set(count(Health::Draining));
    }
}

/// A breaker is open while there is as much as its limit allows; with a limit of 0 nothing ever opens it.
fn observe_breakers(gauges: &BreakerGauges, breaker: &Breaker) {
    let (limits, load) = (&breaker.thresholds, breaker.load());
    let left = |limit: u32, used: u32| u64::from(limit.saturating_sub(used));
    let is_open = |limit: u32, used: u32| u64::from(used > 0 && used >= limit);
    let max_retries = breaker.max_retries(Instant::now());
    gauges.cx_open.set(is_open(limits.max_connections, load.connections));
    gauges.cx_pool_open.set(limits.max_connection_pools.map_or(0, |limit| is_open(limit, load.pools)));
    gauges.rq_pending_open.set(is_open(limits.max_pending_requests, load.pending));
    gauges.rq_open.set(is_open(limits.max_requests, load.requests));
    gauges.rq_retry_open.set(is_open(max_retries, load.retries));
    if limits.track_remaining {
        let remaining = gauges.remaining.touch();
        let pools = limits.max_connection_pools.map_or(u64::MAX, |limit| left(limit, load.pools));
        remaining.remaining_cx.set(left(limits.max_connections, load.connections));
        remaining.remaining_cx_pools.store(pools, Ordering::Relaxed);
        remaining.remaining_pending.set(left(limits.max_pending_requests, load.pending));
        remaining.remaining_rq.set(left(limits.max_requests, load.requests));
        remaining.remaining_retries.set(left(max_retries, load.retries));
    }
}

/// What of Envoy's `server.` tree is known only now.
fn collect_server(source: &dyn AdminSource, samples: &mut Vec<Sample>) {
    let scope = Scope::plain("server.");
    let memory = Memory::now();
    let connections: u64 = source
        .stats()
        .listeners()
        .iter()
        .map(|listener| lateen_telemetry::counter::level_of(listener.active_connections()))
        .sum();
    let state = source.state();
    let gauges = [
        ("compilation_settings.fips_mode", 0),
        ("concurrency", source.stats().workers() as u64),
        ("days_until_first_cert_expiring", u64::from(u32::MAX)),
        ("hot_restart_epoch", 0),
        ("hot_restart_generation", 1),
        ("live", u64::from(state == State::Live)),
        ("memory_allocated", memory.allocated),
        ("memory_heap_size", memory.heap),
        ("memory_physical_size", memory.resident),
        ("parent_connections", 0),
        ("seconds_until_first_ocsp_response_expiring", 0),
        ("state", state as u64),
        ("stats_recent_lookups", 0),
        ("total_connections", connections),
        ("uptime", source.started().elapsed().as_secs()),
        ("version", server_info::version_number()),
    ];
    let gauge = |scope: &Arc<Scope>, name, value| Sample::new(scope, name, Value::Gauge(value)).used(true);
    samples.extend(gauges.into_iter().map(|(name, value)| gauge(&scope, name, value)));
    let counters = ["debug_assertion_failures", "envoy_bug_failures", "envoy_notifications", "wip_protos"];
    samples.extend(counters.into_iter().map(|name| Sample::new(&scope, name, Value::Counter(0))));
}
