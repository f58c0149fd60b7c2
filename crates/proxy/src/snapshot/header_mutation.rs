//! Which headers does a level of the configuration (weighted cluster, route, virtual host, route configuration) remove
//! and add?
//!
//! One level does first all removals, then all overwriting, then all appending; every value is formatted, and every
//! "if it exists" is decided, between the removals and the rest.

use std::ops::Range;

use lateen_xds::envoy::config::core::v3 as core_v3;

use super::Invalid;
use super::format::{Empty, Format, FormatContext};
use super::matcher::header_name;
use crate::http::head::{Head, HeaderName};
use crate::http::stream_info::StreamInfo;

/// The removals and additions of one level, for requests or for responses.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    remove: Vec<HeaderName>,
    /// Overwriting ones before appending ones.
    add: Vec<Addition>,
    /// All values are constant and no addition depends on what is there.
    unconditional: bool,
}

#[derive(Debug)]
struct Addition {
    name: HeaderName,
    value: Value,
    action: AppendAction,
    keep_empty: bool,
}

#[derive(Debug)]
enum Value {
    Constant(Box<[u8]>),
    Formatted(Format),
}

/// Envoy's `HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

impl AppendAction {
    fn overwrites(self) -> bool {
        matches!(self, Self::OverwriteIfExistsOrAdd | Self::OverwriteIfExists)
    }

    fn is_unconditional(self) -> bool {
        matches!(self, Self::AppendIfExistsOrAdd | Self::OverwriteIfExistsOrAdd)
    }
}

