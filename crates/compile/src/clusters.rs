//! How does the proxy reach a service? One cluster for each of its ports, one more for each subset, with the traffic
//! policy of the DestinationRule; and the endpoints behind them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_config::{
    ConnectionPoolSettings, H2UpgradePolicy, HashAlgorithm, LoadBalancerPolicy, LoadBalancerSettings, SimpleLb,
    TcpKeepalive as Keepalive,
};
use lateen_xds::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions, circuit_breakers, cluster,
};
use lateen_xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions, KeepaliveSettings,
    RuntimeDouble, TcpKeepalive,
};
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::envoy::extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options};
use lateen_xds::envoy::r#type::v3::Percent;
use lateen_xds::{Origin, Part, Resource};

use crate::context::Context;
use crate::endpoints;
use crate::host;
use crate::mesh::Mesh;
use crate::message;
use crate::names;
use crate::policy::Policy;
use crate::world::destination_rules::{DestinationRule, Subset};
use crate::world::services::{Discovery, Service, ServicePort};

/// Key of the HTTP options among a cluster's typed extension options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Idle time after which a connection to an original destination is closed.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// Points of a hash ring at least, unless a rule says otherwise.
const MINIMUM_RING_SIZE: u64 = 1024;

/// The clusters of a proxy by name, and the assignments of those that get their endpoints by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) clusters: BTreeMap<Arc<str>, Resource<Cluster>>,
    pub(crate) endpoints: BTreeMap<Arc<str>, Resource<ClusterLoadAssignment>>,
}

/// Compiles all clusters. Of two with one name the first stays.
pub(crate) fn compile(cx: &Context<'_>) -> Compiled {
    let mut compiled = Compiled::default();
    for service in cx.services() {
        let rule = cx.rule(service).map(|rule| &**rule);
        for port in service.ports.iter().filter(|port| port.protocol.has_clusters()) {
            compiled.add(cx, &Upstream { service, port, rule, subset: None });
            for subset in rule.map(|rule| rule.subsets.as_slice()).unwrap_or_default() {
                compiled.add(cx, &Upstream { service, port, rule, subset: Some(subset) });
            }
        }
    }
    let mut built_in = vec![black_hole(cx)];
    if cx.is_redirected() {
        built_in.push(passthrough(cx));
    }
    for cluster in built_in {
        compiled.clusters.insert(cluster.name.as_str().into(), Resource::new(cluster, Vec::new()));
    }
    compiled
}

/// What one cluster leads to.
struct Upstream<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    rule: Option<&'a DestinationRule>,
    subset: Option<&'a Subset>,
}

impl Compiled {
    fn add(&mut self, cx: &Context<'_>, upstream: &Upstream<'_>) {
        let policy = Policy::compose(cx.world.mesh(), upstream.rule, upstream.subset, upstream.port.number);
        let name: Arc<str> = upstream.name().into();
        let Some((cluster, assigned)) = upstream.compile(cx, &name, &policy) else {
            return;
        };
        if assigned {
            let labels = upstream.subset.map(|subset| &subset.labels);
            let found = cx.endpoints(upstream.service, upstream.port);
            let assignment = endpoints::compile(&name, found, labels, &policy);
            self.endpoints.entry(name.clone()).or_insert(assignment);
        }
        self.clusters.entry(name).or_insert_with(|| Resource::new(cluster, upstream.origins()));
    }
}

