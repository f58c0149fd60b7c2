//! How does an explanation read? First the answer, then why, what happens on the way, where it ends, and what was passed
//! over.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_compile::explain::{
    Call, CallTls, ClusterShare, Direction, Discovery, Explanation, Policies, RefusalKind, Tried, UpstreamEndpoint,
    UpstreamTls,
};
use lateen_compile::{Role, Scope, names};
use lateen_config::SourceFile;
use lateen_xds::Origin;

use super::question::Question;
use crate::report::{BLUE, BOLD, DIM, GREEN, RED, RESET, YELLOW, many};

/// Most lines of a rule that are quoted.
const MAX_LINES: usize = 6;

/// Width at which settings go on in the next line.
const MAX_WIDTH: usize = 90;

/// Most endpoints of a cluster that are listed.
const MAX_ENDPOINTS: usize = 10;

/// Renders with colour codes.
pub(crate) fn render(
    question: &Question,
    scope: &Scope,
    call: &Call,
    explanation: &Explanation,
    sources: &[Arc<SourceFile>],
) -> String {
    let mut out = String::new();
    headline(&mut out, question, scope, call, explanation);
    because(&mut out, call, explanation, sources);
    path(&mut out, explanation);
    on_the_way(&mut out, explanation);
    ends(&mut out, explanation);
    passed_over(&mut out, explanation);
    out
}

/// The question, from whom, and the answer in a line.
fn headline(out: &mut String, question: &Question, scope: &Scope, call: &Call, explanation: &Explanation) {
    let asked = format!("{} {}", question.method, question.url);
    let _ = writeln!(out, "{BOLD}{}{RESET}", asked.trim());
    let mut from = match (scope.role, call.direction) {
        (Role::Gateway, _) => format!("at the gateway in namespace {}", scope.namespace),
        (Role::Sidecar, Direction::Outbound) => format!("leaving a workload in namespace {}", scope.namespace),
        (Role::Sidecar, Direction::Inbound) => {
            let place = match call.address {
                Some(address) => SocketAddr::new(address, call.port).to_string(),
                None => format!("port {}", call.port),
            };
            format!("arriving at {place} of a workload in namespace {}", scope.namespace)
        }
    };
    for (key, value) in scope.labels.iter().flatten() {
        let _ = write!(from, ", {key}={value}");
    }
    match call.tls {
        CallTls::Plaintext => {}
        CallTls::Tls => from.push_str(", with TLS"),
        CallTls::Mutual => from.push_str(", with mutual TLS"),
    }
    let _ = writeln!(out, "{DIM}{from}{RESET}\n");
    let policies = &explanation.policies;
    if let Some(redirect) = &policies.redirect {
        arrow(out, GREEN, &format!("{} to {}", redirect.status, redirect.location));
    } else if let Some(response) = &policies.direct_response {
        let body = match response.body {
            Some(0) => "without a body".to_owned(),
            Some(bytes) => format!("with {}", many(bytes, "byte")),
            None => "with a body".to_owned(),
        };
        let colour = if response.status < 400 { GREEN } else { YELLOW };
        arrow(out, colour, &format!("{} {body}, answered by the proxy itself", response.status));
    } else if let Some(refusal) = &explanation.error {
        arrow(out, RED, &format!("nowhere ({}): {}", refusal.kind.as_str(), refusal.reason));
    } else if explanation.clusters.is_empty() {
        arrow(out, YELLOW, "nowhere");
    }
    if let Some((answer, percent)) = &policies.fault_abort
        && *percent >= 100.0
    {
        arrow(out, YELLOW, &format!("{answer}, injected into every request before it is sent"));
    }
    for cluster in &explanation.clusters {
        let share =
            if explanation.clusters.len() > 1 { format!(" ({})", share(cluster.percent())) } else { String::new() };
        let colour = if cluster.upstream.is_some() { GREEN } else { RED };
        arrow(out, colour, &format!("{}{share}", cluster.name));
    }
    for note in &policies.notes {
        let _ = writeln!(out, "  {YELLOW}!{RESET} {note}");
    }
}

fn arrow(out: &mut String, colour: &str, text: &str) {
    let _ = writeln!(out, "  {colour}→ {text}{RESET}");
}

fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{BOLD}{text}{RESET}");
}

/// The rule that decided, with its lines, or what holds without a rule.
fn because(out: &mut String, call: &Call, explanation: &Explanation, sources: &[Arc<SourceFile>]) {
    let refused = explanation.error.as_ref().map(|refusal| refusal.kind);
    if refused == Some(RefusalKind::NoListener) {
        return;
    }
    let words = match call.direction {
        Direction::Outbound => built_in(explanation),
        Direction::Inbound => None,
    };
    if let (None, None) = (&explanation.origin, &words) {
        return;
    }
    title(out, "because");
    if let Some(origin) = &explanation.origin {
        let _ = writeln!(out, "  {origin}");
        quote(out, origin, sources);
    }
    if let Some(words) = words {
        let _ = writeln!(out, "  {words}");
    }
}

/// What happens where no rule of the user says anything.
fn built_in(explanation: &Explanation) -> Option<String> {
    let only = match explanation.clusters.as_slice() {
        [only] => Some(only.name.as_str()),
        _ => None,
    };
    Some(match (explanation.virtual_host.as_deref(), only) {
        (Some(names::ALLOW_ANY), _) => "no service has this host and port: the request goes where its client wanted \
                                        (outboundTrafficPolicy ALLOW_ANY)"
            .to_owned(),
        (Some(names::BLOCK_ALL), _) => {
            "no service has this host and port: the proxy answers 502 (outboundTrafficPolicy REGISTRY_ONLY)".to_owned()
        }
        (None, Some(names::PASSTHROUGH_CLUSTER))
            if explanation.filter_chain.as_deref() == Some(names::PASSTHROUGH_FILTER_CHAIN) =>
        {
            "the services of this port do not speak this: the connection goes where its client wanted \
             (outboundTrafficPolicy ALLOW_ANY)"
                .to_owned()
        }
        (_, Some(names::PASSTHROUGH_CLUSTER)) => "no service has this address and port: the connection goes where its \
                                                  client wanted (outboundTrafficPolicy ALLOW_ANY)"
            .to_owned(),
        (_, Some(names::BLACK_HOLE_CLUSTER)) => {
            "nothing may be reached this way, so the connection ends here".to_owned()
        }
        (Some(host), _) if explanation.route.is_none() && host.starts_with("blackhole:") => {
            "no VirtualService is bound to the Gateways of this port".to_owned()
        }
        (Some(_), _) if is_of_service(explanation) && explanation.route.as_deref() == Some(names::DEFAULT_ROUTE) => {
            "no VirtualService routes this host, so requests go to the service that has it".to_owned()
        }
        _ => return None,
    })
}

/// Whether a service's own entry decided.
fn is_of_service(explanation: &Explanation) -> bool {
    explanation.origin.as_ref().is_some_and(|origin| matches!(&*origin.kind, "Service" | "ServiceEntry"))
}

/// The first lines of a rule as they stand in its file. A whole object is not worth it: its first lines say what it is.
fn quote(out: &mut String, origin: &Origin, sources: &[Arc<SourceFile>]) {
    if origin.rule.is_empty() {
        return;
    }
    let Some(file) = &origin.file else { return };
    let Some(source) = sources.iter().find(|source| source.path == *file) else { return };
    let Some(first) = source.line(origin.line) else { return };
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let own = indentation(first);
    let mut lines = vec![(origin.line, first)];
    // A rule goes on as long as lines stand further to the right.
    for number in origin.line.saturating_add(1).. {
        match source.line(number) {
            Some(line) if !line.trim().is_empty() && indentation(line) > own => lines.push((number, line)),
            _ => break,
        }
        if lines.len() > MAX_LINES {
            break;
        }
    }
    let more = lines.len() > MAX_LINES;
    lines.truncate(MAX_LINES);
    let width = lines.last().map_or(1, |(number, _)| number.to_string().len());
    for (number, line) in lines {
        let shown = line.get(own..).unwrap_or(line).trim_end();
        let _ = writeln!(out, "  {BLUE}{number:>width$} |{RESET} {shown}");
    }
    if more {
        let _ = writeln!(out, "  {BLUE}{:>width$} |{RESET} …", "");
    }
}

