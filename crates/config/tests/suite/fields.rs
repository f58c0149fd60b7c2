//! Are fields read as Istio and Kubernetes read them, and is each mistake found where it stands?

use std::time::Duration;

use crate::support::{lines, load, names, object, virtual_service};
use lateen_config::{
    HashAlgorithm, HashKey, HttpBody, IntOrString, LoadBalancerPolicy, Operation, Resolution, SourceFile, Spec,
    StringMatch,
};

const ROUTE: &str = "  route:\n  - destination: {host: a}\n";

fn read(kind: &str, spec: &str) -> Spec {
    let parsed = load(&object("networking.istio.io/v1", kind, "a", spec));
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    parsed.objects.into_iter().next().expect("an object").spec
}

#[test]
fn all_mistakes_of_an_object_are_found_at_once() {
    let spec = "\
hosts: a
gateways:
- {mesh: x}
http:
- match:
  - uri: {prefix: /, exact: /b}
    port: \"80\"
    method: GET
    sourceLabels: {version: 1, canary: yes}
  timeout: 5
  retries: {attempts: 3.5, perTryTimeout: 2x, retryOn: 503}
  route:
  - destination: {host: a, port: 80}
    weight: ninety
  - destination: {port: {number: -1}}
    weigth: 1
  mirror:
  - host: b
  corsPolicy: {unmatchedPreflights: ignore}
  redirect: {port: 3, derive_port: FROM_REQUEST_PORT}
  direct_response: {status: 200, body: {bytes: \"a*b\"}}
";
    let parsed = load(&virtual_service("a", spec));
    assert_eq!(names(&parsed), Vec::<String>::new());
    assert_eq!(
        lines(&parsed.diagnostics),
        [
            "LTN0021 5:10 `spec.hosts` must be a list",
            "LTN0021 7:5 `spec.gateways[0]` must be a string",
            "LTN0024 10:24 `spec.http[0].match[0].uri.prefix` and `exact` exclude each other",
            "LTN0021 11:13 `spec.http[0].match[0].port` must be a whole number",
            "LTN0021 12:15 `spec.http[0].match[0].method` must be a mapping",
            "LTN0021 13:31 `spec.http[0].match[0].sourceLabels.version` must be a string",
            "LTN0021 13:42 `spec.http[0].match[0].sourceLabels.canary` must be a string",
            "LTN0021 14:14 `spec.http[0].timeout` must be a duration",
            "LTN0021 15:25 `spec.http[0].retries.attempts` must be a whole number",
            "LTN0023 15:45 `spec.http[0].retries.perTryTimeout` is no duration: `2x`",
            "LTN0021 15:58 `spec.http[0].retries.retryOn` must be a string",
            "LTN0021 17:36 `spec.http[0].route[0].destination.port` must be a mapping",
            "LTN0021 18:15 `spec.http[0].route[0].weight` must be a whole number",
            "LTN0022 19:20 `spec.http[0].route[1].destination.host` is missing",
            "LTN0023 19:36 `spec.http[0].route[1].destination.port.number` must be between 0 and 4294967295",
            "LTN0020 20:7 unknown field `spec.http[0].route[1].weigth`",
            "LTN0021 22:5 `spec.http[0].mirror` must be a mapping",
            "LTN0023 23:39 `spec.http[0].corsPolicy.unmatchedPreflights` cannot be `ignore`",
            "LTN0024 24:25 `spec.http[0].redirect.port` and `derive_port` exclude each other",
            "LTN0023 25:50 `spec.http[0].directResponse.body.bytes` is not base64: Invalid symbol 42, offset 1.",
        ]
    );
    let help = |line: u32| {
        let at = |d: &&lateen_config::Diagnostic| d.location.as_ref().is_some_and(|at| at.line == line);
        parsed.diagnostics.iter().filter(at).filter_map(|d| d.help.as_deref()).collect::<Vec<_>>()
    };
    assert_eq!(help(5), ["put it in a list: [a]"]);
    assert_eq!(help(12), ["give the field that `GET` is for: `exact`, `prefix`, `regex`"]);
    assert_eq!(help(17), ["give the field that `80` is for: `number`"]);
    assert_eq!(help(11), ["remove the quotes: 80"]);
    assert_eq!(help(13), ["put it in quotes: \"1\"", "put it in quotes: \"yes\""]);
    assert_eq!(help(14), ["give a unit: 5s"]);
    assert_eq!(help(20), ["did you mean `weight`? The fields are `destination`, `weight`, `headers`"]);
    assert_eq!(help(22), ["remove the `- `: there is only one of it"]);
    assert_eq!(help(23), ["did you mean `IGNORE`? The values are `UNSPECIFIED`, `FORWARD`, `IGNORE`"]);
}

#[test]
fn an_unknown_field_is_an_error_that_leaves_the_rest_in_use() {
    let parsed = load(&virtual_service("a", &format!("hosts: [a]\nhttp:\n- matches: []\n{ROUTE}")));
    assert_eq!(names(&parsed), ["VirtualService default/a"]);
    assert!(parsed.objects[0].has_errors);
    let [problem] = &parsed.diagnostics[..] else { panic!("{:?}", parsed.diagnostics) };
    let rendered = problem.render(parsed.objects[0].source.file.as_deref());
    let expected = "\
error[LTN0020]: unknown field `spec.http[0].matches`
 --> shop.yaml:7:5
  |
7 |   - matches: []
  |     ^^^^^^^ HttpRoute has no such field
  = help: did you mean `match`? The fields are `name`, `match`, `route`, `redirect`, `directResponse`, `delegate`, \
`rewrite`, `timeout`, `retries`, `fault`, `mirror`, `mirrors`, `mirrorPercent`, `mirrorPercentage`, `corsPolicy`, \
`headers`
";
    assert_eq!(rendered, expected);
    assert_eq!(problem.object.as_ref().map(ToString::to_string).as_deref(), Some("VirtualService default/a"));
}

#[test]
fn unknown_fields_beside_the_spec_are_found_too() {
    let text = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a, lables: {}}\nspce: {}\n\
                spec: {egress: [{hosts: ['./*']}]}\nstatus: {anything: [goes]}\n";
    let found = lines(&load(text).diagnostics);
    assert_eq!(found, ["LTN0020 3:21 unknown field `metadata.lables`", "LTN0020 4:1 unknown field `spce`"]);
}

#[test]
fn null_is_the_same_as_absent_except_in_lists_and_conditions() {
    let parsed =
        load(&virtual_service("a", &format!("hosts: [a]\ngateways: null\ntls:\nhttp:\n- timeout: ~\n{ROUTE}")));
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    let parsed =
        load(&virtual_service("a", &format!("hosts: [a, ~]\nhttp:\n-\n- match: [{{headers: {{x: null}}}}]\n{ROUTE}")));
    let found = lines(&parsed.diagnostics);
    assert_eq!(
        found,
        ["LTN0021 5:14 `spec.hosts[1]` must be a string", "LTN0021 7:4 `spec.http[0]` must be a mapping"]
    );
}

#[test]
fn fields_are_read_in_both_spellings() {
    let spec = "hosts: [a]\nhttp:\n- corsPolicy: {allow_origins: [{exact: x}], maxAge: 1h}\n  mirror_percentage: {value: 10}\n";
    let Spec::VirtualService(service) = read("VirtualService", &format!("{spec}{ROUTE}")) else { panic!() };
    let rule = &service.http[0];
    let cors = rule.cors_policy.as_ref().expect("a policy");
    assert_eq!(cors.allow_origins, [StringMatch::Exact("x".into())]);
    assert_eq!(cors.max_age, Some(Duration::from_secs(3600)));
    assert_eq!(rule.mirror_percentage.as_ref().map(|share| share.value), Some(10.0));
    assert_eq!((rule.at.line, rule.at.column, cors.at.column), (7, 5, 17));
}

#[test]
fn choices_are_read() {
    let spec = "hosts: [a]\nhttp:\n- match:\n  - headers: {a: {}, b: {regex: x.*}}\n    without_headers: {c: {exact: z}}\n  \
                directResponse: {status: 503, body: {bytes: aGk_}}\n";
    let Spec::VirtualService(service) = read("VirtualService", spec) else { panic!() };
    let condition = &service.http[0].r#match[0];
    assert_eq!(condition.headers["a"], Some(StringMatch::Unset));
    assert_eq!(condition.headers["b"], Some(StringMatch::Regex("x.*".into())));
    assert_eq!(condition.without_headers["c"], Some(StringMatch::Exact("z".into())));
    let response = service.http[0].direct_response.as_ref().expect("a response");
    assert_eq!(response.body, Some(HttpBody::Bytes(b"hi?".to_vec())));
}

#[test]
fn a_destination_rule_is_read() {
    let spec = "\
host: a
trafficPolicy:
  loadBalancer:
    consistentHash: {httpCookie: {name: s, ttl: 0s}, maglev: {tableSize: 1009}}
  outlierDetection: {consecutive5xxErrors: 7, interval: 500ms}
  connectionPool: {http: {http1MaxPendingRequests: 1, http2MaxRequests: 2}, tcp: {connectTimeout: 30ms}}
subsets:
- name: v1
  labels: {version: v1}
";
    let Spec::DestinationRule(rule) = read("DestinationRule", spec) else { panic!() };
    let policy = rule.traffic_policy.expect("a policy");
    let Some(LoadBalancerPolicy::ConsistentHash(hash)) = policy.load_balancer.and_then(|lb| lb.policy) else {
        panic!()
    };
    assert!(matches!(hash.key, Some(HashKey::HttpCookie(cookie)) if cookie.ttl == Some(Duration::ZERO)));
    assert!(matches!(hash.algorithm, Some(HashAlgorithm::Maglev(maglev)) if maglev.table_size == Some(1009)));
    assert_eq!(policy.outlier_detection.and_then(|detection| detection.consecutive_5xx_errors), Some(7));
    let http = policy.connection_pool.and_then(|pool| pool.http).expect("limits");
    assert_eq!((http.http1_max_pending_requests, http.http2_max_requests), (Some(1), Some(2)));
    assert_eq!(rule.subsets[0].labels["version"], "v1");
}

#[test]
fn a_service_entry_is_read_with_its_workloads() {
    let spec = "hosts: [a.b]\nports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]\nresolution: 1\n\
                endpoints: [{address: 127.0.0.1, ports: {http: 9080}, locality: r/z, weight: 3}]\n";
    let Spec::ServiceEntry(entry) = read("ServiceEntry", spec) else { panic!() };
    assert_eq!(entry.resolution, Resolution::Static);
    assert_eq!(entry.endpoints[0].ports["http"], 9080);
    assert_eq!(entry.ports[0].target_port, Some(8080));
}

#[test]
fn an_envoy_filter_keeps_the_values_of_its_patches() {
    let text = object(
        "networking.istio.io/v1alpha3",
        "EnvoyFilter",
        "a",
        "configPatches:\n- applyTo: HTTP_FILTER\n  match: {context: GATEWAY, listener: {portNumber: 80}}\n  \
         patch:\n    operation: INSERT_FIRST\n    value:\n      name: x\n      typed_config: {\"@type\": x, size: 1}\n",
    );
    let parsed = load(&text);
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    let Spec::EnvoyFilter(filter) = &parsed.objects[0].spec else { panic!() };
    let patch = filter.config_patches[0].patch.as_ref().expect("a patch");
    let value = patch.value.as_ref().expect("a value");
    assert_eq!((patch.operation, value.at.to_string().as_str()), (Operation::InsertFirst, "11:9"));
    assert_eq!(value.fields["typed_config"], serde_json::json!({"@type": "x", "size": 1}));
}

#[test]
fn kubernetes_fields_that_do_not_matter_are_passed_over() {
    let text = "\
apiVersion: v1
kind: Service
metadata: {name: a, annotations: {x: \"y\"}}
spec:
  clusterIP: None
  clusterIPs: [None]
  loadBalancerClass: whatever
  selector: {app: a}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http2}
  - {name: tcp-x, port: 90, targetPort: named}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a}}
spec:
  serviceAccountName: shop
  nodeName: n1
  containers: [{name: a, image: a:1, resources: {limits: {cpu: 1}}, ports: [{containerPort: 8080, name: named}]}]
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}]
  conditions: [{type: Ready, status: \"True\", lastProbeTime: null}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-x, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  conditions: {ready: false, serving: true, terminating: true}
  targetRef: {kind: Pod, name: a-1}
  zone: z1
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: a}
subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 8080}]}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert}
type: kubernetes.io/tls
data: {tls.crt: aGVsbG8=}
stringData: {tls.key: hush}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  replicas: 2
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {containers: []}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec: {rules: [{}]}
";
    let parsed = load(text);
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    let specs: Vec<&Spec> = parsed.objects.iter().map(|object| &object.spec).collect();
    let [
        Spec::Service(service),
        Spec::Pod(pod),
        Spec::EndpointSlice(slice),
        Spec::Endpoints(endpoints),
        Spec::Secret(secret),
        Spec::Deployment(deployment),
        Spec::Opaque(policy),
    ] = specs[..]
    else {
        panic!("{specs:?}")
    };
    assert!(service.is_headless());
    assert_eq!(service.ports[0].target_port, Some(IntOrString::Int(8080)));
    assert_eq!(service.ports[1].target_port, Some(IntOrString::String("named".into())));
    assert_eq!((pod.is_ready(), pod.status.pod_ip.as_deref()), (Some(true), Some("10.0.0.1")));
    assert_eq!(pod.spec.containers[0].ports[0].container_port, 8080);
    let conditions = slice.endpoints[0].conditions.as_ref().expect("conditions");
    assert_eq!((conditions.ready, conditions.terminating), (Some(false), Some(true)));
    assert_eq!(endpoints.subsets[0].addresses[0].ip, "10.0.0.1");
    assert_eq!((&secret.data["tls.crt"][..], &secret.data["tls.key"][..]), (&b"hello"[..], &b"hush"[..]));
    assert!(!format!("{secret:?}").contains("hush"), "a secret is not shown: {secret:?}");
    assert_eq!(deployment.template.metadata.labels["app"], "a");
    assert_eq!(policy.value["spec"]["rules"], serde_json::json!([{}]));
}

