//! Is a PeerAuthentication or a ProxyConfig right?

use super::{At, Rules, values};
use crate::istio::proxy_config::ProxyConfigSpec;
use crate::istio::security::PeerAuthentication;

pub(super) fn check_peer_authentication(rules: &mut Rules<'_>, at: At<'_>, spec: &PeerAuthentication) {
    let labels = spec.selector.as_ref().map(|selector| &selector.match_labels);
    if let Some(labels) = labels {
        values::selector(rules, at.key("selector").key("matchLabels"), labels);
    }
    let at_ports = at.key("portLevelMtls");
    if !spec.port_level_mtls.is_empty() && labels.is_none_or(std::collections::BTreeMap::is_empty) {
        let message = "`spec.portLevelMtls` needs a `selector`: ports are those of certain workloads";
        rules.error(at_ports, message, "give `selector` with `matchLabels`");
    }
    for port in spec.port_level_mtls.keys() {
        if !(1..=65535).contains(port) {
            let key = port.to_string();
            let help = "ports are numbers from 1 to 65535, those of the workload";
            rules.error_at_key(at_ports.key(&key), format!("`spec.portLevelMtls` names no port: {port}"), help);
        }
    }
}

pub(super) fn check_proxy_config(rules: &mut Rules<'_>, at: At<'_>, spec: &ProxyConfigSpec) {
    if let Some(selector) = &spec.selector {
        values::selector(rules, at.key("selector").key("matchLabels"), &selector.match_labels);
    }
    values::not_negative(rules, at.key("concurrency"), spec.concurrency);
    for name in spec.environment_variables.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let at = at.key("environmentVariables");
            rules.error_at_key(at.key(name), format!("`{name}` is no name of a variable"), "");
        }
    }
}
