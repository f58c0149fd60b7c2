//! How is JSON read into an encoded message?

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message;
use prost_types::value::Kind as StructKind;
use prost_types::{Any, Duration, ListValue, Struct, Timestamp};
use serde_json::{Map, Value};

use super::{Cursor, JsonError, is_well_known, well_known_name};
use crate::any::type_name;
use crate::schema::{self, Field, Kind, MessageType};
use crate::wire::Payload;

/// `google.protobuf.Duration` covers ± 10,000 years.
const MAX_DURATION_SECONDS: u64 = 315_576_000_000;

/// Both alphabets are read (see [`Parser::bytes`]), with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads messages; one is made for each document.
#[derive(Default)]
pub(super) struct Parser {
    cursor: Cursor,
    /// Collects fields that the types do not have; without it they are errors.
    pub(super) unknown_fields: Option<Vec<JsonError>>,
}

/// A value that is ready to be written.
type Encoded = Payload<Vec<u8>>;

/// A map's key, ordered as the typed messages order their maps.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Text(&'a str),
}

impl Parser {
    pub(super) fn message(&mut self, value: &Value, kind: &MessageType) -> Result<Vec<u8>, JsonError> {
        self.cursor.descend()?;
        let encoded = if is_well_known(&kind.full_name) {
            self.well_known(value, kind)?
        } else {
            self.fields(self.object(value)?, kind, false)?
        };
        self.cursor.ascend();
        Ok(encoded)
    }

    /// Encodes in the order in which the typed messages do: by field number, a `oneof` at its smallest one.
    fn fields(&mut self, object: &Map<String, Value>, kind: &MessageType, in_any: bool) -> Result<Vec<u8>, JsonError> {
        let mut present: BTreeMap<u32, (&Field, &Value)> = BTreeMap::new();
        for (key, value) in object {
            if in_any && key == "@type" {
                continue;
            }
            let Some(field) = kind.field_named(key) else {
                let mark = self.cursor.enter_field(key);
                let error = self.cursor.error(format!("{} has no such field", kind.full_name));
                self.cursor.leave(mark);
                match &mut self.unknown_fields {
                    None => return Err(error),
                    Some(unknown) => unknown.push(error),
                }
                continue;
            };
            if value.is_null() && !takes_null(field) {
                continue;
            }
            if let Some((other, _)) = present.insert(field.position, (field, value)) {
                return Err(self.cursor.error(if other.number == field.number {
                    format!("`{}` is given twice, in both spellings", field.name)
                } else {
                    format!("only one of `{}` and `{}` may be set", other.name, field.name)
                }));
            }
        }
        let mut out = Vec::new();
        for (field, value) in present.into_values() {
            let mark = self.cursor.enter_field(field.name);
            self.field(value, field, &mut out)?;
            self.cursor.leave(mark);
        }
        Ok(out)
    }

