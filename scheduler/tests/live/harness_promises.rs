//! What the live harness promises, shown with real guests.
//!
//! Needs libvirt, QEMU and binutils, but no root; run as root, everything runs as the user `nobody`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};

/// Three periods of a guest's duty.
const THREE_PERIODS: Duration = Duration::from_millis(2970);
/// Long enough for what takes a moment, on a busy machine too.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_guest_wants_its_duty() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("third", &[6]));
    let wanted = libvirt.want_percent(&[("third", 0)], THREE_PERIODS);
    assert_near(&wanted, &[33.3]);
}

#[test]
fn each_vcpu_has_its_own_duty() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("mixed", &[9, 3, 0]).ticks_per_second(100));
    let wanted = libvirt.want_percent(&[("mixed", 0), ("mixed", 1), ("mixed", 2)], THREE_PERIODS);
    assert_near(&wanted, &[50.0, 16.7, 0.0]);
}

#[test]
fn pins_reach_the_kernel_and_definitions_stay() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("pinned", &[18, 0]).cpuset("0-1").vcpupin(1, "1"));
    assert_eq!(libvirt.kernel_mask("pinned", 0), cpus("0-1"));
    assert_eq!(libvirt.kernel_mask("pinned", 1), cpus("1"));

    for cpu in [1, 0] {
        libvirt.pin("pinned", 0, &cpu.to_string());
        assert_eq!(libvirt.kernel_mask("pinned", 0), BTreeSet::from([cpu]));
        wait_for("the vCPU to move", SOON, || {
            (libvirt.kernel_last_cpu("pinned", 0) == cpu).then_some(())
        });
    }
    assert!(
        libvirt
            .virsh(&["dumpxml", "pinned"])
            .contains("<vcpupin vcpu='0' cpuset='0'/>")
    );
    let definition = libvirt.virsh(&["dumpxml", "pinned", "--inactive"]);
    assert!(!definition.contains("<vcpupin vcpu='0'"), "{definition}");
}

#[test]
fn vcpus_on_one_cpu_wait_for_each_other() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("crowded", &[18, 18]));
    libvirt.pin("crowded", 0, "0");
    libvirt.pin("crowded", 1, "0");
    let before = libvirt.steal_ns("crowded", 0) + libvirt.steal_ns("crowded", 1);
    let used = libvirt.use_percent(&[("crowded", 0), ("crowded", 1)], Duration::from_secs(1));
    let steal = libvirt.steal_ns("crowded", 0) + libvirt.steal_ns("crowded", 1) - before;
    assert!(used.iter().sum::<f64>() < 110.0, "{used:?} % of one CPU");
    assert!(
        steal > 500_000_000,
        "two that never rest waited for {steal} ns only"
    );
}

#[test]
fn a_vcpu_can_be_added() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("growing", &[6, 6]).spare_vcpus(1));
    assert_eq!(libvirt.vcpus("growing").len(), 2);
    libvirt.virsh(&["setvcpus", "growing", "3", "--live"]);
    assert_eq!(libvirt.vcpus("growing").len(), 3);
    let wanted = libvirt.want_percent(&[("growing", 0), ("growing", 1), ("growing", 2)], THREE_PERIODS);
    assert_near(&wanted, &[33.3, 33.3, 0.0]);
}

#[test]
fn a_destroyed_guest_is_gone_and_can_start_again() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("again", &[0]));
    let pid = libvirt.guest_pid("again");
    libvirt.destroy("again");
    assert!(!alive(pid));
    assert_eq!(libvirt.virsh(&["domstate", "again"]), "shut off");
    libvirt.boot("again");
    assert_ne!(libvirt.guest_pid("again"), pid);
}

