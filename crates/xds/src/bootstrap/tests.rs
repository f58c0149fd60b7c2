//! Is the bootstrap complete without a control plane, and is one read back as it was written?

use serde_json::json;

use super::*;
use crate::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::config::route::v3::RouteConfiguration;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;

const URL: &str = "type.googleapis.com/";

fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

/// A gateway: one listener (HTTP over TLS) whose routes, endpoints and certificate all come over ADS.
fn gateway() -> XdsSet {
    let mut set = XdsSet::default();
    let manager = json!({
        "@type": format!("{URL}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "https.443", "config_source": ads()},
        "http_filters": [{"name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{URL}envoy.extensions.filters.http.router.v3.Router")}}],
    });
    let tls = json!({
        "@type": format!("{URL}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "cert", "sds_config": ads()}]},
    });
    insert::<Listener>(
        &mut set,
        json!({
            "name": "0.0.0.0_443",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8443}},
            "filter_chains": [{
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }],
        }),
    );
    insert::<RouteConfiguration>(
        &mut set,
        json!({
            "name": "https.443",
            "virtual_hosts": [{"name": "shop", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "reviews"}}]}],
        }),
    );
    insert::<Cluster>(
        &mut set,
        json!({
            "name": "reviews", "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"service_name": "outbound|9080||reviews", "eds_config": ads()},
        }),
    );
    insert::<Cluster>(
        &mut set,
        json!({
            "name": "empty", "type": "EDS", "eds_cluster_config": {"eds_config": ads()},
        }),
    );
    insert::<ClusterLoadAssignment>(
        &mut set,
        json!({
            "cluster_name": "outbound|9080||reviews",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9081}}}}]}],
            "policy": {"endpoint_stale_after": "60s"},
        }),
    );
    insert::<Secret>(
        &mut set,
        json!({"name": "cert", "tls_certificate": {
        "certificate_chain": {"filename": "/certs/tls.crt"}, "private_key": {"filename": "/certs/tls.key"}}}),
    );
    set
}

fn insert<M: ResourceMessage>(set: &mut XdsSet, value: Value) {
    set.insert(json::parse::<M>(value).unwrap(), vec![]);
}

#[test]
fn routes_endpoints_and_secrets_become_static() {
    let options = BootstrapOptions {
        admin: Some(([127, 0, 0, 1], 15000).into()),
        node: Node { id: "gateway~1".into(), cluster: "gateway".into(), ..Node::default() },
    };
    let bootstrap = static_bootstrap(&gateway(), &options).unwrap();
    assert_eq!(bootstrap["node"], json!({"id": "gateway~1", "cluster": "gateway"}));
    assert_eq!(
        bootstrap["admin"],
        json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}})
    );

    let chain = &bootstrap["static_resources"]["listeners"][0]["filter_chains"][0];
    let manager = &chain["filters"][0]["typed_config"];
    assert!(manager.get("rds").is_none());
    assert_eq!(manager["route_config"]["name"], "https.443");
    assert_eq!(manager["route_config"]["virtual_hosts"][0]["name"], "shop");
    assert_eq!(manager["route_config"]["validate_clusters"], false);
    assert_eq!(manager["http_filters"].as_array().map(Vec::len), Some(1));
    let tls = &chain["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(tls, &json!({"tls_certificate_sds_secret_configs": [{"name": "cert"}]}));
    assert_eq!(bootstrap["static_resources"]["secrets"][0]["name"], "cert");

    let clusters = &bootstrap["static_resources"]["clusters"];
    assert_eq!(clusters[0]["load_assignment"], json!({"cluster_name": "empty"}));
    assert_eq!(clusters[1]["connect_timeout"], "1s");
    for cluster in clusters.as_array().unwrap() {
        // STATIC is the first value of the enumeration and so goes unwritten or by name.
        assert!(cluster.get("type").is_none_or(|kind| kind == "STATIC"), "{cluster}");
        assert!(cluster.get("eds_cluster_config").is_none(), "{cluster}");
    }
    let assignment = &clusters[1]["load_assignment"];
    assert_eq!(assignment["cluster_name"], "reviews");
    assert_eq!(assignment["policy"], json!({}));
    let address = &assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    assert_eq!(address["port_value"], 9081);
}

#[test]
fn equal_sets_give_equal_text() {
    let render = || static_bootstrap(&gateway(), &BootstrapOptions::default()).unwrap().to_string();
    assert_eq!(render(), render());
}

