//! Which listener has a connection, and what do its listener filters find out before a filter chain is chosen?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::{address, socket_address};
use lateen_xds::envoy::config::listener::v3::listener_filter::ConfigType;
use lateen_xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use lateen_xds::envoy::config::listener::v3::{Listener, ListenerFilter, ListenerFilterChainMatchPredicate};
use lateen_xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use lateen_xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use lateen_xds::{Resource, XdsSet};

use super::call::{Call, CallProtocol, CallTls, Direction};
use crate::names;
use crate::scope::{Interception, Role, Scope};

/// Nested predicates beyond this depth count as not matching.
const MAX_DEPTH: usize = 32;

/// What is known of a connection before its filter chain is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    /// `tls` or `raw_buffer`.
    pub(crate) transport_protocol: &'static str,
    /// Server name of the handshake, in lower case; empty without one.
    pub(crate) server_name: String,
    /// What the handshake offers, or what the HTTP inspector recognised.
    pub(crate) application_protocols: Vec<String>,
    /// No inspector looked for TLS, although the client speaks it.
    pub(crate) tls_unseen: bool,
}

/// The listener that a connection ends up with. A gateway's listeners are addressed. Redirected connections of a
/// sidecar arrive at `virtualOutbound` and go on to the listener of their original destination if there is one;
/// those for the workload itself all stay with `virtualInbound`.
pub(crate) fn select<'a>(set: &'a XdsSet, scope: &Scope, call: &Call) -> Option<&'a Resource<Listener>> {
    let redirected = scope.role == Role::Sidecar && scope.interception != Interception::None;
    if redirected && call.direction == Direction::Inbound {
        return set.listeners.get(names::VIRTUAL_INBOUND);
    }
    let addressed = by_address(set, call);
    if redirected { addressed.or_else(|| set.listeners.get(names::VIRTUAL_OUTBOUND)) } else { addressed }
}

/// The listener of exactly this address and port, else the one of every address of its family. Without an address to
/// look for any listener of the port will do, if none has every address.
fn by_address<'a>(set: &'a XdsSet, call: &Call) -> Option<&'a Resource<Listener>> {
    let with_port = || {
        set.listeners.values().filter_map(|listener| {
            sockets(&listener.message).find(|(_, port)| *port == u32::from(call.port)).map(|(ip, _)| (ip, listener))
        })
    };
    let exact = |wanted: IpAddr| {
        set.listeners
            .values()
            .find(|listener| sockets(&listener.message).any(|(ip, port)| ip == wanted && port == u32::from(call.port)))
    };
    let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match call.address {
        Some(address) => {
            let every = if address.is_ipv4() { any_v4 } else { any_v6 };
            exact(address).or_else(|| exact(every))
        }
        None => exact(any_v4).or_else(|| exact(any_v6)).or_else(|| {
            // A client that names no address reaches what is bound, whatever the address.
            with_port().find(|(_, listener)| listener.message.bind_to_port != Some(false)).map(|(_, listener)| listener)
        }),
    }
}

/// The addresses of a listener.
fn sockets(listener: &Listener) -> impl Iterator<Item = (IpAddr, u32)> {
    listener
        .address
        .iter()
        .chain(listener.additional_addresses.iter().filter_map(|additional| additional.address.as_ref()))
        .filter_map(|address| match address.address.as_ref()? {
            address::Address::SocketAddress(socket) => {
                let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
                    return None;
                };
                Some((socket.address.parse().ok()?, port))
            }
            _ => None,
        })
}

/// Runs the listener filters. Without a TLS inspector nobody reads the handshake, and without an HTTP inspector
/// nobody recognises HTTP; each may be switched off for some ports.
pub(crate) fn inspect(listener: &Listener, call: &Call) -> Connection {
    let mut connection = Connection { transport_protocol: "raw_buffer", ..Connection::default() };
    let inspects_tls = runs::<TlsInspector>(listener, "envoy.filters.listener.tls_inspector", call.port)
        .unwrap_or_else(|| needs_tls_inspector(listener));
    let inspects_http =
        runs::<HttpInspector>(listener, "envoy.filters.listener.http_inspector", call.port).unwrap_or(false);
    match call.tls {
        CallTls::Plaintext if inspects_http => {
            let recognised = match call.protocol {
                CallProtocol::Http1 => Some("http/1.1"),
                CallProtocol::Http2 => Some("h2c"),
                CallProtocol::Tcp => None,
            };
            connection.application_protocols.extend(recognised.map(str::to_owned));
        }
        CallTls::Plaintext => {}
        CallTls::Tls | CallTls::Mutual if inspects_tls => {
            connection.transport_protocol = "tls";
            connection.server_name = call.sni.as_deref().unwrap_or_default().to_ascii_lowercase();
            connection.application_protocols.clone_from(&call.alpn);
        }
        CallTls::Tls | CallTls::Mutual => connection.tls_unseen = true,
    }
    connection
}

/// Whether a listener filter looks at connections to a port; `None` when the listener does not have it.
fn runs<M: prost::Name>(listener: &Listener, name: &str, port: u16) -> Option<bool> {
    let of_type = |filter: &&ListenerFilter| match &filter.config_type {
        Some(ConfigType::TypedConfig(config)) => any::is::<M>(config),
        _ => filter.name == name,
    };
    let filter = listener.listener_filters.iter().find(of_type)?;
    Some(!filter.filter_disabled.as_ref().is_some_and(|predicate| holds(predicate, port, 0)))
}

/// Envoy adds the TLS inspector by itself when a chain cannot be chosen without it.
fn needs_tls_inspector(listener: &Listener) -> bool {
    listener.filter_chains.iter().filter_map(|chain| chain.filter_chain_match.as_ref()).any(|criteria| {
        match criteria.transport_protocol.as_str() {
            "tls" => true,
            "" => !criteria.server_names.is_empty() || !criteria.application_protocols.is_empty(),
            _ => false,
        }
    })
}

/// Whether a predicate holds for a connection to a port.
fn holds(predicate: &ListenerFilterChainMatchPredicate, port: u16, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port, depth + 1)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port, depth + 1)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port, depth + 1),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&i32::from(port)),
        None => false,
    }
}
