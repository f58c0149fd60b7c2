//! One worker's side of a cluster: balancer state and connection pools, carried over when the cluster stays.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fastrand::Rng;

use super::balance::{Balancer, PickContext};
use super::connection::UpstreamConnection;
use crate::snapshot::Cluster;
use crate::snapshot::cluster::Endpoint;
use crate::stats::ClusterCounters;

/// A cluster as one worker uses it.
#[derive(Debug)]
pub(crate) struct WorkerCluster {
    /// The shared part.
    pub(crate) cluster: Arc<Cluster>,
    /// The hosts, in the order of the endpoints.
    pub(crate) hosts: Vec<WorkerHost>,
    pub(super) worker: usize,
    balancer: RefCell<Balancer>,
}

/// A host as one worker uses it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHost {
    /// The shared part.
    pub(crate) endpoint: Arc<Endpoint>,
    /// This worker's connections to it.
    pub(crate) pool: Rc<Pool>,
}

/// The idle connections to one host; the most recently freed is used first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<UpstreamConnection>>,
    retired: std::cell::Cell<bool>,
}

impl WorkerCluster {
    /// The worker's form of a cluster. Pools of hosts that stay are taken over, unless the connection settings changed.
    pub(crate) fn adopt(cluster: &Arc<Cluster>, previous: Option<&Rc<Self>>, worker: usize, rng: &mut Rng) -> Rc<Self> {
        if let Some(previous) = previous
            && Arc::ptr_eq(&previous.cluster, cluster)
        {
            return previous.clone();
        }
        let keep = previous.filter(|previous| Arc::ptr_eq(&previous.cluster.config, &cluster.config));
        let hosts = cluster.endpoints.hosts.iter().map(|endpoint| {
            let kept = keep.and_then(|previous| {
                previous.hosts.iter().find(|host| Arc::ptr_eq(&host.endpoint.state, &endpoint.state))
            });
            WorkerHost { endpoint: endpoint.clone(), pool: kept.map(|host| host.pool.clone()).unwrap_or_default() }
        });
        let hosts: Vec<WorkerHost> = hosts.collect();
        if let Some(previous) = previous {
            for old in &previous.hosts {
                if !hosts.iter().any(|host| Rc::ptr_eq(&host.pool, &old.pool)) {
                    old.pool.retire();
                }
            }
        }
        let balancer = Balancer::new(cluster.config.policy, &cluster.endpoints, rng);
        Rc::new(Self { cluster: cluster.clone(), hosts, worker, balancer: RefCell::new(balancer) })
    }

    /// This worker's counters of the cluster.
    pub(crate) fn counters(&self) -> &ClusterCounters {
        self.cluster.stats.worker(self.worker)
    }

    /// Picks a host for an attempt.
    pub(crate) fn pick(&self, context: &PickContext<'_>, rng: &mut Rng) -> Option<u32> {
        let (index, panic) = self.balancer.borrow_mut().pick(&self.cluster.endpoints, context, rng)?;
        if panic {
            self.counters().lb_healthy_panic.inc();
        }
        Some(index)
    }

    /// Closes all pooled connections; the cluster is gone.
    pub(crate) fn retire(&self) {
        for host in &self.hosts {
            host.pool.retire();
        }
    }

    /// Closes idle connections that the peer closed, that were idle too long, or that are too old.
    pub(crate) fn sweep(&self, now: Instant) {
        let config = &self.cluster.config;
        for host in &self.hosts {
            host.pool.idle.borrow_mut().retain_mut(|connection| {
                if connection.idle_for(now) >= config.idle_timeout.unwrap_or(std::time::Duration::MAX) {
                    self.counters().upstream_cx_idle_timeout.inc();
                    return false;
                }
                if connection.age(now) >= config.max_connection_duration.unwrap_or(std::time::Duration::MAX) {
                    self.counters().upstream_cx_max_duration_reached.inc();
                    return false;
                }
                connection.is_usable()
            });
        }
    }
}

impl WorkerHost {
    /// An idle connection that the peer has not closed, if there is one.
    pub(crate) fn checkout(&self) -> Option<UpstreamConnection> {
        loop {
            let mut connection = self.pool.idle.borrow_mut().pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Puts a connection back after an exchange that left it clean, unless its host is gone by now.
    pub(crate) fn give_back(&self, mut connection: UpstreamConnection, now: Instant) {
        if !self.pool.retired.get() {
            connection.rest(now);
            self.pool.idle.borrow_mut().push(connection);
        }
    }

    /// Counts one request in flight until the guard is dropped.
    pub(crate) fn begin_request(&self) -> ActiveRequest {
        let state = self.endpoint.state.clone();
        state.active_requests.fetch_add(1, Ordering::Relaxed);
        ActiveRequest { state }
    }
}

/// A request in flight to a host; ends when dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    state: Arc<crate::snapshot::cluster::HostState>,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.state.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }
}
