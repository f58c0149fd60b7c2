//! Picking a host: priority level by load, then a host of that level by the cluster's policy.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use fastrand::Rng;

use crate::snapshot::cluster::{Endpoint, Endpoints, Policy};

/// What a pick depends on besides the cluster.
pub(crate) struct PickContext<'a> {
    /// Hosts (indices) that earlier attempts of this request used and that should be avoided.
    pub(crate) tried: &'a [u32],
    /// How often to pick again when the pick was tried already.
    pub(crate) reselections: u32,
}

/// The state of one worker's balancer for one cluster.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    levels: Vec<Level>,
}

/// How one priority level is walked.
#[derive(Debug)]
enum Level {
    /// Equal weights, round robin: the next position.
    Cursor(usize),
    /// Unequal weights: earliest deadline first.
    Schedule(Schedule),
    /// Chosen at random for every request.
    Memoryless,
}

impl Balancer {
    /// A balancer for these endpoints; round robin starts at a random position.
    pub(crate) fn new(policy: Policy, endpoints: &Endpoints, rng: &mut Rng) -> Self {
        let level = |eligible: &[u32], rng: &mut Rng| {
            let weights = || eligible.iter().map(|index| endpoints.hosts[*index as usize].weight);
            let equal = weights().all(|weight| Some(weight) == weights().next());
            match policy {
                Policy::Random => Level::Memoryless,
                Policy::LeastRequest { .. } if equal => Level::Memoryless,
                Policy::RoundRobin if equal => Level::Cursor(rng.usize(0..eligible.len().max(1))),
                Policy::RoundRobin | Policy::LeastRequest { .. } => {
                    let mut schedule = Schedule::new(eligible, endpoints, policy);
                    for _ in 0..rng.usize(0..eligible.len().max(1)) {
                        let _ = schedule.next(endpoints, policy);
                    }
                    Level::Schedule(schedule)
                }
            }
        };
        let levels = endpoints.priorities.iter().map(|priority| level(&priority.eligible, rng)).collect();
        Self { policy, levels }
    }

    /// Picks a host: its index, or `None` when no level has one. The second value tells whether the level is in
    /// panic mode.
    pub(crate) fn pick(
        &mut self,
        endpoints: &Endpoints,
        context: &PickContext<'_>,
        rng: &mut Rng,
    ) -> Option<(u32, bool)> {
        let mut picked = self.pick_once(endpoints, rng)?;
        for _ in 0..context.reselections {
            if !context.tried.contains(&picked.0) {
                break;
            }
            picked = self.pick_once(endpoints, rng)?;
        }
        Some(picked)
    }

    fn pick_once(&mut self, endpoints: &Endpoints, rng: &mut Rng) -> Option<(u32, bool)> {
        let level = match endpoints.priorities.as_slice() {
            [] => return None,
            [_] => 0,
            levels => {
                let point = rng.u32(0..100);
                levels.iter().position(|level| point < level.load_below)?
            }
        };
        let priority = &endpoints.priorities[level];
        let eligible = &priority.eligible;
        let index = match eligible.as_slice() {
            [] => return None,
            [only] => *only,
            _ => match &mut self.levels[level] {
                Level::Cursor(position) => {
                    *position = if *position + 1 < eligible.len() { *position + 1 } else { 0 };
                    eligible[*position]
                }
                Level::Schedule(schedule) => schedule.next(endpoints, self.policy)?,
                Level::Memoryless => match self.policy {
                    Policy::LeastRequest { choices } => least_loaded(eligible, &endpoints.hosts, choices, rng),
                    _ => eligible[rng.usize(0..eligible.len())],
                },
            },
        };
        Some((index, priority.panic))
    }
}

/// The least loaded of some random hosts; the first drawn wins a tie.
fn least_loaded(eligible: &[u32], hosts: &[std::sync::Arc<Endpoint>], choices: u32, rng: &mut Rng) -> u32 {
    let mut best = eligible[rng.usize(0..eligible.len())];
    let mut load = hosts[best as usize].state.active_requests();
    for _ in 1..choices {
        let candidate = eligible[rng.usize(0..eligible.len())];
        let candidate_load = hosts[candidate as usize].state.active_requests();
        if candidate_load < load {
            best = candidate;
            load = candidate_load;
        }
    }
    best
}

/// Earliest deadline first: a host of weight w comes up every 1/w units of virtual time.
#[derive(Debug)]
struct Schedule {
    now: f64,
    entries: u64,
    queue: BinaryHeap<Entry>,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Order of insertion, which breaks ties.
    order: u64,
    host: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed, because the heap pops its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl Schedule {
    fn new(eligible: &[u32], endpoints: &Endpoints, policy: Policy) -> Self {
        let mut schedule = Self { now: 0.0, entries: 0, queue: BinaryHeap::with_capacity(eligible.len()) };
        for host in eligible {
            schedule.insert(*host, endpoints, policy);
        }
        schedule
    }

    fn next(&mut self, endpoints: &Endpoints, policy: Policy) -> Option<u32> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        self.insert(entry.host, endpoints, policy);
        Some(entry.host)
    }

