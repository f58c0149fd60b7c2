//! What does one line of a page's table ask for, and what verdict does it expect?
//!
//! Only the code spans of a cell count; the words around them are for the reader. `docs/books/README.md` is the manual of
//! this notation.

use std::time::Duration;

use crate::behaviour::parse_duration;
use crate::wire::pattern;

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Line in the page, from 1.
    pub line: u32,
    /// The request cell as written, for messages.
    pub text: String,
    /// Another listener than the page's: the port of the YAML.
    pub port: Option<u16>,
    /// How often the row is played; more than once makes it a statistical row.
    pub times: u32,
    /// Time that passes before the row is played.
    pub wait: Duration,
    /// Requests that are under way, each on a connection of its own, while the row is played.
    pub beside: Vec<Exchange>,
    /// The exchanges of the row, on one connection.
    pub exchanges: Vec<Exchange>,
    /// The key of a deviation of `allowed-differences.md`: Envoy does not do here what the page says.
    pub deviation: Option<String>,
}

/// One request and what is expected of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    /// The method, which decides whether a response has a body.
    pub method: String,
    /// Sent together with the exchange before, without waiting for its response.
    pub pipelined: bool,
    /// Written in pieces of so many bytes instead of at once.
    pub pieces: Option<usize>,
    /// The client closes after this time without waiting for the response.
    pub leave: Option<Duration>,
    /// What the client sends once the response has agreed to another protocol; as many bytes are awaited.
    pub tunnel: Option<Vec<u8>>,
    /// Expected response.
    pub response: ExpectedResponse,
    /// Expected request at the backend.
    pub backend: ExpectedBackend,
    /// Expected access-log entry.
    pub log: ExpectedLog,
}

/// The `response` cell.
#[derive(Clone, Debug, Default)]
pub struct ExpectedResponse {
    /// Status code; `None`: no response is expected.
    pub status: Option<u16>,
    /// Header assertions.
    pub headers: Vec<HeaderRule>,
    /// Interim status codes before the response.
    pub interim: Vec<u16>,
    /// The body, exactly.
    pub body: Option<Vec<u8>>,
    /// The body's length in bytes.
    pub size: Option<usize>,
    /// The proxy closes the connection after the response.
    pub closes: bool,
    /// The body breaks off before its announced end.
    pub cut: bool,
    /// The response takes at least this long (and at most a second longer).
    pub after: Option<Duration>,
}

/// The `backend` cell.
#[derive(Clone, Debug, Default)]
pub struct ExpectedBackend {
    /// Which backend; `None`: the cell says nothing.
    pub choice: Option<Choice>,
    /// The request line.
    pub request: Option<String>,
    /// Header assertions.
    pub headers: Vec<HeaderRule>,
    /// The body, exactly.
    pub body: Option<Vec<u8>>,
    /// The body's length in bytes.
    pub size: Option<usize>,
    /// The copies that other backends get.
    pub mirrors: Vec<ExpectedBackend>,
}

/// Which backend an exchange reaches.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// No byte reaches any backend.
    Nobody,
    /// This one.
    Named(String),
    /// No backend sees the request whole; it may see its beginning.
    NobodyWhole,
    /// Statistical: the share of each, in percent.
    Shares(Vec<(String, f64)>),
    /// All requests of a statistical row reach one and the same, whichever that is.
    OneOnly,
}

/// One assertion on a header list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRule {
    /// The lines with this name have exactly these values in this order.
    Values(String, Vec<String>),
    /// There is a line with this name.
    Present(String),
    /// There is no line with this name.
    Absent(String),
}

/// The `log` cell.
#[derive(Clone, Debug, Default)]
pub struct ExpectedLog {
    /// Response flags and response-code details.
    pub verdict: Option<(String, String)>,
    /// Further fields by name.
    pub fields: Vec<(String, String)>,
}

/// The cells of a table line by column name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cells<'a> {
    /// `request`
    pub request: &'a str,
    /// `response`
    pub response: &'a str,
    /// `backend`
    pub backend: &'a str,
    /// `log`
    pub log: &'a str,
    /// `envoy`
    pub envoy: &'a str,
}

impl Row {
    /// How many requests backends receive at least: the row's own, and copies of them.
    pub fn expected_requests(&self) -> usize {
        let of = |backend: &ExpectedBackend| {
            usize::from(matches!(backend.choice, Some(Choice::Named(_)))) + backend.mirrors.len()
        };
        self.exchanges.iter().map(|exchange| of(&exchange.backend)).sum()
    }

