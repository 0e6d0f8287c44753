//! What a test of random faults has taught the ledger, each as a case of its own.

use std::sync::Mutex;

use vcpu_policy_api::topology::{Distances, Topology, uniform_sites};

use super::super::*;
use crate::engine::terms::InitialPins;
use crate::host::{Definition, Incarnation, Instance, Keepsake, Kept, Original, VcpuSample};

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a CPU list")
}

/// A host of four CPUs, of which these are online, and of one domain.
fn sample(at: u64, online: &str, domains: Vec<DomainSample>) -> Sample {
    let mut sites = uniform_sites(1, 1, 4, 1);
    for site in &mut sites {
        site.online = cpus(online).contains(site.os_id);
    }
    Sample {
        read_at_ns: at,
        topology: Arc::new(Topology::new(sites, &Distances::new()).expect("a host")),
        isolated: OsCpuSet::new(),
        domains,
        unread: Vec::new(),
        connection: 0,
    }
}

fn domain(run: Option<&str>, token: Option<&str>, affinities: &[&str]) -> DomainSample {
    let vcpu = |(number, list): (u32, &&str)| VcpuSample {
        number,
        read_at_ns: 0,
        run_ns: 0,
        delay_ns: None,
        last_cpu: None,
        affinity: cpus(list),
    };
    let kept = Kept {
        original: Original::Inherit,
        hands_off: false,
    };
    DomainSample {
        uuid: DomainUuid([1; 16]),
        instance: Instance(1),
        name: "web".into(),
        definition: Arc::new(Definition::default()),
        incarnation: run.map(|run| Incarnation(run.into())),
        keepsake: token.map(|token| {
            Arc::new(Keepsake {
                token: Token(token.into()),
                vcpus: BTreeMap::from([(0, kept)]),
            })
        }),
        vcpus: (0..).zip(affinities).map(vcpu).collect(),
    }
}

const VCPU: VcpuKey = VcpuKey {
    domain: DomainUuid([1; 16]),
    instance: Instance(1),
    number: 0,
};

#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<Line>>>);

impl Journal for Notebook {
    fn append(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        self.0.lock().expect("no panic").extend_from_slice(lines);
        Ok(())
    }
}

impl Notebook {
    fn last(&self) -> Option<Line> {
        self.0.lock().expect("no panic").last().cloned()
    }
}

fn ledger() -> (Ledger, Notebook) {
    let notebook = Notebook::default();
    let new_token: NewToken = Box::new(|| Token("new".into()));
    let ledger = Ledger::new(Box::new(notebook.clone()), Vec::new(), new_token);
    (ledger, notebook)
}

fn see(ledger: &mut Ledger, sample: &Sample) -> Vec<Finding> {
    let observed = ledger.observe(sample, &Terms::default());
    observed
        .notices
        .into_iter()
        .map(|notice| notice.finding)
        .collect()
}

#[test]
fn the_same_sample_again_shows_nothing() {
    let (mut ledger, _) = ledger();
    let before = sample(1, "0-3", vec![domain(Some("a"), None, &["0-1"])]);
    see(&mut ledger, &before);
    ledger.intend([(&VCPU, &cpus("2"))]).expect("written");
    ledger.ask(&VCPU);
    ledger.confirm(&VCPU, &cpus("2"));
    assert_eq!(see(&mut ledger, &before), []);
    let after = sample(2, "0-3", vec![domain(Some("a"), None, &["2"])]);
    assert_eq!(see(&mut ledger, &after), []);
    assert!(!ledger.holds(&VCPU));
}

#[test]
fn who_has_what_is_only_intended_has_it_from_another_hand() {
    let (mut ledger, _) = ledger();
    see(
        &mut ledger,
        &sample(1, "0-3", vec![domain(Some("a"), None, &["0-3"])]),
    );
    ledger.intend([(&VCPU, &cpus("2"))]).expect("written");
    assert!(!ledger.is_ours(&VCPU, &cpus("2")));
    ledger.ask(&VCPU);
    assert!(ledger.is_ours(&VCPU, &cpus("2")));
}

#[test]
fn only_the_kernel_widens_a_mask_whose_cpus_go_offline() {
    for (seen, finding) in [("0-2", Finding::Displaced), ("0", Finding::Taken)] {
        let (mut ledger, _) = ledger();
        see(
            &mut ledger,
            &sample(1, "0-3", vec![domain(Some("a"), None, &["1,3"])]),
        );
        ledger.intend([(&VCPU, &cpus("3"))]).expect("written");
        ledger.confirm(&VCPU, &cpus("3"));
        let after = sample(2, "0-2", vec![domain(Some("a"), None, &[seen])]);
        assert_eq!(see(&mut ledger, &after), [finding], "{seen}");
    }
}

#[test]
fn the_journal_forgets_whom_nobody_holds_any_more() {
    let (mut ledger, notebook) = ledger();
    for (at, seen) in [(1, "0-3"), (2, "1")] {
        see(
            &mut ledger,
            &sample(at, "0-3", vec![domain(Some("a"), None, &[seen])]),
        );
        ledger.write().expect("written");
    }
    assert!(matches!(notebook.last(), Some(Line::Vcpu(entry)) if entry.manual == Some(cpus("1"))));
    see(
        &mut ledger,
        &sample(3, "0-3", vec![domain(Some("a"), None, &["0-3"])]),
    );
    // Whether the domain is still there when it is written or not.
    see(&mut ledger, &sample(4, "0-3", Vec::new()));
    ledger.write().expect("written");
    assert!(matches!(notebook.last(), Some(Line::Forget(subject)) if subject.vcpu == 0));
}

