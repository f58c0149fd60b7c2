//! What do Telemetry objects, and the mesh's settings for proxies, change in connection managers, TCP proxies and
//! listeners?
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{Capability, Interception, Mesh, Scope, World, compile};
use lateen_config::SourceFile;
use lateen_xds::any;
use lateen_xds::envoy::config::accesslog::v3::{AccessLog, access_log, access_log_filter, extension_filter};
use lateen_xds::envoy::config::core::v3::{data_source, grpc_service, substitution_format_string};
use lateen_xds::envoy::config::listener::v3::{Listener, filter};
use lateen_xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, tracing::http};
use lateen_xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use lateen_xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use lateen_xds::envoy::extensions::access_loggers::grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig};
use lateen_xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager as hcm, http_filter,
};
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use lateen_xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use lateen_xds::envoy::r#type::tracing::v3::custom_tag;
use lateen_xds::udpa::r#type::v1::TypedStruct;
use lateen_xds::{XdsSet, any::unpack};
use mesh::*;

/// Settings of the mesh from their YAML.
fn settings(yaml: &str) -> Mesh {
    let (config, problems) = lateen_config::parse_mesh(&SourceFile::new("mesh.yaml", yaml));
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:#?}");
    Mesh::from_config(&config.unwrap())
}

fn telemetry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A gateway, and a service of HTTP and one of bytes, for clients and for a workload `app: shop` of namespace `default`.
fn shop() -> String {
    "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: observability}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 4317}, {name: http, port: 9411}]}
"
    .to_owned()
}

/// The mesh has a provider of each kind.
const PROVIDERS: &str = "
accessLogFile: /dev/stderr
extensionProviders:
- {name: plain, envoyFileAccessLog: {path: /dev/plain}}
- {name: own-text, envoyFileAccessLog: {path: /dev/text, logFormat: {text: '%REQ_WITHOUT_QUERY(:PATH)%'}, omitEmptyValues: true}}
- {name: labels, envoyFileAccessLog: {logFormat: {labels: {status: '%RESPONSE_CODE%'}}}}
- {name: http-als, envoyHttpAls: {service: collector.observability.svc.cluster.local, port: 4317, additionalRequestHeadersToLog: [x-a]}}
- {name: tcp-als, envoyTcpAls: {service: observability/collector.observability.svc.cluster.local, port: 4317, logName: mine}}
- {name: otel-als, envoyOtelAls: {service: collector.observability.svc.cluster.local, port: 4317, logFormat: {labels: {b: '2', a: '%PROTOCOL%'}}}}
- {name: nowhere, envoyHttpAls: {service: missing.example.com, port: 4317}}
- {name: zip, zipkin: {service: collector.observability.svc.cluster.local, port: 9411, maxTagLength: 64}}
- {name: zip-http, zipkin: {service: collector.observability.svc.cluster.local, port: 9411, enable64bitTraceId: true, path: /spans, timeout: 2s, headers: [{name: x-key, value: v}]}}
- {name: otel, opentelemetry: {service: collector.observability.svc.cluster.local, port: 4317, resourceDetectors: {environment: {}}}}
- {name: otel-http, opentelemetry: {service: collector.observability.svc.cluster.local, port: 9411, http: {path: /v1/traces}}}
";

fn shop_world(mesh: &str, telemetries: &[String]) -> World {
    world_with(&(shop() + &telemetries.concat()), settings(mesh))
}

fn sidecar_of_shop() -> Scope {
    let mut scope = sidecar_scope("default", &[("app", "shop"), ("version", "v1")]);
    scope.interception = Interception::Redirect;
    scope
}

fn listener<'a>(set: &'a XdsSet, name: &str) -> &'a Listener {
    let known: Vec<_> = set.listeners.keys().collect();
    &set.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} among {known:?}")).message
}

fn managers(listener: &Listener) -> Vec<HttpConnectionManager> {
    filters_of(listener)
}

fn filters_of<M: prost::Name + Default>(listener: &Listener) -> Vec<M> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match filter.config_type.as_ref()? {
            filter::ConfigType::TypedConfig(config) if any::is::<M>(config) => Some(unpack(config).unwrap()),
            _ => None,
        })
        .collect()
}

