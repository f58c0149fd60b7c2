//! What text does a format string (`%REQ(:METHOD)% %DURATION%`) give for a stream? Envoy's substitution formatter.
//!
//! A format is parsed once into literals and operators. A missing value is `-` in an access log and nothing in a header.

mod json;
mod operator;
mod time;
mod value;

use std::fmt;

pub use json::JsonFormat;
use operator::Operator;

use crate::http::head::Head;
use crate::http::stream_info::StreamInfo;

/// What a format may speak of.
#[derive(Clone, Copy, Debug)]
pub struct FormatContext<'a> {
    /// The request, as far as it is known.
    pub request: &'a Head,
    /// The response, once there is one.
    pub response: Option<&'a Head>,
    /// The facts of the stream.
    pub stream: &'a StreamInfo<'a>,
    /// The text of a reply of the proxy's own, while it is made.
    pub local_reply: &'a [u8],
}

/// What stands in the place of a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// Nothing: header values.
    Blank,
    /// `-`: access logs.
    Dash,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    message: String,
}

/// A parsed format.
#[derive(Debug, Default)]
pub struct Format {
    segments: Vec<Segment>,
    /// A missing value is nothing even in a log.
    omit_empty: bool,
}

#[derive(Debug)]
enum Segment {
    Literal(Box<[u8]>),
    Operator(Command),
}

/// An operator, and the number of bytes after which its text is cut off.
#[derive(Debug)]
struct Command {
    operator: Operator,
    limit: Option<usize>,
}

impl Format {
    /// Parses a text with operators `%NAME%`, `%NAME(argument)%` and `%NAME(argument):length%`; `%%` is a percent sign.
    ///
    /// # Errors
    /// A `%` that begins no operator, an unknown operator, a missing, superfluous or malformed argument.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(percent) = rest.find('%') {
            literal.push_str(&rest[..percent]);
            let after = &rest[percent + 1..];
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (command, after) = split_command(after).ok_or_else(|| FormatError {
                message: format!("`{text}`: no operator begins at byte {}", text.len() - after.len() - 1),
            })?;
            let operator = Operator::parse(&command)
                .map_err(|message| FormatError { message: format!("`%{}%`: {message}", command.text) })?;
            rest = after;
            match operator {
                Operator::Constant(Some(value)) => literal.push_str(command.cut(&value)),
                operator => {
                    push_literal(&mut segments, &mut literal);
                    segments.push(Segment::Operator(Command { operator, limit: command.length }));
                }
            }
        }
        literal.push_str(rest);
        push_literal(&mut segments, &mut literal);
        Ok(Self { segments, omit_empty: false })
    }

    /// With `omit_empty_values` a missing value is nothing even in a log.
    #[must_use]
    pub fn omitting_empty(mut self, omit_empty_values: bool) -> Self {
        self.omit_empty = omit_empty_values;
        self
    }

    /// The text, if it is the same for all streams.
    #[must_use]
    pub fn constant(&self) -> Option<&[u8]> {
        match self.segments.as_slice() {
            [] => Some(b""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for a stream.
    pub fn render(&self, cx: &FormatContext<'_>, empty: Empty, out: &mut Vec<u8>) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.extend_from_slice(text),
                Segment::Operator(command) => {
                    if !command.render(cx, out) && empty == Empty::Dash && !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

impl Command {
    /// Appends the value; tells whether there was one.
    fn render(&self, cx: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let present = self.operator.render(cx, out);
        if let Some(limit) = self.limit {
            out.truncate(start.saturating_add(limit).min(out.len()));
        }
        present
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FormatError {}

/// The parts of an operator as written.
struct CommandText<'a> {
    text: &'a str,
    name: &'a str,
    argument: Option<&'a str>,
    length: Option<usize>,
}

impl CommandText<'_> {
    fn cut<'a>(&self, value: &'a str) -> &'a str {
        let end = self.length.unwrap_or(value.len()).min(value.len());
        // A cut inside a character takes the character away as a whole.
        (0..=end).rev().find_map(|end| value.get(..end)).unwrap_or_default()
    }
}

/// Splits `NAME(argument):length%…` at its end; the argument reaches to the first `)`.
fn split_command(text: &str) -> Option<(CommandText<'_>, &str)> {
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let name_length = text.bytes().take_while(|byte| is_name(*byte)).count();
    if name_length == 0 {
        return None;
    }
    let (name, mut rest) = text.split_at(name_length);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) = inside.split_once(')')?;
        argument = Some(inside);
        rest = after;
    }
    let mut length = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        length = Some(digits[..count].parse().ok()?);
        rest = &digits[count..];
    }
    let after = rest.strip_prefix('%')?;
    let text = &text[..text.len() - rest.len()];
    Some((CommandText { text, name, argument, length }, after))
}

fn push_literal(segments: &mut Vec<Segment>, literal: &mut String) {
    if !literal.is_empty() {
        segments.push(Segment::Literal(std::mem::take(literal).into_bytes().into()));
    }
}

#[cfg(test)]
mod tests;
