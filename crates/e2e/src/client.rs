//! What came back for these bytes? A client that sends exactly what a row says and keeps all that it receives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::row::Exchange;
use crate::wire::{Body, Framing, Head, WireReader};

/// How long a response may take before the row counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the proxy may take to close after a response that ends the connection. Envoy lingers one second.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// All that a client saw on one connection.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// One entry for each exchange that was played; `None`: the connection ended without a response.
    pub responses: Vec<Option<Response>>,
    /// How the connection ended (`closed`, `reset`), or `open`.
    pub end: String,
    /// Bytes after the last expected response.
    pub surplus: Vec<u8>,
}

/// One response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Interim responses before it.
    pub interim: Vec<Head>,
    /// Status line and headers.
    pub head: Head,
    /// How the body was framed.
    pub framing: Framing,
    /// The body.
    pub body: Body,
    /// From the start of sending to the end of the body.
    pub elapsed: Duration,
}

/// A connection whose end is awaited while other rows are played: Envoy lingers a second before it closes.
#[derive(Debug)]
pub struct Closing(JoinHandle<(String, Vec<u8>)>);

impl Closing {
    /// Waits for the end and completes the transcript with it.
    pub async fn finish(self, transcript: &mut Transcript) {
        if let Ok((end, surplus)) = self.0.await {
            transcript.end = end;
            transcript.surplus = surplus;
        }
    }
}

/// Plays the exchanges of a row on one new connection. The transcript lacks the connection's end while that is still
/// awaited.
///
/// # Errors
/// When the proxy cannot be reached or leaves a request unanswered.
pub async fn play(address: SocketAddr, exchanges: &[Exchange]) -> Result<(Transcript, Option<Closing>), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (read, mut write) = stream.into_split();
    let mut reader = WireReader::new(read);
    let mut transcript = Transcript::default();
    let mut first = 0;
    while first < exchanges.len() {
        let pipelined = exchanges[first + 1..].iter().take_while(|exchange| exchange.pipelined).count();
        let burst = &exchanges[first..=first + pipelined];
        first += burst.len();
        if let [Exchange { leave: Some(after), bytes, .. }] = burst {
            write.write_all(bytes).await.map_err(|error| error.to_string())?;
            tokio::time::sleep(*after).await;
            transcript.responses.push(None);
            transcript.end = "left".to_owned();
            return Ok((transcript, None));
        }
        if let [exchange @ Exchange { tunnel: Some(tunnel), .. }] = burst {
            write.write_all(&exchange.bytes).await.map_err(|error| error.to_string())?;
            let talked = talk(&mut reader, &mut write, &exchange.method, tunnel);
            let response = timeout(PATIENCE, talked).await.map_err(|_| "the tunnel is silent".to_owned())??;
            transcript.responses.push(response);
            break;
        }
        let (sent, received) = tokio::join!(send(&mut write, burst), receive(&mut reader, burst));
        transcript.responses.extend(received?);
        // A proxy may answer and close before it took everything; the transcript shows what that led to.
        drop(sent);
        if reader.ended().is_some() {
            break;
        }
    }
    transcript.responses.resize_with(exchanges.len(), || None);
    let says_close = |response: &Response| {
        response.framing == Framing::UntilClose
            || response.head.values("connection").any(|value| value.eq_ignore_ascii_case("close"))
    };
    let expects_end = exchanges.iter().any(|exchange| exchange.response.closes)
        || transcript.responses.iter().flatten().any(says_close);
    if expects_end && reader.ended().is_none() {
        let closing = tokio::spawn(async move {
            let _ = timeout(CLOSE_PATIENCE, reader.wait_for_end()).await;
            // The client must not be the one that closes.
            drop(write);
            (end_of(&reader), reader.unread().to_vec())
        });
        return Ok((transcript, Some(Closing(closing))));
    }
    transcript.end = end_of(&reader);
    transcript.surplus = reader.unread().to_vec();
    Ok((transcript, None))
}

fn end_of(reader: &WireReader<OwnedReadHalf>) -> String {
    reader.ended().unwrap_or("open").to_owned()
}

/// Fetches a page of an admin endpoint: status and body as text.
///
/// # Errors
/// When there is no answer.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut reader = WireReader::new(stream);
        let head = reader.read_head().await.ok().flatten().ok_or("no response")?;
        let body = reader.read_body(head.response_framing("GET")).await;
        let status = head.status().ok_or_else(|| format!("no status in `{}`", head.start))?;
        Ok((status, crate::wire::latin1(&body.bytes)))
    };
    timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
}

