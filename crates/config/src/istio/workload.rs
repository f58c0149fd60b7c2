//! What can a WorkloadEntry and a WorkloadGroup say? Their fields as Istio's API has them
//! (`networking.istio.io/v1`, WorkloadEntry and WorkloadGroup).

use std::collections::BTreeMap;

use crate::decode::{message, oneof};

message! {
    /// A workload that is no Pod.
    pub struct WorkloadEntry {
        /// IP address, DNS name, or `unix://` and a path.
        address: Option<String>,
        /// Ports by name.
        ports: BTreeMap<String, u32>,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Network that its address belongs to.
        network: Option<String>,
        /// `region/zone/sub-zone`.
        locality: Option<String>,
        /// Share of the requests, relative to its neighbours; 0 is the same as none, 1.
        weight: Option<u32>,
        /// Service account of its certificate.
        service_account: Option<String>,
    }

    /// A choice of workloads by label.
    pub struct WorkloadSelector {
        /// Labels that all have to be there.
        labels: BTreeMap<String, String>,
    }

    /// What the workloads have in common that register themselves.
    pub struct WorkloadGroup {
        /// Labels and annotations of the WorkloadEntries.
        metadata: Option<WorkloadGroupMetadata>,
        /// What the WorkloadEntries say.
        template: Option<WorkloadEntry>,
        /// How their health is checked.
        probe: Option<ReadinessProbe>,
    }

    /// Labels and annotations of WorkloadEntries.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
    }

    /// How the health of a workload is checked.
    pub struct ReadinessProbe {
        /// Seconds before the first check.
        initial_delay_seconds: Option<i32>,
        /// Seconds for an answer. Absent: 1.
        timeout_seconds: Option<i32>,
        /// Seconds between checks. Absent: 10.
        period_seconds: Option<i32>,
        /// Number of good answers that make it healthy. Absent: 1.
        success_threshold: Option<i32>,
        /// Number of bad answers that make it unhealthy. Absent: 3.
        failure_threshold: Option<i32>,
        ;oneof {
            /// What is checked.
            method: HealthCheckMethod,
        }
    }

    /// An HTTP request that has to be answered.
    pub struct HttpHealthCheckConfig {
        /// Path.
        path: Option<String>,
        /// Port.
        port: u32,
        /// Host header and address. Absent: the workload itself.
        host: Option<String>,
        /// `HTTP` or `HTTPS`.
        scheme: Option<String>,
        /// Further headers.
        http_headers: Vec<HttpHeader>,
    }

    /// A header.
    pub struct HttpHeader {
        /// Name.
        name: Option<String>,
        /// Value.
        value: Option<String>,
    }

    /// A connection that has to be accepted.
    pub struct TcpHealthCheckConfig {
        /// Address. Absent: the workload itself.
        host: Option<String>,
        /// Port.
        port: u32,
    }

    /// A command that has to succeed.
    pub struct ExecHealthCheckConfig {
        /// The command and its arguments.
        command: Vec<String>,
    }

    /// A gRPC health check that has to be answered.
    pub struct GrpcHealthCheckConfig {
        /// Port.
        port: u32,
        /// Service to ask for.
        service: Option<String>,
    }
}

oneof! {
    /// What a readiness probe checks.
    pub enum HealthCheckMethod {
        /// An HTTP request.
        HttpGet(HttpHealthCheckConfig) as "http_get",
        /// A connection.
        TcpSocket(TcpHealthCheckConfig) as "tcp_socket",
        /// A command.
        Exec(ExecHealthCheckConfig) as "exec",
        /// A gRPC health check.
        Grpc(GrpcHealthCheckConfig) as "grpc",
    }
}
