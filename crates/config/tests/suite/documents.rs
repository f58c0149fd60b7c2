//! Are documents told apart, and does a broken one leave the others alone?

use crate::support::{lines, load, names, virtual_service};
use lateen_config::{Kind, ParseOptions, Severity, SourceFile, Spec, parse_documents, parse_json, parse_with};

/// A VirtualService that is right, of nine lines with the separator before it.
fn good(name: &str) -> String {
    format!("---\n{}", virtual_service(name, "hosts: [a]\nhttp:\n- route:\n  - destination: {host: a}\n"))
}

#[test]
fn a_broken_document_leaves_its_neighbours_alone() {
    let cases = [
        ("a: [b\nc: d\n", "LTN0001 12:2 "),
        ("a: \"b\n", "LTN0001 11:4 "),
        ("a:\n\tb: c\n", "LTN0001 12:2 "),
        ("a: b: c\n", "LTN0001 11:5 "),
        ("a: 'b' c\n", "LTN0001 11:8 "),
        ("a: *b\n", "LTN0003 11:4 "),
        ("a: &a [*a]\n", "LTN0003 11:8 "),
        ("a: {b: c}}\n", "LTN0001 11:10 "),
        ("a: %b\n", "LTN0001 11:4 "),
        ("- a\nb: c\n", "LTN0001 12:1 "),
        ("just a text\n", "LTN0010 11:1 "),
        ("- a\n", "LTN0010 11:1 "),
        ("? [a]\n: b\n", "LTN0001 11:3 "),
        ("<<: a\n", "LTN0003 11:5 "),
    ];
    for (broken, problem) in cases {
        let parsed = load(&format!("{}---\n{broken}{}", good("first"), good("second")));
        assert_eq!(names(&parsed), ["VirtualService default/first", "VirtualService default/second"], "{broken}");
        let found = lines(&parsed.diagnostics);
        assert!(found.len() == 1 && found[0].starts_with(problem), "{broken:?}: {found:?}");
    }
}

#[test]
fn a_bracket_that_is_not_closed_is_named() {
    let parsed = load("a: b\nhosts: [a, b\nhttp: []\n");
    let help = parsed.diagnostics[0].help.as_deref();
    assert_eq!(help, Some("is the `]` missing for the `[` on line 2, column 8?"));
}

#[test]
fn a_key_that_is_there_twice_spoils_its_object_alone() {
    let spec = "hosts: [a]\nhttp:\n- route:\n  - destination: {host: a}\n  timeout: 1s\n  timeout: 2s\nhosts: [b]\n";
    let parsed = load(&format!("{}{}", virtual_service("twice", spec), good("second")));
    assert_eq!(names(&parsed), ["VirtualService default/second"]);
    assert_eq!(
        lines(&parsed.diagnostics),
        ["LTN0002 10:5 `timeout` is given twice", "LTN0002 11:3 `hosts` is given twice"]
    );
    assert_eq!(parsed.diagnostics[1].label.as_deref(), Some("already given on line 5"));
}

#[test]
fn both_spellings_of_a_field_are_one_too_many() {
    let spec = "hosts: [a]\nexportTo: [\".\"]\nexport_to: [\"*\"]\nhttp:\n- route:\n  - destination: {host: a}\n";
    let parsed = load(&virtual_service("a", spec));
    assert_eq!(lines(&parsed.diagnostics), ["LTN0002 7:3 `spec.export_to` is given twice"]);
    assert_eq!(names(&parsed), Vec::<String>::new());
}

#[test]
fn json_is_read_with_its_places() {
    let text = "{\n\t\"apiVersion\": \"networking.istio.io/v1\",\n\t\"kind\": \"VirtualService\",\n\t\"metadata\": \
                {\"name\": \"a\\u00e9\\ud83d\\ude00\"},\n\t\"spec\": {\"hosts\": [\"a\"], \"htp\": []}\n}\n";
    let parsed = load(text);
    assert_eq!(names(&parsed), ["VirtualService default/aé😀"]);
    assert_eq!(lines(&parsed.diagnostics).last().map(String::as_str), Some("LTN0020 5:27 unknown field `spec.htp`"));
}

#[test]
fn lists_are_unfolded() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
- apiVersion: networking.istio.io/v1
  kind: VirtualServiceList
  items:
  - metadata: {name: a}
    spec: {hosts: [a], http: [{route: [{destination: {host: a, subset: v1}}]}]}
  - metadata: {name: b}
    spec: {hosts: [b], htp: 1}
