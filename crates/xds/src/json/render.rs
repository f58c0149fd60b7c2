//! How is an encoded message written as JSON?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost::encoding::WireType;
use prost_types::value::Kind as StructKind;
use prost_types::{Duration, ListValue, Struct, Timestamp};
use serde_json::{Map, Number, Value};

use super::{Cursor, JsonError, is_well_known, well_known_name};
use crate::any::type_name;
use crate::fields::{self, Fields};
use crate::schema::{self, Field, Kind, MessageType};
use crate::wire::Payload;

/// What stands in the place of a sensitive text, as in Envoy's `/config_dump`.
const REDACTED: &str = "[redacted]";

/// Writes messages; one is made for each document.
pub(super) struct Renderer {
    cursor: Cursor,
    redact: bool,
    /// Whether the present place is below a sensitive field.
    sensitive: bool,
}

impl Renderer {
    pub(super) fn plain() -> Self {
        Renderer { cursor: Cursor::default(), redact: false, sensitive: false }
    }

    pub(super) fn redacting() -> Self {
        Renderer { redact: true, ..Renderer::plain() }
    }

    pub(super) fn message(&mut self, kind: &MessageType, encoded: &[u8]) -> Result<Value, JsonError> {
        self.cursor.descend()?;
        let value = if is_well_known(&kind.full_name) {
            self.well_known(kind, encoded)?
        } else {
            Value::Object(self.fields(kind, encoded)?)
        };
        self.cursor.ascend();
        Ok(value)
    }

    fn fields(&mut self, kind: &MessageType, encoded: &[u8]) -> Result<Map<String, Value>, JsonError> {
        let mut object = Map::new();
        for (field, payloads) in self.present(kind, encoded)?.into_values() {
            let mark = self.cursor.enter_field(field.name);
            let outer = self.sensitive;
            self.sensitive |= self.redact && field.sensitive;
            if let Some(value) = self.field(field, &payloads)? {
                object.insert(field.name.to_owned(), value);
            }
            self.sensitive = outer;
            self.cursor.leave(mark);
        }
        Ok(object)
    }

    fn present<'k, 'b>(&self, kind: &'k MessageType, encoded: &'b [u8]) -> Result<Fields<'k, 'b>, JsonError> {
        fields::of(kind, encoded).map_err(|error| self.cursor.error(error))
    }

    /// `None`: the value is sensitive and has no form in which it could be shown.
    fn field(&mut self, field: &Field, payloads: &[Payload<&[u8]>]) -> Result<Option<Value>, JsonError> {
        match payloads {
            _ if field.repeated => self.list(field, payloads).map(Some),
            [payload] => self.single(field.kind, *payload),
            // Concatenated encodings are the encoding of the merged message.
            several => {
                let mut merged = Vec::new();
                several.iter().for_each(|payload| payload.write(&mut merged));
                self.single(field.kind, Payload::Bytes(merged.as_slice()))
            }
        }
    }

