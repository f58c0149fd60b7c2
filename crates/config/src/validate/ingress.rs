//! Is an Ingress right? What a Kubernetes API server refuses, and what Istio passes over.

use super::names::{is_ip, is_label, is_wildcard_domain};
use super::{At, Rules, values};
use crate::diagnostic::{Severity, code};
use crate::k8s::ingress::{Ingress, IngressBackend, PathType};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &Ingress) {
    if spec.rules.is_empty() && spec.default_backend.is_none() {
        refuse(rules, at, "the Ingress says nothing", "give `rules` or `defaultBackend`");
    }
    if let Some(default) = &spec.default_backend {
        backend(rules, at.key("defaultBackend"), default);
    }
    for (index, tls) in spec.tls.iter().enumerate() {
        for (number, name) in tls.hosts.iter().enumerate() {
            let at = at.key("tls");
            let at = at.index(index);
            host(rules, at.key("hosts").index(number), name);
        }
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let at = at.key("rules");
        let at = at.index(index);
        if let Some(name) = rule.host.as_deref().filter(|name| !name.is_empty()) {
            host(rules, at.key("host"), name);
        }
        for (index, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let at = at.key("http");
            let at = at.key("paths");
            let at = at.index(index);
            let text = path.path.as_deref().unwrap_or_default();
            let must_begin = !matches!(path.path_type, PathType::ImplementationSpecific);
            if !text.starts_with('/') && (must_begin || !text.is_empty()) {
                let message = format!("`{at}.path` does not begin with a slash");
                refuse(rules, at.key("path"), message, "`/` stands for every path");
            }
            backend(rules, at.key("backend"), &path.backend);
        }
    }
}

/// A name as Ingress takes it: whole, or with `*.` in front.
fn host(rules: &mut Rules<'_>, at: At<'_>, name: &str) {
    let is_partial = name.starts_with('*') && !name.starts_with("*.");
    if is_ip(name) || is_partial || !is_wildcard_domain(name) {
        let help = "a host is a DNS name, perhaps with `*.` in front; leave it out for every host";
        refuse(rules, at, format!("`{name}` is no host"), help);
    }
}

fn backend(rules: &mut Rules<'_>, at: At<'_>, backend: &IngressBackend) {
    let Some(service) = &backend.service else {
        if backend.resource.is_some() {
            let message = format!("`{at}.resource` is passed over: only Services are reached");
            rules.warning(at.key("resource"), message, "give `service`");
        } else {
            refuse(rules, at, format!("`{at}` leads nowhere"), "give `service` with `name` and `port`");
        }
        return;
    };
    if backend.resource.is_some() {
        refuse(rules, at.key("resource"), format!("`{at}` has both `service` and `resource`"), "remove one of the two");
    }
    let at = at.key("service");
    if !is_label(&service.name) {
        refuse(rules, at.key("name"), format!("`{}` is no name of a Service", service.name), "");
    }
    let port = service.port.as_ref();
    let name = port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty());
    let number = port.and_then(|port| port.number).filter(|number| *number != 0);
    let at = at.key("port");
    match (name, number) {
        (None, None) => refuse(rules, at, format!("`{at}` is missing"), "give `name` or `number`"),
        (Some(_), Some(_)) => {
            refuse(rules, at, format!("`{at}` has both `name` and `number`"), "remove one of the two")
        }
        (Some(name), None) if !is_label(name) => {
            refuse(rules, at.key("name"), format!("`{name}` is no name of a port"), "");
        }
        (None, Some(number)) => values::port(rules, at.key("number"), number),
        (Some(_), None) => {}
    }
}

/// What Kubernetes refuses, not Istio.
fn refuse(rules: &mut Rules<'_>, at: At<'_>, message: impl Into<String>, help: &str) {
    rules.find(Severity::Error, code::BAD_VALUE, at, message.into(), help);
}
