//! Which route does a request take, and which of its clusters?

use crate::http::head::{Head, HeaderName};
use crate::http::stream_info::StreamInfo;
use crate::snapshot::ClusterRef;
use crate::snapshot::header_mutation::HeaderMutations;
use crate::snapshot::route::{Action, ClusterName, ClusterSpecifier, Route, RouteConfig, VirtualHost, WeightedCluster};

/// The result of a search.
#[derive(Debug)]
pub enum Selection<'v> {
    /// No virtual host, or no route in it: 404.
    NoRoute,
    /// The virtual host wants TLS: 301 to [`super::redirect::to_tls`].
    RedirectToTls(&'v VirtualHost),
    /// The route.
    Route(Routed<'v>),
}

/// A route that was selected, with the levels round it.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'v> {
    /// The route configuration.
    pub config: &'v RouteConfig,
    /// The virtual host.
    pub virtual_host: &'v VirtualHost,
    /// The route.
    pub route: &'v Route,
    /// The chosen one of several weighted clusters.
    pub weighted: Option<&'v WeightedCluster>,
    /// The cluster; `None` for routes that answer themselves, and if `cluster_header` names it.
    pub cluster: Option<&'v ClusterRef>,
    /// The request header that names the cluster.
    pub cluster_header: Option<&'v HeaderName>,
}

/// Searches the route of a request. `random` decides about fractions and weights; the same number for all tries of a
/// request.
#[must_use]
pub fn select<'v>(config: &'v RouteConfig, request: &Head, random: u64) -> Selection<'v> {
    let Some(virtual_host) = config.virtual_host(request.authority().unwrap_or_default()) else {
        return Selection::NoRoute;
    };
    if virtual_host.demands_tls(request) {
        return Selection::RedirectToTls(virtual_host);
    }
    let path = config.matched_path(request.path());
    match virtual_host.routes.iter().find(|route| route.matches(request, &path, random)) {
        Some(route) => Selection::Route(Routed::choose(config, virtual_host, route, request, random)),
        None => Selection::NoRoute,
    }
}

impl<'v> Routed<'v> {
    fn choose(
        config: &'v RouteConfig,
        virtual_host: &'v VirtualHost,
        route: &'v Route,
        request: &Head,
        random: u64,
    ) -> Self {
        let mut routed = Self { config, virtual_host, route, weighted: None, cluster: None, cluster_header: None };
        let Action::Forward(forward) = &route.action else { return routed };
        let name = match &forward.cluster {
            ClusterSpecifier::One(name) => name,
            ClusterSpecifier::Weighted(clusters) => {
                let weighted = clusters.pick(request, random);
                routed.weighted = Some(weighted);
                &weighted.cluster
            }
        };
        match name {
            ClusterName::Fixed(cluster) => routed.cluster = Some(cluster),
            ClusterName::Header(header) => routed.cluster_header = Some(header),
        }
        routed
    }

    /// Changes the headers of a request as all levels say. The host of a weighted cluster is set before the levels above
    /// it see the request. `scratch` is space for formatted values.
    pub fn mutate_request(&self, request: &mut Head, stream: &StreamInfo<'_>, scratch: &mut Vec<u8>) {
        if let Some(weighted) = self.weighted {
            weighted.request_headers.apply_to_request(request, stream, scratch);
            if let Some(host) = &weighted.host_rewrite {
                request.set_authority(host);
            }
        }
        let levels = [&self.route.request_headers, &self.virtual_host.request_headers, &self.config.request_headers];
        for mutations in self.in_order(levels) {
            mutations.apply_to_request(request, stream, scratch);
        }
    }

    /// Changes the headers of a response as all levels say. `scratch` is space for formatted values.
    pub fn mutate_response(&self, request: &Head, response: &mut Head, stream: &StreamInfo<'_>, scratch: &mut Vec<u8>) {
        if let Some(weighted) = self.weighted {
            weighted.response_headers.apply_to_response(request, response, stream, scratch);
        }
        let levels = [&self.route.response_headers, &self.virtual_host.response_headers, &self.config.response_headers];
        for mutations in self.in_order(levels) {
            mutations.apply_to_response(request, response, stream, scratch);
        }
    }

    /// The level that comes last wins; by default it is the least specific one.
    fn in_order(&self, mut levels: [&'v HeaderMutations; 3]) -> impl Iterator<Item = &'v HeaderMutations> + use<'v> {
        if self.config.most_specific_header_mutations_wins {
            levels.reverse();
        }
        levels.into_iter().filter(|mutations| !mutations.is_empty())
    }
}

#[cfg(test)]
mod tests;
