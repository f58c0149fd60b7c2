//! Which services for logs, traces and metrics does the mesh have? The `extensionProviders` of a MeshConfig.

use std::time::Duration;

use crate::decode::{message, oneof};

message! {
    /// A service for logs, traces, metrics or authorisation, by name.
    pub struct ExtensionProvider {
        /// Name, by which a Telemetry refers to it.
        name: String = String::new(),
        ;oneof {
            /// What it is.
            provider: ExtensionProviderKind,
        }
    }

    /// A file that access logs are written to.
    pub struct EnvoyFileAccessLogProvider {
        /// Path of the file.
        path: String = "/dev/stdout".to_owned(),
        /// Format. Absent: that of the mesh.
        log_format: Option<FileLogFormat>,
        /// Whether operators without a value give nothing in place of `-`.
        omit_empty_values: bool,
        /// Conditions under which something is logged. Not supported.
        filters: Option<serde_json::Value>,
    }

    /// Format of an access log.
    pub struct FileLogFormat {
        ;oneof {
            /// Of which form.
            form: FileLogForm,
        }
    }

    /// A service that takes access logs of HTTP over gRPC.
    pub struct EnvoyHttpAlsProvider {
        /// Host, perhaps with a namespace in front: `namespace/host`.
        service: String = String::new(),
        /// Port.
        port: u32 = 0,
        /// Name of the log.
        log_name: String = "http_envoy_accesslog".to_owned(),
        /// Further facts of the connection's filters to log.
        filter_state_objects_to_log: Vec<String>,
        /// Further request headers to log.
        additional_request_headers_to_log: Vec<String>,
        /// Further response headers to log.
        additional_response_headers_to_log: Vec<String>,
        /// Further response trailers to log.
        additional_response_trailers_to_log: Vec<String>,
    }

    /// A service that takes access logs of TCP over gRPC.
    pub struct EnvoyTcpAlsProvider {
        /// Host, perhaps with a namespace in front: `namespace/host`.
        service: String = String::new(),
        /// Port.
        port: u32 = 0,
        /// Name of the log.
        log_name: String = "tcp_envoy_accesslog".to_owned(),
        /// Further facts of the connection's filters to log.
        filter_state_objects_to_log: Vec<String>,
    }

    /// A service that takes access logs as OpenTelemetry has them.
    pub struct EnvoyOtelAlsProvider {
        /// Host, perhaps with a namespace in front: `namespace/host`.
        service: String = String::new(),
        /// Port.
        port: u32 = 0,
        /// Name of the log.
        log_name: String = "otel_envoy_accesslog".to_owned(),
        /// Format.
        log_format: Option<OtelLogFormat>,
    }

    /// Format of an access log as OpenTelemetry has it.
    pub struct OtelLogFormat {
        /// Text of the line. Absent: that of the mesh.
        text: String = String::new(),
        /// Further attributes.
        labels: serde_json::Map<String, serde_json::Value>,
    }

    /// Zipkin, or what speaks like it.
    pub struct ZipkinProvider {
        /// Host, perhaps with a namespace in front: `namespace/host`.
        service: String = String::new(),
        /// Port.
        port: u32 = 0,
        /// Longest path in a span, in bytes; longer ones are cut. Absent: 256.
        max_tag_length: Option<u32>,
        /// Whether trace ids have 64 bits in place of 128.
        enable_64bit_trace_id as "enable64bitTraceId": bool,
        /// Path of the endpoint. Empty: `/api/v2/spans`.
        path: String = String::new(),
        /// Time until a report is given up. Absent: 5 s.
        timeout: Option<Duration>,
        /// Headers of reports.
        headers: Vec<ProviderHttpHeader>,
        /// Which headers carry traces.
        trace_context_option: Option<String>,
    }

    /// A service that takes traces as OpenTelemetry has them.
    pub struct OpenTelemetryProvider {
        /// Host, perhaps with a namespace in front: `namespace/host`.
        service: String = String::new(),
        /// Port.
        port: u32 = 0,
        /// Longest path in a span, in bytes; longer ones are cut. Absent: 256.
        max_tag_length: Option<u32>,
        /// HTTP in place of gRPC.
        http: Option<HttpService>,
        /// Settings of gRPC.
        grpc: Option<GrpcService>,
        /// What else is told of the proxy.
        resource_detectors: Option<serde_json::Value>,
        /// Dynatrace's decision on what is traced. Not supported.
        dynatrace_sampler: Option<serde_json::Value>,
        /// Where the name of the service comes from.
        service_attribute_enrichment: Option<String>,
    }

    /// A service that is spoken to in HTTP.
    pub struct HttpService {
        /// Path of the endpoint.
        path: String = String::new(),
        /// Time until a report is given up. Absent: 3 s.
        timeout: Option<Duration>,
        /// Headers of reports.
        headers: Vec<ProviderHttpHeader>,
    }

    /// A service that is spoken to in gRPC.
    pub struct GrpcService {
        /// Time until a report is given up.
        timeout: Option<Duration>,
        /// Metadata of reports.
        initial_metadata: Vec<ProviderHttpHeader>,
    }

    /// A header of reports.
    pub struct ProviderHttpHeader {
        /// Name.
        name: String = String::new(),
        /// Value.
        value: Option<String>,
        /// Variable of the proxy's environment that holds the value.
        env_name: Option<String>,
    }

    /// Metrics on request of Prometheus.
    pub struct PrometheusProvider {}

    /// Which providers are used by those that do not say.
    pub struct DefaultProviders {
        /// For traces.
        tracing: Vec<String>,
        /// For metrics.
        metrics: Vec<String>,
        /// For access logs.
        access_logging: Vec<String>,
    }
}

