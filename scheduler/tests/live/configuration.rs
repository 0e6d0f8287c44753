//! The configuration of a daemon that runs, and what it means for real guests.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::daemon::{Quiet, Running, output, text};
use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};
use crate::stopping::signal;

const PATIENCE: Duration = Duration::from_secs(60);

fn write(libvirt: &PrivateLibvirt, text: &str) -> PathBuf {
    let file = libvirt.folder().join("config.yaml");
    fs::write(&file, text).expect("written");
    file
}

/// Two guests on CPU 0.
fn run_two(libvirt: &PrivateLibvirt) {
    for (name, duty) in [("db-1", 6), ("web-1", 3)] {
        libvirt.run(&GuestSpec::new(name, &[duty]).ticks_per_second(90));
        libvirt.pin(name, 0, "0");
    }
}

#[test]
fn a_hangup_reads_the_configuration_again_and_a_bad_one_changes_nothing() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let file = write(
        &libvirt,
        "domains: [{match: '*', manage: false}]\ninterval: 500ms\n",
    );
    let path = file.to_str().expect("a plain path");
    let running = Running::start_as(&libvirt, &["run", "-v", "--config", path]);
    running.wait_for_log("tick=3", 1);
    write(&libvirt, "domains: [{match: '*', manage: perhaps}]\n");
    signal("HUP", running.child.id());
    running.wait_for_log("the configuration stays as it was", 1);
    assert!(
        running.log().contains("line 1, column 32: domains[0].manage"),
        "{}",
        running.log()
    );
    assert!(!running.log().contains(" pinned "), "{}", running.log());
    write(
        &libvirt,
        "domains: [{match: 'db-*', manage: false}]\ninterval: 500ms\non-exit: keep\nhost: {reserved-cpus: '8000'}\n",
    );
    signal("HUP", running.child.id());
    running.wait_for_log("the configuration was read again", 1);
    let doubt = "host.reserved-cpus: the host has no CPU 8000";
    assert_eq!(running.log().matches(doubt).count(), 1, "{}", running.log());
    wait_for("the guest that may be moved", PATIENCE, || {
        (libvirt.kernel_mask("web-1", 0) == cpus("1")).then_some(())
    });
    assert_eq!(libvirt.kernel_mask("db-1", 0), cpus("0"));
    let mut running = running;
    signal("TERM", running.child.id());
    running.child.wait().expect("waited for");
    // Kept, as the new configuration says.
    assert_eq!(libvirt.kernel_mask("web-1", 0), cpus("1"), "{}", running.log());
    running.wait_for_log("the pins stay, as on-exit says", 1);
}

/// A pipe that nobody writes to stands for every file that does not come: the daemon can be stopped while it waits for it.
#[test]
fn a_configuration_that_does_not_come_keeps_no_stop_waiting() {
    let libvirt = Quiet::start();
    let file = write(&libvirt, "interval: 200ms\n");
    let path = file.to_str().expect("a plain path");
    let mut running = Running::start_as(&libvirt, &["run", "-v", "--config", path]);
    running.wait_for_log("tick=2", 1);
    fs::remove_file(&file).expect("removed");
    mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("a pipe");
    signal("HUP", running.child.id());
    running.wait_for_log(
        "there was no end of it within 5s; the configuration stays as it was",
        1,
    );
    running.wait_for_log("tick=", 1 + running.log().matches("tick=").count());
    signal("HUP", running.child.id());
    signal("TERM", running.child.id());
    let ended = wait_for("the daemon's end", PATIENCE, || {
        running.child.try_wait().expect("ours")
    });
    assert!(ended.success(), "{ended}: {}", running.log());
}

#[test]
fn check_shows_what_a_domain_is_allowed_and_because_of_what() {
    let libvirt = Quiet::start();
    libvirt.run(&GuestSpec::new("web-1", &[0, 0]).cpuset("0-1").vcpupin(1, "1"));
    libvirt.virsh(&[
        "metadata",
        "web-1",
        "--uri",
        "urn:vcpu-scheduler:placement:1",
        "--key",
        "vs",
        "--live",
        "--set",
        "<placement cpus='1'/>",
    ]);
    let file = write(&libvirt, "domains: [{match: 'web-*', cpus: '0-1'}]\n");
    let path = file.to_str().expect("a plain path");
    let checked = output(&libvirt, &["check", "web-1", "--config", path]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let shown = text(&checked.stdout);
    for part in ["web-1", "only 0-1: the definition's cpuset", "metadata"] {
        assert!(shown.contains(part), "{shown}");
    }
    let unknown = output(&libvirt, &["check", "web-2", "--config", path]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr).contains("did you mean \"web-1\"?"),
        "{}",
        text(&unknown.stderr)
    );
}

/// What a dry run proposes is what a real run then does first; the dry run itself does nothing.
#[test]
fn a_dry_run_tells_the_truth() {
    let libvirt = Quiet::start();
    run_two(&libvirt);
    let before = [libvirt.kernel_mask("db-1", 0), libvirt.kernel_mask("web-1", 0)];
    let once = ["run", "--once", "--interval", "1s"];
    let dry = output(&libvirt, &[&once[..], &["--dry-run"]].concat());
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(
        text(&dry.stdout).contains("db-1/0  0 -> 1  gain "),
        "{}",
        text(&dry.stdout)
    );
    let after = [libvirt.kernel_mask("db-1", 0), libvirt.kernel_mask("web-1", 0)];
    assert_eq!(after, before);
    assert!(!libvirt.virsh(&["dumpxml", "db-1"]).contains("vcpu-scheduler"));
    assert!(
        !libvirt.folder().join("run/vcpu-scheduler").exists(),
        "it wrote a journal"
    );
    let real = output(&libvirt, &once);
    let log = text(&real.stderr);
    let pin = log
        .lines()
        .find(|line| line.contains(" pinned "))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(pin.contains("domain=\"db-1\" vcpu=0 from=0 cpus=1"), "{pin}");
    // And beside what was recorded: a vCPU that another hand has pinned since is not proposed.
    libvirt.pin("db-1", 0, "0");
    libvirt.pin("db-1", 0, "0-1");
    let dry = output(&libvirt, &[&once[..], &["--dry-run", "-v"]].concat());
    assert!(!text(&dry.stdout).contains("db-1/0  "), "{}", text(&dry.stdout));
    assert!(
        text(&dry.stderr).contains("pinned by another hand"),
        "{}",
        text(&dry.stderr)
    );
}
