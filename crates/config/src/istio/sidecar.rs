//! What can a Sidecar say? Its fields as Istio's API has them (`networking.istio.io/v1`, Sidecar).

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTlsSettings;
use super::virtual_service::Destination;
use super::workload::WorkloadSelector;
use crate::decode::{enumeration, message};

message! {
    /// What the sidecars of some workloads see and listen on.
    pub struct Sidecar {
        /// The workloads. Absent: all of the namespace.
        workload_selector: Option<WorkloadSelector>,
        /// What is listened on for the workload. Empty: the ports of its services.
        ingress: Vec<IstioIngressListener>,
        /// What the workload can reach. Empty: everything.
        egress: Vec<IstioEgressListener>,
        /// Limits of connections and requests to the workload.
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to requests for unknown hosts. Absent: as the mesh says.
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }

    /// A port that a sidecar listens on for its workload.
    pub struct IstioIngressListener {
        /// The port.
        port: SidecarPort,
        /// Address to listen on.
        bind: Option<String>,
        /// How traffic comes there.
        capture_mode: CaptureMode,
        /// Where the workload listens: `address:port` or `unix://` and a path. Absent: the same port.
        default_endpoint: Option<String>,
        /// TLS.
        tls: Option<ServerTlsSettings>,
        /// Limits of connections and requests.
        connection_pool: Option<ConnectionPoolSettings>,
    }

    /// A port that a sidecar listens on for requests of its workload, or all of them.
    pub struct IstioEgressListener {
        /// The port. Absent: all that no other listener has.
        port: Option<SidecarPort>,
        /// Address to listen on.
        bind: Option<String>,
        /// How traffic comes there.
        capture_mode: CaptureMode,
        /// Hosts that can be reached, each with its namespace: `namespace/host`.
        hosts: Vec<String>,
    }

    /// A port that a sidecar listens on.
    pub struct SidecarPort {
        /// Number.
        number: Option<u32>,
        /// What is spoken on it.
        protocol: Option<String>,
        /// Name.
        name: Option<String>,
        /// Not looked at.
        target_port: Option<u32>,
    }

    /// What happens to requests for unknown hosts.
    pub struct OutboundTrafficPolicy {
        /// What happens. Absent here is not the same as an absent policy.
        mode: OutboundTrafficPolicyMode,
        /// Where they are sent.
        egress_proxy: Option<Destination>,
    }
}

enumeration! {
    /// How traffic comes to a listener.
    pub enum CaptureMode {
        /// As the mesh does it.
        Default = 0 "DEFAULT",
        /// By redirection.
        Iptables = 1 "IPTABLES",
        /// Clients connect to it.
        None = 2 "NONE",
    }

    /// What happens to requests for unknown hosts.
    pub enum OutboundTrafficPolicyMode {
        /// They are refused.
        RegistryOnly = 0 "REGISTRY_ONLY",
        /// They are forwarded.
        AllowAny = 1 "ALLOW_ANY",
        /// They are forwarded to the addresses of the name.
        AllowAnyDynamicDns = 2 "ALLOW_ANY_DYNAMIC_DNS",
    }
}
