//! The rows of a snapshot as a policy reads them: each by name, with references followed and unknowns told apart.

use std::fmt;

use super::rows::{CpuRow, DomainRow, VcpuRow, flags};
use super::{Snapshot, at_index, known, measure, reference};
use crate::cpuset::CpuSetRef;
use crate::ids::{CoreIx, CpuIx, DomainIx, LlcIx, NodeIx, OsCpuId, VcpuIx};

/// An online pCPU.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    pub(super) ix: CpuIx,
    pub(super) row: CpuRow,
}

impl Cpu {
    /// Its row.
    pub fn ix(self) -> CpuIx {
        self.ix
    }

    /// The kernel's number.
    pub fn os_id(self) -> OsCpuId {
        OsCpuId(self.row.os_id)
    }

    /// Whether it counts for the balance and may be pinned to: online, not reserved, not isolated.
    pub fn is_managed(self) -> bool {
        self.row.flags & flags::MANAGED != 0
    }

    /// Its core.
    pub fn core(self) -> CoreIx {
        known(self.row.core)
    }

    /// Its last-level cache.
    pub fn llc(self) -> LlcIx {
        known(self.row.llc)
    }

    /// Its NUMA node.
    pub fn node(self) -> NodeIx {
        known(self.row.node)
    }

    /// What it delivers at most, percent of a nominal pCPU.
    pub fn capacity(self) -> f64 {
        self.row.capacity
    }

    /// Load of everything that is not a vCPU, percent of a pCPU.
    pub fn background(self) -> Option<f64> {
        measure(self.row.background)
    }
}

/// CPUs that share something: a core, a last-level cache or a NUMA node.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a, I> {
    pub(super) ix: I,
    pub(super) node: NodeIx,
    pub(super) cpus: CpuSetRef<'a>,
}

impl<'a, I: Copy> Group<'a, I> {
    /// Its row.
    pub fn ix(&self) -> I {
        self.ix
    }

    /// The NUMA node it belongs to; a node belongs to itself.
    pub fn node(&self) -> NodeIx {
        self.node
    }

    /// Its online CPUs.
    pub fn cpus(&self) -> CpuSetRef<'a> {
        self.cpus
    }
}

/// A libvirt guest.
#[derive(Debug, Clone, Copy)]
pub struct Domain<'a> {
    pub(super) ix: DomainIx,
    pub(super) row: DomainRow,
    pub(super) name: &'a str,
}

impl<'a> Domain<'a> {
    /// Its row.
    pub fn ix(&self) -> DomainIx {
        self.ix
    }

    /// libvirt's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// libvirt's UUID, as its 16 bytes in text order.
    pub fn uuid(&self) -> [u8; 16] {
        self.row.uuid
    }

    /// Whether it may be touched. The vCPUs of one that may not still count as load.
    pub fn is_managed(&self) -> bool {
        self.row.flags & flags::MANAGED != 0
    }

    /// The node of its memory.
    pub fn memory_node(&self) -> Option<NodeIx> {
        reference(self.row.memory_node)
    }

    /// Its CPU shares relative to other domains.
    pub fn weight(&self) -> Option<f64> {
        measure(self.row.weight)
    }

    /// The rows of its vCPUs.
    pub fn vcpus(&self) -> impl ExactSizeIterator<Item = VcpuIx> + use<> {
        (0..self.row.vcpu_count as usize).map({
            let first = self.row.first_vcpu as usize;
            move |at| at_index(first + at)
        })
    }
}

/// A vCPU. Displayed as `domain/number`.
#[derive(Clone, Copy)]
pub struct Vcpu<'a> {
    pub(super) ix: VcpuIx,
    pub(super) row: VcpuRow,
    pub(super) snapshot: &'a Snapshot<'a>,
}

impl<'a> Vcpu<'a> {
    /// Its row.
    pub fn ix(&self) -> VcpuIx {
        self.ix
    }

    /// The domain it belongs to.
    pub fn domain(&self) -> Domain<'a> {
        self.snapshot.domain(known(self.row.domain))
    }

    /// Its number in the domain.
    pub fn number(&self) -> u32 {
        self.row.number
    }

    /// The pCPU that its load counts on: the only one of its affinity, else the one it last ran on; `None` if it
    /// never ran.
    pub fn cpu(&self) -> Option<CpuIx> {
        reference(self.row.cpu)
    }

    /// The online CPUs it may run on now.
    pub fn affinity(&self) -> CpuSetRef<'a> {
        self.snapshot.set(self.row.affinity)
    }

    /// The CPUs it may be pinned to.
    pub fn allowed(&self) -> CpuSetRef<'a> {
        self.snapshot.set(self.row.allowed)
    }

    /// Whether it may be pinned in this tick.
    pub fn is_movable(&self) -> bool {
        self.row.flags & flags::MOVABLE != 0
    }

    /// A dense number that stays the vCPU's own for its lifetime, so that a policy can keep state in a `Vec`. It is
    /// given to another vCPU, if ever, only after a tick in which nobody had it: compare [`Vcpu::born`]. Below
    /// [`MAX_SLOTS`](super::MAX_SLOTS).
    pub fn slot(&self) -> usize {
        self.row.slot as usize
    }

    /// The tick at which it was first seen.
    pub fn born(&self) -> u64 {
        self.row.born
    }

    /// What it ran, percent of one pCPU over the interval; `None` where it has no history.
    pub fn load(&self) -> Option<f64> {
        measure(self.row.load)
    }

    /// How long it was runnable but did not run, percent of the interval.
    pub fn wait(&self) -> Option<f64> {
        measure(self.row.wait)
    }
}

impl fmt::Display for Vcpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain().name(), self.number())
    }
}

impl fmt::Debug for Vcpu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("ix", &self.ix)
            .field("row", &self.row)
            .finish_non_exhaustive()
    }
}
