//! How is a host chosen? Envoy's `lb_policy` with its settings, and what `common_lb_config` says for all policies.

use std::time::Duration;

use lateen_xds::envoy::config::cluster::v3 as cluster_v3;
use lateen_xds::envoy::config::cluster::v3::cluster as message;
use lateen_xds::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;

use crate::snapshot::Invalid;
use crate::snapshot::fields::duration;
use crate::snapshot::subset::SubsetConfig;

/// Envoy's default `healthy_panic_threshold`, in percent.
const DEFAULT_PANIC_THRESHOLD: f64 = 50.0;
/// Envoy's default `update_merge_window`.
const DEFAULT_MERGE_WINDOW: Duration = Duration::from_secs(1);
/// Envoy's default and greatest `maximum_ring_size`.
const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;
/// Envoy's default `minimum_ring_size`.
const DEFAULT_MIN_RING_SIZE: u64 = 1024;
/// Envoy's default size of a Maglev table.
const DEFAULT_TABLE_SIZE: u64 = 65537;
/// Envoy's greatest size of a Maglev table.
const MAX_TABLE_SIZE: u64 = 5_000_011;

/// How hosts are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    /// `lb_policy`.
    pub policy: Policy,
    /// `healthy_panic_threshold` in whole percent; 0 turns panic mode off.
    pub panic_threshold: u32,
    /// `zone_aware_lb_config.fail_traffic_on_panic`: in panic mode nobody is chosen.
    pub fail_on_panic: bool,
    /// `locality_weighted_lb_config` is there: localities share by their weights.
    pub locality_weighted: bool,
    /// `update_merge_window`: changes of health that follow one another so soon take effect together.
    pub merge_window: Duration,
    /// `use_hostname_for_hashing`: hosts are hashed by their name instead of their address.
    pub hash_hostnames: bool,
    /// `hash_balance_factor` in percent: most requests of a host by hash, of what would be its part.
    pub hash_balance_factor: Option<u32>,
    /// `lb_subset_config`.
    pub subsets: Option<SubsetConfig>,
}

/// Envoy's `lb_policy`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// `ROUND_ROBIN`.
    RoundRobin {
        /// `slow_start_config`.
        slow_start: Option<SlowStart>,
    },
    /// `LEAST_REQUEST`.
    LeastRequest {
        /// `choice_count`: so many random hosts are compared.
        choices: u32,
        /// `active_request_bias`: how much requests in flight count where weights differ.
        bias: f64,
        /// `slow_start_config`.
        slow_start: Option<SlowStart>,
    },
    /// `RANDOM`.
    Random,
    /// `RING_HASH`.
    RingHash {
        /// `minimum_ring_size`.
        min: u64,
        /// `maximum_ring_size`.
        max: u64,
        /// `hash_function`.
        function: HashFunction,
    },
    /// `MAGLEV`.
    Maglev {
        /// `table_size`, a prime number.
        size: u64,
    },
    /// `CLUSTER_PROVIDED`: the original destination.
    ClusterProvided,
}

impl Policy {
    /// Whether the hash of a request decides.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }

    /// How new hosts are given less at first.
    #[must_use]
    pub fn slow_start(&self) -> Option<&SlowStart> {
        match self {
            Self::RoundRobin { slow_start } | Self::LeastRequest { slow_start, .. } => slow_start.as_ref(),
            _ => None,
        }
    }
}

/// How the points of a ring are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`.
    XxHash,
    /// `MURMUR_HASH_2`.
    MurmurHash2,
}

/// Envoy's `SlowStartConfig`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`.
    pub window: Duration,
    /// `aggression`: 1 is linear.
    pub aggression: f64,
    /// `min_weight_percent` as a factor.
    pub min_factor: f64,
}

impl SlowStart {
    fn build(message: Option<&message::SlowStartConfig>) -> Result<Option<Self>, Invalid> {
        let Some(message) = message else { return Ok(None) };
        let window = match &message.slow_start_window {
            Some(window) => duration(window, "slow_start_config.slow_start_window")?,
            None => Duration::ZERO,
        };
        let aggression = message.aggression.as_ref().map_or(1.0, |aggression| aggression.default_value);
        let slow_start = Self {
            window,
            aggression: if aggression > 0.0 { aggression } else { 1.0 },
            min_factor: message.min_weight_percent.map_or(0.1, |percent| percent.value / 100.0),
        };
        Ok((!window.is_zero()).then_some(slow_start))
    }

