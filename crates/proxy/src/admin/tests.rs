//! Answers of the whole table of commands, compared with what Envoy 1.40 printed for the same configuration.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use lateen_telemetry::admin::{Method, PLAIN, Query};
use lateen_xds::envoy::config::core::v3::Node;
use serde_json::{Value, json};

use super::*;
use crate::snapshot::build::Builder;
use crate::snapshot::route::Priority;

struct Fixed {
    stats: Arc<Registry>,
    started: Instant,
    config: Accepted,
    clusters: Vec<Arc<Cluster>>,
    state: RefCell<State>,
    orders: RefCell<Vec<Order>>,
}

impl AdminSource for Fixed {
    fn stats(&self) -> &Registry {
        &self.stats
    }

    fn state(&self) -> State {
        *self.state.borrow()
    }

    fn started(&self) -> Instant {
        self.started
    }

    fn bootstrap(&self) -> Bootstrap {
        let node = Node { id: "n1".into(), cluster: "c1".into(), ..Node::default() };
        Bootstrap { node: Some(node), ..Bootstrap::default() }
    }

    fn config(&self) -> Accepted {
        self.config.clone()
    }

    fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.clusters.clone()
    }

    fn listeners(&self) -> Vec<(Arc<str>, SocketAddr)> {
        vec![("0.0.0.0_80".into(), "127.0.0.1:29980".parse().unwrap())]
    }

    fn command(&self, order: Order) {
        self.orders.borrow_mut().push(order);
    }
}

/// The configuration that Envoy was given: a listener with RDS, an EDS cluster with hosts of every health.
fn set() -> XdsSet {
    let host = |port: u16, health: &str, weight: u32| {
        json!({
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "health_status": health, "load_balancing_weight": weight
        })
    };
    let mut set = XdsSet::default();
    let cluster = json!({
        "name": "outbound|80||a.b", "alt_stat_name": "outbound|80||a.b;", "type": "EDS",
        "eds_cluster_config": {"service_name": "svc-a", "eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", "max_requests": 2, "track_remaining": true}]}
    });
    set.insert::<lateen_xds::envoy::config::cluster::v3::Cluster>(lateen_xds::json::parse(cluster).unwrap(), vec![]);
    let assignment = json!({
        "cluster_name": "svc-a",
        "endpoints": [
            {"locality": {"region": "r", "zone": "z"}, "lb_endpoints": [
                host(29981, "HEALTHY", 1), host(29982, "UNHEALTHY", 1), host(29983, "DRAINING", 1),
                host(29984, "DEGRADED", 7)
            ]},
            {"priority": 1, "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 29985}}}}
            ]}
        ]
    });
    set.insert::<lateen_xds::envoy::config::endpoint::v3::ClusterLoadAssignment>(
        lateen_xds::json::parse(assignment).unwrap(),
        vec![],
    );
    let manager = |routes: Value| {
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "p80",
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
        });
        manager.as_object_mut().unwrap().extend(routes.as_object().unwrap().clone());
        json!([{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}])
    };
    let socket = |port| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let rds = json!({"rds": {"route_config_name": "http.80",
                             "config_source": {"ads": {}, "resource_api_version": "V3"}}});
    let inline = json!({"route_config": {"name": "inline"}});
    for (name, port, routes) in [("0.0.0.0_80", 29980, rds), ("inline", 29979, inline)] {
        let listener = json!({"name": name, "address": socket(port), "filter_chains": manager(routes)});
        set.insert::<lateen_xds::envoy::config::listener::v3::Listener>(
            lateen_xds::json::parse(listener).unwrap(),
            vec![],
        );
    }
    let routes = json!({"name": "http.80", "virtual_hosts": [{"name": "vh", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "outbound|80||a.b"}}]}]});
    set.insert::<lateen_xds::envoy::config::route::v3::RouteConfiguration>(
        lateen_xds::json::parse(routes).unwrap(),
        vec![],
    );
    set
}

fn source() -> Rc<Fixed> {
    let stats = Arc::new(Registry::new(1));
    let set = set();
    let (snapshot, rejections) = Builder::new(stats.clone()).build(&set);
    assert!(rejections.is_empty(), "{rejections:?}");
    let updates = Updates::default().after(&set, UNIX_EPOCH + Duration::from_micros(1_795_478_882_799_123));
    Rc::new(Fixed {
        stats,
        started: Instant::now(),
        config: Accepted { set, updates: Arc::new(updates) },
        clusters: snapshot.clusters.iter().flatten().cloned().collect(),
        state: RefCell::new(State::Live),
        orders: RefCell::default(),
    })
}

