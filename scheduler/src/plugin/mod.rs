//! Policies that come in shared objects.
//!
//! [`library`] loads one and checks what it says of itself; [`conformance`] holds a policy, whatever it comes from,
//! against what every policy has promised. What a library and this program say to each other is
//! [`vcpu_policy_api::abi`].

pub mod conformance;
mod elf;
pub mod library;
