//! The few libvirt calls that the `virt` crate lacks, and nothing else that needs `unsafe`.
//!
//! In go the crate's own safe handles, out come plain values. What C reports as a number that may be anything (a
//! state, a CPU, a count) is checked here and comes out as a value that says "unknown"; lengths handed to C are
//! those of the buffers handed with them; what libvirt allocates is freed here on every path.
//!
//! There is no `unsafe impl Send` here: the crate's handles are `Send`, because libvirt's connections may be used
//! from any thread.

#![expect(
    unsafe_code,
    reason = "C functions without a safe wrapper; this is the live host's only module that calls them"
)]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::slice;

use vcpu_policy_api::cpuset::{MAX_OS_CPU, OsCpuSet};
use vcpu_policy_api::ids::OsCpuId;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;

use crate::host::DomainUuid;

/// The most vCPUs that libvirt's protocol carries in one answer.
const MAX_VCPUS: usize = 16_384;
/// The most bytes of CPU maps that libvirt's protocol carries in one answer.
const MAX_MAP_BYTES: usize = 8 << 20;

unsafe extern "C" {
    /// C's `free`: libvirt hands out memory from `malloc` and asks its callers to free it so.
    fn free(memory: *mut c_void);
}

/// A connection whose end cannot panic: the crate's own `drop` does if libvirt reports an error on closing.
pub(super) struct Connection(ManuallyDrop<Connect>);

impl Connection {
    pub(super) fn new(connect: Connect) -> Self {
        Self(ManuallyDrop::new(connect))
    }
}

impl Deref for Connection {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.0
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the pointer is valid, since the crate keeps a reference for each `Connect` and this one was never
        // dropped; it is not used again, since `ManuallyDrop` keeps the crate from closing it a second time.
        unsafe { virt_sys::virConnectClose(self.0.as_ptr()) };
    }
}

/// Which of the host's CPUs are online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CpuMap {
    /// How many CPU numbers the map speaks about: those below this one.
    pub(super) length: u32,
    /// The CPUs that are online.
    pub(super) online: OsCpuSet,
}

/// Asks which CPUs are online: `virNodeGetCPUMap`.
pub(super) fn cpu_map(connection: &Connection) -> Result<CpuMap, Error> {
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

/// What libvirt says a vCPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VcpuState {
    Offline,
    Running,
    Blocked,
    Unknown(c_int),
}

/// A vCPU as libvirt sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VcpuInfo {
    pub(super) number: u32,
    pub(super) state: VcpuState,
    /// How long it has run, in nanoseconds; the QEMU driver counts in steps of 10 ms.
    pub(super) cpu_time_ns: u64,
    /// The CPU it ran on last, if known.
    pub(super) last_cpu: Option<OsCpuId>,
    /// Where it may run.
    pub(super) affinity: OsCpuSet,
}

