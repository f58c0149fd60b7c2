//! When should the files be looked at again? After an event of the file system, and every now and then without one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, channel};

/// Events end for this long before the files are looked at: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(10);
/// Steady events do not put the look off for longer than this.
const LONGEST: Duration = Duration::from_millis(250);
/// Without events (network file systems, swapped links) the files are looked at this often.
const POLL: Duration = Duration::from_secs(2);

/// Watches files and folders.
#[derive(Debug)]
pub struct Watch {
    events: Receiver<()>,
    // Dropped, it stops sending.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches the paths; where the system cannot tell of changes, only the regular look remains.
    #[must_use]
    pub fn new(paths: &[PathBuf]) -> Self {
        // One waiting event says as much as many.
        let (sender, events) = channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel tells of a change already.
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            for path in paths {
                // A file may be replaced by another of its name, which only its folder sees.
                let folder = if path.is_dir() { path.as_path() } else { parent(path) };
                let mode = if path.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
                watcher.watch(folder, mode)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::debug!(%error, "no file events; the files are looked at every {POLL:?}");
        }
        Self { events, _watcher: watcher.ok() }
    }

    /// Waits until the files should be looked at.
    pub async fn next(&mut self) {
        match tokio::time::timeout(POLL, self.events.recv()).await {
            // Without a watcher the channel is closed: only the regular look remains.
            Ok(None) => tokio::time::sleep(POLL).await,
            Err(_) => {}
            Ok(Some(())) => {
                let longest = tokio::time::Instant::now() + LONGEST;
                while tokio::time::Instant::now() < longest
                    && tokio::time::timeout(QUIET, self.events.recv()).await.is_ok_and(|event| event.is_some())
                {
                }
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
