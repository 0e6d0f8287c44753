//! x
pub mod engine;
pub mod host;
pub mod trace;
