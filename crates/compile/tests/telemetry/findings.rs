//! What is said of what is asked for in vain?

use super::*;

#[test]
fn what_telemetry_asks_for_in_vain_is_said() {
    let mesh = format!(
        "{PROVIDERS}\n- {{name: dynatrace, opentelemetry: {{service: collector.observability.svc.cluster.local, port: 9411, http: {{path: /, headers: [{{name: key, envName: KEY}}]}}, dynatraceSampler: {{tenant: a, clusterId: 1}}}}}}"
    );
    let spec = "
  accessLogging: [{providers: [{name: plane}, {name: nowhere}, {name: zip}]}]
  tracing: [{providers: [{name: dynatrace}]}]
  metrics: [{overrides: [{disabled: true}]}]";
    let world = shop_world(&mesh, &[telemetry("t", "istio-system", spec)]);
    let found: Vec<String> =
        world.diagnostics().iter().map(|finding| format!("{} {}", finding.path, finding.message)).collect();
    assert_eq!(
        found,
        [
            "spec.accessLogging[0].providers[0].name provider `plane` does not exist",
            "spec.accessLogging[0].providers[1].name nothing goes to provider `nowhere`: `missing.example.com` is not a known service",
            "spec.accessLogging[0].providers[2].name provider `zip` takes no access logs here: nothing goes there",
            "spec.tracing[0].providers[0].name `http.headers[].envName` of provider `dynatrace` is not carried out",
            "spec.tracing[0].providers[0].name `dynatraceSampler` of provider `dynatrace` is not carried out",
            "spec.metrics[0].overrides overrides of metrics are carried out by Istio's build of Envoy alone",
        ]
    );
    let objects = telemetry(
        "t",
        "default",
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], accessLogging: [{disabled: true}]}",
    );
    let world = shop_world(PROVIDERS, &[objects]);
    assert_eq!(three_targets(&world), all("/dev/stderr"));
    assert_eq!(world.diagnostics()[0].message, "a Telemetry for other objects than workloads is not compiled yet");
}

#[test]
fn objects_that_keep_nobody_out_say_so() {
    let object = |group: &str, kind: &str| {
        format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: a, namespace: default}}\nspec: {{}}\n")
    };
    let yaml = [
        object("security.istio.io/v1", "AuthorizationPolicy"),
        object("security.istio.io/v1", "RequestAuthentication"),
        object("extensions.istio.io/v1alpha1", "WasmPlugin"),
        // What it says is for the start of proxies.
        object("networking.istio.io/v1beta1", "ProxyConfig"),
    ]
    .concat();
    let found: Vec<String> = world(&yaml).diagnostics().iter().map(|finding| finding.message.clone()).collect();
    assert_eq!(
        found,
        ["AuthorizationPolicy", "RequestAuthentication", "WasmPlugin"]
            .map(|kind| format!("{kind} is not carried out: requests pass as if it were not there"))
    );
}

#[test]
fn settings_of_single_pods_are_said_where_they_would_count() {
    let pod = |config: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: default\n  annotations:\n    proxy.istio.io/config: |\n      {config}\nspec: {{}}\n"
        )
    };
    assert_eq!(world(&pod("concurrency: 2")).diagnostics().len(), 0);
    let found: Vec<String> = world(&pod("{tracing: {sampling: 1}, proxyHeaders: {requestId: {disabled: true}}}"))
        .diagnostics()
        .iter()
        .map(|finding| finding.message.clone())
        .collect();
    assert_eq!(
        found,
        ["proxyHeaders", "tracing"]
            .map(|field| format!("`{field}` of single Pods is not compiled: that of the mesh holds for all"))
    );
}
