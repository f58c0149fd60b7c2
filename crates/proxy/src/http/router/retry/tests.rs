use serde_json::{Value, json};

use super::*;
use crate::snapshot::fixture::{request, response, routes, selected};
use crate::snapshot::route::Action;

const NOW: SystemTime = UNIX_EPOCH;

/// The retries of a request under a policy.
fn with_policy(policy: Value, headers: &[(&str, &str)], check: impl FnOnce(&mut Retries<'_>)) {
    let config = routes(json!([{"match": {"prefix": "/"}, "route": {"cluster": "b", "retry_policy": policy}}]));
    let mut request = request("/", headers);
    let routed = selected(&config, &request);
    let Action::Forward(forward) = &routed.route.action else { panic!("no cluster") };
    check(&mut Retries::new(forward.retry.as_deref(), &mut request));
}

/// Whether a policy with this `retry_on` retries a response.
fn retries(retry_on: &str, status: u16, headers: &[(&str, &str)]) -> bool {
    let policy = json!({"retry_on": retry_on, "retriable_status_codes": [418],
        "retriable_headers": [{"name": "x-again", "present_match": true}]});
    let mut wanted = false;
    with_policy(policy, &[], |retries| wanted = retries.wants_response(&response(status, headers), NOW));
    wanted
}

#[test]
fn each_token_retries_the_responses_that_it_names() {
    for (token, retried, passed) in [
        ("5xx", vec![500, 503, 599], vec![200, 404, 499]),
        ("gateway-error", vec![502, 503, 504], vec![500, 501, 505]),
        ("retriable-4xx", vec![409], vec![408, 429, 500]),
        ("retriable-status-codes", vec![418], vec![417, 503]),
        ("reset", vec![], vec![500, 503]),
        ("connect-failure", vec![], vec![503]),
        ("refused-stream", vec![], vec![503]),
        ("reset-before-request", vec![], vec![503]),
        ("no-such-token", vec![], vec![500]),
        (" 5xx , retriable-4xx", vec![500, 409], vec![200]),
    ] {
        for status in retried {
            assert!(retries(token, status, &[]), "{token} {status}");
        }
        for status in passed {
            assert!(!retries(token, status, &[]), "{token} {status}");
        }
    }
    assert!(retries("retriable-headers", 200, &[("x-again", "1")]) && !retries("retriable-headers", 200, &[]));
}

#[test]
fn grpc_tokens_look_at_the_status_in_the_head() {
    for (token, status) in [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ] {
        assert!(retries(token, 200, &[("grpc-status", status)]), "{token}");
        assert!(!retries(token, 200, &[("grpc-status", "0")]) && !retries(token, 503, &[]), "{token}");
    }
}

#[test]
fn a_rate_limited_response_needs_its_own_token() {
    let limited = [("x-envoy-ratelimited", "true")];
    assert!(!retries("5xx", 503, &limited));
    assert!(retries("envoy-ratelimited", 429, &limited) && !retries("envoy-ratelimited", 429, &[]));
}

#[test]
fn each_token_retries_the_failures_that_it_names() {
    use ResetKind::{ConnectFailure, ConnectTimeout, PerTryIdleTimeout, PerTryTimeout, ProtocolError, Termination};
    let every = [ConnectFailure, ConnectTimeout, Termination, ProtocolError, PerTryTimeout, PerTryIdleTimeout];
    for (token, retried) in [
        ("5xx", &every[..]),
        ("gateway-error", &every),
        ("reset", &every),
        ("connect-failure", &every[..2]),
        ("reset-before-request", &every[..2]),
        ("retriable-status-codes", &[]),
        ("unavailable", &[]),
    ] {
        with_policy(json!({"retry_on": token, "retriable_status_codes": [503, 504]}), &[], |retries| {
            let found: Vec<_> = every.into_iter().filter(|kind| retries.wants_reset(Reset::plain(*kind))).collect();
            assert_eq!(found, retried, "{token}");
        });
    }
}

#[test]
fn waits_are_below_a_bound_that_doubles_up_to_the_maximum() {
    let policy = json!({"retry_on": "5xx", "num_retries": 6,
        "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"}});
    let mut longest = [Duration::ZERO; 6];
    let mut rng = Rng::with_seed(5);
    for _ in 0..2000 {
        with_policy(policy.clone(), &[], |retries| {
            for longest in &mut longest {
                *longest = (*longest).max(retries.back_off(&mut rng).0);
            }
            assert!(retries.is_exhausted());
        });
    }
    for (longest, bound) in longest.into_iter().zip([100, 200, 400, 500, 500, 500].map(Duration::from_millis)) {
        assert!(longest < bound && longest > bound * 99 / 100, "{longest:?} of {bound:?}");
    }
}

