//! `lateen demo`: how does a mesh feel in its first minute? A bookstore and its readers on loopback, Lateen's gateway
//! and mesh between them, and a view of what the user's edits do.

mod app;
mod catalogue;
mod client;
mod folder;
mod news;
mod page;
mod plain;
mod ports;
mod scene;
mod stage;
mod tally;
mod terminal;
mod traffic;
mod view;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lateen_compile::{Capability, Listen, LocalScope, Scope};
use lateen_config::Severity;
use lateen_xds::XdsSet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use self::app::{Mesh, Sockets};
use self::folder::Folder;
use self::news::{News, Splits, Tone};
use self::ports::Ports;
use self::scene::{Board, Places, Scene};
use self::stage::Stage;
use self::terminal::Live;
use self::traffic::SharedTally;
use crate::report;
use crate::session::{Effect, Session, SessionOptions};

/// Namespace of the bookstore.
const NAMESPACE: &str = "default";
/// The data plane carries a hundred requests a second: a worker more would be idle.
const WORKERS: usize = 1;
/// Time from one drawing of the live view to the next.
const FRAME: Duration = Duration::from_millis(250);
/// Time from one plain line to the next.
const LINE: Duration = Duration::from_secs(1);
/// How long requests may take to end when the demo does.
const DRAIN: Duration = Duration::from_secs(1);

/// How to run the demo.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Folder of the YAML; made when missing, kept when there.
    pub(crate) folder: PathBuf,
    /// Port of the gateway; the next free one when it is taken, for 0 all ports are any free ones.
    pub(crate) port: u16,
    /// End after this time.
    pub(crate) duration: Option<Duration>,
    /// Lines instead of the live view.
    pub(crate) plain: bool,
}

/// Runs the demo until a signal, the user or the duration ends it.
///
/// # Errors
/// The folder cannot be prepared, no port is free, or what is in the folder opens no gateway. A demo in which no
/// request was answered is an error as well.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let demo = Demo::start(&options).await?;
    let mut show = Show::start(&options, &demo)?;
    let deadline = async {
        match options.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let Demo { mut session, stage, mut audience } = demo;
    let stopped = session.stopped();
    tokio::pin!(deadline, stopped);
    let mut tick = tokio::time::interval(show.pace());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first moment has nothing to show in a line.
    tick.reset();
    let outcome = {
        // Following the files must not be broken off between reading and applying: it is polled, not begun anew.
        let (effects, mut effected) = tokio::sync::mpsc::channel(1);
        let follow = follow(&mut session, effects);
        tokio::pin!(follow);
        loop {
            let shown = tokio::select! {
                _ = interrupt.recv() => break Ok(()),
                _ = terminate.recv() => break Ok(()),
                () = &mut deadline => break Ok(()),
                () = &mut stopped => break Ok(()),
                () = show.ended() => break Ok(()),
                () = &mut follow => Ok(()),
                Some(change) = effected.recv() => {
                    let news = audience.hear(change);
                    show.tell(&audience, &news)
                }
                _ = tick.tick() => show.show(&audience),
            };
            if let Err(error) = shown {
                // Whoever read the lines has read enough (`lateen demo | head`); a lost terminal is an end as well.
                break if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) };
            }
        }
    };
    let staged = stage.shutdown().await;
    session.shutdown(DRAIN).await;
    let ended = show.end(&audience);
    staged.context("the bookstore did not run")?;
    match outcome.and(ended) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).context("cannot show the demo"),
        _ => {}
    }
    audience.verdict()
}

/// A change of the files, or why they could not be read; and what is in force now.
struct Change {
    effect: anyhow::Result<Effect>,
    set: XdsSet,
}

