//! What a snapshot file with a mistake in it is answered with: where the mistake is, and what was expected.
//!
//! All cases and answers stand side by side in one table, so that they can be read, and compared, as an operator
//! would meet them.

#![cfg(feature = "yaml")]

use std::error::Error;
use std::fmt::Write;

use vcpu_policy_api::document;

/// A file with one vCPU, of which this is all that is said.
macro_rules! with_vcpu {
    ($keys:literal) => {
        concat!(
            "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, vcpus: [{",
            $keys,
            "}]}\n"
        )
    };
}

/// A file without guests whose host this is.
macro_rules! with_topology {
    ($topology:literal) => {
        concat!("interval: 5s\ntopology: ", $topology, "\ndomains: []\n")
    };
}

/// A mistake by name, and a file with it.
const CASES: &[(&str, &str)] = &[
    ("an empty file", ""),
    ("something else than a snapshot", "just some words"),
    (
        "another kind of file",
        "name: all-on-one\nhost: {cpus: 4}\nticks: 30\n",
    ),
    ("no topology", "interval: 5s\ndomains: []\n"),
    ("no domains", "interval: 5s\ntopology: {cpus: 2}\n"),
    (
        "a misspelt key",
        "interval: 5s\ntopologie: {cpus: 2}\ndomains: []\n",
    ),
    (
        "a misspelt key of a domain",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, vcpu: []}\n",
    ),
    (
        "a misspelt key of a vCPU",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus:\n      - {cpu: 0, loda: 20.0}\n",
    ),
    (
        "a key twice",
        "interval: 5s\ninterval: 6s\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "a key of a vCPU twice",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, vcpus: [{load: 1.0, load: 2.0}]}\n",
    ),
    ("a tab", "interval: 5s\ntopology:\n\tcpus: 2\ndomains: []\n"),
    (
        "a byte order mark",
        "\u{feff}interval: 5s\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "a control character",
        "interval: 5s\ntopology: {cpus: 2}\ndomains: [{name: \"é\u{1}\", vcpus: []}]\n",
    ),
    (
        "an unclosed brace",
        "interval: 5s\ntopology: {cpus: 2\ndomains: []\n",
    ),
    (
        "two documents",
        "interval: 5s\ntopology: {cpus: 2}\ndomains: []\n---\ninterval: 5s\n",
    ),
    (
        "a number for a list",
        "interval: 5s\ntopology: {cpus: 2}\ndomains: 3\n",
    ),
    ("words for a load", with_vcpu!("load: lots")),
    ("a load with a percent sign", with_vcpu!("load: 20%")),
    ("a load in quotes", with_vcpu!("load: \"20.0\"")),
    ("a load that is no number", with_vcpu!("load: .nan")),
    ("an infinite load", with_vcpu!("load: .inf")),
    ("a load below 0", with_vcpu!("load: -1.0")),
    ("a whole load below 0", with_vcpu!("load: -1")),
    ("an immense load", with_vcpu!("load: 1e999")),
    ("a wait below 0", with_vcpu!("load: 1.0, wait: -0.5")),
    (
        "a CPU that the host does not have",
        with_vcpu!("cpu: 7, load: 1.0"),
    ),
    ("a CPU below 0", with_vcpu!("cpu: -1, load: 1.0")),
    ("a CPU with a fraction", with_vcpu!("cpu: 0.5, load: 1.0")),
    (
        "a CPU of 20 digits",
        with_vcpu!("cpu: 99999999999999999999, load: 1.0"),
    ),
    (
        "an affinity beyond the host",
        with_vcpu!("load: 1.0, affinity: \"0-7\""),
    ),
    ("an affinity of nothing", with_vcpu!("load: 1.0, affinity: \"\"")),
    (
        "an affinity that takes all back",
        with_vcpu!("load: 1.0, affinity: \"0,^0\""),
    ),
    (
        "an affinity that ends before it starts",
        with_vcpu!("load: 1.0, affinity: \"1-0\""),
    ),
    ("an affinity in words", with_vcpu!("load: 1.0, affinity: all")),
    (
        "an affinity as a sequence",
        with_vcpu!("load: 1.0, affinity: [0, 1]"),
    ),
    (
        "an affinity of a huge number",
        with_vcpu!("load: 1.0, affinity: \"0-4000000000\""),
    ),
    ("allowed in words", with_vcpu!("load: 1.0, allowed: any")),
    ("allowed beyond the host", with_vcpu!("load: 1.0, allowed: \"2\"")),
    ("movable in words", with_vcpu!("load: 1.0, movable: perhaps")),
    (
        "vCPU numbers that do not ascend",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus:\n      - {number: 3, load: 1.0}\n      - {number: 3, load: 1.0}\n",
    ),
    ("a slot beyond all", with_vcpu!("load: 1.0, slot: 1048576")),
    (
        "a slot of two vCPUs",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus: [{load: 1.0, slot: 3}, {load: 1.0}]\n  - {name: b, vcpus: [{load: 1.0}, {load: 1.0, slot: 3}]}\n",
    ),
    (
        "a slot that a vCPU without one has by its place",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - name: a\n    vcpus: [{load: 1.0, slot: 1}, {load: 1.0}]\n",
    ),
    (
        "a domain twice",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, vcpus: []}\n  - {name: a, vcpus: []}\n",
    ),
    (
        "a UUID with a letter too few",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, uuid: 6f1c, vcpus: []}\n",
    ),
    (
        "a memory node that the host does not have",
        "interval: 5s\ntopology: {cpus: 2}\ndomains:\n  - {name: a, memory-node: 4, vcpus: []}\n",
    ),
    (
        "an affinity to offline CPUs",
        "interval: 5s\ntopology: {cpus: [{cpu: 0}, {cpu: 1, online: false}]}\ndomains:\n  - {name: a, vcpus: [{load: 1.0, affinity: \"1\"}]}\n",
    ),
    (
        "a CPU that is offline",
        "interval: 5s\ntopology: {cpus: [{cpu: 0}, {cpu: 1, online: false}]}\ndomains:\n  - {name: a, vcpus: [{load: 1.0, cpu: 1}]}\n",
    ),
    (
        "a reserved CPU that the host does not have",
        "interval: 5s\ntopology: {cpus: 2}\nreserved: \"2\"\ndomains: []\n",
    ),
    ("no CPU", with_topology!("{cpus: 0}")),
    ("an empty list of CPUs", with_topology!("{cpus: []}")),
    ("an empty topology", with_topology!("{}")),
    ("no threads", with_topology!("{nodes: 1, threads-per-core: 0}")),
    ("a number of CPUs below 0", with_topology!("{cpus: -4}")),
    ("CPUs in words", with_topology!("{cpus: four}")),
    ("far too many CPUs", with_topology!("{cpus: 4000000000}")),
    (
        "more CPUs than can be counted",
        with_topology!("{nodes: 4000000000, llcs-per-node: 4000000000, cores-per-llc: 4000000000}"),
    ),
    ("more CPUs than any host has", with_topology!("{cpus: 8193}")),
    ("more nodes than any host has", with_topology!("{nodes: 1025}")),
    ("CPUs in both forms", with_topology!("{cpus: 4, nodes: 1}")),
    ("a CPU twice", with_topology!("{cpus: [{cpu: 3}, {cpu: 3}]}")),
    (
        "all CPUs offline",
        with_topology!("{cpus: [{cpu: 0, online: false}]}"),
    ),
    ("a CPU without a number", with_topology!("{cpus: [{node: 0}]}")),
    (
        "a misspelt key of a CPU",
        with_topology!("{cpus: [{cpu: 0, nod: 1}]}"),
    ),
    ("a huge CPU number", with_topology!("{cpus: [{cpu: 4000000000}]}")),
    (
        "a CPU without capacity",
        with_topology!("{cpus: [{cpu: 0, capacity: 0.0}]}"),
    ),
    (
        "distances of another size",
        with_topology!("{nodes: 2, distances: [[10]]}"),
    ),
    (
        "an interval without a unit",
        "interval: 5\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "an interval of nothing",
        "interval: 0s\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "an interval in words",
        "interval: often\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "an interval of ages",
        "interval: 1000years\ntopology: {cpus: 2}\ndomains: []\n",
    ),
    (
        "a tick below 0",
        "interval: 5s\ntick: -1\ntopology: {cpus: 2}\ndomains: []\n",
    ),
];

/// The text of an error with all its causes, as it is printed.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("text grows");
        cause = error.source();
    }
    text
}

#[test]
fn every_mistake_is_located_and_explained() {
    let mut table = String::new();
    for (mistake, file) in CASES {
        writeln!(table, "{mistake}").expect("text grows");
        for line in file.lines() {
            writeln!(table, "    {line}").expect("text grows");
        }
        let refusal = document::read(file).err();
        let answer = refusal.map_or_else(|| "accepted".to_owned(), |error| chain(&error));
        writeln!(table, " => {answer}\n").expect("text grows");
    }
    insta::assert_snapshot!(table);
}
