//! How do Envoy messages look as JSON, and how do they come back? As Envoy itself prints and reads them.
//!
//! Field names are written as in the `.proto` files (`route_config`) and read in both spellings (`routeConfig` too). An
//! `Any` is expanded to the fields of the message it wraps beside `@type`; one whose type is not known here is
//! `{"@type": …, "value": <base64 of its bytes>}` in both directions, so that nothing is lost.
//!
//! Messages are read and written by what the descriptor set says of them (`crate::schema`), on the wire format itself (`crate::wire`):
//! a reflection library would take fourteen megabytes of a proxy's memory for its tables, encode maps inside an `Any` in
//! random order (versions are content hashes), refuse unknown types, and could not say where in a document an error is.
//!
//! Invariant: equal JSON gives equal bytes, the same ones that the typed messages encode to.

mod parse;
mod render;

use std::fmt;

use prost::Name;
use serde_json::Value;

use crate::schema::{self, EnumType, MessageType};

/// Messages nested more deeply than this, counting those inside an `Any`, are refused (protobuf's usual limit).
const MAX_DEPTH: usize = 100;

/// Writes a message with the field names of its `.proto` file; fields without a value are left out.
///
/// # Errors
/// Bytes inside an `Any` of a known type that do not decode, or nesting beyond 100 messages.
pub fn render<M: Name>(message: &M) -> Result<Value, JsonError> {
    render_named(&M::full_name(), &message.encode_to_vec())
}

/// As [`render`], with the values of sensitive fields (private keys, passwords) replaced, as Envoy's `/config_dump` does.
///
/// # Errors
/// As [`render`].
pub fn render_redacted<M: Name>(message: &M) -> Result<Value, JsonError> {
    let descriptor = descriptor(&M::full_name())?;
    render::Renderer::redacting().message(descriptor, &message.encode_to_vec())
}

/// As [`render`], for a message of which only the full name and the encoded bytes are known.
///
/// # Errors
/// As [`render`]; also a name that is not in the Envoy API, and bytes that do not decode.
pub fn render_named(full_name: &str, encoded: &[u8]) -> Result<Value, JsonError> {
    render::Renderer::plain().message(descriptor(full_name)?, encoded)
}

/// Reads a message; takes a `Value` or a reference to one.
///
/// # Errors
/// An unknown field, a value of the wrong type or out of range, two members of one `oneof`: with the JSON path.
pub fn parse<M: Name + Default>(value: impl std::borrow::Borrow<Value>) -> Result<M, JsonError> {
    let encoded = parse_named(&M::full_name(), value.borrow())?;
    M::decode(encoded.as_slice()).map_err(|error| JsonError::new("", error.to_string()))
}

/// Reads a message of which only the full name is known, and returns its encoded bytes.
///
/// # Errors
/// As [`parse`]; also a name that is not in the Envoy API.
pub fn parse_named(full_name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    parse::Parser::default().message(value, descriptor(full_name)?)
}

/// As [`parse_named`], but fields that the types do not have are passed over, and returned beside the bytes.
///
/// # Errors
/// As [`parse_named`], except for unknown fields.
pub fn parse_known_fields(full_name: &str, value: &Value) -> Result<(Vec<u8>, Vec<JsonError>), JsonError> {
    let mut parser = parse::Parser::default();
    parser.unknown_fields = Some(Vec::new());
    let encoded = parser.message(value, descriptor(full_name)?)?;
    Ok((encoded, parser.unknown_fields.unwrap_or_default()))
}

/// Whether messages of this full name (`envoy.config.route.v3.Route`) can be expanded.
pub fn is_known(full_name: &str) -> bool {
    descriptor(full_name).is_ok()
}

/// Why a message could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where, as `static_resources.listeners[0].name`; empty for the document itself.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl JsonError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        JsonError { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for JsonError {}

fn descriptor(full_name: &str) -> Result<&'static MessageType, JsonError> {
    Cursor::default().message_type(full_name)
}

/// The place in a document at which a reader or writer is, and how deep that is.
#[derive(Default)]
struct Cursor {
    path: String,
    depth: usize,
}

impl Cursor {
    fn error(&self, message: impl Into<String>) -> JsonError {
        JsonError::new(self.path.as_str(), message)
    }

    /// Steps to a field (or map key) of the present place; returns what [`Cursor::leave`] needs.
    fn enter_field(&mut self, name: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        mark
    }

    /// Steps to an element of a list.
    fn enter_index(&mut self, index: usize) -> usize {
        let mark = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        mark
    }

    /// Steps to the key of a map. Keys may contain dots, so they are quoted.
    fn enter_key(&mut self, key: &str) -> usize {
        let mark = self.path.len();
        self.path.push_str(&format!("[{key:?}]"));
        mark
    }

    /// Goes back to where the matching `enter_…` was.
    fn leave(&mut self, mark: usize) {
        self.path.truncate(mark);
    }

    /// Counts a nested message; to be matched by [`Cursor::ascend`].
    fn descend(&mut self) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("messages are nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        Ok(())
    }

    fn ascend(&mut self) {
        self.depth -= 1;
    }

    fn message_type(&self, full_name: &str) -> Result<&'static MessageType, JsonError> {
        schema::message(full_name).ok_or_else(|| self.error(format!("message type {full_name} is not known")))
    }

    fn enum_type(&self, full_name: &str) -> Result<&'static EnumType, JsonError> {
        schema::enumeration(full_name).ok_or_else(|| self.error(format!("enum type {full_name} is not known")))
    }
}

/// Messages with a JSON form of their own; inside an `Any` that form stands under `value`.
pub(crate) fn is_well_known(full_name: &str) -> bool {
    matches!(
        full_name.strip_prefix("google.protobuf."),
        Some(
            "Any"
                | "Timestamp"
                | "Duration"
                | "Struct"
                | "Value"
                | "ListValue"
                | "Empty"
                | "FloatValue"
                | "DoubleValue"
                | "Int32Value"
                | "Int64Value"
                | "UInt32Value"
                | "UInt64Value"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
        )
    )
}

/// The part of a well-known type's name after its package.
fn well_known_name(full_name: &str) -> &str {
    full_name.strip_prefix("google.protobuf.").unwrap_or(full_name)
}

#[cfg(test)]
mod tests;
