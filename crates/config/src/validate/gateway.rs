//! Is a Gateway right? Its servers: ports, hosts, addresses to bind.

use std::collections::BTreeSet;

use super::names::{is_http, is_ip, is_label, is_protocol, is_tls, is_wildcard_domain};
use super::{At, Rules, tls, values};
use crate::istio::gateway::{Gateway, Port, Server, ServerTlsMode};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &Gateway) {
    let name = rules.metadata.name.clone();
    if !is_label(&name) {
        let at = At::ROOT.key("metadata");
        rules.error(at.key("name"), format!("`{name}` is no name of a Gateway"), "letters, digits and dashes, no dots");
    }
    if spec.servers.is_empty() {
        rules.error(at, "the Gateway has no `servers`", "give at least one port to listen on");
    }
    let mut names = BTreeSet::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let at = at.key("servers");
        let at = at.index(index);
        check_server(rules, at, server);
        if !server.port.name.is_empty() && !names.insert(&server.port.name) {
            let at = at.key("port");
            let message = format!("the port name `{}` is there twice", server.port.name);
            rules.error(at.key("name"), message, "names of ports are unique in a Gateway");
        }
    }
}

fn check_server(rules: &mut Rules<'_>, at: At<'_>, server: &Server) {
    if server.hosts.is_empty() {
        rules.error(at, format!("`{at}` has no `hosts`"), "`\"*\"` stands for all hosts");
    }
    for (index, name) in server.hosts.iter().enumerate() {
        host(rules, at.key("hosts").index(index), name);
    }
    let bind = server.bind.as_deref().unwrap_or_default();
    port(rules, at.key("port"), &server.port, bind.starts_with("unix://"));
    if !bind.is_empty() {
        check_bind(rules, at.key("bind"), bind, server.port.number);
    }
    if server.default_endpoint.as_deref().is_some_and(|endpoint| !endpoint.is_empty()) {
        let message = format!("`{at}.defaultEndpoint` has no effect: Istio does not look at it");
        rules.warning(at.key("defaultEndpoint"), message, "route with a VirtualService");
    }
    let protocol = server.port.protocol.as_str();
    let at = at.key("tls");
    let Some(settings) = &server.tls else {
        if is_tls(protocol) {
            let message = format!("a server for {protocol} needs `tls`");
            rules.error(at, message, "give `mode` and `credentialName`");
        }
        return;
    };
    if is_http(protocol) {
        let passes = matches!(settings.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
        if !passes || tls::has_certificates(settings) {
            let message = format!("a server for {protocol} is plain text, and has no certificates");
            rules.error(at, message, "write `protocol: HTTPS`; `tls` on HTTP is only for `httpsRedirect`");
        }
    } else if !is_tls(protocol) {
        rules.error(at, format!("a server for {protocol} has no `tls`"), "write `protocol: TLS`");
    } else if settings.https_redirect {
        let message = format!("`{at}.httpsRedirect` is only for plain HTTP, and is not looked at");
        rules.warning(at.key("httpsRedirect"), message, "put it on the server for HTTP");
    }
    tls::check(rules, at, settings);
}

fn host(rules: &mut Rules<'_>, at: At<'_>, host: &str) {
    let (namespace, name) = match host.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, host),
    };
    if let Some(namespace) = namespace.filter(|namespace| !matches!(*namespace, "*" | ".") && !is_label(namespace)) {
        let message = format!("`{namespace}` is no namespace");
        rules.error(at, message, "give the name of a namespace, `.` for this one, or `*` for all");
    }
    if name == "*" || is_ip(name) {
        return;
    }
    let is_partial = name.starts_with('*') && !name.starts_with("*.");
    if !is_wildcard_domain(name) || is_partial {
        let help = "a host is a DNS name, perhaps with `*.` in front, or `*` alone";
        rules.error(at, format!("`{host}` is no host"), help);
    } else if !name.contains('.') {
        let message = format!("`{host}` is a short name, which gateways do not complete");
        rules.error(at, message, "write the whole name, as clients send it");
    }
}

fn port(rules: &mut Rules<'_>, at: At<'_>, port: &Port, is_unix: bool) {
    if !is_protocol(&port.protocol) {
        let help = "known are HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS and MYSQL";
        rules.error(at.key("protocol"), format!("`{}` is no protocol", port.protocol), help);
    }
    if !(is_unix && port.number == 0) {
        values::port(rules, at.key("number"), port.number);
    }
    if port.target_port.is_some_and(|target| target > 0) {
        let message = format!("`{at}.targetPort` is not supported");
        rules.error(at.key("targetPort"), message, "the Service of the gateway maps ports");
    }
    if port.name.is_empty() {
        rules.error(at.key("name"), format!("`{at}.name` is empty"), "");
    }
}

/// An address to listen on: IP, or a unix domain socket without a port.
pub(super) fn check_bind(rules: &mut Rules<'_>, at: At<'_>, bind: &str, port: u32) {
    match bind.strip_prefix("unix://") {
        Some(path) => {
            if !(path.starts_with('/') || path.starts_with('@')) || path.len() < 2 {
                rules.error(at, format!("`{bind}` is no socket"), "write `unix:///path` or `unix://@name`");
            } else if port != 0 {
                rules.error(at, format!("`{bind}` has no port, but {port} is given"), "write `number: 0`");
            }
        }
        None if !is_ip(bind) => rules.error(at, format!("`{bind}` is no address to listen on"), "give an IP address"),
        None => {}
    }
}
