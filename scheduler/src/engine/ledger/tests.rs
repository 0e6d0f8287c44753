//! The ledger on samples made by hand: which run a record belongs to, and how long it is kept.

mod excluded;
mod faults;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vcpu_policy_api::document::uuid_from_name;
use vcpu_policy_api::topology::Topology;

use super::ended::SAMPLES_ENDED;
use super::*;
use crate::host::{
    Definition, DomainSample, Host, HostError, HostIdentity, Incarnation, Instance, Keepsake, Kept, Original,
    PinError, VcpuSample,
};

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a cpulist")
}

fn domain(name: &str, instance: u64, incarnation: &str, masks: &[&str]) -> DomainSample {
    let vcpus = (0..).zip(masks).map(|(number, mask)| VcpuSample {
        number,
        read_at_ns: 0,
        run_ns: 0,
        delay_ns: None,
        last_cpu: None,
        affinity: cpus(mask),
    });
    DomainSample {
        uuid: DomainUuid(uuid_from_name(name)),
        instance: Instance(instance),
        name: name.into(),
        definition: Arc::new(Definition::default()),
        incarnation: (!incarnation.is_empty()).then(|| Incarnation(incarnation.into())),
        keepsake: None,
        vcpus: vcpus.collect(),
    }
}

fn carrying(mut domain: DomainSample, token: &str, originals: &[(u32, &str)]) -> DomainSample {
    let vcpus = originals.iter().map(|&(number, original)| {
        let original = original.parse().expect("an original");
        let kept = Kept {
            original,
            hands_off: false,
        };
        (number, kept)
    });
    domain.keepsake = Some(Arc::new(Keepsake {
        token: Token(token.into()),
        vcpus: vcpus.collect(),
    }));
    domain
}

/// Each a second later than the one before.
fn sample(domains: Vec<DomainSample>) -> Sample {
    static SECONDS: AtomicU64 = AtomicU64::new(0);
    let seconds = SECONDS.fetch_add(1, Ordering::Relaxed);
    Sample {
        read_at_ns: seconds * 1_000_000_000,
        topology: Arc::new(Topology::uniform(1, 1, 4, 1).expect("valid")),
        isolated: OsCpuSet::new(),
        domains,
        unread: Vec::new(),
        connection: 0,
    }
}

fn vcpu(domain: &DomainSample, number: u32) -> VcpuKey {
    VcpuKey {
        domain: domain.uuid,
        instance: domain.instance,
        number,
    }
}

/// A journal that tests can look into, and that can be told to fail.
#[derive(Clone, Default)]
struct Shared {
    lines: Arc<Mutex<Vec<Line>>>,
    fails: Arc<Mutex<bool>>,
}

impl Shared {
    fn ledger(&self) -> Ledger {
        let mut holds = BTreeMap::new();
        for line in self.lines.lock().expect("not poisoned").iter() {
            match line {
                Line::Journal { .. } => {}
                Line::Vcpu(entry) => drop(holds.insert(entry.subject(), entry.clone())),
                Line::Forget(subject) => drop(holds.remove(subject)),
            }
        }
        let mut tokens = 0;
        let new_token = move || {
            tokens += 1;
            Token(format!("token-{tokens}").into())
        };
        Ledger::new(
            Box::new(self.clone()),
            holds.into_values().collect(),
            Box::new(new_token),
        )
    }

    fn fail(&self, fails: bool) {
        *self.fails.lock().expect("not poisoned") = fails;
    }
}

impl Journal for Shared {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        if *self.fails.lock().expect("not poisoned") {
            return Err(JournalError::Nowhere { reason: "as told" });
        }
        self.lines.lock().expect("not poisoned").extend_from_slice(lines);
        Ok(())
    }
}

fn observe(ledger: &mut Ledger, domains: &[&DomainSample]) -> Observed {
    let domains = domains.iter().map(|&domain| domain.clone()).collect();
    let observed = ledger.observe(&sample(domains), &Terms::default());
    ledger.write().expect("written");
    observed
}

/// A ledger that has pinned the first vCPU of a domain, which had all CPUs, to CPU 2.
fn pinned(journal: &Shared, before: &DomainSample) -> Ledger {
    let mut ledger = journal.ledger();
    observe(&mut ledger, &[before]);
    let key = vcpu(before, 0);
    ledger.intend([(&key, &cpus("2"))]).expect("written");
    ledger.confirm(&key, &cpus("2"));
    ledger.write().expect("written");
    ledger
}

