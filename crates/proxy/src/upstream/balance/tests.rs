use std::sync::atomic::Ordering;
use std::time::Duration;

use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use serde_json::{Value, json};

use super::*;
use crate::snapshot::cluster::ClusterConfig;
use crate::snapshot::endpoints::{HostStates, Resolved};

struct Scene {
    endpoints: Endpoints,
    balancer: Balancer,
    rng: Rng,
    now: Instant,
}

impl Scene {
    fn new(settings: Value, groups: Value) -> Self {
        let now = Instant::now();
        let mut cluster = json!({"name": "c", "common_lb_config": {"healthy_panic_threshold": {"value": 0}}});
        cluster.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let config = ClusterConfig::build(&lateen_xds::json::parse(cluster).unwrap()).unwrap();
        let assignment: ClusterLoadAssignment =
            lateen_xds::json::parse(json!({"cluster_name": "c", "endpoints": groups})).unwrap();
        let endpoints = Endpoints::build(&config, &assignment, &Resolved::new(), &mut HostStates::new(), now).unwrap();
        let sets = Arc::new(HostSets::build(&config.balancing, &endpoints));
        let mut rng = Rng::with_seed(7);
        let balancer = Balancer::new(&config.balancing, &endpoints, &sets, now, &mut rng);
        Self { endpoints, balancer, rng, now }
    }

    fn of(settings: Value, hosts: &[Value]) -> Self {
        Self::new(settings, json!([{"lb_endpoints": hosts}]))
    }

    fn pick_with(&mut self, context: &PickContext<'_>) -> Option<Picked> {
        self.balancer.pick(&self.endpoints, context, &mut self.rng)
    }

    fn pick(&mut self) -> Option<u32> {
        let context = PickContext {
            tried: &[],
            reselections: 0,
            hash: None,
            loads: None,
            active: 0,
            criteria: None,
            now: self.now,
        };
        self.pick_with(&context).map(|picked| picked.host)
    }

    fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.endpoints.hosts.len()];
        for _ in 0..picks {
            if let Some(host) = self.pick() {
                counts[host as usize] += 1;
            }
        }
        counts
    }
}

fn host(port: u16, weight: u32, health: &str) -> Value {
    json!({
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
        "load_balancing_weight": weight, "health_status": health
    })
}

fn healthy(weights: &[u32]) -> Vec<Value> {
    (1..).zip(weights).map(|(port, weight)| host(port, *weight, "HEALTHY")).collect()
}

#[test]
fn round_robin_with_equal_weights_gives_every_host_the_same_share() {
    assert_eq!(Scene::of(json!({}), &healthy(&[1, 1, 1])).counts(300), [100, 100, 100]);
}

#[test]
fn round_robin_with_weights_follows_them_in_every_period() {
    let counts = Scene::of(json!({}), &healthy(&[1, 3, 2])).counts(600);
    for (count, expected) in counts.iter().zip([100_usize, 300, 200]) {
        assert!(count.abs_diff(expected) <= 2, "{counts:?}");
    }
}

#[test]
fn random_ignores_weights() {
    let counts = Scene::of(json!({"lb_policy": "RANDOM"}), &healthy(&[1, 9])).counts(1000);
    assert!((420..=580).contains(&counts[0]), "{counts:?}");
}

#[test]
fn least_request_avoids_the_busy_host_whenever_another_was_drawn() {
    let mut scene = Scene::of(json!({"lb_policy": "LEAST_REQUEST"}), &healthy(&[1, 1, 1]));
    scene.endpoints.hosts[0].state.active_requests.store(9, Ordering::Relaxed);
    let counts = scene.counts(900);
    // The busy host is picked only when it was drawn twice: one time in nine.
    assert!((60..=140).contains(&counts[0]), "{counts:?}");
}

