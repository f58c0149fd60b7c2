//! How does the demo look on a terminal? One screen that is drawn anew a few times a second.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Padding, Paragraph, Wrap};

use super::app::Version;
use super::news::Tone;
use super::scene::{Scene, WINDOW, time};
use super::tally::Counts;

/// Columns of the bars' history, one for each second, on a wide terminal.
const HISTORY_COLUMNS: usize = 30;
/// Columns of everything in a row of a version besides bar and history.
const ROW_COLUMNS: usize = 46;
/// Heights of one column of history.
const STEPS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Draws one moment.
pub(crate) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let [head, versions, figures, news, invitation] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(7),
    ])
    .areas(frame.area());
    draw_head(frame, head, scene);
    draw_versions(frame, versions, scene);
    draw_figures(frame, figures, scene);
    draw_news(frame, news, scene);
    draw_invitation(frame, invitation, scene);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let seconds = scene.elapsed.as_secs();
    let arrow = || " → ".dark_gray();
    let lines = vec![
        Line::from(vec![
            " Lateen demo ".bold().reversed(),
            "  a bookstore; every arrow is a request that Lateen routes".into(),
            format!("  {:02}:{:02}", seconds / 60, seconds % 60).dark_gray(),
        ]),
        Line::default(),
        Line::from(vec![
            " client".into(),
            arrow(),
            "gateway".cyan(),
            arrow(),
            "productpage".into(),
            arrow(),
            "mesh".cyan(),
            arrow(),
            "details, reviews ".into(),
            "v1 v2 v3".bold(),
            arrow(),
            "ratings".into(),
        ]),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_versions(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let block = titled(format!(" reviews: who answered in the last {WINDOW} s "));
    let width = usize::from(block.inner(area).width);
    let history = if width > ROW_COLUMNS + HISTORY_COLUMNS + 20 { HISTORY_COLUMNS } else { 0 };
    let bar = width.saturating_sub(ROW_COLUMNS + history).max(4);
    let rows: Vec<Line<'_>> =
        Version::ALL.into_iter().map(|version| version_row(scene, version, bar, history)).collect();
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

fn version_row(scene: &Scene<'_>, version: Version, bar: usize, history: usize) -> Line<'static> {
    let style = Style::new().fg(colour(version));
    let share = scene.share(version);
    let rate = scene.recent.rate(scene.recent.counts.versions[version.index()]);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "at most the width of a screen"
    )]
    let full = ((share * bar as f64).round() as usize).min(bar);
    let weight = match scene.weights[version.index()] {
        Some(weight) => format!("weight {weight:<4}"),
        None => " ".repeat(11),
    };
    Line::from(vec![
        Span::from(format!("{} ", version.name())).bold(),
        Span::from(format!("{:12}", version.look())),
        Span::styled("█".repeat(full), style),
        Span::from("·".repeat(bar - full)).dark_gray(),
        Span::from(format!(" {:3.0} % {rate:4.0}/s ", share * 100.0)),
        Span::from(weight).dark_gray(),
        Span::styled(sparkline(&scene.history, version, history), style),
    ])
}

/// The last seconds of a version, each as high as its part of the busiest second.
fn sparkline(history: &[Counts], version: Version, columns: usize) -> String {
    let shown = &history[history.len().saturating_sub(columns)..];
    let highest = shown.iter().map(Counts::requests).max().unwrap_or(0).max(1);
    let steps = STEPS.len() as u64 - 1;
    let column = |counts: &Counts| {
        let count = counts.versions[version.index()];
        // Something is never shown as nothing.
        let step = if count == 0 { 0 } else { (count * steps / highest).clamp(1, steps) };
        STEPS[usize::try_from(step).unwrap_or(0)]
    };
    shown.iter().map(column).collect()
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let recent = &scene.recent;
    let errors = recent.counts.errors;
    let total = format!("{} requests in all, {} errors", scene.total.requests(), scene.total.errors);
    let figures = Line::from(vec![
        format!("{:.0}", recent.rate(recent.counts.requests())).bold(),
        " requests/s    ".into(),
        "p50 ".dark_gray(),
        time(recent.p50).bold(),
        "    ".into(),
        "p99 ".dark_gray(),
        time(recent.p99).bold(),
        "    ".into(),
        if errors > 0 { format!("errors {errors}").bold().red() } else { "errors 0".green() },
    ]);
    let below = match &scene.problem {
        Some(problem) => Line::from(problem.clone().red()),
        None => Line::from(total.dark_gray()),
    };
    let block = titled(" the whole way and back ".to_owned());
    frame.render_widget(Paragraph::new(vec![figures, below]).block(block), area);
}

fn draw_news(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let block = titled(format!(" configuration in {} ", scene.places.folder.path.display()));
    let inner = block.inner(area);
    let line = |news: &super::news::News| {
        let seconds = news.at.as_secs();
        let style = match news.tone {
            Tone::Good => Style::new().green(),
            Tone::Bad => Style::new().red(),
            Tone::Plain => Style::new(),
        };
        Line::from(vec![
            format!("{:02}:{:02} ", seconds / 60, seconds % 60).dark_gray(),
            Span::styled(news.text.clone(), style),
        ])
    };
    // As many of the latest as there is room for, long ones taking several rows.
    let (width, mut room) = (usize::from(inner.width).max(1), usize::from(inner.height));
    let mut lines: Vec<Line<'_>> = Vec::new();
    let latest: Vec<_> = scene.board.latest(room).collect();
    for news in latest.into_iter().rev() {
        let line = line(news);
        let rows = line.width().div_ceil(width).max(1);
        if rows > room && !lines.is_empty() {
            break;
        }
        room = room.saturating_sub(rows);
        lines.push(line);
    }
    lines.reverse();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_invitation(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    let places = scene.places;
    let row = |what: &'static str, text: Vec<Span<'static>>| {
        let mut spans = vec![Span::from(format!("{what:7}")).cyan()];
        spans.extend(text);
        Line::from(spans)
    };
    let routes = places.folder.routes().display().to_string();
    let admin = places.admin.map(|admin| format!("      admin http://{admin}")).unwrap_or_default();
    let lines = vec![
        row("edit", vec![routes.bold().yellow(), ": change weights, save, watch".into()]),
        row("break", vec!["write `wieght` there: the last good configuration stays".into()]),
        row("page", vec![format!("http://{}/productpage?user=nadia", places.gateway).into(), "  nadia gets v3".into()]),
        row("mesh", vec![format!("curl -H 'Host: reviews:9080' http://{}/reviews/0", places.mesh).into()]),
        row("end", vec!["q or Ctrl-C".into(), admin.dark_gray()]),
    ];
    frame.render_widget(Paragraph::new(lines).block(titled(" try it ".to_owned())), area);
}

fn titled(title: String) -> Block<'static> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().dark_gray())
        .title(title.bold())
        .padding(Padding::horizontal(1))
}

fn colour(version: Version) -> Color {
    [Color::Blue, Color::Yellow, Color::Red][version.index()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scene::tests::{places, quarter};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn screen(width: u16, height: u16) -> String {
        let (places, (tally, splits, board)) = (places(), quarter());
        let scene = Scene::of(&places, Duration::from_secs(4), &tally, &splits, &board);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &scene)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_common_terminal_shows_everything_that_the_first_minute_needs() {
        let screen = screen(80, 24);
        for wanted in [
            "Lateen demo",
            "v1 no stars",
            " 75 %",
            "weight 75",
            "weight 25",
            "errors 1",
            "ratings: 503 no healthy upstream",
            "00:04",
            "→ ratings",
            "p50 2.10 ms",
            "v1 80, v2 20 → v1 75, v2 25",
            "lateen-demo/routes.yaml",
            "http://127.0.0.1:8080/productpage?user=nadia",
            "curl -H 'Host: reviews:9080' http://127.0.0.1:9080/reviews/0",
            "q or Ctrl-C",
        ] {
            assert!(screen.contains(wanted), "`{wanted}` is missing:\n{screen}");
        }
    }

    #[test]
    fn bars_are_as_long_as_the_shares() {
        let screen = screen(80, 24);
        let full = |version: &str| {
            let row =
                screen.lines().find(|line| line.contains(&format!("{version} ")) && line.contains(" % ")).unwrap();
            row.matches('█').count()
        };
        assert_eq!((full("v1"), full("v2")), (23, 8), "{screen}");
        assert_eq!(full("v3"), 0);
    }

    #[test]
    fn a_wide_terminal_adds_the_history() {
        assert!(!screen(80, 24).contains('▅'));
        let wide = screen(140, 30);
        assert!(wide.contains("▅▅▅▅"), "{wide}");
    }

    #[test]
    fn tiny_terminals_are_no_problem() {
        for (width, height) in [(1, 1), (10, 3), (20, 40), (200, 5)] {
            screen(width, height);
        }
    }

    #[test]
    fn something_is_never_drawn_as_nothing() {
        let busy = Counts { versions: [100, 1, 0], errors: 0 };
        assert_eq!(sparkline(&[busy], Version::V1, 10), "▇");
        assert_eq!(sparkline(&[busy], Version::V2, 10), "▁");
        assert_eq!(sparkline(&[busy], Version::V3, 10), " ");
        assert_eq!(sparkline(&[busy], Version::V1, 0), "");
    }
}
