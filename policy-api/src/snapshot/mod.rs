//! What a policy sees: a host and its guests at one moment, read-only.
//!
//! A [`Snapshot`] is a view over one block of memory whose layout [`rows`] describes. Making the view checks the whole
//! block once: every table lies in it, every index has its row, every measure is a number. From then on a policy may
//! follow any reference without a check of its own. [`SnapshotBuilder`] writes such blocks; [`SnapshotBlock`] owns one.
//!
//! Units: loads and waits are percent (100 = one pCPU for the whole interval), times are nanoseconds on a monotonic
//! clock. What is not known is `None`, never 0.

mod build;
mod check;
pub mod rows;
mod view;

use std::time::Duration;

pub use build::{DomainEntry, Moment, SnapshotBuilder, VcpuEntry};
pub use check::SnapshotError;
pub use rows::MAX_SLOTS;
use rows::{CoreRow, CpuRow, DomainRow, Header, LlcRow, NodeRow, Rows, VcpuRow, flags};
pub use view::{Cpu, Domain, Group, Vcpu};

use crate::cpuset::CpuSetRef;
use crate::ids::{CoreIx, CpuIx, DomainIx, Index, LlcIx, NodeIx, OsCpuId, VcpuIx};

/// A host at one moment. See the [module](self).
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    bytes: &'a [u8],
    header: Header,
    cpus: Rows<'a, CpuRow>,
    cores: Rows<'a, CoreRow>,
    llcs: Rows<'a, LlcRow>,
    nodes: Rows<'a, NodeRow>,
    distances: Rows<'a, u32>,
    domains: Rows<'a, DomainRow>,
    vcpus: Rows<'a, VcpuRow>,
    sets: &'a [u64],
    text: &'a str,
}

/// A table lookup that the check of the block has made sure of.
macro_rules! row {
    ($rows:expr, $index:expr) => {
        $rows.get($index.index()).expect("an index of this snapshot")
    };
}

impl<'a> Snapshot<'a> {
    /// Checks `block` and gives the view over it.
    ///
    /// # Errors
    /// If the block is not a snapshot of this format, or anything in it is out of range.
    pub fn new(block: &'a [u8]) -> Result<Self, SnapshotError> {
        check::view(block)
    }

    /// The checked block itself, to be handed on as it is.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of this tick; the first one is 1.
    pub fn tick(&self) -> u64 {
        self.header.tick
    }

