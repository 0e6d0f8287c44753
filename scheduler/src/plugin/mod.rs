//! Policies from shared objects: whether one may be loaded, where it runs, and what is left of it when it fails.
//!
//! ```text
//! path --trust--> sealed copy --process--> what it offers --supervised--> a policy that costs a tick when it fails
//! ```
//!
//! [`trust`] decides whether a file may be loaded and takes a copy that nobody can change. [`process`] starts the
//! program that loads it, in a process of its own, and talks with it within a deadline. [`supervised`] makes a policy
//! of that, which outlives its process. [`registry`] is the one table of all policies, built in and plugged in.
//! [`conformance`] holds a policy, whatever it comes from, against what every policy has promised.
//!
//! Loading itself, [`vcpu_policy_host::library`], lives with the program that hosts plugins.

pub mod conformance;
pub mod fault;
mod output;
pub mod process;
pub mod program;
pub mod registry;
pub mod supervised;
pub mod trust;

pub use vcpu_policy_host::library;
