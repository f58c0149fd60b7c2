//! What does a line of Istio's default access log say?
//!
//! The line is the text format of Istio's `meshConfig.accessLogFormat` default: blank-separated values, some in double
//! quotes, the start time in brackets, method, path and protocol together in one pair of quotes.

use std::collections::BTreeMap;

/// The names of the values in the order of the line, as Istio's JSON format names them.
pub const FIELDS: [&str; 24] = [
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
];

/// Istio's default text format with its operators, without the line end: what a proxy is told to write.
pub const FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%"
);

/// One line by field name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The values, each under its name of [`FIELDS`].
    pub fields: BTreeMap<&'static str, String>,
}

impl Entry {
    /// The value of a field; `-` when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("-", String::as_str)
    }
}

/// Parses one line.
///
/// # Errors
/// The line itself, when it does not have the format's shape.
pub fn parse(line: &str) -> Result<Entry, String> {
    let wrong = || format!("not a line of the default access log: {line}");
    let mut values = Vec::with_capacity(FIELDS.len());
    let mut rest = line.trim_end();
    while !rest.is_empty() {
        let (value, after) = match rest.as_bytes().first() {
            Some(b'[') => rest[1..].split_once(']').ok_or_else(wrong)?,
            Some(b'"') => {
                let inner = &rest[1..];
                // A quote ends the value only before a blank or at the line's end: values are not escaped.
                let end = inner.find("\" ").or_else(|| inner.strip_suffix('"').map(str::len)).ok_or_else(wrong)?;
                (&inner[..end], &inner[end + 1..])
            }
            _ => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
        };
        values.push(value.to_owned());
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    if values.len() + 2 != FIELDS.len() {
        return Err(wrong());
    }
    let mut request = values[1].splitn(3, ' ').map(str::to_owned);
    let request = [request.next(), request.next(), request.next()].map(Option::unwrap_or_default);
    values.splice(1..2, request);
    Ok(Entry { fields: FIELDS.into_iter().zip(values).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_finds_its_name() {
        let line = "[2026-11-23T05:16:11.060Z] \"GET /x?a HTTP/1.1\" 503 URX,UF \
            upstream_reset_before_response_started{remote_connection_failure|x} - \"delayed connect error: 111\" 0 320 \
            7 - \"10.0.0.1\" \"row-3\" \"c601bf28\" \"a.com\" \"127.0.0.1:20002\" outbound|80||a 127.0.0.1:1 \
            127.0.0.1:2 127.0.0.1:3 - cart\n";
        let entry = parse(line).unwrap();
        assert_eq!(entry.get("path"), "/x?a");
        assert_eq!(entry.get("response_flags"), "URX,UF");
        assert_eq!(entry.get("upstream_transport_failure_reason"), "delayed connect error: 111");
        assert_eq!(entry.get("bytes_sent"), "320");
        assert_eq!(entry.get("upstream_service_time"), "-");
        assert_eq!(entry.get("user_agent"), "row-3");
        assert_eq!(entry.get("upstream_cluster"), "outbound|80||a");
        assert_eq!(entry.get("route_name"), "cart");
    }

    #[test]
    fn the_format_has_one_operator_for_each_field() {
        let operators = FORMAT.matches('%').count() / 2;
        assert_eq!(operators, FIELDS.len());
    }

    #[test]
    fn a_line_of_another_shape_is_refused() {
        assert!(parse("GET / 200").is_err());
        assert!(parse("[x] \"open").is_err());
    }
}
