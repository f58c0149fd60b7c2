//! The main thread of the data plane: one loop over one closed set of events. It builds snapshots, binds sockets,
//! resolves names, hands everything to the workers and answers the admin interface.

mod health_checks;
mod merging;
mod names;
mod outliers;
mod sockets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use lateen_xds::envoy::config::core::v3::TrafficDirection;
use lateen_xds::{Part, XdsSet};
use tokio::runtime::{Builder as RuntimeBuilder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use self::health_checks::HealthChecks;
use self::merging::{Merging, When};
use self::names::{LookedUp, Names};
use self::outliers::Outliers;
use self::sockets::bind;
use crate::access_log::LogSink;
use crate::admin::engine::EngineSource;
use crate::admin::{Order, Updates};
use crate::http::ingress::Machine;
use crate::snapshot::build::{Builder, Rejection};
use crate::snapshot::cluster::Discovery;
use crate::snapshot::endpoints::DnsName;
use crate::snapshot::host::HostState;
use crate::snapshot::limitation::Limitation;
use crate::snapshot::{Cluster, Invalid, Snapshot};
use crate::stats::Registry;
use crate::upstream::outlier::{Changes, Outlier};
use crate::worker::{self, Command, Common, Worker};

/// How to run the data plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; at least one.
    pub workers: usize,
    /// Address of the admin interface; port 0 is any free port, `None` is no admin interface.
    pub admin: Option<SocketAddr>,
}

/// What the data plane made of a resource set.
#[derive(Debug, Default)]
pub struct Applied {
    /// Resources that were not taken; their last good form stays in use.
    pub rejections: Vec<Rejection>,
    /// What the configuration asks for and does not get from this data plane.
    pub limitations: Vec<Limitation>,
    /// Listeners by name with the address that they are bound to.
    pub listeners: BTreeMap<Arc<str>, SocketAddr>,
}

/// The state that the admin interface shows; written by the engine, read by anybody.
#[derive(Debug)]
pub struct Status {
    /// When the process began.
    pub started: Instant,
    /// Worker threads.
    pub workers: usize,
    /// The statistics.
    pub stats: Arc<Registry>,
    current: Mutex<Current>,
}

/// The accepted configuration.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// The accepted set.
    pub set: XdsSet,
    /// When it was accepted.
    pub accepted: Option<SystemTime>,
    /// The snapshot built from it.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Bound addresses by listener name.
    pub listeners: BTreeMap<Arc<str>, SocketAddr>,
    /// When each resource of the set came.
    pub updates: Arc<Updates>,
    /// The proxy is draining.
    pub draining: bool,
    /// The proxy was told to fail its health checks.
    pub failing_health_checks: bool,
}

