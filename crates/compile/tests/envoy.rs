//! Does real Envoy take what is compiled? Every shape of this crate is checked with `envoy --mode validate`.
//!
//! Without an Envoy binary (`scripts/install-envoy` installs one) the test says so and checks nothing more than that
//! the configuration can be written down.
#![allow(clippy::unwrap_used)]

mod mesh;

use lateen_compile::{
    AccessLog, AccessLogEncoding, Interception, Mesh, PathNormalization, Scope, compile, compile_and_report,
};
use mesh::*;

/// Nearly every field that is compiled.
fn everything() -> String {
    let rules = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 8081, name: redirect, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: ['secure.example.com']}
  - {port: {number: 8082, name: empty, protocol: HTTP}, bind: 127.0.0.2, hosts: ['none.example.com']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: everything, namespace: default}
spec:
  hosts: [reviews, shop.example.com, '*.wide.example.com']
  gateways: [mesh, shop]
  http:
  - name: matches
    match:
    - name: all
      uri: {regex: '/a/[0-9]+'}
      scheme: {exact: http}
      method: {regex: GET|HEAD}
      authority: {prefix: shop}
      headers: {x-a: {exact: '1'}, x-b: {}, x-c: {regex: 'a.*'}}
      withoutHeaders: {x-d: {exact: v}, x-e: {}, x-f: {regex: '*'}}
      queryParams: {q: {exact: '1'}, r: {regex: '[0-9]+'}, s: {}}
      ignoreUriCase: true
      statPrefix: all
    - uri: {exact: /exact}
    rewrite: {uri: /b, authority: other.example.com}
    headers:
      request: {set: {x-set: '%REQ(:path)%'}, add: {x-add: '100%%'}, remove: [x-remove]}
      response: {set: {x-set: v}, add: {x-add: v}, remove: [server]}
    timeout: 5s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,503,429', retryRemoteLocalities: true, backoff: 10ms}
    fault: {delay: {percentage: {value: 0.1}, fixedDelay: 5s}, abort: {percentage: {value: 10}, httpStatus: 503}}
    corsPolicy: {allowOrigins: [{exact: 'https://a.example.com'}, {regex: '.*'}], allowMethods: [GET], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 24h, allowCredentials: true}
    mirrors: [{destination: {host: ratings}, percentage: {value: 10}}]
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90, headers: {request: {set: {host: v1.example.com, x-v: '1'}}}}
    - {destination: {host: reviews, subset: v2}, weight: 10}
    - {destination: {host: reviews, subset: v3}}
  - match: [{uri: {prefix: /re}}]
    rewrite: {uriRegexRewrite: {match: '^/re/(.*)', rewrite: '/\\1'}}
    fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}
    mirror: {host: ratings}
    route: [{destination: {host: hashed}}]
  - match: [{uri: {prefix: /redirect}}]
    redirect: {prefixRewrite: /r, authority: b.example.com, scheme: https, port: 8443, redirectCode: 308}
  - match: [{uri: {prefix: /gone}}]
    redirect: {authority: b.example.com}
  - match: [{uri: {exact: /direct}}]
    directResponse: {status: 200, body: {string: hello}}
    headers: {response: {set: {content-type: text/plain}}}
  - match: [{uri: {exact: /bytes}}]
    directResponse: {status: 204}
  - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 30ms, tcpKeepalive: {time: 7200s, interval: 75s, probes: 3}, maxConnectionDuration: 1h}
      http: {http1MaxPendingRequests: 100, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 3, idleTimeout: 300s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 100, http2KeepAlive: {interval: 30s, timeout: 5s}}
    outlierDetection: {consecutive5xxErrors: 5, consecutiveGatewayErrors: 3, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50, minHealthPercent: 30, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 5}
    retryBudget: {percent: 25, minRetryConcurrency: 5}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hashed, namespace: default}
spec:
  host: hashed
  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: session, ttl: 3600s, path: /, attributes: [{name: SameSite, value: Lax}]}, maglev: {tableSize: 101}}}}
  subsets:
  - {name: ring, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 64}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external, namespace: default}
spec: {hosts: [ext.example.com, other.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 9090, name: grpc, protocol: GRPC}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: anywhere, namespace: default}
spec: {hosts: ['*.anywhere.example.com', here.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: NONE}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: fixed, namespace: default}
spec: {hosts: [fixed.example.com], addresses: [10.9.0.1], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.1, locality: us/east/a}, {address: 'unix:///run/fixed.sock', weight: 3}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, ports: [{name: web, port: 80}, {name: tcp, port: 5432}, {name: udp, port: 53, protocol: UDP}]}
"
    .to_owned();
    [
        rules,
        service("reviews", 9080),
        service("ratings", 9080),
        service("hashed", 80),
        workload("reviews", "v1", 9081),
        workload("reviews", "v2", 9082),
    ]
    .concat()
}

fn mesh_with_logs(encoding: AccessLogEncoding) -> Mesh {
    Mesh {
        access_log: Some(AccessLog { encoding, ..AccessLog::text("/dev/null") }),
        path_normalization: PathNormalization::DecodeAndMergeSlashes,
        ..Mesh::default()
    }
}

