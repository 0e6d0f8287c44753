//! The host is left as it was found: after a clean end, after a kill, and whatever others did meanwhile.
//!
//! A policy of the tests' own pins every vCPU anew in every tick, so that whatever happens, something is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Quiet, Running, output, text};
use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};
use crate::plugins::plugin;
use crate::stopping::signal;

/// The policy that is never at rest, ten times a second. It is found in the folder that everything runs in.
pub(crate) const BUSY: [&str; 8] = [
    "--interval",
    "100ms",
    "--plugin",
    "plugin.so",
    "-p",
    "restless",
    "--deadline",
    "20s",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the policy of [`BUSY`].
pub(crate) fn make_restless(libvirt: &PrivateLibvirt) {
    plugin(libvirt, "tests/live/restless.c", &[]);
}

/// Guests with affinities of all kinds: none, a stored one, and live ones; and the policy that moves them.
pub(crate) fn run_guests(libvirt: &PrivateLibvirt) {
    make_restless(libvirt);
    libvirt.run(&GuestSpec::new("free", &[2, 1]));
    libvirt.run(&GuestSpec::new("stored", &[2]).cpuset("0-1"));
    libvirt.run(&GuestSpec::new("live", &[2, 1]));
    libvirt.pin("live", 0, "1");
    libvirt.pin("live", 1, "1");
}

/// Every vCPU's affinity, by the kernel and by libvirt.
pub(crate) type Found = BTreeMap<String, (BTreeSet<u32>, String)>;

pub(crate) fn found(libvirt: &PrivateLibvirt) -> Found {
    let mut found = Found::new();
    for (name, vcpus) in [("free", 2), ("stored", 1), ("live", 2)] {
        for vcpu in 0..vcpus {
            let pin = libvirt.virsh(&["vcpupin", name, "--vcpu", &vcpu.to_string()]);
            found.insert(format!("{name}/{vcpu}"), (libvirt.kernel_mask(name, vcpu), pin));
        }
    }
    found
}

/// Whether any of the guests carries anything of ours, running or stored.
fn carried(libvirt: &PrivateLibvirt) -> bool {
    ["free", "stored", "live"].into_iter().any(|name| {
        let running = libvirt.virsh(&["dumpxml", name]);
        let stored = libvirt.virsh(&["dumpxml", "--inactive", name]);
        assert!(
            !stored.contains("vcpu-scheduler"),
            "in the stored definition:\n{stored}"
        );
        running.contains("vcpu-scheduler")
    })
}

#[track_caller]
pub(crate) fn assert_as_before(libvirt: &PrivateLibvirt, before: &Found, what: &str) {
    assert_eq!(&found(libvirt), before, "{what}");
    assert!(!carried(libvirt), "{what}");
}

pub(crate) fn wait_for_pins(running: &Running, count: usize) {
    running.wait_for_log(" pinned ", count);
}

pub(crate) fn end(running: &mut Running, with: &str) -> Option<i32> {
    signal(with, running.child.id());
    let status = wait_for("the daemon to end", PATIENCE, || {
        running.child.try_wait().expect("waited for")
    });
    status.code()
}

#[test]
fn a_clean_end_gives_everything_back() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    for with in ["TERM", "INT"] {
        let mut running = Running::start(&libvirt, &BUSY);
        wait_for_pins(&running, 3);
        assert_ne!(found(&libvirt), before, "nothing was pinned");
        assert!(carried(&libvirt));
        assert_eq!(end(&mut running, with), Some(0), "{}", running.log());
        assert_as_before(&libvirt, &before, &running.log());
        assert!(running.log().contains("given back"), "{}", running.log());
        let log = running.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }
}

#[test]
fn a_killed_daemon_leaves_what_restore_gives_back() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    // While it runs, nobody else may write.
    for command in [&["restore"][..], &["run"]] {
        let refused = output(&libvirt, command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let said = text(&refused.stderr);
        let holder = format!("process {} (vcpu-scheduler run) holds", running.child.id());
        assert!(said.contains(&holder), "{said}");
    }
    end(&mut running, "KILL");
    assert_ne!(found(&libvirt), before);
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(
        text(&restored.stdout).contains("given back"),
        "{}",
        text(&restored.stdout)
    );
    assert_as_before(&libvirt, &before, &text(&restored.stdout));
    let again = output(&libvirt, &["restore"]);
    assert_eq!(text(&again.stdout), "nothing to give back\n");
}

#[test]
fn a_daemon_takes_over_from_one_that_was_killed() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut killed = Running::start(&libvirt, &BUSY);
    wait_for_pins(&killed, 3);
    end(&mut killed, "KILL");
    let mut next = Running::start(&libvirt, &BUSY);
    next.wait_for_log("found pinned by the scheduler before", 1);
    wait_for_pins(&next, 3);
    assert!(!next.log().contains("another hand"), "{}", next.log());
    assert_eq!(end(&mut next, "TERM"), Some(0), "{}", next.log());
    assert_as_before(&libvirt, &before, &next.log());
}

/// Whatever moment it is killed at, what was there is given back.
#[test]
fn killed_at_fifty_random_moments() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let seed = u64::from(std::process::id());
    let mut random = oorandom::Rand32::new(seed);
    let mut with_pins = 0;
    for round in 0..50 {
        let mut running = Running::start(&libvirt, &BUSY);
        // From before the first sample to some pins later.
        thread::sleep(Duration::from_millis(u64::from(random.rand_range(20..900))));
        end(&mut running, "KILL");
        with_pins += u32::from(carried(&libvirt));
        let restored = output(&libvirt, &["restore"]);
        let context = format!(
            "seed {seed}, round {round}\n{}\n{}{}",
            running.log(),
            text(&restored.stdout),
            text(&restored.stderr)
        );
        assert!(restored.status.success(), "{context}");
        assert_as_before(&libvirt, &before, &context);
    }
    assert!(with_pins >= 10, "only {with_pins} of the kills hit a busy daemon");
}

