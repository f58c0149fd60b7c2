//! What holds for the whole mesh? The fields of Istio's `MeshConfig`, with Istio's defaults.

mod providers;
mod proxy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::{Decode, Decoder, UnknownFields, enumeration, message};
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::istio::destination_rule::{LocalityLbSetting, TcpKeepalive, TrafficPolicy, ZoneAwareLbSetting};
use crate::istio::gateway::TlsProtocol;
use crate::istio::sidecar::OutboundTrafficPolicyMode;
use crate::istio::virtual_service::HttpRetry;
use crate::load::diagnostic_of;
use crate::object::{Object, Spec};
use crate::position::{Location, Position, SourceFile};
use crate::yaml;

pub use providers::*;
pub use proxy::*;

message! {
    /// What holds for the whole mesh. `MeshConfig::default()` is what holds when nothing is configured.
    pub struct MeshConfig {
        /// Port of sidecars that takes what their workloads send.
        proxy_listen_port: u32 = 15001,
        /// Port of sidecars that takes what is sent to their workloads.
        proxy_inbound_listen_port: u32 = 15006,
        /// Port of sidecars that is an HTTP proxy; 0 is none.
        proxy_http_port: u32 = 0,
        /// Time to establish a connection.
        connect_timeout: Duration = Duration::from_secs(10),
        /// How long a listener waits for the first bytes; zero waits for ever.
        protocol_detection_timeout: Duration = Duration::ZERO,
        /// Probes on idle connections.
        tcp_keepalive: Option<TcpKeepalive>,
        /// File of the access log; empty writes none.
        access_log_file: String = String::new(),
        /// Format of its lines; empty is Istio's.
        access_log_format: String = String::new(),
        /// Form of its lines.
        access_log_encoding: AccessLogEncoding,
        /// Whether access logs go to a gRPC service.
        enable_envoy_access_log_service: bool,
        /// Whether connections that no filter chain takes are not logged.
        disable_envoy_listener_log: bool,
        /// What holds for proxies that say nothing else.
        default_config: ProxyConfig = ProxyConfig::default(),
        /// What happens to requests for unknown hosts.
        outbound_traffic_policy: MeshOutboundTrafficPolicy = MeshOutboundTrafficPolicy::forward(),
        /// Where requests to workloads are sent on to.
        inbound_traffic_policy: MeshInboundTrafficPolicy = MeshInboundTrafficPolicy::default(),
        /// Whether mutual TLS is used wherever both sides can.
        enable_auto_mtls: bool = true,
        /// Trust domain of the mesh's certificates.
        trust_domain: String = "cluster.local".to_owned(),
        /// Further trust domains that are trusted.
        trust_domain_aliases: Vec<String>,
        /// Who sees Services and ServiceEntries that do not say.
        default_service_export_to: Vec<String> = vec!["*".to_owned()],
        /// Who sees VirtualServices that do not say.
        default_virtual_service_export_to: Vec<String> = vec!["*".to_owned()],
        /// Who sees DestinationRules that do not say.
        default_destination_rule_export_to: Vec<String> = vec!["*".to_owned()],
        /// Namespace whose policies hold for all namespaces.
        root_namespace: String = "istio-system".to_owned(),
        /// Preference for near workloads.
        locality_lb_setting: LocalityLbSetting =
            LocalityLbSetting { enabled: Some(true), ..LocalityLbSetting::default() },
        /// How often names are looked up again that do not say.
        dns_refresh_rate: Duration = Duration::from_secs(60),
        /// Whether plain HTTP services get HTTP/2 connections.
        h2_upgrade_policy: MeshH2UpgradePolicy,
        /// Pattern of the statistics' names of clusters to workloads; empty is the cluster's name.
        inbound_cluster_stat_name: String = String::new(),
        /// Pattern of the statistics' names of clusters from workloads; empty is the cluster's name.
        outbound_cluster_stat_name: String = String::new(),
        /// What is done to request paths before routing.
        path_normalization: PathNormalization = PathNormalization::default(),
        /// Retries of routes that do not say.
        default_http_retry_policy: Option<HttpRetry>,
        /// Retries of proxies in front of workloads: number, conditions and back-off.
        default_inbound_http_retry_policy: Option<HttpRetry>,
        /// Policies of hosts that do not say: connection pool and outlier detection.
        default_traffic_policy: Option<TrafficPolicy>,
        /// TLS between workloads of the mesh.
        mesh_mtls as "meshMTLS": MeshTls = MeshTls::default(),
        /// TLS to and from other parties.
        tls_defaults: MeshTls = MeshTls::default(),
        /// Whether requests are traced.
        enable_tracing: bool = true,
        /// Whether proxies show the metrics of their workloads too.
        enable_prometheus_merge: bool = true,
        /// Class of Ingress objects that are served.
        ingress_class: String = "istio".to_owned(),
        /// Service of the gateway that serves them.
        ingress_service: String = "istio-ingressgateway".to_owned(),
        /// Label of the gateway that serves them; empty is that of the Service.
        ingress_selector: String = String::new(),
        /// Which Ingress objects are served.
        ingress_controller_mode: IngressControllerMode,
        /// Services for tracing, logs and authorisation, by name.
        extension_providers: Vec<ExtensionProvider>,
        /// Which of them are used by those that do not say.
        default_providers: Option<DefaultProviders>,
        /// Namespaces that belong to the mesh; empty is all.
        discovery_selectors: Vec<DiscoverySelector>,
        /// Preference for workloads of the same zone, decided by the proxy.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Hosts that are not shared between clusters. Not looked at: there is one.
        service_settings: Option<serde_json::Value>,
        /// Not looked at: another program hands out certificates.
        ca: Option<serde_json::Value>,
        /// Not looked at: another program hands out certificates.
        ca_certificates: Option<serde_json::Value>,
        /// Not looked at: another program hands out certificates.
        certificates: Option<serde_json::Value>,
        /// Not looked at: the command line says where configuration comes from.
        config_sources: Option<serde_json::Value>,
        /// Not looked at: Thrift is plain TCP here.
        thrift_config: Option<serde_json::Value>,
        /// Not looked at: certificates of servers are always checked.
        verify_certificate_at_client: Option<serde_json::Value>,
        /// Not looked at.
        service_scope_configs: Option<serde_json::Value>,
        /// Who sees ServiceEntries beyond what they say. Not looked at.
        service_entry_visibility: Option<serde_json::Value>,
    }

    /// What happens to requests for unknown hosts.
    pub struct MeshOutboundTrafficPolicy {
        /// What happens. Absent here is not the same as an absent policy.
        mode: OutboundTrafficPolicyMode,
    }

    /// Where requests to workloads are sent on to.
    pub struct MeshInboundTrafficPolicy {
        /// Where.
        mode: InboundTrafficPolicyMode,
    }

    /// A choice of namespaces by label.
    pub struct DiscoverySelector {
        /// Labels that all have to be there.
        match_labels: BTreeMap<String, String>,
        /// Further conditions on labels.
        match_expressions: Vec<LabelRequirement>,
    }

    /// A condition on a label.
    pub struct LabelRequirement {
        /// Key of the label.
        key: String = String::new(),
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        operator: LabelOperator,
        /// The values that `In` and `NotIn` speak of.
        values: Vec<String>,
    }

    /// What is done to request paths before routing.
    pub struct PathNormalization {
        /// What.
        normalization: NormalizationType,
    }

    /// Bounds of TLS.
    pub struct MeshTls {
        /// Lowest version.
        min_protocol_version: TlsProtocol,
        /// Ciphers up to TLS 1.2; empty is the proxy's choice.
        cipher_suites: Vec<String>,
        /// Curves; empty is the proxy's choice.
        ecdh_curves: Vec<String>,
    }
}

