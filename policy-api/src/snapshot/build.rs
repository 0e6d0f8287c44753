//! Writing a snapshot's block.
//!
//! In go a [`Topology`], a [`Moment`], and then, in the host's order, each domain followed by its vCPUs. Out comes the
//! checked view over a block that the builder owns and uses again, so that the steady state allocates for the few CPU sets
//! that differ and for nothing else.

use std::collections::BTreeMap;

use bytemuck::Pod;

use super::rows::{
    self, CoreRow, CpuRow, DomainRow, Header, LlcRow, NodeRow, TableRef, TextRef, VcpuRow, flags,
};
use super::{Snapshot, SnapshotError};
use crate::cpuset::CpuSetRef;
use crate::ids::{CpuIx, Index, NodeIx, indexes};
use crate::topology::Topology;

/// When a snapshot is taken, and what else is true of the whole host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The number of the tick; the first one is 1.
    pub tick: u64,
    /// Monotonic time of the sample, nanoseconds since an arbitrary origin.
    pub now_ns: u64,
    /// The interval that the measures cover, nanoseconds; not 0.
    pub interval_ns: u64,
    /// The only randomness that a policy may use.
    pub seed: u64,
    /// How many pins will be carried out at most.
    pub budget: Option<u32>,
    /// Whether the policy starts without state.
    pub fresh: bool,
}

/// A domain to be written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DomainEntry<'a> {
    /// libvirt's name.
    pub name: &'a str,
    /// libvirt's UUID, as its 16 bytes in text order.
    pub uuid: [u8; 16],
    /// Whether it may be touched.
    pub managed: bool,
    /// The node of its memory.
    pub memory_node: Option<NodeIx>,
    /// Its CPU shares relative to other domains.
    pub weight: Option<f64>,
}

/// A vCPU to be written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VcpuEntry<'a> {
    /// Its number in the domain.
    pub number: u32,
    /// The pCPU that its load counts on.
    pub cpu: Option<CpuIx>,
    /// The online CPUs it may run on now.
    pub affinity: CpuSetRef<'a>,
    /// The CPUs it may be pinned to.
    pub allowed: CpuSetRef<'a>,
    /// Whether it may be pinned in this tick.
    pub movable: bool,
    /// Its dense number.
    pub slot: u32,
    /// The tick at which it was first seen.
    pub born: u64,
    /// Percent of one pCPU over the interval.
    pub load: Option<f64>,
    /// Percent of the interval runnable but not running.
    pub wait: Option<f64>,
}

/// Writes one snapshot after another into the same memory.
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    cpus: Vec<CpuRow>,
    cores: Vec<CoreRow>,
    llcs: Vec<LlcRow>,
    nodes: Vec<NodeRow>,
    distances: Vec<u32>,
    domains: Vec<DomainRow>,
    vcpus: Vec<VcpuRow>,
    text: String,
    sets: SetArena,
    moment: Option<Moment>,
    block: Vec<u64>,
}

impl SnapshotBuilder {
    /// A builder without memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a new snapshot: forgets the domains of the one before and writes the host.
    pub fn begin(&mut self, topology: &Topology, managed: CpuSetRef<'_>, moment: Moment) {
        self.moment = Some(moment);
        self.domains.clear();
        self.vcpus.clear();
        self.text.clear();
        self.sets.begin(topology.cpus().len());
        self.write_topology(topology, managed);
    }

    /// States a CPU's load of everything that is not a vCPU, percent of a pCPU. Not before [`Self::begin`].
    pub fn background(&mut self, cpu: CpuIx, load: f64) {
        if let Some(row) = self.cpus.get_mut(cpu.index()) {
            row.background = load;
        }
    }

