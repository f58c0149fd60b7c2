//! What does the program listen on, and for whom? The table that `lateen run` shows.

use std::net::SocketAddr;

use lateen_proxy::Current;
use lateen_xds::Part;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    /// `gateway`, `mesh` or `proxy`.
    pub(crate) role: &'static str,
    /// Where it is bound.
    pub(crate) address: SocketAddr,
    /// The objects that it is there for.
    pub(crate) serves: String,
}

/// The listeners in use, gateways first.
pub(crate) fn listening(current: &Current, http_proxy_port: Option<u16>) -> Vec<Listening> {
    let mut all: Vec<Listening> = current
        .listeners
        .iter()
        .map(|(name, address)| {
            let origin = current.set.listeners.get(name).and_then(|listener| listener.origin(Part::Whole));
            let is_proxy = http_proxy_port.is_some_and(|port| **name == *format!("127.0.0.1_{port}"));
            let role = match origin {
                _ if is_proxy => "proxy",
                Some(origin) if &*origin.kind == "Gateway" => "gateway",
                _ => "mesh",
            };
            let serves = match (role, origin) {
                ("proxy", _) => "HTTP proxy into the mesh".to_owned(),
                ("gateway", Some(origin)) => origin.to_string(),
                _ => format!("services with port {}", name.rsplit_once('_').map_or("", |(_, port)| port)),
            };
            Listening { role, address: *address, serves }
        })
        .collect();
    all.sort_by_key(|listener| (listener.role, listener.address));
    all
}
