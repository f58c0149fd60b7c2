//! Which DestinationRule holds for a service? Rules of the client's namespace come first, then those of the
//! service's, then those of the root namespace; within a namespace the most specific host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_config::{LoadBalancerPolicy, LoadBalancerSettings, Object, TrafficPolicy};
use lateen_xds::Origin;

use super::objects::Typed;
use super::services::includes;
use super::visibility::Visibility;
use super::{origin, origin_of_rule};
use crate::host;
use crate::identity::address;
use crate::mesh::Mesh;

/// A rule, possibly merged from several objects for one host.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Fully qualified host, lower-case; may be a wildcard.
    pub host: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object (of the first, if merged).
    pub name: Arc<str>,
    /// Labels of the workloads whose requests it is for; `None` means all.
    pub workload_selector: Option<BTreeMap<String, String>>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Policy of the whole host.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Subsets with unique names, in order.
    pub subsets: Vec<Subset>,
    /// The object, or the first of several.
    pub origin: Arc<Origin>,
    /// The objects that were merged into it.
    pub merged: Vec<Arc<Origin>>,
}

/// A named part of a host's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Its name.
    pub name: Arc<str>,
    /// Labels that its endpoints carry; empty means all endpoints.
    pub labels: BTreeMap<String, String>,
    /// Policy of its own.
    pub traffic_policy: Option<TrafficPolicy>,
    /// The object, with the rule `subsets[i]`.
    pub origin: Arc<Origin>,
}

impl DestinationRule {
    /// Resolves the names of an object. Of several subsets with one name the first stays.
    fn build((object, spec): Typed<'_, lateen_config::DestinationRule>, mesh: &Mesh) -> DestinationRule {
        let namespace = object.metadata.namespace.clone();
        let workload_selector = spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone());
        let visibility = match workload_selector {
            // A rule for chosen workloads is private by nature.
            Some(_) => Visibility::build(&[".".to_owned()], &[], &namespace),
            None => Visibility::build(&spec.export_to, &mesh.default_destination_rule_export_to, &namespace),
        };
        let mut subsets: Vec<Subset> = Vec::with_capacity(spec.subsets.len());
        for (index, subset) in spec.subsets.iter().enumerate() {
            if subsets.iter().all(|known| *known.name != *subset.name) {
                subsets.push(Subset {
                    name: subset.name.as_str().into(),
                    labels: subset.labels.clone(),
                    traffic_policy: subset.traffic_policy.clone(),
                    origin: origin_of_rule(object, format!("subsets[{index}]"), subset.at),
                });
            }
        }
        DestinationRule {
            host: host::resolve(&spec.host, &namespace, &mesh.cluster_domain),
            name: object.metadata.name.clone(),
            workload_selector,
            visibility,
            traffic_policy: spec.traffic_policy.clone(),
            subsets,
            origin: origin(object),
            merged: Vec::new(),
            namespace,
        }
    }

    /// True when some policy of the rule chooses endpoints by hash.
    fn has_consistent_hash(&self) -> bool {
        let hashes = |settings: Option<&LoadBalancerSettings>| {
            settings.is_some_and(|settings| matches!(settings.policy, Some(LoadBalancerPolicy::ConsistentHash(_))))
        };
        let of_subsets = self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        self.traffic_policy.iter().chain(of_subsets).any(|policy| {
            hashes(policy.load_balancer.as_ref())
                || policy.port_level_settings.iter().any(|port| hashes(port.load_balancer.as_ref()))
        })
    }

    /// The subset with this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| &*subset.name == name)
    }
}

/// All rules, by namespace and host.
#[derive(Debug, Default)]
pub(crate) struct DestinationRules {
    /// Rules that clients in the rule's own namespace use.
    local: BTreeMap<Arc<str>, Hosts>,
    /// Rules that clients elsewhere may use.
    exported: BTreeMap<Arc<str>, Hosts>,
    /// Private rules of the root namespace: for clients there alone.
    root_local: Hosts,
    root_namespace: Arc<str>,
    has_consistent_hash: bool,
    /// All rules before they are merged, with their objects.
    sources: Vec<(Arc<Object>, Arc<DestinationRule>)>,
}

/// The rules of one namespace by host.
#[derive(Debug, Default)]
struct Hosts {
    exact: BTreeMap<Arc<str>, Vec<Arc<DestinationRule>>>,
    wildcard: BTreeMap<Arc<str>, Vec<Arc<DestinationRule>>>,
}

/// Who asks for a rule.
pub(crate) struct Client<'a> {
    pub(crate) namespace: &'a str,
    /// Labels of its workload; `None` when they are not known.
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
}

