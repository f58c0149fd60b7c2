//! Which services does Kubernetes declare, and who answers for them? Services with their EndpointSlices,
//! Endpoints, Pods, and the WorkloadEntries that they select.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_config::{AddressType, EndpointSlice, Endpoints};
use lateen_config::{IntOrString, Object};
use lateen_config::{Service as Spec, ServiceType};

use super::objects::{Objects, Typed};
use super::services::{
    Address, Discovery, Endpoint, Health, Locality, Registry, Service, ServicePort, TrafficDistribution, Workload,
};
use super::visibility::Visibility;
use super::workloads::{PortOf, Workloads};
use crate::endpoints;
use crate::mesh::Mesh;
use crate::protocol::Protocol;

/// Annotation that says who sees a Service.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// Annotation, of a Service or its Namespace, that asks for near workloads.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Labels of a Service whose clients stay with their workload; their value names the cookie or header.
const PERSISTENT_SESSION: [&str; 2] = ["istio.io/persistent-session", "istio.io/persistent-session-header"];

/// Label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The Services of Kubernetes.
pub(crate) fn build(objects: &Objects<'_>, mesh: &Mesh) -> Vec<Service> {
    let distributions: BTreeMap<&str, TrafficDistribution> = objects
        .namespaces
        .iter()
        .filter_map(|object| {
            Some((&*object.metadata.name, distribution(object.metadata.annotations.get(DISTRIBUTION)?)?))
        })
        .collect();
    objects
        .services
        .iter()
        .map(|(object, spec)| {
            let of_namespace = distributions.get(&*object.metadata.namespace).copied();
            build_service(object, spec, of_namespace, mesh)
        })
        .collect()
}

/// Names for services that are not known are services of their own: the name is resolved by DNS.
pub(crate) fn resolve_aliases(services: &mut [Service]) {
    let known: BTreeSet<Arc<str>> =
        services.iter().filter(|service| service.alias_of.is_none()).map(|service| service.host.clone()).collect();
    for service in services {
        service.alias_of = service.alias_of.take().filter(|target| known.contains(target));
    }
}

fn distribution(text: &str) -> Option<TrafficDistribution> {
    match text {
        "PreferClose" | "PreferSameZone" => Some(TrafficDistribution::PreferClose),
        "PreferSameNode" => Some(TrafficDistribution::PreferSameNode),
        _ => None,
    }
}

fn build_service(object: &Arc<Object>, spec: &Spec, of_namespace: Option<TrafficDistribution>, mesh: &Mesh) -> Service {
    let metadata = &object.metadata;
    let namespace: Arc<str> = metadata.namespace.clone();
    let external_name = external_name(spec);
    let export_to: Vec<String> = metadata
        .annotations
        .get(EXPORT_TO)
        .map(|text| text.split(',').map(|entry| entry.trim().to_owned()).collect())
        .unwrap_or_default();
    let mut addresses: Vec<Arc<str>> = Vec::new();
    for address in spec.cluster_ip.iter().chain(&spec.cluster_ips) {
        if !matches!(address.as_str(), "" | "None" | "0.0.0.0" | "::")
            && addresses.iter().all(|known| **known != **address)
        {
            addresses.push(address.as_str().into());
        }
    }
    let ports = spec.ports.iter().enumerate().map(|(index, port)| {
        let name = port.name.as_deref().unwrap_or_default();
        ServicePort {
            number: port.port,
            name: name.into(),
            protocol: Protocol::of_service_port(
                port.protocol.as_deref().unwrap_or_default(),
                name,
                port.app_protocol.as_deref(),
                port.port,
            ),
            target: match &port.target_port {
                None => Some(port.port),
                Some(IntOrString::Int(number)) => u32::try_from(*number).ok(),
                Some(IntOrString::String(_)) => None,
            },
            index,
        }
    });
    Service {
        host: crate::host::lower(&format!("{}.{namespace}.svc.{}", metadata.name, mesh.cluster_domain)),
        name: metadata.name.clone(),
        registry: Registry::Kubernetes,
        addresses,
        discovery: match external_name {
            Some(_) => Discovery::Dns,
            None if spec.is_headless() => Discovery::Headless,
            None => Discovery::Endpoints,
        },
        // Another name for a host that nothing else in the mesh knows.
        external: external_name.is_some(),
        alias_of: external_name.map(crate::host::lower),
        ports: ports.collect(),
        visibility: Visibility::build(&export_to, &mesh.default_service_export_to, &namespace),
        selector: spec.selector.clone(),
        labels: metadata.labels.clone(),
        created: metadata.creation_timestamp,
        subject_alt_names: Vec::new(),
        distribution: metadata
            .annotations
            .get(DISTRIBUTION)
            .or(spec.traffic_distribution.as_ref())
            .and_then(|text| distribution(text))
            .or(of_namespace),
        is_node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        origin: super::origin(object),
        sources: vec![object.clone()],
        index: 0,
        namespace,
    }
}

/// The host that a Service of type `ExternalName` is another name for.
fn external_name(spec: &Spec) -> Option<&str> {
    match spec.r#type {
        ServiceType::ExternalName => spec.external_name.as_deref().filter(|name| !name.is_empty()),
        _ => None,
    }
}

/// Who tells the endpoints of Services: EndpointSlices, else Endpoints, else the Pods that a Service selects. The
/// WorkloadEntries that it selects are always among them.
pub(crate) struct Sources<'a> {
    slices: BTreeMap<(&'a str, &'a str), Vec<Typed<'a, EndpointSlice>>>,
    lists: BTreeMap<(&'a str, &'a str), Typed<'a, Endpoints>>,
    workloads: &'a Workloads,
}

