//! How do the parts of the demo ask each other? GET over kept-alive connections to one address, through Lateen.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// From the first attempt to connect to the last byte of the body.
const LIMIT: Duration = Duration::from_secs(5);
/// Larger bodies are refused; the bookstore's are a few kilobytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Idle connections that are kept.
const MAX_IDLE: usize = 64;

/// How a request names its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The path alone, as to a server; the `Host` field says the rest.
    Origin,
    /// The whole URL, as to an HTTP proxy.
    Absolute,
}

/// A client of one address. It lives on one thread.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    form: Form,
    idle: RefCell<Vec<SendRequest<Empty<Bytes>>>>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Header fields.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
}

/// Why there was no whole response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection to this address.
    Connect(SocketAddr, io::Error),
    /// The exchange broke off.
    Broken(String),
    /// Nothing came in time.
    Late,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address, error) => write!(f, "cannot connect to {address}: {error}"),
            Self::Broken(reason) => write!(f, "the exchange broke off: {reason}"),
            Self::Late => write!(f, "no answer within {} s", LIMIT.as_secs()),
        }
    }
}

impl Client {
    /// A client without connections yet.
    pub(crate) fn new(address: SocketAddr, form: Form) -> Self {
        Self { address, form, idle: RefCell::default() }
    }

    /// Asks `http://HOST/PATH`; `path` begins with a slash. Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// No connection, no whole response, or none within five seconds. Any status is a response.
    pub(crate) async fn get(
        &self,
        host: &str,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, Failure> {
        tokio::time::timeout(LIMIT, self.exchange(host, path, fields)).await.unwrap_or(Err(Failure::Late))
    }

    async fn exchange(&self, host: &str, path: &str, fields: &[(HeaderName, HeaderValue)]) -> Result<Answer, Failure> {
        loop {
            let (mut connection, reused) = match self.checkout().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            let request = self.request(host, path, fields).map_err(|error| Failure::Broken(error.to_string()))?;
            let response = match connection.send_request(request).await {
                Ok(response) => response,
                // The other side had closed an idle connection, and nothing was sent on it.
                Err(error) if reused && error.is_canceled() => continue,
                Err(error) => return Err(broken(&error)),
            };
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| broken(&*error))?.to_bytes();
            let mut idle = self.idle.borrow_mut();
            if !connection.is_closed() && idle.len() < MAX_IDLE {
                idle.push(connection);
            }
            return Ok(Answer { status: head.status, headers: head.headers, body });
        }
    }

    fn request(
        &self,
        host: &str,
        path: &str,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Request<Empty<Bytes>>, http::Error> {
        let request = match self.form {
            Form::Origin => Request::get(path),
            Form::Absolute => Request::get(format!("http://{host}{path}")),
        };
        let mut request = request.header(HOST, host).body(Empty::new())?;
        for (name, value) in fields {
            request.headers_mut().append(name, value.clone());
        }
        Ok(request)
    }

    /// An idle connection that is still good.
    async fn checkout(&self) -> Option<SendRequest<Empty<Bytes>>> {
        loop {
            let popped = self.idle.borrow_mut().pop();
            let mut connection = popped?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| Failure::Connect(self.address, error))?;
        // A failure here only costs time.
        let _ = stream.set_nodelay(true);
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::task::spawn_local(async move {
            // Whoever waits for the response sees the failure of the connection as well.
            let _ = driver.await;
        });
        Ok(connection)
    }
}

/// An error with its causes: hyper's own words alone say little.
fn broken(error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    Failure::Broken(text)
}
