//! What holds for each proxy of the mesh? Istio's `ProxyConfig`, the `defaultConfig` of the mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::{enumeration, message, oneof};
use crate::istio::destination_rule::{ClientTlsSettings, TcpKeepalive};
use crate::istio::proxy_config::ProxyImage;
use crate::istio::telemetry::CustomTag;

message! {
    /// What holds for a proxy.
    pub struct ProxyConfig {
        /// Number of workers; 0 is one for each core.
        concurrency: Option<i32>,
        /// What stands in front of gateways.
        gateway_topology: GatewayTopology = GatewayTopology::default(),
        /// Environment of the proxy.
        proxy_metadata: BTreeMap<String, String>,
        /// Headers that the proxy adds.
        proxy_headers: ProxyHeaders = ProxyHeaders::default(),
        /// Where traces go, for proxies of which no Telemetry speaks.
        tracing: Option<ProxyTracing>,
        /// Which statistics are kept beyond Istio's own.
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// Labels that are told from the names of statistics, beyond Istio's own.
        extra_stat_tags: Vec<String>,
        /// How long connections are drained when listeners change.
        drain_duration: Duration = Duration::from_secs(45),
        /// How long connections are drained when the proxy ends.
        termination_drain_duration: Duration = Duration::from_secs(5),
        /// Where the control plane is.
        discovery_address: Option<String>,
        /// Whether the workload waits for the proxy.
        hold_application_until_proxy_starts: bool,
        /// Port of the admin interface.
        proxy_admin_port: u32 = 15000,
        /// Port on which the proxy says whether it is ready.
        status_port: u32 = 15020,
        /// Service that takes access logs over gRPC.
        envoy_access_log_service: Option<RemoteService>,
        /// Service that takes metrics over gRPC.
        envoy_metrics_service: Option<RemoteService>,
        /// The image of the proxy.
        image: Option<ProxyImage>,
        /// Time after which the access log is written, however little there is.
        file_flush_interval: Option<Duration>,
        /// How much of the access log is written at once, in kilobytes.
        file_flush_min_size_kb: Option<u32>,
        /// Not looked at.
        config_path: Option<serde_json::Value>,
        /// Not looked at.
        binary_path: Option<serde_json::Value>,
        /// Not looked at.
        service_cluster: Option<serde_json::Value>,
        /// Not looked at.
        tracing_service_name: Option<serde_json::Value>,
        /// Not looked at.
        parent_shutdown_duration: Option<serde_json::Value>,
        /// Not looked at.
        zipkin_address: Option<serde_json::Value>,
        /// Not looked at.
        statsd_udp_address: Option<serde_json::Value>,
        /// Not looked at.
        control_plane_auth_policy: Option<serde_json::Value>,
        /// Not looked at.
        custom_config_file: Option<serde_json::Value>,
        /// Not looked at.
        stat_name_length: Option<serde_json::Value>,
        /// Not looked at.
        proxy_bootstrap_template_path: Option<serde_json::Value>,
        /// Not looked at.
        interception_mode: Option<serde_json::Value>,
        /// Not looked at.
        runtime_values: Option<serde_json::Value>,
        /// Not looked at.
        mesh_id: Option<serde_json::Value>,
        /// Not looked at.
        readiness_probe: Option<serde_json::Value>,
        /// Not looked at.
        ca_certificates_pem: Option<serde_json::Value>,
        /// Not looked at.
        private_key_provider: Option<serde_json::Value>,
        /// Not looked at.
        stats_compression: Option<serde_json::Value>,
        /// Not looked at.
        availability_zone: Option<serde_json::Value>,
    }

    /// What stands in front of gateways.
    pub struct GatewayTopology {
        /// Number of proxies whose `x-forwarded-for` is trusted.
        num_trusted_proxies: u32 = 0,
        /// What happens to client certificates in headers.
        forward_client_cert_details: ForwardClientCertDetails,
        /// Whether connections begin with a PROXY protocol header: if this is there at all.
        proxy_protocol: Option<serde_json::Map<String, serde_json::Value>>,
    }

    /// Headers that the proxy adds.
    pub struct ProxyHeaders {
        /// What happens to client certificates in headers.
        forwarded_client_cert: ForwardClientCertDetails,
        /// What of the client's certificate is told.
        set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        /// `x-request-id`.
        request_id: Option<ProxyHeader>,
        /// `server`.
        server: Option<ServerHeader>,
        /// `x-envoy-attempt-count`.
        attempt_count: Option<ProxyHeader>,
        /// Envoy's own headers for diagnosis.
        envoy_debug_headers: Option<ProxyHeader>,
        /// Headers by which the proxies of the mesh know each other.
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// Whether the case of header names is kept in HTTP/1.1.
        preserve_http1_header_case: Option<bool>,
        /// `x-forwarded-host`.
        x_forwarded_host: Option<EnabledHeader>,
        /// `x-forwarded-port`.
        x_forwarded_port: Option<EnabledHeader>,
    }

    /// What of the client's certificate is told in `x-forwarded-client-cert`.
    pub struct SetCurrentClientCertDetails {
        /// Its subject. Absent: yes.
        subject: Option<bool>,
        /// The certificate.
        cert: Option<bool>,
        /// The certificate with those above it.
        chain: Option<bool>,
        /// Its DNS names. Absent: yes.
        dns: Option<bool>,
        /// Its URIs. Absent: yes.
        uri: Option<bool>,
    }

    /// A header that can be turned off.
    pub struct ProxyHeader {
        /// Whether it is left out.
        disabled: Option<bool>,
    }

    /// A header that can be turned on.
    pub struct EnabledHeader {
        /// Whether it is added.
        enabled: Option<bool>,
    }

    /// The header `server`.
    pub struct ServerHeader {
        /// Whether it is left as it is.
        disabled: Option<bool>,
        /// Its value. Empty: `istio-envoy`.
        value: String = String::new(),
    }

    /// Headers by which the proxies of the mesh know each other.
    pub struct MetadataExchangeHeaders {
        /// When they are added.
        mode: MetadataExchangeMode,
    }

    /// Which statistics are kept.
    pub struct ProxyStatsMatcher {
        /// Beginnings of names.
        inclusion_prefixes: Vec<String>,
        /// Ends of names.
        inclusion_suffixes: Vec<String>,
        /// Patterns of names.
        inclusion_regexps: Vec<String>,
    }

    /// A service by address.
    pub struct RemoteService {
        /// `host:port`.
        address: String = String::new(),
        /// TLS to it.
        tls_settings: Option<ClientTlsSettings>,
        /// Probes on idle connections.
        tcp_keepalive: Option<TcpKeepalive>,
    }

    /// Where traces go.
    pub struct ProxyTracing {
        /// Further tags by name.
        custom_tags: BTreeMap<String, CustomTag>,
        /// Longest path in a span, in bytes; longer ones are cut. Absent: 256.
        max_path_tag_length: Option<u32>,
        /// Share of requests that are traced, from 0 to 100. Absent: 1.
        sampling: Option<f64>,
        /// TLS to the tracer.
        tls_settings: Option<ClientTlsSettings>,
        /// Whether spans have Istio's own tags. Absent: yes.
        enable_istio_tags: Option<bool>,
        ;oneof {
            /// What they are sent to.
            tracer: Tracer,
        }
    }

    /// Zipkin, or what speaks like it.
    pub struct ZipkinTracer {
        /// `host:port`.
        address: String = String::new(),
    }
}

