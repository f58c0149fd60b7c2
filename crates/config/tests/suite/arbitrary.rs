//! Is there a text that makes the reader panic?

use lateen_config::{SourceFile, load, mesh_of_config_map, parse_mesh, render};
use proptest::prelude::*;

/// Something of everything, to be damaged.
const WHOLE: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, labels: &l {x: \"1\"}, annotations: *l}
spec:
  hosts: [a, \"*.b.c\"]
  http:
  - match:
    - uri: {regex: \"/[a-z]+\\\\d\"}
      headers: {x: {}, \"@request.auth.claims.y\": {exact: é}}
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: \"5xx,503\"}
    fault: {delay: {percentage: {value: 0.1}, fixedDelay: 3s}}
    headers: {request: {set: {a: \"%REQ(x)% %%\"}}}
    route:
    - destination: {host: a, port: {number: 80}}
      weight: 1
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, subsets: [{name: v1, labels: {<<: {v: \"1\"}}}], trafficPolicy: {loadBalancer: {simple: RANDOM,
  localityLbSetting: {distribute: [{from: a/*, to: {a/b: 50, c: 50}}]}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio}
data:
  mesh: |
    accessLogFile: /dev/stdout
    connectTimeout: 1s
    extensionProviders: [{name: a, zipkin: {service: n/z.a, port: 1}}, {name: b, envoyFileAccessLog: {}}]
    defaultConfig: {proxyHeaders: {server: {value: x}}, tracing: {sampling: 1}}
  other: >-
    folded

    text
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: a}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {portNumber: 80, filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: b}}}}}
    patch: {operation: INSERT_FIRST, value: {name: c, typed_config: {\"@type\": t/envoy.x.v3.Y, a: [{b: 1}]}}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a}
spec: {accessLogging: [{providers: [{name: a}], filter: {expression: \"true\"}}], tracing: [{customTags: {a: {header: {name: b}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a}
spec: {rules: [{host: a.b, http: {paths: [{path: /, pathType: Exact, backend: {service: {name: a, port: {number: 80}}}}]}}]}
";

fn read_everything(text: &str) {
    let file = SourceFile::new("any.yaml", text);
    let files = [file.clone()];
    let parsed = load(&files);
    let text = render(&parsed.diagnostics, &files);
    assert_eq!(text.is_empty(), parsed.diagnostics.is_empty());
    for object in &parsed.objects {
        assert!(object.locate("spec.http[0].route[1].destination.host").is_known());
        if let Some((mesh, diagnostics)) = mesh_of_config_map(object) {
            assert!(mesh.is_some() || !diagnostics.is_empty());
        }
    }
    let (mesh, diagnostics) = parse_mesh(&file);
    assert!(mesh.is_some() || !diagnostics.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_signs_of_yaml_are_read_without_a_panic(text in "[-a-c0-9:,?&*!|>'\"%@`#{}\\[\\]<~. \n\t\r\\\\é]{0,200}") {
        read_everything(&text);
    }

    #[test]
    fn damaged_objects_are_read_without_a_panic(
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize, "[-a:,&*|\"{}\\[\\] \n\t0é.]{0,4}"), 1..5)
    ) {
        let mut signs: Vec<char> = WHOLE.chars().collect();
        for (place, length, replacement) in damages {
            let start = place.index(signs.len());
            let end = (start + length).min(signs.len());
            signs.splice(start..end, replacement.chars());
        }
        read_everything(&signs.into_iter().collect::<String>());
    }
}

#[test]
fn the_undamaged_objects_are_right() {
    let parsed = crate::support::load(WHOLE);
    assert_eq!(parsed.objects.len(), 6);
    // Claims of tokens are for gateways, which this VirtualService is not bound to.
    assert_eq!(parsed.diagnostics.len(), 1, "{:?}", crate::support::lines(&parsed.diagnostics));
}