/// What the ledger would give the first vCPU back, if anything.
fn gives_back(ledger: &Ledger, domain: &DomainSample) -> Option<String> {
    let key = vcpu(domain, 0);
    let touched = ledger.touched(&key.domain_key());
    let original = ledger.original(&key)?;
    let ours = ledger.is_ours(&key, &domain.vcpus[0].affinity);
    (touched.contains(&key) && ours).then(|| original.to_string())
}

#[test]
fn the_next_process_finds_the_run_by_its_incarnation() {
    let journal = Shared::default();
    drop(pinned(&journal, &domain("a", 1, "run-1", &["0-3"])));
    let mut ledger = journal.ledger();
    // Under another connection it may have another id.
    let now = domain("a", 9, "run-1", &["2"]);
    assert_eq!(observe(&mut ledger, &[&now]).adopted, 1);
    assert_eq!(gives_back(&ledger, &now).as_deref(), Some("0-3"));
    assert!(!ledger.holds(&vcpu(&now, 0)));
}

#[test]
fn a_domain_that_was_started_anew_gets_nothing_of_its_former_run() {
    let journal = Shared::default();
    let mut ledger = pinned(&journal, &domain("a", 1, "run-1", &["0-1"]));
    let again = domain("a", 1, "run-2", &["3"]);
    observe(&mut ledger, &[&again]);
    assert_eq!(gives_back(&ledger, &again), None);
    let mut next = journal.ledger();
    observe(&mut next, &[&again]);
    assert_eq!(gives_back(&next, &again), None);
}

#[test]
fn a_run_without_an_incarnation_is_found_by_what_it_carries() {
    let journal = Shared::default();
    drop(pinned(&journal, &domain("a", 1, "", &["0-1"])));
    let mut ledger = journal.ledger();
    let other = domain("a", 1, "", &["2"]);
    observe(&mut ledger, &[&other]);
    assert_eq!(gives_back(&ledger, &other), None, "it may be another run");
    let mut ledger = journal.ledger();
    let same = carrying(other, "token-1", &[(0, "0-1")]);
    observe(&mut ledger, &[&same]);
    assert_eq!(gives_back(&ledger, &same).as_deref(), Some("0-1"));
}

#[test]
fn after_a_managed_save_it_has_what_it_carries() {
    let journal = Shared::default();
    let mut ledger = pinned(&journal, &domain("a", 1, "run-1", &["0-1"]));
    observe(&mut ledger, &[]);
    // Pinned to something else while it was away: by whoever had it there, which is how it left.
    let back = carrying(domain("a", 2, "run-2", &["3"]), "token-1", &[(0, "0-1")]);
    assert_eq!(observe(&mut ledger, &[&back]).adopted, 1);
    assert_eq!(gives_back(&ledger, &back).as_deref(), Some("0-1"));
    assert_eq!(ledger.records(), 1);
}

#[test]
fn what_is_set_while_nobody_looks_is_somebody_elses() {
    let journal = Shared::default();
    drop(pinned(&journal, &domain("a", 1, "run-1", &["0-3"])));
    let mut ledger = journal.ledger();
    let now = domain("a", 1, "run-1", &["1"]);
    let observed = observe(&mut ledger, &[&now]);
    assert_eq!(observed.notices[0].finding, Finding::Taken);
    assert_eq!(gives_back(&ledger, &now), None);
    // That it is, outlives the process.
    let mut next = journal.ledger();
    observe(&mut next, &[&now]);
    assert!(next.holds(&vcpu(&now, 0)));
}

#[test]
fn a_domain_that_cannot_be_read_is_not_gone() {
    let journal = Shared::default();
    let before = domain("a", 1, "run-1", &["0-3"]);
    let mut ledger = pinned(&journal, &before);
    let unread = || Sample {
        unread: vec![vcpu(&before, 0).domain_key()],
        ..sample(Vec::new())
    };
    for _ in 0..2 * SAMPLES_ENDED {
        ledger.observe(&unread(), &Terms::default());
    }
    let mut next = journal.ledger();
    for _ in 0..2 * SAMPLES_ENDED {
        next.observe(&unread(), &Terms::default());
    }
    let now = domain("a", 1, "run-1", &["2"]);
    for ledger in [&mut ledger, &mut next] {
        observe(ledger, &[&now]);
        assert_eq!(gives_back(ledger, &now).as_deref(), Some("0-3"));
    }
}

#[test]
fn the_record_of_a_run_that_ended_is_forgotten_in_the_end() {
    let journal = Shared::default();
    let mut ledger = pinned(&journal, &domain("a", 1, "run-1", &["0-3"]));
    for _ in 0..=SAMPLES_ENDED {
        observe(&mut ledger, &[]);
        assert_eq!(ledger.records(), 1);
    }
    observe(&mut ledger, &[]);
    assert_eq!((ledger.records(), journal.ledger().records()), (0, 0));
}

