//! What does a configuration ask for that this data plane takes and does not do yet? Said aloud, never passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_xds::Origin;
use lateen_xds::envoy::config::cluster::v3 as cluster_v3;

use super::route::{Action, HostRewrite, Route, RouteConfig};

/// Something that was asked for and is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limitation {
    /// What is not done, as a sentence without its full stop: `fault injection is not carried out yet`.
    pub text: String,
    /// The resource that asks for it: `route configuration` or `cluster`, and its name.
    pub resource: (&'static str, Arc<str>),
    /// The configuration object that it was compiled from.
    pub origin: Option<Origin>,
}

impl std::fmt::Display for Limitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = &self.resource;
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.text),
            None => write!(f, "{kind} `{name}`: {}", self.text),
        }
    }
}

/// The limitations that a route configuration meets; once for each object and feature.
pub(super) fn of_routes(config: &RouteConfig) -> BTreeSet<Limitation> {
    let mut found = BTreeSet::new();
    let resource = ("route configuration", config.name.clone());
    let mut note = |text: String, origin: Option<&Origin>| {
        found.insert(Limitation { text, resource: resource.clone(), origin: origin.cloned() });
    };
    for name in config.per_filter_configs.keys() {
        note(filter(name), None);
    }
    for virtual_host in &config.virtual_hosts {
        for name in virtual_host.per_filter_configs.keys() {
            note(filter(name), virtual_host.origin.as_ref());
        }
        for route in &virtual_host.routes {
            of_route(route, &mut |text| note(text, route.origin.as_ref()));
        }
    }
    found
}

fn of_route(route: &Route, note: &mut impl FnMut(String)) {
    for name in route.per_filter_configs.keys() {
        note(filter(name));
    }
    let Action::Forward(forward) = &route.action else { return };
    let policy = forward.retry.as_deref();
    let asked = [
        (!forward.mirrors.is_empty(), "mirroring"),
        (forward.internal_redirect.is_some(), "following redirects inside the proxy"),
        (forward.max_stream_duration.is_some_and(|limit| !limit.is_zero()), "the maximum stream duration"),
        (matches!(forward.host_rewrite, Some(HostRewrite::Auto)), "the host of the chosen endpoint"),
        (policy.is_some_and(|policy| policy.rate_limited_back_off.is_some()), "waiting as long as a response says"),
        (policy.is_some_and(|policy| policy.per_try_idle_timeout.is_some()), "the idle timeout of a try"),
        (policy.is_some_and(|policy| !policy.retriable_request_headers.is_empty()), "retrying by request headers"),
    ];
    for (asked, feature) in asked {
        if asked {
            note(format!("{feature} is not carried out yet"));
        }
    }
}

fn filter(name: &str) -> String {
    match name {
        "envoy.filters.http.fault" => "fault injection is not carried out yet".to_owned(),
        "envoy.filters.http.cors" => "the CORS policy is not carried out yet".to_owned(),
        other => format!("the settings of filter `{other}` are not carried out yet"),
    }
}

/// The limitations that a cluster meets.
pub(super) fn of_cluster(message: &cluster_v3::Cluster, origin: Option<&Origin>) -> BTreeSet<Limitation> {
    let asked = [(message.preconnect_policy.is_some(), "connecting ahead of requests is not carried out yet")];
    let resource = ("cluster", Arc::from(message.name.as_str()));
    asked
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, text)| Limitation { text: text.to_owned(), resource: resource.clone(), origin: origin.cloned() })
        .collect()
}
