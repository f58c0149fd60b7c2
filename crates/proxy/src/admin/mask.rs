//! Which fields of a message are kept? Envoy's field masks in `/config_dump?mask=`.
//!
//! A path goes through messages, and through a packed message at its first step, but not through lists.

use serde_json::{Map, Value, json};

/// A field mask: paths separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    paths: Vec<String>,
}

impl Mask {
    /// `None` for a mask without paths, which keeps everything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let paths: Vec<_> = text.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned).collect();
        (!paths.is_empty()).then_some(Self { paths })
    }

    /// Whether every path names a field of the message type. `example` is a message of it, from which the type of a
    /// packed field is known.
    pub(super) fn fits(&self, message_type: &str, example: &Value) -> bool {
        self.paths.iter().all(|path| {
            if let Some((first, rest)) = path.split_once('.')
                && let Some(packed) = example.get(first).and_then(|field| field.get("@type")?.as_str())
            {
                return has_field(lateen_xds::any::type_name(packed), rest);
            }
            has_field(message_type, path)
        })
    }

    /// The message with the fields of the mask alone.
    pub(super) fn apply(&self, message: &Value) -> Value {
        let mut kept = Value::Object(Map::new());
        for path in &self.paths {
            keep(message, path, &mut kept);
        }
        if let (Some(message_type), Value::Object(kept)) = (message.get("@type"), &mut kept) {
            kept.insert("@type".into(), message_type.clone());
        }
        kept
    }

    /// The paths as Envoy prints them.
    pub(super) fn describe(&self) -> String {
        self.paths.iter().map(|path| format!("paths: \"{path}\"\n")).collect()
    }
}

/// A path fits when a document with nothing but a null at it is a message of the type.
fn has_field(message_type: &str, path: &str) -> bool {
    let document = path.rsplit('.').fold(Value::Null, |inner, field| json!({ field: inner }));
    path.split('.').count() <= 32 && lateen_xds::json::parse_named(message_type, &document).is_ok()
}

fn keep(message: &Value, path: &str, kept: &mut Value) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (Some(field), Value::Object(kept)) = (message.get(first), kept) else { return };
    let Some(rest) = rest else {
        kept.insert(first.to_owned(), field.clone());
        return;
    };
    let slot = kept.entry(first).or_insert_with(|| {
        let mut begun = Map::new();
        if let Some(message_type) = field.get("@type") {
            begun.insert("@type".into(), message_type.clone());
        }
        Value::Object(begun)
    });
    keep(field, rest, slot);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC_CLUSTER: &str = "envoy.admin.v3.ClustersConfigDump.DynamicCluster";

    fn element() -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
            "version_info": "1",
            "cluster": {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": "a",
                "eds_cluster_config": {"service_name": "s", "eds_config": {"ads": {}}}
            }
        })
    }

    #[test]
    fn only_the_fields_of_the_mask_and_the_types_stay() {
        let mask = Mask::parse("cluster.name,cluster.eds_cluster_config.service_name, missing").unwrap();
        assert_eq!(
            mask.apply(&element()),
            json!({
                "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
                "cluster": {
                    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                    "name": "a",
                    "eds_cluster_config": {"service_name": "s"}
                }
            })
        );
        assert_eq!(Mask::parse(" , "), None);
    }

    #[test]
    fn a_mask_fits_when_each_path_names_a_field_outside_lists() {
        let fits = |mask: &str| Mask::parse(mask).unwrap().fits(DYNAMIC_CLUSTER, &element());
        for good in ["version_info", "cluster", "cluster.name,last_updated", "cluster.load_assignment.endpoints"] {
            assert!(fits(good), "{good}");
        }
        for bad in ["bogus", "cluster.bogus", "cluster.name,bogus.x", "cluster.load_assignment.endpoints.locality"] {
            assert!(!fits(bad), "{bad}");
        }
        assert!(!fits(&["a"; 200].join(".")));
    }
}
