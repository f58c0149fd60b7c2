//! Which VirtualServices does a gateway or sidecar use? Resolved hosts, and an index by the gateways that they
//! name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lateen_config::{Destination, HttpRoute, Object, TcpRoute, TlsRoute};
use lateen_xds::Origin;

use super::objects::Typed;
use super::visibility::Visibility;
use super::{delegates, origin, origin_of_rule};
use crate::host;
use crate::identity::address;
use crate::mesh::Mesh;

/// A VirtualService with all names resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Name of the object.
    pub name: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Fully qualified hosts, lower-case; none for a delegate, which takes part through others alone.
    pub hosts: Vec<Arc<str>>,
    /// `mesh` and `namespace/name` of Gateways.
    pub gateways: Vec<Arc<str>>,
    /// HTTP rules, in order; a rule that delegates has the delegate's rules in its place.
    pub http: Vec<Rule<HttpRoute>>,
    /// Rules for TLS that is passed through, in order.
    pub tls: Vec<Rule<TlsRoute>>,
    /// Rules for bytes, in order.
    pub tcp: Vec<Rule<TcpRoute>>,
    /// Who sees it.
    pub visibility: Visibility,
    /// Prefixes of paths end at slashes: `/a` is not the beginning of `/ab`. So it is for an Ingress.
    pub separates_paths: bool,
    /// The object.
    pub origin: Arc<Origin>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<R> {
    /// The rule, its destinations fully qualified.
    pub route: R,
    /// The object that it stands in, with the rule, for example `http[0]`.
    pub origin: Arc<Origin>,
}

impl VirtualService {
    /// Resolves the names of an object, before delegation.
    pub(crate) fn build((object, spec): Typed<'_, lateen_config::VirtualService>, mesh: &Mesh) -> VirtualService {
        let namespace = object.metadata.namespace.clone();
        let resolve = |host: &str| host::resolve(host, &namespace, &mesh.cluster_domain);
        let gateways = match spec.gateways.as_slice() {
            [] => vec![host::MESH.into()],
            gateways => gateways.iter().map(|gateway| host::resolve_gateway(gateway, &namespace)).collect(),
        };
        let place = |destination: &mut Destination| destination.host = resolve(&destination.host).to_string();
        let http = spec.http.iter().enumerate().map(|(index, http)| {
            let mut route = http.clone();
            route
                .route
                .iter_mut()
                .filter_map(|entry| entry.destination.as_mut())
                .chain(route.mirror.as_mut())
                .chain(route.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut()))
                .for_each(place);
            // The rule may come to stand in a VirtualService of another namespace, to which it is delegated.
            for gateway in route.r#match.iter_mut().flat_map(|request| &mut request.gateways) {
                *gateway = host::resolve_gateway(gateway, &namespace).to_string();
            }
            Rule { route, origin: origin_of_rule(object, format!("http[{index}]"), http.at) }
        });
        let tls = spec.tls.iter().enumerate().map(|(index, tls)| {
            let mut route = tls.clone();
            route.route.iter_mut().filter_map(|entry| entry.destination.as_mut()).for_each(place);
            Rule { route, origin: origin_of_rule(object, format!("tls[{index}]"), tls.at) }
        });
        let tcp = spec.tcp.iter().enumerate().map(|(index, tcp)| {
            let mut route = tcp.clone();
            route.route.iter_mut().filter_map(|entry| entry.destination.as_mut()).for_each(place);
            Rule { route, origin: origin_of_rule(object, format!("tcp[{index}]"), tcp.at) }
        });
        VirtualService {
            name: object.metadata.name.clone(),
            hosts: spec.hosts.iter().map(|host| resolve(host)).collect(),
            gateways,
            http: http.collect(),
            tls: tls.collect(),
            tcp: tcp.collect(),
            visibility: Visibility::build(&spec.export_to, &mesh.default_virtual_service_export_to, &namespace),
            separates_paths: false,
            origin: origin(object),
            namespace,
        }
    }

    /// A delegate: it has no hosts, and is used by those that name it.
    pub(crate) fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }

    /// It has rules that listeners, not route configurations, carry.
    pub(crate) fn shapes_listeners(&self) -> bool {
        !self.tls.is_empty() || !self.tcp.is_empty()
    }

    /// Every destination that its rules name, mirrors included.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let http = self.http.iter().flat_map(|rule| {
            let route = &rule.route;
            route
                .route
                .iter()
                .filter_map(|entry| entry.destination.as_ref())
                .chain(route.mirror.as_ref())
                .chain(route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()))
        });
        let tls = self.tls.iter().flat_map(|rule| &rule.route.route);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.route.route);
        http.chain(tls.chain(tcp).filter_map(|entry| entry.destination.as_ref()))
    }
}