/// The names of what the call passes, for those who look into configuration dumps.
fn path(out: &mut String, explanation: &Explanation) {
    let mut steps = Vec::new();
    let mut step = |kind: &str, name: &Option<String>| match name.as_deref() {
        Some("") | None => {}
        Some(name) => steps.push(format!("{kind} {name}")),
    };
    step("listener", &explanation.listener);
    step("filter chain", &explanation.filter_chain);
    step("route configuration", &explanation.route_config);
    step("virtual host", &explanation.virtual_host);
    step("route", &explanation.route);
    if !steps.is_empty() {
        title(out, "through");
        let _ = writeln!(out, "  {}", steps.join(" → "));
    }
}

fn on_the_way(out: &mut String, explanation: &Explanation) {
    let lines = policy_lines(&explanation.policies, explanation.route.is_some());
    if lines.is_empty() || explanation.error.is_some() {
        return;
    }
    title(out, "on the way");
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in lines {
        let _ = writeln!(out, "  {name:width$}  {text}");
    }
}

fn policy_lines(policies: &Policies, is_http: bool) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    if let Some((length, percent)) = policies.fault_delay {
        lines.push(("delay", format!("{} for {} of the requests", time(length), share(percent))));
    }
    if let Some((answer, percent)) = &policies.fault_abort {
        lines.push(("abort", format!("{answer} for {} of the requests", share(*percent))));
    }
    let answers = policies.redirect.is_some() || policies.direct_response.is_some();
    match policies.timeout {
        Some(timeout) => lines.push(("timeout", time(timeout))),
        None if is_http && !answers => lines.push(("timeout", "none".to_owned())),
        None => {}
    }
    if let Some(retries) = &policies.retries {
        let mut text = match retries.attempts {
            0 => "none".to_owned(),
            attempts => format!("{attempts} on {}", retries.on.replace(',', ", ")),
        };
        if !retries.codes.is_empty() {
            let codes: Vec<String> = retries.codes.iter().map(ToString::to_string).collect();
            let _ = write!(text, " ({})", codes.join(", "));
        }
        if let Some(limit) = retries.per_try_timeout {
            let _ = write!(text, ", {} for each try", time(limit));
        }
        lines.push(("retries", text));
    }
    for (cluster, percent) in &policies.mirrors {
        lines.push(("mirror", format!("{} of the requests to {cluster}", share(*percent))));
    }
    lines.extend(policies.path.iter().map(|path| ("path", format!("becomes {path}"))));
    lines.extend(policies.host.iter().map(|host| ("host", format!("becomes {host}"))));
    lines.extend(policies.request_headers.iter().map(|header| ("request", header.clone())));
    lines.extend(policies.response_headers.iter().map(|header| ("response", header.clone())));
    lines.extend(policies.hash.iter().map(|hash| ("tied by", hash.clone())));
    if !policies.cors.is_empty() {
        lines.push(("CORS", policies.cors.join("; ")));
    }
    lines.extend(policies.filters.iter().map(|filter| ("filter", filter.clone())));
    lines
}

fn ends(out: &mut String, explanation: &Explanation) {
    if explanation.clusters.is_empty() {
        return;
    }
    title(out, "ends at");
    for cluster in &explanation.clusters {
        let share =
            if explanation.clusters.len() > 1 { format!("  {}", share(cluster.percent())) } else { String::new() };
        let _ = writeln!(out, "  {}{share}", readable(&cluster.name));
        let Some(upstream) = &cluster.upstream else {
            let _ = writeln!(out, "    {RED}there is no such cluster{RESET}");
            continue;
        };
        for line in how(cluster) {
            let _ = writeln!(out, "    {line}");
        }
        for origin in &upstream.origins {
            let _ = writeln!(out, "    {DIM}from {origin}{RESET}");
        }
        match upstream.discovery {
            Discovery::OriginalDestination => {
                let _ = writeln!(out, "    the address that the client connected to");
            }
            Discovery::DynamicForwardProxy => {
                let _ = writeln!(out, "    the addresses of the request's host");
            }
            Discovery::Listed | Discovery::Dns => endpoints(out, &upstream.endpoints, upstream.discovery),
        }
    }
}

