//! Copies of requests for other clusters: sent once, at the time of the first attempt, and never in the way of the
//! request itself.
//!
//! A mirror is a task of its own. The body reaches it through a buffer of bounded size; a mirror that does not keep up
//! is given up, and the request does not notice. Whatever a mirror answers is thrown away.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::retry::ResetKind;
use crate::alarm::Alarm;
use crate::http::exchange::Cx;
use crate::http::h1::{self, BodyLength, BodyReader};
use crate::http::head::{Head, Known};
use crate::http::transfer::Output;
use crate::snapshot::route::{ClusterName, Forward, Mirror, Priority};
use crate::upstream::outlier::Outcome;
use crate::upstream::{PickContext, RESPONSE_LIMITS, UpstreamConnection, WorkerCluster, WorkerHost};
use crate::worker::Worker;

/// Bytes of one request that wait for a mirror; Envoy's buffer limit.
const FEED_BYTES: usize = 1024 * 1024;
/// Bytes that wait for all mirrors of a worker together.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// Mirrors that a worker has under way at once.
const MOST: usize = 4096;

/// The mirrors that a worker has under way.
#[derive(Debug, Default)]
pub(crate) struct Load {
    mirrors: std::cell::Cell<usize>,
    bytes: std::cell::Cell<usize>,
}

/// Where the body of a request goes besides its upstream.
#[derive(Debug)]
pub(crate) struct Copies {
    feeds: Vec<Rc<RefCell<Feed>>>,
    load: Rc<Load>,
}

/// What of a request's body waits for one mirror.
#[derive(Debug)]
struct Feed {
    bytes: Vec<u8>,
    state: FeedState,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedState {
    /// More will come.
    Open,
    /// All of the body is here.
    Complete,
    /// The request broke off, or the mirror was too slow.
    Abandoned,
    /// The mirror takes nothing more.
    Closed,
}

impl Copies {
    /// Passes new bytes of the body on, as they are sent to the upstream. Returns how many mirrors were given up.
    pub(crate) fn push(&mut self, bytes: &[u8], complete: bool) -> u64 {
        let mut given_up = 0;
        let load = &self.load;
        self.feeds.retain(|feed| {
            let mut feed = feed.borrow_mut();
            if feed.state != FeedState::Open {
                return false;
            }
            if feed.bytes.len() + bytes.len() > FEED_BYTES || load.bytes.get() + bytes.len() > ALL_BYTES {
                feed.state = FeedState::Abandoned;
                given_up += 1;
            } else {
                load.bytes.set(load.bytes.get() + bytes.len());
                feed.bytes.extend_from_slice(bytes);
                if complete {
                    feed.state = FeedState::Complete;
                }
            }
            if let Some(waker) = feed.waker.take() {
                waker.wake();
            }
            feed.state == FeedState::Open
        });
        given_up
    }
}

impl Drop for Copies {
    /// A request that ends before its body does takes its mirrors with it.
    fn drop(&mut self) {
        for feed in &self.feeds {
            let mut feed = feed.borrow_mut();
            if feed.state == FeedState::Open {
                feed.state = FeedState::Abandoned;
            }
            if let Some(waker) = feed.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Starts the mirrors of a request whose head is ready to be sent. `body` is how its body is framed.
pub(crate) fn start(
    cx: &Cx<'_>,
    route: &Forward,
    request: &Head,
    body: BodyLength,
    timeout: Option<Duration>,
) -> Copies {
    let mut copies = Copies { feeds: Vec::new(), load: cx.worker.mirrors.clone() };
    for mirror in &route.mirrors {
        let random = cx.worker.rng.borrow_mut().u64(..);
        if !mirror.fraction.includes(random) || copies.load.mirrors.get() >= MOST {
            continue;
        }
        let Some(cluster) = cluster(cx, mirror, request) else { continue };
        let complete = matches!(body, BodyLength::Empty | BodyLength::Fixed(0));
        let state = if complete { FeedState::Complete } else { FeedState::Open };
        let feed = Rc::new(RefCell::new(Feed { bytes: Vec::new(), state, waker: None }));
        if !complete {
            copies.feeds.push(feed.clone());
        }
        let mut head = Vec::new();
        h1::write_request_head(&mirrored_head(cx, mirror, request), body, &mut head);
        let sending = Sending {
            running: Running::begin(cx.worker, feed),
            cluster: cluster.clone(),
            head_request: request.method() == b"HEAD",
            timeout,
        };
        tokio::task::spawn_local(sending.run(head));
    }
    copies
}

fn cluster<'v>(cx: &Cx<'v>, mirror: &Mirror, request: &Head) -> Option<&'v Rc<WorkerCluster>> {
    match &mirror.cluster {
        ClusterName::Fixed(cluster) => cx.view.cluster(cluster.id),
        ClusterName::Header(header) => request.value(header).and_then(|name| cx.view.cluster_named(name)),
    }
}

/// The head as a mirror sees it: marked as internal, and its host as a shadow's unless the policy keeps it.
fn mirrored_head(cx: &Cx<'_>, mirror: &Mirror, request: &Head) -> Head {
    let mut head = request.clone();
    match (&mirror.host_rewrite, request.authority()) {
        (Some(host), _) => head.set_authority(host),
        (None, Some(host)) if !mirror.keep_host => {
            let shadow = shadow_host(host);
            head.set_authority(&shadow);
        }
        _ => {}
    }
    head.set_in_place(Known::XEnvoyInternal, b"true");
    if let Some(address) = cx.worker.common.machine.address {
        crate::http::ingress::append_to_list(&mut head, Known::XForwardedFor, address);
    }
    head
}

/// `-shadow` behind the host's name and before its port.
fn shadow_host(host: &[u8]) -> Vec<u8> {
    let name = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !host[colon..].contains(&b']') => colon,
        _ => host.len(),
    };
    [&host[..name], b"-shadow", &host[name..]].concat()
}

/// One mirror under way, counted until it is dropped.
struct Running {
    worker: Rc<Worker>,
    feed: Rc<RefCell<Feed>>,
}

impl Running {
    fn begin(worker: &Rc<Worker>, feed: Rc<RefCell<Feed>>) -> Self {
        let count = &worker.mirrors.mirrors;
        count.set(count.get() + 1);
        Self { worker: worker.clone(), feed }
    }