fn ask(source: &Rc<Fixed>, method: Method, target: &str) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    commands(source.clone()).answer(&Request { method, path: path.into(), query: Query::parse(query) })
}

fn get(source: &Rc<Fixed>, target: &str) -> Answer {
    ask(source, Method::GET, target)
}

fn get_json(source: &Rc<Fixed>, target: &str) -> Value {
    let answer = get(source, target);
    assert_eq!((answer.status, answer.content_type), (StatusCode::OK, "application/json"), "{target}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn clusters_are_told_as_envoy_told_the_same_ones() {
    let source = source();
    let state = &source.clusters[0].endpoints.hosts[0].state;
    state.active_connections.store(1, Ordering::Relaxed);
    state.connections.store(3, Ordering::Relaxed);
    state.errors.store(3, Ordering::Relaxed);
    state.successes.store(2, Ordering::Relaxed);
    state.requests.store(5, Ordering::Relaxed);
    let text = get(&source, "/clusters").body;
    let head = "outbound|80||a.b::observability_name::outbound|80||a.b;\n\
        outbound|80||a.b::default_priority::max_connections::1024\n\
        outbound|80||a.b::default_priority::max_pending_requests::1024\n\
        outbound|80||a.b::default_priority::max_requests::2\n\
        outbound|80||a.b::default_priority::max_retries::3\n\
        outbound|80||a.b::high_priority::max_connections::1024\n\
        outbound|80||a.b::high_priority::max_pending_requests::1024\n\
        outbound|80||a.b::high_priority::max_requests::1024\n\
        outbound|80||a.b::high_priority::max_retries::3\n\
        outbound|80||a.b::added_via_api::true\n\
        outbound|80||a.b::eds_service_name::svc-a\n\
        outbound|80||a.b::127.0.0.1:29981::cx_active::1\n\
        outbound|80||a.b::127.0.0.1:29981::cx_connect_fail::0\n\
        outbound|80||a.b::127.0.0.1:29981::cx_total::3\n\
        outbound|80||a.b::127.0.0.1:29981::rq_active::0\n\
        outbound|80||a.b::127.0.0.1:29981::rq_error::3\n\
        outbound|80||a.b::127.0.0.1:29981::rq_pending_active::0\n\
        outbound|80||a.b::127.0.0.1:29981::rq_success::2\n\
        outbound|80||a.b::127.0.0.1:29981::rq_timeout::0\n\
        outbound|80||a.b::127.0.0.1:29981::rq_total::5\n\
        outbound|80||a.b::127.0.0.1:29981::hostname::\n\
        outbound|80||a.b::127.0.0.1:29981::health_flags::healthy\n\
        outbound|80||a.b::127.0.0.1:29981::weight::1\n\
        outbound|80||a.b::127.0.0.1:29981::region::r\n\
        outbound|80||a.b::127.0.0.1:29981::zone::z\n\
        outbound|80||a.b::127.0.0.1:29981::sub_zone::\n\
        outbound|80||a.b::127.0.0.1:29981::canary::false\n\
        outbound|80||a.b::127.0.0.1:29981::priority::0\n\
        outbound|80||a.b::127.0.0.1:29981::success_rate::-1\n\
        outbound|80||a.b::127.0.0.1:29981::local_origin_success_rate::-1\n";
    assert!(text.starts_with(head), "{text}");
    let flags: Vec<_> = text.lines().filter_map(|line| line.split_once("::health_flags::")).collect();
    assert_eq!(
        flags,
        [
            ("outbound|80||a.b::127.0.0.1:29981", "healthy"),
            ("outbound|80||a.b::127.0.0.1:29982", "/failed_eds_health"),
            ("outbound|80||a.b::127.0.0.1:29983", "/eds_status_draining"),
            ("outbound|80||a.b::127.0.0.1:29984", "/degraded_eds_health"),
            ("outbound|80||a.b::127.0.0.1:29985", "healthy"),
        ]
    );
    assert_eq!(get(&source, "/clusters?filter=b1").body, "");
    assert_eq!(get(&source, "/clusters?filter=a.b").body, text);
    assert_eq!(get(&source, "/clusters?filter=("), Answer::error(StatusCode::BAD_REQUEST, "Invalid re2 regex"));
}

#[test]
fn clusters_as_json_have_envoys_members() {
    let source = source();
    source.clusters[0].endpoints.hosts[3].state.requests.store(5, Ordering::Relaxed);
    let clusters = get_json(&source, "/clusters?format=json");
    let cluster = &clusters["cluster_statuses"][0];
    assert_eq!(cluster["name"], "outbound|80||a.b");
    assert_eq!(cluster["added_via_api"], true);
    assert_eq!(cluster["observability_name"], "outbound|80||a.b;");
    assert_eq!(cluster["eds_service_name"], "svc-a");
    assert_eq!(
        cluster["circuit_breakers"]["thresholds"],
        json!([
            {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 2, "max_retries": 3},
            {"priority": "HIGH", "max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024,
             "max_retries": 3}
        ])
    );
    assert_eq!(
        cluster["host_statuses"][3],
        json!({
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 29984}},
            "stats": [
                {"name": "cx_connect_fail"}, {"name": "cx_total"}, {"name": "rq_error"}, {"name": "rq_success"},
                {"name": "rq_timeout"}, {"name": "rq_total", "value": "5"}, {"name": "cx_active", "type": "GAUGE"},
                {"name": "rq_active", "type": "GAUGE"}, {"name": "rq_pending_active", "type": "GAUGE"}
            ],
            "health_status": {"eds_health_status": "DEGRADED"},
            "weight": 7,
            "locality": {"region": "r", "zone": "z"}
        })
    );
    assert_eq!(cluster["host_statuses"][4]["priority"], 1);
    assert_eq!(cluster["host_statuses"][4]["locality"], json!({}));
}

