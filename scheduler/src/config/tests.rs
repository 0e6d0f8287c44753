use std::error::Error;
use std::fmt::Write;

use super::*;
use crate::engine::constraints::DomainMatch;
use crate::engine::terms::{InitialPins, ManualPins};
use crate::host::DomainUuid;

mod damage;

/// A file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The complete example of the documentation.
fn example() -> String {
    let page = std::fs::read_to_string(project("docs/configuration.md")).expect("the page is there");
    let block = page.split("```yaml\n").nth(1).expect("an example");
    block.split("```").next().unwrap_or_default().to_owned()
}

fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("memory");
        cause = error.source();
    }
    text
}

fn layer(text: &str) -> Layer {
    parse(text.as_bytes()).expect("a configuration")
}

/// What is in force when the file says this and the flags say that, as a file could say it.
fn effective(file: &str, flags: &str) -> Effective {
    let sources = Sources {
        flags: layer(flags),
        ..Sources::default()
    };
    sources.with(layer(file))
}

/// What each of the malformed files is answered with: where the mistake is, what was found, what was expected.
#[test]
fn mistakes_are_located_and_explained() {
    let folder = project("testdata/malformed/config");
    let entries = std::fs::read_dir(&folder).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut table = String::new();
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let error = sources.read().expect_err(&name);
        let text = told(&error).replace(&folder.display().to_string(), "FOLDER");
        writeln!(table, "{name}\n    {text}").expect("memory");
    }
    insta::assert_snapshot!(table);
    let page = std::fs::read_to_string(project("docs/configuration.md")).expect("the page is there");
    let shown: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("error: cannot use the configuration config.yaml: "))
        .collect();
    assert!(shown.len() >= 3);
    for message in shown {
        assert!(
            table.contains(&format!(".yaml: {message}\n")),
            "no file is answered with: {message}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for (file, expected) in [("no-such.yaml", "No such file"), (".", "Is a directory")] {
        let sources = Sources {
            file: Some(file.into()),
            ..Sources::default()
        };
        let text = told(&sources.read().expect_err("no file"));
        assert!(
            text.starts_with(&format!("cannot read the configuration {file}: ")) && text.contains(expected),
            "{text}"
        );
    }
}

/// Whoever can change the file can change what runs, so it is said who can.
#[test]
fn others_who_may_write_the_file_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "").expect("written");
    let told = |mode: u32, user: Option<u32>| {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("one's own");
        let metadata = std::fs::metadata(&file).expect("there");
        others_who_may_write(&metadata, user.unwrap_or(metadata.uid()))
    };
    assert_eq!(told(0o644, None), None);
    assert_eq!(told(0o646, None).as_deref(), Some("anyone"));
    assert!(told(0o664, Some(0)).is_some_and(|whom| whom.starts_with("group ")));
    let owner = std::fs::metadata(&file).expect("there").uid();
    let another = Some(owner + 1);
    let expected = (owner != 0).then(|| format!("user {owner}"));
    assert_eq!(told(0o644, another), expected, "root may write every file anyway");
    let folder = std::fs::metadata("/tmp").expect("there");
    assert_eq!(
        others_who_may_write(&folder, 1),
        None,
        "what is no file is refused otherwise"
    );
}

#[test]
fn nothing_said_is_no_mistake() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}",
        "null",
        "domains:\nlimits:\npolicy:\n  options:\nplugins:\n",
    ] {
        let said = effective(text, "");
        assert!(changed(&said, &effective("", "")).is_empty(), "{text:?}");
    }
    let usual = effective("", "");
    assert!(KEYS.iter().all(|key| usual.origin(key.path) == Origin::Default));
    assert_eq!(usual.decision_deadline(), Duration::from_secs(1));
    assert_eq!(usual.terms(7).seed, 7);
    assert_eq!(
        usual.limits(),
        Limits {
            moves_per_tick: Some(16),
            moves_per_minute: None,
            cooldown: Duration::ZERO
        }
    );
    assert_eq!(usual.policy, PolicyName::usual());
}