#[test]
fn pins_that_are_to_be_kept_are_kept_for_the_next_one() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &[&BUSY[..], &["--on-exit", "keep"]].concat());
    wait_for_pins(&running, 3);
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    assert_ne!(found(&libvirt), before);
    let mut next = Running::start(&libvirt, &BUSY);
    next.wait_for_log("found pinned by the scheduler before", 1);
    assert_eq!(end(&mut next, "TERM"), Some(0), "{}", next.log());
    assert_as_before(&libvirt, &before, &next.log());
}

#[test]
fn one_tick_can_be_undone() {
    let libvirt = Quiet::start();
    libvirt.run(&GuestSpec::new("a", &[3]).ticks_per_second(90));
    libvirt.run(&GuestSpec::new("b", &[3]).ticks_per_second(90));
    libvirt.pin("a", 0, "0");
    libvirt.pin("b", 0, "0");
    let once = output(&libvirt, &["run", "--once", "--interval", "1s"]);
    assert!(once.status.success(), "{}", text(&once.stderr));
    let restored = output(&libvirt, &["restore"]);
    assert!(
        text(&restored.stdout).contains("given back: 0"),
        "{}",
        text(&restored.stdout)
    );
    for name in ["a", "b"] {
        assert_eq!(libvirt.kernel_mask(name, 0), cpus("0"));
    }
}

/// A guest's pins and what it carries go through a managed save; the guest gets its original back all the same.
#[test]
fn a_guest_that_was_saved_meanwhile_gets_its_original_back() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    end(&mut running, "KILL");
    libvirt.virsh(&["managedsave", "live"]);
    libvirt.virsh(&["start", "live"]);
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_as_before(&libvirt, &before, &text(&restored.stdout));
}

/// A tiny guest does not let a vCPU go, so one that was never plugged in stands for it.
#[test]
fn a_vcpu_that_is_not_plugged_in_has_its_original_when_it_is() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]).spare_vcpus(1));
    libvirt.virsh(&["vcpupin", "a", "1", "1", "--live"]);
    let uri = "urn:vcpu-scheduler:originals:1";
    let kept = "<originals token='t'><vcpu number='1' original='inherit'/></originals>";
    libvirt.virsh(&[
        "metadata", "a", "--uri", uri, "--key", "vs", "--set", kept, "--live",
    ]);
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    libvirt.virsh(&["setvcpus", "a", "2", "--live"]);
    assert_eq!(libvirt.kernel_mask("a", 1), libvirt.kernel_mask("a", 0));
}

#[test]
fn a_guest_that_was_started_anew_gets_nothing_of_its_former_run() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    end(&mut running, "KILL");
    libvirt.destroy("live");
    libvirt.virsh(&["start", "live"]);
    libvirt.pin("live", 0, "0");
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_eq!(libvirt.kernel_mask("live", 0), cpus("0"));
    assert_eq!(libvirt.kernel_mask("live", 1), cpus("0-1"));
    assert!(
        !text(&restored.stdout).contains("live"),
        "{}",
        text(&restored.stdout)
    );
}

/// A second signal ends it without giving back; the journal still has it.
#[test]
fn who_cannot_wait_asks_twice() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    // A daemon that hangs keeps giving back from coming to its end.
    signal("STOP", libvirt.daemon_pid());
    let begun = Instant::now();
    signal("TERM", running.child.id());
    running.wait_for_log("stopping", 1);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(
        running.child.try_wait().expect("waited for"),
        None,
        "{}",
        running.log()
    );
    assert_eq!(end(&mut running, "TERM"), Some(1), "{}", running.log());
    assert!(begun.elapsed() < Duration::from_secs(5), "{}", running.log());
    signal("CONT", libvirt.daemon_pid());
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_as_before(&libvirt, &before, &running.log());
}

/// What is not understood may hold the only record of an original. The guest stays where it is, and it is said why.
#[test]
fn a_guest_whose_keepsake_is_not_understood_is_not_pinned() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let later = [
        "--set",
        "<originals token='t' later='1'/>",
        "--key",
        "vs",
        "--live",
    ];
    let of_live = ["metadata", "live", "urn:vcpu-scheduler:originals:1"];
    libvirt.virsh(&[&of_live[..], &later[..]].concat());
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    running.wait_for_log("the original affinity cannot be recorded in the domain", 1);
    wait_for_pins(&running, 3);
    for vcpu in ["live/0", "live/1"] {
        assert_eq!(found(&libvirt)[vcpu], before[vcpu], "{}", running.log());
    }
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    assert_eq!(found(&libvirt), before);
    assert!(libvirt.virsh(&["dumpxml", "live"]).contains("later="));
}

/// However patient each call is, what ends the wait for a host that hangs is the time that giving back may take.
#[test]
fn giving_back_to_a_host_that_hangs_ends_when_time_is_up() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let patient = ["--stop-timeout", "2s", "--call-timeout", "10m"];
    let mut running = Running::start(&libvirt, &[&BUSY[..], &patient].concat());
    wait_for_pins(&running, 3);
    signal("STOP", libvirt.daemon_pid());
    assert_eq!(end(&mut running, "TERM"), Some(1), "{}", running.log());
    assert!(running.log().contains("not given back"), "{}", running.log());
    signal("CONT", libvirt.daemon_pid());
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_as_before(&libvirt, &before, &running.log());
}