";
    let parsed = load(text);
    assert_eq!(names(&parsed), ["Namespace shop", "VirtualService default/a", "VirtualService default/b"]);
    let a = &parsed.objects[1];
    assert_eq!(a.api_version, "networking.istio.io/v1");
    assert_eq!(a.locate("spec.http[0].route[0].destination.subset").to_string(), "11:72");
    assert_eq!(
        lines(&parsed.diagnostics),
        ["IST0106 13:11 the VirtualService has no rules", "LTN0020 13:24 unknown field `spec.htp`"]
    );
    assert_eq!(names(&load("apiVersion: v1\nkind: List\nitems: null\n")), Vec::<String>::new());
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: &labels {app: shop, tier: web}
  annotations:
    tier: own
    <<: [*labels, {more: \"1\", app: other}]
data: {one: &x text, two: *x}
";
    let parsed = load(text);
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    let object = &parsed.objects[0];
    let annotations: Vec<_> = object.metadata.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(annotations, ["app=shop", "more=1", "tier=own"]);
    let Spec::ConfigMap(config_map) = &object.spec else { panic!("{object:?}") };
    assert_eq!(config_map.data["two"], "text");
    // Merged entries are where they are written.
    assert_eq!(object.locate("metadata.annotations.app").to_string(), "5:25");
}

#[test]
fn bombs_are_defused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.repeat(10)));
    }
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1000));
    for text in [bomb, wide, "[".repeat(100_000), "- ".repeat(100_000), "a: ".repeat(1000), "{a: ".repeat(50_000)] {
        let parsed = load(&format!("{text}{}", good("after")));
        assert!(parsed.has_errors(), "{}", &text[..40]);
        assert!(parsed.diagnostics.len() <= 2);
    }
}

#[test]
fn problems_of_one_object_are_counted_beyond_the_hundredth() {
    let fields: String = (0..1000).map(|index| format!("f{index}: 1\n")).collect();
    let parsed = load(&virtual_service("a", &fields));
    assert_eq!(parsed.diagnostics.len(), 102);
    let untold = parsed.diagnostics.iter().find(|diagnostic| diagnostic.code == "LTN0005").expect("a count");
    assert_eq!(untold.message, "there are 900 more problems in this object");
}

#[test]
fn what_is_no_object_is_reported_with_the_way_out() {
    let cases = [
        ("kind: Gateway\n", "this is not an object: it has no apiVersion", "add `apiVersion: networking.istio.io/v1`"),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualServices\n",
            "Lateen does not know kind VirtualServices in group networking.istio.io",
            "did you mean `VirtualService`?",
        ),
        (
            "apiVersion: v1\nkind: VirtualService\n",
            "Lateen does not know kind VirtualService in the core group",
            "write `apiVersion: networking.istio.io/v1`",
        ),
        (
            "apiVersion: networking.istio.io/v3\nkind: Sidecar\n",
            "Lateen does not know version v3 of Sidecar",
            "write `apiVersion: networking.istio.io/v1`",
        ),
        (
            "apiVersion: example.com/v1\nkind: Foo\n",
            "Lateen does not know kind Foo in group example.com",
            "the object is passed over",
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {}\n", "Service has no name", "give metadata.name"),
    ];
    for (text, message, help) in cases {
        let parsed = load(text);
        assert_eq!(parsed.objects, [], "{text}");
        let [problem] = &parsed.diagnostics[..] else { panic!("{text}: {:?}", parsed.diagnostics) };
        assert_eq!((problem.message.as_str(), problem.help.as_deref()), (message, Some(help)));
    }
}

#[test]
fn an_unknown_kind_is_a_warning_alone() {
    let parsed = load("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\n");
    assert_eq!(parsed.diagnostics[0].severity, Severity::Warning);
    assert!(!parsed.has_errors());
}