    fn field(&mut self, value: &Value, field: &Field, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if let Some((key, item)) = field.map_entry() {
            return self.map(value, field.number, key, item, out);
        }
        if !field.repeated {
            let encoded = self.single(value, field.kind)?;
            if field.presence || !encoded.is_default() {
                encoded.write_field(field.number, out);
            }
            return Ok(());
        }
        let Value::Array(items) = value else {
            return Err(self.mismatch("a list", value));
        };
        let mut packed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mark = self.cursor.enter_index(index);
            let encoded = self.single(item, field.kind)?;
            if field.packed {
                encoded.write(&mut packed);
            } else {
                encoded.write_field(field.number, out);
            }
            self.cursor.leave(mark);
        }
        if !packed.is_empty() {
            Payload::Bytes(packed).write_field(field.number, out);
        }
        Ok(())
    }

    fn map(
        &mut self,
        value: &Value,
        number: u32,
        key_kind: Kind,
        item_kind: Kind,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let mut sorted = BTreeMap::new();
        for (text, item) in self.object(value)? {
            let mark = self.cursor.enter_key(text);
            let key = map_key(text, key_kind).ok_or_else(|| self.cursor.error("not a key of this map"))?;
            if sorted.insert(key, (text, item)).is_some() {
                return Err(self.cursor.error("the key is given twice"));
            }
            self.cursor.leave(mark);
        }
        for (key, (text, item)) in sorted {
            let mark = self.cursor.enter_key(text);
            let mut entry = Vec::new();
            for (number, part) in [(1, key.encode(key_kind)), (2, self.single(item, item_kind)?)] {
                if !part.is_default() {
                    part.write_field(number, &mut entry);
                }
            }
            Payload::Bytes(entry).write_field(number, out);
            self.cursor.leave(mark);
        }
        Ok(())
    }

    fn single(&mut self, value: &Value, kind: Kind) -> Result<Encoded, JsonError> {
        Ok(match kind {
            Kind::Message(name) => Payload::Bytes(self.message(value, self.cursor.message_type(name)?)?),
            Kind::Enum(name) => Payload::Varint(self.enumeration(value, name)? as i64 as u64),
            Kind::Bool => match value {
                Value::Bool(value) => Payload::Varint(u64::from(*value)),
                _ => return Err(self.mismatch("true or false", value)),
            },
            Kind::String => match value {
                Value::String(text) => Payload::Bytes(text.as_bytes().to_vec()),
                _ => return Err(self.mismatch("a string", value)),
            },
            Kind::Bytes => Payload::Bytes(self.bytes(value)?),
            Kind::Double => Payload::Fixed64(self.double(value)?.to_le_bytes()),
            Kind::Float => {
                let double = self.double(value)?;
                let float = double as f32;
                if double.is_finite() && !float.is_finite() {
                    return Err(self.cursor.error(format!("{value} is out of range")));
                }
                Payload::Fixed32(float.to_le_bytes())
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                integer(self.integer(value, i32::MIN.into(), i32::MAX.into())?, kind)
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                integer(self.integer(value, i64::MIN.into(), i64::MAX.into())?, kind)
            }
            Kind::Uint32 | Kind::Fixed32 => integer(self.integer(value, 0, u32::MAX.into())?, kind),
            Kind::Uint64 | Kind::Fixed64 => integer(self.integer(value, 0, u64::MAX.into())?, kind),
        })
    }

    fn enumeration(&self, value: &Value, name: &str) -> Result<i32, JsonError> {
        match value {
            Value::Null => Ok(0),
            Value::String(text) => {
                const LISTED: usize = 12;
                let values = &self.cursor.enum_type(name)?.values;
                if let Some((_, number)) = values.iter().find(|(name, _)| name == text) {
                    return Ok(*number);
                }
                let mut names: Vec<&str> = values.iter().take(LISTED).map(|(name, _)| *name).collect();
                if values.len() > LISTED {
                    names.push("…");
                }
                Err(self.cursor.error(format!("`{text}` is not one of {}", names.join(", "))))
            }
            // Numbers that this version of the API does not name are kept.
            Value::Number(_) => Ok(self.integer(value, i32::MIN.into(), i32::MAX.into())? as i32),
            _ => Err(self.mismatch("the name of an enum value", value)),
        }
    }

    fn integer(&self, value: &Value, min: i128, max: i128) -> Result<i128, JsonError> {
        let number: Option<i128> = match value {
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(number), _) => Some(number),
                // `1.0` and `1e3` are whole numbers too. The cast saturates, so the range check below still holds.
                (None, Some(number)) if number.fract() == 0.0 => Some(number as i128),
                _ => None,
            },
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.mismatch("a whole number", value))?;
        if number < min || number > max {
            return Err(self.cursor.error(format!("{number} is not between {min} and {max}")));
        }
        Ok(number)
    }

    fn double(&self, value: &Value) -> Result<f64, JsonError> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                text => text.parse().ok().filter(|number: &f64| number.is_finite()),
            },
            _ => None,
        };
        number.ok_or_else(|| self.mismatch("a number", value))
    }

    fn bytes(&self, value: &Value) -> Result<Vec<u8>, JsonError> {
        let Value::String(text) = value else {
            return Err(self.mismatch("base64 text", value));
        };
        BASE64
            .decode(text.replace('-', "+").replace('_', "/"))
            .map_err(|error| self.cursor.error(format!("not base64: {error}")))
    }

    fn well_known(&mut self, value: &Value, kind: &MessageType) -> Result<Vec<u8>, JsonError> {
        Ok(match well_known_name(&kind.full_name) {
            "Any" => self.any(value)?.encode_to_vec(),
            "Timestamp" => {
                let timestamp = self.text(value)?.parse::<Timestamp>();
                timestamp.map_err(|_| self.mismatch("a time like 2026-01-31T12:00:00Z", value))?.encode_to_vec()
            }
            "Duration" => {
                let duration = self.text(value)?.parse::<Duration>();
                let duration = duration.map_err(|_| self.mismatch("a duration in seconds like 0.25s", value))?;
                if duration.seconds.unsigned_abs() > MAX_DURATION_SECONDS {
                    return Err(self.cursor.error(format!("{value} is longer than 10,000 years")));
                }
                duration.encode_to_vec()
            }
            "Empty" => match self.object(value)?.keys().next() {
                None => Vec::new(),
                Some(key) => {
                    return Err(self.cursor.error(format!("must be empty, but has `{key}`")));
                }
            },
            "Struct" => self.structure(value)?.encode_to_vec(),
            "Value" => self.structure_value(value)?.encode_to_vec(),
            "ListValue" => self.list(value)?.encode_to_vec(),
            // The wrappers, Int32Value and so on: a single field `value`.
            _ => {
                let field = kind.field(1).ok_or_else(|| self.cursor.error("a wrapper without a value"))?;
                let mut out = Vec::new();
                self.field(value, field, &mut out)?;
                out
            }
        })
    }

    fn any(&mut self, value: &Value) -> Result<Any, JsonError> {
        let object = self.object(value)?;
        if object.is_empty() {
            return Ok(Any::default());
        }
        let Some(Value::String(type_url)) = object.get("@type") else {
            return Err(self.cursor.error("`@type` with the type of the message is missing"));
        };
        let value = match schema::message(type_name(type_url)) {
            Some(kind) if !is_well_known(&kind.full_name) => {
                self.cursor.descend()?;
                let encoded = self.fields(object, kind, true)?;
                self.cursor.ascend();
                encoded
            }
            known => {
                if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "@type" | "value")) {
                    return Err(self.cursor.error(match known {
                        Some(_) => format!("`{key}` beside the `value` of a {type_url}"),
                        None => {
                            format!("the type {type_url} is not known, so `{key}` cannot be read")
                        }
                    }));
                }
                let mark = self.cursor.enter_field("value");
                let encoded = match (known, object.get("value")) {
                    (_, None) => Vec::new(),
                    (Some(kind), Some(value)) => self.message(value, kind)?,
                    (None, Some(value)) => self.bytes(value)?,
                };
                self.cursor.leave(mark);
                encoded
            }
        };
        Ok(Any { type_url: type_url.clone(), value })
    }

    fn structure(&mut self, value: &Value) -> Result<Struct, JsonError> {
        let mut fields = BTreeMap::new();
        for (key, value) in self.object(value)? {
            let mark = self.cursor.enter_field(key);
            fields.insert(key.clone(), self.structure_value(value)?);
            self.cursor.leave(mark);
        }
        Ok(Struct { fields })
    }

    fn list(&mut self, value: &Value) -> Result<ListValue, JsonError> {
        let Value::Array(items) = value else {
            return Err(self.mismatch("a list", value));
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mark = self.cursor.enter_index(index);
            values.push(self.structure_value(item)?);
            self.cursor.leave(mark);
        }
        Ok(ListValue { values })
    }

    fn structure_value(&mut self, value: &Value) -> Result<prost_types::Value, JsonError> {
        self.cursor.descend()?;
        let kind = match value {
            Value::Null => StructKind::NullValue(0),
            Value::Bool(value) => StructKind::BoolValue(*value),
            Value::Number(_) => StructKind::NumberValue(self.double(value)?),
            Value::String(value) => StructKind::StringValue(value.clone()),
            Value::Array(_) => StructKind::ListValue(self.list(value)?),
            Value::Object(_) => StructKind::StructValue(self.structure(value)?),
        };
        self.cursor.ascend();
        Ok(prost_types::Value { kind: Some(kind) })
    }

    fn object<'v>(&self, value: &'v Value) -> Result<&'v Map<String, Value>, JsonError> {
        value.as_object().ok_or_else(|| self.mismatch("an object", value))
    }

    fn text<'v>(&self, value: &'v Value) -> Result<&'v str, JsonError> {
        value.as_str().ok_or_else(|| self.mismatch("a string", value))
    }

    fn mismatch(&self, expected: &str, found: &Value) -> JsonError {
        self.cursor.error(match found {
            Value::Null => format!("expected {expected}, found null"),
            Value::Array(_) => format!("expected {expected}, found a list"),
            Value::Object(_) => format!("expected {expected}, found an object"),
            scalar => format!("expected {expected}, found {scalar}"),
        })
    }
}

