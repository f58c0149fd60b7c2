//! Is a VirtualService right? Its hosts, gateways, and rules for TLS and TCP; rules for HTTP are in `http_route`.

use super::names::{is_fqdn, is_ip, is_label, is_subnet, is_wildcard_domain, overlaps};
use super::values::{self, Nobody};
use super::{At, Rules, http_route};
use crate::istio::virtual_service::{Destination, RouteDestination, TcpRoute, TlsRoute, VirtualService};

/// Facts of a VirtualService that its rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    /// It has no hosts: others delegate to it.
    pub(super) is_delegate: bool,
    /// Sidecars use it.
    pub(super) is_in_mesh: bool,
}

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &VirtualService) {
    let binding = Binding {
        is_delegate: spec.hosts.is_empty(),
        is_in_mesh: spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh"),
    };
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        rules.error(at, "the VirtualService has no rules", "give at least one of `http`, `tls` and `tcp`");
    }
    if binding.is_delegate {
        let given =
            [("gateways", spec.gateways.is_empty()), ("tls", spec.tls.is_empty()), ("tcp", spec.tcp.is_empty())];
        for (field, _) in given.into_iter().filter(|(_, is_empty)| !is_empty) {
            let message = format!("a VirtualService without hosts is only delegated to, and has no `{field}`");
            rules.error(at.key(field), message, "give it `hosts`");
        }
    }
    hosts(rules, at.key("hosts"), spec, binding);
    gateways(rules, at.key("gateways"), &spec.gateways, true);
    for (index, route) in spec.http.iter().enumerate() {
        http_route::check(rules, at.key("http").index(index), route, binding);
    }
    for (index, route) in spec.tls.iter().enumerate() {
        tls_route(rules, at.key("tls").index(index), route, &spec.hosts);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        tcp_route(rules, at.key("tcp").index(index), route);
    }
    values::export_to(rules, at.key("exportTo"), &spec.export_to, Nobody::Refused);
}

fn hosts(rules: &mut Rules<'_>, at: At<'_>, spec: &VirtualService, binding: Binding) {
    let routes_by_name = spec.tls.iter().flat_map(|route| &route.r#match).any(|m| !m.sni_hosts.is_empty());
    let takes_sni = !binding.is_in_mesh && routes_by_name;
    let mut sound = true;
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = at.index(index);
        if !(is_wildcard_domain(host) || is_ip(host) || (takes_sni && is_cluster_sni(host))) {
            let help = "a host is a DNS name, perhaps with `*.` in front, or an IP address";
            rules.error(at, format!("`{host}` is no host"), help);
            sound = false;
        } else if host == "*" && binding.is_in_mesh {
            let help = "name the hosts, or bind it to gateways alone";
            rules.error(at, "the host `*` is not possible in the mesh", help);
            sound = false;
        }
    }
    if !sound {
        return;
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        if let Some(earlier) = spec.hosts[..index].iter().find(|earlier| overlaps(earlier, host)) {
            let message = format!("the hosts `{earlier}` and `{host}` overlap");
            rules.error(at.index(index), message, "leave the narrower one out");
        }
    }
}

/// `outbound_.PORT_.SUBSET_.HOST`, the form in which proxies of the mesh name clusters to each other.
pub(super) fn is_cluster_sni(host: &str) -> bool {
    let parts: Vec<&str> = host.splitn(4, "_.").collect();
    let [direction, port, subset, host] = parts[..] else {
        return false;
    };
    matches!(direction, "outbound" | "inbound")
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && (subset.is_empty() || is_label(subset))
        && is_fqdn(host)
}

/// Names of gateways. `warn` reports old forms.
pub(super) fn gateways(rules: &mut Rules<'_>, at: At<'_>, gateways: &[String], warn: bool) {
    for (index, gateway) in gateways.iter().enumerate() {
        let at = at.index(index);
        match gateway.split_once('/') {
            Some((namespace, name)) => {
                let namespace_is_right = namespace == "." || is_label(namespace);
                if !namespace_is_right || !is_label(name) {
                    let help = "write `namespace/name`, or the name alone for this namespace";
                    rules.error(at, format!("`{gateway}` is no name of a Gateway"), help);
                }
            }
            None if !is_fqdn(gateway) => {
                rules.error(at, format!("`{gateway}` is no name of a Gateway"), "write `namespace/name`");
            }
            None if warn && gateway.contains('.') => {
                let message = format!("`{gateway}` is the old form of a Gateway's name");
                rules.warning(at, message, "write `namespace/name`");
            }
            None => {}
        }
    }
}

