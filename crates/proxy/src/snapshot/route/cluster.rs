//! Which cluster does a route send a request to: always the same, one by chance, or one that a header names?

use lateen_xds::envoy::config::route::v3 as route_v3;

use super::super::filter::Overrides;
use super::super::header_mutation::HeaderMutations;
use super::super::matcher::{header_name, unsupported};
use super::super::subset::Criteria;
use super::super::{ClusterNames, ClusterRef, Invalid};
use super::PerFilterConfigs;
use crate::http::head::{Head, HeaderName};

/// How the cluster of a request is found.
#[derive(Debug)]
pub enum ClusterSpecifier {
    /// It is always the same, or a header names it.
    One(ClusterName),
    /// By chance.
    Weighted(WeightedClusters),
}

/// A cluster, or the request header that names it.
#[derive(Debug)]
pub enum ClusterName {
    /// The cluster.
    Fixed(ClusterRef),
    /// The header.
    Header(HeaderName),
}

/// Envoy's `WeightedCluster`.
#[derive(Debug)]
pub struct WeightedClusters {
    clusters: Vec<WeightedCluster>,
    total: u64,
    /// A request header with a number that takes the place of chance.
    random_header: Option<HeaderName>,
}

/// One of several clusters, with the level of settings that is the most specific one.
#[derive(Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ClusterName,
    /// Changes of requests.
    pub request_headers: HeaderMutations,
    /// Changes of responses.
    pub response_headers: HeaderMutations,
    /// Host that the upstream sees, unless the route rewrites it too.
    pub host_rewrite: Option<Box<[u8]>>,
    /// `typed_per_filter_config`.
    pub per_filter_configs: PerFilterConfigs,
    /// `metadata_match`, with what the route says and it does not.
    pub criteria: Criteria,
    /// What this and the more general levels say of filters.
    pub filters: Overrides,
    /// Sum of the weights up to this one.
    end: u64,
}

impl ClusterSpecifier {
    /// Reads `cluster_specifier`; `filters` is what the route says of filters.
    ///
    /// # Errors
    /// No cluster, weights without a sum, a plugin.
    pub(super) fn build(
        message: &route_v3::RouteAction,
        filters: &Overrides,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        use route_v3::route_action::ClusterSpecifier as Specifier;
        match &message.cluster_specifier {
            Some(Specifier::Cluster(name)) => Ok(ClusterSpecifier::One(named(name, "", "cluster", names)?)),
            Some(Specifier::ClusterHeader(name)) => {
                Ok(ClusterSpecifier::One(ClusterName::Header(header_name(name, "cluster_header")?)))
            }
            Some(Specifier::WeightedClusters(clusters)) => WeightedClusters::build(clusters, message, filters, names)
                .map(ClusterSpecifier::Weighted)
                .map_err(|invalid| invalid.under("weighted_clusters")),
            Some(Specifier::ClusterSpecifierPlugin(_)) => {
                Err(unsupported("cluster_specifier_plugin", "cluster specifier plugins"))
            }
            Some(Specifier::InlineClusterSpecifierPlugin(_)) => {
                Err(unsupported("inline_cluster_specifier_plugin", "cluster specifier plugins"))
            }
            None => Err(Invalid::at("cluster_specifier", "a cluster is required".into())),
        }
    }
}

impl WeightedClusters {
    /// The cluster for a request. `random` is the same for all tries of it.
    #[must_use]
    pub fn pick(&self, request: &Head, random: u64) -> &WeightedCluster {
        let given = self.random_header.as_ref().and_then(|name| request.value(name)).and_then(decimal);
        let point = given.unwrap_or(random) % self.total;
        let last = self.clusters.len() - 1;
        self.clusters.iter().find(|cluster| point < cluster.end).unwrap_or(&self.clusters[last])
    }

    /// All clusters, in the order of the message.
    #[must_use]
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    fn build(
        message: &route_v3::WeightedCluster,
        route: &route_v3::RouteAction,
        filters: &Overrides,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        use route_v3::weighted_cluster::RandomValueSpecifier;
        let random_header = match &message.random_value_specifier {
            None => None,
            Some(RandomValueSpecifier::HeaderName(name)) => Some(header_name(name, "header_name")?),
            Some(RandomValueSpecifier::UseHashPolicy(false)) => None,
            Some(RandomValueSpecifier::UseHashPolicy(true)) => {
                return Err(unsupported("use_hash_policy", "weighted clusters by hash"));
            }
        };
        let mut total = 0;
        let mut clusters = Vec::with_capacity(message.clusters.len());
        for (index, cluster) in message.clusters.iter().enumerate() {
            total += u64::from(cluster.weight.unwrap_or(0));
            let built = WeightedCluster::build(cluster, total, filters, names);
            let mut built = built.map_err(|invalid| invalid.under(&format!("clusters[{index}]")))?;
            built.criteria = built.criteria.or(&Criteria::of(route.metadata_match.as_ref()));
            clusters.push(built);
        }
        if total == 0 {
            let message = "Sum of weights in the weighted_cluster must be greater than 0.".to_owned();
            return Err(Invalid::at("clusters", message));
        }
        if total > u64::from(u32::MAX) {
            return Err(Invalid::at(
                "clusters",
                format!("the sum of the weights is {total}, which is above {}", u32::MAX),
            ));
        }
        if let Some(expected) = message.total_weight
            && u64::from(expected) != total
        {
            let message = format!("Sum of weights in the weighted_cluster should be equal to {expected}");
            return Err(Invalid::at("total_weight", message));
        }
        Ok(Self { clusters, total, random_header })
    }
}

impl WeightedCluster {
    fn build(
        message: &route_v3::weighted_cluster::ClusterWeight,
        end: u64,
        filters: &Overrides,
        names: &mut ClusterNames,
    ) -> Result<Self, Invalid> {
        use route_v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
        let host_rewrite = match &message.host_rewrite_specifier {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) if !host.is_empty() => Some(host.as_bytes().into()),
            _ => None,
        };
        Ok(Self {
            cluster: named(&message.name, &message.cluster_header, "name", names)?,
            request_headers: HeaderMutations::build(
                &message.request_headers_to_add,
                &message.request_headers_to_remove,
                "request_headers",
            )?,
            response_headers: HeaderMutations::build(
                &message.response_headers_to_add,
                &message.response_headers_to_remove,
                "response_headers",
            )?,
            host_rewrite,
            per_filter_configs: message.typed_per_filter_config.clone(),
            criteria: Criteria::of(message.metadata_match.as_ref()),
            filters: Overrides::build(&message.typed_per_filter_config, Some(filters), names)?,
            end,
        })
    }
}

/// The cluster of two fields of which exactly one is set.
pub(super) fn named(name: &str, header: &str, field: &str, names: &mut ClusterNames) -> Result<ClusterName, Invalid> {
    match (name, header) {
        ("", "") => Err(Invalid::at(field, "a cluster name is required".into())),
        (name, "") => Ok(ClusterName::Fixed(names.intern(name))),
        ("", header) => Ok(ClusterName::Header(header_name(header, "cluster_header")?)),
        _ => Err(Invalid::at(field, "a cluster and cluster_header exclude each other".into())),
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}
