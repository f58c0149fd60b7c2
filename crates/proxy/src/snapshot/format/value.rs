//! What text does an operator give for a stream?

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::FormatContext;
use super::operator::{AddressPart, Fact, GrpcStyle, HostSource, HostUse, Operator, PathSource, TimePoint, Unit};
use crate::http::head::{Head, HeaderName, Known};
use crate::http::reply::is_grpc;
use crate::http::stream_info::Flag;
use crate::snapshot::matcher::{query_parameter, without_query};

impl Operator {
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
            Self::UpstreamHost(part) => {
                stream.upstream_host.as_deref().is_some_and(|address| part.render(address, out))
            }
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
            Self::ServerName { host, source } => render_server_name(cx, *host, *source, out),
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
            // Both are about the last attempt, if it got as far as a connection.
            Self::UpstreamProtocol => put(out, stream.upstream_local.map(|_| &b"HTTP/1.1"[..])),
            Self::UpstreamHostsAttempted => {
                put_text(out, stream.upstream_host.as_deref().filter(|_| stream.upstream_local.is_some()), false)
            }
            Self::LocalReplyBody => {
                out.extend_from_slice(cx.local_reply);
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

fn header<'a>(head: &'a Head, name: &HeaderName, alternative: Option<&HeaderName>) -> Option<&'a [u8]> {
    head.value(name).or_else(|| head.value(alternative?))
}

fn render_server_name(cx: &FormatContext<'_>, host: HostUse, source: HostSource, out: &mut Vec<u8>) -> bool {
    let server_name = cx.stream.downstream.server_name.as_deref().map(str::as_bytes);
    let original = cx.request.get(Known::XEnvoyOriginalHost);
    let authority = match source {
        HostSource::Original => original,
        HostSource::Current => cx.request.authority(),
        HostSource::OriginalOrCurrent => original.or(cx.request.authority()),
    };
    let authority = authority.filter(|authority| !authority.is_empty());
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
