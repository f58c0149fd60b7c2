//! What does one process run that is gateway and sidecar at once? The union of both configurations, as the local
//! form of the mesh serves them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lateen_config::Diagnostic;
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::core::v3::{address, socket_address};
use lateen_xds::envoy::config::listener::v3::Listener;

use crate::Compiler;
use crate::scope::Scope;
use crate::world::World;

/// A gateway and a sidecar that run together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalScope {
    /// The gateway's part.
    pub gateway: Scope,
    /// The sidecar's part.
    pub sidecar: Scope,
}

/// The union, and what had no place in it.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// All resources of both.
    pub set: XdsSet,
    /// Listeners of the sidecar whose socket another listener holds.
    pub hidden: Vec<HiddenListener>,
    /// Patches of EnvoyFilters that match nothing of either, or that cannot be applied.
    pub diagnostics: Vec<Diagnostic>,
}

/// A listener that was left out because another one has its socket. Its route configuration stays: the
/// services behind it are still reached through the HTTP proxy port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenListener {
    /// Name of the sidecar's listener.
    pub name: Arc<str>,
    /// Name of the listener that has it.
    pub by: Arc<str>,
    /// The socket that both want.
    pub address: SocketAddr,
}

/// Compiles a gateway and a sidecar that run together, for one world after the other.
#[derive(Debug)]
pub struct LocalCompiler {
    gateway: Compiler,
    sidecar: Compiler,
}

impl LocalCompiler {
    /// A compiler that has made nothing yet.
    pub fn new(scope: LocalScope) -> LocalCompiler {
        LocalCompiler { gateway: Compiler::new(scope.gateway), sidecar: Compiler::new(scope.sidecar) }
    }

    /// Compiles both scopes. Of clusters with one name the gateway's stays, and of listeners that want one socket.
    pub fn compile(&mut self, world: &World) -> Local {
        let gateway = self.gateway.compile(world);
        let sidecar = self.sidecar.compile(world);
        let diagnostics = self.gateway.joint_diagnostics(&self.sidecar);
        Local { diagnostics, ..unite(gateway, sidecar) }
    }
}

/// As a [`LocalCompiler`] that remembers nothing.
pub fn compile_local(world: &World, scope: &LocalScope) -> Local {
    LocalCompiler::new(scope.clone()).compile(world)
}

fn unite(mut set: XdsSet, sidecar: XdsSet) -> Local {
    let mut held: Vec<(Arc<str>, SocketAddr)> =
        set.listeners.iter().filter_map(|(name, listener)| Some((name.clone(), socket(&listener.message)?))).collect();
    let mut hidden = Vec::new();
    for (name, listener) in sidecar.listeners {
        let wanted = socket(&listener.message);
        let holder =
            wanted.and_then(|wanted| held.iter().find(|(_, held)| collide(wanted, *held)).map(|(by, _)| (by, wanted)));
        match holder {
            Some((by, address)) => hidden.push(HiddenListener { name, by: by.clone(), address }),
            None => {
                held.extend(wanted.map(|wanted| (name.clone(), wanted)));
                set.listeners.entry(name).or_insert(listener);
            }
        }
    }
    for (name, routes) in sidecar.routes {
        set.routes.entry(name).or_insert(routes);
    }
    for (name, cluster) in sidecar.clusters {
        set.clusters.entry(name).or_insert(cluster);
    }
    for (name, endpoints) in sidecar.endpoints {
        set.endpoints.entry(name).or_insert(endpoints);
    }
    for (name, secret) in sidecar.secrets {
        set.secrets.entry(name).or_insert(secret);
    }
    Local { set, hidden, diagnostics: Vec::new() }
}

/// The socket that a listener binds; `None` when it is no fixed one.
fn socket(listener: &Listener) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(address)) = listener.address.as_ref()?.address.as_ref() else {
        return None;
    };
    let Some(socket_address::PortSpecifier::PortValue(port)) = address.port_specifier else {
        return None;
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(address.address.parse().ok()?, port))
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && (a.ip() == b.ip() || any(a.ip()) || any(b.ip()))
}
