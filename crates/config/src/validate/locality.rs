//! Is a preference for near workloads right? Shares by locality, and which region takes over for which.

use super::{At, Rules};
use crate::istio::destination_rule::{LocalityDistribute, LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, setting: &LocalityLbSetting, detects_outliers: bool) {
    let has_failover = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if !setting.distribute.is_empty() && has_failover {
        let message = format!("`{at}` has both `distribute` and `failover`");
        rules.error(at.key("distribute"), message, "either shares are fixed, or one region takes over for another");
        return;
    }
    if !setting.failover.is_empty()
        && let Some(index) = topology_label(&setting.failover_priority, &[REGION, ZONE, SUB_ZONE])
    {
        let message = format!("`{at}.failoverPriority` names a place, and `failover` is given too");
        let help = "leave labels of regions, zones and sub-zones to `failover`";
        rules.error(at.key("failoverPriority").index(index), message, help);
        return;
    }
    distribute(rules, at.key("distribute"), &setting.distribute);
    failover(rules, at.key("failover"), &setting.failover);
    if has_failover && !detects_outliers {
        needs_outlier_detection(rules, at);
    }
}

pub(super) fn check_zone_aware(
    rules: &mut Rules<'_>,
    at: At<'_>,
    setting: &ZoneAwareLbSetting,
    detects_outliers: bool,
) {
    if let Some(index) = topology_label(&setting.failover_priority, &[REGION, ZONE, SUB_ZONE]) {
        let message = format!("`{at}.failoverPriority` names a place, which the proxy looks at anyway");
        rules.error(at.key("failoverPriority").index(index), message, "remove it from the list");
    }
    failover(rules, at.key("failover"), &setting.failover);
    if (!setting.failover.is_empty() || !setting.failover_priority.is_empty()) && !detects_outliers {
        needs_outlier_detection(rules, at);
    }
}

fn needs_outlier_detection(rules: &mut Rules<'_>, at: At<'_>) {
    let message = format!("`{at}` has no effect: without `outlierDetection` no workload is ever passed over");
    rules.warning(at, message, "give `outlierDetection` in the same policy");
}

/// The first entry that is one of `labels`, with or without a value.
fn topology_label(priorities: &[String], labels: &[&str]) -> Option<usize> {
    priorities.iter().position(|priority| {
        let label = priority.split_once('=').map_or(priority.as_str(), |(label, _)| label);
        labels.contains(&label)
    })
}

fn distribute(rules: &mut Rules<'_>, at: At<'_>, distribute: &[LocalityDistribute]) {
    let mut sources = Vec::new();
    for (index, entry) in distribute.iter().enumerate() {
        let at = at.index(index);
        let from = entry.from.as_deref().unwrap_or_default();
        locality(rules, at.key("from"), from);
        sources.push(from);
        let mut sum: u64 = 0;
        for (to, weight) in &entry.to {
            let at = at.key("to");
            let at = at.key(to);
            locality(rules, at, to);
            if !(1..=100).contains(weight) {
                rules.error(at, format!("`{at}` is no share: {weight}"), "give a number from 1 to 100");
            }
            sum += u64::from(*weight);
        }
        if sum != 100 {
            let message = format!("the shares of `{at}` add up to {sum}");
            rules.error(at.key("to"), message, "they have to be 100 in all");
        }
        let targets: Vec<&str> = entry.to.keys().map(String::as_str).collect();
        overlap(rules, at.key("to"), &targets);
    }
    overlap(rules, at, &sources);
}

fn locality(rules: &mut Rules<'_>, at: At<'_>, locality: &str) {
    let parts: Vec<&str> = locality.split('/').collect();
    let stars = locality.matches('*').count();
    let is_right = (1..=3).contains(&parts.len())
        && parts.iter().all(|part| !part.is_empty())
        && (stars == 0 || (stars == 1 && parts.last() == Some(&"*")));
    if !is_right {
        let help = "write `region/zone/sub-zone`; the last part may be `*`";
        rules.error(at, format!("`{locality}` is no locality"), help);
    }
}

fn overlap(rules: &mut Rules<'_>, at: At<'_>, localities: &[&str]) {
    for (index, locality) in localities.iter().enumerate() {
        if let Some(earlier) = localities[..index].iter().find(|earlier| includes(earlier, locality)) {
            let message = format!("the localities `{earlier}` and `{locality}` overlap");
            rules.error(at, message, "leave the narrower one out");
        }
    }
}

/// True when one of the localities lies within the other.
fn includes(a: &str, b: &str) -> bool {
    let parts = |locality: &str| -> Vec<String> {
        locality.trim_end_matches('*').trim_end_matches('/').split('/').map(str::to_owned).collect()
    };
    let (a, b) = (parts(a), parts(b));
    a.iter().zip(&b).all(|(a, b)| a == b || a.is_empty() || b.is_empty())
}

fn failover(rules: &mut Rules<'_>, at: At<'_>, failover: &[LocalityFailover]) {
    for (index, entry) in failover.iter().enumerate() {
        let at = at.index(index);
        let from = entry.from.as_deref().unwrap_or_default();
        let to = entry.to.as_deref().unwrap_or_default();
        if from == to {
            rules.error(at, format!("`{at}` leads from `{from}` to itself"), "");
        }
        for (field, region) in [("from", from), ("to", to)] {
            if region.contains(['/', '*']) {
                let message = format!("`{region}` is no region");
                rules.error(at.key(field), message, "give a region without zone and wildcard");
            }
        }
        if failover[..index].iter().any(|earlier| earlier.from == entry.from) {
            rules.error(at.key("from"), format!("the region `{from}` is there twice"), "remove one of the two");
        }
    }
}