    /// Whether requests of the row are copied, so that backends receive them in any order.
    pub fn is_mirrored(&self) -> bool {
        self.exchanges.iter().any(|exchange| !exchange.backend.mirrors.is_empty())
    }

    /// Whether chance decides which backends the row reaches.
    pub fn is_by_chance(&self) -> bool {
        let shares = |exchange: &Exchange| match &exchange.backend.choice {
            Some(Choice::Shares(shares)) => shares.len() > 1,
            _ => false,
        };
        self.exchanges.iter().any(shares)
    }
}

/// Reads one table line.
///
/// # Errors
/// A sentence that names what is wrong in which cell.
pub fn parse(line: u32, cells: Cells<'_>) -> Result<Row, String> {
    let requests = groups(cells.request);
    let responses = groups(cells.response);
    let backends = groups(cells.backend);
    let logs = groups(cells.log);
    let mut row = Row {
        line,
        text: cells.request.trim().to_owned(),
        port: None,
        times: 1,
        wait: Duration::ZERO,
        beside: Vec::new(),
        exchanges: Vec::new(),
        deviation: spans(cells.envoy).into_iter().next(),
    };
    for (index, (joint, spans)) in requests.iter().enumerate() {
        let mut draft = Draft::default();
        for span in spans {
            draft.read(span, &mut row).map_err(|reason| format!("request `{span}`: {reason}"))?;
        }
        let group = |cell: &[(Joint, Vec<String>)]| cell.get(index).map(|(_, spans)| spans.clone()).unwrap_or_default();
        row.exchanges.push(Exchange {
            pipelined: *joint == Joint::And,
            pieces: draft.pieces,
            leave: draft.leave,
            tunnel: draft.tunnel.clone(),
            method: draft.method.clone(),
            bytes: draft.render(line)?,
            response: parse_response(&group(&responses))?,
            backend: parse_backend(&group(&backends))?,
            log: parse_log(&group(&logs))?,
        });
    }
    let surplus = [("response", responses.len()), ("backend", backends.len()), ("log", logs.len())];
    if let Some((cell, _)) = surplus.iter().find(|(_, count)| *count > requests.len()) {
        return Err(format!("the {cell} cell has more parts than the request cell"));
    }
    if row.times > 1 && (row.exchanges.len() != 1 || !row.beside.is_empty()) {
        return Err("`@times` goes with a single request".to_owned());
    }
    Ok(row)
}

/// The value of the `user-agent` header that marks the requests of a row.
pub fn tag(line: u32) -> String {
    format!("row-{line}")
}

/// The value of the `user-agent` header of requests that are under way beside a row.
pub const BESIDE: &str = "beside";

/// How an exchange follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    Then,
    And,
}

/// The spans of a cell, split at `@then` and `@and`.
fn groups(cell: &str) -> Vec<(Joint, Vec<String>)> {
    let mut groups = vec![(Joint::Then, Vec::new())];
    for span in spans(cell) {
        match span.as_str() {
            "@then" => groups.push((Joint::Then, Vec::new())),
            "@and" => groups.push((Joint::And, Vec::new())),
            _ => {
                if let Some((_, spans)) = groups.last_mut() {
                    spans.push(span);
                }
            }
        }
    }
    groups
}

/// The code spans of a Markdown cell; `\|` stands for a bar, as Markdown tables demand.
fn spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")).collect()
}

/// A request while its spans are read.
#[derive(Default)]
struct Draft {
    method: String,
    raw: Option<Vec<u8>>,
    target: String,
    host: String,
    version: Option<String>,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    chunks: Option<Vec<usize>>,
    trailers: Vec<(String, String)>,
    pieces: Option<usize>,
    leave: Option<Duration>,
    tunnel: Option<Vec<u8>>,
}

impl Draft {
    fn read(&mut self, span: &str, row: &mut Row) -> Result<(), String> {
        if let Some(text) = span.strip_prefix("raw ") {
            let bytes = unescape(&text.replace("\\T", &tag(row.line)))?;
            self.method = bytes.split(|byte| *byte == b' ').next().map(crate::wire::latin1).unwrap_or_default();
            self.raw = Some(bytes);
            return Ok(());
        }
        if let Some(directive) = span.strip_prefix('@') {
            return self.read_directive(directive, row);
        }
        if self.method.is_empty() {
            let (method, place) = span.split_once(' ').ok_or("expected `METHOD host/path`")?;
            let (host, path) = place.split_at(place.find(['/', '?']).unwrap_or(place.len()));
            self.method = method.to_owned();
            self.host = host.to_owned();
            self.target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            return Ok(());
        }
        let (name, value) = span.split_once(':').ok_or("expected `name: value`")?;
        let value = unescape(value.trim())?;
        self.fields.push((name.to_owned(), crate::wire::latin1(&value)));
        Ok(())
    }

