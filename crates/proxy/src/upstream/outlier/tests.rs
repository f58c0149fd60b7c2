use serde_json::{Value, json};

use super::*;
use crate::snapshot::cluster::ClusterConfig;
use crate::snapshot::endpoints::{HostStates, Resolved};

struct Scene {
    detector: Detector,
    hosts: Vec<Arc<HostState>>,
    counters: OutlierCounters,
    averages: Arc<Averages>,
    config: OutlierDetection,
    now: Instant,
    rng: Rng,
    changes: u32,
}

impl Scene {
    fn new(settings: Value, hosts: u16) -> Self {
        let now = Instant::now();
        let cluster = json!({"name": "c", "outlier_detection": settings});
        let config = ClusterConfig::build(&lateen_xds::json::parse(cluster).unwrap()).unwrap();
        let endpoints = endpoints(&config, 1..=hosts, &mut HostStates::new(), now);
        let counters = OutlierCounters::default();
        let averages = Arc::new(Averages::default());
        let outlier = config.outlier_detection.unwrap();
        let mut detector = Detector::new(outlier.clone(), averages.clone());
        detector.watch(&endpoints, &counters);
        let hosts = endpoints.hosts.iter().map(|host| host.state.clone()).collect();
        Self { detector, hosts, counters, averages, config: outlier, now, rng: Rng::with_seed(3), changes: 0 }
    }

    /// An attempt at a host, and what the main thread makes of it.
    fn attempt(&mut self, host: usize, outcome: Outcome) {
        let state = self.hosts[host].clone();
        let mut completed = Vec::new();
        report(&self.config, &state, outcome, |outlier| completed.push(outlier));
        for outlier in completed {
            self.changes +=
                u32::from(self.detector.suspect(&state, outlier, &self.counters, self.now, &mut self.rng).any());
        }
    }

    fn answers(&mut self, host: usize, statuses: &[u16]) {
        for status in statuses {
            self.attempt(host, Outcome::Answer(*status));
        }
    }

    fn sweep_after(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.changes += u32::from(self.detector.sweep(&self.counters, self.now, &mut self.rng).any());
    }

    fn is_out(&self, host: usize) -> bool {
        self.hosts[host].has(HealthFlag::FailedOutlierCheck)
    }

    fn out(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.is_out(*host)).collect()
    }
}

fn endpoints(
    config: &ClusterConfig,
    ports: impl Iterator<Item = u16>,
    states: &mut HostStates,
    now: Instant,
) -> Endpoints {
    let hosts: Vec<_> = ports
        .map(|port| json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}))
        .collect();
    let assignment = json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": hosts}]});
    let assignment = lateen_xds::json::parse(assignment).unwrap();
    Endpoints::build(config, &assignment, &Resolved::new(), states, now).unwrap()
}

fn all(mut settings: Value) -> Value {
    settings["max_ejection_percent"] = 100.into();
    settings
}

#[test]
fn errors_in_a_row_take_a_host_out_and_one_success_breaks_the_row() {
    let mut scene = Scene::new(all(json!({"consecutive_5xx": 3})), 2);
    scene.answers(0, &[500, 500, 200, 501, 503]);
    assert!(!scene.is_out(0));
    scene.answers(0, &[404]);
    scene.answers(0, &[500, 500]);
    assert!(!scene.is_out(0));
    scene.answers(0, &[500]);
    assert_eq!((scene.out(), scene.changes), (vec![0], 1));
    assert_eq!(scene.counters.ejections_enforced_consecutive_5xx.get(), 1);
    assert_eq!(scene.counters.ejections_active.get(), 1);
    assert_eq!((scene.counters.ejections_total.get(), scene.counters.ejections_enforced_total.get()), (1, 1));
}

#[test]
fn a_zero_never_completes_a_row() {
    let mut scene = Scene::new(all(json!({"consecutive_5xx": 0, "consecutive_gateway_failure": 0})), 1);
    scene.answers(0, &[503; 40]);
    assert_eq!(scene.counters.ejections_detected_consecutive_5xx.get(), 0);
    assert!(!scene.is_out(0));
}

#[test]
fn failures_of_the_gateway_are_counted_apart_and_another_error_breaks_their_row() {
    let settings = json!({"consecutive_5xx": 0, "consecutive_gateway_failure": 2,
        "enforcing_consecutive_gateway_failure": 100});
    let mut scene = Scene::new(all(settings), 1);
    scene.answers(0, &[502, 500, 503, 501, 504]);
    assert!(!scene.is_out(0));
    scene.attempt(0, Outcome::ConnectionFailed);
    assert!(scene.is_out(0));
    assert_eq!(scene.counters.ejections_enforced_consecutive_gateway_failure.get(), 1);
}

