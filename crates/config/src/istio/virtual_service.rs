//! What can a VirtualService say? Its fields as Istio's API has them (`networking.istio.io/v1`, VirtualService).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decode::{Base64, Decode, Decoder, Field, Oneof, enumeration, enumeration_index, message, oneof};
use crate::node::Node;

message! {
    /// How requests for some hosts are routed.
    pub struct VirtualService {
        /// Hosts that the rules are for. Empty: it can only be delegated to.
        hosts: Vec<String>,
        /// Gateways that it is bound to; `mesh` stands for all sidecars. Empty means `mesh`.
        gateways: Vec<String>,
        /// Rules for HTTP, the first that matches counts.
        http: Vec<HttpRoute>,
        /// Rules for TLS that is passed through.
        tls: Vec<TlsRoute>,
        /// Rules for other TCP.
        tcp: Vec<TcpRoute>,
        /// Namespaces that see it: `*`, `.` or a name. Empty: as the mesh says.
        export_to: Vec<String>,
    }

    /// One rule for HTTP requests.
    pub struct HttpRoute {
        /// Name, used in names of routes.
        name: Option<String>,
        /// When it applies: any of these. Empty: always.
        r#match: Vec<HttpMatchRequest>,
        /// Where requests go.
        route: Vec<HttpRouteDestination>,
        /// Answer with a redirect instead.
        redirect: Option<HttpRedirect>,
        /// Answer with a fixed response instead.
        direct_response: Option<HttpDirectResponse>,
        /// Another VirtualService that decides.
        delegate: Option<Delegate>,
        /// What to change in the path and the authority.
        rewrite: Option<HttpRewrite>,
        /// Time until the whole response has to be there, retries included.
        timeout: Option<Duration>,
        /// When and how often to try again.
        retries: Option<HttpRetry>,
        /// Faults to inject.
        fault: Option<HttpFaultInjection>,
        /// Where copies of requests go.
        mirror: Option<Destination>,
        /// More places where copies of requests go.
        mirrors: Vec<HttpMirrorPolicy>,
        /// Share of requests that are copied to `mirror`, in whole percent. Deprecated.
        mirror_percent: Option<u32>,
        /// Share of requests that are copied to `mirror`.
        mirror_percentage: Option<Percent>,
        /// Cross-origin rules.
        cors_policy: Option<CorsPolicy>,
        /// What to change in the headers.
        headers: Option<Headers>,
        /// Not looked at: connections can always be upgraded. Istio no longer has it.
        websocket_upgrade: Option<bool>,
    }

    /// A VirtualService that another hands requests to.
    pub struct Delegate {
        /// Its name.
        name: Option<String>,
        /// Its namespace. Absent: that of the VirtualService that delegates.
        namespace: Option<String>,
    }

    /// Conditions on a request, all of which have to hold.
    pub struct HttpMatchRequest {
        /// Name, used in names of routes.
        name: Option<String>,
        /// The path without the query.
        uri: Option<StringMatch>,
        /// `http` or `https`.
        scheme: Option<StringMatch>,
        /// The method.
        method: Option<StringMatch>,
        /// The host, with the port if the client sent one.
        authority: Option<StringMatch>,
        /// Headers by name. Null is not the same as `{}`, which asks for presence.
        headers: BTreeMap<String, Option<StringMatch>>,
        /// Port of the listener; 0 is the same as none.
        port: Option<u32>,
        /// Labels of the client's workload.
        source_labels: BTreeMap<String, String>,
        /// Gateways that this match is for. Empty: those of the VirtualService.
        gateways: Vec<String>,
        /// Query parameters by name.
        query_params: BTreeMap<String, Option<StringMatch>>,
        /// Whether upper and lower case in `uri` are equal.
        ignore_uri_case: bool,
        /// Headers, by name, that must not match.
        without_headers: BTreeMap<String, Option<StringMatch>>,
        /// Namespace of the client's workload.
        source_namespace: Option<String>,
        /// Prefix of statistics for requests that match.
        stat_prefix: Option<String>,
    }

    /// One of the places where requests go.
    pub struct HttpRouteDestination {
        /// The place.
        destination: Option<Destination>,
        /// Its share, relative to its neighbours.
        weight: i32 = 0,
        /// What to change in the headers of requests that go there.
        headers: Option<Headers>,
    }

    /// One of the places where connections go.
    pub struct RouteDestination {
        /// The place.
        destination: Option<Destination>,
        /// Its share, relative to its neighbours.
        weight: i32 = 0,
    }

    /// A place where requests go.
    pub struct Destination {
        /// Host of a service. A name without dots is in the namespace of the object that names it.
        host: String,
        /// Name of a subset in the host's DestinationRule.
        subset: Option<String>,
        /// Port of the service. Absent: its only port, or that of the listener.
        port: Option<PortSelector>,
    }

    /// A port of a service.
    pub struct PortSelector {
        /// Its number.
        number: u32 = 0,
    }

    /// What to change in headers.
    pub struct Headers {
        /// Of the request.
        request: Option<HeaderOperations>,
        /// Of the response.
        response: Option<HeaderOperations>,
    }

    /// Changes to headers.
    pub struct HeaderOperations {
        /// Values that replace what was there.
        set: BTreeMap<String, String>,
        /// Values that are added to what was there.
        add: BTreeMap<String, String>,
        /// Names of headers to remove.
        remove: Vec<String>,
    }

    /// One rule for TLS that is passed through.
    pub struct TlsRoute {
        /// When it applies: any of these.
        r#match: Vec<TlsMatchAttributes>,
        /// Where connections go.
        route: Vec<RouteDestination>,
    }

    /// One rule for TCP.
    pub struct TcpRoute {
        /// When it applies: any of these. Empty: always.
        r#match: Vec<L4MatchAttributes>,
        /// Where connections go.
        route: Vec<RouteDestination>,
    }

    /// Conditions on a TLS connection, all of which have to hold.
    pub struct TlsMatchAttributes {
        /// Names of servers that the client asks for.
        sni_hosts: Vec<String>,
        /// Addresses that the client asked for, each an IP address or a CIDR.
        destination_subnets: Vec<String>,
        /// Port of the listener; 0 is the same as none.
        port: Option<u32>,
        /// Labels of the client's workload.
        source_labels: BTreeMap<String, String>,
        /// Gateways that this match is for. Empty: those of the VirtualService.
        gateways: Vec<String>,
        /// Namespace of the client's workload.
        source_namespace: Option<String>,
    }

    /// Conditions on a TCP connection, all of which have to hold.
    pub struct L4MatchAttributes {
        /// Addresses that the client asked for, each an IP address or a CIDR.
        destination_subnets: Vec<String>,
        /// Port of the listener; 0 is the same as none.
        port: Option<u32>,
        /// Address of the client. Not looked at.
        source_subnet: Option<String>,
        /// Labels of the client's workload.
        source_labels: BTreeMap<String, String>,
        /// Gateways that this match is for. Empty: those of the VirtualService.
        gateways: Vec<String>,
        /// Namespace of the client's workload.
        source_namespace: Option<String>,
    }

    /// An answer that sends the client elsewhere.
    pub struct HttpRedirect {
        /// The new path.
        uri: Option<String>,
        /// What takes the place of the prefix that matched.
        prefix_rewrite: Option<String>,
        /// The new host.
        authority: Option<String>,
        /// The new scheme.
        scheme: Option<String>,
        /// Status, 301 if absent.
        redirect_code: Option<u32>,
        ;oneof {
            /// The new port.
            redirect_port: RedirectPort,
        }
    }

    /// An answer that needs no backend.
    pub struct HttpDirectResponse {
        /// Status.
        status: u32,
        /// Content. Absent: none.
        body: Option<HttpBody>,
    }

    /// What to change in a request before it is sent on.
    pub struct HttpRewrite {
        /// What takes the place of the prefix that matched, or of the whole path for other matches.
        uri: Option<String>,
        /// The new host.
        authority: Option<String>,
        /// A search and replace in the path.
        uri_regex_rewrite: Option<RegexRewrite>,
    }

    /// A search and replace.
    pub struct RegexRewrite {
        /// Regular expression to search for.
        r#match: Option<String>,
        /// What takes the place of each occurrence; `\1` is the first group.
        rewrite: Option<String>,
    }

    /// When and how often to try again.
    pub struct HttpRetry {
        /// Number of further attempts; 0 never retries.
        attempts: i32 = 0,
        /// Time for each attempt.
        per_try_timeout: Option<Duration>,
        /// Conditions, separated by commas. Absent: Istio's default.
        retry_on: Option<String>,
        /// Whether to try in other localities too.
        retry_remote_localities: Option<bool>,
        /// Whether to avoid hosts that have failed already.
        retry_ignore_previous_hosts: Option<bool>,
        /// Shortest time between two attempts.
        backoff: Option<Duration>,
    }

    /// Cross-origin rules.
    pub struct CorsPolicy {
        /// Origins, exactly. Deprecated.
        allow_origin: Vec<String>,
        /// Origins.
        allow_origins: Vec<StringMatch>,
        /// Methods.
        allow_methods: Vec<String>,
        /// Request headers.
        allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        expose_headers: Vec<String>,
        /// How long the browser may keep the answer.
        max_age: Option<Duration>,
        /// Whether credentials may be sent.
        allow_credentials: Option<bool>,
        /// What happens to preflight requests of other origins.
        unmatched_preflights: Option<UnmatchedPreflights>,
    }

    /// Faults to inject.
    pub struct HttpFaultInjection {
        /// Wait before the request is sent on.
        delay: Option<FaultDelay>,
        /// Answer with an error instead.
        abort: Option<FaultAbort>,
    }

    /// A wait that is injected.
    pub struct FaultDelay {
        /// Share of requests in whole percent. Deprecated.
        percent: Option<i32>,
        /// Share of requests.
        percentage: Option<Percent>,
        /// How long.
        fixed_delay: Option<Duration>,
        /// Not supported.
        exponential_delay: Option<Duration>,
    }

    /// An error that is injected.
    pub struct FaultAbort {
        /// HTTP status.
        http_status: Option<i32>,
        /// Name of a gRPC status, for example `UNAVAILABLE`.
        grpc_status: Option<String>,
        /// Not supported.
        http2_error: Option<String>,
        /// Share of requests.
        percentage: Option<Percent>,
    }

    /// A place where copies of requests go.
    pub struct HttpMirrorPolicy {
        /// The place.
        destination: Option<Destination>,
        /// Share of requests. Absent: all.
        percentage: Option<Percent>,
    }

    /// A share.
    pub struct Percent {
        /// From 0 to 100.
        value: f64 = 0.0,
    }
}