#[test]
fn dropping_leaves_nothing() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("left", &[18]));
    let mut program = libvirt
        .command(Path::new("/bin/sleep"))
        .arg("1000")
        .spawn()
        .expect("run a program");
    let folder = libvirt.folder().to_owned();
    let pids = [libvirt.guest_pid("left"), libvirt.daemon_pid()];
    // A process has no command line for a moment while it starts.
    wait_for("libvirtd, the guest and the program to show", SOON, || {
        (processes_of(&folder).len() == 3).then_some(())
    });

    drop(libvirt);
    let status = program.wait().expect("the program has ended");
    assert!(!status.success(), "{status}");
    assert!(!folder.exists());
    for pid in pids {
        assert!(!alive(pid));
    }
    assert_eq!(processes_of(&folder), [""; 0]);
}

/// The harness with its test process killed: this test runs itself in a second process, and kills that.
#[test]
fn a_killed_test_leaves_nothing() {
    const TOLD: &str = "LIVE_TEST_TO_BE_KILLED";
    if let Some(file) = std::env::var_os(TOLD) {
        let libvirt = PrivateLibvirt::start();
        libvirt.run(&GuestSpec::new("orphan", &[18]));
        let pids = format!("{} {}", libvirt.folder().display(), libvirt.guest_pid("orphan"));
        fs::write(file, pids).expect("tell the folder and the guest's process");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let told = tempfile::NamedTempFile::new().expect("create a file");
    let mut victim = Command::new(std::env::current_exe().expect("this program's path"))
        .args(["--exact", "harness_promises::a_killed_test_leaves_nothing"])
        .env(TOLD, told.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("run this test again");
    let text = wait_for("the second process's guest", Duration::from_secs(60), || {
        fs::read_to_string(told.path())
            .ok()
            .filter(|text| !text.is_empty())
    });
    let (folder, guest) = text.split_once(' ').expect("a folder and a process");
    let guest = guest.parse().expect("a process id");
    victim.kill().expect("kill the second process");
    victim.wait().expect("wait for the second process");
    wait_for("the folder to go", SOON, || {
        (!Path::new(folder).exists()).then_some(())
    });
    assert!(!alive(guest));
    assert_eq!(processes_of(Path::new(folder)), [""; 0]);
}

#[test]
fn two_daemons_do_not_see_each_other() {
    let (one, other) = (PrivateLibvirt::start(), PrivateLibvirt::start());
    one.define(&GuestSpec::new("mine", &[0]));
    assert_eq!(one.virsh(&["list", "--all", "--name"]), "mine");
    assert_eq!(other.virsh(&["list", "--all", "--name"]), "");
    assert!(
        other
            .try_virsh(&["dominfo", "mine"])
            .is_err_and(|error| error.contains("failed to get domain"))
    );
}

#[test]
fn programs_run_as_an_ordinary_user_and_find_the_daemon() {
    let libvirt = PrivateLibvirt::start();
    libvirt.define(&GuestSpec::new("found", &[0]));
    let mut id = libvirt.command(Path::new("/usr/bin/id"));
    let output = id.arg("-u").output().expect("run id");
    assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "0");
    let mut virsh = libvirt.command(Path::new("/usr/bin/virsh"));
    let output = virsh
        .args(["list", "--all", "--name"])
        .output()
        .expect("run virsh");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "found");
}

/// Timers differ between KVM and TCG, and a vCPU that sleeps wants a moment at each tick, a long one if it
/// has to wait. What a guest gets would depend on the other tests that run at the same time; what it wants
/// does not.
#[track_caller]
fn assert_near(wanted: &[f64], duties: &[f64]) {
    assert_eq!(wanted.len(), duties.len());
    let near = wanted
        .iter()
        .zip(duties)
        .all(|(wanted, duty)| (duty - 14.0..duty + 25.0).contains(wanted));
    assert!(near, "vCPUs want {wanted:.1?} %, not about {duties:?} %");
}

/// Whether a process runs. One that has ended may still be in /proc for a while, until its parent takes note;
/// it has no command line then.
fn alive(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// The command lines of all processes that mention a folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().expect("a folder with a plain name");
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .map(|line| line.replace('\0', " "))
        .filter(|line| line.contains(needle))
        .collect()
}
