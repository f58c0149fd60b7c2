//! Is a DestinationRule right? Its host and subsets; policies are in `traffic_policy`.

use std::collections::BTreeSet;

use super::names::{is_label, is_wildcard_domain};
use super::values::{self, Nobody};
use super::{At, Rules, traffic_policy};
use crate::istio::destination_rule::DestinationRule;

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &DestinationRule) {
    if !is_wildcard_domain(&spec.host) {
        let help = "a host is the name of a service, perhaps with `*.` in front";
        rules.error(at.key("host"), format!("`{}` is no host", spec.host), help);
    }
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy::check(rules, at.key("trafficPolicy"), policy);
    }
    let mut names = BTreeSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let at = at.key("subsets");
        let at = at.index(index);
        if !is_label(&subset.name) {
            let message = format!("`{}` is no name of a subset", subset.name);
            rules.error(at.key("name"), message, "up to 63 letters, digits and dashes");
        } else if !names.insert(&subset.name) {
            let message = format!("the subset `{}` is there twice", subset.name);
            rules.error(at.key("name"), message, "remove one of the two, or give it another name");
        }
        values::labels(rules, at.key("labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy::check(rules, at.key("trafficPolicy"), policy);
        }
    }
    values::export_to(rules, at.key("exportTo"), &spec.export_to, Nobody::Refused);
    if let Some(selector) = &spec.workload_selector {
        values::selector(rules, at.key("workloadSelector").key("matchLabels"), &selector.match_labels);
        let own = rules.namespace().to_owned();
        let foreign = spec.export_to.iter().position(|namespace| namespace != "." && *namespace != own);
        if let Some(index) = foreign {
            let message = "a DestinationRule with `workloadSelector` is for its own namespace only";
            rules.error(at.key("exportTo").index(index), message, "write `.`, or leave `exportTo` out");
        }
    }
}
