//! How fast may the body of a response go out? In sixteen equal portions a second, as Envoy's fault filter has it.

use std::time::{Duration, Instant};

/// Portions a second.
const PORTIONS: u64 = 16;

/// The speed of a body, and how much of the present portion is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    portion: u64,
    left: u64,
    next: Option<Instant>,
}

impl Pace {
    /// So many KiB a second; the first portion may go at once.
    pub(crate) fn new(kibibytes: u64) -> Self {
        let portion = (kibibytes.saturating_mul(1024) / PORTIONS).max(1);
        Self { portion, left: portion, next: None }
    }

    /// The speed.
    pub(crate) fn bytes_a_second(&self) -> u64 {
        self.portion.saturating_mul(PORTIONS)
    }

    /// How many bytes may go now.
    pub(crate) fn allowance(&mut self, now: Instant) -> u64 {
        let next = *self.next.get_or_insert(now + Self::interval());
        if now >= next {
            self.left = self.portion;
            // What was not used up is lost: a body that pauses does not gain speed.
            self.next = Some(now + Self::interval());
        }
        self.left
    }

    /// Some bytes went.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// When the next portion may go, if this one is used up.
    pub(crate) fn resume_at(&self) -> Option<Instant> {
        self.next.filter(|_| self.left == 0)
    }

    fn interval() -> Duration {
        Duration::from_micros(1_000_000 / PORTIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kibibytes_at_one_kibibyte_a_second_take_thirty_one_waits_of_a_sixteenth() {
        let mut now = Instant::now();
        let begun = now;
        let mut pace = Pace::new(1);
        let mut left = 2048;
        loop {
            let allowed = pace.allowance(now).min(left);
            pace.spend(allowed);
            left -= allowed;
            if left == 0 {
                break;
            }
            now = pace.resume_at().expect("a used up portion says when the next one comes");
        }
        assert_eq!(now - begun, Duration::from_micros(31 * 62_500));
    }

    #[test]
    fn a_pause_gains_no_more_than_one_portion() {
        let now = Instant::now();
        let mut pace = Pace::new(16);
        assert_eq!((pace.allowance(now), pace.bytes_a_second()), (1024, 16 * 1024));
        pace.spend(1000);
        assert_eq!((pace.allowance(now), pace.resume_at()), (24, None));
        assert_eq!(pace.allowance(now + Duration::from_secs(10)), 1024);
    }
}
