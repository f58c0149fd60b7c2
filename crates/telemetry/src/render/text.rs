//! How does `/stats` look? One statistic a line.

use super::number::{general, shortest};
use super::{HistogramForm, bounds, push};
use crate::Distribution;
use crate::histogram::QUANTILES;
use crate::sample::{Reading, Sample, Value};

/// Envoy's `/stats`: `name: value`, sorted (see [`super::sort`]).
#[must_use]
pub fn text(samples: &[Sample], form: HistogramForm) -> String {
    let mut out = String::new();
    for sample in samples {
        sample.push_name(&mut out);
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) => push!(out, ": {value}"),
            Value::Text(text) => push!(out, ": \"{text}\""),
            Value::Histogram(reading) if reading.cumulative.is_empty() => out.push_str(": No recorded values"),
            Value::Histogram(reading) => histogram(reading, form, &mut out),
        }
        out.push('\n');
    }
    out
}

fn histogram(reading: &Reading, form: HistogramForm, out: &mut String) {
    match form {
        HistogramForm::Summary => {
            out.push_str(": ");
            summary(reading, out);
        }
        HistogramForm::Cumulative | HistogramForm::Disjoint => {
            out.push(':');
            for (bound, interval, cumulative) in bounds(reading, form == HistogramForm::Disjoint) {
                push!(out, " B{}({interval},{cumulative})", general(bound));
            }
        }
        HistogramForm::Detailed => {
            out.push_str(":\n  totals=");
            buckets(&reading.cumulative, out);
            out.push_str("\n  intervals=");
            buckets(&reading.interval, out);
            out.push_str("\n  summary=");
            summary(reading, out);
        }
    }
}

fn summary(reading: &Reading, out: &mut String) {
    let (interval, cumulative) = (reading.interval.quantiles(&QUANTILES), reading.cumulative.quantiles(&QUANTILES));
    for (index, quantile) in QUANTILES.iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        let percent = general(quantile * 100.0);
        push!(out, "{space}P{percent}({},{})", shortest(interval[index]), shortest(cumulative[index]));
    }
}

fn buckets(distribution: &Distribution, out: &mut String) {
    for (index, bucket) in distribution.buckets().enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        push!(out, "{separator}{},{}:{}", general(bucket.lower), general(bucket.width), bucket.count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Histogram;
    use crate::render::sort;
    use crate::sample::Scope;

    fn distribution(values: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        Distribution::of([&histogram].into_iter())
    }

    fn reading(interval: &[u64], cumulative: &[u64]) -> Value {
        let reading = Reading { interval: distribution(interval), cumulative: distribution(cumulative) };
        Value::Histogram(Box::new(reading))
    }

    fn rendered(scope: &Arc<Scope>, value: Value, form: HistogramForm) -> String {
        text(&[Sample::new(scope, "upstream_rq_time", value)], form)
    }

    #[test]
    fn words_come_first_then_numbers_then_histograms() {
        let scope = Scope::plain("cluster.b1.");
        let mut samples = [
            Sample::new(&scope, "upstream_rq_time", reading(&[], &[])),
            Sample::new(&scope, "upstream_rq_total", Value::Counter(2)),
            Sample::new(&scope, "upstream_cx_active", Value::Gauge(1)),
            Sample::new(&scope, "version_text", Value::Text("e1".into())),
        ];
        sort(&mut samples);
        assert_eq!(
            text(&samples, HistogramForm::Summary),
            "cluster.b1.version_text: \"e1\"\n\
             cluster.b1.upstream_cx_active: 1\n\
             cluster.b1.upstream_rq_total: 2\n\
             cluster.b1.upstream_rq_time: No recorded values\n"
        );
    }

    #[test]
    fn histograms_look_as_envoy_printed_them() {
        let scope = Scope::plain("cluster.b1.");
        let value = reading(&[295], &[0, 254, 295, 295]);
        assert_eq!(
            rendered(&scope, value.clone(), HistogramForm::Detailed),
            "cluster.b1.upstream_rq_time:\n  totals=0,0:1, 250,10:1, 290,10:2\n  intervals=290,10:1\n  \
             summary=P0(295,0) P25(295,0) P50(295,255) P75(295,293.3333333333333) P90(295,296.6666666666667) \
             P95(295,296.6666666666667) P99(295,296.6666666666667) P99.5(295,296.6666666666667) \
             P99.9(295,296.6666666666667) P100(295,296.6666666666667)\n"
        );
        assert_eq!(
            rendered(&scope, value.clone(), HistogramForm::Cumulative),
            "cluster.b1.upstream_rq_time: B0.5(0,1) B1(0,1) B5(0,1) B10(0,1) B25(0,1) B50(0,1) B100(0,1) B250(0,2) \
             B500(1,4) B1000(1,4) B2500(1,4) B5000(1,4) B10000(1,4) B30000(1,4) B60000(1,4) B300000(1,4) \
             B600000(1,4) B1.8e+06(1,4) B3.6e+06(1,4)\n"
        );
        assert_eq!(
            rendered(&scope, value, HistogramForm::Disjoint),
            "cluster.b1.upstream_rq_time: B0.5(0,1) B1(0,0) B5(0,0) B10(0,0) B25(0,0) B50(0,0) B100(0,0) B250(0,1) \
             B500(1,2) B1000(0,0) B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) \
             B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)\n"
        );
        assert_eq!(
            rendered(&scope, reading(&[], &[1]), HistogramForm::Summary),
            "cluster.b1.upstream_rq_time: P0(nan,1.05) P25(nan,1.05) P50(nan,1.05) P75(nan,1.05) P90(nan,1.05) \
             P95(nan,1.05) P99(nan,1.05) P99.5(nan,1.05) P99.9(nan,1.05) P100(nan,1.05)\n"
        );
    }
}
