//! Does JSON come out as Envoy prints it, and does everything come back?

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::Any;
use serde_json::json;

use super::*;
use crate::any;
use crate::envoy::config::accesslog::v3::AccessLog;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::cluster::v3::cluster::LbPolicy;
use crate::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use crate::envoy::config::route::v3::{RouteAction, RouteConfiguration, VirtualHost};
use crate::envoy::extensions::filters::http::router::v3::Router;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;
use crate::envoy::r#type::v3::{FractionalPercent, Percent};

const URL: &str = "type.googleapis.com/";

/// A mesh-like bootstrap: messages in `Any` in messages in `Any`, enums, durations, wrappers, structs, maps.
fn mesh() -> Value {
    json!({
        "node": {"id": "sidecar~1", "cluster": "shop", "metadata": {"LABELS": {"app": "web"}, "LIST": [1, 0.5, true, null]}},
        "static_resources": {
            "listeners": [{
                "name": "0.0.0.0_80",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}},
                "traffic_direction": "OUTBOUND",
                "bind_to_port": false,
                "filter_chains": [{
                    "filter_chain_match": {"destination_port": 80, "application_protocols": ["http/1.1", "h2c"]},
                    "filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": format!("{URL}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                            "stat_prefix": "outbound",
                            "route_config": {
                                "name": "80",
                                "virtual_hosts": [{
                                    "name": "reviews",
                                    "domains": ["reviews", "*"],
                                    "routes": [{
                                        "match": {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]},
                                        "route": {
                                            "weighted_clusters": {"clusters": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 0}]},
                                            "timeout": "0s",
                                            "retry_policy": {"per_try_timeout": "0.250s", "num_retries": 2, "retriable_status_codes": [503, 429]},
                                        },
                                        "typed_per_filter_config": {
                                            "envoy.filters.http.fault": {
                                                "@type": format!("{URL}envoy.extensions.filters.http.fault.v3.HTTPFault"),
                                                "abort": {"http_status": 503, "percentage": {"numerator": 1, "denominator": "MILLION"}},
                                            },
                                        },
                                    }],
                                }],
                            },
                            "http_filters": [{
                                "name": "envoy.filters.http.router",
                                "typed_config": {"@type": format!("{URL}envoy.extensions.filters.http.router.v3.Router"), "start_child_span": true},
                            }],
                            "stream_idle_timeout": "0s",
                            "use_remote_address": false,
                            "upgrade_configs": [{"upgrade_type": "websocket"}],
                        },
                    }],
                }],
            }],
            "clusters": [{
                "name": "v1",
                "type": "STRICT_DNS",
                "connect_timeout": "10s",
                "lb_policy": "RING_HASH",
                "circuit_breakers": {"thresholds": [{"max_connections": 4294967295u32}]},
                "ring_hash_lb_config": {"minimum_ring_size": "1024"},
                "outlier_detection": {"base_ejection_time": "0.000001s"},
                "transport_socket_matches": [{"name": "tls", "match": {"tlsMode": "istio"}}],
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": format!("{URL}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                        "use_downstream_protocol_config": {"http_protocol_options": {}},
                    },
                },
            }],
            "secrets": [{"name": "inline", "generic_secret": {"secret": {"inline_bytes": "AP8="}}}],
        },
    })
}

fn percent(value: Value) -> Value {
    render(&parse::<Percent>(json!({ "value": value })).unwrap()).unwrap()
}

fn parse_error<M: Name + Default>(value: Value) -> String {
    parse::<M>(value).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_bootstrap_comes_back_as_it_was() {
    let bootstrap: Bootstrap = parse(mesh()).unwrap();
    let cluster = &bootstrap.static_resources.as_ref().unwrap().clusters[0];
    assert_eq!(cluster.lb_policy(), LbPolicy::RingHash);
    assert_eq!(render(&bootstrap).unwrap(), mesh());
}

#[test]
fn both_spellings_of_a_field_are_read() {
    let camel = json!({"name": "a", "connectTimeout": "1s", "loadAssignment": {"clusterName": "a"}});
    let snake = json!({"name": "a", "connect_timeout": "1s", "load_assignment": {"cluster_name": "a"}});
    assert_eq!(parse::<Cluster>(&camel), parse::<Cluster>(&snake));
    assert_eq!(render(&parse::<Cluster>(camel).unwrap()), Ok(snake));
}

#[test]
fn an_any_of_an_unknown_type_survives_as_base64() {
    let unknown = Any { type_url: "type.googleapis.com/stats.PluginConfig".into(), value: vec![0x0a, 0xff] };
    let filter = TypedExtensionConfig { name: "stats".into(), typed_config: Some(unknown) };
    let value = render(&filter).unwrap();
    assert_eq!(
        value,
        json!({"name": "stats", "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig", "value": "Cv8="}})
    );
    assert_eq!(parse::<TypedExtensionConfig>(value), Ok(filter));
}

