//! What is counted of a cluster? Envoy's `cluster.<name>.` tree.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lateen_telemetry::{Counter, Gauge, Histogram};

use super::block::{PerWorker, block};
use super::codes::CodeCounters;
use crate::snapshot::hash_table::HashTable;
use crate::snapshot::host_sets::HostSets;
use crate::upstream::outlier::Averages;

block! {
    /// What one worker counts of one cluster.
    pub struct ClusterCounters {
        counters {
            bind_errors,
            lb_healthy_panic,
            lb_subsets_fallback,
            lb_subsets_selected,
            original_dst_host_invalid,
            retry_or_shadow_abandoned,
            upstream_cx_close_notify,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_connect_fail,
            upstream_cx_connect_timeout,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_idle_timeout,
            upstream_cx_max_duration_reached,
            upstream_cx_max_requests,
            upstream_cx_none_healthy,
            upstream_cx_overflow,
            upstream_cx_pool_overflow,
            upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total,
            upstream_cx_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
            upstream_rq_active_overflow,
            upstream_rq_cancelled,
            upstream_rq_maintenance_mode,
            upstream_rq_max_duration_reached,
            upstream_rq_pending_failure_eject,
            upstream_rq_pending_overflow,
            upstream_rq_pending_total,
            upstream_rq_per_try_idle_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_retry,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            upstream_rq_timeout,
            upstream_rq_total,
            upstream_rq_tx_reset,
        }
        gauges {
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_rq_active,
            upstream_rq_pending_active,
        }
        histograms { upstream_cx_connect_ms, upstream_cx_length_ms, upstream_rq_per_cx }
        others {
            /// `upstream_rq_<code>`: the answers that went downstream, of the upstream or of the router for it.
            codes: CodeCounters,
            /// `retry.upstream_rq_<code>`: the answers that were thrown away for a retry.
            retried: Lazy<CodeCounters>,
            /// `canary.upstream_rq_<code>`: the answers of upstreams that called themselves canaries.
            canary: Lazy<CodeCounters>,
            /// `internal.*`: the answers to internal requests (`x-envoy-internal`).
            internal: Lazy<Answers>,
            /// `external.*`: the answers to all other requests.
            external: Lazy<Answers>,
            /// `upstream_rq_time`: milliseconds from the end of the request to the end of the answer.
            upstream_rq_time: Lazy<Histogram>,
        }
    }
}

/// A part of a block that takes memory from its first use on.
#[derive(Debug)]
pub struct Lazy<T>(OnceLock<Box<T>>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> Lazy<T> {
    /// The part, made now if it was not there.
    #[inline]
    pub fn touch(&self) -> &T {
        self.0.get_or_init(Box::default)
    }

    /// The part, if it was ever used.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.get().map(AsRef::as_ref)
    }
}

/// Answers of one origin, internal or external.
#[derive(Debug, Default)]
pub struct Answers {
    /// `upstream_rq_<code>`.
    pub codes: CodeCounters,
    /// `upstream_rq_time`.
    pub upstream_rq_time: Lazy<Histogram>,
}

impl ClusterCounters {
    /// Counts the final answer to a request of this cluster, whether the upstream or the router made it:
    /// `upstream_rq_<code>`, `_<class>xx`, `_completed` and their copies under `internal.` or `external.`.
    #[inline]
    pub fn count_response(&self, status: u16, internal: bool) {
        self.codes.count(status);
        self.answers(internal).codes.count(status);
    }

    /// Counts an answer that is thrown away because the request is retried: `retry.upstream_rq_<code>`.
    pub fn count_retried(&self, status: u16) {
        self.retried.touch().count(status);
    }

    /// Counts an answer that bore `x-envoy-upstream-canary: true`: `canary.upstream_rq_<code>`.
    pub fn count_canary(&self, status: u16) {
        self.canary.touch().count(status);
    }

