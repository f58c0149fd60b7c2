//! What does one proxy see of the world? The services visible to its namespace, one for each host, and the ports
//! on which they speak HTTP.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::Protocol;
use crate::scope::{Interception, Role, Scope};
use crate::world::World;
use crate::world::destination_rules::{Client, DestinationRule};
use crate::world::services::{Discovery, Service};

/// The world as one scope sees it, built once for each compilation.
pub(crate) struct Context<'a> {
    pub(crate) world: &'a World,
    pub(crate) scope: &'a Scope,
    by_host: BTreeMap<&'a str, &'a Service>,
    aliases: BTreeMap<&'a str, Vec<&'a Service>>,
    http_ports: BTreeSet<u32>,
}

impl<'a> Context<'a> {
    /// Of several services with one host the one in the proxy's own namespace counts, then a Kubernetes Service,
    /// then the oldest.
    pub(crate) fn new(world: &'a World, scope: &'a Scope) -> Context<'a> {
        let mut by_host: BTreeMap<&str, &Service> = BTreeMap::new();
        let rank = |service: &Service| (service.namespace != scope.namespace, service.registry);
        for service in world.services().iter().filter(|service| service.visibility.includes(&scope.namespace)) {
            by_host
                .entry(&service.host)
                .and_modify(|chosen| {
                    // The list is sorted by age, so an equal rank leaves the older one.
                    if rank(service) < rank(chosen) {
                        *chosen = service;
                    }
                })
                .or_insert(service);
        }
        let mut aliases: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
        for service in by_host.values() {
            if let Some(target) = &service.alias_of {
                aliases.entry(target).or_default().push(service);
            }
        }
        let http_ports = by_host
            .values()
            .filter(|service| service.alias_of.is_none())
            .flat_map(|service| &service.ports)
            .filter(|port| port.protocol.is_routed_as_http())
            .map(|port| port.number)
            .collect();
        Context { world, scope, by_host, aliases, http_ports }
    }

    /// The services, by host; names for other services are not among them.
    pub(crate) fn services(&self) -> impl Iterator<Item = &'a Service> {
        self.by_host.values().copied().filter(|service| service.alias_of.is_none())
    }

    /// The service with exactly this host, be it another one's alias.
    pub(crate) fn service(&self, host: &str) -> Option<&'a Service> {
        self.by_host.get(host).copied()
    }

    /// The service that requests for a host go to: an alias leads to what it names.
    pub(crate) fn destination(&self, host: &str) -> Option<&'a Service> {
        let service = self.service(host)?;
        match &service.alias_of {
            Some(target) => self.service(target).filter(|target| target.alias_of.is_none()),
            None => Some(service),
        }
    }

    /// The DestinationRule that holds for a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<&'a DestinationRule> {
        let client = Client { namespace: &self.scope.namespace, labels: self.scope.labels.as_ref() };
        self.world.destination_rule(service, &client)
    }

    /// The other names of a service.
    pub(crate) fn aliases_of(&self, host: &str) -> &[&'a Service] {
        self.aliases.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Port numbers on which some service is routed as HTTP.
    pub(crate) fn http_ports(&self) -> &BTreeSet<u32> {
        &self.http_ports
    }

    /// Where the endpoints of a service come from for this proxy. Gateways, and sidecars that clients address,
    /// know no original destination: they choose among all endpoints of a headless service,
    /// and resolve the name of a service that has no endpoints but the original destination.
    pub(crate) fn discovery(&self, service: &Service) -> Discovery {
        match service.discovery {
            Discovery::Headless if !self.is_redirected() => Discovery::Endpoints,
            Discovery::OriginalDestination if !self.is_redirected() => Discovery::Dns,
            other => other,
        }
    }

    /// True when connections come with the destination that their clients wanted.
    pub(crate) fn is_redirected(&self) -> bool {
        self.scope.role == Role::Sidecar && self.scope.interception == Interception::Redirect
    }

    /// True when the data plane speaks to a port whatever its client spoke.
    pub(crate) fn follows_client_protocol(&self, protocol: Protocol) -> bool {
        self.scope.role == Role::Sidecar && protocol == Protocol::Auto
    }
}
