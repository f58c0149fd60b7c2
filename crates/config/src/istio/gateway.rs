//! What can a Gateway say? Its fields as Istio's API has them (`networking.istio.io/v1`, Gateway).

use std::collections::BTreeMap;

use crate::decode::{enumeration, message};

message! {
    /// Ports that a gateway listens on.
    pub struct Gateway {
        /// The ports.
        servers: Vec<Server>,
        /// Labels of the workloads that serve it. Empty: every gateway.
        selector: BTreeMap<String, String>,
    }

    /// A port that a gateway listens on, for some hosts.
    pub struct Server {
        /// The port.
        port: Port,
        /// Address to listen on. Absent: all.
        bind: Option<String>,
        /// Hosts, each perhaps with a namespace in front: `namespace/host`.
        hosts: Vec<String>,
        /// TLS.
        tls: Option<ServerTlsSettings>,
        /// Not looked at.
        default_endpoint: Option<String>,
        /// Name, used in statistics.
        name: Option<String>,
    }

    /// A port that is listened on.
    pub struct Port {
        /// Number; 0 for a unix domain socket.
        number: u32 = 0,
        /// What is spoken on it, for example `HTTP`; upper and lower case are equal.
        protocol: String,
        /// Name, unique in the Gateway.
        name: String,
        /// Not looked at.
        target_port: Option<u32>,
    }

    /// TLS of a server.
    pub struct ServerTlsSettings {
        /// Whether plain HTTP is answered with a redirect to HTTPS.
        https_redirect: bool,
        /// How TLS is handled.
        mode: ServerTlsMode,
        /// File with the certificate.
        server_certificate: Option<String>,
        /// File with its key.
        private_key: Option<String>,
        /// File with the authorities that are trusted to name clients.
        ca_certificates: Option<String>,
        /// File with revoked certificates.
        ca_crl: Option<String>,
        /// Secret with certificate and key.
        credential_name: Option<String>,
        /// Secrets with certificates and keys, one for each type of key.
        credential_names: Vec<String>,
        /// Files with certificates and keys, one for each type of key.
        tls_certificates: Vec<TlsCertificate>,
        /// Secret or ConfigMap with the authorities that are trusted to name clients.
        ca_cert_credential_name: Option<String>,
        /// Names of which the client's certificate has to have one.
        subject_alt_names: Vec<String>,
        /// Hashes of public keys of which the client's has to be one.
        verify_certificate_spki: Vec<String>,
        /// Hashes of certificates of which the client's has to be one.
        verify_certificate_hash: Vec<String>,
        /// Lowest version.
        min_protocol_version: TlsProtocol,
        /// Highest version.
        max_protocol_version: TlsProtocol,
        /// Ciphers up to TLS 1.2.
        cipher_suites: Vec<String>,
        /// Whether client certificates of unknown authorities are accepted.
        insecure_skip_verify: Option<bool>,
    }

    /// Files with a certificate and its key.
    pub struct TlsCertificate {
        /// File with the certificate.
        server_certificate: Option<String>,
        /// File with its key.
        private_key: Option<String>,
        /// File with the authorities that are trusted to name clients.
        ca_certificates: Option<String>,
    }
}

enumeration! {
    /// How a server handles TLS.
    pub enum ServerTlsMode {
        /// It passes it through, and routes by the name that the client asks for.
        Passthrough = 0 "PASSTHROUGH",
        /// It shows a certificate.
        Simple = 1 "SIMPLE",
        /// It shows a certificate and asks for the client's.
        Mutual = 2 "MUTUAL",
        /// It passes it through to the service that the name stands for.
        AutoPassthrough = 3 "AUTO_PASSTHROUGH",
        /// It shows a certificate of the mesh and asks for the client's.
        IstioMutual = 4 "ISTIO_MUTUAL",
        /// It shows a certificate, and checks the client's if there is one.
        OptionalMutual = 5 "OPTIONAL_MUTUAL",
    }

    /// A version of TLS.
    pub enum TlsProtocol {
        /// Whatever the proxy prefers.
        TlsAuto = 0 "TLS_AUTO",
        /// TLS 1.0.
        TlsV1_0 = 1 "TLSV1_0",
        /// TLS 1.1.
        TlsV1_1 = 2 "TLSV1_1",
        /// TLS 1.2.
        TlsV1_2 = 3 "TLSV1_2",
        /// TLS 1.3.
        TlsV1_3 = 4 "TLSV1_3",
    }
}

/// The cipher suites up to TLS 1.2 that Istio takes. Others have no effect.
pub const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];
