//! What is the answer? Where a call goes, by which rules, what happens to it on the way, and what was passed over.

use std::net::IpAddr;
use std::time::Duration;

use lateen_xds::Origin;

/// The way of one call through one proxy.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// Name of the listener that has the connection.
    pub listener: Option<String>,
    /// Name of its filter chain; empty for a chain without a name.
    pub filter_chain: Option<String>,
    /// Name of the route configuration, for HTTP.
    pub route_config: Option<String>,
    /// Name of the virtual host.
    pub virtual_host: Option<String>,
    /// Name of the route; empty for a route without a name.
    pub route: Option<String>,
    /// Where the call is sent; several clusters when weights decide.
    pub clusters: Vec<ClusterShare>,
    /// What happens on the way.
    pub policies: Policies,
    /// The rule that decided: that of the route, else of the filter chain, else of the listener.
    pub origin: Option<Origin>,
    /// Rules that did not decide, and why.
    pub tried: Vec<Tried>,
    /// Why the call goes nowhere.
    pub error: Option<Refusal>,
}

/// A cluster, and how often it is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterShare {
    /// Name.
    pub name: String,
    /// Weight relative to `total_weight`; 1 for the only cluster.
    pub weight: u32,
    /// Sum of all weights of the choice.
    pub total_weight: u32,
    /// What is known of the cluster; `None` when it does not exist, so that requests get 503 with the flag `NC`.
    pub upstream: Option<Upstream>,
}

impl ClusterShare {
    /// Share in percent.
    pub fn percent(&self) -> f64 {
        if self.total_weight == 0 {
            return 0.0;
        }
        f64::from(self.weight) * 100.0 / f64::from(self.total_weight)
    }
}

/// How a cluster is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upstream {
    /// The endpoints that configuration names.
    pub endpoints: Vec<UpstreamEndpoint>,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// Balancing policy in Envoy's words, such as `LEAST_REQUEST`.
    pub load_balancing: String,
    /// Limits of connections and requests, in Envoy's words, those that are set.
    pub limits: Vec<(String, u64)>,
    /// Ejection of endpoints that fail, in Envoy's words; empty without outlier detection.
    pub outlier_detection: Vec<(String, String)>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// How connections are secured.
    pub tls: UpstreamTls,
    /// The objects that made it, most important first.
    pub origins: Vec<Origin>,
}

/// Where the endpoints of a cluster come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// They are listed.
    #[default]
    Listed,
    /// Names are resolved; health is not known before.
    Dns,
    /// The address that the client wanted.
    OriginalDestination,
    /// The host of each request is resolved.
    DynamicForwardProxy,
}

/// How connections to a cluster are secured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Not at all.
    #[default]
    None,
    /// As the endpoint can: mutual TLS of the mesh for those that have a sidecar.
    Automatic,
    /// Always.
    Always {
        /// With a certificate of the client.
        mutual: bool,
        /// Server name that is asked for.
        sni: String,
    },
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamEndpoint {
    /// `address:port`, or the path of a socket.
    pub address: String,
    /// `healthy`, `unhealthy`, `draining`, `degraded`, `timeout` or `unknown`, which counts as healthy.
    pub health: String,
    /// `region/zone/subzone`, empty when not known.
    pub locality: String,
    /// 0 is the first to be used.
    pub priority: u32,
    /// Share among its neighbours.
    pub weight: u32,
}

impl UpstreamEndpoint {
    /// Whether requests may be sent to it.
    pub fn is_usable(&self) -> bool {
        matches!(self.health.as_str(), "healthy" | "unknown" | "degraded")
    }
}

