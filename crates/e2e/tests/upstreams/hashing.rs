//! Does the hash of a request lead both proxies to the same host?

use super::*;

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
const KEYS: u32 = 48;

fn groups(ports: &BTreeMap<String, u16>, settings: impl Fn(usize) -> Value) -> Value {
    let endpoints = NAMES.iter().enumerate().map(|(index, name)| endpoint(ports[*name], &settings(index)));
    json!([{"lb_endpoints": endpoints.collect::<Vec<_>>()}])
}

/// Asks both sides with the same keys and holds the backends against each other.
async fn agree(scene: &Scene, name: &str, request: impl Fn(u32) -> String) {
    let requests: Vec<_> = (0..KEYS).map(request).collect();
    let mut sides = Vec::new();
    for side in &scene.sides {
        let answers = side.ask(&requests).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{name}: {answers:?}");
        sides.push(answers.into_iter().map(|answer| answer.backend).collect::<Vec<_>>());
    }
    let used: std::collections::BTreeSet<_> = sides[0].iter().collect();
    assert!(used.len() >= 3, "{name}: {used:?}");
    if let [lateen, envoy] = sides.as_slice() {
        assert_eq!(lateen, envoy, "{name}");
    }
}

#[tokio::test]
async fn a_key_leads_to_the_same_host_whatever_the_table_and_the_weights() {
    let scene = Scene::start(&NAMES, |ports| {
        let plain = groups(ports, |_| json!({}));
        let weighted = groups(ports, |index| json!({"load_balancing_weight": ([1, 3, 2, 5, 1][index])}));
        let keyed = groups(
            ports,
            |index| json!({"metadata": {"filter_metadata": {"envoy.lb": {"hash_key": format!("host-{index}")}}}}),
        );
        let unwell = groups(ports, |index| json!({"health_status": if index == 1 { "UNHEALTHY" } else { "HEALTHY" }}));
        let zones = json!([
            {"locality": {"zone": "z"}, "load_balancing_weight": 3,
             "lb_endpoints": [endpoint(ports["one"], &json!({})), endpoint(ports["two"], &json!({}))]},
            {"locality": {"zone": "a"}, "load_balancing_weight": 1,
             "lb_endpoints": [endpoint(ports["three"], &json!({})), endpoint(ports["four"], &json!({}))]}]);
        let ring = |config: Value| json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": config});
        let maglev = |config: Value| json!({"lb_policy": "MAGLEV", "maglev_lb_config": config});
        let locally = |mut settings: Value| {
            settings["common_lb_config"] = json!({"locality_weighted_lb_config": {}});
            settings
        };
        let clusters = vec![
            cluster("ring", &plain, &ring(json!({}))),
            cluster("ring-small", &weighted, &ring(json!({"minimum_ring_size": 64}))),
            cluster("ring-murmur", &plain, &ring(json!({"hash_function": "MURMUR_HASH_2"}))),
            cluster("ring-keyed", &keyed, &ring(json!({}))),
            cluster("ring-unwell", &unwell, &ring(json!({}))),
            cluster("ring-zones", &zones, &locally(ring(json!({})))),
            cluster("maglev", &plain, &maglev(json!({}))),
            cluster("maglev-weighted", &weighted, &maglev(json!({"table_size": 1009}))),
            cluster("maglev-unwell", &unwell, &maglev(json!({}))),
            cluster("maglev-zones", &zones, &locally(maglev(json!({})))),
        ];
        let policy = json!({"hash_policy": [{"header": {"header_name": "x-key"}}]});
        let routes: Vec<_> = clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap(), &policy)).collect();
        (clusters, routes.into())
    });
    let scene = scene.await;
    for name in [
        "ring",
        "ring-small",
        "ring-murmur",
        "ring-keyed",
        "ring-unwell",
        "ring-zones",
        "maglev",
        "maglev-weighted",
        "maglev-unwell",
        "maglev-zones",
    ] {
        agree(&scene, name, |key| format!("GET h/{name}/ + x-key: user-{key}")).await;
    }
    for name in ["cluster.ring-small.ring_hash_lb.size", "cluster.maglev-weighted.maglev_lb.max_entries_per_host"] {
        let mut values = Vec::new();
        for side in &scene.sides {
            values.push(side.stat(name).await);
        }
        assert!(values[0] > 0 && values.iter().all(|value| *value == values[0]), "{name}: {values:?}");
    }
    scene.end().await;
}

