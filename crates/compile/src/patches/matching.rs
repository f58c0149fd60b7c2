//! Is this the thing that a patch is for? Contexts, names, ports and the rest of Istio's `match`.

use lateen_config::{ApplyTo, FilterChainMatch, PatchContext, RouteAction, RouteConfigurationMatch};
use lateen_xds::envoy::config::core::v3::{address, socket_address};
use lateen_xds::envoy::config::listener::v3::{FilterChain, Listener};
use lateen_xds::envoy::config::route::v3::{Route, VirtualHost, route};

use super::{About, Lookup, Target};
use crate::names;

/// True when a patch is for things that were generated for a direction.
pub(super) fn in_context(about: &About, context: PatchContext) -> bool {
    about.context == PatchContext::Any || about.context == context
}

/// True when a patch that adds a resource does so in a context: one for any context adds where requests leave, so that
/// it is there once.
pub(super) fn adds_in(about: &About, context: PatchContext) -> bool {
    match about.context {
        PatchContext::Any => matches!(context, PatchContext::SidecarOutbound | PatchContext::Gateway),
        own => own == context,
    }
}

/// What of a listener counts for matching; it stays the same while the listener is patched.
#[derive(Clone, Debug)]
pub(super) struct ListenerKey {
    pub(super) name: String,
    port: Option<u32>,
    /// It receives the connections to all ports; its chains tell them apart.
    is_virtual: bool,
}

impl ListenerKey {
    pub(super) fn of(listener: &Listener) -> ListenerKey {
        ListenerKey {
            name: listener.name.clone(),
            port: port(listener),
            is_virtual: [names::VIRTUAL_INBOUND, names::VIRTUAL_OUTBOUND].contains(&listener.name.as_str()),
        }
    }
}

/// True when a patch is for a listener or for something in it.
pub(super) fn listener(about: &About, key: &ListenerKey) -> bool {
    let Target::Listener(wanted) = &about.target else {
        return true;
    };
    let name = given(&wanted.name).is_none_or(|name| name == key.name);
    let by_chain = key.is_virtual && about.apply_to != ApplyTo::Listener;
    name && (by_chain || wanted.port_number.is_none_or(|number| number == 0 || key.port == Some(number)))
}

/// True when a patch for a listener that matches is for one of its filter chains, or for something in it.
pub(super) fn filter_chain(about: &About, key: &ListenerKey, chain: &FilterChain) -> bool {
    let Target::Listener(wanted) = &about.target else {
        return true;
    };
    let conditions = chain.filter_chain_match.as_ref();
    let port = conditions.and_then(|conditions| conditions.destination_port);
    let asked = wanted.port_number.filter(|number| key.is_virtual && *number != 0);
    if asked.is_some() && port != asked {
        return false;
    }
    let Some(FilterChainMatch { name, sni, transport_protocol, application_protocols, destination_port, .. }) =
        &wanted.filter_chain
    else {
        return true;
    };
    given(name).is_none_or(|name| name == chain.name)
        && given(sni).is_none_or(|sni| conditions.is_some_and(|all| all.server_names.iter().any(|name| name == sni)))
        && given(transport_protocol).is_none_or(|wanted| conditions.is_some_and(|all| all.transport_protocol == wanted))
        && given(application_protocols).is_none_or(|wanted| {
            let offered = conditions.map(|all| all.application_protocols.as_slice()).unwrap_or_default();
            wanted.split(',').all(|protocol| offered.iter().any(|offered| offered == protocol))
        })
        && destination_port.is_none_or(|wanted| wanted == 0 || port == Some(wanted))
}

/// True when a patch for a filter chain that matches is for this network filter, or for something in it.
pub(super) fn network_filter(about: &About, name: &str) -> bool {
    let Target::Listener(wanted) = &about.target else {
        return true;
    };
    let filter = wanted.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref());
    filter.is_none_or(|filter| filter.name.as_deref() == Some(name))
}

