//! What happens to a request before routing: checks, normalisation, sanitising, client address, request id.
//!
//! The order is Envoy's: host and path checks, path normalisation, port stripping, then the header mutations of the
//! connection manager (hop-by-hop, internal headers, `x-forwarded-for`, `x-forwarded-proto`, `x-request-id`).

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;

use super::head::{Head, Known};
use super::path::{self, Normalized};
use super::reply::LocalReply;
use super::stream_info::{Address, StreamInfo};
use crate::snapshot::hcm::{ClientCert, EscapedSlashes, HttpConnectionManager, StripPort, Underscores};

/// Headers by which a client may steer retries and timeouts; kept from internal clients only.
const STEERING: [Known; 11] = [
    Known::XEnvoyMaxRetries,
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyHedgeOnPerTryTimeout,
];
/// Also removed from external requests, in both modes.
const STEERING_OTHER: [Known; 2] = [Known::XEnvoyForceTrace, Known::XEnvoyIpTags];
/// Removed from external requests at the edge only.
const EDGE_ONLY: [Known; 4] = [
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyDownstreamServiceCluster,
    Known::XEnvoyDownstreamServiceNode,
    Known::XEnvoyOriginalPath,
];

/// Facts of the machine that ingress needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// The first address of this machine that is not loopback; Envoy shows it instead of a loopback peer.
    pub(crate) address: Option<IpAddr>,
}

/// What ingress found out about the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ingress {
    /// The request came from an internal address, so that it may steer retries and timeouts.
    pub(crate) internal: bool,
    /// The request asks for another protocol: `upgrade` is there and `connection` confirms it.
    pub(crate) upgrade: bool,
}

/// Prepares a request for routing.
///
/// # Errors
/// The reply with which the request ends here.
pub(crate) fn prepare(
    manager: &HttpConnectionManager,
    machine: &Machine,
    request: &mut Head,
    info: &mut StreamInfo<'_>,
    rng: &mut Rng,
) -> Result<Ingress, LocalReply> {
    if request.authority().is_none() {
        return Err(LocalReply::empty(400, "missing_host_header").closing());
    }
    check_names(manager, request)?;
    prepare_path(manager, request)?;
    strip_port(manager, request, info.downstream.local.socket);
    let upgrade = request.contains(Known::Upgrade) && asks_for_upgrade(request);
    request.remove_connection_headers(upgrade);
    if request.get(Known::Referer).is_some_and(|referer| !is_absolute_url(referer)) {
        request.remove_known(Known::Referer);
    }
    if manager.client_cert == ClientCert::Remove {
        request.remove_known(Known::XForwardedClientCert);
    }
    let peer = info.downstream.remote.socket.ip();
    let client = client_address(manager, request, peer);
    if client != peer {
        info.client = Some(Address::from(SocketAddr::new(client, 0)));
    }
    let internal = is_internal(manager, request, peer);
    sanitize(manager, request, internal);
    forward_facts(manager, machine, request, info, internal, client);
    request_id(manager, request, internal, rng);
    if let Some(via) = &manager.via {
        append_via(request, via);
    }
    Ok(Ingress { internal, upgrade })
}

fn check_names(manager: &HttpConnectionManager, request: &mut Head) -> Result<(), LocalReply> {
    match manager.underscores {
        Underscores::Allow => Ok(()),
        Underscores::Reject if request.fields().any(|(name, _)| name.contains(&b'_')) => {
            Err(LocalReply::text(400, "Bad Request", "http1.unexpected_underscore").closing())
        }
        Underscores::Reject => Ok(()),
        Underscores::Drop => {
            request.remove_where(|name| name.contains(&b'_'));
            Ok(())
        }
    }
}

fn prepare_path(manager: &HttpConnectionManager, request: &mut Head) -> Result<(), LocalReply> {
    if request.method() == b"CONNECT" {
        return Ok(());
    }
    if !request.path().starts_with(b"/") {
        return Err(LocalReply::empty(404, "absolute_path_rejected"));
    }
    if request.method() == b"QUERY" && !request.contains(Known::ContentType) {
        return Err(LocalReply::empty(400, "query_missing_content_type"));
    }
    if request.path().contains(&b'#') {
        return Err(LocalReply::empty(400, "path_normalization_failed").closing());
    }
    match path::normalize(request, manager.normalize_path, manager.merge_slashes, manager.escaped_slashes) {
        Normalized::Done => Ok(()),
        Normalized::Refused => Err(LocalReply::empty(400, "path_normalization_failed").closing()),
        Normalized::Redirect => {
            debug_assert_eq!(manager.escaped_slashes, EscapedSlashes::UnescapeAndRedirect);
            let location = request.path().to_vec();
            Err(LocalReply::empty(307, "path_normalization_failed").with_header(Known::Location, location))
        }
    }
}

