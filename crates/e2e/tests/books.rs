//! Do Lateen and real Envoy both behave as the books say, and alike? One test for each page of `docs/books`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use lateen_e2e::allowed::Allowed;
use lateen_e2e::book::{self, Page};
use lateen_e2e::row::Row;
use lateen_e2e::stage::{self, Play};
use lateen_e2e::{counters, envoy, judge};

macro_rules! pages {
    ($($test:ident = $page:literal,)*) => {
        /// The pages that have a test here.
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                play_page($page).unwrap_or_else(|error| panic!("{error:#}"));
            }
        )*
    };
}

pages! {
    page_01_basic_routing = "01-basic-routing",
    page_02_header_routing = "02-header-routing",
    page_03_uri_matching = "03-uri-matching",
    page_04_rewrites = "04-rewrites",
    page_05_header_operations = "05-header-operations",
    page_06_weights = "06-weights",
    page_07_more_matches = "07-more-matches",
    page_08_hosts = "08-hosts",
    page_09_redirects_and_direct_answers = "09-redirects-and-direct-answers",
    page_10_failures = "10-failures",
    page_11_paths = "11-paths",
    page_12_request_headers_gateway = "12-request-headers-gateway",
    page_13_request_headers_mesh = "13-request-headers-mesh",
    page_14_framing = "14-framing",
    page_15_malformed = "15-malformed",
    page_16_load_balancing = "16-load-balancing",
    page_17_hosts_in_the_mesh = "17-hosts-in-the-mesh",
    page_18_http_proxy = "18-http-proxy",
    page_20_circuit_breaking = "20-circuit-breaking",
    page_21_outlier_detection = "21-outlier-detection",
    page_22_consistent_hash = "22-consistent-hash",
    page_30_fault_injection = "30-fault-injection",
    page_31_cors = "31-cors",
    page_32_mirroring = "32-mirroring",
    page_33_timeouts = "33-timeouts",
    page_34_retries = "34-retries",
    page_35_upgrades = "35-upgrades",
    page_36_by_envoy_filter = "36-by-envoy-filter",
}

#[test]
fn every_page_of_the_folder_has_a_test() {
    assert_eq!(book::page_names().unwrap(), PAGES, "list the pages of docs/books in `pages!`, in order");
}

#[test]
fn the_books_hold_enough_rows() {
    let rows: usize = PAGES.iter().map(|page| book::load(page).unwrap().rows.len()).sum();
    assert!(rows >= 40, "{rows} rows");
}

#[test]
fn every_deviation_is_still_needed_by_a_row() {
    let allowed = Allowed::load(&book::folder()).unwrap();
    let rows = PAGES.iter().flat_map(|page| book::load(page).unwrap().rows);
    let used: BTreeSet<String> = rows.filter_map(|row| row.deviation).collect();
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), allowed.deviations().collect::<Vec<_>>());
}

/// Plays a page on both proxies at once and reports everything that disagrees.
fn play_page(name: &str) -> Result<()> {
    let page = book::load(name)?;
    let allowed = Allowed::load(&book::folder())?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let envoy = envoy_binary()?;
    let only = std::env::var("LATEEN_BOOKS_ONLY").unwrap_or_default();
    let (ours, theirs) = runtime.block_on(async {
        let ours = async {
            match only.as_str() {
                "envoy" => Ok(None),
                _ => stage::play_on_lateen(&page, folder.path()).await.map(Some),
            }
        };
        let theirs = async {
            match &envoy {
                Some(binary) if only != "lateen" => stage::play_on_envoy(&page, binary, folder.path()).await.map(Some),
                _ => Ok(None),
            }
        };
        tokio::join!(ours, theirs)
    });
    let (ours, theirs) = (ours?, theirs?);
    if std::env::var_os("LATEEN_BOOKS_KEEP").is_some() {
        let kept = folder.keep();
        for play in [&ours, &theirs].into_iter().flatten() {
            std::fs::write(kept.join(format!("{}.transcript", play.proxy)), play.render(&page))?;
            std::fs::write(kept.join(format!("{}.stats", play.proxy)), &play.stats)?;
        }
        let _ = writeln!(std::io::stderr(), "{name}: files are kept in {}", kept.display());
    }
    let complaints = judge_page(&page, &allowed, ours.as_ref(), theirs.as_ref());
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("\n")) }
}

fn judge_page(page: &Page, allowed: &Allowed, ours: Option<&Play>, theirs: Option<&Play>) -> Vec<String> {
    let mut report = Vec::new();
    for (index, row) in page.rows.iter().enumerate() {
        let mut complaints = Vec::new();
        let mut add = |name: &str, found: Vec<String>| {
            complaints.extend(found.into_iter().map(|complaint| format!("    {name}: {complaint}")));
        };
        if let Some(ours) = ours {
            add("lateen", judge::against_page(row, &ours.rows[index]));
        }
        match (&row.deviation, theirs) {
            (Some(key), Some(theirs)) => add("envoy", judge::against_deviation(key, &theirs.rows[index], allowed)),
            (None, Some(theirs)) => add("envoy", judge::against_page(row, &theirs.rows[index])),
            (_, None) => {}
        }
        if let (Some(ours), Some(theirs), None) = (ours, theirs, &row.deviation) {
            let (left, right) = ((ours, &ours.rows[index]), (theirs, &theirs.rows[index]));
            add("both", judge::against_each_other(row, left, right, allowed));
        }
        if !complaints.is_empty() {
            report.push(format!("{}.md:{} {}", page.name, row.line, row.text));
            report.extend(complaints);
        }
    }
    // A row that Envoy answers otherwise on purpose moves its counters as well.
    let deviates = page.rows.iter().any(|row| row.deviation.is_some());
    if let (Some(ours), Some(theirs), false) = (ours, theirs, deviates) {
        let (ours, theirs) = (counters::select(&ours.stats), counters::select(&theirs.stats));
        let by_chance = page.rows.iter().any(Row::is_by_chance);
        for (name, ours, theirs) in counters::differences(&ours, &theirs) {
            if by_chance && name.starts_with("cluster.") {
                continue;
            }
            report.push(format!("{}.md counter {name}: lateen {ours}, envoy {theirs}", page.name));
        }
    }
    report
}

/// Envoy's binary; says once, past the test harness's capture, when there is none.
fn envoy_binary() -> Result<Option<PathBuf>> {
    static FOUND: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = envoy::binary().map_err(|error| format!("{error:#}"));
        if let Ok(None) = found {
            let _ = writeln!(
                std::io::stderr(),
                "\nbooks: no Envoy here, COMPARISON SKIPPED: Lateen is held against the pages alone. \
                 `scripts/install-envoy` fetches Envoy; {}=1 makes its absence a failure.",
                envoy::REQUIRE
            );
        }
        found
    });
    found.clone().map_err(anyhow::Error::msg)
}
