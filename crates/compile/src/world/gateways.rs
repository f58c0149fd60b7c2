//! Which Gateways are there, and what do their servers ask for?

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lateen_xds::Origin;

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
    /// It has a `tls` block.
    pub has_tls: bool,
    /// Plain HTTP is redirected to HTTPS.
    pub https_redirect: bool,
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
    /// `namespace/name`, as VirtualServices refer to it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Server {
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
