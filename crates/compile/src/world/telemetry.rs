//! Which Telemetry objects hold for a workload, and what do they say together of its logs, traces and metrics? The
//! object of the whole mesh comes first, then that of the namespace, then those that select the workload; what comes
//! later overrides section by section.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_config::{
    AccessLogging, CustomTag, ExtensionProvider, ExtensionProviderKind, IstioMetric, MetricMatch, MetricSelector,
    MetricsOverrides, ProviderRef, TagOperation, WorkloadMode,
};

use super::objects::Typed;
use crate::mesh::Mesh;
use crate::scope::Scope;

/// The side of a connection that a workload is on. Gateways are always clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn is_meant_by(self, mode: Option<WorkloadMode>) -> bool {
        match mode {
            None | Some(WorkloadMode::ClientAndServer) => true,
            Some(WorkloadMode::Client) => self == Side::Client,
            Some(WorkloadMode::Server) => self == Side::Server,
        }
    }
}

/// All Telemetry objects by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Telemetries {
    by_namespace: BTreeMap<Arc<str>, Vec<Telemetry>>,
}

#[derive(Debug)]
struct Telemetry {
    /// Labels of the workloads that it is for; empty means all.
    selector: BTreeMap<String, String>,
    /// It is for other objects than workloads, of which none is served.
    is_for_objects: bool,
    spec: lateen_config::Telemetry,
}

impl Telemetries {
    /// Indexes objects that are sorted by age.
    pub(crate) fn build(objects: &[Typed<'_, lateen_config::Telemetry>]) -> Telemetries {
        let mut index = Telemetries::default();
        for (object, spec) in objects {
            let telemetry = Telemetry {
                selector: spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default(),
                is_for_objects: spec.target_ref.is_some() || !spec.target_refs.is_empty(),
                spec: (*spec).clone(),
            };
            index.by_namespace.entry(object.metadata.namespace.clone()).or_default().push(telemetry);
        }
        index
    }

    /// What holds for the workload of a proxy.
    pub(crate) fn of<'a>(&'a self, mesh: &'a Mesh, scope: &Scope) -> Applicable<'a> {
        let of = |namespace: &str| self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let for_all = |telemetry: &&Telemetry| telemetry.selector.is_empty() && !telemetry.is_for_objects;
        let selects = |telemetry: &&Telemetry| {
            let labels = telemetry.selector.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            !telemetry.selector.is_empty() && scope.selected_by(labels)
        };
        let own = of(&scope.namespace);
        let whole = own.iter().find(for_all).filter(|_| scope.namespace != mesh.root_namespace);
        let levels = of(&mesh.root_namespace).iter().find(for_all).into_iter().chain(whole);
        let levels = levels.chain(own.iter().filter(selects)).map(|telemetry| &telemetry.spec).collect();
        Applicable { mesh, levels }
    }
}

/// The objects that hold for one workload, the widest first.
#[derive(Debug)]
pub(crate) struct Applicable<'a> {
    mesh: &'a Mesh,
    levels: Vec<&'a lateen_config::Telemetry>,
}

/// Where access logs go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LogTarget<'a> {
    pub(crate) provider: &'a ExtensionProvider,
    /// A CEL expression that is true for what is logged.
    pub(crate) filter: Option<&'a str>,
    /// Nothing is logged there, which is not the same as not to be named.
    pub(crate) is_disabled: bool,
}

/// What is traced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tracing<'a> {
    /// Where traces go; `None` means nowhere.
    pub(crate) provider: Option<&'a ExtensionProvider>,
    /// Share of requests in percent.
    pub(crate) sampling: Option<f64>,
    /// Further tags; `None` leaves them to the mesh.
    pub(crate) custom_tags: Option<&'a BTreeMap<String, CustomTag>>,
    /// Whether the request id takes part in the decision to trace.
    pub(crate) uses_request_id: bool,
    /// Whether spans have Istio's own tags.
    pub(crate) has_istio_tags: bool,
    /// Whether the headers of traces are passed on.
    pub(crate) is_propagated: bool,
}

/// What is different from Istio's own metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics<'a> {
    /// Time between reports on long connections.
    pub(crate) reporting_interval: Option<Duration>,
    /// By name of the metric, as a Telemetry has it.
    pub(crate) overrides: BTreeMap<&'a str, MetricOverride<'a>>,
}

/// What is different about one metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MetricOverride<'a> {
    /// It is not counted.
    pub(crate) is_disabled: bool,
    /// Labels with the expression that gives their value; `None` takes the label away.
    pub(crate) tags: BTreeMap<&'a str, Option<&'a str>>,
}

