//! Forwarding a request: attempts at hosts of a cluster until a response comes or the policy gives up.

mod attempt;
mod respond;
mod tunnel;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use self::attempt::route_timeout;
use self::attempt::{Attempt, attempt, client_left, connect};
use self::respond::respond;
use crate::http::connection::Downstream;
use crate::http::deadlines::{Deadlines, Late};
use crate::http::exchange::{self, Cx, Scratch};
use crate::http::h1::BodyLength;
use crate::http::head::{Head, Known};
use crate::http::reply::{LocalReply, grpc_as_http, is_grpc};
use crate::http::router::retry::{Reset, ResetKind, Retries};
use crate::http::router::select::Routed;
use crate::http::router::timeouts::Timeouts;
use crate::http::router::{hash, mirror};
use crate::http::stream_info::{Flag, StreamInfo};
use crate::http::transfer::RequestBody;
use crate::snapshot::cluster::OriginalDst;
use crate::snapshot::route::Forward;
use crate::stats::ClusterCounters;
use crate::upstream::outlier::Outcome;
use crate::upstream::{PickContext, PreviousPriorities, WorkerCluster, WorkerHost};

/// Request body bytes kept for retries, when the route says nothing else; Envoy's connection buffer limit.
const REPLAY_LIMIT: usize = 1024 * 1024;
/// How forwarding ended.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// The response was sent; the client's connection can go on unless it says so.
    Sent {
        /// The connection has to be closed.
        close: bool,
    },
    /// Nothing was sent yet and this is the answer.
    Reply(LocalReply),
    /// The client is gone, or the response broke off in the middle: only closing is left.
    Broken,
}

