//! Which objects does a text hold, or several files together? Documents become objects, lists are unfolded, and what
//! is there twice is found.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::{Decode, Decoder, Field, UnknownFields, closest};
use crate::diagnostic::{Diagnostic, Severity, Subject, code};
use crate::kind::{Kind, split_api_version};
use crate::metadata::Metadata;
use crate::node::{Node, Value};
use crate::object::{Object, Opaque, Source, Spec};
use crate::position::{Location, Position, SourceFile};
use crate::yaml::{self, Document};

/// The group of the Gateway API, which shares some of its names with Istio.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// How text is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Namespace of objects that name none.
    pub default_namespace: Arc<str>,
}

impl Default for ParseOptions {
    fn default() -> Self {
        ParseOptions { default_namespace: "default".into() }
    }
}

/// What was read, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects that can be used, in the order of the text.
    pub objects: Vec<Object>,
    /// The problems, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// True when there is an error among the problems.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// One document of a text, on its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedDocument {
    /// Line that it begins on.
    pub line: u32,
    /// What it says it is: one object, or several in a list, also those that cannot be used or are of kinds that Lateen
    /// does not know. Empty when not even that can be told.
    pub subjects: Vec<Subject>,
    /// What was read. Problems that are not about a single object name none.
    pub parsed: Parsed,
}

/// Reads a file document by document. Documents without content are left out.
pub fn parse_documents(file: &Arc<SourceFile>, options: &ParseOptions) -> Vec<ParsedDocument> {
    let mut documents = Vec::new();
    for document in yaml::documents(&file.text) {
        let mut reader = Reader::new(Some(file), options);
        reader.document = document;
        let Some(at) = reader.read_document() else {
            continue;
        };
        documents.push(ParsedDocument { line: at.line, subjects: reader.subjects, parsed: reader.parsed });
    }
    documents
}

/// Reads all objects of a file, without a look at other files. Documents that cannot be used are reported and left
/// out; the others are not affected.
pub fn parse(file: &Arc<SourceFile>) -> Parsed {
    parse_with(file, &ParseOptions::default())
}

/// [`parse`] with options.
pub fn parse_with(file: &Arc<SourceFile>, options: &ParseOptions) -> Parsed {
    let mut reader = Reader::new(Some(file), options);
    for document in yaml::documents(&file.text) {
        reader.document = document;
        let _ = reader.read_document();
    }
    reader.parsed
}

/// Reads all objects of some files. An object that is there twice is reported at its second place; the first stays.
pub fn load(files: &[Arc<SourceFile>]) -> Parsed {
    load_with(files, &ParseOptions::default())
}

/// [`load`] with options.
pub fn load_with(files: &[Arc<SourceFile>], options: &ParseOptions) -> Parsed {
    let mut all = Parsed::default();
    for file in files {
        let parsed = parse_with(file, options);
        all.objects.extend(parsed.objects);
        all.diagnostics.extend(parsed.diagnostics);
    }
    let (objects, twice) = drop_duplicates(all.objects);
    all.objects = objects;
    all.diagnostics.extend(twice);
    all
}

/// Reads an object, or a list of objects, that did not come from text.
pub fn parse_json(value: &serde_json::Value, options: &ParseOptions) -> Parsed {
    let mut reader = Reader::new(None, options);
    reader.read_node(&Node::from_json(value, yaml::MAX_DEPTH), None, &mut Vec::new());
    reader.parsed
}

/// Keeps the first of objects with the same kind, namespace and name, whatever their versions. The others are reported.
pub fn drop_duplicates<O: Borrow<Object>>(objects: Vec<O>) -> (Vec<O>, Vec<Diagnostic>) {
    let mut first: BTreeMap<(Kind, Arc<str>, Arc<str>), usize> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    let mut kept: Vec<O> = Vec::with_capacity(objects.len());
    for candidate in objects {
        let object = candidate.borrow();
        let key = (object.kind, object.metadata.namespace.clone(), object.metadata.name.clone());
        match first.get(&key) {
            None => {
                first.insert(key, kept.len());
                kept.push(candidate);
            }
            Some(earlier) => {
                diagnostics.push(duplicate(object, kept[*earlier].borrow()));
            }
        }
    }
    (kept, diagnostics)
}

fn duplicate(object: &Object, earlier: &Object) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(code::DUPLICATE_OBJECT, format!("{object} is there twice"))
        .at(name_location(object))
        .about(object.subject());
    diagnostic.path = "metadata.name".to_owned();
    diagnostic.label = name_location(earlier).map(|earlier| format!("already defined at {earlier}"));
    diagnostic.help = Some("remove one of the two, or give it another name; the first is used".to_owned());
    diagnostic
}

