//! What has to be known of a connection before its filter chain is chosen? The listener filters that look at its first
//! bytes, where some chain asks for what they find.

use lateen_xds::envoy::config::listener::v3::{FilterChain, Listener, ListenerFilter, listener_filter};
use lateen_xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use lateen_xds::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use lateen_xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use prost::Name;

use crate::context::Context;
use crate::message;

/// Adds the inspectors that the listener's chains need, and how long they may take.
pub(crate) fn add(listener: &mut Listener, cx: &Context<'_>) {
    let chains = || listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let (tls, http) = (chains().any(needs_tls), chains().any(needs_http));
    if tls {
        listener.listener_filters.push(tls_inspector());
    }
    if http {
        listener.listener_filters.push(http_inspector());
    }
    if tls || http {
        listener.listener_filters_timeout = Some(message::duration(cx.world.mesh().protocol_detection_timeout));
        listener.continue_on_listener_filters_timeout = true;
    }
}

/// True when a chain is chosen by what TLS says first.
pub(crate) fn needs_tls(chain: &FilterChain) -> bool {
    chain
        .filter_chain_match
        .as_ref()
        .is_some_and(|matched| matched.transport_protocol == "tls" || !matched.server_names.is_empty())
}

/// True when a chain is chosen by whether HTTP is spoken without TLS.
pub(crate) fn needs_http(chain: &FilterChain) -> bool {
    chain.filter_chain_match.as_ref().is_some_and(|matched| {
        matched.transport_protocol != "tls"
            && matched.application_protocols.iter().any(|protocol| protocol == "http/1.1" || protocol == "h2c")
    })
}

/// Finds TLS, and in it the server's name and the protocols that the client offers.
pub(crate) fn tls_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.tls_inspector", &TlsInspector::default())
}

/// Finds HTTP without TLS.
pub(crate) fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

/// Reads the header of the PROXY protocol, in which a load balancer in front tells the client's address.
pub(crate) fn proxy_protocol() -> ListenerFilter {
    filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default())
}

/// A listener filter with its configuration.
pub(crate) fn filter<M: Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(message::typed(config))),
        ..Default::default()
    }
}
