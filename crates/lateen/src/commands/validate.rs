//! `lateen validate`: is the YAML right, object by object? As Istio would judge it, without a look at what else there is.

mod envoy;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use lateen_compile::Protocol;
use lateen_config::{
    Diagnostic, Location, Object, ParseOptions, ParsedDocument, Position, Service, Severity, SourceFile, Spec, Subject,
    code, drop_duplicates, mesh_of_config_map, parse_documents,
};
use lateen_control::Files;
use serde_json::{Value, json};

use crate::arguments::{FormArgument, ValidateArguments};
use crate::commands::note_no_files;
use crate::report::{self, many};

/// What the user writes for standard input, and how it is called in messages.
const STANDARD_INPUT: (&str, &str) = ("-", "<stdin>");
/// Longer input is refused, like longer files: memory stays bounded.
const MAX_INPUT_BYTES: u64 = 64 * 1024 * 1024;
/// The ConfigMap in which Istio keeps the settings of the mesh; a revision adds `-` and its name.
const MESH_CONFIG_MAP: &str = "istio";
/// Istio's `PortNameIsNotUnderNamingConvention`.
const UNDECLARED_PORT: &str = "IST0118";
/// Where Istio's own Services are.
const ISTIO_NAMESPACE: &str = "istio-system";
/// Exit code of what cannot be begun: wrong arguments, files that cannot be read.
const USAGE: u8 = 2;

/// Validates and prints. Exit code 1 when something is not valid, 2 when something cannot be read.
pub(crate) fn run(arguments: &ValidateArguments) -> anyhow::Result<ExitCode> {
    let sources = match read(arguments) {
        Ok(sources) => sources,
        Err(error) => {
            report::failure(&error);
            return Ok(ExitCode::from(USAGE));
        }
    };
    if sources.is_empty() {
        note_no_files();
    }
    let options = ParseOptions { default_namespace: arguments.namespace.as_str().into() };
    let documents = sources.iter().flat_map(|source| parse_documents(source, &options));
    let mut verdicts: Vec<Verdict> = documents.flat_map(judge).collect();
    find_twins(&mut verdicts);
    match arguments.output {
        FormArgument::Text => print_text(&verdicts, &sources)?,
        FormArgument::Json => print_json(&verdicts)?,
    }
    let is_valid = verdicts.iter().all(Verdict::is_valid);
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What there is to say of one object, or of a document that is none.
struct Verdict {
    /// What it is, as far as can be told.
    subject: Option<Subject>,
    /// The object, if it could be read.
    object: Option<Object>,
    diagnostics: Vec<Diagnostic>,
}

impl Verdict {
    fn is_valid(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

fn read(arguments: &ValidateArguments) -> anyhow::Result<Vec<Arc<SourceFile>>> {
    let (dash, named): (Vec<_>, Vec<_>) =
        arguments.files.iter().cloned().partition(|path| path == Path::new(STANDARD_INPUT.0));
    let mut sources = Vec::new();
    if !dash.is_empty() {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text);
        let length = read.context("cannot read standard input")?;
        anyhow::ensure!(length as u64 <= MAX_INPUT_BYTES, "standard input is longer than {MAX_INPUT_BYTES} bytes");
        sources.push(SourceFile::new(STANDARD_INPUT.1, text));
    }
    for path in Files::new(named).stamps()?.keys() {
        sources.push(Files::read(path)?);
    }
    Ok(sources)
}

/// One verdict for each object of a document, and one more for problems that belong to none.
fn judge(document: ParsedDocument) -> Vec<Verdict> {
    let ParsedDocument { subjects, parsed, .. } = document;
    let is_single = subjects.len() <= 1;
    let mut places: BTreeMap<Subject, usize> = BTreeMap::new();
    for (index, subject) in subjects.iter().enumerate() {
        places.entry(subject.clone()).or_insert(index);
    }
    let mut objects = parsed.objects.into_iter().peekable();
    let mut verdicts: Vec<Verdict> = subjects
        .into_iter()
        .map(|subject| {
            // Objects come in the order of the subjects; those that could not be used are missing.
            let object = objects.next_if(|object| object.subject() == subject);
            Verdict { subject: Some(subject), object, diagnostics: Vec::new() }
        })
        .collect();
    let mut others = Vec::new();
    for diagnostic in parsed.diagnostics {
        let own = diagnostic.object.as_ref().and_then(|subject| places.get(subject)).copied();
        match own.or((is_single && !verdicts.is_empty()).then_some(0)) {
            Some(index) => verdicts[index].diagnostics.push(diagnostic),
            None => others.push(diagnostic),
        }
    }
    for verdict in &mut verdicts {
        if let Some(object) = &verdict.object {
            verdict.diagnostics.extend(beyond_the_schema(object));
        }
    }
    if !others.is_empty() {
        verdicts.push(Verdict { subject: None, object: None, diagnostics: others });
    }
    verdicts
}

/// What is not asked when an object is read: settings of the mesh that are text in a ConfigMap, values that are Envoy's,
/// names that are conventions.
fn beyond_the_schema(object: &Object) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let name = &*object.metadata.name;
    let is_mesh =
        name == MESH_CONFIG_MAP || name.strip_prefix(MESH_CONFIG_MAP).is_some_and(|rest| rest.starts_with('-'));
    if is_mesh && let Some((_, problems)) = mesh_of_config_map(object) {
        diagnostics.extend(problems);
    }
    if matches!(object.spec, Spec::Opaque(_)) && object.kind.is_istio() {
        let message = format!("the content of {} is not looked at", object.kind);
        diagnostics.push(Diagnostic::warning(code::UNCHECKED, message).at(at(object, object.source.at)));
    }
    if let Spec::EnvoyFilter(filter) = &object.spec {
        let message = "an EnvoyFilter changes what is generated, which can be different in another version";
        let mut warning = Diagnostic::warning(code::QUESTIONABLE, message)
            .at(at(object, object.metadata.name_at))
            .help("look at it again after an upgrade");
        warning.path = "metadata.name".to_owned();
        diagnostics.push(warning);
        diagnostics.extend(envoy::patches(object, filter));
    }
    if let Spec::Service(service) = &object.spec {
        diagnostics.extend(undeclared_ports(object, service));
    }
    diagnostics.iter_mut().for_each(|diagnostic| diagnostic.object = Some(object.subject()));
    diagnostics
}

/// Ports of a Service that do not tell what is spoken on them, other than those of Istio's own Services.
fn undeclared_ports(object: &Object, service: &Service) -> Vec<Diagnostic> {
    if &*object.metadata.namespace == ISTIO_NAMESPACE {
        return Vec::new();
    }
    let mut diagnostics = Vec::new();
    for (index, port) in service.ports.iter().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        let transport = port.protocol.as_deref().unwrap_or_default();
        if Protocol::of_service_port(transport, name, port.app_protocol.as_deref(), port.port) == Protocol::Auto {
            let message =
                format!("port {} of the Service does not tell its protocol, which has to be guessed", port.port);
            let path = format!("spec.ports[{index}]");
            let mut warning = Diagnostic::warning(UNDECLARED_PORT, message)
                .at(at(object, port.at))
                .help("begin its name with the protocol, for example `http-web`, or give `appProtocol`");
            warning.path = path;
            diagnostics.push(warning);
        }
    }
    diagnostics
}

