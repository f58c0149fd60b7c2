//! Is a traffic policy right? Load balancing, connection pools, outlier detection, TLS to workloads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::names::{is_fqdn, is_ip};
use super::{At, Rules, locality, values};
use crate::istio::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHash, H2UpgradePolicy, HashAlgorithm, HashKey,
    HttpConnectionPool, LoadBalancerPolicy, LoadBalancerSettings, OutlierDetection, RetryBudget, TcpConnectionPool,
    TrafficPolicy, TunnelSettings, WarmupConfiguration,
};

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, policy: &TrafficPolicy) {
    let is_empty = policy.load_balancer.is_none()
        && policy.connection_pool.is_none()
        && policy.outlier_detection.is_none()
        && policy.tls.is_none()
        && policy.port_level_settings.is_empty()
        && policy.tunnel.is_none()
        && policy.proxy_protocol.is_none()
        && policy.retry_budget.is_none();
    if is_empty {
        let help = "give at least one of `loadBalancer`, `connectionPool`, `outlierDetection`, `tls`, …";
        rules.error(at, format!("`{at}` says nothing"), help);
        return;
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        let message = format!("`{at}` has both `tunnel` and `proxyProtocol`");
        rules.error(at.key("proxyProtocol"), message, "remove one of the two");
        return;
    }
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    check_blocks(rules, at, &blocks);
    if let Some(budget) = &policy.retry_budget {
        retry_budget(rules, at.key("retryBudget"), budget);
    }
    if let Some(settings) = &policy.tunnel {
        tunnel(rules, at.key("tunnel"), settings);
    }
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        let at = at.key("portLevelSettings");
        let at = at.index(index);
        match &settings.port {
            Some(port) => values::port(rules, at.key("port").key("number"), port.number),
            None => rules.error(at, format!("`{at}` has no `port`"), ""),
        }
        let blocks = Blocks {
            load_balancer: settings.load_balancer.as_ref(),
            connection_pool: settings.connection_pool.as_ref(),
            outlier_detection: settings.outlier_detection.as_ref(),
            tls: settings.tls.as_ref(),
        };
        if blocks.are_empty() {
            let help = "give at least one of `loadBalancer`, `connectionPool`, `outlierDetection` and `tls`";
            rules.error(at, format!("`{at}` says nothing"), help);
        }
        check_blocks(rules, at, &blocks);
    }
}

/// Limits of connections and requests; Sidecars have them too.
pub(super) fn connection_pool(rules: &mut Rules<'_>, at: At<'_>, pool: &ConnectionPoolSettings) {
    if pool.http.is_none() && pool.tcp.is_none() {
        rules.error(at, format!("`{at}` says nothing"), "give `http` or `tcp`");
    }
    if let Some(tcp) = &pool.tcp {
        tcp_pool(rules, at.key("tcp"), tcp);
    }
    if let Some(http) = &pool.http {
        http_pool(rules, at.key("http"), http);
    }
}

/// What policies of hosts and of ports have in common.
#[derive(Debug)]
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancerSettings>,
    connection_pool: Option<&'a ConnectionPoolSettings>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTlsSettings>,
}

impl Blocks<'_> {
    fn are_empty(&self) -> bool {
        self.load_balancer.is_none()
            && self.connection_pool.is_none()
            && self.outlier_detection.is_none()
            && self.tls.is_none()
    }
}

fn check_blocks(rules: &mut Rules<'_>, at: At<'_>, blocks: &Blocks<'_>) {
    if let Some(settings) = blocks.load_balancer {
        load_balancer(rules, at.key("loadBalancer"), settings, blocks.outlier_detection.is_some());
    }
    if let Some(pool) = blocks.connection_pool {
        connection_pool(rules, at.key("connectionPool"), pool);
    }
    if let Some(detection) = blocks.outlier_detection {
        outlier_detection(rules, at.key("outlierDetection"), detection);
    }
    if let Some(tls) = blocks.tls {
        client_tls(rules, at.key("tls"), tls);
    }
}

fn load_balancer(rules: &mut Rules<'_>, at: At<'_>, settings: &LoadBalancerSettings, detects_outliers: bool) {
    if let Some(LoadBalancerPolicy::ConsistentHash(hash)) = &settings.policy {
        consistent_hash(rules, at.key("consistentHash"), hash);
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        let message = format!("`{at}` has both `localityLbSetting` and `zoneAwareLbSetting`");
        rules.error(at.key("zoneAwareLbSetting"), message, "remove one of the two");
    }
    if let Some(setting) = &settings.locality_lb_setting {
        locality::check(rules, at.key("localityLbSetting"), setting, detects_outliers);
    }
    if let Some(setting) = &settings.zone_aware_lb_setting {
        locality::check_zone_aware(rules, at.key("zoneAwareLbSetting"), setting, detects_outliers);
    }
    if let Some(configuration) = &settings.warmup {
        warmup(rules, at.key("warmup"), configuration);
    }
    values::duration(rules, at.key("warmupDurationSecs"), settings.warmup_duration_secs);
}