oneof! {
    /// What a provider is.
    pub enum ExtensionProviderKind {
        /// A file for access logs.
        EnvoyFileAccessLog(EnvoyFileAccessLogProvider) as "envoy_file_access_log",
        /// A service for access logs of HTTP.
        EnvoyHttpAls(EnvoyHttpAlsProvider) as "envoy_http_als",
        /// A service for access logs of TCP.
        EnvoyTcpAls(EnvoyTcpAlsProvider) as "envoy_tcp_als",
        /// A service for access logs as OpenTelemetry has them.
        EnvoyOtelAls(EnvoyOtelAlsProvider) as "envoy_otel_als",
        /// Zipkin, or what speaks like it.
        Zipkin(ZipkinProvider) as "zipkin",
        /// A service for traces as OpenTelemetry has them.
        Opentelemetry(OpenTelemetryProvider) as "opentelemetry",
        /// Metrics on request of Prometheus.
        Prometheus(PrometheusProvider) as "prometheus",
        /// Not supported: authorisation over HTTP.
        EnvoyExtAuthzHttp(serde_json::Map<String, serde_json::Value>) as "envoy_ext_authz_http",
        /// Not supported: authorisation over gRPC.
        EnvoyExtAuthzGrpc(serde_json::Map<String, serde_json::Value>) as "envoy_ext_authz_grpc",
        /// Not supported.
        Lightstep(serde_json::Map<String, serde_json::Value>) as "lightstep",
        /// Not supported.
        Datadog(serde_json::Map<String, serde_json::Value>) as "datadog",
        /// Not supported.
        Stackdriver(serde_json::Map<String, serde_json::Value>) as "stackdriver",
        /// Not supported.
        Opencensus(serde_json::Map<String, serde_json::Value>) as "opencensus",
        /// Not supported.
        Skywalking(serde_json::Map<String, serde_json::Value>) as "skywalking",
        /// Not supported.
        Sds(serde_json::Map<String, serde_json::Value>) as "sds",
    }

    /// The form of an access log.
    pub enum FileLogForm {
        /// Lines of text.
        Text(String) as "text",
        /// JSON objects: values by key.
        Labels(serde_json::Map<String, serde_json::Value>) as "labels",
    }
}
