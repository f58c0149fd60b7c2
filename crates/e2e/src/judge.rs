//! Does a play agree with the page, and do two plays agree with each other?
//!
//! A verdict is a list of complaints, one sentence each; an empty list is agreement.

use std::collections::VecDeque;
use std::fmt::Display;

use crate::access_log::FIELDS;
use crate::allowed::{Allowed, Place};
use crate::backend::Received;
use crate::client::Response;
use crate::row::{Choice, Exchange, ExpectedBackend, ExpectedResponse, HeaderRule, Row};
use crate::stage::{Play, RowPlay};
use crate::wire::{Framing, Head, latin1};

/// How much longer than `@after` a response may take, for a busy machine.
const AFTER_TOLERANCE_SECONDS: f64 = 2.0;
/// How much earlier it may come: a proxy's clock counts whole milliseconds and starts before the harness's.
const BEFORE_TOLERANCE_SECONDS: f64 = 0.02;
/// A share may stray so many standard deviations: by chance alone about once in two million rows.
const STRAY: f64 = 5.0;

/// Fields of the access log that are not compared, because each side has ports and clocks of its own. Their presence is.
const PRESENCE_ONLY: [&str; 4] =
    ["upstream_local_address", "downstream_local_address", "downstream_remote_address", "start_time"];

/// Holds one row of a play against the page.
pub fn against_page(row: &Row, play: &RowPlay) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(failure) = &play.failure {
        complaints.push(failure.clone());
        return complaints;
    }
    if row.times > 1 {
        judge_shares(row, play, &mut complaints);
    }
    let mirrored = row.is_mirrored();
    let mut received: VecDeque<&Received> = play.received.iter().collect();
    for (index, exchange) in row.exchanges.iter().enumerate() {
        let mut here = Vec::new();
        let response = play.transcript.responses.get(index).and_then(Option::as_ref);
        judge_response(&exchange.response, response, &play.transcript.end, &mut here);
        if row.times == 1 {
            judge_backend(&exchange.backend, mirrored, &mut received, &mut here);
            for mirror in &exchange.backend.mirrors {
                judge_backend(mirror, mirrored, &mut received, &mut here);
            }
        }
        judge_log(exchange, play, index, &mut here);
        let part = if row.exchanges.len() > 1 { format!("part {}: ", index + 1) } else { String::new() };
        complaints.extend(here.into_iter().map(|complaint| format!("{part}{complaint}")));
    }
    if !play.transcript.surplus.is_empty() {
        complaints.push(format!("surplus bytes `{}`", shorten(&latin1(&play.transcript.surplus))));
    }
    let speaks = row.times == 1 && row.exchanges.iter().all(|exchange| exchange.backend.choice.is_some());
    if let (true, Some(extra)) = (speaks, received.pop_front()) {
        complaints.push(format!("backend {} received `{}` besides", extra.backend, shorten(&latin1(&extra.head.raw))));
    }
    complaints
}

/// Holds one row of Envoy's play against the deviation that the row points at.
pub fn against_deviation(key: &str, play: &RowPlay, allowed: &Allowed) -> Vec<String> {
    let Some(status) = allowed.envoy_status(key) else {
        return vec![format!("there is no deviation `{key}` in the list of allowed differences")];
    };
    let found = play.transcript.responses.first().and_then(Option::as_ref).map(Response::status);
    if found == Some(status) {
        Vec::new()
    } else {
        vec![format!("deviation `{key}`: expected {status}, got {found:?}")]
    }
}

