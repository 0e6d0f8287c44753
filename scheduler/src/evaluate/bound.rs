//! A snapshot as it would be on a host where an operator's configuration holds.
//!
//! In go a snapshot, which says of each vCPU what it may do where it was taken, and constraints and limits; out comes the
//! same host, the same guests and the same loads, with no more allowed than both permit: reserved CPUs are not managed, a
//! guest that a rule excludes is not moved, one that a rule binds stays on the rule's CPUs, and the budget is the smallest
//! there is. Nothing is allowed that the snapshot does not allow. What takes a past (a cooldown, a pin of someone else)
//! has no place here, and what the kernel isolates is in no snapshot. Pure.

use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::document::HostShape;
use vcpu_policy_api::snapshot::{
    Cpu, DomainEntry, Moment, Snapshot, SnapshotBlock, SnapshotBuilder, SnapshotError, VcpuEntry,
};
use vcpu_policy_api::topology::TopologyError;

use crate::engine::constraints::Constraints;
use crate::engine::terms::Limits;
use crate::host::DomainUuid;

/// Why a snapshot cannot be bound. One that was checked always can.
#[derive(Debug, thiserror::Error)]
pub enum BoundError {
    /// Its host is none.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// What came together is not a snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The snapshot with what these permit.
///
/// # Errors
/// If the snapshot's host is none; one that was checked has one.
pub fn bound(
    snapshot: &Snapshot<'_>,
    constraints: &Constraints,
    limits: Limits,
) -> Result<SnapshotBlock, BoundError> {
    let topology = HostShape::of(snapshot).topology()?;
    let managed = snapshot
        .cpus()
        .filter(|cpu| cpu.is_managed() && !constraints.reserved.contains(cpu.os_id()));
    let managed: CpuSet = managed.map(Cpu::ix).collect();
    let mut builder = SnapshotBuilder::new();
    let moment = Moment {
        tick: snapshot.tick(),
        now_ns: nanoseconds(snapshot.now()),
        interval_ns: nanoseconds(snapshot.interval()),
        seed: snapshot.seed(),
        budget: budget(snapshot.budget(), limits),
        fresh: snapshot.is_fresh(),
    };
    builder.begin(&topology, managed.as_ref(), moment);
    for cpu in snapshot.cpus() {
        if let Some(load) = cpu.background() {
            builder.background(cpu.ix(), load);
        }
    }
    for domain in snapshot.domains() {
        let rule = constraints.rule_for(domain.name(), DomainUuid(domain.uuid()));
        let wish = rule.map(|rule| &rule.rule.wish);
        let is_managed = domain.is_managed() && wish.is_none_or(|wish| wish.manage != Some(false));
        builder.domain(DomainEntry {
            name: domain.name(),
            uuid: domain.uuid(),
            managed: is_managed,
            memory_node: domain.memory_node(),
            weight: domain.weight(),
        });
        for vcpu in domain.vcpus().map(|ix| snapshot.vcpu(ix)) {
            let mut allowed = vcpu.allowed().to_owned();
            allowed.intersect(managed.as_ref());
            if let Some(cpus) = wish.and_then(|wish| wish.cpus.as_ref()) {
                allowed.intersect(topology.rows(cpus).as_ref());
            }
            builder.vcpu(&VcpuEntry {
                number: vcpu.number(),
                cpu: vcpu.cpu(),
                affinity: vcpu.affinity(),
                allowed: allowed.as_ref(),
                movable: vcpu.is_movable() && is_managed && !allowed.is_empty(),
                slot: u32::try_from(vcpu.slot()).unwrap_or(u32::MAX),
                born: vcpu.born(),
                load: vcpu.load(),
                wait: vcpu.wait(),
            });
        }
    }
    Ok(SnapshotBlock::from(builder.finish()?))
}

/// The smallest of what is left.
fn budget(left: Option<u32>, limits: Limits) -> Option<u32> {
    let per_minute = limits.moves_per_minute.map(u32::from);
    [left, limits.moves_per_tick, per_minute]
        .into_iter()
        .flatten()
        .min()
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use vcpu_policy_api::document;

    use super::*;
    use crate::config::{Sources, parse};

    const HOST: &str = "interval: 5s\ntopology: {cpus: [{cpu: 0, background: 2.5}, {cpu: 1}, {cpu: 4}]}\nreserved: '4'\n\
        budget: 9\nfresh: false\ndomains:\n\
        - {name: db-1, vcpus: [{cpu: 0, load: 30.0}]}\n\
        - {name: web-1, weight: 2.0, vcpus: [{cpu: 1, load: 20.0}, {number: 3, cpu: 0, load: 9.0, allowed: '0', slot: 8, born: 3}]}\n";

    /// The snapshot as a file, when this configuration holds.
    fn check(config: &str) -> String {
        let file = parse(config.as_bytes()).expect("a configuration");
        let sources = Sources {
            flags: file,
            ..Sources::default()
        };
        let effective = sources.read().expect("good");
        let block = document::read(HOST).expect("a snapshot");
        let bound = bound(&block.view(), &effective.constraints(), effective.limits()).expect("bound");
        document::write(&bound.view())
    }

    #[test]
    fn what_binds_nothing_changes_nothing() {
        let block = document::read(HOST).expect("a snapshot");
        assert_eq!(
            check("limits: {moves-per-tick: unlimited}"),
            document::write(&block.view())
        );
        assert!(
            check("").contains("budget: 9"),
            "16 a tick are more than are left"
        );
    }

    #[test]
    fn each_part_of_a_configuration_binds() {
        insta::assert_snapshot!(check(
            "host: {reserved-cpus: '1'}\nlimits: {moves-per-tick: 4, moves-per-minute: 3}\ndomains:\n\
            - {match: 'db-*', manage: false}\n- {match: '*', cpus: '0-1'}\n- {match: 'web-1', manage: false}\n"
        ));
        let none = check("domains: [{match: web-1, cpus: '1'}]");
        assert!(
            none.contains("allowed: none") && none.contains("allowed: '1'"),
            "{none}"
        );
    }
}
