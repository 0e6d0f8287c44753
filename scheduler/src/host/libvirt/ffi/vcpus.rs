//! The vCPUs of a domain: `virDomainGetVcpus`.

use std::ffi::{c_int, c_uchar, c_uint};

use vcpu_policy_api::cpuset::{MAX_OS_CPU, OsCpuSet};
use vcpu_policy_api::ids::OsCpuId;
use virt::domain::Domain;
use virt::error::Error;

use super::c_length;
use super::map::{cpus_of, map_bytes};

/// The most vCPUs that libvirt's protocol carries in one answer.
const MAX_VCPUS: usize = 16_384;
/// The most bytes of CPU maps that libvirt's protocol carries in one answer.
const MAX_MAP_BYTES: usize = 8 << 20;

/// What libvirt says a vCPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host::libvirt) enum VcpuState {
    Offline,
    Running,
    Blocked,
    Unknown(c_int),
}

/// A vCPU as libvirt sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host::libvirt) struct VcpuInfo {
    pub(in crate::host::libvirt) number: u32,
    pub(in crate::host::libvirt) state: VcpuState,
    /// How long it has run, in nanoseconds; the QEMU driver counts in steps of 10 ms.
    pub(in crate::host::libvirt) cpu_time_ns: u64,
    /// The CPU it ran on last, if known.
    pub(in crate::host::libvirt) last_cpu: Option<OsCpuId>,
    /// Where it may run.
    pub(in crate::host::libvirt) affinity: OsCpuSet,
}

/// Reads at most `most` vCPUs of a running domain on a host with CPU numbers below `cpus`: `virDomainGetVcpus`.
pub(in crate::host::libvirt) fn vcpus(domain: &Domain, most: u32, cpus: u32) -> Result<Vec<VcpuInfo>, Error> {
    let map_length = map_bytes(cpus.clamp(1, MAX_OS_CPU + 1));
    let count = (most as usize).clamp(1, MAX_VCPUS.min(MAX_MAP_BYTES / map_length));
    let empty = virt_sys::virVcpuInfo {
        number: 0,
        state: 0,
        cpuTime: 0,
        cpu: -1,
    };
    let mut infos = vec![empty; count];
    let mut maps: Vec<c_uchar> = vec![0; count * map_length];
    // SAFETY: the domain's handle is valid for as long as it is borrowed; `infos` has room for `count` entries and
    // `maps` for `count` maps of `map_length` bytes, and libvirt writes no more than that many of either. Both
    // numbers are small enough for C's int by the bounds above.
    let filled = unsafe {
        virt_sys::virDomainGetVcpus(
            domain.as_ptr(),
            infos.as_mut_ptr(),
            c_length(count),
            maps.as_mut_ptr(),
            c_length(map_length),
        )
    };
    let Ok(filled) = usize::try_from(filled) else {
        return Err(Error::last_error());
    };
    let read = infos.iter().zip(maps.chunks_exact(map_length)).take(filled);
    Ok(read
        .map(|(info, map)| VcpuInfo {
            number: info.number,
            state: vcpu_state(info.state),
            cpu_time_ns: info.cpuTime,
            last_cpu: u32::try_from(info.cpu)
                .ok()
                .filter(|&cpu| cpu <= MAX_OS_CPU)
                .map(OsCpuId),
            affinity: cpus_of(map),
        })
        .collect())
}

fn vcpu_state(state: c_int) -> VcpuState {
    match c_uint::try_from(state) {
        Ok(virt_sys::VIR_VCPU_OFFLINE) => VcpuState::Offline,
        Ok(virt_sys::VIR_VCPU_RUNNING) => VcpuState::Running,
        Ok(virt_sys::VIR_VCPU_BLOCKED) => VcpuState::Blocked,
        _ => VcpuState::Unknown(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_libvirt_has_not_yet_is_unknown() {
        assert_eq!(vcpu_state(0), VcpuState::Offline);
        assert_eq!(vcpu_state(1), VcpuState::Running);
        assert_eq!(vcpu_state(2), VcpuState::Blocked);
        assert_eq!(vcpu_state(3), VcpuState::Unknown(3));
        assert_eq!(vcpu_state(-1), VcpuState::Unknown(-1));
    }
}
