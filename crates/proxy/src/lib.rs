//! The data plane: Envoy xDS in, traffic through. Knows no Istio.
//!
//! # The walk of a request
//!
//! `worker::accept` takes the connection; `http::connection::serve` waits for requests on it; `http::exchange::run` is
//! one request: its head is received (`http::h1`), prepared (`http::ingress`: 400), routed (`http::router::select`:
//! 404), and answered by the route (redirect, direct response) or forwarded (`http::router::forward`): pick a host
//! (503 UH), check out or make a connection (503 UF), send, await the response, retry, stream it back. Every response
//! leaves by `exchange::finish_response_head`, every exchange ends in `exchange::finish` (counters, access log).
//!
//! # The walk of a configuration
//!
//! [`Proxy::apply`] hands an `XdsSet` to the engine; [`snapshot::build::Builder`] makes a [`snapshot::Snapshot`] of it,
//! in which what did not change keeps its identity; every worker adopts it as its own view.

mod access_log;
pub mod admin;
mod alarm;
mod engine;
pub mod http;
pub mod snapshot;
pub mod stats;
mod upstream;
mod view;
mod worker;

pub use engine::{Applied, Current, Options, Proxy, Status};
pub use snapshot::build::Rejection;
pub use snapshot::limitation::Limitation;
