//! How is one message merged into another? As Istio merges the value of a patch into what it patches.
//!
//! Field by field, on the encoded form, by what the descriptor set says of the types:
//!
//! * a scalar of the patch takes the place of the base's. In proto3 a zero is no value, so a patch cannot set one,
//!   except where the field knows presence (wrappers, members of a `oneof`, `optional`);
//! * a message is merged recursively, but a `Duration` or a wrapper is one value and is replaced whole;
//! * a member of a `oneof` takes the place of another member;
//! * a list is appended to the base's or takes its place ([`Lists`]);
//! * a map takes the patch's entry for each key of the patch;
//! * what two `Any`s of one type wrap is merged; an `Any` of another type takes the place of the base's.
//!
//! Invariant: of inputs that are encoded as typed messages encode, the result is encoded so too, also inside an `Any`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use prost_types::Any;

use crate::any::type_name;
use crate::fields;
use crate::schema::{self, Field, Kind, MessageType};
use crate::wire::Payload;

/// What becomes of a list of the base when the patch has one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lists {
    /// It keeps its elements; those of the patch come after them.
    Append,
    /// The patch's takes its place.
    Replace,
}

/// Merges an encoded message into another one of the same type, of which the full name is given.
///
/// # Errors
/// A type that is not in the Envoy API, bytes that are no message of the type, or nesting beyond 100 messages.
pub fn merge(full_name: &str, base: &[u8], patch: &[u8], lists: Lists) -> Result<Vec<u8>, MergeError> {
    let kind = schema::message(full_name)
        .ok_or_else(|| MergeError { message: format!("message type {full_name} is not known") })?;
    let mut merge = Merge { lists, depth: 0 };
    Ok(merge.value(kind, base, patch)?.into_owned())
}

/// Why two messages cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeError {
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MergeError {}

/// Messages nested more deeply than this, counting those inside an `Any`, are refused (protobuf's usual limit).
const MAX_DEPTH: usize = 100;

struct Merge {
    lists: Lists,
    depth: usize,
}

/// The payloads of one field: those of the base or the patch, or new ones.
type Payloads<'b> = Vec<Payload<Cow<'b, [u8]>>>;

impl Merge {
    fn value<'b>(&mut self, kind: &MessageType, base: &'b [u8], patch: &'b [u8]) -> Result<Cow<'b, [u8]>, MergeError> {
        if is_one_value(kind) {
            return Ok(Cow::Borrowed(patch));
        }
        if kind.full_name == "google.protobuf.Any" {
            return self.any(base, patch);
        }
        if patch.is_empty() {
            return Ok(Cow::Borrowed(base));
        }
        if self.depth == MAX_DEPTH {
            return Err(MergeError { message: format!("messages are nested more than {MAX_DEPTH} deep") });
        }
        self.depth += 1;
        let mut merged: BTreeMap<u32, (&Field, Payloads<'_>)> = BTreeMap::new();
        for (position, (field, payloads)) in take_apart(kind, base)? {
            merged.insert(position, (field, payloads.into_iter().map(borrowed).collect()));
        }
        for (position, (field, payloads)) in take_apart(kind, patch)? {
            let payloads: Payloads<'_> = payloads.into_iter().map(borrowed).collect();
            let payloads = match merged.remove(&position) {
                Some((other, base)) if other.number == field.number => self.field(field, base, payloads)?,
                _ => payloads,
            };
            merged.insert(position, (field, payloads));
        }
        let mut out = Vec::with_capacity(base.len() + patch.len());
        for (field, payloads) in merged.into_values() {
            write(field, payloads, &mut out);
        }
        self.depth -= 1;
        Ok(Cow::Owned(out))
    }

    /// A field that both have.
    fn field<'b>(
        &mut self,
        field: &Field,
        mut base: Payloads<'b>,
        patch: Payloads<'b>,
    ) -> Result<Payloads<'b>, MergeError> {
        if let (Some((key_kind, _)), Kind::Message(entry)) = (field.map_entry(), field.kind) {
            return self.map(entry, key_kind, base, patch);
        }
        if field.repeated {
            return Ok(match self.lists {
                Lists::Append => {
                    base.extend(patch);
                    base
                }
                Lists::Replace => patch,
            });
        }
        let Kind::Message(name) = field.kind else {
            return Ok(patch);
        };
        let kind = schema::message(name).ok_or_else(|| MergeError { message: format!("{name} is not known") })?;
        let (base, patch) = (joined(base), joined(patch));
        let merged = self.value(kind, &base, &patch)?.into_owned();
        Ok(vec![Payload::Bytes(Cow::Owned(merged))])
    }

    fn map<'b>(
        &mut self,
        entry: &str,
        key_kind: Kind,
        base: Payloads<'b>,
        patch: Payloads<'b>,
    ) -> Result<Payloads<'b>, MergeError> {
        let kind = schema::message(entry).ok_or_else(|| MergeError { message: format!("{entry} is not known") })?;
        let mut merged = BTreeMap::new();
        for payload in base.into_iter().chain(patch) {
            let key = match &payload {
                Payload::Bytes(entry) => match take_apart(kind, entry)?.get(&1) {
                    Some((_, payloads)) => payloads.last().map(|payload| Key::of(*payload, key_kind)),
                    None => None,
                },
                _ => None,
            };
            merged.insert(key.unwrap_or_else(|| Key::default_of(key_kind)), payload);
        }
        Ok(merged.into_values().collect())
    }

    fn any<'b>(&mut self, base: &'b [u8], patch: &'b [u8]) -> Result<Cow<'b, [u8]>, MergeError> {
        let read = |bytes: &[u8]| {
            Any::decode(bytes).map_err(|error| MergeError { message: format!("cannot decode an Any: {error}") })
        };
        let wrapped = read(patch)?;
        if wrapped.type_url.is_empty() {
            return Ok(Cow::Borrowed(base));
        }
        let into = read(base)?;
        let name = type_name(&into.type_url);
        match schema::message(name) {
            Some(kind) if type_name(&wrapped.type_url) == name => {
                let value = self.value(kind, &into.value, &wrapped.value)?.into_owned();
                Ok(Cow::Owned(Any { type_url: into.type_url, value }.encode_to_vec()))
            }
            _ => Ok(Cow::Borrowed(patch)),
        }
    }
}

