//! Does the harness itself work? Real Envoy with a hand-written bootstrap, without any part of Lateen.

use std::collections::BTreeMap;
use std::path::Path;

use lateen_e2e::access_log::FORMAT;
use lateen_e2e::backend::{Backends, DEAD};
use lateen_e2e::{book, envoy, judge, stage};
use serde_json::{Value, json};

const PAGE: &str = r"
Proxy: gateway, port 80.

The backends are ${port:v1} and ${port:dead}.

```yaml
# mentions ${port:v1}
```

| request | response | backend | log |
|---|---|---|---|
| `GET a/x?y=1` `x-b: 2` | `200` `server: envoy` `has date` | `v1` `GET /x?y=1 HTTP/1.1` `host: a` `x-b: 2` | `- via_upstream` `route_name: all` |
| `GET a/dead` | `503` | `none` | `UF upstream_reset_before_response_started{remote_connection_failure\|delayed_connect_error:_Connection_refused}` |
| `GET a/x?size=70000` `@and` `HEAD a/x?length=5` `@then` `POST a/x` `@chunked 5,7` | `200` `@size 70000` `@and` `200` `content-length: 5` `@then` `200` | `v1` `@and` `v1` `@then` `v1` `@size 12` | `- via_upstream` |
| `raw GET\r\n\r\n` | `400` `@closes` `@body Bad Request` | `none` | `DPE http1.codec_error` |
| `GET a/x` `@times 20` | `200` | `v1 100%` | |
";

fn bootstrap(ports: &BTreeMap<String, u16>, access_log: &Path) -> Value {
    let cluster = |name: &str| {
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": ports[name] } });
        json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
            },
        })
    };
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "books",
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": access_log,
                "log_format": { "text_format_source": { "inline_string": format!("{FORMAT}\n") } },
            },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [
                { "match": { "prefix": "/dead" }, "route": { "cluster": "dead" } },
                { "name": "all", "match": { "prefix": "/" }, "route": { "cluster": "v1" } },
            ],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    json!({
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": {
            "listeners": [{
                "name": "0.0.0.0_80",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
                "filter_chains": [{ "filters": [filter] }],
            }],
            "clusters": [cluster("v1"), cluster(DEAD)],
        },
    })
}

#[tokio::test]
async fn a_page_is_played_and_judged() {
    let Some(binary) = envoy::binary().unwrap() else {
        println!("no Envoy here: skipped");
        return;
    };
    let page = book::parse(Path::new("harness.md"), PAGE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::start(page.backends()).await.unwrap();
    let (file, log) = (folder.path().join("envoy.json"), folder.path().join("access.log"));
    std::fs::write(&file, bootstrap(backends.ports(), &log).to_string()).unwrap();
    let proxy = envoy::start(&binary, &file, &log, folder.path()).await.unwrap();
    let play = stage::play(&page, proxy, backends).await.unwrap();
    let complaints: Vec<_> =
        page.rows.iter().zip(&play.rows).flat_map(|(row, play)| judge::against_page(row, play)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));

    // Every expectation of the page must be able to fail: turned round, each row is complained about.
    let turned = PAGE
        .replace("| `200`", "| `201`")
        .replace("| `503`", "| `504`")
        .replace("`DPE http1.codec_error`", "`DPE http1.other`");
    let page = book::parse(Path::new("harness.md"), &turned).unwrap();
    for (row, play) in page.rows.iter().zip(&play.rows) {
        assert!(!judge::against_page(row, play).is_empty(), "{}", row.text);
    }
}
