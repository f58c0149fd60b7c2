//! How does the proxy reach a service? The cluster of one of its ports, or of a subset there, with the traffic policy of
//! the DestinationRule.

use lateen_config::{ClientTlsMode, SimpleLb};
use lateen_xds::envoy::config::cluster::v3::{Cluster, Filter, cluster};
use lateen_xds::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
use lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use lateen_xds::envoy::r#type::v3::Percent;
use lateen_xds::{Origin, Part, Resource};
use prost_types::Value;

use super::{
    base, connection_pool, discovery_type, http_options, load_balancer, original_destination, outlier_detection,
    transport,
};
use crate::context::Context;
use crate::dynamic_dns;
use crate::endpoints::{self, Selection};
use crate::host;
use crate::istio_proxy;
use crate::locality::Preference;
use crate::mesh::Mesh;
use crate::message;
use crate::names;
use crate::policy::Policy;
use crate::scope::Capability;
use crate::tls::Verification;
use crate::world::destination_rules::{DestinationRule, Subset};
use crate::world::services::{Discovery, Service, ServicePort};

/// Time over which lookups of names are spread, in nanoseconds.
const DNS_JITTER: i32 = 100_000_000;

/// Lookups over one socket, after which another one is opened: a resolver that lost its port is left behind.
const UDP_QUERIES: u32 = 100;

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests and connections of the proxy's clients.
    Requests,
    /// Connections with mutual TLS that a gateway passes through as they are.
    PassThrough,
}

/// What one cluster leads to.
pub(super) struct Upstream<'a, 'b> {
    pub(super) cx: &'b Context<'a>,
    pub(super) service: &'b Service,
    pub(super) port: &'b ServicePort,
    pub(super) rule: Option<&'b DestinationRule>,
    pub(super) subset: Option<&'b Subset>,
    /// Names of which certificates of the workloads have one.
    pub(super) identities: &'b [String],
    pub(super) purpose: Purpose,
}

impl Upstream<'_, '_> {
    fn name(&self) -> String {
        let subset = self.subset.map(|subset| &*subset.name).unwrap_or_default();
        match self.purpose {
            Purpose::Requests => names::outbound_cluster(self.port.number, subset, &self.service.host),
            Purpose::PassThrough => names::server_name(self.port.number, subset, &self.service.host),
        }
    }

    /// The cluster, and its endpoints when they are assigned apart from it. `None` for a cluster of DNS names without
    /// any: Envoy would wait for it for ever.
    pub(super) fn compile(&self) -> Option<(Cluster, Option<Resource<ClusterLoadAssignment>>)> {
        let cx = self.cx;
        let mesh = cx.world.mesh();
        let policy = Policy::compose(mesh, self.rule, self.subset, self.port.number);
        let has_outlier_detection = policy.outlier_detection.is_some();
        let preference = Preference::compose(&policy, self.service, &mesh.locality_lb_setting, has_outlier_detection);
        let selection = Selection {
            cx,
            service: self.service,
            policy: &policy,
            preference: &preference,
            labels: self.subset.map(|subset| &subset.labels),
            only_mesh_tls: self.purpose == Purpose::PassThrough,
        };
        let name = self.name();
        let mut cluster = base(cx, &name);
        let mut common = cluster::CommonLbConfig {
            // No panic mode: with every endpoint ejected requests fail rather than reach ejected ones.
            healthy_panic_threshold: Some(Percent { value: f64::from(policy.min_health_percent()) }),
            ..Default::default()
        };
        cluster.lb_policy = cluster::LbPolicy::LeastRequest.into();
        let assignment = self.discover(&mut cluster, &name, &selection)?;
        if cluster.lb_policy != i32::from(cluster::LbPolicy::ClusterProvided) {
            preference.apply(&mut common);
        }
        cluster.common_lb_config = Some(common);
        load_balancer::apply(&mut cluster, &policy);
        connection_pool::apply(&mut cluster, mesh, policy.connection_pool, policy.retry_budget);
        outlier_detection::apply(&mut cluster, &policy);
        if self.purpose == Purpose::Requests {
            self.speak(&mut cluster, &selection);
        }
        cluster.metadata = Some(self.metadata(&policy));
        Some((cluster, assignment))
    }

    /// Sets what is spoken to the endpoints.
    fn speak(&self, cluster: &mut Cluster, selection: &Selection<'_, '_>) {
        let policy = selection.policy;
        let version = http_options::outbound_version(self.cx, policy.connection_pool, self.port.protocol);
        let transport = transport::decide(self, selection, version);
        let verification = if self.discovery(policy) == Discovery::DynamicDns {
            // Envoy asks for it where the endpoint is whatever the request names.
            Verification { auto_sni: true, auto_san_validation: true }
        } else {
            transport::verification(&transport, policy, &self.service.subject_alt_names)
        };
        let options = http_options::Options {
            version,
            pool: policy.connection_pool,
            verification,
            error_matcher: outlier_detection::error_matcher(policy),
        };
        http_options::apply(cluster, options);
        transport::apply(cluster, transport, policy);
        if self.cx.scope.capability == Capability::IstioProxy {
            cluster.filters.push(Filter {
                name: istio_proxy::NETWORK_METADATA_EXCHANGE.to_owned(),
                typed_config: Some(istio_proxy::metadata_exchange_config(true)),
                ..Default::default()
            });
        }
    }

