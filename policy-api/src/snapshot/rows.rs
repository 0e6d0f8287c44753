//! The tables of a snapshot, byte for byte.
//!
//! A snapshot is one block of memory: a [`Header`], then tables of rows, an arena of CPU sets and an arena of text. A
//! row refers to another by index, never by pointer, so the block means the same at every address: to a policy in
//! this process, to one behind a C ABI, to one in another process.
//!
//! Rules that let rows grow without breaking a reader:
//! - A table states the distance between its rows (its stride). A reader skips by the stride and takes the fields it
//!   knows, which are always the first ones.
//! - A reference to a row of another table is stored as index + 1, so that 0, which is what an absent field reads as,
//!   means "unknown". A measure that is unknown is NaN.
//! - There is no implicit padding: every byte belongs to a field, and reserved fields are zero.
//!
//! All numbers are in the machine's own byte order: a snapshot never leaves the machine in this form.

use bytemuck::{Pod, Zeroable};

/// `VCPUSNAP` in ASCII: the first eight bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"VCPUSNAP";

/// The alignment of the block and of every table in it, in bytes.
pub const ALIGNMENT: usize = 8;

/// Where a table lies.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct TableRef {
    /// Bytes from the start of the header to the first row; a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// How many rows there are.
    pub count: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
}

/// What the snapshot begins with.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The size of this header in bytes, as its writer knew it.
    pub size: u32,
    /// [`flags::FRESH`]; other bits are for later versions.
    pub flags: u32,
    /// The size of the whole block in bytes.
    pub total_size: u64,
    /// The number of this tick; the first one is 1.
    pub tick: u64,
    /// Monotonic time of the sample, in nanoseconds since an arbitrary origin.
    pub now_ns: u64,
    /// The interval that the measures cover, in nanoseconds.
    pub interval_ns: u64,
    /// The only randomness that a policy may use.
    pub seed: u64,
    /// How many pins will be carried out at most; [`NO_LIMIT`] where there is no limit.
    pub budget: u32,
    /// How many 64-bit words each CPU set has: as many as the rows of CPUs take. No more than a pin may have.
    pub set_words: u32,
    /// [`CpuRow`]s.
    pub cpus: TableRef,
    /// [`CoreRow`]s.
    pub cores: TableRef,
    /// [`LlcRow`]s.
    pub llcs: TableRef,
    /// [`NodeRow`]s.
    pub nodes: TableRef,
    /// Distances, 32 bits each: from each node, in order, to each node; `count` is the number of distances.
    pub distances: TableRef,
    /// [`DomainRow`]s.
    pub domains: TableRef,
    /// [`VcpuRow`]s, those of a domain side by side and in the order of their numbers.
    pub vcpus: TableRef,
    /// CPU sets of `set_words` words each; `count` is the number of sets.
    pub sets: TableRef,
    /// UTF-8 text; `count` is the number of bytes.
    pub text: TableRef,
}

/// The size of the header in the first version of the format, for good.
pub(super) const HEADER_FIRST_SIZE: usize = 208;

/// [`Header::budget`] of a snapshot whose plans are not limited.
pub const NO_LIMIT: u32 = u32::MAX;

/// How many slots there are, for good: a vCPU's is below. Policies keep lists as long as the largest slot.
pub const MAX_SLOTS: u32 = 1_048_576;

/// A piece of the text arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TextRef {
    /// Bytes from the start of the arena.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// An online pCPU.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct CpuRow {
    /// The kernel's number.
    pub os_id: u32,
    /// [`flags::MANAGED`]; other bits are for later versions.
    pub flags: u32,
    /// Core, index + 1.
    pub core: u32,
    /// Last-level cache, index + 1.
    pub llc: u32,
    /// NUMA node, index + 1.
    pub node: u32,
    /// Zero.
    pub reserved: u32,
    /// What the CPU delivers at most, percent of a nominal pCPU.
    pub capacity: f64,
    /// Load of everything that is not a vCPU, percent of a pCPU; NaN if unknown.
    pub background: f64,
}

/// SMT siblings.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct CoreRow {
    /// Last-level cache, index + 1.
    pub llc: u32,
    /// NUMA node, index + 1.
    pub node: u32,
    /// Set of its CPUs, index + 1.
    pub cpus: u32,
    /// Zero.
    pub reserved: u32,
}

