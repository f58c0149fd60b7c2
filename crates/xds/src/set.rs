//! What does one proxy run? The set of its resources by type and name, and how two such sets differ.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::{Message, Name};
use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::RouteConfiguration;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;
use crate::{Origin, Part};

/// Hash of a resource's content: xxHash64, seed 0, of its encoded bytes. Displays as 16 hexadecimal digits.
///
/// Origins do not count: the same configuration read from another line is the same version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a message with this content.
    pub fn of<M: Message>(message: &M) -> Self {
        Version(xxh64(&message.encode_to_vec(), 0))
    }

    /// The version of a large message by those of its parts, in order, and of the rest without them. It is another number
    /// than [`Version::of`] gives for the whole, and as good as that among versions that are made in this way.
    pub fn of_parts<M: Message>(rest: &M, parts: impl IntoIterator<Item = Version>) -> Self {
        let mut hash = Xxh64::new(0);
        hash.update(&Version::of(rest).0.to_le_bytes());
        for part in parts {
            hash.update(&part.0.to_le_bytes());
        }
        Version(hash.digest())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One xDS resource: an immutable message that is cheap to clone, its version, and where its parts came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<M> {
    /// Hash of the content of `message`.
    pub version: Version,
    /// The Envoy message.
    pub message: Arc<M>,
    /// Where parts of the message came from, sorted by part; a part may have several origins, most important first.
    pub origins: Arc<[(Part, Origin)]>,
}

impl<M: Message> Resource<M> {
    /// Hashes the message and sorts the origins by part; the order of a part's own origins is kept.
    pub fn new(message: M, origins: Vec<(Part, Origin)>) -> Self {
        let version = Version::of(&message);
        Resource::with_version(message, version, origins)
    }

    /// The same, with a version that was made otherwise from the content.
    pub fn with_version(message: M, version: Version, mut origins: Vec<(Part, Origin)>) -> Self {
        origins.sort_by_key(|(part, _)| *part);
        Resource { version, message: Arc::new(message), origins: origins.into() }
    }
}

impl<M> Resource<M> {
    /// The first origin of a part or, when it has none of its own, of the nearest part around it.
    pub fn origin(&self, part: Part) -> Option<&Origin> {
        let mut part = Some(part);
        while let Some(current) = part {
            if let Some(origin) = self.origins_of(current).next() {
                return Some(origin);
            }
            part = current.parent();
        }
        None
    }

    /// All origins of exactly this part.
    pub fn origins_of(&self, part: Part) -> impl Iterator<Item = &Origin> {
        let first = self.origins.partition_point(|(other, _)| *other < part);
        self.origins[first..].iter().take_while(move |(other, _)| *other == part).map(|(_, origin)| origin)
    }
}

/// The types of resource that a set holds, in the order in which they are to be put into effect (what others refer to
/// comes first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// TLS certificates and validation contexts (SDS).
    Secret,
    /// Clusters (CDS).
    Cluster,
    /// Endpoints of clusters (EDS).
    Endpoint,
    /// Listeners (LDS).
    Listener,
    /// Route configurations (RDS).
    Route,
}

impl ResourceType {
    /// Every type, in the order of the enumeration.
    pub const ALL: [ResourceType; 5] = [
        ResourceType::Secret,
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
    ];

    /// The type URL by which xDS asks for the type.
    pub fn type_url(self) -> &'static str {
        match self {
            ResourceType::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResourceType::Secret => "secret",
            ResourceType::Cluster => "cluster",
            ResourceType::Endpoint => "endpoints",
            ResourceType::Listener => "listener",
            ResourceType::Route => "route configuration",
        })
    }
}

/// A message that is an xDS resource of its own.
pub trait ResourceMessage: Message + Name + Default {
    /// Which type of resource it is.
    const TYPE: ResourceType;

    /// The field that names the resource.
    fn resource_name(&self) -> &str;
    /// The resources of this type in a set.
    fn of(set: &XdsSet) -> &BTreeMap<Arc<str>, Resource<Self>>;
    /// The resources of this type in a set, to be changed.
    fn of_mut(set: &mut XdsSet) -> &mut BTreeMap<Arc<str>, Resource<Self>>;
}

/// Every resource of one proxy. Cloning shares the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct XdsSet {
    /// Listeners by `Listener.name`.
    pub listeners: BTreeMap<Arc<str>, Resource<Listener>>,
    /// Route configurations by `RouteConfiguration.name`.
    pub routes: BTreeMap<Arc<str>, Resource<RouteConfiguration>>,
    /// Clusters by `Cluster.name`.
    pub clusters: BTreeMap<Arc<str>, Resource<Cluster>>,
    /// Endpoints by `ClusterLoadAssignment.cluster_name`.
    pub endpoints: BTreeMap<Arc<str>, Resource<ClusterLoadAssignment>>,
    /// Secrets by `Secret.name`.
    pub secrets: BTreeMap<Arc<str>, Resource<Secret>>,
}

