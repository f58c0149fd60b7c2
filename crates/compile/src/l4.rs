//! Where do connections go that are not routed as HTTP? The `tcp` and `tls` rules of VirtualServices.

use std::collections::BTreeMap;

use lateen_config::{L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes};

use crate::context::Context;
use crate::host::{self, MESH};
use crate::listeners::chains::{Bytes, Target};
use crate::names;
use crate::protocol::Protocol;
use crate::world::virtual_services::VirtualService;

/// The listener for which rules are looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Port of the service, or number of the Gateway's server.
    pub(crate) port: u32,
    /// `namespace/name` of the Gateway; `None` in a sidecar.
    pub(crate) gateway: Option<&'a str>,
}

/// Which connections a `tcp` rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TcpMatch {
    /// None at this place.
    Nothing,
    /// All.
    Everything,
    /// Those to some addresses.
    Subnets(Vec<String>),
}

/// The connections at a place that a `tcp` rule takes. A match that names no addresses makes all others idle.
pub(crate) fn tcp_match(
    cx: &Context<'_>,
    virtual_service: &VirtualService,
    rule: &TcpRoute,
    place: Place<'_>,
) -> TcpMatch {
    if rule.r#match.is_empty() {
        return TcpMatch::Everything;
    }
    let mut subnets = Vec::new();
    for attributes in rule.r#match.iter().filter(|attributes| applies(cx, virtual_service, (*attributes).into(), place))
    {
        if attributes.destination_subnets.is_empty() {
            return TcpMatch::Everything;
        }
        subnets.extend(attributes.destination_subnets.iter().cloned());
    }
    if subnets.is_empty() { TcpMatch::Nothing } else { TcpMatch::Subnets(subnets) }
}

/// True when a match of a `tls` rule counts at a place.
pub(crate) fn tls_applies(
    cx: &Context<'_>,
    virtual_service: &VirtualService,
    attributes: &TlsMatchAttributes,
    place: Place<'_>,
) -> bool {
    applies(cx, virtual_service, attributes.into(), place)
}

/// The conditions of a match that are decided here and never reach the data plane.
struct Conditions<'a> {
    port: Option<u32>,
    source_labels: &'a BTreeMap<String, String>,
    gateways: &'a [String],
    source_namespace: Option<&'a str>,
}

impl<'a> From<&'a L4MatchAttributes> for Conditions<'a> {
    fn from(attributes: &'a L4MatchAttributes) -> Self {
        Conditions {
            port: attributes.port,
            source_labels: &attributes.source_labels,
            gateways: &attributes.gateways,
            source_namespace: attributes.source_namespace.as_deref(),
        }
    }
}

impl<'a> From<&'a TlsMatchAttributes> for Conditions<'a> {
    fn from(attributes: &'a TlsMatchAttributes) -> Self {
        Conditions {
            port: attributes.port,
            source_labels: &attributes.source_labels,
            gateways: &attributes.gateways,
            source_namespace: attributes.source_namespace.as_deref(),
        }
    }
}

/// Sources count in sidecars alone: a gateway is nobody's workload.
fn applies(cx: &Context<'_>, virtual_service: &VirtualService, conditions: Conditions<'_>, place: Place<'_>) -> bool {
    let port = conditions.port.is_none_or(|port| port == 0 || port == place.port);
    let wanted = place.gateway.unwrap_or(MESH);
    let named = |gateway: &String| *host::resolve_gateway(gateway, &virtual_service.namespace) == *wanted;
    let gateway = conditions.gateways.is_empty() || conditions.gateways.iter().any(named);
    if place.gateway.is_some() {
        return port && gateway;
    }
    let labels = conditions.source_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let namespace = conditions.source_namespace.is_none_or(|name| name.is_empty() || *name == *cx.scope.namespace);
    port && gateway && namespace && cx.scope.selected_by(labels)
}

/// Forwarding to the destinations of a rule. `None` when it has none that connections could go to.
pub(crate) fn forward<'a>(
    cx: &Context<'a>,
    virtual_service: &VirtualService,
    routes: &'a [RouteDestination],
    port: u32,
    protocol: Protocol,
) -> Option<Bytes<'a>> {
    let first = routes.first()?.destination.as_ref();
    let service = first.and_then(|destination| cx.destination(&destination.host)).map(|service| &**service);
    if let [only] = routes {
        return Some(Bytes {
            target: Target::Cluster(cluster(cx, only, port)),
            stat_prefix: None,
            protocol,
            service,
            subset: first.and_then(|destination| destination.subset.as_deref()).filter(|subset| !subset.is_empty()),
            is_inbound: false,
        });
    }
    let weighted: Vec<(String, u32)> = routes
        .iter()
        .filter_map(|route| Some((cluster(cx, route, port), u32::try_from(route.weight).ok().filter(|w| *w > 0)?)))
        .collect();
    if weighted.is_empty() {
        return None;
    }
    Some(Bytes {
        target: Target::Weighted(weighted),
        stat_prefix: Some(format!("{}.{}", virtual_service.name, virtual_service.namespace)),
        protocol,
        service,
        subset: None,
        is_inbound: false,
    })
}

/// Cluster of a destination: its port, else the only port of its service, else that of the listener.
fn cluster(cx: &Context<'_>, route: &RouteDestination, port: u32) -> String {
    let Some(destination) = &route.destination else {
        return names::UNKNOWN_SERVICE.to_owned();
    };
    let service = cx.destination(&destination.host);
    let named = destination.port.as_ref().map(|port| port.number).filter(|port| *port != 0);
    let only = || match service.map(|service| service.ports.as_slice()) {
        Some([only]) => Some(only.number),
        _ => None,
    };
    let host = service.map_or(destination.host.as_str(), |service| &service.host);
    let subset = destination.subset.as_deref().unwrap_or_default();
    names::outbound_cluster(named.or_else(only).unwrap_or(port), subset, host)
}
