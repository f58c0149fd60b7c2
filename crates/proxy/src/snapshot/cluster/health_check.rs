//! How are hosts asked whether they are well? Envoy's active `HealthCheck` by HTTP or TCP.

use std::ops::Range;
use std::time::Duration;

use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::core::v3::health_check as message;
use lateen_xds::envoy::r#type::v3 as type_v3;

use crate::http::head::HeaderName;
use crate::snapshot::Invalid;
use crate::snapshot::fields::duration;
use crate::snapshot::matcher::{StringMatcher, header_name};

/// Envoy's default `no_traffic_interval`.
const DEFAULT_NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Envoy's default `response_buffer_size`.
const DEFAULT_BUFFER: usize = 1024;
/// Where an answer names the service that gave it.
const SERVICE_HEADER: &str = "x-envoy-upstream-healthchecked-cluster";

/// The settings.
#[derive(Debug)]
pub struct HealthCheck {
    /// `timeout` of one check.
    pub timeout: Duration,
    /// `interval` between checks.
    pub interval: Duration,
    /// `unhealthy_interval`.
    pub unhealthy_interval: Duration,
    /// `unhealthy_edge_interval`.
    pub unhealthy_edge_interval: Duration,
    /// `healthy_edge_interval`.
    pub healthy_edge_interval: Duration,
    /// `no_traffic_interval`, before the cluster ever had a connection.
    pub no_traffic_interval: Duration,
    /// `no_traffic_healthy_interval`.
    pub no_traffic_healthy_interval: Duration,
    /// `initial_jitter`.
    pub initial_jitter: Duration,
    /// `interval_jitter`.
    pub interval_jitter: Duration,
    /// `interval_jitter_percent`.
    pub interval_jitter_percent: u32,
    /// `unhealthy_threshold`.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`.
    pub healthy_threshold: u32,
    /// `alt_port`.
    pub port: Option<u16>,
    /// `reuse_connection`.
    pub reuse_connection: bool,
    /// What is asked.
    pub checker: Checker,
}

/// What is asked.
#[derive(Debug)]
pub enum Checker {
    /// An HTTP/1.1 request.
    Http(Box<HttpCheck>),
    /// Bytes, or nothing but a connection.
    Tcp {
        /// What is sent.
        send: Vec<u8>,
        /// What must come, each after the other.
        receive: Vec<Vec<u8>>,
    },
}

/// `HttpHealthCheck`.
#[derive(Debug)]
pub struct HttpCheck {
    /// The method.
    pub method: &'static str,
    /// The request up to the value of `host`.
    pub before_host: Vec<u8>,
    /// The host; the cluster's name unless it is set.
    pub host: Box<str>,
    /// The request after that.
    pub after_host: Vec<u8>,
    /// Statuses that are good.
    pub expected: Vec<Range<u16>>,
    /// Statuses that fail the host only when they come several times.
    pub retriable: Vec<Range<u16>>,
    /// What must be in the body, each after the other.
    pub receive: Vec<Vec<u8>>,
    /// So much of the body is looked at.
    pub buffer: usize,
    /// The header in which the answer names its service, and what that name must be.
    pub service: Option<(HeaderName, StringMatcher)>,
}

