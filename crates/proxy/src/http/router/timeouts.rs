//! How long may a request take, all tries together and each of them? The route says so, and an internal client may.

use std::time::Duration;

use super::forward::number;
use crate::http::head::{Head, Known};
use crate::http::reply::is_grpc;
use crate::snapshot::route::Forward;

/// The timeouts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For the whole exchange from the end of the request on; `None` is no limit.
    pub(crate) all: Option<Duration>,
    /// For one try.
    pub(crate) per_try: Option<Duration>,
    /// For one try without a byte.
    pub(crate) per_try_idle: Option<Duration>,
    /// For the stream of the client, whatever moves on it.
    pub(crate) stream: Option<Duration>,
    /// For the stream to the upstream, whatever moves on it.
    pub(crate) upstream_stream: Option<Duration>,
    /// Who is late gets 204 without a body.
    pub(crate) alternative_response: bool,
}

impl Timeouts {
    /// The timeouts of a request on a route. What the client wished is taken out of the request; wishes of external
    /// clients were removed when it came in, and where one is left it does not count. `of_manager` is the connection
    /// manager's limit of streams.
    pub(crate) fn take(request: &mut Head, route: &Forward, of_manager: Option<Duration>, internal: bool) -> Self {
        let policy = route.retry.as_deref();
        let mut timeouts = Self {
            all: of_route(request, route),
            stream: stream_limit(request, route, of_manager),
            per_try: policy.and_then(|policy| policy.per_try_timeout),
            per_try_idle: policy.and_then(|policy| policy.per_try_idle_timeout),
            ..Self::default()
        };
        if internal && request.has_envoy_headers() {
            timeouts.take_wishes(request);
        }
        // A try cannot take longer than all of them.
        timeouts.per_try = timeouts.per_try.filter(|per_try| timeouts.all.is_none_or(|all| *per_try < all));
        timeouts
    }

    /// Whether a try has a time of its own.
    #[inline]
    pub(crate) fn limit_tries(&self) -> bool {
        self.per_try.is_some() || self.per_try_idle.is_some() || self.upstream_stream.is_some()
    }

    fn take_wishes(&mut self, request: &mut Head) {
        if let Some(millis) = request.get(Known::XEnvoyUpstreamRqTimeoutMs).and_then(millis) {
            self.all = Some(millis).filter(|timeout| !timeout.is_zero());
            request.remove_known(Known::XEnvoyUpstreamRqTimeoutMs);
        }
        if let Some(millis) = request.get(Known::XEnvoyUpstreamRqPerTryTimeoutMs).and_then(millis) {
            self.per_try = Some(millis).filter(|timeout| !timeout.is_zero());
        }
        if let Some(millis) = request.get(Known::XEnvoyUpstreamStreamDurationMs).and_then(millis) {
            self.upstream_stream = Some(millis);
        }
        self.alternative_response = request.remove_known(Known::XEnvoyUpstreamRqTimeoutAltResponse);
        request.remove_known(Known::XEnvoyUpstreamRqPerTryTimeoutMs);
        request.remove_known(Known::XEnvoyUpstreamStreamDurationMs);
    }

    /// Tells the upstream how long an answer is waited for: what is left of the whole time, or the time of a try if that
    /// is less. gRPC requests carry it in their own header too.
    pub(crate) fn tell_upstream(&self, request: &mut Head, route: &Forward, left: Option<Duration>) {
        if route.limits_streams && is_grpc(request) {
            match self.stream {
                Some(limit) => request.set_in_place(Known::GrpcTimeout, format!("{}m", limit.as_millis()).as_bytes()),
                None => drop(request.remove_known(Known::GrpcTimeout)),
            }
        }
        let Some(shown) = [left, self.per_try].into_iter().flatten().min() else { return };
        // The clock moved on since the deadline was set, by less than what is shown.
        let millis = u64::try_from((shown + Duration::from_micros(999)).as_millis()).unwrap_or(u64::MAX);
        let mut space = [0; 20];
        let digits = number(millis, &mut space);
        request.set_in_place(Known::XEnvoyExpectedRqTimeoutMs, digits);
        if route.grpc_timeout.is_some() && !route.limits_streams && is_grpc(request) {
            let mut value = [0; 21];
            value[..digits.len()].copy_from_slice(digits);
            value[digits.len()] = b'm';
            request.set_in_place(Known::GrpcTimeout, &value[..=digits.len()]);
        }
    }
}

/// The limit of a stream: on a route that limits streams the client may bring its own, which the route may cap; else the
/// route's limit, or else the connection manager's.
pub(crate) fn stream_limit(request: &Head, route: &Forward, of_manager: Option<Duration>) -> Option<Duration> {
    if route.limits_streams
        && let Some(grpc) = &route.grpc_timeout
        && let Some(asked) = request.get(Known::GrpcTimeout).and_then(parse_grpc_timeout)
    {
        return Some(grpc.max.map_or(asked, |max| asked.min(max)).saturating_sub(grpc.offset));
    }
    match route.max_stream_duration {
        Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
        None => of_manager,
    }
}

