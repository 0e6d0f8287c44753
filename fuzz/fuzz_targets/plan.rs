//! Bytes as a plan: no panic, and whatever is taken for a plan can be written again. `cargo +nightly fuzz run plan`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vcpu_policy_api::plan::Plan;
use vcpu_policy_host::plan_wire::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let mut plan = Plan::new();
    if decode(bytes, &mut plan).is_ok() {
        let mut again = Vec::new();
        // Replaced control characters may make it longer than the bytes it came from, but never by much.
        assert!(encode(&plan, &mut again).is_ok() || bytes.len() > 4 << 20);
    } else {
        assert_eq!(plan.actions().len() + plan.notes().len(), 0);
    }
});
