//! When does a request end, whatever happens?

use std::time::{Duration, Instant};

use super::router::timeouts::Timeouts;

/// The times of one request.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// The router's timeouts as spans.
    pub(crate) timeouts: Timeouts,
    /// Route timeout; runs from the end of the request, as the router sees it.
    pub(crate) route: Option<Instant>,
    /// Per-try timeout.
    pub(crate) attempt: Option<Instant>,
    /// Idle timeout of a try and the moment from which it counts.
    pub(crate) attempt_idle: Option<(Duration, Instant)>,
    /// Stream idle timeout and the moment from which it counts.
    pub(crate) idle: Option<(Duration, Instant)>,
    /// The whole request has to be here by then.
    pub(crate) request: Option<Instant>,
    /// The stream has to be over by then.
    pub(crate) stream: Option<Instant>,
    /// The stream to the upstream has to be over by then.
    pub(crate) upstream_stream: Option<Instant>,
    /// When the router had the whole request.
    pub(crate) requested: Option<Instant>,
}

/// Which of the times is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The whole exchange by the route's timeout.
    Route,
    /// One try.
    Attempt,
    /// One try without a byte.
    AttemptIdle,
    /// The stream without a byte.
    Idle,
    /// The request did not come whole.
    Request,
    /// The stream as a whole.
    Stream,
    /// The stream to the upstream.
    UpstreamStream,
}

impl Deadlines {
    /// The moment that comes first.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.all().into_iter().filter_map(|(_, deadline)| deadline).min()
    }

    /// The time that was over first, if one is.
    pub(crate) fn late(&self, now: Instant) -> Option<Late> {
        let over =
            |(late, deadline): (Late, Option<Instant>)| Some((deadline.filter(|deadline| now >= *deadline)?, late));
        self.all().into_iter().filter_map(over).min_by_key(|(deadline, _)| *deadline).map(|(_, late)| late)
    }

    /// Something moved: the idle times begin anew.
    pub(crate) fn touch(&mut self, now: Instant) {
        for (_, since) in [&mut self.idle, &mut self.attempt_idle].into_iter().flatten() {
            *since = now;
        }
    }

    /// The router has the whole request: the route timeout begins.
    pub(crate) fn request_complete(&mut self, now: Instant) {
        self.requested = Some(now);
        self.request = None;
        self.route = self.timeouts.all.map(|timeout| now + timeout);
        self.begin_attempt(now);
    }

    /// A try begins; its times run once the router has the whole request.
    pub(crate) fn begin_attempt(&mut self, now: Instant) {
        let complete = self.requested.is_some();
        self.attempt = self.timeouts.per_try.filter(|_| complete).map(|timeout| now + timeout);
        self.attempt_idle = self.timeouts.per_try_idle.filter(|_| complete).map(|timeout| (timeout, now));
        if self.upstream_stream.is_none() || !complete {
            self.upstream_stream = self.timeouts.upstream_stream.map(|limit| now + limit);
        }
    }

    /// The try is over.
    pub(crate) fn end_attempt(&mut self) {
        (self.attempt, self.attempt_idle, self.upstream_stream) = (None, None, None);
    }

    fn all(&self) -> [(Late, Option<Instant>); 7] {
        let ends = |idle: Option<(Duration, Instant)>| idle.map(|(timeout, since)| since + timeout);
        [
            (Late::Route, self.route),
            (Late::Attempt, self.attempt),
            (Late::AttemptIdle, ends(self.attempt_idle)),
            (Late::Idle, ends(self.idle)),
            (Late::Request, self.request),
            (Late::Stream, self.stream),
            (Late::UpstreamStream, self.upstream_stream),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_over_first_counts() {
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let mut deadlines = Deadlines {
            timeouts: Timeouts { all: Some(Duration::from_millis(30)), ..Timeouts::default() },
            idle: Some((Duration::from_millis(20), now)),
            request: Some(after(10)),
            stream: Some(after(40)),
            ..Deadlines::default()
        };
        assert_eq!(deadlines.next(), Some(after(10)));
        assert_eq!(deadlines.late(after(9)), None);
        assert_eq!(deadlines.late(after(100)), Some(Late::Request));
        deadlines.request_complete(after(5));
        assert_eq!((deadlines.next(), deadlines.late(after(100))), (Some(after(20)), Some(Late::Idle)));
        deadlines.touch(after(16));
        assert_eq!(deadlines.late(after(100)), Some(Late::Route));
        assert_eq!(deadlines.late(after(35)), Some(Late::Route));
    }
}
