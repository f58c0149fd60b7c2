//! How does a process know that its work is done? Work in progress owns a guard; draining is waiting until nobody does.
//!
//! There is no count to keep right and nothing to forget: a guard that is dropped, even by a panic or a cancelled task,
//! is work that ended.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

/// Makes the two ends of a drain.
#[must_use]
pub fn channel() -> (Drain, Work) {
    let (begin, begun) = watch::channel(None);
    let (alive, ended) = mpsc::channel(1);
    (Drain { begin, ended }, Work { begun, _alive: alive })
}

/// The end that begins to drain and waits.
#[derive(Debug)]
pub struct Drain {
    begin: watch::Sender<Option<Instant>>,
    /// Closed when the last guard is gone; nothing is ever sent.
    ended: mpsc::Receiver<std::convert::Infallible>,
}

/// Work in progress: the drain does not end before each clone is dropped.
#[derive(Clone, Debug)]
pub struct Work {
    begun: watch::Receiver<Option<Instant>>,
    _alive: mpsc::Sender<std::convert::Infallible>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All work came to its end.
    Completely,
    /// The limit passed first.
    TimedOut,
}

impl Drain {
    /// Tells everybody to come to an end, and waits until all have or the limit has passed.
    pub async fn drain(mut self, limit: Duration) -> Drained {
        let deadline = Instant::now() + limit;
        self.begin.send_replace(Some(deadline));
        match tokio::time::timeout_at(deadline.into(), self.ended.recv()).await {
            Ok(_) => Drained::Completely,
            Err(_) => Drained::TimedOut,
        }
    }
}

impl Work {
    /// Waits until draining begins; returns the moment at which work must have ended.
    pub async fn draining(&mut self) -> Instant {
        match self.begun.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            // Nobody waits any more: there is no time left.
            Err(_) => Instant::now(),
        }
    }

    /// The moment at which work must have ended, if draining has begun.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        *self.begun.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_drain_without_work_ends_at_once() {
        block_on(async {
            let (drain, work) = channel();
            drop(work);
            assert_eq!(drain.drain(Duration::from_secs(60)).await, Drained::Completely);
        });
    }

    #[test]
    fn work_is_told_to_end_and_awaited() {
        block_on(async {
            let (drain, work) = channel();
            let mut tasks = Vec::new();
            for _ in 0..3 {
                let mut work = work.clone();
                assert_eq!(work.deadline(), None);
                tasks.push(tokio::spawn(async move {
                    let deadline = work.draining().await;
                    assert_eq!(work.deadline(), Some(deadline));
                    assert!(deadline > Instant::now());
                }));
            }
            drop(work);
            assert_eq!(drain.drain(Duration::from_secs(60)).await, Drained::Completely);
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn work_that_does_not_end_is_given_up() {
        block_on(async {
            let (drain, work) = channel();
            assert_eq!(drain.drain(Duration::from_millis(10)).await, Drained::TimedOut);
            let mut work = work;
            assert!(work.draining().await <= Instant::now());
        });
    }

    #[test]
    fn work_whose_drain_was_dropped_has_no_time_left() {
        block_on(async {
            let (drain, mut work) = channel();
            drop(drain);
            assert!(work.draining().await <= Instant::now());
        });
    }
}
