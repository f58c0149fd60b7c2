//! Are the settings of the mesh right? Ports, durations, policies that hold for all, and the services of
//! `extensionProviders`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::names::{is_fqdn, is_label, is_label_key};
use super::values::{self, Nobody};
use super::{At, Rules, http_route, locality, telemetry, traffic_policy};
use crate::istio::destination_rule::TrafficPolicy;
use crate::istio::gateway::TlsProtocol;
use crate::mesh::{
    DefaultProviders, DiscoverySelector, ExtensionProvider, ExtensionProviderKind, LabelOperator, MeshConfig,
    ProviderHttpHeader, ProxyConfig, Tracer,
};

/// What every mesh has without a word.
const BUILT_IN_PROVIDERS: [&str; 3] = ["prometheus", "stackdriver", "envoy"];
/// Longest time to wait for a connection.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn check(rules: &mut Rules<'_>, at: At<'_>, mesh: &MeshConfig) {
    values::port(rules, at.key("proxyListenPort"), mesh.proxy_listen_port);
    values::port(rules, at.key("proxyInboundListenPort"), mesh.proxy_inbound_listen_port);
    if mesh.proxy_http_port != 0 {
        values::port(rules, at.key("proxyHttpPort"), mesh.proxy_http_port);
    }
    values::duration(rules, at.key("connectTimeout"), Some(mesh.connect_timeout));
    if mesh.connect_timeout > MAX_CONNECT_TIMEOUT {
        rules.error(at.key("connectTimeout"), "`connectTimeout` is longer than an hour", "");
    }
    values::duration_or_zero(rules, at.key("protocolDetectionTimeout"), Some(mesh.protocol_detection_timeout));
    values::duration(rules, at.key("dnsRefreshRate"), Some(mesh.dns_refresh_rate));
    if let Some(keepalive) = &mesh.tcp_keepalive {
        let at = at.key("tcpKeepalive");
        values::duration(rules, at.key("time"), keepalive.time);
        values::duration(rules, at.key("interval"), keepalive.interval);
    }
    names(rules, at, mesh);
    // Whether outliers are detected, the policies of single hosts say.
    locality::check(rules, at.key("localityLbSetting"), &mesh.locality_lb_setting, true);
    if let Some(setting) = &mesh.zone_aware_lb_setting {
        locality::check_zone_aware(rules, at.key("zoneAwareLbSetting"), setting, true);
    }
    if let Some(policy) = &mesh.default_http_retry_policy {
        http_route::retries(rules, at.key("defaultHttpRetryPolicy"), policy);
    }
    if let Some(policy) = &mesh.default_inbound_http_retry_policy {
        http_route::retries(rules, at.key("defaultInboundHttpRetryPolicy"), policy);
    }
    if let Some(policy) = &mesh.default_traffic_policy {
        default_policy(rules, at.key("defaultTrafficPolicy"), policy);
    }
    tls(rules, at, mesh);
    let known = providers(rules, at.key("extensionProviders"), &mesh.extension_providers);
    if let Some(defaults) = &mesh.default_providers {
        default_providers(rules, at.key("defaultProviders"), defaults, &known);
    }
    for (index, selector) in mesh.discovery_selectors.iter().enumerate() {
        discovery(rules, at.key("discoverySelectors").index(index), selector);
    }
    proxy(rules, at.key("defaultConfig"), &mesh.default_config);
}

