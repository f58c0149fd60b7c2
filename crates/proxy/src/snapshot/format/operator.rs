//! What does each operator of a format (`%RESPONSE_CODE%`, `%REQ(…)%`) say about a stream?

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::time::TimeFormat;
use super::{CommandText, FormatContext};
use crate::http::head::{Head, HeaderName, Known};
use crate::http::reply::is_grpc;
use crate::http::stream_info::Flag;
use crate::snapshot::matcher::{query_parameter, without_query};

/// A parsed operator.
#[derive(Debug)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    Request {
        name: HeaderName,
        alternative: Option<HeaderName>,
        query: bool,
    },
    Response {
        name: HeaderName,
        alternative: Option<HeaderName>,
    },
    Path {
        query: bool,
        source: PathSource,
    },
    /// Its text is percent-decoded.
    QueryParameter(Box<[u8]>),
    QueryParameters,
    ResponseCodeDetails {
        keep_blanks: bool,
    },
    UpstreamHost(AddressPart),
    UpstreamLocal(AddressPart),
    DownstreamRemote(AddressPart),
    DownstreamDirectRemote(AddressPart),
    DownstreamLocal(AddressPart),
    GrpcStatus(GrpcStyle),
    ServerName {
        host: HostUse,
    },
    Span {
        from: TimePoint,
        to: TimePoint,
        unit: Unit,
    },
    Fact(Fact),
    /// The same for all streams of this process; `None` when it is missing.
    Constant(Option<Box<str>>),
}

