//! What can a Namespace and a Node say? All that matters of them are their labels, which are in the metadata.

use crate::decode::message;

message! {
    /// A namespace: its name, labels and annotations are what matters.
    pub struct Namespace {}

    /// A machine: its labels tell the locality of its Pods.
    pub struct Node {
        /// What it is.
        status: NodeStatus = NodeStatus::default(),
    }

    /// What a machine is.
    pub struct NodeStatus {
        /// Addresses.
        addresses: Vec<NodeAddress>,
    }

    /// An address of a machine.
    pub struct NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname` ….
        r#type: Option<String>,
        /// The address.
        address: Option<String>,
    }
}
