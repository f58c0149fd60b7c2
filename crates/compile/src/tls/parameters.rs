//! Within which bounds is TLS negotiated? Versions, ciphers and curves.

use std::collections::BTreeSet;

use lateen_config::{CIPHER_SUITES, MeshTls, ServerTlsSettings, TlsProtocol};
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::TlsParameters;
use lateen_xds::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol as Version;

/// Ciphers of connections between workloads of the mesh.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Bounds of connections to other workloads and to outside servers: two versions, and what the mesh says of ciphers
/// and curves.
pub(super) fn upstream(defaults: &MeshTls) -> TlsParameters {
    TlsParameters { ecdh_curves: defaults.ecdh_curves.clone(), ..upstream_mesh_with(&defaults.cipher_suites) }
}

/// Bounds of connections to workloads of the mesh.
pub(super) fn upstream_mesh() -> TlsParameters {
    upstream_mesh_with(&[])
}

fn upstream_mesh_with(ciphers: &[String]) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: Version::TlSv12.into(),
        tls_maximum_protocol_version: Version::TlSv13.into(),
        cipher_suites: known(ciphers),
        ..Default::default()
    }
}

/// Bounds of connections from workloads of the mesh.
pub(super) fn downstream_mesh(mesh: &MeshTls) -> TlsParameters {
    let minimum = match mesh.min_protocol_version {
        TlsProtocol::TlsV1_3 => Version::TlSv13,
        TlsProtocol::TlsAuto | TlsProtocol::TlsV1_0 | TlsProtocol::TlsV1_1 | TlsProtocol::TlsV1_2 => Version::TlSv12,
    };
    TlsParameters {
        tls_minimum_protocol_version: minimum.into(),
        tls_maximum_protocol_version: Version::TlSv13.into(),
        cipher_suites: super::owned(&MESH_CIPHERS),
        ..Default::default()
    }
}

/// Bounds of connections to a server with settings of its own, over those of the mesh. `None` leaves all to the data
/// plane.
pub(super) fn downstream(defaults: &MeshTls, own: &ServerTlsSettings) -> Option<TlsParameters> {
    let of = |own: TlsProtocol, default: Version| match version(own) {
        Version::TlsAuto => default,
        own => own,
    };
    let ciphers = known(&own.cipher_suites);
    let parameters = TlsParameters {
        tls_minimum_protocol_version: of(own.min_protocol_version, version(defaults.min_protocol_version)).into(),
        tls_maximum_protocol_version: of(own.max_protocol_version, Version::TlsAuto).into(),
        cipher_suites: if ciphers.is_empty() { known(&defaults.cipher_suites) } else { ciphers },
        ecdh_curves: defaults.ecdh_curves.clone(),
        ..Default::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}

fn version(version: TlsProtocol) -> Version {
    match version {
        TlsProtocol::TlsAuto => Version::TlsAuto,
        TlsProtocol::TlsV1_0 => Version::TlSv10,
        TlsProtocol::TlsV1_1 => Version::TlSv11,
        TlsProtocol::TlsV1_2 => Version::TlSv12,
        TlsProtocol::TlsV1_3 => Version::TlSv13,
    }
}

/// The ciphers that exist, each once.
fn known(ciphers: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    ciphers
        .iter()
        .filter(|cipher| CIPHER_SUITES.contains(&cipher.as_str()) && seen.insert(cipher.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_that_do_not_exist_and_repetitions_are_left_out() {
        let ciphers = ["AES128-SHA", "NONE", "AES256-SHA", "AES128-SHA"].map(str::to_owned);
        assert_eq!(known(&ciphers), ["AES128-SHA", "AES256-SHA"]);
    }

    #[test]
    fn a_servers_own_bounds_come_before_those_of_the_mesh() {
        let defaults = MeshTls {
            min_protocol_version: TlsProtocol::TlsV1_3,
            cipher_suites: vec!["AES128-SHA".into()],
            ecdh_curves: vec!["P-256".into()],
            ..MeshTls::default()
        };
        let own = ServerTlsSettings { min_protocol_version: TlsProtocol::TlsV1_1, ..Default::default() };
        let parameters = downstream(&defaults, &own).unwrap_or_default();
        assert_eq!(parameters.tls_minimum_protocol_version, i32::from(Version::TlSv11));
        assert_eq!(parameters.cipher_suites, ["AES128-SHA"]);
        assert_eq!(parameters.ecdh_curves, ["P-256"]);
        assert_eq!(downstream(&MeshTls::default(), &ServerTlsSettings::default()), None);
    }

    #[test]
    fn the_mesh_never_goes_below_its_lowest_version() {
        let minimum = |version| {
            let mesh = MeshTls { min_protocol_version: version, ..MeshTls::default() };
            downstream_mesh(&mesh).tls_minimum_protocol_version
        };
        assert_eq!(minimum(TlsProtocol::TlsV1_0), i32::from(Version::TlSv12));
        assert_eq!(minimum(TlsProtocol::TlsV1_3), i32::from(Version::TlSv13));
    }
}