/// The connection manager for what a workload sends, for what it gets, and of a gateway.
fn three(world: &World) -> [HttpConnectionManager; 3] {
    let sidecar = compile(world, &sidecar_of_shop());
    let gateway = compile(world, &Scope::gateway("istio-system"));
    [
        managers(listener(&sidecar, "0.0.0.0_80")).remove(0),
        managers(listener(&sidecar, "virtualInbound"))
            .into_iter()
            .find(|manager| manager.stat_prefix == "inbound_0.0.0.0_8080;")
            .unwrap(),
        managers(listener(&gateway, "0.0.0.0_80")).remove(0),
    ]
}

fn typed_config(log: &AccessLog) -> &prost_types::Any {
    let Some(access_log::ConfigType::TypedConfig(config)) = &log.config_type else { panic!("no configuration") };
    config
}

fn file(log: &AccessLog) -> FileAccessLog {
    unpack(typed_config(log)).unwrap()
}

/// Paths of file loggers, names of others.
fn targets(logs: &[AccessLog]) -> Vec<String> {
    let name = |log: &AccessLog| match unpack::<FileAccessLog>(typed_config(log)) {
        Ok(file) => file.path,
        Err(_) => log.name.clone(),
    };
    logs.iter().map(name).collect()
}

/// No logs anywhere.
fn nowhere() -> [Vec<String>; 3] {
    [Vec::new(), Vec::new(), Vec::new()]
}

/// Where the access logs of the three connection managers go.
fn three_targets(world: &World) -> [Vec<String>; 3] {
    three(world).map(|manager| targets(&manager.access_log))
}

fn log_of(world: &World) -> AccessLog {
    let [mut outbound, ..] = three(world);
    assert_eq!(outbound.access_log.len(), 1);
    outbound.access_log.remove(0)
}

fn access_logging(spec: &str) -> String {
    format!("{{accessLogging: {spec}}}")
}

fn all(target: &str) -> [Vec<String>; 3] {
    [(); 3].map(|()| vec![target.to_owned()])
}

#[test]
fn without_telemetry_the_mesh_says_where_access_logs_go() {
    assert_eq!(three_targets(&shop_world(PROVIDERS, &[])), all("/dev/stderr"));
    let defaults = format!("{PROVIDERS}\ndefaultProviders: {{accessLogging: [labels, envoy]}}");
    let both = vec!["/dev/stdout".to_owned(), "/dev/stdout".to_owned()];
    assert_eq!(three_targets(&shop_world(&defaults, &[])), [both.clone(), both.clone(), both]);
}

#[test]
fn a_telemetry_takes_the_place_of_the_meshs_file() {
    let of = |namespace: &str, spec: &str| shop_world(PROVIDERS, &[telemetry("t", namespace, &access_logging(spec))]);
    assert_eq!(three_targets(&of("istio-system", "[{providers: [{name: plain}]}]")), all("/dev/plain"));
    // The gateway is in another namespace.
    let [outbound, inbound, gateway] = three_targets(&of("default", "[{providers: [{name: plain}]}]"));
    assert_eq!((outbound, inbound), (vec!["/dev/plain".to_owned()], vec!["/dev/plain".to_owned()]));
    assert_eq!(gateway, ["/dev/stderr"]);
    assert_eq!(three_targets(&of("elsewhere", "[{providers: [{name: plain}]}]")), all("/dev/stderr"));
    // The name counts in any case.
    assert_eq!(three_targets(&of("istio-system", "[{providers: [{name: PLAIN}]}]")), all("/dev/plain"));
}

#[test]
fn a_mode_is_a_side_of_connections() {
    let spec = access_logging("[{match: {mode: SERVER}, providers: [{name: plain}]}]");
    let [outbound, inbound, gateway] = three_targets(&shop_world(PROVIDERS, &[telemetry("t", "istio-system", &spec)]));
    assert_eq!(inbound, ["/dev/plain"]);
    assert_eq!((outbound, gateway), (vec!["/dev/stderr".to_owned()], vec!["/dev/stderr".to_owned()]));
}

