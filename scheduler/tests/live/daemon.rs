//! Balancing, and leaving alone what is balanced.
//!
//! The machine needs two CPUs. Every vCPU here wants a sixth of a CPU. Between the CPUs' loads there is then either next
//! to nothing or at least a vCPU's sixth, so that noise of a few percent changes no decision; and so that other work on
//! the machine makes no more noise than that, these tests run one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::{GuestSpec, PrivateLibvirt, cpus, wait_for};

/// A sixth of a CPU, in ticks of 18.
const SIXTH: u8 = 3;
/// A guest's period is then a fifth of a second, a fifth of the scheduler's interval.
const TIMER_HZ: u32 = 90;
/// Long enough for a dozen intervals on a busy machine.
const BALANCED_BY: Duration = Duration::from_secs(90);

/// The binary, as the daemon's user.
pub(crate) fn scheduler(libvirt: &PrivateLibvirt, arguments: &[&str]) -> Command {
    let mut command = libvirt.command(std::path::Path::new(env!("CARGO_BIN_EXE_vcpu-scheduler")));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A libvirt of the test's own, while no other test of this kind runs.
pub(crate) struct Quiet {
    libvirt: PrivateLibvirt,
    _turn: MutexGuard<'static, ()>,
}

impl Quiet {
    pub(crate) fn start() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed had its turn all the same.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            libvirt: PrivateLibvirt::start(),
            _turn: turn,
        }
    }
}

impl DerefMut for Quiet {
    fn deref_mut(&mut self) -> &mut PrivateLibvirt {
        &mut self.libvirt
    }
}

impl Deref for Quiet {
    type Target = PrivateLibvirt;

    fn deref(&self) -> &PrivateLibvirt {
        &self.libvirt
    }
}