#[test]
fn least_request_with_weights_counts_requests_in_flight_as_its_bias_says() {
    let share = |bias: f64| {
        let settings = json!({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {
            "active_request_bias": {"default_value": bias, "runtime_key": "bias"}}});
        let mut scene = Scene::of(settings, &healthy(&[1, 3]));
        scene.endpoints.hosts[1].state.active_requests.store(2, Ordering::Relaxed);
        scene.balancer = rebuilt(&scene);
        scene.counts(400)[1]
    };
    // 3/3 against 1, and 3 against 1 when what is in flight does not count.
    assert!(share(1.0).abs_diff(200) <= 2, "{}", share(1.0));
    assert!(share(0.0).abs_diff(300) <= 2, "{}", share(0.0));
}

/// The same balancer with what is in flight now.
fn rebuilt(scene: &Scene) -> Balancer {
    let balancing = Balancing {
        policy: scene.balancer.policy,
        panic_threshold: 0,
        fail_on_panic: false,
        locality_weighted: false,
        merge_window: Duration::ZERO,
        hash_hostnames: false,
        hash_balance_factor: None,
        subsets: None,
    };
    Balancer::new(&balancing, &scene.endpoints, &scene.balancer.sets, scene.now, &mut Rng::with_seed(7))
}

#[test]
fn a_new_host_gets_its_part_in_slow_start() {
    let settings = json!({"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "8s"}}});
    let mut scene = Scene::of(settings, &healthy(&[1, 1]));
    let begun = scene.now;
    scene.now = begun + Duration::from_secs(100);
    scene.endpoints.hosts[1].state.became_healthy(scene.now);
    scene.balancer = rebuilt(&scene);
    let mut share = |seconds: f64| {
        scene.now = begun + Duration::from_secs_f64(100.0 + seconds);
        // What was scheduled before still has the old weights.
        scene.counts(40);
        scene.counts(1000)[1]
    };
    // w / (1 + w) with w = max(0.1, t / 8).
    for (seconds, expected) in [(0.0, 91_usize), (2.0, 200), (4.0, 333), (6.0, 429), (8.0, 500)] {
        let share = share(seconds);
        assert!(share.abs_diff(expected) <= 12, "{seconds} s: {share}");
    }
}

#[test]
fn an_unhealthy_host_is_used_only_in_panic() {
    let hosts = [host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY"), host(3, 1, "UNHEALTHY")];
    assert_eq!(Scene::of(json!({}), &hosts).counts(30), [30, 0, 0]);
    let panic = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 50}}});
    let mut scene = Scene::of(panic, &hosts);
    assert_eq!(scene.counts(30), [10, 10, 10]);
    let context =
        PickContext { tried: &[], reselections: 0, hash: None, loads: None, active: 0, criteria: None, now: scene.now };
    assert!(scene.pick_with(&context).unwrap().panic);
}

