//! How are durations and sizes distributed? Log-linear buckets of two significant digits, and the figures that Envoy
//! derives from them.
//!
//! Envoy's histograms (libcircllhist) file a value under its two leading decimal digits: 1 under [1.0, 1.1), 67 under
//! [67, 68), 305 under [300, 310). Quantiles are interpolated inside a bucket, which is why a single sample of 1 reads
//! 1.05. Memory is bounded: ten slots for 0 to 9, and 90 slots for each power of ten that was ever seen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Values below this have a slot each.
const SMALL: usize = 10;
/// Slots of one power of ten: the two-digit mantissas 10 to 99.
const MANTISSAS: usize = 90;
/// Powers of ten above the small values: 10¹ to 10¹⁰, so that values below 10¹¹ are told apart.
const DECADES: usize = 10;

/// The quantiles that Envoy prints.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// The upper bounds of the buckets that Envoy prints unless told otherwise.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The samples of one thread: recorded by it alone (see [`crate::counter`]), read by any.
#[derive(Debug, Default)]
pub struct Histogram {
    small: [AtomicU64; SMALL],
    decades: [OnceLock<Box<Decade>>; DECADES],
}

#[derive(Debug)]
struct Decade([AtomicU64; MANTISSAS]);

impl Default for Decade {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    /// Records a value. Values of 10¹¹ and above count as just below it.
    #[inline]
    pub fn record(&self, value: u64) {
        let slot = match value {
            0..=9 => &self.small[value as usize],
            10..=99 => self.slot(0, value as usize - 10),
            100..=999 => self.slot(1, (value / 10) as usize - 10),
            _ => self.large(value),
        };
        slot.store(slot.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Records a duration in whole milliseconds, rounded down as Envoy does.
    #[inline]
    pub fn record_ms(&self, duration: Duration) {
        self.record(duration.as_secs().saturating_mul(1000) + u64::from(duration.subsec_millis()));
    }

    fn large(&self, value: u64) -> &AtomicU64 {
        let power = value.ilog10() as usize;
        if power > DECADES {
            return self.slot(DECADES - 1, MANTISSAS - 1);
        }
        let unit = 10_u64.pow(power as u32 - 1);
        self.slot(power - 1, (value / unit) as usize - 10)
    }

    #[inline]
    fn slot(&self, decade: usize, mantissa: usize) -> &AtomicU64 {
        &self.decades[decade].get_or_init(Box::default).0[mantissa]
    }
}

/// Samples that no longer change: one histogram, the sum of several, or the difference of two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Slot and count, ascending, no count 0.
    buckets: Vec<(u16, u64)>,
}

/// The samples between two neighbouring two-digit numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The smallest value that belongs here.
    pub lower: f64,
    /// Distance to the next bucket; 0 for the bucket of 0.
    pub width: f64,
    /// Count of samples.
    pub count: u64,
}

impl Distribution {
    /// The samples of several threads together.
    #[must_use]
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut sums = Vec::new();
        for histogram in histograms {
            for (slot, count) in histogram.small.iter().enumerate() {
                add(&mut sums, slot, count.load(Ordering::Relaxed));
            }
            for (decade, counts) in histogram.decades.iter().enumerate() {
                for (mantissa, count) in counts.get().iter().flat_map(|decade| decade.0.iter()).enumerate() {
                    add(&mut sums, SMALL + decade * MANTISSAS + mantissa, count.load(Ordering::Relaxed));
                }
            }
        }
        let buckets = sums.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self { buckets: buckets.map(|(slot, count)| (slot as u16, count)).collect() }
    }

    /// What came since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |slot: u16| match earlier.buckets.binary_search_by_key(&slot, |bucket| bucket.0) {
            Ok(index) => earlier.buckets[index].1,
            Err(_) => 0,
        };
        let grown = self.buckets.iter().map(|(slot, count)| (*slot, count.saturating_sub(before(*slot))));
        Self { buckets: grown.filter(|(_, count)| *count > 0).collect() }
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Count of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The buckets with samples, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.buckets.iter().map(|(slot, count)| {
            let (lower, width) = range(*slot);
            Bucket { lower, width, count: *count }
        })
    }

    /// The sum of the samples as Envoy estimates it: each sample counts as the harmonic mean of its bucket's bounds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        let middle = |bucket: Bucket| match bucket.lower {
            0.0 => 0.0,
            lower => 2.0 * lower * (lower + bucket.width) / (lower + lower + bucket.width),
        };
        self.buckets().map(|bucket| middle(bucket) * bucket.count as f64).sum()
    }

    /// Count of samples up to a bound. The bucket in which the bound lies counts as a whole, as in Envoy.
    #[must_use]
    pub fn count_up_to(&self, bound: f64) -> u64 {
        self.buckets().take_while(|bucket| bucket.lower <= bound).map(|bucket| bucket.count).sum()
    }

    /// The value at each quantile (0 to 1, ascending): samples are spread evenly inside their bucket. NaN when there is
    /// no sample.
    #[must_use]
    pub fn quantiles(&self, quantiles: &[f64]) -> Vec<f64> {
        let total = self.count();
        let value_at = |quantile: &f64| {
            let rank = (quantile * total as f64).ceil().max(1.0);
            let mut below = 0_u64;
            for bucket in self.buckets() {
                if (below + bucket.count) as f64 >= rank {
                    let share = (rank - below as f64) / (bucket.count + 1) as f64;
                    return bucket.lower + share * bucket.width;
                }
                below += bucket.count;
            }
            f64::NAN
        };
        quantiles.iter().map(value_at).collect()
    }
}

