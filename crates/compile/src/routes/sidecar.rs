//! Where does a sidecar send a request? One route configuration for each HTTP port of the services it sees, one for each
//! service whose address is listened on, and one for the explicit HTTP proxy port that holds them all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_xds::Resource;
use lateen_xds::envoy::config::route::v3::RouteConfiguration;

use super::default_route;
use super::memory::{Memory, Naming};
use super::table::{self, CatchAll, Draft, Frame};
use super::virtual_service::Listener;
use crate::context::{Context, Egress};
use crate::host;
use crate::identity::address;
use crate::listeners::outbound::Table;
use crate::mesh::OutboundTrafficPolicy;
use crate::names;
use crate::world::services::{Registry, Service};
use crate::world::virtual_services::VirtualService;

/// The route configurations of a sidecar by name: those that its listeners ask for.
pub(crate) fn compile(
    cx: &Context<'_>,
    tables: &[Table],
    memory: &mut Memory,
) -> BTreeMap<Arc<str>, Resource<RouteConfiguration>> {
    let mut routes: BTreeMap<Arc<str>, Resource<RouteConfiguration>> = BTreeMap::new();
    let by_port: Vec<BTreeMap<u32, OnPort<'_>>> = cx.egress.iter().map(OnPort::of_egress).collect();
    for asked in tables {
        let name: Arc<str> = asked.name().into();
        let (egress, port) = match asked {
            Table::Port { egress, port } | Table::Service { egress, port, .. } => (*egress, *port),
        };
        let Some(on_port) = by_port.get(egress).and_then(|by_port| by_port.get(&port)) else {
            continue;
        };
        let key = on_port.key();
        let table = memory.table(&name, key, |memory, spare| {
            let mut drafts = on_port.drafts(cx, memory);
            let mut frame = Frame { name: &name, catch_all: catch_all(cx), ignore_port: true, origins: Vec::new() };
            if let Table::Service { service, .. } = asked {
                // The address told the service already, so any host will do.
                let own = names::virtual_host(&service.host, port);
                drafts.retain(|draft| *draft.name == *own);
                drafts.iter_mut().for_each(|draft| draft.domains = Arc::new(vec!["*".to_owned()]));
                frame.catch_all = CatchAll::None;
            }
            table::build(cx, frame, &drafts, spare)
        });
        routes.insert(name, table);
    }
    if cx.http_proxy_port().is_some() {
        let name: Arc<str> = names::HTTP_PROXY_ROUTES.into();
        let all = cx.egress.iter().flat_map(|egress| &egress.virtual_services);
        let key = all.map(|virtual_service| address(&***virtual_service)).collect();
        let table = memory.table(&name, key, |memory, spare| http_proxy(cx, memory, spare));
        routes.insert(name, table);
    }
    routes
}

/// The hosts of all ports. Hosts outside of every registry are routed on port 80, whether or not a service has it.
fn http_proxy(cx: &Context<'_>, memory: &mut Memory, spare: Option<table::Table>) -> table::Table {
    let mut drafts_of_all = Vec::new();
    for egress in cx.egress.iter().filter(|egress| egress.port.is_none()) {
        for (port, on_port) in OnPort::of_egress(egress) {
            let drafts = on_port.drafts(cx, memory);
            drafts_of_all.extend(drafts.into_iter().map(|draft| with_port(draft, port)));
        }
    }
    // Here the port tells one service from another, so it takes part in the comparison.
    let frame =
        Frame { name: names::HTTP_PROXY_ROUTES, catch_all: catch_all(cx), ignore_port: false, origins: Vec::new() };
    table::build(cx, frame, &drafts_of_all, spare)
}

/// Forwarding to the original destination needs one: a client that addresses the proxy itself has none, so its
/// unknown hosts are answered 502 whatever the policy.
fn catch_all(cx: &Context<'_>) -> CatchAll {
    if cx.is_addressed() {
        return CatchAll::BlockAll;
    }
    match (cx.outbound_traffic_policy(), cx.egress_proxy()) {
        (OutboundTrafficPolicy::RegistryOnly, _) => CatchAll::BlockAll,
        (OutboundTrafficPolicy::AllowAny, Some(proxy)) => CatchAll::Forward(names::egress_proxy_cluster(proxy)),
        (OutboundTrafficPolicy::AllowAny, None) => CatchAll::Forward(names::PASSTHROUGH_CLUSTER.to_owned()),
        (OutboundTrafficPolicy::AllowAnyDynamicDns, _) => CatchAll::DynamicDns,
    }
}

