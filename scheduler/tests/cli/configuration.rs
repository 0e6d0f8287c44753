//! The configuration, as an operator meets it: flags, file, documentation and schema say the same.

use std::collections::BTreeSet;

use clap::CommandFactory;
use serde_json::Value;
use vcpu_scheduler::cli::Cli;
use vcpu_scheduler::config::{KEYS, Key, TakesHold, Unsaid, schema};

use super::{binary, root, run, text, transcript};

fn page() -> String {
    std::fs::read_to_string(root().join("docs/configuration.md")).expect("the page is there")
}

/// The complete example of the page.
fn example() -> String {
    let page = page();
    let block = page.split("```yaml\n").nth(1).expect("an example");
    block.split("```").next().unwrap_or_default().to_owned()
}

fn unsaid(key: &Key) -> &'static str {
    let (Unsaid::Value(unsaid) | Unsaid::Rule(unsaid)) = key.unsaid;
    unsaid
}

/// The row of the page's table that says what the program's table says.
fn row(key: &Key) -> String {
    let flag = key
        .flag
        .map_or_else(|| "none".to_owned(), |flag| format!("`--{flag}`"));
    let default = match key.unsaid {
        Unsaid::Value(value) => format!("`{value}`"),
        Unsaid::Rule(rule) => rule.to_owned(),
    };
    let takes = match key.takes_hold {
        TakesHold::AtReload => "reload",
        TakesHold::AtRestart => "restart",
    };
    format!(
        "| `{}` | {flag} | {default} | {} | {} | {takes} |",
        key.path,
        (key.expected)(),
        key.meaning
    )
}

#[test]
fn the_page_documents_every_key_as_the_program_has_it() {
    let page = page();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.ends_with("load |") || line.ends_with("restart |"))
        .collect();
    let expected: Vec<String> = KEYS.iter().map(row).collect();
    assert!(
        rows == expected,
        "the table of docs/configuration.md is to be\n{}",
        expected.join("\n")
    );
}

#[test]
fn the_page_says_what_each_word_means() {
    let page = page();
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("a subcommand");
    let mut words = 0;
    for key in KEYS {
        let flag = run
            .get_arguments()
            .find(|flag| flag.get_long() == key.flag && key.flag.is_some());
        for word in flag.map(clap::Arg::get_possible_values).unwrap_or_default() {
            let help = word.get_help().expect("a meaning").to_string();
            let row = format!("| `{}` | `{}` | {help} |", key.path, word.get_name());
            assert!(
                page.lines().any(|line| line == row),
                "docs/configuration.md lacks\n{row}"
            );
            words += 1;
        }
    }
    assert_eq!(words, 10);
}

/// `run` has a flag for each key that can have one, with the key's meaning and default in its help; and `check` has them
/// all too.
#[test]
fn flags_say_what_the_file_says() {
    let cli = Cli::command();
    let of = |name: &str| cli.find_subcommand(name).expect("a subcommand").clone();
    let of_the_daemon_alone = ["once", "dry-run"];
    let of_check_alone = ["schema"];
    for (command, others) in [("run", &of_the_daemon_alone[..]), ("check", &of_check_alone)] {
        let command = of(command);
        let flags: BTreeSet<&str> = command
            .get_arguments()
            .filter_map(|flag| flag.get_long())
            .collect();
        let mut expected: BTreeSet<&str> = KEYS.iter().filter_map(|key| key.flag).collect();
        expected.extend(others.iter().chain(&["config"]));
        assert_eq!(flags, expected);
    }
    for key in KEYS {
        let Some(name) = key.flag else { continue };
        let run = of("run");
        let flag = run
            .get_arguments()
            .find(|flag| flag.get_long() == Some(name))
            .expect(name);
        let help = flag.get_help().expect(name).to_string();
        // An option is written otherwise on the command line.
        if name != "option" {
            assert!(help.starts_with(key.meaning), "--{name}: {help}");
            let default = format!("[default: {}]", unsaid(key));
            assert_eq!(
                help.contains(&default),
                !["[]", "{}"].contains(&unsaid(key)),
                "--{name}: {help}"
            );
        }
        assert!(
            flag.get_default_values().is_empty(),
            "--{name} would win over every file"
        );
    }
}

/// Only `domains`, and what lies within lists, has no flag.
#[test]
fn few_keys_are_for_the_file_alone() {
    let alone: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.flag.is_none())
        .map(|key| key.path)
        .collect();
    assert_eq!(alone, ["domains"]);
}

