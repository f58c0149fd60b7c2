//! To which priorities may a retry go? Envoy's `previous_priorities`: every so many attempts those that were tried are
//! left out, until none is left; then all of them count again.

use crate::snapshot::endpoints::Endpoints;
use crate::snapshot::host_sets::{Availability, HostSets, Load};

/// What the attempts of one request so far mean for the shares of the priorities.
#[derive(Debug)]
pub(crate) struct PreviousPriorities {
    /// `update_frequency`, at least 1.
    every: usize,
    attempted: Vec<u32>,
    excluded: Vec<bool>,
    loads: Option<Vec<Load>>,
}

impl PreviousPriorities {
    /// Before the first attempt.
    pub(crate) fn new(every: u32) -> Self {
        Self { every: every.max(1) as usize, attempted: Vec::new(), excluded: Vec::new(), loads: None }
    }

    /// A host was tried.
    pub(crate) fn attempted(&mut self, host: u32) {
        self.attempted.push(host);
    }

    /// The shares for the next retry; `None` is those that follow from health alone.
    pub(crate) fn loads(&mut self, endpoints: &Endpoints, sets: &HostSets) -> Option<&[Load]> {
        if self.attempted.len() < self.every {
            return None;
        }
        if self.attempted.len().is_multiple_of(self.every) {
            self.excluded.resize(sets.levels.len(), false);
            for host in &self.attempted {
                let priority = endpoints.hosts.get(*host as usize).map(|host| host.priority as usize);
                if let Some(excluded) = priority.and_then(|priority| self.excluded.get_mut(priority)) {
                    *excluded = true;
                }
            }
            self.loads = self.adjusted(sets);
        }
        self.loads.as_deref()
    }

    fn adjusted(&mut self, sets: &HostSets) -> Option<Vec<Load>> {
        let loads = spread(sets, &self.excluded);
        if loads.is_some() {
            return loads;
        }
        self.excluded.fill(false);
        self.attempted.clear();
        spread(sets, &self.excluded)
    }
}

/// The shares without some priorities; `None` when nothing is left.
fn spread(sets: &HostSets, excluded: &[bool]) -> Option<Vec<Load>> {
    let availability: Vec<Availability> = sets
        .levels
        .iter()
        .zip(excluded)
        .map(|(level, excluded)| if *excluded { Availability::default() } else { level.availability })
        .collect();
    let sum: u32 = availability.iter().map(|level| level.healthy + level.degraded).sum();
    let total = sum.min(100);
    if total == 0 {
        return None;
    }
    let mut loads = vec![Load::default(); availability.len()];
    let mut left = 100;
    // What rounding leaves goes round once more.
    while left > 0 {
        for (load, level) in loads.iter_mut().zip(&availability) {
            let share = (level.healthy * 100 / total).min(left);
            load.healthy += share;
            left -= share;
        }
        for (load, level) in loads.iter_mut().zip(&availability) {
            let share = (level.degraded * 100 / total).min(left);
            load.degraded += share;
            left -= share;
        }
    }
    Some(loads)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::cluster::ClusterConfig;
    use crate::snapshot::endpoints::{HostStates, Resolved};

    /// One host for each priority, of this health.
    fn levels(health: &[&str]) -> (Endpoints, HostSets) {
        let config = ClusterConfig::build(&lateen_xds::json::parse(json!({"name": "c"})).unwrap()).unwrap();
        let groups = (0_u16..).zip(health).map(|(priority, health)| {
            let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 1000 + priority}});
            json!({"priority": priority,
                   "lb_endpoints": [{"health_status": health, "endpoint": {"address": address}}]})
        });
        let groups: Vec<Value> = groups.collect();
        let assignment = lateen_xds::json::parse(json!({"cluster_name": "c", "endpoints": groups})).unwrap();
        let endpoints =
            Endpoints::build(&config, &assignment, &Resolved::new(), &mut HostStates::new(), Instant::now()).unwrap();
        let sets = HostSets::build(&config.balancing, &endpoints);
        (endpoints, sets)
    }

    fn shares(loads: Option<&[Load]>) -> Option<Vec<u32>> {
        Some(loads?.iter().map(|load| load.healthy).collect())
    }

    #[test]
    fn each_retry_goes_one_priority_further_and_then_begins_again() {
        let (endpoints, sets) = levels(&["HEALTHY", "HEALTHY", "HEALTHY"]);
        let mut previous = PreviousPriorities::new(1);
        assert_eq!(previous.loads(&endpoints, &sets), None);
        let mut seen = Vec::new();
        for host in 0..3 {
            previous.attempted(host);
            seen.push(shares(previous.loads(&endpoints, &sets)).unwrap());
        }
        assert_eq!(seen, [[0, 100, 0], [0, 0, 100], [100, 0, 0]]);
        assert_eq!(previous.loads(&endpoints, &sets), None);
    }

    #[test]
    fn priorities_are_left_out_every_so_many_attempts() {
        let (endpoints, sets) = levels(&["HEALTHY", "HEALTHY"]);
        let mut previous = PreviousPriorities::new(2);
        previous.attempted(0);
        assert_eq!(previous.loads(&endpoints, &sets), None);
        previous.attempted(0);
        assert_eq!(shares(previous.loads(&endpoints, &sets)), Some(vec![0, 100]));
        previous.attempted(1);
        assert_eq!(shares(previous.loads(&endpoints, &sets)), Some(vec![0, 100]));
    }

    #[test]
    fn unhealthy_priorities_get_nothing_and_alone_change_nothing() {
        let (endpoints, sets) = levels(&["HEALTHY", "UNHEALTHY", "HEALTHY"]);
        let mut previous = PreviousPriorities::new(1);
        previous.attempted(0);
        assert_eq!(shares(previous.loads(&endpoints, &sets)), Some(vec![0, 0, 100]));
        let (endpoints, sets) = levels(&["UNHEALTHY", "UNHEALTHY"]);
        let mut previous = PreviousPriorities::new(1);
        previous.attempted(0);
        assert_eq!(previous.loads(&endpoints, &sets), None);
    }
}
