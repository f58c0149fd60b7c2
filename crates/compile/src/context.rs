//! What does one proxy see of the world? The services that it imports, one for each host, the VirtualServices that
//! route to them, and the policies that hold for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Destination, OutboundTrafficPolicyMode};

use crate::host::MESH;
use crate::identity::address;
use crate::mesh::OutboundTrafficPolicy;
use crate::protocol::Protocol;
use crate::scope::{Interception, Role, Scope};
use crate::world::World;
use crate::world::destination_rules::{Client, DestinationRule};
use crate::world::services::{Discovery, Endpoint, Service, ServicePort};
use crate::world::sidecars::{Imports, Sidecar};
use crate::world::virtual_services::VirtualService;

/// The world as one scope sees it, built once for each compilation.
pub(crate) struct Context<'a> {
    pub(crate) world: &'a World,
    pub(crate) scope: &'a Scope,
    /// The Sidecar object that holds for the proxy; none for gateways.
    pub(crate) sidecar: Option<&'a Sidecar>,
    /// What each egress listener of a sidecar sees, in order; one for all that is visible for a gateway.
    pub(crate) egress: Vec<Egress<'a>>,
    by_host: BTreeMap<&'a str, &'a Arc<Service>>,
    aliases: BTreeMap<&'a str, Vec<&'a Arc<Service>>>,
}

/// What one egress listener of a sidecar sees.
pub(crate) struct Egress<'a> {
    pub(crate) imports: &'a Imports,
    /// Number of the port that it is for; `None` for the one that takes all others.
    pub(crate) port: Option<u32>,
    /// By host; names for other services are not among them.
    pub(crate) services: BTreeMap<&'a str, &'a Arc<Service>>,
    /// In their order of precedence.
    pub(crate) virtual_services: Vec<&'a Arc<VirtualService>>,
}

