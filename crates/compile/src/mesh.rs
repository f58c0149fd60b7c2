//! What holds for the whole mesh? The settings of Istio's `MeshConfig` that change what is compiled, with
//! Istio's defaults.

use std::sync::Arc;
use std::time::Duration;

/// Mesh-wide settings. `Mesh::default()` is what Istio does when nothing is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// Namespace whose policies hold for all namespaces (`rootNamespace`).
    pub root_namespace: Arc<str>,
    /// Domain of Kubernetes service names.
    pub cluster_domain: Arc<str>,
    /// What happens to requests for unknown hosts (`outboundTrafficPolicy.mode`).
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Access log of all listeners; `None` writes none (`accessLogFile` empty).
    pub access_log: Option<AccessLog>,
    /// Time to establish an upstream connection, unless a DestinationRule says otherwise.
    pub connect_timeout: Duration,
    /// How often names of DNS clusters are resolved again when their records name no time to live.
    pub dns_refresh_rate: Duration,
    /// How long a listener waits for bytes that tell the protocol; zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// Whether plain HTTP services get HTTP/2 connections (`h2UpgradePolicy: UPGRADE`).
    pub h2_upgrade: bool,
    /// Trusted proxies in front of the gateways (`gatewayTopology.numTrustedProxies`).
    pub trusted_proxies: u32,
    /// Normalisation of request paths before routing.
    pub path_normalization: PathNormalization,
    /// Port of `virtualOutbound`.
    pub outbound_port: u16,
    /// Visibility of Services and ServiceEntries that name none.
    pub default_service_export_to: Vec<String>,
    /// Visibility of VirtualServices that name none.
    pub default_virtual_service_export_to: Vec<String>,
    /// Visibility of DestinationRules that name none.
    pub default_destination_rule_export_to: Vec<String>,
}

/// What happens to requests for hosts that no Service, ServiceEntry or VirtualService names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundTrafficPolicy {
    /// They are forwarded to where the client wanted to go.
    AllowAny,
    /// They are answered 502 (HTTP) or reset (TCP).
    RegistryOnly,
}

/// One access log, written for every request and connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Path that the data plane opens, for example `/dev/stdout`.
    pub file: String,
    /// Text with Envoy's command operators, or a JSON object of them; `None` is Istio's default.
    pub format: Option<String>,
    /// Lines of text or JSON objects.
    pub encoding: AccessLogEncoding,
}

/// Form of an access-log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogEncoding {
    /// Text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How request paths are normalised before routing (`pathNormalization.normalization`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathNormalization {
    /// Not at all.
    None,
    /// RFC 3986: dot segments, percent-encoding of unreserved characters, backslashes.
    Base,
    /// `Base`, and repeated slashes become one.
    MergeSlashes,
    /// `MergeSlashes` after decoding `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

impl AccessLog {
    /// Istio's default text line, written to `file`.
    pub fn text(file: impl Into<String>) -> AccessLog {
        AccessLog { file: file.into(), format: None, encoding: AccessLogEncoding::Text }
    }
}

impl Mesh {
    /// The settings of ConfigMap `istio` in the root namespace, key `mesh`; Istio's defaults without one.
    pub fn from_objects(_objects: &[Arc<lateen_config::Object>]) -> (Mesh, Vec<lateen_config::Diagnostic>) {
        (Mesh::default(), Vec::new())
    }

    /// Writes the access log to another file, in the format that is set.
    pub fn set_access_log_file(&mut self, file: &str) {
        match &mut self.access_log {
            Some(log) => file.clone_into(&mut log.file),
            None => self.access_log = Some(AccessLog::text(file)),
        }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        let everywhere = || vec!["*".to_owned()];
        Mesh {
            root_namespace: "istio-system".into(),
            cluster_domain: "cluster.local".into(),
            outbound_traffic_policy: OutboundTrafficPolicy::AllowAny,
            access_log: None,
            connect_timeout: Duration::from_secs(10),
            dns_refresh_rate: Duration::from_secs(60),
            protocol_detection_timeout: Duration::ZERO,
            h2_upgrade: false,
            trusted_proxies: 0,
            path_normalization: PathNormalization::Base,
            outbound_port: 15001,
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
        }
    }
}
