//! Istio resources in, Envoy xDS out.
//!
//! Two steps, both pure: [`World::build`] resolves, merges and indexes all objects of the mesh once, and [`compile`]
//! makes the configuration of one proxy from it. A proxy is described by its [`Scope`], which is everything that the
//! second step may know of it: equal scopes get equal configurations, byte for byte.
//!
//! ```
//! use lateen_compile::{Mesh, Scope, World, compile};
//!
//! let world = World::build(Vec::new(), Mesh::default());
//! let set = compile(&world, &Scope::gateway("istio-system"));
//! assert!(set.clusters.contains_key("BlackHoleCluster"));
//! ```
//!
//! What is there: HTTP through gateways and sidecars. What an object asks for and is not compiled yet is said in
//! [`World::diagnostics`], never passed over in silence.

mod access_log;
mod auto_passthrough;
mod clusters;
mod compiler;
mod context;
mod dynamic_dns;
mod endpoints;
pub mod explain;
mod gateway_ports;
mod hcm;
pub mod host;
mod identity;
mod inbound;
mod istio_proxy;
mod l4;
mod listeners;
mod local;
mod locality;
mod mesh;
mod message;
pub mod names;
mod patched;
pub mod patches;
mod policy;
mod protocol;
mod provider;
mod routes;
mod scope;
mod tls;
mod tracing;
pub mod world;

pub use access_log::{DEFAULT_JSON_FORMAT, DEFAULT_TEXT_FORMAT};
pub use compiler::Compiler;
pub use local::{HiddenListener, Local, LocalCompiler, LocalScope, compile_local};
pub use mesh::{AccessLog, AccessLogEncoding, Mesh, OutboundTrafficPolicy, PathNormalization};
pub use protocol::Protocol;
pub use scope::{Capability, Interception, Listen, PortMapping, Role, Scope};
pub use world::World;

use lateen_config::Diagnostic;
use lateen_xds::XdsSet;

/// The configuration of one proxy. A [`Compiler`] makes the same, and remembers it for the next world.
pub fn compile(world: &World, scope: &Scope) -> XdsSet {
    Compiler::new(scope.clone()).compile(world)
}

/// As [`compile`], with what is to be said about it: see [`Compiler::diagnostics`].
pub fn compile_and_report(world: &World, scope: &Scope) -> (XdsSet, Vec<Diagnostic>) {
    let mut compiler = Compiler::new(scope.clone());
    let set = compiler.compile(world);
    (set, compiler.diagnostics())
}
