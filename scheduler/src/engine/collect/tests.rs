//! What the collector promises, on samples written by hand.

use proptest::prelude::*;
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::document;
use vcpu_policy_api::ids::{OsCpuId, VcpuIx};
use vcpu_policy_api::topology::Topology;

mod movable;

use super::*;
use crate::engine::terms::Terms;
use crate::host::{Definition, VcpuSample};

const SECOND: u64 = 1_000_000_000;

fn cpus(list: &str) -> OsCpuSet {
    list.parse().expect("a CPU list")
}

fn vcpu(number: u32, at: u64, run_ns: u64) -> VcpuSample {
    VcpuSample {
        number,
        read_at_ns: at,
        run_ns,
        delay_ns: None,
        last_cpu: Some(OsCpuId(1)),
        affinity: cpus("0-3"),
    }
}

fn domain(name: &str, instance: u64, vcpus: Vec<VcpuSample>) -> DomainSample {
    DomainSample {
        uuid: DomainUuid(document::uuid_from_name(name)),
        instance: Instance(instance),
        name: name.into(),
        definition: Arc::new(Definition::default()),
        incarnation: None,
        keepsake: None,
        vcpus,
    }
}

/// Four pCPUs, one NUMA node.
struct Bench {
    topology: Arc<Topology>,
    collector: Collector,
}

impl Bench {
    fn new() -> Self {
        let topology = Arc::new(Topology::uniform(1, 1, 4, 1).expect("valid"));
        Self {
            topology,
            collector: Collector::new(Terms::default()),
        }
    }

    /// What the snapshot after this sample says, as a file; `None` for a baseline.
    fn collect(&mut self, at: u64, domains: Vec<DomainSample>) -> Option<String> {
        let sample = Sample {
            read_at_ns: at,
            topology: Arc::clone(&self.topology),
            isolated: OsCpuSet::new(),
            domains,
            unread: Vec::new(),
            connection: 0,
        };
        let collected = self
            .collector
            .collect(&sample, true, &|_| false)
            .expect("possible");
        collected.map(|collected| document::write(&collected.snapshot))
    }

    /// Load, movability and slot of each vCPU after this sample.
    fn rows(&mut self, at: u64, domains: Vec<DomainSample>) -> Vec<(Option<f64>, bool, usize)> {
        let text = self.collect(at, domains).expect("not a baseline");
        let block = document::read(&text).expect("written by us");
        let snapshot = block.view();
        snapshot
            .vcpus()
            .map(|vcpu| (vcpu.load(), vcpu.is_movable(), vcpu.slot()))
            .collect()
    }
}

#[test]
fn load_is_run_time_over_the_counters_own_time() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.collect(
            SECOND,
            vec![domain("a", 1, vec![vcpu(0, SECOND, 0), vcpu(1, SECOND, 0)])]
        ),
        None
    );
    // The second vCPU was read half a second late, and ran half of its one and a half seconds.
    let late = vec![
        vcpu(0, 2 * SECOND, SECOND / 4),
        vcpu(1, 2 * SECOND + SECOND / 2, 3 * SECOND / 4),
    ];
    let rows = bench.rows(2 * SECOND, vec![domain("a", 1, late)]);
    assert_eq!(rows, [(Some(25.0), true, 0), (Some(50.0), true, 1)]);
}

#[test]
fn wait_is_delay_over_time_and_unknown_where_the_host_cannot_say() {
    let mut bench = Bench::new();
    let with_delay = |at, delay_ns| VcpuSample {
        delay_ns,
        ..vcpu(0, at, 0)
    };
    bench.collect(SECOND, vec![domain("a", 1, vec![with_delay(SECOND, Some(7))])]);
    let text = bench.collect(
        2 * SECOND,
        vec![domain(
            "a",
            1,
            vec![with_delay(2 * SECOND, Some(7 + SECOND / 10))],
        )],
    );
    assert!(text.expect("a snapshot").contains("wait: 10.0"));
    let text = bench.collect(
        3 * SECOND,
        vec![domain("a", 1, vec![with_delay(3 * SECOND, None)])],
    );
    assert!(!text.expect("a snapshot").contains("wait"));
}

