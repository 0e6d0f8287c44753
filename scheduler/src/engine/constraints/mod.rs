//! What binds a vCPU's placement, and which of it comes from whom.
//!
//! In go the host's CPUs, what the domain's stored definition and metadata say, and the operator's configuration; out
//! comes, for each vCPU, the set of CPUs that it may be pinned to, with the reason for every restriction. Pure.
//!
//! - A **managed** pCPU is online, not reserved, and not isolated by the kernel, unless isolated CPUs are to be used.
//! - Of the rules for domains the first that matches holds, alone. Matching goes by the name's glob or by UUID.
//! - A vCPU is **allowed** on the managed pCPUs within its `<vcpupin>` (without one, within the definition's `cpuset`), within
//!   the CPUs of the rule and within those of the domain's metadata. Nobody's word widens another's.
//! - A domain is **unmanaged** if its rule says so; or if its metadata says so, unless its rule says in words that it is
//!   managed: on this host the operator's configuration has the last word.
//!
//! Each [`Restriction`] is made in one place, from which both the sets that bind policies ([`Standing::allowed`]) and the
//! table that people read ([`explain`](mod@explain)) come: they cannot disagree.

pub mod explain;

use std::fmt;

use globset::GlobMatcher;
use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::topology::Topology;

use crate::host::{Definition, DomainUuid, Wish};

/// What the operator's configuration binds.
#[derive(Debug, Clone, Default)]
pub struct Constraints {
    /// CPUs that no guest is placed on.
    pub reserved: OsCpuSet,
    /// Whether CPUs that the kernel isolates are used all the same.
    pub use_isolated: bool,
    /// Rules for domains, of which the first that matches holds.
    pub rules: Vec<DomainRule>,
}

/// What is asked for the domains that match.
#[derive(Debug, Clone)]
pub struct DomainRule {
    /// As the operator wrote it.
    pub text: String,
    /// Which domains.
    pub matches: DomainMatch,
    /// What is asked for them.
    pub wish: Wish,
}

/// Which domains a rule is about.
#[derive(Debug, Clone)]
pub enum DomainMatch {
    /// Those whose name matches a glob.
    Name(GlobMatcher),
    /// The one with this UUID.
    Uuid(DomainUuid),
}

/// A rule by its place.
#[derive(Debug, Clone, Copy)]
pub struct NumberedRule<'a> {
    /// Its place in the configuration, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'a DomainRule,
}

/// One thing that binds where a vCPU may be pinned to.
#[derive(Debug, Clone, Copy)]
pub struct Restriction<'a> {
    /// Who says so.
    pub source: Source<'a>,
    /// What is said.
    pub effect: Effect<'a>,
}

/// Who restricts.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The configuration's reserved CPUs.
    Reserved,
    /// The CPUs that the kernel isolates.
    Isolated,
    /// The definition's `<vcpu cpuset='…'>`.
    Cpuset,
    /// The definition's `<vcpupin>` of the vCPU.
    Vcpupin,
    /// The configuration's rule for the domain.
    Rule(NumberedRule<'a>),
    /// The domain's metadata.
    Metadata,
}

/// What a restriction does to a set.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'a> {
    /// Takes these out.
    Without(&'a OsCpuSet),
    /// Keeps these only.
    Within(&'a OsCpuSet),
}

/// Whether a domain may be moved, and who says so where it is not the default.
#[derive(Debug, Clone, Copy)]
pub enum Management<'a> {
    /// It may: nobody says otherwise.
    Default,
    /// It may: the rule says so, where the metadata says otherwise.
    ByRule(NumberedRule<'a>),
    /// It may not: the rule says so.
    ExcludedByRule(NumberedRule<'a>),
    /// It may not: its metadata says so.
    ExcludedByMetadata,
}

/// What holds for one domain.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    definition: &'a Definition,
    rule: Option<NumberedRule<'a>>,
}

impl Constraints {
    /// What holds for every vCPU of a host of which the kernel isolates some CPUs.
    pub fn of_host<'a>(&'a self, isolated: &'a OsCpuSet) -> impl Iterator<Item = Restriction<'a>> {
        let reserved = (Source::Reserved, &self.reserved);
        let isolated = (!self.use_isolated).then_some((Source::Isolated, isolated));
        let sets = std::iter::once(reserved).chain(isolated);
        sets.filter(|(_, cpus)| !cpus.is_empty())
            .map(|(source, cpus)| Restriction {
                source,
                effect: Effect::Without(cpus),
            })
    }

    /// The rows of the managed pCPUs.
    pub fn managed(&self, topology: &Topology, isolated: &OsCpuSet) -> CpuSet {
        let mut managed = CpuSet::first(topology.cpus().len());
        for restriction in self.of_host(isolated) {
            restriction.effect.apply(topology, &mut managed);
        }
        managed
    }

    /// The rule for a domain.
    pub fn rule_for(&self, name: &str, uuid: DomainUuid) -> Option<NumberedRule<'_>> {
        let numbered = (1..).zip(&self.rules);
        numbered
            .map(|(number, rule)| NumberedRule { number, rule })
            .find(|numbered| numbered.rule.matches.is_match(name, uuid))
    }

    /// What holds for a domain.
    pub fn of_domain<'a>(&'a self, name: &str, uuid: DomainUuid, definition: &'a Definition) -> Standing<'a> {
        Standing {
            definition,
            rule: self.rule_for(name, uuid),
        }
    }
}

