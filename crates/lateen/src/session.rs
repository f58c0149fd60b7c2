//! Control plane and data plane in one process: files in, traffic through, events out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lateen_compile::{HiddenListener, LocalScope};
use lateen_config::{Diagnostic, SourceFile};
use lateen_control::{Changes, Controller, Files, Settings, Watch};
use lateen_proxy::{Applied, Current, Options, Proxy};

/// What a session serves, and how.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    /// Files and folders.
    pub(crate) paths: Vec<PathBuf>,
    /// Namespace of objects that name none.
    pub(crate) namespace: String,
    /// The proxies of this process.
    pub(crate) scope: LocalScope,
    /// Access log file that overrides the mesh configuration's; `Some(None)` turns it off.
    pub(crate) access_log: Option<Option<String>>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// Address of the admin interface.
    pub(crate) admin: Option<SocketAddr>,
}

/// A configuration that took effect.
#[derive(Debug)]
pub(crate) struct Effect {
    /// Problems of files and objects.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What became of the objects.
    pub(crate) changes: Changes,
    /// Objects in force.
    pub(crate) objects: usize,
    /// Files read.
    pub(crate) files: usize,
    /// Listeners of the mesh that a gateway's listener took the place of.
    pub(crate) hidden: Vec<HiddenListener>,
    /// What the data plane made of it.
    pub(crate) applied: Applied,
    /// From noticing the change to serving by it.
    pub(crate) took: Duration,
}

/// A running session.
pub(crate) struct Session {
    controller: Controller,
    watch: Watch,
    proxy: Proxy,
    listeners: BTreeMap<Arc<str>, SocketAddr>,
    listeners_changed: bool,
}

impl Session {
    /// Starts the data plane and serves what the files say now.
    ///
    /// # Errors
    /// Files that cannot be read, or an admin address that cannot be bound. Problems inside the files are no error:
    /// they are in the effect.
    pub(crate) async fn start(options: SessionOptions) -> anyhow::Result<(Self, Effect)> {
        let settings = Settings {
            namespace: options.namespace.as_str().into(),
            scope: options.scope,
            access_log: options.access_log,
            default_access_log: Some("/dev/stdout".to_owned()),
        };
        // Watching begins before the first look, so that nothing is missed between the two.
        let watch = Watch::new(&options.paths);
        let mut controller = Controller::new(Files::new(options.paths), settings);
        let update = controller.look()?;
        let proxy_options = Options { workers: options.workers, admin: options.admin };
        let proxy = Proxy::start(&proxy_options).with_context(|| match options.admin {
            Some(admin) => {
                format!(
                    "cannot start the proxy with its admin interface on {admin}; choose another address with --admin"
                )
            }
            None => "cannot start the proxy".to_owned(),
        })?;
        let mut session = Self { controller, watch, proxy, listeners: BTreeMap::new(), listeners_changed: false };
        let effect = match update {
            Some(update) => session.apply(update).await,
            None => Effect {
                diagnostics: Vec::new(),
                changes: Changes::default(),
                objects: 0,
                files: 0,
                hidden: Vec::new(),
                applied: Applied::default(),
                took: Duration::ZERO,
            },
        };
        Ok((session, effect))
    }

    /// Waits for the next change of the files that took effect, or for files that cannot be read.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Effect> {
        loop {
            self.watch.next().await;
            if let Some(update) = self.controller.look()? {
                return Ok(self.apply(update).await);
            }
        }
    }

    /// The text of a file, for showing a problem in its place.
    pub(crate) fn file(&self, path: &str) -> Option<Arc<SourceFile>> {
        self.controller.file(path)
    }

    /// Whether the last change moved, added or removed listeners.
    pub(crate) fn listeners_changed(&self) -> bool {
        self.listeners_changed
    }

    /// What the data plane runs.
    pub(crate) fn current(&self) -> Current {
        self.proxy.status().current()
    }

    /// Bound address of the admin interface.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.proxy.admin_address()
    }

    /// Waits until somebody stops the program through the admin interface.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.proxy.stopped()
    }

    /// Ends: running requests may finish within the limit.
    pub(crate) async fn shutdown(self, limit: Duration) {
        self.proxy.shutdown(limit).await;
    }

    async fn apply(&mut self, update: lateen_control::Update) -> Effect {
        let noticed: Instant = update.noticed;
        let applied = self.proxy.apply(update.set).await;
        self.listeners_changed = self.listeners != applied.listeners;
        self.listeners.clone_from(&applied.listeners);
        Effect {
            diagnostics: update.diagnostics,
            changes: update.changes,
            objects: update.objects,
            files: update.files,
            hidden: update.hidden,
            applied,
            took: noticed.elapsed(),
        }
    }
}
