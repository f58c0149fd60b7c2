//! Is a stream one of those that an access log, or a mapper of local replies, is for? Envoy's `AccessLogFilter`.

use std::time::Duration;

use lateen_xds::envoy::config::accesslog::v3 as accesslog_v3;
use lateen_xds::envoy::data::accesslog::v3::AccessLogType;

use super::Invalid;
use super::format::FormatContext;
use super::matcher::{Fraction, HeaderMatcher, unsupported};
use crate::http::head::Known;
use crate::http::reply;
use crate::http::stream_info::Flag;

/// Deepest nesting of `and_filter` and `or_filter`.
const MAX_DEPTH: usize = 32;

/// A condition on a stream.
#[derive(Debug)]
pub enum LogFilter {
    /// All streams: conditions on what no stream here has, such as health checks.
    Everything,
    /// No stream.
    Nothing,
    /// The status of the response; 0 without one.
    Status(Comparison),
    /// Milliseconds from the start to now.
    Duration(Comparison),
    /// A share of the streams.
    Fraction(Fraction),
    /// A header of the request.
    Header(HeaderMatcher),
    /// One of these flags, or any if there are none.
    Flags(Vec<Box<str>>),
    /// The gRPC status is one of these, or is none of them.
    GrpcStatus {
        /// The statuses.
        statuses: Vec<u32>,
        /// The others are meant.
        exclude: bool,
    },
    /// All of these.
    And(Vec<LogFilter>),
    /// One of these.
    Or(Vec<LogFilter>),
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    operator: Operator,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Equal,
    AtLeast,
    AtMost,
    Different,
}

impl LogFilter {
    /// Reads the message.
    ///
    /// # Errors
    /// A missing condition, an unknown flag, conditions on metadata or tracing, extensions.
    pub(super) fn build(message: &accesslog_v3::AccessLogFilter) -> Result<Self, Invalid> {
        Self::build_at(message, 0)
    }

    fn build_at(message: &accesslog_v3::AccessLogFilter, depth: usize) -> Result<Self, Invalid> {
        use accesslog_v3::access_log_filter::FilterSpecifier as Specifier;
        if depth > MAX_DEPTH {
            return Err(Invalid::at("", format!("filters are nested more than {MAX_DEPTH} levels deep")));
        }
        let all = |filters: &[accesslog_v3::AccessLogFilter], field: &str| {
            let built = filters.iter().enumerate().map(|(index, filter)| {
                Self::build_at(filter, depth + 1).map_err(|invalid| invalid.under(&format!("{field}.filters[{index}]")))
            });
            built.collect::<Result<Vec<_>, _>>()
        };
        match &message.filter_specifier {
            Some(Specifier::StatusCodeFilter(filter)) => {
                Ok(Self::Status(Comparison::build(filter.comparison.as_ref(), "status_code_filter.comparison")?))
            }
            Some(Specifier::DurationFilter(filter)) => {
                Ok(Self::Duration(Comparison::build(filter.comparison.as_ref(), "duration_filter.comparison")?))
            }
            Some(Specifier::NotHealthCheckFilter(_)) => Ok(Self::Everything),
            Some(Specifier::TraceableFilter(_)) => Err(unsupported("traceable_filter", "conditions on tracing")),
            Some(Specifier::RuntimeFilter(filter)) => match &filter.percent_sampled {
                Some(percent) => Fraction::build(percent)
                    .map(Self::Fraction)
                    .map_err(|invalid| invalid.under("runtime_filter.percent_sampled")),
                None => Ok(Self::Nothing),
            },
            Some(Specifier::AndFilter(filter)) => Ok(Self::And(all(&filter.filters, "and_filter")?)),
            Some(Specifier::OrFilter(filter)) => Ok(Self::Or(all(&filter.filters, "or_filter")?)),
            Some(Specifier::HeaderFilter(filter)) => match &filter.header {
                Some(header) => HeaderMatcher::build(header)
                    .map(Self::Header)
                    .map_err(|invalid| invalid.under("header_filter.header")),
                None => Err(Invalid::at("header_filter.header", "a header is required".into())),
            },
            Some(Specifier::ResponseFlagFilter(filter)) => flags(&filter.flags),
            Some(Specifier::GrpcStatusFilter(filter)) => Ok(Self::GrpcStatus {
                statuses: filter.statuses.iter().filter_map(|status| u32::try_from(*status).ok()).collect(),
                exclude: filter.exclude,
            }),
            Some(Specifier::LogTypeFilter(filter)) => {
                // What is logged here is the end of a stream of a client.
                let named = filter.types.contains(&(AccessLogType::DownstreamEnd as i32));
                Ok(if named != filter.exclude { Self::Everything } else { Self::Nothing })
            }
            Some(Specifier::MetadataFilter(_)) => Err(unsupported("metadata_filter", "conditions on metadata")),
            Some(Specifier::ExtensionFilter(filter)) => {
                Err(unsupported("extension_filter", &format!("filters `{}`", filter.name)))
            }
            None => Err(Invalid::at("filter_specifier", "a condition is required".into())),
        }
    }