fn name_location(object: &Object) -> Option<Location> {
    let length = u32::try_from(object.metadata.name.chars().count()).unwrap_or(u32::MAX);
    Location::of(object.source.file.as_ref()?, object.metadata.name_at, length)
}

/// Reads the documents of one text.
#[derive(Debug)]
struct Reader<'a> {
    file: Option<&'a Arc<SourceFile>>,
    options: &'a ParseOptions,
    document: Document,
    parsed: Parsed,
    subjects: Vec<Subject>,
}

/// Kind and version that the items of a list have when they name none.
#[derive(Clone, Copy, Debug)]
struct ListOf<'a> {
    api_version: &'a str,
    kind: &'a str,
}

impl<'a> Reader<'a> {
    fn new(file: Option<&'a Arc<SourceFile>>, options: &'a ParseOptions) -> Self {
        Reader { file, options, document: Document::default(), parsed: Parsed::default(), subjects: Vec::new() }
    }

    /// Where the content begins; `None` when there is none.
    fn read_document(&mut self) -> Option<Position> {
        let file = self.file?;
        let (root, problems) = yaml::parse(&file.text, self.document);
        let first_problem = problems.first().map(|problem| problem.at);
        let doubtful = first_problem.is_some();
        self.parsed.diagnostics.extend(problems.into_iter().map(|problem| diagnostic_of(file, problem)));
        let Some(root) = root.filter(|root| !root.is_null()) else {
            return first_problem;
        };
        let before = self.parsed.objects.len();
        self.read_node(&root, None, &mut Vec::new());
        if doubtful {
            // Which of two values was meant is anybody's guess.
            self.parsed.objects.truncate(before);
        }
        Some(root.at)
    }

    fn read_node(&mut self, root: &Node, list: Option<ListOf<'_>>, items: &mut Vec<usize>) {
        if !matches!(root.value, Value::Map(_)) {
            let message = "an object has to be a mapping";
            let diagnostic = Diagnostic::error(code::NOT_AN_OBJECT, message)
                .label(format!("found {}", crate::decode::describe(root)))
                .help("an object begins with `apiVersion:` and `kind:`");
            self.report(root, diagnostic);
            return;
        }
        let Some((api_version, kind)) = self.type_of(root, list) else {
            return;
        };
        if let Some(item_kind) = kind.strip_suffix("List")
            && (item_kind.is_empty() || root.get("items").is_some())
        {
            let inherited = ListOf { api_version: &api_version, kind: item_kind };
            self.read_list(root, (!item_kind.is_empty()).then_some(inherited), items);
            return;
        }
        match self.known_kind(root, &api_version, &kind) {
            Some(kind) => self.read_object(root, kind, api_version, items),
            None => self.subjects.push(written_subject(root, &kind)),
        }
    }

    fn read_list(&mut self, root: &Node, inherited: Option<ListOf<'_>>, items: &mut Vec<usize>) {
        match root.get("items").map(|node| (node, &node.value)) {
            None | Some((_, Value::Null)) => {}
            Some((_, Value::Seq(children))) => {
                for (index, child) in children.iter().enumerate() {
                    items.push(index);
                    self.read_node(child, inherited, items);
                    items.pop();
                }
            }
            Some((node, _)) => {
                let diagnostic = Diagnostic::error(code::WRONG_TYPE, "`items` must be a list")
                    .label(format!("expected a list, found {}", crate::decode::describe(node)));
                self.report(node, diagnostic);
            }
        }
    }

    /// `apiVersion` and `kind`.
    fn type_of(&mut self, root: &Node, list: Option<ListOf<'_>>) -> Option<(String, String)> {
        let text = |key: &str| root.get(key).filter(|node| !node.is_null());
        match (text("apiVersion"), text("kind"), list) {
            (None, None, Some(list)) => Some((list.api_version.to_owned(), list.kind.to_owned())),
            (Some(api_version), Some(kind), _) => {
                let mut cx = Decoder::new(self.file.map(|file| &**file), UnknownFields::Report);
                let api_version = cx.within("apiVersion", |cx| String::decode(api_version, cx));
                let kind = cx.within("kind", |cx| String::decode(kind, cx));
                self.parsed.diagnostics.extend(cx.into_diagnostics());
                Some((api_version?, kind?))
            }
            (api_version, kind, _) => {
                self.report_untyped(root, api_version.is_some(), kind);
                None
            }
        }
    }

