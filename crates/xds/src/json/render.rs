//! How is an encoded message written as JSON?

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field,
};
use prost_types::value::Kind as StructKind;
use prost_types::{Duration, Struct, Timestamp};
use serde_json::{Map, Number, Value};

use super::{Cursor, JsonError, is_well_known, pool};
use crate::any::type_name;

/// What stands in the place of a sensitive text, as in Envoy's `/config_dump`.
const REDACTED: &str = "[redacted]";

/// Full names of the fields that carry the option `udpa.annotations.sensitive`.
static SENSITIVE: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let Ok(pool) = pool() else {
        return BTreeSet::new();
    };
    let Some(sensitive) = pool.get_extension_by_name("udpa.annotations.sensitive") else {
        return BTreeSet::new();
    };
    pool.all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(|field| field.options().get_extension(&sensitive).as_bool() == Some(true))
        .map(|field| field.full_name().to_owned())
        .collect()
});

/// Writes messages; one is made for each document.
pub(super) struct Renderer {
    cursor: Cursor,
    redact: bool,
    /// Whether the present place is below a sensitive field.
    sensitive: bool,
}

impl Renderer {
    pub(super) fn plain() -> Self {
        Renderer {
            cursor: Cursor::default(),
            redact: false,
            sensitive: false,
        }
    }

    pub(super) fn redacting() -> Self {
        Renderer {
            redact: true,
            ..Renderer::plain()
        }
    }

