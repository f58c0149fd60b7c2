//! Is the YAML of the guide and of the examples right, and does the guide speak of everything that it should?

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> =
        fs::read_dir(project().join("docs/guide")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(!pages.is_empty());
    pages
}

/// The fenced blocks of a language, one after the other.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(fence)) if fence == language => open = Some(String::new()),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

/// Compiles a folder for both roles; there must be nothing to complain of.
fn compiles(folder: &Path, name: &str) {
    for role in ["gateway", "sidecar"] {
        for output in ["xds", "envoy-bootstrap"] {
            let ran = Command::new(env!("CARGO_BIN_EXE_lateen"))
                .args(["compile", "--as", role, "-o", output, "-f"])
                .arg(folder)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && errors.is_empty(), "{name} as {role}, {output}:\n{errors}");
            let printed: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
            let listeners = match output {
                "xds" => &printed["listeners"],
                _ => &printed["static_resources"]["listeners"],
            };
            assert!(listeners.as_array().is_some_and(|all| !all.is_empty()), "{name} as {role} listens on nothing");
        }
    }
}

#[test]
fn the_examples_compile_without_a_complaint() {
    for example in ["bookstore", "first-steps"] {
        compiles(&project().join("examples").join(example), example);
    }
}

#[test]
fn the_yaml_of_each_page_fits_the_example_that_the_guide_begins_with() {
    for page in pages() {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let yaml = blocks(&fs::read_to_string(&page).unwrap(), "yaml");
        if yaml.is_empty() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        for file in ["gateway.yaml", "services.yaml"] {
            fs::copy(project().join("examples/first-steps").join(file), folder.path().join(file)).unwrap();
        }
        fs::write(folder.path().join("routes.yaml"), yaml.join("---\n")).unwrap();
        compiles(folder.path(), &name);
    }
}

#[test]
fn the_index_links_every_page_and_no_link_is_dead() {
    let mut files = pages();
    let index = project().join("docs/README.md");
    let text = fs::read_to_string(&index).unwrap();
    for page in &files {
        let link = format!("(guide/{})", page.file_name().unwrap().to_string_lossy());
        assert!(text.contains(&link), "docs/README.md has no link {link}");
    }
    files.extend([index, project().join("README.md"), project().join("CONTRIBUTING.md")]);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                let target = file.parent().unwrap().join(path);
                assert!(target.exists(), "{}: dead link {link}", file.display());
            }
        }
    }
}

#[test]
fn commands_of_the_guide_use_options_that_exist() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in blocks(&text, "sh").iter().flat_map(|block| block.lines()) {
            let mut words = line.split_whitespace();
            if words.next() != Some("lateen") {
                continue;
            }
            let command = words.next().unwrap_or_default();
            let help = Command::new(env!("CARGO_BIN_EXE_lateen")).args([command, "--help"]).output().unwrap();
            assert!(help.status.success(), "{line}");
            let help = String::from_utf8_lossy(&help.stdout);
            let options = words.take_while(|word| *word != "#" && *word != ">").filter(|word| word.starts_with('-'));
            for option in options {
                assert!(help.contains(option), "{}: `{option}` of `{line}` is no option", page.display());
            }
        }
    }
}
