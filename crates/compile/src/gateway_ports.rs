//! Which servers of which Gateways share a listener? All Gateways that select one gateway workload are merged by
//! bound address and resolved port; what cannot share is left out, the oldest Gateway first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::context::Context;
use crate::protocol::Protocol;
use crate::world::gateways::{Gateway, Server};

/// Label of a Service whose ports are not translated for gateways.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// Where a listener binds: (address of the server if it names one, port of the workload).
pub(crate) type BoundPort = (Option<Arc<str>>, u32);

/// Servers with their Gateways, oldest Gateway first.
pub(crate) type Servers<'a> = Vec<(&'a Gateway, &'a Server)>;

/// What shares one plain HTTP listener.
pub(crate) struct HttpPort<'a> {
    pub(crate) bind: Option<Arc<str>>,
    pub(crate) port: u32,
    pub(crate) servers: Servers<'a>,
}

/// What the first server of a port makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Http,
    Tls,
    Tcp,
}

/// Merges the Gateways that select this workload. Ports whose first server is not plain HTTP carry no HTTP
/// listener: later servers of another class on such a port are left out, as the first one holds it.
pub(crate) fn merge<'a>(cx: &Context<'a>) -> Vec<HttpPort<'a>> {
    let mut ports: BTreeMap<BoundPort, (Class, Servers<'_>)> = BTreeMap::new();
    let mut hosts_with_tls: BTreeMap<BoundPort, BTreeSet<String>> = BTreeMap::new();
    for gateway in cx.world.gateways() {
        let selector = gateway.selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        if !cx.scope.selected_by(selector) {
            continue;
        }
        for server in &gateway.servers {
            let class = match server.protocol {
                protocol if protocol.is_http() => Class::Http,
                Protocol::Https | Protocol::Tls => Class::Tls,
                _ => Class::Tcp,
            };
            let bound: BoundPort = (server.bind.clone(), resolve(cx, server.number));
            // A server with a `tls` block, be it only for the redirect, owns its hosts on the port.
            if server.tls.is_some() {
                let taken = hosts_with_tls.entry(bound.clone()).or_default();
                let hosts: Vec<String> = server.hosts.iter().map(ToString::to_string).collect();
                if hosts.iter().any(|host| taken.contains(host)) {
                    continue;
                }
                taken.extend(hosts);
            }
            match ports.get_mut(&bound) {
                None => {
                    ports.insert(bound, (class, vec![(gateway, server)]));
                }
                Some((first, servers)) if *first == class && class != Class::Tcp => servers.push((gateway, server)),
                Some(_) => {}
            }
        }
    }
    ports
        .into_iter()
        .filter(|(_, (class, _))| *class == Class::Http)
        .map(|((bind, port), (_, servers))| HttpPort { bind, port, servers })
        .collect()
}

/// The number in a Gateway is a port of the gateway's Service: the workload listens on what that Service
/// calls its target. Without such a Service the number itself is bound.
fn resolve(cx: &Context<'_>, number: u32) -> u32 {
    let Some(labels) = &cx.scope.labels else {
        return number;
    };
    cx.world
        .services()
        .iter()
        .filter(|service| {
            service.namespace == cx.scope.namespace
                && !service.selector.is_empty()
                && !service.labels.contains_key(NO_TRANSLATION)
                && crate::world::services::includes(labels, &service.selector)
        })
        .find_map(|service| service.port(number).and_then(|port| port.target))
        .unwrap_or(number)
}
