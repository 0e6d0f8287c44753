//! Thousands of files that are almost right, and what is made of them.
//!
//! What is accepted is also used: a snapshot is decided on by every built-in policy, a scenario runs for some ticks. The
//! capabilities of a host, which only the library itself can read, are tested beside the code that reads them, with the same
//! [mutants].

mod answers;
mod mutants;

use std::path::{Path, PathBuf};

use answers::{Reader, chain, check};
use mutants::Originals;
use vcpu_policy_api::document;
use vcpu_policy_api::plan::Plan;
use vcpu_scheduler::engine::verify::verify;
use vcpu_scheduler::host::Host;
use vcpu_scheduler::host::simulated::{Scenario, SimulatedHost};

/// How many inputs of each kind.
const INPUTS: u64 = 3000;

fn testdata(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata")
        .join(folder)
}

/// Mutants that are all refused, or of which none is, would test little.
fn check_folder(folder: &str, read: fn(&str) -> Result<(), String>) {
    let originals = Originals::read(&testdata(folder), "yaml");
    let accepted = check(
        originals,
        0..INPUTS,
        Reader {
            read,
            longest_error: 1000,
            says_where,
        },
    );
    assert!(
        (INPUTS / 20..INPUTS / 2).contains(&accepted),
        "{accepted} are accepted"
    );
}

/// By line and column, or by the path of a key.
fn says_where(error: &str) -> bool {
    let before_colon = error.split(": ").next().unwrap_or_default();
    error.starts_with("line ") || !before_colon.contains(' ')
}

fn decide_on(text: &str) -> Result<(), String> {
    let block = document::read(text).map_err(|error| chain(&error))?;
    let snapshot = block.view();
    for policy in vcpu_policies::BUILT_IN {
        let mut plan = Plan::new();
        let mut built = (policy.build)("").expect("a policy accepts its defaults");
        built.decide(&snapshot, &mut plan).expect("a decision");
        let verdict = verify(&snapshot, &plan);
        assert!(verdict.rejected.is_empty(), "{policy:?}: {:?}", verdict.rejected);
    }
    Ok(())
}

fn run(text: &str) -> Result<(), String> {
    let scenario = Scenario::parse(text, "mutant", &testdata("scenarios")).map_err(|error| chain(&error))?;
    let mut host = SimulatedHost::new(scenario);
    for _ in 0..4 {
        // A sample that fails may be what the scenario is about. A crowd takes long to simulate, and shows no more than a few.
        let vcpus = host.sample().map_or(0, |sample| {
            sample.domains.iter().map(|domain| domain.vcpus.len()).sum()
        });
        if vcpus > 1000 {
            break;
        }
    }
    Ok(())
}

#[test]
fn snapshots() {
    check_folder("snapshots", decide_on);
}

#[test]
fn scenarios() {
    check_folder("scenarios", run);
}
