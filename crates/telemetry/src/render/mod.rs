//! How are statistics written down? In the three forms of Envoy's admin interface, byte for byte.

mod json;
mod number;
mod prometheus;
mod text;

pub use json::json;
pub use prometheus::{Buckets, prometheus};
pub use text::text;

use crate::histogram::BOUNDS;
use crate::sample::{Reading, Sample, Value};

/// How histograms are shown as text and JSON; Envoy's parameter `histogram_buckets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistogramForm {
    /// Ten quantiles.
    #[default]
    Summary,
    /// The count up to each bound.
    Cumulative,
    /// The count between neighbouring bounds.
    Disjoint,
    /// Every bucket, and the quantiles.
    Detailed,
}

/// Sorts samples as the text and JSON forms show them: words, then numbers, then histograms, each by name.
pub fn sort(samples: &mut [Sample]) {
    let phase = |sample: &Sample| match sample.value {
        Value::Text(_) => 0,
        Value::Counter(_) | Value::Gauge(_) => 1,
        Value::Histogram(_) => 2,
    };
    samples.sort_by(|one, other| phase(one).cmp(&phase(other)).then_with(|| one.compare_names(other)));
}

/// Bound, count of the interval and count since the start.
fn bounds(reading: &Reading, disjoint: bool) -> impl Iterator<Item = (f64, u64, u64)> + '_ {
    let mut below = (0, 0);
    BOUNDS.into_iter().map(move |bound| {
        let up_to = (reading.interval.count_up_to(bound), reading.cumulative.count_up_to(bound));
        let shown = if disjoint { (up_to.0 - below.0, up_to.1 - below.1) } else { up_to };
        below = up_to;
        (bound, shown.0, shown.1)
    })
}

/// Writes into a string, which cannot fail.
macro_rules! push {
    ($out:expr, $($argument:tt)*) => {{
        use std::fmt::Write as _;
        // Writing to a `String` is infallible.
        let _ = write!($out, $($argument)*);
    }};
}
pub(crate) use push;
