//! Sets of CPUs as the model counts them: sixteen bits, and arithmetic of its own, so that the laws are not worked out by
//! the code that they are held against.

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;

/// How many CPUs the model's host has at most.
pub(crate) const CPUS: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Mask(pub(crate) u16);

impl Mask {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn first(count: u32) -> Self {
        Self(u16::try_from((1_u32 << count) - 1).expect("at most 16 CPUs"))
    }

    pub(crate) fn one(cpu: u32) -> Self {
        Self(1 << cpu)
    }

    /// `None` if a CPU is not one of the model's.
    pub(crate) fn of(set: &OsCpuSet) -> Option<Self> {
        set.iter().try_fold(Self::NONE, |mask, cpu| {
            (cpu.0 < CPUS).then(|| mask.or(Self::one(cpu.0)))
        })
    }

    pub(crate) fn set(self) -> OsCpuSet {
        OsCpuSet::from_words(&[u64::from(self.0)])
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.without(other).is_empty()
    }

    pub(crate) fn has(self, cpu: u32) -> bool {
        !self.and(Self::one(cpu)).is_empty()
    }

    /// Whether two masks let a thread run on the same of these CPUs, and on any of them; or are the same outright.
    pub(crate) fn same(self, other: Self, online: Self) -> bool {
        self == other || (self.and(online) == other.and(online) && !self.and(online).is_empty())
    }

    pub(crate) fn cpus(self) -> impl Iterator<Item = OsCpuId> {
        (0..CPUS).filter(move |&cpu| self.has(cpu)).map(OsCpuId)
    }
}

impl std::fmt::Display for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.set().fmt(f)
    }
}
