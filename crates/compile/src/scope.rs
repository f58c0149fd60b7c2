//! For whom is a configuration compiled? A [`Scope`] is everything about a proxy that the compiler may
//! look at: two proxies with equal scopes get equal configurations, so a scope is a complete cache key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_xds::envoy::config::core::v3::Address;

use crate::message;
use crate::world::services::Locality;

/// What one proxy is, as far as its configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Edge of the mesh, or beside a workload.
    pub role: Role,
    /// Namespace of the workload that the proxy belongs to.
    pub namespace: Arc<str>,
    /// Labels of that workload. `None` on a gateway: it answers for the selector of every Gateway.
    pub labels: Option<BTreeMap<String, String>>,
    /// How connections reach the proxy.
    pub interception: Interception,
    /// Whose build of the data plane it is.
    pub capability: Capability,
    /// Where its listeners bind.
    pub listen: Listen,
    /// Port of the explicit HTTP proxy listener of a sidecar, if it has one. Offsets do not move it.
    pub http_proxy_port: Option<u16>,
    /// Addresses of the workload: it stands behind the services that have one of them among their endpoints.
    pub addresses: Vec<IpAddr>,
    /// Where the workload runs.
    pub locality: Locality,
    /// Kubernetes node that it runs on; empty when unknown.
    pub node: Arc<str>,
    /// Network of the workload; empty for the default one.
    pub network: Arc<str>,
    /// The proxy may not bind ports below 1024.
    pub is_unprivileged: bool,
    /// Metadata that the proxy tells of itself, as far as patches look at it; `ISTIO_VERSION` is its version.
    pub metadata: BTreeMap<String, String>,
}

/// The part a proxy plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Serves the ports of Gateway objects.
    Gateway,
    /// Carries the requests of one workload.
    Sidecar,
}

/// How the connections of a workload come to its sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interception {
    /// Not at all: clients address the proxy, whose listeners bind the service ports on loopback.
    None,
    /// Redirected by the network: listeners do not bind, `virtualOutbound` hands connections to them.
    Redirect,
    /// As `Redirect`, and the workload sees the address of its client.
    TransparentProxy,
}

/// Which extensions the data plane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Lateen's own data plane.
    Native,
    /// Envoy as its own project builds it.
    UpstreamEnvoy,
    /// Envoy as Istio builds it, with Istio's extensions.
    IstioProxy,
}

/// Where listeners bind. It changes socket addresses alone, never names, so routes, statistics and
/// patches read the same on a laptop as in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// Address in place of the one that the configuration names.
    pub bind: Option<IpAddr>,
    /// Port in place of the one that the configuration names.
    pub ports: PortMapping,
}

/// From the configured port to the one that is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMapping {
    /// The same.
    #[default]
    AsIs,
    /// The same plus a number; a sum above 65535 is left as it is configured.
    Offset(u16),
    /// Any free port (port 0): the data plane reports which.
    Ephemeral,
}

impl Listen {
    /// The address to bind in place of a configured one; a unix domain socket stays where it is.
    pub(crate) fn address(self, bind: &str, port: u32) -> Address {
        if let Some(path) = bind.strip_prefix("unix://") {
            return message::pipe(path);
        }
        let port = self.ports.apply(port);
        match self.bind {
            Some(bind) => message::socket_address(&bind.to_string(), port),
            None => message::socket_address(bind, port),
        }
    }
}

impl PortMapping {
    /// The port to bind for a configured one.
    pub fn apply(self, port: u32) -> u32 {
        match self {
            PortMapping::AsIs => port,
            PortMapping::Offset(offset) => match port + u32::from(offset) {
                sum if sum <= u32::from(u16::MAX) => sum,
                _ => port,
            },
            PortMapping::Ephemeral => 0,
        }
    }
}

impl Scope {
    /// A gateway in `namespace` that answers for every Gateway selector.
    pub fn gateway(namespace: impl Into<Arc<str>>) -> Scope {
        Scope {
            role: Role::Gateway,
            namespace: namespace.into(),
            labels: None,
            interception: Interception::None,
            capability: Capability::Native,
            listen: Listen::default(),
            http_proxy_port: None,
            addresses: Vec::new(),
            locality: Locality::default(),
            node: "".into(),
            network: "".into(),
            is_unprivileged: false,
            metadata: BTreeMap::new(),
        }
    }

    /// The sidecar of a workload in `namespace` with `labels`, addressed by its clients.
    pub fn sidecar(namespace: impl Into<Arc<str>>, labels: BTreeMap<String, String>) -> Scope {
        Scope { role: Role::Sidecar, labels: Some(labels), ..Scope::gateway(namespace) }
    }

    /// True when a selector matches this proxy's workload: all its labels are there with equal values.
    /// A proxy without known labels is matched by every selector.
    pub(crate) fn selected_by<'a>(&self, mut selector: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        match &self.labels {
            None => true,
            Some(labels) => selector.all(|(key, value)| labels.get(key).is_some_and(|label| label == value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_leaves_the_range_of_ports_is_not_applied() {
        assert_eq!(PortMapping::Offset(8000).apply(80), 8080);
        assert_eq!(PortMapping::Offset(60000).apply(9080), 9080);
        assert_eq!(PortMapping::Ephemeral.apply(80), 0);
    }
}