impl Status {
    /// What is in use now.
    #[must_use]
    pub fn current(&self) -> Current {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the engine is told.
pub(crate) enum Event {
    Apply(Box<XdsSet>, oneshot::Sender<Applied>),
    Resolved(DnsName, LookedUp),
    /// A host of a cluster completed a row of failures.
    Suspect {
        cluster: Arc<str>,
        host: Arc<HostState>,
        outlier: Outlier,
    },
    /// An interval of a cluster's outlier detection ended.
    Sweep(Arc<str>),
    /// An active health check of a host ended with news: its health changed, or it passed although it was ejected.
    Checked {
        cluster: Arc<str>,
        host: Arc<HostState>,
        changed: bool,
        passed: bool,
    },
    /// Changes of health in a cluster waited long enough.
    Rebalance(Arc<str>),
    Order(Order),
    Shutdown(Duration, oneshot::Sender<()>),
}

/// A running data plane.
#[derive(Debug)]
pub struct Proxy {
    events: UnboundedSender<Event>,
    status: Arc<Status>,
    admin: Option<SocketAddr>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the threads; nothing is served before [`Proxy::apply`].
    ///
    /// # Errors
    /// The admin address cannot be bound, or a thread or runtime cannot be made.
    pub fn start(options: &Options) -> io::Result<Self> {
        let workers = options.workers.max(1);
        let stats = Arc::new(Registry::new(workers));
        let status =
            Arc::new(Status { started: Instant::now(), workers, stats: stats.clone(), current: Mutex::default() });
        let admin = options.admin.map(std::net::TcpListener::bind).transpose()?;
        if let Some(admin) = &admin {
            admin.set_nonblocking(true)?;
        }
        let admin_address = admin.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        let (events, receiver) = unbounded_channel();
        let common = Arc::new(Common {
            events: events.clone(),
            stats: stats.clone(),
            connection_ids: AtomicU64::new(0),
            machine: Machine { address: first_address() },
        });
        let sink = LogSink::start()?;
        let mut senders = Vec::new();
        for index in 0..workers {
            senders.push(start_worker(index, common.clone(), sink.clone())?);
        }
        let stop = Arc::new(Notify::new());
        let source = admin_address.map(|admin| EngineSource {
            status: status.clone(),
            events: events.clone(),
            stop: stop.clone(),
            admin,
        });
        let engine = Engine {
            builder: Builder::new(stats),
            status: status.clone(),
            workers: senders,
            bound: HashMap::new(),
            names: Names::new(events.clone()),
            outliers: Outliers::new(events.clone()),
            checks: HealthChecks::new(events.clone()),
            merging: Merging::default(),
            set: XdsSet::default(),
            events: events.clone(),
            sink,
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let runtime = RuntimeBuilder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "cannot make the engine's runtime"),
            };
            runtime.block_on(async move {
                if let (Some(listener), Some(source)) = (admin, source) {
                    tokio::task::spawn_local(serve_admin(listener, source));
                }
                engine.run(receiver).await;
            });
        })?;
        Ok(Self { events, status, admin: admin_address, stop, thread: Some(thread) })
    }

    /// Takes a resource set into use and says what was not taken.
    pub async fn apply(&self, set: XdsSet) -> Applied {
        let (reply, applied) = oneshot::channel();
        if self.events.send(Event::Apply(Box::new(set), reply)).is_err() {
            return Applied::default();
        }
        applied.await.unwrap_or_default()
    }

    /// The bound address of the admin interface.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Waits until somebody asks through the admin interface that the process end.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let stop = self.stop.clone();
        async move { stop.notified().await }
    }

    /// What the data plane runs.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Stops listening, lets running exchanges end within the limit, and ends the threads.
    pub async fn shutdown(mut self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        if self.events.send(Event::Shutdown(limit, done)).is_ok() {
            // An error means that the engine is gone already.
            let _ = finished.await;
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the engine was reported where it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apply(..) => "Apply",
            Self::Resolved(..) => "Resolved",
            Self::Suspect { .. } => "Suspect",
            Self::Sweep(..) => "Sweep",
            Self::Checked { .. } => "Checked",
            Self::Rebalance(..) => "Rebalance",
            Self::Order(..) => "Order",
            Self::Shutdown(..) => "Shutdown",
        })
    }
}

async fn serve_admin(listener: std::net::TcpListener, source: EngineSource) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => crate::admin::serve(listener, std::rc::Rc::new(source)).await,
        Err(error) => tracing::error!(%error, "cannot serve the admin interface"),
    }
}

fn start_worker(index: usize, common: Arc<Common>, sink: LogSink) -> io::Result<UnboundedSender<Command>> {
    let (commands, receiver) = unbounded_channel();
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime =
            RuntimeBuilder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(worker::run(Worker::new(index, common, sink), receiver)),
            Err(error) => tracing::error!(%error, index, "cannot make a worker's runtime"),
        }
    })?;
    Ok(commands)
}

/// The first address of this machine that is not loopback, IPv4 first, as Envoy chooses its own.
fn first_address() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let mut addresses = interfaces.iter().filter(|interface| !interface.is_loopback()).map(if_addrs::Interface::ip);
    addresses.find(IpAddr::is_ipv4)
}

/// A listener's sockets.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// The address that was asked for, perhaps with port 0.
    requested: SocketAddr,
    /// The address that it got.
    actual: SocketAddr,
}

struct Engine {
    builder: Builder,
    status: Arc<Status>,
    workers: Vec<UnboundedSender<Command>>,
    bound: HashMap<Arc<str>, Bound>,
    names: Names,
    outliers: Outliers,
    checks: HealthChecks,
    merging: Merging,
    set: XdsSet,
    events: UnboundedSender<Event>,
    sink: LogSink,
}

