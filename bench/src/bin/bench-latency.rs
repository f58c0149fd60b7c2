//! How long does a request take when requests keep coming at a steady rate?
//!
//! With `--rate` the client is an open loop: request number n is due at start + n / rate whether
//! or not earlier ones have been answered, and its time counts from the moment it was due, so a
//! server that stalls pays for every request that had to wait. Without `--rate` it is a closed
//! loop over all connections with an exact number of requests, timed from the moment of sending.
//!
//! One thread over `epoll`; the result is one line of JSON on standard output.

use lateen_bench::message::{Body, Head};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: bench-latency --address IP:PORT [options]

  --address IP:PORT     where to connect
  --path PATH           request target (default /)
  --host HOST           Host field (default localhost)
  --header 'NAME: VALUE'  further field; may be repeated
  --post BYTES          send POST with a body of this many bytes instead of GET
  --connections N       kept-alive connections (default 64)
  --rate N              requests per second, evenly spaced (open loop);
                        without it every connection sends as soon as it can (closed loop)
  --seconds N           duration with --rate (default 5)
  --requests N          exact number of requests (default: rate x seconds)

Prints one JSON object: completed, failed (status not 2xx, or the connection ended early),
seconds, requests_per_second, late_sends (share of requests sent more than 1 ms after they were
due, because the client or its connections were busy), and microseconds p50, p90, p99, p999,
max of the last nine tenths of the requests.
";

/// A run without any progress for this long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Share of requests at the start that count as warm-up: one in this many.
const WARM_UP_DIVISOR: usize = 10;
const REQUEST_LIMIT: u64 = 100_000_000;
const LATE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let result = Options::parse(std::env::args().skip(1)).and_then(|options| match options {
        None => Ok(USAGE.to_owned()),
        Some(options) => measure(&options),
    });
    match result {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(message) => {
            let _ = writeln!(io::stderr(), "bench-latency: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    address: SocketAddr,
    request: Vec<u8>,
    connections: usize,
    rate: Option<f64>,
    requests: u64,
}

impl Options {
    /// Parses the arguments; `None` when they ask for the usage.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut address, mut path, mut host) = (None, "/".to_owned(), "localhost".to_owned());
        let (mut fields, mut post, mut connections) = (String::new(), None, 64_usize);
        let (mut rate, mut seconds, mut requests) = (None, 5.0, None);
        while let Some(option) = arguments.next() {
            if option == "--help" || option == "-h" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value\n\n{USAGE}"))?;
            match option.as_str() {
                "--address" => address = Some(number::<SocketAddr>(&option, &value)?),
                "--path" => path = value,
                "--host" => host = value,
                "--header" => fields += &format!("{value}\r\n"),
                "--post" => post = Some(number::<usize>(&option, &value)?),
                "--connections" => connections = number(&option, &value)?,
                "--rate" => rate = Some(positive(&option, &value)?),
                "--seconds" => seconds = positive(&option, &value)?,
                "--requests" => requests = Some(number(&option, &value)?),
                _ => return Err(format!("unknown option {option}\n\n{USAGE}")),
            }
        }
        let address = address.ok_or_else(|| format!("--address is missing\n\n{USAGE}"))?;
        let requests = match (requests, rate) {
            (Some(requests), _) => requests,
            (None, Some(rate)) => (rate * seconds) as u64,
            (None, None) => return Err("without --rate, --requests is needed".to_owned()),
        };
        if !(1..=REQUEST_LIMIT).contains(&requests) || !(1..=60_000).contains(&connections) {
            return Err("number of requests or connections out of range".to_owned());
        }
        let mut request =
            format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}", if post.is_some() { "POST" } else { "GET" });
        if let Some(length) = post {
            request += &format!("Content-Length: {length}\r\n");
        }
        request += "\r\n";
        let mut request = request.into_bytes();
        request.resize(request.len() + post.unwrap_or(0), b'x');
        Ok(Some(Self { address, request, connections, rate, requests }))
    }
}

fn number<N: std::str::FromStr>(option: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{option} {value}: not a valid value"))
}

fn positive(option: &str, value: &str) -> Result<f64, String> {
    let parsed: f64 = number(option, value)?;
    if parsed.is_finite() && parsed > 0.0 {
        Ok(parsed)
    } else {
        Err(format!("{option} {value}: not a positive number"))
    }
}

/// Runs the whole measurement and renders its result.
fn measure(options: &Options) -> Result<String, String> {
    // The kernel may round a sleep up by 50 µs by default, which is half the distance between
    // two requests at 10,000 a second.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1000))
        .map_err(|error| format!("cannot set the timer slack: {error}"))?;
    let mut client = Client::connect(options)
        .map_err(|error| format!("cannot open {} connections to {}: {error}", options.connections, options.address))?;
    client.run().map_err(|error| error.to_string())?;
    Ok(client.render())
}