/// Balancing, TLS and limits, on as many lines as they need.
fn how(cluster: &ClusterShare) -> Vec<String> {
    let Some(upstream) = &cluster.upstream else { return Vec::new() };
    let mut words = Vec::new();
    if !upstream.load_balancing.is_empty() {
        words.push(upstream.load_balancing.clone());
    }
    match &upstream.tls {
        UpstreamTls::None => {}
        UpstreamTls::Automatic => words.push("mutual TLS where the endpoint has a sidecar".to_owned()),
        UpstreamTls::Always { mutual: true, .. } => words.push("mutual TLS".to_owned()),
        UpstreamTls::Always { mutual: false, sni } if sni.is_empty() => words.push("TLS".to_owned()),
        UpstreamTls::Always { mutual: false, sni } => words.push(format!("TLS for {sni}")),
    }
    words.extend(upstream.limits.iter().map(|(name, limit)| format!("{name} {limit}")));
    if !upstream.outlier_detection.is_empty() {
        let parts: Vec<String> =
            upstream.outlier_detection.iter().map(|(name, value)| format!("{name} {value}")).collect();
        words.push(format!("ejects failing endpoints ({})", parts.join(", ")));
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < MAX_WIDTH => {
                line.push_str("; ");
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

fn endpoints(out: &mut String, endpoints: &[UpstreamEndpoint], discovery: Discovery) {
    if endpoints.is_empty() {
        let _ = writeln!(out, "    {RED}no endpoints{RESET}");
        return;
    }
    let priorities = endpoints.iter().any(|endpoint| endpoint.priority != 0);
    let weights = endpoints.iter().any(|endpoint| endpoint.weight != 1);
    let width = endpoints.iter().take(MAX_ENDPOINTS).map(|endpoint| endpoint.address.len()).max().unwrap_or(0);
    for endpoint in endpoints.iter().take(MAX_ENDPOINTS) {
        let mut notes = Vec::new();
        match (endpoint.is_usable(), endpoint.health.as_str()) {
            (true, "unknown" | "healthy") => {}
            (true, other) => notes.push(other.to_owned()),
            (false, other) => notes.push(format!("{RED}{other}{RESET}")),
        }
        if !endpoint.locality.is_empty() {
            notes.push(endpoint.locality.clone());
        }
        if priorities {
            notes.push(format!("priority {}", endpoint.priority));
        }
        if weights {
            notes.push(format!("weight {}", endpoint.weight));
        }
        let by_name = if discovery == Discovery::Dns { " (resolved)" } else { "" };
        let line = format!("    {:width$}{by_name}  {}", endpoint.address, notes.join(", "));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if endpoints.len() > MAX_ENDPOINTS {
        let _ = writeln!(out, "    … and {} more", endpoints.len() - MAX_ENDPOINTS);
    }
}

fn passed_over(out: &mut String, explanation: &Explanation) {
    if explanation.tried.is_empty() {
        return;
    }
    title(out, "considered and passed over");
    for Tried { origin, reason } in &explanation.tried {
        match origin {
            Some(origin) => {
                let _ = writeln!(out, "  {origin}\n    {DIM}{reason}{RESET}");
            }
            None => {
                let _ = writeln!(out, "  {DIM}{reason}{RESET}");
            }
        }
    }
}

/// A cluster as people speak of it.
fn readable(name: &str) -> String {
    match names::parse_outbound_cluster(name) {
        Some(parts) if parts.subset.is_empty() => format!("{} port {}", parts.host, parts.port),
        Some(parts) => format!("{} port {}, subset {}", parts.host, parts.port, parts.subset),
        None => match name.strip_prefix("inbound|").and_then(|rest| rest.split_once('|')) {
            Some((port, _)) => format!("port {port} of the workload itself"),
            None => name.to_owned(),
        },
    }
}

fn share(percent: f64) -> String {
    let rounded = (percent * 100.0).round() / 100.0;
    format!("{rounded} %")
}

fn time(length: Duration) -> String {
    if length < Duration::from_secs(1) {
        format!("{} ms", length.as_millis())
    } else {
        format!("{} s", length.as_secs_f64())
    }
}
