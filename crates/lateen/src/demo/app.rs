//! What does the bookstore answer? Four services, one of them in three versions, each on its own loopback port.
//! They know each other by name alone: every call between them goes through the mesh.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::catalogue::{BOOKS, Book};
use super::client::{Client, Form};
use super::page;

/// The response field that names everyone who took part: `productpage-v1, details-v1, reviews-v2, ratings-v1`.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("served-by");
/// The request field that names the reader. Services hand it on, so that routes anywhere can look at it.
const END_USER: HeaderName = HeaderName::from_static("end-user");
/// Request fields that a service hands on to the services it asks.
const HANDED_ON: [HeaderName; 2] = [END_USER, HeaderName::from_static("x-request-id")];
/// The port that the services have in the mesh, whatever the ports of their workloads are.
pub(crate) const SERVICE_PORT: u16 = 9080;
/// The most of another service's error that is repeated, in characters.
const MAX_QUOTE: usize = 100;

/// A version of the reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Words alone.
    V1,
    /// With black stars.
    V2,
    /// With red stars.
    V3,
}

impl Version {
    /// All versions, oldest first.
    pub(crate) const ALL: [Version; 3] = [Version::V1, Version::V2, Version::V3];

    /// `v1`, `v2` or `v3`.
    pub(crate) fn name(self) -> &'static str {
        ["v1", "v2", "v3"][self.index()]
    }

    /// The version of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// Place among all versions.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// What a reader sees.
    pub(crate) fn look(self) -> &'static str {
        ["no stars", "black stars", "red stars"][self.index()]
    }

    /// Colour of the stars, for versions that have any.
    fn stars(self) -> Option<&'static str> {
        [None, Some("black"), Some("red")][self.index()]
    }
}

/// One running program of the bookstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Puts the page together.
    Productpage,
    /// Knows the books.
    Details,
    /// Knows what readers wrote.
    Reviews(Version),
    /// Knows the stars.
    Ratings,
}

impl Workload {
    /// All workloads, in the order of the ports that they like best.
    pub(crate) const ALL: [Workload; 6] = [
        Workload::Productpage,
        Workload::Details,
        Workload::Reviews(Version::V1),
        Workload::Reviews(Version::V2),
        Workload::Reviews(Version::V3),
        Workload::Ratings,
    ];

    /// Name with version, for example `reviews-v2`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage-v1",
            Self::Details => "details-v1",
            Self::Reviews(version) => ["reviews-v1", "reviews-v2", "reviews-v3"][version.index()],
            Self::Ratings => "ratings-v1",
        }
    }

    /// The port that `examples/bookstore/workloads.yaml` gives it.
    pub(crate) fn usual_port(self) -> u16 {
        match self {
            Self::Productpage => 9081,
            Self::Details => 9082,
            Self::Reviews(version) => [9083, 9084, 9085][version.index()],
            Self::Ratings => 9086,
        }
    }
}

/// The bound sockets of all workloads.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<(Workload, TcpListener)>);

impl Sockets {
    /// Binds the usual ports, and any free port in place of one that is taken.
    ///
    /// # Errors
    /// Loopback has no free port.
    pub(crate) fn bind() -> io::Result<Self> {
        Self::bind_with(Workload::usual_port)
    }

    /// Binds any free ports.
    #[cfg(test)]
    pub(crate) fn bind_any() -> io::Result<Self> {
        Self::bind_with(|_| 0)
    }

    fn bind_with(port: impl Fn(Workload) -> u16) -> io::Result<Self> {
        let bind = |workload| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port(workload)))
                .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
            listener.set_nonblocking(true)?;
            Ok((workload, listener))
        };
        Workload::ALL.into_iter().map(bind).collect::<io::Result<_>>().map(Self)
    }

    /// The port of each workload.
    ///
    /// # Errors
    /// The system does not tell the address of a socket.
    pub(crate) fn ports(&self) -> io::Result<Vec<(Workload, u16)>> {
        self.0.iter().map(|(workload, listener)| Ok((*workload, listener.local_addr()?.port()))).collect()
    }
}

/// The ways into the mesh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh {
    /// The listener of the service port.
    pub(crate) listener: SocketAddr,
    /// The HTTP proxy port.
    pub(crate) http_proxy: SocketAddr,
}

/// Begins to serve all workloads, until the `LocalSet` that this is called in ends.
///
/// # Errors
/// A socket that the runtime does not take.
pub(crate) fn serve(sockets: Sockets, mesh: Mesh) -> io::Result<()> {
    let app = Rc::new(App {
        listener: Client::new(mesh.listener, Form::Origin),
        http_proxy: Client::new(mesh.http_proxy, Form::Absolute),
    });
    for (workload, listener) in sockets.0 {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::task::spawn_local(accept(app.clone(), workload, listener));
    }
    Ok(())
}

