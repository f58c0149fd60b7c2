//! What is counted of an HTTP connection manager? Envoy's `http.<stat_prefix>.` tree.

use std::sync::Arc;

use lateen_telemetry::{Counter, Gauge};

use super::block::{PerWorker, block};
use super::codes::ClassCounters;

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
        }
    }
}

impl HttpCounters {
    /// Counts an answer that went downstream: `downstream_rq_completed` and its class.
    #[inline]
    pub fn count_response(&self, status: u16) {
        self.downstream_rq.count(status);
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
