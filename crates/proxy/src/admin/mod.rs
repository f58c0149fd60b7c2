//! What does the data plane tell about itself, and what can be asked of it while it runs? Envoy's admin interface.
//!
//! Answers have Envoy's form, so that what reads an Envoy (istioctl, Prometheus, dashboards, people) also reads this
//! proxy. Members of JSON objects come in another order than in Envoy: what identifies an object first, then by name.

mod clusters;
mod config_dump;
pub(crate) mod engine;
mod json;
mod listeners;
mod logging;
mod mask;
mod memory;
mod server_info;
mod stats;
mod updates;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_telemetry::admin::{self, Answer, Command, Commands, Effect, Limits, Parameter, Request, StatusCode};
use lateen_telemetry::log::Log;
use lateen_xds::XdsSet;
use lateen_xds::envoy::config::bootstrap::v3::Bootstrap;
use tokio::net::TcpListener;

use crate::snapshot::Cluster;
use crate::stats::Registry;

pub use updates::Updates;

/// How often the interval of the histograms ends, as Envoy's default `stats_flush_interval`.
const FLUSH: Duration = Duration::from_secs(5);

/// What the admin interface shows and commands. All calls come from the thread that serves it.
pub trait AdminSource {
    /// The statistics.
    fn stats(&self) -> &Registry;
    /// The state of the process.
    fn state(&self) -> State;
    /// When the process began.
    fn started(&self) -> Instant;
    /// What the process was started with: node and admin address, as far as known.
    fn bootstrap(&self) -> Bootstrap;
    /// The configuration in use.
    fn config(&self) -> Accepted;
    /// The clusters in use.
    fn clusters(&self) -> Vec<Arc<Cluster>>;
    /// The listeners with their bound addresses, by name.
    fn listeners(&self) -> Vec<(Arc<str>, SocketAddr)>;
    /// Sees to it that a command is carried out, now or soon.
    fn command(&self, command: Order);
    /// The log whose levels can be changed: that of the process, if it has one.
    fn log(&self) -> Option<Log> {
        lateen_telemetry::log::current()
    }
}

/// The configuration in use, and since when.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// The resources.
    pub set: XdsSet,
    /// When each of them came.
    pub updates: Arc<Updates>,
}

/// The state of the process, with Envoy's numbers (`server.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Live = 0,
    /// Failing its health checks on purpose: on its way out.
    Draining = 1,
    /// Waiting for its clusters.
    PreInitializing = 2,
    /// Waiting for its listeners and routes.
    Initializing = 3,
}

impl State {
    /// Envoy's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// What can be commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `/healthcheck/fail`: be [`State::Draining`].
    FailHealthChecks,
    /// `/healthcheck/ok`: take that back.
    PassHealthChecks,
    /// `/drain_listeners`: take no more connections.
    DrainListeners {
        /// Only listeners with `traffic_direction: INBOUND`.
        inbound_only: bool,
    },
    /// `/reopen_logs`.
    ReopenLogs,
    /// `/quitquitquit`: end the process.
    Quit,
}

/// Serves the admin interface until the future is dropped. Must run inside a `LocalSet` or a `LocalRuntime`.
pub async fn serve(listener: TcpListener, source: Rc<dyn AdminSource>) {
    let flush = async {
        let mut ticks = tokio::time::interval(FLUSH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            source.stats().flush();
        }
    };
    tokio::select! {
        () = admin::serve(listener, commands(source.clone()), "envoy", Limits::default()) => {}
        () = flush => {}
    }
}

type Source = Rc<dyn AdminSource>;

