//! Are PeerAuthentication, ProxyConfig, Telemetry and Ingress read and checked?

use crate::support::{check, lines, load, object};
use lateen_config::{
    CustomTagSource, IstioMetric, Kind, MetricMatch, MutualTlsMode, PathType, Spec, TagOperation, WorkloadMode,
};

/// The content of the only object of a text that has nothing wrong with it.
fn spec(kind: Kind, text: &str) -> Spec {
    let parsed = load(&object(&kind.api_version(), kind.as_str(), "a", text));
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    parsed.objects.into_iter().next().expect("an object").spec
}

#[test]
fn ports_of_a_peer_authentication_are_those_of_certain_workloads() {
    check(
        "PeerAuthentication",
        &[
            ("mtls: {mode: STRICT}\n", &[]),
            ("selector: {matchLabels: {app: a}}\nportLevelMtls: {8080: {mode: DISABLE}}\n", &[]),
            (
                "portLevelMtls: {8080: {mode: DISABLE}}\n",
                &["5:18 `spec.portLevelMtls` needs a `selector`: ports are those of certain workloads"],
            ),
            (
                "selector: {matchLabels: {app: a}}\nportLevelMtls: {0: {mode: DISABLE}, 65536: {}}\n",
                &["6:19 `spec.portLevelMtls` names no port: 0", "6:39 `spec.portLevelMtls` names no port: 65536"],
            ),
            (
                "selector: {matchLabels: {app: \"*\"}}\n",
                &["5:33 `spec.selector.matchLabels.app` holds a wildcard, and selectors know none"],
            ),
            ("mtls: {mode: SOMETIMES}\n", &["5:16 `spec.mtls.mode` cannot be `SOMETIMES`"]),
        ],
    );
    let Spec::PeerAuthentication(policy) = spec(
        Kind::PeerAuthentication,
        "selector: {matchLabels: {app: a}}\nmtls: {mode: STRICT}\nportLevelMtls: {80: {mode: PERMISSIVE}}\n",
    ) else {
        panic!("another kind")
    };
    assert_eq!(policy.port_level_mtls[&80].mode, MutualTlsMode::Permissive);
}

#[test]
fn proxy_configs_are_read_and_checked() {
    check(
        "ProxyConfig",
        &[
            ("concurrency: 0\nenvironmentVariables: {A: b}\nimage: {imageType: distroless}\n", &[]),
            ("concurrency: -1\n", &["5:16 `spec.concurrency` must not be below zero"]),
            ("selector: {matchLabels: {\"\": b}}\n", &["5:28 a label of a selector has no name"]),
            ("environmentVariables: {\"a=b\": c}\n", &["5:26 `a=b` is no name of a variable"]),
        ],
    );
}