#[test]
fn detection_without_enforcement_is_counted_again_after_every_row() {
    let mut scene = Scene::new(all(json!({"consecutive_5xx": 2, "enforcing_consecutive_5xx": 0})), 1);
    scene.answers(0, &[500; 9]);
    assert_eq!(scene.counters.ejections_detected_consecutive_5xx.get(), 4);
    assert_eq!(scene.counters.ejections_enforced_total.get(), 0);
    assert!(!scene.is_out(0));
    // The gateway's row is detected by default, and not enforced.
    scene.answers(0, &[503; 5]);
    assert_eq!(scene.counters.ejections_detected_consecutive_gateway_failure.get(), 1);
}

#[test]
fn a_percentage_of_enforcement_is_a_chance() {
    let mut enforced = 0;
    for seed in 0..200 {
        let mut scene = Scene::new(all(json!({"consecutive_5xx": 1, "enforcing_consecutive_5xx": 30})), 1);
        scene.rng = Rng::with_seed(seed);
        scene.answers(0, &[500]);
        enforced += u32::from(scene.is_out(0));
    }
    assert!((35..=85).contains(&enforced), "{enforced} of 200");
}

#[test]
fn what_fails_before_an_answer_counts_as_503_and_504_unless_it_is_split_off() {
    let mut scene = Scene::new(all(json!({"consecutive_5xx": 3})), 1);
    scene.attempt(0, Outcome::ConnectionFailed);
    scene.attempt(0, Outcome::Connected);
    scene.attempt(0, Outcome::Timeout);
    scene.answers(0, &[500]);
    assert!(scene.is_out(0));

    let split = json!({"consecutive_5xx": 3, "split_external_local_origin_errors": true,
        "consecutive_local_origin_failure": 2});
    let mut scene = Scene::new(all(split), 1);
    scene.answers(0, &[500, 500]);
    scene.attempt(0, Outcome::ConnectionFailed);
    assert!(!scene.is_out(0));
    scene.attempt(0, Outcome::Connected);
    scene.attempt(0, Outcome::Timeout);
    assert!(!scene.is_out(0));
    scene.attempt(0, Outcome::ConnectionFailed);
    assert!(scene.is_out(0));
    assert_eq!(scene.counters.ejections_enforced_consecutive_local_origin_failure.get(), 1);
}

#[test]
fn no_more_than_the_allowed_part_is_out_at_once() {
    for (percent, allowed) in [(10, 0), (50, 1), (67, 2), (100, 3)] {
        let mut scene = Scene::new(json!({"consecutive_5xx": 1, "max_ejection_percent": percent}), 3);
        for host in 0..3 {
            scene.answers(host, &[500]);
        }
        assert_eq!(scene.out().len(), allowed, "{percent} %");
        assert_eq!(scene.counters.ejections_overflow.get(), 3 - allowed as u64);
    }
    let mut scene = Scene::new(json!({"consecutive_5xx": 1, "always_eject_one_host": true}), 3);
    for host in 0..3 {
        scene.answers(host, &[500]);
    }
    assert_eq!(scene.out(), [0]);
}

#[test]
fn a_host_stays_out_longer_each_time_and_less_so_after_good_intervals() {
    let settings = json!({"consecutive_5xx": 1, "base_ejection_time": "1.5s", "interval": "0.5s"});
    let mut scene = Scene::new(all(settings), 1);
    let out_for = |scene: &mut Scene| {
        scene.answers(0, &[500]);
        assert!(scene.is_out(0));
        (1..).find(|_| {
            scene.sweep_after(500);
            !scene.is_out(0)
        })
    };
    // In intervals of half a second: 1.5, 3, 4.5 and 6 seconds.
    assert_eq!([(); 4].map(|()| out_for(&mut scene)), [3, 6, 9, 12].map(Some));
    for _ in 0..4 {
        scene.sweep_after(500);
    }
    assert_eq!(out_for(&mut scene), Some(3));
}

#[test]
fn no_ejection_is_longer_than_the_longest() {
    let settings = json!({"consecutive_5xx": 1, "base_ejection_time": "1s", "max_ejection_time": "2s"});
    let mut scene = Scene::new(all(settings), 1);
    for expected in [1, 2, 2, 2] {
        scene.answers(0, &[500]);
        let sweeps = (1..).find(|_| {
            scene.sweep_after(1000);
            !scene.is_out(0)
        });
        assert_eq!(sweeps, Some(expected));
    }
}

#[test]
fn jitter_lengthens_an_ejection_by_chance() {
    let settings = json!({"consecutive_5xx": 1, "base_ejection_time": "1s", "max_ejection_time_jitter": "4s"});
    let mut spans = Vec::new();
    for seed in 0..40 {
        let mut scene = Scene::new(all(settings.clone()), 1);
        scene.rng = Rng::with_seed(seed);
        scene.answers(0, &[500]);
        let sweeps = (1..).find(|_| {
            scene.sweep_after(1000);
            !scene.is_out(0)
        });
        spans.extend(sweeps);
    }
    assert!(spans.iter().all(|span| (1..=5).contains(span)), "{spans:?}");
    assert!(spans.iter().min() < Some(&3) && spans.iter().max() > Some(&3), "{spans:?}");
}

