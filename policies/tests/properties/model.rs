//! Hosts and guests as plain numbers: what the properties make up, look at, and change as a pin would.
//!
//! Loads are whole tenths of a percent, so that a reference can add them up without rounding, while the policy gets to
//! see the nearest floating-point numbers.

use proptest::collection::vec;
use proptest::prelude::*;
use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, Index, NodeIx, indexes};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::snapshot::{DomainEntry, Moment, SnapshotBlock, SnapshotBuilder, VcpuEntry};
use vcpu_policy_api::topology::Topology;

/// A host with its guests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    /// Nodes, caches a node, cores a cache, threads a core.
    pub(crate) shape: [u32; 4],
    /// By CPU.
    pub(crate) managed: Vec<bool>,
    pub(crate) domains: Vec<Domain>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Domain {
    pub(crate) managed: bool,
    pub(crate) remote_memory: bool,
    pub(crate) vcpus: Vec<Vcpu>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vcpu {
    pub(crate) cpu: Option<usize>,
    pub(crate) affinity: Vec<bool>,
    pub(crate) allowed: Vec<bool>,
    pub(crate) movable: bool,
    /// Tenths of a percent.
    pub(crate) tenths: Option<u32>,
}

/// A pin, with flat numbers: which vCPU of all, and to which CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) vcpu: usize,
    pub(crate) cpus: Vec<usize>,
}

impl Model {
    pub(crate) fn cpus(&self) -> usize {
        self.managed.len()
    }

    /// All vCPUs in order, each with whether its domain is managed.
    pub(crate) fn vcpus(&self) -> impl Iterator<Item = (bool, &Vcpu)> {
        let of_domain = |domain: &'_ Domain| domain.managed;
        self.domains
            .iter()
            .flat_map(move |domain| domain.vcpus.iter().map(move |vcpu| (of_domain(domain), vcpu)))
    }

    /// Where each vCPU counts.
    pub(crate) fn placement(&self) -> Vec<Option<usize>> {
        self.vcpus().map(|(_, vcpu)| vcpu.cpu).collect()
    }

    /// The sum of the loads on each CPU, tenths.
    pub(crate) fn tenths(&self) -> Vec<u64> {
        let mut loads = vec![0; self.cpus()];
        for (_, vcpu) in self.vcpus() {
            if let (Some(cpu), Some(tenths)) = (vcpu.cpu, vcpu.tenths) {
                loads[cpu] += u64::from(tenths);
            }
        }
        loads
    }

    /// How uneven the managed CPUs are, exactly: P^2 times the variance, in tenths squared.
    pub(crate) fn unevenness(&self) -> u128 {
        let managed = self.tenths().into_iter().zip(&self.managed);
        let loads: Vec<u128> = managed
            .filter(|(_, managed)| **managed)
            .map(|(load, _)| u128::from(load))
            .collect();
        let (sum, squares) = (
            loads.iter().sum::<u128>(),
            loads.iter().map(|load| load * load).sum::<u128>(),
        );
        loads.len() as u128 * squares - sum * sum
    }

    /// The host after a plan was carried out and every pinned vCPU ran where it was told to.
    pub(crate) fn after(&self, pins: &[Pin]) -> Self {
        let mut after = self.clone();
        let mut vcpus: Vec<&mut Vcpu> = after
            .domains
            .iter_mut()
            .flat_map(|domain| &mut domain.vcpus)
            .collect();
        for pin in pins {
            let vcpu = &mut *vcpus[pin.vcpu];
            vcpu.affinity = (0..vcpu.affinity.len())
                .map(|cpu| pin.cpus.contains(&cpu))
                .collect();
            vcpu.cpu = pin.cpus.first().copied();
        }
        after
    }