async fn accept(app: Rc<App>, workload: Workload, listener: tokio::net::TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptors left, or a client that is gone already: neither is for ever.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A failure here only costs time.
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let app = app.clone();
                async move { Ok::<_, std::convert::Infallible>(app.answer(workload, &request).await) }
            });
            // A client that goes away ends its connection, nothing more.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Everything that the services share: the ways in which they reach each other.
struct App {
    listener: Client,
    http_proxy: Client,
}

/// What another service said.
struct Part {
    content: Value,
    served_by: String,
}

impl App {
    async fn answer<B>(&self, workload: Workload, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let (service, _) = workload.name().split_once('-').unwrap_or_default();
        let (below, id) = match workload {
            Workload::Productpage => ("/productpage", value(request.uri().query(), "id").unwrap_or("0")),
            _ => path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default(),
        };
        let is_mine = if workload == Workload::Productpage { path == below } else { below == service };
        let book = id.parse().ok().and_then(|id: usize| Some((id, BOOKS.get(id)?)));
        let Some((id, book)) = book.filter(|_| is_mine) else {
            let problem = format!("{service} has nothing at {path}");
            return reply(StatusCode::NOT_FOUND, workload.name(), &json!({ "problems": [problem] }));
        };
        match workload {
            Workload::Productpage => self.productpage(id, request).await,
            Workload::Details => reply(StatusCode::OK, workload.name(), &details(id, book)),
            Workload::Ratings => reply(StatusCode::OK, workload.name(), &ratings(id, book)),
            Workload::Reviews(version) => self.reviews(version, id, book, request.headers()).await,
        }
    }

    async fn productpage<B>(&self, id: usize, request: &Request<B>) -> Response<Full<Bytes>> {
        let reader = reader(request);
        let mut fields = handed_on(request.headers());
        if let Some(Ok(value)) = reader.map(HeaderValue::from_str) {
            fields.retain(|(name, _)| *name != END_USER);
            fields.push((END_USER, value));
        }
        let (details_path, reviews_path) = (format!("/details/{id}"), format!("/reviews/{id}"));
        let (details, reviews) = tokio::join!(
            ask(&self.listener, "details", &details_path, &fields),
            ask(&self.listener, "reviews", &reviews_path, &fields)
        );
        let mut served_by = Workload::Productpage.name().to_owned();
        let mut problems = Vec::new();
        let mut take = |part: Result<Part, String>| match part {
            Ok(part) => {
                served_by.push_str(", ");
                served_by.push_str(&part.served_by);
                part.content
            }
            Err(problem) => {
                problems.push(problem);
                Value::Null
            }
        };
        let (details, reviews) = (take(details), take(reviews));
        let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let content = json!({ "book": details, "reviews": reviews, "reader": reader, "problems": problems });
        let accepts = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accepts.contains("text/html") {
            return respond(status, "text/html; charset=utf-8", &served_by, page::render(id, &content, &served_by));
        }
        reply(status, &served_by, &content)
    }

    async fn reviews(&self, version: Version, id: usize, book: &Book, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let name = Workload::Reviews(version).name();
        let mut reviews: Vec<Value> =
            book.reviews.iter().map(|review| json!({ "reader": review.reader, "text": review.text })).collect();
        let Some(colour) = version.stars() else {
            return reply(StatusCode::OK, name, &json!({ "id": id, "version": version.name(), "reviews": reviews }));
        };
        let asked = ask(&self.http_proxy, "ratings", &format!("/ratings/{id}"), &handed_on(headers)).await;
        let part = match asked {
            Ok(part) => part,
            Err(problem) => {
                return reply(StatusCode::SERVICE_UNAVAILABLE, name, &json!({ "problems": [problem] }));
            }
        };
        for review in &mut reviews {
            let reader = review["reader"].as_str().unwrap_or_default();
            review["stars"] = part.content["stars"][reader].clone();
        }
        let content = json!({ "id": id, "version": version.name(), "colour": colour, "reviews": reviews });
        reply(StatusCode::OK, &format!("{name}, {}", part.served_by), &content)
    }
}

/// Asks a service by its name in the mesh; the error says who failed and how.
async fn ask(client: &Client, service: &str, path: &str, fields: &[(HeaderName, HeaderValue)]) -> Result<Part, String> {
    let host = format!("{service}:{SERVICE_PORT}");
    let answer = client.get(&host, path, fields).await.map_err(|failure| format!("{service}: {failure}"))?;
    let content: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match content {
        Some(content) if answer.status == StatusCode::OK => {
            let served_by = answer.headers.get(SERVED_BY).and_then(|value| value.to_str().ok());
            Ok(Part { content, served_by: served_by.unwrap_or_default().to_owned() })
        }
        // What failed further away is more telling than that it was passed on.
        Some(content) if content["problems"][0].is_string() => {
            Err(content["problems"][0].as_str().unwrap_or_default().chars().take(MAX_QUOTE).collect())
        }
        _ => {
            let body = String::from_utf8_lossy(&answer.body);
            let quote: String = body.lines().next().unwrap_or_default().chars().take(MAX_QUOTE).collect();
            Err(format!("{service}: {} {quote}", answer.status.as_u16()).trim_end().to_owned())
        }
    }
}

