//! Which VirtualServices, and which of their rules and matches, are not for this proxy and port?

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{HttpMatchRequest, L4MatchAttributes, StringMatch, TlsMatchAttributes};
use lateen_xds::Origin;

use super::{Search, is_same};
use crate::explain::explanation::Tried;
use crate::host::{self, MESH};
use crate::routes::is_claim;
use crate::scope::Role;
use crate::world::services::Service;
use crate::world::virtual_services::VirtualService;

/// The conditions of a match that are decided when it is compiled.
struct Conditions<'a> {
    port: Option<u32>,
    gateways: &'a [String],
    source_labels: &'a BTreeMap<String, String>,
    source_namespace: Option<&'a str>,
    /// A match that names gateways is not asked for its source.
    gateways_alone: bool,
}

impl<'a> From<&'a HttpMatchRequest> for Conditions<'a> {
    fn from(request: &'a HttpMatchRequest) -> Self {
        Conditions {
            port: request.port,
            gateways: &request.gateways,
            source_labels: &request.source_labels,
            source_namespace: request.source_namespace.as_deref(),
            gateways_alone: true,
        }
    }
}

impl<'a> From<&'a TlsMatchAttributes> for Conditions<'a> {
    fn from(attributes: &'a TlsMatchAttributes) -> Self {
        Conditions {
            port: attributes.port,
            gateways: &attributes.gateways,
            source_labels: &attributes.source_labels,
            source_namespace: attributes.source_namespace.as_deref(),
            gateways_alone: false,
        }
    }
}

impl<'a> From<&'a L4MatchAttributes> for Conditions<'a> {
    fn from(attributes: &'a L4MatchAttributes) -> Self {
        Conditions {
            port: attributes.port,
            gateways: &attributes.gateways,
            source_labels: &attributes.source_labels,
            source_namespace: attributes.source_namespace.as_deref(),
            gateways_alone: false,
        }
    }
}