/// The routes of a listener of which nothing is known but that HTTP is spoken: those to unknown hosts.
pub(crate) fn unknown_hosts(cx: &Context<'_>, name: &str) -> RouteConfiguration {
    let frame = Frame { name, catch_all: catch_all(cx), ignore_port: true, origins: Vec::new() };
    Arc::unwrap_or_clone(table::build(cx, frame, &[], None).resource.message)
}

/// Domains as clients of an HTTP proxy write them: with the port, and without it for port 80.
fn with_port(draft: Draft, port: u32) -> Draft {
    let mut domains: Vec<String> = draft.domains.iter().map(|domain| format!("{domain}:{port}")).collect();
    if port == 80 {
        domains.extend(draft.domains.iter().cloned());
    }
    Draft { domains: Arc::new(domains), ..draft }
}

/// What a route configuration of a port is made of.
struct OnPort<'a> {
    port: u32,
    services: Services<'a>,
    virtual_services: Vec<&'a VirtualService>,
}

impl<'a> OnPort<'a> {
    /// Everything that is routed for an egress listener, by port. The well-known exception of port 80: there,
    /// VirtualServices for hosts of no registry count too, so it is there whether or not a service has it.
    fn of_egress(egress: &Egress<'a>) -> BTreeMap<u32, OnPort<'a>> {
        let empty = |port| OnPort { port, services: Services::default(), virtual_services: Vec::new() };
        let mut by_port: BTreeMap<u32, OnPort<'a>> = BTreeMap::from([(80, empty(80))]);
        let mut wildcards: Vec<&'a Service> = Vec::new();
        for service in egress.services.values() {
            for port in service.ports.iter().filter(|port| port.protocol.is_routed_as_http()) {
                by_port.entry(port.number).or_insert_with(|| empty(port.number)).services.add(service);
            }
            if host::is_wildcard(&service.host) {
                wildcards.push(service);
            }
        }
        for virtual_service in &egress.virtual_services {
            let mut ports = BTreeSet::from([80]);
            for name in &virtual_service.hosts {
                let mut add = |service: &Service| {
                    let routed = service.ports.iter().filter(|port| port.protocol.is_routed_as_http());
                    ports.extend(routed.map(|port| port.number));
                };
                if host::is_wildcard(name) {
                    let overlapping = egress.services.values().filter(|service| host::overlaps(name, &service.host));
                    overlapping.for_each(|service| add(service));
                } else {
                    egress.services.get(&**name).into_iter().for_each(|service| add(service));
                    wildcards
                        .iter()
                        .filter(|service| host::covers(&service.host, name))
                        .for_each(|service| add(service));
                }
            }
            for port in ports {
                if let Some(on_port) = by_port.get_mut(&port) {
                    on_port.virtual_services.push(virtual_service);
                }
            }
        }
        by_port
    }

    /// What may differ between two compilations with the same services.
    fn key(&self) -> Vec<usize> {
        self.virtual_services.iter().map(|virtual_service| address(*virtual_service)).collect()
    }

    /// The virtual hosts: those of VirtualServices first, then the services that none names.
    fn drafts(&self, cx: &Context<'_>, memory: &mut Memory) -> Vec<Draft> {
        let port = self.port;
        let most_specific = MostSpecific::build(&self.virtual_services);
        let mut drafts = Vec::new();
        let mut routed: HashSet<&str> = HashSet::with_capacity(self.services.all.len());
        for (index, virtual_service) in self.virtual_services.iter().enumerate() {
            let routes = memory.routes(cx, virtual_service, Listener::Sidecar { port });
            if routes.is_empty() {
                continue;
            }
            let hosts = self.services.split(virtual_service, index, &most_specific);
            if port != 80 && hosts.registered.is_empty() {
                continue;
            }
            let draft = |(name, domains): Naming| Draft {
                name,
                domains,
                routes: routes.clone(),
                require_tls: false,
                origins: vec![virtual_service.origin.clone()],
            };
            for host in hosts.unregistered {
                drafts.push(draft((names::virtual_host(host, port).into(), Arc::new(vec![host.to_owned()]))));
            }
            for service in hosts.registered {
                routed.insert(&service.host);
                drafts.push(draft(memory.naming(service, port, || domains(cx, service))));
            }
        }
        for service in self.services.all.iter().copied().filter(|service| !routed.contains(&*service.host)) {
            let (name, domains) = memory.naming(service, port, || domains(cx, service));
            drafts.push(Draft {
                name,
                domains,
                routes: memory.default_routes(service, port, || default_route(cx, service, port)),
                require_tls: false,
                origins: vec![service.origin.clone()],
            });
        }
        drafts
    }
}

/// The services that a port's route configuration knows.
#[derive(Default)]
struct Services<'a> {
    by_host: HashMap<&'a str, &'a Service>,
    /// In the order of their hosts.
    all: Vec<&'a Service>,
}

