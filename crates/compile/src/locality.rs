//! Which workloads are near, and how are requests shared among near and far ones? Priorities and weights of localities,
//! as `localityLbSetting`, the service and the mesh ask for them.
//!
//! A priority is used when those before it have too few healthy endpoints, so priorities need outlier detection to say
//! which are healthy; only a service that asks for near workloads itself goes without.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lateen_config::{LocalityDistribute, LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting};
use lateen_xds::envoy::config::cluster::v3::cluster::CommonLbConfig;
use lateen_xds::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use lateen_xds::envoy::r#type::v3::Percent;

use crate::policy::Policy;
use crate::scope::Scope;
use crate::world::services::{CLUSTER_ID, Endpoint, Locality, NETWORK, Service, TrafficDistribution};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
const CLUSTER: &str = "topology.istio.io/cluster";
const HOST_NAME: &str = "kubernetes.io/hostname";

/// Labels that decide for services which ask for workloads close by.
const CLOSE: [&str; 3] = [NETWORK, REGION, ZONE];

/// Labels that decide for services which ask for workloads of the same node.
const SAME_NODE: [&str; 5] = [NETWORK, REGION, ZONE, SUB_ZONE, HOST_NAME];

/// Priorities by region that one priority by labels is split into.
const PRIORITIES_BY_REGION: usize = 5;

/// How requests to one cluster are shared among localities.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Preference<'a> {
    sharing: Sharing<'a>,
    /// Near workloads of the same zone are chosen by the data plane itself.
    zone_aware: Option<&'a ZoneAwareLbSetting>,
    /// The service asks for near workloads whether or not anything tells which are healthy.
    pub(crate) is_of_service: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Sharing<'a> {
    /// Evenly.
    #[default]
    Even,
    /// By weights of localities.
    Weights(&'a [LocalityDistribute]),
    /// Near ones first.
    Priorities {
        /// Labels, or `label=value`, the most important first. Without any, localities alone decide.
        labels: Cow<'a, [String]>,
        /// Regions that take over for others; `None` when labels alone decide.
        regions: Option<&'a [LocalityFailover]>,
    },
}

/// Endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group<'a> {
    /// Where they are.
    pub(crate) locality: &'a Locality,
    /// 0 is used first.
    pub(crate) priority: u32,
    /// Share of the requests, relative to the other groups of the priority.
    pub(crate) weight: u32,
    /// The endpoints, in order.
    pub(crate) endpoints: Vec<&'a Endpoint>,
}

