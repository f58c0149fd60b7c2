//! How is a certificate asked for? Names of secrets as Istio gives them, and where they come from.
//!
//! Istio's own build of Envoy gets certificates of the workload and files from its agent; every other data plane gets
//! them over the stream that carries everything else. Secrets of Kubernetes always come over that stream.

use lateen_xds::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, api_config_source, config_source,
    grpc_service,
};
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;

use crate::message;
use crate::scope::Capability;

/// Cluster of Istio's agent beside the proxy.
const AGENT_CLUSTER: &str = "sds-grpc";

/// Cluster of a provider of certificates beside the gateway that is not Istio's.
const EXTERNAL_CLUSTER: &str = "sds-external";

/// Secret with the certificate of the workload.
const WORKLOAD_CERTIFICATE: &str = "default";

/// Secret with the authorities of the mesh.
const MESH_AUTHORITIES: &str = "ROOTCA";

/// Beginning of the names of secrets that Kubernetes keeps.
const KUBERNETES: &str = "kubernetes://";

/// Beginning of the names of authorities in ConfigMaps.
const CONFIG_MAP: &str = "configmap://";

/// Beginning of the names of secrets that another provider keeps.
const EXTERNAL: &str = "sds://";

/// Name for the workload's own certificate.
const BUILTIN: &str = "builtin://";

/// End of the names of secrets with authorities.
const AUTHORITIES: &str = "-cacert";

/// The workload's certificate.
pub(super) fn workload_certificate(capability: Capability) -> SdsSecretConfig {
    of_agent(capability, WORKLOAD_CERTIFICATE.to_owned())
}

/// The authorities of the mesh.
pub(super) fn mesh_authorities(capability: Capability) -> SdsSecretConfig {
    of_agent(capability, MESH_AUTHORITIES.to_owned())
}

/// A certificate and its key in files.
pub(super) fn file_certificate(capability: Capability, certificate: &str, key: &str) -> SdsSecretConfig {
    of_agent(capability, format!("file-cert:{certificate}~{key}"))
}

/// Authorities in a file.
pub(super) fn file_authorities(capability: Capability, file: &str) -> SdsSecretConfig {
    of_agent(capability, format!("file-root:{file}"))
}

/// The authorities that the operating system of the proxy trusts.
pub(super) fn system_authorities(capability: Capability) -> SdsSecretConfig {
    file_authorities(capability, "system")
}

/// The certificate that a `credentialName` stands for.
pub(super) fn credential(capability: Capability, name: &str) -> SdsSecretConfig {
    if name.starts_with(BUILTIN) {
        return workload_certificate(capability);
    }
    named(capability, name, "")
}

/// The authorities that belong to a `credentialName`.
pub(super) fn credential_authorities(capability: Capability, name: &str) -> SdsSecretConfig {
    if name.starts_with(BUILTIN) {
        return mesh_authorities(capability);
    }
    if name.starts_with(CONFIG_MAP) {
        return over_ads(name.to_owned());
    }
    named(capability, name, AUTHORITIES)
}

/// The authorities that a `caCertCredentialName` stands for: its name says already what it is.
pub(super) fn named_authorities(capability: Capability, name: &str) -> SdsSecretConfig {
    if name.starts_with(CONFIG_MAP) {
        return over_ads(name.to_owned());
    }
    named(capability, name, "")
}

fn named(capability: Capability, name: &str, end: &str) -> SdsSecretConfig {
    if let Some(external) = name.strip_prefix(EXTERNAL) {
        let name = format!("{external}{end}");
        return match capability {
            Capability::IstioProxy => over_grpc(name, EXTERNAL_CLUSTER),
            Capability::Native | Capability::UpstreamEnvoy => over_ads(name),
        };
    }
    if name.contains("://") {
        return over_ads(format!("{name}{end}"));
    }
    over_ads(format!("{KUBERNETES}{name}{end}"))
}

fn of_agent(capability: Capability, name: String) -> SdsSecretConfig {
    match capability {
        Capability::IstioProxy => over_grpc(name, AGENT_CLUSTER),
        Capability::Native | Capability::UpstreamEnvoy => over_ads(name),
    }
}

/// Waits for the secret as long as the data plane does by itself: one that never comes stops its own connections alone.
fn over_ads(name: String) -> SdsSecretConfig {
    let source = ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        ..Default::default()
    };
    SdsSecretConfig { name, sds_config: Some(source) }
}

fn over_grpc(name: String, cluster: &str) -> SdsSecretConfig {
    let service = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let api = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![service],
        ..Default::default()
    };
    let source = ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::ApiConfigSource(api)),
        initial_fetch_timeout: Some(message::duration(std::time::Duration::ZERO)),
        resource_api_version: ApiVersion::V3.into(),
        ..Default::default()
    };
    SdsSecretConfig { name, sds_config: Some(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(config: &SdsSecretConfig) -> &'static str {
        match config.sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref()) {
            Some(config_source::ConfigSourceSpecifier::Ads(_)) => "ads",
            Some(config_source::ConfigSourceSpecifier::ApiConfigSource(_)) => "grpc",
            _ => "other",
        }
    }

    #[test]
    fn names_of_secrets_are_istios() {
        let native = Capability::Native;
        for (config, name) in [
            (workload_certificate(native), "default"),
            (mesh_authorities(native), "ROOTCA"),
            (file_certificate(native, "/c.pem", "/k.pem"), "file-cert:/c.pem~/k.pem"),
            (file_authorities(native, "/ca.pem"), "file-root:/ca.pem"),
            (system_authorities(native), "file-root:system"),
            (credential(native, "shop"), "kubernetes://shop"),
            (credential(native, "edge/shop"), "kubernetes://edge/shop"),
            (credential(native, "kubernetes://shop"), "kubernetes://shop"),
            (credential(native, "builtin://"), "default"),
            (credential_authorities(native, "builtin://"), "ROOTCA"),
            (credential_authorities(native, "shop"), "kubernetes://shop-cacert"),
            (credential_authorities(native, "configmap://edge/ca"), "configmap://edge/ca"),
            (named_authorities(native, "ca"), "kubernetes://ca"),
            (credential(native, "sds://shop"), "shop"),
        ] {
            assert_eq!(config.name, name);
            assert_eq!(source(&config), "ads");
        }
    }

    #[test]
    fn only_istios_build_has_an_agent_beside_it() {
        let istio = Capability::IstioProxy;
        assert_eq!(source(&workload_certificate(istio)), "grpc");
        assert_eq!(source(&file_authorities(istio, "/ca.pem")), "grpc");
        assert_eq!(source(&credential(istio, "sds://shop")), "grpc");
        assert_eq!(source(&credential(istio, "shop")), "ads", "secrets of Kubernetes are the control plane's");
        assert_eq!(source(&workload_certificate(Capability::UpstreamEnvoy)), "ads");
    }
}
