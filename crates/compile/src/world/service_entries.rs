//! Which services does the mesh know besides those of Kubernetes? One for each host of each ServiceEntry.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::Object;
use lateen_config::{Resolution, ServiceEntry, ServiceEntryLocation, ServiceEntryPort};

use super::objects::Objects;
use super::services::{Address, Discovery, Endpoint, Registry, Service, ServicePort};
use super::visibility::Visibility;
use super::workloads::{self, Instance, Workloads};
use crate::host;
use crate::mesh::Mesh;
use crate::protocol::Protocol;

/// The services of all ServiceEntries. Several for one host in one namespace are one service: ports with new
/// numbers are added, and endpoints.
pub(crate) fn build(objects: &Objects<'_>, mesh: &Mesh) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let mut by_host: BTreeMap<(Arc<str>, Arc<str>), usize> = BTreeMap::new();
    for (object, entry) in &objects.service_entries {
        for service in build_entry(object, entry, mesh) {
            let key = (service.namespace.clone(), service.host.clone());
            match by_host.get(&key) {
                Some(index) => merge(&mut services[*index], service),
                None => {
                    by_host.insert(key, services.len());
                    services.push(service);
                }
            }
        }
    }
    services
}

fn build_entry(object: &Arc<Object>, entry: &ServiceEntry, mesh: &Mesh) -> Vec<Service> {
    let namespace: Arc<str> = object.metadata.namespace.clone();
    let origin = super::origin(object);
    let selector = entry.workload_selector.as_ref().map(|selector| selector.labels.clone()).unwrap_or_default();
    let ports: Vec<ServicePort> = entry
        .ports
        .iter()
        .enumerate()
        .map(|(index, port)| ServicePort {
            number: port.number,
            name: port.name.as_str().into(),
            protocol: protocol(port),
            target: Some(target(port)),
            index,
        })
        .collect();
    let service = |host_name: &str| {
        let host = host::lower(host_name);
        Service {
            name: host.clone(),
            namespace: namespace.clone(),
            registry: Registry::ServiceEntry,
            addresses: addresses(entry),
            discovery: discovery(object, entry),
            external: entry.location == ServiceEntryLocation::MeshExternal,
            alias_of: None,
            ports: ports.clone(),
            visibility: Visibility::build(&entry.export_to, &mesh.default_service_export_to, &namespace),
            selector: selector.clone(),
            labels: object.metadata.labels.clone(),
            created: object.metadata.creation_timestamp,
            subject_alt_names: entry.subject_alt_names.clone(),
            distribution: None,
            is_node_local: false,
            origin: origin.clone(),
            sources: vec![object.clone()],
            index: 0,
            host,
        }
    };
    entry.hosts.iter().map(|host| service(host)).collect()
}

/// Annotation that asks for connections to all addresses of a name at once, of which the first counts.
const CONNECT_STRATEGY: &str = "istio.io/connect-strategy";

/// Its value.
const RACE: &str = "RACE_FIRST_TCP_CONNECT";

fn discovery(object: &Object, entry: &ServiceEntry) -> Discovery {
    let races = object.metadata.annotations.get(CONNECT_STRATEGY).is_some_and(|strategy| strategy == RACE);
    let one_name = entry.endpoints.len() <= 1 && entry.workload_selector.is_none();
    match entry.resolution {
        // Envoy tries the addresses of a name in turn where it takes the name for one endpoint.
        Resolution::Dns if races && one_name => Discovery::DnsRoundRobin,
        Resolution::None => Discovery::OriginalDestination,
        Resolution::Static => Discovery::Endpoints,
        Resolution::DnsRoundRobin => Discovery::DnsRoundRobin,
        Resolution::Dns => Discovery::Dns,
        Resolution::DynamicDns => Discovery::DynamicDns,
    }
}

fn protocol(port: &ServiceEntryPort) -> Protocol {
    match port.protocol.as_deref().unwrap_or_default() {
        "" => Protocol::of_service_port("", &port.name, None, port.number),
        declared => Protocol::parse(declared).unwrap_or(Protocol::Auto),
    }
}

fn target(port: &ServiceEntryPort) -> u32 {
    port.target_port.filter(|target| *target != 0).unwrap_or(port.number)
}

/// The endpoints that one ServiceEntry gives to a port of a host, in order of address; none for a port that another
/// ServiceEntry of the host has.
pub(crate) fn endpoints(
    object: &Arc<Object>,
    entry: &ServiceEntry,
    host: &str,
    number: u32,
    workloads: &Workloads,
) -> Vec<Endpoint> {
    let Some(port) = entry.ports.iter().find(|port| port.number == number) else {
        return Vec::new();
    };
    let target = target(port);
    let discovery = discovery(object, entry);
    if matches!(discovery, Discovery::OriginalDestination | Discovery::DynamicDns) {
        return Vec::new();
    }
    let inline = entry.endpoints.iter().enumerate().filter_map(|(index, inline)| {
        let origin = super::origin_of_rule(object, format!("endpoints[{index}]"), inline.at);
        workloads::of_inline_entry(object, inline, origin, &object.metadata.name)
    });
    let inline: Vec<Instance> = inline.collect();
    let none = BTreeMap::new();
    let selector = entry.workload_selector.as_ref().map_or(&none, |selector| &selector.labels);
    let selected = workloads.select(&object.metadata.namespace, selector);
    let mut found: BTreeMap<Address, Endpoint> = BTreeMap::new();
    for instance in inline.iter().chain(selected) {
        let endpoint = instance.at(instance.port_named(&port.name).unwrap_or(target));
        found.entry(endpoint.address.clone()).or_insert(endpoint);
    }
    let by_name = matches!(discovery, Discovery::Dns | Discovery::DnsRoundRobin);
    let nothing_given = entry.endpoints.is_empty() && entry.workload_selector.is_none();
    if by_name && nothing_given && !host::is_wildcard(host) {
        let endpoint = crate::endpoints::of_host(host, target, &super::origin(object));
        found.insert(endpoint.address.clone(), endpoint);
    }
    found.into_values().collect()
}

fn addresses(entry: &ServiceEntry) -> Vec<Arc<str>> {
    entry
        .addresses
        .iter()
        .filter(|address| !matches!(address.as_str(), "" | "0.0.0.0" | "::"))
        .map(|address| address.as_str().into())
        .collect()
}

fn merge(known: &mut Service, other: Service) {
    for port in other.ports {
        if known.port(port.number).is_none() {
            known.ports.push(ServicePort { index: known.ports.len(), ..port });
        }
    }
    for address in other.addresses {
        if !known.addresses.contains(&address) {
            known.addresses.push(address);
        }
    }
    known.sources.extend(other.sources);
}
