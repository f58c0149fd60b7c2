//! Does `lateen explain` answer as its guide says, for people and for programs?

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn explain(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lateen")).arg("explain").args(arguments).current_dir(folder).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder `shop` as the guide has it: the first steps, with other routes.
fn shop(routes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().join("shop");
    fs::create_dir(&shop).unwrap();
    for file in ["gateway.yaml", "services.yaml"] {
        fs::copy(project().join("examples/first-steps").join(file), shop.join(file)).unwrap();
    }
    fs::write(shop.join("routes.yaml"), routes).unwrap();
    folder
}

/// The fenced blocks of a page in order: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The words of a command; single quotes hold words together.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in command.trim().chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

#[test]
fn the_guide_shows_what_the_command_prints() {
    let page = fs::read_to_string(project().join("docs/guide/explain.md")).unwrap();
    let blocks = blocks(&page);
    let yaml: Vec<&str> =
        blocks.iter().filter(|(language, _)| language == "yaml").map(|(_, text)| text.as_str()).collect();
    let folder = shop(&yaml.join("---\n"));
    let mut shown = 0;
    for (index, (language, command)) in blocks.iter().enumerate() {
        if language != "sh" {
            continue;
        }
        let words = words(command);
        assert_eq!(words[..2], ["lateen", "explain"], "{command}");
        let arguments: Vec<&str> = words[2..].iter().map(String::as_str).collect();
        let output = explain(folder.path(), &arguments);
        assert_eq!(complaint(&output), "", "{command}");
        let printed = text(&output);
        assert!(!printed.contains('\u{1b}'), "colours without a terminal");
        let Some((_, expected)) = blocks.get(index + 1).filter(|(language, _)| language == "text") else { continue };
        shown += 1;
        // The page leaves lines out, and keeps the order of the others.
        let mut lines = printed.lines();
        for line in expected.lines() {
            assert!(lines.any(|printed| printed == line), "{command}prints no line\n{line}\nthere, but\n{printed}");
        }
    }
    assert!(shown >= 4);
}

const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example]
  gateways: [door, mesh]
  http:
  - match: [{uri: {exact: /no}}]
    directResponse: {status: 403}
  - match: [{uri: {prefix: /list}}]
    timeout: 3s
    route: [{destination: {host: catalogue}}]
";

#[test]
fn json_has_the_way_and_the_reasons() {
    let folder = shop(ROUTES);
    let output = explain(folder.path(), &["-f", "shop", "-o", "json", "GET", "http://shop.example:8080/list?q"]);
    assert_eq!(output.status.code(), Some(0));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["listener"], "0.0.0.0_8080");
    assert_eq!(answer["route_config"], "http.8080");
    assert_eq!(answer["virtual_host"], "shop.example:8080");
    let endpoint =
        |address| json!({"address": address, "health": "healthy", "locality": "", "priority": 0, "weight": 1});
    assert_eq!(answer["clusters"][0]["name"], "outbound|9000||catalogue.default.svc.cluster.local");
    assert_eq!(answer["clusters"][0]["endpoints"], json!([endpoint("127.0.0.1:9001"), endpoint("127.0.0.1:9002")]));
    assert_eq!(answer["policies"]["timeout"], "3s");
    let rule = |rule: &str, line: u32| {
        json!({
            "kind": "VirtualService", "namespace": "default", "name": "shop", "rule": rule,
            "file": "shop/routes.yaml", "line": line,
        })
    };
    assert_eq!(answer["origin"], rule("http[1].match[0]", 10));
    assert_eq!(
        answer["tried"],
        json!([{"origin": rule("http[0].match[0]", 8), "reason": "path `/list` is not exactly `/no`"}])
    );
    assert_eq!(answer["error"], Value::Null);
}

#[test]
fn the_exit_code_says_whether_there_is_an_answer() {
    let folder = shop(ROUTES);
    for (arguments, code, part) in [
        (&["-f", "shop", "http://shop.example:8080/list"][..], 0, "catalogue"),
        (&["-f", "shop", "http://shop.example:8080/no"], 0, "403 without a body, answered by the proxy itself"),
        (&["-f", "shop", "http://shop.example:8080/"], 1, "(no-route): 404"),
        (&["-f", "shop", "http://localhost:8080/", "-H", "host: SHOP.example"], 1, "(no-route): 404"),
        (&["-f", "shop", "http://shop.example:8081/"], 1, "(no-listener)"),
        (&["-f", "shop", "--as", "gateway", "--address", "10.0.0.1", "tcp://x:1"], 1, "nothing listens on 10.0.0.1:1"),
        (&["-f", "shop", "http://other.example:8080/"], 1, "(no-virtual-host): 404"),
        (&["-f", "shop", "tcp://10.0.0.1:3306"], 0, "PassthroughCluster"),
        (&["-f", "shop", "--protocol", "tcp", "CONNECT", "tcp://10.0.0.1:3306"], 0, "PassthroughCluster"),
    ] {
        let output = explain(folder.path(), arguments);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{printed}");
        assert!(printed.contains(part), "{arguments:?} prints no `{part}`:\n{printed}");
    }
}

