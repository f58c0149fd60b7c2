//! How do clusters begin TLS? Towards workloads of the mesh, and as a DestinationRule says.

use lateen_config::{ClientTlsMode, ClientTlsSettings};
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, UpstreamTlsContext,
};

use super::downstream::file;
use super::{combined, given, owned, parameters, secrets};
use crate::mesh::Mesh;
use crate::message;
use crate::scope::Capability;

/// ALPN protocols towards workloads of the mesh.
const MESH_ALPN: [&str; 2] = super::MESH_TCP_ALPN;

/// What is taken from each request, because the rule does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verification {
    /// The name that is asked for is the request's host.
    pub(crate) auto_sni: bool,
    /// The server's certificate has to have that name.
    pub(crate) auto_san_validation: bool,
}

/// Mutual TLS between workloads of the mesh. `names`: of which the server's certificate has to have one; empty takes
/// any of the mesh.
pub(crate) fn upstream_mesh(capability: Capability, sni: &str, names: &[String], http2: bool) -> UpstreamTlsContext {
    let own = CertificateValidationContext { match_subject_alt_names: exact(names), ..Default::default() };
    let mut alpn = owned(&MESH_ALPN);
    if http2 {
        alpn.push("h2".to_owned());
    }
    UpstreamTlsContext {
        sni: sni.to_owned(),
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters::upstream_mesh()),
            alpn_protocols: alpn,
            tls_certificate_sds_secret_configs: vec![secrets::workload_certificate(capability)],
            validation_context_type: Some(combined(own, secrets::mesh_authorities(capability))),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// TLS as a rule says it for modes `SIMPLE` and `MUTUAL`; `None` for the others. `names` are those that the service
/// itself declares, for a rule without any. `credentials`: whether secrets of Kubernetes are there for this proxy;
/// without them a rule that names one makes no TLS at all.
pub(crate) fn upstream(
    mesh: &Mesh,
    capability: Capability,
    settings: &ClientTlsSettings,
    names: &[String],
    credentials: bool,
    http2: bool,
) -> Option<UpstreamTlsContext> {
    if !matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        return None;
    }
    let credential = given(&settings.credential_name);
    if credential.is_some_and(|name| !credentials && !name.starts_with("configmap://")) {
        return None;
    }
    let certificate: Option<SdsSecretConfig> = match (settings.mode, credential) {
        (ClientTlsMode::Mutual, Some(name)) => Some(secrets::credential(capability, name)),
        (ClientTlsMode::Mutual, None) => given(&settings.client_certificate)
            .zip(given(&settings.private_key))
            .map(|(certificate, key)| secrets::file_certificate(capability, certificate, key)),
        _ => None,
    };
    Some(UpstreamTlsContext {
        sni: given(&settings.sni).unwrap_or_default().to_owned(),
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters::upstream(&mesh.tls_defaults)),
            alpn_protocols: if http2 { vec!["h2".to_owned()] } else { Vec::new() },
            tls_certificate_sds_secret_configs: certificate.into_iter().collect(),
            validation_context_type: Some(validation(capability, settings, names)),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// What is taken from each request under a rule of mode `SIMPLE` or `MUTUAL`.
pub(crate) fn verification(settings: &ClientTlsSettings, names: &[String]) -> Verification {
    let auto_sni = given(&settings.sni).is_none();
    let named = !settings.subject_alt_names.is_empty() || !names.is_empty();
    let skips = settings.insecure_skip_verify == Some(true);
    Verification { auto_sni, auto_san_validation: auto_sni && !named && !skips }
}

fn validation(capability: Capability, settings: &ClientTlsSettings, names: &[String]) -> ValidationContextType {
    if settings.insecure_skip_verify == Some(true) {
        return ValidationContextType::ValidationContext(CertificateValidationContext::default());
    }
    let own_names = if settings.subject_alt_names.is_empty() { names } else { &settings.subject_alt_names };
    let own = CertificateValidationContext {
        match_subject_alt_names: exact(own_names),
        crl: given(&settings.ca_crl).map(file),
        ..Default::default()
    };
    let authorities = match (given(&settings.credential_name), given(&settings.ca_certificates)) {
        (Some(name), _) => secrets::credential_authorities(capability, name),
        (None, Some(file)) => secrets::file_authorities(capability, file),
        (None, None) => secrets::system_authorities(capability),
    };
    combined(own, authorities)
}

fn exact(names: &[String]) -> Vec<lateen_xds::envoy::r#type::matcher::v3::StringMatcher> {
    names.iter().map(|name| message::exact(name)).collect()
}