impl DomainMatch {
    /// Whether it speaks of a domain.
    pub fn is_match(&self, name: &str, uuid: DomainUuid) -> bool {
        match self {
            Self::Name(glob) => glob.is_match(name),
            Self::Uuid(of) => *of == uuid,
        }
    }
}

impl<'a> Standing<'a> {
    /// Whether the domain may be moved.
    pub fn management(&self) -> Management<'a> {
        let by_metadata = self.definition.wish.manage;
        match (
            self.rule,
            self.rule.and_then(|numbered| numbered.rule.wish.manage),
        ) {
            (Some(rule), Some(false)) => Management::ExcludedByRule(rule),
            (Some(rule), Some(true)) if by_metadata == Some(false) => Management::ByRule(rule),
            (_, Some(true)) => Management::Default,
            (_, _) if by_metadata == Some(false) => Management::ExcludedByMetadata,
            (_, _) => Management::Default,
        }
    }

    /// What binds a vCPU of the domain, beside what holds for the whole host.
    pub fn of_vcpu(&self, number: u32) -> impl Iterator<Item = Restriction<'a>> {
        let definition = match self.definition.vcpupin.get(&number) {
            Some(cpus) => Some((Source::Vcpupin, cpus)),
            None => self.definition.cpuset.as_ref().map(|cpus| (Source::Cpuset, cpus)),
        };
        let rule = self
            .rule
            .and_then(|numbered| Some((Source::Rule(numbered), numbered.rule.wish.cpus.as_ref()?)));
        let metadata = self
            .definition
            .wish
            .cpus
            .as_ref()
            .map(|cpus| (Source::Metadata, cpus));
        let sets = [definition, rule, metadata].into_iter().flatten();
        sets.map(|(source, cpus)| Restriction {
            source,
            effect: Effect::Within(cpus),
        })
    }

    /// The rows that a vCPU may be pinned to, on a host with these managed pCPUs.
    pub fn allowed(&self, topology: &Topology, managed: &CpuSet, number: u32) -> CpuSet {
        let mut allowed = managed.clone();
        for restriction in self.of_vcpu(number) {
            restriction.effect.apply(topology, &mut allowed);
        }
        allowed
    }
}

impl Management<'_> {
    /// Whether the domain may be moved.
    pub fn is_managed(&self) -> bool {
        matches!(self, Self::Default | Self::ByRule(_))
    }
}

impl Effect<'_> {
    fn apply(self, topology: &Topology, rows: &mut CpuSet) {
        match self {
            Self::Without(cpus) => rows.subtract(topology.rows(cpus).as_ref()),
            Self::Within(cpus) => rows.intersect(topology.rows(cpus).as_ref()),
        }
    }
}

impl fmt::Display for NumberedRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} ({})", self.number, self.rule.text)
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved => f.write_str("reserved"),
            Self::Isolated => f.write_str("isolated by the kernel"),
            Self::Cpuset => f.write_str("the definition's cpuset"),
            Self::Vcpupin => f.write_str("the definition's vcpupin"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Metadata => f.write_str("the domain's metadata"),
        }
    }
}

#[cfg(test)]
mod tests;
