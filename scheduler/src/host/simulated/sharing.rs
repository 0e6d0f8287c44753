//! Who gets what in one interval, and where it is seen.
//!
//! vCPUs that may run on the same online CPUs form a group; groups get a [level](fair_share::levels) each and
//! [odds](attribution::spread) of where their members are seen.

use std::collections::BTreeMap;

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::ids::{Index, OsCpuId};
use vcpu_policy_api::topology::Topology;

use super::attribution;
use super::chance::{Chance, Purpose};
use super::fair_share::{self, Group};
use super::guest::{Guest, Vcpu};

/// Shares the CPUs out among the guests' vCPUs by what they want. Returns what all want and what all get, percent of a
/// pCPU.
///
/// `background` is what CPUs do for others than guests, who come first.
pub(super) fn share(
    topology: &Topology,
    background: impl Iterator<Item = (OsCpuId, f64)>,
    guests: &mut [Guest],
    chance: Chance,
) -> (f64, f64) {
    let capacities = capacities(topology, background);
    let mut places = Places::new(topology);
    let vcpus = guests.iter().flat_map(|guest| &guest.vcpus);
    let group_of: Vec<usize> = vcpus.map(|vcpu| places.join(vcpu)).collect();
    let mut groups = places.groups;
    for group in &mut groups {
        group.wants.sort_unstable_by(f64::total_cmp);
    }
    let levels = fair_share::levels(&capacities, &groups);
    let of_group = |(group, &level): (&Group, &f64)| {
        let served = group.wants.iter().map(|&want| fair_share::served(want, level));
        served.sum()
    };
    let served_of_group: Vec<f64> = groups.iter().zip(&levels).map(of_group).collect();
    let odds = attribution::spread(&capacities, &groups, &served_of_group);

    let (mut wanted, mut served) = (0.0, 0.0);
    let mut group_of = group_of.into_iter();
    for guest in guests {
        for ((vcpu, number), group) in guest.vcpus.iter_mut().zip(0..).zip(group_of.by_ref()) {
            vcpu.served = fair_share::served(vcpu.wanted, levels[group]);
            wanted += vcpu.wanted;
            served += vcpu.served;
            if vcpu.wanted > 0.0 {
                let draw = chance.uniform(Purpose::LastCpu, guest.uuid, number);
                vcpu.last_cpu = Some(topology.cpus()[odds[group].pick(draw).index()].os_id);
            }
        }
    }
    (wanted, served)
}

/// What each online CPU has for guests.
fn capacities(topology: &Topology, background: impl Iterator<Item = (OsCpuId, f64)>) -> Vec<f64> {
    let mut capacities: Vec<f64> = topology.cpus().iter().map(|cpu| cpu.capacity).collect();
    for (cpu, load) in background {
        if let Some(ix) = topology.cpu_by_os_id(cpu) {
            let capacity = &mut capacities[ix.index()];
            *capacity = (*capacity - load).max(0.0);
        }
    }
    capacities
}

/// The sets of CPUs that vCPUs may run on.
struct Places<'a> {
    topology: &'a Topology,
    /// Where a vCPU runs of whose CPUs none is online.
    anywhere: CpuSet,
    by_affinity: BTreeMap<OsCpuSet, usize>,
    by_rows: BTreeMap<CpuSet, usize>,
    groups: Vec<Group>,
}

impl<'a> Places<'a> {
    fn new(topology: &'a Topology) -> Self {
        Self {
            topology,
            anywhere: CpuSet::first(topology.cpus().len()),
            by_affinity: BTreeMap::new(),
            by_rows: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    /// Puts a vCPU into its group.
    fn join(&mut self, vcpu: &Vcpu) -> usize {
        let at = if let Some(&at) = self.by_affinity.get(&vcpu.affinity) {
            at
        } else {
            let mut rows = self.topology.rows(&vcpu.affinity);
            if rows.is_empty() {
                rows.clone_from(&self.anywhere);
            }
            let at = *self.by_rows.entry(rows.clone()).or_insert_with(|| {
                self.groups.push(Group {
                    cpus: rows,
                    wants: Vec::new(),
                });
                self.groups.len() - 1
            });
            self.by_affinity.insert(vcpu.affinity.clone(), at);
            at
        };
        self.groups[at].wants.push(vcpu.wanted);
        at
    }
}
