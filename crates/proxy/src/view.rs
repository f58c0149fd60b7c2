//! A snapshot as one worker uses it: the worker's clusters with their pools, and the listeners with their routes.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;

use crate::snapshot::hcm::Routes;
use crate::snapshot::listener::Listener;
use crate::snapshot::route::RouteConfig;
use crate::snapshot::{ClusterId, Snapshot};
use crate::stats::{ClassCounters, HttpStats, ListenerStats, PerWorker, Registry};
use crate::upstream::WorkerCluster;

/// What a request lives under, from its routing to its end.
#[derive(Debug)]
pub(crate) struct View {
    /// Number of the snapshot.
    pub(crate) generation: u64,
    snapshot: Arc<Snapshot>,
    clusters: Vec<Option<Rc<WorkerCluster>>>,
    listeners: HashMap<Arc<str>, Rc<WorkerListener>>,
}

/// A listener with its routes and counters.
#[derive(Clone, Debug)]
pub(crate) struct WorkerListener {
    /// The settings.
    pub(crate) listener: Arc<Listener>,
    /// The routes that its connection manager uses.
    pub(crate) routes: Arc<RouteConfig>,
    /// Counters of the connection manager.
    pub(crate) http: Arc<HttpStats>,
    /// Counters of the listener.
    pub(crate) stats: Arc<ListenerStats>,
    /// The listener's counters of this connection manager's answers.
    pub(crate) classes: Arc<PerWorker<ClassCounters>>,
}

impl View {
    /// A view of nothing.
    pub(crate) fn empty() -> Rc<Self> {
        let snapshot = Snapshot { generation: 0, listeners: Vec::new(), routes: HashMap::new(), clusters: Vec::new() };
        let snapshot = Arc::new(snapshot);
        Rc::new(Self { generation: 0, snapshot, clusters: Vec::new(), listeners: HashMap::new() })
    }

    /// The view of a snapshot; clusters that stay bring their pools from the previous view. `bound` are the addresses
    /// at which the listeners were bound, which name their statistics.
    pub(crate) fn adopt(
        snapshot: &Arc<Snapshot>,
        previous: &Self,
        bound: &HashMap<Arc<str>, std::net::SocketAddr>,
        worker: usize,
        stats: &Registry,
        rng: &mut Rng,
    ) -> Rc<Self> {
        let clusters: Vec<_> = snapshot
            .clusters
            .iter()
            .enumerate()
            .map(|(index, cluster)| {
                let previous = previous.clusters.get(index).and_then(Option::as_ref);
                cluster.as_ref().map(|cluster| WorkerCluster::adopt(cluster, previous, worker, rng))
            })
            .collect();
        for (index, old) in previous.clusters.iter().enumerate() {
            if let Some(old) = old
                && clusters.get(index).is_none_or(Option::is_none)
            {
                old.retire();
            }
        }
        let listeners = snapshot
            .listeners
            .iter()
            .filter_map(|listener| {
                let address = bound.get(&listener.name).copied().unwrap_or(listener.address);
                let listener_stats = stats.listener(address, listener.stat_prefix.as_deref());
                let http = stats.http(&listener.manager.stat_prefix);
                http.worker(worker).show_filters(&listener.manager.filters);
                let entry = WorkerListener {
                    listener: listener.clone(),
                    routes: routes(listener, snapshot)?,
                    http,
                    classes: listener_stats.http(&listener.manager.stat_prefix),
                    stats: listener_stats,
                };
                Some((listener.name.clone(), Rc::new(entry)))
            })
            .collect();
        Rc::new(Self { generation: snapshot.generation, snapshot: snapshot.clone(), clusters, listeners })
    }

    /// The cluster of a number, if it exists.
    pub(crate) fn cluster(&self, id: ClusterId) -> Option<&Rc<WorkerCluster>> {
        self.clusters.get(id.0 as usize)?.as_ref()
    }

    /// The cluster of a name, for routes that take it from the request.
    pub(crate) fn cluster_named(&self, name: &[u8]) -> Option<&Rc<WorkerCluster>> {
        self.clusters().find(|cluster| cluster.cluster.config.name.as_bytes() == name)
    }

    /// All clusters of this view.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Rc<WorkerCluster>> {
        self.clusters.iter().flatten()
    }

    /// The listener of a name.
    pub(crate) fn listener(&self, name: &str) -> Option<&Rc<WorkerListener>> {
        self.listeners.get(name)
    }

    /// The listener that a connection came in on, as this view has it. The second value tells whether the connection
    /// is to be drained, because its listener changed or is gone; even then it gets the newest routes.
    pub(crate) fn rebind(&self, bound: &Rc<WorkerListener>) -> (Rc<WorkerListener>, bool) {
        if let Some(current) = self.listener(&bound.listener.name)
            && Arc::ptr_eq(&current.listener, &bound.listener)
        {
            return (current.clone(), false);
        }
        match routes(&bound.listener, &self.snapshot) {
            Some(routes) => (Rc::new(WorkerListener { routes, ..WorkerListener::clone(bound) }), true),
            None => (bound.clone(), true),
        }
    }
}

fn routes(listener: &Listener, snapshot: &Snapshot) -> Option<Arc<RouteConfig>> {
    match &listener.manager.routes {
        Routes::Inline(routes) => Some(routes.clone()),
        Routes::Named(name) => snapshot.routes.get(name).cloned(),
    }
}
