//! Does the transport socket of a filter chain take what the client begins with? And what protocol is inside?

use lateen_xds::any;
use lateen_xds::envoy::config::core::v3::transport_socket::ConfigType;
use lateen_xds::envoy::config::listener::v3::FilterChain;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;

use super::call::{Call, CallProtocol, CallTls};
use super::explanation::RefusalKind;

/// What the network filters of a chain get to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// What the client says, in the clear.
    Clear,
    /// A TLS handshake that this proxy does not end.
    Encrypted,
}

/// Carries out the handshake, so to speak.
pub(crate) fn accept(chain: &FilterChain, call: &Call) -> Result<Payload, (RefusalKind, String)> {
    let Some(context) = tls_context(chain) else {
        return Ok(match call.tls {
            CallTls::Plaintext => Payload::Clear,
            CallTls::Tls | CallTls::Mutual => Payload::Encrypted,
        });
    };
    let mutual = context.require_client_certificate == Some(true);
    match call.tls {
        CallTls::Plaintext => Err((
            RefusalKind::Tls,
            "the filter chain expects a TLS handshake, and the client sends plaintext".to_owned(),
        )),
        CallTls::Tls if mutual => Err((
            RefusalKind::MutualTls,
            "the filter chain asks the client for a certificate, and the client has none".to_owned(),
        )),
        CallTls::Mutual if mutual && !trusts(&context, call) => Err((
            RefusalKind::MutualTls,
            "the filter chain asks for a certificate of another authority than the client's".to_owned(),
        )),
        CallTls::Tls | CallTls::Mutual => Ok(Payload::Clear),
    }
}

/// Whether a connection manager of this codec can read it.
pub(crate) fn speaks_http(payload: Payload, call: &Call, codec: Codec) -> Result<(), String> {
    if payload == Payload::Encrypted {
        return Err("HTTP is expected in the clear, and the client sends TLS".to_owned());
    }
    match (call.protocol, codec) {
        (CallProtocol::Tcp, _) => Err("HTTP is expected, and the client speaks another protocol".to_owned()),
        (CallProtocol::Http2, Codec::Http1) => Err("HTTP/1.1 is expected, and the client speaks HTTP/2".to_owned()),
        (CallProtocol::Http1, Codec::Http2) => Err("HTTP/2 is expected, and the client speaks HTTP/1.1".to_owned()),
        _ => Ok(()),
    }
}

/// Versions of HTTP that a connection manager reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Any,
    Http1,
    Http2,
}

fn tls_context(chain: &FilterChain) -> Option<DownstreamTlsContext> {
    let socket = chain.transport_socket.as_ref()?;
    let Some(ConfigType::TypedConfig(config)) = &socket.config_type else { return None };
    any::unpack(config).ok()
}

/// Client and chain belong together when the client's certificate is of the authority of the chain's own.
fn trusts(context: &DownstreamTlsContext, call: &Call) -> bool {
    let Some(certificate) = &call.client_certificate else { return true };
    context.common_tls_context.as_ref().is_some_and(|common| {
        common.tls_certificate_sds_secret_configs.iter().any(|secret| secret.name == *certificate)
    })
}
