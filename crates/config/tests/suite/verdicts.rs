//! Is every verdict on known objects the one that Istio gives? The cases live beside the checkout: `validation.json` in
//! the folder that `LATEEN_CASES` names, else in `../shared/cases`. Without them there is nothing to check, and the
//! test says so.

use std::path::PathBuf;

use lateen_config::{ParseOptions, Parsed, parse_json};
use serde_json::{Value, json};

/// Cases whose verdict is held to be wrong here, with the reason.
const HELD_TO_BE_WRONG: &[(&str, &str)] = &[];

fn cases() -> Option<Vec<Value>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let folder = std::env::var_os("LATEEN_CASES").map_or_else(beside, PathBuf::from);
    let text = std::fs::read(folder.join("validation.json")).ok()?;
    Some(serde_json::from_slice(&text).expect("the cases are a JSON list"))
}

/// The object of a case. Some stand for a text that has no `spec` at all, others bring their whole document.
fn document(case: &Value) -> Value {
    if let Some(document) = case.get("document") {
        return document.clone();
    }
    let mut document = json!({ "apiVersion": case["apiVersion"], "kind": case["kind"], "metadata": case["metadata"] });
    if case.get("spec_missing") != Some(&Value::Bool(true)) {
        document["spec"] = case["yaml_spec_as_json"].clone();
    }
    document
}

fn told(parsed: &Parsed, is_error: bool) -> Vec<String> {
    let found = parsed.diagnostics.iter().filter(|diagnostic| diagnostic.is_error() == is_error);
    found.map(|diagnostic| format!("{}: {}", diagnostic.path, diagnostic.message)).collect()
}

#[test]
fn verdicts_are_those_of_istio() {
    let Some(cases) = cases() else {
        println!("no cases beside this checkout: nothing is checked");
        return;
    };
    assert!(cases.len() > 400, "only {} cases", cases.len());
    let mut differences = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let parsed = parse_json(&document(case), &ParseOptions::default());
        let (errors, warnings) = (told(&parsed, true), told(&parsed, false));
        let is_right = errors.is_empty() == case["valid"].as_bool().expect("a verdict");
        // A warning that the cases only recomputed is not a verdict of Istio.
        let is_asserted = case["warning_asserted"] == true;
        let warns_rightly = !is_asserted || warnings.is_empty() != case["warning"].as_bool().unwrap_or_default();
        let is_held_wrong = HELD_TO_BE_WRONG.iter().any(|(held, _)| *held == name);
        match (is_right && warns_rightly, is_held_wrong) {
            (true, true) => differences.push(format!("{name}: agrees, and is held to be wrong")),
            (false, false) => differences.push(format!(
                "{name}: valid {}, warning {}\n  errors {errors:#?}\n  warnings {warnings:#?}\n  {}",
                case["valid"], case["warning"], case["yaml_spec_as_json"]
            )),
            _ => {}
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
}
