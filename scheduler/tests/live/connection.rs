//! A libvirt that dies, comes back or hangs: it is said once, nothing is decided meanwhile, and what was pinned is given
//! back in the end.

use std::process::Stdio;
use std::time::Duration;

use crate::daemon::{Quiet, Running, output, scheduler, text};
use crate::harness::{PrivateLibvirt, cpus, wait_for};
use crate::restore::{BUSY, assert_as_before, end, found, run_guests, wait_for_pins};
use crate::stopping::signal;

const LOST: &str = "nothing is decided until it can be read again";

/// What the log says of a host that was lost: once that it is, and once that it is back.
fn said_once(running: &Running) {
    let log = running.log();
    assert_eq!(log.matches(LOST).count(), 1, "{log}");
    assert_eq!(log.matches("the host can be read again").count(), 1, "{log}");
    assert_eq!(
        (log.matches("WARN").count(), log.matches("ERROR").count()),
        (1, 0),
        "{log}"
    );
}

#[test]
fn a_daemon_that_is_killed_and_started_again_is_found_again() {
    let mut libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    libvirt.kill_daemon();
    running.wait_for_log(LOST, 1);
    let pins = running.log().matches(" pinned ").count();
    libvirt.start_daemon();
    running.wait_for_log("the host can be read again", 1);
    wait_for_pins(&running, pins + 2);
    assert!(!running.log().contains("another hand"), "{}", running.log());
    said_once(&running);
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    assert_as_before(&libvirt, &before, &running.log());
}

#[test]
fn a_daemon_that_hangs_is_given_up_and_taken_up_again() {
    let libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &[&BUSY[..], &["--call-timeout", "2s"]].concat());
    wait_for_pins(&running, 3);
    signal("STOP", libvirt.daemon_pid());
    running.wait_for_log(LOST, 1);
    assert!(
        running.log().contains("hangs: no answer within 2s"),
        "{}",
        running.log()
    );
    let pins = running.log().matches(" pinned ").count();
    signal("CONT", libvirt.daemon_pid());
    running.wait_for_log("the host can be read again", 1);
    wait_for_pins(&running, pins + 2);
    said_once(&running);
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    assert_as_before(&libvirt, &before, &running.log());
}

#[test]
fn what_cannot_be_given_back_in_time_is_said_and_given_back_later() {
    let mut libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &[&BUSY[..], &["--stop-timeout", "2s"]].concat());
    wait_for_pins(&running, 3);
    libvirt.kill_daemon();
    running.wait_for_log(LOST, 1);
    assert_eq!(end(&mut running, "TERM"), Some(1), "{}", running.log());
    let log = running.log();
    assert!(
        log.contains("not given back: ") && log.contains("the journal still has it"),
        "{log}"
    );
    libvirt.start_daemon();
    let restored = output(&libvirt, &["restore"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_as_before(&libvirt, &before, &log);
}

/// While it gives back, the connection may be lost and come back.
#[test]
fn a_daemon_that_comes_back_in_time_is_waited_for() {
    let mut libvirt = Quiet::start();
    run_guests(&libvirt);
    let before = found(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    libvirt.kill_daemon();
    signal("TERM", running.child.id());
    running.wait_for_log("stopping", 1);
    std::thread::sleep(Duration::from_secs(1));
    libvirt.start_daemon();
    let status = wait_for("the daemon to end", Duration::from_secs(60), || {
        running.child.try_wait().expect("waited for")
    });
    assert_eq!(status.code(), Some(0), "{}", running.log());
    assert_as_before(&libvirt, &before, &running.log());
}

/// A guest that was destroyed while nobody could see it, and started again, is another one.
#[test]
fn what_changed_while_the_connection_was_lost_is_read_anew() {
    let mut libvirt = Quiet::start();
    run_guests(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    wait_for_pins(&running, 3);
    libvirt.kill_daemon();
    running.wait_for_log(LOST, 1);
    signal("KILL", libvirt.guest_pid("live"));
    // It does not look before the guest is again as the test wants it.
    signal("STOP", running.child.id());
    libvirt.start_daemon();
    // libvirt notices by itself that the process is gone.
    wait_for("the guest to be seen as gone", Duration::from_secs(60), || {
        libvirt.try_virsh(&["start", "live"]).ok()
    });
    libvirt.pin("live", 0, "0");
    signal("CONT", running.child.id());
    running.wait_for_log("the host can be read again", 1);
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    let mask = libvirt.kernel_mask("live", 0);
    assert_eq!(mask, cpus("0"), "{}", running.log());
}

#[test]
fn no_command_waits_for_a_connection_without_an_end() {
    let libvirt = PrivateLibvirt::start();
    signal("STOP", libvirt.daemon_pid());
    for command in [
        &["restore"][..],
        &["release", "web/0"],
        &["check", "web"],
        &["snapshot"],
        &["run"],
        &["run", "--once"],
        &["run", "--dry-run"],
    ] {
        let flags = ["-q", "--call-timeout", "500ms"];
        let mut child = scheduler(&libvirt, &[command, &flags].concat())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let what = format!("{command:?} to end");
        let status = wait_for(&what, Duration::from_secs(60), || {
            child.try_wait().expect("waited for")
        });
        let said = text(&child.wait_with_output().expect("ended").stderr);
        assert_eq!(status.code(), Some(1), "{command:?}: {said}");
        let expect = format!(
            "error: cannot connect to {}: no answer within 500ms (call-timeout); look whether libvirt's daemon there \
             (libvirtd, virtqemud) is stopped or overloaded, and whether virsh gets an answer\n",
            libvirt.uri()
        );
        assert_eq!(said, expect, "{command:?}");
    }
}
