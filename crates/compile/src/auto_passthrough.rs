//! To which services does a gateway pass connections with mutual TLS through as they are? Servers of mode
//! `AUTO_PASSTHROUGH`, where the name that a client asks for is that of a cluster.

use crate::context::Context;
use crate::gateway_ports::configures;
use crate::host;
use crate::scope::Role;
use crate::world::gateways::{ServerHost, Termination};
use crate::world::services::Service;

/// The hosts of all such servers of a gateway; none for a sidecar.
pub(crate) fn hosts(cx: &Context<'_>) -> Vec<ServerHost> {
    if cx.scope.role != Role::Gateway {
        return Vec::new();
    }
    let selected = cx.world.gateways().iter().filter(|gateway| configures(cx, gateway));
    let servers = selected.flat_map(|gateway| &gateway.servers);
    let passing = servers.filter(|server| server.termination() == Termination::AutoPassthrough);
    passing.flat_map(|server| &server.hosts).cloned().collect()
}

/// True when servers with these hosts pass connections to a service through. Servers outside of the mesh know nothing of
/// the names that are asked for, and no name stands for a wildcard.
pub(crate) fn covers(hosts: &[ServerHost], service: &Service) -> bool {
    let covers = |host: &ServerHost| {
        host.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace)
            && host::covers(&host.host, &service.host)
    };
    !service.external && !host::is_wildcard(&service.host) && hosts.iter().any(covers)
}
