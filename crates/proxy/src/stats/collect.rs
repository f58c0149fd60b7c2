//! What do all statistics read at this moment, under Envoy's names and tags?
//!
//! Tags follow Envoy's default rules, by which the name of a cluster or connection manager ends at its first dot, with
//! one exception, Istio's: a name that ends in `;` is a tag as a whole, without the `;`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use lateen_telemetry::counter::level_of;
use lateen_telemetry::{Distribution, Reading, Sample, Scope, Value};

use super::block::{Block, PerWorker};
use super::cluster::{self, BreakerGauges, ClusterCounters};
use super::codes::{ClassCounters, CodeCounters, CodeSums};
use super::server::Subscription;
use super::{ClusterStats, History, HttpStats, ListenerStats, Registry, ServerStats, http};

const CLUSTER_TAG: &str = "envoy_cluster_name";
const HTTP_TAG: &str = "envoy_http_conn_manager_prefix";
const LISTENER_TAG: &str = "envoy_listener_address";
const WORKER_TAG: &str = "envoy_worker_id";
const CODE_TAG: &str = "envoy_response_code";
const CLASS_TAG: &str = "envoy_response_code_class";

/// A name's end.
type Leaf = Cow<'static, str>;

impl Registry {
    /// All statistics, unsorted.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for cluster in self.clusters.all() {
            cluster.collect(&mut samples);
        }
        for http in self.https.all() {
            http.collect(&mut samples);
        }
        for listener in self.listeners.all() {
            listener.collect(&mut samples);
        }
        self.server.collect(&mut samples);
        self.subtract_reset(&mut samples);
        samples
    }

    /// Ends an interval of the histograms; to be called every five seconds, as Envoy flushes its statistics.
    pub fn flush(&self) {
        for cluster in self.clusters.all() {
            cluster.history.flush(|visit| cluster.distributions(visit));
        }
        for http in self.https.all() {
            http.history.flush(|visit| http.distributions(visit));
        }
        for listener in self.listeners.all() {
            listener.history.flush(|visit| listener.distributions(visit));
        }
        self.server.history.flush(|visit| self.server.distributions(visit));
    }

    /// Lets every counter start again from 0, as Envoy's `/reset_counters` does; gauges and histograms go on.
    ///
    /// Nobody but its worker writes a counter, so what it had counted until now is remembered and subtracted.
    pub fn reset_counters(&self) {
        self.reset.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut counts = BTreeMap::new();
        for sample in self.samples() {
            if let Value::Counter(count @ 1..) = sample.value {
                let mut name = String::new();
                sample.push_name(&mut name);
                counts.insert(name.into_boxed_str(), count);
            }
        }
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    fn subtract_reset(&self, samples: &mut [Sample]) {
        let reset = self.reset.lock().unwrap_or_else(PoisonError::into_inner);
        if reset.is_empty() {
            return;
        }
        let mut name = String::new();
        for sample in samples {
            if let Value::Counter(count) = &mut sample.value {
                name.clear();
                name.push_str(&sample.scope.prefix);
                name.push_str(&sample.name);
                // A scope that went and came again counts from 0 and knows nothing of the reset.
                let before = reset.get(name.as_str()).filter(|before| **before <= *count);
                *count -= before.copied().unwrap_or(0);
            }
        }
    }
}

impl History {
    fn flush(&self, distributions: impl FnOnce(&mut dyn FnMut(Leaf, Distribution))) {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        distributions(&mut |name, now| {
            if !now.is_empty() {
                let moments = history.entry(name).or_default();
                moments.swap(0, 1);
                moments[1] = now;
            }
        });
    }

    fn reading(&self, name: &str, now: Distribution) -> Value {
        let history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = history.get(name).map(|[before, after]| after.since(before)).unwrap_or_default();
        Value::Histogram(Box::new(Reading { interval, cumulative: now }))
    }
}

impl ClusterStats {
    fn blocks(&self) -> impl Iterator<Item = &ClusterCounters> {
        self.workers.iter().map(|(_, block)| block)
    }