impl DestinationRules {
    /// Resolves and indexes objects that are sorted by age. Rules for some workloads come before those for all. One whose
    /// object is the same as in `previous`, and that nothing is merged into, is the very same value.
    pub(crate) fn build(
        objects: &[Typed<'_, lateen_config::DestinationRule>],
        mesh: &Mesh,
        previous: Option<&DestinationRules>,
    ) -> DestinationRules {
        let known: HashMap<usize, &Arc<DestinationRule>> = previous
            .into_iter()
            .flat_map(|previous| &previous.sources)
            .map(|(object, rule)| (address(&**object), rule))
            .collect();
        let sources: Vec<(Arc<Object>, Arc<DestinationRule>)> = objects
            .iter()
            .map(|(object, spec)| {
                let rule = match known.get(&address(&***object)) {
                    Some(rule) => (*rule).clone(),
                    None => Arc::new(DestinationRule::build((object, spec), mesh)),
                };
                ((*object).clone(), rule)
            })
            .collect();
        let mut rules: Vec<Arc<DestinationRule>> = sources.iter().map(|(_, rule)| rule.clone()).collect();
        rules.sort_by_key(|rule| rule.workload_selector.is_none());
        let mut index = DestinationRules { root_namespace: mesh.root_namespace.clone(), ..Default::default() };
        for rule in rules {
            index.has_consistent_hash |= rule.has_consistent_hash();
            let namespace = rule.namespace.clone();
            if rule.visibility.includes(&namespace) {
                index.local.entry(namespace.clone()).or_default().add(rule.clone());
            }
            if rule.visibility.leaves(&namespace) {
                index.exported.entry(namespace).or_default().add(rule);
            } else if namespace == mesh.root_namespace && rule.visibility.is_private_to(&namespace) {
                index.root_local.add(rule);
            }
        }
        index.sources = sources;
        index
    }

    /// All rules; one that is in several indexes comes more than once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.local.values().chain(self.exported.values()).chain([&self.root_local]).flat_map(Hosts::all)
    }

    /// True when some rule chooses endpoints by hash.
    pub(crate) fn has_consistent_hash(&self) -> bool {
        self.has_consistent_hash
    }

    /// The rule for a service. Namespaces are asked in turn and never merged: the client's own rule, be it for a
    /// wildcard, hides that of the service's owner with all its subsets.
    pub(crate) fn lookup(
        &self,
        service: &str,
        service_namespace: &str,
        client: &Client<'_>,
    ) -> Option<&Arc<DestinationRule>> {
        let own = if *client.namespace == *self.root_namespace {
            Some(&self.root_local)
        } else {
            self.local.get(client.namespace)
        };
        own.and_then(|hosts| hosts.lookup(service, client))
            .or_else(|| self.exported.get(service_namespace)?.lookup_visible(service, client))
            .or_else(|| self.exported.get(&*self.root_namespace)?.lookup_visible(service, client))
    }
}

impl Hosts {
    /// Rules for the same host, selector and visibility are one rule: subsets with new names are added, and the
    /// first policy stays.
    fn add(&mut self, rule: Arc<DestinationRule>) {
        let by_host = if host::is_wildcard(&rule.host) { &mut self.wildcard } else { &mut self.exact };
        let rules = by_host.entry(rule.host.clone()).or_default();
        let same = rules
            .iter_mut()
            .find(|known| known.workload_selector == rule.workload_selector && known.visibility == rule.visibility);
        match same {
            Some(known) => {
                let known = Arc::make_mut(known);
                for subset in &rule.subsets {
                    if known.subset(&subset.name).is_none() {
                        known.subsets.push(subset.clone());
                    }
                }
                if known.traffic_policy.is_none() {
                    known.traffic_policy = rule.traffic_policy.clone();
                }
                known.merged.push(rule.origin.clone());
            }
            None => rules.push(rule),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.exact.values().chain(self.wildcard.values()).flatten()
    }

    fn lookup(&self, service: &str, client: &Client<'_>) -> Option<&Arc<DestinationRule>> {
        select(self.most_specific(service)?.iter(), client)
    }

    fn lookup_visible(&self, service: &str, client: &Client<'_>) -> Option<&Arc<DestinationRule>> {
        let rules = self.most_specific(service)?.iter();
        select(rules.filter(|rule| rule.visibility.includes(client.namespace)), client)
    }

    fn most_specific(&self, service: &str) -> Option<&Vec<Arc<DestinationRule>>> {
        self.exact.get(service).or_else(|| {
            self.wildcard
                .iter()
                .filter(|(wide, _)| host::covers(wide, service))
                .min_by(|(a, _), (b, _)| host::by_specificity(a, b))
                .map(|(_, rules)| rules)
        })
    }
}

/// Of the rules for one host: the first whose selector matches the client's workload, else the last without one.
fn select<'a>(
    rules: impl DoubleEndedIterator<Item = &'a Arc<DestinationRule>> + Clone,
    client: &Client<'_>,
) -> Option<&'a Arc<DestinationRule>> {
    rules
        .clone()
        .find(|rule| match (&rule.workload_selector, client.labels) {
            (Some(selector), Some(labels)) => &*rule.namespace == client.namespace && includes(labels, selector),
            _ => false,
        })
        .or_else(|| rules.rev().find(|rule| rule.workload_selector.is_none()))
}
