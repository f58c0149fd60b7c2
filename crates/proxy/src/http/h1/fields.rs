//! From the tokens of a head to the fields of a `Head`: offsets, lower-case names, numbers of known names.

use std::mem::MaybeUninit;

use httparse::Header;

use super::buffer::ReadBuffer;
use crate::http::head::{Field, Head, Known, Span};

/// Room for the lines of a head on the stack.
const LINES: usize = 128;

/// Lets the tokeniser write the lines of `bytes`: into the stack, or into the heap when the limit is unusually high.
pub(super) fn with_room<'a, R>(
    bytes: &'a [u8],
    max_lines: usize,
    tokenise: impl FnOnce(&'a [u8], &mut [MaybeUninit<Header<'a>>]) -> R,
) -> R {
    let mut room = [const { MaybeUninit::uninit() }; LINES];
    match room.get_mut(..max_lines) {
        Some(room) => tokenise(bytes, room),
        None => {
            // The shortest line is `a:` and its end, so the bytes bound the room even when the limit does not.
            let lines = max_lines.min(bytes.len() / 3 + 1);
            tokenise(bytes, &mut vec![MaybeUninit::uninit(); lines])
        }
    }
}

/// Where a part of `bytes` lies in it.
#[inline]
pub(super) fn span_in(bytes: &[u8], part: &[u8]) -> Span {
    Span::new(offset_in(bytes, part), part.len())
}

/// Puts the lines of a head that is complete at the front of `bytes` into `fields`, names as they came.
///
/// Tells `false` when a line does not end with CR LF, or a name is too long for a head. The tokeniser accepts a bare LF,
/// but it guarantees that no name and no value contains CR or LF, so looking before each line is enough.
#[inline]
pub(super) fn collect_lines(bytes: &[u8], size: usize, lines: &[Header<'_>], fields: &mut Vec<Field>) -> bool {
    let mut strict = size >= 4 && &bytes[size - 4..size] == b"\r\n\r\n";
    fields.reserve(lines.len());
    for line in lines {
        let name_start = offset_in(bytes, line.name.as_bytes());
        let value_start = offset_in(bytes, line.value);
        let name_end = name_start + line.name.len();
        let value_end = value_start + line.value.len();
        strict &= name_start >= 2 && bytes[name_start - 2] == b'\r' && line.name.len() <= usize::from(u16::MAX);
        let canonical = value_start == name_end + 2 && bytes[name_end + 1] == b' ' && bytes[value_end] == b'\r';
        fields.push(Field {
            name_start: name_start as u32,
            value_start: value_start as u32,
            value_length: line.value.len() as u32,
            name_length: line.name.len() as u16,
            known: None,
            canonical,
        });
    }
    strict
}

/// Moves the received bytes into the head and finishes its fields. Returns the mask of known names that have several
/// lines.
///
/// With `takes_host` the `host` lines leave the list and become the authority, joined as Envoy joins them.
pub(super) fn adopt_bytes(buffer: &mut ReadBuffer, size: usize, head: &mut Head, takes_host: bool) -> u128 {
    let base = buffer.hand_over(size, &mut head.bytes) as u32;
    head.method.start += base;
    head.path.start += base;
    let mut present: u128 = 0;
    let mut repeated: u128 = 0;
    let mut kept = 0;
    for index in 0..head.fields.len() {
        let mut field = head.fields[index];
        field.name_start += base;
        field.value_start += base;
        let start = field.name_start as usize;
        let name = &mut head.bytes[start..start + usize::from(field.name_length)];
        lower_case(name);
        match Known::lookup(name) {
            Some(Known::Host) if takes_host => {
                take_host(head, field);
                continue;
            }
            // In a response `host` means nothing.
            None | Some(Known::Host) => {}
            Some(known) => {
                field.known = Some(known);
                repeated |= present & known.bit();
                present |= known.bit();
            }
        }
        head.fields[kept] = field;
        kept += 1;
    }
    head.fields.truncate(kept);
    head.present = present;
    repeated
}

/// Lower-cases a name eight letters at a time: names are too short for the vector loop of the standard library.
#[inline]
fn lower_case(name: &mut [u8]) {
    let Some(last) = name.len().checked_sub(8) else {
        return name.make_ascii_lowercase();
    };
    let mut start = 0;
    while start < last {
        lower_case_word(&mut name[start..]);
        start += 8;
    }
    // The last eight letters may overlap the ones before, which are lower case already.
    lower_case_word(&mut name[last..]);
}

#[inline]
fn lower_case_word(text: &mut [u8]) {
    let Some(word) = text.first_chunk_mut::<8>() else {
        return;
    };
    const EVERY: u64 = 0x0101_0101_0101_0101;
    let letters = u64::from_le_bytes(*word);
    // In each byte the highest bit tells: from 'A' on, after 'Z', not ASCII. No sum carries into the next byte.
    let low = letters & (EVERY * 0x7f);
    let from_a = low + EVERY * (0x80 - b'A' as u64);
    let after_z = low + EVERY * (0x80 - b'Z' as u64 - 1);
    let upper = from_a & !after_z & !letters & (EVERY * 0x80);
    *word = (letters | (upper >> 2)).to_le_bytes();
}

fn take_host(head: &mut Head, field: Field) {
    let Some(first) = head.authority() else {
        head.authority = Some(Span { start: field.value_start, length: field.value_length });
        return;
    };
    let joined = [first, field.value(&head.bytes)].join(&b',');
    head.set_authority(&joined);
}

#[inline]
fn offset_in(bytes: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - bytes.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::lower_case;

    #[test]
    fn names_become_lower_case_whatever_their_length_and_bytes() {
        let every: Vec<u8> = (0..=255).collect();
        for length in 0..=every.len() {
            for start in [0, every.len() - length] {
                let mut name = every[start..start + length].to_vec();
                lower_case(&mut name);
                assert_eq!(name, every[start..start + length].to_ascii_lowercase());
            }
        }
        let mut name = *b"X-Envoy-Upstream-RQ-Timeout-Ms";
        lower_case(&mut name);
        assert_eq!(&name, b"x-envoy-upstream-rq-timeout-ms");
    }
}