#[test]
fn the_schema_says_what_the_reader_says() {
    let schema = schema();
    for key in KEYS {
        let at = key
            .path
            .split('.')
            .fold(&schema, |schema, name| &schema["properties"][name]);
        assert!(
            at["description"]
                .as_str()
                .is_some_and(|text| text.starts_with(key.meaning)),
            "{}",
            key.path
        );
        if let Unsaid::Value(value) = key.unsaid {
            let value: Value = vcpu_policy_api::yaml::read(value).expect("a value");
            assert_eq!(at["default"], value, "{}", key.path);
            assert_eq!(faults(at, &value, key.path), [""; 0]);
        }
    }
    let printed = run(&["check", "--schema"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&printed.stdout).expect("JSON"),
        schema
    );
    let example: Value = vcpu_policy_api::yaml::read(&example()).expect("YAML");
    assert_eq!(faults(&schema, &example, ""), [""; 0]);
}

/// Where the reader refuses, the schema does too, as far as a schema of types and words can.
#[test]
fn the_schema_underlines_mistakes() {
    let schema = schema();
    for (text, expected) in [
        ("intervall: 5s", "intervall: unknown"),
        ("limits: {moves: 3}", "limits.moves: unknown"),
        ("limits: {moves-per-tick: 0}", "limits.moves-per-tick: none fits"),
        (
            "limits: {moves-per-tick: many}",
            "limits.moves-per-tick: none fits",
        ),
        ("limits: 4", "limits: type"),
        ("on-exit: stay", "on-exit: word"),
        ("domains: [{manage: false}]", "domains[0]: lacks match"),
        ("domains: [{match: a, manage: maybe}]", "domains[0].manage: type"),
        ("plugins: [{sha256: x}]", "plugins[0]: lacks path"),
        ("host: {reserved-cpus: [1]}", "host.reserved-cpus: none fits"),
        ("interval: 5", "interval: type"),
    ] {
        let value: Value = vcpu_policy_api::yaml::read(text).expect("YAML");
        assert_eq!(faults(&schema, &value, ""), [expected], "{text}");
    }
}

/// What a value has against a schema, of the words that ours uses; a word that is not known here fails.
fn faults(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, stated) in schema.as_object().expect("a schema") {
        match word.as_str() {
            // Patterns are for editors; the reader's own tests cover what they say.
            "pattern" => assert!(stated.is_string()),
            "type" => {
                let types = stated.as_array().cloned().unwrap_or_else(|| vec![stated.clone()]);
                if !types.iter().any(|name| name == type_of(value)) {
                    return vec![format!("{path}: type")];
                }
            }
            "enum" if !stated.as_array().expect("words").contains(value) => {
                found.push(format!("{path}: word"));
            }
            "const" if stated != value => found.push(format!("{path}: word")),
            "minimum" if value.as_i64() < stated.as_i64() => found.push(format!("{path}: small")),
            "maximum" if value.as_i64() > stated.as_i64() => found.push(format!("{path}: large")),
            "minLength" if value.as_str().is_some_and(str::is_empty) => found.push(format!("{path}: empty")),
            // What is for readers, and what was looked at above and is in order.
            "description" | "default" | "$schema" | "title" | "enum" | "const" | "minimum" | "maximum"
            | "minLength" => {}
            "anyOf" => {
                let fits = |schema: &Value| faults(schema, value, path).is_empty();
                if !stated.as_array().expect("schemas").iter().any(fits) {
                    found.push(format!("{path}: none fits"));
                }
            }
            "required" => {
                let lacks = |name: &&Value| value.get(name.as_str().expect("a key")).is_none();
                let missing = stated.as_array().expect("keys").iter().filter(lacks);
                found.extend(missing.map(|name| format!("{path}: lacks {}", name.as_str().expect("a key"))));
            }
            "items" => {
                for (at, entry) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(stated, entry, &format!("{path}[{at}]")));
                }
            }
            "properties" => {
                for (key, entry) in value.as_object().into_iter().flatten() {
                    let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
                    match stated.get(key) {
                        Some(schema) => found.extend(faults(schema, entry, &path)),
                        None => found.push(format!("{path}: unknown")),
                    }
                }
            }
            "additionalProperties" => assert_eq!(stated, false, "unknown keys are refused"),
            other => panic!("the schema has \"{other}\" at {path}"),
        }
    }
    found
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A folder with this as `config.yaml`.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(root().join("target")).expect("a folder");
    std::fs::write(folder.path().join("config.yaml"), config).expect("written");
    folder
}

