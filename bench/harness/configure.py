"""How does one route table become each proxy's own configuration?

Every proxy gets the same twenty routes to the same backends, one worker, kept-alive connections
on both sides, a request id, X-Forwarded-For, time limits, passive host checks and an access log
that goes to a file. Where a proxy has no equal setting it gets the cheaper one: nginx and HAProxy
retry failed connections (nginx also a 503), but neither has Envoy's retry budget, circuit
breakers or per-route statistics.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from .routes import CLUSTERS, HOST, SECOND_HOST, Route

RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"

# The line that Istio makes Envoy write; Lateen writes the same one by itself.
ISTIO_LOG_LINE = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)


@dataclass(frozen=True)
class Plan:
    """What a configuration is written for."""

    routes: list[Route]
    backends: dict[str, list[int]]  # cluster -> ports on 127.0.0.1
    port: int  # where the proxy listens on 127.0.0.1
    admin_port: int
    service_port: int  # port of the Services that Lateen reads
    folder: Path  # for files that the proxy writes
    log: Path  # the access log
    single_process: bool = False  # for an instruction count


def lateen(plan: Plan) -> str:
    """Istio YAML: one Gateway, one VirtualService, two Services with their workloads."""
    documents = [
        # Statistics are on unless something turns them off; the log has to be asked for.
        f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
data:
  mesh: |
    accessLogFile: {plan.log}
""",
        f"""\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: shop
  namespace: default
spec:
  selector:
    istio: ingressgateway
  servers:
    - port:
        number: {plan.port}
        name: http
        protocol: HTTP
      hosts:
        - {HOST}
        - {SECOND_HOST}
""",
        f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: shop
  namespace: default
spec:
  hosts:
    - {HOST}
  gateways:
    - shop
  http:
"""
        + "".join(_lateen_route(route, plan.service_port) for route in plan.routes),
        f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: admin
  namespace: default
spec:
  hosts:
    - {SECOND_HOST}
  gateways:
    - shop
  http:
    - route:
        - destination:
            host: other
            port:
              number: {plan.service_port}
""",
    ]
    for cluster in CLUSTERS:
        documents.append(_lateen_service(cluster, plan.service_port))
        documents.append(_lateen_destination_rule(cluster))
        for number, port in enumerate(plan.backends[cluster], 1):
            documents.append(_lateen_workload(cluster, number, port))
    return "---\n".join(documents)


def _lateen_route(route: Route, service_port: int) -> str:
    # A JSON string is a YAML string, whatever characters the path has.
    text = f"""\
    - name: {route.name}
      match:
        - uri:
            {route.match}: {json.dumps(route.path)}
"""
    if route.header:
        name, value = route.header
        text += f"""\
          headers:
            {name}:
              exact: {json.dumps(value)}
"""
    return (
        text
        + f"""\
      route:
        - destination:
            host: {route.cluster}
            port:
              number: {service_port}
      timeout: 15s
"""
    )


def _lateen_service(cluster: str, service_port: int) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {cluster}
  namespace: default
spec:
  selector:
    app: {cluster}
  ports:
    - name: http
      port: {service_port}
"""


def _lateen_destination_rule(cluster: str) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {cluster}
  namespace: default
spec:
  host: {cluster}
  trafficPolicy:
    loadBalancer:
      simple: ROUND_ROBIN
    connectionPool:
      tcp:
        maxConnections: 10000
        connectTimeout: 1s
      http:
        http1MaxPendingRequests: 10000
        http2MaxRequests: 10000
    outlierDetection:
      consecutive5xxErrors: 5
      interval: 10s
      baseEjectionTime: 30s
"""


def _lateen_workload(cluster: str, number: int, port: int) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: {cluster}-{number}
  namespace: default
spec:
  address: 127.0.0.1
  labels:
    app: {cluster}
  ports:
    http: {port}