/// The table of commands.
fn commands(source: Source) -> Commands<Source> {
    let commands = vec![
        reads("/certs", "print certs on machine", &[], |_, _| Answer::json("{\n \"certificates\": []\n}\n")),
        reads(
            "/clusters",
            "upstream cluster status",
            &[
                Parameter { name: "filter", help: "Regular expression for filtering clusters by name" },
                Parameter { name: "format", help: "File format to use; One of (text, json)" },
            ],
            clusters::answer,
        ),
        reads(
            "/config_dump",
            "dump current configs",
            &[
                Parameter { name: "resource", help: "The resource to dump: one repeated field of the dump" },
                Parameter {
                    name: "mask",
                    help: "Fields to keep, separated by commas; with resource, the fields of each of its elements",
                },
                Parameter { name: "name_regex", help: "Dump only resources whose whole name matches" },
                Parameter { name: "include_eds", help: "Dump endpoints too" },
            ],
            config_dump::answer,
        ),
        changes(
            "/drain_listeners",
            "drain listeners",
            &[Parameter { name: "inboundonly", help: "Drain inbound listeners only" }],
            |source, request| {
                // Envoy's other ways of draining would be promises that nobody keeps here.
                if let Some(unknown) = ["graceful", "skip_exit"].into_iter().find(|name| request.query.has(name)) {
                    let text = format!("drain_listeners?{unknown} is not supported: listeners stop at once\n");
                    return Answer::error(StatusCode::NOT_IMPLEMENTED, text);
                }
                source.command(Order::DrainListeners { inbound_only: request.query.has("inboundonly") });
                Answer::text("OK\n")
            },
        ),
        changes("/healthcheck/fail", "cause the server to fail health checks", &[], |source, _| {
            source.command(Order::FailHealthChecks);
            Answer::text("OK\n")
        }),
        changes("/healthcheck/ok", "cause the server to pass health checks", &[], |source, _| {
            source.command(Order::PassHealthChecks);
            Answer::text("OK\n")
        }),
        reads("/hot_restart_version", "print the hot restart compatibility version", &[], |_, _| {
            Answer::text(server_info::HOT_RESTART_VERSION)
        }),
        reads("/init_dump", "dump what initialization waits for", &[], |_, _| Answer::json("{}\n")),
        reads(
            "/listeners",
            "print listener info",
            &[Parameter { name: "format", help: "File format to use; One of (text, json)" }],
            listeners::answer,
        ),
        changes(
            "/logging",
            "query/change logging levels",
            &[
                Parameter { name: "paths", help: "Change some levels: <target>:<level>,<target>:<level>" },
                Parameter {
                    name: "level",
                    help: "Change all levels; One of (, trace, debug, info, warning, error, critical, off)",
                },
            ],
            logging::answer,
        ),
        reads("/memory", "print current allocation/heap usage", &[], memory::answer),
        changes("/quitquitquit", "exit the server", &[], |source, _| {
            source.command(Order::Quit);
            Answer::text("OK\n")
        }),
        reads("/ready", "print server state, return 200 if LIVE, otherwise return 503", &[], |source, _| {
            let state = source.state();
            let status = if state == State::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Answer::error(status, format!("{}\n", state.name()))
        }),
        changes("/reopen_logs", "reopen access logs", &[], |source, _| {
            source.command(Order::ReopenLogs);
            Answer::text("OK\n")
        }),
        changes("/reset_counters", "reset all counters to zero", &[], |source, _| {
            source.stats().reset_counters();
            Answer::text("OK\n")
        }),
        reads("/runtime", "print runtime values", &[], |_, _| {
            Answer::json("{\n \"entries\": {},\n \"layers\": []\n}\n")
        }),
        changes("/runtime_modify", "Adds or modifies runtime values as passed in query parameters", &[], |_, _| {
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, "No admin layer specified")
        }),
        reads("/server_info", "print server version/status information", &[], server_info::answer),
        reads("/stats", "print server stats", stats::PARAMETERS, stats::answer),
        reads(
            "/stats/prometheus",
            "print server stats in prometheus format",
            stats::PROMETHEUS_PARAMETERS,
            stats::answer_prometheus,
        ),
    ];
    Commands::new("Lateen Admin", source, commands)
}

type Handler = fn(&Source, &Request) -> Answer;

fn reads(
    path: &'static str,
    help: &'static str,
    parameters: &'static [Parameter],
    handler: Handler,
) -> Command<Source> {
    Command { path, help, effect: Effect::Reads, parameters, handler }
}

fn changes(
    path: &'static str,
    help: &'static str,
    parameters: &'static [Parameter],
    handler: Handler,
) -> Command<Source> {
    Command { path, help, effect: Effect::Changes, parameters, handler }
}

/// A regular expression of a query; linear in time by its engine, bounded in memory here.
fn regex(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).dfa_size_limit(1 << 20).build()
}

/// 500 for a message that cannot be written; it says which.
fn unwritable(error: &lateen_xds::json::JsonError) -> Answer {
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer: {error}\n"))
}

fn is_json(request: &Request) -> bool {
    request.query.get("format") == Some("json")
}

#[cfg(test)]
mod tests;
