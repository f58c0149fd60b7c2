//! What is there to show? One moment of the demo, for the live view and for plain lines alike.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::app::Version;
use super::folder::Folder;
use super::news::{News, Splits};
use super::tally::{Counts, Recent, Tally};

/// Seconds that rates and shares are taken over: long enough to be steady, short enough to follow an edit.
pub(crate) const WINDOW: u64 = 5;
/// News that are remembered.
const MAX_NEWS: usize = 50;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The gateway.
    pub(crate) gateway: SocketAddr,
    /// The mesh listener of the services' port.
    pub(crate) mesh: SocketAddr,
    /// The HTTP proxy port.
    pub(crate) http_proxy: SocketAddr,
    /// The admin interface.
    pub(crate) admin: Option<SocketAddr>,
    /// The configuration.
    pub(crate) folder: Folder,
}

/// News in their order, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Board(VecDeque<News>);

impl Board {
    /// Pins a piece of news; the oldest may fall off.
    pub(crate) fn pin(&mut self, news: News) {
        if self.0.len() == MAX_NEWS {
            self.0.pop_front();
        }
        self.0.push_back(news);
    }

    /// The latest `count` pieces of news, oldest first.
    pub(crate) fn latest(&self, count: usize) -> impl Iterator<Item = &News> {
        self.0.iter().skip(self.0.len().saturating_sub(count))
    }
}

/// One moment.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    /// Where everything is.
    pub(crate) places: &'a Places,
    /// Time since the beginning.
    pub(crate) elapsed: Duration,
    /// The last few seconds.
    pub(crate) recent: Recent,
    /// The last minute, second by second, oldest first.
    pub(crate) history: Vec<Counts>,
    /// Everything since the beginning.
    pub(crate) total: Counts,
    /// The latest problem, if it is fresh.
    pub(crate) problem: Option<String>,
    /// Weights of the reviews that are in force.
    pub(crate) weights: [Option<u32>; 3],
    /// What happened to the configuration.
    pub(crate) board: &'a Board,
}

impl<'a> Scene<'a> {
    /// The moment `elapsed` after the beginning.
    pub(crate) fn of(
        places: &'a Places,
        elapsed: Duration,
        tally: &Tally,
        splits: &Splits,
        board: &'a Board,
    ) -> Scene<'a> {
        // A version that the route does not name gets nothing.
        let weight = |version: Version| {
            let subsets = splits.get("reviews")?;
            Some(subsets.iter().find(|(subset, _)| subset == version.name()).map_or(0, |(_, weight)| *weight))
        };
        Scene {
            places,
            elapsed,
            recent: tally.recent(elapsed, WINDOW),
            history: tally.history(elapsed, 60),
            total: tally.total(),
            problem: tally.last_problem(elapsed, WINDOW).map(str::to_owned),
            weights: Version::ALL.map(weight),
            board,
        }
    }

    /// The share of a version in the pages of the last few seconds, from 0 to 1.
    pub(crate) fn share(&self, version: Version) -> f64 {
        let pages = self.recent.rate(self.recent.counts.pages());
        if pages > 0.0 { self.recent.rate(self.recent.counts.versions[version.index()]) / pages } else { 0.0 }
    }
}

/// A time as people read it: `0.84 ms`, `12.3 ms`, `1.50 s`; a dash for none.
pub(crate) fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "–".to_owned() };
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        10.0..1000.0 => format!("{millis:.1} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demo::news::Tone;
    use crate::demo::tally::Outcome;

    /// Places for tests of views.
    pub(crate) fn places() -> Places {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Places {
            gateway: at(8080),
            mesh: at(9080),
            http_proxy: at(15080),
            admin: Some(at(15000)),
            folder: Folder { path: "lateen-demo".into(), kept: Vec::new() },
        }
    }

    /// Four seconds with 30 pages of v1, 10 of v2 and one problem, and weights 75 and 25.
    pub(crate) fn quarter() -> (Tally, Splits, Board) {
        let mut tally = Tally::default();
        for request in 0..40 {
            let version = if request % 4 == 0 { Version::V2 } else { Version::V1 };
            let took = Duration::from_micros(100 * (request + 1));
            tally.record(Duration::from_millis(100 * request), took, Outcome::Page(version));
        }
        let problem = Outcome::Problem("ratings: 503 no healthy upstream".into());
        tally.record(Duration::from_millis(3999), Duration::from_millis(5), problem);
        let weights = vec![("v1".to_owned(), 75), ("v2".to_owned(), 25)];
        let splits = Splits::from([("reviews".to_owned(), weights)]);
        let mut board = Board::default();
        let text = "reviews v1 80, v2 20 → v1 75, v2 25, in force after 3.1 ms".to_owned();
        board.pin(News { at: Duration::from_secs(2), tone: Tone::Good, text });
        (tally, splits, board)
    }

    #[test]
    fn a_scene_gathers_shares_weights_and_problems() {
        let (places, (tally, splits, board)) = (places(), quarter());
        let scene = Scene::of(&places, Duration::from_secs(4), &tally, &splits, &board);
        assert_eq!(scene.weights, [Some(75), Some(25), Some(0)]);
        assert!((scene.share(Version::V1) - 0.75).abs() < 1e-9);
        assert_eq!(scene.share(Version::V3), 0.0);
        assert_eq!(scene.problem.as_deref(), Some("ratings: 503 no healthy upstream"));
        assert_eq!(scene.history.len(), 4);
        assert_eq!(scene.total.requests(), 41);
    }

    #[test]
    fn shares_of_nothing_are_zero() {
        let (places, board) = (places(), Board::default());
        let scene = Scene::of(&places, Duration::ZERO, &Tally::default(), &Splits::default(), &board);
        assert_eq!(scene.share(Version::V1), 0.0);
    }

    #[test]
    fn the_board_keeps_the_latest() {
        let mut board = Board::default();
        for second in 0..200 {
            board.pin(News { at: Duration::from_secs(second), tone: Tone::Plain, text: String::new() });
        }
        let latest: Vec<_> = board.latest(2).map(|news| news.at.as_secs()).collect();
        assert_eq!(latest, [198, 199]);
        assert_eq!(board.latest(1000).count(), MAX_NEWS);
    }

    #[test]
    fn times_have_three_digits_or_so() {
        assert_eq!(time(Some(Duration::from_micros(843))), "0.84 ms");
        assert_eq!(time(Some(Duration::from_micros(12_345))), "12.3 ms");
        assert_eq!(time(Some(Duration::from_millis(1500))), "1.50 s");
        assert_eq!(time(None), "–");
    }
}