#[test]
fn a_vcpu_without_history_has_no_load_and_stays() {
    let mut bench = Bench::new();
    bench.collect(SECOND, vec![domain("old", 1, vec![vcpu(0, SECOND, 0)])]);
    let both = |at: u64, run: u64| {
        vec![
            domain("old", 1, vec![vcpu(0, at, run)]),
            domain("new", 2, vec![vcpu(0, at, run)]),
        ]
    };
    let rows = bench.rows(2 * SECOND, both(2 * SECOND, SECOND / 2));
    assert_eq!(rows, [(Some(50.0), true, 0), (None, false, 1)]);
    let rows = bench.rows(3 * SECOND, both(3 * SECOND, SECOND));
    assert_eq!(rows, [(Some(50.0), true, 0), (Some(50.0), true, 1)]);
}

#[test]
fn a_counter_that_goes_backwards_is_a_new_beginning() {
    let mut bench = Bench::new();
    for (at, run, expected) in [(2, SECOND, None), (3, SECOND / 2, None), (4, SECOND, Some(50.0))] {
        let sample = vec![domain("a", 1, vec![vcpu(0, at * SECOND, run)])];
        let Some(text) = bench.collect(at * SECOND, sample) else {
            continue;
        };
        let block = document::read(&text).expect("written by us");
        assert_eq!(block.view().vcpu(VcpuIx(0)).load(), expected, "at {at} s");
    }
}

#[test]
fn a_restarted_domain_is_a_new_one() {
    let mut bench = Bench::new();
    bench.collect(SECOND, vec![domain("a", 1, vec![vcpu(0, SECOND, 5)])]);
    let rows = bench.rows(
        2 * SECOND,
        vec![domain("a", 2, vec![vcpu(0, 2 * SECOND, SECOND)])],
    );
    assert_eq!(
        rows,
        [(None, false, 1)],
        "the slot of the run before is not free yet"
    );
}

#[test]
fn a_missing_sample_makes_the_next_one_a_baseline() {
    let mut bench = Bench::new();
    let sample = |at: u64| vec![domain("a", 1, vec![vcpu(0, at * SECOND, at * SECOND / 2)])];
    bench.collect(SECOND, sample(1));
    assert!(bench.collect(2 * SECOND, sample(2)).is_some());
    bench.collector.interrupt();
    assert_eq!(bench.collect(9 * SECOND, sample(9)), None);
    let text = bench.collect(10 * SECOND, sample(10)).expect("a snapshot");
    assert!(text.contains("load: 50.0") && text.contains("tick: 4"), "{text}");
}

#[test]
fn a_slot_is_given_away_only_after_a_tick_of_absence() {
    let mut bench = Bench::new();
    let guests = |at: u64, names: &[&str]| -> Vec<DomainSample> {
        names
            .iter()
            .map(|name| domain(name, 1, vec![vcpu(0, at * SECOND, 0)]))
            .collect()
    };
    bench.collect(SECOND, guests(1, &["a", "b"]));
    let slots = |rows: Vec<(Option<f64>, bool, usize)>| rows.into_iter().map(|row| row.2).collect::<Vec<_>>();
    assert_eq!(
        slots(bench.rows(2 * SECOND, guests(2, &["b", "c"]))),
        [1, 2],
        "a left, but only just now"
    );
    assert_eq!(
        slots(bench.rows(3 * SECOND, guests(3, &["b", "c", "d"]))),
        [1, 2, 0]
    );
}

