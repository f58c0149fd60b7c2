//! Which fields does an encoded message have? Its records by field, as protobuf's rules for repeated records say.

use std::collections::BTreeMap;
use std::fmt::Display;

use prost::encoding::WireType;

use crate::schema::{Field, Kind, MessageType};
use crate::wire::{self, Payload};

/// The fields that have a value, by the position at which typed messages encode them. A list has its elements, a
/// message one payload for each record of it (one after the other they are one encoding), anything else one payload.
pub(crate) type Fields<'k, 'b> = BTreeMap<u32, (&'k Field, Vec<Payload<&'b [u8]>>)>;

/// Takes a message apart: lists grow, messages merge, of anything else the last record counts. Fields that are not
/// known are passed over.
///
/// # Errors
/// Bytes that are no message of this type, with the reason.
pub(crate) fn of<'k, 'b>(kind: &'k MessageType, encoded: &'b [u8]) -> Result<Fields<'k, 'b>, String> {
    let malformed = |error: &dyn Display| format!("cannot decode {}: {error}", kind.full_name);
    let mut fields = Fields::new();
    for record in wire::records(encoded) {
        let (number, payload) = record.map_err(|error| malformed(&error))?;
        let Some(field) = kind.field(number) else {
            continue;
        };
        let wire_type = field.kind.wire_type();
        let (other, payloads) = fields.entry(field.position).or_insert_with(|| (field, Vec::new()));
        if other.number != field.number {
            // Another member of the same `oneof` came first.
            *other = field;
            payloads.clear();
        }
        match payload {
            Payload::Bytes(mut rest) if field.repeated && wire_type != WireType::LengthDelimited => {
                while !rest.is_empty() {
                    let element = wire::payload(&mut rest, wire_type);
                    payloads.push(element.map_err(|error| malformed(&error))?);
                }
            }
            payload if payload.wire_type() != wire_type => {
                return Err(malformed(&format_args!("{} has another wire type", field.name)));
            }
            payload => {
                if !field.repeated && !matches!(field.kind, Kind::Message(_)) {
                    payloads.clear();
                }
                payloads.push(payload);
            }
        }
    }
    fields.retain(|_, (field, payloads)| {
        field.repeated || field.presence || payloads.iter().any(|payload| !payload.is_default())
    });
    Ok(fields)
}
