//! Is this value in range? The checks that several kinds share: ports, durations, shares, patterns, labels, `exportTo`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{At, Rules, names};
use crate::istio::virtual_service::{Percent, StringMatch};

/// Longest regular expression that Istio accepts, in characters.
const MAX_PATTERN: usize = 1024;

/// 1 to 65535.
pub(super) fn port(rules: &mut Rules<'_>, at: At<'_>, number: u32) {
    if !(1..=65535).contains(&number) {
        rules.error(at, format!("`{at}` is no port: {number}"), "ports are numbers from 1 to 65535");
    }
}

/// At least a millisecond, and whole milliseconds.
pub(super) fn duration(rules: &mut Rules<'_>, at: At<'_>, value: Option<Duration>) {
    let Some(value) = value else {
        return;
    };
    if value < Duration::from_millis(1) {
        let help = "Istio refuses shorter durations, zero too: leave the field out to turn it off";
        rules.error(at, format!("`{at}` must be at least 1ms"), help);
    } else if !value.subsec_nanos().is_multiple_of(1_000_000) {
        rules.error(at, format!("`{at}` must be a whole number of milliseconds"), "");
    }
}

/// The same, but zero is accepted.
pub(super) fn duration_or_zero(rules: &mut Rules<'_>, at: At<'_>, value: Option<Duration>) {
    duration(rules, at, value.filter(|value| !value.is_zero()));
}

/// Zero, or 0.0001 to 100.
pub(super) fn percentage(rules: &mut Rules<'_>, at: At<'_>, percent: Option<&Percent>) {
    let Some(value) = percent.map(|percent| percent.value) else {
        return;
    };
    if !(0.0..=100.0).contains(&value) || (value > 0.0 && value < 0.0001) {
        let at = at.key("value");
        rules.error(at, format!("`{at}` is no share: {value}"), "give 0, or a number from 0.0001 to 100");
    }
}

/// 0 to 100.
pub(super) fn whole_percent(rules: &mut Rules<'_>, at: At<'_>, value: Option<i32>) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        rules.error(at, format!("`{at}` is no share: {value}"), "give a number from 0 to 100");
    }
}

/// Zero or more.
pub(super) fn not_negative(rules: &mut Rules<'_>, at: At<'_>, value: Option<i32>) {
    if value.is_some_and(|value| value < 0) {
        rules.error(at, format!("`{at}` must not be below zero"), "");
    }
}

/// A regular expression that can be used.
pub(super) fn pattern(rules: &mut Rules<'_>, at: At<'_>, pattern: &str) {
    if pattern.is_empty() {
        rules.error(at, format!("`{at}` is empty"), "`.*` matches everything");
        return;
    }
    let length = pattern.chars().count();
    if length > MAX_PATTERN {
        rules.error(at, format!("`{at}` is longer than {MAX_PATTERN} characters: {length}"), "");
        return;
    }
    if let Err(error) = regex::Regex::new(&without_quoting(pattern)) {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let help = match pattern {
            "*" => "`.*` matches everything; `*` alone is a wildcard elsewhere",
            _ => "the syntax is that of RE2: there is no look-around and no back-reference",
        };
        rules.error(at, format!("`{at}` is no regular expression: {reason}"), help);
    }
}

/// RE2 takes `\Q...\E` as text; the library that checks here does not know it.
fn without_quoting(pattern: &str) -> String {
    let mut result = String::new();
    let mut rest = pattern;
    while let Some((before, quoted)) = rest.split_once("\\Q") {
        // An escaped backslash before a `Q` begins no quotation.
        if (before.len() - before.trim_end_matches('\\').len()) % 2 == 1 {
            result.push_str(before);
            result.push_str("\\Q");
            rest = quoted;
            continue;
        }
        let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
        result.push_str(before);
        result.push_str(&regex::escape(text));
        rest = after;
    }
    result.push_str(rest);
    result
}

/// What an empty text means in a [`StringMatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmptyPrefix {
    /// It matches everything.
    Allowed,
    /// It is refused.
    Refused,
}

/// A condition on a text.
pub(super) fn string_match(rules: &mut Rules<'_>, at: At<'_>, value: &StringMatch, empty_prefix: EmptyPrefix) {
    match value {
        StringMatch::Prefix(prefix) if prefix.is_empty() && empty_prefix == EmptyPrefix::Refused => {
            let at = at.key("prefix");
            rules.error(at, format!("`{at}` is empty"), "write `{}` to ask for presence only");
        }
        StringMatch::Regex(text) => pattern(rules, at.key("regex"), text),
        _ => {}
    }
}

/// Labels, as Kubernetes takes them.
pub(super) fn labels(rules: &mut Rules<'_>, at: At<'_>, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        let at = at.key(key);
        if !names::is_label_key(key) {
            rules.error_at_key(at, format!("`{key}` is no key of a label"), "");
        }
        if !names::is_label_value(value) {
            rules.error(at, format!("`{value}` is no value of a label"), "up to 63 letters, digits, `-`, `_` and `.`");
        }
    }
}

/// Labels of a selector, which select nothing when they hold a wildcard. False stops the other rules.
pub(super) fn selector(rules: &mut Rules<'_>, at: At<'_>, labels: &BTreeMap<String, String>) -> bool {
    let mut sound = true;
    for (key, value) in labels {
        let at = at.key(key);
        if key.is_empty() {
            rules.error_at_key(at, "a label of a selector has no name", "");
            sound = false;
        } else if key.contains('*') || value.contains('*') {
            rules.error(at, format!("`{at}` holds a wildcard, and selectors know none"), "");
            sound = false;
        }
    }
    if labels.is_empty() {
        rules.warning(at, format!("`{at}` is empty, so it selects all workloads of the namespace"), "");
    }
    sound
}

/// As many items as the schema of the kind allows.
pub(super) fn at_most(rules: &mut Rules<'_>, at: At<'_>, limit: usize, count: usize) {
    if count > limit {
        rules.error(at.index(limit), format!("`{at}` has {count} entries; {limit} are allowed"), "");
    }
}

/// Whether `~`, nobody, is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// It is.
    Allowed,
    /// It is not.
    Refused,
}

/// Namespaces that see an object.
pub(super) fn export_to(rules: &mut Rules<'_>, at: At<'_>, namespaces: &[String], nobody: Nobody) {
    let own = rules.namespace().to_owned();
    let mut seen = BTreeSet::new();
    for (index, namespace) in namespaces.iter().enumerate() {
        let at = at.index(index);
        let is_known = match namespace.as_str() {
            "*" | "." => true,
            "~" => nobody == Nobody::Allowed,
            name => names::is_label(name),
        };
        if !is_known {
            let help = "give the name of a namespace, `.` for this one, or `*` for all";
            rules.error(at, format!("`{namespace}` is no namespace to export to"), help);
        }
        let name = if namespace == "." { own.as_str() } else { namespace.as_str() };
        if !seen.insert(name.to_owned()) {
            rules.error(at, format!("`{namespace}` is in the list twice"), "");
        }
        if matches!(namespace.as_str(), "*" | "~") && namespaces.len() > 1 {
            rules.error(at, format!("`{namespace}` has to be alone"), "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_parts_of_patterns_are_text() {
        assert_eq!(without_quoting(r"a\Q.*\Eb"), r"a\.\*b");
        assert_eq!(without_quoting(r"a\Q(("), r"a\(\(");
        assert_eq!(without_quoting(r"a\\Qb"), r"a\\Qb");
        assert_eq!(without_quoting(r"a+"), r"a+");
    }
}