#[tokio::test]
async fn all_parts_of_a_request_that_can_be_hashed_are_hashed_alike() {
    let header = |name: &str| json!({"header": {"header_name": name}});
    let policies = [
        ("several-lines", json!([header("x-a")])),
        (
            "rewritten",
            json!([{"header": {"header_name": "x-a", "regex_rewrite": {
            "pattern": {"regex": "^(.*?)-.*$"}, "substitution": "\\1"}}}]),
        ),
        ("cookie", json!([{"cookie": {"name": "ck"}}])),
        ("query", json!([{"query_parameter": {"name": "q"}}])),
        ("combined", json!([header("x-a"), header("x-missing"), {"query_parameter": {"name": "q"}}])),
        ("terminal", json!([{"header": {"header_name": "x-a"}, "terminal": true}, header("x-b")])),
    ];
    let scene = Scene::start(&NAMES, |ports| {
        let plain = groups(ports, |_| json!({}));
        let settings = json!({"lb_policy": "RING_HASH"});
        let clusters = policies.iter().map(|(name, _)| cluster(name, &plain, &settings)).collect();
        let routes = policies.iter().map(|(name, policy)| route(name, &json!({"hash_policy": policy})));
        (clusters, routes.collect::<Vec<_>>().into())
    });
    let scene = scene.await;
    agree(&scene, "several-lines", |key| format!("GET h/several-lines/ + x-a: b{key} + x-a: a{key}")).await;
    agree(&scene, "rewritten", |key| format!("GET h/rewritten/ + x-a: u{key}-rest")).await;
    agree(&scene, "cookie", |key| format!("GET h/cookie/ + cookie: other=1; ck=v{key}")).await;
    agree(&scene, "query", |key| format!("GET h/query/?p=1&q=v%20{key}&q=2")).await;
    agree(&scene, "combined", |key| format!("GET h/combined/?q={key} + x-a: same")).await;
    agree(&scene, "terminal", |key| format!("GET h/terminal/ + x-a: t{key} + x-b: {}", key * 7)).await;
    agree(&scene, "the path as it is rewritten", |key| format!("GET h/cookie/ + cookie: ck=\"v{key}\"")).await;
    scene.end().await;
}

#[tokio::test]
async fn a_cookie_is_made_up_with_the_same_attributes_and_leads_back_to_its_host() {
    let policy = json!({"hash_policy": [{"cookie": {"name": "ck", "ttl": "60s", "path": "/p",
        "attributes": [{"name": "SameSite", "value": "Strict"}]}}]});
    let scene = Scene::start(&NAMES, |ports| {
        let clusters = vec![cluster("made", &groups(ports, |_| json!({})), &json!({"lb_policy": "MAGLEV"}))];
        let mut route = route("made", &policy);
        route["response_headers_to_add"] = json!([{"header": {"key": "x-cookie", "value": "[%RESP(set-cookie)%]"}}]);
        (clusters, json!([route]))
    });
    let scene = scene.await;
    let mut shapes = Vec::new();
    for side in &scene.sides {
        let first = side.ask(&["GET h/made/?header=Set-Cookie:own%3D1".to_owned()]).await.remove(0);
        let cookies = first.values("set-cookie");
        let made = cookies.last().unwrap();
        let value = made.split('"').nth(1).unwrap().to_owned();
        assert_eq!(value.len(), 16, "{cookies:?}");
        let seen = first.values("x-cookie").concat().replace(&value, "V");
        shapes.push((cookies.len(), made.replace(&value, "V"), seen));
        // On other connections the value leads to the same host, and no cookie is made up.
        for _ in 0..3 {
            let again = side.ask(&[format!("GET h/made/ + cookie: ck={value}")]).await.remove(0);
            assert_eq!((again.backend.as_str(), again.values("set-cookie").len()), (first.backend.as_str(), 0));
        }
    }
    assert_eq!(shapes[0].1, "ck=\"V\"; Max-Age=60; Path=/p; SameSite=Strict; HttpOnly");
    assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    scene.end().await;
}