/// A place where traffic goes.
pub(super) fn destination(rules: &mut Rules<'_>, at: At<'_>, destination: &Destination) {
    let host = &destination.host;
    if host == "*" || !is_wildcard_domain(host) {
        rules.error(at.key("host"), format!("`{host}` is no host to send to"), "give the name of a service");
    }
    if let Some(subset) = destination.subset.as_ref().filter(|subset| !subset.is_empty() && !is_label(subset)) {
        rules.error(at.key("subset"), format!("`{subset}` is no name of a subset"), "letters, digits and dashes");
    }
    if let Some(port) = &destination.port {
        values::port(rules, at.key("port").key("number"), port.number);
    }
}

/// Shares of destinations: none below zero, and something to choose from.
pub(super) fn weights(rules: &mut Rules<'_>, at: At<'_>, weights: &[i32]) {
    for (index, weight) in weights.iter().enumerate() {
        if *weight < 0 {
            let at = at.index(index);
            let at = at.key("weight");
            rules.error(at, format!("`{at}` must not be below zero: {weight}"), "");
        }
    }
    if weights.len() > 1 && weights.iter().map(|weight| i64::from(*weight)).sum::<i64>() == 0 {
        let message = format!("the weights of `{at}` add up to 0, so nothing goes anywhere");
        rules.error(at, message, "give each destination a `weight`; those without one get nothing");
    }
}

fn routes(rules: &mut Rules<'_>, at: At<'_>, routes: &[RouteDestination]) {
    if routes.is_empty() {
        rules.error(at, format!("`{at}` has no destinations"), "");
    }
    for (index, route) in routes.iter().enumerate() {
        let at = at.index(index);
        match &route.destination {
            Some(to) => destination(rules, at.key("destination"), to),
            None => rules.error(at, format!("`{at}` has no `destination`"), ""),
        }
    }
    let shares: Vec<i32> = routes.iter().map(|route| route.weight).collect();
    weights(rules, at, &shares);
}

fn subnets(rules: &mut Rules<'_>, at: At<'_>, subnets: &[String]) {
    for (index, subnet) in subnets.iter().enumerate() {
        if !is_subnet(subnet) {
            let message = format!("`{subnet}` is neither an IP address nor a range");
            rules.error(at.index(index), message, "a range is written 10.0.0.0/8");
        }
    }
}

fn tls_route(rules: &mut Rules<'_>, at: At<'_>, route: &TlsRoute, hosts: &[String]) {
    if route.r#match.is_empty() {
        rules.error(at, format!("`{at}` has no `match`"), "a rule for TLS needs `match` with `sniHosts`");
    }
    for (index, condition) in route.r#match.iter().enumerate() {
        let at = at.key("match");
        let at = at.index(index);
        if condition.sni_hosts.is_empty() {
            rules.error(at, format!("`{at}` has no `sniHosts`"), "");
        }
        for (index, name) in condition.sni_hosts.iter().enumerate() {
            let at = at.key("sniHosts");
            let at = at.index(index);
            if is_ip(name) {
                let message = format!("`{name}` is an IP address, which clients do not send as the name of a server");
                rules.warning(at, message, "");
                continue;
            }
            if !is_wildcard_domain(name) && !is_cluster_sni(name) {
                rules.error(at, format!("`{name}` is no host"), "");
                continue;
            }
            if !hosts.iter().any(|host| super::names::covers(host, name)) {
                let message = format!("`{name}` is none of the VirtualService's hosts");
                rules.error(at, message, "add it to `hosts`");
            }
        }
        subnets(rules, at.key("destinationSubnets"), &condition.destination_subnets);
        if let Some(port) = condition.port.filter(|port| *port != 0) {
            values::port(rules, at.key("port"), port);
        }
        values::labels(rules, at.key("sourceLabels"), &condition.source_labels);
        gateways(rules, at.key("gateways"), &condition.gateways, false);
    }
    routes(rules, at.key("route"), &route.route);
}

fn tcp_route(rules: &mut Rules<'_>, at: At<'_>, route: &TcpRoute) {
    for (index, condition) in route.r#match.iter().enumerate() {
        let at = at.key("match");
        let at = at.index(index);
        subnets(rules, at.key("destinationSubnets"), &condition.destination_subnets);
        if let Some(port) = condition.port.filter(|port| *port != 0) {
            values::port(rules, at.key("port"), port);
        }
        values::labels(rules, at.key("sourceLabels"), &condition.source_labels);
        gateways(rules, at.key("gateways"), &condition.gateways, false);
    }
    routes(rules, at.key("route"), &route.route);
}
