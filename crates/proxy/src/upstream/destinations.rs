//! The hosts of an `ORIGINAL_DST` cluster: wherever clients wanted to go lately.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::WorkerHost;
use crate::snapshot::Cluster;
use crate::snapshot::endpoints::Endpoint;
use crate::snapshot::host::HostState;

/// Most destinations of one cluster and worker at a time: clients choose them, so their number must have an end.
const MAX_DESTINATIONS: usize = 4096;

/// The destinations of one worker's cluster.
#[derive(Debug, Default)]
pub(super) struct Destinations(RefCell<BTreeMap<SocketAddr, Destination>>);

#[derive(Debug)]
struct Destination {
    host: Rc<WorkerHost>,
    last_used: Cell<Instant>,
}

impl Destinations {
    /// The host of an address; `None` when there are too many.
    pub(super) fn host(
        &self,
        address: SocketAddr,
        cluster: &Cluster,
        worker: usize,
        now: Instant,
    ) -> Option<Rc<WorkerHost>> {
        let mut known = self.0.borrow_mut();
        if let Some(destination) = known.get(&address) {
            destination.last_used.set(now);
            return Some(destination.host.clone());
        }
        if known.len() >= MAX_DESTINATIONS {
            return None;
        }
        let endpoint = Arc::new(Endpoint::of_destination(address, Arc::new(HostState::new(now))));
        let host = Rc::new(WorkerHost::new(endpoint, cluster, worker));
        known.insert(address, Destination { host: host.clone(), last_used: Cell::new(now) });
        Some(host)
    }

    /// Forgets destinations that nobody asked for so long, and closes what is too old of the others.
    pub(super) fn sweep(&self, unused: Duration, now: Instant) {
        self.0.borrow_mut().retain(|_, destination| {
            let keep = now.saturating_duration_since(destination.last_used.get()) < unused;
            if keep {
                destination.host.sweep(now);
            } else {
                destination.host.retire();
            }
            keep
        });
    }

    /// Closes all connections that are not in use.
    pub(super) fn retire(&self) {
        for (_, destination) in self.0.take() {
            destination.host.retire();
        }
    }
}
