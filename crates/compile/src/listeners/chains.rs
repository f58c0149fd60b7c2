//! What is a filter chain made of? The connections that it takes, and the one filter that ends them: a connection
//! manager for HTTP, a TCP proxy for bytes.

use std::time::Duration;

use lateen_xds::Origin;
use lateen_xds::envoy::config::core::v3::{CidrRange, Metadata};
use lateen_xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, filter};
use lateen_xds::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use lateen_xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use lateen_xds::envoy::r#type::v3::{HashPolicy, hash_policy};

use crate::access_log::{self, Subject};
use crate::context::Context;
use crate::hcm::Direction;
use crate::istio_proxy;
use crate::message;
use crate::names;
use crate::policy;
use crate::protocol::Protocol;
use crate::scope::Capability;
use crate::world::services::Service;

/// A filter chain with what made it.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) message: FilterChain,
    pub(crate) origins: Vec<Origin>,
}

impl Chain {
    /// True when it takes every connection.
    pub(crate) fn takes_everything(&self) -> bool {
        self.message.filter_chain_match.as_ref().is_none_or(|matched| *matched == FilterChainMatch::default())
    }

    /// What older chains of the listener leave to it: Envoy refuses a listener of which two chains take the same
    /// connections. `None` when they leave nothing.
    pub(crate) fn besides(mut self, older: &[Chain]) -> Option<Chain> {
        let every = FilterChainMatch::default();
        let mut own = self.message.filter_chain_match.take().unwrap_or_default();
        for older in older {
            let older = older.message.filter_chain_match.as_ref().unwrap_or(&every);
            if own.destination_port != older.destination_port
                || own.transport_protocol != older.transport_protocol
                || own.application_protocols != older.application_protocols
            {
                continue;
            }
            let names = left(&own.server_names, &older.server_names);
            let ranges = left(&own.prefix_ranges, &older.prefix_ranges);
            match (names, ranges) {
                (None, _) | (_, None) => {}
                (Some(names), Some(_)) if !names.is_empty() => own.server_names = names,
                (Some(_), Some(ranges)) if !ranges.is_empty() => own.prefix_ranges = ranges,
                (Some(_), Some(_)) => return None,
            }
        }
        self.message.filter_chain_match = (own != every).then_some(own);
        Some(self)
    }
}

/// What one list has besides another with which it has something in common; `None` when it has not. Empty lists, which
/// stand for everything, are common to both.
fn left<T: PartialEq + Clone>(own: &[T], other: &[T]) -> Option<Vec<T>> {
    let rest: Vec<T> = own.iter().filter(|entry| !other.contains(entry)).cloned().collect();
    let meet = rest.len() < own.len() || (own.is_empty() && other.is_empty());
    meet.then_some(rest)
}

/// Where bytes go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// One cluster.
    Cluster(String),
    /// Several, each with its weight.
    Weighted(Vec<(String, u32)>),
}

/// The filters of a chain that forwards bytes.
pub(crate) struct Bytes<'a> {
    pub(crate) target: Target,
    /// Name in statistics; `None` is the cluster's.
    pub(crate) stat_prefix: Option<String>,
    pub(crate) protocol: Protocol,
    /// The service whose DestinationRule limits the connections, if there is one.
    pub(crate) service: Option<&'a Service>,
    /// Subset of it that all connections go to, whose tunnel counts.
    pub(crate) subset: Option<&'a str>,
    /// Connections are for the workload itself.
    pub(crate) is_inbound: bool,
}

