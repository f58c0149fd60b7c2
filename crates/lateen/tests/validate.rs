//! Does `lateen validate` say what is wrong, where, and with which exit code?

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const GOOD: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: good}
spec:
  hosts: [a]
  http:
  - route: [{destination: {host: a}}]
";

const BAD: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad, namespace: shop}
spec:
  hosts: [a]
  http:
  - match: [{uri: {prefx: /}}]
    route: [{destination: {host: a}}]
    timeout: 0s
  - route: [{destination: {host: a}}]
  - route: [{destination: {host: a}}]
";

fn validate(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lateen"))
        .arg("validate")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The entries of standard input.
fn entries(input: &str) -> (Vec<Value>, Option<i32>) {
    let output = validate(&["-o", "json", "-f", "-"], input);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_entry_tells_the_object_and_each_problem_with_its_place() {
    let (entries, exit_code) = entries(BAD);
    assert_eq!(exit_code, Some(1));
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(
        (&entry["kind"], &entry["namespace"], &entry["name"], &entry["valid"]),
        (&json!("VirtualService"), &json!("shop"), &json!("bad"), &json!(false))
    );
    let places = |problems: &Value| -> Vec<Value> {
        let of = |problem: &Value| json!([problem["code"], problem["field"], problem["line"], problem["column"]]);
        problems.as_array().unwrap().iter().map(of).collect()
    };
    assert_eq!(
        places(&entry["errors"]),
        [
            json!(["LTN0020", "spec.http[0].match[0].uri.prefx", 7, 20]),
            json!(["IST0106", "spec.http[0].timeout", 9, 14])
        ]
    );
    assert_eq!(places(&entry["warnings"]), [json!(["IST0130", "spec.http[2]", 11, 5])]);
    assert_eq!(entry["errors"][1]["message"], "`spec.http[0].timeout` must be at least 1ms");
    assert_eq!(entry["errors"][1]["file"], "<stdin>");
}

#[test]
fn each_document_has_an_entry_whatever_is_wrong_with_it() {
    let list = "apiVersion: v1\nkind: List\nitems:\n\
                - {apiVersion: v1, kind: Service, metadata: {name: one}, spec: {ports: [{port: 80}]}}\n\
                - {apiVersion: v1, kind: Service, metadata: {name: two}, spec: {ports: [{port: x}]}}\n";
    let foreign = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: other}\n";
    let input =
        format!("# a comment\n---\n{GOOD}---\nnot: [yaml\n---\njust text\n---\n{list}---\n{foreign}---\n{GOOD}");
    let (entries, exit_code) = entries(&input);
    assert_eq!(exit_code, Some(1));
    let told: Vec<Value> = entries.iter().map(|entry| json!([entry["kind"], entry["name"], entry["valid"]])).collect();
    assert_eq!(
        told,
        [
            json!(["VirtualService", "good", true]),
            json!([null, null, false]),
            json!([null, null, false]),
            json!(["Service", "one", true]),
            json!(["Service", "two", false]),
            json!(["HTTPRoute", "other", true]),
            json!(["VirtualService", "good", false]),
        ]
    );
    assert_eq!(entries[1]["errors"][0]["code"], "LTN0001");
    assert_eq!(entries[5]["warnings"][0]["code"], "LTN0011");
    assert_eq!(entries[6]["errors"][0]["code"], "LTN0014", "the second of the same name");
}

#[test]
fn json_is_read_like_yaml() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"host": "a", "trafficPolicy": {}},
    });
    let (entries, exit_code) = entries(&object.to_string());
    assert_eq!((exit_code, &entries[0]["errors"][0]["field"]), (Some(1), &json!("spec.trafficPolicy")));
}

#[test]
fn values_of_patches_are_read_as_envoy_would() {
    let filter = |patch: &str| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: a}}\nspec:\n  configPatches:\n  - {patch}\n"
        )
    };
    let of = |patch: &str| entries(&filter(patch)).0.remove(0);
    let right = of("{applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 3s, lb_policy: RANDOM}}}");
    assert_eq!(right["valid"], true);
    assert_eq!(right["warnings"].as_array().unwrap().len(), 1, "that it is an EnvoyFilter: {right}");
    let wrong = of("{applyTo: CLUSTER, patch: {operation: MERGE, value: {connectTimeout: soon}}}");
    assert_eq!(wrong["errors"][0]["field"], "spec.configPatches[0].patch.value.connect_timeout");
    let unknown = of("{applyTo: CLUSTER, patch: {operation: MERGE, value: {conect_timeout: 3s}}}");
    assert_eq!(unknown["valid"], true);
    assert!(unknown["warnings"][1]["message"].as_str().unwrap().contains("has no such field"), "{unknown}");
}