#[test]
fn fields_of_an_unknown_type_cannot_be_read() {
    let value = json!({"name": "stats", "typed_config": {"@type": "x/stats.PluginConfig", "debug": "false"}});
    assert_eq!(
        parse_error::<TypedExtensionConfig>(value),
        "typed_config: the type x/stats.PluginConfig is not known, so `debug` cannot be read"
    );
}

#[test]
fn well_known_types_in_an_any_stand_under_value() {
    for (name, value) in [
        ("google.protobuf.Duration", json!("1.500s")),
        ("google.protobuf.Struct", json!({"a": [1, "b"]})),
        ("google.protobuf.UInt64Value", json!("7")),
        ("google.protobuf.Timestamp", json!("2026-01-31T12:00:00Z")),
        ("google.protobuf.Empty", json!({})),
        ("google.protobuf.Any", json!({"@type": format!("{URL}google.protobuf.BoolValue"), "value": true})),
    ] {
        let value = json!({"name": "x", "typed_config": {"@type": format!("{URL}{name}"), "value": value}});
        let message: TypedExtensionConfig = parse(&value).unwrap();
        assert_eq!(render(&message).unwrap(), value);
    }
}

#[test]
fn both_typed_structs_are_known() {
    for name in ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"] {
        let value = json!({"name": "wasm", "typed_config": {"@type": format!("{URL}{name}"),
            "type_url": "type.googleapis.com/stats.PluginConfig", "value": {"debug": "false"}}});
        assert_eq!(render(&parse::<TypedExtensionConfig>(&value).unwrap()), Ok(value));
    }
}

#[test]
fn json_encodes_to_the_bytes_of_the_typed_message() {
    let keys: Vec<String> = (0..40).map(|i| format!("filter.{i}")).collect();
    let per_filter: BTreeMap<String, Any> = keys
        .iter()
        .map(|key| (key.clone(), any::pack(&Router { start_child_span: true, ..Router::default() })))
        .collect();
    let action = RouteAction {
        // Their numbers are 1 and 29, so the order among the other fields matters.
        cluster_specifier: Some(ClusterSpecifier::ClusterHeader("x-cluster".into())),
        host_rewrite_specifier: Some(HostRewriteSpecifier::HostRewriteHeader("x-host".into())),
        timeout: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
        append_x_forwarded_host: true,
        ..RouteAction::default()
    };
    let host = VirtualHost {
        name: "host".into(),
        domains: vec!["*".into()],
        typed_per_filter_config: per_filter.clone(),
        ..VirtualHost::default()
    };
    let routes =
        RouteConfiguration { virtual_hosts: vec![host], typed_per_filter_config: per_filter, ..Default::default() };
    for packed in [any::pack(&action), any::pack(&routes)] {
        let config = TypedExtensionConfig { name: "x".into(), typed_config: Some(packed) };
        let again: TypedExtensionConfig = parse(render(&config).unwrap()).unwrap();
        assert_eq!(again.encode_to_vec(), config.encode_to_vec());
    }
}