oneof! {
    /// What traces are sent to.
    pub enum Tracer {
        /// Zipkin, or what speaks like it.
        Zipkin(ZipkinTracer) as "zipkin",
        /// Not supported.
        Lightstep(serde_json::Map<String, serde_json::Value>) as "lightstep",
        /// Not supported.
        Datadog(serde_json::Map<String, serde_json::Value>) as "datadog",
        /// Not supported.
        Stackdriver(serde_json::Map<String, serde_json::Value>) as "stackdriver",
        /// Not supported.
        OpenCensusAgent(serde_json::Map<String, serde_json::Value>) as "open_census_agent",
    }
}

enumeration! {
    /// What happens to client certificates in headers.
    pub enum ForwardClientCertDetails {
        /// The proxy's default.
        Undefined = 0 "UNDEFINED",
        /// They are removed.
        Sanitize = 1 "SANITIZE",
        /// They are forwarded if the client used mutual TLS.
        ForwardOnly = 2 "FORWARD_ONLY",
        /// The client's is added if it used mutual TLS.
        AppendForward = 3 "APPEND_FORWARD",
        /// The client's takes their place.
        SanitizeSet = 4 "SANITIZE_SET",
        /// They are forwarded whatever the client used.
        AlwaysForwardOnly = 5 "ALWAYS_FORWARD_ONLY",
    }

    /// When the headers are added by which proxies know each other.
    pub enum MetadataExchangeMode {
        /// Always.
        Undefined = 0 "UNDEFINED",
        /// Only to workloads of the mesh.
        InMesh = 1 "IN_MESH",
    }
}
