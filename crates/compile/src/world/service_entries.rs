//! Which services does the mesh know besides those of Kubernetes? One for each host of each ServiceEntry.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::Object;
use lateen_config::{Resolution, ServiceEntry, ServiceEntryLocation};

use super::objects::Objects;
use super::services::{Address, Discovery, Endpoint, Registry, Service, ServicePort};
use super::visibility::Visibility;
use super::workloads::{self, Instance, Workloads};
use crate::endpoints;
use crate::host;
use crate::mesh::Mesh;
use crate::protocol::Protocol;

/// The services of all ServiceEntries. Several for one host in one namespace are one service: ports with new
/// numbers are added, and endpoints.
pub(crate) fn build(objects: &Objects<'_>, workloads: &Workloads, mesh: &Mesh) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let mut by_host: BTreeMap<(Arc<str>, Arc<str>), usize> = BTreeMap::new();
    for (object, entry) in &objects.service_entries {
        for service in build_entry(object, entry, workloads, mesh) {
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

fn build_entry(object: &Arc<Object>, entry: &ServiceEntry, workloads: &Workloads, mesh: &Mesh) -> Vec<Service> {
    let namespace: Arc<str> = object.metadata.namespace.clone();
    let origin = super::origin(object);
    let discovery = match entry.resolution {
        Resolution::None => Discovery::OriginalDestination,
        Resolution::Static => Discovery::Endpoints,
        Resolution::DnsRoundRobin => Discovery::DnsRoundRobin,
        Resolution::Dns | Resolution::DynamicDns => Discovery::Dns,
    };
    let by_name = matches!(discovery, Discovery::Dns | Discovery::DnsRoundRobin);
    let selector = entry.workload_selector.as_ref().map(|selector| selector.labels.clone()).unwrap_or_default();
    let inline: Vec<Instance> = entry
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(index, inline)| {
            let origin = super::origin_of_rule(object, format!("endpoints[{index}]"), inline.at);
            workloads::of_inline_entry(object, inline, origin, &object.metadata.name)
        })
        .collect();
    let service = |host_name: &str| {
        let host = host::lower(host_name);
        let ports = entry.ports.iter().map(|port| {
            let target = port.target_port.filter(|target| *target != 0).unwrap_or(port.number);
            let mut found: BTreeMap<Address, Endpoint> = BTreeMap::new();
            if discovery != Discovery::OriginalDestination {
                let selected = workloads.select(&namespace, &selector);
                for instance in inline.iter().chain(selected) {
                    let endpoint = instance.at(instance.port_named(&port.name).unwrap_or(target));
                    found.entry(endpoint.address.clone()).or_insert(endpoint);
                }
            }
            let nothing_given = entry.endpoints.is_empty() && entry.workload_selector.is_none();
            if by_name && nothing_given && !host::is_wildcard(&host) {
                let endpoint = endpoints::of_host(&host, target, &origin);
                found.insert(endpoint.address.clone(), endpoint);
            }
            let protocol = port.protocol.as_deref().unwrap_or_default();
            ServicePort {
                number: port.number,
                name: port.name.as_str().into(),
                protocol: match protocol {
                    "" => Protocol::of_service_port("", &port.name, None, port.number),
                    declared => Protocol::parse(declared).unwrap_or(Protocol::Auto),
                },
                target: Some(target),
                endpoints: found.into_values().collect(),
            }
        });
        Service {
            name: host.clone(),
            namespace: namespace.clone(),
            registry: Registry::ServiceEntry,
            addresses: addresses(entry),
            discovery,
            external: entry.location == ServiceEntryLocation::MeshExternal,
            alias_of: None,
            ports: ports.collect(),
            visibility: Visibility::build(&entry.export_to, &mesh.default_service_export_to, &namespace),
            selector: selector.clone(),
            labels: object.metadata.labels.clone(),
            created: object.metadata.creation_timestamp,
            origin: origin.clone(),
            host,
        }
    };
    entry.hosts.iter().map(|host| service(host)).collect()
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
        match known.ports.iter_mut().find(|of| of.number == port.number) {
            Some(of) => {
                for endpoint in port.endpoints {
                    if of.endpoints.iter().all(|known| known.address != endpoint.address) {
                        of.endpoints.push(endpoint);
                    }
                }
                of.endpoints.sort_by(|a, b| a.address.cmp(&b.address));
            }
            None => known.ports.push(port),
        }
    }
    for address in other.addresses {
        if !known.addresses.contains(&address) {
            known.addresses.push(address);
        }
    }
}