#[test]
fn nearer_objects_override_wider_ones() {
    let root = telemetry("root", "istio-system", &access_logging("[{providers: [{name: plain}]}]"));
    let namespace = telemetry("all", "default", &access_logging("[{disabled: true}]"));
    let world = shop_world(PROVIDERS, &[root.clone(), namespace.clone()]);
    let [outbound, inbound, gateway] = three_targets(&world);
    assert_eq!((outbound, inbound), (vec![], vec![]), "turned off is not the same as not configured");
    assert_eq!(gateway, ["/dev/plain"]);
    let spec = "{selector: {matchLabels: {app: shop}}, accessLogging: [{providers: [{name: own-text}]}]}";
    let workload = telemetry("workload", "default", spec);
    let world = shop_world(PROVIDERS, &[root.clone(), namespace, workload]);
    let [outbound, ..] = three_targets(&world);
    assert_eq!(outbound, ["/dev/text"], "the providers of wider objects do not count any more");
    let spec = "{selector: {matchLabels: {app: other}}, accessLogging: [{disabled: true}]}";
    let world = shop_world(PROVIDERS, &[root.clone(), telemetry("other", "default", spec)]);
    assert_eq!(three_targets(&world), all("/dev/plain"));
    // Of the root namespace, objects for chosen workloads are for its own workloads alone.
    let spec = "{selector: {matchLabels: {app: shop}}, accessLogging: [{disabled: true}]}";
    let mut gateway = Scope::gateway("istio-system");
    gateway.labels = Some([("app".to_owned(), "shop".to_owned())].into());
    let world = shop_world(PROVIDERS, &[root, telemetry("own", "istio-system", spec)]);
    assert_eq!(targets(&managers(listener(&compile(&world, &gateway), "0.0.0.0_80"))[0].access_log), [""; 0]);
    assert_eq!(three_targets(&world)[0], ["/dev/plain"]);
}

#[test]
fn of_two_objects_for_a_namespace_the_oldest_counts() {
    let dated = |name: &str, provider: &str, date: &str| {
        telemetry(name, "istio-system", &access_logging(&format!("[{{providers: [{{name: {provider}}}]}}]")))
            .replace("namespace: istio-system}", &format!("namespace: istio-system, creationTimestamp: '{date}'}}"))
    };
    let newer = dated("a", "own-text", "2026-02-01T00:00:00Z");
    let older = dated("b", "plain", "2026-01-01T00:00:00Z");
    assert_eq!(three_targets(&shop_world(PROVIDERS, &[newer, older])), all("/dev/plain"));
}

#[test]
fn an_entry_without_providers_speaks_of_the_inherited_ones() {
    let root = telemetry("root", "istio-system", &access_logging("[{providers: [{name: plain}, {name: own-text}]}]"));
    let own = telemetry("own", "default", &access_logging("[{filter: {expression: 'response.code >= 400'}}]"));
    let [outbound, _, gateway] = three(&shop_world(PROVIDERS, &[root, own]));
    assert_eq!(targets(&outbound.access_log), ["/dev/text", "/dev/plain"]);
    assert_eq!(
        outbound.access_log.iter().map(expression).collect::<Vec<_>>(),
        [Some("response.code >= 400".to_owned()), Some("response.code >= 400".to_owned())]
    );
    assert_eq!(gateway.access_log.iter().map(expression).collect::<Vec<_>>(), [None, None]);
}

fn expression(log: &AccessLog) -> Option<String> {
    let specifier = log.filter.as_ref()?.filter_specifier.as_ref().unwrap();
    let access_log_filter::FilterSpecifier::ExtensionFilter(filter) = specifier else { panic!("{specifier:?}") };
    assert_eq!(filter.name, "envoy.access_loggers.extension_filters.cel");
    let Some(extension_filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!("nothing") };
    Some(unpack::<ExpressionFilter>(config).unwrap().expression)
}

