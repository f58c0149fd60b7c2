//! One worker: a thread with its own runtime, sockets, connections, pools and counters. It shares nothing on the way
//! of a request but what is named as shared (host load, statistics read by others).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::access_log::{LogBuffers, LogSink};
use crate::engine::Event;
use crate::http::connection;
use crate::http::exchange::Scratch;
use crate::http::ingress::Machine;
use crate::http::router::mirror;
use crate::snapshot::host::HostState;
use crate::snapshot::{Cluster, ClusterId, Snapshot};
use crate::stats::Registry;
use crate::upstream::outlier::{self, Outcome};
use crate::upstream::{WorkerCluster, WorkerHost};
use crate::view::{View, WorkerListener};

/// How often a worker looks after its pools and logs.
const TICK: Duration = Duration::from_secs(1);
/// Scratch space kept for the next requests; more requests at once allocate their own.
const SPARE_SCRATCH: usize = 256;

/// What the engine tells a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take connections from a socket for a listener.
    Listen { name: Arc<str>, address: SocketAddr, socket: std::net::TcpListener },
    /// Take no more connections for a listener.
    Unlisten { name: Arc<str> },
    /// Serve by a newer snapshot.
    Adopt(Arc<Snapshot>),
    /// Choose among the hosts that may be chosen now.
    Rebalance(Arc<Cluster>),
    /// Use the connections to a host that failed no more.
    DrainHost(ClusterId, Arc<HostState>),
    /// Whether connections end with their next response.
    CloseConnections(bool),
    /// Take no more connections, let the open ones end; answer when they have.
    Drain { deadline: Instant, done: tokio::sync::oneshot::Sender<()> },
}

/// What all workers of a proxy have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The statistics.
    pub(crate) stats: Arc<Registry>,
    /// Numbers for connections.
    pub(crate) connection_ids: AtomicU64,
    /// Facts of the machine.
    pub(crate) machine: Machine,
    /// How the main thread is told of hosts that stand out.
    pub(crate) events: UnboundedSender<Event>,
}

/// A worker's state; everything in it belongs to its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Number of the worker, which is the index of its counters.
    pub(crate) index: usize,
    /// What is shared with the other workers.
    pub(crate) common: Arc<Common>,
    /// Access log buffers.
    pub(crate) logs: LogBuffers,
    /// Chance.
    pub(crate) rng: RefCell<Rng>,
    /// Copies of requests that are under way.
    pub(crate) mirrors: Rc<mirror::Load>,
    view: RefCell<Rc<View>>,
    bound: RefCell<HashMap<Arc<str>, SocketAddr>>,
    #[expect(clippy::vec_box, reason = "it goes in and out with every request; the box keeps that a pointer")]
    scratch: RefCell<Vec<Box<Scratch>>>,
    connections: RefCell<Vec<Weak<ConnectionHandle>>>,
    open: Cell<usize>,
    date: RefCell<(u64, String)>,
    draining: Cell<bool>,
    drain_by: Cell<Option<Instant>>,
}

/// The worker's hold on a connection: how to wake it when something changed.
#[derive(Debug, Default)]
pub(crate) struct ConnectionHandle {
    waker: RefCell<Option<Waker>>,
}

impl ConnectionHandle {
    /// Remembers whom to wake; free when it is the same task as before.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}

impl Worker {
    pub(crate) fn new(index: usize, common: Arc<Common>, sink: LogSink) -> Rc<Self> {
        Rc::new(Self {
            index,
            common,
            logs: LogBuffers::new(sink),
            rng: RefCell::new(Rng::new()),
            mirrors: Rc::default(),
            view: RefCell::new(View::empty()),
            bound: RefCell::default(),
            scratch: RefCell::default(),
            connections: RefCell::default(),
            open: Cell::new(0),
            date: RefCell::default(),
            draining: Cell::new(false),
            drain_by: Cell::new(None),
        })
    }

    /// The newest view.
    pub(crate) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Number of the newest view.
    pub(crate) fn generation(&self) -> u64 {
        self.view.borrow().generation
    }

    /// Whether connections should end with their next response.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The moment at which idle connections are closed while draining.
    pub(crate) fn drain_by(&self) -> Option<Instant> {
        self.drain_by.get()
    }

    /// Space for an exchange.
    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives the space of an exchange back.
    pub(crate) fn give_scratch(&self, mut scratch: Box<Scratch>) {
        let mut spare = self.scratch.borrow_mut();
        if spare.len() < SPARE_SCRATCH {
            scratch.clear();
            spare.push(scratch);
        }
    }

    /// Calls with the `date` header of now, made once a second.
    pub(crate) fn with_date(&self, use_date: impl FnOnce(&[u8])) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            let text = i64::try_from(now)
                .ok()
                .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
                .map(|moment| moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
            *date = (now, text.unwrap_or_default());
        }
        use_date(date.1.as_bytes());
    }

    /// Registers a connection; it is forgotten when the handle is dropped.
    pub(crate) fn register(&self) -> Rc<ConnectionHandle> {
        let handle = Rc::new(ConnectionHandle::default());
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= 64 && connections.len() >= 2 * self.open.get() {
            connections.retain(|weak| weak.strong_count() > 0);
        }
        connections.push(Rc::downgrade(&handle));
        handle
    }

