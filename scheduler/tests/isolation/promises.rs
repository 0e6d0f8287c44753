//! `policies --check` finds each broken promise and names it, by a plugin that breaks that one and no other.

use std::path::Path;

use super::command_line::Plugins;
use super::compile_source;

/// What the check of a plugin that does `promise` says, and its exit status.
fn checked(promise: &str, flags: &[&str]) -> String {
    let plugins = Plugins::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/promises.c");
    compile_source(
        &plugins.path("promises.so"),
        &source,
        &[&format!("-DPROMISE=\"{promise}\"")],
    );
    let arguments = [&["policies", "--check", "FOLDER/promises.so"], flags].concat();
    plugins.transcript(&arguments)
}

#[test]
fn a_policy_that_keeps_its_promises_passes() {
    let said = checked("none", &[]);
    assert!(
        said.contains("promises  keeps what every policy promises"),
        "{said}"
    );
    assert!(said.ends_with("exit status 0\n"), "{said}");
}

#[test]
fn each_broken_promise_is_found_and_named() {
    let said = [
        "silent",
        "crashes without guests",
        "crashes on one CPU",
        "crashes without a load",
        "crashes on what waits far from its memory",
        "crashes on many vCPUs",
        "hangs on many vCPUs",
        "gives up",
        "refuses its own defaults",
        "asks for a vCPU that is not there",
        "asks for a CPU that is not there",
        "moves what may not move",
        "pins to a CPU that is not allowed",
        "states a gain without a number",
        "pins again and again",
    ]
    .map(|promise| format!("# {promise}\n{}", shortened(&checked(promise, &[]))));
    insta::assert_snapshot!("each_broken_promise", said.join("\n"));
}

/// Without what is said of all hosts but the first one.
fn shortened(said: &str) -> String {
    let (broken, rest): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("promises  "));
    let first = broken.first().copied().into_iter();
    let rest = rest
        .into_iter()
        .filter(|line| line.starts_with("error: ") || line.starts_with("exit status "));
    first.chain(rest).flat_map(|line| [line, "\n"]).collect()
}

/// Which second it sees cannot be told beforehand; that two of it see different ones can.
#[test]
fn a_policy_that_reads_the_clock_is_not_deterministic() {
    let said = checked("reads the clock", &[]);
    assert!(
        said.contains("tick 1: not deterministic: on the same snapshots, one decides \"note: it is "),
        "{said}"
    );
    assert!(said.ends_with("exit status 2\n"), "{said}");
}

/// In a process of its own there is only one of its kind.
#[test]
fn a_policy_whose_instances_share_a_state_is_found_in_process() {
    let said = checked("counts for all of its kind", &["--isolation", "in-process"]);
    assert!(
        said.contains("tick 1: not deterministic: on the same snapshots, one decides \"note: decision 0\""),
        "{said}"
    );
    assert!(said.ends_with("exit status 2\n"), "{said}");
}

/// In a process of its own a policy gets a snapshot of its own, which it may spoil as it likes.
#[test]
fn a_policy_that_writes_into_the_snapshot_is_found_in_process() {
    let said = checked("writes into the snapshot", &["--isolation", "in-process"]);
    assert!(
        said.contains("one pCPU with a guest, tick 1: it writes into the snapshot"),
        "{said}"
    );
    assert!(said.ends_with("exit status 2\n"), "{said}");
}
