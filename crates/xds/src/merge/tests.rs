//! Properties that hold for messages of every type, and the exceptions from protobuf's own rules one by one.
#![allow(clippy::unwrap_used)]

use prost::{Message, Name};
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::*;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Filter;
use crate::envoy::config::route::v3::RouteConfiguration;
use crate::json;

/// A sequence that only looks like chance, so that a failure comes back.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Which fields the messages have.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Every,
    /// None of those that are merged otherwise than protobuf merges.
    Ordinary,
    /// No list: nothing that grows.
    Single,
}

fn is_exceptional(name: &str) -> bool {
    let wrapped = name.strip_prefix("google.protobuf.").unwrap_or_default();
    matches!(wrapped, "Any" | "Duration") || (wrapped.ends_with("Value") && !matches!(wrapped, "Value" | "ListValue"))
}

fn message(kind: &MessageDescriptor, random: &mut Random, depth: usize, of: Of) -> Value {
    let number = random.below(3) + 1;
    match kind.full_name().strip_prefix("google.protobuf.") {
        Some("Any") => {
            json!({"@type": "type.googleapis.com/envoy.config.core.v3.Pipe", "path": format!("/{number}"), "mode": number})
        }
        Some("Timestamp") => json!(format!("2026-01-31T12:00:0{number}Z")),
        Some("Duration") => json!(format!("{number}.5s")),
        Some("Struct") => json!({"a": number, format!("{number}"): {"b": null}}),
        Some("Value") => json!(format!("{number}")),
        Some("ListValue") => json!([number]),
        Some("Empty") => json!({}),
        Some("BytesValue") => json!("AAE="),
        Some("BoolValue") => json!(number == 1),
        Some(name) if name.ends_with("Value") => json!(format!("{number}")),
        _ => Value::Object(fields(kind, random, depth, of)),
    }
}

fn fields(kind: &MessageDescriptor, random: &mut Random, depth: usize, of: Of) -> Map<String, Value> {
    let mut object = Map::new();
    let mut taken = Vec::new();
    for field in kind.fields().filter(|field| !field.is_group()) {
        let repeated = field.cardinality() == Cardinality::Repeated;
        let skip = match field.kind() {
            Kind::Message(kind) if of == Of::Ordinary && is_exceptional(kind.full_name()) => true,
            Kind::Message(kind) => depth == 0 && kind.package_name() != "google.protobuf",
            _ => false,
        };
        if skip || (repeated && of == Of::Single) || random.below(3) == 0 {
            continue;
        }
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            if taken.contains(&oneof.name().to_owned()) {
                continue;
            }
            taken.push(oneof.name().to_owned());
        }
        object.insert(field.name().to_owned(), value(&field, random, depth, of));
    }
    object
}

fn value(field: &FieldDescriptor, random: &mut Random, depth: usize, of: Of) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("a map without an entry") };
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => format!("k{}", random.below(3)),
            Kind::Bool => "true".to_owned(),
            _ => random.below(3).to_string(),
        };
        return json!({ key: single(&entry.map_entry_value_field().kind(), random, depth, of) });
    }
    if field.cardinality() == Cardinality::Repeated {
        let count = random.below(3);
        return (0..count).map(|_| single(&field.kind(), random, depth, of)).collect();
    }
    single(&field.kind(), random, depth, of)
}

fn single(kind: &Kind, random: &mut Random, depth: usize, of: Of) -> Value {
    match kind {
        Kind::Message(kind) => message(kind, random, depth.saturating_sub(1), of),
        Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
        Kind::Enum(kind) => {
            let values: Vec<_> = kind.values().collect();
            values[random.below(values.len() as u64) as usize].name().into()
        }
        Kind::Bool => (random.below(2) == 1).into(),
        Kind::String => format!("text{}", random.below(3)).into(),
        Kind::Bytes => "AAE=".into(),
        _ => random.below(4).into(),
    }
}

/// Calls `check` with two random messages of each type.
fn for_pairs(of: Of, check: impl Fn(&MessageDescriptor, Vec<u8>, Vec<u8>)) {
    let pool = DescriptorPool::decode(&include_bytes!("../../proto/envoy.binpb")[..]).unwrap();
    let mut random = Random(7);
    for kind in pool.all_messages() {
        if kind.is_map_entry() || kind.package_name() == "google.protobuf" {
            continue;
        }
        let mut encoded = || {
            let value = message(&kind, &mut random, 2, of);
            json::parse_named(kind.full_name(), &value).unwrap_or_else(|error| panic!("{}: {error}", kind.full_name()))
        };
        let (base, patch) = (encoded(), encoded());
        check(&kind, base, patch);
    }
}