impl Key<'_> {
    fn encode(&self, kind: Kind) -> Encoded {
        match self {
            Key::Bool(key) => Payload::Varint(u64::from(*key)),
            Key::Signed(key) => integer((*key).into(), kind),
            Key::Unsigned(key) => integer((*key).into(), kind),
            Key::Text(key) => Payload::Bytes(key.as_bytes().to_vec()),
        }
    }
}

fn map_key<'a>(text: &'a str, kind: Kind) -> Option<Key<'a>> {
    match kind {
        Kind::String => Some(Key::Text(text)),
        Kind::Bool => text.parse().ok().map(Key::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text.parse::<i32>().ok().map(|key| Key::Signed(key.into())),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text.parse().ok().map(Key::Signed),
        Kind::Uint32 | Kind::Fixed32 => text.parse::<u32>().ok().map(|key| Key::Unsigned(key.into())),
        Kind::Uint64 | Kind::Fixed64 => text.parse().ok().map(Key::Unsigned),
        _ => None,
    }
}

/// A number that is within the range of its kind, in the form in which that kind goes over the wire.
fn integer(number: i128, kind: Kind) -> Encoded {
    match kind {
        Kind::Sint32 | Kind::Sint64 => {
            let number = number as i64;
            Payload::Varint(((number << 1) ^ (number >> 63)) as u64)
        }
        Kind::Fixed32 | Kind::Sfixed32 => Payload::Fixed32((number as u32).to_le_bytes()),
        Kind::Fixed64 | Kind::Sfixed64 => Payload::Fixed64((number as u64).to_le_bytes()),
        _ => Payload::Varint(number as u64),
    }
}

/// `null` leaves a field unset, except where `null` is itself a value.
fn takes_null(field: &Field) -> bool {
    !field.repeated
        && matches!(field.kind, Kind::Message("google.protobuf.Value") | Kind::Enum("google.protobuf.NullValue"))
}
