//! The connections of one worker to one host at one routing priority: who gets one, who waits, when is a new one made?
//!
//! Envoy's rules for HTTP/1. A request takes the connection that was freed last. If there is none it waits in line, and
//! a new connection is begun, if there are fewer under way than requests waiting and the circuit breaker has room, or the
//! pool has no connection at all. Whatever connection is ready first goes to the request that waits longest; a
//! connection that could not be made fails all that wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lateen_telemetry::Gauge;

use super::breakers::{Breaker, Breakers, Permit};
use super::connection::{ConnectError, UpstreamConnection};
use crate::snapshot::cluster::ClusterConfig;
use crate::snapshot::host::HostState;
use crate::snapshot::route::Priority;
use crate::stats::{ClusterCounters, ClusterStats};

/// The connections to one host.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) target: Target,
    #[expect(clippy::vec_box, reason = "connections go in and out with every request; the box keeps that a pointer")]
    idle: RefCell<Vec<Box<UpstreamConnection>>>,
    line: RefCell<VecDeque<Rc<Waiter>>>,
    /// Connections of any state: being made, in use, idle.
    open: Cell<u32>,
    /// Connections being made.
    connecting: Cell<u32>,
    retired: Cell<bool>,
    /// Connections made before this moment are not used again.
    drained: Cell<Option<Instant>>,
}

/// What connecting needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) address: SocketAddr,
    pub(super) config: Arc<ClusterConfig>,
    pub(super) state: Arc<HostState>,
    pub(super) stats: Arc<ClusterStats>,
    pub(super) breakers: Arc<Breakers>,
    pub(super) priority: Priority,
    pub(super) worker: usize,
}

impl Target {
    pub(super) fn counters(&self) -> &ClusterCounters {
        self.stats.worker(self.worker)
    }

    pub(super) fn breaker(&self) -> &Breaker {
        self.breakers.of(self.priority)
    }
}

/// A request that waits for a connection.
#[derive(Debug, Default)]
struct Waiter {
    outcome: RefCell<Option<Result<Box<UpstreamConnection>, ConnectError>>>,
    waker: RefCell<Option<Waker>>,
    /// A connection of the pool ended, or was freed for somebody else: another may be begun.
    reconsider: Cell<bool>,
}