    fn collect(&self, samples: &mut Vec<Sample>) {
        let scope = tagged_scope("cluster.", &self.name, CLUSTER_TAG);
        collect_blocks(&scope, "", || self.blocks(), samples);
        collect_blocks(&scope, "", || std::iter::once(&self.state), samples);
        collect_absent(&scope, cluster::ABSENT_COUNTERS, cluster::ABSENT_GAUGES, samples);
        if let Some(checks) = self.state.health_check.get() {
            collect_blocks(&scope, "health_check.", || std::iter::once(checks), samples);
        }
        if let Some(outlier) = self.state.outlier_detection.get() {
            collect_blocks(&scope, "outlier_detection.", || std::iter::once(outlier), samples);
        }
        if let Some(gauges) = self.state.ring_hash_lb.get() {
            collect_blocks(&scope, "ring_hash_lb.", || std::iter::once(gauges), samples);
        }
        if let Some(gauges) = self.state.maglev_lb.get() {
            collect_blocks(&scope, "maglev_lb.", || std::iter::once(gauges), samples);
        }
        collect_breakers(&scope, "circuit_breakers.default.", &self.state.breakers_default, samples);
        collect_breakers(&scope, "circuit_breakers.high.", &self.state.breakers_high, samples);
        collect_codes(&scope, "", self.blocks().map(|block| &block.codes), true, samples);
        let retried = self.blocks().filter_map(|block| block.retried.get());
        collect_codes(&scope, "retry.", retried, false, samples);
        let canary = self.blocks().filter_map(|block| block.canary.get());
        collect_codes(&scope, "canary.", canary, false, samples);
        let internal = self.blocks().filter_map(|block| block.internal.get()).map(|answers| &answers.codes);
        collect_codes(&scope, "internal.", internal, false, samples);
        let external = self.blocks().filter_map(|block| block.external.get()).map(|answers| &answers.codes);
        collect_codes(&scope, "external.", external, false, samples);
        self.distributions(&mut |name, now| {
            let value = self.history.reading(&name, now);
            samples.push(Sample::new(&scope, name, value));
        });
    }

    fn distributions(&self, visit: &mut dyn FnMut(Leaf, Distribution)) {
        visit_histograms(|| self.blocks(), visit);
        let mut lazy = |name: &'static str, histograms: Vec<&lateen_telemetry::Histogram>| {
            if !histograms.is_empty() {
                visit(name.into(), Distribution::of(histograms.into_iter()));
            }
        };
        lazy("upstream_rq_time", self.blocks().filter_map(|block| block.upstream_rq_time.get()).collect());
        let internal = self.blocks().filter_map(|block| block.internal.get()?.upstream_rq_time.get());
        lazy("internal.upstream_rq_time", internal.collect());
        let external = self.blocks().filter_map(|block| block.external.get()?.upstream_rq_time.get());
        lazy("external.upstream_rq_time", external.collect());
    }
}

impl HttpStats {
    fn blocks(&self) -> impl Iterator<Item = &http::HttpCounters> {
        self.workers.iter().map(|(_, block)| block)
    }

    fn collect(&self, samples: &mut Vec<Sample>) {
        let scope = tagged_scope("http.", &self.name, HTTP_TAG);
        collect_blocks(&scope, "", || self.blocks(), samples);
        collect_absent(&scope, http::ABSENT_COUNTERS, http::ABSENT_GAUGES, samples);
        collect_classes(&scope, self.blocks().map(|block| &block.downstream_rq), samples);
        self.collect_filters(&scope, samples);
        self.distributions(&mut |name, now| {
            let value = self.history.reading(&name, now);
            samples.push(Sample::new(&scope, name, value));
        });
    }

    fn collect_filters(&self, scope: &Arc<Scope>, samples: &mut Vec<Sample>) {
        let cors = || self.blocks().filter_map(|block| block.cors.get());
        if cors().next().is_some() {
            collect_blocks(scope, "cors.", cors, samples);
        }
        let faults = || self.blocks().filter_map(|block| block.fault.get());
        if faults().next().is_some() {
            collect_blocks(scope, "fault.", faults, samples);
        }
        let mut callers: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for caller in faults().flat_map(|block| block.callers.iter()) {
            let [aborts, delays] = callers.entry(&caller.name).or_default();
            *aborts += caller.aborts_injected.get();
            *delays += caller.delays_injected.get();
        }
        for (caller, counts) in callers {
            for (name, count) in ["aborts_injected", "delays_injected"].into_iter().zip(counts) {
                if count > 0 {
                    samples.push(Sample::new(scope, format!("fault.{caller}.{name}"), Value::Counter(count)));
                }
            }
        }
    }

    fn distributions(&self, visit: &mut dyn FnMut(Leaf, Distribution)) {
        visit_histograms(|| self.blocks(), visit);
    }
}

