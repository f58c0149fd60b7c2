//! Which hosts are taken out for what they answer, and when do they come back? Envoy's outlier detection.
//!
//! Workers report what became of each attempt in the host's record, which costs an addition or two. Whoever completes a
//! row of failures tells the main thread; there the [`Detector`] of the cluster decides, and sweeps at intervals.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::snapshot::cluster::OutlierDetection;
use crate::snapshot::endpoints::Endpoints;
use crate::snapshot::host::{HealthFlag, HostState, Tally};
use crate::stats::OutlierCounters;

/// What became of an attempt at a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with this status.
    Answer(u16),
    /// A connection was there for the request.
    Connected,
    /// There was no connection, or it broke.
    ConnectionFailed,
    /// The host took too long.
    Timeout,
}

/// How a host stood out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlier {
    /// Errors of any kind in a row.
    Consecutive5xx,
    /// 502, 503 and 504 in a row.
    ConsecutiveGateway,
    /// Failures before an answer in a row.
    ConsecutiveLocal,
    /// It succeeds much less than the others.
    SuccessRate,
    /// The same of what happens before an answer.
    LocalSuccessRate,
    /// It fails too often.
    FailurePercentage,
    /// The same of what happens before an answer.
    LocalFailurePercentage,
}

/// Enters an outcome in a host's record and tells of each row of failures that it completes.
#[inline]
pub(crate) fn report(
    config: &OutlierDetection,
    state: &HostState,
    outcome: Outcome,
    mut completed: impl FnMut(Outlier),
) {
    let status = match outcome {
        Outcome::Answer(status) => status,
        _ if config.split => return report_local(config, state, outcome, completed),
        Outcome::Connected => return,
        Outcome::ConnectionFailed => 503,
        Outcome::Timeout => 504,
    };
    let record = &state.record;
    if status < 500 {
        record.answers.successes.fetch_add(1, Ordering::Relaxed);
        clear(&record.consecutive_5xx);
        clear(&record.consecutive_gateway);
        return;
    }
    record.answers.failures.fetch_add(1, Ordering::Relaxed);
    if (502..=504).contains(&status) {
        if one_more(&record.consecutive_gateway) == config.consecutive_gateway_failure {
            completed(Outlier::ConsecutiveGateway);
        }
    } else {
        clear(&record.consecutive_gateway);
    }
    if one_more(&record.consecutive_5xx) == config.consecutive_5xx {
        completed(Outlier::Consecutive5xx);
    }
}

fn report_local(config: &OutlierDetection, state: &HostState, outcome: Outcome, mut completed: impl FnMut(Outlier)) {
    let record = &state.record;
    if outcome == Outcome::Connected {
        record.local.successes.fetch_add(1, Ordering::Relaxed);
        clear(&record.consecutive_local);
        return;
    }
    record.local.failures.fetch_add(1, Ordering::Relaxed);
    if one_more(&record.consecutive_local) == config.consecutive_local_origin_failure {
        completed(Outlier::ConsecutiveLocal);
    }
}

fn one_more(count: &AtomicU32) -> u32 {
    count.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// Most of the time there is nothing to clear, and then nothing is written.
fn clear(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// The mean and the limit of the last sweep, for `/clusters`; -1 is unknown.
#[derive(Debug)]
pub(crate) struct Averages([[AtomicU64; 2]; 2]);

impl Default for Averages {
    fn default() -> Self {
        let unknown = || AtomicU64::new((-1.0_f64).to_bits());
        Self([[unknown(), unknown()], [unknown(), unknown()]])
    }
}

impl Averages {
    /// Mean and limit of answers, and the same of what happens before an answer.
    pub(crate) fn get(&self) -> [[f64; 2]; 2] {
        self.0.each_ref().map(|pair| pair.each_ref().map(|value| f64::from_bits(value.load(Ordering::Relaxed))))
    }

    fn set(&self, kind: Kind, mean: f64, limit: f64) {
        let [shown_mean, shown_limit] = &self.0[kind as usize];
        shown_mean.store(mean.to_bits(), Ordering::Relaxed);
        shown_limit.store(limit.to_bits(), Ordering::Relaxed);
    }
}

/// Of what a success rate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Answers = 0,
    Local = 1,
}

/// What a detector did.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Hosts that are out from now on.
    pub(crate) ejected: Vec<Arc<HostState>>,
    /// Some hosts may be chosen again.
    pub(crate) returned: bool,
}