#[test]
fn a_patch_with_nothing_changes_nothing_and_nothing_becomes_the_patch() {
    for_pairs(Of::Every, |kind, base, patch| {
        let name = kind.full_name();
        assert_eq!(merge(name, &base, &[], Lists::Append), Ok(base.clone()), "{name}");
        assert_eq!(merge(name, &[], &patch, Lists::Append), Ok(patch.clone()), "{name}");
        // Everything is set to what it is: this goes through the merging of every field.
        assert_eq!(merge(name, &patch, &patch, Lists::Replace), Ok(patch), "{name}");
    });
}

#[test]
fn without_exceptions_it_is_the_merge_of_protobuf() {
    for_pairs(Of::Ordinary, |kind, base, patch| {
        let merged = merge(kind.full_name(), &base, &patch, Lists::Append).unwrap();
        let decode = |bytes: &[u8]| DynamicMessage::decode(kind.clone(), bytes).unwrap();
        let expected = decode(&[base, patch].concat());
        assert_eq!(decode(&merged), expected, "{}", kind.full_name());
    });
}

#[test]
fn a_patch_without_lists_can_be_merged_twice() {
    for_pairs(Of::Single, |kind, base, patch| {
        let name = kind.full_name();
        let once = merge(name, &base, &patch, Lists::Append).unwrap();
        assert_eq!(merge(name, &once, &patch, Lists::Append), Ok(once), "{name}");
    });
}

#[test]
fn the_result_is_encoded_as_typed_messages_encode() {
    let check = |kind: &MessageDescriptor, base: Vec<u8>, patch: Vec<u8>, recode: fn(&[u8]) -> Vec<u8>| {
        let merged = merge(kind.full_name(), &base, &patch, Lists::Append).unwrap();
        assert_eq!(recode(&merged), merged, "{}", kind.full_name());
    };
    for_pairs(Of::Every, |kind, base, patch| match kind.full_name() {
        "envoy.config.cluster.v3.Cluster" => {
            check(kind, base, patch, |bytes| Cluster::decode(bytes).unwrap().encode_to_vec());
        }
        "envoy.config.route.v3.RouteConfiguration" => {
            check(kind, base, patch, |bytes| RouteConfiguration::decode(bytes).unwrap().encode_to_vec());
        }
        _ => {}
    });
}

fn merged<M: Name>(base: Value, patch: Value, lists: Lists) -> Value {
    let name = M::full_name();
    let encoded = |value: &Value| json::parse_named(&name, value).unwrap();
    let merged = merge(&name, &encoded(&base), &encoded(&patch), lists).unwrap();
    json::render_named(&name, &merged).unwrap()
}

#[test]
fn durations_and_wrappers_are_replaced_whole() {
    let base = json!({"connect_timeout": "1.500s", "per_connection_buffer_limit_bytes": 7, "name": "a"});
    // Protobuf would keep the half second, and could not set the zero.
    let patch = json!({"connect_timeout": "3s", "per_connection_buffer_limit_bytes": 0});
    let expected = json!({"name": "a", "connect_timeout": "3s", "per_connection_buffer_limit_bytes": 0});
    assert_eq!(merged::<Cluster>(base, patch, Lists::Append), expected);
}

#[test]
fn a_zero_of_proto3_is_no_value() {
    let base = json!({"name": "a", "lb_policy": "RANDOM", "respect_dns_ttl": true});
    let patch = json!({"lb_policy": "ROUND_ROBIN", "respect_dns_ttl": false});
    assert_eq!(merged::<Cluster>(base.clone(), patch, Lists::Append), base);
}

#[test]
fn a_member_of_a_oneof_takes_the_place_of_another_and_merges_into_itself() {
    let base = json!({"name": "a", "type": "EDS"});
    let custom = json!({"cluster_type": {"name": "x"}});
    let expected = json!({"name": "a", "cluster_type": {"name": "x"}});
    assert_eq!(merged::<Cluster>(base.clone(), custom, Lists::Append), expected);
    let typed = json!({"cluster_type": {"typed_config": {"@type": "t/envoy.config.core.v3.Pipe", "path": "/p"}}});
    let both = merged::<Cluster>(expected, typed, Lists::Append);
    assert_eq!(both["cluster_type"]["name"], "x");
    assert_eq!(both["cluster_type"]["typed_config"]["path"], "/p");
    assert_eq!(
        merged::<Cluster>(both, json!({"type": "STATIC"}), Lists::Append),
        json!({"name": "a", "type": "STATIC"})
    );
}