/// Tells of each change of the files, for as long as anybody listens.
async fn follow(session: &mut Session, changes: tokio::sync::mpsc::Sender<Change>) {
    loop {
        let effect = session.next().await;
        let change = Change { effect, set: session.current().set };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Everything that runs.
struct Demo {
    session: Session,
    stage: Stage,
    audience: Audience,
}

impl Demo {
    async fn start(options: &DemoOptions) -> anyhow::Result<Self> {
        let sockets = Sockets::bind().context("cannot bind ports for the bookstore on 127.0.0.1")?;
        Self::start_on(options, sockets, Ports::choose(options.port)?).await
    }

    async fn start_on(options: &DemoOptions, sockets: Sockets, ports: Ports) -> anyhow::Result<Self> {
        let folder = Folder::prepare(&options.folder, &sockets.ports()?)?;
        let began = Instant::now();
        let (session, effect) = Session::start(session_options(&folder, ports)).await?;
        let loopback = |port| (IpAddr::from(Ipv4Addr::LOCALHOST), port).into();
        let places = Places {
            gateway: loopback(ports.gateway),
            mesh: loopback(ports.mesh),
            http_proxy: loopback(ports.http_proxy),
            admin: session.admin_address(),
            folder,
        };
        let current = session.current();
        if !current.listeners.values().any(|address| *address == places.gateway) {
            report::diagnostics(&effect.diagnostics, |path| session.file(path));
            report::rejections(&effect.applied.rejections);
            let folder = places.folder.path.display();
            bail!(
                "the files in {folder} open no gateway on port {GATEWAY}; mend them, or remove the folder to begin anew",
                GATEWAY = ports::GATEWAY_PORT
            );
        }
        let tally = SharedTally::default();
        let mesh = Mesh { listener: places.mesh, http_proxy: places.http_proxy };
        let stage = Stage::start(sockets, mesh, places.gateway, began, tally.clone())
            .context("cannot start the bookstore's thread")?;
        let mut audience =
            Audience { places, began, tally, splits: news::splits(&current.set), board: Board::default() };
        audience.open(options.port, &effect);
        Ok(Self { session, stage, audience })
    }
}

/// The session that serves the folder: everything on loopback, no access log in the midst of the view.
fn session_options(folder: &Folder, ports: Ports) -> SessionOptions {
    let mut gateway = Scope::gateway(NAMESPACE);
    gateway.capability = Capability::Native;
    gateway.listen = Listen { bind: Some(Ipv4Addr::LOCALHOST.into()), ports: ports.gateway_mapping() };
    let mut sidecar = Scope::sidecar(NAMESPACE, std::collections::BTreeMap::new());
    sidecar.capability = Capability::Native;
    sidecar.listen = Listen { bind: None, ports: ports.mesh_mapping() };
    sidecar.http_proxy_port = Some(ports.http_proxy);
    SessionOptions {
        paths: vec![folder.path.clone()],
        namespace: NAMESPACE.to_owned(),
        scope: LocalScope { gateway, sidecar },
        access_log: Some(None),
        workers: WORKERS,
        admin: Some((Ipv4Addr::LOCALHOST, ports.admin).into()),
    }
}

/// Everything that the view looks at.
struct Audience {
    places: Places,
    began: Instant,
    tally: SharedTally,
    splits: Splits,
    board: Board,
}

impl Audience {
    /// Says what is particular about this run.
    fn open(&mut self, asked_port: u16, effect: &Effect) {
        let got = self.places.gateway.port();
        if asked_port != 0 && got != asked_port {
            self.pin(Tone::Plain, format!("port {asked_port} is taken; the gateway is on port {got}"));
        }
        let kept = &self.places.folder.kept;
        if !kept.is_empty() {
            let folder = self.places.folder.path.display();
            self.pin(
                Tone::Plain,
                format!("your {} of an earlier run stays; remove {folder} to begin anew", kept.join(", ")),
            );
        }
        let is_clean = effect.applied.rejections.is_empty()
            && effect.diagnostics.iter().all(|diagnostic| diagnostic.severity < Severity::Error);
        if is_clean {
            self.pin(Tone::Good, format!("{} objects from {} files are in force", effect.objects, effect.files));
        } else {
            for news in news::of_effect(self.began.elapsed(), effect, &Splits::default(), &self.splits) {
                self.board.pin(news);
            }
        }
    }

    fn pin(&mut self, tone: Tone, text: String) {
        self.board.pin(News { at: self.began.elapsed(), tone, text });
    }

    /// Takes note of a change; gives back what there is to tell.
    fn hear(&mut self, change: Change) -> Vec<News> {
        let at = self.began.elapsed();
        let news = match change.effect {
            Ok(effect) => {
                let splits = news::splits(&change.set);
                let news = news::of_effect(at, &effect, &self.splits, &splits);
                self.splits = splits;
                news
            }
            Err(error) => vec![News { at, tone: Tone::Bad, text: format!("{error:#}; what is in force stays") }],
        };
        for piece in &news {
            self.board.pin(piece.clone());
        }
        news
    }

    fn scene(&self) -> Scene<'_> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        Scene::of(&self.places, self.began.elapsed(), &tally, &self.splits, &self.board)
    }

    /// An error when nothing worked at all.
    fn verdict(&self) -> anyhow::Result<()> {
        let scene = self.scene();
        match scene.problem {
            Some(problem) if scene.total.pages() == 0 => bail!("no page was served: {problem}"),
            _ => Ok(()),
        }
    }
}

/// How the demo is shown.
enum Show {
    Live(Live),
    Plain,
}

impl Show {
    fn start(options: &DemoOptions, demo: &Demo) -> anyhow::Result<Self> {
        if !options.plain && terminal::is_there() {
            let mut live = Live::start().context("cannot use the terminal; try --plain")?;
            live.draw(&demo.audience.scene()).context("cannot draw")?;
            return Ok(Self::Live(live));
        }
        let mut text = plain::greeting(&demo.audience.places);
        demo.audience.board.latest(usize::MAX).for_each(|news| text.push_str(&plain::news(news)));
        // The loop meets the same failure again if it lasts.
        let _ = print(&text);
        Ok(Self::Plain)
    }

    fn pace(&self) -> Duration {
        match self {
            Self::Live(_) => FRAME,
            Self::Plain => LINE,
        }
    }

    fn show(&mut self, audience: &Audience) -> io::Result<()> {
        match self {
            Self::Live(live) => live.draw(&audience.scene()),
            Self::Plain => print(&plain::line(&audience.scene())),
        }
    }

    fn tell(&mut self, audience: &Audience, news: &[News]) -> io::Result<()> {
        match self {
            Self::Live(live) => {
                live.wipe()?;
                live.draw(&audience.scene())
            }
            Self::Plain => news.iter().try_for_each(|news| print(&plain::news(news))),
        }
    }

    /// Waits until the user ends the view, which only a live one hears of.
    async fn ended(&mut self) {
        match self {
            Self::Live(live) => live.ended().await,
            Self::Plain => std::future::pending().await,
        }
    }

    /// Gives the terminal back, then says how it went.
    fn end(self, audience: &Audience) -> io::Result<()> {
        drop(self);
        print(&plain::farewell(&audience.scene()))
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::tally::Counts;

    /// Longer than anything here takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn demo(folder: PathBuf) -> Demo {
        let options = DemoOptions { folder, port: 0, duration: None, plain: true };
        Demo::start_on(&options, Sockets::bind_any().unwrap(), Ports::any().unwrap()).await.unwrap()
    }

    /// Waits until the counts are as wanted.
    async fn until(audience: &Audience, wanted: impl Fn(Counts) -> bool) -> Counts {
        let waiting = async {
            loop {
                let total = audience.tally.lock().unwrap().total();
                if wanted(total) {
                    return total;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("only {:?}", audience.scene()))
    }

    /// Edits the routes and waits for what the demo says about it.
    async fn edit(demo: &mut Demo, change: impl Fn(String) -> String) -> Vec<News> {
        let routes = demo.audience.places.folder.routes();
        let text = std::fs::read_to_string(&routes).unwrap();
        // A rename is seen whole or not at all.
        let new = routes.with_extension("new");
        std::fs::write(&new, change(text)).unwrap();
        std::fs::rename(&new, &routes).unwrap();
        let effect = tokio::time::timeout(PATIENCE, demo.session.next()).await.unwrap();
        demo.audience.hear(Change { effect, set: demo.session.current().set })
    }

    async fn end(demo: Demo) {
        demo.stage.shutdown().await.unwrap();
        demo.session.shutdown(DRAIN).await;
    }

    #[tokio::test]
    async fn an_edit_of_the_weights_moves_the_traffic_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(folder.path().join("demo")).await;
        until(&demo.audience, |total| total.versions[0] > 0 && total.versions[1] > 0).await;
        assert_eq!(demo.audience.scene().weights, [Some(80), Some(20), Some(0)]);

        let news = edit(&mut demo, |text| {
            text.replace("weight: 80", "weight: 00").replace("weight: 20", "weight: 00").replacen(
                "weight: 0\n",
                "weight: 100\n",
                1,
            )
        })
        .await;
        assert!(news[0].text.starts_with("reviews v1 80, v2 20 → v3 100, in force after "), "{news:?}");
        // Requests that were on their way may still end with the old weights: one for each caller.
        let before = demo.audience.tally.lock().unwrap().total();
        let after = until(&demo.audience, |total| total.versions[2] >= 30).await;
        let old = after.versions[0] + after.versions[1] - before.versions[0] - before.versions[1];
        assert!(old <= 4, "{before:?} {after:?}");
        assert_eq!(after.errors, 0);
        demo.audience.verdict().unwrap();
        end(demo).await;
    }

    #[tokio::test]
    async fn a_broken_edit_is_told_with_its_place_and_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(folder.path().to_owned()).await;
        let news = edit(&mut demo, |text| text.replacen("weight: 80", "wieght: 80", 1)).await;
        assert_eq!(news[0].tone, Tone::Bad, "{news:?}");
        assert!(news[0].text.starts_with("routes.yaml:23:7:") && news[0].text.contains("weight"), "{news:?}");
        assert!(news[1].text.contains("last good form"), "{news:?}");
        let before = demo.audience.tally.lock().unwrap().total();
        let after = until(&demo.audience, |total| total.pages() >= before.pages() + 20).await;
        assert_eq!(after.errors, 0);
        assert_eq!(demo.audience.scene().weights, [Some(80), Some(20), Some(0)]);
        end(demo).await;
    }

    #[tokio::test]
    async fn a_folder_without_a_gateway_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.yaml"), "# nothing\n").unwrap();
        let options = DemoOptions { folder: folder.path().to_owned(), port: 0, duration: None, plain: true };
        let started = Demo::start_on(&options, Sockets::bind_any().unwrap(), Ports::any().unwrap()).await;
        let error = started.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("remove the folder"), "{error}");
    }
}
