//! What answers behind every proxy under test, at as little cost as possible?
//!
//! One thread, level-triggered `epoll`, one read and one write per request, each response built
//! once. The last segment of the path says how many bytes the body has: `/a/b/1k` answers 1024
//! bytes, `/a/b/300` answers 300, anything else [`DEFAULT_SIZE`]. The field `x-backend` names the
//! listener, so a test can see which cluster a proxy chose.
//!
//! Invariant: while a response waits for room in the socket nothing more is read from that
//! connection, so memory per connection stays below one read plus one head.

use lateen_bench::message::{Body, Head, Malformed, decimal};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;

/// Body length in bytes of a response whose path names no size.
const DEFAULT_SIZE: usize = 64;
/// Largest body in bytes that a path may ask for.
const SIZE_LIMIT: usize = 16 * 1024 * 1024;
/// Responses that are kept built.
const KEPT_RESPONSES: usize = 32;
const READ_SIZE: usize = 64 * 1024;

const USAGE: &str = "\
usage: bench-backend NAME=ADDRESS...

Answers HTTP/1.1 on every ADDRESS (port 0: a free one) until it is ended and prints
`NAME ADDRESS` for each. The last path segment gives the size of the response: /1k, /100k, /300.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench-backend: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut listeners = Vec::new();
    for argument in std::env::args().skip(1) {
        if argument == "--help" || argument == "-h" {
            let _ = io::stdout().write_all(USAGE.as_bytes());
            return Ok(());
        }
        let (name, address) = argument.split_once('=').ok_or(USAGE)?;
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| format!("cannot bind {address}: {error}"))?;
        listeners.push((name.to_owned(), listener));
    }
    if listeners.is_empty() {
        return Err(USAGE.to_owned());
    }
    let mut server = Server::build(listeners).map_err(|error| error.to_string())?;
    server.serve().map_err(|error| error.to_string())
}

struct Server {
    epoll: rustix::fd::OwnedFd,
    listeners: Vec<(String, TcpListener)>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    responses: Responses,
}

struct Connection {
    stream: TcpStream,
    listener: usize,
    /// Bytes of a head that is not complete yet, or of requests that wait for their turn.
    input: Vec<u8>,
    /// The request body being read, and the response that follows it.
    request: Option<(Body, Rc<[u8]>)>,
    /// The response being written, and how much of it has gone.
    output: Option<(Rc<[u8]>, usize)>,
    close_after_output: bool,
}

/// What a connection waits for next.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Wait {
    Read,
    Write,
}

impl Server {
    fn build(listeners: Vec<(String, TcpListener)>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut stdout = io::stdout().lock();
        for (index, (name, listener)) in listeners.iter().enumerate() {
            let event = EventData::new_u64(index as u64);
            epoll::add(&epoll, listener, event, EventFlags::IN)?;
            writeln!(stdout, "{name} {}", listener.local_addr()?)?;
        }
        stdout.flush()?;
        Ok(Self { epoll, listeners, connections: Vec::new(), free: Vec::new(), responses: Responses::default() })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        let mut scratch = vec![0; READ_SIZE];
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                let token = usize::try_from(data.u64()).map_err(io::Error::other)?;
                match token.checked_sub(self.listeners.len()) {
                    None => self.accept(token)?,
                    Some(index) => self.advance(index, flags, &mut scratch)?,
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[listener].1.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let event = EventData::new_u64((self.listeners.len() + index) as u64);
            epoll::add(&self.epoll, &stream, event, EventFlags::IN)?;
            self.connections[index] = Some(Connection {
                stream,
                listener,
                input: Vec::new(),
                request: None,
                output: None,
                close_after_output: false,
            });
        }
    }

    fn advance(&mut self, index: usize, flags: EventFlags, scratch: &mut [u8]) -> io::Result<()> {
        let Some(connection) = self.connections[index].as_mut() else {
            return Ok(());
        };
        let before = connection.wait();
        let name = &self.listeners[connection.listener].0;
        match connection.advance(flags, scratch, name, &mut self.responses) {
            Some(after) if after == before => Ok(()),
            Some(after) => {
                let interest = match after {
                    Wait::Read => EventFlags::IN,
                    Wait::Write => EventFlags::OUT,
                };
                let event = EventData::new_u64((self.listeners.len() + index) as u64);
                Ok(epoll::modify(&self.epoll, &connection.stream, event, interest)?)
            }
            None => {
                self.connections[index] = None;
                self.free.push(index);
                Ok(())
            }
        }
    }
}