    /// Whether the request or the mirror was given up; a mirror that cannot send hears of it too.
    fn is_abandoned(&self, task: &Context<'_>) -> bool {
        let mut feed = self.feed.borrow_mut();
        if feed.state == FeedState::Open {
            feed.waker = Some(task.waker().clone());
        }
        feed.state == FeedState::Abandoned
    }

    /// Takes what waits of the body; `None` when the request or the mirror was given up. The second value tells whether
    /// it was the last of it.
    fn poll_body(&self, output: &mut Vec<u8>, task: &Context<'_>) -> Option<bool> {
        let mut feed = self.feed.borrow_mut();
        if feed.state == FeedState::Abandoned {
            return None;
        }
        let bytes = &self.worker.mirrors.bytes;
        bytes.set(bytes.get() - feed.bytes.len());
        output.append(&mut feed.bytes);
        let complete = feed.state == FeedState::Complete;
        if !complete {
            feed.waker = Some(task.waker().clone());
        }
        Some(complete)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut feed = self.feed.borrow_mut();
        feed.state = FeedState::Closed;
        let load = &self.worker.mirrors;
        load.bytes.set(load.bytes.get() - feed.bytes.len());
        feed.bytes = Vec::new();
        load.mirrors.set(load.mirrors.get() - 1);
    }
}

/// What one mirror needs.
struct Sending {
    running: Running,
    cluster: Rc<WorkerCluster>,
    head_request: bool,
    timeout: Option<Duration>,
}

/// How a mirror ended.
enum Ended {
    /// With a response, whose connection may be used again.
    Answered { reusable: bool },
    /// Without a response.
    Failed(ResetKind),
    /// The response did not come to its end.
    Broken,
    /// The timeout passed.
    Late,
    /// The request broke off, or the mirror did not keep up.
    Abandoned,
}

impl Sending {
    async fn run(self, head: Vec<u8>) {
        let counters = self.cluster.counters();
        let worker = &self.running.worker;
        let context = PickContext::plain(self.cluster.active_requests(), Instant::now());
        let picked = self.cluster.pick(&context, &mut worker.rng.borrow_mut());
        let Some(index) = picked else {
            counters.upstream_cx_none_healthy.inc();
            counters.count_response(503, true);
            return;
        };
        let host = &self.cluster.hosts[index as usize];
        let mut connection = match self.connect(host).await {
            Ok(connection) => connection,
            Err(status) => {
                counters.count_response(status, true);
                return;
            }
        };
        let Some(_active) = host.begin_request(Priority::Default) else {
            host.pool(Priority::Default).give_back(connection, Instant::now());
            counters.upstream_rq_active_overflow.inc();
            counters.count_response(503, true);
            return;
        };
        connection.count.begin_request();
        counters.upstream_rq_active.inc();
        let mut exchange = MirrorExchange::new(&self, head);
        let ended = std::future::poll_fn(|task| exchange.poll(&mut connection, task)).await;
        counters.upstream_rq_active.dec();
        if exchange.answered {
            worker.report(&self.cluster, host, Outcome::Answer(exchange.response.status()));
        }
        match ended {
            Ended::Failed(_) | Ended::Broken => worker.report(&self.cluster, host, Outcome::ConnectionFailed),
            Ended::Late if !exchange.answered => worker.report(&self.cluster, host, Outcome::Timeout),
            _ => {}
        }
        match ended {
            Ended::Answered { reusable } => {
                connection.count.end_request();
                if let Some(complete_at) = exchange.complete_at {
                    counters.record_response_time(complete_at.elapsed(), true);
                }
                if reusable {
                    host.pool(Priority::Default).give_back(connection, Instant::now());
                }
            }
            Ended::Failed(kind) => counters.count_response(kind.status(), true),
            Ended::Late => {
                counters.upstream_rq_timeout.inc();
                if !exchange.answered {
                    counters.count_response(504, true);
                }
            }
            Ended::Broken => {}
            Ended::Abandoned => counters.upstream_rq_tx_reset.inc(),
        }
    }

