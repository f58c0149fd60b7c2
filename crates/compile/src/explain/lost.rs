//! Which rules concern a call and never became part of this proxy's configuration, and why?
//!
//! The compiled configuration does not know them, so this is the one part of an explanation that asks the world. It
//! judges by the same rules as the compiler does, one object at a time.

mod destination_rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_config::{HttpMatchRequest, HttpRoute};
use lateen_xds::{Origin, Part, XdsSet};

use super::call::{Call, CallProtocol, Direction};
use super::explanation::{Explanation, RefusalKind, Tried};
use super::virtual_host::without_port;
use crate::host::{self, MESH};
use crate::names;
use crate::scope::{Role, Scope};
use crate::world::World;
use crate::world::gateways::Gateway;
use crate::world::services::{Registry, Service};
use crate::world::virtual_services::{Rule, VirtualService};

/// Most lost rules that are spoken of.
const MAX_LOST: usize = 20;

/// Adds the rules that were lost before there was a call.
pub(crate) fn add(set: &XdsSet, world: &World, scope: &Scope, call: &Call, explanation: &mut Explanation) {
    // What arrives for the workload itself is not routed by any of these.
    if scope.role == Role::Sidecar && call.direction == Direction::Inbound {
        return;
    }
    let search = Search::new(set, world, scope, call, explanation);
    let mut lost = Vec::new();
    if call.protocol != CallProtocol::Tcp {
        search.virtual_services(&mut lost);
    }
    match scope.role {
        Role::Sidecar => search.services(explanation, &mut lost),
        Role::Gateway => search.gateways(explanation, &mut lost),
    }
    search.destination_rules(explanation, &mut lost);
    lost.retain(|tried| !explanation.tried.contains(tried));
    lost.truncate(MAX_LOST);
    explanation.tried.extend(lost);
    let mut notes: Vec<String> =
        explanation.clusters.iter().filter_map(|cluster| search.shortcoming(cluster)).collect();
    notes.dedup();
    explanation.policies.notes.extend(notes);
}

struct Search<'a> {
    world: &'a World,
    scope: &'a Scope,
    call: &'a Call,
    /// Host of the call as it is written, and the services that it means.
    names: Vec<Arc<str>>,
    services: Vec<&'a Service>,
    /// The objects behind the virtual host that was chosen.
    used: Vec<&'a Origin>,
    /// The Gateways behind the listener, as `namespace/name`.
    gateways: BTreeSet<String>,
}

