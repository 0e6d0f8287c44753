//! Plugins as an operator meets them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{compile, folder};

const SCENARIO: &str = "testdata/scenarios/classic-1-all-on-one.yaml";

/// A folder with plugins, shown as FOLDER.
pub(super) struct Plugins(tempfile::TempDir);

impl Plugins {
    pub(super) fn new() -> Self {
        let plugins = Self(folder());
        compile(&plugins.path("faulty.so"), "even", "abort");
        let snapshot = "interval: 1s\ntick: 2\ntopology: {cpus: 2}\ndomains: []\n";
        std::fs::write(plugins.path("tick-two.yaml"), snapshot).expect("written");
        plugins
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("there").join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let arguments = arguments
            .iter()
            .map(|&argument| match argument.strip_prefix("FOLDER") {
                Some(rest) => self.path(rest.trim_start_matches('/')).into_os_string(),
                None => argument.into(),
            });
        Command::new(assert_cmd::cargo::cargo_bin!("vcpu-scheduler"))
            .current_dir(root)
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .args(arguments)
            .output()
            .expect("the binary starts")
    }

    /// What a user sees: both streams without the times of log lines, and the exit status.
    pub(super) fn transcript(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let folder = self.path("");
        let folder = folder.to_str().expect("ASCII").trim_end_matches('/');
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("UTF-8").replace(folder, "FOLDER");
        let lines = said.lines().map(|line| match line.split_once("Z ") {
            Some((time, rest)) if time.starts_with(|c: char| c.is_ascii_digit()) => rest.trim_start(),
            _ => line,
        });
        let said = lines.chain([""]).collect::<Vec<_>>().join("\n");
        let status = output
            .status
            .code()
            .map_or_else(|| "killed".to_owned(), |code| code.to_string());
        format!(
            "$ vcpu-scheduler {}\n{said}exit status {status}\n",
            arguments.join(" ")
        )
    }
}

fn check(name: &str, plugins: &Plugins, arguments: &[&str]) {
    insta::assert_snapshot!(name, plugins.transcript(arguments));
}

#[test]
fn policies_are_listed_with_those_of_plugins() {
    let plugins = Plugins::new();
    check("policies", &plugins, &["policies"]);
    check(
        "policies_of_a_plugin",
        &plugins,
        &["policies", "--plugin", "FOLDER/faulty.so"],
    );
    check(
        "policies_as_json",
        &plugins,
        &["policies", "--plugin", "FOLDER/faulty.so", "--format", "json"],
    );
    let folder = plugins.transcript(&["policies", "--plugin-dir", "FOLDER"]);
    let file = plugins.transcript(&[
        "policies",
        "--plugin",
        "FOLDER/faulty.so",
        "--plugin-dir",
        "FOLDER",
    ]);
    assert_eq!(
        folder.lines().skip(1).collect::<Vec<_>>(),
        file.lines().skip(1).collect::<Vec<_>>()
    );
}

#[test]
fn a_plugin_that_fails_now_and_then_costs_ticks_and_not_the_run() {
    let plugins = Plugins::new();
    let arguments = [
        "simulate",
        SCENARIO,
        "--ticks",
        "4",
        "-p",
        "faulty",
        "--plugin",
        "FOLDER/faulty.so",
    ];
    check("simulate_a_plugin_that_aborts", &plugins, &arguments);
    check(
        "decide_with_a_plugin_that_aborts",
        &plugins,
        &[
            "decide",
            "FOLDER/tick-two.yaml",
            "-p",
            "faulty",
            "--plugin",
            "FOLDER/faulty.so",
        ],
    );
}

/// The same file in both ways: what differs is what a fault costs.
#[test]
fn in_process_is_there_for_those_who_ask_for_it() {
    let plugins = Plugins::new();
    compile(&plugins.path("faulty.so"), "never", "");
    let common = [
        "simulate",
        SCENARIO,
        "--ticks",
        "2",
        "-p",
        "faulty",
        "--plugin",
        "FOLDER/faulty.so",
    ];
    let isolated = plugins.run(&common);
    let in_process = plugins.run(&[&common[..], &["--isolation", "in-process"]].concat());
    assert!(isolated.status.success(), "{isolated:?}");
    assert_eq!(isolated.stdout, in_process.stdout);
    let help = plugins.transcript(&["run", "--help"]);
    assert!(help.contains("nothing can be contained"), "{help}");
}

#[test]
fn mistakes_are_named() {
    let plugins = Plugins::new();
    std::fs::copy(plugins.path("faulty.so"), plugins.path("other.so")).expect("copied");
    check(
        "two_plugins_with_a_policy_of_one_name",
        &plugins,
        &["policies", "--plugin-dir", "FOLDER"],
    );
    check(
        "a_policy_of_no_plugin",
        &plugins,
        &[
            "simulate",
            SCENARIO,
            "-p",
            "fautly",
            "--plugin",
            "FOLDER/faulty.so",
        ],
    );
    check(
        "an_option_that_the_plugin_has_not",
        &plugins,
        &[
            "simulate",
            SCENARIO,
            "-p",
            "faulty",
            "-o",
            "limt=1",
            "--plugin",
            "FOLDER/faulty.so",
        ],
    );
    check(
        "an_option_that_the_plugin_refuses",
        &plugins,
        &[
            "simulate",
            SCENARIO,
            "-p",
            "faulty",
            "-o",
            "limit=-1",
            "--plugin",
            "FOLDER/faulty.so",
        ],
    );
    check(
        "a_plugin_that_is_not_used",
        &plugins,
        &[
            "simulate",
            SCENARIO,
            "--ticks",
            "1",
            "--plugin",
            "FOLDER/faulty.so",
        ],
    );
    // Not said where one of several policies that are asked for is the plugin's.
    let several = [
        "decide",
        "FOLDER/tick-two.yaml",
        "--plugin",
        "FOLDER/faulty.so",
        "-p",
        "observe",
        "-p",
        "faulty",
    ];
    let said = plugins.transcript(&several);
    assert!(!said.contains("not used"), "{said}");
    check(
        "a_plugin_that_is_not_there",
        &plugins,
        &["policies", "--plugin", "FOLDER/none.so"],
    );
    check(
        "a_fallback_that_is_not_there",
        &plugins,
        &["simulate", SCENARIO, "--fallback", "faulty"],
    );
    check(
        "a_deadline_without_unit",
        &plugins,
        &["simulate", SCENARIO, "--deadline", "5"],
    );
    std::fs::write(plugins.path("text.so"), "no library\n").expect("written");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(plugins.path("text.so"), permissions).expect("permitted");
    check(
        "a_plugin_that_is_no_library",
        &plugins,
        &["policies", "--plugin", "FOLDER/text.so"],
    );
    compile(&plugins.path("other.so"), "load", "abort");
    check(
        "a_plugin_whose_constructor_aborts",
        &plugins,
        &["policies", "--plugin", "FOLDER/other.so"],
    );
}