fn details(id: usize, book: &Book) -> Value {
    json!({
        "id": id,
        "title": book.title,
        "author": book.author,
        "year": book.year,
        "pages": book.pages,
        "summary": book.summary,
    })
}

fn ratings(id: usize, book: &Book) -> Value {
    let stars: serde_json::Map<String, Value> =
        book.reviews.iter().map(|review| (review.reader.to_owned(), review.stars.into())).collect();
    json!({ "id": id, "stars": stars })
}

/// The reader that the query or the header names. Only names of letters and digits are taken.
fn reader<B>(request: &Request<B>) -> Option<&str> {
    let named = value(request.uri().query(), "user").or_else(|| request.headers().get(END_USER)?.to_str().ok());
    named.filter(|name| {
        (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// The value of a query parameter, as it is written.
fn value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn handed_on(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    HANDED_ON.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

fn reply(status: StatusCode, served_by: &str, content: &Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", served_by, format!("{content}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, served_by: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(served_by) = HeaderValue::from_str(served_by) {
        response.headers_mut().insert(SERVED_BY, served_by);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::client::Answer;

    /// An address at which nobody listens.
    fn nobody() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
    }

    /// Serves the bookstore on free ports and asks one workload; the mesh is at the given address.
    fn ask_directly(mesh: SocketAddr, workload: Workload, path: &str, fields: &[(HeaderName, &str)]) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let sockets = Sockets::bind_any().unwrap();
            let ports = sockets.ports().unwrap();
            let (_, port) = ports.into_iter().find(|(other, _)| *other == workload).unwrap();
            serve(sockets, Mesh { listener: mesh, http_proxy: mesh }).unwrap();
            let client = Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Form::Origin);
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
            client.get("anyone", path, &fields).await.unwrap()
        })
    }

    fn json(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn details_and_ratings_answer_by_themselves() {
        let answer = ask_directly(nobody(), Workload::Details, "/details/1", &[]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers[SERVED_BY], "details-v1");
        assert_eq!(json(&answer)["title"], BOOKS[1].title);
        let answer = ask_directly(nobody(), Workload::Ratings, "/ratings/0", &[]);
        assert_eq!(json(&answer)["stars"]["Mara"], 5);
    }

    #[test]
    fn reviews_v1_have_words_alone() {
        let answer = ask_directly(nobody(), Workload::Reviews(Version::V1), "/reviews/2", &[]);
        assert_eq!(answer.headers[SERVED_BY], "reviews-v1");
        let content = json(&answer);
        assert_eq!(content["reviews"][1]["reader"], "Sem");
        assert!(content["reviews"][1].get("stars").is_none());
    }

    #[test]
    fn reviews_without_ratings_say_who_failed() {
        let answer = ask_directly(nobody(), Workload::Reviews(Version::V2), "/reviews/2", &[]);
        assert_eq!(answer.status, 503);
        let problem = json(&answer)["problems"][0].as_str().unwrap().to_owned();
        assert!(problem.starts_with("ratings: cannot connect"), "{problem}");
    }

    #[test]
    fn a_page_without_its_parts_says_so_to_programs_and_to_people() {
        let answer = ask_directly(nobody(), Workload::Productpage, "/productpage?id=1", &[]);
        assert_eq!(answer.status, 503);
        assert_eq!(json(&answer)["problems"].as_array().map(Vec::len), Some(2));
        let answer = ask_directly(nobody(), Workload::Productpage, "/productpage", &[(ACCEPT, "text/html")]);
        assert_eq!(answer.status, 503);
        assert!(answer.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
        assert!(String::from_utf8_lossy(&answer.body).contains("cannot connect"));
    }

    #[test]
    fn unknown_books_and_paths_are_not_found() {
        for (workload, path) in [
            (Workload::Details, "/details/3"),
            (Workload::Details, "/reviews/0"),
            (Workload::Ratings, "/"),
            (Workload::Productpage, "/productpage?id=one"),
            (Workload::Productpage, "/elsewhere"),
        ] {
            assert_eq!(ask_directly(nobody(), workload, path, &[]).status, 404, "{path}");
        }
    }

    #[test]
    fn a_reader_is_named_by_query_or_header_in_plain_letters() {
        let request = |uri: &str, header: Option<&str>| {
            let mut request = Request::get(uri).body(()).unwrap();
            if let Some(header) = header {
                request.headers_mut().insert(END_USER, HeaderValue::from_str(header).unwrap());
            }
            reader(&request).map(str::to_owned)
        };
        assert_eq!(request("/productpage?id=1&user=nadia", Some("else")), Some("nadia".into()));
        assert_eq!(request("/productpage", Some("nadia")), Some("nadia".into()));
        assert_eq!(request("/productpage?user=%3Cb%3E", None), None);
        assert_eq!(request("/productpage?user=", None), None);
    }
}
