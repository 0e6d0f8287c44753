//! The host as its callers see it: by samples, pins and errors.

mod events;
mod faults;
mod service;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::*;
use crate::host::{DomainSample, Token, VcpuSample};

/// The scenarios that come with the project.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/scenarios")
}

fn host(text: &str) -> SimulatedHost {
    SimulatedHost::new(Scenario::parse(text, "test", &folder()).expect("a valid scenario"))
}

/// What some ticks of a scenario show, a line a tick.
fn story(text: &str, ticks: RangeInclusive<u64>) -> String {
    let mut host = host(text);
    let mut before = host.sample().expect("the baseline");
    let mut lines = String::new();
    for tick in 1..=*ticks.end() {
        let line = match host.sample() {
            Ok(after) => {
                let line = line(&before, &after);
                before = after;
                line
            }
            Err(error) => chain(&error),
        };
        if ticks.contains(&tick) {
            writeln!(lines, "{tick}: {line}").expect("memory");
        }
    }
    lines
}

/// Two samples side by side. Of each vCPU: load; what it waited, if it did; where it ran and where it may run.
fn line(before: &Sample, after: &Sample) -> String {
    let vcpus = after
        .domains
        .iter()
        .flat_map(|domain| domain.vcpus.iter().map(move |vcpu| (domain, vcpu)));
    let parts = vcpus.map(|(domain, vcpu)| {
        let was = find(before, &key(domain, vcpu.number));
        let cpu = vcpu.last_cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
        let load = match was.map(|was| percent(was, vcpu)) {
            None => "new".to_owned(),
            Some((load, 0.0)) => format!("{load}"),
            Some((load, wait)) => format!("{load:.1} (wait {wait:.1})"),
        };
        format!(
            "{}/{} {load} on {cpu} of {}",
            domain.name, vcpu.number, vcpu.affinity
        )
    });
    let online = after.topology.online();
    let parts: Vec<String> = parts.collect();
    format!("[{online}] {}", parts.join(", "))
}

/// Load and wait between two readings.
#[expect(clippy::cast_precision_loss, reason = "a test's numbers are small")]
fn percent(before: &VcpuSample, after: &VcpuSample) -> (f64, f64) {
    let elapsed = (after.read_at_ns - before.read_at_ns) as f64;
    let part = |before: u64, after: u64| 100.0 * (after - before) as f64 / elapsed;
    let delay = |vcpu: &VcpuSample| vcpu.delay_ns.expect("the simulated host knows it");
    (
        part(before.run_ns, after.run_ns),
        part(delay(before), delay(after)),
    )
}

fn key(domain: &DomainSample, number: u32) -> VcpuKey {
    VcpuKey {
        domain: domain.uuid,
        instance: domain.instance,
        number,
    }
}

fn find<'a>(sample: &'a Sample, key: &VcpuKey) -> Option<&'a VcpuSample> {
    let mut domains = sample.domains.iter();
    let domain = domains.find(|domain| domain.uuid == key.domain && domain.instance == key.instance)?;
    domain.vcpus.iter().find(|vcpu| vcpu.number == key.number)
}

/// An error and its causes, as the caller prints them.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("memory");
        cause = error.source();
    }
    text
}

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a CPU list")
}

/// Every scenario that comes with the project can be run to its end.
#[test]
fn the_scenarios_run() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let scenario =
                Scenario::read(&file).unwrap_or_else(|error| panic!("{}: {}", file.display(), chain(&error)));
            let mut host = SimulatedHost::new(scenario);
            for _ in 0..=host.scenario().ticks() {
                // A scenario may well have samples that fail.
                let _ = host.sample();
            }
            assert!(host.served_total() <= host.wanted_total() && host.served_total() > 0.0);
            count += 1;
        }
    }
    assert!(count > 7);
}