/// Operators without an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
    BytesReceived,
    BytesSent,
    Protocol,
    ResponseCode,
    ConnectionTerminationDetails,
    Attempts,
    ResponseFlags,
    ResponseFlagsLong,
    RouteName,
    UpstreamCluster,
    UpstreamTransportFailure,
    ConnectionId,
    StreamId,
    UniqueId,
    AccessLogType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathSource {
    Original,
    Current,
    OriginalOrCurrent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressPart {
    Whole,
    Ip,
    Port,
    /// So many bits of the IP, and their number: `10.0.0.0/8`.
    Masked(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcStyle {
    Camel,
    Snake,
    Number,
}

/// Where `REQUESTED_SERVER_NAME` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostUse {
    Never,
    Last,
    First,
}

/// The moments that durations are measured between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimePoint {
    Start,
    RequestEnd,
    ResponseStart,
    End,
    /// A moment that this proxy does not record.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// Operators about things that no stream of this proxy has yet; they are known, and their value is missing.
const WITHOUT_SOURCE: [&str; 61] = [
    "UPSTREAM_PROTOCOL",
    "ROUNDTRIP_DURATION",
    "UPSTREAM_WIRE_BYTES_SENT",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "VIRTUAL_CLUSTER_NAME",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_SERVER_NAME",
    "FILTER_CHAIN_NAME",
    "TRACE_ID",
    "SPAN_ID",
];

/// The same with an argument, which may be left out in some of them.
const WITHOUT_SOURCE_ARGUMENT: [&str; 12] = [
    "TRAILER",
    "RESPONSE_TRAILER",
    "DYNAMIC_METADATA",
    "CLUSTER_METADATA",
    "UPSTREAM_METADATA",
    "METADATA",
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_CERT_V_END",
];

/// Operators whose text may be cut off by `:length`.
const CUTTABLE: [&str; 18] = [
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "TRAILER",
    "RESPONSE_TRAILER",
    "REQ_WITHOUT_QUERY",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "DYNAMIC_METADATA",
    "CLUSTER_METADATA",
    "UPSTREAM_METADATA",
    "METADATA",
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "ENVIRONMENT",
    "LOCAL_REPLY_BODY",
];

impl Operator {
    pub(super) fn parse(command: &CommandText<'_>) -> Result<Self, String> {
        if command.length.is_some() && !CUTTABLE.contains(&command.name) {
            return Err("this operator takes no length".into());
        }
        if let Some(fact) = fact(command.name) {
            return without_argument(command, fact);
        }
        if WITHOUT_SOURCE.contains(&command.name) {
            return without_argument(command, Self::Constant(None));
        }
        if WITHOUT_SOURCE_ARGUMENT.contains(&command.name) {
            let optional = command.name.contains("_CERT_V_");
            return match command.argument {
                None | Some("") if !optional => Err("an argument in parentheses is required".into()),
                Some(argument) if command.name == "METADATA" => metadata(argument),
                _ => Ok(Self::Constant(None)),
            };
        }
        Self::parse_with_argument(command)
    }

    fn parse_with_argument(command: &CommandText<'_>) -> Result<Self, String> {
        let argument = command.argument.unwrap_or_default();
        let required = || {
            if argument.is_empty() { Err("an argument in parentheses is required".to_owned()) } else { Ok(argument) }
        };
        match command.name {
            "START_TIME" => time_format(argument).map(Self::StartTime),
            "EMIT_TIME" => time_format(argument).map(Self::EmitTime),
            // A pseudo header that does not exist has no value.
            "REQ" | "REQUEST_HEADER" if argument.starts_with(':') && HeaderName::parse(argument).is_err() => {
                Ok(Self::Constant(None))
            }
            "REQ" | "REQUEST_HEADER" => {
                let (name, alternative) = header_names(required()?)?;
                Ok(Self::Request { name, alternative, query: true })
            }
            "REQ_WITHOUT_QUERY" => {
                let (name, alternative) = header_names(required()?)?;
                Ok(Self::Request { name, alternative, query: false })
            }
            "RESP" | "RESPONSE_HEADER" => {
                let (name, alternative) = header_names(required()?)?;
                Ok(Self::Response { name, alternative })
            }
            "PATH" => path(argument),
            "QUERY_PARAM" => Ok(Self::QueryParameter(required()?.as_bytes().into())),
            "RESPONSE_CODE_DETAILS" => Ok(Self::ResponseCodeDetails { keep_blanks: argument == "ALLOW_WHITESPACES" }),
            "GRPC_STATUS" => match argument {
                "" | "CAMEL_STRING" => Ok(Self::GrpcStatus(GrpcStyle::Camel)),
                "SNAKE_STRING" => Ok(Self::GrpcStatus(GrpcStyle::Snake)),
                "NUMBER" => Ok(Self::GrpcStatus(GrpcStyle::Number)),
                _ => Err("the argument is CAMEL_STRING, SNAKE_STRING or NUMBER".into()),
            },
            "REQUESTED_SERVER_NAME" => server_name(argument),
            "COMMON_DURATION" => span(required()?),
            // A variable that is not set is a `-` even in headers.
            "ENVIRONMENT" => {
                let value = std::env::var(required()?).unwrap_or_else(|_| "-".into());
                Ok(Self::Constant(Some(value.into())))
            }
            "START_TIME_LOCAL" | "COALESCE" | "CEL" | "TYPED_CEL" => Err("this operator is not supported".into()),
            _ => Err("there is no such operator".into()),
        }
    }

    /// The same address, of which only the beginning is told.
    fn masked(self, length: u8) -> Self {
        let part = AddressPart::Masked(length);
        match self {
            Self::UpstreamHost(_) => Self::UpstreamHost(part),
            Self::UpstreamLocal(_) => Self::UpstreamLocal(part),
            Self::DownstreamRemote(_) => Self::DownstreamRemote(part),
            Self::DownstreamDirectRemote(_) => Self::DownstreamDirectRemote(part),
            Self::DownstreamLocal(_) => Self::DownstreamLocal(part),
            other => other,
        }
    }

    /// Whether the value, if there is one, is a JSON number.
    pub(super) fn is_number(&self) -> bool {
        match self {
            Self::Span { .. } | Self::GrpcStatus(GrpcStyle::Number) => true,
            Self::UpstreamHost(part)
            | Self::UpstreamLocal(part)
            | Self::DownstreamRemote(part)
            | Self::DownstreamDirectRemote(part)
            | Self::DownstreamLocal(part) => *part == AddressPart::Port,
            Self::Fact(fact) => matches!(
                fact,
                Fact::RequestHeadersBytes
                    | Fact::ResponseHeadersBytes
                    | Fact::ResponseTrailersBytes
                    | Fact::BytesReceived
                    | Fact::BytesSent
                    | Fact::ResponseCode
                    | Fact::Attempts
                    | Fact::ConnectionId
            ),
            _ => false,
        }
    }

    /// Appends the value; tells whether there is one.
    pub(super) fn render(&self, cx: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
        let stream = cx.stream;
        let downstream = stream.downstream;
        match self {
            Self::StartTime(format) => {
                format.render(stream.started_at, out);
                true
            }
            Self::EmitTime(format) => {
                format.render(SystemTime::now(), out);
                true
            }
            Self::Request { name, alternative, query } => {
                let value = header(cx.request, name, alternative.as_ref());
                put(out, if *query { value } else { value.map(without_query) })
            }
            Self::Response { name, alternative } => {
                put(out, cx.response.and_then(|response| header(response, name, alternative.as_ref())))
            }
            Self::Path { query, source } => {
                let path = source.path(cx.request);
                put(out, if *query { path } else { path.map(without_query) })
            }
            Self::QueryParameter(name) => put_decoded(out, query_parameter(cx.request.path(), name)),
            Self::QueryParameters => {
                let path = cx.request.path();
                let query = path.iter().position(|byte| *byte == b'?').map(|mark| &path[mark + 1..]);
                put(out, query.filter(|query| !query.is_empty()))
            }
            Self::ResponseCodeDetails { keep_blanks } => put_text(out, stream.details.as_deref(), !keep_blanks),
            Self::UpstreamHost(part) => stream.upstream_host.is_some_and(|address| part.render(address, out)),
            Self::UpstreamLocal(part) => {
                stream.upstream_local.as_ref().is_some_and(|address| part.render(address.as_str(), out))
            }
            Self::DownstreamRemote(part) => {
                part.render(&stream.client.as_ref().unwrap_or(&downstream.remote).text, out)
            }
            Self::DownstreamDirectRemote(part) => part.render(&downstream.remote.text, out),
            Self::DownstreamLocal(part) => part.render(&downstream.local.text, out),
            Self::GrpcStatus(style) => {
                is_grpc(cx.request) && cx.response.is_some_and(|response| style.render(response, out))
            }
            Self::ServerName { host } => render_server_name(cx, *host, out),
            Self::Span { from, to, unit } => render_span(cx, (*from, *to), *unit, out),
            Self::Fact(fact) => fact.render(cx, out),
            Self::Constant(value) => put(out, value.as_deref().map(str::as_bytes)),
        }
    }
}

impl Fact {
    fn render(self, cx: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
        let stream = cx.stream;
        match self {
            Self::RequestHeadersBytes => put_number(out, cx.request.byte_size() as u64),
            Self::ResponseHeadersBytes => put_number(out, cx.response.map_or(0, Head::byte_size) as u64),
            // Trailers are not carried on.
            Self::ResponseTrailersBytes => put_number(out, 0),
            Self::BytesReceived => put_number(out, stream.bytes_received),
            Self::BytesSent => put_number(out, stream.bytes_sent),
            Self::Protocol => put(out, stream.protocol.map(|protocol| protocol.text().as_bytes())),
            Self::ResponseCode => put_number(out, stream.response_code.into()),
            Self::ConnectionTerminationDetails => put_text(out, stream.termination_details.as_deref(), false),
            Self::Attempts => put_number(out, stream.attempts.into()),
            Self::ResponseFlags => put_flags(cx, Flag::short, out),
            Self::ResponseFlagsLong => put_flags(cx, Flag::long, out),
            Self::RouteName => put_text(out, Some(stream.route_name).filter(|name| !name.is_empty()), false),
            Self::UpstreamCluster => put_text(out, stream.cluster, false),
            Self::UpstreamTransportFailure => put_text(out, stream.transport_failure.as_deref(), true),
            Self::ConnectionId => put_number(out, stream.downstream.id),
            Self::StreamId => put(out, cx.request.get(Known::XRequestId)),
            Self::UniqueId => {
                put_unique_id(out);
                true
            }
            Self::AccessLogType => put(out, Some(if stream.duration.is_some() { b"DownstreamEnd" } else { b"NotSet" })),
        }
    }
}

impl PathSource {
    fn path(self, request: &Head) -> Option<&[u8]> {
        let current = Some(request.path()).filter(|path| !path.is_empty());
        let original = request.get(Known::XEnvoyOriginalPath);
        match self {
            Self::Original => original,
            Self::Current => current,
            Self::OriginalOrCurrent => original.or(current),
        }
    }
}

impl AddressPart {
    /// Appends a part of `ip:port`.
    fn render(self, address: &str, out: &mut Vec<u8>) -> bool {
        let split = address.rsplit_once(':');
        let part = match self {
            Self::Whole => Some(address),
            Self::Ip => split.map(|(ip, _)| ip.trim_start_matches('[').trim_end_matches(']')),
            Self::Port => split.map(|(_, port)| port),
            Self::Masked(length) => return address.parse().is_ok_and(|address| put_masked(out, address, length)),
        };
        put_text(out, part, false)
    }
}

impl GrpcStyle {
    fn render(self, response: &Head, out: &mut Vec<u8>) -> bool {
        const CAMEL: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        const SNAKE: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        let Some(text) = response.get(Known::GrpcStatus) else { return false };
        let Some(number) = str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok()) else { return false };
        let names = match self {
            Self::Camel => &CAMEL,
            Self::Snake => &SNAKE,
            Self::Number => return put_number(out, number as u64),
        };
        match names.get(number) {
            Some(name) => put_text(out, Some(name), false),
            None => put_number(out, number as u64),
        }
    }
}

impl TimePoint {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "DS_RX_BEG" => Ok(Self::Start),
            "DS_RX_END" => Ok(Self::RequestEnd),
            "US_RX_BEG" => Ok(Self::ResponseStart),
            "DS_TX_END" => Ok(Self::End),
            "" => Err("a point of time must not be empty".into()),
            // Envoy's other points, and those that a filter might set.
            _ => Ok(Self::Unknown),
        }
    }

    fn since_start(self, cx: &FormatContext<'_>) -> Option<Duration> {
        let stream = cx.stream;
        match self {
            Self::Start => Some(Duration::ZERO),
            Self::RequestEnd => stream.request_duration,
            Self::ResponseStart => stream.response_duration,
            // Before its end a stream has lasted until now.
            Self::End => Some(stream.duration.unwrap_or_else(|| stream.started.elapsed())),
            Self::Unknown => None,
        }
    }
}