#[test]
fn envoy_accepts_a_gateway() {
    let world = world_with(&everything(), mesh_with_logs(AccessLogEncoding::Text));
    envoy_accepts("gateway", &compile(&world, &Scope::gateway("istio-system")));
}

#[test]
fn envoy_accepts_a_sidecar_that_is_addressed() {
    let world = world_with(&everything(), mesh_with_logs(AccessLogEncoding::Json));
    let mut scope = sidecar_scope("default", &[]);
    scope.http_proxy_port = Some(15080);
    envoy_accepts("sidecar-addressed", &compile(&world, &scope));
}

#[test]
fn envoy_accepts_a_sidecar_behind_redirection() {
    let world = world_with(&everything(), mesh_with_logs(AccessLogEncoding::Text));
    let mut scope = sidecar_scope("default", &[]);
    scope.interception = Interception::Redirect;
    envoy_accepts("sidecar-redirected", &compile(&world, &scope));
}

/// Every type of patch with every way of changing, on listeners of gateways and sidecars.
const PATCHES: &str = "
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: everything, namespace: istio-system}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value: {stat_prefix: limit, token_bucket: {max_tokens: 9, tokens_per_fill: 9, fill_interval: 1s}}
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.local_ratelimit}}}}}
    patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, token_bucket: {fill_interval: 2s}}}}
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: script
        config_discovery: {config_source: {ads: {}}, type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]}
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: script
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: 'function envoy_on_request(handle) handle:headers():add(\"x-lua\", \"1\") end'}
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch: {operation: ADD, value: {name: behind, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}}
  - applyTo: NETWORK_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, common_http_protocol_options: {idle_timeout: 30s}, xff_num_trusted_hops: 2}}}
  - applyTo: NETWORK_FILTER
    patch: {operation: INSERT_FIRST, value: {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: rbac}}}
  - applyTo: NETWORK_FILTER
    patch: {operation: ADD, value: {name: behind, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: rbac}}}
  - applyTo: LISTENER_FILTER
    patch: {operation: INSERT_FIRST, value: {name: proxy, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true}}}
  - applyTo: FILTER_CHAIN
    patch: {operation: MERGE, value: {transport_socket_connect_timeout: 15s}}
  - applyTo: FILTER_CHAIN
    match: {context: GATEWAY}
    patch: {operation: ADD, value: {name: for-9, filter_chain_match: {destination_port: 9}, filters: [{name: echo, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}}
  - applyTo: FILTER_CHAIN
    match: {context: GATEWAY}
    patch: {operation: ADD, value: {name: again}}
  - applyTo: LISTENER
    patch: {operation: MERGE, value: {tcp_backlog_size: 100, per_connection_buffer_limit_bytes: 4096}}
  - applyTo: LISTENER
    patch: {operation: ADD, value: {name: extra, address: {socket_address: {address: 127.0.0.1, port_value: 15999}}, filter_chains: [{filters: [{name: echo, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]}}
  - applyTo: ROUTE_CONFIGURATION
    patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: x-patched, value: '1'}}]}}
  - applyTo: VIRTUAL_HOST
    patch: {operation: MERGE, value: {rate_limits: [{actions: [{remote_address: {}}]}]}}
  - applyTo: VIRTUAL_HOST
    patch: {operation: ADD, value: {name: more, domains: [more.example.com], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}}
  - applyTo: VIRTUAL_HOST
    patch: {operation: ADD, value: {name: twice, domains: [MORE.example.com]}}
  - applyTo: HTTP_ROUTE
    patch: {operation: INSERT_FIRST, value: {name: health, match: {path: /health}, direct_response: {status: 204}}}
  - applyTo: HTTP_ROUTE
    match: {routeConfiguration: {vhost: {route: {action: ROUTE}}}}
    patch: {operation: MERGE, value: {route: {timeout: 7s}}}
  - applyTo: CLUSTER
    patch: {operation: MERGE, value: {connect_timeout: 0.250s, per_connection_buffer_limit_bytes: 4096}}
  - applyTo: CLUSTER
    patch: {operation: ADD, value: {name: more, type: STATIC, load_assignment: {cluster_name: more}}}
  - applyTo: CLUSTER
    patch: {operation: ADD, value: {name: BlackHoleCluster, type: STATIC}}
";

#[test]
fn envoy_accepts_what_patches_leave() {
    let world = world_with(&(everything() + PATCHES), mesh_with_logs(AccessLogEncoding::Text));
    let mut redirected = sidecar_scope("default", &[("app", "reviews"), ("version", "v1")]);
    redirected.interception = Interception::Redirect;
    for (name, scope) in [("patched-gateway", Scope::gateway("istio-system")), ("patched-sidecar", redirected)] {
        let (set, said) = compile_and_report(&world, &scope);
        let said: Vec<String> = said.iter().map(|said| format!("{} {}", said.path, said.code)).collect();
        // What Envoy would refuse is left out, and told.
        let mut expected = vec!["spec.configPatches[7] LTN0126"];
        if name == "patched-gateway" {
            expected.push("spec.configPatches[11] LTN0126");
        }
        expected.extend(["spec.configPatches[17] LTN0126", "spec.configPatches[22] LTN0126"]);
        assert_eq!(said, expected, "{name}");
        envoy_accepts(name, &set);
    }
}
