//! What is read from YAML, what is said of it, and is that what Istio says?

mod arbitrary;
mod documents;
mod envoy_filters;
mod examples;
mod fields;
mod limits;
mod mesh;
mod policies;
mod reachability;
mod rules;
mod support;
mod verdicts;
