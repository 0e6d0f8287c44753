//! Bad input: each mistake gets one clear paragraph and the right exit status.

use std::io::Write;

use super::{root, text, transcript};

/// The transcript of a command that fails.
fn check(name: &str, arguments: &[&str]) {
    let transcript = transcript(arguments);
    assert!(
        !transcript.contains("exit status 0") && !transcript.contains("panicked"),
        "{transcript}"
    );
    insta::assert_snapshot!(name, transcript);
}

/// The same for a file with this content, which the command is given as FILE.
fn check_file(name: &str, content: impl AsRef<[u8]>, arguments: &[&str]) {
    let folder = tempfile::tempdir_in(root().join("target")).expect("a folder");
    let path = folder.path().join("FILE");
    std::fs::write(&path, content).expect("written");
    let path = path.to_str().expect("a path of ASCII");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|&argument| if argument == "FILE" { path } else { argument })
        .collect();
    let transcript = transcript(&arguments).replace(path, "FILE");
    assert!(
        !transcript.contains("exit status 0") && !transcript.contains("panicked"),
        "{transcript}"
    );
    insta::assert_snapshot!(name, transcript);
}

const SCENARIO: &str = "testdata/scenarios/classic-1-all-on-one.yaml";

#[test]
fn policies_and_options() {
    check("unknown_policy", &["simulate", SCENARIO, "-p", "stdev"]);
    check("unknown_policy_far_from_any", &["run", "-p", "fair-share"]);
    check("unknown_option", &["simulate", SCENARIO, "-o", "treshold=5"]);
    check(
        "option_of_wrong_type",
        &["simulate", SCENARIO, "-o", "threshold=much"],
    );
    check(
        "option_out_of_range",
        &["simulate", SCENARIO, "-o", "threshold=-1"],
    );
    check("option_without_value", &["simulate", SCENARIO, "-o", "threshold"]);
    check(
        "option_that_the_policy_has_not",
        &["simulate", SCENARIO, "-p", "observe", "-o", "threshold=5"],
    );
}

#[test]
fn flags() {
    check("unknown_flag", &["run", "--intervall", "5s"]);
    check("interval_without_unit", &["run", "--interval", "5"]);
    check("interval_too_short", &["run", "--interval", "1ms"]);
    check("no_ticks", &["simulate", SCENARIO, "--ticks", "0"]);
}

#[test]
fn files() {
    check("scenario_that_is_not_there", &["simulate", "nowhere.yaml"]);
    check("snapshot_that_is_not_there", &["decide", "nowhere.yaml"]);
    check("folder_instead_of_a_file", &["decide", "testdata"]);
    check_file("empty_scenario", "", &["simulate", "FILE"]);
    check_file(
        "scenario_typo",
        "name: x\nhost: {cpus: 2}\ndomains:\n  - name: vm\n    laod: 20\n",
        &["simulate", "FILE"],
    );
    check_file(
        "scenario_cpu_beyond_host",
        "name: x\nhost: {cpus: 2}\ndomains:\n  - name: vm\n    load: 20\n    pin: \"5\"\n",
        &["simulate", "FILE"],
    );
    check_file(
        "snapshot_bad_load",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus:\n      - {cpu: 0, load: lots}\n",
        &["decide", "FILE"],
    );
    check_file(
        "snapshot_cpu_beyond_host",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus:\n      - {cpu: 7, load: 1}\n",
        &["decide", "FILE"],
    );
    check_file("scenario_of_one_word", "night\n", &["simulate", "FILE"]);
    check_file("scenario_that_is_no_text", b"name: \xff\n", &["simulate", "FILE"]);
    check_file(
        "snapshot_that_is_no_text",
        b"interval: 5s\0\xc3",
        &["decide", "FILE"],
    );
    check_file("snapshot_with_a_zero", "interval: 5s\0", &["decide", "FILE"]);
    check_file(
        "snapshot_bad_yaml",
        "interval: 5s\ntopology: [\n",
        &["decide", "FILE"],
    );
}

/// libvirt's own words differ from version to version; ours and the status do not.
#[test]
fn libvirt_that_cannot_be_reached() {
    let uri = "qemu+unix:///session?socket=/nonexistent/libvirt-sock";
    for command in [
        &["run"][..],
        &["run", "--dry-run"],
        &["run", "--once"],
        &["snapshot"],
    ] {
        let transcript = transcript(&[&["-q"], command, &["-c", uri]].concat());
        assert!(
            transcript.contains(&format!("\nerror: cannot connect to {uri}: ")),
            "{transcript}"
        );
        assert!(
            transcript.contains("/nonexistent/libvirt-sock'") && transcript.ends_with("exit status 1\n"),
            "{transcript}"
        );
        assert_eq!(transcript.lines().count(), 3, "one paragraph: {transcript}");
    }
}

#[test]
fn a_bad_log_filter_is_named() {
    let output = super::binary()
        .env("RUST_LOG", "a=b=c")
        .args(["decide", "-"])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("RUST_LOG is \"a=b=c\""),
        "{}",
        text(&output.stderr)
    );
    let output = super::binary()
        .env("RUST_LOG", "a=loud")
        .args(["decide", "-"])
        .output()
        .expect("the binary starts");
    let said = text(&output.stderr);
    assert_eq!(said.matches("error parsing level filter").count(), 1, "{said}");
}

#[test]
fn a_snapshot_may_come_from_standard_input() {
    let mut decide = super::binary()
        .args(["decide", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = decide.stdin.take().expect("piped");
    input
        .write_all(b"interval: 5s\ntopology: {cpus: 2}\ndomains: nobody\n")
        .expect("written");
    drop(input);
    let output = decide.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("standard input"),
        "{}",
        text(&output.stderr)
    );
}

/// The variable is a default for a connection, so it must not get in the way where there is none.
#[test]
fn a_set_uri_does_not_get_in_the_way_of_a_scenario() {
    for uri in ["", "test:///default", "not a URI"] {
        let output = super::binary()
            .env("LIBVIRT_DEFAULT_URI", uri)
            .args(["snapshot", "--scenario", SCENARIO, "--tick", "2"])
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("tick: 2"));
    }
}

/// A scenario has no connection, and an interval of its own: a flag that would do nothing is refused.
#[test]
fn what_is_about_a_live_host_is_refused_beside_a_scenario() {
    for flag in [&["--connect", "test:///default"][..], &["--interval", "2s"]] {
        let output = super::run(&[&["snapshot", "--scenario", SCENARIO], flag].concat());
        assert_eq!(output.status.code(), Some(2), "{flag:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("cannot be used with") && said.contains(flag[0]),
            "{said}"
        );
    }
}

#[test]
fn a_log_that_nobody_can_take_ends_nothing() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full is there");
    let status = super::binary()
        .args([
            "run",
            "--dry-run",
            "--once",
            "--interval",
            "100ms",
            "-c",
            "test:///default",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(full)
        .status()
        .expect("the binary starts");
    assert!(status.success(), "{status}");
}
