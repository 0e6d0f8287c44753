//! Numbers that cannot be mixed up.
//!
//! A snapshot is a handful of tables, and a row refers to a row of another table by its index. Each table has an
//! index type of its own, so that a core is never looked up among the CPUs. [`OsCpuId`] is different in kind: it is
//! the kernel's number of a CPU, the only one that people see. Offline CPUs leave gaps in `OsCpuId`, never in
//! [`CpuIx`].

use std::fmt;

/// A number that can be a member of a set of bits ([`crate::cpuset::Bits`]) or the index of a row.
pub trait Index: Copy + Ord + fmt::Debug {
    /// The value with this index; `None` if it is larger than an index can be.
    fn from_index(index: usize) -> Option<Self>;
    /// The number as an offset into a slice.
    fn index(self) -> usize;
}

macro_rules! index_types {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl Index for $name {
            fn from_index(index: usize) -> Option<Self> {
                u32::try_from(index).ok().map(Self)
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}

index_types! {
    /// A row of the table of online pCPUs.
    CpuIx;
    /// A row of the table of cores: the SMT siblings that share execution units.
    CoreIx;
    /// A row of the table of last-level caches: the pCPUs of one NUMA node that share one.
    LlcIx;
    /// A row of the table of NUMA nodes.
    NodeIx;
    /// A row of the table of domains (libvirt guests).
    DomainIx;
    /// A row of the table of vCPUs, over all domains.
    VcpuIx;
    /// The kernel's number of a pCPU, as in `/proc/cpuinfo` and in every file, flag and output of this project.
    OsCpuId;
}

impl fmt::Display for OsCpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every index of type `I` below `count`, in order.
///
/// Stops early at the largest value of `I`; no table is that long.
pub fn indexes<I: Index>(count: usize) -> impl Iterator<Item = I> + Clone {
    (0..count).map_while(I::from_index)
}
