//! Do the backend and the latency client understand each other over real sockets?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Backend {
    child: Child,
    addresses: Vec<(String, String)>,
}

impl Backend {
    fn start(names: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bench-backend"))
            .args(names.iter().map(|name| format!("{name}=127.0.0.1:0")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines
            .take(names.len())
            .map(|line| {
                let line = line.unwrap();
                let (name, address) = line.split_once(' ').unwrap();
                (name.to_owned(), address.to_owned())
            })
            .collect();
        Self { child, addresses }
    }

    fn exchange(&self, index: usize, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.addresses[index].1).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn latency(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_bench-latency"))
            .args(["--address", &self.addresses[0].1])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_listener_names_itself() {
    let backend = Backend::start(&["items", "other"]);
    for (index, name) in ["items", "other"].iter().enumerate() {
        assert_eq!(backend.addresses[index].0, *name);
        let answer = backend.exchange(index, "GET /300 HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(answer.contains(&format!("\r\nx-backend: {name}\r\n")), "{answer}");
        assert!(answer.contains("\r\ncontent-length: 300\r\n") && answer.ends_with(&"x".repeat(300)), "{answer}");
    }
}

#[test]
fn pipelined_requests_and_bodies_are_answered_in_order() {
    let backend = Backend::start(&["items"]);
    let answer = backend.exchange(
        0,
        "POST /1 HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody\
         POST /2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nconnection: close\r\n\r\n",
    );
    let lengths: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
    assert_eq!(lengths, ["1", "2", "3"], "{answer}");
}

#[test]
fn nonsense_ends_the_connection_without_an_answer() {
    let backend = Backend::start(&["items"]);
    let request = "POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n";
    assert_eq!(backend.exchange(0, request), "");
}

#[test]
fn large_responses_arrive_whole_on_many_connections() {
    let backend = Backend::start(&["items"]);
    let result = backend.latency(&["--path", "/3000k", "--requests", "100", "--connections", "20"]);
    assert!(result.contains("\"completed\": 100, \"failed\": 0,"), "{result}");
}

#[test]
fn large_request_bodies_arrive_whole_on_many_connections() {
    let backend = Backend::start(&["items"]);
    let result = backend.latency(&["--post", "3000000", "--requests", "60", "--connections", "20"]);
    assert!(result.contains("\"completed\": 60, \"failed\": 0,"), "{result}");
}

#[test]
fn open_loop_keeps_its_rate() {
    let backend = Backend::start(&["items"]);
    let result = backend.latency(&["--path", "/1k", "--rate", "500", "--seconds", "0.6"]);
    assert!(result.contains("\"completed\": 300, \"failed\": 0,"), "{result}");
    let seconds: f64 =
        result.split("\"seconds\": ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
    // 300 requests at 2 ms: the last is due 598 ms after the first, never earlier.
    assert!(seconds >= 0.598, "{result}");
}
