//! What can a DestinationRule say? Its fields as Istio's API has them (`networking.istio.io/v1`, DestinationRule).

use std::collections::BTreeMap;
use std::time::Duration;

use super::virtual_service::PortSelector;
use crate::decode::{enumeration, message, oneof};

message! {
    /// What holds for traffic to a host, after routing.
    pub struct DestinationRule {
        /// Host of a service, perhaps with a wildcard. A name without dots is in the namespace of this object.
        host: String,
        /// What holds for all of it.
        traffic_policy: Option<TrafficPolicy>,
        /// Named parts of its workloads.
        subsets: Vec<Subset>,
        /// Namespaces that see it: `*`, `.` or a name. Empty: as the mesh says.
        export_to: Vec<String>,
        /// The clients that it is for. Absent: all.
        workload_selector: Option<MatchLabelsSelector>,
    }

    /// A choice of workloads by label.
    pub struct MatchLabelsSelector {
        /// Labels that all have to be there.
        match_labels: BTreeMap<String, String>,
    }

    /// A named part of a host's workloads.
    pub struct Subset {
        /// Name.
        name: String,
        /// Labels that its workloads have. Empty: all workloads.
        labels: BTreeMap<String, String>,
        /// What holds for it, block by block in place of the host's.
        traffic_policy: Option<TrafficPolicy>,
    }

    /// What holds for traffic.
    pub struct TrafficPolicy {
        /// How a workload is chosen.
        load_balancer: Option<LoadBalancerSettings>,
        /// Limits of connections and requests.
        connection_pool: Option<ConnectionPoolSettings>,
        /// When a workload is passed over.
        outlier_detection: Option<OutlierDetection>,
        /// TLS to the workloads.
        tls: Option<ClientTlsSettings>,
        /// What holds for single ports instead; nothing of the above is inherited.
        port_level_settings: Vec<PortTrafficPolicy>,
        /// Tunnel of TCP in HTTP.
        tunnel: Option<TunnelSettings>,
        /// PROXY protocol header.
        proxy_protocol: Option<ProxyProtocol>,
        /// Share of requests that may be retries.
        retry_budget: Option<RetryBudget>,
    }

    /// What holds for one port.
    pub struct PortTrafficPolicy {
        /// Port of the service.
        port: Option<PortSelector>,
        /// How a workload is chosen.
        load_balancer: Option<LoadBalancerSettings>,
        /// Limits of connections and requests.
        connection_pool: Option<ConnectionPoolSettings>,
        /// When a workload is passed over.
        outlier_detection: Option<OutlierDetection>,
        /// TLS to the workloads.
        tls: Option<ClientTlsSettings>,
    }

    /// Tunnel of TCP in HTTP.
    pub struct TunnelSettings {
        /// `CONNECT` (the default) or `POST`.
        protocol: Option<String>,
        /// Host to ask for.
        target_host: String,
        /// Port to ask for.
        target_port: u32,
    }

    /// PROXY protocol header.
    pub struct ProxyProtocol {
        /// Version of the protocol.
        version: ProxyProtocolVersion,
    }

    /// Share of requests that may be retries.
    pub struct RetryBudget {
        /// Share of active requests, from 0 to 100. Absent: 20.
        percent: Option<f64>,
        /// Number of retries that are always allowed. Absent: 3.
        min_retry_concurrency: Option<u32>,
        /// Time over which requests are counted.
        budget_interval: Option<Duration>,
    }

    /// How a workload is chosen.
    pub struct LoadBalancerSettings {
        /// Preference for near workloads.
        locality_lb_setting: Option<LocalityLbSetting>,
        /// Preference for workloads of the same zone, decided by the proxy.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// How long a new workload gets less. Deprecated.
        warmup_duration_secs: Option<Duration>,
        /// How long a new workload gets less.
        warmup: Option<WarmupConfiguration>,
        ;oneof {
            /// The algorithm. Absent: least requests.
            policy: LoadBalancerPolicy,
        }
    }

    /// How long a new workload gets less.
    pub struct WarmupConfiguration {
        /// Length of the warm-up.
        duration: Duration,
        /// Share at the beginning. Absent: 10.
        minimum_percent: Option<f64>,
        /// Shape of the increase, 1 is a straight line. Absent: 1.
        aggression: Option<f64>,
    }

    /// The same key goes to the same workload.
    pub struct ConsistentHash {
        /// Size of the ring. Deprecated.
        minimum_ring_size: Option<u64>,
        ;oneof {
            /// What is hashed.
            key: HashKey,
            /// How a workload is found for a hash. Absent: a ring.
            algorithm: HashAlgorithm,
        }
    }

    /// A cookie that is hashed.
    pub struct HttpCookie {
        /// Name.
        name: String,
        /// Path, if the proxy makes it up.
        path: Option<String>,
        /// Time to live, if the proxy makes it up; zero for the session. Absent: it never makes it up.
        ttl: Option<Duration>,
        /// Further attributes, if the proxy makes it up.
        attributes: Vec<CookieAttribute>,
    }

    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Name.
        name: String,
        /// Value.
        value: Option<String>,
    }

    /// A ring of hashes.
    pub struct RingHash {
        /// Least number of entries. Absent or 0: 1024.
        minimum_ring_size: Option<u64>,
    }

    /// A table of hashes.
    pub struct MagLev {
        /// Number of entries, a prime.
        table_size: Option<u64>,
    }

    /// Preference for near workloads.
    pub struct LocalityLbSetting {
        /// Shares by locality of client and workload.
        distribute: Vec<LocalityDistribute>,
        /// Which region takes over for which.
        failover: Vec<LocalityFailover>,
        /// Labels, or `label=value`, that decide how near a workload is, the most important first.
        failover_priority: Vec<String>,
        /// False turns all of it off. Absent: true.
        enabled: Option<bool>,
    }

    /// Shares for clients of one locality.
    pub struct LocalityDistribute {
        /// Locality of the client: `region/zone/sub-zone`, perhaps ending in `*`.
        from: Option<String>,
        /// Shares by locality of the workload, 100 in all.
        to: BTreeMap<String, u32>,
    }

    /// Which region takes over for which.
    pub struct LocalityFailover {
        /// The region that fails.
        from: Option<String>,
        /// The region that takes over.
        to: Option<String>,
    }

    /// Preference for workloads of the same zone, decided by the proxy.
    pub struct ZoneAwareLbSetting {
        /// False turns it off. Absent: true.
        enabled: Option<bool>,
        /// Number of workloads below which it is not done.
        min_cluster_size: Option<u64>,
        /// Which region takes over for which.
        failover: Vec<LocalityFailover>,
        /// Labels that decide which workloads are preferred, the most important first.
        failover_priority: Vec<String>,
    }

    /// Limits of connections and requests.
    pub struct ConnectionPoolSettings {
        /// For all connections.
        tcp: Option<TcpConnectionPool>,
        /// For HTTP.
        http: Option<HttpConnectionPool>,
    }

    /// Limits of connections.
    pub struct TcpConnectionPool {
        /// Number of connections; 0 is the same as none.
        max_connections: Option<i32>,
        /// Time to establish one. Absent: as the mesh says.
        connect_timeout: Option<Duration>,
        /// Probes on idle connections.
        tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection.
        max_connection_duration: Option<Duration>,
        /// Longest silence on a connection.
        idle_timeout: Option<Duration>,
    }

    /// Probes on idle connections.
    pub struct TcpKeepalive {
        /// Number of probes without an answer before the connection is dead.
        probes: Option<u32>,
        /// Silence before the first probe.
        time: Option<Duration>,
        /// Time between probes.
        interval: Option<Duration>,
    }

    /// Limits of requests.
    pub struct HttpConnectionPool {
        /// Number of requests that wait for a connection; 0 is the same as none.
        http1_max_pending_requests: Option<i32>,
        /// Number of requests in flight; 0 is the same as none.
        http2_max_requests: Option<i32>,
        /// Number of requests on one connection; 0 is the same as none.
        max_requests_per_connection: Option<i32>,
        /// Number of retries in flight; 0 is the same as none.
        max_retries: Option<i32>,
        /// Longest silence on a connection.
        idle_timeout: Option<Duration>,
        /// Whether plain HTTP services get HTTP/2 connections.
        h2_upgrade_policy: H2UpgradePolicy,
        /// Whether the client's protocol is kept.
        use_client_protocol: bool,
        /// Number of requests at a time on one HTTP/2 connection; 0 is the same as none.
        max_concurrent_streams: Option<i32>,
        /// Probes on HTTP/2 connections.
        http2_keep_alive: Option<Http2KeepAlive>,
    }

    /// Probes on HTTP/2 connections.
    pub struct Http2KeepAlive {
        /// Time between probes.
        interval: Option<Duration>,
        /// Time for the answer.
        timeout: Option<Duration>,
    }

    /// When a workload is passed over.
    pub struct OutlierDetection {
        /// No longer looked at.
        consecutive_errors: Option<i32>,
        /// Whether failures to reach a workload are counted apart from its answers.
        split_external_local_origin_errors: bool,
        /// Number of failures to reach it in a row.
        consecutive_local_origin_failures: Option<u32>,
        /// Number of answers 502, 503, 504 in a row; 0 turns it off.
        consecutive_gateway_errors: Option<u32>,
        /// Number of answers 5xx in a row; 0 turns it off.
        consecutive_5xx_errors as "consecutive5xxErrors": Option<u32>,
        /// Time between checks. Absent: 10 s.
        interval: Option<Duration>,
        /// How long, times the number of times already. Absent: 30 s.
        base_ejection_time: Option<Duration>,
        /// Share of workloads that can be passed over. Absent or 0: 10.
        max_ejection_percent: Option<i32>,
        /// Share of healthy workloads below which health is ignored. Absent: 0, never.
        min_health_percent: Option<i32>,
        /// Statuses that count as errors.
        outlier_detection_http_error_codes: Vec<u32>,
    }

    /// TLS to the workloads.
    pub struct ClientTlsSettings {
        /// Whether and how.
        mode: ClientTlsMode,
        /// File with the certificate of the client.
        client_certificate: Option<String>,
        /// File with its key.
        private_key: Option<String>,
        /// File with the authorities that are trusted.
        ca_certificates: Option<String>,
        /// Secret with all of these.
        credential_name: Option<String>,
        /// Names of which the workload's certificate has to have one.
        subject_alt_names: Vec<String>,
        /// Name of the server that is asked for.
        sni: Option<String>,
        /// Whether the workload's certificate is not checked.
        insecure_skip_verify: Option<bool>,
        /// File with revoked certificates.
        ca_crl: Option<String>,
    }
}

