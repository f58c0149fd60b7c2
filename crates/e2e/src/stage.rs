//! What happened when a page was played on one proxy?
//!
//! Each side has backends of its own, so the two sides of a page can be played at the same time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::access_log::{self, Entry};
use crate::backend::{Backends, Received};
use crate::book::Page;
use crate::client::{self, Transcript};
use crate::process::Proxy;
use crate::row::{BESIDE, Row, tag};
use crate::{envoy, lateen};

/// How long the last access-log lines may take to reach the file.
const LOG_PATIENCE: Duration = Duration::from_secs(12);

/// How long a request beside a row is under way before the next one begins: time enough to reach its backend.
const HEAD_START: Duration = Duration::from_millis(100);

/// A page as one proxy played it.
#[derive(Debug)]
pub struct Play {
    /// `lateen` or `envoy`.
    pub proxy: &'static str,
    /// One for each row of the page.
    pub rows: Vec<RowPlay>,
    /// The text of the admin endpoint's `/stats` after the last row.
    pub stats: String,
}

/// A row as one proxy played it.
#[derive(Debug, Default)]
pub struct RowPlay {
    /// What the client saw; of a statistical row the last time.
    pub transcript: Transcript,
    /// What the backends saw; of a statistical row the last time.
    pub received: Vec<Received>,
    /// How often each backend was chosen, and how often each status came.
    pub counts: Counts,
    /// The access-log entries in order.
    pub log: Vec<Entry>,
    /// Why the row could not be played.
    pub failure: Option<String>,
}

/// Tallies of a statistical row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests by backend.
    pub backends: BTreeMap<String, u32>,
    /// Responses by status code; 0: none.
    pub statuses: BTreeMap<u16, u32>,
}

/// Plays a page on Lateen's proxy.
///
/// # Errors
/// When the proxy does not start or dies.
pub async fn play_on_lateen(page: &Page, folder: &Path) -> Result<Play> {
    let backends = Backends::start(page.backends()).await?;
    let (yaml, log) = (folder.join("lateen.yaml"), folder.join("lateen.log"));
    std::fs::write(&yaml, page.render_yaml(backends.ports())).context("cannot write the YAML")?;
    let proxy = lateen::start(&yaml, &log, folder).await?;
    play(page, proxy, backends).await
}

/// Plays a page on real Envoy, configured by `lateen compile`.
///
/// # Errors
/// When compiling fails, or Envoy does not start or dies.
pub async fn play_on_envoy(page: &Page, binary: &Path, folder: &Path) -> Result<Play> {
    let backends = Backends::start(page.backends()).await?;
    let (yaml, log) = (folder.join("envoy.yaml"), folder.join("envoy.log"));
    std::fs::write(&yaml, page.render_yaml(backends.ports())).context("cannot write the YAML")?;
    let bootstrap = lateen::compile_bootstrap(page.role, &yaml, &log, folder)?;
    let proxy = envoy::start(binary, &bootstrap, &log, folder).await?;
    play(page, proxy, backends).await
}

/// Plays a page on a proxy that already runs in front of these backends.
///
/// # Errors
/// When the proxy has no listener for the page or dies.
pub async fn play(page: &Page, mut proxy: Proxy, mut backends: Backends) -> Result<Play> {
    let mut plays = Vec::with_capacity(page.rows.len());
    let mut endings = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let address = proxy.listener(page.role, row.port.unwrap_or(page.port))?;
        let (play, closing) = play_row(row, address, &mut backends).await;
        plays.push(play);
        endings.push(closing);
        proxy.check_alive()?;
    }
    return_strays(page, &mut plays);
    for (play, closing) in plays.iter_mut().zip(endings) {
        if let Some(closing) = closing {
            closing.finish(&mut play.transcript).await;
        }
    }
    let expected = page.rows.iter().map(log_entries).sum();
    let lines = proxy.access_lines(expected, LOG_PATIENCE).await?;
    assign_log(page, &mut plays, &lines);
    let names: BTreeMap<String, &str> =
        backends.ports().iter().map(|(name, port)| (format!("127.0.0.1:{port}"), name.as_str())).collect();
    for entry in plays.iter_mut().flat_map(|play| &mut play.log) {
        // The two sides have backends on different ports; the page knows them by name.
        if let Some(host) = entry.fields.get_mut("upstream_host")
            && let Some(name) = names.get(host.as_str())
        {
            *host = (*name).to_owned();
        }
    }
    let (_, stats) = client::get(proxy.admin, "/stats").await.map_err(anyhow::Error::msg)?;
    Ok(Play { proxy: proxy.name, rows: plays, stats })
}

