//! Which configuration is in use? `/config_dump`.

use std::time::SystemTime;

use lateen_telemetry::admin::{Answer, Request, StatusCode};
use lateen_xds::envoy::admin::v3 as admin_v3;
use lateen_xds::envoy::config::cluster::v3::Cluster;
use lateen_xds::envoy::config::core::v3 as core_v3;
use lateen_xds::envoy::config::endpoint::v3 as endpoint_v3;
use lateen_xds::envoy::config::listener::v3 as listener_v3;
use lateen_xds::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_v3;
use lateen_xds::json::JsonError;
use lateen_xds::{Resource, ResourceType, XdsSet, any};
use prost::Name;
use prost_types::Timestamp;
use regex::Regex;
use serde_json::{Value, json};

use super::mask::Mask;
use super::{Accepted, Source, json, regex, unwritable};

/// The repeated fields of the dump: the message that has it, the field, and the message of its elements.
const REPEATED: [(&str, &str, &str); 14] = [
    ("ClustersConfigDump", "static_clusters", "StaticCluster"),
    ("ClustersConfigDump", "dynamic_active_clusters", "DynamicCluster"),
    ("ClustersConfigDump", "dynamic_warming_clusters", "DynamicCluster"),
    ("EndpointsConfigDump", "static_endpoint_configs", "StaticEndpointConfig"),
    ("EndpointsConfigDump", "dynamic_endpoint_configs", "DynamicEndpointConfig"),
    ("ListenersConfigDump", "static_listeners", "StaticListener"),
    ("ListenersConfigDump", "dynamic_listeners", "DynamicListener"),
    ("ScopedRoutesConfigDump", "inline_scoped_route_configs", "InlineScopedRouteConfigs"),
    ("ScopedRoutesConfigDump", "dynamic_scoped_route_configs", "DynamicScopedRouteConfigs"),
    ("RoutesConfigDump", "static_route_configs", "StaticRouteConfig"),
    ("RoutesConfigDump", "dynamic_route_configs", "DynamicRouteConfig"),
    ("SecretsConfigDump", "static_secrets", "StaticSecret"),
    ("SecretsConfigDump", "dynamic_active_secrets", "DynamicSecret"),
    ("SecretsConfigDump", "dynamic_warming_secrets", "DynamicSecret"),
];

/// The fields of the dump that are not repeated.
const SINGLE: [&str; 3] = ["bootstrap", "last_updated", "version_info"];

pub(super) fn answer(source: &Source, request: &Request) -> Answer {
    let bad = |text: String| Answer::error(StatusCode::BAD_REQUEST, text);
    let given = |name: &str| request.query.get(name).filter(|value| !value.is_empty());
    let names = match given("name_regex") {
        // The whole name has to match.
        Some(pattern) => match regex(pattern).and_then(|_| regex(&format!(r"\A(?:{pattern})\z"))) {
            Ok(names) => Some(names),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return bad(format!("INVALID_ARGUMENT: Error while parsing name_regex from {pattern}: {reason}"));
            }
        },
        None => None,
    };
    let (mask_text, include_eds) = (given("mask").unwrap_or_default(), request.query.has("include_eds"));
    let configs = match configs(source, include_eds, names.as_ref()) {
        Ok(configs) => configs,
        Err(error) => return unwritable(&error),
    };
    let mask = Mask::parse(mask_text);
    let configs = match given("resource") {
        Some(resource) => match elements(&configs, resource, include_eds, mask.as_ref()) {
            Ok(elements) => elements,
            Err(answer) => return answer,
        },
        None => match &mask {
            Some(mask) => {
                let fitting = configs.iter().filter(|(name, config)| mask.fits(name, config));
                let masked: Vec<Value> = fitting.map(|(_, config)| mask.apply(config)).collect();
                if masked.is_empty() {
                    return bad(format!("FieldMask {mask_text} could not be successfully applied to any configs."));
                }
                masked
            }
            None => configs.into_iter().map(|(_, config)| config).collect(),
        },
    };
    let dump = if configs.is_empty() { json!({}) } else { json!({ "configs": configs }) };
    Answer::json(json::pretty(&dump))
}