struct Client<'a> {
    options: &'a Options,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request, longest idle first.
    idle: VecDeque<usize>,
    start: Instant,
    sent: u64,
    late: u64,
    failed: u64,
    /// Nanoseconds of each finished request, in order of completion.
    latencies: Vec<u64>,
    elapsed: Duration,
}

struct Connection {
    stream: TcpStream,
    /// When the request under way was due; `None` while idle.
    due: Option<Instant>,
    written: usize,
    input: Vec<u8>,
    response: Option<Response>,
}

#[derive(Clone, Copy)]
struct Response {
    body: Body,
    success: bool,
    closes: bool,
}

/// How a request ended.
struct Outcome {
    success: bool,
    connection_is_open: bool,
}

impl<'a> Client<'a> {
    fn connect(options: &'a Options) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(options.connections);
        for index in 0..options.connections {
            connections.push(Connection::open(options.address, &epoll, index)?);
        }
        Ok(Self {
            options,
            epoll,
            idle: (0..connections.len()).collect(),
            connections,
            start: Instant::now() + Duration::from_millis(50),
            sent: 0,
            late: 0,
            failed: 0,
            latencies: Vec::with_capacity(usize::try_from(options.requests).unwrap_or(0)),
            elapsed: Duration::ZERO,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut scratch = vec![0; 256 * 1024];
        let mut events = Vec::with_capacity(256);
        let mut last_progress = Instant::now();
        while (self.latencies.len() as u64) < self.options.requests {
            let wait = self.send_due()?;
            events.clear();
            let timeout =
                Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1), tv_nsec: wait.subsec_nanos().into() };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let before = self.latencies.len();
            for event in &events {
                let data = event.data;
                let index = usize::try_from(data.u64()).map_err(io::Error::other)?;
                self.advance(index, &mut scratch)?;
            }
            let now = Instant::now();
            if self.latencies.len() > before || self.latencies.len() as u64 == self.sent {
                last_progress = now;
            } else if now.duration_since(last_progress) > STALL_LIMIT {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "no answer for {} s; {} of {} requests sent, {} answered",
                        STALL_LIMIT.as_secs(),
                        self.sent,
                        self.options.requests,
                        self.latencies.len()
                    ),
                ));
            }
        }
        self.elapsed = self.start.elapsed();
        Ok(())
    }

    /// Sends every request that is due and has a connection; how long to wait for the next.
    fn send_due(&mut self) -> io::Result<Duration> {
        while self.sent < self.options.requests {
            let Some(&index) = self.idle.front() else {
                break;
            };
            let now = Instant::now();
            let due = match self.options.rate {
                Some(rate) => self.start + Duration::from_secs_f64(self.sent as f64 / rate),
                None => now.max(self.start),
            };
            if due > now {
                return Ok(due.duration_since(now).min(Duration::from_secs(1)));
            }
            self.idle.pop_front();
            self.sent += 1;
            self.late += u64::from(now.duration_since(due) > LATE);
            let connection = &mut self.connections[index];
            connection.due = Some(due);
            connection.written = 0;
            if let Some(outcome) = connection.write(&self.epoll, index, &self.options.request)? {
                self.finish(index, &outcome)?;
            }
        }
        Ok(Duration::from_secs(1))
    }

    fn advance(&mut self, index: usize, scratch: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let mut outcome = None;
        if connection.due.is_some() && connection.written < self.options.request.len() {
            outcome = connection.write(&self.epoll, index, &self.options.request)?;
        }
        if outcome.is_none() {
            outcome = connection.read(scratch);
        }
        match outcome {
            Some(outcome) => self.finish(index, &outcome),
            None => Ok(()),
        }
    }

    /// Accounts for the request under way, if any, and makes the connection idle again.
    fn finish(&mut self, index: usize, outcome: &Outcome) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let due = connection.due.take();
        if !outcome.connection_is_open {
            *connection = Connection::open(self.options.address, &self.epoll, index)?;
        }
        if let Some(due) = due {
            let latency = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.push(latency);
            self.failed += u64::from(!outcome.success);
            self.idle.push_back(index);
        }
        Ok(())
    }

    fn render(&mut self) -> String {
        let completed = self.latencies.len();
        let measured = &mut self.latencies[completed / WARM_UP_DIVISOR..];
        measured.sort_unstable();
        let percentile = |share: f64| quantile(measured, share) as f64 / 1e3;
        let seconds = self.elapsed.as_secs_f64();
        format!(
            "{{\"completed\": {completed}, \"failed\": {}, \"seconds\": {seconds:.3}, \
             \"requests_per_second\": {:.1}, \"late_sends\": {:.4}, \"p50\": {:.1}, \
             \"p90\": {:.1}, \"p99\": {:.1}, \"p999\": {:.1}, \"max\": {:.1}}}\n",
            self.failed,
            completed as f64 / seconds,
            self.late as f64 / self.sent as f64,
            percentile(0.5),
            percentile(0.9),
            percentile(0.99),
            percentile(0.999),
            percentile(1.0),
        )
    }
}

