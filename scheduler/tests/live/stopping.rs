//! Ending the daemon: within a second, whatever it is doing.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::daemon::Running;
use crate::harness::{GuestSpec, PrivateLibvirt, wait_for};

/// What the daemon promises; on top of it the tests grant a busy machine one more.
const PROMISED: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(1);

/// Sends a signal to a process of ours.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "kill -{name} {pid}");
}

/// Sends a signal and waits for the end, which must come soon.
fn stop(child: &mut Child, name: &str) -> ExitStatus {
    let begun = Instant::now();
    signal(name, child.id());
    let status = wait_for("the daemon to end", Duration::from_secs(30), || {
        child.try_wait().expect("waited for")
    });
    assert!(
        begun.elapsed() < PROMISED + SLACK,
        "it took {:?}",
        begun.elapsed()
    );
    status
}

#[test]
fn a_signal_ends_the_wait_for_the_next_tick() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    for name in ["TERM", "INT"] {
        let mut running = Running::start(&libvirt, &["--interval", "1h"]);
        running.wait_for_log("connected", 1);
        let status = stop(&mut running.child, name);
        assert_eq!(status.code(), Some(0), "{}", running.log());
    }
}

#[test]
fn a_signal_ends_a_call_that_hangs() {
    let libvirt = PrivateLibvirt::start();
    libvirt.run(&GuestSpec::new("a", &[0]));
    let mut running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=1", 1);
    signal("STOP", libvirt.daemon_pid());
    // By now a sample is under way that will not come.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(
        stop(&mut running.child, "TERM").code(),
        Some(0),
        "{}",
        running.log()
    );
}

#[test]
fn a_signal_ends_a_connection_that_never_opens() {
    let libvirt = PrivateLibvirt::start();
    signal("STOP", libvirt.daemon_pid());
    let mut running = Running::start(&libvirt, &[]);
    running.wait_for_log("policy stddev", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        stop(&mut running.child, "INT").code(),
        Some(0),
        "{}",
        running.log()
    );
}