/// The elements of one repeated field, each with its type, masked.
fn elements(
    configs: &[(String, Value)],
    resource: &str,
    include_eds: bool,
    mask: Option<&Mask>,
) -> Result<Vec<Value>, Answer> {
    let there = |config: &str| include_eds || config != "EndpointsConfigDump";
    let found = REPEATED.iter().find(|(config, field, _)| *field == resource && there(config));
    let Some((config, field, element)) = found else {
        return Err(if SINGLE.contains(&resource) {
            let text = format!("{resource} is not a repeated field. Use ?mask={resource} to get only this field");
            Answer::error(StatusCode::BAD_REQUEST, text)
        } else {
            Answer::error(StatusCode::NOT_FOUND, format!("{resource} not found in config dump"))
        });
    };
    let config = format!("envoy.admin.v3.{config}");
    let element = format!("{config}.{element}");
    let values = configs.iter().find(|(name, _)| *name == config).and_then(|(_, value)| value.get(field)?.as_array());
    let mut elements = Vec::new();
    for value in values.into_iter().flatten() {
        let mut value = value.clone();
        set_type(&mut value, &element);
        if let Some(mask) = mask {
            if !mask.fits(&element, &value) {
                let text = format!("FieldMask {} could not be successfully used.", mask.describe());
                return Err(Answer::error(StatusCode::BAD_REQUEST, text));
            }
            value = mask.apply(&value);
        }
        elements.push(value);
    }
    Ok(elements)
}

/// The dump's messages with their full names, in Envoy's order.
fn configs(source: &Source, include_eds: bool, names: Option<&Regex>) -> Result<Vec<(String, Value)>, JsonError> {
    let accepted = source.config();
    let dump = Dump { accepted: &accepted, names };
    let mut configs = vec![written(&admin_v3::BootstrapConfigDump {
        bootstrap: Some(source.bootstrap()),
        last_updated: accepted.updates.started().map(timestamp),
    })?];
    configs.push(written(&dump.clusters())?);
    if include_eds {
        configs.push(written(&dump.endpoints())?);
    }
    configs.push(written(&dump.listeners())?);
    configs.push(written(&admin_v3::ScopedRoutesConfigDump::default())?);
    configs.push(written(&dump.routes())?);
    configs.push(written(&dump.secrets())?);
    Ok(configs)
}

fn written<M: Name>(message: &M) -> Result<(String, Value), JsonError> {
    let mut value = lateen_xds::json::render_redacted(message)?;
    set_type(&mut value, &M::full_name());
    Ok((M::full_name(), value))
}

fn set_type(value: &mut Value, full_name: &str) {
    if let Value::Object(members) = value {
        members.insert("@type".into(), format!("type.googleapis.com/{full_name}").into());
    }
}

/// With milliseconds, as Envoy keeps it.
fn timestamp(time: SystemTime) -> Timestamp {
    let mut timestamp = Timestamp::from(time);
    timestamp.nanos -= timestamp.nanos % 1_000_000;
    timestamp
}

/// What is dumped.
struct Dump<'a> {
    accepted: &'a Accepted,
    names: Option<&'a Regex>,
}