#[test]
fn questions_that_cannot_be_asked_are_refused() {
    let folder = shop(ROUTES);
    for (arguments, part) in [
        (&["-f", "shop"][..], "METHOD URL"),
        (&["-f", "shop", "ftp://a/"], "use http://"),
        (&["-f", "shop", "tcp://a"], "it has no port"),
        (&["-f", "shop", "http://:80/"], "it has no host"),
        (&["-f", "shop", "GET", "http://a:b/"], "`b` is no port"),
        (&["-f", "shop", "http://a/", "GET"], "is no method"),
        (&["-f", "shop", "GET"], "`GET` is a method; the URL is missing"),
        (&["-f", "shop", "http://a/", "-H", "nothing"], "expected NAME: VALUE"),
    ] {
        let output = explain(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(complaint(&output).contains(part), "{arguments:?}: {}", complaint(&output));
        assert_eq!(text(&output), "");
    }
}

#[test]
fn method_and_url_can_be_one_word() {
    let folder = shop(ROUTES);
    let together = explain(folder.path(), &["-f", "shop", "HEAD http://shop.example/"]);
    let apart = explain(folder.path(), &["-f", "shop", "HEAD", "http://shop.example/"]);
    assert!(text(&apart).starts_with("HEAD http://shop.example/\n"), "{}", text(&apart));
    assert_eq!(text(&together), text(&apart));
}

#[test]
fn broken_objects_are_said_and_left_out() {
    let folder = shop(&ROUTES.replace("hosts: [shop.example]", "hosts: 7"));
    let output = explain(folder.path(), &["-f", "shop", "http://shop.example:8080/list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("shop/routes.yaml:5"), "{}", complaint(&output));
    assert!(text(&output).contains("no VirtualService is bound to the Gateways of this port"), "{}", text(&output));
}

#[test]
fn the_mesh_configuration_can_be_a_file() {
    let folder = shop(ROUTES);
    fs::write(folder.path().join("mesh.yaml"), "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").unwrap();
    let ask = |rest: &[&str]| {
        let arguments = [&["-f", "shop", "http://elsewhere.example:9000/"], rest].concat();
        text(&explain(folder.path(), &[&["--as", "sidecar"], arguments.as_slice()].concat()))
    };
    assert!(ask(&[]).contains("→ PassthroughCluster"), "{}", ask(&[]));
    let answer = ask(&["--mesh-config", "mesh.yaml"]);
    assert!(answer.contains("→ 502 without a body, answered by the proxy itself"), "{answer}");
    assert!(answer.contains("REGISTRY_ONLY"), "{answer}");
}

#[test]
fn labels_of_the_workload_count() {
    let routes = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalogue, namespace: default}
spec:
  hosts: [catalogue]
  http:
  - match: [{sourceLabels: {app: web}}]
    route: [{destination: {host: catalogue, port: {number: 9000}}}]
  - match: [{sourceNamespace: default}]
    directResponse: {status: 429}
";
    let folder = shop(routes);
    let ask = |rest: &[&str]| {
        let arguments = [&["-f", "shop", "-o", "json", "http://catalogue.default:9000/"], rest].concat();
        let answer: Value = serde_json::from_slice(&explain(folder.path(), &arguments).stdout).unwrap();
        answer["origin"]["rule"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(&["--label", "app=web"]), "http[0].match[0]");
    assert_eq!(ask(&[]), "http[1].match[0]");
}

#[test]
fn what_arrives_comes_to_a_workload_behind_the_service() {
    let folder = shop(ROUTES);
    let ask = |rest: &[&str]| -> Value {
        let arguments =
            [&["-f", "shop", "--direction", "inbound", "-o", "json", "http://catalogue:9000/"], rest].concat();
        serde_json::from_slice(&explain(folder.path(), &arguments).stdout).unwrap()
    };
    for (rest, port) in [(&[][..], 9001), (&["--label", "version=v2"], 9002), (&["--tls", "mtls"], 9001)] {
        let answer = ask(rest);
        assert_eq!(answer["listener"], "virtualInbound");
        assert_eq!(answer["filter_chain"], format!("0.0.0.0_{port}"));
        assert_eq!(answer["virtual_host"], "inbound|http|9000");
        assert_eq!(answer["clusters"][0]["name"], format!("inbound|{port}||"));
    }
    // The port is declared as HTTP, and a handshake without a protocol of the mesh is none of its chains'.
    assert_eq!(ask(&["--tls", "tls"])["error"], "no-filter-chain");
}