oneof! {
    /// How a workload is chosen.
    pub enum LoadBalancerPolicy {
        /// By a simple algorithm.
        Simple(SimpleLb) as "simple",
        /// By a hash of the request.
        ConsistentHash(ConsistentHash) as "consistent_hash",
    }

    /// What is hashed.
    pub enum HashKey {
        /// A header.
        HttpHeaderName(String) as "http_header_name",
        /// A cookie.
        HttpCookie(HttpCookie) as "http_cookie",
        /// The client's address.
        UseSourceIp(bool) as "use_source_ip",
        /// A query parameter.
        HttpQueryParameterName(String) as "http_query_parameter_name",
    }

    /// How a workload is found for a hash.
    pub enum HashAlgorithm {
        /// On a ring.
        RingHash(RingHash) as "ring_hash",
        /// In a table.
        Maglev(MagLev) as "maglev",
    }
}

enumeration! {
    /// A simple algorithm.
    pub enum SimpleLb {
        /// The default, least requests.
        Unspecified = 0 "UNSPECIFIED",
        /// Old name of least requests.
        LeastConn = 1 "LEAST_CONN",
        /// At random.
        Random = 2 "RANDOM",
        /// Wherever the client wanted to go.
        Passthrough = 3 "PASSTHROUGH",
        /// One after the other.
        RoundRobin = 4 "ROUND_ROBIN",
        /// Of two at random, the one with fewer requests.
        LeastRequest = 5 "LEAST_REQUEST",
    }

    /// Whether plain HTTP services get HTTP/2 connections.
    pub enum H2UpgradePolicy {
        /// As the mesh says.
        Default = 0 "DEFAULT",
        /// No.
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = 2 "UPGRADE",
    }

    /// Whether and how TLS is used to the workloads.
    pub enum ClientTlsMode {
        /// Not at all.
        Disable = 0 "DISABLE",
        /// The server shows a certificate.
        Simple = 1 "SIMPLE",
        /// Both show certificates.
        Mutual = 2 "MUTUAL",
        /// Both show certificates of the mesh.
        IstioMutual = 3 "ISTIO_MUTUAL",
    }

    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = 0 "V1",
        /// Binary.
        V2 = 1 "V2",
    }
}
