//! Sets of CPUs as libvirt's maps: eight CPUs a byte, the least significant bit first. Pure.

use std::ffi::c_uchar;

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::ids::OsCpuId;

/// The CPUs of one of libvirt's maps: eight CPUs a byte, the least significant bit first.
pub(super) fn cpus_of(map: &[c_uchar]) -> OsCpuSet {
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
pub(in crate::host::libvirt) fn map_of(set: &OsCpuSet, cpus: u32) -> Vec<u8> {
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
pub(super) fn map_bytes(cpus: u32) -> usize {
    cpus.div_ceil(u8::BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

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