/// The key of a map's entry, ordered as typed messages order their maps.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Text(Vec<u8>),
}

impl Key {
    fn of(payload: Payload<&[u8]>, kind: Kind) -> Key {
        let signed = matches!(kind, Kind::Int32 | Kind::Int64 | Kind::Sfixed32 | Kind::Sfixed64);
        match (payload, kind) {
            (Payload::Bytes(text), _) => Key::Text(text.to_vec()),
            (Payload::Varint(number), Kind::Sint32 | Kind::Sint64) => {
                Key::Number(i128::from((number >> 1) as i64 ^ -((number & 1) as i64)))
            }
            (Payload::Varint(number), _) if signed => Key::Number((number as i64).into()),
            (Payload::Varint(number), _) => Key::Number(number.into()),
            (Payload::Fixed32(bytes), _) if signed => Key::Number(i32::from_le_bytes(bytes).into()),
            (Payload::Fixed32(bytes), _) => Key::Number(u32::from_le_bytes(bytes).into()),
            (Payload::Fixed64(bytes), _) if signed => Key::Number(i64::from_le_bytes(bytes).into()),
            (Payload::Fixed64(bytes), _) => Key::Number(u64::from_le_bytes(bytes).into()),
        }
    }

    /// What an entry without a key has.
    fn default_of(kind: Kind) -> Key {
        if kind == Kind::String { Key::Text(Vec::new()) } else { Key::Number(0) }
    }
}

/// Durations and wrappers: two of them have no common parts that could be merged.
fn is_one_value(kind: &MessageType) -> bool {
    matches!(
        kind.full_name.strip_prefix("google.protobuf."),
        Some(
            "Duration"
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

fn take_apart<'k, 'b>(kind: &'k MessageType, encoded: &'b [u8]) -> Result<fields::Fields<'k, 'b>, MergeError> {
    fields::of(kind, encoded).map_err(|message| MergeError { message })
}

fn borrowed(payload: Payload<&[u8]>) -> Payload<Cow<'_, [u8]>> {
    match payload {
        Payload::Varint(value) => Payload::Varint(value),
        Payload::Fixed32(value) => Payload::Fixed32(value),
        Payload::Fixed64(value) => Payload::Fixed64(value),
        Payload::Bytes(value) => Payload::Bytes(Cow::Borrowed(value)),
    }
}

/// One encoding of a message that came in several records.
fn joined(payloads: Payloads<'_>) -> Cow<'_, [u8]> {
    let mut parts = payloads.into_iter().filter_map(|payload| match payload {
        Payload::Bytes(bytes) => Some(bytes),
        _ => None,
    });
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |joined, part| Cow::Owned([joined, part].concat()))
}

fn write(field: &Field, payloads: Payloads<'_>, out: &mut Vec<u8>) {
    if field.packed {
        let mut packed = Vec::new();
        for payload in &payloads {
            payload.write(&mut packed);
        }
        if !packed.is_empty() {
            Payload::Bytes(packed).write_field(field.number, out);
        }
    } else if field.repeated || payloads.len() == 1 {
        for payload in &payloads {
            payload.write_field(field.number, out);
        }
    } else {
        Payload::Bytes(joined(payloads)).write_field(field.number, out);
    }
}

#[cfg(test)]
mod tests;