#[test]
fn listeners_are_lines_or_json() {
    let source = source();
    assert_eq!(get(&source, "/listeners"), Answer::text("0.0.0.0_80::127.0.0.1:29980\n"));
    assert_eq!(
        get(&source, "/listeners?format=json"),
        Answer::json(
            "{\n \"listener_statuses\": [\n  {\n   \"name\": \"0.0.0.0_80\",\n   \"local_address\": {\n    \
             \"socket_address\": {\n     \"address\": \"127.0.0.1\",\n     \"port_value\": 29980\n    }\n   }\n  }\n \
             ]\n}\n"
        )
    );
}

#[test]
fn the_whole_configuration_is_dumped_in_envoys_order() {
    let source = source();
    let dump = get_json(&source, "/config_dump");
    let types: Vec<_> = dump["configs"].as_array().unwrap().iter().map(|config| config["@type"].as_str()).collect();
    let expected = ["Bootstrap", "Clusters", "Listeners", "ScopedRoutes", "Routes", "Secrets"]
        .map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump"));
    assert_eq!(types, expected.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>());
    assert_eq!(dump["configs"][0]["bootstrap"]["node"], json!({"id": "n1", "cluster": "c1"}));
    let clusters = &dump["configs"][1];
    let set = &source.config.set;
    assert_eq!(clusters["version_info"], set.version(lateen_xds::ResourceType::Cluster).to_string());
    let cluster = &clusters["dynamic_active_clusters"][0];
    assert_eq!(cluster["version_info"], set.clusters["outbound|80||a.b"].version.to_string());
    assert_eq!(cluster["last_updated"], "2026-11-24T00:08:02.799Z");
    assert_eq!(cluster["cluster"]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert_eq!(cluster["cluster"]["name"], "outbound|80||a.b");
    let listener = &dump["configs"][2]["dynamic_listeners"][0];
    assert_eq!(listener["name"], "0.0.0.0_80");
    assert_eq!(listener["active_state"]["listener"]["name"], "0.0.0.0_80");
    let routes = &dump["configs"][4];
    assert_eq!(routes["dynamic_route_configs"][0]["route_config"]["name"], "http.80");
    assert_eq!(routes["static_route_configs"][0]["route_config"]["name"], "inline");
    assert_eq!(get_json(&source, "/config_dump?resource=&mask=&name_regex="), dump);
}

#[test]
fn endpoints_are_dumped_when_asked_for_with_envoys_defaults() {
    let source = source();
    let dump = get_json(&source, "/config_dump?include_eds");
    let endpoints = &dump["configs"][2];
    assert_eq!(endpoints["@type"], "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump");
    let config = &endpoints["dynamic_endpoint_configs"][0]["endpoint_config"];
    assert_eq!(config["cluster_name"], "svc-a");
    assert_eq!(config["policy"], json!({"overprovisioning_factor": 140}));
    let health: Vec<_> = config["endpoints"][0]["lb_endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["health_status"].as_str().unwrap())
        .collect();
    assert_eq!(health, ["HEALTHY", "UNHEALTHY", "UNHEALTHY", "DEGRADED"]);
    assert_eq!(
        config["endpoints"][1],
        json!({
            "locality": {},
            "lb_endpoints": [{
                "endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 29985}},
                    "health_check_config": {}
                },
                "health_status": "HEALTHY",
                "load_balancing_weight": 1
            }],
            "load_balancing_weight": 0,
            "priority": 1
        })
    );
}

#[test]
fn one_resource_its_fields_and_names_can_be_chosen() {
    let source = source();
    let one = json!({"configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
        "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "outbound|80||a.b"}
    }]});
    assert_eq!(get_json(&source, "/config_dump?resource=dynamic_active_clusters&mask=cluster.name"), one);
    let by_name = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name&name_regex=outbound.*|x";
    assert_eq!(get_json(&source, by_name), one);
    for nothing in [
        "/config_dump?resource=dynamic_active_clusters&name_regex=outbound",
        "/config_dump?resource=static_clusters",
        "/config_dump?resource=dynamic_warming_secrets&mask=anything",
    ] {
        assert_eq!(get(&source, nothing), Answer::json("{}\n"), "{nothing}");
    }
    let versions = get_json(&source, "/config_dump?mask=version_info");
    let types: Vec<_> = versions["configs"].as_array().unwrap().iter().map(|config| &config["@type"]).collect();
    assert_eq!(
        types,
        [
            "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"
        ]
    );
    let routes = get_json(&source, "/config_dump?mask=dynamic_route_configs");
    assert_eq!(routes["configs"].as_array().unwrap().len(), 1);
    assert_eq!(routes["configs"][0]["static_route_configs"], Value::Null);
}

