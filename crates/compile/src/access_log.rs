//! What is written for each request and connection, and where? Istio's file access log with its default line, a text
//! format or a JSON object; and the providers that Telemetry objects choose: files, and services that take logs over
//! gRPC.

use lateen_config::{
    EnvoyFileAccessLogProvider, EnvoyHttpAlsProvider, EnvoyOtelAlsProvider, EnvoyTcpAlsProvider, ExtensionProvider,
    ExtensionProviderKind, FileLogForm,
};
use lateen_xds::envoy::config::accesslog::v3::{
    AccessLog as Logger, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, access_log,
    access_log_filter, extension_filter,
};
use lateen_xds::envoy::config::core::v3::{
    ApiVersion, DataSource, GrpcService, SubstitutionFormatString, TypedExtensionConfig, data_source,
    substitution_format_string,
};
use lateen_xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use lateen_xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use lateen_xds::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use lateen_xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use lateen_xds::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use lateen_xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use prost::Name;

use crate::context::Context;
use crate::mesh::{AccessLog, AccessLogEncoding, BUILT_IN_LOG, Mesh};
use crate::message;
use crate::provider::{self, Upstream};
use crate::world::telemetry::{LogTarget, Side};

/// The line that Istio writes when no format is configured. `UPSTREAM_CLUSTER_RAW` is the cluster's real
/// name: the other form would print its statistics name with the `;` at its end.
pub const DEFAULT_TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The fields of Istio's JSON line: (key, operator).
pub const DEFAULT_JSON_FORMAT: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// Name of the cluster of the mesh's access log service; Istio's proxies have it from the start.
pub(crate) const SERVICE_CLUSTER: &str = "envoy_accesslog_service";

/// Facts about the two workloads, as Istio's proxies keep them of a connection.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];

/// The same, and under the names of older proxies.
const ALL_PEERS: [&str; 6] = [
    "upstream_peer",
    "downstream_peer",
    "wasm.upstream_peer",
    "wasm.upstream_peer_id",
    "wasm.downstream_peer",
    "wasm.downstream_peer_id",
];

/// What a logger is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Requests, by a connection manager.
    Requests,
    /// Connections, by a TCP proxy.
    Connections,
    /// Connections for which a listener has no filter chain (flag `NR`).
    Refused,
}

/// The loggers of a connection manager, a TCP proxy or a listener: those that Telemetry objects choose, else those of
/// the mesh.
pub(crate) fn compile(cx: &Context<'_>, side: Side, subject: Subject) -> Vec<Logger> {
    let mesh = cx.world.mesh();
    if subject == Subject::Refused && !mesh.log_refused_connections {
        return Vec::new();
    }
    if !mesh.access_log_is_final {
        let targets = cx.world.telemetry(cx.scope).access_logs(side);
        let loggers: Vec<(bool, Logger)> =
            targets.iter().filter_map(|target| Some((target.is_disabled, of_target(cx, target, subject)?))).collect();
        // A provider that is turned off is an answer too, one that cannot be used is none.
        if !loggers.is_empty() {
            return loggers.into_iter().filter(|(is_disabled, _)| !is_disabled).map(|(_, logger)| logger).collect();
        }
    }
    let file = mesh.access_log.as_ref().map(|log| file(&log.file, of_mesh(log)));
    let service = (!mesh.access_log_is_final && has_service(mesh)).then(|| of_service(subject));
    let filter = subject.filter();
    file.into_iter().chain(service).map(|logger| Logger { filter: filter.clone(), ..logger }).collect()
}

/// True when access logs go to the service of the mesh. Without an address there is nothing to send them to.
pub(crate) fn has_service(mesh: &Mesh) -> bool {
    mesh.access_log_service.as_ref().is_some_and(|service| !service.address.is_empty())
}

/// The JSON object that a mesh's format text holds, if it holds one.
pub(crate) fn parse_json_format(format: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(format).ok()
}

/// True when access logs can be sent to a provider.
pub(crate) fn is_target(provider: &ExtensionProvider) -> bool {
    matches!(
        provider.provider,
        Some(
            ExtensionProviderKind::EnvoyFileAccessLog(_)
                | ExtensionProviderKind::EnvoyHttpAls(_)
                | ExtensionProviderKind::EnvoyTcpAls(_)
                | ExtensionProviderKind::EnvoyOtelAls(_)
        )
    )
}