impl HealthCheck {
    pub(super) fn build(message: &core_v3::HealthCheck, cluster: &str) -> Result<Self, Invalid> {
        let required = |value: Option<&prost_types::Duration>, field: &str| match optional(value, field)? {
            Some(span) if !span.is_zero() => Ok(span),
            _ => Err(Invalid::at(field, "a duration greater than 0s is required".into())),
        };
        let threshold =
            |value: Option<u32>, field: &str| value.ok_or_else(|| Invalid::at(field, "a threshold is required".into()));
        if message.tls_options.is_some() {
            return Err(Invalid::at("tls_options", "health checks over TLS are not supported yet".into()));
        }
        let interval = required(message.interval.as_ref(), "interval")?;
        let given = |value: Option<&prost_types::Duration>, field: &str, default: Duration| {
            Ok(optional(value, field)?.filter(|span| !span.is_zero()).unwrap_or(default))
        };
        let unhealthy_interval = given(message.unhealthy_interval.as_ref(), "unhealthy_interval", interval)?;
        let no_traffic = given(message.no_traffic_interval.as_ref(), "no_traffic_interval", DEFAULT_NO_TRAFFIC)?;
        Ok(Self {
            timeout: required(message.timeout.as_ref(), "timeout")?,
            interval,
            unhealthy_interval,
            unhealthy_edge_interval: given(
                message.unhealthy_edge_interval.as_ref(),
                "unhealthy_edge_interval",
                unhealthy_interval,
            )?,
            healthy_edge_interval: given(message.healthy_edge_interval.as_ref(), "healthy_edge_interval", interval)?,
            no_traffic_interval: no_traffic,
            no_traffic_healthy_interval: given(
                message.no_traffic_healthy_interval.as_ref(),
                "no_traffic_healthy_interval",
                no_traffic,
            )?,
            initial_jitter: optional(message.initial_jitter.as_ref(), "initial_jitter")?.unwrap_or_default(),
            interval_jitter: optional(message.interval_jitter.as_ref(), "interval_jitter")?.unwrap_or_default(),
            interval_jitter_percent: message.interval_jitter_percent,
            unhealthy_threshold: threshold(message.unhealthy_threshold, "unhealthy_threshold")?,
            healthy_threshold: threshold(message.healthy_threshold, "healthy_threshold")?,
            port: message.alt_port.and_then(|port| u16::try_from(port).ok()),
            reuse_connection: message.reuse_connection.unwrap_or(true),
            checker: checker(message, cluster)?,
        })
    }
}

fn optional(value: Option<&prost_types::Duration>, field: &str) -> Result<Option<Duration>, Invalid> {
    value.map(|value| duration(value, field)).transpose()
}

fn checker(message: &core_v3::HealthCheck, cluster: &str) -> Result<Checker, Invalid> {
    use message::HealthChecker;
    match &message.health_checker {
        Some(HealthChecker::HttpHealthCheck(http)) => {
            let built = HttpCheck::build(http, cluster).map_err(|invalid| invalid.under("http_health_check"))?;
            Ok(Checker::Http(Box::new(built)))
        }
        Some(HealthChecker::TcpHealthCheck(tcp)) => Ok(Checker::Tcp {
            send: tcp.send.as_ref().map(|send| payload(send, "tcp_health_check.send")).transpose()?.unwrap_or_default(),
            receive: payloads(&tcp.receive, "tcp_health_check.receive")?,
        }),
        Some(HealthChecker::GrpcHealthCheck(_)) => {
            Err(Invalid::at("grpc_health_check", "health checks by gRPC are not supported yet".into()))
        }
        Some(HealthChecker::CustomHealthCheck(_)) => {
            Err(Invalid::at("custom_health_check", "custom health checks are not supported".into()))
        }
        None => Err(Invalid::at("health_checker", "a kind of check is required".into())),
    }
}

