//! Does `lateen demo` begin and end as a program should?

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn demo(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lateen"))
        .args(["demo", "--port", "0", "--folder"])
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The end of what it says, once it has ended; without colour codes, for nobody has a terminal here.
fn farewell(mut child: Child, mut output: BufReader<std::process::ChildStdout>) -> String {
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(status.success(), "{status}\n{rest}\n{errors}");
    assert_eq!(errors, "");
    assert!(!rest.contains('\x1b'), "{rest:?}");
    rest.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn without_a_terminal_it_prints_lines_until_it_is_told_to_end() {
    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = demo(folder.path(), &[]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("req/s") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended too early");
        }
        assert!(line.contains("errors 0"), "{line}");
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let farewell = farewell(child, output);
        assert!(farewell.contains("errors 0. Your files stay in"), "{farewell}");
        assert!(folder.path().join("routes.yaml").is_file());
    }
}

#[test]
fn it_ends_by_itself_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path(), &["--plain", "--duration", "500ms"]);
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(farewell(child, output).contains("requests in"));
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path(), &["--plain"]);
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