/// Forwards a request to the cluster of its route.
#[expect(clippy::too_many_arguments, reason = "it touches the whole of the exchange; a struct would only hide it")]
pub(crate) async fn forward<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &mut Scratch,
    info: &mut StreamInfo<'v>,
    routed: &Routed<'v>,
    route: &'v Forward,
    body: BodyLength,
    mut deadlines: Deadlines,
) -> Forwarded {
    let Some(cluster) = cluster_of(cx, routed, &scratch.request) else {
        cx.http.no_cluster.inc();
        let status = route.cluster_not_found_status;
        return Forwarded::Reply(LocalReply::empty(status, "cluster_not_found").flagged(Flag::NoClusterFound));
    };
    info.cluster = Some(&cluster.cluster.config.name);
    let counters = cluster.counters();
    let mut retries = Retries::new(route.retry.as_deref(), &mut scratch.request);
    let limit = route.request_buffer_limit.map_or(REPLAY_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut body = match cx.upgraded {
        Some(_) => RequestBody::held(),
        None => RequestBody::new(body, retries.may_retry().then_some(limit)),
    };
    let timeouts = Timeouts::take(&mut scratch.request, route, cx.manager.max_stream_duration, cx.internal);
    deadlines.timeouts = timeouts;
    // A request for an upgrade is never complete; for the timeouts it counts as if it were.
    if body.finished {
        // A filter may have held the request back: the router's clock starts when the request comes to it.
        let held = info.flags.contains(Flag::DelayInjected);
        deadlines.request_complete(if held { Instant::now() } else { info.started });
    }
    exchange::prepare_upstream_head(cx, scratch, info, routed, route, &timeouts);
    let hash = match cluster.cluster.config.balancing.policy.is_hashed() {
        true => hash::hash(&route.hash_policy, &scratch.request, info, &mut scratch.cookies),
        false => None,
    };
    let mut tried: Vec<u32> = Vec::new();
    let mut retry_permit = None;
    let mut previous = route.retry.as_ref().and_then(|policy| policy.previous_priorities).map(PreviousPriorities::new);
    let mut retried_late = false;
    loop {
        info.attempts += 1;
        info.upstream_local = None;
        attempt_headers(cx, scratch, info, routed, route, &deadlines, retried_late);
        if info.attempts == 1 && !route.mirrors.is_empty() && cx.upgraded.is_none() {
            body.copy_to(mirror::start(cx, route, &scratch.request, body.framing(), timeouts.all));
        }
        let loads = match &mut previous {
            Some(previous) if info.attempts > 1 => previous.loads(&cluster.cluster.endpoints, &cluster.host_sets()),
            _ => None,
        };
        let context = PickContext {
            tried: &tried,
            reselections: retries.reselections(info.attempts),
            hash,
            loads,
            active: cluster.active_requests(),
            criteria: Some(routed.weighted.map_or(&route.criteria, |weighted| &weighted.criteria)),
            now: info.started,
        };
        let destination;
        let mut index = None;
        let host: &WorkerHost = if let Some(config) = &cluster.cluster.config.original_dst {
            let address = original_destination(config, &scratch.request, counters);
            destination = address.and_then(|address| cluster.destination(address, info.started));
            let Some(host) = &destination else {
                counters.upstream_cx_none_healthy.inc();
                return no_healthy_upstream(cx, cluster);
            };
            info.upstream_host = Some(Cow::Owned(host.endpoint.address.text.to_string()));
            host
        } else {
            let Some(picked) = cluster.pick(&context, &mut cx.worker.rng.borrow_mut()) else {
                counters.upstream_cx_none_healthy.inc();
                return no_healthy_upstream(cx, cluster);
            };
            index = Some(picked);
            let host = &cluster.hosts[picked as usize];
            info.upstream_host = Some(Cow::Borrowed(&host.endpoint.address.text));
            host
        };
        if timeouts.limit_tries() {
            deadlines.begin_attempt(Instant::now());
        }
        let mut up = None;
        let connected = connect(cx, down, info, cluster, host, route.priority, &body, &deadlines).await;
        let outcome = match connected {
            Ok(connected) => {
                cx.worker.report(cluster, host, Outcome::Connected);
                let (up, _) = up.insert(connected);
                attempt(cx, down, scratch, info, cluster, host, up, &mut body, &mut deadlines).await
            }
            Err(Attempt::NoPool) => return no_healthy_upstream(cx, cluster),
            Err(failed) => failed,
        };
        counters.retry_or_shadow_abandoned.add(std::mem::take(&mut body.given_up));
        info.bytes_received = body.received;
        if cluster.cluster.config.outlier_detection.is_some()
            && let Some(reported) = reported(&outcome, up.is_some(), &scratch.request, &scratch.response)
        {
            cx.worker.report(cluster, host, reported);
        }
        // The retry that this attempt was, if it was one, is over.
        drop(retry_permit.take());
        let wants_retry = match &outcome {
            Attempt::Response(_) => retries.wants_response(&scratch.response, SystemTime::now()),
            Attempt::Reset(reset) if reset.kind == ResetKind::Overflow => false,
            Attempt::Reset(reset) => {
                host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
                retries.wants_reset(*reset)
            }
            _ => false,
        };
        if wants_retry && body.replay().is_some() {
            if retries.is_exhausted() {
                counters.upstream_rq_retry_limit_exceeded.inc();
                info.flags.raise(Flag::UpstreamRetryLimitExceeded);
            } else if let Some(permit) = cluster.breaker(route.priority).admit_retry(Instant::now()) {
                retry_permit = Some(permit);
                if let Attempt::Response(_) = &outcome {
                    if scratch.response.status() >= 500 {
                        host.endpoint.state.errors.fetch_add(1, Ordering::Relaxed);
                    }
                    counters.count_retried(scratch.response.status());
                }
                drop(up);
                tried.extend(index);
                if let (Some(previous), Some(index)) = (&mut previous, index) {
                    previous.attempted(index);
                }
                let (wait, asked_for) = retries.back_off(&mut cx.worker.rng.borrow_mut());
                retried_late = false;
                if let Attempt::Reset(reset) = &outcome {
                    retried_late = reset.kind.is_late();
                    info.transport_failure = reset.transport_failure.map(Cow::Borrowed);
                }
                deadlines.end_attempt();
                match pause(down, &deadlines, &body, wait).await {
                    Paused::Over => {
                        info.transport_failure = None;
                        counters.upstream_rq_retry.inc();
                        if asked_for {
                            counters.upstream_rq_retry_backoff_ratelimited.inc();
                        } else {
                            counters.upstream_rq_retry_backoff_exponential.inc();
                        }
                        continue;
                    }
                    // No request is under way that the cluster could count as late.
                    Paused::Late(Late::Route) => {
                        return Forwarded::Reply(route_timeout(timeouts.alternative_response));
                    }
                    Paused::Late(late) => {
                        return Forwarded::Reply(exchange::late_reply(cx, late, body.finished));
                    }
                    Paused::DownstreamGone => {
                        downstream_gone(info);
                        return Forwarded::Broken;
                    }
                }
            } else {
                counters.upstream_rq_retry_overflow.inc();
                info.flags.raise(Flag::UpstreamOverflow);
            }
        } else if info.attempts > 1 && matches!(outcome, Attempt::Response(_)) {
            counters.upstream_rq_retry_success.inc();
        }
        return match (outcome, up) {
            (Attempt::Response(framing), Some((up, active))) => {
                respond(cx, down, scratch, info, routed, route, cluster, host, body, deadlines, framing, up, active)
                    .await
            }
            (Attempt::Reset(reset), _) => {
                let mut reply = reset_reply(reset, info, timeouts.alternative_response);
                if reset.kind == ResetKind::Overflow && !cx.manager.suppress_envoy_headers {
                    reply = reply.with_header(Known::XEnvoyOverloaded, b"true".to_vec());
                }
                if cx.upgraded.is_none() {
                    take_rest(down, scratch, info, &mut body).await;
                }
                answered_locally(cx, cluster, reply)
            }
            (Attempt::Timeout(reply), _) => answered_locally(cx, cluster, reply),
            (Attempt::Ended(reply), _) => Forwarded::Reply(reply),
            (Attempt::DownstreamGone | Attempt::Response(_) | Attempt::NoPool, _) => {
                downstream_gone(info);
                Forwarded::Broken
            }
            (Attempt::BadRequestBody(reply), _) => Forwarded::Reply(reply),
        };
    }
}

/// The cluster of a route, if it exists.
pub(crate) fn cluster_of<'v>(cx: &Cx<'v>, routed: &Routed<'v>, request: &Head) -> Option<&'v Rc<WorkerCluster>> {
    match (routed.cluster, routed.cluster_header) {
        (Some(reference), _) => cx.view.cluster(reference.id),
        (None, Some(header)) => request.value(header).and_then(|name| cx.view.cluster_named(name)),
        (None, None) => None,
    }
}

/// Reads what has already come of a request body that no upstream will get: a request that is complete can be answered
/// without closing the connection.
async fn take_rest(down: &mut Downstream, scratch: &mut Scratch, info: &mut StreamInfo<'_>, body: &mut RequestBody) {
    std::future::poll_fn(|cx| {
        scratch.to_upstream.clear();
        while !body.finished && body.received < REPLAY_LIMIT as u64 {
            match body.advance(&mut down.buffer, &mut scratch.to_upstream) {
                Err(_) => break,
                Ok(true) => scratch.to_upstream.clear(),
                Ok(false) => match down.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) | Poll::Pending => break,
                },
            }
        }
        Poll::Ready(())
    })
    .await;
    scratch.to_upstream.clear();
    info.bytes_received = body.received;
    if body.is_complete() && info.request_duration.is_none() {
        info.request_duration = Some(info.started.elapsed());
    }
}