impl<'a> Context<'a> {
    /// Of several services with one host the one in the proxy's own namespace counts, then a Kubernetes Service,
    /// then the oldest.
    pub(crate) fn new(world: &'a World, scope: &'a Scope) -> Context<'a> {
        let sidecar = match scope.role {
            Role::Sidecar => world.sidecar(&scope.namespace, scope.labels.as_ref()),
            Role::Gateway => None,
        };
        let mut visible: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
        let mut hidden: Vec<&Arc<Service>> = Vec::new();
        let rank = |service: &Service| (service.namespace != scope.namespace, service.registry);
        for service in world.services().iter().filter(|service| service.visibility.includes(&scope.namespace)) {
            // The list is sorted by age, so an equal rank leaves the older one.
            match visible.get_mut(&*service.host) {
                None => {
                    visible.insert(&service.host, service);
                }
                Some(chosen) if rank(service) < rank(chosen) => hidden.push(std::mem::replace(chosen, service)),
                Some(_) => hidden.push(service),
            }
        }
        hidden.sort_by_key(|service| (rank(service), service.index));
        let imports = world.imports(sidecar);
        let of_mesh: Vec<&Arc<VirtualService>> = world.virtual_services(MESH, &scope.namespace).collect();
        let egress: Vec<Egress<'_>> =
            imports.iter().map(|imports| Egress::build(imports, &visible, &hidden, &of_mesh)).collect();
        let mut by_host = BTreeMap::new();
        if imports.iter().any(Imports::is_everything) {
            by_host = visible;
        } else {
            for egress in &egress {
                for (host, service) in &egress.services {
                    by_host.entry(*host).or_insert(*service);
                }
            }
            // What the imported VirtualServices lead to is imported with them.
            for virtual_service in egress.iter().flat_map(|egress| &egress.virtual_services) {
                for destination in virtual_service.destinations() {
                    let found = visible.get(&*destination.host).copied();
                    if let Some(service) = found {
                        by_host.entry(&service.host).or_insert(service);
                    }
                }
            }
            // A service that another name stands for comes along with the name, and the name with the service.
            let targets: Vec<&Arc<Service>> =
                by_host.values().filter_map(|service| visible.get(&**service.alias_of.as_ref()?).copied()).collect();
            for target in targets {
                by_host.entry(&target.host).or_insert(target);
            }
        }
        let mut aliases: BTreeMap<&str, Vec<&Arc<Service>>> = BTreeMap::new();
        for service in by_host.values() {
            if let Some(target) = &service.alias_of {
                aliases.entry(target).or_default().push(service);
            }
        }
        Context { world, scope, sidecar, egress, by_host, aliases }
    }

    /// The services, by host; names for other services are not among them.
    pub(crate) fn services(&self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.by_host.values().copied().filter(|service| service.alias_of.is_none())
    }

    /// The service with exactly this host, be it another one's alias.
    pub(crate) fn service(&self, host: &str) -> Option<&'a Arc<Service>> {
        self.by_host.get(host).copied()
    }

    /// The service that requests for a host go to: an alias leads to what it names.
    pub(crate) fn destination(&self, host: &str) -> Option<&'a Arc<Service>> {
        let service = self.service(host)?;
        match &service.alias_of {
            Some(target) => self.service(target).filter(|target| target.alias_of.is_none()),
            None => Some(service),
        }
    }

    /// The DestinationRule that holds for a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<&'a Arc<DestinationRule>> {
        let client = Client { namespace: &self.scope.namespace, labels: self.scope.labels.as_ref() };
        self.world.destination_rule(service, &client)
    }

    /// The workloads behind a port of a service, as this proxy may use them.
    pub(crate) fn endpoints(&self, service: &Service, port: &ServicePort) -> &'a [Endpoint] {
        self.world.endpoints(service, port)
    }

    /// The addresses of all services that are seen, in order of their hosts: equal lists are equal services as long as
    /// their worlds live.
    pub(crate) fn visible(&self) -> Vec<usize> {
        self.by_host.values().map(|service| address(&***service)).collect()
    }

    /// The other names of a service.
    pub(crate) fn aliases_of(&self, host: &str) -> &[&'a Arc<Service>] {
        self.aliases.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where the endpoints of a service come from for this proxy. Gateways, and sidecars that clients address,
    /// know no original destination: they choose among all endpoints of a headless service,
    /// and resolve the name of a service that has no endpoints but the original destination.
    pub(crate) fn discovery(&self, service: &Service) -> Discovery {
        match service.discovery {
            Discovery::Headless if !self.is_redirected() => Discovery::Endpoints,
            Discovery::OriginalDestination if self.is_addressed() => Discovery::Dns,
            other => other,
        }
    }

    /// True when connections come with the destination that their clients wanted.
    pub(crate) fn is_redirected(&self) -> bool {
        self.scope.role == Role::Sidecar && self.scope.interception != Interception::None
    }

    /// True for a sidecar whose clients address it.
    pub(crate) fn is_addressed(&self) -> bool {
        self.scope.interception == Interception::None
    }

    /// The port on which it is an HTTP proxy: its own, else the mesh's. Where clients address the proxy, that is up to
    /// whoever starts it.
    pub(crate) fn http_proxy_port(&self) -> Option<u16> {
        let of_mesh = || self.world.mesh().http_proxy_port.filter(|_| self.is_redirected());
        self.scope.http_proxy_port.or_else(of_mesh)
    }

    /// True when the data plane speaks to a port whatever its client spoke.
    pub(crate) fn follows_client_protocol(&self, protocol: Protocol) -> bool {
        self.scope.role == Role::Sidecar && protocol == Protocol::Auto
    }

    /// What happens to requests for unknown hosts: the Sidecar's word, else the mesh's.
    pub(crate) fn outbound_traffic_policy(&self) -> OutboundTrafficPolicy {
        match self.sidecar.and_then(|sidecar| sidecar.outbound_traffic_policy) {
            Some(OutboundTrafficPolicyMode::RegistryOnly) => OutboundTrafficPolicy::RegistryOnly,
            Some(OutboundTrafficPolicyMode::AllowAny) => OutboundTrafficPolicy::AllowAny,
            Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns) => OutboundTrafficPolicy::AllowAnyDynamicDns,
            None => self.world.mesh().outbound_traffic_policy,
        }
    }

    /// Where requests for unknown hosts go instead of their original destination.
    pub(crate) fn egress_proxy(&self) -> Option<&'a Destination> {
        self.sidecar.and_then(|sidecar| sidecar.egress_proxy.as_ref())
    }
}

impl<'a> Egress<'a> {
    /// `visible` has one service for each host, `hidden` those that lost against one of them, in their order of
    /// precedence.
    fn build(
        imports: &'a Imports,
        visible: &BTreeMap<&'a str, &'a Arc<Service>>,
        hidden: &[&'a Arc<Service>],
        virtual_services: &[&'a Arc<VirtualService>],
    ) -> Egress<'a> {
        let listener = imports.listener.as_ref();
        let port = listener.and_then(|listener| listener.port.as_ref()?.number).filter(|port| *port != 0);
        let everything = imports.is_everything();
        let mut services: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
        for service in visible.values().chain(hidden) {
            let imported = everything || imports.includes_service(&service.namespace, &service.host);
            if imported && service.alias_of.is_none() {
                services.entry(&service.host).or_insert(service);
            }
        }
        let kept = |virtual_service: &&&'a Arc<VirtualService>| {
            everything
                || virtual_service
                    .hosts
                    .iter()
                    .any(|host| imports.includes_virtual_service(&virtual_service.namespace, host))
        };
        let virtual_services = virtual_services.iter().filter(kept).copied().collect();
        Egress { imports, port, services, virtual_services }
    }
}
