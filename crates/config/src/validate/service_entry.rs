//! Is a ServiceEntry right? Hosts, addresses, ports, and the endpoints that go with its resolution.

use std::collections::BTreeSet;

use super::names::{is_fqdn, is_http, is_ip, is_label, is_protocol, is_subnet, is_tls, is_wildcard_domain};
use super::values::{self, Nobody};
use super::{At, Rules, workload};
use crate::istio::service_entry::{Resolution, ServiceEntry, ServiceEntryLocation, ServiceEntryPort};

/// Label that turns automatic virtual addresses off.
const ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";
/// Label that sends traffic through a waypoint.
const WAYPOINT: &str = "istio.io/use-waypoint";

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    if let Some(selector) = &spec.workload_selector {
        if !values::selector(rules, at.key("workloadSelector").key("labels"), &selector.labels) {
            return;
        }
        if !spec.endpoints.is_empty() {
            let message = "the ServiceEntry has both `endpoints` and `workloadSelector`";
            rules.error(at.key("endpoints"), message, "remove one of the two");
        }
    }
    values::at_most(rules, at.key("hosts"), 256, spec.hosts.len());
    values::at_most(rules, at.key("addresses"), 256, spec.addresses.len());
    values::at_most(rules, at.key("ports"), 256, spec.ports.len());
    values::at_most(rules, at.key("endpoints"), 4096, spec.endpoints.len());
    hosts(rules, at.key("hosts"), spec);
    addresses(rules, at.key("addresses"), spec);
    ports(rules, at.key("ports"), spec);
    match spec.resolution {
        Resolution::None => resolution_none(rules, at, spec),
        Resolution::Static => resolution_static(rules, at.key("endpoints"), spec),
        Resolution::Dns | Resolution::DnsRoundRobin => resolution_dns(rules, at, spec),
        Resolution::DynamicDns => resolution_dynamic_dns(rules, at, spec),
    }
    if spec.hosts.len() > 1 && spec.resolution != Resolution::None {
        several_hosts(rules, at.key("ports"), spec);
    }
    values::export_to(rules, at.key("exportTo"), &spec.export_to, Nobody::Allowed);
}

fn hosts(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() {
        rules.error(at, "the ServiceEntry has no `hosts`", "");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = at.index(index);
        if host == "*" {
            rules.error(at, "the host `*` would be every host", "narrow it down, for example `*.example.com`");
        } else if !is_wildcard_domain(host) {
            let help = "a host is a DNS name, perhaps with `*.` in front";
            rules.error(at, format!("`{host}` is no host"), help);
        } else if host.starts_with('*') && !host.starts_with("*.") && spec.resolution != Resolution::DynamicDns {
            let message = format!("`{host}` has a wildcard that is only a part of a name");
            rules.warning(at, message, "write `*.` and whole names behind it");
        }
    }
}

fn addresses(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    let takes_ranges = matches!(spec.resolution, Resolution::None | Resolution::Static);
    for (index, address) in spec.addresses.iter().enumerate() {
        let at = at.index(index);
        if !is_subnet(address) {
            let message = format!("`{address}` is neither an IP address nor a range");
            rules.error(at, message, "a range is written 10.0.0.0/8");
        } else if address.contains('/') && !takes_ranges {
            let message = format!("`{address}` is a range, which does not go with resolution {}", spec.resolution);
            rules.error(at, message, "give single addresses, or resolution NONE or STATIC");
        }
    }
}

fn ports(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let gets_address =
        spec.resolution != Resolution::None && rules.metadata.labels.get(ALLOCATE).is_none_or(|value| value != "false");
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.index(index);
        if !is_label(&port.name) {
            let message = format!("`{}` is no name of a port", port.name);
            rules.error(at.key("name"), message, "letters, digits and dashes");
        } else if !names.insert(&port.name) {
            rules.error(at.key("name"), format!("the port name `{}` is there twice", port.name), "");
        }
        values::port(rules, at.key("number"), port.number);
        if !numbers.insert(port.number) {
            rules.error(at.key("number"), format!("the port {} is there twice", port.number), "");
        }
        if let Some(target) = port.target_port.filter(|target| *target != 0) {
            values::port(rules, at.key("targetPort"), target);
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !protocol.is_empty() && !is_protocol(protocol) {
            let help = "known are HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS and MYSQL";
            rules.error(at.key("protocol"), format!("`{protocol}` is no protocol"), help);
        }
        let is_tcp = protocol.is_empty() || protocol.eq_ignore_ascii_case("tcp");
        if is_tcp && spec.addresses.is_empty() && !gets_address {
            let message = format!("the port {} takes all TCP connections to it, whatever their address", port.number);
            rules.warning(at, message, "give `addresses`, or a protocol that names hosts");
        }
    }
}

