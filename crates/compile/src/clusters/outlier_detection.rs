//! When does a cluster pass an endpoint over? Ejection of outliers, and the share of healthy endpoints below which
//! health is ignored.

use lateen_xds::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use lateen_xds::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate, match_predicate};
use lateen_xds::envoy::config::route::v3::{HeaderMatcher, header_matcher};
use lateen_xds::envoy::extensions::upstreams::http::v3::http_protocol_options;
use lateen_xds::envoy::r#type::v3::Percent;

use super::connection_pool::positive;
use crate::message;
use crate::policy::Policy;

/// Success-rate ejection is always off; detectors that are not configured keep Envoy's own thresholds.
pub(super) fn apply(cluster: &mut Cluster, policy: &Policy<'_>) {
    let Some(outlier) = policy.outlier_detection else {
        return;
    };
    let enforcing = |threshold: Option<u32>| threshold.map(|threshold| if threshold > 0 { 100 } else { 0 });
    let split = outlier.split_external_local_origin_errors;
    let local = outlier.consecutive_local_origin_failures.filter(|failures| split && *failures > 0);
    cluster.outlier_detection = Some(OutlierDetection {
        enforcing_success_rate: Some(0),
        consecutive_5xx: outlier.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforcing(outlier.consecutive_5xx_errors),
        consecutive_gateway_failure: outlier.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforcing(outlier.consecutive_gateway_errors),
        interval: outlier.interval.map(message::duration),
        base_ejection_time: outlier.base_ejection_time.map(message::duration),
        max_ejection_percent: positive(outlier.max_ejection_percent),
        split_external_local_origin_errors: split,
        enforcing_local_origin_success_rate: split.then_some(0),
        consecutive_local_origin_failure: local,
        enforcing_consecutive_local_origin_failure: local.map(|_| 100),
        ..Default::default()
    });
    if let Some(common) = &mut cluster.common_lb_config {
        let percent = policy.min_health_percent();
        common.healthy_panic_threshold = Some(Percent { value: f64::from(percent) });
    }
}

/// Which responses count as errors, when a rule names their statuses.
pub(super) fn error_matcher(policy: &Policy<'_>) -> Option<http_protocol_options::OutlierDetection> {
    let mut rules: Vec<MatchPredicate> = policy
        .outlier_detection?
        .outlier_detection_http_error_codes
        .iter()
        .map(|status| MatchPredicate {
            rule: Some(match_predicate::Rule::HttpResponseHeadersMatch(has_status(*status))),
        })
        .collect();
    let matcher = match rules.len() {
        0 => return None,
        1 => rules.swap_remove(0),
        _ => MatchPredicate { rule: Some(match_predicate::Rule::OrMatch(match_predicate::MatchSet { rules })) },
    };
    Some(http_protocol_options::OutlierDetection { error_matcher: Some(matcher) })
}

fn has_status(status: u32) -> HttpHeadersMatch {
    let matcher = header_matcher::HeaderMatchSpecifier::StringMatch(message::exact(&status.to_string()));
    let header =
        HeaderMatcher { name: ":status".to_owned(), header_match_specifier: Some(matcher), ..Default::default() };
    HttpHeadersMatch { headers: vec![header] }
}
