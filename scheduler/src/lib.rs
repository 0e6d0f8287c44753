//! The daemon: everything of `vcpu-scheduler` that touches the world.

pub mod engine;
pub mod host;
