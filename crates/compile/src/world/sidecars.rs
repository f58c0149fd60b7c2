//! Which Sidecar object holds for a workload, and what does it let the workload see?

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Destination, IstioEgressListener, OutboundTrafficPolicyMode};
use lateen_xds::Origin;

use super::objects::Typed;
use super::services::includes;
use super::{origin, origin_of_rule};
use crate::host;
use crate::mesh::Mesh;

/// A Sidecar object with all names resolved.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Name of the object.
    pub name: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Labels of the workloads that it is for; `None` means all.
    pub selector: Option<BTreeMap<String, String>>,
    /// The object as it is written.
    pub spec: Arc<lateen_config::Sidecar>,
    /// What each of its egress listeners imports, in order; one for everything when it names none.
    pub egress: Vec<Imports>,
    /// Where requests to unknown hosts go instead of their original destination, its host fully qualified.
    pub egress_proxy: Option<Destination>,
    /// What happens to requests for unknown hosts; `None` leaves it to the mesh.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicyMode>,
    /// The object.
    pub origin: Arc<Origin>,
    /// Its rules `ingress[i]`.
    pub(crate) ingress_origins: Vec<Arc<Origin>>,
}

/// The hosts that one egress listener imports.
#[derive(Clone, Debug)]
pub struct Imports {
    /// The listener as it is written; `None` for the one that every sidecar has when nothing is configured.
    pub listener: Option<IstioEgressListener>,
    hosts: Vec<Import>,
    excluded: Vec<Import>,
    /// The rule `egress[i]`.
    pub origin: Option<Arc<Origin>>,
}

/// One entry of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    /// Namespace of the services and VirtualServices; `None` means all.
    namespace: Option<Arc<str>>,
    /// Host, perhaps a wildcard; lower-case.
    host: Arc<str>,
}

impl Imports {
    /// Everything that is visible.
    pub(crate) fn everything() -> Imports {
        Imports {
            listener: None,
            hosts: vec![Import { namespace: None, host: "*".into() }],
            excluded: Vec::new(),
            origin: None,
        }
    }

    /// True when nothing that is visible is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.excluded.is_empty() && self.hosts.iter().any(|import| import.namespace.is_none() && &*import.host == "*")
    }

    /// True when a service with this host, declared in a namespace, is imported.
    pub(crate) fn includes_service(&self, namespace: &str, name: &str) -> bool {
        let meant = |import: &Import| import.is_of(namespace) && host::covers(&import.host, name);
        self.hosts.iter().any(meant) && !self.excluded.iter().any(meant)
    }

    /// True when a VirtualService for this host, in a namespace, is imported: hosts that overlap in either direction
    /// count, an old peculiarity that configurations rely on.
    pub(crate) fn includes_virtual_service(&self, namespace: &str, name: &str) -> bool {
        let overlap = |import: &Import| import.is_of(namespace) && host::overlaps(&import.host, name);
        let covered = |import: &Import| import.is_of(namespace) && host::covers(&import.host, name);
        self.hosts.iter().any(overlap) && !self.excluded.iter().any(covered)
    }

    fn parse(listener: &IstioEgressListener, own: &Arc<str>, origin: Arc<Origin>) -> Imports {
        let mut imports =
            Imports { listener: Some(listener.clone()), hosts: Vec::new(), excluded: Vec::new(), origin: Some(origin) };
        for entry in &listener.hosts {
            let (namespace, name) = entry.split_once('/').unwrap_or(("*", entry));
            let of = |namespace: &str| match namespace {
                "*" => None,
                "." => Some(own.clone()),
                namespace => Some(Arc::from(namespace)),
            };
            let name = host::lower(name);
            match namespace.strip_prefix('~') {
                // `~/*` imports nothing, and there is nothing else that it could mean.
                Some("") => {}
                Some(namespace) => imports.excluded.push(Import { namespace: of(namespace), host: name }),
                None => imports.hosts.push(Import { namespace: of(namespace), host: name }),
            }
        }
        imports
    }
}

impl Import {
    fn is_of(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

impl Sidecar {
    fn build((object, spec): Typed<'_, lateen_config::Sidecar>, mesh: &Mesh) -> Sidecar {
        let namespace = object.metadata.namespace.clone();
        let listeners = spec.egress.iter().enumerate().map(|(index, listener)| {
            let origin = origin_of_rule(object, format!("egress[{index}]"), listener.at);
            Imports::parse(listener, &namespace, origin)
        });
        let mut egress: Vec<Imports> = listeners.collect();
        if egress.is_empty() {
            egress.push(Imports::everything());
        }
        let policy = spec.outbound_traffic_policy.as_ref();
        let egress_proxy = policy.and_then(|policy| policy.egress_proxy.clone()).map(|mut proxy| {
            proxy.host = host::resolve(&proxy.host, &namespace, &mesh.cluster_domain).to_string();
            proxy
        });
        Sidecar {
            name: object.metadata.name.clone(),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|selector| selector.labels.clone())
                .filter(|labels| !labels.is_empty()),
            egress,
            egress_proxy,
            outbound_traffic_policy: policy.map(|policy| policy.mode),
            origin: origin(object),
            ingress_origins: spec
                .ingress
                .iter()
                .enumerate()
                .map(|(index, listener)| origin_of_rule(object, format!("ingress[{index}]"), listener.at))
                .collect(),
            spec: Arc::new(spec.clone()),
            namespace,
        }
    }
}

/// All Sidecars, oldest first.
#[derive(Debug)]
pub(crate) struct Sidecars {
    by_namespace: BTreeMap<Arc<str>, Vec<Sidecar>>,
    /// What a sidecar imports for which there is none.
    everything: [Imports; 1],
}

impl Sidecars {
    /// Resolves objects that are sorted by age.
    pub(crate) fn build(objects: &[Typed<'_, lateen_config::Sidecar>], mesh: &Mesh) -> Sidecars {
        let mut sidecars = Sidecars { by_namespace: BTreeMap::new(), everything: [Imports::everything()] };
        for (object, spec) in objects {
            let sidecar = Sidecar::build((object, spec), mesh);
            sidecars.by_namespace.entry(sidecar.namespace.clone()).or_default().push(sidecar);
        }
        sidecars
    }

    /// What a sidecar imports for which there is no object.
    pub(crate) fn everything(&self) -> &[Imports] {
        &self.everything
    }

    /// The one for a workload: of its namespace the oldest that selects it, else the oldest for all, else the oldest
    /// for all of the root namespace.
    pub(crate) fn lookup(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
        root_namespace: &str,
    ) -> Option<&Sidecar> {
        let of = |namespace: &str| self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let selects = |sidecar: &&Sidecar| match (&sidecar.selector, labels) {
            (Some(selector), Some(labels)) => includes(labels, selector),
            _ => false,
        };
        let for_all = |sidecar: &&Sidecar| sidecar.selector.is_none();
        of(namespace)
            .iter()
            .find(selects)
            .or_else(|| of(namespace).iter().find(for_all))
            .or_else(|| of(root_namespace).iter().find(for_all))
    }
}