    /// The share of its weight that a host gets which has been healthy for so long.
    #[must_use]
    pub fn factor(&self, healthy_for: Duration) -> f64 {
        if healthy_for >= self.window {
            return 1.0;
        }
        let elapsed = healthy_for.max(Duration::from_millis(1)).as_secs_f64() / self.window.as_secs_f64();
        let grown = if self.aggression == 1.0 { elapsed } else { elapsed.powf(1.0 / self.aggression) };
        grown.max(self.min_factor)
    }
}

impl Balancing {
    pub(super) fn build(message: &cluster_v3::Cluster) -> Result<Self, Invalid> {
        let common = message.common_lb_config.as_ref();
        let threshold = common
            .and_then(|common| common.healthy_panic_threshold)
            .map_or(DEFAULT_PANIC_THRESHOLD, |percent| percent.value);
        let localities = common.and_then(|common| common.locality_config_specifier.as_ref());
        let hashing = common.and_then(|common| common.consistent_hashing_lb_config.as_ref());
        Ok(Self {
            policy: policy(message)?,
            // A conversion of a float keeps to the range of the integer.
            panic_threshold: (threshold.round() as u32).min(100),
            fail_on_panic: matches!(
                localities,
                Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) if zone.fail_traffic_on_panic
            ),
            locality_weighted: matches!(localities, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))),
            merge_window: match common.and_then(|common| common.update_merge_window.as_ref()) {
                Some(window) => duration(window, "common_lb_config.update_merge_window")?,
                None => DEFAULT_MERGE_WINDOW,
            },
            hash_hostnames: hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing),
            hash_balance_factor: match hashing.and_then(|hashing| hashing.hash_balance_factor) {
                Some(factor) if (1..100).contains(&factor) => {
                    let path = "common_lb_config.consistent_hashing_lb_config.hash_balance_factor";
                    return Err(Invalid::at(path, format!("{factor} is less than 100")));
                }
                factor => factor.filter(|factor| *factor > 0),
            },
            subsets: match &message.lb_subset_config {
                Some(config) => SubsetConfig::build(config).map_err(|invalid| invalid.under("lb_subset_config"))?,
                None => None,
            },
        })
    }

    /// How hosts are chosen inside a subset.
    #[must_use]
    pub fn within_subsets(&self) -> Self {
        let aware = self.subsets.as_ref().is_some_and(|subsets| subsets.locality_weight_aware);
        Self { locality_weighted: self.locality_weighted && aware, subsets: None, ..self.clone() }
    }
}

fn policy(message: &cluster_v3::Cluster) -> Result<Policy, Invalid> {
    use message::{LbConfig, LbPolicy};
    if message.load_balancing_policy.is_some() {
        return Err(Invalid::at("load_balancing_policy", "only lb_policy is supported".into()));
    }
    let policy = LbPolicy::try_from(message.lb_policy)
        .map_err(|_| Invalid::at("lb_policy", format!("{} is no policy", message.lb_policy)))?;
    let config = message.lb_config.as_ref();
    match policy {
        LbPolicy::RoundRobin => {
            let slow_start = match config {
                Some(LbConfig::RoundRobinLbConfig(config)) => config.slow_start_config.as_ref(),
                _ => None,
            };
            Ok(Policy::RoundRobin { slow_start: SlowStart::build(slow_start)? })
        }
        LbPolicy::LeastRequest => {
            let config = match config {
                Some(LbConfig::LeastRequestLbConfig(config)) => Some(config),
                _ => None,
            };
            let bias = config.and_then(|config| config.active_request_bias.as_ref());
            Ok(Policy::LeastRequest {
                choices: config.and_then(|config| config.choice_count).unwrap_or(2).max(2),
                bias: bias.map_or(1.0, |bias| bias.default_value.max(0.0)),
                slow_start: SlowStart::build(config.and_then(|config| config.slow_start_config.as_ref()))?,
            })
        }
        LbPolicy::Random => Ok(Policy::Random),
        LbPolicy::RingHash => {
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => Some(config),
                _ => None,
            };
            ring_hash(config)
        }
        LbPolicy::Maglev => {
            let size = match config {
                Some(LbConfig::MaglevLbConfig(config)) => config.table_size.unwrap_or(DEFAULT_TABLE_SIZE),
                _ => DEFAULT_TABLE_SIZE,
            };
            if size > MAX_TABLE_SIZE || !is_prime(size) {
                let text = format!("{size} is no prime number up to {MAX_TABLE_SIZE}");
                return Err(Invalid::at("maglev_lb_config.table_size", text));
            }
            Ok(Policy::Maglev { size })
        }
        LbPolicy::ClusterProvided => Ok(Policy::ClusterProvided),
        other => Err(Invalid::at("lb_policy", format!("{} is not supported yet", other.as_str_name()))),
    }
}

