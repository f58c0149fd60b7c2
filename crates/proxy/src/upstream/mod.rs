//! The upstream side of one worker: clusters with their pools, balancing and connections.

mod balance;
mod breakers;
mod cluster;
mod connection;
mod destinations;
pub(crate) mod health_check;
pub(crate) mod outlier;
mod pool;
mod previous_priorities;
mod schedule;
mod subsets;
mod window;

pub(crate) use balance::PickContext;
pub(crate) use breakers::{Breaker, Breakers};
pub(crate) use cluster::{ActiveRequest, WorkerCluster, WorkerHost};
pub(crate) use connection::{ConnectError, UpstreamConnection};
pub(crate) use pool::Refused;
pub(crate) use previous_priorities::PreviousPriorities;

use crate::http::h1::Limits;

/// Heads larger than this from an upstream break the protocol; Envoy's default for responses.
pub(crate) const RESPONSE_LIMITS: Limits =
    Limits { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: true, allow_absolute_url: true };
