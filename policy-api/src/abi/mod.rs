//! The plugin ABI: how a policy in a shared object, built by whatever compiler, meets whoever runs it.
//!
//! A library exports one C function, [`types::ENTRY_POINT`], which returns a table of policies. From there on it is
//! function pointers and plain structs on both sides:
//!
//! ```text
//!   host                                             library
//!   ────                                             ───────
//!   Library::new(table)              reads           PolicyLibrary ──> PolicyTable: name, defaults, …
//!   PluginPolicy::make(options)      ── create  ──>  an instance
//!   Decide::decide(snapshot, plan)   ── decide  ──>  reads the snapshot's block where it lies
//!                                    <──  pin   ──   each pin and note is copied at once
//!                                    <── log, fail ─ so is each line of text
//!   drop                             ── destroy ──>
//! ```
//!
//! Rules that let either side grow without breaking the other within one major version:
//! - A struct begins with its own size, as its writer was compiled; fields are added only at its end, and a reader
//!   looks only at those that the size covers. Tables of a snapshot state the stride of their rows.
//! - There are no C enums, bools, bit-fields or `long`; padding is explicit and zero; codes are `int32_t` constants, and
//!   an unknown one is an error like any other.
//! - Nothing changes hands: each side frees what it allocated, and a pointer is good for the call it comes with, where
//!   nothing else is said.
//! - What is not in the tables is looked up by name, as an extension. There are none so far.
//!
//! [`library`] and `instance` are the host's side, a safe API over foreign pointers; [`export`] is the plugin's side,
//! behind [`crate::export_policy!`]. What can be checked of a library is checked: null and misaligned pointers, sizes,
//! magic, version, counts, lengths, UTF-8. A pointer into nowhere, or code that writes where it should not, cannot be
//! found out by the process that it runs in: isolation is there for that.
//!
//! This is one of the three places in the project where `unsafe` is allowed.

#![expect(
    unsafe_code,
    reason = "pointers from and to other compilers; everything around this module is safe"
)]

pub mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod instance;
mod layout;
pub mod library;
mod panic;
mod text;
pub mod types;

pub use instance::LogSink;
pub use library::{Library, LibraryError, PluginPolicy};

#[cfg(test)]
mod tests;
