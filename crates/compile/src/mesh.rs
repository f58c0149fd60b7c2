//! What holds for the whole mesh? The settings of Istio's `MeshConfig` that change what is compiled, with
//! Istio's defaults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_config::{
    DefaultProviders, Diagnostic, EnvoyFileAccessLogProvider, ExtensionProvider, ExtensionProviderKind,
    GatewayTopology, HttpRetry, InboundTrafficPolicyMode, IngressControllerMode, LocalityLbSetting, MeshConfig,
    MeshH2UpgradePolicy, MeshTls, NormalizationType, Object, OutboundTrafficPolicyMode, Position, PrometheusProvider,
    ProxyHeaders, ProxyTracing, RemoteService, TcpKeepalive, TrafficPolicy, mesh_of_config_map,
};

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
    /// What the provider `envoy` writes where a Telemetry names it: lines in the format of the mesh.
    pub built_in_access_log: AccessLog,
    /// Whether `access_log` is the last word, whatever Telemetry objects say: the command line's.
    pub access_log_is_final: bool,
    /// Whether connections that no filter chain takes are logged too.
    pub log_refused_connections: bool,
    /// Service that takes access logs over gRPC (`enableEnvoyAccessLogService`, `defaultConfig.envoyAccessLogService`).
    pub access_log_service: Option<RemoteService>,
    /// Services for logs, traces and metrics that Telemetry objects name; the built-in ones are among them.
    pub providers: Vec<ExtensionProvider>,
    /// Which of them are used where no Telemetry says.
    pub default_providers: DefaultProviders,
    /// Whether requests are traced where no Telemetry says (`enableTracing`).
    pub tracing_enabled: bool,
    /// Where traces go in that case, and what holds for all traces (`defaultConfig.tracing`).
    pub tracing: Option<ProxyTracing>,
    /// Headers that proxies add (`defaultConfig.proxyHeaders`).
    pub proxy_headers: ProxyHeaders,
    /// What stands in front of gateways (`defaultConfig.gatewayTopology`).
    pub gateway_topology: GatewayTopology,
    /// Time to establish an upstream connection, unless a DestinationRule says otherwise.
    pub connect_timeout: Duration,
    /// Probes on idle upstream connections; a DestinationRule replaces single fields.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Retries of rules that say nothing about them; Istio's built-in policy when absent.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Retries of requests to workloads: number, conditions and back-off; Istio's built-in policy when absent.
    pub default_inbound_http_retry_policy: Option<HttpRetry>,
    /// Connection pool and outlier detection of hosts whose rules have no such block.
    pub default_traffic_policy: Option<TrafficPolicy>,
    /// How often names of DNS clusters are resolved again when their records name no time to live.
    pub dns_refresh_rate: Duration,
    /// How long a listener waits for bytes that tell the protocol; zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// Whether plain HTTP services get HTTP/2 connections (`h2UpgradePolicy: UPGRADE`).
    pub h2_upgrade: bool,
    /// Normalisation of request paths before routing.
    pub path_normalization: PathNormalization,
    /// Port of `virtualOutbound`.
    pub outbound_port: u16,
    /// Port of `virtualInbound`.
    pub inbound_port: u16,
    /// Port on which redirected sidecars are an HTTP proxy too (`proxyHttpPort`).
    pub http_proxy_port: Option<u16>,
    /// Whether requests to a workload are sent on to the loopback address (`inboundTrafficPolicy: LOCALHOST`) rather
    /// than to the address that they were sent to.
    pub inbound_to_loopback: bool,
    /// Whether mutual TLS is used wherever both sides can, without a DestinationRule that asks for it.
    pub auto_mtls: bool,
    /// Trust domain of the mesh's certificates, then further ones that are trusted.
    pub trust_domains: Vec<String>,
    /// Bounds of TLS between workloads of the mesh.
    pub mesh_tls: MeshTls,
    /// Bounds of TLS to and from other parties.
    pub tls_defaults: MeshTls,
    /// Class of Ingress objects that are served.
    pub ingress_class: String,
    /// Which Ingress objects are served.
    pub ingress_controller_mode: IngressControllerMode,
    /// Labels of the gateway that serves them.
    pub ingress_selector: BTreeMap<String, String>,
    /// Preference for near workloads of services that say nothing else.
    pub locality_lb_setting: LocalityLbSetting,
    /// Visibility of Services and ServiceEntries that name none.
    pub default_service_export_to: Vec<String>,
    /// Visibility of VirtualServices that name none.
    pub default_virtual_service_export_to: Vec<String>,
    /// Visibility of DestinationRules that name none.
    pub default_destination_rule_export_to: Vec<String>,
    /// Settings that are given and have no effect here, by their names.
    pub not_carried_out: Vec<&'static str>,
}