    /// A connection, or the status that the cluster counts when there is none.
    async fn connect(&self, host: &WorkerHost) -> Result<Box<UpstreamConnection>, u16> {
        let pool = host.pool(Priority::Default);
        if let Some(connection) = pool.checkout(Instant::now()) {
            return Ok(connection);
        }
        let mut pending = pool.wait().map_err(|_| 503_u16)?;
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut alarm = Alarm::default();
        let connected = std::future::poll_fn(|task| match pending.poll(task) {
            Poll::Ready(connected) => Poll::Ready(Some(connected)),
            Poll::Pending => alarm.poll(deadline, task).map(|()| None),
        });
        match connected.await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(_)) => {
                self.running.worker.report(&self.cluster, host, Outcome::ConnectionFailed);
                Err(503)
            }
            None => {
                let counters = self.cluster.counters();
                counters.upstream_rq_cancelled.inc();
                counters.upstream_rq_timeout.inc();
                Err(504)
            }
        }
    }
}

/// The request on its way to the mirror, and the response on its way to nowhere.
struct MirrorExchange<'a> {
    sending: &'a Sending,
    output: Output,
    /// The whole request is in the output.
    complete_at: Option<Instant>,
    response: Head,
    body: Option<BodyReader>,
    keep_alive: bool,
    answered: bool,
    alarm: Alarm,
}

impl<'a> MirrorExchange<'a> {
    fn new(sending: &'a Sending, head: Vec<u8>) -> Self {
        let mut output = Output::default();
        output.bytes = head;
        Self {
            sending,
            output,
            complete_at: None,
            response: Head::new(),
            body: None,
            keep_alive: false,
            answered: false,
            alarm: Alarm::default(),
        }
    }

    fn poll(&mut self, up: &mut UpstreamConnection, task: &mut Context<'_>) -> Poll<Ended> {
        if self.sending.running.is_abandoned(task) {
            return Poll::Ready(Ended::Abandoned);
        }
        loop {
            if self.output.is_empty() && self.complete_at.is_none() {
                match self.sending.running.poll_body(&mut self.output.bytes, task) {
                    None => return Poll::Ready(Ended::Abandoned),
                    Some(true) => self.complete_at = Some(Instant::now()),
                    Some(false) => {}
                }
            }
            if self.output.is_empty() {
                break;
            }
            match self.output.poll_write(&mut up.stream, task) {
                // The mirror may have answered before it closed.
                Poll::Ready(Err(_)) => self.complete_at = Some(Instant::now()),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => break,
            }
        }
        up.count.sent += self.output.take_written();
        loop {
            match self.take_in(up) {
                Ok(Some(ended)) => return Poll::Ready(ended),
                Ok(None) => {}
                Err(()) => {
                    self.sending.cluster.counters().upstream_cx_protocol_error.inc();
                    return Poll::Ready(self.broken(ResetKind::ProtocolError));
                }
            }
            let buffer = up.buffer.fill();
            match tokio_util::io::poll_read_buf(Pin::new(&mut up.stream), task, buffer) {
                Poll::Ready(Ok(count @ 1..)) => up.count.received += count as u64,
                Poll::Ready(_) => {
                    up.closed_by_peer();
                    let ended = self.body.is_some_and(|body| body.end_of_stream().is_ok());
                    return Poll::Ready(if ended {
                        Ended::Answered { reusable: false }
                    } else {
                        self.broken(ResetKind::Termination)
                    });
                }
                Poll::Pending => break,
            }
        }
        let deadline = self.complete_at.zip(self.sending.timeout).map(|(begun, timeout)| begun + timeout);
        self.alarm.poll(deadline, task).map(|()| Ended::Late)
    }

