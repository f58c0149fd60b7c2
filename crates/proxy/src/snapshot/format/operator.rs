//! Which operators does a format have (`%RESPONSE_CODE%`, `%REQ(…)%`), and with which arguments?

use super::CommandText;
use super::time::TimeFormat;
use crate::http::head::HeaderName;

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
        source: HostSource,
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
    LocalReplyBody,
    UpstreamProtocol,
    UpstreamHostsAttempted,
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

/// Which host `REQUESTED_SERVER_NAME` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostSource {
    /// The one before a rewrite, and only if there was one.
    Original,
    /// The one that the upstream sees.
    Current,
    /// The one that the client sent.
    OriginalOrCurrent,
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
const WITHOUT_SOURCE: [&str; 59] = [
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
        "LOCAL_REPLY_BODY" => Operator::Fact(Fact::LocalReplyBody),
        "CUSTOM_FLAGS" => Operator::Constant(Some("".into())),
        other => Operator::Fact(match other {
            "REQUEST_HEADERS_BYTES" => Fact::RequestHeadersBytes,
            "RESPONSE_TRAILERS_BYTES" => Fact::ResponseTrailersBytes,
            "RESPONSE_HEADERS_BYTES" => Fact::ResponseHeadersBytes,
            "BYTES_RECEIVED" => Fact::BytesReceived,
            "UPSTREAM_PROTOCOL" => Fact::UpstreamProtocol,
            "UPSTREAM_HOSTS_ATTEMPTED" => Fact::UpstreamHostsAttempted,
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
    let source = match source {
        "ORIG" => HostSource::Original,
        "HOST" => HostSource::Current,
        "" | "ORIG_OR_HOST" => HostSource::OriginalOrCurrent,
        _ => return Err("the second argument is ORIG, HOST or ORIG_OR_HOST".into()),
    };
    Ok(Operator::ServerName { host, source })
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