/// CPUs of a node that share a last-level cache.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct LlcRow {
    /// NUMA node, index + 1.
    pub node: u32,
    /// Set of its CPUs, index + 1.
    pub cpus: u32,
}

/// A NUMA node.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct NodeRow {
    /// The kernel's number.
    pub os_id: u32,
    /// Set of its CPUs, index + 1.
    pub cpus: u32,
}

/// A libvirt guest.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct DomainRow {
    /// libvirt's UUID, as its 16 bytes in text order.
    pub uuid: [u8; 16],
    /// libvirt's name.
    pub name: TextRef,
    /// Its first row in the table of vCPUs (an index, not index + 1: it is never unknown).
    pub first_vcpu: u32,
    /// How many rows it has there.
    pub vcpu_count: u32,
    /// [`flags::MANAGED`]; other bits are for later versions.
    pub flags: u32,
    /// Node of its memory, index + 1.
    pub memory_node: u32,
    /// Its CPU shares relative to other domains; NaN if unknown.
    pub weight: f64,
}

/// A vCPU.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct VcpuRow {
    /// Domain, index + 1.
    pub domain: u32,
    /// The vCPU's number in its domain.
    pub number: u32,
    /// The pCPU that its load counts on, index + 1.
    pub cpu: u32,
    /// The set of CPUs it may run on now, index + 1.
    pub affinity: u32,
    /// The set of CPUs it may be pinned to, index + 1.
    pub allowed: u32,
    /// [`flags::MOVABLE`]; other bits are for later versions.
    pub flags: u32,
    /// A dense number below [`MAX_SLOTS`] that stays the vCPU's own for its lifetime. It is given to another vCPU, if ever,
    /// only after a tick in which nobody had it: compare `born`.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
    /// The tick at which it was first seen.
    pub born: u64,
    /// What it ran, percent of one pCPU over the interval; NaN if unknown.
    pub load: f64,
    /// How long it was runnable but did not run, percent of the interval; NaN if unknown.
    pub wait: f64,
}

/// The bits of the `flags` fields.
pub mod flags {
    /// Header: the policy's state was lost, or there never was one.
    pub const FRESH: u32 = 1;
    /// CPU: counts for the balance and may be pinned to. Domain: may be touched.
    pub const MANAGED: u32 = 1;
    /// vCPU: may be pinned in this tick.
    pub const MOVABLE: u32 = 1;
}

/// A row of a table: what it reads as where its writer did not know it.
pub trait Row: Pod {
    /// Every field "unknown".
    const ABSENT: Self;
    /// The size of the row in the first version of the format, for good; a smaller stride is an error.
    const FIRST_SIZE: usize;
}

impl Row for CpuRow {
    const ABSENT: Self = Self {
        os_id: 0,
        flags: 0,
        core: 0,
        llc: 0,
        node: 0,
        reserved: 0,
        capacity: f64::NAN,
        background: f64::NAN,
    };
    const FIRST_SIZE: usize = 40;
}

impl Row for CoreRow {
    const ABSENT: Self = Self {
        llc: 0,
        node: 0,
        cpus: 0,
        reserved: 0,
    };
    const FIRST_SIZE: usize = 16;
}

impl Row for LlcRow {
    const ABSENT: Self = Self { node: 0, cpus: 0 };
    const FIRST_SIZE: usize = 8;
}

impl Row for NodeRow {
    const ABSENT: Self = Self { os_id: 0, cpus: 0 };
    const FIRST_SIZE: usize = 8;
}

impl Row for DomainRow {
    const ABSENT: Self = Self {
        uuid: [0; 16],
        name: TextRef { offset: 0, length: 0 },
        first_vcpu: 0,
        vcpu_count: 0,
        flags: 0,
        memory_node: 0,
        weight: f64::NAN,
    };
    const FIRST_SIZE: usize = 48;
}

impl Row for VcpuRow {
    const ABSENT: Self = Self {
        domain: 0,
        number: 0,
        cpu: 0,
        affinity: 0,
        allowed: 0,
        flags: 0,
        slot: 0,
        reserved: 0,
        born: 0,
        load: f64::NAN,
        wait: f64::NAN,
    };
    const FIRST_SIZE: usize = 56;
}

impl Row for u32 {
    const ABSENT: Self = 0;
    const FIRST_SIZE: usize = 4;
}

