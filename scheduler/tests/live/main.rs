//! The real binary on real guests.
//!
//! Each test starts a libvirt daemon of its own as an ordinary user, defines tiny guests that keep their vCPUs busy for
//! a chosen share of the time, runs the scheduler against it, and looks from outside at what became of the guests'
//! threads: with virsh, and in the kernel's own affinity masks. Needs libvirt, QEMU and binutils, but no root.

mod changes;
mod configuration;
mod connection;
mod daemon;
mod harness;
mod harness_promises;
mod host;
mod manual;
mod permission;
mod plugins;
mod restore;
mod soak;
mod stopping;
