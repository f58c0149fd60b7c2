//! What can ConfigMaps and Secrets say? `v1` ConfigMap and Secret, with their bytes decoded.

use std::collections::BTreeMap;
use std::fmt;

use crate::decode::{Base64, Decode, Decoder, message};
use crate::node::Node;
use crate::position::Position;

message! {
    /// The mapping of a ConfigMap.
    pub(crate) struct ConfigMapRoot {
        /// Texts by key.
        data: BTreeMap<String, String>,
        /// Bytes by key.
        binary_data: BTreeMap<String, Base64>,
    }

    /// The mapping of a Secret.
    pub(crate) struct SecretRoot {
        /// Type, for example `kubernetes.io/tls`.
        r#type: Option<String>,
        /// Bytes by key.
        data: BTreeMap<String, Base64>,
        /// Texts by key.
        string_data: BTreeMap<String, String>,
    }
}

/// Texts and bytes by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigMap {
    /// Where it is written.
    pub at: Position,
    /// Texts by key.
    pub data: BTreeMap<String, String>,
    /// Bytes by key.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

impl Decode for ConfigMap {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let root = ConfigMapRoot::decode(node, cx)?;
        Some(ConfigMap { at: root.at, data: root.data, binary_data: Base64::into_bytes(root.binary_data) })
    }
}

/// Bytes by key that not everybody may see: `Debug` shows the keys and lengths alone.
#[derive(Clone, Default, PartialEq)]
pub struct Secret {
    /// Where it is written.
    pub at: Position,
    /// Type, for example `kubernetes.io/tls`.
    pub r#type: Option<String>,
    /// Bytes by key: `data`, and over it `stringData`.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths: BTreeMap<&str, usize> = self.data.iter().map(|(key, value)| (key.as_str(), value.len())).collect();
        f.debug_struct("Secret").field("at", &self.at).field("type", &self.r#type).field("lengths", &lengths).finish()
    }
}

impl Decode for Secret {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let root = SecretRoot::decode(node, cx)?;
        let mut data = Base64::into_bytes(root.data);
        data.extend(root.string_data.into_iter().map(|(key, text)| (key, text.into_bytes())));
        Some(Secret { at: root.at, r#type: root.r#type, data })
    }
}