/// As Envoy showed it for the same traffic.
#[test]
fn a_host_far_below_the_others_is_taken_out_at_the_end_of_the_interval() {
    let settings = json!({"consecutive_5xx": 0, "success_rate_request_volume": 10});
    let mut scene = Scene::new(all(settings), 6);
    for host in 0..6 {
        let status = if host == 2 { 500 } else { 200 };
        scene.answers(host, &[status; 20]);
    }
    scene.sweep_after(1000);
    assert_eq!(scene.out(), [2]);
    let [[mean, limit], local] = scene.averages.get();
    assert!((mean - 83.3333).abs() < 0.001 && (limit - 12.5245).abs() < 0.001, "{mean} {limit}");
    assert_eq!(local, [-1.0, -1.0]);
    assert_eq!(scene.hosts[0].rates.get(), [100.0, -1.0]);
    assert_eq!(scene.counters.ejections_enforced_success_rate.get(), 1);
    scene.sweep_after(1000);
    assert_eq!(scene.averages.get()[0], [-1.0, -1.0]);
    assert_eq!(scene.hosts[0].rates.get(), [-1.0, -1.0]);
}

#[test]
fn too_few_hosts_or_requests_are_no_basis_for_a_comparison() {
    let settings = json!({"consecutive_5xx": 0, "success_rate_request_volume": 10});
    for (hosts, requests) in [(4, 20), (6, 9)] {
        let mut scene = Scene::new(all(settings.clone()), hosts);
        for host in 0..usize::from(hosts) {
            let status = if host == 2 { 500 } else { 200 };
            scene.answers(host, &vec![status; requests]);
        }
        scene.sweep_after(1000);
        assert!(scene.out().is_empty());
    }
}

#[test]
fn a_percentage_of_failures_takes_hosts_out_where_that_is_enforced() {
    let settings = json!({"consecutive_5xx": 0, "enforcing_success_rate": 0, "enforcing_failure_percentage": 100,
        "failure_percentage_threshold": 50, "failure_percentage_minimum_hosts": 2,
        "failure_percentage_request_volume": 4});
    let mut scene = Scene::new(all(settings), 3);
    scene.answers(0, &[500, 200, 500, 200]);
    scene.answers(1, &[500, 200, 200, 200]);
    scene.answers(2, &[500, 500]);
    scene.sweep_after(1000);
    assert_eq!(scene.out(), [0]);
    assert_eq!(scene.counters.ejections_enforced_failure_percentage.get(), 1);
}

#[test]
fn a_host_that_leaves_is_forgotten_and_one_that_stays_is_not() {
    let now = Instant::now();
    let cluster = json!({"name": "c", "outlier_detection": {"consecutive_5xx": 1, "max_ejection_percent": 100}});
    let config = ClusterConfig::build(&lateen_xds::json::parse(cluster).unwrap()).unwrap();
    let mut states = HostStates::new();
    let counters = OutlierCounters::default();
    let before = endpoints(&config, 1..=2, &mut states, now);
    let outlier = config.outlier_detection.clone().unwrap();
    let mut detector = Detector::new(outlier, Arc::default());
    detector.watch(&before, &counters);
    let mut rng = Rng::with_seed(1);
    for host in &before.hosts {
        let changes = detector.suspect(&host.state, Outlier::Consecutive5xx, &counters, now, &mut rng);
        assert!(changes.ejected.iter().any(|ejected| Arc::ptr_eq(ejected, &host.state)));
    }
    assert_eq!(counters.ejections_active.get(), 2);
    let after = endpoints(&config, 2..=3, &mut states, now);
    detector.watch(&after, &counters);
    assert_eq!(counters.ejections_active.get(), 1);
    assert!(after.hosts[0].state.has_failed() && !after.hosts[1].state.has_failed());
    let changes = detector.suspect(&before.hosts[0].state, Outlier::Consecutive5xx, &counters, now, &mut rng);
    assert!(!changes.any());
    detector.release(&counters);
    assert!(!after.hosts[0].state.has_failed());
    assert_eq!(counters.ejections_active.get(), 0);
}

#[test]
fn a_host_that_passes_its_health_check_comes_back_at_once() {
    let mut scene = Scene::new(all(json!({"consecutive_5xx": 2})), 2);
    scene.answers(0, &[500, 500]);
    assert_eq!(scene.out(), [0]);
    let host = scene.hosts[0].clone();
    assert!(scene.detector.readmit(&host, &scene.counters));
    assert!(!scene.detector.readmit(&host, &scene.counters));
    assert_eq!((scene.out(), scene.counters.ejections_active.get()), (vec![], 0));
    scene.answers(0, &[500]);
    assert!(!scene.is_out(0));
}