    fn insert(&mut self, host: u32, endpoints: &Endpoints, policy: Policy) {
        let endpoint = &endpoints.hosts[host as usize];
        let mut weight = f64::from(endpoint.weight);
        if matches!(policy, Policy::LeastRequest { .. }) {
            weight /= f64::from(endpoint.state.active_requests().saturating_add(1));
        }
        self.entries += 1;
        self.queue.push(Entry { deadline: self.now + 1.0 / weight, order: self.entries, host });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const FIRST: PickContext<'static> = PickContext { tried: &[], reselections: 0 };
    use crate::snapshot::cluster::{ClusterConfig, HostStates, Resolved};
    use lateen_xds::envoy::config::cluster::v3::Cluster;
    use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;

    fn endpoints(json: serde_json::Value, panic: f64) -> Endpoints {
        let cluster: Cluster = lateen_xds::json::parse(serde_json::json!({
            "name": "c", "common_lb_config": {"healthy_panic_threshold": {"value": panic}}
        }))
        .unwrap();
        let config = ClusterConfig::build(&cluster).unwrap();
        let assignment: ClusterLoadAssignment = lateen_xds::json::parse(json).unwrap();
        Endpoints::build(&config, &assignment, &Resolved::new(), &mut HostStates::new()).unwrap()
    }

    fn host(port: u16, weight: u32, health: &str) -> serde_json::Value {
        serde_json::json!({
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "load_balancing_weight": weight, "health_status": health
        })
    }

    fn counts(policy: Policy, endpoints: &Endpoints, picks: usize) -> Vec<usize> {
        let mut rng = Rng::with_seed(7);
        let mut balancer = Balancer::new(policy, endpoints, &mut rng);
        let mut counts = vec![0; endpoints.hosts.len()];
        for _ in 0..picks {
            if let Some((index, _)) = balancer.pick(endpoints, &FIRST, &mut rng) {
                counts[index as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn round_robin_with_equal_weights_gives_every_host_the_same_share() {
        let endpoints = endpoints(
            serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
                host(1, 1, "HEALTHY"), host(2, 1, "HEALTHY"), host(3, 1, "HEALTHY")]}]}),
            0.0,
        );
        assert_eq!(counts(Policy::RoundRobin, &endpoints, 300), [100, 100, 100]);
    }

    #[test]
    fn round_robin_with_weights_follows_them_in_every_period() {
        let endpoints = endpoints(
            serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
                host(1, 1, "HEALTHY"), host(2, 3, "HEALTHY"), host(3, 2, "HEALTHY")]}]}),
            0.0,
        );
        let counts = counts(Policy::RoundRobin, &endpoints, 600);
        for (count, expected) in counts.iter().zip([100_usize, 300, 200]) {
            assert!(count.abs_diff(expected) <= 2, "{counts:?}");
        }
    }

    #[test]
    fn least_request_avoids_the_busy_host_whenever_another_was_drawn() {
        let endpoints = endpoints(
            serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
                host(1, 1, "HEALTHY"), host(2, 1, "HEALTHY"), host(3, 1, "HEALTHY")]}]}),
            0.0,
        );
        endpoints.hosts[0].state.active_requests.store(9, std::sync::atomic::Ordering::Relaxed);
        let counts = counts(Policy::LeastRequest { choices: 2 }, &endpoints, 900);
        // The busy host is picked only when it was drawn twice: one time in nine.
        assert!((60..=140).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn an_unhealthy_host_is_used_only_in_panic() {
        let one_of_three = serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
            host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY"), host(3, 1, "UNHEALTHY")]}]});
        assert_eq!(counts(Policy::RoundRobin, &endpoints(one_of_three.clone(), 0.0), 30), [30, 0, 0]);
        assert_eq!(counts(Policy::RoundRobin, &endpoints(one_of_three, 50.0), 30), [10, 10, 10]);
    }

    #[test]
    fn no_host_is_picked_when_all_are_unhealthy_and_panic_is_off() {
        let none = serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
            host(1, 1, "UNHEALTHY"), host(2, 1, "DRAINING")]}]});
        assert_eq!(counts(Policy::RoundRobin, &endpoints(none, 0.0), 10), [0, 0]);
    }

    #[test]
    fn a_half_dead_priority_spills_to_the_next_by_the_overprovisioning_rule() {
        let levels = serde_json::json!({"cluster_name": "c", "endpoints": [
            {"priority": 0, "lb_endpoints": [host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY")]},
            {"priority": 1, "lb_endpoints": [host(3, 1, "HEALTHY")]}]});
        let counts = counts(Policy::RoundRobin, &endpoints(levels, 0.0), 1000);
        assert_eq!(counts[1], 0);
        assert!((640..=760).contains(&counts[0]), "70 % stay: {counts:?}");
    }

    #[test]
    fn a_tried_host_is_avoided_as_often_as_the_retry_policy_says() {
        let endpoints = endpoints(
            serde_json::json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [
                host(1, 1, "HEALTHY"), host(2, 1, "HEALTHY")]}]}),
            0.0,
        );
        let mut rng = Rng::with_seed(3);
        let mut balancer = Balancer::new(Policy::RoundRobin, &endpoints, &mut rng);
        for _ in 0..20 {
            let context = PickContext { tried: &[0], reselections: 5 };
            assert_eq!(balancer.pick(&endpoints, &context, &mut rng).map(|(index, _)| index), Some(1));
        }
    }

    #[test]
    fn a_host_whose_address_stays_keeps_its_state() {
        let cluster: Cluster = lateen_xds::json::parse(serde_json::json!({"name": "c"})).unwrap();
        let config = ClusterConfig::build(&cluster).unwrap();
        let build = |weight: u32, states: &mut HostStates| {
            let assignment: ClusterLoadAssignment = lateen_xds::json::parse(serde_json::json!(
                {"cluster_name": "c", "endpoints": [{"lb_endpoints": [host(1, weight, "HEALTHY")]}]}))
            .unwrap();
            Endpoints::build(&config, &assignment, &Resolved::new(), states).unwrap()
        };
        let mut states = HostStates::new();
        let (before, after) = (build(1, &mut states), build(2, &mut states));
        assert!(Arc::ptr_eq(&before.hosts[0].state, &after.hosts[0].state));
        assert_eq!(after.hosts[0].weight, 2);
    }
}