impl Engine {
    async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Apply(set, reply) => {
                    let before = std::mem::replace(&mut self.set, *set);
                    let applied = self.rebuild();
                    self.status.stats.server.record_update(&before, &self.set, &applied, SystemTime::now());
                    // The caller may have stopped waiting.
                    let _ = reply.send(applied);
                }
                Event::Resolved(name, Ok(addresses)) => {
                    let news = self.builder.resolve(name.clone(), addresses);
                    self.builder.record_lookup(&self.set, &name, true, news);
                    if news {
                        self.rebuild();
                    }
                }
                Event::Resolved(name, Err(error)) => {
                    self.builder.record_lookup(&self.set, &name, false, false);
                    tracing::debug!(host = %name.host, %error, "name resolution failed; the last addresses stay");
                }
                Event::Suspect { cluster, host, outlier } => {
                    let changes = self.outliers.suspect(&cluster, &host, outlier, Instant::now());
                    self.outliers_changed(&cluster, changes);
                }
                Event::Sweep(cluster) => {
                    let changes = self.outliers.sweep(&cluster, Instant::now());
                    self.outliers_changed(&cluster, changes);
                }
                Event::Checked { cluster, host, changed, passed } => {
                    let returned = passed && self.outliers.readmit(&cluster, &host);
                    if changed || returned {
                        self.health_changed(&cluster);
                    }
                    if !passed {
                        self.drain_host(&cluster, &host);
                    }
                }
                Event::Rebalance(cluster) => {
                    self.merging.told(&cluster, Instant::now());
                    self.rebalance(&cluster);
                }
                Event::Order(order) => self.obey(order),
                Event::Shutdown(limit, done) => {
                    self.drain(limit).await;
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn rebuild(&mut self) -> Applied {
        let (snapshot, mut rejections) = self.builder.build(&self.set);
        self.names.adopt(self.builder.dns_names(&self.set));
        let mut commands = Vec::new();
        let gone: Vec<_> = self
            .bound
            .keys()
            .filter(|name| !snapshot.listeners.iter().any(|listener| listener.name == **name))
            .cloned()
            .collect();
        for name in gone {
            self.bound.remove(&name);
            commands.extend((0..self.workers.len()).map(|worker| (worker, Command::Unlisten { name: name.clone() })));
        }
        for listener in &snapshot.listeners {
            let name = &listener.name;
            if self.bound.get(name).is_some_and(|bound| bound.requested == listener.address) {
                continue;
            }
            match bind(listener.address, self.workers.len()) {
                Ok((actual, sockets)) => {
                    let moved = self.bound.insert(name.clone(), Bound { requested: listener.address, actual });
                    for (worker, socket) in sockets.into_iter().enumerate() {
                        if moved.is_some() {
                            commands.push((worker, Command::Unlisten { name: name.clone() }));
                        }
                        commands.push((worker, Command::Listen { name: name.clone(), address: actual, socket }));
                    }
                }
                Err(error) => {
                    let message = format!("cannot bind {}: {error}", listener.address);
                    rejections.push(Rejection {
                        kind: "listener",
                        name: name.clone(),
                        invalid: Invalid::at("address", message),
                        origin: self.set.listeners.get(name).and_then(|listener| listener.origin(Part::Whole)).cloned(),
                    });
                }
            }
        }
        // Sockets that go are closed first and new ones come last, so that no connection meets a view without it.
        let (unlisten, listen): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|(_, command)| matches!(command, Command::Unlisten { .. }));
        for (worker, command) in unlisten {
            self.tell(worker, command);
        }
        for (worker, command) in listen {
            self.tell(worker, command);
        }
        for worker in 0..self.workers.len() {
            self.tell(worker, Command::Adopt(snapshot.clone()));
        }
        self.merging.retain(|name| self.set.clusters.contains_key(name));
        let mut released = self.outliers.adopt(&snapshot);
        released.extend(self.checks.adopt(&snapshot));
        for cluster in released {
            self.rebalance(&cluster);
        }
        let listeners: BTreeMap<_, _> = self.bound.iter().map(|(name, bound)| (name.clone(), bound.actual)).collect();
        let mut current = self.status.lock();
        let now = SystemTime::now();
        current.set = self.set.clone();
        current.accepted = Some(now);
        current.updates = Arc::new(current.updates.after(&self.set, now));
        let before = current.snapshot.replace(snapshot.clone());
        record_membership(before.as_deref(), &snapshot);
        current.listeners.clone_from(&listeners);
        Applied { rejections, limitations: self.builder.limitations(&self.set), listeners }
    }

