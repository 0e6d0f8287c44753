//! The daemon with policies of plugins, on real guests: one that crashes costs its ticks and nothing else, one that is
//! good pins.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Quiet, Running, run_pinned, spread};
use crate::harness::{PrivateLibvirt, cpus, wait_for};

/// So long that guests' loads show, so short that the fallback is soon reached.
const INTERVAL: &[&str] = &["--interval", "600ms"];
/// Nothing here is about being late.
const PATIENT: [&str; 2] = ["--deadline", "20s"];

/// Compiles a plugin into the sandbox, and puts the program that hosts plugins beside the scheduler.
pub(crate) fn plugin(libvirt: &PrivateLibvirt, source: &str, definitions: &[&str]) -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plugin = libvirt.folder().join("plugin.so");
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-w", "-shared", "-fPIC", "-I"])
        .arg(package.join("../policy-api/include"))
        .args(definitions)
        .arg("-o")
        .args([&plugin, &package.join(source)])
        .output()
        .expect("a C compiler");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    std::fs::set_permissions(&plugin, Permissions::from_mode(0o755)).expect("permitted");
    // Making the command copies the program; the scheduler starts it.
    drop(libvirt.command(Path::new(env!("CARGO_BIN_EXE_vcpu-policy-host"))));
    plugin.to_str().expect("a plain path").to_owned()
}

fn crashing(libvirt: &PrivateLibvirt) -> String {
    plugin(
        libvirt,
        "tests/isolation/faulty.c",
        &["-DWHEN=\"decide\"", "-DFAULT=\"abort\""],
    )
}

fn one_on_each() -> BTreeMap<String, usize> {
    BTreeMap::from([("0".to_owned(), 1), ("1".to_owned(), 1)])
}

#[test]
fn a_plugin_that_crashes_pins_nothing_and_gives_way_to_the_fallback() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0")]);
    let plugin = crashing(&libvirt);
    let arguments = [INTERVAL, &PATIENT, &["--plugin", &plugin, "-p", "faulty"]].concat();
    let mut running = Running::start(&libvirt, &arguments);
    running.wait_for_log("is not started again", 1);
    // The loop goes on, and it is the fallback that says something.
    let watched = || running.log().matches("only watches").count();
    running.wait_for_log("only watches", watched() + 3);
    let log = running.log();
    // However often it crashes, that is told once, and once more that it is given up.
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        .collect();
    let expected = [
        "the policy could not decide: policy faulty of the plugin plugin.so was killed by SIGABRT (it aborted) while it \
         decided; this tick is lost",
        "policy faulty of the plugin plugin.so is not started again: it failed 5 times in a row; from now on the policy \
         observe decides last=\"was killed by SIGABRT (it aborted) while it decided\"",
    ];
    assert_eq!(told.len(), expected.len(), "{log}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.ends_with(expected), "{told}\n{log}");
    }
    assert!(!log.contains(" pinned "), "{log}");
    for guest in ["a", "b"] {
        assert_eq!(libvirt.kernel_mask(guest, 0), cpus("0"));
    }
    kill_process(Pid::from_child(&running.child), Signal::TERM).expect("it runs");
    let status = wait_for("the daemon's end", std::time::Duration::from_secs(30), || {
        running.child.try_wait().expect("a child of ours")
    });
    assert!(status.success(), "{status}\n{}", running.log());
}

#[test]
fn a_fallback_that_pins_takes_over() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0")]);
    let plugin = crashing(&libvirt);
    let flags = ["--plugin", &plugin, "-p", "faulty", "--fallback", "stddev"];
    let running = Running::start(&libvirt, &[INTERVAL, &PATIENT, &flags].concat());
    running.wait_for_log(" pinned ", 1);
    let log = running.log();
    let (before, _) = log.split_once(" pinned ").expect("it is there");
    assert!(before.contains("from now on the policy stddev decides"), "{log}");
    wait_for(
        "one guest on each CPU",
        std::time::Duration::from_secs(30),
        || (spread(&libvirt, &[("a", 0), ("b", 0)]) == one_on_each()).then_some(()),
    );
}

/// Four guests that want a sixth of a CPU each are two thirds of one. Any of them alone is below the limit, as the policy
/// demands of what arrives, and all of them are three times as much, so that one goes though the machine be busy.
#[test]
fn a_good_plugin_pins_real_guests() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")]);
    let plugin = plugin(&libvirt, "../policy-api/examples/headroom.c", &[]);
    let flags = ["--plugin", &plugin, "-p", "headroom", "-o", "limit=22"];
    let running = Running::start(&libvirt, &[&PATIENT[..], &flags].concat());
    let guests = [("a", 0), ("b", 0), ("c", 0), ("d", 0)];
    running.wait_for_log(" pinned ", 1);
    wait_for("a guest to go", std::time::Duration::from_secs(30), || {
        spread(&libvirt, &guests).contains_key("1").then_some(())
    });
    let ticks = || running.log().matches("tick=").count();
    running.wait_for_log("tick=", ticks() + 2);
    let log = running.log();
    assert!(log.contains(" % more, cpu 1 carries "), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    for (guest, _) in guests {
        let definition = libvirt.virsh(&["dumpxml", "--inactive", guest]);
        assert!(!definition.contains("vcpupin"), "{definition}");
    }
}