    /// What a policy gets to see.
    pub(crate) fn snapshot(&self) -> SnapshotBlock {
        let [nodes, llcs, cores, threads] = self.shape;
        let topology = Topology::uniform(nodes, llcs, cores, threads).expect("a host");
        let mut builder = SnapshotBuilder::new();
        let moment = Moment {
            tick: 1,
            now_ns: 0,
            interval_ns: 5_000_000_000,
            seed: 0,
            budget: None,
            fresh: true,
        };
        builder.begin(&topology, set(&self.managed).as_ref(), moment);
        let mut slot = 0;
        for (at, domain) in self.domains.iter().enumerate() {
            let name = format!("vm-{at}");
            let farthest = NodeIx::from_index(topology.nodes().len() - 1);
            builder.domain(DomainEntry {
                name: &name,
                uuid: [u8::try_from(at).expect("few"); 16],
                managed: domain.managed,
                memory_node: farthest.filter(|_| domain.remote_memory),
                weight: None,
            });
            for (number, vcpu) in domain.vcpus.iter().enumerate() {
                builder.vcpu(&VcpuEntry {
                    number: u32::try_from(number).expect("few"),
                    cpu: vcpu.cpu.and_then(CpuIx::from_index),
                    affinity: set(&vcpu.affinity).as_ref(),
                    allowed: set(&vcpu.allowed).as_ref(),
                    movable: vcpu.movable,
                    slot,
                    born: 0,
                    load: vcpu.tenths.map(|tenths| f64::from(tenths) / 10.0),
                    wait: None,
                });
                slot += 1;
            }
        }
        SnapshotBlock::from(builder.finish().expect("a snapshot"))
    }
}

/// A plan's pins with flat numbers.
pub(crate) fn pins(plan: &Plan) -> Vec<Pin> {
    let pin = |action: vcpu_policy_api::plan::Action<'_>| Pin {
        vcpu: action.vcpu.index(),
        cpus: action.cpus.iter().map(Index::index).collect(),
    };
    plan.actions().map(pin).collect()
}

fn set(members: &[bool]) -> CpuSet {
    indexes::<CpuIx>(members.len())
        .filter(|cpu| members[cpu.index()])
        .collect()
}

fn only(cpu: usize, cpus: usize) -> Vec<bool> {
    (0..cpus).map(|at| at == cpu).collect()
}

/// Loads that meet: few different ones make ties of every kind likely.
fn tenths() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1, 3, 100, 200, 341, 500, 1000]),
        2 => 0u32..=1000,
        1 => 0u32..=40,
        1 => 1000u32..=9000,
    ]
}

fn shapes() -> impl Strategy<Value = [u32; 4]> {
    prop_oneof![
        4 => (1u32..=8).prop_map(|cores| [1, 1, cores, 1]),
        1 => (1u32..=2, 1u32..=2, 1u32..=2, 1u32..=2).prop_map(<[u32; 4]>::from),
        1 => (60u32..=70).prop_map(|cores| [1, 1, cores, 1]),
    ]
}

/// Mostly all of the CPUs, else any of them.
fn mostly(cpus: usize) -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![3 => Just(vec![true; cpus]), 1 => vec(any::<bool>(), cpus)]
}

fn vcpus(cpus: usize) -> impl Strategy<Value = Vcpu> {
    let pinned = (0..cpus).prop_map(move |cpu| (Some(cpu), only(cpu, cpus)));
    let loose = (prop::option::of(0..cpus), mostly(cpus));
    // As after a pin that has not taken effect yet: pinned to a CPU, counted on another.
    let late = (
        prop::option::of(0..cpus),
        (0..cpus).prop_map(move |cpu| only(cpu, cpus)),
    );
    let place = prop_oneof![5 => pinned, 3 => loose, 1 => late];
    let load = prop::option::weighted(0.9, tenths());
    (place, mostly(cpus), prop::bool::weighted(0.85), load).prop_map(
        |((cpu, affinity), allowed, movable, tenths)| Vcpu {
            cpu,
            affinity,
            allowed,
            movable,
            tenths,
        },
    )
}

prop_compose! {
    fn domains(cpus: usize)(
        managed in prop::bool::weighted(0.85),
        remote_memory in any::<bool>(),
        vcpus in vec(vcpus(cpus), 0..5),
    ) -> Domain {
        Domain { managed, remote_memory, vcpus }
    }
}

