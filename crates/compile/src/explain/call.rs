//! What is asked about? One connection with the request that is sent over it, as its client means it.

use std::net::IpAddr;

/// A connection, and the request on it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which way the proxy of a workload sees it. Gateways have one way only: their listeners.
    pub direction: Direction,
    /// Address that the client connects to; `None` is one that no listener names.
    pub address: Option<IpAddr>,
    /// Port that the client connects to.
    pub port: u16,
    /// What the client speaks, inside of TLS if there is TLS.
    pub protocol: CallProtocol,
    /// Whether it begins with a TLS handshake.
    pub tls: CallTls,
    /// Server name of the handshake.
    pub sni: Option<String>,
    /// Protocols that the handshake offers, in the client's order.
    pub alpn: Vec<String>,
    /// Name of the certificate by whose authority the client's own is signed: with [`CallTls::Mutual`], a chain that
    /// asks for another authority's refuses it. `None` is a client that whatever server it meets trusts.
    pub client_certificate: Option<String>,
    /// Address of the client.
    pub source: Option<IpAddr>,
    /// `:method`.
    pub method: String,
    /// `:authority` or `Host`, perhaps with a port.
    pub authority: String,
    /// Path with query, as it is sent.
    pub path: String,
    /// Further headers, each line on its own; names in any case.
    pub headers: Vec<(String, String)>,
    /// Claims of the token that the request bears, checked: names with dots for nested ones, a line for each value.
    pub claims: Vec<(String, String)>,
}

/// Which way a connection takes through the proxy of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the workload to others.
    #[default]
    Outbound,
    /// From others to the workload.
    Inbound,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// Anything else.
    Tcp,
}

/// How a client begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallTls {
    /// Without TLS.
    #[default]
    Plaintext,
    /// With TLS, without a certificate of its own.
    Tls,
    /// With TLS and a certificate.
    Mutual,
}

impl Default for Call {
    /// `GET /` over plaintext HTTP/1.1 to port 80.
    fn default() -> Self {
        Call {
            direction: Direction::default(),
            address: None,
            port: 80,
            protocol: CallProtocol::default(),
            tls: CallTls::default(),
            sni: None,
            alpn: Vec::new(),
            client_certificate: None,
            source: None,
            method: "GET".to_owned(),
            authority: String::new(),
            path: "/".to_owned(),
            headers: Vec::new(),
            claims: Vec::new(),
        }
    }
}

impl Call {
    /// What a sidecar offers in the handshake with another sidecar: how that one tells HTTP from other protocols
    /// before it decrypts.
    pub fn mesh_alpn(protocol: CallProtocol) -> Vec<String> {
        let name = match protocol {
            CallProtocol::Http1 => "istio-http/1.1",
            CallProtocol::Http2 => "istio-h2",
            CallProtocol::Tcp => "istio",
        };
        vec![name.to_owned()]
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.tls {
            CallTls::Plaintext => "http",
            CallTls::Tls | CallTls::Mutual => "https",
        }
    }

    /// The values of a header, pseudo headers included; `name` in lower case.
    pub(crate) fn header<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        match name {
            ":method" => vec![&self.method],
            ":authority" | "host" => vec![&self.authority],
            ":path" => vec![&self.path],
            ":scheme" | "x-forwarded-proto" => vec![self.scheme()],
            _ => self
                .headers
                .iter()
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
                .collect(),
        }
    }

    /// True for a request that asks for gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.header("content-type").first().is_some_and(|kind| {
            kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
        })
    }
}
