//! Which names are looked up, how often, and what does an answer mean?

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Event;
use crate::snapshot::cluster::Refresh;
use crate::snapshot::endpoints::DnsName;

/// Names are not asked for more often than this, whatever the configuration says.
const FLOOR: Duration = Duration::from_secs(1);

/// The names that are looked up, each by a task.
pub(super) struct Names {
    tasks: BTreeMap<DnsName, (Refresh, JoinHandle<()>)>,
    events: UnboundedSender<Event>,
}

impl Names {
    pub(super) fn new(events: UnboundedSender<Event>) -> Self {
        Self { tasks: BTreeMap::new(), events }
    }

    /// Starts looking up names that are new, and ends that for names that are gone.
    pub(super) fn adopt(&mut self, wanted: HashMap<DnsName, Refresh>) {
        self.tasks.retain(|name, (refresh, task)| {
            let keep = wanted.get(name) == Some(refresh);
            if !keep {
                task.abort();
            }
            keep
        });
        for (name, refresh) in wanted.into_iter().collect::<BTreeMap<_, _>>() {
            self.tasks
                .entry(name.clone())
                .or_insert_with(|| (refresh, tokio::task::spawn_local(resolve(name, refresh, self.events.clone()))));
        }
    }
}

async fn resolve(name: DnsName, refresh: Refresh, events: UnboundedSender<Event>) {
    let mut rng = Rng::new();
    let mut failures = 0;
    loop {
        let looked_up = match tokio::net::lookup_host((name.host.as_str(), name.port)).await {
            Ok(found) => {
                let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
                addresses.sort();
                addresses.dedup();
                Ok(addresses)
            }
            // A name that does not exist has no addresses; that is an answer.
            Err(error) if is_unknown(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        failures = if looked_up.is_ok() { 0 } else { failures + 1 };
        if events.send(Event::Resolved(name.clone(), looked_up)).is_err() {
            return;
        }
        tokio::time::sleep(wait(&refresh, failures, &mut rng).max(FLOOR)).await;
    }
}

/// Whether a lookup failed because there is no such name, rather than because nobody could be asked. The system's
/// resolver tells that in words only.
fn is_unknown(error: &io::Error) -> bool {
    let text = error.to_string();
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        .iter()
        .any(|words| text.contains(words))
}

/// The time until a name is looked up again after so many failures in a row.
fn wait(refresh: &Refresh, failures: u32, rng: &mut Rng) -> Duration {
    let random = |bound: Duration, rng: &mut Rng| {
        let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(rng.u64(0..=bound))
    };
    match refresh.failure {
        Some((base, max)) if failures > 0 => {
            let doubled = base.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
            random(doubled.min(max), rng)
        }
        _ => refresh.rate + random(refresh.jitter, rng),
    }
}

/// Addresses by the last lookup of each name.
pub(super) type LookedUp = io::Result<Vec<IpAddr>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_looked_up_again_after_growing_times() {
        let second = Duration::from_secs(1);
        let refresh = Refresh { rate: 5 * second, jitter: Duration::ZERO, failure: Some((second, 6 * second)) };
        let mut rng = Rng::with_seed(1);
        assert_eq!(wait(&refresh, 0, &mut rng), 5 * second);
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (4, 6), (60, 6)] {
            let waits: Vec<_> = (0..200).map(|_| wait(&refresh, failures, &mut rng)).collect();
            let longest = *waits.iter().max().unwrap();
            assert!(longest <= most * second && longest > most * second * 9 / 10, "{failures}: {longest:?}");
        }
        let plain = Refresh { failure: None, jitter: second, ..refresh };
        let waits: Vec<_> = (0..50).map(|_| wait(&plain, 3, &mut rng)).collect();
        assert!(waits.iter().all(|wait| (5 * second..=6 * second).contains(wait)));
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_from_a_resolver_that_does_not_answer() {
        let error = |text: &str| io::Error::other(format!("failed to lookup address information: {text}"));
        assert!(is_unknown(&error("Name or service not known")));
        assert!(!is_unknown(&error("Temporary failure in name resolution")));
    }
}
