//! What it costs to ask a plugin in a process of its own, rather than one in this process.
//!
//! The plugin is `policy-api/examples/headroom.c`, whose own work is the same in both. Loads are below its limit, so that
//! what is measured beside it is the way there and back.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vcpu_policy_api::document;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::snapshot::SnapshotBlock;
use vcpu_scheduler::plugin::registry::{Isolation, Registry};
use vcpu_scheduler::plugin::supervised::Terms;

fn compiled(folder: &Path) -> PathBuf {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-api");
    let plugin = folder.join("headroom.so");
    let status = Command::new("cc")
        .args(["-std=c11", "-O2", "-shared", "-fPIC", "-I"])
        .arg(api.join("include"))
        .arg("-o")
        .args([&plugin, &api.join("examples/headroom.c")])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "a C compiler");
    plugin
}

/// A host with eight vCPUs on each CPU, in domains of ten.
fn host(vcpus: usize) -> SnapshotBlock {
    let cpus = vcpus.div_ceil(8);
    let mut text = format!("interval: 5s\ntopology: {{cpus: {cpus}}}\ndomains:\n");
    for domain in 0..vcpus / 10 {
        let _ = writeln!(text, "  - name: vm{domain}\n    vcpus:");
        for vcpu in 0..10 {
            let _ = writeln!(
                text,
                "      - {{cpu: {}, load: 5, wait: 1}}",
                (domain * 10 + vcpu) % cpus
            );
        }
    }
    document::read(&text).expect("a snapshot")
}

fn tick(criterion: &mut Criterion) {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let folder = tempfile::Builder::new().permissions(private).tempdir();
    let folder = folder.expect("a folder");
    let plugin = compiled(folder.path());
    let mut group = criterion.benchmark_group("tick");
    for vcpus in [10, 1000, 10_000] {
        let block = host(vcpus);
        let snapshot = block.view();
        for (name, isolation) in [
            ("in-process", Isolation::InProcess),
            ("process", Isolation::Process),
        ] {
            let terms = Terms {
                program: assert_cmd::cargo::cargo_bin!("vcpu-policy-host").to_owned(),
                deadline: Duration::from_secs(10),
                stop: None,
                fallback: vcpu_policies::find("observe").expect("built in"),
            };
            let registry = Registry::new(&[plugin.clone().into()], isolation, terms).expect("a plugin");
            let entry = registry.find("headroom").expect("it is there");
            let mut policy = registry.maker(entry, String::new())().expect("it is made");
            let mut plan = Plan::new();
            group.bench_function(BenchmarkId::new(name, vcpus), |bencher| {
                bencher.iter(|| {
                    plan.clear();
                    policy.decide(&snapshot, &mut plan).expect("it decides");
                    assert!(plan.notes().len() == 1);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, tick);
criterion_main!(benches);
