//! Which Gateways are there, and what do their servers ask for?

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lateen_config::{ServerTlsMode, ServerTlsSettings};
use lateen_xds::Origin;

use super::objects::Typed;
use super::{origin, origin_of_rule};
use crate::protocol::Protocol;

/// A Gateway object.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Name of the object.
    pub name: Arc<str>,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Labels of the workloads that it configures; empty means every gateway.
    pub selector: BTreeMap<String, String>,
    /// Hosts of the services whose workloads it configures, in place of `selector`.
    pub services: Option<Vec<Arc<str>>>,
    /// Its servers, in order.
    pub servers: Vec<Server>,
    /// The object.
    pub origin: Arc<Origin>,
}

/// One server of a Gateway.
#[derive(Clone, Debug)]
pub struct Server {
    /// Number of the port in the Gateway: as a rule the port of the gateway's Service.
    pub number: u32,
    /// Name of the port.
    pub port_name: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Address to bind; `None` binds all.
    pub bind: Option<Arc<str>>,
    /// Hosts that it serves.
    pub hosts: Vec<ServerHost>,
    /// Its TLS, if it has a `tls` block.
    pub tls: Option<Arc<ServerTlsSettings>>,
    /// Name, which statistics of HTTPS servers bear.
    pub name: Option<Arc<str>>,
    /// The object, with the rule `servers[i]`.
    pub origin: Arc<Origin>,
}

/// A host of a server, for the VirtualServices of one namespace or of all. Displays as `namespace/host` or `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHost {
    /// Namespace of the VirtualServices that may bind to it; `None` means all.
    pub namespace: Option<Arc<str>>,
    /// Host name, may be a wildcard; lower-case.
    pub host: Arc<str>,
}

impl fmt::Display for ServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.host)
    }
}

impl ServerHost {
    /// Reads `host`, `namespace/host`, `./host` (the Gateway's own namespace) and `*/host` (every namespace).
    pub(crate) fn parse(text: &str, own: &Arc<str>) -> ServerHost {
        let (namespace, host) = match text.split_once('/') {
            None | Some(("*", _)) => (None, text.rsplit('/').next().unwrap_or(text)),
            Some((".", host)) => (Some(own.clone()), host),
            Some((namespace, host)) => (Some(namespace.into()), host),
        };
        ServerHost { namespace, host: crate::host::lower(host) }
    }
}

impl Gateway {
    fn build((object, spec): Typed<'_, lateen_config::Gateway>) -> Gateway {
        let namespace = object.metadata.namespace.clone();
        let server = |index: usize, server: &lateen_config::Server| {
            let port = &server.port;
            let hosts: Vec<ServerHost> = server.hosts.iter().map(|host| ServerHost::parse(host, &namespace)).collect();
            // Every host of every namespace leaves nothing for the others to say.
            let all = hosts.iter().find(|host| host.namespace.is_none() && &*host.host == "*").cloned();
            Server {
                number: port.number,
                port_name: port.name.as_str().into(),
                protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp),
                bind: server.bind.as_deref().filter(|bind| !bind.is_empty()).map(Arc::from),
                hosts: all.map_or(hosts, |all| vec![all]),
                tls: server.tls.clone().map(Arc::new),
                name: server.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from),
                origin: origin_of_rule(object, format!("servers[{index}]"), server.at),
            }
        };
        Gateway {
            name: object.metadata.name.clone(),
            selector: spec.selector.clone(),
            services: object
                .metadata
                .annotations
                .get(SERVICES)
                .map(|hosts| hosts.split(',').map(|host| crate::host::lower(host.trim())).collect()),
            servers: spec.servers.iter().enumerate().map(|(index, spec)| server(index, spec)).collect(),
            origin: origin(object),
            namespace,
        }
    }

    /// `namespace/name`, as VirtualServices refer to it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Annotation of Gateways that name services in place of labels of workloads.
const SERVICES: &str = "internal.istio.io/gateway-service";

/// Builds objects that are sorted by age. What was generated has no age, as objects from files, and is sorted in by name.
pub(crate) fn build(objects: &[Typed<'_, lateen_config::Gateway>], generated: &[Gateway]) -> Vec<Gateway> {
    let built =
        objects.iter().map(|(object, spec)| (object.metadata.creation_timestamp, Gateway::build((object, spec))));
    let mut all: Vec<(Option<i64>, Gateway)> = built.collect();
    all.extend(generated.iter().map(|gateway| (None, gateway.clone())));
    all.sort_by(|(a_created, a), (b_created, b)| {
        (a_created, &a.name, &a.namespace).cmp(&(b_created, &b.name, &b.namespace))
    });
    all.into_iter().map(|(_, gateway)| gateway).collect()
}

/// What happens to the TLS of a server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// They have none.
    Plain,
    /// It ends at the gateway.
    Terminate,
    /// It is passed through, routed by the name that the client asks for.
    Passthrough,
    /// It is passed through to the service that the name stands for.
    AutoPassthrough,
}

impl Server {
    /// What happens to the TLS of its connections. A `tls` block of a plain HTTP server only redirects.
    pub fn termination(&self) -> Termination {
        match &self.tls {
            None => Termination::Plain,
            Some(_) if self.protocol.is_http() => Termination::Plain,
            Some(tls) => match tls.mode {
                ServerTlsMode::Passthrough => Termination::Passthrough,
                ServerTlsMode::AutoPassthrough => Termination::AutoPassthrough,
                ServerTlsMode::Simple
                | ServerTlsMode::Mutual
                | ServerTlsMode::OptionalMutual
                | ServerTlsMode::IstioMutual => Termination::Terminate,
            },
        }
    }

    /// True when plain HTTP is redirected to HTTPS.
    pub fn redirects_to_https(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// The hosts that VirtualServices of `namespace` may bind to.
    pub(crate) fn hosts_for(&self, namespace: &str) -> Vec<&str> {
        self.hosts
            .iter()
            .filter(|host| host.namespace.as_deref().is_none_or(|of| of == namespace))
            .map(|host| &*host.host)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_host_may_be_bound_to_a_namespace() {
        let own: Arc<str> = "edge".into();
        let parse = |text| ServerHost::parse(text, &own).to_string();
        assert_eq!(parse("a.com"), "a.com");
        assert_eq!(parse("shop/a.com"), "shop/a.com");
        assert_eq!(parse("./a.com"), "edge/a.com");
        assert_eq!(parse("*/a.com"), "a.com");
        assert_eq!(parse("*/*"), "*");
    }
}