fn names(rules: &mut Rules<'_>, at: At<'_>, mesh: &MeshConfig) {
    let domains = mesh.trust_domain_aliases.iter().enumerate();
    let domains = domains.map(|(index, alias)| (Some(index), alias)).chain([(None, &mesh.trust_domain)]);
    for (index, domain) in domains {
        let at_aliases = at.key("trustDomainAliases");
        let at = index.map_or(at.key("trustDomain"), |index| at_aliases.index(index));
        if !is_fqdn(domain) {
            rules.error(at, format!("`{domain}` is no trust domain"), "a trust domain is a DNS name");
        }
    }
    if !is_label(&mesh.root_namespace) {
        rules.error(at.key("rootNamespace"), format!("`{}` is no name of a namespace", mesh.root_namespace), "");
    }
    let defaults = [
        ("defaultServiceExportTo", &mesh.default_service_export_to),
        ("defaultVirtualServiceExportTo", &mesh.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", &mesh.default_destination_rule_export_to),
    ];
    for (field, namespaces) in defaults {
        values::export_to(rules, at.key(field), namespaces, Nobody::Allowed);
    }
}

/// Of a policy for all hosts, only limits and the detection of outliers count.
fn default_policy(rules: &mut Rules<'_>, at: At<'_>, policy: &TrafficPolicy) {
    if let Some(pool) = &policy.connection_pool {
        traffic_policy::connection_pool(rules, at.key("connectionPool"), pool);
    }
    if let Some(detection) = &policy.outlier_detection {
        traffic_policy::outlier_detection(rules, at.key("outlierDetection"), detection);
    }
    let others = [
        ("loadBalancer", policy.load_balancer.is_some()),
        ("tls", policy.tls.is_some()),
        ("portLevelSettings", !policy.port_level_settings.is_empty()),
        ("tunnel", policy.tunnel.is_some()),
        ("proxyProtocol", policy.proxy_protocol.is_some()),
        ("retryBudget", policy.retry_budget.is_some()),
    ];
    for (field, _) in others.into_iter().filter(|(_, is_given)| *is_given) {
        let message = format!("`{at}.{field}` has no effect for the whole mesh");
        rules.warning(at.key(field), message, "put it into DestinationRules");
    }
}

fn tls(rules: &mut Rules<'_>, at: At<'_>, mesh: &MeshConfig) {
    const CURVES: [&str; 5] = ["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];
    if !mesh.mesh_mtls.ecdh_curves.is_empty() {
        let at = at.key("meshMTLS");
        rules.error(at.key("ecdhCurves"), "`meshMTLS.ecdhCurves` is not supported", "give `tlsDefaults.ecdhCurves`");
    }
    if mesh.tls_defaults.min_protocol_version != TlsProtocol::TlsAuto {
        let at = at.key("tlsDefaults");
        let message = "`tlsDefaults.minProtocolVersion` is not supported";
        rules.error(at.key("minProtocolVersion"), message, "give it in Gateways, or `meshMTLS.minProtocolVersion`");
    }
    for (index, curve) in mesh.tls_defaults.ecdh_curves.iter().enumerate() {
        if !CURVES.contains(&curve.as_str()) {
            let at = at.key("tlsDefaults");
            let at = at.key("ecdhCurves");
            rules.warning(at.index(index), format!("`{curve}` is no curve, and is passed over"), "");
        }
    }
}

/// Names of all providers that there are.
fn providers<'m>(rules: &mut Rules<'_>, at: At<'_>, providers: &'m [ExtensionProvider]) -> BTreeSet<&'m str> {
    let mut known = BTreeSet::from(BUILT_IN_PROVIDERS);
    let mut given = BTreeSet::new();
    for (index, provider) in providers.iter().enumerate() {
        let at = at.index(index);
        if provider.name.is_empty() {
            rules.error(at, format!("`{at}` has no `name`"), "");
        } else if !given.insert(provider.name.as_str()) {
            rules.error(at.key("name"), format!("the provider `{}` is there twice", provider.name), "");
        }
        known.insert(&provider.name);
        match &provider.provider {
            Some(kind) => provider_kind(rules, at, kind),
            None => {
                let help = "give one of `envoyFileAccessLog`, `envoyHttpAls`, `zipkin`, `opentelemetry`, …";
                rules.error(at, format!("`{at}` does not say what it is"), help);
            }
        }
    }
    known
}

fn provider_kind(rules: &mut Rules<'_>, at: At<'_>, kind: &ExtensionProviderKind) {
    let (field, host, port) = match kind {
        ExtensionProviderKind::EnvoyHttpAls(als) => ("envoyHttpAls", &als.service, als.port),
        ExtensionProviderKind::EnvoyTcpAls(als) => ("envoyTcpAls", &als.service, als.port),
        ExtensionProviderKind::EnvoyOtelAls(als) => ("envoyOtelAls", &als.service, als.port),
        ExtensionProviderKind::Zipkin(zipkin) => {
            let at = at.key("zipkin");
            headers(rules, at.key("headers"), &zipkin.headers);
            values::duration(rules, at.key("timeout"), zipkin.timeout);
            ("zipkin", &zipkin.service, zipkin.port)
        }
        ExtensionProviderKind::Opentelemetry(tracer) => {
            let at = at.key("opentelemetry");
            if tracer.http.is_some() && tracer.grpc.is_some() {
                rules.error(at.key("grpc"), format!("`{at}` has both `http` and `grpc`"), "remove one of the two");
            }
            if let Some(http) = &tracer.http {
                let at = at.key("http");
                if !http.path.starts_with('/') {
                    rules.error(at, format!("`{at}` has no `path`"), "for example /v1/traces");
                }
                values::duration(rules, at.key("timeout"), http.timeout);
                headers(rules, at.key("headers"), &http.headers);
            }
            if let Some(grpc) = &tracer.grpc {
                let at = at.key("grpc");
                values::duration(rules, at.key("timeout"), grpc.timeout);
                headers(rules, at.key("initialMetadata"), &grpc.initial_metadata);
            }
            ("opentelemetry", &tracer.service, tracer.port)
        }
        _ => return,
    };
    let at = at.key(field);
    service(rules, at, host);
    values::port(rules, at.key("port"), port);
}