fn logged_with(provider: &str, mesh: &str) -> AccessLog {
    let spec = access_logging(&format!("[{{providers: [{{name: {provider}}}]}}]"));
    log_of(&shop_world(mesh, &[telemetry("t", "istio-system", &spec)]))
}

fn text_of(file: &FileAccessLog) -> String {
    let Some(file_access_log::AccessLogFormat::LogFormat(format)) = &file.access_log_format else { panic!("{file:?}") };
    match format.format.as_ref().unwrap() {
        substitution_format_string::Format::TextFormatSource(source) => match source.specifier.as_ref().unwrap() {
            data_source::Specifier::InlineString(text) => text.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_written_in_the_format_of_their_provider() {
    let plain = file(&logged_with("plain", PROVIDERS));
    assert_eq!(text_of(&plain), lateen_compile::DEFAULT_TEXT_FORMAT);
    let own = file(&logged_with("own-text", PROVIDERS));
    assert_eq!(text_of(&own), "%REQ_WITHOUT_QUERY(:PATH)%\n");
    let Some(file_access_log::AccessLogFormat::LogFormat(format)) = &own.access_log_format else { panic!() };
    assert!(format.omit_empty_values);
    assert_eq!(format.formatters[0].name, "envoy.formatter.req_without_query");
    let labels = file(&logged_with("labels", PROVIDERS));
    assert_eq!(labels.path, "/dev/stdout");
    let Some(file_access_log::AccessLogFormat::LogFormat(format)) = &labels.access_log_format else { panic!() };
    let Some(substitution_format_string::Format::JsonFormat(fields)) = &format.format else { panic!() };
    assert_eq!(fields.fields.keys().collect::<Vec<_>>(), ["status"]);
}

#[test]
fn the_built_in_provider_writes_the_line_of_the_mesh_to_standard_output() {
    let mesh = "accessLogFormat: '%RESPONSE_CODE%'";
    let log = file(&logged_with("envoy", mesh));
    assert_eq!((log.path.as_str(), text_of(&log)), ("/dev/stdout", "%RESPONSE_CODE%\n".to_owned()));
    // A mesh may describe it in its own way.
    let mesh = format!("{mesh}\nextensionProviders: [{{name: envoy, envoyFileAccessLog: {{path: /dev/own}}}}]");
    let log = file(&logged_with("envoy", &mesh));
    assert_eq!((log.path.as_str(), text_of(&log)), ("/dev/own", "%RESPONSE_CODE%\n".to_owned()));
}

const COLLECTOR: &str = "outbound|4317||collector.observability.svc.cluster.local";

fn grpc_cluster(service: Option<&lateen_xds::envoy::config::core::v3::GrpcService>) -> String {
    match service.unwrap().target_specifier.as_ref().unwrap() {
        grpc_service::TargetSpecifier::EnvoyGrpc(envoy) => envoy.cluster_name.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn logs_go_to_the_cluster_of_a_providers_service() {
    let log = logged_with("http-als", PROVIDERS);
    let config: HttpGrpcAccessLogConfig = unpack(typed_config(&log)).unwrap();
    let common = config.common_config.unwrap();
    assert_eq!(
        (log.name.as_str(), common.log_name.as_str()),
        ("envoy.access_loggers.http_grpc", "http_envoy_accesslog")
    );
    assert_eq!(grpc_cluster(common.grpc_service.as_ref()), COLLECTOR);
    assert_eq!(common.filter_state_objects_to_log, ["upstream_peer", "downstream_peer"]);
    assert_eq!(config.additional_request_headers_to_log, ["x-a"]);

    let log = logged_with("tcp-als", PROVIDERS);
    let common = unpack::<TcpGrpcAccessLogConfig>(typed_config(&log)).unwrap().common_config.unwrap();
    assert_eq!((common.log_name.as_str(), grpc_cluster(common.grpc_service.as_ref()).as_str()), ("mine", COLLECTOR));

    let log = logged_with("otel-als", PROVIDERS);
    let config: OpenTelemetryAccessLogConfig = unpack(typed_config(&log)).unwrap();
    assert_eq!(grpc_cluster(config.common_config.unwrap().grpc_service.as_ref()), COLLECTOR);
    let keys: Vec<String> = config.attributes.unwrap().values.into_iter().map(|label| label.key).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn a_provider_that_cannot_be_reached_leaves_the_meshs_own_log() {
    assert_eq!(targets(&[logged_with("nowhere", PROVIDERS)]), ["/dev/stderr"]);
    assert_eq!(targets(&[logged_with("prometheus", PROVIDERS)]), ["/dev/stderr"]);
}

#[test]
fn bytes_and_refused_connections_are_logged_alike() {
    let spec = access_logging(
        "[{match: {mode: CLIENT}, providers: [{name: plain}], filter: {expression: 'true'}}, {match: {mode: SERVER}, providers: [{name: own-text}]}]",
    );
    let set = compile(&shop_world(PROVIDERS, &[telemetry("t", "istio-system", &spec)]), &sidecar_of_shop());
    let bytes = listener(&set, "10.0.0.1_90");
    assert_eq!(targets(&filters_of::<TcpProxy>(bytes)[0].access_log), ["/dev/plain"]);
    assert_eq!(targets(&bytes.access_log), ["/dev/plain"]);
    let access_log_filter::FilterSpecifier::AndFilter(both) =
        bytes.access_log[0].filter.as_ref().unwrap().filter_specifier.as_ref().unwrap()
    else {
        panic!("one condition")
    };
    assert!(matches!(
        both.filters[0].filter_specifier,
        Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(_))
    ));
    let inbound = listener(&set, "virtualInbound");
    assert_eq!(targets(&inbound.access_log), ["/dev/text"]);
    for proxy in filters_of::<TcpProxy>(inbound) {
        assert_eq!(targets(&proxy.access_log), ["/dev/text"], "{}", proxy.stat_prefix);
    }
}

#[test]
fn the_command_line_has_the_last_word_on_the_access_log() {
    let spec = access_logging("[{providers: [{name: plain}]}]");
    let of = |file: Option<&str>| {
        let mut mesh = settings(PROVIDERS);
        mesh.override_access_log(file);
        three_targets(&world_with(&(shop() + &telemetry("t", "istio-system", &spec)), mesh))
    };
    assert_eq!(of(Some("/dev/mine")), all("/dev/mine"));
    assert_eq!(of(None), nowhere());
}

#[test]
fn the_access_log_service_of_the_mesh_has_a_cluster_where_it_is_not_there_from_the_start() {
    let mesh = "enableEnvoyAccessLogService: true\ndefaultConfig: {envoyAccessLogService: {address: 'als:9000'}}";
    let world = shop_world(mesh, &[]);
    let [outbound, ..] = three(&world);
    assert_eq!(targets(&outbound.access_log), ["envoy.access_loggers.http_grpc"]);
    let mut scope = sidecar_of_shop();
    let set = compile(&world, &scope);
    assert_eq!(
        targets(&filters_of::<TcpProxy>(listener(&set, "10.0.0.1_90"))[0].access_log),
        ["envoy.tcp_grpc_access_log"]
    );
    assert!(set.clusters.contains_key("envoy_accesslog_service"));
    scope.capability = Capability::IstioProxy;
    assert!(!compile(&world, &scope).clusters.contains_key("envoy_accesslog_service"));
    // Without an address there is nobody to send it to.
    let world = shop_world("enableEnvoyAccessLogService: true", &[]);
    assert_eq!(three_targets(&world), nowhere());
    assert_eq!(world.diagnostics().len(), 1);
}

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

#[test]
fn headers_of_proxies_are_the_meshs_choice() {
    let mesh = "
defaultConfig:
  proxyHeaders:
    forwardedClientCert: SANITIZE_SET
    setCurrentClientCertDetails: {subject: false, cert: true}
    requestId: {disabled: true}
    server: {value: shop}
    attemptCount: {disabled: true}
    envoyDebugHeaders: {disabled: true}
    preserveHttp1HeaderCase: true
    xForwardedPort: {enabled: true}
";
    let world = shop_world(mesh, &[]);
    let [outbound, inbound, gateway] = three(&world);
    for manager in [&outbound, &inbound, &gateway] {
        assert_eq!(manager.generate_request_id, Some(false));
        assert_eq!(manager.server_name, "shop");
        assert!(manager.append_x_forwarded_port);
        assert!(manager.http_protocol_options.as_ref().unwrap().header_key_format.is_some());
        let router = manager.http_filters.last().unwrap();
        let Some(http_filter::ConfigType::TypedConfig(config)) = &router.config_type else { panic!("no router") };
        assert!(unpack::<Router>(config).unwrap().suppress_envoy_headers);
    }
    let details = inbound.set_current_client_cert_details.unwrap();
    assert_eq!((details.subject, details.cert, details.dns, details.uri), (Some(false), true, true, true));
    assert_eq!(inbound.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::SanitizeSet));
    assert_eq!(
        gateway.set_current_client_cert_details.unwrap().subject,
        Some(true),
        "gateways have their own settings"
    );
    for scope in [sidecar_of_shop(), Scope::gateway("istio-system")] {
        let set = compile(&world, &scope);
        for routes in set.routes.values() {
            assert!(routes.message.virtual_hosts.iter().all(|host| !host.include_request_attempt_count));
        }
    }
}

#[test]
fn the_servers_own_name_may_be_left_alone() {
    let [outbound, inbound, gateway] =
        three(&shop_world("defaultConfig: {proxyHeaders: {server: {disabled: true}}}", &[]));
    for manager in [outbound, inbound, gateway] {
        assert_eq!(manager.server_name, "");
        assert_eq!(manager.server_header_transformation, i32::from(hcm::ServerHeaderTransformation::PassThrough));
    }
}

#[test]
fn what_stands_in_front_of_gateways_changes_gateways_alone() {
    let mesh = "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: ALWAYS_FORWARD_ONLY, proxyProtocol: {}}}";
    let world = shop_world(mesh, &[]);
    let [outbound, inbound, gateway] = three(&world);
    assert_eq!((outbound.xff_num_trusted_hops, inbound.xff_num_trusted_hops, gateway.xff_num_trusted_hops), (0, 0, 2));
    assert_eq!(gateway.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::AlwaysForwardOnly));
    assert_eq!(inbound.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::AppendForward));
    let set = compile(&world, &Scope::gateway("istio-system"));
    assert_eq!(listener(&set, "0.0.0.0_80").listener_filters[0].name, "envoy.filters.listener.proxy_protocol");
    let set = compile(&world, &sidecar_of_shop());
    assert!(listener(&set, "0.0.0.0_80").listener_filters.iter().all(|filter| !filter.name.contains("proxy_protocol")));
}

#[test]
fn the_host_of_a_request_is_kept_where_it_is_rewritten() {
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop]
  http:
  - {name: plain, match: [{uri: {prefix: /plain}}], route: [{destination: {host: shop}}]}
  - {name: rewritten, match: [{uri: {prefix: /rewritten}}], rewrite: {authority: other}, route: [{destination: {host: shop}}]}
  - name: weighted
    route:
    - {destination: {host: shop}, weight: 1, headers: {request: {set: {host: other}}}}
    - {destination: {host: shop, subset: v1}, weight: 1}
";
    let kept = |mesh: &str| {
        let set = compile(&shop_world(mesh, &[rules.to_owned()]), &sidecar_of_shop());
        let host = virtual_host(&set, "80", "shop.default.svc.cluster.local:80");
        let appends = |route: &&lateen_xds::envoy::config::route::v3::Route| forwarding(route).append_x_forwarded_host;
        host.routes.iter().filter(appends).map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kept("defaultConfig: {proxyHeaders: {xForwardedHost: {enabled: true}}}"), ["rewritten", "weighted"]);
    assert_eq!(kept(""), [""; 0]);
}

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

#[test]
fn claims_of_tokens_are_asked_for_at_gateways() {
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match:
    - headers: {'@request.auth.claims.groups.main': {exact: admin}, x-a: {exact: b}}
      withoutHeaders: {'@Request.Auth.Claims[my.org][role]': {prefix: guest}}
    route: [{destination: {host: shop, port: {number: 80}}}]
";
    let world = shop_world("", &[rules.to_owned()]);
    let set = compile(&world, &Scope::gateway("istio-system"));
    let route = virtual_host(&set, "http.80", "*:80").routes[0].r#match.clone().unwrap();
    assert_eq!(route.headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>(), ["x-a"]);
    let said: Vec<String> = route.dynamic_metadata.iter().map(|matcher| format!("{matcher:?}")).collect();
    for (matcher, (keys, inverted)) in route
        .dynamic_metadata
        .iter()
        .zip([(["payload", "groups", "main"], false), (["payload", "my.org", "role"], true)])
    {
        use lateen_xds::envoy::r#type::matcher::v3::{metadata_matcher::path_segment::Segment, value_matcher};
        let path: Vec<String> = matcher
            .path
            .iter()
            .map(|segment| match segment.segment.as_ref().unwrap() {
                Segment::Key(key) => key.clone(),
            })
            .collect();
        assert_eq!(
            (matcher.filter.as_str(), path, matcher.invert),
            ("envoy.filters.http.jwt_authn", keys.map(str::to_owned).to_vec(), inverted)
        );
        let Some(value_matcher::MatchPattern::OrMatch(either)) = &matcher.value.as_ref().unwrap().match_pattern else {
            panic!("{said:?}")
        };
        assert_eq!(either.value_matchers.len(), 2, "the value, or a list that has it");
    }
    let found: Vec<&str> = world.diagnostics().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        found,
        ["no request matches a claim: tokens are not read, for RequestAuthentication is not carried out"; 2]
    );
}

