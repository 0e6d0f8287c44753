//! Death between every two steps: whatever was done last, the next process gives back what there was.
//!
//! A process here is an engine, a ledger and a journal on disk, at work on a simulated host. It dies at a chosen step: before
//! or after a call to the host that changes something, before, within or after a write to the journal. From then on nothing
//! that it does has any effect, as after `kill -9`. Another process begins with what is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};

use super::*;
use crate::engine::apply::apply;
use crate::engine::journal::file::FileJournal;
use crate::engine::journal::{Journal, Line};
use crate::engine::{Engine, MakePolicy};
use crate::host::simulated::{Scenario, SimulatedHost};
use crate::host::{DomainSample, HostIdentity, Keepsake, Sample, Token};

const SCENARIO: &str = "
    name: crash
    host: {cpus: 4}
    domains:
      - {name: all, vcpus: 2, load: 30}
      - {name: bound, vcpus: 1, load: 20, cpuset: 0-2, pin: 0-2}
      - {name: narrow, vcpus: 2, load: 40, pin: [0-1, 0]}
";

/// Moves each vCPU on to the next CPU that it may use, in every tick.
struct Restless;

impl Decide for Restless {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        for vcpu in snapshot.vcpus().filter(Vcpu::is_movable) {
            let now = vcpu.cpu().map_or(0, |cpu| cpu.0);
            let next = vcpu.allowed().iter().find(|cpu| cpu.0 > now);
            let next = next.or_else(|| vcpu.allowed().iter().next()).expect("movable");
            let cpus = [next].into_iter().collect::<vcpu_policy_api::cpuset::CpuSet>();
            if cpus.as_ref() != vcpu.affinity() {
                plan.pin(vcpu.ix(), cpus.as_ref(), "restless", 1.0);
            }
        }
        Ok(())
    }
}

/// How many steps a process has left.
#[derive(Clone)]
struct Life(Arc<AtomicU32>);

impl Life {
    fn of(steps: u32) -> Self {
        Self(Arc::new(AtomicU32::new(steps)))
    }

    /// Takes a step; `false` if that was one too many.
    fn step(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

struct Mortal<T> {
    life: Life,
    inner: T,
}

fn dead() -> PinError {
    PinError::Host(HostError::Stopped)
}

impl Mortal<&mut SimulatedHost> {
    /// An effect between two steps, so that there is a death before it and one after it.
    fn effect<T>(
        &mut self,
        act: impl FnOnce(&mut SimulatedHost) -> Result<T, PinError>,
    ) -> Result<T, PinError> {
        if !self.life.step() {
            return Err(dead());
        }
        let done = act(self.inner)?;
        if self.life.step() { Ok(done) } else { Err(dead()) }
    }
}

impl Host for Mortal<&mut SimulatedHost> {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        self.inner.identity()
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        if self.life.is_over() {
            return Err(HostError::Stopped);
        }
        self.inner.sample()
    }
    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        self.effect(|host| host.pin(vcpu, cpus))
    }
    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        self.inner.affinity(vcpu)
    }
    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        self.effect(|host| host.keep(domain, keepsake))
    }
}

impl Journal for Mortal<FileJournal> {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        let dead = || JournalError::Nowhere { reason: "dead" };
        for line in lines {
            if !self.life.step() {
                return Err(dead());
            }
            self.inner.append(std::slice::from_ref(line))?;
        }
        if self.life.step() { Ok(()) } else { Err(dead()) }
    }
}

/// What a process does before its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Ticks, and then all is given back.
    Run,
    /// All is given back.
    Restore,
}

/// One process on a host; says whether it lived to its end.
fn process(host: &mut SimulatedHost, folder: &Path, life: &Life, work: Work, name: u32) -> bool {
    let journal = FileJournal::open(folder, Some("boot".to_owned())).expect("a journal");
    let left = journal.entries().cloned().collect();
    let mut tokens = 0;
    let new_token = move || {
        tokens += 1;
        Token(format!("{name}-{tokens}").into())
    };
    let (life, inner) = (life.clone(), journal);
    let journal = Mortal {
        life: life.clone(),
        inner,
    };
    let mut ledger = Ledger::new(Box::new(journal), left, Box::new(new_token));
    let mut host = Mortal {
        life: life.clone(),
        inner: host,
    };
    let make: MakePolicy = Box::new(|| Ok(Box::new(Restless)));
    let mut engine = Engine::new(make, Terms::default()).expect("made");
    let ticks = if work == Work::Run { 5 } else { 0 };
    for _ in 0..ticks {
        let Ok(sample) = host.sample() else {
            return false;
        };
        ledger.observe(&sample, &Terms::default());
        if let Some(decision) = engine.decide(&sample, &ledger).expect("decided") {
            let accepted = &decision.verdict.accepted;
            apply(&mut host, &mut ledger, &decision.collected, accepted);
        }
        if life.is_over() {
            return false;
        }
    }
    // Whatever does not succeed at once, there is no second pass.
    let (stopper, stop) = Stop::new();
    drop(stopper);
    let restored = restore(&mut host, &mut ledger, &Terms::default(), in_an_hour(), &stop);
    !life.is_over() && restored.remaining.is_empty()
}

