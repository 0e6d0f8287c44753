//! Where everything lies that another compiler has to find: version 1, for good.
//!
//! The C header asserts the same, out of what is compiled here; so a change of a type that would move something is an
//! error on this side before it becomes a new header. A struct may grow at its end: then its size changes here, and
//! nothing else.

use std::mem::{align_of, offset_of};

use super::types::{Host, MAX_SET_WORDS, Options, PlanTable, PolicyLibrary, PolicyTable, Text, first_size};
use crate::snapshot::rows::{
    ALIGNMENT, CoreRow, CpuRow, DomainRow, Header, LlcRow, NodeRow, TableRef, TextRef, VcpuRow,
};
use crate::topology::MAX_CPUS;

macro_rules! layout {
    ($($type:ty, $size:literal: $($field:ident $offset:literal),+;)+) => {
        const _: () = {
            $(
                assert!(size_of::<$type>() == $size);
                $(assert!(offset_of!($type, $field) == $offset);)+
            )+
        };
    };
}

layout! {
    TableRef, 16: offset 0, count 8, stride 12;
    TextRef, 8: offset 0, length 4;
    Header, 208: magic 0, size 8, flags 12, total_size 16, tick 24, now_ns 32, interval_ns 40, seed 48, budget 56, set_words 60, cpus 64, cores 80, llcs 96, nodes 112, distances 128, domains 144, vcpus 160, sets 176, text 192;
    CpuRow, 40: os_id 0, flags 4, core 8, llc 12, node 16, reserved 20, capacity 24, background 32;
    CoreRow, 16: llc 0, node 4, cpus 8, reserved 12;
    LlcRow, 8: node 0, cpus 4;
    NodeRow, 8: os_id 0, cpus 4;
    DomainRow, 48: uuid 0, name 16, first_vcpu 24, vcpu_count 28, flags 32, memory_node 36, weight 40;
    VcpuRow, 56: domain 0, number 4, cpu 8, affinity 12, allowed 16, flags 20, slot 24, reserved 28, born 32, load 40, wait 48;
    Text, 16: bytes 0, length 8;
    PolicyLibrary, 32: size 0, major 4, magic 8, policy_count 16, reserved 20, policies 24;
    PolicyTable, 104: size 0, reserved 4, name 8, version 24, summary 40, defaults 56, create 72, decide 80, destroy 88, extension 96;
    Host, 40: size 0, reserved 4, context 8, log 16, fail 24, extension 32;
    Options, 40: size 0, reserved 4, yaml 8, flat 24;
    PlanTable, 32: size 0, reserved 4, context 8, pin 16, note 24;
}

// The rows of a table lie one behind the other at a stride of their size, so that has to keep them aligned.
const _: () = {
    assert!(align_of::<Header>() == ALIGNMENT && align_of::<DomainRow>() == ALIGNMENT);
    assert!(align_of::<CpuRow>() == ALIGNMENT && align_of::<VcpuRow>() == ALIGNMENT);
    assert!(align_of::<CoreRow>() == 4 && align_of::<LlcRow>() == 4 && align_of::<NodeRow>() == 4);
    assert!(size_of::<Header>().is_multiple_of(ALIGNMENT));
};

// What is asked of the other side at least is what there was in version 1, not what there is today.
const _: () = {
    assert!(first_size::POLICY_LIBRARY == 32 && first_size::POLICY_TABLE == 104);
    assert!(first_size::HOST == 40 && first_size::OPTIONS == 40 && first_size::PLAN_TABLE == 32);
};

// A set of the snapshot can be handed back in a pin as it is.
const _: () = assert!(MAX_CPUS.div_ceil(u64::BITS as usize) <= MAX_SET_WORDS as usize);
