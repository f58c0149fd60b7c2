//! How are problems and events shown to a person? On standard error, answers on standard output, with colours on a
//! terminal only.

use std::io::Write as _;
use std::sync::Arc;

use lateen_config::{Diagnostic, Severity, SourceFile};
use lateen_proxy::{Limitation, Rejection};

pub(crate) const RED: &str = "\x1b[1;31m";
pub(crate) const YELLOW: &str = "\x1b[1;33m";
pub(crate) const BLUE: &str = "\x1b[1;34m";
pub(crate) const GREEN: &str = "\x1b[1;32m";
pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RESET: &str = "\x1b[0m";

/// Prints a text with colour codes; they are stripped when nobody could see them.
fn print(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// Prints an answer on standard output, where colour codes are stripped in the same way.
pub(crate) fn answer(text: &str) -> std::io::Result<()> {
    anstream::stdout().write_all(text.as_bytes())
}

/// Why the program ends.
pub(crate) fn failure(error: &anyhow::Error) {
    print(&format!("{RED}error{RESET}: {error:#}\n"));
}

/// A plain line.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// A line about something that went well.
pub(crate) fn good(text: &str) {
    print(&format!("{GREEN}✓{RESET} {text}\n"));
}

/// A line about something that needs attention.
pub(crate) fn attention(text: &str) {
    print(&format!("{YELLOW}!{RESET} {text}\n"));
}

/// A line of less weight.
pub(crate) fn aside(text: &str) {
    print(&format!("{DIM}{text}{RESET}\n"));
}

/// Problems in full, each with its line of the file; the most severe last, next to the prompt. Infos are left out.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic], file: impl Fn(&str) -> Option<Arc<SourceFile>>) {
    render(diagnostics.iter().filter(|diagnostic| diagnostic.severity > Severity::Info).collect(), file);
}

/// The same with the infos.
pub(crate) fn all_diagnostics(diagnostics: &[Diagnostic], file: impl Fn(&str) -> Option<Arc<SourceFile>>) {
    render(diagnostics.iter().collect(), file);
}

fn render(mut shown: Vec<&Diagnostic>, file: impl Fn(&str) -> Option<Arc<SourceFile>>) {
    shown.sort_by_key(|diagnostic| diagnostic.severity);
    for diagnostic in shown {
        let source = diagnostic.location.as_ref().and_then(|location| file(&location.file));
        let text = diagnostic.render(source.as_deref());
        print(&coloured(&text, diagnostic.severity));
        print("\n");
    }
}

/// The head of a rendered diagnostic in the colour of its severity, the frame round the quoted line in blue.
fn coloured(text: &str, severity: Severity) -> String {
    let colour = match severity {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
        Severity::Info => BLUE,
    };
    let mut out = String::with_capacity(text.len() + 64);
    for (index, line) in text.lines().enumerate() {
        if index == 0 {
            match line.split_once(':') {
                Some((head, rest)) => out.push_str(&format!("{colour}{head}{RESET}:{BOLD}{rest}{RESET}\n")),
                None => out.push_str(&format!("{colour}{line}{RESET}\n")),
            }
        } else if line.trim_start().starts_with('|') && line.contains('^') {
            let (frame, rest) = line.split_once('|').unwrap_or(("", line));
            out.push_str(&format!("{BLUE}{frame}|{RESET}{colour}{rest}{RESET}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Resources that the data plane refused.
pub(crate) fn rejections(rejections: &[Rejection]) {
    for rejection in rejections {
        let mut text =
            format!("{RED}error{RESET}: {BOLD}{} `{}`{RESET}: {}\n", rejection.kind, rejection.name, rejection.invalid);
        if let Some(origin) = &rejection.origin {
            text.push_str(&format!("   {BLUE}={RESET} from {origin}\n"));
        }
        if rejection.invalid.message.starts_with("cannot bind") {
            text.push_str(&format!("   {BLUE}={RESET} help: move ports with --port-offset (the HTTP proxy's with --http-proxy-port), or let the system choose with --bind 127.0.0.1:0\n"));
        } else {
            text.push_str(&format!("   {BLUE}={RESET} note: its last good form stays in use, if there was one\n"));
        }
        print(&text);
        print("\n");
    }
}

/// What the data plane was asked for and does not do.
pub(crate) fn limitations(limitations: &[Limitation]) {
    for limitation in limitations {
        print(&format!("{YELLOW}warning{RESET}: {limitation}\n"));
    }
}

/// How many problems of which kind, for a closing line: `2 errors, 1 warning`.
pub(crate) fn count(diagnostics: &[Diagnostic], rejections: usize, limitations: usize) -> String {
    let of = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let errors = of(Severity::Error) + rejections;
    let warnings = of(Severity::Warning) + limitations;
    match (errors, warnings) {
        (0, 0) => "no problems".to_owned(),
        (0, warnings) => many(warnings, "warning"),
        (errors, 0) => many(errors, "error"),
        (errors, warnings) => format!("{}, {}", many(errors, "error"), many(warnings, "warning")),
    }
}

/// A count with its noun: `1 file`, `2 files`.
pub(crate) fn many(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
