//! How many requests began lately? A count over a sliding time, shared by all workers without a lock.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times are counted from this moment.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time slides in so many steps.
const STEPS: u64 = 10;

/// A count of what happened within a time.
#[derive(Debug)]
pub(super) struct Window {
    step: Duration,
    /// One for each step, and one that is being left behind: the number of the step above the count.
    slots: [AtomicU64; STEPS as usize + 1],
}

impl Window {
    /// Nothing happened yet.
    pub(super) fn new(span: Duration) -> Self {
        let step = (span / u32::try_from(STEPS).unwrap_or(1)).max(Duration::from_millis(1));
        Self { step, slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Something happens.
    pub(super) fn add(&self, now: Instant) {
        let step = self.step_of(now);
        let slot = &self.slots[(step % self.slots.len() as u64) as usize];
        // Whoever comes first in a step begins the count anew.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| match held >> 32 == step {
            true => Some(held + 1),
            false => Some(step << 32 | 1),
        });
    }

    /// How often it happened within the time.
    pub(super) fn count(&self, now: Instant) -> u64 {
        let step = self.step_of(now);
        let recent = |held: u64| {
            let age = step.wrapping_sub(held >> 32);
            if age < STEPS { held & u64::from(u32::MAX) } else { 0 }
        };
        self.slots.iter().map(|slot| recent(slot.load(Ordering::Relaxed))).sum()
    }

    /// The number of the step; the first one is 1, so that an untouched slot belongs to none.
    fn step_of(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(*EPOCH).as_micros() / self.step.as_micros().max(1);
        (u64::try_from(elapsed).unwrap_or(u64::MAX) + STEPS) & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_counts_for_its_time_and_no_longer() {
        let window = Window::new(Duration::from_secs(2));
        let start = *EPOCH + Duration::from_secs(1);
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(window.count(at(0)), 0);
        for millis in [0, 50, 900, 900] {
            window.add(at(millis));
        }
        assert_eq!([1000, 1700, 2000, 2700, 2900].map(|millis| window.count(at(millis))), [4, 4, 2, 2, 0]);
        for turn in 0..50 {
            window.add(at(10_000 + turn * 200));
        }
        assert_eq!(window.count(at(10_000 + 49 * 200)), STEPS);
    }
}
