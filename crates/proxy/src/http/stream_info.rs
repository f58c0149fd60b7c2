//! What is known of one request while it runs: the facts that access logs, header formats and statistics print.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// An address with its text, so that a log line never formats it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The socket address.
    pub socket: SocketAddr,
    /// `ip:port` (`[ip]:port` for IPv6), as Envoy prints it.
    pub text: Box<str>,
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self { socket, text: socket.to_string().into() }
    }
}

/// `ip:port` as text without an allocation: it is copied from a pooled connection into the facts of a request.
#[derive(Clone, Copy)]
pub struct AddressText {
    length: u8,
    bytes: [u8; Self::CAPACITY],
}

impl AddressText {
    /// `[` + 45 characters of IPv6 + a scope of up to 10 digits + `]:65535`.
    const CAPACITY: usize = 66;

    /// The text of an address.
    #[must_use]
    pub fn new(socket: SocketAddr) -> Self {
        let mut text = Self { length: 0, bytes: [0; Self::CAPACITY] };
        let mut rest: &mut [u8] = &mut text.bytes;
        // A socket address always fits; were it ever longer, its beginning would be kept.
        let _ = write!(rest, "{socket}");
        let unused = rest.len();
        text.length = u8::try_from(Self::CAPACITY - unused).unwrap_or(0);
        text
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for AddressText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The downstream connection that a stream belongs to.
#[derive(Debug)]
pub struct DownstreamConnection {
    /// Number of the connection in this process; Envoy's `%CONNECTION_ID%`.
    pub id: u64,
    /// The address that the client connected to.
    pub local: Address,
    /// The peer of the socket.
    pub remote: Address,
    /// The server name of the TLS handshake, if there was one.
    pub server_name: Option<Box<str>>,
    /// Whether the transport is TLS.
    pub tls: bool,
}

/// Envoy's response flags, each with its short name; `%RESPONSE_FLAGS%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// `LH`: the local health check failed.
    FailedLocalHealthCheck,
    /// `UH`: no healthy upstream host.
    NoHealthyUpstream,
    /// `UT`: upstream request timeout.
    UpstreamRequestTimeout,
    /// `LR`: the connection was reset locally.
    LocalReset,
    /// `UR`: the upstream reset the stream.
    UpstreamRemoteReset,
    /// `UF`: no connection to the upstream could be made.
    UpstreamConnectionFailure,
    /// `UC`: the upstream closed the connection.
    UpstreamConnectionTermination,
    /// `UO`: a circuit breaker was open.
    UpstreamOverflow,
    /// `NR`: no route, or no filter chain.
    NoRouteFound,
    /// `DI`: a delay was injected.
    DelayInjected,
    /// `FI`: an abort was injected.
    FaultInjected,
    /// `RL`: rate limited.
    RateLimited,
    /// `UAEX`: denied by external authorization.
    UnauthorizedExternalService,
    /// `RLSE`: the rate limit service failed.
    RateLimitServiceError,
    /// `DC`: the downstream connection ended.
    DownstreamConnectionTermination,
    /// `URX`: the retry limit was reached.
    UpstreamRetryLimitExceeded,
    /// `SI`: the stream was idle too long.
    StreamIdleTimeout,
    /// `IH`: a strictly checked header was invalid.
    InvalidEnvoyRequestHeaders,
    /// `DPE`: the downstream broke the protocol.
    DownstreamProtocolError,
    /// `UMSDR`: the upstream maximum stream duration was reached.
    UpstreamMaxStreamDurationReached,
    /// `DT`: a connection or request lasted too long.
    DurationTimeout,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocolError,
    /// `NC`: the cluster does not exist.
    NoClusterFound,
    /// `DR`: the downstream reset the stream.
    DownstreamRemoteReset,
}

impl Flag {
    /// The short names of all flags that Envoy knows.
    pub(crate) const KNOWN: [&'static str; 29] = [
        "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI",
        "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    ];

    /// The short name in access logs.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::FailedLocalHealthCheck => "LH",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamRequestTimeout => "UT",
            Self::LocalReset => "LR",
            Self::UpstreamRemoteReset => "UR",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamOverflow => "UO",
            Self::NoRouteFound => "NR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::RateLimited => "RL",
            Self::UnauthorizedExternalService => "UAEX",
            Self::RateLimitServiceError => "RLSE",
            Self::DownstreamConnectionTermination => "DC",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::StreamIdleTimeout => "SI",
            Self::InvalidEnvoyRequestHeaders => "IH",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamMaxStreamDurationReached => "UMSDR",
            Self::DurationTimeout => "DT",
            Self::UpstreamProtocolError => "UPE",
            Self::NoClusterFound => "NC",
            Self::DownstreamRemoteReset => "DR",
        }
    }

