//! Development only: how the books under `docs/books` are read, played and judged.
//!
//! A *book page* is Markdown: prose, fenced YAML and tables of requests with their expected verdicts. Each page is
//! played twice, on Lateen's proxy and on real Envoy, from the same YAML and against equal backends. Every row is first
//! held against what the page says, and then the two sides are held against each other in full: status, header list
//! with order, body, what the backend saw, and the access-log line.
//!
//! ```text
//! page ──book──▶ rows ──stage──▶ proxies + backends ──client──▶ transcripts ──judge──▶ complaints
//! ```
//!
//! The crate drives processes and sockets only. It links no part of Lateen, so it cannot agree with it by accident. One of
//! its tests does: it holds the data plane alone against Envoy, on Envoy resources that no Istio object compiles to.

pub mod access_log;
pub mod allowed;
pub mod backend;
pub mod behaviour;
pub mod book;
pub mod client;
pub mod counters;
pub mod envoy;
pub mod judge;
pub mod lateen;
pub mod process;
pub mod row;
pub mod stage;
pub mod wire;
