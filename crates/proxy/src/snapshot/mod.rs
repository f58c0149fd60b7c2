//! The configuration of the data plane, built once from Envoy messages: the only place that reads them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::stats::ClusterStats;
use crate::upstream::Breakers;

pub mod build;
pub mod cluster;
pub mod endpoints;
pub(crate) mod fields;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod format;
pub mod hash_table;
pub mod hcm;
pub mod header_mutation;
pub mod host;
pub mod host_sets;
pub mod limitation;
pub mod listener;
pub mod local_reply;
pub mod log_filter;
pub mod matcher;
pub mod regex;
pub mod route;
pub mod subset;

/// A cluster's number in this process: an index that stays the same across snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u32);

/// A route's reference to a cluster, which may not exist (Envoy answers 503 with flag `NC`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRef {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Its number.
    pub id: ClusterId,
}

/// Gives each name of a cluster, and each name of a filter, its number.
#[derive(Debug, Default)]
pub struct ClusterNames {
    ids: HashMap<Arc<str>, ClusterId>,
    filters: HashMap<Box<str>, filter::FilterId>,
}

impl ClusterNames {
    /// The reference for a name; the same name always has the same number.
    pub fn intern(&mut self, name: &str) -> ClusterRef {
        if let Some((name, id)) = self.ids.get_key_value(name) {
            return ClusterRef { name: name.clone(), id: *id };
        }
        let id = ClusterId(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), id);
        ClusterRef { name, id }
    }

    /// The number of a filter's name; the same name always has the same number.
    pub fn filter(&mut self, name: &str) -> filter::FilterId {
        if let Some(id) = self.filters.get(name) {
            return *id;
        }
        let id = filter::FilterId(u32::try_from(self.filters.len()).unwrap_or(u32::MAX));
        self.filters.insert(name.into(), id);
        id
    }

    /// Count of cluster names ever interned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no name was interned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Why a resource was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Field path inside the message, in proto names: `virtual_hosts[0].routes[2].match.safe_regex`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A cluster with its endpoints and its counters.
#[derive(Debug)]
pub struct Cluster {
    /// Its number, under which routes refer to it.
    pub id: ClusterId,
    /// Settings; the same `Arc` while the cluster resource is unchanged.
    pub config: Arc<cluster::ClusterConfig>,
    /// Endpoints; the same `Arc` while they are unchanged.
    pub endpoints: Arc<endpoints::Endpoints>,
    /// Which of them may be chosen, by their health when this was built.
    pub host_sets: Arc<host_sets::HostSets>,
    /// Counters, kept while the name in statistics stays.
    pub stats: Arc<ClusterStats>,
    /// What is under way to it, over all workers; kept while the cluster resource is unchanged.
    pub(crate) breakers: Arc<Breakers>,
}

/// All that the workers need to serve requests, immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with each snapshot.
    pub generation: u64,
    /// The listeners that are ready to serve, by name.
    pub listeners: Vec<Arc<listener::Listener>>,
    /// The route configurations, by name.
    pub routes: HashMap<Arc<str>, Arc<route::RouteConfig>>,
    /// The clusters, at their number.
    pub clusters: Vec<Option<Arc<Cluster>>>,
}
