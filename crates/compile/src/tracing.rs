//! What is traced, and where do traces go? The tracing of a connection manager, as Telemetry objects say, else as the
//! mesh does; and the clusters of the services that the mesh names by address alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_config::{
    CustomTag as Tag, CustomTagSource, ExtensionProvider, ExtensionProviderKind, OpenTelemetryProvider, Tracer,
    ZipkinProvider,
};
use lateen_xds::Resource;
use lateen_xds::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds::envoy::config::core::v3::{Http2ProtocolOptions, TypedExtensionConfig};
use lateen_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use lateen_xds::envoy::config::trace::v3::tracing::{Http as Provider, http};
use lateen_xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, zipkin_config};
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::RequestIdExtension;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use lateen_xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use lateen_xds::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    DynatraceResourceDetectorConfig, EnvironmentResourceDetectorConfig,
};
use lateen_xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use lateen_xds::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use lateen_xds::envoy::r#type::v3::Percent;
use prost::Name;

use crate::access_log;
use crate::context::Context;
use crate::message;
use crate::provider::Upstream;
use crate::scope::{Capability, Role};
use crate::world::services::{CLUSTER_ID, Workload};
use crate::world::telemetry::{self, Side};

/// Share of requests that are traced where nothing is said, in percent.
const DEFAULT_SAMPLING: f64 = 1.0;

/// Name of the cluster of the mesh's own tracer; Istio's proxies have it from the start.
const TRACER_CLUSTER: &str = "zipkin";

/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";

/// Time until a report to Zipkin is given up.
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until a report to an OpenTelemetry service is given up.
const OPENTELEMETRY_TIMEOUT: Duration = Duration::from_secs(3);

/// The tracing of a connection manager. `None` traces nothing: without a provider spans would go nowhere.
pub(crate) fn compile(cx: &Context<'_>, side: Side) -> Option<Tracing> {
    let mesh = cx.world.mesh();
    let of_mesh = mesh.tracing.as_ref();
    let told = cx.world.telemetry(cx.scope).tracing(side);
    let (provider, max_tag_length) = match &told {
        Some(told) => of_provider(cx, told.provider?)?,
        None if mesh.tracing_enabled => (of_tracer(cx)?, None),
        None => return None,
    };
    let sampling = told.as_ref().and_then(|told| told.sampling).or_else(|| {
        // Zero is not set, and what is no share is the default.
        let of_mesh = of_mesh.and_then(|tracing| tracing.sampling).filter(|share| *share != 0.0);
        of_mesh.map(|share| if share > 100.0 { DEFAULT_SAMPLING } else { share })
    });
    let percent = |value| Some(Percent { value });
    Some(Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(sampling.unwrap_or(DEFAULT_SAMPLING)),
        overall_sampling: percent(100.0),
        max_path_tag_length: max_tag_length
            .or_else(|| of_mesh.and_then(|tracing| tracing.max_path_tag_length))
            .filter(|length| *length != 0),
        custom_tags: custom_tags(cx, told.as_ref()),
        provider: provider.config,
        spawn_upstream_span: (cx.scope.role == Role::Gateway && told.is_some()).then_some(true),
        no_context_propagation: told.as_ref().is_some_and(|told| !told.is_propagated),
        ..Default::default()
    })
}

/// How request ids are made, where a Telemetry wants it in another way than Envoy does it anyway.
pub(crate) fn request_id(cx: &Context<'_>, side: Side) -> Option<RequestIdExtension> {
    let told = cx.world.telemetry(cx.scope).tracing(side)?;
    if told.uses_request_id || told.provider.is_none() {
        return None;
    }
    let config = UuidRequestIdConfig { use_request_id_for_trace_sampling: Some(false), ..Default::default() };
    Some(RequestIdExtension { typed_config: Some(message::typed(&config)) })
}

/// True when traces can be sent to a provider.
pub(crate) fn is_target(provider: &ExtensionProvider) -> bool {
    matches!(provider.provider, Some(ExtensionProviderKind::Zipkin(_) | ExtensionProviderKind::Opentelemetry(_)))
}

/// The clusters of the tracer and of the access log service that the mesh names by address. Istio's proxies have them
/// from the start.
pub(crate) fn clusters(cx: &Context<'_>) -> BTreeMap<Arc<str>, Resource<Cluster>> {
    let mesh = cx.world.mesh();
    let mut clusters = BTreeMap::new();
    if cx.scope.capability == Capability::IstioProxy {
        return clusters;
    }
    let mut add = |cluster: Option<Cluster>| {
        if let Some(cluster) = cluster {
            clusters.insert(cluster.name.as_str().into(), Resource::new(cluster, Vec::new()));
        }
    };
    if mesh.tracing_enabled {
        add(tracer_address(cx).and_then(|address| cluster_of_address(cx, TRACER_CLUSTER, address, false)));
    }
    if access_log::has_service(mesh) {
        let address = mesh.access_log_service.as_ref().map(|service| service.address.as_str());
        add(address.and_then(|address| cluster_of_address(cx, access_log::SERVICE_CLUSTER, address, true)));
    }
    clusters
}

