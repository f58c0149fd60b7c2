//! A listener as the data plane uses it: its address and the connection manager of its filter chain.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::listener::v3 as listener_v3;

use super::fields::unpack;
use super::hcm::HttpConnectionManager;
use super::{ClusterNames, Invalid};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// Listener filters that only look at bytes to choose a filter chain; a listener with one chain does not need them.
const SNIFFERS: [&str; 2] = [
    "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
];

/// The settings of a listener.
#[derive(Debug)]
pub struct Listener {
    /// Name.
    pub name: Arc<str>,
    /// Address to bind; port 0 is any free port.
    pub address: SocketAddr,
    /// `stat_prefix`, if given; else statistics carry the bound address.
    pub stat_prefix: Option<Arc<str>>,
    /// The connection manager.
    pub manager: Arc<HttpConnectionManager>,
}

impl Listener {
    /// Reads `envoy.config.listener.v3.Listener`.
    ///
    /// # Errors
    /// A field that this data plane cannot honour, with its path.
    pub fn build(message: &listener_v3::Listener, names: &mut ClusterNames) -> Result<Self, Invalid> {
        for (index, filter) in message.listener_filters.iter().enumerate() {
            use listener_v3::listener_filter::ConfigType;
            match &filter.config_type {
                Some(ConfigType::TypedConfig(config)) if SNIFFERS.contains(&config.type_url.as_str()) => {}
                _ => {
                    let path = format!("listener_filters[{index}]");
                    return Err(Invalid::at(path, format!("listener filter `{}` is not supported yet", filter.name)));
                }
            }
        }
        if message.bind_to_port == Some(false) {
            return Err(Invalid::at("bind_to_port", "listeners without a socket are not supported yet".into()));
        }
        let (path, chain) = match (message.filter_chains.as_slice(), &message.default_filter_chain) {
            ([chain], None) if is_match_all(chain) => ("filter_chains[0]", chain),
            ([], Some(chain)) => ("default_filter_chain", chain),
            _ => {
                let text = "only one filter chain without a match is supported yet";
                return Err(Invalid::at("filter_chains", text.into()));
            }
        };
        Ok(Self {
            name: message.name.as_str().into(),
            address: address(message)?,
            stat_prefix: (!message.stat_prefix.is_empty()).then(|| message.stat_prefix.as_str().into()),
            manager: Arc::new(manager(chain, names).map_err(|invalid| invalid.under(path))?),
        })
    }
}

fn is_match_all(chain: &listener_v3::FilterChain) -> bool {
    chain.filter_chain_match.as_ref().is_none_or(|matching| *matching == listener_v3::FilterChainMatch::default())
}

fn address(message: &listener_v3::Listener) -> Result<SocketAddr, Invalid> {
    use core_v3::address::Address as Kind;
    use core_v3::socket_address::PortSpecifier;
    let Some(Kind::SocketAddress(socket)) = message.address.as_ref().and_then(|address| address.address.as_ref())
    else {
        return Err(Invalid::at("address", "only socket addresses are supported".into()));
    };
    let path = "address.socket_address";
    let ip: IpAddr =
        socket.address.parse().map_err(|_| Invalid::at(path, format!("malformed IP address: {}", socket.address)))?;
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return Err(Invalid::at(path, "port_value is required".into()));
    };
    let port = u16::try_from(port).map_err(|_| Invalid::at(path, format!("{port} is no port number")))?;
    Ok(SocketAddr::new(ip, port))
}

fn manager(chain: &listener_v3::FilterChain, names: &mut ClusterNames) -> Result<HttpConnectionManager, Invalid> {
    use listener_v3::filter::ConfigType;
    if let Some(socket) = &chain.transport_socket
        && socket.name != "envoy.transport_sockets.raw_buffer"
    {
        return Err(Invalid::at("transport_socket", format!("`{}` is not supported yet", socket.name)));
    }
    let [filter] = chain.filters.as_slice() else {
        return Err(Invalid::at("filters", "exactly one network filter is supported yet".into()));
    };
    match &filter.config_type {
        Some(ConfigType::TypedConfig(config)) if config.type_url == HCM => {
            let message = unpack(config, "filters[0].typed_config")?;
            HttpConnectionManager::build(&message, names).map_err(|invalid| invalid.under("filters[0].typed_config"))
        }
        _ => Err(Invalid::at("filters[0]", format!("network filter `{}` is not supported yet", filter.name))),
    }
}