impl ListenerStats {
    fn blocks(&self) -> impl Iterator<Item = &super::ListenerCounters> {
        self.workers.iter().map(|(_, block)| block)
    }

    fn collect(&self, samples: &mut Vec<Sample>) {
        let scope = listener_scope(&self.name);
        collect_blocks(&scope, "", || self.blocks(), samples);
        for worker in 0..self.workers.workers() {
            let block = self.workers.get(worker);
            let mut push = |leaf: &str, value: Value| {
                let name = format!("worker_{worker}.{leaf}");
                let sample = Sample::new(&scope, name, value);
                samples.push(sample.tagged(format!("worker_{leaf}"), WORKER_TAG, worker.to_string()));
            };
            push("downstream_cx_total", Value::Counter(block.map_or(0, |block| block.downstream_cx_total.get())));
            let active = level_of(block.map(|block| &block.downstream_cx_active).into_iter());
            push("downstream_cx_active", Value::Gauge(active));
        }
        for (stat_prefix, classes) in self.https.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let http = tagged_scope("http.", stat_prefix, HTTP_TAG);
            let scope = Arc::new(Scope {
                prefix: format!("{}{}", scope.prefix, http.prefix),
                family: format!("{}{}", scope.family, http.family),
                tags: http.tags.iter().chain(&scope.tags).cloned().collect(),
            });
            collect_classes(&scope, classes.iter().map(|(_, block)| block), samples);
        }
        self.distributions(&mut |name, now| {
            let value = self.history.reading(&name, now);
            samples.push(Sample::new(&scope, name, value));
        });
    }

    fn distributions(&self, visit: &mut dyn FnMut(Leaf, Distribution)) {
        visit_histograms(|| self.blocks(), visit);
    }
}

impl ServerStats {
    fn collect(&self, samples: &mut Vec<Sample>) {
        collect_blocks(&Scope::plain("server."), "", || std::iter::once(&self.server), samples);
        let listeners = Scope::plain("listener_manager.");
        collect_blocks(&listeners, "", || std::iter::once(&self.listener_manager), samples);
        let clusters = Scope::plain("cluster_manager.");
        collect_blocks(&clusters, "", || std::iter::once(&self.cluster_manager), samples);
        collect_subscription("listener_manager.lds.", &self.lds, samples);
        collect_subscription("cluster_manager.cds.", &self.cds, samples);
        self.distributions(&mut |name, now| {
            let value = self.history.reading(&name, now);
            samples.push(Sample::new(&Scope::plain(""), name, value));
        });
    }

    /// Names are full here, because the blocks belong to several scopes.
    fn distributions(&self, visit: &mut dyn FnMut(Leaf, Distribution)) {
        visit_histograms(|| std::iter::once(&self.server), &mut |name, now| {
            visit(format!("server.{name}").into(), now)
        });
        for (prefix, subscription) in [("listener_manager.lds.", &self.lds), ("cluster_manager.cds.", &self.cds)] {
            if subscription.version_text().is_some() {
                visit_histograms(|| std::iter::once(&subscription.state), &mut |name, now| {
                    visit(format!("{prefix}{name}").into(), now)
                });
            }
        }
    }
}

/// The scope of `<kind><name>.`, with the name as a tag.
fn tagged_scope(kind: &str, name: &str, tag: &'static str) -> Arc<Scope> {
    let (value, rest) = match name.strip_suffix(';') {
        Some(whole) => (whole, ""),
        None => name.split_once('.').filter(|(value, _)| !value.is_empty()).unwrap_or((name, "")),
    };
    let dot = if rest.is_empty() { "" } else { "." };
    Arc::new(Scope {
        prefix: format!("{kind}{name}."),
        family: format!("{kind}{rest}{dot}"),
        tags: vec![(tag, value.to_owned())],
    })
}

/// The scope of a listener: an address is a tag, any other name is part of the family.
fn listener_scope(name: &str) -> Arc<Scope> {
    let is_address = name.bytes().all(|byte| matches!(byte, b'_' | b'.' | b'0'..=b'9'))
        || name.bytes().all(|byte| matches!(byte, b'_' | b'[' | b']') || byte.is_ascii_hexdigit());
    let prefix = format!("listener.{name}.");
    if is_address {
        Arc::new(Scope { prefix, family: "listener.".into(), tags: vec![(LISTENER_TAG, name.to_owned())] })
    } else {
        Scope::plain(prefix)
    }
}

