//! What is counted of an HTTP connection manager? Envoy's `http.<stat_prefix>.` tree.

use std::sync::{Arc, OnceLock};

use lateen_telemetry::{Counter, Gauge};

use super::block::{PerWorker, block};
use super::cluster::Lazy;
use super::codes::ClassCounters;
use crate::snapshot::filter::{FilterChain, FilterKind};

block! {
    /// What one worker counts of one `stat_prefix`.
    pub struct HttpCounters {
        counters {
            downstream_cx_delayed_close_timeout,
            downstream_cx_destroy,
            downstream_cx_destroy_active_rq,
            downstream_cx_destroy_local,
            downstream_cx_destroy_local_active_rq,
            downstream_cx_destroy_remote,
            downstream_cx_destroy_remote_active_rq,
            downstream_cx_drain_close,
            downstream_cx_http1_total,
            downstream_cx_http2_total,
            downstream_cx_idle_timeout,
            downstream_cx_max_duration_reached,
            downstream_cx_max_requests_reached,
            downstream_cx_overload_disable_keepalive,
            downstream_cx_protocol_error,
            downstream_cx_rx_bytes_total,
            downstream_cx_ssl_total,
            downstream_cx_total,
            downstream_cx_tx_bytes_total,
            downstream_cx_upgrades_total,
            downstream_flow_control_paused_reading_total,
            downstream_flow_control_resumed_reading_total,
            downstream_rq_failed_path_normalization,
            downstream_rq_header_timeout,
            downstream_rq_http1_total,
            downstream_rq_http2_total,
            downstream_rq_idle_timeout,
            downstream_rq_max_duration_reached,
            downstream_rq_non_relative_path,
            downstream_rq_overload_close,
            downstream_rq_redirected_with_normalized_path,
            downstream_rq_rejected_via_ip_detection,
            downstream_rq_response_before_rq_complete,
            downstream_rq_rx_reset,
            downstream_rq_timeout,
            downstream_rq_too_large,
            downstream_rq_too_many_premature_resets,
            downstream_rq_total,
            downstream_rq_tx_reset,
            downstream_rq_ws_on_non_ws_route,
            no_cluster,
            no_route,
            passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response,
            rq_redirect,
            rq_reset_after_downstream_response_started,
            rq_total,
            rs_too_large,
        }
        gauges {
            downstream_cx_active,
            downstream_cx_http1_active,
            downstream_cx_http1_soft_drain,
            downstream_cx_http2_active,
            downstream_cx_rx_bytes_buffered,
            downstream_cx_ssl_active,
            downstream_cx_tx_bytes_buffered,
            downstream_cx_upgrades_active,
            downstream_rq_active,
        }
        histograms { downstream_cx_length_ms, downstream_rq_time }
        others {
            /// `downstream_rq_<class>xx` and `downstream_rq_completed`.
            downstream_rq: ClassCounters,
            /// `fault.*`, where there is a fault filter.
            fault: Lazy<FaultCounters>,
            /// `cors.*`, where there is a CORS filter.
            cors: Lazy<CorsCounters>,
        }
    }
}

impl HttpCounters {
    /// Counts an answer that went downstream: `downstream_rq_completed` and its class.
    #[inline]
    pub fn count_response(&self, status: u16) {
        self.downstream_rq.count(status);
    }

    /// Makes the counters of these filters visible before they count anything.
    pub(crate) fn show_filters(&self, filters: &FilterChain) {
        if filters.has(FilterKind::Fault) {
            self.fault.touch();
        }
        if filters.has(FilterKind::Cors) {
            self.cors.touch();
        }
    }
}

block! {
    /// What the fault filter counts.
    pub struct FaultCounters {
        counters { aborts_injected, delays_injected, faults_overflow, response_rl_injected }
        gauges { active_faults }
        histograms {}
        others {
            /// The same by the cluster of the caller.
            callers: Callers,
        }
    }
}

block! {
    /// What the CORS filter counts.
    pub struct CorsCounters {
        counters { origin_invalid, origin_valid }
        gauges {}
        histograms {}
        others {}
    }
}

/// Faults by the cluster of the caller: `fault.<cluster>.aborts_injected` and `delays_injected`. Names come from
/// requests, so only the first ones are kept.
#[derive(Debug, Default)]
pub struct Callers(OnceLock<Box<Caller>>);

/// The faults of the requests of one cluster.
#[derive(Debug)]
pub struct Caller {
    /// The cluster, as Envoy would name it.
    pub name: Box<str>,
    /// Counter `aborts_injected`.
    pub aborts_injected: Counter,
    /// Counter `delays_injected`.
    pub delays_injected: Counter,
    next: Callers,
}

impl Callers {
    /// Names that are kept.
    const MOST: usize = 64;

    /// Counts a fault of a caller.
    pub fn count(&self, name: &[u8], counter: impl Fn(&Caller) -> &Counter) {
        let name = String::from_utf8_lossy(name).replace([':', '\0'], "_");
        let mut end = self;
        for _ in 0..Self::MOST {
            let caller = end.0.get_or_init(|| {
                Box::new(Caller {
                    name: name.as_str().into(),
                    aborts_injected: Counter::default(),
                    delays_injected: Counter::default(),
                    next: Self::default(),
                })
            });
            if *caller.name == *name {
                return counter(caller).inc();
            }
            end = &caller.next;
        }
    }

    /// The callers, in the order of their first faults.
    pub fn iter(&self) -> impl Iterator<Item = &Caller> {
        std::iter::successors(self.0.get(), |caller| caller.next.0.get()).map(AsRef::as_ref)
    }
}

/// Names that Envoy shows and that stay 0 here: nothing in this data plane does what they count.
pub(crate) const ABSENT_COUNTERS: &[&str] = &[
    "downstream_cx_http3_total",
    "downstream_rq_http3_total",
    "rq_overload_local_reply",
    "tracing.client_enabled",
    "tracing.health_check",
    "tracing.not_traceable",
    "tracing.random_sampling",
    "tracing.service_forced",
];

/// As [`ABSENT_COUNTERS`], for gauges.
pub(crate) const ABSENT_GAUGES: &[&str] = &["downstream_cx_http3_active"];

/// The statistics of one `stat_prefix`, for all workers.
#[derive(Debug)]
pub struct HttpStats {
    /// The `stat_prefix`.
    pub name: Arc<str>,
    pub(crate) workers: PerWorker<HttpCounters>,
    pub(crate) history: super::History,
}

impl HttpStats {
    pub(crate) fn new(name: Arc<str>, workers: usize) -> Self {
        Self { name, workers: PerWorker::new(workers), history: super::History::default() }
    }

    /// The block of a worker.
    #[inline]
    #[must_use]
    pub fn worker(&self, worker: usize) -> &HttpCounters {
        self.workers.worker(worker)
    }

    /// A counter summed over the workers.
    #[must_use]
    pub fn total(&self, counter: impl Fn(&HttpCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|(_, counters)| counter(counters).get()).sum()
    }

    /// A gauge summed over the workers.
    #[must_use]
    pub fn level(&self, gauge: impl Fn(&HttpCounters) -> &Gauge) -> u64 {
        lateen_telemetry::counter::level_of(self.workers.iter().map(|(_, counters)| gauge(counters)))
    }
}