impl<'a> Search<'a> {
    fn new(
        set: &'a XdsSet,
        world: &'a World,
        scope: &'a Scope,
        call: &'a Call,
        explanation: &Explanation,
    ) -> Search<'a> {
        let written = host::lower(without_port(&call.authority).trim_end_matches('.'));
        let services: Vec<&Service> = match scope.role {
            Role::Sidecar => world
                .services()
                .iter()
                .map(|service| &**service)
                .filter(|service| is_meant(service, &written, call, scope))
                .collect(),
            Role::Gateway => Vec::new(),
        };
        let mut names: Vec<Arc<str>> = services.iter().map(|service| service.host.clone()).collect();
        if scope.role == Role::Sidecar {
            names.extend(full_names(&written, scope, &world.mesh().cluster_domain));
        }
        if !written.is_empty() {
            names.push(written);
        }
        names.sort();
        names.dedup();
        Search {
            world,
            scope,
            call,
            names,
            services,
            used: used(set, explanation),
            gateways: gateways(set, explanation),
        }
    }

    fn virtual_services(&self, lost: &mut Vec<Tried>) {
        for virtual_service in self.world.all_virtual_services() {
            let is_concerned =
                virtual_service.hosts.iter().any(|wanted| self.names.iter().any(|name| host::covers(wanted, name)));
            if !is_concerned {
                continue;
            }
            if self.used.iter().any(|origin| is_same(origin, &virtual_service.origin)) {
                self.rules(virtual_service, lost);
            } else if let Some(reason) = self.unused(virtual_service) {
                lost.push(Tried { origin: Some((*virtual_service.origin).clone()), reason });
            } else {
                // It is for this proxy, so its rules must have been lost one by one.
                self.rules(virtual_service, lost);
            }
        }
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
        if virtual_service.http.is_empty() {
            return Some("it has no rules for HTTP".to_owned());
        }
        if self.scope.role == Role::Gateway {
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
            return (!offered).then(|| {
                format!("no server of gateway `{bound}` offers this host to namespace `{}`", virtual_service.namespace)
            });
        }
        let Some(winner) = self.used.iter().find(|origin| &*origin.kind == "VirtualService") else {
            let port = u32::from(self.call.port);
            if self.services.is_empty() {
                return Some("no Service or ServiceEntry has this host".to_owned());
            }
            let is_routed =
                |service: &&Service| service.port(port).is_some_and(|port| port.protocol.is_routed_as_http());
            let missing = !self.services.iter().any(is_routed);
            return missing.then(|| format!("no service of this host speaks HTTP on port {port}"));
        };
        let narrower = virtual_service.hosts.iter().all(|host| host::is_wildcard(host));
        let reason = if narrower { "names this host more exactly" } else { "has this host too, and comes first" };
        Some(format!("VirtualService {}/{} {reason}: a sidecar uses one alone", winner.namespace, winner.name))
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
        let serving: Vec<&str> = self.gateways.iter().map(String::as_str).collect();
        match serving.as_slice() {
            [] => format!("it is bound to gateway `{bound}`, which does not serve port {}", self.call.port),
            serving => {
                format!(
                    "it is bound to gateway `{bound}`; port {} is served by `{}`",
                    self.call.port,
                    serving.join("`, `")
                )
            }
        }
    }

    /// The rules and matches of a VirtualService that are decided when it is compiled.
    fn rules(&self, virtual_service: &VirtualService, lost: &mut Vec<Tried>) {
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
                match self.inapplicable(virtual_service, request) {
                    Some(reason) => lost.push(Tried { origin: Some(origin_of_match(rule, index, request)), reason }),
                    None if takes_everything(request) => {
                        taken_by = Some(format!("{}.match[{index}]", rule.origin.rule))
                    }
                    None => {}
                }
            }
        }
    }

    /// Why a match is not for this proxy or this port. One that names gateways is not asked for its source.
    fn inapplicable(&self, virtual_service: &VirtualService, request: &HttpMatchRequest) -> Option<String> {
        if let Some(port) = request.port.filter(|port| *port != 0 && *port != u32::from(self.call.port))
            // The port of a gateway's match is that of its server, which may be bound to another one.
            && (self.scope.role == Role::Sidecar || !self.serves(port))
        {
            return Some(format!("it is for port {port}, not {}", self.call.port));
        }
        if !request.gateways.is_empty() {
            let wanted: Vec<Arc<str>> =
                request.gateways.iter().map(|name| host::resolve_gateway(name, &virtual_service.namespace)).collect();
            let applies = wanted.iter().any(|name| match self.scope.role {
                Role::Sidecar => **name == *MESH,
                Role::Gateway => self.gateways.contains(&**name),
            });
            return (!applies).then(|| format!("it is for gateway `{}` alone", wanted.join("`, `")));
        }
        for (key, value) in &request.source_labels {
            if !self.scope.selected_by([(key.as_str(), value.as_str())].into_iter()) {
                return Some(format!("it is for clients with the label `{key}={value}`, which this one does not have"));
            }
        }
        let namespace = request.source_namespace.as_deref().filter(|namespace| !namespace.is_empty())?;
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

    /// Services of the name that the proxy does not know on this port.
    fn services(&self, explanation: &Explanation, lost: &mut Vec<Tried>) {
        let port = u32::from(self.call.port);
        let is_known =
            |service: &Service| {
                explanation.clusters.iter().any(|cluster| {
                    names::parse_outbound_cluster(&cluster.name).is_some_and(|of| *of.host == *service.host)
                }) || self.used.iter().any(|origin| is_same(origin, &service.origin))
            };
        for service in self.services.iter().filter(|service| !is_known(service)) {
            let namespace = &self.scope.namespace;
            let reason = if !service.visibility.includes(namespace) {
                format!("it is not exported to namespace `{namespace}`")
            } else if service.alias_of.is_some() {
                continue;
            } else if service.port(port).is_none() {
                let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
                match ports.as_slice() {
                    [] => format!("it has no ports, not even {port}"),
                    ports => format!("it has port {}, not {port}", ports.join(", ")),
                }
            } else {
                continue;
            };
            lost.push(Tried { origin: Some((*service.origin).clone()), reason });
        }
    }

    /// Gateways that do not serve the port or the host.
    fn gateways(&self, explanation: &Explanation, lost: &mut Vec<Tried>) {
        let refused = explanation.error.as_ref().map(|refusal| refusal.kind);
        if !matches!(
            refused,
            Some(
                RefusalKind::NoListener
                    | RefusalKind::NoVirtualHost
                    | RefusalKind::NoRoute
                    | RefusalKind::NoFilterChain
            )
        ) {
            return;
        }
        for gateway in self.world.gateways() {
            if let Some(reason) = self.unselected(gateway) {
                lost.push(Tried { origin: Some((*gateway.origin).clone()), reason });
                continue;
            }
            for server in &gateway.servers {
                let hosts: Vec<String> = server.hosts.iter().map(ToString::to_string).collect();
                let offers =
                    self.names.iter().any(|name| server.hosts.iter().any(|offered| host::covers(&offered.host, name)));
                let reason = if refused == Some(RefusalKind::NoListener) {
                    format!("it is for port {}", server.number)
                } else if offers || server.number != u32::from(self.call.port) {
                    continue;
                } else {
                    format!("it offers host `{}`", hosts.join("`, `"))
                };
                lost.push(Tried { origin: Some((*server.origin).clone()), reason });
            }
        }
    }

    fn unselected(&self, gateway: &Gateway) -> Option<String> {
        let (key, value) = gateway
            .selector
            .iter()
            .find(|(key, value)| !self.scope.selected_by([(key.as_str(), value.as_str())].into_iter()))?;
        Some(format!("it selects workloads with the label `{key}={value}`, which this gateway does not have"))
    }
}

