//! What a domain's vCPUs are allowed and because of whom, for people.
//!
//! In go the constraints and a domain as the host shows it; out comes a text such as
//!
//! ```text
//! web-1 (6f1c2d1e-…): managed
//!
//! vCPU  allowed  because
//! 0-2   2-3      online are 0-7
//!                without 0-1: reserved
//!                only 2-3: rule 2 (match: "web-*", cpus: "2-3")
//! 3     none     online are 0-7
//!                without 0-1: reserved
//!                only 0: the definition's vcpupin
//!                empty: none of 2-7 is in the definition's vcpupin; the vCPU is not moved
//! ```
//!
//! Neighbouring vCPUs of which the same is true share their lines. Restrictions stand in the order in which they are
//! applied, also those that take nothing away: an operator looks for a rule that does nothing just as well.

use std::fmt::{self, Write};

use vcpu_policy_api::cpuset::{CpuSet, OsCpuSet};
use vcpu_policy_api::topology::Topology;

use super::{Constraints, Effect, Management, Restriction, Source, Standing};
use crate::host::DomainSample;

/// The host as far as it binds every domain alike.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts<'a> {
    /// Its CPUs.
    pub topology: &'a Topology,
    /// Those that the kernel isolates.
    pub isolated: &'a OsCpuSet,
}

/// What is true of one vCPU.
#[derive(Debug, PartialEq, Eq)]
struct Explained {
    allowed: OsCpuSet,
    because: Vec<String>,
}

/// Says what the vCPUs of a domain are allowed, and because of whom.
pub fn explain(constraints: &Constraints, host: HostFacts<'_>, domain: &DomainSample) -> String {
    let standing = constraints.of_domain(&domain.name, domain.uuid, &domain.definition);
    let management = standing.management();
    let mut text = format!("{} ({}): {}\n", domain.name, domain.uuid, in_words(&management));
    if management.is_managed() {
        write_vcpus(&mut text, constraints, host, &standing, domain);
    }
    text
}

fn in_words(management: &Management<'_>) -> String {
    const LEFT_ALONE: &str = "its load counts, and it is never moved";
    match management {
        Management::Default => "managed".to_owned(),
        Management::ByRule(rule) => {
            format!("managed because of {rule}, though its metadata asks to be left alone")
        }
        Management::ExcludedByRule(rule) => format!("unmanaged because of {rule}: {LEFT_ALONE}"),
        Management::ExcludedByMetadata => format!("unmanaged because of its metadata: {LEFT_ALONE}"),
    }
}

fn write_vcpus(
    text: &mut String,
    constraints: &Constraints,
    host: HostFacts<'_>,
    standing: &Standing<'_>,
    domain: &DomainSample,
) {
    let mut groups: Vec<(Numbers, Explained)> = Vec::new();
    for vcpu in &domain.vcpus {
        let of_host = constraints.of_host(host.isolated);
        let explained = Explained::new(host.topology, of_host.chain(standing.of_vcpu(vcpu.number)));
        match groups.last_mut() {
            Some((numbers, last)) if *last == explained => numbers.add(vcpu.number),
            _ => groups.push((Numbers::one(vcpu.number), explained)),
        }
    }
    let mut rows = vec![(
        "vCPU".to_owned(),
        "allowed".to_owned(),
        vec!["because".to_owned()],
    )];
    for (numbers, Explained { allowed, because }) in groups {
        rows.push((numbers.to_string(), in_list(&allowed), because));
    }
    let first_width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let second_width = rows.iter().map(|row| row.1.len()).max().unwrap_or(0);
    text.push('\n');
    for (mut numbers, mut allowed, because) in rows {
        for line in because {
            writeln!(text, "{numbers:first_width$}  {allowed:second_width$}  {line}").expect("memory");
            numbers.clear();
            allowed.clear();
        }
    }
}

impl Explained {
    fn new<'a>(topology: &Topology, restrictions: impl Iterator<Item = Restriction<'a>>) -> Self {
        let mut rows = CpuSet::first(topology.cpus().len());
        let mut because = vec![format!("online are {}", topology.online())];
        let mut emptied = None;
        for Restriction { source, effect } in restrictions {
            because.push(match effect {
                Effect::Without(cpus) => format!("without {cpus}: {source}"),
                Effect::Within(cpus) => format!("only {}: {source}", in_list(cpus)),
            });
            let before = rows.clone();
            effect.apply(topology, &mut rows);
            if rows.is_empty() && emptied.is_none() {
                emptied = Some(emptied_by(&topology.os_ids(before.as_ref()), source, effect));
            }
        }
        because.extend(emptied);
        Self {
            allowed: topology.os_ids(rows.as_ref()),
            because,
        }
    }
}

/// Why nothing is left of `before`.
fn emptied_by(before: &OsCpuSet, source: Source<'_>, effect: Effect<'_>) -> String {
    match effect {
        Effect::Without(_) => format!("empty: all of {before} are {source}; the vCPU is not moved"),
        Effect::Within(_) => format!("empty: none of {before} is in {source}; the vCPU is not moved"),
    }
}

fn in_list(cpus: &OsCpuSet) -> String {
    if cpus.is_empty() {
        "none".to_owned()
    } else {
        cpus.to_string()
    }
}

/// Ascending numbers, as ranges.
#[derive(Debug)]
pub(in crate::engine) struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    pub(in crate::engine) fn one(number: u32) -> Self {
        Self(vec![(number, number)])
    }

    /// The next one.
    pub(in crate::engine) fn add(&mut self, number: u32) {
        match self.0.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => self.0.push((number, number)),
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}
