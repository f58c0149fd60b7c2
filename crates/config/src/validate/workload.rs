//! Is a WorkloadEntry or a WorkloadGroup right?

use super::names::{is_fqdn, is_ip, is_label};
use super::{At, Rules, values};
use crate::istio::workload::{HealthCheckMethod, ReadinessProbe, WorkloadEntry, WorkloadGroup};

/// A workload, also where a ServiceEntry lists it.
pub(super) fn check_entry(rules: &mut Rules<'_>, at: At<'_>, entry: &WorkloadEntry) {
    let address = entry.address.as_deref().unwrap_or_default();
    if address.is_empty() {
        if entry.network.as_deref().is_none_or(str::is_empty) {
            rules.error(at, format!("`{at}` has no `address`"), "give an IP address or a DNS name");
            return;
        }
        let message = format!("`{at}` has a `network` but no `address`: it is reached through gateways alone");
        rules.warning(at, message, "");
    } else if let Some(path) = address.strip_prefix("unix://") {
        if !path.starts_with('/') && !path.starts_with('@') {
            rules.error(at.key("address"), format!("`{address}` is no socket"), "write `unix:///path`");
        } else if path.starts_with('/') && path.ends_with('/') {
            rules.error(at.key("address"), format!("`{address}` is a directory"), "give the path of the socket");
        }
        if !entry.ports.is_empty() {
            rules.error(at.key("ports"), format!("`{address}` has no ports"), "remove `ports`");
        }
    } else if !is_ip(address) && !is_fqdn(address) {
        let message = format!("`{address}` is neither a DNS name nor an IP address");
        rules.error(at.key("address"), message, "ports are given in `ports`");
    }
    for (name, number) in &entry.ports {
        let at = at.key("ports");
        let at = at.key(name);
        if !is_label(name) {
            rules.error_at_key(at, format!("`{name}` is no name of a port"), "letters, digits and dashes");
        }
        values::port(rules, at, *number);
    }
    values::labels(rules, at.key("labels"), &entry.labels);
}

pub(super) fn check_group(rules: &mut Rules<'_>, at: At<'_>, group: &WorkloadGroup) {
    match &group.template {
        None => {
            rules.error(at, "the WorkloadGroup has no `template`", "write `template: {}` if there is nothing to say")
        }
        Some(template) => {
            let at = at.key("template");
            values::labels(rules, at.key("labels"), &template.labels);
            for (name, number) in &template.ports {
                values::port(rules, at.key("ports").key(name), *number);
            }
        }
    }
    if let Some(metadata) = &group.metadata {
        values::labels(rules, at.key("metadata").key("labels"), &metadata.labels);
    }
    if let Some(readiness) = &group.probe {
        probe(rules, at.key("probe"), readiness);
    }
}

fn probe(rules: &mut Rules<'_>, at: At<'_>, probe: &ReadinessProbe) {
    values::not_negative(rules, at.key("initialDelaySeconds"), probe.initial_delay_seconds);
    values::not_negative(rules, at.key("timeoutSeconds"), probe.timeout_seconds);
    values::not_negative(rules, at.key("periodSeconds"), probe.period_seconds);
    values::not_negative(rules, at.key("successThreshold"), probe.success_threshold);
    values::not_negative(rules, at.key("failureThreshold"), probe.failure_threshold);
    match &probe.method {
        None => rules.error(at, format!("`{at}` checks nothing"), "give `httpGet`, `tcpSocket`, `exec` or `grpc`"),
        Some(HealthCheckMethod::HttpGet(http)) => {
            let at = at.key("httpGet");
            values::port(rules, at.key("port"), http.port);
            let scheme = http.scheme.as_deref().unwrap_or_default();
            if !["", "http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
                rules.error(at.key("scheme"), format!("`{scheme}` is no scheme"), "give HTTP or HTTPS");
            }
            for (index, header) in http.http_headers.iter().enumerate() {
                let name = header.name.as_deref().unwrap_or_default();
                let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                if name.is_empty() || !is_plain {
                    rules.error(at.key("httpHeaders").index(index), format!("`{name}` is no name of a header"), "");
                }
            }
        }
        Some(HealthCheckMethod::TcpSocket(tcp)) => values::port(rules, at.key("tcpSocket").key("port"), tcp.port),
        Some(HealthCheckMethod::Grpc(grpc)) => values::port(rules, at.key("grpc").key("port"), grpc.port),
        Some(HealthCheckMethod::Exec(exec)) => {
            if exec.command.is_empty() {
                rules.error(at.key("exec"), format!("`{at}.exec` has no `command`"), "");
            }
        }
    }
}
