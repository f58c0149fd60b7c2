//! How do listeners end TLS? Of workloads of the mesh, and of a Gateway's (or Sidecar's) server with settings of its
//! own.

use lateen_config::{ServerTlsMode, ServerTlsSettings};
use lateen_xds::envoy::config::core::v3::{DataSource, data_source};
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
};

use super::{combined, given, owned, parameters, secrets};
use crate::mesh::Mesh;
use crate::message;
use crate::scope::Capability;

/// What a filter chain speaks inside of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainProtocol {
    /// HTTP of any version.
    Http,
    /// Bytes.
    Tcp,
}

/// ALPN protocols of chains that end TLS.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// ALPN protocols of chains for bytes between workloads of the mesh.
const MESH_TCP_ALPN: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// TLS of connections from workloads of the mesh: both show certificates of a trusted domain.
pub(crate) fn downstream_mesh(mesh: &Mesh, capability: Capability, protocol: ChainProtocol) -> DownstreamTlsContext {
    let own = CertificateValidationContext {
        match_subject_alt_names: mesh.trust_domains.iter().map(|domain| of_domain(domain)).collect(),
        ..Default::default()
    };
    let common = CommonTlsContext {
        tls_params: Some(parameters::downstream_mesh(&mesh.mesh_tls)),
        alpn_protocols: mesh_alpn(protocol),
        tls_certificate_sds_secret_configs: vec![secrets::workload_certificate(capability)],
        validation_context_type: Some(combined(own, secrets::mesh_authorities(capability))),
        ..Default::default()
    };
    context(common, true)
}

/// TLS of a server with settings of its own. `None` for modes that do not end TLS.
pub(crate) fn downstream_gateway(
    mesh: &Mesh,
    capability: Capability,
    settings: &ServerTlsSettings,
    protocol: ChainProtocol,
) -> Option<DownstreamTlsContext> {
    match settings.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => None,
        ServerTlsMode::IstioMutual => Some(of_mesh_at_gateway(mesh, capability, settings, protocol)),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            let common = CommonTlsContext {
                tls_params: parameters::downstream(&mesh.tls_defaults, settings),
                alpn_protocols: owned(&HTTP_ALPN),
                tls_certificate_sds_secret_configs: certificates(capability, settings),
                validation_context_type: validation(capability, settings),
                ..Default::default()
            };
            Some(context(common, settings.mode == ServerTlsMode::Mutual))
        }
    }
}

/// Certificates of the mesh at a gateway: any workload of it is let in unless names are given. Bounds are not the
/// server's to set.
fn of_mesh_at_gateway(
    mesh: &Mesh,
    capability: Capability,
    settings: &ServerTlsSettings,
    protocol: ChainProtocol,
) -> DownstreamTlsContext {
    let mut own = own_checks(settings);
    if own.match_subject_alt_names.is_empty() && mesh.trust_domains.len() > 1 {
        own.match_subject_alt_names = mesh.trust_domains.iter().map(|domain| of_domain(domain)).collect();
    }
    let common = CommonTlsContext {
        alpn_protocols: mesh_alpn(protocol),
        tls_certificate_sds_secret_configs: vec![secrets::workload_certificate(capability)],
        validation_context_type: Some(combined(own, secrets::mesh_authorities(capability))),
        ..Default::default()
    };
    context(common, true)
}

fn mesh_alpn(protocol: ChainProtocol) -> Vec<String> {
    match protocol {
        ChainProtocol::Http => owned(&HTTP_ALPN),
        ChainProtocol::Tcp => owned(&MESH_TCP_ALPN),
    }
}

fn context(common: CommonTlsContext, require_client_certificate: bool) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(require_client_certificate),
        ..Default::default()
    }
}

/// The certificates that a server shows: of one source, the first that is given.
fn certificates(capability: Capability, settings: &ServerTlsSettings) -> Vec<SdsSecretConfig> {
    if !settings.credential_names.is_empty() {
        return settings.credential_names.iter().map(|name| secrets::credential(capability, name)).collect();
    }
    if let Some(name) = given(&settings.credential_name) {
        return vec![secrets::credential(capability, name)];
    }
    let file = |certificate: &Option<String>, key: &Option<String>| {
        Some(secrets::file_certificate(capability, given(certificate)?, given(key)?))
    };
    if !settings.tls_certificates.is_empty() {
        let each = settings.tls_certificates.iter();
        return each.filter_map(|files| file(&files.server_certificate, &files.private_key)).collect();
    }
    file(&settings.server_certificate, &settings.private_key).into_iter().collect()
}

