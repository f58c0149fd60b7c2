//! Does an edit of a file take effect without hurting a request, and does a broken edit leave things as they were?

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lateen_e2e::backend::Backends;
use lateen_e2e::book::Role;
use lateen_e2e::client::{self, Transcript};
use lateen_e2e::lateen;
use lateen_e2e::row::{Cells, Exchange, parse};
use lateen_e2e::wire::latin1;
use tokio::sync::watch;

const SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: quotes}
spec:
  hosts: [quotes.harbour.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints:
  - {address: 127.0.0.1, labels: {version: v1}, ports: {http: V1}}
  - {address: 127.0.0.1, labels: {version: v2}, ports: {http: V2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: quotes}
spec:
  host: quotes.harbour.example
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: quotes}
spec:
  hosts: [quotes.harbour.example]
  http:
  - route:
    - destination: {host: quotes.harbour.example, subset: SUBSET}
";

/// How long an edit may take to be noticed and to take effect.
const PATIENCE: Duration = Duration::from_secs(15);

fn exchanges(request: &str) -> Vec<Exchange> {
    parse(1, Cells { request, ..Cells::default() }).expect("the requests here are well written").exchanges
}

/// Which backend each of the responses names; panics unless all of them are good.
fn backends_of(transcript: &Transcript) -> Vec<String> {
    let body = |response: &Option<client::Response>| {
        let response = response.as_ref().expect("every request is answered");
        assert_eq!(response.status(), 200, "{}", latin1(&response.head.raw));
        let text = latin1(&response.body.bytes);
        text.split("\"backend\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("").to_owned()
    };
    transcript.responses.iter().map(body).collect()
}

/// Asks until the backend is this one.
async fn await_backend(address: SocketAddr, name: &str) {
    let start = Instant::now();
    loop {
        let (transcript, _) =
            client::play(address, &exchanges("`GET quotes.harbour.example/`")).await.expect("the proxy is there");
        if backends_of(&transcript) == [name] {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "requests still do not reach {name}");
    }
}

/// Replaces a file at once, as editors do.
fn write(folder: &Path, text: &str) {
    let staged = folder.join(".routes.yaml.new");
    let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, folder.join("routes.yaml")));
    written.expect("the folder takes files");
}

#[tokio::test]
async fn edits_take_effect_without_hurting_a_request_and_broken_ones_not_at_all() {
    let backends = Backends::start(["v1".to_owned(), "v2".to_owned()]).await.unwrap();
    let (yaml, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = |name: &str| backends.ports()[name].to_string();
    let service = SERVICE.replace("V1", &port("v1")).replace("V2", &port("v2"));
    std::fs::write(yaml.path().join("service.yaml"), service).unwrap();
    write(yaml.path(), &ROUTE.replace("SUBSET", "v1"));
    let mut proxy = lateen::start(yaml.path(), &files.path().join("access.log"), files.path()).await.unwrap();
    let address = proxy.listener(Role::Sidecar, 9080).unwrap();
    await_backend(address, "v1").await;

    // Somebody keeps asking all the while: on connections that stay, and with answers that take their time.
    let (stop, stopped) = watch::channel(false);
    let crowd = tokio::spawn(async move {
        let slow = "`GET quotes.harbour.example/?delay=20ms`";
        let request = [slow; 10].join(" `@then` ");
        let mut count = 0;
        while !*stopped.borrow() {
            let (transcript, _) = client::play(address, &exchanges(&request)).await.unwrap();
            count += backends_of(&transcript).len();
        }
        count
    });

    for subset in ["v2", "v1", "v2"] {
        write(yaml.path(), &ROUTE.replace("SUBSET", subset));
        await_backend(address, subset).await;
    }

    // A field that does not exist, and then a file that is not even YAML.
    write(yaml.path(), &ROUTE.replace("SUBSET", "v1").replace("  hosts:", "  hostz:"));
    let start = Instant::now();
    while !proxy.printed().contains("routes.yaml:5:3") {
        assert!(start.elapsed() < PATIENCE, "no message names the line:\n{}", proxy.printed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    await_backend(address, "v2").await;
    write(yaml.path(), "kind: [");
    let before = proxy.printed().len();
    let start = Instant::now();
    while !proxy.printed()[before..].contains("routes.yaml:1") {
        assert!(start.elapsed() < PATIENCE, "no message names the line:\n{}", proxy.printed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    await_backend(address, "v2").await;

    write(yaml.path(), &ROUTE.replace("SUBSET", "v1"));
    await_backend(address, "v1").await;

    stop.send(true).unwrap();
    let count = crowd.await.unwrap();
    assert!(count > 0);
    proxy.check_alive().unwrap();
}
