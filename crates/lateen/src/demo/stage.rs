//! On which thread do bookstore and callers live? On one of their own, which ends in order: callers first.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::LocalSet;

use super::app::{self, Mesh, Sockets};
use super::traffic::{self, SharedTally};

/// The running thread.
#[derive(Debug)]
pub(crate) struct Stage {
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Stage {
    /// Serves the bookstore and asks the gateway for its pages.
    ///
    /// # Errors
    /// No thread or runtime can be made.
    pub(crate) fn start(
        sockets: Sockets,
        mesh: Mesh,
        gateway: SocketAddr,
        began: Instant,
        tally: SharedTally,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("bookstore".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                app::serve(sockets, mesh)?;
                traffic::generate(gateway, began, tally, stopped).await;
                Ok(())
            })
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the traffic, then the bookstore. Requests on their way get their answers first.
    ///
    /// # Errors
    /// The bookstore had not been able to start, or it came to grief.
    pub(crate) async fn shutdown(self) -> io::Result<()> {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        joined.unwrap_or_else(|_| Err(io::Error::other("the bookstore's thread panicked")))
    }
}