pub(crate) fn output(libvirt: &PrivateLibvirt, arguments: &[&str]) -> Output {
    scheduler(libvirt, arguments).output().expect("the binary starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A daemon that runs, and what it has logged so far. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(libvirt: &PrivateLibvirt, arguments: &[&str]) -> Self {
        // A flag may be given only once, so the usual interval gives way to a stated one.
        let interval: &[&str] = if arguments.contains(&"--interval") {
            &[]
        } else {
            &["--interval", "1s"]
        };
        Self::start_as(libvirt, &[&["run", "-v"], interval, arguments].concat())
    }

    /// The same with just these arguments.
    pub(crate) fn start_as(libvirt: &PrivateLibvirt, arguments: &[&str]) -> Self {
        let mut child = scheduler(libvirt, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, filled) = (
            BufReader::new(child.stderr.take().expect("piped")).lines(),
            Arc::clone(&log),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = filled.lock().expect("not poisoned");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    pub(crate) fn wait_for_log(&self, what: &str, times: usize) {
        let found = || (self.log().matches(what).count() >= times).then_some(());
        let begun = Instant::now();
        while found().is_none() {
            assert!(
                begun.elapsed() < BALANCED_BY,
                "the log never said {what:?} {times} times:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is no concern here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs guests of these names, one vCPU each, pinned to a CPU from outside.
pub(crate) fn run_pinned(libvirt: &PrivateLibvirt, guests: &[(&str, &str)]) {
    for (name, cpu) in guests {
        libvirt.run(&GuestSpec::new(name, &[SIXTH]).ticks_per_second(TIMER_HZ));
        libvirt.pin(name, 0, cpu);
    }
}

/// How many of these vCPUs the kernel lets run on each CPU alone; those with a wider mask are under "".
pub(crate) fn spread(libvirt: &PrivateLibvirt, vcpus: &[(&str, u32)]) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for (name, number) in vcpus {
        let mask: BTreeSet<u32> = libvirt.kernel_mask(name, *number);
        let only = if mask.len() == 1 {
            mask.iter().map(u32::to_string).collect()
        } else {
            String::new()
        };
        *spread.entry(only).or_default() += 1;
    }
    spread
}

fn two_on_each() -> BTreeMap<String, usize> {
    BTreeMap::from([("0".to_owned(), 2), ("1".to_owned(), 2)])
}

#[test]
fn an_unbalanced_start_becomes_balanced_and_stays_so() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")]);
    let guests = [("a", 0), ("b", 0), ("c", 0), ("d", 0)];
    let running = Running::start(&libvirt, &[]);
    wait_for("two guests on each CPU", BALANCED_BY, || {
        (spread(&libvirt, &guests) == two_on_each()).then_some(())
    });
    // Some more ticks, each of which says in the debug log why it moves nothing.
    let idle = || running.log().matches("within the threshold").count();
    running.wait_for_log("within the threshold", idle() + 1);
    let pins = running.log().matches(" pinned ").count();
    running.wait_for_log("within the threshold", idle() + 3);
    assert_eq!(spread(&libvirt, &guests), two_on_each());
    assert_eq!(
        running.log().matches(" pinned ").count(),
        pins,
        "{}",
        running.log()
    );
    assert!(
        !running.log().contains("WARN") && !running.log().contains("ERROR"),
        "{}",
        running.log()
    );
    for (guest, _) in guests {
        let definition = libvirt.virsh(&["dumpxml", "--inactive", guest]);
        assert!(
            !definition.contains("vcpupin"),
            "the stored definition was changed:\n{definition}"
        );
    }
}

#[test]
fn a_balanced_start_is_left_alone() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0"), ("c", "1"), ("d", "1")]);
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=5", 1);
    assert!(!running.log().contains(" pinned "), "{}", running.log());
    for (guest, cpu) in [("a", 0), ("b", 0), ("c", 1), ("d", 1)] {
        assert_eq!(libvirt.kernel_mask(guest, 0), BTreeSet::from([cpu]), "{guest}");
    }
}

#[test]
fn the_vcpus_of_one_guest_are_balanced_too() {
    let libvirt = Quiet::start();
    libvirt.run(&GuestSpec::new("wide", &[SIXTH; 4]).ticks_per_second(TIMER_HZ));
    for vcpu in 0..4 {
        libvirt.pin("wide", vcpu, "0");
    }
    let _running = Running::start(&libvirt, &[]);
    let vcpus = [("wide", 0), ("wide", 1), ("wide", 2), ("wide", 3)];
    wait_for("two vCPUs on each CPU", BALANCED_BY, || {
        (spread(&libvirt, &vcpus) == two_on_each()).then_some(())
    });
}

#[test]
fn guests_that_come_and_go_do_not_disturb_the_loop() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0"), ("c", "1"), ("d", "1")]);
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=2", 1);
    libvirt.destroy("c");
    libvirt.destroy("d");
    wait_for("the two that are left to part", BALANCED_BY, || {
        (spread(&libvirt, &[("a", 0), ("b", 0)])
            == BTreeMap::from([("0".to_owned(), 1), ("1".to_owned(), 1)]))
        .then_some(())
    });
    run_pinned(&libvirt, &[("e", "0"), ("f", "0")]);
    wait_for("the new ones to part too", BALANCED_BY, || {
        (spread(&libvirt, &[("a", 0), ("b", 0), ("e", 0), ("f", 0)]) == two_on_each()).then_some(())
    });
    assert!(
        !running.log().contains("WARN") && !running.log().contains("ERROR"),
        "{}",
        running.log()
    );
}

#[test]
fn a_stored_cpuset_is_kept() {
    let libvirt = Quiet::start();
    for guest in ["bound-1", "bound-2"] {
        libvirt.run(
            &GuestSpec::new(guest, &[SIXTH])
                .ticks_per_second(TIMER_HZ)
                .cpuset("0"),
        );
    }
    let running = Running::start(&libvirt, &[]);
    running.wait_for_log("tick=3", 1);
    assert!(!running.log().contains(" pinned "), "{}", running.log());
    for guest in ["bound-1", "bound-2"] {
        assert_eq!(libvirt.kernel_mask(guest, 0), cpus("0"));
    }
}

#[test]
fn once_makes_one_tick_and_its_pin_stays() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0")]);
    let once = output(&libvirt, &["run", "--once", "--interval", "1s"]);
    assert!(once.status.success(), "{}", text(&once.stderr));
    assert_eq!(
        text(&once.stderr).matches(" pinned ").count(),
        1,
        "{}",
        text(&once.stderr)
    );
    assert_eq!(
        spread(&libvirt, &[("a", 0), ("b", 0)]),
        BTreeMap::from([("0".to_owned(), 1), ("1".to_owned(), 1)])
    );
}

#[test]
fn a_dry_run_shows_the_pin_and_does_not_make_it() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0")]);
    let dry = output(&libvirt, &["run", "--once", "--dry-run", "--interval", "1s"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(
        text(&dry.stdout).contains("/0  0 -> 1  gain "),
        "{}",
        text(&dry.stdout)
    );
    for guest in ["a", "b"] {
        assert_eq!(libvirt.kernel_mask(guest, 0), cpus("0"));
    }
}

#[test]
fn a_snapshot_of_real_guests_can_be_decided_on() {
    let libvirt = Quiet::start();
    run_pinned(&libvirt, &[("a", "0"), ("b", "0")]);
    libvirt.run(&GuestSpec::new("idle", &[0]));
    let snapshot = output(&libvirt, &["snapshot"]);
    assert!(snapshot.status.success(), "{}", text(&snapshot.stderr));
    let yaml = text(&snapshot.stdout);
    assert!(yaml.contains("name: idle") && yaml.contains("load:"), "{yaml}");
    let path = libvirt.folder().join("host.yaml");
    std::fs::write(&path, &yaml).expect("written");
    let decided = output(&libvirt, &["decide", path.to_str().expect("a plain path")]);
    assert!(decided.status.success(), "{}", text(&decided.stderr));
    assert!(
        text(&decided.stdout).contains("0 -> 1"),
        "{}",
        text(&decided.stdout)
    );
}
