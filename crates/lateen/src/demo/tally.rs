//! What came of the requests? Counts and times per second, for the last two minutes and in total.

use std::collections::VecDeque;
use std::time::Duration;

use super::app::Version;

/// Seconds that are remembered.
const KEPT: usize = 120;
/// Times remembered of one second; more requests than that are counted only.
const MAX_TIMES: usize = 1000;

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A page with reviews of this version.
    Page(Version),
    /// No page, or one that lacks a part; why.
    Problem(String),
}

/// Counts by time. Times are given as distance from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    seconds: VecDeque<Second>,
    total: Counts,
    last_problem: Option<(Duration, String)>,
}

/// Counts of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pages by version of their reviews.
    pub(crate) versions: [u64; 3],
    /// Requests without a whole page.
    pub(crate) errors: u64,
}

impl Counts {
    /// All requests.
    pub(crate) fn requests(&self) -> u64 {
        self.versions.iter().sum::<u64>() + self.errors
    }

    /// Whole pages.
    pub(crate) fn pages(&self) -> u64 {
        self.versions.iter().sum()
    }

    fn add(&mut self, other: &Counts) {
        for (sum, more) in self.versions.iter_mut().zip(other.versions) {
            *sum += more;
        }
        self.errors += other.errors;
    }
}

/// The last few seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recent {
    /// Counts.
    pub(crate) counts: Counts,
    /// Time that the counts cover, in seconds; above zero.
    pub(crate) seconds: f64,
    /// Median time of an answer.
    pub(crate) p50: Option<Duration>,
    /// Time within which 99 of 100 answers came.
    pub(crate) p99: Option<Duration>,
}

impl Recent {
    /// A count as a rate per second.
    pub(crate) fn rate(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let count = count as f64;
        count / self.seconds
    }
}

#[derive(Debug)]
struct Second {
    index: u64,
    counts: Counts,
    times: Vec<Duration>,
}

impl Tally {
    /// Takes note of a request that ended at `at` and took `took`.
    pub(crate) fn record(&mut self, at: Duration, took: Duration, outcome: Outcome) {
        let mut counts = Counts::default();
        match outcome {
            Outcome::Page(version) => counts.versions[version.index()] = 1,
            Outcome::Problem(problem) => {
                counts.errors = 1;
                self.last_problem = Some((at, problem));
            }
        }
        self.total.add(&counts);
        let second = self.second(at.as_secs());
        second.counts.add(&counts);
        if second.times.len() < MAX_TIMES {
            second.times.push(took);
        }
    }

    /// Everything since the beginning.
    pub(crate) fn total(&self) -> Counts {
        self.total
    }

    /// The latest problem within `window` seconds before `now`.
    pub(crate) fn last_problem(&self, now: Duration, window: u64) -> Option<&str> {
        let (at, problem) = self.last_problem.as_ref()?;
        (now.saturating_sub(*at) <= Duration::from_secs(window)).then_some(problem)
    }

    /// The running second and the `window - 1` before it.
    pub(crate) fn recent(&self, now: Duration, window: u64) -> Recent {
        let first = (now.as_secs() + 1).saturating_sub(window);
        let mut recent = Recent::default();
        let mut times = Vec::new();
        for second in self.seconds.iter().filter(|second| (first..=now.as_secs()).contains(&second.index)) {
            recent.counts.add(&second.counts);
            times.extend_from_slice(&second.times);
        }
        times.sort_unstable();
        recent.seconds = now.saturating_sub(Duration::from_secs(first)).as_secs_f64().max(0.001);
        recent.p50 = percentile(&times, 50);
        recent.p99 = percentile(&times, 99);
        recent
    }

    /// Counts of the last `count` complete seconds, oldest first; seconds before the beginning are left out.
    pub(crate) fn history(&self, now: Duration, count: u64) -> Vec<Counts> {
        let end = now.as_secs();
        (end.saturating_sub(count)..end)
            .map(|index| {
                self.seconds.iter().find(|second| second.index == index).map_or_else(Counts::default, |s| s.counts)
            })
            .collect()
    }

    /// The second of that number, which is the last one or a newer one.
    fn second(&mut self, index: u64) -> &mut Second {
        if self.seconds.back().is_none_or(|last| last.index < index) {
            if self.seconds.len() == KEPT {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second { index, counts: Counts::default(), times: Vec::new() });
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }
}

/// The smallest value that is not below `percent` of the sorted values.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<_> = (1..=100).map(millis).collect();
        assert_eq!(percentile(&hundred, 50), Some(millis(50)));
        assert_eq!(percentile(&hundred, 99), Some(millis(99)));
        assert_eq!(percentile(&[millis(7)], 99), Some(millis(7)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn recent_counts_the_window_alone_and_total_everything() {
        let mut tally = Tally::default();
        tally.record(millis(200), millis(9), Outcome::Page(Version::V1));
        tally.record(millis(3100), millis(1), Outcome::Page(Version::V2));
        tally.record(millis(4200), millis(3), Outcome::Page(Version::V2));
        tally.record(millis(4300), millis(5), Outcome::Problem("reviews: 503".into()));
        let recent = tally.recent(millis(4500), 2);
        assert_eq!(recent.counts, Counts { versions: [0, 2, 0], errors: 1 });
        assert_eq!(recent.seconds, 1.5);
        assert_eq!(recent.p50, Some(millis(3)));
        assert_eq!(recent.p99, Some(millis(5)));
        assert_eq!(tally.total(), Counts { versions: [1, 2, 0], errors: 1 });
    }

    #[test]
    fn history_has_gaps_as_zeros() {
        let mut tally = Tally::default();
        tally.record(millis(500), millis(1), Outcome::Page(Version::V3));
        tally.record(millis(2500), millis(1), Outcome::Page(Version::V1));
        let history = tally.history(millis(3900), 30);
        let versions: Vec<_> = history.iter().map(|counts| counts.versions).collect();
        assert_eq!(versions, [[0, 0, 1], [0, 0, 0], [1, 0, 0]]);
        assert_eq!(tally.history(millis(3900), 1).len(), 1);
    }

    #[test]
    fn a_problem_is_forgotten_after_a_while() {
        let mut tally = Tally::default();
        tally.record(millis(500), millis(1), Outcome::Problem("ratings: 503".into()));
        assert_eq!(tally.last_problem(millis(1000), 5), Some("ratings: 503"));
        assert_eq!(tally.last_problem(millis(6000), 5), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tally = Tally::default();
        for second in 0..1000 {
            for _ in 0..3 {
                tally.record(Duration::from_secs(second), millis(1), Outcome::Page(Version::V1));
            }
        }
        for _ in 0..5000 {
            tally.record(Duration::from_secs(1000), millis(1), Outcome::Page(Version::V1));
        }
        assert_eq!(tally.seconds.len(), KEPT);
        assert_eq!(tally.seconds.back().map(|second| second.times.len()), Some(MAX_TIMES));
        assert_eq!(tally.total().requests(), 8000);
    }
}