/// A table as its reader sees it: rows at a stride, of which the reader knows the first fields.
///
/// `bytes` holds exactly `count` strides; [`Rows::new`] is where that is established.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, T> {
    bytes: &'a [u8],
    stride: usize,
    row: std::marker::PhantomData<T>,
}

impl<'a, T: Row> Rows<'a, T> {
    /// The table at `table` in `block`; `None` if it does not lie within the block, is not aligned, or has rows
    /// smaller than the first version's.
    pub(super) fn new(block: &'a [u8], table: TableRef) -> Option<Self> {
        let stride = table.stride as usize;
        let offset = usize::try_from(table.offset).ok()?;
        let length = stride.checked_mul(table.count as usize)?;
        let aligned = offset.is_multiple_of(ALIGNMENT) && stride.is_multiple_of(align_of::<T>());
        if stride < T::FIRST_SIZE || !aligned {
            return None;
        }
        let bytes = block.get(offset..offset.checked_add(length)?)?;
        Some(Self {
            bytes,
            stride,
            row: std::marker::PhantomData,
        })
    }

    pub(super) fn len(self) -> usize {
        self.bytes.len() / self.stride
    }

    /// The row, completed by "unknown" where the writer's rows were shorter.
    #[inline]
    pub(super) fn get(self, at: usize) -> Option<T> {
        let start = at.checked_mul(self.stride)?;
        let row = self.bytes.get(start..start + self.stride)?;
        if let Some(known) = row.get(..size_of::<T>()) {
            return Some(bytemuck::pod_read_unaligned(known));
        }
        let mut completed = T::ABSENT;
        bytemuck::bytes_of_mut(&mut completed)[..row.len()].copy_from_slice(row);
        Some(completed)
    }

    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = T> + 'a
    where
        T: 'a,
    {
        (0..self.len()).map(move |at| self.get(at).unwrap_or(T::ABSENT))
    }
}

// What another compiler has to agree with; the C header asserts the same, and every offset.
const _: () = {
    assert!(size_of::<Header>() == 208 && size_of::<TableRef>() == 16 && size_of::<TextRef>() == 8);
    assert!(size_of::<CpuRow>() == 40 && size_of::<CoreRow>() == 16 && size_of::<LlcRow>() == 8);
    assert!(size_of::<NodeRow>() == 8 && size_of::<DomainRow>() == 48 && size_of::<VcpuRow>() == 56);
    assert!(align_of::<Header>() == ALIGNMENT && align_of::<VcpuRow>() == ALIGNMENT);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as a later version may have it: two fields more than in the first one.
    #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
    #[repr(C)]
    struct Later {
        first: u32,
        node: u32,
        load: f64,
    }

    impl Row for Later {
        const ABSENT: Self = Self {
            first: 0,
            node: 0,
            load: f64::NAN,
        };
        const FIRST_SIZE: usize = 4;
    }

    fn read(words: &[u32], stride: u32, count: u32) -> Option<Vec<Later>> {
        let table = TableRef {
            offset: 0,
            count,
            stride,
        };
        Rows::<Later>::new(bytemuck::cast_slice(words), table).map(|rows| rows.iter().collect())
    }

    #[test]
    fn a_reader_that_knows_more_than_the_writer_sees_unknown() {
        let rows = read(&[7, 1, 8, 2], 8, 2).expect("a table of an older writer");
        assert_eq!((rows[0].first, rows[0].node), (7, 1));
        assert_eq!((rows[1].first, rows[1].node), (8, 2));
        assert!(rows.iter().all(|row| row.load.is_nan()));
    }

    #[test]
    fn a_reader_that_knows_less_than_the_writer_skips_by_the_stride() {
        let words: Vec<u32> =
            bytemuck::cast_slice(&[1u64, 10.0f64.to_bits(), 99, 2, 20.0f64.to_bits(), 99]).to_vec();
        let rows = read(&words, 24, 2).expect("a table of a newer writer");
        let seen: Vec<(u32, f64)> = rows.iter().map(|row| (row.first, row.load)).collect();
        assert_eq!(seen, [(1, 10.0), (2, 20.0)]);
    }

    #[test]
    fn rows_below_the_first_version_are_refused() {
        assert_eq!(read(&[0; 4], 0, 1), None);
        assert_eq!(read(&[0; 4], 2, 1), None);
        assert_eq!(read(&[0; 4], 8, 3), None);
    }
}
