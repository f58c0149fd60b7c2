//! How does a set of resources become a bootstrap that Envoy runs without a control plane, and how is one read?
//!
//! [`static_bootstrap`] replaces what would come over xDS by what is in the set: route configurations are put into
//! their connection managers, endpoints into their clusters, and secrets become static ones. What the set lacks of
//! endpoints and secrets stays away, as it would if a control plane never sent it. [`parse`] takes the static
//! resources of a bootstrap apart into a set; there, what is inline stays inline.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::any::{self, AnyError};
use crate::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use crate::envoy::config::bootstrap::v3::{Admin, Bootstrap};
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use crate::envoy::config::core::v3::address::Address as AddressKind;
use crate::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::envoy::config::core::v3::socket_address::PortSpecifier;
use crate::envoy::config::core::v3::{Address, ConfigSource, Node, SocketAddress, TypedExtensionConfig};
use crate::envoy::config::listener::v3::filter::ConfigType;
use crate::envoy::config::listener::v3::listener::ListenerSpecifier;
use crate::envoy::config::listener::v3::{Filter, Listener};
use crate::envoy::extensions::bootstrap::internal_listener::v3::InternalListener;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use crate::json::{self, JsonError};
use crate::yaml::{self, YamlError};
use crate::{Origin, Part, ResourceMessage, ResourceType, XdsSet};

/// What a bootstrap says besides its resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BootstrapOptions {
    /// Where Envoy's admin interface listens; none when absent.
    pub admin: Option<SocketAddr>,
    /// Who the proxy is.
    pub node: Node,
}

/// The bootstrap, as JSON that Envoy reads, in which all resources of the set are static.
///
/// # Errors
/// A listener that refers over xDS to a route configuration that is not in the set, or that holds an undecodable
/// message.
pub fn static_bootstrap(set: &XdsSet, options: &BootstrapOptions) -> Result<Value, BootstrapError> {
    let listeners = set.listeners.values().map(|listener| static_listener(set, &listener.message));
    let clusters = set.clusters.values().map(|cluster| static_cluster(set, &cluster.message));
    let mut bootstrap = Bootstrap {
        node: (options.node != Node::default()).then(|| options.node.clone()),
        admin: options.admin.map(|address| Admin { address: Some(socket_address(address)), ..Admin::default() }),
        static_resources: Some(StaticResources {
            listeners: listeners.collect::<Result<_, _>>()?,
            clusters: clusters.collect(),
            secrets: set.secrets.values().map(|secret| (*secret.message).clone()).collect(),
        }),
        ..Bootstrap::default()
    };
    // Envoy knows internal listeners only when this extension is asked for.
    if set.listeners.values().any(|listener| is_internal(&listener.message)) {
        bootstrap.bootstrap_extensions.push(TypedExtensionConfig {
            name: "envoy.bootstrap.internal_listener".into(),
            typed_config: Some(any::pack(&InternalListener::default())),
        });
    }
    let mut value = json::render(&bootstrap)?;
    let missing = make_secrets_static(set, &mut value);
    if missing && let Value::Object(fields) = &mut value {
        // Envoy asks for a name of its own as soon as any secret comes from elsewhere.
        let node = fields.entry("node").or_insert_with(|| json!({}));
        for field in ["id", "cluster"] {
            if let Value::Object(node) = node {
                node.entry(field).or_insert_with(|| NODE.into());
            }
        }
    }
    Ok(value)
}

/// Name of a proxy that has none.
const NODE: &str = "lateen";

/// A file that is always there and in which there is nothing.
const EMPTY_FILE: &str = "/dev/null";

/// A bootstrap that was read: its static resources as a set, and everything else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedBootstrap {
    /// The bootstrap without its static resources.
    pub bootstrap: Bootstrap,
    /// The static resources. Each one's origin names its place in the file.
    pub set: XdsSet,
}

/// Reads a bootstrap from YAML or JSON. `file` is where the text came from, for origins.
///
/// # Errors
/// Malformed text, content that is not a bootstrap, and two static resources of one type with the same name.
pub fn parse(text: &str, file: Option<&Arc<str>>) -> Result<ParsedBootstrap, BootstrapError> {
    let value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| {
            BootstrapError::Text(YamlError { line: error.line(), column: error.column(), message: error.to_string() })
        })?
    } else {
        yaml::parse(text).map_err(BootstrapError::Text)?
    };
    take_apart(json::parse(value)?, file)
}

