//! How are the things that the compiler emits called? Every name of a cluster, listener, route
//! configuration or virtual host is built here, and parsed here when something has to read it back.
//!
//! Names are Istio's: dashboards, EnvoyFilter patches and people's habits depend on them. They never
//! depend on where a listener really binds (see [`crate::scope::Listen`]).

/// Cluster that has no endpoint: where traffic to unknown destinations ends under `REGISTRY_ONLY`.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";

/// Cluster that forwards to the connection's original destination.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";

/// Cluster that forwards redirected connections to ports of the workload that no service names.
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";

/// Cluster that resolves the host that each request names, for hosts that nobody else knows.
pub const ALLOW_ANY_DYNAMIC_DNS_CLUSTER: &str = "AllowAnyDynamicDNSCluster";

/// Cluster name of a route whose destination names no host at all; never defined, so requests get 503.
pub const UNKNOWN_SERVICE: &str = "UnknownService";

/// Virtual host and route of a catch-all that forwards unknown hosts.
pub const ALLOW_ANY: &str = "allow_any";

/// Virtual host and route of a catch-all that forwards unknown hosts to the addresses of their names.
pub const ALLOW_ANY_DYNAMIC_DNS: &str = "allow_any_dynamic_dns";

/// Virtual host and route of a catch-all that answers unknown hosts with 502.
pub const BLOCK_ALL: &str = "block_all";

/// Route that a service gets when no VirtualService names it.
pub const DEFAULT_ROUTE: &str = "default";

/// Route configuration of the explicit HTTP proxy port.
pub const HTTP_PROXY_ROUTES: &str = "http_proxy";

/// Filter chain of an outbound listener for bytes that are not HTTP.
pub const PASSTHROUGH_FILTER_CHAIN: &str = "PassthroughFilterChain";

/// Listener that receives all redirected inbound connections.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// Listener that receives all redirected outbound connections.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";

/// Filter chain of `virtualInbound` for connections to its own port.
pub const INBOUND_BLACK_HOLE_CHAIN: &str = "virtualInbound-blackhole";

/// Filter chain of `virtualInbound` for HTTP to ports that nobody asked for.
pub const INBOUND_CATCH_ALL_HTTP_CHAIN: &str = "virtualInbound-catchall-http";

/// Filter chain of `virtualOutbound` for connections to its own port.
pub const OUTBOUND_BLACK_HOLE_CHAIN: &str = "virtualOutbound-blackhole";

/// Filter chain of `virtualOutbound` for connections to unknown destinations.
pub const OUTBOUND_CATCH_ALL_CHAIN: &str = "virtualOutbound-catchall-tcp";

/// Filter chain of `virtualOutbound` for HTTP to unknown destinations, where the host of a request tells the way.
pub const OUTBOUND_CATCH_ALL_HTTP_CHAIN: &str = "virtualOutbound-catchall-http";

/// The parts of an outbound cluster's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundCluster<'a> {
    /// Service port, not the port of the workload.
    pub port: u32,
    /// Subset of the DestinationRule, empty for the whole service.
    pub subset: &'a str,
    /// Fully qualified host of the service.
    pub host: &'a str,
}

impl std::fmt::Display for OutboundCluster<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "outbound|{}|{}|{}", self.port, self.subset, self.host)
    }
}

/// `outbound|<port>|<subset>|<host>`.
pub fn outbound_cluster(port: u32, subset: &str, host: &str) -> String {
    OutboundCluster { port, subset, host }.to_string()
}

/// Reads an outbound cluster's name back; `None` for names of any other form.
pub fn parse_outbound_cluster(name: &str) -> Option<OutboundCluster<'_>> {
    let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    let host = parts.next()?;
    (!host.is_empty()).then_some(OutboundCluster { port, subset, host })
}