impl Upstream<'_> {
    fn name(&self) -> String {
        let subset = self.subset.map(|subset| &*subset.name).unwrap_or_default();
        names::outbound_cluster(self.port.number, subset, &self.service.host)
    }

    /// The cluster, and whether its endpoints are assigned apart from it. `None` for a cluster of DNS names
    /// without any: Envoy would wait for it for ever.
    fn compile(&self, cx: &Context<'_>, name: &str, policy: &Policy<'_>) -> Option<(Cluster, bool)> {
        let mut cluster = base(cx, name);
        let mesh = cx.world.mesh();
        let mut assigned = false;
        let passthrough = matches!(simple(policy), Some(SimpleLb::Passthrough)) && cx.is_redirected();
        match cx.discovery(self.service) {
            Discovery::OriginalDestination | Discovery::Headless => original_destination(&mut cluster, self.port),
            _ if passthrough => original_destination(&mut cluster, self.port),
            Discovery::Endpoints => {
                assigned = true;
                cluster.cluster_discovery_type = discovery_type(cluster::DiscoveryType::Eds);
                cluster.eds_cluster_config =
                    Some(cluster::EdsClusterConfig { eds_config: Some(message::ads()), service_name: name.to_owned() });
            }
            dns @ (Discovery::Dns | Discovery::DnsRoundRobin | Discovery::DynamicDns) => {
                let labels = self.subset.map(|subset| &subset.labels);
                let own_name;
                let mut chosen = endpoints::select(cx.endpoints(self.service, self.port), labels, policy);
                if self.resolves_itself() {
                    let target = self.port.target.unwrap_or(self.port.number);
                    own_name = endpoints::of_host(&self.service.host, target, &self.service.origin);
                    chosen = vec![&own_name];
                }
                if chosen.is_empty() {
                    return None;
                }
                cluster.cluster_discovery_type = discovery_type(match dns {
                    Discovery::DnsRoundRobin => cluster::DiscoveryType::LogicalDns,
                    _ => cluster::DiscoveryType::StrictDns,
                });
                cluster.load_assignment = Some(endpoints::assignment(name, &chosen));
                cluster.dns_lookup_family = cluster::DnsLookupFamily::V4Only.into();
                set_dns_refresh(&mut cluster, mesh.dns_refresh_rate);
            }
        }
        apply_load_balancer(&mut cluster, policy);
        apply_connection_pool(&mut cluster, mesh, policy);
        apply_outlier_detection(&mut cluster, policy);
        if let Some(options) = self.http_options(cx, policy.connection_pool) {
            cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), message::typed(&options));
        }
        cluster.metadata = Some(self.metadata());
        Some((cluster, assigned))
    }

    /// A service without endpoints of its own whose original destination is not known here: its name is
    /// resolved, unless it is a wildcard.
    fn resolves_itself(&self) -> bool {
        self.service.discovery == Discovery::OriginalDestination && !host::is_wildcard(&self.service.host)
    }

    fn metadata(&self) -> lateen_xds::envoy::config::core::v3::Metadata {
        let service = self.service;
        let mut fields = Vec::new();
        if let Some(rule) = self.rule {
            let path = names::config_path("destination-rule", &rule.namespace, &rule.name);
            fields.push(("config", message::text(path)));
        }
        if service.external {
            fields.push(("external", message::boolean(true)));
        }
        let description = message::object([
            ("host", message::text(&*service.host)),
            ("name", message::text(&*service.name)),
            ("namespace", message::text(&*service.namespace)),
        ]);
        fields.push(("services", message::list(vec![message::structure(description)])));
        if let Some(subset) = self.subset {
            fields.push(("subset", message::text(&*subset.name)));
        }
        message::istio_metadata(fields)
    }

    /// The rule that shaped the cluster and the service that it leads to.
    fn origins(&self) -> Vec<(Part, Origin)> {
        let mut origins = Vec::new();
        if let Some(subset) = self.subset {
            origins.push((Part::Whole, (*subset.origin).clone()));
        }
        origins.push((Part::Whole, (*self.service.origin).clone()));
        if let (Some(rule), None) = (self.rule, self.subset) {
            origins.push((Part::Whole, (*rule.origin).clone()));
        }
        origins
    }

    /// Which HTTP is spoken to the service, and the limits that only HTTP has. Envoy asks for a choice of
    /// protocol as soon as any option is given.
    fn http_options(&self, cx: &Context<'_>, pool: Option<&ConnectionPoolSettings>) -> Option<HttpProtocolOptions> {
        let http = pool.and_then(|pool| pool.http.as_ref());
        let tcp = pool.and_then(|pool| pool.tcp.as_ref());
        let common = CommonHttpProtocolOptions {
            idle_timeout: http
                .and_then(|http| http.idle_timeout)
                .or_else(|| tcp.and_then(|tcp| tcp.idle_timeout))
                .map(message::duration),
            max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(message::duration),
            max_requests_per_connection: http.and_then(|http| positive(http.max_requests_per_connection)),
            ..Default::default()
        };
        let protocol = self.port.protocol;
        let use_client_protocol = http.is_some_and(|http| http.use_client_protocol);
        let upgrade = !use_client_protocol && upgrades(cx, pool, protocol.is_http());
        let http2 = Http2ProtocolOptions {
            max_concurrent_streams: http.and_then(|http| positive(http.max_concurrent_streams)),
            connection_keepalive: http.and_then(|http| http.http2_keep_alive.as_ref()).map(|keep_alive| {
                KeepaliveSettings {
                    interval: keep_alive.interval.map(message::duration),
                    timeout: keep_alive.timeout.map(message::duration),
                    ..Default::default()
                }
            }),
            ..Default::default()
        };
        use http_protocol_options::explicit_http_config::ProtocolConfig;
        use http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};
        let explicit =
            |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
        let choice = if use_client_protocol || (!upgrade && cx.follows_client_protocol(protocol)) {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..Default::default()
            })
        } else if protocol.is_http2() || upgrade {
            explicit(ProtocolConfig::Http2ProtocolOptions(http2))
        } else if common != CommonHttpProtocolOptions::default() {
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        } else {
            return None;
        };
        Some(HttpProtocolOptions {
            common_http_protocol_options: (common != CommonHttpProtocolOptions::default()).then_some(common),
            upstream_protocol_options: Some(choice),
            ..Default::default()
        })
    }
}