/// Separates a bootstrap from its static resources. Listeners without a name are named after their address.
///
/// # Errors
/// Two static resources of one type with the same name.
pub fn take_apart(mut bootstrap: Bootstrap, file: Option<&Arc<str>>) -> Result<ParsedBootstrap, BootstrapError> {
    let StaticResources { mut listeners, clusters, secrets } = bootstrap.static_resources.take().unwrap_or_default();
    for (index, listener) in listeners.iter_mut().enumerate() {
        if listener.name.is_empty() {
            listener.name = unnamed_listener(listener, index);
        }
    }
    let mut set = XdsSet::default();
    insert_all(&mut set, "listeners", listeners, file)?;
    insert_all(&mut set, "clusters", clusters, file)?;
    insert_all(&mut set, "secrets", secrets, file)?;
    Ok(ParsedBootstrap { bootstrap, set })
}

/// Why a bootstrap could not be made or read.
#[derive(Clone, Debug, PartialEq)]
pub enum BootstrapError {
    /// A connection manager asks over xDS for a route configuration that is not in the set.
    MissingRoutes {
        /// Name of the listener.
        listener: String,
        /// Name of the route configuration.
        route_config: String,
    },
    /// A filter of a listener cannot be decoded.
    Filter {
        /// Name of the listener.
        listener: String,
        /// Name of the filter.
        filter: String,
        /// Why not.
        error: AnyError,
    },
    /// The text is neither YAML nor JSON.
    Text(YamlError),
    /// The content is not a bootstrap, or a resource cannot be written.
    Json(JsonError),
    /// Two static resources have the same name.
    Duplicate {
        /// Type of both.
        resource_type: ResourceType,
        /// Name of both.
        name: String,
    },
}

impl From<JsonError> for BootstrapError {
    fn from(error: JsonError) -> Self {
        BootstrapError::Json(error)
    }
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapError::MissingRoutes { listener, route_config } => {
                write!(f, "listener {listener}: there is no route configuration {route_config}")
            }
            BootstrapError::Filter { listener, filter, error } => {
                write!(f, "listener {listener}: filter {filter}: {error}")
            }
            BootstrapError::Text(error) => write!(f, "{error}"),
            BootstrapError::Json(error) => write!(f, "{error}"),
            BootstrapError::Duplicate { resource_type, name } => {
                write!(f, "two static resources are the {resource_type} {name}")
            }
        }
    }
}

impl std::error::Error for BootstrapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootstrapError::Filter { error, .. } => Some(error),
            BootstrapError::Text(error) => Some(error),
            BootstrapError::Json(error) => Some(error),
            BootstrapError::MissingRoutes { .. } | BootstrapError::Duplicate { .. } => None,
        }
    }
}

/// The listener with the route configurations that it asks for put into it.
fn static_listener(set: &XdsSet, listener: &Listener) -> Result<Listener, BootstrapError> {
    let mut listener = listener.clone();
    let name = listener.name.clone();
    let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
    for filter in chains.flat_map(|chain| &mut chain.filters) {
        inline_routes(set, &name, filter)?;
    }
    if let Some(api_config) = listener.api_listener.as_mut().and_then(|api| api.api_listener.as_mut())
        && any::is::<HttpConnectionManager>(api_config)
        && let Some(inlined) = with_routes(set, &name, "api_listener", api_config)?
    {
        *api_config = inlined;
    }
    Ok(listener)
}

fn inline_routes(set: &XdsSet, listener: &str, filter: &mut Filter) -> Result<(), BootstrapError> {
    if let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type
        && any::is::<HttpConnectionManager>(config)
        && let Some(inlined) = with_routes(set, listener, &filter.name, config)?
    {
        *config = inlined;
    }
    Ok(())
}

/// A connection manager with its route configuration in place; `None` when it does not ask for one over xDS.
fn with_routes(
    set: &XdsSet,
    listener: &str,
    filter: &str,
    config: &prost_types::Any,
) -> Result<Option<prost_types::Any>, BootstrapError> {
    let mut manager: HttpConnectionManager = any::unpack(config).map_err(|error| BootstrapError::Filter {
        listener: listener.to_owned(),
        filter: filter.to_owned(),
        error,
    })?;
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else {
        return Ok(None);
    };
    let Some(routes) = set.routes.get(rds.route_config_name.as_str()) else {
        if is_local(rds.config_source.as_ref()) {
            return Ok(None);
        }
        return Err(BootstrapError::MissingRoutes {
            listener: listener.to_owned(),
            route_config: rds.route_config_name.clone(),
        });
    };
    let mut routes = (*routes.message).clone();
    // Over RDS, a route may name a cluster that does not exist (the answer is 503); inline, Envoy would refuse to start.
    routes.validate_clusters.get_or_insert(false);
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
    Ok(Some(any::pack(&manager)))
}

