//! Is a Sidecar right? What its listeners bind, and what they can reach.

use std::collections::BTreeSet;

use super::names::{is_http, is_ip, is_label, is_protocol, is_tls, is_wildcard_domain};
use super::{At, Rules, gateway, tls, traffic_policy, values};
use crate::istio::gateway::ServerTlsMode;
use crate::istio::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode, Sidecar,
    SidecarPort,
};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &Sidecar) {
    if let Some(selector) = &spec.workload_selector
        && !values::selector(rules, at.key("workloadSelector").key("labels"), &selector.labels)
    {
        return;
    }
    let is_empty = spec.egress.is_empty()
        && spec.ingress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    if is_empty {
        let help = "give `egress`, `ingress`, `outboundTrafficPolicy` or `inboundConnectionPool`";
        rules.error(at, "the Sidecar says nothing", help);
        return;
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        ingress(rules, at.key("ingress").index(index), listener, &mut ports);
    }
    if let Some(pool) = &spec.inbound_connection_pool {
        traffic_policy::connection_pool(rules, at.key("inboundConnectionPool"), pool);
    }
    egress_listeners(rules, at.key("egress"), &spec.egress);
    if let Some(policy) = &spec.outbound_traffic_policy {
        outbound(rules, at.key("outboundTrafficPolicy"), policy);
    }
}

fn ingress(rules: &mut Rules<'_>, at: At<'_>, listener: &IstioIngressListener, ports: &mut BTreeSet<u32>) {
    let number = listener.port.number.unwrap_or(0);
    port(rules, at.key("port"), &listener.port);
    values::port(rules, at.key("port").key("number"), number);
    if !ports.insert(number) {
        rules.error(at.key("port").key("number"), format!("the port {number} is there twice"), "");
    }
    bind(rules, at.key("bind"), listener.bind.as_deref());
    if let Some(endpoint) = listener.default_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
        default_endpoint(rules, at.key("defaultEndpoint"), endpoint);
    }
    let protocol = listener.port.protocol.as_deref().unwrap_or_default();
    if let Some(settings) = &listener.tls {
        let at = at.key("tls");
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let unsupported = [
            ("subjectAltNames", !settings.subject_alt_names.is_empty()),
            ("httpsRedirect", settings.https_redirect),
            ("credentialName", given(&settings.credential_name)),
            ("credentialNames", !settings.credential_names.is_empty()),
            ("tlsCertificates", !settings.tls_certificates.is_empty()),
        ];
        for (field, _) in unsupported.into_iter().filter(|(_, is_given)| *is_given) {
            rules.error(at.key(field), format!("`{at}.{field}` is not supported in a Sidecar"), "");
        }
        if matches!(settings.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
            let message = format!("`{at}.mode` {} is not supported in a Sidecar", settings.mode);
            rules.error(at.key("mode"), message, "give SIMPLE, MUTUAL or OPTIONAL_MUTUAL");
        }
        if !is_tls(protocol) {
            let message = format!("a listener for {protocol} has no `tls`");
            rules.error(at, message, "write `protocol: HTTPS` or `protocol: TLS`");
        }
        tls::check(rules, at, settings);
    }
    if let Some(pool) = &listener.connection_pool {
        let at = at.key("connectionPool");
        traffic_policy::connection_pool(rules, at, pool);
        if pool.http.is_some() && !is_http(protocol) {
            let message = format!("`{at}.http` is not looked at on a port for {protocol}");
            rules.warning(at.key("http"), message, "");
        }
    }
}

fn port(rules: &mut Rules<'_>, at: At<'_>, port: &SidecarPort) {
    if port.target_port.is_some_and(|target| target > 0) {
        let message = format!("`{at}.targetPort` is not supported");
        rules.error(at.key("targetPort"), message, "give `defaultEndpoint`");
    }
    let name = port.name.as_deref().unwrap_or_default();
    if !name.is_empty() && !is_label(name) {
        rules.error(at.key("name"), format!("`{name}` is no name of a port"), "letters, digits and dashes");
    }
    let protocol = port.protocol.as_deref().unwrap_or_default();
    if !protocol.is_empty() && !is_protocol(protocol) {
        let help = "known are HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS and MYSQL";
        rules.error(at.key("protocol"), format!("`{protocol}` is no protocol"), help);
    }
}

fn bind(rules: &mut Rules<'_>, at: At<'_>, bind: Option<&str>) {
    if let Some(bind) = bind.filter(|bind| !bind.is_empty() && !is_ip(bind)) {
        rules.error(at, format!("`{bind}` is no address to listen on"), "give an IP address");
    }
}

fn default_endpoint(rules: &mut Rules<'_>, at: At<'_>, endpoint: &str) {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) || path.ends_with('/') {
            rules.error(at, format!("`{endpoint}` is no socket"), "write `unix:///path`");
        }
        return;
    }
    let is_right = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !is_right {
        let help = "write `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`";
        rules.error(at, format!("`{endpoint}` is no address of the workload"), help);
    }
}

