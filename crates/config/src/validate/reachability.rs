//! Can each rule of a VirtualService ever apply? Rules behind one that takes everything, and conditions that earlier
//! ones have already taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{At, Rules};
use crate::diagnostic::{Severity, code};
use crate::istio::virtual_service::{HttpMatchRequest, StringMatch, VirtualService};
use crate::position::Position;

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &VirtualService) {
    let http = spec.http.iter().map(|route| route.r#match.iter().map(http_key).collect()).collect();
    let repeated = exact(rules, at.key("http"), http);
    prefixes(rules, at.key("http"), spec, &repeated);
    let tls = spec.tls.iter().map(|route| route.r#match.iter().map(|m| text_of(m.clone(), |m| &mut m.at)).collect());
    exact(rules, at.key("tls"), tls.collect());
    let tcp = spec.tcp.iter().map(|route| route.r#match.iter().map(|m| text_of(m.clone(), |m| &mut m.at)).collect());
    exact(rules, at.key("tcp"), tcp.collect());
}

/// Rule and match, by their numbers.
type Place = (usize, usize);
/// A condition with its place.
type Placed<'a> = (Place, &'a HttpMatchRequest);

/// A text that is the same for conditions that say the same, wherever they are written.
fn text_of<M: std::fmt::Debug>(mut condition: M, at: impl Fn(&mut M) -> &mut Position) -> String {
    *at(&mut condition) = Position::UNKNOWN;
    format!("{condition:?}")
}

fn http_key(condition: &HttpMatchRequest) -> String {
    text_of(HttpMatchRequest { name: None, ..condition.clone() }, |condition| &mut condition.at)
}

/// Conditions that say exactly what an earlier one says, and rules that only they lead to. Gives the places of such
/// conditions.
fn exact(rules: &mut Rules<'_>, at: At<'_>, all: Vec<Vec<String>>) -> BTreeSet<Place> {
    let mut first: HashMap<String, Place> = HashMap::new();
    let mut repeated = BTreeSet::new();
    let mut takes_all: Option<usize> = None;
    for (number, conditions) in all.into_iter().enumerate() {
        let at_rule = at.index(number);
        let is_unconditional = conditions.is_empty();
        let count = conditions.len();
        let mut repetitions = 0;
        for (index, key) in conditions.into_iter().enumerate() {
            let Some((rule, earlier)) = first.get(&key).copied() else {
                first.insert(key, (number, index));
                continue;
            };
            repetitions += 1;
            repeated.insert((number, index));
            let at_match = at_rule.key("match");
            let message = format!(
                "`{}` says the same as `{at}[{rule}].match[{earlier}]`, which comes first",
                at_match.index(index)
            );
            ineffective(rules, at_match.index(index), message);
        }
        if let Some(earlier) = takes_all {
            let message =
                format!("`{at_rule}` is never reached: `{at}[{earlier}]` has no `match` and takes everything");
            unreachable(rules, at_rule, message, "move it before that one; only the last can be without `match`");
        } else if count > 0 && repetitions == count {
            let message = format!("`{at_rule}` is never reached: earlier rules take all that it matches");
            unreachable(rules, at_rule, message, "remove it, or narrow its `match`");
        }
        if is_unconditional && takes_all.is_none() {
            takes_all = Some(number);
        }
    }
    repeated
}

/// Conditions on a prefix of the path that a shorter prefix before them has taken.
fn prefixes(rules: &mut Rules<'_>, at: At<'_>, spec: &VirtualService, repeated: &BTreeSet<Place>) {
    // By length, so that a path is only cut where some prefix could end.
    let mut earlier: BTreeMap<usize, HashMap<&str, Vec<Placed<'_>>>> = BTreeMap::new();
    for (number, route) in spec.http.iter().enumerate() {
        for (index, condition) in route.r#match.iter().enumerate() {
            let Some(StringMatch::Prefix(prefix)) = &condition.uri else {
                continue;
            };
            if repeated.contains(&(number, index)) {
                continue;
            }
            let covering = earlier.range(..=prefix.len()).find_map(|(length, known)| {
                let same = known.get(prefix.get(..*length)?)?;
                same.iter().find(|(_, earlier)| covers(earlier, condition)).map(|(place, _)| *place)
            });
            if let Some((rule, other)) = covering {
                let at = at.index(number);
                let at = at.key("match");
                let at = at.index(index);
                let message =
                    format!("`{at}` is within the prefix of `spec.http[{rule}].match[{other}]`, which comes first");
                ineffective(rules, at, message);
            }
            let of_length = earlier.entry(prefix.len()).or_default();
            of_length.entry(prefix).or_default().push(((number, index), condition));
        }
    }
}

/// True when a request with the path of `later` that meets its other conditions meets those of `earlier` too.
fn covers(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    fn text(earlier: &Option<StringMatch>, later: &Option<StringMatch>) -> bool {
        earlier.is_none() || earlier == later
    }
    fn texts(earlier: &BTreeMap<String, Option<StringMatch>>, later: &BTreeMap<String, Option<StringMatch>>) -> bool {
        earlier.iter().all(|(name, value)| later.get(name) == Some(value))
    }
    let port = |condition: &HttpMatchRequest| condition.port.unwrap_or(0);
    port(earlier) == port(later)
        && earlier.ignore_uri_case == later.ignore_uri_case
        && text(&earlier.method, &later.method)
        && text(&earlier.scheme, &later.scheme)
        && text(&earlier.authority, &later.authority)
        && texts(&earlier.headers, &later.headers)
        && texts(&earlier.query_params, &later.query_params)
        && texts(&earlier.without_headers, &later.without_headers)
        && earlier.source_labels.iter().all(|(name, value)| later.source_labels.get(name) == Some(value))
        && (earlier.source_namespace.is_none() || earlier.source_namespace == later.source_namespace)
        && (earlier.gateways.is_empty() || earlier.gateways == later.gateways)
}

fn unreachable(rules: &mut Rules<'_>, at: At<'_>, message: String, help: &str) {
    rules.find(Severity::Warning, code::UNREACHABLE_RULE, at, message, help);
}

fn ineffective(rules: &mut Rules<'_>, at: At<'_>, message: String) {
    rules.find(
        Severity::Info,
        code::INEFFECTIVE_MATCH,
        at,
        message,
        "remove one of the two, or put the narrower first",
    );
}
