//! Which program is this, in which state, and how was it started? `/server_info`.

use lateen_telemetry::admin::{Answer, Request};
use serde_json::{Value, json};

use super::{Source, json, unwritable};

/// There is no hot restart; Envoy says so too when it was started without.
pub(super) const HOT_RESTART_VERSION: &str = "disabled";

/// `<program>/<version>/<state of the source>/<build>/<TLS library>`, the five parts of Envoy's.
const VERSION: &str = if cfg!(debug_assertions) {
    concat!("lateen/", env!("CARGO_PKG_VERSION"), "/Clean/DEBUG/none")
} else {
    concat!("lateen/", env!("CARGO_PKG_VERSION"), "/Clean/RELEASE/none")
};

pub(super) fn answer(source: &Source, _: &Request) -> Answer {
    let bootstrap = source.bootstrap();
    let node = bootstrap.node.unwrap_or_default();
    let (service_cluster, service_node) = (node.cluster.clone(), node.id.clone());
    let mut node = match lateen_xds::json::render(&node) {
        Ok(node) => node,
        Err(error) => return unwritable(&error),
    };
    if let Value::Object(node) = &mut node {
        for (member, default) in [("id", ""), ("cluster", "")] {
            node.entry(member).or_insert_with(|| default.into());
        }
    }
    let uptime = format!("{}s", source.started().elapsed().as_secs());
    Answer::json(json::pretty(&json!({
        "version": VERSION,
        "state": source.state().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": HOT_RESTART_VERSION,
        "hot_restart_initializing": false,
        "command_line_options": {
            "concurrency": source.stats().workers(),
            "disable_hot_restart": true,
            "mode": "Serve",
            "restart_epoch": 0,
            "service_cluster": service_cluster,
            "service_node": service_node,
        },
        "node": node,
    })))
}

/// `server.version`: a number that grows with releases.
pub(super) fn version_number() -> u64 {
    env!("CARGO_PKG_VERSION").split('.').fold(0, |number, part| number * 1000 + part.parse().unwrap_or(0))
}