/// What every cluster starts from.
fn base(cx: &Context<'_>, name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat_name(name),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        lb_policy: cluster::LbPolicy::LeastRequest.into(),
        // No panic mode: with every endpoint ejected requests fail rather than reach ejected ones.
        common_lb_config: Some(cluster::CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..Default::default()
        }),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![unlimited()], ..Default::default() }),
        ..Default::default()
    }
}

/// Istio's thresholds: none, where Envoy's own would be 1024 of each and 3 retries.
fn unlimited() -> circuit_breakers::Thresholds {
    circuit_breakers::Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Default::default()
    }
}

fn original_destination(cluster: &mut Cluster, port: &ServicePort) {
    cluster.cluster_discovery_type = discovery_type(cluster::DiscoveryType::OriginalDst);
    cluster.lb_policy = cluster::LbPolicy::ClusterProvided.into();
    if let Some(target) = port.target.filter(|target| *target != port.number) {
        cluster.lb_config = Some(cluster::LbConfig::OriginalDstLbConfig(cluster::OriginalDstLbConfig {
            upstream_port_override: Some(target),
            ..Default::default()
        }));
    }
}

fn discovery_type(kind: cluster::DiscoveryType) -> Option<cluster::ClusterDiscoveryType> {
    Some(cluster::ClusterDiscoveryType::Type(kind.into()))
}

fn set_dns_refresh(cluster: &mut Cluster, rate: Duration) {
    cluster.dns_refresh_rate = Some(message::duration(rate));
    cluster.respect_dns_ttl = true;
}

fn simple(policy: &Policy<'_>) -> Option<SimpleLb> {
    match policy.load_balancer?.policy.as_ref()? {
        LoadBalancerPolicy::Simple(simple) => Some(*simple),
        LoadBalancerPolicy::ConsistentHash(_) => None,
    }
}