    /// Adds a domain behind those added before.
    pub fn domain(&mut self, entry: DomainEntry<'_>) {
        let name = TextRef {
            offset: count(self.text.len()),
            length: count(entry.name.len()),
        };
        self.text.push_str(entry.name);
        self.domains.push(DomainRow {
            uuid: entry.uuid,
            name,
            first_vcpu: count(self.vcpus.len()),
            vcpu_count: 0,
            flags: if entry.managed { flags::MANAGED } else { 0 },
            memory_node: stored_reference(entry.memory_node),
            weight: entry.weight.unwrap_or(f64::NAN),
        });
    }

    /// Adds a vCPU to the domain that was added last.
    ///
    /// # Panics
    /// If no domain was added.
    pub fn vcpu(&mut self, entry: &VcpuEntry<'_>) {
        let domain = self.domains.last_mut().expect("a vCPU follows its domain");
        domain.vcpu_count += 1;
        self.vcpus.push(VcpuRow {
            domain: count(self.domains.len()),
            number: entry.number,
            cpu: stored_reference(entry.cpu),
            affinity: self.sets.intern(entry.affinity),
            allowed: self.sets.intern(entry.allowed),
            flags: if entry.movable { flags::MOVABLE } else { 0 },
            slot: entry.slot,
            reserved: 0,
            born: entry.born,
            load: entry.load.unwrap_or(f64::NAN),
            wait: entry.wait.unwrap_or(f64::NAN),
        });
    }

    /// Puts the tables together and checks them.
    ///
    /// # Errors
    /// If an entry was out of range: a CPU or node that the topology does not have, a measure that is no number.
    ///
    /// # Panics
    /// If nothing was begun.
    pub fn finish(&mut self) -> Result<Snapshot<'_>, SnapshotError> {
        let moment = self.moment.expect("begin comes before finish");
        let mut header = Header {
            magic: rows::MAGIC,
            size: count(size_of::<Header>()),
            flags: if moment.fresh { flags::FRESH } else { 0 },
            tick: moment.tick,
            now_ns: moment.now_ns,
            interval_ns: moment.interval_ns,
            seed: moment.seed,
            budget: moment.budget.unwrap_or(rows::NO_LIMIT),
            set_words: count(self.sets.width),
            ..bytemuck::Zeroable::zeroed()
        };
        let mut end = size_of::<Header>();
        header.cpus = place(&self.cpus, &mut end);
        header.cores = place(&self.cores, &mut end);
        header.llcs = place(&self.llcs, &mut end);
        header.nodes = place(&self.nodes, &mut end);
        header.distances = place(&self.distances, &mut end);
        header.domains = place(&self.domains, &mut end);
        header.vcpus = place(&self.vcpus, &mut end);
        header.sets = place(&self.sets.words, &mut end);
        header.sets.count = count(self.sets.words.len() / self.sets.width.max(1));
        header.sets.stride = count(self.sets.width * size_of::<u64>());
        header.text = place(self.text.as_bytes(), &mut end);
        header.total_size = end as u64;