impl Changes {
    /// Whether other hosts may be chosen than before.
    pub(crate) fn any(&self) -> bool {
        self.returned || !self.ejected.is_empty()
    }
}

/// The hosts of one cluster under observation. It lives on the main thread.
#[derive(Debug)]
pub(crate) struct Detector {
    config: OutlierDetection,
    monitors: Vec<Monitor>,
    averages: Arc<Averages>,
}

/// What the main thread remembers of a host.
#[derive(Debug)]
struct Monitor {
    state: Arc<HostState>,
    /// When it was ejected, if it is out.
    ejected: Option<Instant>,
    /// How often the base time it stays out.
    back_off: u32,
    jitter: Duration,
}

impl Monitor {
    /// Lets the host in again; whether it was out.
    fn readmit(&mut self) -> bool {
        if self.ejected.take().is_none() {
            return false;
        }
        let record = &self.state.record;
        for count in [&record.consecutive_5xx, &record.consecutive_gateway, &record.consecutive_local] {
            count.store(0, Ordering::Relaxed);
        }
        self.state.set(HealthFlag::FailedOutlierCheck, false)
    }
}

impl Detector {
    /// Watches nobody yet.
    pub(crate) fn new(config: OutlierDetection, averages: Arc<Averages>) -> Self {
        Self { config, monitors: Vec::new(), averages }
    }

    /// The same hosts under other settings.
    pub(crate) fn reconfigure(&mut self, config: OutlierDetection, averages: Arc<Averages>) {
        self.config = config;
        self.averages = averages;
    }

    /// Watches these hosts from now on; those that stay keep what is remembered of them.
    pub(crate) fn watch(&mut self, endpoints: &Endpoints, counters: &OutlierCounters) {
        let mut known: HashMap<*const HostState, Monitor> =
            self.monitors.drain(..).map(|monitor| (Arc::as_ptr(&monitor.state), monitor)).collect();
        self.monitors = endpoints
            .hosts
            .iter()
            .map(|host| {
                known.remove(&Arc::as_ptr(&host.state)).unwrap_or_else(|| Monitor {
                    state: host.state.clone(),
                    ejected: None,
                    back_off: 0,
                    jitter: Duration::ZERO,
                })
            })
            .collect();
        self.count_active(counters);
    }

    /// Lets all hosts in again: nobody watches them any more.
    pub(crate) fn release(self, counters: &OutlierCounters) {
        for monitor in &self.monitors {
            monitor.state.set(HealthFlag::FailedOutlierCheck, false);
        }
        counters.ejections_active.set(0);
    }

    /// A host completed a row of failures.
    pub(crate) fn suspect(
        &mut self,
        host: &Arc<HostState>,
        outlier: Outlier,
        counters: &OutlierCounters,
        now: Instant,
        rng: &mut Rng,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some(index) = self.position(host) else { return changes };
        if self.monitors[index].ejected.is_some() {
            return changes;
        }
        detected(outlier, counters);
        self.eject(index, outlier, counters, now, rng, &mut changes);
        let record = &self.monitors[index].state.record;
        let count = match outlier {
            Outlier::ConsecutiveGateway => &record.consecutive_gateway,
            Outlier::ConsecutiveLocal => &record.consecutive_local,
            _ => &record.consecutive_5xx,
        };
        // So that the next row counts from here, even if no success lies between.
        count.store(0, Ordering::Relaxed);
        changes
    }

    /// A host passed its active health check: it comes back whatever it did before. Returns whether it was out.
    pub(crate) fn readmit(&mut self, host: &Arc<HostState>, counters: &OutlierCounters) -> bool {
        let returned = self.position(host).is_some_and(|index| self.monitors[index].readmit());
        self.count_active(counters);
        returned
    }

    fn position(&self, host: &Arc<HostState>) -> Option<usize> {
        self.monitors.iter().position(|monitor| Arc::ptr_eq(&monitor.state, host))
    }