/// `host:port`, where the port is a number. Variables of Istio's environment have no value here.
pub(crate) fn parse_address(address: &str) -> Option<(&str, u32)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && !host.contains('$')).then_some((host, u32::from(port)))
}

/// A tracer that is told to the connection manager, or that the proxy knows by itself.
struct Told {
    config: Option<Provider>,
}

/// The tracer that a provider is, and the longest tag that it takes.
fn of_provider(cx: &Context<'_>, provider: &ExtensionProvider) -> Option<(Told, Option<u32>)> {
    let (config, max_tag_length) = match provider.provider.as_ref()? {
        ExtensionProviderKind::Zipkin(zipkin) => (of_zipkin(cx, zipkin)?, zipkin.max_tag_length),
        ExtensionProviderKind::Opentelemetry(tracer) => (of_opentelemetry(cx, tracer)?, tracer.max_tag_length),
        _ => return None,
    };
    Some((Told { config: Some(config) }, max_tag_length.filter(|length| *length != 0)))
}

/// The tracer of the mesh. Istio's proxies were told of it when they started.
fn of_tracer(cx: &Context<'_>) -> Option<Told> {
    let address = tracer_address(cx)?;
    if cx.scope.capability == Capability::IstioProxy {
        return Some(Told { config: None });
    }
    let (host, _) = parse_address(address)?;
    let config = ZipkinConfig {
        collector_cluster: TRACER_CLUSTER.to_owned(),
        collector_endpoint: ZIPKIN_PATH.to_owned(),
        collector_hostname: host.to_owned(),
        ..zipkin(true)
    };
    Some(Told { config: Some(tracer("envoy.tracers.zipkin", &config)) })
}

fn tracer_address<'a>(cx: &Context<'a>) -> Option<&'a str> {
    match cx.world.mesh().tracing.as_ref()?.tracer.as_ref()? {
        Tracer::Zipkin(zipkin) => Some(zipkin.address.as_str()).filter(|address| !address.is_empty()),
        _ => None,
    }
}

fn zipkin(has_long_ids: bool) -> ZipkinConfig {
    ZipkinConfig {
        collector_endpoint_version: zipkin_config::CollectorEndpointVersion::HttpJson.into(),
        trace_id_128bit: has_long_ids,
        shared_span_context: Some(false),
        ..Default::default()
    }
}

fn of_zipkin(cx: &Context<'_>, provider: &ZipkinProvider) -> Option<Provider> {
    let upstream = Upstream::find(cx, &provider.service, provider.port)?;
    let path = if provider.path.is_empty() { ZIPKIN_PATH } else { &provider.path };
    let mut config = ZipkinConfig {
        trace_context_option: match provider.trace_context_option.as_deref() {
            Some("USE_B3_WITH_W3C_PROPAGATION") => zipkin_config::TraceContextOption::UseB3WithW3cPropagation,
            _ => zipkin_config::TraceContextOption::UseB3,
        }
        .into(),
        ..zipkin(!provider.enable_64bit_trace_id)
    };
    // Older proxies know no other form than the first.
    if provider.timeout.is_none() && provider.headers.is_empty() {
        config.collector_cluster = upstream.cluster;
        config.collector_endpoint = path.to_owned();
        config.collector_hostname = upstream.host;
    } else {
        let uri = format!("http://{}{path}", upstream.host);
        let timeout = provider.timeout.unwrap_or(ZIPKIN_TIMEOUT);
        config.collector_service = Some(upstream.http(uri, timeout, &provider.headers));
    }
    Some(tracer("envoy.tracers.zipkin", &config))
}

fn of_opentelemetry(cx: &Context<'_>, provider: &OpenTelemetryProvider) -> Option<Provider> {
    let upstream = Upstream::find(cx, &provider.service, provider.port)?;
    let mut config = OpenTelemetryConfig { service_name: service_name(cx), ..Default::default() };
    match &provider.http {
        Some(http) => {
            let uri = format!("http://{}/{}", upstream.host, http.path.trim_start_matches('/'));
            let timeout = http.timeout.unwrap_or(OPENTELEMETRY_TIMEOUT);
            config.http_service = Some(upstream.http(uri, timeout, &http.headers));
        }
        None => config.grpc_service = Some(upstream.grpc(provider.grpc.as_ref())),
    }
    let asked = provider.resource_detectors.as_ref();
    let asks = |detector: &str| asked.and_then(|asked| asked.get(detector)).is_some();
    if asks("environment") {
        config.resource_detectors.push(detector("environment", &EnvironmentResourceDetectorConfig {}));
    }
    if asks("dynatrace") {
        config.resource_detectors.push(detector("dynatrace", &DynatraceResourceDetectorConfig {}));
    }
    Some(tracer("envoy.tracers.opentelemetry", &config))
}

