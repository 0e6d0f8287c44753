//! What a plugin does in a process of its own costs a tick, and is told in one clear line.
//!
//! The plugins are real ones, compiled from `faulty.c`, and so is the program that hosts them.

mod command_line;
mod containment;
mod daemon;
mod endings;
mod host_program;
mod promises;
mod recovery;
mod repetition;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
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

/// A plugin with this fault at this stage.
fn sealed(when: &str, fault: &str) -> SealedLibrary {
    let folder = folder();
    let path = folder.path().join("faulty.so");
    compile(&path, when, fault);
    trust::seal(&path, None).expect("a file of one's own")
}

/// A folder whose plugins are loaded, whatever the umask: nobody else may write it.
fn folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    let private = builder.permissions(Permissions::from_mode(0o700));
    private.tempdir().expect("a folder")
}

/// Compiles `faulty.c` with this fault at this stage.
fn compile(path: &Path, when: &str, fault: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/faulty.c");
    let (when, fault) = (format!("-DWHEN=\"{when}\""), format!("-DFAULT=\"{fault}\""));
    compile_source(path, &source, &[&when, &fault]);
}

/// Compiles a plugin from C.
fn compile_source(path: &Path, source: &Path, definitions: &[&str]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-w", "-shared", "-fPIC", "-I"])
        .arg(package.join("../policy-api/include"))
        .args(definitions)
        .arg("-o")
        .args([path, source])
        .output()
        .expect("a C compiler");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    // Whatever the umask: a file that a group may write is not loaded.
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("permitted");
}

fn terms(deadline: Duration) -> Terms {
    Terms {
        program: assert_cmd::cargo::cargo_bin!("vcpu-policy-host").to_owned(),
        deadline,
        stop: None,
        fallback: vcpu_policies::find("observe").expect("built in"),
    }
}

fn supervised(when: &str, fault: &str, deadline: Duration) -> Result<Supervised, PolicyError> {
    let order = Order {
        library: sealed(when, fault),
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
