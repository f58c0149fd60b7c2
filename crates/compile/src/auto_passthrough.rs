//! To which services does a gateway pass connections with mutual TLS through as they are? Servers of mode
//! `AUTO_PASSTHROUGH`, where the name that a client asks for is that of a cluster.

use crate::context::Context;
use crate::host;
use crate::scope::Role;
use crate::world::gateways::{ServerHost, Termination};
use crate::world::services::Service;

/// The hosts that are passed through.
pub(crate) struct PassesThrough<'a>(Vec<&'a ServerHost>);

impl<'a> PassesThrough<'a> {
    /// The hosts of all such servers of this gateway; none for a sidecar.
    pub(crate) fn build(cx: &Context<'a>) -> PassesThrough<'a> {
        let mut hosts = Vec::new();
        if cx.scope.role == Role::Gateway {
            for gateway in cx.world.gateways() {
                let selector = gateway.selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                if cx.scope.selected_by(selector) {
                    let servers = gateway.servers.iter();
                    let passing = servers.filter(|server| server.termination() == Termination::AutoPassthrough);
                    hosts.extend(passing.flat_map(|server| &server.hosts));
                }
            }
        }
        PassesThrough(hosts)
    }

    /// True when connections for this service are passed through. Servers outside of the mesh know nothing of the names
    /// that are asked for.
    pub(crate) fn covers(&self, service: &Service) -> bool {
        let covers = |host: &&ServerHost| {
            host.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace)
                && host::covers(&host.host, &service.host)
        };
        !service.external && self.0.iter().any(covers)
    }
}
