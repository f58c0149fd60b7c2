//! What do the benchmark's backend and latency client share?
//!
//! `bench-backend` answers requests at little cost, so that it leaves the machine to the proxy
//! under test; `bench-latency` sends requests at a steady rate and times each one from the moment
//! it was due. Both speak plain HTTP/1.1 on one thread over `epoll`, and both read messages with
//! [`message`]. Everything else of the benchmark is `bench/run`.

pub mod message;