#[test]
fn what_telemetry_asks_for_in_vain_is_said() {
    let mesh = format!(
        "{PROVIDERS}\n- {{name: dynatrace, opentelemetry: {{service: collector.observability.svc.cluster.local, port: 9411, http: {{path: /, headers: [{{name: key, envName: KEY}}]}}, dynatraceSampler: {{tenant: a, clusterId: 1}}}}}}"
    );
    let spec = "
  accessLogging: [{providers: [{name: plane}, {name: nowhere}, {name: zip}]}]
  tracing: [{providers: [{name: dynatrace}]}]
  metrics: [{overrides: [{disabled: true}]}]";
    let world = shop_world(&mesh, &[telemetry("t", "istio-system", spec)]);
    let found: Vec<String> =
        world.diagnostics().iter().map(|finding| format!("{} {}", finding.path, finding.message)).collect();
    assert_eq!(
        found,
        [
            "spec.accessLogging[0].providers[0].name provider `plane` does not exist",
            "spec.accessLogging[0].providers[1].name nothing goes to provider `nowhere`: `missing.example.com` is not a known service",
            "spec.accessLogging[0].providers[2].name provider `zip` takes no access logs here: nothing goes there",
            "spec.tracing[0].providers[0].name `http.headers[].envName` of provider `dynatrace` is not carried out",
            "spec.tracing[0].providers[0].name `dynatraceSampler` of provider `dynatrace` is not carried out",
            "spec.metrics[0].overrides overrides of metrics are carried out by Istio's build of Envoy alone",
        ]
    );
    let objects = telemetry(
        "t",
        "default",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], accessLogging: [{disabled: true}]}",
    );
    let world = shop_world(PROVIDERS, &[objects]);
    assert_eq!(three_targets(&world), all("/dev/stderr"));
    assert_eq!(world.diagnostics()[0].message, "a Telemetry for other objects than workloads is not compiled yet");
}

