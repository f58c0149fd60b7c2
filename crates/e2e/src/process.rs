//! How is a proxy process started, found, and ended?
//!
//! Both proxies bind port 0 everywhere, tell the address of their admin endpoint, and list their listeners there in
//! Envoy's text form. A process ends with the value that stands for it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::book::Role;
use crate::client;

/// How long a proxy may take from its start to its first request, under load of parallel pages.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition that no event announces.
const POLL: Duration = Duration::from_millis(10);

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// `lateen` or `envoy`.
    pub name: &'static str,
    /// Address of the admin endpoint.
    pub admin: SocketAddr,
    /// Address of each listener by its name, for example `0.0.0.0_80`.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Where the access log is written.
    pub access_log: PathBuf,
    printed: PathBuf,
    child: Child,
}

/// What a proxy process needs.
#[derive(Debug)]
pub struct Launch<'a> {
    /// `lateen` or `envoy`.
    pub name: &'static str,
    /// The command with all its arguments.
    pub command: Command,
    /// Folder for its files.
    pub folder: &'a Path,
    /// How it tells the address of its admin endpoint.
    pub admin: AdminAddress,
    /// Where it writes the access log.
    pub access_log: PathBuf,
}

/// How a proxy tells the address of its admin endpoint.
#[derive(Debug)]
pub enum AdminAddress {
    /// In a file of its own.
    File(PathBuf),
    /// In a printed line `admin http://ADDRESS`.
    Printed,
}

impl AdminAddress {
    fn find(&self, printed: &Path) -> Option<SocketAddr> {
        match self {
            Self::File(path) => std::fs::read_to_string(path).ok()?.trim().parse().ok(),
            Self::Printed => {
                let text = std::fs::read_to_string(printed).ok()?;
                let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                lines.find_map(|line| line.trim().strip_prefix("admin")?.trim().strip_prefix("http://")?.parse().ok())
            }
        }
    }
}

impl Proxy {
    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When the process cannot start, ends early or does not become ready; the message holds what it printed.
    pub async fn start(launch: Launch<'_>) -> Result<Self> {
        let Launch { name, mut command, folder, admin, access_log } = launch;
        let printed = folder.join(format!("{name}.out"));
        let output = File::create(&printed).with_context(|| format!("cannot create {}", printed.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut proxy = Self { name, admin: nowhere, listeners: Vec::new(), access_log, printed, child };
        let start = Instant::now();
        loop {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", proxy.printed());
            }
            if let Some(address) = admin.find(&proxy.printed)
                && let Some(listeners) = ready(address).await
            {
                proxy.admin = address;
                proxy.listeners = listeners;
                return Ok(proxy);
            }
            if start.elapsed() > START_PATIENCE {
                bail!("{name} was not ready after {} s:\n{}", START_PATIENCE.as_secs(), proxy.printed());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The address of the listener for a port of the YAML. A listener's name tells role and configured port, whatever
    /// it is bound to.
    ///
    /// # Errors
    /// When there is none; the message lists what is there.
    pub fn listener(&self, role: Role, port: u16) -> Result<SocketAddr> {
        let wanted = match role {
            Role::Gateway => format!("0.0.0.0_{port}"),
            Role::Sidecar => format!("127.0.0.1_{port}"),
        };
        let found = self.listeners.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, address)| *address).with_context(|| {
            let names: Vec<&str> = self.listeners.iter().map(|(name, _)| name.as_str()).collect();
            format!("{} has no listener {wanted}, only {}", self.name, names.join(", "))
        })
    }

    /// All that the process printed so far, on both streams.
    pub fn printed(&self) -> String {
        std::fs::read(&self.printed).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The lines of the access log, once there are at least `count` of them or `patience` is over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn access_lines(&self, count: usize, patience: Duration) -> Result<Vec<String>> {
        let start = Instant::now();
        loop {
            let text = match std::fs::read(&self.access_log) {
                Ok(bytes) => crate::wire::latin1(&bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => {
                    return Err(error).with_context(|| self.access_log.display().to_string());
                }
            };
            // An unfinished last line is still being written.
            let lines: Vec<String> =
                text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect();
            if lines.len() >= count || start.elapsed() > patience {
                return Ok(lines);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When it does not; the message holds its exit status.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status} while the page was played", self.name),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Nothing can be done here about a process that is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The listeners, once the admin endpoint says that the proxy is ready and has some.
async fn ready(address: SocketAddr) -> Option<Vec<(String, SocketAddr)>> {
    let (status, _) = client::get(address, "/ready").await.ok()?;
    if status != 200 {
        return None;
    }
    let (_, text) = client::get(address, "/listeners").await.ok()?;
    let listeners = parse_listeners(&text);
    (!listeners.is_empty()).then_some(listeners)
}

/// Envoy's text form: `name::address:port` a line.
fn parse_listeners(text: &str) -> Vec<(String, SocketAddr)> {
    let parse = |line: &str| {
        let (name, address) = line.trim().split_once("::")?;
        Some((name.to_owned(), address.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_admin_address_is_found_once_its_line_is_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "lateen 0.1\n  gateway  http://127.0.0.1:1\n  admin    http://127.0.0.1:2")
            .unwrap();
        assert_eq!(AdminAddress::Printed.find(file.path()), None);
        std::fs::write(file.path(), "  admin    http://127.0.0.1:2\nmore\n").unwrap();
        assert_eq!(AdminAddress::Printed.find(file.path()), Some("127.0.0.1:2".parse().unwrap()));
    }

    #[test]
    fn listeners_are_read_from_the_text_form() {
        let listeners = parse_listeners("0.0.0.0_80::127.0.0.1:4000\nx::127.0.0.1:4001\n");
        assert_eq!(listeners[0], ("0.0.0.0_80".to_owned(), "127.0.0.1:4000".parse().unwrap()));
        assert_eq!(listeners.len(), 2);
    }
}
