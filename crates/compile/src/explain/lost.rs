//! Which rules concern a call and never became part of this proxy's configuration, and why?
//!
//! The compiled configuration does not know them, so this is the one part of an explanation that asks the world. It
//! judges by the same rules as the compiler does, one object at a time.

mod destination_rules;
mod virtual_services;

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_xds::{Origin, Part, XdsSet};

use super::call::{Call, CallProtocol, CallTls, Direction};
use super::explanation::{Explanation, RefusalKind, Tried};
use super::virtual_host::without_port;
use crate::context::Context;
use crate::host;
use crate::names;
use crate::scope::{Role, Scope};
use crate::world::World;
use crate::world::gateways::{Gateway, Server};
use crate::world::services::{Registry, Service};

/// Most lost rules that are spoken of.
const MAX_LOST: usize = 20;

/// Adds the rules that were lost before there was a call.
pub(crate) fn add(set: &XdsSet, world: &World, scope: &Scope, call: &Call, explanation: &mut Explanation) {
    // What arrives for the workload itself is not routed by any of these.
    if scope.role == Role::Sidecar && call.direction == Direction::Inbound {
        return;
    }
    let search = Search::new(set, world, scope, call, explanation);
    if let Some(server) = search.redirecting_server(explanation) {
        explanation.origin = Some((*server.origin).clone());
    }
    let mut lost = Vec::new();
    search.virtual_services(&mut lost);
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
    cx: Context<'a>,
    world: &'a World,
    scope: &'a Scope,
    call: &'a Call,
    /// Whether the request was read as HTTP, or would have been.
    is_http: bool,
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
        names.extend(call.sni.iter().map(|name| host::lower(name)));
        if !written.is_empty() {
            names.push(written);
        }
        names.sort();
        names.dedup();
        let gateways = gateways(set, explanation);
        let is_encrypted = call.tls != CallTls::Plaintext && explanation.route_config.is_none();
        Search {
            cx: Context::new(world, scope),
            is_http: call.protocol != CallProtocol::Tcp && !is_encrypted,
            world,
            scope,
            call,
            names,
            services,
            used: used(set, explanation),
            gateways,
        }
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
            } else if let Some(sidecar) = self.cx.sidecar
                && self.cx.service(&service.host).is_none()
            {
                format!("Sidecar {}/{} does not import it", sidecar.namespace, sidecar.name)
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

    /// The server of a Gateway that sends plaintext to HTTPS, whatever the routes say.
    fn redirecting_server(&self, explanation: &Explanation) -> Option<&'a Server> {
        let refused = explanation.error.as_ref().map(|refusal| refusal.kind);
        if self.scope.role != Role::Gateway || refused != Some(RefusalKind::TlsRedirect) {
            return None;
        }
        let gateways = self.world.gateways().iter().filter(|gateway| self.unselected(gateway).is_none());
        gateways.flat_map(|gateway| &gateway.servers).find(|server| {
            server.number == u32::from(self.call.port)
                && server.redirects_to_https()
                && self.names.iter().any(|name| server.hosts.iter().any(|served| host::covers(&served.host, name)))
        })
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
                // A filter chain that was lost has said why already.
                let is_named = explanation.tried.iter().any(|tried| tried.origin.as_ref() == Some(&*server.origin));
                if !is_named {
                    lost.push(Tried { origin: Some((*server.origin).clone()), reason });
                }
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
        return chain_origins(set, explanation);
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

/// The objects behind the filter chains of the listener: a connection that is not read has no others.
fn chain_origins<'a>(set: &'a XdsSet, explanation: &Explanation) -> Vec<&'a Origin> {
    let listener = explanation.listener.as_ref().and_then(|name| set.listeners.get(name.as_str()));
    let of_chains = |(part, _): &&(Part, Origin)| matches!(part, Part::FilterChain(_));
    listener
        .into_iter()
        .flat_map(|listener| listener.origins.iter().filter(of_chains))
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
