//! Any snapshot written as a file and read again is the same snapshot, to the bit.

#![cfg(feature = "yaml")]

use std::fmt::Write;

use proptest::prelude::*;
use vcpu_policy_api::cpuset::{CpuSet, CpuSetRef};
use vcpu_policy_api::document;
use vcpu_policy_api::ids::{CpuIx, NodeIx, OsCpuId, indexes};
use vcpu_policy_api::snapshot::{DomainEntry, Moment, Snapshot, SnapshotBlock, SnapshotBuilder, VcpuEntry};
use vcpu_policy_api::topology::{CpuSite, Distances, Topology};

/// A host of up to 80 CPUs, some of them missing, with labels of any kind.
fn topologies() -> impl Strategy<Value = Topology> {
    let regular = (1u32..3, 1u32..3, 1u32..4, 1u32..3).prop_map(|(nodes, llcs, cores, threads)| {
        Topology::uniform(nodes, llcs, cores, threads).expect("valid")
    });
    let site = (
        0u32..3,
        0u32..3,
        0u32..6,
        prop::bool::weighted(0.9),
        prop_oneof![Just(100.0), 1.0..400.0],
    );
    let odd = (prop::collection::btree_map(0u32..80, site, 1..20), 11u32..40).prop_filter_map(
        "all offline",
        |(sites, distance)| {
            let sites = sites
                .into_iter()
                .map(|(os_id, (node, llc, core, online, capacity))| CpuSite {
                    os_id: OsCpuId(os_id),
                    node,
                    llc,
                    core,
                    online,
                    capacity,
                });
            let distances: Distances = [((0, 1), distance)].into();
            Topology::new(sites.collect(), &distances).ok()
        },
    );
    prop_oneof![regular, odd]
}

type Measure = Option<f64>;

#[derive(Debug, Clone)]
struct AnyVcpu {
    gap: u32,
    cpu: Option<usize>,
    affinity: Vec<bool>,
    allowed: Vec<bool>,
    movable: bool,
    slot: Option<u32>,
    born: u64,
    load: Measure,
    wait: Measure,
}

fn measures() -> impl Strategy<Value = Measure> {
    prop::option::of(prop_oneof![
        Just(0.0),
        0.0..200.0,
        Just(1e-300),
        Just(33.333_333_333_333_336)
    ])
}

fn vcpus() -> impl Strategy<Value = AnyVcpu> {
    let bits = || {
        prop_oneof![
            Just(vec![true; 80]),
            prop::collection::vec(any::<bool>(), 80),
            (0usize..80).prop_map(|one| { (0..80).map(|at| at == one).collect() })
        ]
    };
    (
        0u32..3,
        prop::option::of(0usize..80),
        bits(),
        bits(),
        any::<bool>(),
        prop::option::of(0u32..9),
        0u64..4,
        measures(),
        measures(),
    )
        .prop_map(
            |(gap, cpu, affinity, allowed, movable, slot, born, load, wait)| AnyVcpu {
                gap,
                cpu,
                affinity,
                allowed,
                movable,
                slot,
                born,
                load,
                wait,
            },
        )
}

