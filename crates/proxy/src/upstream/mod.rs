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
pub(crate) use pool::{Pool, Refused};
pub(crate) use previous_priorities::PreviousPriorities;