impl XdsSet {
    /// Adds a resource under the name that its message bears. Returns the resource that had this name before.
    pub fn insert<M: ResourceMessage>(&mut self, message: M, origins: Vec<(Part, Origin)>) -> Option<Resource<M>> {
        let name = Arc::from(message.resource_name());
        M::of_mut(self).insert(name, Resource::new(message, origins))
    }

    /// The resource of type `M` with this name.
    pub fn get<M: ResourceMessage>(&self, name: &str) -> Option<&Resource<M>> {
        M::of(self).get(name)
    }

    /// Name and version of each resource of a type, in the order of names.
    pub fn versions(&self, resource_type: ResourceType) -> Vec<(&Arc<str>, Version)> {
        match resource_type {
            ResourceType::Secret => versions(&self.secrets),
            ResourceType::Cluster => versions(&self.clusters),
            ResourceType::Endpoint => versions(&self.endpoints),
            ResourceType::Listener => versions(&self.listeners),
            ResourceType::Route => versions(&self.routes),
        }
    }

    /// One version for all resources of a type: it changes when a resource comes, goes or changes.
    pub fn version(&self, resource_type: ResourceType) -> Version {
        let mut hash = Xxh64::new(0);
        for (name, version) in self.versions(resource_type) {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(&version.0.to_le_bytes());
        }
        Version(hash.digest())
    }

    /// Whether there is no resource of any type.
    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| self.versions(resource_type).is_empty())
    }

    /// What has to happen to `old` so that it becomes `self`. Origins do not count.
    pub fn diff(&self, old: &XdsSet) -> Diff {
        let mut diff = Diff::default();
        for resource_type in ResourceType::ALL {
            let changes = Changes::between(old.versions(resource_type), self.versions(resource_type));
            if !changes.is_empty() {
                diff.by_type.insert(resource_type, changes);
            }
        }
        diff
    }
}

/// How two sets differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The types in which something differs.
    pub by_type: BTreeMap<ResourceType, Changes>,
}

impl Diff {
    /// Whether the sets have the same content.
    pub fn is_empty(&self) -> bool {
        self.by_type.is_empty()
    }
}

