//! What is the cheapest number that one thread counts and others read?
//!
//! Invariant: one writer. A worker adds to its own counters alone, so adding is a load, an addition and a store, without
//! a locked instruction; a second writer at the same time would lose additions. Readers on other threads see a recent
//! value.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count of events: it only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// This many more.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The count.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that rises and falls, and whether it was ever set. Levels have 63 bits.
///
/// The level of one thread may be negative, when what one thread raised another lowers; only the sum over all threads
/// is of interest then.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// The lowest bit of a gauge: it was written. The level is above it.
const WRITTEN: u64 = 1;

impl Gauge {
    /// One higher.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// One lower.
    #[inline]
    pub fn dec(&self) {
        self.sub(1);
    }

    /// This much higher.
    #[inline]
    pub fn add(&self, amount: u64) {
        let raw = self.0.load(Ordering::Relaxed).wrapping_add(amount << 1);
        self.0.store(raw | WRITTEN, Ordering::Relaxed);
    }

    /// This much lower.
    #[inline]
    pub fn sub(&self, amount: u64) {
        let raw = self.0.load(Ordering::Relaxed).wrapping_sub(amount << 1);
        self.0.store(raw | WRITTEN, Ordering::Relaxed);
    }

    /// Exactly this high.
    #[inline]
    pub fn set(&self, level: u64) {
        self.0.store(level << 1 | WRITTEN, Ordering::Relaxed);
    }

    /// The level of this thread, perhaps negative.
    #[inline]
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed) as i64 >> 1
    }

    /// Whether the level was ever set, raised or lowered.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WRITTEN != 0
    }
}

/// The level over several gauges, as people may see it: a sum that is negative for a moment reads as 0.
#[must_use]
pub fn level_of<'a>(gauges: impl Iterator<Item = &'a Gauge>) -> u64 {
    let sum = gauges.fold(0_i64, |sum, gauge| sum.saturating_add(gauge.get()));
    u64::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_raised_on_one_thread_and_lowered_on_another_is_the_sum() {
        let (one, other) = (Gauge::default(), Gauge::default());
        one.add(3);
        other.dec();
        assert_eq!(level_of([&one, &other].into_iter()), 2);
        other.sub(5);
        assert_eq!(level_of([&one, &other].into_iter()), 0);
    }

    #[test]
    fn a_gauge_knows_whether_it_was_ever_written() {
        let gauge = Gauge::default();
        assert!(!gauge.is_used());
        gauge.inc();
        gauge.dec();
        assert!(gauge.is_used());
        assert_eq!(gauge.get(), 0);
        gauge.set(u64::from(u32::MAX));
        gauge.dec();
        assert_eq!(gauge.get(), i64::from(u32::MAX) - 1);
    }

    #[test]
    fn a_counter_adds_up() {
        let counter = Counter::default();
        counter.inc();
        counter.add(41);
        assert_eq!(counter.get(), 42);
    }
}
