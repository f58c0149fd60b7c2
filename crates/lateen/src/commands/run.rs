//! `lateen run`: serve traffic by files, and take their edits into effect.

use std::process::ExitCode;

use anyhow::Context as _;
use lateen_config::{Diagnostic, Severity};
use lateen_proxy::Limitation;
use tokio::signal::unix::{SignalKind, signal};

use super::local_scope;
use crate::arguments::{RunArguments, Switchable};
use crate::listening::{Listening, listening};
use crate::report;
use crate::session::{Effect, Session, SessionOptions};

/// Runs until a signal comes.
pub(crate) fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let http_proxy_port = arguments.http_proxy_port.on();
    let options = SessionOptions {
        paths: arguments.sources.files.clone(),
        namespace: arguments.sources.namespace.clone(),
        scope: local_scope(&arguments.sources.namespace, &arguments.labels, &arguments.binding, http_proxy_port),
        access_log: arguments.access_log.map(Switchable::on),
        workers: workers(arguments.workers),
        admin: arguments.admin.on(),
    };
    let (mut session, effect) = Session::start(options).await?;
    greet(&session, &effect, http_proxy_port);
    let mut known = Known::of(effect);
    let stopped = session.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut stopped => break,
            effect = session.next() => match effect {
                Ok(effect) => {
                    tell(&session, &effect, &known, http_proxy_port);
                    known = Known::of(effect);
                }
                Err(error) => report::attention(&format!("{error:#}; the configuration in force stays")),
            },
        }
    }
    report::line("stopping: running requests end first");
    session.shutdown(arguments.drain_time).await;
    Ok(ExitCode::SUCCESS)
}

/// Worker threads: as asked, else one per core.
pub(crate) fn workers(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

fn greet(session: &Session, effect: &Effect, http_proxy_port: Option<u16>) {
    report_problems(session, effect, &Known::default());
    let problems = count(effect);
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "lateen {version}: {} from {}, {problems}",
        report::many(effect.objects, "object"),
        report::many(effect.files, "file")
    );
    if is_clean(effect) {
        report::good(&text)
    } else {
        report::attention(&text)
    }
    let all = listening(&session.current(), http_proxy_port);
    if all.is_empty() {
        report::attention("nothing to listen on: there is no Gateway, and no Service with an HTTP port");
    }
    show(&all);
    if let Some(admin) = session.admin_address() {
        report::line(&format!("  {:8} http://{admin}", "admin"));
    }
    report::aside("edits of the files take effect at once; Ctrl-C ends");
}

fn show(all: &[Listening]) {
    for listener in all {
        report::line(&format!("  {:8} http://{:22} {}", listener.role, listener.address.to_string(), listener.serves));
    }
}

fn tell(session: &Session, effect: &Effect, known: &Known, http_proxy_port: Option<u16>) {
    report_problems(session, effect, known);
    let mut parts = Vec::new();
    for (verb, subjects) in
        [("added", &effect.changes.added), ("changed", &effect.changes.changed), ("removed", &effect.changes.removed)]
    {
        if let [only] = subjects.as_slice() {
            parts.push(format!("{only} {verb}"));
        } else if !subjects.is_empty() {
            parts.push(format!("{} objects {verb}", subjects.len()));
        }
    }
    if parts.is_empty() {
        parts.push("no object changed".to_owned());
    }
    let millis = effect.took.as_secs_f64() * 1000.0;
    let text = format!("{}; in effect after {millis:.1} ms", parts.join(", "));
    if is_clean(effect) {
        report::good(&text);
    } else {
        let problems = count(effect);
        report::attention(&format!("{text}; {problems}"));
    }
    if effect.changes.kept > 0 {
        let kept = report::many(effect.changes.kept, "object");
        report::attention(&format!("{kept} kept in the last good form until the errors above are gone"));
    }
    if session.listeners_changed() {
        show(&listening(&session.current(), http_proxy_port));
    }
}

fn count(effect: &Effect) -> String {
    report::count(&effect.diagnostics, effect.applied.rejections.len(), effect.applied.limitations.len())
}

fn is_clean(effect: &Effect) -> bool {
    effect.applied.rejections.is_empty()
        && effect.applied.limitations.is_empty()
        && effect.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Info)
}

/// What was said already.
#[derive(Default)]
struct Known {
    diagnostics: Vec<Diagnostic>,
    limitations: Vec<Limitation>,
}

impl Known {
    fn of(effect: Effect) -> Self {
        Self { diagnostics: effect.diagnostics, limitations: effect.applied.limitations }
    }
}

/// Errors, and warnings that were not there before; where they are in the file does not make them new.
fn report_problems(session: &Session, effect: &Effect, known: &Known) {
    let same = |one: &Diagnostic, other: &Diagnostic| {
        (one.code, &one.message, &one.object, &one.path) == (other.code, &other.message, &other.object, &other.path)
    };
    let news: Vec<Diagnostic> = effect
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error() || !known.diagnostics.iter().any(|known| same(known, diagnostic)))
        .cloned()
        .collect();
    report::diagnostics(&news, |path| session.file(path));
    report::rejections(&effect.applied.rejections);
    if known.limitations != effect.applied.limitations {
        report::limitations(&effect.applied.limitations);
    }
    for hidden in &effect.hidden {
        report::attention(&format!(
            "mesh listener {} is left out: gateway listener {} has {}; use --port-offset or --bind, or the HTTP proxy port",
            hidden.name, hidden.by, hidden.address
        ));
    }
}
