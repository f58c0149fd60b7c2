//! What happened to the configuration? Each change in one or two lines that a person can read in passing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lateen_compile::names::parse_outbound_cluster;
use lateen_config::{Diagnostic, Severity};
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::route::v3::Route;
use lateen_xds::envoy::config::route::v3::route::Action;
use lateen_xds::envoy::config::route::v3::route_action::ClusterSpecifier;

use crate::session::Effect;

/// Problems told one by one; of more only the number is told.
const MAX_PROBLEMS: usize = 3;

/// How a piece of news should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It worked.
    Good,
    /// It did not.
    Bad,
    /// For your information.
    Plain,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// When, from the beginning.
    pub(crate) at: Duration,
    /// How it should look.
    pub(crate) tone: Tone,
    /// One line.
    pub(crate) text: String,
}

/// The weights in force: service by its short name → subset → weight, as the last route of the service has them.
pub(crate) type Splits = BTreeMap<String, Vec<(String, u32)>>;

/// Reads the weights from what the data plane runs, so that they are those in force, not those in a file.
pub(crate) fn splits(set: &XdsSet) -> Splits {
    let hosts = set.routes.values().flat_map(|routes| &routes.message.virtual_hosts);
    hosts.filter_map(|host| split(host.routes.last()?)).collect()
}

fn split(route: &Route) -> Option<(String, Vec<(String, u32)>)> {
    let Some(Action::Route(action)) = &route.action else { return None };
    let weighted: Vec<(&str, u32)> = match action.cluster_specifier.as_ref()? {
        ClusterSpecifier::WeightedClusters(weighted) => weighted
            .clusters
            .iter()
            .map(|cluster| (cluster.name.as_str(), cluster.weight.unwrap_or_default()))
            .collect(),
        ClusterSpecifier::Cluster(name) => vec![(name.as_str(), 100)],
        _ => return None,
    };
    let mut service = None;
    let mut subsets = Vec::new();
    for (name, weight) in weighted {
        let cluster = parse_outbound_cluster(name).filter(|cluster| !cluster.subset.is_empty())?;
        service = cluster.host.split('.').next();
        subsets.push((cluster.subset.to_owned(), weight));
    }
    subsets.sort();
    Some((service?.to_owned(), subsets))
}

/// What to tell of a configuration that took effect, given the weights before and after.
pub(crate) fn of_effect(at: Duration, effect: &Effect, before: &Splits, after: &Splits) -> Vec<News> {
    let mut news = Vec::new();
    let mut tell = |tone, text| news.push(News { at, tone, text });
    let mut parts = Vec::new();
    for (service, weights) in after {
        if let Some(old) = before.get(service)
            && old != weights
        {
            parts.push(format!("{service} {} → {}", render(old), render(weights)));
        }
    }
    if parts.is_empty() {
        for (verb, subjects) in [
            ("added", &effect.changes.added),
            ("changed", &effect.changes.changed),
            ("removed", &effect.changes.removed),
        ] {
            match subjects.as_slice() {
                [] => {}
                [one] => parts.push(format!("{one} {verb}")),
                several => parts.push(format!("{} objects {verb}", several.len())),
            }
        }
    }
    if !parts.is_empty() {
        let millis = effect.took.as_secs_f64() * 1000.0;
        tell(Tone::Good, format!("{}, in force after {millis:.1} ms", parts.join("; ")));
    }
    let problems: Vec<String> = effect
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(problem)
        .chain(effect.applied.rejections.iter().map(ToString::to_string))
        .collect();
    for problem in problems.iter().take(MAX_PROBLEMS) {
        tell(Tone::Bad, problem.clone());
    }
    if problems.len() > MAX_PROBLEMS {
        tell(Tone::Bad, format!("and {} more problems", problems.len() - MAX_PROBLEMS));
    }
    match effect.changes.kept {
        0 if problems.is_empty() && parts.is_empty() => tell(Tone::Plain, "saved, with nothing changed".to_owned()),
        0 => {}
        1 => tell(Tone::Plain, "its last good form stays in force".to_owned()),
        kept => tell(Tone::Plain, format!("{kept} objects stay in force in their last good form")),
    }
    news
}

/// `routes.yaml:14:9: unknown field `wieght`; did you mean `weight`?`
fn problem(diagnostic: &Diagnostic) -> String {
    let mut text = String::new();
    if let Some(location) = &diagnostic.location {
        let file = Path::new(&*location.file).file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("{file}:{}:{}: ", location.line, location.column));
    }
    text.push_str(&diagnostic.message);
    if let Some(help) = &diagnostic.help {
        text.push_str("; ");
        text.push_str(help);
    }
    text
}

/// `v1 80, v2 20`; subsets of weight 0 are left out.
fn render(weights: &[(String, u32)]) -> String {
    let shown: Vec<String> =
        weights.iter().filter(|(_, weight)| *weight > 0).map(|(subset, weight)| format!("{subset} {weight}")).collect();
    shown.join(", ")
}
