//! One worker's side of a cluster: balancer state and connection pools, carried over when the cluster stays.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fastrand::Rng;

use super::balance::{Balancer, Found, PickContext};
use super::breakers::{Breaker, Permit};
use super::destinations::Destinations;
use super::pool::{Pool, Target};
use crate::snapshot::Cluster;
use crate::snapshot::endpoints::Endpoint;
use crate::snapshot::host::HostState;
use crate::snapshot::host_sets::HostSets;
use crate::snapshot::route::Priority;
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
    destinations: Destinations,
}

/// A host as one worker uses it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHost {
    /// The shared part.
    pub(crate) endpoint: Arc<Endpoint>,
    /// This worker's connections to it.
    pool: Rc<Pool>,
    /// Its connections for requests of high priority, which are rare.
    high: OnceCell<Rc<Pool>>,
}

impl WorkerCluster {
    /// The worker's form of a cluster. Pools of hosts that stay are taken over, unless the connection settings changed.
    pub(crate) fn adopt(cluster: &Arc<Cluster>, previous: Option<&Rc<Self>>, worker: usize, rng: &mut Rng) -> Rc<Self> {
        let same = |previous: &&Rc<Self>| Arc::ptr_eq(&previous.cluster.config, &cluster.config);
        if let Some(previous) = previous.filter(same)
            && Arc::ptr_eq(&previous.cluster.endpoints, &cluster.endpoints)
        {
            previous.rebalance(cluster, rng);
            return previous.clone();
        }
        let keep = previous.filter(same);
        let hosts = cluster.endpoints.hosts.iter().map(|endpoint| {
            let kept = keep.and_then(|previous| {
                previous.hosts.iter().find(|host| Arc::ptr_eq(&host.endpoint.state, &endpoint.state))
            });
            match kept {
                Some(host) => WorkerHost { endpoint: endpoint.clone(), ..host.clone() },
                None => WorkerHost::new(endpoint.clone(), cluster, worker),
            }
        });
        let hosts: Vec<WorkerHost> = hosts.collect();
        if let Some(previous) = previous {
            previous.destinations.retire();
            for old in &previous.hosts {
                if !hosts.iter().any(|host| Rc::ptr_eq(&host.pool, &old.pool)) {
                    old.retire();
                }
            }
        }
        let balancer = RefCell::new(balancer(cluster, rng));
        let destinations = Destinations::default();
        Rc::new(Self { cluster: cluster.clone(), hosts, worker, balancer, destinations })
    }

    /// Chooses among the hosts that may be chosen now. The endpoints are the same as before.
    pub(crate) fn rebalance(&self, cluster: &Cluster, rng: &mut Rng) {
        if !Arc::ptr_eq(&self.balancer.borrow().sets, &cluster.host_sets)
            && Arc::ptr_eq(&self.cluster.endpoints, &cluster.endpoints)
        {
            self.balancer.replace(balancer(cluster, rng));
        }
    }

    /// This worker's counters of the cluster.
    pub(crate) fn counters(&self) -> &ClusterCounters {
        self.cluster.stats.worker(self.worker)
    }

    /// Requests under way to all hosts, where that matters for choosing one.
    #[inline]
    pub(crate) fn active_requests(&self) -> u32 {
        if self.cluster.config.balancing.hash_balance_factor.is_none() {
            return 0;
        }
        let of = |priority| self.breaker(priority).load().requests;
        of(Priority::Default).saturating_add(of(Priority::High))
    }

    /// Who may be chosen at this moment.
    pub(crate) fn host_sets(&self) -> Arc<HostSets> {
        self.balancer.borrow().sets.clone()
    }

    /// Picks a host for an attempt.
    pub(crate) fn pick(&self, context: &PickContext<'_>, rng: &mut Rng) -> Option<u32> {
        let picked = self.balancer.borrow_mut().pick(&self.cluster.endpoints, context, rng)?;
        if picked.panic {
            self.counters().lb_healthy_panic.inc();
        }
        match picked.found {
            Some(Found::Subset) => self.counters().lb_subsets_selected.inc(),
            Some(Found::Fallback) => self.counters().lb_subsets_fallback.inc(),
            None => {}
        }
        Some(picked.host)
    }

    /// The host of an address that the client wants to go to; `None` when there are too many such hosts already.
    pub(crate) fn destination(&self, address: SocketAddr, now: Instant) -> Option<Rc<WorkerHost>> {
        self.destinations.host(address, &self.cluster, self.worker, now)
    }

    /// Closes all pooled connections; the cluster is gone.
    pub(crate) fn retire(&self) {
        self.destinations.retire();
        for host in &self.hosts {
            host.retire();
        }
    }

    /// Uses the present connections to a host no more.
    pub(crate) fn drain_host(&self, state: &Arc<HostState>) {
        for host in self.hosts.iter().filter(|host| Arc::ptr_eq(&host.endpoint.state, state)) {
            for pool in host.pools() {
                pool.drain();
            }
        }
    }

    /// Closes idle connections that the peer closed, that were idle too long, or that are too old.
    pub(crate) fn sweep(&self, now: Instant) {
        for host in &self.hosts {
            host.sweep(now);
        }
        if let Some(config) = &self.cluster.config.original_dst {
            self.destinations.sweep(config.cleanup_interval, now);
        }
    }

    /// The circuit breakers of a routing priority.
    #[inline]
    pub(crate) fn breaker(&self, priority: Priority) -> &Breaker {
        self.cluster.breakers.of(priority)
    }
}

fn balancer(cluster: &Cluster, rng: &mut Rng) -> Balancer {
    Balancer::new(&cluster.config.balancing, &cluster.endpoints, &cluster.host_sets, Instant::now(), rng)
}

impl WorkerHost {
    /// The connections for requests of a routing priority.
    #[inline]
    pub(crate) fn pool(&self, priority: Priority) -> &Rc<Pool> {
        match priority {
            Priority::Default => &self.pool,
            Priority::High => {
                self.high.get_or_init(|| Pool::new(Target { priority: Priority::High, ..self.pool.target.clone() }))
            }
        }
    }

    fn pools(&self) -> impl Iterator<Item = &Rc<Pool>> {
        std::iter::once(&self.pool).chain(self.high.get())
    }

    /// Counts one request in flight until the guard is dropped; `None` when the circuit breaker is open.
    #[inline]
    pub(crate) fn begin_request(&self, priority: Priority) -> Option<ActiveRequest<'_>> {
        let target = &self.pool(priority).target;
        let permit = target.breaker().admit_request(Instant::now)?;
        target.state.active_requests.fetch_add(1, Ordering::Relaxed);
        Some(ActiveRequest { state: &target.state, _permit: permit })
    }

    /// A host without connections.
    pub(super) fn new(endpoint: Arc<Endpoint>, cluster: &Cluster, worker: usize) -> Self {
        let pool = Pool::new(Target {
            address: endpoint.address.socket,
            config: cluster.config.clone(),
            state: endpoint.state.clone(),
            stats: cluster.stats.clone(),
            breakers: cluster.breakers.clone(),
            priority: Priority::Default,
            worker,
        });
        Self { endpoint, pool, high: OnceCell::new() }
    }

    pub(super) fn sweep(&self, now: Instant) {
        for pool in self.pools() {
            pool.sweep(now);
        }
    }

    pub(super) fn retire(&self) {
        for pool in self.pools() {
            pool.retire();
        }
    }
}

/// A request in flight to a host; ends when dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest<'a> {
    state: &'a HostState,
    _permit: Permit<'a>,
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.state.active_requests.fetch_sub(1, Ordering::Relaxed);
    }
}