/// Reads at most `most` vCPUs of a running domain on a host with CPU numbers below `cpus`: `virDomainGetVcpus`.
pub(super) fn vcpus(domain: &Domain, most: u32, cpus: u32) -> Result<Vec<VcpuInfo>, Error> {
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

/// The waiting time of each vCPU of each running domain, in nanoseconds.
pub(super) type Delays = BTreeMap<(DomainUuid, u32), u64>;

/// Reads how long the vCPUs of all running domains have been runnable without running:
/// `virConnectGetAllDomainStats`, the values `vcpu.<number>.delay`. Domains that do not say are left out.
pub(super) fn delays(connection: &Connection) -> Result<Delays, Error> {
    let mut list: *mut virt_sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is open for as long as it is borrowed; `list` is a place for the pointer that libvirt
    // writes.
    let count = unsafe {
        virt_sys::virConnectGetAllDomainStats(
            connection.as_ptr(),
            virt_sys::VIR_DOMAIN_STATS_VCPU,
            &raw mut list,
            virt_sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
                | virt_sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
        )
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let records = StatsRecords { list, count };
    let mut delays = Delays::new();
    for record in records.as_slice() {
        // SAFETY: each of the `count` entries points to a record that lives until the list is freed.
        let record = unsafe { &**record };
        let Some(domain) = uuid_of(record) else { continue };
        for (vcpu, delay) in parameters_of(record).iter().filter_map(delay_of) {
            delays.insert((domain, vcpu), delay);
        }
    }
    Ok(delays)
}

/// The answer of `virConnectGetAllDomainStats`, which is ours to free.
struct StatsRecords {
    list: *mut virt_sys::virDomainStatsRecordPtr,
    count: usize,
}

impl StatsRecords {
    fn as_slice(&self) -> &[virt_sys::virDomainStatsRecordPtr] {
        if self.list.is_null() {
            return &[];
        }
        // SAFETY: libvirt returned `count` as the number of entries of the list, which lives as long as `self`.
        unsafe { slice::from_raw_parts(self.list, self.count) }
    }
}

impl Drop for StatsRecords {
    fn drop(&mut self) {
        // SAFETY: the list is what libvirt handed out, or null, which it accepts; nothing borrows it any more.
        unsafe { virt_sys::virDomainStatsRecordListFree(self.list) };
    }
}

fn uuid_of(record: &virt_sys::virDomainStatsRecord) -> Option<DomainUuid> {
    let mut uuid = [0; virt_sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: the record holds a valid handle of its domain; the buffer has the length that the call asks for.
    let done = unsafe { virt_sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()) };
    (done == 0).then_some(DomainUuid(uuid))
}

fn parameters_of(record: &virt_sys::virDomainStatsRecord) -> &[virt_sys::virTypedParameter] {
    match usize::try_from(record.nparams) {
        Ok(count) if !record.params.is_null() => {
            // SAFETY: the record says how many parameters it holds; they live as long as it does.
            unsafe { slice::from_raw_parts(record.params, count) }
        }
        _ => &[],
    }
}

fn delay_of(parameter: &virt_sys::virTypedParameter) -> Option<(u32, u64)> {
    let vcpu = vcpu_with_delay(&parameter.field)?;
    if c_uint::try_from(parameter.type_) != Ok(virt_sys::VIR_TYPED_PARAM_ULLONG) {
        return None;
    }
    // SAFETY: the type says that this member of the union was written; it is an integer, any bits are one.
    let delay = unsafe { parameter.value.ul };
    Some((vcpu, delay))
}

/// The number in `vcpu.<number>.delay`; `None` for any other name.
fn vcpu_with_delay(field: &[c_char]) -> Option<u32> {
    let name: Vec<u8> = field
        .iter()
        .map(|byte| u8::from_ne_bytes(byte.to_ne_bytes()))
        .take_while(|&byte| byte != 0)
        .collect();
    let number = name.strip_prefix(b"vcpu.")?.strip_suffix(b".delay")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn vcpu_state(state: c_int) -> VcpuState {
    match c_uint::try_from(state) {
        Ok(virt_sys::VIR_VCPU_OFFLINE) => VcpuState::Offline,
        Ok(virt_sys::VIR_VCPU_RUNNING) => VcpuState::Running,
        Ok(virt_sys::VIR_VCPU_BLOCKED) => VcpuState::Blocked,
        _ => VcpuState::Unknown(state),
    }
}

/// The CPUs of one of libvirt's maps: eight CPUs a byte, the least significant bit first.
fn cpus_of(map: &[c_uchar]) -> OsCpuSet {
    let words: Vec<u64> = map
        .chunks(8)
        .map(|bytes| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        })
        .collect();
    OsCpuSet::from_words(&words)
}

/// The map that libvirt expects for a set of CPUs on a host with CPU numbers below `cpus`. It is longer if a member
/// is beyond them, so that libvirt sees, and refuses, what it was asked for.
pub(super) fn map_of(set: &OsCpuSet, cpus: u32) -> Vec<u8> {
    let last = set.iter().last().map_or(0, |OsCpuId(last)| last + 1);
    let mut map: Vec<u8> = set
        .as_ref()
        .words()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    map.resize(map_bytes(cpus.max(last).max(1)), 0);
    map
}

/// How many bytes a map of this many CPUs has.
fn map_bytes(cpus: u32) -> usize {
    cpus.div_ceil(u8::BITS) as usize
}

fn c_length(length: usize) -> c_int {
    c_int::try_from(length).expect("buffers for libvirt are bounded far below the largest int")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> [c_char; 80] {
        let mut field = [0; 80];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        field
    }

    #[test]
    fn only_the_delays_of_vcpus_are_taken() {
        for (name, vcpu) in [
            ("vcpu.0.delay", Some(0)),
            ("vcpu.117.delay", Some(117)),
            ("vcpu.0.time", None),
            ("vcpu.current", None),
            ("vcpu..delay", None),
            ("vcpu.-1.delay", None),
            ("vcpu.99999999999.delay", None),
            ("vcpu.0.delay.sum", None),
            ("", None),
        ] {
            assert_eq!(vcpu_with_delay(&field(name)), vcpu, "{name:?}");
        }
        let unterminated = field(&"x".repeat(80));
        assert_eq!(vcpu_with_delay(&unterminated), None);
    }

    #[test]
    fn a_state_that_libvirt_has_not_yet_is_unknown() {
        assert_eq!(vcpu_state(0), VcpuState::Offline);
        assert_eq!(vcpu_state(1), VcpuState::Running);
        assert_eq!(vcpu_state(2), VcpuState::Blocked);
        assert_eq!(vcpu_state(3), VcpuState::Unknown(3));
        assert_eq!(vcpu_state(-1), VcpuState::Unknown(-1));
    }

    #[test]
    fn maps_have_eight_cpus_a_byte() {
        for (list, cpus, map) in [
            ("0", 8, vec![1]),
            ("0-3,8", 16, vec![0x0f, 0x01]),
            ("0", 9, vec![1, 0]),
            ("63-64", 66, vec![0, 0, 0, 0, 0, 0, 0, 0x80, 0x01]),
            // A CPU that the host does not have is not cut off.
            ("12", 8, vec![0, 0x10]),
        ] {
            let set: OsCpuSet = list.parse().expect("a cpulist");
            assert_eq!(map_of(&set, cpus), map, "{list}");
            assert_eq!(cpus_of(&map), set, "{list}");
        }
        assert_eq!(map_of(&OsCpuSet::new(), 16), [0, 0]);
    }
}
