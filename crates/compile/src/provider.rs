//! How is a service for logs or traces reached that the mesh names as a provider? By the cluster of its port.

use std::time::Duration;

use lateen_config::{GrpcService as GrpcSettings, ProviderHttpHeader};
use lateen_xds::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri, grpc_service, header_value_option, http_uri,
};

use crate::context::Context;
use crate::message;
use crate::names;
use crate::world::World;
use crate::world::services::Service;

/// The cluster of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Host of the service, as requests name it.
    pub(crate) host: String,
}

impl Upstream {
    /// The port of a service that a provider names: `host` or `namespace/host`. `None` when there is no such service,
    /// or the proxy has no cluster for it: Envoy refuses a listener that names an unknown one.
    pub(crate) fn find(cx: &Context<'_>, service: &str, port: u32) -> Option<Upstream> {
        let host = &known_service(cx.world, service)?.host;
        let destination = cx.destination(host)?;
        destination.port(port).filter(|port| port.protocol.has_clusters())?;
        Some(Upstream {
            cluster: names::outbound_cluster(port, "", &destination.host),
            host: destination.host.to_string(),
        })
    }

    /// The cluster as a service that is spoken to in gRPC.
    pub(crate) fn grpc(&self, settings: Option<&GrpcSettings>) -> GrpcService {
        let metadata = settings.map(|settings| settings.initial_metadata.as_slice()).unwrap_or_default();
        GrpcService {
            timeout: settings.and_then(|settings| settings.timeout).map(message::duration),
            initial_metadata: metadata.iter().filter_map(header).collect(),
            ..grpc(&self.cluster, &self.host)
        }
    }

    /// The cluster as a service that is spoken to in HTTP. `uri` names its host, and its path.
    pub(crate) fn http(&self, uri: String, timeout: Duration, headers: &[ProviderHttpHeader]) -> HttpService {
        HttpService {
            http_uri: Some(HttpUri {
                uri,
                timeout: Some(message::duration(timeout)),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(self.cluster.clone())),
            }),
            request_headers_to_add: headers
                .iter()
                .filter_map(header)
                .map(|header| HeaderValueOption {
                    header: Some(header),
                    append_action: header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }
}

/// The service that a provider names. A name without namespace that several namespaces have is nobody's.
pub(crate) fn known_service<'a>(world: &'a World, service: &str) -> Option<&'a Service> {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, service),
    };
    let mut found =
        world.services_of(host).filter(|known| namespace.is_none_or(|namespace| *known.namespace == *namespace));
    let first = found.next()?;
    found.all(|other| other.namespace == first.namespace).then_some(first)
}

/// A service by its cluster, spoken to in gRPC.
pub(crate) fn grpc(cluster: &str, authority: &str) -> GrpcService {
    GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            authority: authority.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// A header of reports. Values from the environment are Istio's own environment there; there is none here.
fn header(header: &ProviderHttpHeader) -> Option<HeaderValue> {
    let value = header.value.clone()?;
    Some(HeaderValue { key: header.name.clone(), value, ..Default::default() })
}
