//! Picking a host: priority level by load, locality by weight, then a host by the cluster's policy.

mod bounded;

use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::schedule::Schedule;
use super::subsets::{Destination, Subsets, Whose};
use crate::snapshot::cluster::{Balancing, Policy};
use crate::snapshot::endpoints::{Endpoint, Endpoints};
use crate::snapshot::host_sets::{HostSets, Level, Load};
use crate::snapshot::subset::Criteria;

/// What a pick depends on besides the cluster.
pub(crate) struct PickContext<'a> {
    /// Hosts (indices) that earlier attempts of this request used and that should be avoided.
    pub(crate) tried: &'a [u32],
    /// How often to pick again when the pick was tried already.
    pub(crate) reselections: u32,
    /// The hash of the request, if it has one.
    pub(crate) hash: Option<u64>,
    /// Shares of the levels in place of those that follow from health; not where the hash of a request decides.
    pub(crate) loads: Option<&'a [Load]>,
    /// Requests under way to the cluster, for bounded load.
    pub(crate) active: u32,
    /// Which subset is meant, where the cluster has some.
    pub(crate) criteria: Option<&'a Criteria>,
    /// This moment, for slow start.
    pub(crate) now: Instant,
}

impl PickContext<'_> {
    /// The first pick of a request that nothing is known of.
    pub(crate) fn plain(active: u32, now: Instant) -> Self {
        Self { tried: &[], reselections: 0, hash: None, loads: None, active, criteria: None, now }
    }
}

/// A host that was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Its index.
    pub(crate) host: u32,
    /// Its level is in panic mode.
    pub(crate) panic: bool,
    /// How it was found, where the cluster has subsets.
    pub(crate) found: Option<Found>,
}

/// How a host of a cluster with subsets was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is in the subset that was asked for.
    Subset,
    /// By the fallback of the cluster.
    Fallback,
}

impl Found {
    fn by_fallback(whose: Whose) -> Option<Self> {
        (whose == Whose::Cluster).then_some(Self::Fallback)
    }
}

/// The state of one worker's balancer for one cluster.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(super) sets: Arc<HostSets>,
    policy: Policy,
    fail_on_panic: bool,
    hash_balance_factor: Option<u32>,
    /// The first level takes everything and nobody asks for the hash of a request.
    simple: bool,
    levels: Vec<LevelWalk>,
    subsets: Option<Box<Subsets>>,
}

/// How one priority level is walked.
#[derive(Debug)]
struct LevelWalk {
    all: Walk,
    healthy: Walk,
    degraded: Walk,
    localities: Option<LocalityWalk>,
}

/// How the localities of a level are walked, for healthy and for degraded hosts.
#[derive(Debug)]
struct LocalityWalk {
    order: [Schedule; 2],
    hosts: Vec<[Walk; 2]>,
}

/// How some hosts are walked.
#[derive(Debug)]
enum Walk {
    /// Equal weights, round robin: the next position.
    Cursor(usize),
    /// Unequal weights: earliest deadline first.
    Schedule(Schedule),
    /// Chosen at random for every request.
    Memoryless,
}

impl Balancer {
    /// A balancer for these hosts; round robin starts at a random position.
    pub(crate) fn new(
        balancing: &Balancing,
        endpoints: &Endpoints,
        sets: &Arc<HostSets>,
        now: Instant,
        rng: &mut Rng,
    ) -> Self {
        let policy = balancing.policy;
        let mut walk = |hosts: &[u32]| Walk::new(&policy, hosts, endpoints, now, rng);
        let levels = sets.levels.iter().map(|level| LevelWalk {
            all: walk(if level.panic { &level.all } else { &[] }),
            healthy: walk(&level.healthy),
            degraded: walk(&level.degraded),
            localities: LocalityWalk::new(level, &mut walk),
        });
        let levels: Vec<_> = levels.collect();
        let simple = !policy.is_hashed() && sets.levels.first().is_some_and(|level| level.load.healthy == 100);
        let subsets = Subsets::new(balancing, endpoints, sets, now, rng);
        Self {
            sets: sets.clone(),
            policy,
            fail_on_panic: balancing.fail_on_panic,
            hash_balance_factor: balancing.hash_balance_factor,
            simple,
            levels,
            subsets,
        }
    }

