//! When does a request end, whatever happens?

use std::time::{Duration, Instant};

/// The times of one request.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The route timeout as a span.
    pub(super) timeout: Option<Duration>,
    /// Route timeout; runs from the end of the request.
    pub(super) route: Option<Instant>,
    /// Per-try timeout.
    pub(super) attempt: Option<Instant>,
    /// Stream idle timeout and the moment from which it counts.
    pub(super) idle: Option<(Duration, Instant)>,
}

impl Deadlines {
    /// The moment that comes first.
    pub(super) fn next(&self) -> Option<Instant> {
        let idle = self.idle.map(|(timeout, since)| since + timeout);
        [self.route, self.attempt, idle].into_iter().flatten().min()
    }

    /// Something moved: the idle time begins anew.
    pub(super) fn touch(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.idle {
            *since = now;
        }
    }
}
