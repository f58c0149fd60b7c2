//! How does a YAML document become a JSON value? With the meaning that Envoy gives to plain scalars.
//!
//! Only bootstrap files are read this way. Time and memory are bounded: an alias that would blow the document up is
//! refused.

use std::collections::BTreeMap;
use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Nodes of a document, those that aliases repeat included.
const MAX_NODES: usize = 1_000_000;
/// Lists and mappings within each other.
const MAX_DEPTH: usize = 100;

/// Reads one document; an empty one is `null`.
///
/// # Errors
/// Malformed YAML, a second document, a key that is not a scalar or stands twice, too deep or too large content.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, depth: 0 };
    let mut document = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamEnd => {}
            _ if document.is_some() => {
                return Err(YamlError::at(&span, "a second document, where only one is expected"));
            }
            event => document = Some(reader.value(event, &span)?),
        }
    }
    Ok(document.unwrap_or(Value::Null))
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl YamlError {
    fn at(span: &Span, message: impl Into<String>) -> Self {
        YamlError { line: span.start.line(), column: span.start.col() + 1, message: message.into() }
    }
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        YamlError { line: error.marker().line(), column: error.marker().col() + 1, message: error.info() }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for YamlError {}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    /// Values of the anchors so far, and of how many nodes each consists.
    anchors: BTreeMap<usize, (Value, usize)>,
    nodes: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, YamlError> {
        loop {
            match self.events.next_event() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
            }
        }
    }

    /// The event after which a collection cannot be complete yet.
    fn next_within(&mut self, start: &Span) -> Result<(Event<'t>, Span), YamlError> {
        self.next()?.ok_or_else(|| YamlError::at(start, "the text ends within this"))
    }

    /// The value that begins with this event.
    fn value(&mut self, event: Event<'t>, span: &Span) -> Result<Value, YamlError> {
        let before = self.nodes;
        self.count(1, span)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = style != ScalarStyle::Plain
                    || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || tag.is_custom());
                let value = if as_text { Value::String(text.into_owned()) } else { plain(&text) };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(span)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(span)?, anchor),
            Event::Alias(anchor) => {
                let Some((value, nodes)) = self.anchors.get(&anchor).cloned() else {
                    return Err(YamlError::at(span, "an alias within the very value that it stands for"));
                };
                self.count(nodes, span)?;
                return Ok(value);
            }
            _ => return Err(YamlError::at(span, "expected a value")),
        };
        if anchor != 0 {
            // Copies that are kept for aliases take memory as the aliases themselves do.
            let nodes = self.nodes - before;
            self.count(nodes, span)?;
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
        Ok(value)
    }

    fn sequence(&mut self, start: &Span) -> Result<Value, YamlError> {
        self.descend(start)?;
        let mut items = Vec::new();
        loop {
            match self.next_within(start)? {
                (Event::SequenceEnd, _) => break,
                (event, span) => items.push(self.value(event, &span)?),
            }
        }
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    fn mapping(&mut self, start: &Span) -> Result<Value, YamlError> {
        self.descend(start)?;
        let mut object = Map::new();
        loop {
            let key = match self.next_within(start)? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(key, ..), span) => {
                    if object.contains_key(&*key) {
                        return Err(YamlError::at(&span, format!("the key `{key}` stands twice")));
                    }
                    key.into_owned()
                }
                (_, span) => return Err(YamlError::at(&span, "a key that is not a plain word")),
            };
            let (event, span) = self.next_within(start)?;
            object.insert(key, self.value(event, &span)?);
        }
        self.depth -= 1;
        Ok(Value::Object(object))
    }

    fn descend(&mut self, span: &Span) -> Result<(), YamlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(YamlError::at(span, format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(YamlError::at(span, format!("the document has more than {MAX_NODES} values")));
        }
        Ok(())
    }
}

/// A scalar without quotes: null, truth value (in all spellings of YAML 1.1, as Envoy's reader has it), number or text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return text.into();
    }
    if let Some(hexadecimal) = text.strip_prefix("0x")
        && let Ok(number) = u64::from_str_radix(hexadecimal, 16)
    {
        return number.into();
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    match text.parse::<f64>() {
        Ok(number) => Number::from_f64(number).map_or_else(|| text.into(), Value::Number),
        Err(_) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_have_the_type_that_their_spelling_says() {
        let text = "
            text: a b
            address: 127.0.0.1
            duration: 0.25s
            quoted: '1'
            tagged: !!str 1
            number: 8080
            negative: -1
            fraction: 0.5
            hexadecimal: 0x1f
            'yes': yes
            none: ~
            empty:
            block: |
              line
        ";
        let expected = json!({
            "text": "a b", "address": "127.0.0.1", "duration": "0.25s", "quoted": "1", "tagged": "1", "number": 8080,
            "negative": -1, "fraction": 0.5, "hexadecimal": 31, "yes": true, "none": null, "empty": null,
            "block": "line\n",
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(parse(r#"{"a": [1, {"b": "c"}], "d": {}}"#), Ok(json!({"a": [1, {"b": "c"}], "d": {}})));
    }

    #[test]
    fn aliases_repeat_their_anchor() {
        let text = "a: &x {name: one}\nb: *x\nc: [*x]\n";
        let one = json!({"name": "one"});
        assert_eq!(parse(text), Ok(json!({"a": one, "b": one, "c": [one]})));
    }

    #[test]
    fn errors_say_where() {
        let at = |text: &str| parse(text).map_err(|error| (error.line, error.column)).unwrap_err();
        assert_eq!(at("a: 1\na: 2\n"), (2, 1));
        assert_eq!(at("a: 1\n---\nb: 2\n"), (3, 1));
        assert_eq!(at("a:\n  - {b: 1}\n  - ? [c]\n    : 2\n"), (3, 7));
        assert_eq!(at("a: *b\n").0, 1);
        assert_eq!(at("b: 1\na: [1\n").0, 2);
    }

    #[test]
    fn aliases_cannot_blow_the_document_up() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let previous = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", "));
        }
        assert!(parse(&text).unwrap_err().message.contains("more than 1000000 values"));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(100)).is_ok());
        assert!(parse(&deep(101)).is_err());
    }
}