impl Connection {
    fn open(address: SocketAddr, epoll: &rustix::fd::OwnedFd, index: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        Ok(Self { stream, due: None, written: 0, input: Vec::new(), response: None })
    }

    /// Writes what the socket takes, and asks for an event when something is left.
    fn write(&mut self, epoll: &rustix::fd::OwnedFd, index: usize, request: &[u8]) -> io::Result<Option<Outcome>> {
        let started = self.written > 0;
        let mut blocked = false;
        while self.written < request.len() && !blocked {
            match self.stream.write(&request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
                Err(_) => return Ok(Some(Outcome::BROKEN)),
            }
        }
        if blocked || started {
            let interest = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(index as u64);
            epoll::modify(epoll, &self.stream, data, interest)?;
        }
        Ok(None)
    }

    /// Reads what has come; the outcome once the response is complete or cannot be.
    fn read(&mut self, scratch: &mut [u8]) -> Option<Outcome> {
        let read = match self.stream.read(scratch) {
            Ok(0) => {
                let complete = self.response.filter(|response| response.body.ends_with_connection());
                return Some(Outcome {
                    success: complete.is_some_and(|response| response.success),
                    connection_is_open: false,
                });
            }
            Ok(read) => &scratch[..read],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return None;
            }
            Err(_) => return Some(Outcome::BROKEN),
        };
        if self.due.is_none() {
            // Bytes that no request asked for.
            return Some(Outcome::BROKEN);
        }
        match self.accept(read) {
            Some(Ok(response)) => {
                self.response = None;
                Some(Outcome { success: response.success, connection_is_open: !response.closes })
            }
            Some(Err(())) => Some(Outcome::BROKEN),
            None => None,
        }
    }

    /// Adds received bytes to the response; the response once it is complete.
    fn accept(&mut self, received: &[u8]) -> Option<Result<Response, ()>> {
        let mut response = match self.response {
            Some(response) => response,
            None => {
                self.input.extend_from_slice(received);
                let parsed = Head::parse(&self.input).and_then(|head| match head {
                    None => Ok(None),
                    Some(head) => {
                        let response = Response {
                            body: head.response_body()?,
                            success: (200..300).contains(&head.status()?),
                            closes: head.closes(),
                        };
                        Ok(Some((response, head.length)))
                    }
                });
                let (mut response, length) = match parsed {
                    Ok(Some(parsed)) => parsed,
                    Ok(None) => return None,
                    Err(_) => return Some(Err(())),
                };
                let used = response.body.consume(&self.input[length..]);
                let exact = used == Ok(self.input.len() - length);
                self.input.clear();
                return self.progress(response, exact);
            }
        };
        let exact = response.body.consume(received) == Ok(received.len());
        self.progress(response, exact)
    }

    fn progress(&mut self, response: Response, exact: bool) -> Option<Result<Response, ()>> {
        if !exact {
            return Some(Err(()));
        }
        if response.body.is_complete() {
            return Some(Ok(response));
        }
        self.response = Some(response);
        None
    }
}

impl Outcome {
    const BROKEN: Self = Self { success: false, connection_is_open: false };
}

/// The smallest of the `sorted` values that at least `share` of them do not exceed.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_the_nearest_rank() {
        let values: Vec<u64> = (1..=1000).collect();
        assert_eq!(quantile(&values, 0.5), 500);
        assert_eq!(quantile(&values, 0.99), 990);
        assert_eq!(quantile(&values, 0.999), 999);
        assert_eq!(quantile(&values, 1.0), 1000);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn options_need_an_address_and_an_amount() {
        let parse = |line: &str| Options::parse(line.split(' ').map(str::to_owned));
        assert!(parse("--rate 5").is_err());
        assert!(parse("--address 127.0.0.1:1").is_err());
        assert!(parse("--address 127.0.0.1:1 --rate 0").is_err());
        assert!(parse("--address 127.0.0.1:1 --requests 0").is_err());
        let options = parse("--address 127.0.0.1:1 --rate 100 --seconds 2 --post 3").unwrap();
        let options = options.unwrap();
        assert_eq!(options.requests, 200);
        assert!(options.request.ends_with(b"Content-Length: 3\r\n\r\nxxx"));
    }
}
