//! Who asks the hosts whether they are well? One task for each host, on the main thread.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Event;
use crate::http::h1::{self, BodyLength, BodyReader, Limits, ReadBuffer};
use crate::http::head::{Head, Known};
use crate::snapshot::cluster::{Checker, ClusterConfig, HealthCheck, HttpCheck};
use crate::snapshot::endpoints::Endpoint;
use crate::snapshot::host::{HealthFlag, HostState};
use crate::snapshot::{Cluster, Snapshot};
use crate::stats::ClusterStats;
use crate::upstream::health_check::{Finding, Session, Transition, jitter, next_check};

/// Heads larger than this are no answer.
const LIMITS: Limits =
    Limits { max_head_bytes: 60 * 1024, max_headers: 100, accept_http_10: true, allow_absolute_url: true };
/// Bytes of an answer that are read at most, whatever is looked for in them.
const MAX_ANSWER: usize = 1024 * 1024;

/// The checked clusters by name.
pub(super) struct HealthChecks {
    clusters: BTreeMap<Arc<str>, Checked>,
    events: UnboundedSender<Event>,
    rng: Rng,
}

/// The tasks of one cluster, each with the host that it checks.
struct Checked {
    cluster: Arc<Cluster>,
    tasks: Vec<(Arc<HostState>, JoinHandle<()>)>,
}

impl HealthChecks {
    pub(super) fn new(events: UnboundedSender<Event>) -> Self {
        Self { clusters: BTreeMap::new(), events, rng: Rng::new() }
    }

    /// Checks the hosts of a snapshot whose clusters say so. Returns the clusters whose hosts are no longer checked, and
    /// so no longer failed.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) -> Vec<Arc<str>> {
        let mut released = Vec::new();
        let mut before = std::mem::take(&mut self.clusters);
        for cluster in snapshot.clusters.iter().flatten() {
            let name = &cluster.config.name;
            let known = before.remove(name);
            if cluster.config.health_check.is_some() {
                let checked = self.check(cluster, known);
                self.clusters.insert(name.clone(), checked);
            } else if let Some(known) = known {
                known.end();
                released.push(name.clone());
            }
        }
        for gone in before.into_values() {
            gone.end();
        }
        released
    }

    fn check(&mut self, cluster: &Arc<Cluster>, known: Option<Checked>) -> Checked {
        let mut known = match known {
            Some(known) if Arc::ptr_eq(&known.cluster.endpoints, &cluster.endpoints) => return known,
            Some(known) => known,
            None => Checked { cluster: cluster.clone(), tasks: Vec::new() },
        };
        let same = Arc::ptr_eq(&known.cluster.config, &cluster.config);
        if !same {
            // What is asked may have changed with the settings; what is known of the hosts is in their states.
            known.abort();
            known.tasks.clear();
        }
        let mut tasks = Vec::with_capacity(cluster.endpoints.hosts.len());
        for host in cluster.endpoints.hosts.iter().filter(|host| !host.health_check.disabled) {
            let task = match known.tasks.iter().position(|(state, _)| Arc::ptr_eq(state, &host.state)) {
                Some(index) => known.tasks.swap_remove(index).1,
                None => self.spawn(cluster, host),
            };
            tasks.push((host.state.clone(), task));
        }
        known.abort();
        Checked { cluster: cluster.clone(), tasks }
    }

    fn spawn(&mut self, cluster: &Arc<Cluster>, host: &Arc<Endpoint>) -> JoinHandle<()> {
        let watch = Watch {
            config: cluster.config.clone(),
            stats: cluster.stats.clone(),
            host: host.clone(),
            events: self.events.clone(),
            rng: Rng::with_seed(self.rng.u64(..)),
        };
        tokio::task::spawn_local(watch.run())
    }
}

impl Checked {
    fn abort(&self) {
        for (_, task) in &self.tasks {
            task.abort();
        }
    }

    fn end(self) {
        self.abort();
        for host in &self.cluster.endpoints.hosts {
            host.state.set(HealthFlag::FailedActiveHealthCheck, false);
            host.state.set(HealthFlag::DegradedActiveHealthCheck, false);
        }
    }
}

/// The checks of one host.
struct Watch {
    config: Arc<ClusterConfig>,
    stats: Arc<ClusterStats>,
    host: Arc<Endpoint>,
    events: UnboundedSender<Event>,
    rng: Rng,
}

impl Watch {
    async fn run(mut self) {
        let config = self.config.clone();
        let Some(check) = &config.health_check else { return };
        let state = &self.host.state.clone();
        let mut session = Session::new(state.has(HealthFlag::FailedActiveHealthCheck));
        let mut connection = None;
        let wait = jitter(check.initial_jitter, &mut self.rng);
        tokio::time::sleep(wait).await;
        loop {
            let counters = self.stats.state.health_check.touch();
            counters.attempt.inc();
            let answer = match tokio::time::timeout(check.timeout, self.ask(check, &mut connection)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Answer { finding: Finding::Unreachable, degraded: false, reusable: false },
            };
            if !answer.reusable || !check.reuse_connection {
                connection = None;
            }
            let transition = session.record(check, answer.finding);
            match answer.finding {
                Finding::Passed => counters.success.inc(),
                Finding::Failed { .. } => counters.failure.inc(),
                Finding::Unreachable => {
                    counters.failure.inc();
                    counters.network_failure.inc();
                }
            }
            let passed = answer.finding == Finding::Passed;
            let degraded = passed && answer.degraded;
            let mut changed = passed && state.set(HealthFlag::DegradedActiveHealthCheck, degraded);
            if transition == Transition::Changed {
                changed |= state.set(HealthFlag::FailedActiveHealthCheck, session.has_failed());
                if passed {
                    state.became_healthy(Instant::now());
                }
            }
            if changed || (passed && state.has(HealthFlag::FailedOutlierCheck)) {
                let cluster = self.config.name.clone();
                let event = Event::Checked { cluster, host: state.clone(), changed, passed: !session.has_failed() };
                if self.events.send(event).is_err() {
                    return;
                }
            }
            let had_traffic = self.stats.total(|counters| &counters.upstream_cx_total) > 0;
            let wait = next_check(check, answer.finding, transition, had_traffic, &mut self.rng);
            tokio::time::sleep(wait).await;
        }
    }

