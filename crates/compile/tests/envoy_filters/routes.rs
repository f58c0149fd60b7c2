//! What do patches change in route configurations, virtual hosts and routes?

use lateen_xds::envoy::config::route::v3::RouteConfiguration;

use super::*;

fn routes(name: &str) -> Resource<RouteConfiguration> {
    let route = |name: &str, action: Value| {
        let mut route = json!({"name": name, "match": {"prefix": format!("/{name}")}});
        route.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
        route
    };
    let message = json::parse(json!({
        "name": name,
        "virtual_hosts": [
            {"name": "a.example.com:80", "domains": ["a.example.com", "a"], "routes": [
                route("one", json!({"route": {"cluster": "c"}})),
                route("two", json!({"redirect": {"host_redirect": "b"}})),
                route("three", json!({"direct_response": {"status": 200}})),
            ]},
            {"name": "b.example.com:80", "domains": ["b.example.com"], "routes": [
                route("one", json!({"route": {"cluster": "c"}})),
            ]},
        ],
    }))
    .unwrap();
    let part = |virtual_host, route| Part::Route { virtual_host, route };
    let origins = vec![
        (Part::Whole, origin("whole")),
        (Part::VirtualHost(1), origin("b")),
        (part(0, 0), origin("a-one")),
        (part(0, 1), origin("a-two")),
        (part(0, 2), origin("a-three")),
        (part(1, 0), origin("b-one")),
    ];
    Resource::new(message, origins)
}

fn patched_routes(
    patches: &Patches,
    context: PatchContext,
    resource: &Resource<RouteConfiguration>,
) -> (Resource<RouteConfiguration>, Vec<String>) {
    let role = if context == PatchContext::Gateway { Role::Gateway } else { Role::Sidecar };
    let selected = for_role(patches, role);
    let mut report = Report::default();
    let patched = with_lookup(|lookup| selected.route_configuration(context, resource, lookup, &mut report));
    (patched, selected.diagnostics(&report).iter().map(ToString::to_string).collect())
}

fn hosts(resource: &Resource<RouteConfiguration>) -> Vec<String> {
    let hosts = &resource.message.virtual_hosts;
    hosts
        .iter()
        .map(|host| {
            let routes: Vec<&str> = host.routes.iter().map(|route| route.name.as_str()).collect();
            format!("{}: {}", host.name, routes.join(" "))
        })
        .collect()
}

const NEW_ROUTE: &str = "{name: new, match: {path: /new}, route: {cluster: own}}";

#[test]
fn routes_go_where_their_operation_says() {
    let patch = |operation: &str, route: Option<&str>| {
        let route = route.map(|route| format!(", route: {{{route}}}")).unwrap_or_default();
        root(&format!(
            "- applyTo: HTTP_ROUTE\n  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'{route}}}}}}}\n  patch: {{operation: {operation}, value: {NEW_ROUTE}}}\n"
        ))
    };
    let cases = [
        ("ADD", None, "one two three new"),
        ("ADD", Some("name: one"), "one two three new"),
        ("INSERT_FIRST", None, "new one two three"),
        ("INSERT_FIRST", Some("name: three"), "new one two three"),
        ("INSERT_FIRST", Some("name: absent"), "one two three"),
        ("INSERT_BEFORE", None, "new one two three"),
        ("INSERT_BEFORE", Some("name: two"), "one new two three"),
        ("INSERT_AFTER", None, "one two three new"),
        ("INSERT_AFTER", Some("name: two"), "one two new three"),
        ("INSERT_AFTER", Some("action: REDIRECT"), "one two new three"),
        ("INSERT_AFTER", Some("name: absent"), "one two three"),
        ("REMOVE", Some("action: DIRECT_RESPONSE"), "one two"),
        ("REMOVE", Some("name: two, action: ROUTE"), "one two three"),
        ("REMOVE", None, ""),
    ];
    for (operation, route, expected) in cases {
        let base = routes("80");
        assert_eq!(messages(&patch(operation, route)), Vec::<String>::new());
        let (resource, said) = patched_routes(&patch(operation, route), PatchContext::SidecarOutbound, &base);
        let what = format!("{operation} {route:?}");
        assert_eq!(hosts(&resource), [&format!("a.example.com:80: {expected}"), "b.example.com:80: one"], "{what}");
        assert_eq!(said.is_empty(), expected != "one two three", "{what}: {said:?}");
        // Each route still knows where it came from.
        for (index, route) in resource.message.virtual_hosts[0].routes.iter().enumerate() {
            let own = origins(&resource, Part::Route { virtual_host: 0, route: index });
            let expected =
                if route.name == "new" { "test configPatches[0]".into() } else { format!("a-{}", route.name) };
            assert_eq!(own, [expected], "{what}");
        }
        assert_eq!(origins(&resource, Part::Route { virtual_host: 1, route: 0 }), ["b-one"]);
    }
}

