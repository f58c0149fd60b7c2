//! Do shares of requests come out as configured? Each count may stray five standard deviations from its expectation, so
//! that a right proxy fails once in about two million runs of a count.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_e2e::access_log;
use lateen_e2e::backend::Backends;
use lateen_e2e::book::Role;
use lateen_e2e::client::{self, Response};
use lateen_e2e::lateen;
use lateen_e2e::row::{Cells, Exchange, parse};

const CONFIGURATION: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: ratings}
subsets: [{addresses: [{ip: 127.0.0.1}], ports: [{name: http, port: RATINGS}]}]
---
apiVersion: v1
kind: Service
metadata: {name: shadow}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: shadow}
subsets: [{addresses: [{ip: 127.0.0.1}], ports: [{name: http, port: SHADOW}]}]
---
apiVersion: v1
kind: Service
metadata: {name: limping}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: limping}
subsets:
- {addresses: [{ip: 127.0.0.1}], ports: [{name: http, port: DEAD}]}
- {addresses: [{ip: 127.0.0.1}], ports: [{name: http, port: RATINGS}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {prefix: /delayed}}]
    fault: {delay: {percentage: {value: 50.0}, fixedDelay: 1ms}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {percentage: {value: 10.0}, httpStatus: 503}}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /rarely}}]
    fault: {abort: {percentage: {value: 0.5}, httpStatus: 503}}
    route: [{destination: {host: ratings}}]
  - match: [{headers: {x-chaos-test: {exact: "true"}}}]
    fault:
      delay: {percentage: {value: 50.0}, fixedDelay: 1ms}
      abort: {percentage: {value: 10.0}, httpStatus: 500}
    route: [{destination: {host: ratings}}]
  - match: [{uri: {prefix: /mirrored}}]
    route: [{destination: {host: ratings}}]
    mirror: {host: shadow}
    mirrorPercentage: {value: 30.0}
  - match: [{uri: {prefix: /limping}}]
    retries: {attempts: 5, retryOn: connect-failure, backoff: 1ms}
    route: [{destination: {host: limping}}]
  - route: [{destination: {host: ratings}}]
"#;

/// Requests on one connection.
const BURST: usize = 100;

struct Scene {
    proxy: lateen_e2e::process::Proxy,
    backends: Backends,
    _files: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let backends = Backends::start(["ratings".to_owned(), "shadow".to_owned()]).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        let port = |name: &str| backends.ports()[name].to_string();
        let text = CONFIGURATION
            .replace("RATINGS", &port("ratings"))
            .replace("SHADOW", &port("shadow"))
            .replace("DEAD", &port("dead"));
        let yaml = files.path().join("rules.yaml");
        std::fs::write(&yaml, text).unwrap();
        let proxy = lateen::start(&yaml, &files.path().join("access.log"), files.path()).await.unwrap();
        Self { proxy, backends, _files: files }
    }

    /// Asks so many times and counts statuses.
    async fn ask(&mut self, request: &str, times: usize) -> BTreeMap<u16, usize> {
        let address = self.proxy.listener(Role::Sidecar, 9080).unwrap();
        let burst: Vec<Exchange> =
            parse(1, Cells { request: &[request; BURST].join(" `@then` "), ..Cells::default() }).unwrap().exchanges;
        let mut statuses = BTreeMap::new();
        for _ in 0..times / BURST {
            let (transcript, _) = client::play(address, &burst).await.unwrap();
            for response in &transcript.responses {
                *statuses.entry(response.as_ref().map_or(0, Response::status)).or_default() += 1;
            }
        }
        statuses
    }

    /// Counts the response flags of all requests so far.
    async fn flags(&mut self, expected: usize) -> BTreeMap<String, usize> {
        let mut flags = BTreeMap::new();
        for line in self.proxy.access_lines(expected, Duration::from_secs(30)).await.unwrap() {
            let entry = access_log::parse(&line).unwrap();
            *flags.entry(entry.get("response_flags").to_owned()).or_default() += 1;
        }
        flags
    }
}

/// Five standard deviations of a binomial distribution.
#[track_caller]
fn assert_share(what: &str, count: usize, total: usize, share: f64) {
    let (count, total) = (count as f64, total as f64);
    let stray = 5.0 * (total * share * (1.0 - share)).sqrt();
    assert!((count - total * share).abs() <= stray, "{what}: {count} of {total}, expected {share}");
}

#[tokio::test]
async fn half_of_the_requests_wait_and_the_others_do_not() {
    let mut scene = Scene::start().await;
    assert_eq!(scene.ask("`GET ratings/delayed`", 1000).await, BTreeMap::from([(200, 1000)]));
    let flags = scene.flags(1000).await;
    assert_share("DI", flags["DI"], 1000, 0.5);
    assert_eq!(flags["DI"] + flags["-"], 1000);
}

#[tokio::test]
async fn a_tenth_of_the_requests_is_aborted_and_a_half_per_cent_too() {
    let mut scene = Scene::start().await;
    let statuses = scene.ask("`GET ratings/aborted`", 2000).await;
    assert_share("503", statuses[&503], 2000, 0.1);
    assert_eq!(statuses[&503] + statuses[&200], 2000);
    let statuses = scene.ask("`GET ratings/rarely`", 4000).await;
    assert_share("503", statuses.get(&503).copied().unwrap_or(0), 4000, 0.005);
}

#[tokio::test]
async fn delay_and_abort_are_drawn_one_by_one_and_for_the_chosen_requests_only() {
    let mut scene = Scene::start().await;
    let statuses = scene.ask("`GET ratings/` `x-chaos-test: true`", 2000).await;
    assert_share("500", statuses[&500], 2000, 0.1);
    let flags = scene.flags(2000).await;
    assert_share("both", flags.get("DI,FI").copied().unwrap_or(0), 2000, 0.05);
    assert_share("delay alone", flags["DI"], 2000, 0.45);
    assert_share("abort alone", flags.get("FI").copied().unwrap_or(0), 2000, 0.05);
    assert_eq!(scene.ask("`GET ratings/`", 300).await, BTreeMap::from([(200, 300)]));
}

#[tokio::test]
async fn a_share_of_the_requests_is_mirrored() {
    let mut scene = Scene::start().await;
    scene.ask("`GET ratings/mirrored`", 1000).await;
    let mut copies = 0;
    let mut received = scene.backends.take_at_least(1000).await.unwrap();
    // The last copies may still be on their way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    received.extend(scene.backends.take().await.unwrap());
    for request in &received {
        copies += usize::from(request.backend == "shadow");
    }
    assert_eq!(received.len() - copies, 1000);
    assert_share("copies", copies, 1000, 0.3);
}

#[tokio::test]
async fn a_service_with_one_good_endpoint_of_two_always_answers() {
    // A retry looks for another endpoint up to five times: all five retries go to the dead one for one request in 10^9,
    // for one in 64 if they did not look.
    let mut scene = Scene::start().await;
    assert_eq!(scene.ask("`GET ratings/limping`", 500).await, BTreeMap::from([(200, 500)]));
}
