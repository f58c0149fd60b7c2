//! How is the value of a patch merged into a message? As `lateen_xds::merge` merges, except for transport sockets.

use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3::TransportSocket;
use lateen_xds::envoy::config::listener::v3::FilterChain;
use lateen_xds::merge::{self, Lists};
use prost::{Message, Name};

use super::Value;

/// The message with the value merged into it.
pub(super) fn message<M: Name + Default>(base: &M, value: &Value<M>, lists: Lists) -> Result<M, String> {
    let merged = merge::merge(&M::full_name(), &base.encode_to_vec(), &value.encoded, lists);
    M::decode(merged.map_err(|error| error.message)?.as_slice()).map_err(|error| error.to_string())
}

/// What became of a value that has a transport socket.
pub(super) enum Outcome<M> {
    /// All of the value was merged.
    Whole(M),
    /// The transport socket alone was merged.
    SocketOnly(M),
}

/// A filter chain with a value merged into it. Of a value with the transport socket that the chain has as well, the
/// socket alone is merged, as Istio does it; another socket takes the place of the chain's.
pub(super) fn filter_chain(
    base: &FilterChain,
    value: &Value<FilterChain>,
    lists: Lists,
) -> Result<Outcome<FilterChain>, String> {
    let mut base = base.clone();
    match (&base.transport_socket, &value.message.transport_socket) {
        (Some(own), Some(patch)) if own.name == patch.name => {
            base.transport_socket = Some(transport_socket(own, patch, lists)?);
            let only = FilterChain { transport_socket: None, ..value.message.clone() } == FilterChain::default();
            return Ok(if only { Outcome::Whole(base) } else { Outcome::SocketOnly(base) });
        }
        (Some(_), Some(_)) => base.transport_socket = None,
        _ => {}
    }
    message(&base, value, lists).map(Outcome::Whole)
}

/// A cluster with a value merged into it. Of a value with a transport socket the socket alone counts, as in Istio:
/// it is merged into the one of the same name, among the `transport_socket_matches` if there are any, and else takes
/// the place of the cluster's.
pub(super) fn cluster(base: &Cluster, value: &Value<Cluster>, lists: Lists) -> Result<Outcome<Cluster>, String> {
    let Some(patch) = &value.message.transport_socket else {
        return message(base, value, lists).map(Outcome::Whole);
    };
    let mut base = base.clone();
    if base.transport_socket_matches.is_empty() {
        base.transport_socket = Some(match &base.transport_socket {
            Some(own) if own.name == patch.name => transport_socket(own, patch, lists)?,
            _ => patch.clone(),
        });
    } else {
        let mut sockets = base.transport_socket_matches.iter_mut().filter_map(|entry| entry.transport_socket.as_mut());
        let Some(own) = sockets.find(|own| own.name == patch.name) else {
            return Err(format!("none of its `transport_socket_matches` has a transport socket `{}`", patch.name));
        };
        *own = transport_socket(own, patch, lists)?;
    }
    let only = Cluster { transport_socket: None, ..value.message.clone() } == Cluster::default();
    Ok(if only { Outcome::Whole(base) } else { Outcome::SocketOnly(base) })
}

fn transport_socket(base: &TransportSocket, patch: &TransportSocket, lists: Lists) -> Result<TransportSocket, String> {
    message(base, &Value { encoded: patch.encode_to_vec(), message: patch.clone() }, lists)
}
