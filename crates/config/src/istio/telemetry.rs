//! What can a Telemetry say? Its fields as Istio's API has them (`telemetry.istio.io/v1`, Telemetry).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::{enumeration, message, oneof};
use crate::istio::destination_rule::MatchLabelsSelector;
use crate::istio::envoy_filter::PolicyTargetReference;

message! {
    /// What is traced, counted and logged of the traffic of some workloads.
    pub struct Telemetry {
        /// The workloads. Absent: all of the namespace, or of the mesh if it is the root namespace.
        selector: Option<MatchLabelsSelector>,
        /// The object that it is for, in place of workloads. Deprecated: `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        /// The objects that it is for, in place of workloads.
        target_refs: Vec<PolicyTargetReference>,
        /// Traces.
        tracing: Vec<Tracing>,
        /// Metrics.
        metrics: Vec<Metrics>,
        /// Access logs.
        access_logging: Vec<AccessLogging>,
    }

    /// A provider, by the name that the mesh has for it.
    pub struct ProviderRef {
        /// Name in `extensionProviders` of the mesh.
        name: String = String::new(),
    }

    /// Traces.
    pub struct Tracing {
        /// For which side.
        r#match: Option<TracingSelector>,
        /// Where they go. Empty: as the wider Telemetry or the mesh says.
        providers: Vec<ProviderRef>,
        /// Share of requests that are traced, from 0 to 100.
        random_sampling_percentage: Option<f64>,
        /// Whether nothing is reported; the decision of clients is passed on all the same.
        disable_span_reporting: Option<bool>,
        /// Further tags by name.
        custom_tags: BTreeMap<String, CustomTag>,
        /// Whether the request id takes part in the decision to trace.
        use_request_id_for_trace_sampling: Option<bool>,
        /// Whether spans have Istio's own tags.
        enable_istio_tags: Option<bool>,
        /// Whether the headers of traces are not passed on.
        disable_context_propagation: Option<bool>,
    }

    /// Which traces.
    pub struct TracingSelector {
        /// For which side.
        mode: WorkloadMode,
    }

    /// A tag of a trace.
    pub struct CustomTag {
        ;oneof {
            /// Where its value comes from.
            source: CustomTagSource,
        }
    }

    /// A value that is always the same.
    pub struct LiteralTag {
        /// The value.
        value: String = String::new(),
    }

    /// A value of the proxy's environment.
    pub struct EnvironmentTag {
        /// Name of the variable.
        name: String = String::new(),
        /// Value if there is no such variable.
        default_value: Option<String>,
    }

    /// A value of the request's headers.
    pub struct HeaderTag {
        /// Name of the header.
        name: String = String::new(),
        /// Value if there is no such header.
        default_value: Option<String>,
    }

    /// A value in the format of access logs.
    pub struct FormatterTag {
        /// The format.
        value: String = String::new(),
    }

    /// Metrics.
    pub struct Metrics {
        /// Where they go. Empty: as the wider Telemetry or the mesh says.
        providers: Vec<ProviderRef>,
        /// What is different from Istio's own metrics; the last that fits counts.
        overrides: Vec<MetricsOverrides>,
        /// Time between reports, where the provider has reports.
        reporting_interval: Option<Duration>,
    }

    /// What is different for some metrics.
    pub struct MetricsOverrides {
        /// Which metrics. Absent: all.
        r#match: Option<MetricSelector>,
        /// Whether they are not counted.
        disabled: Option<bool>,
        /// What is different about their labels, by name.
        tag_overrides: BTreeMap<String, TagOverride>,
    }

    /// Which metrics.
    pub struct MetricSelector {
        /// For which side.
        mode: WorkloadMode,
        ;oneof {
            /// Which ones. Absent: all.
            metric_match: MetricMatch,
        }
    }

    /// What is different about a label.
    pub struct TagOverride {
        /// What is done to it.
        operation: TagOperation,
        /// An expression in CEL, the new value.
        value: Option<String>,
    }

    /// Access logs.
    pub struct AccessLogging {
        /// For which side.
        r#match: Option<LogSelector>,
        /// Where they go. Empty: as the wider Telemetry or the mesh says.
        providers: Vec<ProviderRef>,
        /// Whether nothing is logged.
        disabled: Option<bool>,
        /// Which requests are logged. Absent: all.
        filter: Option<AccessLogFilter>,
    }

    /// Which access logs.
    pub struct LogSelector {
        /// For which side.
        mode: WorkloadMode,
    }

    /// Which requests are logged.
    pub struct AccessLogFilter {
        /// An expression in CEL that has to be true.
        expression: String = String::new(),
    }
}

oneof! {
    /// Where the value of a tag comes from.
    pub enum CustomTagSource {
        /// It is always the same.
        Literal(LiteralTag) as "literal",
        /// From the environment of the proxy.
        Environment(EnvironmentTag) as "environment",
        /// From a header of the request.
        Header(HeaderTag) as "header",
        /// From a format as that of access logs.
        Formatter(FormatterTag) as "formatter",
    }

    /// Which metrics.
    pub enum MetricMatch {
        /// One of Istio's own.
        Metric(IstioMetric) as "metric",
        /// One of the proxy, by name.
        CustomMetric(String) as "custom_metric",
    }
}

enumeration! {
    /// The side of a connection that a workload is on.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = 0 "CLIENT_AND_SERVER",
        /// That of the client; gateways too.
        Client = 1 "CLIENT",
        /// That of the server.
        Server = 2 "SERVER",
    }

    /// One of Istio's own metrics.
    pub enum IstioMetric {
        /// All of them.
        AllMetrics = 0 "ALL_METRICS",
        /// `istio_requests_total`.
        RequestCount = 1 "REQUEST_COUNT",
        /// `istio_request_duration_milliseconds`.
        RequestDuration = 2 "REQUEST_DURATION",
        /// `istio_request_bytes`.
        RequestSize = 3 "REQUEST_SIZE",
        /// `istio_response_bytes`.
        ResponseSize = 4 "RESPONSE_SIZE",
        /// `istio_tcp_connections_opened_total`.
        TcpOpenedConnections = 5 "TCP_OPENED_CONNECTIONS",
        /// `istio_tcp_connections_closed_total`.
        TcpClosedConnections = 6 "TCP_CLOSED_CONNECTIONS",
        /// `istio_tcp_sent_bytes_total`.
        TcpSentBytes = 7 "TCP_SENT_BYTES",
        /// `istio_tcp_received_bytes_total`.
        TcpReceivedBytes = 8 "TCP_RECEIVED_BYTES",
        /// `istio_request_messages_total`.
        GrpcRequestMessages = 9 "GRPC_REQUEST_MESSAGES",
        /// `istio_response_messages_total`.
        GrpcResponseMessages = 10 "GRPC_RESPONSE_MESSAGES",
    }

    /// What is done to a label.
    pub enum TagOperation {
        /// It gets a value.
        Upsert = 0 "UPSERT",
        /// It is left out.
        Remove = 1 "REMOVE",
    }
}
