//! How does real Envoy run a static bootstrap? And where is its binary?

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{AdminAddress, Launch, Proxy};

/// The environment variable that makes a missing Envoy a failure.
pub const REQUIRE: &str = "LATEEN_REQUIRE_ENVOY";

/// The Envoy binary that `scripts/install-envoy` installed, if any. Installs it when [`REQUIRE`] is set.
///
/// # Errors
/// When [`REQUIRE`] is set and there is still none.
pub fn binary() -> Result<Option<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-envoy");
    let required = std::env::var_os(REQUIRE).is_some_and(|value| value != "0" && !value.is_empty());
    let mut command = Command::new(&script);
    if !required {
        command.arg("--if-present");
    }
    let output = command.output().with_context(|| format!("cannot run {}", script.display()))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !path.is_empty() {
        return Ok(Some(PathBuf::from(path)));
    }
    if required {
        anyhow::bail!("{REQUIRE} is set, but there is no Envoy: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(None)
}

/// Starts Envoy with a static bootstrap whose listeners and admin endpoint bind port 0 and whose access log goes to
/// `access_log`.
///
/// # Errors
/// When Envoy does not become ready, for instance because it rejects the bootstrap.
pub async fn start(binary: &Path, bootstrap: &Path, access_log: &Path, folder: &Path) -> Result<Proxy> {
    let admin_file = folder.join("envoy.admin");
    let mut command = Command::new(binary);
    command
        .arg("--config-path")
        .arg(bootstrap)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .args(["--concurrency", "1"])
        .arg("--disable-hot-restart")
        .args(["--log-level", "warning"])
        // Lines reach the file soon; the default is ten seconds.
        .args(["--file-flush-interval-msec", "20"])
        .args(["--service-node", "books", "--service-cluster", "books"]);
    Proxy::start(Launch {
        name: "envoy",
        command,
        folder,
        admin: AdminAddress::File(admin_file),
        access_log: access_log.to_owned(),
    })
    .await
}