    fn read_directive(&mut self, directive: &str, row: &mut Row) -> Result<(), String> {
        let (name, value) = directive.split_once(' ').unwrap_or((directive, ""));
        let count = || value.parse::<usize>().map_err(|_| format!("`{value}` is not a number"));
        match name {
            "body" => self.body = Some(unescape(value)?),
            "size" => self.body = Some(pattern(count()?)),
            "chunked" => {
                let sizes = value.split(',').filter(|size| !size.is_empty()).map(|size| size.trim().parse());
                self.chunks = Some(sizes.collect::<Result<_, _>>().map_err(|_| "expected sizes".to_owned())?);
            }
            "trailer" => {
                let (name, value) = value.split_once(':').ok_or("expected `name: value`")?;
                self.trailers.push((name.to_owned(), value.trim().to_owned()));
            }
            "version" => self.version = Some(value.to_owned()),
            "target" => self.target = value.to_owned(),
            "pieces" => self.pieces = Some(count()?.max(1)),
            "tunnel" => self.tunnel = Some(unescape(value)?),
            "leave" => self.leave = Some(parse_duration(value).ok_or("expected a duration")?),
            "port" => row.port = Some(value.parse().map_err(|_| "expected a port")?),
            "times" => row.times = value.parse().map_err(|_| "expected a number")?,
            "wait" => row.wait = parse_duration(value).ok_or("expected a duration")?,
            "beside" => {
                let mut other =
                    Draft { fields: vec![("user-agent".to_owned(), BESIDE.to_owned())], ..Draft::default() };
                other.read(value, row)?;
                row.beside.push(Exchange {
                    tunnel: None,
                    method: other.method.clone(),
                    bytes: other.render(row.line)?,
                    pipelined: false,
                    pieces: None,
                    leave: None,
                    response: ExpectedResponse::default(),
                    backend: ExpectedBackend::default(),
                    log: ExpectedLog::default(),
                });
            }
            _ => return Err("unknown directive".to_owned()),
        }
        Ok(())
    }