#[tokio::test]
async fn a_retry_looks_for_another_host_in_the_same_way() {
    let predicate = json!([{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]);
    let retrying = |predicate: Value| {
        json!({"hash_policy": [{"header": {"header_name": "x-key"}}], "retry_policy": {"retry_on": "5xx",
            "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}, "retry_host_predicate": predicate,
            "host_selection_retry_max_attempts": "3"}})
    };
    let mut scene = Scene::start(&NAMES, |ports| {
        let plain = groups(ports, |_| json!({}));
        let names = [("ring", "RING_HASH"), ("maglev", "MAGLEV")];
        let clusters = names.iter().map(|(name, policy)| cluster(name, &plain, &json!({"lb_policy": policy})));
        let clusters: Vec<_> = clusters.collect();
        let mut routes: Vec<_> = names.iter().map(|(name, _)| route(name, &retrying(predicate.clone()))).collect();
        let mut same = route("ring", &retrying(json!([])));
        same["match"] = json!({"prefix": "/same/"});
        routes.push(same);
        (clusters, routes.into())
    })
    .await;
    for name in ["ring", "maglev", "same"] {
        let mut sides = Vec::new();
        for side in scene.sides.clone() {
            let mut tried = Vec::new();
            for key in 0..24 {
                side.ask(&[format!("GET h/{name}/?status=503 + x-key: {key}")]).await;
                let received = scene.backends.take().await.unwrap();
                tried.push(received.into_iter().map(|received| received.backend).collect::<Vec<_>>());
            }
            sides.push(tried);
        }
        assert!(sides[0].iter().all(|tried| tried.len() == 4), "{name}: {:?}", sides[0]);
        let several = sides[0].iter().any(|tried| tried.iter().any(|host| *host != tried[0]));
        assert_eq!(several, name != "same", "{name}: {:?}", sides[0]);
        if let [lateen, envoy] = sides.as_slice() {
            assert_eq!(lateen, envoy, "{name}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn requests_with_one_key_overflow_to_the_same_hosts_when_their_load_is_bounded() {
    let scene = Scene::start(&NAMES, |ports| {
        let bounded = |factor: u32| {
            json!({"lb_policy": "RING_HASH", "common_lb_config": {
                "consistent_hashing_lb_config": {"hash_balance_factor": factor}}})
        };
        let plain = groups(ports, |_| json!({}));
        let weighted = groups(ports, |index| json!({"load_balancing_weight": ([1, 3, 2, 5, 1][index])}));
        let clusters = vec![cluster("tight", &plain, &bounded(100)), cluster("loose", &weighted, &bounded(200))];
        let policy = json!({"hash_policy": [{"header": {"header_name": "x-key"}}]});
        let routes: Vec<_> = clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap(), &policy)).collect();
        (clusters, routes.into())
    })
    .await;
    for (name, key) in [("tight", "one"), ("tight", "two"), ("loose", "three"), ("loose", "four")] {
        let mut sides = Vec::new();
        for side in &scene.sides {
            let mut asked = tokio::task::JoinSet::new();
            for place in 0..9 {
                let side = side.clone();
                let request = format!("GET h/{name}/?delay=2s + x-key: {key}");
                asked.spawn(async move { (place, side.ask(&[request]).await.remove(0).backend) });
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            let mut backends = asked.join_all().await;
            backends.sort();
            sides.push(backends);
        }
        let used: std::collections::BTreeSet<_> = sides[0].iter().map(|(_, backend)| backend).collect();
        // A heavy host may take all of them where the bound is loose.
        assert!(name == "loose" || used.len() >= 2, "{name} {key}: {used:?}");
        if let [lateen, envoy] = sides.as_slice() {
            assert_eq!(lateen, envoy, "{name} {key}");
        }
    }
    scene.end().await;
}
