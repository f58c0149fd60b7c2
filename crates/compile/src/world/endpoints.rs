//! Who answers for each port of each service? Kept apart from the services: workloads come and go far more often than
//! services change, and nothing but endpoint assignments should notice.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Object, Spec};

use super::kubernetes::Sources;
use super::objects::Objects;
use super::service_entries;
use super::services::{Address, Endpoint, Service, ServicePort};
use super::workloads::Workloads;

/// The endpoints of all ports of all services, each list in order of address.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// By index of the service, then of the port.
    lists: Vec<Vec<Arc<[Endpoint]>>>,
}

impl Endpoints {
    /// Collects the endpoints of services that are in their final order. A list that equals the one that `previous`
    /// has at the same place is the very same one, so identity tells whether something changed.
    pub(crate) fn build(
        services: &[Arc<Service>],
        objects: &Objects<'_>,
        workloads: &Workloads,
        previous: Option<&Endpoints>,
    ) -> Endpoints {
        let sources = Sources::build(objects, workloads);
        let list = |service: &Service, port: &ServicePort| -> Arc<[Endpoint]> {
            let found = collect(service, port, &sources, workloads);
            let known = previous.and_then(|previous| previous.lists.get(service.index)?.get(port.index));
            match known {
                Some(known) if **known == *found => known.clone(),
                _ => found.into(),
            }
        };
        let lists = services.iter().map(|service| service.ports.iter().map(|port| list(service, port)).collect());
        Endpoints { lists: lists.collect() }
    }

    /// The endpoints of a port.
    pub(crate) fn of(&self, service: &Service, port: &ServicePort) -> Option<&Arc<[Endpoint]>> {
        self.lists.get(service.index)?.get(port.index)
    }
}

fn collect(service: &Service, port: &ServicePort, sources: &Sources<'_>, workloads: &Workloads) -> Vec<Endpoint> {
    let of_source = |object: &Arc<Object>| match &object.spec {
        Spec::Service(spec) => sources.endpoints(object, spec, port),
        Spec::ServiceEntry(entry) => service_entries::endpoints(object, entry, &service.host, port.number, workloads),
        _ => Vec::new(),
    };
    if let [only] = service.sources.as_slice() {
        return of_source(only);
    }
    let mut found: BTreeMap<Address, Endpoint> = BTreeMap::new();
    for endpoint in service.sources.iter().flat_map(of_source) {
        found.entry(endpoint.address.clone()).or_insert(endpoint);
    }
    found.into_values().collect()
}
