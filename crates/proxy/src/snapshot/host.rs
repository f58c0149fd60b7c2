//! What do all workers and the main thread share of one upstream address? Its load, its health and its record.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Moments are kept as milliseconds since this one.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A rate that is not known.
const UNKNOWN: f64 = -1.0;

/// The shared state of a host; it stays while its address stays in the cluster.
#[derive(Debug)]
pub struct HostState {
    /// Requests in flight to this host from all workers.
    pub active_requests: AtomicU32,
    /// Open connections to this host from all workers.
    pub active_connections: AtomicU32,
    /// Requests that wait for a connection to this host, of all workers.
    pub pending_requests: AtomicU32,
    /// Connections ever opened.
    pub connections: AtomicU32,
    /// Connections that could not be opened.
    pub connect_failures: AtomicU32,
    /// Requests ever sent.
    pub requests: AtomicU32,
    /// Answers below 500.
    pub successes: AtomicU32,
    /// Answers of 500 and above, and resets.
    pub errors: AtomicU32,
    /// Requests that timed out.
    pub timeouts: AtomicU32,
    /// What outlier detection looks at.
    pub record: Record,
    /// Success rates of the last sweep, for `/clusters`.
    pub rates: Rates,
    flags: AtomicU32,
    healthy_since: AtomicU64,
}

/// What the proxy itself observed of a host's health, besides what its load assignment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HealthFlag {
    /// `/failed_active_hc`
    FailedActiveHealthCheck = 1,
    /// `/failed_outlier_check`
    FailedOutlierCheck = 2,
    /// `/degraded_active_hc`
    DegradedActiveHealthCheck = 4,
}

/// The flags of hosts that are not healthy.
const FAILED: u32 = HealthFlag::FailedActiveHealthCheck as u32 | HealthFlag::FailedOutlierCheck as u32;

impl HostState {
    /// A host that is new at this moment.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            active_requests: zero(),
            active_connections: zero(),
            pending_requests: zero(),
            connections: zero(),
            connect_failures: zero(),
            requests: zero(),
            successes: zero(),
            errors: zero(),
            timeouts: zero(),
            record: Record::default(),
            rates: Rates::default(),
            flags: zero(),
            healthy_since: AtomicU64::new(millis(now)),
        }
    }

    /// Requests in flight.
    #[inline]
    #[must_use]
    pub fn active_requests(&self) -> u32 {
        self.active_requests.load(Ordering::Relaxed)
    }

    /// Whether this was observed.
    #[must_use]
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u32 != 0
    }

    /// Whether it failed in any way.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FAILED != 0
    }

    /// Sets whether this is so; `true` when that is news. Only the main thread does this.
    pub fn set(&self, flag: HealthFlag, on: bool) -> bool {
        let bit = flag as u32;
        let before = match on {
            true => self.flags.fetch_or(bit, Ordering::Relaxed),
            false => self.flags.fetch_and(!bit, Ordering::Relaxed),
        };
        (before & bit != 0) != on
    }

    /// From now on slow start counts its time.
    pub fn became_healthy(&self, now: Instant) {
        self.healthy_since.store(millis(now), Ordering::Relaxed);
    }

    /// How long it has been there, or passed its health checks.
    #[must_use]
    pub fn healthy_for(&self, now: Instant) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.healthy_since.load(Ordering::Relaxed)))
    }
}

fn millis(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*EPOCH).as_millis()).unwrap_or(u64::MAX)
}

/// What outlier detection looks at. Workers add, the main thread takes.
#[derive(Debug, Default)]
pub struct Record {
    /// Errors of the upstream (500 and above) one after another.
    pub consecutive_5xx: AtomicU32,
    /// 502, 503 and 504 one after another.
    pub consecutive_gateway: AtomicU32,
    /// Failures before an answer one after another, where they are counted apart.
    pub consecutive_local: AtomicU32,
    /// Results since the last sweep.
    pub answers: Tally,
    /// Results of connecting and waiting since the last sweep, where they are counted apart.
    pub local: Tally,
}

/// Good and bad results.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were good.
    pub successes: AtomicU32,
    /// How many were not.
    pub failures: AtomicU32,
}

impl Tally {
    /// Takes the counts: the success rate in percent and the volume, or `None` when there is nothing.
    pub fn take(&self) -> Option<(f64, u64)> {
        let successes = u64::from(self.successes.swap(0, Ordering::Relaxed));
        let volume = successes + u64::from(self.failures.swap(0, Ordering::Relaxed));
        (volume > 0).then(|| (successes as f64 * 100.0 / volume as f64, volume))
    }
}

/// Success rates in percent; -1 is unknown.
#[derive(Debug)]
pub struct Rates {
    answers: AtomicU64,
    local: AtomicU64,
}

impl Default for Rates {
    fn default() -> Self {
        Self { answers: AtomicU64::new(UNKNOWN.to_bits()), local: AtomicU64::new(UNKNOWN.to_bits()) }
    }
}

impl Rates {
    /// Of answers, and of what happened before an answer.
    #[must_use]
    pub fn get(&self) -> [f64; 2] {
        [&self.answers, &self.local].map(|rate| f64::from_bits(rate.load(Ordering::Relaxed)))
    }

    /// Sets both.
    pub fn set(&self, rates: [f64; 2]) {
        self.answers.store(rates[0].to_bits(), Ordering::Relaxed);
        self.local.store(rates[1].to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_each_kind_come_and_go_apart() {
        let state = HostState::new(Instant::now());
        assert!(state.set(HealthFlag::FailedOutlierCheck, true));
        assert!(!state.set(HealthFlag::FailedOutlierCheck, true));
        assert!(state.set(HealthFlag::FailedActiveHealthCheck, true));
        assert!(state.set(HealthFlag::FailedOutlierCheck, false));
        assert!(state.has_failed() && state.has(HealthFlag::FailedActiveHealthCheck));
        assert!(!state.has(HealthFlag::FailedOutlierCheck));
    }

    #[test]
    fn a_tally_is_taken_once() {
        let tally = Tally::default();
        tally.successes.store(3, Ordering::Relaxed);
        tally.failures.store(1, Ordering::Relaxed);
        assert_eq!(tally.take(), Some((75.0, 4)));
        assert_eq!(tally.take(), None);
    }

    #[test]
    fn slow_start_counts_from_the_moment_a_host_became_healthy() {
        let now = Instant::now();
        let state = HostState::new(now);
        let later = now + Duration::from_secs(5);
        assert!(state.healthy_for(later) >= Duration::from_millis(4999));
        state.became_healthy(later);
        assert_eq!(state.healthy_for(later), Duration::ZERO);
    }
}