    fn adopt(&self, snapshot: &Arc<Snapshot>) {
        let previous = self.view();
        let next = View::adopt(
            snapshot,
            &previous,
            &self.bound.borrow(),
            self.index,
            &self.common.stats,
            &mut self.rng.borrow_mut(),
        );
        self.view.replace(next);
        self.wake_all();
    }

    fn rebalance(&self, cluster: &Cluster) {
        if let Some(known) = self.view().cluster(cluster.id) {
            known.rebalance(cluster, &mut self.rng.borrow_mut());
        }
    }

    /// Reports what became of an attempt at a host, where the cluster has outlier detection.
    #[inline]
    pub(crate) fn report(&self, cluster: &WorkerCluster, host: &WorkerHost, outcome: Outcome) {
        let config = &cluster.cluster.config;
        if let Some(detection) = &config.outlier_detection {
            let state = &host.endpoint.state;
            outlier::report(detection, state, outcome, |outlier| {
                let suspect = Event::Suspect { cluster: config.name.clone(), host: state.clone(), outlier };
                // The main thread may have ended already.
                let _ = self.common.events.send(suspect);
            });
        }
    }

    fn wake_all(&self) {
        self.connections.borrow_mut().retain(|weak| {
            let Some(handle) = weak.upgrade() else { return false };
            if let Some(waker) = handle.waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
            true
        });
    }

    fn sweep(&self) {
        let now = Instant::now();
        for cluster in self.view().clusters() {
            cluster.sweep(now);
        }
        self.logs.flush();
    }
}

/// Runs a worker until the engine drops its sender.
pub(crate) async fn run(worker: Rc<Worker>, mut commands: UnboundedReceiver<Command>) {
    let mut acceptors: HashMap<Arc<str>, (JoinHandle<()>, UnboundedSender<()>)> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(Command::Listen { name, address, socket }) => {
                    worker.bound.borrow_mut().insert(name.clone(), address);
                    match TcpListener::from_std(socket) {
                        Ok(socket) => {
                            let (stop, stopped) = tokio::sync::mpsc::unbounded_channel();
                            let task = accept(worker.clone(), name.clone(), socket, stopped);
                            acceptors.insert(name, (tokio::task::spawn_local(task), stop));
                        }
                        Err(error) => tracing::error!(listener = %name, %error, "cannot use the listening socket"),
                    }
                }
                Some(Command::Unlisten { name }) => {
                    worker.bound.borrow_mut().remove(&name);
                    // The acceptor ends once it has taken what is waiting already.
                    acceptors.remove(&name);
                }
                Some(Command::Adopt(snapshot)) => worker.adopt(&snapshot),
                Some(Command::Rebalance(cluster)) => worker.rebalance(&cluster),
                Some(Command::DrainHost(cluster, host)) => {
                    if let Some(cluster) = worker.view().cluster(cluster) {
                        cluster.drain_host(&host);
                    }
                }
                Some(Command::CloseConnections(close)) => worker.draining.set(close),
                Some(Command::Drain { deadline, done }) => {
                    let ending: Vec<_> = acceptors.drain().map(|(_, (task, _))| task).collect();
                    tokio::task::spawn_local(drain(worker.clone(), ending, deadline, done));
                }
            },
            _ = tick.tick() => worker.sweep(),
        }
    }
    worker.logs.flush();
}

/// Lets the connections end: those in an exchange with its response, idle ones after a short grace.
async fn drain(
    worker: Rc<Worker>,
    acceptors: Vec<JoinHandle<()>>,
    deadline: Instant,
    done: tokio::sync::oneshot::Sender<()>,
) {
    /// A client that saw no `connection: close` may be sending its next request right now.
    const GRACE: Duration = Duration::from_millis(250);
    for acceptor in acceptors {
        // An acceptor does not fail; were it cancelled, there is nothing left to wait for.
        let _ = acceptor.await;
    }
    worker.draining.set(true);
    worker.drain_by.set(Some(deadline.min(Instant::now() + GRACE)));
    worker.wake_all();
    while worker.open.get() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.logs.flush();
    // The engine may have stopped waiting.
    let _ = done.send(());
}

async fn accept(
    worker: Rc<Worker>,
    name: Arc<str>,
    socket: TcpListener,
    mut stopped: tokio::sync::mpsc::UnboundedReceiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            // The sender is dropped when the listener goes: connections that wait already are still served.
            _ = stopped.recv() => break,
        };
        match accepted {
            Ok((stream, remote)) => admit(&worker, &name, stream, remote),
            Err(error) => {
                if is_exhaustion(&error) {
                    tracing::warn!(listener = %name, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Whether the process ran out of something, so that trying again at once would spin.
fn is_exhaustion(error: &std::io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS | ENOMEM))
}

fn admit(worker: &Rc<Worker>, name: &str, stream: TcpStream, remote: SocketAddr) {
    let view = worker.view();
    let Some(listener) = view.listener(name).cloned() else { return };
    let worker = worker.clone();
    tokio::task::spawn_local(serve(worker, stream, remote, listener));
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, remote: SocketAddr, listener: Rc<WorkerListener>) {
    let Ok(local) = stream.local_addr() else { return };
    // Without it small responses wait for the client's acknowledgement; a failure only costs latency.
    let _ = stream.set_nodelay(true);
    worker.open.set(worker.open.get() + 1);
    let id = worker.common.connection_ids.fetch_add(1, Ordering::Relaxed);
    let facts = connection::facts(id, local, remote);
    connection::serve(&worker, stream, facts, listener).await;
    worker.open.set(worker.open.get() - 1);
}