/// libvirt sets again what was set before, when a vCPU is plugged in that was taken out.
#[test]
fn a_vcpu_that_is_plugged_in_again_is_the_same_one_if_it_has_what_was_set() {
    let journal = Shared::default();
    let before = domain("a", 1, "r", &["0-3", "0-3"]);
    let (ours, without) = (domain("a", 1, "r", &["2", "0-3"]), domain("a", 1, "r", &[]));
    let mut ledger = pinned(&journal, &before);
    for samples in [1, SAMPLES_MISSING, 2 * SAMPLES_ENDED] {
        for _ in 0..samples {
            observe(&mut ledger, &[&without]);
        }
        let observed = observe(&mut ledger, &[&ours]);
        assert_eq!(observed.notices, [], "{samples}");
        assert_eq!(gives_back(&ledger, &ours).as_deref(), Some("0-3"), "{samples}");
        assert_eq!(journal.ledger().records(), 1);
    }
    // Missing for a moment it is somebody's doing, later another vCPU.
    for (samples, finding) in [(1, Some(Finding::Taken)), (SAMPLES_MISSING, None)] {
        let mut ledger = pinned(&Shared::default(), &before);
        for _ in 0..samples {
            observe(&mut ledger, &[&without]);
        }
        let other = domain("a", 1, "r", &["1", "0-3"]);
        let observed = observe(&mut ledger, &[&other]);
        let found = observed.notices.first().map(|notice| notice.finding.clone());
        assert_eq!(found, finding, "{samples}");
        assert_eq!(gives_back(&ledger, &other), None);
    }
}

#[test]
fn of_a_vcpu_that_is_plugged_in_anew_nothing_is_recorded() {
    let journal = Shared::default();
    let mut ledger = pinned(&journal, &domain("a", 1, "r", &["0-3"]));
    for _ in 0..SAMPLES_MISSING {
        observe(&mut ledger, &[&domain("a", 1, "r", &[])]);
    }
    assert_eq!(journal.ledger().records(), 1);
    observe(&mut ledger, &[&domain("a", 1, "r", &["1"])]);
    assert_eq!((ledger.records(), journal.ledger().records()), (0, 0));
}

#[test]
fn nothing_may_be_pinned_that_is_not_written_and_what_is_unwritten_is_written_later() {
    let journal = Shared::default();
    let before = domain("a", 1, "r", &["0-3"]);
    let mut ledger = journal.ledger();
    observe(&mut ledger, &[&before]);
    journal.fail(true);
    let key = vcpu(&before, 0);
    assert!(ledger.intend([(&key, &cpus("2"))]).is_err());
    assert_eq!(journal.ledger().records(), 0);
    journal.fail(false);
    ledger.write().expect("written");
    assert_eq!(journal.ledger().records(), 1);
}

#[test]
fn domains_are_found_by_name_and_by_uuid() {
    let mut ledger = Ledger::unkept();
    let one = domain("a", 1, "r", &["0-3"]);
    observe(&mut ledger, &[&one]);
    assert_eq!(ledger.find("a"), Some(one.uuid));
    assert_eq!(ledger.find(&one.uuid.to_string().to_uppercase()), Some(one.uuid));
    assert_eq!(ledger.find("b"), None);
    assert!(ledger.has(one.uuid, 0) && !ledger.has(one.uuid, 1));
}

/// Takes keepsakes as told, and counts how often it was asked to.
struct Stubborn {
    asked: u32,
    answer: fn() -> Result<(), PinError>,
}

impl Stubborn {
    fn who_answers(answer: fn() -> Result<(), PinError>) -> Self {
        Self { asked: 0, answer }
    }
}

fn unsupported() -> Result<(), PinError> {
    Err(PinError::Unsupported {
        source: "never".into(),
    })
}

fn refused() -> Result<(), PinError> {
    Err(PinError::Refused {
        source: "not this".into(),
    })
}

fn busy() -> Result<(), PinError> {
    Err(PinError::Busy {
        source: "not now".into(),
    })
}

impl Host for Stubborn {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        Err(HostError::Stopped)
    }
    fn sample(&mut self) -> Result<Sample, HostError> {
        Err(HostError::Stopped)
    }
    fn pin(&mut self, _: &VcpuKey, _: &OsCpuSet) -> Result<(), PinError> {
        Ok(())
    }
    fn affinity(&mut self, _: &VcpuKey) -> Result<OsCpuSet, PinError> {
        Ok(cpus("2"))
    }
    fn keep(&mut self, _: &DomainKey, _: Option<&Keepsake>) -> Result<(), PinError> {
        self.asked += 1;
        (self.answer)()
    }
}

