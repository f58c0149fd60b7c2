//! With which transport socket does a cluster reach its endpoints? TLS as a rule says it, mutual TLS of the mesh
//! wherever both sides can, and the PROXY protocol around either.

use lateen_config::{ClientTlsMode, ProxyProtocolVersion};
use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket, proxy_protocol_config};
use lateen_xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use super::http_options::Version;
use super::outbound::Upstream;
use crate::endpoints::{MESH_TLS, Selection, TLS_MODE};
use crate::message;
use crate::names;
use crate::policy::Policy;
use crate::scope::Role;
use crate::tls::{self, Verification};
use crate::world::authentication::PeerMode;

/// Socket of endpoints that take mutual TLS of the mesh.
const MESH_MATCH: &str = "tlsMode-istio";

/// Socket of all others.
const PLAIN_MATCH: &str = "tlsMode-disabled";

/// Transport socket that sends the PROXY header first.
const PROXY_PROTOCOL_SOCKET: &str = "envoy.transport_sockets.upstream_proxy_protocol";

/// How the endpoints of a cluster are reached.
pub(super) enum Transport {
    /// All in the same way; `None` for plain bytes.
    One(Option<TransportSocket>),
    /// As each endpoint says: with mutual TLS of the mesh, by this socket, or without.
    ByEndpoint(TransportSocket),
}

/// Decides for a cluster. Without endpoints of its own (an original destination) it is decided once for all that are
/// known: mutual TLS when every one of them takes it.
pub(super) fn decide(upstream: &Upstream<'_, '_>, selection: &Selection<'_, '_>, version: Version) -> Transport {
    let cx = upstream.cx;
    let mesh = cx.world.mesh();
    let http2 = version == Version::Http2;
    let subset = upstream.subset.map(|subset| &*subset.name).unwrap_or_default();
    let server_name = names::server_name(upstream.port.number, subset, &upstream.service.host);
    if let Some(settings) = selection.policy.tls {
        let socket = match settings.mode {
            ClientTlsMode::Disable => None,
            ClientTlsMode::IstioMutual => {
                let sni = settings.sni.as_deref().filter(|sni| !sni.is_empty()).unwrap_or(&server_name);
                let own = &settings.subject_alt_names;
                let names = if own.is_empty() { upstream.identities } else { own };
                Some(tls::upstream_socket(&tls::upstream_mesh(cx.scope.capability, sni, names, http2)))
            }
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                // Secrets are given to gateways, and to workloads that a rule names.
                let has_selector = upstream.rule.is_some_and(|rule| rule.workload_selector.is_some());
                let credentials = cx.scope.role == Role::Gateway || has_selector;
                let names = &upstream.service.subject_alt_names;
                tls::upstream(mesh, cx.scope.capability, settings, names, credentials, http2)
                    .map(|context| tls::upstream_socket(&context))
            }
        };
        return Transport::One(socket);
    }
    let takes_mesh_tls = mesh.auto_mtls
        && !upstream.service.external
        && cx.world.peer_mode(&upstream.service.namespace) != PeerMode::Disable;
    if !takes_mesh_tls {
        return Transport::One(None);
    }
    let socket = || {
        let context = tls::upstream_mesh(cx.scope.capability, &server_name, upstream.identities, http2);
        tls::upstream_socket(&context)
    };
    if upstream.has_endpoints(selection.policy) {
        return Transport::ByEndpoint(socket());
    }
    let known = selection.select(cx.endpoints(upstream.service, upstream.port));
    let all = !known.is_empty() && known.iter().all(|endpoint| selection.takes_mesh_tls(endpoint));
    Transport::One(all.then(socket))
}

/// What TLS takes from each request, because the rule does not say it.
pub(super) fn verification(transport: &Transport, policy: &Policy<'_>, declared: &[String]) -> Verification {
    match (transport, policy.tls) {
        (Transport::One(Some(_)), Some(settings))
            if matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) =>
        {
            tls::verification(settings, declared)
        }
        _ => Verification::default(),
    }
}

/// Sets the sockets of a cluster.
pub(super) fn apply(cluster: &mut Cluster, transport: Transport, policy: &Policy<'_>) {
    let version = policy.proxy_protocol.map(|proxy_protocol| proxy_protocol.version);
    let wrap = |socket: TransportSocket| match version {
        Some(version) => with_proxy_protocol(socket, version),
        None => socket,
    };
    match transport {
        Transport::One(None) if version.is_none() => {}
        Transport::One(socket) => cluster.transport_socket = Some(wrap(socket.unwrap_or_else(tls::raw_socket))),
        Transport::ByEndpoint(socket) => {
            let wanted = message::object([(TLS_MODE, message::text(MESH_TLS))]);
            cluster.transport_socket_matches =
                [(MESH_MATCH, wanted, socket), (PLAIN_MATCH, message::object([]), tls::raw_socket())]
                    .map(|(name, wanted, socket)| cluster::TransportSocketMatch {
                        name: name.to_owned(),
                        r#match: Some(wanted),
                        transport_socket: Some(wrap(socket)),
                    })
                    .into();
        }
    }
}

fn with_proxy_protocol(socket: TransportSocket, version: ProxyProtocolVersion) -> TransportSocket {
    let version = match version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let around = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version.into(), ..Default::default() }),
        transport_socket: Some(socket),
        ..Default::default()
    };
    tls::socket(PROXY_PROTOCOL_SOCKET, &around)
}