#[test]
fn what_is_said_reaches_the_engine() {
    let said = effective(
        "host: {reserved-cpus: '0,32', isolated-cpus: use}\nmanual-pins: override\ninitial-pins: respect\n\
        limits: {moves-per-tick: unlimited, moves-per-minute: 100, cooldown: 30s}\n\
        domains: [{match: 'db-*', manage: false}, {match: 6F1C0F4E-0000-4000-8000-00000000000f, cpus: 2-3}]\n\
        deadline: 3s\ninterval: 1s",
        "",
    );
    let terms = said.terms(9);
    let limits = Limits {
        moves_per_tick: None,
        moves_per_minute: std::num::NonZeroU32::new(100),
        cooldown: Duration::from_secs(30),
    };
    assert_eq!((terms.seed, terms.limits), (9, limits));
    assert_eq!(
        (terms.manual_pins, terms.initial_pins),
        (ManualPins::Override, InitialPins::Respect)
    );
    let Constraints {
        reserved,
        use_isolated,
        rules,
    } = terms.constraints.as_ref();
    assert!(reserved.to_string() == "0,32" && *use_isolated);
    let [of_names, of_uuid] = rules.as_slice() else {
        panic!("{rules:?}")
    };
    assert_eq!(
        (of_names.text.as_str(), of_names.wish.manage),
        ("db-*", Some(false))
    );
    assert!(
        matches!(&of_names.matches, DomainMatch::Name(glob) if glob.is_match("db-1") && !glob.is_match("a-db-1"))
    );
    assert_eq!(
        of_uuid.wish.cpus.as_ref().map(ToString::to_string).as_deref(),
        Some("2-3")
    );
    assert!(
        matches!(of_uuid.matches, DomainMatch::Uuid(DomainUuid(bytes)) if bytes[..2] == [0x6f, 0x1c] && bytes[15] == 15)
    );
    assert_eq!(said.decision_deadline(), Duration::from_secs(3));
    let half = effective("interval: 1s", "").decision_deadline();
    assert_eq!(half, Duration::from_millis(500));
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_environment() {
    let uri = |flags: &str, file: &str, variable: Option<&str>| {
        let sources = Sources {
            file: None,
            flags: layer(flags),
            environment: environment(variable.map(OsString::from)).expect("a URI"),
        };
        let effective = sources.with(layer(file));
        (effective.connect.text(), effective.origin("connect"))
    };
    let told = |uri: &str, origin| (uri.to_owned(), origin);
    let (flag, file, variable) = ("connect: a:///", "connect: b:///", Some("c:///"));
    assert_eq!(uri(flag, file, variable), told("a:///", Origin::Flag));
    assert_eq!(uri("", file, variable), told("b:///", Origin::File));
    assert_eq!(uri("", "", variable), told("c:///", Origin::Environment));
    assert_eq!(uri("", "", Some("")), told("qemu:///system", Origin::Default));
    assert_eq!(uri("", "", None), told("qemu:///system", Origin::Default));
    let refused = environment(Some("a b".into())).expect_err("no URI");
    assert_eq!(
        refused.to_string(),
        "the variable LIBVIRT_DEFAULT_URI: \"a b\" is not possible here; expected a libvirt connection URI such as qemu:///system"
    );
}

#[test]
fn options_and_plugins_of_flags_come_beside_those_of_the_file() {
    let file = "policy: {name: night, options: {low: 1, high: 2}}";
    let both = effective(file, "policy: {options: {high: 3, other: 4}}");
    assert_eq!(both.options.text(), "low: 1\nhigh: 3\nother: 4\n");
    assert_eq!(both.origin("policy.options"), Origin::FlagAndFile);
    // Options of the file are for the policy of the file.
    let other = effective(file, "policy: {name: day, options: {high: 3}}");
    assert_eq!(
        (other.policy.as_str(), other.options.text().as_str()),
        ("day", "high: 3\n")
    );
    let same = effective(file, "policy: {name: night}");
    assert_eq!(same.options.text(), "low: 1\nhigh: 2\n");
    let usual = effective("policy: {options: {threshold: 8}}", "policy: {name: stddev}");
    assert_eq!(usual.options.text(), "threshold: 8\n");

    let hash = "0".repeat(64);
    let file = format!("plugins: [{{path: /a.so, sha256: \"{hash}\"}}, {{path: /b.so}}]");
    let both = effective(&file, "plugins: [{path: /c.so}, {path: /a.so}]");
    let paths: Vec<String> = both.plugins.0.iter().map(|plugin| plugin.path.text()).collect();
    assert_eq!(paths, ["/a.so", "/b.so", "/c.so"]);
    assert!(both.plugins.0[0].sha256.is_some(), "the file's hash is not lost");
}

#[test]
fn a_new_configuration_is_held_against_the_old_one() {
    let names = |old: &str, new: &str| -> Vec<(&str, TakesHold)> {
        let keys = changed(&effective(old, ""), &effective(new, ""));
        keys.iter().map(|key| (key.path, key.takes_hold)).collect()
    };
    assert_eq!(names("interval: 5s", ""), []);
    assert_eq!(
        names(
            "interval: 5000ms\nlimits: {moves-per-tick: \"16\"}",
            "domains: []"
        ),
        []
    );
    assert_eq!(
        names(
            "connect: a:///\nstate-dir: /a\nisolation: in-process",
            "domains: [{match: x, cpus: \"1\"}]\ncall-timeout: 1s"
        ),
        [
            ("connect", TakesHold::AtRestart),
            ("isolation", TakesHold::AtRestart),
            ("domains", TakesHold::AtReload),
            ("call-timeout", TakesHold::AtRestart),
            ("state-dir", TakesHold::AtRestart),
        ]
    );
}

#[test]
fn what_takes_a_restart_stays_in_force_until_then() {
    let in_force = effective("connect: a:///\ninterval: 1s\nstate-dir: /a", "");
    let restarting = "connect: b:///\ncall-timeout: 1s\nisolation: in-process";
    let mut new = effective(&format!("{restarting}\ninterval: 2s"), "");
    keep_until_restart(&in_force, &mut new);
    let left: Vec<&str> = changed(&in_force, &new).iter().map(|key| key.path).collect();
    assert_eq!(left, ["interval"]);
}

/// Read again, the same sources give what the file says now, or an error that costs nothing.
#[test]
fn a_file_can_be_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.yaml");
    let sources = Sources {
        file: Some(file.clone()),
        flags: layer("limits: {cooldown: 7s}"),
        ..Sources::default()
    };
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write("interval: 5s\nlimits: {cooldown: 1s}");
    let old = sources.read().expect("good");
    write("interval: soon");
    assert!(sources.read().is_err());
    write("interval: 6s\nlimits: {cooldown: 2s}");
    let new = sources.read().expect("good again");
    let changes: Vec<&str> = changed(&old, &new).iter().map(|key| key.path).collect();
    assert_eq!(changes, ["interval"], "the flag goes on to win");
}

