//! What can a Service say? The fields of `v1` Service that the mesh depends on.

use std::collections::BTreeMap;

use crate::decode::{IntOrString, enumeration, message};

message! {
    /// The root of a Service.
    pub(crate) struct ServiceRoot {
        /// Its content.
        spec: Option<Service>,
    }

    /// A service.
    pub struct Service {
        /// Ports.
        ports: Vec<ServicePort>,
        /// Labels of its Pods. Empty: its endpoints are written by hand.
        selector: BTreeMap<String, String>,
        /// How it is reached.
        r#type: ServiceType,
        /// Virtual address; `None` (the text) for a headless service.
        cluster_ip as "clusterIP": Option<String>,
        /// Virtual addresses of both families.
        cluster_ips as "clusterIPs": Vec<String>,
        /// Addresses from outside.
        external_ips as "externalIPs": Vec<String>,
        /// Host that it is another name for, if its type is `ExternalName`.
        external_name: Option<String>,
        /// `Cluster` or `Local`: whether only workloads of the client's node are used.
        internal_traffic_policy: Option<String>,
        /// Whether workloads count before they are ready.
        publish_not_ready_addresses: bool,
        /// `ClientIP` or `None`.
        session_affinity: Option<String>,
        /// Preference for near workloads, for example `PreferClose`.
        traffic_distribution: Option<String>,
    }

    /// A port of a service.
    pub struct ServicePort {
        /// Name; its first part tells the protocol.
        name: Option<String>,
        /// Number that clients use.
        port: u32,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: Option<String>,
        /// Port of the workloads: a number, or the name of a container's port. Absent: `port`.
        target_port: Option<IntOrString>,
        /// What is spoken on it.
        app_protocol: Option<String>,
        /// Port of the nodes.
        node_port: Option<u32>,
    }
}

enumeration! {
    /// How a Service is reached.
    pub enum ServiceType {
        /// At a virtual address.
        ClusterIp = 0 "ClusterIP",
        /// At a port of every node too.
        NodePort = 1 "NodePort",
        /// At an address from outside too.
        LoadBalancer = 2 "LoadBalancer",
        /// It is another name for a host.
        ExternalName = 3 "ExternalName",
    }
}

impl Service {
    /// True when clients choose among the workloads themselves.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.as_deref() == Some("None")
    }
}
