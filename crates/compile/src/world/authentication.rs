//! Which connections do workloads take: with mutual TLS of the mesh, without, or both? PeerAuthentication policies of a
//! workload, its namespace and the mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{MutualTls, MutualTlsMode};
use lateen_xds::Origin;

use super::objects::Typed;
use super::origin;
use super::services::includes;

/// Which connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerMode {
    /// Only those without mutual TLS.
    Disable,
    /// Both.
    Permissive,
    /// Only those with mutual TLS.
    Strict,
}

/// What holds for one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// What holds for all ports that `ports` does not name.
    pub mode: PeerMode,
    /// What holds for single ports of the workload.
    pub ports: BTreeMap<u32, PeerMode>,
    /// The object that decides `mode`; `None` when it is Istio's default.
    pub origin: Option<Arc<Origin>>,
}

impl PeerPolicy {
    /// What holds for a port of the workload.
    pub fn at(&self, port: u32) -> PeerMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// All policies, oldest first.
#[derive(Debug, Default)]
pub(crate) struct PeerAuthentications {
    root_namespace: Arc<str>,
    by_namespace: BTreeMap<Arc<str>, Vec<Policy>>,
}

#[derive(Debug)]
struct Policy {
    selector: BTreeMap<String, String>,
    mode: Option<PeerMode>,
    ports: BTreeMap<u32, Option<PeerMode>>,
    origin: Arc<Origin>,
}

impl PeerAuthentications {
    /// Indexes objects that are sorted by age.
    pub(crate) fn build(
        objects: &[Typed<'_, lateen_config::PeerAuthentication>],
        root_namespace: &Arc<str>,
    ) -> PeerAuthentications {
        let mut index = PeerAuthentications { root_namespace: root_namespace.clone(), ..Default::default() };
        for (object, spec) in objects {
            let policy = Policy {
                selector: spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default(),
                mode: spec.mtls.as_ref().and_then(mode),
                ports: spec.port_level_mtls.iter().map(|(port, mtls)| (*port, mode(mtls))).collect(),
                origin: origin(object),
            };
            index.by_namespace.entry(object.metadata.namespace.clone()).or_default().push(policy);
        }
        index
    }

    /// What holds for the workloads of a namespace as a whole; clients go by it.
    pub(crate) fn of_namespace(&self, namespace: &str) -> PeerMode {
        self.decide(namespace, None).mode
    }

    /// What holds for a workload.
    pub(crate) fn of_workload(&self, namespace: &str, labels: &BTreeMap<String, String>) -> PeerPolicy {
        self.decide(namespace, Some(labels))
    }

    /// The oldest policy of each level counts; the nearest level that says something decides. Ports are named by
    /// policies of workloads alone.
    fn decide(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> PeerPolicy {
        let of = |namespace: &str| self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let for_all = |policy: &&Policy| policy.selector.is_empty();
        let selects = |policy: &&Policy| {
            !policy.selector.is_empty() && labels.is_some_and(|labels| includes(labels, &policy.selector))
        };
        let workload = of(namespace).iter().find(selects);
        let whole = of(namespace).iter().find(for_all);
        let mesh = of(&self.root_namespace).iter().find(for_all);
        let decided = [workload, whole, mesh].into_iter().flatten().find_map(|policy| Some((policy.mode?, policy)));
        let mode = decided.map_or(PeerMode::Permissive, |(mode, _)| mode);
        let ports = workload.map(|policy| &policy.ports).into_iter().flatten();
        PeerPolicy {
            mode,
            // A port that is named without a mode is as the rest.
            ports: ports.map(|(port, own)| (*port, own.unwrap_or(mode))).collect(),
            origin: workload.or(decided.map(|(_, policy)| policy)).map(|policy| policy.origin.clone()),
        }
    }
}

fn mode(mtls: &MutualTls) -> Option<PeerMode> {
    match mtls.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(PeerMode::Disable),
        MutualTlsMode::Permissive => Some(PeerMode::Permissive),
        MutualTlsMode::Strict => Some(PeerMode::Strict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(selector: &[(&str, &str)], mode: Option<PeerMode>, ports: &[(u32, PeerMode)]) -> Policy {
        Policy {
            selector: selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            mode,
            ports: ports.iter().map(|(port, mode)| (*port, Some(*mode))).collect(),
            origin: Arc::default(),
        }
    }

    fn labels() -> BTreeMap<String, String> {
        BTreeMap::from([("app".to_owned(), "a".to_owned())])
    }

    #[test]
    fn the_nearest_policy_that_says_something_decides() {
        let index = PeerAuthentications {
            root_namespace: "root".into(),
            by_namespace: BTreeMap::from([
                ("root".into(), vec![policy(&[], Some(PeerMode::Strict), &[])]),
                (
                    "shop".into(),
                    vec![
                        policy(&[("app", "a")], None, &[(80, PeerMode::Disable)]),
                        policy(&[], Some(PeerMode::Permissive), &[]),
                    ],
                ),
            ]),
        };
        assert_eq!(index.of_namespace("other"), PeerMode::Strict);
        assert_eq!(index.of_namespace("shop"), PeerMode::Permissive);
        let of_workload = index.of_workload("shop", &labels());
        assert_eq!((of_workload.at(80), of_workload.at(81)), (PeerMode::Disable, PeerMode::Permissive));
        assert_eq!(index.of_workload("shop", &BTreeMap::new()).ports, BTreeMap::new());
    }

    #[test]
    fn without_a_policy_both_kinds_of_connections_are_taken() {
        let index = PeerAuthentications::default();
        assert_eq!(index.of_workload("shop", &labels()).mode, PeerMode::Permissive);
    }
}
