//! On which addresses does the proxy listen? `/listeners`.

use lateen_telemetry::admin::{Answer, Request};
use lateen_xds::envoy::admin::v3::{ListenerStatus, Listeners};

use super::clusters::address;
use super::{Source, is_json, json, unwritable};

pub(super) fn answer(source: &Source, request: &Request) -> Answer {
    let listeners = source.listeners();
    if !is_json(request) {
        return Answer::text(
            listeners.iter().map(|(name, address)| format!("{name}::{address}\n")).collect::<String>(),
        );
    }
    let statuses = listeners.iter().map(|(name, bound)| ListenerStatus {
        name: name.to_string(),
        local_address: Some(address(*bound)),
        ..ListenerStatus::default()
    });
    match lateen_xds::json::render(&Listeners { listener_statuses: statuses.collect() }) {
        Ok(value) => Answer::json(json::pretty(&value)),
        Err(error) => unwritable(&error),
    }
}