#[test]
fn a_missing_route_configuration_is_named_with_its_listener() {
    let mut set = gateway();
    set.routes.clear();
    let error = static_bootstrap(&set, &BootstrapOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "listener 0.0.0.0_443: there is no route configuration https.443");
}

#[test]
fn a_missing_secret_never_comes_and_stops_nothing_else() {
    let mut set = gateway();
    set.secrets.clear();
    let bootstrap = static_bootstrap(&set, &BootstrapOptions::default()).unwrap();
    let listener = &bootstrap["static_resources"]["listeners"][0];
    let tls = &listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(
        tls["tls_certificate_sds_secret_configs"],
        json!([{"name": "cert", "sds_config": {"path_config_source": {"path": "/dev/null"}, "resource_api_version": "V3"}}])
    );
    assert_eq!(bootstrap["node"], json!({"id": "lateen", "cluster": "lateen"}), "Envoy asks for a name then");
}

#[test]
fn what_comes_from_files_stays_as_it_is() {
    let mut set = XdsSet::default();
    let file = json!({"path_config_source": {"path": "/etc/endpoints.yaml"}});
    insert::<Cluster>(&mut set, json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": file}}));
    let bootstrap = static_bootstrap(&set, &BootstrapOptions::default()).unwrap();
    assert_eq!(
        bootstrap["static_resources"]["clusters"][0],
        json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": file}})
    );
}

#[test]
fn internal_listeners_bring_their_bootstrap_extension() {
    let mut set = XdsSet::default();
    insert::<Listener>(&mut set, json!({"name": "inner", "internal_listener": {}}));
    let bootstrap = static_bootstrap(&set, &BootstrapOptions::default()).unwrap();
    assert_eq!(bootstrap["bootstrap_extensions"][0]["name"], "envoy.bootstrap.internal_listener");
}

#[test]
fn a_static_bootstrap_is_read_back() {
    let bootstrap = static_bootstrap(&gateway(), &BootstrapOptions::default()).unwrap();
    let parsed = parse(&bootstrap.to_string(), None).unwrap();
    assert_eq!(parsed.set.clusters.keys().map(|name| &**name).collect::<Vec<_>>(), ["empty", "reviews"]);
    assert_eq!(parsed.set.secrets, {
        let mut expected = gateway().secrets;
        expected.values_mut().for_each(|secret| secret.origins = parsed.set.secrets["cert"].origins.clone());
        expected
    });
    // There is nothing left to inline.
    assert_eq!(static_bootstrap(&parsed.set, &BootstrapOptions::default()), Ok(bootstrap));
}

const YAML: &str = "
admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }
static_resources:
  listeners:
  - address: &local
      socket_address: { address: '::1', port_value: 10000 }
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: backend
  - name: second
    address: *local
  clusters:
  - name: backend
    connectTimeout: 0.25s
    type: STATIC
";

#[test]
fn static_resources_of_a_yaml_bootstrap_become_a_set() {
    let file: Arc<str> = "envoy.yaml".into();
    let ParsedBootstrap { bootstrap, set } = parse(YAML, Some(&file)).unwrap();
    assert!(bootstrap.admin.is_some());
    assert_eq!(bootstrap.static_resources, None);
    assert_eq!(set.listeners.keys().map(|name| &**name).collect::<Vec<_>>(), ["[::1]:10000", "second"]);
    assert_eq!(set.listeners["[::1]:10000"].message.name, "[::1]:10000");
    let origin = set.clusters["backend"].origin(Part::Whole).map(Origin::to_string);
    assert_eq!(origin.as_deref(), Some("Bootstrap static_resources.clusters[0] (envoy.yaml)"));
}

#[test]
fn errors_of_a_bootstrap_say_where() {
    let error = |text: &str| parse(text, None).unwrap_err().to_string();
    assert_eq!(error("static_resources: [\n"), error("static_resources: [\n"));
    assert!(error("{\"admin\": }").starts_with("1:"), "{}", error("{\"admin\": }"));
    assert_eq!(
        error(&YAML.replace("stat_prefix", "stats_prefix")),
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stats_prefix: \
         envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy has no such field"
    );
    assert_eq!(
        error(&YAML.replace("  - name: backend", "  - name: backend\n  - name: backend")),
        "two static resources are the cluster backend"
    );
}