impl HttpCheck {
    fn build(message: &message::HttpHealthCheck, cluster: &str) -> Result<Self, Invalid> {
        if message.send.is_some() {
            return Err(Invalid::at("send", "request bodies of health checks are not supported".into()));
        }
        if message.codec_client_type != i32::from(type_v3::CodecClientType::Http1) {
            return Err(Invalid::at("codec_client_type", "only HTTP/1.1 is supported yet".into()));
        }
        if message.path.is_empty() {
            return Err(Invalid::at("path", "a path is required".into()));
        }
        let method = match core_v3::RequestMethod::try_from(message.method) {
            Ok(core_v3::RequestMethod::MethodUnspecified) => "GET",
            Ok(core_v3::RequestMethod::Connect) => {
                return Err(Invalid::at("method", "CONNECT is no method of a health check".into()));
            }
            Ok(method) => method.as_str_name(),
            Err(_) => return Err(Invalid::at("method", format!("{} is no method", message.method))),
        };
        // Nothing that would end the line may get into the request.
        let text = |value: &str, field: &str| match value.bytes().any(|byte| byte.is_ascii_control()) {
            true => Err(Invalid::at(field, "control characters are not allowed".into())),
            false => Ok(()),
        };
        text(&message.path, "path")?;
        text(&message.host, "host")?;
        let after_host = headers(message)?;
        Ok(Self {
            method,
            before_host: format!("{method} {} HTTP/1.1\r\nhost: ", message.path).into_bytes(),
            host: if message.host.is_empty() { cluster.into() } else { message.host.as_str().into() },
            after_host,
            expected: match message.expected_statuses.as_slice() {
                [] => std::iter::once(200..201).collect(),
                given => statuses(given, "expected_statuses")?,
            },
            retriable: statuses(&message.retriable_statuses, "retriable_statuses")?,
            receive: payloads(&message.receive, "receive")?,
            buffer: message
                .response_buffer_size
                .map_or(DEFAULT_BUFFER, |size| usize::try_from(size).unwrap_or(usize::MAX)),
            service: message
                .service_name_matcher
                .as_ref()
                .map(|matcher| {
                    let name = header_name(SERVICE_HEADER, "service_name_matcher")?;
                    let matcher = StringMatcher::build(matcher).map_err(|i| i.under("service_name_matcher"))?;
                    Ok((name, matcher))
                })
                .transpose()?,
        })
    }
}

