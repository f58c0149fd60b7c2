//! `lateen demo`: see it work.

use std::process::ExitCode;

use crate::arguments::DemoArguments;
use crate::demo::{self, DemoOptions};

/// Runs the demo to its end.
pub(crate) fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = DemoOptions {
        folder: arguments.folder,
        port: arguments.port,
        duration: arguments.duration,
        plain: arguments.plain,
    };
    runtime.block_on(demo::run(options))?;
    Ok(ExitCode::SUCCESS)
}