async fn send(write: &mut OwnedWriteHalf, burst: &[Exchange]) -> std::io::Result<()> {
    for exchange in burst {
        let size = exchange.pieces.unwrap_or(exchange.bytes.len()).max(1);
        for piece in exchange.bytes.chunks(size) {
            write.write_all(piece).await?;
            if exchange.pieces.is_some() {
                // Lets the peer see this piece alone: the two ends share no clock, only the loopback.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    Ok(())
}

async fn receive(reader: &mut WireReader<OwnedReadHalf>, burst: &[Exchange]) -> Result<Vec<Option<Response>>, String> {
    let mut responses = Vec::new();
    for exchange in burst {
        let response = timeout(PATIENCE, receive_one(reader, &exchange.method))
            .await
            .map_err(|_| format!("no complete response within {} s", PATIENCE.as_secs()))??;
        responses.push(response);
    }
    Ok(responses)
}

/// Receives a response, and if it agrees to another protocol, talks in it: the answer's body is what came back.
async fn talk(
    reader: &mut WireReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    method: &str,
    bytes: &[u8],
) -> Result<Option<Response>, String> {
    let start = Instant::now();
    let Some(head) = reader.read_head().await.map_err(|raw| crate::wire::latin1(&raw))? else { return Ok(None) };
    let agreed = head.status() == Some(101) || (method == "CONNECT" && head.status() == Some(200));
    let framing = if agreed { Framing::None } else { head.response_framing(method) };
    let body = if agreed {
        write.write_all(bytes).await.map_err(|error| error.to_string())?;
        // A backend ends the talk after a full stop.
        let count = if bytes.ends_with(b".") { usize::MAX } else { bytes.len() };
        Body { bytes: reader.read_bytes(count).await, ..Body::default() }
    } else {
        reader.read_body(framing).await
    };
    Ok(Some(Response { interim: Vec::new(), head, framing, body, elapsed: start.elapsed() }))
}

async fn receive_one(reader: &mut WireReader<OwnedReadHalf>, method: &str) -> Result<Option<Response>, String> {
    let start = Instant::now();
    let mut interim = Vec::new();
    loop {
        let head = match reader.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(raw) => {
                return Err(format!("unfinished response head `{}`", crate::wire::latin1(&raw).escape_debug()));
            }
        };
        let status = head.status().ok_or_else(|| format!("not a status line: `{}`", head.start.escape_debug()))?;
        if (100..200).contains(&status) && status != 101 {
            interim.push(head);
            continue;
        }
        let framing = head.response_framing(method);
        let body = reader.read_body(framing).await;
        return Ok(Some(Response { interim, head, framing, body, elapsed: start.elapsed() }));
    }
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backends;
    use crate::row::{Cells, parse};

    async fn ask(request: &str) -> (Transcript, Backends) {
        let backends = Backends::start(["b".to_owned()]).await.unwrap();
        let row = parse(1, Cells { request, ..Cells::default() }).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], backends.ports()["b"]));
        (play(address, &row.exchanges).await.unwrap().0, backends)
    }

    #[tokio::test]
    async fn pipelined_and_following_requests_share_a_connection() {
        let (transcript, mut backends) =
            ask("`GET a/1` `@and` `POST a/2` `@size 9` `@then` `GET a/3?status=404`").await;
        let statuses: Vec<_> = transcript.responses.iter().flatten().map(Response::status).collect();
        assert_eq!(statuses, [200, 200, 404]);
        assert_eq!(transcript.end, "open");
        let received = backends.take().await.unwrap();
        assert!(received.iter().all(|received| received.connection == 1));
        assert_eq!(received[1].body.bytes, b"abcdefghi");
    }

    #[tokio::test]
    async fn an_end_without_response_is_no_response() {
        let (transcript, _backends) = ask("`GET a/?fail=close`").await;
        assert!(transcript.responses[0].is_none());
        assert_eq!(transcript.end, "closed");
    }

    #[tokio::test]
    async fn interim_responses_are_kept_apart() {
        let (transcript, _backends) = ask("`GET a/?interim=103&interim=102`").await;
        let response = transcript.responses[0].as_ref().unwrap();
        let statuses: Vec<_> = response.interim.iter().filter_map(Head::status).collect();
        assert_eq!(statuses, [103, 102]);
    }

    #[tokio::test]
    async fn pieces_arrive_as_one_request() {
        let (transcript, _backends) = ask("`GET a/` `@pieces 5`").await;
        assert_eq!(transcript.responses[0].as_ref().unwrap().status(), 200);
    }
}
