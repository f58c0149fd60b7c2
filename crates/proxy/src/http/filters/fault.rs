//! Which faults does this request get? The delay is decided first, and the abort after the delay.

use std::time::Duration;

use fastrand::Rng;

use super::{Pace, Passed, Step};
use crate::http::exchange::Cx;
use crate::http::head::{Head, Known};
use crate::http::reply::LocalReply;
use crate::http::stream_info::{Flag, StreamInfo};
use crate::snapshot::filter::{Abort, AbortStatus, Delay, DelayTime, Fault, RateLimit, Throughput};
use crate::snapshot::matcher::Fraction;
use crate::stats::{FaultCounters, InFlight};

/// What is to happen to a request first.
pub(super) enum First {
    /// Nothing.
    Continue,
    /// It waits, and then [`Injector::abort`] decides.
    Delay(Duration),
    /// It is answered.
    Abort(LocalReply),
}

/// The faults of one request.
pub(super) struct Injector<'a, 'v> {
    cx: &'a Cx<'v>,
    fault: &'v Fault,
    request: &'a Head,
    counters: &'v FaultCounters,
    active: bool,
}

impl<'a, 'v> Injector<'a, 'v> {
    pub(super) fn new(cx: &'a Cx<'v>, fault: &'v Fault, request: &'a Head) -> Self {
        Self { cx, fault, request, counters: cx.http.fault.touch(), active: false }
    }

    /// Decides about a request as it comes. `cluster` is the one that its route names.
    pub(super) fn begin(&mut self, cluster: Option<&str>, info: &mut StreamInfo<'_>, passed: &mut Passed<'v>) -> First {
        if !concerns(self.fault, self.request, cluster) {
            return First::Continue;
        }
        let limit = {
            let mut rng = self.cx.worker.rng.borrow_mut();
            self.fault.rate_limit.as_ref().and_then(|limit| throughput(limit, self.request, &mut rng))
        };
        if let Some(limit) = limit
            && self.admit(passed)
        {
            self.counters.response_rl_injected.inc();
            passed.steps.push(Step::Pace(Pace::new(limit)));
        }
        let delay = {
            let mut rng = self.cx.worker.rng.borrow_mut();
            self.fault.delay.as_ref().and_then(|delay| duration(delay, self.request, &mut rng))
        };
        if let Some(delay) = delay
            && self.admit(passed)
        {
            self.counters.delays_injected.inc();
            if let Some(caller) = self.caller() {
                self.counters.callers.count(caller, |counters| &counters.delays_injected);
            }
            info.flags.raise(Flag::DelayInjected);
            return First::Delay(delay);
        }
        self.abort(info, passed).map_or(First::Continue, First::Abort)
    }

    /// Decides whether the request is answered here.
    pub(super) fn abort(&mut self, info: &mut StreamInfo<'_>, passed: &mut Passed<'v>) -> Option<LocalReply> {
        let (status, grpc_status) = {
            let mut rng = self.cx.worker.rng.borrow_mut();
            self.fault.abort.as_ref().and_then(|abort| status(abort, self.request, &mut rng))?
        };
        if !self.admit(passed) {
            return None;
        }
        self.counters.aborts_injected.inc();
        if let Some(caller) = self.caller() {
            self.counters.callers.count(caller, |counters| &counters.aborts_injected);
        }
        info.flags.raise(Flag::FaultInjected);
        let mut reply = LocalReply::text(status, "fault filter abort", "fault_filter_abort");
        reply.grpc_status = grpc_status;
        Some(reply)
    }

    /// Whether the request may have a fault; it counts as one however many it has.
    fn admit(&mut self, passed: &mut Passed<'v>) -> bool {
        if self.active {
            return true;
        }
        // Without a compare-and-swap over all workers the limit is a little fuzzy, as Envoy's.
        let full = self.fault.max_active_faults.is_some_and(|most| {
            self.cx.bound.http.level(|counters| &counters.fault.touch().active_faults) >= u64::from(most)
        });
        if full {
            self.counters.faults_overflow.inc();
            return false;
        }
        passed.steps.push(Step::Fault(InFlight::begin(&self.counters.active_faults)));
        self.active = true;
        true
    }