#[test]
fn the_example_of_the_documentation_says_everything() {
    let said = effective(&example(), "");
    for key in KEYS {
        assert_eq!(said.origin(key.path), Origin::File, "{}", key.path);
    }
    cross_check::check(&said).expect("it holds together");
}

/// What is printed is a file that says the same, whatever was said and by whom.
#[test]
fn what_is_printed_reads_back_as_the_same() {
    let defaults = yaml::Mapping::new();
    let example = example();
    let odd = "connect: \"a:///'#\"\npolicy: {name: \"x: y\", options: {a: \"#\", b: {c: [1, \"two\\nlines\"]}, d: \"\", e: ~}}\n\
        plugins: [{path: \"/a\\nb # c\"}]\nplugin-directory: \"/ a: b\\n\"\nstate-dir: \"/\\\"\\t~\"\n\
        domains: [{match: \"*\", manage: true}, {match: 6f1c0f4e-0000-4000-8000-00000000000f, cpus: 3}, {match: \"7\", manage: false}]\n\
        limits: {moves-per-tick: unlimited, moves-per-minute: 4294967295, cooldown: 1m 1s 5ms}\n";
    for (file, flags) in [
        ("", ""),
        (&example, ""),
        ("", &example),
        (odd, ""),
        (&example, odd),
        (odd, &example),
    ] {
        let said = effective(file, flags);
        let printed = said.to_yaml(&defaults);
        let again = parse(printed.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        let again = Sources::default().with(again);
        let differ: Vec<&str> = changed(&said, &again).iter().map(|key| key.path).collect();
        assert!(differ.is_empty(), "{differ:?}\n{printed}");
        // What follows from other things goes on following.
        assert_eq!(again.deadline, said.deadline);
    }
    insta::assert_snapshot!(
        effective(&example, "interval: 9s\npolicy: {options: {threshold: 3}}").to_yaml(&defaults)
    );
}

/// Options that nobody set are the policy's, and are printed with those that somebody did.
#[test]
fn options_are_printed_complete() {
    let defaults = PolicyOptions::from_text("low: 1\nhigh: {a: [1, 2]}\n").0;
    let printed = |file: &str| effective(file, "").to_yaml(&defaults);
    let complete = printed("policy: {options: {low: 3}}");
    let again = effective(&complete, "");
    assert_eq!(again.options.text(), "low: 3\nhigh:\n  a:\n  - 1\n  - 2\n");
    assert_eq!(effective(&printed(""), "").options.0, defaults);
    assert_eq!(effective(&printed(&complete), "").options, again.options);
}
