//! How often was each status answered? By class, and by exact code from its first occurrence on.

use std::sync::OnceLock;

use lateen_telemetry::Counter;

/// Counters of status codes: `completed`, `1xx` to `5xx`, and `100` to `599`.
#[derive(Debug, Default)]
pub struct CodeCounters {
    completed: Counter,
    classes: [Counter; 5],
    exact: [OnceLock<Box<Hundred>>; 5],
}

#[derive(Debug)]
struct Hundred([Counter; 100]);

impl Default for Hundred {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl CodeCounters {
    /// Counts an answer; a code outside 100 to 599 only as completed.
    #[inline]
    pub fn count(&self, status: u16) {
        self.completed.inc();
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
            self.exact[class].get_or_init(Box::default).0[usize::from(status % 100)].inc();
        }
    }

    /// Count of all answers.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.get()
    }
}

/// Counters of status classes alone: `completed` and `1xx` to `5xx`.
#[derive(Debug, Default)]
pub struct ClassCounters {
    completed: Counter,
    classes: [Counter; 5],
}

impl ClassCounters {
    /// Counts an answer; a code outside 100 to 599 only as completed.
    #[inline]
    pub fn count(&self, status: u16) {
        self.completed.inc();
        if let Some(counter) = self.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.inc();
        }
    }

    /// Count of all answers.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.get()
    }

    /// Count of the answers of each class, `1xx` first.
    #[must_use]
    pub fn classes(&self) -> [u64; 5] {
        self.classes.each_ref().map(Counter::get)
    }
}

/// The sums of code counters over workers.
#[derive(Debug, Default)]
pub(crate) struct CodeSums {
    pub(crate) completed: u64,
    /// Class digit and count, as far as it occurred.
    pub(crate) classes: Vec<(u16, u64)>,
    /// Code and count, as far as it occurred.
    pub(crate) exact: Vec<(u16, u64)>,
}

impl CodeSums {
    pub(crate) fn of<'a>(workers: impl Iterator<Item = &'a CodeCounters>) -> Self {
        let mut completed = 0;
        let mut classes = [0_u64; 5];
        let mut exact = std::collections::BTreeMap::<u16, u64>::new();
        for codes in workers {
            completed += codes.completed.get();
            for (class, sum) in classes.iter_mut().enumerate() {
                *sum += codes.classes[class].get();
                for (rest, counter) in codes.exact[class].get().iter().flat_map(|hundred| hundred.0.iter()).enumerate()
                {
                    if counter.get() > 0 {
                        *exact.entry((class as u16 + 1) * 100 + rest as u16).or_default() += counter.get();
                    }
                }
            }
        }
        let classes = classes.into_iter().zip(1..).filter(|(count, _)| *count > 0);
        Self {
            completed,
            classes: classes.map(|(count, class)| (class, count)).collect(),
            exact: exact.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_by_class_and_exactly_and_odd_ones_only_as_completed() {
        let (one, other) = (CodeCounters::default(), CodeCounters::default());
        for status in [200, 204, 503, 599, 100, 0, 99, 600, u16::MAX] {
            one.count(status);
        }
        other.count(200);
        let sums = CodeSums::of([&one, &other].into_iter());
        assert_eq!(sums.completed, 10);
        assert_eq!(sums.classes, [(1, 1), (2, 3), (5, 2)]);
        assert_eq!(sums.exact, [(100, 1), (200, 2), (204, 1), (503, 1), (599, 1)]);
    }

    #[test]
    fn classes_alone_ignore_odd_codes_too() {
        let classes = ClassCounters::default();
        for status in [404, 499, 700, 3] {
            classes.count(status);
        }
        assert_eq!((classes.completed(), classes.classes()), (4, [0, 0, 0, 2, 0]));
    }
}
