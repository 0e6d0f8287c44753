//! A snapshot as a file that people can read and write.
//!
//! ```yaml
//! interval: 5s
//! topology: {cpus: 2}
//! domains:
//!   - name: web1
//!     vcpus:
//!       - {cpu: 0, load: 80.0}
//! ```
//!
//! All CPU numbers are the kernel's. What is absent has a default, and what has its default is not written, so that a
//! file says only what is special about its case. Promise: writing a snapshot and reading the file again gives the same
//! snapshot, to the bit.
//!
//! A mistake in the form or in a single value is located by line and column; one that only shows in the light of the
//! whole file (a CPU that the host does not have) by the path of its key.

mod host;
mod scalar;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use host::HostShape;
pub use scalar::{AllowedCpus, Interval, Percent};

use crate::cpuset::{CpuSet, OsCpuSet};
use crate::ids::{CpuIx, NodeIx, OsCpuId};
use crate::snapshot::{
    DomainEntry, Moment, Snapshot, SnapshotBlock, SnapshotBuilder, SnapshotError, VcpuEntry,
};
use crate::topology::{Topology, TopologyError};
use crate::yaml::{self, YamlError};

/// Why a text is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// It is not of the form of a snapshot file.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Its host is impossible.
    #[error("topology")]
    Topology(#[from] TopologyError),
    /// A value that does not fit the rest of the file.
    #[error("{path}: {problem}")]
    Value {
        /// The path of the key, as `domains[3].vcpus[0].cpu`.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// What came together is not a snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a snapshot")]
struct Document {
    interval: Interval,
    topology: HostShape,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserved: Option<OsCpuSet>,
    #[serde(default = "first_tick", skip_serializing_if = "is_first_tick")]
    tick: u64,
    #[serde(default, skip_serializing_if = "Interval::is_zero")]
    now: Interval,
    #[serde(default, skip_serializing_if = "is_zero")]
    seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<u32>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    fresh: bool,
    domains: Vec<DomainDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a domain such as {name: web1, vcpus: [{cpu: 0, load: 80.0}]}"
)]
struct DomainDocument {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uuid: Option<uuid::Uuid>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    managed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_node: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Percent>,
    vcpus: Vec<VcpuDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a vCPU such as {cpu: 0, load: 80.0}"
)]
struct VcpuDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    affinity: Option<OsCpuSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allowed: Option<AllowedCpus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    movable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    born: u64,
}

fn first_tick() -> u64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_first_tick(tick: &u64) -> bool {
    *tick == first_tick()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_yes(flag: &bool) -> bool {
    *flag
}

/// The UUID of a domain whose file states none: derived from its name, so that it is the same every time.
pub fn uuid_from_name(name: &str) -> [u8; 16] {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).into_bytes()
}

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
    let mut slot = 0;
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
            host.write_vcpu(&mut builder, &path, domain.managed, vcpu, number, slot)?;
            slot += 1;
        }
    }
    Ok(SnapshotBlock::from(builder.finish()?))
}

/// Writes a snapshot as a file.
pub fn write(snapshot: &Snapshot<'_>) -> String {
    let managed: CpuSet = snapshot
        .cpus()
        .filter(|cpu| cpu.is_managed())
        .map(crate::snapshot::Cpu::ix)
        .collect();
    let reserved: OsCpuSet = snapshot
        .cpus()
        .filter(|cpu| !cpu.is_managed())
        .map(crate::snapshot::Cpu::os_id)
        .collect();
    let defaults = Defaults {
        online: CpuSet::first(snapshot.counts().0),
        managed,
    };
    yaml::write(&Document {
        interval: Interval::new(snapshot.interval()),
        topology: HostShape::of(snapshot),
        reserved: (!reserved.is_empty()).then_some(reserved),
        tick: snapshot.tick(),
        now: Interval::new(snapshot.now()),
        seed: snapshot.seed(),
        budget: snapshot.budget(),
        fresh: snapshot.is_fresh(),
        domains: snapshot
            .domains()
            .map(|domain| defaults.domain_document(snapshot, &domain))
            .collect(),
    })
}

fn value(path: &str, problem: impl Into<String>) -> DocumentError {
    DocumentError::Value {
        path: path.to_owned(),
        problem: problem.into(),
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
        default_slot: u32,
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
            slot: vcpu.slot.unwrap_or(default_slot),
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

/// What a reader would fill in by itself, and a writer leaves out.
struct Defaults {
    online: CpuSet,
    managed: CpuSet,
}

impl Defaults {
    fn domain_document(
        &self,
        snapshot: &Snapshot<'_>,
        domain: &crate::snapshot::Domain<'_>,
    ) -> DomainDocument {
        let mut next_number = 0;
        let vcpus = domain.vcpus().map(|ix| {
            let vcpu = snapshot.vcpu(ix);
            let number = (vcpu.number() != next_number).then_some(vcpu.number());
            next_number = vcpu.number().saturating_add(1);
            VcpuDocument {
                number,
                ..self.vcpu_document(snapshot, &vcpu)
            }
        });
        DomainDocument {
            name: domain.name().to_owned(),
            uuid: (domain.uuid() != uuid_from_name(domain.name()))
                .then(|| uuid::Uuid::from_bytes(domain.uuid())),
            managed: domain.is_managed(),
            memory_node: domain.memory_node().map(|node| snapshot.node_os_id(node)),
            weight: domain.weight().map(Percent::from_checked),
            vcpus: vcpus.collect(),
        }
    }

    fn vcpu_document(&self, snapshot: &Snapshot<'_>, vcpu: &crate::snapshot::Vcpu<'_>) -> VcpuDocument {
        let affinity = vcpu.affinity();
        // An affinity of no CPU cannot be written, and stands for "anywhere": so does the absence of one.
        let unwritten = affinity == self.managed.as_ref() || affinity.is_empty();
        let implied_cpu = affinity.single();
        let allowed = match vcpu.allowed() {
            allowed if allowed == self.managed.as_ref() => None,
            allowed if allowed.is_empty() => Some(AllowedCpus::None),
            allowed => Some(AllowedCpus::Some(snapshot.os_ids(allowed))),
        };
        let by_the_rules = vcpu.domain().is_managed() && vcpu.load().is_some() && !vcpu.allowed().is_empty();
        VcpuDocument {
            number: None,
            cpu: vcpu
                .cpu()
                .filter(|_| implied_cpu.is_none())
                .map(|cpu| snapshot.cpu(cpu).os_id().0),
            load: vcpu.load().map(Percent::from_checked),
            wait: vcpu.wait().map(Percent::from_checked),
            affinity: (!unwritten).then(|| {
                snapshot.os_ids(if affinity.is_empty() {
                    self.online.as_ref()
                } else {
                    affinity
                })
            }),
            allowed,
            movable: (vcpu.is_movable() != by_the_rules).then(|| vcpu.is_movable()),
            slot: (vcpu.slot() != crate::ids::Index::index(vcpu.ix()))
                .then(|| u32::try_from(vcpu.slot()).unwrap_or(u32::MAX)),
            born: vcpu.born(),
        }
    }
}

impl Interval {
    fn nanoseconds(self) -> u64 {
        u64::try_from(self.get().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_zero(&self) -> bool {
        self.get() == Duration::ZERO
    }
}
