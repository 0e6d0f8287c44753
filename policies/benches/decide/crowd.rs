//! Hosts with many vCPUs, each pinned to one pCPU, four to a guest.

use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::CpuIx;
use vcpu_policy_api::snapshot::{DomainEntry, Moment, SnapshotBlock, SnapshotBuilder, VcpuEntry};
use vcpu_policy_api::topology::Topology;

/// How the loads lie on the pCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loads {
    /// Scattered, and of any size: something moves.
    Uneven,
    /// Small, equal and in turn: nothing moves.
    Even,
}

/// A host of this size.
pub(crate) fn crowd(vcpus: u32, cpus: u32, loads: Loads) -> SnapshotBlock {
    let topology = Topology::uniform(1, 1, cpus, 1).expect("a host");
    let all = CpuSet::first(topology.cpus().len());
    let mut builder = SnapshotBuilder::new();
    let moment = Moment {
        tick: 1,
        now_ns: 0,
        interval_ns: 5_000_000_000,
        seed: 0,
        budget: None,
        fresh: false,
    };
    builder.begin(&topology, all.as_ref(), moment);
    for at in 0..vcpus {
        if at % 4 == 0 {
            let domain = at / 4;
            builder.domain(DomainEntry {
                name: &format!("vm-{domain}"),
                uuid: u128::from(domain).to_be_bytes(),
                managed: true,
                memory_node: None,
                weight: None,
            });
        }
        // Scattered by a multiplication whose high bits look random enough.
        let scattered = at.wrapping_mul(2_654_435_761) >> 8;
        let (cpu, load) = match loads {
            Loads::Uneven => (scattered % cpus, f64::from(scattered % 1009) / 10.0),
            Loads::Even => (at % cpus, 5.0),
        };
        let cpu = CpuIx(cpu);
        builder.vcpu(&VcpuEntry {
            number: at % 4,
            cpu: Some(cpu),
            affinity: [cpu].into_iter().collect::<CpuSet>().as_ref(),
            allowed: all.as_ref(),
            movable: true,
            slot: at,
            born: 0,
            load: Some(load),
            wait: None,
        });
    }
    SnapshotBlock::from(builder.finish().expect("a snapshot"))
}
