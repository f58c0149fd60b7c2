//! Requests and route configurations for tests.

use std::time::{Instant, SystemTime};

use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use serde_json::{Value, json};

use super::route::RouteConfig;
use super::{ClusterNames, Invalid};
use crate::http::head::{Head, HeaderName};
use crate::http::router::select::{Routed, Selection, select};
use crate::http::stream_info::{Address, DownstreamConnection, StreamInfo};

/// A head with `:method: GET`, `:path`, `:authority: a.com`, `:scheme: http` and these header lines.
pub(crate) fn request(path: &str, headers: &[(&str, &str)]) -> Head {
    request_to("a.com", path, headers)
}

/// The same for another host.
pub(crate) fn request_to(host: &str, path: &str, headers: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    head.set_method(b"GET");
    head.set_path(path.as_bytes());
    head.set_authority(host.as_bytes());
    head.set_scheme(b"http");
    append(&mut head, headers);
    head
}

/// A response head.
pub(crate) fn response(status: u16, headers: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    head.set_status(status);
    append(&mut head, headers);
    head
}

fn append(head: &mut Head, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        head.append(&HeaderName::parse(name).unwrap(), value.as_bytes());
    }
}

/// `name: value` of all lines of a head, joined by ` | `.
pub(crate) fn lines(head: &Head) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let lines: Vec<_> = head.fields().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
    lines.join(" | ")
}

/// A connection from 10.0.0.1:1234 to 10.0.0.2:80.
pub(crate) fn connection() -> DownstreamConnection {
    DownstreamConnection {
        id: 7,
        local: Address::from("10.0.0.2:80".parse::<std::net::SocketAddr>().unwrap()),
        remote: Address::from("10.0.0.1:1234".parse::<std::net::SocketAddr>().unwrap()),
        server_name: None,
        tls: false,
    }
}

/// A stream that began in this moment.
pub(crate) fn stream(connection: &DownstreamConnection) -> StreamInfo<'_> {
    StreamInfo::begin(connection, SystemTime::now(), Instant::now())
}

/// A whole route configuration.
pub(crate) fn build(config: Value) -> Result<RouteConfig, Invalid> {
    let message: RouteConfiguration = lateen_xds::json::parse(config).unwrap();
    RouteConfig::build(&message, &[], &mut ClusterNames::default())
}

/// One virtual host for `*` with these routes.
pub(crate) fn routes(routes: Value) -> RouteConfig {
    build(json!({"name": "rc", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]})).unwrap()
}

/// Why one route is refused: path and message.
pub(crate) fn refusal(route: Value) -> (String, String) {
    let config = json!({"name": "rc", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]});
    let invalid = build(config).unwrap_err();
    (invalid.path.strip_prefix("virtual_hosts[0].routes[0].").unwrap_or(&invalid.path).to_owned(), invalid.message)
}

/// The route that a request takes.
pub(crate) fn selected<'v>(config: &'v RouteConfig, request: &Head) -> Routed<'v> {
    match select(config, request, 0) {
        Selection::Route(routed) => routed,
        other => panic!("no route: {other:?}"),
    }
}
