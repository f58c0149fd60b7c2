//! What the tests of this crate share: reading a text, and problems in one line each.

use lateen_config::{Diagnostic, Parsed, SourceFile};

/// Reads a text under the name `shop.yaml`.
pub(crate) fn load(text: &str) -> Parsed {
    lateen_config::load(&[SourceFile::new("shop.yaml", text)])
}

/// `code line:column message` of each problem.
pub(crate) fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    let line = |diagnostic: &Diagnostic| {
        let place = diagnostic.location.as_ref().map(|at| format!("{}:{}", at.line, at.column)).unwrap_or_default();
        format!("{} {place} {}", diagnostic.code, diagnostic.message)
    };
    diagnostics.iter().map(line).collect()
}

/// Names of the objects that can be used.
pub(crate) fn names(parsed: &Parsed) -> Vec<String> {
    parsed.objects.iter().map(ToString::to_string).collect()
}

/// A VirtualService of this `spec`, which begins on line 5 and is indented by two.
pub(crate) fn virtual_service(name: &str, spec: &str) -> String {
    object("networking.istio.io/v1", "VirtualService", name, spec)
}

/// An object of this `spec`, which begins on line 5 and is indented by two.
pub(crate) fn object(api_version: &str, kind: &str, name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

/// Problems of an object of a kind of Istio's, each as `line:column message`. The `spec` begins on line 5, indented by
/// two.
pub(crate) fn problems(kind: &str, spec: &str) -> Vec<String> {
    let known = lateen_config::Kind::all().find(|known| known.as_str() == kind).expect("a kind");
    let found = lines(&load(&object(&known.api_version(), kind, "a", spec)).diagnostics);
    found.iter().map(|line| line.split_once(' ').expect("a code").1.to_owned()).collect()
}

/// Checks the problems of some objects of a kind.
pub(crate) fn check(kind: &str, cases: &[(&str, &[&str])]) {
    for (spec, expected) in cases {
        assert_eq!(problems(kind, spec), *expected, "{spec}");
    }
}