/// Holds one row of two plays against each other. The first is called `left` in the complaints by its name.
pub fn against_each_other(
    row: &Row,
    left: (&Play, &RowPlay),
    right: (&Play, &RowPlay),
    allowed: &Allowed,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let names = (left.0.proxy, right.0.proxy);
    let (left, right) = (left.1, right.1);
    let statistical = row.times > 1;
    let mut compare = Comparison { names, complaints: &mut complaints, allowed };
    if statistical {
        let statuses = |play: &RowPlay| play.counts.statuses.keys().copied().collect::<Vec<_>>();
        compare.same("statuses", &statuses(left), &statuses(right));
    }
    for index in 0..row.exchanges.len() {
        let response = |play: &RowPlay| play.transcript.responses.get(index).cloned().flatten();
        match (response(left), response(right)) {
            (Some(left), Some(right)) => compare.responses(&left, &right, statistical),
            (left, right) => compare.same("response", &left.is_some(), &right.is_some()),
        }
    }
    compare.same("connection is over", &is_over(&left.transcript.end), &is_over(&right.transcript.end));
    // How much of a request that breaks off reaches a backend depends on which of two sockets was faster.
    let partial = row.exchanges.iter().any(|exchange| exchange.backend.choice == Some(Choice::NobodyWhole));
    let whole = |play: &RowPlay| -> Vec<Received> {
        let received = play.received.iter();
        let mut whole: Vec<Received> =
            received.filter(|received| !partial || received.body.cut.is_none()).cloned().collect();
        if row.is_mirrored() {
            whole.sort_by(|one, other| one.backend.cmp(&other.backend));
        }
        whole
    };
    let (left_received, right_received) = (whole(left), whole(right));
    compare.same("requests at backends", &left_received.len(), &right_received.len());
    for (left, right) in left_received.iter().zip(&right_received) {
        compare.requests(left, right, statistical);
    }
    compare.same("access-log entries", &left.log.len(), &right.log.len());
    for (left, right) in left.log.iter().zip(&right.log) {
        for field in FIELDS {
            let chosen = matches!(field, "upstream_host" | "upstream_cluster" | "bytes_sent");
            let unsettled = partial && field.starts_with("upstream_");
            if (statistical && chosen) || unsettled {
                continue;
            }
            let (left, right) = (left.get(field), right.get(field));
            if PRESENCE_ONLY.contains(&field) {
                compare.same(&format!("log has {field}"), &(left != "-"), &(right != "-"));
            } else if left != right && !allowed.permits(Place::Log, field, left, right) {
                compare.differ(&format!("log {field}"), left, right);
            }
        }
    }
    complaints
}

fn judge_response(expected: &ExpectedResponse, response: Option<&Response>, end: &str, complaints: &mut Vec<String>) {
    let Some(response) = response else {
        if let Some(status) = expected.status {
            complaints.push(format!("expected {status}, got no response (connection {end})"));
        }
        return;
    };
    let Some(status) = expected.status else {
        complaints.push(format!("expected no response, got {}", response.status()));
        return;
    };
    if response.status() != status {
        complaints.push(format!("expected status {status}, got {}", response.status()));
    }
    let interim: Vec<u16> = response.interim.iter().filter_map(Head::status).collect();
    if interim != expected.interim {
        complaints.push(format!("expected interim {:?}, got {interim:?}", expected.interim));
    }
    judge_headers("response", &expected.headers, &response.head.fields, complaints);
    judge_body("response", expected.body.as_deref(), expected.size, &response.body.bytes, complaints);
    match (&response.body.cut, expected.cut) {
        (Some(how), false) => complaints.push(format!("the body breaks off: {how}")),
        (None, true) => complaints.push("the body is complete, expected it to break off".to_owned()),
        _ => {}
    }
    if expected.closes && !is_over(end) {
        complaints.push(format!("expected the connection to be closed, it is {end}"));
    }
    if let Some(after) = expected.after {
        let range = after.as_secs_f64() - BEFORE_TOLERANCE_SECONDS..after.as_secs_f64() + AFTER_TOLERANCE_SECONDS;
        let elapsed = response.elapsed.as_secs_f64();
        if !range.contains(&elapsed) {
            complaints.push(format!("expected the response after {after:?}, it took {elapsed:.3} s"));
        }
    }
}

/// `by_name`: the order in which backends receive their requests does not count.
fn judge_backend(
    expected: &ExpectedBackend,
    by_name: bool,
    received: &mut VecDeque<&Received>,
    complaints: &mut Vec<String>,
) {
    let name = match &expected.choice {
        Some(Choice::Named(name)) => name,
        // What nobody should have received stays in the iterator and is reported as surplus.
        Some(Choice::Nobody | Choice::Shares(_) | Choice::OneOnly) | None => return,
        Some(Choice::NobodyWhole) => {
            for received in received.drain(..).filter(|received| received.body.cut.is_none()) {
                let request = shorten(&latin1(&received.head.raw));
                complaints.push(format!("backend {} received all of `{request}`", received.backend));
            }
            return;
        }
    };
    let place = if by_name { received.iter().position(|received| received.backend == *name) } else { Some(0) };
    let Some(received) = place.and_then(|place| received.remove(place)) else {
        complaints.push(format!("expected backend {name}, no backend was reached"));
        return;
    };
    if received.backend != *name {
        complaints.push(format!("expected backend {name}, got {}", received.backend));
    }
    if let Some(request) = &expected.request
        && received.head.start != *request
    {
        complaints.push(format!("expected the backend to see `{request}`, it saw `{}`", received.head.start));
    }
    judge_headers("backend", &expected.headers, &received.head.fields, complaints);
    judge_body("backend", expected.body.as_deref(), expected.size, &received.body.bytes, complaints);
}