impl<'a> Preference<'a> {
    /// What holds for a cluster: the first of the rule's setting for zones, the rule's for localities, what the service
    /// asks for, and the mesh's setting. `has_outlier_detection`: something tells which endpoints are healthy.
    pub(crate) fn compose(
        policy: &Policy<'a>,
        service: &Service,
        mesh: &'a LocalityLbSetting,
        has_outlier_detection: bool,
    ) -> Preference<'a> {
        let own = policy.load_balancer;
        if let Some(zones) = own.and_then(|own| own.zone_aware_lb_setting.as_ref()) {
            return Preference::of_zones(zones, has_outlier_detection);
        }
        if let Some(localities) = own.and_then(|own| own.locality_lb_setting.as_ref()) {
            return Preference::of_localities(localities, has_outlier_detection);
        }
        if let Some(distribution) = service.distribution {
            let labels: &[&str] = match distribution {
                TrafficDistribution::PreferClose => &CLOSE,
                TrafficDistribution::PreferSameNode => &SAME_NODE,
            };
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            let sharing = Sharing::Priorities { labels: Cow::Owned(labels), regions: None };
            return Preference { sharing, zone_aware: None, is_of_service: true };
        }
        Preference::of_localities(mesh, has_outlier_detection)
    }

    fn of_localities(setting: &'a LocalityLbSetting, has_outlier_detection: bool) -> Preference<'a> {
        let sharing = if setting.enabled == Some(false) {
            Sharing::Even
        } else if !setting.distribute.is_empty() {
            Sharing::Weights(&setting.distribute)
        } else if has_outlier_detection {
            priorities(&setting.failover_priority, &setting.failover)
        } else {
            Sharing::Even
        };
        Preference { sharing, ..Preference::default() }
    }

    fn of_zones(setting: &'a ZoneAwareLbSetting, has_outlier_detection: bool) -> Preference<'a> {
        let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
        let sharing = if setting.enabled != Some(false) && has_outlier_detection && fails_over {
            priorities(&setting.failover_priority, &setting.failover)
        } else {
            Sharing::Even
        };
        Preference { sharing, zone_aware: Some(setting), is_of_service: false }
    }

    /// Tells the data plane how to use the groups.
    pub(crate) fn apply(&self, config: &mut CommonLbConfig) {
        if let Some(zones) = self.zone_aware {
            let off = zones.enabled == Some(false);
            config.locality_config_specifier = Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: off.then_some(Percent { value: 0.0 }),
                min_cluster_size: zones.min_cluster_size.filter(|size| *size != 0 && !off),
                ..Default::default()
            }));
        } else if self.sharing != Sharing::Even {
            let weighted = LocalityWeightedLbConfig {};
            config.locality_config_specifier = Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted));
        }
    }

    /// Groups endpoints for a proxy, the nearest first. A proxy that does not know where it is shares evenly what
    /// localities would decide.
    pub(crate) fn group(&self, scope: &Scope, endpoints: &[&'a Endpoint]) -> Vec<Group<'a>> {
        let locality = &scope.locality;
        match &self.sharing {
            Sharing::Weights(distribute) if !locality.is_unknown() => {
                let mut groups = by_locality(endpoints, |_| 0);
                let setting = distribute.iter().find(|setting| matches(locality, given(&setting.from)));
                if let Some(setting) = setting {
                    share(&mut groups, &setting.to);
                }
                groups
            }
            Sharing::Priorities { labels, regions } => {
                let by_labels = !labels.is_empty();
                let regions = regions.filter(|_| !locality.is_unknown());
                let own = if by_labels { own_labels(scope) } else { BTreeMap::new() };
                let mut groups = by_locality(endpoints, |endpoint| {
                    let by_label = if by_labels { label_priority(labels, &own, endpoint) } else { 0 };
                    let by_region =
                        regions.map_or(0, |failover| region_priority(locality, &endpoint.locality, failover));
                    by_label * PRIORITIES_BY_REGION + by_region
                });
                compact(&mut groups);
                groups
            }
            Sharing::Even | Sharing::Weights(_) => by_locality(endpoints, |_| 0),
        }
    }
}

/// Regions decide where no labels do, and under labels when the setting names any.
fn priorities<'a>(labels: &'a [String], failover: &'a [LocalityFailover]) -> Sharing<'a> {
    let regions = (labels.is_empty() || !failover.is_empty()).then_some(failover);
    Sharing::Priorities { labels: Cow::Borrowed(labels), regions }
}

/// Groups in order of locality, then of priority; each weighs as much as its endpoints.
fn by_locality<'a>(endpoints: &[&'a Endpoint], priority: impl Fn(&Endpoint) -> usize) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(&Locality, usize), Vec<&'a Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        groups.entry((&endpoint.locality, priority(endpoint))).or_default().push(*endpoint);
    }
    let group = |((locality, priority), endpoints): ((&'a Locality, usize), Vec<&'a Endpoint>)| Group {
        locality,
        priority: u32::try_from(priority).unwrap_or(u32::MAX),
        weight: endpoints.iter().fold(0, |sum: u32, endpoint| sum.saturating_add(endpoint.weight)),
        endpoints,
    };
    groups.into_iter().map(group).collect()
}

