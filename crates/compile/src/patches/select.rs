//! Which patches are for a proxy, and in which order are they applied?

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Diagnostic, EnvoyFilter, Object, PatchContext};

use super::{About, Patches, Report, Table};
use crate::scope::Role;

/// What a patch can ask of a proxy.
#[derive(Clone, Copy, Debug)]
pub struct ProxyFacts<'a> {
    /// Edge of the mesh, or beside a workload.
    pub role: Role,
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// Labels of the workload. `None`: every selector matches.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The version of Istio that the proxy is compatible with. Patches for a version do not match an empty one.
    pub istio_version: &'a str,
    /// Metadata of the node.
    pub metadata: &'a BTreeMap<String, String>,
}

/// The patches of one proxy.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    pub(super) table: Table,
}

impl Patches {
    /// The patches that are for a proxy: those of the root namespace and of its own, whose selector and conditions
    /// hold for it and whose context can occur in it.
    pub fn for_proxy(&self, proxy: &ProxyFacts<'_>) -> Selected {
        Selected { table: self.table.select(|about| is_for(about, proxy)) }
    }
}

impl Selected {
    /// True when nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.table.abouts().next().is_none()
    }

    /// What is to be said after all resources of the proxy were looked at: patches that could not be applied
    /// somewhere, and patches that matched nothing. In the order in which patches are applied.
    pub fn diagnostics(&self, report: &Report) -> Vec<Diagnostic> {
        report.diagnostics(self.table.abouts())
    }
}

/// Equal are selections of the same patches of the same objects in the same places, as they are after an edit that did
/// not touch them: everything that was made of one selection, reports included, holds for the other.
impl PartialEq for Selected {
    fn eq(&self, other: &Selected) -> bool {
        let same = |one: &About, other: &About| {
            let (object, path) = (Arc::ptr_eq(&one.object, &other.object), one.path == other.path);
            object && path && one.id == other.id && one.lands_behind_router == other.lands_behind_router
        };
        let mut others = other.table.abouts();
        self.table.abouts().all(|one| others.next().is_some_and(|other| same(one, other))) && others.next().is_none()
    }
}

/// EnvoyFilters in the order in which they are applied: by priority, those of the root namespace first, then by age,
/// then by `name.namespace`.
pub(super) fn in_order<'a>(
    filters: &[(&'a Arc<Object>, &'a EnvoyFilter)],
    root_namespace: &str,
) -> Vec<(&'a Arc<Object>, &'a EnvoyFilter)> {
    let mut sorted = filters.to_vec();
    sorted.sort_by_cached_key(|(object, spec)| {
        let metadata = &object.metadata;
        (
            spec.priority.unwrap_or(0),
            *metadata.namespace != *root_namespace,
            metadata.creation_timestamp,
            format!("{}.{}", metadata.name, metadata.namespace),
        )
    });
    sorted
}

fn is_for(about: &About, proxy: &ProxyFacts<'_>) -> bool {
    let context = match about.context {
        PatchContext::Any => true,
        PatchContext::Gateway => proxy.role == Role::Gateway,
        PatchContext::SidecarInbound | PatchContext::SidecarOutbound => proxy.role == Role::Sidecar,
        PatchContext::Waypoint => false,
    };
    let version = match &about.proxy.version {
        Some(regex) => !proxy.istio_version.is_empty() && regex.is_match(proxy.istio_version.as_bytes()),
        None => true,
    };
    context
        && version
        && about.namespace.as_deref().is_none_or(|namespace| namespace == proxy.namespace)
        && proxy.labels.is_none_or(|labels| includes(labels, &about.selector))
        && includes(proxy.metadata, &about.proxy.metadata)
}

fn includes(all: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| all.get(key) == Some(value))
}
