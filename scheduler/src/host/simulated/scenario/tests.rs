use std::error::Error;
use std::fmt::Write;

use super::*;

/// A file of the project's test data.
fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata")
        .join(path)
}

fn parse(text: &str) -> Scenario {
    Scenario::parse(text, "unnamed", &testdata("scenarios")).expect("a valid scenario")
}

/// What each of the malformed scenarios is answered with: where the mistake is, what was found, what was expected.
#[test]
fn mistakes_are_located_and_explained() {
    let folder = testdata("malformed/scenarios");
    let entries = std::fs::read_dir(&folder).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut table = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let error = Scenario::read(&file).expect_err(&name);
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("memory");
            cause = error.source();
        }
        let text = text.replace(&folder.display().to_string(), "FOLDER");
        writeln!(table, "{name}\n    {text}").expect("memory");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_file_that_is_not_there() {
    let error = Scenario::read(&testdata("scenarios/no-such.yaml")).expect_err("no file");
    assert_eq!(error.to_string(), "cannot read the scenario");
}

#[test]
fn what_is_absent_has_a_default() {
    let scenario = parse("{host: {cpus: 2}, domains: [{name: vm}]}");
    assert_eq!(scenario.name(), "unnamed");
    assert_eq!(scenario.interval(), Duration::from_secs(5));
    assert_eq!((scenario.ticks(), scenario.seed()), (30, 0));
    let vm = &scenario.domains[0];
    assert_eq!(vm.vcpus.get(), 1);
    assert_eq!(vm.load, Load::Constant(VcpuPercent::ZERO));
    assert_eq!(vm.affinity(0), None);
    let named = Scenario::read(&testdata("scenarios/classic-1-all-on-one.yaml")).expect("valid");
    assert_eq!((named.name(), named.ticks(), named.seed()), ("all-on-one", 30, 1));
}

#[test]
fn copies_are_numbered_from_two_on() {
    let names = |count: &str| -> Vec<String> {
        let text = format!("{{host: {{cpus: 1}}, domains: [{{name: vm{count}}}]}}");
        parse(&text).domains[0].names().collect()
    };
    assert_eq!(names(""), ["vm"]);
    assert_eq!(names(", count: 1"), ["vm"]);
    assert_eq!(names(", count: 3"), ["vm-0", "vm-1", "vm-2"]);
}

#[test]
fn copies_take_the_pins_in_turn() {
    let affinity = |keys: &str, copy: usize| {
        let text = format!("{{host: {{cpus: 4}}, domains: [{{name: vm, count: 5, {keys}}}]}}");
        parse(&text).domains[0].affinity(copy).map(ToString::to_string)
    };
    assert_eq!(affinity("pin: 0-1", 4), Some("0-1".to_owned()));
    assert_eq!(affinity("pin: [0, '1,3']", 2), Some("0".to_owned()));
    assert_eq!(affinity("pin: [0, '1,3']", 3), Some("1,3".to_owned()));
    assert_eq!(affinity("pin: 0, cpuset: 1-2", 0), Some("0".to_owned()));
    assert_eq!(affinity("cpuset: 1-2", 0), Some("1-2".to_owned()));
}

/// The number of ticks can be set when the scenario is run, so an event may lie behind the last.
#[test]
fn events_behind_the_end_are_no_mistake() {
    let scenario = parse(
        "{host: {cpus: 1}, ticks: 5, domains: [{name: a}], events: [{at: 9, destroy: a}, {at: 7, pause: a}]}",
    );
    let ticks: Vec<u32> = scenario.events.iter().map(|event| event.at).collect();
    assert_eq!(ticks, [7, 9]);
}

/// A name may come back, and a pattern may speak of a domain that is not there yet.
#[test]
fn names_are_checked_in_the_course_of_time() {
    parse(
        "{host: {cpus: 1}, domains: [{name: a}], events: [{at: 3, create: {name: a}}, {at: 2, destroy: a}]}",
    );
    parse("{host: {cpus: 1}, domains: [], events: [{at: 3, create: {name: a}}, {at: 2, pause: a}]}");
    parse(
        "{host: {cpus: 1}, domains: [{name: a}], events: [{at: 2, pin: {domain: a, vcpu: 3, cpus: 0}}, {at: 5, vcpus: {domain: a, count: 4}}]}",
    );
}

/// Only the rows that are asked for are kept.
#[test]
fn traces_keep_what_is_needed() {
    let scenario = parse(
        "{host: {cpus: 1}, domains: [{name: a, load: {trace: tiny-trace.csv, row: 1}}, {name: b, load: {trace: tiny-trace.csv, row: 3}}]}",
    );
    let file = Path::new("tiny-trace.csv");
    let rows: Vec<bool> = (0..4)
        .map(|row| scenario.traces.series(file, row).is_some())
        .collect();
    assert_eq!(rows, [false, true, false, true]);
    let series = scenario.traces.series(file, 1).expect("kept");
    let at = |seconds| series.at(Duration::from_secs(seconds)).to_string();
    assert_eq!([at(0), at(299), at(300), at(99_999)], ["80", "80", "75", "2"]);
}
