//! The few libvirt calls that the `virt` crate lacks, and nothing else that needs `unsafe`.
//!
//! In go the crate's own safe handles, out come plain values. What C reports as a number that may be anything (a
//! state, a CPU, a count, an event) is checked here and comes out as a value that says "unknown"; lengths handed to C
//! are those of the buffers handed with them; what libvirt allocates is freed here on every path. What libvirt calls
//! back ([`events`]) takes a note and returns: nothing of ours runs longer, or panics, inside libvirt.
//!
//! There is no `unsafe impl Send` here: the crate's handles are `Send`, because libvirt's connections may be used
//! from any thread.

#![expect(
    unsafe_code,
    reason = "C functions without a safe wrapper; this folder is the live host's only place that calls them"
)]

mod connection;
mod delays;
mod events;
mod ids;
mod map;
mod online;
mod vcpus;

use std::ffi::c_int;

pub(super) use self::connection::Connection;
pub(super) use self::delays::{Delays, delays};
pub(super) use self::events::{Changes, run_event_loop};
pub(super) use self::ids::running_ids;
pub(super) use self::map::map_of;
pub(super) use self::online::{CpuMap, cpu_map};
pub(super) use self::vcpus::{VcpuState, vcpus};

fn c_length(length: usize) -> c_int {
    c_int::try_from(length).expect("buffers for libvirt are bounded far below the largest int")
}
