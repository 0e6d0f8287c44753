//! The process that a policy plugin runs in.
//!
//! A plugin is foreign code: it may crash, hang, leak, flood or exit. In a process of its own none of that reaches the
//! scheduler. This crate is that process, which links no libvirt, and what both sides must agree on:
//!
//! - [`offer`]: what a library has to offer;
//! - [`library`]: how an open file becomes that;
//! - [`wire`] and [`plan_wire`]: what goes over the socket between the two processes;
//! - [`main`]: the process, which gives up its rights before it loads anything.
//!
//! The other side, which starts the process, waits for it and ends it, is `plugin` in the scheduler's own package.

mod elf;
mod fields;
pub mod library;
pub mod offer;
pub mod plan_wire;
mod sandbox;
mod serve;
pub mod wire;

pub use serve::main;

/// An error with its causes, in one line.
fn error_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
