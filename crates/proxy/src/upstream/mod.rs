//! The upstream side of one worker: clusters with their pools, balancing and connections.

mod balance;
mod cluster;
mod connection;

pub(crate) use balance::PickContext;
pub(crate) use cluster::{ActiveRequest, WorkerCluster, WorkerHost};
pub(crate) use connection::{ConnectError, UpstreamConnection};

use crate::http::h1::Limits;

/// Heads larger than this from an upstream break the protocol; Envoy's default for responses.
pub(crate) const RESPONSE_LIMITS: Limits =
    Limits { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: true, allow_absolute_url: true };