impl Subject {
    /// The condition that holds for all loggers.
    fn filter(self) -> Option<AccessLogFilter> {
        (self == Subject::Refused).then(|| {
            filter(access_log_filter::FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
                flags: vec!["NR".to_owned()],
            }))
        })
    }
}

/// The logger for a provider; `None` when it takes no logs, or its service is unknown.
fn of_target(cx: &Context<'_>, target: &LogTarget<'_>, subject: Subject) -> Option<Logger> {
    let logger = match target.provider.provider.as_ref()? {
        ExtensionProviderKind::EnvoyFileAccessLog(provider) => of_file(cx.world.mesh(), target.provider, provider),
        ExtensionProviderKind::EnvoyHttpAls(als) => of_http_als(als, &Upstream::find(cx, &als.service, als.port)?),
        ExtensionProviderKind::EnvoyTcpAls(als) => of_tcp_als(als, &Upstream::find(cx, &als.service, als.port)?),
        ExtensionProviderKind::EnvoyOtelAls(als) => of_otel_als(als, &Upstream::find(cx, &als.service, als.port)?),
        _ => return None,
    };
    let own = target.filter.map(|expression| {
        let config = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
        filter(access_log_filter::FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(message::typed(&config))),
        }))
    });
    let filter = match (subject.filter(), own) {
        (Some(flags), Some(own)) => {
            Some(filter(access_log_filter::FilterSpecifier::AndFilter(AndFilter { filters: vec![flags, own] })))
        }
        (flags, own) => flags.or(own),
    };
    Some(Logger { filter, ..logger })
}

/// The built-in provider writes the line of the mesh, unless it is described anew.
fn of_file(mesh: &Mesh, provider: &ExtensionProvider, log: &EnvoyFileAccessLogProvider) -> Logger {
    let path = if log.path.is_empty() { "/dev/stdout" } else { &log.path };
    let form = log.log_format.as_ref().and_then(|format| format.form.as_ref());
    let format = match form {
        None if provider.name == BUILT_IN_LOG && !log.omit_empty_values => {
            return file(path, of_mesh(&mesh.built_in_access_log));
        }
        None => text(DEFAULT_TEXT_FORMAT),
        Some(FileLogForm::Text(format)) if format.is_empty() => text(DEFAULT_TEXT_FORMAT),
        Some(FileLogForm::Text(format)) => text(format),
        Some(FileLogForm::Labels(labels)) if labels.is_empty() => default_json(),
        Some(FileLogForm::Labels(labels)) => json(labels),
    };
    file(path, SubstitutionFormatString { omit_empty_values: log.omit_empty_values, ..format })
}

/// The format of the mesh's own access log.
fn of_mesh(log: &AccessLog) -> SubstitutionFormatString {
    match log.encoding {
        AccessLogEncoding::Text => text(log.format.as_deref().unwrap_or(DEFAULT_TEXT_FORMAT)),
        AccessLogEncoding::Json => match log.format.as_deref().and_then(parse_json_format) {
            Some(fields) => json(&fields),
            None => default_json(),
        },
    }
}

