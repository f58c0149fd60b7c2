//! What is in the mesh? Every object that traffic depends on, resolved, merged and indexed once; immutable
//! afterwards.
//!
//! Building a world never fails: what cannot be used is left out, and said in a [`Diagnostic`] with the place in
//! the file.

pub mod authentication;
mod check;
mod delegates;
pub mod destination_rules;
mod endpoints;
pub mod gateways;
mod ingress;
mod inputs;
mod kubernetes;
mod objects;
mod service_entries;
pub mod services;
pub mod sidecars;
pub(crate) mod telemetry;
pub mod virtual_services;
pub mod visibility;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{Diagnostic, Object, Position};
use lateen_xds::Origin;

use self::authentication::{PeerAuthentications, PeerMode, PeerPolicy};
use self::check::Findings;
use self::destination_rules::{Client, DestinationRule, DestinationRules};
use self::endpoints::Endpoints;
use self::gateways::Gateway;
use self::ingress::Generated;
use self::inputs::{Inputs, Section};
use self::services::{Endpoint, Service, ServicePort};
use self::sidecars::{Imports, Sidecar, Sidecars};
use self::telemetry::{Applicable, Telemetries};
use self::virtual_services::{VirtualService, VirtualServices};
use crate::mesh::Mesh;
use crate::patches::Patches;
use crate::scope::Scope;

/// The mesh as its objects describe it.
///
/// It is made of sections, each from some kinds of objects. [`World::update`] shares those whose objects are the same,
/// and within them what did not change, so that identity tells what a change may have touched.
#[derive(Clone, Debug)]
pub struct World {
    mesh: Arc<Mesh>,
    inputs: Inputs,
    services: Arc<Vec<Arc<Service>>>,
    /// Services of each host, oldest first.
    by_host: Arc<BTreeMap<Arc<str>, Vec<usize>>>,
    endpoints: Arc<Endpoints>,
    /// What stands for Ingress objects.
    generated: Arc<Generated>,
    virtual_services: Arc<VirtualServices>,
    destination_rules: Arc<DestinationRules>,
    gateways: Arc<Vec<Gateway>>,
    sidecars: Arc<Sidecars>,
    peer_authentications: Arc<PeerAuthentications>,
    patches: Arc<Patches>,
    telemetries: Arc<Telemetries>,
    findings: Findings,
    diagnostics: Vec<Diagnostic>,
}

impl World {
    /// Resolves and indexes objects. Their order does not matter.
    pub fn build(objects: Vec<Arc<Object>>, mesh: Mesh) -> World {
        World::make(&objects, mesh, None)
    }

    /// The world of other objects, which shares with this one whatever did not change. Objects are compared by
    /// identity: one that is the same has to be the very same value. Equals [`World::build`] of them.
    pub fn update(&self, objects: &[Arc<Object>], mesh: Mesh) -> World {
        World::make(objects, mesh, Some(self))
    }

