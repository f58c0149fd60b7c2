//! What happened while patches were applied? Which of them found something to change, and which could not be applied.

use std::collections::{BTreeMap, BTreeSet};

use lateen_config::{Diagnostic, Location};

use super::{About, code};

/// What happened while the patches of one [`Selected`](super::Selected) were applied. Reports of several resources
/// can be joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    matched: BTreeSet<usize>,
    /// Of each patch and code the first finding: a patch that fails on all clusters is told once.
    findings: BTreeMap<(usize, &'static str), Diagnostic>,
}

impl Report {
    /// Takes in what happened to other resources.
    pub fn join(&mut self, other: &Report) {
        self.matched.extend(&other.matched);
        for (key, finding) in &other.findings {
            self.findings.entry(*key).or_insert_with(|| finding.clone());
        }
    }

    pub(super) fn matched(&mut self, about: &About) {
        self.matched.insert(about.id);
    }

    /// The patch found what it is for, and could not be applied to it.
    pub(super) fn refused(&mut self, about: &About, resource: &str, why: &str) {
        let message = format!("the patch is left out of {resource}: {why}");
        self.finding(about, Diagnostic::warning(code::REFUSED, message));
    }

    pub(super) fn finding(&mut self, about: &About, finding: Diagnostic) {
        self.matched(about);
        self.findings.entry((about.id, finding.code)).or_insert_with(|| placed(about, finding));
    }

    /// The findings and, of the patches given, those that matched nothing. In the order of the patches.
    pub(super) fn diagnostics<'a>(&self, patches: impl Iterator<Item = &'a About>) -> Vec<Diagnostic> {
        let mut all: BTreeMap<(usize, &str), Diagnostic> = self.findings.clone();
        for about in patches.filter(|about| !self.matched.contains(&about.id)) {
            let finding = Diagnostic::warning(code::UNMATCHED, "the patch matches nothing of this proxy")
                .help("names and ports of what is there are in the output of `lateen compile`");
            all.insert((about.id, code::UNMATCHED), placed(about, finding));
        }
        all.into_values().collect()
    }
}

/// With the place of the patch, as it was noted when it was read: looking it up again would read the file again.
fn placed(about: &About, mut finding: Diagnostic) -> Diagnostic {
    let location = about.object.source.file.as_ref().and_then(|file| Location::of(file, about.at, 1));
    finding = finding.at(location).about(about.object.subject());
    finding.path.clone_from(&about.path);
    finding
}
