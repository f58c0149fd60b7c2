//! Does real Envoy take every logger, tracer and setting?

use lateen_compile::{Scope, compile};

use super::*;

#[test]
fn envoy_accepts_all_loggers_and_tracers() {
    let logs = access_logging(
        "[{providers: [{name: plain}, {name: own-text}, {name: labels}, {name: http-als}, {name: tcp-als}, {name: otel-als}, {name: envoy}], filter: {expression: 'response.code >= 400 || connection.mtls'}}]",
    );
    for (name, provider) in
        [("zipkin", "zip"), ("zipkin-http", "zip-http"), ("opentelemetry", "otel"), ("opentelemetry-http", "otel-http")]
    {
        let traces = format!(
            "{{tracing: [{{providers: [{{name: {provider}}}], useRequestIdForTraceSampling: false, customTags: {{a: {{header: {{name: x-a}}}}, b: {{environment: {{name: HOME}}}}, c: {{formatter: {{value: '%REQ(X-A)%'}}}}}}}}]}}"
        );
        let world =
            shop_world(PROVIDERS, &[telemetry("logs", "istio-system", &logs), telemetry("traces", "default", &traces)]);
        envoy_accepts(&format!("telemetry-{name}"), &compile(&world, &sidecar_of_shop()));
    }
    let world = shop_world(PROVIDERS, &[telemetry("logs", "istio-system", &logs)]);
    envoy_accepts("telemetry-gateway", &compile(&world, &Scope::gateway("istio-system")));
}

#[test]
fn envoy_accepts_the_meshs_own_settings() {
    let mesh = "
enableEnvoyAccessLogService: true
accessLogFile: /dev/null
defaultConfig:
  envoyAccessLogService: {address: 'als:9000'}
  tracing: {zipkin: {address: 'zipkin:9411'}, maxPathTagLength: 100}
  gatewayTopology: {numTrustedProxies: 1, forwardClientCertDetails: FORWARD_ONLY, proxyProtocol: {}}
  proxyHeaders:
    forwardedClientCert: SANITIZE
    requestId: {disabled: true}
    server: {disabled: true}
    attemptCount: {disabled: true}
    envoyDebugHeaders: {disabled: true}
    preserveHttp1HeaderCase: true
    xForwardedHost: {enabled: true}
    xForwardedPort: {enabled: true}
";
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match: [{headers: {'@request.auth.claims.a': {regex: 'b.*'}}, withoutHeaders: {'@request.auth.claims[c]': {}}}]
    rewrite: {authority: other}
    route: [{destination: {host: shop, port: {number: 80}}}]
";
    let world = shop_world(mesh, &[rules.to_owned()]);
    envoy_accepts("telemetry-mesh-sidecar", &compile(&world, &sidecar_of_shop()));
    envoy_accepts("telemetry-mesh-gateway", &compile(&world, &Scope::gateway("istio-system")));
}
