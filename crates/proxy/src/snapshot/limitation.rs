//! What does a configuration ask for that this data plane takes and does not do yet? Said aloud, never passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::listener::v3 as listener_v3;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_xds::{Origin, any};

use super::filter;
use super::route::{Action, ClusterSpecifier, HostRewrite, PerFilterConfigs, Route, RouteConfig};

/// Something that was asked for and is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limitation {
    /// What is not done, as a sentence without its full stop: `connecting ahead of requests is not carried out yet`.
    pub text: String,
    /// The resource that asks for it: `route configuration` or `cluster`, and its name.
    pub resource: (&'static str, Arc<str>),
    /// The configuration object that it was compiled from.
    pub origin: Option<Origin>,
}

impl std::fmt::Display for Limitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = &self.resource;
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.text),
            None => write!(f, "{kind} `{name}`: {}", self.text),
        }
    }
}

/// The limitations that a route configuration meets; once for each object and feature.
pub(super) fn of_routes(config: &RouteConfig) -> BTreeSet<Limitation> {
    let mut found = BTreeSet::new();
    let resource = ("route configuration", config.name.clone());
    let mut note = |text: String, origin: Option<&Origin>| {
        found.insert(Limitation { text, resource: resource.clone(), origin: origin.cloned() });
    };
    for name in unsupported(&config.per_filter_configs) {
        note(settings_of(name), None);
    }
    for virtual_host in &config.virtual_hosts {
        for name in unsupported(&virtual_host.per_filter_configs) {
            note(settings_of(name), virtual_host.origin.as_ref());
        }
        for route in &virtual_host.routes {
            of_route(route, &mut |text| note(text, route.origin.as_ref()));
        }
    }
    found
}

fn of_route(route: &Route, note: &mut impl FnMut(String)) {
    for name in unsupported(&route.per_filter_configs) {
        note(settings_of(name));
    }
    let Action::Forward(forward) = &route.action else { return };
    if let ClusterSpecifier::Weighted(clusters) = &forward.cluster {
        for name in clusters.clusters().iter().flat_map(|cluster| unsupported(&cluster.per_filter_configs)) {
            note(settings_of(name));
        }
    }
    let asked = [
        (forward.internal_redirect.is_some(), "following redirects inside the proxy"),
        (matches!(forward.host_rewrite, Some(HostRewrite::Auto)), "the host of the chosen endpoint"),
    ];
    for (asked, feature) in asked {
        if asked {
            note(format!("{feature} is not carried out yet"));
        }
    }
}

/// The names of the filters whose settings of a level are not carried out.
fn unsupported(configs: &PerFilterConfigs) -> impl Iterator<Item = &str> {
    configs.iter().filter(|(_, config)| !filter::is_supported(config)).map(|(name, _)| name.as_str())
}

fn settings_of(name: &str) -> String {
    format!("the settings of filter `{name}` are not carried out yet")
}

/// The limitations that the connection managers of a listener meet.
pub(super) fn of_listener(message: &listener_v3::Listener, origin: Option<&Origin>) -> BTreeSet<Limitation> {
    let chains = message.filter_chains.iter().chain(&message.default_filter_chain);
    let managers = chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
        Some(listener_v3::filter::ConfigType::TypedConfig(any)) => any::unpack::<HttpConnectionManager>(any).ok(),
        _ => None,
    });
    let resource = ("listener", Arc::from(message.name.as_str()));
    let mut found = BTreeSet::new();
    for manager in managers {
        let keys = manager.http_protocol_options.as_ref().and_then(|options| options.header_key_format.as_ref());
        let asked = [
            (manager.tracing.is_some(), "tracing is not carried out yet: no spans are sent"),
            (keys.is_some(), "another spelling of header names is not carried out yet: they stay as they came"),
        ];
        for (_, text) in asked.into_iter().filter(|(asked, _)| *asked) {
            found.insert(Limitation { text: text.to_owned(), resource: resource.clone(), origin: origin.cloned() });
        }
    }
    found
}

/// The limitations that a cluster meets.
pub(super) fn of_cluster(message: &cluster_v3::Cluster, origin: Option<&Origin>) -> BTreeSet<Limitation> {
    let encrypted =
        message.transport_socket.as_ref().is_some_and(|socket| socket.name != "envoy.transport_sockets.raw_buffer");
    let options = message.typed_extension_protocol_options.values();
    let matches_errors = options
        .filter_map(|options| any::unpack::<HttpProtocolOptions>(options).ok())
        .any(|options| options.outlier_detection.is_some());
    let policy = message.load_assignment.as_ref().and_then(|assignment| assignment.policy.as_ref());
    let weighs_health = policy.is_some_and(|policy| policy.weighted_priority_health);
    let drops = policy.is_some_and(|policy| !policy.drop_overloads.is_empty());
    let asked = [
        (matches_errors, "statuses that outlier detection takes for errors are not told apart yet: 5xx are errors"),
        (weighs_health, "the health of priorities is not weighted yet"),
        (drops, "dropping a share of requests is not carried out yet"),
        (encrypted, "TLS to endpoints is not carried out yet; plain bytes are sent"),
        (message.preconnect_policy.is_some(), "connecting ahead of requests is not carried out yet"),
    ];
    let resource = ("cluster", Arc::from(message.name.as_str()));
    asked
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, text)| Limitation { text: text.to_owned(), resource: resource.clone(), origin: origin.cloned() })
        .collect()
}