#[test]
fn a_choice_that_fits_nothing_is_explained_as_by_envoy() {
    let source = source();
    for (target, status, text) in [
        ("resource=bogus", 404, "bogus not found in config dump"),
        ("resource=dynamic_endpoint_configs", 404, "dynamic_endpoint_configs not found in config dump"),
        (
            "resource=bootstrap&mask=node.id",
            400,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
        ("mask=bogus", 400, "FieldMask bogus could not be successfully applied to any configs."),
        (
            "resource=dynamic_active_clusters&mask=cluster.name,cluster.bogus",
            400,
            "FieldMask paths: \"cluster.name\"\npaths: \"cluster.bogus\"\n could not be successfully used.",
        ),
        (
            "resource=dynamic_listeners&mask=active_state.listener.name",
            400,
            "FieldMask paths: \"active_state.listener.name\"\n could not be successfully used.",
        ),
        ("name_regex=(", 400, "INVALID_ARGUMENT: Error while parsing name_regex from (: unclosed group"),
        ("name_regex=a)(b", 400, "INVALID_ARGUMENT: Error while parsing name_regex from a)(b: unopened group"),
    ] {
        let answer = get(&source, &format!("/config_dump?{target}"));
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, text), "{target}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let mut source = source();
    let secret = json!({"name": "s", "tls_certificate": {
        "certificate_chain": {"inline_string": "public"}, "private_key": {"inline_string": "PRIVATE"}}});
    let secret: lateen_xds::envoy::extensions::transport_sockets::tls::v3::Secret =
        lateen_xds::json::parse(secret).unwrap();
    Rc::get_mut(&mut source).unwrap().config.set.insert(secret, vec![]);
    let answer = get(&source, "/config_dump").body;
    assert!(answer.contains("public") && !answer.contains("PRIVATE"), "{answer}");
}

#[test]
fn readiness_is_the_state() {
    let source = source();
    assert_eq!(get(&source, "/ready"), Answer::text("LIVE\n"));
    for state in [State::Draining, State::PreInitializing, State::Initializing] {
        *source.state.borrow_mut() = state;
        let expected = Answer::error(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", state.name()));
        assert_eq!(get(&source, "/ready"), expected);
        let info = get_json(&source, "/server_info");
        assert_eq!(info["state"], state.name());
        let text = get(&source, "/stats?filter=^server.(state|live)$").body;
        assert_eq!(text, format!("server.live: 0\nserver.state: {}\n", state as u64));
    }
}

#[test]
fn server_info_names_version_options_and_node() {
    let source = source();
    let info = get_json(&source, "/server_info");
    assert_eq!(info["version"].as_str().unwrap().split('/').count(), 5);
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'));
    assert_eq!(info["command_line_options"]["concurrency"], 1);
    assert_eq!(info["node"], json!({"id": "n1", "cluster": "c1"}));
}

#[test]
fn orders_need_post_and_are_passed_on() {
    let source = source();
    let orders = [
        ("/healthcheck/fail", Order::FailHealthChecks),
        ("/healthcheck/ok", Order::PassHealthChecks),
        ("/drain_listeners?inboundonly", Order::DrainListeners { inbound_only: true }),
        ("/reopen_logs", Order::ReopenLogs),
        ("/quitquitquit", Order::Quit),
    ];
    for (target, _) in orders {
        let refused = get(&source, target);
        assert_eq!((refused.status, refused.content_type), (StatusCode::METHOD_NOT_ALLOWED, PLAIN));
        assert_eq!(refused.body, "Method GET not allowed, POST required.");
    }
    assert!(source.orders.borrow().is_empty());
    for (target, _) in orders {
        assert_eq!(ask(&source, Method::POST, target), Answer::text("OK\n"), "{target}");
    }
    assert_eq!(*source.orders.borrow(), orders.map(|(_, order)| order));
    assert_eq!(ask(&source, Method::POST, "/drain_listeners?graceful").status, StatusCode::NOT_IMPLEMENTED);
}

#[test]
fn statistics_come_as_text_json_and_prometheus() {
    let source = source();
    let cluster = source.stats.cluster("outbound|80||a.b;");
    cluster.worker(0).count_response(200, false);
    cluster.worker(0).upstream_rq_total.inc();
    let filter = "filter=a.b;.*(upstream_rq_(200|total|2xx)|membership)";
    let text = "cluster.outbound|80||a.b;.external.upstream_rq_200: 1\n\
                cluster.outbound|80||a.b;.external.upstream_rq_2xx: 1\n\
                cluster.outbound|80||a.b;.membership_change: 0\n\
                cluster.outbound|80||a.b;.membership_degraded: 1\n\
                cluster.outbound|80||a.b;.membership_excluded: 1\n\
                cluster.outbound|80||a.b;.membership_healthy: 2\n\
                cluster.outbound|80||a.b;.membership_total: 5\n\
                cluster.outbound|80||a.b;.upstream_rq_200: 1\n\
                cluster.outbound|80||a.b;.upstream_rq_2xx: 1\n\
                cluster.outbound|80||a.b;.upstream_rq_total: 1\n";
    assert_eq!(get(&source, &format!("/stats?{filter}")), Answer::text(text));
    let used: String = text.lines().filter(|line| !line.contains("_change")).map(|line| format!("{line}\n")).collect();
    assert_eq!(get(&source, &format!("/stats?{filter}&usedonly")).body, used);
    let gauges = get(&source, &format!("/stats?{filter}&type=Gauges")).body;
    assert_eq!(gauges.lines().count(), 4, "{gauges}");
    assert_eq!(
        get(&source, "/stats?format=json&filter=upstream_rq_200"),
        Answer::json(
            "{\"stats\":[{\"name\":\"cluster.outbound|80||a.b;.external.upstream_rq_200\",\"value\":1},\
             {\"name\":\"cluster.outbound|80||a.b;.upstream_rq_200\",\"value\":1}]}"
        )
    );
    let prometheus = Answer::text(
        "# TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"outbound|80||a.b\"} 1\n\
         # TYPE envoy_cluster_upstream_rq_total counter\n\
         envoy_cluster_upstream_rq_total{envoy_cluster_name=\"outbound|80||a.b\"} 1\n",
    );
    let filter = "filter=;.upstream_rq_(200|total)$";
    assert_eq!(get(&source, &format!("/stats/prometheus?{filter}")), prometheus);
    assert_eq!(get(&source, &format!("/stats?format=prometheus&{filter}")), prometheus);
    assert_eq!(get(&source, "/stats?filter=.&invert_filter").body, "");
    let page = get(&source, "/stats?format=html");
    assert!(page.content_type.starts_with("text/html") && page.body.contains("a.b;.upstream_rq_200: 1\n"));
}

#[test]
fn parameters_of_statistics_that_make_no_sense_are_refused_as_by_envoy() {
    let source = source();
    for (target, text) in [
        ("/stats?format=bogus", "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
        ("/stats?type=bogus", "invalid &type= param"),
        ("/stats?type=gauges", "invalid &type= param"),
        ("/stats?filter=(", "Invalid re2 regex: unclosed group"),
        ("/stats?histogram_buckets=prometheusnative", "Invalid histogram_buckets type for non prometheus stats type"),
        ("/stats?format=prometheus&histogram_buckets=disjoint", "unsupported prometheus histogram bucket mode"),
        ("/stats/prometheus?histogram_buckets=detailed", "unsupported prometheus histogram bucket mode"),
        ("/stats?histogram_buckets=x", "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n"),
    ] {
        assert_eq!(get(&source, target), Answer::error(StatusCode::BAD_REQUEST, text), "{target}");
    }
}

#[test]
fn a_filter_that_would_take_much_memory_is_refused() {
    let answer = get(&source(), "/stats?filter=(a{1000}){1000}");
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.starts_with("Invalid re2 regex: "), "{}", answer.body);
}

#[test]
fn circuit_breakers_show_what_is_left_where_that_is_tracked() {
    let source = source();
    let breaker = source.clusters[0].breakers.of(Priority::Default);
    for first in [true, false, false] {
        breaker.open_connection(first);
    }
    let one = breaker.admit_request(Instant::now);
    let shown = || get(&source, "/stats?filter=circuit_breakers.*(rq_open|remaining)").body;
    let name = "cluster.outbound|80||a.b;.circuit_breakers";
    let lines = |open: u64, left: u64| {
        format!(
            "{name}.default.remaining_cx: 1021\n{name}.default.remaining_cx_pools: 18446744073709551615\n\
             {name}.default.remaining_pending: 1024\n{name}.default.remaining_retries: 3\n\
             {name}.default.remaining_rq: {left}\n{name}.default.rq_open: {open}\n{name}.high.rq_open: 0\n"
        )
    };
    assert_eq!(shown(), lines(0, 1));
    let other = breaker.admit_request(Instant::now);
    assert_eq!(shown(), lines(1, 0));
    drop((one, other));
    assert_eq!(shown(), lines(0, 2));
}

#[test]
fn counters_are_reset_by_post() {
    let source = source();
    let cluster = source.stats.cluster("outbound|80||a.b;");
    cluster.worker(0).upstream_rq_total.add(7);
    assert_eq!(ask(&source, Method::POST, "/reset_counters"), Answer::text("OK\n"));
    let text = get(&source, "/stats?filter=upstream_rq_total").body;
    assert_eq!(text, "cluster.outbound|80||a.b;.upstream_rq_total: 0\n");
}

#[test]
fn no_name_comes_twice() {
    let source = source();
    let _http = source.stats.http("p80");
    let _listener = source.stats.listener("127.0.0.1:80".parse().unwrap(), None);
    source.stats.server.cds.record_accepted("1", UNIX_EPOCH);
    let text = get(&source, "/stats").body;
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(names.iter().all(|name| !name.contains("..")));
}

#[test]
fn every_command_answers_and_the_rest_is_404() {
    let source = source();
    let help = get(&source, "/help").body;
    let paths = help.lines().filter_map(|line| line.strip_prefix("  /"));
    let paths: Vec<_> = paths.map(|line| line.split([':', ' ']).next().unwrap()).collect();
    for path in ["config_dump", "clusters", "listeners", "ready", "server_info", "stats", "stats/prometheus", "memory"]
    {
        assert!(paths.contains(&path), "{path}");
    }
    for path in paths {
        let answer = ask(&source, Method::POST, &format!("/{path}"));
        let fixed = ["runtime_modify", "logging"].contains(&path);
        assert_eq!(answer.status == StatusCode::OK, !fixed, "{path}: {}", answer.body);
    }
    for path in ["/nope", "/stats/", "/config_dump/"] {
        let answer = get(&source, path);
        assert_eq!(answer, Answer::error(StatusCode::NOT_FOUND, format!("invalid path. {help}")));
    }
}