    /// Picks a host, or `None` when there is none.
    pub(crate) fn pick(&mut self, endpoints: &Endpoints, context: &PickContext<'_>, rng: &mut Rng) -> Option<Picked> {
        let Some(subsets) = &mut self.subsets else { return self.pick_of_all(endpoints, context, rng) };
        let (picked, found) = match subsets.find(context.criteria) {
            Destination::Subset(balancer) => (balancer.pick(endpoints, context, rng), Some(Found::Subset)),
            Destination::Default(balancer, whose) => {
                (balancer.pick(endpoints, context, rng), Found::by_fallback(whose))
            }
            Destination::Any(whose) => (self.pick_of_all(endpoints, context, rng), Found::by_fallback(whose)),
            Destination::Nowhere => (None, None),
        };
        picked.map(|picked| Picked { found, ..picked })
    }

    fn pick_of_all(&mut self, endpoints: &Endpoints, context: &PickContext<'_>, rng: &mut Rng) -> Option<Picked> {
        // One number for all picks of a request: they differ in what they do with it.
        let hash = if self.policy.is_hashed() { context.hash.unwrap_or_else(|| rng.u64(..)) } else { 0 };
        let mut picked = self.pick_once(endpoints, context, hash, 0, rng)?;
        for attempt in 1..=context.reselections {
            if !context.tried.contains(&picked.host) {
                break;
            }
            picked = self.pick_once(endpoints, context, hash, attempt, rng)?;
        }
        Some(picked)
    }

    fn pick_once(
        &mut self,
        endpoints: &Endpoints,
        context: &PickContext<'_>,
        hash: u64,
        attempt: u32,
        rng: &mut Rng,
    ) -> Option<Picked> {
        let (number, degraded) = if self.simple && context.loads.is_none() {
            (0, false)
        } else {
            let (point, loads) = match self.policy.is_hashed() {
                true => ((hash % 100) as u32 + 1, None),
                false => (rng.u32(1..=100), context.loads),
            };
            choose_level(&self.sets.levels, loads, point)?
        };
        let level = self.sets.levels.get(number)?;
        let panic = level.panic;
        if panic && self.fail_on_panic {
            return None;
        }
        let host = if self.policy.is_hashed() {
            let host = level.table.as_ref()?.pick(hash, attempt)?;
            match self.hash_balance_factor {
                Some(factor) => bounded::pick(host, hash, factor, &level.shares, context.active, endpoints),
                None => host,
            }
        } else {
            let walk = self.levels.get_mut(number)?;
            let (walk, hosts) = walk.of(level, degraded);
            walk.next(&self.policy, hosts, endpoints, context.now, rng)?
        };
        Some(Picked { host, panic, found: None })
    }
}

/// The level, and whether its degraded hosts are meant, at a point of 1 to 100.
fn choose_level(levels: &[Level], loads: Option<&[Load]>, point: u32) -> Option<(usize, bool)> {
    let load = |index: usize| loads.and_then(|loads| loads.get(index)).copied().unwrap_or(levels[index].load);
    let mut below = 0;
    for degraded in [false, true] {
        for index in 0..levels.len() {
            below += if degraded { load(index).degraded } else { load(index).healthy };
            if point <= below {
                return Some((index, degraded));
            }
        }
    }
    None
}

impl LevelWalk {
    /// The walk and the hosts that a pick of this level is from.
    fn of<'a>(&'a mut self, level: &'a Level, degraded: bool) -> (&'a mut Walk, &'a [u32]) {
        if level.panic {
            return (&mut self.all, &level.all);
        }
        if let Some(localities) = &mut self.localities {
            let kind = usize::from(degraded);
            let weight = |index: u32| {
                let locality = &level.localities[index as usize];
                if degraded { locality.degraded_weight } else { locality.healthy_weight }
            };
            if let Some(index) = localities.order[kind].next(weight) {
                let index = index as usize;
                let locality = &level.localities[index];
                let hosts = if degraded { &locality.degraded } else { &locality.healthy };
                return (&mut localities.hosts[index][kind], hosts);
            }
        }
        if degraded { (&mut self.degraded, &level.degraded) } else { (&mut self.healthy, &level.healthy) }
    }
}

