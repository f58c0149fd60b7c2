//! Which ports of its workload does a sidecar serve, and for whom? The services that its workload stands behind, or the
//! ingress listeners of its Sidecar object, which take their place.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lateen_config::{CaptureMode, IstioIngressListener};
use lateen_xds::Origin;

use crate::context::Context;
use crate::protocol::Protocol;
use crate::scope::Role;
use crate::world::services::{Address, Endpoint, Service, ServicePort, includes};
use crate::world::sidecars::Sidecar;

/// Ports that the proxy and its agent have for themselves: administration, redirected connections, DNS and merged
/// telemetry, health and statistics.
const OWN_PORTS: [u32; 7] = [15000, 15001, 15004, 15006, 15020, 15021, 15090];

/// Address to which connections go that have to reach the workload by loopback.
const LOOPBACK: &str = "127.0.0.1";

/// A port of the workload that its sidecar serves.
#[derive(Debug)]
pub(crate) struct InboundTarget<'a> {
    /// Number of the workload's port.
    pub(crate) port: u32,
    /// What is spoken on it.
    pub(crate) protocol: Protocol,
    /// Host that decides: of the oldest service on the port, or `<name>.<namespace>` of the Sidecar object when no
    /// service is there.
    pub(crate) host: Arc<str>,
    /// Number that clients of that host use; that of the listener for a Sidecar object.
    pub(crate) service_port: u32,
    /// The services on the port, oldest first, each with its own port.
    pub(crate) services: Vec<(&'a Arc<Service>, &'a ServicePort)>,
    /// The listener of the Sidecar object that asks for it; `bind`, `tls` and `connectionPool` are found there.
    pub(crate) ingress: Option<&'a IstioIngressListener>,
    /// Where connections go.
    pub(crate) endpoint: InboundEndpoint,
    /// The objects that ask for it: the listener of the Sidecar object, or the services.
    pub(crate) origins: Vec<Arc<Origin>>,
}

impl InboundTarget<'_> {
    /// Clients connect to its listener; otherwise connections are redirected.
    pub(crate) fn binds_to_port(&self) -> bool {
        self.ingress.is_some_and(|listener| listener.capture_mode == CaptureMode::None)
    }
}

/// Where connections to a workload go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InboundEndpoint {
    /// Where their clients sent them to, perhaps on another port.
    OriginalDestination {
        /// Port in place of the client's.
        port: Option<u32>,
    },
    /// To one address of the workload's host.
    Address(Address),
}

/// The ports that a sidecar serves whose connections are redirected to it, by number; none for other proxies.
pub(crate) fn inbound_targets<'a>(cx: &Context<'a>) -> Vec<InboundTarget<'a>> {
    if cx.scope.role != Role::Sidecar || !cx.is_redirected() {
        return Vec::new();
    }
    let own = own_ports(cx);
    let mut targets: BTreeMap<u32, InboundTarget<'a>> = BTreeMap::new();
    for service in cx.world.services() {
        for port in service.ports.iter().filter(|port| port.protocol.has_clusters()) {
            for number in ports_of_workload(cx, service, port) {
                if own.contains(&number) {
                    continue;
                }
                let target = targets.entry(number).or_insert_with(|| InboundTarget {
                    port: number,
                    protocol: port.protocol,
                    host: service.host.clone(),
                    service_port: port.number,
                    services: Vec::new(),
                    ingress: None,
                    endpoint: default_endpoint(cx, number),
                    origins: Vec::new(),
                });
                if target.services.iter().all(|(known, _)| !Arc::ptr_eq(known, service)) {
                    target.services.push((service, port));
                    target.origins.push(service.origin.clone());
                }
            }
        }
    }
    match cx.sidecar {
        Some(sidecar) if !sidecar.spec.ingress.is_empty() => of_sidecar(cx, sidecar, &own, &mut targets),
        _ => targets.into_values().collect(),
    }
}

/// The listeners of a Sidecar object; of several with one number the first stays. `by_service` are the ports that
/// services ask for: they tell for whom a listener's port is.
fn of_sidecar<'a>(
    cx: &Context<'a>,
    sidecar: &'a Sidecar,
    own: &[u32],
    by_service: &mut BTreeMap<u32, InboundTarget<'a>>,
) -> Vec<InboundTarget<'a>> {
    let mut targets: BTreeMap<u32, InboundTarget<'a>> = BTreeMap::new();
    for (listener, origin) in sidecar.spec.ingress.iter().zip(&sidecar.ingress_origins) {
        let Some(number) = listener.port.number.filter(|number| *number != 0 && !own.contains(number)) else {
            continue;
        };
        let declared = listener.port.protocol.as_deref().unwrap_or_default();
        let name = listener.port.name.as_deref().unwrap_or_default();
        let protocol = match declared {
            "" => Protocol::of_service_port("", name, None, number),
            declared => Protocol::parse(declared).unwrap_or(Protocol::Auto),
        };
        let binds = listener.capture_mode == CaptureMode::None;
        let may_not = binds && cx.scope.is_unprivileged && number < 1024;
        if targets.contains_key(&number) || !protocol.has_clusters() || may_not {
            continue;
        }
        let services = by_service.remove(&number).map(|target| target.services).unwrap_or_default();
        let target = InboundTarget {
            port: number,
            protocol,
            host: match services.first() {
                Some((service, _)) => service.host.clone(),
                None => format!("{}.{}", sidecar.name, sidecar.namespace).into(),
            },
            service_port: number,
            services,
            ingress: Some(listener),
            endpoint: match endpoint(listener.default_endpoint.as_deref(), number) {
                Some(endpoint) => endpoint,
                // Clients of a bound listener wanted to reach nothing but it.
                None if binds => on_loopback(number),
                None => default_endpoint(cx, number),
            },
            origins: vec![origin.clone()],
        };
        targets.insert(number, target);
    }
    targets.into_values().collect()
}

