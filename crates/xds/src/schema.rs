//! Which fields do the messages have? Read straight from the descriptor set that the types were generated from.
//!
//! The set stays in its encoded form in the program's image. What is kept besides is an index of names, made on first
//! use, and the fields of those messages that were met: a process that prints its configuration needs a fraction of a
//! megabyte for this, where a full reflection library needs fourteen.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use prost::encoding::WireType;

use crate::wire::{Payload, records};

static ENCODED: &[u8] = include_bytes!("../proto/envoy.binpb");

/// Number of the option `udpa.annotations.sensitive`.
const SENSITIVE_OPTION: u32 = 76_569_463;

/// Everything in `proto/envoy.binpb`, by full name.
static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::read);

#[derive(Default)]
struct Schema {
    messages: BTreeMap<String, MessageType>,
    enums: BTreeMap<String, EnumType>,
}

/// A message type.
pub(crate) struct MessageType {
    pub(crate) full_name: String,
    /// Its `DescriptorProto`.
    encoded: &'static [u8],
    proto3: bool,
    fields: OnceLock<Vec<Field>>,
}

/// A field of a message type.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) json_name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
    /// Elements of a list stand in one record.
    pub(crate) packed: bool,
    /// A value that equals the default is still a value.
    pub(crate) presence: bool,
    /// Index of the `oneof` that it belongs to.
    pub(crate) oneof: Option<u64>,
    /// Where typed messages encode it: its number, or the smallest one in its `oneof`.
    pub(crate) position: u32,
    /// Values are secret.
    pub(crate) sensitive: bool,
}

/// What a field holds. Types are named, to be looked up by [`message`] and [`enumeration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(&'static str),
    Message(&'static str),
}

/// An enum type.
pub(crate) struct EnumType {
    /// Names and numbers, in the order of the `.proto` file.
    pub(crate) values: Vec<(&'static str, i32)>,
}

/// The message type with this full name.
pub(crate) fn message(full_name: &str) -> Option<&'static MessageType> {
    SCHEMA.messages.get(full_name)
}

/// The enum type with this full name.
pub(crate) fn enumeration(full_name: &str) -> Option<&'static EnumType> {
    SCHEMA.enums.get(full_name)
}

/// Every message type, entries of maps included.
#[cfg(test)]
pub(crate) fn messages() -> impl Iterator<Item = &'static MessageType> {
    SCHEMA.messages.values()
}

impl Schema {
    fn read() -> Self {
        let mut schema = Schema::default();
        for file in sub_messages(ENCODED, 1) {
            let package = text(file, 2).unwrap_or_default();
            let proto3 = text(file, 12) == Some("proto3");
            schema.declare(file, package, 4, 5, proto3);
        }
        schema
    }

    /// The message and enum types that `encoded`, a file or a message, declares in the fields with these numbers.
    fn declare(&mut self, encoded: &'static [u8], scope: &str, messages: u32, enums: u32, proto3: bool) {
        let full_name = |encoded| format!("{scope}.{}", text(encoded, 1).unwrap_or_default());
        for encoded in sub_messages(encoded, enums) {
            let full_name = full_name(encoded);
            let values = sub_messages(encoded, 2)
                .map(|value| (text(value, 1).unwrap_or_default(), number(value, 2).unwrap_or(0) as i32))
                .collect();
            self.enums.insert(full_name.clone(), EnumType { values });
        }
        for encoded in sub_messages(encoded, messages) {
            let full_name = full_name(encoded);
            self.declare(encoded, &full_name, 3, 4, proto3);
            let message = MessageType { full_name: full_name.clone(), encoded, proto3, fields: OnceLock::new() };
            self.messages.insert(full_name, message);
        }
    }
}

impl MessageType {
    /// Sorted by number.
    pub(crate) fn fields(&self) -> &[Field] {
        self.fields.get_or_init(|| {
            let mut fields: Vec<Field> =
                sub_messages(self.encoded, 2).filter_map(|encoded| Field::read(encoded, self.proto3)).collect();
            fields.sort_by_key(|field| field.number);
            let mut first: BTreeMap<u64, u32> = BTreeMap::new();
            for field in &mut fields {
                if let Some(oneof) = field.oneof {
                    field.position = *first.entry(oneof).or_insert(field.number);
                }
            }
            fields
        })
    }

    pub(crate) fn field(&self, number: u32) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &fields[index])
    }

    /// By the name in the `.proto` file or by the one of canonical JSON.
    pub(crate) fn field_named(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        fields.iter().find(|field| field.name == name).or_else(|| fields.iter().find(|field| field.json_name == name))
    }

    /// The kinds of key and value, if this is the type of a map's entries.
    pub(crate) fn map_entry(&self) -> Option<(Kind, Kind)> {
        sub_messages(self.encoded, 7).any(|options| number(options, 7) == Some(1)).then_some(())?;
        Some((self.field(1)?.kind, self.field(2)?.kind))
    }
}

impl Kind {
    /// How a value of this kind goes over the wire when it is not packed.
    pub(crate) fn wire_type(self) -> WireType {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
            Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
            _ => WireType::Varint,
        }
    }
}

impl Field {
    /// The kinds of key and value, if the field is a map.
    pub(crate) fn map_entry(&self) -> Option<(Kind, Kind)> {
        match self.kind {
            Kind::Message(name) if self.repeated => message(name)?.map_entry(),
            _ => None,
        }
    }

    /// From a `FieldDescriptorProto`. Groups, of which the Envoy API has none, are left out.
    fn read(encoded: &'static [u8], proto3: bool) -> Option<Self> {
        const REPEATED: u64 = 3;
        let type_name = || text(encoded, 6).map(|name| name.strip_prefix('.').unwrap_or(name));
        let kind = match number(encoded, 5)? {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            11 => Kind::Message(type_name()?),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(type_name()?),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => return None,
        };
        let name = text(encoded, 1)?;
        let field_number = u32::try_from(number(encoded, 3)?).ok()?;
        let repeated = number(encoded, 4) == Some(REPEATED);
        let options = sub_messages(encoded, 8).next().unwrap_or_default();
        let packable = kind.wire_type() != WireType::LengthDelimited;
        // An explicitly optional field is the only member of a `oneof` that stands for its presence.
        let optional = number(encoded, 17) == Some(1);
        let oneof = number(encoded, 9);
        Some(Field {
            name,
            json_name: text(encoded, 10).unwrap_or(name),
            number: field_number,
            kind,
            repeated,
            packed: repeated && packable && number(options, 2).map_or(proto3, |packed| packed == 1),
            presence: !repeated && (!proto3 || oneof.is_some() || matches!(kind, Kind::Message(_))),
            oneof: oneof.filter(|_| !optional),
            position: field_number,
            sensitive: number(options, SENSITIVE_OPTION) == Some(1),
        })
    }
}

fn sub_messages(encoded: &'static [u8], number: u32) -> impl Iterator<Item = &'static [u8]> {
    payloads(encoded, number).filter_map(|payload| match payload {
        Payload::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

fn text(encoded: &'static [u8], number: u32) -> Option<&'static str> {
    sub_messages(encoded, number).next().and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn number(encoded: &'static [u8], number: u32) -> Option<u64> {
    payloads(encoded, number).find_map(|payload| match payload {
        Payload::Varint(value) => Some(value),
        _ => None,
    })
}

/// The set is part of this program and tests read all of it, so that a malformed record cannot be met here.
fn payloads(encoded: &'static [u8], number: u32) -> impl Iterator<Item = Payload<&'static [u8]>> {
    records(encoded).map_while(Result::ok).filter(move |(other, _)| *other == number).map(|(_, payload)| payload)
}
