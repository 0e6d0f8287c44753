//! The CPUs of a simulated host, and which of them are online.

use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::topology::{CpuSite, Distances, Topology};

use super::scenario::{self, Scenario};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Cpus {
    sites: Vec<CpuSite>,
    distances: Distances,
    /// Online or not.
    pub(super) present: OsCpuSet,
    /// The same `Arc` until a CPU goes on- or offline.
    pub(super) topology: Arc<Topology>,
}

impl Cpus {
    /// As the scenario begins.
    pub(super) fn of(scenario: &Scenario) -> Self {
        let topology = Arc::clone(&scenario.topology);
        Self {
            sites: scenario.host.shape.sites(),
            distances: scenario.host.shape.stated_distances(),
            present: scenario::present_cpus(&topology),
            topology,
        }
    }

    /// Takes CPUs online or offline.
    pub(super) fn switch(&mut self, cpus: &OsCpuSet, online: bool) {
        let mut changed = false;
        for site in self.sites.iter_mut().filter(|site| cpus.contains(site.os_id)) {
            changed |= site.online != online;
            site.online = online;
        }
        if changed {
            let topology = Topology::new(self.sites.clone(), &self.distances);
            self.topology = Arc::new(topology.expect("the scenario's check leaves a CPU online"));
        }
    }

    /// Why a vCPU cannot be pinned to these, as Linux and libvirt see it; `None` if it can.
    pub(super) fn refusal(&self, cpus: &OsCpuSet) -> Option<String> {
        if let Some(cpu) = cpus.iter().find(|&cpu| !self.present.contains(cpu)) {
            return Some(format!("the host has no CPU {cpu}; it has {}", self.present));
        }
        let is_online = |cpu| self.topology.cpu_by_os_id(cpu).is_some();
        (!cpus.iter().any(is_online)).then(|| {
            let online = self.topology.online();
            format!("none of CPUs {cpus} is online; online are {online}")
        })
    }
}
