use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::snapshot::cluster::ClusterConfig;
use crate::snapshot::endpoints::{HostStates, Resolved};
use crate::snapshot::host::HealthFlag;

fn host(port: u16, health: &str) -> Value {
    json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
           "health_status": health})
}

/// Hosts of a level: `h` healthy, `d` degraded, `u` unhealthy.
fn level(priority: u16, hosts: &str) -> Value {
    let hosts = (0..).zip(hosts.chars()).map(|(index, health)| {
        let health = match health {
            'h' => "HEALTHY",
            'd' => "DEGRADED",
            _ => "UNHEALTHY",
        };
        host(1000 + 100 * priority + index, health)
    });
    json!({"priority": priority, "lb_endpoints": hosts.collect::<Vec<_>>()})
}

fn sets(settings: Value, groups: Value) -> (Endpoints, HostSets) {
    let mut cluster = json!({"name": "c"});
    cluster.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config = ClusterConfig::build(&lateen_xds::json::parse(cluster).unwrap()).unwrap();
    let assignment = lateen_xds::json::parse(json!({"cluster_name": "c", "endpoints": groups})).unwrap();
    let endpoints =
        Endpoints::build(&config, &assignment, &Resolved::new(), &mut HostStates::new(), Instant::now()).unwrap();
    let sets = HostSets::build(&config.balancing, &endpoints);
    (endpoints, sets)
}

fn shares(panic_threshold: u32, levels: &[&str]) -> Vec<(u32, u32, bool)> {
    let settings = json!({"common_lb_config": {"healthy_panic_threshold": {"value": panic_threshold}}});
    let groups: Vec<_> = (0..).zip(levels).map(|(priority, hosts)| level(priority, hosts)).collect();
    let (_, sets) = sets(settings, groups.into());
    sets.levels.iter().map(|level| (level.load.healthy, level.load.degraded, level.panic)).collect()
}

#[test]
fn a_level_passes_on_what_its_hosts_cannot_take() {
    assert_eq!(shares(0, &["hu", "h"]), [(70, 0, false), (30, 0, false)]);
    assert_eq!(shares(0, &["hhhu", "h"]), [(100, 0, false), (0, 0, false)]);
    assert_eq!(shares(0, &["uu", "h"]), [(0, 0, false), (100, 0, false)]);
    assert_eq!(shares(0, &["hu", "huuu", "hh"]), [(70, 0, false), (30, 0, false), (0, 0, false)]);
}

#[test]
fn together_too_little_is_scaled_up_and_rounding_goes_to_the_first() {
    // 28, 14 and 14 percent of 56: 50, 25, 25.
    assert_eq!(shares(0, &["huuuu", "huuuuuuuuu", "huuuuuuuuu"]), [(50, 0, false), (25, 0, false), (25, 0, false)]);
    // 46 and 46 of 92 make 50 each; 46 and 35 of 81 leave one over.
    assert_eq!(shares(0, &["huu", "huuu"]), [(57, 0, false), (43, 0, false)]);
}

#[test]
fn degraded_hosts_take_what_the_healthy_ones_leave() {
    assert_eq!(shares(0, &["hd"]), [(70, 30, false)]);
    assert_eq!(shares(0, &["hd", "h"]), [(70, 0, false), (30, 0, false)]);
    assert_eq!(shares(0, &["du"]), [(0, 100, false)]);
}

#[test]
fn panic_needs_a_level_below_the_threshold_and_too_little_everywhere() {
    assert_eq!(shares(50, &["huuu", "h"]), [(35, 0, false), (65, 0, false)]);
    assert_eq!(shares(50, &["huuu", "huuu"]), [(50, 0, true), (50, 0, true)]);
    // Only one level panics: the shares stay those of availability.
    assert_eq!(shares(50, &["huuuuuuuuu", "hu"]), [(17, 0, true), (83, 0, false)]);
    assert_eq!(shares(50, &["uuu", "uuuuu"]), [(38, 0, true), (62, 0, true)]);
    assert_eq!(shares(0, &["uuu"]), [(100, 0, false)]);
}

#[test]
fn a_host_that_failed_is_no_longer_healthy_whatever_its_assignment_says() {
    let (endpoints, before) = sets(json!({}), json!([level(0, "hhhh")]));
    assert_eq!(before.counts(), (4, 0));
    endpoints.hosts[2].state.set(HealthFlag::FailedOutlierCheck, true);
    let config = ClusterConfig::build(&lateen_xds::json::parse(json!({"name": "c"})).unwrap()).unwrap();
    assert_eq!(HostSets::build(&config.balancing, &endpoints).levels[0].healthy, [0, 1, 3]);
}

fn zone(name: &str, weight: Option<u32>, hosts: Value) -> Value {
    let mut group = json!({"locality": {"zone": name}, "lb_endpoints": hosts});
    if let Some(weight) = weight {
        group["load_balancing_weight"] = weight.into();
    }
    group
}

#[test]
fn a_locality_has_less_weight_when_hosts_are_missing() {
    let weighted = json!({"common_lb_config": {"locality_weighted_lb_config": {}}});
    let groups = json!([
        zone("b", Some(1), json!([host(1, "HEALTHY"), host(2, "UNHEALTHY")])),
        zone("a", Some(3), json!([host(3, "HEALTHY")])),
        zone("c", None, json!([host(4, "HEALTHY")])),
    ]);
    let (_, sets) = sets(weighted, groups);
    let localities = &sets.levels[0].localities;
    assert_eq!(localities.iter().map(|place| place.healthy_weight).collect::<Vec<_>>(), [3.0, 0.7, 0.0]);
    assert_eq!(localities[1].healthy, [0]);
}