/// Whether a sidecar's client means a service by this name, or by the address that it connects to.
fn is_meant(service: &Service, written: &str, call: &Call, scope: &Scope) -> bool {
    let by_address = |address: &str| service.addresses.iter().any(|known| **known == *address);
    if *service.host == *written || by_address(written) {
        return true;
    }
    if call.protocol == CallProtocol::Tcp && call.address.is_some_and(|address| by_address(&address.to_string())) {
        return true;
    }
    if service.registry != Registry::Kubernetes {
        return false;
    }
    let (name, namespace) = (&*service.name, &*service.namespace);
    match written.split_once('.') {
        None => written == name && *namespace == *scope.namespace,
        Some((first, rest)) => first == name && rest.strip_suffix(".svc").unwrap_or(rest) == namespace,
    }
}

/// What a short name means to a client in a namespace, whether or not there is such a service.
fn full_names(written: &str, scope: &Scope, domain: &str) -> Option<Arc<str>> {
    let labels: Vec<&str> = written.split('.').collect();
    match labels.as_slice() {
        ["localhost"] | [""] => None,
        [_] => Some(host::resolve(written, &scope.namespace, domain)),
        [name, namespace] | [name, namespace, "svc"] => Some(format!("{name}.{namespace}.svc.{domain}").into()),
        _ => None,
    }
}

/// The objects behind the virtual host that was chosen, and behind its routes.
fn used<'a>(set: &'a XdsSet, explanation: &Explanation) -> Vec<&'a Origin> {
    let (Some(name), Some(virtual_host)) = (&explanation.route_config, &explanation.virtual_host) else {
        return Vec::new();
    };
    let Some(routes) = set.routes.get(name.as_str()) else { return Vec::new() };
    let index = routes.message.virtual_hosts.iter().position(|host| host.name == *virtual_host);
    routes
        .origins
        .iter()
        .filter(|(part, _)| match part {
            Part::VirtualHost(host) | Part::Route { virtual_host: host, .. } => Some(*host) == index,
            Part::Whole | Part::FilterChain(_) => false,
        })
        .map(|(_, origin)| origin)
        .collect()
}

/// The Gateways behind the listener that was chosen.
fn gateways(set: &XdsSet, explanation: &Explanation) -> BTreeSet<String> {
    let listener = explanation.listener.as_ref().and_then(|name| set.listeners.get(name.as_str()));
    listener
        .iter()
        .flat_map(|listener| listener.origins.iter())
        .filter(|(_, origin)| &*origin.kind == "Gateway")
        .map(|(_, origin)| format!("{}/{}", origin.namespace, origin.name))
        .collect()
}

fn is_same(one: &Origin, other: &Origin) -> bool {
    (&one.kind, &one.namespace, &one.name) == (&other.kind, &other.namespace, &other.name)
}

fn origin_of_match(rule: &Rule<HttpRoute>, index: usize, request: &HttpMatchRequest) -> Origin {
    let mut origin = (*rule.origin).clone();
    origin.rule = format!("{}.match[{index}]", origin.rule);
    if request.at.line != 0 {
        origin.line = request.at.line;
    }
    origin
}

/// A match that asks for nothing, or for what every path begins with.
fn takes_everything(request: &HttpMatchRequest) -> bool {
    use lateen_config::StringMatch;
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
