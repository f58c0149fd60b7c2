//! On which addresses does a sidecar take what its workload sends, and where does each connection go? Every service
//! port asks for a listener; those that ask for the same address share one, or the oldest has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_config::CaptureMode;
use lateen_xds::Origin;
use lateen_xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch};

use super::chains::{self, Bytes, Chain};
use super::{EVERY_ADDRESS, LOOPBACK};
use crate::context::{Context, Egress};
use crate::host;
use crate::l4::{self, Place, TcpMatch};
use crate::names;
use crate::protocol::Protocol;
use crate::scope::Interception;
use crate::world::services::{Address, Discovery, Service, ServicePort};
use crate::world::virtual_services::VirtualService;

/// The outbound listeners of a sidecar, before they are messages, by address.
pub(crate) struct Plan {
    pub(crate) listeners: BTreeMap<(String, u32), Outbound>,
}

/// One outbound listener.
pub(crate) struct Outbound {
    pub(crate) bind: String,
    pub(crate) port: u32,
    /// Clients connect to it; otherwise connections are handed to it.
    pub(crate) binds_to_port: bool,
    /// Where HTTP requests are routed.
    pub(crate) http: Option<Table>,
    /// Chains for everything else, oldest service first; at most one takes every connection.
    pub(crate) tcp: Vec<Chain>,
    /// What the first port that asked for it speaks.
    pub(crate) protocol: Protocol,
    /// The services that it is for, oldest first.
    pub(crate) origins: Vec<Arc<Origin>>,
    /// Belongs to an egress listener with a port of its own, which later ones do not change.
    is_locked: bool,
}

/// The route configuration that an outbound listener asks for.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    /// All hosts of an egress listener that have a port.
    Port {
        /// Index of the egress listener.
        egress: usize,
        /// The port.
        port: u32,
    },
    /// One service on its own address, whatever host its requests name.
    Service {
        /// Index of the egress listener.
        egress: usize,
        /// The service.
        service: Arc<Service>,
        /// The port.
        port: u32,
    },
}

impl Table {
    /// Name of the route configuration.
    pub(crate) fn name(&self) -> String {
        match self {
            Table::Port { port, .. } => names::sidecar_routes(*port),
            Table::Service { service, port, .. } => names::virtual_host(&service.host, *port),
        }
    }
}

/// Ports on which a redirected sidecar listens for other purposes: health and statistics.
const RESERVED_PORTS: [u32; 2] = [15021, 15090];

impl Plan {
    /// Plans the listeners of all egress listeners. Of those on one port the first holds it.
    pub(crate) fn build(cx: &Context<'_>) -> Plan {
        let mut plan = Plan { listeners: BTreeMap::new() };
        for (index, egress) in cx.egress.iter().enumerate() {
            plan.listeners.values_mut().for_each(|listener| listener.is_locked = true);
            let listener = egress.imports.listener.as_ref();
            let binds_to_port = cx.scope.interception == Interception::None
                || listener.is_some_and(|listener| listener.capture_mode == CaptureMode::None);
            let bind = listener
                .and_then(|listener| listener.bind.as_deref())
                .filter(|bind| !bind.is_empty())
                .or(binds_to_port.then_some(LOOPBACK));
            // A socket without a port is for no port of a service.
            if bind.is_some_and(|bind| bind.starts_with("unix://")) {
                continue;
            }
            let declared = listener.and_then(|listener| listener.port.as_ref()).filter(|_| egress.port.is_some());
            let declared = declared.map(|port| {
                let protocol = port.protocol.as_deref().and_then(Protocol::parse);
                protocol
                    .unwrap_or_else(|| Protocol::of_service_port("", port.name.as_deref().unwrap_or_default(), None, 0))
            });
            let mut services: Vec<&Arc<Service>> = egress.services.values().copied().collect();
            services.sort_by_key(|service| service.index);
            for service in services {
                for port in &service.ports {
                    if egress.port.is_some_and(|only| only != port.number) {
                        continue;
                    }
                    let ask = Ask {
                        egress: (index, egress),
                        service,
                        port,
                        protocol: declared.unwrap_or(port.protocol),
                        bind,
                        binds_to_port,
                    };
                    plan.serve(cx, &ask);
                }
            }
        }
        plan
    }

