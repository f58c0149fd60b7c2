//! What can Endpoints and EndpointSlices say? The fields of `v1` Endpoints and `discovery.k8s.io/v1` EndpointSlice
//! that the mesh depends on.

use std::collections::BTreeMap;

use crate::decode::{enumeration, message};

message! {
    /// The addresses behind a Service of the same name.
    pub struct Endpoints {
        /// Addresses with their ports.
        subsets: Vec<EndpointSubset>,
    }

    /// Addresses that have the same ports.
    pub struct EndpointSubset {
        /// Those that are ready.
        addresses: Vec<EndpointAddress>,
        /// Those that are not.
        not_ready_addresses: Vec<EndpointAddress>,
        /// Their ports.
        ports: Vec<EndpointPort>,
    }

    /// An address.
    pub struct EndpointAddress {
        /// IP address.
        ip: String,
        /// Name of the host.
        hostname: Option<String>,
        /// Node that it is on.
        node_name: Option<String>,
        /// The Pod behind it.
        target_ref: Option<ObjectReference>,
    }

    /// A port of workloads.
    pub struct EndpointPort {
        /// Name, the same as that of the Service's port.
        name: Option<String>,
        /// Number. Absent: any.
        port: Option<u32>,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: Option<String>,
        /// What is spoken on it.
        app_protocol: Option<String>,
    }

    /// Another object.
    pub struct ObjectReference {
        /// Kind.
        kind: Option<String>,
        /// Namespace.
        namespace: Option<String>,
        /// Name.
        name: Option<String>,
        /// Unique identifier.
        uid: Option<String>,
    }

    /// Some of the addresses behind a Service, which the label `kubernetes.io/service-name` names.
    pub struct EndpointSlice {
        /// What the addresses are.
        address_type: AddressType,
        /// Addresses.
        endpoints: Vec<Endpoint>,
        /// Ports of all of them.
        ports: Vec<EndpointPort>,
    }

    /// A workload.
    pub struct Endpoint {
        /// Its addresses, all of which are the same workload; the first counts.
        addresses: Vec<String>,
        /// Its state.
        conditions: Option<EndpointConditions>,
        /// Name of the host.
        hostname: Option<String>,
        /// The Pod behind it.
        target_ref: Option<ObjectReference>,
        /// Node that it is on.
        node_name: Option<String>,
        /// Zone that it is in.
        zone: Option<String>,
        /// Labels about its place, in old versions of the API.
        deprecated_topology: BTreeMap<String, String>,
    }

    /// State of a workload.
    pub struct EndpointConditions {
        /// It takes requests. Absent: yes.
        ready: Option<bool>,
        /// It could take requests, also when it goes away. Absent: as `ready`.
        serving: Option<bool>,
        /// It goes away. Absent: no.
        terminating: Option<bool>,
    }
}

enumeration! {
    /// What the addresses of an EndpointSlice are.
    pub enum AddressType {
        /// IPv4 addresses.
        Ipv4 = 0 "IPv4",
        /// IPv6 addresses.
        Ipv6 = 1 "IPv6",
        /// DNS names.
        Fqdn = 2 "FQDN",
    }
}
