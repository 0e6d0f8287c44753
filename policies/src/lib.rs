//! The built-in policies, and where they are found by name.
//!
//! Each policy has a file or folder of its own that opens with its rule, its promises and its limits:
//!
//! - [`stddev`], the default: one move a tick from the busiest pCPU to the idlest;
//! - [`observe`]: decides nothing and says what it sees.
//!
//! A policy here is no more than a plugin that comes along: it implements the same public trait
//! [`vcpu_policy_api::policy::Policy`], and its plans are trusted no more than a plugin's.

pub mod observe;
mod registry;
pub mod stddev;

pub use registry::{BUILT_IN, BuiltIn, DEFAULT, UnknownPolicy, find};
