//! The upstream side of one worker: clusters with their pools, balancing and connections.

mod balance;
mod connection;
mod cluster;

pub(crate) use balance::PickContext;
pub(crate) use cluster::{WorkerCluster, WorkerHost};
pub(crate) use connection::{ConnectError, UpstreamConnection};