impl Play {
    /// All that was seen, row by row, for people who look for the reason of a complaint.
    pub fn render(&self, page: &Page) -> String {
        let mut text = String::new();
        for (row, play) in page.rows.iter().zip(&self.rows) {
            text.push_str(&format!("=== {}:{} {}\n", page.name, row.line, row.text));
            if let Some(failure) = &play.failure {
                text.push_str(&format!("!!! {failure}\n"));
            }
            for (exchange, response) in row.exchanges.iter().zip(&play.transcript.responses) {
                text.push_str(&format!(">>> {}\n", excerpt(&exchange.bytes)));
                match response {
                    Some(response) => {
                        for head in response.interim.iter().chain([&response.head]) {
                            text.push_str(&format!("<<< {}\n", excerpt(&head.raw)));
                        }
                        text.push_str(&format!("<<< body {} {:?}\n", excerpt(&response.body.bytes), response.body.cut));
                    }
                    None => text.push_str("<<< no response\n"),
                }
            }
            text.push_str(&format!("<<< connection {}\n", play.transcript.end));
            for received in &play.received {
                let (name, number) = (&received.backend, received.connection);
                text.push_str(&format!("+++ {name} #{number} {}\n", excerpt(&received.head.raw)));
                text.push_str(&format!("+++ body {} {:?}\n", excerpt(&received.body.bytes), received.body.cut));
            }
            for entry in &play.log {
                text.push_str(&format!("log {:?}\n", entry.fields));
            }
        }
        text
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = crate::wire::latin1(&bytes[..bytes.len().min(1500)]).replace("\r\n", "\n    ");
    format!("({} bytes) {}", bytes.len(), text.trim_end())
}

async fn play_row(
    row: &Row,
    address: std::net::SocketAddr,
    backends: &mut Backends,
) -> (RowPlay, Option<client::Closing>) {
    let mut play = RowPlay::default();
    let mut ending = None;
    tokio::time::sleep(row.wait).await;
    let mut beside = JoinSet::new();
    for exchange in row.beside.iter().cloned() {
        beside.spawn(async move { client::play(address, &[exchange]).await.err() });
        tokio::time::sleep(HEAD_START).await;
    }
    for _ in 0..row.times {
        match client::play(address, &row.exchanges).await {
            Ok((transcript, closing)) => {
                play.transcript = transcript;
                ending = closing;
            }
            Err(reason) => play.failure = Some(reason),
        }
        while let Some(ended) = beside.join_next().await {
            match ended {
                Ok(None) => {}
                Ok(Some(reason)) => play.failure = Some(format!("beside: {reason}")),
                Err(error) => play.failure = Some(format!("beside: {error}")),
            }
        }
        // A copy of a request may reach its backend after the client was answered.
        let awaited = if row.is_mirrored() { row.expected_requests() } else { 0 };
        match backends.take_at_least(awaited).await {
            Ok(received) => play.received = received,
            Err(error) => play.failure = Some(format!("{error:#}")),
        }
        play.received.retain(|received| !received.head.values("user-agent").any(|mark| mark == BESIDE));
        for received in &play.received {
            *play.counts.backends.entry(received.backend.clone()).or_default() += 1;
        }
        for response in &play.transcript.responses {
            let status = response.as_ref().map_or(0, client::Response::status);
            *play.counts.statuses.entry(status).or_default() += 1;
        }
        if play.failure.is_some() {
            break;
        }
    }
    (play, ending)
}

/// Gives back what a backend only noticed while a later row was played: the beginning of a request that the proxy gave
/// up can still be on its way when its client has been answered.
fn return_strays(page: &Page, plays: &mut [RowPlay]) {
    let rows: BTreeMap<String, usize> =
        page.rows.iter().enumerate().map(|(index, row)| (tag(row.line), index)).collect();
    let mut strays = Vec::new();
    for (index, play) in plays.iter_mut().enumerate() {
        let received = std::mem::take(&mut play.received);
        for received in received {
            let owner = received.head.values("user-agent").next().and_then(|mark| rows.get(mark)).copied();
            match owner {
                Some(owner) if owner != index => strays.push((owner, received)),
                _ => play.received.push(received),
            }
        }
    }
    for (owner, received) in strays {
        plays[owner].received.push(received);
    }
}

/// How many access-log entries a row leaves: one for each exchange, whatever became of it.
fn log_entries(row: &Row) -> usize {
    row.exchanges.len() * usize::try_from(row.times).unwrap_or(usize::MAX) + row.beside.len()
}

/// Gives each row its entries. A request that was parsed carries the row's tag in its `user-agent`; the others are logged
/// without one and belong to the rows without tag, in order.
fn assign_log(page: &Page, plays: &mut [RowPlay], lines: &[String]) {
    let mut tagged: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let mut untagged = Vec::new();
    for line in lines {
        match access_log::parse(line) {
            Ok(entry) if entry.get("user_agent").starts_with("row-") => {
                tagged.entry(entry.get("user_agent").to_owned()).or_default().push(entry);
            }
            Ok(entry) if entry.get("user_agent") == BESIDE => {}
            Ok(entry) => untagged.push(entry),
            Err(reason) => untagged.push(Entry { fields: BTreeMap::from([("unreadable", reason)]) }),
        }
    }
    let mut untagged = untagged.into_iter();
    for (row, play) in page.rows.iter().zip(plays) {
        play.log = match tagged.remove(&tag(row.line)) {
            Some(entries) => entries,
            None => untagged.by_ref().take(log_entries(row) - row.beside.len()).collect(),
        };
    }
}
