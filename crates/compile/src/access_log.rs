//! What is written for each request and connection? Istio's file access log: its default line, a text
//! format of the mesh's own, or a JSON object.

use lateen_xds::envoy::config::accesslog::v3::{
    AccessLog as Logger, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter,
};
use lateen_xds::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string,
};
use lateen_xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};

use crate::mesh::{AccessLog, AccessLogEncoding, Mesh};
use crate::message;

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

/// The loggers of a connection manager or TCP proxy: one line for each request or connection.
pub(crate) fn requests(mesh: &Mesh) -> Vec<Logger> {
    mesh.access_log.iter().map(|log| logger(log, None)).collect()
}

/// The loggers of a listener: one line for each connection for which there is no filter chain (flag `NR`).
pub(crate) fn refused_connections(mesh: &Mesh) -> Vec<Logger> {
    if !mesh.log_refused_connections {
        return Vec::new();
    }
    let filter = AccessLogFilter {
        filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    mesh.access_log.iter().map(|log| logger(log, Some(filter.clone()))).collect()
}

/// The JSON object that a mesh's format text holds, if it holds one.
pub(crate) fn parse_json_format(format: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(format).ok()
}

fn logger(log: &AccessLog, filter: Option<AccessLogFilter>) -> Logger {
    let file = FileAccessLog {
        path: log.file.clone(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format(log)),
            ..Default::default()
        })),
    };
    Logger {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(message::typed(&file))),
    }
}

fn format(log: &AccessLog) -> substitution_format_string::Format {
    match log.encoding {
        AccessLogEncoding::Text => {
            let mut line = log.format.as_deref().unwrap_or(DEFAULT_TEXT_FORMAT).to_owned();
            if !line.ends_with('\n') {
                line.push('\n');
            }
            substitution_format_string::Format::TextFormatSource(DataSource {
                specifier: Some(data_source::Specifier::InlineString(line)),
                ..Default::default()
            })
        }
        AccessLogEncoding::Json => {
            let fields = match log.format.as_deref().and_then(parse_json_format) {
                Some(fields) => message::json_object(&fields),
                None => message::object(DEFAULT_JSON_FORMAT.map(|(key, operator)| (key, message::text(operator)))),
            };
            substitution_format_string::Format::JsonFormat(fields)
        }
    }
}