fn judge_headers(place: &str, rules: &[HeaderRule], fields: &[(String, String)], complaints: &mut Vec<String>) {
    for rule in rules {
        let (HeaderRule::Values(name, _) | HeaderRule::Present(name) | HeaderRule::Absent(name)) = rule;
        let found: Vec<&str> = fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        let agrees = match rule {
            HeaderRule::Values(_, values) => *values == found,
            HeaderRule::Present(_) => !found.is_empty(),
            HeaderRule::Absent(_) => found.is_empty(),
        };
        if !agrees {
            let wanted = match rule {
                HeaderRule::Values(_, values) => format!("{values:?}"),
                HeaderRule::Present(_) => "it to be there".to_owned(),
                HeaderRule::Absent(_) => "none".to_owned(),
            };
            complaints.push(format!("{place} header {name}: expected {wanted}, got {found:?}"));
        }
    }
}

fn judge_body(place: &str, expected: Option<&[u8]>, size: Option<usize>, found: &[u8], complaints: &mut Vec<String>) {
    if let Some(expected) = expected
        && expected != found
    {
        let (wanted, found) = (shorten(&latin1(expected)), shorten(&latin1(found)));
        complaints.push(format!("{place} body: expected `{wanted}`, got `{found}`"));
    }
    if let Some(size) = size
        && size != found.len()
    {
        complaints.push(format!("{place} body: expected {size} bytes, got {}", found.len()));
    }
}

fn judge_log(exchange: &Exchange, play: &RowPlay, index: usize, complaints: &mut Vec<String>) {
    let expected = &exchange.log;
    if expected.verdict.is_none() && expected.fields.is_empty() {
        return;
    }
    let Some(entry) = play.log.get(index) else {
        complaints.push("no access-log entry".to_owned());
        return;
    };
    if let Some((flags, details)) = &expected.verdict {
        let found = (entry.get("response_flags"), entry.get("response_code_details"));
        if found != (flags.as_str(), details.as_str()) {
            complaints.push(format!("log: expected `{flags} {details}`, got `{} {}`", found.0, found.1));
        }
    }
    for (name, value) in &expected.fields {
        if !FIELDS.contains(&name.as_str()) {
            complaints.push(format!("log: there is no field `{name}`"));
        } else if entry.get(name) != value {
            complaints.push(format!("log {name}: expected `{value}`, got `{}`", entry.get(name)));
        }
    }
}

fn judge_shares(row: &Row, play: &RowPlay, complaints: &mut Vec<String>) {
    let choice = row.exchanges.first().and_then(|exchange| exchange.backend.choice.as_ref());
    if choice == Some(&Choice::OneOnly) && play.counts.backends.len() != 1 {
        complaints.push(format!("expected one and the same backend, got {:?}", play.counts.backends));
    }
    let Some(Choice::Shares(shares)) = row.exchanges.first().and_then(|exchange| exchange.backend.choice.as_ref())
    else {
        return;
    };
    let total = f64::from(row.times);
    for (name, percent) in shares {
        let share = percent / 100.0;
        let count = f64::from(play.counts.backends.get(name).copied().unwrap_or(0));
        let tolerance = STRAY * (total * share * (1.0 - share)).sqrt();
        if (count - total * share).abs() > tolerance {
            complaints.push(format!("backend {name}: expected {percent} % of {total}, got {count} requests"));
        }
    }
    let known = |name: &str| shares.iter().any(|(share, _)| share == name);
    for (name, count) in play.counts.backends.iter().filter(|(name, _)| !known(name)) {
        complaints.push(format!("backend {name} got {count} requests, expected none"));
    }
}

/// Collects what differs between two sides.
struct Comparison<'a> {
    names: (&'static str, &'static str),
    complaints: &'a mut Vec<String>,
    allowed: &'a Allowed,
}

