//! The results were observed on Envoy 1.40.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::http::stream_info::{AddressText, DownstreamConnection, Flag, Protocol};
use crate::snapshot::fixture::{connection, request, response, stream};

fn requested() -> Head {
    request(
        "/p?q=1&r=%20&s",
        &[("x", "v\"\\"), ("y", ""), ("x", "second"), ("long", "abcdefgh"), ("x-envoy-original-path", "/orig?z")],
    )
}

/// A stream that ended.
fn ended(connection: &DownstreamConnection) -> StreamInfo<'_> {
    let mut stream = stream(connection);
    stream.started_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_409_939_049);
    stream.protocol = Some(Protocol::Http11);
    stream.route_name = "rt";
    stream.cluster = Some("b1");
    stream.upstream_host = Some("10.0.0.3:8080".into());
    stream.upstream_local = Some(AddressText::new("10.0.0.2:50220".parse().unwrap()));
    stream.attempts = 1;
    stream.response_code = 200;
    stream.details = Some("via_upstream".into());
    stream.bytes_received = 5;
    stream.bytes_sent = 223;
    stream.request_duration = Some(Duration::from_micros(900));
    stream.response_duration = Some(Duration::from_micros(2_500));
    stream.duration = Some(Duration::from_micros(12_345));
    stream
}

fn rendered(format: &Format, empty: Empty) -> String {
    let connection = connection();
    let (request, response) = (requested(), response(200, &[("x-up", "u1"), ("x-up", "u2")]));
    let stream = ended(&connection);
    let mut out = b"|".to_vec();
    format.render(
        &FormatContext { request: &request, response: Some(&response), stream: &stream, local_reply: b"" },
        empty,
        &mut out,
    );
    String::from_utf8(out).unwrap()[1..].to_owned()
}

/// The text in an access log.
fn log(format: &str) -> String {
    rendered(&Format::parse(format).unwrap(), Empty::Dash)
}

/// The text in a header.
fn header(format: &str) -> String {
    rendered(&Format::parse(format).unwrap(), Empty::Blank)
}

#[test]
fn headers_of_the_request_have_alternatives_and_a_length() {
    assert_eq!(log("%REQ(X)%"), "v\"\\");
    assert_eq!(log("%REQ(N?X)%"), "v\"\\");
    assert_eq!(log("%REQ(X?)%"), "v\"\\");
    assert_eq!(log("%REQ(X?Y):2%"), "v\"");
    assert_eq!(log("%REQ(LONG):3%|%REQ(LONG):0%|%REQ(LONG):100%"), "abc||abcdefgh");
    assert_eq!(log("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)%"), "GET /orig?z a.com");
    assert_eq!(log("%REQ(HOST)% %REQ(:SCHEME)% %REQUEST_HEADER(Long)%"), "a.com http abcdefgh");
    assert_eq!(log("%REQ_WITHOUT_QUERY(:PATH)%"), "/p");
}

#[test]
fn a_missing_value_is_a_dash_in_logs_and_nothing_in_headers() {
    assert_eq!(log("%REQ(N)%|%REQ(N?M)%|%RESP(N)%|%CONNECTION_TERMINATION_DETAILS%"), "-|-|-|-");
    assert_eq!(header("%REQ(N)%|z"), "|z");
    assert_eq!(log("%REQ(Y)%|%REQ(Y?X)%"), "|");
    assert_eq!(header("%RESPONSE_FLAGS%"), "-");
}

#[test]
fn a_log_can_leave_missing_values_out() {
    let format = Format::parse("a=%REQ(N)% b=%REQ(Y)% c=%RESPONSE_FLAGS%").unwrap().omitting_empty(true);
    assert_eq!(rendered(&format, Empty::Dash), "a= b= c=-");
}

#[test]
fn headers_of_the_response_are_the_first_of_their_lines() {
    assert_eq!(log("%RESP(X-UP)% %RESP(:STATUS)% %RESPONSE_HEADER(N?X-UP):1%"), "u1 200 u");
}

#[test]
fn paths_and_query_parameters_can_be_told() {
    assert_eq!(log("%PATH%|%PATH(WQ)%|%PATH(NQ)%|%PATH(NQ:ORIG)%"), "/orig?z|/orig?z|/orig|/orig");
    assert_eq!(log("%PATH(WQ:PATH)%|%PATH(WQ:ORIG_OR_PATH)%|%PATH(NQ:PATH):1%"), "/p?q=1&r=%20&s|/orig?z|/");
    assert_eq!(log("%QUERY_PARAM(q)%|%QUERY_PARAM(r)%|%QUERY_PARAM(s)%|%QUERY_PARAM(n)%"), "1| ||-");
    assert_eq!(log("%QUERY_PARAMS%"), "q=1&r=%20&s");
}

