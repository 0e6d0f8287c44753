use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::*;
use crate::host::{DomainSample, VcpuSample};

/// The scenarios that come with the project.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/scenarios")
}

fn host(text: &str) -> SimulatedHost {
    SimulatedHost::new(Scenario::parse(text, "test", &folder()).expect("a valid scenario"))
}

/// Two samples side by side: load and wait of each vCPU, where it ran and may run.
fn table(before: &Sample, after: &Sample) -> String {
    let mut text = String::new();
    for domain in &after.domains {
        let was = before
            .domains
            .iter()
            .find(|was| was.uuid == domain.uuid && was.instance == domain.instance);
        for vcpu in &domain.vcpus {
            let was = was.and_then(|was| was.vcpus.iter().find(|was| was.number == vcpu.number));
            let cpu = vcpu.last_cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
            let (load, wait) = was.map_or((f64::NAN, f64::NAN), |was| percent(was, vcpu));
            writeln!(
                text,
                "{}/{} load {load:.1} wait {wait:.1} on {cpu} of {}",
                domain.name, vcpu.number, vcpu.affinity
            )
            .expect("memory");
        }
    }
    text
}

/// Load and wait between two readings.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
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

/// Every scenario that comes with the project can be run to its end.
#[test]
fn the_scenarios_run() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let scenario =
                Scenario::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut host = SimulatedHost::new(scenario);
            for _ in 0..=host.scenario().ticks() {
                let _ = host.sample();
            }
            assert!(host.served_total() <= host.wanted_total() && host.served_total() > 0.0);
            count += 1;
        }
    }
    assert!(count > 7);
}

#[test]
fn four_hogs_on_one_cpu_read_25_percent_each() {
    let mut host = host("{host: {cpus: 2}, domains: [{name: hog, count: 4, pin: 0, load: 100}]}");
    let (before, after) = (host.sample().expect("baseline"), host.sample().expect("tick 1"));
    insta::assert_snapshot!(table(&before, &after), @r#"
    hog-0/0 load 25.0 wait 75.0 on 0 of 0
    hog-1/0 load 25.0 wait 75.0 on 0 of 0
    hog-2/0 load 25.0 wait 75.0 on 0 of 0
    hog-3/0 load 25.0 wait 75.0 on 0 of 0
    "#);
}

/// A pin takes effect in the next interval, and only it changes anything.
#[test]
fn a_pin_acts_in_the_next_interval() {
    let mut host = host("{host: {cpus: 2}, domains: [{name: hog, count: 2, pin: 0, load: 100}]}");
    host.sample().expect("baseline");
    let before = host.sample().expect("tick 1");
    let cpus = "1".parse().expect("a CPU list");
    host.pin(&key(&before.domains[1], 0), &cpus).expect("pinned");
    let after = host.sample().expect("tick 2");
    insta::assert_snapshot!(table(&before, &after), @r#"
    hog-0/0 load 100.0 wait 0.0 on 0 of 0
    hog-1/0 load 100.0 wait 0.0 on 1 of 1
    "#);
}