fn ring_hash(config: Option<&message::RingHashLbConfig>) -> Result<Policy, Invalid> {
    use message::ring_hash_lb_config::HashFunction as Function;
    let min = config.and_then(|config| config.minimum_ring_size).unwrap_or(DEFAULT_MIN_RING_SIZE);
    let max = config.and_then(|config| config.maximum_ring_size).unwrap_or(MAX_RING_SIZE);
    if max > MAX_RING_SIZE {
        return Err(Invalid::at("ring_hash_lb_config.maximum_ring_size", format!("must be at most {MAX_RING_SIZE}")));
    }
    if min > max {
        let text = format!("{min} is more than the maximum_ring_size of {max}");
        return Err(Invalid::at("ring_hash_lb_config.minimum_ring_size", text));
    }
    let function = match config.map_or(Ok(Function::XxHash), |config| Function::try_from(config.hash_function)) {
        Ok(Function::XxHash) => HashFunction::XxHash,
        Ok(Function::MurmurHash2) => HashFunction::MurmurHash2,
        Err(_) => return Err(Invalid::at("ring_hash_lb_config.hash_function", "is no hash function".into())),
    };
    Ok(Policy::RingHash { min, max, function })
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn balancing(settings: Value) -> Result<Balancing, Invalid> {
        let mut cluster = json!({"name": "c"});
        cluster.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Balancing::build(&lateen_xds::json::parse(cluster).unwrap())
    }

    #[test]
    fn what_is_not_said_is_envoys_default() {
        let built = balancing(json!({"lb_policy": "LEAST_REQUEST"})).unwrap();
        assert_eq!(built.policy, Policy::LeastRequest { choices: 2, bias: 1.0, slow_start: None });
        assert_eq!((built.panic_threshold, built.merge_window), (50, Duration::from_secs(1)));
        assert!(!built.locality_weighted && !built.fail_on_panic);
        let built = balancing(json!({"lb_policy": "RING_HASH"})).unwrap();
        assert_eq!(built.policy, Policy::RingHash { min: 1024, max: 8_388_608, function: HashFunction::XxHash });
        assert_eq!(balancing(json!({"lb_policy": "MAGLEV"})).unwrap().policy, Policy::Maglev { size: 65537 });
    }

    #[test]
    fn sizes_that_make_no_table_are_refused() {
        let path = |settings: Value| balancing(settings).unwrap_err().path;
        let maglev = |size: u64| json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": size}});
        assert_eq!(path(maglev(65536)), "maglev_lb_config.table_size");
        assert_eq!(path(maglev(5_000_077)), "maglev_lb_config.table_size");
        assert!(balancing(maglev(11)).is_ok());
        let ring = |min: u64, max: u64| json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": min, "maximum_ring_size": max}});
        assert_eq!(path(ring(10, 9)), "ring_hash_lb_config.minimum_ring_size");
        assert_eq!(path(ring(10, 9_000_000)), "ring_hash_lb_config.maximum_ring_size");
    }

    #[test]
    fn a_host_in_slow_start_gets_its_part_of_the_weight() {
        let built = balancing(json!({"lb_policy": "ROUND_ROBIN", "round_robin_lb_config":
            {"slow_start_config": {"slow_start_window": "10s", "min_weight_percent": {"value": 20}}}}));
        let slow_start = *built.unwrap().policy.slow_start().unwrap();
        let factor = |seconds: f64| slow_start.factor(Duration::from_secs_f64(seconds));
        assert_eq!([factor(0.0), factor(1.0), factor(5.0), factor(10.0), factor(99.0)], [0.2, 0.2, 0.5, 1.0, 1.0]);
        let square = SlowStart { aggression: 2.0, ..slow_start };
        assert_eq!(square.factor(Duration::from_millis(2500)), 0.5);
    }
}