/// Where `defaultEndpoint` sends the connections of a listener; `None` when it says nothing.
fn endpoint(text: Option<&str>, listener_port: u32) -> Option<InboundEndpoint> {
    let text = text.filter(|text| !text.is_empty())?;
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(InboundEndpoint::Address(Address::Pipe(path.into())));
    }
    let address: SocketAddr = text.replace("localhost:", "127.0.0.1:").parse().ok()?;
    let port = u32::from(address.port());
    Some(if address.ip().is_unspecified() {
        InboundEndpoint::OriginalDestination { port: (port != listener_port).then_some(port) }
    } else {
        InboundEndpoint::Address(Address::Socket { host: address.ip().to_string().into(), port })
    })
}

fn default_endpoint(cx: &Context<'_>, port: u32) -> InboundEndpoint {
    if cx.world.mesh().inbound_to_loopback {
        on_loopback(port)
    } else {
        InboundEndpoint::OriginalDestination { port: None }
    }
}

fn on_loopback(port: u32) -> InboundEndpoint {
    InboundEndpoint::Address(Address::Socket { host: LOOPBACK.into(), port })
}

fn own_ports(cx: &Context<'_>) -> Vec<u32> {
    let mesh = cx.world.mesh();
    let mut ports = OWN_PORTS.to_vec();
    ports.extend([mesh.outbound_port, mesh.inbound_port].map(u32::from));
    ports.extend(cx.http_proxy_port().map(u32::from));
    ports
}

/// On which ports the workload answers for a port of a service. Its addresses tell, else its labels: endpoints with the
/// very same ones, else the number that the service gives, else any endpoint with them.
fn ports_of_workload(cx: &Context<'_>, service: &Service, port: &ServicePort) -> Vec<u32> {
    let endpoints = cx.world.endpoints(service, port);
    let ports = |found: &dyn Fn(&Endpoint) -> bool| -> Vec<u32> {
        let found = endpoints.iter().filter(|endpoint| found(endpoint));
        let mut ports: Vec<u32> = found.filter_map(|endpoint| socket(endpoint).map(|(_, port)| port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let by_address =
        ports(&|endpoint| socket(endpoint).and_then(|(ip, _)| ip).is_some_and(|ip| cx.scope.addresses.contains(&ip)));
    if !by_address.is_empty() {
        return by_address;
    }
    let Some(labels) = cx.scope.labels.as_ref() else {
        return Vec::new();
    };
    let selected = service.namespace == cx.scope.namespace
        && !service.selector.is_empty()
        && service.alias_of.is_none()
        && includes(labels, &service.selector);
    if !selected {
        return Vec::new();
    }
    if cx.scope.addresses.is_empty() {
        let same = ports(&|endpoint| *endpoint.labels == *labels);
        if !same.is_empty() {
            return same;
        }
    }
    match port.target {
        Some(target) => vec![target],
        None => ports(&|endpoint| endpoint.has_labels(labels)),
    }
}

/// The address of an endpoint, `None` for a name, and its port; `None` for a pipe.
fn socket(endpoint: &Endpoint) -> Option<(Option<IpAddr>, u32)> {
    match &endpoint.address {
        Address::Socket { host, port } => Some((host.parse().ok(), *port)),
        Address::Pipe(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_endpoint_is_an_address_a_pipe_or_another_port_of_the_destination() {
        let socket = |host: &str, port| InboundEndpoint::Address(Address::Socket { host: host.into(), port });
        for (text, expected) in [
            ("127.0.0.1:8080", Some(socket("127.0.0.1", 8080))),
            ("localhost:8080", Some(socket("127.0.0.1", 8080))),
            ("[::1]:8080", Some(socket("::1", 8080))),
            ("0.0.0.0:8080", Some(InboundEndpoint::OriginalDestination { port: Some(8080) })),
            ("[::]:80", Some(InboundEndpoint::OriginalDestination { port: None })),
            ("unix:///run/a.sock", Some(InboundEndpoint::Address(Address::Pipe("/run/a.sock".into())))),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(endpoint(Some(text), 80), expected, "{text}");
        }
    }
}