#[test]
fn fields_are_located_again_when_they_are_asked_for() {
    let spec = format!("hosts:\n- a\nhttp:\n{}{ROUTE}", "- match:\n  - headers: {x.y: {exact: z}}\n");
    let parsed = load(&virtual_service("a", &spec));
    let object = &parsed.objects[0];
    let cases = [
        ("spec.hosts[0]", "6:5"),
        ("spec.http[0].route[0].destination.host", "11:27"),
        ("spec.http[0].match[0].headers[\"x.y\"].exact", "9:30"),
        ("spec.http[0].match[0].withoutHeaders.q", "9:7"),
        ("spec.http[7]", "8:3"),
        ("metadata.name", "3:18"),
        ("", "1:1"),
    ];
    for (path, place) in cases {
        assert_eq!(object.locate(path).to_string(), place, "{path}");
    }
    let location = object.location("spec.http[0].route[0].destination.host").expect("a place");
    assert_eq!((location.to_string().as_str(), location.length), ("shop.yaml:11:27", 1));
}

#[test]
fn all_versions_of_istio_kinds_are_read() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text =
            virtual_service("a", &format!("hosts: [a]\nhttp:\n-\n{ROUTE}")).replace("/v1\n", &format!("/{version}\n"));
        let parsed = lateen_config::parse(&SourceFile::new("a.yaml", text));
        assert_eq!((parsed.objects.len(), parsed.has_errors()), (1, false), "{version}");
    }
}
