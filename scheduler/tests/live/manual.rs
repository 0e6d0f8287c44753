//! The operator's word stands: what someone else pins is left alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::{Quiet, Running, output, text};
use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};
use crate::stopping::signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two guests on CPU 0, of which one has to go to CPU 1.
fn run_two(libvirt: &PrivateLibvirt) {
    for name in ["a", "b"] {
        libvirt.run(&GuestSpec::new(name, &[3]).ticks_per_second(90));
        libvirt.pin(name, 0, "0");
    }
}

fn on(libvirt: &PrivateLibvirt, name: &str, list: &str) -> Option<()> {
    (libvirt.kernel_mask(name, 0) == cpus(list)).then_some(())
}

/// The guest that the daemon has moved to CPU 1, and the other one.
fn moved(libvirt: &PrivateLibvirt) -> [&'static str; 2] {
    wait_for("one of two to be moved", PATIENCE, || {
        match (on(libvirt, "a", "1"), on(libvirt, "b", "1")) {
            (Some(()), None) => Some(["a", "b"]),
            (None, Some(())) => Some(["b", "a"]),
            _ => None,
        }
    })
}

#[test]
fn a_pin_by_virsh_is_left_alone_until_it_is_released() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let mut running = Running::start(&libvirt, &[]);
    let [name, _] = moved(&libvirt);
    libvirt.pin(name, 0, "0-1");
    running.wait_for_log("pinned by another hand", 1);
    // It is unbalanced again if it runs on CPU 0, and in any case it is not touched.
    running.wait_for_log("tick=", 8);
    assert!(on(&libvirt, name, "0-1").is_some());
    let pins = running.log().matches(" pinned ").count();
    let released = output(&libvirt, &["release", &format!("{name}/0")]);
    assert_eq!(
        text(&released.stdout),
        format!("{name}/0  released\n"),
        "{}",
        text(&released.stderr)
    );
    running.wait_for_log("released", 1);
    let again = output(&libvirt, &["release", name]);
    assert!(
        text(&again.stdout).starts_with("nothing to release"),
        "{}",
        text(&again.stdout)
    );
    let nobody = output(&libvirt, &["release", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(
        text(&nobody.stderr).contains("no domain nobody runs on this host"),
        "{}",
        text(&nobody.stderr)
    );
    assert!(pins >= 1);
    // What it had before is given back all the same.
    signal("TERM", running.child.id());
    running.child.wait().expect("waited for");
    assert!(on(&libvirt, name, "0").is_some(), "{}", running.log());
}

#[test]
fn the_original_affinity_gives_a_vcpu_free() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let running = Running::start(&libvirt, &[]);
    let [name, _] = moved(&libvirt);
    libvirt.pin(name, 0, "0-1");
    running.wait_for_log("pinned by another hand", 1);
    libvirt.pin(name, 0, "0");
    running.wait_for_log("given back by another hand", 1);
    // Then both are on CPU 0 again, and one of them may go.
    moved(&libvirt);
}

#[test]
fn a_mask_set_past_libvirt_is_noticed_too() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let mut running = Running::start(&libvirt, &[]);
    let [name, _] = moved(&libvirt);
    let thread = libvirt.vcpus(name)[&0].to_string();
    let set = Command::new("taskset")
        .args(["-pc", "0-1", &thread])
        .stdout(Stdio::null())
        .status()
        .expect("taskset runs");
    assert!(set.success());
    running.wait_for_log("pinned by another hand", 1);
    signal("TERM", running.child.id());
    running.child.wait().expect("waited for");
    assert!(on(&libvirt, name, "0-1").is_some(), "{}", running.log());
    assert!(
        running.log().contains("left as another hand has pinned it"),
        "{}",
        running.log()
    );
}

/// Someone who pins a guest anew all the time has it; there is no fight, and no word about it but one.
#[test]
fn there_is_never_a_fight() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let running = Running::start(&libvirt, &["--interval", "200ms"]);
    let [name, _] = moved(&libvirt);
    for round in 0..40 {
        libvirt.pin(name, 0, if round % 2 == 0 { "0-1" } else { "1" });
    }
    libvirt.pin(name, 0, "0-1");
    running.wait_for_log("tick=", 40);
    assert!(on(&libvirt, name, "0-1").is_some(), "{}", running.log());
    let log = running.log();
    let of_it = log
        .lines()
        .filter(|line| line.contains(&format!(" pinned domain=\"{name}\"")));
    assert_eq!(of_it.count(), 1, "{log}");
    assert_eq!(log.matches("pinned by another hand").count(), 1, "{log}");
}

#[test]
fn it_may_be_overridden_in_words() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let running = Running::start(&libvirt, &["--manual-pins", "override"]);
    let [name, _] = moved(&libvirt);
    libvirt.pin(name, 0, "0");
    moved(&libvirt);
    assert!(!running.log().contains("left alone"), "{}", running.log());
}

#[test]
fn pins_that_are_found_may_be_respected() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let mut running = Running::start(&libvirt, &["--initial-pins", "respect"]);
    running.wait_for_log("tick=5", 1);
    assert!(!running.log().contains(" pinned "), "{}", running.log());
    let released = output(&libvirt, &["release", "a"]);
    assert_eq!(
        text(&released.stdout),
        "a/0  released\n",
        "{}",
        text(&released.stderr)
    );
    wait_for("a to be moved", PATIENCE, || on(&libvirt, "a", "1"));
    signal("TERM", running.child.id());
    running.child.wait().expect("waited for");
    assert!(on(&libvirt, "a", "0").is_some() && on(&libvirt, "b", "0").is_some());
}

#[test]
fn a_release_without_a_daemon_is_for_the_next_one() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let mut running = Running::start(&libvirt, &[]);
    let [name, _] = moved(&libvirt);
    libvirt.pin(name, 0, "0-1");
    running.wait_for_log("pinned by another hand", 1);
    signal("KILL", running.child.id());
    running.child.wait().expect("waited for");
    let released = output(&libvirt, &["release", name]);
    assert_eq!(
        text(&released.stdout),
        format!("{name}/0  released\n"),
        "{}",
        text(&released.stderr)
    );
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(on(&libvirt, name, "0").is_some(), "{}", text(&restored.stdout));
}