    fn outliers_changed(&mut self, cluster: &Arc<str>, changes: Changes) {
        if changes.any() {
            self.health_changed(cluster);
        }
        for host in changes.ejected {
            self.drain_host(cluster, &host);
        }
    }

    /// Connections to a host that failed are not used again.
    fn drain_host(&self, cluster: &str, host: &Arc<HostState>) {
        let Some(id) = self.builder.cluster_id(cluster) else { return };
        for worker in 0..self.workers.len() {
            self.tell(worker, Command::DrainHost(id, host.clone()));
        }
    }

    /// The health of hosts of a cluster changed: the workers hear of it, perhaps together with further changes.
    fn health_changed(&mut self, cluster: &Arc<str>) {
        let Some(window) = self.builder.merge_window(cluster) else { return };
        match self.merging.changed(cluster, window, Instant::now()) {
            When::Now => self.rebalance(cluster),
            When::After(wait) => {
                let (cluster, events) = (cluster.clone(), self.events.clone());
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(wait).await;
                    // The engine may have ended meanwhile.
                    let _ = events.send(Event::Rebalance(cluster));
                });
            }
            When::Merged => {}
        }
    }

    fn rebalance(&mut self, cluster: &str) {
        let Some(cluster) = self.builder.look_again(cluster) else { return };
        for worker in 0..self.workers.len() {
            self.tell(worker, Command::Rebalance(cluster.clone()));
        }
    }

    /// Does what the admin interface was asked for.
    fn obey(&mut self, order: Order) {
        match order {
            Order::FailHealthChecks | Order::PassHealthChecks => {
                let failing = order == Order::FailHealthChecks;
                self.status.lock().failing_health_checks = failing;
                for worker in 0..self.workers.len() {
                    self.tell(worker, Command::CloseConnections(failing));
                }
            }
            Order::ReopenLogs => self.sink.reopen(),
            Order::DrainListeners { inbound_only } => {
                let is_inbound = |name: &Arc<str>| {
                    let message = self.set.listeners.get(name).map(|listener| &listener.message);
                    message.is_some_and(|message| message.traffic_direction() == TrafficDirection::Inbound)
                };
                // The names stay bound, so that the next configuration does not open their sockets again.
                let names = self.bound.keys().filter(|name| !inbound_only || is_inbound(name));
                for name in names.cloned().collect::<BTreeSet<_>>() {
                    for worker in 0..self.workers.len() {
                        self.tell(worker, Command::Unlisten { name: name.clone() });
                    }
                    self.status.stats.server.listener_manager.listener_stopped.inc();
                }
            }
            // Whoever started the proxy is told instead; see `Proxy::stopped`.
            Order::Quit => {}
        }
    }

    fn tell(&self, worker: usize, command: Command) {
        if self.workers[worker].send(command).is_err() {
            tracing::error!(worker, "a worker is gone");
        }
    }

    async fn drain(&mut self, limit: Duration) {
        self.status.lock().draining = true;
        let deadline = Instant::now() + limit;
        let mut ends = Vec::new();
        for worker in 0..self.workers.len() {
            let (done, end) = oneshot::channel();
            self.tell(worker, Command::Drain { deadline, done });
            ends.push(end);
        }
        for end in ends {
            // An error means that the worker is gone.
            let _ = tokio::time::timeout_at(deadline.into(), end).await;
        }
        self.sink.flush();
    }
}

/// Counts the clusters whose hosts are others than before.
fn record_membership(before: Option<&Snapshot>, after: &Snapshot) {
    let addresses = |cluster: &Cluster| -> BTreeSet<SocketAddr> {
        cluster.endpoints.hosts.iter().map(|host| host.address.socket).collect()
    };
    for (index, cluster) in after.clusters.iter().enumerate() {
        let Some(cluster) = cluster else { continue };
        let old = before.and_then(|before| before.clusters.get(index)?.as_ref());
        if old.is_some_and(|old| Arc::ptr_eq(&old.endpoints, &cluster.endpoints)) {
            continue;
        }
        if old.map(|old| addresses(old)).unwrap_or_default() != addresses(cluster) {
            cluster.stats.state.membership_change.inc();
        }
        if cluster.config.discovery == Discovery::Eds {
            cluster.stats.state.update_attempt.inc();
            cluster.stats.state.update_success.inc();
        }
    }
}
