//! Who asks for pages? A few callers in a closed loop: each asks, waits for the answer, rests, and asks again.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::app::{SERVED_BY, Version};
use super::catalogue::BOOKS;
use super::client::{Answer, Client, Failure, Form};
use super::tally::{Outcome, Tally};

/// Callers at once.
const CALLERS: u32 = 4;
/// Time from one request of a caller to its next, when answers are quick: 80 requests/s together.
const PACE: Duration = Duration::from_millis(50);

/// The tally, shared between the callers and the view.
pub(crate) type SharedTally = Arc<Mutex<Tally>>;

/// Asks the gateway for pages until `stop` is set or its sender is gone; requests on their way end first.
/// Must be called inside a `LocalSet`.
pub(crate) async fn generate(gateway: SocketAddr, began: Instant, tally: SharedTally, stop: watch::Receiver<bool>) {
    let client = Rc::new(Client::new(gateway, Form::Origin));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, tally, stop) = (client.clone(), tally.clone(), stop.clone());
        callers.spawn_local(call(caller, client, began, tally, stop));
    }
    while callers.join_next().await.is_some() {}
}

async fn call(caller: u32, client: Rc<Client>, began: Instant, tally: SharedTally, mut stop: watch::Receiver<bool>) {
    // Callers are spread over the pace, so that the load is even.
    let first = tokio::time::Instant::now() + PACE / CALLERS * caller;
    let mut pace = tokio::time::interval_at(first, PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = caller as usize % BOOKS.len();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = pace.tick() => {}
        }
        let asked = Instant::now();
        let answer = client.get("bookstore.example", &format!("/productpage?id={book}"), &[]).await;
        let outcome = judge(answer);
        tally.lock().unwrap_or_else(PoisonError::into_inner).record(began.elapsed(), asked.elapsed(), outcome);
        book = (book + 1) % BOOKS.len();
    }
}

/// Whether an answer is a whole page, and whose reviews are in it.
fn judge(answer: Result<Answer, Failure>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return Outcome::Problem(format!("gateway: {failure}")),
    };
    let served_by = answer.headers.get(SERVED_BY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let version = served_by.split(", ").find_map(|part| Version::parse(part.strip_prefix("reviews-")?));
    match version {
        Some(version) if answer.status.is_success() => Outcome::Page(version),
        _ => Outcome::Problem(problem(&answer)),
    }
}

/// What the page says is wrong, or what answered in its place.
fn problem(answer: &Answer) -> String {
    let page: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let said = page.as_ref().and_then(|page| page["problems"][0].as_str());
    match said {
        Some(said) => said.to_owned(),
        None => {
            let body = String::from_utf8_lossy(&answer.body);
            let line: String = body.lines().next().unwrap_or_default().chars().take(100).collect();
            format!("gateway: {} {line}", answer.status.as_u16()).trim_end().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};

    fn answer(status: u16, served_by: Option<&'static str>, body: &'static str) -> Result<Answer, Failure> {
        let headers: HeaderMap =
            served_by.map(|value| (SERVED_BY, HeaderValue::from_static(value))).into_iter().collect();
        Ok(Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) })
    }

    #[test]
    fn a_page_counts_for_the_version_of_its_reviews() {
        let page = judge(answer(200, Some("productpage-v1, details-v1, reviews-v3, ratings-v1"), "{}"));
        assert_eq!(page, Outcome::Page(Version::V3));
    }

    #[test]
    fn a_page_that_lacks_a_part_is_a_problem_and_says_which() {
        let body = r#"{"problems":["reviews: 503 no healthy upstream"]}"#;
        let page = judge(answer(503, Some("productpage-v1, details-v1"), body));
        assert_eq!(page, Outcome::Problem("reviews: 503 no healthy upstream".into()));
    }

    #[test]
    fn an_answer_of_the_gateway_itself_is_a_problem() {
        assert_eq!(judge(answer(404, None, "")), Outcome::Problem("gateway: 404".into()));
        assert_eq!(judge(answer(200, None, "hello")), Outcome::Problem("gateway: 200 hello".into()));
        let failure = judge(Err(Failure::Late));
        assert_eq!(failure, Outcome::Problem("gateway: no answer within 5 s".into()));
    }
}