fn strip_port(manager: &HttpConnectionManager, request: &mut Head, local: SocketAddr) {
    if manager.strip_port == StripPort::No {
        return;
    }
    let Some(authority) = request.authority() else { return };
    let Some((host, port)) = split_port(authority) else { return };
    if manager.strip_port == StripPort::Matching && port != local.port() {
        return;
    }
    let host = host.to_vec();
    request.set_authority(&host);
}

/// Host and port of an authority that has a port.
fn split_port(authority: &[u8]) -> Option<(&[u8], u16)> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    let port = str::from_utf8(&authority[colon + 1..]).ok()?.parse().ok()?;
    let host = &authority[..colon];
    // In `::1` the last colon is part of the address.
    let bracketed = host.ends_with(b"]");
    (bracketed || !host.contains(&b':')).then_some((host, port))
}

/// An `Upgrade` that `Connection` confirms, other than the `h2c` that Envoy ignores.
fn asks_for_upgrade(request: &Head) -> bool {
    let confirmed = request.get_all(Known::Connection).any(|value| {
        value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    confirmed && !request.get(Known::Upgrade).is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
}

fn is_absolute_url(text: &[u8]) -> bool {
    let lower_starts = |prefix: &[u8]| text.len() > prefix.len() && text[..prefix.len()].eq_ignore_ascii_case(prefix);
    lower_starts(b"http://") || lower_starts(b"https://")
}

/// The trusted client address: the peer, or the entry of `x-forwarded-for` that the trusted hops vouch for.
fn client_address(manager: &HttpConnectionManager, request: &Head, peer: IpAddr) -> IpAddr {
    let from_right = match (manager.edge, manager.trusted_hops) {
        (true, 0) => return peer,
        (true, hops) => hops - 1,
        (false, hops) => hops,
    };
    let Some(list) = request.get(Known::XForwardedFor) else { return peer };
    list.rsplit(|byte| *byte == b',').nth(from_right).and_then(parse_address).unwrap_or(peer)
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

fn is_internal(manager: &HttpConnectionManager, request: &Head, peer: IpAddr) -> bool {
    if manager.internal_ranges.is_empty() {
        return false;
    }
    let list = request.get(Known::XForwardedFor);
    let address = match (manager.edge, list) {
        (true, None) => Some(peer),
        (true, Some(_)) | (false, None) => None,
        (false, Some(list)) if list.contains(&b',') => None,
        (false, Some(list)) => parse_address(list),
    };
    address.is_some_and(|address| manager.internal_ranges.iter().any(|range| in_range(address, *range)))
}

fn in_range(address: IpAddr, (prefix, length): (IpAddr, u8)) -> bool {
    match (address, prefix) {
        (IpAddr::V4(address), IpAddr::V4(prefix)) => {
            let shift = 32 - u32::from(length.min(32));
            let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
            address.to_bits() & mask == prefix.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(prefix)) => {
            let shift = 128 - u32::from(length.min(128));
            let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
            address.to_bits() & mask == prefix.to_bits() & mask
        }
        _ => false,
    }
}

fn sanitize(manager: &HttpConnectionManager, request: &mut Head, internal: bool) {
    request.remove_known(Known::XEnvoyInternal);
    if internal || !request.has_envoy_headers() {
        return;
    }
    for name in STEERING.into_iter().chain(STEERING_OTHER) {
        request.remove_known(name);
    }
    if manager.edge {
        for name in EDGE_ONLY {
            request.remove_known(name);
        }
    }
}

/// Tells the upstream who asked, and how: `x-forwarded-for`, `x-forwarded-proto`, `x-forwarded-port`,
/// `x-envoy-external-address`, `x-envoy-internal`.
fn forward_facts(
    manager: &HttpConnectionManager,
    machine: &Machine,
    request: &mut Head,
    info: &StreamInfo<'_>,
    internal: bool,
    client: IpAddr,
) {
    let downstream = info.downstream;
    let peer = downstream.remote.socket.ip();
    if manager.edge && !manager.skip_xff_append {
        let shown = if peer.is_loopback() { machine.address.unwrap_or(peer) } else { peer };
        append_to_list(request, Known::XForwardedFor, shown);
    }
    let scheme: &[u8] = if downstream.tls { b"https" } else { b"http" };
    let keep_proto = !manager.edge || manager.trusted_hops > 0;
    if !(keep_proto && request.contains(Known::XForwardedProto)) {
        request.set_in_place(Known::XForwardedProto, scheme);
    }
    if let Some(scheme) = &manager.scheme_to_overwrite {
        request.set_in_place(Known::XForwardedProto, scheme);
    }
    if let Some(scheme) = request.get(Known::XForwardedProto).map(<[u8]>::to_vec) {
        request.set_scheme(&scheme);
    }
    if manager.append_x_forwarded_port && manager.edge {
        request.set_known(Known::XForwardedPort, downstream.local.socket.port().to_string().as_bytes());
    }
    if manager.edge && !internal {
        let text = client.to_string();
        request.set_in_place(Known::XEnvoyExternalAddress, text.as_bytes());
    }
    if internal {
        request.set_known(Known::XEnvoyInternal, b"true");
    }
}

/// Appends to a comma-separated list with a bare comma, as Envoy does.
pub(crate) fn append_to_list(request: &mut Head, name: Known, address: IpAddr) {
    use std::io::Write as _;
    let mut value = request.get(name).map(<[u8]>::to_vec).unwrap_or_default();
    if !value.is_empty() {
        value.push(b',');
    }
    // Writing to a vector does not fail.
    let _ = write!(value, "{address}");
    request.set_in_place(name, &value);
}

fn append_via(request: &mut Head, via: &[u8]) {
    let mut value = request.get(Known::Via).map(<[u8]>::to_vec).unwrap_or_default();
    if !value.is_empty() {
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(via);
    request.set_in_place(Known::Via, &value);
}

fn request_id(manager: &HttpConnectionManager, request: &mut Head, internal: bool, rng: &mut Rng) {
    if !manager.generate_request_id {
        return;
    }
    let replace = manager.edge && !internal && !manager.preserve_external_request_id;
    if replace || !request.contains(Known::XRequestId) {
        request.set_in_place(Known::XRequestId, &uuid(rng));
    }
}

/// A random UUID (version 4, RFC 9562 section 5.4).
fn uuid(rng: &mut Rng) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (rng.u128(..) & !(0xf << 76 | 0x3 << 62)) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (position, slot) in text.iter_mut().enumerate() {
        if !matches!(position, 8 | 13 | 18 | 23) {
            shift -= 4;
            *slot = HEX[(bits >> shift) as usize & 0xf];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_request_id_is_a_version_4_uuid() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..1000 {
            let id = uuid(&mut rng);
            assert_eq!(id[14], b'4');
            assert!(matches!(id[19], b'8' | b'9' | b'a' | b'b'), "{}", String::from_utf8_lossy(&id));
            assert_eq!(id.iter().filter(|byte| **byte == b'-').count(), 4);
        }
        assert_ne!(uuid(&mut rng), uuid(&mut rng));
    }

    #[test]
    fn ports_are_split_from_names_and_bracketed_addresses_only() {
        assert_eq!(split_port(b"a.com:80"), Some((&b"a.com"[..], 80)));
        assert_eq!(split_port(b"[::1]:80"), Some((&b"[::1]"[..], 80)));
        assert_eq!(split_port(b"::1"), None);
        assert_eq!(split_port(b"a.com"), None);
        assert_eq!(split_port(b"a.com:"), None);
    }

    #[test]
    fn ranges_match_by_prefix() {
        let range = |text: &str, length| (text.parse().unwrap(), length);
        assert!(in_range("10.1.2.3".parse().unwrap(), range("10.0.0.0", 8)));
        assert!(!in_range("11.1.2.3".parse().unwrap(), range("10.0.0.0", 8)));
        assert!(in_range("11.1.2.3".parse().unwrap(), range("0.0.0.0", 0)));
        assert!(in_range("fd00::1".parse().unwrap(), range("fd00::", 8)));
        assert!(!in_range("fd00::1".parse().unwrap(), range("10.0.0.0", 8)));
    }
}
