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
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// The count.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that rises and falls.
///
/// The level of one thread may be negative, when what one thread raised another lowers; only the sum over all threads
/// is of interest then.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

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
        self.set(self.0.load(Ordering::Relaxed).wrapping_add(amount));
    }

    /// This much lower.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.set(self.0.load(Ordering::Relaxed).wrapping_sub(amount));
    }

    /// Exactly this high.
    #[inline]
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// The level, modulo 2⁶⁴: a negative one reads as a huge number, which wrapping addition over all threads corrects.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The level over several gauges, as people may see it: a sum that is negative for a moment reads as 0.
///
/// A sum counts as negative when its highest bit is set and no single part of it could have set it, so that huge levels
/// such as "unlimited" (2⁶⁴ − 1) on a lone gauge survive.
#[must_use]
pub fn level_of<'a>(gauges: impl Iterator<Item = &'a Gauge>) -> u64 {
    let mut parts = 0_usize;
    let mut sum = 0_u64;
    for gauge in gauges {
        parts += 1;
        sum = sum.wrapping_add(gauge.get());
    }
    if parts > 1 && sum > i64::MAX as u64 {
        0
    } else {
        sum
    }
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
    fn an_unlimited_level_survives() {
        let gauge = Gauge::default();
        gauge.set(u64::MAX - 1);
        assert_eq!(level_of([&gauge].into_iter()), u64::MAX - 1);
    }

    #[test]
    fn a_counter_adds_up() {
        let counter = Counter::default();
        counter.inc();
        counter.add(41);
        assert_eq!(counter.get(), 42);
    }
}