/// The timeout of the route: a gRPC request brings its own, which the route may cap.
fn of_route(request: &Head, route: &Forward) -> Option<Duration> {
    if route.limits_streams {
        return None;
    }
    let Some(grpc) = route.grpc_timeout.as_ref().filter(|_| is_grpc(request)) else { return route.timeout };
    let asked = request.get(Known::GrpcTimeout).and_then(parse_grpc_timeout).filter(|timeout| !timeout.is_zero());
    let asked = asked.map(|timeout| timeout.checked_sub(grpc.offset).filter(|left| !left.is_zero()).unwrap_or(timeout));
    match (asked, grpc.max.filter(|max| !max.is_zero())) {
        (Some(asked), Some(max)) => Some(asked.min(max)),
        (asked, max) => asked.or(max),
    }
}

/// A span of whole milliseconds.
fn millis(text: &[u8]) -> Option<Duration> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok().map(Duration::from_millis)
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse_grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(value * 3600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::fixture::{lines, request, routes, selected};
    use crate::snapshot::route::Action;

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    fn take(mut route: Value, headers: &[(&str, &str)], internal: bool) -> (Timeouts, Head) {
        route["cluster"] = "b".into();
        let config = routes(json!([{"match": {"prefix": "/"}, "route": route}]));
        let mut request = request("/", headers);
        let routed = selected(&config, &request);
        let Action::Forward(forward) = &routed.route.action else { panic!("no cluster") };
        let timeouts = Timeouts::take(&mut request, forward, Some(Duration::from_secs(60)), internal);
        timeouts.tell_upstream(&mut request, forward, timeouts.all);
        (timeouts, request)
    }

    fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    #[test]
    fn an_internal_client_may_wish_for_other_timeouts() {
        let wishes = [
            ("x-envoy-upstream-rq-timeout-ms", "3000"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "1000"),
            ("x-envoy-upstream-rq-timeout-alt-response", "1"),
            ("x-envoy-upstream-stream-duration-ms", "9000"),
        ];
        let (timeouts, head) = take(json!({}), &wishes, true);
        assert_eq!((timeouts.all, timeouts.per_try, timeouts.upstream_stream), (seconds(3), seconds(1), seconds(9)));
        assert!(timeouts.alternative_response);
        assert_eq!(lines(&head), "x-envoy-expected-rq-timeout-ms: 1000");
        let (timeouts, _) = take(json!({}), &wishes[3..], false);
        assert_eq!((timeouts.all, timeouts.upstream_stream), (seconds(15), None));
    }

    #[test]
    fn a_wish_for_zero_is_no_limit_and_a_senseless_one_is_none() {
        assert_eq!(take(json!({}), &[("x-envoy-upstream-rq-timeout-ms", "0")], true).0.all, None);
        assert_eq!(take(json!({}), &[("x-envoy-upstream-rq-timeout-ms", "soon")], true).0.all, seconds(15));
    }

    #[test]
    fn a_try_without_a_shorter_time_has_none_of_its_own() {
        let policy = |per_try: &str| json!({"timeout": "2s", "retry_policy": {"per_try_timeout": per_try}});
        assert_eq!(take(policy("1s"), &[], false).0.per_try, seconds(1));
        assert_eq!(take(policy("2s"), &[], false).0.per_try, None);
        let endless = json!({"timeout": "0s", "retry_policy": {"per_try_timeout": "2s"}});
        assert_eq!(take(endless, &[], false).0.per_try, seconds(2));
    }

    #[test]
    fn a_limit_of_the_stream_takes_the_place_of_the_timeout() {
        let (timeouts, head) =
            take(json!({"timeout": "1s", "max_stream_duration": {"max_stream_duration": "4s"}}), &[], false);
        assert_eq!((timeouts.all, timeouts.stream), (None, seconds(4)));
        assert_eq!(lines(&head), "");
        let endless = json!({"max_stream_duration": {"max_stream_duration": "0s"}});
        assert_eq!(take(endless, &[], false).0.stream, None);
        assert_eq!(take(json!({}), &[], false).0.stream, seconds(60), "the connection manager's");
    }

    #[test]
    fn the_stream_of_a_grpc_request_ends_when_its_client_gives_up() {
        let route = || {
            json!({"max_stream_duration": {
            "grpc_timeout_header_max": "5s", "grpc_timeout_header_offset": "1s", "max_stream_duration": "30s"}})
        };
        for (asked, expected) in [("3S", 2), ("9S", 4), ("500m", 0), ("1H", 4)] {
            let (timeouts, head) = take(route(), &[GRPC, ("grpc-timeout", asked)], false);
            assert_eq!(timeouts.stream, seconds(expected), "{asked}");
            assert!(lines(&head).ends_with(&format!("grpc-timeout: {}m", expected * 1000)), "{}", lines(&head));
        }
        assert_eq!(take(route(), &[GRPC], false).0.stream, seconds(30));
        let uncapped = json!({"max_stream_duration": {"grpc_timeout_header_max": "0s"}});
        assert_eq!(take(uncapped, &[("grpc-timeout", "2M")], false).0.stream, seconds(120));
    }
}
