//! What is an object, of whatever kind? Its names, its content, and where it came from.

use std::fmt;
use std::sync::Arc;

use crate::diagnostic::Subject;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::envoy_filter::EnvoyFilter;
use crate::istio::gateway::Gateway;
use crate::istio::proxy_config::ProxyConfigSpec;
use crate::istio::security::PeerAuthentication;
use crate::istio::service_entry::ServiceEntry;
use crate::istio::sidecar::Sidecar;
use crate::istio::telemetry::Telemetry;
use crate::istio::virtual_service::VirtualService;
use crate::istio::workload::{WorkloadEntry, WorkloadGroup};
use crate::k8s::config::{ConfigMap, Secret};
use crate::k8s::endpoints::{EndpointSlice, Endpoints};
use crate::k8s::ingress::{Ingress, IngressClass};
use crate::k8s::node::{Namespace, Node};
use crate::k8s::pod::{Deployment, Pod};
use crate::k8s::service::Service;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::node;
use crate::position::{Location, Position, SourceFile};
use crate::yaml::{self, Document};

/// An object of Istio or Kubernetes. Displays as `VirtualService default/reviews`.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Kind.
    pub kind: Kind,
    /// Group and version as they are written.
    pub api_version: String,
    /// Names, labels and so on.
    pub metadata: Metadata,
    /// Content.
    pub spec: Spec,
    /// Where it came from.
    pub source: Source,
    /// Whether errors were found in it. Fields that are not known were left out of the content.
    pub has_errors: bool,
}

/// Content of an object.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the kinds")]
#[expect(clippy::large_enum_variant, reason = "objects live behind an Arc each; a second pointer gains nothing")]
pub enum Spec {
    VirtualService(VirtualService),
    DestinationRule(DestinationRule),
    Gateway(Gateway),
    ServiceEntry(ServiceEntry),
    WorkloadEntry(WorkloadEntry),
    WorkloadGroup(WorkloadGroup),
    Sidecar(Sidecar),
    EnvoyFilter(EnvoyFilter),
    ProxyConfig(ProxyConfigSpec),
    PeerAuthentication(PeerAuthentication),
    Telemetry(Telemetry),
    Service(Service),
    Endpoints(Endpoints),
    EndpointSlice(EndpointSlice),
    Ingress(Ingress),
    IngressClass(IngressClass),
    Pod(Pod),
    Deployment(Deployment),
    ConfigMap(ConfigMap),
    Secret(Secret),
    Namespace(Namespace),
    Node(Node),
    /// A kind whose content is not looked at here.
    Opaque(Opaque),
}

/// Content that is not looked at: the whole object as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opaque {
    /// Where it is written.
    pub at: Position,
    /// The whole object.
    pub value: serde_json::Value,
}

/// Where an object came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The file; `None` for objects that did not come from text.
    pub file: Option<Arc<SourceFile>>,
    /// First line of the object, and its column.
    pub at: Position,
    /// Its document in the file.
    pub(crate) document: Document,
    /// Its place in the lists of its document, from the outside in; empty when the document is the object.
    pub(crate) items: Vec<usize>,
}

impl Source {
    /// Path of the file.
    pub fn path(&self) -> Option<&Arc<str>> {
        self.file.as_ref().map(|file| &file.path)
    }
}

impl Object {
    /// Kind, namespace and name.
    pub fn subject(&self) -> Subject {
        Subject {
            kind: self.kind.as_str().into(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// True when another reading of the same place in the same file says the same: either may stand for both, although
    /// the rest of the file may differ.
    pub fn reads_as(&self, other: &Object) -> bool {
        let (here, there) = (&self.source, &other.source);
        here.path() == there.path()
            && (here.at, here.document, &here.items) == (there.at, there.document, &there.items)
            && self.kind == other.kind
            && self.api_version == other.api_version
            && self.has_errors == other.has_errors
            && self.metadata == other.metadata
            && self.spec == other.spec
    }

    /// Where a field is written, given by a path such as `spec.http[0].route[1].destination.host`: the value, or what
    /// comes nearest to it on the way. Keys with dots are written `metadata.labels["a.b/c"]`. Unknown when the object
    /// did not come from text.
    ///
    /// The text is read again, so this is for messages, not for every day.
    pub fn locate(&self, path: &str) -> Position {
        self.find(path).map_or(self.source.at, |(at, _)| at)
    }

    /// The same as [`Object::locate`], with file and length.
    pub fn location(&self, path: &str) -> Option<Location> {
        let (at, length) = self.find(path)?;
        Location::of(self.source.file.as_ref()?, at, length)
    }

    fn find(&self, path: &str) -> Option<(Position, u32)> {
        let file = self.source.file.as_ref()?;
        let root = yaml::parse(&file.text, self.source.document).0?;
        let mut node = &root;
        for item in &self.source.items {
            node = match &node.get("items")?.value {
                node::Value::Seq(items) => items.get(*item)?,
                _ => return None,
            };
        }
        Some(node.locate(path))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject().fmt(f)
    }
}