fn fact(name: &str) -> Option<Operator> {
    let millis = |from, to| Operator::Span { from, to, unit: Unit::Millis };
    Some(match name {
        "DURATION" => millis(TimePoint::Start, TimePoint::End),
        "REQUEST_DURATION" => millis(TimePoint::Start, TimePoint::RequestEnd),
        "RESPONSE_DURATION" => millis(TimePoint::Start, TimePoint::ResponseStart),
        "RESPONSE_TX_DURATION" => millis(TimePoint::ResponseStart, TimePoint::End),
        "REQUEST_TX_DURATION" => millis(TimePoint::Start, TimePoint::Unknown),
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" | "UPSTREAM_HOST_NAME" => {
            Operator::UpstreamHost(AddressPart::Whole)
        }
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "UPSTREAM_HOST_NAME_WITHOUT_PORT" => {
            Operator::UpstreamHost(AddressPart::Ip)
        }
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamHost(AddressPart::Port),
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocal(AddressPart::Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocal(AddressPart::Ip),
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocal(AddressPart::Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemote(AddressPart::Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemote(AddressPart::Ip),
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemote(AddressPart::Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemote(AddressPart::Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamDirectRemote(AddressPart::Ip),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemote(AddressPart::Port),
        "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Operator::DownstreamLocal(AddressPart::Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamLocal(AddressPart::Ip)
        }
        "DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT" => Operator::DownstreamLocal(AddressPart::Port),
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcStyle::Number),
        "QUERY_PARAMS" => Operator::QueryParameters,
        "HOSTNAME" => Operator::Constant(host_name()),
        "LOCAL_REPLY_BODY" | "CUSTOM_FLAGS" => Operator::Constant(Some("".into())),
        other => Operator::Fact(match other {
            "REQUEST_HEADERS_BYTES" => Fact::RequestHeadersBytes,
            "RESPONSE_TRAILERS_BYTES" => Fact::ResponseTrailersBytes,
            "RESPONSE_HEADERS_BYTES" => Fact::ResponseHeadersBytes,
            "BYTES_RECEIVED" => Fact::BytesReceived,
            "BYTES_SENT" => Fact::BytesSent,
            "PROTOCOL" => Fact::Protocol,
            "RESPONSE_CODE" => Fact::ResponseCode,
            "CONNECTION_TERMINATION_DETAILS" => Fact::ConnectionTerminationDetails,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Fact::Attempts,
            "RESPONSE_FLAGS" => Fact::ResponseFlags,
            "RESPONSE_FLAGS_LONG" => Fact::ResponseFlagsLong,
            "ROUTE_NAME" => Fact::RouteName,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Fact::UpstreamCluster,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Fact::UpstreamTransportFailure,
            "CONNECTION_ID" => Fact::ConnectionId,
            "STREAM_ID" => Fact::StreamId,
            "UNIQUE_ID" => Fact::UniqueId,
            "ACCESS_LOG_TYPE" => Fact::AccessLogType,
            _ => return None,
        }),
    })
}

fn without_argument(command: &CommandText<'_>, operator: Operator) -> Result<Operator, String> {
    match command.argument {
        None | Some("") => Ok(operator),
        Some(argument) if command.name.ends_with("_WITHOUT_PORT") => Ok(match argument.parse() {
            Ok(length) => operator.masked(length),
            Err(_) => operator,
        }),
        Some(_) => Err("this operator takes no argument".into()),
    }
}

/// A line feed would end a header or a line of a log.
fn time_format(argument: &str) -> Result<TimeFormat, String> {
    if argument.contains("%n") || argument.contains('\n') {
        return Err("a time must not contain a line feed".into());
    }
    Ok(TimeFormat::parse(argument))
}

/// `TYPE:namespace:key`; of none of the types there is anything yet.
fn metadata(argument: &str) -> Result<Operator, String> {
    const TYPES: [&str; 7] =
        ["DYNAMIC", "CLUSTER", "ROUTE", "UPSTREAM_HOST", "LISTENER", "LISTENER_FILTER_CHAIN", "VIRTUAL_HOST"];
    let kind = argument.split(':').next().unwrap_or_default();
    if TYPES.contains(&kind) {
        Ok(Operator::Constant(None))
    } else {
        Err(format!("`{kind}` is no type of metadata; there are {}", TYPES.join(", ")))
    }
}

/// `X` or `X?Y`: a header, or another one if the first is missing.
fn header_names(argument: &str) -> Result<(HeaderName, Option<HeaderName>), String> {
    let parse = |text: &str| HeaderName::parse(text).map_err(|error| format!("`{text}`: {error}"));
    match argument.split_once('?') {
        None => Ok((parse(argument)?, None)),
        Some((_, other)) if other.contains('?') => Err("at most one alternative is possible".into()),
        Some((name, "")) => Ok((parse(name)?, None)),
        Some((name, other)) => Ok((parse(name)?, Some(parse(other)?))),
    }
}

/// `WQ` or `NQ`, then `ORIG`, `PATH` or `ORIG_OR_PATH`; both may be left out.
fn path(argument: &str) -> Result<Operator, String> {
    let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return Err("the first argument is WQ or NQ".into()),
    };
    let source = match source {
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        _ => return Err("the second argument is ORIG, PATH or ORIG_OR_PATH".into()),
    };
    Ok(Operator::Path { query, source })
}

fn server_name(argument: &str) -> Result<Operator, String> {
    let (host, source) = argument.split_once(':').unwrap_or((argument, ""));
    let host = match host {
        "" | "SNI_ONLY" => HostUse::Never,
        "SNI_FIRST" => HostUse::Last,
        "HOST_FIRST" => HostUse::First,
        _ => return Err("the first argument is SNI_ONLY, SNI_FIRST or HOST_FIRST".into()),
    };
    match source {
        "" | "ORIG" | "HOST" | "ORIG_OR_HOST" => Ok(Operator::ServerName { host }),
        _ => Err("the second argument is ORIG, HOST or ORIG_OR_HOST".into()),
    }
}

fn span(argument: &str) -> Result<Operator, String> {
    let mut parts = argument.splitn(3, ':');
    let (Some(from), Some(to)) = (parts.next(), parts.next()) else {
        return Err("the argument is START:END:UNIT".into());
    };
    let unit = match parts.next().unwrap_or("ms") {
        "ms" => Unit::Millis,
        "us" => Unit::Micros,
        "ns" => Unit::Nanos,
        _ => return Err("the unit is ms, us or ns".into()),
    };
    Ok(Operator::Span { from: TimePoint::parse(from)?, to: TimePoint::parse(to)?, unit })
}

/// The name of this machine; `None` if the system does not tell.
fn host_name() -> Option<Box<str>> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim_end().into())
}

