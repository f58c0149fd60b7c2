//! What does the data plane count, and who holds the numbers?
//!
//! A *scope* is one cluster, connection manager or listener, under the name that its statistics bear in Envoy. Each
//! worker counts in its own block of the scope; the [`Registry`] knows the scopes that the configuration in use has, so
//! that a changed cluster goes on counting where it was and a removed one disappears.

pub(crate) mod block;
mod cluster;
mod codes;
mod collect;
mod http;
mod listener;
mod server;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lateen_telemetry::{Distribution, Gauge};

pub use block::PerWorker;
pub use cluster::{
    Answers, BreakerGauges, ClusterCounters, ClusterState, ClusterStats, HealthCheckCounters, Lazy, MaglevGauges,
    OutlierCounters, RemainingGauges, RingGauges,
};
pub use codes::{ClassCounters, CodeCounters};
pub use http::{Caller, Callers, CorsCounters, FaultCounters, HttpCounters, HttpStats};
pub use listener::{ListenerCounters, ListenerStats};
pub use server::{ClusterManagerState, ListenerManagerState, ServerState, ServerStats, SubscriptionState};

/// All scopes of the process.
#[derive(Debug)]
pub struct Registry {
    /// What is counted of the process as a whole.
    pub server: ServerStats,
    workers: usize,
    clusters: Scopes<ClusterStats>,
    https: Scopes<HttpStats>,
    listeners: Scopes<ListenerStats>,
    /// What each counter had counted when the counters were last reset.
    reset: Mutex<BTreeMap<Box<str>, u64>>,
}

impl Registry {
    /// A registry for this many workers, numbered from 0.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            server: ServerStats::default(),
            workers: workers.max(1),
            clusters: Scopes::default(),
            https: Scopes::default(),
            listeners: Scopes::default(),
            reset: Mutex::default(),
        }
    }

    /// Count of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The scope of a cluster by its name in statistics (`alt_stat_name`, else its name).
    #[must_use]
    pub fn cluster(&self, stat_name: &str) -> Arc<ClusterStats> {
        self.clusters.get(&stat_name.replace(':', "_"), |name| ClusterStats::new(name, self.workers))
    }

    /// The scope of the connection managers with this `stat_prefix`.
    #[must_use]
    pub fn http(&self, stat_prefix: &str) -> Arc<HttpStats> {
        self.https.get(&stat_prefix.replace(':', "_"), |name| HttpStats::new(name, self.workers))
    }

    /// The scope of a listener by its `stat_prefix`, else by the address to which it is bound.
    #[must_use]
    pub fn listener(&self, address: SocketAddr, stat_prefix: Option<&str>) -> Arc<ListenerStats> {
        let name = match stat_prefix {
            Some(prefix) if !prefix.is_empty() => prefix.replace(':', "_"),
            _ => address.to_string().replace(':', "_"),
        };
        self.listeners.get(&name, |name| ListenerStats::new(name, self.workers))
    }

    /// The clusters in use, by name.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<ClusterStats>> {
        self.clusters.all()
    }

    /// The connection managers in use, by name.
    #[must_use]
    pub fn https(&self) -> Vec<Arc<HttpStats>> {
        self.https.all()
    }

    /// The listeners in use, by name.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<ListenerStats>> {
        self.listeners.all()
    }
}

/// Scopes by name, for as long as somebody outside holds them.
#[derive(Debug)]
struct Scopes<T>(Mutex<ByName<T>>);

#[derive(Debug)]
struct ByName<T> {
    scopes: BTreeMap<Arc<str>, Weak<T>>,
    /// How many scopes there may be before those that nobody holds are taken out.
    sweep_at: usize,
}

impl<T> Default for Scopes<T> {
    fn default() -> Self {
        Self(Mutex::new(ByName { scopes: BTreeMap::new(), sweep_at: 64 }))
    }
}

impl<T> Scopes<T> {
    fn get(&self, name: &str, make: impl FnOnce(Arc<str>) -> T) -> Arc<T> {
        let mut by_name = self.lock();
        if let Some(scope) = by_name.scopes.get(name).and_then(Weak::upgrade) {
            return scope;
        }
        if by_name.scopes.len() >= by_name.sweep_at {
            by_name.scopes.retain(|_, scope| scope.strong_count() > 0);
            by_name.sweep_at = 64 + 2 * by_name.scopes.len();
        }
        let name: Arc<str> = name.into();
        let scope = Arc::new(make(name.clone()));
        by_name.scopes.insert(name, Arc::downgrade(&scope));
        scope
    }

    fn all(&self) -> Vec<Arc<T>> {
        self.lock().scopes.values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, ByName<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    pub(crate) fn begin(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the histograms of one scope held at the last two flushes, so that the last interval can be shown.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<HashMap<Cow<'static, str>, [Distribution; 2]>>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lives_as_long_as_somebody_holds_it() {
        let registry = Registry::new(2);
        let first = registry.cluster("outbound|80||a.b;");
        first.worker(1).upstream_rq_total.inc();
        assert!(Arc::ptr_eq(&first, &registry.cluster("outbound|80||a.b;")));
        assert_eq!(registry.clusters().len(), 1);
        drop(first);
        assert!(registry.clusters().is_empty());
        assert_eq!(registry.cluster("outbound|80||a.b;").total(|counters| &counters.upstream_rq_total), 0);
    }

    #[test]
    fn scopes_that_nobody_holds_do_not_pile_up() {
        let registry = Registry::new(1);
        for index in 0..10_000 {
            drop(registry.http(&format!("prefix-{index}")));
        }
        assert!(registry.https.lock().scopes.len() <= 64);
    }

    #[test]
    fn names_are_those_of_envoy() {
        let registry = Registry::new(1);
        assert_eq!(&*registry.cluster("a:b").name, "a_b");
        let address = "127.0.0.1:29980".parse().unwrap();
        assert_eq!(&*registry.listener(address, None).name, "127.0.0.1_29980");
        assert_eq!(&*registry.listener(address, Some("")).name, "127.0.0.1_29980");
        assert_eq!(&*registry.listener(address, Some("in")).name, "in");
        let address = "[::1]:80".parse().unwrap();
        assert_eq!(&*registry.listener(address, None).name, "[__1]_80");
    }
}
