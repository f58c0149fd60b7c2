//! An HTTP connection manager as the data plane uses it; Envoy's `HttpConnectionManager`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_xds::envoy::config::accesslog::v3 as accesslog_v3;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::extensions::access_loggers::file::v3 as file_v3;
use lateen_xds::envoy::extensions::access_loggers::stream::v3 as stream_v3;
use lateen_xds::envoy::extensions::filters::http::router::v3 as router_v3;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_v3;

use super::fields::{duration, limit, unpack};
use super::filter::{self, ChainFilter, FilterChain, FilterKind};
use super::format::{Format, JsonFormat};
use super::local_reply::LocalReplies;
use super::log_filter::LogFilter;
use super::route::{RouteConfig, Upgrade};
use super::{ClusterNames, Invalid};
use crate::http::h1::Limits;

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
/// It counts and changes nothing on the way.
const GRPC_STATS: &str = "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
     \"%UPSTREAM_HOST%\"\n";
const DEFAULT_STREAM_IDLE: Duration = Duration::from_secs(300);
const DEFAULT_CONNECTION_IDLE: Duration = Duration::from_secs(3600);
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// What the proxy writes into the `server` response header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replace the upstream's.
    Overwrite,
    /// Keep the upstream's, else set ours.
    AppendIfAbsent,
    /// Leave the upstream's alone and set none.
    PassThrough,
}

/// `path_with_escaped_slashes_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave `%2F` and `%5C` as they are.
    Keep,
    /// 400.
    Reject,
    /// 307 to the unescaped path.
    UnescapeAndRedirect,
    /// Unescape and go on.
    UnescapeAndForward,
}

/// `headers_with_underscores_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// Header names may hold underscores.
    Allow,
    /// 400.
    Reject,
    /// Such headers are removed.
    Drop,
}

/// `strip_any_host_port` and `strip_matching_host_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripPort {
    /// The port of the Host stays.
    No,
    /// It is removed when it is the listener's.
    Matching,
    /// It is removed.
    Any,
}

/// `forward_client_cert_details`, as far as connections without client certificates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert {
    /// Removed from the request.
    Remove,
    /// Kept (`ALWAYS_FORWARD_ONLY`).
    Keep,
}

/// Where the routes come from.
#[derive(Debug)]
pub enum Routes {
    /// By name from the set; Envoy's `rds`.
    Named(Arc<str>),
    /// In the connection manager itself.
    Inline(Arc<RouteConfig>),
}

/// A log line's shape.
#[derive(Debug)]
pub enum LogFormat {
    /// A text with operators.
    Text(Format),
    /// One JSON object a line.
    Json(JsonFormat),
}

/// One access log of a connection manager.
#[derive(Debug)]
pub struct AccessLog {
    /// File to append to.
    pub path: Arc<str>,
    /// The line.
    pub format: LogFormat,
    /// Which streams are logged; `None` is all.
    pub filter: Option<LogFilter>,
}

/// The settings of an HTTP connection manager.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// `stat_prefix`.
    pub stat_prefix: Arc<str>,
    /// Its routes.
    pub routes: Routes,
    /// Codec limits.
    pub limits: Limits,
    /// `use_remote_address`: edge mode.
    pub edge: bool,
    /// `xff_num_trusted_hops`.
    pub trusted_hops: usize,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `internal_address_config.cidr_ranges`.
    pub internal_ranges: Vec<(IpAddr, u8)>,
    /// `generate_request_id`.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub request_id_in_response: bool,
    /// `normalize_path`.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `headers_with_underscores_action`.
    pub underscores: Underscores,
    /// Port stripping.
    pub strip_port: StripPort,
    /// `server_name`.
    pub server_name: Box<[u8]>,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `via`.
    pub via: Option<Box<[u8]>>,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `proxy_100_continue`.
    pub proxy_100_continue: bool,
    /// `scheme_header_transformation.scheme_to_overwrite`.
    pub scheme_to_overwrite: Option<Box<[u8]>>,
    /// `upgrade_configs`.
    pub upgrades: Vec<Upgrade>,
    /// The filters before the router.
    pub filters: FilterChain,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCert,
    /// `suppress_envoy_headers` of the router.
    pub suppress_envoy_headers: bool,
    /// `stream_idle_timeout`.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`.
    pub request_headers_timeout: Option<Duration>,
    /// `max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// Connection `idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `drain_timeout`.
    pub drain_timeout: Duration,
    /// `local_reply_config`.
    pub local_replies: Option<Box<LocalReplies>>,
    /// Access logs.
    pub access_logs: Vec<AccessLog>,
}

