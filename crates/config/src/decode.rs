//! How does a tree of values become a type? One declaration per type, and every problem found, not only the first.
//!
//! [`message!`] declares a structure and how it is read; `enumeration!` declares a choice of names; `oneof!` declares
//! fields of which one can be given. The rules are those of protobuf's JSON form as Istio reads it: fields in
//! camelCase or as the `.proto` spells them, null the same as absent, enums by name or number. Where Kubernetes is
//! stricter than protobuf (numbers and booleans in quotes), so is this.

mod macros;
mod scalar;
mod suggest;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, code};
use crate::node::{Entry, Node, Value};
use crate::position::{Location, Position, SourceFile};

pub(crate) use macros::{enumeration, message, oneof};
pub(crate) use scalar::Base64;
pub use scalar::IntOrString;
pub(crate) use suggest::closest;

/// A type that can be read from a value.
pub(crate) trait Decode: Sized {
    /// Reads the value. `None` when it cannot be read; the problem has then been reported.
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self>;

    /// The value of a field that is absent. `None` when the field has to be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// Fields of which one can be given, side by side with other fields.
pub(crate) trait Oneof: Sized {
    /// The fields.
    const FIELDS: &'static [Field];

    /// Reads the field that is given.
    fn decode_member(index: usize, node: &Node, cx: &mut Decoder<'_>) -> Option<Self>;
}

/// The name of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Name in `snake_case`.
    pub(crate) name: &'static str,
    /// Name in YAML, where it is not the camelCase of the other.
    pub(crate) spelling: Option<&'static str>,
}

impl Field {
    /// The name as it is usually written in YAML.
    pub(crate) fn written(&self) -> String {
        match self.spelling {
            Some(spelling) => spelling.to_owned(),
            None => camel_case(self.name),
        }
    }

    fn is(&self, key: &str) -> bool {
        self.spelling == Some(key) || same_field(key, self.name)
    }
}

/// True when a key is a field's `snake_case` name or the camelCase of it.
pub(crate) fn same_field(key: &str, field: &str) -> bool {
    let field = field.strip_prefix("r#").unwrap_or(field);
    key == field || (field.contains('_') && camel_case_letters(field).eq(key.chars()))
}

/// `http2_max_requests` as `http2MaxRequests`.
pub(crate) fn camel_case(field: &str) -> String {
    camel_case_letters(field.strip_prefix("r#").unwrap_or(field)).collect()
}

fn camel_case_letters(field: &str) -> impl Iterator<Item = char> + '_ {
    let mut raise = false;
    field.chars().filter_map(move |c| {
        if c == '_' {
            raise = true;
            return None;
        }
        let letter = if raise { c.to_ascii_uppercase() } else { c };
        raise = false;
        Some(letter)
    })
}

/// What to do about fields that a type does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    /// Report them: the whole type is described here.
    Report,
    /// Pass over them: another project owns the type, and only a part of it is of interest.
    Ignore,
}

/// Fields that are read so that files of old work, and that nobody should be led to.
const OBSOLETE: [&str; 1] = ["websocketUpgrade"];

/// Most problems of one object that are told one by one.
pub(crate) const MAX_DIAGNOSTICS: usize = 100;

/// Reads one object, and collects what is wrong with it.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    file: Option<&'a SourceFile>,
    unknown_fields: UnknownFields,
    path: String,
    diagnostics: Vec<Diagnostic>,
    untold: usize,
}

