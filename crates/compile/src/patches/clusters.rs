//! What do patches make of a cluster? Removed or merged in the order of the patches; then those that are added.

use lateen_config::{Diagnostic, PatchContext};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::{Part, Resource};

use super::listeners::{Resources, added, insert_new};
use super::merging::{self, Outcome};
use super::{Change, Lookup, Report, Selected, code, matching, origins};

impl Selected {
    /// A cluster that was generated for `context`, as the patches leave it; `None` when one removes it.
    pub fn cluster(
        &self,
        context: PatchContext,
        resource: &Resource<Cluster>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Option<Resource<Cluster>> {
        let name = resource.message.name.as_str();
        let mut changed: Option<(Cluster, Vec<lateen_xds::Origin>)> = None;
        for patch in &self.table.clusters {
            let about = &patch.about;
            if !matching::in_context(about, context) || !matching::cluster(about, name, lookup) {
                continue;
            }
            match &patch.change {
                Change::Remove => {
                    report.matched(about);
                    return None;
                }
                Change::Merge(value, lists) => {
                    report.matched(about);
                    let base = changed.as_ref().map_or(&*resource.message, |(cluster, _)| cluster);
                    let merged = match merging::cluster(base, value, *lists) {
                        Ok(Outcome::Whole(merged)) => merged,
                        Ok(Outcome::SocketOnly(merged)) => {
                            let message = "of a value with a `transport_socket` only that is merged: its other fields are left out";
                            let help = "put the other fields into a patch of their own";
                            report.finding(about, Diagnostic::warning(code::PARTLY, message).help(help));
                            merged
                        }
                        Err(error) => {
                            report.refused(about, &format!("cluster `{name}`"), &error);
                            continue;
                        }
                    };
                    if merged.name != name {
                        report.refused(about, &format!("cluster `{name}`"), "a patch cannot give it another name");
                        continue;
                    }
                    let (cluster, own) =
                        changed.get_or_insert_with(|| (Cluster::default(), origins::of(resource, Part::Whole)));
                    *cluster = merged;
                    origins::add(own, &[], about);
                }
                Change::Insert(..) | Change::Replace(_) => {}
            }
        }
        Some(match changed {
            Some((cluster, own)) => Resource::new(cluster, origins::at(Part::Whole, own).collect()),
            None => resource.clone(),
        })
    }

    /// All clusters of a proxy, grouped by what they were generated for. Each group is patched, and followed by what
    /// patches add to it; of two clusters with one name the first stays.
    pub fn clusters(
        &self,
        groups: Vec<(PatchContext, Resources<Cluster>)>,
        lookup: &Lookup<'_>,
        report: &mut Report,
    ) -> Resources<Cluster> {
        let mut all = Resources::new();
        let contexts: Vec<PatchContext> = groups.iter().map(|(context, _)| *context).collect();
        for (context, clusters) in groups {
            for (name, resource) in clusters {
                if let Some(patched) = self.cluster(context, &resource, lookup, report) {
                    all.entry(name).or_insert(patched);
                }
            }
        }
        self.add_clusters(&contexts, &mut all, report);
        all
    }

    /// Adds the clusters of patches to those that were generated for `contexts`.
    pub fn add_clusters(&self, contexts: &[PatchContext], all: &mut Resources<Cluster>, report: &mut Report) {
        for patch in added(&self.table.clusters, contexts) {
            if let Change::Insert(value, _) = &patch.change {
                insert_new(all, &patch.about, &value.name, value.clone(), "cluster", report);
            }
        }
    }
}
