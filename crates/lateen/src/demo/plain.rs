//! How does the demo look without a terminal? A greeting, then one line a second, and a line for each piece of news.

use std::fmt::Write as _;

use super::app::Version;
use super::news::{News, Tone};
use super::scene::{Places, Scene, WINDOW, time};

/// What is running, where it is, and what to try.
pub(crate) fn greeting(places: &Places) -> String {
    let Places { gateway, mesh, http_proxy, folder, .. } = places;
    let routes = folder.routes();
    let routes = routes.display();
    let folder_path = folder.path.display();
    let mut text = format!(
        "Lateen demo: a small bookstore. Every arrow is a request that Lateen routes by the YAML in {folder_path}.\n\n"
    );
    text.push_str("  client -> gateway -> productpage -> details\n");
    text.push_str("                                   -> reviews v1 | v2 | v3 -> ratings\n\n");
    text.push_str("Try this while it runs:\n");
    let mut row = |what: &str, how: String| {
        let _ = writeln!(text, "  {what:8} {how}");
    };
    row("edit", format!("{routes}: change the weights of reviews, save, watch the shares move"));
    row("break", "write `wieght` there: the last good configuration stays, and you are told what is wrong".to_owned());
    row("page", format!("http://{gateway}/productpage?user=nadia in a browser: nadia is always sent to v3"));
    row("mesh", format!("curl -H 'Host: reviews:9080' http://{mesh}/reviews/0"));
    row("proxy", format!("http_proxy=http://{http_proxy} curl http://reviews:9080/reviews/0"));
    if let Some(admin) = places.admin {
        row("admin", format!("http://{admin}/stats and /config_dump, as Envoy has them"));
    }
    let _ = writeln!(text, "\nCtrl-C ends. Shares and times are those of the last {WINDOW} seconds.\n");
    text
}

/// One moment in one line.
pub(crate) fn line(scene: &Scene<'_>) -> String {
    let mut text =
        format!("{:>5}  {:3.0} req/s  reviews", clock(scene), scene.recent.rate(scene.recent.counts.requests()));
    for version in Version::ALL {
        let _ = write!(text, "  {} {:3.0} %", version.name(), scene.share(version) * 100.0);
    }
    let errors = scene.recent.counts.errors;
    let _ = write!(text, "  errors {errors}  p50 {}  p99 {}", time(scene.recent.p50), time(scene.recent.p99));
    if let Some(problem) = &scene.problem {
        let _ = write!(text, "  ({problem})");
    }
    text.push('\n');
    text
}

/// A piece of news in one line.
pub(crate) fn news(news: &News) -> String {
    let mark = match news.tone {
        Tone::Good => "*",
        Tone::Bad => "!",
        Tone::Plain => "-",
    };
    format!("{:>4}s  {mark} {}\n", news.at.as_secs(), news.text)
}

/// What to say at the end.
pub(crate) fn farewell(scene: &Scene<'_>) -> String {
    let total = &scene.total;
    let [v1, v2, v3] = total.versions;
    format!(
        "{} requests in {}: reviews v1 {v1}, v2 {v2}, v3 {v3}, errors {}. Your files stay in {}.\n",
        total.requests(),
        clock(scene),
        total.errors,
        scene.places.folder.path.display()
    )
}

fn clock(scene: &Scene<'_>) -> String {
    format!("{}s", scene.elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scene::tests::{places, quarter};
    use std::time::Duration;

    #[test]
    fn a_line_has_rate_shares_errors_and_times() {
        let (places, (tally, splits, board)) = (places(), quarter());
        let scene = Scene::of(&places, Duration::from_secs(4), &tally, &splits, &board);
        assert_eq!(
            line(&scene),
            "   4s   10 req/s  reviews  v1  75 %  v2  25 %  v3   0 %  errors 1  p50 2.10 ms  p99 5.00 ms  \
             (ratings: 503 no healthy upstream)\n"
        );
    }

    #[test]
    fn the_greeting_fits_a_screen_and_names_the_file_to_edit() {
        let text = greeting(&places());
        assert!(text.lines().count() <= 20, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("lateen-demo/routes.yaml"), "{text}");
        assert!(text.contains("http://127.0.0.1:8080/productpage"), "{text}");
    }

    #[test]
    fn the_farewell_counts_everything() {
        let (places, (tally, splits, board)) = (places(), quarter());
        let scene = Scene::of(&places, Duration::from_secs(9), &tally, &splits, &board);
        assert_eq!(
            farewell(&scene),
            "41 requests in 9s: reviews v1 30, v2 10, v3 0, errors 1. Your files stay in lateen-demo.\n"
        );
    }

    #[test]
    fn news_are_marked_by_how_it_went() {
        let (_, _, board) = quarter();
        let lines: Vec<_> = board.latest(1).map(news).collect();
        assert_eq!(lines, ["   2s  * reviews v1 80, v2 20 → v1 75, v2 25, in force after 3.1 ms\n"]);
    }
}
