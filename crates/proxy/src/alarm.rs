//! One timer for a connection, whatever deadlines it has: set early, looked at late.
//!
//! Deadlines change with every request and almost never pass. So the timer of the runtime is moved only when a
//! deadline lies before the moment it is set for; when it rings too early it is set anew. A connection with a route
//! timeout of 10 s costs one timer operation in 10 s, not one per request.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// The timer.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    set_for: Option<Instant>,
}

impl Alarm {
    /// Ready when the deadline has passed. Without a deadline it never is.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if self.set_for.is_none_or(|set_for| deadline < set_for) {
            sleep.as_mut().reset(deadline.into());
            self.set_for = Some(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    self.set_for = None;
                    if Instant::now() >= deadline {
                        return Poll::Ready(());
                    }
                    sleep.as_mut().reset(deadline.into());
                    self.set_for = Some(deadline);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Alarm;

    #[tokio::test]
    async fn a_later_deadline_after_an_earlier_setting_still_rings_only_when_it_passed() {
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        let early = begun + Duration::from_millis(5);
        let late = begun + Duration::from_millis(30);
        // Sets the timer for the early moment, then asks for the late one.
        std::future::poll_fn(|cx| {
            let _ = alarm.poll(Some(early), cx);
            std::task::Poll::Ready(())
        })
        .await;
        std::future::poll_fn(|cx| alarm.poll(Some(late), cx)).await;
        assert!(Instant::now() >= late);
    }
}
