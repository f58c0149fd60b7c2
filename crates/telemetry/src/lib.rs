//! What does every process of Lateen need, whatever it does? Counters and histograms and their text forms, logs, drain,
//! and a small admin HTTP server.
//!
//! Invariant: this crate knows nothing of meshes, proxies or configuration.

pub mod admin;
pub mod counter;
pub mod drain;
pub mod histogram;
pub mod log;
pub mod render;
pub mod sample;

pub use counter::{Counter, Gauge};
pub use histogram::{Distribution, Histogram};
pub use sample::{Reading, Sample, Scope, Value};
