//! What do Telemetry objects, and the mesh's settings for proxies, change in connection managers, TCP proxies and
//! listeners?
#![allow(clippy::unwrap_used)]

mod envoy;
mod findings;
mod headers;
mod logs;
#[path = "../mesh/mod.rs"]
mod mesh;
mod metrics;
mod traces;

use lateen_compile::{Interception, Mesh, Scope, World, compile};
use lateen_config::SourceFile;
use lateen_xds::XdsSet;
use lateen_xds::any::{self, unpack};
use lateen_xds::envoy::config::accesslog::v3::{AccessLog, access_log};
use lateen_xds::envoy::config::core::v3::grpc_service;
use lateen_xds::envoy::config::listener::v3::{Listener, filter};
use lateen_xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use mesh::*;

/// Settings of the mesh from their YAML.
fn settings(yaml: &str) -> Mesh {
    let (config, problems) = lateen_config::parse_mesh(&SourceFile::new("mesh.yaml", yaml));
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:#?}");
    Mesh::from_config(&config.unwrap())
}

fn telemetry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A gateway, and a service of HTTP and one of bytes, for clients and for a workload `app: shop` of namespace `default`.
fn shop() -> String {
    "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: observability}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 4317}, {name: http, port: 9411}]}
"
    .to_owned()
}

/// The mesh has a provider of each kind.
const PROVIDERS: &str = "
accessLogFile: /dev/stderr
extensionProviders:
- {name: plain, envoyFileAccessLog: {path: /dev/plain}}
- {name: own-text, envoyFileAccessLog: {path: /dev/text, logFormat: {text: '%REQ_WITHOUT_QUERY(:PATH)%'}, omitEmptyValues: true}}
- {name: labels, envoyFileAccessLog: {logFormat: {labels: {status: '%RESPONSE_CODE%'}}}}
- {name: http-als, envoyHttpAls: {service: collector.observability.svc.cluster.local, port: 4317, additionalRequestHeadersToLog: [x-a]}}
- {name: tcp-als, envoyTcpAls: {service: observability/collector.observability.svc.cluster.local, port: 4317, logName: mine}}
- {name: otel-als, envoyOtelAls: {service: collector.observability.svc.cluster.local, port: 4317, logFormat: {labels: {b: '2', a: '%PROTOCOL%'}}}}
- {name: nowhere, envoyHttpAls: {service: missing.example.com, port: 4317}}
- {name: zip, zipkin: {service: collector.observability.svc.cluster.local, port: 9411, maxTagLength: 64}}
- {name: zip-http, zipkin: {service: collector.observability.svc.cluster.local, port: 9411, enable64bitTraceId: true, path: /spans, timeout: 2s, headers: [{name: x-key, value: v}]}}
- {name: otel, opentelemetry: {service: collector.observability.svc.cluster.local, port: 4317, resourceDetectors: {environment: {}}}}
- {name: otel-http, opentelemetry: {service: collector.observability.svc.cluster.local, port: 9411, http: {path: /v1/traces}}}
";

fn shop_world(mesh: &str, telemetries: &[String]) -> World {
    world_with(&(shop() + &telemetries.concat()), settings(mesh))
}

fn sidecar_of_shop() -> Scope {
    let mut scope = sidecar_scope("default", &[("app", "shop"), ("version", "v1")]);
    scope.interception = Interception::Redirect;
    scope
}

fn listener<'a>(set: &'a XdsSet, name: &str) -> &'a Listener {
    let known: Vec<_> = set.listeners.keys().collect();
    &set.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} among {known:?}")).message
}

fn managers(listener: &Listener) -> Vec<HttpConnectionManager> {
    filters_of(listener)
}

fn filters_of<M: prost::Name + Default>(listener: &Listener) -> Vec<M> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match filter.config_type.as_ref()? {
            filter::ConfigType::TypedConfig(config) if any::is::<M>(config) => Some(unpack(config).unwrap()),
            _ => None,
        })
        .collect()
}

/// The connection manager for what a workload sends, for what it gets, and of a gateway.
fn three(world: &World) -> [HttpConnectionManager; 3] {
    let sidecar = compile(world, &sidecar_of_shop());
    let gateway = compile(world, &Scope::gateway("istio-system"));
    [
        managers(listener(&sidecar, "0.0.0.0_80")).remove(0),
        managers(listener(&sidecar, "virtualInbound"))
            .into_iter()
            .find(|manager| manager.stat_prefix == "inbound_0.0.0.0_8080;")
            .unwrap(),
        managers(listener(&gateway, "0.0.0.0_80")).remove(0),
    ]
}

fn typed_config(log: &AccessLog) -> &prost_types::Any {
    let Some(access_log::ConfigType::TypedConfig(config)) = &log.config_type else { panic!("no configuration") };
    config
}

/// Paths of file loggers, names of others.
fn targets(logs: &[AccessLog]) -> Vec<String> {
    let name = |log: &AccessLog| match unpack::<FileAccessLog>(typed_config(log)) {
        Ok(file) => file.path,
        Err(_) => log.name.clone(),
    };
    logs.iter().map(name).collect()
}

fn access_logging(spec: &str) -> String {
    format!("{{accessLogging: {spec}}}")
}

const COLLECTOR: &str = "outbound|4317||collector.observability.svc.cluster.local";

fn grpc_cluster(service: Option<&lateen_xds::envoy::config::core::v3::GrpcService>) -> String {
    match service.unwrap().target_specifier.as_ref().unwrap() {
        grpc_service::TargetSpecifier::EnvoyGrpc(envoy) => envoy.cluster_name.clone(),
        other => panic!("{other:?}"),
    }
}

/// No logs anywhere.
fn nowhere() -> [Vec<String>; 3] {
    [Vec::new(), Vec::new(), Vec::new()]
}

/// Where the access logs of the three connection managers go.
fn three_targets(world: &World) -> [Vec<String>; 3] {
    three(world).map(|manager| targets(&manager.access_log))
}

fn all(target: &str) -> [Vec<String>; 3] {
    [(); 3].map(|()| vec![target.to_owned()])
}