#[test]
fn a_domain_that_carries_nothing_is_not_asked_again_and_needs_an_incarnation() {
    let journal = Shared::default();
    for (incarnation, findable) in [("run-1", true), ("", false)] {
        let before = domain("a", 1, incarnation, &["0-3"]);
        let mut ledger = pinned(&journal, &before);
        let mut host = Stubborn::who_answers(unsupported);
        for _ in 0..3 {
            let stale = ledger.stale();
            ledger.keep(&mut host, &stale);
        }
        assert_eq!(host.asked, 1);
        assert_eq!(ledger.is_safe(&vcpu(&before, 0)), findable);
    }
}

/// Its process tells the run only until it is saved: an original that the domain could carry, and does not, is not safe.
#[test]
fn a_domain_that_refuses_what_it_could_carry_has_no_safe_original() {
    let before = domain("a", 1, "run-1", &["0-3"]);
    let mut ledger = pinned(&Shared::default(), &before);
    let key = vcpu(&before, 0);
    let all = BTreeSet::from([key.domain_key()]);
    let mut host = Stubborn::who_answers(refused);
    for _ in 0..3 {
        ledger.keep(&mut host, &all);
        assert!(!ledger.is_safe(&key));
    }
}

#[test]
fn a_domain_that_did_not_take_it_is_asked_again_when_it_is_to_be_pinned() {
    let before = domain("a", 1, "run-1", &["0-3", "0-3"]);
    let key = vcpu(&before, 0);
    let all = BTreeSet::from([key.domain_key()]);
    for answer in [busy, refused] {
        let mut ledger = pinned(&Shared::default(), &before);
        ledger.keep(&mut Stubborn::who_answers(answer), &all);
        assert!(!ledger.is_safe(&key));
        assert!(ledger.stale().is_empty(), "a busy domain makes calls wait");
        ledger.keep(&mut Stubborn::who_answers(|| Ok(())), &all);
        assert!(ledger.is_safe(&key));
        assert!(
            !ledger.is_safe(&vcpu(&before, 1)),
            "nothing is carried of this one"
        );
    }
}

#[test]
fn of_what_is_left_alone_no_more_the_journal_says_nothing() {
    let journal = Shared::default();
    let mut ledger = journal.ledger();
    observe(&mut ledger, &[&domain("a", 1, "run-1", &["0-3"])]);
    let held = domain("a", 1, "run-1", &["1"]);
    observe(&mut ledger, &[&held]);
    assert_eq!(journal.ledger().records(), 1);
    assert_eq!(ledger.release(held.uuid, None).len(), 1);
    ledger.write().expect("written");
    assert_eq!(journal.ledger().records(), 0);
}

#[test]
fn a_cpu_that_was_plugged_in_meanwhile_is_among_all_that_are_given_back() {
    let mut ledger = pinned(&Shared::default(), &domain("a", 1, "r", &["0-3"]));
    let now = domain("a", 1, "r", &["2"]);
    let mut larger = sample(vec![now.clone()]);
    larger.topology = Arc::new(Topology::uniform(1, 1, 6, 1).expect("valid"));
    ledger.observe(&larger, &Terms::default());
    assert_eq!(gives_back(&ledger, &now).as_deref(), Some("0-5"));
    assert_eq!(
        ledger.custody(&vcpu(&now, 0)).map(|custody| &custody.original),
        Some(&Original::Inherit)
    );
}

/// A dry run writes nothing, for as long as it goes on.
#[test]
fn who_never_writes_does_not_remember_runs_that_ended() {
    let mut ledger = Ledger::unkept();
    for instance in 0..3 * u64::from(SAMPLES_ENDED) {
        for mask in ["0-3", "1"] {
            let now = domain("a", instance, "", &[mask]);
            ledger.observe(&sample(vec![now]), &Terms::default());
        }
    }
    assert_eq!((ledger.unwritten.len(), ledger.ended.len()), (1, 0));
}

/// Ids repeat: what is ours in one run is somebody else's in another one of the same id.
#[test]
fn another_process_under_the_same_id_has_none_of_our_pins() {
    let mut ledger = pinned(&Shared::default(), &domain("a", 1, "run-1", &["0-3"]));
    let other = domain("a", 1, "run-2", &["2"]);
    observe(&mut ledger, &[&other]);
    assert_eq!(gives_back(&ledger, &other), None);
}