    /// Reads the response as far as it is here, and forgets it.
    fn take_in(&mut self, up: &mut UpstreamConnection) -> Result<Option<Ended>, ()> {
        loop {
            if let Some(reader) = &mut self.body {
                if !reader.is_finished() {
                    let step = reader.next(up.buffer.unread()).map_err(|_| ())?;
                    up.buffer.consume(step.consumed);
                    if step.consumed > 0 && !step.finished {
                        continue;
                    }
                    if !step.finished {
                        return Ok(None);
                    }
                }
                let sent = self.complete_at.is_some() && self.output.is_empty();
                let reusable = self.keep_alive && sent && up.buffer.is_empty();
                return Ok(Some(Ended::Answered { reusable }));
            }
            let method: &[u8] = if self.sending.head_request { b"HEAD" } else { b"GET" };
            match h1::parse_response(&mut up.buffer, &RESPONSE_LIMITS, method, &mut self.response).map_err(|_| ())? {
                None => return Ok(None),
                Some(framing) if framing.interim => {}
                Some(framing) => {
                    self.sending.cluster.counters().count_response(self.response.status(), true);
                    self.answered = true;
                    self.keep_alive = framing.keep_alive;
                    self.body = Some(BodyReader::new(framing.body));
                }
            }
        }
    }

    fn broken(&self, kind: ResetKind) -> Ended {
        if self.answered { Ended::Broken } else { Ended::Failed(kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> (Rc<RefCell<Feed>>, Copies) {
        let feed = Rc::new(RefCell::new(Feed { bytes: Vec::new(), state: FeedState::Open, waker: None }));
        (feed.clone(), Copies { feeds: vec![feed], load: Rc::default() })
    }

    #[test]
    fn a_shadow_keeps_its_port() {
        assert_eq!(shadow_host(b"a.com"), b"a.com-shadow");
        assert_eq!(shadow_host(b"a.com:80"), b"a.com-shadow:80");
        assert_eq!(shadow_host(b"[::1]:80"), b"[::1]-shadow:80");
        assert_eq!(shadow_host(b"[::1]"), b"[::1]-shadow");
    }

    #[test]
    fn a_mirror_that_does_not_keep_up_is_given_up() {
        let (feed, mut copies) = feed();
        assert_eq!(copies.push(&vec![0; FEED_BYTES], false), 0);
        assert_eq!((feed.borrow().bytes.len(), copies.load.bytes.get()), (FEED_BYTES, FEED_BYTES));
        assert_eq!(copies.push(b"x", false), 1);
        assert!(copies.feeds.is_empty());
        assert_eq!((feed.borrow().state, feed.borrow().bytes.len()), (FeedState::Abandoned, FEED_BYTES));
    }

    #[test]
    fn all_mirrors_together_hold_a_bounded_number_of_bytes() {
        let (_feed, mut copies) = feed();
        copies.load.bytes.set(ALL_BYTES - 1);
        assert_eq!(copies.push(b"xy", false), 1);
        assert_eq!(copies.load.bytes.get(), ALL_BYTES - 1);
    }

    #[test]
    fn a_body_that_is_complete_stays_for_the_mirror_and_one_that_broke_off_does_not() {
        let (feed_of_whole, mut copies) = feed();
        assert_eq!(copies.push(b"all", true), 0);
        drop(copies);
        assert_eq!((feed_of_whole.borrow().state, &*feed_of_whole.borrow().bytes), (FeedState::Complete, &b"all"[..]));
        let (feed_of_part, mut copies) = feed();
        copies.push(b"part", false);
        drop(copies);
        assert_eq!(feed_of_part.borrow().state, FeedState::Abandoned);
    }
}