    /// The end of an interval: who was out long enough comes back, who stands out by its success rate goes.
    pub(crate) fn sweep(&mut self, counters: &OutlierCounters, now: Instant, rng: &mut Rng) -> Changes {
        let mut changes = Changes::default();
        for monitor in &mut self.monitors {
            match monitor.ejected {
                None => monitor.back_off = monitor.back_off.saturating_sub(1),
                Some(since) => {
                    let longest = self.config.max_ejection_time;
                    let span = self.config.base_ejection_time.saturating_mul(monitor.back_off).min(longest);
                    if now.saturating_duration_since(since) >= span + monitor.jitter {
                        changes.returned |= monitor.readmit();
                    }
                }
            }
        }
        let rates = [Kind::Answers, Kind::Local].map(|kind| self.rates(kind));
        for (monitor, (answers, local)) in self.monitors.iter().zip(rates[0].iter().zip(&rates[1])) {
            let volume = self.config.success_rate_request_volume.min(self.config.failure_percentage_request_volume);
            let shown =
                |rate: &Option<(f64, u64)>| rate.filter(|(_, count)| *count >= volume).map_or(-1.0, |rate| rate.0);
            monitor.state.rates.set([shown(answers), shown(local)]);
        }
        for (kind, rates) in [Kind::Answers, Kind::Local].into_iter().zip(&rates) {
            self.sweep_rates(kind, rates, counters, now, rng, &mut changes);
        }
        self.count_active(counters);
        changes
    }

    /// The success rate and volume of each host in the interval that ends; none for hosts that are out.
    fn rates(&self, kind: Kind) -> Vec<Option<(f64, u64)>> {
        let rate = |monitor: &Monitor| {
            let tally: &Tally = match kind {
                Kind::Answers => &monitor.state.record.answers,
                Kind::Local => &monitor.state.record.local,
            };
            tally.take().filter(|_| monitor.ejected.is_none())
        };
        self.monitors.iter().map(rate).collect()
    }

    fn sweep_rates(
        &mut self,
        kind: Kind,
        rates: &[Option<(f64, u64)>],
        counters: &OutlierCounters,
        now: Instant,
        rng: &mut Rng,
        changes: &mut Changes,
    ) {
        let config = &self.config;
        let (least_hosts, least_volume) = (config.success_rate_minimum_hosts, config.success_rate_request_volume);
        let failing = f64::from(config.failure_percentage_threshold);
        let with_volume = |volume: u64| -> Vec<(usize, f64)> {
            let rated = rates.iter().enumerate().filter_map(|(index, rate)| Some((index, (*rate)?)));
            rated.filter(|(_, (_, count))| *count >= volume).map(|(index, (rate, _))| (index, rate)).collect()
        };
        let compared = with_volume(least_volume);
        let judged = with_volume(config.failure_percentage_request_volume);
        let judged = if judged.len() >= config.failure_percentage_minimum_hosts { judged } else { Vec::new() };
        let limit = if !compared.is_empty() && compared.len() >= least_hosts {
            let (mean, limit) = lower_limit(&compared, f64::from(config.success_rate_stdev_factor) / 1000.0);
            self.averages.set(kind, mean, limit);
            Some(limit)
        } else {
            self.averages.set(kind, -1.0, -1.0);
            None
        };
        let (by_rate, by_percentage) = match kind {
            Kind::Answers => (Outlier::SuccessRate, Outlier::FailurePercentage),
            Kind::Local => (Outlier::LocalSuccessRate, Outlier::LocalFailurePercentage),
        };
        for (index, _) in compared.iter().filter(|(_, rate)| limit.is_some_and(|limit| *rate < limit)) {
            detected(by_rate, counters);
            self.eject(*index, by_rate, counters, now, rng, changes);
        }
        for (index, _) in judged.iter().filter(|(_, rate)| 100.0 - rate >= failing) {
            detected(by_percentage, counters);
            self.eject(*index, by_percentage, counters, now, rng, changes);
        }
    }