impl Dump<'_> {
    fn set(&self) -> &XdsSet {
        &self.accepted.set
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_none_or(|names| names.is_match(name))
    }

    fn updated(&self, resource_type: ResourceType, name: &str) -> Option<Timestamp> {
        self.accepted.updates.time(resource_type, name).map(timestamp)
    }

    /// The version of all resources of a type; empty while there is none.
    fn version(&self, resource_type: ResourceType) -> String {
        let empty = self.set().versions(resource_type).is_empty();
        if empty { String::new() } else { self.set().version(resource_type).to_string() }
    }

    fn clusters(&self) -> admin_v3::ClustersConfigDump {
        let wanted = self.set().clusters.iter().filter(|(name, _)| self.wants(name));
        let clusters = wanted.map(|(name, cluster)| admin_v3::clusters_config_dump::DynamicCluster {
            version_info: cluster.version.to_string(),
            cluster: Some(any::pack(cluster.message.as_ref())),
            last_updated: self.updated(ResourceType::Cluster, name),
            ..Default::default()
        });
        admin_v3::ClustersConfigDump {
            version_info: self.version(ResourceType::Cluster),
            dynamic_active_clusters: clusters.collect(),
            ..Default::default()
        }
    }

    fn endpoints(&self) -> admin_v3::EndpointsConfigDump {
        let assignments = self.set().clusters.values().filter_map(|cluster| self.assignment(&cluster.message));
        let wanted = assignments.filter(|assignment| self.wants(&assignment.cluster_name));
        let configs = wanted.map(|assignment| admin_v3::endpoints_config_dump::DynamicEndpointConfig {
            endpoint_config: Some(any::pack(&assignment)),
            ..Default::default()
        });
        admin_v3::EndpointsConfigDump { dynamic_endpoint_configs: configs.collect(), ..Default::default() }
    }

    /// The endpoints of a cluster, with the values that Envoy puts where the configuration has none.
    fn assignment(&self, cluster: &Cluster) -> Option<endpoint_v3::ClusterLoadAssignment> {
        let mut assignment = match (&cluster.load_assignment, &cluster.eds_cluster_config) {
            (Some(assignment), _) => assignment.clone(),
            (None, Some(eds)) => {
                let name = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
                self.set().endpoints.get(name.as_str())?.message.as_ref().clone()
            }
            (None, None) => {
                let cluster_name = cluster.name.clone();
                endpoint_v3::ClusterLoadAssignment { cluster_name, ..Default::default() }
            }
        };
        assignment.policy.get_or_insert_default().overprovisioning_factor.get_or_insert(140);
        for locality in &mut assignment.endpoints {
            locality.locality.get_or_insert_default();
            locality.load_balancing_weight.get_or_insert(0);
            for endpoint in &mut locality.lb_endpoints {
                endpoint.load_balancing_weight.get_or_insert(1);
                endpoint.health_status = shown_health(endpoint.health_status).into();
                if let Some(endpoint_v3::lb_endpoint::HostIdentifier::Endpoint(host)) = &mut endpoint.host_identifier {
                    host.health_check_config.get_or_insert_default();
                }
            }
        }
        Some(assignment)
    }

    fn listeners(&self) -> admin_v3::ListenersConfigDump {
        let wanted = self.set().listeners.iter().filter(|(name, _)| self.wants(name));
        let listeners = wanted.map(|(name, listener)| admin_v3::listeners_config_dump::DynamicListener {
            name: name.to_string(),
            active_state: Some(admin_v3::listeners_config_dump::DynamicListenerState {
                version_info: listener.version.to_string(),
                listener: Some(any::pack(listener.message.as_ref())),
                last_updated: self.updated(ResourceType::Listener, name),
            }),
            ..Default::default()
        });
        admin_v3::ListenersConfigDump {
            version_info: self.version(ResourceType::Listener),
            dynamic_listeners: listeners.collect(),
            ..Default::default()
        }
    }

    fn routes(&self) -> admin_v3::RoutesConfigDump {
        let wanted = self.set().routes.iter().filter(|(name, _)| self.wants(name));
        let dynamic = wanted.map(|(name, routes)| admin_v3::routes_config_dump::DynamicRouteConfig {
            version_info: routes.version.to_string(),
            route_config: Some(any::pack(routes.message.as_ref())),
            last_updated: self.updated(ResourceType::Route, name),
            ..Default::default()
        });
        let of_listeners = self
            .set()
            .listeners
            .iter()
            .flat_map(|(name, listener)| inline_routes(listener).into_iter().map(move |routes| (name, routes)));
        let wanted = of_listeners.filter(|(_, routes)| self.wants(&routes.name));
        let inline = wanted.map(|(listener, routes)| admin_v3::routes_config_dump::StaticRouteConfig {
            route_config: Some(any::pack(&routes)),
            last_updated: self.updated(ResourceType::Listener, listener),
        });
        admin_v3::RoutesConfigDump { static_route_configs: inline.collect(), dynamic_route_configs: dynamic.collect() }
    }

    fn secrets(&self) -> admin_v3::SecretsConfigDump {
        let wanted = self.set().secrets.iter().filter(|(name, _)| self.wants(name));
        let secrets = wanted.map(|(name, secret)| admin_v3::secrets_config_dump::DynamicSecret {
            name: name.to_string(),
            version_info: secret.version.to_string(),
            last_updated: self.updated(ResourceType::Secret, name),
            secret: Some(any::pack(secret.message.as_ref())),
            ..Default::default()
        });
        admin_v3::SecretsConfigDump { dynamic_active_secrets: secrets.collect(), ..Default::default() }
    }
}

/// The health that Envoy makes of the configured one.
fn shown_health(configured: i32) -> core_v3::HealthStatus {
    use core_v3::HealthStatus;
    match HealthStatus::try_from(configured).unwrap_or_default() {
        HealthStatus::Unknown | HealthStatus::Healthy => HealthStatus::Healthy,
        HealthStatus::Degraded => HealthStatus::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => HealthStatus::Unhealthy,
    }
}

/// The route configurations that stand inside a listener's connection managers.
fn inline_routes(listener: &Resource<listener_v3::Listener>) -> Vec<RouteConfiguration> {
    let chains = listener.message.filter_chains.iter().chain(&listener.message.default_filter_chain);
    let managers = chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
        Some(listener_v3::filter::ConfigType::TypedConfig(config)) => {
            any::unpack::<hcm_v3::HttpConnectionManager>(config).ok()
        }
        _ => None,
    });
    let routes = managers.filter_map(|manager| match manager.route_specifier {
        Some(hcm_v3::http_connection_manager::RouteSpecifier::RouteConfig(routes)) => Some(routes),
        _ => None,
    });
    routes.collect()
}
