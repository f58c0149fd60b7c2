//! Are the settings of the mesh read with all their fields, and checked?

use std::time::Duration;

use crate::support::lines;
use lateen_config::{
    ExtensionProviderKind, FileLogForm, ForwardClientCertDetails, LabelOperator, MeshConfig, Severity, SourceFile,
    Tracer, parse_mesh,
};

fn mesh(text: &str) -> MeshConfig {
    let (mesh, diagnostics) = parse_mesh(&SourceFile::new("mesh.yaml", text));
    assert_eq!(lines(&diagnostics), Vec::<String>::new());
    mesh.expect("a mesh")
}

fn problems(text: &str) -> Vec<String> {
    let (mesh, diagnostics) = parse_mesh(&SourceFile::new("mesh.yaml", text));
    assert!(mesh.is_some(), "what is wrong in one place does not take the rest with it");
    lines(&diagnostics).iter().map(|line| line.split_once(' ').expect("a code").1.to_owned()).collect()
}

#[test]
fn providers_are_read() {
    let mesh = mesh(
        "\
extensionProviders:
- name: json
  envoyFileAccessLog: {path: /dev/stderr, logFormat: {labels: {status: \"%RESPONSE_CODE%\"}}, omitEmptyValues: true}
- name: text
  envoyFileAccessLog: {logFormat: {text: \"%PROTOCOL%\"}}
- name: als
  envoyHttpAls: {service: logs.default.svc.cluster.local, port: 9000, additionalRequestHeadersToLog: [x-a]}
- name: tcp
  envoyTcpAls: {service: default/logs.default.svc.cluster.local, port: 9000}
- name: otel-logs
  envoyOtelAls: {service: otel.default.svc.cluster.local, port: 4317, logFormat: {labels: {a: b}}}
- name: zipkin
  zipkin: {service: zipkin.default.svc.cluster.local, port: 9411, maxTagLength: 99, enable64bitTraceId: true}
- name: otel
  opentelemetry: {service: otel.default.svc.cluster.local, port: 4318, http: {path: /v1/traces, timeout: 3s}}
- name: prom
  prometheus: {}
- name: auth
  envoyExtAuthzGrpc: {service: auth.default.svc.cluster.local, port: 9000}
defaultProviders: {accessLogging: [json, envoy], metrics: [prom], tracing: [otel]}
",
    );
    let [json, text, als, tcp, otel_logs, zipkin, otel, prom, auth] = &mesh.extension_providers[..] else {
        panic!("{:?}", mesh.extension_providers)
    };
    let Some(ExtensionProviderKind::EnvoyFileAccessLog(file)) = &json.provider else { panic!("{json:?}") };
    assert_eq!((file.path.as_str(), file.omit_empty_values), ("/dev/stderr", true));
    let form = file.log_format.as_ref().and_then(|format| format.form.as_ref());
    assert!(matches!(form, Some(FileLogForm::Labels(labels)) if labels["status"] == "%RESPONSE_CODE%"));
    let Some(ExtensionProviderKind::EnvoyFileAccessLog(file)) = &text.provider else { panic!("{text:?}") };
    assert_eq!(file.path, "/dev/stdout");
    let Some(ExtensionProviderKind::EnvoyHttpAls(als)) = &als.provider else { panic!("{als:?}") };
    assert_eq!((als.port, als.log_name.as_str()), (9000, "http_envoy_accesslog"));
    assert!(matches!(&tcp.provider, Some(ExtensionProviderKind::EnvoyTcpAls(als)) if als.port == 9000));
    assert!(matches!(&otel_logs.provider, Some(ExtensionProviderKind::EnvoyOtelAls(als)) if als.port == 4317));
    assert!(matches!(&zipkin.provider, Some(ExtensionProviderKind::Zipkin(zipkin)) if zipkin.enable_64bit_trace_id));
    let Some(ExtensionProviderKind::Opentelemetry(otel)) = &otel.provider else { panic!("{otel:?}") };
    assert_eq!(otel.http.as_ref().and_then(|http| http.timeout), Some(Duration::from_secs(3)));
    assert!(matches!(&prom.provider, Some(ExtensionProviderKind::Prometheus(_))));
    assert!(matches!(&auth.provider, Some(ExtensionProviderKind::EnvoyExtAuthzGrpc(fields)) if fields["port"] == 9000));
    let defaults = mesh.default_providers.as_ref().expect("defaults");
    assert_eq!(
        (&defaults.access_logging[..], &defaults.tracing[..]),
        (&["json".to_owned(), "envoy".to_owned()][..], &["otel".to_owned()][..])
    );
}

#[test]
fn what_holds_for_proxies_is_read() {
    let mesh = mesh(
        "\
defaultConfig:
  gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: SANITIZE}
  proxyHeaders:
    forwardedClientCert: FORWARD_ONLY
    setCurrentClientCertDetails: {subject: true, cert: false}
    requestId: {disabled: true}
    server: {value: mine}
    attemptCount: {disabled: true}
    envoyDebugHeaders: {disabled: true}
    metadataExchangeHeaders: {mode: IN_MESH}
    preserveHttp1HeaderCase: true
    xForwardedHost: {enabled: true}
    xForwardedPort: {enabled: true}
  tracing: {sampling: 50, zipkin: {address: zipkin:9411}, customTags: {a: {literal: {value: b}}}}
  proxyStatsMatcher: {inclusionRegexps: [.*upstream.*]}
  holdApplicationUntilProxyStarts: true
  statusPort: 15020
discoverySelectors:
- matchLabels: {mesh: a}
- matchExpressions: [{key: env, operator: NotIn, values: [test]}]
zoneAwareLbSetting: {enabled: true, minClusterSize: 3}
",
    );
    let config = &mesh.default_config;
    assert_eq!(config.gateway_topology.num_trusted_proxies, 2);
    let headers = &config.proxy_headers;
    assert_eq!(headers.forwarded_client_cert, ForwardClientCertDetails::ForwardOnly);
    assert_eq!(headers.server.as_ref().map(|server| server.value.as_str()), Some("mine"));
    assert_eq!(headers.x_forwarded_port.as_ref().and_then(|header| header.enabled), Some(true));
    let tracing = config.tracing.as_ref().expect("tracing");
    assert!(matches!(&tracing.tracer, Some(Tracer::Zipkin(zipkin)) if zipkin.address == "zipkin:9411"));
    assert_eq!(mesh.discovery_selectors[1].match_expressions[0].operator, LabelOperator::NotIn);
    assert_eq!(mesh.zone_aware_lb_setting.and_then(|setting| setting.min_cluster_size), Some(3));
}

#[test]
fn what_cannot_be_is_found() {
    assert_eq!(
        problems("proxyListenPort: 0\nconnectTimeout: 2h\nrootNamespace: a.b\ntrustDomain: a_b\n"),
        [
            "1:18 `proxyListenPort` is no port: 0",
            "2:17 `connectTimeout` is longer than an hour",
            "3:16 `a.b` is no name of a namespace",
            "4:14 `a_b` is no trust domain",
        ]
    );
    assert_eq!(
        problems(
            "\
extensionProviders:
- name: a
- {name: a, prometheus: {}}
- {prometheus: {}}
- {name: b, zipkin: {service: a b}}
- {name: c, opentelemetry: {service: otel, port: 1, http: {}, grpc: {}}}
defaultProviders: {tracing: [b, d]}
"
        ),
        [
            "2:3 `extensionProviders[0]` does not say what it is",
            "3:10 the provider `a` is there twice",
            "4:3 `extensionProviders[2]` has no `name`",
            "5:21 `extensionProviders[3].zipkin.port` is no port: 0",
            "5:31 `a b` is no host of a service",
            "6:59 `extensionProviders[4].opentelemetry.http` has no `path`",
            "6:69 `extensionProviders[4].opentelemetry` has both `http` and `grpc`",
            "7:33 there is no provider `d`",
        ]
    );
    assert_eq!(
        problems(
            "\
defaultConfig: {concurrency: -1, tracing: {sampling: 200, zipkin: {address: nowhere}}}
tlsDefaults: {minProtocolVersion: TLSV1_3, ecdhCurves: [P-1]}
meshMTLS: {ecdhCurves: [P-256]}
defaultTrafficPolicy: {tls: {mode: DISABLE}, outlierDetection: {interval: 0s}}
localityLbSetting: {distribute: [{from: a, to: {b: 99}}]}
defaultHttpRetryPolicy: {attempts: -1}
discoverySelectors: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]
"
        )
        .len(),
        11
    );
}

#[test]
fn unknown_settings_are_warned_of_and_the_rest_counts() {
    let text = "accessLogFile: /dev/stdout\nacessLogFormat: x\n";
    let (mesh, diagnostics) = parse_mesh(&SourceFile::new("mesh.yaml", text));
    assert_eq!(mesh.expect("a mesh").access_log_file, "/dev/stdout");
    assert_eq!(lines(&diagnostics), ["LTN0020 2:1 unknown field `acessLogFormat`"]);
    assert_eq!(diagnostics[0].severity, Severity::Warning);
}
