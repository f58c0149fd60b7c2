//! Is what Istio refuses found, and what it takes let through?

use crate::support::{check, lines, load, object, problems};

const HTTP: &str = "hosts: [a]\nhttp:\n- ";
const TO_A: &str = "route: [{destination: {host: a}}]";

/// The same for one rule of a VirtualService, which begins on line 7 at column 5.
fn check_http(cases: &[(&str, &[&str])]) {
    for (rule, expected) in cases {
        assert_eq!(problems("VirtualService", &format!("{HTTP}{{{rule}}}\n")), *expected, "{rule}");
    }
}

#[test]
fn virtual_services() {
    let route = "http: [{route: [{destination: {host: a}}]}]";
    let cases: &[(String, &[&str])] = &[
        ("hosts: [a]\n".into(), &["5:3 the VirtualService has no rules"]),
        (
            format!("{route}\ngateways: [g]\ntcp: [{{route: [{{destination: {{host: a}}}}]}}]\n"),
            &[
                "6:13 a VirtualService without hosts is only delegated to, and has no `gateways`",
                "7:8 a VirtualService without hosts is only delegated to, and has no `tcp`",
            ],
        ),
        (format!("hosts: [a..b, a_b]\n{route}\n"), &["5:11 `a..b` is no host", "5:17 `a_b` is no host"]),
        (format!("hosts: [\"*\"]\n{route}\n"), &["5:11 the host `*` is not possible in the mesh"]),
        (format!("hosts: [\"*\"]\ngateways: [x/g]\n{route}\n"), &[]),
        (format!("hosts: [a.b.com, \"*.b.com\"]\n{route}\n"), &["5:20 the hosts `a.b.com` and `*.b.com` overlap"]),
        (
            format!("hosts: [a]\ngateways: [x/y/z, g.ns, g_]\n{route}\n"),
            &[
                "6:14 `x/y/z` is no name of a Gateway",
                "6:21 `g.ns` is the old form of a Gateway's name",
                "6:27 `g_` is no name of a Gateway",
            ],
        ),
        (
            format!("hosts: [a]\nexportTo: [\".\", default, \"~\"]\n{route}\n"),
            &[
                "6:19 `default` is in the list twice",
                "6:28 `~` is no namespace to export to",
                "6:28 `~` has to be alone",
            ],
        ),
        (
            "hosts: [a.com]\ntls:\n- match: [{sniHosts: [b.com], port: 70000}]\n  route: []\n".into(),
            &[
                "7:25 `b.com` is none of the VirtualService's hosts",
                "7:39 `spec.tls[0].match[0].port` is no port: 70000",
                "8:12 `spec.tls[0].route` has no destinations",
            ],
        ),
        (
            "hosts: [a.com]\ntcp:\n- match: [{destinationSubnets: [10.0.0.0/40]}]\n  route: [{weight: 1}]\n".into(),
            &[
                "7:35 `10.0.0.0/40` is neither an IP address nor a range",
                "8:13 `spec.tcp[0].route[0]` has no `destination`",
            ],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(problems("VirtualService", spec), *expected, "{spec}");
    }
}

#[test]
fn a_rule_does_exactly_one_thing() {
    check_http(&[
        ("name: x", &["7:5 `spec.http[0]` does nothing with requests"]),
        (
            "redirect: {uri: /x}, route: [{destination: {host: a}}]",
            &["7:34 `spec.http[0]` has both `redirect` and `route`"],
        ),
        (
            "redirect: {uri: /x}, directResponse: {status: 200}",
            &["7:43 `spec.http[0]` has both `redirect` and `directResponse`"],
        ),
        (
            "directResponse: {status: 200}, fault: {abort: {httpStatus: 500}}",
            &["7:44 `spec.http[0]` has both `directResponse` and `fault`"],
        ),
        (
            "delegate: {name: b}, route: [{destination: {host: a}}]",
            &["7:34 `spec.http[0]` has both `delegate` and `route`"],
        ),
        ("delegate: {name: b}, match: [{uri: {prefix: /b}}]", &[]),
        (
            "directResponse: {status: 99, body: {string: text}}",
            &["7:31 `spec.http[0].directResponse.status` is no status: 99"],
        ),
    ]);
    let nested = problems("VirtualService", "http: [{delegate: {name: b}}]\n");
    assert_eq!(nested, ["5:21 a VirtualService that is delegated to cannot delegate itself"]);
}

#[test]
fn conditions_of_http() {
    let case = |condition: &str| problems("VirtualService", &format!("{HTTP}match: [{condition}]\n  {TO_A}\n"));
    let none: [&str; 0] = [];
    assert_eq!(case("{uri: {prefix: \"\"}}"), none);
    assert_eq!(case("{method: {prefix: \"\"}}"), ["7:31 `spec.http[0].match[0].method.prefix` is empty"]);
    assert_eq!(case("{uri: {regex: \"\"}}"), ["7:27 `spec.http[0].match[0].uri.regex` is empty"]);
    assert_eq!(
        case("{uri: {regex: \"(\"}}"),
        ["7:27 `spec.http[0].match[0].uri.regex` is no regular expression: unclosed group"]
    );
    assert!(case("{uri: {regex: \"(?=x)\"}}")[0].contains("look-around"));
    assert_eq!(
        case(&format!("{{uri: {{regex: {}}}}}", "a".repeat(1025))),
        ["7:27 `spec.http[0].match[0].uri.regex` is longer than 1024 characters: 1025"]
    );
    assert_eq!(case("{headers: {x: {}}, withoutHeaders: {z: {regex: \"*\"}}}"), none);
    assert_eq!(case("{headers: {x: null}}"), ["7:24 `spec.http[0].match[0].headers.x` is null"]);
    assert_eq!(case("{headers: {\"x y\": {exact: z}}}"), ["7:24 `x y` is no name of a header"]);
    assert!(case("{headers: {x: {regex: \"*\"}}}")[0].contains("no regular expression"));
    assert_eq!(
        case("{headers: {\"@request.auth.claims.sub\": {exact: z}}}"),
        ["7:24 `@request.auth.claims.sub` is a claim of a token, which only gateways can match"]
    );
    assert_eq!(case("{port: 65536}"), ["7:20 `spec.http[0].match[0].port` is no port: 65536"]);
    assert_eq!(case("{sourceLabels: {\"a b\": x}}"), ["7:29 `a b` is no key of a label"]);
}

#[test]
fn destinations() {
    check_http(&[
        ("route: [{destination: {host: \"*\"}}]", &["7:35 `*` is no host to send to"]),
        (
            "route: [{destination: {host: a, subset: v_1, port: {number: 0}}}]",
            &[
                "7:46 `v_1` is no name of a subset",
                "7:66 `spec.http[0].route[0].destination.port.number` is no port: 0",
            ],
        ),
        (
            "route: [{destination: {host: a}, weight: -1}]",
            &["7:47 `spec.http[0].route[0].weight` must not be below zero: -1"],
        ),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]",
            &["7:13 the weights of `spec.http[0].route` add up to 0, so nothing goes anywhere"],
        ),
        ("route: [{destination: {host: a}, weight: 3}, {destination: {host: b}, weight: 550}]", &[]),
        ("route: [{weight: 3}]", &["7:14 `spec.http[0].route[0]` has no `destination`"]),
    ]);
}

