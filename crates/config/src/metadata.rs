//! What is an object called, and what is known of it whatever its kind? The `metadata` of Kubernetes objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::{Decode, Decoder, message};
use crate::diagnostic::{Diagnostic, code};
use crate::kind::Kind;
use crate::node::{Node, Value};
use crate::position::Position;

/// What an object is called, and what is known of it whatever its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Where it is written.
    pub at: Position,
    /// Name.
    pub name: Arc<str>,
    /// Where the name is written.
    pub name_at: Position,
    /// Namespace; empty for kinds without one.
    pub namespace: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was created, in seconds since 1970. Absent for objects that come from files.
    pub creation_timestamp: Option<i64>,
    /// First part of a name that was made up.
    pub generate_name: Option<String>,
    /// Version of its content in the API server.
    pub resource_version: Option<String>,
    /// Unique identifier in the API server.
    pub uid: Option<String>,
    /// Counts changes of its specification.
    pub generation: Option<i64>,
    /// Objects that it is deleted with.
    pub owner_references: Vec<OwnerReference>,
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata {
            at: Position::UNKNOWN,
            name: "".into(),
            name_at: Position::UNKNOWN,
            namespace: "".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            creation_timestamp: None,
            generate_name: None,
            resource_version: None,
            uid: None,
            generation: None,
            owner_references: Vec::new(),
        }
    }
}

message! {
    /// An object that another is deleted with.
    pub struct OwnerReference {
        /// Group and version.
        api_version: Option<String>,
        /// Kind.
        kind: Option<String>,
        /// Name.
        name: Option<String>,
        /// Unique identifier.
        uid: Option<String>,
        /// Whether it made the object.
        controller: Option<bool>,
        /// Whether it waits for the object to be deleted.
        block_owner_deletion: Option<bool>,
    }

    /// The mapping as it is written.
    pub(crate) struct ObjectMeta {
        /// Name.
        name: Option<String>,
        /// First part of a name to make up.
        generate_name: Option<String>,
        /// Namespace.
        namespace: Option<String>,
        /// Path of old API servers.
        self_link: Option<serde_json::Value>,
        /// Unique identifier.
        uid: Option<String>,
        /// Version of the content.
        resource_version: Option<String>,
        /// Counts changes.
        generation: Option<i64>,
        /// When it was created.
        creation_timestamp: Option<Timestamp>,
        /// When it is deleted.
        deletion_timestamp: Option<serde_json::Value>,
        /// How long the deletion may take.
        deletion_grace_period_seconds: Option<serde_json::Value>,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Objects that it is deleted with.
        owner_references: Vec<OwnerReference>,
        /// Who has to agree to the deletion.
        finalizers: Option<serde_json::Value>,
        /// Who wrote which field.
        managed_fields: Option<serde_json::Value>,
    }
}

/// A time in RFC 3339, as seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Timestamp(i64);

impl Decode for Timestamp {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::String(text) = &node.value else {
            cx.wrong_type(node, "a string");
            return None;
        };
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Some(Timestamp(time.as_second())),
            Err(_) => {
                let message = format!("`{}` is no time: `{text}`", cx.path());
                cx.bad_value(node, message, Some("write it like 2026-01-31T12:00:00Z".to_owned()));
                None
            }
        }
    }
}

impl Metadata {
    /// Reads the `metadata` of an object. `None` when it has no name, or cannot be read.
    pub(crate) fn parse(
        root: &Node,
        kind: Kind,
        default_namespace: &Arc<str>,
        cx: &mut Decoder<'_>,
    ) -> Option<Metadata> {
        let node = root.get("metadata").filter(|node| !node.is_null());
        let meta = match node {
            Some(node) => cx.within("metadata", |cx| ObjectMeta::decode(node, cx))?,
            None => ObjectMeta::default(),
        };
        let Some(name) = meta.name.filter(|name| !name.is_empty()) else {
            let message = format!("{kind} has no name");
            let place = root.entry("metadata").map_or((root.at, root.length), |entry| (entry.at, entry.length));
            let help = match &meta.generate_name {
                Some(_) => "generateName only works with an API server: give metadata.name",
                None => "give metadata.name",
            };
            cx.report(place.0, place.1, Diagnostic::error(code::NO_NAME, message).help(help));
            return None;
        };
        let namespace = match (kind.is_namespaced(), meta.namespace.filter(|namespace| !namespace.is_empty())) {
            (false, _) => "".into(),
            (true, Some(namespace)) => namespace.into(),
            (true, None) => default_namespace.clone(),
        };
        Some(Metadata {
            at: meta.at,
            name: name.into(),
            name_at: node.and_then(|node| node.get("name")).map_or(root.at, |name| name.at),
            namespace,
            labels: meta.labels,
            annotations: meta.annotations,
            creation_timestamp: meta.creation_timestamp.map(|time| time.0),
            generate_name: meta.generate_name,
            resource_version: meta.resource_version,
            uid: meta.uid,
            generation: meta.generation,
            owner_references: meta.owner_references,
        })
    }
}