/// What happens to requests for hosts that no Service, ServiceEntry or VirtualService names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundTrafficPolicy {
    /// They are forwarded to where the client wanted to go.
    AllowAny,
    /// They are answered 502 (HTTP) or reset (TCP).
    RegistryOnly,
    /// The host that an HTTP request names is resolved; bytes are forwarded to where the client wanted to go.
    AllowAnyDynamicDns,
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

/// Namespace and name of the ConfigMap in which Istio keeps the settings of the mesh.
const CONFIG_MAP: (&str, &str) = ("istio-system", "istio");

impl Mesh {
    /// The settings of ConfigMap `istio` in namespace `istio-system`, key `mesh`; Istio's defaults without one, or
    /// when it cannot be read. The problems are those of reading it.
    pub fn from_objects(objects: &[Arc<Object>]) -> (Mesh, Vec<Diagnostic>) {
        let found = objects
            .iter()
            .filter(|object| (&*object.metadata.namespace, &*object.metadata.name) == CONFIG_MAP)
            .find_map(|object| mesh_of_config_map(object));
        let (config, diagnostics) = found.unwrap_or_default();
        (config.map(|config| Mesh::from_config(&config)).unwrap_or_default(), diagnostics)
    }

    /// The settings that a MeshConfig holds.
    pub fn from_config(config: &MeshConfig) -> Mesh {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let log = |file: String| AccessLog {
            file,
            format: text(&config.access_log_format),
            encoding: match config.access_log_encoding {
                lateen_config::AccessLogEncoding::Text => AccessLogEncoding::Text,
                lateen_config::AccessLogEncoding::Json => AccessLogEncoding::Json,
            },
        };
        Mesh {
            root_namespace: config.root_namespace.as_str().into(),
            cluster_domain: CLUSTER_DOMAIN.into(),
            outbound_traffic_policy: match config.outbound_traffic_policy.mode {
                OutboundTrafficPolicyMode::RegistryOnly => OutboundTrafficPolicy::RegistryOnly,
                OutboundTrafficPolicyMode::AllowAny => OutboundTrafficPolicy::AllowAny,
                OutboundTrafficPolicyMode::AllowAnyDynamicDns => OutboundTrafficPolicy::AllowAnyDynamicDns,
            },
            access_log: text(&config.access_log_file).map(log),
            built_in_access_log: log(STANDARD_OUTPUT.to_owned()),
            access_log_is_final: false,
            log_refused_connections: !config.disable_envoy_listener_log,
            access_log_service: config
                .enable_envoy_access_log_service
                .then(|| config.default_config.envoy_access_log_service.clone().unwrap_or_default()),
            providers: providers(&config.extension_providers),
            default_providers: config.default_providers.clone().unwrap_or_else(|| DefaultProviders {
                // What Istio is installed with.
                metrics: vec![PROMETHEUS.to_owned()],
                ..DefaultProviders::default()
            }),
            tracing_enabled: config.enable_tracing,
            tracing: config.default_config.tracing.clone(),
            proxy_headers: config.default_config.proxy_headers.clone(),
            gateway_topology: config.default_config.gateway_topology.clone(),
            connect_timeout: config.connect_timeout,
            tcp_keepalive: config.tcp_keepalive.clone(),
            default_http_retry_policy: config.default_http_retry_policy.clone(),
            default_inbound_http_retry_policy: config.default_inbound_http_retry_policy.clone(),
            default_traffic_policy: config.default_traffic_policy.clone(),
            dns_refresh_rate: config.dns_refresh_rate,
            protocol_detection_timeout: config.protocol_detection_timeout,
            h2_upgrade: config.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade,
            path_normalization: match config.path_normalization.normalization {
                NormalizationType::None => PathNormalization::None,
                NormalizationType::Default | NormalizationType::Base => PathNormalization::Base,
                NormalizationType::MergeSlashes => PathNormalization::MergeSlashes,
                NormalizationType::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
            },
            outbound_port: u16::try_from(config.proxy_listen_port).unwrap_or(DEFAULT_OUTBOUND_PORT),
            inbound_port: u16::try_from(config.proxy_inbound_listen_port).unwrap_or(DEFAULT_INBOUND_PORT),
            http_proxy_port: u16::try_from(config.proxy_http_port).ok().filter(|port| *port != 0),
            inbound_to_loopback: config.inbound_traffic_policy.mode == InboundTrafficPolicyMode::Localhost,
            auto_mtls: config.enable_auto_mtls,
            trust_domains: std::iter::once(&config.trust_domain)
                .chain(&config.trust_domain_aliases)
                .filter(|domain| !domain.is_empty())
                .cloned()
                .collect(),
            mesh_tls: config.mesh_mtls.clone(),
            tls_defaults: config.tls_defaults.clone(),
            ingress_class: config.ingress_class.clone(),
            ingress_controller_mode: config.ingress_controller_mode,
            ingress_selector: BTreeMap::from([("istio".to_owned(), ingress_gateway(config).to_owned())]),
            locality_lb_setting: config.locality_lb_setting.clone(),
            default_service_export_to: config.default_service_export_to.clone(),
            default_virtual_service_export_to: config.default_virtual_service_export_to.clone(),
            default_destination_rule_export_to: config.default_destination_rule_export_to.clone(),
            not_carried_out: not_carried_out(config),
        }
    }

