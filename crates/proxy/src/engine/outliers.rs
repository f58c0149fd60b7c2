//! Which clusters are watched for outliers, and who sweeps them?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Event;
use crate::snapshot::cluster::OutlierDetection;
use crate::snapshot::host::HostState;
use crate::snapshot::{Cluster, Snapshot};
use crate::upstream::outlier::{Changes, Detector, Outlier};

/// The watched clusters by name.
pub(super) struct Outliers {
    watched: BTreeMap<Arc<str>, Watched>,
    events: UnboundedSender<Event>,
    rng: Rng,
}

struct Watched {
    detector: Detector,
    cluster: Arc<Cluster>,
    sweeps: JoinHandle<()>,
}

impl Outliers {
    pub(super) fn new(events: UnboundedSender<Event>) -> Self {
        Self { watched: BTreeMap::new(), events, rng: Rng::new() }
    }

    /// Watches the clusters of a snapshot that have outlier detection. Returns those whose hosts are let in again
    /// because nobody watches them any more.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        let mut released = Vec::new();
        let mut gone = std::mem::take(&mut self.watched);
        for cluster in snapshot.clusters.iter().flatten() {
            let name = &cluster.config.name;
            let before = gone.remove(name);
            match (&cluster.config.outlier_detection, before) {
                (Some(config), before) => {
                    let watched = self.watch(cluster, config, before);
                    self.watched.insert(name.clone(), watched);
                }
                (None, Some(before)) => {
                    before.end();
                    released.push(name.clone());
                }
                (None, None) => {}
            }
        }
        for watched in gone.into_values() {
            watched.end();
        }
        released
    }

    fn watch(&self, cluster: &Arc<Cluster>, config: &OutlierDetection, before: Option<Watched>) -> Watched {
        let counters = cluster.stats.state.outlier_detection.touch();
        let averages = cluster.stats.averages.clone();
        let mut watched = match before {
            Some(before) if Arc::ptr_eq(&before.cluster.config, &cluster.config) => before,
            Some(mut before) => {
                before.detector.reconfigure(config.clone(), averages);
                before.sweeps.abort();
                Watched { sweeps: self.sweep_every(&cluster.config.name, config.interval), ..before }
            }
            None => {
                let mut detector = Detector::new(config.clone(), averages);
                detector.watch(&cluster.endpoints, counters);
                let sweeps = self.sweep_every(&cluster.config.name, config.interval);
                return Watched { detector, cluster: cluster.clone(), sweeps };
            }
        };
        watched.detector.watch(&cluster.endpoints, counters);
        watched.cluster = cluster.clone();
        watched
    }

    fn sweep_every(&self, name: &Arc<str>, interval: Duration) -> JoinHandle<()> {
        let (name, events) = (name.clone(), self.events.clone());
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                if events.send(Event::Sweep(name.clone())).is_err() {
                    return;
                }
            }
        })
    }

    /// A worker saw a host complete a row of failures.
    pub(super) fn suspect(&mut self, cluster: &str, host: &Arc<HostState>, outlier: Outlier, now: Instant) -> Changes {
        let Some(watched) = self.watched.get_mut(cluster) else { return Changes::default() };
        let counters = watched.cluster.stats.state.outlier_detection.touch();
        watched.detector.suspect(host, outlier, counters, now, &mut self.rng)
    }

    /// An interval of a cluster ended.
    pub(super) fn sweep(&mut self, cluster: &str, now: Instant) -> Changes {
        let Some(watched) = self.watched.get_mut(cluster) else { return Changes::default() };
        let counters = watched.cluster.stats.state.outlier_detection.touch();
        watched.detector.sweep(counters, now, &mut self.rng)
    }

    /// A host passed its health check. Returns whether it was out.
    pub(super) fn readmit(&mut self, cluster: &str, host: &Arc<HostState>) -> bool {
        let Some(watched) = self.watched.get_mut(cluster) else { return false };
        let counters = watched.cluster.stats.state.outlier_detection.touch();
        watched.detector.readmit(host, counters)
    }
}

impl Watched {
    fn end(self) {
        self.sweeps.abort();
        self.detector.release(self.cluster.stats.state.outlier_detection.touch());
    }
}
