//! The real binary, as a user or a script meets it: what it prints, and its exit status.

mod bad_input;
mod configuration;
mod documentation;
mod scenarios;
mod state_folder;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the workspace, where the tests' data lies and where commands are run.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in a workspace")
        .to_owned()
}

/// The binary, run in the root, in an environment that decides nothing.
fn binary() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"));
    command
        .current_dir(root())
        .env_remove("RUST_LOG")
        .env_remove("LIBVIRT_DEFAULT_URI")
        .env("NO_COLOR", "1");
    command
}

fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// What a user sees of a command: how it ended, and both streams.
fn transcript(arguments: &[&str]) -> String {
    let output = run(arguments);
    let status = output
        .status
        .code()
        .map_or_else(|| "killed".to_owned(), |code| code.to_string());
    format!(
        "$ vcpu-scheduler {}\n{}{}exit status {status}\n",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    )
}

#[test]
fn every_subcommand_explains_itself() {
    for command in ["run", "simulate", "snapshot", "decide", "policies", "check"] {
        let output = run(&[command, "--help"]);
        assert!(
            output.status.success() && text(&output.stdout).contains("Usage:"),
            "{command}"
        );
    }
    insta::assert_snapshot!("help", transcript(&["--help"]));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut simulate = binary()
        .args([
            "simulate",
            "testdata/scenarios/classic-1-all-on-one.yaml",
            "--ticks",
            "5000",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(simulate.stdout.take());
    let output = simulate.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}
