//! Which workloads may stand behind services? Pods and WorkloadEntries, as services select them by labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::Pod;
use lateen_config::WorkloadEntry;
use lateen_config::{IntOrString, Object, Spec};
use lateen_xds::Origin;

use super::objects::Objects;
use super::services::{Address, Endpoint, Health, Locality, Workload, includes};

/// Label that says whether a workload takes mutual TLS of the mesh; Istio's injector writes it.
pub(crate) const TLS_MODE: &str = "security.istio.io/tlsMode";

/// Its value for workloads that do.
const MESH_TLS: &str = "istio";

/// A Pod or WorkloadEntry that has an address.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) address: Arc<str>,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) is_pod: bool,
    pub(crate) health: Health,
    has_mesh_tls: bool,
    /// Named ports: of the containers, or those that a WorkloadEntry gives to ports of services.
    ports: BTreeMap<String, u32>,
    locality: Locality,
    weight: u32,
    workload: Arc<Workload>,
    origin: Arc<Origin>,
}

/// A port of a service as its workloads have to know it.
#[derive(Clone, Copy)]
pub(crate) struct PortOf<'a> {
    pub(crate) name: &'a str,
    pub(crate) number: u32,
    pub(crate) target: Option<&'a IntOrString>,
}

/// All Pods and WorkloadEntries, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    by_namespace: BTreeMap<Arc<str>, Namespace>,
}

/// The workloads of one namespace, and where to find them.
#[derive(Debug, Default)]
struct Namespace {
    instances: Vec<Instance>,
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    pods_by_name: BTreeMap<Arc<str>, usize>,
    pods_by_address: BTreeMap<Arc<str>, usize>,
}

/// Collects the workloads that can be reached: Pods that have an address and are not over, WorkloadEntries.
pub(crate) fn build(objects: &Objects<'_>) -> Workloads {
    let mut workloads = Workloads::default();
    let entries = objects.workload_entries.iter().filter_map(|(object, entry)| of_entry(object, entry));
    let nodes = objects.nodes.iter().map(|node| (&*node.metadata.name, of_node(node))).collect();
    let pods = objects.pods.iter().filter_map(|(object, pod)| of_pod(object, pod, &nodes));
    for instance in entries.chain(pods) {
        workloads.by_namespace.entry(instance.namespace.clone()).or_default().add(instance);
    }
    workloads
}

impl Workloads {
    /// The workloads of a namespace that carry all labels of a selector; none for an empty selector.
    pub(crate) fn select<'a>(
        &'a self,
        namespace: &str,
        selector: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Instance> {
        let found = self.by_namespace.get(namespace);
        let candidates = found.and_then(|namespace| namespace.candidates(selector)).unwrap_or_default();
        candidates
            .iter()
            .filter_map(move |index| found?.instances.get(*index))
            .filter(move |instance| includes(&instance.labels, selector))
    }

    /// The Pod with this name, or else with this address.
    pub(crate) fn pod(&self, namespace: &str, name: Option<&str>, address: &str) -> Option<&Instance> {
        let namespace = self.by_namespace.get(namespace)?;
        let index = match name {
            Some(name) => namespace.pods_by_name.get(name)?,
            None => namespace.pods_by_address.get(address)?,
        };
        namespace.instances.get(*index)
    }
}

impl Namespace {
    fn add(&mut self, instance: Instance) {
        let index = self.instances.len();
        for (key, value) in instance.labels.iter() {
            let by_value = self.by_label.entry(key.clone()).or_default();
            by_value.entry(value.clone()).or_default().push(index);
        }
        if instance.is_pod {
            self.pods_by_name.entry(instance.name.clone()).or_insert(index);
            self.pods_by_address.entry(instance.address.clone()).or_insert(index);
        }
        self.instances.push(instance);
    }

    /// The fewest workloads among which all are that a selector chooses: those with its rarest label.
    fn candidates(&self, selector: &BTreeMap<String, String>) -> Option<&[usize]> {
        let mut fewest: Option<&[usize]> = None;
        for (key, value) in selector {
            let with_label = self.by_label.get(key)?.get(value)?;
            if fewest.is_none_or(|fewest| with_label.len() < fewest.len()) {
                fewest = Some(with_label);
            }
        }
        fewest
    }
}

impl Instance {
    /// The endpoint that this workload is for a port. `None` when the port's target is a name that no container
    /// has.
    pub(crate) fn endpoint(&self, port: PortOf<'_>) -> Option<Endpoint> {
        let number = if self.is_pod {
            match port.target {
                Some(IntOrString::Int(target)) => u32::try_from(*target).ok()?,
                Some(IntOrString::String(name)) => *self.ports.get(name)?,
                None => port.number,
            }
        } else {
            let named = self.ports.get(port.name).copied();
            let of_target = || match port.target {
                Some(IntOrString::Int(target)) => u32::try_from(*target).ok(),
                Some(IntOrString::String(name)) => self.ports.get(name).copied(),
                None => None,
            };
            named.or_else(of_target).unwrap_or(port.number)
        };
        Some(self.at(number))
    }

