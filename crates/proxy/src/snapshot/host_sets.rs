//! Which hosts may be chosen now, and how much of the traffic goes to which priority and locality?
//!
//! Built anew by the main thread whenever endpoints or their health change; the workers pick from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::Balancing;
use super::endpoints::{Endpoint, Endpoints, Health};
use super::hash_table::{Candidate, HashTable};
use super::subset::Criteria;

/// The hosts of a cluster by what may be done with them at this moment.
#[derive(Debug, Default)]
pub struct HostSets {
    /// The priority levels, from 0.
    pub levels: Vec<Level>,
    /// The subsets by what their hosts have.
    pub subsets: BTreeMap<Criteria, Arc<HostSets>>,
    /// The default subset, where requests may fall back to it.
    pub default_subset: Option<Arc<HostSets>>,
}

/// One priority level.
#[derive(Debug, Default)]
pub struct Level {
    /// Its hosts, as indices into `Endpoints::hosts`; panic mode uses them all.
    pub all: Vec<u32>,
    /// How many of them the load assignment drains.
    pub draining: usize,
    /// The healthy ones.
    pub healthy: Vec<u32>,
    /// Those used after the healthy ones.
    pub degraded: Vec<u32>,
    /// Health is ignored, for too few are healthy.
    pub panic: bool,
    /// How well it is.
    pub availability: Availability,
    /// Its share of all requests.
    pub load: Load,
    /// Its localities, where they share by their weights and anybody in them can be chosen.
    pub localities: Vec<Locality>,
    /// Where the hash of a request decides.
    pub table: Option<HashTable>,
    /// The hosts of the table with their parts of the whole, where their load is bounded.
    pub shares: Vec<(u32, f64)>,
}

/// How well a level is, in percent: its part of hosts that can be used, times the overprovisioning factor, at most 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// By its healthy hosts.
    pub healthy: u32,
    /// By its degraded hosts.
    pub degraded: u32,
}

/// A level's share of all requests in percent; the shares of all levels make 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// To its healthy hosts.
    pub healthy: u32,
    /// To its degraded hosts.
    pub degraded: u32,
}

/// A locality of one level.
#[derive(Debug)]
pub struct Locality {
    /// Its healthy hosts.
    pub healthy: Vec<u32>,
    /// Its degraded hosts.
    pub degraded: Vec<u32>,
    /// Its weight, less where hosts are missing.
    pub healthy_weight: f64,
    /// The same for its degraded hosts.
    pub degraded_weight: f64,
}

impl HostSets {
    /// By the health of the hosts at this moment.
    #[must_use]
    pub fn build(balancing: &Balancing, endpoints: &Endpoints) -> Self {
        let mut sets = Self::of(balancing, endpoints, &Criteria::default());
        let Some(config) = &balancing.subsets else { return sets };
        let within = balancing.within_subsets();
        for selector in &config.selectors {
            for host in &endpoints.hosts {
                if let Some(criteria) = host.criteria.only(&selector.keys) {
                    sets.subsets
                        .entry(criteria)
                        .or_insert_with_key(|criteria| Arc::new(Self::of(&within, endpoints, criteria)));
                }
            }
        }
        sets.default_subset = Some(Arc::new(Self::of(&within, endpoints, &config.default_subset)));
        sets
    }