#[test]
fn errors_name_the_place() {
    let listener = |filter: Value| json!({"filter_chains": [{}, {"filters": [filter]}]});
    let router = |config: Value| {
        let mut filter = json!({"name": "r", "typed_config": {"@type": format!("{URL}envoy.extensions.filters.http.router.v3.Router")}});
        filter["typed_config"].as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        listener(filter)
    };
    for (value, expected) in [
        (json!([]), "expected an object, found a list"),
        (json!({"nam": "x"}), "nam: envoy.config.listener.v3.Listener has no such field"),
        (json!({"name": 5}), "name: expected a string, found 5"),
        (json!({"filter_chains": {}}), "filter_chains: expected a list, found an object"),
        (json!({"traffic_direction": "UP"}), "traffic_direction: `UP` is not one of UNSPECIFIED, INBOUND, OUTBOUND"),
        (
            json!({"per_connection_buffer_limit_bytes": 4294967296u64}),
            "per_connection_buffer_limit_bytes: 4294967296 is not between 0 and 4294967295",
        ),
        (
            json!({"listener_filters_timeout": "5"}),
            "listener_filters_timeout: expected a duration in seconds like 0.25s, found \"5\"",
        ),
        (
            json!({"address": {"pipe": {}, "socket_address": {}}}),
            "address: only one of `pipe` and `socket_address` may be set",
        ),
        (json!({"stat_prefix": "a", "statPrefix": "b"}), "`stat_prefix` is given twice, in both spellings"),
        (
            json!({"metadata": {"filter_metadata": {"a.b": {"c": 1}, "d": 5}}}),
            "metadata.filter_metadata[\"d\"]: expected an object, found 5",
        ),
        (
            listener(json!({"typed_config": {"a": 1}})),
            "filter_chains[1].filters[0].typed_config: `@type` with the type of the message is missing",
        ),
        (
            router(json!({"dynamic_stats": "yes"})),
            "filter_chains[1].filters[0].typed_config.dynamic_stats: expected true or false, found \"yes\"",
        ),
        (
            router(json!({"dynamicStat": true})),
            "filter_chains[1].filters[0].typed_config.dynamicStat: envoy.extensions.filters.http.router.v3.Router has no such field",
        ),
    ] {
        // `serde_json` sorts keys, so which of two conflicting members comes first is fixed.
        assert_eq!(parse_error::<Listener>(value), expected);
    }
}

#[test]
fn numbers_are_read_leniently_and_written_as_protobuf_does() {
    assert_eq!(percent(json!(100.0)), json!({"value": 100}));
    assert_eq!(percent(json!("12.5")), json!({"value": 12.5}));
    assert_eq!(percent(json!("Infinity")), json!({"value": "Infinity"}));
    for numerator in [json!(5), json!("5"), json!(5.0)] {
        assert_eq!(
            parse::<FractionalPercent>(json!({ "numerator": numerator })).map(|message| message.numerator),
            Ok(5)
        );
    }
    assert!(parse::<FractionalPercent>(json!({"numerator": 5.5})).is_err());
    assert!(parse::<FractionalPercent>(json!({"numerator": -1})).is_err());
    assert!(parse::<FractionalPercent>(json!({"numerator": 1e300})).is_err());
    assert_eq!(float(0.1f32), json!(0.1));
}

/// A 32-bit float by way of a message that has one.
fn float(value: f32) -> Value {
    let wrapper = prost_types::Any {
        type_url: format!("{URL}google.protobuf.FloatValue"),
        value: [&[0x0d][..], &value.to_le_bytes()].concat(),
    };
    render(&wrapper).unwrap()["value"].take()
}

#[test]
fn null_is_an_unset_field_but_a_value_within_a_struct() {
    let cluster: Cluster = parse(json!({"name": "a", "connect_timeout": null, "alt_stat_name": null})).unwrap();
    assert_eq!(cluster, Cluster { name: "a".into(), ..Cluster::default() });
    let metadata: Metadata = parse(json!({"filter_metadata": {"a": {"b": null}}})).unwrap();
    assert_eq!(render(&metadata), Ok(json!({"filter_metadata": {"a": {"b": null}}})));
}

#[test]
fn sensitive_fields_are_redacted() {
    let secret = json!({"name": "gateway", "tls_certificate": {
        "certificate_chain": {"inline_string": "public"},
        "private_key": {"inline_bytes": "a2V5"},
        "password": {"inline_string": "open sesame"},
    }});
    let message: Secret = parse(&secret).unwrap();
    assert_eq!(render(&message), Ok(secret));
    let expected = json!({"name": "gateway", "tls_certificate": {
        "certificate_chain": {"inline_string": "public"},
        "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
        "password": {"inline_string": "[redacted]"},
    }});
    assert_eq!(render_redacted(&message), Ok(expected.clone()));
    // Also where it is wrapped into an Any, as in SecretsConfigDump.
    let dump = TypedExtensionConfig { name: String::new(), typed_config: Some(any::pack(&message)) };
    let rendered = render_redacted(&dump).unwrap();
    assert_eq!(rendered["typed_config"]["tls_certificate"], expected["tls_certificate"]);
}