    pub(super) fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        encoded: &[u8],
    ) -> Result<Value, JsonError> {
        let message = DynamicMessage::decode(descriptor.clone(), encoded).map_err(|error| {
            self.cursor
                .error(format!("cannot decode {}: {error}", descriptor.full_name()))
        })?;
        self.dynamic(&message)
    }

    fn dynamic(&mut self, message: &DynamicMessage) -> Result<Value, JsonError> {
        self.cursor.descend()?;
        let descriptor = prost_reflect::ReflectMessage::descriptor(message);
        let value = if is_well_known(descriptor.full_name()) {
            self.well_known(&descriptor, message)?
        } else {
            let mut object = Map::new();
            self.fields(message, &mut object)?;
            Value::Object(object)
        };
        self.cursor.ascend();
        Ok(value)
    }

    fn fields(
        &mut self,
        message: &DynamicMessage,
        object: &mut Map<String, Value>,
    ) -> Result<(), JsonError> {
        for (field, value) in message.fields() {
            let mark = self.cursor.enter_field(field.name());
            let outer = self.sensitive;
            self.sensitive |= self.redact && SENSITIVE.contains(field.full_name());
            if let Some(value) = self.field(&field, value)? {
                object.insert(field.name().to_owned(), value);
            }
            self.sensitive = outer;
            self.cursor.leave(mark);
        }
        Ok(())
    }

    /// `None`: the value is sensitive and has no form in which it could be shown.
    fn field(
        &mut self,
        field: &FieldDescriptor,
        value: &Field,
    ) -> Result<Option<Value>, JsonError> {
        match value {
            Field::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let mark = self.cursor.enter_index(index);
                    list.extend(self.single(&field.kind(), item)?);
                    self.cursor.leave(mark);
                }
                Ok(Some(Value::Array(list)))
            }
            Field::Map(entries) => {
                let Kind::Message(entry) = field.kind() else {
                    return Err(self.cursor.error("a map without an entry message"));
                };
                let kind = entry.map_entry_value_field().kind();
                let mut object = Map::new();
                for (key, item) in sorted(entries) {
                    let mark = self.cursor.enter_key(&key);
                    if let Some(item) = self.single(&kind, item)? {
                        object.insert(key, item);
                    }
                    self.cursor.leave(mark);
                }
                Ok(Some(Value::Object(object)))
            }
            single => self.single(&field.kind(), single),
        }
    }

    fn single(&mut self, kind: &Kind, value: &Field) -> Result<Option<Value>, JsonError> {
        if self.sensitive {
            match value {
                Field::String(_) => return Ok(Some(REDACTED.into())),
                Field::Bytes(_) => return Ok(Some(STANDARD.encode(REDACTED).into())),
                Field::Message(_) | Field::List(_) | Field::Map(_) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::I32(value) => (*value).into(),
            Field::U32(value) => (*value).into(),
            // 64 bits do not fit into the numbers of JavaScript, so protobuf's JSON has them as text.
            Field::I64(value) => value.to_string().into(),
            Field::U64(value) => value.to_string().into(),
            Field::F32(value) => float(f64::from(*value), || value.to_string()),
            Field::F64(value) => float(*value, || value.to_string()),
            Field::String(value) => value.as_str().into(),
            Field::Bytes(value) => STANDARD.encode(value).into(),
            Field::EnumNumber(number) => match kind {
                Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
                Kind::Enum(kind) => match kind.get_value(*number) {
                    Some(value) => value.name().into(),
                    None => (*number).into(),
                },
                _ => (*number).into(),
            },
            Field::Message(message) => self.dynamic(message)?,
            Field::List(_) | Field::Map(_) => {
                return Err(self.cursor.error("a list within a list"));
            }
        }))
    }

    fn well_known(
        &mut self,
        descriptor: &MessageDescriptor,
        message: &DynamicMessage,
    ) -> Result<Value, JsonError> {
        match descriptor.name() {
            "Any" => self.any(message),
            "Timestamp" => Ok(self.typed::<Timestamp>(message)?.to_string().into()),
            "Duration" => Ok(self.typed::<Duration>(message)?.to_string().into()),
            "Empty" => Ok(Value::Object(Map::new())),
            "Struct" => Ok(self.structure(&self.typed(message)?)),
            "Value" => Ok(self.structure_value(&self.typed(message)?)),
            "ListValue" => {
                let list = self.typed::<prost_types::ListValue>(message)?;
                Ok(list
                    .values
                    .iter()
                    .map(|value| self.structure_value(value))
                    .collect())
            }
            // The wrappers, Int32Value and so on: a single field `value`.
            _ => {
                let field = descriptor
                    .get_field(1)
                    .ok_or_else(|| self.cursor.error("a wrapper without a value"))?;
                let value = self.single(&field.kind(), &message.get_field(&field))?;
                Ok(value.unwrap_or(Value::Null))
            }
        }
    }

    fn any(&mut self, message: &DynamicMessage) -> Result<Value, JsonError> {
        let any: prost_types::Any = self.typed(message)?;
        let mut object = Map::new();
        if any.type_url.is_empty() && any.value.is_empty() {
            return Ok(Value::Object(object));
        }
        object.insert("@type".into(), any.type_url.as_str().into());
        match pool()?.get_message_by_name(type_name(&any.type_url)) {
            None if self.sensitive => {
                object.insert("value".into(), STANDARD.encode(REDACTED).into());
            }
            None => {
                object.insert("value".into(), STANDARD.encode(&any.value).into());
            }
            Some(descriptor) if is_well_known(descriptor.full_name()) => {
                let mark = self.cursor.enter_field("value");
                let value = self.message(&descriptor, &any.value)?;
                self.cursor.leave(mark);
                object.insert("value".into(), value);
            }
            Some(descriptor) => match self.message(&descriptor, &any.value)? {
                Value::Object(fields) => object.extend(fields),
                other => {
                    return Err(self
                        .cursor
                        .error(format!("{} is written as {other}", descriptor.full_name())));
                }
            },
        }
        Ok(Value::Object(object))
    }

    fn structure(&self, structure: &Struct) -> Value {
        structure
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), self.structure_value(value)))
            .collect()
    }

    fn structure_value(&self, value: &prost_types::Value) -> Value {
        match &value.kind {
            None | Some(StructKind::NullValue(_)) => Value::Null,
            Some(StructKind::BoolValue(_) | StructKind::NumberValue(_)) if self.sensitive => {
                Value::Null
            }
            Some(StructKind::StringValue(_)) if self.sensitive => REDACTED.into(),
            Some(StructKind::BoolValue(value)) => Value::Bool(*value),
            Some(StructKind::NumberValue(value)) => float(*value, || value.to_string()),
            Some(StructKind::StringValue(value)) => value.as_str().into(),
            Some(StructKind::StructValue(value)) => self.structure(value),
            Some(StructKind::ListValue(list)) => list
                .values
                .iter()
                .map(|value| self.structure_value(value))
                .collect(),
        }
    }

    fn typed<M: Message + Default>(&self, message: &DynamicMessage) -> Result<M, JsonError> {
        message
            .transcode_to()
            .map_err(|error| self.cursor.error(error.to_string()))
    }
}

/// A number as protobuf writes it: whole ones without a fraction, and the shortest digits that give the same value in
/// the field's own width (`shortest` writes them).
fn float(value: f64, shortest: impl Fn() -> String) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        Value::Number((value as i64).into())
    } else {
        let number = shortest().parse().unwrap_or(value);
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// Entries by the text of their keys, so that the same map is always walked in the same order.
fn sorted(entries: &std::collections::HashMap<MapKey, Field>) -> Vec<(String, &Field)> {
    let mut sorted: Vec<(String, &Field)> = entries
        .iter()
        .map(|(key, value)| (key_text(key), value))
        .collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    sorted
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