/// The name that mutual TLS asks for, and that of the clusters of gateways which pass such connections through:
/// `outbound_.<port>_.<subset>_.<host>`.
pub fn server_name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// Reads the name that mutual TLS asks for back; `None` for names of any other form.
pub fn parse_server_name(name: &str) -> Option<OutboundCluster<'_>> {
    let mut parts = name.strip_prefix("outbound_.")?.splitn(3, "_.");
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    let host = parts.next()?;
    (!host.is_empty()).then_some(OutboundCluster { port, subset, host })
}

/// `inbound|<port of the workload>||`: the cluster of a port of a sidecar's own workload, and its route configuration.
pub fn inbound_cluster(port: u32) -> String {
    format!("inbound|{port}||")
}

/// Reads an inbound cluster's name back; `None` for names of any other form.
pub fn parse_inbound_cluster(name: &str) -> Option<u32> {
    name.strip_prefix("inbound|")?.strip_suffix("||")?.parse().ok()
}

/// Cluster of a proxy to which a Sidecar sends requests for unknown hosts.
pub(crate) fn egress_proxy_cluster(proxy: &lateen_config::Destination) -> String {
    let port = proxy.port.as_ref().map_or(0, |port| port.number);
    outbound_cluster(port, proxy.subset.as_deref().unwrap_or_default(), &proxy.host)
}

/// A name inside statistics: Istio ends it with `;` so that a tag extractor finds where it stops.
pub fn stat_name(name: &str) -> String {
    format!("{name};")
}

/// `<bind>_<port>`.
pub fn listener(bind: &str, port: u32) -> String {
    format!("{bind}_{port}")
}

/// Statistics prefix of an outbound or gateway connection manager: `outbound_<listener>;`.
pub fn outbound_stat_prefix(listener: &str) -> String {
    stat_name(&format!("outbound_{listener}"))
}

/// Statistics prefix of an inbound connection manager: `inbound_<listener>;`.
pub fn inbound_stat_prefix(listener: &str) -> String {
    stat_name(&format!("inbound_{listener}"))
}

/// Virtual host of an inbound route configuration: `inbound|http|<service port>`.
pub fn inbound_virtual_host(service_port: u32) -> String {
    format!("inbound|http|{service_port}")
}

/// Route configuration of a sidecar's shared HTTP listener: the port alone.
pub fn sidecar_routes(port: u32) -> String {
    port.to_string()
}

/// Route configuration of a gateway's plain HTTP port: `http.<port>`, plus `.<bind>` when the server
/// binds one address.
pub fn gateway_http_routes(port: u32, bind: Option<&str>) -> String {
    match bind {
        Some(bind) => format!("http.{port}.{bind}"),
        None => format!("http.{port}"),
    }
}

/// Reads a gateway's plain HTTP route configuration name back: (resolved port, bind).
pub fn parse_gateway_http_routes(name: &str) -> Option<(u32, Option<&str>)> {
    let rest = name.strip_prefix("http.")?;
    match rest.split_once('.') {
        Some((port, bind)) => Some((port.parse().ok()?, Some(bind))),
        None => Some((rest.parse().ok()?, None)),
    }
}

/// Route configuration of a gateway's server that ends TLS: `https.<number>.<port name>.<gateway>.<namespace>`, plus
/// `.<bind>` when the server binds one address. The number is that of the Gateway, not the port that is bound.
pub fn gateway_https_routes(
    number: u32,
    port_name: &str,
    gateway: &str,
    namespace: &str,
    bind: Option<&str>,
) -> String {
    match bind {
        Some(bind) => format!("https.{number}.{port_name}.{gateway}.{namespace}.{bind}"),
        None => format!("https.{number}.{port_name}.{gateway}.{namespace}"),
    }
}

