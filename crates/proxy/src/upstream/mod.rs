//! The upstream side of one worker: clusters with their pools, balancing and connections.

mod balance;
mod cluster;
mod connection;

pub(crate) use balance::PickContext;
pub(crate) use cluster::{ActiveRequest, WorkerCluster, WorkerHost};
pub(crate) use connection::{ConnectError, UpstreamConnection};