pub(crate) fn downstream_gone(info: &mut StreamInfo<'_>) {
    info.flags.raise(Flag::DownstreamConnectionTermination);
    info.details = Some(Cow::Borrowed("downstream_remote_disconnect"));
}

/// Where the client wants to go, for clusters that let it choose. Connections do not tell yet, so a header must.
fn original_destination(config: &OriginalDst, request: &Head, counters: &ClusterCounters) -> Option<SocketAddr> {
    let value = request.value(config.header.as_ref()?)?;
    let Some(mut address) = str::from_utf8(value).ok().and_then(|text| text.parse::<SocketAddr>().ok()) else {
        counters.original_dst_host_invalid.inc();
        return None;
    };
    if let Some(port) = config.port {
        address.set_port(port);
    }
    Some(address)
}

/// What outlier detection hears of an attempt. What never got to a host, or ended for another reason, is not held
/// against it.
fn reported(outcome: &Attempt, connected: bool, request: &Head, response: &Head) -> Option<Outcome> {
    match outcome {
        Attempt::Response(_) => {
            let grpc = is_grpc(request).then(|| response.get(Known::GrpcStatus)).flatten();
            Some(Outcome::Answer(grpc.map_or_else(|| response.status(), grpc_as_http)))
        }
        Attempt::Reset(reset) => match reset.kind {
            ResetKind::Overflow => None,
            ResetKind::PerTryTimeout | ResetKind::PerTryIdleTimeout => connected.then_some(Outcome::Timeout),
            _ => Some(Outcome::ConnectionFailed),
        },
        Attempt::Timeout(reply) if connected && reply.flag == Some(Flag::UpstreamRequestTimeout) => {
            Some(Outcome::Timeout)
        }
        _ => None,
    }
}