    /// The number that this workload gives to a port with a name.
    pub(crate) fn port_named(&self, name: &str) -> Option<u32> {
        self.ports.get(name).copied().filter(|_| !self.is_pod)
    }

    /// The endpoint that this workload is on one of its own ports.
    pub(crate) fn at(&self, port: u32) -> Endpoint {
        Endpoint {
            address: address(&self.address, port),
            labels: self.labels.clone(),
            locality: self.locality.clone(),
            weight: self.weight,
            health: self.health,
            has_mesh_tls: self.has_mesh_tls,
            workload: self.workload.clone(),
            origin: self.origin.clone(),
        }
    }
}

/// A socket, or the pipe that `unix://` names.
pub(crate) fn address(text: &str, port: u32) -> Address {
    match text.strip_prefix("unix://") {
        Some(path) => Address::Pipe(path.into()),
        None => Address::Socket { host: text.into(), port },
    }
}

fn of_entry(object: &Arc<Object>, entry: &WorkloadEntry) -> Option<Instance> {
    of_inline_entry(object, entry, super::origin(object), &object.metadata.name)
}

/// A workload that is written as a WorkloadEntry, be it an object of its own or an endpoint of a ServiceEntry.
/// `None` when it has no address.
pub(crate) fn of_inline_entry(
    object: &Object,
    entry: &WorkloadEntry,
    origin: Arc<Origin>,
    name: &str,
) -> Option<Instance> {
    let address = entry.address.as_deref().filter(|address| !address.is_empty())?;
    let namespace: Arc<str> = object.metadata.namespace.clone();
    let mut labels = entry.labels.clone();
    if matches!(object.spec, Spec::WorkloadEntry(_)) {
        for (key, value) in &object.metadata.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let mut workload = Workload::build(name, &namespace, &labels);
    workload.service_account = text(&entry.service_account);
    if let Some(network) = entry.network.as_deref().filter(|network| !network.is_empty()) {
        workload.network = network.into();
    }
    Some(Instance {
        name: name.into(),
        address: address.into(),
        is_pod: false,
        health: Health::Healthy,
        // A workload with an account has a certificate, unless its labels say that it takes no mutual TLS.
        has_mesh_tls: match labels.get(TLS_MODE) {
            Some(mode) => mode == MESH_TLS,
            None => !workload.service_account.is_empty(),
        },
        ports: entry.ports.clone(),
        locality: entry.locality.as_deref().map(Locality::parse).unwrap_or_default(),
        weight: entry.weight.filter(|weight| *weight > 0).unwrap_or(1),
        workload: Arc::new(workload),
        labels: Arc::new(labels),
        origin,
        namespace,
    })
}

fn of_pod(object: &Arc<Object>, pod: &Pod, nodes: &BTreeMap<&str, Locality>) -> Option<Instance> {
    let address = pod.status.pod_ip.as_deref().filter(|address| !address.is_empty())?;
    if matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let health = if pod.is_ready() == Some(false) { Health::Unhealthy } else { Health::Healthy };
    let labels = &object.metadata.labels;
    let locality = ["istio-locality", "topology.istio.io/locality"]
        .iter()
        .find_map(|key| labels.get(*key))
        .map(|text| Locality::parse(text))
        .or_else(|| nodes.get(pod.spec.node_name.as_deref()?).cloned());
    let namespace: Arc<str> = object.metadata.namespace.clone();
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let mut workload = Workload::build(workload_name(object), &namespace, labels);
    workload.service_account = match &pod.spec.service_account_name {
        Some(account) if !account.is_empty() => account.as_str().into(),
        _ => text(&pod.spec.service_account),
    };
    workload.node = text(&pod.spec.node_name);
    let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    Some(Instance {
        name: object.metadata.name.clone(),
        address: address.into(),
        is_pod: true,
        health,
        ports: ports.filter_map(|port| Some((port.name.clone()?, port.container_port))).collect(),
        locality: locality.unwrap_or_default(),
        weight: 1,
        has_mesh_tls: labels.get(TLS_MODE).is_some_and(|mode| mode == MESH_TLS),
        workload: Arc::new(workload),
        labels: Arc::new(labels.clone()),
        origin: super::origin(object),
        namespace,
    })
}

/// Where a machine is, by its labels.
fn of_node(node: &Object) -> Locality {
    let label = |key| node.metadata.labels.get(key).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: label("topology.istio.io/subzone"),
    }
}

/// The Deployment that a Pod belongs to, by its name: `reviews-v1-7f99cc4496-abcde` without the two parts that
/// Kubernetes made up.
fn workload_name(object: &Object) -> &str {
    let name = &*object.metadata.name;
    let Some(hash) = object.metadata.labels.get("pod-template-hash") else {
        return name;
    };
    name.rfind(&format!("-{hash}-")).map_or(name, |end| &name[..end])
}
