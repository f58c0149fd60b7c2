//! Text to typed resources of Istio and Kubernetes, each with its place, and what is wrong with them.
//!
//! [`parse`] reads the documents of one [`SourceFile`], [`load`] those of several. Both give the [`Object`]s that can
//! be used and [`Diagnostic`]s for the rest: one broken document does not take its neighbours with it, and all
//! problems of an object are found, not only the first.
//!
//! ```
//! use lateen_config::{SourceFile, Spec, parse};
//!
//! let file = SourceFile::new("reviews.yaml", "\
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!   - route:
//!     - destination: {host: reviews, subset: v2}
//! ");
//! let parsed = parse(&file);
//! assert!(parsed.diagnostics.is_empty());
//! let Spec::VirtualService(reviews) = &parsed.objects[0].spec else { panic!() };
//! assert_eq!(reviews.http[0].at.to_string(), "7:5");
//! ```
//!
//! No IO, no clock: a text comes in, values go out.

mod decode;
mod diagnostic;
mod duration;
mod istio;
mod k8s;
mod kind;
mod load;
mod mesh;
mod metadata;
mod node;
mod object;
mod position;
mod validate;
mod yaml;

pub use decode::IntOrString;
pub use diagnostic::{Diagnostic, Severity, Subject, code, render};
pub use duration::{DurationError, parse_duration};
pub use istio::destination_rule::*;
pub use istio::envoy_filter::*;
pub use istio::gateway::*;
pub use istio::proxy_config::*;
pub use istio::security::*;
pub use istio::service_entry::*;
pub use istio::sidecar::*;
pub use istio::telemetry::*;
pub use istio::virtual_service::*;
pub use istio::workload::*;
pub use k8s::config::*;
pub use k8s::endpoints::*;
pub use k8s::ingress::*;
pub use k8s::node::*;
pub use k8s::pod::*;
pub use k8s::service::*;
pub use kind::Kind;
pub use load::{
    ParseOptions, Parsed, ParsedDocument, drop_duplicates, load, load_with, parse, parse_documents, parse_json,
    parse_with,
};
pub use mesh::*;
pub use metadata::{Metadata, OwnerReference};
pub use object::{Object, Opaque, Source, Spec};
pub use position::{Location, Position, SourceFile};