#[test]
fn lists_grow_or_are_replaced() {
    let base = json!({"name": "r", "internal_only_headers": ["a"], "virtual_hosts": [{"name": "v", "domains": ["x"]}]});
    let patch = json!({"internal_only_headers": ["b"]});
    let grown = merged::<RouteConfiguration>(base.clone(), patch.clone(), Lists::Append);
    assert_eq!(grown["internal_only_headers"], json!(["a", "b"]));
    let replaced = merged::<RouteConfiguration>(base, patch, Lists::Replace);
    assert_eq!(replaced["internal_only_headers"], json!(["b"]));
    assert_eq!(replaced["virtual_hosts"][0]["name"], "v");
}

#[test]
fn maps_take_the_entries_of_the_patch_by_key() {
    let metadata = |value: Value| json!({"metadata": {"filter_metadata": value}});
    let base = metadata(json!({"b": {"x": 1, "y": 2}, "a": {}}));
    let patch = metadata(json!({"b": {"z": 3}, "0": {}}));
    let expected = metadata(json!({"0": {}, "a": {}, "b": {"z": 3}}));
    assert_eq!(merged::<Cluster>(base, patch, Lists::Append), expected);
}

#[test]
fn what_two_anys_of_one_type_wrap_is_merged() {
    let tcp_proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let filter = |config: Value| json!({"name": "f", "typed_config": config});
    let base = filter(json!({"@type": tcp_proxy, "stat_prefix": "s", "cluster": "a", "idle_timeout": "5.250s",
        "hash_policy": [{"source_ip": {}}]}));
    let patch = filter(json!({"@type": tcp_proxy, "idle_timeout": "1s", "hash_policy": [{"source_ip": {}}]}));
    let expected = filter(json!({"@type": tcp_proxy, "stat_prefix": "s", "cluster": "a", "idle_timeout": "1s",
        "hash_policy": [{"source_ip": {}}, {"source_ip": {}}]}));
    assert_eq!(merged::<Filter>(base.clone(), patch, Lists::Append), expected);
    // Another type, known or not, takes the place; an Any without a type says nothing.
    let echo = filter(json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}));
    assert_eq!(merged::<Filter>(base.clone(), echo.clone(), Lists::Append), echo);
    let unknown = filter(json!({"@type": "type.googleapis.com/stats.PluginConfig", "value": "AAE="}));
    assert_eq!(merged::<Filter>(base.clone(), unknown.clone(), Lists::Append), unknown);
    assert_eq!(merged::<Filter>(base.clone(), filter(json!({})), Lists::Append), base);
}

#[test]
fn bytes_that_are_no_message_are_errors() {
    let error = |base: &[u8], patch: &[u8]| merge("envoy.config.cluster.v3.Cluster", base, patch, Lists::Append);
    assert!(error(&[0x0a, 5, b'x'], &[0x0a, 1, b'y']).unwrap_err().message.contains("cannot decode"));
    assert!(error(&[0x0a, 1, b'x'], &[0x08, 5]).unwrap_err().message.contains("name has another wire type"));
    assert!(merge("stats.PluginConfig", &[], &[], Lists::Append).is_err());
}

#[test]
fn nesting_is_bounded() {
    fn nested(any: &Any) -> Vec<u8> {
        // A message with an Any inside: TypedExtensionConfig.
        crate::envoy::config::core::v3::TypedExtensionConfig { name: "n".into(), typed_config: Some(any.clone()) }
            .encode_to_vec()
    }
    let mut wrapped = Any::default();
    for _ in 0..150 {
        wrapped = Any { type_url: "t/envoy.config.core.v3.TypedExtensionConfig".into(), value: nested(&wrapped) };
    }
    let encoded = wrapped.encode_to_vec();
    let error = merge("google.protobuf.Any", &encoded, &encoded, Lists::Append).unwrap_err();
    assert!(error.message.contains("nested more than 100 deep"), "{error}");
}