    /// Takes a host out, if the rules for all hosts together and chance allow it.
    fn eject(
        &mut self,
        index: usize,
        outlier: Outlier,
        counters: &OutlierCounters,
        now: Instant,
        rng: &mut Rng,
        changes: &mut Changes,
    ) {
        let active = self.monitors.iter().filter(|monitor| monitor.ejected.is_some()).count();
        let percent = 100.0 * (active + 1) as f64 / self.monitors.len() as f64;
        let first = self.config.always_eject_one && active == 0;
        if percent > f64::from(self.config.max_ejection_percent) && !first {
            counters.ejections_overflow.inc();
            return;
        }
        if matches!(outlier, Outlier::Consecutive5xx | Outlier::SuccessRate) {
            counters.ejections_total.inc();
        }
        if rng.u32(0..100) >= self.enforcing(outlier) {
            return;
        }
        enforced(outlier, counters);
        let config = &self.config;
        let monitor = &mut self.monitors[index];
        if monitor.ejected.replace(now).is_none() {
            changes.ejected.push(monitor.state.clone());
        }
        let longest = config.max_ejection_time + config.base_ejection_time;
        if config.base_ejection_time.saturating_mul(monitor.back_off) < longest {
            monitor.back_off += 1;
        }
        let jitter = u64::try_from(config.max_jitter.as_millis()).unwrap_or(u64::MAX);
        monitor.jitter = Duration::from_millis(rng.u64(0..=jitter));
        monitor.state.set(HealthFlag::FailedOutlierCheck, true);
        self.count_active(counters);
    }

    fn enforcing(&self, outlier: Outlier) -> u32 {
        let enforcing = &self.config.enforcing;
        match outlier {
            Outlier::Consecutive5xx => enforcing.consecutive_5xx,
            Outlier::ConsecutiveGateway => enforcing.consecutive_gateway_failure,
            Outlier::ConsecutiveLocal => enforcing.consecutive_local_origin_failure,
            Outlier::SuccessRate => enforcing.success_rate,
            Outlier::LocalSuccessRate => enforcing.local_origin_success_rate,
            Outlier::FailurePercentage => enforcing.failure_percentage,
            Outlier::LocalFailurePercentage => enforcing.local_origin_failure_percentage,
        }
    }

    fn count_active(&self, counters: &OutlierCounters) {
        let active = self.monitors.iter().filter(|monitor| monitor.ejected.is_some()).count();
        counters.ejections_active.set(active as u64);
    }
}

/// The mean of the rates, and the rate below which a host stands out: so many standard deviations under it.
fn lower_limit(rates: &[(usize, f64)], factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    (mean, mean - factor * variance.sqrt())
}

fn detected(outlier: Outlier, counters: &OutlierCounters) {
    match outlier {
        Outlier::Consecutive5xx => {
            counters.ejections_consecutive_5xx.inc();
            counters.ejections_detected_consecutive_5xx.inc();
        }
        Outlier::ConsecutiveGateway => counters.ejections_detected_consecutive_gateway_failure.inc(),
        Outlier::ConsecutiveLocal => counters.ejections_detected_consecutive_local_origin_failure.inc(),
        Outlier::SuccessRate => {
            counters.ejections_success_rate.inc();
            counters.ejections_detected_success_rate.inc();
        }
        Outlier::LocalSuccessRate => {
            counters.ejections_success_rate.inc();
            counters.ejections_detected_local_origin_success_rate.inc();
        }
        Outlier::FailurePercentage => counters.ejections_detected_failure_percentage.inc(),
        Outlier::LocalFailurePercentage => counters.ejections_detected_local_origin_failure_percentage.inc(),
    }
}

fn enforced(outlier: Outlier, counters: &OutlierCounters) {
    counters.ejections_enforced_total.inc();
    match outlier {
        Outlier::Consecutive5xx => counters.ejections_enforced_consecutive_5xx.inc(),
        Outlier::ConsecutiveGateway => counters.ejections_enforced_consecutive_gateway_failure.inc(),
        Outlier::ConsecutiveLocal => counters.ejections_enforced_consecutive_local_origin_failure.inc(),
        Outlier::SuccessRate => counters.ejections_enforced_success_rate.inc(),
        Outlier::LocalSuccessRate => counters.ejections_enforced_local_origin_success_rate.inc(),
        Outlier::FailurePercentage => counters.ejections_enforced_failure_percentage.inc(),
        Outlier::LocalFailurePercentage => counters.ejections_enforced_local_origin_failure_percentage.inc(),
    }
}

#[cfg(test)]
mod tests;