/// The hosts of one VirtualService, apart.
struct Hosts<'a> {
    registered: Vec<&'a Service>,
    unregistered: Vec<&'a str>,
}

impl<'a> Services<'a> {
    fn add(&mut self, service: &'a Service) {
        if self.by_host.insert(&service.host, service).is_none() {
            self.all.push(service);
        }
    }

    /// Which services a VirtualService routes for, and which of its hosts belong to none. A wildcard takes the
    /// services below it for which no more specific VirtualService exists.
    fn split(&self, virtual_service: &'a VirtualService, index: usize, most_specific: &MostSpecific<'a>) -> Hosts<'a> {
        let mut hosts = Hosts { registered: Vec::new(), unregistered: Vec::new() };
        let mut seen = BTreeSet::new();
        for host in &virtual_service.hosts {
            if let Some(service) = self.by_host.get(&**host) {
                if seen.insert(&*service.host) {
                    hosts.registered.push(service);
                }
                continue;
            }
            let mut covered = false;
            if host::is_wildcard(host) {
                for service in self.all.iter().copied().filter(|service| host::covers(host, &service.host)) {
                    covered = true;
                    if most_specific.of(&service.host) == Some(index) && seen.insert(&*service.host) {
                        hosts.registered.push(service);
                    }
                }
            }
            if !covered {
                hosts.unregistered.push(host);
            }
        }
        hosts
    }
}

/// For each host, which VirtualService names it most specifically.
struct MostSpecific<'a> {
    exact: BTreeMap<&'a str, usize>,
    /// Most specific first.
    wildcards: Vec<(&'a str, usize)>,
}

impl<'a> MostSpecific<'a> {
    fn build(virtual_services: &[&'a VirtualService]) -> MostSpecific<'a> {
        let mut hosts = virtual_services.iter().flat_map(|virtual_service| &virtual_service.hosts);
        if hosts.all(|host| !host::is_wildcard(host)) {
            // Nobody asks then.
            return MostSpecific { exact: BTreeMap::new(), wildcards: Vec::new() };
        }
        let mut by_host: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, virtual_service) in virtual_services.iter().enumerate() {
            for host in &virtual_service.hosts {
                by_host.entry(host).or_insert(index);
            }
        }
        let (mut wildcards, exact): (Vec<_>, Vec<_>) =
            by_host.into_iter().partition(|(host, _)| host::is_wildcard(host));
        wildcards.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
        MostSpecific { exact: exact.into_iter().collect(), wildcards }
    }

    fn of(&self, service: &str) -> Option<usize> {
        self.exact
            .get(service)
            .copied()
            .or_else(|| self.wildcards.iter().find(|(wide, _)| host::covers(wide, service)).map(|(_, index)| *index))
    }
}

/// All names by which clients in the sidecar's namespace call a service.
fn domains(cx: &Context<'_>, service: &Service) -> Vec<String> {
    let mut domains = Vec::new();
    add_names(cx, service, &mut domains);
    for alias in cx.aliases_of(&service.host) {
        add_names(cx, alias, &mut domains);
    }
    for address in &service.addresses {
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => domains.push(format!("[{address}]")),
            Ok(IpAddr::V4(_)) => domains.push(address.to_string()),
            // A range of addresses is no host that a request could name.
            Err(_) => {}
        }
    }
    domains
}

/// The full name, with and without the trailing dot, and for Kubernetes services the short forms: the bare name
/// only for clients in the same namespace. A short form that is another service's full name stays with that one.
fn add_names(cx: &Context<'_>, service: &Service, domains: &mut Vec<String>) {
    let host = &*service.host;
    let mut names = vec![host.to_owned()];
    if !host::is_wildcard(host) {
        names.push(format!("{host}."));
    }
    if service.registry == Registry::Kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        let short = format!("{name}.{namespace}");
        let service_form = format!("{name}.{namespace}.svc");
        let expanded = if *namespace == cx.scope.namespace {
            vec![name.to_string(), service_form, short]
        } else {
            vec![short, service_form]
        };
        names.extend(expanded.into_iter().filter(|name| cx.service(name).is_none()));
    }
    if service.is_headless() {
        let below: Vec<String> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    domains.extend(names);
}