/// All VirtualServices, oldest first, by gateway.
#[derive(Debug, Default)]
pub(crate) struct VirtualServices {
    /// Before delegation, with the object that each was made of; none for those that stand for an Ingress.
    sources: Vec<(Option<Arc<Object>>, Arc<VirtualService>)>,
    all: Vec<Arc<VirtualService>>,
    by_gateway: BTreeMap<Arc<str>, Vec<usize>>,
}

impl VirtualServices {
    /// Resolves and indexes objects that are sorted by age, and what was generated. One whose object is the same as in `previous`, and whose
    /// delegates are, is the very same value.
    pub(crate) fn build(
        objects: &[Typed<'_, lateen_config::VirtualService>],
        generated: &[Arc<VirtualService>],
        mesh: &Mesh,
        previous: Option<&VirtualServices>,
    ) -> VirtualServices {
        let known: HashMap<usize, &Arc<VirtualService>> = previous
            .into_iter()
            .flat_map(|previous| &previous.sources)
            .filter_map(|(object, resolved)| Some((address(&**object.as_ref()?), resolved)))
            .collect();
        let mut sources: Vec<(Option<Arc<Object>>, Arc<VirtualService>)> = objects
            .iter()
            .map(|(object, spec)| {
                let resolved = match known.get(&address(&***object)) {
                    Some(resolved) => (*resolved).clone(),
                    None => Arc::new(VirtualService::build((object, spec), mesh)),
                };
                (Some((*object).clone()), resolved)
            })
            .collect();
        if !generated.is_empty() {
            sources.extend(generated.iter().map(|generated| (None, generated.clone())));
            sources.sort_by_cached_key(|(object, resolved)| {
                let created = object.as_ref().and_then(|object| object.metadata.creation_timestamp);
                (created, resolved.name.clone(), resolved.namespace.clone())
            });
        }
        let all = delegates::merge(sources.iter().map(|(_, resolved)| resolved), previous.map(|index| &*index.all));
        let mut by_gateway: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (index, virtual_service) in all.iter().enumerate() {
            if virtual_service.is_delegate() {
                continue;
            }
            for gateway in &virtual_service.gateways {
                let indexes = by_gateway.entry(gateway.clone()).or_default();
                if indexes.last() != Some(&index) {
                    indexes.push(index);
                }
            }
        }
        VirtualServices { sources, all, by_gateway }
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> &[Arc<VirtualService>] {
        &self.all
    }

    /// Those bound to a gateway that proxies in `namespace` use: private ones of that namespace first, then those
    /// exported to it by name, then public ones; each group oldest first.
    pub(crate) fn bound_to(&self, gateway: &str, namespace: &str) -> impl Iterator<Item = &Arc<VirtualService>> {
        let bound = self.by_gateway.get(gateway).map(Vec::as_slice).unwrap_or_default();
        let mut groups: [Vec<&Arc<VirtualService>>; 3] = Default::default();
        for virtual_service in bound.iter().filter_map(|index| self.all.get(*index)) {
            let visibility = &virtual_service.visibility;
            if visibility.is_everywhere() {
                groups[2].push(virtual_service);
            } else if !visibility.includes(namespace) {
                continue;
            } else if *virtual_service.namespace == *namespace {
                groups[0].push(virtual_service);
            } else {
                groups[1].push(virtual_service);
            }
        }
        groups.into_iter().flatten()
    }
}
