//! Which services does Kubernetes declare, and who answers for them? Services with their EndpointSlices,
//! Endpoints, Pods, and the WorkloadEntries that they select.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_config::{AddressType, EndpointSlice, Endpoints};
use lateen_config::{IntOrString, Object};
use lateen_config::{Service as Spec, ServiceType};

use super::objects::{Objects, Typed};
use super::services::{Address, Discovery, Endpoint, Health, Locality, Registry, Service, ServicePort, Workload};
use super::visibility::Visibility;
use super::workloads::{PortOf, Workloads};
use crate::endpoints;
use crate::mesh::Mesh;
use crate::protocol::Protocol;

/// Annotation that says who sees a Service.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// Label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The Services of Kubernetes, with endpoints.
pub(crate) fn build(objects: &Objects<'_>, workloads: &Workloads, mesh: &Mesh) -> Vec<Service> {
    let mut slices: BTreeMap<(&str, &str), Vec<Typed<'_, EndpointSlice>>> = BTreeMap::new();
    for (object, slice) in &objects.endpoint_slices {
        if let Some(service) = object.metadata.labels.get(SERVICE_NAME) {
            let key = (&*object.metadata.namespace, service.as_str());
            slices.entry(key).or_default().push((object, slice));
        }
    }
    let lists: BTreeMap<(&str, &str), Typed<'_, Endpoints>> = objects
        .endpoints
        .iter()
        .map(|(object, list)| ((&*object.metadata.namespace, &*object.metadata.name), (*object, *list)))
        .collect();
    objects
        .services
        .iter()
        .map(|(object, spec)| {
            let key = (&*object.metadata.namespace, &*object.metadata.name);
            let source = match (slices.get(&key), lists.get(&key)) {
                (Some(slices), _) => Source::Slices(slices),
                (None, Some(list)) => Source::List(*list),
                (None, None) => Source::Pods,
            };
            build_service(object, spec, source, workloads, mesh)
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

/// Who tells the endpoints of a service.
#[derive(Clone, Copy)]
enum Source<'a> {
    Slices(&'a [Typed<'a, EndpointSlice>]),
    List(Typed<'a, Endpoints>),
    Pods,
}

fn build_service(object: &Arc<Object>, spec: &Spec, source: Source<'_>, workloads: &Workloads, mesh: &Mesh) -> Service {
    let metadata = &object.metadata;
    let namespace: Arc<str> = metadata.namespace.clone();
    let origin = super::origin(object);
    let external_name = match spec.r#type {
        ServiceType::ExternalName => spec.external_name.as_deref().filter(|name| !name.is_empty()),
        _ => None,
    };
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
    let ports = spec
        .ports
        .iter()
        .map(|port| {
            let name = port.name.as_deref().unwrap_or_default();
            let wanted = PortOf { name, number: port.port, target: port.target_port.as_ref() };
            let mut found: BTreeMap<Address, Endpoint> = BTreeMap::new();
            let mut add = |endpoint: Endpoint| {
                found.entry(endpoint.address.clone()).or_insert(endpoint);
            };
            if let Some(name) = external_name {
                add(endpoints::of_host(name, port.port, &origin));
            } else {
                match source {
                    Source::Slices(slices) => of_slices(slices, name, workloads).into_iter().for_each(&mut add),
                    Source::List(list) => of_list(list, name, workloads).into_iter().for_each(&mut add),
                    Source::Pods => workloads
                        .select(&namespace, &spec.selector)
                        .filter(|instance| instance.is_pod)
                        .filter_map(|instance| instance.endpoint(wanted))
                        .for_each(&mut add),
                }
                workloads
                    .select(&namespace, &spec.selector)
                    .filter(|instance| !instance.is_pod)
                    .filter_map(|instance| instance.endpoint(wanted))
                    .for_each(&mut add);
            }
            let mut endpoints: Vec<Endpoint> = found.into_values().collect();
            if spec.publish_not_ready_addresses {
                endpoints.iter_mut().for_each(|endpoint| endpoint.health = Health::Healthy);
            }
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
                endpoints,
            }
        })
        .collect();
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
        external: false,
        alias_of: external_name.map(crate::host::lower),
        ports,
        visibility: Visibility::build(&export_to, &mesh.default_service_export_to, &namespace),
        selector: spec.selector.clone(),
        labels: metadata.labels.clone(),
        created: metadata.creation_timestamp,
        origin,
        namespace,
    }
}

/// A slice's port is joined with the service's by name. Its endpoints are Pods if it says so, and need not be.
fn of_slices(slices: &[Typed<'_, EndpointSlice>], port_name: &str, workloads: &Workloads) -> Vec<Endpoint> {
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
            let health = match (ready, terminating) {
                (true, _) => Health::Healthy,
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
        workload: Arc::new(Workload { namespace: object.metadata.namespace.clone(), ..Workload::default() }),
        origin: super::origin(object),
    }
}