enumeration! {
    /// Form of access log lines.
    pub enum AccessLogEncoding {
        /// Text.
        Text = 0 "TEXT",
        /// JSON objects.
        Json = 1 "JSON",
    }

    /// How the value of a label is compared.
    pub enum LabelOperator {
        /// It is one of the values.
        In = 0 "In",
        /// It is none of the values, or the label is absent.
        NotIn = 1 "NotIn",
        /// The label is there.
        Exists = 2 "Exists",
        /// The label is absent.
        DoesNotExist = 3 "DoesNotExist",
    }

    /// Where requests to workloads are sent on to.
    pub enum InboundTrafficPolicyMode {
        /// To the address that they were sent to.
        Passthrough = 0 "PASSTHROUGH",
        /// To the loopback address.
        Localhost = 1 "LOCALHOST",
    }

    /// Whether plain HTTP services get HTTP/2 connections.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade = 0 "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = 1 "UPGRADE",
    }

    /// What is done to request paths before routing.
    pub enum NormalizationType {
        /// The same as `BASE`.
        Default = 0 "DEFAULT",
        /// Nothing.
        None = 1 "NONE",
        /// Dot segments are resolved (RFC 3986).
        Base = 2 "BASE",
        /// Repeated slashes become one, too.
        MergeSlashes = 3 "MERGE_SLASHES",
        /// Escaped slashes are decoded, too.
        DecodeAndMergeSlashes = 4 "DECODE_AND_MERGE_SLASHES",
    }

    /// Which Ingress objects are served.
    pub enum IngressControllerMode {
        /// Those of the class.
        Strict = 3 "STRICT",
        /// The same as `STRICT`.
        Unspecified = 0 "UNSPECIFIED",
        /// None.
        Off = 1 "OFF",
        /// Those of the class and those without one.
        Default = 2 "DEFAULT",
    }
}

