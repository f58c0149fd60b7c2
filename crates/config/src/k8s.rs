//! What do the objects of Kubernetes say that the mesh depends on? Only the fields that matter here; Kubernetes owns
//! these types, so fields that are not here are passed over.

pub(crate) mod config;
pub(crate) mod endpoints;
pub(crate) mod ingress;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod service;