#[test]
fn facts_of_the_stream_are_told() {
    assert_eq!(log("%PROTOCOL% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %ROUTE_NAME%"), "HTTP/1.1 200 via_upstream rt");
    assert_eq!(log("%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %CONNECTION_ID%"), "5 223 1 7");
    assert_eq!(log("%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% %ACCESS_LOG_TYPE%"), "b1 b1 DownstreamEnd");
    assert_eq!(log("%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(HOST_FIRST)%"), "- a.com");
    assert_eq!(log("%REQUESTED_SERVER_NAME(SNI_FIRST:ORIG)% %REQUESTED_SERVER_NAME(SNI_FIRST:HOST)%"), "- a.com");
    assert_eq!(log("%UPSTREAM_PROTOCOL% %UPSTREAM_HOSTS_ATTEMPTED%"), "HTTP/1.1 10.0.0.3:8080");
    assert_eq!(log("%LOCAL_REPLY_BODY%%CUSTOM_FLAGS%|%RESPONSE_TRAILERS_BYTES%"), "|0");
}

#[test]
fn a_server_name_may_be_the_host_before_its_rewrite() {
    let connection = connection();
    let stream = stream(&connection);
    let request = request("/", &[("x-envoy-original-host", "before.com")]);
    let name = |source: &str| {
        let format = Format::parse(&format!("%REQUESTED_SERVER_NAME(HOST_FIRST{source})%")).unwrap();
        let mut out = Vec::new();
        let cx = FormatContext { request: &request, response: None, stream: &stream, local_reply: b"" };
        format.render(&cx, Empty::Dash, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        [name(""), name(":ORIG_OR_HOST"), name(":ORIG"), name(":HOST")],
        ["before.com", "before.com", "before.com", "a.com"]
    );
}

#[test]
fn an_attempt_without_a_connection_has_neither_protocol_nor_host() {
    let connection = connection();
    let mut stream = ended(&connection);
    stream.upstream_local = None;
    let (request, mut out) = (requested(), Vec::new());
    let cx = FormatContext { request: &request, response: None, stream: &stream, local_reply: b"" };
    Format::parse("%UPSTREAM_PROTOCOL%%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_HOST%").unwrap().render(
        &cx,
        Empty::Dash,
        &mut out,
    );
    assert_eq!(out, b"-- 10.0.0.3:8080");
}

#[test]
fn durations_are_whole_milliseconds() {
    assert_eq!(log("%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%"), "12 0 2 9");
    assert_eq!(log("%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%"), "2500");
    assert_eq!(log("%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%|%COMMON_DURATION(X:Y:ns)%"), "0|-");
}

#[test]
fn addresses_are_told_with_and_without_port_or_masked() {
    assert_eq!(
        log("%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_ADDRESS%"),
        "10.0.0.3:8080 8080 10.0.0.2:50220"
    );
    assert_eq!(log("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"), "10.0.0.1:1234 10.0.0.1");
    assert_eq!(log("%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT%"), "10.0.0.2:80 80");
    assert_eq!(log("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%"), "10.0.0.0/8");
    assert_eq!(log("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)%"), "10.0.0.1/32");
    assert_eq!(
        log("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(x)%|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT()%"),
        "10.0.0.2|10.0.0.2"
    );
}

#[test]
fn blanks_in_details_become_underscores() {
    let connection = connection();
    let mut stream = ended(&connection);
    stream.details = Some("a b\tc".into());
    stream.transport_failure = Some("delayed connect error: Connection refused".into());
    stream.flags.raise(Flag::UpstreamConnectionFailure);
    stream.flags.raise(Flag::UpstreamRetryLimitExceeded);
    let format = Format::parse(
        "%RESPONSE_CODE_DETAILS%|%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|\
         %RESPONSE_FLAGS%|%RESPONSE_FLAGS_LONG%",
    )
    .unwrap();
    let mut out = Vec::new();
    let request = requested();
    format.render(
        &FormatContext { request: &request, response: None, stream: &stream, local_reply: b"" },
        Empty::Dash,
        &mut out,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "a_b_c|a b\tc|delayed_connect_error:_Connection_refused|UF,URX|\
         UpstreamConnectionFailure,UpstreamRetryLimitExceeded"
    );
}

#[test]
fn a_grpc_status_is_told_for_grpc_requests_only() {
    let connection = connection();
    let stream = ended(&connection);
    let response = response(200, &[("grpc-status", "5")]);
    let format =
        Format::parse("%GRPC_STATUS%|%GRPC_STATUS(SNAKE_STRING)%|%GRPC_STATUS(NUMBER)%|%GRPC_STATUS_NUMBER%").unwrap();
    let told = |kind: &str| {
        let request = request("/", &[("content-type", kind)]);
        let mut out = Vec::new();
        let context = FormatContext { request: &request, response: Some(&response), stream: &stream, local_reply: b"" };
        format.render(&context, Empty::Dash, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(told("application/grpc"), "NotFound|NOT_FOUND|5|5");
    assert_eq!(told("text/plain"), "-|-|-|-");
}

#[test]
fn the_time_of_the_start_has_a_default_and_formats() {
    assert_eq!(log("[%START_TIME%]"), "[2026-11-23T04:58:59.049Z]");
    assert_eq!(log("%START_TIME(%s.%3f)%"), "1795409939.049");
    assert_eq!(log("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%"), "2026/11/23T04:58:59+0000");
    assert_eq!(log("%START_TIME()%"), log("%START_TIME%"));
}

#[test]
fn identifiers_are_told() {
    let unique = log("%UNIQUE_ID%");
    assert_eq!((unique.len(), unique.as_bytes()[14]), (36, b'4'));
    assert_ne!(unique, log("%UNIQUE_ID%"));
    assert_eq!(log("%STREAM_ID%"), "-");
}

#[test]
fn the_environment_is_read_once() {
    let path = std::env::var("PATH").unwrap();
    let format = Format::parse("%ENVIRONMENT(PATH):3%").unwrap();
    assert_eq!(format.constant(), Some(&path.as_bytes()[..3]));
    assert_eq!(header("%ENVIRONMENT(LATEEN_THERE_IS_NO_SUCH_VARIABLE)%"), "-");
    assert!(!log("%HOSTNAME%").is_empty());
}

#[test]
fn percent_signs_are_doubled() {
    assert_eq!(log("100%%"), "100%");
    assert_eq!(log("%%%REQ(LONG)%%%"), "%abcdefgh%");
    assert_eq!(Format::parse("a%%b").unwrap().constant(), Some(&b"a%b"[..]));
    assert_eq!(Format::parse("").unwrap().constant(), Some(&b""[..]));
    assert_eq!(Format::parse("%PROTOCOL%").unwrap().constant(), None);
}

#[test]
fn what_envoy_refuses_is_refused() {
    for format in [
        "100% done",
        "100%",
        "%REQ(X) %",
        "%REQ(X):3",
        "%REQ(LONG):%",
        "%req(X)%",
        "% REQ(X)%",
        "%REQ(X)%%",
        "%REQ(a b)%",
        "%REQ()%",
        "%REQ%",
        "%REQ(X?Y?Z)%",
        "%NOPE%",
        "%PER_REQUEST_STATE(x)%",
        "%START_TIME:5%",
        "%START_TIME(%n)%",
        "%RESPONSE_CODE(X)%",
        "%RESPONSE_CODE:3%",
        "%BYTES_SENT:2%",
        "%PATH(X)%",
        "%PATH(NQ:X)%",
        "%GRPC_STATUS(X)%",
        "%REQUESTED_SERVER_NAME(X)%",
        "%REQUESTED_SERVER_NAME(SNI_ONLY:X)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:s)%",
        "%ENVIRONMENT%",
        "%QUERY_PARAM()%",
        "%TRAILER()%",
        "%DYNAMIC_METADATA%",
        "%METADATA(X:a)%",
    ] {
        assert!(Format::parse(format).is_err(), "{format}");
    }
}

#[test]
fn operators_without_a_source_are_known_and_missing() {
    for operator in [
        "DYNAMIC_METADATA(a:b):3",
        "METADATA(ROUTE:a:b)",
        "FILTER_STATE(k:PLAIN)",
        "TRAILER(x)",
        "DOWNSTREAM_PEER_URI_SAN",
        "DOWNSTREAM_PEER_CERT_V_START(%Y)",
        "DOWNSTREAM_TLS_VERSION",
        "UPSTREAM_WIRE_BYTES_SENT",
        "REQ(:foo)",
        "PROTOCOL()",
    ] {
        let expected = if operator.starts_with("PROTOCOL") { "HTTP/1.1" } else { "-" };
        assert_eq!(log(&format!("%{operator}%")), expected, "{operator}");
    }
}

#[test]
fn the_default_formats_of_envoy_and_istio_can_be_parsed() {
    let istio = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
        \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
        \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
        %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% \
        %ROUTE_NAME%\n";
    assert_eq!(
        log(istio),
        "[2026-11-23T04:58:59.049Z] \"GET /orig?z HTTP/1.1\" 200 - via_upstream - \"-\" 5 223 12 - \"-\" \"-\" \"-\" \
         \"a.com\" \"10.0.0.3:8080\" b1 10.0.0.2:50220 10.0.0.2:80 10.0.0.1:1234 - rt\n"
    );
}

fn structure(fields: Value) -> prost_types::Struct {
    use lateen_xds::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string::Format};
    let message: SubstitutionFormatString = lateen_xds::json::parse(json!({"json_format": fields})).unwrap();
    match message.format {
        Some(Format::JsonFormat(fields)) => fields,
        other => panic!("{other:?}"),
    }
}

fn json_line(fields: Value, omit_empty: bool, request: &Head) -> String {
    let format = JsonFormat::build(&structure(fields), omit_empty).unwrap();
    let connection = connection();
    let stream = ended(&connection);
    let mut out = Vec::new();
    format.render(&FormatContext { request, response: None, stream: &stream, local_reply: b"" }, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn json_has_sorted_keys_and_typed_values() {
    let line = json_line(
        json!({
            "z": null, "a": true, "n": 5, "f": 1.5, "neg": -0.25, "empty": "",
            "list": ["%PROTOCOL%", 1, {"code": "%RESPONSE_CODE%"}],
            "nested": {"bytes": "%BYTES_SENT% b", "nothing": {}},
            "flags": "%RESPONSE_FLAGS%", "missing": "%REQ(N)%", "mixed": "x %REQ(N)%", "present": "%REQ(Y)%",
            "port": "%UPSTREAM_REMOTE_PORT%", "percent": "100%%",
        }),
        false,
        &requested(),
    );
    assert_eq!(
        line,
        "{\"a\":true,\"empty\":\"\",\"f\":1.5,\"flags\":\"-\",\"list\":[\"HTTP/1.1\",1,{\"code\":200}],\
         \"missing\":null,\"mixed\":\"x -\",\"n\":5,\"neg\":-0.25,\"nested\":{\"bytes\":\"223 b\",\"nothing\":{}},\
         \"percent\":\"100%\",\"port\":8080,\"present\":\"\",\"z\":null}\n"
    );
    assert_eq!(json_line(json!({}), false, &requested()), "{}\n");
}

#[test]
fn json_strings_are_escaped() {
    let mut head = request("/", &[("u", "tab\tquote\"slash\\ä€😀\u{1}")]);
    assert_eq!(
        json_line(json!({"u": "%REQ(U)%", "k\"": "l\u{7f}\n"}), false, &head),
        "{\"k\\\"\":\"l\u{7f}\\n\",\"u\":\"tab\\tquote\\\"slash\\\\ä€😀\\u0001\"}\n"
    );
    head.set(&crate::http::head::HeaderName::parse("u").unwrap(), b"\xc3\xa4\xff");
    assert_eq!(json_line(json!({"u": "%REQ(U)%"}), false, &head), "{\"u\":\"\\u00c3\\u00a4\\u00ff\"}\n");
}

#[test]
fn json_can_leave_missing_values_out() {
    let fields = json!({
        "a": "%REQ(N)%", "b": "x%REQ(N)%", "c": "", "d": {"k": "%REQ(N)%"}, "l": ["%REQ(N)%"], "n": null,
        "t": "%RESPONSE_FLAGS%", "y": "%REQ(Y)%",
    });
    assert_eq!(json_line(fields, true, &requested()), "{\"b\":\"x\",\"c\":\"\",\"l\":[],\"t\":\"-\",\"y\":\"\"}\n");
}

#[test]
fn a_bad_json_format_names_its_key() {
    let error = JsonFormat::build(&structure(json!({"a": {"b": "%NOPE%"}})), false).unwrap_err();
    assert!(error.to_string().starts_with("a: b: `%NOPE%`"), "{error}");
}

proptest! {
    #[test]
    fn no_format_panics(text in "\\PC{0,40}") {
        if let Ok(format) = Format::parse(&text) {
            let _ = rendered(&format, Empty::Dash);
        }
    }

    #[test]
    fn no_format_of_operators_panics(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "%", "%%", "REQ", "(", ")", ":", "3", "X", "?", "START_TIME", "%s", "%9f", "PATH", "NQ", "DURATION",
                "COMMON_DURATION", "_WITHOUT_PORT", "DOWNSTREAM_REMOTE_ADDRESS", "QUERY_PARAM", "é", "ENVIRONMENT",
            ]),
            0..10,
        ),
    ) {
        if let Ok(format) = Format::parse(&parts.concat()) {
            let _ = rendered(&format, Empty::Blank);
        }
    }
}