"""


def envoy(plan: Plan) -> str:
    """A static Envoy bootstrap with what Istio would configure."""
    extension = "type.googleapis.com/envoy.extensions."
    retry_policy = {
        "retry_on": RETRY_ON,
        "retriable_status_codes": [503],
        "num_retries": 2,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": extension
                    + "retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
    }

    def route(row: Route) -> dict:
        match: dict = {
            "exact": {"path": row.path},
            "prefix": {"prefix": row.path},
            "regex": {"safe_regex": {"regex": row.path}},
        }[row.match]
        if row.header:
            name, value = row.header
            match["headers"] = [{"name": name, "string_match": {"exact": value}}]
        action = {"cluster": row.cluster, "timeout": "15s", "retry_policy": retry_policy}
        return {"name": row.name, "match": match, "route": action}

    def virtual_host(name: str, host: str, routes: list[dict]) -> dict:
        return {"name": name, "domains": [host, host + ":*"], "routes": routes}

    everything = {"prefix": "/"}
    virtual_hosts = [
        virtual_host("shop", HOST, [route(row) for row in plan.routes]),
        virtual_host(
            "admin", SECOND_HOST, [{"match": everything, "route": {"cluster": "other"}}]
        ),
        {
            "name": "rest",
            "domains": ["*"],
            "routes": [{"match": everything, "direct_response": {"status": 404}}],
        },
    ]
    connection_manager = {
        "@type": extension
        + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "generate_request_id": True,
        "normalize_path": True,
        "merge_slashes": True,
        "stream_idle_timeout": "300s",
        "route_config": {"name": "shop", "virtual_hosts": virtual_hosts},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": extension + "filters.http.router.v3.Router"},
            }
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": extension + "access_loggers.file.v3.FileAccessLog",
                    "path": str(plan.log),
                    "log_format": {
                        "text_format_source": {"inline_string": ISTIO_LOG_LINE}
                    },
                },
            }
        ],
    }

    def cluster(name: str) -> dict:
        endpoints = [
            {"endpoint": {"address": _socket_address(port)}} for port in plan.backends[name]
        ]
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN",
            "outlier_detection": {
                "consecutive_5xx": 5,
                "interval": "10s",
                "base_ejection_time": "30s",
            },
            "circuit_breakers": {
                "thresholds": [
                    {
                        "max_connections": 10000,
                        "max_pending_requests": 10000,
                        "max_requests": 10000,
                        "max_retries": 1000,
                        "track_remaining": True,
                    }
                ]
            },
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": endpoints}],
            },
        }

    listener = {
        "name": "shop",
        "address": _socket_address(plan.port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager,
                    }
                ]
            }
        ],
    }
    bootstrap = {
        "admin": {"address": _socket_address(plan.admin_port)},
        "static_resources": {
            "listeners": [listener],
            "clusters": [cluster(name) for name in CLUSTERS],
        },
    }
    return json.dumps(bootstrap, indent=1) + "\n"


def _socket_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def nginx(plan: Plan) -> str:
    """One location per path; a row with a header becomes a map from the header to the cluster."""
    maps, locations = "", ""
    without_header = {row.path: row for row in plan.routes if not row.header}
    fallback = without_header["/"]
    written: set[str] = set()
    for row in plan.routes:
        if row.path in written:
            continue
        written.add(row.path)
        otherwise = without_header.get(row.path, fallback)
        target = otherwise.cluster
        headers = [r for r in plan.routes if r.path == row.path and r.header]
        if headers:
            variable = "$cluster_" + row.name.replace("-", "_")
            field = "$http_" + headers[0].header[0].replace("-", "_")
            choices = "".join(f" {r.header[1]} {r.cluster};" for r in headers)
            maps += f"    map {field} {variable} {{ default {target};{choices} }}\n"
            target = variable
        kind = {"exact": f"= {row.path}", "prefix": row.path}
        location = kind.get(row.match, f'~ "^{row.path}$"')
        locations += f"        location {location} {{ proxy_pass http://{target}; }}\n"
    upstreams = ""
    for cluster in CLUSTERS:
        servers = "".join(
            f"        server 127.0.0.1:{port} max_fails=5 fail_timeout=30s;\n"
            for port in plan.backends[cluster]
        )
        upstreams += f"""\
    upstream {cluster} {{
{servers}\
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
"""
    process = "master_process off;\n" if plan.single_process else ""
    temporary = "".join(
        f"    {module}_temp_path {plan.folder}/nginx-{module};\n"
        for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{process}daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log {plan.folder}/nginx-error.log error;
pid {plan.folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    log_format line '$remote_addr [$time_iso8601] "$request" $status $request_length '
        '$bytes_sent $request_time $upstream_response_time "$http_x_forwarded_for" '
        '"$http_user_agent" "$request_id" "$host" "$upstream_addr"';
    access_log {plan.log} line buffer=64k flush=1s;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_buffer_size 16k;
{temporary}\
    proxy_buffer_size 16k;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
    proxy_connect_timeout 1s;
    proxy_read_timeout 15s;
    proxy_next_upstream error timeout http_503;
    proxy_next_upstream_tries 3;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Request-Id $request_id;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{maps}{upstreams}\
    server {{
        listen 127.0.0.1:{plan.port} default_server;
        return 404;
    }}
    server {{
        listen 127.0.0.1:{plan.port};
        server_name {SECOND_HOST};
        location / {{ proxy_pass http://other; }}
    }}
    server {{
        listen 127.0.0.1:{plan.port};
        server_name {HOST};
{locations}\
    }}
}}
"""


def haproxy(plan: Plan) -> str:
    """One use_backend line per row. The log goes to standard output, which is the log file."""
    rules = ""
    for row in plan.routes:
        condition = {
            "exact": f"path {row.path}",
            "prefix": f"path_beg {row.path}",
            "regex": f"path_reg '^{row.path}$'",
        }[row.match]
        rules += f"    use_backend {row.cluster} if shop {{ {condition} }}"
        if row.header:
            name, value = row.header
            rules += f" {{ req.hdr({name}) {value} }}"
        rules += "\n"
    backends = ""
    for cluster in CLUSTERS:
        servers = "".join(
            f"    server {cluster}-{number} 127.0.0.1:{port} pool-max-conn -1\n"
            for number, port in enumerate(plan.backends[cluster], 1)
        )
        backends += f"backend {cluster}\n    balance roundrobin\n{servers}"
    return f"""\
global
    nbthread 1
    maxconn 8000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option redispatch
    retries 2
    timeout client 300s
    timeout server 15s
    timeout connect 1s
    timeout http-keep-alive 300s
    http-reuse always
frontend shop
    bind 127.0.0.1:{plan.port}
    option forwardfor
    unique-id-format %[uuid()]
    unique-id-header x-request-id
    acl shop hdr(host) -i {HOST}
    acl admin hdr(host) -i {SECOND_HOST}
{rules}\
    use_backend other if admin
    default_backend nowhere
{backends}\
backend nowhere
    http-request deny deny_status 404
"""
