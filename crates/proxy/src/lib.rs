//! The data plane: Envoy xDS in, traffic through. Knows no Istio.

pub mod admin;
pub mod http;
pub mod snapshot;
pub mod stats;