impl Search<'_> {
    pub(super) fn virtual_services(&self, lost: &mut Vec<Tried>) {
        for virtual_service in self.world.all_virtual_services() {
            let concerns = |wanted: &str| {
                // `*` is for gateways alone; in the mesh it concerns nobody.
                (wanted != "*" || self.scope.role == Role::Gateway)
                    && self.names.iter().any(|name| host::covers(wanted, name))
            };
            let is_concerned = virtual_service.hosts.iter().any(|wanted| concerns(wanted));
            // Of rules for all hosts, those that nobody would expect to count are not worth a word.
            let is_remote = virtual_service.hosts.iter().all(|wanted| &**wanted == "*") && !self.fits(virtual_service);
            if !is_concerned || is_remote {
                continue;
            }
            if !self.used.iter().any(|origin| is_same(origin, &virtual_service.origin))
                && let Some(reason) = self.unused(virtual_service)
            {
                lost.push(Tried { origin: Some((*virtual_service.origin).clone()), reason });
            } else {
                // It is for this proxy, so what is lost of it was lost rule by rule.
                self.rules(virtual_service, lost);
            }
        }
    }

    /// Whether a VirtualService has rules of the kind that the connection is.
    fn fits(&self, virtual_service: &VirtualService) -> bool {
        if self.is_http { !virtual_service.http.is_empty() } else { virtual_service.shapes_listeners() }
    }

    /// Why nothing of a VirtualService is in use.
    fn unused(&self, virtual_service: &VirtualService) -> Option<String> {
        let bound = virtual_service.gateways.join("`, `");
        let is_bound = match self.scope.role {
            Role::Sidecar => virtual_service.gateways.iter().any(|gateway| **gateway == *MESH),
            Role::Gateway => virtual_service.gateways.iter().any(|gateway| self.gateways.contains(&**gateway)),
        };
        if !is_bound {
            return Some(match (self.scope.role, self.missing_gateway(virtual_service)) {
                (_, Some(missing)) => format!("it is bound to gateway `{missing}`, which does not exist"),
                (Role::Sidecar, None) => format!("it is bound to gateway `{bound}`, not to the mesh"),
                (Role::Gateway, None) => self.bound_elsewhere(virtual_service, &bound),
            });
        }
        let namespace = &self.scope.namespace;
        if !virtual_service.visibility.includes(namespace) {
            return Some(format!("it is not exported to namespace `{namespace}`"));
        }
        if !self.fits(virtual_service) {
            return Some(if self.is_http {
                "it has no rules for HTTP".to_owned()
            } else {
                "its rules are for HTTP, and this connection is not read as HTTP".to_owned()
            });
        }
        match self.scope.role {
            Role::Gateway => self.not_offered(virtual_service, &bound),
            Role::Sidecar => self.not_imported(virtual_service).or_else(|| self.without_service(virtual_service)),
        }
    }

    /// A gateway's server has to offer the host.
    fn not_offered(&self, virtual_service: &VirtualService, bound: &str) -> Option<String> {
        let offered = self
            .world
            .gateways()
            .iter()
            .filter(|gateway| self.gateways.contains(&gateway.full_name()))
            .filter(|gateway| virtual_service.gateways.iter().any(|bound| **bound == *gateway.full_name()))
            .flat_map(|gateway| &gateway.servers)
            .any(|server| {
                let offered = server.hosts_for(&virtual_service.namespace);
                self.names.iter().any(|name| offered.iter().any(|host| host::overlaps(host, name)))
            });
        (!offered).then(|| {
            format!("no server of gateway `{bound}` offers this host to namespace `{}`", virtual_service.namespace)
        })
    }

    /// A Sidecar object may leave it out.
    fn not_imported(&self, virtual_service: &VirtualService) -> Option<String> {
        let sidecar = self.cx.sidecar?;
        let imported = self
            .cx
            .egress
            .iter()
            .flat_map(|egress| &egress.virtual_services)
            .any(|imported| is_same(&imported.origin, &virtual_service.origin));
        (!imported).then(|| format!("Sidecar {}/{} does not import it", sidecar.namespace, sidecar.name))
    }

    /// In the mesh a host counts through its service, and through one VirtualService alone.
    fn without_service(&self, virtual_service: &VirtualService) -> Option<String> {
        if self.services.is_empty() {
            return Some("no Service or ServiceEntry has this host".to_owned());
        }
        if !self.is_http {
            return None;
        }
        if let Some(winner) = self.used.iter().find(|origin| &*origin.kind == "VirtualService") {
            let is_wide = virtual_service.hosts.iter().all(|host| host::is_wildcard(host));
            let reason = if is_wide { "names this host more exactly" } else { "has this host too, and comes first" };
            return Some(format!(
                "VirtualService {}/{} {reason}: a sidecar uses one alone",
                winner.namespace, winner.name
            ));
        }
        let port = u32::from(self.call.port);
        let is_routed = |service: &&Service| service.port(port).is_some_and(|port| port.protocol.is_routed_as_http());
        let missing = !self.services.iter().any(is_routed);
        missing.then(|| format!("no service of this host speaks HTTP on port {port}"))
    }

    /// A gateway that a VirtualService names and that is not there.
    fn missing_gateway<'v>(&self, virtual_service: &'v VirtualService) -> Option<&'v str> {
        let exists = |name: &str| self.world.gateways().iter().any(|gateway| gateway.full_name() == name);
        virtual_service.gateways.iter().map(|name| &**name).find(|name| *name != MESH && !exists(name))
    }

    fn bound_elsewhere(&self, virtual_service: &VirtualService, bound: &str) -> String {
        if virtual_service.gateways.iter().all(|gateway| **gateway == *MESH) {
            return "it is bound to the mesh, not to a gateway".to_owned();
        }
        let port = self.call.port;
        let serving: Vec<&str> = self.gateways.iter().map(String::as_str).collect();
        match serving.as_slice() {
            [] => format!("it is bound to gateway `{bound}`, which does not serve port {port}"),
            serving => {
                format!("it is bound to gateway `{bound}`; port {port} is served by `{}`", serving.join("`, `"))
            }
        }
    }

    /// The rules and matches of a VirtualService that are decided when it is compiled.
    fn rules(&self, virtual_service: &VirtualService, lost: &mut Vec<Tried>) {
        if self.is_http {
            self.http_rules(virtual_service, lost);
            return;
        }
        for rule in &virtual_service.tls {
            for (index, attributes) in rule.route.r#match.iter().enumerate() {
                let reason = self.inapplicable(virtual_service, attributes.into());
                lost.extend(reason.map(|reason| lost_match(&rule.origin, index, attributes.at.line, reason)));
            }
        }
        for rule in &virtual_service.tcp {
            for (index, attributes) in rule.route.r#match.iter().enumerate() {
                let reason = self.inapplicable(virtual_service, attributes.into());
                lost.extend(reason.map(|reason| lost_match(&rule.origin, index, attributes.at.line, reason)));
            }
        }
    }

    fn http_rules(&self, virtual_service: &VirtualService, lost: &mut Vec<Tried>) {
        let mut taken_by: Option<String> = None;
        for rule in &virtual_service.http {
            if let Some(earlier) = &taken_by {
                let reason = format!("it is never reached: `{earlier}` before it takes every request");
                lost.push(Tried { origin: Some((*rule.origin).clone()), reason });
                continue;
            }
            if rule.route.r#match.is_empty() {
                taken_by = Some(rule.origin.rule.clone());
            }
            for (index, request) in rule.route.r#match.iter().enumerate() {
                match self.inapplicable(virtual_service, request.into()).or_else(|| undecided(request)) {
                    Some(reason) => lost.push(lost_match(&rule.origin, index, request.at.line, reason)),
                    None if takes_everything(request) => {
                        taken_by = Some(format!("{}.match[{index}]", rule.origin.rule));
                    }
                    None => {}
                }
            }
        }
    }

    /// Why a match is not for this proxy or this port.
    fn inapplicable(&self, virtual_service: &VirtualService, conditions: Conditions<'_>) -> Option<String> {
        if let Some(port) = conditions.port.filter(|port| *port != 0 && *port != u32::from(self.call.port))
            // The port of a gateway's match is that of its server, which may be bound to another one.
            && (self.scope.role == Role::Sidecar || !self.serves(port))
        {
            return Some(format!("it is for port {port}, not {}", self.call.port));
        }
        if !conditions.gateways.is_empty() {
            let wanted: Vec<Arc<str>> = conditions
                .gateways
                .iter()
                .map(|name| host::resolve_gateway(name, &virtual_service.namespace))
                .collect();
            let applies = wanted.iter().any(|name| match self.scope.role {
                Role::Sidecar => **name == *MESH,
                Role::Gateway => self.gateways.contains(&**name),
            });
            if !applies {
                return Some(format!("it is for gateway `{}` alone", wanted.join("`, `")));
            }
            if conditions.gateways_alone {
                return None;
            }
        }
        for (key, value) in conditions.source_labels {
            if !self.scope.selected_by([(key.as_str(), value.as_str())].into_iter()) {
                return Some(format!("it is for clients with the label `{key}={value}`, which this one does not have"));
            }
        }
        let namespace = conditions.source_namespace.filter(|namespace| !namespace.is_empty())?;
        (*namespace != *self.scope.namespace)
            .then(|| format!("it is for clients in namespace `{namespace}`, not `{}`", self.scope.namespace))
    }

    /// Whether a server of the Gateways behind the listener has this number.
    fn serves(&self, port: u32) -> bool {
        self.world
            .gateways()
            .iter()
            .filter(|gateway| self.gateways.contains(&gateway.full_name()))
            .any(|gateway| gateway.servers.iter().any(|server| server.number == port))
    }
}

fn lost_match(rule: &Origin, index: usize, line: u32, reason: String) -> Tried {
    let mut origin = rule.clone();
    origin.rule = format!("{}.match[{index}]", origin.rule);
    if line != 0 {
        origin.line = line;
    }
    Tried { origin: Some(origin), reason }
}

/// Claims of a token are not compiled into routes.
fn undecided(request: &HttpMatchRequest) -> Option<String> {
    let claim = request.headers.keys().chain(request.without_headers.keys()).find(|name| is_claim(name))?;
    Some(format!("it asks for the claim `{claim}` of a token, which is not compiled"))
}

/// A match that asks for nothing, or for what every path begins with.
fn takes_everything(request: &HttpMatchRequest) -> bool {
    let every_path = match &request.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Regex(regex)) => regex == ".*",
        Some(_) => false,
    };
    every_path
        && request.method.is_none()
        && request.scheme.is_none()
        && request.authority.is_none()
        && request.headers.is_empty()
        && request.without_headers.is_empty()
        && request.query_params.is_empty()
}
