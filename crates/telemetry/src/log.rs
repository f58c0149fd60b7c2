//! Where do log lines go? To standard error, at a level that a flag or the environment sets, coloured on terminals.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// The environment variable that sets the level when no flag does.
pub const VARIABLE: &str = "LATEEN_LOG";

/// Which lines are written: a level (`debug`) or levels by target (`info,lateen_proxy=debug`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(String);

impl Default for Levels {
    /// `info`.
    fn default() -> Self {
        Self("info".into())
    }
}

impl FromStr for Levels {
    type Err = InvalidLevels;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match EnvFilter::try_new(text) {
            Ok(_) if !text.is_empty() => Ok(Self(text.to_owned())),
            Ok(_) => Err(InvalidLevels { text: text.to_owned(), reason: "it is empty".into() }),
            Err(error) => Err(InvalidLevels { text: text.to_owned(), reason: error.to_string() }),
        }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Levels {
    /// The levels that a flag gives, else those of the environment, else `info`.
    ///
    /// # Errors
    /// Neither a level nor a list of `target=level`.
    pub fn choose(flag: Option<&str>) -> Result<Self, InvalidLevels> {
        let environment = std::env::var(VARIABLE).ok().filter(|levels| !levels.trim().is_empty());
        match flag.map(str::to_owned).or(environment) {
            Some(text) => text.parse(),
            None => Ok(Self::default()),
        }
    }
}

/// Why levels were not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLevels {
    text: String,
    reason: String,
}

impl fmt::Display for InvalidLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, reason } = self;
        write!(f, "log level `{text}` is not understood ({reason}); use trace, debug, info, warn, error or off, ")?;
        f.write_str("or a list such as info,lateen_proxy=debug")
    }
}

impl std::error::Error for InvalidLevels {}

/// The log of this process, for changing its levels while it runs.
#[derive(Clone)]
pub struct Log {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// Takes other levels into use.
    ///
    /// # Errors
    /// The levels are not understood, or the log is gone.
    pub fn set_levels(&self, levels: &Levels) -> Result<(), InvalidLevels> {
        let invalid = |reason: String| InvalidLevels { text: levels.0.clone(), reason };
        let filter = EnvFilter::try_new(&levels.0).map_err(|error| invalid(error.to_string()))?;
        self.handle.reload(filter).map_err(|error| invalid(error.to_string()))
    }

    /// The levels in use.
    #[must_use]
    pub fn levels(&self) -> String {
        self.handle.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Sends the process's log lines to standard error. Only the first call of a process has an effect; later ones return
/// a log that changes nothing.
pub fn start(levels: &Levels) -> Log {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (subscriber, log) = subscriber(levels, colours, io::stderr);
    if subscriber.try_init().is_ok() {
        // The first subscriber of a process is its only one, so nothing was set before.
        let _ = CURRENT.set(log.clone());
    }
    log
}

/// As [`start`], for levels that come straight from a flag or the environment. Levels that are not understood count as
/// `info`, and the first line says so.
pub fn init(levels: &str) -> Log {
    match levels.parse() {
        Ok(levels) => start(&levels),
        Err(error) => {
            let log = start(&Levels::default());
            let error: InvalidLevels = error;
            tracing::warn!("{error}");
            log
        }
    }
}

/// The log of this process, once it was started.
#[must_use]
pub fn current() -> Option<Log> {
    CURRENT.get().cloned()
}

static CURRENT: OnceLock<Log> = OnceLock::new();

fn subscriber<W>(levels: &Levels, colours: bool, writer: W) -> (impl tracing::Subscriber + Send + Sync, Log)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&levels.0).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    (tracing_subscriber::registry().with(filter).with(lines), Log { handle })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    fn written(levels: &str, colours: bool, work: impl FnOnce(&Log)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, log) = subscriber(&levels.parse().unwrap(), colours, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || work(&log));
        lines.take()
    }

    #[test]
    fn lines_below_the_level_are_not_written() {
        let written = written("warn", false, |_| {
            tracing::info!("quiet");
            tracing::warn!(listener = "http", "loud");
        });
        assert!(written.contains(" WARN ") && written.contains("loud") && written.contains("listener=\"http\""));
        assert!(!written.contains("quiet"));
    }

    #[test]
    fn colours_are_only_for_terminals() {
        assert!(!written("info", false, |_| tracing::info!("plain")).contains('\u{1b}'));
        assert!(written("info", true, |_| tracing::info!("coloured")).contains('\u{1b}'));
    }

    #[test]
    fn levels_change_while_the_process_runs() {
        let written = written("error", false, |log| {
            tracing::info!("before");
            log.set_levels(&"info".parse().unwrap()).unwrap();
            assert_eq!(log.levels(), "info");
            tracing::info!("after");
        });
        assert!(written.contains("after") && !written.contains("before"), "{written}");
    }

    #[test]
    fn levels_that_are_not_understood_are_refused_with_the_way_out() {
        assert_eq!("info,lateen_proxy=debug".parse::<Levels>().unwrap().to_string(), "info,lateen_proxy=debug");
        for text in ["lateen=louder", "", "  "] {
            let error = text.parse::<Levels>().unwrap_err().to_string();
            assert!(error.contains("trace, debug, info"), "{error}");
        }
        assert_eq!(Levels::choose(Some("debug")).unwrap().to_string(), "debug");
    }
}