fn header<'a>(head: &'a Head, name: &HeaderName, alternative: Option<&HeaderName>) -> Option<&'a [u8]> {
    head.value(name).or_else(|| head.value(alternative?))
}

fn render_server_name(cx: &FormatContext<'_>, host: HostUse, out: &mut Vec<u8>) -> bool {
    let server_name = cx.stream.downstream.server_name.as_deref().map(str::as_bytes);
    let authority = cx.request.authority().filter(|authority| !authority.is_empty());
    let name = match host {
        HostUse::Never => server_name,
        HostUse::Last => server_name.or(authority),
        HostUse::First => authority.or(server_name),
    };
    put(out, name)
}

fn render_span(cx: &FormatContext<'_>, (from, to): (TimePoint, TimePoint), unit: Unit, out: &mut Vec<u8>) -> bool {
    let (Some(from), Some(to)) = (from.since_start(cx), to.since_start(cx)) else { return false };
    let Some(span) = to.checked_sub(from) else { return false };
    let number = match unit {
        Unit::Millis => span.as_millis(),
        Unit::Micros => span.as_micros(),
        Unit::Nanos => span.as_nanos(),
    };
    put_number(out, u64::try_from(number).unwrap_or(u64::MAX))
}

fn put(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value);
            true
        }
        None => false,
    }
}

