//! How does `/stats?format=json` look? One line, with all histograms in one object at the end.

use super::number::shortest;
use super::{HistogramForm, bounds, push};
use crate::Distribution;
use crate::histogram::QUANTILES;
use crate::sample::{Reading, Sample, Value};

/// Envoy's `/stats?format=json` of sorted samples (see [`super::sort`]).
#[must_use]
pub fn json(samples: &[Sample], form: HistogramForm) -> String {
    let mut out = String::from("{\"stats\":[");
    let mut histograms = String::new();
    for sample in samples {
        let mut name = String::new();
        sample.push_name(&mut name);
        let name = quoted(&name);
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) => {
                separate(&mut out);
                push!(out, "{{\"name\":{name},\"value\":{value}}}");
            }
            Value::Text(text) => {
                separate(&mut out);
                push!(out, "{{\"name\":{name},\"value\":{}}}", quoted(text));
            }
            Value::Histogram(reading) => {
                if !histograms.is_empty() {
                    histograms.push(',');
                }
                push!(histograms, "{{\"name\":{name},");
                histogram(reading, form, &mut histograms);
                histograms.push('}');
            }
        }
    }
    if !histograms.is_empty() {
        separate(&mut out);
        let percents: Vec<String> = QUANTILES.iter().map(|quantile| shortest(percent(*quantile))).collect();
        let percents = percents.join(",");
        match form {
            HistogramForm::Summary => push!(
                out,
                "{{\"histograms\":{{\"supported_quantiles\":[{percents}],\"computed_quantiles\":[{histograms}]}}}}"
            ),
            HistogramForm::Detailed => {
                push!(out, "{{\"histograms\":{{\"supported_percentiles\":[{percents}],\"details\":[{histograms}]}}}}");
            }
            HistogramForm::Cumulative | HistogramForm::Disjoint => {
                push!(out, "{{\"histograms\":[{histograms}]}}")
            }
        }
    }
    out.push_str("]}");
    out
}

/// Percent without the noise that multiplying 0.999 brings.
fn percent(quantile: f64) -> f64 {
    (quantile * 1000.0).round() / 10.0
}

fn separate(out: &mut String) {
    if !out.ends_with('[') {
        out.push(',');
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn histogram(reading: &Reading, form: HistogramForm, out: &mut String) {
    match form {
        HistogramForm::Summary => {
            out.push_str("\"values\":[");
            quantiles(reading, out);
            out.push(']');
        }
        HistogramForm::Detailed => {
            out.push_str("\"totals\":[");
            buckets(&reading.cumulative, out);
            out.push_str("],\"intervals\":[");
            buckets(&reading.interval, out);
            out.push_str("],\"percentiles\":[");
            quantiles(reading, out);
            out.push(']');
        }
        HistogramForm::Cumulative | HistogramForm::Disjoint => {
            out.push_str("\"buckets\":[");
            for (bound, interval, cumulative) in bounds(reading, form == HistogramForm::Disjoint) {
                separate(out);
                let bound = shortest(bound);
                push!(out, "{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{cumulative}}}");
            }
            out.push(']');
        }
    }
}

fn quantiles(reading: &Reading, out: &mut String) {
    let number = |value: f64| {
        if value.is_nan() { "null".to_owned() } else { shortest(value) }
    };
    let (interval, cumulative) = (reading.interval.quantiles(&QUANTILES), reading.cumulative.quantiles(&QUANTILES));
    for (interval, cumulative) in interval.into_iter().zip(cumulative) {
        separate(out);
        push!(out, "{{\"cumulative\":{},\"interval\":{}}}", number(cumulative), number(interval));
    }
}

fn buckets(distribution: &Distribution, out: &mut String) {
    for bucket in distribution.buckets() {
        separate(out);
        let (lower, width) = (shortest(bucket.lower), shortest(bucket.width));
        push!(out, "{{\"lower_bound\":{lower},\"width\":{width},\"count\":{}}}", bucket.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Histogram;
    use crate::sample::Scope;

    fn histogram(cumulative: &[u64]) -> Sample {
        let histogram = Histogram::default();
        cumulative.iter().for_each(|value| histogram.record(*value));
        let cumulative = Distribution::of([&histogram].into_iter());
        let reading = Reading { interval: Distribution::default(), cumulative };
        Sample::new(&Scope::plain("h."), "time", Value::Histogram(Box::new(reading)))
    }

    #[test]
    fn numbers_and_words_are_members_and_histograms_one_object_at_the_end() {
        let scope = Scope::plain("c.");
        let samples = [
            Sample::new(&scope, "v\"", Value::Text("e\n1".into())),
            Sample::new(&scope, "n", Value::Counter(2)),
            histogram(&[]),
        ];
        let nulls = ["{\"cumulative\":null,\"interval\":null}"; 10].join(",");
        let expected = [
            r#"{"stats":[{"name":"c.v\"","value":"e\n1"},{"name":"c.n","value":2},{"histograms":"#,
            r#"{"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100],"computed_quantiles":["#,
            r#"{"name":"h.time","values":["#,
            &nulls,
            "]}]}}]}",
        ];
        assert_eq!(json(&samples, HistogramForm::Summary), expected.concat());
    }

    #[test]
    fn details_and_buckets_look_as_envoy_printed_them() {
        let values = ["{\"cumulative\":1.05,\"interval\":null}"; 10].join(",");
        let expected = [
            r#"{"stats":[{"histograms":{"supported_percentiles":[0,25,50,75,90,95,99,99.5,99.9,100],"#,
            r#""details":[{"name":"h.time","totals":[{"lower_bound":1,"width":0.1,"count":1}],"#,
            r#""intervals":[],"percentiles":["#,
            &values,
            "]}]}}]}",
        ];
        assert_eq!(json(&[histogram(&[1])], HistogramForm::Detailed), expected.concat());
        let buckets = json(&[histogram(&[1])], HistogramForm::Disjoint);
        let begin = r#"{"stats":[{"histograms":[{"name":"h.time","buckets":[{"upper_bound":0.5,"interval":0,"#;
        assert!(buckets.starts_with(begin), "{buckets}");
        assert!(buckets.contains(
            r#"{"upper_bound":1,"interval":0,"cumulative":1},{"upper_bound":5,"interval":0,"cumulative":0}"#
        ));
        assert!(buckets.contains(r#"{"upper_bound":3e+05,"#), "{buckets}");
    }

    #[test]
    fn nothing_is_an_empty_list() {
        assert_eq!(json(&[], HistogramForm::Summary), r#"{"stats":[]}"#);
    }
}
