//! Which objects of which kind are there, and in which order? Oldest first: by creation time, then name, then
//! namespace, whatever the order in which they were read.

use std::sync::Arc;

use lateen_config::{
    DestinationRule, EndpointSlice, Endpoints, EnvoyFilter, Gateway, Ingress, IngressClass, Object, PeerAuthentication,
    Pod, Service, ServiceEntry, Sidecar, Spec, Telemetry, VirtualService, WorkloadEntry,
};

/// Oldest first: by creation time, then name, then namespace.
pub(crate) fn age(object: &Object) -> (Option<i64>, &str, &str) {
    let metadata = &object.metadata;
    (metadata.creation_timestamp, &metadata.name, &metadata.namespace)
}

/// An object with its typed content.
pub(crate) type Typed<'a, T> = (&'a Arc<Object>, &'a T);

/// Objects by kind, each list sorted.
#[derive(Default)]
pub(crate) struct Objects<'a> {
    pub(crate) virtual_services: Vec<Typed<'a, VirtualService>>,
    pub(crate) destination_rules: Vec<Typed<'a, DestinationRule>>,
    pub(crate) gateways: Vec<Typed<'a, Gateway>>,
    pub(crate) service_entries: Vec<Typed<'a, ServiceEntry>>,
    pub(crate) workload_entries: Vec<Typed<'a, WorkloadEntry>>,
    pub(crate) sidecars: Vec<Typed<'a, Sidecar>>,
    pub(crate) peer_authentications: Vec<Typed<'a, PeerAuthentication>>,
    pub(crate) telemetries: Vec<Typed<'a, Telemetry>>,
    pub(crate) envoy_filters: Vec<Typed<'a, EnvoyFilter>>,
    pub(crate) ingresses: Vec<Typed<'a, Ingress>>,
    pub(crate) ingress_classes: Vec<Typed<'a, IngressClass>>,
    pub(crate) services: Vec<Typed<'a, Service>>,
    pub(crate) endpoints: Vec<Typed<'a, Endpoints>>,
    pub(crate) endpoint_slices: Vec<Typed<'a, EndpointSlice>>,
    pub(crate) pods: Vec<Typed<'a, Pod>>,
    pub(crate) nodes: Vec<&'a Arc<Object>>,
    pub(crate) namespaces: Vec<&'a Arc<Object>>,
    /// Everything else.
    pub(crate) others: Vec<&'a Arc<Object>>,
}

impl<'a> Objects<'a> {
    /// Sorts objects apart.
    pub(crate) fn build(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> Objects<'a> {
        let mut sorted: Vec<&Arc<Object>> = objects.into_iter().collect();
        sorted.sort_by(|a, b| age(a).cmp(&age(b)));
        let mut by_kind = Objects::default();
        for object in sorted {
            match &object.spec {
                Spec::VirtualService(spec) => by_kind.virtual_services.push((object, spec)),
                Spec::DestinationRule(spec) => by_kind.destination_rules.push((object, spec)),
                Spec::Gateway(spec) => by_kind.gateways.push((object, spec)),
                Spec::ServiceEntry(spec) => by_kind.service_entries.push((object, spec)),
                Spec::WorkloadEntry(spec) => by_kind.workload_entries.push((object, spec)),
                Spec::Sidecar(spec) => by_kind.sidecars.push((object, spec)),
                Spec::PeerAuthentication(spec) => by_kind.peer_authentications.push((object, spec)),
                Spec::Telemetry(spec) => by_kind.telemetries.push((object, spec)),
                Spec::EnvoyFilter(spec) => by_kind.envoy_filters.push((object, spec)),
                Spec::Ingress(spec) => by_kind.ingresses.push((object, spec)),
                Spec::IngressClass(spec) => by_kind.ingress_classes.push((object, spec)),
                Spec::Service(spec) => by_kind.services.push((object, spec)),
                Spec::Endpoints(spec) => by_kind.endpoints.push((object, spec)),
                Spec::EndpointSlice(spec) => by_kind.endpoint_slices.push((object, spec)),
                Spec::Pod(spec) => by_kind.pods.push((object, spec)),
                Spec::Node(_) => by_kind.nodes.push(object),
                Spec::Namespace(_) => by_kind.namespaces.push(object),
                _ => by_kind.others.push(object),
            }
        }
        by_kind
    }
}
