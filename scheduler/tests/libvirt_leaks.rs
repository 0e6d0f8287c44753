//! The live host keeps what it needs and nothing more, whatever comes and goes. A test of its own process, since it looks
//! at that process.
//!
//! `scripts/valgrind-libvirt` runs it under valgrind, with fewer rounds (`LEAKS_ROUNDS`, a part in a thousand) and
//! without the look at the process's size, which is valgrind's own there.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vcpu_scheduler::host::libvirt::{Access, LibvirtHost};
use vcpu_scheduler::host::{
    DomainKey, DomainUuid, Host, Instance, Keepsake, Kept, Original, PinError, Token, VcpuKey,
};
use virt::connect::Connect;

/// Rounds before the first look, until caches and the allocator have settled.
const WARM_UP: u32 = 500;
const SAMPLES: u32 = 20_000;
const KEEPSAKES: u32 = 10_000;
const CONNECTIONS: u32 = 300;
const CHURN: u32 = 6_000;
/// What the allocator may take without it being a leak. Its smallest piece (32 bytes) lost in each sample is more.
const SLACK_KIB: u64 = 300;
/// The same where events wait for the thread that delivers them, and where several threads allocate.
const EVENTS_SLACK_KIB: u64 = 1_000;

/// How many domains come and go, and how often in a round: so few that a run is soon followed by the next one of the same
/// domain, while someone still means the first.
const DOMAINS: u32 = 3;
const RUNS: u32 = 4;

/// How many rounds are run, in thousandths of the full number.
fn thousandths() -> u32 {
    let said = std::env::var("LEAKS_ROUNDS").ok();
    said.map_or(1000, |said| said.parse().expect("LEAKS_ROUNDS is a number"))
}

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
fn check(what: &str, times: u32, slack_kib: u64, mut act: impl FnMut(u32)) {
    let share = |times: u32| times * thousandths() / 1000;
    (0..share(WARM_UP)).for_each(&mut act);
    let (files, resident) = (open_files(), resident_kib());
    (0..share(times)).for_each(&mut act);
    assert_eq!(open_files(), files, "open files after {times} {what}");
    if thousandths() == 1000 {
        let grown = resident_kib().saturating_sub(resident);
        assert!(grown <= slack_kib, "{grown} KiB more after {times} {what}");
    }
}

fn open() -> LibvirtHost {
    LibvirtHost::open(Some("test:///default"), Access::ReadWrite).expect("the test driver")
}

/// A keepsake that no other run has.
fn keepsake(instance: Instance) -> Keepsake {
    Keepsake {
        token: Token(format!("run-{}", instance.0).into()),
        vcpus: BTreeMap::from([(
            0,
            Kept {
                original: Original::Inherit,
                hands_off: false,
            },
        )]),
    }
}

/// One test, for two would look at the same process at the same time.
#[test]
fn whatever_comes_and_goes_leaves_nothing_behind() {
    let mut host = open();
    check("samples and pins", SAMPLES, SLACK_KIB, |number| {
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
        host.affinity(&vcpu).expect("readable");
    });
    let run = {
        let sample = host.sample().expect("readable");
        DomainKey {
            uuid: sample.domains[0].uuid,
            instance: sample.domains[0].instance,
        }
    };
    check("keepsakes", KEEPSAKES, EVENTS_SLACK_KIB, |number| {
        // Each change of metadata is an event, after which the next sample reads the domain anew.
        let kept = keepsake(run.instance);
        host.keep(&run, (number % 2 == 0).then_some(&kept)).expect("kept");
        host.sample().expect("readable");
    });
    drop(host);
    check("connections", CONNECTIONS, SLACK_KIB, |_| {
        open().sample().expect("readable");
    });
    domains_that_come_and_go();
}

fn domains_that_come_and_go() {
    let mut host = open();
    let rounds = CHURN / (DOMAINS * RUNS);
    // The test driver's hosts of one process are one host.
    let other = Connect::open(Some("test:///default")).expect("the test driver");
    let turn = Mutex::new(());
    let mut seen = Seen::default();
    check("domains that come and go", rounds, EVENTS_SLACK_KIB, |_| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                come_and_go(&other, &turn);
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                seen.sample(&mut host, &turn);
            }
        });
    });
    let left = host.sample().expect("readable");
    assert_eq!(left.domains.len(), 1, "{left:?}");
    assert!(
        thousandths() < 1000 || seen.counts.kept > 0 && seen.counts.gone > 0,
        "{:?}",
        seen.counts
    );
}

/// Creates some domains, always the same ones, and destroys them, again and again.
fn come_and_go(host: &Connect, turn: &Mutex<()>) {
    let take_turn = || turn.lock().expect("nobody panics with it");
    for number in (0..RUNS).flat_map(|_| 0..DOMAINS) {
        let xml = format!(
            "<domain type='test'><name>churn-{number}</name><uuid>00000000-0000-4000-8000-00000000000{number}</uuid>
             <memory>4096</memory><vcpu cpuset='0-{number}'>{}</vcpu><os><type>hvm</type></os></domain>",
            number + 1
        );
        let created = {
            let _turn = take_turn();
            host.create_domain_xml(&xml, 0).expect("created")
        };
        if number % 2 == 0 {
            thread::yield_now();
        }
        let _turn = take_turn();
        created.destroy().expect("destroyed");
    }
}

/// What samples showed.
#[derive(Default)]
struct Seen {
    counts: Counts,
    runs: BTreeMap<DomainUuid, Instance>,
}

#[derive(Debug, Default)]
struct Counts {
    kept: u32,
    gone: u32,
}

impl Seen {
    /// Samples once, and looks whether everything in the sample fits together.
    fn sample(&mut self, host: &mut LibvirtHost, turn: &Mutex<()>) {
        let sample = host.sample().expect("readable whatever comes and goes");
        for domain in &sample.domains {
            let Some(number) = domain.name.strip_prefix("churn-") else {
                assert_eq!(&*domain.name, "test");
                continue;
            };
            let number: usize = number.parse().expect("our own name");
            assert_eq!(domain.vcpus.len(), number + 1, "{domain:?}");
            assert_eq!(
                domain.definition.cpus_of(0),
                Some(&format!("0-{number}").parse().expect("a list"))
            );
            let before = self.runs.insert(domain.uuid, domain.instance);
            assert!(
                before.is_none_or(|before| before <= domain.instance),
                "a run came back: {domain:?}"
            );
            if let Some(found) = domain.keepsake.as_deref() {
                assert_eq!(found, &keepsake(domain.instance), "that of another run");
            }
            let run = DomainKey {
                uuid: domain.uuid,
                instance: domain.instance,
            };
            // libvirt has no call that looks and acts at once, so nothing may come or go between the two.
            let _turn = turn.lock().expect("nobody panics with it");
            match host.keep(&run, Some(&keepsake(domain.instance))) {
                Ok(()) => self.counts.kept += 1,
                Err(PinError::Gone) => self.counts.gone += 1,
                Err(error) => panic!("{error}: {error:?}"),
            }
        }
    }
}
