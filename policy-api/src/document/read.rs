//! From a file's keys to a snapshot.

use super::form::{Document, VcpuDocument};
use super::{AllowedCpus, DocumentError, Percent, uuid_from_name};
use crate::cpuset::{CpuSet, OsCpuSet};
use crate::ids::{CpuIx, NodeIx, OsCpuId};
use crate::snapshot::{DomainEntry, MAX_SLOTS, Moment, SnapshotBlock, SnapshotBuilder, VcpuEntry};
use crate::topology::Topology;
use crate::yaml;

/// Reads a snapshot file.
///
/// # Errors
/// If it is not one; see [`DocumentError`].
pub fn read(text: &str) -> Result<SnapshotBlock, DocumentError> {
    let document: Document = yaml::read(text)?;
    if document.interval.is_zero() {
        return Err(value("interval", "it is 0; expected more"));
    }
    let topology = document.topology.topology()?;
    let host = Host::new(&document, &topology)?;
    let mut builder = SnapshotBuilder::new();
    builder.begin(
        &topology,
        host.managed.as_ref(),
        Moment {
            tick: document.tick,
            now_ns: document.now.nanoseconds(),
            interval_ns: document.interval.nanoseconds(),
            seed: document.seed,
            budget: document.budget,
            fresh: document.fresh,
        },
    );
    for (cpu, load) in document.topology.background() {
        if let Some(ix) = topology.cpu_by_os_id(cpu) {
            builder.background(ix, load);
        }
    }
    let mut place = 0;
    let mut slots = std::collections::BTreeSet::new();
    let mut identities = std::collections::BTreeSet::new();
    for (at, domain) in document.domains.iter().enumerate() {
        let path = format!("domains[{at}]");
        let uuid = domain
            .uuid
            .map_or_else(|| uuid_from_name(&domain.name), uuid::Uuid::into_bytes);
        if !identities.insert(uuid) {
            let name = &domain.name;
            return Err(value(
                &path,
                match domain.uuid {
                    Some(_) => format!("an earlier domain has the UUID of \"{name}\"; expected another one"),
                    None => format!("an earlier domain is \"{name}\"; expected another name, or a uuid"),
                },
            ));
        }
        builder.domain(DomainEntry {
            name: &domain.name,
            uuid,
            managed: domain.managed,
            memory_node: domain
                .memory_node
                .map(|node| host.node(&path, node))
                .transpose()?,
            weight: domain.weight.map(Percent::get),
        });
        let mut next_number = 0;
        for (at, vcpu) in domain.vcpus.iter().enumerate() {
            let path = format!("{path}.vcpus[{at}]");
            let number = vcpu.number.unwrap_or(next_number);
            if number < next_number {
                return Err(value(
                    &path,
                    format!("number {number} is not above the one before; expected ascending numbers"),
                ));
            }
            next_number = number.saturating_add(1);
            let slot = vcpu.slot.unwrap_or(place);
            place += 1;
            check_slot(&path, slot, slots.insert(slot))?;
            host.write_vcpu(&mut builder, &path, domain.managed, vcpu, number, slot)?;
        }
    }
    Ok(SnapshotBlock::from(builder.finish()?))
}

/// Policies keep what they remember of a vCPU at its slot, in a list: no two share one, and none is far out.
fn check_slot(path: &str, slot: u32, is_free: bool) -> Result<(), DocumentError> {
    let path = format!("{path}.slot");
    if slot >= MAX_SLOTS {
        let problem = format!("{slot} is too large; expected 0 to {}", MAX_SLOTS - 1);
        return Err(value(&path, problem));
    }
    if !is_free {
        let problem = format!("an earlier vCPU has slot {slot}; expected one of its own");
        return Err(value(&path, problem));
    }
    Ok(())
}

fn value(path: &str, problem: impl Into<String>) -> DocumentError {
    DocumentError::Value {
        path: path.to_owned(),
        problem: yaml::elided(&problem.into()),
    }
}

