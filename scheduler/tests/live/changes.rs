//! What changes on the host while the daemon runs: it follows, and says nothing that would alarm anybody.

use std::time::Duration;

use crate::daemon::Running;
use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};

/// A sixth of a CPU, in ticks of 18.
const SIXTH: u8 = 3;
const TIMER_HZ: u32 = 90;
const SOON: Duration = Duration::from_secs(60);

fn calm(running: &Running) {
    let log = running.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_stored_pin_that_is_edited_binds_from_the_next_ticks_on() {
    let libvirt = PrivateLibvirt::start();
    for name in ["a", "b"] {
        libvirt.run(
            &GuestSpec::new(name, &[SIXTH])
                .ticks_per_second(TIMER_HZ)
                .cpuset("0"),
        );
    }
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=3\n", 1);
    assert!(!running.log().contains(" pinned "), "{}", running.log());
    // No event tells of this one.
    libvirt.virsh(&["vcpupin", "b", "0", "0-1", "--config"]);
    let ticks = || running.log().matches("tick=").count();
    let edited = ticks();
    running.wait_for_log(" pinned ", 1);
    // Counted in ticks, a busy machine makes no difference. A wait for a safety net would be sixty of them.
    let waited = ticks() - edited;
    assert!(waited <= 10, "{waited} ticks\n{}", running.log());
    assert_eq!(libvirt.kernel_mask("b", 0), cpus("1"));
    assert_eq!(libvirt.kernel_mask("a", 0), cpus("0"));
    calm(&running);
}

#[test]
fn what_guests_go_through_makes_no_noise() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0, 0]).spare_vcpus(1));
    libvirt.run(&GuestSpec::new("b", &[0]));
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=1\n", 1);
    let ticks = || running.log().matches("tick=").count();
    for step in [
        &["suspend", "a"][..],
        &["resume", "a"],
        &["reset", "a"],
        &["setvcpus", "a", "3", "--live"],
        &["managedsave", "a"],
        &["start", "a"],
        &["destroy", "b"],
        &["domrename", "b", "c"],
        &["start", "c"],
        &[
            "metadata",
            "c",
            "--uri",
            "urn:vcpu-scheduler:placement:1",
            "--key",
            "vs",
            "--set",
            "<placement manage='yes'/>",
        ],
        &["undefine", "c"],
        &["destroy", "c"],
    ] {
        libvirt.virsh(step);
        let begun = ticks();
        wait_for("two more ticks", SOON, || (ticks() >= begun + 2).then_some(()));
    }
    calm(&running);
}

#[test]
fn metadata_that_is_not_understood_is_said_once() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=1\n", 1);
    let set = |uri: &str, element: &str| {
        libvirt.virsh(&[
            "metadata", "a", "--uri", uri, "--key", "vs", "--set", element, "--live",
        ]);
    };
    set("urn:vcpu-scheduler:placement:1", "<placement manage='maybe'/>");
    running.wait_for_log("is not understood", 1);
    // Another event about the same domain is no reason to say the same again.
    set("urn:vcpu-scheduler:originals:1", "<originals/>");
    running.wait_for_log("is not understood", 2);
    set("urn:example:other", "<other/>");
    let ticks = || running.log().matches("tick=").count();
    let begun = ticks();
    wait_for("three more ticks", SOON, || (ticks() >= begun + 3).then_some(()));
    let log = running.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(
        warnings[0].contains("manage=\"maybe\" in <placement>; expected yes or no"),
        "{log}"
    );
    assert!(warnings[1].contains("urn:vcpu-scheduler:originals:1"), "{log}");
}

/// Each change is said once, with what it means for the guest's vCPUs, and holds.
#[test]
fn what_metadata_begins_and_ceases_to_ask_is_said_once() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0, 0]).vcpupin(1, "1"));
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=1\n", 1);
    let metadata = |change: &[&str]| {
        let address = [
            "metadata",
            "a",
            "--uri",
            "urn:vcpu-scheduler:placement:1",
            "--live",
        ];
        libvirt.virsh(&[&address[..], change].concat());
    };
    let set = |element: &str| metadata(&["--key", "vs", "--set", element]);
    let alone = "its metadata asks to leave it alone: its load counts, and its vCPUs are not moved";
    let ended = "its metadata does not ask to leave it alone any more: its vCPUs may be moved";
    let kept = "its metadata keeps it to CPUs 0: vCPU 0 may be pinned to 0; vCPU 1 may be pinned to no CPU, so not moved";
    set("<placement manage='no'/>");
    running.wait_for_log(alone, 1);
    set("<placement cpus='0'/>");
    running.wait_for_log(ended, 1);
    running.wait_for_log(kept, 1);
    metadata(&["--remove"]);
    running.wait_for_log("its metadata does not keep it to certain CPUs any more", 1);
    let log = running.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("its metadata")).collect();
    assert_eq!(said.len(), 4, "{log}");
    assert!(
        said.iter()
            .all(|line| line.contains("INFO") && line.contains("domain=\"a\"")),
        "{log}"
    );
    calm(&running);
}
