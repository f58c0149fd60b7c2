//! What is asked? The command line as a call, with what a real client would do where nothing is said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lateen_compile::explain::{Call, CallProtocol, CallTls, Direction};
use lateen_compile::world::services::{Address, Registry, Service};
use lateen_compile::{Role, Scope, World, host};

use crate::arguments::{ExplainArguments, ProtocolArgument, TlsArgument};

/// Methods that are known as such where a URL is expected. Others can be asked for as well.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// A question that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Method, empty without HTTP.
    pub(crate) method: String,
    /// The URL as it was written.
    pub(crate) url: String,
    /// Where the URL leads.
    pub(crate) target: Target,
    direction: Direction,
    address: Option<IpAddr>,
    protocol: CallProtocol,
    tls: CallTls,
    sni: Option<String>,
    alpn: Vec<String>,
    proxy_ip: Option<IpAddr>,
    headers: Vec<(String, String)>,
    claims: Vec<(String, String)>,
}

/// The parts of a URL that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host, without a port and without brackets; a `Host` header takes the place of the URL's.
    pub(crate) host: String,
    /// Port to connect to.
    pub(crate) port: u16,
    /// Host as the request names it, with a port that is not the default one.
    authority: String,
    /// Host of the URL, which tells the address.
    connect_to: String,
    path: String,
}

impl Question {
    /// Reads the command line.
    ///
    /// # Errors
    /// A URL that is none, or a connection without a port.
    pub(crate) fn parse(arguments: &ExplainArguments) -> anyhow::Result<Self> {
        let (method, url) = match arguments.request.as_slice() {
            [method] if METHODS.contains(&method.as_str()) => bail!("`{method}` is a method; the URL is missing"),
            // In one word, as it is written in a log.
            [request] => match request.split_once(' ') {
                Some((method, url)) if METHODS.contains(&method) => (method, url.trim_start()),
                _ => ("GET", request.as_str()),
            },
            [method, url] => (method.as_str(), url.as_str()),
            _ => bail!("expected a method and a URL"),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (default_port, default_protocol, default_tls) = match scheme {
            "http" => (Some(80), ProtocolArgument::Http, TlsArgument::Plaintext),
            "https" => (Some(443), ProtocolArgument::Http, TlsArgument::Tls),
            "tcp" => (None, ProtocolArgument::Tcp, TlsArgument::Plaintext),
            "tls" => (Some(443), ProtocolArgument::Tcp, TlsArgument::Tls),
            _ => bail!("`{url}` is of a kind that is not known; use http://, https://, tcp:// or tls://"),
        };
        let protocol = arguments.protocol.unwrap_or(default_protocol);
        let is_http = protocol != ProtocolArgument::Tcp;
        if is_http && (method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')) {
            bail!("`{method}` is no method; the method stands before the URL");
        }
        let mut headers = arguments.headers.clone();
        let written_host = headers.iter().rposition(|(name, _)| name.eq_ignore_ascii_case("host"));
        let written_host = written_host.map(|index| headers.remove(index).1);
        let target = Target::parse(rest, default_port, arguments.port, written_host)
            .with_context(|| format!("`{url}` is no URL"))?;
        let tls = match arguments.tls.unwrap_or(default_tls) {
            TlsArgument::Plaintext => CallTls::Plaintext,
            TlsArgument::Tls => CallTls::Tls,
            TlsArgument::Mtls => CallTls::Mutual,
        };
        Ok(Self {
            method: if is_http { method.to_owned() } else { String::new() },
            url: url.to_owned(),
            direction: arguments.direction.into(),
            address: arguments.address,
            protocol: match protocol {
                ProtocolArgument::Http => CallProtocol::Http1,
                ProtocolArgument::Http2 => CallProtocol::Http2,
                ProtocolArgument::Tcp => CallProtocol::Tcp,
            },
            tls,
            // Clients do not send addresses as server names.
            sni: arguments
                .sni
                .clone()
                .or_else(|| Some(target.connect_to.clone()).filter(|name| name.parse::<IpAddr>().is_err()))
                .filter(|name| tls != CallTls::Plaintext && !name.is_empty()),
            alpn: arguments.alpn.clone(),
            proxy_ip: arguments.proxy_ip,
            headers,
            claims: arguments.claims.clone(),
            target,
        })
    }

    /// The call, for a proxy. Where the URL names a service, its client connects to the service's address; what
    /// arrives at a workload comes to the address and port that the service has there.
    pub(crate) fn call(&self, world: &World, scope: &Scope, workload: Option<&Workload>) -> Call {
        let inbound = scope.role == Role::Sidecar && self.direction == Direction::Inbound;
        let named = self.target.connect_to.parse().ok();
        let arrives_at = workload.map(|workload| workload.address).or(self.proxy_ip);
        let address = self.address.or(if inbound { arrives_at } else { named }).or_else(|| {
            let outbound = scope.role == Role::Sidecar && !inbound;
            outbound.then(|| address_of(world, &scope.namespace, &self.target.host)).flatten()
        });
        let mesh_peer = inbound && self.tls == CallTls::Mutual;
        let alpn = match (self.alpn.as_slice(), self.tls, self.protocol) {
            ([], CallTls::Plaintext, _) => Vec::new(),
            ([], _, protocol) if mesh_peer => Call::mesh_alpn(protocol),
            ([], _, CallProtocol::Http1) => vec!["http/1.1".to_owned()],
            ([], _, CallProtocol::Http2) => vec!["h2".to_owned()],
            (given, ..) => given.to_vec(),
        };
        Call {
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            address,
            port: workload.map_or(self.target.port, |workload| workload.port),
            protocol: self.protocol,
            tls: self.tls,
            sni: self.sni.clone(),
            alpn,
            client_certificate: None,
            source: self.proxy_ip.filter(|_| scope.role == Role::Sidecar && !inbound),
            method: self.method.clone(),
            authority: self.target.authority.clone(),
            path: self.target.path.clone(),
            headers: self.headers.clone(),
            claims: self.claims.clone(),
        }
    }
}

impl Target {
    /// Reads `host[:port][/path][?query]`.
    fn parse(
        rest: &str,
        default_port: Option<u16>,
        port: Option<u16>,
        written_host: Option<String>,
    ) -> anyhow::Result<Self> {
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let (connect_to, own_port) = split_port(authority)?;
        if connect_to.is_empty() {
            bail!("it has no host");
        }
        let port = port.or(own_port).or(default_port).context("it has no port")?;
        let brackets = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority = written_host.unwrap_or_else(|| match own_port {
            Some(own) if default_port != Some(own) => format!("{}:{own}", brackets(connect_to)),
            _ => brackets(connect_to),
        });
        let (host, _) = split_port(&authority)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            connect_to: connect_to.to_owned(),
            path: match path.chars().next() {
                None => "/".to_owned(),
                Some('?') => format!("/{path}"),
                Some(_) => path.to_owned(),
            },
            authority,
        })
    }
}