/// A second process gives back what there is, undisturbed; whether nothing remained.
fn restores(host: &mut SimulatedHost, folder: &Path) -> bool {
    process(host, folder, &Life::of(u32::MAX), Work::Restore, 2)
}

fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// The affinity of each vCPU, and whether its domain carries anything.
fn state(host: &mut SimulatedHost) -> BTreeMap<(Arc<str>, u32), (OsCpuSet, bool)> {
    let sample = host.sample().expect("a sample");
    let vcpus = sample.domains.iter().flat_map(|domain| {
        let of = move |vcpu: &crate::host::VcpuSample| {
            let carries = domain.keepsake.is_some();
            (
                (Arc::clone(&domain.name), vcpu.number),
                (vcpu.affinity.clone(), carries),
            )
        };
        domain.vcpus.iter().map(of)
    });
    vcpus.collect()
}

fn new_host() -> SimulatedHost {
    SimulatedHost::new(Scenario::parse(SCENARIO, "crash", Path::new("")).expect("a scenario"))
}

/// Runs the whole with a death at each step in turn; `after` is what the next processes do.
fn with_a_death_at_each_step(after: impl Fn(&mut SimulatedHost, &Path)) -> u32 {
    for steps in 1.. {
        let folder = tempfile::tempdir().expect("a folder");
        let mut host = new_host();
        let life = Life::of(steps);
        let lived = process(&mut host, folder.path(), &life, Work::Run, 1);
        after(&mut host, folder.path());
        if lived {
            return steps;
        }
    }
    unreachable!("a process does not take four billion steps")
}

#[test]
fn whenever_it_dies_what_there_was_is_given_back() {
    let found = state(&mut new_host());
    let steps = with_a_death_at_each_step(|host, folder| {
        assert!(restores(host, folder));
        assert_eq!(state(host), found);
        let left = FileJournal::open(folder, None).expect("a journal");
        assert_eq!(left.entries().count(), 0);
    });
    assert!(steps > 60, "{steps} steps are too few to mean anything");
}

#[test]
fn whenever_it_dies_another_takes_over_and_gives_back_at_its_end() {
    let found = state(&mut new_host());
    with_a_death_at_each_step(|host, folder| {
        let alive = Life::of(u32::MAX);
        assert!(process(host, folder, &alive, Work::Run, 2));
        assert_eq!(state(host), found);
    });
}

/// The second process dies too, while it gives back.
#[test]
fn giving_back_may_be_broken_off_at_any_step() {
    let found = state(&mut new_host());
    for steps in 1.. {
        let folder = tempfile::tempdir().expect("a folder");
        let mut host = new_host();
        // Somewhere in the middle of its ticks.
        process(&mut host, folder.path(), &Life::of(40), Work::Run, 1);
        let lived = process(&mut host, folder.path(), &Life::of(steps), Work::Restore, 2);
        assert!(process(
            &mut host,
            folder.path(),
            &Life::of(u32::MAX),
            Work::Restore,
            3
        ));
        assert_eq!(state(&mut host), found, "a death at step {steps}");
        if lived {
            assert!(steps > 15, "{steps} steps are too few to mean anything");
            return;
        }
    }
}

/// Someone else pins a vCPU after the death, to what nobody of us ever asked for.
#[test]
fn what_another_hand_did_after_the_death_stays() {
    let found = state(&mut new_host());
    let pinned: OsCpuSet = "1,3".parse().expect("a cpulist");
    with_a_death_at_each_step(|host, folder| {
        let sample = host.sample().expect("a sample");
        let domain = sample
            .domains
            .iter()
            .find(|domain| &*domain.name == "all")
            .expect("it runs");
        let key = VcpuKey {
            domain: domain.uuid,
            instance: domain.instance,
            number: 1,
        };
        host.pin(&key, &pinned).expect("pinned");
        assert!(restores(host, folder));
        let mut expected = found.clone();
        // Before the first death nothing is recorded: it is then a pin like any other, and nobody's to give back.
        expected.insert(("all".into(), 1), (pinned.clone(), false));
        assert_eq!(state(host), expected);
    });
}

/// Without its journal, the domains still carry what they are given back.
#[test]
fn what_domains_carry_is_enough() {
    let found = state(&mut new_host());
    let mut host = new_host();
    let folder = tempfile::tempdir().expect("a folder");
    process(&mut host, folder.path(), &Life::of(70), Work::Run, 1);
    assert_ne!(state(&mut host), found);
    let empty = tempfile::tempdir().expect("a folder");
    assert!(restores(&mut host, empty.path()));
    assert_eq!(state(&mut host), found);
}

