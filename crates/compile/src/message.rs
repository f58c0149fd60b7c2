//! The small Envoy messages that several resources share: durations, addresses, configuration sources,
//! typed extensions, string matchers, metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, Pipe, SocketAddress, address, config_source,
    socket_address,
};
use lateen_xds::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use prost::Name;
use prost_types::{Any, Struct, Value, value::Kind};

/// A protobuf duration; lengths beyond what the message holds become the longest one.
pub(crate) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// Resources of this kind come over the stream that carries all others, and are waited for.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3.into(),
        ..Default::default()
    }
}

/// An IP address or name with a TCP port.
pub(crate) fn socket_address(host: &str, port: u32) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    }
}

/// A unix domain socket.
pub(crate) fn pipe(path: &str) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), mode: 0 })) }
}

/// An extension's configuration as it is put into `typed_config`.
pub(crate) fn typed<M: Name>(message: &M) -> Any {
    any::pack(message)
}

/// A matcher without a kind set, `case_sensitive`.
fn string_matcher(pattern: string_matcher::MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// Equal to `text`.
pub(crate) fn exact(text: &str) -> StringMatcher {
    string_matcher(string_matcher::MatchPattern::Exact(text.to_owned()))
}

/// Starts with `text`.
pub(crate) fn prefix(text: &str) -> StringMatcher {
    string_matcher(string_matcher::MatchPattern::Prefix(text.to_owned()))
}

/// Matches all of the RE2 expression `pattern`.
pub(crate) fn safe_regex(pattern: &str) -> StringMatcher {
    string_matcher(string_matcher::MatchPattern::SafeRegex(regex(pattern)))
}

/// An RE2 expression.
pub(crate) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..Default::default() }
}

/// Metadata with the one section `istio`.
pub(crate) fn istio_metadata(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Metadata {
    metadata([("istio", object(fields))])
}

/// Metadata with several sections.
pub(crate) fn metadata(sections: impl IntoIterator<Item = (&'static str, Struct)>) -> Metadata {
    Metadata {
        filter_metadata: sections.into_iter().map(|(name, fields)| (name.to_owned(), fields)).collect(),
        ..Default::default()
    }
}

/// A JSON object.
pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>() }
}

/// A JSON text.
pub(crate) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// A JSON boolean.
pub(crate) fn boolean(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

/// A JSON array.
pub(crate) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(prost_types::ListValue { values })) }
}

/// A JSON object as a value.
pub(crate) fn structure(fields: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(fields)) }
}

/// Any JSON value.
pub(crate) fn json(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(values) => return list(values.iter().map(json).collect()),
        serde_json::Value::Object(fields) => return structure(json_object(fields)),
    };
    Value { kind: Some(kind) }
}

/// A JSON object read from text.
pub(crate) fn json_object(fields: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| (name.clone(), json(value))).collect() }
}
