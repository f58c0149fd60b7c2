//! What is traced, and where do traces go?

use lateen_compile::{Capability, World, compile};
use lateen_xds::any::unpack;
use lateen_xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, tracing::http};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use lateen_xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use lateen_xds::envoy::r#type::tracing::v3::custom_tag;

use super::*;

fn tracing_of(manager: &HttpConnectionManager) -> &hcm::Tracing {
    manager.tracing.as_ref().unwrap()
}

fn traced_with(spec: &str) -> World {
    shop_world(PROVIDERS, &[telemetry("t", "istio-system", &format!("{{tracing: [{spec}]}}"))])
}

fn tracer<M: prost::Name + Default>(tracing: &hcm::Tracing) -> M {
    let Some(http::ConfigType::TypedConfig(config)) = &tracing.provider.as_ref().unwrap().config_type else {
        panic!("no configuration")
    };
    unpack(config).unwrap()
}

#[test]
fn nothing_is_traced_without_a_provider() {
    for world in [
        shop_world("enableTracing: true\ndefaultConfig: {tracing: {sampling: 10}}", &[]),
        traced_with("{randomSamplingPercentage: 100}"),
        traced_with("{providers: [{name: zip}], disableSpanReporting: true}"),
        traced_with("{providers: [{name: nobody}]}"),
        traced_with("{providers: [{name: plain}]}"),
    ] {
        assert!(three(&world).iter().all(|manager| manager.tracing.is_none()));
    }
}

#[test]
fn a_telemetry_says_what_is_traced() {
    let world = traced_with(
        "{providers: [{name: zip}], randomSamplingPercentage: 25, customTags: {b: {literal: {value: v}}, a: {header: {name: x-a, defaultValue: none}}, c: {environment: {name: HOME}}}}",
    );
    let managers = three(&world);
    for manager in &managers {
        let tracing = tracing_of(manager);
        assert_eq!(tracing.random_sampling.as_ref().unwrap().value, 25.0);
        assert_eq!(tracing.client_sampling.as_ref().unwrap().value, 100.0);
        assert_eq!(tracing.max_path_tag_length, Some(64));
    }
    assert_eq!(tracing_of(&managers[0]).spawn_upstream_span, None);
    assert_eq!(tracing_of(&managers[2]).spawn_upstream_span, Some(true), "gateways have spans of their own");
    let zipkin: ZipkinConfig = tracer(tracing_of(&managers[0]));
    assert_eq!(zipkin.collector_cluster, "outbound|9411||collector.observability.svc.cluster.local");
    assert_eq!(zipkin.collector_endpoint, "/api/v2/spans");
    assert!(zipkin.trace_id_128bit && zipkin.shared_span_context == Some(false));
    let tags: Vec<(&str, &custom_tag::Type)> = tracing_of(&managers[0])
        .custom_tags
        .iter()
        .map(|tag| (tag.tag.as_str(), tag.r#type.as_ref().unwrap()))
        .collect();
    let names: Vec<&str> = tags.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "a",
            "b",
            "c",
            "istio.canonical_revision",
            "istio.canonical_service",
            "istio.cluster_id",
            "istio.mesh_id",
            "istio.namespace"
        ]
    );
    let literal = |value: &str| custom_tag::Type::Literal(custom_tag::Literal { value: value.to_owned() });
    assert_eq!((tags[3].1, tags[4].1, tags[7].1), (&literal("v1"), &literal("shop"), &literal("default")));
    assert!(matches!(tags[0].1, custom_tag::Type::RequestHeader(header) if header.default_value == "none"));
}