    fn report_untyped(&mut self, root: &Node, has_api_version: bool, kind: Option<&Node>) {
        let path = self.file.map(|file| &*file.path).unwrap_or_default();
        let is_patch = [".patch.yaml", ".patch.yml", ".patch.json"].iter().any(|end| path.ends_with(end));
        if is_patch && !has_api_version && kind.is_none() {
            let diagnostic = Diagnostic::new(
                code::PATCH,
                Severity::Info,
                format!("`{path}` is a patch, not an object, and was not loaded"),
            )
            .help("apply it to an object with `kubectl patch --patch-file`");
            self.report(root, diagnostic);
            return;
        }
        let (missing, help) = match (has_api_version, kind.and_then(Node::as_str)) {
            (false, Some(kind)) => {
                let known = Kind::all().find(|known| known.as_str() == kind);
                ("apiVersion", known.map(|known| format!("add `apiVersion: {}`", known.api_version())))
            }
            (true, _) => ("kind", None),
            (false, None) => ("apiVersion and kind", None),
        };
        let help = help.unwrap_or_else(|| {
            "an object begins with `apiVersion:` and `kind:`; a file with a patch is named `*.patch.yaml`".to_owned()
        });
        let message = format!("this is not an object: it has no {missing}");
        self.report(root, Diagnostic::error(code::NOT_AN_OBJECT, message).help(help));
    }

    /// The kind of an object, if Lateen knows it in this version.
    fn known_kind(&mut self, root: &Node, api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = split_api_version(api_version);
        let (at, message, help) = match Kind::find(group, kind) {
            Some(known) if known.versions().contains(&version) => return Some(known),
            Some(known) => (
                "apiVersion",
                format!("Lateen does not know version {version} of {kind}"),
                Some(format!("write `apiVersion: {}`", known.api_version())),
            ),
            None => {
                let group_name = if group.is_empty() { "the core group" } else { &format!("group {group}") };
                let message = format!("Lateen does not know kind {kind} in {group_name}");
                let elsewhere = Kind::all().find(|known| known.as_str() == kind);
                let similar = || {
                    let names = Kind::all().filter(|known| known.group() == group).map(Kind::as_str);
                    closest(kind, names).map(|name| format!("did you mean `{name}`?"))
                };
                // The Gateway of the Gateway API and others share their names with kinds of Istio on purpose.
                let is_foreign = group.ends_with(".k8s.io");
                let help = match elsewhere {
                    Some(known) if !is_foreign => Some(format!("write `apiVersion: {}`", known.api_version())),
                    _ => similar(),
                };
                let place = if elsewhere.is_some() && !is_foreign { "apiVersion" } else { "kind" };
                (place, message, help)
            }
        };
        // What belongs to others says nothing about traffic; whoever keeps all of a cluster's objects in one folder
        // need not hear of each of them.
        let is_ours = group.ends_with("istio.io") || group == GATEWAY_API;
        let severity = if help.is_some() || is_ours { Severity::Warning } else { Severity::Info };
        let help = help.unwrap_or_else(|| match group {
            GATEWAY_API => {
                "the Gateway API is not carried out; write a Gateway and routes of networking.istio.io".into()
            }
            _ => "the object is passed over".to_owned(),
        });
        let diagnostic = Diagnostic::new(code::UNKNOWN_KIND, severity, message).label("passed over").help(help);
        self.report(root.get(at).unwrap_or(root), diagnostic);
        None
    }

    fn read_object(&mut self, root: &Node, kind: Kind, api_version: String, items: &[usize]) {
        let unknown_fields = if kind.is_istio() { UnknownFields::Report } else { UnknownFields::Ignore };
        let mut cx = Decoder::new(self.file.map(|file| &**file), unknown_fields);
        let metadata = Metadata::parse(root, kind, &self.options.default_namespace, &mut cx);
        let spec = read_spec(root, kind, &mut cx);
        let mut diagnostics = cx.into_diagnostics();
        let subject = subject(root, kind, metadata.as_ref());
        self.subjects.push(subject.clone());
        if let (Some(metadata), Some(spec)) = (metadata, spec) {
            let mut object = Object {
                kind,
                api_version,
                metadata,
                spec,
                source: Source {
                    file: self.file.cloned(),
                    at: root.at,
                    document: self.document,
                    items: items.to_vec(),
                },
                has_errors: false,
            };
            diagnostics.extend(crate::validate::validate(&object, root));
            object.has_errors = diagnostics.iter().any(Diagnostic::is_error);
            self.parsed.objects.push(object);
        }
        diagnostics.iter_mut().for_each(|diagnostic| diagnostic.object = Some(subject.clone()));
        // In the order of the text, whatever the order of the checks.
        diagnostics.sort_by_key(|diagnostic| diagnostic.location.as_ref().map(|at| (at.line, at.column)));
        self.parsed.diagnostics.extend(diagnostics);
    }