impl MeshOutboundTrafficPolicy {
    fn forward() -> Self {
        MeshOutboundTrafficPolicy { at: Position::UNKNOWN, mode: OutboundTrafficPolicyMode::AllowAny }
    }
}

/// Reads a file that is a MeshConfig. Fields that it does not have are warned of: a newer Istio may have them. Without a
/// configuration, the file could not be read.
pub fn parse_mesh(file: &Arc<SourceFile>) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    let Some(document) = yaml::documents(&file.text).first().copied() else {
        return (Some(MeshConfig::default()), Vec::new());
    };
    let (root, problems) = yaml::parse(&file.text, document);
    let mut diagnostics: Vec<_> = problems.into_iter().map(|problem| diagnostic_of(file, problem)).collect();
    let is_sound = diagnostics.is_empty();
    let mesh = match root {
        Some(root) if root.is_null() => Some(MeshConfig::default()),
        Some(root) => {
            let mut cx = Decoder::new(Some(file), UnknownFields::Report);
            let mesh = MeshConfig::decode(&root, &mut cx);
            let found = diagnostics.len();
            diagnostics.extend(cx.into_diagnostics());
            for diagnostic in diagnostics[found..].iter_mut().filter(|found| found.code == code::UNKNOWN_FIELD) {
                diagnostic.severity = Severity::Warning;
            }
            if let Some(mesh) = &mesh {
                diagnostics.extend(crate::validate::validate_mesh(file, &root, mesh));
            }
            diagnostics.sort_by_key(|diagnostic| diagnostic.location.as_ref().map(|at| (at.line, at.column)));
            mesh
        }
        None => None,
    };
    (mesh.filter(|_| is_sound), diagnostics)
}

/// The MeshConfig in a ConfigMap, as Istio has it: under the key `mesh`. `None` when the object is something else.
pub fn mesh_of_config_map(object: &Object) -> Option<(Option<MeshConfig>, Vec<Diagnostic>)> {
    let Spec::ConfigMap(config_map) = &object.spec else {
        return None;
    };
    let text = config_map.data.get("mesh")?;
    let place = object.location("data.mesh");
    let path = object.source.path().cloned().unwrap_or_else(|| object.to_string().into());
    let (mesh, mut diagnostics) = parse_mesh(&SourceFile::new(path, text.as_str()));
    for diagnostic in &mut diagnostics {
        let inner = diagnostic.location.take();
        diagnostic.location = place.as_ref().and_then(|place| outer_location(object, text, place, inner));
        diagnostic.object = Some(object.subject());
    }
    Some((mesh, diagnostics))
}

