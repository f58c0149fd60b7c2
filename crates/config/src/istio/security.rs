//! What can a PeerAuthentication say? Its fields as Istio's API has them (`security.istio.io/v1`,
//! PeerAuthentication).

use std::collections::BTreeMap;

use crate::decode::{enumeration, message};
use crate::istio::destination_rule::MatchLabelsSelector;

message! {
    /// Whether workloads take connections without mutual TLS.
    pub struct PeerAuthentication {
        /// The workloads. Absent: all of the namespace, or of the mesh if it is the root namespace.
        selector: Option<MatchLabelsSelector>,
        /// What holds for all ports.
        mtls: Option<MutualTls>,
        /// What holds for single ports of the workloads.
        port_level_mtls: BTreeMap<u32, MutualTls>,
    }

    /// Whether connections without mutual TLS are taken.
    pub struct MutualTls {
        /// Which connections.
        mode: MutualTlsMode,
    }
}

enumeration! {
    /// Which connections are taken.
    pub enum MutualTlsMode {
        /// As the wider policy says; without one, both.
        Unset = 0 "UNSET",
        /// Only those without mutual TLS.
        Disable = 1 "DISABLE",
        /// Both.
        Permissive = 2 "PERMISSIVE",
        /// Only those with mutual TLS.
        Strict = 3 "STRICT",
    }
}
