//! What do Telemetry objects, and the settings of the mesh that they build on, ask for that is not there or not carried
//! out?

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_config::{
    Diagnostic, ExtensionProvider, ExtensionProviderKind, GatewayTopology, Object, ProviderHttpHeader, ProviderRef,
    ProxyHeaders, SourceFile, Telemetry, Tracer, parse_mesh,
};

use super::{Check, MESH_SETTING, NOT_COMPILED};
use crate::access_log;
use crate::host;
use crate::mesh::AccessLogEncoding;
use crate::provider;
use crate::tracing;

/// What a provider is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Logs,
    Traces,
    Metrics,
}

impl Use {
    fn is_served_by(self, provider: &ExtensionProvider) -> bool {
        match self {
            Use::Logs => access_log::is_target(provider),
            Use::Traces => tracing::is_target(provider),
            Use::Metrics => matches!(provider.provider, Some(ExtensionProviderKind::Prometheus(_))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Use::Logs => "access logs",
            Use::Traces => "traces",
            Use::Metrics => "metrics",
        }
    }
}

/// Settings of a proxy, in the annotations of its Pod.
const ANNOTATION: &str = "proxy.istio.io/config";

/// True when an object says something of its proxy.
pub(super) fn has_proxy_annotation(object: &Object) -> bool {
    object.metadata.annotations.contains_key(ANNOTATION)
}

impl Check<'_> {
    /// The mesh's own logs and traces, and the providers that hold where nobody says.
    pub(super) fn mesh_telemetry(&mut self) {
        let mesh = self.world.mesh();
        let log = mesh.access_log.as_ref().unwrap_or(&mesh.built_in_access_log);
        if let (AccessLogEncoding::Json, Some(format)) = (log.encoding, &log.format)
            && access_log::parse_json_format(format).is_none()
        {
            let finding =
                Diagnostic::warning(MESH_SETTING, "`accessLogFormat` is not a JSON object: Istio's default is used")
                    .help("with `accessLogEncoding: JSON` the format is one JSON object of keys and operators");
            self.findings.push(finding);
        }
        if let Some(service) = &mesh.access_log_service {
            if tracing::parse_address(&service.address).is_none() {
                let message =
                    "`enableEnvoyAccessLogService` is on, and no access log is sent: the service has no address";
                let help = "give `defaultConfig.envoyAccessLogService.address` as `host:port`";
                self.findings.push(Diagnostic::warning(MESH_SETTING, message).help(help));
            }
            for (field, is_given) in
                [("tlsSettings", service.tls_settings.is_some()), ("tcpKeepalive", service.tcp_keepalive.is_some())]
            {
                if is_given {
                    self.mesh_setting(&format!("defaultConfig.envoyAccessLogService.{field}"));
                }
            }
        }
        if let Some(traces) = mesh.tracing.as_ref().filter(|_| mesh.tracing_enabled) {
            if let Some(Tracer::Zipkin(zipkin)) = &traces.tracer
                && tracing::parse_address(&zipkin.address).is_none()
            {
                let message = format!("nothing is traced: `{}` is no address", zipkin.address);
                let help = "give `defaultConfig.tracing.zipkin.address` as `host:port`, without variables";
                self.findings.push(Diagnostic::warning(MESH_SETTING, message).help(help));
            }
            if traces.tls_settings.is_some() {
                self.mesh_setting("defaultConfig.tracing.tlsSettings");
            }
        }
        if mesh.proxy_headers.preserve_http1_header_case == Some(true) {
            let message = "`preserveHttp1HeaderCase` is carried out for requests alone: names of response headers are in \
                           lower case";
            self.findings.push(Diagnostic::warning(NOT_COMPILED, message));
        }
        let defaults = &mesh.default_providers;
        let defaults = [
            (&defaults.access_logging, Use::Logs),
            (&defaults.tracing, Use::Traces),
            (&defaults.metrics, Use::Metrics),
        ];
        for (names, purpose) in defaults {
            let found = names.iter().filter_map(|name| mesh.provider(name));
            let findings: Vec<Diagnostic> = found.flat_map(|provider| self.provider(provider, purpose)).collect();
            self.findings.extend(findings);
        }
    }