impl Comparison<'_> {
    fn differ(&mut self, what: &str, left: impl Display, right: impl Display) {
        let (one, other) = self.names;
        self.complaints.push(format!("{what}: {one} `{left}`, {other} `{right}`"));
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, left: &T, right: &T) {
        if left != right {
            self.differ(what, format!("{left:?}"), format!("{right:?}"));
        }
    }

    fn responses(&mut self, left: &Response, right: &Response, statistical: bool) {
        self.same("status", &left.status(), &right.status());
        self.same("interim responses", &left.interim.len(), &right.interim.len());
        for (left, right) in left.interim.iter().zip(&right.interim) {
            self.same("interim status", &left.status(), &right.status());
            self.headers(Place::Response, &left.fields, &right.fields, statistical);
        }
        self.headers(Place::Response, &left.head.fields, &right.head.fields, statistical);
        self.same("framing of the response", &kind(left.framing), &kind(right.framing));
        if !statistical && left.body.cut.is_none() && right.body.cut.is_none() {
            self.bodies("response body", &left.body.bytes, &right.body.bytes);
        }
        self.same("response breaks off", &left.body.cut.is_some(), &right.body.cut.is_some());
        self.same("response trailers", &left.body.trailers, &right.body.trailers);
    }

    fn requests(&mut self, left: &Received, right: &Received, statistical: bool) {
        if !statistical {
            self.same("backend", &left.backend, &right.backend);
        }
        self.same("request line at the backend", &left.head.start, &right.head.start);
        self.headers(Place::Request, &left.head.fields, &right.head.fields, statistical);
        self.same("framing at the backend", &kind(left.framing), &kind(right.framing));
        self.same("request breaks off", &left.body.cut.is_some(), &right.body.cut.is_some());
        if left.body.cut.is_none() && right.body.cut.is_none() {
            self.bodies("body at the backend", &left.body.bytes, &right.body.bytes);
        }
        self.same("trailers at the backend", &left.body.trailers, &right.body.trailers);
    }

    fn headers(&mut self, place: Place, left: &[(String, String)], right: &[(String, String)], statistical: bool) {
        let what = if place == Place::Response { "response header" } else { "header at the backend" };
        let names =
            |fields: &[(String, String)]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ");
        let (left_names, right_names) = (names(left), names(right));
        if left_names != right_names {
            self.differ(&format!("{what} list"), left_names, right_names);
            return;
        }
        for ((name, left), (_, right)) in left.iter().zip(right) {
            let chosen = statistical && name == "content-length";
            if left != right && !chosen && !self.allowed.permits(place, name, left, right) {
                self.differ(&format!("{what} {name}"), left, right);
            }
        }
    }

    fn bodies(&mut self, what: &str, left: &[u8], right: &[u8]) {
        if left != right {
            let show = |bytes: &[u8]| format!("{} bytes: {}", bytes.len(), shorten(&latin1(bytes)));
            self.differ(what, show(left), show(right));
        }
    }
}

/// Closing with unread bytes makes the system send a reset in place of an orderly end; which of the two the client sees
/// depends on how much the proxy had read by then.
fn is_over(end: &str) -> bool {
    matches!(end, "closed" | "reset")
}

/// The framing without its number, which the headers already show.
fn kind(framing: Framing) -> &'static str {
    match framing {
        Framing::None => "none",
        Framing::Length(_) => "length",
        Framing::Chunked => "chunked",
        Framing::UntilClose => "until close",
    }
}