/// `host` or `namespace/host`.
fn service(rules: &mut Rules<'_>, at: At<'_>, service: &str) {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, service),
    };
    if !is_fqdn(host) || namespace.is_some_and(|namespace| !is_label(namespace)) {
        let message = match service {
            "" => format!("`{at}` has no `service`"),
            _ => format!("`{service}` is no host of a service"),
        };
        rules.error(at.key("service"), message, "write `host`, or `namespace/host`");
    }
}

fn headers(rules: &mut Rules<'_>, at: At<'_>, headers: &[ProviderHttpHeader]) {
    for (index, header) in headers.iter().enumerate() {
        let at = at.index(index);
        if !super::names::is_header_name(&header.name) {
            rules.error(at, format!("`{}` is no name of a header", header.name), "");
        }
        if header.value.is_some() && header.env_name.is_some() {
            rules.error(at.key("envName"), format!("`{at}` has both `value` and `envName`"), "remove one of the two");
        }
    }
}

fn default_providers(rules: &mut Rules<'_>, at: At<'_>, defaults: &DefaultProviders, known: &BTreeSet<&str>) {
    let all =
        [("tracing", &defaults.tracing), ("metrics", &defaults.metrics), ("accessLogging", &defaults.access_logging)];
    for (field, names) in all {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(name.as_str())) {
            let message = format!("there is no provider `{name}`");
            rules.warning(at.key(field).index(index), message, "add it to `extensionProviders`");
        }
    }
}

fn discovery(rules: &mut Rules<'_>, at: At<'_>, selector: &DiscoverySelector) {
    values::labels(rules, at.key("matchLabels"), &selector.match_labels);
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let at = at.key("matchExpressions");
        let at = at.index(index);
        if !is_label_key(&requirement.key) {
            rules.error(at, format!("`{}` is no key of a label", requirement.key), "");
        }
        let compares = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
        if compares == requirement.values.is_empty() {
            let message = format!("`{at}.values` does not go with `operator: {}`", requirement.operator);
            rules.error(at, message, "In and NotIn need values, Exists and DoesNotExist have none");
        }
    }
}

fn proxy(rules: &mut Rules<'_>, at: At<'_>, proxy: &ProxyConfig) {
    values::not_negative(rules, at.key("concurrency"), proxy.concurrency);
    values::duration(rules, at.key("drainDuration"), Some(proxy.drain_duration));
    values::duration_or_zero(rules, at.key("terminationDrainDuration"), Some(proxy.termination_drain_duration));
    values::port(rules, at.key("statusPort"), proxy.status_port);
    if proxy.proxy_admin_port != 0 {
        values::port(rules, at.key("proxyAdminPort"), proxy.proxy_admin_port);
    }
    if let Some(matcher) = &proxy.proxy_stats_matcher {
        for (index, pattern) in matcher.inclusion_regexps.iter().enumerate() {
            let at = at.key("proxyStatsMatcher");
            values::pattern(rules, at.key("inclusionRegexps").index(index), pattern);
        }
    }
    let services = [
        ("envoyAccessLogService", &proxy.envoy_access_log_service),
        ("envoyMetricsService", &proxy.envoy_metrics_service),
    ];
    for (field, service) in services {
        if let Some(service) = service {
            address(rules, at.key(field).key("address"), &service.address);
        }
    }
    let Some(tracing) = &proxy.tracing else {
        return;
    };
    let at = at.key("tracing");
    if let Some(share) = tracing.sampling.filter(|share| !(0.0..=100.0).contains(share)) {
        let at = at.key("sampling");
        rules.error(at, format!("`{at}` is no share: {share}"), "give a number from 0 to 100");
    }
    for (name, tag) in &tracing.custom_tags {
        telemetry::custom_tag(rules, at.key("customTags").key(name), name, tag);
    }
    match &tracing.tracer {
        Some(Tracer::Zipkin(zipkin)) => address(rules, at.key("zipkin").key("address"), &zipkin.address),
        Some(_) => rules.warning(at, format!("`{at}` names a tracer that is not supported"), "give `zipkin`"),
        None => {}
    }
}

/// `host:port`, where the host may be a variable of the environment.
fn address(rules: &mut Rules<'_>, at: At<'_>, address: &str) {
    let is_right = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && (port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('$'))
    });
    if !is_right && !address.starts_with('$') {
        rules.error(at, format!("`{address}` is no address"), "write `host:port`");
    }
}
