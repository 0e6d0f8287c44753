//! What a mask is, seen on the CPUs that are online.

use vcpu_policy_api::cpuset::OsCpuSet;

/// What has to be known beside an affinity to judge it.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The CPUs that are online.
    pub online: &'a OsCpuSet,
    /// The CPUs that were online when affinities were last looked at.
    pub online_before: &'a OsCpuSet,
    /// What a vCPU without an affinity of its own has: the definition's set, or all CPUs that are online.
    pub inherited: &'a OsCpuSet,
}

/// Whether two masks let a vCPU run on the same of the CPUs that are online, and on any at all.
pub(super) fn same(left: &OsCpuSet, right: &OsCpuSet, online: &OsCpuSet) -> bool {
    if left == right {
        return true;
    }
    let [mut left, mut right] = [left.clone(), right.clone()];
    left.intersect(online.as_ref());
    right.intersect(online.as_ref());
    left == right && !left.is_empty()
}

/// Whether no CPU of a mask is online.
pub(super) fn is_offline(cpus: &OsCpuSet, online: &OsCpuSet) -> bool {
    !cpus.iter().any(|cpu| online.contains(cpu))
}

/// Whether a mask is what the kernel makes of one whose CPUs are offline: all that are online, or were just now.
pub(super) fn is_wide(seen: &OsCpuSet, scene: Scene<'_>) -> bool {
    let mut online = scene.online.clone();
    online.intersect(scene.online_before.as_ref());
    online.as_ref().is_subset(seen.as_ref())
}

/// Whether a mask binds to nothing, on a host and by a definition that bind to nothing either.
pub(super) fn is_everything(seen: &OsCpuSet, scene: Scene<'_>) -> bool {
    same(seen, scene.online, scene.online) && same(scene.inherited, scene.online, scene.online)
}
