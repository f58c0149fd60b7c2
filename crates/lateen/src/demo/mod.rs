//! The demo: placeholder until its author adds it.

use std::path::PathBuf;
use std::time::Duration;

/// How to run the demo.
#[derive(Debug)]
pub(crate) struct DemoOptions {
    /// Folder for the YAML.
    pub(crate) folder: PathBuf,
    /// Port of the gateway.
    pub(crate) port: u16,
    /// End by itself after this time.
    pub(crate) duration: Option<Duration>,
    /// Lines instead of the live view.
    pub(crate) plain: bool,
}

/// Runs the demo.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<()> {
    anyhow::bail!("the demo is not there yet ({options:?})")
}