    /// Whether a stream is meant. `random` decides about shares.
    #[must_use]
    pub fn includes(&self, cx: &FormatContext<'_>, random: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::Status(comparison) => comparison.holds(cx.stream.response_code.into()),
            Self::Duration(comparison) => {
                let duration = cx.stream.duration.unwrap_or_else(|| cx.stream.started.elapsed());
                comparison.holds(millis(duration))
            }
            Self::Fraction(fraction) => fraction.includes(random),
            Self::Header(matcher) => matcher.matches(cx.request),
            Self::Flags(wanted) if wanted.is_empty() => !cx.stream.flags.is_empty(),
            Self::Flags(wanted) => cx.stream.flags.iter().any(|flag| wanted.iter().any(|one| **one == *flag.short())),
            Self::GrpcStatus { statuses, exclude } => statuses.contains(&grpc_status(cx)) != *exclude,
            Self::And(filters) => filters.iter().all(|filter| filter.includes(cx, random)),
            Self::Or(filters) => filters.iter().any(|filter| filter.includes(cx, random)),
        }
    }
}

impl Comparison {
    fn build(message: Option<&accesslog_v3::ComparisonFilter>, path: &str) -> Result<Self, Invalid> {
        use accesslog_v3::comparison_filter::Op;
        let Some(message) = message else { return Err(Invalid::at(path, "a comparison is required".into())) };
        let operator = match Op::try_from(message.op) {
            Ok(Op::Eq) => Operator::Equal,
            Ok(Op::Ge) => Operator::AtLeast,
            Ok(Op::Le) => Operator::AtMost,
            Ok(Op::Ne) => Operator::Different,
            Err(_) => return Err(Invalid::at(format!("{path}.op"), format!("{} is no operator", message.op))),
        };
        let Some(value) = &message.value else {
            return Err(Invalid::at(format!("{path}.value"), "a value is required".into()));
        };
        Ok(Self { operator, value: value.default_value.into() })
    }

    fn holds(self, number: u64) -> bool {
        match self.operator {
            Operator::Equal => number == self.value,
            Operator::AtLeast => number >= self.value,
            Operator::AtMost => number <= self.value,
            Operator::Different => number != self.value,
        }
    }
}

fn flags(names: &[String]) -> Result<LogFilter, Invalid> {
    for (index, name) in names.iter().enumerate() {
        if !Flag::KNOWN.contains(&name.as_str()) {
            let path = format!("response_flag_filter.flags[{index}]");
            return Err(Invalid::at(path, format!("`{name}` is no response flag")));
        }
    }
    Ok(LogFilter::Flags(names.iter().map(|name| name.as_str().into()).collect()))
}