    /// The long name, as `%RESPONSE_FLAGS_LONG%` prints it.
    #[must_use]
    pub const fn long(self) -> &'static str {
        match self {
            Self::FailedLocalHealthCheck => "FailedLocalHealthCheck",
            Self::NoHealthyUpstream => "NoHealthyUpstream",
            Self::UpstreamRequestTimeout => "UpstreamRequestTimeout",
            Self::LocalReset => "LocalReset",
            Self::UpstreamRemoteReset => "UpstreamRemoteReset",
            Self::UpstreamConnectionFailure => "UpstreamConnectionFailure",
            Self::UpstreamConnectionTermination => "UpstreamConnectionTermination",
            Self::UpstreamOverflow => "UpstreamOverflow",
            Self::NoRouteFound => "NoRouteFound",
            Self::DelayInjected => "DelayInjected",
            Self::FaultInjected => "FaultInjected",
            Self::RateLimited => "RateLimited",
            Self::UnauthorizedExternalService => "UnauthorizedExternalService",
            Self::RateLimitServiceError => "RateLimitServiceError",
            Self::DownstreamConnectionTermination => "DownstreamConnectionTermination",
            Self::UpstreamRetryLimitExceeded => "UpstreamRetryLimitExceeded",
            Self::StreamIdleTimeout => "StreamIdleTimeout",
            Self::InvalidEnvoyRequestHeaders => "InvalidEnvoyRequestHeaders",
            Self::DownstreamProtocolError => "DownstreamProtocolError",
            Self::UpstreamMaxStreamDurationReached => "UpstreamMaxStreamDurationReached",
            Self::DurationTimeout => "DurationTimeout",
            Self::UpstreamProtocolError => "UpstreamProtocolError",
            Self::NoClusterFound => "NoClusterFound",
            Self::DownstreamRemoteReset => "DownstreamRemoteReset",
        }
    }
}

/// The flags of one stream in the order in which they were raised, which is the order in which Envoy prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    raised: [Option<Flag>; 6],
}

impl Flags {
    /// Raises a flag once; a seventh different flag is dropped, which no path of this proxy produces.
    pub fn raise(&mut self, flag: Flag) {
        for slot in &mut self.raised {
            match slot {
                Some(present) if *present == flag => return,
                Some(_) => {}
                None => {
                    *slot = Some(flag);
                    return;
                }
            }
        }
    }

    /// The raised flags, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Flag> + '_ {
        self.raised.iter().map_while(|flag| *flag)
    }

    /// Whether the flag was raised.
    #[must_use]
    pub fn contains(&self, flag: Flag) -> bool {
        self.iter().any(|raised| raised == flag)
    }

    /// Whether no flag was raised; printed as `-`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raised[0].is_none()
    }
}

/// The protocol of a stream; `%PROTOCOL%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// As Envoy prints it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The facts of one stream. Borrowed parts live in the view under which the request runs (`'v`).
#[derive(Debug)]
pub struct StreamInfo<'v> {
    /// Wall clock when the first byte of the request was seen.
    pub started_at: SystemTime,
    /// The same moment on the monotonic clock.
    pub started: Instant,
    /// The downstream connection.
    pub downstream: &'v DownstreamConnection,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`: the trusted client address, when it is not the peer (edge mode with trusted hops).
    pub client: Option<Address>,
    /// Downstream protocol; `None` while no request line was understood.
    pub protocol: Option<Protocol>,
    /// Name of the selected route; empty when unnamed.
    pub route_name: &'v str,
    /// Name of the selected virtual host.
    pub virtual_host: Option<&'v str>,
    /// Name of the selected cluster.
    pub cluster: Option<&'v str>,
    /// `%UPSTREAM_HOST%`: the last host tried, as text.
    pub upstream_host: Option<Cow<'v, str>>,
    /// Local address of the upstream connection.
    pub upstream_local: Option<AddressText>,
    /// Upstream attempts so far.
    pub attempts: u32,
    /// Status sent downstream; 0 when none was.
    pub response_code: u16,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<Cow<'static, str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub termination_details: Option<Cow<'static, str>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Cow<'static, str>>,
    /// Response flags.
    pub flags: Flags,
    /// Request body bytes.
    pub bytes_received: u64,
    /// Response body bytes.
    pub bytes_sent: u64,
    /// From the start to the end of the downstream request; `%REQUEST_DURATION%`.
    pub request_duration: Option<Duration>,
    /// From the start to the first byte from upstream; `%RESPONSE_DURATION%`.
    pub response_duration: Option<Duration>,
    /// From the start to the last byte sent downstream; `%DURATION%`.
    pub duration: Option<Duration>,
}

impl<'v> StreamInfo<'v> {
    /// A stream that begins now.
    #[must_use]
    pub fn begin(downstream: &'v DownstreamConnection, started_at: SystemTime, started: Instant) -> Self {
        Self {
            started_at,
            started,
            downstream,
            client: None,
            protocol: None,
            route_name: "",
            virtual_host: None,
            cluster: None,
            upstream_host: None,
            upstream_local: None,
            attempts: 0,
            response_code: 0,
            details: None,
            termination_details: None,
            transport_failure: None,
            flags: Flags::default(),
            bytes_received: 0,
            bytes_sent: 0,
            request_duration: None,
            response_duration: None,
            duration: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flag, Flags};

    #[test]
    fn flags_keep_the_order_in_which_they_were_raised_and_no_duplicates() {
        let mut flags = Flags::default();
        flags.raise(Flag::UpstreamRetryLimitExceeded);
        flags.raise(Flag::UpstreamConnectionFailure);
        flags.raise(Flag::UpstreamRetryLimitExceeded);
        let names: Vec<_> = flags.iter().map(Flag::short).collect();
        assert_eq!(names, ["URX", "UF"]);
    }
}
