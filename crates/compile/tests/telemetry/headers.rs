//! Which headers do proxies add and look at?

use lateen_compile::{Scope, compile};
use lateen_xds::any::unpack;
use lateen_xds::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    http_connection_manager as hcm, http_filter,
};

use super::*;

#[test]
fn headers_of_proxies_are_the_meshs_choice() {
    let mesh = "
defaultConfig:
  proxyHeaders:
    forwardedClientCert: SANITIZE_SET
    setCurrentClientCertDetails: {subject: false, cert: true}
    requestId: {disabled: true}
    server: {value: shop}
    attemptCount: {disabled: true}
    envoyDebugHeaders: {disabled: true}
    preserveHttp1HeaderCase: true
    xForwardedPort: {enabled: true}
";
    let world = shop_world(mesh, &[]);
    let [outbound, inbound, gateway] = three(&world);
    for manager in [&outbound, &inbound, &gateway] {
        assert_eq!(manager.generate_request_id, Some(false));
        assert_eq!(manager.server_name, "shop");
        assert!(manager.append_x_forwarded_port);
        assert!(manager.http_protocol_options.as_ref().unwrap().header_key_format.is_some());
        let router = manager.http_filters.last().unwrap();
        let Some(http_filter::ConfigType::TypedConfig(config)) = &router.config_type else { panic!("no router") };
        assert!(unpack::<Router>(config).unwrap().suppress_envoy_headers);
    }
    let details = inbound.set_current_client_cert_details.unwrap();
    assert_eq!((details.subject, details.cert, details.dns, details.uri), (Some(false), true, true, true));
    assert_eq!(inbound.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::SanitizeSet));
    assert_eq!(
        gateway.set_current_client_cert_details.unwrap().subject,
        Some(true),
        "gateways have their own settings"
    );
    for scope in [sidecar_of_shop(), Scope::gateway("istio-system")] {
        let set = compile(&world, &scope);
        for routes in set.routes.values() {
            assert!(routes.message.virtual_hosts.iter().all(|host| !host.include_request_attempt_count));
        }
    }
}

#[test]
fn the_servers_own_name_may_be_left_alone() {
    let [outbound, inbound, gateway] =
        three(&shop_world("defaultConfig: {proxyHeaders: {server: {disabled: true}}}", &[]));
    for manager in [outbound, inbound, gateway] {
        assert_eq!(manager.server_name, "");
        assert_eq!(manager.server_header_transformation, i32::from(hcm::ServerHeaderTransformation::PassThrough));
    }
}

#[test]
fn what_stands_in_front_of_gateways_changes_gateways_alone() {
    let mesh = "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: ALWAYS_FORWARD_ONLY, proxyProtocol: {}}}";
    let world = shop_world(mesh, &[]);
    let [outbound, inbound, gateway] = three(&world);
    assert_eq!((outbound.xff_num_trusted_hops, inbound.xff_num_trusted_hops, gateway.xff_num_trusted_hops), (0, 0, 2));
    assert_eq!(gateway.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::AlwaysForwardOnly));
    assert_eq!(inbound.forward_client_cert_details, i32::from(hcm::ForwardClientCertDetails::AppendForward));
    let set = compile(&world, &Scope::gateway("istio-system"));
    assert_eq!(listener(&set, "0.0.0.0_80").listener_filters[0].name, "envoy.filters.listener.proxy_protocol");
    let set = compile(&world, &sidecar_of_shop());
    assert!(listener(&set, "0.0.0.0_80").listener_filters.iter().all(|filter| !filter.name.contains("proxy_protocol")));
}

#[test]
fn the_host_of_a_request_is_kept_where_it_is_rewritten() {
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop]
  http:
  - {name: plain, match: [{uri: {prefix: /plain}}], route: [{destination: {host: shop}}]}
  - {name: rewritten, match: [{uri: {prefix: /rewritten}}], rewrite: {authority: other}, route: [{destination: {host: shop}}]}
  - name: weighted
    route:
    - {destination: {host: shop}, weight: 1, headers: {request: {set: {host: other}}}}
    - {destination: {host: shop, subset: v1}, weight: 1}
";
    let kept = |mesh: &str| {
        let set = compile(&shop_world(mesh, &[rules.to_owned()]), &sidecar_of_shop());
        let host = virtual_host(&set, "80", "shop.default.svc.cluster.local:80");
        let appends = |route: &&lateen_xds::envoy::config::route::v3::Route| forwarding(route).append_x_forwarded_host;
        host.routes.iter().filter(appends).map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kept("defaultConfig: {proxyHeaders: {xForwardedHost: {enabled: true}}}"), ["rewritten", "weighted"]);
    assert_eq!(kept(""), [""; 0]);
}

#[test]
fn claims_of_tokens_are_asked_for_at_gateways() {
    let rules = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match:
    - headers: {'@request.auth.claims.groups.main': {exact: admin}, x-a: {exact: b}}
      withoutHeaders: {'@Request.Auth.Claims[my.org][role]': {prefix: guest}}
    route: [{destination: {host: shop, port: {number: 80}}}]
";
    let world = shop_world("", &[rules.to_owned()]);
    let set = compile(&world, &Scope::gateway("istio-system"));
    let route = virtual_host(&set, "http.80", "*:80").routes[0].r#match.clone().unwrap();
    assert_eq!(route.headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>(), ["x-a"]);
    for (matcher, (keys, inverted)) in route
        .dynamic_metadata
        .iter()
        .zip([(["payload", "groups", "main"], false), (["payload", "my.org", "role"], true)])
    {
        use lateen_xds::envoy::r#type::matcher::v3::{metadata_matcher::path_segment::Segment, value_matcher};
        let path: Vec<String> = matcher
            .path
            .iter()
            .map(|segment| match segment.segment.as_ref().unwrap() {
                Segment::Key(key) => key.clone(),
            })
            .collect();
        assert_eq!(
            (matcher.filter.as_str(), path, matcher.invert),
            ("envoy.filters.http.jwt_authn", keys.map(str::to_owned).to_vec(), inverted)
        );
        let Some(value_matcher::MatchPattern::OrMatch(either)) = &matcher.value.as_ref().unwrap().match_pattern else {
            panic!("{matcher:?}")
        };
        assert_eq!(either.value_matchers.len(), 2, "the value, or a list that has it");
    }
    let found: Vec<&str> = world.diagnostics().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(
        found,
        ["no request matches a claim: tokens are not read, for RequestAuthentication is not carried out"; 2]
    );
}