#[test]
fn objects_that_keep_nobody_out_say_so() {
    let object = |group: &str, kind: &str| {
        format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: a, namespace: default}}\nspec: {{}}\n")
    };
    let yaml = [
        object("security.istio.io/v1", "AuthorizationPolicy"),
        object("security.istio.io/v1", "RequestAuthentication"),
        object("extensions.istio.io/v1alpha1", "WasmPlugin"),
        // What it says is for the start of proxies.
        object("networking.istio.io/v1beta1", "ProxyConfig"),
    ]
    .concat();
    let found: Vec<String> = world(&yaml).diagnostics().iter().map(|finding| finding.message.clone()).collect();
    assert_eq!(
        found,
        ["AuthorizationPolicy", "RequestAuthentication", "WasmPlugin"]
            .map(|kind| format!("{kind} is not carried out: requests pass as if it were not there"))
    );
}

#[test]
fn settings_of_single_pods_are_said_where_they_would_count() {
    let pod = |config: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: default\n  annotations:\n    proxy.istio.io/config: |\n      {config}\nspec: {{}}\n"
        )
    };
    assert_eq!(world(&pod("concurrency: 2")).diagnostics().len(), 0);
    let found: Vec<String> = world(&pod("{tracing: {sampling: 1}, proxyHeaders: {requestId: {disabled: true}}}"))
        .diagnostics()
        .iter()
        .map(|finding| finding.message.clone())
        .collect();
    assert_eq!(
        found,
        ["proxyHeaders", "tracing"]
            .map(|field| format!("`{field}` of single Pods is not compiled: that of the mesh holds for all"))
    );
}