impl HeaderMutations {
    /// Reads the lists of one level. `field` is the beginning of their names: `request_headers` or `response_headers`.
    ///
    /// # Errors
    /// A text that is no header name, a pseudo header or `host`, a value that is no format.
    pub fn build(to_add: &[core_v3::HeaderValueOption], to_remove: &[String], field: &str) -> Result<Self, Invalid> {
        let remove = to_remove
            .iter()
            .enumerate()
            .map(|(index, text)| changeable(text, &format!("{field}_to_remove[{index}]")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut add = to_add
            .iter()
            .enumerate()
            .map(|(index, option)| {
                Addition::build(option).map_err(|invalid| invalid.under(&format!("{field}_to_add[{index}]")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        // The sort is stable, so that both groups keep their order.
        add.sort_by_key(|addition| !addition.action.overwrites());
        let unconditional = add
            .iter()
            .all(|addition| matches!(addition.value, Value::Constant(_)) && addition.action.is_unconditional());
        Ok(Self { remove, add, unconditional })
    }

    /// Whether this level changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes a request, whose own headers the values may quote. `scratch` is space for the values.
    pub fn apply_to_request(&self, request: &mut Head, stream: &StreamInfo<'_>, scratch: &mut Vec<u8>) {
        self.apply(request, scratch, |format, head, out| {
            format.render(
                &FormatContext { request: head, response: None, stream, local_reply: b"" },
                Empty::Blank,
                out,
            );
        });
    }

    /// Changes a response; the values may quote it and the request. `scratch` is space for the values.
    pub fn apply_to_response(
        &self,
        request: &Head,
        response: &mut Head,
        stream: &StreamInfo<'_>,
        scratch: &mut Vec<u8>,
    ) {
        self.apply(response, scratch, |format, head, out| {
            format.render(
                &FormatContext { request, response: Some(head), stream, local_reply: b"" },
                Empty::Blank,
                out,
            );
        });
    }

    fn apply(&self, head: &mut Head, scratch: &mut Vec<u8>, render: impl Fn(&Format, &Head, &mut Vec<u8>)) {
        for name in &self.remove {
            head.remove(name);
        }
        if self.add.is_empty() {
            return;
        }
        if self.unconditional {
            for addition in &self.add {
                if let Value::Constant(value) = &addition.value {
                    addition.put(head, value);
                }
            }
            return;
        }
        scratch.clear();
        let mut ranges: Ranges = Ranges::new(self.add.len());
        for (index, addition) in self.add.iter().enumerate() {
            let start = scratch.len();
            match &addition.value {
                Value::Constant(value) => scratch.extend_from_slice(value),
                Value::Formatted(format) => render(format, head, scratch),
            }
            if addition.is_due(head, &scratch[start..]) {
                ranges.set(index, start..scratch.len());
            }
        }
        for (index, addition) in self.add.iter().enumerate() {
            if let Some(range) = ranges.get(index) {
                addition.put(head, &scratch[range]);
            }
        }
    }
}

impl Addition {
    fn build(option: &core_v3::HeaderValueOption) -> Result<Self, Invalid> {
        let Some(header) = &option.header else {
            return Err(Invalid::at("header", "a header is required".into()));
        };
        let name = changeable(&header.key, "header.key")?;
        let raw;
        let text = if header.value.is_empty() {
            raw = str::from_utf8(&header.raw_value)
                .map_err(|_| Invalid::at("header.raw_value", "only UTF-8 values are supported".into()))?;
            raw
        } else {
            &header.value
        };
        let format = Format::parse(text).map_err(|error| Invalid::at("header.value", error.to_string()))?;
        let value = match format.constant() {
            Some(constant) => Value::Constant(constant.into()),
            None => Value::Formatted(format),
        };
        let action = action(option)?;
        let keep_empty = option.keep_empty_value;
        Ok(Self { name, value, action, keep_empty })
    }

    fn is_due(&self, head: &Head, value: &[u8]) -> bool {
        if value.is_empty() && !self.keep_empty {
            return false;
        }
        match self.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
            AppendAction::AddIfAbsent => !head.has(&self.name),
            AppendAction::OverwriteIfExists => head.has(&self.name),
        }
    }

    fn put(&self, head: &mut Head, value: &[u8]) {
        if value.is_empty() && !self.keep_empty {
            return;
        }
        if self.action.overwrites() {
            head.set(&self.name, value);
        } else {
            head.append_joined(&self.name, value);
        }
    }
}

/// Where the value of each addition lies in the scratch; without an allocation for as many as a level normally has.
struct Ranges {
    few: [Option<(usize, usize)>; 12],
    many: Vec<Option<(usize, usize)>>,
}

impl Ranges {
    fn new(count: usize) -> Self {
        let few = [None; 12];
        let many = if count > few.len() { vec![None; count] } else { Vec::new() };
        Self { few, many }
    }

    fn slots(&mut self) -> &mut [Option<(usize, usize)>] {
        if self.many.is_empty() { &mut self.few } else { &mut self.many }
    }

    fn set(&mut self, index: usize, range: Range<usize>) {
        self.slots()[index] = Some((range.start, range.end));
    }

    fn get(&mut self, index: usize) -> Option<Range<usize>> {
        self.slots()[index].map(|(start, end)| start..end)
    }
}

fn changeable(text: &str, path: &str) -> Result<HeaderName, Invalid> {
    if text.starts_with(':') || text.eq_ignore_ascii_case("host") {
        let message = format!("`{text}`: pseudo headers and host are changed by rewrites only");
        return Err(Invalid::at(path, message));
    }
    header_name(text, path)
}

fn action(option: &core_v3::HeaderValueOption) -> Result<AppendAction, Invalid> {
    use core_v3::header_value_option::HeaderAppendAction as Action;
    let append = option.append;
    let action = Action::try_from(option.append_action)
        .map_err(|_| Invalid::at("append_action", format!("{} is no append action", option.append_action)))?;
    match (append, action) {
        (None, Action::AppendIfExistsOrAdd) | (Some(true), Action::AppendIfExistsOrAdd) => {
            Ok(AppendAction::AppendIfExistsOrAdd)
        }
        (Some(false), Action::AppendIfExistsOrAdd) => Ok(AppendAction::OverwriteIfExistsOrAdd),
        (Some(_), _) => Err(Invalid::at("append", "append and append_action exclude each other".into())),
        (None, Action::AddIfAbsent) => Ok(AppendAction::AddIfAbsent),
        (None, Action::OverwriteIfExistsOrAdd) => Ok(AppendAction::OverwriteIfExistsOrAdd),
        (None, Action::OverwriteIfExists) => Ok(AppendAction::OverwriteIfExists),
    }
}

#[cfg(test)]
mod tests;
