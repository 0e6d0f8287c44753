//! Memory and open files stay flat while guests come and go.
//!
//! A minute in the tests; `SOAK_SECONDS` makes it longer.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Quiet, Running};
use crate::harness::{GuestSpec, PrivateLibvirt, cpus};
use crate::restore::{BUSY, end, make_restless};

/// How much memory may grow between the first third of the run and its end: what an allocator keeps to itself, and no more.
const MOST_GROWTH_KIB: u64 = 3 * 1024;
/// How much it may take in all: a client of libvirt is about 17 MiB before it does anything.
const MOST_RSS_KIB: u64 = 64 * 1024;

/// So many that a guest of a name has ended before the next one starts.
const NAMES: u32 = 12;

struct Size {
    rss_kib: u64,
    files: usize,
}

fn size(pid: u32) -> Size {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse().ok());
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("as its user or root");
    Size {
        rss_kib: rss.expect("the kernel says"),
        files: files.count(),
    }
}

#[test]
fn guests_that_come_and_go_every_second_leave_nothing_behind() {
    let seconds = std::env::var("SOAK_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let lasting = Duration::from_secs(seconds.unwrap_or(60));
    let libvirt = Quiet::start();
    libvirt.run(&GuestSpec::new("still", &[6, 3]).ticks_per_second(90));
    make_restless(&libvirt);
    let mut running = Running::start(&libvirt, &BUSY);
    running.wait_for_log(" pinned ", 1);
    let pid = running.child.id();
    let begun = Instant::now();
    let (mut early, mut rounds) = (None, 0_u32);
    let name = |round: u32| format!("guest-{}", round % NAMES);
    for guest in 0..NAMES {
        libvirt.define(&GuestSpec::new(&name(guest), &[3]).ticks_per_second(90));
    }
    let all: &PrivateLibvirt = &libvirt;
    thread::scope(|scope| {
        while begun.elapsed() < lasting {
            // On a grid: one comes and one goes in each second. QEMU takes longer than that to end, so nobody waits for it.
            let due = begun + Duration::from_secs(1) * rounds;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            all.virsh(&["start", &name(rounds)]);
            all.pin(&name(rounds), 0, "0-1");
            if rounds > 1 {
                let oldest = name(rounds - 2);
                scope.spawn(move || all.destroy(&oldest));
            }
            rounds += 1;
            if early.is_none() && begun.elapsed() > lasting / 3 {
                early = Some(size(pid));
            }
        }
    });
    let (early, late) = (early.expect("measured"), size(pid));
    assert!(rounds > 10, "only {rounds} guests in {lasting:?}");
    let log = running.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(late.rss_kib < MOST_RSS_KIB, "{} KiB", late.rss_kib);
    assert!(
        late.rss_kib < early.rss_kib + MOST_GROWTH_KIB,
        "{} -> {} KiB",
        early.rss_kib,
        late.rss_kib
    );
    assert!(
        late.files <= early.files + 2,
        "{} -> {} files",
        early.files,
        late.files
    );
    assert_eq!(end(&mut running, "TERM"), Some(0), "{}", running.log());
    for vcpu in 0..2 {
        assert_eq!(libvirt.kernel_mask("still", vcpu), cpus("0-1"));
    }
}
