//! How are single values read? Text, numbers, durations, bytes, and JSON that is passed on as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Decode, Decoder, describe};
use crate::diagnostic::{Diagnostic, code};
use crate::duration::{DurationError, parse_duration};
use crate::node::{Node, Value};

impl Decode for String {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                cx.wrong_type(node, "a string");
                None
            }
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            _ => {
                cx.wrong_type(node, "true or false");
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(false)
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
                let number = whole_number(node, cx)?;
                let value = <$type>::try_from(number).ok();
                if value.is_none() {
                    let message =
                        format!("`{}` must be between {} and {}", cx.path(), <$type>::MIN, <$type>::MAX);
                    let diagnostic = Diagnostic::error(code::BAD_VALUE, message)
                        .label(format!("{number} is outside of this range"));
                    cx.report(node.at, node.length, diagnostic);
                }
                value
            }
        }
    )*};
}

whole_numbers!(i32, i64, u16, u32, u64);

fn whole_number(node: &Node, cx: &mut Decoder<'_>) -> Option<i128> {
    match node.value {
        Value::Int(value) => Some(value.into()),
        Value::Unsigned(value) => Some(value.into()),
        // `12e3` and `80.0` are whole numbers, and JSON makes no difference. Up to 2^63 the conversion is exact enough
        // to be refused by the range of every type if it does not fit.
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9.3e18 => Some(value as i128),
        _ => {
            cx.wrong_type(node, "a whole number");
            None
        }
    }
}

impl Decode for f64 {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.value {
            Value::Int(value) => Some(value as f64),
            Value::Unsigned(value) => Some(value as f64),
            Value::Float(value) if value.is_finite() => Some(value),
            _ => {
                cx.wrong_type(node, "a number");
                None
            }
        }
    }
}

impl Decode for Duration {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::String(text) => text,
            // `0` is the one duration that needs no unit.
            Value::Int(0) => return Some(Duration::ZERO),
            _ => {
                let help = match &node.value {
                    Value::Int(value) if *value > 0 => Some(format!("give a unit: {value}s")),
                    Value::Float(value) if *value > 0.0 => Some(format!("give a unit: {value}s")),
                    _ => None,
                };
                let message = format!("`{}` must be a duration", cx.path());
                let mut diagnostic = Diagnostic::error(code::WRONG_TYPE, message)
                    .label(format!("expected a duration such as 10s, found {}", describe(node)));
                diagnostic.help = help;
                cx.report(node.at, node.length, diagnostic);
                return None;
            }
        };
        match parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                let (message, help) = match error {
                    DurationError::Malformed => (
                        format!("`{}` is no duration: `{text}`", cx.path()),
                        "write a number with a unit of ns, us, ms, s, m or h, for example 1.5s or 300ms",
                    ),
                    DurationError::Negative => {
                        (format!("`{}` is below zero: `{text}`", cx.path()), "remove the minus sign")
                    }
                    DurationError::TooLong => {
                        (format!("`{}` is too long: `{text}`", cx.path()), "the longest duration is about 290 years")
                    }
                };
                cx.bad_value(node, message, Some(help.to_owned()));
                None
            }
        }
    }
}

impl Decode for serde_json::Value {
    fn decode(node: &Node, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(node.to_json())
    }

    fn absent() -> Option<Self> {
        Some(serde_json::Value::Null)
    }
}

impl Decode for serde_json::Map<String, serde_json::Value> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.to_json() {
            serde_json::Value::Object(entries) => Some(entries),
            _ => {
                cx.wrong_type(node, "a mapping");
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(serde_json::Map::new())
    }
}

/// Bytes, written in base64: of either alphabet, with or without padding, as protobuf's JSON form allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Decode for Base64 {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::String(text) = &node.value else {
            cx.wrong_type(node, "a string in base64");
            return None;
        };
        // Tools wrap long values into lines.
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let alphabet =
            if text.contains(['-', '_']) { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
        match GeneralPurpose::new(alphabet, config).decode(text) {
            Ok(bytes) => Some(Base64(bytes)),
            Err(error) => {
                let message = format!("`{}` is not base64: {error}", cx.path());
                cx.bad_value(node, message, Some("`base64 -w0 FILE` prints a file in this form".to_owned()));
                None
            }
        }
    }
}

impl Base64 {
    /// The bytes of a map of values in base64.
    pub(crate) fn into_bytes(map: BTreeMap<String, Base64>) -> BTreeMap<String, Vec<u8>> {
        map.into_iter().map(|(key, value)| (key, value.0)).collect()
    }
}

/// A port by its number or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name.
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Int(0)
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrString::Int(number) => number.fmt(f),
            IntOrString::String(name) => name.fmt(f),
        }
    }
}

impl Decode for IntOrString {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(IntOrString::String(text.clone())),
            Value::Int(_) | Value::Unsigned(_) | Value::Float(_) => i32::decode(node, cx).map(IntOrString::Int),
            _ => {
                cx.wrong_type(node, "a whole number or a string");
                None
            }
        }
    }
}
