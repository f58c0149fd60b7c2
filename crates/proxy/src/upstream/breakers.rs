//! May something more be under way to a cluster? Circuit breakers, shared by all workers.
//!
//! Everything that is admitted is a permit, which gives its place back when it is dropped, on whatever path. Counting is
//! an atomic addition; nobody waits for anybody.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::window::Window;
use crate::snapshot::cluster::Thresholds;
use crate::snapshot::route::Priority;

/// The circuit breakers of a cluster.
#[derive(Debug)]
pub(crate) struct Breakers {
    priorities: [Breaker; 2],
}

impl Breakers {
    /// With nothing under way.
    pub(crate) fn new(thresholds: &[Thresholds; 2]) -> Self {
        Self { priorities: thresholds.map(Breaker::new) }
    }

    /// Those of a routing priority.
    #[inline]
    pub(crate) fn of(&self, priority: Priority) -> &Breaker {
        &self.priorities[priority as usize]
    }
}

/// The circuit breakers of one routing priority: how much is under way of each kind, and how much may be.
#[derive(Debug)]
pub(crate) struct Breaker {
    pub(crate) thresholds: Thresholds,
    connections: AtomicU32,
    pools: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    /// The requests that began lately, where a retry budget counts them.
    window: Option<Window>,
}

/// How much is under way at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Open connections.
    pub(crate) connections: u32,
    /// Pools that have a connection.
    pub(crate) pools: u32,
    /// Requests that wait for a connection.
    pub(crate) pending: u32,
    /// Requests on connections.
    pub(crate) requests: u32,
    /// Retries under way, their waits included.
    pub(crate) retries: u32,
}

impl Breaker {
    fn new(thresholds: Thresholds) -> Self {
        let none = || AtomicU32::new(0);
        let interval = thresholds.retry_budget.and_then(|budget| budget.interval);
        Self {
            thresholds,
            connections: none(),
            pools: none(),
            pending: none(),
            requests: none(),
            retries: none(),
            window: interval.map(Window::new),
        }
    }