#[test]
fn kinds_of_others_are_an_info_unless_one_of_ours_was_meant() {
    let severity = |api_version: &str, kind: &str| {
        load(&format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n")).diagnostics[0].severity
    };
    for (api_version, kind) in [("policy/v1", "PodDisruptionBudget"), ("cert-manager.io/v1", "Certificate")] {
        assert_eq!(severity(api_version, kind), Severity::Info, "{kind}");
    }
    for (api_version, kind) in [
        ("networking.istio.io/v1", "Rollout"),
        ("networking.isto.io/v1", "VirtualService"),
        ("apps/v1", "Deploymnet"),
        ("gateway.networking.k8s.io/v1", "TLSRoute"),
    ] {
        assert_eq!(severity(api_version, kind), Severity::Warning, "{kind}");
    }
}

#[test]
fn a_patch_is_recognised_by_the_name_of_its_file() {
    let text = "spec:\n  http: []\n";
    let patch = lateen_config::parse(&SourceFile::new("shift.patch.yaml", text));
    assert_eq!((patch.objects.len(), patch.has_errors()), (0, false));
    assert_eq!(patch.diagnostics[0].severity, Severity::Info);
    let other = lateen_config::parse(&SourceFile::new("shift.yaml", text));
    assert_eq!(lines(&other.diagnostics), ["LTN0010 1:1 this is not an object: it has no apiVersion and kind"]);
}

#[test]
fn the_first_of_two_equal_objects_stays() {
    let first =
        SourceFile::new("a.yaml", virtual_service("x", "hosts: [a]\ntcp:\n- route: [{destination: {host: a}}]\n"));
    let other = virtual_service("x", "hosts: [b]\ntcp:\n- route: [{destination: {host: b}}]\n");
    let second = SourceFile::new("b.yaml", other.replace("/v1\n", "/v1beta1\n"));
    let third = SourceFile::new("c.yaml", other.replace("{name: x}", "{name: x, namespace: elsewhere}"));
    let parsed = lateen_config::load(&[first, second, third]);
    assert_eq!(names(&parsed), ["VirtualService default/x", "VirtualService elsewhere/x"]);
    let Spec::VirtualService(kept) = &parsed.objects[0].spec else { panic!() };
    assert_eq!(kept.hosts, ["a"]);
    let [problem] = &parsed.diagnostics[..] else { panic!("{:?}", parsed.diagnostics) };
    assert_eq!(problem.to_string(), "b.yaml:3:18: error[LTN0014]: VirtualService default/x is there twice");
    assert_eq!(problem.label.as_deref(), Some("already defined at a.yaml:3:18"));
}

#[test]
fn the_default_namespace_is_for_kinds_with_namespaces() {
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n";
    let options = ParseOptions { default_namespace: "shop".into() };
    let parsed = parse_with(&SourceFile::new("a.yaml", text), &options);
    assert_eq!(names(&parsed), ["Service shop/a", "Node b"]);
}

#[test]
fn objects_need_no_text() {
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-31T12:00:00Z", "resourceVersion": "7"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}]},
    });
    let parsed = parse_json(&value, &ParseOptions::default());
    assert_eq!(lines(&parsed.diagnostics), Vec::<String>::new());
    let object = &parsed.objects[0];
    assert_eq!((object.kind, object.metadata.creation_timestamp), (Kind::Service, Some(1_769_860_800)));
    assert!(!object.locate("spec.ports").is_known());
    assert_eq!(object.location("spec.ports"), None);
}

#[test]
fn windows_line_ends_and_byte_order_marks_move_nothing() {
    let text = format!("\u{feff}{}", virtual_service("a", "hosts: [a]\nhtp: []\n")).replace('\n', "\r\n");
    let parsed = load(&text);
    assert_eq!(
        lines(&parsed.diagnostics),
        ["IST0106 5:3 the VirtualService has no rules", "LTN0020 6:3 unknown field `spec.htp`"]
    );
}

#[test]
fn documents_can_be_read_one_by_one() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: one}}\n- {apiVersion: x/v1, kind: Other, metadata: {name: two}}\n";
    let text = format!("# nothing\n{}---\na: [\n---\n# nothing\n---\n{list}---\nkind: Service\n", good("first"));
    let documents = parse_documents(&SourceFile::new("shop.yaml", text.as_str()), &ParseOptions::default());
    let told: Vec<(u32, Vec<String>, usize, usize)> = documents
        .iter()
        .map(|document| {
            let subjects = document.subjects.iter().map(ToString::to_string).collect();
            (document.line, subjects, document.parsed.objects.len(), document.parsed.diagnostics.len())
        })
        .collect();
    assert_eq!(
        told,
        [
            (3, vec!["VirtualService default/first".to_owned()], 1, 0),
            (12, vec![], 0, 1),
            (16, vec!["Service default/one".to_owned(), "Other two".to_owned()], 1, 1),
            (22, vec![], 0, 1),
        ]
    );
}