    pub(super) fn telemetry(&mut self, object: &Arc<Object>, spec: &Telemetry) {
        if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
            let field = if spec.target_ref.is_some() { "targetRef" } else { "targetRefs" };
            self.not_compiled(object, &format!("spec.{field}"), "a Telemetry for other objects than workloads is");
        }
        for (index, entry) in spec.access_logging.iter().enumerate() {
            self.providers(object, &format!("spec.accessLogging[{index}]"), &entry.providers, Use::Logs);
        }
        for (index, entry) in spec.tracing.iter().enumerate() {
            self.providers(object, &format!("spec.tracing[{index}]"), &entry.providers, Use::Traces);
        }
        for (index, entry) in spec.metrics.iter().enumerate() {
            let path = format!("spec.metrics[{index}]");
            self.providers(object, &path, &entry.providers, Use::Metrics);
            if !entry.overrides.is_empty() {
                let message = "overrides of metrics are carried out by Istio's build of Envoy alone";
                let help = "other proxies count Istio's metrics as they are";
                let finding = Diagnostic::warning(NOT_COMPILED, message).help(help);
                self.push(object, &format!("{path}.overrides"), finding);
            }
        }
    }

    /// What a proxy is told by its Pod, which only Istio's injection passes on.
    pub(super) fn proxy_annotation(
        &mut self,
        object: &Arc<Object>,
        path: &str,
        annotations: &BTreeMap<String, String>,
    ) {
        let Some(text) = annotations.get(ANNOTATION) else {
            return;
        };
        let lines: String = text.lines().map(|line| format!("\n  {line}")).collect();
        let (config, _) = parse_mesh(&SourceFile::new(ANNOTATION, format!("defaultConfig:{lines}")));
        let Some(config) = config.map(|config| config.default_config) else {
            return;
        };
        // Where it is written is no part of what it says.
        let has_headers =
            ProxyHeaders { at: ProxyHeaders::default().at, ..config.proxy_headers } != ProxyHeaders::default();
        let topology = GatewayTopology { at: GatewayTopology::default().at, ..config.gateway_topology };
        let blocks = [
            ("proxyHeaders", has_headers),
            ("gatewayTopology", topology != GatewayTopology::default()),
            ("tracing", config.tracing.is_some()),
        ];
        for (field, _) in blocks.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("`{field}` of single Pods is not compiled: that of the mesh holds for all");
            let finding = Diagnostic::warning(NOT_COMPILED, message);
            self.push(object, &format!("{path}[\"{ANNOTATION}\"]"), finding);
        }
    }

    fn providers(&mut self, object: &Arc<Object>, path: &str, providers: &[ProviderRef], purpose: Use) {
        let mesh = self.world.mesh();
        for (index, wanted) in providers.iter().enumerate() {
            let path = format!("{path}.providers[{index}].name");
            match mesh.provider(&wanted.name) {
                None => {
                    let known = mesh.providers.iter().map(|provider| provider.name.as_str());
                    let help = match host::closest(&wanted.name, known) {
                        Some(known) => format!("did you mean `{known}`?"),
                        None => "add it to `extensionProviders` of the mesh".to_owned(),
                    };
                    self.missing(
                        object,
                        &path,
                        format!("provider `{}` does not exist", wanted.name),
                        "the mesh has no provider with this name",
                        Some(help),
                    );
                }
                Some(provider) => {
                    for finding in self.provider(provider, purpose) {
                        self.push(object, &path, finding);
                    }
                }
            }
        }
    }

    /// What is wrong with a provider that is used, and which of its settings do nothing.
    fn provider(&self, provider: &ExtensionProvider, purpose: Use) -> Vec<Diagnostic> {
        let name = &provider.name;
        if !purpose.is_served_by(provider) {
            let message = format!("provider `{name}` takes no {} here: nothing goes there", purpose.name());
            return vec![Diagnostic::warning(NOT_COMPILED, message)];
        }
        let Some(kind) = &provider.provider else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        let mut settings: Vec<&str> = Vec::new();
        let named_by_environment = |headers: &[ProviderHttpHeader]| headers.iter().any(|header| header.value.is_none());
        let upstream = match kind {
            ExtensionProviderKind::EnvoyFileAccessLog(log) => {
                settings.extend(log.filters.is_some().then_some("filters"));
                None
            }
            ExtensionProviderKind::EnvoyHttpAls(als) => Some((&als.service, als.port)),
            ExtensionProviderKind::EnvoyTcpAls(als) => Some((&als.service, als.port)),
            ExtensionProviderKind::EnvoyOtelAls(als) => Some((&als.service, als.port)),
            ExtensionProviderKind::Zipkin(zipkin) => {
                settings.extend(named_by_environment(&zipkin.headers).then_some("headers[].envName"));
                Some((&zipkin.service, zipkin.port))
            }
            ExtensionProviderKind::Opentelemetry(tracer) => {
                let http = tracer.http.as_ref().is_some_and(|http| named_by_environment(&http.headers));
                let grpc = tracer.grpc.as_ref().is_some_and(|grpc| named_by_environment(&grpc.initial_metadata));
                settings.extend(http.then_some("http.headers[].envName"));
                settings.extend(grpc.then_some("grpc.initialMetadata[].envName"));
                settings.extend(tracer.dynatrace_sampler.is_some().then_some("dynatraceSampler"));
                settings.extend(tracer.service_attribute_enrichment.is_some().then_some("serviceAttributeEnrichment"));
                Some((&tracer.service, tracer.port))
            }
            _ => None,
        };
        if let Some((service, port)) = upstream {
            let found = provider::known_service(self.world, service);
            let problem = match found {
                None => Some(format!("`{service}` is not a known service")),
                Some(found) if found.alias_of.is_none() && found.port(port).is_none() => {
                    Some(format!("service `{service}` has no port {port}"))
                }
                Some(_) => None,
            };
            if let Some(problem) = problem {
                let message = format!("nothing goes to provider `{name}`: {problem}");
                let help = format!("declare it with a Service or ServiceEntry that has port {port}");
                findings.push(Diagnostic::warning(super::NOT_FOUND, message).help(help));
            }
        }
        findings.extend(settings.into_iter().map(|setting| {
            Diagnostic::warning(NOT_COMPILED, format!("`{setting}` of provider `{name}` is not carried out"))
        }));
        findings
    }

    pub(super) fn mesh_setting(&mut self, path: &str) {
        self.findings.push(Diagnostic::warning(NOT_COMPILED, format!("`{path}` of the mesh is not carried out")));
    }
}
