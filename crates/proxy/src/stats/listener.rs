//! What is counted of a listener? Envoy's `listener.<address>.` tree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lateen_telemetry::Gauge;

use super::block::{PerWorker, block};
use super::codes::ClassCounters;

block! {
    /// What one worker counts of one listener. `downstream_cx_total` and `downstream_cx_active` are also shown under
    /// `worker_<number>.`.
    pub struct ListenerCounters {
        counters {
            downstream_cx_destroy,
            downstream_cx_overflow,
            downstream_cx_overload_reject,
            downstream_cx_total,
            downstream_cx_transport_socket_connect_timeout,
            downstream_global_cx_overflow,
            downstream_listener_filter_error,
            downstream_listener_filter_remote_close,
            downstream_pre_cx_timeout,
            extension_config_missing,
            network_extension_config_missing,
            no_filter_chain_match,
        }
        gauges { downstream_cx_active, downstream_pre_cx_active }
        histograms { connections_accepted_per_socket_event, downstream_cx_length_ms }
        others {}
    }
}

/// The statistics of one listener, for all workers.
#[derive(Debug)]
pub struct ListenerStats {
    /// The `stat_prefix`, else the bound address with `_` for `:`.
    pub name: Arc<str>,
    pub(crate) workers: PerWorker<ListenerCounters>,
    pub(crate) https: Mutex<BTreeMap<Arc<str>, Arc<PerWorker<ClassCounters>>>>,
    pub(crate) history: super::History,
}

impl ListenerStats {
    pub(crate) fn new(name: Arc<str>, workers: usize) -> Self {
        Self { name, workers: PerWorker::new(workers), https: Mutex::default(), history: super::History::default() }
    }

    /// The block of a worker.
    #[inline]
    #[must_use]
    pub fn worker(&self, worker: usize) -> &ListenerCounters {
        self.workers.worker(worker)
    }

    /// The gauge `downstream_cx_active` of each worker.
    pub fn active_connections(&self) -> impl Iterator<Item = &Gauge> {
        self.workers.iter().map(|(_, block)| &block.downstream_cx_active)
    }

    /// The counters `http.<stat_prefix>.downstream_rq_*` of this listener; take them when a listener is adopted, not
    /// per request.
    #[must_use]
    pub fn http(&self, stat_prefix: &str) -> Arc<PerWorker<ClassCounters>> {
        let mut https = self.https.lock().unwrap_or_else(PoisonError::into_inner);
        https.entry(stat_prefix.into()).or_insert_with(|| Arc::new(PerWorker::new(self.workers.workers()))).clone()
    }
}