/// Makes the priorities that are used 0, 1, 2 and so on: Envoy refuses gaps.
fn compact(groups: &mut [Group<'_>]) {
    let mut used: Vec<u32> = groups.iter().map(|group| group.priority).collect();
    used.sort_unstable();
    used.dedup();
    for group in groups {
        let rank = used.binary_search(&group.priority).unwrap_or_default();
        group.priority = u32::try_from(rank).unwrap_or(u32::MAX);
    }
}

/// Gives the groups that each pattern matches its share, in proportion to their own weights; those that none matches
/// get nothing.
fn share(groups: &mut Vec<Group<'_>>, to: &BTreeMap<String, u32>) {
    let mut left: Vec<usize> = (0..groups.len()).collect();
    for (pattern, share) in to {
        let (matched, rest): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|index| matches(groups[*index].locality, pattern));
        left = rest;
        let total: u64 = matched.iter().map(|index| u64::from(groups[*index].weight)).sum();
        for index in matched {
            let weight = (u64::from(groups[index].weight) * u64::from(*share)).div_ceil(total.max(1));
            groups[index].weight = u32::try_from(weight).unwrap_or(u32::MAX);
        }
    }
    for index in left.into_iter().rev() {
        groups.remove(index);
    }
    groups.retain(|group| group.weight > 0);
}

/// `region/zone/sub-zone`, each perhaps `*`; a zone or sub-zone that is not named stands for all.
fn matches(locality: &Locality, pattern: &str) -> bool {
    let mut wanted = pattern.splitn(3, '/');
    let mut next = || wanted.next().unwrap_or_default();
    let part = |wanted: &str, part: &str| wanted == "*" || wanted == part;
    let (region, zone, sub_zone) = (next(), next(), next());
    part(region, &locality.region)
        && (zone.is_empty() || part(zone, &locality.zone))
        && (sub_zone.is_empty() || part(sub_zone, &locality.sub_zone))
}

/// The sooner a label differs, the later an endpoint is used.
fn label_priority(labels: &[String], own: &BTreeMap<&str, &str>, endpoint: &Endpoint) -> usize {
    let differs = |item: &String| {
        let (label, wanted) = match item.split_once('=') {
            Some((label, value)) => (label, value),
            None => (item.as_str(), own.get(item.as_str()).copied().unwrap_or_default()),
        };
        label_of(endpoint, label) != wanted
    };
    labels.iter().position(differs).map_or(0, |index| labels.len() - index)
}

/// A label of an endpoint, or what its place says in place of one.
fn label_of<'a>(endpoint: &'a Endpoint, label: &str) -> &'a str {
    let own = endpoint.labels.get(label).map(String::as_str).unwrap_or_default();
    let place = match label {
        REGION => &endpoint.locality.region,
        ZONE => &endpoint.locality.zone,
        SUB_ZONE => &endpoint.locality.sub_zone,
        NETWORK => &*endpoint.workload.network,
        HOST_NAME => &*endpoint.workload.node,
        CLUSTER => CLUSTER_ID,
        _ => return own,
    };
    if place.is_empty() { own } else { place }
}

/// The labels of a proxy, with those that its place says.
fn own_labels(scope: &Scope) -> BTreeMap<&str, &str> {
    let own = scope.labels.iter().flatten().map(|(label, value)| (label.as_str(), value.as_str()));
    let places = [
        (REGION, scope.locality.region.as_str()),
        (ZONE, &scope.locality.zone),
        (SUB_ZONE, &scope.locality.sub_zone),
        (NETWORK, &scope.network),
        (HOST_NAME, &scope.node),
        (CLUSTER, CLUSTER_ID),
    ];
    own.chain(places.into_iter().filter(|(_, value)| !value.is_empty())).collect()
}

