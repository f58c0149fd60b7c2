//! What is one statistic at one moment, and in which order are many shown?
//!
//! A statistic has its full name (`cluster.b1.upstream_rq_200`) and, for Prometheus, the same taken apart: a family
//! (`cluster.upstream_rq`) and tags. Names are kept as a scope's prefix and a leaf, so that thousands of samples share
//! their prefixes.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use regex::Regex;

use crate::Distribution;

/// What the statistics of one thing have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The names' beginning, with its dot: `cluster.b1.`.
    pub prefix: String,
    /// The families' beginning, with its dot: `cluster.`.
    pub family: String,
    /// Tags: name and value.
    pub tags: Vec<(&'static str, String)>,
}

impl Scope {
    /// A scope without tags: names and families begin alike.
    #[must_use]
    pub fn plain(prefix: impl Into<String>) -> Arc<Self> {
        let prefix = prefix.into();
        Arc::new(Self { family: prefix.clone(), prefix, tags: Vec::new() })
    }
}

/// What a statistic shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Counter(u64),
    /// A level.
    Gauge(u64),
    /// A word.
    Text(String),
    /// Samples.
    Histogram(Box<Reading>),
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The samples of the last complete interval.
    pub interval: Distribution,
    /// All samples since the start.
    pub cumulative: Distribution,
}

/// One statistic at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it belongs.
    pub scope: Arc<Scope>,
    /// The name's end: `upstream_rq_200`.
    pub name: Cow<'static, str>,
    /// The family's end, where it differs from the name's: `upstream_rq`.
    pub family: Option<Cow<'static, str>>,
    /// A tag of its own, which comes before the scope's.
    pub tag: Option<(&'static str, String)>,
    /// What it shows.
    pub value: Value,
    /// Whether anything was ever recorded.
    pub used: bool,
}

impl Sample {
    /// A statistic whose family is its name.
    #[must_use]
    pub fn new(scope: &Arc<Scope>, name: impl Into<Cow<'static, str>>, value: Value) -> Self {
        let used = match &value {
            Value::Counter(value) | Value::Gauge(value) => *value > 0,
            Value::Text(text) => !text.is_empty(),
            Value::Histogram(reading) => !reading.cumulative.is_empty(),
        };
        Self { scope: scope.clone(), name: name.into(), family: None, tag: None, value, used }
    }

    /// Whether anything was ever recorded, where the value does not tell.
    #[must_use]
    pub fn used(mut self, used: bool) -> Self {
        self.used = used;
        self
    }

    /// A family and a tag of its own: `upstream_rq_200` is of family `upstream_rq` with the tag
    /// `envoy_response_code="200"`.
    #[must_use]
    pub fn tagged(mut self, family: impl Into<Cow<'static, str>>, tag: &'static str, value: String) -> Self {
        self.family = Some(family.into());
        self.tag = Some((tag, value));
        self
    }

    /// Appends the full name.
    pub fn push_name(&self, out: &mut String) {
        out.push_str(&self.scope.prefix);
        out.push_str(&self.name);
    }

    fn family_parts(&self) -> (&str, &str) {
        (&self.scope.family, self.family.as_deref().unwrap_or(&self.name))
    }

    /// Appends the family's full name, dots and all.
    pub fn push_family(&self, out: &mut String) {
        let (scope, leaf) = self.family_parts();
        out.push_str(scope);
        out.push_str(leaf);
    }

    /// The order of full names.
    #[must_use]
    pub fn compare_names(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.scope, &other.scope) {
            return self.name.cmp(&other.name);
        }
        chained(&self.scope.prefix, &self.name).cmp(chained(&other.scope.prefix, &other.name))
    }

    /// The order of families.
    #[must_use]
    pub fn compare_families(&self, other: &Self) -> Ordering {
        let ((scope, leaf), (other_scope, other_leaf)) = (self.family_parts(), other.family_parts());
        if scope == other_scope {
            return leaf.cmp(other_leaf);
        }
        chained(scope, leaf).cmp(chained(other_scope, other_leaf))
    }
}

fn chained<'a>(one: &'a str, other: &'a str) -> impl Iterator<Item = u8> + 'a {
    one.bytes().chain(other.bytes())
}

/// Keeps the samples whose full name the expression finds somewhere or, inverted, those where it does not.
pub fn retain_matching(samples: &mut Vec<Sample>, filter: &Regex, invert: bool) {
    let mut name = String::new();
    samples.retain(|sample| {
        name.clear();
        sample.push_name(&mut name);
        filter.is_match(&name) != invert
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_families_compare_as_if_they_were_written_out() {
        let scope = |prefix: &str, family: &str| {
            Arc::new(Scope { prefix: prefix.into(), family: family.into(), tags: Vec::new() })
        };
        let sample = |scope: &Arc<Scope>, name: &'static str| Sample::new(scope, name, Value::Counter(0));
        let short = sample(&scope("cluster.a.", "cluster."), "z");
        let long = sample(&scope("cluster.a.b.", "cluster.b."), "a");
        assert_eq!(short.compare_names(&long), "cluster.a.z".cmp("cluster.a.b.a"));
        assert_eq!(short.compare_families(&long), "cluster.z".cmp("cluster.b.a"));
    }

    #[test]
    fn a_filter_finds_parts_of_full_names() {
        let scope = Scope::plain("cluster.b1.");
        let all = [Sample::new(&scope, "a", Value::Counter(0)), Sample::new(&scope, "b", Value::Counter(0))];
        let names = |pattern: &str, invert| {
            let mut samples = all.to_vec();
            retain_matching(&mut samples, &Regex::new(pattern).unwrap(), invert);
            samples.into_iter().map(|sample| sample.name.into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("b1.a", false), ["a"]);
        assert_eq!(names("b1.a", true), ["b"]);
        assert_eq!(names("^b1", false), [""; 0]);
    }
}
