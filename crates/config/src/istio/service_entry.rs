//! What can a ServiceEntry say? Its fields as Istio's API has them (`networking.istio.io/v1`, ServiceEntry).

use super::workload::{WorkloadEntry, WorkloadSelector};
use crate::decode::{enumeration, message};

message! {
    /// Hosts that are services although Kubernetes does not know them.
    pub struct ServiceEntry {
        /// The hosts, perhaps with a wildcard in front.
        hosts: Vec<String>,
        /// Virtual addresses, each an IP address or a CIDR.
        addresses: Vec<String>,
        /// Ports.
        ports: Vec<ServiceEntryPort>,
        /// Whether it belongs to the mesh.
        location: ServiceEntryLocation,
        /// How its workloads are found.
        resolution: Resolution,
        /// Its workloads.
        endpoints: Vec<WorkloadEntry>,
        /// Choice of WorkloadEntries and Pods as its workloads.
        workload_selector: Option<WorkloadSelector>,
        /// Namespaces that see it: `*`, `.`, `~` (none) or a name. Empty: as the mesh says.
        export_to: Vec<String>,
        /// Names of which the workloads' certificates have to have one.
        subject_alt_names: Vec<String>,
    }

    /// A port of a service.
    pub struct ServiceEntryPort {
        /// Number that clients use.
        number: u32,
        /// What is spoken on it, for example `HTTP`; upper and lower case are equal. Absent: it is found out.
        protocol: Option<String>,
        /// Name.
        name: String,
        /// Port of the workloads. Absent: `number`.
        target_port: Option<u32>,
    }
}

enumeration! {
    /// Whether a ServiceEntry belongs to the mesh.
    pub enum ServiceEntryLocation {
        /// It is outside: no mutual TLS.
        MeshExternal = 0 "MESH_EXTERNAL",
        /// It is a part.
        MeshInternal = 1 "MESH_INTERNAL",
    }

    /// How the workloads of a ServiceEntry are found.
    pub enum Resolution {
        /// Wherever the client wanted to go.
        None = 0 "NONE",
        /// At fixed addresses.
        Static = 1 "STATIC",
        /// At all addresses of a name.
        Dns = 2 "DNS",
        /// At the first address of a name.
        DnsRoundRobin = 3 "DNS_ROUND_ROBIN",
        /// At the addresses of the name that the client asked for.
        DynamicDns = 4 "DYNAMIC_DNS",
    }
}
