//! Which values does a text hold, and where? YAML (and so JSON) of several documents, each read on its own, so that
//! one that is broken does not take the others with it.

mod build;
mod scalar;

use crate::node::Node;
use crate::position::{Lines, Position};

pub(crate) use build::MAX_DEPTH;

/// A part of a text that holds one document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    /// Byte where it starts.
    pub(crate) start: usize,
    /// Byte after its end.
    pub(crate) end: usize,
    /// Line of its start, counted from 1.
    pub(crate) first_line: u32,
}

/// Why a document cannot be read, or not be trusted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) label: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) at: Position,
    pub(crate) length: u32,
}

/// The documents of a text. Lines `---` and `...` separate documents whatever they stand in, even in quotes
/// (YAML 1.2.2, section 9.1.2), so the text can be divided before it is read. Parts without content are left out.
pub(crate) fn documents(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut current = Document { start: 0, end: 0, first_line: 1 };
    let mut has_content = false;
    let mut number = 0;
    for line in Lines::new(text) {
        number += 1;
        let plain = line.text.strip_prefix('\u{feff}').unwrap_or(line.text);
        if is_marker(plain, "---") {
            current.end = line.start;
            if has_content {
                documents.push(current);
            }
            current = Document { start: line.start, end: line.start, first_line: number };
            has_content = is_content(&plain[3..]);
        } else if is_marker(plain, "...") {
            current.end = line.start + line.text.len();
            if has_content {
                documents.push(current);
            }
            // What follows begins after the line break, with the next line.
            let start = text[current.end..].find(|c| c != '\r' && c != '\n').map_or(text.len(), |_| {
                let rest = &text[current.end..];
                current.end + if rest.starts_with("\r\n") { 2 } else { 1 }
            });
            current = Document { start, end: start, first_line: number + 1 };
            has_content = false;
        } else {
            // Directives stand before the document that they are for.
            let is_directive = plain.starts_with('%') && !has_content;
            has_content |= is_content(plain) && !is_directive;
        }
    }
    current.end = text.len();
    if has_content {
        documents.push(current);
    }
    documents
}

/// Reads one document. The problems make it useless if there is no value, and doubtful if there is one.
pub(crate) fn parse(text: &str, document: Document) -> (Option<Node>, Vec<Problem>) {
    build::build(&text[document.start..document.end], document.first_line)
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(&str, u32)> {
        documents(text).iter().map(|document| (&text[document.start..document.end], document.first_line)).collect()
    }

    #[test]
    fn a_text_is_divided_into_documents() {
        assert_eq!(parts("a: 1\n---\nb: 2\n"), [("a: 1\n", 1), ("---\nb: 2\n", 2)]);
        assert_eq!(parts("---\n---\n# nothing\n---\nb: 2"), [("---\nb: 2", 4)]);
        assert_eq!(parts("--- {a: 1}\n--- # x\n"), [("--- {a: 1}\n", 1)]);
        assert_eq!(parts("a: 1\n...\nb: 2\n"), [("a: 1\n...", 1), ("b: 2\n", 3)]);
        assert_eq!(parts("a: 1\r\n...\r\n\r\nb: 2"), [("a: 1\r\n...", 1), ("\r\nb: 2", 3)]);
        assert_eq!(parts("%YAML 1.1\n---\na: 1\n"), [("---\na: 1\n", 2)]);
        assert_eq!(parts("a: '---'\n----\n"), [("a: '---'\n----\n", 1)]);
        assert_eq!(parts(""), []);
        assert_eq!(parts("...\n...\n"), []);
    }
}
