//! How is the `lateen` binary told to run a page, and to compile it for Envoy?
//!
//! The command lines of the books stand here and nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::book::Role;
use crate::process::{AdminAddress, Launch, Proxy};

/// The configured port of the listener that serves as HTTP proxy into the mesh.
const HTTP_PROXY_PORT: &str = "15080";

/// The `lateen` binary: `LATEEN_BIN`, or else built once for this test run from the same workspace.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("LATEEN_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build().map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(|error| anyhow!("{error}"))
}

/// Runs a page's YAML on Lateen's own proxy, which is gateway and sidecar at once.
///
/// # Errors
/// When the proxy does not become ready.
pub async fn start(yaml: &Path, access_log: &Path, folder: &Path) -> Result<Proxy> {
    let mut command = Command::new(binary()?);
    command.args(["run", "-f"]).arg(yaml);
    command.args(["--bind", "127.0.0.1:0", "--workers", "1", "--http-proxy-port", HTTP_PROXY_PORT]);
    command.args(["--admin", "127.0.0.1:0"]);
    command.arg("--access-log").arg(access_log);
    Proxy::start(Launch {
        name: "lateen",
        command,
        folder,
        admin: AdminAddress::Printed,
        access_log: access_log.to_owned(),
    })
    .await
}

/// Compiles a page's YAML into the static bootstrap that real Envoy runs; returns its path.
///
/// # Errors
/// When compiling fails; the message holds what was printed.
pub fn compile_bootstrap(role: Role, yaml: &Path, access_log: &Path, folder: &Path) -> Result<PathBuf> {
    let mut command = Command::new(binary()?);
    command.args(["compile", "-f"]).arg(yaml);
    command.args(["--as", role_name(role), "-o", "envoy-bootstrap"]);
    command.args(["--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--http-proxy-port", HTTP_PROXY_PORT]);
    command.arg("--access-log").arg(access_log);
    let output = command.output().context("cannot run `lateen compile`")?;
    if !output.status.success() {
        bail!("`lateen compile` ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let path = folder.join("envoy-bootstrap.json");
    std::fs::write(&path, &output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Sidecar => "sidecar",
    }
}

/// Builds the binary with the cargo that runs the tests, and asks cargo where it went.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "lateen", "--bin", "lateen", "--message-format", "json"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the lateen binary does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.context("cargo did not say where the lateen binary is")
}
