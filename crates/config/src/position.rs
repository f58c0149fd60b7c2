//! Where does something stand in a file? Lines and columns as an editor counts them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// A file that was read, whole. Objects keep it, so that a place in it can be found again later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// Path as it is to be shown.
    pub path: Arc<str>,
    /// Everything in the file.
    pub text: Arc<str>,
    starts: LineStarts,
}

/// Bytes at which the lines of a text start, found when a line is asked for. It says nothing that the text does not, so
/// all are equal.
#[derive(Clone, Default)]
struct LineStarts(OnceLock<Box<[usize]>>);

impl fmt::Debug for LineStarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl PartialEq for LineStarts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LineStarts {}

impl Hash for LineStarts {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl SourceFile {
    /// A file of which the text is known.
    pub fn new(path: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Arc<SourceFile> {
        Arc::new(SourceFile { path: path.into(), text: text.into(), starts: LineStarts::default() })
    }

    /// The text of a line, counted from 1, without its line break.
    pub fn line(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let starts = self.starts.0.get_or_init(|| Lines::new(&self.text).map(|line| line.start).collect());
        Lines::new(self.text.get(*starts.get(index)?..)?).next().map(|line| line.text)
    }
}

/// A place in a text: both counted from 1, columns in characters. Zero means that the place is not known, because
/// the object did not come from a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, the first is 1.
    pub line: u32,
    /// Column in characters, the first is 1.
    pub column: u32,
}

impl Position {
    /// A place that is not known.
    pub const UNKNOWN: Position = Position { line: 0, column: 0 };

    /// True when the place is in a text.
    pub fn is_known(self) -> bool {
        self.line != 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A stretch of one line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Path as it is to be shown.
    pub file: Arc<str>,
    /// Line, the first is 1.
    pub line: u32,
    /// Column in characters, the first is 1.
    pub column: u32,
    /// Number of characters, at least 1.
    pub length: u32,
}

impl Location {
    /// A stretch of a file. `None` when the place is not known.
    pub fn of(file: &SourceFile, at: Position, length: u32) -> Option<Location> {
        at.is_known().then(|| Location {
            file: file.path.clone(),
            line: at.line,
            column: at.column,
            length: length.max(1),
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One line of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Byte where it starts.
    pub(crate) start: usize,
    /// The line without its break.
    pub(crate) text: &'a str,
}

/// The lines of a text. YAML breaks lines at LF, CR LF and a lone CR (YAML 1.2.2, section 5.4).
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    start: usize,
    done: bool,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Lines { text, start: 0, done: false }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.done {
            return None;
        }
        let start = self.start;
        let rest = &self.text[start..];
        let text = match rest.find(['\n', '\r']) {
            Some(end) => {
                let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
                self.start = start + end + width;
                &rest[..end]
            }
            None => {
                self.done = true;
                rest
            }
        };
        Some(Line { start, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_all_three_line_breaks() {
        let lines: Vec<_> = Lines::new("a\nb\r\nc\rd").map(|line| (line.start, line.text)).collect();
        assert_eq!(lines, [(0, "a"), (2, "b"), (5, "c"), (7, "d")]);
    }

    #[test]
    fn a_line_is_found_by_its_number() {
        let file = SourceFile::new("a.yaml", "one\ntwo\n");
        assert_eq!(file.line(2), Some("two"));
        assert_eq!(file.line(3), Some(""));
        assert_eq!(file.line(4), None);
        assert_eq!(file.line(0), None);
    }
}
