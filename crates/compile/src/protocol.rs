//! Which protocol does a service port speak? Decided from its `appProtocol`, else from its name
//! (`http-web`, `grpc`, …), else from well-known numbers; what stays open is detected per connection.

/// The protocol of a service port or gateway server, in Istio's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1 (and, from clients, HTTP/2).
    Http,
    /// HTTP/2 towards the workload.
    Http2,
    /// gRPC: HTTP/2 towards the workload.
    Grpc,
    /// gRPC-Web: HTTP/2 towards the workload.
    GrpcWeb,
    /// TLS with HTTP inside; opaque to a sidecar.
    Https,
    /// TLS, opaque.
    Tls,
    /// Bytes.
    Tcp,
    /// MongoDB, carried as bytes.
    Mongo,
    /// Redis, carried as bytes.
    Redis,
    /// MySQL, carried as bytes.
    Mysql,
    /// Datagrams; never part of listeners or clusters.
    Udp,
    /// Not declared: detected from the first bytes of each connection.
    Auto,
}

impl Protocol {
    /// The protocol of a Kubernetes service port. `transport` is the Kubernetes protocol (`TCP`, `UDP`,
    /// `SCTP`, empty for TCP).
    pub fn of_service_port(transport: &str, name: &str, app_protocol: Option<&str>, number: u32) -> Protocol {
        if transport.eq_ignore_ascii_case("udp") || transport.eq_ignore_ascii_case("sctp") {
            return Protocol::Udp;
        }
        if let Some(app_protocol) = app_protocol {
            return match app_protocol.to_ascii_lowercase().as_str() {
                "kubernetes.io/h2c" => Protocol::Http2,
                "kubernetes.io/ws" => Protocol::Http,
                "kubernetes.io/wss" => Protocol::Https,
                other => Protocol::parse(other).unwrap_or_else(|| Protocol::undeclared(number)),
            };
        }
        Protocol::of_port_name(name).unwrap_or_else(|| Protocol::undeclared(number))
    }

    /// The protocol that a port name declares: the whole name, or what stands before its first `-`.
    fn of_port_name(name: &str) -> Option<Protocol> {
        let name = name.to_ascii_lowercase();
        if name.starts_with("grpc-web") {
            return Some(Protocol::GrpcWeb);
        }
        Protocol::parse(name.split('-').next().unwrap_or_default())
    }

    /// The protocol that a word such as `HTTP2` or `grpc-web` names, in any case.
    pub fn parse(word: &str) -> Option<Protocol> {
        Some(match word.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" => Protocol::Http,
            "http2" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "tcp" => Protocol::Tcp,
            "mongo" => Protocol::Mongo,
            "redis" => Protocol::Redis,
            "mysql" => Protocol::Mysql,
            "udp" => Protocol::Udp,
            _ => return None,
        })
    }

    /// Ports of protocols in which the server speaks first are never probed for HTTP.
    fn undeclared(number: u32) -> Protocol {
        match number {
            25 | 53 | 3306 | 27017 => Protocol::Tcp,
            _ => Protocol::Auto,
        }
    }

    /// Declared as HTTP of any version.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// HTTP/2 towards the workload.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Clusters lead to it: everything but datagrams.
    pub fn has_clusters(self) -> bool {
        self != Protocol::Udp
    }

    /// Requests on this port are routed by HTTP route tables: declared HTTP or detected per connection.
    pub fn is_routed_as_http(self) -> bool {
        self.is_http() || self == Protocol::Auto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_name_declares_its_protocol_up_to_the_first_dash() {
        let of = |name| Protocol::of_service_port("TCP", name, None, 9080);
        assert_eq!(of("http"), Protocol::Http);
        assert_eq!(of("HTTP-web"), Protocol::Http);
        assert_eq!(of("http2-api"), Protocol::Http2);
        assert_eq!(of("grpc-web-x"), Protocol::GrpcWeb);
        assert_eq!(of("grpc-api"), Protocol::Grpc);
        assert_eq!(of("tcp"), Protocol::Tcp);
        assert_eq!(of("httpweb"), Protocol::Auto);
        assert_eq!(of(""), Protocol::Auto);
    }

    #[test]
    fn the_application_protocol_replaces_the_name() {
        let of = |app| Protocol::of_service_port("", "http", Some(app), 80);
        assert_eq!(of("grpc"), Protocol::Grpc);
        assert_eq!(of("kubernetes.io/h2c"), Protocol::Http2);
        assert_eq!(of("example.com/own"), Protocol::Auto);
    }

    #[test]
    fn undeclared_ports_of_server_first_protocols_are_bytes() {
        assert_eq!(Protocol::of_service_port("", "db", None, 3306), Protocol::Tcp);
        assert_eq!(Protocol::of_service_port("UDP", "http", None, 80), Protocol::Udp);
    }
}