impl Waiter {
    fn settle(&self, outcome: Result<Box<UpstreamConnection>, ConnectError>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Why no connection is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many requests wait already.
    Pending,
    /// Too many pools have connections already.
    Pools,
}

impl Pool {
    /// A pool without connections.
    pub(super) fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::default(),
            line: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            retired: Cell::new(false),
            drained: Cell::new(None),
        })
    }

    /// The idle connection that was freed last, of those that can still be used.
    #[inline]
    pub(crate) fn checkout(&self, now: Instant) -> Option<Box<UpstreamConnection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if !self.is_outlived(&connection, now) && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Takes a place in the line for a connection, and begins to make one where the rules want it.
    pub(crate) fn wait(self: &Rc<Self>) -> Result<Pending<'_>, Refused> {
        let counters = self.target.counters();
        if self.open.get() == 0 && !self.target.breaker().has_room_for_pool() {
            counters.upstream_cx_pool_overflow.inc();
            return Err(Refused::Pools);
        }
        let Some(permit) = self.target.breaker().admit_pending() else {
            counters.upstream_rq_pending_overflow.inc();
            return Err(Refused::Pending);
        };
        counters.upstream_rq_pending_total.inc();
        counters.upstream_rq_pending_active.inc();
        self.target.state.pending_requests.fetch_add(1, Ordering::Relaxed);
        let waiter = Rc::new(Waiter::default());
        self.line.borrow_mut().push_back(waiter.clone());
        self.begin_connection();
        Ok(Pending { pool: self, waiter, _permit: permit, active: &counters.upstream_rq_pending_active })
    }

    /// Takes a connection back after an exchange that left it clean. It goes to whoever waits longest.
    #[inline]
    pub(crate) fn give_back(&self, mut connection: Box<UpstreamConnection>, now: Instant) {
        let config = &self.target.config;
        if config.max_requests_per_connection.is_some_and(|limit| connection.count.requests >= limit) {
            self.target.counters().upstream_cx_max_requests.inc();
        } else if config.max_connection_duration.is_some_and(|limit| connection.age(now) >= limit) {
            self.target.counters().upstream_cx_max_duration_reached.inc();
        } else if self.drained.get().is_none_or(|moment| connection.opened > moment) {
            connection.rest(now);
            self.offer(connection);
        }
    }

    /// Closes idle connections that the peer closed, that were idle too long, or that are too old.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            let ended: Vec<_> = idle
                .extract_if(.., |connection| self.is_outlived(connection, now) || !connection.is_usable())
                .collect();
            drop(idle);
            drop(ended);
        }
    }

    /// Closes the idle connections and keeps none any more: the host or its cluster is gone.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        let idle = self.idle.take();
        drop(idle);
    }

    /// Closes the idle connections, and those in use when they come back.
    pub(super) fn drain(&self) {
        self.drained.set(Some(Instant::now()));
        drop(self.idle.take());
    }

    fn is_outlived(&self, connection: &UpstreamConnection, now: Instant) -> bool {
        let passed = |limit: Option<Duration>, span: Duration| limit.is_some_and(|limit| span >= limit);
        if passed(self.target.config.idle_timeout, connection.idle_for(now)) {
            self.target.counters().upstream_cx_idle_timeout.inc();
            return true;
        }
        if passed(self.target.config.max_connection_duration, connection.age(now)) {
            self.target.counters().upstream_cx_max_duration_reached.inc();
            return true;
        }
        false
    }

    /// Hands a ready connection to the head of the line, or lays it by.
    fn offer(&self, connection: Box<UpstreamConnection>) {
        let first = self.line.borrow_mut().pop_front();
        match first {
            Some(waiter) => {
                waiter.settle(Ok(connection));
                self.reconsider();
            }
            None if self.retired.get() => drop(connection),
            None => self.idle.borrow_mut().push(connection),
        }
    }

    /// Lets the head of the line see whether another connection may be begun.
    fn reconsider(&self) {
        if let Some(first) = self.line.borrow().front() {
            first.reconsider.set(true);
            first.wake();
        }
    }

    /// Begins a connection if requests wait that none is being made for.
    fn begin_connection(self: &Rc<Self>) {
        if self.line.borrow().len() <= self.connecting.get() as usize {
            return;
        }
        let of_host = self.target.state.active_connections.load(Ordering::Relaxed);
        if !self.target.breaker().has_room_for_connection(of_host) {
            self.target.counters().upstream_cx_overflow.inc();
            // Without any connection nothing would ever serve those that wait.
            if self.open.get() > 0 {
                return;
            }
        }
        self.connecting.set(self.connecting.get() + 1);
        tokio::task::spawn_local(UpstreamConnection::connect(self));
    }

    /// A connection begins; whether it is the only one.
    pub(super) fn opened(&self) -> bool {
        self.open.set(self.open.get() + 1);
        self.open.get() == 1
    }

    /// A connection ended; whether it was the last one. Somebody who waits may have another one made.
    pub(super) fn closed(&self) -> bool {
        self.open.set(self.open.get().saturating_sub(1));
        self.reconsider();
        self.open.get() == 0
    }

    /// A connection that was being made is ready, or could not be made.
    pub(super) fn connected(&self, outcome: Result<Box<UpstreamConnection>, ConnectError>) {
        self.connecting.set(self.connecting.get().saturating_sub(1));
        match outcome {
            Ok(connection) => self.offer(connection),
            Err(error) => {
                let line = self.line.take();
                self.target.counters().upstream_rq_pending_failure_eject.add(line.len() as u64);
                for waiter in line {
                    waiter.settle(Err(error));
                }
            }
        }
    }
}

/// A place in the line; given up when dropped.
#[derive(Debug)]
pub(crate) struct Pending<'p> {
    pool: &'p Rc<Pool>,
    waiter: Rc<Waiter>,
    _permit: Permit<'p>,
    active: &'p Gauge,
}

impl Pending<'_> {
    /// Ready with a connection, or when one could not be made.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<UpstreamConnection>, ConnectError>> {
        if let Some(outcome) = self.waiter.outcome.take() {
            return Poll::Ready(outcome);
        }
        if self.waiter.reconsider.take() {
            self.pool.begin_connection();
        }
        let mut waker = self.waiter.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.active.dec();
        self.pool.target.state.pending_requests.fetch_sub(1, Ordering::Relaxed);
        self.pool.line.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        // It came too late for this request: the next one gets it.
        if let Some(Ok(connection)) = self.waiter.outcome.take() {
            self.pool.offer(connection);
        } else if self.waiter.reconsider.take() {
            self.pool.reconsider();
        }
    }
}
