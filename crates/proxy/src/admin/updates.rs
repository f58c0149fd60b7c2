//! Since when is each resource in use? `last_updated` of `/config_dump`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_xds::{ResourceType, Version, XdsSet};

/// The version of each resource and the time at which it came.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    started: Option<SystemTime>,
    by_type: BTreeMap<ResourceType, BTreeMap<Arc<str>, (Version, SystemTime)>>,
}

impl Updates {
    /// The updates after a set was taken into use: a resource whose version stayed keeps its time.
    #[must_use]
    pub fn after(&self, set: &XdsSet, now: SystemTime) -> Self {
        let mut by_type = BTreeMap::new();
        for resource_type in ResourceType::ALL {
            let before = self.by_type.get(&resource_type);
            let times = set.versions(resource_type).into_iter().map(|(name, version)| {
                let kept = before.and_then(|before| before.get(name)).filter(|(kept, _)| *kept == version);
                (name.clone(), (version, kept.map_or(now, |(_, time)| *time)))
            });
            by_type.insert(resource_type, times.collect());
        }
        Self { started: self.started.or(Some(now)), by_type }
    }

    /// When the resource came in its present version.
    #[must_use]
    pub fn time(&self, resource_type: ResourceType, name: &str) -> Option<SystemTime> {
        self.by_type.get(&resource_type)?.get(name).map(|(_, time)| *time)
    }

    /// When the first set was taken into use.
    #[must_use]
    pub fn started(&self) -> Option<SystemTime> {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use lateen_xds::envoy::config::cluster::v3::Cluster;

    use super::*;

    #[test]
    fn only_what_changed_has_a_new_time() {
        let cluster =
            |name: &str, alt: &str| Cluster { name: name.into(), alt_stat_name: alt.into(), ..Cluster::default() };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut set = XdsSet::default();
        set.insert(cluster("a", ""), vec![]);
        set.insert(cluster("b", ""), vec![]);
        let first = Updates::default().after(&set, at(1));
        set.insert(cluster("b", "changed"), vec![]);
        set.insert(cluster("c", ""), vec![]);
        set.clusters.remove("a");
        let second = first.after(&set, at(2));
        let time = |updates: &Updates, name| updates.time(ResourceType::Cluster, name);
        assert_eq!([time(&first, "a"), time(&first, "b"), time(&first, "c")], [Some(at(1)), Some(at(1)), None]);
        assert_eq!([time(&second, "a"), time(&second, "b"), time(&second, "c")], [None, Some(at(2)), Some(at(2))]);
        let third = second.after(&set, at(3));
        assert_eq!(time(&third, "b"), Some(at(2)));
        assert_eq!(third.started(), Some(at(1)));
    }
}
