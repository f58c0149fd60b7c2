//! Which objects are in force? Each file's objects, in their last good form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use lateen_config::{Diagnostic, Kind, Object, Parsed, SourceFile, Subject};

/// What makes an object the same object.
type Key = (Kind, Arc<str>, Arc<str>);

fn key(object: &Object) -> Key {
    (object.kind, object.metadata.namespace.clone(), object.metadata.name.clone())
}

/// One file in its last good form.
#[derive(Debug)]
struct Entry {
    file: Arc<SourceFile>,
    /// Objects in force, in the order of the file.
    objects: Vec<Arc<Object>>,
    diagnostics: Vec<Diagnostic>,
    /// Objects that are in force although the newest text has them broken or not at all.
    kept: usize,
}

/// The objects of all files.
#[derive(Debug, Default)]
pub(crate) struct Store {
    files: BTreeMap<PathBuf, Entry>,
}

/// What an update did to the objects in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Objects that are new.
    pub added: Vec<Subject>,
    /// Objects whose content changed.
    pub changed: Vec<Subject>,
    /// Objects that are gone.
    pub removed: Vec<Subject>,
    /// Objects that stay in an older form because their newest text is broken.
    pub kept: usize,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Store {
    /// Takes the newest text of a file.
    ///
    /// An object that reads as before stays the very same value, which tells the compiler that nothing of it changed. One
    /// with errors is not taken. When the file has errors, its objects that were in force and are not in the
    /// new text in a usable form stay in force: what is broken may be what they became.
    pub(crate) fn put(&mut self, path: PathBuf, file: Arc<SourceFile>, parsed: Parsed) {
        let broken = parsed.has_errors();
        let before: BTreeMap<Key, &Arc<Object>> = self
            .files
            .get(&path)
            .into_iter()
            .flat_map(|entry| entry.objects.iter().map(|object| (key(object), object)))
            .collect();
        let usable = parsed.objects.into_iter().filter(|object| !object.has_errors);
        let mut objects: Vec<Arc<Object>> = usable
            .map(|object| match before.get(&key(&object)) {
                Some(known) if known.reads_as(&object) => (*known).clone(),
                _ => Arc::new(object),
            })
            .collect();
        let mut kept = 0;
        if broken && let Some(before) = self.files.get(&path) {
            let present: BTreeSet<Key> = objects.iter().map(|object| key(object)).collect();
            let survivors = before.objects.iter().filter(|object| !present.contains(&key(object)));
            let survivors: Vec<_> = survivors.cloned().collect();
            kept = survivors.len();
            objects.extend(survivors);
        }
        self.files.insert(path, Entry { file, objects, diagnostics: parsed.diagnostics, kept });
    }

    /// Forgets a file.
    pub(crate) fn remove(&mut self, path: &PathBuf) {
        self.files.remove(path);
    }

    /// Count of files.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// The text of a file in which a problem lies.
    pub(crate) fn file(&self, path: &str) -> Option<Arc<SourceFile>> {
        self.files.values().find(|entry| *entry.file.path == *path).map(|entry| entry.file.clone())
    }

    /// Objects that stay in an older form.
    pub(crate) fn kept(&self) -> usize {
        self.files.values().map(|entry| entry.kept).sum()
    }

    /// All objects in force, with the problems of all files. Of objects that are there twice the first stays, in the
    /// order of the files.
    pub(crate) fn objects(&self) -> (Vec<Arc<Object>>, Vec<Diagnostic>) {
        let mut diagnostics: Vec<Diagnostic> =
            self.files.values().flat_map(|entry| entry.diagnostics.iter().cloned()).collect();
        let all = self.files.values().flat_map(|entry| entry.objects.iter().cloned()).collect();
        let (objects, twice) = lateen_config::drop_duplicates(all);
        diagnostics.extend(twice);
        (objects, diagnostics)
    }
}

/// What became of the objects.
pub(crate) fn compare(before: &[Arc<Object>], after: &[Arc<Object>], kept: usize) -> Changes {
    let index = |objects: &[Arc<Object>]| -> BTreeMap<Key, Arc<Object>> {
        objects.iter().map(|object| (key(object), object.clone())).collect()
    };
    let (before, after) = (index(before), index(after));
    let mut changes = Changes { kept, ..Changes::default() };
    for (key, object) in &after {
        match before.get(key) {
            None => changes.added.push(object.subject()),
            // Positions take part in the comparison: a moved object is read anew, which shows in its origins.
            Some(old) if !Arc::ptr_eq(old, object) && old.spec != object.spec => {
                changes.changed.push(object.subject());
            }
            Some(old) if !Arc::ptr_eq(old, object) && old.metadata.labels != object.metadata.labels => {
                changes.changed.push(object.subject());
            }
            Some(_) => {}
        }
    }
    for (key, object) in &before {
        if !after.contains_key(key) {
            changes.removed.push(object.subject());
        }
    }
    changes
}
