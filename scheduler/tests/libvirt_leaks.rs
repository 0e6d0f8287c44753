//! The live host keeps what it needs and nothing more. A test of its own process, since it looks at that process.

use std::fs;

use vcpu_scheduler::host::libvirt::{Access, LibvirtHost};
use vcpu_scheduler::host::{Host, VcpuKey};

/// Rounds before the first look, until caches and the allocator have settled.
const WARM_UP: u32 = 500;
const SAMPLES: u32 = 20_000;
const CONNECTIONS: u32 = 300;
/// What the allocator may take without it being a leak. Its smallest piece (32 bytes) lost in each sample is more.
const SLACK_KIB: u64 = 300;

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("our own files").count()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    figure
        .expect("the kernel tells")
        .trim()
        .parse()
        .expect("a number")
}

/// Does something many times and looks at what it left behind.
fn check(what: &str, times: u32, mut act: impl FnMut(u32)) {
    (0..WARM_UP).for_each(&mut act);
    let (files, resident) = (open_files(), resident_kib());
    (0..times).for_each(&mut act);
    assert_eq!(open_files(), files, "open files after {times} {what}");
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown <= SLACK_KIB, "{grown} KiB more after {times} {what}");
}

/// One test, for two would look at the same process at the same time.
#[test]
fn samples_pins_and_connections_leave_nothing_behind() {
    let open = || LibvirtHost::open(Some("test:///default"), Access::ReadWrite).expect("the test driver");
    let mut host = open();
    check("samples and pins", SAMPLES, |number| {
        let sample = host.sample().expect("readable");
        let domain = &sample.domains[0];
        let vcpu = VcpuKey {
            domain: domain.uuid,
            instance: domain.instance,
            number: 0,
        };
        let cpus = if number % 2 == 0 { "0" } else { "2" };
        host.pin(&vcpu, &cpus.parse().expect("a cpulist"))
            .expect("pinned");
    });
    drop(host);
    check("connections", CONNECTIONS, |_| {
        open().sample().expect("readable");
    });
}
