//! What a plugin does in a process of its own costs a tick, and is told in one clear line.
//!
//! The plugins here are the faults of `examples/faulty-host.rs`, hosted as real ones are.

mod containment;
mod host_program;
mod recovery;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vcpu_policy_api::document;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::SnapshotBlock;
use vcpu_scheduler::plugin::supervised::{Order, Supervised, Terms};
use vcpu_scheduler::plugin::trust::{self, SealedLibrary};

/// More than any machine needs, for what does not wait for a deadline.
const PATIENT: Duration = Duration::from_secs(30);
/// For what does.
const IMPATIENT: Duration = Duration::from_millis(300);

/// The program that hosts faults: cargo builds the examples of a package along with its tests.
fn faulty_host() -> PathBuf {
    let own = std::env::current_exe().expect("this test is a file");
    let folder = own
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target/PROFILE/deps");
    let program = folder.join("examples/faulty-host");
    assert!(program.is_file(), "cargo test builds {}", program.display());
    program
}

/// A plugin that is a fault.
fn sealed(fault: &str) -> SealedLibrary {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("faulty.so");
    std::fs::write(&path, fault).expect("written");
    trust::seal(&path, None).expect("a file of one's own")
}

fn terms(deadline: Duration) -> Terms {
    Terms {
        program: faulty_host(),
        deadline,
        stop: None,
        fallback: vcpu_policies::find("observe").expect("built in"),
    }
}

fn supervised(fault: &str, deadline: Duration) -> Result<Supervised, PolicyError> {
    let order = Order {
        library: sealed(fault),
        policy: "faulty".to_owned(),
        options: String::new(),
    };
    Supervised::new(order, Arc::new(terms(deadline)))
}

/// A host of two CPUs and a movable vCPU at some tick, after as many ticks as there were.
fn snapshot(tick: u64, fresh: bool) -> SnapshotBlock {
    let text = format!(
        "interval: 1s\ntick: {tick}\nfresh: {fresh}\ntopology: {{cpus: 2}}\ndomains:\n  - {{name: a, vcpus: [{{load: 50, affinity: 0}}]}}\n"
    );
    document::read(&text).expect("a snapshot")
}

/// One tick: what the engine does with a policy.
fn tick(policy: &mut dyn Decide, number: u64, plan: &mut Plan) -> Result<Vec<String>, String> {
    let block = snapshot(number, policy.is_fresh());
    plan.clear();
    match policy.decide(&block.view(), plan) {
        Ok(()) => Ok(plan.notes().map(str::to_owned).collect()),
        Err(error) => Err(error.to_string()),
    }
}