impl LocalityWalk {
    fn new(level: &Level, walk: &mut impl FnMut(&[u32]) -> Walk) -> Option<Self> {
        if level.localities.is_empty() {
            return None;
        }
        let mut order = [Schedule::default(), Schedule::default()];
        for (index, locality) in (0..).zip(&level.localities) {
            for (schedule, weight) in order.iter_mut().zip([locality.healthy_weight, locality.degraded_weight]) {
                if weight > 0.0 {
                    schedule.insert(index, weight);
                }
            }
        }
        let hosts =
            level.localities.iter().map(|locality| [walk(&locality.healthy), walk(&locality.degraded)]).collect();
        Some(Self { order, hosts })
    }
}

impl Walk {
    fn new(policy: &Policy, hosts: &[u32], endpoints: &Endpoints, now: Instant, rng: &mut Rng) -> Self {
        let hosts_of = || hosts.iter().filter_map(|index| endpoints.hosts.get(*index as usize));
        let first = hosts_of().next().map(|host| host.weight);
        let even = hosts_of().all(|host| Some(host.weight) == first)
            && policy
                .slow_start()
                .is_none_or(|slow_start| hosts_of().all(|host| host.state.healthy_for(now) >= slow_start.window));
        match policy {
            Policy::RoundRobin { .. } if even => Self::Cursor(rng.usize(0..hosts.len().max(1))),
            Policy::RoundRobin { .. } | Policy::LeastRequest { .. } if !even => {
                let mut schedule = Schedule::default();
                for index in hosts {
                    if let Some(host) = endpoints.hosts.get(*index as usize) {
                        schedule.insert(*index, weight(policy, host, now));
                    }
                }
                for _ in 0..rng.usize(0..hosts.len().max(1)) {
                    let _ = schedule.next(|index| weight_at(policy, endpoints, index, now));
                }
                Self::Schedule(schedule)
            }
            _ => Self::Memoryless,
        }
    }

    fn next(
        &mut self,
        policy: &Policy,
        hosts: &[u32],
        endpoints: &Endpoints,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<u32> {
        match hosts {
            [] => return None,
            [only] => return Some(*only),
            _ => {}
        }
        match self {
            Self::Cursor(position) => {
                *position = if *position + 1 < hosts.len() { *position + 1 } else { 0 };
                hosts.get(*position).copied()
            }
            Self::Schedule(schedule) => schedule.next(|index| weight_at(policy, endpoints, index, now)),
            Self::Memoryless => match policy {
                Policy::LeastRequest { choices, .. } => Some(least_loaded(hosts, &endpoints.hosts, *choices, rng)),
                _ => Some(hosts[rng.usize(0..hosts.len())]),
            },
        }
    }
}

/// The least loaded of some random hosts; the first drawn wins a tie.
fn least_loaded(eligible: &[u32], hosts: &[Arc<Endpoint>], choices: u32, rng: &mut Rng) -> u32 {
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

fn weight_at(policy: &Policy, endpoints: &Endpoints, index: u32, now: Instant) -> f64 {
    endpoints.hosts.get(index as usize).map_or(1.0, |host| weight(policy, host, now))
}

/// What a host weighs at this moment: less while it is new, and less the more it has to do.
fn weight(policy: &Policy, host: &Endpoint, now: Instant) -> f64 {
    let mut weight = f64::from(host.weight);
    if let Policy::LeastRequest { bias, .. } = policy {
        let active = f64::from(host.state.active_requests()) + 1.0;
        weight /= if *bias == 1.0 { active } else { active.powf(*bias) };
    }
    match policy.slow_start() {
        Some(slow_start) => weight * slow_start.factor(host.state.healthy_for(now)),
        None => weight,
    }
}

#[cfg(test)]
mod tests;
