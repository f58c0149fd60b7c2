//! What does a document say, before anybody knows what it means? A tree of values, each with its place.

use crate::position::Position;

/// A value of a document with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Value,
    /// Where it starts.
    pub(crate) at: Position,
    /// How many characters of its first line it takes, at least 1.
    pub(crate) length: u32,
}

/// A value of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    /// `null`, `~` or nothing at all.
    #[default]
    Null,
    /// True or false, in any spelling of YAML 1.1.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// A whole number above the range of [`Value::Int`].
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key, as text.
    pub(crate) key: String,
    /// Where the key starts.
    pub(crate) at: Position,
    /// How many characters the key takes, at least 1.
    pub(crate) length: u32,
    /// The value.
    pub(crate) value: Node,
}

/// A step from a value to one of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// The entry of a mapping.
    Key(&'a str),
    /// The item of a list, counted from 0.
    Index(usize),
}

impl Node {
    /// The value of an entry, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// An entry, if this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// True for `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The place of a path such as `spec.http[0].route[1].destination.host`: of the value, or of the nearest value
    /// on the way to it that exists. Field names may be written in either of their spellings.
    pub(crate) fn locate(&self, path: &str) -> (Position, u32) {
        let mut node = self;
        for step in Steps::new(path) {
            match node.step(step) {
                Some(next) => node = next,
                None => break,
            }
        }
        (node.at, node.length)
    }

    /// The value at a path, if there is one.
    pub(crate) fn find(&self, path: &str) -> Option<&Node> {
        Steps::new(path).try_fold(self, |node, step| node.step(step))
    }

    fn step(&self, step: Step<'_>) -> Option<&Node> {
        match (step, &self.value) {
            (Step::Key(key), Value::Map(entries)) => entries
                .iter()
                .find(|entry| entry.key == key)
                .or_else(|| entries.iter().find(|entry| crate::decode::same_field(&entry.key, key)))
                .or_else(|| entries.iter().find(|entry| crate::decode::same_field(key, &entry.key)))
                .map(|entry| &entry.value),
            (Step::Index(index), Value::Seq(items)) => items.get(index),
            _ => None,
        }
    }

    /// The same value as JSON, without places. Numbers that JSON cannot hold become null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Unsigned(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(text) => text.as_str().into(),
            Value::Seq(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// The value of JSON, without places. What is nested more than `depth` deep is left out.
    pub(crate) fn from_json(value: &serde_json::Value, depth: usize) -> Node {
        let value = match value {
            _ if depth == 0 => Value::Null,
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value),
                (None, Some(value)) => Value::Unsigned(value),
                (None, None) => Value::Float(number.as_f64().unwrap_or(0.0)),
            },
            serde_json::Value::String(text) => Value::String(text.clone()),
            serde_json::Value::Array(items) => {
                Value::Seq(items.iter().map(|item| Node::from_json(item, depth - 1)).collect())
            }
            serde_json::Value::Object(entries) => Value::Map(
                entries
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        at: Position::UNKNOWN,
                        length: 1,
                        value: Node::from_json(value, depth - 1),
                    })
                    .collect(),
            ),
        };
        Node { value, at: Position::UNKNOWN, length: 1 }
    }
}

/// The steps of a path such as `spec.http[0]` or `metadata.labels["a.b/c"]`.
#[derive(Clone, Debug)]
pub(crate) struct Steps<'a> {
    rest: &'a str,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(path: &'a str) -> Self {
        Steps { rest: path }
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        self.rest = self.rest.strip_prefix('.').unwrap_or(self.rest);
        if self.rest.is_empty() {
            return None;
        }
        if let Some(quoted) = self.rest.strip_prefix("[\"") {
            let (key, rest) = quoted.split_once("\"]").unwrap_or((quoted, ""));
            self.rest = rest;
            return Some(Step::Key(key));
        }
        if let Some(bracket) = self.rest.strip_prefix('[') {
            let (index, rest) = bracket.split_once(']').unwrap_or((bracket, ""));
            self.rest = rest;
            return Some(index.parse().map_or(Step::Key(index), Step::Index));
        }
        let end = self.rest.find(['.', '[']).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Step::Key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_step_by_step() {
        let steps: Vec<_> = Steps::new("spec.http[0].match[12].headers[\"x.y-z\"].exact").collect();
        assert_eq!(
            steps,
            [
                Step::Key("spec"),
                Step::Key("http"),
                Step::Index(0),
                Step::Key("match"),
                Step::Index(12),
                Step::Key("headers"),
                Step::Key("x.y-z"),
                Step::Key("exact"),
            ]
        );
    }

    #[test]
    fn odd_paths_are_read_without_a_panic() {
        for path in ["", ".", "[", "[\"", "[]", "a[", "a]", "a..b", "[x]y"] {
            assert!(Steps::new(path).count() <= 3, "{path}");
        }
    }

    #[test]
    fn json_survives_the_round_trip() {
        let json = serde_json::json!({"a": [1, -2, 18_446_744_073_709_551_615_u64, 1.5, true, null, "x"], "b": {}});
        assert_eq!(Node::from_json(&json, 10).to_json(), json);
    }
}