/// True when a patch is for a route configuration or for something in it.
pub(super) fn route_configuration(about: &About, context: PatchContext, name: &str, lookup: &Lookup<'_>) -> bool {
    let Target::Routes(wanted) = &about.target else {
        return true;
    };
    if given(&wanted.name).is_some_and(|wanted| wanted != name) {
        return false;
    }
    let number = wanted.port_number.filter(|number| *number != 0);
    if context != PatchContext::Gateway {
        let port = names::parse_inbound_cluster(name).or_else(|| name.parse().ok());
        return number.is_none_or(|number| port == Some(number));
    }
    gateway_routes(wanted, number, name, lookup)
}

fn gateway_routes(wanted: &RouteConfigurationMatch, number: Option<u32>, name: &str, lookup: &Lookup<'_>) -> bool {
    let parsed = names::parse_gateway_routes(name);
    let (port, port_name, gateway) = match &parsed {
        Some((port, port_name, gateway)) => (Some(*port), *port_name, gateway.as_deref()),
        None => (None, None, None),
    };
    let same_port = number.is_none_or(|number| {
        let servers = (lookup.server_ports)(name);
        if servers.is_empty() { port == Some(number) } else { servers.contains(&number) }
    });
    same_port
        && given(&wanted.port_name).is_none_or(|wanted| port_name == Some(wanted))
        && given(&wanted.gateway).is_none_or(|wanted| gateway == Some(wanted))
}

/// True when a patch for a route configuration that matches is for one of its virtual hosts, or for a route in it.
pub(super) fn virtual_host(about: &About, host: &VirtualHost) -> bool {
    let Target::Routes(RouteConfigurationMatch { vhost: Some(wanted), .. }) = &about.target else {
        return true;
    };
    given(&wanted.name).is_none_or(|name| name == host.name)
        && given(&wanted.domain_name).is_none_or(|domain| host.domains.iter().any(|own| own == domain))
}

/// Whether a patch for a virtual host that matches is for one of its routes; `None` when it names no route.
pub(super) fn route(about: &About) -> Option<impl Fn(&Route) -> bool> {
    let Target::Routes(RouteConfigurationMatch { vhost: Some(wanted), .. }) = &about.target else {
        return None;
    };
    let wanted = wanted.route.as_ref()?;
    Some(move |route: &Route| {
        let action = match wanted.action {
            RouteAction::Any => true,
            RouteAction::Route => matches!(route.action, Some(route::Action::Route(_))),
            RouteAction::Redirect => matches!(route.action, Some(route::Action::Redirect(_))),
            RouteAction::DirectResponse => matches!(route.action, Some(route::Action::DirectResponse(_))),
        };
        action && given(&wanted.name).is_none_or(|name| name == route.name)
    })
}

/// True when a patch is for a cluster.
pub(super) fn cluster(about: &About, name: &str, lookup: &Lookup<'_>) -> bool {
    let Target::Cluster(wanted) = &about.target else {
        return true;
    };
    if let Some(wanted) = given(&wanted.name) {
        return wanted == name;
    }
    let outbound = names::parse_outbound_cluster(name).or_else(|| names::parse_server_name(name));
    let inbound = names::parse_inbound_cluster(name);
    let port = outbound.map(|cluster| cluster.port).or(inbound);
    let subset = outbound.map(|cluster| cluster.subset).unwrap_or_default();
    let host = |wanted: &str| match (outbound, inbound) {
        (Some(cluster), _) => cluster.host == wanted,
        (None, Some(port)) => (lookup.inbound_hosts)(port).iter().any(|host| **host == *wanted),
        (None, None) => false,
    };
    given(&wanted.subset).is_none_or(|wanted| wanted == subset)
        && given(&wanted.service).is_none_or(host)
        && wanted.port_number.is_none_or(|number| number == 0 || port == Some(number))
}

/// A text that is not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// The port that a listener was configured with: its name keeps it, the socket may be moved (see
/// [`crate::scope::Listen`]).
fn port(listener: &Listener) -> Option<u32> {
    let named = listener.name.rsplit_once('_').and_then(|(address, port)| {
        address.parse::<std::net::IpAddr>().ok()?;
        port.parse().ok()
    });
    named.or_else(|| match listener.address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            socket_address::PortSpecifier::PortValue(port) => Some(*port),
            socket_address::PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    })
}
