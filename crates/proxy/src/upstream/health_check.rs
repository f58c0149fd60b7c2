//! Is a host well by its active health checks, and when is it asked again? Envoy's rules, without IO.

use std::time::Duration;

use fastrand::Rng;

use crate::snapshot::cluster::HealthCheck;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The host is well.
    Passed,
    /// The answer is bad, or bad only if it comes again.
    Failed {
        /// It must come as often as the threshold says.
        retriable: bool,
    },
    /// There was no answer.
    Unreachable,
}

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The host is what it was.
    Unchanged,
    /// It will change if that goes on.
    Pending,
    /// It changed.
    Changed,
}

/// The checks of one host so far.
#[derive(Debug)]
pub(crate) struct Session {
    first: bool,
    /// Whether the host counts as failed.
    failed: bool,
    successes: u32,
    failures: u32,
}

impl Session {
    /// Before the first check of a host.
    pub(crate) fn new(failed: bool) -> Self {
        Self { first: true, failed, successes: 0, failures: 0 }
    }

    /// Whether the host counts as failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes in a finding. The first one of all decides at once, and so does a bad answer.
    pub(crate) fn record(&mut self, config: &HealthCheck, finding: Finding) -> Transition {
        let first = std::mem::replace(&mut self.first, false);
        let settled = match finding {
            Finding::Passed => {
                self.failures = 0;
                if !self.failed {
                    return Transition::Unchanged;
                }
                self.successes += 1;
                first || self.successes >= config.healthy_threshold
            }
            Finding::Failed { .. } | Finding::Unreachable => {
                self.successes = 0;
                if self.failed {
                    return Transition::Unchanged;
                }
                let at_once = finding == Finding::Failed { retriable: false };
                if !at_once {
                    self.failures += 1;
                }
                at_once || self.failures >= config.unhealthy_threshold
            }
        };
        if !settled {
            return Transition::Pending;
        }
        self.failed = !self.failed;
        (self.successes, self.failures) = (0, 0);
        Transition::Changed
    }
}

/// The time until the next check.
pub(crate) fn next_check(
    config: &HealthCheck,
    finding: Finding,
    transition: Transition,
    had_traffic: bool,
    rng: &mut Rng,
) -> Duration {
    let pending = transition == Transition::Pending;
    let base = match (had_traffic, finding, pending) {
        (false, Finding::Passed, false) => config.no_traffic_healthy_interval,
        (false, ..) => config.no_traffic_interval,
        (true, Finding::Passed, false) => config.interval,
        (true, Finding::Passed, true) => config.healthy_edge_interval,
        (true, _, false) => config.unhealthy_interval,
        (true, _, true) => config.unhealthy_edge_interval,
    };
    let percent = base.mul_f64(f64::from(config.interval_jitter_percent) / 100.0);
    let wait = base + jitter(percent, rng) + jitter(config.interval_jitter, rng);
    wait.max(Duration::from_millis(1))
}

/// A random time below a bound.
pub(crate) fn jitter(bound: Duration, rng: &mut Rng) -> Duration {
    let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    if bound == 0 { Duration::ZERO } else { Duration::from_millis(rng.u64(0..bound)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::cluster::ClusterConfig;

    fn config(settings: Value) -> ClusterConfig {
        let mut check = json!({"timeout": "1s", "interval": "5s", "unhealthy_threshold": 2, "healthy_threshold": 2,
            "tcp_health_check": {}});
        check.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let cluster = lateen_xds::json::parse(json!({"name": "c", "health_checks": [check]})).unwrap();
        ClusterConfig::build(&cluster).unwrap()
    }

    const BAD: Finding = Finding::Failed { retriable: false };

    fn transitions(session: &mut Session, findings: &[Finding]) -> Vec<Transition> {
        let config = config(json!({}));
        let check = config.health_check.as_ref().unwrap();
        findings.iter().map(|finding| session.record(check, *finding)).collect()
    }

    #[test]
    fn the_first_success_makes_a_new_host_healthy_and_later_ones_count_up_to_the_threshold() {
        use Transition::{Changed, Pending, Unchanged};
        let mut session = Session::new(true);
        let findings = [Finding::Passed, Finding::Passed, BAD, Finding::Passed, BAD, Finding::Passed, Finding::Passed];
        let expected = [Changed, Unchanged, Changed, Pending, Unchanged, Pending, Changed];
        assert_eq!(transitions(&mut session, &findings), expected);
        assert!(!session.has_failed());
    }

    #[test]
    fn a_bad_answer_fails_a_host_at_once_and_silence_as_often_as_the_threshold_says() {
        use Transition::{Changed, Pending, Unchanged};
        let mut session = Session::new(false);
        let findings = [Finding::Unreachable, Finding::Passed, Finding::Unreachable, Finding::Unreachable];
        assert_eq!(transitions(&mut session, &findings), [Pending, Unchanged, Pending, Changed]);
        let retriable = Finding::Failed { retriable: true };
        assert_eq!(transitions(&mut Session::new(false), &[retriable, retriable]), [Pending, Changed]);
        assert_eq!(transitions(&mut Session::new(false), &[BAD]), [Changed]);
        // A host that never answered stays what it was.
        assert_eq!(transitions(&mut Session::new(true), &[Finding::Unreachable]), [Unchanged]);
    }

    #[test]
    fn intervals_follow_health_traffic_and_what_is_about_to_change() {
        let config = config(json!({"unhealthy_interval": "2s", "unhealthy_edge_interval": "1s",
            "healthy_edge_interval": "3s", "no_traffic_interval": "60s", "no_traffic_healthy_interval": "30s"}));
        let check = config.health_check.as_ref().unwrap();
        let mut rng = Rng::with_seed(1);
        let mut seconds =
            |finding, transition, traffic| next_check(check, finding, transition, traffic, &mut rng).as_secs();
        use Transition::{Changed, Pending, Unchanged};
        assert_eq!(seconds(Finding::Passed, Unchanged, true), 5);
        assert_eq!(seconds(Finding::Passed, Pending, true), 3);
        assert_eq!(seconds(BAD, Changed, true), 2);
        assert_eq!(seconds(Finding::Unreachable, Pending, true), 1);
        assert_eq!(seconds(Finding::Passed, Unchanged, false), 30);
        assert_eq!(seconds(BAD, Changed, false), 60);
    }

    #[test]
    fn jitter_is_added_by_chance() {
        let config = config(json!({"interval_jitter": "1s", "interval_jitter_percent": 40}));
        let check = config.health_check.as_ref().unwrap();
        let mut rng = Rng::with_seed(1);
        let waits: Vec<_> =
            (0..200).map(|_| next_check(check, Finding::Passed, Transition::Unchanged, true, &mut rng)).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(5) && *most < Duration::from_secs(8), "{least:?} {most:?}");
        assert!(*most - *least > Duration::from_millis(1500), "{least:?} {most:?}");
    }
}