    /// One check on the connection that there is, or on a new one.
    async fn ask(&self, check: &HealthCheck, connection: &mut Option<Connection>) -> io::Result<Answer> {
        let connection = match connection {
            Some(connection) if connection.is_open() => connection,
            slot => {
                let mut address: SocketAddr = self.host.address.socket;
                if let Some(port) = self.host.health_check.port.or(check.port) {
                    address.set_port(port);
                }
                slot.insert(Connection { stream: TcpStream::connect(address).await?, buffer: ReadBuffer::new() })
            }
        };
        match &check.checker {
            Checker::Http(http) => self.ask_http(http, connection).await,
            Checker::Tcp { receive, .. } if receive.is_empty() => {
                Ok(Answer { finding: Finding::Passed, degraded: false, reusable: false })
            }
            Checker::Tcp { send, receive } => connection.ask_tcp(send, receive).await,
        }
    }

    async fn ask_http(&self, http: &HttpCheck, connection: &mut Connection) -> io::Result<Answer> {
        let hostname = &self.host.health_check.hostname;
        let host = if hostname.is_empty() { &http.host } else { hostname };
        let request = [&*http.before_host, host.as_bytes(), &*http.after_host].concat();
        connection.stream.write_all(&request).await?;
        let mut head = Head::new();
        let (body, reusable) = connection.receive(http, &mut head).await?;
        let status = head.status();
        let within = |ranges: &[std::ops::Range<u16>]| ranges.iter().any(|range| range.contains(&status));
        let finding = if !within(&http.expected) {
            Finding::Failed { retriable: within(&http.retriable) }
        } else if !matches_in_order(&body, &http.receive) {
            Finding::Failed { retriable: false }
        } else {
            match &http.service {
                Some((name, matcher)) => {
                    self.stats.state.health_check.touch().verify_cluster.inc();
                    match head.value(name).is_some_and(|service| matcher.matches(service)) {
                        true => Finding::Passed,
                        false => Finding::Failed { retriable: false },
                    }
                }
                None => Finding::Passed,
            }
        };
        Ok(Answer { finding, degraded: head.contains(Known::XEnvoyDegraded), reusable })
    }
}

/// What a host answered.
struct Answer {
    finding: Finding,
    /// It says that it is not quite well.
    degraded: bool,
    /// Its connection can be used for the next check.
    reusable: bool,
}

struct Connection {
    stream: TcpStream,
    buffer: ReadBuffer,
}

impl Connection {
    /// Whether the peer neither closed the connection nor sent anything unasked.
    fn is_open(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.stream.read_buf(self.buffer.fill()).await
    }

    /// A whole answer; its body as far as it is looked at, and whether another request may follow.
    async fn receive(&mut self, http: &HttpCheck, head: &mut Head) -> io::Result<(Vec<u8>, bool)> {
        let framing = loop {
            match h1::parse_response(&mut self.buffer, &LIMITS, http.method.as_bytes(), head) {
                Ok(Some(framing)) if framing.interim => {}
                Ok(Some(framing)) => break framing,
                Ok(None) if self.read().await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(None) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        };
        let mut reader = BodyReader::new(framing.body);
        let (mut body, mut received) = (Vec::new(), 0);
        while !reader.is_finished() {
            let step = reader.next(self.buffer.unread()).map_err(|_| io::ErrorKind::InvalidData)?;
            let data = &self.buffer.unread()[step.data.clone()];
            received += data.len();
            body.extend_from_slice(&data[..data.len().min(http.buffer.saturating_sub(body.len()))]);
            self.buffer.consume(step.consumed);
            if received > MAX_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if step.finished || (step.consumed == 0 && self.read().await? == 0) {
                break;
            }
        }
        let whole = reader.is_finished() || reader.end_of_stream().is_ok();
        if !whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reusable = framing.keep_alive && framing.body != BodyLength::UntilClose && self.buffer.is_empty();
        Ok((body, reusable))
    }

    async fn ask_tcp(&mut self, send: &[u8], receive: &[Vec<u8>]) -> io::Result<Answer> {
        self.stream.write_all(send).await?;
        let mut received = Vec::new();
        while !matches_in_order(&received, receive) {
            if self.stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if received.len() > MAX_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(Answer { finding: Finding::Passed, degraded: false, reusable: true })
    }
}

/// Whether all parts are in the bytes, each behind the one before.
fn matches_in_order(bytes: &[u8], parts: &[Vec<u8>]) -> bool {
    let mut rest = bytes;
    parts.iter().filter(|part| !part.is_empty()).all(|part| {
        match rest.windows(part.len()).position(|window| window == part.as_slice()) {
            Some(found) => {
                rest = &rest[found + part.len()..];
                true
            }
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_must_come_one_behind_the_other() {
        let parts = |parts: &[&str]| parts.iter().map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(matches_in_order(b"...ab..cd", &parts(&["ab", "cd"])));
        assert!(!matches_in_order(b"...cd..ab", &parts(&["ab", "cd"])));
        assert!(!matches_in_order(b"abc", &parts(&["ab", "bc"])));
        assert!(matches_in_order(b"", &parts(&[])));
    }
}