    fn make(objects: &[Arc<Object>], mesh: Mesh, previous: Option<&World>) -> World {
        // Nothing is shared across settings of the mesh, which everything may depend on.
        let mesh = match previous {
            Some(previous) if *previous.mesh == mesh => previous.mesh.clone(),
            _ => Arc::new(mesh),
        };
        let previous = previous.filter(|previous| Arc::ptr_eq(&previous.mesh, &mesh));
        let inputs = Inputs::build(objects, previous.map(|previous| &previous.inputs));
        let same = |section: fn(&Inputs) -> &Section| {
            previous.filter(|previous| section(&previous.inputs).is(section(&inputs)))
        };

        let services_kept = same(|inputs| &inputs.services);
        let (services, by_host) = match services_kept {
            Some(previous) => (previous.services.clone(), previous.by_host.clone()),
            None => services(&inputs, &mesh),
        };
        let endpoints = match same(|inputs| &inputs.endpoints).and(services_kept) {
            Some(previous) => previous.endpoints.clone(),
            None => {
                let objects = inputs.endpoints.objects();
                let workloads = workloads::build(&objects);
                let known = services_kept.map(|previous| &*previous.endpoints);
                Arc::new(Endpoints::build(&services, &objects, &workloads, known))
            }
        };
        let generated = match same(|inputs| &inputs.ingresses).and(services_kept) {
            Some(previous) => previous.generated.clone(),
            None => Arc::new(ingress::build(&inputs.ingresses.objects(), &services, &mesh)),
        };
        let generated_kept = previous.filter(|previous| {
            Arc::ptr_eq(&previous.generated, &generated) || (previous.generated.is_empty() && generated.is_empty())
        });
        let virtual_services = match same(|inputs| &inputs.virtual_services).and(generated_kept) {
            Some(previous) => previous.virtual_services.clone(),
            None => {
                let objects = inputs.virtual_services.objects();
                let known = previous.map(|previous| &*previous.virtual_services);
                Arc::new(VirtualServices::build(&objects.virtual_services, &generated.virtual_services, &mesh, known))
            }
        };
        let destination_rules = match same(|inputs| &inputs.destination_rules) {
            Some(previous) => previous.destination_rules.clone(),
            None => {
                let objects = inputs.destination_rules.objects();
                let known = previous.map(|previous| &*previous.destination_rules);
                Arc::new(DestinationRules::build(&objects.destination_rules, &mesh, known))
            }
        };
        let gateways = match same(|inputs| &inputs.gateways).and(generated_kept) {
            Some(previous) => previous.gateways.clone(),
            None => Arc::new(gateways::build(&inputs.gateways.objects().gateways, &generated.gateways)),
        };
        let sidecars = match same(|inputs| &inputs.sidecars) {
            Some(previous) => previous.sidecars.clone(),
            None => Arc::new(Sidecars::build(&inputs.sidecars.objects().sidecars, &mesh)),
        };
        let peer_authentications = match same(|inputs| &inputs.peer_authentications) {
            Some(previous) => previous.peer_authentications.clone(),
            None => {
                let objects = inputs.peer_authentications.objects();
                Arc::new(PeerAuthentications::build(&objects.peer_authentications, &mesh.root_namespace))
            }
        };
        let patches = match same(|inputs| &inputs.envoy_filters) {
            Some(previous) => previous.patches.clone(),
            None => {
                let objects = inputs.envoy_filters.objects();
                Arc::new(Patches::build(&objects.envoy_filters, &mesh.root_namespace))
            }
        };
        let telemetries = match same(|inputs| &inputs.telemetries) {
            Some(previous) => previous.telemetries.clone(),
            None => Arc::new(Telemetries::build(&inputs.telemetries.objects().telemetries)),
        };
        let mut world = World {
            mesh,
            inputs,
            services,
            by_host,
            endpoints,
            generated,
            virtual_services,
            destination_rules,
            gateways,
            sidecars,
            peer_authentications,
            patches,
            telemetries,
            findings: Findings::default(),
            diagnostics: Vec::new(),
        };
        (world.findings, world.diagnostics) = Findings::collect(&world, previous);
        world.diagnostics.extend(world.patches.diagnostics().iter().cloned());
        world
    }

    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// All services, oldest first.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The hosts of all services.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.by_host.keys().map(|host| &**host)
    }

    /// The services with exactly this host, oldest first.
    pub fn services_of(&self, host: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.get(host).into_iter().flatten().filter_map(|index| self.services.get(*index))
    }

    /// The address of the list of workloads behind a port: equal addresses are equal lists as long as both worlds live.
    pub(crate) fn endpoints_address(&self, service: &Service, port: &ServicePort) -> usize {
        self.endpoints.of(service, port).map_or(0, |list| list.as_ptr().addr())
    }

    /// The workloads behind a port of a service, in order of address.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> &[Endpoint] {
        self.endpoints.of(service, port).map(|list| &**list).unwrap_or_default()
    }

    /// All Gateways, oldest first.
    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// All VirtualServices, oldest first.
    pub fn all_virtual_services(&self) -> &[Arc<VirtualService>] {
        self.virtual_services.all()
    }

    /// The VirtualServices bound to a gateway (`mesh` or `namespace/name`) that proxies in `namespace` use, in
    /// their order of precedence.
    pub fn virtual_services(&self, gateway: &str, namespace: &str) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services.bound_to(gateway, namespace)
    }

    /// The Sidecar that holds for a workload.
    pub fn sidecar(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Option<&Sidecar> {
        self.sidecars.lookup(namespace, labels, &self.mesh.root_namespace)
    }

    /// What each egress listener of a sidecar imports.
    pub(crate) fn imports<'a>(&'a self, sidecar: Option<&'a Sidecar>) -> &'a [Imports] {
        sidecar.map_or(self.sidecars.everything(), |sidecar| &sidecar.egress)
    }

    /// True when this world and another have the same settings of the mesh and of its sidecars and workloads: without
    /// them nothing can be compared.
    pub(crate) fn shares_settings(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.mesh, &other.mesh)
            && Arc::ptr_eq(&self.sidecars, &other.sidecars)
            && Arc::ptr_eq(&self.peer_authentications, &other.peer_authentications)
    }

    /// True when both have the same services.
    pub(crate) fn shares_services(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.services, &other.services)
    }

    /// True when both have the same endpoints.
    pub(crate) fn shares_endpoints(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.endpoints, &other.endpoints)
    }

    /// True when both have the same DestinationRules.
    pub(crate) fn shares_rules(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.destination_rules, &other.destination_rules)
    }

    /// True when both have the same Telemetry objects.
    pub(crate) fn shares_telemetries(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.telemetries, &other.telemetries)
    }

    /// True when both have the same Gateways.
    pub(crate) fn shares_gateways(&self, other: &World) -> bool {
        Arc::ptr_eq(&self.gateways, &other.gateways)
    }

    /// True when some DestinationRule chooses endpoints by hash.
    pub(crate) fn has_consistent_hash(&self) -> bool {
        self.destination_rules.has_consistent_hash()
    }

    /// Which connections the workloads of a namespace take, by the policies of the namespace and the mesh.
    pub fn peer_mode(&self, namespace: &str) -> PeerMode {
        self.peer_authentications.of_namespace(namespace)
    }

    /// Which connections a workload takes.
    pub fn peer_policy(&self, namespace: &str, labels: &BTreeMap<String, String>) -> PeerPolicy {
        self.peer_authentications.of_workload(namespace, labels)
    }

    /// The patches of all EnvoyFilters.
    pub fn patches(&self) -> &Patches {
        &self.patches
    }

    /// What Telemetry objects say of the workload of a proxy.
    pub(crate) fn telemetry<'a>(&'a self, scope: &Scope) -> Applicable<'a> {
        self.telemetries.of(&self.mesh, scope)
    }

    /// What is questionable about the objects as a whole: references that lead nowhere, and parts that are not
    /// compiled. In the order of the objects.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// All DestinationRules; one may come more than once.
    pub(crate) fn all_destination_rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.destination_rules.all()
    }

    pub(crate) fn destination_rule(&self, service: &Service, client: &Client<'_>) -> Option<&Arc<DestinationRule>> {
        self.destination_rules.lookup(&service.host, &service.namespace, client)
    }
}