/// 0 for the same sub-zone, 1 for the same zone, 2 for the same region, 3 for another; 4 for one that does not take over
/// for the proxy's region while another does.
fn region_priority(own: &Locality, other: &Locality, failover: &[LocalityFailover]) -> usize {
    if own.region != other.region {
        let setting = failover.iter().find(|setting| given(&setting.from) == own.region);
        return match setting {
            Some(setting) if given(&setting.to) != other.region => 4,
            _ => 3,
        };
    }
    match (own.zone == other.zone, own.sub_zone == other.sub_zone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

fn given(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::services::{Address, Health, Workload};

    fn endpoint(place: &str, labels: &[(&str, &str)]) -> Endpoint {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Endpoint {
            address: Address::Socket { host: place.into(), port: 80 },
            labels: Arc::new(labels.collect()),
            locality: Locality::parse(place),
            weight: 1,
            health: Health::Healthy,
            has_mesh_tls: false,
            workload: Arc::new(Workload::default()),
            origin: Arc::default(),
        }
    }

    fn scope(place: &str) -> Scope {
        Scope { locality: Locality::parse(place), ..Scope::sidecar("default", BTreeMap::new()) }
    }

    fn failover(from: &str, to: &str) -> LocalityFailover {
        LocalityFailover { from: Some(from.into()), to: Some(to.into()), ..Default::default() }
    }

    fn distribute(from: &str, to: &[(&str, u32)]) -> LocalityDistribute {
        let to = to.iter().map(|(place, weight)| ((*place).to_owned(), *weight)).collect();
        LocalityDistribute { from: Some(from.into()), to, ..Default::default() }
    }

    /// (place, priority, weight) of each group.
    fn groups(setting: &LocalityLbSetting, outlier: bool, scope: &Scope, all: &[Endpoint]) -> Vec<(String, u32, u32)> {
        let all: Vec<&Endpoint> = all.iter().collect();
        let preference = Preference::of_localities(setting, outlier);
        let groups = preference.group(scope, &all);
        let place = |group: &Group<'_>| match &group.endpoints[0].address {
            Address::Socket { host, .. } => host.to_string(),
            Address::Pipe(path) => path.to_string(),
        };
        groups.iter().map(|group| (place(group), group.priority, group.weight)).collect()
    }

    fn five() -> Vec<Endpoint> {
        ["us-west/a/1", "us-west/a/2", "us-west/b/1", "us-east/c/1", "eu/x/1"]
            .map(|place| endpoint(place, &[]))
            .to_vec()
    }

    fn priorities_of(groups: &[(String, u32, u32)]) -> Vec<(&str, u32)> {
        groups.iter().map(|(place, priority, _)| (place.as_str(), *priority)).collect()
    }

    #[test]
    fn farther_endpoints_have_later_priorities_and_a_named_region_comes_before_others() {
        let setting = LocalityLbSetting { failover: vec![failover("us-west", "us-east")], ..Default::default() };
        let found = groups(&setting, true, &scope("us-west/a/1"), &five());
        assert_eq!(
            priorities_of(&found),
            [("eu/x/1", 4), ("us-east/c/1", 3), ("us-west/a/1", 0), ("us-west/a/2", 1), ("us-west/b/1", 2)]
        );
    }

    #[test]
    fn priorities_have_no_gaps() {
        let setting = LocalityLbSetting::default();
        let found = groups(&setting, true, &scope("us-west/z/1"), &five());
        assert_eq!(
            priorities_of(&found),
            [("eu/x/1", 1), ("us-east/c/1", 1), ("us-west/a/1", 0), ("us-west/a/2", 0), ("us-west/b/1", 0)]
        );
    }

    #[test]
    fn without_outlier_detection_nothing_fails_over() {
        let setting = LocalityLbSetting { failover: vec![failover("us-west", "us-east")], ..Default::default() };
        let found = groups(&setting, false, &scope("us-west/a/1"), &five());
        assert!(found.iter().all(|(_, priority, weight)| (*priority, *weight) == (0, 1)));
    }

    #[test]
    fn what_is_turned_off_or_has_no_place_to_start_from_changes_nothing() {
        let off = LocalityLbSetting { enabled: Some(false), ..Default::default() };
        let on = LocalityLbSetting::default();
        for (setting, scope) in [(&off, scope("us-west/a/1")), (&on, scope(""))] {
            let found = groups(setting, true, &scope, &five());
            assert!(found.iter().all(|(_, priority, _)| *priority == 0), "{found:?}");
        }
    }

    #[test]
    fn shares_are_divided_in_proportion_to_what_localities_weigh() {
        let setting = LocalityLbSetting {
            distribute: vec![
                distribute("eu/*", &[("*", 100)]),
                distribute("us-west/a/*", &[("us-west/a/*", 80), ("us-west/b/1", 15), ("us-east/*", 5)]),
            ],
            ..Default::default()
        };
        let mut all = five();
        all[0].weight = 3;
        let found = groups(&setting, false, &scope("us-west/a/1"), &all);
        let expected = [("us-east/c/1", 0, 5), ("us-west/a/1", 0, 60), ("us-west/a/2", 0, 20), ("us-west/b/1", 0, 15)];
        assert_eq!(found, expected.map(|(place, priority, weight)| (place.to_owned(), priority, weight)));
    }

    #[test]
    fn shares_are_rounded_up() {
        let setting =
            LocalityLbSetting { distribute: vec![distribute("*", &[("us-west/*", 100)])], ..Default::default() };
        let found = groups(&setting, false, &scope("us-west/a/1"), &five());
        assert_eq!(found.iter().map(|(_, _, weight)| *weight).collect::<Vec<_>>(), [34, 34, 34]);
    }

    #[test]
    fn clients_elsewhere_are_not_shared_out() {
        let setting =
            LocalityLbSetting { distribute: vec![distribute("us-west/b", &[("eu", 100)])], ..Default::default() };
        assert_eq!(groups(&setting, false, &scope("us-west/a/1"), &five()).len(), 5);
        assert_eq!(groups(&setting, false, &scope("us-west/b/7"), &five()).len(), 1);
    }

    #[test]
    fn the_first_label_that_differs_decides() {
        let setting = LocalityLbSetting {
            failover_priority: vec!["version=v2".into(), "team".into(), ZONE.into()],
            ..Default::default()
        };
        let mut scope = scope("us/a");
        scope.labels = Some(BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
        let all = [
            endpoint("us/a", &[("version", "v2"), ("team", "shop")]),
            endpoint("us/b", &[("version", "v2"), ("team", "shop")]),
            endpoint("us/c", &[("version", "v2")]),
            endpoint("us/d", &[("team", "shop")]),
        ];
        let found = groups(&setting, true, &scope, &all);
        assert_eq!(priorities_of(&found), [("us/a", 0), ("us/b", 1), ("us/c", 2), ("us/d", 3)]);
        assert!(groups(&setting, false, &scope, &all).iter().all(|(_, priority, _)| *priority == 0));
    }

    #[test]
    fn labels_split_one_locality_and_regions_split_what_labels_leave_equal() {
        let setting = LocalityLbSetting {
            failover_priority: vec!["version=v2".into()],
            failover: vec![failover("us", "eu")],
            ..Default::default()
        };
        let all = [
            endpoint("us/a", &[("version", "v2")]),
            endpoint("us/a", &[("version", "v1")]),
            endpoint("eu/b", &[("version", "v2")]),
            endpoint("asia/c", &[("version", "v2")]),
        ];
        let found = groups(&setting, true, &scope("us/a"), &all);
        assert_eq!(priorities_of(&found), [("asia/c", 2), ("eu/b", 1), ("us/a", 0), ("us/a", 3)]);
    }

    #[test]
    fn a_service_may_ask_for_the_same_node_without_outlier_detection() {
        let labels = SAME_NODE.map(str::to_owned).to_vec();
        let sharing = Sharing::Priorities { labels: labels.into(), regions: None };
        let preference = Preference { sharing, is_of_service: true, ..Preference::default() };
        let on = |place: &str, node: &str| {
            let workload = Workload { node: node.into(), ..Workload::default() };
            Endpoint { workload: Arc::new(workload), ..endpoint(place, &[]) }
        };
        let all = [on("us/a", "n1"), on("us/a", "n2"), on("us/b", "n3"), on("eu/c", "n4")];
        let mut scope = scope("us/a");
        scope.node = "n2".into();
        let all: Vec<&Endpoint> = all.iter().collect();
        let found: Vec<(&str, u32)> = preference
            .group(&scope, &all)
            .iter()
            .map(|group| (&*group.endpoints[0].workload.node, group.priority))
            .collect();
        assert_eq!(found, [("n4", 3), ("n2", 0), ("n1", 1), ("n3", 2)]);
    }
}
