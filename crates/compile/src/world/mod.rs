//! What is in the mesh? Every object that traffic depends on, resolved, merged and indexed once; immutable
//! afterwards.
//!
//! Building a world never fails: what cannot be used is left out, and said in a [`Diagnostic`] with the place in
//! the file.

mod check;
pub mod destination_rules;
pub mod gateways;
mod kubernetes;
mod objects;
mod service_entries;
pub mod services;
pub mod virtual_services;
pub mod visibility;
mod workloads;

use std::sync::Arc;

use lateen_config::{Diagnostic, Object, Position};
use lateen_xds::Origin;

use self::destination_rules::{Client, DestinationRule, DestinationRules, Subset};
use self::gateways::{Gateway, Server, ServerHost};
use self::objects::Objects;
use self::services::Service;
use self::virtual_services::{Rule, VirtualService, VirtualServices};
use self::visibility::Visibility;
use crate::host;
use crate::mesh::Mesh;
use crate::protocol::Protocol;

/// The mesh as its objects describe it.
#[derive(Debug)]
pub struct World {
    mesh: Mesh,
    services: Vec<Service>,
    virtual_services: VirtualServices,
    destination_rules: DestinationRules,
    gateways: Vec<Gateway>,
    diagnostics: Vec<Diagnostic>,
}

impl World {
    /// Resolves and indexes objects. Their order does not matter.
    pub fn build(objects: Vec<Arc<Object>>, mesh: Mesh) -> World {
        let objects = Objects::build(&objects);
        let workloads = workloads::build(&objects);
        let mut services = kubernetes::build(&objects, &workloads, &mesh);
        services.extend(service_entries::build(&objects, &workloads, &mesh));
        services.sort_by(|a, b| a.age().cmp(&b.age()));
        kubernetes::resolve_aliases(&mut services);
        let mut world = World {
            services,
            virtual_services: VirtualServices::build(virtual_services(&objects, &mesh)),
            destination_rules: DestinationRules::build(destination_rules(&objects, &mesh), &mesh.root_namespace),
            gateways: objects.gateways.iter().map(|(object, gateway)| build_gateway(object, gateway)).collect(),
            diagnostics: Vec::new(),
            mesh,
        };
        world.diagnostics = check::run(&world, &objects);
        world
    }

    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// All services, oldest first.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All Gateways, oldest first.
    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// All VirtualServices, oldest first.
    pub fn all_virtual_services(&self) -> &[VirtualService] {
        self.virtual_services.all()
    }

    /// The VirtualServices bound to a gateway (`mesh` or `namespace/name`) that proxies in `namespace` use, in
    /// their order of precedence.
    pub fn virtual_services(&self, gateway: &str, namespace: &str) -> impl Iterator<Item = &VirtualService> {
        self.virtual_services.bound_to(gateway, namespace)
    }

    /// What is questionable about the objects as a whole: references that lead nowhere, and parts that are not
    /// compiled. In the order of the objects.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub(crate) fn destination_rule(&self, service: &Service, client: &Client<'_>) -> Option<&DestinationRule> {
        self.destination_rules.lookup(&service.host, &service.namespace, client)
    }
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

fn virtual_services(objects: &Objects<'_>, mesh: &Mesh) -> Vec<VirtualService> {
    let build = |object: &Arc<Object>, spec: &lateen_config::VirtualService| {
        let namespace = object.metadata.namespace.clone();
        let resolve = |host: &str| host::resolve(host, &namespace, &mesh.cluster_domain);
        let gateways = match spec.gateways.as_slice() {
            [] => vec![host::MESH.into()],
            gateways => gateways.iter().map(|gateway| host::resolve_gateway(gateway, &namespace)).collect(),
        };
        let rule = |index: usize, http: &lateen_config::HttpRoute| {
            let mut route = http.clone();
            let destinations = route
                .route
                .iter_mut()
                .filter_map(|entry| entry.destination.as_mut())
                .chain(route.mirror.as_mut())
                .chain(route.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut()));
            for destination in destinations {
                destination.host = resolve(&destination.host).to_string();
            }
            Rule { route, origin: origin_of_rule(object, format!("http[{index}]"), http.at) }
        };
        VirtualService {
            name: object.metadata.name.clone(),
            hosts: spec.hosts.iter().map(|host| resolve(host)).collect(),
            gateways,
            http: spec.http.iter().enumerate().map(|(index, http)| rule(index, http)).collect(),
            visibility: Visibility::build(&spec.export_to, &mesh.default_virtual_service_export_to, &namespace),
            origin: origin(object),
            index: 0,
            namespace,
        }
    };
    objects.virtual_services.iter().map(|(object, spec)| build(object, spec)).collect()
}

/// Sorted by precedence: rules for some workloads come before those for all, then by age.
fn destination_rules(objects: &Objects<'_>, mesh: &Mesh) -> Vec<DestinationRule> {
    let mut rules: Vec<DestinationRule> = objects
        .destination_rules
        .iter()
        .map(|(object, spec)| {
            let namespace = object.metadata.namespace.clone();
            let workload_selector = spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone());
            let visibility = match workload_selector {
                // A rule for chosen workloads is private by nature.
                Some(_) => Visibility::build(&[".".to_owned()], &[], &namespace),
                None => Visibility::build(&spec.export_to, &mesh.default_destination_rule_export_to, &namespace),
            };
            let mut subsets: Vec<Subset> = Vec::with_capacity(spec.subsets.len());
            for (index, subset) in spec.subsets.iter().enumerate() {
                if subsets.iter().all(|known| *known.name != *subset.name) {
                    subsets.push(Subset {
                        name: subset.name.as_str().into(),
                        labels: subset.labels.clone(),
                        traffic_policy: subset.traffic_policy.clone(),
                        origin: origin_of_rule(object, format!("subsets[{index}]"), subset.at),
                    });
                }
            }
            DestinationRule {
                host: host::resolve(&spec.host, &namespace, &mesh.cluster_domain),
                name: object.metadata.name.clone(),
                workload_selector,
                visibility,
                traffic_policy: spec.traffic_policy.clone(),
                subsets,
                origin: origin(object),
                merged: Vec::new(),
                namespace,
            }
        })
        .collect();
    rules.sort_by_key(|rule| rule.workload_selector.is_none());
    rules
}

fn build_gateway(object: &Arc<Object>, spec: &lateen_config::Gateway) -> Gateway {
    let namespace = object.metadata.namespace.clone();
    let server = |index: usize, server: &lateen_config::Server| {
        let port = &server.port;
        let hosts: Vec<ServerHost> = server.hosts.iter().map(|host| ServerHost::parse(host, &namespace)).collect();
        // Every host of every namespace leaves nothing for the others to say.
        let all = hosts.iter().find(|host| host.namespace.is_none() && &*host.host == "*").cloned();
        Server {
            number: port.number,
            port_name: port.name.as_str().into(),
            protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp),
            bind: server.bind.as_deref().filter(|bind| !bind.is_empty()).map(Arc::from),
            hosts: all.map_or(hosts, |all| vec![all]),
            has_tls: server.tls.is_some(),
            https_redirect: server.tls.as_ref().is_some_and(|tls| tls.https_redirect),
            origin: origin_of_rule(object, format!("servers[{index}]"), server.at),
        }
    };
    Gateway {
        name: object.metadata.name.clone(),
        selector: spec.selector.clone(),
        servers: spec.servers.iter().enumerate().map(|(index, spec)| server(index, spec)).collect(),
        origin: origin(object),
        namespace,
    }
}