/// Counters and gauges of blocks of one kind, summed.
fn collect_blocks<'a, B, I>(scope: &Arc<Scope>, prefix: &'static str, blocks: impl Fn() -> I, samples: &mut Vec<Sample>)
where
    B: Block + 'a,
    I: Iterator<Item = &'a B>,
{
    for (index, name) in B::COUNTERS.iter().enumerate() {
        let count = blocks().filter_map(|block| block.counter(index)).map(lateen_telemetry::Counter::get).sum();
        samples.push(Sample::new(scope, leaf(prefix, name), Value::Counter(count)));
    }
    for (index, name) in B::GAUGES.iter().enumerate() {
        let level = level_of(blocks().filter_map(|block| block.gauge(index)));
        let used = blocks().filter_map(|block| block.gauge(index)).any(lateen_telemetry::Gauge::is_used);
        samples.push(Sample::new(scope, leaf(prefix, name), Value::Gauge(level)).used(used));
    }
}

fn visit_histograms<'a, B, I>(blocks: impl Fn() -> I, visit: &mut dyn FnMut(Leaf, Distribution))
where
    B: Block + 'a,
    I: Iterator<Item = &'a B>,
{
    for (index, name) in B::HISTOGRAMS.iter().enumerate() {
        visit((*name).into(), Distribution::of(blocks().filter_map(|block| block.histogram(index))));
    }
}

fn collect_absent(scope: &Arc<Scope>, counters: &[&'static str], gauges: &[&'static str], samples: &mut Vec<Sample>) {
    samples.extend(counters.iter().map(|name| Sample::new(scope, *name, Value::Counter(0))));
    samples.extend(gauges.iter().map(|name| Sample::new(scope, *name, Value::Gauge(0))));
}

fn collect_breakers(scope: &Arc<Scope>, prefix: &'static str, breakers: &BreakerGauges, samples: &mut Vec<Sample>) {
    collect_blocks(scope, prefix, || std::iter::once(breakers), samples);
    if let Some(remaining) = breakers.remaining.get() {
        collect_blocks(scope, prefix, || std::iter::once(remaining), samples);
        let pools = remaining.remaining_cx_pools.load(Ordering::Relaxed);
        samples.push(Sample::new(scope, leaf(prefix, "remaining_cx_pools"), Value::Gauge(pools)));
    }
}

/// `upstream_rq_completed`, `upstream_rq_<class>xx` and `upstream_rq_<code>` under a prefix. Before the first answer
/// there is nothing to show but, where `always`, a count of 0.
fn collect_codes<'a>(
    scope: &Arc<Scope>,
    prefix: &'static str,
    workers: impl Iterator<Item = &'a CodeCounters>,
    always: bool,
    samples: &mut Vec<Sample>,
) {
    let sums = CodeSums::of(workers);
    if sums.completed > 0 || always {
        let value = Value::Counter(sums.completed);
        samples.push(Sample::new(scope, leaf(prefix, "upstream_rq_completed"), value));
    }
    for (class, count) in sums.classes {
        let sample = Sample::new(scope, format!("{prefix}upstream_rq_{class}xx"), Value::Counter(count));
        samples.push(sample.tagged(leaf(prefix, "upstream_rq_xx"), CLASS_TAG, class.to_string()));
    }
    for (code, count) in sums.exact {
        let sample = Sample::new(scope, format!("{prefix}upstream_rq_{code}"), Value::Counter(count));
        samples.push(sample.tagged(leaf(prefix, "upstream_rq"), CODE_TAG, code.to_string()));
    }
}

/// `downstream_rq_completed` and `downstream_rq_<class>xx`.
fn collect_classes<'a>(
    scope: &Arc<Scope>,
    workers: impl Iterator<Item = &'a ClassCounters>,
    samples: &mut Vec<Sample>,
) {
    let (mut completed, mut classes) = (0, [0; 5]);
    for worker in workers {
        completed += worker.completed();
        for (sum, count) in classes.iter_mut().zip(worker.classes()) {
            *sum += count;
        }
    }
    samples.push(Sample::new(scope, "downstream_rq_completed", Value::Counter(completed)));
    for (count, class) in classes.into_iter().zip(1..) {
        let sample = Sample::new(scope, format!("downstream_rq_{class}xx"), Value::Counter(count));
        samples.push(sample.tagged("downstream_rq_xx", CLASS_TAG, class.to_string()));
    }
}

