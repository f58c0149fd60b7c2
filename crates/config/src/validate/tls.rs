//! Is TLS of a server right? Gateways and Sidecars have it.

use std::collections::BTreeSet;

use super::{At, Rules, values};
use crate::istio::gateway::{CIPHER_SUITES, ServerTlsMode, ServerTlsSettings, TlsProtocol};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, tls: &ServerTlsSettings) {
    versions(rules, at, tls);
    values::at_most(rules, at.key("credentialNames"), 2, tls.credential_names.len());
    let given = given(tls);
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            for field in ["serverCertificate", "privateKey", "caCertificates", "credentialName", "credentialNames"]
                .into_iter()
                .chain(["tlsCertificates"])
                .filter(|field| given.contains(field))
            {
                let message = format!("`{at}` has mode ISTIO_MUTUAL and `{field}`");
                rules.error(at.key(field), message, "the mesh has its own certificates: remove this");
            }
            return;
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if let Some(field) = given.first() {
                let message = format!("`{at}.{field}` is not looked at: TLS is passed through");
                let help = "give `mode: SIMPLE` or `mode: MUTUAL`; the default is PASSTHROUGH";
                rules.warning(at.key(field), message, help);
            }
            return;
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    // Half a pair beside a secret is not looked at.
    let has_files = given.contains("serverCertificate") && given.contains("privateKey");
    let sources = [
        ("credentialName", given.contains("credentialName")),
        ("credentialNames", given.contains("credentialNames")),
        ("tlsCertificates", given.contains("tlsCertificates")),
        ("serverCertificate", has_files),
    ];
    let sources: Vec<&str> = sources.into_iter().filter(|(_, is_given)| *is_given).map(|(field, _)| field).collect();
    if let [first, second, ..] = sources[..] {
        let message = format!("`{at}` has both `{first}` and `{second}`");
        rules.error(at.key(second), message, "certificates come from one place: remove one of the two");
        return;
    }
    let checks_clients = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let is_credential = given.contains("credentialName") || given.contains("credentialNames");
    if !is_credential {
        files(rules, at, tls, checks_clients);
    }
    let checks_with_secret = is_credential && tls.mode == ServerTlsMode::OptionalMutual;
    if given.contains("caCrl") && (checks_with_secret || (!is_credential && !checks_clients)) {
        let message = format!("`{at}.caCrl` is only for client certificates that are checked with files");
        rules.error(at.key("caCrl"), message, "put it into the secret as `ca.crl`, or remove it");
    }
}

/// Whether anything about certificates is given.
pub(super) fn has_certificates(tls: &ServerTlsSettings) -> bool {
    !given(tls).is_empty()
}

/// The fields about certificates that are given.
fn given(tls: &ServerTlsSettings) -> BTreeSet<&'static str> {
    let text = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let fields = [
        ("serverCertificate", text(&tls.server_certificate)),
        ("privateKey", text(&tls.private_key)),
        ("caCertificates", text(&tls.ca_certificates)),
        ("caCrl", text(&tls.ca_crl)),
        ("credentialName", text(&tls.credential_name)),
        ("caCertCredentialName", text(&tls.ca_cert_credential_name)),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    fields.into_iter().filter(|(_, is_given)| *is_given).map(|(field, _)| field).collect()
}

fn files(rules: &mut Rules<'_>, at: At<'_>, tls: &ServerTlsSettings, checks_clients: bool) {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let help = "give `credentialName`, or both `serverCertificate` and `privateKey`";
    if tls.tls_certificates.is_empty() {
        let pair = [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)];
        for (field, _) in pair.into_iter().filter(|(_, text)| !given(text)) {
            rules.error(at, format!("`{at}` has no `{field}`"), help);
        }
    }
    for (index, certificate) in tls.tls_certificates.iter().enumerate() {
        let at = at.key("tlsCertificates");
        let at = at.index(index);
        let pair = [("serverCertificate", &certificate.server_certificate), ("privateKey", &certificate.private_key)];
        for (field, _) in pair.into_iter().filter(|(_, text)| !given(text)) {
            rules.error(at, format!("`{at}` has no `{field}`"), "");
        }
    }
    if tls.tls_certificates.len() > 2 {
        let message = format!("`{at}.tlsCertificates` has more than two entries: the others are not looked at");
        rules.warning(at.key("tlsCertificates").index(2), message, "one for RSA and one for ECDSA");
    }
    if checks_clients && !given(&tls.ca_certificates) {
        let message = format!("`{at}` checks client certificates, but has no `caCertificates`");
        rules.error(at, message, "give `caCertificates`, or a secret as `credentialName`");
    }
}

fn versions(rules: &mut Rules<'_>, at: At<'_>, tls: &ServerTlsSettings) {
    let is_old = matches!(tls.min_protocol_version, TlsProtocol::TlsV1_0 | TlsProtocol::TlsV1_1);
    if is_old && tls.cipher_suites.is_empty() {
        let message =
            format!("`{at}.minProtocolVersion` is {}, but no `cipherSuites` allow it", tls.min_protocol_version);
        rules.warning(at.key("minProtocolVersion"), message, "give `cipherSuites` that old clients know");
    }
    let mut seen = BTreeSet::new();
    for (index, cipher) in tls.cipher_suites.iter().enumerate() {
        let at = at.key("cipherSuites");
        if !is_cipher(cipher) {
            rules.warning(at.index(index), format!("`{cipher}` is no cipher, and is passed over"), "");
        } else if !seen.insert(cipher) {
            rules.warning(at.index(index), format!("`{cipher}` is there twice"), "remove one of the two");
        }
    }
}

fn is_cipher(cipher: &str) -> bool {
    cipher.is_empty() || cipher == "ALL" || cipher.starts_with(['+', '-', '!', '@']) || CIPHER_SUITES.contains(&cipher)
}