#[test]
fn changes_of_requests() {
    let case = |fields: &str| problems("VirtualService", &format!("{HTTP}{TO_A}\n  {fields}\n"));
    let none: [&str; 0] = [];
    assert_eq!(case("headers: {request: {set: {host: b, x: \"%REQ(y)% 100%%\"}}}"), none);
    assert_eq!(
        case("headers: {request: {set: {x: 100%}}}"),
        ["8:34 `spec.http[0].headers.request.set.x`: a `%` stands alone"]
    );
    assert_eq!(
        case("headers: {response: {remove: [host], add: {\":status\": \"1\"}}}"),
        ["8:35 the header `host` cannot be changed here", "8:48 the header `:status` cannot be changed here"]
    );
    assert_eq!(
        problems(
            "VirtualService",
            &format!("{HTTP}{TO_A}\n  rewrite: {{authority: b}}\n  headers: {{request: {{set: {{host: c}}}}}}\n")
        ),
        ["7:5 `spec.http[0]` sets the authority more than once"]
    );
    assert_eq!(case("rewrite: {}"), ["8:14 `spec.http[0].rewrite` changes nothing"]);
    assert_eq!(
        case("rewrite: {uriRegexRewrite: {match: \"[\"}}"),
        [
            "8:32 `spec.http[0].rewrite.uriRegexRewrite` has no `rewrite`",
            "8:40 `spec.http[0].rewrite.uriRegexRewrite.match` is no regular expression: unclosed character class",
        ]
    );
    assert_eq!(
        case("mirror: {host: b}\n  mirrors: [{}]\n  mirrorPercent: 101"),
        [
            "8:13 `spec.http[0]` has both `mirror` and `mirrors`",
            "9:15 `spec.http[0].mirrors[0]` has no `destination`",
            "10:20 `spec.http[0].mirrorPercent` is no share: 101",
            "10:20 `spec.http[0].mirrorPercent` is deprecated",
        ]
    );
    assert_eq!(
        case("corsPolicy: {allowOrigins: [{}], allowMethods: [get], maxAge: 1500ms}"),
        [
            "8:33 `spec.http[0].corsPolicy.allowOrigins[0]` is empty",
            "8:53 `get` is no method",
            "8:67 `spec.http[0].corsPolicy.maxAge` must be a whole number of seconds",
        ]
    );
}