    /// Of the hosts that meet these criteria.
    fn of(balancing: &Balancing, endpoints: &Endpoints, criteria: &Criteria) -> Self {
        let count = endpoints.hosts.iter().map(|host| host.priority + 1).max().unwrap_or(0);
        let mut levels: Vec<Level> = (0..count).map(|priority| Level::of(endpoints, priority, criteria)).collect();
        let availability: Vec<_> = levels.iter().map(|level| level.availability).collect();
        let total = total_availability(&availability);
        if balancing.panic_threshold > 0 && total < 100 {
            for level in &mut levels {
                level.panic = level.usable_percent() < f64::from(balancing.panic_threshold);
            }
        }
        let everywhere = !levels.is_empty() && levels.iter().all(|level| level.panic);
        let loads = if everywhere { loads_in_panic(&levels) } else { loads(&availability) };
        for (priority, (level, load)) in (0..).zip(levels.iter_mut().zip(loads)) {
            level.load = load;
            if balancing.locality_weighted {
                level.localities = localities(endpoints, priority, criteria);
            }
            if balancing.policy.is_hashed() {
                let candidates = candidates(balancing, endpoints, level, priority);
                level.table = HashTable::build(&balancing.policy, &candidates);
                if balancing.hash_balance_factor.is_some() {
                    level.shares = candidates.iter().map(|candidate| (candidate.host, candidate.weight)).collect();
                }
            }
        }
        Self { levels, ..Self::default() }
    }

    /// Hosts that are healthy, and those that are degraded.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let healthy = self.levels.iter().map(|level| level.healthy.len()).sum();
        (healthy, self.levels.iter().map(|level| level.degraded.len()).sum())
    }
}

impl Level {
    fn of(endpoints: &Endpoints, priority: u32, criteria: &Criteria) -> Self {
        let mut level = Self::default();
        let chosen = |host: &Endpoint| host.priority == priority && criteria.is_met_by(&host.criteria);
        for (index, host) in (0..).zip(&endpoints.hosts).filter(|(_, host)| chosen(host)) {
            level.all.push(index);
            match host.health_now() {
                Health::Healthy => level.healthy.push(index),
                Health::Degraded => level.degraded.push(index),
                Health::Unhealthy => {}
                Health::Draining => level.draining += 1,
            }
        }
        let total = level.counted() as u64;
        let share = |usable: usize| -> u32 {
            let percent = (u64::from(endpoints.overprovisioning) * usable as u64).checked_div(total).unwrap_or(0);
            u32::try_from(percent.min(100)).unwrap_or(100)
        };
        level.availability =
            Availability { healthy: share(level.healthy.len()), degraded: share(level.degraded.len()) };
        level
    }

    /// How many hosts count where a part of them is meant: not those that drain.
    fn counted(&self) -> usize {
        self.all.len() - self.draining
    }

    /// The part of its hosts that can be used, in percent.
    fn usable_percent(&self) -> f64 {
        match self.counted() {
            0 => 0.0,
            all => (self.healthy.len() + self.degraded.len()) as f64 * 100.0 / all as f64,
        }
    }
}

/// The sum of what is available everywhere, at most 100.
#[must_use]
pub fn total_availability(availability: &[Availability]) -> u32 {
    let sum: u32 = availability.iter().map(|level| level.healthy.saturating_add(level.degraded)).sum();
    sum.min(100)
}

/// The shares by Envoy's rule: each level takes what it can, the healthy hosts of all before the degraded ones; what
/// rounding leaves goes to the first that takes anything.
#[must_use]
pub fn loads(availability: &[Availability]) -> Vec<Load> {
    let mut loads = vec![Load::default(); availability.len()];
    let total = total_availability(availability);
    if total == 0 {
        // Nobody can be chosen; the first level says so.
        if let Some(first) = loads.first_mut() {
            first.healthy = 100;
        }
        return loads;
    }
    let mut left = 100;
    for (load, level) in loads.iter_mut().zip(availability) {
        load.healthy = (level.healthy * 100 / total).min(left);
        left -= load.healthy;
    }
    for (load, level) in loads.iter_mut().zip(availability) {
        load.degraded = (level.degraded * 100 / total).min(left);
        left -= load.degraded;
    }
    if let Some(first) = availability.iter().position(|level| level.healthy > 0) {
        loads[first].healthy += left;
    } else if let Some(first) = availability.iter().position(|level| level.degraded > 0) {
        loads[first].degraded += left;
    }
    loads
}