prop_compose! {
    fn snapshots()(
        topology in topologies(),
        reserved in prop::collection::vec(prop::bool::weighted(0.2), 80),
        domains in prop::collection::vec((any::<bool>(), prop::option::of(any::<[u8; 16]>()), any::<bool>(), measures(), prop::collection::vec(vcpus(), 0..4)), 0..5),
        moment in (1u64..9, 0u64..u64::MAX / 8, 1u64..10_000_000_000, any::<u64>(), prop::option::of(0u32..100), any::<bool>()),
    ) -> SnapshotBlock {
        let cpus = topology.cpus().len();
        let set = |bits: &[bool]| -> CpuSet { indexes::<CpuIx>(cpus).filter(|ix| bits[ix.0 as usize]).collect() };
        let mut managed = CpuSet::first(cpus);
        managed.subtract(set(&reserved).as_ref());
        let (tick, now_ns, interval_ns, seed, budget, fresh) = moment;
        let mut builder = SnapshotBuilder::new();
        builder.begin(&topology, managed.as_ref(), Moment { tick, now_ns, interval_ns, seed, budget, fresh });
        let mut slot = 0;
        for (at, (managed_domain, uuid, remote, weight, vcpus)) in domains.iter().enumerate() {
            let name = format!("guest-{at}");
            let node = if *remote { topology.nodes().len() - 1 } else { 0 };
            builder.domain(DomainEntry {
                name: &name,
                uuid: uuid.unwrap_or_else(|| document::uuid_from_name(&name)),
                managed: *managed_domain,
                memory_node: remote.then(|| NodeIx(u32::try_from(node).expect("small"))),
                weight: *weight,
            });
            let mut number = 0;
            for vcpu in vcpus {
                number += vcpu.gap;
                // A host has no affinity without an online CPU: the kernel then lets the thread run anywhere.
                let affinity = Some(set(&vcpu.affinity)).filter(|set| !set.is_empty()).unwrap_or_else(|| CpuSet::first(cpus));
                let mut allowed = set(&vcpu.allowed);
                allowed.intersect(managed.as_ref());
                let last = vcpu.cpu.map(|cpu| CpuIx(u32::try_from(cpu % cpus).expect("small")));
                builder.vcpu(&VcpuEntry {
                    number,
                    cpu: affinity.as_ref().single().or(last),
                    affinity: affinity.as_ref(),
                    allowed: allowed.as_ref(),
                    movable: vcpu.movable,
                    slot: vcpu.slot.map_or(slot, |far| 1000 * (far + 1) + slot),
                    born: vcpu.born,
                    load: vcpu.load,
                    wait: vcpu.wait,
                });
                number += 1;
                slot += 1;
            }
        }
        SnapshotBlock::from(builder.finish().expect("what the host says is in range"))
    }
}

/// What a policy can see of a snapshot, as text: sets by their members, since the arena's order is nobody's business.
fn seen(snapshot: &Snapshot<'_>) -> String {
    let list = |set: CpuSetRef<'_>| snapshot.os_ids(set).to_string();
    let mut text = format!(
        "{} {:?} {:?} {} {:?} {}\n",
        snapshot.tick(),
        snapshot.now(),
        snapshot.interval(),
        snapshot.seed(),
        snapshot.budget(),
        snapshot.is_fresh()
    );
    for cpu in snapshot.cpus() {
        writeln!(text, "{cpu:?}").expect("text grows");
    }
    text.extend(
        snapshot
            .cores()
            .map(|core| format!("{:?} {:?} {}\n", core.ix(), core.node(), list(core.cpus()))),
    );
    text.extend(
        snapshot
            .llcs()
            .map(|llc| format!("{:?} {:?} {}\n", llc.ix(), llc.node(), list(llc.cpus()))),
    );
    for from in snapshot.nodes() {
        write!(text, "{} {}", snapshot.node_os_id(from.ix()), list(from.cpus())).expect("text grows");
        text.extend(
            snapshot
                .nodes()
                .map(|to| format!(" {}", snapshot.distance(from.ix(), to.ix()))),
        );
        text.push('\n');
    }
    for domain in snapshot.domains() {
        let (name, uuid) = (domain.name(), domain.uuid());
        writeln!(
            text,
            "{name} {uuid:?} {} {:?} {:?}",
            domain.is_managed(),
            domain.memory_node(),
            domain.weight()
        )
        .expect("text grows");
    }
    for vcpu in snapshot.vcpus() {
        writeln!(
            text,
            "{vcpu} {:?} {} {} {} {} {} {:?} {:?}",
            vcpu.cpu(),
            list(vcpu.affinity()),
            list(vcpu.allowed()),
            vcpu.is_movable(),
            vcpu.slot(),
            vcpu.born(),
            vcpu.load().map(f64::to_bits),
            vcpu.wait().map(f64::to_bits)
        )
        .expect("text grows");
    }
    text
}

proptest! {
    #[test]
    fn writing_and_reading_gives_the_same_snapshot(block in snapshots()) {
        let text = document::write(&block.view());
        let again = document::read(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(seen(&block.view()), seen(&again.view()), "{}", text);
        prop_assert_eq!(&text, &document::write(&again.view()));
    }

    /// The check of a block finds every flipped byte that a view could stumble over: whatever it lets pass can be
    /// walked through from end to end.
    #[test]
    fn a_damaged_block_is_refused_or_safe(block in snapshots(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = block.view().as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // 64-bit words give the block the alignment that every holder of one gives it.
        let words: Vec<u64> = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes"))).collect();
        if let Ok(snapshot) = Snapshot::new(bytemuck::cast_slice(&words)) {
            seen(&snapshot);
            let mut loads = Vec::new();
            snapshot.cpu_loads(&mut loads);
        }
    }
}