fn add(sums: &mut Vec<u64>, slot: usize, count: u64) {
    if count == 0 {
        return;
    }
    if sums.len() <= slot {
        sums.resize(slot + 1, 0);
    }
    sums[slot] = sums[slot].wrapping_add(count);
}

/// Lower bound and width of a slot.
fn range(slot: u16) -> (f64, f64) {
    let slot = usize::from(slot);
    if slot == 0 {
        return (0.0, 0.0);
    }
    if slot < SMALL {
        return (slot as f64, 0.1);
    }
    let (decade, mantissa) = ((slot - SMALL) / MANTISSAS, (slot - SMALL) % MANTISSAS + 10);
    let unit = 10_u64.pow(decade as u32);
    ((mantissa as u64 * unit) as f64, unit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(values: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        for value in values {
            histogram.record(*value);
        }
        Distribution::of([&histogram].into_iter())
    }

    fn quantiles(values: &[u64]) -> Vec<String> {
        distribution(values).quantiles(&QUANTILES).iter().map(f64::to_string).collect()
    }

    #[test]
    fn a_single_sample_reads_as_in_envoy() {
        for (value, expected) in [(0, "0"), (1, "1.05"), (2, "2.05"), (16, "16.5"), (67, "67.5"), (305, "305")] {
            assert!(quantiles(&[value]).iter().all(|quantile| quantile == expected), "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_that_envoy_printed_for_the_same_samples() {
        assert_eq!(
            quantiles(&[1; 10]),
            [
                "1.009090909090909",
                "1.0272727272727273",
                "1.0454545454545454",
                "1.0727272727272728",
                "1.0818181818181818",
                "1.0909090909090908",
                "1.0909090909090908",
                "1.0909090909090908",
                "1.0909090909090908",
                "1.0909090909090908",
            ]
        );
        assert_eq!(quantiles(&[0, 0, 1, 2, 2, 4])[..6], ["0", "0", "1.05", "2.066666666666667", "4.05", "4.05"]);
        assert_eq!(
            quantiles(&[0, 0, 0, 0, 1, 1, 2, 44, 63, 290]),
            ["0", "0", "1.0333333333333334", "44.5", "63.5", "295", "295", "295", "295", "295"]
        );
    }

    #[test]
    fn the_sum_is_envoys_estimate() {
        assert_eq!(distribution(&[1; 10]).sum(), 10.476190476190476);
        assert_eq!(distribution(&[16]).sum(), 16.484848484848484);
        assert_eq!(distribution(&[305]).sum(), 304.91803278688525);
        assert_eq!(distribution(&[1, 44, 63]).sum(), 109.038_064_062_216_95);
        assert_eq!(distribution(&[0]).sum(), 0.0);
    }

    #[test]
    fn a_bound_takes_the_bucket_in_which_it_lies() {
        let distribution = distribution(&[0, 1, 5, 6, 49, 50, 51, 99_999]);
        let up_to = |bound| distribution.count_up_to(bound);
        assert_eq!([0.5, 1.0, 5.0, 50.0, 100.0].map(up_to), [1, 2, 3, 6, 7]);
        assert_eq!(up_to(BOUNDS[18]), 8);
    }

    #[test]
    fn every_value_lies_in_its_bucket_and_huge_ones_in_the_last() {
        for value in (0..3000).chain([9_999, 10_000, 123_456, 99_999_999_999]) {
            let bucket = distribution(&[value]).buckets().next().unwrap();
            let value = value as f64;
            assert!(bucket.lower <= value && value < bucket.lower + bucket.width.max(0.1), "{value} in {bucket:?}");
        }
        assert_eq!(distribution(&[u64::MAX]), distribution(&[99_999_999_999]));
    }

    #[test]
    fn threads_add_up_and_moments_subtract() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.record(7);
        one.record_ms(Duration::from_micros(120_999));
        let before = Distribution::of([&one, &other].into_iter());
        other.record(7);
        other.record(3000);
        let after = Distribution::of([&one, &other].into_iter());
        assert_eq!(before, distribution(&[7, 120]));
        assert_eq!(after.since(&before), distribution(&[7, 3000]));
        assert_eq!(after.count(), 4);
        assert!(after.since(&after).is_empty());
    }
}
