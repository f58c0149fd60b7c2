//! Which VirtualServices does a gateway or sidecar use? Resolved hosts, and an index by the gateways that they
//! name.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::HttpRoute;
use lateen_xds::Origin;

use super::visibility::Visibility;

/// A VirtualService with all names resolved.
#[derive(Clone, Debug)]
pub struct VirtualService {
    /// Name of the object.
    pub name: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Fully qualified hosts, lower-case.
    pub hosts: Vec<Arc<str>>,
    /// `mesh` and `namespace/name` of Gateways.
    pub gateways: Vec<Arc<str>>,
    /// HTTP rules, in order.
    pub http: Vec<Rule>,
    /// Who sees it.
    pub visibility: Visibility,
    /// The object.
    pub origin: Arc<Origin>,
    /// Place in the list of all VirtualServices, oldest first.
    pub(crate) index: usize,
}

/// One HTTP rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule, its destinations fully qualified.
    pub route: HttpRoute,
    /// The object that it stands in, with the rule `http[i]`.
    pub origin: Arc<Origin>,
}

/// All VirtualServices, oldest first, by gateway.
#[derive(Debug, Default)]
pub(crate) struct VirtualServices {
    all: Vec<VirtualService>,
    by_gateway: BTreeMap<Arc<str>, Vec<usize>>,
}

impl VirtualServices {
    /// Indexes VirtualServices that are sorted by age. Those without hosts are delegates: nothing on their own.
    pub(crate) fn build(mut all: Vec<VirtualService>) -> VirtualServices {
        let mut by_gateway: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (index, virtual_service) in all.iter_mut().enumerate() {
            virtual_service.index = index;
            if virtual_service.hosts.is_empty() {
                continue;
            }
            for gateway in &virtual_service.gateways {
                let indexes = by_gateway.entry(gateway.clone()).or_default();
                if indexes.last() != Some(&index) {
                    indexes.push(index);
                }
            }
        }
        VirtualServices { all, by_gateway }
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> &[VirtualService] {
        &self.all
    }

    /// Those bound to a gateway that proxies in `namespace` use: private ones of that namespace first, then those
    /// exported to it by name, then public ones; each group oldest first.
    pub(crate) fn bound_to(&self, gateway: &str, namespace: &str) -> impl Iterator<Item = &VirtualService> {
        let bound = self.by_gateway.get(gateway).map(Vec::as_slice).unwrap_or_default();
        let mut groups: [Vec<&VirtualService>; 3] = Default::default();
        for virtual_service in bound.iter().filter_map(|index| self.all.get(*index)) {
            let visibility = &virtual_service.visibility;
            if visibility.is_everywhere() {
                groups[2].push(virtual_service);
            } else if !visibility.includes(namespace) {
                continue;
            } else if *virtual_service.namespace == *namespace {
                groups[0].push(virtual_service);
            } else {
                groups[1].push(virtual_service);
            }
        }
        groups.into_iter().flatten()
    }
}