#[test]
fn redirects() {
    check_http(&[
        ("redirect: {}", &["7:16 `spec.http[0].redirect` leads to where the request came from"]),
        ("redirect: {redirectCode: 301}", &["7:16 `spec.http[0].redirect` leads to where the request came from"]),
        ("redirect: {uri: /x, redirectCode: 400}", &["7:40 `spec.http[0].redirect.redirectCode` is no redirect: 400"]),
        (
            "redirect: {uri: /x, prefixRewrite: /y}",
            &["7:41 `spec.http[0].redirect` has both `uri` and `prefixRewrite`"],
        ),
        (
            "match: [{uri: {exact: /x}}], redirect: {prefixRewrite: /y}",
            &["7:61 `spec.http[0].redirect.prefixRewrite` needs matches of `uri` by `prefix`"],
        ),
        ("redirect: {scheme: ftp}", &["7:25 `ftp` is no scheme"]),
        ("redirect: {port: 0}", &["7:23 `spec.http[0].redirect.port` is no port: 0"]),
        ("redirect: {derivePort: FROM_REQUEST_PORT}", &[]),
    ]);
}

#[test]
fn times_retries_and_faults() {
    let case = |fields: &str| problems("VirtualService", &format!("{HTTP}{TO_A}\n  {fields}\n"));
    let none: [&str; 0] = [];
    assert_eq!(case("timeout: 1ms"), none);
    assert_eq!(case("timeout: 0s"), ["8:14 `spec.http[0].timeout` must be at least 1ms"]);
    assert_eq!(case("timeout: 1.0005s"), ["8:14 `spec.http[0].timeout` must be a whole number of milliseconds"]);
    assert_eq!(case("retries: {attempts: 3, retryOn: \"5xx,503,unavailable\"}"), none);
    assert_eq!(case("retries: {attempts: 3, retryOn: \"5xx, 599\"}"), ["8:37 ` 599` is no condition for retries"]);
    assert_eq!(
        case("retries: {perTryTimeout: 2s}"),
        ["8:30 `spec.http[0].retries.perTryTimeout` is given, but `attempts` is 0: there are no retries"]
    );
    assert_eq!(case("retries: {attempts: -1}"), ["8:25 `spec.http[0].retries.attempts` must not be below zero"]);
    assert_eq!(case("fault: {}"), ["8:12 `spec.http[0].fault` injects nothing"]);
    assert_eq!(
        case("fault: {delay: {fixedDelay: 1s, percentage: {value: 100.5}}}"),
        ["8:57 `spec.http[0].fault.delay.percentage.value` is no share: 100.5"]
    );
    assert_eq!(case("fault: {delay: {fixedDelay: 1s, percentage: {value: 0.0001}}}"), none);
    assert_eq!(case("fault: {abort: {grpcStatus: OOPS}}"), ["8:33 `OOPS` is no gRPC status"]);
    assert_eq!(case("fault: {abort: {percentage: {value: 1}}}"), ["8:20 `spec.http[0].fault.abort` says no error"]);
}

