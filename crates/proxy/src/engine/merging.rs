//! When do the workers hear that the health of hosts changed?
//!
//! Envoy's rule (`update_merge_window`): at once, unless the last change was told so recently that this one waits until
//! the window is over, together with all that follow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was told of each cluster.
#[derive(Debug, Default)]
pub(super) struct Merging {
    clusters: HashMap<Arc<str>, Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    last: Instant,
    scheduled: bool,
}

/// When a change is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At once.
    Now,
    /// After this time, unless it is told before.
    After(Duration),
    /// Together with one that is scheduled already.
    Merged,
}

impl Merging {
    /// A change happened.
    pub(super) fn changed(&mut self, cluster: &Arc<str>, window: Duration, now: Instant) -> When {
        let told = self.clusters.get_mut(cluster);
        match told {
            Some(told) if told.scheduled => When::Merged,
            Some(told) if now.saturating_duration_since(told.last) < window => {
                told.scheduled = true;
                When::After(window - now.saturating_duration_since(told.last))
            }
            _ => {
                self.clusters.insert(cluster.clone(), Told { last: now, scheduled: false });
                When::Now
            }
        }
    }

    /// The scheduled time came.
    pub(super) fn told(&mut self, cluster: &Arc<str>, now: Instant) {
        self.clusters.insert(cluster.clone(), Told { last: now, scheduled: false });
    }

    /// Forgets clusters that are gone.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.clusters.retain(|name, _| exists(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_told_at_once_and_those_that_follow_together() {
        let mut merging = Merging::default();
        let (name, window): (Arc<str>, _) = ("c".into(), Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(merging.changed(&name, window, at(0)), When::Now);
        assert_eq!(merging.changed(&name, window, at(300)), When::After(Duration::from_millis(700)));
        assert_eq!(merging.changed(&name, window, at(400)), When::Merged);
        merging.told(&name, at(1000));
        assert_eq!(merging.changed(&name, window, at(1500)), When::After(Duration::from_millis(500)));
        merging.told(&name, at(2000));
        assert_eq!(merging.changed(&name, window, at(3000)), When::Now);
        assert_eq!(merging.changed(&"d".into(), window, at(3000)), When::Now);
    }

    #[test]
    fn without_a_window_every_change_is_told_at_once() {
        let mut merging = Merging::default();
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(merging.changed(&"c".into(), Duration::ZERO, now), When::Now);
        }
        merging.retain(|_| false);
        assert_eq!(merging.changed(&"c".into(), Duration::from_secs(1), now), When::Now);
    }
}
