//! Does `lateen explain` say what really happens? The requests of the books, asked about instead of sent: the books hold
//! what Lateen and Envoy did with them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lateen_e2e::book::{self, Page, Role};
use lateen_e2e::lateen;
use lateen_e2e::row::{Choice, Exchange, HeaderRule, Row};
use serde_json::Value;

/// Pages about bytes that never become a request that is routed, about the explicit HTTP proxy port, and about what a
/// listener does besides routing.
const NOT_ROUTED: [&str; 4] = ["14-framing", "15-malformed", "18-http-proxy", "36-by-envoy-filter"];

/// Ports stand in for the backends, from this one on.
const FIRST_PORT: u16 = 20_001;

#[test]
fn explanations_agree_with_what_the_books_say() {
    let pages: Vec<String> =
        book::page_names().unwrap().into_iter().filter(|name| !NOT_ROUTED.contains(&name.as_str())).collect();
    lateen::binary().unwrap();
    let judged: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let all: Vec<_> = pages.iter().map(|name| scope.spawn(|| judge(name).unwrap())).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let asked: usize = judged.iter().map(|(asked, _)| asked).sum();
    let complaints: Vec<String> = judged.into_iter().flat_map(|(_, complaints)| complaints).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(asked >= 200, "only {asked} requests were asked about");
}

/// How many requests of a page were asked about, and what is wrong.
fn judge(name: &str) -> Result<(usize, Vec<String>)> {
    let page = book::load(name)?;
    let ports: BTreeMap<String, u16> = page.backends().into_iter().zip(FIRST_PORT..).collect();
    let folder = tempfile::tempdir()?;
    let yaml = folder.path().join("page.yaml");
    std::fs::write(&yaml, page.render_yaml(&ports))?;
    let mut asked = 0;
    let mut complaints = Vec::new();
    for row in &page.rows {
        for exchange in &row.exchanges {
            let Some(request) = Request::read(exchange) else { continue };
            let answer = ask(&yaml, &page, row, &request)?;
            asked += 1;
            if let Err(wrong) = compare(&answer, exchange, &request, &ports) {
                complaints.push(format!("{name}.md:{}: {}: {wrong}", row.line, row.text));
            }
        }
    }
    Ok((asked, complaints))
}

/// A request that a proxy routes.
struct Request {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// `None` for what is refused before it is routed, and for what a command line does not carry.
    fn read(exchange: &Exchange) -> Option<Request> {
        let refused = matches!(exchange.response.status, None | Some(400 | 403 | 426 | 431 | 501));
        let head = std::str::from_utf8(&exchange.bytes).ok()?.split("\r\n\r\n").next()?;
        if refused || !head.is_ascii() {
            return None;
        }
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path, version) = (words.next()?, words.next()?, words.next()?);
        let mut headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect::<Option<_>>()?;
        let host = headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"))?;
        let host = headers.remove(host).1;
        let is_plain = path.starts_with('/') && version == "HTTP/1.1" && !host.is_empty();
        is_plain.then(|| Request { method: method.to_owned(), path: path.to_owned(), host, headers })
    }
}

fn ask(yaml: &Path, page: &Page, row: &Row, request: &Request) -> Result<Value> {
    let mut command = Command::new(lateen::binary()?);
    command.args(["explain", "-o", "json", "-f"]).arg(yaml).arg("--as");
    command.arg(match page.role {
        Role::Gateway => "gateway",
        Role::Sidecar => "sidecar",
    });
    for (name, value) in request.headers.iter().chain([&("host".to_owned(), request.host.clone())]) {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    let port = row.port.unwrap_or(page.port);
    command.arg(&request.method).arg(format!("http://127.0.0.1:{port}{}", request.path));
    let output = command.output().context("cannot run `lateen explain`")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}", row.text, String::from_utf8_lossy(&output.stderr)))
}