    /// The route configurations that the listeners ask for, each once.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut names = BTreeSet::new();
        let asked = self.listeners.values().filter_map(|listener| listener.http.as_ref());
        asked.filter(|table| names.insert(table.name())).cloned().collect()
    }

    fn serve<'a>(&mut self, cx: &Context<'a>, ask: &Ask<'a, '_>) {
        if !ask.protocol.has_clusters() || (ask.binds_to_port && cx.scope.is_unprivileged && ask.port.number < 1024) {
            return;
        }
        if ask.protocol.is_http() || (ask.protocol == Protocol::Auto && cx.is_addressed()) {
            self.serve_http(cx, ask);
            return;
        }
        let addresses = &ask.service.addresses;
        // Clients of a headless service connect to its workloads by themselves.
        if ask.bind.is_none() && addresses.is_empty() && cx.discovery(ask.service) == Discovery::Headless {
            for endpoint in cx.endpoints(ask.service, ask.port) {
                let Address::Socket { host, .. } = &endpoint.address else { continue };
                let Ok(address) = host.parse::<IpAddr>() else { continue };
                // What the workload sends to itself never comes by.
                if !cx.scope.addresses.contains(&address) {
                    self.serve_bytes(cx, ask, host, None);
                }
            }
            return;
        }
        match ask.bind {
            Some(bind) => self.serve_bytes(cx, ask, bind, None),
            None if addresses.is_empty() => self.serve_bytes(cx, ask, EVERY_ADDRESS, None),
            None => {
                for address in addresses {
                    match single_address(address) {
                        Some(single) => self.serve_bytes(cx, ask, &single, None),
                        None => self.serve_bytes(cx, ask, EVERY_ADDRESS, Some(address)),
                    }
                }
            }
        }
    }

    /// HTTP shares the listener of its port among all services: requests tell where they go.
    fn serve_http(&mut self, cx: &Context<'_>, ask: &Ask<'_, '_>) {
        let bind = ask.bind.unwrap_or(EVERY_ADDRESS);
        let table = Table::Port { egress: ask.egress.0, port: ask.port.number };
        if is_reserved(cx, bind, ask.port.number) {
            return;
        }
        match self.listeners.get_mut(&(bind.to_owned(), ask.port.number)) {
            None => self.open(ask, bind, Some(table), Vec::new()),
            Some(listener) if listener.refuses(ask.protocol) => {}
            Some(listener) => {
                listener.http.get_or_insert(table);
                listener.origins.push(ask.service.origin.clone());
            }
        }
    }

    /// Everything else is told apart by addresses, and by the name that TLS asks for.
    fn serve_bytes<'a>(&mut self, cx: &Context<'a>, ask: &Ask<'a, '_>, bind: &str, range: Option<&str>) {
        if is_reserved(cx, bind, ask.port.number) {
            return;
        }
        let detects_http = ask.protocol == Protocol::Auto;
        let table = match bind {
            EVERY_ADDRESS => Table::Port { egress: ask.egress.0, port: ask.port.number },
            _ => Table::Service { egress: ask.egress.0, service: ask.service.clone(), port: ask.port.number },
        };
        let http = detects_http.then_some(table);
        let chains = ask.chains(cx, bind, range);
        let Some(listener) = self.listeners.get_mut(&(bind.to_owned(), ask.port.number)) else {
            self.open(ask, bind, http, Vec::new());
            if let Some(listener) = self.listeners.get_mut(&(bind.to_owned(), ask.port.number)) {
                listener.add(chains);
            }
            return;
        };
        if listener.refuses(ask.protocol) {
            return;
        }
        let only_http = listener.http.is_some() && listener.tcp.is_empty();
        if listener.http.is_none() || (only_http && detects_http && bind != EVERY_ADDRESS) {
            listener.http = http;
        }
        if listener.add(chains) || detects_http {
            listener.origins.push(ask.service.origin.clone());
        }
    }

    fn open(&mut self, ask: &Ask<'_, '_>, bind: &str, http: Option<Table>, tcp: Vec<Chain>) {
        let listener = Outbound {
            bind: bind.to_owned(),
            port: ask.port.number,
            binds_to_port: ask.binds_to_port,
            http,
            tcp,
            protocol: ask.protocol,
            origins: vec![ask.service.origin.clone()],
            is_locked: false,
        };
        self.listeners.insert((bind.to_owned(), ask.port.number), listener);
    }
}

impl Outbound {
    /// True when a port with this protocol has no part in the listener.
    fn refuses(&self, protocol: Protocol) -> bool {
        let server_first = |protocol| matches!(protocol, Protocol::Mongo | Protocol::Mysql);
        self.is_locked || (self.protocol != protocol && (server_first(self.protocol) || server_first(protocol)))
    }

    /// Adds chains for what older ones leave to them. True when any was added.
    fn add(&mut self, chains: Vec<Chain>) -> bool {
        let before = self.tcp.len();
        for chain in chains {
            self.tcp.extend(chain.besides(&self.tcp));
        }
        self.tcp.len() > before
    }
}

/// A service port that asks for a listener.
struct Ask<'a, 'b> {
    egress: (usize, &'b Egress<'a>),
    service: &'a Arc<Service>,
    port: &'a ServicePort,
    protocol: Protocol,
    bind: Option<&'b str>,
    binds_to_port: bool,
}