fn text(format: &str) -> SubstitutionFormatString {
    let mut line = format.to_owned();
    if !line.ends_with('\n') {
        line.push('\n');
    }
    SubstitutionFormatString {
        formatters: formatters(std::iter::once(line.as_str())),
        format: Some(substitution_format_string::Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(line)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn json(fields: &serde_json::Map<String, serde_json::Value>) -> SubstitutionFormatString {
    SubstitutionFormatString {
        formatters: formatters(fields.values().filter_map(serde_json::Value::as_str)),
        format: Some(substitution_format_string::Format::JsonFormat(message::json_object(fields))),
        ..Default::default()
    }
}

fn default_json() -> SubstitutionFormatString {
    let fields = message::object(DEFAULT_JSON_FORMAT.map(|(key, operator)| (key, message::text(operator))));
    SubstitutionFormatString {
        format: Some(substitution_format_string::Format::JsonFormat(fields)),
        ..Default::default()
    }
}

/// The extensions that the operators of a format need: all others are built in.
fn formatters<'f>(mut formats: impl Iterator<Item = &'f str>) -> Vec<TypedExtensionConfig> {
    if !formats.any(|format| format.contains("%REQ_WITHOUT_QUERY")) {
        return Vec::new();
    }
    vec![TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".to_owned(),
        typed_config: Some(message::typed(&ReqWithoutQuery {})),
    }]
}

fn file(path: &str, format: SubstitutionFormatString) -> Logger {
    let file = FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    logger("envoy.access_loggers.file", &file)
}

fn of_http_als(als: &EnvoyHttpAlsProvider, upstream: &Upstream) -> Logger {
    logger(
        HTTP_LOGGER,
        &HttpGrpcAccessLogConfig {
            common_config: Some(common(&als.log_name, upstream.grpc(None), state(&als.filter_state_objects_to_log))),
            additional_request_headers_to_log: als.additional_request_headers_to_log.clone(),
            additional_response_headers_to_log: als.additional_response_headers_to_log.clone(),
            additional_response_trailers_to_log: als.additional_response_trailers_to_log.clone(),
        },
    )
}

fn of_tcp_als(als: &EnvoyTcpAlsProvider, upstream: &Upstream) -> Logger {
    let common = common(&als.log_name, upstream.grpc(None), state(&als.filter_state_objects_to_log));
    logger(TCP_LOGGER, &TcpGrpcAccessLogConfig { common_config: Some(common) })
}

fn of_otel_als(als: &EnvoyOtelAlsProvider, upstream: &Upstream) -> Logger {
    let given = als.log_format.as_ref();
    let body = given.map(|format| format.text.as_str()).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_TEXT_FORMAT);
    let labels = given.map(|format| &format.labels).filter(|labels| !labels.is_empty());
    let string = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    let label = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let texts = labels.into_iter().flat_map(|labels| labels.values()).filter_map(serde_json::Value::as_str);
    logger(
        "envoy.access_loggers.open_telemetry",
        &OpenTelemetryAccessLogConfig {
            common_config: Some(common(&als.log_name, upstream.grpc(None), ALL_PEERS.map(str::to_owned).to_vec())),
            disable_builtin_labels: true,
            body: Some(string(body)),
            attributes: labels.map(|labels| {
                let mut labels: Vec<(&String, String)> =
                    labels.iter().map(|(key, value)| (key, label(value))).collect();
                labels.sort();
                KeyValueList {
                    values: labels
                        .into_iter()
                        .map(|(key, value)| KeyValue {
                            key: key.clone(),
                            value: Some(string(&value)),
                            ..Default::default()
                        })
                        .collect(),
                }
            }),
            formatters: formatters(std::iter::once(body).chain(texts)),
            ..Default::default()
        },
    )
}

const HTTP_LOGGER: &str = "envoy.access_loggers.http_grpc";
const TCP_LOGGER: &str = "envoy.tcp_grpc_access_log";

/// The logger for the access log service of the mesh.
fn of_service(subject: Subject) -> Logger {
    let name = match subject {
        Subject::Requests => "http_envoy_accesslog",
        Subject::Connections => "tcp_envoy_accesslog",
        Subject::Refused => "listener_envoy_accesslog",
    };
    let service = provider::grpc(SERVICE_CLUSTER, "");
    let common_config = Some(common(name, service, ALL_PEERS.map(str::to_owned).to_vec()));
    match subject {
        Subject::Requests => logger(HTTP_LOGGER, &HttpGrpcAccessLogConfig { common_config, ..Default::default() }),
        Subject::Connections | Subject::Refused => logger(TCP_LOGGER, &TcpGrpcAccessLogConfig { common_config }),
    }
}

fn common(log_name: &str, service: GrpcService, state: Vec<String>) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(service),
        transport_api_version: ApiVersion::V3.into(),
        filter_state_objects_to_log: state,
        ..Default::default()
    }
}

/// What is logged of a connection's filters: what is asked for, else the two workloads.
fn state(asked: &[String]) -> Vec<String> {
    if asked.is_empty() { PEERS.map(str::to_owned).to_vec() } else { asked.to_vec() }
}

fn logger<M: Name>(name: &str, config: &M) -> Logger {
    Logger {
        name: name.to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(message::typed(config))),
        ..Default::default()
    }
}

fn filter(specifier: access_log_filter::FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}