    fn list(&mut self, field: &Field, payloads: &[Payload<&[u8]>]) -> Result<Value, JsonError> {
        let element = match field.kind {
            Kind::Message(name) => Some(self.cursor.message_type(name)?),
            _ => None,
        };
        if let Some(entry) = element
            && let Some((_, item_kind)) = entry.map_entry()
        {
            return self.map(entry, item_kind, payloads);
        }
        let mut list = Vec::with_capacity(payloads.len());
        for (index, payload) in payloads.iter().enumerate() {
            let mark = self.cursor.enter_index(index);
            list.extend(self.single(field.kind, *payload)?);
            self.cursor.leave(mark);
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, entry: &MessageType, item_kind: Kind, payloads: &[Payload<&[u8]>]) -> Result<Value, JsonError> {
        let mut object = Map::new();
        for payload in payloads {
            let Payload::Bytes(encoded) = payload else {
                continue;
            };
            let (mut key, mut item) = (String::new(), default(item_kind));
            if let Some(field) = entry.field(1) {
                key = self.key(field.kind, default(field.kind))?;
            }
            for (field, payloads) in self.present(entry, encoded)?.into_values() {
                match (field.number, payloads.last()) {
                    (1, Some(payload)) => key = self.key(field.kind, *payload)?,
                    (2, Some(payload)) => item = *payload,
                    _ => {}
                }
            }
            let mark = self.cursor.enter_key(&key);
            if let Some(value) = self.single(item_kind, item)? {
                object.insert(key, value);
            }
            self.cursor.leave(mark);
        }
        Ok(Value::Object(object))
    }

    fn key(&self, kind: Kind, payload: Payload<&[u8]>) -> Result<String, JsonError> {
        Ok(match self.scalar(kind, payload)? {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn single(&mut self, kind: Kind, payload: Payload<&[u8]>) -> Result<Option<Value>, JsonError> {
        match (kind, payload) {
            (Kind::Message(name), Payload::Bytes(encoded)) => {
                self.message(self.cursor.message_type(name)?, encoded).map(Some)
            }
            (Kind::String, _) if self.sensitive => Ok(Some(REDACTED.into())),
            (Kind::Bytes, _) if self.sensitive => Ok(Some(STANDARD.encode(REDACTED).into())),
            _ if self.sensitive => Ok(None),
            _ => self.scalar(kind, payload).map(Some),
        }
    }

    fn scalar(&self, kind: Kind, payload: Payload<&[u8]>) -> Result<Value, JsonError> {
        Ok(match (kind, payload) {
            (Kind::Bool, Payload::Varint(value)) => Value::Bool(value != 0),
            (Kind::Int32, Payload::Varint(value)) => (value as i32).into(),
            (Kind::Uint32, Payload::Varint(value)) => (value as u32).into(),
            (Kind::Sint32, Payload::Varint(value)) => (zigzag(value) as i32).into(),
            (Kind::Fixed32, Payload::Fixed32(value)) => u32::from_le_bytes(value).into(),
            (Kind::Sfixed32, Payload::Fixed32(value)) => i32::from_le_bytes(value).into(),
            // 64 bits do not fit into the numbers of JavaScript, so protobuf's JSON has them as text.
            (Kind::Int64, Payload::Varint(value)) => (value as i64).to_string().into(),
            (Kind::Uint64, Payload::Varint(value)) => value.to_string().into(),
            (Kind::Sint64, Payload::Varint(value)) => zigzag(value).to_string().into(),
            (Kind::Fixed64, Payload::Fixed64(value)) => u64::from_le_bytes(value).to_string().into(),
            (Kind::Sfixed64, Payload::Fixed64(value)) => i64::from_le_bytes(value).to_string().into(),
            (Kind::Float, Payload::Fixed32(value)) => {
                let value = f32::from_le_bytes(value);
                float(f64::from(value), || value.to_string())
            }
            (Kind::Double, Payload::Fixed64(value)) => {
                let value = f64::from_le_bytes(value);
                float(value, || value.to_string())
            }
            (Kind::Enum("google.protobuf.NullValue"), _) => Value::Null,
            (Kind::Enum(name), Payload::Varint(value)) => {
                let number = value as i32;
                let values = &self.cursor.enum_type(name)?.values;
                match values.iter().find(|(_, other)| *other == number) {
                    Some((name, _)) => (*name).into(),
                    None => number.into(),
                }
            }
            (Kind::String, Payload::Bytes(value)) => match std::str::from_utf8(value) {
                Ok(text) => text.into(),
                Err(error) => return Err(self.cursor.error(format!("not UTF-8: {error}"))),
            },
            (Kind::Bytes, Payload::Bytes(value)) => STANDARD.encode(value).into(),
            _ => {
                return Err(self.cursor.error(format!("{payload:?} is no value of a {kind:?}")));
            }
        })
    }

    fn well_known(&mut self, kind: &MessageType, encoded: &[u8]) -> Result<Value, JsonError> {
        match well_known_name(&kind.full_name) {
            "Any" => self.any(&self.typed(encoded)?),
            "Timestamp" => Ok(self.typed::<Timestamp>(encoded)?.to_string().into()),
            "Duration" => Ok(self.typed::<Duration>(encoded)?.to_string().into()),
            "Empty" => Ok(Value::Object(Map::new())),
            "Struct" => Ok(self.structure(&self.typed(encoded)?)),
            "Value" => Ok(self.structure_value(&self.typed(encoded)?)),
            "ListValue" => {
                let list: ListValue = self.typed(encoded)?;
                Ok(list.values.iter().map(|value| self.structure_value(value)).collect())
            }
            // The wrappers, Int32Value and so on: a single field `value`.
            _ => {
                let field = kind.field(1).ok_or_else(|| self.cursor.error("a wrapper without a value"))?;
                let payload = match self.present(kind, encoded)?.remove(&1) {
                    Some((_, payloads)) => payloads.last().copied(),
                    None => None,
                };
                let value = self.single(field.kind, payload.unwrap_or_else(|| default(field.kind)))?;
                Ok(value.unwrap_or(Value::Null))
            }
        }
    }

    fn any(&mut self, any: &prost_types::Any) -> Result<Value, JsonError> {
        let mut object = Map::new();
        if any.type_url.is_empty() && any.value.is_empty() {
            return Ok(Value::Object(object));
        }
        object.insert("@type".into(), any.type_url.as_str().into());
        match schema::message(type_name(&any.type_url)) {
            None => {
                let value: &[u8] = if self.sensitive { REDACTED.as_bytes() } else { &any.value };
                object.insert("value".into(), STANDARD.encode(value).into());
            }
            Some(kind) if is_well_known(&kind.full_name) => {
                let mark = self.cursor.enter_field("value");
                object.insert("value".into(), self.message(kind, &any.value)?);
                self.cursor.leave(mark);
            }
            Some(kind) => {
                self.cursor.descend()?;
                object.extend(self.fields(kind, &any.value)?);
                self.cursor.ascend();
            }
        }
        Ok(Value::Object(object))
    }

    fn structure(&self, structure: &Struct) -> Value {
        structure.fields.iter().map(|(key, value)| (key.clone(), self.structure_value(value))).collect()
    }

    fn structure_value(&self, value: &prost_types::Value) -> Value {
        match &value.kind {
            None | Some(StructKind::NullValue(_)) => Value::Null,
            Some(StructKind::BoolValue(_) | StructKind::NumberValue(_)) if self.sensitive => Value::Null,
            Some(StructKind::StringValue(_)) if self.sensitive => REDACTED.into(),
            Some(StructKind::BoolValue(value)) => Value::Bool(*value),
            Some(StructKind::NumberValue(value)) => float(*value, || value.to_string()),
            Some(StructKind::StringValue(value)) => value.as_str().into(),
            Some(StructKind::StructValue(value)) => self.structure(value),
            Some(StructKind::ListValue(list)) => list.values.iter().map(|value| self.structure_value(value)).collect(),
        }
    }

    fn typed<M: Message + Default>(&self, encoded: &[u8]) -> Result<M, JsonError> {
        M::decode(encoded).map_err(|error| self.cursor.error(error.to_string()))
    }
}

/// A number as protobuf writes it: whole ones without a fraction, and the shortest digits that give the same value in
/// the field's own width (`shortest` writes them).
fn float(value: f64, shortest: impl Fn() -> String) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        Value::Number((value as i64).into())
    } else {
        let number = shortest().parse().unwrap_or(value);
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// The value of a field that is not written.
fn default(kind: Kind) -> Payload<&'static [u8]> {
    match kind.wire_type() {
        WireType::ThirtyTwoBit => Payload::Fixed32([0; 4]),
        WireType::SixtyFourBit => Payload::Fixed64([0; 8]),
        WireType::LengthDelimited => Payload::Bytes(&[]),
        _ => Payload::Varint(0),
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