        self.block.clear();
        self.block.resize(end / rows::ALIGNMENT, 0);
        let block: &mut [u8] = bytemuck::cast_slice_mut(&mut self.block);
        copy(block, 0, std::slice::from_ref(&header));
        copy(block, header.cpus.offset, &self.cpus);
        copy(block, header.cores.offset, &self.cores);
        copy(block, header.llcs.offset, &self.llcs);
        copy(block, header.nodes.offset, &self.nodes);
        copy(block, header.distances.offset, &self.distances);
        copy(block, header.domains.offset, &self.domains);
        copy(block, header.vcpus.offset, &self.vcpus);
        copy(block, header.sets.offset, &self.sets.words);
        copy(block, header.text.offset, self.text.as_bytes());
        Snapshot::new(bytemuck::cast_slice(&self.block))
    }

    fn write_topology(&mut self, topology: &Topology, managed: CpuSetRef<'_>) {
        self.cpus.clear();
        for (cpu, ix) in topology
            .cpus()
            .iter()
            .zip(indexes::<CpuIx>(topology.cpus().len()))
        {
            self.cpus.push(CpuRow {
                os_id: cpu.os_id.0,
                flags: if managed.contains(ix) { flags::MANAGED } else { 0 },
                core: stored_reference(Some(cpu.core)),
                llc: stored_reference(Some(cpu.llc)),
                node: stored_reference(Some(cpu.node)),
                reserved: 0,
                capacity: cpu.capacity,
                background: f64::NAN,
            });
        }
        self.cores.clear();
        for core in topology.cores() {
            let cpus = self.sets.intern(core.cpus.as_ref());
            let (llc, node) = (
                stored_reference(Some(core.llc)),
                stored_reference(Some(core.node)),
            );
            self.cores.push(CoreRow {
                llc,
                node,
                cpus,
                reserved: 0,
            });
        }
        self.llcs.clear();
        for llc in topology.llcs() {
            let cpus = self.sets.intern(llc.cpus.as_ref());
            self.llcs.push(LlcRow {
                node: stored_reference(Some(llc.node)),
                cpus,
            });
        }
        self.nodes.clear();
        self.distances.clear();
        for (node, from) in topology
            .nodes()
            .iter()
            .zip(indexes::<NodeIx>(topology.nodes().len()))
        {
            let cpus = self.sets.intern(node.cpus.as_ref());
            self.nodes.push(NodeRow {
                os_id: node.os_id,
                cpus,
            });
            self.distances
                .extend(indexes(topology.nodes().len()).map(|to| topology.distance(from, to)));
        }
    }
}

/// The CPU sets of a snapshot, each stored once.
#[derive(Debug, Default)]
struct SetArena {
    width: usize,
    words: Vec<u64>,
    /// Reference (index + 1) by the words of a set, so that one can be looked up without a copy.
    known: BTreeMap<Vec<u64>, u32>,
    /// The reference given out last: neighbours mostly have the same set.
    last: u32,
}

impl SetArena {
    fn begin(&mut self, cpus: usize) {
        self.width = cpus.div_ceil(u64::BITS as usize);
        self.words.clear();
        self.known.clear();
        self.last = 0;
    }

    /// The reference of a set; members beyond the last CPU's word are left out.
    fn intern(&mut self, set: CpuSetRef<'_>) -> u32 {
        if self.last > 0 {
            let start = (self.last as usize - 1) * self.width;
            if CpuSetRef::from_words(&self.words[start..start + self.width]) == set {
                return self.last;
            }
        }
        let key = set.significant_words();
        self.last = if let Some(&known) = self.known.get(key) {
            known
        } else {
            let new = count(self.known.len() + 1);
            let end = self.words.len() + self.width;
            self.words.extend(key.iter().take(self.width));
            self.words.resize(end, 0);
            self.known.insert(key.to_vec(), new);
            new
        };
        self.last
    }
}

fn place<T: Pod>(rows: &[T], end: &mut usize) -> TableRef {
    let offset = *end;
    *end = (offset + size_of_val(rows)).next_multiple_of(rows::ALIGNMENT);
    TableRef {
        offset: offset as u64,
        count: count(rows.len()),
        stride: count(size_of::<T>()),
    }
}

fn copy<T: Pod>(block: &mut [u8], offset: u64, rows: &[T]) {
    let bytes: &[u8] = bytemuck::cast_slice(rows);
    let start = usize::try_from(offset).expect("an offset within memory");
    block[start..start + bytes.len()].copy_from_slice(bytes);
}

fn stored_reference<I: Index>(index: Option<I>) -> u32 {
    index.map_or(0, |index| count(index.index() + 1))
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).expect("tables count their rows in 32 bits")
}

const _: () = {
    use super::rows::{ALIGNMENT, Row};
    assert!(CpuRow::FIRST_SIZE.is_multiple_of(ALIGNMENT) && VcpuRow::FIRST_SIZE.is_multiple_of(ALIGNMENT));
    assert!(DomainRow::FIRST_SIZE.is_multiple_of(ALIGNMENT));
};