fn apply_load_balancer(cluster: &mut Cluster, policy: &Policy<'_>) {
    if cluster.lb_policy == i32::from(cluster::LbPolicy::ClusterProvided) {
        return;
    }
    let Some(settings) = policy.load_balancer else {
        return;
    };
    let algorithm = match &settings.policy {
        Some(LoadBalancerPolicy::ConsistentHash(hash)) => {
            let size = |size: Option<u64>| size.filter(|size| *size != 0);
            match &hash.algorithm {
                Some(HashAlgorithm::Maglev(maglev)) => {
                    cluster.lb_policy = cluster::LbPolicy::Maglev.into();
                    cluster.lb_config = size(maglev.table_size).map(|size| {
                        cluster::LbConfig::MaglevLbConfig(cluster::MaglevLbConfig { table_size: Some(size) })
                    });
                }
                Some(HashAlgorithm::RingHash(ring)) => set_ring(cluster, size(ring.minimum_ring_size)),
                None => set_ring(cluster, size(hash.minimum_ring_size).or(Some(MINIMUM_RING_SIZE))),
            }
            return;
        }
        Some(LoadBalancerPolicy::Simple(simple)) => *simple,
        None => SimpleLb::Unspecified,
    };
    match algorithm {
        SimpleLb::Random => cluster.lb_policy = cluster::LbPolicy::Random.into(),
        SimpleLb::RoundRobin => {
            cluster.lb_policy = cluster::LbPolicy::RoundRobin.into();
            cluster.lb_config = slow_start(settings).map(|slow_start_config| {
                cluster::LbConfig::RoundRobinLbConfig(cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow_start_config),
                })
            });
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::Passthrough => {
            cluster.lb_config = slow_start(settings).map(|slow_start_config| {
                cluster::LbConfig::LeastRequestLbConfig(cluster::LeastRequestLbConfig {
                    slow_start_config: Some(slow_start_config),
                    ..Default::default()
                })
            });
        }
    }
}

fn set_ring(cluster: &mut Cluster, minimum_ring_size: Option<u64>) {
    cluster.lb_policy = cluster::LbPolicy::RingHash.into();
    cluster.lb_config = minimum_ring_size.map(|size| {
        cluster::LbConfig::RingHashLbConfig(cluster::RingHashLbConfig {
            minimum_ring_size: Some(size),
            ..Default::default()
        })
    });
}

/// How a new endpoint is given less at first. Random and hashed choices have no such thing.
fn slow_start(settings: &LoadBalancerSettings) -> Option<cluster::SlowStartConfig> {
    let Some(warmup) = &settings.warmup else {
        return settings.warmup_duration_secs.map(|window| cluster::SlowStartConfig {
            slow_start_window: Some(message::duration(window)),
            ..Default::default()
        });
    };
    Some(cluster::SlowStartConfig {
        slow_start_window: Some(message::duration(warmup.duration)),
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.unwrap_or(1.0),
            // Envoy refuses an empty key; nobody sets this one.
            runtime_key: "lateen.slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    })
}

/// Zero means that a limit is not set.
fn positive(value: Option<i32>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value != 0)
}

fn apply_connection_pool(cluster: &mut Cluster, mesh: &Mesh, policy: &Policy<'_>) {
    let mut thresholds = unlimited();
    let pool = policy.connection_pool;
    let own_keepalive = pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.tcp_keepalive.as_ref());
    cluster.upstream_connection_options = tcp_keepalive(mesh.tcp_keepalive.as_ref(), own_keepalive);
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        thresholds.max_connections = positive(tcp.max_connections).or(thresholds.max_connections);
        if let Some(timeout) = tcp.connect_timeout.filter(|timeout| !timeout.is_zero()) {
            cluster.connect_timeout = Some(message::duration(timeout));
        }
    }
    if let Some(http) = pool.and_then(|pool| pool.http.as_ref()) {
        thresholds.max_pending_requests = positive(http.http1_max_pending_requests).or(thresholds.max_pending_requests);
        thresholds.max_requests = positive(http.http2_max_requests).or(thresholds.max_requests);
        thresholds.max_retries = positive(http.max_retries).or(thresholds.max_retries);
    }
    thresholds.retry_budget = policy.retry_budget.map(|budget| circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
        min_retry_concurrency: Some(budget.min_retry_concurrency.unwrap_or(3)),
        budget_interval: budget.budget_interval.map(message::duration),
    });
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![thresholds], ..Default::default() });
}