/// How the resources of one type differ: names, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Only in the newer set.
    pub added: Vec<Arc<str>>,
    /// In both, with different versions.
    pub changed: Vec<Arc<str>>,
    /// Only in the older set.
    pub removed: Vec<Arc<str>>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Walks two lists that are sorted by name.
    fn between(old: Vec<(&Arc<str>, Version)>, new: Vec<(&Arc<str>, Version)>) -> Self {
        let mut changes = Changes::default();
        let mut old = old.into_iter().peekable();
        for (name, version) in new {
            while let Some((removed, _)) = old.next_if(|(other, _)| *other < name) {
                changes.removed.push(removed.clone());
            }
            match old.next_if(|(other, _)| *other == name) {
                None => changes.added.push(name.clone()),
                Some((_, before)) if before != version => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        changes.removed.extend(old.map(|(name, _)| name.clone()));
        changes
    }
}

fn versions<M>(resources: &BTreeMap<Arc<str>, Resource<M>>) -> Vec<(&Arc<str>, Version)> {
    resources.iter().map(|(name, resource)| (name, resource.version)).collect()
}

macro_rules! resource_message {
    ($message:ty, $resource_type:ident, $name:ident, $field:ident) => {
        impl ResourceMessage for $message {
            const TYPE: ResourceType = ResourceType::$resource_type;

            fn resource_name(&self) -> &str {
                &self.$name
            }

            fn of(set: &XdsSet) -> &BTreeMap<Arc<str>, Resource<Self>> {
                &set.$field
            }

            fn of_mut(set: &mut XdsSet) -> &mut BTreeMap<Arc<str>, Resource<Self>> {
                &mut set.$field
            }
        }
    };
}

resource_message!(Listener, Listener, name, listeners);
resource_message!(RouteConfiguration, Route, name, routes);
resource_message!(Cluster, Cluster, name, clusters);
resource_message!(ClusterLoadAssignment, Endpoint, cluster_name, endpoints);
resource_message!(Secret, Secret, name, secrets);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::core::v3::Metadata;
    use prost_types::Struct;

    fn cluster(name: &str, alt_stat_name: &str) -> Cluster {
        Cluster { name: name.into(), alt_stat_name: alt_stat_name.into(), ..Cluster::default() }
    }

    fn origin(name: &str) -> Origin {
        Origin { kind: "VirtualService".into(), name: name.into(), ..Origin::default() }
    }

    #[test]
    fn equal_content_has_equal_bytes_and_version_whatever_the_order_of_insertion() {
        let keys: Vec<String> = (0..64).map(|i| format!("filter.{i}")).collect();
        let build = |keys: &mut dyn Iterator<Item = &String>| Cluster {
            name: "reviews".into(),
            metadata: Some(Metadata {
                filter_metadata: keys.map(|key| (key.clone(), Struct::default())).collect(),
                ..Metadata::default()
            }),
            ..Cluster::default()
        };
        let (forward, backward) = (build(&mut keys.iter()), build(&mut keys.iter().rev()));
        assert_eq!(forward.encode_to_vec(), backward.encode_to_vec());
        assert_eq!(Version::of(&forward), Version::of(&backward));
    }

    #[test]
    fn version_is_a_stable_content_hash_of_sixteen_digits() {
        let version = Version::of(&cluster("reviews", ""));
        assert_eq!(version, Version(xxh64(b"\x0a\x07reviews", 0)));
        assert_ne!(version, Version::of(&cluster("reviews", "other")));
        assert_eq!(Version(0xab).to_string(), "00000000000000ab");
    }

    #[test]
    fn origins_do_not_change_the_version() {
        let plain = Resource::new(cluster("a", ""), vec![]);
        let with_origin = Resource::new(cluster("a", ""), vec![(Part::Whole, origin("a"))]);
        assert_eq!(plain.version, with_origin.version);
    }

    #[test]
    fn a_part_without_an_origin_has_that_of_the_part_around_it() {
        let route = |route| Part::Route { virtual_host: 0, route };
        let resource = Resource::new(
            RouteConfiguration::default(),
            vec![(route(1), origin("second")), (Part::VirtualHost(0), origin("host")), (route(1), origin("merged"))],
        );
        let name = |part| resource.origin(part).map(|origin| &*origin.name);
        assert_eq!(name(route(1)), Some("second"));
        assert_eq!(name(route(0)), Some("host"));
        assert_eq!(name(Part::Whole), None);
        let both: Vec<&str> = resource.origins_of(route(1)).map(|origin| &*origin.name).collect();
        assert_eq!(both, ["second", "merged"]);
    }

    #[test]
    fn type_urls_are_those_of_the_messages() {
        assert_eq!(ResourceType::Secret.type_url(), Secret::type_url());
        assert_eq!(ResourceType::Cluster.type_url(), Cluster::type_url());
        assert_eq!(ResourceType::Endpoint.type_url(), ClusterLoadAssignment::type_url());
        assert_eq!(ResourceType::Listener.type_url(), Listener::type_url());
        assert_eq!(ResourceType::Route.type_url(), RouteConfiguration::type_url());
    }

    #[test]
    fn insert_files_a_message_under_its_own_name() {
        let mut set = XdsSet::default();
        assert!(set.is_empty());
        assert_eq!(set.insert(cluster("a", ""), vec![]), None);
        let previous = set.insert(cluster("a", "x"), vec![]).map(|resource| resource.message);
        assert_eq!(previous, Some(Arc::new(cluster("a", ""))));
        assert_eq!(*set.clusters["a"].message, cluster("a", "x"));
        assert_eq!(set.get::<Cluster>("a"), set.clusters.get("a"));
        set.insert(ClusterLoadAssignment { cluster_name: "a".into(), ..Default::default() }, vec![]);
        assert!(set.endpoints.contains_key("a"));
    }

    #[test]
    fn diff_names_what_was_added_changed_and_removed() {
        let set = |clusters: &[(&str, &str)], listeners: &[&str]| {
            let mut set = XdsSet::default();
            for (name, content) in clusters {
                set.insert(cluster(name, content), vec![]);
            }
            for name in listeners {
                set.insert(Listener { name: name.to_string(), ..Listener::default() }, vec![]);
            }
            set
        };
        let old = set(&[("a", ""), ("b", ""), ("d", ""), ("f", "")], &["http"]);
        let new = set(&[("b", "x"), ("c", ""), ("d", ""), ("e", "")], &["http"]);
        let names = |list: &[&str]| list.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        let expected = Changes { added: names(&["c", "e"]), changed: names(&["b"]), removed: names(&["a", "f"]) };
        let diff = new.diff(&old);
        assert_eq!(diff.by_type, BTreeMap::from([(ResourceType::Cluster, expected)]));
        assert!(new.diff(&new.clone()).is_empty());
        assert_ne!(new.version(ResourceType::Cluster), old.version(ResourceType::Cluster));
        assert_eq!(new.version(ResourceType::Listener), old.version(ResourceType::Listener));
    }
}
