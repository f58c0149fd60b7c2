//! Is a Telemetry right? Its selection, and what each section says of providers, tags and expressions.

use super::{At, Rules, values};
use crate::istio::telemetry::{
    AccessLogging, CustomTag, CustomTagSource, MetricMatch, Metrics, ProviderRef, TagOperation, Telemetry, Tracing,
};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, spec: &Telemetry) {
    if let Some(selector) = &spec.selector {
        values::selector(rules, at.key("selector").key("matchLabels"), &selector.match_labels);
        let others = [("targetRef", spec.target_ref.is_some()), ("targetRefs", !spec.target_refs.is_empty())];
        for (field, _) in others.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("the Telemetry has both `selector` and `{field}`");
            rules.error(at.key(field), message, "remove one of the two");
        }
    }
    if spec.target_ref.is_some() && !spec.target_refs.is_empty() {
        let message = "the Telemetry has both `targetRef` and `targetRefs`";
        rules.error(at.key("targetRef"), message, "move it into `targetRefs`");
    }
    if spec.tracing.len() > 1 {
        let message = "only the first of several entries of `spec.tracing` counts";
        rules.warning(at.key("tracing").index(1), message, "make them one");
    }
    for (index, tracing) in spec.tracing.iter().enumerate() {
        check_tracing(rules, at.key("tracing").index(index), tracing);
    }
    for (index, metrics) in spec.metrics.iter().enumerate() {
        check_metrics(rules, at.key("metrics").index(index), metrics);
    }
    for (index, logging) in spec.access_logging.iter().enumerate() {
        check_logging(rules, at.key("accessLogging").index(index), logging);
    }
}

fn providers(rules: &mut Rules<'_>, at: At<'_>, providers: &[ProviderRef]) {
    for (index, provider) in providers.iter().enumerate() {
        if provider.name.is_empty() {
            let at = at.index(index);
            rules.error(at, format!("`{at}` has no `name`"), "names are those of `extensionProviders` of the mesh");
        }
    }
}

fn check_tracing(rules: &mut Rules<'_>, at: At<'_>, tracing: &Tracing) {
    providers(rules, at.key("providers"), &tracing.providers);
    if tracing.providers.len() > 1 {
        let at = at.key("providers");
        rules.warning(at.index(1), format!("only the first of several `{at}` counts"), "name one");
    }
    if let Some(share) = tracing.random_sampling_percentage.filter(|share| !(0.0..=100.0).contains(share)) {
        let at = at.key("randomSamplingPercentage");
        rules.error(at, format!("`{at}` is no share: {share}"), "give a number from 0 to 100");
    }
    for (name, tag) in &tracing.custom_tags {
        let at = at.key("customTags");
        custom_tag(rules, at.key(name), name, tag);
    }
}

/// A tag of traces, here and in the mesh's providers.
pub(super) fn custom_tag(rules: &mut Rules<'_>, at: At<'_>, name: &str, tag: &CustomTag) {
    if name.is_empty() {
        rules.error_at_key(at, "a tag has no name", "");
    }
    let (field, inner, text) = match &tag.source {
        None => {
            rules.error(at, format!("`{at}` has no value"), "give `literal`, `environment`, `header` or `formatter`");
            return;
        }
        Some(CustomTagSource::Literal(tag)) => ("literal", "value", &tag.value),
        Some(CustomTagSource::Environment(tag)) => ("environment", "name", &tag.name),
        Some(CustomTagSource::Header(tag)) => ("header", "name", &tag.name),
        Some(CustomTagSource::Formatter(tag)) => ("formatter", "value", &tag.value),
    };
    if text.is_empty() {
        let at = at.key(field);
        rules.error(at, format!("`{at}` has no `{inner}`"), "");
    }
}

fn check_metrics(rules: &mut Rules<'_>, at: At<'_>, metrics: &Metrics) {
    providers(rules, at.key("providers"), &metrics.providers);
    values::duration(rules, at.key("reportingInterval"), metrics.reporting_interval);
    for (index, change) in metrics.overrides.iter().enumerate() {
        let at = at.key("overrides");
        let at = at.index(index);
        let metric = change.r#match.as_ref().and_then(|selector| selector.metric_match.as_ref());
        if let Some(MetricMatch::CustomMetric(name)) = metric
            && name.is_empty()
        {
            rules.error(at.key("match").key("customMetric"), format!("`{at}.match.customMetric` is empty"), "");
        }
        for (name, tag) in &change.tag_overrides {
            let at = at.key("tagOverrides");
            let at = at.key(name);
            let is_given = tag.value.as_deref().is_some_and(|value| !value.is_empty());
            if name.is_empty() {
                rules.error_at_key(at, "a label has no name", "");
            }
            match tag.operation {
                TagOperation::Upsert if !is_given => {
                    rules.error(at, format!("`{at}` has no `value`"), "give an expression, or `operation: REMOVE`");
                }
                TagOperation::Remove if is_given => {
                    rules.error(
                        at.key("value"),
                        format!("`{at}` is removed, and has a `value`"),
                        "remove one of the two",
                    );
                }
                _ => {}
            }
        }
    }
}

fn check_logging(rules: &mut Rules<'_>, at: At<'_>, logging: &AccessLogging) {
    providers(rules, at.key("providers"), &logging.providers);
    if let Some(filter) = &logging.filter
        && filter.expression.trim().is_empty()
    {
        let at = at.key("filter");
        rules.error(at, format!("`{at}` has no `expression`"), "for example `response.code >= 400`");
    }
}