#[test]
fn envoy_accepts_all_loggers_and_tracers() {
    let logs = access_logging(
        "[{providers: [{name: plain}, {name: own-text}, {name: labels}, {name: http-als}, {name: tcp-als}, {name: otel-als}, {name: envoy}], filter: {expression: 'response.code >= 400 || connection.mtls'}}]",
    );
    for (name, provider) in
        [("zipkin", "zip"), ("zipkin-http", "zip-http"), ("opentelemetry", "otel"), ("opentelemetry-http", "otel-http")]
    {
        let traces = format!(
            "{{tracing: [{{providers: [{{name: {provider}}}], useRequestIdForTraceSampling: false, customTags: {{a: {{header: {{name: x-a}}}}, b: {{environment: {{name: HOME}}}}, c: {{formatter: {{value: '%REQ(X-A)%'}}}}}}}}]}}"
        );
        let world = shop_world(
            PROVIDERS,
            &[
                telemetry(
                    "logs",
                    "istio-system",
                    &logs.replace("{accessLogging", "{selector: {matchLabels: {}}, accessLogging"),
                ),
                telemetry("traces", "default", &traces),
            ],
        );
        envoy_accepts(&format!("telemetry-{name}"), &compile(&world, &sidecar_of_shop()));
    }
    let world = shop_world(PROVIDERS, &[telemetry("logs", "istio-system", &logs)]);
    envoy_accepts("telemetry-gateway", &compile(&world, &Scope::gateway("istio-system")));
}