/// What a user sees of a command that is given this configuration as FILE.
fn seen(config: &str, arguments: &[&str]) -> String {
    let folder = folder(config);
    let path = folder.path().join("config.yaml");
    let path = path.to_str().expect("ASCII");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|&argument| if argument == "FILE" { path } else { argument })
        .collect();
    let seen = transcript(&arguments).replace(path, "FILE");
    assert!(!seen.contains("panicked"), "{seen}");
    seen
}

const SCENARIO: &str = "testdata/scenarios/classic-1-all-on-one.yaml";

#[test]
fn check_prints_what_is_in_force_and_who_says_so() {
    let config = "interval: 2s\npolicy: {options: {threshold: 8}}\ndomains:\n  - {match: \"db-*\", manage: false}\nlimits: {cooldown: 30s}\n";
    let flags = [
        "check",
        "--config",
        "FILE",
        "--interval",
        "3s",
        "--moves-per-minute",
        "60",
    ];
    insta::assert_snapshot!("check", seen(config, &flags));
    let printed = |config: &str, flags: &[&str]| {
        let seen = seen(config, flags);
        let lines: Vec<String> = seen
            .lines()
            .skip(1)
            .map(|line| match line.split_once(" # ") {
                Some((value, _)) => value.trim_end().to_owned(),
                None => line.to_owned(),
            })
            .collect();
        lines.join("\n").replace("exit status 0", "")
    };
    let first = printed(config, &flags);
    assert_eq!(printed(&first, &["check", "--config", "FILE"]), first);
}

