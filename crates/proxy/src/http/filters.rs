//! What do the HTTP filters make of a request before the router, and of its response on the way back?
//!
//! A request passes the filters in the order of the chain; each lets it go on, maybe later, or answers it. The response
//! passes those that have something to do with it in reverse order, whoever made it: see
//! [`exchange::finish_response_head`](super::exchange::finish_response_head).

mod cors;
mod fault;
mod pace;

use std::time::Instant;

use self::fault::First;
use super::connection::Downstream;
use super::deadlines::{Deadlines, Late};
use super::exchange::{Cx, Scratch};
use super::h1::{BodyLength, BodyReader};
use super::head::Head;
use super::reply::LocalReply;
use super::router::select::Routed;
use super::stream_info::StreamInfo;
use crate::snapshot::filter::{FilterSettings, Overrides};
use crate::snapshot::route::Action;
use crate::stats::InFlight;

pub(crate) use pace::Pace;

/// Bytes of a request's body that are taken in while the request waits in a filter.
const HELD_BYTES: usize = 64 * 1024;

/// How a request came through the filters.
#[derive(Debug)]
pub(crate) enum Passage {
    /// It goes on to the router.
    Continue,
    /// This is its answer.
    Reply(LocalReply),
    /// A time of the stream was over.
    Late(Late),
    /// The client is gone.
    DownstreamGone,
}

/// What the filters that a request passed have still to do.
#[derive(Debug, Default)]
pub(crate) struct Passed<'v> {
    /// In the order of the request.
    steps: Vec<Step<'v>>,
}

#[derive(Debug)]
enum Step<'v> {
    Cors(cors::Answer<'v>),
    #[expect(dead_code, reason = "it counts the request as one with a fault until it is dropped")]
    Fault(InFlight<'v>),
    Pace(Pace),
}

impl Passed<'_> {
    /// Lets the filters change the head of the response, last filter first.
    pub(crate) fn change_response(&self, response: &mut Head) {
        for step in self.steps.iter().rev() {
            match step {
                Step::Cors(answer) => answer.change_response(response),
                Step::Fault(_) | Step::Pace(_) => {}
            }
        }
    }

    /// The speed at which the body of the response may go out; the lowest counts.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.steps
            .iter()
            .filter_map(|step| if let Step::Pace(pace) = step { Some(*pace) } else { None })
            .min_by_key(Pace::bytes_a_second)
    }
}

/// Leads a request through the filters of its connection manager. `routed` is its route, if it has one.
#[expect(clippy::too_many_arguments, reason = "it touches the whole of the exchange; a struct would only hide it")]
pub(crate) async fn pass<'v>(
    cx: &Cx<'v>,
    down: &mut Downstream,
    scratch: &Scratch,
    info: &mut StreamInfo<'v>,
    routed: Option<&Routed<'v>>,
    body: BodyLength,
    deadlines: &mut Deadlines,
    passed: &mut Passed<'v>,
) -> Passage {
    let forwards = routed.is_some_and(|routed| matches!(routed.route.action, Action::Forward(_)));
    for settings in cx.manager.filters.settings(routed.map(overrides)) {
        let passage = match settings {
            // As in Envoy a route that answers itself has no CORS.
            FilterSettings::Cors(policy) if forwards => cors::request(cx, &scratch.request, policy, passed),
            FilterSettings::Cors(_) => Passage::Continue,
            FilterSettings::Fault(fault) => {
                let cluster = routed.and_then(|routed| routed.cluster).map(|cluster| &*cluster.name);
                let mut injector = fault::Injector::new(cx, fault, &scratch.request);
                let abort = |reply: Option<LocalReply>| reply.map_or(Passage::Continue, Passage::Reply);
                match injector.begin(cluster, info, passed) {
                    First::Continue => Passage::Continue,
                    First::Abort(reply) => Passage::Reply(reply),
                    First::Delay(delay) => match wait(down, body, info, deadlines, Instant::now() + delay).await {
                        Passage::Continue => abort(injector.abort(info, passed)),
                        ended => ended,
                    },
                }
            }
        };
        if !matches!(passage, Passage::Continue) {
            return passage;
        }
    }
    Passage::Continue
}

/// What the levels of a route say of filters.
pub(crate) fn overrides<'v>(routed: &Routed<'v>) -> &'v Overrides {
    routed.weighted.map_or(&routed.route.filters, |weighted| &weighted.filters)
}

/// Holds a request back until a moment, unless it ends meanwhile. Its body is taken in as far as there is room.
async fn wait(
    down: &mut Downstream,
    body: BodyLength,
    info: &mut StreamInfo<'_>,
    deadlines: &mut Deadlines,
    until: Instant,
) -> Passage {
    let mut reader = BodyReader::new(body);
    let mut looked_at = 0;
    std::future::poll_fn(|task| {
        loop {
            // Where the request ends decides whether a client that closes is gone, and whether it was late.
            while !reader.is_finished() {
                match reader.next(&down.buffer.unread()[looked_at..]) {
                    Ok(step) if step.consumed > 0 => {
                        looked_at += step.consumed;
                        info.bytes_received += step.data.len() as u64;
                    }
                    _ => break,
                }
            }
            if reader.is_finished() && info.request_duration.is_none() {
                info.request_duration = Some(info.started.elapsed());
                deadlines.request = None;
            }
            let room = if reader.is_finished() { down.buffer.is_empty() } else { down.buffer.len() < HELD_BYTES };
            if down.at_end || !room {
                break;
            }
            match down.poll_read(task) {
                std::task::Poll::Ready(Ok(0) | Err(_)) => return std::task::Poll::Ready(Passage::DownstreamGone),
                std::task::Poll::Ready(Ok(_)) => deadlines.touch(Instant::now()),
                std::task::Poll::Pending => break,
            }
        }
        let deadline = deadlines.next().map_or(until, |deadline| deadline.min(until));
        down.alarm.poll(Some(deadline), task).map(|()| match deadlines.late(Instant::now()) {
            Some(late) if deadline < until => Passage::Late(late),
            _ => Passage::Continue,
        })
    })
    .await
}