fn egress_listeners(rules: &mut Rules<'_>, at: At<'_>, listeners: &[IstioEgressListener]) {
    let mut ports = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        let at = at.index(index);
        if listener.port.is_none() && index + 1 != listeners.len() {
            let message = format!("`{at}` has no `port`, so it takes all that is left and has to be the last");
            rules.error(at, message, "move it to the end, or give it a `port`");
        }
        let address = listener.bind.as_deref().unwrap_or_default();
        let number = listener.port.as_ref().and_then(|port| port.number).unwrap_or(0);
        if let Some(settings) = &listener.port {
            if number == 0 && address.starts_with("unix://") {
                gateway::check_bind(rules, at.key("bind"), address, number);
                if !matches!(listener.capture_mode, CaptureMode::Default | CaptureMode::None) {
                    let message = format!("`{address}` cannot be redirected to");
                    rules.error(at.key("captureMode"), message, "leave it out");
                }
                if !sockets.insert(address) {
                    rules.error(at.key("bind"), format!("`{address}` is there twice"), "");
                }
            } else {
                port(rules, at.key("port"), settings);
                values::port(rules, at.key("port").key("number"), number);
                bind(rules, at.key("bind"), listener.bind.as_deref());
                if !ports.insert(number) {
                    rules.error(at.key("port").key("number"), format!("the port {number} is there twice"), "");
                }
            }
        } else {
            bind(rules, at.key("bind"), listener.bind.as_deref());
        }
        egress_hosts(rules, at, &listener.hosts);
    }
}

fn egress_hosts(rules: &mut Rules<'_>, at: At<'_>, hosts: &[String]) {
    if hosts.is_empty() {
        rules.error(at, format!("`{at}` has no `hosts`"), "`*/*` stands for everything");
    }
    let at = at.key("hosts");
    let own = rules.namespace().to_owned();
    // `.` is another name for the object's own namespace.
    let of = |host: &str| match host.split_once('/') {
        Some((".", name)) => format!("{own}/{name}"),
        _ => host.to_owned(),
    };
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let at = at.index(index);
        let Some((namespace, name)) = host.split_once('/') else {
            let message = format!("`{host}` has no namespace");
            rules.error(at, message, "write `namespace/host`, with `.` for this namespace and `*` for all");
            continue;
        };
        let bare = namespace.strip_prefix('~').filter(|rest| !rest.is_empty()).unwrap_or(namespace);
        if !matches!(bare, "*" | "." | "~") && !is_label(bare) {
            rules.error(at, format!("`{namespace}` is no namespace"), "");
        }
        let is_partial = name.starts_with('*') && name != "*" && !name.starts_with("*.");
        if !is_wildcard_domain(name) || is_partial {
            let help = "a host is a DNS name, perhaps with `*.` in front, or `*` alone";
            rules.error(at, format!("`{name}` is no host"), help);
        } else if name != "*" && !name.contains('.') {
            let message = format!("`{name}` is a short name, which Sidecars do not complete");
            rules.error(at, message, "write the whole name, for example `reviews.shop.svc.cluster.local`");
        }
        let host = of(host);
        let whole = of(&format!("{namespace}/*"));
        if seen.contains(&host) {
            rules.warning(at, format!("`{host}` is there twice"), "remove one of the two");
        } else if name != "*" && hosts.iter().any(|other| of(other) == whole) {
            rules.warning(at, format!("`{host}` is within `{whole}`"), "remove it");
        } else if host == "*/*" && hosts.iter().any(|other| other != "*/*" && !other.starts_with('~')) {
            rules.warning(at, "`*/*` stands for everything, the other hosts too", "remove the others");
        }
        seen.insert(host);
    }
}

fn outbound(rules: &mut Rules<'_>, at: At<'_>, policy: &OutboundTrafficPolicy) {
    if policy.mode == OutboundTrafficPolicyMode::AllowAnyDynamicDns {
        let message = format!("`{at}.mode` ALLOW_ANY_DYNAMIC_DNS is only for the whole mesh");
        rules.error(at.key("mode"), message, "give ALLOW_ANY or REGISTRY_ONLY");
    }
    let Some(proxy) = &policy.egress_proxy else {
        return;
    };
    let at_proxy = at.key("egressProxy");
    if policy.mode != OutboundTrafficPolicyMode::AllowAny {
        let message = format!("`{at_proxy}` needs `mode: ALLOW_ANY`");
        rules.error(at_proxy, message, "");
    }
    if proxy.host == "*" || !is_wildcard_domain(&proxy.host) {
        rules.error(at_proxy.key("host"), format!("`{}` is no host to send to", proxy.host), "");
    }
    match &proxy.port {
        Some(port) => values::port(rules, at_proxy.key("port").key("number"), port.number),
        None => rules.error(at_proxy, format!("`{at_proxy}` has no `port`"), ""),
    }
}