#[test]
fn routes_are_merged_before_others_are_inserted() {
    let items = format!(
        "
- applyTo: HTTP_ROUTE
  patch: {{operation: INSERT_FIRST, value: {NEW_ROUTE}}}
- applyTo: HTTP_ROUTE
  match: {{routeConfiguration: {{vhost: {{route: {{action: ROUTE}}}}}}}}
  patch: {{operation: MERGE, value: {{route: {{timeout: 3s}}, request_headers_to_remove: [x]}}}}
- applyTo: HTTP_ROUTE
  match: {{routeConfiguration: {{vhost: {{route: {{name: one}}}}}}}}
  patch: {{operation: MERGE_AND_REPLACE_LIST, value: {{request_headers_to_remove: [z]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["a.example.com:80: new one two three", "b.example.com:80: new one"]);
    let rendered = json::render(&*resource.message).unwrap();
    let routes = &rendered["virtual_hosts"][0]["routes"];
    assert_eq!(routes[0]["route"], json!({"cluster": "own"}));
    assert_eq!(routes[1]["route"], json!({"cluster": "c", "timeout": "3s"}));
    assert_eq!(routes[1]["request_headers_to_remove"], json!(["z"]));
    let expected = ["a-one", "test configPatches[1]", "test configPatches[2]"];
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 1 }), expected);
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn virtual_hosts_are_removed_merged_replaced_and_added() {
    let items = format!(
        "
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'}}}}}}
  patch: {{operation: REMOVE}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{domainName: b.example.com}}}}}}
  patch: {{operation: MERGE, value: {{request_headers_to_remove: [x], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  patch: {{operation: ADD, value: {{name: 'c.example.com:80', domains: [c.example.com], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  patch: {{operation: INSERT_FIRST, value: {{name: late, domains: [B.example.com]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["b.example.com:80: one new", "c.example.com:80: new"]);
    assert_eq!(origins(&resource, Part::Whole), ["whole", "test configPatches[0]"]);
    assert_eq!(origins(&resource, Part::VirtualHost(0)), ["b", "test configPatches[1]"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 0 }), ["b-one"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 1 }), ["test configPatches[1]"]);
    assert_eq!(origins(&resource, Part::VirtualHost(1)), ["test configPatches[2]"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("`b.example.com:80` has the domain `B.example.com` as well"), "{said:?}");

    let items = format!(
        "
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'a.example.com:80'}}}}}}
  patch: {{operation: REPLACE, value: {{name: own, domains: [a], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'b.example.com:80'}}}}}}
  patch: {{operation: MERGE_AND_REPLACE_LIST, value: {{domains: [d], routes: [{NEW_ROUTE}]}}}}
- applyTo: VIRTUAL_HOST
  match: {{routeConfiguration: {{vhost: {{name: 'b.example.com:80'}}}}}}
  patch: {{operation: MERGE, value: {{domains: [A]}}}}
"
    );
    let (resource, said) = patched_routes(&root(&items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["own: new", "b.example.com:80: new"]);
    assert_eq!(resource.message.virtual_hosts[1].domains, ["d"]);
    assert_eq!(origins(&resource, Part::Route { virtual_host: 0, route: 0 }), ["test configPatches[0]"]);
    assert!(said[0].contains("has the domain `A` as well"), "{said:?}");
}

#[test]
fn a_route_configuration_is_merged() {
    let items = "
- applyTo: ROUTE_CONFIGURATION
  match: {routeConfiguration: {name: '80'}}
  patch: {operation: MERGE, value: {validate_clusters: false, virtual_hosts: [{name: c, domains: [c]}]}}
- applyTo: ROUTE_CONFIGURATION
  patch: {operation: MERGE, value: {virtual_hosts: [{name: twice, domains: [c]}]}}
- applyTo: ROUTE_CONFIGURATION
  patch: {operation: MERGE, value: {name: other}}
";
    let (resource, said) = patched_routes(&root(items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(resource.message.validate_clusters, Some(false));
    assert_eq!(hosts(&resource)[2], "c: ");
    assert_eq!(origins(&resource, Part::VirtualHost(1)), ["b"]);
    assert_eq!(origins(&resource, Part::VirtualHost(2)), ["test configPatches[0]"]);
    assert_eq!(said.len(), 2, "{said:?}");
    let items = "- applyTo: ROUTE_CONFIGURATION\n  patch: {operation: MERGE_AND_REPLACE_LIST, value: {virtual_hosts: [{name: c, domains: [c]}]}}\n";
    let (resource, _) = patched_routes(&root(items), PatchContext::SidecarOutbound, &routes("80"));
    assert_eq!(hosts(&resource), ["c: "]);
    assert_eq!(origins(&resource, Part::VirtualHost(0)), ["test configPatches[0]"]);
}

#[test]
fn a_route_configuration_is_found_by_name_port_and_gateway() {
    let matches = |name: &str, context: PatchContext, wanted: &str| {
        let items = format!(
            "- applyTo: ROUTE_CONFIGURATION\n  match: {{routeConfiguration: {{{wanted}}}}}\n  patch: {{operation: MERGE, value: {{validate_clusters: true}}}}\n"
        );
        let (resource, _) = patched_routes(&root(&items), context, &routes(name));
        resource.message.validate_clusters.is_some()
    };
    let sidecar = PatchContext::SidecarOutbound;
    assert!(matches("9080", sidecar, "name: '9080'"));
    assert!(matches("9080", sidecar, "portNumber: 9080"));
    assert!(!matches("9080", sidecar, "portNumber: 9081"));
    assert!(matches("inbound|8080||", PatchContext::SidecarInbound, "portNumber: 8080"));
    assert!(!matches("a.example.com:9080", sidecar, "portNumber: 9080"));
    // On a gateway the number is that of the servers, where it is known.
    let gateway = PatchContext::Gateway;
    assert!(matches("http.8080", gateway, "portNumber: 80"));
    assert!(matches("http.8080", gateway, "portNumber: 81"));
    assert!(!matches("http.8080", gateway, "portNumber: 8080"));
    assert!(matches("http.9090", gateway, "portNumber: 9090"));
    let https = "https.443.web.main.shop";
    assert!(matches(https, gateway, "portNumber: 443, portName: web, gateway: shop/main"));
    assert!(!matches(https, gateway, "portName: other"));
    assert!(!matches(https, gateway, "gateway: shop/other"));
    assert!(!matches("http.8080", gateway, "gateway: shop/main"));
}

#[test]
fn routes_inside_an_inbound_listener_are_patched() {
    let mut chain = http_chain(json!({}));
    let config = chain["filters"][0]["typed_config"].as_object_mut().unwrap();
    config.remove("rds");
    config.insert("route_config".into(), json::render(&*routes("inbound|9080||").message).unwrap());
    let base = listener("virtualInbound", json!([chain]));
    let items = "- applyTo: VIRTUAL_HOST\n  match: {context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 9080, vhost: {name: 'b.example.com:80'}}}\n  patch: {operation: REMOVE}\n";
    let (resource, said) = patched(&root(items), PatchContext::SidecarInbound, &base);
    let rendered = json::render(&*resource.message).unwrap();
    let hosts = &rendered["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"];
    assert_eq!(hosts.as_array().unwrap().len(), 1);
    assert_eq!(origins(&resource, Part::FilterChain(0)), ["listener", "test configPatches[0]"]);
    assert_eq!(said, Vec::<String>::new());
}
