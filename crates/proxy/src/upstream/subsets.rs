//! Which balancer is a request for, where a cluster has subsets?

use std::collections::BTreeMap;
use std::time::Instant;

use fastrand::Rng;

use super::balance::Balancer;
use crate::snapshot::cluster::Balancing;
use crate::snapshot::endpoints::Endpoints;
use crate::snapshot::host_sets::HostSets;
use crate::snapshot::subset::{Criteria, Fallback, SubsetConfig};

/// The balancers of a cluster's subsets.
#[derive(Debug)]
pub(super) struct Subsets {
    config: SubsetConfig,
    balancers: BTreeMap<Criteria, Balancer>,
    default: Option<Balancer>,
}

/// Where a request goes.
pub(super) enum Destination<'a> {
    /// To the subset that it asked for, or to the one by fewer keys.
    Subset(&'a mut Balancer),
    /// To the default subset.
    Default(&'a mut Balancer, Whose),
    /// To any host.
    Any(Whose),
    /// Nowhere.
    Nowhere,
}

/// Whose fallback it is. Envoy counts the cluster's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The selector's.
    Selector,
    /// The cluster's.
    Cluster,
}

impl Subsets {
    /// `None` for a cluster without subsets.
    pub(super) fn new(
        balancing: &Balancing,
        endpoints: &Endpoints,
        sets: &HostSets,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Box<Self>> {
        let config = balancing.subsets.clone()?;
        let within = balancing.within_subsets();
        let mut balancer = |sets| Balancer::new(&within, endpoints, sets, now, rng);
        let balancers = sets.subsets.iter().map(|(criteria, sets)| (criteria.clone(), balancer(sets))).collect();
        let default = sets.default_subset.as_ref().map(&mut balancer);
        Some(Box::new(Self { config, balancers, default }))
    }

    /// Where a request with these criteria goes.
    pub(super) fn find(&mut self, criteria: Option<&Criteria>) -> Destination<'_> {
        let criteria = criteria.filter(|criteria| !criteria.is_empty());
        let selector = criteria.and_then(|criteria| self.config.selector(criteria));
        if let Some(criteria) = criteria.filter(|criteria| selector.is_some() && self.balancers.contains_key(*criteria))
        {
            return self.balancers.get_mut(criteria).map_or(Destination::Nowhere, Destination::Subset);
        }
        let (fallback, whose) = match selector.and_then(|selector| selector.fallback.as_ref()) {
            Some(own) => (own, Whose::Selector),
            None => (&self.config.fallback, Whose::Cluster),
        };
        match fallback {
            Fallback::None => Destination::Nowhere,
            Fallback::Any => Destination::Any(whose),
            Fallback::Default => match &mut self.default {
                Some(balancer) => Destination::Default(balancer, whose),
                None => Destination::Nowhere,
            },
            Fallback::Keys(keys) => {
                let fewer = criteria.and_then(|criteria| criteria.only(keys));
                match fewer.and_then(|fewer| self.balancers.get_mut(&fewer)) {
                    Some(balancer) => Destination::Subset(balancer),
                    None => Destination::Nowhere,
                }
            }
        }
    }
}