fn put_text(out: &mut Vec<u8>, value: Option<&str>, underscores_for_blanks: bool) -> bool {
    let start = out.len();
    let present = put(out, value.map(str::as_bytes));
    if underscores_for_blanks {
        for byte in &mut out[start..] {
            if byte.is_ascii_whitespace() {
                *byte = b'_';
            }
        }
    }
    present
}

fn put_number(out: &mut Vec<u8>, number: u64) -> bool {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    true
}

/// Comma-joined; `-` when there are none, in headers too.
fn put_flags(cx: &FormatContext<'_>, name: fn(Flag) -> &'static str, out: &mut Vec<u8>) -> bool {
    let flags = &cx.stream.flags;
    if flags.is_empty() {
        out.push(b'-');
        return true;
    }
    for (index, flag) in flags.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name(flag).as_bytes());
    }
    true
}

fn put_masked(out: &mut Vec<u8>, address: SocketAddr, length: u8) -> bool {
    let (ip, length) = match address.ip() {
        IpAddr::V4(ip) => {
            let length = length.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            (IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask)), length)
        }
        IpAddr::V6(ip) => {
            let length = length.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            (IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask)), length)
        }
    };
    // Writing to a vector does not fail.
    let _ = write!(out, "{ip}/{length}");
    true
}

fn put_decoded(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    let Some(mut rest) = value else { return false };
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |index: usize| char::from(*rest.get(index)?).to_digit(16);
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &rest[3..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    true
}

/// A random UUID (version 4, RFC 9562 section 5.4).
fn put_unique_id(out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (fastrand::u128(..) & !(0xf << 76 | 0x3 << 62)) | 0x4 << 76 | 0x2 << 62;
    for nibble in 0..32 {
        if matches!(nibble, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(HEX[(bits >> (124 - 4 * nibble)) as usize & 0xf]);
    }
}