/// The cluster with its endpoints in place, when it asks for them over xDS. Without any in the set it has no endpoints,
/// as a cluster whose assignment never comes.
fn static_cluster(set: &XdsSet, cluster: &Cluster) -> Cluster {
    let mut cluster = cluster.clone();
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
        return cluster;
    }
    let eds = cluster.eds_cluster_config.as_ref();
    let service_name =
        eds.map(|eds| eds.service_name.as_str()).filter(|name| !name.is_empty()).unwrap_or(&cluster.name);
    let endpoints = set.endpoints.get(service_name);
    if endpoints.is_none() && is_local(eds.and_then(|eds| eds.eds_config.as_ref())) {
        return cluster;
    }
    let mut assignment = endpoints.map(|endpoints| (*endpoints.message).clone()).unwrap_or_default();
    assignment.cluster_name.clone_from(&cluster.name);
    if let Some(policy) = &mut assignment.policy {
        // Nothing renews a static assignment.
        policy.endpoint_stale_after = None;
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    cluster.eds_cluster_config = None;
    cluster.load_assignment = Some(assignment);
    cluster
}

/// Removes the xDS source beside each secret's name: a name alone means a static secret. Of a secret that is not in the
/// set the source becomes an empty file: connections that need it fail, all others are served. True when there was such
/// a secret. Works on JSON, because TLS contexts are wrapped into other transport sockets in many ways, and only
/// `SdsSecretConfig` has an `sds_config`.
fn make_secrets_static(set: &XdsSet, value: &mut Value) -> bool {
    let mut missing = false;
    match value {
        Value::Object(object) => {
            if let (Some(Value::String(name)), Some(source)) = (object.get("name"), object.get("sds_config")) {
                if set.secrets.contains_key(name.as_str()) {
                    object.remove("sds_config");
                } else if source.get("path_config_source").is_none() && source.get("path").is_none() {
                    missing = true;
                    let file = json!({"path_config_source": {"path": EMPTY_FILE}, "resource_api_version": "V3"});
                    object.insert("sds_config".to_owned(), file);
                }
            }
            for value in object.values_mut() {
                missing |= make_secrets_static(set, value);
            }
        }
        Value::Array(items) => {
            for item in items {
                missing |= make_secrets_static(set, item);
            }
        }
        _ => {}
    }
    missing
}

/// Whether a source is a file, which a bootstrap without a control plane can keep.
fn is_local(source: Option<&ConfigSource>) -> bool {
    matches!(
        source.and_then(|source| source.config_source_specifier.as_ref()),
        Some(ConfigSourceSpecifier::Path(_) | ConfigSourceSpecifier::PathConfigSource(_))
    )
}

fn is_internal(listener: &Listener) -> bool {
    matches!(listener.listener_specifier, Some(ListenerSpecifier::InternalListener(_)))
}

fn socket_address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(AddressKind::SocketAddress(socket)) }
}

/// A name for a listener that has none (Envoy invents a random one): its address, or its index when that is unclear.
fn unnamed_listener(listener: &Listener, index: usize) -> String {
    match listener.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(AddressKind::SocketAddress(SocketAddress {
            address,
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..
        })) if *port != 0 => {
            if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            }
        }
        Some(AddressKind::Pipe(pipe)) => pipe.path.clone(),
        _ => format!("listeners[{index}]"),
    }
}

fn insert_all<M: ResourceMessage>(
    set: &mut XdsSet,
    field: &str,
    messages: Vec<M>,
    file: Option<&Arc<str>>,
) -> Result<(), BootstrapError> {
    for (index, message) in messages.into_iter().enumerate() {
        let origin = Origin {
            kind: "Bootstrap".into(),
            name: format!("static_resources.{field}[{index}]").into(),
            file: file.cloned(),
            ..Origin::default()
        };
        let name = message.resource_name().to_owned();
        if set.insert(message, vec![(Part::Whole, origin)]).is_some() {
            return Err(BootstrapError::Duplicate { resource_type: M::TYPE, name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