#[test]
fn a_table_gives_each_host_its_part_of_its_localitys_part() {
    let settings = json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 1009},
        "common_lb_config": {"locality_weighted_lb_config": {}}});
    let mut heavy = host(2, "HEALTHY");
    heavy["load_balancing_weight"] = 3.into();
    let groups = json!([
        zone("a", Some(1), json!([host(1, "HEALTHY"), heavy])),
        zone("b", Some(1), json!([host(3, "HEALTHY")])),
    ]);
    let (_, sets) = sets(settings, groups);
    let table = sets.levels[0].table.as_ref().unwrap();
    let mut counts = BTreeMap::new();
    for hash in 0..1009 {
        *counts.entry(table.pick(hash, 0).unwrap()).or_insert(0_u32) += 1;
    }
    for (host, expected) in [(0, 126_u32), (1, 378), (2, 505)] {
        assert!(counts[&host].abs_diff(expected) <= 2, "{counts:?}");
    }
}

#[test]
fn hosts_are_hashed_by_key_or_name_or_address() {
    let mut keyed = host(1, "HEALTHY");
    keyed["metadata"] = json!({"filter_metadata": {"envoy.lb": {"hash_key": "one"}}});
    let mut named = host(2, "HEALTHY");
    named["endpoint"]["hostname"] = "two.example".into();
    let keys = |hash_hostnames: bool| {
        let settings = json!({"lb_policy": "MAGLEV", "common_lb_config": {
            "consistent_hashing_lb_config": {"use_hostname_for_hashing": hash_hostnames}}});
        let (endpoints, sets) = sets(settings.clone(), json!([{"lb_endpoints": [keyed, named]}]));
        let mut cluster = settings;
        cluster["name"] = "c".into();
        let config = ClusterConfig::build(&lateen_xds::json::parse(cluster).unwrap()).unwrap();
        let candidates = candidates(&config.balancing, &endpoints, &sets.levels[0], 0);
        candidates.iter().map(|candidate| candidate.key.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(false), ["one", "127.0.0.1:2"]);
    assert_eq!(keys(true), ["one", "two.example"]);
}

/// Where Envoy sent the requests with header values `key-0` to `key-63` for the same hosts and settings.
#[test]
fn tables_are_those_of_envoy_for_all_ways_to_weigh_and_to_name_hosts() {
    let host = |index: u16, weight: u32, key: &str| {
        let mut host = host(20101 + index, "HEALTHY");
        host["load_balancing_weight"] = weight.into();
        if !key.is_empty() {
            host["metadata"] = json!({"filter_metadata": {"envoy.lb": {"hash_key": key}}});
        }
        host
    };
    let hosts = |weights: [u32; 4], keys: [&str; 4]| {
        let hosts = (0..).zip(weights.into_iter().zip(keys)).map(|(index, (weight, key))| host(index, weight, key));
        json!([{"lb_endpoints": hosts.collect::<Vec<_>>()}])
    };
    let plain = hosts([1; 4], [""; 4]);
    let weighted = hosts([1, 3, 2, 5], [""; 4]);
    let keyed = hosts([1; 4], ["one", "two", "three", "four"]);
    let local = json!([
        zone("z", Some(3), json!([host(0, 1, ""), host(1, 3, "")])),
        zone("a", Some(1), json!([host(2, 1, ""), host(3, 3, "")])),
    ]);
    let ring = |config: Value| json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": config});
    let maglev = |config: Value| json!({"lb_policy": "MAGLEV", "maglev_lb_config": config});
    let locally = |mut settings: Value| {
        settings["common_lb_config"] = json!({"locality_weighted_lb_config": {}});
        settings
    };
    let cases = [
        (ring(json!({})), &plain, "2302112103133131131001330013002120033103213312100111130203023002"),
        (
            ring(json!({"minimum_ring_size": 64})),
            &plain,
            "2022221232123132122323023033200233312231332313130131220202302322",
        ),
        (ring(json!({})), &weighted, "3332312133133131131133330113133120333313233312110313133303223033"),
        (
            ring(json!({"hash_function": "MURMUR_HASH_2"})),
            &plain,
            "3322302111010332101020031302112333120000310211302200223002220301",
        ),
        (ring(json!({})), &keyed, "1021322331333112020022210133300303310313130102303330322332301100"),
        (locally(ring(json!({}))), &local, "1302111113133111111101310113010120033111013313100111131103001030"),
        (maglev(json!({})), &plain, "1310113022332012300203233211033123212001303012130232210112113300"),
        (
            maglev(json!({"table_size": 1009})),
            &weighted,
            "0233013113331333032313010323112003131232021333133123323133103231",
        ),
        (maglev(json!({})), &keyed, "1031110032202110020023002200313332130011020233020010111213231323"),
        (locally(maglev(json!({}))), &local, "1111113112311013301103133311013121112101303011110032110111111301"),
    ];
    for (settings, hosts, expected) in cases {
        let (_, sets) = sets(settings.clone(), hosts.clone());
        let table = sets.levels[0].table.as_ref().unwrap();
        let picks = (0..64).map(|key| {
            let hash = xxhash_rust::xxh64::xxh64(format!("key-{key}").as_bytes(), 0);
            table.pick(hash, 0).unwrap().to_string()
        });
        assert_eq!(picks.collect::<String>(), expected, "{settings}");
    }
}