impl Bytes<'_> {
    /// Forwarding to a cluster to which no service belongs.
    pub(crate) fn to(cluster: &str) -> Bytes<'static> {
        Bytes {
            target: Target::Cluster(cluster.to_owned()),
            stat_prefix: None,
            protocol: Protocol::Tcp,
            service: None,
            subset: None,
            is_inbound: false,
        }
    }

    /// The network filters, in order.
    pub(crate) fn filters(&self, cx: &Context<'_>) -> Vec<Filter> {
        let mut filters = Vec::new();
        if cx.scope.capability == Capability::IstioProxy {
            filters.extend(istio_proxy::network_stats(cx, self.direction(cx)));
        }
        let proxy = self.proxy(cx);
        if self.protocol == Protocol::Mongo {
            let mongo = MongoProxy { stat_prefix: proxy.stat_prefix.clone(), ..Default::default() };
            filters.push(network_filter("envoy.filters.network.mongo_proxy", message::typed(&mongo)));
        }
        filters.push(network_filter(TCP_PROXY, message::typed(&proxy)));
        filters
    }

    fn direction(&self, cx: &Context<'_>) -> Direction {
        if self.is_inbound { Direction::Inbound } else { Direction::outward(cx) }
    }

    fn proxy(&self, cx: &Context<'_>) -> TcpProxy {
        let rule = self.service.and_then(|service| cx.rule(service));
        let policy = rule.and_then(|rule| rule.traffic_policy.as_ref());
        let tcp = policy.and_then(|policy| policy.connection_pool.as_ref()?.tcp.as_ref());
        let hashes_source = matches!(
            policy::consistent_hash(policy, None).and_then(|hash| hash.key.as_ref()),
            Some(lateen_config::HashKey::UseSourceIp(true))
        );
        let (specifier, name) = match &self.target {
            Target::Cluster(name) => (tcp_proxy::ClusterSpecifier::Cluster(name.clone()), name.clone()),
            Target::Weighted(clusters) => {
                let weights = clusters.iter().map(|(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight {
                    name: name.clone(),
                    weight: *weight,
                    ..Default::default()
                });
                let first = clusters.first().map(|(name, _)| name.clone()).unwrap_or_default();
                let weighted = tcp_proxy::WeightedCluster { clusters: weights.collect() };
                (tcp_proxy::ClusterSpecifier::WeightedClusters(weighted), first)
            }
        };
        let of_subset = self.subset.and_then(|subset| rule?.subset(subset)?.traffic_policy.as_ref());
        let tunnel = match self.subset {
            Some(_) => of_subset.and_then(|policy| policy.tunnel.as_ref()),
            None => policy.and_then(|policy| policy.tunnel.as_ref()),
        };
        TcpProxy {
            stat_prefix: self.stat_prefix.clone().unwrap_or(name),
            cluster_specifier: Some(specifier),
            access_log: access_log::compile(cx, self.direction(cx).side(), Subject::Connections),
            idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout).or_else(|| own_idle_timeout(cx)).map(message::duration),
            max_downstream_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(message::duration),
            hash_policy: if hashes_source {
                vec![HashPolicy {
                    policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})),
                }]
            } else {
                Vec::new()
            },
            tunneling_config: tunnel.map(|tunnel| tcp_proxy::TunnelingConfig {
                hostname: format!("{}:{}", tunnel.target_host, tunnel.target_port),
                use_post: tunnel.protocol.as_deref() == Some("POST"),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// How long the proxy keeps idle connections, as it tells of itself.
fn own_idle_timeout(cx: &Context<'_>) -> Option<Duration> {
    cx.scope.metadata.get("IDLE_TIMEOUT").and_then(|text| lateen_config::parse_duration(text).ok())
}

/// Name of the TCP proxy among a chain's network filters.
const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

fn network_filter(name: &str, config: prost_types::Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// Plain HTTP as the listener filters detect it.
pub(crate) fn detected_http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
        ..Default::default()
    }
}

/// A range of addresses: `10.0.0.0/8`, or a single address. `None` when it is neither.
pub(crate) fn range(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let parsed: std::net::IpAddr = address.parse().ok()?;
    let whole = if parsed.is_ipv4() { 32 } else { 128 };
    let length: u32 = length.map_or(Some(whole), |length| length.parse().ok())?;
    (length <= whole).then(|| CidrRange { address_prefix: address.to_owned(), prefix_len: Some(length) })
}

/// The metadata by which Istio names the object that made a chain.
pub(crate) fn made_by(kind: &str, namespace: &str, name: &str) -> Metadata {
    message::istio_metadata([("config", message::text(names::config_path(kind, namespace, name)))])
}