    fn caller(&self) -> Option<&'a [u8]> {
        let caller = self.request.get(Known::XEnvoyDownstreamServiceCluster)?;
        (self.fault.count_callers && !caller.is_empty()).then_some(caller)
    }
}

/// Whether a fault is meant for this request.
fn concerns(fault: &Fault, request: &Head, cluster: Option<&str>) -> bool {
    if let Some(wanted) = &fault.upstream_cluster
        && cluster != Some(&**wanted)
    {
        return false;
    }
    if !fault.downstream_nodes.is_empty() {
        let node = request.get(Known::XEnvoyDownstreamServiceNode);
        if !node.is_some_and(|node| fault.downstream_nodes.iter().any(|known| **known == *node)) {
            return false;
        }
    }
    fault.headers.iter().all(|matcher| matcher.matches(request))
}

/// How long the request waits, if chance has it wait.
fn duration(delay: &Delay, request: &Head, rng: &mut Rng) -> Option<Duration> {
    let share = match delay.time {
        DelayTime::Fixed(_) => delay.share,
        DelayTime::Header => lowered(delay.share, request, "x-envoy-fault-delay-request-percentage"),
    };
    if !share.includes(rng.u64(..)) {
        return None;
    }
    let duration = match delay.time {
        DelayTime::Fixed(duration) => duration,
        DelayTime::Header => Duration::from_millis(number(line(request, "x-envoy-fault-delay-request")?)?),
    };
    (!duration.is_zero()).then_some(duration)
}

/// HTTP status, and gRPC status if that is what was asked for, if chance has the request answered.
fn status(abort: &Abort, request: &Head, rng: &mut Rng) -> Option<(u16, Option<u32>)> {
    let share = match abort.status {
        AbortStatus::Http(_) | AbortStatus::Grpc(_) => abort.share,
        AbortStatus::Header => lowered(abort.share, request, "x-envoy-fault-abort-request-percentage"),
    };
    if !share.includes(rng.u64(..)) {
        return None;
    }
    match abort.status {
        AbortStatus::Http(status) => Some((status, None)),
        AbortStatus::Grpc(status) => Some((200, Some(status))),
        AbortStatus::Header => {
            let http = line(request, "x-envoy-fault-abort-request").and_then(number::<u16>);
            if let Some(status @ 200..600) = http {
                return Some((status, None));
            }
            Some((200, Some(line(request, "x-envoy-fault-abort-grpc-request").and_then(number)?)))
        }
    }
}

/// KiB a second of the response, if chance has it slowed down.
fn throughput(limit: &RateLimit, request: &Head, rng: &mut Rng) -> Option<u64> {
    let share = match limit.throughput {
        Throughput::Fixed(_) => limit.share,
        Throughput::Header => lowered(limit.share, request, "x-envoy-fault-throughput-response-percentage"),
    };
    if !share.includes(rng.u64(..)) {
        return None;
    }
    match limit.throughput {
        Throughput::Fixed(kibibytes) => Some(kibibytes),
        Throughput::Header => {
            line(request, "x-envoy-fault-throughput-response").and_then(number).filter(|kibibytes| *kibibytes > 0)
        }
    }
}

/// A client may ask for a smaller share than the configured one, never for a larger one.
fn lowered(share: Fraction, request: &Head, header: &str) -> Fraction {
    let asked = line(request, header).and_then(number::<u32>).unwrap_or(share.numerator);
    Fraction { numerator: asked.min(share.numerator), ..share }
}

/// The first line of a name that only this filter looks for.
fn line<'a>(request: &'a Head, wanted: &str) -> Option<&'a [u8]> {
    request.fields().find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| value)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
