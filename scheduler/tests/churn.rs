//! A host on which guests come and go faster than anybody looks: the engine, with its ledger and its journal, keeps up, pins
//! nothing that is not as it should be, and remembers no more than what is there.
//!
//! The host is libvirt's test driver, in this process, so that thousands of guests a second can be had. Each guest is bound
//! to CPUs that depend on how often it was started, so that a pin that was meant for a former run of it shows.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};
use vcpu_scheduler::engine::apply::apply;
use vcpu_scheduler::engine::journal::file::{self, FileJournal};
use vcpu_scheduler::engine::ledger::Ledger;
use vcpu_scheduler::engine::restore::restore;
use vcpu_scheduler::engine::terms::Terms;
use vcpu_scheduler::engine::{Engine, MakePolicy};
use vcpu_scheduler::host::libvirt::{Access, LibvirtHost};
use vcpu_scheduler::host::{Host, PinError, Sample, Token};
use vcpu_scheduler::stop::Stop;
use virt::connect::Connect;
use virt::domain::Domain;

/// How many guests are started, and destroyed again.
const GUESTS: u32 = 4_000;
/// From start to start: a thousand a second come, and a thousand go.
const PACE: Duration = Duration::from_millis(1);
/// How many run at a time: each lives for as many starts of others.
const AT_A_TIME: usize = 24;
/// As many UUIDs, and no more: a run is soon followed by the next one of the same guest.
const UUIDS: u32 = 25;

/// Moves each vCPU on to the next CPU that it may use, in every tick.
struct Restless;

impl Decide for Restless {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        for vcpu in snapshot.vcpus().filter(Vcpu::is_movable) {
            let alone = |cpu| [cpu].into_iter().collect::<CpuSet>();
            let others: Vec<CpuSet> = vcpu
                .allowed()
                .iter()
                .map(alone)
                .filter(|set| set.as_ref() != vcpu.affinity())
                .collect();
            let turn = usize::try_from(snapshot.tick()).unwrap_or(0);
            if let Some(next) = others.get(turn % others.len().max(1)) {
                plan.pin(vcpu.ix(), next.as_ref(), "restless", 1.0);
            }
        }
        Ok(())
    }
}

/// Where the guest of a start is bound to.
fn bound_to(start: u32) -> &'static str {
    if (start / UUIDS).is_multiple_of(2) {
        "0-3"
    } else {
        "4-7"
    }
}

fn start(host: &Connect, start: u32) -> Domain {
    let (guest, cpus) = (start % UUIDS, bound_to(start));
    let xml = format!(
        "<domain type='test'><name>churn-{guest}-{start}</name><uuid>00000000-0000-4000-8000-{guest:012}</uuid>
         <memory>4096</memory><vcpu cpuset='{cpus}'>2</vcpu><os><type>hvm</type></os></domain>"
    );
    host.create_domain_xml(&xml, 0).expect("created")
}

/// Starts guests and destroys the oldest ones. Nothing comes or goes while somebody else has the turn.
fn come_and_go(turn: &Mutex<()>) {
    let host = Connect::open(Some("test:///default")).expect("the test driver");
    let take_turn = || turn.lock().expect("nobody panics with it");
    let mut running = VecDeque::new();
    let begun = Instant::now();
    for number in 0..GUESTS {
        thread::sleep((begun + PACE * number).saturating_duration_since(Instant::now()));
        if running.len() == AT_A_TIME {
            let _turn = take_turn();
            let oldest: Domain = running.pop_front().expect("as many as that");
            oldest.destroy().expect("destroyed");
        }
        let _turn = take_turn();
        running.push_back(start(&host, number));
    }
    for domain in running {
        let _turn = take_turn();
        domain.destroy().expect("destroyed");
    }
}

/// Each pin, which is to a single CPU, is where the guest's own start has bound it to. (Which CPUs an unpinned vCPU may run on
/// libvirt says by UUID: at this pace that can be the next run's.)
fn look(sample: &Sample) {
    for domain in &sample.domains {
        let Some(number) = domain
            .name
            .strip_prefix("churn-")
            .and_then(|name| name.split_once('-'))
        else {
            continue;
        };
        let bound = bound_to(number.1.parse().expect("our own name"));
        let bound: OsCpuSet = bound.parse().expect("a CPU list");
        for vcpu in &domain.vcpus {
            let pinned_to = vcpu.affinity.as_ref().single();
            assert!(pinned_to.is_none_or(|cpu| bound.contains(cpu)), "{domain:?}");
        }
    }
}

#[test]
fn the_engine_keeps_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = FileJournal::open(folder.path(), None).expect("a journal");
    let mut tokens = 0_u32;
    let new_token = move || {
        tokens += 1;
        Token(format!("run-{tokens}").into())
    };
    let mut ledger = Ledger::new(Box::new(journal), Vec::new(), Box::new(new_token));
    let mut host = LibvirtHost::open(Some("test:///default"), Access::ReadWrite).expect("the test driver");
    let make: MakePolicy = Box::new(|| Ok(Box::new(Restless)));
    let terms = Terms::default();
    let mut engine = Engine::new(make, terms.clone()).expect("made");

    let (turn, done) = (Mutex::new(()), AtomicBool::new(false));
    let (mut ticks, mut pins, mut most_records) = (0_u32, 0, 0);
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            come_and_go(&turn);
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let sample = host.sample().expect("readable whatever comes and goes");
            look(&sample);
            ledger.observe(&sample, &terms);
            let decided = engine
                .decide(&sample, &ledger)
                .expect("a policy that always decides");
            let Some(decision) = decided else { continue };
            // libvirt has no call that looks and acts at once, so nothing may come or go between the two.
            let applied = {
                let _turn = turn.lock().expect("nobody panics with it");
                apply(
                    &mut host,
                    &mut ledger,
                    &decision.collected,
                    &decision.verdict.accepted,
                )
            };
            assert!(
                decision.verdict.rejected.is_empty(),
                "{:?}",
                decision.verdict.rejected
            );
            assert!(
                applied.unrecorded.is_none() && applied.lost.is_none(),
                "{applied:?}"
            );
            for failed in &applied.failed {
                assert!(matches!(failed.error, PinError::Gone), "{failed:?}");
            }
            (ticks, pins) = (ticks + 1, pins + applied.pinned.len());
            most_records = most_records.max(ledger.records());
            engine.learn(&applied);
        }
    });
    let took = begun.elapsed();
    assert!(pins > 100, "only {pins} pins in {ticks} ticks and {took:?}");
    // Those that run, and those that ended within the last 64 samples, in each of which a few hundred can have come and gone.
    assert!(most_records < 4 * UUIDS as usize * 64, "{most_records} records");

    let (_stopper, stop) = Stop::new();
    let in_a_minute = Instant::now() + Duration::from_secs(60);
    let restored = restore(&mut host, &mut ledger, &terms, in_a_minute, &stop);
    assert!(
        restored.remaining.is_empty() && restored.left_alone.is_empty(),
        "{restored:?}"
    );
    assert_eq!(ledger.records(), 0);
    assert_eq!(file::read(folder.path(), None).expect("a journal"), []);
    let left = host.sample().expect("readable");
    assert_eq!(left.domains.len(), 1);
    assert!(left.domains[0].keepsake.is_none(), "{left:?}");
}