/// The host of a file, against which its domains are read.
struct Host<'a> {
    topology: &'a Topology,
    managed: CpuSet,
}

impl<'a> Host<'a> {
    fn new(document: &Document, topology: &'a Topology) -> Result<Self, DocumentError> {
        let host = Self {
            topology,
            managed: CpuSet::first(topology.cpus().len()),
        };
        let Some(reserved) = &document.reserved else {
            return Ok(host);
        };
        let mut managed = host.managed.clone();
        managed.subtract(host.rows("reserved", reserved)?.as_ref());
        Ok(Self { managed, ..host })
    }

    fn write_vcpu(
        &self,
        builder: &mut SnapshotBuilder,
        path: &str,
        domain_is_managed: bool,
        vcpu: &VcpuDocument,
        number: u32,
        slot: u32,
    ) -> Result<(), DocumentError> {
        let affinity = match &vcpu.affinity {
            None => self.managed.clone(),
            Some(list) => self.rows(&format!("{path}.affinity"), list)?,
        };
        if vcpu.affinity.is_some() && affinity.is_empty() {
            return Err(value(
                &format!("{path}.affinity"),
                "none of its CPUs is online; expected at least one that is",
            ));
        }
        let mut allowed = match &vcpu.allowed {
            None => self.managed.clone(),
            Some(AllowedCpus::None) => CpuSet::new(),
            Some(AllowedCpus::Some(list)) => self.rows(&format!("{path}.allowed"), list)?,
        };
        allowed.intersect(self.managed.as_ref());
        let stated_cpu = vcpu
            .cpu
            .map(|cpu| self.online(&format!("{path}.cpu"), OsCpuId(cpu)))
            .transpose()?;
        let by_the_rules = domain_is_managed && vcpu.load.is_some() && !allowed.is_empty();
        builder.vcpu(&VcpuEntry {
            number,
            cpu: affinity.as_ref().single().or(stated_cpu),
            affinity: affinity.as_ref(),
            allowed: allowed.as_ref(),
            movable: vcpu.movable.unwrap_or(by_the_rules),
            slot,
            born: vcpu.born,
            load: vcpu.load.map(Percent::get),
            wait: vcpu.wait.map(Percent::get),
        });
        Ok(())
    }

    /// The online rows of a list, all of whose CPUs must be there, online or not.
    fn rows(&self, path: &str, list: &OsCpuSet) -> Result<CpuSet, DocumentError> {
        match list.iter().find(|&cpu| !self.topology.is_present(cpu)) {
            Some(cpu) => Err(self.absent(path, cpu)),
            None => Ok(self.topology.rows(list)),
        }
    }

    fn online(&self, path: &str, cpu: OsCpuId) -> Result<CpuIx, DocumentError> {
        match self.topology.cpu_by_os_id(cpu) {
            Some(ix) => Ok(ix),
            None if self.topology.is_present(cpu) => Err(value(
                path,
                format!("CPU {cpu} is offline; online are {}", self.topology.online()),
            )),
            None => Err(self.absent(path, cpu)),
        }
    }

    fn absent(&self, path: &str, cpu: OsCpuId) -> DocumentError {
        value(
            path,
            format!("the host has no CPU {cpu}; it has {}", self.topology.online()),
        )
    }

    fn node(&self, path: &str, os_id: u32) -> Result<NodeIx, DocumentError> {
        let nodes = self.topology.nodes();
        nodes
            .iter()
            .position(|node| node.os_id == os_id)
            .and_then(crate::ids::Index::from_index)
            .ok_or_else(|| {
                let known: Vec<String> = nodes.iter().map(|node| node.os_id.to_string()).collect();
                value(
                    &format!("{path}.memory-node"),
                    format!("the host has no NUMA node {os_id}; it has {}", known.join(", ")),
                )
            })
    }
}