fn resolution_none(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    if !spec.endpoints.is_empty() {
        let message = "resolution NONE goes to where the client wanted, and has no `endpoints`";
        rules.error(at.key("endpoints"), message, "give `resolution: STATIC` or `resolution: DNS`");
    }
    if spec.workload_selector.is_some() {
        let message = "resolution NONE goes to where the client wanted, whatever is selected";
        rules.warning(at.key("workloadSelector"), message, "give `resolution: STATIC`");
    }
}

fn resolution_static(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let at = at.index(index);
        workload::check_entry(rules, at, endpoint);
        let address = endpoint.address.as_deref().unwrap_or_default();
        if address.starts_with("unix://") {
            if spec.ports.len() != 1 {
                let message = format!("`{address}` has no ports, so the ServiceEntry has to have exactly one");
                rules.error(at.key("address"), message, "");
            }
        } else if is_fqdn(address) {
            let message = format!("`{address}` is a name, which resolution STATIC does not look up");
            rules.error(at.key("address"), message, "give an IP address, or `resolution: DNS`");
        }
        endpoint_ports(rules, at.key("ports"), endpoint.ports.keys(), &spec.ports);
    }
}

fn resolution_dns(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !is_fqdn(host) && *host != "*") {
            let message = format!("`{host}` cannot be looked up");
            let help = "give `endpoints`, or a host without wildcards";
            rules.error(at.key("hosts").index(index), message, help);
        }
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        let message = "resolution DNS_ROUND_ROBIN looks up one name, and has at most one endpoint";
        rules.error(at.key("endpoints").index(1), message, "give `resolution: DNS`");
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let at = at.key("endpoints");
        let at = at.index(index);
        let address = endpoint.address.as_deref().unwrap_or_default();
        let has_network = endpoint.network.as_deref().is_some_and(|network| !network.is_empty());
        let is_right = is_ip(address) || is_fqdn(address) || (address.is_empty() && has_network);
        if !is_right {
            let message = format!("`{address}` is neither a DNS name nor an IP address");
            rules.error(at.key("address"), message, "");
        }
        values::labels(rules, at.key("labels"), &endpoint.labels);
        for (name, number) in &endpoint.ports {
            values::port(rules, at.key("ports").key(name), *number);
        }
        endpoint_ports(rules, at.key("ports"), endpoint.ports.keys(), &spec.ports);
    }
}

fn resolution_dynamic_dns(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !host.starts_with('*')) {
        let message = format!("resolution DYNAMIC_DNS is for wildcards, and `{host}` is none");
        rules.error(at.key("hosts").index(index), message, "give `resolution: DNS`");
    }
    let useless = [("addresses", spec.addresses.is_empty()), ("endpoints", spec.endpoints.is_empty())];
    for (field, _) in useless.into_iter().filter(|(_, is_empty)| !is_empty) {
        let message = format!("resolution DYNAMIC_DNS looks up what the client asks for, and has no `{field}`");
        rules.error(at.key(field), message, "remove it");
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !["http", "http2", "grpc", "tls"].iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
            let message = format!("resolution DYNAMIC_DNS cannot tell the host of protocol `{protocol}`");
            rules.error(at.key("ports").index(index), message, "HTTP, HTTP2, GRPC and TLS name their hosts");
        }
    }
    if spec.location == ServiceEntryLocation::MeshInternal && rules.metadata.labels.contains_key(WAYPOINT) {
        let message = "resolution DYNAMIC_DNS with a waypoint is for hosts outside of the mesh";
        rules.error(at.key("location"), message, "write `location: MESH_EXTERNAL`");
    }
}

fn several_hosts(rules: &mut Rules<'_>, at: At<'_>, spec: &ServiceEntry) {
    for (index, port) in spec.ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if is_http(protocol) || is_tls(protocol) {
            continue;
        }
        let at = at.index(index);
        let is_dns = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if is_dns && !spec.addresses.is_empty() {
            let message = format!("the hosts cannot be told apart on the TCP port {}", port.number);
            rules.warning(at, message, "give each host a ServiceEntry of its own");
        }
        let message = format!("the port {} cannot tell the hosts of the ServiceEntry apart", port.number);
        rules.error(at, message, "give each host a ServiceEntry of its own, or a protocol that names hosts");
    }
}

fn endpoint_ports<'n>(
    rules: &mut Rules<'_>,
    at: At<'_>,
    names: impl Iterator<Item = &'n String>,
    ports: &[ServiceEntryPort],
) {
    for name in names.filter(|name| !ports.iter().any(|port| port.name == **name)) {
        let at = at.key(name);
        rules.error_at_key(at, format!("the ServiceEntry has no port `{name}`"), "add it to `ports`");
    }
}
