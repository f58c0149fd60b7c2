//! What is counted of the process as a whole? Envoy's `server.`, `listener_manager.` and `cluster_manager.` trees.
//!
//! All of it is written by the main thread alone.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use lateen_xds::{ResourceType, XdsSet};
use xxhash_rust::xxh64::xxh64;

use super::block::block;
use crate::engine::Applied;

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
            workers_pinned,
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
        gauges { config_reload_time_ms, update_time }
        histograms { update_duration }
        others {}
    }
}

/// One xDS subscription: how it fares, and the version that it brought last.
#[derive(Debug, Default)]
pub struct Subscription {
    /// The counters.
    pub state: SubscriptionState,
    version: Mutex<Option<String>>,
}

impl Subscription {
    /// Counts an update that was accepted.
    pub fn record_accepted(&self, version: &str, now: SystemTime) {
        let time = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.state.update_attempt.inc();
        self.state.update_success.inc();
        self.state.update_time.set(time);
        let mut current = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(version) {
            self.state.config_reload.inc();
            self.state.config_reload_time_ms.set(time);
            *current = Some(version.to_owned());
        }
    }

    /// Counts an update that was rejected.
    pub fn record_rejected(&self) {
        self.state.update_attempt.inc();
        self.state.update_rejected.inc();
    }

    /// The version of the last accepted update; `None` before the first.
    #[must_use]
    pub fn version_text(&self) -> Option<String> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A version as a number: Envoy shows the xxHash64 of its text.
    #[must_use]
    pub fn version(text: &str) -> u64 {
        xxh64(text.as_bytes(), 0)
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
    pub lds: Subscription,
    /// `cluster_manager.cds.`.
    pub cds: Subscription,
    pub(crate) history: super::History,
}

impl ServerStats {
    /// Counts what a resource set changed: clusters and listeners added, modified and removed, and how the two
    /// subscriptions fared.
    pub(crate) fn record_update(&self, before: &XdsSet, after: &XdsSet, applied: &Applied, now: SystemTime) {
        let diff = after.diff(before);
        let count = |resource_type: ResourceType| {
            let changes = diff.by_type.get(&resource_type);
            changes.map_or([0; 3], |changes| {
                [&changes.added, &changes.changed, &changes.removed].map(|names| names.len() as u64)
            })
        };
        let rejected = |kind: &str| applied.rejections.iter().filter(|rejection| rejection.kind == kind).count() as u64;

        let [added, modified, removed] = count(ResourceType::Cluster);
        self.cluster_manager.cluster_added.add(added);
        self.cluster_manager.cluster_modified.add(modified);
        self.cluster_manager.cluster_removed.add(removed);
        if rejected("cluster") > 0 {
            self.cds.record_rejected();
        } else {
            self.cds.record_accepted(&after.version(ResourceType::Cluster).to_string(), now);
        }

        let [added, modified, removed] = count(ResourceType::Listener);
        let failed = rejected("listener");
        self.listener_manager.listener_added.add(added);
        self.listener_manager.listener_modified.add(modified);
        self.listener_manager.listener_removed.add(removed);
        self.listener_manager.listener_create_failure.add(failed);
        self.listener_manager.listener_create_success.add((added + modified).saturating_sub(failed));
        if failed > 0 {
            self.lds.record_rejected();
        } else {
            self.lds.record_accepted(&after.version(ResourceType::Listener).to_string(), now);
        }
    }
}
