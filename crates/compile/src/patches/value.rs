//! How is the value of a patch read? JSON to the Envoy message of the patched type.

use lateen_xds::any::type_name;
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3::TypedExtensionConfig;
use lateen_xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter, listener};
use lateen_xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_xds::json::{self, JsonError};
use prost::Name;
use serde_json::{Map, Value as Json};

use super::Value;

/// A type that patches change.
pub(super) trait Patched: Name + Default + Clone {
    /// A field without which Envoy refuses the message.
    fn missing(&self) -> Option<&'static str>;
}

/// The message, and the fields that its type does not have.
///
/// # Errors
/// A value of another shape than the type's, or an extension that Envoy does not have.
pub(super) fn read<M: Patched>(fields: &Map<String, Json>) -> Result<(Value<M>, Vec<JsonError>), JsonError> {
    let mut value = Json::Object(fields.clone());
    unfold(&mut value, "")?;
    let (encoded, unknown) = json::parse_known_fields(&M::full_name(), &value)?;
    let message =
        M::decode(encoded.as_slice()).map_err(|error| JsonError { path: String::new(), message: error.to_string() })?;
    Ok((Value { message, encoded }, unknown))
}

/// Writes each `TypedStruct`, the form for types that the writer's tools do not know, as the message that it stands
/// for: Envoy reads it so, and two values of one type can be merged only in one form. Refuses types that nobody knows.
fn unfold(value: &mut Json, path: &str) -> Result<(), JsonError> {
    match value {
        Json::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                unfold(item, &format!("{path}[{index}]"))?;
            }
        }
        Json::Object(fields) => {
            if let Some(message) = typed_struct(fields) {
                *fields = message;
            }
            if let Some(Json::String(type_url)) = fields.get("@type") {
                known(type_url, path)?;
            }
            let is_typed_struct = is_typed_struct(fields);
            if let (true, Some(Json::String(type_url))) = (is_typed_struct, fields.get("type_url")) {
                known(type_url, path)?;
            }
            for (key, field) in fields.iter_mut() {
                let separator = if path.is_empty() { "" } else { "." };
                unfold(field, &format!("{path}{separator}{key}"))?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn known(type_url: &str, path: &str) -> Result<(), JsonError> {
    if json::is_known(type_name(type_url)) {
        return Ok(());
    }
    Err(JsonError { path: path.to_owned(), message: format!("Envoy has no extension with the type {type_url}") })
}

fn is_typed_struct(fields: &Map<String, Json>) -> bool {
    let name = fields.get("@type").and_then(Json::as_str).map(type_name);
    matches!(name, Some("udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct"))
}

/// What a `TypedStruct` of a known type stands for.
fn typed_struct(fields: &Map<String, Json>) -> Option<Map<String, Json>> {
    if !is_typed_struct(fields) {
        return None;
    }
    let type_url = fields.get("type_url").or_else(|| fields.get("typeUrl"))?.as_str()?;
    let name = type_name(type_url);
    if !json::is_known(name) || name.starts_with("google.protobuf.") {
        return None;
    }
    let mut message = Map::new();
    message.insert("@type".to_owned(), type_url.into());
    match fields.get("value") {
        None | Some(Json::Null) => {}
        Some(Json::Object(value)) => message.extend(value.iter().map(|(key, value)| (key.clone(), value.clone()))),
        Some(_) => return None,
    }
    Some(message)
}

fn first_missing<const N: usize>(fields: [(&'static str, bool); N]) -> Option<&'static str> {
    fields.into_iter().find(|(_, present)| !present).map(|(name, _)| name)
}

impl Patched for Listener {
    fn missing(&self) -> Option<&'static str> {
        let internal = matches!(self.listener_specifier, Some(listener::ListenerSpecifier::InternalListener(_)));
        first_missing([
            ("name", !self.name.is_empty()),
            ("address", self.address.is_some() || self.api_listener.is_some() || internal),
        ])
    }
}

impl Patched for ListenerFilter {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty()), ("typed_config", self.config_type.is_some())])
    }
}

impl Patched for FilterChain {
    fn missing(&self) -> Option<&'static str> {
        None
    }
}

impl Patched for Filter {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty()), ("typed_config", self.config_type.is_some())])
    }
}

impl Patched for HttpFilter {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty()), ("typed_config", self.config_type.is_some())])
    }
}

impl Patched for RouteConfiguration {
    fn missing(&self) -> Option<&'static str> {
        None
    }
}

impl Patched for VirtualHost {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty()), ("domains", !self.domains.is_empty())])
    }
}

impl Patched for Route {
    fn missing(&self) -> Option<&'static str> {
        first_missing([
            ("match", self.r#match.as_ref().is_some_and(|all| all.path_specifier.is_some())),
            ("route", self.action.is_some()),
        ])
    }
}

impl Patched for Cluster {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty())])
    }
}

impl Patched for TypedExtensionConfig {
    fn missing(&self) -> Option<&'static str> {
        first_missing([("name", !self.name.is_empty()), ("typed_config", self.typed_config.is_some())])
    }
}
