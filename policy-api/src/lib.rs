//! The vocabulary and the contract of `vcpu-scheduler`'s policies.
//!
//! A policy is a pure function with a memory: it sees a [`snapshot::Snapshot`] of a host and fills a [`plan::Plan`]
//! that says which vCPU gets which CPUs, and why. It does no I/O, reads no clock and draws no randomness of its own,
//! so the same state and the same snapshot give the same plan, to the bit. Nothing in a plan is trusted: the
//! scheduler checks each action before it touches a guest.
//!
//! What a policy author needs is [`policy::Policy`], the two types above, and the index types of [`ids`]; to make a
//! plugin of it, [`export_policy!`]; to test it, `testing` (a feature). The book is `docs/plugins.md`.

#[cfg(feature = "yaml")]
pub mod abi;
pub mod cpuset;
#[cfg(feature = "yaml")]
pub mod document;
pub mod explain;
pub mod ids;
pub mod log;
#[cfg(feature = "yaml")]
pub mod options;
pub mod plan;
pub mod policy;
pub mod snapshot;
pub mod statistics;
#[cfg(feature = "testing")]
pub mod testing;
pub mod topology;
#[cfg(feature = "yaml")]
pub mod yaml;