fn warmup(rules: &mut Rules<'_>, at: At<'_>, warmup: &WarmupConfiguration) {
    values::duration(rules, at.key("duration"), Some(warmup.duration));
    if let Some(percent) = warmup.minimum_percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        let at = at.key("minimumPercent");
        rules.error(at, format!("`{at}` is no share: {percent}"), "give a number from 0 to 100");
    }
    if let Some(aggression) = warmup.aggression.filter(|aggression| *aggression <= 0.0) {
        let at = at.key("aggression");
        rules.error(at, format!("`{at}` must be above zero: {aggression}"), "1 is a straight line");
    }
}

fn consistent_hash(rules: &mut Rules<'_>, at: At<'_>, hash: &ConsistentHash) {
    if let Some(HashKey::HttpCookie(cookie)) = &hash.key {
        let at = at.key("httpCookie");
        if cookie.name.is_empty() {
            rules.error(at.key("name"), format!("`{at}.name` is empty"), "");
        }
        let mut names = BTreeSet::new();
        for (index, attribute) in cookie.attributes.iter().enumerate() {
            let at = at.key("attributes");
            let at = at.index(index);
            if attribute.name.is_empty() {
                rules.error(at.key("name"), format!("`{at}.name` is empty"), "");
            } else if !names.insert(&attribute.name) {
                let message = format!("the attribute `{}` is there twice", attribute.name);
                rules.error(at.key("name"), message, "remove one of the two");
            }
        }
    }
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        let at = at.key("minimumRingSize");
        if hash.algorithm.is_some() {
            rules.error(at, format!("`{at}` does not go with `ringHash` or `maglev`"), "remove it");
        } else {
            let help = "write `ringHash: {minimumRingSize: …}`";
            rules.warning(at, format!("`{at}` is deprecated"), help);
        }
    }
    if let Some(HashAlgorithm::Maglev(maglev)) = &hash.algorithm {
        const LIMIT: u64 = 5_000_011;
        let size = maglev.table_size.unwrap_or(0);
        if size >= LIMIT || !is_prime(size) {
            let at = at.key("maglev");
            let at = at.key("tableSize");
            let message = format!("`{at}` must be a prime below {LIMIT}: {size}");
            rules.error(at, message, "65537 is a common choice");
        }
    }
}

/// By division; called for numbers below some millions.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn tcp_pool(rules: &mut Rules<'_>, at: At<'_>, tcp: &TcpConnectionPool) {
    values::not_negative(rules, at.key("maxConnections"), tcp.max_connections);
    values::duration(rules, at.key("connectTimeout"), tcp.connect_timeout);
    values::duration(rules, at.key("maxConnectionDuration"), tcp.max_connection_duration);
    values::duration_or_zero(rules, at.key("idleTimeout"), tcp.idle_timeout);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        let at = at.key("tcpKeepalive");
        values::duration(rules, at.key("time"), keepalive.time);
        values::duration(rules, at.key("interval"), keepalive.interval);
    }
}

fn http_pool(rules: &mut Rules<'_>, at: At<'_>, http: &HttpConnectionPool) {
    values::not_negative(rules, at.key("http1MaxPendingRequests"), http.http1_max_pending_requests);
    values::not_negative(rules, at.key("http2MaxRequests"), http.http2_max_requests);
    values::not_negative(rules, at.key("maxRequestsPerConnection"), http.max_requests_per_connection);
    values::not_negative(rules, at.key("maxRetries"), http.max_retries);
    values::not_negative(rules, at.key("maxConcurrentStreams"), http.max_concurrent_streams);
    values::duration(rules, at.key("idleTimeout"), http.idle_timeout);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        let message = format!("`{at}` has both `h2UpgradePolicy: UPGRADE` and `useClientProtocol`");
        rules.error(at.key("useClientProtocol"), message, "either the client's protocol is kept, or it is upgraded");
    }
    if let Some(probes) = &http.http2_keep_alive {
        let at = at.key("http2KeepAlive");
        let given: [(&str, Option<Duration>); 2] = [("interval", probes.interval), ("timeout", probes.timeout)];
        for (field, value) in given {
            match value {
                None => rules.error(at, format!("`{at}` has no `{field}`"), ""),
                value => values::duration(rules, at.key(field), value),
            }
        }
    }
}

