//! From files to what is in force: objects, their problems, and the compiled resources.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_compile::{LocalCompiler, LocalScope, Mesh, World};
use lateen_config::{Diagnostic, Object, ParseOptions, SourceFile};
use lateen_xds::XdsSet;

use crate::files::{Files, Stamps, Unreadable};
use crate::store::{Changes, Store, compare};

/// For whom and how files are compiled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of objects that name none.
    pub namespace: Arc<str>,
    /// The proxies of this process.
    pub scope: LocalScope,
    /// Access log file that overrides the mesh configuration's: `Some(None)` turns the log off.
    pub access_log: Option<Option<String>>,
    /// Access log file when neither the command line nor the mesh configuration names one.
    pub default_access_log: Option<String>,
}

/// A configuration that is ready to be taken into use.
#[derive(Clone, Debug)]
pub struct Update {
    /// The resources.
    pub set: XdsSet,
    /// Problems of the files and of the objects together, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// What became of the objects since the last update.
    pub changes: Changes,
    /// Objects in force.
    pub objects: usize,
    /// Files read.
    pub files: usize,
    /// Listeners of the mesh that a gateway's listener took the place of.
    pub hidden: Vec<lateen_compile::HiddenListener>,
    /// When the change was noticed.
    pub noticed: Instant,
    /// Time from then until everything was compiled.
    pub took: Duration,
}

/// Keeps the configuration of a set of files.
#[derive(Debug)]
pub struct Controller {
    files: Files,
    settings: Settings,
    store: Store,
    stamps: Stamps,
    objects: Vec<Arc<Object>>,
    world: World,
    compiler: LocalCompiler,
}

impl Controller {
    /// A controller that has read nothing yet.
    #[must_use]
    pub fn new(files: Files, settings: Settings) -> Self {
        Self {
            files,
            store: Store::default(),
            stamps: Stamps::default(),
            objects: Vec::new(),
            world: World::build(Vec::new(), Mesh::default()),
            compiler: LocalCompiler::new(settings.scope.clone()),
            settings,
        }
    }

    /// The named files and folders.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        self.files.paths()
    }

    /// The text of a file that was read, for showing a problem in its place.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<Arc<SourceFile>> {
        self.store.file(path)
    }

    /// Looks whether files changed and compiles if so; `None` when nothing did.
    ///
    /// # Errors
    /// A path that cannot be read; nothing changes then, and the next look tries again.
    pub fn look(&mut self) -> Result<Option<Update>, Unreadable> {
        let noticed = Instant::now();
        let stamps = self.files.stamps()?;
        if stamps == self.stamps {
            return Ok(None);
        }
        let mut read = Vec::new();
        for (path, stamp) in &stamps {
            if self.stamps.get(path) != Some(stamp) {
                read.push((path.clone(), Files::read(path)?));
            }
        }
        let options = ParseOptions { default_namespace: self.settings.namespace.clone() };
        for (path, file) in read {
            let parsed = lateen_config::parse_with(&file, &options);
            self.store.put(path, file, parsed);
        }
        for path in self.stamps.keys().filter(|path| !stamps.contains_key(*path)) {
            self.store.remove(path);
        }
        self.stamps = stamps;
        Ok(Some(self.compile(noticed)))
    }

    fn compile(&mut self, noticed: Instant) -> Update {
        let (objects, mut diagnostics) = self.store.objects();
        let changes = compare(&self.objects, &objects, self.store.kept());
        let (mesh, problems) = mesh(&objects, &self.settings);
        diagnostics.extend(problems);
        self.world = self.world.update(&objects, mesh);
        diagnostics.extend(self.world.diagnostics().iter().cloned());
        let local = self.compiler.compile(&self.world);
        diagnostics.extend(local.diagnostics);
        self.objects = objects;
        Update {
            set: local.set,
            diagnostics,
            changes,
            objects: self.objects.len(),
            files: self.store.files(),
            hidden: local.hidden,
            noticed,
            took: noticed.elapsed(),
        }
    }
}

/// The mesh configuration: ConfigMap `istio` of the root namespace, then what the command line says.
#[must_use]
pub fn mesh(objects: &[Arc<Object>], settings: &Settings) -> (Mesh, Vec<Diagnostic>) {
    let (mut mesh, diagnostics) = Mesh::from_objects(objects);
    match &settings.access_log {
        Some(file) => mesh.override_access_log(file.as_deref()),
        None => {
            if let (None, Some(file)) = (&mesh.access_log, &settings.default_access_log) {
                mesh.set_access_log_file(file);
            }
        }
    }
    (mesh, diagnostics)
}
