//! How long vCPUs have waited: `virConnectGetAllDomainStats`, whose records are ours to free.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_uint};
use std::ptr;
use std::slice;

use virt::error::Error;

use super::Connection;
use crate::host::DomainUuid;

/// The waiting time of each vCPU of each running domain, in nanoseconds.
pub(in crate::host::libvirt) type Delays = BTreeMap<(DomainUuid, u32), u64>;

/// Reads how long the vCPUs of all running domains have been runnable without running:
/// `virConnectGetAllDomainStats`, the values `vcpu.<number>.delay`. Domains that do not say are left out.
pub(in crate::host::libvirt) fn delays(connection: &Connection) -> Result<Delays, Error> {
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
}