#[test]
fn destination_rules() {
    check(
        "DestinationRule",
        &[
            ("host: a_b\n", &["5:9 `a_b` is no host"]),
            ("host: a\ntrafficPolicy: {}\n", &["6:18 `spec.trafficPolicy` says nothing"]),
            (
                "host: a\nsubsets: [{name: v1}, {name: v1}, {name: v_2, labels: {a: \"b c\"}}]\n",
                &[
                    "6:32 the subset `v1` is there twice",
                    "6:44 `v_2` is no name of a subset",
                    "6:61 `b c` is no value of a label",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s}}}\n",
                &[
                    "6:58 `spec.trafficPolicy.connectionPool.tcp.maxConnections` must not be below zero",
                    "6:78 `spec.trafficPolicy.connectionPool.tcp.connectTimeout` must be at least 1ms",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}\n",
                &[
                    "6:88 `spec.trafficPolicy.connectionPool.http` has both `h2UpgradePolicy: UPGRADE` and `useClientProtocol`",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {outlierDetection: {maxEjectionPercent: 101, consecutiveLocalOriginFailures: 3}}\n",
                &[
                    "6:58 `spec.trafficPolicy.outlierDetection.maxEjectionPercent` is no share: 101",
                    "6:95 `spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures` needs \
             `splitExternalLocalOriginErrors: true`",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 4}}}}\n",
                &[
                    "6:90 `spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize` must be a prime below 5000011: 4",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {tls: {mode: MUTUAL, clientCertificate: x}}\n",
                &["6:24 `spec.trafficPolicy.tls` has mode MUTUAL, but no `privateKey`"],
            ),
            (
                "host: a\ntrafficPolicy: {portLevelSettings: [{port: {number: 80}}]}\n",
                &["6:39 `spec.trafficPolicy.portLevelSettings[0]` says nothing"],
            ),
            (
                "host: a\ntrafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      distribute: [{from: a/*, to: {a/b: 50, \"*/c\": 40}}]\n",
                &[
                    "9:38 the shares of `spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0]` add up to 90",
                    "9:55 `*/c` is no locality",
                ],
            ),
            (
                "host: a\ntrafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}\n",
                &[
                    "6:53 `spec.trafficPolicy.loadBalancer.localityLbSetting` has no effect: without `outlierDetection` no \
             workload is ever passed over",
                    "6:65 `spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0]` leads from `a` to itself",
                ],
            ),
            (
                "host: a\nworkloadSelector: {matchLabels: {a: \"*\"}}\nexportTo: [\"*\"]\n",
                &[
                    "6:39 `spec.workloadSelector.matchLabels.a` holds a wildcard, and selectors know none",
                    "7:14 a DestinationRule with `workloadSelector` is for its own namespace only",
                ],
            ),
        ],
    );
}

#[test]
fn gateways() {
    check(
        "Gateway",
        &[
            ("selector: {}\n", &["5:3 the Gateway has no `servers`"]),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: []}]\n",
                &["5:13 `spec.servers[0]` has no `hosts`"],
            ),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a, \"*a.com\", x_/a.b, ns/a.b, \"*\"]}]\n",
                &[
                    "5:67 `a` is a short name, which gateways do not complete",
                    "5:70 `*a.com` is no host",
                    "5:80 `x_` is no namespace",
                ],
            ),
            (
                "servers:\n- {port: {number: 80, name: a, protocol: HTPP}, hosts: [\"*\"]}\n- {port: {number: 0, name: a, protocol: TCP}, hosts: [\"*\"]}\n",
                &[
                    "6:44 `HTPP` is no protocol",
                    "7:21 `spec.servers[1].port.number` is no port: 0",
                    "7:30 the port name `a` is there twice",
                ],
            ),
            (
                "servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [\"*\"]}]\n",
                &["5:13 a server for HTTPS needs `tls`"],
            ),
            (
                "servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [\"*\"], tls: {mode: SIMPLE}}]\n",
                &[
                    "5:80 `spec.servers[0].tls` has no `serverCertificate`",
                    "5:80 `spec.servers[0].tls` has no `privateKey`",
                ],
            ),
            (
                "servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [\"*\"], tls: {credentialName: x}}]\n",
                &["5:97 `spec.servers[0].tls.credentialName` is not looked at: TLS is passed through"],
            ),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [\"*\"], tls: {httpsRedirect: true}}]\n",
                &[],
            ),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [\"*\"], tls: {mode: SIMPLE, credentialName: x}}]\n",
                &["5:78 a server for HTTP is plain text, and has no certificates"],
            ),
            (
                "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [\"*\"], bind: localhost}]\n",
                &["5:79 `localhost` is no address to listen on"],
            ),
        ],
    );
    let dotted = load(&object(
        "networking.istio.io/v1",
        "Gateway",
        "a.b",
        "servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [\"*\"]}]\n",
    ));
    assert_eq!(lines(&dotted.diagnostics), ["IST0106 3:18 `a.b` is no name of a Gateway"]);
}

