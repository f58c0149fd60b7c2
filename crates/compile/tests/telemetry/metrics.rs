//! What does Istio's build of Envoy count, and what does it tell of workloads?

use lateen_compile::{Capability, Scope, World, compile};
use lateen_xds::any::unpack;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_filter,
};
use lateen_xds::udpa::r#type::v1::TypedStruct;

use super::*;

/// The configurations of `istio.stats` among the HTTP filters of a connection manager.
fn stats(manager: &HttpConnectionManager) -> Vec<prost_types::Struct> {
    istio_filter(manager, "istio.stats")
}

fn istio_filter(manager: &HttpConnectionManager, name: &str) -> Vec<prost_types::Struct> {
    let filters = manager.http_filters.iter().filter(|filter| filter.name == name);
    filters
        .map(|filter| match filter.config_type.as_ref().unwrap() {
            http_filter::ConfigType::TypedConfig(config) => unpack::<TypedStruct>(config).unwrap().value.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// What Istio's build of Envoy gets: outbound, inbound, gateway.
fn istio_managers(world: &World) -> [HttpConnectionManager; 3] {
    let mut sidecar = sidecar_of_shop();
    sidecar.capability = Capability::IstioProxy;
    let mut gateway = Scope::gateway("istio-system");
    gateway.capability = Capability::IstioProxy;
    let (sidecar, gateway) = (compile(world, &sidecar), compile(world, &gateway));
    [
        managers(listener(&sidecar, "0.0.0.0_80")).remove(0),
        managers(listener(&sidecar, "virtualInbound")).remove(0),
        managers(listener(&gateway, "0.0.0.0_80")).remove(0),
    ]
}

fn json(fields: &prost_types::Struct) -> serde_json::Value {
    fn of(value: &prost_types::Value) -> serde_json::Value {
        use prost_types::value::Kind;
        match value.kind.as_ref().unwrap() {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::NumberValue(number) => (*number).into(),
            Kind::StringValue(text) => text.clone().into(),
            Kind::BoolValue(flag) => (*flag).into(),
            Kind::StructValue(fields) => json(fields),
            Kind::ListValue(list) => list.values.iter().map(of).collect(),
        }
    }
    serde_json::Value::Object(fields.fields.iter().map(|(key, field)| (key.clone(), of(field))).collect())
}

#[test]
fn metrics_are_counted_as_telemetry_says() {
    let of = |spec: &str| {
        let telemetries = if spec.is_empty() {
            vec![]
        } else {
            vec![telemetry("t", "istio-system", &format!("{{metrics: {spec}}}"))]
        };
        let world = shop_world("", &telemetries);
        istio_managers(&world).map(|manager| stats(&manager).iter().map(json).collect::<Vec<_>>())
    };
    let own = serde_json::json!({});
    let no_hosts = serde_json::json!({"disable_host_header_fallback": true});
    assert_eq!(of(""), [vec![own.clone()], vec![no_hosts.clone()], vec![no_hosts.clone()]]);
    assert_eq!(
        of("[{overrides: [{disabled: true}]}]"),
        [const { Vec::<serde_json::Value>::new() }; 3],
        "without metrics there is no filter"
    );
    let [outbound, inbound, _] = of("[{overrides: [{match: {mode: CLIENT}, disabled: true}]}]");
    assert_eq!((outbound, inbound), (vec![], vec![no_hosts.clone()]));
    assert_eq!(
        of("[{providers: [{name: envoy}]}]"),
        [const { Vec::<serde_json::Value>::new() }; 3],
        "a log takes no metrics"
    );
    let [outbound, inbound, _] = of(
        "[{reportingInterval: 10s, overrides: [{match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {b: {value: request.host}, a: {operation: REMOVE}}}, {match: {metric: TCP_SENT_BYTES}, disabled: true}, {match: {customMetric: mine}, disabled: false}]}]",
    );
    assert_eq!(
        outbound,
        [serde_json::json!({
            "tcp_reporting_duration": "10s",
            "metrics": [
                {"name": "requests_total", "dimensions": {"b": "request.host"}, "tags_to_remove": ["a"]},
                {"name": "tcp_sent_bytes_total", "drop": true},
                {"name": "mine"},
            ],
        })]
    );
    assert_eq!(
        inbound[0]["metrics"],
        serde_json::json!([{"name": "tcp_sent_bytes_total", "drop": true}, {"name": "mine"}])
    );
    let [outbound, ..] = of("[{overrides: [{tagOverrides: {a: {operation: REMOVE}}}]}]");
    assert_eq!(outbound[0]["metrics"].as_array().unwrap().len(), 10, "all of Istio's own are meant");
}

#[test]
fn labels_of_workloads_may_be_kept_inside_of_the_mesh() {
    let world = shop_world("defaultConfig: {proxyHeaders: {metadataExchangeHeaders: {mode: IN_MESH}}}", &[]);
    let [outbound, inbound, gateway] = istio_managers(&world);
    for manager in [outbound, gateway] {
        let config = json(&istio_filter(&manager, "istio.metadata_exchange")[0]);
        assert_eq!(
            config["upstream_propagation"],
            serde_json::json!([{"istio_headers": {"skip_external_clusters": true}}])
        );
    }
    let config = json(&istio_filter(&inbound, "istio.metadata_exchange")[0]);
    assert_eq!(config["downstream_propagation"], serde_json::json!([{"istio_headers": {}}]));
}