#[test]
fn a_telemetry_is_read_with_all_its_fields() {
    let text = "\
selector: {matchLabels: {app: a}}
accessLogging:
- match: {mode: SERVER}
  providers: [{name: envoy}]
  filter: {expression: response.code >= 400}
- disabled: true
metrics:
- providers: [{name: prometheus}]
  reportingInterval: 5s
  overrides:
  - match: {metric: REQUEST_COUNT, mode: CLIENT}
    tagOverrides:
      request_host: {value: request.host}
      response_flags: {operation: REMOVE}
  - match: {customMetric: mine}
    disabled: true
tracing:
- providers: [{name: zipkin}]
  randomSamplingPercentage: 12.5
  disableSpanReporting: false
  useRequestIdForTraceSampling: true
  enableIstioTags: false
  customTags:
    a: {literal: {value: b}}
    c: {header: {name: x-c, defaultValue: none}}
    d: {environment: {name: HOST}}
";
    let Spec::Telemetry(telemetry) = spec(Kind::Telemetry, text) else { panic!("another kind") };
    assert_eq!(telemetry.access_logging[0].r#match.as_ref().map(|m| m.mode), Some(WorkloadMode::Server));
    assert_eq!(telemetry.access_logging[1].disabled, Some(true));
    let overrides = &telemetry.metrics[0].overrides;
    let metric = overrides[0].r#match.as_ref().and_then(|m| m.metric_match.as_ref());
    assert_eq!(metric, Some(&MetricMatch::Metric(IstioMetric::RequestCount)));
    assert_eq!(overrides[0].tag_overrides["response_flags"].operation, TagOperation::Remove);
    assert_eq!(telemetry.tracing[0].random_sampling_percentage, Some(12.5));
    assert!(
        matches!(&telemetry.tracing[0].custom_tags["d"].source, Some(CustomTagSource::Environment(e)) if e.name == "HOST")
    );
}

#[test]
fn telemetries_are_checked() {
    check(
        "Telemetry",
        &[
            (
                "selector: {matchLabels: {app: a}}\ntargetRefs: [{kind: Gateway, name: g}]\n",
                &["6:15 the Telemetry has both `selector` and `targetRefs`"],
            ),
            ("accessLogging: [{providers: [{}]}]\n", &["5:32 `spec.accessLogging[0].providers[0]` has no `name`"]),
            ("accessLogging: [{filter: {}}]\n", &["5:28 `spec.accessLogging[0].filter` has no `expression`"]),
            (
                "tracing: [{randomSamplingPercentage: 101, customTags: {a: {}, b: {literal: {}}}}]\n",
                &[
                    "5:40 `spec.tracing[0].randomSamplingPercentage` is no share: 101",
                    "5:61 `spec.tracing[0].customTags.a` has no value",
                    "5:78 `spec.tracing[0].customTags.b.literal` has no `value`",
                ],
            ),
            (
                "tracing: [{providers: [{name: a}, {name: b}]}, {}]\n",
                &[
                    "5:37 only the first of several `spec.tracing[0].providers` counts",
                    "5:50 only the first of several entries of `spec.tracing` counts",
                ],
            ),
            (
                "metrics: [{overrides: [{tagOverrides: {a: {}, b: {operation: REMOVE, value: c}}}]}]\n",
                &[
                    "5:45 `spec.metrics[0].overrides[0].tagOverrides.a` has no `value`",
                    "5:79 `spec.metrics[0].overrides[0].tagOverrides.b` is removed, and has a `value`",
                ],
            ),
            (
                "metrics: [{overrides: [{match: {customMetric: \"\"}}], reportingInterval: 0s}]\n",
                &[
                    "5:49 `spec.metrics[0].overrides[0].match.customMetric` is empty",
                    "5:75 `spec.metrics[0].reportingInterval` must be at least 1ms",
                ],
            ),
        ],
    );
}

#[test]
fn an_ingress_is_read_and_its_class_found() {
    let text = "\
ingressClassName: istio
defaultBackend: {service: {name: web, port: {number: 80}}}
tls: [{hosts: [a.com], secretName: cert}]
rules:
- host: a.com
  http:
    paths:
    - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}
    - {path: /, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
";
    let Spec::Ingress(ingress) = spec(Kind::Ingress, text) else { panic!("another kind") };
    let paths = &ingress.rules[0].http.as_ref().expect("paths").paths;
    assert_eq!((paths[0].path_type, paths[1].path_type), (PathType::Prefix, PathType::Exact));
    let mut metadata = lateen_config::Metadata::default();
    assert_eq!(ingress.class(&metadata), Some("istio"));
    metadata.annotations.insert("kubernetes.io/ingress.class".to_owned(), "nginx".to_owned());
    assert_eq!(ingress.class(&metadata), Some("nginx"));
    let Spec::IngressClass(class) = spec(Kind::IngressClass, "controller: istio.io/ingress-controller\n") else {
        panic!("another kind")
    };
    assert_eq!(class.controller.as_deref(), Some("istio.io/ingress-controller"));
}

#[test]
fn ingresses_are_checked() {
    let backend = "backend: {service: {name: a, port: {number: 80}}}";
    check(
        "Ingress",
        &[
            ("ingressClassName: istio\n", &["5:3 the Ingress says nothing"]),
            ("defaultBackend: {}\n", &["5:19 `spec.defaultBackend` leads nowhere"]),
            (
                "defaultBackend: {service: {name: a, port: {}}}\n",
                &["5:45 `spec.defaultBackend.service.port` is missing"],
            ),
            (
                "defaultBackend: {service: {name: a, port: {name: b, number: 1}}}\n",
                &["5:45 `spec.defaultBackend.service.port` has both `name` and `number`"],
            ),
            (
                "defaultBackend: {resource: {kind: Bucket}}\n",
                &["5:30 `spec.defaultBackend.resource` is passed over: only Services are reached"],
            ),
            (
                &format!(
                    "rules: [{{host: \"*foo.com\", http: {{paths: [{{path: api, pathType: Prefix, {backend}}}]}}}}]\n"
                ),
                &["5:18 `*foo.com` is no host", "5:52 `spec.rules[0].http.paths[0].path` does not begin with a slash"],
            ),
        ],
    );
}
