//! Which counters must agree after a page was played?
//!
//! Both admin endpoints print `name: value` lines under `/stats`. What counts requests must be equal on both sides; what
//! counts connections, bytes or the machinery of each proxy depends on sockets and timing and is left out. A counter that
//! is not printed is 0, because the two sides print unused counters at different times.

use std::collections::BTreeMap;

/// Counters of a cluster that are compared, without the `cluster.NAME.` before them.
const CLUSTER: [&str; 33] = [
    "retry_or_shadow_abandoned",
    "upstream_rq_total",
    "upstream_rq_active_overflow",
    "upstream_rq_completed",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_per_try_idle_timeout",
    "upstream_rq_maintenance_mode",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_rq_retry",
    "upstream_rq_retry_backoff_exponential",
    "upstream_rq_retry_backoff_ratelimited",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_success",
    "upstream_rq_rx_reset",
    "upstream_rq_tx_reset",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_none_healthy",
    "upstream_cx_max_requests",
    "upstream_cx_overflow",
    "upstream_cx_protocol_error",
    "membership_total",
    "outlier_detection.ejections_detected_consecutive_5xx",
    "outlier_detection.ejections_detected_consecutive_gateway_failure",
    "outlier_detection.ejections_detected_consecutive_local_origin_failure",
    "outlier_detection.ejections_consecutive_5xx",
    "outlier_detection.ejections_enforced_consecutive_5xx",
    "outlier_detection.ejections_enforced_total",
    "outlier_detection.ejections_overflow",
    "outlier_detection.ejections_total",
];

/// Counters of a connection manager that are compared, without the `http.PREFIX.` before them.
const HTTP: [&str; 26] = [
    "cors.origin_invalid",
    "cors.origin_valid",
    "downstream_cx_protocol_error",
    "downstream_rq_completed",
    "downstream_cx_upgrades_total",
    "downstream_rq_failed_path_normalization",
    "downstream_rq_header_timeout",
    "downstream_rq_http1_total",
    "downstream_rq_idle_timeout",
    "downstream_rq_max_duration_reached",
    "downstream_rq_non_relative_path",
    "downstream_rq_timeout",
    "downstream_rq_too_large",
    "downstream_rq_total",
    "downstream_rq_ws_on_non_ws_route",
    "fault.aborts_injected",
    "fault.active_faults",
    "fault.delays_injected",
    "fault.faults_overflow",
    "fault.response_rl_injected",
    "no_cluster",
    "no_route",
    "rq_direct_response",
    "rq_redirect",
    "rq_reset_after_downstream_response_started",
    "rq_total",
];

/// The compared counters of a `/stats` text, by their full names, without those that are 0.
pub fn select(stats: &str) -> BTreeMap<String, u64> {
    let parse = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        let value: u64 = value.trim().parse().ok()?;
        (value != 0 && is_compared(name)).then(|| (name.to_owned(), value))
    };
    stats.lines().filter_map(parse).collect()
}

/// What differs between two selections: name, left value, right value.
pub fn differences(left: &BTreeMap<String, u64>, right: &BTreeMap<String, u64>) -> Vec<(String, u64, u64)> {
    let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let value = |side: &BTreeMap<String, u64>, name: &String| side.get(name).copied().unwrap_or(0);
    names
        .into_iter()
        .map(|name| (name.clone(), value(left, name), value(right, name)))
        .filter(|(_, left, right)| left != right)
        .collect()
}

fn is_compared(name: &str) -> bool {
    // Istio ends the variable part of a name with `;`, since cluster names themselves contain dots.
    let Some((owner, counter)) = name.split_once(";.") else { return false };
    if owner.starts_with("cluster.") {
        let code = ["external.", "internal.", "retry."]
            .iter()
            .find_map(|prefix| counter.strip_prefix(prefix))
            .unwrap_or(counter);
        CLUSTER.contains(&code) || is_status(code.strip_prefix("upstream_rq_"))
    } else if owner.starts_with("http.") {
        HTTP.contains(&counter) || is_status(counter.strip_prefix("downstream_rq_"))
    } else {
        false
    }
}

/// `200` or `2xx`.
fn is_status(text: Option<&str>) -> bool {
    text.is_some_and(|text| {
        let bytes = text.as_bytes();
        bytes.len() == 3 && bytes[0].is_ascii_digit() && (text.ends_with("xx") || bytes.iter().all(u8::is_ascii_digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_requests_are_selected_and_the_rest_is_not() {
        let selected = select(
            "cluster.outbound|80||a.b;.upstream_rq_200: 3\ncluster.outbound|80||a.b;.external.upstream_rq_2xx: 3\n\
             cluster.outbound|80||a.b;.upstream_cx_total: 1\nhttp.outbound_0.0.0.0_80;.downstream_rq_2xx: 3\n\
             http.outbound_0.0.0.0_80;.downstream_rq_5xx: 0\nhttp.admin.downstream_rq_2xx: 9\nserver.uptime: 3\n\
             http.outbound_0.0.0.0_80;.downstream_rq_time: No recorded values\n",
        );
        let names: Vec<&str> = selected.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "cluster.outbound|80||a.b;.external.upstream_rq_2xx",
                "cluster.outbound|80||a.b;.upstream_rq_200",
                "http.outbound_0.0.0.0_80;.downstream_rq_2xx"
            ]
        );
    }

    #[test]
    fn a_missing_counter_is_zero() {
        let side = |text: &str| select(text);
        let one = side("http.x;.rq_total: 2\nhttp.x;.no_route: 1\n");
        let other = side("http.x;.rq_total: 2\n");
        assert_eq!(differences(&one, &other), [("http.x;.no_route".to_owned(), 1, 0)]);
        assert!(differences(&one, &one).is_empty());
    }
}
