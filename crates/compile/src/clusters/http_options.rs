//! Which HTTP is spoken to a cluster, and with which options?

use std::collections::BTreeMap;

use lateen_config::{ConnectionPoolSettings, H2UpgradePolicy};
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions, KeepaliveSettings,
    UpstreamHttpProtocolOptions,
};
use lateen_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use lateen_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

use super::connection_pool::positive;
use crate::context::Context;
use crate::message;
use crate::protocol::Protocol;
use crate::tls::Verification;

/// Key of the HTTP options among a cluster's typed extension options.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Which version is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// That of the client.
    Client,
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// The version that is spoken to a service's port. A rule may upgrade what is not declared as HTTP/2.
pub(super) fn outbound_version(cx: &Context<'_>, pool: Option<&ConnectionPoolSettings>, protocol: Protocol) -> Version {
    let upgrades = match pool.and_then(|pool| pool.http.as_ref()).map(|http| http.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => cx.world.mesh().h2_upgrade && protocol.is_http(),
    };
    match inbound_version(cx, pool, protocol) {
        Version::Client if upgrades && !uses_client_protocol(pool) => Version::Http2,
        Version::Http1 if upgrades => Version::Http2,
        version => version,
    }
}

/// The version that is spoken to a port of the proxy's own workload.
pub(super) fn inbound_version(cx: &Context<'_>, pool: Option<&ConnectionPoolSettings>, protocol: Protocol) -> Version {
    if uses_client_protocol(pool) || cx.follows_client_protocol(protocol) {
        Version::Client
    } else if protocol.is_http2() {
        Version::Http2
    } else {
        Version::Http1
    }
}

fn uses_client_protocol(pool: Option<&ConnectionPoolSettings>) -> bool {
    pool.and_then(|pool| pool.http.as_ref()).is_some_and(|http| http.use_client_protocol)
}

/// What the options are made of.
pub(super) struct Options<'a> {
    pub(super) version: Version,
    pub(super) pool: Option<&'a ConnectionPoolSettings>,
    /// What TLS takes from each request.
    pub(super) verification: Verification,
    /// Which responses count as errors.
    pub(super) error_matcher: Option<OutlierDetection>,
}

/// Sets the options of a cluster, if there are any. Envoy asks for a choice of version as soon as any option is given.
pub(super) fn apply(cluster: &mut Cluster, options: Options<'_>) {
    let http = options.pool.and_then(|pool| pool.http.as_ref());
    let tcp = options.pool.and_then(|pool| pool.tcp.as_ref());
    let common = CommonHttpProtocolOptions {
        idle_timeout: http
            .and_then(|http| http.idle_timeout)
            .or_else(|| tcp.and_then(|tcp| tcp.idle_timeout))
            .map(message::duration),
        max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(message::duration),
        max_requests_per_connection: http.and_then(|http| positive(http.max_requests_per_connection)),
        ..Default::default()
    };
    let Verification { auto_sni, auto_san_validation } = options.verification;
    let upstream = UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, ..Default::default() };
    let common = (common != CommonHttpProtocolOptions::default()).then_some(common);
    let upstream = (upstream != UpstreamHttpProtocolOptions::default()).then_some(upstream);
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let choice = match options.version {
        Version::Client => of_client(),
        Version::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
            max_concurrent_streams: http.and_then(|http| positive(http.max_concurrent_streams)),
            connection_keepalive: http.and_then(|http| http.http2_keep_alive.as_ref()).map(|keep_alive| {
                KeepaliveSettings {
                    interval: keep_alive.interval.map(message::duration),
                    timeout: keep_alive.timeout.map(message::duration),
                    ..Default::default()
                }
            }),
            ..Default::default()
        })),
        Version::Http1 if common.is_none() && upstream.is_none() && options.error_matcher.is_none() => return,
        Version::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
    };
    let message = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: upstream,
        outlier_detection: options.error_matcher,
        upstream_protocol_options: Some(choice),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options = BTreeMap::from([(KEY.to_owned(), message::typed(&message))]);
}

/// Sets the options of a cluster that has nothing but an idle time, and the version of the client.
pub(super) fn follow_client(cluster: &mut Cluster, idle_timeout: std::time::Duration) {
    let message = HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpProtocolOptions {
            idle_timeout: Some(message::duration(idle_timeout)),
            ..Default::default()
        }),
        upstream_protocol_options: Some(of_client()),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options = BTreeMap::from([(KEY.to_owned(), message::typed(&message))]);
}

fn of_client() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..Default::default()
    })
}
