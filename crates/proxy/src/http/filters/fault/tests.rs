use serde_json::{Value, json};

use super::*;
use crate::snapshot::filter::{ChainFilter, FilterChain, FilterKind, FilterSettings};
use crate::snapshot::fixture::{request, routes, selected};

/// The fault of a route.
fn with_fault(mut fields: Value, check: impl FnOnce(&Fault)) {
    fields["@type"] = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault".into();
    let config = routes(json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200},
        "typed_per_filter_config": {"f": fields}}]));
    let routed = selected(&config, &request("/", &[]));
    let id = crate::snapshot::ClusterNames::default().filter("f");
    let chain = FilterChain::new(vec![ChainFilter { id, kind: FilterKind::Fault, settings: None }]);
    match chain.settings(Some(&routed.route.filters)).next() {
        Some(FilterSettings::Fault(fault)) => check(fault),
        other => panic!("{other:?}"),
    }
}

/// Of how many of 100 000 seeds this is so.
fn count(mut decide: impl FnMut(&mut Rng) -> bool) -> usize {
    let mut rng = Rng::with_seed(11);
    (0..100_000).filter(|_| decide(&mut rng)).count()
}

#[test]
fn shares_of_every_denominator_are_met() {
    for (denominator, numerator, expected) in
        [("HUNDRED", 30, 30_000), ("TEN_THOUSAND", 30, 300), ("MILLION", 250_000, 25_000), ("HUNDRED", 0, 0)]
    {
        let share = json!({"numerator": numerator, "denominator": denominator});
        with_fault(json!({"abort": {"http_status": 503, "percentage": share}}), |fault| {
            let abort = fault.abort.as_ref().unwrap();
            let hits = count(|rng| status(abort, &request("/", &[]), rng).is_some());
            // Five standard deviations of a binomial distribution: by chance alone once in two million seeds.
            let tolerance = 5.0 * (expected as f64 * (1.0 - expected as f64 / 100_000.0)).sqrt();
            assert!((hits as f64 - expected as f64).abs() <= tolerance, "{denominator} {numerator}: {hits}");
        });
    }
}

#[test]
fn a_header_asks_for_a_delay_and_for_no_larger_share_than_configured() {
    let delay = json!({"delay": {"header_delay": {}, "percentage": {"numerator": 50}}});
    with_fault(delay, |fault| {
        let delay = fault.delay.as_ref().unwrap();
        let wait = |headers: &[(&str, &str)]| {
            let request = request("/", headers);
            let mut first = None;
            let hits = count(|rng| {
                let waits = duration(delay, &request, rng);
                first = first.or(waits);
                waits.is_some()
            });
            (first, (hits + 500) / 1000)
        };
        let ask = ("x-envoy-fault-delay-request", "25");
        let share = |text| ("x-envoy-fault-delay-request-percentage", text);
        assert_eq!(wait(&[]), (None, 0));
        assert_eq!(wait(&[ask]), (Some(Duration::from_millis(25)), 50));
        assert_eq!(wait(&[ask, share("10")]).1, 10);
        assert_eq!(wait(&[ask, share("90")]).1, 50);
        assert_eq!(wait(&[ask, share("many")]).1, 50);
        assert_eq!(wait(&[("x-envoy-fault-delay-request", "0")]), (None, 0));
        assert_eq!(wait(&[("x-envoy-fault-delay-request", "soon")]), (None, 0));
    });
}

#[test]
fn a_header_asks_for_a_status_within_bounds() {
    let abort = json!({"abort": {"header_abort": {}, "percentage": {"numerator": 100}}});
    with_fault(abort, |fault| {
        let abort = fault.abort.as_ref().unwrap();
        let found = |headers: &[(&str, &str)]| status(abort, &request("/", headers), &mut Rng::with_seed(1));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("x-envoy-fault-abort-request", "418")]), Some((418, None)));
        for wrong in ["199", "600", "-1", "x", ""] {
            assert_eq!(found(&[("x-envoy-fault-abort-request", wrong)]), None, "{wrong}");
        }
        assert_eq!(found(&[("x-envoy-fault-abort-grpc-request", "5")]), Some((200, Some(5))));
        let both = [("x-envoy-fault-abort-request", "500"), ("x-envoy-fault-abort-grpc-request", "5")];
        assert_eq!(found(&both), Some((500, None)));
        assert_eq!(found(&[both[0], ("x-envoy-fault-abort-request-percentage", "0")]), None);
    });
}

#[test]
fn a_response_is_slowed_down_as_configured_or_as_asked_for() {
    let all = json!({"numerator": 100});
    with_fault(json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 7}, "percentage": all}}), |fault| {
        let limit = fault.rate_limit.as_ref().unwrap();
        assert_eq!(throughput(limit, &request("/", &[]), &mut Rng::with_seed(1)), Some(7));
    });
    with_fault(json!({"response_rate_limit": {"header_limit": {}, "percentage": all}}), |fault| {
        let limit = fault.rate_limit.as_ref().unwrap();
        let asked = |text| {
            let request = request("/", &[("x-envoy-fault-throughput-response", text)]);
            throughput(limit, &request, &mut Rng::with_seed(1))
        };
        assert_eq!((asked("3"), asked("0"), asked("fast")), (Some(3), None, None));
    });
}

#[test]
fn a_fault_concerns_the_requests_of_its_cluster_nodes_and_headers_only() {
    let abort = json!({"http_status": 503, "percentage": {"numerator": 100}});
    with_fault(json!({"abort": abort, "upstream_cluster": "b"}), |fault| {
        let request = request("/", &[]);
        assert!(concerns(fault, &request, Some("b")));
        assert!(!concerns(fault, &request, Some("c")) && !concerns(fault, &request, None));
    });
    with_fault(json!({"abort": abort, "downstream_nodes": ["n1", "n2"]}), |fault| {
        let of = |node| request("/", &[("x-envoy-downstream-service-node", node)]);
        assert!(concerns(fault, &of("n2"), None));
        assert!(!concerns(fault, &of("n3"), None) && !concerns(fault, &request("/", &[]), None));
    });
    let headers = json!([{"name": "x", "present_match": true}, {"name": "y", "string_match": {"exact": "1"}}]);
    with_fault(json!({"abort": abort, "headers": headers}), |fault| {
        assert!(concerns(fault, &request("/", &[("x", ""), ("y", "1")]), None));
        assert!(!concerns(fault, &request("/", &[("x", "")]), None));
    });
}