impl Connection {
    fn wait(&self) -> Wait {
        if self.output.is_some() { Wait::Write } else { Wait::Read }
    }

    /// Does what the socket's state allows; `None` ends the connection.
    fn advance(
        &mut self,
        flags: EventFlags,
        scratch: &mut [u8],
        name: &str,
        responses: &mut Responses,
    ) -> Option<Wait> {
        if self.output.is_some() {
            self.write()?;
        } else if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match self.stream.read(scratch) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&scratch[..read]),
                Err(error) if is_transient(&error) => {}
                Err(_) => return None,
            }
        }
        let mut used = 0;
        while self.output.is_none() {
            match self.answer(used, name, responses) {
                Ok(Some(next)) => used = next,
                Ok(None) => break,
                Err(Malformed) => return None,
            }
            if self.output.is_some() {
                self.write()?;
            }
        }
        if self.request.is_some() && self.output.is_none() {
            used = self.input.len();
        }
        self.input.drain(..used);
        Some(self.wait())
    }

    /// Reads the request that starts at `start` of the input; its end, once it is complete.
    fn answer(&mut self, start: usize, name: &str, responses: &mut Responses) -> Result<Option<usize>, Malformed> {
        let mut at = start;
        let (mut body, response) = match self.request.take() {
            Some(request) => request,
            None => {
                let Some(head) = Head::parse(&self.input[at..])? else {
                    return Ok(None);
                };
                at += head.length;
                self.close_after_output = head.closes();
                (head.request_body()?, responses.get(name, response_size(head.first_line)))
            }
        };
        at += body.consume(&self.input[at..])?;
        if body.is_complete() {
            self.output = Some((response, 0));
            Ok(Some(at))
        } else {
            self.request = Some((body, response));
            Ok(None)
        }
    }

    /// Writes what the socket takes; `None` ends the connection.
    fn write(&mut self) -> Option<()> {
        while let Some((response, written)) = &mut self.output {
            match self.stream.write(&response[*written..]) {
                Ok(0) => return None,
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            }
            if *written == response.len() {
                self.output = None;
            }
        }
        (!self.close_after_output).then_some(())
    }
}

/// Complete responses by listener name and body length, built on first use.
#[derive(Default)]
struct Responses(Vec<(String, usize, Rc<[u8]>)>);

impl Responses {
    fn get(&mut self, name: &str, size: usize) -> Rc<[u8]> {
        let known = self.0.iter().find(|(kept_name, kept_size, _)| *kept_size == size && kept_name == name);
        if let Some((_, _, response)) = known {
            return Rc::clone(response);
        }
        // The fields are those of an ordinary server; the date is fixed because only its length
        // matters here.
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nserver: bench-backend\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             content-type: application/octet-stream\r\ncontent-length: {size}\r\n\
             x-backend: {name}\r\n\r\n"
        )
        .into_bytes();
        response.resize(response.len() + size, b'x');
        let response: Rc<[u8]> = response.into();
        if self.0.len() < KEPT_RESPONSES {
            self.0.push((name.to_owned(), size, Rc::clone(&response)));
        }
        response
    }
}

/// Body length that the path of a request line asks for.
fn response_size(request_line: &[u8]) -> usize {
    let target = request_line.split(|&b| b == b' ').nth(1).unwrap_or(b"/");
    let path = target.split(|&b| b == b'?').next().unwrap_or(target);
    let segment = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let (digits, unit) = match segment.strip_suffix(b"k") {
        Some(digits) => (digits, 1024),
        None => (segment, 1),
    };
    decimal(digits)
        .and_then(|number| usize::try_from(number).ok())
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size <= SIZE_LIMIT)
        .unwrap_or(DEFAULT_SIZE)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_names_the_size() {
        assert_eq!(response_size(b"GET /api/1k HTTP/1.1"), 1024);
        assert_eq!(response_size(b"GET /api/100k?x=7 HTTP/1.1"), 102_400);
        assert_eq!(response_size(b"POST /300 HTTP/1.1"), 300);
        assert_eq!(response_size(b"GET /api HTTP/1.1"), DEFAULT_SIZE);
        assert_eq!(response_size(b"GET /99999999999k HTTP/1.1"), DEFAULT_SIZE);
        assert_eq!(response_size(b""), DEFAULT_SIZE);
    }
}