fn collect_subscription(prefix: &'static str, subscription: &Subscription, samples: &mut Vec<Sample>) {
    if let Some(version) = subscription.version_text() {
        let scope = Scope::plain(prefix);
        collect_blocks(&scope, "", || std::iter::once(&subscription.state), samples);
        samples.push(Sample::new(&scope, "version", Value::Gauge(Subscription::version(&version))));
        samples.push(Sample::new(&scope, "version_text", Value::Text(version)));
    }
}

fn leaf(prefix: &'static str, name: &'static str) -> Leaf {
    if prefix.is_empty() { name.into() } else { format!("{prefix}{name}").into() }
}

impl<T: Default> PerWorker<T> {
    fn get(&self, worker: usize) -> Option<&T> {
        self.iter().find(|(number, _)| *number == worker).map(|(_, block)| block)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lateen_telemetry::render;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut samples = registry.samples();
        render::sort(&mut samples);
        render::text(&samples, render::HistogramForm::Summary)
    }

    fn lines<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(beginning)).collect()
    }

    /// A cluster's names in real Envoy's `/stats` (1.40.0) after one answer 200 and one timeout, without
    /// `default.total_match_count`, which counts transport socket matches.
    const ENVOY_NAMES: &str = include_str!("testdata/cluster_names.txt");

    #[test]
    fn a_cluster_has_exactly_envoys_names() {
        let registry = Registry::new(2);
        let cluster = registry.cluster("b1");
        let worker = cluster.worker(1);
        worker.count_response(200, false);
        worker.count_response(504, false);
        worker.record_response_time(Duration::from_millis(3), false);
        let text = text(&registry);
        let mut names: Vec<_> = lines(&text, "cluster.b1.")
            .into_iter()
            .map(|line| line.split_once(": ").map_or(line, |(name, _)| name))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ENVOY_NAMES.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_connection_manager_has_exactly_envoys_names() {
        let registry = Registry::new(1);
        let _http = registry.http("p");
        let text = text(&registry);
        let mut names: Vec<_> = lines(&text, "http.p.")
            .into_iter()
            .map(|line| line.split_once(": ").map_or(line, |(name, _)| name))
            .collect();
        names.sort_unstable();
        let expected: Vec<_> = include_str!("testdata/http_names.txt").lines().collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_listener_has_exactly_envoys_names() {
        let registry = Registry::new(1);
        let listener = registry.listener("127.0.0.1:29980".parse().unwrap(), None);
        listener.http("p").worker(0).count(204);
        let text = text(&registry);
        let mut names: Vec<_> = lines(&text, "listener.127.0.0.1_29980.")
            .into_iter()
            .map(|line| line.split_once(": ").map_or(line, |(name, _)| name))
            .collect();
        names.sort_unstable();
        let expected: Vec<_> = include_str!("testdata/listener_names.txt").lines().collect();
        assert_eq!(names, expected);
        assert!(text.contains("listener.127.0.0.1_29980.http.p.downstream_rq_2xx: 1\n"));
    }

    #[test]
    fn workers_add_up_and_codes_appear_with_their_first_answer() {
        let registry = Registry::new(2);
        let cluster = registry.cluster("outbound|80||a.b;");
        for worker in 0..2 {
            let counters = cluster.worker(worker);
            counters.upstream_rq_total.inc();
            counters.upstream_rq_active.inc();
            counters.count_response(200, false);
            counters.record_response_time(Duration::from_millis(1), false);
        }
        cluster.worker(0).upstream_rq_active.dec();
        cluster.worker(0).count_retried(503);
        cluster.worker(0).count_response(503, true);
        let text = text(&registry);
        let name = "cluster.outbound|80||a.b;.";
        let codes: Vec<_> =
            lines(&text, name).into_iter().filter(|line| line.contains("xx") || line.contains("_rq_200")).collect();
        assert_eq!(
            codes,
            [
                "external.upstream_rq_200: 2",
                "external.upstream_rq_2xx: 2",
                "internal.upstream_rq_5xx: 1",
                "retry.upstream_rq_5xx: 1",
                "upstream_rq_200: 2",
                "upstream_rq_2xx: 2",
                "upstream_rq_5xx: 1",
            ]
        );
        assert!(text.contains("a.b;.upstream_rq_total: 2\n") && text.contains("a.b;.upstream_rq_active: 1\n"));
        assert!(text.contains("a.b;.upstream_rq_time: P0(nan,1.0333333333333334) "), "{text}");
    }

    #[test]
    fn tags_are_envoys_and_a_semicolon_ends_a_name() {
        let registry = Registry::new(1);
        let whole = registry.cluster("outbound|80||a.b;");
        let dotted = registry.cluster("a.b");
        let plain = registry.cluster("b1");
        for cluster in [&whole, &dotted, &plain] {
            cluster.worker(0).count_response(200, false);
        }
        let http = registry.http("ingress");
        http.worker(0).count_response(204);
        let address = registry.listener("127.0.0.1:80".parse().unwrap(), None);
        address.worker(0).downstream_cx_total.inc();
        address.http("ingress").worker(0).count(204);
        let named = registry.listener("127.0.0.1:80".parse().unwrap(), Some("edge"));
        named.worker(0).downstream_cx_total.inc();
        let text = render::prometheus(registry.samples(), render::Buckets::Cumulative, false);
        for line in [
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"outbound|80||a.b\"} 1",
            "envoy_cluster_b_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\"} 1",
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"b1\"} 1",
            "envoy_cluster_external_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"b1\"} 1",
            "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"ingress\"} 1",
            "envoy_listener_downstream_cx_total{envoy_listener_address=\"127.0.0.1_80\"} 1",
            "envoy_listener_worker_downstream_cx_total{envoy_worker_id=\"0\",envoy_listener_address=\"127.0.0.1_80\"} 1",
            "envoy_listener_http_downstream_rq_xx{envoy_response_code_class=\"2\",\
             envoy_http_conn_manager_prefix=\"ingress\",envoy_listener_address=\"127.0.0.1_80\"} 1",
            "envoy_listener_edge_downstream_cx_total{} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n in\n{text}");
        }
    }

    #[test]
    fn an_interval_is_what_came_between_the_last_two_flushes() {
        let registry = Registry::new(1);
        let http = registry.http("p");
        http.worker(0).downstream_rq_time.record(0);
        registry.flush();
        http.worker(0).downstream_rq_time.record(67);
        registry.flush();
        http.worker(0).downstream_rq_time.record(67);
        let shown = text(&registry);
        assert!(shown.contains("downstream_rq_time: P0(67.5,0) P25(67.5,0) P50(67.5,67.333"), "{shown}");
        registry.flush();
        registry.flush();
        let shown = text(&registry);
        assert!(shown.contains("downstream_rq_time: P0(nan,0) "), "{shown}");
    }

    #[test]
    fn reset_counters_start_from_zero_and_stay_used() {
        let registry = Registry::new(1);
        let cluster = registry.cluster("b1");
        cluster.worker(0).upstream_rq_total.add(5);
        cluster.worker(0).upstream_cx_active.inc();
        registry.reset_counters();
        cluster.worker(0).upstream_rq_total.add(2);
        let samples = registry.samples();
        let find = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap();
        assert_eq!(find("upstream_rq_total").value, Value::Counter(2));
        assert_eq!(find("upstream_cx_active").value, Value::Gauge(1));
        registry.reset_counters();
        let samples = registry.samples();
        let total = samples.iter().find(|sample| sample.name == "upstream_rq_total").unwrap();
        assert_eq!((&total.value, total.used), (&Value::Counter(0), true));
    }

    #[test]
    fn remaining_gauges_exist_only_where_they_are_tracked() {
        let registry = Registry::new(1);
        let (tracked, other) = (registry.cluster("a"), registry.cluster("b"));
        tracked.state.breakers_default.remaining.touch().remaining_rq.set(u64::from(u32::MAX));
        tracked.state.breakers_default.rq_open.set(1);
        let text = text(&registry);
        assert!(text.contains("cluster.a.circuit_breakers.default.remaining_rq: 4294967295\n"));
        assert!(text.contains("cluster.a.circuit_breakers.default.rq_open: 1\n"));
        assert!(!text.contains("cluster.b.circuit_breakers.default.remaining"));
        drop(other);
    }

    #[test]
    fn a_subscription_shows_once_it_has_a_version() {
        let registry = Registry::new(1);
        assert!(!text(&registry).contains("cds"));
        registry.server.cds.record_accepted("c1", std::time::UNIX_EPOCH + Duration::from_millis(1_795_478_882_799));
        let text = text(&registry);
        for line in [
            "cluster_manager.cds.version_text: \"c1\"",
            "cluster_manager.cds.version: 814672407442807801",
            "cluster_manager.cds.update_success: 1",
            "cluster_manager.cds.update_time: 1795478882799",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