/// The values of the fields of a mapping, in the order of the declaration.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    own: Vec<Option<&'n Node>>,
    oneofs: Vec<Vec<Option<&'n Entry>>>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(file: Option<&'a SourceFile>, unknown_fields: UnknownFields) -> Self {
        Decoder { file, unknown_fields, path: String::new(), diagnostics: Vec::new(), untold: 0 }
    }

    /// Everything that was reported, up to a limit.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics;
        if self.untold > 0 {
            let message = format!("there are {} more problems in this object", self.untold);
            diagnostics.push(Diagnostic::error(code::TOO_MANY, message));
        }
        diagnostics
    }

    /// Path of the value that is being read.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Does something for the value of a field.
    pub(crate) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        push_key(&mut self.path, key);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Does something for an item of a list.
    pub(crate) fn within_item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Reports a problem at a place.
    pub(crate) fn report(&mut self, at: Position, length: u32, mut diagnostic: Diagnostic) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            self.untold += 1;
            return;
        }
        diagnostic.location = self.location(at, length);
        diagnostic.path.clone_from(&self.path);
        self.diagnostics.push(diagnostic);
    }

    /// Reports that a value is of another type than the field.
    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str) {
        let help = self.way_out(node, expected);
        self.report_wrong_type(node, expected, help);
    }

    fn report_wrong_type(&mut self, node: &Node, expected: &str, help: Option<String>) {
        let message = format!("`{}` must be {expected}", self.path);
        let mut diagnostic = Diagnostic::error(code::WRONG_TYPE, message)
            .label(format!("expected {expected}, found {}", describe(node)));
        diagnostic.help = help;
        self.report(node.at, node.length, diagnostic);
    }

    /// Reports that a field cannot hold a value of the right type.
    pub(crate) fn bad_value(&mut self, node: &Node, message: impl Into<String>, help: Option<String>) {
        let mut diagnostic = Diagnostic::error(code::BAD_VALUE, message);
        diagnostic.help = help;
        self.report(node.at, node.length, diagnostic);
    }

    /// The fields of a mapping. `None`, and a report, when it is no mapping.
    pub(crate) fn open<'n>(
        &mut self,
        node: &'n Node,
        type_name: &str,
        own: &[Field],
        oneofs: &[&[Field]],
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.no_message(node, own, oneofs);
            return None;
        };
        let mut fields = Fields {
            own: vec![None; own.len()],
            oneofs: oneofs.iter().map(|members| vec![None; members.len()]).collect(),
        };
        let mut first_spelling: BTreeMap<String, (&str, Position)> = BTreeMap::new();
        let mut sound = true;
        for entry in entries {
            let member = oneofs
                .iter()
                .enumerate()
                .find_map(|(group, members)| Some((group, members.iter().position(|field| field.is(&entry.key))?)));
            let written = if let Some(index) = own.iter().position(|field| field.is(&entry.key)) {
                fields.own[index] = Some(&entry.value);
                own[index].written()
            } else if let Some((group, index)) = member {
                fields.oneofs[group][index] = Some(entry);
                oneofs[group][index].written()
            } else {
                self.unknown_field(entry, type_name, own, oneofs);
                continue;
            };
            if let Some((key, first)) = first_spelling.get(&written) {
                // The same spelling twice has been reported where the text was read.
                sound = false;
                if *key == entry.key {
                    continue;
                }
                let message = format!("`{}` is given twice", joined(&self.path, &entry.key));
                let diagnostic = Diagnostic::error(code::DUPLICATE_KEY, message)
                    .label(format!("another spelling of `{written}`, given on line {}", first.line))
                    .help("remove one of the two");
                self.report(entry.at, entry.length, diagnostic);
            } else {
                first_spelling.insert(written, (entry.key.as_str(), entry.at));
            }
        }
        sound.then_some(fields)
    }

    /// Reads a field. `None` when it is absent and has to be there, or when it cannot be read.
    pub(crate) fn field<T: Decode>(
        &mut self,
        owner: &Node,
        fields: &Fields<'_>,
        index: usize,
        field: &Field,
        default: Option<T>,
    ) -> Option<T> {
        match fields.own.get(index).copied().flatten() {
            Some(value) if !value.is_null() => self.within(&field.written(), |cx| T::decode(value, cx)),
            _ => {
                let value = default.or_else(T::absent);
                if value.is_none() {
                    self.missing(owner, field);
                }
                value
            }
        }
    }

    /// Reads the field of a group of which one can be given. The outer `None` is a failure.
    pub(crate) fn oneof<T: Oneof>(&mut self, fields: &Fields<'_>, group: usize) -> Option<Option<T>> {
        let members = fields.oneofs.get(group).map(Vec::as_slice).unwrap_or_default();
        let given = members.iter().enumerate().filter_map(|(index, entry)| Some((index, (*entry)?)));
        let mut given = given.filter(|(_, entry)| !entry.value.is_null());
        let Some((index, entry)) = given.next() else {
            return Some(None);
        };
        if let Some((other, second)) = given.next() {
            let (earlier, later) = if entry.at <= second.at { (entry, second) } else { (second, entry) };
            let message = format!("`{}` and `{}` exclude each other", joined(&self.path, &earlier.key), later.key);
            let names: Vec<_> = T::FIELDS.iter().map(|field| format!("`{}`", field.written())).collect();
            let diagnostic = Diagnostic::error(code::EXCLUSIVE_FIELDS, message)
                .label(format!("`{}` is already given", earlier.key))
                .help(format!("give only one of {}", names.join(", ")));
            debug_assert_ne!(other, index);
            self.report(later.at, later.length, diagnostic);
            return None;
        }
        let name = T::FIELDS[index].written();
        self.within(&name, |cx| T::decode_member(index, &entry.value, cx)).map(Some)
    }

    fn missing(&mut self, owner: &Node, field: &Field) {
        let written = field.written();
        let message = format!("`{}` is missing", joined(&self.path, &written));
        let diagnostic =
            Diagnostic::error(code::MISSING_FIELD, message).label(format!("`{written}` has to be given here"));
        self.within(&written, |cx| cx.report(owner.at, owner.length, diagnostic));
    }

    /// A value where a mapping with fields has to be.
    fn no_message(&mut self, node: &Node, own: &[Field], oneofs: &[&[Field]]) {
        let names = known_fields(own, oneofs);
        let is_scalar = !matches!(node.value, Value::Seq(_) | Value::Map(_));
        match self.written(node) {
            Some(text) if is_scalar && !names.is_empty() => {
                let help = format!("give the field that `{text}` is for: {}", quoted(&names));
                self.report_wrong_type(node, "a mapping", Some(help));
            }
            _ => self.wrong_type(node, "a mapping"),
        }
    }

    fn unknown_field(&mut self, entry: &Entry, type_name: &str, own: &[Field], oneofs: &[&[Field]]) {
        if self.unknown_fields == UnknownFields::Ignore {
            return;
        }
        let names = known_fields(own, oneofs);
        let message = format!("unknown field `{}`", joined(&self.path, &entry.key));
        let known = quoted(&names);
        let help = match closest(&entry.key, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`? The fields are {known}"),
            None if names.is_empty() => "it has no fields: remove this one".to_owned(),
            None => format!("the fields are {known}"),
        };
        let diagnostic =
            Diagnostic::error(code::UNKNOWN_FIELD, message).label(format!("{type_name} has no such field")).help(help);
        self.within(&entry.key, |cx| cx.report(entry.at, entry.length, diagnostic));
    }

    fn location(&self, at: Position, length: u32) -> Option<Location> {
        self.file.and_then(|file| Location::of(file, at, length))
    }

    /// The text of a value as it is written, when it stands on one line.
    pub(crate) fn written(&self, node: &Node) -> Option<&'a str> {
        let line = self.file?.line(node.at.line)?;
        let mut boundaries = line.char_indices().map(|(index, _)| index).chain([line.len()]);
        let start = boundaries.nth(usize::try_from(node.at.column).ok()?.checked_sub(1)?)?;
        let end = boundaries.nth(usize::try_from(node.length).ok()?.checked_sub(1)?)?;
        line.get(start..end)
    }

    fn way_out(&self, node: &Node, expected: &str) -> Option<String> {
        match &node.value {
            Value::Bool(_) | Value::Int(_) | Value::Unsigned(_) | Value::Float(_) if expected.contains("string") => {
                let text = self.written(node).filter(|text| !text.contains(['"', '\\']))?;
                Some(format!("put it in quotes: \"{text}\""))
            }
            Value::String(text) if expected.contains("number") && text.trim().parse::<f64>().is_ok() => {
                Some(format!("remove the quotes: {}", text.trim()))
            }
            Value::String(text) if expected.contains("true or false") && matches!(text.as_str(), "true" | "false") => {
                Some(format!("remove the quotes: {text}"))
            }
            Value::Map(_) if expected.contains("list") => Some("begin each item with `- `".to_owned()),
            Value::Bool(_) | Value::Int(_) | Value::Unsigned(_) | Value::Float(_) | Value::String(_)
                if expected.contains("list") =>
            {
                let text = self.written(node).filter(|text| !text.starts_with(['|', '>']))?;
                Some(format!("put it in a list: [{text}]"))
            }
            Value::Seq(_) if expected.contains("mapping") => {
                Some("remove the `- `: there is only one of it".to_owned())
            }
            _ => None,
        }
    }
}

/// The fields that can be given, as they are written.
fn known_fields(own: &[Field], oneofs: &[&[Field]]) -> Vec<String> {
    let names = own.iter().chain(oneofs.iter().copied().flatten()).map(Field::written);
    names.filter(|name| !OBSOLETE.contains(&name.as_str())).collect()
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// `path.key`, with the key in brackets where it holds dots.
pub(crate) fn joined(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    push_key(&mut joined, key);
    joined
}

fn push_key(path: &mut String, key: &str) {
    if key.is_empty() || key.contains(['.', '[', ']', ' ', '"', '\n']) {
        path.push_str(&format!("[\"{key}\"]"));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// A value in words: `the number 8080`, `a list`.
pub(crate) fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Int(value) => format!("the number {value}"),
        Value::Unsigned(value) => format!("the number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::String(text) if text.is_empty() => "an empty string".to_owned(),
        Value::String(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Seq(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if node.is_null() { Some(None) } else { T::decode(node, cx).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::Seq(items) = &node.value else {
            cx.wrong_type(node, "a list");
            return None;
        };
        // All items are read, so that all problems are found; one that cannot be read spoils the list.
        let items: Vec<Option<T>> =
            items.iter().enumerate().map(|(index, item)| cx.within_item(index, |cx| T::decode(item, cx))).collect();
        items.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping");
            return None;
        };
        let entries: Vec<Option<(String, T)>> = entries
            .iter()
            .map(|entry| cx.within(&entry.key, |cx| Some((entry.key.clone(), T::decode(&entry.value, cx)?))))
            .collect();
        entries.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

impl<T: Decode> Decode for BTreeMap<u32, T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping");
            return None;
        };
        let entries: Vec<Option<(u32, T)>> = entries
            .iter()
            .map(|entry| {
                let key = entry.key.parse::<u32>().ok();
                if key.is_none() {
                    let message = format!("`{}` must be a whole number", joined(cx.path(), &entry.key));
                    let diagnostic = Diagnostic::error(code::WRONG_TYPE, message)
                        .label(format!("expected a whole number, found `{}`", entry.key));
                    cx.report(entry.at, entry.length, diagnostic);
                }
                let value = cx.within(&entry.key, |cx| T::decode(&entry.value, cx));
                Some((key?, value?))
            })
            .collect();
        entries.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

/// The position among `names` of an enum's value, given by name or number.
pub(crate) fn enumeration_index(node: &Node, names: &[(i64, &str)], cx: &mut Decoder<'_>) -> Option<usize> {
    let index = match &node.value {
        Value::String(text) => names.iter().position(|(_, name)| name == text),
        Value::Int(number) => names.iter().position(|(value, _)| value == number),
        _ => {
            cx.wrong_type(node, "a name in capital letters");
            return None;
        }
    };
    if index.is_none() {
        let text = match &node.value {
            Value::String(text) => text.clone(),
            _ => describe(node),
        };
        let known = names.iter().map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let help = match closest(&text, names.iter().map(|(_, name)| *name)) {
            Some(name) => format!("did you mean `{name}`? The values are {known}"),
            None => format!("the values are {known}"),
        };
        let message = format!("`{}` cannot be `{text}`", cx.path());
        cx.bad_value(node, message, Some(help));
    }
    index
}