    /// A place for a request on a connection. The time is only asked for where it matters.
    #[inline]
    pub(crate) fn admit_request(&self, now: impl FnOnce() -> Instant) -> Option<Permit<'_>> {
        let permit = Permit::take(&self.requests, self.thresholds.max_requests)?;
        if let Some(window) = &self.window {
            window.add(now());
        }
        Some(permit)
    }

    /// A place in the line for a connection.
    pub(crate) fn admit_pending(&self) -> Option<Permit<'_>> {
        Permit::take(&self.pending, self.thresholds.max_pending_requests)
    }

    /// A place for a retry, for its wait and its attempt.
    pub(crate) fn admit_retry(&self, now: Instant) -> Option<Permit<'_>> {
        Permit::take(&self.retries, self.max_retries(now))
    }

    /// Whether one more connection is within the limit, and within that of a host that has so many.
    pub(crate) fn has_room_for_connection(&self, of_host: u32) -> bool {
        self.thresholds.max_connections_per_host.is_none_or(|limit| of_host < limit)
            && self.connections.load(Ordering::Relaxed) < self.thresholds.max_connections
    }

    /// A connection begins; with its pool, if it is the first one of that.
    pub(crate) fn open_connection(&self, first: bool) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if first {
            self.pools.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection is over; with its pool, if it was the last one of that.
    pub(crate) fn close_connection(&self, last: bool) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if last {
            self.pools.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether one more pool may get a connection.
    pub(crate) fn has_room_for_pool(&self) -> bool {
        self.thresholds.max_connection_pools.is_none_or(|limit| self.pools.load(Ordering::Relaxed) < limit)
    }

    /// Most retries at this moment.
    pub(crate) fn max_retries(&self, now: Instant) -> u32 {
        let Some(budget) = self.thresholds.retry_budget else { return self.thresholds.max_retries };
        let counted = match &self.window {
            Some(window) => window.count(now) as f64,
            None => {
                let load = self.load();
                f64::from(load.requests) + f64::from(load.pending)
            }
        };
        // A conversion of a float keeps to the range of the integer.
        ((budget.percent / 100.0 * counted) as u32).max(budget.min_concurrency)
    }

    /// How much is under way.
    pub(crate) fn load(&self) -> Load {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Load {
            connections: read(&self.connections),
            pools: read(&self.pools),
            pending: read(&self.pending),
            requests: read(&self.requests),
            retries: read(&self.retries),
        }
    }
}

/// A place that was taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a AtomicU32);

impl<'a> Permit<'a> {
    #[inline]
    fn take(count: &'a AtomicU32, limit: u32) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        // Dropped at once, and so given back, when there was no room.
        Some(Self(count)).filter(|_| before < limit)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::cluster::RetryBudget;

    fn breaker(thresholds: Thresholds) -> Breaker {
        Breaker::new(thresholds)
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let breaker = breaker(Thresholds { max_requests: 2, ..Thresholds::default() });
        let first = breaker.admit_request(Instant::now);
        let second = breaker.admit_request(Instant::now);
        assert!(first.is_some() && second.is_some());
        assert!(breaker.admit_request(Instant::now).is_none());
        drop(first);
        assert!(breaker.admit_request(Instant::now).is_some());
        drop(second);
        assert_eq!(breaker.load().requests, 0);
    }

    #[test]
    fn priorities_have_limits_of_their_own() {
        let none = Thresholds { max_pending_requests: 0, ..Thresholds::default() };
        let breakers = Breakers::new(&[none, Thresholds::default()]);
        assert!(breakers.of(Priority::Default).admit_pending().is_none());
        assert!(breakers.of(Priority::High).admit_pending().is_some());
    }

    #[test]
    fn connections_are_limited_by_cluster_and_by_host() {
        let limits = Thresholds { max_connections: 2, max_connections_per_host: Some(1), ..Thresholds::default() };
        let breaker = breaker(limits);
        assert!(breaker.has_room_for_connection(0));
        assert!(!breaker.has_room_for_connection(1));
        breaker.open_connection(true);
        breaker.open_connection(false);
        assert!(!breaker.has_room_for_connection(0));
        breaker.close_connection(false);
        assert!(breaker.has_room_for_connection(0));
        breaker.close_connection(true);
        assert_eq!((breaker.load().connections, breaker.load().pools), (0, 0));
    }

    #[test]
    fn a_retry_budget_follows_what_is_under_way() {
        let budget = RetryBudget { percent: 20.0, min_concurrency: 1, interval: None };
        let breaker = breaker(Thresholds { retry_budget: Some(budget), max_retries: 9, ..Thresholds::default() });
        assert_eq!(breaker.max_retries(Instant::now()), 1);
        let requests: Vec<_> = (0..12).map(|_| breaker.admit_request(Instant::now)).collect();
        let pending: Vec<_> = (0..3).map(|_| breaker.admit_pending()).collect();
        assert_eq!(breaker.max_retries(Instant::now()), 3);
        let retries: Vec<_> = (0..4).filter_map(|_| breaker.admit_retry(Instant::now())).collect();
        assert_eq!(retries.len(), 3);
        drop((requests, pending, retries));
        assert_eq!(breaker.load(), Load { connections: 0, pools: 0, pending: 0, requests: 0, retries: 0 });
    }

    #[test]
    fn a_retry_budget_with_an_interval_counts_what_began_in_it() {
        let interval = Some(Duration::from_secs(2));
        let budget = RetryBudget { percent: 50.0, min_concurrency: 0, interval };
        let breaker = breaker(Thresholds { retry_budget: Some(budget), ..Thresholds::default() });
        let start = Instant::now();
        for _ in 0..6 {
            drop(breaker.admit_request(|| start));
        }
        assert_eq!(breaker.max_retries(start + Duration::from_secs(1)), 3);
        assert_eq!(breaker.max_retries(start + Duration::from_secs(3)), 0);
        assert!(breaker.admit_retry(start + Duration::from_secs(3)).is_none());
    }
}