/// The header lines after `host`, up to the empty line.
fn headers(message: &message::HttpHealthCheck) -> Result<Vec<u8>, Invalid> {
    let mut fields = vec![("user-agent".to_owned(), "Envoy/HC".to_owned())];
    fields.retain(|(name, _)| !message.request_headers_to_remove.iter().any(|gone| gone.eq_ignore_ascii_case(name)));
    for (index, option) in message.request_headers_to_add.iter().enumerate() {
        let path = format!("request_headers_to_add[{index}].header");
        let Some(header) = &option.header else { return Err(Invalid::at(path, "a header is required".into())) };
        header_name(&header.key, &format!("{path}.key"))?;
        if header.value.contains('%') || header.value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Invalid::at(format!("{path}.value"), "only plain text is supported".into()));
        }
        use core_v3::header_value_option::HeaderAppendAction as Action;
        let known = fields.iter().position(|(name, _)| name.eq_ignore_ascii_case(&header.key));
        let field = (header.key.to_ascii_lowercase(), header.value.clone());
        match (option.append_action(), known) {
            (Action::OverwriteIfExistsOrAdd | Action::OverwriteIfExists, Some(index)) => fields[index] = field,
            (Action::AddIfAbsent, Some(_)) | (Action::OverwriteIfExists, None) => {}
            _ => fields.push(field),
        }
    }
    let mut text = String::from("\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

fn statuses(ranges: &[type_v3::Int64Range], field: &str) -> Result<Vec<Range<u16>>, Invalid> {
    let range = |(index, range): (usize, &type_v3::Int64Range)| {
        let path = format!("{field}[{index}]");
        let bound = |bound: i64| u16::try_from(bound).ok().filter(|bound| (100..=600).contains(bound));
        match (bound(range.start), bound(range.end)) {
            (Some(start), Some(end)) if start < end => Ok(start..end),
            _ => Err(Invalid::at(path, format!("{} to {} is no range of statuses", range.start, range.end))),
        }
    };
    ranges.iter().enumerate().map(range).collect()
}

fn payloads(messages: &[message::Payload], field: &str) -> Result<Vec<Vec<u8>>, Invalid> {
    messages.iter().enumerate().map(|(index, message)| payload(message, &format!("{field}[{index}]"))).collect()
}

/// Text is hexadecimal.
fn payload(message: &message::Payload, field: &str) -> Result<Vec<u8>, Invalid> {
    use message::payload::Payload;
    match &message.payload {
        Some(Payload::Binary(bytes)) => Ok(bytes.clone()),
        Some(Payload::Text(text)) => {
            let wrong = || Invalid::at(field, format!("`{text}` is no hexadecimal text"));
            let digits: Vec<u8> = text
                .bytes()
                .map(|byte| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or_else(wrong))
                .collect::<Result<_, _>>()?;
            if digits.len() % 2 == 1 || digits.is_empty() {
                return Err(wrong());
            }
            Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        None => Err(Invalid::at(field, "a payload is required".into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(checker: Value) -> Result<HealthCheck, Invalid> {
        let mut check = json!({"timeout": "1s", "interval": "5s", "unhealthy_threshold": 2, "healthy_threshold": 3});
        check.as_object_mut().unwrap().extend(checker.as_object().unwrap().clone());
        HealthCheck::build(&lateen_xds::json::parse(check).unwrap(), "cluster-name")
    }

    fn http(settings: Value) -> Result<(HealthCheck, String), Invalid> {
        let check = build(json!({"http_health_check": settings}))?;
        let Checker::Http(http) = &check.checker else { panic!("no HTTP") };
        let request = [&*http.before_host, http.host.as_bytes(), &*http.after_host].concat();
        let request = String::from_utf8(request).unwrap();
        Ok((check, request))
    }

    #[test]
    fn the_request_is_envoys() {
        let (_, request) = http(json!({"path": "/healthz"})).unwrap();
        assert_eq!(request, "GET /healthz HTTP/1.1\r\nhost: cluster-name\r\nuser-agent: Envoy/HC\r\n\r\n");
        let (_, request) = http(json!({"path": "/h", "host": "h.example", "method": "HEAD",
            "request_headers_to_add": [{"header": {"key": "X-A", "value": "1"}}],
            "request_headers_to_remove": ["user-agent"]}))
        .unwrap();
        assert_eq!(request, "HEAD /h HTTP/1.1\r\nhost: h.example\r\nx-a: 1\r\n\r\n");
    }

    #[test]
    fn what_is_not_said_follows_from_the_rest() {
        let (check, _) = http(json!({"path": "/"})).unwrap();
        assert_eq!(check.unhealthy_interval, Duration::from_secs(5));
        assert_eq!(check.no_traffic_healthy_interval, Duration::from_secs(60));
        assert!(check.reuse_connection);
        let check = build(json!({"tcp_health_check": {}, "unhealthy_interval": "2s"})).unwrap();
        assert_eq!((check.unhealthy_edge_interval, check.healthy_edge_interval).0, Duration::from_secs(2));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_path() {
        let path = |settings: Value| build(settings).unwrap_err().path;
        assert_eq!(path(json!({"tcp_health_check": {}, "interval": "0s"})), "interval");
        assert_eq!(path(json!({})), "health_checker");
        assert_eq!(path(json!({"grpc_health_check": {}})), "grpc_health_check");
        assert_eq!(path(json!({"tcp_health_check": {"send": {"text": "0"}}})), "tcp_health_check.send");
        assert_eq!(path(json!({"http_health_check": {"path": "/\r\nx: y"}})), "http_health_check.path");
        let statuses = json!({"http_health_check": {"path": "/", "expected_statuses": [{"start": 300, "end": 200}]}});
        assert_eq!(path(statuses), "http_health_check.expected_statuses[0]");
    }

    #[test]
    fn payloads_are_hexadecimal_text_or_bytes() {
        let check = build(json!({"tcp_health_check": {"send": {"text": "50696E67"}, "receive": [{"binary": "cG8="}]}}));
        match check.unwrap().checker {
            Checker::Tcp { send, receive } => assert_eq!((send, receive), (b"Ping".to_vec(), vec![b"po".to_vec()])),
            Checker::Http(_) => panic!("no TCP"),
        }
    }
}