#[test]
fn undecodable_bytes_in_a_known_any_are_an_error_with_a_path() {
    let broken = Any { type_url: Router::type_url(), value: vec![0x0a, 0x7f] };
    let config = TypedExtensionConfig { name: "x".into(), typed_config: Some(broken) };
    let error = render(&config).unwrap_err();
    assert_eq!(error.path, "typed_config");
    assert!(error.message.starts_with("cannot decode envoy.extensions.filters.http.router.v3.Router"), "{error}");
}

#[test]
fn nesting_is_bounded_in_both_directions() {
    let mut packed = Any::default();
    for _ in 0..5000 {
        packed = Any { type_url: format!("{URL}google.protobuf.Any"), value: packed.encode_to_vec() };
    }
    assert!(render(&packed).unwrap_err().message.contains("nested more than 100 deep"));
    let mut value = json!({});
    let mut structure = json!({});
    for _ in 0..110 {
        value = json!({"@type": format!("{URL}google.protobuf.Any"), "value": value});
        structure = json!({ "a": structure });
    }
    assert!(parse_error::<Any>(value).contains("nested more than 100 deep"));
    assert!(
        parse_error::<Metadata>(json!({"filter_metadata": {"a": structure}})).contains("nested more than 100 deep")
    );
}

#[test]
fn a_type_outside_the_envoy_api_is_refused_by_name() {
    assert!(is_known("envoy.config.route.v3.Route"));
    assert!(!is_known("stats.PluginConfig"));
    assert_eq!(
        render_named("stats.PluginConfig", &[]).map_err(|error| error.to_string()),
        Err("message type stats.PluginConfig is not known".into())
    );
}

/// JSON for every field of a message, the first member of each `oneof`, `depth` messages deep.
fn filled(message: &MessageDescriptor, depth: usize) -> Value {
    if is_well_known(message.full_name()) {
        return match message.name() {
            "Any" => json!({"@type": format!("{URL}envoy.config.core.v3.Pipe"), "path": "/p"}),
            "Timestamp" => json!("2026-01-31T12:00:00.250Z"),
            "Duration" => json!("-1.000000001s"),
            "Struct" => json!({"b": {"c": 1}, "a": null}),
            "Value" => json!([0.25]),
            "ListValue" => json!(["x", {}]),
            "Empty" => json!({}),
            _ => filled_single(&message.get_field(1).unwrap().kind(), depth),
        };
    }
    let wanted = |field: &FieldDescriptor| match field.containing_oneof() {
        Some(oneof) if !oneof.is_synthetic() => {
            oneof.fields().next().map(|first| first.number()) == Some(field.number())
        }
        _ => true,
    };
    let deep_enough = |field: &FieldDescriptor| match field.kind() {
        Kind::Message(kind) => depth > 0 || is_well_known(kind.full_name()),
        _ => true,
    };
    message
        .fields()
        .filter(|field| wanted(field) && deep_enough(field) && !field.is_group())
        .map(|field| {
            let value = if field.is_map() {
                let Kind::Message(entry) = field.kind() else { panic!("a map without an entry") };
                let key = match entry.map_entry_key_field().kind() {
                    Kind::String => "k.1",
                    Kind::Bool => "true",
                    _ => "7",
                };
                json!({ key: filled_single(&entry.map_entry_value_field().kind(), depth) })
            } else if field.cardinality() == Cardinality::Repeated {
                let value = filled_single(&field.kind(), depth);
                json!([value, value])
            } else {
                filled_single(&field.kind(), depth)
            };
            (field.name().to_owned(), value)
        })
        .collect()
}

fn filled_single(kind: &Kind, depth: usize) -> Value {
    match kind {
        Kind::Message(message) => filled(message, depth.saturating_sub(1)),
        Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::Null,
        Kind::Enum(kind) => kind.values().last().unwrap().name().into(),
        Kind::Bool => true.into(),
        Kind::String => "text".into(),
        Kind::Bytes => "AAE=".into(),
        Kind::Float => 0.1.into(),
        Kind::Double => (-2.5).into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => i64::MIN.to_string().into(),
        Kind::Uint64 | Kind::Fixed64 => u64::MAX.to_string().into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (-7).into(),
        Kind::Uint32 | Kind::Fixed32 => u32::MAX.into(),
    }
}

