//! Bytes as a library's tables and calls: refused or contained. `cargo +nightly fuzz run library`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vcpu_policy_api::abi::fuzzed;

fuzz_target!(|bytes: &[u8]| fuzzed::library(bytes));