#[test]
fn service_entries_and_workloads() {
    let port = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let entry = |fields: &str| problems("ServiceEntry", &format!("{port}\n{fields}\n"));
    let none: [&str; 0] = [];
    assert_eq!(entry("hosts: [a.com]\nresolution: DNS"), none);
    assert_eq!(entry("hosts: [\"*\"]"), ["6:11 the host `*` would be every host"]);
    assert_eq!(entry("hosts: [\"*.com\"]\nresolution: DNS"), ["6:11 `*.com` cannot be looked up"]);
    assert_eq!(
        entry("hosts: [a.com]\naddresses: [10.0.0.0/8]\nresolution: DNS"),
        ["7:15 `10.0.0.0/8` is a range, which does not go with resolution DNS"]
    );
    assert_eq!(
        entry("hosts: [a.com]\nendpoints: [{address: 10.0.0.1}]"),
        ["7:14 resolution NONE goes to where the client wanted, and has no `endpoints`"]
    );
    assert_eq!(
        entry("hosts: [a.com]\nresolution: STATIC\nendpoints: [{address: b.com, ports: {grpc: 1}}, {}]"),
        [
            "8:25 `b.com` is a name, which resolution STATIC does not look up",
            "8:40 the ServiceEntry has no port `grpc`",
            "8:51 `spec.endpoints[1]` has no `address`",
        ]
    );
    assert_eq!(
        entry(
            "hosts: [a.com]\nresolution: STATIC\nendpoints: [{address: 10.0.0.1}]\nworkloadSelector: {labels: {a: b}}"
        ),
        ["8:14 the ServiceEntry has both `endpoints` and `workloadSelector`"]
    );
    assert_eq!(
        problems(
            "ServiceEntry",
            "hosts: [a.com, b.com]\nresolution: DNS\nports: [{number: 22, name: tcp, protocol: TCP}]\n"
        ),
        ["7:11 the port 22 cannot tell the hosts of the ServiceEntry apart"]
    );
    assert_eq!(
        problems("WorkloadEntry", "address: 10.0.0.1\nports: {http: 70000}\n"),
        ["6:17 `spec.ports.http` is no port: 70000"]
    );
    assert_eq!(
        problems("WorkloadEntry", "address: 10.0.0.1:80\n"),
        ["5:12 `10.0.0.1:80` is neither a DNS name nor an IP address"]
    );
    assert_eq!(
        problems("WorkloadGroup", "probe: {httpGet: {port: 0}}\n"),
        ["5:3 the WorkloadGroup has no `template`", "5:27 `spec.probe.httpGet.port` is no port: 0"]
    );
}

#[test]
fn sidecars() {
    check(
        "Sidecar",
        &[
            ("workloadSelector: {labels: {a: b}}\n", &["5:3 the Sidecar says nothing"]),
            ("egress: [{hosts: [\"./*\", \"istio-system/*\"]}]\n", &[]),
            (
                "egress: [{hosts: []}, {hosts: [a, x/short]}]\n",
                &[
                    "5:12 `spec.egress[0]` has no `port`, so it takes all that is left and has to be the last",
                    "5:12 `spec.egress[0]` has no `hosts`",
                    "5:34 `a` has no namespace",
                    "5:37 `short` is a short name, which Sidecars do not complete",
                ],
            ),
            (
                "ingress: [{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: \"10.0.0.1:80\"}]\n",
                &["5:76 `10.0.0.1:80` is no address of the workload"],
            ),
            (
                "outboundTrafficPolicy: {egressProxy: {host: a.b}}\n",
                &[
                    "5:40 `spec.outboundTrafficPolicy.egressProxy` needs `mode: ALLOW_ANY`",
                    "5:40 `spec.outboundTrafficPolicy.egressProxy` has no `port`",
                ],
            ),
        ],
    );
}