/// Probes on idle connections: of each setting the rule's own, else the mesh's.
fn tcp_keepalive(mesh: Option<&Keepalive>, own: Option<&Keepalive>) -> Option<UpstreamConnectionOptions> {
    if mesh.is_none() && own.is_none() {
        return None;
    }
    let seconds = |time: fn(&Keepalive) -> Option<Duration>| {
        let time = own.and_then(time).or_else(|| mesh.and_then(time))?;
        u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds != 0)
    };
    let probes = |keepalive: Option<&Keepalive>| keepalive?.probes.filter(|probes| *probes != 0);
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: probes(own).or_else(|| probes(mesh)),
            keepalive_time: seconds(|keepalive| keepalive.time),
            keepalive_interval: seconds(|keepalive| keepalive.interval),
        }),
        ..Default::default()
    })
}

/// `true` when requests to the port are to use HTTP/2 although it does not declare it.
fn upgrades(cx: &Context<'_>, pool: Option<&ConnectionPoolSettings>, declared_http: bool) -> bool {
    match pool.and_then(|pool| pool.http.as_ref()).map(|http| http.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => cx.world.mesh().h2_upgrade && declared_http,
    }
}

/// Success-rate ejection is always off; detectors that are not configured keep Envoy's own thresholds.
fn apply_outlier_detection(cluster: &mut Cluster, policy: &Policy<'_>) {
    let Some(outlier) = policy.outlier_detection else {
        return;
    };
    let enforcing = |threshold: Option<u32>| threshold.map(|threshold| if threshold > 0 { 100 } else { 0 });
    let split = outlier.split_external_local_origin_errors;
    let local = outlier.consecutive_local_origin_failures.filter(|failures| split && *failures > 0);
    cluster.outlier_detection = Some(OutlierDetection {
        enforcing_success_rate: Some(0),
        consecutive_5xx: outlier.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforcing(outlier.consecutive_5xx_errors),
        consecutive_gateway_failure: outlier.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforcing(outlier.consecutive_gateway_errors),
        interval: outlier.interval.map(message::duration),
        base_ejection_time: outlier.base_ejection_time.map(message::duration),
        max_ejection_percent: positive(outlier.max_ejection_percent),
        split_external_local_origin_errors: split,
        enforcing_local_origin_success_rate: split.then_some(0),
        consecutive_local_origin_failure: local,
        enforcing_consecutive_local_origin_failure: local.map(|_| 100),
        ..Default::default()
    });
    if let Some(common) = &mut cluster.common_lb_config {
        let percent = policy.min_health_percent();
        common.healthy_panic_threshold = Some(Percent { value: f64::from(percent) });
    }
}

/// Where requests to unknown destinations end: no endpoint is in it.
fn black_hole(cx: &Context<'_>) -> Cluster {
    Cluster {
        name: names::BLACK_HOLE_CLUSTER.to_owned(),
        cluster_discovery_type: discovery_type(cluster::DiscoveryType::Static),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        lb_policy: cluster::LbPolicy::RoundRobin.into(),
        ..Default::default()
    }
}

/// Forwards to the original destination with the protocol of the client.
fn passthrough(cx: &Context<'_>) -> Cluster {
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpProtocolOptions {
            idle_timeout: Some(message::duration(PASSTHROUGH_IDLE)),
            ..Default::default()
        }),
        upstream_protocol_options: Some(http_protocol_options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            http_protocol_options::UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    Cluster {
        name: names::PASSTHROUGH_CLUSTER.to_owned(),
        cluster_discovery_type: discovery_type(cluster::DiscoveryType::OriginalDst),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        lb_policy: cluster::LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![unlimited()], ..Default::default() }),
        typed_extension_protocol_options: BTreeMap::from([(HTTP_OPTIONS.to_owned(), message::typed(&options))]),
        ..Default::default()
    }
}