    fn render(self, line: u32) -> Result<Vec<u8>, String> {
        if let Some(raw) = self.raw {
            return Ok(raw);
        }
        if self.method.is_empty() {
            return Err("the request cell has no request".to_owned());
        }
        let version = self.version.as_deref().unwrap_or("HTTP/1.1");
        let mut head = format!("{} {} {version}\r\nhost: {}\r\n", self.method, self.target, self.host);
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
            head.push_str(&format!("user-agent: {}\r\n", tag(line)));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut body = Vec::new();
        if let Some(sizes) = &self.chunks {
            head.push_str("transfer-encoding: chunked\r\n");
            for size in sizes {
                body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                body.extend_from_slice(&pattern(*size));
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n");
            for (name, value) in &self.trailers {
                body.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            body.extend_from_slice(b"\r\n");
        } else if let Some(content) = self.body {
            head.push_str(&format!("content-length: {}\r\n", content.len()));
            body = content;
        }
        head.push_str("\r\n");
        let mut bytes: Vec<u8> = head.chars().map(|character| character as u8).collect();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}

fn parse_response(spans: &[String]) -> Result<ExpectedResponse, String> {
    let mut expected = ExpectedResponse::default();
    for span in spans {
        let wrong = || format!("response `{span}` is not understood");
        if span == "none" {
            continue;
        }
        if let Ok(status) = span.parse() {
            expected.status = Some(status);
        } else if let Some(directive) = span.strip_prefix('@') {
            let (name, value) = directive.split_once(' ').unwrap_or((directive, ""));
            match name {
                "body" => expected.body = Some(unescape(value)?),
                "size" => expected.size = Some(value.parse().map_err(|_| wrong())?),
                "closes" => expected.closes = true,
                "cut" => expected.cut = true,
                "interim" => expected.interim.push(value.parse().map_err(|_| wrong())?),
                "after" => expected.after = Some(parse_duration(value).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        } else {
            push_rule(&mut expected.headers, span).ok_or_else(wrong)?;
        }
    }
    Ok(expected)
}

fn parse_backend(spans: &[String]) -> Result<ExpectedBackend, String> {
    let mut whole = ExpectedBackend::default();
    for span in spans {
        let wrong = || format!("backend `{span}` is not understood");
        if let Some(name) = span.strip_prefix("@mirror ") {
            whole.mirrors.push(ExpectedBackend { choice: Some(Choice::Named(name.to_owned())), ..Default::default() });
            continue;
        }
        // What stands behind a mirror is said of it.
        let expected =
            if whole.mirrors.is_empty() { &mut whole } else { whole.mirrors.last_mut().ok_or_else(wrong)? };
        if let Some(directive) = span.strip_prefix('@') {
            let (name, value) = directive.split_once(' ').unwrap_or((directive, ""));
            match name {
                "body" => expected.body = Some(unescape(value)?),
                "size" => expected.size = Some(value.parse().map_err(|_| wrong())?),
                "one" => expected.choice = Some(Choice::OneOnly),
                _ => return Err(wrong()),
            }
        } else if let Some((name, share)) = span.strip_suffix('%').and_then(|text| text.rsplit_once(' ')) {
            let share = (name.to_owned(), share.parse().map_err(|_| wrong())?);
            match &mut expected.choice {
                Some(Choice::Shares(shares)) => shares.push(share),
                None => expected.choice = Some(Choice::Shares(vec![share])),
                Some(_) => return Err(wrong()),
            }
        } else if span.ends_with(" HTTP/1.1") && !span.contains(": ") {
            expected.request = Some(span.clone());
        } else if span == "none" {
            expected.choice = Some(Choice::Nobody);
        } else if span == "cut" {
            expected.choice = Some(Choice::NobodyWhole);
        } else if span.contains([':', ' ']) {
            push_rule(&mut expected.headers, span).ok_or_else(wrong)?;
        } else {
            expected.choice = Some(Choice::Named(span.clone()));
        }
    }
    Ok(whole)
}

fn parse_log(spans: &[String]) -> Result<ExpectedLog, String> {
    let mut expected = ExpectedLog::default();
    for span in spans {
        if let Some((name, value)) = span.split_once(": ") {
            expected.fields.push((name.to_owned(), value.to_owned()));
        } else {
            let (flags, details) = span.split_once(' ').ok_or_else(|| format!("log `{span}`: `FLAGS details`"))?;
            expected.verdict = Some((flags.to_owned(), details.to_owned()));
        }
    }
    Ok(expected)
}

/// `name: value`, `has name` or `no name`; a repeated name adds a further expected line.
fn push_rule(rules: &mut Vec<HeaderRule>, span: &str) -> Option<()> {
    if let Some(name) = span.strip_prefix("no ") {
        rules.push(HeaderRule::Absent(name.trim().to_owned()));
    } else if let Some(name) = span.strip_prefix("has ") {
        rules.push(HeaderRule::Present(name.trim().to_owned()));
    } else {
        let (name, value) = span.split_once(':')?;
        let value = value.trim().to_owned();
        for rule in rules.iter_mut() {
            if let HeaderRule::Values(known, values) = rule
                && known == name
            {
                values.push(value);
                return Some(());
            }
        }
        rules.push(HeaderRule::Values(name.to_owned(), vec![value]));
    }
    Some(())
}

/// Bytes of a text with `\r \n \t \0 \\ \xHH` and repetitions `{text*count}`; `\{` and `\}` are plain braces.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let escape = rest.chars().next().ok_or("a lone backslash")?;
                rest = &rest[escape.len_utf8()..];
                bytes.push(match escape {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    '{' => b'{',
                    '}' => b'}',
                    'x' => {
                        let digits = rest.get(..2).ok_or("`\\x` needs two digits")?;
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).map_err(|_| "`\\x` needs two hex digits")?
                    }
                    other => return Err(format!("unknown escape `\\{other}`")),
                });
            }
            '{' => {
                let end = rest.find('}').ok_or("`{` without `}`")?;
                let (unit, count) = rest[..end].rsplit_once('*').ok_or("expected `{text*count}`")?;
                let count: usize = count.parse().map_err(|_| "expected `{text*count}`")?;
                let unit = unescape(unit)?;
                bytes.extend(unit.iter().copied().cycle().take(unit.len() * count));
                rest = &rest[end + 1..];
            }
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(request: &str, response: &str, backend: &str, log: &str) -> Row {
        parse(7, Cells { request, response, backend, log, ..Cells::default() }).unwrap()
    }

    #[test]
    fn a_plain_row_becomes_one_exchange() {
        let row = row(
            "`GET shop.example/a?b=1` with `x-user: beta`",
            "`200` `x-a: 1` `x-a: 2` `no server`",
            "`v2` `GET /new HTTP/1.1` `host: other`",
            "`- via_upstream` `route: cart`",
        );
        let exchange = &row.exchanges[0];
        let expected = "GET /a?b=1 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: row-7\r\nx-user: beta\r\n\r\n";
        assert_eq!(crate::wire::latin1(&exchange.bytes), expected);
        assert_eq!(exchange.response.status, Some(200));
        assert_eq!(
            exchange.response.headers,
            [
                HeaderRule::Values("x-a".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
                HeaderRule::Absent("server".to_owned())
            ]
        );
        assert_eq!(exchange.backend.choice, Some(Choice::Named("v2".to_owned())));
        assert_eq!(exchange.backend.request.as_deref(), Some("GET /new HTTP/1.1"));
        assert_eq!(exchange.log.verdict, Some(("-".to_owned(), "via_upstream".to_owned())));
        assert_eq!(exchange.log.fields, [("route".to_owned(), "cart".to_owned())]);
    }

    #[test]
    fn several_exchanges_share_a_row() {
        let row = row("`GET a` `@and` `GET b` `@then` `GET c`", "`200` `@and` `404` `@then` `503`", "", "");
        let pipelined: Vec<_> = row.exchanges.iter().map(|exchange| exchange.pipelined).collect();
        assert_eq!(pipelined, [false, true, false]);
        assert_eq!(row.exchanges[2].response.status, Some(503));
        assert!(parse(1, Cells { request: "`GET a`", response: "`200` `@and` `200`", ..Cells::default() }).is_err());
    }

    #[test]
    fn other_requests_may_be_under_way_beside_a_row() {
        let row = row("`GET a/x` `@wait 50ms` `@beside GET a/y?delay=1s` `@beside GET b/`", "`200`", "", "");
        assert_eq!(row.wait, Duration::from_millis(50));
        let expected = "GET /y?delay=1s HTTP/1.1\r\nhost: a\r\nuser-agent: beside\r\n\r\n";
        assert_eq!(crate::wire::latin1(&row.beside[0].bytes), expected);
        assert_eq!((row.beside.len(), row.exchanges.len()), (2, 1));
        assert!(parse(1, Cells { request: "`GET a` `@times 2` `@beside GET a`", ..Cells::default() }).is_err());
    }

    #[test]
    fn raw_bytes_are_taken_literally() {
        let row = row(r"`raw GET / HTTP/1.1\r\nx: {ab*3}\0\xff\r\n\r\n`", "`400`", "`none`", "");
        assert_eq!(row.exchanges[0].bytes, b"GET / HTTP/1.1\r\nx: ababab\0\xff\r\n\r\n");
        assert_eq!(row.exchanges[0].method, "GET");
        assert_eq!(row.exchanges[0].backend.choice, Some(Choice::Nobody));
    }

    #[test]
    fn raw_bytes_may_carry_the_mark_of_their_row() {
        let row = row(r"`raw GET / HTTP/1.1\r\nuser-agent: \T\r\n\r\n`", "`400`", "", "");
        assert_eq!(row.exchanges[0].bytes, b"GET / HTTP/1.1\r\nuser-agent: row-7\r\n\r\n");
    }

    #[test]
    fn shares_and_escaped_bars() {
        let row = row("`GET a` `@times 50`", "`200`", "`v1 90%` `v2 10%`", r"`- via_upstream` `cluster: a\|b`");
        assert_eq!(row.times, 50);
        let shares = vec![("v1".to_owned(), 90.0), ("v2".to_owned(), 10.0)];
        assert_eq!(row.exchanges[0].backend.choice, Some(Choice::Shares(shares)));
        assert_eq!(row.exchanges[0].log.fields[0].1, "a|b");
    }

    #[test]
    fn chunked_bodies_are_framed() {
        let row = row("`POST a/up` `@chunked 3,1` `@trailer x-t: 1`", "", "", "");
        let text = crate::wire::latin1(&row.exchanges[0].bytes);
        assert!(
            text.ends_with("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\na\r\n0\r\nx-t: 1\r\n\r\n"),
            "{text}"
        );
        assert!(parse(1, Cells { request: "`POST a` `@chunked x`", ..Cells::default() }).is_err());
    }
}