/// Any host: reserved CPUs, guests that may not be touched, vCPUs without a load, without a place, or held back. The
/// rule moves something on about a quarter of them.
pub(crate) fn models() -> impl Strategy<Value = Model> {
    let any = shapes().prop_flat_map(|shape| {
        let cpus = usize::try_from(shape.iter().product::<u32>()).expect("small");
        (Just(shape), mostly(cpus), vec(domains(cpus), 0..8), any::<bool>())
    });
    any.prop_map(|(shape, managed, mut domains, mirrored)| {
        if mirrored {
            domains.extend(mirror(&domains));
        }
        // What a vCPU is allowed is within the managed CPUs; a snapshot's writer sees to that.
        for vcpu in domains.iter_mut().flat_map(|domain| &mut domain.vcpus) {
            for (allowed, managed) in vcpu.allowed.iter_mut().zip(&managed) {
                *allowed &= managed;
            }
        }
        Model {
            shape,
            managed,
            domains,
        }
    })
}

/// The same guests once more on the CPUs from the other end, in reverse order: equal loads whose sums differ in their
/// last bits.
fn mirror(domains: &[Domain]) -> Vec<Domain> {
    let mut mirrored: Vec<Domain> = domains.iter().rev().cloned().collect();
    for domain in &mut mirrored {
        domain.vcpus.reverse();
        for vcpu in &mut domain.vcpus {
            vcpu.cpu = vcpu.cpu.map(|cpu| vcpu.affinity.len() - 1 - cpu);
            vcpu.affinity.reverse();
            vcpu.allowed.reverse();
        }
    }
    mirrored
}

/// Two CPUs on which the one move there is would only swap the loads, while the target's load is cut up in another way
/// than the same load on the source.
pub(crate) fn tied_models() -> impl Strategy<Value = Model> {
    let rest = vec(1u32..=400, 2..6).prop_flat_map(|rest| (Just(rest.clone()), Just(rest).prop_shuffle()));
    (401u32..=2000, rest, 0usize..6).prop_map(|(victim, (rest, mut target), at)| {
        let merged = target.pop().unwrap_or(0);
        if let Some(first) = target.first_mut() {
            *first += merged;
        }
        let mut source = rest;
        source.insert(at.min(source.len()), victim);
        Model {
            shape: [1, 1, 2, 1],
            managed: vec![true; 2],
            domains: [source, target]
                .iter()
                .enumerate()
                .map(|(cpu, loads)| pinned_guest(loads.iter().map(|&tenths| (cpu, tenths)), 2))
                .collect(),
        }
    })
}

/// A guest with a vCPU pinned to each of these CPUs, with this load, that may go anywhere.
fn pinned_guest(vcpus: impl Iterator<Item = (usize, u32)>, cpus: usize) -> Domain {
    Domain {
        managed: true,
        remote_memory: false,
        vcpus: vcpus
            .map(|(cpu, tenths)| Vcpu {
                cpu: Some(cpu),
                affinity: only(cpu, cpus),
                allowed: vec![true; cpus],
                movable: true,
                tenths: Some(tenths),
            })
            .collect(),
    }
}

/// Hosts on which every vCPU has a load and is pinned to one of the first few CPUs, whatever else may hold for it.
pub(crate) fn pinned_models() -> impl Strategy<Value = Model> {
    (models(), 1usize..=3).prop_map(|(mut model, crowded)| {
        let cpus = model.cpus();
        let vcpus = model.domains.iter_mut().flat_map(|domain| &mut domain.vcpus);
        for (at, vcpu) in vcpus.enumerate() {
            let cpu = vcpu.cpu.unwrap_or(at) % crowded.min(cpus);
            vcpu.cpu = Some(cpu);
            vcpu.affinity = only(cpu, cpus);
            vcpu.tenths = vcpu.tenths.or(Some(250));
        }
        model
    })
}

/// Hosts that are even already: the same load on each CPU, cut up in the same parts but added up in another order.
pub(crate) fn balanced_models() -> impl Strategy<Value = Model> {
    (1u32..=8, vec(vec(1u32..=400, 3), 1..4)).prop_map(|(shape, guests)| {
        let cpus = usize::try_from(shape).expect("small");
        let guest = |loads: &Vec<u32>| {
            let places = (0..cpus).flat_map(|cpu| (0..loads.len()).map(move |part| (cpu, part)));
            pinned_guest(
                places.map(|(cpu, part)| (cpu, loads[(part + cpu) % loads.len()])),
                cpus,
            )
        };
        Model {
            shape: [1, 1, shape, 1],
            managed: vec![true; cpus],
            domains: guests.iter().map(guest).collect(),
        }
    })
}
