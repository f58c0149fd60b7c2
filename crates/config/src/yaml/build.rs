//! How do the events of the YAML parser become a tree? Aliases are copied, merge keys merged, all within bounds.

use std::collections::BTreeMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag};

use super::{Problem, scalar};
use crate::decode::MAX_DIAGNOSTICS;
use crate::diagnostic::code;
use crate::node::{Entry, Node, Value};
use crate::position::Position;

/// Deepest nesting of a document. The deepest objects of Istio and Kubernetes need less than half.
pub(crate) const MAX_DEPTH: usize = 100;

/// Memory, in bytes, that copies for anchors and aliases of one document may take.
const COPY_BUDGET: usize = 16 << 20;

/// Reads a text of one document that starts on a line.
pub(super) fn build(text: &str, first_line: u32) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder {
        text,
        first_line,
        stack: Vec::new(),
        root: None,
        anchors: BTreeMap::new(),
        copied: 0,
        problems: Vec::new(),
    };
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let result = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(problem) = result {
            builder.problems.push(*problem);
            return (None, builder.problems);
        }
    }
    (builder.root, builder.problems)
}

#[derive(Debug)]
struct Builder<'a> {
    text: &'a str,
    first_line: u32,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    copied: usize,
    problems: Vec<Problem>,
}

/// A list or mapping that is being read.
#[derive(Debug)]
struct Frame {
    at: Position,
    length: u32,
    anchor: usize,
    /// The bracket that opened it, if one did.
    bracket: Option<char>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, merged: Vec<Node>, key: Option<Key> },
}

#[derive(Debug)]
struct Key {
    text: String,
    at: Position,
    length: u32,
    is_merge: bool,
}

type Step = Result<(), Box<Problem>>;

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        let (at, length) = self.place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                let is_merge = is_plain && text == "<<" && tag.is_none();
                let node = Node { value: scalar_value(&text, is_plain, tag.as_deref()), at, length };
                self.finish(node, anchor, is_merge)
            }
            Event::SequenceStart(style, anchor, _) => {
                let bracket = (style == StructureStyle::Flow).then_some('[');
                let at = if bracket.is_some() { at } else { self.first_dash(at, span) };
                let content = Content::Seq(Vec::new());
                self.open(Frame { at, length, anchor, bracket, content })
            }
            Event::MappingStart(style, anchor, _) => {
                let bracket = (style == StructureStyle::Flow).then_some('{');
                let content = Content::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                self.open(Frame { at, length, anchor, bracket, content })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(problem(code::ALIAS, "an alias stands inside the value that it refers to", at, length));
                };
                if self.stack.len() + depth(node) > MAX_DEPTH {
                    return Err(too_deep(at, length));
                }
                let node = node.clone();
                self.spend(&node, at, length)?;
                self.finish(node, 0, false)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame) -> Step {
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(frame.at, frame.length));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Step {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let (value, length) = match frame.content {
            Content::Seq(items) => (Value::Seq(items), frame.length),
            Content::Map { mut entries, merged, .. } => {
                self.find_duplicates(&entries);
                merge(&mut entries, merged);
                // The first key stands for the whole mapping when it is pointed at.
                let first = entries.first().filter(|entry| entry.at == frame.at);
                let length = first.map_or(frame.length, |entry| entry.length);
                (Value::Map(entries), length)
            }
        };
        self.finish(Node { value, at: frame.at, length }, frame.anchor, false)
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, is_merge: bool) -> Step {
        if anchor != 0 {
            self.spend(&node, node.at, node.length)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            if self.root.is_none() {
                self.root = Some(node);
            }
            return Ok(());
        };
        match &mut frame.content {
            Content::Seq(items) => items.push(node),
            Content::Map { entries, merged, key: pending } => match pending.take() {
                None => {
                    let Some(text) = key_text(&node.value) else {
                        let message = "a key of a mapping has to be text";
                        return Err(problem(code::SYNTAX, message, node.at, node.length));
                    };
                    *pending = Some(Key { text, at: node.at, length: node.length, is_merge });
                }
                Some(key) if key.is_merge => {
                    let parts = match node {
                        Node { value: Value::Seq(items), .. } => items,
                        node => vec![node],
                    };
                    if let Some(odd) = parts.iter().find(|part| !matches!(part.value, Value::Map(_))) {
                        let mut problem =
                            problem(code::ALIAS, "`<<` merges mappings, and this is none", odd.at, odd.length);
                        problem.help = Some("name a mapping with an anchor, and merge it with `<<: *name`".into());
                        return Err(problem);
                    }
                    merged.extend(parts);
                }
                Some(key) => {
                    let mut value = node;
                    if value.is_null() {
                        // Nothing is written, so the key is what can be pointed at.
                        (value.at, value.length) = (key.at, key.length);
                    }
                    entries.push(Entry { key: key.text, at: key.at, length: key.length, value });
                }
            },
        }
        Ok(())
    }

    /// Takes the memory of a copy from the budget.
    fn spend(&mut self, node: &Node, at: Position, length: u32) -> Step {
        self.copied = self.copied.saturating_add(weight(node));
        if self.copied > COPY_BUDGET {
            let mut problem = problem(code::TOO_LARGE, "aliases expand to more than 16 MiB", at, length);
            problem.help = Some("write the values out, or use fewer aliases".into());
            return Err(problem);
        }
        Ok(())
    }

    fn find_duplicates(&mut self, entries: &[Entry]) {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by(|a, b| (&a.key, a.at).cmp(&(&b.key, b.at)));
        let mut first = None;
        for entry in sorted {
            match first {
                Some(earlier) if same_key(earlier, entry) => {
                    if self.problems.len() >= MAX_DIAGNOSTICS {
                        return;
                    }
                    let message = format!("`{}` is given twice", entry.key);
                    let mut problem = problem(code::DUPLICATE_KEY, &message, entry.at, entry.length);
                    problem.label = Some(format!("already given on line {}", earlier.at.line));
                    problem.help = Some("remove one of the two".into());
                    self.problems.push(*problem);
                }
                _ => first = Some(entry),
            }
        }
    }

    fn place(&self, span: Span) -> (Position, u32) {
        let at = self.position(span.start.line(), span.start.col());
        let length =
            if span.end.line() == span.start.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        (at, u32::try_from(length).unwrap_or(u32::MAX).max(1))
    }

    /// Where a list starts. One that is not indented more than its key is said to start after its first `- `.
    fn first_dash(&self, at: Position, span: Span) -> Position {
        let before = span.start.byte_offset().and_then(|offset| self.text.get(..offset)).unwrap_or_default();
        let distance = match before.trim_end_matches([' ', '\t']) {
            dash if dash.ends_with('-') && !self.text[before.len()..].starts_with('-') => before.len() - dash.len() + 1,
            _ => 0,
        };
        let column = at.column.saturating_sub(u32::try_from(distance).unwrap_or(0)).max(1);
        Position { column, ..at }
    }

    fn position(&self, line: usize, column: usize) -> Position {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Position {
            line: self.first_line.saturating_add(number(line.saturating_sub(1))),
            column: number(column.saturating_add(1)),
        }
    }

    fn syntax(&self, error: &ScanError) -> Box<Problem> {
        let marker = error.marker();
        let at = self.position(marker.line(), marker.col());
        let code = match error.kind() {
            ErrorKind::UnknownAnchor => code::ALIAS,
            ErrorKind::RecursionLimitExceeded => return too_deep(at, 1),
            _ => code::SYNTAX,
        };
        let mut problem = problem(code, &format!("this is not YAML: {}", error.info()), at, 1);
        problem.help = way_out(error.kind()).map(str::to_owned);
        // A bracket that is not closed is noticed lines later, where it is no longer seen.
        if let Some(frame) = self.stack.last()
            && let Some(bracket) = frame.bracket
            && frame.at.line < at.line
        {
            let closing = if bracket == '[' { ']' } else { '}' };
            let place = frame.at;
            problem.help = Some(format!(
                "is the `{closing}` missing for the `{bracket}` on line {}, column {}?",
                place.line, place.column
            ));
        }
        problem
    }
}

