//! What is wrong with a configuration, where, and what can be done? Problems as data, and their rendering as text.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::position::{Location, SourceFile};

/// The stable codes of problems that are found while text is read. Codes that begin with `IST` are those of Istio's
/// own analysis; a rule of Istio keeps its code here.
pub mod code {
    /// The text is not YAML.
    pub const SYNTAX: &str = "LTN0001";
    /// A mapping has the same key twice.
    pub const DUPLICATE_KEY: &str = "LTN0002";
    /// An alias names no anchor, or a merge key has a value that is no mapping.
    pub const ALIAS: &str = "LTN0003";
    /// A document is nested too deep, or its aliases expand to too much.
    pub const TOO_LARGE: &str = "LTN0004";
    /// An object has more problems than are told one by one.
    pub const TOO_MANY: &str = "LTN0005";
    /// A document is no object: not a mapping, or without `apiVersion` and `kind`.
    pub const NOT_AN_OBJECT: &str = "LTN0010";
    /// A kind, group or version that Lateen does not know.
    pub const UNKNOWN_KIND: &str = "LTN0011";
    /// A patch that was not loaded, because it is no object.
    pub const PATCH: &str = "LTN0012";
    /// An object without a name.
    pub const NO_NAME: &str = "LTN0013";
    /// An object that is there twice.
    pub const DUPLICATE_OBJECT: &str = "LTN0014";
    /// An object of a kind whose content is not looked at.
    pub const UNCHECKED: &str = "LTN0015";
    /// A field that the type does not have.
    pub const UNKNOWN_FIELD: &str = "LTN0020";
    /// A value of another type than the field's.
    pub const WRONG_TYPE: &str = "LTN0021";
    /// A field that must be there and is not.
    pub const MISSING_FIELD: &str = "LTN0022";
    /// A value of the right type that the field cannot hold.
    pub const BAD_VALUE: &str = "LTN0023";
    /// Two fields of which only one can be given.
    pub const EXCLUSIVE_FIELDS: &str = "LTN0024";
    /// Istio's `Deprecated`: something still works, and should be replaced.
    pub const DEPRECATED: &str = "IST0002";
    /// Istio's `SchemaValidationError`: an object that Istio refuses.
    pub const INVALID: &str = "IST0106";
    /// Istio's `VirtualServiceUnreachableRule`: a rule that can never apply.
    pub const UNREACHABLE_RULE: &str = "IST0130";
    /// Istio's `VirtualServiceIneffectiveMatch`: a condition that earlier ones have already taken.
    pub const INEFFECTIVE_MATCH: &str = "IST0131";
    /// Istio's `SchemaWarning`: an object that Istio takes with a warning.
    pub const QUESTIONABLE: &str = "IST0133";
}

/// How bad a problem is. `Error` is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong.
    Info,
    /// It works, but perhaps not as intended.
    Warning,
    /// It does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// The object that a problem is about. Displays as `VirtualService default/reviews`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Kind, for example `VirtualService`.
    pub kind: Arc<str>,
    /// Namespace; empty for kinds without one.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Stable code: `LTN` for Lateen's own, `IST` where Istio's analysis has one.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, naming the thing.
    pub message: String,
    /// Where it is written.
    pub location: Option<Location>,
    /// A few words for the place itself.
    pub label: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// The object that it is about.
    pub object: Option<Subject>,
    /// Path of the field in the object, for example `spec.http[0].timeout`; empty when it is about the whole.
    pub path: String,
}

impl Diagnostic {
    /// A problem of which nothing but the message is known.
    pub fn new(code: &'static str, severity: Severity, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity,
            message: message.into(),
            location: None,
            label: None,
            help: None,
            object: None,
            path: String::new(),
        }
    }

    /// An error.
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Error, message)
    }

    /// A warning.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Warning, message)
    }

    /// The same with its place.
    pub fn at(mut self, location: Option<Location>) -> Diagnostic {
        self.location = location;
        self
    }

    /// The same with a few words for the place itself.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    /// The same with the way out.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// The same about an object.
    pub fn about(mut self, object: Subject) -> Diagnostic {
        self.object = Some(object);
        self
    }

    /// True for errors.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The problem as text of several lines, without colours. With the file, the line is quoted and the place in it
    /// underlined:
    ///
    /// ```text
    /// error[LTN0020]: unknown field `spec.host`
    ///   --> shop/routes.yaml:6:3
    ///    |
    ///  6 |   host: reviews
    ///    |   ^^^^ VirtualService has no such field
    ///    = help: did you mean `hosts`?
    /// ```
    pub fn render(&self, file: Option<&SourceFile>) -> String {
        let mut text = format!("{}[{}]: {}\n", self.severity, self.code, self.message);
        let number = self.location.as_ref().map(|location| location.line.to_string()).unwrap_or_default();
        let gutter = " ".repeat(number.len());
        if let Some(location) = &self.location {
            let _ = writeln!(text, "{gutter}--> {location}");
            let quoted = file.filter(|file| file.path == location.file).and_then(|file| file.line(location.line));
            if let Some(line) = quoted {
                let (line, indent, carets) = underline(line, location);
                let label = self.label.as_deref().map(|label| format!(" {label}")).unwrap_or_default();
                let _ = writeln!(text, "{gutter} |\n{number} | {line}\n{gutter} | {indent}{carets}{label}");
            }
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{gutter} = help: {help}");
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)
    }
}