    /// Records how long a complete upstream answer took: `upstream_rq_time` and its copy.
    #[inline]
    pub fn record_response_time(&self, duration: Duration, internal: bool) {
        self.upstream_rq_time.touch().record_ms(duration);
        self.answers(internal).upstream_rq_time.touch().record_ms(duration);
    }

    #[inline]
    fn answers(&self, internal: bool) -> &Answers {
        if internal { self.internal.touch() } else { self.external.touch() }
    }
}

block! {
    /// What the main thread counts of a cluster.
    pub struct ClusterState {
        counters {
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
            lb_subsets_created,
            lb_subsets_removed,
            membership_change,
            update_attempt,
            update_empty,
            update_failure,
            update_no_rebuild,
            update_success,
        }
        gauges {
            lb_subsets_active,
            max_host_weight,
            membership_degraded,
            membership_excluded,
            membership_healthy,
            membership_total,
            version,
            warming_state,
        }
        histograms {}
        others {
            /// `circuit_breakers.default.*`.
            breakers_default: BreakerGauges,
            /// `circuit_breakers.high.*`.
            breakers_high: BreakerGauges,
            /// `health_check.*`, for clusters that have one.
            health_check: Lazy<HealthCheckCounters>,
            /// `outlier_detection.*`, for clusters that have it.
            outlier_detection: Lazy<OutlierCounters>,
            /// `ring_hash_lb.*`, for clusters with that policy.
            ring_hash_lb: Lazy<RingGauges>,
            /// `maglev_lb.*`, for clusters with that policy.
            maglev_lb: Lazy<MaglevGauges>,
        }
    }
}

block! {
    /// What active health checks found. The main thread counts.
    pub struct HealthCheckCounters {
        counters { attempt, failure, network_failure, passive_failure, success, verify_cluster }
        gauges { degraded, healthy }
        histograms {}
        others {}
    }
}

block! {
    /// Which hosts stood out, and which of them were taken out. The main thread counts.
    pub struct OutlierCounters {
        counters {
            ejections_consecutive_5xx,
            ejections_detected_consecutive_5xx,
            ejections_detected_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure,
            ejections_detected_degradation,
            ejections_detected_failure_percentage,
            ejections_detected_local_origin_failure_percentage,
            ejections_detected_local_origin_success_rate,
            ejections_detected_success_rate,
            ejections_enforced_consecutive_5xx,
            ejections_enforced_consecutive_gateway_failure,
            ejections_enforced_consecutive_local_origin_failure,
            ejections_enforced_failure_percentage,
            ejections_enforced_local_origin_failure_percentage,
            ejections_enforced_local_origin_success_rate,
            ejections_enforced_success_rate,
            ejections_enforced_total,
            ejections_overflow,
            ejections_success_rate,
            ejections_total,
        }
        gauges { ejections_active }
        histograms {}
        others {}
    }
}

block! {
    /// How large a ring is, and what part of it one host has.
    pub struct RingGauges {
        counters {}
        gauges { max_hashes_per_host, min_hashes_per_host, size }
        histograms {}
        others {}
    }
}

block! {
    /// What part of a Maglev table one host has.
    pub struct MaglevGauges {
        counters {}
        gauges { max_entries_per_host, min_entries_per_host }
        histograms {}
        others {}
    }
}

block! {
    /// The state of the circuit breakers of one priority: 1 while at the limit. Any worker may set them.
    pub struct BreakerGauges {
        counters {}
        gauges { cx_open, cx_pool_open, rq_open, rq_pending_open, rq_retry_open }
        histograms {}
        others {
            /// What is left up to the limits; there once `track_remaining` asked for it.
            remaining: Lazy<RemainingGauges>,
        }
    }
}

block! {
    /// What is left up to the limits of the circuit breakers of one priority.
    pub struct RemainingGauges {
        counters {}
        gauges { remaining_cx, remaining_pending, remaining_retries, remaining_rq }
        histograms {}
        others {
            /// `remaining_cx_pools`; unlimited is a number that no gauge can hold.
            remaining_cx_pools: AtomicU64,
        }
    }
}

