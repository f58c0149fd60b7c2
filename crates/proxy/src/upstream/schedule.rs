//! Who is next, when each is to come up in proportion to its weight? Earliest deadline first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule: one of weight w comes up every 1/w units of virtual time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    now: f64,
    entries: u64,
    queue: BinaryHeap<Entry>,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Order of insertion, which breaks ties.
    order: u64,
    index: u32,
}

impl Schedule {
    /// Adds somebody; the weight is greater than 0.
    pub(super) fn insert(&mut self, index: u32, weight: f64) {
        self.entries += 1;
        self.queue.push(Entry { deadline: self.now + 1.0 / weight, order: self.entries, index });
    }

    /// Whoever is next; it comes up again according to what it weighs now.
    pub(super) fn next(&mut self, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        self.insert(entry.index, weight(entry.index));
        Some(entry.index)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed, because the heap pops its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_up_in_proportion_to_its_weight() {
        let weights = [1.0, 3.0, 2.0];
        let mut schedule = Schedule::default();
        for (index, weight) in (0..).zip(weights) {
            schedule.insert(index, weight);
        }
        let mut counts = [0; 3];
        for _ in 0..60 {
            counts[schedule.next(|index| weights[index as usize]).unwrap() as usize] += 1;
        }
        assert_eq!(counts, [10, 30, 20]);
        assert_eq!(Schedule::default().next(|_| 1.0), None);
    }

    #[test]
    fn equal_weights_come_up_in_the_order_in_which_they_were_added() {
        let mut schedule = Schedule::default();
        for index in 0..3 {
            schedule.insert(index, 5.0);
        }
        let order: Vec<_> = (0..6).filter_map(|_| schedule.next(|_| 5.0)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }
}
