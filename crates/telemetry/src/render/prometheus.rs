//! How does `/stats/prometheus` look? Families with tags, in the text format that Prometheus scrapes.

use super::number::significant;
use super::push;
use crate::histogram::{BOUNDS, QUANTILES};
use crate::sample::{Reading, Sample, Value};

/// How histograms are shown to Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buckets {
    /// A histogram: the count up to each bound since the start.
    #[default]
    Cumulative,
    /// A summary: ten quantiles of the last interval.
    Summary,
}

/// Envoy's `/stats/prometheus`: counters, gauges, words (if wanted, as gauges of 0) and histograms, each by family and
/// then by name. Samples may come in any order.
#[must_use]
pub fn prometheus(mut samples: Vec<Sample>, buckets: Buckets, words: bool) -> String {
    let phase = |sample: &Sample| match sample.value {
        Value::Counter(_) => 0,
        Value::Gauge(_) => 1,
        Value::Text(_) => 2,
        Value::Histogram(_) => 3,
    };
    samples.retain(|sample| words || !matches!(sample.value, Value::Text(_)));
    samples.sort_by(|one, other| {
        phase(one).cmp(&phase(other)).then_with(|| one.compare_families(other)).then_with(|| one.compare_names(other))
    });
    let mut out = String::new();
    let mut family = String::new();
    for (index, sample) in samples.iter().enumerate() {
        let first = index
            .checked_sub(1)
            .and_then(|before| samples.get(before))
            .is_none_or(|before| phase(before) != phase(sample) || before.compare_families(sample).is_ne());
        if first {
            family.clear();
            family.push_str("envoy_");
            let mut dotted = String::new();
            sample.push_family(&mut dotted);
            family.extend(dotted.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
            let kind = match (&sample.value, buckets) {
                (Value::Counter(_), _) => "counter",
                (Value::Gauge(_) | Value::Text(_), _) => "gauge",
                (Value::Histogram(_), Buckets::Cumulative) => "histogram",
                (Value::Histogram(_), Buckets::Summary) => "summary",
            };
            push!(out, "# TYPE {family} {kind}\n");
        }
        let tags = tags(sample);
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) => {
                push!(out, "{family}{{{tags}}} {value}\n")
            }
            Value::Text(text) => {
                let comma = if tags.is_empty() { "" } else { "," };
                push!(out, "{family}{{{tags}{comma}text_value=\"{}\"}} 0\n", escaped(text));
            }
            Value::Histogram(reading) => histogram(&family, &tags, reading, buckets, &mut out),
        }
    }
    out
}

fn histogram(family: &str, tags: &str, reading: &Reading, buckets: Buckets, out: &mut String) {
    let comma = if tags.is_empty() { "" } else { "," };
    let shown = match buckets {
        Buckets::Cumulative => &reading.cumulative,
        Buckets::Summary => &reading.interval,
    };
    match buckets {
        Buckets::Cumulative => {
            for bound in BOUNDS {
                let (bound, count) = (significant(bound, 32), shown.count_up_to(bound));
                push!(out, "{family}_bucket{{{tags}{comma}le=\"{bound}\"}} {count}\n");
            }
            push!(out, "{family}_bucket{{{tags}{comma}le=\"+Inf\"}} {}\n", shown.count());
        }
        Buckets::Summary => {
            for (quantile, value) in QUANTILES.iter().zip(shown.quantiles(&QUANTILES)) {
                let value = significant(value, 32);
                push!(out, "{family}{{{tags}{comma}quantile=\"{quantile}\"}} {value}\n");
            }
        }
    }
    push!(out, "{family}_sum{{{tags}}} {}\n", significant(shown.sum(), 32));
    push!(out, "{family}_count{{{tags}}} {}\n", shown.count());
}

fn tags(sample: &Sample) -> String {
    let mut out = String::new();
    for (name, value) in sample.tag.iter().chain(&sample.scope.tags) {
        if !out.is_empty() {
            out.push(',');
        }
        push!(out, "{name}=\"{}\"", escaped(value));
    }
    out
}

