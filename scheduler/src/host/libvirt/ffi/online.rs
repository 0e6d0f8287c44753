//! Which of the host's CPUs are online: `virNodeGetCPUMap`.

use std::ffi::{c_uchar, c_void};
use std::ptr;
use std::slice;

use vcpu_policy_api::cpuset::{MAX_OS_CPU, OsCpuSet};
use virt::error::Error;

use super::Connection;
use super::map::{cpus_of, map_bytes};

unsafe extern "C" {
    /// C's `free`: libvirt hands out memory from `malloc` and asks its callers to free it so.
    fn free(memory: *mut c_void);
}

/// Which of the host's CPUs are online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::host::libvirt) struct CpuMap {
    /// How many CPU numbers the map speaks about: those below this one.
    pub(in crate::host::libvirt) length: u32,
    /// The CPUs that are online.
    pub(in crate::host::libvirt) online: OsCpuSet,
}

/// Asks which CPUs are online: `virNodeGetCPUMap`.
pub(in crate::host::libvirt) fn cpu_map(connection: &Connection) -> Result<CpuMap, Error> {
    let mut map: *mut c_uchar = ptr::null_mut();
    // SAFETY: the connection is open for as long as it is borrowed; `map` is a place for the pointer that libvirt
    // writes; the count of online CPUs may be left out.
    let length = unsafe { virt_sys::virNodeGetCPUMap(connection.as_ptr(), &raw mut map, ptr::null_mut(), 0) };
    let Ok(length) = u32::try_from(length) else {
        return Err(Error::last_error());
    };
    let length = length.min(MAX_OS_CPU + 1);
    let online = if map.is_null() {
        OsCpuSet::new()
    } else {
        // SAFETY: libvirt promises a map of as many bits as it returned, in whole bytes, and this is at most that.
        cpus_of(unsafe { slice::from_raw_parts(map, map_bytes(length)) })
    };
    // SAFETY: libvirt allocated the map (or left the pointer null, which `free` accepts) and leaves it to us; the
    // slice made of it is gone.
    unsafe { free(map.cast()) };
    Ok(CpuMap { length, online })
}
