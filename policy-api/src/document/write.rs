//! From a snapshot to a file's keys.

use super::form::{Document, DomainDocument, VcpuDocument};
use super::{AllowedCpus, HostShape, Interval, Percent, uuid_from_name};
use crate::cpuset::{CpuSet, OsCpuSet};
use crate::snapshot::Snapshot;
use crate::yaml;

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