fn detector<M: Name>(name: &str, config: &M) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: format!("envoy.tracers.opentelemetry.resource_detectors.{name}"),
        typed_config: Some(message::typed(config)),
    }
}

fn tracer<M: Name>(name: &str, config: &M) -> Provider {
    Provider { name: name.to_owned(), config_type: Some(http::ConfigType::TypedConfig(message::typed(config))) }
}

/// What the proxy's spans are called after: `<workload's canonical name>.<namespace>`.
fn service_name(cx: &Context<'_>) -> String {
    let workload = workload(cx);
    format!("{}.{}", workload.canonical_name, workload.namespace)
}

/// The workload by its labels; nothing is known of a gateway that answers for all.
fn workload(cx: &Context<'_>) -> Workload {
    let no_labels = BTreeMap::new();
    Workload::build("unknown", &cx.scope.namespace, cx.scope.labels.as_ref().unwrap_or(&no_labels))
}

/// Istio's own tags, and those that are asked for, by name. Of two with one name the one that is asked for stays.
fn custom_tags(cx: &Context<'_>, told: Option<&telemetry::Tracing<'_>>) -> Vec<CustomTag> {
    let of_mesh = cx.world.mesh().tracing.as_ref();
    let has_own = match told {
        Some(told) => told.has_istio_tags,
        None => of_mesh.and_then(|tracing| tracing.enable_istio_tags).unwrap_or(true),
    };
    let mut tags: BTreeMap<&str, custom_tag::Type> = BTreeMap::new();
    if has_own {
        let workload = workload(cx);
        let told = |key: &str, default: &str| cx.scope.metadata.get(key).map_or(default, String::as_str).to_owned();
        let revision = Some(&*workload.canonical_revision).filter(|revision| !revision.is_empty());
        let own = [
            ("istio.canonical_revision", revision.unwrap_or("latest").to_owned()),
            ("istio.canonical_service", workload.canonical_name.to_string()),
            ("istio.cluster_id", told("CLUSTER_ID", CLUSTER_ID)),
            ("istio.mesh_id", told("MESH_ID", "unknown")),
            ("istio.namespace", cx.scope.namespace.to_string()),
        ];
        tags.extend(own.into_iter().map(|(name, value)| (name, literal(value))));
    }
    let asked = told.and_then(|told| told.custom_tags).or_else(|| of_mesh.map(|tracing| &tracing.custom_tags));
    let asked = asked.into_iter().flatten();
    tags.extend(asked.filter_map(|(name, tag)| Some((name.as_str(), source(tag)?))));
    tags.into_iter().map(|(tag, source)| CustomTag { tag: tag.to_owned(), r#type: Some(source) }).collect()
}

fn literal(value: String) -> custom_tag::Type {
    custom_tag::Type::Literal(custom_tag::Literal { value })
}

fn source(tag: &Tag) -> Option<custom_tag::Type> {
    Some(match tag.source.as_ref()? {
        CustomTagSource::Literal(tag) => literal(tag.value.clone()),
        CustomTagSource::Environment(tag) => custom_tag::Type::Environment(custom_tag::Environment {
            name: tag.name.clone(),
            default_value: tag.default_value.clone().unwrap_or_default(),
        }),
        CustomTagSource::Header(tag) => custom_tag::Type::RequestHeader(custom_tag::Header {
            name: tag.name.clone(),
            default_value: tag.default_value.clone().unwrap_or_default(),
        }),
        CustomTagSource::Formatter(tag) => custom_tag::Type::Value(tag.value.clone()),
    })
}

fn cluster_of_address(cx: &Context<'_>, name: &str, address: &str, speaks_http2: bool) -> Option<Cluster> {
    let (host, port) = parse_address(address)?;
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(message::socket_address(host, port)),
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut cluster = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::StrictDns.into())),
        connect_timeout: Some(message::duration(cx.world.mesh().connect_timeout)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    };
    if speaks_http2 {
        let protocol = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
        let options = HttpProtocolOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(protocol),
            })),
            ..Default::default()
        };
        let key = HttpProtocolOptions::full_name();
        cluster.typed_extension_protocol_options.insert(key, message::typed(&options));
    }
    Some(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(parse_address("zipkin.istio-system:9411"), Some(("zipkin.istio-system", 9411)));
        assert_eq!(parse_address("[::1]:9411"), Some(("::1", 9411)));
        for text in ["zipkin", ":9411", "zipkin:0", "zipkin:http", "$(HOST_IP):9411", "zipkin:$PORT"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