/// There is no host that the request could go to.
fn no_healthy_upstream(cx: &Cx<'_>, cluster: &WorkerCluster) -> Forwarded {
    let reply = LocalReply::text(503, "no healthy upstream", "no_healthy_upstream");
    answered_locally(cx, cluster, reply.flagged(Flag::NoHealthyUpstream))
}

/// A reply of the router's own counts as a response of the cluster.
fn answered_locally(cx: &Cx<'_>, cluster: &WorkerCluster, reply: LocalReply) -> Forwarded {
    cluster.counters().count_response(reply.status, cx.internal);
    Forwarded::Reply(reply)
}

fn reset_reply(reset: Reset, info: &mut StreamInfo<'_>, alternative: bool) -> LocalReply {
    if let Some(reason) = reset.transport_failure {
        info.transport_failure = Some(Cow::Borrowed(reason));
    }
    let details = match reset.kind {
        ResetKind::PerTryTimeout => Some("upstream_per_try_timeout"),
        ResetKind::PerTryIdleTimeout => Some("upstream_per_try_idle_timeout"),
        _ => None,
    };
    if let Some(details) = details {
        return LocalReply { details: details.into(), ..route_timeout(alternative) };
    }
    let retried = if info.attempts > 1 { "retried and the latest " } else { "" };
    let reason = reset.kind.text();
    let body = format!("upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}");
    let details = reset.details();
    LocalReply::text(reset.kind.status(), body, details).flagged(reset.kind.flag())
}

/// The headers that differ between attempts.
fn attempt_headers(
    cx: &Cx<'_>,
    scratch: &mut Scratch,
    info: &StreamInfo<'_>,
    routed: &Routed<'_>,
    route: &Forward,
    deadlines: &Deadlines,
    retried_late: bool,
) {
    if routed.virtual_host.include_request_attempt_count {
        scratch.request.set_in_place(Known::XEnvoyAttemptCount, number(info.attempts.into(), &mut [0; 20]));
    }
    if info.attempts == 1 {
        return;
    }
    if routed.virtual_host.include_is_timeout_retry_header {
        let value: &[u8] = if retried_late { b"true" } else { b"false" };
        scratch.request.set_in_place(Known::XEnvoyIsTimeoutRetry, value);
    }
    if !cx.manager.suppress_envoy_headers {
        let left = deadlines.route.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        deadlines.timeouts.tell_upstream(&mut scratch.request, route, left.or(deadlines.timeouts.all));
    }
}

/// Decimal digits of a number.
pub(crate) fn number(value: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut position = space.len();
    let mut rest = value;
    loop {
        position -= 1;
        space[position] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return &space[position..];
        }
    }
}

enum Paused {
    Over,
    Late(Late),
    DownstreamGone,
}

/// Waits before the next attempt, unless the request ends meanwhile.
async fn pause(down: &mut Downstream, deadlines: &Deadlines, body: &RequestBody, wait: Duration) -> Paused {
    let until = Instant::now() + wait;
    let deadline = deadlines.next().map_or(until, |deadline| deadline.min(until));
    std::future::poll_fn(|cx| {
        if client_left(down, body, cx).is_ready() {
            return Poll::Ready(Paused::DownstreamGone);
        }
        down.alarm.poll(Some(deadline), cx).map(|()| match deadlines.late(Instant::now()) {
            Some(late) if deadline < until => Paused::Late(late),
            _ => Paused::Over,
        })
    })
    .await
}