/// Renders problems one below the other, each with its line quoted if its file is among `files`.
pub fn render(diagnostics: &[Diagnostic], files: &[Arc<SourceFile>]) -> String {
    let rendered: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            let path = diagnostic.location.as_ref().map(|location| &location.file);
            let file = path.and_then(|path| files.iter().find(|file| file.path == *path));
            diagnostic.render(file.map(|file| &**file))
        })
        .collect();
    rendered.join("\n")
}

/// Longest part of a line that is quoted, in characters.
const QUOTED_WIDTH: usize = 160;

/// The line as it can be shown, with the blanks before the carets and the carets. Of very long lines only the part
/// round the place is kept; control characters become blanks, so that a terminal shows them as one column.
fn underline(line: &str, location: &Location) -> (String, String, String) {
    let start = location.column.saturating_sub(1) as usize;
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = start.min(characters.len());
    let skipped = if characters.len() > QUOTED_WIDTH { start.saturating_sub(QUOTED_WIDTH / 4) } else { 0 };
    let shown: String = characters.iter().skip(skipped).take(QUOTED_WIDTH).collect();
    let room = (characters.len() - start).clamp(1, QUOTED_WIDTH);
    let carets = (location.length.max(1) as usize).min(room);
    (shown.trim_end().to_owned(), " ".repeat(start - skipped), "^".repeat(carets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(line: u32, column: u32, length: u32) -> Option<Location> {
        Some(Location { file: "shop/routes.yaml".into(), line, column, length })
    }

    #[test]
    fn a_problem_is_rendered_with_its_line() {
        let text = format!("{}        host: reviws\n", "\n".repeat(13));
        let file = SourceFile::new("shop/routes.yaml", text);
        let rendered = Diagnostic::error("IST0101", "host `reviws` is not a known service")
            .at(location(14, 15, 6))
            .label("no Service or ServiceEntry has this host")
            .help("did you mean `reviews`?")
            .render(Some(&file));
        let expected = "\
error[IST0101]: host `reviws` is not a known service
  --> shop/routes.yaml:14:15
   |
14 |         host: reviws
   |               ^^^^^^ no Service or ServiceEntry has this host
   = help: did you mean `reviews`?
";
        assert_eq!(rendered, expected);
    }

    #[test]
    fn without_the_file_only_the_place_is_named() {
        let rendered = Diagnostic::warning("LTN0011", "unknown").at(location(3, 1, 4)).render(None);
        assert_eq!(rendered, "warning[LTN0011]: unknown\n --> shop/routes.yaml:3:1\n");
    }

    #[test]
    fn long_lines_are_cut_round_the_place() {
        let file = SourceFile::new("shop/routes.yaml", format!("{}bad{}", "x".repeat(500), "y".repeat(500)));
        let rendered = Diagnostic::error("LTN0001", "bad").at(location(1, 501, 3)).render(Some(&file));
        let lines: Vec<_> = rendered.lines().collect();
        assert!(lines[3].chars().count() < 200, "{rendered}");
        let column = lines[4].find('^').expect("carets");
        assert_eq!(&lines[3][column..column + 3], "bad");
        assert_eq!(lines[4].matches('^').count(), 3);
    }

    #[test]
    fn a_place_beyond_the_line_is_rendered_all_the_same() {
        let file = SourceFile::new("shop/routes.yaml", "a: [\n");
        let rendered = Diagnostic::error("LTN0001", "bad").at(location(1, 99, 99)).render(Some(&file));
        assert!(rendered.ends_with("1 | a: [\n  |     ^\n"), "{rendered}");
    }
}