#[test]
fn envoy_accepts_the_meshs_own_settings() {
    let mesh = "
enableEnvoyAccessLogService: true
accessLogFile: /dev/null
defaultConfig:
  envoyAccessLogService: {address: 'als:9000'}
  tracing: {zipkin: {address: 'zipkin:9411'}, maxPathTagLength: 100}
  gatewayTopology: {numTrustedProxies: 1, forwardClientCertDetails: FORWARD_ONLY, proxyProtocol: {}}
  proxyHeaders:
    forwardedClientCert: SANITIZE
    requestId: {disabled: true}
    server: {disabled: true}
    attemptCount: {disabled: true}
    envoyDebugHeaders: {disabled: true}
    preserveHttp1HeaderCase: true
    xForwardedHost: {enabled: true}
    xForwardedPort: {enabled: true}
";
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match: [{headers: {'@request.auth.claims.a': {regex: 'b.*'}}, withoutHeaders: {'@request.auth.claims[c]': {}}}]
    rewrite: {authority: other}
    route: [{destination: {host: shop, port: {number: 80}}}]
";
    let world = shop_world(mesh, &[rules.to_owned()]);
    envoy_accepts("telemetry-mesh-sidecar", &compile(&world, &sidecar_of_shop()));
    envoy_accepts("telemetry-mesh-gateway", &compile(&world, &Scope::gateway("istio-system")));
}
