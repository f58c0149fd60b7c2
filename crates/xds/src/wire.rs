//! How is protobuf's wire format taken apart and put together, record by record?

use std::fmt;

use prost::encoding::{WireType, encode_key, encode_varint};

/// The value of one record. `B` is a slice when reading and a vector when writing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Payload<B> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(B),
}

/// What is wrong with encoded bytes.
#[derive(Debug)]
pub(crate) struct Malformed(&'static str);

/// The records of a message, field number and payload, in their order; it ends with the first malformed one.
pub(crate) fn records(encoded: &[u8]) -> impl Iterator<Item = Result<(u32, Payload<&[u8]>), Malformed>> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = record(&mut rest);
        if record.is_err() {
            rest = &[];
        }
        Some(record)
    })
}

/// The next value without a key, as packed lists have them.
pub(crate) fn payload<'b>(rest: &mut &'b [u8], wire_type: WireType) -> Result<Payload<&'b [u8]>, Malformed> {
    Ok(match wire_type {
        WireType::Varint => Payload::Varint(varint(rest)?),
        WireType::ThirtyTwoBit => Payload::Fixed32(array(rest)?),
        WireType::SixtyFourBit => Payload::Fixed64(array(rest)?),
        WireType::LengthDelimited => {
            let length = usize::try_from(varint(rest)?).map_err(|_| TRUNCATED)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
            *rest = after;
            Payload::Bytes(bytes)
        }
        WireType::StartGroup | WireType::EndGroup => {
            return Err(Malformed("a group, which the Envoy API does not have"));
        }
    })
}

impl<B: AsRef<[u8]>> Payload<B> {
    /// How the payload goes over the wire.
    pub(crate) fn wire_type(&self) -> WireType {
        match self {
            Payload::Varint(_) => WireType::Varint,
            Payload::Fixed32(_) => WireType::ThirtyTwoBit,
            Payload::Fixed64(_) => WireType::SixtyFourBit,
            Payload::Bytes(_) => WireType::LengthDelimited,
        }
    }

    /// Whether this is the value that a field without presence has when it is not written at all.
    pub(crate) fn is_default(&self) -> bool {
        match self {
            Payload::Varint(value) => *value == 0,
            Payload::Fixed32(value) => *value == [0; 4],
            Payload::Fixed64(value) => *value == [0; 8],
            Payload::Bytes(value) => value.as_ref().is_empty(),
        }
    }

    pub(crate) fn write_field(&self, number: u32, out: &mut Vec<u8>) {
        encode_key(number, self.wire_type(), out);
        if let Payload::Bytes(value) = self {
            encode_varint(value.as_ref().len() as u64, out);
        }
        self.write(out);
    }

    /// Without key and length, as in a packed list.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Varint(value) => encode_varint(*value, out),
            Payload::Fixed32(value) => out.extend_from_slice(value),
            Payload::Fixed64(value) => out.extend_from_slice(value),
            Payload::Bytes(value) => out.extend_from_slice(value.as_ref()),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const TRUNCATED: Malformed = Malformed("the bytes end within a value");

fn record<'b>(rest: &mut &'b [u8]) -> Result<(u32, Payload<&'b [u8]>), Malformed> {
    let key = u32::try_from(varint(rest)?).map_err(|_| Malformed("a field number out of range"))?;
    let wire_type = WireType::try_from(u64::from(key & 7)).map_err(|_| Malformed("an unknown wire type"))?;
    match key >> 3 {
        0 => Err(Malformed("a field with the number 0")),
        number => Ok((number, payload(rest, wire_type)?)),
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    const MAX_BYTES: usize = 10;
    let mut value = 0;
    for index in 0..MAX_BYTES {
        let (byte, after) = rest.split_first().ok_or(TRUNCATED)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number of more than 64 bits"))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(TRUNCATED)?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let payloads: [Payload<Vec<u8>>; 5] = [
            Payload::Varint(u64::MAX),
            Payload::Varint(300),
            Payload::Fixed32([1, 2, 3, 4]),
            Payload::Fixed64([9; 8]),
            Payload::Bytes(b"text".to_vec()),
        ];
        let mut encoded = Vec::new();
        for (number, payload) in (1..).zip(&payloads) {
            payload.write_field(number * 100, &mut encoded);
        }
        for ((number, written), record) in (1..).zip(&payloads).zip(records(&encoded)) {
            let (read_number, read) = record.unwrap();
            assert_eq!(read_number, number * 100);
            match (written, read) {
                (Payload::Bytes(written), Payload::Bytes(read)) => assert_eq!(written, read),
                (Payload::Varint(written), Payload::Varint(read)) => assert_eq!(*written, read),
                (Payload::Fixed32(written), Payload::Fixed32(read)) => assert_eq!(*written, read),
                (Payload::Fixed64(written), Payload::Fixed64(read)) => assert_eq!(*written, read),
                (written, read) => panic!("{written:?} was read as {read:?}"),
            }
        }
        assert_eq!(records(&encoded).count(), payloads.len());
    }

    #[test]
    fn malformed_bytes_end_the_records_with_an_error() {
        let broken: [&[u8]; 8] = [
            &[0x08],
            &[0x0a, 2, 0],
            &[0x0d, 0],
            &[0x09, 0],
            &[0x0b],
            &[0x0f],
            &[0x00, 0],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ];
        for bytes in broken {
            let outcomes: Vec<bool> = records(bytes).map(|record| record.is_ok()).collect();
            assert_eq!(outcomes, [false], "{bytes:?}");
        }
    }
}