#[test]
fn panic_may_be_configured_to_fail_requests() {
    let settings = json!({"common_lb_config": {"zone_aware_lb_config": {"fail_traffic_on_panic": true}}});
    assert_eq!(Scene::of(settings, &[host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY")]).counts(10), [10, 0]);
    let settings = json!({"common_lb_config": {
        "healthy_panic_threshold": {"value": 51}, "zone_aware_lb_config": {"fail_traffic_on_panic": true}}});
    assert_eq!(Scene::of(settings, &[host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY")]).counts(10), [0, 0]);
}

#[test]
fn no_host_is_picked_when_all_are_unhealthy_and_panic_is_off() {
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"] {
        let hosts = [host(1, 1, "UNHEALTHY"), host(2, 1, "DRAINING")];
        assert_eq!(Scene::of(json!({"lb_policy": policy}), &hosts).counts(10), [0, 0], "{policy}");
        assert_eq!(Scene::new(json!({"lb_policy": policy}), json!([])).pick(), None, "{policy}");
    }
}

#[test]
fn a_half_dead_priority_spills_to_the_next_by_the_overprovisioning_rule() {
    let levels = json!([
        {"priority": 0, "lb_endpoints": [host(1, 1, "HEALTHY"), host(2, 1, "UNHEALTHY")]},
        {"priority": 1, "lb_endpoints": [host(3, 1, "HEALTHY")]}]);
    let counts = Scene::new(json!({}), levels).counts(1000);
    assert_eq!(counts[1], 0);
    assert!((640..=760).contains(&counts[0]), "70 % stay: {counts:?}");
}

#[test]
fn degraded_hosts_serve_what_the_healthy_ones_cannot() {
    let counts = Scene::of(json!({}), &[host(1, 1, "HEALTHY"), host(2, 1, "DEGRADED")]).counts(1000);
    assert!((640..=760).contains(&counts[0]), "{counts:?}");
    assert_eq!(counts[0] + counts[1], 1000);
}

#[test]
fn localities_share_by_their_weights() {
    let settings = json!({"common_lb_config": {"locality_weighted_lb_config": {}}});
    let groups = json!([
        {"locality": {"zone": "a"}, "load_balancing_weight": 1, "lb_endpoints": healthy(&[1])},
        {"locality": {"zone": "b"}, "load_balancing_weight": 3,
         "lb_endpoints": [host(8, 1, "HEALTHY"), host(9, 2, "HEALTHY")]},
        {"locality": {"zone": "c"}, "lb_endpoints": [host(10, 1, "HEALTHY")]}]);
    let counts = Scene::new(settings, groups.clone()).counts(400);
    for (count, expected) in counts.iter().zip([100_usize, 100, 200, 0]) {
        assert!(count.abs_diff(expected) <= 3, "{counts:?}");
    }
    // Without the setting the weights of localities do not matter.
    let counts = Scene::new(json!({}), groups).counts(500);
    assert!(counts[3].abs_diff(100) <= 2, "{counts:?}");
}

#[test]
fn the_hash_of_a_request_decides_alone() {
    for policy in ["RING_HASH", "MAGLEV"] {
        let mut scene = Scene::of(json!({"lb_policy": policy}), &healthy(&[1, 1, 1]));
        let mut seen = [false; 3];
        for key in 0..200_u64 {
            let hash = Some(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let context = PickContext {
                tried: &[],
                reselections: 0,
                hash,
                loads: None,
                active: 0,
                criteria: None,
                now: scene.now,
            };
            let picked = scene.pick_with(&context).unwrap();
            assert_eq!(scene.pick_with(&context), Some(picked), "{policy}");
            seen[picked.host as usize] = true;
        }
        assert_eq!(seen, [true; 3], "{policy}");
        let counts = scene.counts(600);
        assert!(counts.iter().all(|count| (130..=270).contains(count)), "without a hash by chance: {counts:?}");
    }
}

#[test]
fn a_tried_host_is_avoided_as_often_as_the_retry_policy_says() {
    let mut scene = Scene::of(json!({}), &healthy(&[1, 1]));
    for _ in 0..20 {
        let context = PickContext {
            tried: &[0],
            reselections: 5,
            hash: None,
            loads: None,
            active: 0,
            criteria: None,
            now: scene.now,
        };
        assert_eq!(scene.pick_with(&context).map(|picked| picked.host), Some(1));
    }
}

#[test]
fn a_host_whose_address_stays_keeps_its_state() {
    let config = ClusterConfig::build(&lateen_xds::json::parse(json!({"name": "c"})).unwrap()).unwrap();
    let build = |weight: u32, states: &mut HostStates| {
        let assignment: ClusterLoadAssignment = lateen_xds::json::parse(json!(
            {"cluster_name": "c", "endpoints": [{"lb_endpoints": healthy(&[weight])}]}))
        .unwrap();
        Endpoints::build(&config, &assignment, &Resolved::new(), states, Instant::now()).unwrap()
    };
    let mut states = HostStates::new();
    let (before, after) = (build(1, &mut states), build(2, &mut states));
    assert!(Arc::ptr_eq(&before.hosts[0].state, &after.hosts[0].state));
    assert_eq!(after.hosts[0].weight, 2);
}