/// A place that is known, without a second look at the text.
fn at(object: &Object, position: Position) -> Option<Location> {
    Location::of(object.source.file.as_ref()?, position, 1)
}

/// Objects that are there twice: the second is wrong.
fn find_twins(verdicts: &mut [Verdict]) {
    let of = |object: &Object| {
        let at = object.metadata.name_at;
        Some((object.source.path()?.clone(), at.line, at.column))
    };
    let named = verdicts.iter().enumerate().filter_map(|(index, verdict)| Some((of(verdict.object.as_ref()?)?, index)));
    let places: BTreeMap<(Arc<str>, u32, u32), usize> = named.collect();
    let (_, twice) = drop_duplicates(verdicts.iter().filter_map(|verdict| verdict.object.as_ref()).collect());
    for diagnostic in twice {
        let place =
            diagnostic.location.as_ref().map(|location| (location.file.clone(), location.line, location.column));
        if let Some(index) = place.and_then(|place| places.get(&place)) {
            verdicts[*index].diagnostics.push(diagnostic);
        }
    }
}

/// Problems on standard error, as the other commands show them, and the result in one line.
fn print_text(verdicts: &[Verdict], sources: &[Arc<SourceFile>]) -> anyhow::Result<()> {
    let diagnostics: Vec<Diagnostic> = verdicts.iter().flat_map(|verdict| &verdict.diagnostics).cloned().collect();
    report::all_diagnostics(&diagnostics, |path| sources.iter().find(|source| *source.path == *path).cloned());
    let objects = verdicts.iter().filter(|verdict| verdict.subject.is_some()).count();
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning).count();
    let result = match (errors, warnings) {
        (0, 0) => "valid".to_owned(),
        (0, warnings) => format!("valid, {}", many(warnings, "warning")),
        (errors, 0) => many(errors, "error"),
        (errors, warnings) => format!("{}, {}", many(errors, "error"), many(warnings, "warning")),
    };
    print(&format!("{} in {}: {result}\n", many(objects, "object"), many(sources.len(), "file")))
}

fn print_json(verdicts: &[Verdict]) -> anyhow::Result<()> {
    let entries: Vec<Value> = verdicts.iter().map(entry).collect();
    print(&format!("{}\n", serde_json::to_string_pretty(&entries)?))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn entry(verdict: &Verdict) -> Value {
    let named = |name: fn(&Subject) -> &str| verdict.subject.as_ref().map(name).filter(|name| !name.is_empty());
    let of = |is_error: bool| -> Vec<Value> {
        let found = verdict.diagnostics.iter().filter(|diagnostic| diagnostic.is_error() == is_error);
        found.map(problem).collect()
    };
    json!({
        "kind": named(|subject| &subject.kind),
        "namespace": named(|subject| &subject.namespace),
        "name": named(|subject| &subject.name),
        "valid": verdict.is_valid(),
        "errors": of(true),
        "warnings": of(false),
    })
}

fn problem(diagnostic: &Diagnostic) -> Value {
    let location = diagnostic.location.as_ref();
    json!({
        "code": diagnostic.code,
        "message": diagnostic.message,
        "help": diagnostic.help,
        "field": (!diagnostic.path.is_empty()).then_some(&diagnostic.path),
        "file": location.map(|location| &*location.file),
        "line": location.map(|location| location.line),
        "column": location.map(|location| location.column),
    })
}