/// What happens to a call on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// The proxy answers with a redirect.
    pub redirect: Option<Redirect>,
    /// The proxy answers by itself.
    pub direct_response: Option<DirectResponse>,
    /// Limit for the whole request; `None` for none.
    pub timeout: Option<Duration>,
    /// Repetition of failed tries.
    pub retries: Option<Retries>,
    /// Injected delay: length and percentage.
    pub fault_delay: Option<(Duration, f64)>,
    /// Injected answer: `HTTP 503` or `gRPC 14`, and percentage.
    pub fault_abort: Option<(String, f64)>,
    /// Copies: cluster and percentage.
    pub mirrors: Vec<(String, f64)>,
    /// Path that the endpoint sees, when it is another one.
    pub path: Option<String>,
    /// Host that the endpoint sees, when it is another one.
    pub host: Option<String>,
    /// Changes of request headers, in words: `set x-a to b`.
    pub request_headers: Vec<String>,
    /// Changes of response headers.
    pub response_headers: Vec<String>,
    /// What ties clients to endpoints, in words.
    pub hash: Vec<String>,
    /// Which origins browsers may call from, in words; empty without CORS.
    pub cors: Vec<String>,
    /// Other filters on the way that may answer by themselves, such as rate limits, in words.
    pub filters: Vec<String>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Where the client is sent.
    pub location: String,
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status.
    pub status: u32,
    /// Bytes of the body; `None` when it is read from a file or the environment.
    pub body: Option<usize>,
}

/// Repetition of failed tries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first one.
    pub attempts: u32,
    /// Conditions in Envoy's words, comma separated.
    pub on: String,
    /// Status codes that count as failed.
    pub codes: Vec<u32>,
    /// Limit for each try.
    pub per_try_timeout: Option<Duration>,
}

/// A rule that did not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Where it stands.
    pub origin: Option<Origin>,
    /// Why it did not decide, in words.
    pub reason: String,
}

/// Why a call goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// What the client gets, and why, in words.
    pub reason: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Nothing listens on the port.
    NoListener,
    /// No filter chain takes the connection: it is closed.
    NoFilterChain,
    /// Several filter chains take the connection alike: Envoy refuses such a listener.
    MultipleFilterChains,
    /// Plaintext where a TLS handshake is expected.
    Tls,
    /// The server asks for a certificate that the client does not have.
    MutualTls,
    /// The bytes are not the protocol that is spoken there.
    Protocol,
    /// No virtual host has the host: 404.
    NoVirtualHost,
    /// No route takes the request: 404.
    NoRoute,
    /// Plaintext is redirected to HTTPS.
    TlsRedirect,
}

impl RefusalKind {
    /// The name that output uses.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalKind::NoListener => "no-listener",
            RefusalKind::NoFilterChain => "no-filter-chain",
            RefusalKind::MultipleFilterChains => "multiple-filter-chains",
            RefusalKind::Tls => "tls-error",
            RefusalKind::MutualTls => "mtls-error",
            RefusalKind::Protocol => "protocol-error",
            RefusalKind::NoVirtualHost => "no-virtual-host",
            RefusalKind::NoRoute => "no-route",
            RefusalKind::TlsRedirect => "tls-redirect",
        }
    }
}

impl Explanation {
    /// Whether the client gets an answer that configuration meant to give: from a cluster, or a redirect, or a
    /// response of the proxy's own. A cluster that does not exist gives none.
    pub fn is_answered(&self) -> bool {
        if let Some(refusal) = &self.error {
            return refusal.kind == RefusalKind::TlsRedirect;
        }
        let by_proxy = self.policies.redirect.is_some() || self.policies.direct_response.is_some();
        by_proxy || self.clusters.iter().any(|cluster| cluster.upstream.is_some())
    }

    pub(crate) fn try_failed(&mut self, origin: Option<&Origin>, reason: impl Into<String>) {
        self.tried.push(Tried { origin: origin.cloned(), reason: reason.into() });
    }

    pub(crate) fn refuse(&mut self, kind: RefusalKind, reason: impl Into<String>) {
        self.error = Some(Refusal { kind, reason: reason.into() });
    }
}

/// `[::1]:80` or `10.0.0.1:80`.
pub(crate) fn socket(address: Option<IpAddr>, port: u16) -> String {
    match address {
        Some(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        Some(IpAddr::V4(address)) => format!("{address}:{port}"),
        None => format!("port {port}"),
    }
}