/// Reads a gateway's route configuration name of either form back: (port, name of the port, gateway as
/// `namespace/name`). Plain HTTP ports, which several Gateways can share, have no name and no gateway.
pub fn parse_gateway_routes(name: &str) -> Option<(u32, Option<&str>, Option<String>)> {
    if let Some((port, _)) = parse_gateway_http_routes(name) {
        return Some((port, None, None));
    }
    let mut parts = name.strip_prefix("https.")?.splitn(3, '.');
    let port = parts.next()?.parse().ok()?;
    let port_name = parts.next()?;
    // The names of gateways may have dots, and addresses have some.
    let (gateway, namespace) = without_address(parts.next()?).rsplit_once('.')?;
    Some((port, Some(port_name), Some(format!("{namespace}/{gateway}"))))
}

/// `<host>:<port>`.
pub fn virtual_host(host: &str, port: u32) -> String {
    format!("{host}:{port}")
}

/// Virtual host of a gateway port for which no VirtualService exists: it answers 404 to everything.
pub fn blackhole_virtual_host(port: u32) -> String {
    format!("blackhole:{port}")
}

/// Path of the object that produced an entry, as Istio writes it into `metadata.filter_metadata.istio.config`:
/// `/apis/networking.istio.io/v1/namespaces/<ns>/virtual-service/<name>`.
pub fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

/// A dotted text without the IP address at its end, if it has one.
fn without_address(text: &str) -> &str {
    let ends = text.match_indices('.').filter(|(end, _)| text[end + 1..].parse::<std::net::IpAddr>().is_ok());
    ends.map(|(end, _)| &text[..end]).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbound_cluster_name_reads_back_into_its_parts() {
        for (port, subset, host) in [
            (80, "", "reviews.default.svc.cluster.local"),
            (9080, "v1", "reviews.default.svc.cluster.local"),
            (443, "", "*.example.com"),
        ] {
            let name = outbound_cluster(port, subset, host);
            assert_eq!(parse_outbound_cluster(&name), Some(OutboundCluster { port, subset, host }));
            let name = server_name(port, subset, host);
            assert_eq!(parse_server_name(&name), Some(OutboundCluster { port, subset, host }));
            assert_eq!(parse_outbound_cluster(&name), None);
        }
    }

    #[test]
    fn other_names_are_no_outbound_clusters() {
        for name in [
            BLACK_HOLE_CLUSTER,
            PASSTHROUGH_CLUSTER,
            UNKNOWN_SERVICE,
            "inbound|8080||",
            "outbound|x||a",
            "outbound|80||",
            "outbound|80",
        ] {
            assert_eq!(parse_outbound_cluster(name), None, "{name}");
        }
    }

    #[test]
    fn an_inbound_cluster_name_reads_back() {
        assert_eq!(inbound_cluster(9080), "inbound|9080||");
        assert_eq!(parse_inbound_cluster("inbound|9080||"), Some(9080));
        for name in [INBOUND_PASSTHROUGH_CLUSTER, "inbound|9080|http|a", "outbound|9080||a"] {
            assert_eq!(parse_inbound_cluster(name), None, "{name}");
        }
        assert_eq!(server_name(80, "", "a.com"), "outbound_.80_._.a.com");
        assert_eq!(parse_server_name("outbound_.80"), None);
    }

    #[test]
    fn a_gateway_route_name_reads_back() {
        assert_eq!(parse_gateway_http_routes(&gateway_http_routes(8080, None)), Some((8080, None)));
        assert_eq!(parse_gateway_http_routes(&gateway_http_routes(80, Some("10.0.0.1"))), Some((80, Some("10.0.0.1"))));
        assert_eq!(parse_gateway_http_routes("https.443.a.b.c"), None);
        assert_eq!(parse_gateway_routes("http.8080"), Some((8080, None, None)));
        for bind in [None, Some("10.0.0.1"), Some("::1")] {
            let name = gateway_https_routes(443, "web", "main.edge", "shop", bind);
            let expected = (443, Some("web"), Some("shop/main.edge".to_owned()));
            assert_eq!(parse_gateway_routes(&name), Some(expected), "{name}");
        }
        assert_eq!(parse_gateway_routes("9080"), None);
    }
}
