//! What do Lateen's halves say to each other? Envoy's own xDS v3 messages, and the set of them that one proxy runs.
//!
//! * [`envoy`], [`xds`] and their neighbours: the messages, generated from `proto/envoy.binpb`. Nothing is mirrored or
//!   renamed, so what Envoy's documentation says about a field holds here.
//! * [`XdsSet`]: every resource of one proxy by type and name, each with a [`Version`] and the [`Origin`] of its parts.
//! * [`any`]: `google.protobuf.Any` in and out of typed messages.
//! * [`json`]: messages as JSON, in Envoy's spelling, and back.
//! * [`merge`]: one message merged into another, as Istio's patches do it.
//! * [`bootstrap`]: the set as a bootstrap file that Envoy runs, and bootstrap files read into a set.
//! * [`re2`]: the expressions of Envoy's matchers, for the `regex` crates.
//!
//! Invariant: equal content encodes to equal bytes (maps are ordered), so a version is a content hash and stays the
//! same across processes and restarts.

pub mod any;
pub mod bootstrap;
mod fields;
pub mod json;
pub mod merge;
mod messages;
mod origin;
pub mod re2;
mod schema;
mod set;
mod wire;
pub mod yaml;

pub use messages::{cel, envoy, google, io, opentelemetry, ratelimit, udpa, xds};
pub use origin::{Origin, Part};
pub use set::{Changes, Diff, Resource, ResourceMessage, ResourceType, Version, XdsSet};