    /// Sets where the endpoints come from. The inner `None` means that they are not assigned apart.
    #[expect(clippy::option_option, reason = "no cluster at all, or one without an assignment")]
    fn discover(
        &self,
        cluster: &mut Cluster,
        name: &str,
        selection: &Selection<'_, '_>,
    ) -> Option<Option<Resource<ClusterLoadAssignment>>> {
        let mesh = self.cx.world.mesh();
        match self.discovery(selection.policy) {
            Discovery::OriginalDestination | Discovery::Headless => {
                let target = self.port.target.filter(|target| *target != self.port.number);
                original_destination(cluster, target);
            }
            Discovery::DynamicDns => dynamic_dns::apply(cluster, mesh),
            Discovery::Endpoints => {
                cluster.cluster_discovery_type = discovery_type(cluster::DiscoveryType::Eds);
                cluster.eds_cluster_config =
                    Some(cluster::EdsClusterConfig { eds_config: Some(message::ads()), service_name: name.to_owned() });
                return Some(Some(selection.compile(name, self.cx.endpoints(self.service, self.port))));
            }
            dns @ (Discovery::Dns | Discovery::DnsRoundRobin) => {
                let own_name;
                let mut chosen = selection.select(self.cx.endpoints(self.service, self.port));
                if self.resolves_itself() {
                    let target = self.port.target.unwrap_or(self.port.number);
                    own_name = endpoints::of_host(&self.service.host, target, &self.service.origin);
                    chosen = vec![&own_name];
                }
                if dns == Discovery::DnsRoundRobin {
                    // Envoy takes one name there, and refuses the cluster otherwise.
                    chosen.truncate(1);
                }
                if chosen.is_empty() {
                    return None;
                }
                cluster.cluster_discovery_type = discovery_type(match dns {
                    Discovery::DnsRoundRobin => cluster::DiscoveryType::LogicalDns,
                    _ => cluster::DiscoveryType::StrictDns,
                });
                cluster.load_assignment = Some(selection.assignment(name, &chosen));
                look_up(cluster, mesh);
            }
        }
        Some(None)
    }

    /// Where the endpoints come from. A rule may leave the choice to redirected clients.
    fn discovery(&self, policy: &Policy<'_>) -> Discovery {
        match self.cx.discovery(self.service) {
            discovery @ (Discovery::OriginalDestination | Discovery::Headless | Discovery::DynamicDns) => discovery,
            _ if policy.simple() == Some(SimpleLb::Passthrough) && self.cx.is_redirected() => {
                Discovery::OriginalDestination
            }
            discovery => discovery,
        }
    }

    /// True when the cluster has endpoints that can say how they are reached.
    pub(super) fn has_endpoints(&self, policy: &Policy<'_>) -> bool {
        matches!(self.discovery(policy), Discovery::Endpoints | Discovery::Dns | Discovery::DnsRoundRobin)
    }

    /// A service without endpoints of its own whose original destination is not known here: its name is
    /// resolved, unless it is a wildcard.
    fn resolves_itself(&self) -> bool {
        self.service.discovery == Discovery::OriginalDestination && !host::is_wildcard(&self.service.host)
    }

    fn metadata(&self, policy: &Policy<'_>) -> Metadata {
        let mut fields = Vec::new();
        let originates =
            policy.tls.is_some_and(|tls| matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual));
        if originates {
            // Istio's build of Envoy would offer the protocols of the mesh to a server outside of it.
            fields.push(("alpn_override", message::text("false")));
        }
        if let Some(rule) = self.rule {
            let path = names::config_path("destination-rule", &rule.namespace, &rule.name);
            fields.push(("config", message::text(path)));
        }
        if self.service.external {
            fields.push(("external", message::boolean(true)));
        }
        fields.push(("services", message::list(vec![description(self.service)])));
        if let Some(subset) = self.subset {
            fields.push(("subset", message::text(&*subset.name)));
        }
        message::istio_metadata(fields)
    }

    /// The rule that shaped the cluster and the service that it leads to.
    pub(super) fn origins(&self) -> Vec<(Part, Origin)> {
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
}

/// A service as telemetry names it.
pub(super) fn description(service: &Service) -> Value {
    message::structure(message::object([
        ("host", message::text(&*service.host)),
        ("name", message::text(&*service.name)),
        ("namespace", message::text(&*service.namespace)),
    ]))
}

/// Sets how names are looked up.
fn look_up(cluster: &mut Cluster, mesh: &Mesh) {
    cluster.dns_lookup_family = cluster::DnsLookupFamily::V4Only.into();
    cluster.dns_refresh_rate = Some(message::duration(mesh.dns_refresh_rate));
    cluster.respect_dns_ttl = true;
    cluster.dns_jitter = Some(prost_types::Duration { seconds: 0, nanos: DNS_JITTER });
    let resolver = CaresDnsResolverConfig { udp_max_queries: Some(UDP_QUERIES), ..Default::default() };
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(message::typed(&resolver)),
    });
}