#[test]
fn a_response_may_ask_for_its_wait_within_the_maximum() {
    let policy = json!({"retry_on": "5xx", "num_retries": 9, "rate_limited_retry_back_off": {
        "reset_headers": [{"name": "retry-after", "format": "SECONDS"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}],
        "max_interval": "60s"}});
    let now = UNIX_EPOCH + Duration::from_secs(1000);
    with_policy(policy, &[], |retries| {
        let mut rng = Rng::with_seed(2);
        let mut wait = |headers: &[(&str, &str)]| {
            assert!(retries.wants_response(&response(503, headers), now));
            retries.back_off(&mut rng)
        };
        for (headers, seconds) in [
            (&[("retry-after", "4")][..], 4),
            (&[("x-reset", "1010")], 10),
            (&[("retry-after", "61"), ("x-reset", "1002")], 2),
        ] {
            let (wait, asked) = wait(headers);
            let least = Duration::from_secs(seconds);
            assert!(asked && wait >= least && wait < least * 3 / 2, "{headers:?}: {wait:?}");
        }
        for headers in [
            &[][..],
            &[("retry-after", "0")],
            &[("retry-after", "61")],
            &[("retry-after", "soon")],
            &[("x-reset", "999")],
            &[("x-reset", "18446744073709551615")],
        ] {
            assert!(!wait(headers).1, "{headers:?}");
        }
    });
}

#[test]
fn an_internal_client_adds_its_wishes_and_they_go_no_further() {
    let mut request = request(
        "/",
        &[
            ("x-envoy-retry-on", "retriable-status-codes,retriable-headers,unavailable"),
            ("x-envoy-retry-grpc-on", "cancelled,5xx"),
            ("x-envoy-max-retries", "7"),
            ("x-envoy-retriable-status-codes", "404, x,410"),
            ("x-envoy-retriable-header-names", "X-Again,x-other"),
            ("x-kept", "1"),
        ],
    );
    let mut retries = Retries::new(None, &mut request);
    assert_eq!(crate::snapshot::fixture::lines(&request), "x-kept: 1");
    assert_eq!((retries.left, retries.may_retry()), (7, true));
    let mut wants = |status, headers: &[_]| retries.wants_response(&response(status, headers), NOW);
    assert!(wants(404, &[]) && wants(410, &[]) && !wants(411, &[]) && !wants(500, &[]));
    assert!(wants(200, &[("x-again", "")]) && wants(200, &[("x-other", "1")]));
    assert!(wants(200, &[("grpc-status", "1")]) && !wants(200, &[("grpc-status", "14")]));
    let (wait, _) = retries.back_off(&mut Rng::with_seed(1));
    assert!(wait < Duration::from_millis(25));
}

#[test]
fn a_policy_may_be_for_some_requests_only_and_their_number_of_retries_may_be_wished() {
    let policy = json!({"retry_on": "5xx", "num_retries": 3,
        "retriable_request_headers": [{"name": "x-idempotent", "present_match": true}]});
    with_policy(policy.clone(), &[], |retries| assert!(!retries.may_retry()));
    with_policy(policy.clone(), &[("x-idempotent", "1")], |retries| {
        assert!(retries.may_retry() && !retries.is_exhausted());
        assert_eq!(retries.left, 3);
    });
    let none = [("x-idempotent", "1"), ("x-envoy-max-retries", "0")];
    with_policy(policy, &none, |retries| assert!(retries.may_retry() && retries.is_exhausted()));
}
