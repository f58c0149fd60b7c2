//! Is an object right, by itself? What Istio refuses or warns of, one file of rules for each kind.
//!
//! Rules see the typed object and report a path; the place is looked up in the text when there is something to
//! report. What needs a second object (a host that nobody has) is not asked here.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod http_route;
mod ingress;
mod locality;
mod mesh;
mod names;
mod policies;
mod reachability;
mod service_entry;
mod sidecar;
mod telemetry;
mod tls;
mod traffic_policy;
mod values;
mod virtual_service;
mod workload;

use std::fmt;

use crate::decode::MAX_DIAGNOSTICS;
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::kind::Kind;
use crate::mesh::MeshConfig;
use crate::metadata::Metadata;
use crate::node::{Node, Step};
use crate::object::{Object, Spec};
use crate::position::{Location, SourceFile};

/// What Istio refuses (`IST0106`) or warns of (`IST0133`).
pub(crate) fn validate(object: &Object, root: &Node) -> Vec<Diagnostic> {
    let file = object.source.file.as_deref();
    let mut rules = Rules { file, metadata: &object.metadata, root, findings: Vec::new() };
    if object.kind.is_istio() && !annotations(&mut rules, object) {
        return rules.findings;
    }
    let spec = At::ROOT.key("spec");
    match &object.spec {
        Spec::VirtualService(content) => virtual_service::check(&mut rules, spec, content),
        Spec::DestinationRule(content) => destination_rule::check(&mut rules, spec, content),
        Spec::Gateway(content) => gateway::check(&mut rules, spec, content),
        Spec::ServiceEntry(content) => service_entry::check(&mut rules, spec, content),
        Spec::WorkloadEntry(content) => workload::check_entry(&mut rules, spec, content),
        Spec::WorkloadGroup(content) => workload::check_group(&mut rules, spec, content),
        Spec::Sidecar(content) => sidecar::check(&mut rules, spec, content),
        Spec::EnvoyFilter(content) => envoy_filter::check(&mut rules, spec, content),
        Spec::ProxyConfig(content) => policies::check_proxy_config(&mut rules, spec, content),
        Spec::PeerAuthentication(content) => policies::check_peer_authentication(&mut rules, spec, content),
        Spec::Telemetry(content) => telemetry::check(&mut rules, spec, content),
        Spec::Ingress(content) => ingress::check(&mut rules, spec, content),
        _ => {}
    }
    rules.findings
}

/// Annotations that only Istio itself may use. False when there are any, which ends the checks.
fn annotations(rules: &mut Rules<'_>, object: &Object) -> bool {
    const INTERNAL: [&str; 2] = ["internal.istio.io/webhook-always-reject", "internal.istio.io/parents"];
    const DRY_RUN: &str = "istio.io/dry-run";
    let before = rules.findings.len();
    for name in object.metadata.annotations.keys() {
        let at = At::ROOT.key("metadata");
        let at = at.key("annotations");
        if INTERNAL.contains(&name.as_str()) {
            rules.error_at_key(at.key(name), format!("the annotation `{name}` is Istio's own"), "remove it");
        } else if name == DRY_RUN && object.kind != Kind::AuthorizationPolicy {
            let message = format!("the annotation `{name}` is only for AuthorizationPolicy");
            rules.error_at_key(at.key(name), message, "remove it");
        }
    }
    rules.findings.len() == before
}

/// The same for settings of the mesh, which are no object.
pub(crate) fn validate_mesh(file: &SourceFile, root: &Node, config: &MeshConfig) -> Vec<Diagnostic> {
    let metadata = Metadata { namespace: config.root_namespace.as_str().into(), ..Metadata::default() };
    let mut rules = Rules { file: Some(file), metadata: &metadata, root, findings: Vec::new() };
    mesh::check(&mut rules, At::ROOT, config);
    rules.findings
}

/// A path in an object, built on the stack: nothing is allocated unless it is reported.
#[derive(Clone, Copy, Debug)]
struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

impl At<'_> {
    const ROOT: At<'static> = At { parent: None, step: Step::Key("") };

    fn key<'a>(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    fn index(&self, index: usize) -> At<'_> {
        At { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if key.is_empty() || key.contains(['.', '[', ']', ' ', '"']) => write!(f, "[\"{key}\"]"),
            Step::Key(key) if parent.parent.is_none() => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// Collects what the rules find in one object.
#[derive(Debug)]
struct Rules<'a> {
    file: Option<&'a SourceFile>,
    metadata: &'a Metadata,
    root: &'a Node,
    findings: Vec<Diagnostic>,
}

impl Rules<'_> {
    /// Namespace of the object.
    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// Reports what Istio refuses. An empty help is none.
    fn error(&mut self, at: At<'_>, message: impl Into<String>, help: &str) {
        self.find(Severity::Error, code::INVALID, at, message.into(), help);
    }

    /// Reports what Istio warns of. An empty help is none.
    fn warning(&mut self, at: At<'_>, message: impl Into<String>, help: &str) {
        self.find(Severity::Warning, code::QUESTIONABLE, at, message.into(), help);
    }

    /// Reports what Istio refuses, at the key of a mapping's entry instead of its value.
    fn error_at_key(&mut self, at: At<'_>, message: impl Into<String>, help: &str) {
        self.find(Severity::Error, code::INVALID, at, message.into(), help);
        let path = at.parent.map(At::to_string).unwrap_or_default();
        let Step::Key(key) = at.step else {
            return;
        };
        if let Some(entry) = self.root.find(&path).and_then(|node| node.entry(key))
            && let Some(finding) = self.findings.last_mut()
            && let Some(location) = &mut finding.location
        {
            (location.line, location.column, location.length) = (entry.at.line, entry.at.column, entry.length);
        }
    }

    fn find(&mut self, severity: Severity, code: &'static str, at: At<'_>, message: String, help: &str) {
        if self.findings.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let path = at.to_string();
        let (position, length) = self.root.locate(&path);
        let location = self.file.and_then(|file| Location::of(file, position, length));
        let mut finding = Diagnostic::new(code, severity, message).at(location);
        finding.help = (!help.is_empty()).then(|| help.to_owned());
        finding.path = path;
        self.findings.push(finding);
    }
}