/// The gRPC status of the response, or the one that stands for its HTTP status.
fn grpc_status(cx: &FormatContext<'_>) -> u32 {
    let given = cx.response.and_then(|response| response.get(Known::GrpcStatus));
    given
        .and_then(|text| str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or_else(|| reply::grpc_status(cx.stream.response_code))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::fixture::{connection, request, response, stream};

    fn build(message: Value) -> Result<LogFilter, Invalid> {
        LogFilter::build(&lateen_xds::json::parse(message).unwrap())
    }

    /// Whether a stream with this status and these flags is meant.
    fn includes(message: Value, status: u16, flags: &[Flag]) -> bool {
        let connection = connection();
        let mut stream = stream(&connection);
        stream.response_code = status;
        stream.duration = Some(Duration::from_millis(40));
        for flag in flags {
            stream.flags.raise(*flag);
        }
        let (request, response) = (request("/", &[("x-a", "1")]), response(status, &[]));
        let cx = FormatContext { request: &request, response: Some(&response), stream: &stream, local_reply: b"" };
        build(message).unwrap().includes(&cx, 30)
    }

    fn status(operator: &str, value: u32) -> Value {
        json!({"status_code_filter": {"comparison":
            {"op": operator, "value": {"default_value": value, "runtime_key": "k"}}}})
    }

    #[test]
    fn statuses_are_compared() {
        for (operator, hits) in [
            ("EQ", [false, true, false]),
            ("GE", [false, true, true]),
            ("LE", [true, true, false]),
            ("NE", [true, false, true]),
        ] {
            assert_eq!([399, 400, 401].map(|code| includes(status(operator, 400), code, &[])), hits, "{operator}");
        }
    }

    #[test]
    fn flags_headers_durations_and_shares_are_looked_at() {
        let flagged = |flags: Value| json!({"response_flag_filter": {"flags": flags}});
        assert!(includes(flagged(json!(["UH", "NR"])), 404, &[Flag::NoRouteFound]));
        assert!(!includes(flagged(json!(["UH"])), 404, &[Flag::NoRouteFound]));
        assert!(includes(flagged(json!([])), 404, &[Flag::NoRouteFound]) && !includes(flagged(json!([])), 200, &[]));
        let header = |name: &str| json!({"header_filter": {"header": {"name": name, "present_match": true}}});
        assert!(includes(header("x-a"), 200, &[]) && !includes(header("x-b"), 200, &[]));
        let slow =
            |value: u32| json!({"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": value}}}});
        assert!(includes(slow(40), 200, &[]) && !includes(slow(41), 200, &[]));
        let share = |numerator: u32| json!({"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": numerator}}});
        assert!(includes(share(31), 200, &[]) && !includes(share(30), 200, &[]));
        assert!(!includes(json!({"runtime_filter": {"runtime_key": "k"}}), 200, &[]));
        assert!(includes(json!({"not_health_check_filter": {}}), 200, &[]));
    }

    #[test]
    fn conditions_are_joined() {
        let both = json!({"and_filter": {"filters": [status("GE", 400), status("LE", 499)]}});
        let either = json!({"or_filter": {"filters": [status("EQ", 200), both]}});
        assert_eq!([200, 300, 450, 500].map(|code| includes(either.clone(), code, &[])), [true, false, true, false]);
    }

    #[test]
    fn grpc_statuses_and_kinds_of_logs_are_looked_at() {
        let grpc = |exclude: bool| json!({"grpc_status_filter": {"statuses": ["UNAVAILABLE"], "exclude": exclude}});
        assert!(includes(grpc(false), 503, &[]) && !includes(grpc(true), 503, &[]) && includes(grpc(true), 404, &[]));
        let kind = |types: Value, exclude: bool| json!({"log_type_filter": {"types": types, "exclude": exclude}});
        assert!(includes(kind(json!(["DownstreamEnd"]), false), 200, &[]));
        assert!(!includes(kind(json!(["DownstreamEnd"]), true), 200, &[]));
        assert!(!includes(kind(json!(["TcpConnectionEnd"]), false), 200, &[]));
    }

    #[test]
    fn what_cannot_be_decided_is_refused_with_its_place() {
        let refused = |message: Value| build(message).unwrap_err().path;
        assert_eq!(refused(json!({})), "filter_specifier");
        assert_eq!(refused(json!({"response_flag_filter": {"flags": ["XX"]}})), "response_flag_filter.flags[0]");
        assert_eq!(refused(json!({"traceable_filter": {}})), "traceable_filter");
        let nested = json!({"and_filter": {"filters": [status("EQ", 1), {"metadata_filter": {}}]}});
        assert_eq!(refused(nested), "and_filter.filters[1].metadata_filter");
        let mut deep = status("EQ", 200);
        for _ in 0..40 {
            deep = json!({"or_filter": {"filters": [deep, status("EQ", 1)]}});
        }
        assert!(build(deep).unwrap_err().message.contains("nested"));
    }
}