impl<'a> Applicable<'a> {
    /// Where access logs go, by name of the provider. Empty where nothing is said: the settings of the mesh count.
    pub(crate) fn access_logs(&self, side: Side) -> Vec<LogTarget<'a>> {
        let defaults: Vec<&str> = self.mesh.default_providers.access_logging.iter().map(String::as_str).collect();
        let levels: Vec<&[AccessLogging]> = self
            .levels
            .iter()
            .map(|level| level.access_logging.as_slice())
            .filter(|entries| !entries.is_empty())
            .collect();
        let is_meant = |entry: &AccessLogging| side.is_meant_by(entry.r#match.as_ref().map(|matched| matched.mode));
        // The nearest object that names providers has them all; those of wider ones count no more.
        let mut in_scope: BTreeSet<&str> = defaults.iter().copied().collect();
        for entries in &levels {
            let named: BTreeSet<&str> =
                entries.iter().filter(|entry| is_meant(entry)).flat_map(|entry| names(&entry.providers)).collect();
            if !named.is_empty() {
                in_scope = named;
            }
        }
        let mut chosen: BTreeMap<&str, (Option<&str>, bool)> = BTreeMap::new();
        if levels.is_empty() {
            chosen.extend(defaults.iter().map(|name| (*name, (None, false))));
        }
        let mut inherited = defaults;
        for entry in levels.iter().copied().flatten() {
            let named: Vec<&str> = names(&entry.providers).collect();
            if !named.is_empty() {
                inherited = named;
            }
            if !is_meant(entry) {
                continue;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(**name)) {
                let filter = entry.filter.as_ref().map(|filter| filter.expression.as_str());
                let is_own = filter.is_some() || !entry.providers.is_empty();
                let before = chosen.get(name).copied().unwrap_or_default();
                let filter = if is_own { filter } else { before.0 };
                chosen.insert(*name, (filter, entry.disabled == Some(true)));
            }
        }
        chosen
            .into_iter()
            .filter_map(|(name, (filter, is_disabled))| {
                Some(LogTarget { provider: self.mesh.provider(name)?, filter, is_disabled })
            })
            .collect()
    }

    /// What is traced; `None` where nothing is said: the settings of the mesh count.
    pub(crate) fn tracing(&self, side: Side) -> Option<Tracing<'a>> {
        let default = self.mesh.default_providers.tracing.first();
        let mut entries = self.levels.iter().flat_map(|level| &level.tracing).peekable();
        if entries.peek().is_none() && default.is_none() {
            return None;
        }
        let mut tracing = Tracing {
            provider: default.and_then(|name| self.mesh.provider(name)),
            sampling: None,
            custom_tags: None,
            uses_request_id: true,
            has_istio_tags: true,
            is_propagated: true,
        };
        let mut is_disabled = false;
        for entry in entries.filter(|entry| side.is_meant_by(entry.r#match.as_ref().map(|matched| matched.mode))) {
            if let Some(name) = names(&entry.providers).next() {
                tracing.provider = self.mesh.provider(name);
            }
            is_disabled = entry.disable_span_reporting.unwrap_or(is_disabled);
            if !entry.custom_tags.is_empty() {
                tracing.custom_tags = Some(&entry.custom_tags);
            }
            tracing.sampling = entry.random_sampling_percentage.or(tracing.sampling);
            tracing.uses_request_id = entry.use_request_id_for_trace_sampling.unwrap_or(tracing.uses_request_id);
            tracing.has_istio_tags = entry.enable_istio_tags.unwrap_or(tracing.has_istio_tags);
            tracing.is_propagated =
                entry.disable_context_propagation.map_or(tracing.is_propagated, |disabled| !disabled);
        }
        if is_disabled {
            tracing.provider = None;
        }
        Some(tracing)
    }