#[test]
fn when_time_is_up_no_other_domain_is_begun() {
    let mut host = new_host();
    let folder = tempfile::tempdir().expect("a folder");
    process(&mut host, folder.path(), &Life::of(70), Work::Run, 1);
    let pinned = state(&mut host);
    let mut ledger = Ledger::new(
        Box::new(crate::engine::journal::Unkept),
        Vec::new(),
        Box::new(|| Token("t".into())),
    );
    let (_stopper, stop) = Stop::new();
    let restored = restore(&mut host, &mut ledger, &Terms::default(), Instant::now(), &stop);
    let told: Vec<String> = restored
        .remaining
        .iter()
        .map(|left| left.why.to_string())
        .collect();
    assert_eq!(told, ["time is up"]);
    assert_eq!(state(&mut host), pinned);
}

fn key_of(domain: &DomainSample) -> DomainKey {
    DomainKey {
        uuid: domain.uuid,
        instance: domain.instance,
    }
}

/// A host of which some things cannot be read or done.
struct Obstinate<'a> {
    inner: &'a mut SimulatedHost,
    unreadable: bool,
    refuses: Option<u32>,
}

impl Host for Obstinate<'_> {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        self.inner.identity()
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        let mut sample = self.inner.sample()?;
        if self.unreadable {
            let domains = std::mem::take(&mut sample.domains);
            sample.unread = domains.iter().map(key_of).collect();
        }
        Ok(sample)
    }
    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        if self.refuses == Some(vcpu.number) {
            return Err(PinError::Refused {
                source: "not this one".into(),
            });
        }
        self.inner.pin(vcpu, cpus)
    }
    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        self.inner.affinity(vcpu)
    }
    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        self.inner.keep(domain, keepsake)
    }
}

/// One pass, with what an earlier process left in the journal; what is still to be done, in words.
fn one_pass(host: &mut Obstinate<'_>, folder: &Path, known: bool) -> Vec<String> {
    let journal = FileJournal::open(folder, Some("boot".to_owned())).expect("a journal");
    let left = journal.entries().cloned().collect();
    let mut ledger = Ledger::new(Box::new(journal), left, Box::new(|| Token("t".into())));
    if known {
        let sample = host.inner.sample().expect("a sample");
        ledger.observe(&sample, &Terms::default());
    }
    let (stopper, stop) = Stop::new();
    drop(stopper);
    let restored = restore(host, &mut ledger, &Terms::default(), in_an_hour(), &stop);
    let remaining = restored.remaining.iter();
    remaining.map(|left| left.why.to_string()).collect()
}

#[test]
fn what_stands_in_the_way_costs_no_original() {
    let found = state(&mut new_host());
    for (unreadable, refuses, known) in [
        (true, None, false),
        (true, None, true),
        (false, Some(0), false),
        (false, Some(1), false),
    ] {
        let case = format!("unreadable {unreadable}, refuses {refuses:?}, known {known}");
        let mut host = new_host();
        let folder = tempfile::tempdir().expect("a folder");
        process(&mut host, folder.path(), &Life::of(70), Work::Run, 1);
        let pinned = state(&mut host);
        let mut obstinate = Obstinate {
            inner: &mut host,
            unreadable,
            refuses,
        };
        let remaining = one_pass(&mut obstinate, folder.path(), known);
        assert!(!remaining.is_empty(), "{case}");
        assert!(!unreadable || state(&mut host) == pinned, "{case}");
        let left = FileJournal::open(folder.path(), None).expect("a journal");
        assert!(left.entries().count() > 0, "{case}");
        drop(left);
        assert!(restores(&mut host, folder.path()), "{case}");
        assert_eq!(state(&mut host), found, "{case}");
    }
}

#[test]
fn of_an_original_the_cpus_are_given_back_that_the_host_still_has() {
    let mut host = new_host();
    let sample = host.sample().expect("a sample");
    let domain = sample.domains.last().expect("a domain");
    let original = crate::host::Original::Cpus("0,9".parse().expect("a cpulist"));
    let kept = crate::host::Kept {
        original,
        hands_off: false,
    };
    let keepsake = Keepsake {
        token: Token("t".into()),
        vcpus: BTreeMap::from([(0, kept)]),
    };
    host.keep(&key_of(domain), Some(&keepsake)).expect("carried");
    let empty = tempfile::tempdir().expect("a folder");
    assert!(restores(&mut host, empty.path()));
    let given = state(&mut host)[&(Arc::clone(&domain.name), 0)].clone();
    assert_eq!(given, ("0".parse().expect("a cpulist"), false));
}