#[test]
fn a_load_counts_on_the_only_cpu_of_the_affinity_else_where_it_last_ran() {
    let mut bench = Bench::new();
    let masks = [("2", Some(1)), ("2-3", Some(1)), ("0-3", None), ("8", Some(3))];
    let sample = |at: u64| {
        let vcpus = (0..).zip(masks).map(|(number, (mask, last))| VcpuSample {
            affinity: cpus(mask),
            last_cpu: last.map(OsCpuId),
            ..vcpu(number, at, 0)
        });
        vec![domain("a", 1, vcpus.collect())]
    };
    bench.collect(SECOND, sample(SECOND));
    let text = bench.collect(2 * SECOND, sample(2 * SECOND)).expect("a snapshot");
    let block = document::read(&text).expect("written by us");
    let counted: Vec<Option<u32>> = block
        .view()
        .vcpus()
        .map(|vcpu| vcpu.cpu().map(|cpu| cpu.0))
        .collect();
    assert_eq!(counted, [Some(2), Some(1), None, Some(3)]);
    let anywhere = block.view().vcpu(VcpuIx(3)).affinity().len();
    assert_eq!(
        anywhere, 4,
        "a mask without an online CPU means anywhere, as in the kernel"
    );
}

#[test]
fn the_definition_binds_what_is_allowed() {
    let mut bench = Bench::new();
    let definition = Definition {
        cpuset: Some(cpus("0-1")),
        vcpupin: [(1, cpus("3")), (2, cpus("7"))].into(),
        ..Definition::default()
    };
    let definition = Arc::new(definition);
    let sample = |at: u64| {
        let vcpus = (0..3).map(|number| vcpu(number, at, 0)).collect();
        vec![DomainSample {
            definition: Arc::clone(&definition),
            ..domain("a", 1, vcpus)
        }]
    };
    bench.collect(SECOND, sample(SECOND));
    let text = bench.collect(2 * SECOND, sample(2 * SECOND)).expect("a snapshot");
    let block = document::read(&text).expect("written by us");
    let snapshot = block.view();
    let allowed: Vec<(String, bool)> = snapshot
        .vcpus()
        .map(|vcpu| (snapshot.os_ids(vcpu.allowed()).to_string(), vcpu.is_movable()))
        .collect();
    assert_eq!(
        allowed,
        [
            ("0-1".to_owned(), true),
            ("3".to_owned(), true),
            (String::new(), false)
        ]
    );
}

proptest! {
    /// The order in which a host lists its domains changes rows, never measures; and no two vCPUs share a slot.
    #[test]
    fn slots_stay_with_their_vcpus(ticks in prop::collection::vec(prop::collection::btree_set((0u8..6, 0u32..3), 0..12), 2..8)) {
        let mut bench = Bench::new();
        let mut owners: BTreeMap<VcpuKey, (usize, u64)> = BTreeMap::new();
        for (tick, present) in (1u64..).zip(&ticks) {
            let mut by_domain: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            for &(name, number) in present {
                by_domain.entry(name).or_default().push(number);
            }
            let domains = by_domain.iter().map(|(name, numbers)| {
                domain(&format!("d{name}"), 1, numbers.iter().map(|&number| vcpu(number, tick * SECOND, 0)).collect())
            }).collect();
            let sample = Sample { read_at_ns: tick * SECOND, topology: Arc::clone(&bench.topology), isolated: OsCpuSet::new(), domains, unread: Vec::new(), connection: 0 };
            let Some(collected) = bench.collector.collect(&sample, true, &|_| false).expect("possible") else { continue };
            let mut now: BTreeMap<VcpuKey, (usize, u64)> = BTreeMap::new();
            for (key, vcpu) in collected.keys.iter().zip(collected.snapshot.vcpus()) {
                prop_assert_eq!((key.number, key.domain.0), (vcpu.number(), vcpu.domain().uuid()));
                if let Some(&before) = owners.get(key) {
                    prop_assert_eq!((vcpu.slot(), vcpu.born()), before);
                }
                now.insert(*key, (vcpu.slot(), vcpu.born()));
            }
            let mut slots: Vec<usize> = now.values().map(|&(slot, _)| slot).collect();
            slots.sort_unstable();
            slots.dedup();
            prop_assert_eq!(slots.len(), now.len());
            owners = now;
        }
    }
}