fn same_key(a: &Entry, b: &Entry) -> bool {
    a.key == b.key
}

/// Adds what a mapping merges and does not have itself. Of several, the first counts (YAML 1.1, type `merge`).
fn merge(entries: &mut Vec<Entry>, merged: Vec<Node>) {
    if merged.is_empty() {
        return;
    }
    let mut known: std::collections::BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for node in merged {
        let Value::Map(more) = node.value else {
            continue;
        };
        for entry in more {
            if known.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
}

fn scalar_value(text: &str, is_plain: bool, tag: Option<&Tag>) -> Value {
    match tag.and_then(Tag::core_suffix) {
        Some("str" | "binary" | "timestamp") => Value::String(text.to_owned()),
        Some("int" | "bool" | "null") => scalar::resolve(text),
        Some("float") => match scalar::resolve(text) {
            Value::Int(value) => Value::Float(value as f64),
            value => value,
        },
        _ if is_plain => scalar::resolve(text),
        _ => Value::String(text.to_owned()),
    }
}

/// Keys are text in JSON, so other scalars are turned into it, as `kubectl` does.
fn key_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::Seq(_) | Value::Map(_) => return None,
    })
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn weight(node: &Node) -> usize {
    let content = match &node.value {
        Value::String(text) => text.len(),
        Value::Seq(items) => items.iter().map(weight).sum(),
        Value::Map(entries) => {
            entries.iter().map(|entry| size_of::<Entry>() + entry.key.len() + weight(&entry.value)).sum()
        }
        _ => 0,
    };
    size_of::<Node>() + content
}

fn problem(code: &'static str, message: &str, at: Position, length: u32) -> Box<Problem> {
    Box::new(Problem { code, message: message.to_owned(), label: None, help: None, at, length })
}

fn too_deep(at: Position, length: u32) -> Box<Problem> {
    problem(code::TOO_LARGE, &format!("the document is nested more than {MAX_DEPTH} deep"), at, length)
}

fn way_out(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "indent with blanks: YAML does not allow tabs",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::MismatchedFlowCollectionEnd { .. } => {
            "every `[` needs its `]`, every `{` its `}`, and items are separated by commas"
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            "every quotation mark needs its second one"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            "text with `: ` in it needs quotes; otherwise check the indentation of this line"
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed => {
            "check that this line is indented like its neighbours, and that a key ends in `: `"
        }
        ErrorKind::UnexpectedCharacter { character: '@' | '`' } => "text that begins with this character needs quotes",
        ErrorKind::UnexpectedCharacter { character: '%' } => "text that begins with `%` needs quotes",
        ErrorKind::UnknownAnchor => "define it before with `&name`; text that begins with `*` needs quotes",
        ErrorKind::UnknownQuotedScalarEscape => "in double quotes a backslash is written `\\\\`",
        _ => return None,
    })
}