/// The error is what the explanation says otherwise than the page.
fn compare(answer: &Value, exchange: &Exchange, request: &Request, ports: &BTreeMap<String, u16>) -> Result<()> {
    let status = exchange.response.status.unwrap_or(0);
    let own = &answer["policies"]["direct_response"];
    let redirect = &answer["policies"]["redirect"];
    match &exchange.backend.choice {
        Some(Choice::Named(name)) => {
            if !endpoints(answer).any(|(_, _, port)| port == ports[name.as_str()]) {
                bail!("backend {name} is not among {}", answer["clusters"]);
            }
            let path = answer["policies"]["path"].as_str();
            let line = exchange.backend.request.as_deref().and_then(|line| line.split(' ').nth(1));
            // Without a rewrite the path may have been normalised, which only its route shows.
            if let (Some(explained), Some(seen)) = (path, line)
                && explained != seen
            {
                bail!("the backend sees {seen}, not {explained}");
            }
            if let (None, Some(seen)) = (path, line)
                && seen != request.path
                && !request.path.contains(['.', '%', '\\', '#'])
                && !request.path.contains("//")
            {
                bail!("the backend sees {seen}, and no rewrite is told");
            }
        }
        Some(Choice::OneOnly) => {
            // Which one a hash means is for the proxy to say.
            if endpoints(answer).next().is_none() {
                bail!("some backend answers, and {} has none", answer["clusters"]);
            }
        }
        Some(Choice::Shares(shares)) => {
            let total: u64 =
                answer["clusters"].as_array().into_iter().flatten().filter_map(|one| one["weight"].as_u64()).sum();
            for (name, share) in shares {
                let found: Vec<_> = endpoints(answer).filter(|(_, _, port)| *port == ports[name.as_str()]).collect();
                let [(weight, siblings, _)] = found.as_slice() else {
                    bail!("backend {name} is not once among {}", answer["clusters"]);
                };
                let explained = *weight as f64 * 100.0 / total.max(1) as f64;
                // Among several endpoints the balancer shares out what the cluster gets.
                if *siblings == 1 && (explained - share).abs() > 0.5 {
                    bail!("backend {name} gets {share} %, not {explained} %");
                }
            }
        }
        Some(Choice::Nobody) if (300..400).contains(&status) => {
            if redirect["status"] != status {
                bail!("the answer is a redirect with {status}, not {redirect}");
            }
        }
        Some(Choice::Nobody) => {
            let verdict = exchange.log.verdict.as_ref().map(|(flag, _)| flag.as_str());
            let error = answer["error"].as_str();
            if verdict == Some("NR") && !matches!(error, Some("no-route" | "no-virtual-host")) {
                bail!("there is no route, and not {error:?}");
            }
            // The books address the sidecar; in a cluster, which the command speaks of, connections come with the
            // destination that the client wanted, and unknown hosts are passed on.
            if status == 502 && answer["virtual_host"] == "allow_any" {
                return Ok(());
            }
            // A filter answered before the route could: then the explanation has to name the filter's policy.
            let details = exchange.log.verdict.as_ref().map_or("", |(_, details)| details.as_str());
            for (answered, policy) in [("fault_filter_abort", "fault_abort"), ("cors_response", "cors")] {
                if details == answered {
                    return if answer["policies"][policy].is_null() { bail!("no {policy} is told") } else { Ok(()) };
                }
            }
            let by_itself = verdict == Some("-") || exchange.response.body.is_some() && status < 500;
            if by_itself && own["status"] != status {
                bail!("the proxy answers {status} by itself, not {own}");
            }
        }
        Some(Choice::NobodyWhole) | None => {}
    }
    for rule in &exchange.response.headers {
        if let HeaderRule::Values(name, values) = rule
            && name.eq_ignore_ascii_case("location")
            && let Some(location) = redirect["location"].as_str()
            && *values != [location]
        {
            bail!("the client is sent to {values:?}, not {location}");
        }
    }
    Ok(())
}

/// Weight of the cluster, number of its endpoints, and port, for each endpoint.
fn endpoints(answer: &Value) -> impl Iterator<Item = (u64, usize, u16)> {
    answer["clusters"].as_array().into_iter().flatten().flat_map(|cluster| {
        let weight = cluster["weight"].as_u64().unwrap_or(0);
        let all = cluster["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(move |endpoint| {
            let port = endpoint["address"].as_str()?.rsplit_once(':')?.1.parse().ok()?;
            Some((weight, all.len(), port))
        })
    })
}