/// How client certificates are checked. Without authorities to check them against, names and lists of revoked ones are
/// left out: Envoy refuses to compare names that anybody could have written.
fn validation(capability: Capability, settings: &ServerTlsSettings) -> Option<ValidationContextType> {
    let mut own = own_checks(settings);
    let authorities = match settings.mode {
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => authorities(capability, settings),
        _ => None,
    };
    if let Some(authorities) = authorities {
        return Some(combined(own, authorities));
    }
    own.match_subject_alt_names.clear();
    own.crl = None;
    (own != CertificateValidationContext::default()).then_some(ValidationContextType::ValidationContext(own))
}

/// What certificates of clients are checked for besides their authority.
fn own_checks(settings: &ServerTlsSettings) -> CertificateValidationContext {
    let skips = settings.insecure_skip_verify == Some(true) && settings.mode == ServerTlsMode::Mutual;
    CertificateValidationContext {
        match_subject_alt_names: settings.subject_alt_names.iter().map(|name| message::exact(name)).collect(),
        verify_certificate_spki: settings.verify_certificate_spki.clone(),
        verify_certificate_hash: settings.verify_certificate_hash.clone(),
        crl: given(&settings.ca_crl).map(file),
        trust_chain_verification: if skips {
            TrustChainVerification::AcceptUntrusted.into()
        } else {
            TrustChainVerification::VerifyTrustChain.into()
        },
        ..Default::default()
    }
}

fn authorities(capability: Capability, settings: &ServerTlsSettings) -> Option<SdsSecretConfig> {
    if let Some(name) = given(&settings.ca_cert_credential_name) {
        return Some(secrets::named_authorities(capability, name));
    }
    let credential = settings.credential_names.first().map(String::as_str).or(given(&settings.credential_name));
    if let Some(name) = credential {
        return Some(secrets::credential_authorities(capability, name));
    }
    let of_certificates = || settings.tls_certificates.iter().find_map(|files| given(&files.ca_certificates));
    let file = given(&settings.ca_certificates).or_else(of_certificates)?;
    Some(secrets::file_authorities(capability, file))
}

/// Any workload of a trust domain.
fn of_domain(domain: &str) -> lateen_xds::envoy::r#type::matcher::v3::StringMatcher {
    message::prefix(&format!("spiffe://{domain}/"))
}

