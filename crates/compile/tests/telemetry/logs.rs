//! Where do access logs go, and what is written?

use lateen_compile::{Capability, Compiler, World, compile};
use lateen_xds::any::unpack;
use lateen_xds::envoy::config::accesslog::v3::{AccessLog, access_log_filter, extension_filter};
use lateen_xds::envoy::config::core::v3::{data_source, substitution_format_string};
use lateen_xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use lateen_xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use lateen_xds::envoy::extensions::access_loggers::grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig};
use lateen_xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

use super::*;

fn file(log: &AccessLog) -> FileAccessLog {
    unpack(typed_config(log)).unwrap()
}

fn log_of(world: &World) -> AccessLog {
    let [mut outbound, ..] = three(world);
    assert_eq!(outbound.access_log.len(), 1);
    outbound.access_log.remove(0)
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

#[test]
fn a_telemetry_that_changes_changes_what_is_remembered() {
    let parsed = |provider: &str| {
        let spec = access_logging(&format!("[{{providers: [{{name: {provider}}}]}}]"));
        lateen_config::parse(&SourceFile::new("telemetry.yaml", telemetry("t", "istio-system", &spec)))
    };
    let objects: Vec<std::sync::Arc<lateen_config::Object>> =
        lateen_config::parse(&SourceFile::new("shop.yaml", shop())).objects.into_iter().map(Into::into).collect();
    let with = |provider: &str| {
        let mut all = objects.clone();
        all.extend(parsed(provider).objects.into_iter().map(std::sync::Arc::new));
        all
    };
    let mut compiler = Compiler::new(sidecar_of_shop());
    let first = World::build(with("plain"), settings(PROVIDERS));
    compiler.compile(&first);
    let second = first.update(&with("own-text"), settings(PROVIDERS));
    let set = compiler.compile(&second);
    assert_eq!(targets(&managers(listener(&set, "0.0.0.0_80"))[0].access_log), ["/dev/text"]);
    assert!(set.diff(&compile(&second, &sidecar_of_shop())).is_empty());
}