#[test]
fn a_domain_goes_on_carrying_what_of_it_is_not_shown_yet() {
    let (mut ledger, _) = ledger();
    see(
        &mut ledger,
        &sample(1, "0-3", vec![domain(Some("b"), Some("t"), &[])]),
    );
    let run = &ledger.runs[&VCPU.domain_key()];
    assert_eq!(run.keepsake().as_ref(), run.luggage.known());
    see(
        &mut ledger,
        &sample(2, "0-3", vec![domain(Some("b"), Some("t"), &["2"])]),
    );
    let custody = ledger.custody(&VCPU).expect("known");
    assert_eq!(
        (&custody.original, &custody.expected),
        (&Original::Inherit, &cpus("2"))
    );
}

/// Ids may begin anew with a connection; over one of them each is given once.
/// It came back from a managed save without a vCPU that someone else had pinned.
#[test]
fn what_a_domain_carries_of_a_vcpu_waits_until_it_is_plugged_in() {
    let (mut ledger, _) = ledger();
    let carrying = |affinities: &[&str]| {
        let mut carrier = domain(Some("a"), Some("t"), affinities);
        let mut keepsake = carrier.keepsake.as_deref().expect("carried").clone();
        keepsake.vcpus.values_mut().for_each(|kept| kept.hands_off = true);
        carrier.keepsake = Some(Arc::new(keepsake));
        carrier
    };
    for at in 1..=2 * u64::from(SAMPLES_MISSING) {
        see(&mut ledger, &sample(at, "0-3", vec![carrying(&[])]));
    }
    see(&mut ledger, &sample(99, "0-3", vec![carrying(&["2"])]));
    assert!(ledger.holds(&VCPU));
    assert_eq!(ledger.original(&VCPU), Some(cpus("0-3")));
}

/// Released before it was ever shown: what the journal said of that nothing would have taken back.
#[test]
fn the_journal_says_nothing_of_what_was_not_seen() {
    let (mut ledger, notebook) = ledger();
    let mut carrier = domain(Some("a"), Some("t"), &[]);
    let mut keepsake = carrier.keepsake.as_deref().expect("carried").clone();
    keepsake.vcpus.values_mut().for_each(|kept| kept.hands_off = true);
    carrier.keepsake = Some(Arc::new(keepsake));
    see(&mut ledger, &sample(1, "0-3", vec![carrier]));
    assert_eq!(ledger.release(VCPU.domain, None), [VCPU]);
    ledger.write().expect("written");
    assert_eq!(notebook.last(), None);
}

#[test]
fn without_an_incarnation_the_token_tells_the_run_over_another_connection() {
    for (connection, token, same) in [
        (0, Some("t"), true),
        // Someone took it away by hand.
        (0, None, true),
        (1, Some("t"), true),
        (1, None, false),
        (1, Some("u"), false),
    ] {
        let (mut ledger, _) = ledger();
        see(
            &mut ledger,
            &sample(1, "0-3", vec![domain(None, Some("t"), &["2"])]),
        );
        let later = Sample {
            connection,
            ..sample(2, "0-3", vec![domain(None, token, &["2"])])
        };
        see(&mut ledger, &later);
        let known = ledger.runs[&VCPU.domain_key()].keepsake();
        let ours = known.is_some_and(|kept| &*kept.token.0 == "t");
        assert_eq!(ours, same, "{connection} {token:?}");
    }
}

/// Nothing is carried, so nothing was pinned; and nothing tells that it is the same run.
#[test]
fn without_an_incarnation_a_run_that_carries_nothing_is_not_known_over_another_connection() {
    for (connection, original) in [(0, "0-3"), (1, "1")] {
        let (mut ledger, _) = ledger();
        see(&mut ledger, &sample(1, "0-3", vec![domain(None, None, &["0-3"])]));
        let now = Sample {
            connection,
            ..sample(2, "0-3", vec![domain(None, None, &["1"])])
        };
        see(&mut ledger, &now);
        let given_back = ledger.original(&VCPU);
        assert_eq!(given_back, Some(cpus(original)), "{connection}");
    }
}

#[test]
fn a_mask_that_the_kernel_may_find_back_to_is_not_forgotten() {
    let (mut ledger, _) = ledger();
    see(
        &mut ledger,
        &sample(1, "0-3", vec![domain(Some("a"), None, &["0-3"])]),
    );
    ledger.intend([(&VCPU, &cpus("3"))]).expect("written");
    ledger.confirm(&VCPU, &cpus("3"));
    see(
        &mut ledger,
        &sample(2, "0-2", vec![domain(Some("a"), None, &["0-3"])]),
    );
    // It has its original, and may lose it again.
    assert!(ledger.is_pending(&VCPU));
    let back = sample(3, "0-3", vec![domain(Some("a"), None, &["3"])]);
    assert_eq!(see(&mut ledger, &back), [Finding::Confirmed]);
}

#[test]
fn what_is_respected_at_first_sight_is_held() {
    let (mut ledger, _) = ledger();
    let terms = Terms {
        initial_pins: InitialPins::Respect,
        ..Terms::default()
    };
    ledger.observe(&sample(1, "0-3", vec![domain(Some("a"), None, &["1"])]), &terms);
    assert!(ledger.holds(&VCPU));
}