impl<'a> Ask<'a, '_> {
    fn chains(&self, cx: &Context<'a>, bind: &str, range: Option<&str>) -> Vec<Chain> {
        if matches!(self.protocol, Protocol::Https | Protocol::Tls) {
            self.tls_chains(cx, bind, range)
        } else {
            self.tcp_chains(cx, range)
        }
    }

    /// VirtualServices of this listener that shape listeners, and whose hosts overlap that of the service.
    fn virtual_services(&self) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let of_service = |virtual_service: &&&'a Arc<VirtualService>| {
            virtual_service.shapes_listeners()
                && virtual_service.hosts.iter().any(|name| host::overlaps(name, &self.service.host))
        };
        self.egress.1.virtual_services.iter().filter(of_service).copied()
    }

    fn place(&self) -> Place<'static> {
        Place { port: self.port.number, gateway: None }
    }

    fn tls_chains(&self, cx: &Context<'a>, bind: &str, range: Option<&str>) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Vec::new();
        for virtual_service in self.virtual_services() {
            for rule in &virtual_service.tls {
                for attributes in &rule.route.r#match {
                    if !l4::tls_applies(cx, virtual_service, attributes, self.place()) {
                        continue;
                    }
                    let Some(bytes) =
                        l4::forward(cx, virtual_service, &rule.route.route, self.port.number, self.protocol)
                    else {
                        continue;
                    };
                    let subnets = match attributes.destination_subnets.as_slice() {
                        [] => range.map(str::to_owned).into_iter().collect(),
                        subnets => subnets.to_vec(),
                    };
                    chains.push(chain(cx, &bytes, &attributes.sni_hosts, &subnets, virtual_service, &rule.origin));
                }
            }
        }
        if chains.is_empty() {
            // Where the address does not tell the service, the name that the client asks for has to.
            let has_address = self.service.addresses.iter().any(|address| single_address(address).is_some());
            let by_name = range.is_some() || (bind == EVERY_ADDRESS && !has_address);
            let server_names = if by_name { vec![self.service.host.to_string()] } else { Vec::new() };
            chains.push(self.own_chain(cx, &server_names, range));
        }
        chains
    }

    fn tcp_chains(&self, cx: &Context<'a>, range: Option<&str>) -> Vec<Chain> {
        let own_subnets: Vec<String> = range.map(str::to_owned).into_iter().collect();
        let mut chains: Vec<Chain> = Vec::new();
        for virtual_service in self.virtual_services() {
            for rule in &virtual_service.tcp {
                let subnets = match l4::tcp_match(cx, virtual_service, &rule.route, self.place()) {
                    TcpMatch::Nothing => continue,
                    TcpMatch::Everything => own_subnets.clone(),
                    TcpMatch::Subnets(subnets) => subnets,
                };
                let Some(bytes) = l4::forward(cx, virtual_service, &rule.route.route, self.port.number, self.protocol)
                else {
                    continue;
                };
                let takes_all = subnets == own_subnets;
                chains.push(chain(cx, &bytes, &[], &subnets, virtual_service, &rule.origin));
                if takes_all {
                    return chains;
                }
            }
        }
        chains.push(self.own_chain(cx, &[], range));
        chains
    }

    /// The chain that leads to the service itself.
    fn own_chain(&self, cx: &Context<'a>, server_names: &[String], range: Option<&str>) -> Chain {
        let cluster = names::outbound_cluster(self.port.number, "", &self.service.host);
        let bytes = Bytes { protocol: self.protocol, service: Some(self.service), ..Bytes::to(&cluster) };
        Chain {
            message: FilterChain {
                filter_chain_match: matched(server_names, range.map(str::to_owned).as_slice()),
                filters: bytes.filters(cx),
                ..Default::default()
            },
            origins: vec![(*self.service.origin).clone()],
        }
    }
}

fn chain(
    cx: &Context<'_>,
    bytes: &Bytes<'_>,
    server_names: &[String],
    subnets: &[String],
    virtual_service: &VirtualService,
    origin: &Origin,
) -> Chain {
    Chain {
        message: FilterChain {
            filter_chain_match: matched(server_names, subnets),
            filters: bytes.filters(cx),
            metadata: Some(chains::made_by("virtual-service", &virtual_service.namespace, &virtual_service.name)),
            ..Default::default()
        },
        origins: vec![origin.clone()],
    }
}

fn matched(server_names: &[String], subnets: &[String]) -> Option<FilterChainMatch> {
    // Envoy refuses wildcards in the middle of nothing: `*` alone is every name.
    let mut server_names: Vec<String> = server_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    if server_names.iter().any(|name| name == "*") {
        server_names.clear();
    }
    server_names.sort();
    server_names.dedup();
    let matched = FilterChainMatch {
        server_names,
        prefix_ranges: subnets.iter().filter_map(|subnet| chains::range(subnet)).collect(),
        ..Default::default()
    };
    (matched != FilterChainMatch::default()).then_some(matched)
}

/// The one address that a virtual address stands for; `None` for a range of several.
fn single_address(address: &str) -> Option<String> {
    match address.split_once('/') {
        None => Some(address.to_owned()),
        Some((single, length)) => {
            let whole = if single.contains(':') { "128" } else { "32" };
            (length == whole).then(|| single.to_owned())
        }
    }
}

/// True when a sidecar listens on a port for other purposes.
fn is_reserved(cx: &Context<'_>, bind: &str, port: u32) -> bool {
    let mesh = cx.world.mesh();
    cx.is_redirected()
        && bind == EVERY_ADDRESS
        && (RESERVED_PORTS.contains(&port)
            || port == u32::from(mesh.outbound_port)
            || port == u32::from(mesh.inbound_port))
}
