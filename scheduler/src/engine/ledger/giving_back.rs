//! What [giving back](crate::engine::restore) asks of the ledger, and tells it.

use std::collections::BTreeSet;
use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;

use super::run::Run;
use super::{Custody, Ledger};
use crate::host::{DomainKey, VcpuKey};

impl Ledger {
    /// The running domains of which something is recorded, or that carry something.
    pub(crate) fn recorded(&self) -> Vec<DomainKey> {
        let recorded = self
            .runs
            .iter()
            .filter(|(_, run)| run.records() > 0 || run.luggage.known().is_some());
        recorded.map(|(key, _)| *key).collect()
    }

    /// The vCPUs of a domain that were pinned, or were to be.
    pub(crate) fn touched(&self, domain: &DomainKey) -> Vec<VcpuKey> {
        self.runs.get(domain).map_or_else(Vec::new, |run| {
            run.touched().map(|number| domain.vcpu(number)).collect()
        })
    }

    /// The name of a running domain.
    pub(crate) fn name(&self, domain: &DomainKey) -> Option<&Arc<str>> {
        self.runs.get(domain).map(|run| &run.name)
    }

    /// What a vCPU is given back now.
    pub(crate) fn original(&self, vcpu: &VcpuKey) -> Option<OsCpuSet> {
        let run = self.runs.get(&vcpu.domain_key())?;
        run.original(vcpu.number, &self.online)
    }

    /// Whether an affinity of ours may yet come to hold on a vCPU by itself.
    pub(crate) fn is_pending(&self, vcpu: &VcpuKey) -> bool {
        self.custody(vcpu).is_some_and(Custody::is_pending)
    }

    /// Forgets a domain: it was given back what it had.
    pub(crate) fn forget(&mut self, domain: &DomainKey) {
        if let Some(run) = self.runs.get_mut(domain) {
            self.forgotten.extend(run.entries().map(|entry| entry.subject()));
            self.forgotten.extend(run.off_record());
            run.start_over();
            self.unwritten.retain(|vcpu| vcpu.domain_key() != *domain);
        }
    }

    /// Forgets the records of runs that are not there any more, but not those that are only `unread`; gives the names of
    /// these.
    pub(crate) fn forget_the_ended(&mut self, unread: &[DomainKey]) -> BTreeSet<String> {
        self.forgotten.extend(self.ended.give_up(unread));
        self.ended.names()
    }

    /// Whether a domain carries anything of ours.
    pub(crate) fn is_carrying(&self, domain: &DomainKey) -> bool {
        self.runs
            .get(domain)
            .is_some_and(|run| run.luggage.known().is_some())
    }

    /// Whether nothing is recorded anywhere. Before the first sample that is not known: domains may carry something. What the
    /// journal is still to forget is recorded.
    pub fn has_nothing_to_give_back(&self) -> bool {
        !self.online.is_empty()
            && self.ended.is_empty()
            && self.forgotten.is_empty()
            && self.recorded().is_empty()
    }

    /// The CPUs that were online in the last sample.
    pub(crate) fn online(&self) -> &OsCpuSet {
        &self.online
    }

    /// How many vCPUs are recorded in all: pinned, or pinned by someone else.
    pub fn records(&self) -> usize {
        self.runs.values().map(Run::records).sum::<usize>() + self.ended.len()
    }
}