enumeration! {
    /// What happens to preflight requests of origins that no rule allows.
    pub enum UnmatchedPreflights {
        /// The same as `FORWARD`.
        Unspecified = 0 "UNSPECIFIED",
        /// The backend answers them.
        Forward = 1 "FORWARD",
        /// They are answered without permission.
        Ignore = 2 "IGNORE",
    }
}

/// The port of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u32),
    /// The default of the scheme, that is none.
    FromProtocolDefault,
    /// That of the request.
    FromRequestPort,
}

impl Oneof for RedirectPort {
    const FIELDS: &'static [Field] =
        &[Field { name: "port", spelling: None }, Field { name: "derive_port", spelling: None }];

    fn decode_member(index: usize, node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if index == 0 {
            return u32::decode(node, cx).map(RedirectPort::Number);
        }
        const SELECTIONS: [(i64, &str); 2] = [(0, "FROM_PROTOCOL_DEFAULT"), (1, "FROM_REQUEST_PORT")];
        Some(match enumeration_index(node, &SELECTIONS, cx)? {
            0 => RedirectPort::FromProtocolDefault,
            _ => RedirectPort::FromRequestPort,
        })
    }
}

oneof! {
    /// The one condition of a [`StringMatch`].
    pub(crate) enum StringMatchKind {
        /// Equal.
        Exact(String) as "exact",
        /// Begins with.
        Prefix(String) as "prefix",
        /// Matches as a whole.
        Regex(String) as "regex",
    }
}