/// A place in a block of text as a place in the file that holds the block. Other forms of text are only pointed at as
/// a whole.
fn outer_location(object: &Object, text: &str, block: &Location, inner: Option<Location>) -> Option<Location> {
    let file = object.source.file.as_ref()?;
    let own = |line: u32| text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?);
    // A block begins where its first line does, and every line of it stands in the file as it is.
    let translated = inner.and_then(|inner| {
        let line = block.line.checked_add(inner.line)?.checked_sub(1)?;
        let (outer, own) = (file.line(line)?, own(inner.line)?);
        let shift = outer.strip_suffix(own).filter(|indentation| indentation.bytes().all(|byte| byte == b' '))?;
        Some(Location { line, column: inner.column.checked_add(u32::try_from(shift.len()).ok()?)?, ..inner })
    });
    translated.or_else(|| Some(block.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configured_is_istios_default() {
        let (mesh, diagnostics) = parse_mesh(&SourceFile::new("mesh.yaml", ""));
        assert_eq!((mesh, diagnostics), (Some(MeshConfig::default()), vec![]));
        let mesh = MeshConfig::default();
        assert_eq!(mesh.outbound_traffic_policy.mode, OutboundTrafficPolicyMode::AllowAny);
        assert_eq!(mesh.connect_timeout, Duration::from_secs(10));
        assert_eq!(mesh.default_service_export_to, ["*"]);
        assert_eq!(mesh.ingress_controller_mode, IngressControllerMode::Strict);
    }

    #[test]
    fn settings_of_traffic_are_read() {
        let text = "\
accessLogFile: /dev/stdout
accessLogEncoding: JSON
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
rootNamespace: mesh
connectTimeout: 3s
enableAutoMtls: false
meshMTLS: {minProtocolVersion: TLSV1_3}
pathNormalization: {normalization: MERGE_SLASHES}
defaultHttpRetryPolicy: {attempts: 0}
localityLbSetting: {enabled: false}
caCertificates: [{of: no concern}]
defaultConfig:
  concurrency: 2
  gatewayTopology: {numTrustedProxies: 1, proxyProtocol: {}}
  proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}
";
        let (mesh, diagnostics) = parse_mesh(&SourceFile::new("mesh.yaml", text));
        assert_eq!(diagnostics, vec![]);
        let mesh = mesh.expect("a mesh");
        assert_eq!(mesh.access_log_encoding, AccessLogEncoding::Json);
        assert_eq!(mesh.outbound_traffic_policy.mode, OutboundTrafficPolicyMode::RegistryOnly);
        assert_eq!(mesh.root_namespace, "mesh");
        assert!(!mesh.enable_auto_mtls);
        assert_eq!(mesh.mesh_mtls.min_protocol_version, TlsProtocol::TlsV1_3);
        assert_eq!(mesh.default_http_retry_policy.map(|policy| policy.attempts), Some(0));
        assert_eq!(mesh.locality_lb_setting.enabled, Some(false));
        assert_eq!(mesh.default_config.gateway_topology.num_trusted_proxies, 1);
        assert!(mesh.default_config.gateway_topology.proxy_protocol.is_some());
        assert_eq!(mesh.default_config.drain_duration, Duration::from_secs(45));
    }

    #[test]
    fn an_error_in_a_config_map_is_found_in_its_file() {
        let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    defaultConfig:
      concurrency: two
    connectTimeout: 1s
";
        let parsed = crate::parse(&SourceFile::new("istio.yaml", text));
        let (mesh, diagnostics) = mesh_of_config_map(&parsed.objects[0]).expect("a MeshConfig");
        assert_eq!(mesh, None);
        let places: Vec<_> = diagnostics.iter().map(|d| d.location.as_ref().map(Location::to_string)).collect();
        assert_eq!(places, [Some("istio.yaml:7:20".to_owned())]);
    }
}
