//! What JSON line does a JSON format give for a stream?
//!
//! One line per stream, keys sorted. A value that is exactly one operator keeps its type: numbers are numbers, and what
//! is missing is `null`, or left out if the configuration wants that.

use prost_types::value::Kind;

use super::{Command, Empty, Format, FormatContext, FormatError, Segment};

/// Deepest nesting of a JSON format.
const MAX_DEPTH: usize = 32;

/// A parsed JSON format.
#[derive(Debug)]
pub struct JsonFormat {
    root: Node,
    omit_empty: bool,
}

#[derive(Debug)]
enum Node {
    Null,
    /// JSON as it stands in the line.
    Literal(Vec<u8>),
    /// A value with its own type.
    Value(Command),
    /// A string of several parts.
    Text(Format),
    /// Keys as JSON with their colon, and values.
    Object(Vec<(Vec<u8>, Node)>),
    List(Vec<Node>),
}

impl JsonFormat {
    /// Reads Envoy's `json_format`: strings are formats, other values stand for themselves. With `omit_empty_values` a
    /// missing value is left out instead of being `null`, and is nothing in a text instead of a `-`.
    ///
    /// # Errors
    /// A string that is no format, with its key; nesting of more than 32 levels.
    pub fn build(fields: &prost_types::Struct, omit_empty_values: bool) -> Result<Self, FormatError> {
        Ok(Self { root: object(fields, 0)?, omit_empty: omit_empty_values })
    }

    /// Appends the line for a stream, with its line feed.
    pub fn render(&self, cx: &FormatContext<'_>, out: &mut Vec<u8>) {
        if !self.root.render(cx, self.omit_empty, out) {
            out.extend_from_slice(b"{}");
        }
        out.push(b'\n');
    }
}

impl Node {
    /// Appends the value; `false` if it is to be left out, and nothing was appended.
    fn render(&self, cx: &FormatContext<'_>, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self {
            Self::Null => return push_null(omit_empty, out),
            Self::Literal(json) => out.extend_from_slice(json),
            Self::Value(command) if command.operator.is_number() => {
                return command.render(cx, out) || push_null(omit_empty, out);
            }
            Self::Value(command) => {
                out.push(b'"');
                if !command.render(cx, out) {
                    out.truncate(start);
                    return push_null(omit_empty, out);
                }
                escape_from(start + 1, out);
                out.push(b'"');
            }
            Self::Text(format) => {
                out.push(b'"');
                format.render(cx, if omit_empty { Empty::Blank } else { Empty::Dash }, out);
                escape_from(start + 1, out);
                out.push(b'"');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (key, value) in fields {
                    let before = out.len();
                    if before > start + 1 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    if !value.render(cx, omit_empty, out) {
                        out.truncate(before);
                    }
                }
                if omit_empty && out.len() == start + 1 {
                    out.truncate(start);
                    return false;
                }
                out.push(b'}');
            }
            Self::List(values) => {
                out.push(b'[');
                for value in values {
                    let before = out.len();
                    if before > start + 1 {
                        out.push(b',');
                    }
                    if !value.render(cx, omit_empty, out) {
                        out.truncate(before);
                    }
                }
                out.push(b']');
            }
        }
        true
    }
}

fn push_null(omit: bool, out: &mut Vec<u8>) -> bool {
    if !omit {
        out.extend_from_slice(b"null");
    }
    !omit
}

fn object(fields: &prost_types::Struct, depth: usize) -> Result<Node, FormatError> {
    check_depth(depth)?;
    // The fields of a struct are a sorted map.
    let fields = fields.fields.iter().map(|(key, value)| {
        let mut json = string(key);
        json.push(b':');
        let value = node(value, depth).map_err(|error| FormatError { message: format!("{key}: {}", error.message) })?;
        Ok((json, value))
    });
    fields.collect::<Result<_, _>>().map(Node::Object)
}

fn node(value: &prost_types::Value, depth: usize) -> Result<Node, FormatError> {
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Node::Null,
        Some(Kind::BoolValue(value)) => Node::Literal(if *value { b"true".to_vec() } else { b"false".to_vec() }),
        Some(Kind::NumberValue(number)) => match serde_json::Number::from_f64(*number) {
            // 1.0 is written as 1.
            Some(number) => Node::Literal(number.to_string().trim_end_matches(".0").as_bytes().to_vec()),
            None => Node::Null,
        },
        Some(Kind::StringValue(text)) => text_node(text)?,
        Some(Kind::StructValue(fields)) => object(fields, depth + 1)?,
        Some(Kind::ListValue(list)) => {
            check_depth(depth)?;
            Node::List(list.values.iter().map(|value| node(value, depth + 1)).collect::<Result<_, _>>()?)
        }
    })
}

fn check_depth(depth: usize) -> Result<(), FormatError> {
    if depth > MAX_DEPTH {
        return Err(FormatError { message: format!("a JSON format has at most {MAX_DEPTH} levels") });
    }
    Ok(())
}

fn text_node(text: &str) -> Result<Node, FormatError> {
    let mut format = Format::parse(text)?;
    if let Some(constant) = format.constant() {
        return Ok(Node::Literal(string(&String::from_utf8_lossy(constant))));
    }
    match (format.segments.pop(), format.segments.is_empty()) {
        (Some(Segment::Operator(command)), true) => Ok(Node::Value(command)),
        (last, _) => {
            format.segments.extend(last);
            Ok(Node::Text(format))
        }
    }
}

/// A text as a JSON string.
fn string(text: &str) -> Vec<u8> {
    let mut json = vec![b'"'];
    json.extend_from_slice(text.as_bytes());
    escape_from(1, &mut json);
    json.push(b'"');
    json
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