/// `host` and port of `host:port`; brackets of an IPv6 address are left out.
fn split_port(authority: &str) -> anyhow::Result<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').context("a bracket is not closed")?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map(|port| port.parse::<u16>().ok().with_context(|| format!("`{port}` is no port")));
    Ok((host, port.transpose()?))
}

/// Whether a gateway is the likelier one to be asked: some Gateway serves the port and names the host, and a mere `*`
/// does not take the names of services from the mesh.
pub(crate) fn is_for_gateway(world: &World, namespace: &str, target: &Target) -> bool {
    let name = host::lower(&target.host);
    let is_service = world.services().iter().any(|service| is_called(service, &name, namespace));
    let servers = || world.gateways().iter().flat_map(|gateway| &gateway.servers);
    let covers = |at_port: bool| {
        servers().filter(move |server| !at_port || server.number == u32::from(target.port)).any(|server| {
            server.hosts.iter().any(|host| host::covers(&host.host, &name) && !(is_service && &*host.host == "*"))
        })
    };
    // A port that no server has is a mistake of the question or of the Gateway, unless the name is one of the mesh or
    // an address, behind which anything may be.
    covers(true) || (!is_service && !host::is_ip(&name) && covers(false))
}

/// A workload that requests arrive at.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    address: IpAddr,
    port: u16,
    /// Namespace of its service.
    pub(crate) namespace: Arc<str>,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Workload {
    /// Its address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// The first workload with some labels behind the service and port of a URL.
    pub(crate) fn of(world: &World, namespace: &str, target: &Target, labels: &[(String, String)]) -> Option<Self> {
        let name = host::lower(&target.connect_to);
        let service = world.services().iter().find(|service| is_called(service, &name, namespace))?;
        let port = service.port(target.port.into())?;
        world.endpoints(service, port).iter().find_map(|endpoint| {
            let Address::Socket { host, port } = &endpoint.address else { return None };
            let is_meant = labels.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value));
            Some(Self {
                address: host.parse().ok().filter(|_| is_meant)?,
                port: u16::try_from(*port).ok()?,
                namespace: service.namespace.clone(),
                labels: (*endpoint.labels).clone(),
            })
        })
    }
}

/// The address to which clients of a service connect.
fn address_of(world: &World, namespace: &str, name: &str) -> Option<IpAddr> {
    let name = host::lower(name);
    let service = world.services().iter().find(|service| is_called(service, &name, namespace))?;
    let target = service.alias_of.as_ref().and_then(|alias| world.services().iter().find(|of| of.host == *alias));
    target.unwrap_or(service).addresses.iter().find_map(|address| address.parse().ok())
}

/// Whether clients in a namespace call a service by this name.
fn is_called(service: &Service, name: &str, namespace: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if *service.host == *name {
        return true;
    }
    let (own, of) = (&*service.name, &*service.namespace);
    service.registry == Registry::Kubernetes
        && match name.split_once('.') {
            None => name == own && namespace == of,
            Some((first, rest)) => first == own && rest.strip_suffix(".svc").unwrap_or(rest) == of,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(rest: &str, default_port: Option<u16>) -> Target {
        Target::parse(rest, default_port, None, None).unwrap()
    }

    #[test]
    fn a_url_gives_host_port_and_path() {
        let parsed = target("reviews:9080/x?q#f", Some(80));
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.path.as_str()), ("reviews", 9080, "/x?q"));
        assert_eq!(parsed.authority, "reviews:9080");
        let parsed = target("shop.com:80?q", Some(80));
        assert_eq!((parsed.authority.as_str(), parsed.path.as_str()), ("shop.com", "/?q"));
        let parsed = target("[::1]:8080", Some(80));
        assert_eq!((parsed.host.as_str(), parsed.authority.as_str()), ("::1", "[::1]:8080"));
    }

    #[test]
    fn what_is_no_url_is_said() {
        let error = |rest: &str| Target::parse(rest, None, None, None).unwrap_err().to_string();
        assert_eq!(error("a"), "it has no port");
        assert_eq!(error("/x"), "it has no host");
        assert_eq!(error("a:b"), "`b` is no port");
        assert_eq!(format!("{:#}", Target::parse("a:99999", None, None, None).unwrap_err()), "`99999` is no port");
        assert_eq!(error("[::1"), "a bracket is not closed");
    }
}