/// The shares when all levels are in panic mode: by the count of their hosts.
fn loads_in_panic(levels: &[Level]) -> Vec<Load> {
    let all: usize = levels.iter().map(|level| level.all.len()).sum();
    let share = |part: usize| (part * 100).checked_div(all).map_or(0, |percent| u32::try_from(percent).unwrap_or(100));
    let mut loads: Vec<_> = levels.iter().map(|level| Load { healthy: share(level.all.len()), degraded: 0 }).collect();
    let left = 100_u32.saturating_sub(loads.iter().map(|load| load.healthy).sum());
    let first = levels.iter().position(|level| !level.all.is_empty()).unwrap_or(0);
    if let Some(first) = loads.get_mut(first) {
        first.healthy += left;
    }
    loads
}

/// The localities of a level; none when no weight counts, and then they do not matter.
fn localities(endpoints: &Endpoints, priority: u32, criteria: &Criteria) -> Vec<Locality> {
    let factor = f64::from(endpoints.overprovisioning) / 100.0;
    let mut built = Vec::new();
    for weighted in endpoints.localities.iter().filter(|weighted| weighted.priority == priority) {
        let mut locality =
            Locality { healthy: Vec::new(), degraded: Vec::new(), healthy_weight: 0.0, degraded_weight: 0.0 };
        let mut total = 0_usize;
        for (index, host) in (0..).zip(&endpoints.hosts) {
            let here = host.priority == priority && host.locality == weighted.locality;
            if here && criteria.is_met_by(&host.criteria) {
                match host.health_now() {
                    Health::Healthy => locality.healthy.push(index),
                    Health::Degraded => locality.degraded.push(index),
                    Health::Unhealthy => {}
                    Health::Draining => continue,
                }
                total += 1;
            }
        }
        if total > 0 {
            let weight = |usable: usize| f64::from(weighted.weight) * (factor * usable as f64 / total as f64).min(1.0);
            locality.healthy_weight = weight(locality.healthy.len());
            locality.degraded_weight = weight(locality.degraded.len());
            built.push(locality);
        }
    }
    built
}

/// The hosts of a level with the key and the share that each has in a table.
fn candidates<'a>(balancing: &Balancing, endpoints: &'a Endpoints, level: &Level, priority: u32) -> Vec<Candidate<'a>> {
    let chosen = if level.panic { &level.all } else { &level.healthy };
    let hosts: Vec<(u32, &Arc<Endpoint>)> =
        chosen.iter().filter_map(|index| Some((*index, endpoints.hosts.get(*index as usize)?))).collect();
    let key = |host: &'a Endpoint| match &host.hash_key {
        Some(key) => &**key,
        None if balancing.hash_hostnames => &host.hostname,
        None => &host.address.text,
    };
    let mut candidates = Vec::with_capacity(hosts.len());
    let mut normalize = |group: &mut dyn Iterator<Item = &(u32, &'a Arc<Endpoint>)>, share: f64| {
        let group: Vec<_> = group.collect();
        let sum: u64 = group.iter().map(|(_, host)| u64::from(host.weight)).sum();
        candidates.extend(group.into_iter().map(|(index, host)| Candidate {
            host: *index,
            key: key(host),
            weight: f64::from(host.weight) * share / sum as f64,
        }));
    };
    let of_level = || endpoints.localities.iter().filter(|weighted| weighted.priority == priority);
    let sum: u64 = of_level().map(|weighted| u64::from(weighted.weight)).sum();
    if balancing.locality_weighted && sum > 0 {
        for weighted in of_level().filter(|weighted| weighted.weight > 0) {
            let share = f64::from(weighted.weight) / sum as f64;
            normalize(&mut hosts.iter().filter(|(_, host)| host.locality == weighted.locality), share);
        }
    } else {
        normalize(&mut hosts.iter(), 1.0);
    }
    candidates
}

#[cfg(test)]
mod tests;