    /// Monotonic time of the sample since an arbitrary origin.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.header.now_ns)
    }

    /// The interval that the measures cover.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.header.interval_ns)
    }

    /// The only randomness that a policy may use.
    pub fn seed(&self) -> u64 {
        self.header.seed
    }

    /// How many pins of this plan will be carried out at most; `None` where there is no limit.
    pub fn budget(&self) -> Option<u32> {
        (self.header.budget != rows::NO_LIMIT).then_some(self.header.budget)
    }

    /// Whether the policy's state was lost, or there never was one: nothing learnt earlier may be relied on.
    pub fn is_fresh(&self) -> bool {
        self.header.flags & flags::FRESH != 0
    }

    /// The online pCPUs, in the order of their numbers.
    pub fn cpus(&self) -> impl ExactSizeIterator<Item = Cpu> + '_ {
        self.cpus.iter().enumerate().map(|(at, row)| Cpu {
            ix: at_index(at),
            row,
        })
    }

    /// One pCPU.
    ///
    /// # Panics
    /// If the index is not of this snapshot; so does every lookup by index.
    pub fn cpu(&self, ix: CpuIx) -> Cpu {
        Cpu {
            ix,
            row: row!(self.cpus, ix),
        }
    }

    /// The online CPU with this kernel number.
    pub fn cpu_by_os_id(&self, os_id: OsCpuId) -> Option<Cpu> {
        self.cpus().find(|cpu| cpu.os_id() == os_id)
    }

    /// The cores.
    pub fn cores(&self) -> impl ExactSizeIterator<Item = Group<'a, CoreIx>> + '_ {
        self.cores
            .iter()
            .enumerate()
            .map(|(at, row)| self.group(at_index(at), row.node, row.cpus))
    }

    /// One core.
    pub fn core(&self, ix: CoreIx) -> Group<'a, CoreIx> {
        let row = row!(self.cores, ix);
        self.group(ix, row.node, row.cpus)
    }

    /// The last-level caches.
    pub fn llcs(&self) -> impl ExactSizeIterator<Item = Group<'a, LlcIx>> + '_ {
        self.llcs
            .iter()
            .enumerate()
            .map(|(at, row)| self.group(at_index(at), row.node, row.cpus))
    }

    /// One last-level cache.
    pub fn llc(&self, ix: LlcIx) -> Group<'a, LlcIx> {
        let row = row!(self.llcs, ix);
        self.group(ix, row.node, row.cpus)
    }

    /// The NUMA nodes that have online CPUs.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Group<'a, NodeIx>> + '_ {
        self.nodes.iter().enumerate().map(|(at, row)| Group {
            ix: at_index(at),
            node: at_index(at),
            cpus: self.set(row.cpus),
        })
    }

    /// One NUMA node.
    pub fn node(&self, ix: NodeIx) -> Group<'a, NodeIx> {
        Group {
            ix,
            node: ix,
            cpus: self.set(row!(self.nodes, ix).cpus),
        }
    }

    /// The kernel's number of a node.
    pub fn node_os_id(&self, ix: NodeIx) -> u32 {
        row!(self.nodes, ix).os_id
    }

    /// The distance from a node to another; [`crate::topology::LOCAL_DISTANCE`] is a node's own memory.
    ///
    /// # Panics
    /// If a node is not of this snapshot.
    pub fn distance(&self, from: NodeIx, to: NodeIx) -> u32 {
        let at = from.index() * self.nodes.len() + to.index();
        self.distances.get(at).expect("two nodes of this snapshot")
    }

    /// The domains, in the host's order.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = Domain<'a>> + '_ {
        self.domains
            .iter()
            .enumerate()
            .map(|(at, row)| self.domain_of(at_index(at), row))
    }

    /// One domain.
    pub fn domain(&self, ix: DomainIx) -> Domain<'a> {
        self.domain_of(ix, row!(self.domains, ix))
    }

    /// The vCPUs of all domains: in the order of the domains, then of their numbers.
    pub fn vcpus(&self) -> impl ExactSizeIterator<Item = Vcpu<'_>> + '_ {
        self.vcpus.iter().enumerate().map(|(at, row)| Vcpu {
            ix: at_index(at),
            row,
            snapshot: self,
        })
    }

    /// The vCPUs whose load counts on a pCPU, in the order of [`Self::vcpus`]; or those that never ran.
    ///
    /// Looks at every vCPU's row, but is faster about it than a filter could be.
    pub fn vcpus_on(&self, cpu: Option<CpuIx>) -> impl Iterator<Item = Vcpu<'_>> + '_ {
        let rows = self.vcpus.iter().enumerate();
        rows.filter(move |(_, row)| reference(row.cpu) == cpu)
            .map(|(at, row)| Vcpu {
                ix: at_index(at),
                row,
                snapshot: self,
            })
    }

    /// One vCPU.
    pub fn vcpu(&self, ix: VcpuIx) -> Vcpu<'_> {
        Vcpu {
            ix,
            row: row!(self.vcpus, ix),
            snapshot: self,
        }
    }

    /// How many CPUs, domains and vCPUs there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.cpus.len(), self.domains.len(), self.vcpus.len())
    }

    /// Writes the load of each pCPU into `loads`, indexed by [`CpuIx`]: the sum of the known loads of the vCPUs that
    /// count on it, added up in the order of the vCPUs. Percent of a pCPU.
    pub fn cpu_loads(&self, loads: &mut Vec<f64>) {
        loads.clear();
        loads.resize(self.cpus.len(), 0.0);
        for row in self.vcpus.iter() {
            if let (Some(cpu), Some(load)) = (reference::<CpuIx>(row.cpu), measure(row.load)) {
                loads[cpu.index()] += load;
            }
        }
    }

    /// The kernel's numbers of a set of this snapshot's CPUs.
    pub fn os_ids(&self, set: CpuSetRef<'_>) -> crate::cpuset::OsCpuSet {
        set.iter().map(|ix| self.cpu(ix).os_id()).collect()
    }

    fn domain_of(&self, ix: DomainIx, row: DomainRow) -> Domain<'a> {
        Domain {
            ix,
            row,
            name: self.text_at(row.name).unwrap_or_default(),
        }
    }

    fn group<I: Index>(&self, ix: I, node: u32, cpus: u32) -> Group<'a, I> {
        Group {
            ix,
            node: known(node),
            cpus: self.set(cpus),
        }
    }

    fn set(&self, index_plus_1: u32) -> CpuSetRef<'a> {
        let width = self.header.set_words as usize;
        let start = (index_plus_1 as usize).saturating_sub(1) * width;
        CpuSetRef::from_words(self.sets.get(start..start + width).unwrap_or_default())
    }

    fn text_at(&self, text: rows::TextRef) -> Option<&'a str> {
        let start = text.offset as usize;
        self.text.get(start..start.checked_add(text.length as usize)?)
    }
}

/// A snapshot's block of memory, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBlock {
    /// 64-bit words, which gives the block its alignment.
    words: Vec<u64>,
}

impl SnapshotBlock {
    /// The view over the block.
    ///
    /// # Panics
    /// Never: a block is made from a checked snapshot.
    pub fn view(&self) -> Snapshot<'_> {
        Snapshot::new(bytemuck::cast_slice(&self.words)).expect("a block made from a checked snapshot")
    }
}

impl From<Snapshot<'_>> for SnapshotBlock {
    fn from(snapshot: Snapshot<'_>) -> Self {
        let words = snapshot.bytes.chunks(rows::ALIGNMENT).map(|chunk| {
            let mut word = [0; rows::ALIGNMENT];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self {
            words: words.collect(),
        }
    }
}

/// A measure as a row stores it.
fn measure(stored: f64) -> Option<f64> {
    (!stored.is_nan()).then_some(stored)
}

/// A reference as a row stores it: index + 1, 0 if there is none.
fn reference<I: Index>(stored: u32) -> Option<I> {
    (stored as usize).checked_sub(1).and_then(I::from_index)
}

/// A reference that the check of the block has made sure of.
fn known<I: Index>(stored: u32) -> I {
    reference(stored).expect("a reference that was checked")
}

fn at_index<I: Index>(at: usize) -> I {
    I::from_index(at).expect("tables count their rows in 32 bits")
}