/// Names that Envoy shows for every cluster and that stay 0 here, because nothing in this data plane does what they
/// count (HTTP/3, zone aware routing).
pub(crate) const ABSENT_COUNTERS: &[&str] = &[
    "http1.dropped_headers_with_underscores",
    "http1.metadata_not_supported_error",
    "http1.requests_rejected_with_underscores_in_headers",
    "http1.response_flood",
    "lb_local_cluster_not_ok",
    "lb_recalculate_zone_structures",
    "lb_subsets_fallback_panic",
    "lb_zone_cluster_too_small",
    "lb_zone_no_capacity_left",
    "lb_zone_routing_all_directly",
    "lb_zone_routing_cross_zone",
    "lb_zone_routing_sampled",
    "upstream_cx_connect_with_0_rtt",
    "upstream_cx_http3_total",
    "upstream_cx_preconnect_skipped",
    "upstream_http3_broken",
    "upstream_queue_overloaded",
    "upstream_rq_0rtt",
];

/// As [`ABSENT_COUNTERS`], for gauges.
pub(crate) const ABSENT_GAUGES: &[&str] = &[];

/// The statistics of one cluster, for all workers and the main thread.
#[derive(Debug)]
pub struct ClusterStats {
    /// The name in statistics, `:` replaced by `_`.
    pub name: Arc<str>,
    /// What the main thread counts.
    pub state: ClusterState,
    /// Success rates that outlier detection found, for `/clusters`.
    pub(crate) averages: Arc<Averages>,
    pub(crate) workers: PerWorker<ClusterCounters>,
    pub(crate) history: super::History,
}

impl ClusterStats {
    pub(crate) fn new(name: Arc<str>, workers: usize) -> Self {
        Self {
            name,
            state: ClusterState::default(),
            averages: Arc::default(),
            workers: PerWorker::new(workers),
            history: super::History::default(),
        }
    }

    /// The block of a worker.
    #[inline]
    #[must_use]
    pub fn worker(&self, worker: usize) -> &ClusterCounters {
        self.workers.worker(worker)
    }

    /// A counter summed over the workers: `stats.total(|counters| &counters.upstream_rq_total)`.
    #[must_use]
    pub fn total(&self, counter: impl Fn(&ClusterCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|(_, counters)| counter(counters).get()).sum()
    }

    /// A gauge summed over the workers.
    #[must_use]
    pub fn level(&self, gauge: impl Fn(&ClusterCounters) -> &Gauge) -> u64 {
        lateen_telemetry::counter::level_of(self.workers.iter().map(|(_, counters)| gauge(counters)))
    }

    /// Sets the statistics that describe the tables and subsets of the balancer.
    pub fn set_tables(&self, sets: &HostSets) {
        let before = u64::try_from(self.state.lb_subsets_active.get()).unwrap_or(0);
        let now = sets.subsets.len() as u64;
        if now != before {
            self.state.lb_subsets_active.set(now);
            self.state.lb_subsets_created.add(now.saturating_sub(before));
            self.state.lb_subsets_removed.add(before.saturating_sub(now));
        }
        for table in sets.levels.iter().filter_map(|level| level.table.as_ref()) {
            let (size, least, most) = table.extent();
            match table {
                HashTable::Ring(_) => {
                    let gauges = self.state.ring_hash_lb.touch();
                    gauges.size.set(size);
                    gauges.min_hashes_per_host.set(least);
                    gauges.max_hashes_per_host.set(most);
                }
                HashTable::Maglev(_) => {
                    let gauges = self.state.maglev_lb.touch();
                    gauges.min_entries_per_host.set(least);
                    gauges.max_entries_per_host.set(most);
                }
            }
        }
    }

    /// Sets the membership gauges and counts a change when the hosts changed.
    pub fn set_membership(&self, total: u64, healthy: u64, degraded: u64, changed: bool) {
        self.state.membership_total.set(total);
        self.state.membership_healthy.set(healthy);
        self.state.membership_degraded.set(degraded);
        if changed {
            self.state.membership_change.inc();
        }
    }
}
