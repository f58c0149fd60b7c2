//! What JSON line does a JSON format give for a stream?
//!
//! One line per stream, keys sorted. A value that is exactly one operator keeps its type: numbers are numbers, and what
//! is missing is `null`. In any other text a missing value is `-`.

use prost_types::value::Kind;

use super::{Command, Format, FormatContext, FormatError, Segment};

/// Deepest nesting of a JSON format.
const MAX_DEPTH: usize = 32;

/// A parsed JSON format.
#[derive(Debug)]
pub struct JsonFormat {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// JSON as it stands in the line.
    Literal(Vec<u8>),
    /// A value with its own type.
    Value(Command),
    /// A string of several parts.
    Text(Format),
}

impl JsonFormat {
    /// Reads Envoy's `json_format`: strings are formats, other values stand for themselves.
    ///
    /// # Errors
    /// A string that is no format, with its key; nesting of more than 32 levels.
    pub fn parse(fields: &prost_types::Struct) -> Result<Self, FormatError> {
        let mut format = Self { pieces: Vec::new() };
        format.object(fields, 0)?;
        format.literal(b"\n");
        Ok(format)
    }

    /// Appends the line for a stream, with its line feed.
    pub fn render(&self, cx: &FormatContext<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(json) => out.extend_from_slice(json),
                Piece::Value(command) => render_value(command, cx, out),
                Piece::Text(format) => {
                    out.push(b'"');
                    let start = out.len();
                    format.render(cx, super::Empty::Dash, out);
                    escape_from(start, out);
                    out.push(b'"');
                }
            }
        }
    }

    fn literal(&mut self, json: &[u8]) {
        if let Some(Piece::Literal(before)) = self.pieces.last_mut() {
            before.extend_from_slice(json);
        } else {
            self.pieces.push(Piece::Literal(json.to_vec()));
        }
    }

    fn string(&mut self, text: &str) {
        let mut json = vec![b'"'];
        json.extend_from_slice(text.as_bytes());
        escape_from(1, &mut json);
        json.push(b'"');
        self.literal(&json);
    }

    fn object(&mut self, fields: &prost_types::Struct, depth: usize) -> Result<(), FormatError> {
        if depth > MAX_DEPTH {
            return Err(FormatError { message: format!("a JSON format has at most {MAX_DEPTH} levels") });
        }
        self.literal(b"{");
        // The fields of a struct are a sorted map.
        for (index, (key, value)) in fields.fields.iter().enumerate() {
            if index > 0 {
                self.literal(b",");
            }
            self.string(key);
            self.literal(b":");
            self.value(value, depth).map_err(|error| FormatError { message: format!("{key}: {}", error.message) })?;
        }
        self.literal(b"}");
        Ok(())
    }

    fn value(&mut self, value: &prost_types::Value, depth: usize) -> Result<(), FormatError> {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => self.literal(b"null"),
            Some(Kind::BoolValue(value)) => self.literal(if *value { b"true" } else { b"false" }),
            Some(Kind::NumberValue(number)) => self.number(*number),
            Some(Kind::StringValue(text)) => self.format(text)?,
            Some(Kind::StructValue(fields)) => self.object(fields, depth + 1)?,
            Some(Kind::ListValue(list)) => {
                if depth > MAX_DEPTH {
                    return Err(FormatError { message: format!("a JSON format has at most {MAX_DEPTH} levels") });
                }
                self.literal(b"[");
                for (index, value) in list.values.iter().enumerate() {
                    if index > 0 {
                        self.literal(b",");
                    }
                    self.value(value, depth + 1)?;
                }
                self.literal(b"]");
            }
        }
        Ok(())
    }

    fn number(&mut self, number: f64) {
        let json = serde_json::Number::from_f64(number).map_or_else(|| "null".to_owned(), |number| number.to_string());
        // 1.0 is written as 1.
        self.literal(json.strip_suffix(".0").unwrap_or(&json).as_bytes());
    }

    fn format(&mut self, text: &str) -> Result<(), FormatError> {
        let mut format = Format::parse(text)?;
        if let Some(constant) = format.constant() {
            let constant = String::from_utf8_lossy(constant).into_owned();
            self.string(&constant);
            return Ok(());
        }
        match (format.segments.pop(), format.segments.is_empty()) {
            (Some(Segment::Operator(command)), true) => self.pieces.push(Piece::Value(command)),
            (last, _) => {
                format.segments.extend(last);
                self.pieces.push(Piece::Text(format));
            }
        }
        Ok(())
    }
}

fn render_value(command: &Command, cx: &FormatContext<'_>, out: &mut Vec<u8>) {
    let before = out.len();
    if command.operator.is_number() {
        if !command.render(cx, out) {
            out.extend_from_slice(b"null");
        }
        return;
    }
    out.push(b'"');
    let start = out.len();
    if command.render(cx, out) {
        escape_from(start, out);
        out.push(b'"');
    } else {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

/// Escapes what was appended from `start` on, so that it may stand in a JSON string (RFC 8259 section 7). As in Envoy a text
/// that is no UTF-8 is taken for Latin-1.
fn escape_from(start: usize, out: &mut Vec<u8>) {
    let plain = out[start..]
        .iter()
        .fold(true, |plain, byte| plain & (0x20..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\'));
    if plain {
        return;
    }
    let raw = out.split_off(start);
    let utf8 = str::from_utf8(&raw).is_ok();
    for byte in raw {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..0x20 => push_code(byte, out),
            0x80.. if !utf8 => push_code(byte, out),
            _ => out.push(byte),
        }
    }
}

fn push_code(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}