    fn report(&mut self, node: &Node, diagnostic: Diagnostic) {
        let location = self.file.and_then(|file| Location::of(file, node.at, node.length));
        self.parsed.diagnostics.push(diagnostic.at(location));
    }
}

/// What is wrong with the text itself.
pub(crate) fn diagnostic_of(file: &SourceFile, problem: yaml::Problem) -> Diagnostic {
    let location = Location::of(file, problem.at, problem.length);
    let mut diagnostic = Diagnostic::error(problem.code, problem.message).at(location);
    diagnostic.label = problem.label;
    diagnostic.help = problem.help;
    diagnostic
}

/// What the object calls itself, also when it cannot be used.
fn subject(root: &Node, kind: Kind, metadata: Option<&Metadata>) -> Subject {
    match metadata {
        Some(metadata) => {
            Subject { kind: kind.as_str().into(), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
        }
        None => written_subject(root, kind.as_str()),
    }
}

fn written_subject(root: &Node, kind: &str) -> Subject {
    let written = |key: &str| root.get("metadata")?.get(key)?.as_str().map(Arc::from);
    Subject {
        kind: kind.into(),
        namespace: written("namespace").unwrap_or_default(),
        name: written("name").unwrap_or_default(),
    }
}

fn read_spec(root: &Node, kind: Kind, cx: &mut Decoder<'_>) -> Option<Spec> {
    Some(match kind {
        Kind::VirtualService => Spec::VirtualService(istio_spec(root, kind, cx)?),
        Kind::DestinationRule => Spec::DestinationRule(istio_spec(root, kind, cx)?),
        Kind::Gateway => Spec::Gateway(istio_spec(root, kind, cx)?),
        Kind::ServiceEntry => Spec::ServiceEntry(istio_spec(root, kind, cx)?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(istio_spec(root, kind, cx)?),
        Kind::WorkloadGroup => Spec::WorkloadGroup(istio_spec(root, kind, cx)?),
        Kind::Sidecar => Spec::Sidecar(istio_spec(root, kind, cx)?),
        Kind::EnvoyFilter => Spec::EnvoyFilter(istio_spec(root, kind, cx)?),
        Kind::ProxyConfig => Spec::ProxyConfig(istio_spec(root, kind, cx)?),
        Kind::PeerAuthentication => Spec::PeerAuthentication(istio_spec(root, kind, cx)?),
        Kind::Telemetry => Spec::Telemetry(istio_spec(root, kind, cx)?),
        Kind::Service => Spec::Service(crate::k8s::service::ServiceRoot::decode(root, cx)?.spec.unwrap_or_default()),
        Kind::Endpoints => Spec::Endpoints(Decode::decode(root, cx)?),
        Kind::EndpointSlice => Spec::EndpointSlice(Decode::decode(root, cx)?),
        Kind::Ingress => Spec::Ingress(crate::k8s::ingress::IngressRoot::decode(root, cx)?.spec.unwrap_or_default()),
        Kind::IngressClass => {
            Spec::IngressClass(crate::k8s::ingress::IngressClassRoot::decode(root, cx)?.spec.unwrap_or_default())
        }
        Kind::Pod => Spec::Pod(Decode::decode(root, cx)?),
        Kind::Deployment => {
            Spec::Deployment(crate::k8s::pod::DeploymentRoot::decode(root, cx)?.spec.unwrap_or_default())
        }
        Kind::ConfigMap => Spec::ConfigMap(Decode::decode(root, cx)?),
        Kind::Secret => Spec::Secret(Decode::decode(root, cx)?),
        Kind::Namespace => Spec::Namespace(Decode::decode(root, cx)?),
        Kind::Node => Spec::Node(Decode::decode(root, cx)?),
        Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::WasmPlugin
        | Kind::ReplicaSet
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::Job
        | Kind::ServiceAccount => Spec::Opaque(Opaque { at: root.at, value: root.to_json() }),
    })
}

/// The `spec` of an object of Istio, all of whose other fields are known.
fn istio_spec<T: Decode + Default>(root: &Node, kind: Kind, cx: &mut Decoder<'_>) -> Option<T> {
    const ROOT: [Field; 5] = [
        Field { name: "apiVersion", spelling: None },
        Field { name: "kind", spelling: None },
        Field { name: "metadata", spelling: None },
        Field { name: "spec", spelling: None },
        Field { name: "status", spelling: None },
    ];
    let fields = cx.open(root, kind.as_str(), &ROOT, &[])?;
    let spec: Option<T> = cx.field(root, &fields, 3, &ROOT[3], None::<Option<T>>)?;
    Some(spec.unwrap_or_default())
}