    /// What each provider of Prometheus' metrics counts, by name of the provider.
    pub(crate) fn metrics(&self, side: Side) -> Vec<Metrics<'a>> {
        let defaults: Vec<&str> = self.mesh.default_providers.metrics.iter().map(String::as_str).collect();
        let entries: Vec<&lateen_config::Metrics> = self.levels.iter().flat_map(|level| &level.metrics).collect();
        let nearest = entries.iter().rev().find(|entry| !entry.providers.is_empty());
        let in_scope: BTreeSet<&str> = match nearest {
            Some(entry) => names(&entry.providers).collect(),
            None => defaults.iter().copied().collect(),
        };
        let mut merged: BTreeMap<&str, (Metrics<'a>, bool)> = BTreeMap::new();
        if entries.is_empty() {
            merged.extend(defaults.iter().map(|name| (*name, Default::default())));
        }
        let mut inherited = defaults;
        for entry in entries {
            let named: Vec<&str> = names(&entry.providers).collect();
            if !named.is_empty() {
                inherited = named;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(**name)) {
                let (metrics, is_off) = merged.entry(*name).or_default();
                metrics.reporting_interval = entry.reporting_interval.or(metrics.reporting_interval);
                for change in entry.overrides.iter().filter(|change| is_for(change, side)) {
                    let all = selects_all(change.r#match.as_ref());
                    if all && change.disabled == Some(true) {
                        *is_off = true;
                        continue;
                    }
                    *is_off = false;
                    for metric in selected(change.r#match.as_ref()) {
                        metrics.overrides.entry(metric).or_default().apply(change);
                    }
                }
            }
        }
        merged
            .into_iter()
            .filter(|(name, (_, is_off))| {
                let kind = self.mesh.provider(name).and_then(|provider| provider.provider.as_ref());
                !is_off && matches!(kind, Some(ExtensionProviderKind::Prometheus(_)))
            })
            .map(|(_, (metrics, _))| metrics)
            .collect()
    }
}

impl<'a> MetricOverride<'a> {
    fn apply(&mut self, change: &'a MetricsOverrides) {
        self.is_disabled = change.disabled.unwrap_or(self.is_disabled);
        for (name, tag) in &change.tag_overrides {
            let value = match tag.operation {
                TagOperation::Upsert => Some(tag.value.as_deref().unwrap_or_default()),
                TagOperation::Remove => None,
            };
            self.tags.insert(name, value);
        }
    }
}

fn names(providers: &[ProviderRef]) -> impl Iterator<Item = &str> {
    providers.iter().map(|provider| provider.name.as_str())
}

fn is_for(change: &MetricsOverrides, side: Side) -> bool {
    side.is_meant_by(change.r#match.as_ref().map(|matched| matched.mode))
}

fn selects_all(selector: Option<&MetricSelector>) -> bool {
    match selector.and_then(|selector| selector.metric_match.as_ref()) {
        None | Some(MetricMatch::Metric(IstioMetric::AllMetrics)) => true,
        Some(MetricMatch::Metric(_) | MetricMatch::CustomMetric(_)) => false,
    }
}

/// Names of the metrics that are meant, as a Telemetry has them.
fn selected(selector: Option<&MetricSelector>) -> Vec<&str> {
    match selector.and_then(|selector| selector.metric_match.as_ref()) {
        Some(MetricMatch::CustomMetric(name)) => vec![name],
        Some(MetricMatch::Metric(metric)) if *metric != IstioMetric::AllMetrics => {
            METRICS.iter().filter(|(known, ..)| known == metric).map(|(_, name, _)| *name).collect()
        }
        _ => METRICS.iter().map(|(_, name, _)| *name).collect(),
    }
}

/// Istio's own metrics: (metric, its name in a Telemetry, its name in Prometheus without `istio_`).
const METRICS: [(IstioMetric, &str, &str); 10] = [
    (IstioMetric::RequestCount, "REQUEST_COUNT", "requests_total"),
    (IstioMetric::RequestDuration, "REQUEST_DURATION", "request_duration_milliseconds"),
    (IstioMetric::RequestSize, "REQUEST_SIZE", "request_bytes"),
    (IstioMetric::ResponseSize, "RESPONSE_SIZE", "response_bytes"),
    (IstioMetric::TcpOpenedConnections, "TCP_OPENED_CONNECTIONS", "tcp_connections_opened_total"),
    (IstioMetric::TcpClosedConnections, "TCP_CLOSED_CONNECTIONS", "tcp_connections_closed_total"),
    (IstioMetric::TcpSentBytes, "TCP_SENT_BYTES", "tcp_sent_bytes_total"),
    (IstioMetric::TcpReceivedBytes, "TCP_RECEIVED_BYTES", "tcp_received_bytes_total"),
    (IstioMetric::GrpcRequestMessages, "GRPC_REQUEST_MESSAGES", "request_messages_total"),
    (IstioMetric::GrpcResponseMessages, "GRPC_RESPONSE_MESSAGES", "response_messages_total"),
];

/// Name in Prometheus, without `istio_`, of a metric as a Telemetry has it; the name itself for others than Istio's.
pub(crate) fn prometheus_name(metric: &str) -> &str {
    METRICS.iter().find(|(_, name, _)| *name == metric).map_or(metric, |(_, _, name)| name)
}
