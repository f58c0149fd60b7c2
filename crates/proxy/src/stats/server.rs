//! What is counted of the process as a whole? Envoy's `server.`, `listener_manager.` and `cluster_manager.` trees.
//!
//! All of it is written by the main thread alone.

use super::block::block;

block! {
    /// Envoy's `server.` tree, as far as something counts it; the rest is known when it is read.
    pub struct ServerState {
        counters { static_unknown_fields, dynamic_unknown_fields, dropped_stat_flushes }
        gauges {}
        histograms { initialization_time_ms }
        others {}
    }
}

block! {
    /// Envoy's `listener_manager.` tree.
    pub struct ListenerManagerState {
        counters {
            listener_added,
            listener_create_failure,
            listener_create_success,
            listener_in_place_updated,
            listener_modified,
            listener_removed,
            listener_stopped,
        }
        gauges {
            total_filter_chains_draining,
            total_listeners_active,
            total_listeners_draining,
            total_listeners_warming,
            workers_started,
        }
        histograms {}
        others {}
    }
}

block! {
    /// Envoy's `cluster_manager.` tree.
    pub struct ClusterManagerState {
        counters {
            cluster_added,
            cluster_modified,
            cluster_removed,
            cluster_updated,
            cluster_updated_via_merge,
            update_merge_cancelled,
            update_out_of_merge_window,
        }
        gauges { active_clusters, warming_clusters }
        histograms {}
        others {}
    }
}

block! {
    /// How one xDS subscription fares: Envoy's `cluster_manager.cds.` and `listener_manager.lds.` trees.
    pub struct SubscriptionState {
        counters { config_reload, init_fetch_timeout, update_attempt, update_failure, update_rejected, update_success }
        gauges { config_reload_time_ms, update_time, version }
        histograms { update_duration }
        others {}
    }
}

/// The statistics of the process.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// `server.`.
    pub server: ServerState,
    /// `listener_manager.`.
    pub listener_manager: ListenerManagerState,
    /// `cluster_manager.`.
    pub cluster_manager: ClusterManagerState,
    /// `listener_manager.lds.`.
    pub lds: SubscriptionState,
    /// `cluster_manager.cds.`.
    pub cds: SubscriptionState,
    pub(crate) history: super::History,
}