#[test]
fn ports_of_services_tell_their_protocol() {
    let service = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: {namespace}}}\nspec:\n  ports:\n  - {{name: http-web, port: 80}}\n  - {{name: web, port: 81}}\n"
        )
    };
    let (found, exit_code) = entries(&service("shop"));
    assert_eq!((exit_code, found[0]["warnings"].as_array().map(Vec::len)), (Some(0), Some(1)));
    let warning = &found[0]["warnings"][0];
    assert_eq!((&warning["code"], &warning["field"]), (&json!("IST0118"), &json!("spec.ports[1]")));
    assert_eq!(entries(&service("istio-system")).0[0]["warnings"], json!([]));
}

#[test]
fn kinds_that_are_not_looked_into_are_said_to_be() {
    let input = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rulez: []}\n";
    let (found, exit_code) = entries(input);
    assert_eq!(
        (exit_code, &found[0]["valid"], &found[0]["warnings"][0]["code"]),
        (Some(0), &json!(true), &json!("LTN0015"))
    );
}

#[test]
fn settings_of_the_mesh_are_checked_where_they_are_written() {
    let input = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n    proxyListenPort: 0\n";
    let (entries, exit_code) = entries(input);
    assert_eq!(exit_code, Some(1));
    assert_eq!((&entries[0]["errors"][0]["line"], &entries[0]["errors"][0]["column"]), (&json!(7), &json!(22)));
}

#[test]
fn for_people_problems_come_first_and_the_result_last() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let path = folder.path().to_str().unwrap();
    let output = validate(&["-f", path], "");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("1 object in 1 file: valid\n".into(), String::new()));
    assert_eq!(output.status.code(), Some(0));
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let output = validate(&["-f", path], "");
    assert_eq!(text(&output.stdout), "2 objects in 2 files: 2 errors, 1 warning\n");
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("error[LTN0020]: unknown field `spec.http[0].match[0].uri.prefx`\n"), "{errors}");
    assert!(errors.contains("bad.yaml:7:20\n"), "{errors}");
    assert!(errors.contains("did you mean `prefix`?"), "{errors}");
    assert!(!errors.contains('\x1b'), "{errors:?}");
}

#[test]
fn warnings_do_not_make_it_invalid() {
    let output = validate(&["-f", "-"], &format!("{GOOD}  - route: [{{destination: {{host: a}}}}]\n"));
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("1 object in 1 file: valid, 1 warning\n".into(), Some(0))
    );
    assert!(text(&output.stderr).starts_with("warning[IST0130]"));
}

#[test]
fn objects_without_a_namespace_are_in_the_one_that_is_given() {
    let output = validate(&["-n", "shop", "-o", "json", "-f", "-"], GOOD);
    let entries: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(entries[0]["namespace"], "shop");
}

#[test]
fn what_cannot_be_read_is_no_verdict() {
    for arguments in [&["-f", "/nowhere/at/all.yaml"][..], &[], &["-f", "-", "-o", "xml"]] {
        let output = validate(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).starts_with("error"), "{arguments:?}");
    }
    let output = validate(&["-f", "/nowhere/at/all.yaml"], "");
    assert!(text(&output.stderr).contains("cannot read /nowhere/at/all.yaml"));
}

#[test]
fn the_examples_are_valid() {
    let examples: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let output = validate(&["-f", examples.to_str().unwrap()], "");
    let result = text(&output.stdout);
    assert!(result.ends_with(": valid\n"), "{result}{}", text(&output.stderr));
}

#[test]
fn the_page_of_the_guide_shows_what_is_printed() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(project.join("docs/guide/validate.md")).unwrap();
    let block = |fence: &str| {
        let (_, rest) = page.split_once(&format!("\n\n```{fence}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("shop")).unwrap();
    for file in ["gateway.yaml", "routes.yaml", "services.yaml"] {
        let yaml = fs::read_to_string(project.join("examples/first-steps").join(file)).unwrap();
        fs::write(folder.path().join("shop").join(file), yaml.replace("{exact: /hello}", "{prefx: /hello}")).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
        command.args(["validate", "-f", "shop"]).args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let output = run(&[]);
    assert_eq!(text(&output.stderr) + &text(&output.stdout), block(""));
    let entries: Vec<Value> = serde_json::from_slice(&run(&["-o", "json"]).stdout).unwrap();
    let shown: Value = serde_json::from_str(&block("json")).unwrap();
    assert!(entries.contains(&shown), "{entries:#?}");
}

#[test]
fn a_folder_without_files_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), GOOD).unwrap();
    let output = validate(&["-f", folder.path().to_str().unwrap()], "");
    assert_eq!(text(&output.stdout), "0 objects in 0 files: valid\n");
    assert!(text(&output.stderr).contains("there is no file to read"), "{}", text(&output.stderr));
}

#[test]
fn infos_are_shown_and_not_counted_as_warnings() {
    let foreign = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: a}\n";
    let output = validate(&["-f", "-"], foreign);
    assert_eq!(text(&output.stdout), "1 object in 1 file: valid\n");
    assert!(text(&output.stderr).starts_with("info[LTN0011]"), "{}", text(&output.stderr));
}