impl<'a> Sources<'a> {
    /// Indexes what tells endpoints by the Service that it is for.
    pub(crate) fn build(objects: &Objects<'a>, workloads: &'a Workloads) -> Sources<'a> {
        let mut slices: BTreeMap<(&str, &str), Vec<Typed<'a, EndpointSlice>>> = BTreeMap::new();
        for (object, slice) in &objects.endpoint_slices {
            if let Some(service) = object.metadata.labels.get(SERVICE_NAME) {
                let key = (&*object.metadata.namespace, service.as_str());
                slices.entry(key).or_default().push((object, slice));
            }
        }
        let lists = objects
            .endpoints
            .iter()
            .map(|(object, list)| ((&*object.metadata.namespace, &*object.metadata.name), (*object, *list)))
            .collect();
        Sources { slices, lists, workloads }
    }

    /// The endpoints of a port of the Service that an object declares, in order of address.
    pub(crate) fn endpoints(&self, object: &Arc<Object>, spec: &Spec, port: &ServicePort) -> Vec<Endpoint> {
        let namespace = &object.metadata.namespace;
        let declared = spec.ports.get(port.index);
        let wanted = PortOf {
            name: &port.name,
            number: port.number,
            target: declared.and_then(|declared| declared.target_port.as_ref()),
        };
        let mut found: BTreeMap<Address, Endpoint> = BTreeMap::new();
        let mut add = |endpoint: Endpoint| {
            found.entry(endpoint.address.clone()).or_insert(endpoint);
        };
        if let Some(name) = external_name(spec) {
            add(endpoints::of_host(name, port.number, &super::origin(object)));
        } else {
            let key = (&**namespace, &*object.metadata.name);
            if let Some(slices) = self.slices.get(&key) {
                let persistent = PERSISTENT_SESSION.iter().any(|label| object.metadata.labels.contains_key(*label));
                of_slices(slices, &port.name, persistent, self.workloads).into_iter().for_each(&mut add);
            } else if let Some(list) = self.lists.get(&key) {
                of_list(*list, &port.name, self.workloads).into_iter().for_each(&mut add);
            } else {
                let pods = self.workloads.select(namespace, &spec.selector).filter(|instance| instance.is_pod);
                pods.filter_map(|instance| instance.endpoint(wanted)).for_each(&mut add);
            }
            let entries = self.workloads.select(namespace, &spec.selector).filter(|instance| !instance.is_pod);
            entries.filter_map(|instance| instance.endpoint(wanted)).for_each(&mut add);
        }
        let mut endpoints: Vec<Endpoint> = found.into_values().collect();
        if spec.publish_not_ready_addresses {
            endpoints.iter_mut().for_each(|endpoint| endpoint.health = Health::Healthy);
        }
        endpoints
    }
}

/// A slice's port is joined with the service's by name. Its endpoints are Pods if it says so, and need not be. With
/// persistent sessions those that go away are kept for the sessions that they have.
fn of_slices(
    slices: &[Typed<'_, EndpointSlice>],
    port_name: &str,
    persistent: bool,
    workloads: &Workloads,
) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (object, slice) in slices {
        if slice.address_type == AddressType::Fqdn {
            continue;
        }
        let port = slice.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| port.port) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let terminating = conditions.and_then(|conditions| conditions.terminating);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(true);
            let health = match (ready, terminating) {
                (true, _) => Health::Healthy,
                (false, None | Some(true)) if persistent && serving => Health::Draining,
                (false, Some(false)) => Health::Unhealthy,
                // Not ready and not said to stay: it is on its way out, and never sent.
                (false, _) => continue,
            };
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            for address in &endpoint.addresses {
                let name = pod.and_then(|pod| pod.name.as_deref());
                let locality = Locality {
                    region: String::new(),
                    zone: endpoint.zone.clone().unwrap_or_default(),
                    sub_zone: String::new(),
                };
                let found = workloads.pod(&object.metadata.namespace, name, address);
                endpoints.push(match found {
                    Some(pod) => Endpoint {
                        address: Address::Socket { host: address.as_str().into(), port },
                        health,
                        ..pod.at(port)
                    },
                    None => bare(object, address, port, health, locality),
                });
            }
        }
    }
    endpoints
}

fn of_list((object, list): Typed<'_, Endpoints>, port_name: &str, workloads: &Workloads) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for subset in &list.subsets {
        // A list with one unnamed port serves a service with one unnamed port.
        let port = subset.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| port.port) else {
            continue;
        };
        let ready = subset.addresses.iter().map(|address| (address, Health::Healthy));
        let not_ready = subset.not_ready_addresses.iter().map(|address| (address, Health::Unhealthy));
        for (address, health) in ready.chain(not_ready) {
            let pod = address.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let name = pod.and_then(|pod| pod.name.as_deref());
            endpoints.push(match workloads.pod(&object.metadata.namespace, name, &address.ip) {
                Some(pod) => Endpoint {
                    address: Address::Socket { host: address.ip.as_str().into(), port },
                    health,
                    ..pod.at(port)
                },
                None => bare(object, &address.ip, port, health, Locality::default()),
            });
        }
    }
    endpoints
}

/// An endpoint of which nothing but the address is known.
fn bare(object: &Arc<Object>, address: &str, port: u32, health: Health, locality: Locality) -> Endpoint {
    Endpoint {
        address: Address::Socket { host: address.into(), port },
        labels: Arc::default(),
        locality,
        weight: 1,
        health,
        has_mesh_tls: false,
        workload: Arc::new(Workload { namespace: object.metadata.namespace.clone(), ..Workload::default() }),
        origin: super::origin(object),
    }
}