pub(super) fn outlier_detection(rules: &mut Rules<'_>, at: At<'_>, detection: &OutlierDetection) {
    values::duration(rules, at.key("interval"), detection.interval);
    values::duration(rules, at.key("baseEjectionTime"), detection.base_ejection_time);
    values::whole_percent(rules, at.key("maxEjectionPercent"), detection.max_ejection_percent);
    values::whole_percent(rules, at.key("minHealthPercent"), detection.min_health_percent);
    if detection.consecutive_errors.is_some_and(|errors| errors != 0) {
        let message = format!("`{at}.consecutiveErrors` is not looked at any more");
        let help = "give `consecutive5xxErrors` or `consecutiveGatewayErrors`";
        rules.warning(at.key("consecutiveErrors"), message, help);
    }
    let failures = detection.consecutive_local_origin_failures.unwrap_or(0);
    if failures > 0 && !detection.split_external_local_origin_errors {
        let message = format!("`{at}.consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`");
        rules.error(at.key("consecutiveLocalOriginFailures"), message, "");
    }
    for (index, status) in detection.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(status) {
            let at = at.key("outlierDetectionHttpErrorCodes");
            let at = at.index(index);
            rules.error(at, format!("`{at}` is no status: {status}"), "give a number from 100 to 599");
        }
    }
}

fn client_tls(rules: &mut Rules<'_>, at: At<'_>, tls: &ClientTlsSettings) {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let is_plain_tls = matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    let files = [
        ("clientCertificate", given(&tls.client_certificate)),
        ("privateKey", given(&tls.private_key)),
        ("caCertificates", given(&tls.ca_certificates)),
        ("caCrl", given(&tls.ca_crl)),
    ];
    if let Some(reference) = tls.credential_name.as_deref().and_then(|name| name.strip_prefix("configmap://")) {
        let own = rules.namespace().to_owned();
        match reference.split_once('/') {
            Some((namespace, name)) if namespace == own && !name.is_empty() && !name.contains('/') => {}
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                let message = format!("`configmap://{reference}` is in another namespace");
                rules.error(at.key("credentialName"), message, "only ConfigMaps of the same namespace can be used");
            }
            _ => {
                let message = format!("`configmap://{reference}` names no ConfigMap");
                rules.error(at.key("credentialName"), message, "write `configmap://namespace/name`");
            }
        }
    }
    if tls.insecure_skip_verify == Some(true) {
        let contrary = [
            ("caCertificates", given(&tls.ca_certificates)),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("credentialName", tls.mode == ClientTlsMode::Simple && given(&tls.credential_name)),
        ];
        for (field, _) in contrary.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("`{at}` has both `insecureSkipVerify` and `{field}`");
            rules.error(at.key(field), message, "nothing is verified: remove one of the two");
        }
    }
    if is_plain_tls && given(&tls.credential_name) {
        for (field, _) in files.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("`{at}` has both `credentialName` and `{field}`");
            rules.error(at.key(field), message, "the secret holds all of it: remove one of the two");
        }
    } else if tls.mode == ClientTlsMode::Mutual {
        for (field, _) in files.into_iter().take(2).filter(|(_, is_given)| !*is_given) {
            let message = format!("`{at}` has mode MUTUAL, but no `{field}`");
            rules.error(at, message, "give `credentialName`, or both `clientCertificate` and `privateKey`");
        }
    }
}

fn retry_budget(rules: &mut Rules<'_>, at: At<'_>, budget: &RetryBudget) {
    if let Some(percent) = budget.percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        let at = at.key("percent");
        rules.error(at, format!("`{at}` is no share: {percent}"), "give a number from 0 to 100");
    }
    values::duration(rules, at.key("budgetInterval"), budget.budget_interval);
}

fn tunnel(rules: &mut Rules<'_>, at: At<'_>, tunnel: &TunnelSettings) {
    let protocol = tunnel.protocol.as_deref().unwrap_or_default();
    if !matches!(protocol, "" | "CONNECT" | "POST") {
        rules.error(at.key("protocol"), format!("`{protocol}` is no protocol of a tunnel"), "give CONNECT or POST");
    }
    if !is_fqdn(&tunnel.target_host) && !is_ip(&tunnel.target_host) {
        rules.error(at.key("targetHost"), format!("`{}` is no host", tunnel.target_host), "");
    }
    values::port(rules, at.key("targetPort"), tunnel.target_port);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        for prime in [2, 3, 5, 65537, 4_999_999] {
            assert!(is_prime(prime), "{prime}");
        }
        for other in [0, 1, 4, 9, 65536, 5_000_000] {
            assert!(!is_prime(other), "{other}");
        }
    }
}
