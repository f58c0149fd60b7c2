//! What does every process of Lateen need, whatever it does? Counters and histograms and their text forms, logs, drain,
//! and a small admin HTTP server.
//!
//! Invariant: this crate knows nothing of meshes, proxies or configuration.

pub mod counter;
pub mod histogram;

pub use counter::{Counter, Gauge};
pub use histogram::{Distribution, Histogram};