/// The content of a file, which the data plane reads.
pub(super) fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use lateen_config::{MeshConfig, TlsCertificate, TlsProtocol};
    use lateen_xds::envoy::extensions::transport_sockets::tls::v3::TlsParameters;
    use lateen_xds::json;
    use serde_json::{Value, json};

    use super::*;

    const NATIVE: Capability = Capability::Native;

    fn rendered(context: &DownstreamTlsContext) -> Value {
        json::render(context).unwrap_or_default()
    }

    fn gateway(settings: &ServerTlsSettings) -> Value {
        downstream_gateway(&Mesh::default(), NATIVE, settings, ChainProtocol::Http)
            .map(|context| rendered(&context))
            .unwrap_or_default()
    }

    fn with_credential(mode: ServerTlsMode) -> ServerTlsSettings {
        ServerTlsSettings { mode, credential_name: Some("shop".into()), ..Default::default() }
    }

    fn ads(name: &str) -> Value {
        json!({"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}})
    }

    #[test]
    fn workloads_of_the_mesh_show_certificates_of_a_trusted_domain() {
        let config = MeshConfig { trust_domain_aliases: vec!["old".into()], ..MeshConfig::default() };
        let context = downstream_mesh(&Mesh::from_config(&config), NATIVE, ChainProtocol::Tcp);
        let context = rendered(&context);
        assert_eq!(context["require_client_certificate"], json!(true));
        let common = &context["common_tls_context"];
        assert_eq!(common["alpn_protocols"], json!(["istio-peer-exchange", "h2", "http/1.1"]));
        assert_eq!(common["tls_params"]["tls_minimum_protocol_version"], "TLSv1_2");
        assert_eq!(common["tls_params"]["cipher_suites"].as_array().map(Vec::len), Some(6));
        assert_eq!(common["tls_certificate_sds_secret_configs"], json!([ads("default")]));
        let validation = &common["combined_validation_context"];
        assert_eq!(
            validation["default_validation_context"],
            json!({"match_subject_alt_names": [{"prefix": "spiffe://cluster.local/"}, {"prefix": "spiffe://old/"}]})
        );
        assert_eq!(validation["validation_context_sds_secret_config"], ads("ROOTCA"));
        let http = downstream_mesh(&Mesh::default(), NATIVE, ChainProtocol::Http);
        assert_eq!(rendered(&http)["common_tls_context"]["alpn_protocols"], json!(["h2", "http/1.1"]));
    }

    #[test]
    fn simple_tls_asks_for_no_certificate() {
        assert_eq!(
            gateway(&with_credential(ServerTlsMode::Simple)),
            json!({
                "require_client_certificate": false,
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificate_sds_secret_configs": [ads("kubernetes://shop")],
                },
            })
        );
        // Envoy refuses names of certificates that nobody vouches for.
        let named = ServerTlsSettings {
            subject_alt_names: vec!["a".into()],
            verify_certificate_hash: vec!["b".into()],
            ..with_credential(ServerTlsMode::Simple)
        };
        assert_eq!(
            gateway(&named)["common_tls_context"]["validation_context"],
            json!({"verify_certificate_hash": ["b"]})
        );
    }

    #[test]
    fn mutual_tls_checks_certificates_against_the_authorities_of_the_credential() {
        for (mode, required) in [(ServerTlsMode::Mutual, true), (ServerTlsMode::OptionalMutual, false)] {
            let settings = ServerTlsSettings { subject_alt_names: vec!["a".into()], ..with_credential(mode) };
            let context = gateway(&settings);
            assert_eq!(context["require_client_certificate"], json!(required));
            assert_eq!(
                context["common_tls_context"]["combined_validation_context"],
                json!({
                    "default_validation_context": {"match_subject_alt_names": [{"exact": "a"}]},
                    "validation_context_sds_secret_config": ads("kubernetes://shop-cacert"),
                })
            );
        }
        let own = ServerTlsSettings {
            ca_cert_credential_name: Some("ca".into()),
            insecure_skip_verify: Some(true),
            ..with_credential(ServerTlsMode::Mutual)
        };
        assert_eq!(
            gateway(&own)["common_tls_context"]["combined_validation_context"],
            json!({
                "default_validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"},
                "validation_context_sds_secret_config": ads("kubernetes://ca"),
            })
        );
    }

    #[test]
    fn certificates_may_be_several_and_may_be_files() {
        let names = |settings: &ServerTlsSettings| {
            let context = gateway(settings);
            let common = &context["common_tls_context"];
            let each = common["tls_certificate_sds_secret_configs"].as_array().cloned().unwrap_or_default();
            let certificates: Vec<Value> = each.iter().map(|config| config["name"].clone()).collect();
            let authorities = &common["combined_validation_context"]["validation_context_sds_secret_config"]["name"];
            (certificates, authorities.clone())
        };
        let several = ServerTlsSettings {
            mode: ServerTlsMode::Mutual,
            credential_names: vec!["rsa".into(), "ecdsa".into()],
            ..Default::default()
        };
        let expected = vec![json!("kubernetes://rsa"), json!("kubernetes://ecdsa")];
        assert_eq!(names(&several), (expected, json!("kubernetes://rsa-cacert")));
        let file = |name: &str| Some(format!("/{name}.pem"));
        let files = ServerTlsSettings {
            mode: ServerTlsMode::Mutual,
            server_certificate: file("cert"),
            private_key: file("key"),
            ca_certificates: file("ca"),
            ..Default::default()
        };
        assert_eq!(names(&files), (vec![json!("file-cert:/cert.pem~/key.pem")], json!("file-root:/ca.pem")));
        let pair = |certificate: &str, key: &str| TlsCertificate {
            server_certificate: file(certificate),
            private_key: file(key),
            ..Default::default()
        };
        let pairs = ServerTlsSettings {
            mode: ServerTlsMode::Simple,
            tls_certificates: vec![pair("a", "b"), pair("c", "d")],
            ..Default::default()
        };
        let expected = vec![json!("file-cert:/a.pem~/b.pem"), json!("file-cert:/c.pem~/d.pem")];
        assert_eq!(names(&pairs), (expected, Value::Null));
    }

    #[test]
    fn a_gateway_with_the_meshs_certificates_takes_any_workload_of_it() {
        let settings = ServerTlsSettings {
            mode: ServerTlsMode::IstioMutual,
            min_protocol_version: TlsProtocol::TlsV1_3,
            ..Default::default()
        };
        let context = downstream_gateway(&Mesh::default(), NATIVE, &settings, ChainProtocol::Tcp).unwrap_or_default();
        let common = context.common_tls_context.clone().unwrap_or_default();
        assert_eq!(common.tls_params, None::<TlsParameters>, "the server has no say in it");
        let context = rendered(&context);
        assert_eq!(context["require_client_certificate"], json!(true));
        let common = &context["common_tls_context"];
        assert_eq!(common["alpn_protocols"], json!(["istio-peer-exchange", "h2", "http/1.1"]));
        assert_eq!(common["combined_validation_context"]["default_validation_context"], json!({}));
        for mode in [ServerTlsMode::Passthrough, ServerTlsMode::AutoPassthrough] {
            assert_eq!(gateway(&with_credential(mode)), Value::Null);
        }
    }
}