#[test]
fn tracing_is_merged_from_the_mesh_inwards() {
    let mesh = format!(
        "{PROVIDERS}\ndefaultProviders: {{tracing: [otel]}}\ndefaultConfig: {{tracing: {{sampling: 5, maxPathTagLength: 99, customTags: {{m: {{literal: {{value: m}}}}}}}}}}"
    );
    let [outbound, inbound, _] = three(&shop_world(&mesh, &[]));
    let tracing = tracing_of(&outbound);
    assert_eq!(tracing.random_sampling.as_ref().unwrap().value, 5.0);
    assert_eq!(tracing.max_path_tag_length, Some(99));
    assert!(tracing.custom_tags.iter().any(|tag| tag.tag == "m"));
    let otel: OpenTelemetryConfig = tracer(tracing);
    assert_eq!(
        (grpc_cluster(otel.grpc_service.as_ref()).as_str(), otel.service_name.as_str()),
        (COLLECTOR, "shop.default")
    );
    assert_eq!(otel.resource_detectors[0].name, "envoy.tracers.opentelemetry.resource_detectors.environment");
    assert!(inbound.tracing.is_some());
    let own = "{tracing: [{match: {mode: SERVER}, disableSpanReporting: true}, {match: {mode: CLIENT}, randomSamplingPercentage: 0, enableIstioTags: false, disableContextPropagation: true, useRequestIdForTraceSampling: false}]}";
    let [outbound, inbound, _] = three(&shop_world(&mesh, &[telemetry("own", "default", own)]));
    assert_eq!(inbound.tracing, None);
    let tracing = tracing_of(&outbound);
    assert_eq!(tracing.random_sampling.as_ref().unwrap().value, 0.0);
    assert!(tracing.no_context_propagation);
    assert_eq!(tracing.custom_tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), ["m"]);
    let extension = outbound.request_id_extension.unwrap().typed_config.unwrap();
    let config: UuidRequestIdConfig = unpack(&extension).unwrap();
    assert_eq!(config.use_request_id_for_trace_sampling, Some(false));
    assert_eq!(inbound.request_id_extension, None);
}

#[test]
fn tracers_may_be_spoken_to_in_http() {
    let [outbound, ..] = three(&traced_with("{providers: [{name: otel-http}]}"));
    let otel: OpenTelemetryConfig = tracer(tracing_of(&outbound));
    let uri = otel.http_service.unwrap().http_uri.unwrap();
    assert_eq!(uri.uri, "http://collector.observability.svc.cluster.local/v1/traces");
    assert_eq!(uri.timeout.unwrap().seconds, 3);
    let [outbound, ..] = three(&traced_with("{providers: [{name: zip-http}]}"));
    let zipkin: ZipkinConfig = tracer(tracing_of(&outbound));
    assert!(!zipkin.trace_id_128bit && zipkin.collector_cluster.is_empty());
    let service = zipkin.collector_service.unwrap();
    assert_eq!(service.http_uri.unwrap().uri, "http://collector.observability.svc.cluster.local/spans");
    assert_eq!(service.request_headers_to_add.len(), 1);
}

#[test]
fn the_tracer_of_the_mesh_has_a_cluster_where_it_is_not_there_from_the_start() {
    let mesh = "defaultConfig: {tracing: {zipkin: {address: 'zipkin.istio-system:9411'}}}";
    let world = shop_world(mesh, &[]);
    let [outbound, ..] = three(&world);
    let zipkin: ZipkinConfig = tracer(tracing_of(&outbound));
    assert_eq!(
        (zipkin.collector_cluster.as_str(), zipkin.collector_hostname.as_str()),
        ("zipkin", "zipkin.istio-system")
    );
    assert_eq!(tracing_of(&outbound).random_sampling.as_ref().unwrap().value, 1.0);
    let mut scope = sidecar_of_shop();
    assert!(compile(&world, &scope).clusters.contains_key("zipkin"));
    scope.capability = Capability::IstioProxy;
    let set = compile(&world, &scope);
    assert!(!set.clusters.contains_key("zipkin"));
    let manager = managers(listener(&set, "0.0.0.0_80")).remove(0);
    assert_eq!(tracing_of(&manager).provider, None, "it was told when it started");
    let [outbound, ..] = three(&shop_world(&format!("enableTracing: false\n{mesh}"), &[]));
    assert_eq!(outbound.tracing, None);
}