fn shorten(text: &str) -> String {
    let escaped = text.escape_debug().to_string();
    match escaped.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::Entry;
    use crate::client::Transcript;
    use crate::row::{Cells, parse};
    use crate::wire::Body;

    fn head(start: &str, fields: &[(&str, &str)]) -> Head {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Head { start: start.to_owned(), fields: fields.collect(), raw: Vec::new() }
    }

    /// What a side shows that answered one request with these headers, through backend v1.
    fn play(status: u16, fields: &[(&str, &str)]) -> Play {
        let response = Response {
            interim: Vec::new(),
            head: head(&format!("HTTP/1.1 {status} x"), fields),
            framing: Framing::Length(2),
            body: Body { bytes: b"ok".to_vec(), ..Body::default() },
            elapsed: std::time::Duration::ZERO,
        };
        let received = Received {
            backend: "v1".to_owned(),
            connection: 1,
            head: head("GET / HTTP/1.1", &[("host", "a")]),
            framing: Framing::None,
            body: Body::default(),
        };
        let entry = [("response_flags", "-"), ("response_code_details", "via_upstream")];
        let row = RowPlay {
            transcript: Transcript { responses: vec![Some(response)], end: "open".to_owned(), surplus: Vec::new() },
            received: vec![received],
            log: vec![Entry { fields: entry.map(|(name, value)| (name, value.to_owned())).into() }],
            ..RowPlay::default()
        };
        Play { proxy: "one", rows: vec![row], stats: String::new() }
    }

    fn row(response: &str, backend: &str, log: &str) -> Row {
        let cells = Cells { request: "`GET a/`", response, backend, log, ..Cells::default() };
        parse(1, cells).unwrap()
    }

    fn compare(left: &Play, right: &Play) -> Vec<String> {
        let allowed = Allowed::parse("| response | date | http-date | two clocks |\n").unwrap();
        let row = row("`200`", "", "");
        against_each_other(&row, (left, &left.rows[0]), (right, &right.rows[0]), &allowed)
    }

    #[test]
    fn a_row_that_is_as_expected_has_no_complaint() {
        let play = play(200, &[("x-a", "1"), ("x-a", "2")]);
        let row =
            row("`200` `x-a: 1` `x-a: 2` `no x-b` `@body ok`", "`v1` `GET / HTTP/1.1` `host: a`", "`- via_upstream`");
        assert_eq!(against_page(&row, &play.rows[0]), Vec::<String>::new());
    }

    #[test]
    fn every_expectation_can_fail() {
        let play = play(200, &[("x-a", "1")]);
        let cases = [
            ("`404`", "", ""),
            ("`none`", "", ""),
            ("`200` `x-a: 2`", "", ""),
            ("`200` `no x-a`", "", ""),
            ("`200` `has x-b`", "", ""),
            ("`200` `@body other`", "", ""),
            ("`200` `@size 3`", "", ""),
            ("`200` `@closes`", "", ""),
            ("`200` `@cut`", "", ""),
            ("`200` `@interim 103`", "", ""),
            ("`200` `@after 5s`", "", ""),
            ("`200`", "`v2`", ""),
            ("`200`", "`none`", ""),
            ("`200`", "`cut`", ""),
            ("`200`", "`v1` `GET /other HTTP/1.1`", ""),
            ("`200`", "`v1` `no host`", ""),
            ("`200`", "`v1` `@size 1`", ""),
            ("`200`", "", "`NR route_not_found`"),
            ("`200`", "", "`route_name: x`"),
            ("`200`", "", "`no_such_field: x`"),
        ];
        for (response, backend, log) in cases {
            let complaints = against_page(&row(response, backend, log), &play.rows[0]);
            assert_eq!(complaints.len(), 1, "{response} {backend} {log}: {complaints:?}");
        }
    }

    #[test]
    fn two_sides_must_agree_in_everything_but_the_allowed_values() {
        let dated = |date| play(200, &[("date", date), ("server", "s")]);
        let (one, other) = (dated("Sun, 06 Nov 1994 08:49:37 GMT"), dated("Mon, 07 Nov 1994 08:49:37 GMT"));
        assert_eq!(compare(&one, &other), Vec::<String>::new());
        assert_eq!(compare(&one, &dated("today")).len(), 1);

        let order = play(200, &[("server", "s"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert!(compare(&one, &order)[0].contains("header list"));
        assert!(!compare(&one, &play(404, &[])).is_empty());

        let mut elsewhere = dated("Sun, 06 Nov 1994 08:49:37 GMT");
        elsewhere.rows[0].received[0].backend = "v2".to_owned();
        assert!(compare(&one, &elsewhere)[0].contains("backend"));
        elsewhere.rows[0].received.clear();
        assert!(compare(&one, &elsewhere)[0].contains("requests at backends"));

        let mut logged = dated("Sun, 06 Nov 1994 08:49:37 GMT");
        logged.rows[0].log[0].fields.insert("response_flags", "UF".to_owned());
        assert!(compare(&one, &logged)[0].contains("log response_flags"));
        logged.rows[0].transcript.end = "closed".to_owned();
        assert_eq!(compare(&one, &logged).len(), 2);
    }

    #[test]
    fn shares_may_stray_but_not_far() {
        let cells = Cells {
            request: "`GET a/` `@times 100`",
            response: "`200`",
            backend: "`v1 90%` `v2 10%`",
            ..Cells::default()
        };
        let row = parse(1, cells).unwrap();
        let with = |counts: &[(&str, u32)]| {
            let mut play = play(200, &[]).rows.remove(0);
            play.counts.backends = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            against_page(&row, &play)
        };
        assert_eq!(with(&[("v1", 86), ("v2", 14)]), Vec::<String>::new());
        assert_eq!(with(&[("v1", 70), ("v2", 30)]).len(), 2);
        assert_eq!(with(&[("v1", 90), ("v2", 10), ("v3", 1)]).len(), 1);
    }
}