    /// Writes the access log to another file, in the format that is set.
    pub fn set_access_log_file(&mut self, file: &str) {
        match &mut self.access_log {
            Some(log) => file.clone_into(&mut log.file),
            None => self.access_log = Some(AccessLog::text(file)),
        }
    }

    /// Writes the access log to a file, or nowhere, whatever Telemetry objects say.
    pub fn override_access_log(&mut self, file: Option<&str>) {
        match file {
            Some(file) => self.set_access_log_file(file),
            None => self.access_log = None,
        }
        self.access_log_is_final = true;
    }

    /// The service with a name; letters count the same in either case.
    pub(crate) fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
    }
}

fn not_carried_out(config: &MeshConfig) -> Vec<&'static str> {
    let settings = [
        ("inboundClusterStatName", !config.inbound_cluster_stat_name.is_empty()),
        ("outboundClusterStatName", !config.outbound_cluster_stat_name.is_empty()),
        ("serviceEntryVisibility", config.service_entry_visibility.is_some()),
    ];
    settings.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
}

/// Name of the provider that writes a file in the format of the mesh.
pub(crate) const BUILT_IN_LOG: &str = "envoy";

/// Where the built-in provider writes.
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// Name of the provider of Istio's own metrics.
const PROMETHEUS: &str = "prometheus";

/// The services of the mesh, and the built-in ones that it does not describe in its own way.
fn providers(own: &[ExtensionProvider]) -> Vec<ExtensionProvider> {
    let file = EnvoyFileAccessLogProvider { path: STANDARD_OUTPUT.to_owned(), ..EnvoyFileAccessLogProvider::default() };
    let built_in = [
        (PROMETHEUS, ExtensionProviderKind::Prometheus(PrometheusProvider::default())),
        ("stackdriver", ExtensionProviderKind::Stackdriver(serde_json::Map::new())),
        (BUILT_IN_LOG, ExtensionProviderKind::EnvoyFileAccessLog(file)),
    ];
    let mut providers = own.to_vec();
    for (name, kind) in built_in {
        if !own.iter().any(|provider| provider.name.eq_ignore_ascii_case(name)) {
            let provider = Some(kind);
            providers.push(ExtensionProvider { at: Position::UNKNOWN, name: name.to_owned(), provider });
        }
    }
    providers
}

/// Value of the label `istio` of the gateway that serves Ingress objects.
fn ingress_gateway(config: &MeshConfig) -> &str {
    match (config.ingress_selector.as_str(), config.ingress_service.as_str()) {
        ("", "istio-ingressgateway") => "ingressgateway",
        ("", service) => service,
        (selector, _) => selector,
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh::from_config(&MeshConfig::default())
    }
}

/// Domain of Kubernetes service names; no field of the MeshConfig.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Port of `virtualOutbound` where the configured one is none.
const DEFAULT_OUTBOUND_PORT: u16 = 15001;

/// Port of `virtualInbound` where the configured one is none.
const DEFAULT_INBOUND_PORT: u16 = 15006;

#[cfg(test)]
mod tests {
    use lateen_config::{SourceFile, parse};

    use super::*;

    fn objects(text: &str) -> Vec<Arc<Object>> {
        parse(&SourceFile::new("mesh.yaml", text)).objects.into_iter().map(Arc::new).collect()
    }

    #[test]
    fn settings_come_from_istios_config_map_alone() {
        let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: other}
data: {mesh: 'rootNamespace: wrong'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    accessLogFile: /dev/stdout
    accessLogEncoding: JSON
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
    connectTimeout: 3s
    pathNormalization: {normalization: MERGE_SLASHES}
    defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}
";
        let (mesh, diagnostics) = Mesh::from_objects(&objects(text));
        assert_eq!(diagnostics, []);
        assert_eq!(&*mesh.root_namespace, "istio-system");
        assert_eq!(
            mesh.access_log.map(|log| (log.file, log.encoding)),
            Some(("/dev/stdout".into(), AccessLogEncoding::Json))
        );
        assert_eq!(mesh.outbound_traffic_policy, OutboundTrafficPolicy::RegistryOnly);
        assert_eq!(mesh.connect_timeout, Duration::from_secs(3));
        assert_eq!(mesh.path_normalization, PathNormalization::MergeSlashes);
        assert_eq!(mesh.gateway_topology.num_trusted_proxies, 2);
    }

    #[test]
    fn settings_that_cannot_be_read_are_istios_defaults_and_said() {
        let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'connectTimeout: soon'}
";
        let (mesh, diagnostics) = Mesh::from_objects(&objects(text));
        assert_eq!(mesh, Mesh::default());
        assert_eq!(diagnostics.len(), 1);
    }
}
