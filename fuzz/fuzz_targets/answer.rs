//! Bytes as a frame of an answer: no panic. `cargo +nightly fuzz run answer`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vcpu_policy_host::wire::{Answer, Head};

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, payload)) = bytes.split_first_chunk() {
        let head = Head::from_bytes(*head);
        let _ = head.answer_length();
        let _ = Answer::decode(head.kind, payload);
    }
});