/// All services, sorted by age, and their places by host.
#[expect(clippy::type_complexity, reason = "two fields of the world")]
fn services(inputs: &Inputs, mesh: &Mesh) -> (Arc<Vec<Arc<Service>>>, Arc<BTreeMap<Arc<str>, Vec<usize>>>) {
    let objects = inputs.services.objects();
    let mut services = kubernetes::build(&objects, mesh);
    services.extend(service_entries::build(&objects, mesh));
    services.sort_by(|a, b| a.age().cmp(&b.age()));
    kubernetes::resolve_aliases(&mut services);
    let mut by_host: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    for (index, service) in services.iter_mut().enumerate() {
        service.index = index;
        by_host.entry(service.host.clone()).or_default().push(index);
    }
    (Arc::new(services.into_iter().map(Arc::new).collect()), Arc::new(by_host))
}

/// Where an object stands.
pub(crate) fn origin(object: &Object) -> Arc<Origin> {
    origin_of_rule(object, String::new(), object.source.at)
}

/// Where a rule of an object stands, such as `http[0]`.
pub(crate) fn origin_of_rule(object: &Object, rule: String, at: Position) -> Arc<Origin> {
    Arc::new(Origin {
        kind: object.kind.as_str().into(),
        namespace: object.metadata.namespace.clone(),
        name: object.metadata.name.clone(),
        rule,
        file: object.source.path().cloned(),
        line: at.line,
    })
}
