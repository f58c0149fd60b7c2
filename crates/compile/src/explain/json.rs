//! How does an explanation look to a program?

use std::time::Duration;

use lateen_xds::Origin;
use serde_json::{Map, Value, json};

use super::explanation::{ClusterShare, Discovery, Explanation, Policies, Upstream, UpstreamTls};

impl Explanation {
    /// The explanation as JSON. The keys of the object are always the same; what does not apply is null or empty.
    pub fn to_json(&self) -> Value {
        json!({
            "listener": self.listener,
            "filter_chain": self.filter_chain,
            "route_config": self.route_config,
            "virtual_host": self.virtual_host,
            "route": self.route,
            "clusters": self.clusters.iter().map(cluster).collect::<Vec<_>>(),
            "policies": policies(&self.policies, &self.clusters),
            "origin": self.origin.as_ref().map(origin),
            "tried": self
                .tried
                .iter()
                .map(|tried| json!({"origin": tried.origin.as_ref().map(origin), "reason": tried.reason}))
                .collect::<Vec<_>>(),
            "error": self.error.as_ref().map(|refusal| refusal.kind.as_str()),
        })
    }
}

/// A length of time in seconds, with as many decimals as it needs: `1.5s`.
pub(crate) fn seconds(length: Duration) -> String {
    format!("{}s", length.as_secs_f64())
}

fn cluster(cluster: &ClusterShare) -> Value {
    let endpoints = cluster.upstream.as_ref().map(|upstream| {
        upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "address": endpoint.address,
                    "health": endpoint.health,
                    "locality": endpoint.locality,
                    "priority": endpoint.priority,
                    "weight": endpoint.weight,
                })
            })
            .collect::<Vec<_>>()
    });
    json!({"name": cluster.name, "weight": cluster.weight, "endpoints": endpoints})
}

fn policies(policies: &Policies, clusters: &[ClusterShare]) -> Value {
    let upstreams: Map<String, Value> = clusters
        .iter()
        .filter_map(|cluster| Some((cluster.name.clone(), upstream(cluster.upstream.as_ref()?))))
        .collect();
    json!({
        "redirect": policies
            .redirect
            .as_ref()
            .map(|redirect| json!({"status": redirect.status, "location": redirect.location})),
        "direct_response": policies
            .direct_response
            .as_ref()
            .map(|response| json!({"status": response.status, "body_bytes": response.body})),
        "timeout": policies.timeout.map(seconds),
        "retries": policies.retries.as_ref().map(|retries| json!({
            "attempts": retries.attempts,
            "on": retries.on,
            "codes": retries.codes,
            "per_try_timeout": retries.per_try_timeout.map(seconds),
        })),
        "fault_delay": policies
            .fault_delay
            .map(|(length, percent)| json!({"length": seconds(length), "percent": percent})),
        "fault_abort": policies
            .fault_abort
            .as_ref()
            .map(|(answer, percent)| json!({"answer": answer, "percent": percent})),
        "mirrors": policies
            .mirrors
            .iter()
            .map(|(cluster, percent)| json!({"cluster": cluster, "percent": percent}))
            .collect::<Vec<_>>(),
        "path": policies.path,
        "host": policies.host,
        "request_headers": policies.request_headers,
        "response_headers": policies.response_headers,
        "hash": policies.hash,
        "cors": policies.cors,
        "filters": policies.filters,
        "clusters": upstreams,
        "notes": policies.notes,
    })
}

fn upstream(upstream: &Upstream) -> Value {
    let limits: Map<String, Value> = upstream.limits.iter().map(|(name, limit)| (name.clone(), json!(limit))).collect();
    let outlier: Map<String, Value> =
        upstream.outlier_detection.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "discovery": match upstream.discovery {
            Discovery::Listed => "listed",
            Discovery::Dns => "dns",
            Discovery::OriginalDestination => "original-destination",
            Discovery::DynamicForwardProxy => "dynamic-forward-proxy",
        },
        "load_balancing": upstream.load_balancing,
        "limits": limits,
        "outlier_detection": outlier,
        "connect_timeout": upstream.connect_timeout.map(seconds),
        "tls": match &upstream.tls {
            UpstreamTls::None => json!("none"),
            UpstreamTls::Automatic => json!("automatic"),
            UpstreamTls::Always { mutual: true, .. } => json!("mutual"),
            UpstreamTls::Always { mutual: false, .. } => json!("simple"),
        },
        "origins": upstream.origins.iter().map(origin).collect::<Vec<_>>(),
    })
}

fn origin(origin: &Origin) -> Value {
    json!({
        "kind": &*origin.kind,
        "namespace": &*origin.namespace,
        "name": &*origin.name,
        "rule": origin.rule,
        "file": origin.file.as_deref(),
        "line": origin.line,
    })
}