/// A condition on a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// The whole of it matches the regular expression (RE2 syntax).
    Regex(String),
    /// No condition was given: for headers and query parameters, that there is one at all.
    #[default]
    Unset,
}

impl Decode for StringMatch {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let fields = cx.open(node, "StringMatch", &[], &[StringMatchKind::FIELDS])?;
        Some(match cx.oneof::<StringMatchKind>(&fields, 0)? {
            Some(StringMatchKind::Exact(text)) => StringMatch::Exact(text),
            Some(StringMatchKind::Prefix(text)) => StringMatch::Prefix(text),
            Some(StringMatchKind::Regex(text)) => StringMatch::Regex(text),
            None => StringMatch::Unset,
        })
    }
}

/// Content of a direct response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// Text.
    String(String),
    /// Bytes, in base64 in YAML.
    Bytes(Vec<u8>),
}

oneof! {
    /// The two forms of a body.
    pub(crate) enum HttpBodyForm {
        /// Text.
        Text(String) as "string",
        /// Bytes.
        Bytes(Base64) as "bytes",
    }
}

impl Decode for HttpBody {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let fields = cx.open(node, "HttpBody", &[], &[HttpBodyForm::FIELDS])?;
        Some(match cx.oneof::<HttpBodyForm>(&fields, 0)? {
            Some(HttpBodyForm::Text(text)) => HttpBody::String(text),
            Some(HttpBodyForm::Bytes(bytes)) => HttpBody::Bytes(bytes.0),
            None => HttpBody::String(String::new()),
        })
    }
}

/// The number of a gRPC status by its name, as gRPC spells it (`UNAVAILABLE` is 14).
pub fn grpc_status(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
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
    NAMES.iter().zip(0..).find_map(|(known, number)| (*known == name).then_some(number))
}