impl HttpConnectionManager {
    /// Reads the message.
    ///
    /// # Errors
    /// A field that this data plane cannot honour, with its path.
    pub fn build(message: &hcm_v3::HttpConnectionManager, names: &mut ClusterNames) -> Result<Self, Invalid> {
        use hcm_v3::http_connection_manager as fields;
        let common = message.common_http_protocol_options.as_ref();
        let http1 = message.http_protocol_options.as_ref();
        let max_head_kib = message.max_request_headers_kb.unwrap_or(60);
        let defaults = Limits::default();
        let limits = Limits {
            max_head_bytes: usize::try_from(max_head_kib).unwrap_or(60).saturating_mul(1024),
            max_headers: common
                .and_then(|common| common.max_headers_count)
                .map_or(defaults.max_headers, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            accept_http_10: http1.is_some_and(|http1| http1.accept_http_10),
            allow_absolute_url: http1.and_then(|http1| http1.allow_absolute_url).unwrap_or(defaults.allow_absolute_url),
        };
        let (chain, router) = filters(message, names)?;
        let idle_timeout = match common.and_then(|common| common.idle_timeout.as_ref()) {
            Some(timeout) => Some(duration(timeout, "common_http_protocol_options.idle_timeout")?),
            None => Some(DEFAULT_CONNECTION_IDLE),
        };
        let stream_idle = match &message.stream_idle_timeout {
            Some(timeout) => duration(timeout, "stream_idle_timeout")?,
            None => DEFAULT_STREAM_IDLE,
        };
        Ok(Self {
            stat_prefix: message.stat_prefix.as_str().into(),
            routes: routes(message, names)?,
            limits,
            edge: message.use_remote_address.unwrap_or(false),
            trusted_hops: usize::try_from(message.xff_num_trusted_hops).unwrap_or(usize::MAX),
            skip_xff_append: message.skip_xff_append,
            internal_ranges: internal_ranges(message)?,
            generate_request_id: message.generate_request_id.unwrap_or(true),
            preserve_external_request_id: message.preserve_external_request_id,
            request_id_in_response: message.always_set_request_id_in_response,
            normalize_path: message.normalize_path.unwrap_or(false),
            merge_slashes: message.merge_slashes,
            escaped_slashes: match fields::PathWithEscapedSlashesAction::try_from(
                message.path_with_escaped_slashes_action,
            ) {
                Ok(fields::PathWithEscapedSlashesAction::RejectRequest) => EscapedSlashes::Reject,
                Ok(fields::PathWithEscapedSlashesAction::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
                Ok(fields::PathWithEscapedSlashesAction::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
                _ => EscapedSlashes::Keep,
            },
            underscores: match common.map_or(0, |common| common.headers_with_underscores_action) {
                1 => Underscores::Reject,
                2 => Underscores::Drop,
                _ => Underscores::Allow,
            },
            strip_port: match &message.strip_port_mode {
                Some(fields::StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
                _ if message.strip_matching_host_port => StripPort::Matching,
                _ => StripPort::No,
            },
            server_name: if message.server_name.is_empty() { "envoy" } else { &message.server_name }.as_bytes().into(),
            server_header: match fields::ServerHeaderTransformation::try_from(message.server_header_transformation) {
                Ok(fields::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
                Ok(fields::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
                _ => ServerHeader::Overwrite,
            },
            via: (!message.via.is_empty()).then(|| message.via.as_bytes().into()),
            append_x_forwarded_port: message.append_x_forwarded_port,
            proxy_100_continue: message.proxy_100_continue,
            scheme_to_overwrite: scheme_to_overwrite(message),
            client_cert: match fields::ForwardClientCertDetails::try_from(message.forward_client_cert_details) {
                Ok(fields::ForwardClientCertDetails::AlwaysForwardOnly) => ClientCert::Keep,
                _ => ClientCert::Remove,
            },
            upgrades: upgrades(message)?,
            filters: chain,
            suppress_envoy_headers: router.suppress_envoy_headers,
            stream_idle_timeout: Some(stream_idle).filter(|timeout| !timeout.is_zero()),
            request_timeout: limit(message.request_timeout.as_ref(), "request_timeout")?,
            request_headers_timeout: limit(message.request_headers_timeout.as_ref(), "request_headers_timeout")?,
            idle_timeout: idle_timeout.filter(|timeout| !timeout.is_zero()),
            max_connection_duration: limit(
                common.and_then(|common| common.max_connection_duration.as_ref()),
                "common_http_protocol_options.max_connection_duration",
            )?,
            max_stream_duration: limit(
                common.and_then(|common| common.max_stream_duration.as_ref()),
                "common_http_protocol_options.max_stream_duration",
            )?,
            max_requests_per_connection: common
                .and_then(|common| common.max_requests_per_connection)
                .filter(|count| *count > 0),
            drain_timeout: match &message.drain_timeout {
                Some(timeout) => duration(timeout, "drain_timeout")?,
                None => DEFAULT_DRAIN,
            },
            local_replies: match &message.local_reply_config {
                Some(config) => {
                    LocalReplies::build(config).map_err(|invalid| invalid.under("local_reply_config"))?.map(Box::new)
                }
                None => None,
            },
            access_logs: access_logs(&message.access_log)?,
        })
    }
}

fn routes(message: &hcm_v3::HttpConnectionManager, names: &mut ClusterNames) -> Result<Routes, Invalid> {
    use hcm_v3::http_connection_manager::RouteSpecifier;
    match &message.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => Ok(Routes::Named(rds.route_config_name.as_str().into())),
        Some(RouteSpecifier::RouteConfig(inline)) => {
            let built = RouteConfig::build(inline, &[], names).map_err(|invalid| invalid.under("route_config"))?;
            Ok(Routes::Inline(Arc::new(built)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            Err(Invalid::at("scoped_routes", "scoped routes are not supported".into()))
        }
        None => Err(Invalid::at("route_specifier", "one of rds and route_config is required".into())),
    }
}

fn filters(
    message: &hcm_v3::HttpConnectionManager,
    names: &mut ClusterNames,
) -> Result<(FilterChain, router_v3::Router), Invalid> {
    use hcm_v3::http_filter::ConfigType;
    let mut router = None;
    let mut chain = Vec::new();
    for (index, filter) in message.http_filters.iter().enumerate() {
        let path = format!("http_filters[{index}]");
        if router.is_some() {
            return Err(Invalid::at(path, "a filter after envoy.filters.http.router would never run".into()));
        }
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
            return Err(Invalid::at(path, format!("filter `{}` has no typed_config", filter.name)));
        };
        match config.type_url.as_str() {
            ROUTER => router = Some(unpack::<router_v3::Router>(config, &path)?),
            GRPC_STATS => {}
            known @ (FAULT | CORS) => {
                let kind = if known == FAULT { FilterKind::Fault } else { FilterKind::Cors };
                let settings = filter::chain_settings(kind, config)
                    .map_err(|invalid| invalid.under(&format!("{path}.typed_config")))?;
                let settings = settings.filter(|_| !filter.disabled);
                chain.push(ChainFilter { id: names.filter(&filter.name), kind, settings });
            }
            _ if filter.is_optional || filter.disabled => {}
            other => {
                let message = format!("filter `{}` of type {other} is not supported yet", filter.name);
                return Err(Invalid::at(path, message));
            }
        }
    }
    let router = router
        .ok_or_else(|| Invalid::at("http_filters", "the last filter must be envoy.filters.http.router".into()))?;
    Ok((FilterChain::new(chain), router))
}

fn upgrades(message: &hcm_v3::HttpConnectionManager) -> Result<Vec<Upgrade>, Invalid> {
    let mut upgrades: Vec<Upgrade> = Vec::new();
    for (index, upgrade) in message.upgrade_configs.iter().enumerate() {
        let path = |field: &str| format!("upgrade_configs[{index}].{field}");
        let kind: Box<str> = upgrade.upgrade_type.to_ascii_lowercase().into();
        if upgrades.iter().any(|known| known.kind == kind) {
            let message = format!("multiple upgrade configs with the name: '{}'", upgrade.upgrade_type);
            return Err(Invalid::at(path("upgrade_type"), message));
        }
        if !upgrade.filters.is_empty() {
            return Err(Invalid::at(path("filters"), "filters of an upgrade are not supported".into()));
        }
        upgrades.push(Upgrade { kind, enabled: upgrade.enabled.unwrap_or(true), connect: false });
    }
    Ok(upgrades)
}

fn internal_ranges(message: &hcm_v3::HttpConnectionManager) -> Result<Vec<(IpAddr, u8)>, Invalid> {
    let ranges = message.internal_address_config.iter().flat_map(|config| &config.cidr_ranges);
    ranges
        .map(|range| {
            let address = range.address_prefix.parse().map_err(|_| {
                let message = format!("{} is no IP address", range.address_prefix);
                Invalid::at("internal_address_config.cidr_ranges", message)
            })?;
            Ok((address, u8::try_from(range.prefix_len.unwrap_or(0)).unwrap_or(u8::MAX)))
        })
        .collect()
}

fn scheme_to_overwrite(message: &hcm_v3::HttpConnectionManager) -> Option<Box<[u8]>> {
    use core_v3::scheme_header_transformation::Transformation;
    let Some(Transformation::SchemeToOverwrite(scheme)) =
        message.scheme_header_transformation.as_ref()?.transformation.as_ref()
    else {
        return None;
    };
    Some(scheme.as_bytes().into())
}

/// Reads the access logs of a connection manager or a listener.
///
/// # Errors
/// A logger or a filter that is not supported, or a format that Envoy would reject too.
fn access_logs(messages: &[accesslog_v3::AccessLog]) -> Result<Vec<AccessLog>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| access_log(message).map_err(|invalid| invalid.under(&format!("access_log[{index}]"))))
        .collect()
}

fn access_log(message: &accesslog_v3::AccessLog) -> Result<AccessLog, Invalid> {
    use accesslog_v3::access_log::ConfigType;
    let filter =
        message.filter.as_ref().map(LogFilter::build).transpose().map_err(|invalid| invalid.under("filter"))?;
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::at("typed_config", format!("access log `{}` has no typed_config", message.name)));
    };
    match config.type_url.as_str() {
        FILE_LOG => {
            let file: file_v3::FileAccessLog = unpack(config, "typed_config")?;
            let format = log_format(file.access_log_format.as_ref()).map_err(|i| i.under("typed_config"))?;
            Ok(AccessLog { path: file.path.as_str().into(), format, filter })
        }
        STDOUT_LOG => {
            use stream_v3::stdout_access_log::AccessLogFormat;
            let stdout: stream_v3::StdoutAccessLog = unpack(config, "typed_config")?;
            let format = match &stdout.access_log_format {
                Some(AccessLogFormat::LogFormat(format)) => substitution_format(format),
                None => text_format(DEFAULT_FORMAT).map(LogFormat::Text),
            };
            let format = format.map_err(|i| i.under("typed_config"))?;
            Ok(AccessLog { path: "/dev/stdout".into(), format, filter })
        }
        other => Err(Invalid::at("typed_config", format!("access logger {other} is not supported yet"))),
    }
}

fn log_format(message: Option<&file_v3::file_access_log::AccessLogFormat>) -> Result<LogFormat, Invalid> {
    use file_v3::file_access_log::AccessLogFormat;
    match message {
        None => Ok(LogFormat::Text(text_format(DEFAULT_FORMAT)?)),
        Some(AccessLogFormat::Format(text)) => Ok(LogFormat::Text(text_format(text)?)),
        Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
            json_format(fields, false)
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution_format(format),
    }
}

pub(super) fn substitution_format(message: &core_v3::SubstitutionFormatString) -> Result<LogFormat, Invalid> {
    use core_v3::substitution_format_string::Format as Shape;
    let omit = message.omit_empty_values;
    let text = |text: &str| Ok(LogFormat::Text(text_format(text)?.omitting_empty(omit)));
    match &message.format {
        Some(Shape::TextFormat(format)) => text(format),
        Some(Shape::JsonFormat(fields)) => json_format(fields, omit),
        Some(Shape::TextFormatSource(source)) => {
            use core_v3::data_source::Specifier;
            match &source.specifier {
                Some(Specifier::InlineString(format)) => text(format),
                _ => Err(Invalid::at("log_format.text_format_source", "only inline_string is supported".into())),
            }
        }
        _ => Err(Invalid::at("log_format", "a text or JSON format is required".into())),
    }
}

fn text_format(text: &str) -> Result<Format, Invalid> {
    Format::parse(text).map_err(|error| Invalid::at("log_format", error.to_string()))
}

fn json_format(fields: &prost_types::Struct, omit_empty_values: bool) -> Result<LogFormat, Invalid> {
    JsonFormat::build(fields, omit_empty_values)
        .map(LogFormat::Json)
        .map_err(|error| Invalid::at("log_format.json_format", error.to_string()))
}
