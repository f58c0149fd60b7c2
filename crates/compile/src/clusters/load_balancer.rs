//! How does a cluster choose an endpoint? Algorithm, hashing and warm-up.

use lateen_config::{HashAlgorithm, LoadBalancerPolicy, LoadBalancerSettings, SimpleLb};
use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::config::core::v3::RuntimeDouble;
use lateen_xds::envoy::r#type::v3::Percent;

use crate::message;
use crate::policy::Policy;

/// Points of a hash ring at least, unless a rule says otherwise.
const MINIMUM_RING_SIZE: u64 = 1024;

/// Sets the algorithm of a cluster whose endpoints are not its clients' to choose.
pub(super) fn apply(cluster: &mut Cluster, policy: &Policy<'_>) {
    if cluster.lb_policy == i32::from(cluster::LbPolicy::ClusterProvided) {
        return;
    }
    let Some(settings) = policy.load_balancer else {
        return;
    };
    let algorithm = match &settings.policy {
        Some(LoadBalancerPolicy::ConsistentHash(hash)) => {
            let size = |size: Option<u64>| size.filter(|size| *size != 0);
            match &hash.algorithm {
                Some(HashAlgorithm::Maglev(maglev)) => {
                    cluster.lb_policy = cluster::LbPolicy::Maglev.into();
                    cluster.lb_config = size(maglev.table_size).map(|size| {
                        cluster::LbConfig::MaglevLbConfig(cluster::MaglevLbConfig { table_size: Some(size) })
                    });
                }
                Some(HashAlgorithm::RingHash(ring)) => set_ring(cluster, size(ring.minimum_ring_size)),
                None => set_ring(cluster, size(hash.minimum_ring_size).or(Some(MINIMUM_RING_SIZE))),
            }
            return;
        }
        Some(LoadBalancerPolicy::Simple(simple)) => *simple,
        None => SimpleLb::Unspecified,
    };
    match algorithm {
        SimpleLb::Random => cluster.lb_policy = cluster::LbPolicy::Random.into(),
        SimpleLb::RoundRobin => {
            cluster.lb_policy = cluster::LbPolicy::RoundRobin.into();
            cluster.lb_config = slow_start(settings).map(|slow_start_config| {
                cluster::LbConfig::RoundRobinLbConfig(cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow_start_config),
                })
            });
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough => {
            cluster.lb_config = slow_start(settings).map(|slow_start_config| {
                cluster::LbConfig::LeastRequestLbConfig(cluster::LeastRequestLbConfig {
                    slow_start_config: Some(slow_start_config),
                    ..Default::default()
                })
            });
        }
    }
}

fn set_ring(cluster: &mut Cluster, minimum_ring_size: Option<u64>) {
    cluster.lb_policy = cluster::LbPolicy::RingHash.into();
    cluster.lb_config = minimum_ring_size.map(|size| {
        cluster::LbConfig::RingHashLbConfig(cluster::RingHashLbConfig {
            minimum_ring_size: Some(size),
            ..Default::default()
        })
    });
}

/// How a new endpoint is given less at first. Random and hashed choices have no such thing.
fn slow_start(settings: &LoadBalancerSettings) -> Option<cluster::SlowStartConfig> {
    let Some(warmup) = &settings.warmup else {
        return settings.warmup_duration_secs.map(|window| cluster::SlowStartConfig {
            slow_start_window: Some(message::duration(window)),
            ..Default::default()
        });
    };
    Some(cluster::SlowStartConfig {
        slow_start_window: Some(message::duration(warmup.duration)),
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.unwrap_or(1.0),
            // Envoy refuses an empty key; nobody sets this one.
            runtime_key: "lateen.slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    })
}
