//! The program as a process: exit codes, error chains, signals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command
        .env_remove("RUST_LOG")
        .arg("--manifests")
        .arg(folder)
        .args([
            "--development",
            "--listen",
            "127.0.0.1:0",
            "--status",
            "127.0.0.1:0",
        ])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn samples() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn faults_at_start_are_printed_as_a_chain_with_places_and_the_exit_code_says_so() {
    let _trace = meshwright_testkit::trace();
    let folder = samples();
    fs::write(
        folder.path().join("bad.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad}\n---\nkind: Pod\n",
    )
    .unwrap();
    let output = program(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for wanted in [
        "error: the control plane did not start: there is nothing to serve: 2 faults in the manifests",
        "bad.yaml:3:18: ",
        "bad.yaml:5:1: no `apiVersion`",
    ] {
        assert!(text.contains(wanted), "`{wanted}` in:\n{text}");
    }
}

#[test]
fn wrong_arguments_and_variables_are_named() {
    let _trace = meshwright_testkit::trace();
    let folder = samples();
    for (command, wanted) in [
        (
            program(folder.path()).args(["--poll", "1"]),
            "not a duration",
        ),
        (
            program(folder.path()).env("MESHWRIGHT_CP_POL", "1s"),
            "MESHWRIGHT_CP_POL",
        ),
        (
            program(folder.path()).args(["--trust-domain", "a/b"]),
            "--trust-domain",
        ),
    ] {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(wanted), "`{wanted}` in:\n{text}");
    }
}

#[test]
fn port_that_is_taken_is_an_error_that_names_it() {
    let _trace = meshwright_testkit::trace();
    let folder = samples();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    let output = command
        .arg("--manifests")
        .arg(folder.path())
        .args([
            "--development",
            "--status",
            "127.0.0.1:0",
            "--listen",
            &address,
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains(&format!("the server cannot listen on {address}: ")),
        "{text}"
    );
}

#[test]
fn hangup_reads_again_and_terminate_ends_with_success() {
    let _trace = meshwright_testkit::trace();
    let folder = samples();
    let mut child = program(folder.path())
        .args(["--poll", "1h", "--log", "info"])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut until = |wanted: &str| {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "the log ended before `{wanted}`"
            );
        }
        line
    };
    until("serving");
    let more = "apiVersion: meshwright.dev/v1alpha1\nkind: Workload\nmetadata: {name: late}\nspec: {addresses: [10.0.0.9]}\n";
    fs::write(folder.path().join("late.yaml"), more).unwrap();
    signal(&child, "HUP");
    assert!(until("manifests are in force").contains("addresses=6"));
    signal(&child, "TERM");
    until("stopping");
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(
        !rest.contains("grace"),
        "nobody is connected, so nothing is waited for: {rest}"
    );
}