#[test]
fn check_says_where_the_connection_comes_from() {
    let shown = |uri: &str, arguments: &[&str]| {
        let output = binary()
            .env("LIBVIRT_DEFAULT_URI", uri)
            .arg("check")
            .args(arguments)
            .output()
            .expect("it starts");
        text(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let variable = shown("test:///default", &[]);
    assert!(
        variable.starts_with("connect: test:///default ")
            && variable.ends_with("# environment, LIBVIRT_DEFAULT_URI")
    );
    assert!(shown("", &[]).starts_with("connect: qemu:///system "));
    let config = folder("connect: \"test:///other\"\n");
    let file = config.path().join("config.yaml");
    let file = shown("test:///default", &["--config", file.to_str().expect("ASCII")]);
    assert!(
        file.starts_with("connect: test:///other ") && file.ends_with("# file"),
        "{file}"
    );
}

#[test]
fn mistakes_are_named_with_the_file_and_the_key() {
    let check = |name: &str, config: &str, arguments: &[&str]| {
        let seen = seen(config, arguments);
        assert!(seen.ends_with("exit status 2\n"), "{seen}");
        insta::assert_snapshot!(name, seen);
    };
    let file = &["check", "--config", "FILE"];
    check("config_unknown_key", "intervall: 5s\n", file);
    check("config_unknown_policy", "policy: {name: stdev}\n", file);
    check(
        "config_unknown_option",
        "policy: {options: {treshold: 3}}\n",
        file,
    );
    check(
        "config_refused_option",
        "policy:\n  options:\n    threshold: -1\n",
        file,
    );
    check(
        "config_unknown_policy_of_a_flag",
        "policy: {name: observe}\n",
        &["check", "--config", "FILE", "-p", "stdev"],
    );
    check(
        "config_plugin_that_is_not_there",
        "plugins: [{path: /nonexistent/night.so}]\n",
        file,
    );
    check(
        "config_plugin_directory_that_is_not_there",
        "plugin-directory: /nonexistent\n",
        file,
    );
    check(
        "config_for_run",
        "limits: {moves-per-tick: 0}\n",
        &["run", "--config", "FILE"],
    );
    check(
        "config_for_simulate",
        "on-exit: no\n",
        &["simulate", SCENARIO, "--config", "FILE"],
    );
    let all_reserved = "host: {reserved-cpus: \"0-63\"}\n";
    let simulate = &["simulate", SCENARIO, "--config", "FILE"];
    check("config_that_leaves_no_cpu", all_reserved, simulate);
    check(
        "config_that_is_not_there",
        "",
        &["check", "--config", "nowhere.yaml"],
    );
    check("flag_out_of_range", "", &["check", "--moves-per-tick", "0"]);
    check("flag_of_few_words", "", &["check", "--on-exit", "restor"]);
}

/// A file that only the file's hash keeps out.
#[test]
fn a_plugin_of_another_hash_is_not_loaded() {
    let folder = folder("");
    let plugin = folder.path().canonicalize().expect("there").join("night.so");
    std::fs::write(&plugin, "not the library that was meant").expect("written");
    let of_hash = |hash: &str| {
        let config = format!(
            "plugins: [{{path: \"{}\", sha256: \"{hash}\"}}]",
            plugin.display()
        );
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config).expect("written");
        let output = binary()
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    let wrong = of_hash(&"0".repeat(64));
    assert!(
        wrong.contains("has the SHA-256 hash 9") || wrong.contains("has the SHA-256 hash "),
        "{wrong}"
    );
    let hash = wrong
        .split("hash ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .expect("a hash")
        .to_owned();
    let right = of_hash(&hash);
    assert!(
        !right.contains("SHA-256") && right.contains("night.so"),
        "{right}"
    );
}

/// Limits bind a simulation that is given a configuration, and no other.
#[test]
fn simulate_takes_policy_and_limits_from_a_configuration() {
    let pins = |config: Option<&str>, more: &[&str]| {
        let folder = folder(config.unwrap_or_default());
        let file = folder.path().join("config.yaml");
        let mut command = binary();
        command
            .args(["simulate", SCENARIO, "--format", "json"])
            .args(more);
        if config.is_some() {
            command.arg("--config").arg(file);
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (
            report["policy"].as_str().expect("a name").to_owned(),
            report["pins"].as_u64().expect("a count"),
        )
    };
    let (usual, by_itself) = pins(None, &[]);
    assert!(usual == "stddev" && by_itself > 1);
    assert_eq!(pins(Some(""), &[]), (usual, by_itself));
    assert_eq!(
        pins(Some("policy: {name: observe}"), &[]),
        ("observe".to_owned(), 0)
    );
    assert_eq!(
        pins(Some("policy: {name: observe}"), &["-p", "stddev"]).1,
        by_itself
    );
    assert_eq!(pins(Some("policy: {options: {threshold: 1000}}"), &[]).1, 0);
    assert_eq!(
        pins(
            Some("policy: {options: {threshold: 1000}}"),
            &["-o", "threshold=5"]
        )
        .1,
        by_itself
    );
}

/// The same for a decision.
#[test]
fn decide_takes_policy_and_rules_from_a_configuration() {
    let snapshot = "interval: 5s\ntopology: {cpus: 2}\ndomains:\n\
        - {name: db-1, vcpus: [{cpu: 0, load: 50.0, affinity: '0'}]}\n\
        - {name: web-1, vcpus: [{cpu: 0, load: 30.0, affinity: '0'}]}\n";
    let moved = |config: Option<&str>| {
        let folder = folder(config.unwrap_or_default());
        let file = folder.path().join("snapshot.yaml");
        std::fs::write(&file, snapshot).expect("written");
        let mut command = binary();
        command.args(["decide", "--format", "json"]).arg(file);
        if config.is_some() {
            command.arg("--config").arg(folder.path().join("config.yaml"));
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let actions = report[0]["actions"].as_array().expect("a list").iter();
        let domains: Vec<String> = actions
            .map(|action| action["domain"].as_str().expect("a name").to_owned())
            .collect();
        domains
    };
    assert_eq!(moved(None), ["db-1"]);
    assert_eq!(
        moved(Some("domains: [{match: 'db-*', manage: false}]")),
        ["web-1"]
    );
    assert_eq!(moved(Some("domains: [{match: 'db-*', cpus: '0'}]")), ["web-1"]);
    assert_eq!(moved(Some("host: {reserved-cpus: '1'}")), [""; 0]);
    assert_eq!(moved(Some("policy: {name: observe}")), [""; 0]);
}

/// Loading, checking and the loop itself, on libvirt's test driver.
#[test]
fn run_keeps_to_the_file() {
    let config = "connect: test:///default\ninterval: 100ms\npolicy: {name: observe}\n";
    let seen = seen(config, &["run", "--config", "FILE", "--once", "--dry-run"]);
    assert!(
        seen.contains("policy observe")
            && seen.contains("interval=100ms")
            && seen.ends_with("exit status 0\n"),
        "{seen}"
    );
    assert!(
        seen.contains("test:///default") && seen.contains("config=FILE"),
        "{seen}"
    );
}
