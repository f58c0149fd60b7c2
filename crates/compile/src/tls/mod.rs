//! How are connections encrypted? Transport sockets of clusters and filter chains: which certificate is shown, whose is
//! accepted, and how both are asked for. Certificates themselves are never part of them; they are secrets with names.

mod downstream;
mod parameters;
mod secrets;
mod upstream;

pub(crate) use downstream::{ChainProtocol, downstream_gateway, downstream_mesh};
pub(crate) use upstream::{Verification, upstream, upstream_mesh, verification};

use lateen_xds::envoy::config::core::v3::{TransportSocket, transport_socket};
use lateen_xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
};
use prost::Name;

use crate::message;

/// Name of the transport socket that speaks TLS.
pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// Name of the transport socket that leaves bytes as they are.
pub(crate) const RAW_SOCKET: &str = "envoy.transport_sockets.raw_buffer";

/// ALPN protocols by which workloads of the mesh know each other's TLS from that of an application, whatever is spoken
/// inside.
pub(crate) const MESH_ALPN: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Those of them with HTTP inside.
pub(crate) const MESH_HTTP_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Those of them with bytes inside.
pub(crate) const MESH_TCP_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];

/// The transport socket of a cluster that speaks TLS.
pub(crate) fn upstream_socket(context: &UpstreamTlsContext) -> TransportSocket {
    socket(TLS_SOCKET, context)
}

/// The transport socket of a filter chain that speaks TLS.
pub(crate) fn downstream_socket(context: &DownstreamTlsContext) -> TransportSocket {
    socket(TLS_SOCKET, context)
}

/// The transport socket without TLS.
pub(crate) fn raw_socket() -> TransportSocket {
    socket(RAW_SOCKET, &RawBuffer {})
}

/// A transport socket by its extension's name.
pub(crate) fn socket<M: Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(message::typed(config))),
    }
}

/// Peers are checked against authorities that come as a secret, and against what `own` says besides.
fn combined(own: CertificateValidationContext, authorities: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(own),
        validation_context_sds_secret_config: Some(authorities),
        ..Default::default()
    })
}

/// A text that is there and not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