fn escaped(value: &str) -> std::borrow::Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sample::Scope;
    use crate::{Distribution, Histogram};

    fn cluster(name: &str) -> Arc<Scope> {
        let tags = vec![("envoy_cluster_name", name.to_owned())];
        Arc::new(Scope { prefix: format!("cluster.{name}."), family: "cluster.".into(), tags })
    }

    fn code(scope: &Arc<Scope>, name: &'static str, count: u64) -> Sample {
        let code = name.trim_start_matches("upstream_rq_").to_owned();
        Sample::new(scope, name, Value::Counter(count)).tagged("upstream_rq", "envoy_response_code", code)
    }

    fn time(scope: &Arc<Scope>, values: &[u64]) -> Sample {
        let histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        let cumulative = Distribution::of([&histogram].into_iter());
        let reading = Reading { interval: Distribution::default(), cumulative };
        Sample::new(scope, "upstream_rq_time", Value::Histogram(Box::new(reading)))
    }

    #[test]
    fn families_are_sorted_by_kind_and_name_and_their_members_by_name() {
        let (one, other) = (cluster("b1"), cluster("b2"));
        let samples = vec![
            Sample::new(&one, "upstream_cx_active", Value::Gauge(3)),
            code(&other, "upstream_rq_200", 7),
            code(&one, "upstream_rq_504", 1),
            code(&one, "upstream_rq_200", 5),
            Sample::new(&one, "upstream_cx_total", Value::Counter(9)),
            Sample::new(&Scope::plain("server."), "live", Value::Gauge(1)),
            Sample::new(&one, "version_text", Value::Text("a\"b".into())),
        ];
        assert_eq!(
            prometheus(samples.clone(), Buckets::Cumulative, true),
            "# TYPE envoy_cluster_upstream_cx_total counter\n\
             envoy_cluster_upstream_cx_total{envoy_cluster_name=\"b1\"} 9\n\
             # TYPE envoy_cluster_upstream_rq counter\n\
             envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"b1\"} 5\n\
             envoy_cluster_upstream_rq{envoy_response_code=\"504\",envoy_cluster_name=\"b1\"} 1\n\
             envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"b2\"} 7\n\
             # TYPE envoy_cluster_upstream_cx_active gauge\n\
             envoy_cluster_upstream_cx_active{envoy_cluster_name=\"b1\"} 3\n\
             # TYPE envoy_server_live gauge\n\
             envoy_server_live{} 1\n\
             # TYPE envoy_cluster_version_text gauge\n\
             envoy_cluster_version_text{envoy_cluster_name=\"b1\",text_value=\"a\\\"b\"} 0\n"
        );
        assert!(!prometheus(samples, Buckets::Cumulative, false).contains("text"));
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_a_sum_and_a_count() {
        let samples = vec![time(&cluster("b1"), &[1, 44, 63])];
        let buckets = [
            (0, "0.5"),
            (1, "1"),
            (1, "5"),
            (1, "10"),
            (1, "25"),
            (2, "50"),
            (3, "100"),
            (3, "250"),
            (3, "500"),
            (3, "1000"),
            (3, "2500"),
            (3, "5000"),
            (3, "10000"),
            (3, "30000"),
            (3, "60000"),
            (3, "300000"),
            (3, "600000"),
            (3, "1800000"),
            (3, "3600000"),
            (3, "+Inf"),
        ];
        let mut expected = String::from("# TYPE envoy_cluster_upstream_rq_time histogram\n");
        for (count, bound) in buckets {
            push!(
                expected,
                "envoy_cluster_upstream_rq_time_bucket{{envoy_cluster_name=\"b1\",le=\"{bound}\"}} {count}\n"
            );
        }
        expected.push_str(
            "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"b1\"} 109.03806406221694658142951084301\n\
             envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"b1\"} 3\n",
        );
        assert_eq!(prometheus(samples, Buckets::Cumulative, false), expected);
    }

    #[test]
    fn a_summary_shows_the_quantiles_of_the_last_interval() {
        let rendered = prometheus(vec![time(&Scope::plain("server."), &[5])], Buckets::Summary, false);
        let expected = "# TYPE envoy_server_upstream_rq_time summary\n\
             envoy_server_upstream_rq_time{quantile=\"0\"} nan\n\
             envoy_server_upstream_rq_time{quantile=\"0.25\"} nan\n";
        assert!(rendered.starts_with(expected), "{rendered}");
        assert!(rendered.ends_with(
            "quantile=\"1\"} nan\nenvoy_server_upstream_rq_time_sum{} 0\nenvoy_server_upstream_rq_time_count{} 0\n"
        ));
    }
}
