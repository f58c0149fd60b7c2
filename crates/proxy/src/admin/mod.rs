//! Envoy's administration interface.