/// An independent reading of the descriptor set says what there is, and what the encoded bytes mean.
#[test]
fn every_message_of_the_api_comes_back_with_every_field() {
    let pool = DescriptorPool::decode(&include_bytes!("../../proto/envoy.binpb")[..]).unwrap();
    let mut checked = 0;
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        let name = message.full_name();
        if message.package_name() == "google.protobuf" && !is_well_known(name) {
            continue;
        }
        let value = filled(&message, 2);
        let encoded = parse_named(name, &value).unwrap_or_else(|error| panic!("{name}: {error}"));
        let decoded = DynamicMessage::decode(message.clone(), encoded.as_slice()).unwrap();
        assert_eq!(decoded.unknown_fields().count(), 0, "{name}");
        // Another encoder, another order of fields, the same message.
        assert_eq!(render_named(name, &decoded.encode_to_vec()), Ok(value), "{name}");
        checked += 1;
    }
    assert!(checked > 1000, "only {checked} messages");
    assert_eq!(schema::messages().count(), pool.all_messages().count());
}

#[test]
fn repeated_records_count_as_protobuf_says() {
    let cluster = |encoded: &[&[u8]]| render_named("envoy.config.cluster.v3.Cluster", &encoded.concat());
    let text = |number: u8, text: &str| [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat();
    // The last value of a single field, and the last member of a `oneof` (eds `type` = 2, `cluster_type` = 38).
    assert_eq!(cluster(&[&text(1, "a"), &text(1, "b")]), Ok(json!({"name": "b"})));
    let custom = [0xb2, 0x02, 0x03, 0x0a, 0x01, b'x'];
    assert_eq!(cluster(&[&[0x10, 3], &custom]), Ok(json!({"cluster_type": {"name": "x"}})));
    assert_eq!(cluster(&[&custom, &[0x10, 3]]), Ok(json!({"type": "EDS"})));
    // Messages merge (`connect_timeout` = 4: seconds, then nanoseconds).
    let timeout = [0x22, 2, 0x08, 1, 0x22, 6, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01];
    assert_eq!(cluster(&[&timeout]), Ok(json!({"connect_timeout": "1.500s"})));
    // A default that was written is no value; an unknown field (1000) is passed over.
    assert_eq!(cluster(&[&text(1, ""), &[0xc0, 0x3e, 1]]), Ok(json!({})));
    // Lists of numbers come packed and unpacked (`retriable_status_codes` = 7).
    let policy = |encoded: &[u8]| render_named("envoy.config.route.v3.RetryPolicy", encoded);
    let codes = Ok(json!({"retriable_status_codes": [5, 300, 7]}));
    assert_eq!(policy(&[0x3a, 3, 5, 0xac, 0x02, 0x38, 7]), codes);
    assert_eq!(policy(&[0x38, 5, 0x38, 0xac, 0x02, 0x3a, 1, 7]), codes);
}

#[test]
fn malformed_bytes_are_errors() {
    let cluster =
        |encoded: &[u8]| render_named("envoy.config.cluster.v3.Cluster", encoded).map_err(|error| error.to_string());
    let error = |text: &str| Err(text.to_owned());
    let broken = "cannot decode envoy.config.cluster.v3.Cluster: ";
    assert_eq!(cluster(&[0x0a, 5, b'x']), error(&format!("{broken}the bytes end within a value")));
    assert_eq!(cluster(&[0x08, 5]), error(&format!("{broken}name has another wire type")));
    assert!(cluster(&[0x0a, 1, 0xff]).unwrap_err().starts_with("name: not UTF-8"));
}

#[test]
fn unknown_fields_are_passed_over_when_asked() {
    let value = json!({"name": "a", "nom": "b", "load_assignment": {"endpoints": [{"locality": {"sone": "c"}}]}});
    let (encoded, unknown) = parse_known_fields("envoy.config.cluster.v3.Cluster", &value).unwrap();
    let paths: Vec<&str> = unknown.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["nom", "load_assignment.endpoints[0].locality.sone"]);
    let known = json!({"name": "a", "load_assignment": {"endpoints": [{"locality": {}}]}});
    assert_eq!(render_named("envoy.config.cluster.v3.Cluster", &encoded), Ok(known));
}

#[test]
fn access_log_json_formats_keep_their_structs() {
    let value = json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": format!("{URL}envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        "path": "/dev/stdout",
        "log_format": {"json_format": {"status": "%RESPONSE_CODE%", "nested": {"path": "%REQ(:PATH)%"}}},
    }});
    assert_eq!(render(&parse::<AccessLog>(&value).unwrap()), Ok(value));
}
